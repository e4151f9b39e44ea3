//! Shared receive queues: receives that several queue pairs take from.
//!
//! Order of use: make one from a protection domain, fill it, make queue pairs with it, set its limit and refill when the device's
//! asynchronous event says that it runs low. Posting is `unsafe` here: who posts keeps the memory until the completion; a `Hub` does so
//! by itself.
#![allow(unsafe_code)]

use crate::cq::{CompletionQueue, Reservation};
use crate::device::{Capabilities, Context, ObjectId};
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::qp::xrc::XrcDomain;
use crate::qp::{PostError, ReceiveRequest, link_receives};
use sinew_verbs_sys as sys;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A shared receive queue. `Clone` is another handle to the same; `Send` and `Sync`: any thread may post, drivers lock it.
///
/// Destroyed with its last handle, which queue pairs of it hold too; it holds its protection domain. That waits for asynchronous
/// events of the queue that somebody outside of this crate has taken and not acknowledged; [`AsyncEvents`](crate::device::AsyncEvents)
/// leaves none.
#[derive(Clone)]
#[doc(alias = "ibv_srq")]
pub struct SharedReceiveQueue {
    shared: Arc<Made>,
}

struct Made {
    pd: ProtectionDomain,
    srq: NonNull<sys::ibv_srq>,
    requests: AtomicU32,
    elements: u32,
    /// Of extended connections: their domain, and where its receives complete.
    extended: Option<(XrcDomain, Reservation)>,
}

// SAFETY: a shared receive queue may be used and destroyed by any thread; drivers lock it.
unsafe impl Send for Made {}
// SAFETY: the same.
unsafe impl Sync for Made {}

impl Drop for Made {
    fn drop(&mut self) {
        // SAFETY: made by us, destroyed once; queue pairs of it hold this value.
        let answer = unsafe { (self.pd.table().ibv_destroy_srq)(self.srq.as_ptr()) };
        if let Err(errno) = sys::Errno::check(answer) {
            self.pd.context().library().leaked("ibv_destroy_srq", &self.pd.context().name(), errno.0);
            std::mem::forget((self.pd.clone(), self.extended.take()));
        }
    }
}

/// How to make a shared receive queue.
#[derive(Clone, Debug)]
pub struct SharedReceiveQueueBuilder<'a> {
    pd: &'a ProtectionDomain,
    requests: u32,
    elements: u32,
    limit: u32,
    extended: Option<(&'a XrcDomain, &'a CompletionQueue)>,
}

/// What a shared receive queue says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "ibv_srq_attr")]
pub struct SharedReceiveQueueAttributes {
    /// Receives that it holds.
    pub requests_max: u32,
    /// Elements of a receive.
    pub elements_max: u32,
    /// The event is raised when fewer receives than this are left; 0: it is not, or was raised.
    pub limit: u32,
}

impl ProtectionDomain {
    /// A shared receive queue of at least `requests` receives; the device may give more. One element each by default.
    #[must_use]
    pub const fn shared_receive_queue(&self, requests: u32) -> SharedReceiveQueueBuilder<'_> {
        SharedReceiveQueueBuilder { pd: self, requests, elements: 1, limit: 0, extended: None }
    }
}

impl<'a> SharedReceiveQueueBuilder<'a> {
    /// Elements (pieces of memory) that a receive may have; 1 by default.
    #[must_use]
    pub const fn elements(mut self, elements: u32) -> Self {
        self.elements = elements;
        self
    }

    /// The number of receives below which the device raises an event; none by default. Most devices heed it only when it is set
    /// again after the queue was filled: [`SharedReceiveQueue::set_limit`].
    #[must_use]
    pub const fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Of extended connections: peers name it by its [`number`](SharedReceiveQueue::number), whichever [`XrcReceiver`](crate::qp::xrc::XrcReceiver) of this
    /// domain they come by. Its receives complete in this queue.
    #[must_use]
    pub const fn extended(mut self, domain: &'a XrcDomain, completions: &'a CompletionQueue) -> Self {
        self.extended = Some((domain, completions));
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no requests, no elements, a limit above the requests, what is of another context, or a completion queue without room; [`Error::Unsupported`] where the device has
    /// none; [`Error::Call`] with `EINVAL` for more than it can, `ENOMEM` when it has no room.
    #[doc(alias = "ibv_create_srq")]
    #[doc(alias = "ibv_create_srq_ex")]
    pub fn build(self) -> Result<SharedReceiveQueue> {
        let Self { pd, requests, elements, limit, extended } = self;
        if requests == 0 || elements == 0 || limit > requests {
            return Err(Error::invalid(
                "shared receive queue",
                format!("{requests} receives of {elements} elements with a limit of {limit}"),
                "take at least 1 receive of 1 element, and a limit of at most as many receives",
            ));
        }
        let mut attributes = sys::ibv_srq_init_attr_ex::zeroed();
        attributes.attr = sys::ibv_srq_attr { max_wr: requests, max_sge: elements, srq_limit: limit };
        attributes.comp_mask = sys::IBV_SRQ_INIT_ATTR_TYPE | sys::IBV_SRQ_INIT_ATTR_PD;
        attributes.srq_type = sys::IbvSrqType::BASIC;
        attributes.pd = pd.as_raw();
        // Given back when anything below fails.
        let extended = extended
            .map(|(domain, completions)| of_extended(pd, requests, domain, completions))
            .transpose()?;
        if let Some((domain, completions)) = &extended {
            attributes.comp_mask |= sys::IBV_SRQ_INIT_ATTR_XRCD | sys::IBV_SRQ_INIT_ATTR_CQ;
            attributes.srq_type = sys::IbvSrqType::XRC;
            (attributes.xrcd, attributes.cq) = (domain.as_raw(), completions.queue().as_raw());
        }
        // SAFETY: what the attributes name is alive, and of this context; they are a local.
        let srq = unsafe { pd.table().create_srq_ex(pd.context().as_raw(), &mut attributes) };
        let srq = srq.and_then(|srq| NonNull::new(srq).ok_or(sys::Errno::UNKNOWN)).map_err(|errno| {
            let object = format_args!("{requests} receives in {}", pd.context().name());
            Error::call("ibv_create_srq", object, errno.0)
        })?;
        // What was given is written back, by some drivers not: then it is what was asked for.
        let given = attributes.attr.max_wr.max(requests);
        let elements = attributes.attr.max_sge.max(elements);
        let made = Made { pd: pd.clone(), srq, requests: AtomicU32::new(given), elements, extended };
        Ok(SharedReceiveQueue { shared: Arc::new(made) })
    }
}

/// What one of extended connections holds.
fn of_extended(
    pd: &ProtectionDomain,
    requests: u32,
    domain: &XrcDomain,
    completions: &CompletionQueue,
) -> Result<(XrcDomain, Reservation)> {
    if !domain.context().is(pd.context()) || !completions.context().is(pd.context()) {
        return Err(Error::invalid(
            "shared receive queue",
            "its domain of extended connections or its completion queue is of another context",
            "make all from one context",
        ));
    }
    Ok((domain.clone(), completions.reserve(requests)?))
}

impl SharedReceiveQueue {
    /// Whether it is of extended connections.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.shared.extended.is_some()
    }

    /// The number by which peers of extended connections name it.
    ///
    /// # Errors
    /// [`Error::Call`] from the device.
    #[doc(alias = "ibv_get_srq_num")]
    pub fn number(&self) -> Result<u32> {
        // SAFETY: the queue is alive.
        unsafe { sys::ibv_get_srq_num(self.as_raw()) }
            .map_err(|errno| Error::call("ibv_get_srq_num", self.context().name(), errno.0))
    }

    /// The protection domain.
    #[must_use]
    pub fn protection_domain(&self) -> &ProtectionDomain {
        &self.shared.pd
    }

    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        self.shared.pd.context()
    }

    /// How many receives it holds.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// How many elements a receive may have.
    #[must_use]
    pub fn elements(&self) -> u32 {
        self.shared.elements
    }

    /// The raw queue; it stays as long as a handle is there.
    #[must_use]
    #[inline]
    pub fn as_raw(&self) -> *mut sys::ibv_srq {
        self.shared.srq.as_ptr()
    }

    /// Destroys it, when this is the last handle: when this succeeds, the device touches nothing of its receives any more.
    ///
    /// # Errors
    /// `EBUSY` when there are other handles; what the device says when it refuses, and then it stays for ever, counted.
    pub(crate) fn destroy(self) -> std::result::Result<(), sys::Errno> {
        let Ok(made) = Arc::try_unwrap(self.shared) else { return Err(sys::Errno(libc::EBUSY)) };
        let made = std::mem::ManuallyDrop::new(made);
        // SAFETY: made by us, destroyed once: the value that does so when it is dropped is not.
        let answer = unsafe { (made.pd.table().ibv_destroy_srq)(made.srq.as_ptr()) };
        sys::Errno::check(answer).inspect_err(|errno| {
            made.pd.context().library().leaked("ibv_destroy_srq", &made.pd.context().name(), errno.0);
        })?;
        // SAFETY: read out of a value that is not dropped, once; the rest of it needs no drop.
        drop(unsafe { (std::ptr::read(&raw const made.pd), std::ptr::read(&raw const made.extended)) });
        Ok(())
    }

    /// What asynchronous events call it.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        ObjectId::of(self.as_raw())
    }

    /// Whether two handles are of one queue.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// What the device says of it now.
    ///
    /// # Errors
    /// [`Error::Call`] from the device.
    #[doc(alias = "ibv_query_srq")]
    pub fn attributes(&self) -> Result<SharedReceiveQueueAttributes> {
        let mut raw = sys::ibv_srq_attr::zeroed();
        // SAFETY: the queue is alive, the place a local.
        let answer = unsafe { (self.shared.pd.table().ibv_query_srq)(self.as_raw(), &mut raw) };
        sys::Errno::check(answer)
            .map_err(|errno| Error::call("ibv_query_srq", self.context().name(), errno.0))?;
        Ok(SharedReceiveQueueAttributes {
            requests_max: raw.max_wr,
            elements_max: raw.max_sge,
            limit: raw.srq_limit,
        })
    }

    /// Arms the event [`SHARED_RECEIVE_QUEUE_LIMIT`](crate::device::AsyncEventType::SHARED_RECEIVE_QUEUE_LIMIT): it is raised once when
    /// fewer than `limit` receives are left, at once if that is so already. 0 disarms it.
    ///
    /// # Errors
    /// [`Error::Invalid`] above what the queue holds; [`Error::Call`] from the device.
    #[doc(alias = "ibv_modify_srq")]
    pub fn set_limit(&self, limit: u32) -> Result<()> {
        if limit > self.requests() {
            return Err(Error::invalid(
                "limit of a shared receive queue",
                format!("{limit}; it holds {} receives", self.requests()),
                "take at most as many",
            ));
        }
        let attributes = sys::ibv_srq_attr { max_wr: 0, max_sge: 0, srq_limit: limit };
        self.modify(attributes, sys::IBV_SRQ_LIMIT)
    }

    /// Makes it longer or shorter; what is posted stays.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0; [`Error::Unsupported`] where the device cannot; [`Error::Call`] with `EINVAL` when more is posted
    /// than would fit.
    #[doc(alias = "ibv_modify_srq")]
    pub fn resize(&self, requests: u32) -> Result<()> {
        if requests == 0 {
            return Err(Error::invalid("shared receive queue", "0 receives", "take at least 1"));
        }
        if let Some((_, completions)) = &self.shared.extended
            && requests > completions.entries()
        {
            return Err(Error::invalid(
                "shared receive queue",
                "its completion queue has room for as many as it was made for",
                "make a longer one anew",
            ));
        }
        let attributes = sys::ibv_srq_attr { max_wr: requests, max_sge: 0, srq_limit: 0 };
        match self.modify(attributes, sys::IBV_SRQ_MAX_WR) {
            Ok(()) => {
                // What the device gave, where it tells.
                let given = self.attributes().map_or(requests, |now| now.requests_max.max(requests));
                self.shared.requests.store(given, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                let can = self
                    .context()
                    .attributes()
                    .map_or(true, |device| device.capabilities().contains(Capabilities::SRQ_RESIZE));
                if can {
                    return Err(error);
                }
                Err(Error::Unsupported {
                    what: "resizing a shared receive queue",
                    object: self.context().name().to_owned(),
                })
            }
        }
    }

    fn modify(&self, mut attributes: sys::ibv_srq_attr, mask: u32) -> Result<()> {
        let function = self.shared.pd.table().ibv_modify_srq;
        // SAFETY: the queue is alive, the attributes are a local, and the mask has two bits.
        let answer = unsafe { function(self.as_raw(), &mut attributes, mask as i32) };
        sys::Errno::check(answer)
            .map_err(|errno| Error::call("ibv_modify_srq", self.context().name(), errno.0))
    }

    /// Posts receives in their order by one call to the device; those before one that was refused are posted. Never blocks, never
    /// allocates.
    ///
    /// # Errors
    /// [`Error::Full`] when it holds as many already; [`Error::Call`] with `EINVAL` for too many elements.
    ///
    /// # Safety
    /// The memory of each stays registered, and nobody has a reference to it, until its completion was polled, or this queue and every
    /// queue pair of it are destroyed; no place has a length of 0, which devices take for 2^31 bytes. It is of this queue's protection domain: else the device fails the queue pair that takes it. This queue is
    /// not that of a hub, and no queue pair of it reports to a hub's, nor does it itself where it is of extended connections: a hub would take the completion for one of its own.
    #[doc(alias = "ibv_post_srq_recv")]
    #[inline]
    pub unsafe fn post_receives(
        &self,
        requests: &mut [ReceiveRequest<'_>],
    ) -> std::result::Result<(), PostError> {
        let list = link_receives(requests);
        if list.is_null() {
            return Ok(());
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue is alive and its context was looked at when it was opened; the list is linked, and lives through the call
        // as its elements do; the memory is the caller's promise.
        let answer = unsafe { sys::ibv_post_srq_recv_unchecked(self.as_raw(), list, &raw mut bad) };
        sys::Errno::check(answer).map_err(|errno| self.refused(requests, bad, errno))
    }

    /// Posts one receive.
    ///
    /// # Errors
    /// As of [`post_receives`](Self::post_receives).
    ///
    /// # Safety
    /// As of [`post_receives`](Self::post_receives).
    #[doc(alias = "ibv_post_srq_recv")]
    #[inline]
    pub unsafe fn post_receive(&self, request: ReceiveRequest<'_>) -> std::result::Result<(), PostError> {
        // SAFETY: the caller's promise.
        unsafe { self.post_receives(&mut [request]) }
    }

    #[cold]
    fn refused(
        &self,
        requests: &[ReceiveRequest<'_>],
        bad: *mut sys::ibv_recv_wr,
        errno: sys::Errno,
    ) -> PostError {
        let error = match errno.0 {
            libc::ENOMEM => Error::Full { queue: "shared receive queue", depth: self.requests() },
            number => Error::call("ibv_post_srq_recv", self.context().name(), number),
        };
        PostError::of_receives(requests, bad, error)
    }
}

impl fmt::Debug for SharedReceiveQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedReceiveQueue({} receives in {})", self.requests(), self.context().name())
    }
}
