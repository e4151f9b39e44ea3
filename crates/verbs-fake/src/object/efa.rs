//! The functions of libefa: queue pairs of the driver's own type, which are reliable datagrams (SRD).
#![allow(unsafe_code)]

use crate::call::Call;
use crate::object::handle::{Entered, enter, number, pointer};
use crate::object::qp::{make_driver, make_extended};
use crate::options::Efa;
use core::ffi::c_int;
use sinew_verbs_sys as sys;

/// What a request of SRD reads and writes at a time, at most.
const RDMA_MAX: u32 = 1 << 30;

fn efa_of(entered: &Entered, context: u32) -> Result<Efa, c_int> {
    entered.state.device_of(context)?.options.efa.ok_or(libc::EOPNOTSUPP)
}

pub(crate) unsafe extern "C" fn create_driver_qp(
    pd: *mut sys::ibv_pd,
    init: *mut sys::ibv_qp_init_attr,
    kind: u32,
) -> *mut sys::ibv_qp {
    // SAFETY: the caller's promise: a domain of this device, and how to make it, of live objects.
    pointer(unsafe { enter(pd, Call::CreateDriverQp) }.and_then(|entered| {
        efa_of(&entered, entered.state.context_of_pd(entered.id)?)?;
        // SAFETY: as above.
        let init = unsafe { *init };
        if kind != sys::EFADV_QP_DRIVER_TYPE_SRD || init.qp_type != sys::IbvQpType::DRIVER {
            return Err(libc::EINVAL);
        }
        // SAFETY: as above.
        unsafe { make_driver(entered, pd, init) }
    }))
}

pub(crate) unsafe extern "C" fn create_qp_ex(
    context: *mut sys::ibv_context,
    init: *mut sys::ibv_qp_init_attr_ex,
    own: *mut sys::efadv_qp_init_attr,
    len: u32,
) -> *mut sys::ibv_qp {
    // SAFETY: the caller's promise: a context of this device, and how to make it, of live objects.
    pointer(unsafe { enter(context, Call::CreateSrdQp) }.and_then(|entered| {
        efa_of(&entered, entered.id)?;
        // SAFETY: as above: so many bytes, which reach to the type at least.
        let known = unsafe {
            len as usize >= core::mem::offset_of!(sys::efadv_qp_init_attr, wr_flags)
                && (*own).comp_mask == 0
                && (*own).driver_qp_type == sys::EFADV_QP_DRIVER_TYPE_SRD
                && (*own).reserved == 0
        };
        if !known {
            return Err(libc::EINVAL);
        }
        // SAFETY: as above.
        unsafe { make_extended(entered, &*init, true) }
    }))
}

pub(crate) unsafe extern "C" fn query_device(
    context: *mut sys::ibv_context,
    attr: *mut sys::efadv_device_attr,
    len: u32,
) -> c_int {
    // SAFETY: the caller's promise: a context of this device, and a place of so many bytes.
    number(unsafe { enter(context, Call::QueryEfa) }.and_then(|entered| {
        let efa = efa_of(&entered, entered.id)?;
        if (len as usize) < size_of::<sys::efadv_device_attr>() {
            return Err(libc::EINVAL);
        }
        let options = &entered.state.device_of(entered.id)?.options;
        let most = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let mut all = sys::efadv_device_attr::zeroed();
        (all.max_sq_wr, all.max_rq_wr) = (options.max_qp_wr, options.max_qp_wr);
        (all.max_sq_sge, all.max_rq_sge) = (most(options.max_sge), most(options.max_sge));
        all.inline_buf_size = most(options.max_inline);
        let has = |has, bit| if has { bit } else { 0 };
        all.device_caps = sys::EFADV_DEVICE_ATTR_CAPS_RNR_RETRY
            | has(efa.reads, sys::EFADV_DEVICE_ATTR_CAPS_RDMA_READ)
            | has(efa.writes, sys::EFADV_DEVICE_ATTR_CAPS_RDMA_WRITE);
        all.max_rdma_size = RDMA_MAX;
        // SAFETY: as above.
        unsafe { attr.write(all) };
        Ok(())
    }))
}
