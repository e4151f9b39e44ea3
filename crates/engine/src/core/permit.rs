//! Permits: what stays true of one endpoint and one lane from one short message to the next.
//!
//! Called by the short way ([`super::quick`]), which counts its messages in them, and by [`super::bundle`]. [`Core::settle`] puts into
//! the books what was done under them; it stands at the entry of all that is not a quick call. What this must not do: decide
//! anything about a message, which is the short way's part.

use super::bundle::{Origin, SHORT_MAX, Taking};
use super::inbound::{OVERHEAD, numbered};
use super::op::Loan;
use super::table::Key;
use super::{Core, SELF_OWNER};
use crate::completion::Source;
use sinew_proto::matching::Arrival;
use sinew_transport::{Descriptor, Lane, Peek, Peeked};
use sinew_wire::frame::{Flags, Header, Kind};
use sinew_wire::hello::Features;

/// What stays true of one endpoint and one lane until anything but quick calls happens.
#[derive(Debug)]
pub(crate) struct Permit {
    /// The endpoint that receives or sends; 0: there is no permit.
    pub(crate) endpoint: u32,
    /// Where it sends to.
    pub(crate) flow: u32,
    /// From whom it receives: what stands for the peer's engine in sources.
    engine: u32,
    pub(crate) session: Key,
    pub(crate) lane: Key,
    /// Credit that may still be used, and what there was of it.
    pub(crate) credit: u64,
    granted: u64,
    /// Messages since, and the frames that had them.
    messages: u64,
    frames: u64,
    /// Envelopes that may still come.
    pub(crate) envelopes: u64,
    /// Messages on loan since, and their bytes.
    pub(crate) loans: u64,
    pub(crate) lent: u64,
    /// Answers to envelopes since.
    pub(crate) answers: u64,
    /// Frames of the session that had come before.
    before: u64,
    /// No message waited at the endpoint: none does as long as there are quick calls only.
    pub(crate) alone: bool,
    /// Messages to send that are shorter may share frames; 0: the peer takes no such frames.
    pub(crate) bundles_below: usize,
    /// Its lane is a socket: messages are posted, and go out with the next progress.
    pub(crate) staged_only: bool,
    /// To send over a socket: nothing that was posted waits for a flush.
    pub(crate) flushed: bool,
    /// To receive from a socket: looks ask the system.
    pub(crate) reads: bool,
    /// The frame that the lane showed last was received, and is to be taken before the lane is asked for anything.
    pub(crate) received: bool,
}

impl Permit {
    const NONE: Self = Self {
        endpoint: 0,
        flow: 0,
        engine: 0,
        session: Key::NONE,
        lane: Key::NONE,
        credit: 0,
        granted: 0,
        messages: 0,
        frames: 0,
        envelopes: 0,
        loans: 0,
        lent: 0,
        answers: 0,
        before: 0,
        alone: false,
        bundles_below: 0,
        staged_only: false,
        flushed: true,
        reads: false,
        received: false,
    };

    /// A message with a frame of its own.
    #[inline(always)]
    pub(crate) const fn count(&mut self, len: usize) {
        self.count_bundled(len);
        self.frames += 1;
    }

    /// A message that shares its frame.
    #[inline(always)]
    pub(crate) const fn count_bundled(&mut self, len: usize) {
        self.credit -= len as u64 + OVERHEAD;
        self.messages += 1;
    }

    /// Frames since.
    const fn all_frames(&self) -> u64 {
        self.frames + self.loans + self.answers
    }

    /// The place of the first message of the frame that came last.
    pub(crate) const fn number(&self) -> u64 {
        numbered(self.before + self.all_frames())
    }

    /// The next message of the permit's lane.
    #[inline(always)]
    pub(crate) fn look<'a>(&mut self, lane: &'a mut dyn Lane) -> Peek<'a> {
        lane.peek(std::mem::take(&mut self.received), QUICK_LOOKS)
    }

    /// The same, from the system too if that is the lane's way.
    #[inline(always)]
    pub(crate) fn look_or_read<'a>(&mut self, lane: &'a mut dyn Lane) -> Peek<'a> {
        if self.reads { lane.read(std::mem::take(&mut self.received), QUICK_LOOKS) } else { self.look(lane) }
    }

    /// Whether the message is for the permit's endpoint, plain and paid for.
    #[inline(always)]
    pub(crate) fn covers(&self, Peeked { header, body }: &Peeked<'_>) -> bool {
        header.kind == Kind::EAGER
            && header.dst == self.endpoint
            && header.flags.0 & (Flags::IMMEDIATE.0 | Flags::RESERVE.0) == 0
            && self.credit >= body.len() as u64 + OVERHEAD
    }

    /// The same for the envelope of a message on loan: who will hear of its return, how long it is, and where.
    #[inline(always)]
    pub(crate) fn covers_loan(
        &self,
        Peeked { header, body }: &Peeked<'_>,
    ) -> Option<(Loan, u64, Descriptor)> {
        let plain = header.kind == Kind::ENVELOPE
            && header.dst == self.endpoint
            && header.flags.0 & (Flags::IMMEDIATE.0 | Flags::RESERVE.0 | Flags::DESCRIPTOR.0)
                == Flags::DESCRIPTOR.0
            && self.envelopes > 0;
        if !plain {
            return None;
        }
        let loan = Loan { session: self.session, sender_op: body.u64_at(0)? };
        Some((loan, body.u64_at(8)?, Descriptor(body.skip(16).prefix()?)))
    }

    /// Where the message comes from.
    #[inline(always)]
    pub(crate) fn source(&self, header: &Header) -> (Source, Arrival) {
        let source = Source::new(self.session.0, self.engine, header.src);
        let untagged = header.flags.contains(Flags::UNTAGGED);
        (source, Arrival { tag: header.tag, untagged, source: source.key })
    }

    /// The message that was shown last has been received.
    #[inline(always)]
    pub(crate) fn receive(&mut self, len: usize) {
        self.received = true;
        self.count(len);
    }

    /// Takes the bundle that was shown last in. `false`: it is left to the long way.
    #[inline(never)]
    pub(crate) fn open(&mut self, taking: &mut Taking, Peeked { header, body }: &Peeked<'_>) -> bool {
        let number = numbered(self.before + self.all_frames() + 1);
        let from = Origin { session: self.session, lane: self.lane, engine: self.engine, number };
        let opened = header.dst == self.endpoint && taking.open(from, header, *body, self.credit);
        if opened {
            self.received = true;
            self.frames += 1;
        }
        opened
    }

    const fn cost(&self) -> u64 {
        self.granted - self.credit
    }

    /// Bytes of the messages.
    const fn bytes(&self) -> u64 {
        self.cost() - self.messages * OVERHEAD
    }
}

/// The permits of a core.
#[derive(Debug)]
pub(crate) struct Permits {
    pub(crate) to_send: Permit,
    pub(crate) to_receive: Permit,
}

impl Permits {
    /// The lane that the open bundle goes to.
    pub(crate) const fn bundle_lane(&self) -> Key {
        self.to_send.lane
    }

    /// The open bundle was posted.
    pub(crate) const fn bundle_posted(&mut self) {
        self.to_send.frames += 1;
    }
}

impl Default for Permits {
    fn default() -> Self {
        Self { to_send: Permit::NONE, to_receive: Permit::NONE }
    }
}

/// Looks at the busiest lane before each turn of progress.
pub(super) const QUICK_LOOKS: u32 = 16;
/// Quick receives between turns that look at everything, while messages come in one after the other.
const TURNS_PER_LONG: u32 = 256;

impl Core {
    #[inline(never)]
    pub(crate) fn permit_to_send(&mut self, session_key: Key, flow: u32, src: u32, staged: bool) -> bool {
        self.settle_sent();
        let Some(session) = self.sessions.get_mut(session_key) else { return false };
        let Some(state) = session.flows.get_mut(flow as usize) else { return false };
        let Some(lane) = session.active else { return false };
        if !session.ready || !state.pending.is_empty() || state.closed {
            return false;
        }
        let credit = session.bytes.affordable().min(state.bytes.affordable());
        let bundles = session.peer.features.contains(Features::BUNDLES);
        let Some(slot) = self.lanes.get_mut(lane) else { return false };
        let staged_only = !slot.memory_polled;
        if (staged_only && !staged) || slot.owner == SELF_OWNER {
            return false;
        }
        self.stir(lane);
        self.permits.to_send = Permit {
            endpoint: src,
            flow,
            session: session_key,
            lane,
            credit,
            granted: credit,
            bundles_below: if bundles { SHORT_MAX + 1 } else { 0 },
            staged_only,
            ..Permit::NONE
        };
        true
    }

    /// Whether there is a permit to look for messages of the endpoint; now and then there is none.
    #[inline(always)]
    pub(crate) fn may_look(&mut self, number: u32) -> bool {
        if self.permits.to_receive.endpoint != number && !self.permit_to_receive(number, false) {
            return false;
        }
        let turns = self.turns.wrapping_add(1);
        let may = !turns.is_multiple_of(TURNS_PER_LONG);
        if may {
            self.turns = turns;
        } else {
            self.look_due |= self.permits.to_receive.reads;
        }
        may
    }

    /// `reads`: a socket will do that has nothing in memory.
    #[inline(never)]
    pub(crate) fn permit_to_receive(&mut self, number: u32, reads: bool) -> bool {
        self.book_received();
        if !self.dirty.is_empty() || !self.pulls.is_empty() {
            return false;
        }
        if self.taking.is_empty() || self.taking.endpoint() != number {
            self.spill_bundles();
            if self.effects.must_run() {
                // It may panic: nothing must be taken out of the engine before that.
                return false;
            }
        }
        let lane = match self.hot_socket.filter(|_| reads || self.socket_has_more()) {
            _ if !self.taking.is_empty() => self.taking.lane(),
            _ if self.polls_memory() => self.last_hot,
            Some(socket) => socket,
            None => return false,
        };
        let Some(slot) = self.lanes.get_mut(lane) else { return false };
        if slot.hot != slot.memory_polled || !slot.inbound || !slot.waiting.is_empty() {
            return false;
        }
        let session_key = slot.session;
        let windows = self.config.windows;
        let Some(session) = self.sessions.get_mut(session_key) else { return false };
        let Some(endpoint) =
            self.endpoints.get_mut((number as usize).wrapping_sub(1)).and_then(Option::as_deref_mut)
        else {
            return false;
        };
        let alone = !endpoint.matcher.has_unexpected();
        let reads = reads && !slot.memory_polled;
        let inflow = endpoint.inflow(session_key, &windows);
        let credit = inflow.bytes.headroom().min(session.granted_bytes.headroom());
        let envelopes = inflow.envelopes.headroom().min(session.granted_envelopes.headroom());
        let (engine, before) = (session.peer.number, session.received);
        self.stir(lane);
        self.permits.to_receive = Permit {
            endpoint: number,
            engine,
            session: session_key,
            lane,
            credit,
            granted: credit,
            envelopes,
            before,
            alone,
            reads,
            ..Permit::NONE
        };
        true
    }

    /// Ends the permits, puts what was done under them into the books, and leaves nothing of bundles. Whether code of the
    /// application is to be run for that.
    #[inline(always)]
    pub(crate) fn settle(&mut self) -> bool {
        let any =
            self.permits.to_send.endpoint | self.permits.to_receive.endpoint != 0 || !self.taking.is_empty();
        any && self.settle_now()
    }

    #[inline(never)]
    fn settle_now(&mut self) -> bool {
        self.settle_but_bundles();
        self.spill_bundles();
        self.effects.must_run()
    }

    /// The same, but what is left of bundles stays where it is, for a receive that goes on looking after a turn of progress.
    /// It is spilled by whatever brings something else: a frame of another lane, the end of a lane or session.
    pub(crate) fn settle_but_bundles(&mut self) {
        self.settle_sent();
        self.book_received();
    }

    fn settle_sent(&mut self) {
        if !self.flush_bundle() {
            self.park_bundle(self.permits.to_send.session);
        }
        let permit = std::mem::replace(&mut self.permits.to_send, Permit::NONE);
        if permit.messages == 0 {
            return;
        }
        if let Some(session) = self.sessions.get_mut(permit.session) {
            session.bytes.take_afforded(permit.cost());
            session.flows[permit.flow as usize].bytes.take_afforded(permit.cost());
            session.sent += permit.frames;
            session.traffic += permit.messages;
        }
        if let Some(endpoint) = self.endpoint(permit.endpoint) {
            endpoint.messages_sent += permit.messages;
            endpoint.bytes_sent += permit.bytes();
        }
        if let Some(slot) = self.lanes.get_mut(permit.lane) {
            slot.frames_sent += permit.frames;
            if permit.staged_only && permit.flushed {
                return;
            }
            if permit.staged_only {
                // With what else goes out at the end of the turn, or with the send that settles it: one system call.
                self.mark_dirty(permit.session);
            } else if let Some(lane) = &mut slot.lane {
                // An error of this is found by whoever uses the lane next.
                let _ = lane.flush();
            }
        }
    }

    fn book_received(&mut self) {
        let permit = std::mem::replace(&mut self.permits.to_receive, Permit::NONE);
        let frames = permit.all_frames();
        if frames != 0 || permit.messages != 0 {
            self.book(&permit, frames);
        }
    }

    fn book(&mut self, permit: &Permit, frames: u64) {
        if let Some(slot) = self.lanes.get_mut(permit.lane) {
            slot.idle = 0;
            slot.frames_received += frames;
            if let (true, Some(lane)) = (permit.received, &mut slot.lane) {
                lane.take_peeked();
            }
        }
        let windows = self.config.windows;
        let Some(session) = self.sessions.get_mut(permit.session) else { return };
        session.received += frames;
        session.traffic += frames;
        session.granted_bytes.pass_allowed(permit.cost());
        session.granted_envelopes.pass_allowed(permit.loans);
        let mut due = session.granted_bytes.is_due() || session.granted_envelopes.is_due();
        if let Some(endpoint) = self.endpoint(permit.endpoint) {
            endpoint.messages_received += permit.messages + permit.loans;
            endpoint.bytes_received =
                endpoint.bytes_received.wrapping_add(permit.bytes()).wrapping_add(permit.lent);
            let inflow = endpoint.inflow(permit.session, &windows);
            inflow.bytes.pass_allowed(permit.cost());
            inflow.envelopes.pass_allowed(permit.loans);
            due |= inflow.bytes.is_due() || inflow.envelopes.is_due();
        }
        if due {
            self.announce_credit(permit.session, permit.endpoint);
        }
    }
}
