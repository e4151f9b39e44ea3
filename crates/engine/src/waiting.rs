//! How a thread waits on an engine: it spins for a bounded time, then arms and sleeps on the poller.
//!
//! Called by all blocking calls, by the background thread and by event loops, through [`Shared`]. No wake-up is lost: arming looks
//! at everything once more after it was announced, and whoever ends an operation under the lock sees the sleepers that were
//! counted under the lock. What it must not do: hold the lock while it sleeps or runs code of the application.

use crate::core::Core;
use crate::shared::Shared;
use sinew_transport::Event;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a waiting thread does next.
enum Next<T> {
    Done(T),
    Again(usize),
}

/// What a thread that wants to sleep found.
enum Nap<T> {
    Done(T),
    Again,
    Sleep(Option<Duration>),
}

/// Turns between looks at the clock while spinning.
const TURNS_PER_CLOCK: u32 = 64;
/// After this long without anything a spinning thread lets others run.
const YIELD_AFTER: Duration = Duration::from_micros(20);

impl Shared {
    /// Waits until `check` answers, or `limit` has passed (`None`). Makes progress meanwhile, whatever the mode: in
    /// [`Progress::Thread`] too, because the caller waits anyhow. The clock is first read after a while of spinning: reading
    /// it costs a third of a message.
    pub(crate) fn wait<T>(
        self: &Arc<Self>,
        limit: Option<Duration>,
        check: impl FnMut(&mut Core) -> Option<T>,
    ) -> Option<T> {
        self.wait_taking(1, limit, check)
    }

    /// [`Shared::wait`] for an operation: when time is up `cancel` ends it in the very section that has looked for the last time.
    /// Code of the application may run, and panic, before that section: then the operation stands, and is its caller's to end.
    pub(crate) fn wait_or_cancel<T, C>(
        self: &Arc<Self>,
        limit: Option<Duration>,
        check: impl FnMut(&mut Core) -> Option<T>,
        cancel: impl FnMut(&mut Core) -> C,
    ) -> Result<T, C> {
        self.wait_turns(1, limit, check, cancel)
    }

    /// [`Shared::wait`] of which each turn takes up to `budget` frames of each lane: one for those who wait for something of
    /// their own, as what nobody wants yet lies best where it is; many for the background thread.
    pub(crate) fn wait_taking<T>(
        self: &Arc<Self>,
        budget: usize,
        limit: Option<Duration>,
        check: impl FnMut(&mut Core) -> Option<T>,
    ) -> Option<T> {
        self.wait_turns(budget, limit, check, |_| ()).ok()
    }

    fn wait_turns<T, C>(
        self: &Arc<Self>,
        budget: usize,
        limit: Option<Duration>,
        mut check: impl FnMut(&mut Core) -> Option<T>,
        mut cancel: impl FnMut(&mut Core) -> C,
    ) -> Result<T, C> {
        let mut deadline: Option<Instant> = None;
        let mut idle_since: Option<Instant> = None;
        let mut yielded = false;
        loop {
            let next = self.with(|core| self.look_and_turn(core, budget, yielded, &mut check));
            let moved = match next {
                Next::Done(done) => return Ok(done),
                Next::Again(moved) => moved,
            };
            if moved > 0 {
                idle_since = None;
            }
            let now = self.now();
            if deadline.is_none() {
                deadline = limit.and_then(|limit| now.checked_add(limit));
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                // `None`: something is to run first.
                let mut last = |core: &mut Core| check(core).ok_or_else(|| cancel(core));
                match self.with(|core| (!core.effects.must_run()).then(|| last(core))) {
                    Some(last) => return last,
                    None => continue,
                }
            }
            let idle = now.duration_since(*idle_since.get_or_insert(now));
            yielded = false;
            if idle >= self.config.spin {
                if let Some(done) = self.sleep(now, deadline, &mut check) {
                    return Ok(done);
                }
                idle_since = None;
            } else if idle >= YIELD_AFTER || self.is_contended() {
                std::thread::yield_now();
                yielded = true;
            }
        }
    }

    /// One section of a wait: looks, and takes turns until something was found or moved.
    #[inline(always)]
    fn look_and_turn<T>(
        &self,
        core: &mut Core,
        budget: usize,
        yielded: bool,
        check: &mut impl FnMut(&mut Core) -> Option<T>,
    ) -> Next<T> {
        // It may panic, and what `check` would take out of the engine must not be lost by that: not before it has run.
        if core.effects.must_run() {
            return Next::Again(1);
        }
        if let Some(done) = check(core) {
            return Next::Done(done);
        }
        // Counted turns come slowly to one who lets others run between them: descriptors must not wait for so many.
        let mut moved = if yielded { core.look(Some(Duration::ZERO)) } else { 0 };
        for _ in 0..TURNS_PER_CLOCK {
            let now = core.turn(budget);
            moved += now;
            // A look at a socket costs more than `check`, which may wait for what that socket takes.
            if now == 0 && core.polls_memory() {
                std::hint::spin_loop();
            } else if core.effects.must_run() {
                break;
            } else if let Some(done) = check(core) {
                // This thread stops polling: whoever sleeps takes over.
                core.effects.finish();
                return Next::Done(done);
            }
            if core.effects.any() || self.is_contended() {
                break;
            }
        }
        Next::Again(moved)
    }

    /// Sleeps until something happens or the deadline is near. Answers if `check` did before.
    fn sleep<T>(
        self: &Arc<Self>,
        now: Instant,
        deadline: Option<Instant>,
        check: &mut impl FnMut(&mut Core) -> Option<T>,
    ) -> Option<T> {
        let nap = self.with(|core| {
            if core.effects.must_run() {
                return Nap::Again;
            }
            if let Some(done) = check(core) {
                return Nap::Done(done);
            }
            if !self.arm(core) {
                return Nap::Again;
            }
            let until = core.next_timer(now).into_iter().chain(deadline).min();
            Nap::Sleep(until.map(|until| until.saturating_duration_since(now)))
        });
        let timeout = match nap {
            Nap::Done(done) => return Some(done),
            Nap::Again => return None,
            Nap::Sleep(timeout) => timeout,
        };
        let mut events: Vec<Event> = Vec::with_capacity(16);
        let _ = self.poller().wait(timeout, &mut events);
        self.with_first(|core| self.awake(core, &events));
        None
    }

    /// Counts a sleeper, unless something is there. Those who sleep already must be woken by what comes next all the same.
    fn arm(&self, core: &mut Core) -> bool {
        // What is to run may panic, and then nobody would end the sleep.
        let quiet = core.arm() && !core.effects.must_run();
        if quiet {
            self.sleepers.enter();
        } else if !self.sleepers.any() {
            core.disarm();
        }
        quiet
    }

    /// Handles what woke a sleeper.
    fn awake(&self, core: &mut Core, events: &[Event]) {
        if self.sleepers.leave() {
            core.disarm();
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.waker, &mut count);
        }
        core.dispatch(events);
        core.run_timers(self.now());
        // What the events brought may have an answer: it must not wait for the next call.
        core.progress();
    }

    /// Announces that the caller will wait for the engine's descriptor in its own event loop, and says for how long at most.
    /// `None`: something is there, process it first.
    pub(crate) fn arm_for_event(self: &Arc<Self>) -> Option<Option<Duration>> {
        self.with_unless_forked(Some(None), |core| {
            // The descriptor may be ready already, and a watcher by edges has been told of that before: look itself.
            if core.progress() > 0 || core.look(Some(Duration::ZERO)) > 0 || !self.arm(core) {
                return None;
            }
            let now = self.now();
            Some(core.next_timer(now).map(|at| at.saturating_duration_since(now)))
        })
    }

    /// Ends what [`Shared::arm_for_event`] announced and handles what is ready.
    pub(crate) fn process_event(self: &Arc<Self>, armed: bool) -> usize {
        if self.check_fork().is_err() {
            return 0;
        }
        let mut events: Vec<Event> = Vec::with_capacity(16);
        let _ = self.poller().wait(Some(Duration::ZERO), &mut events);
        self.with_first(|core| {
            if armed {
                self.awake(core, &events);
            } else {
                core.dispatch(&events);
                core.run_timers(self.now());
            }
            core.progress()
        })
    }
}
