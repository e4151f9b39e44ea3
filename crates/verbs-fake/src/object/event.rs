//! Asynchronous events.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::{Fault, Kind};
use crate::notify::wait_readable;
use crate::object::handle::{Object, enter, find, minus_one};
use crate::world::{About, Event, State};
use core::ffi::c_int;
use sinew_verbs_sys as sys;

impl State {
    fn next_async_event(&mut self, context: u32) -> Result<Option<Event>, c_int> {
        let context = self.contexts.get_mut(&context).ok_or(libc::EINVAL)?;
        let event = context.events.pop_front();
        context.notifier.set(!context.events.is_empty());
        if let Some(Event { about: About::Object(id), .. }) = event
            && let Some(count) = self.unacked_async(id)
        {
            *count += 1;
        }
        Ok(event)
    }

    /// Events of an object that were got and not acknowledged.
    fn unacked_async(&mut self, id: u32) -> Option<&mut u32> {
        match self.live.get(&id)? {
            Kind::QueuePair => self.qp(id).ok().map(|qp| &mut qp.unacked_async),
            Kind::CompletionQueue => self.cqs.get_mut(&id).map(|cq| &mut cq.unacked_async),
            Kind::SharedReceiveQueue => self.srqs.get_mut(&id).map(|srq| &mut srq.unacked_async),
            _ => None,
        }
    }

    /// Forgets events of an object that is destroyed.
    pub(crate) fn forget_async_events(&mut self, id: u32) {
        for context in self.contexts.values_mut() {
            context.events.retain(|event| event.about != About::Object(id));
            context.notifier.set(!context.events.is_empty());
        }
    }
}

pub(crate) unsafe extern "C" fn get(
    context: *mut sys::ibv_context,
    event: *mut sys::ibv_async_event,
) -> c_int {
    loop {
        // SAFETY: the caller's promise: a context of this device.
        let taken = unsafe { enter(context, Call::GetAsyncEvent) }.and_then(|mut entered| {
            let event = entered.state.next_async_event(entered.id)?;
            Ok(event.map(|event| described(&entered.state, event)))
        });
        match taken {
            Ok(Some(found)) => {
                // SAFETY: the caller's promise: a place for the event.
                unsafe { event.write(found) };
                return 0;
            }
            Ok(None) => {}
            Err(errno) => return minus_one(Err(errno)),
        }
        // SAFETY: as above; the descriptor does not change.
        if let Err(errno) = wait_readable(unsafe { (*context).async_fd }) {
            return minus_one(Err(errno));
        }
    }
}

fn described(state: &State, event: Event) -> sys::ibv_async_event {
    let mut all = sys::ibv_async_event::zeroed();
    all.event_type = event.kind;
    match event.about {
        About::Device => {}
        About::Port(port) => all.element.port_num = c_int::from(port),
        // The members are pointers of the same size at the same place.
        About::Object(id) => all.element.qp = state.pointer(id),
    }
    all
}

pub(crate) unsafe extern "C" fn acknowledge(event: *mut sys::ibv_async_event) {
    use sys::IbvEventType as Type;
    // SAFETY: the caller's promise: an event that was got, so that the type says which member is valid.
    unsafe {
        let event = *event;
        match event.event_type {
            Type::CQ_ERR => acknowledge_of(event.element.cq),
            Type::SRQ_ERR | Type::SRQ_LIMIT_REACHED => acknowledge_of(event.element.srq),
            Type::QP_FATAL
            | Type::QP_REQ_ERR
            | Type::QP_ACCESS_ERR
            | Type::COMM_EST
            | Type::SQ_DRAINED
            | Type::PATH_MIG
            | Type::PATH_MIG_ERR
            | Type::QP_LAST_WQE_REACHED => acknowledge_of(event.element.qp),
            _ => {}
        }
    }
}

/// # Safety
/// An object of this device.
unsafe fn acknowledge_of<T: Object>(object: *mut T) {
    // SAFETY: the caller's promise.
    let handle = unsafe { find(object) }.1;
    // SAFETY: as above.
    let Ok(mut entered) = (unsafe { enter(object, Call::AckAsyncEvent) }) else { return };
    let kind = entered.state.live.get(&handle).copied().unwrap_or(Kind::Device);
    match entered.state.unacked_async(handle) {
        Some(count) if *count > 0 => *count -= 1,
        _ => entered.state.faults.push(Fault::TooManyAcknowledged { kind, handle }),
    }
}
