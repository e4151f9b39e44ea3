//! Short messages that were staged or sent in a batch share frames: packing on the one side, taking them out on the other.
//!
//! Called by the short way ([`super::quick`]), which packs and takes; by `outbound` and `inbound`, when a bundle meets an
//! obstacle or comes the long way. An open bundle belongs to the permit to send: [`Core::settle`](super::Core::settle) ends it.
//! What it must not do: keep a message from going out any longer than staging allows.
//!
//! # What is left of bundles
//! Messages that nobody has taken yet stay in [`Taking`], as the youngest of those that wait at their endpoint. Quick calls see
//! them there. Whatever else may look at that endpoint or bring something to it spills them first, that is, gives them out or
//! stores them as if they had come now: [`Core::settle`](super::Core::settle), each frame of another lane, the end of a lane or
//! session. Only the turns of progress of a receive that goes on looking leave them ([`Core::settle_but_bundles`]), and leave
//! their lane out: it is looked at by that receive.

use super::Core;
use super::inbound::{Handled, OVERHEAD, numbered};
use super::table::Key;
use crate::completion::Source;
use sinew_proto::matching::Arrival;
use sinew_transport::{Body, ErrorKind, PostError, TransportError};
use sinew_wire::frame::bundle::{BODY_MAX, MESSAGES_MAX, Opened, Packer};
use sinew_wire::frame::{Flags, Header, Kind};
use std::io::IoSlice;

// Every lane takes frames of 4,096 bytes (`sinew_transport::Limits`).
const _: () = assert!(BODY_MAX <= 4096);

/// Messages up to this length share frames: a longer one would be copied twice more for what its frame costs.
pub(crate) const SHORT_MAX: usize = 128;

/// A bundle that is being packed, or waits for room.
#[derive(Debug)]
pub(crate) struct Packing {
    /// Of its messages, as if each went alone.
    header: Header,
    messages: Packer,
}

impl Default for Packing {
    fn default() -> Self {
        Self { header: Header::control(Kind::EAGER, 0), messages: Packer::new() }
    }
}

impl Packing {
    #[inline(always)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.messages.count() == 0
    }

    /// How many messages it has.
    #[inline]
    pub(crate) const fn count(&self) -> u64 {
        self.messages.count() as u64
    }

    /// Adds a message; `false`: there is no room.
    #[inline(always)]
    pub(crate) fn push(&mut self, header: &Header, data: &[u8]) -> bool {
        if self.is_empty() {
            self.header = *header;
        }
        self.messages.push(header.tag, header.flags.contains(Flags::UNTAGGED), data)
    }

    /// Posts it, as a message alone if it has one only.
    pub(crate) fn post(&mut self, lane: &mut dyn sinew_transport::Lane) -> Result<(), PostError> {
        if let Some((tag, data)) = self.messages.single() {
            lane.try_post(&Header { tag, ..self.header }, &[IoSlice::new(data)])?;
        } else {
            let [lengths, tags, data] = self.messages.parts().map(IoSlice::new);
            let header = Header { kind: Kind::BUNDLE, tag: self.messages.count() as u64, ..self.header };
            lane.try_post(&header, &[lengths, tags, data])?;
        }
        self.messages.clear();
        Ok(())
    }
}

/// How many messages a frame of this engine's holds.
pub(crate) fn messages_in(header: &Header) -> u64 {
    match header.kind {
        Kind::EAGER => 1,
        Kind::BUNDLE => header.tag.min(MESSAGES_MAX as u64),
        _ => 0,
    }
}

/// Copies a bundle into private memory. `false`: the frame is none.
fn unpack(messages: &mut Opened, header: &Header, body: Body<'_>) -> bool {
    let untagged = header.flags.contains(Flags::UNTAGGED);
    let copy = |into: &mut [u8]| {
        body.copy_to(into);
    };
    header.flags.0 & !Flags::UNTAGGED.0 == 0 && messages.open(header.tag, untagged, body.len(), copy).is_ok()
}

/// Bundles of which something may be left before the next one has to go the long way: messages are often wanted in nearly the
/// order in which they were sent, and what stands at the border of two bundles must not make all go that way.
const BUNDLES: usize = 4;

/// Bundles that came the short way on one lane for one endpoint, the oldest first. What is left of them is younger than what
/// waits at the endpoint, and older than what is in the lane.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    bundles: [Bundle; BUNDLES],
    /// Which is the oldest, of which something is left, and how many there are.
    first: usize,
    count: usize,
}

/// A message of them: which bundle, and which message of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    bundle: usize,
    message: usize,
}

/// Where a bundle comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) session: Key,
    pub(crate) lane: Key,
    /// What stands for the peer's engine in sources.
    pub(crate) engine: u32,
    /// The place of its first message in what the session brings.
    pub(crate) number: u64,
}

impl Taking {
    #[inline(always)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether another bundle can be taken in.
    #[inline(always)]
    pub(crate) const fn has_room(&self) -> bool {
        self.count < BUNDLES
    }

    /// The endpoint that they are for. Only when not empty.
    pub(crate) const fn endpoint(&self) -> u32 {
        self.bundles[self.first].header.dst
    }

    /// The lane that they came on. Only when not empty.
    pub(crate) const fn lane(&self) -> Key {
        self.bundles[self.first].origin.lane
    }

    /// Takes a bundle in, if all that is left then costs at most `credit`. `false`: it is left to the long way.
    pub(crate) fn open(&mut self, origin: Origin, header: &Header, body: Body<'_>, credit: u64) -> bool {
        let bundle = &mut self.bundles[(self.first + self.count) % BUNDLES];
        if self.count == BUNDLES || !bundle.open(origin, header, body) {
            return false;
        }
        self.count += 1;
        let affordable = self.cost() <= credit;
        if !affordable {
            self.count -= 1;
        }
        affordable
    }

    /// What all that is left costs.
    fn cost(&self) -> u64 {
        let bundles = (0..self.count).map(|number| &self.bundles[(self.first + number) % BUNDLES]);
        bundles.map(Bundle::cost).sum()
    }

    /// The oldest message that is left.
    #[inline(always)]
    pub(crate) fn first(&self) -> Option<(At, Arrival)> {
        self.find(|_| true)
    }

    /// The oldest message that is left and wanted.
    #[inline(always)]
    pub(crate) fn find(&self, wanted: impl Fn(&Arrival) -> bool) -> Option<(At, Arrival)> {
        for number in 0..self.count {
            let bundle = (self.first + number) % BUNDLES;
            if let Some((message, arrival)) = self.bundles[bundle].find(&wanted) {
                return Some((At { bundle, message }, arrival));
            }
        }
        None
    }

    /// A message's bytes.
    #[inline(always)]
    pub(crate) fn data(&self, at: At) -> &[u8] {
        self.bundles[at.bundle].messages.data(at.message)
    }

    /// Where a message comes from.
    #[inline(always)]
    pub(crate) const fn source(&self, at: At) -> Source {
        self.bundles[at.bundle].source
    }

    /// The place of a message in what its session brings.
    pub(crate) const fn number(&self, at: At) -> u64 {
        self.bundles[at.bundle].origin.number + at.message as u64
    }

    /// A message is taken.
    #[inline(always)]
    pub(crate) const fn take(&mut self, at: At) {
        let bundle = &mut self.bundles[at.bundle];
        bundle.left &= !(1 << at.message);
        if bundle.left == 0 {
            self.forget_empty();
        }
    }

    /// Forgets what is left.
    const fn clear(&mut self) {
        self.count = 0;
    }

    /// Bundles of which nothing is left go, from the oldest on.
    const fn forget_empty(&mut self) {
        while self.count > 0 && self.bundles[self.first].left == 0 {
            self.first = (self.first + 1) % BUNDLES;
            self.count -= 1;
        }
    }

    /// Takes out the oldest message that is left: where it came from, its header as if it had come alone, its place, and
    /// where its bytes are.
    fn pop(&mut self) -> Option<(Origin, Header, At)> {
        let (at, arrival) = self.first()?;
        let Bundle { origin, header, .. } = self.bundles[at.bundle];
        let number = self.number(at);
        self.take(at);
        Some((Origin { number, ..origin }, Header { kind: Kind::EAGER, tag: arrival.tag, ..header }, at))
    }
}

/// A bundle that came the short way, and what is left of it.
#[derive(Debug)]
struct Bundle {
    origin: Origin,
    source: Source,
    header: Header,
    messages: Opened,
    /// A bit for each message that nobody has taken yet.
    left: u32,
}

impl Default for Bundle {
    fn default() -> Self {
        Self {
            origin: Origin { session: Key::NONE, lane: Key::NONE, engine: 0, number: 0 },
            source: Source::new(0, 0, 0),
            header: Header::control(Kind::BUNDLE, 0),
            messages: Opened::new(),
            left: 0,
        }
    }
}

impl Bundle {
    fn open(&mut self, origin: Origin, header: &Header, body: Body<'_>) -> bool {
        if !unpack(&mut self.messages, header, body) {
            return false;
        }
        self.origin = origin;
        self.source = Source::new(origin.session.0, origin.engine, header.src);
        self.header = *header;
        self.left = u32::MAX >> (32 - self.messages.count());
        true
    }

    /// What is left of it costs.
    fn cost(&self) -> u64 {
        if self.left.count_ones() as usize == self.messages.count() {
            return self.messages.data_len() as u64 + self.messages.count() as u64 * OVERHEAD;
        }
        let left = (0..self.messages.count()).filter(|at| self.left & 1 << at != 0);
        left.map(|at| self.messages.data(at).len() as u64 + OVERHEAD).sum()
    }

    /// The oldest message that is left and wanted.
    #[inline(always)]
    fn find(&self, wanted: impl Fn(&Arrival) -> bool) -> Option<(usize, Arrival)> {
        let (untagged, source) = (self.messages.untagged(), self.source.key);
        let mut left = self.left;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            let arrival = Arrival { tag: self.messages.tag(at), untagged, source };
            if wanted(&arrival) {
                return Some((at, arrival));
            }
            left &= left - 1;
        }
        None
    }
}

impl Core {
    /// Sends the open bundle if there is one. `false`: there is no room for it now.
    #[inline(always)]
    pub(crate) fn flush_bundle(&mut self) -> bool {
        self.packing.is_empty() || self.post_bundle()
    }

    #[inline(never)]
    pub(crate) fn post_bundle(&mut self) -> bool {
        let lane = self.permits.bundle_lane();
        let Some(lane) = self.lanes.get_mut(lane).and_then(|slot| slot.lane.as_mut()) else { return false };
        let posted = self.packing.post(lane.as_mut()).is_ok();
        if posted {
            self.permits.bundle_posted();
        }
        posted
    }

    /// The permit to send ends, and its bundle found no room: it waits in its session, before all else that is not posted.
    #[cold]
    pub(crate) fn park_bundle(&mut self, session_key: Key) {
        let Some(session) = self.sessions.get_mut(session_key) else {
            self.packing.messages.clear();
            return;
        };
        let mut waiting = self.spare_packing.take().unwrap_or_default();
        std::mem::swap(&mut *waiting, &mut self.packing);
        self.packing.messages.clear();
        session.parked = Some(waiting);
        session.ready = false;
        self.mark_dirty(session_key);
    }

    /// Posts a bundle that waited for room.
    pub(crate) fn pump_parked(
        &mut self,
        key: Key,
        lane: &mut dyn sinew_transport::Lane,
    ) -> Result<(), PostError> {
        let Some(session) = self.sessions.get_mut(key) else { return Ok(()) };
        let Some(parked) = session.parked.as_mut() else { return Ok(()) };
        parked.post(lane)?;
        session.sent += 1;
        self.spare_packing = session.parked.take();
        Ok(())
    }

    /// A bundle that came the long way.
    pub(crate) fn handle_bundle(&mut self, session_key: Key, header: &Header, body: Body<'_>) -> Handled {
        let mut opened = Opened::new();
        if !unpack(&mut opened, header, body) {
            return Err("no bundle of messages");
        }
        let Some(first) = self.sessions.get_mut(session_key).map(|session| numbered(session.received)) else {
            return Ok(());
        };
        for (at, (tag, data)) in opened.messages().enumerate() {
            let header = Header { kind: Kind::EAGER, tag, ..*header };
            self.arrive(session_key, &header, first + at as u64, Body::from_slice(data))?;
        }
        Ok(())
    }

    /// What is left of bundles that came the short way goes the way of all messages.
    #[inline(always)]
    pub(crate) fn spill_bundles(&mut self) {
        if !self.taking.is_empty() {
            self.spill_now();
        }
    }

    #[cold]
    #[inline(never)]
    fn spill_now(&mut self) {
        let mut bytes = [0; BODY_MAX];
        while let Some((origin, header, at)) = self.taking.pop() {
            let data = self.taking.data(at);
            let bytes = &mut bytes[..data.len()];
            bytes.copy_from_slice(data);
            if let Err(text) = self.arrive(origin.session, &header, origin.number, Body::from_slice(bytes)) {
                self.taking.clear();
                let object = format!("{:?}: {text}", Kind::BUNDLE);
                let error = TransportError::new(ErrorKind::Protocol, "frame", object);
                self.violated(origin.lane, &error);
            }
        }
    }
}
