//! Campaigns of pushes, the bytes that follow an envelope unasked: with every field at its extremes, without an envelope, twice,
//! after their message was taken back; and whole ones, which must come.

use crate::campaign::rounds;
use crate::cases::Case;
use crate::common::{engine_with, options};
use crate::frames::{Count, FETCHED, PREY, say, stripes};
use crate::survivor::Survivor;
use crate::wire::{Wire, way_in};
use sinew::Progress;
use sinew::frame::stream::encode;
use sinew::frame::{Flags, Header, Kind};
use std::sync::atomic::Ordering;

const PIECE: u64 = 4000;

fn frame(header: Header, body: Vec<u8>) -> Case {
    Case { header, body, claim: None }
}

/// Announces a message of `len` bytes, of which `pushed` are to follow.
fn envelope(operation: u64, len: u64, pushed: u64) -> Case {
    let header = Header { kind: Kind::ENVELOPE, flags: Flags(0), dst: PREY, src: 1, tag: 3 };
    frame(header, [operation, len, pushed].into_iter().flat_map(u64::to_le_bytes).collect())
}

/// A part of the message whose content is whole when each byte is its place.
fn push(operation: u64, offset: u64, len: u64) -> Case {
    let body = (0..len).map(|at| offset.wrapping_add(at) as u8).collect();
    frame(Header::push(operation, offset), body)
}

fn taken_back(operation: u64) -> Case {
    frame(Header::control(Kind::WITHDRAW, operation), Vec::new())
}

/// What is said of message `operation`, one list after the other; each ends with taking the message back.
fn scripts(operation: u64) -> Vec<Vec<Case>> {
    let len = FETCHED;
    let mut all = Vec::new();
    let announced = [0, 1, len - 1, len, len + 1, 1 << 20, 1 << 63, u64::MAX];
    let offsets = [0, 1, len - PIECE, len - 1, len, len + 1, 1 << 63, u64::MAX];
    for pushed in announced {
        for offset in offsets {
            for part in [0, 1, PIECE] {
                let part = push(operation, offset, part);
                all.push(vec![envelope(operation, len, pushed), part.clone(), part]);
            }
        }
        all.push(vec![envelope(operation, 0, pushed), push(operation, 0, 0), push(operation, 0, 1)]);
        // Longer than any receive there.
        all.push(vec![envelope(operation, 1 << 40, pushed), push(operation, 0, PIECE)]);
    }
    // Without an envelope, and of others.
    for other in [operation, 0, operation ^ 1, operation | 1 << 63, u64::MAX] {
        all.push(vec![push(other, 0, PIECE)]);
        all.push(vec![envelope(operation, len, len), push(other, 0, PIECE), push(operation, PIECE, PIECE)]);
    }
    // Overlapping, in the wrong order, with parts of it as if they had been asked for.
    all.push(vec![
        envelope(operation, len, len),
        push(operation, 0, PIECE),
        push(operation, PIECE / 2, PIECE),
    ]);
    all.push(vec![
        envelope(operation, len, len),
        push(operation, len - PIECE, PIECE),
        push(operation, 0, PIECE),
    ]);
    for receiver in [operation, 1, u64::MAX] {
        let data = frame(Header::data(receiver, 0), vec![0xaa; 4000]);
        all.push(vec![envelope(operation, len, PIECE), data.clone(), push(operation, 0, PIECE), data]);
    }
    // After it was taken back, whole or in part, and announced anew.
    let half = [envelope(operation, len, len), push(operation, 0, PIECE), taken_back(operation)];
    all.push([&half[..], &[push(operation, PIECE, PIECE)]].concat());
    all.push([&half[..], &half[..2], &[push(operation, PIECE, PIECE)]].concat());
    all.push(vec![envelope(operation, len, len), envelope(operation, len, 8), push(operation, 0, PIECE)]);
    let end = taken_back(operation);
    all.iter_mut().for_each(|script| script.push(end.clone()));
    all
}

/// A whole message of which `pushed` bytes go unasked. Whether it was done without a question; `None`: the connection is over.
fn whole(wire: &mut Wire, operation: u64, pushed: u64) -> Option<bool> {
    let parts = (0..pushed.div_ceil(PIECE)).map(|part| {
        let at = part * PIECE;
        push(operation, at, PIECE.min(pushed - at))
    });
    let mut bytes = Vec::new();
    for Case { header, body, .. } in std::iter::once(envelope(operation, FETCHED, pushed)).chain(parts) {
        bytes.extend(encode(&header, body.len() as u32));
        bytes.extend(body);
    }
    wire.write(&bytes);
    let mut unasked = true;
    loop {
        if wire.is_done(operation)? {
            return Some(unasked);
        }
        unasked = false;
        // It says again what it wants, when the receive that has said it gave up.
        let fetch = wire.fetched()?;
        stripes(wire, fetch);
    }
}

fn pushes_over_a_stream(lane: &str) {
    let rounds = rounds();
    let survivor = Survivor::new(lane);
    let way = way_in(&survivor.address(), lane);
    let all = scripts(0).len();
    let each = all.div_ceil(rounds.min(50) as usize);
    let connect = |count: &mut Count| {
        count.connects += 1;
        Wire::new(lane, &way, engine_with(lane, Progress::Caller, options()))
    };
    let (mut count, mut wire) = (Count::default(), None);
    let (mut said, mut operation, mut done, mut unasked) = (0, 1 << 32, 0u64, 0u64);
    for _ in 0..rounds {
        for _ in 0..each {
            operation += 2;
            let script = scripts(operation).swap_remove(said % all);
            said += 1;
            let mut there = wire.take().or_else(|| Some(connect(&mut count)));
            for case in &script {
                there = there.and_then(|wire| say(wire, case, &mut count));
            }
            wire = there;
        }
        let mut there = connect(&mut count);
        for pushed in [FETCHED, FETCHED / 2, 1] {
            operation += 2;
            match whole(&mut there, operation, pushed) {
                Some(at_once) => (done, unasked) = (done + 1, unasked + u64::from(at_once)),
                None => break,
            }
        }
        there.hang_up();
        survivor.goes_on();
    }
    let _ = wire.map(Wire::hang_up);
    let lost = survivor.sessions_lost();
    let tally = survivor.finish();
    let came = tally.whole.load(Ordering::Relaxed);
    println!(
        "campaign hostile/{lane}/pushes: {rounds} rounds, {said} scripts of {all}, {} frames answered, {} ended, {done} whole \
         messages done ({unasked} without a question), {came} came whole, {} connects, {lost} sessions lost, {} messages of the \
         honest peer verified, 0 wrong",
        count.answered,
        count.ended,
        count.connects,
        tally.honest.load(Ordering::Relaxed),
    );
    assert!(said >= all && done * 2 > rounds, "every script was said, and messages were taken");
    assert!(unasked > 0 && came > 0, "a pushed message came whole");
}

/// Receives that give up soon, of any source, and a peer that announces messages and sends nothing of them.
fn announced_and_never_sent(lane: &str) {
    let survivor = Survivor::new(lane);
    let way = way_in(&survivor.address(), lane);
    let connect = || Wire::new(lane, &way, engine_with(lane, Progress::Caller, options()));
    let (mut silent, mut honest, mut count) = (Some(connect()), connect(), Count::default());
    for operation in 1..=6 {
        silent = silent.and_then(|wire| say(wire, &envelope(2 * operation, FETCHED, 0), &mut count));
    }
    assert!(silent.is_some(), "announcing messages is no offence");
    for operation in 1..=3 {
        assert!(whole(&mut honest, 2 * operation, FETCHED / 2).is_some(), "an honest message came");
    }
    // One number twice is one.
    silent = silent.and_then(|wire| say(wire, &envelope(2, FETCHED, 0), &mut count));
    assert!(silent.is_none(), "a message was announced twice");
    honest.hang_up();
    survivor.finish();
}

#[test]
fn messages_that_are_announced_and_never_sent_keep_no_other_from_its_receive() {
    announced_and_never_sent("tcp");
    announced_and_never_sent("uds");
}

#[test]
fn pushes_with_every_field_at_its_extremes_over_tcp() {
    pushes_over_a_stream("tcp");
}

#[test]
fn pushes_with_every_field_at_its_extremes_over_uds() {
    pushes_over_a_stream("uds");
}
