//! Memory on the device itself: small, near the wire, reached by copies.
#![allow(unsafe_code)]

use super::access::RemoteAccess;
use super::exposed::ForeignRegion;
use super::region::Registered;
use crate::device::Context;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use sinew_verbs_sys as sys;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory of the device (ibv_alloc_dm(3)). `Clone` is another handle to the same; `Send` and `Sync`. Freed with the last handle; regions
/// of it hold it.
///
/// Copies of this process are made one at a time; they are not atomic towards the device or towards peers.
#[derive(Clone)]
#[doc(alias = "ibv_dm")]
pub struct DeviceMemory {
    shared: Arc<Allocated>,
}

struct Allocated {
    context: Context,
    dm: NonNull<sys::ibv_dm>,
    len: usize,
    /// Held over copies: drivers make them by plain moves to and from what they have mapped.
    copying: Mutex<()>,
}

// SAFETY: device memory may be copied to and from, registered and freed by any thread (ibv_alloc_dm(3)).
unsafe impl Send for Allocated {}
// SAFETY: the same; copies are made one at a time.
unsafe impl Sync for Allocated {}

impl Drop for Allocated {
    fn drop(&mut self) {
        // SAFETY: allocated by us, freed once; regions of it hold this value.
        if let Err(errno) = unsafe { sys::ibv_free_dm(self.dm.as_ptr()) } {
            self.context.library().leaked("ibv_free_dm", &self.context.name(), errno.0);
            std::mem::forget(self.context.clone());
        }
    }
}

impl Context {
    /// `len` bytes of the device's own memory, at a multiple of 2^`log_align` in it (0 for any place). What is in it is not defined.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 bytes; [`Error::Unsupported`] where the device has none
    /// ([`device_memory_len`](crate::device::DeviceAttributes::device_memory_len)); [`Error::Call`] with `ENOMEM` when too little is left.
    #[doc(alias = "ibv_alloc_dm")]
    pub fn device_memory(&self, len: usize, log_align: u32) -> Result<DeviceMemory> {
        if len == 0 {
            return Err(Error::invalid("device memory", "0 bytes", "take at least 1"));
        }
        let mut attributes = sys::ibv_alloc_dm_attr { length: len, log_align_req: log_align, comp_mask: 0 };
        // SAFETY: the context is open, the attributes are a local.
        let dm = unsafe { sys::ibv_alloc_dm(self.as_raw(), &mut attributes) };
        let dm = dm.and_then(|dm| NonNull::new(dm).ok_or(sys::Errno::UNKNOWN)).map_err(|errno| {
            Error::call("ibv_alloc_dm", format_args!("{len} bytes in {}", self.name()), errno.0)
        })?;
        let (context, copying) = (self.clone(), Mutex::new(()));
        Ok(DeviceMemory { shared: Arc::new(Allocated { context, dm, len, copying }) })
    }
}

impl DeviceMemory {
    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    /// How many bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.shared.len
    }

    /// The raw memory; it stays as long as a handle is there.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_dm {
        self.shared.dm.as_ptr()
    }

    fn check(&self, offset: usize, len: usize) -> Result<u64> {
        if offset.checked_add(len).is_some_and(|end| end <= self.len()) {
            return Ok(offset as u64);
        }
        Err(Error::invalid(
            "range of device memory",
            format!("{len} bytes at offset {offset} of {}", self.len()),
            "stay inside of it",
        ))
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.shared.copying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies bytes into it from `offset` on. Devices may ask for offsets and lengths that are multiples of 4.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they do not fit; [`Error::Call`] from the device.
    #[doc(alias = "ibv_memcpy_to_dm")]
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let at = self.check(offset, bytes.len())?;
        let _alone = self.alone();
        // SAFETY: the memory is alive and the range inside of it; nobody else of this process copies meanwhile.
        unsafe { sys::ibv_memcpy_to_dm(self.as_raw(), at, bytes) }
            .map_err(|errno| Error::call("ibv_memcpy_to_dm", self.context().name(), errno.0))
    }

    /// Copies bytes out of it from `offset` on, with the restrictions of [`write_at`](Self::write_at).
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are not so many; [`Error::Call`] from the device.
    #[doc(alias = "ibv_memcpy_from_dm")]
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<()> {
        let at = self.check(offset, into.len())?;
        let _alone = self.alone();
        // SAFETY: the memory is alive and the range inside of it; nobody else of this process copies meanwhile.
        unsafe { sys::ibv_memcpy_from_dm(into, self.as_raw(), at) }
            .map_err(|errno| Error::call("ibv_memcpy_from_dm", self.context().name(), errno.0))
    }

    /// Registers a range of it, for operations of this process and, as far as `access` says, of peers. Requests name it from 0 on. The
    /// region holds the memory.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty range, one that is not inside, or a domain of another device; [`Error::Call`] from the device.
    #[doc(alias = "ibv_reg_dm_mr")]
    pub fn register(
        &self,
        pd: &ProtectionDomain,
        range: Range<usize>,
        access: RemoteAccess,
    ) -> Result<ForeignRegion> {
        if !pd.context().is(self.context()) {
            return Err(Error::invalid(
                "protection domain",
                format!("it is of {}, the memory of {}", pd.context().name(), self.context().name()),
                "make both from one context",
            ));
        }
        let len = range.end.checked_sub(range.start).filter(|len| *len > 0).ok_or_else(|| {
            Error::invalid("range of device memory", format!("{range:?} has no bytes"), "take at least 1")
        })?;
        let offset = self.check(range.start, len)?;
        Ok(ForeignRegion::new(Arc::new(Registered::on_device(pd, self, offset, len, access)?)))
    }
}

impl fmt::Debug for DeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceMemory({} bytes in {})", self.len(), self.context().name())
    }
}
