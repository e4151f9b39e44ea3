//! The lane and what it speaks of: frames, memory that is lent to it or that it shows, what is left when it ends.

use crate::buf::Buf;
use crate::{Body, Capabilities, Cost, Event, LaneError, TransportError};
use sinew_wire::frame::{Header, Kind};
use std::any::Any;
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

/// Names an operation of the engine towards a lane; the lane only hands it back.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub u64);

/// What a lane has done with the bytes that it was given, for whoever chooses among several lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backlog {
    /// Bytes that have arrived at the other end's system since the lane began.
    pub arrived: u64,
    /// Bytes that were posted and have not arrived there.
    pub queued: u64,
}

/// A frame that lies in a lane, shown before it is taken.
#[derive(Clone, Copy, Debug)]
pub struct Peeked<'a> {
    /// Its header; of any kind that a session knows.
    pub header: Header,
    /// Its body, with what the flags put in front of the payload.
    pub body: Body<'a>,
}

/// What [`Lane::peek`] sees.
#[derive(Clone, Copy, Debug)]
pub enum Peek<'a> {
    /// The next frame.
    Frame(Peeked<'a>),
    /// No frame yet.
    Nothing,
    /// What there is only [`Lane::poll`] can tell.
    Poll,
}

/// Sizes that a lane is built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest body that [`Lane::try_post`] takes, in bytes; at least 4096.
    pub frame_max: usize,
    /// Largest body of a fragment that one [`Lane::try_post_borrowed`] takes, in bytes; at least `frame_max`. Frames of
    /// other kinds have at most `frame_max`, borrowed or not.
    pub borrowed_max: usize,
}

impl Limits {
    /// Largest body of a frame of this kind that [`Lane::try_post_borrowed`] takes, in bytes.
    #[must_use]
    pub fn borrowed_max_of(&self, kind: Kind) -> usize {
        if kind.is_fragment() { self.borrowed_max } else { self.frame_max }
    }
}

/// What a lane says about itself.
#[derive(Clone, Debug)]
pub struct LaneInfo {
    /// The transport's name.
    pub transport: &'static str,
    /// The other end, for people.
    pub peer: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What it is expected to cost.
    pub cost: Cost,
    /// Its sizes.
    pub limits: Limits,
}

/// Why a frame was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PostError {
    /// No room now; try again after the next [`Lane::poll`] that says so. Nothing was taken.
    Full,
    /// The body is larger than the lane's limit. Nothing was taken.
    TooLarge,
    /// The lane is over.
    Dead(LaneError),
}

/// What became of a [`Lane::pull`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pull {
    /// The bytes are there.
    Done,
    /// [`Sink::pulled`] will tell.
    Pending,
    /// Nothing was read: on this lane the bytes come sooner when the peer is asked to send them.
    Declined,
}

/// From which length on bodies take which way over a lane, for `explain`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crossing {
    /// Shortest body that goes this way, in bytes; it holds up to the next row's.
    pub from_bytes: usize,
    /// The way, for people.
    pub way: String,
    /// Why, with the figures that decided; or why not.
    pub reason: String,
}

/// Names a range of a segment, or of lent memory, towards the peer: made by [`Lane::describe`] and [`Lane::describe_lent`], carried in an envelope, used by the peer's
/// [`Lane::pull`] or [`Lane::view`] on the same lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor(pub [u8; 24]);

// SAFETY: the pointer of a borrowed body is only a name for memory that the engine has lent to the lane; the engine
// dereferences it under its lock, while the operation that the memory belongs to lives.
#[allow(unsafe_code)]
unsafe impl Send for UnacknowledgedBody {}

/// A peer's memory, readable in place until dropped. The peer may still write it.
pub struct View {
    data: NonNull<u8>,
    len: usize,
    keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory stays mapped while `keep` lives, and is only read through `Body`'s volatile copies.
#[allow(unsafe_code)]
unsafe impl Send for View {}
// SAFETY: as above; there is no interior mutability of ours.
#[allow(unsafe_code)]
unsafe impl Sync for View {}

#[allow(unsafe_code)]
impl View {
    /// A view that keeps `keep` alive.
    ///
    /// # Safety
    /// `data` is readable for `len` bytes while `keep` lives.
    #[must_use]
    pub unsafe fn new(data: NonNull<u8>, len: usize, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Self { data, len, keep }
    }

    /// The bytes.
    #[must_use]
    pub fn body(&self) -> Body<'_> {
        // SAFETY: promised to `new`; the borrow of `self` keeps `keep` alive.
        unsafe { Body::from_raw(self.data.as_ptr(), self.len) }
    }

    /// What it keeps alive.
    #[must_use]
    pub fn keep(&self) -> &(dyn Any + Send + Sync) {
        &*self.keep
    }

    /// What it has kept alive.
    #[must_use]
    pub fn into_keep(self) -> Arc<dyn Any + Send + Sync> {
        self.keep
    }

    /// First byte, for callers that know that the peer does not write any more.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.data.as_ptr()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({} bytes)", self.len)
    }
}

/// Where a lane shall put the body of a fragment ([`Kind::is_fragment`]) that has only begun to arrive.
#[derive(Clone, Copy, Debug)]
pub enum Placement {
    /// Straight here: writable for the whole body until [`Sink::placed`] or [`Lane::revoke`] of the token, as whoever
    /// implements [`Sink`] promises.
    Into {
        /// First byte.
        target: NonNull<u8>,
        /// Names it for [`Lane::revoke`].
        token: Token,
    },
    /// Nowhere: read it aside.
    Discard,
}

/// The engine as a lane sees it while being polled.
///
/// # Safety
/// The implementor answers for each [`Placement::Into`] that [`Sink::place`] gives: the target is writable for the whole
/// body, and nothing else accesses it, until [`Sink::placed`] of that frame, or [`Lane::revoke`] or [`Lane::redirect`] of its token,
/// [`Lane::recover`] or drop of the lane, whichever is first; also when the sink itself is gone before. A sink that passes
/// another sink's answers on passes all its calls on.
#[allow(unsafe_code)]
pub unsafe trait Sink {
    /// A whole frame. The body is valid during the call. Fragments (`DATA`, `STRIPE`) come here too when the lane has the whole
    /// body in its own memory.
    fn frame(&mut self, header: &Header, body: Body<'_>);

    /// A fragment with a body of `len` bytes has begun to arrive on a lane that can read straight into place.
    fn place(&mut self, header: &Header, len: usize) -> Placement;

    /// A whole message (`EAGER`) with a body of `len` bytes has begun to arrive on a lane that can read straight into place. `Some`: as
    /// [`Placement::Into`], and [`Sink::placed`] follows. `None` (default): it comes by [`Sink::frame`] when it is whole. Asked once.
    fn place_message(&mut self, _header: &Header, _len: usize) -> Option<(NonNull<u8>, Token)> {
        None
    }

    /// Memory, of so many bytes, into which the next message may be read before its head is known, as it is most likely meant for it:
    /// writable, and accessed by nobody else, until the poll that asks returns. A body that lies there is handed up by
    /// [`Sink::frame`], from there, or copied elsewhere.
    fn expected(&mut self) -> Option<(NonNull<u8>, usize)> {
        None
    }

    /// All `len` bytes of a placed (or discarded) body have arrived: the frame is complete.
    fn placed(&mut self, header: &Header, len: usize);

    /// The lane holds no reference to the memory of this [`Lane::try_post_borrowed`] any more. The peer has it, or the lane has
    /// a copy of its own, which [`Lane::recover`] gives back as owned: this is no acknowledgement.
    fn released(&mut self, token: Token);

    /// A pending pull has ended.
    fn pulled(&mut self, token: Token, result: Result<(), LaneError>);
}

/// A frame that was taken and that the peer has not acknowledged.
#[derive(Debug)]
pub struct Unacknowledged {
    /// Its header.
    pub header: Header,
    /// Its body.
    pub body: UnacknowledgedBody,
}

/// Where the body of such a frame is.
#[derive(Debug)]
pub enum UnacknowledgedBody {
    /// The lane had its own copy. After [`Lane::reclaim`] it may be larger than what [`Lane::try_post`] takes.
    Owned(Vec<u8>),
    /// It was posted borrowed; the lane has given the reference up.
    Borrowed {
        /// First byte, as posted.
        data: *const u8,
        /// Length in bytes.
        len: usize,
        /// As posted.
        token: Token,
    },
}

/// A path for frames between two engines: reliable and in order while it lives; at most once when it dies.
///
/// A lane keeps what it has taken until the peer's lane has handed it to its sink, and gives it back by
/// [`Lane::recover`] when it dies: the session replays it on another lane.
///
/// None of the calls blocks. No call runs code of the application.
///
/// # Safety
/// The implementor keeps what the calls promise of memory that is lent to the lane, as the engine gives that memory back to
/// its owner on the lane's word: it touches none after [`Sink::released`], [`Sink::placed`], [`Sink::pulled`] or
/// [`Pull::Done`], nor once [`Lane::reclaim`], [`Lane::revoke`] or [`Lane::recover`] has returned; and what `recover` gives
/// back as [`UnacknowledgedBody::Borrowed`] was posted on this lane, is still lent, and comes once.
#[allow(unsafe_code)]
pub unsafe trait Lane: Send {
    /// What it is. The transport's name and limits never change; the cost may.
    fn info(&self) -> &LaneInfo;

    /// Takes one frame whose body is the concatenation of `body`, copying it: the caller's memory is free when this returns.
    /// The lane may hold the frame back until [`Lane::flush`].
    ///
    /// # Errors
    /// [`PostError`].
    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError>;

    /// [`Lane::try_post`] of one piece; whatever the reason, `false` when it was not posted. The way of short messages, which
    /// a lane that is polled in memory makes as short as it can.
    fn post_short(&mut self, header: &Header, body: &[u8]) -> bool {
        self.try_post(header, &[IoSlice::new(body)]).is_ok()
    }

    /// [`Lane::post_short`] and [`Lane::flush`] in one, for a sender that sends nothing else now. `false`: it was not posted.
    ///
    /// # Errors
    /// The lane is over; the frame was posted before that.
    fn post_through(&mut self, header: &Header, body: &[u8]) -> Result<bool, LaneError> {
        Ok(self.post_short(header, body) && self.flush().map(|()| true)?)
    }

    /// Takes one frame whose body stays where it is. Lanes that copy anyhow may copy; all report [`Sink::released`].
    ///
    /// # Errors
    /// [`PostError`]; nothing is held then, and `released` is not called.
    ///
    /// # Safety
    /// `data` is readable for `len` bytes, and not written, until `released` or [`Lane::reclaim`] of the token, or until
    /// [`Lane::recover`] or drop of the lane.
    #[allow(unsafe_code)]
    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError>;

    /// Gives up every reference that was posted under `token`. What must still be sent of a frame under way is copied;
    /// whole frames that have not begun are sent from copies too: a posted frame always arrives. `released` is not called.
    fn reclaim(&mut self, token: Token);

    /// Sends what was held back. Called at the end of each post by a lone sender and of each turn of progress.
    ///
    /// # Errors
    /// The lane is over.
    fn flush(&mut self) -> Result<(), LaneError>;

    /// Whether it holds something back in spite of a flush, because the system takes no more now, as a full socket.
    fn is_held_up(&self) -> bool {
        false
    }

    /// How its bytes stand: one or two system calls. `None` (default): it cannot tell, and is never one of several lanes that carry
    /// long messages together.
    fn backlog(&self) -> Option<Backlog> {
        None
    }

    /// What people should know of this very lane, as it is now (`congestion control cubic`). May be empty. May cost a system call.
    fn remark(&self) -> String {
        String::new()
    }

    /// Whether frames have arrived that no poll has handed up and that no descriptor or doorbell will tell of: the last
    /// poll's budget was spent before them. The engine polls such a lane before it sleeps.
    fn has_more(&self) -> bool {
        false
    }

    /// Looks at the next frame where it lies, after taking the one that was shown before if `take` says so. The same frame is
    /// shown until it is taken. For lanes that are polled in memory, and for those that [have more](Lane::has_more) than they
    /// handed up: a receiver that waits copies straight from here. A lane that is polled in memory looks up to `looks` times,
    /// at least once, with a short rest between, before it says that there is nothing.
    fn peek(&mut self, _take: bool, _looks: u32) -> Peek<'_> {
        Peek::Poll
    }

    /// [`Lane::peek`] for lanes whose peer writes to the system: where nothing is in memory they ask the system for it, up to `looks`
    /// times. Whatever needs more than to be shown they leave in memory for the next poll: [`Lane::has_more`] says whether there is
    /// something, as no descriptor tells of it any more.
    fn read(&mut self, take: bool, looks: u32) -> Peek<'_> {
        self.peek(take, looks)
    }

    /// Takes the frame that [`Lane::peek`] or [`Lane::read`] has just shown; without one, does nothing that a peer or caller would notice.
    fn take_peeked(&mut self) {}

    /// Hands what has arrived to `sink`, up to `budget` frames, or somewhat more where it cannot keep them or where they are
    /// `DATA`, which somebody waits for, and returns how many frames or releases it handed up.
    ///
    /// # Errors
    /// The lane is over. Whatever arrived whole before that has been handed up.
    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError>;

    /// Readiness of one of the lane's descriptors; the engine polls the lane afterwards.
    fn handle_event(&mut self, _event: Event) {}

    /// Time has passed: look after acknowledgements, silence of the peer. Called about every [`Lane::next_timer`].
    ///
    /// # Errors
    /// The lane is over, as when the peer was silent for `peer_timeout` with something outstanding.
    fn handle_timer(&mut self, _now: Instant) -> Result<(), LaneError> {
        Ok(())
    }

    /// When [`Lane::handle_timer`] wants to be called; `None` for an idle lane: no idle session arms a timer.
    fn next_timer(&self) -> Option<Instant> {
        None
    }

    /// Frames taken and not yet handed to the peer's sink, as far as is known here.
    fn unacknowledged(&self) -> u64;

    /// Asks the lane to learn soon what the peer has (a stream lane sends for an acknowledgement).
    fn request_acknowledgement(&mut self) {}

    /// Tells the peer, together with what is sent next, what this side has received: the peer waits for it to give memory
    /// back. Lanes whose peer sees that anyhow need not do anything.
    fn acknowledge(&mut self) {}

    /// After the lane is over: every frame that may not have arrived, oldest first. The lane holds no caller's memory after.
    /// On a lane that still lives it first ends it, without a word to the peer.
    fn recover(&mut self) -> Vec<Unacknowledged>;

    /// Stops writing to the target of a placement or a pull. The bytes still to come are read aside; the lane lives on.
    fn revoke(&mut self, token: Token);

    /// Moves the target of a placement under way ([`Sink::place_message`]): what has come is copied to the new one, the rest follows
    /// there under the new token, and nothing is written to the old one any more. Lanes that never ask for such do nothing.
    ///
    /// # Safety
    /// `target` is writable for the whole body, and nothing else accesses it, until [`Sink::placed`], [`Lane::revoke`] of the
    /// new token, [`Lane::recover`] or drop of the lane.
    #[allow(unsafe_code)]
    unsafe fn redirect(&mut self, from: Token, target: NonNull<u8>, to: Token);

    /// A memory-polled lane stops being polled: from now on [`Domain::poll_warm`](crate::Domain::poll_warm) tells. `false`: something is there, poll on.
    fn cool(&mut self) -> bool {
        false
    }

    /// Grants the peer read access to a range of a buffer in a segment of this domain. `None`: send the bytes instead.
    ///
    /// # Errors
    /// The lane is over.
    fn describe(&mut self, _buf: &Buf) -> Result<Option<Descriptor>, LaneError> {
        Ok(None)
    }

    /// [`Lane::describe`] for memory that is in no segment: the peer, of the same user, reads it where it lies in this process.
    /// The caller keeps it readable and unwritten until the peer has said that it is done, or until [`Lane::recall`]. Nothing is
    /// read here. `None`: send the bytes instead.
    ///
    /// # Errors
    /// The lane is over.
    fn describe_lent(&mut self, _data: NonNull<u8>, _len: usize) -> Result<Option<Descriptor>, LaneError> {
        Ok(None)
    }

    /// Which ways bodies take over this lane, shortest first, where the engine sends bodies of up to `whole_max` bytes whole.
    /// Empty: all the same way.
    fn crossings(&self, _whole_max: usize) -> Vec<Crossing> {
        Vec::new()
    }

    /// What memory the lane has got, for people: size of pages, node. Empty: nothing to say.
    fn memory(&self) -> String {
        String::new()
    }

    /// The memory of something that was described goes back to its owner before the peer has said that it is done with it:
    /// when this returns, the peer believes no pull or view of a descriptor that was made before, unless it has ended
    /// already. Descriptors of other memory may become stale by it too; the bytes can still be sent.
    fn recall(&mut self) {}

    /// Fetches `len` bytes of what the peer described.
    ///
    /// # Errors
    /// A forged, stale or recalled descriptor, or the lane is over; the target's content is unspecified. A pull that had begun
    /// before it was recalled tells [`Sink::pulled`] so.
    ///
    /// # Safety
    /// `target` is writable for `len` bytes until this returns [`Pull::Done`] or an error, or until [`Sink::pulled`], or
    /// [`Lane::revoke`] of the token.
    #[allow(unsafe_code)]
    unsafe fn pull(
        &mut self,
        _from: &Descriptor,
        _target: NonNull<u8>,
        _len: usize,
        _token: Token,
    ) -> Result<Pull, LaneError> {
        Err(TransportError::new(crate::ErrorKind::Unsupported, "pull", ""))
    }

    /// Shows what the peer described, in place. What is recalled later is still readable, with any content.
    ///
    /// # Errors
    /// A forged, stale or recalled descriptor, unsupported, or the lane is over.
    fn view(&mut self, _from: &Descriptor) -> Result<View, LaneError> {
        Err(TransportError::new(crate::ErrorKind::Unsupported, "view", ""))
    }

    /// Takes a view of [`Lane::view`] back, whose memory nobody reads any more, so that the next one may cost less. What it answers
    /// is to be dropped, where that may take long.
    fn take_view(&mut self, view: View) -> Option<View> {
        Some(view)
    }

    /// Ends the lane in order: what was posted still goes out if the peer takes it; the peer's lane ends with
    /// [`crate::ErrorKind::Broken`] after handing up all of it. Never blocks; drop it afterwards.
    fn close(&mut self);
}
