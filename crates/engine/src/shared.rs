//! What the handles of one engine share: the locked core, how calls enter and leave it, and the short way of blocking ones.
//!
//! Called by every handle; how a thread waits for longer is [`crate::waiting`]. What it must not do: run code of the application
//! under the lock.
#![allow(unsafe_code)]

use crate::anchor::Anchor;
use crate::completion::{Completion, Match};
use crate::config::Config;
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::core::{Core, Effects, Got, LOOKS_PER_TURN, Look, Receiving, Shown, Surroundings, Tags, Taken};
use crate::error::OpError;
use crate::pool::SegmentPool;
use crate::progress::Progress;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use sinew_base::biased::{BiasedGuard, BiasedLock, Guard};
use sinew_base::fork::ForkGuard;
use sinew_base::sleepers::Sleepers;
use sinew_proto::matching::Wanted;
use sinew_transport::{Interest, PollKey, Poller};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
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

/// Turns that a direct receive takes before it is posted: longer than a round trip over shared memory, and short enough
/// for others who want the lock and for the clock.
pub(crate) const TURNS_DIRECT: u32 = 64;
/// The same for the poll of a future: under a microsecond, as other tasks wait for its thread.
pub(crate) const TURNS_POLL: u32 = 2;
/// Turns of a receive for which there are no such looks: over sockets, with a source, without the bias.
const TURNS_ALONE: u32 = 256;

/// Runs code of the application; the first panic is kept.
fn attempt(result: &mut std::thread::Result<()>, f: impl FnOnce()) {
    crate::panics::keep(result, catch_unwind(AssertUnwindSafe(f)));
}

/// A direct receive that has its message, when what is run at the end of the section may panic: it becomes an operation, so that
/// the message is not lost by that.
#[inline(always)]
fn kept_if_it_may_panic(core: &mut Core, receiving: &Receiving, taken: Taken) -> Taken {
    match taken {
        Taken::Done(info) if core.effects.must_run() => {
            let memory = Memory::Borrowed { data: receiving.data, len: receiving.room };
            let number = core.direct.number();
            let untagged = receiving.pattern.untagged;
            Taken::Pending(core.keep_finished(receiving.endpoint, untagged, memory, Ok(info), number))
        }
        taken => taken,
    }
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

    /// Quick looks of a thread that has the bias: whether they are done. `None`: there may be none.
    #[inline(always)]
    pub(crate) fn look_quick(
        self: &Arc<Self>,
        may: impl FnOnce(&mut Core) -> bool,
        mut look: impl FnMut(&mut Core) -> Look,
    ) -> Option<bool> {
        let mut core = self.core.lock_if_biased()?;
        if !may(&mut core) {
            return None;
        }
        // What was staged goes out before anybody waits for an answer; a turn of progress sees to it where there is no room.
        core.flush_bundle();
        loop {
            match look(&mut core) {
                Look::Done => {
                    self.leave_quick(core, true);
                    return Some(true);
                }
                // It may panic: nothing must be taken out of the engine before that.
                Look::More if !core.effects.must_run() => {}
                _ => break,
            }
        }
        self.leave_quick(core, false);
        Some(false)
    }

    /// Ends quick looks. One who is done stops polling: whoever sleeps takes over.
    #[inline(always)]
    pub(crate) fn leave_quick(self: &Arc<Self>, core: BiasedGuard<'_, Core>, done: bool) {
        if core.effects.any() || (done && self.sleepers.any()) {
            self.leave_slowly(core, done);
        }
    }

    #[inline(never)]
    fn leave_slowly(self: &Arc<Self>, mut core: BiasedGuard<'_, Core>, done: bool) {
        let sleepers = self.sleepers.any();
        if core.effects.must_run() || (sleepers && (done || core.effects.any())) {
            // Taken out here: whoever has the lock next would run them, and lose by a panic of theirs what it takes out.
            let effects = std::mem::take(&mut core.effects);
            drop(core);
            self.hand_over();
            if effects.must_run() {
                self.run(effects);
            }
        } else {
            core.effects.clear();
        }
    }

    /// Waits for a posted operation for a while, the short way: messages go from the lane to the endpoint's receives as they
    /// come. `true`: it is over. Else it takes longer, or this thread is not the one that may.
    #[inline(never)]
    pub(crate) fn wait_quick(self: &Arc<Self>, endpoint: u32, key: Key, turns: u32) -> bool {
        for _ in 0..turns {
            let Some(mut core) = self.biased() else { return false };
            let over = core.deliver_until(endpoint, key);
            self.leave_quick(core, over);
            if over {
                return true;
            }
            let over = self.with(|core| {
                core.turn(1);
                core.is_over(key)
            });
            if over || self.core.contended() {
                return over;
            }
        }
        false
    }

    /// Waits for a message without memory for it for a while, the short way. `None`: it takes longer, or this thread is not
    /// the one that may.
    #[inline(always)]
    pub(crate) fn view_quick(
        self: &Arc<Self>,
        endpoint: u32,
        pattern: &Match,
        len_max: usize,
    ) -> Option<(Completion, Shown, Option<Anchor>)> {
        let (mut got, mut anchor) = (None, None);
        self.view_for_a_while(endpoint, pattern, len_max, &mut got, &mut anchor);
        got.map(|(info, shown)| (info, shown, anchor))
    }

    #[inline(never)]
    fn view_for_a_while(
        self: &Arc<Self>,
        endpoint: u32,
        pattern: &Match,
        len_max: usize,
        got: &mut Option<(Completion, Shown)>,
        anchor: &mut Option<Anchor>,
    ) {
        let wanted = Wanted::new(&(*pattern).into());
        for _ in 0..TURNS_DIRECT {
            let may = |core: &mut Core| core.may_receive_quick(endpoint, pattern);
            let look = |core: &mut Core| {
                let look = core.view_quick(endpoint, &wanted, len_max, got);
                if let (Look::Done, Some((_, Shown::Lent(..)))) = (&look, &*got) {
                    *anchor = Some(Anchor::new(self, core, endpoint));
                }
                look
            };
            match self.look_quick(may, look) {
                Some(false) => {}
                Some(true) | None => return,
            }
            self.with(|core| core.turn(1));
            if self.core.contended() {
                return;
            }
        }
    }

    /// One look for a message, the short way.
    #[inline(always)]
    pub(crate) fn recv_look(
        self: &Arc<Self>,
        endpoint: u32,
        tags: Tags,
        buf: &mut [u8],
        got: &mut Got,
    ) -> Look {
        let Some(mut core) = self.core.lock_if_biased() else { return Look::Away };
        let memory = (NonNull::from(&mut *buf).cast(), buf.len());
        // SAFETY: `buf` is borrowed meanwhile.
        let look = unsafe { core.recv_quick(endpoint, tags, memory, got) };
        self.leave_quick(core, matches!(look, Look::Done));
        look
    }

    /// Receives into borrowed memory, looking and making progress by turns for a while; what did not come meanwhile is posted,
    /// and must leave the table before the borrow ends: `note` hears of it under the lock.
    pub(crate) fn recv_direct(
        self: &Arc<Self>,
        endpoint: u32,
        pattern: Match,
        buf: &mut [u8],
        mut note: impl FnMut(Key),
    ) -> Result<Completion, Taken> {
        let (data, room) = (NonNull::from(&mut *buf).cast(), buf.len());
        let receiving = &Receiving { endpoint, pattern, data, room };
        let mut turns = TURNS_ALONE;
        for _ in 0..TURNS_DIRECT {
            let Some(tags) = Tags::of(&pattern) else { break };
            let mut got = Got::NOTHING;
            let (keeps, left) = match self.recv_look(endpoint, tags, buf, &mut got) {
                Look::Done => return Ok(got.info()),
                Look::Away => break,
                Look::Nothing | Look::Aside => (true, 0),
                // It may be the word that a loan is over, which somebody waits for.
                Look::More | Look::Other => (false, 0),
                // It has asked the system as often as so many turns do.
                Look::Dry => (true, turns.saturating_sub(LOOKS_PER_TURN + 1)),
                Look::Behind => (false, turns.saturating_sub(1)),
            };
            let reads = left > 0;
            // SAFETY: `buf` is borrowed meanwhile; an operation that comes back is the caller's to end before its own borrow
            // does, as with every `Memory::Borrowed`.
            if let Some(taken) = unsafe { self.recv_in_turns(keeps, 1, receiving, &mut note) } {
                return Err(taken);
            }
            turns = left;
            if self.core.contended() || (reads && left < LOOKS_PER_TURN) {
                break;
            }
        }
        // SAFETY: as above.
        Err(unsafe { self.recv_slowly(turns, receiving, &mut note) })
    }

    /// The long way of a direct receive: some turns of progress, which keep what is left of bundles if told so. An operation
    /// that comes of it is noted under the lock.
    ///
    /// # Safety
    /// The receive's memory is writable, and borrowed by the caller until the receive is over: done, or out of the table.
    #[inline(never)]
    unsafe fn recv_in_turns(
        self: &Arc<Self>,
        keeps: bool,
        turns: u32,
        receiving: &Receiving,
        note: &mut dyn FnMut(Key),
    ) -> Option<Taken> {
        self.with_settled(keeps, |core| {
            let mut taken = core.recv_before(receiving);
            for _ in 0..turns {
                if taken.is_some() || core.effects.any() || self.core.contended() {
                    break;
                }
                // SAFETY: the caller's promise.
                taken = unsafe { core.recv_in_turn(receiving) };
            }
            taken = taken.map(|taken| kept_if_it_may_panic(core, receiving, taken));
            if let Some(Taken::Pending(key)) = taken {
                note(key);
            }
            taken
        })
    }

    /// Some turns where there was no short way to try, as without the bias or over sockets; then the receive is posted.
    ///
    /// # Safety
    /// As [`Shared::recv_in_turns`].
    #[cold]
    #[inline(never)]
    unsafe fn recv_slowly(
        self: &Arc<Self>,
        turns: u32,
        receiving: &Receiving,
        note: &mut dyn FnMut(Key),
    ) -> Taken {
        // SAFETY: the caller's promise.
        if let Some(taken) = unsafe { self.recv_in_turns(false, turns, receiving, note) } {
            return taken;
        }
        self.with(|core| {
            // SAFETY: the caller's promise.
            let taken = unsafe { core.recv_posted(receiving) };
            let taken = kept_if_it_may_panic(core, receiving, taken);
            if let Taken::Pending(key) = taken {
                note(key);
            }
            taken
        })
    }

    /// The caller has got what it waited for and stops polling: whoever sleeps takes over, and sees to what is left of bundles.
    #[cold]
    #[inline(never)]
    fn hand_over(self: &Arc<Self>) {
        self.with_aside(|core| core.effects.finish());
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
