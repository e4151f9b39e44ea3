//! Device memory: bytes that the world keeps.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::Kind;
use crate::object::handle::{enter, find, hand_out, number, pointer};
use crate::object::mr::{Wanted, register as register_region};
use crate::world::Memory;
use core::ffi::{c_int, c_uint, c_void};
use sinew_verbs_sys as sys;

pub(crate) unsafe extern "C" fn alloc(
    context: *mut sys::ibv_context,
    attr: *mut sys::ibv_alloc_dm_attr,
) -> *mut sys::ibv_dm {
    // SAFETY: the caller's promise: a context of this device, and its attributes.
    pointer(unsafe { enter(context, Call::AllocDm) }.and_then(|mut entered| {
        // SAFETY: as above.
        let attr = unsafe { *attr };
        let room = entered.state.device_of(entered.id)?.options.device_memory;
        let used: u64 = entered.state.dms.values().map(|dm| dm.len() as u64).sum();
        if attr.length == 0 || attr.comp_mask != 0 {
            return Err(libc::EINVAL);
        }
        if used.saturating_add(attr.length as u64) > room {
            return Err(libc::ENOMEM);
        }
        let id = entered.state.next_id();
        entered.state.dms.insert(id, vec![0; attr.length]);
        let mut dm = sys::ibv_dm::zeroed();
        (dm.context, dm.handle) = (context, id);
        dm.memcpy_to_dm = Some(copy_to);
        dm.memcpy_from_dm = Some(copy_from);
        Ok(hand_out(entered.world, &mut entered.state, Kind::DeviceMemory, id, dm))
    }))
}

pub(crate) unsafe extern "C" fn free(dm: *mut sys::ibv_dm) -> c_int {
    // SAFETY: the caller's promise: memory of this device.
    number(unsafe { enter(dm, Call::FreeDm) }.and_then(|mut entered| {
        let id = entered.id;
        if entered.state.mrs.values().any(|mr| matches!(mr.memory, Memory::Device(of, _) if of == id)) {
            return Err(libc::EBUSY);
        }
        entered.state.dms.remove(&id);
        entered.state.live.remove(&id);
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn register(
    pd: *mut sys::ibv_pd,
    dm: *mut sys::ibv_dm,
    offset: u64,
    len: usize,
    access: c_uint,
) -> *mut sys::ibv_mr {
    // SAFETY: the caller's promise: a domain and memory of this device.
    let dm = unsafe { find(dm) }.1;
    // SAFETY: as above.
    pointer(unsafe { enter(pd, Call::RegDmMr) }.and_then(|mut entered| {
        let all = entered.state.dms.get(&dm).ok_or(libc::EINVAL)?.len();
        let offset = usize::try_from(offset).map_err(|_| libc::EINVAL)?;
        let zero_based = access & sys::IBV_ACCESS_ZERO_BASED != 0;
        if !zero_based || len == 0 || offset.checked_add(len).is_none_or(|end| end > all) {
            return Err(libc::EINVAL);
        }
        let memory = Memory::Device(dm, offset);
        register_region(
            &mut entered,
            pd,
            &Wanted { memory, addr: core::ptr::null_mut(), len, iova: 0, access },
        )
    }))
}

unsafe extern "C" fn copy_to(dm: *mut sys::ibv_dm, offset: u64, from: *const c_void, len: usize) -> c_int {
    // SAFETY: the caller's promise: memory of this device.
    number(unsafe { enter(dm, Call::CopyToDm) }.and_then(|mut entered| {
        let id = entered.id;
        let offset = usize::try_from(offset).map_err(|_| libc::EINVAL)?;
        let all = entered.state.dms.get_mut(&id).ok_or(libc::EINVAL)?;
        let place = offset.checked_add(len).and_then(|end| all.get_mut(offset..end)).ok_or(libc::EINVAL)?;
        // SAFETY: the caller's promise: so many bytes are there.
        place.copy_from_slice(unsafe { core::slice::from_raw_parts(from.cast(), len) });
        Ok(())
    }))
}

unsafe extern "C" fn copy_from(to: *mut c_void, dm: *mut sys::ibv_dm, offset: u64, len: usize) -> c_int {
    // SAFETY: the caller's promise: memory of this device.
    number(unsafe { enter(dm, Call::CopyFromDm) }.and_then(|entered| {
        let offset = usize::try_from(offset).map_err(|_| libc::EINVAL)?;
        let all = entered.state.dms.get(&entered.id).ok_or(libc::EINVAL)?;
        let from = offset.checked_add(len).and_then(|end| all.get(offset..end)).ok_or(libc::EINVAL)?;
        // SAFETY: the caller's promise: there is room for so many bytes.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to.cast(), len) };
        Ok(())
    }))
}
