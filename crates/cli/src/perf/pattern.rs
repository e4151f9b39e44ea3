//! Contents that differ from message to message, made and checked at the speed of memory.

/// Odd, so that all words of a message differ.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The seed of one message of a run.
pub(crate) const fn seed(run: u64, message: u64) -> u64 {
    (run ^ message.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_mul(STEP)
}

/// Fills `data` with what belongs to `seed`.
pub(crate) fn fill(seed: u64, data: &mut [u8]) {
    let mut words = data.chunks_exact_mut(8);
    let mut word = seed;
    for chunk in &mut words {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
    let rest = words.into_remainder();
    let len = rest.len();
    rest.copy_from_slice(&word.to_le_bytes()[..len]);
}

/// Whether every byte of `data` belongs to `seed`; else where the first wrong one is.
pub(crate) fn check(seed: u64, data: &[u8]) -> Result<(), usize> {
    let mut words = data.chunks_exact(8);
    let mut word = seed;
    let mut wrong = 0;
    for chunk in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(chunk);
        wrong |= u64::from_le_bytes(bytes) ^ word;
        word = word.wrapping_add(STEP);
    }
    let rest = words.remainder();
    if wrong == 0 && rest == &word.to_le_bytes()[..rest.len()] {
        return Ok(());
    }
    let mut expected = vec![0; data.len()];
    fill(seed, &mut expected);
    Err(data.iter().zip(&expected).position(|(got, want)| got != want).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_wrong_byte_is_found() {
        for len in [0, 1, 7, 8, 9, 64, 1003] {
            let mut data = vec![0; len];
            fill(seed(1, 2), &mut data);
            assert_eq!(check(seed(1, 2), &data), Ok(()));
            for at in 0..len {
                data[at] ^= 0x10;
                assert_eq!(check(seed(1, 2), &data), Err(at), "{len}");
                data[at] ^= 0x10;
            }
        }
    }

    #[test]
    fn messages_differ() {
        let message = |number| {
            let mut data = [0; 1];
            fill(seed(7, number), &mut data);
            data[0]
        };
        let all: std::collections::HashSet<u8> = (0..1000).map(message).collect();
        assert!(all.len() > 200, "one byte takes nearly all its values");
    }
}
