//! Memory windows: a peer's access to a part of a region, given and taken away by requests, without a registration.
//!
//! Only over memory that was exposed with `WINDOW_BIND`: it is never a slice, so a window opens nothing that safe code reads as bytes.
//! A window holds what it was bound to until it is dropped.
//!
//! Windows of type 2 are bound and closed by requests: [`Hub::bind_window`](crate::Hub::bind_window), [`Channel::bind_window`](crate::Channel::bind_window); by hand
//! ([`MemoryWindow::bind`]) both types are.
#![allow(unsafe_code)]

use super::access::RemoteAccess;
use super::exposed::ExposedRegion;
use super::region::Registered;
use super::remote::{RemoteKey, RemoteRegion};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::qp::{Atomics, QueuePairMut, SendRequest};
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
    /// By a request of a queue pair, with a new key each time; a peer can take it away by a send with invalidate. On most devices (all of type 2B) its
    /// key opens it only by the queue pair that it was bound on.
    Two,
}

/// A memory window (ibv_alloc_mw(3)). `Clone` is another handle to the same; `Send` and `Sync`. Bound to nothing at first; freed, and so
/// closed, with its last handle. It holds its protection domain, and each region that it was bound to.
///
/// One whose binding failed has a key that nobody knows for sure: make another.
///
/// Close it, or drop it, before the queue pair that it was bound on and before its region: `rdma_rxe` waits 50 s in the end of a queue pair that a window of type 2 is
/// bound on, and refuses the end of a region that one of type 1 was not [closed](Self::unbind) for; the region then stays for ever, and is counted (`Library::leaked_objects`).
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
    /// What it is bound to, and what it may be bound to while a request has not ended; each region once.
    held: Vec<Arc<Registered>>,
}

impl State {
    fn hold(&mut self, region: &Arc<Registered>) {
        if !self.held.iter().any(|held| Arc::ptr_eq(held, region)) {
            self.held.push(region.clone());
        }
    }
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

/// What a request says that binds a window of type 2. Who posts it holds the window, and the window what it is bound to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding(sys::ibv_send_wr_bind_mw);

// SAFETY: numbers, and addresses of objects of any thread, which nobody but the library follows.
unsafe impl Send for Binding {}
// SAFETY: the same.
unsafe impl Sync for Binding {}

impl Binding {
    /// For a request.
    pub(crate) const fn as_raw(self) -> sys::ibv_send_wr_bind_mw {
        self.0
    }
}

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

    /// Binds it by a request of `qp`'s send queue: peers find the range as what is returned, once the request has completed (`BIND_WINDOW`). What a window of type 1
    /// was bound to before is closed; one of type 2 must be closed already: never bound, or invalidated by a request before this one. Never blocks.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a region of another domain or one that takes no windows, or a range outside; [`Error::Unsupported`] where the device cannot;
    /// [`Error::Full`] when the send queue is full; [`Error::Call`] otherwise.
    ///
    /// # Safety
    /// As for [`QueuePair::post`](crate::qp::QueuePair::post): until the request has ended, a handle of this window is there. `wr_id` and a place of the queues are the caller's. The queue pair
    /// is of the window's protection domain.
    #[doc(alias = "ibv_bind_mw")]
    #[doc(alias = "ibv_wr_bind_mw")]
    #[doc(alias = "ibv_inc_rkey")]
    pub unsafe fn bind<'qp, S: Atomics>(
        &self,
        qp: impl Into<QueuePairMut<'qp, S>>,
        wr_id: u64,
        signaled: bool,
        region: &ExposedRegion,
        range: Range<usize>,
        access: RemoteAccess,
    ) -> Result<RemoteRegion> {
        let mut qp = qp.into();
        if self.shared.kind == WindowType::One {
            let (info, place) = self.part(region, &range, access)?;
            // SAFETY: the caller's promise.
            let key = unsafe { self.call(qp.as_raw(), wr_id, signaled, info, Some(region.region())) }?;
            return Ok(RemoteRegion::of_region(place.addr(), place.len(), key));
        }
        let bind = |binding| {
            let request = SendRequest::bind_window(wr_id, binding);
            // SAFETY: the caller's promise.
            unsafe { qp.post_one(if signaled { request.signaled() } else { request }) }.map_err(Error::from)
        };
        self.bind_by(region, range, access, bind).map(|(remote, ())| remote)
    }

    /// Closes it, by a request as [`bind`](Self::bind) posts.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a window of type 1 that was never bound; otherwise as of [`bind`](Self::bind).
    ///
    /// # Safety
    /// As of [`bind`](Self::bind).
    pub unsafe fn unbind<'qp, S: Atomics>(
        &self,
        qp: impl Into<QueuePairMut<'qp, S>>,
        wr_id: u64,
        signaled: bool,
    ) -> Result<()> {
        let mut qp = qp.into();
        if self.shared.kind == WindowType::One {
            // No bytes of a region that it holds: some libraries follow the pointer of a region even then, and crash without one.
            let Some(held) = self.state().held.last().cloned() else {
                return Err(Error::invalid("memory window", "it is bound to nothing", "bind it first"));
            };
            let info = sys::ibv_mw_bind_info { mr: held.as_raw(), addr: 0, length: 0, mw_access_flags: 0 };
            // SAFETY: the caller's promise.
            return unsafe { self.call(qp.as_raw(), wr_id, signaled, info, None) }.map(|_| ());
        }
        let request = SendRequest::local_invalidate(wr_id, self.key().0);
        // SAFETY: the caller's promise.
        unsafe { qp.post_one(if signaled { request.signaled() } else { request }) }.map_err(Error::from)
    }

    /// # Safety
    /// As of [`bind`](Self::bind); the region that the information names is the one to hold.
    unsafe fn call(
        &self,
        qp: *mut sys::ibv_qp,
        wr_id: u64,
        signaled: bool,
        bind_info: sys::ibv_mw_bind_info,
        region: Option<&Arc<Registered>>,
    ) -> Result<RemoteKey> {
        let send_flags = if signaled { sys::IBV_SEND_SIGNALED } else { 0 };
        let mut bind = sys::ibv_mw_bind { wr_id, send_flags, bind_info };
        // Held over the call: the key that is read after it is that of this binding.
        let mut state = self.state();
        // SAFETY: the queue pair by the caller's promise; window and region are alive, the request is a local.
        unsafe { sys::ibv_bind_mw(qp, self.as_raw(), &mut bind) }
            .map_err(|errno| Error::call("ibv_bind_mw", self.context().name(), errno.0))?;
        if let Some(region) = region {
            state.hold(region);
        }
        // SAFETY: the library writes the key in the call that has returned, and others wait for the lock.
        state.key = unsafe { (*self.as_raw()).rkey };
        Ok(RemoteKey(state.key))
    }

    /// Binds a window of type 2 by a request that `post` posts, with the key after the last one; what peers name once it has completed with success.
    ///
    /// # Errors
    /// As of [`bind`](Self::bind), and those of `post`.
    pub(crate) fn bind_by<T>(
        &self,
        region: &ExposedRegion,
        range: Range<usize>,
        access: RemoteAccess,
        post: impl FnOnce(Binding) -> Result<T>,
    ) -> Result<(RemoteRegion, T)> {
        self.check_requests()?;
        let (bind_info, place) = self.part(region, &range, access)?;
        // Held over the post: requests are posted in the order of their keys.
        let mut state = self.state();
        let key = sys::ibv_inc_rkey(state.key);
        // Before it is posted: a post that failed may have been taken.
        state.hold(region.region());
        let posted = post(Binding(sys::ibv_send_wr_bind_mw { mw: self.as_raw(), rkey: key, bind_info }))?;
        state.key = key;
        // The next binding tells the device which key it replaces, by this field.
        // SAFETY: the window is alive; the library looks at the field in calls that bind it, which wait for the lock.
        unsafe { (*self.as_raw()).rkey = key };
        Ok((RemoteRegion::of_region(place.addr(), place.len(), RemoteKey(key)), posted))
    }

    /// Refuses a window of type 1, which no request binds.
    pub(crate) fn check_requests(&self) -> Result<()> {
        if self.shared.kind == WindowType::Two {
            return Ok(());
        }
        Err(Error::invalid(
            "memory window",
            "it is of type 1, which a call binds",
            "make one of type 2, or bind it by hand (`MemoryWindow::bind`)",
        ))
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

impl fmt::Debug for MemoryWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryWindow(type {:?} in {})", self.shared.kind, self.context().name())
    }
}
