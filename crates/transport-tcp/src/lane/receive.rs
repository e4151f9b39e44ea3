//! The receive side of a lane: one buffer, parsed in place; large bodies read straight to where they belong.
//!
//! Used by the lane's `poll`. Everything that comes from the peer is checked here before it means anything.
#![allow(unsafe_code)]

use super::send_log::{ASK, ENGINE_FLAGS, PAD_MAX, PADDED, SendLog};
use super::{ACK, ASK_FRAME, BORROWED_MAX, FRAME_MAX};
use crate::memory::Target;
use crate::socket;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use sinew_transport::{Body, Peeked, Placement, Sink, Token};
use sinew_wire::frame::stream::{self, HEADER_LEN};
use sinew_wire::frame::{Flags, Header, Kind};
use std::ptr::NonNull;

/// What one receive takes beyond a large body, or before one: little more than the next heads, so that the next body goes to its
/// place, too.
const SPILL: usize = 512;
/// A body from this length on means that more such are coming.
const BULK_BODY: usize = 16 << 10;
/// Messages from this length on are asked a place for when they have only begun to arrive.
const PLACED_FROM: usize = 16 << 10;
/// Receives without such a body after which none is expected any more.
const BULK_READS: u8 = 8;

/// What the peer did that it must not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Violation {
    Header(stream::HeaderError),
    TooLong { kind: Kind, len: usize, max: usize },
    Pad(usize),
    Acknowledged(u64),
    UnknownKind(u8),
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::TooLong { kind, len, max } => {
                write!(f, "it sent a frame {kind:?} of {len} bytes, and {max} is the limit")
            }
            Self::Pad(len) => write!(f, "it sent a pad of {len} bytes, and it is 1 to {PAD_MAX}"),
            Self::Acknowledged(count) => write!(f, "it acknowledged frame {count}, which it cannot have"),
            Self::UnknownKind(kind) => write!(f, "it sent a lane frame of the unknown kind {kind:#04x}"),
        }
    }
}

/// A fragment of which only a part has arrived.
#[derive(Debug)]
struct Incoming {
    header: Header,
    len: usize,
    missing: usize,
    /// `None`: read aside.
    target: Option<(Target, Token)>,
}

/// What a system call brought.
#[derive(Debug)]
pub(super) enum Filled {
    /// As much as was asked for: there may be more.
    All,
    /// Less than was asked for: nothing more is there now.
    Some,
    /// Nothing.
    Nothing,
    /// The peer has ended its side, or the connection has failed.
    Ended(Option<Errno>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Receiver {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    incoming: Option<Incoming>,
    /// Large bodies arrive one by one: so many receives still take little more than a head each.
    bulk: u8,
    /// Bytes that the next frame needs in the buffer, from `start` on.
    need: usize,
    /// The last long message that came whole: bytes of its head and of its body.
    like: Option<(usize, usize)>,
    /// Where another like it was read to, until [`Receiver::parse`], in the same poll.
    expected: Option<Target>,
    /// Nobody has a place for the message that the buffer holds in part.
    refused: bool,
    /// The last [`Receiver::parse`], or [`Receiver::read_ahead`], left bytes unlooked at.
    pub(super) more: bool,
    /// Why [`Receiver::read_ahead`] failed: the system says it once.
    failed: Option<Errno>,
    /// Bytes of the frame that [`Receiver::show`] showed and nobody has taken.
    shown: usize,
    /// Frames handed up.
    pub(super) received: u64,
    /// A large body came since this was last cleared: the peer waits for its release.
    pub(super) owes_release: bool,
    /// The peer asked for an acknowledgement.
    pub(super) asked: bool,
    /// The peer has acknowledged frames since this was last cleared.
    pub(super) acknowledged: bool,
}

impl Receiver {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            buffer: vec![0; capacity.clamp(80 << 10, 1 << 20)].into_boxed_slice(),
            start: 0,
            end: 0,
            incoming: None,
            bulk: 0,
            need: 0,
            refused: false,
            like: None,
            expected: None,
            more: false,
            failed: None,
            shown: 0,
            received: 0,
            owes_release: false,
            asked: false,
            acknowledged: false,
        }
    }

    /// One receive, to where the next bytes belong.
    #[inline]
    pub(super) fn fill(&mut self, fd: BorrowedFd<'_>, sink: &mut dyn Sink) -> Filled {
        if let Some(errno) = self.failed.take() {
            return Filled::Ended(Some(errno));
        }
        let (asked, result) = match &mut self.incoming {
            Some(Incoming { target: Some((target, _)), missing, .. }) => {
                // `parse` has emptied the buffer into the target.
                let spill = &mut self.buffer[..SPILL];
                let asked = *missing + spill.len();
                let result = socket::recv_into(fd, &mut [], target, spill);
                if let Ok(count) = result {
                    let placed = count.min(*missing);
                    *missing -= placed;
                    (self.start, self.end) = (0, count - placed);
                }
                (asked, result)
            }
            None if self.bulk > 0 => match self.read_expected(fd, sink) {
                Some(read) => read,
                None => {
                    let missing = self.need.saturating_sub(self.end - self.start);
                    self.read(fd, missing + SPILL)
                }
            },
            _ => self.read(fd, usize::MAX),
        };
        match result {
            Ok(count) if count == asked => Filled::All,
            Ok(_) => Filled::Some,
            Err(Errno::AGAIN | Errno::INTR) => Filled::Nothing,
            Err(Errno::SHUTDOWN) => Filled::Ended(None),
            Err(errno) => Filled::Ended(Some(errno)),
        }
    }

    /// Whether [`Receiver::read_ahead`] may be called: nothing is in memory, under way or known, and no long messages come.
    #[inline]
    pub(super) fn may_read_ahead(&self) -> bool {
        self.start == self.end
            && !self.more
            && self.bulk == 0
            && self.incoming.is_none()
            && self.failed.is_none()
    }

    /// Receives once into the empty buffer. `None`: nothing is there. `true`: one frame has come, and nothing else, and it is to be
    /// shown; else the next poll finds what came, or the end of the stream, which the system says again.
    #[inline]
    pub(super) fn read_ahead(&mut self, fd: BorrowedFd<'_>) -> Option<bool> {
        match rustix::net::recv(fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Some(false),
            Ok((_, count)) => {
                (self.start, self.end, self.more) = (0, count, true);
                // Long ones are read to their places once a poll has seen the first.
                let whole = count < BULK_BODY && self.show().is_some();
                Some(whole && self.shown == count)
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(errno) => {
                self.failed = Some(errno);
                Some(false)
            }
        }
    }

    /// Receives up to `max` bytes into the buffer; the end of the stream is told as `ESHUTDOWN`. Also says how much it asked for.
    #[inline]
    fn read(&mut self, fd: BorrowedFd<'_>, max: usize) -> (usize, Result<usize, Errno>) {
        let place = &mut self.buffer[self.end..];
        let asked = place.len().min(max);
        let result = rustix::net::recv(fd, &mut place[..asked], RecvFlags::DONTWAIT);
        let result = result.and_then(|(_, count)| {
            self.end += count;
            self.bulk = self.bulk.saturating_sub(1);
            if count == 0 { Err(Errno::SHUTDOWN) } else { Ok(count) }
        });
        (asked, result)
    }

    /// Receives a message like the last long one straight to where it is expected, if it is anywhere: a receive that reads the head
    /// alone costs as much as copying the body. Also says how much it asked for. [`Receiver::parse`] must follow in the same poll.
    fn read_expected(
        &mut self,
        fd: BorrowedFd<'_>,
        sink: &mut dyn Sink,
    ) -> Option<(usize, Result<usize, Errno>)> {
        let (head_len, len) = self.like.filter(|_| self.start == self.end)?;
        let (data, _) = sink.expected().filter(|&(_, room)| len == room)?;
        // SAFETY: writable, and accessed by nobody else, during this poll, says the sink; `take_expected` drops it before that ends.
        let mut target = unsafe { Target::new(data, len) };
        let (head, rest) = self.buffer.split_at_mut(head_len);
        let result = socket::recv_into(fd, head, &mut target, rest.get_mut(len..len + SPILL)?);
        if let Ok(count) = result {
            self.bulk = self.bulk.saturating_sub(1);
            (self.start, self.end) = (0, count);
            self.expected = Some(target);
        }
        Some((head_len + len + SPILL, result))
    }

    /// What was read to where a message was expected: hands the message up from there, if it is one. `false`: it was not, and what came
    /// is in the buffer, or it is there in part, and under way.
    fn take_expected(&mut self, target: Target, sink: &mut dyn Sink) -> Result<bool, Violation> {
        let (Some((head_len, len)), there) = (self.like, target.filled().len()) else { return Ok(false) };
        let alike =
            |head: &Head| head.header.kind == Kind::EAGER && head.head_len == head_len && head.len == len;
        if let Some(Head { header, ask, .. }) = self.peek()?.filter(alike) {
            if there == len {
                self.asked |= ask;
                self.start = head_len + len;
                self.bulk = BULK_READS;
                self.received += 1;
                sink.frame(&header, Body::from_slice(target.filled()));
                return Ok(true);
            }
            if let Some((place, token)) = sink.place_message(&header, len) {
                self.asked |= ask;
                (self.start, self.end) = (0, 0);
                let target = if place == target.data() {
                    target
                } else {
                    // SAFETY: the sink's promise in `Sink::place_message`, as for `Placement::Into`.
                    unsafe { target.moved(place) }
                };
                self.incoming =
                    Some(Incoming { header, len, missing: len - there, target: Some((target, token)) });
                return Ok(false);
            }
            self.refused = true;
        }
        self.like = None;
        self.buffer[head_len..head_len + there].copy_from_slice(target.filled());
        Ok(false)
    }

    /// Hands up the frames that the buffer holds wholly, `budget` at most, and says how many frames and releases that were.
    pub(super) fn parse(
        &mut self,
        sink: &mut dyn Sink,
        log: &mut SendLog,
        budget: usize,
    ) -> Result<usize, Violation> {
        let mut handled = 0;
        (self.more, self.shown) = (false, 0);
        if let Some(target) = self.expected.take()
            && self.take_expected(target, sink)?
        {
            handled += 1;
        }
        loop {
            if handled >= budget && self.start < self.end {
                self.more = true;
                return Ok(handled);
            }
            if self.incoming.is_some() {
                if !self.continue_body(sink) {
                    return Ok(handled);
                }
                handled += 1;
            }
            let Some(Head { header, head_len, len, ask }) = self.peek()? else {
                self.make_room(HEADER_LEN + PAD_MAX);
                return Ok(handled);
            };
            let body = self.start + head_len;
            let there = self.end - body;
            let mut place = None;
            if there < len && !header.kind.is_fragment() {
                let asks = header.kind == Kind::EAGER && len >= PLACED_FROM && !self.refused;
                place = if asks { sink.place_message(&header, len) } else { None };
                self.refused |= place.is_none();
                if place.is_none() {
                    self.make_room(head_len + len);
                    return Ok(handled);
                }
            }
            self.refused = false;
            self.asked |= ask;
            self.start = body;
            if header.kind.0 >= Kind::LANE_PRIVATE {
                handled += self.private(&header, sink, log)?;
            } else if let Some((target, token)) = place {
                self.like = Some((head_len, len));
                self.bulk = BULK_READS;
                // SAFETY: the sink's promise in `Sink::place_message`, as for `Placement::Into`.
                let target = Some((unsafe { Target::new(target, len) }, token));
                self.incoming = Some(Incoming { header, len, missing: len, target });
            } else if there >= len {
                self.start = body + len;
                if len >= BULK_BODY {
                    self.like = Some((head_len, len)).filter(|_| header.kind == Kind::EAGER);
                    self.bulk = BULK_READS;
                }
                self.owes_release |= header.kind.is_fragment();
                self.received += 1;
                handled += 1;
                sink.frame(&header, Body::from_slice(&self.buffer[body..body + len]));
            } else {
                self.begin_body(header, len, sink);
            }
        }
    }

    /// The next frame, where the buffer holds it wholly and nothing but handing it up is to be done for it.
    #[inline]
    pub(super) fn show(&mut self) -> Option<Peeked<'_>> {
        if !self.more || self.incoming.is_some() {
            return None;
        }
        // What is wrong with it the next poll says.
        let Head { header, head_len, len, ask } = self.peek().ok()??;
        let body = self.start + head_len;
        let plain = !header.kind.is_fragment() && header.kind.0 < Kind::LANE_PRIVATE && !ask;
        if !plain || self.end - body < len {
            return None;
        }
        self.shown = head_len + len;
        Some(Peeked { header, body: Body::from_slice(&self.buffer[body..body + len]) })
    }

    /// Takes the frame that was shown last, if there is one.
    #[inline]
    pub(super) fn take_shown(&mut self) {
        if self.shown > 0 {
            self.start += std::mem::take(&mut self.shown);
            self.refused = false;
            self.received += 1;
            self.more = self.start < self.end;
            if !self.more {
                // Else the next receive would have no room, which looks like the end of the stream.
                (self.start, self.end) = (0, 0);
            }
        }
    }

    /// The head of the next frame, checked; `None` while it is not there wholly.
    #[inline]
    fn peek(&self) -> Result<Option<Head>, Violation> {
        let bytes = &self.buffer[self.start..self.end];
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let (header, len) = stream::decode(header).map_err(Violation::Header)?;
        let mut head = check(header, len as usize)?;
        if header.flags.contains(PADDED) {
            let Some(&pad) = bytes.get(HEADER_LEN) else { return Ok(None) };
            let pad = usize::from(pad);
            if !(1..=PAD_MAX).contains(&pad) {
                return Err(Violation::Pad(pad));
            }
            head.head_len += pad;
        }
        Ok((bytes.len() >= head.head_len).then_some(head))
    }

    /// A frame of the lane's own; says how many releases it brought.
    fn private(
        &mut self,
        header: &Header,
        sink: &mut dyn Sink,
        log: &mut SendLog,
    ) -> Result<usize, Violation> {
        match header.kind {
            ACK => {
                let mut released = 0;
                let before = log.unacknowledged();
                log.acknowledge(header.tag, |token| {
                    released += 1;
                    sink.released(token);
                })
                .map_err(|_| Violation::Acknowledged(header.tag))?;
                self.acknowledged |= log.unacknowledged() != before;
                Ok(released)
            }
            ASK_FRAME => {
                self.asked = true;
                Ok(0)
            }
            _ if header.flags.contains(Flags::OPTIONAL) => Ok(0),
            Kind(number) => Err(Violation::UnknownKind(number)),
        }
    }

    fn begin_body(&mut self, header: Header, len: usize, sink: &mut dyn Sink) {
        if len >= BULK_BODY {
            self.bulk = BULK_READS;
        }
        let target = match sink.place(&header, len) {
            Placement::Into { target, token } => {
                // SAFETY: the sink's promise in `Placement::Into`: writable for the whole body until `placed` or `revoke`,
                // both of which drop the target.
                Some((unsafe { Target::new(target, len) }, token))
            }
            Placement::Discard => None,
        };
        self.incoming = Some(Incoming { header, len, missing: len, target });
    }

    /// Moves what the buffer holds of the body under way to its place; `true` when that completed it.
    fn continue_body(&mut self, sink: &mut dyn Sink) -> bool {
        let Some(incoming) = &mut self.incoming else { return true };
        let there = (self.end - self.start).min(incoming.missing);
        if let Some((target, _)) = &mut incoming.target {
            target.fill(&self.buffer[self.start..self.start + there]);
        }
        incoming.missing -= there;
        self.start += there;
        if incoming.missing > 0 {
            (self.start, self.end) = (0, 0);
            return false;
        }
        let (header, len) = (incoming.header, incoming.len);
        self.incoming = None;
        self.owes_release |= header.kind.is_fragment();
        self.received += 1;
        sink.placed(&header, len);
        true
    }

    /// Makes sure that `need` bytes from the first unparsed one on fit into the buffer.
    fn make_room(&mut self, need: usize) {
        self.need = need;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + need > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Writes no more to the target named by `token`.
    pub(super) fn revoke(&mut self, token: Token) {
        if let Some(incoming) = &mut self.incoming
            && incoming.target.as_ref().is_some_and(|(_, of)| *of == token)
        {
            incoming.target = None;
        }
    }

    /// Moves the target named by `from`, with what has come of the body.
    ///
    /// # Safety
    /// As `Lane::redirect`.
    pub(super) unsafe fn redirect(&mut self, from: Token, place: NonNull<u8>, to: Token) {
        if let Some(Incoming { target, .. }) = &mut self.incoming {
            *target = target.take().map(|(target, of)| {
                if of != from {
                    return (target, of);
                }
                // SAFETY: the caller's promise; the new place is as long as the body.
                (unsafe { target.moved(place) }, to)
            });
        }
    }

    /// Gives up the target under way, if there is one.
    pub(super) fn forget_target(&mut self) {
        if let Some(incoming) = &mut self.incoming {
            incoming.target = None;
        }
    }
}

/// A frame's header as the engine sees it, and what the lane needs to know beside.
struct Head {
    header: Header,
    /// Bytes of header and pad.
    head_len: usize,
    /// Bytes of the body.
    len: usize,
    /// An acknowledgement is asked for.
    ask: bool,
}

/// The head, or what is wrong with it.
#[inline]
fn check(header: Header, len: usize) -> Result<Head, Violation> {
    let max = match header.kind {
        kind if kind.is_fragment() => BORROWED_MAX,
        Kind(number) if number >= Kind::LANE_PRIVATE => 0,
        _ => FRAME_MAX,
    };
    if len > max {
        return Err(Violation::TooLong { kind: header.kind, len, max });
    }
    let ask = header.flags.contains(ASK);
    let header = Header { flags: Flags(header.flags.0 & ENGINE_FLAGS), ..header };
    Ok(Head { header, head_len: HEADER_LEN, len, ask })
}
