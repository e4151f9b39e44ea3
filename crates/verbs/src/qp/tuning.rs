//! What a device can be told and asked of a queue pair besides its state: its rate, extensions of a connection, the order of its data.
//!
//! No software device has any of it: not seen on hardware.
#![allow(unsafe_code)]

use super::pair::QueuePair;
use super::service::Service;
use crate::error::{Error, Result};
use sinew_verbs_sys as sys;

/// How fast a queue pair sends, at most (ibv_modify_qp_rate_limit(3)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[doc(alias = "ibv_qp_rate_limit_attr")]
pub struct RateLimit {
    /// In kbit/s, within [`DeviceAttributes::packet_pacing`](crate::device::DeviceAttributes::packet_pacing); 0: no limit.
    pub rate_kbps: u32,
    /// How many bytes go at once, at most; 0: as the device does it.
    pub burst_bytes_max: u32,
    /// How long most packets are, in bytes, which helps the device to keep the rate; 0: unknown.
    pub packet_bytes_typical: u16,
}

/// Extensions of a connection that both devices know (enhanced connection establishment, ibv_query_ece(3)). What is asked of one side is told to the
/// other, whose device answers what it takes of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[doc(alias = "ibv_ece")]
pub struct Extensions {
    /// Whose they are: devices of two vendors have none in common.
    pub vendor_id: u32,
    /// Which, as the vendor numbers them.
    pub options: u32,
}

/// What a peer's memory or a receive is filled by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transfer {
    /// A message.
    Send,
    /// A write.
    Write,
    /// A read.
    Read,
}

bitflags::bitflags! {
    /// In which order a device writes the bytes of a message: who polls memory for its last byte needs to know (ibv_query_qp_data_in_order(3)).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct DataOrder: u32 {
        /// From the first byte to the last.
        const WHOLE_MESSAGE = 1;
        /// Within each aligned block of 128 bytes.
        const ALIGNED_128_BYTES = 1 << 1;
    }
}

impl<S: Service> QueuePair<S> {
    fn lacks(&self, what: &'static str) -> Error {
        Error::Unsupported { what, object: self.object() }
    }

    fn failed(&self, call: &'static str, errno: sys::Errno) -> Error {
        Error::call(call, self.object(), errno.0)
    }

    /// Limits how fast it sends, or ends the limit. In RTS.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the device has no such thing; [`Error::Call`], as `EINVAL` outside of the device's range.
    #[doc(alias = "ibv_modify_qp_rate_limit")]
    pub fn set_rate_limit(&self, limit: RateLimit) -> Result<()> {
        let mut raw = sys::ibv_qp_rate_limit_attr::zeroed();
        raw.rate_limit = limit.rate_kbps;
        raw.max_burst_sz = limit.burst_bytes_max;
        raw.typical_pkt_sz = limit.packet_bytes_typical;
        let _alone = self.alone();
        // SAFETY: the queue pair is alive, and changed by nobody else meanwhile; the attributes are a local.
        let answer = unsafe { sys::ibv_modify_qp_rate_limit(self.as_raw(), &mut raw) };
        answer.map_err(|errno| self.failed("ibv_modify_qp_rate_limit", errno))
    }

    /// Extensions that its device can use with a peer. In INIT or later; the peer is told them with the endpoint, by the program.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where library or device have none; [`Error::Call`] from the device.
    #[doc(alias = "ibv_query_ece")]
    pub fn extensions(&self) -> Result<Extensions> {
        let function =
            self.protection_domain().table().ibv_query_ece.ok_or_else(|| self.lacks("ibv_query_ece"))?;
        let mut raw = sys::ibv_ece::zeroed();
        let _alone = self.alone();
        // SAFETY: the queue pair is alive, and changed by nobody else meanwhile; the place is a local.
        sys::Errno::check(unsafe { function(self.as_raw(), &mut raw) })
            .map_err(|errno| self.failed("ibv_query_ece", errno))?;
        Ok(Extensions { vendor_id: raw.vendor_id, options: raw.options })
    }

    /// Uses these extensions, as far as its device knows them: what it took of them is what [`extensions`](Self::extensions) says afterwards. Before RTR.
    ///
    /// # Errors
    /// As for [`extensions`](Self::extensions).
    #[doc(alias = "ibv_set_ece")]
    pub fn set_extensions(&self, extensions: Extensions) -> Result<()> {
        let function =
            self.protection_domain().table().ibv_set_ece.ok_or_else(|| self.lacks("ibv_set_ece"))?;
        let mut raw = sys::ibv_ece::zeroed();
        (raw.vendor_id, raw.options) = (extensions.vendor_id, extensions.options);
        let _alone = self.alone();
        // SAFETY: the queue pair is alive, and changed by nobody else meanwhile; the place is a local.
        sys::Errno::check(unsafe { function(self.as_raw(), &mut raw) })
            .map_err(|errno| self.failed("ibv_set_ece", errno))
    }

    /// In which order bytes of such transfers are written to memory; nothing is promised by a device that does not say, as any before rdma-core 43.
    #[must_use]
    #[doc(alias = "ibv_query_qp_data_in_order")]
    pub fn data_order(&self, transfer: Transfer) -> DataOrder {
        let Some(function) = self.protection_domain().table().ibv_query_qp_data_in_order else {
            return DataOrder::empty();
        };
        let opcode = match transfer {
            Transfer::Send => sys::IbvWrOpcode::SEND,
            Transfer::Write => sys::IbvWrOpcode::RDMA_WRITE,
            Transfer::Read => sys::IbvWrOpcode::RDMA_READ,
        };
        // SAFETY: the queue pair is alive.
        let ask = |flags| unsafe { function(self.as_raw(), opcode, flags) };
        // A library that does not know the flag answers 0 to it; without it the answer is yes or no.
        match u32::try_from(ask(sys::IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS)) {
            Ok(order @ 1..) => DataOrder::from_bits_truncate(order),
            _ if ask(0) == 1 => DataOrder::WHOLE_MESSAGE,
            _ => DataOrder::empty(),
        }
    }
}
