//! How a lane gives its bytes to the kernel: at once, gathered, and what happens when the socket is full.
//!
//! The sending half of [`StreamLane`]; called by the calls of the transport contract in `mod.rs`.

use super::pieces::{DIRECT_PIECES, Pieces};
use super::{ACK, ASK_FRAME, StreamLane};
use crate::registered::Registered;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use sinew_transport::PostError;
use sinew_wire::frame::Header;
use sinew_wire::frame::stream::{self, HEADER_LEN};
use std::io::IoSlice;

/// Frames handed up since the last acknowledgement from which on one travels along with data.
const RIDE_FRAMES: u64 = 16;
const SEND: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

impl StreamLane {
    fn has_something_to_write(&self) -> bool {
        self.log.has_unsent() || !self.begun.is_empty() || self.want_acknowledge || self.want_ask
    }

    /// Gives the kernel what waits, until it takes no more. A failure is remembered for the next poll.
    #[inline]
    pub(super) fn write(&mut self) {
        if self.write_error.is_some() {
            return;
        }
        self.blocked = false;
        while self.has_something_to_write() {
            match self.write_once() {
                Ok(true) => {}
                Ok(false) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => {
                    self.blocked = true;
                    self.watch_writable();
                    return;
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    self.write_error = Some(errno);
                    return;
                }
            }
        }
    }

    /// One system call; `true` when the kernel took all that it was given.
    fn write_once(&mut self) -> Result<bool, Errno> {
        let ride = self.receiver.owes_release
            || self.receiver.received.wrapping_sub(self.acknowledged) >= RIDE_FRAMES;
        self.want_ask &= self.log.unacknowledged() > 0;
        if !(ride || self.want_acknowledge || self.want_ask)
            && self.begun.is_empty()
            && let Some(run) = self.log.single()
        {
            let total = run.len();
            let sent = rustix::net::send(&self.socket, run, SEND)?;
            self.written += sent as u64;
            self.log.advance(sent);
            self.mid_frame = sent != total;
            return Ok(sent == total);
        }
        self.write_gathered(ride)
    }

    fn write_gathered(&mut self, ride: bool) -> Result<bool, Errno> {
        let mut own = [0; 2 * HEADER_LEN];
        let mut own_len = 0;
        if self.want_acknowledge || ride {
            own[..HEADER_LEN].copy_from_slice(&acknowledgement(self.receiver.received));
            own_len = HEADER_LEN;
        }
        if self.want_ask {
            own[own_len..own_len + HEADER_LEN]
                .copy_from_slice(&stream::encode(&Header::control(ASK_FRAME, 0), 0));
            own_len += HEADER_LEN;
        }
        let mut pieces = Pieces::new();
        pieces.push(&self.begun);
        // Before the rest where it can be: the word that a message is done with finds its memory given back.
        let first = !self.mid_frame;
        if first {
            pieces.push(&own[..own_len]);
        }
        let (logged, whole) = self.log.gather(&mut pieces);
        if !(first || whole && pieces.push(&own[..own_len])) {
            own_len = 0;
        }
        let total = self.begun.len() + logged + own_len;
        let sent = send(&self.socket, pieces.as_slice())?;
        self.written += sent as u64;
        let mut rest = sent;
        let mut take = |len: usize| {
            let taken = rest.min(len);
            rest -= taken;
            taken
        };
        let begun = take(self.begun.len());
        let own_sent = if first { take(own_len) } else { 0 };
        let log_sent = take(logged);
        let own_sent = if first { own_sent } else { take(own_len) };
        self.begun.drain(..begun);
        self.log.advance(log_sent);
        self.mid_frame = match logged - log_sent {
            0 => !whole,
            _ => log_sent > 0 || self.mid_frame,
        };
        if own_sent > 0 {
            self.begun.extend_from_slice(&own[own_sent..own_len]);
            if self.want_acknowledge || ride {
                self.told();
            }
            (self.want_acknowledge, self.want_ask) = (false, false);
        }
        Ok(sent == total)
    }

    /// The peer is being told of all that was received.
    fn told(&mut self) {
        self.acknowledged = self.receiver.received;
        self.receiver.owes_release = false;
        self.watch.acknowledged();
    }

    fn watch_writable(&mut self) {
        if !self.watching_writable {
            self.watching_writable = self.socket.watch_writable(true).is_ok();
            self.writable_seen = false;
        }
    }

    /// Stops watching for writability once it has been reported with nothing left to write.
    pub(super) fn unwatch_writable(&mut self) {
        if self.watching_writable && self.writable_seen && !self.blocked {
            self.watching_writable = self.socket.watch_writable(false).is_err();
        }
    }

    /// Takes a frame with a large body, sending it at once where nothing stands before it.
    pub(super) fn post_large(
        &mut self,
        header: &Header,
        body: &[IoSlice<'_>],
        len: usize,
    ) -> Result<(), PostError> {
        let waits =
            self.blocked || self.write_error.is_some() || !self.begun.is_empty() || self.log.has_unsent();
        if waits || body.len() > DIRECT_PIECES {
            return self.log.post(header, body, len);
        }
        let socket = &self.socket;
        let (mut failed, mut sent) = (None, 0);
        let word = acknowledgement(self.receiver.received);
        let rides = self.receiver.received != self.acknowledged;
        let tail = if rides { &word[..] } else { &[] };
        let told = self.log.post_direct(header, body, len, tail, |pieces| {
            sent = send(socket, pieces).unwrap_or_else(|errno| {
                failed = Some(errno);
                0
            });
            sent
        })?;
        self.written += sent as u64;
        self.mid_frame = self.log.has_unsent() && sent > 0;
        if told > 0 {
            self.begun.extend_from_slice(&word[told..]);
            self.told();
            self.want_acknowledge = false;
        }
        match failed {
            None => {}
            Some(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => {}
            Some(errno) => self.write_error = Some(errno),
        }
        Ok(())
    }
}

/// The frame that says how many frames have been handed up.
fn acknowledgement(received: u64) -> [u8; HEADER_LEN] {
    stream::encode(&Header::control(ACK, received), 0)
}

fn send(socket: &Registered, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
    match pieces {
        [] => Ok(0),
        [piece] => rustix::net::send(socket, piece, SEND),
        _ => rustix::net::sendmsg(socket, pieces, &mut SendAncillaryBuffer::default(), SEND),
    }
}
