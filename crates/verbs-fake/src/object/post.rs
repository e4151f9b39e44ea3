//! Posting by lists of requests. Everything is copied out of the lists; nothing of them is looked at later.
#![allow(unsafe_code)]

use crate::call::Call;
use crate::object::handle::{Entered, enter, find, number};
use crate::object::mw::binding;
use crate::request::{Data, Piece, Receive, Send, Target};
use crate::world::{Guard, State, World};
use core::ffi::{c_int, c_void};
use sinew_verbs_sys as sys;
use sys::{IbvQpType as Type, IbvWrOpcode as Wr};

/// Copies a scatter list.
///
/// # Safety
/// So many pieces are there.
pub(crate) unsafe fn pieces(list: *const sys::ibv_sge, count: usize) -> Vec<Piece> {
    (0..count)
        .map(|at| {
            // SAFETY: the caller's promise.
            let piece = unsafe { *list.add(at) };
            Piece { addr: piece.addr, len: piece.length, key: piece.lkey }
        })
        .collect()
}

/// Copies bytes that a program shows for the time of the call.
///
/// # Safety
/// So many bytes are there.
pub(crate) unsafe fn inline_bytes(addr: *const c_void, len: usize) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(addr.cast::<u8>(), len) }.to_vec()
}

/// Copies a request of a list.
///
/// # Safety
/// It is as `ibv_post_send` asks for.
unsafe fn copied(wr: &sys::ibv_send_wr, kind: Type) -> Result<Send, c_int> {
    let mut send = Send::new(wr.opcode, wr.wr_id, wr.send_flags);
    let count = usize::try_from(wr.num_sge).map_err(|_| libc::EINVAL)?;
    // SAFETY: the caller's promise.
    let pieces = unsafe { pieces(wr.sg_list, count) };
    send.data = if wr.send_flags & sys::IBV_SEND_INLINE == 0 {
        Data::Pieces(pieces)
    } else {
        let mut bytes = Vec::new();
        for piece in pieces {
            let from =
                core::ptr::with_exposed_provenance(usize::try_from(piece.addr).map_err(|_| libc::EFAULT)?);
            // SAFETY: the caller's promise: inline data is at an address of this process.
            bytes.extend(unsafe { inline_bytes(from, piece.len as usize) });
        }
        Data::Inline(bytes)
    };
    send.imm = wr.imm_data;
    if kind == Type::XRC_SEND {
        // SAFETY: the type of the queue pair says that it is valid.
        send.srq = unsafe { wr.qp_type.xrc.remote_srqn };
    }
    // SAFETY: the opcode and the type of the queue pair say which members are valid.
    unsafe {
        match wr.opcode {
            Wr::RDMA_WRITE | Wr::RDMA_WRITE_WITH_IMM | Wr::RDMA_READ => {
                (send.remote_addr, send.rkey) = (wr.wr.rdma.remote_addr, wr.wr.rdma.rkey);
            }
            Wr::ATOMIC_CMP_AND_SWP | Wr::ATOMIC_FETCH_AND_ADD => {
                let atomic = wr.wr.atomic;
                (send.remote_addr, send.rkey) = (atomic.remote_addr, atomic.rkey);
                (send.compare_add, send.swap) = (atomic.compare_add, atomic.swap);
            }
            Wr::BIND_MW => {
                let bind = wr.more.bind_mw;
                send.bind = Some(binding(bind.mw, Some(bind.rkey), &bind.bind_info));
            }
            _ if kind == Type::UD || kind == Type::DRIVER => {
                send.target = Some(target(wr.wr.ud.ah, wr.wr.ud.remote_qpn, wr.wr.ud.remote_qkey)?)
            }
            _ => {}
        }
    }
    Ok(send)
}

/// Whom a datagram goes to. The world is not locked.
///
/// # Safety
/// The handle is null or of this device.
unsafe fn target(ah: *mut sys::ibv_ah, qp_num: u32, qkey: u32) -> Result<Target, c_int> {
    if ah.is_null() {
        return Err(libc::EINVAL);
    }
    // SAFETY: the caller's promise.
    let (world, id) = unsafe { find(ah) };
    world.lock().target(id, qp_num, qkey)
}

impl State {
    pub(crate) fn target(&self, ah: u32, qp_num: u32, qkey: u32) -> Result<Target, c_int> {
        let attr = self.ahs.get(&ah).ok_or(libc::EINVAL)?.attr;
        Ok(Target { attr, qp_num, qkey })
    }

    /// Puts a request into a send queue.
    pub(crate) fn post_send(&mut self, id: u32, mut send: Send) -> Result<(), c_int> {
        self.check_send(id, &send)?;
        let qp = self.qp(id)?;
        if qp.sends_used >= qp.cap.max_send_wr {
            return Err(libc::ENOMEM);
        }
        let pd = qp.pd;
        let writes = send.is_answered();
        send.touches = self.touches(pd, send.data.pieces(), writes, Self::qp_num(id), send.wr_id);
        let qp = self.qp(id)?;
        qp.sends_used += 1;
        qp.sends.push_back(send);
        Ok(())
    }

    /// Whether a queue pair takes such a request.
    pub(crate) fn check_send(&mut self, id: u32, send: &Send) -> Result<(), c_int> {
        let device = self.qp(id)?.device;
        let atomics =
            self.devices.get(device).map_or(sys::IbvAtomicCap::NONE, |device| device.options.atomics);
        let qp = self.qp(id)?;
        let state_takes =
            ![sys::IbvQpState::RESET, sys::IbvQpState::INIT, sys::IbvQpState::RTR].contains(&qp.state);
        let connected = qp.kind != Type::UD && qp.kind != Type::DRIVER;
        let reliable = qp.kind == Type::RC || qp.kind == Type::XRC_SEND;
        let type_takes = match send.opcode {
            opcode if qp.kind == Type::RAW_PACKET => opcode == Wr::SEND,
            Wr::RDMA_WRITE | Wr::RDMA_WRITE_WITH_IMM | Wr::RDMA_READ if qp.kind == Type::DRIVER => {
                send.target.is_some()
            }
            Wr::SEND | Wr::SEND_WITH_IMM => connected || send.target.is_some(),
            Wr::RDMA_WRITE | Wr::RDMA_WRITE_WITH_IMM | Wr::SEND_WITH_INV | Wr::LOCAL_INV | Wr::BIND_MW => {
                connected
            }
            Wr::RDMA_READ => reliable,
            Wr::ATOMIC_CMP_AND_SWP | Wr::ATOMIC_FETCH_AND_ADD => {
                reliable && atomics != sys::IbvAtomicCap::NONE
            }
            _ => false,
        };
        let fits = match &send.data {
            Data::Inline(bytes) => {
                // Bytes of a write of SRD would lie where the write says what it names.
                let has_room = qp.kind != Type::DRIVER || matches!(send.opcode, Wr::SEND | Wr::SEND_WITH_IMM);
                bytes.len() <= qp.cap.max_inline_data as usize && !send.is_answered() && has_room
            }
            Data::Pieces(pieces) => pieces.len() <= qp.cap.max_send_sge as usize,
        };
        if state_takes && type_takes && fits { Ok(()) } else { Err(libc::EINVAL) }
    }

    /// Puts a receive into a queue pair's own queue.
    fn post_receive(&mut self, id: u32, mut receive: Receive) -> Result<(), c_int> {
        let qp = self.qp(id)?;
        let wide = receive.pieces.len() > qp.cap.max_recv_sge as usize;
        if qp.state == sys::IbvQpState::RESET || qp.srq.is_some() || wide {
            return Err(libc::EINVAL);
        }
        if qp.receives_used >= qp.cap.max_recv_wr {
            return Err(libc::ENOMEM);
        }
        let pd = qp.pd;
        receive.touches = self.touches(pd, &receive.pieces, true, Self::qp_num(id), receive.wr_id);
        let qp = self.qp(id)?;
        qp.receives_used += 1;
        qp.receives.push_back(receive);
        if qp.state == sys::IbvQpState::ERR {
            self.flush(Self::qp_num(id));
        }
        Ok(())
    }
}

/// Waits until nobody is between start and completion of a batch. A thread that waits for itself is reported instead.
pub(crate) fn wait_for_batch(
    world: &'static World,
    mut state: Guard,
    id: u32,
    call: Call,
) -> Result<Guard, c_int> {
    loop {
        match state.qp(id)?.batch.as_ref().map(|batch| batch.owner) {
            None => return Ok(state),
            Some(owner) if owner == std::thread::current().id() => {
                state.faults.push(crate::fault::Fault::Deadlock { call, handle: id });
                return Err(libc::EDEADLK);
            }
            Some(_) => state = world.wait(state),
        }
    }
}

pub(crate) unsafe extern "C" fn send(
    qp: *mut sys::ibv_qp,
    list: *mut sys::ibv_send_wr,
    bad: *mut *mut sys::ibv_send_wr,
) -> c_int {
    let mut next = list;
    // SAFETY: the caller's promise: a queue pair of this device, a list of requests, a place for the bad one.
    let result = unsafe { enter(qp, Call::PostSend) }.and_then(|entered| {
        let (world, id) = (entered.world, entered.id);
        let mut state = wait_for_batch(world, entered.state, id, Call::PostSend)?;
        let kind = state.qp(id)?.kind;
        let mut result = Ok(());
        while !next.is_null() && result.is_ok() {
            drop(state);
            // SAFETY: as above. The address handle of a datagram is looked up in the world, which is not locked now.
            let copied = unsafe { copied(&*next, kind) };
            state = world.lock();
            result = copied.and_then(|send| state.post_send(id, send));
            if result.is_ok() {
                // SAFETY: as above.
                next = unsafe { (*next).next };
            }
        }
        state.start(id);
        result
    });
    if result.is_err() {
        // SAFETY: as above.
        unsafe { bad.write(next) };
    }
    number(result)
}

/// Copies a receive of a list.
///
/// # Safety
/// It is as `ibv_post_recv` asks for.
unsafe fn copied_receive(wr: &sys::ibv_recv_wr) -> Result<Receive, c_int> {
    let count = usize::try_from(wr.num_sge).map_err(|_| libc::EINVAL)?;
    // SAFETY: the caller's promise.
    let pieces = unsafe { pieces(wr.sg_list, count) };
    Ok(Receive { wr_id: wr.wr_id, pieces, touches: Vec::new() })
}

/// Posts a list of receives by `post`; answers the first that was refused.
///
/// # Safety
/// The list is as `ibv_post_recv` asks for.
unsafe fn each_receive(
    list: *mut sys::ibv_recv_wr,
    bad: *mut *mut sys::ibv_recv_wr,
    mut post: impl FnMut(Receive) -> Result<(), c_int>,
) -> Result<(), c_int> {
    let mut next = list;
    while !next.is_null() {
        // SAFETY: the caller's promise.
        let result = unsafe { copied_receive(&*next) }.and_then(&mut post);
        if let Err(errno) = result {
            // SAFETY: the caller's promise.
            unsafe { bad.write(next) };
            return Err(errno);
        }
        // SAFETY: the caller's promise.
        next = unsafe { (*next).next };
    }
    Ok(())
}

pub(crate) unsafe extern "C" fn receive(
    qp: *mut sys::ibv_qp,
    list: *mut sys::ibv_recv_wr,
    bad: *mut *mut sys::ibv_recv_wr,
) -> c_int {
    // SAFETY: the caller's promise: a queue pair of this device, a list of receives, a place for the bad one.
    unsafe { receives(enter(qp, Call::PostRecv), list, bad, State::post_receive) }
}

pub(crate) unsafe extern "C" fn srq_receive(
    srq: *mut sys::ibv_srq,
    list: *mut sys::ibv_recv_wr,
    bad: *mut *mut sys::ibv_recv_wr,
) -> c_int {
    // SAFETY: the caller's promise: a queue of this device, a list of receives, a place for the bad one.
    unsafe { receives(enter(srq, Call::PostSrqRecv), list, bad, State::post_srq) }
}

/// # Safety
/// The list is as `ibv_post_recv` asks for.
unsafe fn receives(
    entered: Result<Entered, c_int>,
    list: *mut sys::ibv_recv_wr,
    bad: *mut *mut sys::ibv_recv_wr,
    post: fn(&mut State, u32, Receive) -> Result<(), c_int>,
) -> c_int {
    let mut entered = match entered {
        Ok(entered) => entered,
        Err(errno) => {
            // SAFETY: the caller's promise: a place for the bad one; none was posted.
            unsafe { bad.write(list) };
            return errno;
        }
    };
    let id = entered.id;
    // SAFETY: the caller's promise.
    let result = unsafe { each_receive(list, bad, |receive| post(&mut entered.state, id, receive)) };
    entered.state.run();
    number(result)
}
