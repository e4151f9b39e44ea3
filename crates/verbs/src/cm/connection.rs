//! A queue pair that the connection manager has connected, and why one was not.

use super::channel::EventChannel;
use super::devices_match;
use super::event::{ConnectionAttributes, Event, EventKind, Notice, Status};
use super::id::Id;
use super::parameters::{ConnectionParameters, is_a_step};
use super::wait::{self, Deadline};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::qp::state::State;
use crate::qp::{QueuePair, Rc};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A connected queue pair with its identifier. Dropped, the queue pair is destroyed, then the identifier, which tells the peer; no
/// step of that waits for the peer.
///
/// Its descriptor (`AsFd`) is readable when something has happened ([`ended`](Self::ended)).
#[derive(Debug)]
pub struct Connection {
    queue_pair: QueuePair<Rc>,
    line: Line,
}

/// A connection whose queue pair is a hub's ([`Resolved::connect_member`](super::Resolved::connect_member)): its identifier, and what the peer said. Dropped, the peer is
/// told; the hub keeps its queue pair.
///
/// Its descriptor (`AsFd`) is readable when something has happened ([`ended`](Self::ended)).
#[derive(Debug)]
pub struct Line {
    id: Id,
    channel: EventChannel,
    attributes: Option<ConnectionAttributes>,
    private_data: Vec<u8>,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Ended {
    /// By the peer, or by [`Connection::disconnect`].
    Disconnected,
    /// The device is being removed: drop everything of it.
    DeviceRemoved,
    /// By an error of the connection manager.
    Failed(Status),
}

/// Why a connection was not made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The peer refused.
    Rejected {
        /// By the fabric's or the system's number.
        reason: Status,
        /// What the peer's program says; padded with zeros over InfiniBand and RoCE.
        private_data: Vec<u8>,
    },
    /// The peer ended it before it was whole.
    Disconnected,
    /// A call or a step failed, or the deadline passed.
    Failed(Error),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected { reason, .. }
                if *reason == Status::NOBODY_LISTENS || reason.errno() == Some(libc::ECONNREFUSED) =>
            {
                write!(
                    f,
                    "the peer rejected the connection: {reason}; start the listener, or compare the ports"
                )
            }
            Self::Rejected { reason, .. } => write!(f, "the peer rejected the connection: {reason}"),
            Self::Disconnected => {
                f.write_str("the peer ended the connection before it was whole; it may have given up waiting")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Failed(error) => error,
            other => Self::Peer { cause: other.to_string() },
        }
    }
}

/// A queue pair that was not connected, given back, and why. It is in any state up to RTS: bring it to RESET before it is used again.
#[derive(Debug)]
pub struct NotConnected {
    /// As it was given; receives that were posted to it are still posted.
    pub queue_pair: QueuePair<Rc>,
    /// Why.
    pub error: ConnectError,
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for NotConnected {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<NotConnected> for Error {
    fn from(not: NotConnected) -> Self {
        not.error.into()
    }
}

impl From<NotConnected> for ConnectError {
    fn from(not: NotConnected) -> Self {
        not.error
    }
}

impl Connection {
    /// The queue pair.
    #[must_use]
    pub const fn queue_pair(&self) -> &QueuePair<Rc> {
        &self.queue_pair
    }

    /// The queue pair, to post.
    #[must_use]
    pub const fn queue_pair_mut(&mut self) -> &mut QueuePair<Rc> {
        &mut self.queue_pair
    }

    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> &Id {
        self.line.id()
    }

    /// What the peer answered or asked for; nothing where it did not say.
    #[must_use]
    pub const fn peer_attributes(&self) -> Option<&ConnectionAttributes> {
        self.line.peer_attributes()
    }

    /// What the peer said when it accepted or asked; padded with zeros over InfiniBand and RoCE.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        self.line.private_data()
    }

    /// The queue pair and the identifier. Drop the queue pair first, or at least end the connection before.
    #[must_use]
    pub fn into_parts(self) -> (QueuePair<Rc>, Id) {
        (self.queue_pair, self.line.id)
    }

    /// Ends the connection: the queue pair goes to the error state, which flushes it, and the peer is told. Does not wait for the peer;
    /// [`wait_ended`](Self::wait_ended) does. One that has ended already is no error.
    ///
    /// # Errors
    /// [`Error::Transition`] and [`Error::Call`], of the first step that failed; the others were tried.
    pub fn disconnect(&self) -> Result<()> {
        let flushed = self.queue_pair.fail();
        let told = self.line.disconnect();
        flushed.and(told)
    }

    /// How it ended, if it has. Never blocks. When the peer ended it, the queue pair is flushed and the peer is answered.
    ///
    /// # Errors
    /// As for [`EventChannel::event`].
    pub fn ended(&self) -> Result<Option<Ended>> {
        self.line.look(|| self.disconnect())
    }

    /// Waits until it has ended; nothing when it did not in time. `None` waits for ever.
    ///
    /// # Errors
    /// As for [`EventChannel::wait`].
    pub fn wait_ended(&self, timeout: Option<Duration>) -> Result<Option<Ended>> {
        self.line.wait(timeout, || self.ended())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl Line {
    /// The identifier.
    #[must_use]
    pub const fn id(&self) -> &Id {
        &self.id
    }

    /// What the peer answered or asked for; nothing where it did not say.
    #[must_use]
    pub const fn peer_attributes(&self) -> Option<&ConnectionAttributes> {
        self.attributes.as_ref()
    }

    /// What the peer said when it accepted or asked; padded with zeros over InfiniBand and RoCE.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }

    /// Tells the peer that it is over. Does not wait for the peer; [`wait_ended`](Self::wait_ended) does. One that has ended already is no error. The hub's queue pair
    /// is flushed by [`Hub::fail`](crate::hub::Hub::fail).
    ///
    /// # Errors
    /// [`Error::Call`] from the system.
    pub fn disconnect(&self) -> Result<()> {
        match self.id.disconnect() {
            Err(error) if error.errno() != Some(libc::EINVAL) => Err(error),
            _ => Ok(()),
        }
    }

    /// How it ended, if it has. Never blocks. When the peer ended it, the peer is answered.
    ///
    /// # Errors
    /// As for [`EventChannel::event`].
    pub fn ended(&self) -> Result<Option<Ended>> {
        self.look(|| self.disconnect())
    }

    /// Waits until it has ended; nothing when it did not in time. `None` waits for ever.
    ///
    /// # Errors
    /// As for [`EventChannel::wait`].
    pub fn wait_ended(&self, timeout: Option<Duration>) -> Result<Option<Ended>> {
        self.wait(timeout, || self.ended())
    }

    /// Takes what has happened; `answer` answers the peer's end.
    fn look(&self, answer: impl Fn() -> Result<()>) -> Result<Option<Ended>> {
        while let Some(event) = self.channel.event()? {
            if let Event::Other(notice) = event
                && let Some(ended) = self.judge(&notice, &answer)
            {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    fn wait(
        &self,
        timeout: Option<Duration>,
        look: impl Fn() -> Result<Option<Ended>>,
    ) -> Result<Option<Ended>> {
        let deadline = Deadline::or_never(timeout);
        loop {
            if let Some(ended) = look()? {
                return Ok(Some(ended));
            }
            if !self.channel.wait_readable(deadline.at())? {
                return Ok(None);
            }
        }
    }

    fn judge(&self, notice: &Notice, answer: impl Fn() -> Result<()>) -> Option<Ended> {
        if notice.id != Some(self.id.number()) {
            return None;
        }
        match notice.kind {
            EventKind::DISCONNECTED => {
                if let Err(error) = answer() {
                    tracing::debug!(%error, "the peer's end of a connection could not be answered");
                }
                Some(Ended::Disconnected)
            }
            EventKind::DEVICE_REMOVAL => Some(Ended::DeviceRemoved),
            EventKind::CONNECT_ERROR | EventKind::REJECTED | EventKind::UNREACHABLE => {
                Some(Ended::Failed(notice.status))
            }
            _ => {
                tracing::debug!(?notice, "an event of a connection that changes nothing");
                None
            }
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// An identifier with its own channel and the device that it was resolved to or asked through.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) id: Id,
    pub(super) channel: EventChannel,
    pub(super) context: Context,
}

impl Half {
    /// One whose device is known; nothing else is.
    pub(super) fn new(id: Id) -> Result<Self> {
        let context = id.context()?.ok_or_else(|| Error::call("rdma_cm_id", &id, libc::ENODEV))?;
        Ok(Self { channel: id.channel(), id, context })
    }

    /// Refuses a queue pair of another device.
    pub(super) fn check(&self, queue_pair: &QueuePair<Rc>) -> Result<()> {
        devices_match(&self.context, queue_pair.protection_domain().context())
    }

    /// Brings a queue pair one step further as the connection manager proposes.
    pub(super) fn step(
        &self,
        queue_pair: &QueuePair<Rc>,
        to: State,
        parameters: &ConnectionParameters,
        accepted: Option<&ConnectionAttributes>,
    ) -> Result<()> {
        let proposed = self.id.attributes(to)?;
        if !is_a_step(&proposed, to) {
            return Ok(());
        }
        queue_pair.modify(&parameters.apply(&proposed, accepted))
    }

    /// Waits for one of these kinds.
    pub(super) fn expect(
        &self,
        call: &'static str,
        kinds: &[EventKind],
        deadline: &Deadline,
    ) -> std::result::Result<Notice, ConnectError> {
        wait::expect(&self.channel, self.id.number(), call, &self.id, kinds, deadline)
    }

    pub(super) fn connected(
        self,
        queue_pair: QueuePair<Rc>,
        attributes: Option<ConnectionAttributes>,
        private_data: Vec<u8>,
    ) -> Connection {
        Connection { queue_pair, line: self.line(attributes, private_data) }
    }

    pub(super) fn line(self, attributes: Option<ConnectionAttributes>, private_data: Vec<u8>) -> Line {
        Line { id: self.id, channel: self.channel, attributes, private_data }
    }
}
