//! Campaigns of handshakes that were recorded and come again: as they were, with their parts swapped, repeated, reflected, mixed
//! with another's, and cut at every byte.

use crate::campaign::{Luck, rounds, seed};
use crate::common::{engine_with, options};
use crate::survivor::Survivor;
use crate::wire::{RECORD, Recording, Wire, knock, way_in};
use sinew::{Engine, Progress, Security};
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

const SECRET: &str = "the secret of these engines";

fn engine(lane: &str, secret: bool, progress: Progress) -> Engine {
    if !secret {
        return engine_with(lane, progress, options());
    }
    let builder = Engine::builder().domain("faults").transports([lane]).progress(progress).options(options());
    builder.security(Security::Secret(SECRET.into())).build().expect("an engine")
}

/// Says `bytes` to the survivor's listener, hangs up, and counts what comes back.
fn say(way: &str, bytes: &[u8]) -> usize {
    // A full backlog, or a listener that sheds load.
    let Ok(mut stream) = knock(way) else { return 0 };
    if stream.write_all(bytes).is_err() {
        return 0;
    }
    stream.finish_writing();
    let mut heard = Vec::new();
    match stream.read_to_end(&mut heard) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the survivor keeps a stranger that has hung up")
        }
        _ => heard.len(),
    }
}

/// What two recorded dialers said, rearranged.
fn rearranged(a: &Recording, b: &Recording) -> Vec<(&'static str, Vec<u8>)> {
    let (first, third) = (&a.out[..RECORD], &a.out[RECORD..2 * RECORD]);
    let second = &a.back[..RECORD];
    let rest = &a.out[2 * RECORD..];
    let other = (&b.out[..RECORD], &b.out[RECORD..2 * RECORD]);
    vec![
        ("as it was", a.out.clone()),
        ("swapped", [third, first].concat()),
        ("first twice", [first, first].concat()),
        ("first eight times", first.repeat(8)),
        ("third alone", third.to_vec()),
        ("third twice", [first, third, third].concat()),
        ("reflected", second.to_vec()),
        ("answered by the answer", [first, second].concat()),
        ("the answer, then the rest", [second, third, rest].concat()),
        ("another's third", [first, other.1, rest].concat()),
        ("another's first", [other.0, third, rest].concat()),
        ("frames without records", rest.to_vec()),
        ("frames after the first", [first, rest].concat()),
        ("a byte missing", a.out[1..].to_vec()),
        ("a byte more", [&[0][..], &a.out].concat()),
        ("halves swapped", [&first[RECORD / 2..], &first[..RECORD / 2]].concat()),
    ]
}

fn campaign(lane: &str, secret: bool) {
    let (rounds, seed) = (rounds(), seed());
    let mut luck = Luck::new(seed);
    let thread = Progress::Thread { cpu: None };
    let survivor = Survivor::of(|| engine(lane, secret, thread));
    let way = way_in(&survivor.address(), lane);
    let record = || {
        let wire = Wire::new(lane, &way, engine(lane, secret, Progress::Caller));
        let recording = wire.recording.clone();
        wire.hang_up();
        recording
    };
    let (a, b) = (record(), record());
    assert!(a.out.len() > 2 * RECORD && a.back.len() > RECORD, "a whole handshake and some frames");
    let before = survivor.engine.counters();
    let (mut said, mut answers) = (0u64, 0);
    let cuts: Vec<usize> = (0..=2 * RECORD).collect();
    let each = cuts.len().div_ceil(rounds.min(50) as usize);
    let mut cuts = cuts.into_iter().cycle();
    let variants = rearranged(&a, &b);
    for round in 0..rounds {
        // All of the arrangements, as in the other rounds, and some of the cuts.
        for (what, bytes) in &variants {
            let heard = say(&way, bytes);
            assert!(heard <= 2 * RECORD, "{what}: {heard} bytes to a stranger");
            (said, answers) = (said + 1, answers + u64::from(heard > 0));
        }
        for cut in cuts.by_ref().take(each) {
            say(&way, &a.out[..cut]);
            said += 1;
        }
        for _ in 0..8 {
            let mut bytes = a.out.clone();
            let at = luck.below(2 * RECORD);
            bytes[at] ^= 1 << luck.below(8);
            say(&way, &bytes);
            said += 1;
        }
        survivor.goes_on();
        assert_eq!(
            survivor.engine.counters().sessions_lost,
            before.sessions_lost,
            "round {round}: nobody had got in"
        );
    }
    let strangers = survivor.engine.counters().strangers - before.strangers;
    // Somebody who may comes in all the same.
    let friend = engine(lane, secret, Progress::Caller);
    let endpoint = friend.endpoint("late-friend").expect("an endpoint");
    let to = endpoint.connect(survivor.address()).expect("a way in");
    to.send(1, &crate::peer::message(1, 8)).expect("a word");
    let _ = friend.close(Duration::from_secs(1));
    drop((to, endpoint, friend));
    let tally = survivor.finish();
    println!(
        "campaign hostile/{lane}/handshakes{}: {rounds} rounds, {said} connections, {} arrangements, cuts at each of {} bytes, \
         {answers} answers, {strangers} turned away, 0 let in, {} messages of the honest peer verified, 0 wrong, seed {seed}",
        if secret { "/secret" } else { "" },
        variants.len(),
        2 * RECORD,
        tally.honest.load(Ordering::Relaxed),
    );
    assert!(strangers > said / 2, "{strangers} of {said} were counted as strangers");
    assert!(answers > 0, "no recorded first record was even answered");
}

#[test]
fn replayed_and_rearranged_handshakes_let_nobody_in_over_tcp() {
    campaign("tcp", false);
}

#[test]
fn replayed_and_rearranged_handshakes_let_nobody_in_over_uds() {
    campaign("uds", false);
}

#[test]
fn replayed_and_rearranged_handshakes_let_nobody_in_over_tcp_with_a_domain_secret() {
    campaign("tcp", true);
}

#[test]
fn replayed_and_rearranged_handshakes_let_nobody_in_over_uds_with_a_domain_secret() {
    campaign("uds", true);
}
