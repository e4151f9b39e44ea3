//! Three senders on one processor, of which one dies or stands still: the others go on.
//!
//! The survivor has a processor of its own where there are two. Every message of the living comes, once, whole and in order, and
//! the living are not slower than before: they have the processor of the dead one, too.

use crate::common::PATIENCE;
use crate::herd::Victim;
use crate::rounds::{Random, Times, middle, rounds, seed};
use crate::survivor::{MODES, World, assert_lost, assert_lost_for_ever};
use crate::traffic::{FLOW, is_whole};
use crate::victims::{mixed_len, pin, processors};
use sinew::{Endpoint, Match, OpError, Peer, RecvOp};
use std::time::{Duration, Instant};

const SENDERS: usize = 3;
/// How long rates are measured.
const WINDOW: Duration = Duration::from_millis(15);

/// The least share of their rate that the living have afterwards, in the middle of all rounds; it is above 1. Beside the work of others
/// it was seen to fall to a half from one window to the next; who stands still has none.
const GAIN_LEAST: f64 = 0.3;

/// One sender as the survivor sees it.
struct Source {
    victim: Victim,
    peer: Peer,
    /// The receive of its next message: one for each, as one from anybody may have to wait for a message that is being
    /// fetched.
    next: Option<RecvOp>,
    expected: u64,
    /// Messages in the present window.
    count: u64,
}

fn meet(world: &mut World, which: usize, slot: usize, cpu: usize) -> Source {
    let victim = world.herd.victim(slot, &format!("mix {slot} {cpu}"));
    let survivor = &world.survivors[which];
    let peer = survivor.meet(&victim, world.lane);
    Source { victim, peer, next: None, expected: 0, count: 0 }
}

impl Source {
    fn post(&mut self, at: &Endpoint) {
        let from = Match::tag(FLOW).from(self.peer.source());
        self.next.get_or_insert_with(|| at.post_recv(from, vec![0; 150_000]).expect("the endpoint lives"));
    }

    /// Takes its next message if that is there, which must be whole and in order. `who` is its number.
    fn take(&mut self, who: u64) -> Result<bool, OpError> {
        let Some(done) = self.next.as_mut().and_then(RecvOp::try_wait) else { return Ok(false) };
        self.next = None;
        let got = done.map_err(OpError::from)?;
        let number = self.expected;
        assert_eq!(got.buf.len(), mixed_len(number), "message {number} of sender {who}");
        assert!(is_whole(&got.buf, number * 4 + who), "message {number} of sender {who} is torn");
        self.expected += 1;
        self.count += 1;
        Ok(true)
    }
}

/// Receives from all for a while, and until `enough`; messages of each in a second. `dead` may be lost.
fn drink(
    at: &Endpoint,
    sources: &mut [Source],
    dead: Option<usize>,
    enough: impl Fn(&[Source]) -> bool,
) -> Vec<f64> {
    for source in sources.iter_mut() {
        source.count = 0;
    }
    let start = Instant::now();
    while start.elapsed() < WINDOW || !enough(sources) {
        assert!(start.elapsed() < PATIENCE, "those who live do not go on");
        for (who, source) in sources.iter_mut().enumerate() {
            source.post(at);
            match source.take(who as u64) {
                Ok(_) => {}
                Err(OpError::PeerLost { .. }) if dead == Some(who) => {}
                Err(error) => panic!("a receive from sender {who}, which lives: {error}"),
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    sources.iter().map(|source| source.count as f64 / seconds).collect()
}

/// Runs the campaign and prints its row.
pub(crate) fn campaign(lane: &'static str) {
    let (rounds, seed) = (rounds(), seed());
    let mut random = Random::new(seed);
    let cpus = processors();
    pin(*cpus.last().expect("one"));
    let mut world = World::new(lane, &MODES);
    let (mut killed, mut stopped, mut lost) = (0, 0, Times::default());
    let (mut before, mut after, mut gain) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..rounds + 3 {
        if number == 3 {
            world.settle();
        }
        let which = number as usize % MODES.len();
        let mut sources: Vec<Source> =
            (0..SENDERS).map(|slot| meet(&mut world, which, slot, cpus[0])).collect();
        let all = |sources: &[Source]| sources.iter().all(|source| source.count >= 12);
        let at = world.survivors[which].a.clone();
        let rates = drink(&at, &mut sources, None, all);
        let unlucky = random.below(SENDERS as u64) as usize;
        let living = |sources: &[Source]| {
            sources.iter().enumerate().all(|(at, source)| at == unlucky || source.count >= 12)
        };
        let stops = random.below(2) == 1;
        std::thread::sleep(Duration::from_micros(random.below(500)));
        sources[unlucky].victim.signal(if stops { libc::SIGSTOP } else { libc::SIGKILL });
        let dead = (!stops).then_some(unlucky);
        let then = drink(&at, &mut sources, dead, living);
        let of_living = |rates: &[f64]| {
            rates.iter().enumerate().filter(|(at, _)| *at != unlucky).map(|(_, rate)| rate).sum::<f64>() / 2.0
        };
        before.push(of_living(&rates));
        after.push(of_living(&then));
        gain.push(of_living(&then) / of_living(&rates));
        if stops {
            stopped += 1;
            sources[unlucky].victim.signal(libc::SIGCONT);
            drink(&at, &mut sources, None, all);
        }
        killed += 1;
        // At last all die; whatever came of them before came whole.
        for (who, mut source) in sources.into_iter().enumerate() {
            let since = Instant::now();
            source.victim.signal(libc::SIGKILL);
            let error = loop {
                source.post(&at);
                match source.take(who as u64) {
                    Ok(_) => assert!(since.elapsed() < PATIENCE, "the death of sender {who} is not noticed"),
                    Err(error) => break error,
                }
            };
            assert_lost("a receive", &Err::<(), _>(error));
            lost.add(since.elapsed());
            assert_lost_for_ever(&source.peer);
        }
        world.check(&format!("round {number} of three/{lane}, seed {seed}"));
    }
    let heap = world.heap_per_loss(SENDERS);
    world.check_sockets();
    let gained = middle(&mut gain);
    crate::tell(format!(
        "three/{lane}: {rounds} rounds of three senders on one processor ({} for the survivor), {killed} killed, {stopped} stopped and continued before, 0 wedged, 0 torn, 0 leaked, each of the others at {:.0} messages/s before and {:.0} after ({gained:.2} times), detected in {}, {heap} B of heap a loss, seed {seed}",
        if cpus.len() > 1 { "another" } else { "the same" },
        middle(&mut before),
        middle(&mut after),
        lost.row(),
    ));
    assert!(rounds < 20 || gained > GAIN_LEAST, "the living have {gained:.2} of their rate");
}
