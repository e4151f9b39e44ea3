//! Frames out of the peer's half: handed up by polls, or shown one at a time; what is given back, and the peer's end.

use super::{Open, WINDOWED, header_of, place_of};
use crate::half::REFUSED;
use crate::note::broken;
use crate::shared::ring::{Head, PAYLOAD_LEN};
use sinew_base::guarded::GuardedFd;
use sinew_transport::{ErrorKind, LaneError, Peek, Peeked, Sink, TransportError};
use sinew_wire::frame::Kind;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Pieces of long messages that one poll hands up beyond its budget.
const PIECES_MORE: usize = 16;

impl Open {
    /// Hands up what is there.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        sink: &mut dyn Sink,
        budget: usize,
        socket: &GuardedFd,
    ) -> Result<usize, LaneError> {
        let mut done = 0;
        self.peeked = None;
        if self.has_to_report() {
            done = self.report(sink)?;
        }
        let mut drained = false;
        // A piece of a long message costs a turn of its own only when it comes late.
        let (mut budget, pieces) = (budget, budget.saturating_add(PIECES_MORE));
        while done < budget {
            let Some(kind) = self.take_one(sink)? else {
                drained = true;
                break;
            };
            done += 1;
            if kind == Kind::DATA && budget < pieces {
                budget += 1;
            }
            if self.has_much_to_give_back() {
                self.publish_index(socket);
            }
        }
        if self.consumer.unpublished() > 0 {
            self.watch.position.store(self.consumer.next(), Ordering::Relaxed);
            // A drained ring gives everything back, so that the peer knows what has arrived.
            if drained || self.consumer.peek(self.watch.peer.ring()).is_none() {
                self.publish_index(socket);
            }
        }
        if drained && done == 0 && !self.segments.is_fetching() {
            self.look_ahead();
            self.check_end()?;
        }
        Ok(done)
    }

    /// Whether a poll hands up more than frames.
    #[inline]
    fn has_to_report(&self) -> bool {
        !self.released.is_empty() || self.starving || self.segments.is_fetching()
    }

    /// Shows the next frame, after taking the one before if told to. What is wrong with a frame is for [`Open::poll`] to say.
    #[inline]
    pub(crate) fn peek(&mut self, take: bool, looks: u32, socket: &GuardedFd) -> Peek<'_> {
        if take {
            self.take_shown(socket);
        }
        if self.has_to_report() {
            return Peek::Poll;
        }
        let Some(head) =
            self.consumer.peek(self.watch.peer.ring()).or_else(|| self.look_again(looks, socket))
        else {
            return Peek::Nothing;
        };
        let header = header_of(head);
        if !is_known(header.kind) {
            return Peek::Poll;
        }
        let peer = &self.watch.peer;
        let slot = self.consumer.slot(peer.ring());
        let len = (head.first >> 16) as u16;
        let (body, windowed) = if usize::from(len) <= PAYLOAD_LEN {
            (peer.slot_body(slot, usize::from(len)), 0)
        } else if len == WINDOWED {
            let (offset, len) = place_of(slot.payload_word(0));
            match peer.window_body(offset, len) {
                Some(body) => (body, len),
                None => return Peek::Poll,
            }
        } else {
            return Peek::Poll;
        };
        self.peeked = Some(windowed as u32);
        Peek::Frame(Peeked { header, body })
    }

    /// The head of the next frame, which is not there at the first of `looks`.
    #[inline]
    fn look_again(&mut self, looks: u32, socket: &GuardedFd) -> Option<Head> {
        // A drained ring gives everything back, so that the peer knows what has arrived.
        if self.consumer.unpublished() > 0 {
            self.publish_index(socket);
        }
        let found = (1..looks).find_map(|_| {
            self.look_ahead();
            std::hint::spin_loop();
            self.consumer.peek(self.watch.peer.ring())
        });
        if let Some(head) = found
            && (head.first >> 16) as u16 != WINDOWED
        {
            // The peer looks at the slot of the answer, which is taken from it while the answer is made. What comes with a long
            // body is answered later: the peer would have the line again by then.
            self.producer.ask_for_slot(self.watch.own.ring());
        }
        found
    }

    /// Takes the frame that was shown.
    pub(crate) fn take_peeked(&mut self, socket: &GuardedFd) {
        self.take_shown(socket);
    }

    #[inline(always)]
    fn take_shown(&mut self, socket: &GuardedFd) {
        let Some(windowed) = self.peeked.take() else { return };
        self.taken += windowed as usize;
        self.consumer.advance();
        self.watch.position.store(self.consumer.next(), Ordering::Relaxed);
        if self.has_much_to_give_back() {
            self.publish_index(socket);
        }
    }

    /// Whether the peer should hear of room before the ring is drained.
    #[inline]
    fn has_much_to_give_back(&self) -> bool {
        self.consumer.unpublished() >= self.consumer.slots() / 4 || self.taken >= self.taken_max
    }

    /// Reports releases, room and ended fetches; how many.
    #[cold]
    fn report(&mut self, sink: &mut dyn Sink) -> Result<usize, LaneError> {
        let mut done = 0;
        while let Some(token) = self.released.pop_front() {
            sink.released(token);
            done += 1;
        }
        if self.starving && self.check_room()? {
            done += 1;
        }
        if self.segments.is_fetching() {
            done += self.segments.step(sink, &self.watch.peer, &mut self.across);
            self.tell_wanted();
        }
        self.watch.pending.store(self.segments.is_fetching(), Ordering::Relaxed);
        Ok(done)
    }

    /// Hands up the next frame, if there is one: of which kind it was.
    #[inline]
    fn take_one(&mut self, sink: &mut dyn Sink) -> Result<Option<Kind>, LaneError> {
        let ring = self.watch.peer.ring();
        let Some(head) = self.consumer.peek(ring) else { return Ok(None) };
        let slot = self.consumer.slot(ring);
        let header = header_of(head);
        if !is_known(header.kind) {
            return Err(broken("kind of a frame"));
        }
        let len = (head.first >> 16) as u16;
        let body = if usize::from(len) <= PAYLOAD_LEN {
            self.watch.peer.slot_body(slot, usize::from(len))
        } else if len == WINDOWED {
            let (offset, len) = place_of(slot.payload_word(0));
            self.taken += len;
            match self.watch.peer.window_body(offset, len) {
                Some(body) => body,
                None => return Err(broken("place of a body")),
            }
        } else {
            return Err(broken("length of a frame"));
        };
        // Before the sink is called: should it panic, the frame is not handed up twice.
        self.consumer.advance();
        sink.frame(&header, body);
        if header.kind == Kind::DATA && self.across.is_timing() {
            self.across.piece_came(header.tag, header.offset(), body.len(), Instant::now());
        }
        Ok(Some(header.kind))
    }

    /// Gives room back to the peer, and wakes it if it waits for that.
    #[inline]
    fn publish_index(&mut self, socket: &GuardedFd) {
        self.consumer.publish(&self.watch.own.control().consumed);
        self.watch.position.store(self.consumer.next(), Ordering::Relaxed);
        self.taken = 0;
        self.barrier.light();
        if self.watch.peer.control().starving.load(Ordering::Relaxed) != 0 {
            self.notify(socket);
        }
    }

    /// Whether the peer has ended, once there is no frame.
    #[inline]
    fn check_end(&mut self) -> Result<(), LaneError> {
        let closed = self.watch.peer.control().closed.load(Ordering::Acquire);
        if closed == 0 && !self.watch.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.end_seen(closed)
    }

    #[cold]
    fn end_seen(&mut self, closed: u64) -> Result<(), LaneError> {
        // Frames that were published before the end come first.
        std::sync::atomic::fence(Ordering::Acquire);
        if self.consumer.peek(self.watch.peer.ring()).is_some() {
            return Ok(());
        }
        let error = |kind, object| TransportError::new(kind, "shared-memory lane", object);
        Err(match closed {
            0 => error(ErrorKind::PeerDead, "the peer's process ended"),
            REFUSED => error(ErrorKind::Broken, "closed by the peer")
                .hint("the peer says that this side broke the protocol: are both of the same version?"),
            _ => error(ErrorKind::Broken, "closed by the peer"),
        })
    }
}

/// Whether a session may have a frame of this kind.
#[inline]
fn is_known(kind: Kind) -> bool {
    // One comparison for both ends: nothing is below the empty kind.
    const { assert!(Kind::EMPTY.0 == 0) };
    kind.0.wrapping_sub(1) < Kind::LANE_PRIVATE - 1
}
