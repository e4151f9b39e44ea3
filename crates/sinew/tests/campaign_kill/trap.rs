//! Runs an operation of this process instruction by instruction, by the processor's trap flag, and ends the process at one.
//!
//! Used by the victims of [`crate::steps`]: a trap in the same process costs less than a stop by a tracer, and a breakpoint
//! spares most of them, so that every instruction can be tried. Only for x86-64.
#![allow(unsafe_code)]

use crate::herd::Diary;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

/// The diary of this process, which says at which instruction it ends.
static DIARY: AtomicPtr<Diary> = AtomicPtr::new(null_mut());
static PID: AtomicU64 = AtomicU64::new(0);
/// What it does now: a [`State`].
static STATE: AtomicU8 = AtomicU8::new(State::Steps as u8);
/// The first byte of the instruction that the breakpoint stands for, and passes of it that are to come.
static COVERED: AtomicU8 = AtomicU8::new(0);
static PASSES: AtomicU64 = AtomicU64::new(0);

/// Whether this processor's flag is known here.
pub(crate) const POSSIBLE: bool = cfg!(target_arch = "x86_64");

/// What a trap means.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum State {
    /// One instruction more.
    Steps,
    /// It has come to the breakpoint.
    Runs,
    /// The instruction under the breakpoint is over.
    Passes,
}

/// `int3`.
const BREAKPOINT: u8 = 0xcc;

#[cfg(target_arch = "x86_64")]
extern "C" fn trapped(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    const TRAP_FLAG: i64 = 0x100;
    let set = |state: State| STATE.store(state as u8, Ordering::Relaxed);
    // SAFETY: set before the first trap, and mapped as long as the process lives.
    let diary = unsafe { &*DIARY.load(Ordering::Relaxed) };
    // SAFETY: the system hands a handler with `SA_SIGINFO` its context, which is this handler's until it returns.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let at = diary.at.load(Ordering::Relaxed);
    match STATE.load(Ordering::Relaxed) {
        state if state == State::Runs as u8 => {
            cover(at, COVERED.load(Ordering::Relaxed));
            registers[libc::REG_RIP as usize] = at as i64;
            registers[libc::REG_EFL as usize] |= TRAP_FLAG;
            let passes = PASSES.load(Ordering::Relaxed) - 1;
            PASSES.store(passes, Ordering::Relaxed);
            if passes > 0 {
                return set(State::Passes);
            }
            set(State::Steps);
        }
        state if state == State::Passes as u8 => {
            cover(at, BREAKPOINT);
            registers[libc::REG_EFL as usize] &= !TRAP_FLAG;
            return set(State::Runs);
        }
        _ => {}
    }
    step(diary, registers[libc::REG_RIP as usize] as u64);
}

/// Writes the first byte of the instruction at `at`.
fn cover(at: u64, byte: u8) {
    // SAFETY: `begin` has made this page of the program writable; this thread, which is in a handler or in `begin`, is the
    // only one of the process.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(at as usize).write_volatile(byte) };
}

/// Counts one instruction, that at `place` being the next, or ends the process there.
fn step(diary: &Diary, place: u64) {
    let steps = diary.steps.load(Ordering::Relaxed);
    if let Some(word) = diary.trace.get(steps as usize) {
        word.store(place, Ordering::Relaxed);
    }
    if steps >= diary.limit.load(Ordering::Relaxed) {
        diary.place.store(place, Ordering::Relaxed);
        diary.dying.store(1, Ordering::Release);
        loop {
            // SAFETY: no memory is involved.
            unsafe { libc::kill(PID.load(Ordering::Relaxed) as i32, libc::SIGKILL) };
        }
    }
    diary.steps.store(steps + 1, Ordering::Relaxed);
}

/// From here on each instruction of this thread is counted in the diary, which lives as long as the process; at the
/// diary's limit the process ends. With a place in the diary it runs freely until it has come there so many times as are
/// said, and counts from there.
#[cfg(target_arch = "x86_64")]
pub(crate) fn begin(diary: &Diary, pid: i32) {
    assert_eq!(
        std::fs::read_dir("/proc/self/task").unwrap().count(),
        1,
        "others would run into a breakpoint"
    );
    PID.store(pid as u64, Ordering::Relaxed);
    DIARY.store(std::ptr::from_ref(diary).cast_mut(), Ordering::Relaxed);
    diary.program.store(trapped as *const () as u64, Ordering::Relaxed);
    // SAFETY: the handler touches atomics, its own context and one byte of the program.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = trapped as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGTRAP, &raw const action, null_mut());
    }
    let at = diary.at.load(Ordering::Acquire);
    if at != 0 {
        PASSES.store(diary.passes.load(Ordering::Relaxed), Ordering::Relaxed);
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let page = std::ptr::with_exposed_provenance_mut::<libc::c_void>(at as usize & !4095);
        // SAFETY: a page of this program's code, which stays executable; writes go to this process's own copy.
        assert_eq!(unsafe { libc::mprotect(page, 4096, all) }, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: an instruction of this program begins there.
        let first = unsafe { std::ptr::with_exposed_provenance::<u8>(at as usize).read_volatile() };
        COVERED.store(first, Ordering::Relaxed);
        STATE.store(State::Runs as u8, Ordering::Relaxed);
        return cover(at, BREAKPOINT);
    }
    // SAFETY: changes the trap flag alone, whose traps are handled; the stack is as it was.
    unsafe {
        core::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq");
    }
}

/// Ends what [`begin`] began.
#[cfg(target_arch = "x86_64")]
pub(crate) fn end() {
    // SAFETY: as in `begin`.
    unsafe {
        core::arch::asm!("pushfq", "and qword ptr [rsp], -257", "popfq");
    }
    // SAFETY: set by `begin`.
    let diary = unsafe { &*DIARY.load(Ordering::Relaxed) };
    if STATE.load(Ordering::Relaxed) != State::Steps as u8 {
        cover(diary.at.load(Ordering::Relaxed), COVERED.load(Ordering::Relaxed));
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn begin(_: &Diary, _: i32) {
    unreachable!("no campaign runs where it is not possible");
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn end() {}
