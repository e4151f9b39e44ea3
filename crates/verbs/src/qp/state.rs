//! The states of a queue pair, which attributes each step needs, and why a step was refused.
//!
//! A device says only `EINVAL`. The table here is that of the specification (InfiniBand, volume 1, 10.3.1 and 11.2.5.2),
//! which the kernel enforces for every device: it tells which attribute is missing and which does not belong.

use crate::number::named_number;
use std::fmt;

named_number! {
    /// A state of a queue pair (`enum ibv_qp_state`). A number with names: what is unknown is kept.
    State: u32 {
        /// Newly made: nothing can be posted.
        RESET = 0 => "RESET",
        /// Receives can be posted, nothing arrives.
        INIT = 1 => "INIT",
        /// Ready to receive.
        RTR = 2 => "RTR",
        /// Ready to send: the working state.
        RTS = 3 => "RTS",
        /// Send queue drained.
        SQD = 4 => "SQD",
        /// Send queue error (UC, UD, raw).
        SQE = 5 => "SQE",
        /// Every request that is or will be posted is flushed.
        ERR = 6 => "ERR",
    }
}

named_number! {
    /// What carries a queue pair's messages (`enum ibv_qp_type`).
    ServiceType: u32 {
        /// Reliable connection.
        RC = 2 => "RC",
        /// Unreliable connection.
        UC = 3 => "UC",
        /// Unreliable datagram.
        UD = 4 => "UD",
        /// Raw packets.
        RAW_PACKET = 8 => "RAW_PACKET",
        /// Extended reliable connection, sending side.
        XRC_SEND = 9 => "XRC_SEND",
        /// Extended reliable connection, receiving side.
        XRC_RECV = 10 => "XRC_RECV",
        /// The driver's own, as EFA's scalable reliable datagram.
        DRIVER = 0xff => "DRIVER",
    }
}

bitflags::bitflags! {
    /// Which fields of a queue pair's attributes are meant (`enum ibv_qp_attr_mask`).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct AttributeMask: u32 {
        /// The state to go to.
        const STATE = 1;
        /// The state that the caller believes it is in.
        const CUR_STATE = 1 << 1;
        /// Tell when the send queue is drained.
        const EN_SQD_ASYNC_NOTIFY = 1 << 2;
        /// What peers may do.
        const ACCESS_FLAGS = 1 << 3;
        /// Index of the partition key.
        const PKEY_INDEX = 1 << 4;
        /// The port.
        const PORT = 1 << 5;
        /// Queue key of datagrams.
        const QKEY = 1 << 6;
        /// The way to the peer.
        const AV = 1 << 7;
        /// Largest packet on that way.
        const PATH_MTU = 1 << 8;
        /// Acknowledgement timeout.
        const TIMEOUT = 1 << 9;
        /// Retries.
        const RETRY_CNT = 1 << 10;
        /// Retries while the receiver is not ready.
        const RNR_RETRY = 1 << 11;
        /// First packet number expected.
        const RQ_PSN = 1 << 12;
        /// Reads and atomics under way from here.
        const MAX_QP_RD_ATOMIC = 1 << 13;
        /// The alternate path.
        const ALT_PATH = 1 << 14;
        /// What senders wait that find no receive.
        const MIN_RNR_TIMER = 1 << 15;
        /// First packet number sent.
        const SQ_PSN = 1 << 16;
        /// Reads and atomics under way to here.
        const MAX_DEST_RD_ATOMIC = 1 << 17;
        /// State of path migration.
        const PATH_MIG_STATE = 1 << 18;
        /// Depths of the queues.
        const CAP = 1 << 19;
        /// The peer's queue pair.
        const DEST_QPN = 1 << 20;
        /// Rate limit of raw packets.
        const RATE_LIMIT = 1 << 25;
    }
}

impl AttributeMask {
    /// What every device can be asked for: all but the rate limit, which is told and never said.
    pub const QUERY: Self = Self::all().difference(Self::RATE_LIMIT);
}

/// A step that was refused, and why as far as the table can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The service of the queue pair.
    pub service: ServiceType,
    /// The state it was in.
    pub current: State,
    /// The state it was asked to go to.
    pub next: State,
    /// Attributes that this step needs and that were not given.
    pub missing: AttributeMask,
    /// Attributes that were given and do not belong to this step.
    pub foreign: AttributeMask,
    /// Whether there is such a step at all.
    pub exists: bool,
    /// Whether a way to the peer with a GID was among the attributes: what the route hint is about.
    pub routed: bool,
    /// The number that the device answered.
    pub errno: i32,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, current, next, .. } = self;
        write!(f, "ibv_modify_qp: a queue pair of {service:?} ")?;
        if !self.exists {
            return write!(
                f,
                "cannot go from {current} to {next}; the way is RESET, INIT, RTR, RTS, and from everywhere to ERR and RESET"
            );
        }
        write!(f, "did not go from {current} to {next}")?;
        if !self.missing.is_empty() {
            write!(f, ": missing {}", names(self.missing))?;
        }
        if !self.foreign.is_empty() {
            write!(f, ": {} cannot be set in this step", names(self.foreign))?;
        }
        if self.missing.is_empty() && self.foreign.is_empty() {
            let system = std::io::Error::from_raw_os_error(self.errno);
            write!(f, ": {system}")?;
            let unreachable = matches!(self.errno, libc::ETIMEDOUT | libc::ENETUNREACH | libc::EHOSTUNREACH);
            if self.routed && unreachable {
                f.write_str("; the peer's GID is not reachable from the local GID: both must be of one network and kind, the peer's interface up, UDP port 4791 open")?;
            } else {
                f.write_str("; all attributes belong to this step, so a value is outside of what the device or port can do")?;
            }
        }
        Ok(())
    }
}

fn names(mask: AttributeMask) -> String {
    mask.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

/// What the table says to a step: the attributes needed, and those allowed besides. Nothing where there is no such step
/// or the service is not in the table.
#[must_use]
pub fn step(service: ServiceType, current: State, next: State) -> Option<(AttributeMask, AttributeMask)> {
    use AttributeMask as A;
    const NONE: AttributeMask = AttributeMask::empty();
    if next == State::RESET || next == State::ERR {
        return Some((NONE, NONE));
    }
    let moved = A::CUR_STATE | A::ALT_PATH | A::ACCESS_FLAGS | A::PATH_MIG_STATE;
    let connected = A::PKEY_INDEX | A::PORT | A::ACCESS_FLAGS;
    let path = A::AV | A::PATH_MTU | A::DEST_QPN | A::RQ_PSN;
    let sender = A::TIMEOUT | A::RETRY_CNT | A::RNR_RETRY | A::SQ_PSN | A::MAX_QP_RD_ATOMIC;
    let responder = A::MAX_DEST_RD_ATOMIC | A::MIN_RNR_TIMER;
    let kind = Kind::of(service)?;
    Some(match (current, next, kind) {
        (State::RESET, State::INIT, Kind::Datagram) => (A::PKEY_INDEX | A::PORT | A::QKEY, NONE),
        (State::RESET, State::INIT, Kind::Raw) => (A::PORT, NONE),
        (State::RESET, State::INIT, _) => (connected, NONE),
        (State::INIT, State::INIT, Kind::Datagram) => (NONE, A::PKEY_INDEX | A::PORT | A::QKEY),
        (State::INIT, State::INIT, Kind::Raw) => (NONE, A::PORT),
        (State::INIT, State::INIT, _) => (NONE, connected),
        (State::INIT, State::RTR, Kind::Datagram) => (NONE, A::PKEY_INDEX | A::QKEY),
        (State::INIT, State::RTR, Kind::Raw) => (NONE, NONE),
        (State::INIT, State::RTR, Kind::Unreliable | Kind::XrcSend) => {
            (path, A::ALT_PATH | A::ACCESS_FLAGS | A::PKEY_INDEX)
        }
        (State::INIT, State::RTR, _) => (path | responder, A::ALT_PATH | A::ACCESS_FLAGS | A::PKEY_INDEX),
        (State::RTR, State::RTS, Kind::Datagram) => (A::SQ_PSN, A::CUR_STATE | A::QKEY),
        (State::RTR, State::RTS, Kind::Raw) => (NONE, A::RATE_LIMIT),
        (State::RTR, State::RTS, Kind::Unreliable) => (A::SQ_PSN, moved),
        (State::RTR, State::RTS, Kind::XrcRecv) => (A::TIMEOUT | A::SQ_PSN, moved | A::MIN_RNR_TIMER),
        (State::RTR, State::RTS, _) => (sender, moved | A::MIN_RNR_TIMER),
        (State::RTS, State::RTS, Kind::Raw) => (NONE, A::RATE_LIMIT),
        (State::RTS | State::SQD, State::RTS, Kind::Datagram) => (NONE, A::CUR_STATE | A::QKEY),
        (State::RTS | State::SQD, State::RTS, Kind::Unreliable | Kind::XrcSend) => (NONE, moved),
        (State::RTS | State::SQD, State::RTS, _) => (NONE, moved | A::MIN_RNR_TIMER),
        (State::SQE, State::RTS, Kind::Datagram) => (NONE, A::CUR_STATE | A::QKEY),
        (State::SQE, State::RTS, Kind::Unreliable) => (NONE, A::CUR_STATE | A::ACCESS_FLAGS),
        (
            State::RTS,
            State::SQD,
            Kind::Datagram | Kind::Reliable | Kind::Unreliable | Kind::XrcSend | Kind::XrcRecv,
        ) => (NONE, A::EN_SQD_ASYNC_NOTIFY),
        (State::SQD, State::SQD, Kind::Datagram) => (NONE, A::PKEY_INDEX | A::QKEY),
        (State::SQD, State::SQD, Kind::Unreliable) => {
            (NONE, A::AV | A::ALT_PATH | A::ACCESS_FLAGS | A::PKEY_INDEX | A::PATH_MIG_STATE)
        }
        (State::SQD, State::SQD, Kind::Reliable) => (
            NONE,
            (sender - A::SQ_PSN)
                | responder
                | A::PORT
                | A::AV
                | A::ALT_PATH
                | A::ACCESS_FLAGS
                | A::PKEY_INDEX
                | A::PATH_MIG_STATE,
        ),
        _ => return None,
    })
}

/// Rows of the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reliable,
    Unreliable,
    Datagram,
    Raw,
    XrcSend,
    XrcRecv,
}

impl Kind {
    const fn of(service: ServiceType) -> Option<Self> {
        Some(match service {
            ServiceType::RC => Self::Reliable,
            ServiceType::UC => Self::Unreliable,
            ServiceType::UD => Self::Datagram,
            ServiceType::RAW_PACKET => Self::Raw,
            ServiceType::XRC_SEND => Self::XrcSend,
            ServiceType::XRC_RECV => Self::XrcRecv,
            _ => return None,
        })
    }
}

/// Why a step was refused: what the table says about the attributes that were given.
#[must_use]
pub fn diagnose(
    service: ServiceType,
    current: State,
    next: State,
    given: AttributeMask,
    routed: bool,
    errno: i32,
) -> Refused {
    let refused = |exists, missing, foreign| Refused {
        service,
        current,
        next,
        missing,
        foreign,
        exists,
        routed,
        errno,
    };
    let none = AttributeMask::empty();
    if Kind::of(service).is_none() {
        return refused(true, none, none);
    }
    match step(service, current, next) {
        None => refused(false, none, none),
        Some((needed, allowed)) => {
            refused(true, needed - given, given - needed - allowed - AttributeMask::STATE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ServiceType; 6] = [
        ServiceType::RC,
        ServiceType::UC,
        ServiceType::UD,
        ServiceType::RAW_PACKET,
        ServiceType::XRC_SEND,
        ServiceType::XRC_RECV,
    ];

    #[test]
    fn the_way_up_exists_for_every_service_and_from_everywhere_to_error_and_reset() {
        for service in ALL {
            for (from, to) in [
                (State::RESET, State::INIT),
                (State::INIT, State::RTR),
                (State::RTR, State::RTS),
                (State::RTS, State::RTS),
            ] {
                assert!(step(service, from, to).is_some(), "{service:?} {from} {to}");
            }
            for from in 0..7 {
                assert!(step(service, State(from), State::ERR).is_some());
                assert!(step(service, State(from), State::RESET).is_some());
            }
            assert!(step(service, State::RESET, State::RTS).is_none());
            assert!(step(service, State::ERR, State::RTS).is_none());
        }
    }

    #[test]
    fn a_missing_and_a_foreign_attribute_are_named() {
        let given =
            AttributeMask::STATE | AttributeMask::PORT | AttributeMask::ACCESS_FLAGS | AttributeMask::QKEY;
        let refused = diagnose(ServiceType::RC, State::RESET, State::INIT, given, false, libc::EINVAL);
        assert_eq!(refused.missing, AttributeMask::PKEY_INDEX);
        assert_eq!(refused.foreign, AttributeMask::QKEY);
        let text = refused.to_string();
        assert!(text.contains("missing PKEY_INDEX") && text.contains("QKEY cannot be set"), "{text}");
    }

    #[test]
    fn a_step_that_there_is_not_says_the_way() {
        let refused =
            diagnose(ServiceType::RC, State::RESET, State::RTS, AttributeMask::STATE, false, libc::EINVAL);
        assert!(!refused.exists);
        assert!(refused.to_string().contains("RESET, INIT, RTR, RTS"));
    }

    #[test]
    fn an_unreachable_gid_gets_the_route_hint_and_other_numbers_do_not() {
        let (needed, _) = step(ServiceType::RC, State::INIT, State::RTR).unwrap();
        let with = |errno| {
            diagnose(ServiceType::RC, State::INIT, State::RTR, needed | AttributeMask::STATE, true, errno)
                .to_string()
        };
        assert!(with(libc::ETIMEDOUT).contains("4791"));
        assert!(with(libc::ENETUNREACH).contains("4791"));
        assert!(!with(libc::EINVAL).contains("4791"));
    }

    #[test]
    fn a_service_that_the_table_does_not_know_is_judged_by_the_device_alone() {
        let refused = diagnose(
            ServiceType::DRIVER,
            State::RESET,
            State::INIT,
            AttributeMask::STATE,
            false,
            libc::EINVAL,
        );
        assert!(refused.exists && refused.missing.is_empty() && refused.foreign.is_empty());
        assert_eq!(format!("{:?}", ServiceType::from_raw(77)), "Unknown(77)");
        assert_eq!(State::from_raw(9).to_string(), "Unknown(9)");
    }
}
