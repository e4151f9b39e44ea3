//! Completions: how requests end, flushes, events, overruns.

use crate::fault::{Fault, Hold};
use crate::request::{Completion, Receive, Send};
use crate::world::{About, Armed, State};
use sinew_verbs_sys as sys;
use sys::{IbvQpState as QpState, IbvWcStatus as Status};

/// What a receive got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrival {
    pub(crate) len: u32,
    /// Came with a write.
    pub(crate) of_write: bool,
    pub(crate) imm: Option<u32>,
    pub(crate) invalidated: Option<u32>,
    pub(crate) solicited: bool,
    pub(crate) src_qp: u32,
    pub(crate) has_grh: bool,
    pub(crate) slid: u16,
    pub(crate) sl: u8,
}

fn wc(wr_id: u64, status: Status, qp_num: u32) -> sys::ibv_wc {
    let mut wc = sys::ibv_wc::zeroed();
    (wc.wr_id, wc.status, wc.qp_num) = (wr_id, status, qp_num);
    if status != Status::SUCCESS {
        wc.vendor_err = 0xfa00 + status.0;
    }
    wc
}

impl State {
    /// Ends a send request. One that succeeded unsignaled is told of by the next that is signaled.
    pub(crate) fn end_send(&mut self, number: u32, send: Send, status: Status) {
        let Some(qp) = self.qps.get_mut(&number) else { return };
        qp.untold += 1;
        let len = u32::try_from(send.data.len()).unwrap_or(u32::MAX);
        let signaled = qp.all_signaled || send.flags & sys::IBV_SEND_SIGNALED != 0;
        let (opcode, wr_id, is_answered) = (send.completed_as(), send.wr_id, send.is_answered());
        qp.untold_touches.extend(send.touches);
        if status == Status::SUCCESS && !signaled {
            return;
        }
        let mut wc = wc(wr_id, status, number);
        wc.opcode = opcode;
        wc.byte_len = if is_answered { len } else { 0 };
        let completion = Completion {
            wc,
            at: 0,
            solicited: status != Status::SUCCESS,
            is_send: true,
            qp: number,
            sends: core::mem::take(&mut qp.untold),
            receives: 0,
            srq: None,
            touches: core::mem::take(&mut qp.untold_touches),
        };
        let cq = qp.send_cq;
        self.tell(number, cq, completion);
    }

    /// Ends a receive request.
    pub(crate) fn end_receive(&mut self, number: u32, receive: Receive, status: Status, got: Arrival) {
        let Some(qp) = self.qps.get_mut(&number) else { return };
        let mut wc = wc(receive.wr_id, status, number);
        wc.opcode = if got.of_write { sys::IbvWcOpcode::RECV_RDMA_WITH_IMM } else { sys::IbvWcOpcode::RECV };
        (wc.byte_len, wc.src_qp, wc.slid, wc.sl) = (got.len, got.src_qp, got.slid, got.sl);
        if let Some(imm) = got.imm {
            wc.imm_data = imm;
            wc.wc_flags |= sys::IBV_WC_WITH_IMM;
        }
        if let Some(rkey) = got.invalidated {
            wc.imm_data = rkey;
            wc.wc_flags |= sys::IBV_WC_WITH_INV;
        }
        if got.has_grh {
            wc.wc_flags |= sys::IBV_WC_GRH;
        }
        let completion = Completion {
            wc,
            at: 0,
            solicited: got.solicited || status != Status::SUCCESS,
            is_send: false,
            qp: number,
            sends: 0,
            receives: u32::from(qp.srq.is_none()),
            srq: qp.srq,
            touches: receive.touches,
        };
        let cq = qp.recv_cq;
        self.tell(number, cq, completion);
    }

    /// Puts a completion into its queue, or keeps it back where its queue pair holds it.
    fn tell(&mut self, number: u32, cq: u32, completion: Completion) {
        let Some(qp) = self.qps.get_mut(&number) else { return };
        let flushed = completion.wc.status == Status::WR_FLUSH_ERR;
        let held = if flushed { qp.hold.flushes } else { qp.hold.completions };
        if held {
            qp.withheld.push_back((cq, completion));
        } else {
            self.push(cq, completion);
        }
    }

    /// Puts a completion into a queue, with an event where that waits for one.
    pub(crate) fn push(&mut self, handle: u32, mut completion: Completion) {
        self.ticks += 1;
        completion.at = self.ticks;
        let Some(cq) = self.cqs.get_mut(&handle) else { return };
        if let Some(alteration) = cq.alterations.pop_front() {
            let wc = &mut completion.wc;
            wc.wr_id = alteration.wr_id.unwrap_or(wc.wr_id);
            wc.status = alteration.status.map_or(wc.status, Status);
            wc.opcode = alteration.opcode.map_or(wc.opcode, sys::IbvWcOpcode);
            wc.qp_num = alteration.qp_num.unwrap_or(wc.qp_num);
        }
        if cq.queue.len() >= cq.size {
            let first = !core::mem::replace(&mut cq.overrun, true);
            let context = cq.context;
            self.faults.push(Fault::Overrun { handle });
            if first {
                self.raise(context, sys::IbvEventType::CQ_ERR, About::Object(handle));
            }
            return;
        }
        let wakes = match cq.armed {
            Armed::Any => true,
            Armed::Solicited => completion.solicited,
            Armed::No => false,
        };
        cq.queue.push_back(completion);
        if wakes {
            cq.armed = Armed::No;
            if let Some(channel) = cq.channel.and_then(|channel| self.channels.get_mut(&channel)) {
                channel.events.push_back(handle);
                channel.notifier.set(true);
            }
        }
    }

    /// Puts a queue pair into the error state: what is under way is flushed.
    pub(crate) fn fail(&mut self, number: u32) {
        let Some(qp) = self.qps.get_mut(&number) else { return };
        let first = core::mem::replace(&mut qp.state, QpState::ERR) != QpState::ERR;
        for (_, completion) in &mut qp.withheld {
            if completion.is_send && completion.wc.status == Status::SUCCESS {
                completion.wc = wc(completion.wc.wr_id, Status::WR_FLUSH_ERR, number);
            }
        }
        let (context, id, shared) = (qp.context, qp.id, qp.srq.is_some());
        if !qp.hold.flushes {
            self.tell_withheld(number);
        }
        self.flush(number);
        if first && shared {
            self.raise(context, sys::IbvEventType::QP_LAST_WQE_REACHED, About::Object(id));
        }
    }

    /// Ends what is in the queues of a queue pair as flushed: first the sends, then the receives of its own queue.
    pub(crate) fn flush(&mut self, number: u32) {
        self.flush_sends(number);
        while let Some(receive) = self.qps.get_mut(&number).and_then(|qp| qp.receives.pop_front()) {
            self.end_receive(number, receive, Status::WR_FLUSH_ERR, Arrival::default());
        }
    }

    /// Ends what is in the send queue as flushed.
    pub(crate) fn flush_sends(&mut self, number: u32) {
        while let Some(send) = self.qps.get_mut(&number).and_then(|qp| qp.sends.pop_front()) {
            self.end_send(number, send, Status::WR_FLUSH_ERR);
        }
        if let Some(qp) = self.qps.get_mut(&number) {
            (qp.waiting, qp.waited, qp.exhausted) = (None, 0, false);
        }
    }

    fn tell_withheld(&mut self, number: u32) {
        while let Some((cq, completion)) = self.qps.get_mut(&number).and_then(|qp| qp.withheld.pop_front()) {
            self.push(cq, completion);
        }
    }

    /// Puts a queue pair back to its beginning: what is under way is dropped without a word, as the specification says.
    pub(crate) fn reset(&mut self, number: u32) {
        self.clean_completions(number);
        let Some(qp) = self.qps.get_mut(&number) else { return };
        qp.state = QpState::RESET;
        qp.attr = crate::object::qp::fresh(qp.kind);
        qp.sends.clear();
        qp.receives.clear();
        qp.withheld.clear();
        qp.untold_touches.clear();
        (qp.sends_used, qp.receives_used, qp.untold) = (0, 0, 0);
        (qp.waiting, qp.waited, qp.exhausted) = (None, 0, false);
    }

    /// Takes the completions of a queue pair out of the queues, as providers do when it goes.
    pub(crate) fn clean_completions(&mut self, number: u32) {
        let mut shared = Vec::new();
        for cq in self.cqs.values_mut() {
            cq.queue.retain(|completion| {
                if completion.qp == number {
                    shared.extend(completion.srq);
                }
                completion.qp != number
            });
        }
        for srq in shared {
            if let Some(srq) = self.srqs.get_mut(&srq) {
                srq.used = srq.used.saturating_sub(1);
            }
        }
    }

    /// Changes what a queue pair holds, and goes on with what it no longer holds.
    pub(crate) fn set_hold(&mut self, number: u32, hold: Hold) {
        if let Some(qp) = self.qps.get_mut(&number) {
            qp.hold = hold;
            if !hold.completions && !hold.flushes {
                self.tell_withheld(number);
            }
        }
        self.run();
    }
}
