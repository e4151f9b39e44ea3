//! Operations on memory that is borrowed for a scope: posted together, waited for one by one, and ended when the scope ends.
#![allow(unsafe_code)]

use super::claims::Claim;
use super::core::{Core, CutShort};
use super::work::{Done, Places, Work};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where operations on memory borrowed for `'env` are posted; see [`Channel::scope`](super::Channel::scope).
pub struct Scope<'scope, 'env: 'scope> {
    core: Arc<Core>,
    number: u32,
    deadline: Option<Duration>,
    /// Operations whose handles were dropped without a result.
    unpolled: Cell<usize>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// An operation of a scope that is out. What it borrowed comes back with [`wait`](Self::wait) or [`poll`](Self::poll). Dropped or
/// forgotten, it goes on; the scope waits for it.
#[must_use = "its memory comes back with its result"]
pub struct Pending<'scope, 'env: 'scope> {
    scope: &'scope Scope<'scope, 'env>,
    peer: u32,
    claim: Option<Claim>,
    places: Option<Places<'env>>,
}

/// Why a scope ended without success.
#[derive(Debug)]
#[non_exhaustive]
pub enum ScopeError<E> {
    /// The closure said so; and what failed besides among operations that were not waited for.
    Closure {
        /// What it said.
        error: E,
        /// What failed besides.
        failures: Vec<Error>,
    },
    /// Operations that were not waited for failed. Never empty.
    Failed(Vec<Error>),
}

impl<E: fmt::Display> fmt::Display for ScopeError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failures = match self {
            Self::Closure { error, failures } => {
                error.fmt(f)?;
                failures
            }
            Self::Failed(failures) => failures,
        };
        for (place, failure) in failures.iter().enumerate() {
            let before = if place > 0 || matches!(self, Self::Closure { .. }) { "; " } else { "" };
            write!(f, "{before}not waited for: {failure}")?;
        }
        Ok(())
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for ScopeError<E> {}

/// Runs a closure with a scope, and ends what it left. In a manual one, results that nobody took are a fault of the program.
pub(crate) fn run<'env, T, E>(
    core: &Arc<Core>,
    deadline: Option<Duration>,
    manual: bool,
    f: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> std::result::Result<T, E>,
) -> std::result::Result<T, ScopeError<E>> {
    let scope = Scope {
        core: core.clone(),
        number: core.open_scope(),
        deadline,
        unpolled: Cell::new(0),
        scope: PhantomData,
        env: PhantomData,
    };
    // What is borrowed for 'env is out: nothing leaves here before all of it has ended, whatever the closure, its drops and wakers do.
    let end = End(&scope);
    let answer = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let is_left = scope.unpolled.get() > 0 || !core.left_of(scope.number).is_empty();
    let cut = end.wait();
    std::mem::forget(end);
    let mut failures: Vec<Error> = core.close_scope(scope.number).into_iter().map(Error::Work).collect();
    if let Some(cut) = cut {
        failures.insert(0, cut);
    }
    match answer {
        Err(panic) => resume_unwind(panic),
        Ok(Err(error)) => Err(ScopeError::Closure { error, failures }),
        Ok(Ok(_)) if !failures.is_empty() => Err(ScopeError::Failed(failures)),
        Ok(Ok(_)) if manual && is_left => {
            panic!("operations of a manual scope were not waited for; all of them have succeeded")
        }
        Ok(Ok(value)) => Ok(value),
    }
}

/// Waits for what a scope left; also when something panics on the way.
struct End<'a, 'scope, 'env>(&'a Scope<'scope, 'env>);

impl End<'_, '_, '_> {
    fn wait(&self) -> Option<Error> {
        let Scope { core, number, deadline, .. } = self.0;
        let left = core.left_of(*number);
        let end = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        core.wait_all(&left, end, deadline.unwrap_or_default())
    }
}

impl Drop for End<'_, '_, '_> {
    fn drop(&mut self) {
        // Unwinding past `run`: a waker of somebody else's panicked while the scope waited. What is left is waited for again; if that
        // panics too, the process aborts, as it must.
        let _ = self.wait();
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    /// Posts an operation. Waits for a place when the queue is full, at most until the deadline.
    ///
    /// # Errors
    /// [`Error::Full`] when no operation ended in time; [`Error::Broken`] after the channel was cut short; [`Error::Invalid`] for more than 8 elements;
    /// [`Error::Call`] from the device. What it borrowed is free then, but not given back.
    pub fn post(&'scope self, work: Work<'env>) -> Result<Pending<'scope, 'env>> {
        self.post_to(0, work)
    }

    /// Posts an operation with one of several peers; a channel has one, 0.
    ///
    /// # Errors
    /// As for [`post`](Self::post); [`Error::Invalid`] for a peer that there is not.
    pub fn post_to(&'scope self, peer: u32, work: Work<'env>) -> Result<Pending<'scope, 'env>> {
        let deadline = self.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        loop {
            // SAFETY: what the work names is borrowed for 'env, which outlives the call of `run`; that does not return before the
            // operation has ended.
            match unsafe { self.core.post(peer, self.number, &work) } {
                Ok(claim) => {
                    return Ok(Pending {
                        scope: self,
                        peer,
                        claim: Some(claim),
                        places: Some(work.into_places()),
                    });
                }
                Err(Error::Full { .. }) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                    self.core.progress()?;
                    std::thread::yield_now();
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl<'env> Pending<'_, 'env> {
    /// What came of it, if it has ended. Never blocks. Nothing after its result was taken.
    ///
    /// # Errors
    /// [`Error::Work`] when it failed: its places come back with the scope's end. [`Error::Call`] when the device failed, and it is still out.
    pub fn poll(&mut self) -> Option<Result<Done<'env>>> {
        let ended = match self.scope.core.try_take(self.claim?) {
            Ok(ended) => ended?,
            Err(error) => return Some(Err(error)),
        };
        self.claim = None;
        let places = self.places.take().unwrap_or_else(Places::none);
        Some(ended.outcome.map(|success| Done { success, places }).map_err(Error::Work))
    }

    /// Waits for it, at most until the channel's deadline; then everything of its peer is cut short, and the channel is
    /// `Broken`.
    ///
    /// # Errors
    /// [`Error::Work`] when it failed; [`Error::TimedOut`] when the deadline passed; [`Error::Call`] when the device failed;
    /// [`Error::Invalid`] when its result was taken.
    pub fn wait(mut self) -> Result<Done<'env>> {
        let Some(claim) = self.claim else {
            return Err(Error::invalid("operation", "its result was taken by `poll`", "ask once"));
        };
        let deadline = self.scope.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let after = self.scope.deadline.unwrap_or_default();
        let ended = self.scope.core.wait_out(self.peer, claim, deadline, after);
        self.claim = None;
        let places = self.places.take().unwrap_or_else(Places::none);
        match ended {
            Ok(ended) => ended.outcome.map(|success| Done { success, places }).map_err(Error::Work),
            Err(CutShort(error)) => Err(error),
        }
    }
}

impl Drop for Pending<'_, '_> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim {
            self.scope.unpolled.set(self.scope.unpolled.get() + 1);
            self.scope.core.abandon(claim);
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({})", self.number)
    }
}

impl fmt::Debug for Pending<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({:?})", self.claim)
    }
}
