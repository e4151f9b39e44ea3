//! A queue pair: posted to, changed, asked, destroyed.
#![allow(unsafe_code)]

use super::attributes::Attributes;
use super::flow::Flows;
use super::multicast::{Groups, raw_gid};
use super::service::{Operations, Service};
use super::state::{AttributeMask, ServiceType, State, diagnose};
use crate::cq::{CompletionQueue, Reservation};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::srq::SharedReceiveQueue;
use sinew_verbs_sys as sys;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A queue pair of service `S`. `Send` and `Sync`; posting takes it mutably, so one thread posts at a time. Destroyed when it is dropped, on
/// whichever thread, before its queues, domain and device, which it holds; it leaves its groups, and ends its rules of steering, before.
///
/// Posting is `unsafe` here: memory and number of each request are the caller's. A [`Hub`](crate::Hub), a [`Pipe`](crate::hub::Pipe) or a
/// [`Channel`](crate::Channel) keeps the memory, and is safe.
#[doc(alias = "ibv_qp")]
pub struct QueuePair<S: Service> {
    pub(super) pair: ManuallyDrop<Pair>,
    service: PhantomData<fn() -> S>,
}

/// What a queue pair is, whichever its service.
pub(super) struct Pair {
    qp: NonNull<sys::ibv_qp>,
    /// The same, where it was made for extended posting.
    pub(super) extended: Option<NonNull<sys::ibv_qp_ex>>,
    pub(super) operations: Operations,
    pub(super) depths: Depths,
    send: Reservation,
    receive: Reservation,
    shared: Option<SharedReceiveQueue>,
    /// Not in here itself, as queue pairs are moved about.
    bound: Box<Bound>,
    /// Whether a hub or a pipe counts its requests.
    is_kept: AtomicBool,
    pd: ProtectionDomain,
}

/// What has states: changed step by step, as a [`Plan`](super::Plan) says.
pub(crate) trait Stepped {
    fn context(&self) -> &Context;
    fn number(&self) -> u32;
    fn service_type(&self) -> ServiceType;
    /// To any state.
    fn change(&self, attributes: &Attributes) -> Result<()>;
}

impl<S: Service> Stepped for QueuePair<S> {
    fn context(&self) -> &Context {
        self.pair.context()
    }

    fn number(&self) -> u32 {
        self.number()
    }

    fn service_type(&self) -> ServiceType {
        S::TYPE
    }

    fn change(&self, attributes: &Attributes) -> Result<()> {
        // SAFETY: the queue pair is alive, and the calls are its own.
        unsafe { change(self.pair.context(), self.as_raw(), &self.pair.bound.calls, S::TYPE, attributes) }
    }
}

/// Calls that change one queue pair or ask it, one at a time: libibverbs, and some drivers, write into the object then (`ibv_qp::state`) without a
/// lock.
#[derive(Default)]
pub(super) struct Calls(Mutex<()>);

impl Calls {
    /// Nobody else changes or asks the queue pair as long as this is held.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a queue pair is called in errors.
///
/// # Safety
/// It is alive.
pub(super) unsafe fn named(context: &Context, qp: *mut sys::ibv_qp) -> String {
    // SAFETY: by the caller's promise; nobody writes the field.
    format!("queue pair {:#x} of {}", unsafe { (*qp).qp_num }, context.name())
}

/// Changes a queue pair. The device's "invalid" is explained by the specification's table of states.
///
/// # Safety
/// It is alive and of this context, and the calls are its own.
pub(super) unsafe fn change(
    context: &Context,
    qp: *mut sys::ibv_qp,
    calls: &Calls,
    service: ServiceType,
    attributes: &Attributes,
) -> Result<()> {
    let mut raw = *attributes.as_raw();
    let mask = attributes.mask();
    let alone = calls.alone();
    // SAFETY: by the caller's promise, and nobody else changes it meanwhile; the attributes are a local. Whatever state it goes to, the device touches
    // memory of posted requests only.
    let answer = unsafe { (context.table().ibv_modify_qp)(qp, &mut raw, mask.bits() as i32) };
    drop(alone);
    sys::Errno::check(answer).map_err(|errno| {
        // SAFETY: by the caller's promise.
        let now = unsafe { query(context, qp, calls, AttributeMask::STATE) };
        match now.ok().and_then(|attributes| attributes.state()) {
            Some(current) => {
                let next = attributes.state().unwrap_or(current);
                let routed = attributes.is_routed();
                Error::Transition(diagnose(service, current, next, mask, routed, errno.0))
            }
            // SAFETY: by the caller's promise.
            None => Error::call("ibv_modify_qp", unsafe { named(context, qp) }, errno.0),
        }
    })
}

/// What the device says of a queue pair, of what the mask asks for.
///
/// # Safety
/// It is alive and of this context, and the calls are its own.
pub(super) unsafe fn query(
    context: &Context,
    qp: *mut sys::ibv_qp,
    calls: &Calls,
    mask: AttributeMask,
) -> Result<Attributes> {
    let mut raw = sys::ibv_qp_attr::zeroed();
    let mut made = sys::ibv_qp_init_attr::zeroed();
    let _alone = calls.alone();
    // SAFETY: by the caller's promise, and nobody else changes it meanwhile; both places are locals.
    let answer = unsafe { (context.table().ibv_query_qp)(qp, &mut raw, mask.bits() as i32, &mut made) };
    sys::Errno::check(answer).map_err(|errno| {
        // SAFETY: by the caller's promise.
        Error::call("ibv_query_qp", unsafe { named(context, qp) }, errno.0)
    })?;
    Ok(Attributes::from_raw(raw, mask))
}

/// What a device refuses to destroy a queue pair under, which ends before, and who changes it.
#[derive(Default)]
struct Bound {
    groups: Groups,
    flows: Flows,
    calls: Calls,
}

/// How deep and how wide a queue pair is: as it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Depths {
    /// Requests in the send queue.
    pub send: u32,
    /// Requests in the receive queue; 0 with a shared one.
    pub receive: u32,
    /// Elements in a send request.
    pub send_elements: u32,
    /// Elements in a receive.
    pub receive_elements: u32,
    /// Bytes that an inline request carries; what the device gave.
    pub inline: u32,
}

// SAFETY: a queue pair may be used and destroyed by any thread; drivers lock it.
unsafe impl Send for Pair {}
// SAFETY: shared references change and ask it, one call at a time (`Calls`, and the locks of groups and flows); what else they reach nobody writes.
unsafe impl Sync for Pair {}

impl Pair {
    fn context(&self) -> &Context {
        self.pd.context()
    }

    /// Tells the device to forget it.
    fn destroy(&self) -> std::result::Result<(), sys::Errno> {
        self.bound.groups.leave_all(|gid, lid| {
            let raw = raw_gid(gid);
            // SAFETY: made by us, not destroyed yet; the address is a local.
            sys::Errno::check(unsafe {
                (self.pd.table().ibv_detach_mcast)(self.qp.as_ptr(), &raw const raw, lid)
            })
        });
        // SAFETY: the device is open as long as the domain is held.
        unsafe { self.bound.flows.end_all() };
        // SAFETY: made by us; called until it succeeded once.
        sys::Errno::check(unsafe { (self.pd.table().ibv_destroy_qp)(self.qp.as_ptr()) })
    }
}

impl<S: Service> QueuePair<S> {
    pub(super) fn new(
        pd: &ProtectionDomain,
        qp: NonNull<sys::ibv_qp>,
        extended: Option<NonNull<sys::ibv_qp_ex>>,
        operations: Operations,
        depths: Depths,
        (send, receive): (Reservation, Reservation),
        shared: Option<SharedReceiveQueue>,
    ) -> Self {
        let bound = Box::default();
        let is_kept = AtomicBool::new(false);
        let pd = pd.clone();
        let pair = Pair { qp, extended, operations, depths, send, receive, shared, bound, is_kept, pd };
        Self { pair: ManuallyDrop::new(pair), service: PhantomData }
    }

    /// Its number, which peers name.
    #[must_use]
    pub fn number(&self) -> u32 {
        // SAFETY: the queue pair is alive, and nobody writes the field.
        unsafe { (*self.as_raw()).qp_num }
    }

    /// The raw queue pair; it stays as long as this value.
    #[must_use]
    pub fn as_raw(&self) -> *mut sys::ibv_qp {
        self.pair.qp.as_ptr()
    }

    /// The raw extended queue pair, where it was made as one.
    #[must_use]
    pub fn as_raw_extended(&self) -> Option<*mut sys::ibv_qp_ex> {
        self.pair.extended.map(NonNull::as_ptr)
    }

    /// What it was made for, as far as the device has it.
    #[must_use]
    pub fn operations(&self) -> Operations {
        self.pair.operations
    }

    /// How deep it is.
    #[must_use]
    pub fn depths(&self) -> Depths {
        self.pair.depths
    }

    /// The domain it is of.
    #[must_use]
    pub fn protection_domain(&self) -> &ProtectionDomain {
        &self.pair.pd
    }

    /// Where its sends complete.
    #[must_use]
    pub fn send_completion_queue(&self) -> &CompletionQueue {
        self.pair.send.queue()
    }

    /// Where its receives complete.
    #[must_use]
    pub fn receive_completion_queue(&self) -> &CompletionQueue {
        self.pair.receive.queue()
    }

    /// The shared queue that its receives come from, if they do.
    #[must_use]
    pub fn shared_receive_queue(&self) -> Option<&SharedReceiveQueue> {
        self.pair.shared.as_ref()
    }

    pub(super) fn groups(&self) -> &Groups {
        &self.pair.bound.groups
    }

    pub(super) fn flows(&self) -> &Flows {
        &self.pair.bound.flows
    }

    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.pair.bound.calls.alone()
    }

    pub(super) fn object(&self) -> String {
        // SAFETY: the queue pair is alive.
        unsafe { named(self.pair.context(), self.as_raw()) }
    }

    /// Changes it. The device's "invalid" is explained by the specification's table of states.
    ///
    /// # Errors
    /// [`Error::Transition`] when the step is refused, with what is missing or does not belong; [`Error::Invalid`] for RESET of a queue pair of a hub or a pipe,
    /// whose requests that are out would be lost there, and then taken for done when later ones are.
    #[doc(alias = "ibv_modify_qp")]
    pub fn modify(&self, attributes: &Attributes) -> Result<()> {
        if attributes.state() == Some(State::RESET) && self.pair.is_kept.load(Ordering::Relaxed) {
            return Err(Error::invalid(
                "queue pair of a hub or a pipe",
                "in RESET its requests would be lost, and the hub or the pipe would not know",
                "use `Hub::reset` or `Pipe::reset`, or make a new one",
            ));
        }
        Stepped::change(self, attributes)
    }

    /// A hub or a pipe counts its requests from here on.
    pub(crate) fn set_kept(&self) {
        self.pair.is_kept.store(true, Ordering::Relaxed);
    }

    /// What the device says of it, of what the mask asks for; some devices say more.
    ///
    /// # Errors
    /// [`Error::Call`] from the device.
    #[doc(alias = "ibv_query_qp")]
    pub fn query(&self, mask: AttributeMask) -> Result<Attributes> {
        // SAFETY: the queue pair is alive, and the calls are its own.
        unsafe { query(self.pair.context(), self.as_raw(), &self.pair.bound.calls, mask) }
    }

    /// The state that it is in, by the device.
    ///
    /// # Errors
    /// [`Error::Call`] from the device.
    pub fn state(&self) -> Result<State> {
        let attributes = self.query(AttributeMask::STATE)?;
        Ok(attributes.state().unwrap_or(State::ERR))
    }

    /// Its service, as the number of the ABI.
    #[must_use]
    pub fn service_type(&self) -> ServiceType {
        S::TYPE
    }

    /// To the error state: everything that is out is flushed, completes with an error.
    ///
    /// # Errors
    /// [`Error::Transition`] when the device refuses.
    pub fn fail(&self) -> Result<()> {
        self.modify(&Attributes::new().set_state(State::ERR))
    }

    /// Destroys it: when this succeeds, the device touches nothing of its requests any more.
    ///
    /// # Errors
    /// Itself, when the device refuses.
    #[doc(alias = "ibv_destroy_qp")]
    pub fn destroy(self) -> std::result::Result<(), (Self, Error)> {
        match self.pair.destroy() {
            Ok(()) => {
                let mut this = ManuallyDrop::new(self);
                // SAFETY: `this` is not dropped, so its parts are dropped once, here, after the device forgot it.
                unsafe { ManuallyDrop::drop(&mut this.pair) };
                Ok(())
            }
            Err(errno) => {
                let error = Error::call("ibv_destroy_qp", self.object(), errno.0);
                Err((self, error))
            }
        }
    }
}

impl<S: Service> Drop for QueuePair<S> {
    fn drop(&mut self) {
        match self.pair.destroy() {
            // SAFETY: dropped once, here, after the device forgot it.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.pair) },
            // Its queues, its domain and the device stay for ever: they are not dropped.
            Err(errno) => {
                let object = self.object();
                self.pair.context().library().leaked("ibv_destroy_qp", &object, errno.0);
            }
        }
    }
}

impl<S: Service> fmt::Debug for QueuePair<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueuePair({:?}, {:#x} of {})", S::TYPE, self.number(), self.pair.context().name())
    }
}
