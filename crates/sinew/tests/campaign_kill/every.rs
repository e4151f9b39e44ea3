//! The campaigns of [`crate::steps`]: the same operation again and again, whose process dies at each of its instructions.

use crate::common::PATIENCE;
use crate::rounds::{Random, Times, rounds, seed};
use crate::route::{Map, Route};
use crate::steps::{STEPS_MAX, Tier, engine, round};
use crate::survivor::World;
use crate::tracer::Tracee;
use crate::trap;
use sinew::Progress;
use std::collections::HashSet;
use std::sync::atomic::Ordering;

/// A campaign: the same operation again and again, and what became of it.
struct Campaign {
    world: World,
    what: String,
    tier: Tier,
    traced: bool,
    seed: u64,
    killed: u64,
    inside: u64,
    /// Rounds in which the survivor got something, and the first instruction of such a one.
    got: u64,
    first: Option<u64>,
    /// Where victims have ended.
    places: HashSet<u64>,
    detected: Times,
}

impl Campaign {
    /// Fails where processes are to be traced and cannot.
    fn start(what: String, tier: Tier, traced: bool, seed: u64) -> std::io::Result<Self> {
        if traced {
            // A switch between two processes of one processor is faster than waking another processor, and there is one at
            // each step.
            crate::victims::pin_to_one();
        }
        let mut world = World::with("shm", &[("caller", Progress::Caller)], "step partner", |folder, _| {
            engine(folder, PATIENCE, Progress::Caller)
        });
        if traced {
            trial(&mut world)?;
        }
        let (places, detected) = (HashSet::new(), Times::default());
        let (killed, inside, got, first) = (0, 0, 0, None);
        Ok(Self { world, what, tier, traced, seed, killed, inside, got, first, places, detected })
    }

    /// Kills one victim before the instruction of this index.
    fn kill(&mut self, index: u64, route: Route) {
        let round = round(&mut self.world, (&self.what, self.traced), self.tier, route);
        self.world.check(&format!("{} killed at instruction {index}, seed {}", self.what, self.seed));
        self.killed += 1;
        self.inside += u64::from(round.inside);
        self.places.extend(round.inside.then_some(round.place));
        self.got += u64::from(round.whole > 0);
        self.detected.add(round.died);
        if round.whole > 0 {
            self.first = Some(self.first.map_or(index, |first| first.min(index)));
        }
        self.world.survivors[0].talk(1);
    }

    /// Runs the whole operation several times. Answers the most instructions that it took, and a map where victims tell.
    fn explore(&mut self) -> (u64, Option<Map>) {
        let all = Route { steps: STEPS_MAX, ..Route::default() };
        let (mut runs, mut length, mut program) = (Vec::new(), 0, 0);
        for _ in 0..5 {
            let whole = round(&mut self.world, (&self.what, self.traced), self.tier, all);
            assert!(!whole.inside, "the operation does not end");
            let trace = self.world.herd.diaries.of(0).trace.iter().take(whole.steps as usize);
            runs.push(trace.map(|word| word.load(Ordering::Relaxed)).collect());
            length = length.max(whole.steps);
            program = whole.program;
        }
        self.world.settle();
        if self.traced {
            return (length, None);
        }
        let map = Map::new(runs, program);
        (map.trace().len() as u64, Some(map))
    }
}

/// Runs a campaign and prints its row.
pub(crate) fn campaign(side: &str, name: &str, traced: bool) {
    if !traced && !trap::POSSIBLE {
        return crate::common::say("skip the trap flag of this processor is not known");
    }
    let (rounds, seed) = (rounds(), seed());
    let mut random = Random::new(seed);
    let mut all = match Campaign::start(format!("{side}:{name}"), Tier::named(name), traced, seed) {
        Ok(all) => all,
        Err(error) => return crate::common::say(format!("skip ptrace is refused here: {error}")),
    };
    let (length, map) = all.explore();
    // Every index in the long run, but that a tracer takes long; else a stride, whose offset is drawn, so that runs cover all.
    let wanted = match (traced, rounds) {
        (true, _) => rounds,
        (false, 1000..) => length,
        (false, _) => rounds * 6,
    };
    let stride = length.div_ceil(wanted).max(1);
    let offset = random.below(stride);
    let walk = |all: &mut Campaign, wanted: &dyn Fn(&Campaign, u64) -> bool| {
        for index in (offset..=length).step_by(stride as usize) {
            if wanted(all, index) {
                let route =
                    map.as_ref().map_or(Route { steps: index, ..Route::default() }, |map| map.route(index));
                all.kill(index, route);
            }
        }
    };
    walk(&mut all, &|_, _| true);
    // What comes by the clock may have led one past its instruction.
    let missed = |all: &Campaign, index: u64| {
        let place = map.as_ref().and_then(|map| map.trace().get(index as usize));
        place.is_some_and(|place| !all.places.contains(place))
    };
    (0..2).for_each(|_| walk(&mut all, &missed));
    let heap = all.world.heap_per_loss(1);
    all.world.check_sockets();
    let (inside, killed) = (all.inside, all.killed);
    assert!(inside * 4 > killed, "{inside} of {killed} kills hit the operation");
    // A short message for a receiver has left before: nobody learns what became of it.
    let outcome = match all.first {
        Some(index) if side == "send" || all.tier.is_fetched() => {
            format!("whole in {}, from instruction {index} on", all.got)
        }
        _ => "of unknown fate".to_owned(),
    };
    let places = map.map_or_else(String::new, |map| {
        let known: HashSet<u64> = map.trace().iter().copied().collect();
        format!(", at {} of {} addresses", all.places.intersection(&known).count(), known.len())
    });
    crate::tell(format!(
        "{}/shm/{name}/{side}: {length} instructions (each {stride}.), {inside} kills inside{places}, 0 wedged, 0 torn, 0 leaked, message {outcome}, detected in {}, {heap} B of heap a loss, seed {seed}",
        if traced { "trace" } else { "step" },
        all.detected.row(),
    ));
}

/// Whether processes can be traced here.
fn trial(world: &mut World) -> std::io::Result<()> {
    let victim = world.herd.victim(0, "step send:short");
    Tracee::seize(victim.pid)?.kill();
    Ok(())
}
