//! Making a queue pair of SRD (scalable reliable datagrams): by the functions of libefa, as libibverbs has none for it; efadv(7).
//!
//! Called by the builder. What the device says that it reads and writes is what the queue pair is made for; a libefa from before
//! extended posting makes one that only sends.
#![allow(unsafe_code)]

use super::builder::QueuePairBuilder;
use super::pair::{Depths, QueuePair};
use super::service::{Operations, Service};
use crate::error::{Error, Result};
use sinew_verbs_sys as sys;
use std::ptr::NonNull;

impl<S: Service> QueuePairBuilder<'_, S> {
    pub(super) fn build_reliable_datagrams(&self) -> Result<QueuePair<S>> {
        let context = self.pd.context();
        if self.shared.is_some() {
            return Err(Error::invalid(
                "shared receive queue",
                "queue pairs of SRD have none",
                "give each a receive queue (`receive_depth`)",
            ));
        }
        let table = context.library().efa_table()?;
        // Given back when anything below fails.
        let reservations = (self.send.reserve(self.depths.send)?, self.receive.reserve(self.depths.receive)?);
        let mut attributes = self.raw_attributes();
        let (qp, wanted, extended) = match table.efadv_create_qp_ex {
            Some(create) if self.options.extended => {
                // SAFETY: the context is open.
                let wanted = Operations::SENDS | unsafe { self.reads_and_writes(table) }?;
                attributes.comp_mask |= sys::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
                attributes.send_ops_flags = wanted.bits();
                let mut own = sys::efadv_qp_init_attr::zeroed();
                own.driver_qp_type = sys::EFADV_QP_DRIVER_TYPE_SRD;
                // What every version knows; the rest is zero.
                let len = std::mem::offset_of!(sys::efadv_qp_init_attr, wr_flags) as u32;
                // SAFETY: the context is open, the attributes name live objects of it; both live through the call.
                let qp = unsafe { create(context.as_raw(), &mut attributes, &mut own, len) };
                (self.made("efadv_create_qp_ex", qp)?, wanted, true)
            }
            _ => {
                let create = table.efadv_create_driver_qp;
                // SAFETY: the domain is alive; the extended attributes start as the legacy ones, and name live objects.
                let qp = unsafe {
                    let legacy = (&raw mut attributes).cast::<sys::ibv_qp_init_attr>();
                    create(self.pd.as_raw(), legacy, sys::EFADV_QP_DRIVER_TYPE_SRD)
                };
                (self.made("efadv_create_driver_qp", qp)?, Operations::SENDS, false)
            }
        };
        // SAFETY: just made with these operations.
        let extended = extended.then(|| unsafe { self.posting(qp, wanted) }).flatten();
        // A list of requests has no place for a reliable datagram's reads and writes.
        let operations = if extended.is_some() { wanted } else { Operations::SENDS };
        let depths = Depths { inline: attributes.cap.max_inline_data, ..self.depths };
        Ok(QueuePair::new(self.pd, qp, extended, operations, depths, reservations, None))
    }

    fn made(&self, call: &'static str, qp: *mut sys::ibv_qp) -> Result<NonNull<sys::ibv_qp>> {
        NonNull::new(qp).ok_or_else(|| self.refused(call, sys::Errno::last().0))
    }

    fn refused(&self, call: &'static str, errno: i32) -> Error {
        let name = self.pd.context().name();
        match errno {
            libc::EOPNOTSUPP | libc::ENOSYS => Error::Unsupported {
                what: "scalable reliable datagrams (SRD), which Amazon's EFA has; take RC or UD here",
                object: name.to_owned(),
            },
            number => Error::call(call, format_args!("a queue pair of SRD of {name}"), number),
        }
    }

    /// What the device does besides sends.
    ///
    /// # Safety
    /// The context is open.
    unsafe fn reads_and_writes(&self, table: &sys::EfaTable) -> Result<Operations> {
        let Some(query) = table.efadv_query_device else { return Ok(Operations::empty()) };
        let mut attributes = sys::efadv_device_attr::zeroed();
        let len = size_of::<sys::efadv_device_attr>() as u32;
        // SAFETY: by the caller's promise; the place lives through the call and has the length that is said.
        let answer = unsafe { query(self.pd.context().as_raw(), &mut attributes, len) };
        sys::Errno::check(answer).map_err(|errno| self.refused("efadv_query_device", errno.0))?;
        let has = |bit, operations| {
            if attributes.device_caps & bit != 0 { operations } else { Operations::empty() }
        };
        Ok(has(sys::EFADV_DEVICE_ATTR_CAPS_RDMA_READ, Operations::READ)
            | has(sys::EFADV_DEVICE_ATTR_CAPS_RDMA_WRITE, Operations::WRITES))
    }
}
