//! An endpoint: where messages arrive and from where peers are connected.

use crate::anchor::Anchor;
use crate::completion::{Completion, Match, Source};
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::core::{Core, Got, Look, Started, Tags, Taken};
use crate::error::{ConnectError, Failed, OpError};
use crate::histogram::{Measures, Way};
use crate::op::{Operation, RecvOp};
use crate::peer::Peer;
use crate::shared::Shared;
use crate::timeout::Timeout;
use sinew_transport::Buf;
use sinew_wire::address::Address;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Where messages arrive. Cheap to clone; all clones are the same endpoint, which closes when the last of it (with its
/// peers and operations) is dropped. `Send` and `Sync`: the thread that uses an engine most takes no lock, others hand over
/// to each other at a cost that the bench states.
///
/// An idle endpoint costs memory only: no descriptor, no thread, no shared memory.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) inner: Arc<EndpointInner>,
}

pub(crate) struct EndpointInner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: u32,
    pub(crate) name: Option<String>,
    /// Kept, so that it can be read without the lock, also in a forked child.
    pub(crate) address: Address,
    /// Made only when the option `histograms` is on.
    pub(crate) measures: Option<Box<Measures>>,
    /// Operations that hold it: see [`crate::held`].
    pub(crate) operations: AtomicUsize,
}

impl Drop for EndpointInner {
    fn drop(&mut self) {
        if self.shared.check_fork().is_ok() {
            let kept = self.shared.with_in_drop(|core| {
                core.close_endpoint(self.number, &OpError::Cancelled);
                core.progress();
                Anchor::release_idle(&self.shared, core)
            });
            drop(kept);
        }
    }
}

/// Gives a borrowed receive up if its call ends early, as by a panic in a waker: also in the call that starts it, which may
/// wake others when it has left the lock. What it has waits for another receive.
pub(crate) struct Borrowed<'a> {
    shared: &'a Arc<Shared>,
    key: Option<Key>,
}

impl<'a> Borrowed<'a> {
    pub(crate) const fn none(shared: &'a Arc<Shared>) -> Self {
        Self { shared, key: None }
    }

    /// Called under the lock that started the receive.
    #[inline]
    pub(crate) fn note(&mut self, started: Started<Completion>) -> Started<Completion> {
        if let Started::Pending(key) = started {
            self.key = Some(key);
        }
        started
    }

    #[cold]
    #[inline(never)]
    fn give_up(&self, key: Key) {
        self.shared.with_in_drop(|core| {
            core.give_up_recv(key);
        });
    }
}

impl Drop for Borrowed<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.give_up(key);
        }
    }
}

impl Endpoint {
    /// Its number in the engine; never used again by another endpoint.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.inner.number
    }

    /// Its name, if it was given one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_deref()
    }

    /// Its address: one line of text when printed; [`Address::to_bytes`] packs it.
    #[must_use]
    pub fn address(&self) -> Address {
        self.inner.address.clone()
    }

    /// Connects to an endpoint and proves a path to it. Blocks up to the option `connect_timeout`.
    ///
    /// The target is an [`Address`], its text, or an explicit one (`tcp://host:port/name`, `shm:///path/to.sock#name`,
    /// `uds://…`).
    ///
    /// Implicit connects share one session per pair of engines, whose lanes the engine chooses and changes. An explicit one pins
    /// the peer that it gives to that transport: peers that pin the same transport to the same engine share a session of their
    /// own, whose lanes are of that transport only. If they are lost and that transport gives no other, the session is lost:
    /// nothing ever falls back, and no peer changes the path of another. Messages of two peers on one session keep their order at
    /// an endpoint that both send to; those of two sessions have none among them.
    ///
    /// # Errors
    /// [`ConnectError`]: a bad address, or no path, with the table of what was tried.
    pub fn connect(&self, target: impl ToString) -> Result<Peer, ConnectError> {
        self.connect_within(target, self.inner.shared.config.connect_timeout)
    }

    /// [`Endpoint::connect`] with its own deadline.
    ///
    /// # Errors
    /// As [`Endpoint::connect`].
    pub fn connect_within(
        &self,
        target: impl ToString,
        within: std::time::Duration,
    ) -> Result<Peer, ConnectError> {
        let deadline = crate::timeout::far_at_most(self.inner.shared.now(), within);
        crate::connect::connect(&self.inner, &target.to_string(), deadline)
    }

    /// The peer that sent a message, to answer it on the session on which it came. Costs no round trip.
    ///
    /// # Errors
    /// [`OpError::PeerLost`] when that session is over, [`OpError::OtherEngine`] for a source of another engine.
    pub fn reply_to(&self, source: Source) -> Result<Peer, OpError> {
        Peer::of_source(&self.inner, source)
    }

    /// Receives one message into `buf`; blocks up to the option `timeout`. At the deadline the receive is really cancelled. What stands
    /// in `buf` behind the message, and in all of it after an error, is not specified: parts of messages that turned out to be for
    /// others may have been there.
    ///
    /// # Errors
    /// [`OpError`]; after [`OpError::Truncated`] the buffer holds the beginning of the message.
    #[inline(always)]
    pub fn recv(&self, pattern: impl Into<Match>, buf: &mut [u8]) -> Result<Completion, OpError> {
        let pattern = pattern.into();
        if self.inner.measures.is_none()
            && let Some(got) = self.recv_short(&pattern, buf)
        {
            return Ok(got.info());
        }
        // Through a place of its own, so that the answer above can stay in registers.
        let info = self.recv_measured(pattern, buf)?;
        Ok(info)
    }

    #[inline(never)]
    fn recv_measured(&self, pattern: Match, buf: &mut [u8]) -> Result<Completion, OpError> {
        let since = self.inner.clock();
        let result = self.recv_longer(pattern, buf, Timeout::Default);
        if let (Some(since), Ok(info)) = (since, &result) {
            self.inner.measured(Way::Recv, since, Key(info.source.session));
        }
        result
    }

    /// [`Endpoint::recv`] with its own deadline.
    ///
    /// # Errors
    /// As [`Endpoint::recv`].
    #[inline(always)]
    pub fn recv_within(
        &self,
        pattern: impl Into<Match>,
        buf: &mut [u8],
        timeout: impl Into<Timeout>,
    ) -> Result<Completion, OpError> {
        let pattern = pattern.into();
        if let Some(got) = self.recv_short(&pattern, buf) {
            return Ok(got.info());
        }
        // As in `recv`.
        let info = self.recv_longer(pattern, buf, timeout.into())?;
        Ok(info)
    }

    /// One look for a message, the short way.
    #[inline(always)]
    fn recv_short(&self, pattern: &Match, buf: &mut [u8]) -> Option<Got> {
        let shared = &self.inner.shared;
        let tags = Tags::of(pattern)?;
        if shared.check_fork().is_err() {
            return None;
        }
        let mut got = Got::NOTHING;
        let look = shared.recv_look(self.inner.number, tags, buf, &mut got);
        matches!(look, Look::Done).then_some(got)
    }

    #[inline(never)]
    fn recv_longer(&self, pattern: Match, buf: &mut [u8], timeout: Timeout) -> Result<Completion, OpError> {
        let shared = &self.inner.shared;
        shared.check_fork()?;
        let mut guard = Borrowed::none(shared);
        let note = |key| guard.key = Some(key);
        match shared.recv_direct(self.inner.number, pattern, buf, note) {
            Ok(info) | Err(Taken::Done(info)) => Ok(info),
            Err(Taken::Failed(error)) => Err(*error),
            Err(Taken::Pending(key)) => self.wait_recv(key, guard, timeout, false),
        }
    }

    /// Waits for a receive into borrowed memory; when this returns, the engine has forgotten the memory. `tries`: only for a
    /// message that is there.
    #[cold]
    fn wait_recv(
        &self,
        key: Key,
        guard: Borrowed<'_>,
        timeout: Timeout,
        tries: bool,
    ) -> Result<Completion, OpError> {
        let shared = &self.inner.shared;
        let limit = timeout.resolve(&shared.config);
        let look = |core: &mut Core| {
            if tries && core.is_posted(key) {
                // Its sender took the message back, and there is no other.
                return core.cancel_recv(key).map(|(_, memory)| (Err(OpError::WouldBlock), memory));
            }
            core.collect_recv(key)
        };
        let done = shared.wait_or_cancel(limit, look, |core| {
            core.cancel_recv(key);
        });
        // Collected or cancelled.
        std::mem::forget(guard);
        match done {
            Ok((result, _)) => result,
            Err(()) => Err(OpError::TimedOut { after: limit.unwrap_or_default() }),
        }
    }

    /// Receives a message that is there already. A long one is still with its sender and is fetched: that takes as long as it
    /// takes, up to the option `timeout`.
    ///
    /// # Errors
    /// [`OpError::WouldBlock`] when none is; else as [`Endpoint::recv`].
    pub fn try_recv(&self, pattern: impl Into<Match>, buf: &mut [u8]) -> Result<Completion, OpError> {
        let shared = &self.inner.shared;
        shared.check_fork()?;
        let pattern = pattern.into();
        let memory = Memory::Borrowed { data: NonNull::from(&mut *buf).cast(), len: buf.len() };
        // By itself, as what it leaves to run may panic: no message must be lost by that.
        shared.with(Core::progress);
        // Under one lock: another thread may want the same message.
        let mut guard = Borrowed::none(shared);
        let started = shared.with(|core| match core.probe_or_closed(self.inner.number, pattern)? {
            Ok(_) => Some(Ok(guard.note(core.start_recv(self.inner.number, pattern, memory, None)))),
            Err(error) => Some(Err(error)),
        });
        match started.ok_or(OpError::WouldBlock)?? {
            Started::Done(result, ..) => result,
            Started::Pending(key) => self.wait_recv(key, guard, Timeout::Default, true),
        }
    }

    /// Posts a receive into an owned buffer, whose length is the room for the message. The buffer comes back with the
    /// result; dropping the operation cancels it. Never blocks.
    ///
    /// # Errors
    /// [`Failed`] with the buffer when it is read-only or the endpoint is closed.
    #[inline]
    pub fn post_recv(&self, pattern: impl Into<Match>, buf: impl Into<Buf>) -> Result<RecvOp, Failed> {
        let buf = buf.into();
        let shared = &self.inner.shared;
        if let Err(error) = shared.check_fork() {
            return Err(Failed { buf, error });
        }
        if !buf.is_writable() {
            return Err(Failed { buf, error: OpError::NotWritable });
        }
        let pattern = pattern.into();
        if let Some(mut core) = shared.biased()
            && core.may_post_quick(self.inner.number, &pattern)
        {
            let key = core.post_recv_quick(self.inner.number, &pattern, buf);
            return Ok(RecvOp(Operation::new(&self.inner, &mut core, key)));
        }
        Ok(self.post_slowly(pattern, buf))
    }

    #[inline(never)]
    fn post_slowly(&self, pattern: Match, buf: Buf) -> RecvOp {
        let number = self.inner.number;
        self.inner.shared.with(|core| {
            let key = match core.start_recv(number, pattern, Memory::Owned(buf), None) {
                Started::Pending(key) => key,
                Started::Done(result, memory, place) => {
                    core.keep_finished(number, pattern.untagged, memory, result, place)
                }
            };
            RecvOp(Operation::new(&self.inner, core, key))
        })
    }

    /// The oldest waiting message that matches, without taking it. Makes progress, never blocks.
    #[must_use]
    pub fn probe(&self, pattern: impl Into<Match>) -> Option<Completion> {
        let pattern = pattern.into();
        self.inner.shared.with_unless_forked(None, |core| {
            core.progress();
            core.probe(self.inner.number, pattern)
        })
    }

    /// Counts since the endpoint was made, and what waits.
    #[must_use]
    pub fn counters(&self) -> crate::metrics::EndpointCounters {
        let none = crate::metrics::EndpointCounters::default();
        self.inner.shared.with_unless_forked(none, |core| core.endpoint_counters(self.inner.number))
    }

    /// Waits until a message that matches is there, without taking it.
    ///
    /// # Errors
    /// [`OpError::TimedOut`].
    pub fn wait_probe(
        &self,
        pattern: impl Into<Match>,
        timeout: impl Into<Timeout>,
    ) -> Result<Completion, OpError> {
        let shared = &self.inner.shared;
        shared.check_fork()?;
        let pattern = pattern.into();
        let limit = timeout.into().resolve(&shared.config);
        shared
            .wait(limit, |core: &mut Core| core.probe_or_closed(self.inner.number, pattern))
            .unwrap_or(Err(OpError::TimedOut { after: limit.unwrap_or_default() }))
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Endpoint({}{})",
            self.inner.number,
            self.inner.name.as_deref().map(|name| format!(" {name}")).unwrap_or_default()
        )
    }
}
