//! Short messages that were staged or sent in a batch share frames: packing on the one side, taking them out on the other.
//!
//! Called by the short way ([`super::quick`]), which packs and takes; by `outbound` and `inbound`, when a bundle meets an
//! obstacle or comes the long way. An open bundle belongs to the permit to send, one that is being taken to the permit to
//! receive: [`Core::settle`](super::Core::settle) ends both, so that nothing but quick calls ever sees one. What it must not do:
//! keep a message from going out any longer than staging allows.

use super::Core;
use super::inbound::{Handled, OVERHEAD};
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

/// A bundle that came the short way, and what is left of it.
#[derive(Debug)]
pub(crate) struct Taking {
    session: Key,
    lane: Key,
    source: Source,
    header: Header,
    messages: Opened,
    /// A bit for each message that nobody has taken yet.
    left: u32,
}

impl Default for Taking {
    fn default() -> Self {
        Self {
            session: Key::NONE,
            lane: Key::NONE,
            source: Source::new(0, 0, 0),
            header: Header::control(Kind::BUNDLE, 0),
            messages: Opened::new(),
            left: 0,
        }
    }
}

impl Taking {
    #[inline(always)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes a bundle in that costs at most `credit`. `false`: it is left to the long way.
    #[inline(never)]
    pub(crate) fn open(
        &mut self,
        (session, lane): (Key, Key),
        engine: u32,
        header: &Header,
        body: Body<'_>,
        credit: u64,
    ) -> bool {
        if !unpack(&mut self.messages, header, body) || self.cost() > credit {
            return false;
        }
        (self.session, self.lane) = (session, lane);
        self.source = Source::new(session.0, engine, header.src);
        self.header = *header;
        self.left = u32::MAX >> (32 - self.messages.count());
        true
    }

    /// What all of it costs.
    fn cost(&self) -> u64 {
        self.messages.data_len() as u64 + self.messages.count() as u64 * OVERHEAD
    }

    /// Where its messages come from.
    #[inline(always)]
    pub(crate) const fn source(&self) -> Source {
        self.source
    }

    /// The oldest message that is left.
    #[inline(always)]
    pub(crate) fn first(&self) -> (usize, Arrival) {
        let at = self.left.trailing_zeros() as usize;
        (at, self.arrival(at))
    }

    #[inline(always)]
    fn arrival(&self, at: usize) -> Arrival {
        Arrival { tag: self.messages.tag(at), untagged: self.messages.untagged(), source: self.source.key }
    }

    /// The oldest message that is left and wanted.
    #[inline(always)]
    pub(crate) fn find(&self, wanted: impl Fn(&Arrival) -> bool) -> Option<(usize, Arrival)> {
        let mut left = self.left;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            let arrival = self.arrival(at);
            if wanted(&arrival) {
                return Some((at, arrival));
            }
            left &= left - 1;
        }
        None
    }

    /// A message's bytes.
    #[inline(always)]
    pub(crate) fn data(&self, at: usize) -> &[u8] {
        self.messages.data(at)
    }

    /// A message is taken.
    #[inline(always)]
    pub(crate) const fn take(&mut self, at: usize) {
        self.left &= !(1 << at);
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
        for (at, (tag, data)) in opened.messages().enumerate() {
            let header = Header { kind: Kind::EAGER, tag, ..*header };
            self.arrive(session_key, &header, at, Body::from_slice(data))?;
        }
        Ok(())
    }

    /// What nobody has taken of a bundle that came the short way goes the way of all messages.
    #[inline(never)]
    pub(crate) fn spill_bundle(&mut self) {
        let mut taking = std::mem::take(&mut self.taking);
        while !taking.is_empty() {
            let (at, _) = taking.first();
            taking.take(at);
            let header = Header { kind: Kind::EAGER, tag: taking.messages.tag(at), ..taking.header };
            if let Err(text) = self.arrive(taking.session, &header, at, Body::from_slice(taking.data(at))) {
                taking.left = 0;
                let object = format!("{:?}: {text}", Kind::BUNDLE);
                let error = TransportError::new(ErrorKind::Protocol, "frame", object);
                self.violated(taking.lane, &error);
            }
        }
        self.taking = taking;
    }
}
