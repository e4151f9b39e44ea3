//! Completion queues: made, resized, armed, polled as of old, destroyed. Extended polling is in `cq_ex.rs`.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::{Fault, Kind};
use crate::object::cq_ex;
use crate::object::handle::{Entered, enter, find, hand_out, id_of, number, pointer};
use crate::request::Completion;
use crate::world::{Armed, Cq, Guard, State, World};
use core::ffi::{c_int, c_void};
use sinew_verbs_sys as sys;
use std::collections::VecDeque;

/// What a queue is made of.
struct Wanted {
    cqe: u32,
    cq_context: *mut c_void,
    channel: *mut sys::ibv_comp_channel,
    comp_vector: u32,
    wc_flags: u64,
    single_threaded: bool,
}

pub(crate) unsafe extern "C" fn create(
    context: *mut sys::ibv_context,
    cqe: c_int,
    cq_context: *mut c_void,
    channel: *mut sys::ibv_comp_channel,
    comp_vector: c_int,
) -> *mut sys::ibv_cq {
    // SAFETY: the caller's promise: a context of this device.
    pointer(unsafe { enter(context, Call::CreateCq) }.and_then(|entered| {
        let cqe = u32::try_from(cqe).map_err(|_| libc::EINVAL)?;
        let comp_vector = u32::try_from(comp_vector).map_err(|_| libc::EINVAL)?;
        let wanted = Wanted { cqe, cq_context, channel, comp_vector, wc_flags: 0, single_threaded: false };
        // SAFETY: as above; the channel is null or of this device.
        let cq = unsafe { make(entered, context, &wanted)? };
        Ok(cq.cast())
    }))
}

pub(crate) unsafe extern "C" fn create_ex(
    context: *mut sys::ibv_context,
    attr: *mut sys::ibv_cq_init_attr_ex,
) -> *mut sys::ibv_cq_ex {
    // SAFETY: the caller's promise: a context of this device, and its attributes.
    pointer(unsafe { enter(context, Call::CreateCqEx) }.and_then(|entered| {
        // SAFETY: as above.
        let attr = unsafe { *attr };
        let masks = sys::IBV_CQ_INIT_ATTR_MASK_FLAGS | sys::IBV_CQ_INIT_ATTR_MASK_PD;
        if attr.comp_mask & !masks != 0 {
            return Err(libc::EINVAL);
        }
        let timestamps = entered.state.device_of(entered.id)?.options.timestamps;
        if attr.wc_flags & !cq_ex::known_flags(timestamps) != 0 {
            return Err(libc::EOPNOTSUPP);
        }
        let flags = if attr.comp_mask & sys::IBV_CQ_INIT_ATTR_MASK_FLAGS != 0 { attr.flags } else { 0 };
        let wanted = Wanted {
            cqe: attr.cqe,
            cq_context: attr.cq_context,
            channel: attr.channel,
            comp_vector: attr.comp_vector,
            wc_flags: attr.wc_flags,
            single_threaded: flags & sys::IBV_CREATE_CQ_ATTR_SINGLE_THREADED != 0,
        };
        // SAFETY: as above; the channel is null or of this device.
        unsafe { make(entered, context, &wanted) }
    }))
}

/// # Safety
/// The channel is null or of this device.
unsafe fn make(
    mut entered: Entered,
    context: *mut sys::ibv_context,
    wanted: &Wanted,
) -> Result<*mut sys::ibv_cq_ex, c_int> {
    let Entered { world, state, id } = &mut entered;
    let options = &state.device_of(*id)?.options;
    if wanted.cqe == 0 || wanted.cqe > options.max_cqe || wanted.comp_vector >= 4 {
        return Err(libc::EINVAL);
    }
    if state.cqs.len() >= options.max_cq as usize {
        return Err(libc::ENOMEM);
    }
    // SAFETY: the caller's promise.
    let channel = unsafe { id_of(wanted.channel) };
    let handle = state.next_id();
    let cq = Cq {
        context: *id,
        channel,
        size: wanted.cqe as usize,
        queue: VecDeque::new(),
        armed: Armed::No,
        single_threaded: wanted.single_threaded,
        poller: None,
        current: None,
        overrun: false,
        alterations: VecDeque::new(),
        unacked: 0,
        unacked_async: 0,
    };
    state.cqs.insert(handle, cq);
    let mut object = cq_ex::functions(wanted.wc_flags);
    (object.context, object.channel, object.cq_context) = (context, wanted.channel, wanted.cq_context);
    object.handle = handle;
    object.cqe = c_int::try_from(wanted.cqe).unwrap_or(c_int::MAX);
    Ok(hand_out(world, state, Kind::CompletionQueue, handle, object))
}

pub(crate) unsafe extern "C" fn resize(cq: *mut sys::ibv_cq, cqe: c_int) -> c_int {
    // SAFETY: the caller's promise: a queue of this device.
    number(unsafe { enter(cq, Call::ResizeCq) }.and_then(|mut entered| {
        let handle = entered.id;
        let context = entered.state.cqs.get(&handle).ok_or(libc::EINVAL)?.context;
        let max = entered.state.device_of(context)?.options.max_cqe as usize;
        let queue = entered.state.cqs.get_mut(&handle).ok_or(libc::EINVAL)?;
        let size = usize::try_from(cqe).map_err(|_| libc::EINVAL)?;
        if size == 0 || size > max || size < queue.queue.len() {
            return Err(libc::EINVAL);
        }
        queue.size = size;
        // SAFETY: as above; only this function writes the field.
        unsafe { (*cq).cqe = cqe };
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn modify(cq: *mut sys::ibv_cq, attr: *mut sys::ibv_modify_cq_attr) -> c_int {
    // SAFETY: the caller's promise: a queue of this device, and its attributes.
    number(unsafe { enter(cq, Call::ModifyCq) }.and_then(|_entered| {
        // SAFETY: as above.
        let mask = unsafe { (*attr).attr_mask };
        if mask & !sys::IBV_CQ_ATTR_MODERATE != 0 { Err(libc::EINVAL) } else { Ok(()) }
    }))
}

pub(crate) unsafe extern "C" fn destroy(cq: *mut sys::ibv_cq) -> c_int {
    // SAFETY: the caller's promise: a queue of this device.
    let entered = unsafe { enter(cq, Call::DestroyCq) };
    number(entered.and_then(|mut entered| entered.state.destroy_cq(entered.id)))
}

impl State {
    fn destroy_cq(&mut self, handle: u32) -> Result<(), c_int> {
        let of_shared = self.srqs.values().any(|srq| srq.extended.is_some_and(|(_, cq)| cq == handle));
        if of_shared || self.qps.values().any(|qp| qp.send_cq == handle || qp.recv_cq == handle) {
            return Err(libc::EBUSY);
        }
        let cq = self.cqs.get(&handle).ok_or(libc::EINVAL)?;
        if cq.poller.is_some() {
            self.faults.push(Fault::Deadlock { call: Call::DestroyCq, handle });
        }
        let count = cq.unacked + cq.unacked_async;
        if count > 0 {
            self.faults.push(Fault::UnacknowledgedEvents { kind: Kind::CompletionQueue, handle, count });
        }
        self.forget_cq_events(handle);
        self.forget_async_events(handle);
        self.cqs.remove(&handle);
        self.live.remove(&handle);
        Ok(())
    }

    /// Takes the first completion, and frees the places that it tells of.
    pub(crate) fn take_completion(&mut self, cq: u32) -> Option<Completion> {
        let completion = self.cqs.get_mut(&cq)?.queue.pop_front()?;
        if let Some(qp) = self.qps.get_mut(&completion.qp) {
            qp.sends_used = qp.sends_used.saturating_sub(completion.sends);
            qp.receives_used = qp.receives_used.saturating_sub(completion.receives);
        }
        if let Some(srq) = completion.srq.and_then(|srq| self.srqs.get_mut(&srq)) {
            srq.used = srq.used.saturating_sub(1);
        }
        Some(completion)
    }
}

/// Waits until nobody is between start and end of a poll. A thread that waits for itself is reported instead.
pub(crate) fn wait_for_poller(
    world: &'static World,
    mut state: Guard,
    handle: u32,
    call: Call,
) -> Result<Guard, c_int> {
    loop {
        let cq = state.cqs.get(&handle).ok_or(libc::EINVAL)?;
        match cq.poller {
            None => return Ok(state),
            // A queue for one thread has no lock: the second poll would spoil the first.
            Some(owner) if owner == std::thread::current().id() || cq.single_threaded => {
                state.faults.push(Fault::Deadlock { call, handle });
                return Err(libc::EDEADLK);
            }
            Some(_) => state = world.wait(state),
        }
    }
}

pub(crate) unsafe extern "C" fn poll(cq: *mut sys::ibv_cq, room: c_int, places: *mut sys::ibv_wc) -> c_int {
    // SAFETY: the caller's promise: a queue of this device.
    let taken = unsafe { enter(cq, Call::PollCq) }.and_then(|entered| {
        let handle = entered.id;
        let mut state = wait_for_poller(entered.world, entered.state, handle, Call::PollCq)?;
        state.before_poll(handle);
        let room = usize::try_from(room).map_err(|_| libc::EINVAL)?;
        let taken: Vec<_> =
            core::iter::from_fn(|| state.take_completion(handle)).take(room).map(|one| one.wc).collect();
        state.run();
        Ok(taken)
    });
    match taken {
        Ok(taken) => {
            // SAFETY: the caller's promise: there is room for so many.
            unsafe { core::ptr::copy_nonoverlapping(taken.as_ptr(), places, taken.len()) };
            c_int::try_from(taken.len()).unwrap_or(c_int::MAX)
        }
        Err(errno) => -errno,
    }
}

pub(crate) unsafe extern "C" fn request_notify(cq: *mut sys::ibv_cq, solicited_only: c_int) -> c_int {
    // SAFETY: the caller's promise: a queue of this device.
    let handle = unsafe { find(cq) }.1;
    // SAFETY: as above.
    number(unsafe { enter(cq, Call::ReqNotifyCq) }.and_then(|mut entered| {
        let cq = entered.state.cqs.get_mut(&handle).ok_or(libc::EINVAL)?;
        // Asked for both, it is armed for the wider one.
        cq.armed = match (cq.armed, solicited_only != 0) {
            (Armed::Any, _) | (_, false) => Armed::Any,
            _ => Armed::Solicited,
        };
        Ok(())
    }))
}
