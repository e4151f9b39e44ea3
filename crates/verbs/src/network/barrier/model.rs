//! A world of ranks for tests: machines, cells, and links that hold notices back, lose them with their connection, and let calls time out.
//!
//! Called by the tests beside it. After every step it checks that nobody passed before all had entered.

use super::*;
use std::collections::{HashSet, VecDeque};

/// One step of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Move {
    /// The rank does the next thing of its program.
    Act(usize),
    /// The first notice on the way from one rank to another arrives.
    Deliver(usize, usize),
    /// The rank's call times out; it calls again at once, or (`later`) does the rest of its program before.
    TimeOut { rank: usize, later: bool },
    /// The connection is lost with all that is on the way, and made anew.
    Reset(usize, usize),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Rank {
    todo: VecDeque<usize>,
    inside: Option<(GroupId, usize)>,
    /// Epochs entered and passed, by group.
    entered: Vec<u64>,
    passed: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    groups: Vec<Vec<u32>>,
    layout: CellLayout,
    machines: Vec<Barriers>,
    ranks: Vec<Rank>,
    /// By reader, then by writer, then by place.
    cells: Vec<u64>,
    links: Vec<VecDeque<(usize, u64)>>,
    /// How often a call may time out, and a connection be lost, from here on.
    pub(super) timeouts: u32,
    pub(super) resets: u32,
    /// A rank that takes every notice for given: for the test that the model sees it.
    pub(super) gullible: Option<usize>,
}

impl World {
    /// `order` is what all do, by number of group, each rank those that it is in.
    pub(super) fn new(
        algorithm: BarrierAlgorithm,
        world_size: u32,
        groups: Vec<Vec<u32>>,
        order: &[usize],
    ) -> Self {
        let count = world_size as usize;
        let layout = CellLayout { world_size, groups_max: groups.len() };
        let machines = (0..world_size).map(|rank| Barriers::new(rank, algorithm, layout).unwrap()).collect();
        let ranks = (0..world_size).map(|rank| Rank {
            todo: order.iter().copied().filter(|&group| groups[group].contains(&rank)).collect(),
            inside: None,
            entered: vec![0; groups.len()],
            passed: vec![0; groups.len()],
        });
        Self {
            ranks: ranks.collect(),
            layout,
            machines,
            cells: vec![0; count * count * groups.len()],
            links: vec![VecDeque::new(); count * count],
            groups,
            timeouts: 0,
            resets: 0,
            gullible: None,
        }
    }

    fn count(&self) -> usize {
        self.ranks.len()
    }

    pub(super) fn is_done(&self) -> bool {
        self.ranks.iter().all(|rank| rank.inside.is_none() && rank.todo.is_empty())
    }

    fn cell(&self, reader: usize, writer: usize, place: usize) -> u64 {
        self.cells[(reader * self.count() + writer) * self.layout.groups_max + place]
    }

    /// What a look of `rank` would see, and its machine afterwards.
    fn look(&self, rank: usize) -> Option<Barriers> {
        let (id, group) = self.ranks[rank].inside.unwrap();
        let Action::Wait { rank: writer, epoch } = self.machines[rank].action(id) else { return None };
        let mut machine = self.machines[rank].clone();
        let forged = self.forged(rank, group, epoch);
        let load = |place| forged.unwrap_or_else(|| self.cell(rank, writer as usize, place));
        machine.handle_cells(id, load).then_some(machine)
    }

    fn forged(&self, rank: usize, group: usize, epoch: u64) -> Option<u64> {
        let digest = |algorithm| super::group::digest(algorithm, &self.groups[group]);
        let gullible = self.gullible == Some(rank);
        gullible.then(|| Notice::new(digest(BarrierAlgorithm::Dissemination), epoch).value())
    }

    /// Steps that change something.
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (at, rank) in self.ranks.iter().enumerate() {
            let acts = match rank.inside {
                None => !rank.todo.is_empty(),
                Some((id, _)) => match self.machines[at].action(id) {
                    Action::Wait { .. } => self.look(at).is_some(),
                    _ => true,
                },
            };
            if acts {
                moves.push(Move::Act(at));
            }
            if self.timeouts > 0 && rank.inside.is_some() {
                moves.push(Move::TimeOut { rank: at, later: false });
                moves.extend((!rank.todo.is_empty()).then_some(Move::TimeOut { rank: at, later: true }));
            }
        }
        for from in 0..self.count() {
            for to in 0..self.count() {
                if !self.links[from * self.count() + to].is_empty() {
                    moves.push(Move::Deliver(from, to));
                    moves.extend((self.resets > 0).then_some(Move::Reset(from, to)));
                }
            }
        }
        moves
    }

    /// Does one step; `Err` says who was early.
    pub(super) fn step(&mut self, step: Move) -> Result<(), String> {
        match step {
            Move::Deliver(from, to) => {
                let link = from * self.count() + to;
                let (place, value) = self.links[link].pop_front().unwrap();
                let at = (to * self.count() + from) * self.layout.groups_max + place;
                self.cells[at] = value;
            }
            Move::Reset(from, to) => {
                self.resets -= 1;
                let again = self.machines[from].told_to(to as u32);
                let again = again.map(|(place, notice)| (place, notice.value())).collect();
                let link = from * self.count() + to;
                self.links[link] = again;
            }
            Move::TimeOut { rank, later } => {
                self.timeouts = self.timeouts.saturating_sub(1);
                let (_, group) = self.ranks[rank].inside.take().unwrap();
                if later {
                    self.ranks[rank].todo.push_back(group);
                } else {
                    self.ranks[rank].todo.push_front(group);
                }
            }
            Move::Act(rank) => return self.act(rank),
        }
        Ok(())
    }

    fn act(&mut self, rank: usize) -> Result<(), String> {
        let Some((id, group)) = self.ranks[rank].inside else {
            let group = self.ranks[rank].todo.pop_front().unwrap();
            if self.machines[rank].unfinished(&self.groups[group]).is_none() {
                self.ranks[rank].entered[group] += 1;
            }
            let id = self.machines[rank].enter(&self.groups[group]).unwrap();
            self.ranks[rank].inside = Some((id, group));
            return Ok(());
        };
        match self.machines[rank].poll_action(id) {
            Action::Wait { .. } => {
                if let Some(machine) = self.look(rank) {
                    self.machines[rank] = machine;
                }
            }
            Action::Notify { rank: to, place, notice, .. } => {
                let link = rank * self.count() + to as usize;
                self.links[link].push_back((place, notice.value()));
                self.machines[rank].handle_notified(id);
            }
            Action::Passed { epoch } => {
                self.ranks[rank].inside = None;
                self.ranks[rank].passed[group] += 1;
                assert_eq!(self.ranks[rank].passed[group], epoch, "an epoch was passed twice or left out");
                for &member in &self.groups[group] {
                    let entered = self.ranks[member as usize].entered[group];
                    if entered < epoch {
                        return Err(format!(
                            "rank {rank} passed {epoch} of {group}, rank {member} is at {entered}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Every world that can come of this one, each once. Where nothing can move, the program must be done, or (`forced`) calls time out.
pub(super) fn explore(start: World, forced: bool) -> Result<usize, String> {
    let mut seen = HashSet::from([start.clone()]);
    let mut open = vec![start];
    let mut ends = 0;
    while let Some(world) = open.pop() {
        let mut moves = world.moves();
        if moves.is_empty() {
            ends += usize::from(world.is_done());
            if !world.is_done() && !forced {
                return Err("ranks wait for ever".to_owned());
            }
            let stuck = (0..world.count()).filter(|&rank| world.ranks[rank].inside.is_some());
            moves.extend(stuck.map(|rank| Move::TimeOut { rank, later: true }));
        }
        for step in moves {
            let mut next = world.clone();
            next.step(step)?;
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    if ends == 0 { Err("no run came to its end".to_owned()) } else { Ok(seen.len()) }
}

/// A generator of numbers for the model's choices (xorshift).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

/// One run with steps chosen by dice, to its end.
pub(super) fn wander(mut world: World, dice: &mut Dice) -> Result<(), String> {
    for _ in 0..200_000 {
        let mut moves = world.moves();
        if dice.below(8) != 0 {
            moves.retain(|step| matches!(step, Move::Act(_) | Move::Deliver(..)));
        }
        if moves.is_empty() {
            if world.is_done() {
                return Ok(());
            }
            let stuck = (0..world.count()).filter(|&rank| world.ranks[rank].inside.is_some());
            moves.extend(stuck.map(|rank| Move::TimeOut { rank, later: true }));
            if moves.is_empty() {
                continue;
            }
        }
        world.step(moves[dice.below(moves.len())])?;
    }
    Err("ranks do not come to an end".to_owned())
}
