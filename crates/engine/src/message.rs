//! A message being described, and its ways out: sent, tried, staged or posted, the short way where that is possible.
//!
//! Made by [`Peer::message`] and by the calls of [`Peer`] that describe nothing. What it must not do: leave the engine with a borrow of
//! the caller's memory when its call ends.

use crate::core::op::Memory;
use crate::core::table::Key;
use crate::core::{Blocked, Core, gather};
use crate::error::{Failed, OpError};
use crate::histogram::Way;
use crate::op::{Operation, SendOp};
use crate::peer::Peer;
use crate::shared::Shared;
use crate::timeout::Timeout;
use sinew_base::biased::BiasedGuard;
use sinew_transport::Buf;
use sinew_wire::frame::{Flags, Header, Kind};
use std::io::IoSlice;
use std::sync::Arc;

/// The end of a send that was waited for up to a deadline. One that its receiver had done with by then is no send that took too
/// long, though lanes still held its memory.
pub(crate) fn ended(
    done: Result<Ended, Option<Ended>>,
    timed_out: impl FnOnce() -> OpError,
) -> Result<(), OpError> {
    match done {
        Ok((result, _)) => result,
        Err(Some((Err(OpError::Cancelled), _)) | None) => Err(timed_out()),
        Err(Some((result, _))) => result,
    }
}

/// A send that has left the engine, with its memory.
type Ended = (Result<(), OpError>, Memory);

/// Cancels a borrowed send if its call ends early, as by a panic in a waker: also in the call that starts it.
pub(crate) struct Borrowed<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) key: Option<Key>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.with_in_drop(|core| {
                core.cancel_send(key);
            });
        }
    }
}

/// A message being described; ends with one of the `send` calls.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Message<'a> {
    peer: &'a Peer,
    tag: u64,
    immediate: Option<u64>,
    flags: Flags,
    timeout: Timeout,
}

impl<'a> Message<'a> {
    pub(crate) const fn new(peer: &'a Peer, tag: u64) -> Self {
        Self { peer, tag, immediate: None, flags: Flags(0), timeout: Timeout::Default }
    }
}

impl Message<'_> {
    /// Only untagged receives take it.
    #[inline(always)]
    pub const fn untagged(mut self) -> Self {
        self.flags = self.flags.with(Flags::UNTAGGED);
        self
    }

    /// 64 bits beside the payload.
    #[inline(always)]
    pub const fn immediate(mut self, immediate: u64) -> Self {
        self.immediate = Some(immediate);
        self.flags = self.flags.with(Flags::IMMEDIATE);
        self
    }

    /// How long a blocking send waits.
    pub fn timeout(mut self, timeout: impl Into<Timeout>) -> Self {
        self.timeout = timeout.into();
        self
    }

    #[inline(always)]
    pub(crate) fn header(&self) -> Header {
        Header {
            kind: Kind::EAGER,
            flags: self.flags,
            dst: self.peer.dst,
            src: self.peer.endpoint.number,
            tag: self.tag,
        }
    }

    /// Posts it the short way; `false`: nothing has happened.
    #[inline(always)]
    pub(crate) fn send_quick(&self, core: &mut Core, data: &[u8]) -> bool {
        self.quick(core, data, false)
    }

    /// The same for a message that goes out with the next progress.
    #[inline(always)]
    pub(crate) fn stage_quick(&self, core: &mut Core, data: &[u8]) -> bool {
        self.quick(core, data, true)
    }

    #[inline(always)]
    fn quick(&self, core: &mut Core, data: &[u8], staged: bool) -> bool {
        let peer = self.peer;
        self.immediate.is_none() && core.send_quick(peer.session, peer.flow, &self.header(), data, staged)
    }

    /// Posts it whole if that is possible now.
    #[inline(always)]
    pub(crate) fn post_now(&self, core: &mut Core, parts: &[IoSlice<'_>], len: usize) -> Result<(), Blocked> {
        let peer = self.peer;
        if len > core.config.eager_max {
            return Err(core.blocked_by_size(peer.session));
        }
        match self.immediate {
            None => core.post_eager(peer.session, peer.flow, &self.header(), parts, len),
            Some(immediate) => {
                let bytes = immediate.to_le_bytes();
                if let &[data] = parts {
                    let parts = [IoSlice::new(&bytes), data];
                    return core.post_eager(peer.session, peer.flow, &self.header(), &parts, len);
                }
                let parts: Vec<IoSlice<'_>> =
                    std::iter::once(IoSlice::new(&bytes)).chain(parts.iter().copied()).collect();
                core.post_eager(peer.session, peer.flow, &self.header(), &parts, len)
            }
        }
    }

    /// Starts a copy of it, which goes as an envelope; nobody waits for it.
    #[cold]
    pub(crate) fn post_copy(&self, core: &mut Core, data: &[u8]) {
        let peer = self.peer;
        let memory = Memory::Owned(data.into());
        core.start_send(peer.session, peer.flow, self.header(), self.immediate, memory, true);
    }

    /// [`Peer::send`].
    ///
    /// # Errors
    /// As [`Peer::send`].
    #[inline]
    pub fn send(&self, data: &[u8]) -> Result<(), OpError> {
        if let Some(since) = self.peer.endpoint.clock() {
            let result = self.send_now(data);
            if result.is_ok() {
                self.peer.endpoint.measured(Way::Send, since, self.peer.session);
            }
            return result;
        }
        self.send_now(data)
    }

    /// Sends it if that is possible the short way; `false`: nothing has happened.
    #[inline(always)]
    pub(crate) fn send_short(&self, data: &[u8]) -> bool {
        let shared = &self.peer.endpoint.shared;
        if shared.check_fork().is_err() {
            return false;
        }
        let Some(mut core) = shared.biased() else { return false };
        self.send_quick(&mut core, data) || self.send_through(core, data)
    }

    /// The same over a socket.
    #[inline(never)]
    fn send_through(&self, mut core: BiasedGuard<'_, Core>, data: &[u8]) -> bool {
        let peer = self.peer;
        if self.immediate.is_some() {
            return false;
        }
        let held_up = core.send_through(peer.session, peer.flow, &self.header(), data);
        peer.endpoint.shared.leave_quick(core, false);
        if held_up == Some(true) {
            self.peer.leave_to_system(self.timeout);
        }
        held_up.is_some()
    }

    fn send_now(&self, data: &[u8]) -> Result<(), OpError> {
        let shared = &self.peer.endpoint.shared;
        shared.check_fork()?;
        if self.send_short(data) {
            return Ok(());
        }
        let blocked = shared.with_hot(|core| {
            self.post_now(core, &[IoSlice::new(data)], data.len())?;
            Ok(core.flush_active(self.peer.session))
        });
        match blocked {
            Ok(held_up) => self.sent(held_up),
            Err(blocked) => self.send_slowly(&[IoSlice::new(data)], data.len(), blocked),
        }
    }

    /// The end of a blocking send whose lane may be held up.
    #[inline(always)]
    fn sent(&self, held_up: bool) -> Result<(), OpError> {
        if held_up {
            self.peer.leave_to_system(self.timeout);
        }
        Ok(())
    }

    /// [`Peer::send`] of several slices, one after the other, as one message. Short messages are gathered by the lane, long
    /// ones are sent from where their parts are; only many short parts of a long message (under 16 KiB on average) are copied
    /// into one piece first.
    ///
    /// # Errors
    /// As [`Peer::send`].
    ///
    /// # Panics
    /// When the parts, which may overlap, are longer together than memory can be.
    pub fn send_slices(&self, parts: &[IoSlice<'_>]) -> Result<(), OpError> {
        let shared = &self.peer.endpoint.shared;
        shared.check_fork()?;
        // Parts may overlap, so that there can be more bytes than memory has: what counts on the sum must not meet a wrong one.
        let sum = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.len()));
        let Some(len) = sum.filter(|&sum| isize::try_from(sum).is_ok()) else {
            panic!("the parts of a message are longer than memory can be")
        };
        let posted = shared.with(|core| {
            self.post_now(core, parts, len)?;
            Ok(core.flush_active(self.peer.session))
        });
        match posted {
            Ok(held_up) => self.sent(held_up),
            Err(blocked) => self.send_slowly(parts, len, blocked),
        }
    }

    /// Waits for room or credit; goes as an envelope when the receiver gives none, or the message is too long for a frame.
    #[cold]
    fn send_slowly(&self, parts: &[IoSlice<'_>], len: usize, blocked: Blocked) -> Result<(), OpError> {
        let peer = self.peer;
        let shared = &peer.endpoint.shared;
        let limit = self.timeout.resolve(&shared.config);
        let timed_out = || OpError::TimedOut { after: limit.unwrap_or_default() };
        // One deadline for all that is waited for.
        let until = limit.and_then(|limit| shared.now().checked_add(limit));
        let left = || until.map(|until| until.saturating_duration_since(shared.now()));
        let mut blocked = blocked;
        if matches!(blocked, Blocked::Busy | Blocked::Credit) {
            let posted = shared.wait(limit, |core| match self.post_now(core, parts, len) {
                Ok(()) => Some(Ok(core.flush_active(peer.session))),
                Err(Blocked::Busy | Blocked::Credit) => None,
                Err(blocked) => Some(Err(blocked)),
            });
            match posted {
                Some(Ok(held_up)) => {
                    return self.timeout(left().map_or(Timeout::Never, Timeout::After)).sent(held_up);
                }
                Some(Err(now)) => blocked = now,
                None => return Err(timed_out()),
            }
        }
        if let Some(error) = blocked.error() {
            return Err(error);
        }
        let mut guard = Borrowed { shared, key: None };
        let key = shared.with(|core| {
            // It may have been lost since it was looked at.
            core.session_error(peer.session)?;
            let buffered = core.may_buffer(peer.session, len);
            let memory = if buffered {
                Memory::Owned(gather::flatten(parts, len).into())
            } else {
                Memory::lent(parts, len, core.config.eager_max)
            };
            let key =
                core.start_send(peer.session, peer.flow, self.header(), self.immediate, memory, buffered);
            if buffered {
                core.progress();
                return Ok(None);
            }
            guard.key = Some(key);
            Ok::<_, OpError>(guard.key)
        })?;
        let Some(key) = key else { return Ok(()) };
        let done = shared.wait_or_cancel(left(), |core| core.collect_send(key), |core| core.cancel_send(key));
        // Collected or cancelled.
        std::mem::forget(guard);
        ended(done, timed_out)
    }

    /// [`Peer::try_send`].
    ///
    /// # Errors
    /// As [`Peer::try_send`].
    pub fn try_send(&self, data: &[u8]) -> Result<(), OpError> {
        let peer = self.peer;
        let shared = &peer.endpoint.shared;
        shared.check_fork()?;
        shared.with(|core| match self.post_now(core, &[IoSlice::new(data)], data.len()) {
            Ok(()) => {
                core.flush_active(peer.session);
                Ok(())
            }
            Err(blocked) => {
                if let Some(error) = blocked.error() {
                    return Err(error);
                }
                if matches!(blocked, Blocked::Envelope) && core.may_buffer(peer.session, data.len()) {
                    self.post_copy(core, data);
                    core.progress();
                    return Ok(());
                }
                core.progress();
                Err(OpError::WouldBlock)
            }
        })
    }

    /// [`Peer::stage`].
    ///
    /// # Errors
    /// As [`Peer::stage`].
    #[inline(always)]
    pub fn stage(&self, data: &[u8]) -> Result<(), OpError> {
        let shared = &self.peer.endpoint.shared;
        shared.check_fork()?;
        // No closure: one would be a call more.
        let staged = match shared.biased() {
            Some(mut core) => self.stage_quick(&mut core, data),
            None => false,
        };
        if staged {
            shared.tell_of_staged();
            return Ok(());
        }
        self.stage_longer(data)
    }

    /// [`Message::stage`] when there is no short way.
    #[inline(never)]
    fn stage_longer(&self, data: &[u8]) -> Result<(), OpError> {
        let shared = &self.peer.endpoint.shared;
        let posted = shared.with_hot(|core| {
            let posted = self.post_now(core, &[IoSlice::new(data)], data.len());
            if posted.is_ok() {
                core.staged(self.peer.session, data.len());
            }
            posted.is_ok()
        });
        if posted { Ok(()) } else { self.try_send(data) }
    }

    /// [`Peer::post_send`].
    ///
    /// # Errors
    /// As [`Peer::post_send`].
    pub fn post(&self, buf: impl Into<Buf>) -> Result<SendOp, Failed> {
        let buf = buf.into();
        let peer = self.peer;
        let shared = &peer.endpoint.shared;
        if let Err(error) = shared.check_fork() {
            return Err(Failed { buf, error });
        }
        let described = crate::core::op::is_described(&buf, peer.session);
        if let Some(mut core) = shared.biased() {
            if !described {
                if self.send_quick(&mut core, &buf) {
                    let operation = Operation::new(&peer.endpoint, &mut core, Key::NONE);
                    return Ok(SendOp { operation, sent: Some(buf), session: peer.session });
                }
            } else if self.immediate.is_none()
                && core.announce_quick(peer.session, peer.flow, &self.header(), &buf).is_some()
            {
                let key = core.lend_quick(peer.session, peer.flow, &self.header(), buf);
                let operation = Operation::new(&peer.endpoint, &mut core, key);
                return Ok(SendOp { operation, sent: None, session: peer.session });
            }
        }
        self.post_slowly(buf, described)
    }

    #[inline(never)]
    fn post_slowly(self, buf: Buf, described: bool) -> Result<SendOp, Failed> {
        let peer = self.peer;
        peer.endpoint.shared.with(|core| {
            if !described && self.post_now(core, &[IoSlice::new(&buf)], buf.len()).is_ok() {
                core.staged(peer.session, buf.len());
                let operation = Operation::new(&peer.endpoint, core, Key::NONE);
                return Ok(SendOp { operation, sent: Some(buf), session: peer.session });
            }
            if let Err(error) = core.session_error(peer.session) {
                return Err(Failed { buf, error });
            }
            let memory = Memory::Owned(buf);
            let key = core.start_send(peer.session, peer.flow, self.header(), self.immediate, memory, false);
            let operation = Operation::new(&peer.endpoint, core, key);
            Ok(SendOp { operation, sent: None, session: peer.session })
        })
    }
}
