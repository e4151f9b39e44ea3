//! A peer: one endpoint of another engine, as seen from one endpoint of this one.

use crate::completion::Source;
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::core::{Core, Explain};
use crate::endpoint::EndpointInner;
use crate::error::{Failed, OpError};
use crate::message::{Borrowed, Message};
use crate::op::SendOp;
use crate::timeout::Timeout;
use sinew_transport::Buf;
use sinew_wire::frame::{Header, Kind};
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
        Message::new(self, tag)
    }

    /// Waits until the peer's session has everything that was sent to this peer before. A peer that has closed its engine when it had everything
    /// is no error.
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
        match self.ask(Header::control(Kind::FLUSH, 0), Vec::new(), timeout.into()) {
            Err(OpError::PeerLost { .. }) if self.endpoint.shared.with(|core| core.had_all(self.session)) => {
                Ok(())
            }
            answer => answer.map(|_| ()),
        }
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
        let look = |core: &mut Core| core.collect_answer(key);
        let answer = shared.wait_or_cancel(limit, look, |core| {
            core.cancel_send(key);
        });
        // Collected or cancelled.
        std::mem::forget(guard);
        answer.unwrap_or_else(|()| Err(OpError::TimedOut { after: limit.unwrap_or_default() }))
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
