//! Extended posting: requests are built one after the other and rung together.
//!
//! The lock of the send queue is held from start to completion or abort.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::fault::Fault;
use crate::object::handle::{enter, find, number};
use crate::object::mw::binding;
use crate::object::post::{inline_bytes, pieces, wait_for_batch};
use crate::options::Efa;
use crate::request::{Data, Piece, Send};
use crate::world::{Batch, State};
use core::ffi::{c_int, c_void};
use sinew_verbs_sys as sys;
use sys::{IbvQpType as Type, IbvWrOpcode as Wr};

/// Bits `IBV_QP_EX_WITH_*` that a type of queue pair may be made with.
pub(crate) fn known_operations(kind: Type) -> u64 {
    let sends = sys::IBV_QP_EX_WITH_SEND | sys::IBV_QP_EX_WITH_SEND_WITH_IMM;
    let unreliable = sends
        | sys::IBV_QP_EX_WITH_RDMA_WRITE
        | sys::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
        | sys::IBV_QP_EX_WITH_SEND_WITH_INV
        | sys::IBV_QP_EX_WITH_LOCAL_INV
        | sys::IBV_QP_EX_WITH_BIND_MW;
    match kind {
        Type::RAW_PACKET => sys::IBV_QP_EX_WITH_SEND,
        Type::UD => sends,
        Type::DRIVER => {
            sends
                | sys::IBV_QP_EX_WITH_RDMA_WRITE
                | sys::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM
                | sys::IBV_QP_EX_WITH_RDMA_READ
        }
        Type::UC => unreliable,
        _ => {
            unreliable
                | sys::IBV_QP_EX_WITH_RDMA_READ
                | sys::IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP
                | sys::IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD
        }
    }
}

/// What a device of EFA lacks of reads and writes.
pub(crate) fn missing_operations(efa: Option<Efa>) -> u64 {
    let writes = sys::IBV_QP_EX_WITH_RDMA_WRITE | sys::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM;
    let lacks = |has: bool, bits| if has { 0 } else { bits };
    efa.map_or(0, |efa| lacks(efa.reads, sys::IBV_QP_EX_WITH_RDMA_READ) | lacks(efa.writes, writes))
}

/// The functions of a queue pair that was made with these operations; other fields are zero. None: it posts as of old only.
pub(crate) fn functions(operations: u64, kind: Type) -> sys::ibv_qp_ex {
    let mut qp = sys::ibv_qp_ex::zeroed();
    if operations == 0 {
        return qp;
    }
    let with = |bit| operations & bit != 0;
    qp.wr_start = Some(start);
    qp.wr_complete = Some(complete);
    qp.wr_abort = Some(abort);
    qp.wr_set_sge = Some(set_sge);
    qp.wr_set_sge_list = Some(set_sge_list);
    qp.wr_set_inline_data = Some(set_inline);
    qp.wr_set_inline_data_list = Some(set_inline_list);
    qp.wr_set_ud_addr = [Type::UD, Type::DRIVER].contains(&kind).then_some(set_ud_addr as _);
    qp.wr_set_xrc_srqn = (kind == Type::XRC_SEND).then_some(set_xrc_srqn as _);
    qp.wr_send = with(sys::IBV_QP_EX_WITH_SEND).then_some(send as _);
    qp.wr_send_imm = with(sys::IBV_QP_EX_WITH_SEND_WITH_IMM).then_some(send_imm as _);
    qp.wr_send_inv = with(sys::IBV_QP_EX_WITH_SEND_WITH_INV).then_some(send_inv as _);
    qp.wr_rdma_write = with(sys::IBV_QP_EX_WITH_RDMA_WRITE).then_some(write as _);
    qp.wr_rdma_write_imm = with(sys::IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM).then_some(write_imm as _);
    qp.wr_rdma_read = with(sys::IBV_QP_EX_WITH_RDMA_READ).then_some(read as _);
    qp.wr_atomic_cmp_swp = with(sys::IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP).then_some(compare_swap as _);
    qp.wr_atomic_fetch_add = with(sys::IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD).then_some(fetch_add as _);
    qp.wr_local_inv = with(sys::IBV_QP_EX_WITH_LOCAL_INV).then_some(local_inv as _);
    qp.wr_bind_mw = with(sys::IBV_QP_EX_WITH_BIND_MW).then_some(bind_mw as _);
    qp
}

unsafe extern "C" fn start(qp: *mut sys::ibv_qp_ex) {
    // SAFETY: the caller's promise: a queue pair of this device.
    let Ok(entered) = (unsafe { enter(qp, Call::WrStart) }) else { return };
    let id = entered.id;
    let Ok(mut state) = wait_for_batch(entered.world, entered.state, id, Call::WrStart) else { return };
    if let Ok(qp) = state.qp(id) {
        qp.batch = Some(Batch { owner: std::thread::current().id(), requests: Vec::new(), error: 0 });
    }
}

impl State {
    /// The batch that this thread has begun.
    fn own_batch(&mut self, id: u32, call: Call) -> Result<&mut Batch, c_int> {
        let owner = self.qp(id)?.batch.as_ref().map(|batch| batch.owner);
        if owner != Some(std::thread::current().id()) {
            self.faults.push(Fault::NotBegun { call, handle: id });
            return Err(libc::EINVAL);
        }
        self.qp(id)?.batch.as_mut().ok_or(libc::EINVAL)
    }

    fn end_batch(&mut self, id: u32, call: Call) -> Result<Batch, c_int> {
        self.own_batch(id, call)?;
        self.qp(id)?.batch.take().ok_or(libc::EINVAL)
    }

    /// Posts all requests of a batch, or none.
    fn ring(&mut self, id: u32, batch: Batch) -> Result<(), c_int> {
        if batch.error != 0 {
            return Err(batch.error);
        }
        for send in &batch.requests {
            self.check_send(id, send)?;
        }
        let qp = self.qp(id)?;
        if batch.requests.len() > qp.cap.max_send_wr.saturating_sub(qp.sends_used) as usize {
            return Err(libc::ENOMEM);
        }
        for send in batch.requests {
            self.post_send(id, send)?;
        }
        self.start(id);
        Ok(())
    }
}

unsafe extern "C" fn complete(qp: *mut sys::ibv_qp_ex) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device.
    let (world, id) = unsafe { find(qp) };
    // SAFETY: as above.
    let entered = unsafe { enter(qp, Call::WrComplete) };
    let result = match entered {
        Ok(mut entered) => {
            let batch = entered.state.end_batch(id, Call::WrComplete);
            batch.and_then(|batch| entered.state.ring(id, batch))
        }
        Err(errno) => {
            // A completion that fails ends the batch all the same.
            let _ = world.lock().end_batch(id, Call::WrComplete);
            Err(errno)
        }
    };
    world.changed.notify_all();
    number(result)
}

unsafe extern "C" fn abort(qp: *mut sys::ibv_qp_ex) {
    // SAFETY: the caller's promise: a queue pair of this device.
    let Ok(mut entered) = (unsafe { enter(qp, Call::WrAbort) }) else { return };
    let id = entered.id;
    let _ = entered.state.end_batch(id, Call::WrAbort);
    entered.world.changed.notify_all();
}

/// Begins a request with the number and the flags that the object shows.
///
/// # Safety
/// The queue pair is of this device.
unsafe fn begin(qp: *mut sys::ibv_qp_ex, opcode: Wr, fill: impl FnOnce(&mut Send)) {
    // SAFETY: the caller's promise.
    let ((world, id), wr_id, flags) = unsafe { (find(qp), (*qp).wr_id, (*qp).wr_flags) };
    let mut send = Send::new(opcode, wr_id, flags);
    fill(&mut send);
    let mut state = world.lock();
    if let Ok(batch) = state.own_batch(id, Call::WrStart) {
        batch.requests.push(send);
    }
}

/// Changes the request that was begun last.
///
/// # Safety
/// The queue pair is of this device.
unsafe fn change(qp: *mut sys::ibv_qp_ex, change: impl FnOnce(&mut Send) -> Result<(), c_int>) {
    // SAFETY: the caller's promise.
    let (world, id) = unsafe { find(qp) };
    let mut state = world.lock();
    let Ok(batch) = state.own_batch(id, Call::WrStart) else { return };
    let result = batch.requests.last_mut().ok_or(libc::EINVAL).and_then(change);
    if let Err(errno) = result {
        batch.error = errno;
    }
}

macro_rules! begins {
    ( $( $name:ident ( $( $arg:ident : $type:ty ),* ) = $opcode:ident, $fill:expr; )* ) => { $(
        unsafe extern "C" fn $name(qp: *mut sys::ibv_qp_ex $(, $arg: $type )*) {
            // SAFETY: the caller's promise: a queue pair of this device.
            unsafe { begin(qp, Wr::$opcode, $fill) };
        }
    )* };
}

begins! {
    send() = SEND, |_| {};
    send_imm(imm: u32) = SEND_WITH_IMM, |send| send.imm = imm;
    send_inv(rkey: u32) = SEND_WITH_INV, |send| send.imm = rkey;
    write(rkey: u32, addr: u64) = RDMA_WRITE, |send| (send.rkey, send.remote_addr) = (rkey, addr);
    write_imm(rkey: u32, addr: u64, imm: u32) = RDMA_WRITE_WITH_IMM,
        |send| (send.rkey, send.remote_addr, send.imm) = (rkey, addr, imm);
    read(rkey: u32, addr: u64) = RDMA_READ, |send| (send.rkey, send.remote_addr) = (rkey, addr);
    compare_swap(rkey: u32, addr: u64, compare: u64, swap: u64) = ATOMIC_CMP_AND_SWP,
        |send| (send.rkey, send.remote_addr, send.compare_add, send.swap) = (rkey, addr, compare, swap);
    fetch_add(rkey: u32, addr: u64, add: u64) = ATOMIC_FETCH_AND_ADD,
        |send| (send.rkey, send.remote_addr, send.compare_add) = (rkey, addr, add);
    local_inv(rkey: u32) = LOCAL_INV, |send| send.imm = rkey;
}

unsafe extern "C" fn bind_mw(
    qp: *mut sys::ibv_qp_ex,
    mw: *mut sys::ibv_mw,
    rkey: u32,
    info: *const sys::ibv_mw_bind_info,
) {
    // SAFETY: the caller's promise: objects of this device, and what is bound.
    let bind = unsafe { binding(mw, Some(rkey), &*info) };
    // SAFETY: as above.
    unsafe { begin(qp, Wr::BIND_MW, |send| send.bind = Some(bind)) };
}

unsafe extern "C" fn set_sge(qp: *mut sys::ibv_qp_ex, lkey: u32, addr: u64, len: u32) {
    let piece = Piece { addr, len, key: lkey };
    let set = |send: &mut Send| {
        send.data = Data::Pieces(vec![piece]);
        Ok(())
    };
    // SAFETY: the caller's promise: a queue pair of this device.
    unsafe { change(qp, set) };
}

unsafe extern "C" fn set_sge_list(qp: *mut sys::ibv_qp_ex, count: usize, list: *const sys::ibv_sge) {
    // SAFETY: the caller's promise: so many pieces.
    let pieces = unsafe { pieces(list, count) };
    let set = |send: &mut Send| {
        send.data = Data::Pieces(pieces);
        Ok(())
    };
    // SAFETY: the caller's promise: a queue pair of this device.
    unsafe { change(qp, set) };
}

unsafe extern "C" fn set_inline(qp: *mut sys::ibv_qp_ex, addr: *mut c_void, len: usize) {
    // SAFETY: the caller's promise: so many bytes.
    let bytes = unsafe { inline_bytes(addr, len) };
    let set = |send: &mut Send| {
        send.data = Data::Inline(bytes);
        Ok(())
    };
    // SAFETY: the caller's promise: a queue pair of this device.
    unsafe { change(qp, set) };
}

unsafe extern "C" fn set_inline_list(qp: *mut sys::ibv_qp_ex, count: usize, list: *const sys::ibv_data_buf) {
    let mut bytes = Vec::new();
    for at in 0..count {
        // SAFETY: the caller's promise: so many buffers, each with its bytes.
        bytes.extend(unsafe { inline_bytes((*list.add(at)).addr, (*list.add(at)).length) });
    }
    let set = |send: &mut Send| {
        send.data = Data::Inline(bytes);
        Ok(())
    };
    // SAFETY: the caller's promise: a queue pair of this device.
    unsafe { change(qp, set) };
}

unsafe extern "C" fn set_xrc_srqn(qp: *mut sys::ibv_qp_ex, number: u32) {
    let set = |send: &mut Send| {
        send.srq = number;
        Ok(())
    };
    // SAFETY: the caller's promise: a queue pair of this device.
    unsafe { change(qp, set) };
}

unsafe extern "C" fn set_ud_addr(qp: *mut sys::ibv_qp_ex, ah: *mut sys::ibv_ah, qp_num: u32, qkey: u32) {
    // SAFETY: the caller's promise: a handle of this device.
    let (world, ah) = unsafe { find(ah) };
    let target = world.lock().target(ah, qp_num, qkey);
    let set = |send: &mut Send| {
        send.target = Some(target?);
        Ok(())
    };
    // SAFETY: the caller's promise: a queue pair of this device.
    unsafe { change(qp, set) };
}
