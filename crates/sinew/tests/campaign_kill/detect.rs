//! From the death of a peer until every operation of the survivor towards it has ended, as a distribution.
//!
//! One campaign for each lane and each way of making progress. The victim stands still before it dies, so that all operations
//! wait; nothing is measured but the kill and the ends.

use crate::common::PATIENCE;
use crate::rounds::{Times, rounds, seed, until};
use crate::survivor::{MODES, World, assert_lost, doze};
use crate::traffic::LATE;
use sinew::{Match, OpError, Progress};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Receives from the victim that wait; with them wait one long send and one that is from the pool.
const RECEIVES: usize = 8;

/// Runs a campaign and prints its row.
pub(crate) fn campaign(lane: &'static str, mode: &str) {
    let (rounds, seed) = (rounds(), seed());
    let chosen: Vec<_> = MODES.into_iter().filter(|(name, _)| *name == mode).collect();
    let mut world = World::new(lane, &chosen);
    let (mut took, mut resident) = (Times::default(), 0);
    for number in 0..rounds + 3 {
        if number == 3 {
            world.settle();
            took = Times::default();
        }
        let (time, bytes) = round(&mut world);
        took.add(time);
        resident = resident.max(bytes);
        world.check(&format!("round {number} of detect/{lane}/{mode}"));
    }
    let heap = world.heap_per_loss(1);
    world.check_sockets();
    crate::tell(format!(
        "detect/{lane}/{mode}: {rounds} deaths, all {} operations ended in {}, victims of {:.1} MiB, 0 leaked, {heap} B of heap a loss, seed {seed}",
        RECEIVES + 2,
        took.row(),
        resident as f64 / f64::from(1 << 20),
    ));
}

/// One death; how long it took, and how much memory the victim had.
fn round(world: &mut World) -> (Duration, u64) {
    let victim = world.herd.victim(0, "sit");
    let survivor = &world.survivors[0];
    let peer = survivor.meet(&victim, world.lane);
    peer.flush().expect("it lives");
    let (ended, ends) = mpsc::channel::<(Result<(), OpError>, Instant)>();
    let mut waiting = Vec::new();
    for _ in 0..RECEIVES {
        let receive = survivor.a.post_recv(Match::tag(LATE).from(peer.source()), vec![0; 8]).unwrap();
        let ended = ended.clone();
        waiting.push(receive.on_complete(move |result| {
            let _ = ended.send((result.map(|_| ()).map_err(OpError::from), Instant::now()));
        }));
    }
    let pooled = peer.alloc(1 << 20).expect("a buffer");
    for buf in [vec![0; 4 << 20].into(), pooled] {
        let send = peer.post_send(1, buf).unwrap();
        let ended = ended.clone();
        waiting.push(send.on_complete(move |result| {
            let _ = ended.send((result.map(|_| ()).map_err(OpError::from), Instant::now()));
        }));
    }
    victim.signal(libc::SIGSTOP);
    until(|| crate::herd::is_stopped(victim.pid), || "the victim stands still".to_owned());
    assert_eq!(survivor.engine.counters().operations, RECEIVES + 2, "all of them wait");
    let resident = crate::herd::resident(victim.pid);
    let at = Instant::now();
    victim.signal(libc::SIGKILL);
    let mut last = at;
    for _ in 0..waiting.len() {
        let end = loop {
            match ends.try_recv() {
                Ok(end) => break end,
                Err(_) if at.elapsed() > PATIENCE => panic!("an operation towards the dead one does not end"),
                Err(_) => match survivor.progress {
                    Progress::Event => doze(&survivor.engine),
                    Progress::Caller => drop(survivor.engine.progress()),
                    _ => {
                        if let Ok(end) = ends.recv_timeout(PATIENCE) {
                            break end;
                        }
                    }
                },
            }
        };
        assert_lost("an operation", &end.0);
        last = last.max(end.1);
    }
    drop(waiting);
    assert_lost("a flush", &peer.flush());
    (last.duration_since(at), resident)
}
