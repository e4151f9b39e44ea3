//! Operations on owned memory: as futures, or to be waited for; dropped early, their memory is parked until the device is done.

use super::claims::{Claim, Ended};
use super::core::Core;
use crate::error::{Error, Result};
use crate::hub::{Held, Operation, Rejected, Success};
use crate::qp::Rc;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// An operation with its memory.
pub(crate) enum Owned {
    Receive(Held),
    Send(Operation<Rc>),
}

impl Owned {
    pub(crate) fn into_held(self) -> Held {
        match self {
            Self::Receive(held) => held,
            Self::Send(operation) => operation.into_held(),
        }
    }
}

/// An operation on owned memory that is out. A future, and something to wait for; `Send`, and independent of its channel's borrow.
///
/// Its end is seen when somebody makes progress: a blocking call of the channel, [`wait`](Self::wait), or a [`Driver`]. Dropped early, its
/// memory is parked until the device is done with it (`Channel::parked_bytes`).
#[must_use = "a result that nobody takes is lost"]
#[derive(Debug)]
pub struct Submitted {
    core: Arc<Core>,
    claim: Option<Claim>,
}

/// An operation on owned memory that ended, with its memory.
#[derive(Debug)]
pub struct Finished {
    /// Its memory.
    pub held: Held,
    /// How it ended: [`Error::Work`] when the device says that it failed.
    pub result: Result<Success>,
}

impl Finished {
    fn of(ended: Ended) -> Self {
        Self { held: ended.held.unwrap_or(Held::Nothing), result: ended.outcome.map_err(Error::Work) }
    }
}

impl Submitted {
    pub(crate) fn send(
        core: &Arc<Core>,
        peer: u32,
        operation: Operation<Rc>,
    ) -> std::result::Result<Self, Rejected<Held>> {
        Self::start(core, peer, Owned::Send(operation))
    }

    /// The same, while the caller has a lock that wakers may want; who calls it has made progress before.
    pub(crate) fn send_now(
        core: &Arc<Core>,
        peer: u32,
        operation: Operation<Rc>,
    ) -> std::result::Result<Self, Rejected<Held>> {
        Self::started(core, core.submit_now(peer, Owned::Send(operation)))
    }

    pub(crate) fn receive(
        core: &Arc<Core>,
        peer: u32,
        held: Held,
    ) -> std::result::Result<Self, Rejected<Held>> {
        Self::start(core, peer, Owned::Receive(held))
    }

    fn start(core: &Arc<Core>, peer: u32, owned: Owned) -> std::result::Result<Self, Rejected<Held>> {
        Self::started(core, core.submit(peer, owned))
    }

    fn started(
        core: &Arc<Core>,
        answer: std::result::Result<Claim, (Held, Error)>,
    ) -> std::result::Result<Self, Rejected<Held>> {
        match answer {
            Ok(claim) => Ok(Self { core: core.clone(), claim: Some(claim) }),
            Err((operation, error)) => Err(Rejected { operation, error }),
        }
    }

    /// Waits for it, at most so long.
    ///
    /// # Errors
    /// Itself, with [`Error::TimedOut`] when it did not end, or with [`Error::Call`] when the device failed.
    pub fn wait(mut self, timeout: Duration) -> std::result::Result<Finished, (Self, Error)> {
        let Some(claim) = self.claim else {
            return Err((self, Error::TimedOut { what: "an operation", after: timeout }));
        };
        match self.core.wait(claim, Instant::now().checked_add(timeout)) {
            Ok(Some(ended)) => {
                self.claim = None;
                Ok(Finished::of(ended))
            }
            Ok(None) => Err((self, Error::TimedOut { what: "an operation of a channel", after: timeout })),
            Err(error) => Err((self, error)),
        }
    }

    /// Whether it is still out. Never blocks.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.claim.is_some_and(|claim| self.core.is_out(claim))
    }
}

impl Future for Submitted {
    type Output = Result<Finished>;

    /// # Panics
    /// After it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let claim = self.claim.expect("polled after it was ready");
        match self.core.take_or_wake(claim, context.waker()) {
            Ok(Some(ended)) => {
                self.claim = None;
                Poll::Ready(Ok(Finished::of(ended)))
            }
            Ok(None) => Poll::Pending,
            Err(error) => {
                self.core.abandon(claim);
                self.claim = None;
                Poll::Ready(Err(error))
            }
        }
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if let Some(claim) = self.claim {
            self.core.abandon(claim);
        }
    }
}

/// Makes progress for the futures of a channel: registers its descriptor (`AsFd`) with any event loop. `Clone`, `Send`, `Sync`.
///
/// The loop: [`arm`](Self::arm); when it says that something ended meanwhile, again; else wait until the descriptor is readable, then
/// [`clear`](Self::clear) and [`progress`](Self::progress).
#[derive(Clone, Debug)]
pub struct Driver {
    core: Arc<Core>,
}

impl Driver {
    pub(crate) const fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Reads what has ended and wakes its futures; how many operations. Never blocks.
    ///
    /// # Errors
    /// [`Error::Call`] when the device failed.
    pub fn progress(&self) -> Result<usize> {
        self.core.progress()
    }

    /// Asks for the descriptor to become readable with the next completion. Whether something ended in the meantime: then it may not become.
    ///
    /// # Errors
    /// [`Error::Call`] when the device failed.
    pub fn arm(&self) -> Result<bool> {
        self.core.arm()
    }

    /// Takes the events that made the descriptor readable. Never blocks.
    ///
    /// # Errors
    /// [`Error::Call`] when the device failed.
    pub fn clear(&self) -> Result<()> {
        while self.core.events().event()?.is_some() {}
        Ok(())
    }

    /// Makes progress in this thread until `done` says so; looks at it at least every 100 ms.
    ///
    /// # Errors
    /// [`Error::Call`] when the device failed.
    pub fn run(&self, mut done: impl FnMut() -> bool) -> Result<()> {
        while !done() {
            if self.arm()? {
                continue;
            }
            if self.core.events().wait(Some(Duration::from_millis(100)))?.is_some() {
                self.progress()?;
            }
        }
        Ok(())
    }
}

impl AsFd for Driver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.core.events().as_fd()
    }
}
