//! Shared receive queues.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::{Fault, Kind};
use crate::object::handle::{Entered, enter, hand_out, id_of, number, pointer};
use crate::request::Receive;
use crate::world::{About, Srq, State};
use core::ffi::c_int;
use sinew_verbs_sys as sys;
use std::collections::VecDeque;

pub(crate) unsafe extern "C" fn create(
    pd: *mut sys::ibv_pd,
    init: *mut sys::ibv_srq_init_attr,
) -> *mut sys::ibv_srq {
    // SAFETY: the caller's promise: a domain of this device, and how to make it.
    pointer(unsafe { enter(pd, Call::CreateSrq) }.and_then(|entered| {
        // SAFETY: as above.
        let init = unsafe { *init };
        let pd_id = entered.id;
        make(entered, pd_id, pd, init, None)
    }))
}

pub(crate) unsafe extern "C" fn create_ex(
    context: *mut sys::ibv_context,
    init: *mut sys::ibv_srq_init_attr_ex,
) -> *mut sys::ibv_srq {
    // SAFETY: the caller's promise: a context of this device, and how to make it, of live objects.
    pointer(unsafe { enter(context, Call::CreateSrqEx) }.and_then(|entered| {
        // SAFETY: as above.
        let (init, pd, xrcd, cq) =
            unsafe { (*init, id_of((*init).pd), id_of((*init).xrcd), id_of((*init).cq)) };
        let needed = sys::IBV_SRQ_INIT_ATTR_TYPE
            | sys::IBV_SRQ_INIT_ATTR_PD
            | sys::IBV_SRQ_INIT_ATTR_XRCD
            | sys::IBV_SRQ_INIT_ATTR_CQ;
        if init.comp_mask != needed || init.srq_type != sys::IbvSrqType::XRC {
            return Err(libc::EOPNOTSUPP);
        }
        let (Some(pd), Some(xrcd), Some(cq)) = (pd, xrcd, cq) else { return Err(libc::EINVAL) };
        let legacy = sys::ibv_srq_init_attr { srq_context: init.srq_context, attr: init.attr };
        make(entered, pd, init.pd, legacy, Some((xrcd, cq)))
    }))
}

fn make(
    mut entered: Entered,
    pd_id: u32,
    pd: *mut sys::ibv_pd,
    init: sys::ibv_srq_init_attr,
    extended: Option<(u32, u32)>,
) -> Result<*mut sys::ibv_srq, c_int> {
    let Entered { world, state, .. } = &mut entered;
    let context = state.context_of_pd(pd_id)?;
    let options = &state.device_of(context)?.options;
    let attr = init.attr;
    if attr.max_wr == 0 || attr.max_wr > options.max_srq_wr || attr.max_sge > options.max_sge {
        return Err(libc::EINVAL);
    }
    if state.srqs.len() >= options.max_srq as usize {
        return Err(libc::ENOMEM);
    }
    let id = state.next_id();
    let srq = Srq {
        pd: pd_id,
        max_wr: attr.max_wr,
        max_sge: attr.max_sge,
        limit: 0,
        queue: VecDeque::new(),
        used: 0,
        unacked_async: 0,
        extended,
    };
    state.srqs.insert(id, srq);
    let mut object = sys::ibv_srq::zeroed();
    object.context = state.pointer(context);
    (object.srq_context, object.pd, object.handle) = (init.srq_context, pd, id);
    Ok(hand_out(world, state, Kind::SharedReceiveQueue, id, object))
}

pub(crate) unsafe extern "C" fn modify(
    srq: *mut sys::ibv_srq,
    attr: *mut sys::ibv_srq_attr,
    mask: c_int,
) -> c_int {
    // SAFETY: the caller's promise: a queue of this device, and its attributes.
    number(unsafe { enter(srq, Call::ModifySrq) }.and_then(|mut entered| {
        // SAFETY: as above.
        let attr = unsafe { *attr };
        let id = entered.id;
        let pd = entered.state.srqs.get(&id).ok_or(libc::EINVAL)?.pd;
        let context = entered.state.context_of_pd(pd)?;
        let most = entered.state.device_of(context)?.options.max_srq_wr;
        let srq = entered.state.srqs.get_mut(&id).ok_or(libc::EINVAL)?;
        let mask = mask.cast_unsigned();
        if mask & sys::IBV_SRQ_MAX_WR != 0 {
            if attr.max_wr < srq.used || attr.max_wr > most {
                return Err(libc::EINVAL);
            }
            srq.max_wr = attr.max_wr;
        }
        if mask & sys::IBV_SRQ_LIMIT != 0 {
            if attr.srq_limit > srq.max_wr {
                return Err(libc::EINVAL);
            }
            srq.limit = attr.srq_limit;
            entered.state.check_limit(id);
        }
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn query(srq: *mut sys::ibv_srq, attr: *mut sys::ibv_srq_attr) -> c_int {
    // SAFETY: the caller's promise: a queue of this device, and a place for its attributes.
    number(unsafe { enter(srq, Call::QuerySrq) }.and_then(|entered| {
        let srq = entered.state.srqs.get(&entered.id).ok_or(libc::EINVAL)?;
        let now = sys::ibv_srq_attr { max_wr: srq.max_wr, max_sge: srq.max_sge, srq_limit: srq.limit };
        // SAFETY: as above.
        unsafe { attr.write(now) };
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn num(srq: *mut sys::ibv_srq, number_of: *mut u32) -> c_int {
    // SAFETY: the caller's promise: a queue of this device, and a place for its number.
    number(unsafe { enter(srq, Call::GetSrqNum) }.map(|entered| {
        // SAFETY: as above.
        unsafe { number_of.write(entered.id) };
    }))
}

pub(crate) unsafe extern "C" fn destroy(srq: *mut sys::ibv_srq) -> c_int {
    // SAFETY: the caller's promise: a queue of this device.
    let entered = unsafe { enter(srq, Call::DestroySrq) };
    number(entered.and_then(|mut entered| entered.state.destroy_srq(entered.id)))
}

impl State {
    fn destroy_srq(&mut self, id: u32) -> Result<(), c_int> {
        if self.qps.values().any(|qp| qp.srq == Some(id)) {
            return Err(libc::EBUSY);
        }
        let count = self.srqs.get(&id).ok_or(libc::EINVAL)?.unacked_async;
        if count > 0 {
            self.faults.push(Fault::UnacknowledgedEvents {
                kind: Kind::SharedReceiveQueue,
                handle: id,
                count,
            });
        }
        self.forget_async_events(id);
        self.srqs.remove(&id);
        self.live.remove(&id);
        Ok(())
    }

    /// Puts a receive into a shared queue.
    pub(crate) fn post_srq(&mut self, id: u32, mut receive: Receive) -> Result<(), c_int> {
        let srq = self.srqs.get(&id).ok_or(libc::EINVAL)?;
        if receive.pieces.len() > srq.max_sge as usize {
            return Err(libc::EINVAL);
        }
        if srq.used >= srq.max_wr {
            return Err(libc::ENOMEM);
        }
        receive.touches = self.touches(srq.pd, &receive.pieces, true, 0, receive.wr_id);
        let srq = self.srqs.get_mut(&id).ok_or(libc::EINVAL)?;
        srq.used += 1;
        srq.queue.push_back(receive);
        Ok(())
    }

    /// Raises the limit event, once, when fewer receives are left than it says.
    pub(crate) fn check_limit(&mut self, id: u32) {
        let Some(srq) = self.srqs.get_mut(&id) else { return };
        if srq.limit == 0 || srq.queue.len() >= srq.limit as usize {
            return;
        }
        srq.limit = 0;
        let pd = srq.pd;
        if let Ok(context) = self.context_of_pd(pd) {
            self.raise(context, sys::IbvEventType::SRQ_LIMIT_REACHED, About::Object(id));
        }
    }
}
