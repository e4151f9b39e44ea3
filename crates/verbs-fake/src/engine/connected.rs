//! Requests of connected queue pairs: where they go, what the peer does with them, how each side is told.
//!
//! On reliable ones a request that the peer refuses fails on both sides; on unreliable ones it is lost and succeeds.

use crate::engine::complete::Arrival;
use crate::engine::keys::{Denied, Span};
use crate::engine::run::{DONE, Outcome};
use crate::object::qp::NOTHING;
use crate::request::{Receive, Send, Target, total};
use crate::world::{About, State, Waiting};
use sinew_verbs_sys as sys;
use sys::{IbvQpState as QpState, IbvQpType as Type, IbvWcStatus as Status, IbvWrOpcode as Wr};

impl State {
    /// The device and the port's number behind an address, as seen from a port.
    pub(crate) fn route(&self, device: usize, port_num: u8, attr: &sys::ibv_ah_attr) -> Option<(usize, u8)> {
        let own = self.devices.get(device)?.options.ports.get(usize::from(port_num).checked_sub(1)?)?;
        if own.state != sys::IbvPortState::ACTIVE {
            return None;
        }
        let all = self.devices.iter().enumerate().flat_map(|(index, device)| {
            (1u8..).zip(&device.options.ports).map(move |(number, port)| (index, number, port))
        });
        let dgid = attr.grh.dgid.bytes();
        let mut reached = all.filter(|(_, _, port)| {
            let addressed = if attr.is_global != 0 {
                port.gids.iter().flatten().any(|row| row.raw == dgid)
            } else {
                port.lid != 0 && port.lid == attr.dlid
            };
            port.state == sys::IbvPortState::ACTIVE && port.link_layer == own.link_layer && addressed
        });
        reached.next().map(|(device, port, _)| (device, port))
    }

    /// The queue pair that is connected to this one, if it listens.
    fn peer(&self, number: u32) -> Option<u32> {
        let qp = self.qps.get(&number)?;
        let (device, port) = self.route(qp.device, qp.attr.port_num, &qp.attr.ah_attr)?;
        let peer = self.qps.get(&qp.attr.dest_qp_num)?;
        let listens = [QpState::RTR, QpState::RTS, QpState::SQD, QpState::SQE].contains(&peer.state);
        let answering = if qp.kind == Type::XRC_SEND { Type::XRC_RECV } else { qp.kind };
        let connected = peer.attr.dest_qp_num == number && peer.kind == answering;
        // Packets whose numbers the peer does not expect are dropped.
        let in_step = peer.attr.rq_psn == qp.attr.sq_psn;
        let there = peer.device == device && peer.attr.port_num == port;
        (listens && connected && in_step && there).then_some(qp.attr.dest_qp_num)
    }

    /// The queue pair that a reliable datagram names, if it listens.
    fn addressed(&self, number: u32, target: &Target) -> Option<u32> {
        let qp = self.qps.get(&number)?;
        let (device, port) = self.route(qp.device, qp.attr.port_num, &target.attr)?;
        let peer = self.qps.get(&target.qp_num)?;
        let listens = [QpState::RTR, QpState::RTS, QpState::SQD].contains(&peer.state);
        let there = peer.device == device && peer.attr.port_num == port && peer.kind == qp.kind;
        (listens && there && peer.attr.qkey == target.qkey).then_some(target.qp_num)
    }

    /// Does a request of a service that answers or is in order: connected, or reliable datagrams.
    pub(crate) fn send_connected(&mut self, number: u32, send: &Send) -> Outcome {
        let Some(qp) = self.qps.get(&number) else { return DONE };
        let (pd, kind, reads) = (qp.pd, qp.kind, qp.attr.max_rd_atomic);
        let reliable = kind != Type::UC;
        let bytes = if send.is_answered() {
            // The answer's place is checked before anything goes out.
            let places = send.data.pieces().iter().all(|piece| self.local(pd, piece, true).is_ok());
            if reads == 0 && kind == Type::RC {
                return Outcome::Done(Status::LOC_QP_OP_ERR);
            }
            places.then(Vec::new).ok_or(Denied)
        } else {
            self.gather(pd, &send.data)
        };
        let Ok(bytes) = bytes else { return Outcome::Done(Status::LOC_PROT_ERR) };
        let peer = match &send.target {
            Some(target) => self.addressed(number, target),
            None => self.peer(number),
        };
        let Some(peer) = peer else {
            return if reliable { Outcome::Wait(Waiting::Peer) } else { DONE };
        };
        if self.qps.get(&peer).is_some_and(|peer| peer.hold.incoming) {
            return if reliable { Outcome::Wait(Waiting::Held) } else { DONE };
        }
        if kind == Type::XRC_SEND && !self.name_queue(peer, send.srq) {
            return Outcome::Done(Status::REM_INV_REQ_ERR);
        }
        let outcome = match send.opcode {
            Wr::SEND | Wr::SEND_WITH_IMM | Wr::SEND_WITH_INV => self.deliver(number, peer, send, &bytes),
            Wr::RDMA_WRITE | Wr::RDMA_WRITE_WITH_IMM => self.write_remote(peer, send, &bytes),
            Wr::RDMA_READ => self.read_remote(pd, peer, send),
            _ => self.change_remote(pd, peer, send),
        };
        if kind == Type::XRC_SEND {
            self.forget_queue(peer);
        }
        if reliable { outcome } else { DONE }
    }

    /// The receiving side of an extended connection has what the named queue has, for one request: domain, receives, completion queue.
    fn name_queue(&mut self, peer: u32, srq: u32) -> bool {
        let named =
            self.srqs.get(&srq).and_then(|found| found.extended.map(|(xrcd, cq)| (xrcd, cq, found.pd)));
        let (Some((xrcd, cq, pd)), Some(peer)) = (named, self.qps.get_mut(&peer)) else { return false };
        if peer.xrcd != Some(xrcd) {
            return false;
        }
        (peer.pd, peer.srq, peer.recv_cq) = (pd, Some(srq), cq);
        true
    }

    fn forget_queue(&mut self, peer: u32) {
        if let Some(peer) = self.qps.get_mut(&peer) {
            (peer.pd, peer.srq, peer.recv_cq) = (NOTHING, None, NOTHING);
        }
    }

    /// Takes the next receive of a queue pair.
    pub(crate) fn take_receive(&mut self, number: u32) -> Option<Receive> {
        let qp = self.qps.get_mut(&number)?;
        let Some(srq) = qp.srq else { return qp.receives.pop_front() };
        let mut receive = self.srqs.get_mut(&srq)?.queue.pop_front()?;
        for touch in &mut receive.touches {
            touch.qp_num = number;
        }
        self.check_limit(srq);
        Some(receive)
    }

    fn has_receive(&self, number: u32) -> bool {
        let Some(qp) = self.qps.get(&number) else { return false };
        match qp.srq {
            Some(srq) => self.srqs.get(&srq).is_some_and(|srq| !srq.queue.is_empty()),
            None => !qp.receives.is_empty(),
        }
    }

    /// Brings a message into the peer's next receive.
    fn deliver(&mut self, number: u32, peer: u32, send: &Send, bytes: &[u8]) -> Outcome {
        let (src_qp, slid) = self.sender(number, send);
        if !self.has_receive(peer) {
            return Outcome::Wait(Waiting::Receive);
        }
        let invalidated = (send.opcode == Wr::SEND_WITH_INV).then_some(send.imm);
        if invalidated.is_some_and(|rkey| {
            let pd = self.qps.get(&peer).map_or(0, |peer| peer.pd);
            !self.invalidate(pd, rkey)
        }) {
            return self.refuse(peer, Status::REM_ACCESS_ERR);
        }
        let Some(receive) = self.take_receive(peer) else { return Outcome::Wait(Waiting::Receive) };
        let Some(pd) = self.qps.get(&peer).map(|peer| peer.pd) else { return DONE };
        if bytes.len() > total(&receive.pieces) {
            self.end_receive(peer, receive, Status::LOC_LEN_ERR, Arrival::default());
            return self.refuse(peer, Status::REM_INV_REQ_ERR);
        }
        if self.scatter(pd, &receive.pieces, bytes).is_err() {
            self.end_receive(peer, receive, Status::LOC_PROT_ERR, Arrival::default());
            return self.refuse(peer, Status::REM_OP_ERR);
        }
        let got = Arrival { invalidated, src_qp, slid, ..Self::arrival(send, bytes.len()) };
        self.end_receive(peer, receive, Status::SUCCESS, got);
        DONE
    }

    /// Who sent a reliable datagram; of a connection completions do not say it.
    fn sender(&self, number: u32, send: &Send) -> (u32, u16) {
        let port = self
            .qps
            .get(&number)
            .filter(|_| send.target.is_some())
            .and_then(|qp| self.port(qp.context, u32::from(qp.attr.port_num)).ok());
        port.map_or((0, 0), |port| (number, port.lid))
    }

    fn arrival(send: &Send, len: usize) -> Arrival {
        Arrival {
            len: u32::try_from(len).unwrap_or(u32::MAX),
            imm: send.has_imm().then_some(send.imm),
            solicited: send.flags & sys::IBV_SEND_SOLICITED != 0,
            ..Arrival::default()
        }
    }

    /// The peer's memory, if this queue pair of the peer gives it out.
    fn peer_memory(&self, peer: u32, send: &Send, len: usize, need: u32) -> Result<Span, Denied> {
        let peer_qp = self.qps.get(&peer).ok_or(Denied)?;
        // Reliable datagrams have no such attribute: the region's rights count.
        if peer_qp.kind != Type::DRIVER && peer_qp.attr.qp_access_flags & need != need {
            return Err(Denied);
        }
        self.remote(peer, send.rkey, send.remote_addr, len as u64, need)
    }

    fn write_remote(&mut self, peer: u32, send: &Send, bytes: &[u8]) -> Outcome {
        let with_imm = send.opcode == Wr::RDMA_WRITE_WITH_IMM;
        if with_imm && !self.has_receive(peer) {
            return Outcome::Wait(Waiting::Receive);
        }
        // The key of nothing is not looked at.
        if !bytes.is_empty() {
            match self.peer_memory(peer, send, bytes.len(), sys::IBV_ACCESS_REMOTE_WRITE) {
                Ok(span) => self.write(span, bytes),
                Err(Denied) => return self.refuse(peer, Status::REM_ACCESS_ERR),
            }
        }
        if with_imm && let Some(receive) = self.take_receive(peer) {
            let got = Arrival { of_write: true, ..Self::arrival(send, bytes.len()) };
            self.end_receive(peer, receive, Status::SUCCESS, got);
        }
        DONE
    }

    /// Whether the peer answers reads and atomics at all.
    fn answers(&self, peer: u32) -> bool {
        self.qps.get(&peer).is_some_and(|peer| peer.kind == Type::DRIVER || peer.attr.max_dest_rd_atomic > 0)
    }

    fn read_remote(&mut self, pd: u32, peer: u32, send: &Send) -> Outcome {
        if !self.answers(peer) {
            return self.refuse(peer, Status::REM_INV_REQ_ERR);
        }
        let len = send.data.len();
        if len == 0 {
            return DONE;
        }
        match self.peer_memory(peer, send, len, sys::IBV_ACCESS_REMOTE_READ) {
            Ok(span) => {
                let bytes = self.read(span);
                self.answer(pd, send, &bytes)
            }
            Err(Denied) => self.refuse(peer, Status::REM_ACCESS_ERR),
        }
    }

    fn change_remote(&mut self, pd: u32, peer: u32, send: &Send) -> Outcome {
        if !self.answers(peer) || !send.remote_addr.is_multiple_of(8) {
            return self.refuse(peer, Status::REM_INV_REQ_ERR);
        }
        if send.data.len() != 8 {
            return Outcome::Done(Status::LOC_LEN_ERR);
        }
        let Ok(span) = self.peer_memory(peer, send, 8, sys::IBV_ACCESS_REMOTE_ATOMIC) else {
            return self.refuse(peer, Status::REM_ACCESS_ERR);
        };
        let swaps = send.opcode == Wr::ATOMIC_CMP_AND_SWP;
        let (operand, swap) = (send.compare_add, send.swap);
        let old = self.change(span, |old| match swaps {
            true if old == operand => swap,
            true => old,
            false => old.wrapping_add(operand),
        });
        match old {
            Ok(old) => self.answer(pd, send, &old.to_ne_bytes()),
            Err(Denied) => self.refuse(peer, Status::REM_INV_REQ_ERR),
        }
    }

    fn answer(&mut self, pd: u32, send: &Send, bytes: &[u8]) -> Outcome {
        match self.scatter(pd, send.data.pieces(), bytes) {
            Ok(()) => DONE,
            Err(Denied) => Outcome::Done(Status::LOC_PROT_ERR),
        }
    }

    /// The peer refuses a request: a reliable one goes to the error state, and its program is told by an event.
    fn refuse(&mut self, peer: u32, status: Status) -> Outcome {
        if let Some((context, id, kind)) = self.qps.get(&peer).map(|peer| (peer.context, peer.id, peer.kind))
            && kind == Type::RC
        {
            let event = match status {
                Status::REM_ACCESS_ERR => Some(sys::IbvEventType::QP_ACCESS_ERR),
                Status::REM_INV_REQ_ERR => Some(sys::IbvEventType::QP_REQ_ERR),
                _ => None,
            };
            if let Some(event) = event {
                self.raise(context, event, About::Object(id));
            }
            self.fail(peer);
        }
        Outcome::Done(status)
    }
}
