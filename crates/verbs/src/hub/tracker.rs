//! The table behind everything safe: what each request that is out holds, found again when its completion is polled.
//!
//! Called by [`Hub`](super::Hub) and by channels, which say what a payload is. Nothing here knows what memory is: who posts
//! promises that the payload keeps it.
#![allow(unsafe_code)]

use super::ended::{Ended, Found, How, Payload};
use super::member::{ALL, Held, Member, Members, Side, parts, wr_id};
use super::ring::Ring;
use super::shared::Shared;
use crate::cq::{CompletionChannel, CompletionQueue, WorkCompletion};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::qp::state::State;
use crate::qp::{
    Connected, Datagram, Endpoint, Operations, Plan, PreparedQueuePair, QueuePair, QueuePairBuilder,
    ReceiveRequest, SendRequest, Service,
};
use sinew_verbs_sys as sys;
use std::collections::{HashMap, VecDeque};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;

/// Takes requests back that were numbered and not posted.
struct Undo<'ring, P> {
    ring: &'ring mut Ring<P>,
    count: usize,
}

impl<P> Drop for Undo<'_, P> {
    fn drop(&mut self) {
        for _ in 0..self.count {
            drop(self.ring.take_back());
        }
    }
}

/// Requests of a batch that were not posted.
pub(crate) struct PostsFailed<P> {
    pub(crate) posted: usize,
    pub(crate) payloads: Vec<P>,
    pub(crate) error: Error,
}

/// How many completions are read at once.
const BATCH: usize = 16;

/// A completion queue of its own, the queue pairs that report to it, and what their requests hold.
pub(crate) struct Tracker<S: Service, P> {
    members: Members<S, P>,
    queue: CompletionQueue,
    batch: Box<[WorkCompletion; BATCH]>,
    /// Which of the batch come next.
    next: usize,
    filled: usize,
    /// Completions that were read to empty the queue when a queue pair ended; they come before the batch.
    backlog: VecDeque<WorkCompletion>,
    /// Completions of no request that is out: a device's fault, or left over from a queue pair that is gone.
    strays: u64,
    /// Receives that all queue pairs take from. After them: it is dropped when they are.
    shared: Option<Shared<P>>,
    /// The members by the numbers of their queue pairs, where receives are shared.
    by_number: HashMap<u32, Member>,
}

impl<S: Service, P: Payload> Tracker<S, P> {
    /// With a completion queue of its own.
    pub(crate) fn new(
        context: &Context,
        entries: u32,
        channel: Option<(&CompletionChannel, u64)>,
    ) -> Result<Self> {
        let mut builder = context.completion_queue(entries);
        if let Some((channel, cookie)) = channel {
            builder = builder.channel(channel, cookie);
        }
        Ok(Self {
            members: Members::new(),
            queue: builder.build()?,
            batch: Box::new([WorkCompletion::EMPTY; BATCH]),
            next: 0,
            filled: 0,
            backlog: VecDeque::new(),
            strays: 0,
            shared: None,
            by_number: HashMap::new(),
        })
    }

    /// How to make a queue pair that reports here; to be given to [`add`](Self::add).
    pub(crate) fn queue_pair<'a>(&'a self, pd: &'a ProtectionDomain) -> QueuePairBuilder<'a, S> {
        let builder = pd.queue_pair(&self.queue);
        match &self.shared {
            Some(shared) => builder.shared_receive_queue(shared.queue()),
            None => builder,
        }
    }

    /// From here on queue pairs take their receives from one queue of `requests`.
    pub(crate) fn share_receives(
        &mut self,
        pd: &ProtectionDomain,
        requests: u32,
        elements: u32,
    ) -> Result<()> {
        if self.shared.is_some() || self.members.iter().next().is_some() {
            return Err(Error::invalid(
                "shared receives",
                "the hub has queue pairs, or shares receives already",
                "call it once, before the first queue pair is made",
            ));
        }
        self.shared = Some(Shared::new(pd, &self.queue, requests, elements)?);
        Ok(())
    }

    /// Posts a receive for whichever queue pair a message comes to; see [`post_send`](Self::post_send).
    ///
    /// # Errors
    /// The payload comes back when nothing was posted. Where the device failed in the call itself it may have taken the receive: then the payload
    /// comes by `poll`, or goes with this value.
    ///
    /// # Safety
    /// As for [`post_send`](Self::post_send), in the domain of shared receives.
    pub(crate) unsafe fn post_shared_receive<'l>(
        &mut self,
        make: impl FnOnce(&P, u64, &ProtectionDomain) -> std::result::Result<ReceiveRequest<'l>, Box<Error>>,
        payload: P,
    ) -> std::result::Result<(), (Option<P>, Box<Error>)> {
        let Some(shared) = &mut self.shared else { return Err((Some(payload), Box::new(nothing_shared()))) };
        // SAFETY: by the caller's promise.
        unsafe { shared.post(|number| wr_id(Side::Receive, ALL, number), make, payload) }
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

    pub(crate) const fn queue(&self) -> &CompletionQueue {
        &self.queue
    }

    pub(crate) const fn strays(&self) -> u64 {
        self.strays
    }

    /// Takes a queue pair in.
    pub(crate) fn add(&mut self, prepared: PreparedQueuePair<S>) -> Result<Member> {
        let (qp, plan) = prepared.into_parts();
        self.take_in(qp, Some(plan))
    }

    /// Takes in a queue pair that somebody else has brought up.
    pub(crate) fn adopt(&mut self, qp: QueuePair<S>) -> Result<Member> {
        let state = qp.state()?;
        if ![State::RTS, State::SQD, State::SQE, State::ERR].contains(&state) {
            return Err(Error::invalid(
                "queue pair",
                format!("it is in {state}"),
                "bring it up before a hub takes it in",
            ));
        }
        self.take_in(qp, None)
    }

    fn take_in(&mut self, qp: QueuePair<S>, plan: Option<Plan>) -> Result<Member> {
        if !qp.send_completion_queue().is(&self.queue) || !qp.receive_completion_queue().is(&self.queue) {
            return Err(Error::invalid(
                "queue pair",
                "it reports to another completion queue",
                "make it with `queue_pair`",
            ));
        }
        let is_ours = match (qp.shared_receive_queue(), &self.shared) {
            (Some(queue), Some(shared)) => queue.is(shared.queue()),
            (queue, shared) => queue.is_none() && shared.is_none(),
        };
        if !is_ours {
            return Err(Error::invalid(
                "queue pair",
                "its receives do not come from where the hub's do",
                "make it with `queue_pair`, and share receives by `share_receives`",
            ));
        }
        let (depths, number) = (qp.depths(), qp.number());
        let mut sends = Ring::new(depths.send);
        if plan.is_some() {
            sends.close();
        }
        let member = self.members.insert(Held {
            qp: ManuallyDrop::new(qp),
            number,
            plan,
            sends: ManuallyDrop::new(sends),
            receives: ManuallyDrop::new(Ring::new(depths.receive)),
        })?;
        if self.shared.is_some() {
            self.by_number.insert(number, member);
        }
        Ok(member)
    }

    pub(crate) fn qp(&self, member: Member) -> Result<&QueuePair<S>> {
        Ok(&self.members.get(member)?.qp)
    }

    pub(crate) fn endpoint(&self, member: Member) -> Result<Endpoint> {
        let held = self.members.get(member)?;
        held.plan.as_ref().ok_or_else(by_hand)?.endpoint(&held.qp)
    }

    pub(crate) fn connect(&mut self, member: Member, peer: &Endpoint) -> Result<()>
    where
        S: Connected,
    {
        let held = self.members.get_mut(member)?;
        held.plan.as_ref().ok_or_else(by_hand)?.connect(&held.qp, peer)?;
        held.sends.open();
        Ok(())
    }

    pub(crate) fn activate(&mut self, member: Member) -> Result<()>
    where
        S: Datagram,
    {
        let held = self.members.get_mut(member)?;
        held.plan.as_ref().ok_or_else(by_hand)?.activate(&held.qp)?;
        held.sends.open();
        Ok(())
    }

    /// How many requests of a member are out: sends and receives.
    pub(crate) fn out(&self, member: Member) -> Result<(u32, u32)> {
        let held = self.members.get(member)?;
        Ok((held.sends.len(), held.receives.len()))
    }

    /// Whether anything of any member is out.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.out() == 0)
            && self.members.iter().all(|held| held.out() == 0)
    }

    /// Posts one request that `make` makes of its payload and its number, for a queue pair of this domain; the payload keeps what it names.
    ///
    /// # Errors
    /// The payload comes back when nothing was posted. Where the device failed in the call itself it may have taken the request: then the
    /// queue pair is sent to its error state, and the payload comes by `poll`.
    ///
    /// # Safety
    /// The payload keeps every byte that the request names, registered, valid and untouched, until it comes back by `poll`, `remove` or
    /// `reset`, or is dropped by this value.
    #[inline]
    pub(crate) unsafe fn post_send<'l>(
        &mut self,
        member: Member,
        make: impl FnOnce(&P, u64, &ProtectionDomain) -> std::result::Result<SendRequest<'l, S>, Box<Error>>,
        payload: P,
    ) -> std::result::Result<(), (Option<P>, Box<Error>)> {
        let Some(held) = self.members.find(member) else {
            return Err((Some(payload), self.not_ready(member)));
        };
        let Held { qp, sends, .. } = held;
        let Some((number, place)) = sends.vacancy() else {
            return Err((Some(payload), self.not_ready(member)));
        };
        let request =
            match make(place.insert(payload), wr_id(Side::Send, member, number), qp.protection_domain()) {
                Ok(request) => request,
                Err(error) => return Err((place.take(), error)),
            };
        // SAFETY: the payload keeps what the request names; the ring has room, so the queue and the completion queue have.
        match unsafe { qp.post_one(request) } {
            Ok(()) => {
                sends.advance();
                Ok(())
            }
            Err(failed) if failed.is_uncertain => {
                sends.advance();
                held.cut();
                Err((None, Box::new(failed.error)))
            }
            Err(failed) => Err((place.take(), Box::new(failed.error))),
        }
    }

    /// Why a member cannot send now.
    #[cold]
    fn not_ready(&mut self, member: Member) -> Box<Error> {
        Box::new(match self.members.get_mut(member) {
            Ok(held) => held.not_ready(),
            Err(error) => error,
        })
    }

    /// Posts up to `N` requests with one doorbell: `next` makes the next request of its number and puts its payload into the place; `None`, with
    /// nothing in the place, ends the batch. It is not asked beyond the room of the queue. How many were posted.
    ///
    /// # Errors
    /// With the payloads of what was not posted, in order.
    ///
    /// # Safety
    /// As for [`post_send`](Self::post_send), of each.
    #[inline]
    pub(crate) unsafe fn post_sends<'l, const N: usize>(
        &mut self,
        member: Member,
        mut next: impl FnMut(u64, &ProtectionDomain, &mut Option<P>) -> Option<SendRequest<'l, S>>,
    ) -> std::result::Result<usize, Box<PostsFailed<P>>> {
        let failed = |error| Box::new(PostsFailed { posted: 0, payloads: Vec::new(), error });
        let Some(held) = self.members.find(member) else { return Err(failed(*self.not_ready(member))) };
        let Held { qp, sends, .. } = held;
        let mut requests = [const { MaybeUninit::<SendRequest<'l, S>>::uninit() }; N];
        // `next` is the caller's and may panic: what was not posted is taken back then.
        let mut undo = Undo { ring: sends, count: 0 };
        while undo.count < N
            && let Some((number, place)) = undo.ring.vacancy()
            && let Some(request) = next(wr_id(Side::Send, member, number), qp.protection_domain(), place)
        {
            requests[undo.count].write(request);
            undo.ring.advance();
            undo.count += 1;
        }
        let count = std::mem::take(&mut undo.count);
        if count == 0 && undo.ring.room() == 0 {
            drop(undo);
            return Err(failed(*self.not_ready(member)));
        }
        // SAFETY: the first `count` were written; a `MaybeUninit` is laid out as what it may hold.
        let requests = unsafe {
            std::slice::from_raw_parts_mut(requests.as_mut_ptr().cast::<SendRequest<'l, S>>(), count)
        };
        // SAFETY: the payloads keep what the requests name; the ring had room, so the queue and the completion queue have.
        match unsafe { qp.post(requests) } {
            Ok(()) => Ok(count),
            Err(error) if error.is_uncertain => {
                drop(undo);
                held.cut();
                Err(Box::new(PostsFailed { posted: count, payloads: Vec::new(), error: error.error }))
            }
            Err(error) => {
                let mut payloads: Vec<P> =
                    (error.posted..count).filter_map(|_| undo.ring.take_back()).collect();
                payloads.reverse();
                Err(Box::new(PostsFailed { posted: error.posted, payloads, error: error.error }))
            }
        }
    }

    /// Posts requests of this domain that are linked, with one doorbell, and numbers them. The payload, which keeps what all of them name, lies in the place of the last.
    ///
    /// # Errors
    /// The payload comes back when nothing was posted. Where some were, the queue pair is sent to its error state, and the payload comes by `poll`, `reset`
    /// or `remove`.
    ///
    /// # Safety
    /// As for [`post_send`](Self::post_send); the service completes in order; the requests are linked in the order of the list, are of the operations that are
    /// said, and nobody else reaches them while the payload is here.
    #[inline]
    pub(crate) unsafe fn post_linked(
        &mut self,
        member: Member,
        list: NonNull<[sys::ibv_send_wr]>,
        needs: Operations,
        domain: *const (),
        payload: P,
    ) -> std::result::Result<(), (Option<P>, Box<Error>)> {
        let Some(held) = self.members.find(member) else {
            return Err((Some(payload), self.not_ready(member)));
        };
        let count = list.len() as u32;
        let Held { qp, sends, .. } = held;
        if qp.protection_domain().identity() != domain {
            return Err((Some(payload), super::of_another_domain()));
        }
        let Some((number, place)) = sends.room_for(count) else {
            return Err((Some(payload), self.not_ready(member)));
        };
        *place = Some(payload);
        sends.advance_by(count);
        let first = list.cast::<sys::ibv_send_wr>();
        for more in 0..count {
            // SAFETY: in the list, which is the caller's alone.
            unsafe {
                (*first.as_ptr().add(more as usize)).wr_id =
                    wr_id(Side::Send, member, number.wrapping_add(more));
            }
        }
        // SAFETY: the payload keeps what the requests name; the ring had room, so the queue and the completion queue have.
        let Err(failed) = (unsafe { qp.post_prepared(first, count, needs) }) else { return Ok(()) };
        if failed.is_uncertain || failed.posted > 0 {
            held.cut();
            return Err((None, Box::new(failed.error)));
        }
        Err((sends.take_back_all(count), Box::new(failed.error)))
    }

    /// Posts one receive; see [`post_send`](Self::post_send).
    ///
    /// # Errors
    /// As for [`post_send`](Self::post_send).
    ///
    /// # Safety
    /// As for [`post_send`](Self::post_send).
    #[inline]
    pub(crate) unsafe fn post_receive<'l>(
        &mut self,
        member: Member,
        make: impl FnOnce(&P, u64, &ProtectionDomain) -> std::result::Result<ReceiveRequest<'l>, Box<Error>>,
        payload: P,
    ) -> std::result::Result<(), (Option<P>, Box<Error>)> {
        let held = match self.members.get_mut(member) {
            Ok(held) => held,
            Err(error) => return Err((Some(payload), Box::new(error))),
        };
        let Held { qp, receives, .. } = held;
        let Some((number, place)) = receives.vacancy() else {
            let full = Error::Full { queue: "receive queue", depth: receives.depth() };
            return Err((Some(payload), Box::new(full)));
        };
        let wr_id = wr_id(Side::Receive, member, number);
        let request = match make(place.insert(payload), wr_id, qp.protection_domain()) {
            Ok(request) => request,
            Err(error) => return Err((place.take(), error)),
        };
        // SAFETY: the payload keeps what the request names; the ring has room, so the queue and the completion queue have.
        match unsafe { qp.post_receives(&mut [request]) } {
            Ok(()) => {
                receives.advance();
                Ok(())
            }
            Err(failed) if failed.is_uncertain => {
                receives.advance();
                held.cut();
                Err((None, Box::new(failed.error)))
            }
            Err(failed) => Err((place.take(), Box::new(failed.error))),
        }
    }

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
    fn empty_queue(&mut self) {
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

    /// A queue pair of that number is gone: what it took of the shared receives and whose completions were not read comes back.
    fn forget(&mut self, number: u32) -> Vec<P> {
        self.by_number.remove(&number);
        let mut back = Vec::new();
        let Some(shared) = &mut self.shared else { return back };
        self.backlog.retain(|completion| {
            let (_, whose, request) = parts(completion.wr_id());
            let is_its = whose.place() == ALL.place() && completion.qp_num() == number;
            if is_its {
                back.extend(shared.end(request));
            }
            !is_its
        });
        back
    }

    /// To the error state: everything that is out completes as flushed.
    pub(crate) fn fail(&self, member: Member) -> Result<()> {
        self.members.get(member)?.qp.fail()
    }

    /// Takes a queue pair out: it is destroyed, and what was out comes back, sends first.
    ///
    /// # Errors
    /// [`Error::Call`] when the device refuses: it stays, with what is out.
    pub(crate) fn remove(&mut self, member: Member) -> Result<Vec<P>> {
        let held = self.members.take(member)?;
        let number = held.number;
        match held.end() {
            Ok(mut back) => {
                self.members.retire(member);
                self.empty_queue();
                back.extend(self.forget(number));
                Ok(back)
            }
            Err((held, error)) => {
                self.members.put(member, held);
                Err(error)
            }
        }
    }

    /// Brings a queue pair back to INIT, for a new connection; what was out comes back, sends first.
    ///
    /// # Errors
    /// [`Error::Transition`] when the device refuses: what is out is still the device's.
    pub(crate) fn reset(&mut self, member: Member) -> Result<Vec<P>> {
        let held = self.members.get_mut(member)?;
        held.plan.as_mut().ok_or_else(by_hand)?.reset(&held.qp)?;
        held.sends.close();
        let mut back: Vec<P> = held.sends.drain().collect();
        back.extend(held.receives.drain());
        self.empty_queue();
        Ok(back)
    }
}

#[cold]
fn nothing_shared() -> Error {
    Error::invalid("shared receive", "the hub does not share receives", "call `share_receives` first")
}

#[cold]
fn by_hand() -> Error {
    Error::invalid(
        "queue pair of a hub",
        "it was brought up elsewhere",
        "connect it where it was, or remove it and add a new one",
    )
}
