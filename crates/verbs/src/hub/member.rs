//! The queue pairs of a tracker: a place for each, found by the number of a request.
//!
//! Called by the tracker alone.
#![allow(unsafe_code)]

use super::ring::Ring;
use crate::error::{Error, Result};
use crate::qp::state::State;
use crate::qp::{Plan, QueuePair, Service};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// One queue pair of a tracker, by its place. Stale after the queue pair was removed: then it names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// 12 bits of generation, 19 of place.
    key: u32,
}

/// Which queue of a member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// Sends, writes, reads, atomics.
    Send,
    /// Receives.
    Receive,
}

/// A request's number: the side, the member, and its number in the ring.
#[inline]
pub(super) const fn wr_id(side: Side, member: Member, number: u32) -> u64 {
    let side = match side {
        Side::Send => 0,
        Side::Receive => 1 << 63,
    };
    side | (member.key as u64) << 32 | number as u64
}

/// Sends a queue pair to its error state, whose device failed.
#[cold]
pub(super) fn flush<S: Service>(qp: &QueuePair<S>) {
    if let Err(error) = qp.fail() {
        // A subscriber's panic would leave a request out that its poster does not know of.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tracing::error!(%error, "a queue pair whose device failed cannot be flushed; its memory stays until it is removed");
        }));
    }
}

/// Places of members, the last of which none has.
pub(super) const PLACES: u32 = 1 << 19;

/// Bits of a member's key.
const KEYS: u32 = (1 << 31) - 1;

/// Whose shared receives are: the place that no member has.
pub(super) const ALL: Member = Member { key: PLACES - 1 };

impl Member {
    #[inline]
    pub(super) const fn place(self) -> u32 {
        self.key & (PLACES - 1)
    }
}

#[inline]
pub(super) const fn parts(wr_id: u64) -> (Side, Member, u32) {
    let side = if wr_id >> 63 == 0 { Side::Send } else { Side::Receive };
    (side, Member { key: (wr_id >> 32) as u32 & KEYS }, wr_id as u32)
}

/// The member that there never is.
const NOBODY: Member = Member { key: u32::MAX };

/// A queue pair and what its requests hold. The payloads go only when the device is done with them.
pub(super) struct Held<S: Service, P> {
    pub(super) qp: ManuallyDrop<QueuePair<S>>,
    /// Its number, which completions name.
    pub(super) number: u32,
    /// Nothing for one that somebody else brings up.
    pub(super) plan: Option<Plan>,
    /// Closed until it was brought up. Some drivers take requests before that and tell of an error too: they would keep the memory.
    pub(super) sends: ManuallyDrop<Ring<P>>,
    /// Closed in RESET, where drivers take receives that no message ever reaches.
    pub(super) receives: ManuallyDrop<Ring<P>>,
}

impl<S: Service, P> Held<S, P> {
    pub(super) fn out(&self) -> u32 {
        self.sends.len() + self.receives.len()
    }

    #[inline]
    pub(super) fn ring(&mut self, side: Side) -> &mut Ring<P> {
        match side {
            Side::Send => &mut self.sends,
            Side::Receive => &mut self.receives,
        }
    }

    /// Why it cannot send now.
    #[cold]
    pub(super) fn not_ready(&self) -> Error {
        if self.sends.is_open() || self.sends.depth() == 0 {
            Error::Full { queue: "send queue", depth: self.sends.depth() }
        } else {
            not_up()
        }
    }

    /// Opens the receives, where it has left RESET.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it has not; [`Error::Call`] when the device cannot be asked.
    #[cold]
    pub(super) fn begin_to_receive(&mut self) -> Result<()> {
        if self.qp.state()? == State::RESET {
            return Err(Error::invalid(
                "queue pair of a hub",
                "it is in RESET, where receives are lost",
                "bring it to INIT before receives are posted",
            ));
        }
        self.receives.open();
        Ok(())
    }

    /// Nobody knows what the device has taken: all that is out is flushed. Nothing is sent after it, whose completion would tell that what the
    /// device did not take had succeeded.
    #[cold]
    pub(super) fn cut(&mut self) {
        self.sends.close();
        flush(&self.qp);
    }
}

impl<S: Service, P> Held<S, P> {
    /// Destroys the queue pair: what was out comes back, sends first.
    ///
    /// # Errors
    /// Itself, when the device refuses.
    pub(super) fn end(self: Box<Self>) -> std::result::Result<Vec<P>, (Box<Self>, Error)> {
        let mut held = ManuallyDrop::new(self);
        // SAFETY: neither the box nor its content is dropped but by what follows; the queue pair is taken once, or put back.
        let qp = unsafe { ManuallyDrop::take(&mut held.qp) };
        if let Err((qp, error)) = qp.destroy() {
            held.qp = ManuallyDrop::new(qp);
            return Err((ManuallyDrop::into_inner(held), error));
        }
        // SAFETY: as above; the device forgot the queue pair, and with it every request.
        let (mut sends, mut receives) =
            unsafe { (ManuallyDrop::take(&mut held.sends), ManuallyDrop::take(&mut held.receives)) };
        let mut back: Vec<P> = sends.drain().collect();
        back.extend(receives.drain());
        // SAFETY: the last part that has a drop, dropped once; then the memory of the box, whose content is all gone.
        unsafe {
            std::ptr::drop_in_place(&raw mut held.plan);
            let memory = Box::into_raw(ManuallyDrop::into_inner(held));
            drop(Box::from_raw(memory.cast::<ManuallyDrop<Self>>()));
        }
        Ok(back)
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
                tell_kept(self.out());
                drop(qp);
            }
        }
    }
}

/// Says that memory of so many requests is never freed.
#[cold]
pub(super) fn tell_kept(requests: u32) {
    if requests > 0 {
        tracing::error!(requests, "memory of requests stays with a device that refuses to end them");
    }
}

/// Of the sending side of an extended connection.
#[cold]
pub(super) fn names_no_queue(what: &str) -> Error {
    Error::invalid(
        "queue pair",
        format!("its requests name a queue of the peer's, which operations of {what} do not"),
        "post to it by hand (`QueuePair::post`)",
    )
}

#[cold]
pub(super) fn not_up() -> Error {
    Error::invalid(
        "queue pair of a hub",
        "it is not connected",
        "connect it (or activate it) before it sends",
    )
}

/// All of them.
pub(super) struct Members<S: Service, P> {
    places: Vec<Place<S, P>>,
    free: Vec<u32>,
    /// Who was asked for last.
    recent: Member,
    /// Where that one is.
    at: NonNull<Held<S, P>>,
}

struct Place<S: Service, P> {
    /// What its queue pair is called, or was, or will be.
    member: Member,
    /// From a box, which this owns. Reached by this pointer only, so that a copy of it stays good.
    held: Option<NonNull<Held<S, P>>>,
}

// SAFETY: it owns what its pointers point to, as a vector of boxes does.
unsafe impl<S: Service, P: Send> Send for Members<S, P> {}
// SAFETY: the same; shared references give shared references.
unsafe impl<S: Service, P: Sync> Sync for Members<S, P> {}

impl<S: Service, P> Members<S, P> {
    pub(super) const fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), recent: NOBODY, at: NonNull::dangling() }
    }

    /// One of them, to be changed.
    #[inline]
    pub(super) fn find(&mut self, member: Member) -> Option<&mut Held<S, P>> {
        if member.key != self.recent.key {
            self.look_up(member)?;
        }
        // SAFETY: a member that is there, as `take` forgets who was recent; borrowed with all of this.
        Some(unsafe { self.at.as_mut() })
    }

    #[inline(never)]
    fn look_up(&mut self, member: Member) -> Option<()> {
        let place = self.places.get(member.place() as usize).filter(|place| place.member == member)?;
        (self.at, self.recent) = (place.held?, member);
        Some(())
    }

    /// The same.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that was removed.
    pub(super) fn get_mut(&mut self, member: Member) -> Result<&mut Held<S, P>> {
        self.find(member).ok_or_else(gone)
    }

    /// One of them, to be asked.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that was removed.
    pub(super) fn get(&self, member: Member) -> Result<&Held<S, P>> {
        let place = self.places.get(member.place() as usize).filter(|place| place.member == member);
        let held = place.and_then(|place| place.held).ok_or_else(gone)?;
        // SAFETY: the place owns it; borrowed with all of this.
        Ok(unsafe { held.as_ref() })
    }

    /// All that are there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held<S, P>> {
        // SAFETY: as above.
        self.places.iter().filter_map(|place| place.held).map(|held| unsafe { held.as_ref() })
    }

    /// Takes one in.
    ///
    /// # Errors
    /// [`Error::Full`] when there is no place; it is dropped then.
    pub(super) fn insert(&mut self, held: Held<S, P>) -> Result<Member> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() as u32 == ALL.place() => {
                return Err(Error::Full { queue: "table of queue pairs", depth: ALL.place() });
            }
            None => {
                let place = self.places.len() as u32;
                self.places.push(Place { member: Member { key: place }, held: None });
                place
            }
        };
        let member = self.places[place as usize].member;
        self.put(member, Box::new(held));
        Ok(member)
    }

    /// Takes one out; its place stays until it is put back, or retired.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that was removed.
    pub(super) fn take(&mut self, member: Member) -> Result<Box<Held<S, P>>> {
        self.recent = NOBODY;
        let place = self.places.get_mut(member.place() as usize).filter(|place| place.member == member);
        let held = place.and_then(|place| place.held.take()).ok_or_else(gone)?;
        // SAFETY: made from a box by `put`, and taken out of its place, once.
        Ok(unsafe { Box::from_raw(held.as_ptr()) })
    }

    /// Puts one into its place.
    pub(super) fn put(&mut self, member: Member, held: Box<Held<S, P>>) {
        self.places[member.place() as usize].held = Some(NonNull::from(Box::leak(held)));
    }

    /// The member is no more: its place gets the next generation, which wraps.
    pub(super) fn retire(&mut self, member: Member) {
        self.places[member.place() as usize].member.key = member.key.wrapping_add(PLACES) & KEYS;
        self.free.push(member.place());
    }
}

impl<S: Service, P> Drop for Members<S, P> {
    fn drop(&mut self) {
        for held in self.places.iter_mut().filter_map(|place| place.held.take()) {
            // SAFETY: made from a box by `put`, and taken out of its place, once.
            drop(unsafe { Box::from_raw(held.as_ptr()) });
        }
    }
}

#[cold]
fn gone() -> Error {
    Error::invalid(
        "queue pair of a hub",
        "it was removed",
        "use the handle that `add` gave for one that is there",
    )
}
