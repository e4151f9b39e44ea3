//! Protection domains: what belongs together, and the memory that queue pairs of it may touch.
#![allow(unsafe_code)]

use crate::device::Context;
use crate::error::{Error, Result};
use crate::memory::{
    BorrowedRegion, Buffer, BufferPool, ExposedRegion, ForeignRegion, Kept, Memory, PageSize, Registered,
    RegistrationFlags, RemoteAccess, Terms,
};
use crate::thread_domain::ThreadDomain;
use sinew_verbs_sys as sys;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

/// A protection domain: what may be used together. `Clone` is another handle to the same; `Send` and `Sync`.
///
/// Freed with the last thing made in it (regions, queue pairs, windows, address handles, shared receive queues hold it), on whichever thread; it
/// holds its device.
#[derive(Clone)]
#[doc(alias = "ibv_pd")]
pub struct ProtectionDomain {
    shared: Arc<Allocated>,
}

struct Allocated {
    context: Context,
    pd: NonNull<sys::ibv_pd>,
    /// Whether it is ours to free.
    owned: bool,
    /// What a domain for one thread is made of, which ends after it.
    of: Option<(ProtectionDomain, ThreadDomain)>,
}

// SAFETY: a protection domain may be used by any thread.
unsafe impl Send for Allocated {}
// SAFETY: the same.
unsafe impl Sync for Allocated {}

impl Drop for Allocated {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        // SAFETY: allocated by us, freed once; everything of it holds this value.
        let answer = unsafe { (self.context.table().ibv_dealloc_pd)(self.pd.as_ptr()) };
        if let Err(errno) = sys::Errno::check(answer) {
            self.context.library().leaked("ibv_dealloc_pd", &self.context.name(), errno.0);
            // The device must not be closed under it, nor end what it is made of.
            std::mem::forget((self.context.clone(), self.of.take()));
        }
    }
}

impl Context {
    /// A new protection domain.
    ///
    /// # Errors
    /// [`Error::Call`] when the device has none left.
    #[doc(alias = "ibv_alloc_pd")]
    pub fn protection_domain(&self) -> Result<ProtectionDomain> {
        // SAFETY: the context is open.
        let pd = unsafe { (self.table().ibv_alloc_pd)(self.as_raw()) };
        let pd =
            NonNull::new(pd).ok_or_else(|| Error::call("ibv_alloc_pd", self.name(), sys::Errno::last().0))?;
        Ok(ProtectionDomain {
            shared: Arc::new(Allocated { context: self.clone(), pd, owned: true, of: None }),
        })
    }
}

impl ProtectionDomain {
    /// A domain that something else allocated, as the default one of a connection identifier. It is never freed by this handle.
    ///
    /// # Safety
    /// `pd` is a domain of this context for as long as `context` is open.
    pub unsafe fn from_raw(context: &Context, pd: NonNull<sys::ibv_pd>) -> Self {
        Self { shared: Arc::new(Allocated { context: context.clone(), pd, owned: false, of: None }) }
    }

    /// A domain that was just made of this one and a thread domain.
    pub(crate) fn parent(&self, pd: NonNull<sys::ibv_pd>, thread: &ThreadDomain) -> Self {
        let of = Some((self.clone(), thread.clone()));
        Self { shared: Arc::new(Allocated { context: self.context().clone(), pd, owned: true, of }) }
    }

    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    pub(crate) fn table(&self) -> &sys::VerbsTable {
        self.shared.context.table()
    }

    /// The raw domain; it stays as long as a handle is there.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_pd {
        self.shared.pd.as_ptr()
    }

    /// Whether two handles are of one domain.
    #[must_use]
    #[inline]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// What is the same for all handles to it, and for no other domain while one of them is there.
    #[inline]
    pub(crate) fn identity(&self) -> *const () {
        Arc::as_ptr(&self.shared).cast()
    }

    /// A buffer of `len` zeroed bytes, registered for this process only.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 bytes; [`Error::Call`] when the memory cannot be locked (`ENOMEM`: raise `ulimit -l`).
    #[doc(alias = "ibv_reg_mr")]
    pub fn allocate(&self, len: usize) -> Result<Buffer> {
        self.adopt_memory(Memory::zeroed(len)?, RegistrationFlags::empty())
    }

    /// A buffer of the caller's own memory (a `Vec<u8>`, a `Box<[u8]>`, a [`Memory`]), registered for this process only.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate).
    pub fn adopt<M>(&self, memory: M) -> Result<Buffer>
    where
        M: TryInto<Memory>,
        Error: From<M::Error>,
    {
        self.adopt_memory(memory.try_into()?, RegistrationFlags::empty())
    }

    /// The same with flags (relaxed ordering, on-demand paging …).
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate); [`Error::Invalid`] with [`RegistrationFlags::WINDOW_BIND`] or
    /// [`ZERO_BASED`](RegistrationFlags::ZERO_BASED), which are for exposed memory.
    pub fn adopt_memory(&self, memory: Memory, flags: RegistrationFlags) -> Result<Buffer> {
        Ok(Buffer::whole(self.private(memory, flags)?))
    }

    fn private(&self, memory: Memory, flags: RegistrationFlags) -> Result<Arc<Registered>> {
        if flags.intersects(RegistrationFlags::WINDOW_BIND | RegistrationFlags::ZERO_BASED) {
            return Err(Error::invalid(
                "registration of private memory",
                format!("{flags:?} opens it to peers"),
                "expose the memory (`expose`) to bind windows to it",
            ));
        }
        Ok(Arc::new(Registered::owned(self, memory, Terms { remote: RemoteAccess::empty(), flags })?))
    }

    /// `count` buffers of `buffer_len` bytes in one registration of whole pages.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate).
    pub fn pool(&self, count: usize, buffer_len: usize) -> Result<BufferPool> {
        let bytes = count.checked_mul(buffer_len).ok_or_else(|| {
            Error::invalid(
                "pool of buffers",
                format!("{count} times {buffer_len} bytes"),
                "take fewer or smaller ones",
            )
        })?;
        // Whole pages may have room for more than was asked for.
        let region =
            self.private(Memory::pages(bytes, PageSize::Transparent)?, RegistrationFlags::empty())?;
        BufferPool::new(&region, buffer_len, count)
    }

    /// Buffers of `buffer_len` bytes of the given memory.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate); [`Error::Invalid`] when not one fits.
    pub fn pool_of(&self, memory: Memory, buffer_len: usize) -> Result<BufferPool> {
        BufferPool::new(&self.private(memory, RegistrationFlags::empty())?, buffer_len, usize::MAX)
    }

    /// Registers a borrowed slice for this process only, for as long as it is borrowed.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate).
    pub fn borrow<'mem>(&self, bytes: &'mem mut [u8]) -> Result<BorrowedRegion<'mem>> {
        let start = NonNull::from(&mut *bytes).cast::<u8>();
        // SAFETY: the bytes are borrowed for as long as the registration can be named; no peer can, and a forgotten one nobody can.
        let region =
            unsafe { Registered::host(self, start, bytes.len(), Terms::default(), Kept::Elsewhere) }?;
        Ok(BorrowedRegion::new(Arc::new(region), bytes))
    }

    /// Opens memory to peers: they can do what `access` says, at any time, until the last handle is dropped. From here on it is
    /// copied in and out, never a slice.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate).
    pub fn expose(&self, memory: Memory, access: RemoteAccess) -> Result<ExposedRegion> {
        self.expose_with(memory, access, RegistrationFlags::empty())
    }

    /// The same with flags.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate).
    pub fn expose_with(
        &self,
        memory: Memory,
        access: RemoteAccess,
        flags: RegistrationFlags,
    ) -> Result<ExposedRegion> {
        Ok(ExposedRegion::new(Arc::new(Registered::owned(self, memory, Terms { remote: access, flags })?)))
    }

    /// Memory of another device (a GPU), by its DMA-BUF: `len` bytes from `offset` on, which requests name from `iova` on.
    /// The kernel holds the memory; the descriptor can be closed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where device, kernel or library cannot; [`Error::Call`] for a descriptor that is none.
    #[doc(alias = "ibv_reg_dmabuf_mr")]
    pub fn register_dmabuf(
        &self,
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        iova: u64,
        access: RemoteAccess,
    ) -> Result<ForeignRegion> {
        let terms = Terms { remote: access, flags: RegistrationFlags::empty() };
        Ok(ForeignRegion::new(Arc::new(Registered::dmabuf(self, fd, offset, len, iova, terms)?)))
    }

    /// Nothing, as memory: what operations write to it is dropped, what they read are zeros. To receive into parts of it what nobody
    /// wants. As long as an element can be (2^32 - 1 bytes); no peer reaches it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the device cannot.
    #[doc(alias = "ibv_alloc_null_mr")]
    pub fn null_region(&self) -> Result<ForeignRegion> {
        Ok(ForeignRegion::new(Arc::new(Registered::null(self)?)))
    }

    /// Memory by its address: anything that is mapped, with any access.
    ///
    /// # Errors
    /// As for [`allocate`](Self::allocate).
    ///
    /// # Safety
    /// The bytes stay mapped until the region and every operation on it are dropped. Devices, and peers as far as `access` says, write
    /// them meanwhile: nobody has a reference to them then.
    pub unsafe fn register_raw(
        &self,
        start: NonNull<u8>,
        len: usize,
        access: RemoteAccess,
        flags: RegistrationFlags,
    ) -> Result<ForeignRegion> {
        // SAFETY: by the caller's promise.
        let region =
            unsafe { Registered::host(self, start, len, Terms { remote: access, flags }, Kept::Elsewhere) }?;
        Ok(ForeignRegion::new(Arc::new(region)))
    }
}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProtectionDomain of {}", self.context().name())
    }
}
