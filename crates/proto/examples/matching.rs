//! Prints what one match costs, alone and among ten thousand others: `cargo run --release -p sinew-proto --example matching
//! [PART OF A NAME [REPEATS]]`.

use sinew_proto::matching::{Arrival, Matcher, Pattern, Posted};
use std::hint::black_box;
use std::time::Instant;

const OTHERS: u64 = 10_000;
/// Operations in a row; a power of two.
const ROUNDS: u64 = 1 << 21;

type Under = Matcher<u64, u64>;

fn arrival(tag: u64) -> Arrival {
    Arrival { tag, untagged: false, source: 7 << 32 | 1 }
}

fn post(matcher: &mut Under, pattern: Pattern, handle: u64) {
    assert!(matches!(matcher.post(black_box(pattern), handle), Posted::Queued(_)));
}

/// Nanoseconds of a multiplication that waits for the one before: three cycles on most processors, whatever their clock is
/// just now.
fn multiplication_ns() -> f64 {
    const COUNT: u32 = 200_000;
    let started = Instant::now();
    let mut value = black_box(3_u64);
    for _ in 0..COUNT {
        value = value.wrapping_mul(black_box(0x9e37_79b9_7f4a_7c15));
    }
    black_box(value);
    started.elapsed().as_nanos() as f64 / f64::from(COUNT)
}

/// How often each is measured: the second argument, or nine times.
fn repeats() -> u32 {
    std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(9)
}

/// Best of some for each of `ROUNDS`, in nanoseconds and in multiplications done one after the other, which a slow or shared
/// machine changes less.
fn measure(name: &str, mut round: impl FnMut()) {
    if std::env::args().nth(1).is_some_and(|wanted| !name.contains(&wanted)) {
        return;
    }
    let (mut best_ns, mut best_ratio) = (f64::MAX, f64::MAX);
    for _ in 0..repeats() {
        let unit = multiplication_ns();
        let started = Instant::now();
        round();
        let took = started.elapsed().as_nanos() as f64 / ROUNDS as f64;
        best_ns = best_ns.min(took);
        best_ratio = best_ratio.min(took / unit);
    }
    println!("{name:<56} {best_ns:>7.1} ns {best_ratio:>7.1} x");
}

/// A cheap permutation of 0..n (a power of two).
fn scatter(number: u64, n: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9) & (n - 1)
}

fn masked(matcher: &mut Under) {
    for number in 0..8_u64 {
        // Never matched here: each wants a high bit that no message has.
        let pattern = Pattern::tag(1 << 63 | number).ignoring(0xff << (number * 4));
        post(matcher, if number % 2 == 0 { pattern } else { pattern.from(7 << 32 | 1) }, number);
    }
}

fn main() {
    let mut matcher = Under::new(1);
    measure("post, arrive: one posted", || {
        for tag in 0..ROUNDS {
            post(&mut matcher, Pattern::tag(tag), tag);
            assert_eq!(matcher.arrive(black_box(&arrival(tag))), Some(tag));
        }
    });
    for batch in [8, 64, 8192] {
        let mut matcher = Under::new(1);
        measure(&format!("post {batch}, then {batch} arrive in order"), || {
            for first in (0..ROUNDS).step_by(batch) {
                (0..batch as u64).for_each(|tag| post(&mut matcher, Pattern::tag(first + tag), tag));
                for tag in 0..batch as u64 {
                    assert_eq!(matcher.arrive(black_box(&arrival(first + tag))), Some(tag));
                }
            }
        });
        measure(&format!("post {batch}, then {batch} arrive permuted"), || {
            for first in (0..ROUNDS).step_by(batch) {
                (0..batch as u64).for_each(|tag| post(&mut matcher, Pattern::tag(first + tag), tag));
                for tag in 0..batch as u64 {
                    let tag = scatter(tag, batch as u64);
                    assert_eq!(matcher.arrive(black_box(&arrival(first + tag))), Some(tag));
                }
            }
        });
    }
    let mut matcher = Under::new(1);
    measure("post 64, then 64 arrive permuted within 8", || {
        for first in (0..ROUNDS).step_by(64) {
            (0..64).for_each(|tag| post(&mut matcher, Pattern::tag(first + tag), tag));
            for tag in 0..64_u64 {
                let tag = tag & !7 | (tag * 5 + 3) & 7;
                assert_eq!(matcher.arrive(black_box(&arrival(first + tag))), Some(tag));
            }
        }
    });
    for with_masks in [false, true] {
        let mut matcher = Under::new(1);
        (0..OTHERS / 2).for_each(|tag| post(&mut matcher, Pattern::tag(1 << 40 | tag), tag));
        if with_masks {
            masked(&mut matcher);
        }
        (OTHERS / 2..OTHERS).for_each(|tag| post(&mut matcher, Pattern::tag(1 << 40 | tag), tag));
        let text = if with_masks { " and 8 masked" } else { "" };
        measure(&format!("post, arrive: {OTHERS} others{text} before it"), || {
            for tag in 0..ROUNDS {
                post(&mut matcher, Pattern::tag(tag), tag);
                assert_eq!(matcher.arrive(black_box(&arrival(tag))), Some(tag));
            }
        });
        measure(&format!("arrive, post again: any of {OTHERS}{text}"), || {
            for number in 0..ROUNDS {
                let tag = scatter(number, 8192);
                assert!(matcher.arrive(black_box(&arrival(1 << 40 | tag))).is_some());
                post(&mut matcher, Pattern::tag(1 << 40 | tag), tag);
            }
        });
    }
    unexpected();
}

fn unexpected() {
    let mut matcher = Under::new(1);
    measure("store, post: one unexpected", || {
        for tag in 0..ROUNDS {
            assert!(matcher.arrive(black_box(&arrival(tag))).is_none());
            matcher.store(arrival(tag), tag);
            assert!(matches!(matcher.post(black_box(Pattern::tag(tag)), 0), Posted::Matched(..)));
        }
    });
    for equal in [false, true] {
        let mut matcher = Under::new(1);
        for tag in 0..OTHERS {
            matcher.store(arrival(1 << 40 | if equal { 1 } else { tag }), tag);
        }
        let text = if equal { "equal" } else { "different" };
        measure(&format!("post, arrive: {OTHERS} {text} unexpected"), || {
            for tag in 0..ROUNDS {
                post(&mut matcher, Pattern::tag(tag), tag);
                assert_eq!(matcher.arrive(black_box(&arrival(tag))), Some(tag));
            }
        });
        measure(&format!("store, post: {OTHERS} {text} unexpected"), || {
            for tag in 0..ROUNDS {
                assert!(matcher.arrive(black_box(&arrival(tag))).is_none());
                matcher.store(arrival(tag), tag);
                assert!(matches!(matcher.post(black_box(Pattern::tag(tag)), 0), Posted::Matched(..)));
            }
        });
    }
}
