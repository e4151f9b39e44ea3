//! One completion as the device wrote it.

use crate::work::{Opcode, Status, WorkError};
use sinew_verbs_sys as sys;
use std::fmt;

bitflags::bitflags! {
    /// What completions tell besides the usual (number, status, operation, length, immediate data, queue pairs).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    #[doc(alias = "ibv_create_cq_wc_flags")]
    pub struct Fields: u64 {
        /// When it completed, by the device's clock.
        const TIMESTAMP = 1 << 7;
        /// When it completed, by the clock of the wall, in nanoseconds.
        const WALL_CLOCK = 1 << 11;
    }
}

/// How one request ended: plain data, copied out of the queue.
#[derive(Clone, Copy)]
#[repr(transparent)]
#[doc(alias = "ibv_wc")]
pub struct WorkCompletion {
    raw: sys::ibv_wc,
}

impl WorkCompletion {
    /// Nothing yet: what an array starts with.
    pub const EMPTY: Self = Self {
        raw: sys::ibv_wc {
            wr_id: 0,
            status: sys::IbvWcStatus(0),
            opcode: sys::IbvWcOpcode(0),
            vendor_err: 0,
            byte_len: 0,
            imm_data: 0,
            qp_num: 0,
            src_qp: 0,
            wc_flags: 0,
            pkey_index: 0,
            slid: 0,
            sl: 0,
            dlid_path_bits: 0,
        },
    };

    pub(crate) const fn from_raw(raw: sys::ibv_wc) -> Self {
        Self { raw }
    }

    /// The number that the request was posted under.
    #[must_use]
    #[inline]
    pub const fn wr_id(&self) -> u64 {
        self.raw.wr_id
    }

    /// How it ended.
    #[must_use]
    #[inline]
    pub const fn status(&self) -> Status {
        Status::from_raw(self.raw.status.0)
    }

    /// Nothing, or why it failed.
    ///
    /// # Errors
    /// The failure.
    #[inline]
    pub const fn ok(&self) -> Result<(), WorkError> {
        if self.raw.status.0 == 0 {
            Ok(())
        } else {
            Err(WorkError {
                status: Status::from_raw(self.raw.status.0),
                vendor_error: self.raw.vendor_err,
                qp_num: self.raw.qp_num,
            })
        }
    }

    /// What it was. Devices say it only of what succeeded: nothing otherwise.
    #[must_use]
    pub const fn opcode(&self) -> Option<Opcode> {
        if self.raw.status.0 == 0 { Some(Opcode::from_raw(self.raw.opcode.0)) } else { None }
    }

    /// How many bytes arrived: of a receive, a read or an atomic that succeeded. Nothing for a send or write, whose
    /// length no device tells.
    #[must_use]
    pub const fn len(&self) -> Option<u32> {
        match self.opcode() {
            Some(Opcode::SEND | Opcode::WRITE | Opcode::BIND_WINDOW | Opcode::LOCAL_INVALIDATE) | None => {
                None
            }
            Some(_) => Some(self.raw.byte_len),
        }
    }

    /// Whether no bytes arrived, where the device tells.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// Whether a message arrived with this. Some drivers (rxe) mark sends too as if words came with them.
    const fn has_arrived(&self) -> bool {
        self.raw.status.0 == 0 && Opcode::from_raw(self.raw.opcode.0).is_receive()
    }

    /// The immediate data that came along.
    #[must_use]
    pub const fn immediate(&self) -> Option<u32> {
        if self.has_arrived() && self.raw.wc_flags & sys::IBV_WC_WITH_IMM != 0 {
            Some(u32::from_be(self.raw.imm_data))
        } else {
            None
        }
    }

    /// The key of ours that the peer's send invalidated.
    #[must_use]
    pub const fn invalidated_key(&self) -> Option<u32> {
        if self.has_arrived() && self.raw.wc_flags & sys::IBV_WC_WITH_INV != 0 {
            Some(self.raw.imm_data)
        } else {
            None
        }
    }

    /// Whether a datagram's buffer begins with the 40 bytes of a global route.
    #[must_use]
    pub const fn has_global_route(&self) -> bool {
        self.raw.wc_flags & sys::IBV_WC_GRH != 0
    }

    /// Number of the queue pair that it was posted to.
    #[must_use]
    pub const fn qp_num(&self) -> u32 {
        self.raw.qp_num
    }

    /// Number of the queue pair that sent a datagram.
    #[must_use]
    pub const fn source_qp_num(&self) -> u32 {
        self.raw.src_qp
    }

    /// Local identifier of the port that sent a datagram.
    #[must_use]
    pub const fn source_lid(&self) -> u16 {
        self.raw.slid
    }

    /// Service level of a datagram.
    #[must_use]
    pub const fn service_level(&self) -> u8 {
        self.raw.sl
    }

    /// Low bits of the local identifier that a datagram was sent to.
    #[must_use]
    pub const fn path_bits(&self) -> u8 {
        self.raw.dlid_path_bits
    }

    /// Place of the partition key of a datagram.
    #[must_use]
    pub const fn pkey_index(&self) -> u16 {
        self.raw.pkey_index
    }

    /// As the ABI has it.
    #[must_use]
    pub const fn as_raw(&self) -> &sys::ibv_wc {
        &self.raw
    }
}

impl fmt::Debug for WorkCompletion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("WorkCompletion");
        out.field("wr_id", &self.wr_id()).field("status", &self.status()).field("qp_num", &self.qp_num());
        match self.opcode() {
            Some(opcode) => {
                out.field("opcode", &opcode).field("len", &self.len()).field("immediate", &self.immediate())
            }
            None => out.field("vendor_error", &self.raw.vendor_err),
        };
        out.finish_non_exhaustive()
    }
}
