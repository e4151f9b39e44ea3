//! The devices of the machine, before one is opened.
#![allow(unsafe_code)]

use super::context::Context;
use super::gid::Guid;
use crate::error::{Error, Result};
use crate::library::Library;
use crate::number::named_number;
use sinew_verbs_sys as sys;
use std::ffi::CStr;
use std::fmt;
use std::ptr::NonNull;

/// The devices that were there when it was made. `Send` and `Sync`; freed when it is dropped, opened devices stay.
#[doc(alias = "ibv_get_device_list")]
pub struct DeviceList {
    library: Library,
    list: NonNull<*mut sys::ibv_device>,
    len: usize,
}

// SAFETY: the list and what it points to are written by nobody until it is freed, by any thread.
unsafe impl Send for DeviceList {}
// SAFETY: the same.
unsafe impl Sync for DeviceList {}

/// One device of a list, which it borrows.
#[derive(Clone, Copy)]
pub struct Device<'list> {
    list: &'list DeviceList,
    device: NonNull<sys::ibv_device>,
}

// SAFETY: as for its list.
unsafe impl Send for Device<'_> {}
// SAFETY: as for its list.
unsafe impl Sync for Device<'_> {}

impl DeviceList {
    pub(crate) fn new(library: Library) -> Result<Self> {
        let mut len = 0;
        // SAFETY: the place of the count is a local.
        let list = unsafe { (library.table().ibv_get_device_list)(&raw mut len) };
        let Some(list) = NonNull::new(list) else {
            let errno = sys::Errno::last().0;
            return Err(match errno {
                libc::ENOSYS => Error::Library(
                    "this kernel has no RDMA support (no ib_uverbs); load the module ib_uverbs and the driver of the device".to_owned(),
                ),
                errno => Error::call("ibv_get_device_list", "the system", errno),
            });
        };
        Ok(Self { library, list, len: usize::try_from(len).unwrap_or(0) })
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// One by its place, or nothing beyond the end.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Device<'_>> {
        if index >= self.len {
            return None;
        }
        // SAFETY: the list has `len` entries and lives as long as `self`.
        let device = unsafe { self.list.add(index).read() };
        NonNull::new(device).map(|device| Device { list: self, device })
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Device<'_>> {
        (0..self.len).filter_map(|index| self.get(index))
    }

    /// Opens the one of that name.
    ///
    /// # Errors
    /// [`Error::NoDevice`] with the names that there are; [`Error::Call`] when it cannot be opened.
    pub fn open(&self, name: &str) -> Result<Context> {
        match self.iter().find(|device| device.name() == name) {
            Some(device) => device.open(),
            None => Err(Error::NoDevice {
                name: name.to_owned(),
                present: self.iter().map(|device| device.name().to_owned()).collect(),
            }),
        }
    }
}

impl<'list> IntoIterator for &'list DeviceList {
    type Item = Device<'list>;
    type IntoIter = Box<dyn Iterator<Item = Device<'list>> + 'list>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        // SAFETY: made by the function beside it, freed once; devices of it borrow `self`.
        unsafe { (self.library.table().ibv_free_device_list)(self.list.as_ptr()) }
    }
}

impl fmt::Debug for DeviceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

named_number! {
    /// How a device speaks (`enum ibv_transport_type`).
    TransportType: i32 {
        /// InfiniBand, and RoCE.
        INFINIBAND = 0 => "InfiniBand",
        /// iWARP: over TCP.
        IWARP = 1 => "iWARP",
        /// Cisco's.
        USNIC = 2 => "usNIC",
        /// Cisco's, over UDP.
        USNIC_UDP = 3 => "usNIC UDP",
        /// The driver's own, as Amazon's EFA.
        UNSPECIFIED = 4 => "unspecified",
    }
}

impl<'list> Device<'list> {
    /// Its name in the kernel, as `mlx5_0`; empty when the system gives none.
    #[must_use]
    pub fn name(&self) -> &'list str {
        // SAFETY: the device lives as long as its list.
        let name = unsafe { (self.list.library.table().ibv_get_device_name)(self.device.as_ptr()) };
        if name.is_null() {
            return "";
        }
        // SAFETY: the library's text, terminated, inside of the device.
        unsafe { CStr::from_ptr(name) }.to_str().unwrap_or("")
    }

    /// The name that its maker gave it; nothing when the device has none (all zeros), as some virtual ones.
    #[must_use]
    pub fn guid(&self) -> Option<Guid> {
        // SAFETY: the device lives as long as its list.
        let guid =
            Guid::from_be(unsafe { (self.list.library.table().ibv_get_device_guid)(self.device.as_ptr()) });
        (!guid.is_zero()).then_some(guid)
    }

    /// Its number in the kernel, which stays when it is renamed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where kernel or library do not say.
    pub fn index(&self) -> Result<u32> {
        let unsupported =
            || Error::Unsupported { what: "the stable index of a device", object: self.name().to_owned() };
        let function = self.list.library.table().ibv_get_device_index.ok_or_else(unsupported)?;
        // SAFETY: the device lives as long as its list.
        u32::try_from(unsafe { function(self.device.as_ptr()) }).map_err(|_| unsupported())
    }

    /// How it speaks.
    #[must_use]
    pub fn transport_type(&self) -> TransportType {
        // SAFETY: the device lives as long as its list, and the field is written by nobody.
        TransportType::from_raw(unsafe { (*self.device.as_ptr()).transport_type.0 })
    }

    /// Opens it. No port needs to be active.
    ///
    /// # Errors
    /// [`Error::Call`], as without access to `/dev/infiniband`.
    #[doc(alias = "ibv_open_device")]
    pub fn open(&self) -> Result<Context> {
        Context::open(self.list.library.clone(), self.device, self.name())
    }

    /// The raw device.
    #[must_use]
    pub const fn as_raw(&self) -> *mut sys::ibv_device {
        self.device.as_ptr()
    }
}

impl fmt::Debug for Device<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name())
            .field("guid", &self.guid())
            .field("transport", &self.transport_type())
            .finish()
    }
}
