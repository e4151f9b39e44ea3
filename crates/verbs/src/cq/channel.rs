//! Sleeping until a completion queue has something: one descriptor for any number of queues.
#![allow(unsafe_code)]

use crate::device::Context;
use crate::error::{Error, Result};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use sinew_verbs_sys as sys;
use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where completion queues raise their events. `Clone` is another handle to the same; `Send` and `Sync`. Its descriptor (`AsFd`) is
/// readable while an event waits: give it to any event loop; it does not block.
///
/// Destroyed with the last handle, on whichever thread; queues of it hold it.
///
/// The order that loses nothing: arm each queue, poll it once more, then wait; after an event poll and arm again.
#[derive(Clone)]
#[doc(alias = "ibv_comp_channel")]
pub struct CompletionChannel {
    shared: Arc<Made>,
}

struct Made {
    context: Context,
    channel: NonNull<sys::ibv_comp_channel>,
    /// Held while an event is taken and counted, and while a queue ends: so a queue that ends knows what was taken of it.
    taking: Mutex<()>,
}

// SAFETY: a channel may be used and destroyed by any thread.
unsafe impl Send for Made {}
// SAFETY: the same.
unsafe impl Sync for Made {}

impl Drop for Made {
    fn drop(&mut self) {
        // SAFETY: made by us, destroyed once; queues of it hold this value.
        let answer = unsafe { (self.context.table().ibv_destroy_comp_channel)(self.channel.as_ptr()) };
        if let Err(errno) = sys::Errno::check(answer) {
            self.context.library().leaked("ibv_destroy_comp_channel", &self.context.name(), errno.0);
            std::mem::forget(self.context.clone());
        }
    }
}

/// An event: a queue that was armed has something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompletionEvent {
    /// The word that its queue was made with.
    pub cookie: u64,
}

/// How many events of a queue are taken before they are acknowledged: the acknowledgement takes a lock of the library's.
const ACKNOWLEDGE_AT: u32 = 64;

/// A queue's place in its channel. The raw queue points to it.
pub(super) struct Subscription {
    channel: CompletionChannel,
    place: NonNull<Place>,
}

/// What an event points to. Touched only while the channel's lock is held.
struct Place {
    cookie: u64,
    unacknowledged: Cell<u32>,
}

impl Context {
    /// A completion channel.
    ///
    /// # Errors
    /// [`Error::Call`] when no descriptor is left.
    #[doc(alias = "ibv_create_comp_channel")]
    pub fn completion_channel(&self) -> Result<CompletionChannel> {
        // SAFETY: the context is open.
        let channel = unsafe { (self.table().ibv_create_comp_channel)(self.as_raw()) };
        let failed = |call, errno| Error::call(call, self.name(), errno);
        let channel =
            NonNull::new(channel).ok_or_else(|| failed("ibv_create_comp_channel", sys::Errno::last().0))?;
        let made = Made { context: self.clone(), channel, taking: Mutex::new(()) };
        let channel = CompletionChannel { shared: Arc::new(made) };
        let flags = fcntl_getfl(&channel).map_err(|errno| failed("fcntl", errno.raw_os_error()))?;
        fcntl_setfl(&channel, flags | OFlags::NONBLOCK)
            .map_err(|errno| failed("fcntl", errno.raw_os_error()))?;
        Ok(channel)
    }
}

impl CompletionChannel {
    /// The device.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.shared.context
    }

    /// The raw channel; it stays as long as a handle is there.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_comp_channel {
        self.shared.channel.as_ptr()
    }

    /// An event, if one waits. Never blocks. Each event goes to one caller.
    ///
    /// # Errors
    /// [`Error::Call`] when the channel failed.
    #[doc(alias = "ibv_get_cq_event")]
    pub fn event(&self) -> Result<Option<CompletionEvent>> {
        let _taking = self.shared.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut cq, mut place) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the channel is alive, both places are locals, and its descriptor does not block.
        let answer = unsafe { (self.context().table().ibv_get_cq_event)(self.as_raw(), &mut cq, &mut place) };
        if let Err(errno) = sys::Errno::check(answer) {
            return match errno.0 {
                libc::EAGAIN | libc::EINTR => Ok(None),
                number => Err(Error::call("ibv_get_cq_event", self.context().name(), number)),
            };
        }
        // SAFETY: every queue of this channel was made with a pointer to its place, which is freed after the queue has ended; a queue
        // ends under the lock that is held here, so this one has not.
        let place = unsafe { &*place.cast::<Place>() };
        let taken = place.unacknowledged.get() + 1;
        place.unacknowledged.set(if taken == ACKNOWLEDGE_AT { 0 } else { taken });
        if taken == ACKNOWLEDGE_AT {
            // SAFETY: the queue is alive, as above, and as many events were taken.
            unsafe { (self.context().table().ibv_ack_cq_events)(cq, taken) };
        }
        Ok(Some(CompletionEvent { cookie: place.cookie }))
    }

    /// Waits for an event; nothing when none came in time. `None` waits for ever. Signals do not end it.
    ///
    /// Several threads may wait: each event goes to one of them.
    ///
    /// # Errors
    /// As [`event`](Self::event); [`Error::Call`] when the system cannot wait.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<CompletionEvent>> {
        crate::wait::until(self, "a completion channel", timeout, || self.event())
    }
}

impl AsFd for CompletionChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel's own descriptor, open as long as the channel is, which the borrow holds.
        unsafe { BorrowedFd::borrow_raw((*self.as_raw()).fd) }
    }
}

impl fmt::Debug for CompletionChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompletionChannel of {}", self.context().name())
    }
}

impl Subscription {
    pub(super) fn new(channel: &CompletionChannel, context: &Context, cookie: u64) -> Result<Self> {
        if !channel.context().is(context) {
            return Err(Error::invalid(
                "completion channel",
                format!("it is of {}, the queue of {}", channel.context().name(), context.name()),
                "make both from one context",
            ));
        }
        let place = Box::new(Place { cookie, unacknowledged: Cell::new(0) });
        Ok(Self { channel: channel.clone(), place: NonNull::from(Box::leak(place)) })
    }

    /// What the raw queue carries.
    pub(super) const fn as_raw(&self) -> *mut c_void {
        self.place.as_ptr().cast()
    }

    /// There is no queue after all, so no event points to its place.
    pub(super) fn discard(self) {
        // SAFETY: made by `Box`, and nothing else points to it.
        drop(unsafe { Box::from_raw(self.place.as_ptr()) });
    }

    /// Acknowledges what was taken and ends the queue; only then its place goes. A queue that is not destroyed keeps both.
    pub(super) fn end(
        self,
        cq: NonNull<sys::ibv_cq>,
        destroy: impl FnOnce() -> std::result::Result<(), sys::Errno>,
    ) -> std::result::Result<(), sys::Errno> {
        let taking = self.channel.shared.taking.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the place lives until the end of this function, and is touched under the lock that is held.
        let taken = unsafe { self.place.as_ref() }.unacknowledged.replace(0);
        if taken > 0 {
            // SAFETY: the queue is alive, and as many events were taken.
            unsafe { (self.channel.context().table().ibv_ack_cq_events)(cq.as_ptr(), taken) };
        }
        let answer = destroy();
        drop(taking);
        match answer {
            // SAFETY: made by `Box`; the queue is gone, so no event points to it any more, and this value is the last that does.
            Ok(()) => drop(unsafe { Box::from_raw(self.place.as_ptr()) }),
            Err(_) => std::mem::forget(self.channel.clone()),
        }
        answer
    }
}
