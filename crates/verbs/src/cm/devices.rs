//! Devices as the connection manager opens them: one handle for each, whichever identifier found it.
#![allow(unsafe_code)]

use super::base::Owned;
use crate::device::Context;
use crate::error::Result;
use crate::library::Library;
use sinew_verbs_sys as sys;
use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

/// The list of devices that the library keeps open as long as the list is there (rdma_get_devices(3)).
struct Devices {
    library: Library,
    list: NonNull<*mut sys::ibv_context>,
}

// SAFETY: a list is read by nobody and freed by any thread.
unsafe impl Send for Devices {}
// SAFETY: the same.
unsafe impl Sync for Devices {}

impl Devices {
    fn new(library: &Library) -> Option<Self> {
        let mut count = 0;
        // SAFETY: the place is a local.
        let list = unsafe { (library.cm_table().ok()?.rdma_get_devices)(&mut count) };
        Some(Self { library: library.clone(), list: NonNull::new(list)? })
    }

    fn contains(&self, context: NonNull<sys::ibv_context>) -> bool {
        let mut at = self.list.as_ptr();
        // SAFETY: the library's list, ended by null, not freed yet.
        unsafe {
            while !(*at).is_null() {
                if *at == context.as_ptr() {
                    return true;
                }
                at = at.add(1);
            }
        }
        false
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        if let Ok(table) = self.library.cm_table() {
            // SAFETY: the library's list, freed once.
            unsafe { (table.rdma_free_devices)(self.list.as_ptr()) };
        }
    }
}

/// The handle of an identifier's device.
///
/// It keeps the device by the library's list rather than by the identifier: an identifier that was accepted holds its listener's port,
/// which would stay taken as long as anything is made from the device. Where the list lacks the device, the identifier is kept.
///
/// # Safety
/// The context is the device of this identifier, of this library.
pub(super) unsafe fn context(
    library: &Library,
    raw: NonNull<sys::ibv_context>,
    id: &Arc<Owned>,
) -> Result<Context> {
    let keeper = || -> Arc<dyn Any + Send + Sync> {
        match Devices::new(library).filter(|devices| devices.contains(raw)) {
            Some(devices) => Arc::new(devices),
            None => Arc::clone(id) as Arc<dyn Any + Send + Sync>,
        }
    };
    // SAFETY: open now, by the caller's promise, and until the keeper is dropped.
    unsafe { Context::shared(library, raw, keeper) }
}
