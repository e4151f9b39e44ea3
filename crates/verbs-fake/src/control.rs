//! The test's side of a fake library: what fails, what waits, what was seen.

use crate::call::Call;
use crate::engine::complete::Arrival;
use crate::fault::{Alteration, Fault, Hold, Kind, Refusal, Touch};
use crate::request::{Completion, Piece, total};
use crate::slots;
use crate::world::{About, State, World};
use core::fmt;
use core::ops::Range;
use sinew_verbs_sys as sys;
use std::collections::BTreeMap;

/// Steers the devices of one fake library and tells what they saw.
///
/// Queue pairs are named by their numbers (`qp_num`), other objects by their `handle`. Every method may be called from any thread at
/// any time and returns at once.
pub struct Control {
    world: &'static World,
    place: usize,
}

impl Drop for Control {
    fn drop(&mut self) {
        slots::give_back(self.place);
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("live", &self.live()).finish_non_exhaustive()
    }
}

impl Control {
    pub(crate) fn new(world: &'static World, place: usize) -> Self {
        Self { world, place }
    }

    /// Lets calls of a function fail. Refusals of the same function count independently; the first that applies decides.
    pub fn refuse(&self, call: Call, refusal: Refusal) {
        self.world.lock().refusals.push((call, refusal));
    }

    /// Nothing is refused any more.
    pub fn refuse_nothing(&self) {
        self.world.lock().refusals.clear();
    }

    /// What a queue pair does not do from now on. [`Hold::NOTHING`] lets it go on, with what was kept back.
    pub fn hold(&self, qp_num: u32, hold: Hold) {
        self.world.lock().set_hold(qp_num, hold);
    }

    /// Goes on with everything that was held.
    pub fn release(&self, qp_num: u32) {
        self.hold(qp_num, Hold::NOTHING);
    }

    /// Reports so many of the completions that are kept back, in their order.
    pub fn release_some(&self, qp_num: u32, count: usize) {
        let mut state = self.world.lock();
        for _ in 0..count {
            let next = state.qps.get_mut(&qp_num).and_then(|qp| qp.withheld.pop_front());
            let Some((cq, completion)) = next else { return };
            state.push(cq, completion);
        }
    }

    /// All retries that can come to an end have come to it: requests that wait for a peer or a receive fail.
    pub fn time_passes(&self) {
        self.world.lock().exhaust_retries();
    }

    /// Changes the next completion of a completion queue; called more than once, those after it.
    pub fn alter_next(&self, cq_handle: u32, alteration: Alteration) {
        if let Some(cq) = self.world.lock().cqs.get_mut(&cq_handle) {
            cq.alterations.push_back(alteration);
        }
    }

    /// Puts a completion into a queue that is of no request. It frees no place.
    pub fn forge(&self, cq_handle: u32, wc: sys::ibv_wc) {
        let completion = Completion {
            wc,
            at: 0,
            solicited: true,
            is_send: false,
            qp: 0,
            sends: 0,
            receives: 0,
            srq: None,
            touches: Vec::new(),
        };
        self.world.lock().push(cq_handle, completion);
    }

    /// A message out of nothing: writes into the next receive of a queue pair and completes it, also where its device holds
    /// everything else. `false`: there is no receive that takes so much.
    pub fn inject(&self, qp_num: u32, bytes: &[u8], imm: Option<u32>) -> bool {
        let mut state = self.world.lock();
        let Some(pd) = state.qps.get(&qp_num).map(|qp| qp.pd) else { return false };
        let Some(receive) = state.take_receive(qp_num) else { return false };
        let fits = bytes.len() <= total(&receive.pieces) && state.scatter(pd, &receive.pieces, bytes).is_ok();
        let status = if fits { sys::IbvWcStatus::SUCCESS } else { sys::IbvWcStatus::LOC_LEN_ERR };
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        state.end_receive(qp_num, receive, status, Arrival { len, imm, ..Arrival::default() });
        fits
    }

    /// Writes a byte over all memory that the device may still write for requests under way, as a peer could at any time; none of
    /// them completes. Answers how many bytes it wrote.
    pub fn scribble(&self, byte: u8) -> usize {
        let mut state = self.world.lock();
        let mut written = 0;
        for (pd, piece) in state.writable() {
            if let Ok(span) = state.local(pd, &piece, true) {
                state.write(span, &vec![byte; span.len]);
                written += span.len;
            }
        }
        written
    }

    /// What requests under way may touch: those that were posted and of which no completion that tells of them was polled.
    #[must_use]
    pub fn in_flight(&self) -> Vec<Touch> {
        self.world.lock().in_flight()
    }

    /// Whether the device may still touch memory in this range for a request under way.
    #[must_use]
    pub fn may_touch<T>(&self, memory: Range<*const T>) -> bool {
        let (start, end) = (memory.start.addr(), memory.end.addr());
        self.in_flight().iter().any(|touch| touch.overlaps(start, end.saturating_sub(start)))
    }

    /// Whether a peer that has a key may still touch memory in this range.
    #[must_use]
    pub fn is_exposed<T>(&self, memory: Range<*const T>) -> bool {
        let (start, end) = (memory.start.addr(), memory.end.addr());
        self.world.lock().exposed().iter().any(|range| range.start < end && start < range.end)
    }

    /// The test says that this memory is now somebody else's: freed, or given back to safe code. When the device may still touch it,
    /// that is a fault.
    pub fn freed<T>(&self, memory: Range<*const T>) {
        let (start, end) = (memory.start.addr(), memory.end.addr());
        let mut state = self.world.lock();
        let touches: Vec<Touch> = state
            .in_flight()
            .into_iter()
            .filter(|touch| touch.overlaps(start, end.saturating_sub(start)))
            .collect();
        if !touches.is_empty() {
            state.faults.push(Fault::FreedInFlight { touches });
        }
    }

    /// Memory that was taken away or given back while the device could touch it.
    #[must_use]
    pub fn touches_after_free(&self) -> Vec<Touch> {
        let of = |fault: &Fault| match fault {
            Fault::FreedInFlight { touches } | Fault::DeregisteredInFlight { touches, .. } => touches.clone(),
            _ => Vec::new(),
        };
        self.world.lock().faults.iter().flat_map(of).collect()
    }

    /// What the program did wrongly, in order.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.world.lock().faults.clone()
    }

    /// The faults so far, which are then forgotten.
    #[must_use]
    pub fn take_faults(&self) -> Vec<Fault> {
        core::mem::take(&mut self.world.lock().faults)
    }

    /// How often a function was called, those included that failed.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.world.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// Objects that are there, by kind, without the devices themselves. Empty: nothing leaked.
    #[must_use]
    pub fn live(&self) -> BTreeMap<Kind, usize> {
        let mut count = BTreeMap::new();
        for kind in self.world.lock().live.values().filter(|kind| **kind != Kind::Device) {
            *count.entry(*kind).or_default() += 1;
        }
        count
    }

    /// Numbers of the queue pairs that are there, oldest first.
    #[must_use]
    pub fn queue_pairs(&self) -> Vec<u32> {
        self.world.lock().qps.keys().copied().collect()
    }

    /// Handles of the completion queues that are there, oldest first.
    #[must_use]
    pub fn completion_queues(&self) -> Vec<u32> {
        self.world.lock().cqs.keys().copied().collect()
    }

    /// Whether a lock of a queue is held: between start and end of a poll, or of a batch.
    #[must_use]
    pub fn locks_held(&self) -> bool {
        let state = self.world.lock();
        state.cqs.values().any(|cq| cq.poller.is_some()) || state.qps.values().any(|qp| qp.batch.is_some())
    }

    /// Puts a queue pair into the error state, as the device does when something breaks, with an event that says so.
    pub fn break_qp(&self, qp_num: u32) {
        let mut state = self.world.lock();
        if let Some((context, id)) = state.qps.get(&qp_num).map(|qp| (qp.context, qp.id)) {
            state.raise(context, sys::IbvEventType::QP_FATAL, About::Object(id));
            state.fail(qp_num);
            state.run();
        }
    }

    /// Changes the state of a port, numbered from 1, of a device, numbered from 0, with the event that devices raise.
    pub fn set_port(&self, device: usize, port: u8, to: sys::IbvPortState) {
        let mut state = self.world.lock();
        let index = usize::from(port).checked_sub(1);
        let Some(ports) = state.devices.get_mut(device).map(|device| &mut device.options.ports) else {
            return;
        };
        let Some(options) = index.and_then(|index| ports.get_mut(index)) else { return };
        options.state = to;
        let active = to == sys::IbvPortState::ACTIVE;
        let event = if active { sys::IbvEventType::PORT_ACTIVE } else { sys::IbvEventType::PORT_ERR };
        raise_on(&mut state, device, event, About::Port(port));
        state.run();
    }

    /// Raises an event of a device, numbered from 0, or of a port of it, on every context of it. Its type may be unknown.
    pub fn raise(&self, device: usize, event: sys::IbvEventType, port: Option<u8>) {
        let about = port.map_or(About::Device, About::Port);
        raise_on(&mut self.world.lock(), device, event, about);
    }
}

fn raise_on(state: &mut State, device: usize, event: sys::IbvEventType, about: About) {
    let of: Vec<u32> =
        state.contexts.iter().filter(|(_, context)| context.device == device).map(|(id, _)| *id).collect();
    for context in of {
        state.raise(context, event, about);
    }
}

impl State {
    /// Pieces that requests under way may write, each with the domain that its key is looked up in.
    fn writable(&self) -> Vec<(u32, Piece)> {
        let of_qps = self.qps.values().flat_map(|qp| {
            let receives = qp.receives.iter().flat_map(|receive| &receive.pieces);
            let answers =
                qp.sends.iter().filter(|send| send.is_answered()).flat_map(|send| send.data.pieces());
            receives.chain(answers).map(|piece| (qp.pd, *piece))
        });
        let of_srqs = self.srqs.values().flat_map(|srq| {
            srq.queue.iter().flat_map(|receive| &receive.pieces).map(|piece| (srq.pd, *piece))
        });
        of_qps.chain(of_srqs).collect()
    }
}
