//! Who makes progress: a value, not a build option.

use crate::shared::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Who moves messages while the application does something else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Progress {
    /// Whoever waits polls: lowest latency, no thread. Nothing moves while nobody calls the engine; a future that is polled
    /// asks to be polled again at once.
    #[default]
    Caller,
    /// A background thread of the engine, pinned to `cpu` if one is given, which spins for the option `spin` before it
    /// sleeps. It blocks all signals. Handlers run on it; futures are woken by it. A panic in a waker is told as an
    /// event and ends nothing.
    Thread {
        /// The processor to run on.
        cpu: Option<usize>,
    },
    /// The application's event loop: it watches [`crate::Engine::event_fd`], calls [`crate::Engine::arm`] before it sleeps
    /// and [`crate::Engine::process`] when the descriptor is readable.
    Event,
}

/// The body of the background thread.
pub(crate) fn run(shared: &Arc<Shared>, cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
    let stopped = |_: &mut crate::core::Core| shared.stop.load(Ordering::Acquire).then_some(());
    // Wakers and buffers are the application's: a panic in one must not end everybody's progress.
    let turn = || {
        let _ = shared.wait_taking(crate::core::BUDGET, None, stopped);
    };
    while !crate::panics::survives(turn) {
        crate::events::now(crate::events::thread_panicked());
    }
}
