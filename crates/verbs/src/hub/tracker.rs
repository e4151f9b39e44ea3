//! The table behind everything safe: what each request that is out holds, found again when its completion is polled.
//!
//! Called by [`Hub`](super::Hub) and by channels, which say what a payload is. Nothing here knows what memory is: who posts
//! promises that the payload keeps it.
#![allow(unsafe_code)]

use super::ended::Payload;
use super::member::{ALL, Held, Member, Members, Side, names_no_queue, parts, wr_id};
use super::ring::Ring;
use super::shared::Shared;
use crate::cq::{CompletionChannel, CompletionQueue, WorkCompletion};
use crate::device::Context;
use crate::error::{Error, Result};
use crate::pd::ProtectionDomain;
use crate::qp::state::{ServiceType, State};
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
pub(super) const BATCH: usize = 16;

/// A completion queue of its own, the queue pairs that report to it, and what their requests hold.
pub(crate) struct Tracker<S: Service, P> {
    pub(super) members: Members<S, P>,
    pub(super) queue: CompletionQueue,
    pub(super) batch: Box<[WorkCompletion; BATCH]>,
    /// Which of the batch come next.
    pub(super) next: usize,
    pub(super) filled: usize,
    /// Completions that were read to empty the queue when a queue pair ended; they come before the batch.
    pub(super) backlog: VecDeque<WorkCompletion>,
    /// Completions of no request that is out: a device's fault, or left over from a queue pair that is gone.
    pub(super) strays: u64,
    /// Receives that all queue pairs take from. After them: it is dropped when they are.
    pub(super) shared: Option<Shared<P>>,
    /// The members by the numbers of their queue pairs, where receives are shared.
    pub(super) by_number: HashMap<u32, Member>,
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

    /// Takes in a queue pair that somebody else brings up.
    pub(crate) fn adopt(&mut self, qp: QueuePair<S>) -> Result<Member> {
        let member = self.take_in(qp, None)?;
        match self.refresh(member) {
            Ok(State::RESET) => self.members.get_mut(member)?.receives.close(),
            Ok(_) => {}
            Err(error) => {
                // Nobody has its name: here it would stay for as long as the hub.
                self.remove(member)?;
                return Err(error);
            }
        }
        Ok(member)
    }

    /// Lets a queue pair send that somebody else has brought up, and one that is not up no more.
    pub(crate) fn refresh(&mut self, member: Member) -> Result<State> {
        let held = self.members.get_mut(member)?;
        let state = held.qp.state()?;
        let is_up = matches!(state, State::RTS | State::SQD | State::SQE | State::ERR);
        // With requests out it is as it was: of one that was cut, a later one would tell that they had succeeded.
        if held.sends.len() == 0 {
            if is_up { held.sends.open() } else { held.sends.close() }
        }
        Ok(state)
    }

    fn take_in(&mut self, qp: QueuePair<S>, plan: Option<Plan>) -> Result<Member> {
        if S::TYPE == ServiceType::XRC_SEND {
            return Err(names_no_queue("a hub"));
        }
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
        qp.set_kept();
        let mut sends = Ring::new(depths.send);
        sends.close();
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
        held.plan.as_ref().ok_or_else(by_hand)?.endpoint(&*held.qp)
    }

    pub(crate) fn connect(&mut self, member: Member, peer: &Endpoint) -> Result<()>
    where
        S: Connected,
    {
        let held = self.members.get_mut(member)?;
        held.plan.as_mut().ok_or_else(by_hand)?.connect(&*held.qp, peer)?;
        held.sends.open();
        Ok(())
    }

    pub(crate) fn activate(&mut self, member: Member) -> Result<()>
    where
        S: Datagram,
    {
        let held = self.members.get_mut(member)?;
        held.plan.as_ref().ok_or_else(by_hand)?.activate(&*held.qp)?;
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
        if !held.receives.is_open()
            && let Err(error) = held.begin_to_receive()
        {
            return Err((Some(payload), Box::new(error)));
        }
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
        held.plan.as_mut().ok_or_else(by_hand)?.reset(&*held.qp)?;
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
