//! A registration: what the device knows of a piece of memory, and what keeps the memory while it does.
#![allow(unsafe_code)]

use super::access::{RegistrationFlags, RemoteAccess};
use super::device_memory::DeviceMemory;
use super::host::Memory;
use super::remote::{RemoteKey, RemoteRegion};
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use sinew_verbs_sys as sys;
use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// A registration. Ended when the last that holds it is dropped, before its memory goes.
pub(crate) struct Registered {
    pd: ProtectionDomain,
    mr: NonNull<sys::ibv_mr>,
    /// Where the bytes are in this process; dangling for memory of another device.
    start: NonNull<u8>,
    len: usize,
    /// The address that requests name.
    iova: u64,
    lkey: u32,
    rkey: u32,
    terms: Terms,
    kept: ManuallyDrop<Kept>,
}

/// What keeps the memory.
pub(crate) enum Kept {
    /// It is ours.
    Owned(Memory),
    /// It lies on the device.
    OnDevice(#[expect(dead_code, reason = "kept for its drop")] DeviceMemory),
    /// Somebody else promised: a borrow, or the caller of an unsafe function; or the descriptor of a DMA-BUF, which the kernel holds.
    Elsewhere,
}

// SAFETY: a registration may be used and ended by any thread; the bytes behind `start` are reached by types that have their own rules.
unsafe impl Send for Registered {}
// SAFETY: the same; shared references only read the plain numbers.
unsafe impl Sync for Registered {}

/// What to register and how.
#[derive(Clone, Copy, Default)]
pub(crate) struct Terms {
    pub(crate) remote: RemoteAccess,
    pub(crate) flags: RegistrationFlags,
}

impl Registered {
    /// Registers owned memory.
    pub(crate) fn owned(pd: &ProtectionDomain, memory: Memory, terms: Terms) -> Result<Self> {
        let (start, len) = (memory.start(), memory.len());
        // SAFETY: the memory is moved into the registration, which ends before it is dropped.
        unsafe { Self::host(pd, start, len, terms, Kept::Owned(memory)) }
    }

    /// Registers memory of this process.
    ///
    /// # Safety
    /// The bytes stay valid for reads and writes as long as the registration is, and whoever gets its keys is trusted with them as far as
    /// the terms say.
    pub(crate) unsafe fn host(
        pd: &ProtectionDomain,
        start: NonNull<u8>,
        len: usize,
        terms: Terms,
        kept: Kept,
    ) -> Result<Self> {
        if len == 0 {
            return Err(Error::invalid("memory region", "it has no bytes", "register at least 1 byte"));
        }
        let access = terms.remote.to_raw(terms.flags, true);
        // SAFETY: the domain is alive; the memory stays, by the promise to this function.
        let mr = unsafe { pd.table().reg_mr(pd.as_raw(), start.as_ptr().cast(), len, access) };
        let mr = mr.and_then(|mr| NonNull::new(mr).ok_or(sys::Errno::UNKNOWN)).map_err(|errno| {
            Error::call("ibv_reg_mr", format_args!("{len} bytes in {}", pd.context().name()), errno.0)
        })?;
        let iova =
            if terms.flags.contains(RegistrationFlags::ZERO_BASED) { 0 } else { start.as_ptr() as u64 };
        Ok(Self::made(pd, mr, start, len, iova, terms, kept))
    }

    /// Registers memory of another device, by its DMA-BUF.
    pub(crate) fn dmabuf(
        pd: &ProtectionDomain,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        iova: u64,
        terms: Terms,
    ) -> Result<Self> {
        let object = || format!("{len} bytes of DMA-BUF {} in {}", fd.as_raw_fd(), pd.context().name());
        let Some(function) = pd.table().ibv_reg_dmabuf_mr else {
            return Err(Error::Unsupported {
                what: "registering a DMA-BUF (libibverbs from rdma-core 34 on)",
                object: object(),
            });
        };
        if iova.checked_add(len as u64).is_none() {
            return Err(Error::invalid(
                "addresses of a DMA-BUF",
                format!("{len} bytes from {iova:#x} on run past the end of all addresses"),
                "let requests name it from 0 on",
            ));
        }
        let access = terms.remote.to_raw(terms.flags, true);
        // SAFETY: the domain is alive; the kernel checks descriptor and range, and holds the memory by itself.
        let mr = unsafe { function(pd.as_raw(), offset, len, iova, fd.as_raw_fd(), access as i32) };
        let mr = NonNull::new(mr)
            .ok_or_else(|| Error::call("ibv_reg_dmabuf_mr", object(), sys::Errno::last().0))?;
        Ok(Self::made(pd, mr, NonNull::dangling(), len, iova, terms, Kept::Elsewhere))
    }

    /// Registers memory of the device, which requests name from 0 on. The range lies inside of it.
    pub(crate) fn on_device(
        pd: &ProtectionDomain,
        memory: &DeviceMemory,
        offset: u64,
        len: usize,
        remote: RemoteAccess,
    ) -> Result<Self> {
        let object = || format!("{len} bytes of device memory in {}", pd.context().name());
        let terms = Terms { remote, flags: RegistrationFlags::ZERO_BASED };
        let access = terms.remote.to_raw(terms.flags, true);
        // SAFETY: domain and memory are alive and of one device; the region holds both.
        let mr = unsafe { sys::ibv_reg_dm_mr(pd.as_raw(), memory.as_raw(), offset, len, access) };
        let mr = mr
            .and_then(|mr| NonNull::new(mr).ok_or(sys::Errno::UNKNOWN))
            .map_err(|errno| Error::call("ibv_reg_dm_mr", object(), errno.0))?;
        Ok(Self::made(pd, mr, NonNull::dangling(), len, 0, terms, Kept::OnDevice(memory.clone())))
    }

    /// The region of which writes are dropped and reads are zeros, as long as an element can be.
    pub(crate) fn null(pd: &ProtectionDomain) -> Result<Self> {
        // SAFETY: the domain is alive.
        let mr = unsafe { sys::ibv_alloc_null_mr(pd.as_raw()) };
        let mr = mr
            .and_then(|mr| NonNull::new(mr).ok_or(sys::Errno::UNKNOWN))
            .map_err(|errno| Error::call("ibv_alloc_null_mr", pd.context().name(), errno.0))?;
        let len = u32::MAX as usize;
        Ok(Self::made(pd, mr, NonNull::dangling(), len, 0, Terms::default(), Kept::Elsewhere))
    }

    fn made(
        pd: &ProtectionDomain,
        mr: NonNull<sys::ibv_mr>,
        start: NonNull<u8>,
        len: usize,
        iova: u64,
        terms: Terms,
        kept: Kept,
    ) -> Self {
        // SAFETY: just made; the keys are written by nobody any more.
        let (lkey, rkey) = unsafe { ((*mr.as_ptr()).lkey, (*mr.as_ptr()).rkey) };
        Self { pd: pd.clone(), mr, start, len, iova, lkey, rkey, terms, kept: ManuallyDrop::new(kept) }
    }

    pub(crate) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) const fn lkey(&self) -> u32 {
        self.lkey
    }

    pub(crate) const fn iova(&self) -> u64 {
        self.iova
    }

    pub(crate) const fn as_raw(&self) -> *mut sys::ibv_mr {
        self.mr.as_ptr()
    }

    pub(crate) const fn pd(&self) -> &ProtectionDomain {
        &self.pd
    }

    /// Whether it was registered in that domain.
    #[inline]
    pub(crate) fn is_of(&self, pd: &ProtectionDomain) -> bool {
        self.pd.is(pd)
    }

    /// Which protection domain it is of: never null, and of no other domain while this is there.
    pub(crate) fn domain(&self) -> *const () {
        self.pd.identity()
    }

    /// Whether no peer can reach it.
    pub(crate) const fn is_private(&self) -> bool {
        self.terms.remote.is_empty()
    }

    /// Whether windows may be bound to it.
    pub(crate) const fn takes_windows(&self) -> bool {
        self.terms.flags.contains(RegistrationFlags::WINDOW_BIND)
    }

    /// Whether all these bytes of this process are inside.
    #[inline]
    pub(crate) fn encloses(&self, start: usize, len: usize) -> bool {
        let own = self.start.as_ptr() as usize;
        start >= own && start.checked_add(len).is_some_and(|end| end <= own + self.len)
    }

    /// What a peer names.
    pub(crate) fn remote(&self) -> RemoteRegion {
        // The range lies in this address space, or is the device's word; so it does not run past the end.
        RemoteRegion::of_region(self.iova, self.len as u64, RemoteKey(self.rkey))
    }

    /// Ends it and gives the memory back, if it is owned and nobody else holds it. A device that refuses to forget it keeps it: then
    /// there is nothing to give.
    pub(crate) fn into_memory(this: Arc<Self>) -> std::result::Result<Option<Memory>, Arc<Self>> {
        if !matches!(*this.kept, Kept::Owned(_)) {
            return Err(this);
        }
        let mut registered = ManuallyDrop::new(Arc::try_unwrap(this)?);
        let ended = registered.end();
        // SAFETY: `registered` is not dropped, so this takes what it keeps, and its domain, once.
        let (kept, pd) =
            unsafe { (ManuallyDrop::take(&mut registered.kept), std::ptr::read(&raw const registered.pd)) };
        match kept {
            Kept::Owned(memory) if ended => Ok(Some(memory)),
            kept => {
                std::mem::forget((kept, pd));
                Ok(None)
            }
        }
    }

    /// Tells the device to forget it. Whether it did.
    fn end(&mut self) -> bool {
        // SAFETY: registered by us, ended once: by `drop`, or by `into_memory`, which prevents the drop.
        let answer = unsafe { (self.pd.table().ibv_dereg_mr)(self.mr.as_ptr()) };
        match sys::Errno::check(answer) {
            Ok(()) => true,
            Err(errno) => {
                let object = format_args!("{} bytes in {}", self.len, self.pd.context().name()).to_string();
                self.pd.context().library().leaked("ibv_dereg_mr", &object, errno.0);
                false
            }
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.end() {
            // SAFETY: dropped once, here, after the device forgot it.
            unsafe { ManuallyDrop::drop(&mut self.kept) }
        } else {
            // The device may still reach the memory and needs its domain: both stay for ever.
            std::mem::forget(self.pd.clone());
        }
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a region of {} bytes at {:#x}", self.len, self.iova)
    }
}
