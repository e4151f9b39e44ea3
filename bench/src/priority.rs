//! Real-time priority for everything that the runner starts: keeps other work off the two cores on a shared machine.
//! `main` calls it once. Scheduling classes are not in rustix, so this is the one call of libc here.
#![allow(unsafe_code)]

use anyhow::{Result, ensure};

/// Puts this process, and so every program it starts from now on, in the class SCHED_FIFO at its lowest priority.
/// Needs root or CAP_SYS_NICE.
pub fn realtime() -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the parameters are read during the call only; process 0 is the caller.
    let code = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    ensure!(code == 0, "--realtime: {} (needs root or CAP_SYS_NICE)", std::io::Error::last_os_error());
    Ok(())
}
