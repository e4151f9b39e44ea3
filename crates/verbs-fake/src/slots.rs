//! How the functions without an argument that leads to an object find their world: one set of them for each place of a list.
//!
//! Used by `table.rs`. There are 256 places; one is free again when its [`Control`](crate::Control) was dropped and no device of it is
//! open.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::object::device::{free_list, list_devices};
use crate::object::handle::{number, pointer};
use crate::world::World;
use core::ffi::c_int;
use sinew_verbs_sys as sys;
use std::sync::Mutex;

/// The functions of one place.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) get_device_list: unsafe extern "C" fn(*mut c_int) -> *mut *mut sys::ibv_device,
    pub(crate) free_device_list: unsafe extern "C" fn(*mut *mut sys::ibv_device),
    pub(crate) fork_init: unsafe extern "C" fn() -> c_int,
}

struct Place {
    world: &'static World,
    is_controlled: bool,
}

static PLACES: Mutex<Vec<Place>> = Mutex::new(Vec::new());

const fn entry<const PLACE: usize>() -> Entry {
    extern "C" fn fork_init<const PLACE: usize>() -> c_int {
        number(world(PLACE).ok_or(libc::ENOSYS).and_then(|world| world.lock().count(Call::ForkInit, 0)))
    }
    Entry {
        get_device_list: get_device_list::<PLACE>,
        free_device_list: free_device_list::<PLACE>,
        fork_init: fork_init::<PLACE>,
    }
}

macro_rules! sixteen {
    ($base:expr) => {
        [
            entry::<{ $base }>(),
            entry::<{ $base + 1 }>(),
            entry::<{ $base + 2 }>(),
            entry::<{ $base + 3 }>(),
            entry::<{ $base + 4 }>(),
            entry::<{ $base + 5 }>(),
            entry::<{ $base + 6 }>(),
            entry::<{ $base + 7 }>(),
            entry::<{ $base + 8 }>(),
            entry::<{ $base + 9 }>(),
            entry::<{ $base + 10 }>(),
            entry::<{ $base + 11 }>(),
            entry::<{ $base + 12 }>(),
            entry::<{ $base + 13 }>(),
            entry::<{ $base + 14 }>(),
            entry::<{ $base + 15 }>(),
        ]
    };
}

static ENTRIES: [[Entry; 16]; 16] = [
    sixteen!(0),
    sixteen!(16),
    sixteen!(32),
    sixteen!(48),
    sixteen!(64),
    sixteen!(80),
    sixteen!(96),
    sixteen!(112),
    sixteen!(128),
    sixteen!(144),
    sixteen!(160),
    sixteen!(176),
    sixteen!(192),
    sixteen!(208),
    sixteen!(224),
    sixteen!(240),
];

fn world(place: usize) -> Option<&'static World> {
    let places = PLACES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    places.get(place).map(|place| place.world)
}

/// Takes a place for a world.
///
/// # Panics
/// When 256 worlds are in use at once.
pub(crate) fn take(world: &'static World) -> (usize, Entry) {
    let mut places = PLACES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let new = Place { world, is_controlled: true };
    let number = if places.len() < 256 {
        places.push(new);
        places.len() - 1
    } else {
        let free = places
            .iter()
            .position(|place| !place.is_controlled && place.world.lock().contexts.is_empty())
            .expect("at most 256 fake libraries are in use at once: drop their controls");
        places[free] = new;
        free
    };
    (number, ENTRIES[number / 16][number % 16])
}

/// The control of a place is gone.
pub(crate) fn give_back(place: usize) {
    let mut places = PLACES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(place) = places.get_mut(place) {
        place.is_controlled = false;
    }
}

unsafe extern "C" fn get_device_list<const PLACE: usize>(count: *mut c_int) -> *mut *mut sys::ibv_device {
    // SAFETY: the caller's promise: null, or a place for the count.
    pointer(world(PLACE).ok_or(libc::ENOSYS).and_then(|world| unsafe { list_devices(world, count) }))
}

unsafe extern "C" fn free_device_list<const PLACE: usize>(list: *mut *mut sys::ibv_device) {
    if let Some(world) = world(PLACE) {
        // SAFETY: the caller's promise: a list that the function above gave.
        unsafe { free_list(world, list) };
    }
}
