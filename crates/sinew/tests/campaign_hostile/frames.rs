//! Campaigns of frames with every field at its extremes: over streams behind a proper handshake, and put into slots of a ring.

use crate::campaign::rounds;
use crate::cases::{self, Case};
use crate::common::{PATIENCE, engine_with, options};
use crate::peer::{Job, Report, What};
use crate::survivor::Survivor;
use crate::wire::{Fate, Wire, way_in};
use sinew::Progress;
use sinew::frame::stream::encode;
use sinew::frame::{Flags, Header, Kind};
use std::sync::atomic::Ordering;

/// The number of the endpoint `prey`: the survivor's second.
pub(crate) const PREY: u32 = 2;

#[derive(Default)]
pub(crate) struct Count {
    pub(crate) connects: u64,
    pub(crate) answered: u64,
    pub(crate) ended: u64,
    pub(crate) goodbyes: u64,
}

/// Says a case and sees what comes of it; `None` for the connection when it is over.
pub(crate) fn say(mut wire: Wire, case: &Case, count: &mut Count) -> Option<Wire> {
    let len = case.claim.unwrap_or(case.body.len() as u32);
    let mut bytes = encode(&case.header, len).to_vec();
    bytes.extend_from_slice(&case.body);
    wire.write(&bytes);
    let padded = case.header.flags.0 & 0x20 != 0;
    if (len as usize != case.body.len() || padded) && len != 0 {
        // What is said next would be taken for the rest of the body.
        count.ended += 1;
        wire.hang_up();
        return None;
    }
    match wire.probe() {
        Fate::Answered => {
            count.answered += 1;
            Some(wire)
        }
        Fate::Ended => {
            count.ended += 1;
            count.goodbyes += u64::from(wire.goodbye);
            None
        }
    }
}

fn over_a_stream(lane: &str) {
    let rounds = rounds();
    let survivor = Survivor::new(lane);
    let way = way_in(&survivor.address(), lane);
    let all = cases::all(PREY, 1);
    // All of them in fifty rounds, and again from the start when there are more.
    let each = all.len().div_ceil(rounds.min(50) as usize);
    let mut cases = all.iter().cycle();
    let (mut count, mut wire) = (Count::default(), None);
    for _ in 0..rounds {
        for case in cases.by_ref().take(each) {
            let there = wire.take().unwrap_or_else(|| {
                count.connects += 1;
                Wire::new(lane, &way, engine_with(lane, Progress::Caller, options()))
            });
            wire = say(there, case, &mut count);
        }
        survivor.goes_on();
    }
    // The last one hangs up.
    let _ = wire.map(Wire::hang_up);
    let lost = survivor.sessions_lost();
    let tally = survivor.finish();
    let said = count.answered + count.ended;
    println!(
        "campaign hostile/{lane}/frames: {rounds} rounds, {said} frames of {} cases, {} kinds, {} answered, {} ended \
         ({} with a goodbye), {} connects, {lost} sessions lost, {} messages of the honest peer verified, 0 wrong",
        all.len(),
        cases::kinds().len(),
        count.answered,
        count.ended,
        count.goodbyes,
        count.connects,
        tally.honest.load(Ordering::Relaxed),
    );
    assert!(said >= all.len() as u64, "every case was said");
    assert!(count.answered > 500 && count.goodbyes > 50, "cases were answered, and refused with a reason");
}

/// Of a message that the survivor fetches in pieces.
pub(crate) const FETCHED: u64 = 100_000;

/// Announces message `number` and waits for its fetch.
fn announce(lane: &str, way: &str, number: u64, count: &mut Count) -> (Wire, cases::Fetch) {
    loop {
        count.connects += 1;
        let mut wire = Wire::new(lane, way, engine_with(lane, Progress::Caller, options()));
        let header = Header { kind: Kind::ENVELOPE, flags: Flags(0), dst: PREY, src: 1, tag: 3 };
        let mut bytes = encode(&header, 16).to_vec();
        bytes.extend([number, FETCHED].into_iter().flat_map(u64::to_le_bytes));
        wire.write(&bytes);
        if let Some(fetch) = wire.fetched() {
            return (wire, fetch);
        }
    }
}

/// All of a message in stripes, the last one first, each twice, with a foreign one between them.
pub(crate) fn stripes(wire: &mut Wire, fetch: cases::Fetch) {
    let content: Vec<u8> = (0..FETCHED).map(|at| at as u8).collect();
    let mut bytes = Vec::new();
    for part in (0..FETCHED / 4000).rev() {
        let at = part * 4000;
        let body = &content[at as usize..][..4000];
        for turn in [fetch.turn, fetch.turn.wrapping_add(1), fetch.turn] {
            bytes.extend(encode(&Header::stripe(fetch.operation, turn, at), 4000));
            bytes.extend(body);
        }
    }
    wire.write(&bytes);
}

/// What comes for a fetch that is under way: fragments with all fields at their extremes, then all of the message.
fn fragments_over_a_stream(lane: &str) {
    let rounds = rounds();
    let survivor = Survivor::new(lane);
    let way = way_in(&survivor.address(), lane);
    let mut count = Count::default();
    let (wire, fetch) = announce(lane, &way, 0, &mut count);
    let (mut there, all) = (Some((wire, fetch)), cases::fragments(fetch, FETCHED).len());
    let each = all.div_ceil(rounds.min(50) as usize);
    let (mut at, mut whole) = (0, 0u64);
    for round in 1..=rounds {
        for _ in 0..each {
            let (mut wire, mut fetch) =
                there.take().unwrap_or_else(|| announce(lane, &way, round, &mut count));
            // A receive that gives up leaves the message to the next one, which fetches it anew.
            if let Some(next) = wire.fetched() {
                fetch = next;
            }
            let case = cases::fragments(fetch, FETCHED).swap_remove(at % all);
            at += 1;
            there = say(wire, &case, &mut count).map(|wire| (wire, fetch));
        }
        let (mut wire, mut fetch) = announce(lane, &way, round, &mut count);
        // Until one of its fetches lasts long enough.
        loop {
            stripes(&mut wire, fetch);
            match wire.is_done(round) {
                Some(true) => break whole += 1,
                Some(false) => fetch = wire.fetched().unwrap_or(fetch),
                None => break,
            }
        }
        wire.hang_up();
        survivor.goes_on();
    }
    let _ = there.map(|(wire, _)| wire.hang_up());
    let lost = survivor.sessions_lost();
    let tally = survivor.finish();
    println!(
        "campaign hostile/{lane}/fragments: {rounds} rounds, {at} fragments of {all} cases, {} answered, {} ended, \
         {whole} messages in stripes were done, {} came whole, {} connects, {lost} sessions lost, {} messages of the honest \
         peer verified, 0 wrong",
        count.answered,
        count.ended,
        tally.whole.load(Ordering::Relaxed),
        count.connects,
        tally.honest.load(Ordering::Relaxed),
    );
    assert!(at >= all && whole * 2 > rounds, "every case was said, and stripes were taken");
    assert!(tally.whole.load(Ordering::Relaxed) > 0, "a message in stripes came whole");
}

#[test]
fn fragments_with_every_field_at_its_extremes_over_tcp() {
    fragments_over_a_stream("tcp");
}

#[test]
fn fragments_with_every_field_at_its_extremes_over_uds() {
    fragments_over_a_stream("uds");
}

#[test]
fn frames_with_every_field_at_its_extremes_over_tcp() {
    over_a_stream("tcp");
}

#[test]
fn frames_with_every_field_at_its_extremes_over_uds() {
    over_a_stream("uds");
}

#[test]
fn frames_with_every_field_at_its_extremes_over_shm() {
    let rounds = rounds();
    let survivor = Survivor::new("shm");
    let all = crate::forge::all().len() as u64;
    let parts = rounds.min(50);
    let mut hostile = crate::scribble::start(&survivor);
    let mut total = Report::default();
    for round in 0..rounds {
        let (part, parts) = ((round % parts) as usize, parts as usize);
        let job = Job { what: What::Forge, slots: 256, seed: round, part, parts, values: 0, millis: 0 };
        hostile.tell(&job.to_string());
        let report: Report = hostile.line_within(PATIENCE * 6).parse().expect("a report");
        survivor.goes_on();
        total.add(&report);
    }
    hostile.finish();
    let lost = survivor.sessions_lost();
    let tally = survivor.finish();
    println!(
        "campaign hostile/shm/frames: {rounds} rounds, {} frames of {all} cases, {} kinds, {} ended ({} for a breach), \
         {} went silent, {} connects, {lost} sessions lost, {} messages of the honest peer verified, 0 wrong",
        total.scribbles,
        cases::kinds().len(),
        total.ended,
        total.refused,
        total.stalled,
        total.connects,
        tally.honest.load(Ordering::Relaxed),
    );
    assert!(total.scribbles >= all, "every case was said");
    assert_eq!(total.stalled, 0, "each was taken, or ended the lane");
    assert!(total.refused > 50, "breaches were found");
}
