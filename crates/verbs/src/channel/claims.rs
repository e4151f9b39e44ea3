//! Who waits for which operation: a place for each that was posted, until its result was taken.
//!
//! Pure. A place is taken when an operation is posted and given back when its result was taken, or when it ended and nobody
//! wants it: so nothing grows with operations whose results are not asked for.

use crate::hub::{Held, Payload, Success};
use crate::work::WorkError;
use std::task::Waker;

/// An operation's place, with the generation that tells it from later ones in the same place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    place: u32,
    generation: u32,
}

impl Payload for Claim {}

/// How an operation ended.
pub(crate) type Outcome = Result<Success, WorkError>;

/// What is left of an operation that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    /// Memory that it owned.
    pub(crate) held: Option<Held>,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    Free,
    /// The device has it. Owned memory is kept here; borrowed memory is its caller's, who waits.
    Out {
        peer: u32,
        scope: u32,
        held: Option<Held>,
        waker: Option<Waker>,
        wanted: bool,
    },
    Ended {
        scope: u32,
        ended: Ended,
    },
}

/// All places.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Bytes of owned memory whose operations nobody waits for any more.
    parked_bytes: usize,
    /// What failed in a scope without being waited for, until the scope's end.
    failures: Vec<(u32, WorkError)>,
}

impl Claims {
    /// For up to so many operations at once, without allocation.
    pub(crate) fn with_room(operations: usize) -> Self {
        Self {
            places: Vec::with_capacity(operations),
            free: Vec::with_capacity(operations),
            parked_bytes: 0,
            failures: Vec::new(),
        }
    }

    /// A place for an operation that is about to be posted, in a scope or in none (0).
    pub(crate) fn open(&mut self, peer: u32, scope: u32, held: Option<Held>) -> Claim {
        let state = State::Out { peer, scope, held, waker: None, wanted: true };
        if let Some(place) = self.free.pop() {
            let entry = &mut self.places[place as usize];
            entry.state = state;
            return Claim { place, generation: entry.generation };
        }
        self.places.push(Place { generation: 0, state });
        Claim { place: self.places.len() as u32 - 1, generation: 0 }
    }

    fn state(&mut self, claim: Claim) -> Option<&mut State> {
        let place = self.places.get_mut(claim.place as usize)?;
        (place.generation == claim.generation).then_some(&mut place.state)
    }

    fn free(&mut self, claim: Claim) {
        let place = &mut self.places[claim.place as usize];
        place.generation = place.generation.wrapping_add(1);
        place.state = State::Free;
        self.free.push(claim.place);
    }

    /// It was not posted after all: its memory.
    pub(crate) fn cancel(&mut self, claim: Claim) -> Option<Held> {
        let state = std::mem::replace(self.state(claim)?, State::Free);
        self.free(claim);
        match state {
            State::Out { held, .. } => held,
            _ => None,
        }
    }

    /// It ended. Who is to be woken, and memory that nobody wants any more.
    pub(crate) fn end(&mut self, claim: Claim, outcome: Outcome) -> (Option<Waker>, Option<Held>) {
        let Some(state) = self.state(claim) else { return (None, None) };
        match std::mem::replace(state, State::Free) {
            State::Out { held, waker, wanted: true, scope, .. } => {
                *state = State::Ended { scope, ended: Ended { outcome, held } };
                (waker, None)
            }
            State::Out { held, scope, .. } => {
                if let (Err(error), true) = (outcome, scope != 0) {
                    self.failures.push((scope, error));
                }
                self.parked_bytes -= held.as_ref().map_or(0, Held::len);
                self.free(claim);
                (None, held)
            }
            other => {
                *state = other;
                (None, None)
            }
        }
    }

    /// Its result, once, if it ended.
    pub(crate) fn take(&mut self, claim: Claim) -> Option<Ended> {
        let state = self.state(claim)?;
        if !matches!(state, State::Ended { .. }) {
            return None;
        }
        let State::Ended { ended, .. } = std::mem::replace(state, State::Free) else { return None };
        self.free(claim);
        Some(ended)
    }

    /// Whether it is out.
    pub(crate) fn is_out(&mut self, claim: Claim) -> bool {
        matches!(self.state(claim), Some(State::Out { .. }))
    }

    /// Who is to be woken when it ends; whoever is not needed any more comes back.
    pub(crate) fn wake(&mut self, claim: Claim, by: Waker) -> Option<Waker> {
        match self.state(claim) {
            Some(State::Out { waker, .. }) => waker.replace(by),
            _ => Some(by),
        }
    }

    /// Nobody wants its result any more. Memory and waker that can be let go now; owned memory of one that is out is parked.
    pub(crate) fn abandon(&mut self, claim: Claim) -> (Option<Held>, Option<Waker>) {
        let Some(state) = self.state(claim) else { return (None, None) };
        match state {
            State::Out { held, waker, wanted, .. } => {
                let waker = waker.take();
                *wanted = false;
                self.parked_bytes += held.as_ref().map_or(0, Held::len);
                (None, waker)
            }
            State::Ended { scope, ended } => {
                let (scope, outcome) = (*scope, ended.outcome);
                if let (Err(error), true) = (outcome, scope != 0) {
                    self.failures.push((scope, error));
                }
                (self.take(claim).and_then(|ended| ended.held), None)
            }
            State::Free => (None, None),
        }
    }

    /// Bytes whose operations nobody waits for any more, and that the device has.
    pub(crate) const fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// Whether an operation of a peer is out on memory that it does not own.
    pub(crate) fn has_borrowed(&self, peer: u32) -> bool {
        let borrowed =
            |place: &Place| matches!(place.state, State::Out { peer: own, held: None, .. } if own == peer);
        self.places.iter().any(borrowed)
    }

    /// The operations of a scope whose results nobody took, out or ended.
    pub(crate) fn left_of(&self, scope: u32) -> Vec<Claim> {
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, place)| match place.state {
                State::Out { scope: own, .. } | State::Ended { scope: own, .. } => own == scope,
                State::Free => false,
            })
            .map(|(at, place)| Claim { place: at as u32, generation: place.generation })
            .collect()
    }

    /// What failed in a scope without being waited for.
    pub(crate) fn take_failures(&mut self, scope: u32) -> Vec<WorkError> {
        let mut own = Vec::new();
        self.failures.retain(|(of, error)| {
            if *of == scope {
                own.push(*error);
            }
            *of != scope
        });
        own
    }

    /// Whose it is, while it is out.
    pub(crate) fn peer_of(&mut self, claim: Claim) -> Option<u32> {
        match self.state(claim)? {
            State::Out { peer, .. } => Some(*peer),
            _ => None,
        }
    }

    /// The operations of a peer that are out.
    pub(crate) fn out_of(&self, peer: u32) -> Vec<Claim> {
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, place)| matches!(place.state, State::Out { peer: own, .. } if own == peer))
            .map(|(at, place)| Claim { place: at as u32, generation: place.generation })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done() -> Outcome {
        Ok(Success::default())
    }

    #[test]
    fn a_result_is_taken_once_and_its_place_used_again() {
        let mut claims = Claims::default();
        let first = claims.open(0, 0, None);
        assert!(claims.take(first).is_none());
        claims.end(first, done());
        assert!(claims.take(first).is_some());
        assert!(claims.take(first).is_none());
        let second = claims.open(0, 0, None);
        assert_eq!(first.place, second.place);
        assert_ne!(first, second);
        assert!(!claims.is_out(first), "an old claim names nothing");
        assert_eq!(claims.places.len(), 1);
    }

    #[test]
    fn results_that_nobody_wants_leave_nothing() {
        let mut claims = Claims::default();
        for round in 0..100 {
            let claim = claims.open(0, 0, None);
            if round % 2 == 0 {
                claims.abandon(claim);
                claims.end(claim, done());
            } else {
                claims.end(claim, done());
                claims.abandon(claim);
            }
        }
        assert_eq!((claims.places.len(), claims.free.len()), (1, 1));
        assert_eq!(claims.parked_bytes(), 0);
    }

    #[test]
    fn only_what_is_out_belongs_to_a_peer() {
        let mut claims = Claims::default();
        let (a, b, c) = (claims.open(0, 0, None), claims.open(1, 0, None), claims.open(1, 0, None));
        claims.end(b, done());
        assert_eq!(claims.out_of(1), [c]);
        assert_eq!(claims.out_of(0), [a]);
        assert!(claims.cancel(a).is_none());
        assert!(claims.out_of(0).is_empty());
    }
}
