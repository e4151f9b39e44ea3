//! The lane over a stream socket, the same for TCP and Unix-domain sockets.
//!
//! Made by a link once both engines agreed. `try_post` serialises into the log, `flush` gives the kernel everything that waits
//! in one gathered write, `poll` receives once, parses in place and hands up. While the socket is full, frames pile up
//! and go in one write when it takes more. What the peer has handed up it acknowledges by a count: along with
//! data, when this side asks, or after a short while.
//!
//! # Errors
//! The lane is over by [`ErrorKind::Broken`] (end or reset of the stream), [`ErrorKind::TimedOut`] (the peer's kernel is
//! silent), [`ErrorKind::Protocol`] (the peer sent what it must not). A failed write ends the lane only once everything
//! that had arrived was handed up, at the next `poll`.
#![allow(unsafe_code)]

mod pieces;
mod receive;
mod send;
mod send_log;
mod watch;

use crate::memory::BorrowedBytes;
use crate::registered::{Registered, Spinners};
use receive::{Filled, Receiver};
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, sockopt};
use send_log::SendLog;
use sinew_transport::{
    Backlog, ErrorKind, Event, Lane, LaneError, LaneInfo, Peek, PostError, Sink, Token, TransportError,
    Unacknowledged,
};
use sinew_wire::frame::{Header, Kind};
use std::io::IoSlice;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;
use watch::Watch;

/// Largest body of any frame but fragments, in bytes. A constant of the wire: both sides have the same.
pub const FRAME_MAX: usize = 64 << 10;
/// Largest body of a fragment (`DATA`, `STRIPE`), in bytes. A constant of the wire: both sides have the same.
pub const BORROWED_MAX: usize = 1 << 20;

/// Lane frame: tag = frames handed up since the lane began.
const ACK: Kind = Kind(Kind::LANE_PRIVATE);
/// Lane frame: acknowledge soon.
const ASK_FRAME: Kind = Kind(Kind::LANE_PRIVATE + 1);

/// Bodies from this length on are given to the kernel from the caller's memory, and copied afterwards.
const DIRECT_FROM: usize = 8 << 10;
/// Polls without a word from the poller after which a lane leaves it: more than a wait that ends in sleep takes.
const SPINS: u32 = 1000;
/// Bytes of small frames that are written without waiting for a flush.
const WRITE_AT: u64 = 64 << 10;
/// Receives of one poll at most, so that one busy lane does not starve the others.
const RECEIVES_MAX: usize = 64;

/// What a lane is made of; the link fills it.
pub(crate) struct LaneParts {
    pub(crate) socket: Arc<Registered>,
    /// Where it says that it leaves the poller.
    pub(crate) spinners: Arc<Spinners>,
    pub(crate) info: LaneInfo,
    /// What the link still had to send.
    pub(crate) unsent: Vec<u8>,
    pub(crate) retention_bytes: usize,
    pub(crate) retention_frames: u32,
    pub(crate) receive_bytes: usize,
    pub(crate) peer_timeout: std::time::Duration,
    /// Whether the kernel can be asked how the peer's kernel is: TCP.
    pub(crate) tcp: bool,
}

/// See the module.
pub(crate) struct StreamLane {
    socket: Arc<Registered>,
    spinners: Arc<Spinners>,
    /// Whether the system can be asked how the peer's system is: TCP.
    tcp: bool,
    /// Polls since the poller last said something.
    polls: u32,
    info: LaneInfo,
    log: SendLog,
    receiver: Receiver,
    /// Bytes outside the log that were begun and must go before it.
    begun: Vec<u8>,
    /// The system has taken the log up to the middle of a frame, perhaps.
    mid_frame: bool,
    /// Frames acknowledged to the peer.
    acknowledged: u64,
    want_acknowledge: bool,
    want_ask: bool,
    /// Frames posted in all, and how many of them the last question was about.
    frames_posted: u64,
    asked_for: u64,
    /// Bytes that the system has taken.
    written: u64,
    /// The socket took less than it was given.
    blocked: bool,
    /// Writability is watched for; it was reported since.
    watching_writable: bool,
    writable_seen: bool,
    /// A post was answered with `Full` and not yet followed by room.
    told_full: bool,
    write_error: Option<Errno>,
    over: Option<LaneError>,
    watch: Watch,
    closed: bool,
}

impl StreamLane {
    pub(crate) fn new(parts: LaneParts) -> Self {
        let capacity = parts.retention_bytes.clamp(256 << 10, 1 << 30).next_power_of_two();
        Self {
            socket: parts.socket,
            spinners: parts.spinners,
            tcp: parts.tcp,
            polls: 0,
            info: parts.info,
            log: SendLog::new(capacity, parts.retention_frames.max(16), parts.tcp),
            receiver: Receiver::new(parts.receive_bytes),
            written: 0,
            blocked: false,
            begun: parts.unsent,
            mid_frame: false,
            acknowledged: 0,
            want_acknowledge: false,
            want_ask: false,
            frames_posted: 0,
            asked_for: 0,
            watching_writable: false,
            writable_seen: false,
            told_full: false,
            write_error: None,
            over: None,
            watch: Watch::new(parts.tcp, parts.peer_timeout),
            closed: false,
        }
    }

    fn error(&self, errno: Option<Errno>, operation: &'static str) -> LaneError {
        let peer = self.info.peer.as_str();
        match errno {
            None => TransportError::new(ErrorKind::Broken, operation, peer)
                .hint("the other end closed the connection, or its process ended"),
            Some(errno) => TransportError::os(errno, operation, peer),
        }
    }

    fn end(&mut self, error: LaneError) -> LaneError {
        self.receiver.forget_target();
        self.over = Some(error.clone());
        error
    }

    fn check_post(&mut self, len: usize, max: usize) -> Result<(), PostError> {
        if let Some(error) = &self.over {
            return Err(PostError::Dead(error.clone()));
        }
        if len > max { Err(PostError::TooLarge) } else { Ok(()) }
    }

    fn posted(&mut self, result: Result<(), PostError>) -> Result<(), PostError> {
        self.frames_posted += u64::from(result.is_ok());
        match result {
            Ok(()) if self.log.unsent_bytes() >= WRITE_AT && !self.blocked => self.write(),
            Err(PostError::Full) => self.told_full = true,
            _ => {}
        }
        result
    }

    /// Receives and hands up until the budget is spent or nothing is left. What a receive brought beyond the budget stays in
    /// the buffer and comes before the next receive: `has_more` tells of it.
    #[inline]
    fn receive(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        let mut handled = 0;
        if self.receiver.more {
            handled = self.parse(sink, budget)?;
            if self.receiver.more {
                return Ok(handled);
            }
        }
        for _ in 0..RECEIVES_MAX {
            if handled >= budget {
                break;
            }
            match self.receiver.fill(self.socket.as_fd(), sink) {
                Filled::Nothing => break,
                Filled::Some => return Ok(handled + self.parse(sink, budget - handled)?),
                Filled::All => handled += self.parse(sink, budget - handled)?,
                Filled::Ended(errno) => {
                    let error = self.error(errno, "receive from");
                    return Err(self.end(error));
                }
            }
            if self.receiver.more {
                break;
            }
        }
        Ok(handled)
    }

    /// Nothing was there to be handed up, so that a failed write can end the lane now; and requests are answered.
    #[inline]
    fn after_nothing(&mut self) -> Result<usize, LaneError> {
        if let Some(errno) = self.write_error {
            let error = self.error(Some(errno), "send to");
            return Err(self.end(error));
        }
        if std::mem::take(&mut self.receiver.asked) {
            self.want_acknowledge = true;
            if !self.blocked {
                self.write();
            }
        }
        let room = std::mem::take(&mut self.receiver.acknowledged) && std::mem::take(&mut self.told_full);
        Ok(usize::from(room))
    }

    /// What is to be done in a poll besides receiving.
    #[cold]
    fn poll_aside(&mut self) {
        if self.polls == SPINS && self.socket.is_watched() && !self.spinners.leave(&self.socket) {
            self.polls = 0;
        }
        if self.blocked || self.want_acknowledge {
            self.write();
        }
        self.unwatch_writable();
    }

    /// Asks the system up to `looks` times for the next frame. `Some(false)`: a poll is needed.
    #[inline]
    fn read_ahead(&mut self, looks: u32) -> Option<bool> {
        for _ in 0..looks {
            if self.polls == SPINS - 1 {
                // The next poll leaves the poller.
                return Some(false);
            }
            self.polls = self.polls.wrapping_add(1);
            self.socket.count_poll();
            let read = self.receiver.read_ahead(self.socket.as_fd());
            if read.is_some() {
                return read;
            }
        }
        None
    }

    #[inline]
    fn parse(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        match self.receiver.parse(sink, &mut self.log, budget) {
            Ok(handled) => Ok(handled),
            Err(what) => {
                let error = TransportError::new(ErrorKind::Protocol, "receive from", self.info.peer.as_str())
                    .hint(format!("the peer breaks the rules of the stream: {what}"));
                Err(self.end(error))
            }
        }
    }
}

// SAFETY: the log drops a `BorrowedBytes` before it reports or gives it back, and in `reclaim` and `recover`; the receiver
// drops its `Target` before `placed`, and in `revoke` and `recover`.
unsafe impl Lane for StreamLane {
    fn info(&self) -> &LaneInfo {
        &self.info
    }

    #[inline]
    fn try_post(&mut self, header: &Header, body: &[IoSlice<'_>]) -> Result<(), PostError> {
        let len = body.iter().map(|piece| piece.len()).sum();
        self.check_post(len, FRAME_MAX)?;
        let result = if len >= DIRECT_FROM {
            self.post_large(header, body, len)
        } else {
            self.log.post(header, body, len)
        };
        self.posted(result)
    }

    #[inline]
    fn post_through(&mut self, header: &Header, body: &[u8]) -> Result<bool, LaneError> {
        if self.check_post(body.len(), FRAME_MAX).is_err() {
            return Ok(false);
        }
        let (pieces, len) = ([IoSlice::new(body)], body.len());
        let result = if len >= DIRECT_FROM {
            self.post_large(header, &pieces, len)
        } else {
            self.log.post(header, &pieces, len)
        };
        Ok(self.posted(result).is_ok() && self.flush().map(|()| true)?)
    }

    unsafe fn try_post_borrowed(
        &mut self,
        header: &Header,
        data: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<(), PostError> {
        self.check_post(len, if header.kind.is_fragment() { BORROWED_MAX } else { FRAME_MAX })?;
        // SAFETY: the caller's promise: readable and not written until `released`, `reclaim`, `recover` or drop of the lane,
        // each of which drops the value. A refused post drops it at once.
        let bytes = unsafe { BorrowedBytes::new(data, len) };
        let result = self.log.post_borrowed(header, bytes, token);
        self.posted(result)
    }

    fn reclaim(&mut self, token: Token) {
        self.log.reclaim(token);
    }

    #[inline]
    fn flush(&mut self) -> Result<(), LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        if !self.blocked {
            self.write();
        }
        Ok(())
    }

    fn is_held_up(&self) -> bool {
        self.blocked
    }

    fn backlog(&self) -> Option<Backlog> {
        // Through a Unix-domain socket bytes arrive at once, one flow or many.
        if !self.tcp || self.over.is_some() {
            return None;
        }
        let in_system = u64::from(crate::socket::unacknowledged_bytes(self.socket.as_fd()).ok()?);
        let waits = self.log.unsent() + self.begun.len() as u64;
        Some(Backlog { arrived: self.written.saturating_sub(in_system), queued: in_system + waits })
    }

    fn remark(&self) -> String {
        match sockopt::tcp_congestion(&self.socket) {
            Ok(name) if self.tcp => format!("congestion control {name}"),
            _ => String::new(),
        }
    }

    #[inline]
    fn has_more(&self) -> bool {
        self.receiver.more
    }

    #[inline]
    fn peek(&mut self, take: bool, _looks: u32) -> Peek<'_> {
        if take {
            self.receiver.take_shown();
        }
        if self.over.is_some() {
            return Peek::Poll;
        }
        self.receiver.show().map_or(Peek::Poll, Peek::Frame)
    }

    fn read(&mut self, take: bool, looks: u32) -> Peek<'_> {
        if take {
            self.receiver.take_shown();
        }
        if self.over.is_some() {
            return Peek::Poll;
        }
        if !self.receiver.more {
            // What a poll does beside reading comes first; frames that are in memory come before it.
            let owes =
                self.blocked || self.want_acknowledge || self.watching_writable || self.write_error.is_some();
            if owes || !self.receiver.may_read_ahead() {
                return Peek::Poll;
            }
            match self.read_ahead(looks) {
                None => return Peek::Nothing,
                Some(false) => return Peek::Poll,
                Some(true) => {}
            }
        }
        self.receiver.show().map_or(Peek::Poll, Peek::Frame)
    }

    #[inline]
    fn take_peeked(&mut self) {
        self.receiver.take_shown();
    }

    fn poll(&mut self, sink: &mut dyn Sink, budget: usize) -> Result<usize, LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        self.polls = self.polls.wrapping_add(u32::from(!self.receiver.more));
        if self.polls == SPINS || self.blocked || self.want_acknowledge || self.watching_writable {
            self.poll_aside();
        }
        self.socket.count_poll();
        let mut handled = self.receive(sink, budget)?;
        if handled == 0 {
            return self.after_nothing();
        }
        if std::mem::take(&mut self.receiver.asked) {
            self.want_acknowledge = true;
            if !self.blocked {
                self.write();
            }
        }
        if std::mem::take(&mut self.receiver.acknowledged) && std::mem::take(&mut self.told_full) {
            handled += 1;
        }
        Ok(handled)
    }

    fn handle_event(&mut self, event: Event) {
        self.polls = 0;
        self.writable_seen |= event.writable;
    }

    fn handle_timer(&mut self, now: Instant) -> Result<(), LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        if self.watch.acknowledgement_is_due(now) && self.receiver.received != self.acknowledged {
            self.want_acknowledge = true;
            if !self.blocked {
                self.write();
            }
        }
        let outstanding = self.is_outstanding();
        if let Err(silent) = self.watch.check(now, outstanding, self.socket.as_fd()) {
            // What the system has not sent yet must not arrive when the way is back: others may have been told by then that
            // it never will. Without this only the session's fence keeps it out.
            let _ = sockopt::set_socket_linger(&self.socket, Some(std::time::Duration::ZERO));
            let error =
                TransportError::new(ErrorKind::TimedOut, "wait for", self.info.peer.as_str()).hint(format!(
                    "the peer's machine has answered nothing for {} ms; is it up, and the network between?",
                    silent.as_millis()
                ));
            return Err(self.end(error));
        }
        Ok(())
    }

    fn next_timer(&self) -> Option<Instant> {
        if self.over.is_some() {
            return None;
        }
        self.watch.next(self.receiver.received != self.acknowledged, self.is_outstanding())
    }

    fn unacknowledged(&self) -> u64 {
        self.log.unacknowledged()
    }

    fn request_acknowledgement(&mut self) {
        // One question is enough for what is out now: the answer comes in its turn.
        let outstanding = self.log.unacknowledged();
        if outstanding > 0 && self.asked_for != self.frames_posted {
            self.asked_for = self.frames_posted;
            self.want_ask = true;
        }
    }

    fn acknowledge(&mut self) {
        self.want_acknowledge |= self.receiver.received != self.acknowledged;
    }

    fn recover(&mut self) -> Vec<Unacknowledged> {
        self.receiver.forget_target();
        if self.over.is_none() {
            let error = TransportError::new(ErrorKind::Broken, "recover", self.info.peer.as_str());
            self.end(error);
        }
        self.log.take_unacknowledged()
    }

    unsafe fn redirect(&mut self, from: Token, target: NonNull<u8>, to: Token) {
        // SAFETY: the caller's promise: writable for the whole body until `placed`, `revoke` or `recover`, which drop it.
        unsafe { self.receiver.redirect(from, target, to) };
    }

    fn revoke(&mut self, token: Token) {
        self.receiver.revoke(token);
    }

    fn close(&mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        if self.over.is_none() {
            self.want_acknowledge |= self.receiver.received != self.acknowledged;
            self.write();
            let error = TransportError::new(ErrorKind::Broken, "use", self.info.peer.as_str())
                .hint("this side closed the lane");
            self.end(error);
        }
        // It may be gone already; there is nothing else to end then.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }
}

impl StreamLane {
    fn is_outstanding(&self) -> bool {
        self.log.unacknowledged() > 0 || !self.begun.is_empty()
    }
}

impl Drop for StreamLane {
    fn drop(&mut self) {
        self.close();
        // Closing a socket with unread bytes resets the connection, which may destroy what is still on its way out.
        let mut scratch = [0; 16 << 10];
        for _ in 0..64 {
            match rustix::net::recv(&self.socket, &mut scratch, RecvFlags::DONTWAIT) {
                Ok((_, count)) if count > 0 => {}
                _ => break,
            }
        }
    }
}
