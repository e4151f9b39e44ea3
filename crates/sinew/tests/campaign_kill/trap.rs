//! Runs an operation of this process instruction by instruction, by the processor's trap flag, and ends the process at one.
//!
//! Used by the victims of [`crate::steps`]: a trap in the same process costs a tenth of a stop by a tracer, so that every
//! instruction can be tried. Only for x86-64.
#![allow(unsafe_code)]

use crate::herd::Diary;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};

/// The diary of this process, which says at which instruction it ends.
static DIARY: AtomicPtr<Diary> = AtomicPtr::new(null_mut());
static PID: AtomicI32 = AtomicI32::new(0);

/// Whether this processor's flag is known here.
pub(crate) const POSSIBLE: bool = cfg!(target_arch = "x86_64");

extern "C" fn trapped(_: libc::c_int) {
    // SAFETY: set before the first trap, and mapped as long as the process lives.
    let diary = unsafe { &*DIARY.load(Ordering::Relaxed) };
    let steps = diary.steps.load(Ordering::Relaxed);
    if steps >= diary.limit.load(Ordering::Relaxed) {
        diary.dying.store(1, Ordering::Release);
        loop {
            // SAFETY: no memory is involved.
            unsafe { libc::kill(PID.load(Ordering::Relaxed), libc::SIGKILL) };
        }
    }
    diary.steps.store(steps + 1, Ordering::Relaxed);
}

/// From here on each instruction of this thread is counted in the diary, which lives as long as the process; at the
/// diary's limit the process ends.
pub(crate) fn begin(diary: &Diary, pid: i32) {
    PID.store(pid, Ordering::Relaxed);
    DIARY.store(std::ptr::from_ref(diary).cast_mut(), Ordering::Relaxed);
    // SAFETY: the handler touches atomics only.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = trapped as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGTRAP, &raw const action, null_mut());
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: changes the trap flag alone, whose traps are handled; the stack is as it was.
    unsafe {
        core::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq");
    }
}

/// Ends what [`begin`] began.
pub(crate) fn end() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `begin`.
    unsafe {
        core::arch::asm!("pushfq", "and qword ptr [rsp], -257", "popfq");
    }
}
