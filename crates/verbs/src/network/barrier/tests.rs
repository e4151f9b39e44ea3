//! What barriers promise, on every algorithm.

use super::model::{Dice, World, explore, wander};
use super::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn seed() -> u64 {
    let given = std::env::var("SINEW_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(0x5eed_0001)
}

fn layout(world_size: u32) -> CellLayout {
    CellLayout { world_size, groups_max: 8 }
}

#[test]
fn i15_no_rank_is_early_in_any_order_of_events_with_timeouts_and_lost_connections() {
    for algorithm in BarrierAlgorithm::ALL {
        let mut worlds = 0;
        for (ranks, order, timeouts, resets) in [
            (2, vec![0, 0, 0], 2, 1),
            (3, vec![0, 0], 0, 0),
            (3, vec![0], 1, 0),
            (3, vec![0], 0, 1),
            (4, vec![0], 0, 0),
        ] {
            let mut world = World::new(algorithm, ranks, vec![(0..ranks).collect()], &order);
            world.timeouts = timeouts;
            world.resets = resets;
            worlds +=
                explore(world, false).unwrap_or_else(|error| panic!("{algorithm:?} of {ranks}: {error}"));
        }
        assert!(worlds > 300, "{algorithm:?}: only {worlds} worlds were seen");
    }
}

#[test]
fn i15_groups_that_overlap_do_not_disturb_each_other() {
    for algorithm in BarrierAlgorithm::ALL {
        for groups in [vec![vec![0, 1, 2], vec![0, 1]], vec![vec![0, 1], vec![1, 2]]] {
            let mut world = World::new(algorithm, 3, groups, &[0, 1]);
            world.timeouts = 1;
            let seen = explore(world, true).unwrap_or_else(|error| panic!("{algorithm:?}: {error}"));
            assert!(seen > 100, "{algorithm:?}: only {seen} worlds were seen");
        }
    }
}

#[test]
fn i15_random_groups_timeouts_and_resets_end_and_nobody_is_early() {
    let seed = seed();
    let mut dice = Dice(seed);
    for round in 0..150 {
        let algorithm = BarrierAlgorithm::ALL[round % 3];
        let ranks = 2 + dice.below(6) as u32;
        let groups: Vec<Vec<u32>> = (0..4)
            .map(|_| {
                loop {
                    let group: Vec<u32> = (0..ranks).filter(|_| dice.below(3) > 0).collect();
                    if !group.is_empty() {
                        break group;
                    }
                }
            })
            .collect();
        let mut groups = groups;
        groups.sort();
        groups.dedup();
        let order: Vec<usize> = (0..12).map(|_| dice.below(groups.len())).collect();
        let mut world = World::new(algorithm, ranks, groups, &order);
        world.timeouts = 40;
        world.resets = 20;
        wander(world, &mut dice)
            .unwrap_or_else(|error| panic!("{algorithm:?}, seed {seed}, round {round}: {error}"));
    }
}

#[test]
fn the_model_sees_a_rank_that_does_not_wait() {
    let mut world = World::new(BarrierAlgorithm::Dissemination, 3, vec![vec![0, 1, 2]], &[0]);
    world.gullible = Some(1);
    let error = explore(world, false).unwrap_err();
    assert!(error.contains("rank 1 passed"), "{error}");
}

#[test]
fn i15_lists_that_are_no_group_are_errors_by_type_and_never_a_panic() {
    for algorithm in BarrierAlgorithm::ALL {
        let mut barriers = Barriers::new(1, algorithm, layout(4)).unwrap();
        let mut refused = |members: &[u32]| barriers.enter(members).unwrap_err();
        assert_eq!(refused(&[1, 0]), GroupError::Unordered { before: 1, after: 0 });
        assert_eq!(refused(&[0, 1, 1]), GroupError::Duplicate { rank: 1 });
        assert_eq!(refused(&[0, 2]), GroupError::SelfNotInGroup { rank: 1 });
        assert_eq!(refused(&[]), GroupError::SelfNotInGroup { rank: 1 });
        assert_eq!(refused(&[1, 4]), GroupError::OutOfRange { rank: 4, world_size: 4 });
        assert_eq!(refused(&[1, u32::MAX]), GroupError::OutOfRange { rank: u32::MAX, world_size: 4 });
        assert!(matches!(
            Barriers::new(4, algorithm, layout(4)),
            Err(GroupError::OutOfRange { rank: 4, .. })
        ));
        let huge = CellLayout { world_size: 4, groups_max: CELLS_MAX + 1 };
        assert!(matches!(Barriers::new(0, algorithm, huge), Err(GroupError::TooManyGroups { .. })));
    }
}

#[test]
fn i15_more_groups_than_cells_is_an_error_that_changes_nothing() {
    let two = CellLayout { world_size: 5, groups_max: 2 };
    let mut barriers = Barriers::new(1, BarrierAlgorithm::Centralized, two).unwrap();
    barriers.enter(&[0, 1]).unwrap();
    barriers.enter(&[0, 1, 2]).unwrap();
    let before = barriers.clone();
    assert_eq!(barriers.enter(&[0, 1, 3]), Err(GroupError::TooManyGroups { peer: 0, groups_max: 2 }));
    assert!(barriers == before);
    barriers.enter(&[1, 3]).unwrap();
}

#[test]
fn every_schedule_tells_each_rank_once_and_is_as_long_as_promised() {
    for count in 1..40_u32 {
        let members: Vec<u32> = (0..count).map(|at| at * 3 + 1).collect();
        for algorithm in BarrierAlgorithm::ALL {
            let (mut told, mut waited) = (Vec::new(), Vec::new());
            for me in 0..members.len() {
                for step in algorithm.steps(&members, me) {
                    match step {
                        Step::Notify(to) => told.push((members[me], to)),
                        Step::Wait(from) => waited.push((from, members[me])),
                    }
                }
            }
            let notices = told.len() as u32;
            let rounds = if count > 1 { (count - 1).ilog2() + 1 } else { 0 };
            let expected =
                if algorithm == BarrierAlgorithm::Dissemination { count * rounds } else { 2 * (count - 1) };
            assert_eq!(notices, expected, "{algorithm:?} of {count}");
            told.sort_unstable();
            waited.sort_unstable();
            assert_eq!(told, waited, "{algorithm:?} of {count}: who tells is not who is waited for");
            told.dedup();
            assert_eq!(told.len() as u32, notices, "{algorithm:?} of {count}: somebody is told twice");
            assert!(told.iter().all(|(from, to)| from != to));
        }
    }
}

#[test]
fn a_notice_is_of_its_own_group_and_epoch_also_when_the_counter_wraps() {
    for epoch in [1_u64, 2, 0xffff, 0x1_0000, 0x1_0001, 0x7_ffff_ffff] {
        let wanted = Notice::new(0xabc1, epoch);
        for (given, is) in [(epoch - 1, false), (epoch, true), (epoch + 1, true)] {
            assert_eq!(wanted.is_given_by(Notice::new(0xabc1, given).value()), is, "{given} for {epoch}");
            assert!(!wanted.is_given_by(Notice::new(0xabc3, given).value()));
        }
        assert!(!wanted.is_given_by(0));
    }
}

#[test]
fn i14_cells_are_eight_bytes_at_multiples_of_eight_and_none_is_shared() {
    let layout = CellLayout { world_size: 3, groups_max: 5 };
    let mut offsets: Vec<usize> = (0..3)
        .flat_map(|writer| (0..5).map(move |place| layout.offset_bytes(writer, place).unwrap()))
        .collect();
    assert!(offsets.iter().all(|offset| offset % 8 == 0 && offset + 8 <= layout.len_bytes().unwrap()));
    offsets.dedup();
    assert_eq!(offsets.len() * 8, layout.len_bytes().unwrap());
    assert_eq!(layout.offset_bytes(3, 0), None);
    assert_eq!(layout.offset_bytes(0, 5), None);
}

/// Cells in the memory of one process: what a device would do by itself is a store with release.
struct Shared<'a> {
    me: u32,
    layout: CellLayout,
    memory: &'a [Vec<AtomicU64>],
    /// How often the queue says that it is full.
    full: u32,
}

impl Shared<'_> {
    fn at(&self, writer: u32, place: usize) -> usize {
        self.layout.offset_bytes(writer, place).unwrap() / 8
    }
}

impl Cells for Shared<'_> {
    type Error = String;

    fn try_notify(&mut self, rank: u32, place: usize, value: u64) -> Result<bool, String> {
        if self.full > 0 {
            self.full -= 1;
            return Ok(false);
        }
        self.memory[rank as usize][self.at(self.me, place)].store(value, Ordering::Release);
        Ok(true)
    }

    fn load(&self, rank: u32, place: usize) -> u64 {
        self.memory[self.me as usize][self.at(rank, place)].load(Ordering::Acquire)
    }

    fn pause(&mut self, _rank: u32) -> Result<(), String> {
        std::thread::yield_now();
        Ok(())
    }
}

fn memory(layout: CellLayout) -> Vec<Vec<AtomicU64>> {
    let cells = layout.len_bytes().unwrap() / 8;
    (0..layout.world_size).map(|_| (0..cells).map(|_| AtomicU64::new(0)).collect()).collect()
}

#[test]
fn i14_what_was_written_before_a_barrier_is_seen_after_it() {
    const RANKS: u32 = 3;
    const ROUNDS: u64 = 15;
    for algorithm in BarrierAlgorithm::ALL {
        let layout = layout(RANKS);
        let memory = memory(layout);
        let data: Vec<AtomicU64> = (0..RANKS).map(|_| AtomicU64::new(0)).collect();
        let members: Vec<u32> = (0..RANKS).collect();
        std::thread::scope(|scope| {
            for me in 0..RANKS {
                let (memory, data, members) = (&memory, &data, &members);
                scope.spawn(move || {
                    let mut barriers = Barriers::new(me, algorithm, layout).unwrap();
                    let mut cells = Shared { me, layout, memory, full: 0 };
                    for round in 1..=ROUNDS {
                        data[me as usize].store(round, Ordering::Relaxed);
                        let mut pass = || barriers.run(members, Duration::from_secs(60), &mut cells).unwrap();
                        pass();
                        let seen: Vec<u64> = data.iter().map(|cell| cell.load(Ordering::Relaxed)).collect();
                        assert!(seen.iter().all(|&value| value == round), "round {round}: {seen:?}");
                        // Nobody begins the next round before all have looked.
                        pass();
                    }
                });
            }
        });
    }
}

#[test]
fn i15_a_full_queue_delays_a_barrier_and_poisons_nothing() {
    let layout = layout(2);
    let memory = memory(layout);
    let mut cells = [0, 1].map(|me| Shared { me, layout, memory: &memory, full: 0 });
    let mut ranks = [0, 1].map(|me| Barriers::new(me, BarrierAlgorithm::Dissemination, layout).unwrap());
    cells[0].full = u32::MAX;
    let error = ranks[0].run(&[0, 1], Duration::ZERO, &mut cells[0]).unwrap_err();
    assert!(matches!(error, BarrierError::TimedOut { rank: 1, queue_full: true, epoch: 1, .. }), "{error:?}");
    assert!(error.is_retryable());
    cells[0].full = 3;
    let error = ranks[1].run(&[0, 1], Duration::ZERO, &mut cells[1]).unwrap_err();
    assert!(
        matches!(error, BarrierError::TimedOut { rank: 0, queue_full: false, epoch: 1, .. }),
        "{error:?}"
    );
    assert_eq!(ranks[0].run(&[0, 1], Duration::from_secs(60), &mut cells[0]), Ok(1));
    assert_eq!(ranks[1].run(&[0, 1], Duration::ZERO, &mut cells[1]), Ok(1));
}

#[test]
fn i15_a_rank_that_timed_out_goes_on_with_the_same_barrier_and_the_others_pass() {
    for algorithm in BarrierAlgorithm::ALL {
        let layout = layout(3);
        let memory = memory(layout);
        let mut cells = [0, 1, 2].map(|me| Shared { me, layout, memory: &memory, full: 0 });
        let mut ranks = [0, 1, 2].map(|me| Barriers::new(me, algorithm, layout).unwrap());
        // Two of three, many times: nobody passes, nothing is counted twice.
        for _ in 0..5 {
            for me in [0, 1] {
                let error = ranks[me].run(&[0, 1, 2], Duration::ZERO, &mut cells[me]).unwrap_err();
                assert!(matches!(error, BarrierError::TimedOut { epoch: 1, .. }), "{algorithm:?}: {error:?}");
                assert_eq!(ranks[me].unfinished(&[0, 1, 2]), Some(1));
            }
        }
        // Those who are there use a group of their own meanwhile.
        std::thread::scope(|scope| {
            let pairs = ranks.iter_mut().zip(&mut cells).take(2);
            for (rank, cells) in pairs {
                scope.spawn(|| assert_eq!(rank.run(&[0, 1], Duration::from_secs(60), cells), Ok(1)));
            }
        });
        // The third comes: all pass the first.
        std::thread::scope(|scope| {
            for (rank, cells) in ranks.iter_mut().zip(&mut cells) {
                scope.spawn(|| assert_eq!(rank.run(&[0, 1, 2], Duration::from_secs(60), cells), Ok(1)));
            }
        });
        assert!(ranks.iter().all(|rank| rank.unfinished(&[0, 1, 2]).is_none()));
    }
}

#[test]
fn a_group_of_one_passes_at_once_and_counts() {
    let layout = layout(3);
    let memory = memory(layout);
    let mut cells = Shared { me: 2, layout, memory: &memory, full: 0 };
    let mut barriers = Barriers::new(2, BarrierAlgorithm::BinaryTree, layout).unwrap();
    assert_eq!(barriers.run(&[2], Duration::ZERO, &mut cells), Ok(1));
    assert_eq!(barriers.run(&[2], Duration::ZERO, &mut cells), Ok(2));
    assert_eq!(barriers.unfinished(&[2]), None);
}
