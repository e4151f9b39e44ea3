//! Memory windows: a peer's access to a part of a region, given and taken away by requests, without a registration.
//!
//! Only over memory that was exposed with `WINDOW_BIND`: it is never a slice, so a window opens nothing that safe code reads as bytes.
//! A window holds what it was bound to until it is dropped.
#![allow(unsafe_code)]

use super::access::RemoteAccess;
use super::exposed::ExposedRegion;
use super::region::Registered;
use super::remote::{RemoteKey, RemoteRegion};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use sinew_verbs_sys as sys;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// How a window is bound (`enum ibv_mw_type`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "ibv_mw_type")]
pub enum WindowType {
    /// By a call, which gives it a new key each time. Its key opens it by every queue pair of the domain.
    One,
    /// By a request, with a key that the caller computes; a peer can take it away by a send with invalidate. On most devices its key
    /// opens it only by the queue pair that it was bound on.
    Two,
}

/// A memory window (ibv_alloc_mw(3)). `Clone` is another handle to the same; `Send` and `Sync`. Bound to nothing at first; freed, and so
/// closed, with its last handle. It holds its protection domain, and each region that it was bound to.
#[derive(Clone)]
#[doc(alias = "ibv_mw")]
pub struct MemoryWindow {
    shared: Arc<Allocated>,
}

struct Allocated {
    pd: ProtectionDomain,
    mw: NonNull<sys::ibv_mw>,
    kind: WindowType,
    state: Mutex<State>,
}

struct State {
    /// The key that was given out last.
    key: u32,
    /// What it is bound to, and what it may be bound to while a request has not ended.
    held: Vec<Arc<Registered>>,
}

// SAFETY: a window may be bound, by one thread at a time (the lock), and freed by any thread.
unsafe impl Send for Allocated {}
// SAFETY: the same.
unsafe impl Sync for Allocated {}

impl Drop for Allocated {
    fn drop(&mut self) {
        // SAFETY: allocated by us, freed once; requests that bind it hold this value, or their caller promised to wait for them.
        if let Err(errno) = unsafe { sys::ibv_dealloc_mw(self.mw.as_ptr()) } {
            self.pd.context().library().leaked("ibv_dealloc_mw", &self.pd.context().name(), errno.0);
            // Peers may still come through it.
            let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget((std::mem::take(&mut state.held), self.pd.clone()));
        }
    }
}

/// A request that binds a window of type 2, to be posted: it names a key that becomes valid with it. Holds the window.
#[derive(Clone, Debug)]
pub struct Binding {
    window: MemoryWindow,
    raw: sys::ibv_send_wr_bind_mw,
    remote: RemoteRegion,
}

// SAFETY: the raw pointers are to objects of any thread, which the window holds.
unsafe impl Send for Binding {}
// SAFETY: the same; nothing is written through a shared reference.
unsafe impl Sync for Binding {}

impl ProtectionDomain {
    /// A window, bound to nothing.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the device has none of this type; [`Error::Call`] with `ENOMEM` when none is left.
    #[doc(alias = "ibv_alloc_mw")]
    pub fn memory_window(&self, kind: WindowType) -> Result<MemoryWindow> {
        let raw_kind = match kind {
            WindowType::One => sys::IbvMwType::TYPE_1,
            WindowType::Two => sys::IbvMwType::TYPE_2,
        };
        // SAFETY: the domain is alive.
        let mw = unsafe { sys::ibv_alloc_mw(self.as_raw(), raw_kind) };
        let mw = mw.and_then(|mw| NonNull::new(mw).ok_or(sys::Errno::UNKNOWN)).map_err(|errno| {
            Error::call("ibv_alloc_mw", format_args!("type {kind:?} in {}", self.context().name()), errno.0)
        })?;
        // SAFETY: just made, and written by nobody else yet.
        let key = unsafe { (*mw.as_ptr()).rkey };
        let state = Mutex::new(State { key, held: Vec::new() });
        Ok(MemoryWindow { shared: Arc::new(Allocated { pd: self.clone(), mw, kind, state }) })
    }
}

impl MemoryWindow {
    /// The protection domain.
    #[must_use]
    pub fn protection_domain(&self) -> &ProtectionDomain {
        &self.shared.pd
    }

    fn context(&self) -> &Context {
        self.shared.pd.context()
    }

    /// How it is bound.
    #[must_use]
    pub fn window_type(&self) -> WindowType {
        self.shared.kind
    }

    /// The key that was given out last. Whether it is valid is for the completion of the binding request to say.
    #[must_use]
    pub fn key(&self) -> RemoteKey {
        RemoteKey(self.state().key)
    }

    /// The raw window; it stays as long as a handle is there.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_mw {
        self.shared.mw.as_ptr()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_kind(&self, needed: WindowType, remedy: &'static str) -> Result<()> {
        if self.shared.kind == needed {
            return Ok(());
        }
        Err(Error::invalid("memory window", format!("it is of type {:?}", self.shared.kind), remedy))
    }

    /// What the ABI asks about the range, and where peers find it.
    fn part(
        &self,
        region: &ExposedRegion,
        range: &Range<usize>,
        access: RemoteAccess,
    ) -> Result<(sys::ibv_mw_bind_info, RemoteRegion)> {
        let registered = region.region();
        let refuse = |cause: String, remedy| Err(Error::invalid("binding of a memory window", cause, remedy));
        if !registered.is_of(&self.shared.pd) {
            return refuse(
                "window and region are of different protection domains".to_owned(),
                "make both from one",
            );
        }
        if !registered.takes_windows() {
            return refuse(
                format!("{registered:?} takes no windows"),
                "expose it with RegistrationFlags::WINDOW_BIND",
            );
        }
        let len = range.end.checked_sub(range.start).filter(|len| *len > 0);
        let remote = len.and_then(|len| region.remote().slice(range.start as u64, len as u64));
        let Some(remote) = remote else {
            return refuse(
                format!("{range:?} has no bytes, or is not inside of {} bytes", region.len()),
                "take a range inside of the region",
            );
        };
        let info = sys::ibv_mw_bind_info {
            mr: registered.as_raw(),
            addr: remote.addr(),
            length: remote.len(),
            mw_access_flags: access.bits() & RemoteAccess::all().bits(),
        };
        Ok((info, remote))
    }

    /// Binds a window of type 1, by a request of `qp`'s send queue: what it was bound to before is closed, and peers find the range as
    /// what is returned, once the request has completed (`BIND_WINDOW`). Never blocks.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a window of type 2, a region of another domain or one that takes no windows, or a range outside;
    /// [`Error::Unsupported`] where the device cannot; [`Error::Call`] otherwise, with `ENOMEM` when the send queue is full.
    ///
    /// # Safety
    /// `qp` is a queue pair of the window's protection domain, alive until the request has ended: its completion was polled, or the
    /// queue pair is destroyed. Until then a handle of this window is there. `wr_id` and a place of the queues are the caller's.
    #[doc(alias = "ibv_bind_mw")]
    pub unsafe fn bind(
        &self,
        qp: *mut sys::ibv_qp,
        wr_id: u64,
        signaled: bool,
        region: &ExposedRegion,
        range: Range<usize>,
        access: RemoteAccess,
    ) -> Result<RemoteRegion> {
        self.check_kind(WindowType::One, "bind it by a request (`binding`)")?;
        let (info, place) = self.part(region, &range, access)?;
        // SAFETY: the caller's promise.
        let key = unsafe { self.post(qp, wr_id, signaled, info, Some(region.region().clone())) }?;
        Ok(RemoteRegion::of_region(place.addr(), place.len(), key))
    }

    /// Closes a window of type 1, by a request as [`bind`](Self::bind) posts.
    ///
    /// # Errors
    /// As of [`bind`](Self::bind).
    ///
    /// # Safety
    /// As of [`bind`](Self::bind).
    pub unsafe fn unbind(&self, qp: *mut sys::ibv_qp, wr_id: u64, signaled: bool) -> Result<()> {
        self.check_kind(WindowType::One, "invalidate its key by a request")?;
        let info = sys::ibv_mw_bind_info { mr: std::ptr::null_mut(), addr: 0, length: 0, mw_access_flags: 0 };
        // SAFETY: the caller's promise.
        unsafe { self.post(qp, wr_id, signaled, info, None) }.map(|_| ())
    }

    /// # Safety
    /// As of [`bind`](Self::bind); the region that the information names is the one to hold.
    unsafe fn post(
        &self,
        qp: *mut sys::ibv_qp,
        wr_id: u64,
        signaled: bool,
        bind_info: sys::ibv_mw_bind_info,
        region: Option<Arc<Registered>>,
    ) -> Result<RemoteKey> {
        let send_flags = if signaled { sys::IBV_SEND_SIGNALED } else { 0 };
        let mut bind = sys::ibv_mw_bind { wr_id, send_flags, bind_info };
        // Held over the call: the key that is read after it is that of this binding.
        let mut state = self.state();
        // SAFETY: the queue pair by the caller's promise; window and region are alive, the request is a local.
        unsafe { sys::ibv_bind_mw(qp, self.as_raw(), &mut bind) }
            .map_err(|errno| Error::call("ibv_bind_mw", self.context().name(), errno.0))?;
        state.held.extend(region);
        // SAFETY: the library writes the key in the call that has returned, and others wait for the lock.
        state.key = unsafe { (*self.as_raw()).rkey };
        Ok(RemoteKey(state.key))
    }

    /// The next binding of a window of type 2, to be posted to a queue pair's send queue, with the key after the last one. The window must
    /// be closed then: never bound, or invalidated by a request that has ended.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a window of type 1, a region of another domain or one that takes no windows, or a range outside.
    #[doc(alias = "ibv_inc_rkey")]
    #[doc(alias = "ibv_wr_bind_mw")]
    pub fn binding(
        &self,
        region: &ExposedRegion,
        range: Range<usize>,
        access: RemoteAccess,
    ) -> Result<Binding> {
        self.check_kind(WindowType::Two, "bind it by a call (`bind`)")?;
        let (bind_info, place) = self.part(region, &range, access)?;
        let mut state = self.state();
        state.key = sys::ibv_inc_rkey(state.key);
        state.held.push(region.region().clone());
        let raw = sys::ibv_send_wr_bind_mw { mw: self.as_raw(), rkey: state.key, bind_info };
        let remote = RemoteRegion::of_region(place.addr(), place.len(), RemoteKey(state.key));
        drop(state);
        Ok(Binding { window: self.clone(), raw, remote })
    }

    /// Lets go of every region that it was bound to before the last one, so that they can close before the window does.
    ///
    /// # Safety
    /// The last binding request has completed with success, and no other is out.
    pub unsafe fn settle(&self) {
        let mut state = self.state();
        let old = state.held.len().saturating_sub(1);
        let closed: Vec<_> = state.held.drain(..old).collect();
        drop(state);
        drop(closed);
    }
}

impl Binding {
    /// What peers name once the request has completed with success.
    #[must_use]
    pub const fn remote(&self) -> RemoteRegion {
        self.remote
    }

    /// The window.
    #[must_use]
    pub const fn window(&self) -> &MemoryWindow {
        &self.window
    }

    /// Window, key and range for a request. The window, which this value holds, must be there until the request has ended.
    #[must_use]
    pub const fn as_raw(&self) -> &sys::ibv_send_wr_bind_mw {
        &self.raw
    }
}

impl fmt::Debug for MemoryWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryWindow(type {:?} in {})", self.shared.kind, self.context().name())
    }
}
