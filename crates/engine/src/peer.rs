//! A peer: one endpoint of another engine, as seen from one endpoint of this one.

use crate::completion::Source;
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::core::{Blocked, Core, Explain, gather};
use crate::endpoint::EndpointInner;
use crate::error::{Failed, OpError};
use crate::histogram::Way;
use crate::op::{Operation, SendOp};
use crate::shared::Shared;
use crate::timeout::Timeout;
use sinew_transport::Buf;
use sinew_wire::frame::{Flags, Header, Kind};
use std::io::IoSlice;
use std::sync::Arc;

/// An endpoint that messages can be sent to. Cheap to clone, `Send` and `Sync`. It keeps its own endpoint alive, and is good
/// until the session with the other engine ends; then connect again.
#[derive(Clone)]
pub struct Peer {
    pub(crate) endpoint: Arc<EndpointInner>,
    pub(crate) session: Key,
    pub(crate) flow: u32,
    pub(crate) dst: u32,
    /// What stands for the peer's engine in sources.
    engine: u32,
}

/// Cancels a borrowed send if its call ends early, as by a panic in a waker: also in the call that starts it.
struct Borrowed<'a> {
    shared: &'a Arc<Shared>,
    key: Option<Key>,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.with(|core| {
                core.cancel_send(key);
            });
        }
    }
}

impl Peer {
    pub(crate) fn new(endpoint: &Arc<EndpointInner>, session: Key, dst: u32) -> Result<Self, OpError> {
        endpoint.shared.check_fork()?;
        let (flow, engine) = endpoint.shared.with(|core| core.open_flow(session, dst))?;
        Ok(Self { endpoint: Arc::clone(endpoint), session, flow, dst, engine })
    }

    pub(crate) fn of_source(endpoint: &Arc<EndpointInner>, source: Source) -> Result<Self, OpError> {
        endpoint.shared.check_fork()?;
        endpoint.shared.with(|core| core.source_error(source))?;
        Self::new(endpoint, Key(source.session), source.endpoint())
    }

    /// The peer as messages from it name it.
    #[must_use]
    pub const fn source(&self) -> Source {
        Source::new(self.session.0, self.engine, self.dst)
    }

    /// Sends a tagged message. Ends when `data` is the caller's again: short ones at once, long ones when the receiver has
    /// fetched them; blocks up to the option `timeout`. At the deadline the send is really cancelled.
    ///
    /// A short message for which the receiver gives no credit for 200 ms is copied, and the send ends: the copy is fetched when
    /// the receiver asks for it. It takes 2 s where the receiver has not even read what was sent before, or where only what all
    /// its endpoints share is spent. Copies of one peer's messages are bounded by the option `send_buffer`; beyond it the send
    /// waits. With [`crate::Progress::Caller`] a copy moves only while this engine is called: [`Peer::flush`] before you stop
    /// calling it for long. [`crate::Engine::close`] and dropping the engine drain copies up to their deadlines.
    ///
    /// # Errors
    /// [`OpError`].
    #[inline]
    pub fn send(&self, tag: u64, data: &[u8]) -> Result<(), OpError> {
        let message = self.message(tag);
        if self.endpoint.measures.is_none() && message.send_short(data) {
            return Ok(());
        }
        message.send(data)
    }

    /// Sends a message that only untagged receives take.
    ///
    /// # Errors
    /// As [`Peer::send`].
    pub fn send_untagged(&self, data: &[u8]) -> Result<(), OpError> {
        self.message(0).untagged().send(data)
    }

    /// Sends if that is possible without waiting.
    ///
    /// # Errors
    /// [`OpError::WouldBlock`] when it is not; nothing was sent then. A message longer than the option `eager_max`, or than
    /// what the lane takes at once, never goes without waiting for its receiver: use [`Peer::post_send`].
    pub fn try_send(&self, tag: u64, data: &[u8]) -> Result<(), OpError> {
        self.message(tag).try_send(data)
    }

    /// Sends a copy together with others: like [`Peer::try_send`], but it goes out at the engine's next progress (a wait, a
    /// blocking call, [`Peer::flush`], [`crate::Engine::progress`]) or when enough of them wait. For streams of small messages.
    ///
    /// # Errors
    /// [`OpError::WouldBlock`] when there is no room; nothing was sent then.
    #[inline]
    pub fn stage(&self, tag: u64, data: &[u8]) -> Result<(), OpError> {
        self.message(tag).stage(data)
    }

    /// Starts sending an owned buffer, which comes back with the result. Never blocks. It goes out, together with others,
    /// at the engine's next progress: a wait, a blocking call, [`Peer::flush`] or [`crate::Engine::progress`].
    ///
    /// # Errors
    /// [`Failed`] with the buffer when the session is over.
    pub fn post_send(&self, tag: u64, buf: impl Into<Buf>) -> Result<SendOp, Failed> {
        self.message(tag).post(buf)
    }

    /// A message with more to say about it.
    #[inline(always)]
    pub const fn message(&self, tag: u64) -> Message<'_> {
        Message { peer: self, tag, immediate: None, flags: Flags(0), timeout: Timeout::Default }
    }

    /// Waits until the peer's session has everything that was sent to this peer before.
    ///
    /// # Errors
    /// [`OpError::TimedOut`], [`OpError::PeerLost`].
    pub fn flush(&self) -> Result<(), OpError> {
        self.flush_within(Timeout::Default)
    }

    /// [`Peer::flush`] with its own deadline.
    ///
    /// # Errors
    /// As [`Peer::flush`].
    pub fn flush_within(&self, timeout: impl Into<Timeout>) -> Result<(), OpError> {
        self.ask(Header::control(Kind::FLUSH, 0), Vec::new(), timeout.into()).map(|_| ())
    }

    /// Posts a request of the session behind what was sent before and waits for its answer: the number in it.
    pub(crate) fn ask(&self, header: Header, body: Vec<u8>, timeout: Timeout) -> Result<u32, OpError> {
        let shared = &self.endpoint.shared;
        shared.check_fork()?;
        let key = shared.with(|core| {
            core.session_error(self.session)?;
            Ok::<_, OpError>(core.start_send(
                self.session,
                self.flow,
                header,
                None,
                Memory::Owned(body.into()),
                false,
            ))
        })?;
        let guard = Borrowed { shared, key: Some(key) };
        let limit = timeout.resolve(&shared.config);
        let answer = shared.wait(limit, |core| core.collect_answer(key));
        match answer {
            Some(answer) => {
                std::mem::forget(guard);
                answer
            }
            None => {
                std::mem::forget(guard);
                // The answer may have come between the last look and the cancel.
                shared
                    .with(|core| {
                        let answer = core.collect_answer(key);
                        core.cancel_send(key);
                        answer
                    })
                    .unwrap_or(Err(OpError::TimedOut { after: limit.unwrap_or_default() }))
            }
        }
    }

    /// [`Shared::leave_to_system`] for this peer.
    #[cold]
    pub(crate) fn leave_to_system(&self, timeout: Timeout) {
        let shared = &self.endpoint.shared;
        shared.leave_to_system(self.session, timeout.resolve(&shared.config));
    }

    /// What carries messages to this peer now, as `shm pid 4711`.
    #[must_use]
    pub fn path(&self) -> String {
        let shared = &self.endpoint.shared;
        match shared.check_fork() {
            Ok(()) => shared.with(|core| core.path_of(self.session)),
            Err(error) => format!("none: {error}"),
        }
    }

    /// What was tried towards this peer, what was chosen, what was refused and why.
    #[must_use]
    pub fn explain(&self) -> Explain {
        let forked = Explain {
            crossings: Vec::new(),
            memory: String::new(),
            peer: String::new(),
            pinned: None,
            rows: Vec::new(),
            sockets: None,
            security: OpError::Forked.to_string(),
        };
        self.endpoint.shared.with_unless_forked(forked, |core| core.explain_session(self.session))
    }

    /// Whether the session with the peer's engine lives.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.endpoint.shared.with_unless_forked(false, |core: &mut Core| {
            core.progress();
            core.session_error(self.session).is_ok()
        })
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({})", self.source())
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
    fn send_short(&self, data: &[u8]) -> bool {
        let shared = &self.peer.endpoint.shared;
        shared.check_fork().is_ok()
            && shared.biased().is_some_and(|mut core| self.send_quick(&mut core, data))
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
    pub fn send_slices(&self, parts: &[IoSlice<'_>]) -> Result<(), OpError> {
        let shared = &self.peer.endpoint.shared;
        shared.check_fork()?;
        let len = parts.iter().map(|part| part.len()).sum();
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
                return None;
            }
            guard.key = Some(key);
            guard.key
        });
        let Some(key) = key else { return Ok(()) };
        match shared.wait(left(), |core| core.collect_send(key)) {
            Some((result, _)) => {
                std::mem::forget(guard);
                result
            }
            None => {
                std::mem::forget(guard);
                match shared.with(|core| core.cancel_send(key)) {
                    Some((Err(OpError::Cancelled), _)) | None => Err(timed_out()),
                    // It ended between the last look and the cancel.
                    Some((result, _)) => result,
                }
            }
        }
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
