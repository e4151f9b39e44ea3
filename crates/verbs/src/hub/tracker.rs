//! The table behind everything safe: what each request that is out holds, found again when its completion is polled.
//!
//! Called by [`Hub`](super::Hub) and by channels, which say what a payload is. Nothing here knows what memory is: who posts
//! promises that the payload keeps it.
#![allow(unsafe_code)]

use super::ring::Ring;
use super::shared::Shared;
use crate::cq::{CompletionChannel, CompletionQueue, WorkCompletion};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::qp::state::State;
use crate::qp::{
    Connected, Datagram, Endpoint, Plan, PreparedQueuePair, QueuePair, QueuePairBuilder, ReceiveRequest,
    SendRequest, Service,
};
use sinew_verbs_sys as sys;
use std::collections::{HashMap, VecDeque};
use std::mem::{ManuallyDrop, MaybeUninit};

/// One queue pair of a tracker, by its place. Stale after the queue pair was removed: then it names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    place: u32,
    generation: u16,
}

/// Which queue of a member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Sends, writes, reads, atomics.
    Send,
    /// Receives.
    Receive,
}

/// A request that ended.
pub(crate) struct Ended<P> {
    pub(crate) member: Member,
    pub(crate) side: Side,
    pub(crate) payload: P,
    /// Its completion, or nothing for an unsignaled request that a later one shows to have succeeded.
    pub(crate) completion: Option<WorkCompletion>,
}

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
    members: Vec<Place<S, P>>,
    free: Vec<u32>,
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

struct Place<S: Service, P> {
    generation: u16,
    held: Option<Held<S, P>>,
}

/// A queue pair and what its requests hold. The payloads go only when the device is done with them.
struct Held<S: Service, P> {
    qp: ManuallyDrop<QueuePair<S>>,
    /// Nothing for one that somebody else brings up.
    plan: Option<Plan>,
    /// Whether it was brought up.
    is_up: bool,
    sends: ManuallyDrop<Ring<P>>,
    receives: ManuallyDrop<Ring<P>>,
}

impl<S: Service, P> Held<S, P> {
    fn out(&self) -> u32 {
        self.sends.len() + self.receives.len()
    }

    /// Itself, once it can send. Some drivers take requests before that and tell of an error too: they would keep the memory.
    #[inline]
    fn up(&mut self) -> Result<&mut Self> {
        if self.is_up { Ok(self) } else { Err(not_up()) }
    }

    /// Nobody knows what the device has taken: all that is out is flushed.
    #[cold]
    fn cut(&self) {
        if let Err(error) = self.qp.fail() {
            tracing::error!(%error, "a queue pair whose device failed cannot be flushed; its memory stays until it is removed");
        }
    }
}

impl<S: Service, P> Drop for Held<S, P> {
    fn drop(&mut self) {
        // SAFETY: taken once, here.
        let qp = unsafe { ManuallyDrop::take(&mut self.qp) };
        match qp.destroy() {
            // SAFETY: dropped once, here, after the device forgot the queue pair and with it every request.
            Ok(()) => unsafe {
                ManuallyDrop::drop(&mut self.sends);
                ManuallyDrop::drop(&mut self.receives);
            },
            // The device may touch what requests hold: the payloads stay for ever, and the queue pair's own drop counts it.
            Err((qp, _)) => {
                if self.out() > 0 {
                    tracing::error!(
                        requests = self.out(),
                        "memory of requests stays with a device that refuses to end them"
                    );
                }
                drop(qp);
            }
        }
    }
}

/// A request's number: the side, the member with its generation, and its number in the ring.
const fn wr_id(side: Side, member: Member, number: u32) -> u64 {
    let side = match side {
        Side::Send => 0,
        Side::Receive => 1 << 63,
    };
    side | (member.generation as u64 & GENERATIONS) << 51 | (member.place as u64) << 32 | number as u64
}

/// 12 bits of generation, 19 of place.
const GENERATIONS: u64 = 0xfff;
const PLACES: u32 = 1 << 19;

/// Whose shared receives are: the place that no member has.
const ALL: Member = Member { place: PLACES - 1, generation: 0 };

const fn parts(wr_id: u64) -> (Side, u32, u16, u32) {
    let side = if wr_id >> 63 == 0 { Side::Send } else { Side::Receive };
    (side, (wr_id >> 32) as u32 & (PLACES - 1), (wr_id >> 51 & GENERATIONS) as u16, wr_id as u32)
}

impl<S: Service, P> Tracker<S, P> {
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
            members: Vec::new(),
            free: Vec::new(),
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
        if self.shared.is_some() || self.members.iter().any(|place| place.held.is_some()) {
            return Err(Error::invalid(
                "shared receives",
                "the hub has queue pairs, or shares receives already",
                "call it once, before the first queue pair is made",
            ));
        }
        self.shared = Some(Shared::new(pd, &self.queue, requests, elements)?);
        Ok(())
    }

    /// The domain of shared receives.
    pub(crate) fn shared_domain(&self) -> Result<&ProtectionDomain> {
        let shared = self.shared.as_ref().ok_or_else(nothing_shared)?;
        Ok(shared.queue().protection_domain())
    }

    /// Posts a receive for whichever queue pair a message comes to; see [`post_send`](Self::post_send).
    ///
    /// # Errors
    /// The payload comes back: nothing was posted.
    ///
    /// # Safety
    /// As for [`post_send`](Self::post_send), in the domain of shared receives.
    pub(crate) unsafe fn post_shared_receive(
        &mut self,
        list: &[sys::ibv_sge],
        payload: P,
    ) -> std::result::Result<(), (P, Error)> {
        let Some(shared) = &mut self.shared else { return Err((payload, nothing_shared())) };
        // SAFETY: by the caller's promise.
        unsafe { shared.post(|number| wr_id(Side::Receive, ALL, number), list, payload) }
    }

    /// A shared receive that ended.
    fn end_shared(&mut self, completion: &WorkCompletion) -> Option<Ended<P>> {
        let (side, place, _, number) = parts(completion.wr_id());
        if side != Side::Receive || place != ALL.place {
            return None;
        }
        // Only a queue pair of this hub takes from its queue by its rules: a completion of another one, that reports here and takes from
        // another hub's, names a receive of that hub.
        let member = *self.by_number.get(&completion.qp_num())?;
        let payload = self.shared.as_mut()?.end(number)?;
        Some(Ended { member, side, payload, completion: Some(*completion) })
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
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.members.len() as u32 == ALL.place => {
                return Err(Error::Full { queue: "table of queue pairs", depth: ALL.place });
            }
            None => {
                self.members.push(Place { generation: 0, held: None });
                self.members.len() as u32 - 1
            }
        };
        let (depths, number) = (qp.depths(), qp.number());
        let entry = &mut self.members[place as usize];
        entry.held = Some(Held {
            qp: ManuallyDrop::new(qp),
            is_up: plan.is_none(),
            plan,
            sends: ManuallyDrop::new(Ring::new(depths.send)),
            receives: ManuallyDrop::new(Ring::new(depths.receive)),
        });
        let member = Member { place, generation: entry.generation };
        if self.shared.is_some() {
            self.by_number.insert(number, member);
        }
        Ok(member)
    }

    #[inline]
    fn held(&self, member: Member) -> Result<&Held<S, P>> {
        self.members
            .get(member.place as usize)
            .filter(|place| place.generation == member.generation)
            .and_then(|place| place.held.as_ref())
            .ok_or_else(gone)
    }

    #[inline]
    fn find(&mut self, member: Member) -> Option<&mut Held<S, P>> {
        let place = self.members.get_mut(member.place as usize)?;
        if place.generation == member.generation { place.held.as_mut() } else { None }
    }

    #[inline]
    fn held_mut(&mut self, member: Member) -> Result<&mut Held<S, P>> {
        self.find(member).ok_or_else(gone)
    }

    pub(crate) fn qp(&self, member: Member) -> Result<&QueuePair<S>> {
        Ok(&self.held(member)?.qp)
    }

    pub(crate) fn endpoint(&self, member: Member) -> Result<Endpoint> {
        let held = self.held(member)?;
        held.plan.as_ref().ok_or_else(by_hand)?.endpoint(&held.qp)
    }

    pub(crate) fn connect(&mut self, member: Member, peer: &Endpoint) -> Result<()>
    where
        S: Connected,
    {
        let held = self.held_mut(member)?;
        held.plan.as_ref().ok_or_else(by_hand)?.connect(&held.qp, peer)?;
        held.is_up = true;
        Ok(())
    }

    pub(crate) fn activate(&mut self, member: Member) -> Result<()>
    where
        S: Datagram,
    {
        let held = self.held_mut(member)?;
        held.plan.as_ref().ok_or_else(by_hand)?.activate(&held.qp)?;
        held.is_up = true;
        Ok(())
    }

    /// How many requests of a member are out: sends and receives.
    pub(crate) fn out(&self, member: Member) -> Result<(u32, u32)> {
        let held = self.held(member)?;
        Ok((held.sends.len(), held.receives.len()))
    }

    /// Whether anything of any member is out.
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.out() == 0)
            && self.members.iter().filter_map(|place| place.held.as_ref()).all(|held| held.out() == 0)
    }

    /// Posts one request that `make` makes of its number; `payload` keeps what it names.
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
        make: impl FnOnce(u64) -> SendRequest<'l, S>,
        payload: P,
    ) -> std::result::Result<(), (Option<P>, Error)> {
        let held = match self.held_mut(member).and_then(Held::up) {
            Ok(held) => held,
            Err(error) => return Err((Some(payload), error)),
        };
        let Some(number) = held.sends.next() else {
            return Err((Some(payload), Error::Full { queue: "send queue", depth: held.sends.depth() }));
        };
        // SAFETY: the payload keeps what the request names; the ring has room, so the queue and the completion queue have.
        match unsafe { held.qp.post_one(make(wr_id(Side::Send, member, number))) } {
            Ok(()) => {
                held.sends.push(payload);
                Ok(())
            }
            Err(failed) if failed.is_uncertain => {
                held.sends.push(payload);
                held.cut();
                Err((None, failed.error))
            }
            Err(failed) => Err((Some(payload), failed.error)),
        }
    }

    /// Posts up to `N` requests with one doorbell: `next` says the next request and its payload, given its number; `None` ends the
    /// batch. It is not asked beyond the room of the queue. How many were posted.
    ///
    /// # Errors
    /// With the payloads of what was not posted, in order.
    ///
    /// # Safety
    /// As for [`post_send`](Self::post_send), of each.
    pub(crate) unsafe fn post_sends<'l, const N: usize>(
        &mut self,
        member: Member,
        mut next: impl FnMut(u64) -> Option<(SendRequest<'l, S>, P)>,
    ) -> std::result::Result<usize, PostsFailed<P>> {
        let failed = |error| PostsFailed { posted: 0, payloads: Vec::new(), error };
        let held = self.held_mut(member).and_then(Held::up).map_err(failed)?;
        let Held { qp, sends, .. } = held;
        let mut requests = [const { MaybeUninit::<SendRequest<'l, S>>::uninit() }; N];
        // `next` is the caller's and may panic: what was not posted is taken back then.
        let mut undo = Undo { ring: sends, count: 0 };
        while undo.count < N
            && let Some(number) = undo.ring.next()
            && let Some((request, payload)) = next(wr_id(Side::Send, member, number))
        {
            requests[undo.count].write(request);
            undo.ring.push(payload);
            undo.count += 1;
        }
        let count = std::mem::take(&mut undo.count);
        if count == 0 && undo.ring.room() == 0 {
            return Err(failed(Error::Full { queue: "send queue", depth: undo.ring.depth() }));
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
                Err(PostsFailed { posted: count, payloads: Vec::new(), error: error.error })
            }
            Err(error) => {
                let mut payloads: Vec<P> =
                    (error.posted..count).filter_map(|_| undo.ring.take_back()).collect();
                payloads.reverse();
                Err(PostsFailed { posted: error.posted, payloads, error: error.error })
            }
        }
    }

    /// Posts one receive; see [`post_send`](Self::post_send).
    ///
    /// # Errors
    /// The payload comes back: nothing was posted.
    ///
    /// # Safety
    /// As for [`post_send`](Self::post_send).
    #[inline]
    pub(crate) unsafe fn post_receive(
        &mut self,
        member: Member,
        list: &[sys::ibv_sge],
        payload: P,
    ) -> std::result::Result<(), (P, Error)> {
        let held = match self.held_mut(member) {
            Ok(held) => held,
            Err(error) => return Err((payload, error)),
        };
        let Some(number) = held.receives.next() else {
            return Err((payload, Error::Full { queue: "receive queue", depth: held.receives.depth() }));
        };
        let request = ReceiveRequest::of(wr_id(Side::Receive, member, number), list.as_ptr(), list.len());
        // SAFETY: the payload keeps what the request names; the ring has room, so the queue and the completion queue have.
        match unsafe { held.qp.post_receives(&mut [request]) } {
            Ok(()) => {
                held.receives.push(payload);
                Ok(())
            }
            Err(error) => Err((payload, error.error)),
        }
    }

    /// The next request that ended, if one has. Never blocks.
    ///
    /// # Errors
    /// [`Error::Call`] when the device failed: what is out is still the device's.
    #[inline]
    pub(crate) fn poll(&mut self) -> Result<Option<Ended<P>>> {
        let strays = self.strays;
        loop {
            let Some(completion) = self.completion()? else { return Ok(None) };
            let (side, place, generation, number) = parts(completion.wr_id());
            let member = Member { place, generation };
            // Who else's requests are reported to this queue has numbers of his own choice.
            let held = match self.find(member) {
                Some(held) if held.qp.number() == completion.qp_num() => held,
                _ => {
                    self.done();
                    if let Some(ended) = self.end_shared(&completion) {
                        return Ok(Some(ended));
                    }
                    self.strays += 1;
                    if self.is_made_up(strays) {
                        return Ok(None);
                    }
                    continue;
                }
            };
            let ended = match (side, S::IN_ORDER) {
                (Side::Send, false) => held.sends.end_one(number).map(|payload| (payload, true)),
                // A completion ends those before it that were not signaled, one a call, and itself last.
                (Side::Send, true) => held.sends.end_up_to(number),
                (Side::Receive, _) => held.receives.end_one(number).map(|payload| (payload, true)),
            };
            match ended {
                Some((payload, last)) => {
                    if last {
                        self.done();
                    }
                    return Ok(Some(Ended { member, side, payload, completion: last.then_some(completion) }));
                }
                None => {
                    self.done();
                    self.strays += 1;
                    if self.is_made_up(strays) {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Whether strays since there were so many are more than can be left over: a device that makes them up keeps nobody here.
    fn is_made_up(&self, strays: u64) -> bool {
        self.strays - strays >= u64::from(self.queue.entries())
    }

    /// The completion that comes next, if there is one; it stays until it is `done`.
    #[inline]
    fn completion(&mut self) -> Result<Option<WorkCompletion>> {
        if let Some(completion) = self.backlog.front() {
            return Ok(Some(*completion));
        }
        if self.next == self.filled {
            (self.next, self.filled) = (0, 0);
            self.filled = self.queue.poll_into(&mut self.batch[..])?;
        }
        Ok(self.batch[..self.filled].get(self.next).copied())
    }

    #[inline]
    fn done(&mut self) {
        if self.backlog.pop_front().is_none() {
            self.next += 1;
        }
    }

    /// Reads all completions that there are. Those of a queue pair that has ended would take room that its successor counts on: some
    /// devices leave them in the queue.
    fn empty_queue(&mut self) {
        self.backlog.extend(self.batch[self.next..self.filled].iter().copied());
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
                let (side, place, generation, number) = parts(completion.wr_id());
                if place == ALL.place {
                    return self.shared.as_ref().is_some_and(|shared| shared.is_out(number));
                }
                let held = self.members.get(place as usize).filter(|place| place.generation == generation);
                held.and_then(|place| place.held.as_ref()).is_some_and(|held| match side {
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
            let (_, place, _, request) = parts(completion.wr_id());
            let is_its = place == ALL.place && completion.qp_num() == number;
            if is_its {
                back.extend(shared.end(request));
            }
            !is_its
        });
        back
    }

    /// To the error state: everything that is out completes as flushed.
    pub(crate) fn fail(&self, member: Member) -> Result<()> {
        self.held(member)?.qp.fail()
    }

    /// Takes a queue pair out: it is destroyed, and what was out comes back, sends first.
    ///
    /// # Errors
    /// [`Error::Call`] when the device refuses: it stays, with what is out.
    pub(crate) fn remove(&mut self, member: Member) -> Result<Vec<P>> {
        self.held(member)?;
        let place = &mut self.members[member.place as usize];
        let Some(held) = place.held.take() else { return Err(gone()) };
        let mut held = ManuallyDrop::new(held);
        // SAFETY: `held` is not dropped; its parts are taken once each, or put back.
        let qp = unsafe { ManuallyDrop::take(&mut held.qp) };
        let number = qp.number();
        match qp.destroy() {
            Ok(()) => {
                place.generation = (place.generation + 1) & GENERATIONS as u16;
                self.free.push(member.place);
                // SAFETY: as above; the device forgot the queue pair, and with it every request.
                let (mut sends, mut receives) =
                    unsafe { (ManuallyDrop::take(&mut held.sends), ManuallyDrop::take(&mut held.receives)) };
                let mut back: Vec<P> = sends.drain().collect();
                back.extend(receives.drain());
                // SAFETY: the last part, dropped once.
                unsafe { std::ptr::drop_in_place(&raw mut held.plan) };
                self.empty_queue();
                back.extend(self.forget(number));
                Ok(back)
            }
            Err((qp, error)) => {
                held.qp = ManuallyDrop::new(qp);
                place.held = Some(ManuallyDrop::into_inner(held));
                Err(error)
            }
        }
    }

    /// Brings a queue pair back to INIT, for a new connection; what was out comes back, sends first.
    ///
    /// # Errors
    /// [`Error::Transition`] when the device refuses: what is out is still the device's.
    pub(crate) fn reset(&mut self, member: Member) -> Result<Vec<P>> {
        let held = self.held_mut(member)?;
        held.plan.as_mut().ok_or_else(by_hand)?.reset(&held.qp)?;
        held.is_up = false;
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

#[cold]
fn not_up() -> Error {
    Error::invalid(
        "queue pair of a hub",
        "it is not connected",
        "connect it (or activate it) before it sends",
    )
}

#[cold]
fn gone() -> Error {
    Error::invalid(
        "queue pair of a hub",
        "it was removed",
        "use the handle that `add` gave for one that is there",
    )
}
