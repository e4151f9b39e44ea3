//! Blocking receives into borrowed memory: looks and turns of progress until the message is there, or the receive is posted.
//!
//! Called by [`crate::Endpoint::recv`] and its kind, which sees to it that a receive that was posted leaves the table before the
//! borrow ends.
#![allow(unsafe_code)]

use super::Shared;
use super::quick::TURNS_DIRECT;
use crate::completion::{Completion, Match};
use crate::core::op::Memory;
use crate::core::table::Key;
use crate::core::{Core, Got, LOOKS_PER_TURN, Look, Receiving, Tags, Taken};
use std::ptr::NonNull;
use std::sync::Arc;

/// Turns of a receive for which there are no such looks: over sockets, with a source, without the bias.
const TURNS_ALONE: u32 = 256;

/// A direct receive that has its message, when what is run at the end of the section may panic: it becomes an operation, so that
/// the message is not lost by that.
#[inline(always)]
fn kept_if_it_may_panic(core: &mut Core, receiving: &Receiving, taken: Taken) -> Taken {
    match taken {
        Taken::Done(info) if core.effects.must_run() => {
            let memory = Memory::Borrowed { data: receiving.data, len: receiving.room };
            let number = core.direct.number();
            let untagged = receiving.pattern.untagged;
            Taken::Pending(core.keep_finished(receiving.endpoint, untagged, memory, Ok(info), number))
        }
        taken => taken,
    }
}

impl Shared {
    /// One look for a message, the short way.
    #[inline(always)]
    pub(crate) fn recv_look(
        self: &Arc<Self>,
        endpoint: u32,
        tags: Tags,
        buf: &mut [u8],
        got: &mut Got,
    ) -> Look {
        let Some(mut core) = self.core.lock_if_biased() else { return Look::Away };
        let memory = (NonNull::from(&mut *buf).cast(), buf.len());
        // SAFETY: `buf` is borrowed meanwhile.
        let look = unsafe { core.recv_quick(endpoint, tags, memory, got) };
        self.leave_quick(core, matches!(look, Look::Done));
        look
    }

    /// Receives into borrowed memory, looking and making progress by turns for a while; what did not come meanwhile is posted,
    /// and must leave the table before the borrow ends: `note` hears of it under the lock.
    pub(crate) fn recv_direct(
        self: &Arc<Self>,
        endpoint: u32,
        pattern: Match,
        buf: &mut [u8],
        mut note: impl FnMut(Key),
    ) -> Result<Completion, Taken> {
        let (data, room) = (NonNull::from(&mut *buf).cast(), buf.len());
        let receiving = &Receiving { endpoint, pattern, data, room };
        let mut turns = TURNS_ALONE;
        for _ in 0..TURNS_DIRECT {
            let Some(tags) = Tags::of(&pattern) else { break };
            let mut got = Got::NOTHING;
            let (keeps, left) = match self.recv_look(endpoint, tags, buf, &mut got) {
                Look::Done => return Ok(got.info()),
                Look::Away => break,
                Look::Nothing | Look::Aside => (true, 0),
                // It may be the word that a loan is over, which somebody waits for.
                Look::More | Look::Other => (false, 0),
                // It has asked the system as often as so many turns do.
                Look::Dry => (true, turns.saturating_sub(LOOKS_PER_TURN + 1)),
                Look::Behind => (false, turns.saturating_sub(1)),
            };
            let reads = left > 0;
            // SAFETY: `buf` is borrowed meanwhile; an operation that comes back is the caller's to end before its own borrow
            // does, as with every `Memory::Borrowed`.
            if let Some(taken) = unsafe { self.recv_in_turns(keeps, 1, receiving, &mut note) } {
                return Err(taken);
            }
            turns = left;
            if self.core.contended() || (reads && left < LOOKS_PER_TURN) {
                break;
            }
        }
        // SAFETY: as above.
        Err(unsafe { self.recv_slowly(turns, receiving, &mut note) })
    }

    /// The long way of a direct receive: some turns of progress, which keep what is left of bundles if told so. An operation
    /// that comes of it is noted under the lock.
    ///
    /// # Safety
    /// The receive's memory is writable, and borrowed by the caller until the receive is over: done, or out of the table.
    #[inline(never)]
    unsafe fn recv_in_turns(
        self: &Arc<Self>,
        keeps: bool,
        turns: u32,
        receiving: &Receiving,
        note: &mut dyn FnMut(Key),
    ) -> Option<Taken> {
        self.with_settled(keeps, |core| {
            let mut taken = core.recv_before(receiving);
            for _ in 0..turns {
                if taken.is_some() || core.effects.any() || self.core.contended() {
                    break;
                }
                // SAFETY: the caller's promise.
                taken = unsafe { core.recv_in_turn(receiving) };
            }
            taken = taken.map(|taken| kept_if_it_may_panic(core, receiving, taken));
            if let Some(Taken::Pending(key)) = taken {
                note(key);
            }
            taken
        })
    }

    /// Some turns where there was no short way to try, as without the bias or over sockets; then the receive is posted.
    ///
    /// # Safety
    /// As [`Shared::recv_in_turns`].
    #[cold]
    #[inline(never)]
    unsafe fn recv_slowly(
        self: &Arc<Self>,
        turns: u32,
        receiving: &Receiving,
        note: &mut dyn FnMut(Key),
    ) -> Taken {
        // SAFETY: the caller's promise.
        if let Some(taken) = unsafe { self.recv_in_turns(false, turns, receiving, note) } {
            return taken;
        }
        self.with(|core| {
            // SAFETY: the caller's promise.
            let taken = unsafe { core.recv_posted(receiving) };
            let taken = kept_if_it_may_panic(core, receiving, taken);
            if let Taken::Pending(key) = taken {
                note(key);
            }
            taken
        })
    }
}
