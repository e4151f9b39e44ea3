//! What the handles of one engine share: the locked core, and how calls enter and leave it.
//!
//! Called by every handle; the short way of those that wait is in `quick` and `receive`, and how a thread waits for longer in
//! [`crate::waiting`]. What it must not do: run code of the application under the lock.
//!
//! # Panics of the application
//! What was left to run outside the lock may panic, in whichever call comes next. Which of the ways in a call takes says what that
//! does to it: [`Shared::with`] unwinds, before its closure if others left something, so that nothing that the closure takes out of
//! the engine is lost; [`Shared::with_first`] unwinds after its closure, for what must be done; [`Shared::with_caught`] hands the
//! panic over, for those who have more to do; [`Shared::with_in_drop`] lets none out.
#![allow(unsafe_code)]

mod quick;
mod receive;

pub(crate) use quick::{TURNS_DIRECT, TURNS_POLL};

use crate::config::Config;
use crate::core::table::Key;
use crate::core::{Core, Effects, Surroundings};
use crate::error::OpError;
use crate::pool::SegmentPool;
use crate::progress::Progress;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use sinew_base::biased::{BiasedGuard, BiasedLock, Guard};
use sinew_base::fork::ForkGuard;
use sinew_base::sleepers::Sleepers;
use sinew_transport::{Interest, PollKey, Poller};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

pub(crate) struct Shared {
    /// Dropped by hand: not in a forked child, whose copies of sockets and mappings belong to the parent.
    core: ManuallyDrop<BiasedLock<Core>>,
    poller: Arc<Poller>,
    surroundings: Arc<dyn Surroundings>,
    /// Wakes threads that sleep on the poller.
    pub(crate) waker: OwnedFd,
    /// Threads that sleep, or are about to; changed under the lock.
    pub(crate) sleepers: Sleepers,
    fork: ForkGuard,
    pub(crate) config: Arc<Config>,
    pub(crate) progress: Progress,
    pub(crate) stop: AtomicBool,
    /// Buffers for whichever peer they are sent to first.
    pub(crate) pool: Arc<SegmentPool>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.fork.forked() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.core) };
        }
    }
}

/// Runs code of the application; the first panic is kept.
fn attempt(result: &mut std::thread::Result<()>, f: impl FnOnce()) {
    crate::panics::keep(result, catch_unwind(AssertUnwindSafe(f)));
}

impl Shared {
    pub(crate) fn new(
        mut core: Core,
        poller: Arc<Poller>,
        progress: Progress,
    ) -> Result<Self, rustix::io::Errno> {
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        poller.add(&waker, PollKey { owner: 0, sub: 0 }, Interest::READ)?;
        let config = Arc::clone(&core.config);
        let surroundings = Arc::clone(&core.surroundings);
        core.effects = Effects::default();
        core.by_callers = progress == Progress::Caller;
        Ok(Self {
            core: ManuallyDrop::new(BiasedLock::new(core)),
            poller,
            surroundings,
            waker,
            sleepers: Sleepers::new(),
            fork: ForkGuard::new(),
            config,
            progress,
            stop: AtomicBool::new(false),
            pool: Arc::default(),
        })
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Instant {
        self.surroundings.now()
    }

    /// Whether this is a child of the process that made the engine.
    #[inline]
    pub(crate) fn check_fork(&self) -> Result<(), OpError> {
        if self.fork.forked() { Err(OpError::Forked) } else { Ok(()) }
    }

    /// [`Shared::with`], or `otherwise` in a forked child, which must touch neither the lock nor what it protects.
    pub(crate) fn with_unless_forked<R>(self: &Arc<Self>, otherwise: R, f: impl FnOnce(&mut Core) -> R) -> R {
        if self.fork.forked() { otherwise } else { self.with(f) }
    }

    /// Runs `f` on the core, then what it left to do outside the lock. A panic in a waker or in the drop of a buffer goes on
    /// to the caller after everything else was done. What others left to do is done before: nobody leaves the lock with it, and
    /// what is due of it when permits are settled comes before `f`, whose answer no panic but of its own doing takes away.
    #[inline]
    pub(crate) fn with<R>(self: &Arc<Self>, f: impl FnOnce(&mut Core) -> R) -> R {
        self.with_hot(f)
    }

    /// [`Shared::with`] for the few calls that messages go through: what they answer must not pass through memory.
    #[inline(always)]
    pub(crate) fn with_hot<R>(self: &Arc<Self>, f: impl FnOnce(&mut Core) -> R) -> R {
        self.with_settled(false, f)
    }

    /// The same; what is left of bundles stays where it is if told so.
    #[inline(always)]
    fn with_settled<R>(self: &Arc<Self>, keeps: bool, f: impl FnOnce(&mut Core) -> R) -> R {
        let mut core = self.core.lock();
        if keeps {
            core.settle_but_bundles();
        } else {
            while core.settle() {
                // It may panic: what `f` takes out of the engine must not be lost by that.
                self.release_and_run(core);
                core = self.core.lock();
            }
        }
        let result = f(&mut core);
        self.release(core);
        result
    }

    /// Ends a section: what it left to do is done outside the lock.
    #[inline(always)]
    fn release(self: &Arc<Self>, mut core: Guard<'_, Core>) {
        if !core.effects.any() {
            return;
        }
        if core.effects.must_run() {
            return self.release_and_run(core);
        }
        core.effects.clear();
        drop(core);
        self.tell_sleepers();
    }

    /// [`Shared::with`] beside a result that the caller has got, and that no panic of others may take away: nothing is given out to
    /// them.
    pub(crate) fn with_aside<R>(self: &Arc<Self>, f: impl FnOnce(&mut Core) -> R) -> R {
        self.with_settled(true, f)
    }

    #[cold]
    #[inline(never)]
    fn release_and_run(self: &Arc<Self>, mut core: Guard<'_, Core>) {
        let effects = std::mem::take(&mut core.effects);
        drop(core);
        self.run(effects);
    }

    #[cold]
    fn run(self: &Arc<Self>, effects: Effects) {
        match self.run_effects(effects) {
            // In a drop that another panic runs: a second one would end the process.
            Err(panic) if std::thread::panicking() => crate::panics::discard(panic),
            Err(panic) => resume_unwind(panic),
            Ok(()) => {}
        }
    }

    /// [`Shared::with`] for those who have more to do than a panic of the application may end, as what `f` takes out of the
    /// engine would be lost: it is kept in `broken`, if it is the first.
    pub(crate) fn with_caught<R>(
        self: &Arc<Self>,
        broken: &mut std::thread::Result<()>,
        f: impl FnOnce(&mut Core) -> R,
    ) -> R {
        let mut core = self.core.lock();
        core.settle();
        let result = f(&mut core);
        let effects = std::mem::take(&mut core.effects);
        drop(core);
        if effects.any() {
            crate::panics::keep(broken, self.run_effects(effects));
        }
        result
    }

    /// [`Shared::with`] for what must be done although code of the application, which others left to run, panics.
    pub(crate) fn with_first<R>(self: &Arc<Self>, f: impl FnOnce(&mut Core) -> R) -> R {
        let mut broken = Ok(());
        let result = self.with_caught(&mut broken, f);
        match broken {
            Ok(()) => result,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// [`Shared::with`] for drops, out of which no panic goes: it may be another panic that drops.
    pub(crate) fn with_in_drop<R>(self: &Arc<Self>, f: impl FnOnce(&mut Core) -> R) -> R {
        let mut broken = Ok(());
        let result = self.with_caught(&mut broken, f);
        broken.unwrap_or_else(crate::panics::discard);
        result
    }

    #[inline(always)]
    fn tell_sleepers(&self) {
        if self.sleepers.any() {
            self.notify();
        }
    }

    /// A message was staged the short way: who sleeps sends it, as nobody else may make progress for long.
    #[inline(always)]
    pub(crate) fn tell_of_staged(self: &Arc<Self>) {
        if self.sleepers.any() {
            // Settling says that the session has something to send, and that is told.
            self.with(|_| ());
        }
    }

    /// Waits until the system has what was sent in a session, if only calls of the application make progress: it may not call
    /// again for long. What was sent stays sent if that takes too long.
    #[cold]
    pub(crate) fn leave_to_system(self: &Arc<Self>, session: Key, limit: Option<Duration>) {
        if self.progress == Progress::Caller && self.check_fork().is_ok() {
            self.wait(limit, |core| (!core.is_held_up(session)).then_some(()));
        }
    }

    /// The core for a quick call, which leaves nothing to do outside the lock, if this thread has the bias.
    #[inline(always)]
    pub(crate) fn biased(&self) -> Option<BiasedGuard<'_, Core>> {
        self.core.lock_if_biased()
    }

    /// Whether another thread waits for the lock.
    #[inline]
    pub(crate) fn is_contended(&self) -> bool {
        self.core.contended()
    }

    #[cold]
    fn run_effects(self: &Arc<Self>, effects: Effects) -> std::thread::Result<()> {
        self.tell_sleepers();
        let mut result = Ok(());
        let handlers = effects.has_handlers();
        let (wakers, garbage, spent, events) = effects.into_lists();
        for waker in wakers {
            attempt(&mut result, || waker.wake());
        }
        for buf in garbage {
            attempt(&mut result, || drop(buf));
        }
        for waker in spent {
            attempt(&mut result, || drop(waker));
        }
        for tell in events {
            attempt(&mut result, tell);
        }
        if handlers {
            crate::panics::keep(&mut result, crate::complete::run_ended(self));
            crate::panics::keep(&mut result, crate::handler::run_ready(self));
        }
        result
    }

    /// Makes sleeping threads look again.
    #[cold]
    pub(crate) fn notify(&self) {
        let _ = rustix::io::write(&self.waker, &1u64.to_ne_bytes());
    }

    pub(crate) fn poller(&self) -> &Poller {
        &self.poller
    }
}
