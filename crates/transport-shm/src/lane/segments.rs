//! What a lane does with segments: passing its own, mapping the peer's, pulling and viewing.
//!
//! Called by the lane. A descriptor of the peer is four words that are checked against what is mapped.

use super::lent::Reading;
use crate::across::Across;
use crate::half::PeerHalf;
use crate::note::{Note, broken};
use crate::options::ShmOptions;
use crate::segment::{Binding, Fetch, ForeignSegment, Freed, ShmSegment};
use crate::sys::socket::{self, Moved};
use rustix::fd::{AsFd, OwnedFd};
use sinew_base::guarded::GuardedFd;
use sinew_transport::{Buf, Descriptor, ErrorKind, LaneError, Sink, Token, TransportError, View};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Fetches up to this many bytes are done at once.
pub(crate) const AT_ONCE: usize = 1 << 20;
/// Larger ones by this many bytes a turn, so that other lanes have theirs.
const PIECE: usize = 2 << 20;

/// The segments of one lane.
#[derive(Debug)]
pub(crate) struct Segments {
    freed: Arc<Freed>,
    next_id: u32,
    /// Own segments that the peer has mapped.
    passed: u32,
    passed_max: u32,
    foreign: Vec<Foreign>,
    foreign_bytes: u64,
    /// With how often the peer had recalled something when it described what is fetched.
    fetches: VecDeque<(Token, u32, Work)>,
}

/// A segment of the peer.
#[derive(Debug)]
struct Foreign {
    id: u32,
    /// `None`: it could not be mapped for lack of something.
    segment: Option<Arc<ForeignSegment>>,
    /// The hold of a view that has come back, for the next one: counting costs a locked instruction, behind which nothing begins
    /// before the bytes of the message are there.
    spare: Option<Arc<ForeignSegment>>,
}

/// Bytes that come in several turns.
#[derive(Debug)]
pub(crate) enum Work {
    /// From a segment.
    Copy(Fetch),
    /// From memory of the peer's process.
    Read(Reading),
}

/// The number of what is in no segment: the offset is an address in the memory of the descriptor's maker.
const LENT: u32 = 0;

/// Names lent memory towards the peer.
pub(crate) fn describe_lent(address: u64, len: usize, recalled: u32) -> Descriptor {
    Range { id: LENT, offset: address, len: len as u64, recalled }.encode()
}

/// Address and length of lent memory, if that is what a descriptor of the peer names.
pub(crate) fn lent(from: &Descriptor) -> Option<(u64, u64)> {
    let Range { id, offset, len, .. } = Range::decode(from);
    (id == LENT).then_some((offset, len))
}

/// The words of a descriptor.
struct Range {
    id: u32,
    offset: u64,
    len: u64,
    /// How often its sender had recalled something: the low half.
    recalled: u32,
}

impl Range {
    fn encode(&self) -> Descriptor {
        let mut out = [0; 24];
        // One store: what is stored in halves and then moved as a whole waits for both.
        let first = u64::from(self.id) | u64::from(self.recalled) << 32;
        out[..8].copy_from_slice(&first.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..].copy_from_slice(&self.len.to_le_bytes());
        Descriptor(out)
    }

    fn decode(Descriptor(bytes): &Descriptor) -> Self {
        let u64_at = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (id, recalled) = (u64_at(0) as u32, (u64_at(0) >> 32) as u32);
        Self { id, offset: u64_at(8), len: u64_at(16), recalled }
    }
}

impl Segments {
    pub(crate) fn new(passed_max: u32) -> Self {
        Self {
            freed: Arc::default(),
            next_id: 1,
            passed: 0,
            passed_max,
            foreign: Vec::new(),
            foreign_bytes: 0,
            fetches: VecDeque::new(),
        }
    }

    /// Names a buffer towards the peer, passing its segment if need be. `None`: it cannot be.
    pub(crate) fn describe(
        &mut self,
        buf: &Buf,
        recalled: u32,
        socket: &GuardedFd,
    ) -> Result<Option<Descriptor>, TransportError> {
        let Some((segment, offset)) = buf.segment() else { return Ok(None) };
        let Some(segment) = segment.as_any().downcast_ref::<ShmSegment>() else { return Ok(None) };
        let id = match segment.binding() {
            Some(binding) if Arc::ptr_eq(&binding.freed, &self.freed) => binding.id,
            Some(_) => return Ok(None),
            None if self.passed >= self.passed_max => return Ok(None),
            None => {
                let id = self.next_id;
                let note = Note::Segment { id, len: sinew_transport::Segment::len(segment) as u64 };
                let binding = Binding { freed: self.freed.clone(), id };
                if !segment.bind(binding, |fd| send(socket, &note, Some(fd)))? {
                    return Ok(None);
                }
                self.next_id += 1;
                self.passed += 1;
                id
            }
        };
        Ok(Some(Range { id, offset: offset as u64, len: buf.len() as u64, recalled }.encode()))
    }

    /// Tells the peer which segments are no more.
    #[inline]
    pub(crate) fn tell_freed(&mut self, socket: &GuardedFd) -> Result<(), TransportError> {
        let mut ids = self.freed.take();
        while let Some(id) = ids.pop() {
            if !send(socket, &Note::Gone { id }, None)? {
                ids.push(id);
                self.freed.put(ids);
                return Ok(());
            }
            self.passed = self.passed.saturating_sub(1);
        }
        Ok(())
    }

    /// The peer has passed a segment.
    pub(crate) fn handle_segment(
        &mut self,
        options: &ShmOptions,
        id: u32,
        len: u64,
        fds: &[OwnedFd],
    ) -> Result<(), TransportError> {
        if self.foreign.len() >= options.segments_max || id == LENT || self.position(id).is_some() {
            return Err(broken("more segments than agreed, or one twice"));
        }
        let mapped = match fds {
            [fd] if self.foreign_bytes.saturating_add(len) <= options.segment_bytes_max => {
                match ForeignSegment::adopt(fd, len) {
                    Ok(segment) => Some(Arc::new(segment)),
                    Err(error) if error.kind == ErrorKind::Protocol => return Err(error),
                    Err(_) => None,
                }
            }
            _ => None,
        };
        self.foreign_bytes += mapped.as_ref().map_or(0, |segment| segment.len() as u64);
        self.foreign.push(Foreign { id, segment: mapped, spare: None });
        Ok(())
    }

    /// The peer will not describe it any more. Views and fetches keep the mapping until they are done.
    pub(crate) fn handle_gone(&mut self, id: u32) {
        if let Some(at) = self.position(id) {
            let Foreign { segment, .. } = self.foreign.swap_remove(at);
            self.foreign_bytes -= segment.map_or(0, |segment| segment.len() as u64);
        }
    }

    #[inline]
    fn position(&self, id: u32) -> Option<usize> {
        self.foreign.iter().position(|there| there.id == id)
    }

    /// Whether the descriptor's segment has arrived.
    pub(crate) fn knows(&self, from: &Descriptor) -> bool {
        self.position(Range::decode(from).id).is_some()
    }

    /// The segment, offset and length that a descriptor of a peer names.
    pub(crate) fn resolve(
        &self,
        from: &Descriptor,
        peer: &PeerHalf,
    ) -> Result<(&Arc<ForeignSegment>, usize, usize), LaneError> {
        let (at, offset, len) = self.locate(from, peer)?;
        match &self.foreign[at].segment {
            Some(segment) => Ok((segment, offset, len)),
            None => Err(not_mapped()),
        }
    }

    /// Shows what a descriptor of a peer names.
    pub(crate) fn view(&mut self, from: &Descriptor, peer: &PeerHalf) -> Result<View, LaneError> {
        let (at, offset, len) = self.locate(from, peer)?;
        let Foreign { segment, spare, .. } = &mut self.foreign[at];
        let hold = spare.take().or_else(|| segment.clone()).ok_or_else(not_mapped)?;
        hold.view(offset, len).ok_or_else(|| bad("a range outside its segment"))
    }

    /// Keeps the hold of a view for the next one of the same segment.
    #[inline]
    pub(crate) fn take_view(&mut self, view: View) -> Option<View> {
        let of = view.keep().downcast_ref::<ForeignSegment>().map(std::ptr::from_ref);
        let same = |there: &&mut Foreign| there.segment.as_ref().map(Arc::as_ptr) == of;
        match self.foreign.iter_mut().find(same) {
            Some(foreign) if of.is_some() && foreign.spare.is_none() => {
                foreign.spare = view.into_keep().downcast().ok();
                None
            }
            _ => Some(view),
        }
    }

    /// Which of the peer's segments a descriptor names, offset and length.
    #[inline]
    fn locate(&self, from: &Descriptor, peer: &PeerHalf) -> Result<(usize, usize, usize), LaneError> {
        let range = Range::decode(from);
        check_recalled(range.recalled, peer)?;
        let bad = |what| Err(bad(what));
        let Some(at) = self.position(range.id) else { return bad("an unknown or freed segment") };
        let Some(segment) = &self.foreign[at].segment else { return Err(not_mapped()) };
        let (Ok(offset), Ok(len)) = (usize::try_from(range.offset), usize::try_from(range.len)) else {
            return bad("a range beyond the address space");
        };
        if offset > segment.len() || len > segment.len() - offset {
            return bad("a range outside its segment");
        }
        Ok((at, offset, len))
    }

    /// Goes on with a large fetch of what a descriptor names in later turns.
    pub(crate) fn queue(&mut self, token: Token, from: &Descriptor, work: Work) {
        self.fetches.push_back((token, Range::decode(from).recalled, work));
    }

    /// Whether there are fetches.
    #[inline]
    pub(crate) fn is_fetching(&self) -> bool {
        !self.fetches.is_empty()
    }

    /// Goes on with the oldest; how many ended.
    pub(crate) fn step(&mut self, sink: &mut dyn Sink, peer: &PeerHalf, across: &mut Across) -> usize {
        let Some((token, recalled, work)) = self.fetches.front_mut() else { return 0 };
        let all = match work {
            Work::Copy(fetch) => Ok(fetch.step(PIECE)),
            Work::Read(reading) => reading.step(across),
        };
        let result = match (all, check_recalled(*recalled, peer)) {
            (Ok(false), Ok(())) => return 0,
            // What was recalled meanwhile needs no more copying.
            (Ok(_), believed) => believed,
            (Err(error), _) => Err(error),
        };
        let token = *token;
        self.fetches.pop_front();
        sink.pulled(token, result);
        1
    }

    /// Forgets the target of a fetch.
    pub(crate) fn revoke(&mut self, token: Token) {
        self.fetches.retain(|(there, ..)| *there != token);
    }

    /// Forgets all of them.
    pub(crate) fn revoke_all(&mut self) {
        self.fetches.clear();
    }
}

#[cold]
fn bad(what: &'static str) -> LaneError {
    TransportError::new(ErrorKind::Protocol, "descriptor of the peer", what)
}

#[cold]
fn not_mapped() -> LaneError {
    TransportError::new(ErrorKind::Limit, "segment of the peer", "not mapped")
        .hint("descriptors or address space were short, or segment_bytes_max is too small")
}

/// That the peer has not taken back what it described after it had recalled something for so many times. Of bytes that were read
/// before this call it says that they were still there.
fn check_recalled(recalled: u32, peer: &PeerHalf) -> Result<(), LaneError> {
    // Reads before this come before the load: whoever writes the memory has stored the word before that.
    fence(Ordering::Acquire);
    if peer.control().recalled.load(Ordering::Relaxed) as u32 == recalled {
        return Ok(());
    }
    Err(TransportError::new(ErrorKind::Broken, "descriptor of the peer", "the peer may have taken it back"))
}

/// What a descriptor says of recalls, for those who have read what it names.
pub(crate) fn check_still_there(from: &Descriptor, peer: &PeerHalf) -> Result<(), LaneError> {
    check_recalled(Range::decode(from).recalled, peer)
}

/// Sends a note; `false` when there is no room for it now.
fn send(socket: &GuardedFd, note: &Note, fd: Option<&OwnedFd>) -> Result<bool, TransportError> {
    let bytes = note.encode();
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
    match socket::send(socket, &bytes, &fds) {
        Ok(Moved::Bytes(sent)) if sent == bytes.len() => Ok(true),
        // The end is learnt of elsewhere.
        Ok(Moved::Nothing | Moved::End) => Ok(false),
        Ok(Moved::Bytes(_)) => Err(TransportError::new(ErrorKind::Broken, "send", "half a note")),
        // More descriptors under way than the user may have.
        Err(rustix::io::Errno::TOOMANYREFS) => Ok(false),
        Err(errno) => Err(TransportError::os(errno, "send", "a segment")),
    }
}
