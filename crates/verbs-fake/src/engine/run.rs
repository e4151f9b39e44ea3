//! The device's work: the first request of each send queue, again and again, until nothing moves.
//!
//! Requests that cannot go on wait: for a receive, for a peer, for a test's word. Retries have no clock; polls count instead, or
//! [`Control::time_passes`](crate::Control::time_passes).

use crate::request::{Bind, Send};
use crate::world::{Bound, Key, Qp, State, Waiting};
use sinew_verbs_sys as sys;
use sys::{IbvQpState as QpState, IbvQpType as Type, IbvWcStatus as Status, IbvWrOpcode as Wr};

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done(Status),
    Wait(Waiting),
}

/// Success, as most requests end.
pub(crate) const DONE: Outcome = Outcome::Done(Status::SUCCESS);

impl Qp {
    /// Whether retries of what it waits for can come to an end.
    fn retries_end(&self) -> bool {
        match self.waiting {
            // 7 is for ever; a timeout of zero too.
            Some(Waiting::Receive) => self.attr.rnr_retry != 7,
            Some(Waiting::Peer) => self.attr.timeout != 0,
            Some(Waiting::Held) | None => false,
        }
    }

    fn retries(&self) -> u8 {
        if self.waiting == Some(Waiting::Receive) { self.attr.rnr_retry } else { self.attr.retry_cnt }
    }
}

impl State {
    /// Does all that can be done.
    pub(crate) fn run(&mut self) {
        loop {
            let numbers: Vec<u32> = self.qps.keys().copied().collect();
            let mut moved = false;
            for number in numbers {
                while self.step(number) {
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Goes on with a queue pair to which requests were posted.
    pub(crate) fn start(&mut self, id: u32) {
        let number = Self::qp_num(id);
        if let Some(qp) = self.qps.get(&number) {
            match qp.state {
                QpState::ERR => self.flush(number),
                QpState::SQE => self.flush_sends(number),
                _ => {}
            }
        }
        self.run();
    }

    /// Does the first request of a send queue. Answers whether anything moved.
    fn step(&mut self, number: u32) -> bool {
        let Some(qp) = self.qps.get(&number) else { return false };
        if qp.state != QpState::RTS || qp.hold.requests {
            return false;
        }
        let Some(send) = qp.sends.front().cloned() else { return false };
        let status = match self.execute(number, &send) {
            Outcome::Done(status) => status,
            Outcome::Wait(why) => match self.give_up(number, why) {
                Some(status) => status,
                None => return false,
            },
        };
        let Some(qp) = self.qps.get_mut(&number) else { return false };
        qp.sends.pop_front();
        (qp.waiting, qp.waited, qp.exhausted) = (None, 0, false);
        let kind = qp.kind;
        self.end_send(number, send, status);
        if status != Status::SUCCESS {
            match kind {
                Type::RC | Type::XRC_SEND => self.fail(number),
                // What fails towards one peer does not stop what goes to others.
                Type::DRIVER => {}
                _ => self.stop_sending(number),
            }
        }
        true
    }

    /// Unreliable types stop sending after a failure, and still receive.
    fn stop_sending(&mut self, number: u32) {
        if let Some(qp) = self.qps.get_mut(&number) {
            qp.state = QpState::SQE;
        }
        self.flush_sends(number);
    }

    /// Writes down why a request waits; its failure, when its retries are used up.
    fn give_up(&mut self, number: u32, why: Waiting) -> Option<Status> {
        let limit = self.retry_polls;
        let qp = self.qps.get_mut(&number)?;
        if qp.waiting != Some(why) {
            (qp.waiting, qp.waited, qp.exhausted) = (Some(why), 0, false);
        }
        let used_up = qp.exhausted || qp.retries() == 0 || (limit > 0 && qp.waited >= limit);
        if !qp.retries_end() || !used_up {
            return None;
        }
        Some(if why == Waiting::Receive { Status::RNR_RETRY_EXC_ERR } else { Status::RETRY_EXC_ERR })
    }

    /// A poll of a completion queue: counts for the retries of those that send to it.
    pub(crate) fn before_poll(&mut self, cq: u32) {
        for qp in self.qps.values_mut().filter(|qp| qp.send_cq == cq && qp.waiting.is_some()) {
            qp.waited = qp.waited.saturating_add(1);
        }
        self.run();
    }

    /// Every retry that can end has ended.
    pub(crate) fn exhaust_retries(&mut self) {
        for qp in self.qps.values_mut().filter(|qp| qp.waiting.is_some()) {
            qp.exhausted = true;
        }
        self.run();
    }

    fn execute(&mut self, number: u32, send: &Send) -> Outcome {
        let Some(qp) = self.qps.get(&number) else { return DONE };
        let (kind, pd, context, port_num) = (qp.kind, qp.pd, qp.context, qp.attr.port_num);
        match send.opcode {
            Wr::LOCAL_INV => return self.local_invalidate(pd, send.imm),
            Wr::BIND_MW => return send.bind.map_or(DONE, |bind| self.bind(number, pd, bind)),
            _ => {}
        }
        let max = self.port(context, u32::from(port_num)).map_or(0, |port| port.max_msg_sz);
        if send.data.len() as u64 > u64::from(max) {
            return Outcome::Done(Status::LOC_LEN_ERR);
        }
        match kind {
            Type::UD => self.send_datagram(number, send),
            Type::RAW_PACKET => self.send_raw(number, send),
            _ => self.send_connected(number, send),
        }
    }

    /// A frame, as it is.
    fn send_raw(&mut self, number: u32, send: &Send) -> Outcome {
        let Some((pd, device)) = self.qps.get(&number).map(|qp| (qp.pd, qp.device)) else { return DONE };
        let Ok(frame) = self.gather(pd, &send.data) else { return Outcome::Done(Status::LOC_PROT_ERR) };
        self.send_frame(device, &frame);
        DONE
    }

    fn local_invalidate(&mut self, pd: u32, rkey: u32) -> Outcome {
        if self.invalidate(pd, rkey) { DONE } else { Outcome::Done(Status::MW_BIND_ERR) }
    }

    /// Ends the binding of a window of type 2 by its key. `false`: there is no such one.
    pub(crate) fn invalidate(&mut self, pd: u32, rkey: u32) -> bool {
        let Some(Key::Window(window)) = self.keys.get(&rkey).copied() else { return false };
        let roots = (self.root_pd(pd), self.mws.get(&window).map(|mw| self.root_pd(mw.pd)));
        let Some(mw) = self.mws.get_mut(&window) else { return false };
        if mw.kind != sys::IbvMwType::TYPE_2 || mw.bound.is_none() || roots.1 != Some(roots.0) {
            return false;
        }
        mw.bound = None;
        true
    }

    fn bind(&mut self, number: u32, pd: u32, bind: Bind) -> Outcome {
        if self.try_bind(number, pd, bind).is_some() { DONE } else { Outcome::Done(Status::MW_BIND_ERR) }
    }

    fn try_bind(&mut self, number: u32, pd: u32, bind: Bind) -> Option<()> {
        let mw = self.mws.get(&bind.mw)?;
        let (old, kind, mw_pd) = (mw.rkey, mw.kind, mw.pd);
        let typed = (kind == sys::IbvMwType::TYPE_2) == bind.rkey.is_some();
        let still_bound = kind == sys::IbvMwType::TYPE_2 && mw.bound.is_some();
        if !typed || still_bound || self.root_pd(mw_pd) != self.root_pd(pd) {
            return None;
        }
        let rkey = bind.rkey.unwrap_or_else(|| sys::ibv_inc_rkey(old));
        if rkey >> 8 != old >> 8 {
            return None;
        }
        let bound = match bind.mr {
            None => None,
            Some(mr) => {
                let region = self.mrs.get(&mr)?;
                let offset = bind.addr.checked_sub(region.iova)?;
                let inside = offset.checked_add(bind.len)? <= region.len;
                let writes = sys::IBV_ACCESS_REMOTE_WRITE | sys::IBV_ACCESS_REMOTE_ATOMIC;
                let may_write = bind.access & writes == 0 || region.access & sys::IBV_ACCESS_LOCAL_WRITE != 0;
                let may_bind = region.access & sys::IBV_ACCESS_MW_BIND != 0;
                if !inside || !may_write || !may_bind || self.root_pd(region.pd) != self.root_pd(pd) {
                    return None;
                }
                let qp = (kind == sys::IbvMwType::TYPE_2).then_some(number);
                Some(Bound { mr, addr: bind.addr, len: bind.len, access: bind.access, qp })
            }
        };
        self.keys.remove(&old);
        self.keys.insert(rkey, Key::Window(bind.mw));
        let mw = self.mws.get_mut(&bind.mw)?;
        (mw.rkey, mw.bound) = (rkey, bound);
        Some(())
    }
}
