//! Rules of steering: which frames reach which queue pair of raw packets. Of the layers that a rule names the device looks at Ethernet alone.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::engine::complete::Arrival;
use crate::fault::Kind;
use crate::object::handle::{enter, hand_out, number, pointer};
use crate::request::total;
use crate::world::{Flow, State};
use core::ffi::c_int;
use sinew_verbs_sys as sys;

/// The addresses and the type of a frame of Ethernet.
const HEAD: usize = 14;

pub(crate) unsafe extern "C" fn create(
    qp: *mut sys::ibv_qp,
    rule: *mut sys::ibv_flow_attr,
) -> *mut sys::ibv_flow {
    // SAFETY: the caller's promise: a queue pair of this device, and a rule.
    pointer(unsafe { enter(qp, Call::CreateFlow) }.and_then(|mut entered| {
        // SAFETY: as above.
        let (head, (value, mask)) = unsafe { (*rule, ethernet(rule)?) };
        let found = entered.state.qp(entered.id)?;
        if found.kind != sys::IbvQpType::RAW_PACKET {
            return Err(libc::EINVAL);
        }
        let (qp_num, context) = (State::qp_num(found.id), found.context);
        entered.state.port(context, u32::from(head.port))?;
        let id = entered.state.next_id();
        let flow =
            Flow { qp: qp_num, port: head.port, priority: head.priority, kind: head.r#type, mask, value };
        entered.state.flows.insert(id, flow);
        let mut object = sys::ibv_flow::zeroed();
        (object.context, object.handle) = (entered.state.pointer(context), id);
        Ok(hand_out(entered.world, &mut entered.state, Kind::Flow, id, object))
    }))
}

/// What the layer of Ethernet looks at; nothing without one.
///
/// # Safety
/// The rule's layers follow it as it says.
unsafe fn ethernet(rule: *const sys::ibv_flow_attr) -> Result<([u8; HEAD], [u8; HEAD]), c_int> {
    // SAFETY: the caller's promise.
    let (layers, size) = unsafe { ((*rule).num_of_specs, usize::from((*rule).size)) };
    let mut at = size_of::<sys::ibv_flow_attr>();
    let mut found = ([0; HEAD], [0; HEAD]);
    for _ in 0..layers {
        // SAFETY: the caller's promise: so many layers, each as long as it says.
        let layer = unsafe { rule.byte_add(at).cast::<sys::ibv_flow_spec_hdr>().read_unaligned() };
        let len = usize::from(layer.size);
        if len < size_of_val(&layer) || at + len > size {
            return Err(libc::EINVAL);
        }
        if layer.r#type == sys::IbvFlowSpecType::ETH && len == size_of::<sys::ibv_flow_spec_eth>() {
            // SAFETY: as above.
            let eth = unsafe { rule.byte_add(at).cast::<sys::ibv_flow_spec_eth>().read_unaligned() };
            found = (of(&eth.val), of(&eth.mask));
        }
        at += len;
    }
    if at == size { Ok(found) } else { Err(libc::EINVAL) }
}

/// As the fields lie in a frame.
fn of(fields: &sys::ibv_flow_eth_filter) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..6].copy_from_slice(&fields.dst_mac);
    head[6..12].copy_from_slice(&fields.src_mac);
    head[12..].copy_from_slice(&fields.ether_type.to_ne_bytes());
    head
}

pub(crate) unsafe extern "C" fn destroy(flow: *mut sys::ibv_flow) -> c_int {
    // SAFETY: the caller's promise: a rule of this device.
    number(unsafe { enter(flow, Call::DestroyFlow) }.map(|mut entered| {
        let id = entered.id;
        entered.state.flows.remove(&id);
        entered.state.live.remove(&id);
    }))
}

impl Flow {
    fn takes(&self, frame: &[u8]) -> bool {
        let fits = |at: usize| frame[at] & self.mask[at] == self.value[at] & self.mask[at];
        frame.len() >= HEAD && (0..HEAD).all(fits)
    }
}

impl State {
    /// Brings a frame to the queue pair of the first rule that takes it, at any port of the device: its ports are on one wire. One without a receive drops it.
    pub(crate) fn send_frame(&mut self, device: usize, frame: &[u8]) {
        let is_here = |flow: &&Flow| self.qps.get(&flow.qp).is_some_and(|qp| qp.device == device);
        let here = self.flows.values().filter(is_here);
        let normal = sys::IbvFlowAttrType::NORMAL;
        let taking = here.filter(|flow| flow.kind != normal || flow.takes(frame));
        let Some(first) = taking.min_by_key(|flow| (flow.kind != normal, flow.priority, flow.port)) else {
            return;
        };
        let number = first.qp;
        let Some(receive) = self.take_receive(number) else { return };
        let Some(pd) = self.qps.get(&number).map(|qp| qp.pd) else { return };
        let status = if frame.len() > total(&receive.pieces) {
            sys::IbvWcStatus::LOC_LEN_ERR
        } else if self.scatter(pd, &receive.pieces, frame).is_err() {
            sys::IbvWcStatus::LOC_PROT_ERR
        } else {
            sys::IbvWcStatus::SUCCESS
        };
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.end_receive(number, receive, status, Arrival { len, ..Arrival::default() });
    }
}
