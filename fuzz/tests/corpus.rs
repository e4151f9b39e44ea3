//! The kept corpus and some thousands of seeded inputs hold the promises.

use sinew_fuzz::driver::{Pool, corpus};
use sinew_fuzz::targets::{ALL, Target};

const SEEDED: usize = 3000;

#[test]
fn every_target_has_a_corpus_and_every_kept_input_passes() {
    for target in ALL {
        let kept = corpus(&target);
        assert!(!kept.is_empty(), "{}: no corpus", target.name);
        for (path, input) in kept {
            println!("{}", path.display());
            (target.run)(&input);
        }
    }
}

fn seeded(target: &Target) {
    let mut pool = Pool::of(target, 42);
    for _ in 0..SEEDED {
        let input = pool.mutated();
        let outcome = (target.run)(&input);
        pool.learn(&input, outcome);
    }
    assert!(pool.inputs().len() > 10, "{}: nothing new was reached", target.name);
}

#[test]
fn seeded_frames_pass() {
    seeded(&sinew_fuzz::targets::FRAME);
}

#[test]
fn seeded_hellos_pass() {
    seeded(&sinew_fuzz::targets::HELLO);
}

#[test]
fn seeded_addresses_pass() {
    seeded(&sinew_fuzz::targets::ADDRESS);
}

#[test]
fn seeded_operations_on_the_matcher_pass() {
    seeded(&sinew_fuzz::targets::MATCHING);
}

#[test]
fn seeded_rings_are_read_safely() {
    seeded(&sinew_fuzz::targets::RING);
}

#[test]
fn seeded_options_pass() {
    seeded(&sinew_fuzz::targets::OPTIONS);
}

#[test]
fn seeded_operations_of_engines_pass() {
    seeded(&sinew_fuzz::targets::OPERATIONS);
}
