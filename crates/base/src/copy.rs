//! Copies out of and into memory that another process may touch at the same time.
//!
//! Called by lanes and by whoever reads a frame's body. Such memory must never be a Rust reference. The copies here go
//! through volatile words or through inline assembly, which the compiler may not read twice, invent or reorder into
//! something else. What arrives may be torn when the peer misbehaves: callers treat it as hostile input.
//!
//! Which instructions copy is chosen by length and by what the processor has, once per process. The thresholds were
//! measured on Zen 5 between two cores: wide registers win for short pieces, where `rep movsb` costs its start, and for
//! pieces beyond the second cache; `rep movsb` wins between; stores that bypass the cache win beyond the last cache.
#![allow(unsafe_code)]

/// Copies `len` bytes from memory that may change meanwhile.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes for the duration of the call, they do not overlap, and
/// nothing else accesses `dst` meanwhile. `src` may be written by others; what is read then is unspecified bytes.
#[inline(always)]
pub unsafe fn from_shared(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= SHORT_MAX {
        // SAFETY: the same contract.
        return unsafe { x86::copy_out(src, dst, len, len) };
    }
    // SAFETY: the same contract.
    unsafe { copy_short(src, dst, len) }
}

/// The same for a piece of a copy of `whole` bytes: whether it goes past the caches is chosen by the whole.
///
/// # Safety
/// As for [`from_shared`].
pub unsafe fn from_shared_part(src: *const u8, dst: *mut u8, len: usize, whole: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= SHORT_MAX {
        // SAFETY: the same contract.
        return unsafe { x86::copy_out(src, dst, len, whole) };
    }
    let _ = whole;
    // SAFETY: the same contract.
    unsafe { copy_short(src, dst, len) }
}

/// Copies `len` bytes into memory that others may read, or misuse, meanwhile.
///
/// # Safety
/// `src` is valid for reads and `dst` for writes of `len` bytes for the duration of the call, they do not overlap, and no
/// Rust reference to any byte of `dst` exists.
#[inline]
pub unsafe fn to_shared(src: *const u8, dst: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= SHORT_MAX {
        // SAFETY: the same contract.
        return unsafe { x86::copy_in(src, dst, len) };
    }
    // SAFETY: the same contract.
    unsafe { copy_short(src, dst, len) }
}

/// Says that the line at `at` will be read soon. Any address will do: a wrong one is ignored.
#[inline(always)]
pub fn soon(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every x86-64 processor has SSE; a prefetch changes nothing but caches, and never faults.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Says that the line at `at` will be written soon: it is taken from whoever read it. Any address will do: a wrong one is ignored.
#[inline(always)]
pub fn soon_written(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if PREFETCHES_FOR_WRITING.get() {
        // SAFETY: the processor has the instruction, which changes nothing but caches, and never faults.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags));
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Says that the line at `at`, which was just written, will be read by another core next: it moves to a cache that all cores
/// share. Any address will do. A processor without the instruction takes it for nothing.
#[inline(always)]
pub fn handed_over(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: `cldemote` lies where every x86-64 processor has instructions that do nothing; it changes nothing but caches,
    // and never faults.
    unsafe {
        core::arch::asm!("cldemote [{}]", in(reg) at, options(nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Whether [`handed_over`] can pay for lines that go to whoever wrote `word` last: the processor has the instruction, and the
/// word came from another core, by the time that it took. Two threads of one core share all caches: what leaves those costs
/// them three times what it takes otherwise.
#[inline]
pub fn is_far(word: &std::sync::atomic::AtomicU64) -> bool {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    return x86::MOVES_LINES.get() && x86::ticks_to_come(word) >= x86::FAR_TICKS;
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    {
        let _ = word;
        false
    }
}

/// Something about the processor that is asked for once: one load from then on.
#[cfg(all(target_arch = "x86_64", not(miri)))]
struct Known {
    answer: std::sync::atomic::AtomicU8,
    ask: fn() -> bool,
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
impl Known {
    const NO: u8 = 1;
    const YES: u8 = 2;

    const fn new(ask: fn() -> bool) -> Self {
        Self { answer: std::sync::atomic::AtomicU8::new(0), ask }
    }

    #[inline(always)]
    fn get(&self) -> bool {
        match self.answer.load(std::sync::atomic::Ordering::Relaxed) {
            0 => self.find_out(),
            answer => answer == Self::YES,
        }
    }

    #[cold]
    #[inline(never)]
    fn find_out(&self) -> bool {
        let has = (self.ask)();
        self.answer.store(if has { Self::YES } else { Self::NO }, std::sync::atomic::Ordering::Relaxed);
        has
    }
}

/// Whether the processor has `prefetchw`, which not all of the architecture have.
#[cfg(all(target_arch = "x86_64", not(miri)))]
static PREFETCHES_FOR_WRITING: Known = Known::new(|| {
    use core::arch::x86_64::__cpuid;
    const LAST: u32 = 0x8000_0000;
    const FEATURES: u32 = 0x8000_0001;
    const PREFETCHW: u32 = 1 << 8;
    __cpuid(LAST).eax >= FEATURES && __cpuid(FEATURES).ecx & PREFETCHW != 0
});

/// Below this, a few moves in line.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const SHORT_MAX: usize = 65;

#[inline]
unsafe fn copy_short(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: in each arm the pieces lie inside `len` bytes.
    unsafe {
        match len {
            0 => {}
            1 => dst.write_volatile(src.read_volatile()),
            2..=3 => {
                move2(src, dst);
                let last = len - 1;
                dst.add(last).write_volatile(src.add(last).read_volatile());
            }
            4..=7 => {
                move4(src, dst);
                move4(src.add(len - 4), dst.add(len - 4));
            }
            8 => move8(src, dst),
            9..=15 => {
                move8(src, dst);
                move8(src.add(len - 8), dst.add(len - 8));
            }
            16..=32 => {
                move16(src, dst);
                move16(src.add(len - 16), dst.add(len - 16));
            }
            33..=64 => {
                move16(src, dst);
                move16(src.add(16), dst.add(16));
                move16(src.add(len - 32), dst.add(len - 32));
                move16(src.add(len - 16), dst.add(len - 16));
            }
            _ => copy_by_16(src, dst, len),
        }
    }
}

/// At least 16 bytes, where nothing wider is to be had.
unsafe fn copy_by_16(src: *const u8, dst: *mut u8, len: usize) {
    let mut at = 0;
    // SAFETY: the pieces lie inside `len` bytes.
    unsafe {
        while at + 16 < len {
            move16(src.add(at), dst.add(at));
            at += 16;
        }
        move16(src.add(len - 16), dst.add(len - 16));
    }
}

/// Moves of 2, 4 and 8 bytes at any alignment: one instruction each, where a volatile access would be one for each byte.
macro_rules! small_move {
    ($name:ident, $bytes:literal, $load:literal, $store:literal) => {
        #[inline]
        unsafe fn $name(src: *const u8, dst: *mut u8) {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: that many bytes each, says the caller.
            unsafe {
                core::arch::asm!($load, $store, s = in(reg) src, d = in(reg) dst, a = out(reg) _,
                    options(nostack, preserves_flags));
            }
            #[cfg(not(all(target_arch = "x86_64", not(miri))))]
            // SAFETY: that many bytes each, says the caller.
            unsafe {
                let word = src.cast::<[u8; $bytes]>().read_volatile();
                dst.cast::<[u8; $bytes]>().write_volatile(word);
            }
        }
    };
}

small_move!(move2, 2, "mov {a:x}, [{s}]", "mov [{d}], {a:x}");
small_move!(move4, 4, "mov {a:e}, [{s}]", "mov [{d}], {a:e}");
small_move!(move8, 8, "mov {a}, [{s}]", "mov [{d}], {a}");

/// 16 bytes, in one register where there is one.
#[inline]
unsafe fn move16(src: *const u8, dst: *mut u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: 16 bytes each, says the caller.
    unsafe {
        core::arch::asm!("movups {a}, [{s}]", "movups [{d}], {a}", s = in(reg) src, d = in(reg) dst,
            a = out(xmm_reg) _, options(nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: 16 bytes each, says the caller; unaligned words go through byte arrays.
    unsafe {
        let first = src.cast::<[u8; 8]>().read_volatile();
        let second = src.add(8).cast::<[u8; 8]>().read_volatile();
        dst.cast::<[u8; 8]>().write_volatile(first);
        dst.add(8).cast::<[u8; 8]>().write_volatile(second);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use core::arch::asm;
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    /// Into shared memory: `rep movsb` from here on.
    const IN_MOVSB_FROM: usize = 1536;
    /// In this range, in pieces: one long `rep movsb` takes another way, which shows from 4 KiB on.
    const IN_PIECES_FROM: usize = 2049;
    const IN_PIECES_TO: usize = 12 << 10;
    const IN_PIECE: usize = 2048;
    /// Out of shared memory: `rep movsb` in this range.
    const OUT_MOVSB_FROM: usize = 12 << 10;
    const OUT_MOVSB_TO: usize = 640 << 10;
    /// Past the caches from here on: a target that is as long is not in them, and would push out what is copied from.
    const BYPASS_FROM: usize = 8 << 20;

    /// Ticks of the clock that a line takes at least from another core, beyond what it takes from the own first cache:
    /// 130 to 400 were seen, and none between two threads of one core.
    pub(super) const FAR_TICKS: u64 = 60;

    /// Whether the processor has `cldemote`.
    pub(super) static MOVES_LINES: super::Known = super::Known::new(|| {
        use core::arch::x86_64::{__cpuid, __cpuid_count};
        const CLDEMOTE: u32 = 1 << 25;
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ecx & CLDEMOTE != 0
    });

    /// What a first load of `word` takes beyond a second one.
    pub(super) fn ticks_to_come(word: &AtomicU64) -> u64 {
        use core::arch::x86_64::{_mm_lfence, _rdtsc};
        let load = || {
            // SAFETY: every x86-64 processor has both; they touch no memory.
            let before = unsafe {
                _mm_lfence();
                _rdtsc()
            };
            std::hint::black_box(word.load(Ordering::Relaxed));
            // SAFETY: as above.
            let after = unsafe {
                _mm_lfence();
                _rdtsc()
            };
            after.wrapping_sub(before)
        };
        let (first, second) = (load(), load());
        first.saturating_sub(second)
    }

    /// Widest registers that may be used.
    static WIDTH: AtomicU8 = AtomicU8::new(0);
    const SSE: u8 = 1;
    const AVX: u8 = 2;
    const AVX512: u8 = 3;

    #[inline]
    fn width() -> u8 {
        match WIDTH.load(Ordering::Relaxed) {
            0 => detect(),
            known => known,
        }
    }

    #[cold]
    fn detect() -> u8 {
        let width = if std::arch::is_x86_feature_detected!("avx512f") {
            AVX512
        } else if std::arch::is_x86_feature_detected!("avx") {
            AVX
        } else {
            SSE
        };
        WIDTH.store(width, Ordering::Relaxed);
        width
    }

    pub(super) unsafe fn copy_in(src: *const u8, dst: *mut u8, len: usize) {
        // SAFETY: the caller's contract throughout; more than 64 bytes; the width was detected.
        unsafe {
            match len {
                0..IN_MOVSB_FROM => wide(src, dst, len),
                IN_PIECES_FROM..IN_PIECES_TO => {
                    let mut at = 0;
                    while at < len {
                        let piece = IN_PIECE.min(len - at);
                        movsb(src.add(at), dst.add(at), piece);
                        at += piece;
                    }
                }
                _ => movsb(src, dst, len),
            }
        }
    }

    pub(super) unsafe fn copy_out(src: *const u8, dst: *mut u8, len: usize, whole: usize) {
        // SAFETY: the caller's contract throughout; more than 64 bytes; the width was detected.
        unsafe {
            match len {
                _ if whole >= BYPASS_FROM && width() >= AVX => bypass(src, dst, len),
                OUT_MOVSB_FROM..OUT_MOVSB_TO => movsb(src, dst, len),
                _ => wide(src, dst, len),
            }
        }
    }

    unsafe fn wide(src: *const u8, dst: *mut u8, len: usize) {
        // SAFETY: the caller's contract; the width was detected.
        unsafe {
            match width() {
                AVX512 if len < 128 => two_avx512(src, dst, len),
                _ if len < 128 => super::copy_short(src, dst, len),
                AVX512 => wide_avx512(src, dst, len),
                AVX => wide_avx(src, dst, len),
                _ => wide_sse(src, dst, len),
            }
        }
    }

    unsafe fn movsb(src: *const u8, dst: *mut u8, len: usize) {
        // SAFETY: the caller's contract; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") dst => _, inout("rsi") src => _,
                options(nostack, preserves_flags));
        }
    }

    /// `len >= 128`: whole 128 bytes, then the last 128, which may overlap what was done.
    unsafe fn in_pieces(len: usize, mut piece: impl FnMut(usize)) {
        let mut at = 0;
        while at + 128 <= len {
            piece(at);
            at += 128;
        }
        if at < len {
            piece(len - 128);
        }
    }

    /// `64 <= len <= 128`: two pieces that meet or overlap.
    #[target_feature(enable = "avx512f")]
    unsafe fn two_avx512(src: *const u8, dst: *mut u8, len: usize) {
        // SAFETY: 64 bytes at the beginning and 64 at the end lie inside.
        unsafe {
            asm!("vmovdqu64 zmm16, [{s}]", "vmovdqu64 zmm17, [{s} + {l}]",
                "vmovdqu64 [{d}], zmm16", "vmovdqu64 [{d} + {l}], zmm17",
                s = in(reg) src, d = in(reg) dst, l = in(reg) len - 64, out("zmm16") _, out("zmm17") _,
                options(nostack, preserves_flags));
        }
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn wide_avx512(src: *const u8, dst: *mut u8, len: usize) {
        // Registers from 16 up leave no dirty upper halves behind.
        let piece = |at: usize| {
            // SAFETY: `at + 128 <= len`.
            unsafe {
                asm!("vmovdqu64 zmm16, [{s}]", "vmovdqu64 zmm17, [{s} + 64]",
                    "vmovdqu64 [{d}], zmm16", "vmovdqu64 [{d} + 64], zmm17",
                    s = in(reg) src.add(at), d = in(reg) dst.add(at), out("zmm16") _, out("zmm17") _,
                    options(nostack, preserves_flags));
            }
        };
        // SAFETY: `len >= 128`.
        unsafe { in_pieces(len, piece) };
    }

    #[target_feature(enable = "avx")]
    unsafe fn wide_avx(src: *const u8, dst: *mut u8, len: usize) {
        let piece = |at: usize| {
            // SAFETY: `at + 128 <= len`.
            unsafe {
                asm!("vmovdqu {a}, [{s}]", "vmovdqu {b}, [{s} + 32]", "vmovdqu {c}, [{s} + 64]",
                    "vmovdqu {e}, [{s} + 96]", "vmovdqu [{d}], {a}", "vmovdqu [{d} + 32], {b}",
                    "vmovdqu [{d} + 64], {c}", "vmovdqu [{d} + 96], {e}",
                    s = in(reg) src.add(at), d = in(reg) dst.add(at), a = out(ymm_reg) _, b = out(ymm_reg) _,
                    c = out(ymm_reg) _, e = out(ymm_reg) _, options(nostack, preserves_flags));
            }
        };
        // SAFETY: `len >= 128`; the last instruction only clears upper halves.
        unsafe {
            in_pieces(len, piece);
            asm!("vzeroupper", options(nostack, preserves_flags, nomem));
        }
    }

    unsafe fn wide_sse(src: *const u8, dst: *mut u8, len: usize) {
        let piece = |at: usize| {
            for part in [at, at + 64] {
                // SAFETY: `part + 64 <= len`.
                unsafe {
                    asm!("movups {a}, [{s}]", "movups {b}, [{s} + 16]", "movups {c}, [{s} + 32]",
                        "movups {e}, [{s} + 48]", "movups [{d}], {a}", "movups [{d} + 16], {b}",
                        "movups [{d} + 32], {c}", "movups [{d} + 48], {e}",
                        s = in(reg) src.add(part), d = in(reg) dst.add(part), a = out(xmm_reg) _,
                        b = out(xmm_reg) _, c = out(xmm_reg) _, e = out(xmm_reg) _,
                        options(nostack, preserves_flags));
                }
            }
        };
        // SAFETY: `len >= 128`.
        unsafe { in_pieces(len, piece) };
    }

    /// Stores that go past the caches; the target is aligned first.
    #[target_feature(enable = "avx")]
    unsafe fn bypass(src: *const u8, dst: *mut u8, len: usize) {
        let lead = dst.align_offset(64).min(len);
        let (src, dst, len) = (src.wrapping_add(lead), dst.wrapping_add(lead), len - lead);
        // SAFETY: the lead lies before the moved pointers and belongs to the same ranges.
        unsafe { movsb(src.wrapping_sub(lead), dst.wrapping_sub(lead), lead) };
        let whole = len & !127;
        let mut at = 0;
        while at < whole {
            // SAFETY: `at + 128 <= len`; the target is aligned to 64.
            unsafe {
                asm!("vmovdqu {a}, [{s}]", "vmovdqu {b}, [{s} + 32]", "vmovdqu {c}, [{s} + 64]",
                    "vmovdqu {e}, [{s} + 96]", "vmovntdq [{d}], {a}", "vmovntdq [{d} + 32], {b}",
                    "vmovntdq [{d} + 64], {c}", "vmovntdq [{d} + 96], {e}",
                    s = in(reg) src.wrapping_add(at), d = in(reg) dst.wrapping_add(at), a = out(ymm_reg) _,
                    b = out(ymm_reg) _, c = out(ymm_reg) _, e = out(ymm_reg) _,
                    options(nostack, preserves_flags));
            }
            at += 128;
        }
        // SAFETY: the fence orders the stores above for whoever is told next; the rest lies inside the ranges.
        unsafe {
            asm!("sfence", "vzeroupper", options(nostack, preserves_flags));
            movsb(src.wrapping_add(whole), dst.wrapping_add(whole), len - whole);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        type Kernel = unsafe fn(*const u8, *mut u8, usize);

        #[test]
        fn every_kernel_of_this_processor_copies_exactly_its_bytes() {
            let mut kernels: Vec<(&str, Kernel)> = vec![("sse", wide_sse), ("movsb", movsb)];
            if width() >= AVX {
                kernels.push(("avx", wide_avx as Kernel));
                kernels.push(("bypass", bypass as Kernel));
            }
            if width() >= AVX512 {
                kernels.push(("avx512", wide_avx512 as Kernel));
            }
            let source: Vec<u8> = (0..9000u32).map(|i| (i * 7 + 3) as u8).collect();
            for (name, kernel) in kernels {
                for len in (128..400).chain([1024, 1535, 4096, 8191]) {
                    for shift in [0, 1, 33] {
                        let mut target = vec![0xa5; len + 128];
                        // SAFETY: both ranges lie inside their vectors; the processor has the registers.
                        unsafe { kernel(source.as_ptr().add(shift), target.as_mut_ptr().add(shift), len) };
                        assert_eq!(target[shift..shift + len], source[shift..shift + len], "{name} {len}");
                        assert!(target[..shift].iter().chain(&target[shift + len..]).all(|&b| b == 0xa5));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_copies_exactly_its_bytes() {
        let source: Vec<u8> = (0..100_000u32).map(|i| (i * 7 + 3) as u8).collect();
        for len in (0..300).chain([1535, 1536, 1537, 4096, 8191, 30_000]) {
            for shift in [0, 1, 7, 8, 15] {
                for copy in [from_shared, to_shared] {
                    let mut target = vec![0xa5; len + 32];
                    // SAFETY: both ranges lie inside their vectors.
                    unsafe { copy(source.as_ptr().add(shift), target.as_mut_ptr().add(shift), len) };
                    assert_eq!(
                        target[shift..shift + len],
                        source[shift..shift + len],
                        "len {len} shift {shift}"
                    );
                    assert!(target[..shift].iter().chain(&target[shift + len..]).all(|&byte| byte == 0xa5));
                }
            }
        }
    }

    #[test]
    fn what_is_said_of_lines_changes_no_byte_and_any_address_will_do() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
        let said = bytes.clone();
        for at in (0..1000).step_by(7) {
            let line = said.as_ptr().wrapping_add(at);
            soon(line);
            soon_written(line);
            handed_over(line);
        }
        for nowhere in [core::ptr::null::<u8>(), core::ptr::without_provenance(usize::MAX)] {
            soon(nowhere);
            soon_written(nowhere);
            handed_over(nowhere);
        }
        assert_eq!(said, bytes);
    }

    #[test]
    fn a_word_that_this_core_has_just_written_is_not_far() {
        let word = std::sync::atomic::AtomicU64::new(0);
        // A thread that is put aside between the two looks takes a near one for far.
        let near = (0..1000).any(|number| {
            word.store(number, std::sync::atomic::Ordering::Relaxed);
            !is_far(&word)
        });
        assert!(near);
    }
}
