//! Looks at many bytes at once.
//!
//! Called by tag matching, for each message. It knows nothing of what the bytes mean.
#![allow(unsafe_code)]

/// One bit for each byte that is `byte`, the first one lowest. Without branches: where it is cannot be foreseen.
#[inline(always)]
#[must_use]
pub fn equal(bytes: &[u8; 64], byte: u8) -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return equal_by_vectors(bytes, byte);
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    return equal_plainly(bytes, byte);
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn equal_by_vectors(bytes: &[u8; 64], byte: u8) -> u64 {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
    let (parts, _) = bytes.as_chunks::<16>();
    let part = |at: usize| {
        // SAFETY: every x86-64 processor has SSE2, and a part has the 16 bytes that are loaded.
        let equal = unsafe {
            let part = _mm_loadu_si128(parts[at].as_ptr().cast::<__m128i>());
            _mm_movemask_epi8(_mm_cmpeq_epi8(part, _mm_set1_epi8(byte.cast_signed())))
        };
        u64::from(equal.cast_unsigned())
    };
    part(0) | part(1) << 16 | part(2) << 32 | part(3) << 48
}

#[cfg(any(test, not(all(target_arch = "x86_64", not(miri)))))]
fn equal_plainly(bytes: &[u8; 64], byte: u8) -> u64 {
    const GATHER: u64 = 0x0101_0101_0101_0101;
    let mut bits = [0_u8; 64];
    for (at, (bit, other)) in bits.iter_mut().zip(bytes).enumerate() {
        *bit = if *other == byte { 1 << (at % 8) } else { 0 };
    }
    let (bits, _) = bits.as_chunks::<8>();
    u64::from_le_bytes(std::array::from_fn(|at| {
        // Each byte has a bit of its own, so the sum of them all, which ends up on top, is their union.
        (u64::from_le_bytes(bits[at]).wrapping_mul(GATHER) >> 56) as u8
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_with_the_byte_is_found_and_no_other() {
        let mut seed = 7u64;
        for _ in 0..2000 {
            let mut bytes = [0; 64];
            for byte in &mut bytes {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Few different bytes, the extremes among them.
                *byte = [0, 1, 0x7f, 0x80, 0x81, 0xff][(seed >> 33) as usize % 6];
            }
            for byte in [0, 1, 0x7f, 0x80, 0x81, 0xff, (seed >> 56) as u8] {
                let model = bytes
                    .iter()
                    .enumerate()
                    .fold(0, |bits, (at, &other)| bits | u64::from(other == byte) << at);
                assert_eq!((equal(&bytes, byte), equal_plainly(&bytes, byte)), (model, model));
            }
        }
    }
}
