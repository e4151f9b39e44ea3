//! What one gathered write is made of: a bounded list of slices, and the pads that put large bodies well.
//!
//! Used by the lane's send side.

use sinew_wire::frame::stream::HEADER_LEN;
use std::io::IoSlice;

/// Bodies shorter than this are not worth a pad.
pub(super) const PAD_FROM: usize = 4096;

/// Length of the pad that puts a body at `data`, which would begin `offset` bytes into a fresh buffer of the kernel, well.
///
/// Processors copy slowly where the target lies up to 63 bytes above the source within a page (measured on Zen 5: 1 MiB over
/// loopback in 190 µs instead of 115), which is just what 24 bytes of header bring about for aligned memory.
pub(super) fn pad(offset: usize, data: *const u8) -> usize {
    let ahead = offset.wrapping_sub(data.addr()) % 4096;
    if (1..64).contains(&ahead) { data.addr().wrapping_sub(offset) % 64 } else { 0 }
}

/// The pad before the body made of `body`, for the sake of its first large piece.
pub(super) fn pad_before(body: &[IoSlice<'_>]) -> usize {
    let mut offset = HEADER_LEN;
    for piece in body {
        if piece.len() >= PAD_FROM {
            return pad(offset, piece.as_ptr());
        }
        offset += piece.len();
    }
    0
}

/// Most pieces of a body that [`SendLog::post_direct`] takes.
pub(super) const DIRECT_PIECES: usize = 8;
/// Most pieces of one gathered write.
const PIECES: usize = 64;

/// A bounded list of slices for one system call.
pub(super) struct Pieces<'a> {
    slices: [IoSlice<'a>; PIECES],
    len: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn new() -> Self {
        Self { slices: [IoSlice::new(&[]); PIECES], len: 0 }
    }

    /// `false` when there is no room. An empty piece takes none.
    pub(super) fn push(&mut self, piece: &'a [u8]) -> bool {
        if piece.is_empty() {
            return true;
        }
        if self.len == PIECES {
            return false;
        }
        self.slices[self.len] = IoSlice::new(piece);
        self.len += 1;
        true
    }

    /// Whether a header with its borrowed body, and one piece more, may not fit.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.len + 3 > PIECES
    }

    pub(super) fn as_slice(&self) -> &[IoSlice<'a>] {
        &self.slices[..self.len]
    }
}
