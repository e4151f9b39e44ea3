//! Thread domains: what one thread alone uses needs no locks of the driver's.
//!
//! Order of use: a thread domain of a context, a protection domain for it ([`ProtectionDomain::for_thread`]), everything else in that.
#![allow(unsafe_code)]

use crate::device::Context;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use sinew_verbs_sys as sys;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// A thread domain (ibv_alloc_td(3)): what is made for it shares no lock, and no page of doorbells, with what is not. `Clone` is another handle to
/// the same; `Send` and `Sync`. Freed with the last handle, which domains of it hold too; it holds its device.
#[derive(Clone)]
#[doc(alias = "ibv_td")]
pub struct ThreadDomain {
    shared: Arc<Allocated>,
}

struct Allocated {
    context: Context,
    td: NonNull<sys::ibv_td>,
}

// SAFETY: a thread domain is named by any thread, and freed by any: what is bound to one thread are the objects that are made for it.
unsafe impl Send for Allocated {}
// SAFETY: the same.
unsafe impl Sync for Allocated {}

impl Drop for Allocated {
    fn drop(&mut self) {
        // SAFETY: allocated by us, freed once; domains of it hold this value.
        if let Err(errno) = unsafe { sys::ibv_dealloc_td(self.td.as_ptr()) } {
            self.context.library().leaked("ibv_dealloc_td", &self.context.name(), errno.0);
            std::mem::forget(self.context.clone());
        }
    }
}

impl Context {
    /// A new thread domain.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the driver has none; [`Error::Call`] when the device has none left.
    #[doc(alias = "ibv_alloc_td")]
    pub fn thread_domain(&self) -> Result<ThreadDomain> {
        let mut attributes = sys::ibv_td_init_attr { comp_mask: 0 };
        // SAFETY: the context is open, the attributes are a local.
        let td = unsafe { sys::ibv_alloc_td(self.as_raw(), &mut attributes) };
        let td = td.and_then(|td| NonNull::new(td).ok_or(sys::Errno::UNKNOWN));
        let td = td.map_err(|errno| Error::call("ibv_alloc_td", self.name(), errno.0))?;
        Ok(ThreadDomain { shared: Arc::new(Allocated { context: self.clone(), td }) })
    }
}

impl ThreadDomain {
    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    /// The raw domain; it stays as long as a handle is there.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_td {
        self.shared.td.as_ptr()
    }
}

impl ProtectionDomain {
    /// A domain of the same memory rights for one thread (a *parent domain*, ibv_alloc_parent_domain(3)): drivers do not lock what is made in it.
    ///
    /// It is a domain of its own here: register in it what its queue pairs use. Keys of either are good in both for peers.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a thread domain of another context; [`Error::Unsupported`] where the driver has none; [`Error::Call`] from the device.
    ///
    /// # Safety
    /// Of everything that is made in this domain, for this thread domain, only one thread at a time calls anything, its end included: also where the type of
    /// it is `Sync`, as that of a shared receive queue is.
    #[doc(alias = "ibv_alloc_parent_domain")]
    pub unsafe fn for_thread(&self, thread: &ThreadDomain) -> Result<Self> {
        let context = self.context();
        if !thread.context().is(context) {
            return Err(Error::invalid(
                "thread domain",
                format!("it is of {}, the domain of {}", thread.context().name(), context.name()),
                "make both from one context",
            ));
        }
        let mut attributes = sys::ibv_parent_domain_init_attr::zeroed();
        attributes.pd = self.as_raw();
        attributes.td = thread.as_raw();
        // SAFETY: the context is open; both domains are alive and of it, and are held by the new one; no allocator is given.
        let pd = unsafe { sys::ibv_alloc_parent_domain(context.as_raw(), &mut attributes) };
        let pd = pd.and_then(|pd| NonNull::new(pd).ok_or(sys::Errno::UNKNOWN));
        let pd = pd.map_err(|errno| Error::call("ibv_alloc_parent_domain", context.name(), errno.0))?;
        Ok(self.parent(pd, thread))
    }
}

impl fmt::Debug for ThreadDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ThreadDomain of {}", self.context().name())
    }
}
