//! Arming, sleeping, waking.

use crate::Fixture;
use crate::harness::{DEADLINE, LANE, Pair, Random, Side};
use sinew_wire::frame::{Header, Kind};
use std::time::{Duration, Instant};

/// Two threads pass a frame back and forth and sleep whenever nothing is there, with jitter between them: neither sleeps
/// past its frame.
pub fn no_wake_up_is_lost_in_ten_thousand_rounds(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let rounds = fixture.rounds;
    let Pair { mut a, mut b } = Pair::new(&fixture);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut random = Random(40);
            for round in 0..rounds {
                wait_for(&mut b, round as usize + 1, &mut random);
                post(&mut b, round);
            }
            // Its lane is kept until the other side has everything.
            wait_for(&mut b, rounds as usize + 1, &mut random);
        });
        let mut random = Random(41);
        for round in 0..rounds {
            post(&mut a, round);
            wait_for(&mut a, round as usize + 1, &mut random);
        }
        post(&mut a, rounds);
        a.lane().request_acknowledgement();
        let deadline = Instant::now() + DEADLINE;
        while a.over.is_none() && a.lane().unacknowledged() > 0 {
            a.turn(8);
            assert!(Instant::now() < deadline, "the last frame is never acknowledged");
        }
    });
}

/// For connections that are nothing to the check.
const STRANGER: u32 = LANE + 1;

/// When nothing is under way no descriptor stays ready and no timer is wanted: an idle engine sleeps.
pub fn an_idle_lane_lets_its_engine_sleep(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    for number in 0..20 {
        pair.send(&Header::control(Kind::EAGER, number), &[1; 3000]);
    }
    pair.drive("all arrived", |_, b| b.seen.got.len() >= 20);
    pair.a.lane().request_acknowledgement();
    pair.drive("everything is acknowledged", |a, _| a.lane().unacknowledged() == 0);
    pair.drive("both sides sleep", |a, b| {
        [a, b].into_iter().all(|side| {
            let mut events = Vec::new();
            side.turn(8);
            if side.domain.arm() && side.lane().next_timer().is_none() {
                side.poller.wait(Some(Duration::from_millis(20)), &mut events).expect("epoll_wait");
            } else {
                events.extend(side.events(Duration::ZERO));
                side.domain.disarm();
                return false;
            }
            side.domain.disarm();
            for &event in &events {
                if event.key.owner == LANE {
                    side.lane().handle_event(event);
                } else {
                    side.domain.handle_event(event);
                    // Engines of other tests ask whether this one lives; an engine takes such connections and lets them go.
                    while let Ok(Some(stranger)) = side.domain.accept(STRANGER) {
                        drop(stranger);
                    }
                }
            }
            events.is_empty()
        })
    });
}

/// `cool` takes a memory-polled lane out of polling and `poll_warm` names it when it has something; others refuse.
pub fn a_cooled_lane_is_told_of(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let mut pair = Pair::new(&fixture);
    pair.send(&Header::control(Kind::EAGER, 0), b"first");
    pair.drive("the lane stands", |_, b| !b.seen.got.is_empty());
    if !fixture.expected.capabilities.memory_polled {
        assert!(!pair.b.lane().cool(), "a lane that is not polled in memory cannot be cooled");
        return;
    }
    for round in 1..50u64 {
        cool(&mut pair.b);
        let mut owners = Vec::new();
        pair.b.domain.poll_warm(&mut owners);
        assert!(owners.is_empty(), "nothing is there yet");
        pair.send_only(&Header::control(Kind::EAGER, round), b"news");
        let deadline = Instant::now() + DEADLINE;
        while owners.is_empty() {
            pair.a.turn(8);
            pair.b.domain.poll_warm(&mut owners);
            assert!(Instant::now() < deadline, "a cooled lane is forgotten");
        }
        assert_eq!(owners, [LANE]);
        pair.drive("it arrived", |_, b| b.seen.got.len() as u64 > round);
    }
}

/// A frame for a cooled lane makes a descriptor ready while the domain is armed.
pub fn a_cooled_lane_wakes_a_sleeping_domain(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    if !fixture.expected.capabilities.memory_polled {
        return;
    }
    let mut pair = Pair::new(&fixture);
    pair.send(&Header::control(Kind::EAGER, 0), b"first");
    pair.drive("the lane stands", |_, b| !b.seen.got.is_empty());
    for round in 1..50u64 {
        cool(&mut pair.b);
        let deadline = Instant::now() + DEADLINE;
        while !pair.b.domain.arm() {
            pair.b.domain.disarm();
            let mut owners = Vec::new();
            pair.b.domain.poll_warm(&mut owners);
            if !owners.is_empty() {
                pair.b.progress(8);
                cool(&mut pair.b);
            }
            assert!(Instant::now() < deadline, "the domain never lets its engine sleep");
        }
        pair.send_only(&Header::control(Kind::EAGER, round), b"news");
        let mut events = Vec::new();
        while events.is_empty() {
            // The sender may have to be turned before its frame leaves.
            pair.a.turn(8);
            pair.b.poller.wait(Some(Duration::from_millis(1)), &mut events).expect("epoll_wait");
            assert!(Instant::now() < deadline, "slept past a frame");
        }
        pair.b.domain.disarm();
        for event in events {
            pair.b.domain.handle_event(event);
        }
        let mut owners = Vec::new();
        while owners.is_empty() {
            pair.b.domain.poll_warm(&mut owners);
            assert!(Instant::now() < deadline, "awake, but for nobody");
        }
        assert_eq!(owners, [LANE]);
        pair.drive("it arrived", |_, b| b.seen.got.len() as u64 > round);
    }
}

/// A side that sleeps is woken when the other's lane goes.
pub fn the_end_of_the_peer_wakes_a_sleeper(make: &dyn Fn() -> Fixture) {
    let Pair { mut a, mut b } = Pair::new(&make());
    a.turn(8);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let until = Instant::now() + Duration::from_millis(5);
            while Instant::now() < until {
                b.turn(8);
            }
            b.die();
        });
        let deadline = Instant::now() + DEADLINE;
        while a.over.is_none() {
            sleep(&mut a, &mut Random(1));
            assert!(Instant::now() < deadline, "the end of the peer is not noticed");
        }
    });
}

/// One thread sleeps while others of its engine go on polling, and find something instead of sleeping, too: what comes later
/// still wakes the sleeper.
pub fn polling_by_others_does_not_silence_a_sleeper(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    pair.send(&Header::control(Kind::EAGER, 0), b"first");
    pair.drive("the lane stands", |_, b| !b.seen.got.is_empty());
    let deadline = Instant::now() + DEADLINE;
    while !pair.b.domain.arm() {
        pair.b.domain.disarm();
        pair.b.turn(8);
        assert!(Instant::now() < deadline, "the domain never lets its engine sleep");
    }
    for round in 1..20u64 {
        for _ in 0..3000 {
            pair.b.progress(8);
        }
        // What woke the sleeper last was heard.
        pair.b.events(Duration::ZERO);
        pair.send_only(&Header::control(Kind::EAGER, round), b"news");
        if round % 2 == 0 {
            // The other thread would sleep as well, but something is there.
            pair.a.turn(8);
            let _ = pair.b.domain.arm();
        }
        while pair.b.events(Duration::from_millis(1)).is_empty() {
            // The sender may have to be turned before its frame leaves.
            pair.a.turn(8);
            assert!(Instant::now() < deadline, "slept past frame {round}");
        }
        while pair.b.seen.got.len() as u64 <= round {
            pair.a.turn(8);
            pair.b.progress(8);
            assert!(Instant::now() < deadline, "frame {round} never arrives");
        }
    }
    pair.b.domain.disarm();
}

/// Polls and sleeps until the side has `count` frames.
fn wait_for(side: &mut Side, count: usize, random: &mut Random) {
    while side.seen.got.len() < count {
        if side.turn(8) == 0 {
            sleep(side, random);
        }
        assert!(side.over.is_none(), "{:?}", side.over);
    }
}

/// Sleeps as an engine does: arms, looks once more, waits for descriptors or the next timer, disarms.
fn sleep(side: &mut Side, random: &mut Random) {
    for _ in 0..random.below(300) {
        std::hint::spin_loop();
    }
    // What came since the last poll is `arm`'s to tell: nothing else looks once more.
    if side.domain.arm() {
        for _ in 0..random.below(300) {
            std::hint::spin_loop();
        }
        let timer = side.lane().next_timer();
        let timeout = timer.map_or(DEADLINE, |at| at.saturating_duration_since(Instant::now()));
        let before = Instant::now();
        let mut events = Vec::new();
        side.poller.wait(Some(timeout), &mut events).expect("epoll_wait");
        let slept = before.elapsed();
        side.domain.disarm();
        for event in events {
            if event.key.owner == LANE {
                side.lane().handle_event(event);
            } else {
                side.domain.handle_event(event);
            }
        }
        assert!(slept < DEADLINE, "slept {slept:?}: a wake-up was lost");
    } else {
        side.domain.disarm();
    }
    side.progress(8);
}

fn post(side: &mut Side, tag: u64) {
    let deadline = Instant::now() + DEADLINE;
    while !side.post(&Header::control(Kind::EAGER, tag), &tag.to_le_bytes()) {
        side.turn(8);
        assert!(Instant::now() < deadline, "the lane never has room");
    }
    side.lane().flush().expect("alive");
}

/// Polls until the lane agrees to be cooled.
fn cool(side: &mut Side) {
    let deadline = Instant::now() + DEADLINE;
    while !side.lane().cool() {
        side.turn(8);
        assert!(Instant::now() < deadline, "the lane is never idle");
    }
}
