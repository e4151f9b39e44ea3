//! How a work request ended: its completion, and if it failed, which of the ways to fail it was and what to do.
//!
//! Values come from the device: numbers with names, what is unknown is kept and shown.

use crate::number::named_number;
use std::fmt;

named_number! {
    /// What a completed request was (`enum ibv_wc_opcode`).
    Opcode: u32 {
        /// A send.
        SEND = 0 => "SEND",
        /// A write to remote memory.
        WRITE = 1 => "WRITE",
        /// A read of remote memory.
        READ = 2 => "READ",
        /// A compare-and-swap.
        COMPARE_SWAP = 3 => "COMPARE_SWAP",
        /// A fetch-and-add.
        FETCH_ADD = 4 => "FETCH_ADD",
        /// A memory window bound.
        BIND_WINDOW = 5 => "BIND_WINDOW",
        /// A local key invalidated.
        LOCAL_INVALIDATE = 6 => "LOCAL_INVALIDATE",
        /// A receive: a message arrived.
        RECEIVE = 128 => "RECEIVE",
        /// A receive that a write with immediate data consumed.
        RECEIVE_WRITE_IMMEDIATE = 129 => "RECEIVE_WRITE_IMMEDIATE",
    }
}

impl Opcode {
    /// Whether it consumed a posted receive.
    #[must_use]
    pub const fn is_receive(self) -> bool {
        self.0 & Self::RECEIVE.0 != 0
    }
}

/// The status of a completion (`enum ibv_wc_status`). A number with names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u32);

/// Who has to do something about a failure.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Class {
    /// The request or its memory was wrong here.
    LocalProgramming,
    /// Something ran out here.
    LocalResource,
    /// The peer refused it.
    Remote,
    /// The peer did not answer.
    Timeout,
    /// The connection is no connection, or was closed.
    Transport,
    /// The device failed.
    Fatal,
    /// A status that nobody named.
    Unknown,
}

/// Name, class and remedy of each status, by its number.
const STATUSES: [(&str, Class, &str); 24] = [
    ("SUCCESS", Class::Unknown, ""),
    (
        "LOC_LEN_ERR",
        Class::LocalProgramming,
        "the message is longer than the posted receive, or longer than the port or service allows",
    ),
    ("LOC_QP_OP_ERR", Class::LocalProgramming, "the queue pair cannot do this operation as it was set up"),
    ("LOC_EEC_OP_ERR", Class::LocalProgramming, "the end-to-end context cannot do this operation"),
    (
        "LOC_PROT_ERR",
        Class::LocalProgramming,
        "the memory is not registered for this: key, range or local-write access are wrong",
    ),
    (
        "WR_FLUSH_ERR",
        Class::Transport,
        "the queue pair went to its error state before; the first failure says why",
    ),
    (
        "MW_BIND_ERR",
        Class::LocalProgramming,
        "the memory window cannot be bound: region, range or access are wrong",
    ),
    (
        "BAD_RESP_ERR",
        Class::Transport,
        "the answer makes no sense; the two sides disagree about the connection",
    ),
    (
        "LOC_ACCESS_ERR",
        Class::LocalProgramming,
        "a write with immediate data met a receive whose memory is not registered for it",
    ),
    (
        "REM_INV_REQ_ERR",
        Class::Remote,
        "the peer's queue pair does not take this request: message too long for its receive, or operation not allowed",
    ),
    (
        "REM_ACCESS_ERR",
        Class::Remote,
        "the remote key, range or access is wrong; the region was closed, or is not exposed for this",
    ),
    (
        "REM_OP_ERR",
        Class::Remote,
        "the peer's device could not finish it; its completion queue may have overrun",
    ),
    (
        "RETRY_EXC_ERR",
        Class::Timeout,
        "the peer did not acknowledge: it is gone, not connected yet, or packets are lost",
    ),
    (
        "RNR_RETRY_EXC_ERR",
        Class::Timeout,
        "the peer has no receive posted; post receives earlier, or raise the retries",
    ),
    ("LOC_RDD_VIOL_ERR", Class::LocalProgramming, "the reliable datagram domains differ"),
    ("REM_INV_RD_REQ_ERR", Class::Remote, "the peer refuses the reliable datagram"),
    ("REM_ABORT_ERR", Class::Remote, "the peer aborted it"),
    ("INV_EECN_ERR", Class::LocalProgramming, "no such end-to-end context"),
    ("INV_EEC_STATE_ERR", Class::LocalProgramming, "the end-to-end context is in a wrong state"),
    ("FATAL_ERR", Class::Fatal, "the device failed; open it anew"),
    ("RESP_TIMEOUT_ERR", Class::Timeout, "no answer in time"),
    ("GENERAL_ERR", Class::Unknown, "the device does not say more; the vendor code may"),
    ("TM_ERR", Class::LocalProgramming, "tag matching failed"),
    ("TM_RNDV_INCOMPLETE", Class::LocalProgramming, "the rendezvous is for software to finish"),
];

impl Status {
    /// It succeeded.
    pub const SUCCESS: Self = Self(0);
    /// The message is longer than the receive.
    pub const LOCAL_LENGTH: Self = Self(1);
    /// The queue pair cannot do this.
    pub const LOCAL_OPERATION: Self = Self(2);
    /// Local memory is not registered for it.
    pub const LOCAL_PROTECTION: Self = Self(4);
    /// Flushed: the queue pair was in its error state.
    pub const FLUSHED: Self = Self(5);
    /// The peer refuses the request.
    pub const REMOTE_INVALID_REQUEST: Self = Self(9);
    /// The peer's memory is not exposed for it.
    pub const REMOTE_ACCESS: Self = Self(10);
    /// The peer could not finish it.
    pub const REMOTE_OPERATION: Self = Self(11);
    /// The peer does not acknowledge.
    pub const RETRY_EXCEEDED: Self = Self(12);
    /// The peer has no receive posted.
    pub const RNR_RETRY_EXCEEDED: Self = Self(13);
    /// The device failed.
    pub const FATAL: Self = Self(19);

    /// From the number of the ABI.
    #[must_use]
    pub const fn from_raw(number: u32) -> Self {
        Self(number)
    }

    /// The number of the ABI.
    #[must_use]
    pub const fn as_raw(self) -> u32 {
        self.0
    }

    /// Whether the request did what it was asked.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// Who has to do something about it.
    #[must_use]
    pub fn class(self) -> Class {
        STATUSES.get(self.0 as usize).map_or(Class::Unknown, |row| row.1)
    }

    /// What to do about it, or nothing where nobody knows.
    #[must_use]
    pub fn hint(self) -> &'static str {
        STATUSES.get(self.0 as usize).map_or("", |row| row.2)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match STATUSES.get(self.0 as usize) {
            Some(row) => f.write_str(row.0),
            None => write!(f, "Unknown({})", self.0),
        }
    }
}

/// A work request that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkError {
    /// Which way to fail it was.
    pub status: Status,
    /// The vendor's code, with the meaning that the vendor gives it.
    pub vendor_error: u32,
    /// Number of the local queue pair.
    pub qp_num: u32,
}

impl WorkError {
    /// Whether the same request may succeed when the peer is ready; the queue pair needs a reset first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.status.class() == Class::Timeout
    }
}

impl fmt::Display for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, vendor_error, qp_num } = self;
        write!(f, "{status:?} on queue pair {qp_num:#x} (vendor code {vendor_error:#x})")?;
        match status.hint() {
            "" => Ok(()),
            hint => write!(f, ": {hint}"),
        }
    }
}

impl std::error::Error for WorkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_class_and_a_hint_and_unknown_ones_say_so() {
        for number in 1..STATUSES.len() as u32 {
            let status = Status::from_raw(number);
            assert!(!status.is_success());
            assert!(!status.hint().is_empty(), "{status:?}");
        }
        let unknown = Status::from_raw(200);
        assert_eq!(unknown.class(), Class::Unknown);
        assert_eq!(format!("{unknown:?}"), "Unknown(200)");
        assert!(Status::SUCCESS.is_success());
    }

    #[test]
    fn names_stand_at_the_numbers_of_the_abi() {
        let name = |status: Status| format!("{status:?}");
        assert_eq!(name(Status::LOCAL_PROTECTION), "LOC_PROT_ERR");
        assert_eq!(name(Status::FLUSHED), "WR_FLUSH_ERR");
        assert_eq!(name(Status::REMOTE_ACCESS), "REM_ACCESS_ERR");
        assert_eq!(name(Status::RETRY_EXCEEDED), "RETRY_EXC_ERR");
        assert_eq!(name(Status::RNR_RETRY_EXCEEDED), "RNR_RETRY_EXC_ERR");
        assert_eq!(name(Status::FATAL), "FATAL_ERR");
    }

    #[test]
    fn a_failure_prints_status_codes_and_remedy() {
        let error = WorkError { status: Status::REMOTE_ACCESS, vendor_error: 0x88, qp_num: 0x11 };
        let text = error.to_string();
        assert!(
            text.contains("REM_ACCESS_ERR")
                && text.contains("0x88")
                && text.contains("0x11")
                && text.contains("key"),
            "{text}"
        );
        assert!(!error.is_retryable());
    }

    #[test]
    fn a_receive_is_told_from_a_send() {
        assert!(Opcode::RECEIVE.is_receive() && Opcode::RECEIVE_WRITE_IMMEDIATE.is_receive());
        assert!(!Opcode::FETCH_ADD.is_receive());
        assert_eq!(format!("{:?}", Opcode::from_raw(99)), "Unknown(99)");
    }
}
