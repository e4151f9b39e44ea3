//! The list of devices, and their names.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::Kind;
use crate::object::handle::{find, hand_out};
use crate::options::DeviceOptions;
use crate::world::World;
use core::ffi::{c_char, c_int};
use sinew_verbs_sys as sys;

/// Lists the devices.
///
/// # Safety
/// The count is null or a place for it.
pub(crate) unsafe fn list_devices(
    world: &'static World,
    count: *mut c_int,
) -> Result<*mut *mut sys::ibv_device, c_int> {
    let mut state = world.lock();
    state.count(Call::GetDeviceList, 0)?;
    for index in 0..state.devices.len() {
        if state.devices[index].id == 0 {
            let id = state.next_id();
            let device = described(&state.devices[index].options, index);
            let _: *mut sys::ibv_device = hand_out(world, &mut state, Kind::Device, id, device);
            state.devices[index].id = id;
        }
    }
    let mut list: Vec<*mut sys::ibv_device> =
        state.devices.iter().map(|device| state.pointer(device.id)).collect();
    if !count.is_null() {
        // SAFETY: the caller's promise.
        unsafe { count.write(c_int::try_from(list.len()).unwrap_or(c_int::MAX)) };
    }
    list.push(core::ptr::null_mut());
    let list = Box::into_raw(list.into_boxed_slice()).cast::<*mut sys::ibv_device>();
    // A list is no object with a number of its own: it lives under its address.
    let id = state.next_id();
    state.live.insert(id, Kind::DeviceList);
    state.objects.insert(id, crate::world::Pointer(list.cast()));
    Ok(list)
}

/// Frees a list.
///
/// # Safety
/// The list is from [`list_devices`] of this world and was not freed.
pub(crate) unsafe fn free_list(world: &'static World, list: *mut *mut sys::ibv_device) {
    let mut state = world.lock();
    if state.count(Call::FreeDeviceList, 0).is_err() || list.is_null() {
        return;
    }
    let known = state
        .objects
        .iter()
        .find(|(id, object)| object.0 == list.cast() && state.live.get(id) == Some(&Kind::DeviceList));
    let Some((&id, _)) = known else {
        state.faults.push(crate::fault::Fault::UseAfterDestroy { call: Call::FreeDeviceList, handle: 0 });
        return;
    };
    state.live.remove(&id);
    state.objects.remove(&id);
    let len = state.devices.len() + 1;
    // SAFETY: this is the slice that was made into a pointer above, once.
    drop(unsafe { Box::from_raw(core::ptr::slice_from_raw_parts_mut(list, len)) });
}

fn described(options: &DeviceOptions, index: usize) -> sys::ibv_device {
    let mut device = sys::ibv_device::zeroed();
    device.node_type = sys::IbvNodeType::CA;
    device.transport_type = sys::IbvTransportType::IB;
    write_text(&mut device.name, &options.name);
    write_text(&mut device.dev_name, &format!("uverbs{index}"));
    write_text(&mut device.dev_path, &format!("/sys/class/infiniband_verbs/uverbs{index}"));
    write_text(&mut device.ibdev_path, &format!("/sys/class/infiniband/{}", options.name));
    device
}

/// Writes a text that is terminated by zero, cut where it is too long.
pub(crate) fn write_text(place: &mut [c_char], text: &str) {
    let room = place.len() - 1;
    for (place, byte) in place.iter_mut().zip(text.bytes().take(room)) {
        *place = byte.cast_signed();
    }
}

pub(crate) unsafe extern "C" fn name(device: *mut sys::ibv_device) -> *const c_char {
    // SAFETY: the caller's promise: a device of a list of ours; such objects are never freed.
    unsafe { (&raw const (*device).name).cast() }
}

pub(crate) unsafe extern "C" fn guid(device: *mut sys::ibv_device) -> u64 {
    // SAFETY: the caller's promise: a device of a list of ours.
    let (world, id) = unsafe { find(device) };
    let state = world.lock();
    state.devices.iter().find(|device| device.id == id).map_or(0, |device| device.options.guid.to_be())
}

pub(crate) unsafe extern "C" fn index(device: *mut sys::ibv_device) -> c_int {
    // SAFETY: the caller's promise: a device of a list of ours.
    let (world, id) = unsafe { find(device) };
    let state = world.lock();
    let place = state.devices.iter().position(|device| device.id == id);
    place.and_then(|place| c_int::try_from(place).ok()).unwrap_or(-1)
}
