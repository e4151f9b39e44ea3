//! The state of all barriers of one rank: which group is in which epoch, at which step.
//!
//! Called by [`Barriers::run`] and by the node's asynchronous form. It reads no clock and touches no memory.
//!
//! Order of use: [`Barriers::enter`], then [`Barriers::poll_action`] until [`Action::Passed`], answering a [`Action::Notify`] that was
//! posted by [`Barriers::handle_notified`] and a [`Action::Wait`] by [`Barriers::handle_cells`]. To stop between two of them is to time out:
//! the next `enter` of the same group goes on with the same epoch.

use super::cells::{CELLS_MAX, CellLayout, Notice};
use super::group::{self, GroupError};
use super::schedule::{BarrierAlgorithm, Step};
use std::collections::BTreeMap;

/// A group that this rank has entered at least once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GroupId(usize);

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Write `notice` into the cell at `place` of what this rank writes at `rank`; then [`Barriers::handle_notified`].
    Notify {
        /// Whom to tell.
        rank: u32,
        /// This rank's epoch of the group, from 1.
        epoch: u64,
        /// Which of this rank's cells there.
        place: usize,
        /// What to write.
        notice: Notice,
    },
    /// Look whether `rank` has told this epoch: [`Barriers::handle_cells`].
    Wait {
        /// Who is waited for.
        rank: u32,
        /// This rank's epoch of the group, from 1.
        epoch: u64,
    },
    /// All have entered this epoch.
    Passed {
        /// The epoch that was passed.
        epoch: u64,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// `told` is the last epoch of which a notice was given.
    Notify { rank: u32, place: u16, told: u64 },
    /// `place` is where the peer's cell for this group was found.
    Wait { rank: u32, place: Option<u16> },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Group {
    digest: u64,
    /// The epoch that is entered, or was passed last; 0 before the first.
    epoch: u64,
    /// Entered and not passed.
    inside: bool,
    next: usize,
    stages: Vec<Stage>,
}

/// The barriers of one rank, over any groups. `Send`, `Sync`; one thread at a time goes through a barrier.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Barriers {
    rank: u32,
    algorithm: BarrierAlgorithm,
    layout: CellLayout,
    by_members: BTreeMap<Box<[u32]>, usize>,
    groups: Vec<Group>,
    /// Cells in use at each peer.
    used: Vec<u16>,
}

impl Barriers {
    /// For a rank of a job. All ranks must be given the same algorithm and layout.
    ///
    /// # Errors
    /// [`GroupError::OutOfRange`] when the job has no such rank, [`GroupError::TooManyGroups`] when the layout has more cells than [`CELLS_MAX`].
    pub fn new(rank: u32, algorithm: BarrierAlgorithm, layout: CellLayout) -> Result<Self, GroupError> {
        let world_size = layout.world_size;
        if rank >= world_size {
            return Err(GroupError::OutOfRange { rank, world_size });
        }
        if layout.groups_max > CELLS_MAX {
            return Err(GroupError::TooManyGroups { peer: rank, groups_max: CELLS_MAX });
        }
        let used = vec![0; world_size as usize];
        Ok(Self { rank, algorithm, layout, by_members: BTreeMap::new(), groups: Vec::new(), used })
    }

    /// The rank whose barriers these are.
    #[must_use]
    pub const fn rank(&self) -> u32 {
        self.rank
    }

    /// Where cells lie.
    #[must_use]
    pub const fn layout(&self) -> CellLayout {
        self.layout
    }

    /// Enters the group's next epoch, or goes on with the one that was entered and not passed, from its first step.
    ///
    /// # Errors
    /// [`GroupError`]; nothing is changed.
    pub fn enter(&mut self, members: &[u32]) -> Result<GroupId, GroupError> {
        let at = match self.by_members.get(members) {
            Some(&at) => at,
            None => self.found(members)?,
        };
        let group = &mut self.groups[at];
        if !group.inside {
            group.inside = true;
            group.epoch += 1;
        }
        group.next = 0;
        Ok(GroupId(at))
    }

    /// The epoch that the group has entered and not passed, if any.
    #[must_use]
    pub fn unfinished(&self, members: &[u32]) -> Option<u64> {
        let group = &self.groups[*self.by_members.get(members)?];
        group.inside.then_some(group.epoch)
    }

    /// What is to be done next; the same until it is answered. A barrier is passed when this has said so, not before: a caller that
    /// goes away (a dropped future) without having heard it finds the barrier entered still.
    pub fn poll_action(&mut self, id: GroupId) -> Action {
        let action = self.action(id);
        if matches!(action, Action::Passed { .. }) {
            self.groups[id.0].inside = false;
        }
        action
    }

    /// What [`Barriers::poll_action`] would say.
    #[must_use]
    pub fn action(&self, id: GroupId) -> Action {
        let group = &self.groups[id.0];
        let epoch = group.epoch;
        match group.stages.get(group.next).filter(|_| group.inside) {
            None => Action::Passed { epoch },
            Some(&Stage::Wait { rank, .. }) => Action::Wait { rank, epoch },
            Some(&Stage::Notify { rank, place, .. }) => Action::Notify {
                rank,
                epoch,
                place: usize::from(place),
                notice: Notice::new(group.digest, epoch),
            },
        }
    }

    /// The notice of the last [`Action::Notify`] was posted.
    pub fn handle_notified(&mut self, id: GroupId) {
        let group = &mut self.groups[id.0];
        let epoch = group.epoch;
        if let Some(Stage::Notify { told, .. }) = group.stages.get_mut(group.next).filter(|_| group.inside) {
            *told = epoch;
            group.next += 1;
        }
    }

    /// Looks at the cells of the rank that is waited for: `load` says what stands at a place of them. Goes on when it has told;
    /// answers whether it had. A look costs one load once the group's cell is known.
    pub fn handle_cells(&mut self, id: GroupId, load: impl Fn(usize) -> u64) -> bool {
        let places = self.layout.groups_max;
        let group = &mut self.groups[id.0];
        let wanted = Notice::new(group.digest, group.epoch);
        let Some(Stage::Wait { place, .. }) = group.stages.get_mut(group.next).filter(|_| group.inside)
        else {
            return false;
        };
        if place.is_none() {
            *place = wanted.find(places, &load).and_then(|at| u16::try_from(at).ok());
        }
        let given = place.is_some_and(|at| wanted.is_given_by(load(usize::from(at))));
        if given {
            group.next += 1;
        }
        given
    }

    /// The last notice of every group that was given to `rank`, with its place: to be given again, all of them, when the connection to it
    /// was reset and before anything else is told over the new one.
    pub fn told_to(&self, rank: u32) -> impl Iterator<Item = (usize, Notice)> + '_ {
        self.groups.iter().flat_map(move |group| {
            group.stages.iter().filter_map(move |stage| match *stage {
                Stage::Notify { rank: to, place, told } if to == rank && told > 0 => {
                    Some((usize::from(place), Notice::new(group.digest, told)))
                }
                _ => None,
            })
        })
    }

    /// Makes the state of a group that is used for the first time; nothing is changed on an error.
    fn found(&mut self, members: &[u32]) -> Result<usize, GroupError> {
        let me = group::check(members, self.rank, self.layout.world_size)?;
        let digest = group::digest(self.algorithm, members);
        if let Some(at) = self.groups.iter().position(|group| group.digest == digest) {
            let used = self.by_members.iter().find(|(_, place)| **place == at);
            return Err(GroupError::SameDigest {
                used: used.map_or_else(Vec::new, |(used, _)| used.to_vec()),
            });
        }
        let steps = self.algorithm.steps(members, me);
        let groups_max = self.layout.groups_max;
        for step in &steps {
            if let Step::Notify(peer) = *step
                && usize::from(self.used[peer as usize]) >= groups_max
            {
                return Err(GroupError::TooManyGroups { peer, groups_max });
            }
        }
        let stages = steps.into_iter().map(|step| self.stage(step)).collect();
        self.groups.push(Group { digest, epoch: 0, inside: false, next: 0, stages });
        let at = self.groups.len() - 1;
        self.by_members.insert(members.into(), at);
        Ok(at)
    }

    /// A schedule tells no rank twice, so that each notice takes one new cell.
    fn stage(&mut self, step: Step) -> Stage {
        match step {
            Step::Wait(rank) => Stage::Wait { rank, place: None },
            Step::Notify(rank) => {
                let used = &mut self.used[rank as usize];
                let place = *used;
                *used += 1;
                Stage::Notify { rank, place, told: 0 }
            }
        }
    }
}
