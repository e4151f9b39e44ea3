//! Opened devices: the table of functions that each carries.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::{Fault, Kind};
use crate::notify::Notifier;
use crate::object::handle::{Entered, enter, hand_out, minus_one, pointer};
use crate::object::{cq, dm, flow, mr, mw, pd, post, qp, query, srq, tuning};
use crate::options::DeviceOptions;
use crate::world::{Context, State};
use core::ffi::c_int;
use sinew_verbs_sys as sys;
use std::collections::VecDeque;

pub(crate) unsafe extern "C" fn open(device: *mut sys::ibv_device) -> *mut sys::ibv_context {
    // SAFETY: the caller's promise: a device of a list of ours.
    pointer(unsafe { enter(device, Call::OpenDevice) }.and_then(|entered| open_device(entered, device)))
}

fn open_device(mut entered: Entered, device: *mut sys::ibv_device) -> Result<*mut sys::ibv_context, c_int> {
    let Entered { world, state, id } = &mut entered;
    let index = state.devices.iter().position(|device| device.id == *id).ok_or(libc::ENODEV)?;
    let notifier = Notifier::new()?;
    let options = &state.devices[index].options;
    let mut whole = extended(options);
    whole.context.device = device;
    whole.context.ops = ops(options);
    whole.context.cmd_fd = -1;
    whole.context.async_fd = notifier.descriptor();
    whole.context.num_comp_vectors = 4;
    let id = state.next_id();
    state.contexts.insert(id, Context { device: index, notifier, events: VecDeque::new() });
    Ok(hand_out(world, state, Kind::Context, id, whole))
}

fn ops(options: &DeviceOptions) -> sys::ibv_context_ops {
    let mut ops = sys::ibv_context_ops::zeroed();
    ops.poll_cq = Some(cq::poll);
    ops.req_notify_cq = Some(cq::request_notify);
    ops.post_send = Some(post::send);
    ops.post_recv = Some(post::receive);
    ops.post_srq_recv = Some(post::srq_receive);
    if options.memory_windows {
        ops.alloc_mw = Some(mw::alloc);
        ops.bind_mw = Some(mw::bind);
        ops.dealloc_mw = Some(mw::dealloc);
    }
    ops
}

fn extended(options: &DeviceOptions) -> sys::verbs_context {
    let mut whole = sys::verbs_context::zeroed();
    whole.sz = size_of::<sys::verbs_context>();
    if !options.extended {
        return whole;
    }
    whole.context.abi_compat = sys::VERBS_ABI_IS_EXTENDED;
    whole.query_device_ex = Some(query::device_ex);
    whole.query_port = Some(query::port_ex);
    whole.query_rt_values = Some(query::rt_values);
    whole.alloc_td = Some(pd::alloc_td);
    whole.dealloc_td = Some(pd::dealloc_td);
    whole.alloc_parent_domain = Some(pd::alloc_parent);
    whole.advise_mr = Some(mr::advise);
    whole.alloc_null_mr = Some(mr::alloc_null);
    whole.modify_cq = Some(cq::modify);
    whole.modify_qp_rate_limit = Some(tuning::limit_rate);
    whole.get_srq_num = Some(srq::num);
    whole.create_srq_ex = Some(srq::create_ex);
    whole.open_xrcd = Some(pd::open_xrcd);
    whole.close_xrcd = Some(pd::close_xrcd);
    whole.ibv_create_flow = Some(flow::create);
    whole.ibv_destroy_flow = Some(flow::destroy);
    if options.device_memory > 0 {
        whole.alloc_dm = Some(dm::alloc);
        whole.free_dm = Some(dm::free);
        whole.reg_dm_mr = Some(dm::register);
    }
    if options.extended_cq {
        whole.create_cq_ex = Some(cq::create_ex);
    }
    if options.extended_qp {
        whole.create_qp_ex = Some(qp::create_ex);
    }
    whole
}

pub(crate) unsafe extern "C" fn close(context: *mut sys::ibv_context) -> c_int {
    // SAFETY: the caller's promise: a context of this device.
    let entered = unsafe { enter(context, Call::CloseDevice) };
    minus_one(entered.map(|mut entered| entered.state.close(entered.id)))
}

impl State {
    fn close(&mut self, context: u32) {
        let of_pd = |pd: &u32| self.pds.get(pd).is_some_and(|pd| pd.context == context);
        let count = self.pds.values().filter(|pd| pd.context == context).count()
            + self.mrs.values().filter(|mr| of_pd(&mr.pd)).count()
            + self.cqs.values().filter(|cq| cq.context == context).count()
            + self.channels.values().filter(|channel| channel.context == context).count()
            + self.qps.values().filter(|qp| qp.context == context).count();
        if count > 0 {
            self.faults.push(Fault::ClosedWithObjects { handle: context, count });
        }
        self.contexts.remove(&context);
        self.live.remove(&context);
    }
}
