//! What a tracker's completion queue tells, and which request each completion ends.
//!
//! The part of [`Tracker`] that reads. Its fast way is one: a completion of the oldest request of the queue pair that was asked for last.
#![allow(unsafe_code)]

use super::ended::{Ended, Found, How, Payload};
use super::member::{ALL, Member, Side, parts};
use super::ring::Ring;
use super::shared::Shared;
use super::tracker::{BATCH, Tracker};
use crate::cq::WorkCompletion;
use crate::error::Error;
use crate::qp::Service;
use std::ptr::NonNull;

impl<S: Service, P: Payload> Tracker<S, P> {
    /// The next request that ended, if one has. Never blocks.
    ///
    /// # Errors
    /// [`Error::Call`] when the device failed: what is out is still the device's.
    #[inline(always)]
    pub(crate) fn poll(&mut self) -> std::result::Result<Option<Ended<'_, S, P>>, Box<Error>> {
        if self.next == self.filled && !self.fill()? {
            return Ok(None);
        }
        let found = match self.usual() {
            Some(found @ Found { is_link: false, .. }) => found,
            _ => match self.other()? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        // SAFETY: found just now; nothing was removed since.
        Ok(Some(unsafe { Ended::new(self, found) }))
    }

    /// Which request of a member the completion that comes next ends, if it does.
    #[inline(always)]
    fn usual(&mut self) -> Option<Found<P>> {
        let completion = self.current();
        let (side, member, number) = parts(completion.wr_id());
        let qp_num = completion.qp_num();
        let held = self.members.find(member)?;
        // Who else's requests are reported to this queue has numbers of his own choice.
        if held.number != qp_num {
            return None;
        }
        let ring = held.ring(side);
        let how = Self::how(ring, side, number)?;
        let mut ring = NonNull::from(ring);
        // SAFETY: made of the borrow just now.
        let place = unsafe { ring.as_mut() };
        let place = place.place_of(if how == How::Before { place.oldest() } else { number });
        let is_link = place.is_none();
        Some(Found { how, ring, place: NonNull::from(place), is_link })
    }

    /// The same where it is of no member: of a shared receive, or of the next that is not of nobody. What ends with a later one ends here.
    #[inline(never)]
    fn other(&mut self) -> std::result::Result<Option<Found<P>>, Box<Error>> {
        let strays = self.strays;
        loop {
            match self.usual() {
                Some(found @ Found { is_link: false, .. }) => return Ok(Some(found)),
                Some(Found { how, mut ring, .. }) => {
                    // SAFETY: of a member, found just now.
                    self.end_link(how, unsafe { ring.as_mut() });
                }
                None if self.is_of_shared(self.current()) => {
                    let (ring, place) = (NonNull::dangling(), NonNull::dangling());
                    return Ok(Some(Found { how: How::Shared, ring, place, is_link: false }));
                }
                None => {
                    self.next += 1;
                    self.strays += 1;
                    if self.is_made_up(strays) {
                        return Ok(None);
                    }
                }
            }
            if self.next == self.filled && !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Ends the oldest request, which has nothing in its place: one of prepared requests that is not their last. With it those behind it that are
    /// like it, where a later one completed.
    #[inline]
    fn end_link(&mut self, how: How, ring: &mut Ring<P>) {
        if how == How::Oldest {
            if let Err(error) = self.current().ok()
                && let Some(last) = ring.first_from(ring.oldest())
            {
                last.fail(error);
            }
            self.next += 1;
            return ring.skip_oldest();
        }
        let (_, _, number) = parts(self.current().wr_id());
        while ring.oldest() != number && ring.get(ring.oldest()).is_none() {
            ring.skip_oldest();
        }
    }

    /// The completion that it stands at.
    #[inline(always)]
    pub(super) fn current(&self) -> &WorkCompletion {
        // The batch is as long as a power of two: in its range, without a look at it.
        &self.batch[self.next % BATCH]
    }

    /// Done with the completion that it stands at.
    #[inline(always)]
    pub(super) const fn advance(&mut self) {
        self.next += 1;
    }

    /// Receives that all queue pairs take from.
    pub(super) const fn shared(&self) -> Option<&Shared<P>> {
        self.shared.as_ref()
    }

    /// What a shared receive kept that ended.
    pub(super) fn end_shared(&mut self, number: u32) -> Option<P> {
        self.shared.as_mut()?.end(number)
    }

    /// The member that took a shared receive.
    pub(super) fn who_took(&self, completion: &WorkCompletion) -> Member {
        self.by_number.get(&completion.qp_num()).copied().unwrap_or(ALL)
    }

    /// How a completion of this number ends a request of a ring, if it does.
    #[inline(always)]
    fn how(ring: &Ring<P>, side: Side, number: u32) -> Option<How> {
        if !(S::IN_ORDER && side == Side::Send) {
            return Self::how_in_any_order(ring, number);
        }
        if ring.oldest() == number {
            (ring.len() > 0).then_some(How::Oldest)
        } else {
            // A completion of an ordered queue ends those before it that were not signaled, one a call, and itself last.
            ring.is_out(number).then_some(How::Before)
        }
    }

    /// The same of a queue whose requests end in any order. The oldest ends as such unless the one after it has ended, whose place goes with it.
    #[inline(never)]
    fn how_in_any_order(ring: &Ring<P>, number: u32) -> Option<How> {
        let next = number.wrapping_add(1);
        let is_alone = ring.oldest() == number && (!ring.is_out(next) || ring.get(next).is_some());
        ring.has(number).then_some(if is_alone { How::Oldest } else { How::Later })
    }

    /// Whether strays since there were so many are more than can be left over: a device that makes them up keeps nobody here.
    fn is_made_up(&self, strays: u64) -> bool {
        self.strays - strays >= u64::from(self.queue.entries())
    }

    /// Reads what has completed, after the last that was read came to its end. Whether there was anything.
    #[inline(always)]
    fn fill(&mut self) -> std::result::Result<bool, Box<Error>> {
        if !self.backlog.is_empty() || self.queue.is_extended() {
            return self.fill_otherwise();
        }
        let Some(count) = self.queue.poll_legacy(&mut self.batch[..]) else {
            return Err(self.queue.failed());
        };
        (self.next, self.filled) = (0, count);
        Ok(count > 0)
    }

    #[inline(never)]
    fn fill_otherwise(&mut self) -> std::result::Result<bool, Box<Error>> {
        let count = if self.backlog.is_empty() {
            self.queue.poll_into(&mut self.batch[..]).map_err(Box::new)?
        } else {
            self.fill_from_backlog()
        };
        (self.next, self.filled) = (0, count);
        Ok(count > 0)
    }

    fn fill_from_backlog(&mut self) -> usize {
        let count = self.backlog.len().min(BATCH);
        for (place, completion) in self.batch.iter_mut().zip(self.backlog.drain(..count)) {
            *place = completion;
        }
        count
    }

    /// Reads all completions that there are. Those of a queue pair that has ended would take room that its successor counts on: some
    /// devices leave them in the queue.
    pub(super) fn empty_queue(&mut self) {
        // Those that were taken out of the backlog come before what is left in it.
        for completion in self.batch[self.next..self.filled].iter().rev() {
            self.backlog.push_front(*completion);
        }
        (self.next, self.filled) = (0, 0);
        let mut batch = [WorkCompletion::EMPTY; BATCH];
        // No more than it holds: a device that makes completions up does not keep the caller here.
        let mut left = self.queue.entries() as usize;
        // A device that fails here fails at the next poll too, where it is told.
        while left > 0
            && let Ok(count @ 1..) = self.queue.poll_into(&mut batch)
        {
            self.backlog.extend(&batch[..count]);
            left = left.saturating_sub(count);
        }
        let backlog = std::mem::take(&mut self.backlog);
        let before = backlog.len();
        self.backlog = backlog
            .into_iter()
            .filter(|completion| {
                let (side, member, number) = parts(completion.wr_id());
                if member.place() == ALL.place() {
                    return self.shared.as_ref().is_some_and(|shared| shared.is_out(number));
                }
                self.members.get(member).is_ok_and(|held| match side {
                    Side::Send => held.sends.is_out(number),
                    Side::Receive => held.receives.is_out(number),
                })
            })
            .collect();
        self.strays += (before - self.backlog.len()) as u64;
    }

    /// Whether a completion is of a shared receive that is out.
    fn is_of_shared(&self, completion: &WorkCompletion) -> bool {
        let (side, whose, number) = parts(completion.wr_id());
        // Only a queue pair of this hub takes from its queue by its rules: a completion of another one, that reports here and takes from
        // another hub's, names a receive of that hub.
        side == Side::Receive
            && whose.place() == ALL.place()
            && self.by_number.contains_key(&completion.qp_num())
            && self.shared.as_ref().is_some_and(|shared| shared.is_out(number))
    }
}
