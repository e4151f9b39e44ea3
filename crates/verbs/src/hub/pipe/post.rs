//! The posts of a pipe: where its promise to the device is made.
//!
//! Each has one way that is short: a buffer of the queue pair's domain, of which an element can be made, while there is room. All else is judged in functions of its own, which
//! are not given the address of anything that the short way has in registers.
#![allow(unsafe_code)]

use super::super::Rejected;
use super::super::member::not_up;
use super::super::operation::of_another_domain;
use super::list::LIST;
use super::{Pipe, Verb};
use crate::error::{Error, Result};
use crate::memory::Buffer;
use crate::qp::{Begun, Connected, PostError, write_request};
use sinew_verbs_sys as sys;
use std::ffi::c_int;
use std::mem::MaybeUninit;

/// Whether all of a buffer, or its first bytes, are an element for a queue pair of this domain, by its identity.
#[inline(always)]
fn is_plain(domain: *const (), buffer: &Buffer, len: Option<u32>) -> bool {
    match (buffer.element_in(domain), len) {
        (Some(element), Some(len)) => len > 0 && len <= element.length,
        (element, None) => element.is_some(),
        (None, Some(_)) => false,
    }
}

/// The element of a buffer where it lies, or in `shorter`, as long as is wanted.
#[inline(always)]
fn element_of<'e>(
    buffer: &'e Buffer,
    len: Option<u32>,
    shorter: &'e mut MaybeUninit<sys::ibv_sge>,
) -> &'e sys::ibv_sge {
    match len {
        None => buffer.element(),
        Some(length) => shorter.write(sys::ibv_sge { length, ..*buffer.element() }),
    }
}

/// What was not posted, apart: the way without errors has nothing of its size.
type Refusal = Option<Box<Rejected<Option<Buffer>>>>;

impl<S: Connected, E> Pipe<S, E> {
    /// Posts a buffer. Never blocks, never allocates.
    ///
    /// # Errors
    /// With the buffer: [`Error::Full`] when the send queue has no place; [`Error::Invalid`] for a buffer of another domain, for a length that it does not have, and before the pipe is
    /// connected. Where the device failed in the call itself it may have taken the request: then the error comes alone, the pipe is to be [`reset`](Self::reset), and the buffer comes
    /// by [`poll`](Self::poll) or by that.
    #[inline(always)]
    pub fn post(
        &mut self,
        buffer: Buffer,
        verb: Verb<S>,
    ) -> std::result::Result<(), Rejected<Option<Buffer>>> {
        match self.post_boxed(buffer, verb) {
            None => Ok(()),
            Some(rejected) => Err(*rejected),
        }
    }

    #[inline(always)]
    fn post_boxed(&mut self, buffer: Buffer, verb: Verb<S>) -> Refusal {
        if self.sends.is_full() || !is_plain(self.domain, &buffer, verb.len) {
            return self.post_otherwise(buffer, verb.apart());
        }
        let number = self.sends.next();
        // SAFETY: it is not full.
        let buffer = unsafe { self.sends.push(buffer) };
        let mut shorter = MaybeUninit::uninit();
        let Some(extended) = self.qp.as_raw_extended() else {
            // SAFETY: in the list.
            unsafe { self.list.fill(LIST - 1, number, verb, buffer.element()) };
            return self.post_legacy();
        };
        let element = element_of(buffer, verb.len, &mut shorter);
        // SAFETY: the queue pair is alive and borrowed for this thread alone; it has the functions of all verbs. `sends` keeps the buffer, registered in the queue pair's
        // domain and reached by nobody else, until the request has ended, or the queue pair is destroyed; it had room, so the queue and the completion queue have.
        let answer = unsafe {
            let begun = Begun::new(extended);
            write_request::<S>(extended, verb.request(number, element, 1).as_raw());
            begun.complete()
        };
        if answer == 0 { None } else { self.post_failed(answer, true) }
    }

    /// By the list's last.
    #[inline(always)]
    fn post_legacy(&mut self) -> Refusal {
        let mut bad = std::ptr::null_mut();
        // SAFETY: the queue pair is alive, and its context was looked at when it was opened; the list lives through the call; the memory as above.
        let answer =
            unsafe { sys::ibv_post_send_unchecked(self.qp.as_raw(), self.list.first_of(1), &raw mut bad) };
        if answer == 0 { None } else { self.post_failed(answer, bad.is_null()) }
    }

    /// The newest was not posted, or nobody knows.
    #[cold]
    fn post_failed(&mut self, answer: c_int, is_uncertain: bool) -> Refusal {
        let errno = sys::Errno::check(answer).err().unwrap_or(sys::Errno::UNKNOWN);
        let PostError { error, .. } = self.qp.post_failed("ibv_post_send", 0, errno, is_uncertain);
        self.refused(error, is_uncertain)
    }

    #[cold]
    fn refused(&mut self, error: Error, is_uncertain: bool) -> Refusal {
        if is_uncertain {
            self.cut();
            return Some(Box::new(Rejected { operation: None, error }));
        }
        Some(Box::new(Rejected { operation: self.sends.take_back(), error }))
    }

    /// What is no plain element: an empty message, or a mistake.
    #[cold]
    fn post_otherwise(&mut self, buffer: Buffer, verb: Verb<S>) -> Refusal {
        self.count_inlines();
        if let Err(error) = self.ready() {
            return Some(Box::new(Rejected { operation: Some(buffer), error }));
        }
        let (element, count) = match self.element(&buffer, verb.len) {
            Ok(element) => element,
            Err(error) => return Some(Box::new(Rejected { operation: Some(buffer), error: *error })),
        };
        let number = self.sends.next();
        // SAFETY: it has room, as `ready` said.
        unsafe { self.sends.push(buffer) };
        // SAFETY: as in `post_boxed`.
        match unsafe { self.qp.post_one(verb.request(number, &raw const element, count)) } {
            Ok(()) => None,
            Err(failed) => self.refused(failed.error, failed.is_uncertain),
        }
    }

    /// Whether it can send now.
    #[cold]
    pub(super) fn ready(&self) -> Result<()> {
        let depth = self.sends.depth();
        if self.sends.room() > 0 {
            return Ok(());
        }
        let is_full = self.sends.is_open() || depth == 0;
        Err(if is_full { Error::Full { queue: "send queue", depth } } else { not_up() })
    }

    /// The element of a buffer, or of its first bytes, and whether there is one: none of an empty message.
    #[cold]
    pub(super) fn element(
        &self,
        buffer: &Buffer,
        len: Option<u32>,
    ) -> std::result::Result<(sys::ibv_sge, i32), Box<Error>> {
        if !buffer.is_of(self.qp.protection_domain()) {
            return Err(of_another_domain());
        }
        let wanted = len.map_or(buffer.len(), |len| usize::try_from(len).unwrap_or(usize::MAX));
        match u32::try_from(wanted) {
            Ok(len) if wanted <= buffer.len() => Ok((buffer.first(len), i32::from(len > 0))),
            _ => {
                let cause = format!("{wanted} bytes of a buffer of {}", buffer.len());
                let remedy = "take at most what it has, and at most 4294967295";
                Err(Box::new(Error::invalid("length of an operation", cause, remedy)))
            }
        }
    }

    /// Posts the buffers of a list, from its first on, each as `verb` says for its place, with one doorbell for all of them where the device posts extended batches, and for each 16
    /// otherwise. Those that were posted are not in the list any more; how many. The others stay, moved up: what has no room, and what is refused, which the next call tells. `verb` may be asked
    /// again for a place. Never blocks, never allocates.
    ///
    /// # Errors
    /// As for [`post`](Self::post), of the first of the list. Where the device failed in the call itself the buffers are the pipe's.
    #[inline(always)]
    pub fn post_all(
        &mut self,
        buffers: &mut Vec<Buffer>,
        mut verb: impl FnMut(usize) -> Verb<S>,
    ) -> Result<usize> {
        let mut posted = 0;
        while !buffers.is_empty() {
            match self.post_some(buffers, |place| verb(posted + place)) {
                Ok(0) => match self.post_first(buffers, verb(posted).apart()) {
                    None => posted += 1,
                    Some(error) if posted == 0 || !self.sends.is_open() => return Err(*error),
                    Some(_) => break,
                },
                Ok(count) => posted += count,
                Err(error) => return Err(error),
            }
        }
        Ok(posted)
    }

    /// The first of a list, by itself.
    #[cold]
    fn post_first(&mut self, buffers: &mut Vec<Buffer>, verb: Verb<S>) -> Option<Box<Error>> {
        let Rejected { operation, error } = *self.post_otherwise(buffers.remove(0), verb)?;
        if let Some(buffer) = operation {
            buffers.insert(0, buffer);
        }
        Some(Box::new(error))
    }

    /// Posts as many of the list with one doorbell as are plain elements; none where not even the first is, or is taken.
    #[inline(always)]
    fn post_some(&mut self, buffers: &mut Vec<Buffer>, verb: impl FnMut(usize) -> Verb<S>) -> Result<usize> {
        match self.qp.as_raw_extended() {
            Some(extended) => self.post_extended(extended, buffers, verb),
            None => self.post_list(buffers, verb),
        }
    }

    #[inline(always)]
    fn post_extended(
        &mut self,
        extended: *mut sys::ibv_qp_ex,
        buffers: &mut Vec<Buffer>,
        mut verb: impl FnMut(usize) -> Verb<S>,
    ) -> Result<usize> {
        let count = buffers.len().min(self.sends.room() as usize);
        if count == 0 {
            return Ok(0);
        }
        let first = self.sends.next();
        let mut posted = 0;
        // SAFETY: the queue pair is alive and borrowed for this thread alone. `verb` is the caller's: it cannot reach the queue pair, which is borrowed, and when it panics the batch is
        // taken back.
        let begun = unsafe { Begun::new(extended) };
        for buffer in &buffers[..count] {
            let verb = verb(posted);
            if !is_plain(self.domain, buffer, verb.len) {
                break;
            }
            let mut shorter = MaybeUninit::uninit();
            let element = element_of(buffer, verb.len, &mut shorter);
            // SAFETY: a batch was begun; the queue pair has the functions of all verbs. The memory as in `post_boxed`: the buffer moves into `sends` below.
            unsafe { write_request::<S>(extended, verb.request(first + posted as u64, element, 1).as_raw()) };
            posted += 1;
        }
        if posted == 0 {
            return Ok(0);
        }
        let answer = begun.complete();
        // SAFETY: the list has so many, and there is room.
        unsafe { self.sends.push_first(buffers, posted) };
        if answer == 0 { Ok(posted) } else { self.batch_failed(answer) }
    }

    /// Nobody knows what the device has taken of a batch.
    #[cold]
    fn batch_failed(&mut self, answer: c_int) -> Result<usize> {
        let errno = sys::Errno::check(answer).err().unwrap_or(sys::Errno::UNKNOWN);
        let failed = self.qp.post_failed("ibv_post_send", 0, errno, true);
        self.cut();
        Err(failed.error)
    }

    #[inline(always)]
    fn post_list(
        &mut self,
        buffers: &mut Vec<Buffer>,
        mut verb: impl FnMut(usize) -> Verb<S>,
    ) -> Result<usize> {
        let count = buffers.len().min(self.sends.room() as usize).min(LIST);
        let number = self.sends.next();
        let mut filled = 0;
        for buffer in &buffers[..count] {
            let verb = verb(filled);
            if !is_plain(self.domain, buffer, verb.len) {
                break;
            }
            // SAFETY: `filled` is less than `count`, which is at most as long as the list.
            unsafe {
                self.list.fill(LIST - count + filled, number + filled as u64, verb, buffer.element());
            }
            filled += 1;
        }
        if filled < count || count == 0 {
            return self.post_part(buffers, count, filled);
        }
        // SAFETY: 1 to as many as the list has.
        let first = unsafe { self.list.first_of(count) };
        let mut bad = std::ptr::null_mut();
        // SAFETY: as in `post_boxed`, of each: the buffers move into `sends` behind the call.
        let answer = unsafe { sys::ibv_post_send_unchecked(self.qp.as_raw(), first, &raw mut bad) };
        if answer != 0 {
            return self.list_failed(buffers, first, count, answer, bad);
        }
        // SAFETY: the list has so many, and there is room.
        unsafe { self.sends.push_first(buffers, count) };
        Ok(count)
    }

    /// Posts the first `filled` requests of a list that was to have `count`.
    #[cold]
    fn post_part(&mut self, buffers: &mut Vec<Buffer>, count: usize, filled: usize) -> Result<usize> {
        if filled == 0 {
            return Ok(0);
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: as above; the last that was filled ends the list for this call.
        let (first, answer) = unsafe {
            let first = self.list.first_of(count);
            let last = first.add(filled - 1);
            let next = std::mem::replace(&mut (*last).next, std::ptr::null_mut());
            let answer = sys::ibv_post_send_unchecked(self.qp.as_raw(), first, &raw mut bad);
            (*last).next = next;
            (first, answer)
        };
        if answer != 0 {
            return self.list_failed(buffers, first, filled, answer, bad);
        }
        // SAFETY: the list has so many, and there is room.
        unsafe { self.sends.push_first(buffers, filled) };
        Ok(filled)
    }

    /// The device refused a request of a list, or failed.
    #[cold]
    fn list_failed(
        &mut self,
        buffers: &mut Vec<Buffer>,
        first: *mut sys::ibv_send_wr,
        count: usize,
        answer: c_int,
        bad: *mut sys::ibv_send_wr,
    ) -> Result<usize> {
        // Those before the one that it names were posted.
        let refused = (0..count).find(|place| std::ptr::eq(first.wrapping_add(*place), bad));
        let posted = refused.unwrap_or(count);
        // SAFETY: the list has so many, and there is room.
        unsafe { self.sends.push_first(buffers, posted) };
        match refused {
            None => self.batch_failed(answer),
            // The first is asked for again by itself: it says why.
            Some(_) => Ok(posted),
        }
    }
}
