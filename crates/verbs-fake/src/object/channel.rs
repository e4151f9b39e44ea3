//! Completion channels.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::{Fault, Kind};
use crate::notify::{Notifier, wait_readable};
use crate::object::handle::{enter, find, hand_out, minus_one, number, pointer};
use crate::world::{Channel, State};
use core::ffi::{c_int, c_uint, c_void};
use sinew_verbs_sys as sys;
use std::collections::VecDeque;

pub(crate) unsafe extern "C" fn create(context: *mut sys::ibv_context) -> *mut sys::ibv_comp_channel {
    // SAFETY: the caller's promise: a context of this device.
    pointer(unsafe { enter(context, Call::CreateCompChannel) }.and_then(|mut entered| {
        let notifier = Notifier::new()?;
        let channel = sys::ibv_comp_channel { context, fd: notifier.descriptor(), refcnt: 0 };
        let id = entered.state.next_id();
        entered.state.channels.insert(id, Channel { context: entered.id, notifier, events: VecDeque::new() });
        Ok(hand_out(entered.world, &mut entered.state, Kind::CompletionChannel, id, channel))
    }))
}

pub(crate) unsafe extern "C" fn destroy(channel: *mut sys::ibv_comp_channel) -> c_int {
    // SAFETY: the caller's promise: a channel of this device.
    number(unsafe { enter(channel, Call::DestroyCompChannel) }.and_then(|mut entered| {
        let id = entered.id;
        if entered.state.cqs.values().any(|cq| cq.channel == Some(id)) {
            return Err(libc::EBUSY);
        }
        entered.state.channels.remove(&id);
        entered.state.live.remove(&id);
        Ok(())
    }))
}

impl State {
    /// Takes the next event: the queue's handle.
    fn next_cq_event(&mut self, channel: u32) -> Result<Option<u32>, c_int> {
        let channel = self.channels.get_mut(&channel).ok_or(libc::EINVAL)?;
        let event = channel.events.pop_front();
        channel.notifier.set(!channel.events.is_empty());
        if let Some(cq) = event.and_then(|cq| self.cqs.get_mut(&cq)) {
            cq.unacked += 1;
        }
        Ok(event)
    }

    /// Forgets events of a queue that is destroyed.
    pub(crate) fn forget_cq_events(&mut self, cq: u32) {
        for channel in self.channels.values_mut() {
            channel.events.retain(|of| *of != cq);
            channel.notifier.set(!channel.events.is_empty());
        }
    }
}

pub(crate) unsafe extern "C" fn event(
    channel: *mut sys::ibv_comp_channel,
    cq: *mut *mut sys::ibv_cq,
    cq_context: *mut *mut c_void,
) -> c_int {
    loop {
        // SAFETY: the caller's promise: a channel of this device.
        let taken = unsafe { enter(channel, Call::GetCqEvent) }.and_then(|mut entered| {
            let event = entered.state.next_cq_event(entered.id)?;
            Ok(event.map(|cq| entered.state.pointer::<sys::ibv_cq>(cq)))
        });
        match taken {
            Ok(Some(found)) => {
                // SAFETY: the caller's promise: places for both; the queue was given out and is never freed.
                unsafe {
                    cq.write(found);
                    cq_context.write((*found).cq_context);
                }
                return 0;
            }
            Ok(None) => {}
            Err(errno) => return minus_one(Err(errno)),
        }
        // SAFETY: as above; the descriptor does not change.
        if let Err(errno) = wait_readable(unsafe { (*channel).fd }) {
            return minus_one(Err(errno));
        }
    }
}

pub(crate) unsafe extern "C" fn acknowledge(cq: *mut sys::ibv_cq, count: c_uint) {
    // SAFETY: the caller's promise: a queue of this device.
    let Ok(mut entered) = (unsafe { enter(cq, Call::AckCqEvents) }) else { return };
    // SAFETY: as above.
    let handle = unsafe { find(cq) }.1;
    let Some(queue) = entered.state.cqs.get_mut(&handle) else { return };
    let too_many = count > queue.unacked;
    queue.unacked = queue.unacked.saturating_sub(count);
    if too_many {
        entered.state.faults.push(Fault::TooManyAcknowledged { kind: Kind::CompletionQueue, handle });
    }
}
