//! Frames into the own half: in a slot, or with a body in the window; room, and waking who sleeps.

use super::{Open, WINDOWED};
use crate::lane::setup::Bell;
use crate::note::broken;
use crate::shared::ring::{Forged, Head, PAYLOAD_LEN, PAYLOAD_WORDS};
use sinew_base::guarded::GuardedFd;
use sinew_transport::{LaneError, PostError};
use sinew_wire::frame::Header;
use std::io::IoSlice;
use std::sync::atomic::Ordering;

/// Looks at the consumer's index before a long body is refused: at most about two microseconds, and none while the peer takes
/// nothing.
const LOOKS_FOR_ROOM: u32 = 100;
/// The slot of a body that is copied in no more time than a line takes is asked for before the copy: after a longer one the
/// peer, which looks at the slot, would have it again.
const SLOT_AHEAD_MAX: usize = 4096;

impl Open {
    /// Publishes a frame, and wakes the peer if it sleeps.
    #[inline]
    pub(crate) fn post(
        &mut self,
        header: &Header,
        parts: &[IoSlice<'_>],
        frame_max: usize,
        socket: &GuardedFd,
    ) -> Result<(), PostError> {
        if let [part] = parts
            && part.len() <= PAYLOAD_LEN
        {
            return self.post_small(header, part, socket);
        }
        self.post_parts(header, parts, frame_max, socket)
    }

    /// Publishes a frame, if there is room for it. `false`: nothing has happened.
    #[inline]
    pub(crate) fn post_short(
        &mut self,
        header: &Header,
        body: &[u8],
        frame_max: usize,
        socket: &GuardedFd,
    ) -> bool {
        if !self.producer.has_room() {
            return false;
        }
        if body.len() > PAYLOAD_LEN {
            return self.post_in_window(header, body, frame_max, socket);
        }
        self.publish_body(header, body);
        self.notify(socket);
        true
    }

    #[inline(never)]
    fn post_in_window(&mut self, header: &Header, body: &[u8], frame_max: usize, socket: &GuardedFd) -> bool {
        let len = body.len();
        // A full small window is worth another look at what came back: that is the long way.
        if len > frame_max || self.window.small_is_full(len) {
            return false;
        }
        let Some(offset) = self.window.take(len) else { return false };
        if len <= SLOT_AHEAD_MAX && self.ahead.is_in_turn(self.consumer.next()) {
            self.producer.ask_for_slot(self.watch.own.ring());
        }
        self.watch.own.fill(offset, &[IoSlice::new(body)]);
        self.publish_windowed(header, offset, len);
        self.notify(socket);
        true
    }

    /// A body that fits a slot.
    #[inline]
    fn post_small(&mut self, header: &Header, body: &[u8], socket: &GuardedFd) -> Result<(), PostError> {
        if !self.producer.has_room() {
            self.look_for_room()?;
        }
        self.publish_body(header, body);
        self.notify(socket);
        Ok(())
    }

    #[inline]
    fn publish_body(&mut self, header: &Header, body: &[u8]) {
        if let Ok(word) = <[u8; 8]>::try_from(body) {
            self.publish(header, 8, &[u64::from_le_bytes(word), 0, 0, 0, 0], 8);
        } else {
            self.publish_padded(header, body);
        }
    }

    #[inline(never)]
    fn publish_padded(&mut self, header: &Header, body: &[u8]) {
        self.publish(header, body.len() as u16, &words_of(body), body.len());
    }

    #[inline(never)]
    fn post_parts(
        &mut self,
        header: &Header,
        parts: &[IoSlice<'_>],
        frame_max: usize,
        socket: &GuardedFd,
    ) -> Result<(), PostError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len <= PAYLOAD_LEN {
            let mut bytes = [0; PAYLOAD_LEN];
            let mut at = 0;
            for part in parts {
                bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            return self.post_small(header, &bytes[..len], socket);
        }
        if len > frame_max {
            return Err(PostError::TooLarge);
        }
        let offset = self.take_room(len)?;
        self.watch.own.fill(offset, parts);
        self.publish_windowed(header, offset, len);
        self.notify(socket);
        Ok(())
    }

    /// The same for one piece of raw memory, through the window unless it fits a slot.
    ///
    /// # Safety
    /// `data` is readable for `len` bytes during the call, and `len` is at most half of the large window.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn post_raw(
        &mut self,
        header: &Header,
        data: *const u8,
        len: usize,
        socket: &GuardedFd,
    ) -> Result<(), PostError> {
        if len <= PAYLOAD_LEN {
            let mut bytes = [0; PAYLOAD_LEN];
            // SAFETY: readable for `len` bytes, says the caller; `len` is at most the array's.
            unsafe { std::ptr::copy_nonoverlapping(data, bytes.as_mut_ptr(), len) };
            return self.post_small(header, &bytes[..len], socket);
        }
        let offset = self.take_room(len)?;
        // SAFETY: readable for `len` bytes, says the caller.
        unsafe { self.watch.own.fill_raw(offset, data, len) };
        self.publish_windowed(header, offset, len);
        self.notify(socket);
        Ok(())
    }

    #[inline]
    fn publish_windowed(&mut self, header: &Header, offset: usize, len: usize) {
        let payload = [offset as u64 | (len as u64) << 32, 0, 0, 0, 0];
        self.publish(header, WINDOWED, &payload, 8);
        if self.ahead.posted(self.consumer.next(), len) {
            self.watch.own.hand_lines_over(offset, len);
        }
    }

    #[inline]
    fn publish(&mut self, header: &Header, len: u16, payload: &[u64; PAYLOAD_WORDS], used: usize) {
        let head = Head {
            first: u64::from(header.kind.0) << 8 | u64::from(len) << 16 | u64::from(header.dst) << 32,
            second: header.tag,
            third: u64::from(header.src) | u64::from(header.flags.0) << 32,
        };
        let place = (self.producer.next() & self.mask) as usize;
        self.producer.publish(self.watch.own.ring(), head, payload, used);
        // After the peer can see the frame: it is in no hurry.
        self.marks[place] = self.window.mark();
    }

    /// Wakes the peer if it needs it: after publishing a frame, an index or the end.
    #[inline]
    pub(super) fn notify(&mut self, socket: &GuardedFd) {
        let state = &self.watch.peer.control().state;
        let bell = &self.bell;
        if self.waker.look(self.barrier, state, &self.peer_page.armed, || hint(bell, socket)) {
            ring(bell, socket);
        }
    }

    /// Room for a slot and `len` bytes of the window.
    #[inline]
    fn take_room(&mut self, len: usize) -> Result<usize, PostError> {
        if !self.producer.has_room() || self.window.small_is_full(len) {
            // The small window is worth a look: it stays in the first cache.
            self.refresh()?;
        }
        if self.producer.has_room()
            && let Some(offset) = self.window.take(len)
        {
            return Ok(offset);
        }
        // A receiver that copies gives room back in a moment: that is cheaper to wait for than to be told of.
        let mut looks = if std::mem::take(&mut self.patient) { LOOKS_FOR_ROOM } else { 1 };
        while looks > 0 {
            if self.refresh()?
                && self.producer.has_room()
                && let Some(offset) = self.window.take(len)
            {
                self.patient = true;
                return Ok(offset);
            }
            looks -= 1;
            std::hint::spin_loop();
        }
        self.starve();
        Err(PostError::Full)
    }

    #[cold]
    fn look_for_room(&mut self) -> Result<(), PostError> {
        self.refresh()?;
        if self.producer.has_room() {
            return Ok(());
        }
        self.starve();
        Err(PostError::Full)
    }

    /// Learns what the peer is done with; whether that is more than before.
    pub(super) fn refresh(&mut self) -> Result<bool, PostError> {
        match self.producer.refresh(&self.watch.peer.control().consumed) {
            Ok(true) => {
                self.window.release(self.marks[((self.producer.consumed() - 1) & self.mask) as usize]);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(Forged) => Err(PostError::Dead(broken("consumer index"))),
        }
    }

    /// Asks the peer to wake us when there is room.
    pub(super) fn starve(&mut self) {
        if !self.starving {
            self.starving = true;
            self.watch.own.control().starving.store(1, Ordering::Relaxed);
        }
        self.watch.waiting_at.store(self.producer.consumed(), Ordering::Relaxed);
    }

    /// Whether room has come back since the last refusal.
    #[cold]
    pub(super) fn check_room(&mut self) -> Result<bool, LaneError> {
        let found = std::mem::take(&mut self.room_found);
        match self.refresh() {
            Ok(moved) if moved || found => {
                self.starving = false;
                self.patient = true;
                self.watch.own.control().starving.store(0, Ordering::Relaxed);
                self.watch.waiting_at.store(u64::MAX, Ordering::Relaxed);
                Ok(true)
            }
            Err(PostError::Dead(error)) => Err(error),
            _ => Ok(false),
        }
    }
}

#[cold]
#[inline(never)]
fn hint(bell: &Bell, socket: &GuardedFd) {
    bell.hint(socket);
}

#[cold]
#[inline(never)]
fn ring(bell: &Bell, socket: &GuardedFd) {
    bell.ring(socket);
}

/// At most 40 bytes of body as words, without a call.
#[inline]
fn words_of(bytes: &[u8]) -> [u64; PAYLOAD_WORDS] {
    // A whole slot, as an envelope with a descriptor fills it.
    if let Ok(all) = <&[u8; PAYLOAD_LEN]>::try_from(bytes) {
        let (whole, _) = all.as_chunks::<8>();
        return std::array::from_fn(|at| u64::from_le_bytes(whole[at]));
    }
    let mut words = [0; PAYLOAD_WORDS];
    let Some(last) = bytes.last_chunk::<8>() else {
        words[0] = short_word(bytes);
        return words;
    };
    let (whole, rest) = bytes.as_chunks::<8>();
    for (word, bytes) in words.iter_mut().zip(whole) {
        *word = u64::from_le_bytes(*bytes);
    }
    if !rest.is_empty()
        && let Some(word) = words.get_mut(whole.len())
    {
        *word = u64::from_le_bytes(*last) >> (8 * (8 - rest.len()));
    }
    words
}

/// Fewer than eight bytes as a word.
#[inline]
fn short_word(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let shift = 8 * (bytes.len() - 4);
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << shift;
    }
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_body_becomes_its_words() {
        let bytes: Vec<u8> = (1..=40).collect();
        for len in 0..=40 {
            let out: Vec<u8> = words_of(&bytes[..len]).iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(out[..len], bytes[..len]);
            assert!(out[len..].iter().all(|&byte| byte == 0), "{len}");
        }
    }
}
