//! Goes through a barrier with a deadline, over whatever memory it is given.
//!
//! Called by the node. The only part of barriers that reads a clock.

use super::cells::Cells;
use super::group::GroupError;
use super::machine::{Action, Barriers};
use std::fmt;
use std::time::{Duration, Instant};

/// Why a barrier was not passed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BarrierError<E> {
    /// The list of ranks is none; nothing was told.
    Group(GroupError),
    /// The time is over. The barrier stays entered: the next call for the same group goes on with it.
    TimedOut {
        /// Who had not told.
        rank: u32,
        /// Whether it was the way to it that had no room, rather than its notice that did not come.
        queue_full: bool,
        /// The group's epoch, from 1.
        epoch: u64,
        /// How long was waited.
        after: Duration,
    },
    /// The way to a peer failed. The barrier stays entered: after a reset of the connection the next call goes on with it.
    Cells {
        /// Which peer.
        rank: u32,
        /// The group's epoch, from 1.
        epoch: u64,
        /// What it said.
        error: E,
    },
}

impl<E> BarrierError<E> {
    /// Whether the same call may succeed later: it goes on with the same barrier.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        !matches!(self, Self::Group(_))
    }
}

impl<E: fmt::Display> fmt::Display for BarrierError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = "call again for the same ranks to go on with it";
        match self {
            Self::Group(error) => error.fmt(f),
            Self::TimedOut { rank, queue_full: false, epoch, after } => {
                write!(f, "barrier {epoch}: rank {rank} has not come within {after:?}; {again}")
            }
            Self::TimedOut { rank, queue_full: true, epoch, after } => {
                write!(f, "barrier {epoch}: the queue to rank {rank} had no room within {after:?}; {again}")
            }
            Self::Cells { rank, epoch, error } => {
                write!(
                    f,
                    "barrier {epoch}: the way to rank {rank}: {error}; reset the connection, then {again}"
                )
            }
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for BarrierError<E> {}

impl<E> From<GroupError> for BarrierError<E> {
    fn from(error: GroupError) -> Self {
        Self::Group(error)
    }
}

impl Barriers {
    /// Enters the barrier of `members` (strictly ascending, this rank among them) and blocks until all have, or `timeout` is over.
    /// A timeout of zero looks once and goes as far as it can. A group of one passes at once. Answers the epoch, from 1.
    ///
    /// # Errors
    /// [`BarrierError`]. After [`BarrierError::TimedOut`] and [`BarrierError::Cells`] the barrier is entered still.
    pub fn run<C: Cells>(
        &mut self,
        members: &[u32],
        timeout: Duration,
        cells: &mut C,
    ) -> Result<u64, BarrierError<C::Error>> {
        let id = self.enter(members)?;
        let start = Instant::now();
        loop {
            let action = self.poll_action(id);
            let (rank, epoch, queue_full, moved) = match action {
                Action::Passed { epoch } => return Ok(epoch),
                Action::Notify { rank, epoch, place, notice } => {
                    let posted = cells.try_notify(rank, place, notice.value());
                    let posted = posted.map_err(|error| BarrierError::Cells { rank, epoch, error })?;
                    if posted {
                        self.handle_notified(id);
                    }
                    (rank, epoch, true, posted)
                }
                Action::Wait { rank, epoch } => {
                    let given = self.handle_cells(id, |place| cells.load(rank, place));
                    (rank, epoch, false, given)
                }
            };
            if moved {
                continue;
            }
            let after = start.elapsed();
            if after >= timeout {
                return Err(BarrierError::TimedOut { rank, queue_full, epoch, after });
            }
            cells.pause(rank).map_err(|error| BarrierError::Cells { rank, epoch, error })?;
        }
    }
}
