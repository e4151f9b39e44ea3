//! Receives that all queue pairs of a hub take from, with what they hold.
//!
//! Called by the tracker alone. The queue is made here, and destroyed when the tracker's queue pairs are. Who has another handle of it, from one of
//! those, keeps it, and with it the payloads of what is out, for ever.
#![allow(unsafe_code)]

use crate::cq::{CompletionQueue, Reservation};
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::qp::ReceiveRequest;
use crate::srq::SharedReceiveQueue;
use std::mem::ManuallyDrop;

/// A shared receive queue and what its requests hold. The payloads go only when the device is done with them.
pub(super) struct Shared<P> {
    queue: ManuallyDrop<SharedReceiveQueue>,
    receives: ManuallyDrop<Slab<P>>,
    /// Room in the completion queue for all of them.
    _room: Reservation,
}

impl<P> Shared<P> {
    pub(super) fn new(
        pd: &ProtectionDomain,
        completions: &CompletionQueue,
        requests: u32,
        elements: u32,
    ) -> Result<Self> {
        let room = completions.reserve(requests)?;
        let queue = pd.shared_receive_queue(requests).elements(elements).build()?;
        Ok(Self {
            queue: ManuallyDrop::new(queue),
            receives: ManuallyDrop::new(Slab::new(requests)),
            _room: room,
        })
    }

    pub(super) fn queue(&self) -> &SharedReceiveQueue {
        &self.queue
    }

    /// How many are out.
    pub(super) fn out(&self) -> u32 {
        self.receives.len()
    }

    pub(super) fn is_out(&self, number: u32) -> bool {
        self.receives.is_out(number)
    }

    /// Posts a receive that `make` makes of its payload and its number; `wr_id` makes that of its place.
    ///
    /// # Errors
    /// The payload comes back when nothing was posted; it stays here where the device may have taken the receive all the same.
    ///
    /// # Safety
    /// The payload keeps every byte that the request names, registered in the queue's domain, valid and untouched, until it comes back by
    /// [`end`](Self::end), or is dropped by this value.
    pub(super) unsafe fn post<'l>(
        &mut self,
        wr_id: impl FnOnce(u32) -> u64,
        make: impl FnOnce(&P, u64, &ProtectionDomain) -> std::result::Result<ReceiveRequest<'l>, Box<Error>>,
        payload: P,
    ) -> std::result::Result<(), (Option<P>, Box<Error>)> {
        let Some(number) = self.receives.next() else {
            let depth = self.receives.places.len() as u32;
            return Err((Some(payload), Box::new(Error::Full { queue: "shared receive queue", depth })));
        };
        let request = match make(&payload, wr_id(number), self.queue.protection_domain()) {
            Ok(request) => request,
            Err(error) => return Err((Some(payload), error)),
        };
        // SAFETY: the payload keeps what the request names until it ended, or the queue is destroyed.
        match unsafe { self.queue.post_receive(request) } {
            Ok(()) => {
                self.receives.push(payload);
                Ok(())
            }
            Err(failed) if failed.is_uncertain => {
                self.receives.push(payload);
                Err((None, Box::new(failed.error)))
            }
            Err(failed) => Err((Some(payload), Box::new(failed.error))),
        }
    }

    /// The payload of a receive that is out.
    pub(super) fn get(&self, number: u32) -> Option<&P> {
        let place = self.receives.place(number)?;
        self.receives.places[place].as_ref()
    }

    /// The payload of a receive that ended.
    pub(super) fn end(&mut self, number: u32) -> Option<P> {
        self.receives.end_one(number)
    }
}

/// Requests that end in any order. A request's number is its place, and above it how often that was used: what a device tells twice is of
/// no later request.
#[derive(Debug)]
struct Slab<P> {
    places: Box<[Option<P>]>,
    /// The number of the request in each place, or that its next request gets.
    numbers: Box<[u32]>,
    free: Vec<u32>,
}

impl<P> Slab<P> {
    fn new(depth: u32) -> Self {
        Self {
            places: (0..depth).map(|_| None).collect(),
            numbers: (0..depth).collect(),
            free: (0..depth).rev().collect(),
        }
    }

    /// By how much the numbers of requests in one place differ.
    fn stride(&self) -> u32 {
        self.places.len().next_power_of_two() as u32
    }

    /// The place of the request that is out under this number.
    fn place(&self, number: u32) -> Option<usize> {
        let place = (number & (self.stride() - 1)) as usize;
        (self.numbers.get(place) == Some(&number) && self.places[place].is_some()).then_some(place)
    }

    fn is_out(&self, number: u32) -> bool {
        self.place(number).is_some()
    }

    /// The number that the next request gets, while there is room.
    fn next(&self) -> Option<u32> {
        self.free.last().map(|place| self.numbers[*place as usize])
    }

    /// Remembers the request that was posted under the number that `next` said.
    fn push(&mut self, payload: P) {
        let place = self.free.pop().expect("a request was posted beyond the depth of its queue");
        self.places[place as usize] = Some(payload);
    }

    /// The request `number`, if it is out. A device may say anything.
    fn end_one(&mut self, number: u32) -> Option<P> {
        let place = self.place(number)?;
        let payload = self.places[place].take();
        self.numbers[place] = number.wrapping_add(self.stride());
        self.free.push(place as u32);
        payload
    }

    fn len(&self) -> u32 {
        (self.places.len() - self.free.len()) as u32
    }
}

impl<P> Drop for Shared<P> {
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let queue = unsafe { ManuallyDrop::take(&mut self.queue) };
        match queue.destroy() {
            // SAFETY: dropped once, here, after the device forgot the queue.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.receives) },
            // Queue pairs that the device refuses to destroy may still take from it: the payloads stay for ever.
            Err(error) => {
                tracing::error!(
                    requests = self.out(),
                    errno = error.0,
                    "memory of shared receives stays with a device that refuses to end them"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_gives_places_back_in_any_order_and_believes_no_number() {
        let mut slab = Slab::new(2);
        let first = slab.next().unwrap();
        slab.push('a');
        let second = slab.next().unwrap();
        slab.push('b');
        assert_eq!(slab.next(), None);
        assert_eq!(slab.end_one(second), Some('b'));
        assert_eq!(slab.end_one(second), None);
        assert_eq!(slab.end_one(99), None);
        let third = slab.next().unwrap();
        assert_ne!(third, second, "what was told of the one is not of the other");
        slab.push('c');
        assert_eq!(slab.end_one(second), None);
        assert_eq!((slab.len(), slab.end_one(first)), (2, Some('a')));
        assert_eq!(slab.end_one(third), Some('c'));
    }
}
