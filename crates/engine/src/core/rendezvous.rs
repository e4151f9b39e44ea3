//! Messages whose data is fetched on match: envelopes, fetches, fragments, and pulls of described memory.
#![allow(unsafe_code)]

use super::Core;
use super::inbound::Handled;
use super::op::{Charge, Envelope, Fetch, Loan, Memory, Op, RecvOp, RecvState, SendState, Unexpected, Way};
use super::ranges::Ranges;
use super::session::ControlBody;
use super::stripes::stripe_token;
use super::table::Key;
use crate::completion::{Completion, Source};
use crate::error::OpError;
use sinew_proto::matching::{Arrival, Pattern};
use sinew_transport::{Body, Lane, LaneError, Placement, PostError, Pull, Token};
use sinew_wire::frame::{Header, Kind};
use std::ptr::NonNull;

/// How a receiver ended an envelope, as `DONE` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    /// The receive has what it asked for.
    Taken = 0,
    /// There is no such endpoint.
    NoEndpoint = 1,
}

/// Posts a fragment from memory of a send operation.
pub(crate) fn post_borrowed(
    lane: &mut dyn Lane,
    header: &Header,
    data: NonNull<u8>,
    len: usize,
    token: Token,
) -> Result<(), PostError> {
    // SAFETY: `data..data + len` lies in the memory of the operation that `token` names. The operation stays in the
    // table, and its memory lent and unwritten, until all references are released or reclaimed (`SendOp::references`).
    unsafe { lane.try_post_borrowed(header, data, len, token) }
}

impl Core {
    /// A receive has matched an envelope: fetch its data, or pull it where it is described. Its first `pushed` bytes come unasked:
    /// 0 unless they are all still to come.
    pub(crate) fn begin_fetch(
        &mut self,
        op_key: Key,
        envelope: Envelope,
        info: Completion,
        arrival: Arrival,
        wanted: Pattern,
        pushed: u64,
    ) {
        let forgotten = self.is_revoked_later(op_key);
        let Some(Op::Recv(op)) = self.ops.get_mut(op_key) else { return };
        let expected = envelope.len.min(op.memory.len() as u64);
        // They come in pieces that are taken whole.
        let pushed = if pushed <= expected && !forgotten { pushed } else { 0 };
        let way = if envelope.descriptor.is_some() { Way::Pulled } else { Way::Fragments };
        let len_max = match op.memory {
            Memory::Later { len_max } => Some(len_max),
            _ => None,
        };
        self.fetches = self.fetches.wrapping_add(1);
        let turn = self.fetches;
        let fetch = Fetch {
            envelope,
            info,
            arrival,
            received: 0,
            arrived: Ranges::default(),
            expected,
            way,
            turn,
            wanted,
            len_max,
            pushed,
        };
        op.number = fetch.envelope.number;
        op.state = RecvState::Fetching(Box::new(fetch));
        let endpoint = op.endpoint;
        self.keep_envelope(&envelope, endpoint, Some(op_key));
        if expected == 0 {
            self.complete_fetch(op_key);
        } else if envelope.descriptor.is_some() {
            self.pulls.push(op_key);
        } else if pushed == expected {
            self.give_memory(op_key);
        } else {
            self.send_fetch(op_key);
        }
    }

    /// Shows a described message in place, if its lane can and the receive has no memory of its own.
    fn view_described(&mut self, op_key: Key) -> bool {
        let Some(Op::Recv(op)) = self.ops.get_mut(op_key) else { return false };
        let RecvState::Fetching(fetch) = &op.state else { return false };
        let Fetch { envelope, info, expected, .. } = **fetch;
        if !matches!(op.memory, Memory::Later { .. }) || expected < envelope.len {
            return false;
        }
        let Some(descriptor) = envelope.descriptor else { return false };
        let lane = self.lanes.get_mut(envelope.lane).and_then(|slot| slot.lane.as_mut());
        let Some(Ok(view)) = lane.map(|lane| lane.view(&descriptor)) else { return false };
        if view.len() as u64 != envelope.len {
            return false;
        }
        op.memory =
            Memory::Viewed { view, loan: Loan { session: envelope.session, sender_op: envelope.sender_op } };
        self.finish_recv(op_key, Ok(info));
        true
    }

    /// A loan is given back: the sender has its memory again.
    pub(crate) fn return_loan(&mut self, loan: Loan) {
        self.send_done(loan.session, loan.sender_op, Status::Taken);
    }

    /// A receive that left its memory to later gets as much as it takes of the message.
    fn give_memory(&mut self, op_key: Key) {
        if let Some(Op::Recv(op)) = self.ops.get_mut(op_key)
            && let RecvState::Fetching(fetch) = &op.state
            && matches!(op.memory, Memory::Later { .. })
        {
            op.memory = Memory::Owned(sinew_transport::Buf::zeroed(fetch.expected as usize));
        }
    }

    fn send_fetch(&mut self, op_key: Key) {
        self.give_memory(op_key);
        let Some(Op::Recv(op)) = self.ops.get_mut(op_key) else { return };
        let RecvState::Fetching(fetch) = &mut op.state else { return };
        fetch.way = Way::Fragments;
        let Fetch { envelope, received, expected, turn, pushed, .. } = **fetch;
        let from = received.max(pushed);
        let len = expected - from;
        let body = if self.is_single(envelope.session) {
            ControlBody::numbers([op_key.0, from, len])
        } else {
            ControlBody::numbers([op_key.0, from, len, u64::from(turn)])
        };
        self.send_control(envelope.session, Header::control(Kind::FETCH, envelope.sender_op), body);
    }

    /// Pulls what envelopes described, on the lanes that they came by; fetches where that lane is gone.
    #[cold]
    pub(crate) fn pull_described(&mut self) {
        for op_key in std::mem::take(&mut self.pulls) {
            if self.view_described(op_key) {
                continue;
            }
            self.give_memory(op_key);
            let Some(Op::Recv(op)) = self.ops.get(op_key) else { continue };
            let RecvState::Fetching(fetch) = &op.state else { continue };
            let Fetch { envelope, expected, .. } = **fetch;
            let Some(descriptor) = envelope.descriptor else { continue };
            let target = op.memory.data();
            let lane = self.lanes.get_mut(envelope.lane).and_then(|slot| slot.lane.as_mut());
            let result = lane.map(|lane| {
                // SAFETY: the receive holds the target, of at least `expected` bytes, until it leaves the table; before
                // that `revoke_everywhere` makes the lane forget it.
                unsafe { lane.pull(&descriptor, target, expected as usize, Token(op_key.0)) }
            });
            match result {
                Some(Ok(Pull::Done)) => self.handle_pulled(op_key, Ok(())),
                Some(Ok(Pull::Pending)) => {}
                Some(Ok(Pull::Declined) | Err(_)) | None => self.send_fetch(op_key),
            }
        }
    }

    /// A pull has ended.
    pub(crate) fn handle_pulled(&mut self, op_key: Key, result: Result<(), LaneError>) {
        if result.is_err() {
            self.send_fetch(op_key);
            return;
        }
        if let Some(Op::Recv(op)) = self.ops.get_mut(op_key)
            && let RecvState::Fetching(fetch) = &mut op.state
            && fetch.way == Way::Pulled
        {
            fetch.received = fetch.expected;
            self.complete_fetch(op_key);
        }
    }

    /// A lane is gone: what it was pulling is asked for.
    pub(crate) fn pulls_lost(&mut self, lane: Key) {
        let lost = self.ops.iter().filter_map(|(key, op)| match op {
            Op::Recv(op) => match &op.state {
                RecvState::Fetching(fetch) if fetch.way == Way::Pulled && fetch.envelope.lane == lane => {
                    Some(key)
                }
                _ => None,
            },
            Op::Send(_) => None,
        });
        let lost: Vec<Key> = lost.filter(|key| !self.pulls.contains(key)).collect();
        self.pulls.extend(lost);
    }

    fn complete_fetch(&mut self, op_key: Key) {
        self.give_memory(op_key);
        let Some(Op::Recv(op)) = self.ops.get(op_key) else { return };
        let RecvState::Fetching(fetch) = &op.state else { return };
        let Fetch { envelope, info, .. } = **fetch;
        let buffer_len = op.memory.len();
        self.send_done(envelope.session, envelope.sender_op, Status::Taken);
        let result = if envelope.len > buffer_len as u64 {
            Err(OpError::Truncated {
                message_len: envelope.len,
                buffer_len,
                tag: info.tag,
                source: info.source,
            })
        } else {
            Ok(info)
        };
        self.finish_recv(op_key, result);
    }

    pub(crate) fn send_done(&mut self, session: Key, sender_op: u64, status: Status) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.kept.remove(&sender_op);
        }
        let body = (status as u32).to_le_bytes();
        self.send_control(session, Header::control(Kind::DONE, sender_op), body);
    }

    /// The receiver asks for data.
    pub(crate) fn handle_fetch(&mut self, session_key: Key, header: &Header, body: Body<'_>) -> Handled {
        let (Some(receiver), Some(offset), Some(len)) = (body.u64_at(0), body.u64_at(8), body.u64_at(16))
        else {
            return Err("fetch too short");
        };
        let key = Key(header.tag);
        let Some(Op::Send(op)) = self.ops.get_mut(key) else {
            self.send_control(session_key, Header::control(Kind::WITHDRAW, header.tag), []);
            return Ok(());
        };
        if op.session != session_key || op.header.kind != Kind::EAGER {
            return Err("a fetch of something else than a message");
        }
        let end = offset
            .checked_add(len)
            .filter(|&end| end <= op.memory.len() as u64)
            .ok_or("a fetch beyond the message")?;
        let queued = match op.state {
            SendState::Announced | SendState::Posted => false,
            SendState::Moving { .. } => true,
            _ => return Ok(()),
        };
        // A receiver that takes no stripes gives no turn.
        let (flow, pushed) = (op.flow, std::mem::take(&mut op.pushed));
        let turn = body.u64_at(24).filter(|_| Self::may_be_striped(end)).map(|turn| turn as u16);
        op.state = SendState::Moving { receiver, next: offset, end, turn };
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.stripes_welcome = turn.is_some();
            session.push_answered(flow, key, pushed, offset >= pushed);
            if !queued {
                session.transfers.push_back(key);
            }
        }
        self.tend_later(session_key);
        self.mark_dirty(session_key);
        Ok(())
    }

    /// Posts up to `count` fragments. `Ok(true)`: this transfer has none left.
    pub(crate) fn post_fragments(
        &mut self,
        session_key: Key,
        key: Key,
        lane: &mut dyn Lane,
        count: usize,
    ) -> Result<bool, PostError> {
        let fragment_max = lane.info().limits.borrowed_max as u64;
        for _ in 0..count {
            let Some(Op::Send(op)) = self.ops.get_mut(key) else { return Ok(true) };
            let SendState::Moving { receiver, next, end, turn } = op.state else { return Ok(true) };
            // `next < end <= memory.len()`, checked when the fetch came.
            let (data, len) = op.memory.piece(next as usize, (end - next).min(fragment_max) as usize);
            if len == 0 {
                op.state = SendState::Posted;
                return Ok(true);
            }
            post_borrowed(lane, &Header::data(receiver, next), data, len, Token(key.0))?;
            op.references += 1;
            op.state = SendState::Moving { receiver, next: next + len as u64, end, turn };
            if let Some(session) = self.sessions.get_mut(session_key) {
                session.sent += 1;
            }
        }
        Ok(false)
    }

    /// Where a fragment belongs, if a receive of this session waits for exactly it, and which one that is.
    fn fragment_target(
        &mut self,
        session_key: Key,
        header: &Header,
        len: usize,
    ) -> Option<(Key, NonNull<u8>)> {
        let key = self.receiver_of(session_key, header)?;
        let Some(Op::Recv(op)) = self.ops.get_mut(key) else { return None };
        let RecvState::Fetching(fetch) = &op.state else { return None };
        let end = header.offset().checked_add(len as u64)?;
        if fetch.way != Way::Fragments
            || fetch.envelope.session != session_key
            || end > fetch.expected
            || (header.kind == Kind::PUSH) != (end <= fetch.pushed)
            || !fetch.arrived.is_free(header.offset(), end)
        {
            return None;
        }
        // SAFETY: `offset <= expected <= memory.len()`.
        Some((key, unsafe { op.memory.data().add(header.offset() as usize) }))
    }

    /// The receive that a fragment says that it is for.
    fn receiver_of(&self, session_key: Key, header: &Header) -> Option<Key> {
        if header.kind == Kind::PUSH {
            return self.sessions.get(session_key)?.kept.get(&header.tag)?.op;
        }
        Some(Key(header.tag))
    }

    /// A whole fragment in the lane's memory.
    pub(crate) fn handle_data(&mut self, session_key: Key, header: &Header, body: Body<'_>) -> Handled {
        if let Some((key, target)) = self.fragment_target(session_key, header, body.len()) {
            let whole = match self.ops.get(key) {
                Some(Op::Recv(RecvOp { state: RecvState::Fetching(fetch), .. })) => fetch.expected as usize,
                _ => body.len(),
            };
            // SAFETY: the target has room for `body.len()` bytes and belongs to the receive, which is in the table.
            unsafe { body.copy_part_to_raw(target.as_ptr(), whole) };
            self.fragment_arrived(key, header.offset(), body.len());
        }
        Ok(())
    }

    /// A fragment begins to arrive on a lane that reads into place.
    pub(crate) fn place_data(&mut self, session_key: Key, header: &Header, len: usize) -> Placement {
        match self.fragment_target(session_key, header, len) {
            Some((key, target)) => Placement::Into { target, token: Token(key.0) },
            None => Placement::Discard,
        }
    }

    /// A placed (or discarded) fragment is complete.
    pub(crate) fn handle_placed(&mut self, session_key: Key, header: &Header, len: usize) {
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.received += 1;
            session.traffic += 1;
        }
        if let Some((key, _)) = self.fragment_target(session_key, header, len) {
            self.fragment_arrived(key, header.offset(), len);
        }
    }

    pub(super) fn fragment_arrived(&mut self, op_key: Key, offset: u64, len: usize) {
        let Some(Op::Recv(op)) = self.ops.get_mut(op_key) else { return };
        let RecvState::Fetching(fetch) = &mut op.state else { return };
        if len > 0 && !fetch.arrived.add(offset, offset + len as u64) {
            return;
        }
        fetch.received += len as u64;
        let session = fetch.envelope.session;
        if fetch.received == fetch.expected {
            if self.sessions.get(session).is_some_and(|session| session.lanes.len() > 1) {
                // A lane that the peer has left may be in the middle of a fragment that came by this one.
                self.revoke_everywhere(session, op_key);
            }
            self.complete_fetch(op_key);
        }
    }

    /// The receiver is done with an envelope.
    pub(crate) fn handle_done(&mut self, session_key: Key, header: &Header, body: Body<'_>) -> Handled {
        let status = body.prefix().map(u32::from_le_bytes).ok_or("done too short")?;
        let key = Key(header.tag);
        let Some(Op::Send(op)) = self.ops.get_mut(key) else { return Ok(()) };
        if op.session != session_key || !op.state.is_out() {
            return Ok(());
        }
        let result = if status == Status::NoEndpoint as u32 { Err(OpError::EndpointClosed) } else { Ok(()) };
        if op.references == 0 {
            self.finish_send(key, result);
            return Ok(());
        }
        op.state = SendState::Releasing(result);
        let striped = op.stripes > 0;
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.asks = true;
        }
        if striped {
            self.ask_carriers(session_key);
        }
        self.mark_dirty(session_key);
        Ok(())
    }

    /// Makes all lanes of a session forget the target of a receive. A lane that is just being polled does so when that has
    /// ended, before anybody can collect the receive.
    pub(crate) fn revoke_everywhere(&mut self, session_key: Key, op_key: Key) {
        self.pulls.retain(|&pull| pull != op_key);
        let Some(session) = self.sessions.get(session_key) else { return };
        for &lane in &session.lanes {
            match self.lanes.get_mut(lane).map(|slot| slot.lane.as_mut()) {
                Some(Some(lane)) => {
                    lane.revoke(Token(op_key.0));
                    lane.revoke(stripe_token(op_key));
                }
                Some(None) => {
                    self.revoked.push((lane, Token(op_key.0)));
                    self.revoked.push((lane, stripe_token(op_key)));
                }
                None => {}
            }
        }
    }

    /// A receive gives up a message that it had begun to fetch: the message waits for another receive, and so do those that came
    /// behind it on its session, behind the messages of others: its sender may be one that never sends it, and receives that give up
    /// soon would take no other message.
    pub(crate) fn put_back(
        &mut self,
        endpoint: u32,
        envelope: Envelope,
        arrival: Arrival,
        immediate: Option<u64>,
    ) {
        if !self.sessions.get(envelope.session).is_some_and(super::Session::is_up) {
            return;
        }
        let Some(state) = self.endpoint(endpoint) else { return };
        if let Some((other, wanted)) = state.matcher.arrive_wanted(&arrival) {
            let source = Source { session: envelope.session.0, key: arrival.source };
            let info = Completion { len: envelope.len as usize, tag: arrival.tag, immediate, source };
            self.begin_fetch(other, envelope, info, arrival, wanted, 0);
            return;
        }
        // Its credit went back to the sender when it was matched: counted twice, it would look like an overrun of theirs.
        let envelope = Envelope { charge: Charge::Nothing, ..envelope };
        let came_behind =
            |_: &Arrival, other: &Unexpected| other.came_behind(envelope.session, envelope.number);
        state.matcher.store_last(arrival, Unexpected::Envelope { envelope, immediate }, came_behind);
        self.keep_envelope(&envelope, endpoint, None);
        self.wake_for_arrival();
    }
}
