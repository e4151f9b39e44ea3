//! What a connection promises before it is a lane: records, by which the engines prove themselves.

use crate::{Lane, PollKey, TransportError};

/// Bytes of a record that a [`Link`] carries before it is a lane. Fixed, so no peer chooses an allocation.
pub const RECORD_LEN: usize = 512;

/// One record.
pub type Record = [u8; RECORD_LEN];

/// Who the system says is at the other end, before any proof by secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// Credentials that the kernel vouches for: the same user as this process, on this machine.
    SameUser {
        /// Process, if it is visible from here.
        pid: Option<u32>,
    },
    /// Another user on this machine, or one that this user namespace does not map.
    OtherUser {
        /// The user's number as seen from here.
        uid: u32,
    },
    /// Somewhere on the network; the text is its address.
    Remote(String),
}

/// Progress of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkState {
    /// Still on its way.
    Connecting,
    /// Records can be exchanged.
    Ready,
}

/// Who started the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// This engine dialled.
    Dialer,
    /// This engine accepted.
    Acceptor,
}

/// A connection over which the engines prove themselves. Never blocks. Dropping it closes it.
pub trait Link: Send {
    /// Moves it forward; called on events and now and then.
    ///
    /// # Errors
    /// It cannot be made; the link is over.
    fn poll(&mut self) -> Result<LinkState, TransportError>;

    /// Sends one record; `false` when it must be tried again later. Records arrive whole and in order.
    ///
    /// # Errors
    /// The link is over.
    fn try_send(&mut self, record: &Record) -> Result<bool, TransportError>;

    /// Receives one record into `record`; `false` when none is there yet. Reads nothing beyond that record.
    ///
    /// # Errors
    /// The link is over.
    fn try_recv(&mut self, record: &mut Record) -> Result<bool, TransportError>;

    /// Who is there, as far as the system knows. Valid once [`LinkState::Ready`].
    fn identity(&self) -> Identity;

    /// What to print for the other end: `127.0.0.1:4000`, `pid 4711`.
    fn describe(&self) -> String;

    /// Makes the lane out of the link, after both sides agreed to. Both sides call it; neither waits: what a lane must still
    /// exchange (descriptors of shared memory, queue-pair numbers) it does in its first polls, and
    /// [`Lane::try_post`] answers [`PostError::Full`](crate::PostError::Full) until then.
    ///
    /// # Errors
    /// The link is over.
    fn into_lane(self: Box<Self>, params: LaneParams) -> Result<Box<dyn Lane>, TransportError>;
}

/// What the engine tells a link that becomes a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneParams {
    /// Who started the link.
    pub role: Role,
    /// The lane's `owner` number in poll keys: that of its link.
    pub key: PollKey,
    /// How long the other end may be silent while something is outstanding.
    pub peer_timeout: std::time::Duration,
}
