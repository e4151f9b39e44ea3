//! Memory windows: made and freed here; bound by requests (`engine/run.rs`).
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::Kind;
use crate::object::handle::{enter, find, hand_out, id_of, number, pointer};
use crate::request::{Bind, Send};
use crate::world::{Key, Mw};
use core::ffi::c_int;
use sinew_verbs_sys as sys;

pub(crate) unsafe extern "C" fn alloc(pd: *mut sys::ibv_pd, kind: sys::IbvMwType) -> *mut sys::ibv_mw {
    // SAFETY: the caller's promise: a domain of this device.
    pointer(unsafe { enter(pd, Call::AllocMw) }.and_then(|mut entered| {
        if kind != sys::IbvMwType::TYPE_1 && kind != sys::IbvMwType::TYPE_2 {
            return Err(libc::EINVAL);
        }
        let context = entered.state.context_of_pd(entered.id)?;
        let (id, rkey) = (entered.state.next_id(), entered.state.next_key());
        entered.state.mws.insert(id, Mw { pd: entered.id, kind, rkey, bound: None });
        entered.state.keys.insert(rkey, Key::Window(id));
        let mw = sys::ibv_mw { context: entered.state.pointer(context), pd, rkey, handle: id, r#type: kind };
        Ok(hand_out(entered.world, &mut entered.state, Kind::MemoryWindow, id, mw))
    }))
}

pub(crate) unsafe extern "C" fn dealloc(mw: *mut sys::ibv_mw) -> c_int {
    // SAFETY: the caller's promise: a window of this device.
    number(unsafe { enter(mw, Call::DeallocMw) }.map(|mut entered| {
        let id = entered.id;
        entered.state.keys.retain(|_, key| *key != Key::Window(id));
        entered.state.mws.remove(&id);
        entered.state.live.remove(&id);
    }))
}

/// Copies what a window is bound to.
///
/// # Safety
/// Window and region are of this device, the region may be null.
pub(crate) unsafe fn binding(mw: *mut sys::ibv_mw, rkey: Option<u32>, info: &sys::ibv_mw_bind_info) -> Bind {
    // SAFETY: the caller's promise.
    let (mw, mr) = unsafe { (find(mw).1, id_of(info.mr)) };
    Bind { mw, rkey, mr, addr: info.addr, len: info.length, access: info.mw_access_flags }
}

/// Posts the binding of a window of type 1.
pub(crate) unsafe extern "C" fn bind(
    qp: *mut sys::ibv_qp,
    mw: *mut sys::ibv_mw,
    bind: *mut sys::ibv_mw_bind,
) -> c_int {
    // SAFETY: the caller's promise: objects of this device, and what is bound.
    let (bind, what) = unsafe { (*bind, binding(mw, None, &(*bind).bind_info)) };
    // SAFETY: as above.
    let result = unsafe { enter(qp, Call::BindMw) }.and_then(|mut entered| {
        let mut send = Send::new(sys::IbvWrOpcode::BIND_MW, bind.wr_id, bind.send_flags);
        send.bind = Some(what);
        entered.state.post_send(entered.id, send)?;
        entered.state.run();
        entered.state.mws.get(&what.mw).map(|mw| mw.rkey).ok_or(libc::EINVAL)
    });
    number(result.map(|rkey| {
        // SAFETY: as above; the library writes the new key into the window.
        unsafe { (*mw).rkey = rkey };
    }))
}
