//! Campaigns of a peer that scribbles over all that it shares with the survivor.

use crate::campaign::{Luck, rounds, seed};
use crate::common::{Other, PATIENCE, spawn};
use crate::peer::{Job, Report, VALUES_ALL, What};
use crate::survivor::Survivor;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Parts that all words are divided into: one for each round, again and again.
const PARTS: u64 = 50;
/// So many times the rounds at most, until a campaign has seen that it bites.
const GOES_ON: u64 = 6;

struct Campaign {
    name: &'static str,
    what: What,
    slots: usize,
    values: usize,
    millis: u64,
}

/// What proves that a campaign bites. Which word is written when it is looked at is luck, and rare where processors are few, so
/// campaigns go on until all of it has been seen.
struct Effects {
    heard: bool,
    refused: bool,
    garbled: bool,
    broken: bool,
}

impl Effects {
    fn of(survivor: &Survivor, total: &Report) -> Self {
        let tally = &survivor.tally;
        let garbled = tally.garbled.load(Ordering::Relaxed);
        let reasons = tally.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            heard: tally.whole.load(Ordering::Relaxed) > total.connects,
            refused: total.refused > 0 && survivor.sessions_lost() > 0,
            // The first message of a connection counts as garbled.
            garbled: garbled > total.connects,
            broken: reasons.iter().any(|reason| reason.contains("its last lane broke (shm: ")),
        }
    }

    fn all(&self) -> bool {
        self.heard && self.refused && self.garbled && self.broken
    }
}

impl Campaign {
    fn run(&self) {
        let (rounds, seed) = (rounds(), seed());
        let parts = rounds.min(PARTS);
        // Few rounds, as in a look at one word, have few effects.
        let rounds_max = if rounds < PARTS { rounds } else { rounds * GOES_ON };
        let survivor = Survivor::new("shm");
        let mut luck = Luck::new(seed);
        let mut total = Report::default();
        let mut hostile = start(&survivor);
        let mut done = 0;
        while done < rounds || (done < rounds_max && !Effects::of(&survivor, &total).all()) {
            let job = Job {
                what: self.what,
                slots: self.slots,
                seed: luck.next(),
                part: (done % parts) as usize,
                parts: parts as usize,
                values: self.values,
                millis: self.millis,
            };
            hostile.tell(&job.to_string());
            let report: Report = hostile.line_within(PATIENCE * 6).parse().expect("a report");
            survivor.goes_on();
            // Of the words only the first time around counts.
            total.add(&Report { covered: if done < parts { report.covered } else { 0 }, ..report });
            done += 1;
        }
        hostile.finish();
        let (lost, effects) = (survivor.sessions_lost(), Effects::of(&survivor, &total));
        let tally = survivor.finish();
        let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        let (whole, garbled) = (count(&tally.whole), count(&tally.garbled));
        let Report { words, covered, scribbles, arena, connects, ended, refused, stalled } = total;
        let covered =
            if self.what == What::Turn { format!("{covered} of {words} words, ") } else { String::new() };
        let more = if done > rounds {
            format!(" and {} more until all was seen", done - rounds)
        } else {
            String::new()
        };
        println!(
            "campaign hostile/shm/{}: {rounds} rounds{more}, {covered}{scribbles} scribbles, {arena} into windows and segments, \
             {connects} connects, {ended} ended by the survivor ({refused} for a breach), {stalled} went silent, {lost} sessions lost, \
             {whole} whole and {garbled} garbled messages, {} messages of the honest peer verified, 0 wrong, seed {seed}",
            self.name,
            count(&tally.honest),
        );
        if self.what == What::Turn {
            assert_eq!(total.covered, words, "every word in its turn");
            assert_eq!(words, (2 * 4096 + (self.slots * 64).next_multiple_of(4096) + 2 * 4096) as u64 / 8);
        }
        if rounds < PARTS {
            return;
        }
        let reasons = tally.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(effects.heard, "the hostile peer was hardly heard");
        assert!(effects.refused, "no lane was ended for a breach");
        assert!(effects.garbled, "nothing that was read was scribbled");
        assert!(effects.broken, "no reason names the lane: {reasons:?}");
    }
}

/// The hostile peer of a survivor.
pub(crate) fn start(survivor: &Survivor) -> Other {
    spawn("hostile", "shm", &[("OTHER_ADDRESS", &survivor.address())])
}

#[test]
fn every_word_that_a_peer_shares_is_scribbled_in_its_turn_with_every_value() {
    Campaign { name: "every-word/16-slots", what: What::Turn, slots: 16, values: VALUES_ALL, millis: 0 }
        .run();
}

#[test]
fn every_word_of_the_default_ring_is_scribbled_in_its_turn() {
    Campaign { name: "every-word/256-slots", what: What::Turn, slots: 256, values: 1, millis: 0 }.run();
}

#[test]
fn words_are_scribbled_at_random() {
    Campaign { name: "random", what: What::Random, slots: 64, values: 0, millis: 200 }.run();
}

#[test]
fn words_change_between_one_look_of_the_survivor_and_the_next() {
    Campaign { name: "double-fetch", what: What::Flip, slots: 16, values: 0, millis: 200 }.run();
}
