//! The short way of messages on loan: announced, shown where they lie, given back.
//!
//! Called under the engine's lock, as [`super::quick`] is, and by the same rules: each call does the whole of what the long way does
//! for one message that meets no obstacle, or nothing at all.

use super::op::{Charge, Loan, Memory, Op, SendOp, SendState};
use super::quick::Look;
use super::rendezvous::Status;
use super::table::Key;
use super::{Core, SELF_OWNER};
use crate::completion::Completion;
use sinew_proto::matching::{Arrival, Wanted};
use sinew_transport::{Buf, Descriptor, Peek, Peeked, View};
use sinew_wire::frame::{Flags, Header, Kind};

/// A message that was received without memory for it.
#[derive(Debug)]
pub(crate) enum Shown {
    /// A short one, copied.
    Copied(Vec<u8>),
    /// The sender's memory.
    Lent(View, Loan),
}

impl Core {
    /// Takes one message of at most `len_max` bytes from the lane that had the last one, if it is what was `wanted` and nobody
    /// else wants it: where it is, when it was sent on loan.
    #[inline]
    pub(crate) fn view_quick(
        &mut self,
        number: u32,
        wanted: &Wanted,
        len_max: usize,
        got: &mut Option<(Completion, Shown)>,
    ) -> Look {
        if !self.taking.is_empty() {
            let accepts = |arrival: &Arrival| wanted.accepts(arrival);
            let Some((at, arrival)) = self.find_bundled(number, len_max, accepts) else { return Look::Other };
            let bytes = self.taking.data(at).to_vec();
            *got = Some((self.take_bundled(at, &arrival, bytes.len()), Shown::Copied(bytes)));
            return Look::Done;
        }
        if !self.may_look(number) {
            return Look::Other;
        }
        let permit = &mut self.permits.to_receive;
        let Some(lane) = self.lanes.get_mut(permit.lane).and_then(|slot| slot.lane.as_mut()) else {
            return Look::Other;
        };
        let peek = permit.look(lane.as_mut());
        let message = match &peek {
            Peek::Frame(message) => message,
            Peek::Nothing => return Look::Nothing,
            Peek::Poll => return Look::Other,
        };
        let lent = permit.covers_loan(message);
        if lent.is_none() && !permit.covers(message) {
            if message.header.kind == Kind::BUNDLE {
                return if permit.open(&mut self.taking, message) { Look::More } else { Look::Other };
            }
            let (header, status) = (message.header, message.body.prefix());
            return self.answer_quick(header, status);
        }
        let &Peeked { header, body } = message;
        let len = lent.map_or(body.len() as u64, |(_, len, _)| len);
        let (source, arrival) = permit.source(&header);
        let endpoint = self.endpoints.get((header.dst as usize).wrapping_sub(1)).and_then(Option::as_deref);
        if len > len_max as u64
            || !wanted.accepts(&arrival)
            || endpoint.is_none_or(|endpoint| endpoint.matcher.may_want(&arrival))
        {
            return Look::Other;
        }
        let info = Completion { len: len as usize, tag: header.tag, immediate: None, source };
        let Some((loan, _, descriptor)) = lent else {
            let bytes = body.to_vec();
            permit.receive(bytes.len());
            *got = Some((info, Shown::Copied(bytes)));
            return Look::Done;
        };
        match lane.view(&descriptor) {
            Ok(view) if view.len() == info.len => {
                permit.received = true;
                permit.envelopes -= 1;
                permit.loans += 1;
                permit.lent = permit.lent.wrapping_add(len);
                self.counters.envelopes += 1;
                *got = Some((info, Shown::Lent(view, loan)));
                Look::Done
            }
            _ => Look::Other,
        }
    }

    /// The frame that was shown is no message for whoever looks: it may be the word that a loan of ours is over.
    #[inline(never)]
    pub(super) fn answer_quick(&mut self, header: Header, status: Option<[u8; 4]>) -> Look {
        let key = Key(header.tag);
        let taken = header.kind == Kind::DONE && status.map(u32::from_le_bytes) == Some(Status::Taken as u32);
        let of_it = |op: &SendOp| {
            op.session == self.permits.to_receive.session
                && op.references == 0
                && matches!(op.state, SendState::Announced)
        };
        match self.ops.get(key) {
            Some(Op::Send(op)) if taken && of_it(op) => {
                if let Memory::Owned(buf) = &op.memory {
                    // Its next user writes where its reader has just read: at the beginning and the end, most likely.
                    let data = buf.data().as_ptr();
                    sinew_base::copy::soon_written(data);
                    sinew_base::copy::soon_written(data.wrapping_add(buf.len().saturating_sub(1)));
                }
            }
            _ => return Look::Other,
        }
        self.permits.to_receive.received = true;
        self.permits.to_receive.answers += 1;
        self.finish_send(key, Ok(()));
        Look::More
    }

    /// Announces a message that lies in the engine's pool, on a lane that is polled in memory: [`Core::lend_quick`] must follow at once. `None`:
    /// nothing has happened, take the long way.
    #[inline]
    pub(crate) fn announce_quick(
        &mut self,
        session_key: Key,
        flow: u32,
        header: &Header,
        buf: &Buf,
    ) -> Option<()> {
        if !self.flush_bundle() {
            return None;
        }
        let session = self.sessions.get_mut(session_key)?;
        let state = session.flows.get(flow as usize)?;
        let may = session.ready && state.pending.is_empty() && !state.closed;
        if !may || session.charge_envelope(state) != Some(Charge::Shared) {
            return None;
        }
        let slot = session.active.and_then(|lane| self.lanes.get_mut(lane))?;
        let lane = slot.lane.as_mut().filter(|_| slot.memory_polled && slot.owner != SELF_OWNER)?;
        let Ok(Some(Descriptor(descriptor))) = lane.describe(buf) else { return None };
        let key = self.ops.next_key();
        let len = buf.len() as u64;
        let envelope =
            Header { kind: Kind::ENVELOPE, flags: header.flags.with(Flags::DESCRIPTOR), ..*header };
        let mut body = [0; 16 + size_of::<Descriptor>()];
        body[..8].copy_from_slice(&key.0.to_le_bytes());
        body[8..16].copy_from_slice(&len.to_le_bytes());
        body[16..].copy_from_slice(&descriptor);
        if !lane.post_short(&envelope, &body) {
            return None;
        }
        session.pay_envelope(flow, Charge::Shared);
        slot.count_sent(session);
        if let (Some(active), false) = (session.active, slot.astir) {
            self.stir(active);
        }
        if let Some(endpoint) = self.endpoint(header.src) {
            endpoint.messages_sent += 1;
            endpoint.bytes_sent += len;
        }
        Some(())
    }

    /// The operation of a message that was just announced: it ends when the receiver has given the memory back.
    #[inline]
    pub(crate) fn lend_quick(&mut self, session: Key, flow: u32, header: &Header, buf: Buf) -> Key {
        // Not `SendOp::new`, with which it is moved once more: some 30 instructions.
        self.ops.insert(Op::Send(SendOp {
            session,
            flow,
            header: *header,
            immediate: None,
            memory: Memory::Owned(buf),
            state: SendState::Announced,
            references: 0,
            stripes: 0,
            waiter: None,
            detached: false,
            buffered: false,
            pushed: 0,
        }))
    }

    /// Gives a loan back at once, and its view to the lane if that takes it. `false`: nothing has happened, take the long way.
    #[inline]
    pub(crate) fn return_quick(&mut self, loan: Loan, view: &mut Option<View>) -> bool {
        let Some(session) = self.sessions.get_mut(loan.session) else { return true };
        let Some(slot) = session.active.and_then(|lane| self.lanes.get_mut(lane)) else { return false };
        let memory_polled = slot.memory_polled && slot.owner != SELF_OWNER;
        let Some(lane) = slot.lane.as_mut().filter(|_| session.ready && memory_polled) else { return false };
        let header = Header::control(Kind::DONE, loan.sender_op);
        if !lane.post_short(&header, &(Status::Taken as u32).to_le_bytes()) {
            return false;
        }
        *view = view.take().and_then(|view| lane.take_view(view));
        if !session.kept.is_empty() {
            session.kept.remove(&loan.sender_op);
        }
        slot.count_sent(session);
        if let (Some(active), false) = (session.active, slot.astir) {
            self.stir(active);
        }
        true
    }
}
