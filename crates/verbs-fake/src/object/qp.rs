//! Queue pairs: made, changed, queried, destroyed, put into multicast groups.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::{Fault, Hold, Kind};
use crate::object::handle::{Entered, enter, find, hand_out, id_of, number, pointer};
use crate::object::{qp_state, tuning, wr};
use crate::world::{Qp, State};
use core::ffi::c_int;
use sinew_verbs_sys as sys;
use std::collections::VecDeque;

/// The handle of what is not there.
pub(crate) const NOTHING: u32 = 0;

/// What a queue pair is made of, by handles.
struct Wanted {
    init: sys::ibv_qp_init_attr,
    pd: *mut sys::ibv_pd,
    send_cq: u32,
    recv_cq: u32,
    srq: Option<u32>,
    operations: u64,
    /// By the functions of libefa, which make queue pairs of the driver's own type.
    by_efa: bool,
    /// Of the receiving side of an extended connection, which has neither domain nor queues.
    xrcd: Option<u32>,
}

/// # Safety
/// The objects that the attributes name are of this device.
unsafe fn wanted(
    init: sys::ibv_qp_init_attr,
    pd: *mut sys::ibv_pd,
    operations: u64,
    by_efa: bool,
) -> Result<Wanted, c_int> {
    // SAFETY: the caller's promise.
    let (send_cq, recv_cq, srq) = unsafe { (id_of(init.send_cq), id_of(init.recv_cq), id_of(init.srq)) };
    // What receives nothing needs no queue for it: it has its own name for none.
    let recv_cq = if init.qp_type == sys::IbvQpType::XRC_SEND { Some(NOTHING) } else { recv_cq };
    let (send_cq, recv_cq) = (send_cq.ok_or(libc::EINVAL)?, recv_cq.ok_or(libc::EINVAL)?);
    Ok(Wanted { init, pd, send_cq, recv_cq, srq, operations, by_efa, xrcd: None })
}

pub(crate) unsafe extern "C" fn create(
    pd: *mut sys::ibv_pd,
    init: *mut sys::ibv_qp_init_attr,
) -> *mut sys::ibv_qp {
    // SAFETY: the caller's promise: a domain of this device, and how to make it, of live objects.
    pointer(unsafe { enter(pd, Call::CreateQp) }.and_then(|entered| {
        // SAFETY: as above.
        let wanted = unsafe { wanted(*init, pd, 0, false)? };
        let pd_id = entered.id;
        let context = entered.state.context_of_pd(pd_id)?;
        make(entered, context, pd_id, &wanted)
    }))
}

pub(crate) unsafe extern "C" fn create_ex(
    context: *mut sys::ibv_context,
    init: *mut sys::ibv_qp_init_attr_ex,
) -> *mut sys::ibv_qp {
    // SAFETY: the caller's promise: a context of this device, and how to make it, of live objects.
    pointer(unsafe { enter(context, Call::CreateQpEx) }.and_then(|entered| {
        // SAFETY: as above.
        unsafe { make_extended(entered, &*init, false) }
    }))
}

/// # Safety
/// The attributes name live objects of this device.
pub(super) unsafe fn make_extended(
    entered: Entered,
    ex: &sys::ibv_qp_init_attr_ex,
    by_efa: bool,
) -> Result<*mut sys::ibv_qp, c_int> {
    if ex.qp_type == sys::IbvQpType::XRC_RECV {
        // SAFETY: the caller's promise.
        return unsafe { make_extended_receiver(entered, ex) };
    }
    let known = sys::IBV_QP_INIT_ATTR_PD | sys::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
    if ex.comp_mask & !known != 0 {
        return Err(libc::EOPNOTSUPP);
    }
    if ex.comp_mask & sys::IBV_QP_INIT_ATTR_PD == 0 || ex.pd.is_null() {
        return Err(libc::EINVAL);
    }
    let with_operations = ex.comp_mask & sys::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS != 0;
    let operations = if with_operations { ex.send_ops_flags } else { 0 };
    let legacy = sys::ibv_qp_init_attr {
        qp_context: ex.qp_context,
        send_cq: ex.send_cq,
        recv_cq: ex.recv_cq,
        srq: ex.srq,
        cap: ex.cap,
        qp_type: ex.qp_type,
        sq_sig_all: ex.sq_sig_all,
    };
    // SAFETY: the caller's promise.
    let (wanted, pd) = unsafe { (wanted(legacy, ex.pd, operations, by_efa)?, find(ex.pd).1) };
    let context = entered.state.context_of_pd(pd)?;
    make(entered, context, pd, &wanted)
}

/// # Safety
/// The attributes name live objects of this device.
unsafe fn make_extended_receiver(
    entered: Entered,
    ex: &sys::ibv_qp_init_attr_ex,
) -> Result<*mut sys::ibv_qp, c_int> {
    // SAFETY: the caller's promise.
    let xrcd = unsafe { id_of(ex.xrcd) };
    if ex.comp_mask != sys::IBV_QP_INIT_ATTR_XRCD || xrcd.is_none() {
        return Err(libc::EINVAL);
    }
    let mut init = sys::ibv_qp_init_attr::zeroed();
    (init.qp_context, init.qp_type) = (ex.qp_context, ex.qp_type);
    let wanted = Wanted {
        init,
        pd: core::ptr::null_mut(),
        send_cq: NOTHING,
        recv_cq: NOTHING,
        srq: None,
        operations: 0,
        by_efa: false,
        xrcd,
    };
    let context = entered.id;
    make(entered, context, NOTHING, &wanted)
}

/// A queue pair that only the functions of libefa make.
///
/// # Safety
/// The attributes name live objects of this device.
pub(super) unsafe fn make_driver(
    entered: Entered,
    pd: *mut sys::ibv_pd,
    init: sys::ibv_qp_init_attr,
) -> Result<*mut sys::ibv_qp, c_int> {
    // SAFETY: the caller's promise.
    let wanted = unsafe { wanted(init, pd, 0, true)? };
    let pd_id = entered.id;
    let context = entered.state.context_of_pd(pd_id)?;
    make(entered, context, pd_id, &wanted)
}

fn check_sizes(state: &State, context: u32, wanted: &Wanted) -> Result<(), c_int> {
    let options = &state.device_of(context)?.options;
    let cap = &wanted.init.cap;
    let with_queue = wanted.srq.is_none();
    let too_deep = cap.max_send_wr > options.max_qp_wr || (with_queue && cap.max_recv_wr > options.max_qp_wr);
    let too_wide = cap.max_send_sge > options.max_sge || (with_queue && cap.max_recv_sge > options.max_sge);
    let known: &[sys::IbvQpType] = match (options.efa.is_some(), wanted.by_efa) {
        (true, true) => &[sys::IbvQpType::UD, sys::IbvQpType::DRIVER],
        (true, false) => &[sys::IbvQpType::UD],
        (false, _) => &[
            sys::IbvQpType::RC,
            sys::IbvQpType::UC,
            sys::IbvQpType::UD,
            sys::IbvQpType::RAW_PACKET,
            sys::IbvQpType::XRC_SEND,
            sys::IbvQpType::XRC_RECV,
        ],
    };
    if !known.contains(&wanted.init.qp_type) {
        return Err(libc::EOPNOTSUPP);
    }
    if too_deep || too_wide || cap.max_inline_data > options.max_inline {
        return Err(libc::EINVAL);
    }
    let is_there = |cq: u32| cq == NOTHING || state.cqs.contains_key(&cq);
    if !is_there(wanted.send_cq) || !is_there(wanted.recv_cq) {
        return Err(libc::EINVAL);
    }
    let atomics = sys::IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | sys::IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD;
    let asks = wanted.operations;
    let lacks = wr::missing_operations(options.efa);
    let missing = asks & atomics != 0 && options.atomics == sys::IbvAtomicCap::NONE || asks & lacks != 0;
    if missing || asks & !wr::known_operations(wanted.init.qp_type) != 0 {
        return Err(libc::EOPNOTSUPP);
    }
    if state.qps.len() >= options.max_qp as usize { Err(libc::ENOMEM) } else { Ok(()) }
}

/// The attributes in RESET.
pub(crate) fn fresh(kind: sys::IbvQpType) -> sys::ibv_qp_attr {
    let mut attr = sys::ibv_qp_attr::zeroed();
    if kind == sys::IbvQpType::DRIVER {
        // Unless it is told otherwise, it waits for a receive for ever.
        attr.rnr_retry = 7;
    }
    attr
}

fn make(mut entered: Entered, context: u32, pd: u32, wanted: &Wanted) -> Result<*mut sys::ibv_qp, c_int> {
    let Entered { world, state, .. } = &mut entered;
    check_sizes(state, context, wanted)?;
    let device = state.contexts.get(&context).ok_or(libc::EINVAL)?.device;
    let id = state.next_id();
    let mut cap = wanted.init.cap;
    if wanted.srq.is_some() {
        (cap.max_recv_wr, cap.max_recv_sge) = (0, 0);
    }
    let qp = Qp {
        id,
        context,
        device,
        pd,
        send_cq: wanted.send_cq,
        recv_cq: wanted.recv_cq,
        srq: wanted.srq,
        kind: wanted.init.qp_type,
        cap,
        all_signaled: wanted.init.sq_sig_all != 0,
        state: sys::IbvQpState::RESET,
        attr: fresh(wanted.init.qp_type),
        sends: VecDeque::new(),
        receives: VecDeque::new(),
        sends_used: 0,
        receives_used: 0,
        untold: 0,
        untold_touches: Vec::new(),
        hold: Hold::NOTHING,
        withheld: VecDeque::new(),
        waiting: None,
        waited: 0,
        exhausted: false,
        batch: None,
        unacked_async: 0,
        extensions: tuning::EXTENSIONS,
        xrcd: wanted.xrcd,
    };
    let qp_num = State::qp_num(id);
    state.qps.insert(qp_num, qp);
    let mut object = wr::functions(wanted.operations, wanted.init.qp_type);
    let base = &mut object.qp_base;
    base.context = state.pointer(context);
    (base.qp_context, base.pd) = (wanted.init.qp_context, wanted.pd);
    (base.send_cq, base.recv_cq, base.srq) = (wanted.init.send_cq, wanted.init.recv_cq, wanted.init.srq);
    (base.handle, base.qp_num) = (id, qp_num);
    (base.state, base.qp_type) = (sys::IbvQpState::RESET, wanted.init.qp_type);
    Ok(hand_out(world, state, Kind::QueuePair, id, object))
}

pub(crate) unsafe extern "C" fn to_ex(qp: *mut sys::ibv_qp) -> *mut sys::ibv_qp_ex {
    let ex = qp.cast::<sys::ibv_qp_ex>();
    // SAFETY: the caller's promise: a queue pair of this device, each of which is an extended one.
    let started = unsafe { (*ex).wr_start };
    if started.is_some() { ex } else { core::ptr::null_mut() }
}

pub(crate) unsafe extern "C" fn modify(
    qp: *mut sys::ibv_qp,
    attr: *mut sys::ibv_qp_attr,
    mask: c_int,
) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, and its attributes.
    number(unsafe { enter(qp, Call::ModifyQp) }.and_then(|mut entered| {
        // SAFETY: as above.
        let attr = unsafe { *attr };
        let id = entered.id;
        entered.state.modify_qp(id, &attr, mask.cast_unsigned())?;
        let now = entered.state.qp(id)?.state;
        // SAFETY: as above; the library writes the state into the object.
        unsafe { (*qp).state = now };
        entered.state.run();
        Ok(())
    }))
}

impl State {
    fn modify_qp(&mut self, id: u32, attr: &sys::ibv_qp_attr, mask: u32) -> Result<(), c_int> {
        let qp = self.qp(id)?;
        let from = qp.state;
        let given = |bit| mask & bit != 0;
        if given(sys::IBV_QP_CUR_STATE) && attr.cur_qp_state != from {
            return Err(libc::EINVAL);
        }
        let to = if given(sys::IBV_QP_STATE) { attr.qp_state } else { from };
        qp_state::check(qp.kind, from, to, mask)?;
        let context = qp.context;
        self.check_values(context, id, attr, mask)?;
        let qp = self.qp(id)?;
        take_values(&mut qp.attr, attr, mask);
        let number = Self::qp_num(id);
        match to {
            sys::IbvQpState::RESET => self.reset(number),
            sys::IbvQpState::ERR => self.fail(number),
            _ => qp.state = to,
        }
        if to == sys::IbvQpState::SQD
            && given(sys::IBV_QP_EN_SQD_ASYNC_NOTIFY)
            && attr.en_sqd_async_notify != 0
        {
            self.raise(context, sys::IbvEventType::SQ_DRAINED, crate::world::About::Object(id));
        }
        Ok(())
    }

    /// Whether the values of the attributes that are given can be.
    fn check_values(
        &mut self,
        context: u32,
        id: u32,
        attr: &sys::ibv_qp_attr,
        mask: u32,
    ) -> Result<(), c_int> {
        let given = |bit| mask & bit != 0;
        let known_port = self.qp(id)?.attr.port_num;
        let port_num = if given(sys::IBV_QP_PORT) { attr.port_num } else { known_port };
        let max_rd_atomic = self.device_of(context)?.options.max_rd_atomic;
        if port_num != 0 {
            let port = self.port(context, u32::from(port_num))?;
            let no_key = given(sys::IBV_QP_PKEY_INDEX) && usize::from(attr.pkey_index) >= port.pkeys.len();
            let too_long = given(sys::IBV_QP_PATH_MTU)
                && (attr.path_mtu > port.active_mtu || attr.path_mtu < sys::IbvMtu::MTU_256);
            if no_key || too_long {
                return Err(libc::EINVAL);
            }
        }
        if given(sys::IBV_QP_PORT) {
            self.port(context, u32::from(attr.port_num))?;
        }
        if given(sys::IBV_QP_AV) {
            self.check_address(context, &attr.ah_attr)?;
        }
        let wrong = [
            (sys::IBV_QP_DEST_QPN, attr.dest_qp_num >= 1 << 24),
            (sys::IBV_QP_RQ_PSN, attr.rq_psn >= 1 << 24),
            (sys::IBV_QP_SQ_PSN, attr.sq_psn >= 1 << 24),
            (sys::IBV_QP_TIMEOUT, attr.timeout > 31),
            (sys::IBV_QP_RETRY_CNT, attr.retry_cnt > 7),
            (sys::IBV_QP_RNR_RETRY, attr.rnr_retry > 7),
            (sys::IBV_QP_MIN_RNR_TIMER, attr.min_rnr_timer > 31),
            (sys::IBV_QP_MAX_QP_RD_ATOMIC, attr.max_rd_atomic > max_rd_atomic),
            (sys::IBV_QP_MAX_DEST_RD_ATOMIC, attr.max_dest_rd_atomic > max_rd_atomic),
        ];
        if wrong.into_iter().any(|(bit, wrong)| given(bit) && wrong) { Err(libc::EINVAL) } else { Ok(()) }
    }
}

macro_rules! take {
    ( $old:ident, $new:ident, $mask:ident: $( $bit:ident => $( $field:ident ),+ ; )* ) => {
        $( if $mask & sys::$bit != 0 { $( $old.$field = $new.$field; )+ } )*
    };
}

fn take_values(old: &mut sys::ibv_qp_attr, new: &sys::ibv_qp_attr, mask: u32) {
    take! { old, new, mask:
        IBV_QP_PKEY_INDEX => pkey_index;
        IBV_QP_PORT => port_num;
        IBV_QP_QKEY => qkey;
        IBV_QP_ACCESS_FLAGS => qp_access_flags;
        IBV_QP_AV => ah_attr;
        IBV_QP_ALT_PATH => alt_ah_attr, alt_pkey_index, alt_port_num, alt_timeout;
        IBV_QP_PATH_MTU => path_mtu;
        IBV_QP_DEST_QPN => dest_qp_num;
        IBV_QP_RQ_PSN => rq_psn;
        IBV_QP_SQ_PSN => sq_psn;
        IBV_QP_MAX_DEST_RD_ATOMIC => max_dest_rd_atomic;
        IBV_QP_MAX_QP_RD_ATOMIC => max_rd_atomic;
        IBV_QP_MIN_RNR_TIMER => min_rnr_timer;
        IBV_QP_TIMEOUT => timeout;
        IBV_QP_RETRY_CNT => retry_cnt;
        IBV_QP_RNR_RETRY => rnr_retry;
        IBV_QP_PATH_MIG_STATE => path_mig_state;
        IBV_QP_RATE_LIMIT => rate_limit;
    }
}

pub(crate) unsafe extern "C" fn query(
    qp: *mut sys::ibv_qp,
    attr: *mut sys::ibv_qp_attr,
    _mask: c_int,
    init: *mut sys::ibv_qp_init_attr,
) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, and places for its attributes.
    number(unsafe { enter(qp, Call::QueryQp) }.and_then(|mut entered| {
        let found = entered.state.qp(entered.id)?;
        let mut now = found.attr;
        (now.qp_state, now.cur_qp_state, now.cap) = (found.state, found.state, found.cap);
        now.sq_draining = u8::from(found.state == sys::IbvQpState::SQD && !found.sends.is_empty());
        let (cap, sq_sig_all) = (found.cap, c_int::from(found.all_signaled));
        // SAFETY: as above.
        unsafe {
            attr.write(now);
            (*qp).state = now.qp_state;
            init.write(sys::ibv_qp_init_attr {
                qp_context: (*qp).qp_context,
                send_cq: (*qp).send_cq,
                recv_cq: (*qp).recv_cq,
                srq: (*qp).srq,
                cap,
                qp_type: (*qp).qp_type,
                sq_sig_all,
            });
        }
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn destroy(qp: *mut sys::ibv_qp) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device.
    let entered = unsafe { enter(qp, Call::DestroyQp) };
    number(entered.and_then(|mut entered| entered.state.destroy_qp(entered.id)))
}

impl State {
    fn destroy_qp(&mut self, id: u32) -> Result<(), c_int> {
        let number = Self::qp_num(id);
        let steered = self.flows.values().any(|flow| flow.qp == number);
        if steered || self.multicast.iter().any(|(_, member)| *member == number) {
            return Err(libc::EBUSY);
        }
        let qp = self.qp(id)?;
        let (count, locked) = (qp.unacked_async, qp.batch.is_some());
        if locked {
            self.faults.push(Fault::Deadlock { call: Call::DestroyQp, handle: id });
        }
        if count > 0 {
            self.faults.push(Fault::UnacknowledgedEvents { kind: Kind::QueuePair, handle: id, count });
        }
        self.forget_async_events(id);
        self.clean_completions(number);
        self.qps.remove(&number);
        self.live.remove(&id);
        self.run();
        Ok(())
    }
}

pub(crate) unsafe extern "C" fn attach(qp: *mut sys::ibv_qp, gid: *const sys::ibv_gid, _lid: u16) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, and a group.
    number(unsafe { enter(qp, Call::AttachMcast) }.and_then(|mut entered| {
        // SAFETY: as above.
        let group = unsafe { (*gid).bytes() };
        if group[0] != 0xff || entered.state.qp(entered.id)?.kind != sys::IbvQpType::UD {
            return Err(libc::EINVAL);
        }
        let member = (group, State::qp_num(entered.id));
        if !entered.state.multicast.contains(&member) {
            entered.state.multicast.push(member);
        }
        Ok(())
    }))
}

pub(crate) unsafe extern "C" fn detach(qp: *mut sys::ibv_qp, gid: *const sys::ibv_gid, _lid: u16) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, and a group.
    number(unsafe { enter(qp, Call::DetachMcast) }.and_then(|mut entered| {
        // SAFETY: as above.
        let member = unsafe { ((*gid).bytes(), State::qp_num(entered.id)) };
        let known = entered.state.multicast.iter().position(|one| *one == member).ok_or(libc::EINVAL)?;
        entered.state.multicast.remove(known);
        Ok(())
    }))
}
