//! What is told and asked of queue pairs besides their state: rates, extensions of a connection, the order of data.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::object::handle::{enter, number};
use core::ffi::c_int;
use sinew_verbs_sys as sys;

/// Rates that are accepted, in kbit/s; they change nothing.
pub(crate) const RATES: core::ops::RangeInclusive<u32> = 10..=1 << 27;

/// Whose the extensions are: the device's own vendor.
const VENDOR: u32 = 0x5157;
/// Extensions that a queue pair begins with, and those that the device knows.
pub(crate) const EXTENSIONS: u32 = 0xf;
const KNOWN_EXTENSIONS: u32 = 0x3;

pub(crate) unsafe extern "C" fn limit_rate(
    qp: *mut sys::ibv_qp,
    attr: *mut sys::ibv_qp_rate_limit_attr,
) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, and its limit.
    number(unsafe { enter(qp, Call::LimitRate) }.and_then(|mut entered| {
        // SAFETY: as above.
        let limit = unsafe { *attr };
        let id = entered.id;
        let qp = entered.state.qp(id)?;
        let is_known = limit.rate_limit == 0 || RATES.contains(&limit.rate_limit);
        if qp.state != sys::IbvQpState::RTS || !is_known || limit.comp_mask != 0 {
            return Err(libc::EINVAL);
        }
        qp.attr.rate_limit = limit.rate_limit;
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn query_extensions(qp: *mut sys::ibv_qp, ece: *mut sys::ibv_ece) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, and a place for the answer.
    number(unsafe { enter(qp, Call::QueryEce) }.and_then(|mut entered| {
        let id = entered.id;
        let options = entered.state.qp(id)?.extensions;
        // SAFETY: as above.
        unsafe { ece.write(sys::ibv_ece { vendor_id: VENDOR, options, comp_mask: 0 }) };
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn set_extensions(qp: *mut sys::ibv_qp, ece: *mut sys::ibv_ece) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, and its extensions.
    number(unsafe { enter(qp, Call::SetEce) }.and_then(|mut entered| {
        // SAFETY: as above.
        let ece = unsafe { *ece };
        let id = entered.id;
        let qp = entered.state.qp(id)?;
        let is_early = [sys::IbvQpState::RESET, sys::IbvQpState::INIT].contains(&qp.state);
        if !is_early || ece.vendor_id != VENDOR || ece.comp_mask != 0 {
            return Err(libc::EINVAL);
        }
        qp.extensions = ece.options & KNOWN_EXTENSIONS;
        Ok(())
    }))
}

/// Bytes are copied from the first to the last.
pub(crate) unsafe extern "C" fn data_in_order(
    qp: *mut sys::ibv_qp,
    _: sys::IbvWrOpcode,
    flags: u32,
) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device.
    let entered = unsafe { enter(qp, Call::DataInOrder) };
    match (entered.is_ok(), flags) {
        (true, 0) => 1,
        (true, sys::IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS) => (sys::IBV_QUERY_QP_DATA_IN_ORDER_WHOLE_MSG
            | sys::IBV_QUERY_QP_DATA_IN_ORDER_ALIGNED_128_BYTES)
            .cast_signed(),
        _ => 0,
    }
}
