//! What is behind a channel's lock: queue pairs, claims, and what each peer has come to.
//!
//! Called by the core, which holds the lock. Nothing of the caller's runs in here: wakers and memory that goes are handed out.
#![allow(unsafe_code)]

use super::asynchronous::Owned;
use super::claims::{Claim, Claims};
use crate::error::{Error, Result};
use crate::hub::{Held, Member, NO_ELEMENTS, Success, Tracker};
use crate::qp::{Rc, ReceiveRequest};
use crate::work::{Status, WorkError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

pub(super) struct State {
    pub(super) tracker: Tracker<Rc, Claim>,
    pub(super) claims: Claims,
    pub(super) peers: Vec<Peer>,
    /// Whether a thread watches the device: others wait for what it finds.
    pub(super) is_watched: bool,
    pub(super) parked_bytes_max: usize,
    /// The number that the last scope got.
    pub(super) scopes: u32,
}

pub(super) struct Peer {
    /// Nothing after the queue pair had to be destroyed.
    pub(super) member: Option<Member>,
    pub(super) broken: Option<String>,
}

/// What is done outside of the lock: wakers and drops are the caller's code.
#[derive(Default)]
pub(super) struct Later {
    pub(super) wakers: Vec<Waker>,
    pub(super) held: Vec<Held>,
}

impl Later {
    /// Wakes all, also when one of them, or a drop, panics.
    pub(super) fn run(mut self) {
        self.wakers.reverse();
        let mut rest = Rest(self.wakers);
        drop(self.held);
        while let Some(waker) = rest.0.pop() {
            waker.wake();
        }
    }
}

/// Wakers whose turn has not come, the first last.
struct Rest(Vec<Waker>);

impl Drop for Rest {
    fn drop(&mut self) {
        while let Some(waker) = self.0.pop() {
            // One has panicked, and that panic goes on.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

impl State {
    /// Reads what the device has finished.
    pub(super) fn poll(&mut self, later: &mut Later) -> Result<usize> {
        let mut count = 0;
        loop {
            let Some(ended) = self.tracker.poll().map_err(|error| *error)? else { return Ok(count) };
            let member = ended.member();
            let outcome = match ended.completion() {
                Some(completion) => completion.ok().map(|()| Success::of(completion, false)),
                None => Ok(Success::default()),
            };
            let Some(claim) = ended.take() else { continue };
            if let Err(error) = outcome
                && error.status != Status::FLUSHED
            {
                self.broke(member, || error.to_string());
            }
            let (waker, held) = self.claims.end(claim, outcome);
            later.wakers.extend(waker);
            later.held.extend(held);
            count += 1;
        }
    }

    /// A queue pair whose request failed is in its error state.
    fn broke(&mut self, member: Member, cause: impl FnOnce() -> String) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.member == Some(member)) {
            peer.broken.get_or_insert_with(cause);
        }
    }

    pub(super) fn usable(&self, peer: u32) -> Result<Member> {
        let entry = self.peers.get(peer as usize).ok_or_else(|| {
            let cause = format!("{peer} of {} peers", self.peers.len());
            Error::invalid("peer", cause, "peers count from 0")
        })?;
        match (&entry.broken, entry.member) {
            (None, Some(member)) => Ok(member),
            (Some(cause), _) => Err(Error::Broken { cause: cause.clone() }),
            (None, None) => Err(Error::Broken { cause: "there is no connection to it".to_owned() }),
        }
    }

    /// Ends what is out as if it had been flushed: the device touches nothing of it any more.
    pub(super) fn end_all(&mut self, claims: impl IntoIterator<Item = Claim>, later: &mut Later) {
        let error = WorkError { status: Status::FLUSHED, vendor_error: 0, qp_num: 0 };
        for claim in claims {
            let (waker, held) = self.claims.end(claim, Err(error));
            later.wakers.extend(waker);
            later.held.extend(held);
        }
    }
}

impl Owned {
    /// Posts it: its memory lies in its claim until it has ended.
    pub(super) fn post(
        self,
        state: &mut State,
        member: Member,
        peer: u32,
    ) -> std::result::Result<Claim, (Held, Error)> {
        let State { tracker, claims, .. } = state;
        let pd = match tracker.qp(member) {
            Ok(qp) => qp.protection_domain().clone(),
            Err(error) => return Err((self.into_held(), error)),
        };
        let mut elements = NO_ELEMENTS;
        let (claim, posted) = match self {
            Self::Receive(held) => match held.elements(None, &pd, &mut elements) {
                Err(error) => return Err((held, *error)),
                Ok(count) => {
                    let claim = claims.open(peer, 0, Some(held));
                    let make = |_: &Claim, wr_id, _: &_| {
                        Ok(ReceiveRequest::of(wr_id, elements.as_ptr().cast(), count as usize))
                    };
                    // SAFETY: the memory is owned, registered in this domain, and lies in the claim until that has ended.
                    (claim, unsafe { tracker.post_receive(member, make, claim) })
                }
            },
            Self::Send(operation) => {
                let (shape, kept) = operation.into_parts();
                match shape.request(&kept, 0, &pd, &mut elements) {
                    Err(error) => return Err((kept.into_held(), *error)),
                    Ok(request) => {
                        let claim = claims.open(peer, 0, Some(kept.into_held()));
                        // SAFETY: as above.
                        (claim, unsafe {
                            tracker.post_send(member, |_, wr_id, _| Ok(request.numbered(wr_id)), claim)
                        })
                    }
                }
            }
        };
        match posted {
            Ok(()) => Ok(claim),
            Err((Some(claim), error)) => Err((claims.cancel(claim).unwrap_or(Held::Nothing), *error)),
            // The device may have taken it: it is flushed, and its claim tells so.
            Err((None, _)) => Ok(claim),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let members: Vec<_> = self.peers.iter().filter_map(|peer| peer.member).collect();
        for member in members {
            if self.tracker.remove(member).is_err() {
                // The device may touch what claims own: it stays for ever.
                std::mem::forget(std::mem::take(&mut self.claims));
            }
        }
    }
}
