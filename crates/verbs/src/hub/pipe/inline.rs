//! Sends without a buffer: their bytes are copied while they are posted.
//!
//! They stand in the same queue as the others and have numbers of their own, so that a [run](super::Run) is of buffers only, and a pipe that has none of them asks for none. What is known
//! of each is before which of the others it was posted: it has ended when that one has.
#![allow(unsafe_code)]

use super::{Pipe, Verb};
use crate::error::{Error, Result};
use crate::qp::Connected;
use sinew_verbs_sys as sys;

/// The bit of a request's number that says that it is inline. No other number has it: they count from 0.
pub(super) const INLINE: u64 = 1 << 63;

/// Those that are out, in the order posted. Numbers count from 0 and never come again.
#[derive(Debug)]
pub(super) struct Inlines {
    /// Of each, in the place of its number: the number that the next send with a buffer got.
    before: Box<[u64]>,
    /// Those before it have ended.
    done: u64,
    head: u64,
}

impl Inlines {
    /// For a queue of `depth` requests; none for a queue pair that takes none.
    pub(super) fn new(depth: u32) -> Self {
        Self { before: vec![0; depth as usize].into(), done: 0, head: 0 }
    }

    /// Whether the queue pair takes any.
    const fn are_taken(&self) -> bool {
        !self.before.is_empty()
    }

    fn place(&self, number: u64) -> usize {
        // The length is that of a queue: at least 1 where there is a number.
        (number % self.before.len() as u64) as usize
    }

    /// The number that the next one gets.
    const fn next(&self) -> u64 {
        self.head
    }

    /// The next one was posted, before this number of the others. There is room.
    fn push(&mut self, before: u64) {
        debug_assert!(self.out() < self.before.len() as u64);
        let place = self.place(self.head);
        self.before[place] = before;
        self.head += 1;
    }

    pub(super) const fn is_out(&self, number: u64) -> bool {
        number >= self.done && number < self.head
    }

    /// Before which of the others one that is out was posted.
    pub(super) fn before(&self, number: u64) -> u64 {
        self.before[self.place(number)]
    }

    /// This one, which is out, has ended, and with it those before it.
    pub(super) const fn end(&mut self, number: u64) {
        self.done = number + 1;
    }

    const fn out(&self) -> u64 {
        self.head - self.done
    }

    /// How many are out when the others have ended up to this number, without it.
    pub(super) fn out_behind(&self, number: u64) -> u64 {
        let ended = (self.done..self.head).take_while(|inline| self.before(*inline) < number).count();
        self.out() - ended as u64
    }

    /// The same; the rest has ended.
    fn end_before(&mut self, number: u64) -> u64 {
        self.done = self.head - self.out_behind(number);
        self.out()
    }

    /// None is out any more.
    pub(super) const fn clear(&mut self) {
        self.done = self.head;
    }
}

impl<S: Connected, E> Pipe<S, E> {
    /// Posts bytes, which are copied meanwhile: they are the caller's again when this returns, whatever memory they are in, and need no registration. For messages and writes that are
    /// shorter than a buffer is worth. Up to the queue pair's inline capacity ([`QueuePairBuilder::inline_capacity`](crate::qp::QueuePairBuilder::inline_capacity), and
    /// [`Depths::inline`](crate::qp::Depths::inline) says what the device gave). Never blocks, never allocates.
    ///
    /// It takes a place of the send queue until it is known to have ended, and nothing comes back of it: [`poll`](Self::poll) tells a failure alone, and
    /// [`in_flight`](Self::in_flight) how many are out. Unsignaled it costs no completion, and ends with the next signaled send.
    ///
    /// # Errors
    /// [`Error::Full`] when the send queue has no place; [`Error::Invalid`] for more bytes than the queue pair takes, for a read, for a length that the bytes do not have, and before the
    /// pipe is connected; [`Error::Call`] from the device. Where the device failed in the call itself the pipe is to be [`reset`](Self::reset).
    #[doc(alias = "IBV_SEND_INLINE")]
    pub fn post_inline(&mut self, bytes: &[u8], verb: Verb<S>) -> Result<()> {
        let length = self.inline_len(bytes, &verb)?;
        if self.sends.is_full() {
            self.count_inlines();
            self.ready()?;
        }
        let addr = bytes.as_ptr().expose_provenance() as u64;
        let element = sys::ibv_sge { addr, length, lkey: 0 };
        let number = INLINE | self.inlines.next();
        // An empty message has no element, which devices would take for 2^31 bytes.
        let mut request = verb.request(number, &raw const element, i32::from(length > 0));
        if length > 0 {
            request.raw_mut().send_flags |= sys::IBV_SEND_INLINE;
        }
        // SAFETY: the bytes are borrowed through the call, and as many as the queue pair takes inline: their driver reads them in it, and nothing of them behind it. `inlines` and
        // `sends` together have a place for each request that is out, so the queue and the completion queue have.
        match unsafe { self.qp.post_one(request) } {
            Ok(()) => {
                self.inline_posted();
                Ok(())
            }
            Err(failed) => {
                if failed.is_uncertain {
                    self.inline_posted();
                    self.cut();
                }
                Err(failed.error)
            }
        }
    }

    /// How many bytes go.
    fn inline_len(&self, bytes: &[u8], verb: &Verb<S>) -> Result<u32> {
        let most = self.qp.depths().inline;
        let wanted = verb.len.map_or(bytes.len(), |len| usize::try_from(len).unwrap_or(usize::MAX));
        match u32::try_from(wanted) {
            Ok(len)
                if len <= most
                    && wanted <= bytes.len()
                    && self.inlines.are_taken()
                    && verb.opcode != sys::IbvWrOpcode::RDMA_READ =>
            {
                Ok(len)
            }
            _ => Err(not_inline(wanted, bytes.len(), most, verb.opcode)),
        }
    }

    fn inline_posted(&mut self) {
        self.inlines.push(self.sends.next());
        self.sends.set_aside(self.inlines.out());
    }

    /// The places of those that have ended, with others that were posted behind them, are free.
    pub(super) fn count_inlines(&mut self) {
        let out = self.inlines.end_before(self.sends.oldest());
        self.sends.set_aside(out);
    }
}

#[cold]
fn not_inline(wanted: usize, there: usize, most: u32, opcode: sys::IbvWrOpcode) -> Error {
    if opcode == sys::IbvWrOpcode::RDMA_READ {
        let remedy = "read into a buffer";
        return Error::invalid("inline operation", "it fills its memory, and takes nothing from it", remedy);
    }
    if wanted > there {
        let cause = format!("{wanted} bytes of {there}");
        return Error::invalid("length of an operation", cause, "take at most what there is");
    }
    let cause = format!("{wanted} bytes; the queue pair takes {most}");
    Error::invalid("inline operation", cause, "ask for more by `inline_capacity`, or post a buffer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_others_ends_with_them_and_each_number_is_of_one() {
        let mut inlines = Inlines::new(3);
        for before in [0, 0, 5] {
            inlines.push(before);
        }
        assert_eq!((inlines.out_behind(0), inlines.out_behind(1), inlines.out_behind(5)), (3, 1, 1));
        assert_eq!((inlines.end_before(5), inlines.next()), (1, 3));
        assert!(!inlines.is_out(1) && inlines.is_out(2) && !inlines.is_out(3));
        inlines.push(6);
        inlines.push(7);
        assert_eq!([2, 3, 4].map(|number| inlines.before(number)), [5, 6, 7], "around the end");
        inlines.end(3);
        assert!(!inlines.is_out(2) && !inlines.is_out(3) && inlines.is_out(4));
        assert_eq!(inlines.end_before(7), 1, "not before its own");
        inlines.clear();
        assert_eq!((inlines.out(), inlines.is_out(4)), (0, false));
    }
}
