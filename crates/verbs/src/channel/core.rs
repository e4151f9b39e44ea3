//! What a channel and everything that came from it share: the queue pairs, the claims, and who waits for the device.
#![allow(unsafe_code)]

use super::asynchronous::Owned;
use super::claims::{Claim, Claims, Ended};
use super::state::{Later, Peer, State};
use super::work::Work;
use crate::cq::CompletionChannel;
use crate::error::{Error, Result};
use crate::hub::{Held, Member, Tracker};
use crate::pd::ProtectionDomain;
use crate::qp::{Endpoint, PreparedQueuePair, Rc};
use crate::work::WorkError;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// How long a wait polls before it sleeps.
const SPIN: Duration = Duration::from_micros(30);

/// How long a sleep lasts before it looks by itself: whoever drives the channel besides may take its event away, and whoever should tell
/// of an end may have panicked.
const LOOK: Duration = Duration::from_millis(100);

/// How long a queue pair in its error state gets to flush, before it is destroyed.
const FLUSH: Duration = Duration::from_secs(1);

/// Shared by a channel, its scopes, its futures and its unpolled operations.
pub(crate) struct Core {
    state: Mutex<State>,
    /// For those who wait while another thread watches the device.
    watched: Condvar,
    events: CompletionChannel,
    pd: ProtectionDomain,
}

/// Why a borrowed operation could not be waited out.
pub(crate) struct CutShort(pub(crate) Error);

impl Core {
    pub(crate) fn new(
        pd: &ProtectionDomain,
        events: CompletionChannel,
        tracker: Tracker<Rc, Claim>,
        members: Vec<Option<Member>>,
        operations: usize,
        parked_bytes_max: usize,
    ) -> Self {
        let peers = members.into_iter().map(|member| Peer { member, broken: None }).collect();
        let claims = Claims::with_room(operations);
        let state = State { tracker, claims, peers, is_watched: false, parked_bytes_max, scopes: 0 };
        Self { state: Mutex::new(state), watched: Condvar::new(), events, pd: pd.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something under the lock, and what it leaves to be done outside.
    fn with<T>(&self, f: impl FnOnce(&mut State, &mut Later) -> T) -> T {
        let mut later = Later::default();
        let answer = f(&mut self.lock(), &mut later);
        later.run();
        answer
    }

    pub(crate) fn protection_domain(&self) -> &ProtectionDomain {
        &self.pd
    }

    pub(crate) const fn events(&self) -> &CompletionChannel {
        &self.events
    }

    pub(crate) fn peers(&self) -> u32 {
        self.lock().peers.len() as u32
    }

    /// Whether there is a queue pair for a peer.
    pub(crate) fn has(&self, peer: u32) -> bool {
        self.lock().peers.get(peer as usize).is_some_and(|peer| peer.member.is_some())
    }

    pub(crate) fn endpoint(&self, peer: u32) -> Result<Endpoint> {
        let state = self.lock();
        let member = state.usable(peer)?;
        state.tracker.endpoint(member)
    }

    pub(crate) fn connect(&self, peer: u32, endpoint: &Endpoint) -> Result<()> {
        let mut state = self.lock();
        let member = state.usable(peer)?;
        state.tracker.connect(member, endpoint)
    }

    #[cfg(test)]
    pub(crate) fn queue_pair<T>(&self, peer: u32, look: impl FnOnce(&crate::qp::QueuePair<Rc>) -> T) -> T {
        let state = self.lock();
        let member = state.usable(peer).unwrap();
        look(state.tracker.qp(member).unwrap())
    }

    /// Why a peer cannot be used, if it cannot.
    pub(crate) fn broken(&self, peer: u32) -> Option<String> {
        self.lock().peers.get(peer as usize)?.broken.clone()
    }

    pub(crate) fn parked_bytes(&self) -> usize {
        self.lock().claims.parked_bytes()
    }

    /// Posts an operation on borrowed memory, in a scope or in none (0).
    ///
    /// # Safety
    /// The memory stays borrowed until the claim's result was taken, or `wait_out` returned.
    pub(crate) unsafe fn post(&self, peer: u32, scope: u32, work: &Work<'_>) -> Result<Claim> {
        work.check()?;
        // Places of what has ended are free once it was read. Wakers run before the post: a panic of theirs leaves nothing out that nobody
        // waits for.
        self.progress()?;
        let mut state = self.lock();
        let member = state.usable(peer)?;
        let State { tracker, claims, .. } = &mut *state;
        let claim = claims.open(peer, scope, None);
        // SAFETY: by the caller's promise, the memory stays until the claim has ended; it is enclosed by its registration, as elements are.
        let posted = unsafe {
            if work.is_receive() {
                tracker.post_receive(member, |_, wr_id, _| Ok(work.receive_request(wr_id)), claim)
            } else {
                tracker.post_send(member, |_, wr_id, _| Ok(work.request(wr_id)), claim)
            }
        };
        match posted {
            Ok(()) => Ok(claim),
            Err((Some(claim), error)) => {
                claims.cancel(claim);
                Err(*error)
            }
            // The device may have taken it: it is flushed, and its claim tells so.
            Err((None, _)) => Ok(claim),
        }
    }

    /// Posts an operation that owns its memory.
    pub(crate) fn submit(&self, peer: u32, owned: Owned) -> std::result::Result<Claim, (Held, Error)> {
        match self.progress() {
            Ok(_) => self.submit_now(peer, owned),
            Err(error) => Err((owned.into_held(), error)),
        }
    }

    /// The same without reading what has ended: nothing of anybody else's runs in here, as wakers.
    pub(crate) fn submit_now(&self, peer: u32, owned: Owned) -> std::result::Result<Claim, (Held, Error)> {
        let mut state = self.lock();
        let room = state.usable(peer).and_then(|member| {
            if state.claims.parked_bytes() > state.parked_bytes_max {
                let depth = u32::try_from(state.parked_bytes_max).unwrap_or(u32::MAX);
                return Err(Error::Full { queue: "room for memory that nobody waits for, in bytes,", depth });
            }
            Ok(member)
        });
        let answer = match room {
            Ok(member) => owned.post(&mut state, member, peer),
            Err(error) => Err((owned.into_held(), error)),
        };
        drop(state);
        answer
    }

    /// Its result, if it ended. Never blocks.
    pub(crate) fn try_take(&self, claim: Claim) -> Result<Option<Ended>> {
        self.with(|state, later| {
            if let Some(ended) = state.claims.take(claim) {
                return Ok(Some(ended));
            }
            state.poll(later)?;
            Ok(state.claims.take(claim))
        })
    }

    /// The same, or who is to be woken when it ends.
    pub(crate) fn take_or_wake(&self, claim: Claim, waker: &Waker) -> Result<Option<Ended>> {
        // Copying a waker is the caller's code, as is dropping the one that is replaced: both outside of the lock.
        let mut waker = Some(waker.clone());
        let (answer, replaced) = self.with(|state, later| {
            if let Some(ended) = state.claims.take(claim) {
                return (Ok(Some(ended)), None);
            }
            match state.poll(later) {
                Err(error) => (Err(error), None),
                Ok(_) => match state.claims.take(claim) {
                    Some(ended) => (Ok(Some(ended)), None),
                    None => (Ok(None), waker.take().and_then(|waker| state.claims.wake(claim, waker))),
                },
            }
        });
        drop((replaced, waker));
        answer
    }

    /// Nobody wants its result any more.
    pub(crate) fn abandon(&self, claim: Claim) {
        let left = self.lock().claims.abandon(claim);
        drop(left);
    }

    pub(crate) fn is_out(&self, claim: Claim) -> bool {
        self.lock().claims.is_out(claim)
    }

    /// Reads what has ended and wakes who waits for it; how many operations. Never blocks.
    pub(crate) fn progress(&self) -> Result<usize> {
        let count = self.with(State::poll)?;
        if count > 0 {
            self.watched.notify_all();
        }
        Ok(count)
    }

    /// Asks for an event with the next completion, having read those before. Whether there were any: then there may be no event.
    pub(crate) fn arm(&self) -> Result<bool> {
        self.lock().tracker.queue().arm(false)?;
        Ok(self.progress()? > 0)
    }

    /// Waits until an operation ended, or until the deadline, and takes its result.
    pub(crate) fn wait(&self, claim: Claim, deadline: Option<Instant>) -> Result<Option<Ended>> {
        self.wait_until(claim, deadline, || self.try_take(claim))
    }

    /// The same, but leaves the result: whether it ended.
    fn wait_ended(&self, claim: Claim, deadline: Option<Instant>) -> Result<bool> {
        let ended = self.wait_until(claim, deadline, || {
            self.progress()?;
            Ok((!self.is_out(claim)).then_some(()))
        })?;
        Ok(ended.is_some())
    }

    /// Looks until something is found, or until the deadline. Polls for a while, then sleeps; one of those who wait watches the device.
    fn wait_until<T>(
        &self,
        claim: Claim,
        deadline: Option<Instant>,
        look: impl Fn() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let spin = Instant::now() + SPIN;
        loop {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(None);
            }
            if now < spin {
                std::hint::spin_loop();
                continue;
            }
            self.sleep(claim, deadline)?;
        }
    }

    fn sleep(&self, claim: Claim, deadline: Option<Instant>) -> Result<()> {
        let left = || match deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()).min(LOOK),
            None => LOOK,
        };
        let mut state = self.lock();
        if !state.claims.is_out(claim) {
            return Ok(());
        }
        if state.is_watched {
            // Whoever watches tells when something ended, and when it stops to watch.
            drop(self.watched.wait_timeout(state, left()));
            return Ok(());
        }
        state.is_watched = true;
        drop(state);
        let watch = Watch(self);
        if !self.arm()? {
            self.events.wait(Some(left()))?;
        }
        drop(watch);
        Ok(())
    }

    /// Waits for an operation on borrowed memory. When the deadline passes, or the device fails, everything of its peer is cut short: when this
    /// returns, the device touches nothing of it any more.
    pub(crate) fn wait_out(
        &self,
        peer: u32,
        claim: Claim,
        deadline: Option<Instant>,
        after: Duration,
    ) -> std::result::Result<Ended, CutShort> {
        let error = match self.wait(claim, deadline) {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => Error::TimedOut { what: "an operation of a channel", after },
            Err(error) => error,
        };
        self.cut(peer, &error);
        // It ended by itself in the meantime, or by being cut: either way its result is known; the deadline has passed for its caller.
        match self.lock().claims.take(claim) {
            Some(Ended { outcome: Ok(success), held }) => Ok(Ended { outcome: Ok(success), held }),
            _ => Err(CutShort(error)),
        }
    }

    /// Ends everything of a peer: flushed by the device, or else by destroying the queue pair.
    pub(crate) fn cut(&self, peer: u32, cause: &dyn fmt::Display) {
        let member = {
            let mut state = self.lock();
            let Some(entry) = state.peers.get_mut(peer as usize) else { return };
            entry.broken.get_or_insert_with(|| cause.to_string());
            entry.member
        };
        let Some(member) = member else { return };
        let failed = self.lock().tracker.fail(member);
        let deadline = Instant::now() + if failed.is_ok() { FLUSH } else { Duration::ZERO };
        loop {
            let flushed = self.with(|state, later| {
                let polled = state.poll(later);
                polled.is_ok() && state.claims.out_of(peer).is_empty()
            });
            self.watched.notify_all();
            if flushed {
                return;
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        self.destroy(peer, member);
        self.watched.notify_all();
    }

    /// The last resort: a queue pair that does not flush is destroyed.
    fn destroy(&self, peer: u32, member: Member) {
        self.with(|state, later| {
            if state.peers[peer as usize].member != Some(member) {
                // Another thread has ended it meanwhile; what is out now is of its successor.
                return;
            }
            match state.tracker.remove(member) {
                Ok(claims) => {
                    state.peers[peer as usize].member = None;
                    state.end_all(claims, later);
                }
                // Owned memory stays where it is.
                Err(error) if !state.claims.has_borrowed(peer) => {
                    tracing::error!(%error, "the device neither flushes nor destroys a queue pair; its memory stays with it");
                }
                Err(error) => {
                    // Borrowed memory would be its owner's again in a moment.
                    eprintln!(
                        "sinew-verbs: the device neither flushes nor destroys a queue pair ({error}) while it has borrowed \
                         memory; returning would let it write freed memory, so the process ends here"
                    );
                    std::process::abort();
                }
            }
        });
    }

    /// Brings a peer's queue pair back to INIT, for a new connection.
    pub(crate) fn reset(
        &self,
        peer: u32,
        anew: impl FnOnce(&Tracker<Rc, Claim>) -> Result<PreparedQueuePair<Rc>>,
    ) -> Result<()> {
        self.with(|state, later| {
            let count = state.peers.len();
            let Some(entry) = state.peers.get(peer as usize) else {
                return Err(Error::invalid("peer", format!("{peer} of {count} peers"), "peers count from 0"));
            };
            match entry.member {
                Some(member) => {
                    let claims = state.tracker.reset(member)?;
                    state.end_all(claims, later);
                }
                None => {
                    let prepared = anew(&state.tracker)?;
                    let member = state.tracker.add(prepared)?;
                    state.peers[peer as usize].member = Some(member);
                }
            }
            state.peers[peer as usize].broken = None;
            Ok(())
        })
    }

    /// Waits until all of these have ended, at most until the deadline, and cuts their peers short otherwise: when this returns, the device
    /// touches nothing of them any more. Why it had to, if it had.
    pub(crate) fn wait_all(
        &self,
        claims: &[Claim],
        deadline: Option<Instant>,
        after: Duration,
    ) -> Option<Error> {
        let mut first = None;
        for claim in claims {
            let error = match self.wait_ended(*claim, deadline) {
                Ok(true) => continue,
                Ok(false) => Error::TimedOut { what: "the operations of a scope", after },
                Err(error) => error,
            };
            let peer = self.lock().claims.peer_of(*claim);
            if let Some(peer) = peer {
                self.cut(peer, &error);
            }
            first.get_or_insert(error);
        }
        first
    }

    /// A number for a scope, never 0 and not in use.
    pub(crate) fn open_scope(&self) -> u32 {
        let mut state = self.lock();
        state.scopes = state.scopes.wrapping_add(1).max(1);
        state.scopes
    }

    /// The operations of a scope whose results nobody took.
    pub(crate) fn left_of(&self, scope: u32) -> Vec<Claim> {
        self.lock().claims.left_of(scope)
    }

    /// What failed in a scope without being waited for; its places are free then.
    pub(crate) fn close_scope(&self, scope: u32) -> Vec<WorkError> {
        let mut state = self.lock();
        for claim in state.claims.left_of(scope) {
            // Borrowed operations own nothing, so nothing of the caller's is dropped under the lock.
            drop(state.claims.abandon(claim));
        }
        state.claims.take_failures(scope)
    }
}

/// Watching the device; ends also on panic, so that another takes over.
struct Watch<'a>(&'a Core);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.lock().is_watched = false;
        self.0.watched.notify_all();
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}
