//! Address handles.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::Kind;
use crate::object::handle::{Entered, enter, hand_out, minus_one, number, pointer};
use crate::world::{Ah, State};
use core::ffi::c_int;
use sinew_verbs_sys as sys;

impl State {
    /// Whether an address can be one of this device.
    pub(crate) fn check_address(&self, context: u32, attr: &sys::ibv_ah_attr) -> Result<(), c_int> {
        let port = self.port(context, u32::from(attr.port_num))?;
        if attr.is_global == 0 {
            // RoCE has no other addresses than GIDs.
            return if port.link_layer == sys::IBV_LINK_LAYER_ETHERNET { Err(libc::EINVAL) } else { Ok(()) };
        }
        match port.gids.get(usize::from(attr.grh.sgid_index)) {
            Some(Some(_)) => Ok(()),
            _ => Err(libc::EINVAL),
        }
    }
}

fn make(
    mut entered: Entered,
    pd: *mut sys::ibv_pd,
    attr: sys::ibv_ah_attr,
) -> Result<*mut sys::ibv_ah, c_int> {
    let Entered { world, state, id: pd_id } = &mut entered;
    let context = state.context_of_pd(*pd_id)?;
    state.check_address(context, &attr)?;
    let id = state.next_id();
    state.ahs.insert(id, Ah { pd: *pd_id, attr });
    let object = sys::ibv_ah { context: state.pointer(context), pd, handle: id };
    Ok(hand_out(world, state, Kind::AddressHandle, id, object))
}

pub(crate) unsafe extern "C" fn create(
    pd: *mut sys::ibv_pd,
    attr: *mut sys::ibv_ah_attr,
) -> *mut sys::ibv_ah {
    // SAFETY: the caller's promise: a domain of this device, and an address.
    let (entered, attr) = unsafe { (enter(pd, Call::CreateAh), *attr) };
    pointer(entered.and_then(|entered| make(entered, pd, attr)))
}

/// The way back to whoever sent a datagram.
fn way_back(
    state: &State,
    context: u32,
    port_num: u8,
    wc: &sys::ibv_wc,
    grh: Option<&sys::ibv_grh>,
) -> Result<sys::ibv_ah_attr, c_int> {
    let mut attr = sys::ibv_ah_attr::zeroed();
    attr.dlid = wc.slid;
    attr.sl = wc.sl;
    attr.src_path_bits = wc.dlid_path_bits;
    attr.port_num = port_num;
    if wc.wc_flags & sys::IBV_WC_GRH != 0 {
        let grh = grh.ok_or(libc::EINVAL)?;
        let port = state.port(context, u32::from(port_num))?;
        let ours = |row: &Option<crate::options::Gid>| row.is_some_and(|row| row.raw == grh.dgid.bytes());
        let index = port.gids.iter().position(ours).ok_or(libc::EINVAL)?;
        attr.is_global = 1;
        attr.grh.dgid = grh.sgid;
        attr.grh.sgid_index = u8::try_from(index).map_err(|_| libc::EINVAL)?;
        attr.grh.hop_limit = 255;
        attr.grh.flow_label = u32::from_be(grh.version_tclass_flow) & sys::IB_GRH_FLOWLABEL_MASK;
    }
    Ok(attr)
}

pub(crate) unsafe extern "C" fn create_from_wc(
    pd: *mut sys::ibv_pd,
    wc: *mut sys::ibv_wc,
    grh: *mut sys::ibv_grh,
    port_num: u8,
) -> *mut sys::ibv_ah {
    // SAFETY: the caller's promise: a domain of this device, a completion, and where that says so a header.
    pointer(unsafe { enter(pd, Call::CreateAhFromWc) }.and_then(|entered| {
        let context = entered.state.context_of_pd(entered.id)?;
        // SAFETY: as above.
        let attr = unsafe { way_back(&entered.state, context, port_num, &*wc, grh.as_ref())? };
        make(entered, pd, attr)
    }))
}

pub(crate) unsafe extern "C" fn init_from_wc(
    context: *mut sys::ibv_context,
    port_num: u8,
    wc: *mut sys::ibv_wc,
    grh: *mut sys::ibv_grh,
    attr: *mut sys::ibv_ah_attr,
) -> c_int {
    // SAFETY: the caller's promise: as above, and a place for the address.
    minus_one(unsafe { enter(context, Call::InitAhFromWc) }.and_then(|entered| {
        // SAFETY: as above.
        unsafe {
            let found = way_back(&entered.state, entered.id, port_num, &*wc, grh.as_ref())?;
            attr.write(found);
        }
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn destroy(ah: *mut sys::ibv_ah) -> c_int {
    // SAFETY: the caller's promise: a handle of this device.
    number(unsafe { enter(ah, Call::DestroyAh) }.map(|mut entered| {
        let id = entered.id;
        entered.state.ahs.remove(&id);
        entered.state.live.remove(&id);
    }))
}
