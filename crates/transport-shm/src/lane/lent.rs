//! Messages that are read across: lent memory described to the peer, and the peer's lent memory read here.
//!
//! Called by the lane. It neither maps nor keeps anything: an address of the peer's goes to the kernel, together with the proof
//! that it is the peer's, and the target is the engine's, as for every pull.
#![allow(unsafe_code)]

use super::ShmLane;
use super::segments::{self, Work};
use crate::across::{Across, PIECE};
use crate::shared::ring::PAYLOAD_LEN;
use crate::sys::across::Process;
use sinew_transport::{Crossing, Descriptor, ErrorKind, LaneError, Pull, Token, TransportError};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A message that is being read across: `done` of `len` bytes are there.
#[derive(Debug)]
pub(crate) struct Reading {
    process: Process,
    from: u64,
    target: NonNull<u8>,
    len: usize,
    done: usize,
}

// SAFETY: the target is the caller's until `Lane::revoke` or `Sink::pulled`, whatever thread the lane is used on.
unsafe impl Send for Reading {}

impl Reading {
    /// Reads the next piece; whether all is there.
    pub(crate) fn step(&mut self, across: &mut Across) -> Result<bool, LaneError> {
        let piece = PIECE.min(self.len - self.done);
        let begun = Instant::now();
        // SAFETY: the piece lies inside the target, which whoever made this has promised to be writable and nobody else's.
        let read = unsafe {
            self.process.read(self.from.wrapping_add(self.done as u64), self.target.add(self.done), piece)
        };
        match read {
            Ok(()) => {
                across.was_read(self.len, piece, begun.elapsed());
                self.done += piece;
                Ok(self.done == self.len)
            }
            Err(unread) => Err(across.failed(unread)),
        }
    }
}

impl ShmLane {
    /// Describes memory that is in no segment, if the peer wants to read it.
    pub(super) fn lend(&self, data: NonNull<u8>, len: usize) -> Option<Descriptor> {
        let open = self.open.as_ref()?;
        self.registry.token.shown()?;
        let wanted = open.watch.peer.control().reads.load(Ordering::Relaxed);
        if wanted >> len.max(1).ilog2() & 1 == 0 || self.registry.fork.forked() {
            return None;
        }
        Some(segments::describe_lent(data.as_ptr().expose_provenance() as u64, len, open.recalled()))
    }

    /// Which way bodies take, by their length.
    pub(super) fn explain_sizes(&self, whole_max: usize) -> Vec<Crossing> {
        let Some(open) = &self.open else { return Vec::new() };
        let options = &self.registry.options;
        let whole_max = whole_max.min(self.info.limits.frame_max);
        let row =
            |from_bytes, way: &str, reason: String| Crossing { from_bytes, way: way.to_owned(), reason };
        let mut rows =
            vec![row(0, "in a slot of the ring, one cache line", "the header leaves 40 bytes".to_owned())];
        if options.small_max > PAYLOAD_LEN {
            let reason = format!("the window of {} KiB stays in the first cache", options.small_window >> 10);
            rows.push(row(PAYLOAD_LEN + 1, "through the small window, copied in and out", reason));
        }
        if whole_max > options.small_max {
            let reason = format!("up to eager_max and frame_max, {whole_max} bytes: no answer is awaited");
            rows.push(row(
                options.small_max + 1,
                "through the large window in one frame, copied in and out",
                reason,
            ));
        }
        rows.extend(open.across.crossings(whole_max + 1, options.chunk_max));
        rows
    }

    /// Reads `len` of the `there` bytes that the peer has lent at `address`.
    ///
    /// # Safety
    /// As for [`sinew_transport::Lane::pull`].
    pub(super) unsafe fn pull_lent(
        &mut self,
        from: &Descriptor,
        (address, there): (u64, u64),
        target: NonNull<u8>,
        len: usize,
        token: Token,
    ) -> Result<Pull, LaneError> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        if self.registry.fork.forked() {
            return Err(crate::forked());
        }
        if len as u64 > there {
            return Err(TransportError::new(ErrorKind::Protocol, "lent memory", "shorter than the pull"));
        }
        let Some(open) = &mut self.open else { return Ok(Pull::Declined) };
        let chosen = open.across.choose(len);
        open.tell_wanted();
        let Some(process) = chosen else { return Ok(Pull::Declined) };
        let mut reading = Reading { process, from: address, target, len, done: 0 };
        if len > PIECE {
            open.segments.queue(token, from, Work::Read(reading));
            self.poll_me();
            return Ok(Pull::Pending);
        }
        let read = reading.step(&mut open.across);
        open.tell_wanted();
        read?;
        segments::check_still_there(from, &open.watch.peer).map(|()| Pull::Done)
    }
}
