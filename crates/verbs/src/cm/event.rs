//! What happens to identifiers, copied out: nothing here points into the library.
//!
//! Made by the event channel. A request is a variant of its own that owns the new identifier: nothing else gives one.

use super::datagram::Inquiry;
use super::id::Id;
use super::peer::Requested;
use crate::qp::Path;
use sinew_verbs_sys as sys;
use std::fmt;

#[doc(inline)]
pub use sinew_verbs_sys::RdmaCmEventType as EventKind;

/// Which identifier an event is of: unique in this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdNumber(pub(super) usize);

impl IdNumber {
    /// No identifier's.
    pub(super) const NOBODY: Self = Self(0);
}

impl fmt::Debug for IdNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What happened. Kinds that this crate does not know are a [`Notice`], as data.
#[derive(Debug)]
#[non_exhaustive]
#[doc(alias = "rdma_cm_event")]
pub enum Event {
    /// Somebody asks a listener for a connection. It owns the new identifier; dropped, the peer is refused.
    Request(Id<Requested>),
    /// Somebody asks a listener which queue pair takes datagrams. It owns the new identifier; dropped, the peer is refused.
    Inquiry(Inquiry),
    /// Anything else: for the identifier that waits for it ([`Waits::handle`](super::Waits::handle)).
    Notice(Notice),
}

/// What happened to an identifier. It is handled once; nothing but an [`EventChannel`](super::EventChannel) makes one.
///
/// `DEVICE_REMOVAL` comes in every state, also to one that waits for nothing: drop the identifier then, and everything of the device.
#[derive(Debug)]
#[must_use]
pub struct Notice {
    pub(super) id: Option<IdNumber>,
    pub(super) kind: EventKind,
    pub(super) status: Status,
    pub(super) parameters: Parameters,
    pub(super) private_data: Vec<u8>,
}

impl Notice {
    /// Which identifier; nothing for a kind that names none.
    #[must_use]
    pub const fn id(&self) -> Option<IdNumber> {
        self.id
    }

    /// What.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        self.kind
    }

    /// Whether and why it failed.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// What the peer says. Over InfiniBand and RoCE it comes padded with zeros to the most that fits.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.private_data
    }
}

/// What comes with an event.
#[derive(Debug)]
pub(super) enum Parameters {
    /// Nothing.
    None,
    /// Of a connection.
    Connection(ConnectionAttributes),
    /// How a peer's datagrams, or those of a group, are addressed.
    Datagram(DatagramAttributes),
}

/// What two ends tell each other of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[doc(alias = "rdma_conn_param")]
pub struct ConnectionAttributes {
    /// Reads and atomics answered at once: by who tells it; in an event, by its receiver.
    pub responder_resources: u8,
    /// Reads and atomics under way: from who tells it; in an event, from its receiver.
    pub initiator_depth: u8,
    /// Whether the fabric controls the flow.
    pub flow_control: bool,
    /// How often is sent again.
    pub retries: u8,
    /// How often is tried again while there is no receive; 7 is for ever.
    pub rnr_retries: u8,
    /// Whether the queue pair has a shared receive queue.
    pub shared_receive_queue: bool,
    /// Number of the queue pair; 0 in events over iWARP.
    pub qp_num: u32,
}

/// How datagrams reach a peer or a group: for an address handle, and for each request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "rdma_ud_param")]
pub struct DatagramAttributes {
    /// The way.
    pub path: Path,
    /// Number of the queue pair; `0xffffff` for a group.
    pub qp_num: u32,
    /// Its queue key.
    pub qkey: u32,
}

impl Parameters {
    /// Those of a connection, where they are.
    pub(super) const fn connection(&self) -> Option<&ConnectionAttributes> {
        match self {
            Self::Connection(attributes) => Some(attributes),
            _ => None,
        }
    }

    /// Those of datagrams, where they are.
    pub(super) const fn datagram(&self) -> Option<&DatagramAttributes> {
        match self {
            Self::Datagram(attributes) => Some(attributes),
            _ => None,
        }
    }
}

/// How an event ended: 0, the system's number negated, or the fabric's reason.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(i32);

impl Status {
    /// It went well.
    pub const OK: Self = Self(0);
    /// Nobody listens there (InfiniBand specification, volume 1, 12.6.7.2).
    pub const NOBODY_LISTENS: Self = Self(8);
    /// The peer's program refused, and may say why in private data.
    pub const REFUSED: Self = Self(28);

    /// From the number of the ABI.
    #[must_use]
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The number of the ABI.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// The same of an answer to an inquiry for datagrams, which counts otherwise (`enum ib_cm_sidr_status` of the kernel): the reason of a
    /// refused connection that means it.
    pub(super) const fn of_inquiry(self) -> Self {
        match self.0 {
            1 => Self::NOBODY_LISTENS,
            2 => Self::REFUSED,
            3 => Self(1),
            4 => Self(24),
            5 => Self(31),
            _ => self,
        }
    }

    /// Whether it went well.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// The system's number, where it is one.
    #[must_use]
    pub const fn errno(self) -> Option<i32> {
        if self.0 < 0 { self.0.checked_neg() } else { None }
    }

    fn reason(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "no queue pair",
            3 => "no resources",
            4 => "timeout",
            5 => "unsupported request",
            6 | 7 => "invalid communication identifier",
            8 => "nobody listens there",
            9 => "invalid service type",
            10 => "the queue pair's number is still in use by a connection before",
            12 | 18 => "invalid GID",
            13 | 19 => "invalid local identifier",
            14 | 20 => "invalid service level",
            15 | 21 => "invalid traffic class",
            16 | 22 => "invalid hop limit",
            17 | 23 => "invalid packet rate",
            24 | 25 => "redirected to another port",
            26 => "invalid packet size",
            27 => "more reads at once than the peer answers",
            28 => "refused by the program",
            29 => "invalid receiver-not-ready retries",
            30 => "communication identifier used twice",
            31 => "invalid version",
            32 | 33 => "invalid flow label",
            _ => return None,
        })
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.errno(), self.reason()) {
            (Some(errno), _) => std::io::Error::from_raw_os_error(errno).fmt(f),
            (None, Some(reason)) => f.write_str(reason),
            (None, None) if self.is_ok() => f.write_str("ok"),
            (None, None) => write!(f, "Unknown({})", self.0),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether the library fills an event of this kind with what a peer said. For any other kind the same bytes mean something else.
pub(super) const fn carries_parameters(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::CONNECT_REQUEST
            | EventKind::CONNECT_RESPONSE
            | EventKind::ESTABLISHED
            | EventKind::REJECTED
            | EventKind::DISCONNECTED
    )
}

/// Whether an event of this kind is of a group: its private data is the word of who joined, not bytes.
pub(super) const fn is_of_a_group(kind: EventKind) -> bool {
    matches!(kind, EventKind::MULTICAST_JOIN | EventKind::MULTICAST_ERROR)
}

impl ConnectionAttributes {
    /// As C has them, without private data.
    pub(super) fn to_raw(self) -> sys::rdma_conn_param {
        let mut raw = sys::rdma_conn_param::zeroed();
        raw.responder_resources = self.responder_resources;
        raw.initiator_depth = self.initiator_depth;
        raw.flow_control = u8::from(self.flow_control);
        raw.retry_count = self.retries;
        raw.rnr_retry_count = self.rnr_retries;
        raw.srq = u8::from(self.shared_receive_queue);
        raw.qp_num = self.qp_num;
        raw
    }
}

impl From<&sys::rdma_conn_param> for ConnectionAttributes {
    fn from(raw: &sys::rdma_conn_param) -> Self {
        Self {
            responder_resources: raw.responder_resources,
            initiator_depth: raw.initiator_depth,
            flow_control: raw.flow_control != 0,
            retries: raw.retry_count,
            rnr_retries: raw.rnr_retry_count,
            shared_receive_queue: raw.srq != 0,
            qp_num: raw.qp_num,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_it_is() {
        assert_eq!(Status::OK.to_string(), "ok");
        assert_eq!(Status::from_raw(-libc::ETIMEDOUT).errno(), Some(libc::ETIMEDOUT));
        assert!(Status::NOBODY_LISTENS.to_string().contains("listens"));
        assert_eq!(Status::NOBODY_LISTENS.errno(), None);
        assert_eq!(Status::from_raw(4711).to_string(), "Unknown(4711)");
        assert_eq!(Status::from_raw(2).of_inquiry(), Status::REFUSED);
        assert_eq!(Status::from_raw(1).of_inquiry(), Status::NOBODY_LISTENS);
        assert_eq!(Status::from_raw(4711).of_inquiry().to_string(), "Unknown(4711)");
        assert_eq!(Status::from_raw(i32::MIN).errno(), None);
    }

    #[test]
    fn what_a_kind_does_not_carry_is_not_read() {
        for kind in [EventKind::USER, EventKind::INTERNAL, EventKind::DEVICE_REMOVAL, EventKind(77)] {
            assert!(!carries_parameters(kind) && !is_of_a_group(kind), "{kind}");
        }
    }
}
