//! Asynchronous events of a device: what happens to its ports, and to queues and queue pairs beside their completions.
//!
//! An event names its object by number or identity, never by pointer: it is copied out and acknowledged inside of the call that takes it,
//! while the library still keeps the object (its destruction waits for the acknowledgement). So dropping a queue never waits for an
//! event that somebody has taken and not looked at, on whichever thread.
#![allow(unsafe_code)]

use super::context::Context;
use crate::error::{Error, Result};
use crate::number::named_number;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use sinew_verbs_sys as sys;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

named_number! {
    /// What happened (`enum ibv_event_type`). A number with names; what is unknown is kept.
    AsyncEventType: u32 {
        /// A completion queue failed or overran: what it holds is lost.
        COMPLETION_QUEUE_ERROR = 0 => "completion queue error",
        /// A queue pair failed and cannot tell why by a completion.
        QUEUE_PAIR_FATAL = 1 => "queue pair fatal",
        /// A peer's request made no sense to a queue pair.
        QUEUE_PAIR_REQUEST_ERROR = 2 => "invalid request at queue pair",
        /// A peer's request was not permitted by a queue pair's memory.
        QUEUE_PAIR_ACCESS_ERROR = 3 => "access violation at queue pair",
        /// The first message came before the queue pair was ready to send.
        COMMUNICATION_ESTABLISHED = 4 => "communication established",
        /// All that a queue pair had begun to send is sent, after it was told to drain.
        SEND_QUEUE_DRAINED = 5 => "send queue drained",
        /// A queue pair took its alternate path.
        PATH_MIGRATED = 6 => "path migrated",
        /// A queue pair could not take its alternate path.
        PATH_MIGRATION_ERROR = 7 => "path migration error",
        /// The device failed; open it anew.
        DEVICE_FATAL = 8 => "device fatal",
        /// A port carries traffic now.
        PORT_ACTIVE = 9 => "port active",
        /// A port carries no traffic any more.
        PORT_ERROR = 10 => "port down",
        /// A port has another local identifier.
        LID_CHANGE = 11 => "local identifier changed",
        /// A port's partition keys changed.
        PKEY_CHANGE = 12 => "partition keys changed",
        /// Another subnet manager has taken over.
        SUBNET_MANAGER_CHANGE = 13 => "subnet manager changed",
        /// A shared receive queue failed.
        SHARED_RECEIVE_QUEUE_ERROR = 14 => "shared receive queue error",
        /// Fewer receives than its limit are left in a shared receive queue; the limit is off until it is set again.
        SHARED_RECEIVE_QUEUE_LIMIT = 15 => "shared receive queue limit reached",
        /// A queue pair in the error state has taken its last receive of a shared queue.
        LAST_REQUEST_REACHED = 16 => "last request of shared queue reached",
        /// The subnet manager wants multicast groups to be joined again.
        CLIENT_REREGISTER = 17 => "subnet manager asks for registration",
        /// A port's GID table changed.
        GID_CHANGE = 18 => "GID table changed",
        /// A work queue failed.
        WORK_QUEUE_FATAL = 19 => "work queue fatal",
        /// The speed of a port changed.
        SPEED_CHANGE = 20 => "speed changed",
    }
}

/// Which object, as long as it exists: equal to what its handle's `id` says. The identity of an object that is gone may be given to a
/// later one: who drops an object forgets what events said of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId(usize);

impl ObjectId {
    /// The raw object's address is the only name that every driver gives; here it is a number, and nothing is reached through it.
    pub(crate) fn of<T>(raw: *mut T) -> Self {
        Self(raw.addr())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What an event happened to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Element {
    /// The device.
    Device,
    /// A port, by its number.
    Port(u32),
    /// A queue pair, by its number, which no other has as long as it exists.
    QueuePair(u32),
    /// A completion queue: [`CompletionQueue::id`](crate::cq::CompletionQueue::id).
    CompletionQueue(ObjectId),
    /// A shared receive queue: [`SharedReceiveQueue::id`](crate::srq::SharedReceiveQueue::id).
    SharedReceiveQueue(ObjectId),
    /// A work queue, by its number.
    WorkQueue(u32),
    /// Of an event that this version does not know: the number that came with it.
    Unknown(i32),
}

/// An event: plain data, acknowledged already.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[doc(alias = "ibv_async_event")]
pub struct AsyncEvent {
    /// What happened.
    pub event_type: AsyncEventType,
    /// To what.
    pub element: Element,
}

impl fmt::Display for AsyncEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event_type;
        match self.element {
            Element::Device => write!(f, "{event}"),
            Element::Port(number) => write!(f, "port {number}: {event}"),
            Element::QueuePair(number) => write!(f, "queue pair {number:#x}: {event}"),
            Element::CompletionQueue(id) => write!(f, "completion queue {id:?}: {event}"),
            Element::SharedReceiveQueue(id) => write!(f, "shared receive queue {id:?}: {event}"),
            Element::WorkQueue(number) => write!(f, "work queue {number:#x}: {event}"),
            Element::Unknown(number) => write!(f, "{event} ({number})"),
        }
    }
}

/// The stream of a device's events. `Clone` is another handle to the same; `Send` and `Sync`.
///
/// A device that is opened once has one stream, however many handles there are: each event goes to one caller. Who needs an event in
/// several places takes it in one and passes it on, or opens the device again: every opened device hears of ports and of the device,
/// and each only of its own queues and queue pairs. Events wait in the kernel until they are taken; those of an object go with
/// it.
///
/// For an event loop: register the descriptor (`AsFd`, readable while an event waits), and call [`event`](Self::event) until it says
/// nothing.
#[derive(Clone)]
#[doc(alias = "ibv_get_async_event")]
pub struct AsyncEvents {
    context: Context,
}

impl Context {
    /// The stream of this opened device's events (ibv_get_async_event(3)). Its descriptor does not block from here on, also for other
    /// users of a device that came from elsewhere.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a device without events; [`Error::Call`] when the descriptor cannot be set.
    pub fn async_events(&self) -> Result<AsyncEvents> {
        // SAFETY: the context is open, and the field is written by nobody.
        if unsafe { (*self.as_raw()).async_fd } < 0 {
            return Err(Error::Unsupported { what: "asynchronous events", object: self.name().to_owned() });
        }
        let events = AsyncEvents { context: self.clone() };
        let failed = |errno: rustix::io::Errno| Error::call("fcntl", self.name(), errno.raw_os_error());
        let flags = fcntl_getfl(&events).map_err(failed)?;
        fcntl_setfl(&events, flags | OFlags::NONBLOCK).map_err(failed)?;
        Ok(events)
    }
}

impl AsyncEvents {
    /// The device.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// An event, if one waits. Never blocks: what it takes is acknowledged before it returns.
    ///
    /// # Errors
    /// [`Error::Call`] when the device is gone (`EIO`).
    #[doc(alias = "ibv_get_async_event")]
    #[doc(alias = "ibv_ack_async_event")]
    pub fn event(&self) -> Result<Option<AsyncEvent>> {
        let mut raw = sys::ibv_async_event {
            element: sys::ibv_async_event_element { cq: std::ptr::null_mut() },
            event_type: sys::IbvEventType(0),
        };
        // SAFETY: the context is open, the place a local, and the descriptor does not block.
        let answer = unsafe { (self.context.table().ibv_get_async_event)(self.context.as_raw(), &mut raw) };
        if let Err(errno) = sys::Errno::check(answer) {
            return match errno.0 {
                libc::EAGAIN | libc::EINTR => Ok(None),
                number => Err(Error::call("ibv_get_async_event", self.context.name(), number)),
            };
        }
        // SAFETY: the event was just got and is not acknowledged: the library keeps its object until it is.
        let event = unsafe { read(&raw) };
        // SAFETY: got once, acknowledged once.
        unsafe { (self.context.table().ibv_ack_async_event)(&mut raw) };
        Ok(Some(event))
    }

    /// Waits for an event; nothing when none came in time. `None` waits for ever. Signals do not end it.
    ///
    /// Several threads may wait: each event goes to one of them.
    ///
    /// # Errors
    /// As [`event`](Self::event); [`Error::Call`] when the system cannot wait.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<AsyncEvent>> {
        crate::wait::until(self, "asynchronous events of a device", timeout, || self.event())
    }
}

/// What the library says, as data.
///
/// # Safety
/// The event was got and is not acknowledged yet.
unsafe fn read(raw: &sys::ibv_async_event) -> AsyncEvent {
    let event_type = AsyncEventType::from_raw(raw.event_type.0);
    let element = &raw.element;
    // SAFETY: the type says which member is valid (ibv_get_async_event(3)), and an object that is named is kept until the
    // acknowledgement; the union was zero before, so its number is initialised in every case.
    let element = unsafe {
        match event_type {
            AsyncEventType::COMPLETION_QUEUE_ERROR => Element::CompletionQueue(ObjectId::of(element.cq)),
            AsyncEventType::SHARED_RECEIVE_QUEUE_ERROR | AsyncEventType::SHARED_RECEIVE_QUEUE_LIMIT => {
                Element::SharedReceiveQueue(ObjectId::of(element.srq))
            }
            AsyncEventType::WORK_QUEUE_FATAL => Element::WorkQueue((*element.wq).wq_num),
            AsyncEventType::QUEUE_PAIR_FATAL
            | AsyncEventType::QUEUE_PAIR_REQUEST_ERROR
            | AsyncEventType::QUEUE_PAIR_ACCESS_ERROR
            | AsyncEventType::COMMUNICATION_ESTABLISHED
            | AsyncEventType::SEND_QUEUE_DRAINED
            | AsyncEventType::PATH_MIGRATED
            | AsyncEventType::PATH_MIGRATION_ERROR
            | AsyncEventType::LAST_REQUEST_REACHED => Element::QueuePair((*element.qp).qp_num),
            AsyncEventType::DEVICE_FATAL => Element::Device,
            AsyncEventType::PORT_ACTIVE
            | AsyncEventType::PORT_ERROR
            | AsyncEventType::LID_CHANGE
            | AsyncEventType::PKEY_CHANGE
            | AsyncEventType::SUBNET_MANAGER_CHANGE
            | AsyncEventType::CLIENT_REREGISTER
            | AsyncEventType::GID_CHANGE
            | AsyncEventType::SPEED_CHANGE => Element::Port(element.port_num.cast_unsigned()),
            _ => Element::Unknown(element.port_num),
        }
    };
    AsyncEvent { event_type, element }
}

impl AsFd for AsyncEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the device's own descriptor, open as long as the device is, which the borrow holds; it is not negative, as
        // `async_events` has checked.
        unsafe { BorrowedFd::borrow_raw((*self.context.as_raw()).async_fd) }
    }
}

impl fmt::Debug for AsyncEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsyncEvents of {}", self.context.name())
    }
}
