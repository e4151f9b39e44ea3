//! Shared receive queues: receives that several queue pairs take from.
//!
//! Order of use: make one from a protection domain, fill it, make queue pairs with it, set its limit and refill when the device's
//! asynchronous event says that it runs low. Posting is `unsafe` here: who posts keeps the memory until the completion; a `Hub` does so
//! by itself.
#![allow(unsafe_code)]

use crate::device::{Capabilities, Context, ObjectId};
use crate::error::{Error, Result};
use crate::memory::Scatter;
use crate::pd::ProtectionDomain;
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;
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
            std::mem::forget(self.pd.clone());
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
        SharedReceiveQueueBuilder { pd: self, requests, elements: 1, limit: 0 }
    }
}

impl SharedReceiveQueueBuilder<'_> {
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

    /// Makes it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no requests, no elements, or a limit above the requests; [`Error::Unsupported`] where the device has
    /// none; [`Error::Call`] with `EINVAL` for more than it can, `ENOMEM` when it has no room.
    #[doc(alias = "ibv_create_srq")]
    #[doc(alias = "ibv_create_srq_ex")]
    pub fn build(self) -> Result<SharedReceiveQueue> {
        let Self { pd, requests, elements, limit } = self;
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
        // SAFETY: domain and context are alive, the attributes are a local.
        let srq = unsafe { pd.table().create_srq_ex(pd.context().as_raw(), &mut attributes) };
        let srq = srq.and_then(|srq| NonNull::new(srq).ok_or(sys::Errno::UNKNOWN)).map_err(|errno| {
            let object = format_args!("{requests} receives in {}", pd.context().name());
            Error::call("ibv_create_srq", object, errno.0)
        })?;
        // What was given is written back, by some drivers not: then it is what was asked for.
        let given = attributes.attr.max_wr.max(requests);
        let elements = attributes.attr.max_sge.max(elements);
        let made = Made { pd: pd.clone(), srq, requests: AtomicU32::new(given), elements };
        Ok(SharedReceiveQueue { shared: Arc::new(made) })
    }
}

/// A receive of a batch: a number and where the message goes.
#[derive(Debug)]
#[repr(transparent)]
#[doc(alias = "ibv_recv_wr")]
pub struct SharedReceive<'list> {
    raw: sys::ibv_recv_wr,
    list: PhantomData<&'list mut [Scatter<'list>]>,
}

impl<'list> SharedReceive<'list> {
    /// Under the number `wr_id`, into these pieces of memory one after the other.
    #[must_use]
    pub fn new<'data: 'list>(wr_id: u64, into: &'list mut [Scatter<'data>]) -> Self {
        // An element is an `ibv_sge` (transparent), and more of them than the ABI counts fit no memory that a driver takes.
        let raw = sys::ibv_recv_wr {
            wr_id,
            next: std::ptr::null_mut(),
            sg_list: into.as_mut_ptr().cast(),
            num_sge: i32::try_from(into.len()).unwrap_or(i32::MAX),
        };
        Self { raw, list: PhantomData }
    }

    /// The number that its completion will carry.
    #[must_use]
    pub const fn wr_id(&self) -> u64 {
        self.raw.wr_id
    }
}

/// Why not all receives of a batch were posted.
#[derive(Clone, Debug)]
pub struct NotAllPosted {
    /// How many were: the first ones.
    pub posted: usize,
    /// Why the next was not.
    pub error: Error,
}

impl fmt::Display for NotAllPosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} were posted, then: {}", self.posted, self.error)
    }
}

impl std::error::Error for NotAllPosted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl SharedReceiveQueue {
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

    /// Posts one receive. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`Error::Full`] when it holds as many already; [`Error::Call`] with `EINVAL` for too many elements.
    ///
    /// # Safety
    /// The memory stays registered, and nobody has a reference to it, until the completion of `wr_id` was polled, or the queue and every
    /// queue pair of it are destroyed. It is of this queue's protection domain, as else the device fails the queue pair that takes it.
    #[doc(alias = "ibv_post_srq_recv")]
    #[inline]
    pub unsafe fn post(&self, wr_id: u64, into: &mut [Scatter<'_>]) -> Result<()> {
        let mut one = [SharedReceive::new(wr_id, into)];
        // SAFETY: the caller's promise.
        unsafe { self.post_batch(&mut one) }.map_err(|refused| refused.error)
    }

    /// Posts receives in their order by one call to the device. Never blocks, never allocates: the batch itself is linked, and can be
    /// posted again.
    ///
    /// # Errors
    /// [`NotAllPosted`] with how many were posted before the first that was refused, for the causes of [`post`](Self::post).
    ///
    /// # Safety
    /// For each receive as of [`post`](Self::post).
    #[doc(alias = "ibv_post_srq_recv")]
    #[inline]
    pub unsafe fn post_batch(
        &self,
        batch: &mut [SharedReceive<'_>],
    ) -> std::result::Result<(), NotAllPosted> {
        if batch.is_empty() {
            return Ok(());
        }
        let first = batch.as_mut_ptr().cast::<sys::ibv_recv_wr>();
        for index in 1..batch.len() {
            // SAFETY: both places are of the batch, whose elements are requests of the ABI (transparent).
            unsafe { (*first.add(index - 1)).next = first.add(index) };
        }
        // SAFETY: the last place of the batch.
        unsafe { (*first.add(batch.len() - 1)).next = std::ptr::null_mut() };
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue is alive and its context was looked at when it was opened; the list ends, and lives through the call as
        // its elements do; the memory is the caller's promise.
        let answer = unsafe { sys::ibv_post_srq_recv_unchecked(self.as_raw(), first, &mut bad) };
        match sys::Errno::check(answer) {
            Ok(()) => Ok(()),
            Err(errno) => Err(self.refused(batch, bad, errno)),
        }
    }

    #[cold]
    fn refused(
        &self,
        batch: &[SharedReceive<'_>],
        bad: *mut sys::ibv_recv_wr,
        errno: sys::Errno,
    ) -> NotAllPosted {
        // A driver that does not say which one refused the first.
        let posted = batch.iter().position(|receive| std::ptr::eq(&raw const receive.raw, bad)).unwrap_or(0);
        let error = match errno.0 {
            libc::ENOMEM => Error::Full { queue: "shared receive queue", depth: self.requests() },
            number => Error::call("ibv_post_srq_recv", self.context().name(), number),
        };
        NotAllPosted { posted, error }
    }
}

impl fmt::Debug for SharedReceiveQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedReceiveQueue({} receives in {})", self.requests(), self.context().name())
    }
}
