//! The buffers of a queue that ends in the order posted: from the post until the caller took them back.
//!
//! Pure: no device is spoken to. Numbers count from 0 and never come again, so that a completion that a device tells twice is of nothing. A buffer's place is its
//! number modulo the length of the ring.
#![allow(unsafe_code)]

use crate::memory::Buffer;
use std::mem::MaybeUninit;
use std::ptr;

/// Places, in the order of numbers: `tail` to `done` have ended and are the caller's to take, `done` to `head` are the device's.
///
/// Every number from `tail` to `head` has a buffer in its place, and no other.
#[derive(Debug)]
pub(super) struct Places {
    buffers: Box<[MaybeUninit<Buffer>]>,
    /// One less than their number, which is a power of two.
    mask: usize,
    depth: u64,
    is_open: bool,
    /// How many the queue has taken for requests without a buffer.
    aside: u64,
    /// How many may be taken: the rest of the depth, or none while the queue is closed.
    limit: u64,
    /// The number that there is no room for: `limit` behind `tail`, so that a post compares once.
    full_at: u64,
    tail: u64,
    done: u64,
    head: u64,
}

impl Places {
    /// For a queue of `depth` requests; closed.
    pub(super) fn new(depth: u32) -> Self {
        let buffers: Box<[_]> = (0..depth.next_power_of_two()).map(|_| MaybeUninit::uninit()).collect();
        let mask = buffers.len() - 1;
        let depth = depth.into();
        Self {
            buffers,
            mask,
            depth,
            is_open: false,
            aside: 0,
            limit: 0,
            full_at: 0,
            tail: 0,
            done: 0,
            head: 0,
        }
    }

    pub(super) const fn open(&mut self) {
        self.is_open = true;
        self.set_aside(self.aside);
    }

    pub(super) const fn close(&mut self) {
        self.is_open = false;
        self.set_aside(self.aside);
    }

    /// So many of the queue's places are taken by requests without a buffer: of those that have room, when they are more than before.
    pub(super) const fn set_aside(&mut self, aside: u64) {
        self.aside = aside;
        self.limit = if self.is_open { self.depth.saturating_sub(aside) } else { 0 };
        self.set_tail(self.tail);
    }

    #[inline(always)]
    const fn set_tail(&mut self, tail: u64) {
        self.tail = tail;
        self.full_at = tail + self.limit;
    }

    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) const fn depth(&self) -> u32 {
        self.depth as u32
    }

    /// How many more may be posted.
    #[inline(always)]
    pub(super) const fn room(&self) -> u64 {
        self.full_at.saturating_sub(self.head)
    }

    #[inline(always)]
    pub(super) const fn is_full(&self) -> bool {
        self.head >= self.full_at
    }

    /// How many are the device's.
    #[inline(always)]
    pub(super) const fn out(&self) -> u64 {
        self.head - self.done
    }

    /// How many are the caller's to take.
    #[inline(always)]
    pub(super) const fn ended(&self) -> u64 {
        self.done - self.tail
    }

    /// The number that the next request gets.
    #[inline(always)]
    pub(super) const fn next(&self) -> u64 {
        self.head
    }

    /// The number of the oldest that the device has.
    #[inline(always)]
    pub(super) const fn oldest(&self) -> u64 {
        self.done
    }

    /// The number of the oldest that the caller may take.
    #[inline(always)]
    pub(super) const fn first_ended(&self) -> u64 {
        self.tail
    }

    #[inline(always)]
    fn place(&mut self, number: u64) -> &mut MaybeUninit<Buffer> {
        let place = number as usize & self.mask;
        // SAFETY: the mask is one less than the number of places.
        unsafe { self.buffers.get_unchecked_mut(place) }
    }

    /// The newest; there it is.
    ///
    /// # Safety
    /// It is not full.
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, buffer: Buffer) -> &Buffer {
        debug_assert!(!self.is_full());
        let number = self.head;
        self.head += 1;
        self.place(number).write(buffer)
    }

    /// Takes the newest back, which the device did not take after all.
    pub(super) fn take_back(&mut self) -> Option<Buffer> {
        if self.head == self.done {
            return None;
        }
        self.head -= 1;
        let number = self.head;
        // SAFETY: it was among `tail` to `head`, and is not any more.
        Some(unsafe { self.place(number).assume_init_read() })
    }

    /// The first `count` of a list become the newest.
    ///
    /// # Safety
    /// There is room for so many, and the list has so many.
    #[inline(always)]
    pub(super) unsafe fn push_first(&mut self, list: &mut Vec<Buffer>, count: usize) {
        debug_assert!(count as u64 <= self.room() && count <= list.len());
        let (len, from) = (list.len(), list.as_mut_ptr());
        let at = self.head as usize & self.mask;
        let before_end = count.min(self.mask + 1 - at);
        let places = self.buffers.as_mut_ptr().cast::<Buffer>();
        // SAFETY: the list has so many, the ring has so many free places from `at` on, around its end; both are moved out of the list, whose rest
        // moves to its beginning.
        unsafe {
            list.set_len(0);
            ptr::copy_nonoverlapping(from, places.add(at), before_end);
            if before_end < count {
                ptr::copy_nonoverlapping(from.add(before_end), places, count - before_end);
            }
            if count < len {
                ptr::copy(from.add(count), from, len - count);
                list.set_len(len - count);
            }
        }
        self.head += count as u64;
    }

    /// The device is done with all before this number.
    ///
    /// # Safety
    /// It is, and the number is of one that is out, or the next.
    #[inline(always)]
    pub(super) unsafe fn end_before(&mut self, number: u64) {
        debug_assert!(number - self.done <= self.out());
        self.done = number;
    }

    /// The oldest that has ended.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<Buffer> {
        if self.tail == self.done {
            return None;
        }
        let number = self.tail;
        self.set_tail(number + 1);
        // SAFETY: it was among `tail` to `head`, and is not any more.
        Some(unsafe { self.place(number).assume_init_read() })
    }

    /// All that have ended go to the end of a list.
    #[inline(always)]
    pub(super) fn pop_all(&mut self, list: &mut Vec<Buffer>) {
        let count = self.ended() as usize;
        // The most frequent of short runs is not worth a call that copies.
        if count == 1 {
            if let Some(buffer) = self.pop() {
                list.push(buffer);
            }
            return;
        }
        list.reserve(count);
        let at = self.tail as usize & self.mask;
        let before_end = count.min(self.mask + 1 - at);
        let places = self.buffers.as_ptr().cast::<Buffer>();
        self.set_tail(self.done);
        // SAFETY: the list has room for so many; the places from `at` on, around the ring's end, have so many, which are not among `tail` to `head` any
        // more.
        unsafe {
            let to = list.as_mut_ptr().add(list.len());
            ptr::copy_nonoverlapping(places.add(at), to, before_end);
            if before_end < count {
                ptr::copy_nonoverlapping(places, to.add(before_end), count - before_end);
            }
            list.set_len(list.len() + count);
        }
    }

    /// Everything, oldest first.
    pub(super) fn drain(&mut self) -> Vec<Buffer> {
        self.done = self.head;
        let mut all = Vec::new();
        self.pop_all(&mut all);
        all
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        drop(self.drain());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Library;
    use sinew_verbs_fake::null::NullDevice;

    fn buffers(count: usize) -> Vec<Buffer> {
        let library = Library::with(NullDevice::library());
        let pd = library.devices().unwrap().get(0).unwrap().open().unwrap().protection_domain().unwrap();
        let buffer = |byte| {
            let mut buffer = pd.allocate(1).unwrap();
            buffer[0] = byte as u8;
            buffer
        };
        (0..count).map(buffer).collect()
    }

    fn bytes(buffers: &[Buffer]) -> Vec<u8> {
        buffers.iter().map(|buffer| buffer[0]).collect()
    }

    #[test]
    fn lists_go_in_and_come_back_around_the_end_of_the_ring() {
        let mut places = Places::new(6);
        assert!(places.is_full() && places.room() == 0, "closed");
        places.open();
        let mut all = Vec::new();
        let mut list = buffers(100);
        for round in 0..33 {
            assert_eq!(places.room(), 6);
            let rest = list.len();
            // SAFETY: there is room for six.
            unsafe {
                places.push_first(&mut list, 2);
                assert_eq!(places.push(list.remove(0))[0], round * 3 + 2);
            }
            assert_eq!((list.len(), places.room(), places.out()), (rest - 3, 3, 3));
            // SAFETY: two of three that are out.
            unsafe { places.end_before(places.oldest() + 2) };
            assert_eq!((places.ended(), places.room()), (2, 3));
            places.pop_all(&mut all);
            // SAFETY: the last that is out.
            unsafe { places.end_before(places.next()) };
            places.pop_all(&mut all);
            assert!(places.pop().is_none() && places.take_back().is_none());
        }
        assert_eq!(bytes(&all), (0..99).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_left_is_given_back_oldest_first_and_dropped_once() {
        let mut places = Places::new(4);
        places.open();
        let mut list = buffers(4);
        // SAFETY: there is room for four, and three of them are out.
        unsafe {
            places.push_first(&mut list, 3);
            places.end_before(1);
        }
        assert_eq!(places.take_back().unwrap()[0], 2);
        places.close();
        assert!(places.is_full() && !places.is_open());
        assert_eq!(bytes(&places.drain()), [0, 1]);
        places.open();
        // SAFETY: there is room for one.
        unsafe { places.push_first(&mut list, 1) };
        assert!(list.is_empty() && places.room() == 3);
    }
}
