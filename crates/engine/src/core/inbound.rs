//! Frames from peers: every length, number and key in them is the peer's word, checked before it is used.
//!
//! A handler answers `Err(text)` when the peer broke the protocol: the session is then closed with that reason.

use super::Core;
use super::op::{Charge, Envelope, Op, SendState, Unexpected};
use super::session::Kept;
use super::session::{Control, ControlBody};
use super::table::Key;
use crate::completion::{Completion, Source};
use crate::error::OpError;
use sinew_proto::credit::ReceiveCredit;
use sinew_proto::matching::Arrival;
use sinew_transport::{Body, Descriptor};
use sinew_wire::frame::bundle::MESSAGES_MAX;
use sinew_wire::frame::{Flags, Header, Kind};

pub(crate) type Handled = Result<(), &'static str>;

/// What a message costs of a receiver's credit beside its bytes.
pub(crate) const OVERHEAD: u64 = 64;
pub(crate) const OVERRUN: &str = "more unexpected bytes than granted";
/// Control frames that may wait for room; a peer that provokes more without reading is closed.
const OUTBOX_MAX: usize = 1 << 16;

/// The place of a frame's first message in what its session brings; the others in it come behind.
#[inline(always)]
pub(crate) const fn numbered(frame: u64) -> u64 {
    frame * MESSAGES_MAX as u64
}

/// What a message holds that waits for a receive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) session: Key,
    pub(crate) charge: Charge,
    /// Bytes, or one envelope.
    pub(crate) cost: u64,
}

pub(crate) fn kept_cost(message: &Unexpected) -> Held {
    let (session, charge, cost) = match message {
        Unexpected::Small { len, session, charge, .. } => (session, charge, u64::from(*len) + OVERHEAD),
        Unexpected::Large { bytes, session, charge, .. } => (session, charge, bytes.len() as u64 + OVERHEAD),
        Unexpected::Envelope { envelope, .. } => (&envelope.session, &envelope.charge, 1),
    };
    Held { session: *session, charge: *charge, cost }
}

pub(crate) fn arrival(header: &Header, source: Source) -> Arrival {
    Arrival { tag: header.tag, untagged: header.flags.contains(Flags::UNTAGGED), source: source.key }
}

impl Core {
    /// A whole message.
    #[inline]
    pub(crate) fn handle_eager(&mut self, session_key: Key, header: &Header, body: Body<'_>) -> Handled {
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        session.received += 1;
        session.traffic += 1;
        let number = numbered(session.received);
        self.arrive(session_key, header, number, body)
    }

    /// A whole message of a frame that has been counted: `number` is its place in what the session brings.
    #[inline]
    pub(crate) fn arrive(
        &mut self,
        session_key: Key,
        header: &Header,
        number: u64,
        body: Body<'_>,
    ) -> Handled {
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        let (immediate, body) = if header.flags.contains(Flags::IMMEDIATE) {
            (Some(body.u64_at(0).ok_or("no room for the immediate data")?), body.skip(8))
        } else {
            (None, body)
        };
        let cost = body.len() as u64 + OVERHEAD;
        let source = Source::new(session_key.0, session.peer.number, header.src);
        let Some(endpoint) =
            self.endpoints.get_mut((header.dst as usize).wrapping_sub(1)).and_then(Option::as_deref_mut)
        else {
            return self.refuse_endpoint(session_key, header, cost);
        };
        endpoint.messages_received += 1;
        endpoint.bytes_received = endpoint.bytes_received.wrapping_add(body.len() as u64);
        let arrival = arrival(header, source);
        let receiver = endpoint.matcher.arrive(&arrival);
        let direct = receiver.is_none() && self.direct.accepts(header.dst, &arrival);
        let of_batch =
            if receiver.is_none() && !direct { self.direct_batch.find(header.dst, &arrival) } else { None };
        let inflow = endpoint.inflow(session_key, &self.config.windows);
        let waits = receiver.is_none() && !direct && of_batch.is_none();
        // A reserve is the endpoint's alone: the session's shared credit has no part in it.
        let shared = !header.flags.contains(Flags::RESERVE);
        let credit = if shared { &mut inflow.bytes } else { &mut inflow.reserve_bytes };
        let count = |credit: &mut ReceiveCredit| {
            if waits { credit.receive(cost).is_ok() } else { credit.pass(cost).is_ok() }
        };
        if !count(credit) || (shared && !count(&mut session.granted_bytes)) {
            return Err(OVERRUN);
        }
        if waits {
            let message = Unexpected::whole(body, immediate, (session_key, number), Charge::of(header));
            self.keep_eager(header.dst, arrival, message);
            return Ok(());
        }
        if credit.is_due() || (shared && session.granted_bytes.is_due()) {
            self.announce_credit(session_key, header.dst);
        }
        let info = Completion { len: body.len(), tag: header.tag, immediate, source };
        match (receiver, of_batch) {
            (Some(op), _) => self.deliver(op, number, &info, body),
            (None, Some(at)) => self.direct_batch.deliver(at, &info, body),
            (None, None) => self.direct.deliver(number, &info, body),
        }
        Ok(())
    }

    /// Keeps a message that nobody asked for yet.
    #[cold]
    fn keep_eager(&mut self, endpoint: u32, arrival: Arrival, message: Unexpected) {
        self.counters.unexpected += 1;
        if let Some(endpoint) = self.endpoint(endpoint) {
            endpoint.matcher.store(arrival, message);
        }
        self.wake_for_arrival();
    }

    /// A message for an endpoint that is not there: the sender is told, the credit goes back.
    #[cold]
    fn refuse_endpoint(&mut self, session_key: Key, header: &Header, cost: u64) -> Handled {
        if Charge::of(header) == Charge::Shared
            && let Some(session) = self.sessions.get_mut(session_key)
        {
            if session.granted_bytes.receive(cost).is_err() {
                return Err(OVERRUN);
            }
            session.granted_bytes.free(cost);
            if session.granted_bytes.is_due() {
                self.announce_credit(session_key, 0);
            }
        }
        let header = Header { src: header.dst, ..Header::control(Kind::ENDPOINT_CLOSED, 0) };
        self.send_control(session_key, header, []);
        Ok(())
    }

    /// Any other frame of the session's sequence.
    pub(crate) fn handle_sequenced(
        &mut self,
        session_key: Key,
        lane: Key,
        header: &Header,
        body: Body<'_>,
    ) -> Handled {
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        session.received += 1;
        session.traffic += 1;
        if session.outbox.len() > OUTBOX_MAX {
            return Err("too many requests without reading the answers");
        }
        match header.kind {
            Kind::ENVELOPE => self.handle_envelope(session_key, lane, header, body),
            Kind::FETCH => self.handle_fetch(session_key, header, body),
            Kind::DATA | Kind::PUSH => self.handle_data(session_key, header, body),
            Kind::DONE => self.handle_done(session_key, header, body),
            Kind::CREDIT => self.handle_credit(session_key, header, body),
            Kind::BUNDLE => self.handle_bundle(session_key, header, body),
            Kind::FLUSH => {
                self.send_control(session_key, Header::control(Kind::FLUSH_REPLY, header.tag), []);
                Ok(())
            }
            Kind::FLUSH_REPLY => {
                self.answer(session_key, header, Kind::FLUSH);
                Ok(())
            }
            Kind::LOOKUP => self.handle_lookup(session_key, header, body),
            Kind::LOOKUP_REPLY => {
                self.answer(session_key, header, Kind::LOOKUP);
                Ok(())
            }
            Kind::ENDPOINT_CLOSED => {
                self.peer_endpoint_closed(session_key, header.src);
                Ok(())
            }
            Kind::WITHDRAW => {
                self.handle_withdraw(session_key, header.tag);
                Ok(())
            }
            _ if header.flags.contains(Flags::OPTIONAL) => Ok(()),
            _ => Err("a kind that this version does not know"),
        }
    }

    fn handle_envelope(&mut self, session_key: Key, lane: Key, header: &Header, body: Body<'_>) -> Handled {
        let windows = self.config.windows;
        let (Some(sender_op), Some(len)) = (body.u64_at(0), body.u64_at(8)) else {
            return Err("envelope too short");
        };
        let mut rest = body.skip(16);
        let mut immediate = None;
        if header.flags.contains(Flags::IMMEDIATE) {
            immediate = Some(rest.u64_at(0).ok_or("envelope too short")?);
            rest = rest.skip(8);
        }
        let descriptor = if header.flags.contains(Flags::DESCRIPTOR) {
            Some(Descriptor(rest.prefix().ok_or("envelope too short")?))
        } else {
            None
        };
        let pushed = if descriptor.is_none() { rest.u64_at(0).unwrap_or(0) } else { 0 };
        if usize::try_from(len).is_err() || len > isize::MAX as u64 {
            return Err("a message longer than memory");
        }
        let charge = Charge::of(header);
        let held = Held { session: session_key, charge, cost: 1 };
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        if session.kept.contains_key(&sender_op) {
            return Err("a message announced twice");
        }
        let number = numbered(session.received);
        let envelope = Envelope { session: session_key, lane, sender_op, number, len, descriptor, charge };
        let source = Source::new(session_key.0, session.peer.number, header.src);
        self.counters.envelopes += 1;
        if charge == Charge::Shared && session.granted_envelopes.receive(1).is_err() {
            return Err("more envelopes than granted");
        }
        let Some(endpoint) = self.endpoint(header.dst) else {
            self.send_done(session_key, sender_op, super::rendezvous::Status::NoEndpoint);
            self.return_envelope(header.dst, held);
            return Ok(());
        };
        let inflow = endpoint.inflow(session_key, &windows);
        let credit = match charge {
            Charge::Reserve => &mut inflow.reserve_envelopes,
            _ => &mut inflow.envelopes,
        };
        if credit.receive(1).is_err() {
            return Err("more envelopes than granted");
        }
        endpoint.messages_received += 1;
        // The peer's word, which may be any: the count goes around.
        endpoint.bytes_received = endpoint.bytes_received.wrapping_add(len);
        let arrival = arrival(header, source);
        let receiver = match endpoint.matcher.arrive_wanted(&arrival) {
            None if self.direct.accepts(header.dst, &arrival) => Some(self.direct_to_operation()),
            None => self.direct_batch.find(header.dst, &arrival).map(|at| self.direct_batch_to_operation(at)),
            found => found,
        };
        if let Some((op, wanted)) = receiver {
            self.return_envelope(header.dst, held);
            let info = Completion { len: len as usize, tag: header.tag, immediate, source };
            self.begin_fetch(op, envelope, info, arrival, wanted, pushed);
            return Ok(());
        }
        let Some(endpoint) = self.endpoint(header.dst) else { return Ok(()) };
        endpoint.matcher.store(arrival, Unexpected::Envelope { envelope, immediate });
        self.keep_envelope(&envelope, header.dst, None);
        self.wake_for_arrival();
        Ok(())
    }

    fn handle_credit(&mut self, session_key: Key, header: &Header, body: Body<'_>) -> Handled {
        let (Some(bytes), Some(envelopes)) = (body.u64_at(0), body.u64_at(8)) else {
            return Err("credit too short");
        };
        let Some(session) = self.sessions.get_mut(session_key) else { return Ok(()) };
        let mut news = false;
        if header.dst == 0 {
            news = session.bytes.raise(bytes);
            if news {
                session.shortage.end();
            }
            news |= session.envelopes.raise(envelopes);
        } else if let Some(&flow) = session.flow_of.get(&header.dst) {
            let flow = &mut session.flows[flow as usize];
            news = flow.bytes.raise(bytes);
            news |= flow.reserve_bytes.raise(body.u64_at(16).unwrap_or(0));
            if news {
                flow.shortage.end();
            }
            news |= flow.envelopes.raise(envelopes);
            news |= flow.reserve_envelopes.raise(body.u64_at(24).unwrap_or(0));
        }
        if !session.pending_flows.is_empty() {
            self.mark_dirty(session_key);
        }
        if news {
            // A thread may sleep that has a message to post.
            self.effects.finish();
        }
        Ok(())
    }

    fn handle_lookup(&mut self, session_key: Key, header: &Header, body: Body<'_>) -> Handled {
        if body.len() > 64 {
            return Err("a name longer than 64 bytes");
        }
        let name = body.to_vec();
        let number = if header.dst != 0 {
            self.endpoint(header.dst).map(|endpoint| endpoint.number)
        } else if name.is_empty() {
            self.endpoints.iter().flatten().map(|endpoint| endpoint.number).next()
        } else {
            std::str::from_utf8(&name).ok().and_then(|name| self.names.get(name).copied())
        };
        let reply = Header { src: number.unwrap_or(0), ..Header::control(Kind::LOOKUP_REPLY, header.tag) };
        self.send_control(session_key, reply, []);
        Ok(())
    }

    /// The answer to a flush or a look-up of ours.
    fn answer(&mut self, session_key: Key, header: &Header, asked: Kind) {
        let key = Key(header.tag);
        let Some(Op::Send(op)) = self.ops.get_mut(key) else { return };
        if op.session != session_key || op.header.kind != asked || !matches!(op.state, SendState::Posted) {
            return;
        }
        let found = asked == Kind::FLUSH || header.src != 0;
        op.header.src = header.src;
        self.finish_send(key, if found { Ok(()) } else { Err(OpError::EndpointClosed) });
    }

    fn peer_endpoint_closed(&mut self, session_key: Key, number: u32) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let Some(&flow) = session.flow_of.get(&number) else { return };
        session.flows[flow as usize].closed = true;
        let ended: Vec<Key> = self
            .ops
            .iter()
            .filter(|(_, op)| {
                matches!(op, Op::Send(op) if op.session == session_key && op.flow == flow
                    && op.header.kind == Kind::EAGER && !matches!(op.state, SendState::Finished(_)))
            })
            .map(|(key, _)| key)
            .collect();
        for key in ended {
            self.end_send(key, OpError::EndpointClosed);
        }
        self.mark_dirty(session_key);
    }

    /// Remembers where an envelope is, until its sender is told that it is done with.
    pub(crate) fn keep_envelope(&mut self, envelope: &Envelope, endpoint: u32, op: Option<Key>) {
        if let Some(session) = self.sessions.get_mut(envelope.session) {
            session.kept.insert(envelope.sender_op, Kept { endpoint, op });
        }
    }

    /// The sender took an envelope back.
    fn handle_withdraw(&mut self, session_key: Key, sender_op: u64) {
        let session = self.sessions.get_mut(session_key);
        let Some(kept) = session.and_then(|session| session.kept.remove(&sender_op)) else { return };
        if let Some(key) = kept.op {
            self.unmatch(session_key, sender_op, key);
            return;
        }
        let Some(endpoint) = self.endpoint(kept.endpoint) else { return };
        let mut held = None;
        let other = |_: &Arrival, message: &mut Unexpected| {
            !matches!(message, Unexpected::Envelope { envelope, .. }
                if envelope.session == session_key && envelope.sender_op == sender_op)
        };
        endpoint.matcher.retain_unexpected(other, |_, message| held = Some(kept_cost(&message)));
        if let Some(held) = held {
            self.return_envelope(kept.endpoint, held);
        }
    }

    /// Tells the peer the present limits for an endpoint (0: the session alone).
    #[cold]
    pub(crate) fn announce_credit(&mut self, session_key: Key, dst: u32) {
        let windows = self.config.windows;
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let header = |dst| Header { dst, ..Header::control(Kind::CREDIT, 0) };
        let whole = [session.granted_bytes.announce(), session.granted_envelopes.announce()];
        session.outbox.push_back(Control { header: header(0), body: ControlBody::numbers(whole) });
        if let Some(endpoint) =
            self.endpoints.get_mut((dst as usize).wrapping_sub(1)).and_then(Option::as_deref_mut)
        {
            let body = ControlBody::numbers(endpoint.inflow(session_key, &windows).announce());
            session.outbox.push_back(Control { header: header(dst), body });
        }
        self.mark_dirty(session_key);
    }

    /// An unexpected message was taken: its credit goes back.
    pub(crate) fn return_bytes(&mut self, dst: u32, held: Held) {
        let Held { session: session_key, charge, cost } = held;
        let windows = self.config.windows;
        // Of one that is over nothing more comes: it has no credit, and none is kept for it.
        let Some(session) = self.sessions.get_mut(session_key).filter(|session| session.is_up()) else {
            return;
        };
        let mut due = false;
        if charge == Charge::Shared {
            session.granted_bytes.free(cost);
            due = session.granted_bytes.is_due();
        }
        if let Some(endpoint) = self.endpoint(dst) {
            let inflow = endpoint.inflow(session_key, &windows);
            let credit = match charge {
                Charge::Nothing => return,
                Charge::Shared => &mut inflow.bytes,
                Charge::Reserve => &mut inflow.reserve_bytes,
            };
            credit.free(cost);
            due |= credit.is_due();
        }
        if due {
            self.announce_credit(session_key, dst);
        }
    }

    /// An envelope was matched or withdrawn: another may come.
    pub(crate) fn return_envelope(&mut self, dst: u32, held: Held) {
        let Held { session: session_key, charge, .. } = held;
        let windows = self.config.windows;
        // Of one that is over nothing more comes: it has no credit, and none is kept for it.
        let Some(session) = self.sessions.get_mut(session_key).filter(|session| session.is_up()) else {
            return;
        };
        let mut due = false;
        if charge == Charge::Shared {
            session.granted_envelopes.free(1);
            due = session.granted_envelopes.is_due();
        }
        if let Some(endpoint) = self.endpoint(dst) {
            let inflow = endpoint.inflow(session_key, &windows);
            let credit = match charge {
                Charge::Nothing => return,
                Charge::Shared => &mut inflow.envelopes,
                Charge::Reserve => &mut inflow.reserve_envelopes,
            };
            credit.free(1);
            due |= credit.is_due();
        }
        if due {
            self.announce_credit(session_key, dst);
        }
    }

    /// Those who wait for any arrival (probes) look again.
    pub(crate) fn wake_for_arrival(&mut self) {
        self.effects.finish();
    }
}
