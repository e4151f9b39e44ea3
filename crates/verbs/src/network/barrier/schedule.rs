//! Who tells whom, and in which order: one list of steps for each rank of a group.
//!
//! Called by the machine. Pure: the same arguments give the same list on every rank.

/// How the ranks of a group hear of each other. All ranks of a job use the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum BarrierAlgorithm {
    /// The lowest rank hears all, then tells all: 2(n − 1) notices, all of them at one rank. Good for a handful of ranks.
    Centralized,
    /// Up a binary tree to the lowest rank, and down again: 2(n − 1) notices, 2⌊log2 n⌋ one after another.
    #[default]
    BinaryTree,
    /// ⌈log2 n⌉ rounds in which every rank tells one and hears one: n⌈log2 n⌉ notices, the fewest one after another.
    Dissemination,
}

impl BarrierAlgorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Centralized, Self::BinaryTree, Self::Dissemination];

    /// The number that stands for it in a group's digest.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Centralized => 1,
            Self::BinaryTree => 2,
            Self::Dissemination => 3,
        }
    }

    /// The steps of the member at place `me` of `members`; none for a group of one.
    ///
    /// # Panics
    /// When `me` is not a place of `members`.
    #[must_use]
    pub fn steps(self, members: &[u32], me: usize) -> Vec<Step> {
        assert!(me < members.len(), "place {me} of a group of {}", members.len());
        match self {
            Self::Centralized => centralized(members, me),
            Self::BinaryTree => binary_tree(members, me),
            Self::Dissemination => dissemination(members, me),
        }
    }
}

/// One step of a rank through a barrier.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Tell that rank.
    Notify(u32),
    /// Go on when that rank has told.
    Wait(u32),
}

fn centralized(members: &[u32], me: usize) -> Vec<Step> {
    let leader = members[0];
    if me != 0 {
        return vec![Step::Notify(leader), Step::Wait(leader)];
    }
    let others = || members[1..].iter().copied();
    others().map(Step::Wait).chain(others().map(Step::Notify)).collect()
}

fn binary_tree(members: &[u32], me: usize) -> Vec<Step> {
    let parent = (me > 0).then(|| members[(me - 1) / 2]);
    let children = || [2 * me + 1, 2 * me + 2].into_iter().filter_map(|child| members.get(child).copied());
    let heard = children().map(Step::Wait);
    let up = parent.into_iter().flat_map(|parent| [Step::Notify(parent), Step::Wait(parent)]);
    heard.chain(up).chain(children().map(Step::Notify)).collect()
}

fn dissemination(members: &[u32], me: usize) -> Vec<Step> {
    let count = members.len();
    let distances = std::iter::successors(Some(1_usize), |distance| distance.checked_mul(2));
    distances
        .take_while(|&distance| distance < count)
        .flat_map(|distance| {
            let to = members[(me + distance) % count];
            let from = members[(me + count - distance) % count];
            [Step::Notify(to), Step::Wait(from)]
        })
        .collect()
}
