//! How to come to one instruction of an operation without a trap at each before it.
//!
//! Used by [`crate::steps`]. Some runs of the whole operation are recorded first. A later victim runs freely to an instruction that each of them
//! passed equally often, and in single steps from there: what is passed while one side waits for the other differs from run to
//! run.

use std::collections::{HashMap, HashSet};

/// The way to one instruction.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    /// An address where the steps begin, or 0: they begin at the beginning.
    pub(crate) at: u64,
    /// The pass of it with which they do.
    pub(crate) passes: u64,
    /// Steps from there.
    pub(crate) steps: u64,
}

/// What an operation goes through.
pub(crate) struct Map {
    /// The addresses of the run of middle length: now and then one meets something that comes by the clock.
    trace: Vec<u64>,
    /// For each of them, the pass of it, where all runs have equally many and a breakpoint is possible.
    passes: Vec<Option<u64>>,
}

/// A pass costs two traps; where there are more, steps cost less.
const PASSES_MAX: u64 = 64;
/// Breakpoints are for the code of the program itself, not for that of libraries, which lie farther away.
const PROGRAM: u64 = 1 << 30;

impl Map {
    /// Of runs that were recorded in processes with the same addresses; `program` is one of its own code.
    pub(crate) fn new(mut runs: Vec<Vec<u64>>, program: u64) -> Self {
        let counts: Vec<HashMap<u64, u64>> = runs.iter().map(|run| count(run)).collect();
        runs.sort_by_key(Vec::len);
        let trace = runs.swap_remove(runs.len() / 2);
        let mut seen: HashMap<u64, u64> = HashMap::new();
        let passes = trace.iter().map(|address| {
            let passes = seen.entry(*address).or_default();
            *passes += 1;
            let all = counts.iter().map(|count| count.get(address).copied().unwrap_or(0));
            let same = all.collect::<HashSet<_>>().len() == 1;
            let fits = same && *passes <= PASSES_MAX && address.abs_diff(program) < PROGRAM;
            fits.then_some(*passes)
        });
        Self { passes: passes.collect(), trace }
    }

    /// The addresses of its instructions, in order.
    pub(crate) fn trace(&self) -> &[u64] {
        &self.trace
    }

    /// The way to the instruction of this index with the fewest traps.
    pub(crate) fn route(&self, index: u64) -> Route {
        let whole = Route { at: 0, passes: 0, steps: index };
        let from = |begin: u64| {
            let passes = (*self.passes.get(begin as usize)?)?;
            Some(Route { at: self.trace[begin as usize], passes, steps: index - begin })
        };
        let before = || (0..=index).rev();
        let near = before().take_while(|begin| index - begin < PASSES_MAX * 2).filter_map(from);
        let near = near.min_by_key(Route::traps);
        // Behind a long stretch of waiting the last place before it is the best there is.
        let far = || before().find_map(from);
        near.or_else(far).filter(|route| route.traps() < index).unwrap_or(whole)
    }
}

impl Route {
    const fn traps(&self) -> u64 {
        self.passes * 2 + self.steps
    }
}

fn count(run: &[u64]) -> HashMap<u64, u64> {
    let mut counts = HashMap::new();
    for address in run {
        *counts.entry(*address).or_default() += 1;
    }
    counts
}

#[test]
fn a_route_leads_from_what_all_runs_pass_equally_often() {
    // 7 and 8 are passed while one side waits; 9 is of a library.
    let program = 1 << 40;
    let run = |waits: usize| {
        let waiting = [7, 8].repeat(waits);
        [&[1, 2, 1, 3][..], &waiting, &[4, 1 << 35, 1]]
            .concat()
            .iter()
            .map(|at| program + at)
            .collect::<Vec<u64>>()
    };
    let map = Map::new(vec![run(1), run(200), run(100)], program);
    assert_eq!(map.trace(), run(100));
    let at = |index| map.route(index);
    assert_eq!(at(0), Route { at: 0, passes: 0, steps: 0 });
    assert_eq!(at(1), Route { at: 0, passes: 0, steps: 1 }, "no dearer than a breakpoint");
    assert_eq!(at(3), Route { at: program + 3, passes: 1, steps: 0 });
    assert_eq!(at(100), Route { at: program + 3, passes: 1, steps: 97 });
    assert_eq!(at(203), Route { at: program + 3, passes: 1, steps: 200 }, "waiting has no place of its own");
    assert_eq!(at(204), Route { at: program + 4, passes: 1, steps: 0 });
    assert_eq!(at(205), Route { at: program + 4, passes: 1, steps: 1 });
    assert_eq!(at(206), Route { at: program + 4, passes: 1, steps: 2 }, "a third pass is dearer");
}
