//! `membarrier` (2): the heavy side of the sleep protocol.
//!
//! Called by the domain when it opens and whenever it arms or a lane cools. The "global expedited" form reaches every
//! process on the machine that has registered, whatever its namespaces (Linux 4.16).

use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};
use std::sync::atomic::{Ordering, fence};

/// Registers this process; whether armed consumers elsewhere now reach its threads and whether it can reach theirs.
pub(crate) fn register() -> bool {
    let wanted = [MembarrierCommand::GlobalExpedited, MembarrierCommand::RegisterGlobalExpedited];
    let offered: MembarrierQuery = membarrier_query();
    wanted.iter().all(|&command| offered.contains_command(command))
        && membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// Orders everything before against everything after, here and, with `expedited`, in every registered process.
pub(crate) fn heavy(expedited: bool) {
    fence(Ordering::SeqCst);
    if expedited {
        // Registered above, so it cannot be refused; were it, the fences of this side alone would remain.
        let _ = membarrier(MembarrierCommand::GlobalExpedited);
        fence(Ordering::SeqCst);
    }
}
