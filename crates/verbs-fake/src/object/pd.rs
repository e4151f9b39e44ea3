//! Protection domains, thread domains, parent domains.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::Kind;
use crate::object::handle::{enter, hand_out, id_of, number, pointer};
use crate::world::{Pd, State};
use core::ffi::c_int;
use sinew_verbs_sys as sys;

pub(crate) unsafe extern "C" fn alloc(context: *mut sys::ibv_context) -> *mut sys::ibv_pd {
    // SAFETY: the caller's promise: a context of this device.
    pointer(unsafe { enter(context, Call::AllocPd) }.map(|mut entered| {
        let id = entered.state.next_id();
        entered.state.pds.insert(id, Pd { context: entered.id, parent_of: None });
        let pd = sys::ibv_pd { context, handle: id };
        hand_out(entered.world, &mut entered.state, Kind::ProtectionDomain, id, pd)
    }))
}

pub(crate) unsafe extern "C" fn dealloc(pd: *mut sys::ibv_pd) -> c_int {
    // SAFETY: the caller's promise: a domain of this device.
    let entered = unsafe { enter(pd, Call::DeallocPd) };
    number(entered.and_then(|mut entered| entered.state.dealloc_pd(entered.id)))
}

impl State {
    fn dealloc_pd(&mut self, pd: u32) -> Result<(), c_int> {
        let used = self.mrs.values().any(|mr| mr.pd == pd)
            || self.mws.values().any(|mw| mw.pd == pd)
            || self.qps.values().any(|qp| qp.pd == pd)
            || self.srqs.values().any(|srq| srq.pd == pd)
            || self.ahs.values().any(|ah| ah.pd == pd)
            || self.pds.values().any(|other| other.parent_of.is_some_and(|(root, _)| root == pd));
        if used {
            return Err(libc::EBUSY);
        }
        self.pds.remove(&pd);
        self.live.remove(&pd);
        Ok(())
    }
}

pub(crate) unsafe extern "C" fn alloc_td(
    context: *mut sys::ibv_context,
    attr: *mut sys::ibv_td_init_attr,
) -> *mut sys::ibv_td {
    // SAFETY: the caller's promise: a context of this device, and its attributes.
    pointer(unsafe { enter(context, Call::AllocTd) }.and_then(|mut entered| {
        // SAFETY: as above.
        if unsafe { (*attr).comp_mask } != 0 {
            return Err(libc::EINVAL);
        }
        let id = entered.state.next_id();
        let td = sys::ibv_td { context };
        Ok(hand_out(entered.world, &mut entered.state, Kind::ThreadDomain, id, td))
    }))
}

pub(crate) unsafe extern "C" fn dealloc_td(td: *mut sys::ibv_td) -> c_int {
    // SAFETY: the caller's promise: a domain of this device.
    number(unsafe { enter(td, Call::DeallocTd) }.and_then(|mut entered| {
        let id = entered.id;
        let of = |pd: &Pd| pd.parent_of.is_some_and(|(_, td)| td == Some(id));
        if entered.state.pds.values().any(of) {
            return Err(libc::EBUSY);
        }
        entered.state.live.remove(&id);
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn alloc_parent(
    context: *mut sys::ibv_context,
    attr: *mut sys::ibv_parent_domain_init_attr,
) -> *mut sys::ibv_pd {
    // SAFETY: the caller's promise: a context of this device, and its attributes.
    pointer(unsafe { enter(context, Call::AllocParentDomain) }.and_then(|mut entered| {
        // SAFETY: as above; the objects that they name are of this device.
        let (pd, td) = unsafe { (id_of((*attr).pd), id_of((*attr).td)) };
        let parent_of = Some((pd.ok_or(libc::EINVAL)?, td));
        let id = entered.state.next_id();
        entered.state.pds.insert(id, Pd { context: entered.id, parent_of });
        let pd = sys::ibv_pd { context, handle: id };
        Ok(hand_out(entered.world, &mut entered.state, Kind::ProtectionDomain, id, pd))
    }))
}

pub(crate) unsafe extern "C" fn open_xrcd(
    context: *mut sys::ibv_context,
    attr: *mut sys::ibv_xrcd_init_attr,
) -> *mut sys::ibv_xrcd {
    // SAFETY: the caller's promise: a context of this device, and its attributes.
    pointer(unsafe { enter(context, Call::OpenXrcd) }.and_then(|mut entered| {
        // SAFETY: as above.
        let attr = unsafe { *attr };
        let needed = sys::IBV_XRCD_INIT_ATTR_FD | sys::IBV_XRCD_INIT_ATTR_OFLAGS;
        if attr.comp_mask != needed || (attr.fd == -1 && attr.oflags & libc::O_CREAT == 0) {
            return Err(libc::EINVAL);
        }
        let id = entered.state.next_id();
        entered.state.xrcds.insert(id, entered.id);
        let xrcd = sys::ibv_xrcd { context };
        Ok(hand_out(entered.world, &mut entered.state, Kind::XrcDomain, id, xrcd))
    }))
}

pub(crate) unsafe extern "C" fn close_xrcd(xrcd: *mut sys::ibv_xrcd) -> c_int {
    // SAFETY: the caller's promise: a domain of this device.
    number(unsafe { enter(xrcd, Call::CloseXrcd) }.and_then(|mut entered| {
        let id = entered.id;
        let state = &mut entered.state;
        let used = state.qps.values().any(|qp| qp.xrcd == Some(id))
            || state.srqs.values().any(|srq| srq.extended.is_some_and(|(domain, _)| domain == id));
        if used {
            return Err(libc::EBUSY);
        }
        state.xrcds.remove(&id);
        state.live.remove(&id);
        Ok(())
    }))
}
