//! The ring and the sleep protocol under every interleaving of a small model. The asymmetric barrier of production code is
//! two fences here, which is what it amounts to: a full barrier on both sides of every announcement.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p sinew-transport-shm --release --test loom`
#![cfg(loom)]

use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use sinew_transport_shm::shared::ring::{self, Consumer, Head, Producer, Slot};
use sinew_transport_shm::shared::sleep::{Barrier, COLD, HOT, Hints, Sleeper, Waker};

/// What the two processes share.
struct Shared {
    ring: Vec<Slot>,
    consumed: AtomicU64,
    starving: AtomicU64,
    state: AtomicU64,
    armed: AtomicU64,
    hints: Hints,
    bell: Doorbell,
    /// The other direction's announcement, for a producer that sleeps until there is room.
    producer_armed: AtomicU64,
    producer_bell: Doorbell,
}

/// An eventfd: counts rings, waits for one.
#[derive(Default)]
struct Doorbell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Doorbell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Shared {
    fn new(slots: usize, state: u64) -> Arc<Self> {
        Arc::new(Self {
            ring: (0..slots).map(|_| Slot::default()).collect(),
            consumed: AtomicU64::new(0),
            starving: AtomicU64::new(0),
            state: AtomicU64::new(state),
            armed: AtomicU64::new(0),
            hints: Hints::default(),
            bell: Doorbell::default(),
            producer_armed: AtomicU64::new(0),
            producer_bell: Doorbell::default(),
        })
    }
}

fn head(number: u64) -> Head {
    Head { first: number << 8, second: number, third: !number }
}

/// Publishes and wakes, as a lane's post does.
fn post(shared: &Shared, producer: &mut Producer, waker: &mut Waker, number: u64) {
    producer.publish(&shared.ring, head(number), &[number; 5], 8);
    if waker.look(Barrier::Asymmetric, &shared.state, &shared.armed, || shared.hints.set(0)) {
        shared.bell.ring();
    }
}

fn take(shared: &Shared, consumer: &mut Consumer, expected: u64) -> bool {
    let Some(found) = consumer.peek(&shared.ring) else { return false };
    assert_eq!(found, head(expected));
    consumer.advance();
    true
}

#[test]
fn loom_frames_arrive_whole_and_in_order_and_no_slot_is_overwritten_early() {
    loom::model(|| {
        let shared = Shared::new(2, HOT);
        let theirs = shared.clone();
        let sender = thread::spawn(move || {
            let mut producer = Producer::new(2);
            for number in 0..3 {
                while !producer.has_room() {
                    if !producer.refresh(&theirs.consumed).expect("honest") {
                        thread::yield_now();
                    }
                }
                producer.publish(&theirs.ring, head(number), &[number; 5], 8);
            }
        });
        let mut consumer = Consumer::new(2);
        for number in 0..3 {
            while !take(&shared, &mut consumer, number) {
                thread::yield_now();
            }
            consumer.publish(&shared.consumed);
        }
        sender.join().unwrap();
    });
}

#[test]
fn loom_a_consumer_that_sleeps_is_woken_for_every_frame() {
    loom::model(|| {
        let shared = Shared::new(4, HOT);
        let theirs = shared.clone();
        let sender = thread::spawn(move || {
            let (mut producer, mut waker) = (Producer::new(4), Waker::default());
            for number in 0..2 {
                post(&theirs, &mut producer, &mut waker, number);
            }
        });
        let (mut consumer, mut sleeper) = (Consumer::new(4), Sleeper::default());
        let mut taken = 0;
        while taken < 2 {
            if take(&shared, &mut consumer, taken) {
                taken += 1;
                continue;
            }
            sleeper.arm(&shared.armed);
            fence(Ordering::SeqCst);
            if !ring::is_published(&shared.ring, consumer.next()) {
                shared.bell.wait();
            }
            sleeper.disarm(&shared.armed);
        }
        sender.join().unwrap();
    });
}

#[test]
fn loom_a_cooled_lane_is_told_about_awake_or_asleep() {
    // Three forced switches are enough to lose a wake-up when a fence is missing; all of them take an hour.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let shared = Shared::new(4, HOT);
        let theirs = shared.clone();
        let sender = thread::spawn(move || {
            let (mut producer, mut waker) = (Producer::new(4), Waker::default());
            for number in 0..2 {
                post(&theirs, &mut producer, &mut waker, number);
            }
        });
        let (mut consumer, mut sleeper) = (Consumer::new(4), Sleeper::default());
        let mut taken = 0;
        while taken < 2 {
            // Cool, unless something is there.
            shared.state.store(COLD, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if !ring::is_published(&shared.ring, consumer.next()) {
                // Sleep until told: the lane itself is not looked at.
                sleeper.arm(&shared.armed);
                fence(Ordering::SeqCst);
                if !shared.hints.any() {
                    shared.bell.wait();
                }
                sleeper.disarm(&shared.armed);
                // A late ring for what was found already may have woken it: then there is no hint.
                shared.hints.take(|bit| assert_eq!(bit, 0));
            }
            shared.state.store(HOT, Ordering::Relaxed);
            while take(&shared, &mut consumer, taken) {
                taken += 1;
            }
        }
        sender.join().unwrap();
    });
}

#[test]
fn loom_a_producer_that_sleeps_for_room_is_woken_by_the_index() {
    loom::model(|| {
        let shared = Shared::new(1, HOT);
        let theirs = shared.clone();
        let sender = thread::spawn(move || {
            let (mut producer, mut sleeper) = (Producer::new(1), Sleeper::default());
            for number in 0..2 {
                while !producer.has_room() {
                    if producer.refresh(&theirs.consumed).expect("honest") {
                        break;
                    }
                    theirs.starving.store(1, Ordering::Relaxed);
                    sleeper.arm(&theirs.producer_armed);
                    fence(Ordering::SeqCst);
                    if !producer.refresh(&theirs.consumed).expect("honest") {
                        theirs.producer_bell.wait();
                    }
                    sleeper.disarm(&theirs.producer_armed);
                    theirs.starving.store(0, Ordering::Relaxed);
                }
                producer.publish(&theirs.ring, head(number), &[number; 5], 8);
            }
        });
        let (mut consumer, mut waker) = (Consumer::new(1), Waker::default());
        for number in 0..2 {
            while !take(&shared, &mut consumer, number) {
                thread::yield_now();
            }
            consumer.publish(&shared.consumed);
            Barrier::Asymmetric.light();
            if shared.starving.load(Ordering::Relaxed) != 0
                && waker.look(Barrier::Asymmetric, &AtomicU64::new(HOT), &shared.producer_armed, || ())
            {
                shared.producer_bell.ring();
            }
        }
        sender.join().unwrap();
    });
}

/// Two producers say of two lanes of one word that they have something, while the consumer takes what is said.
#[test]
fn loom_a_hint_is_taken_whoever_sets_another_one_beside_it() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let hints = Arc::new(Hints::default());
        let producers = [0, 1].map(|bit| {
            let theirs = hints.clone();
            thread::spawn(move || theirs.set(bit))
        });
        let mut taken = [0; 2];
        let mut take = || {
            if hints.any() {
                hints.take(|bit| taken[bit as usize] += 1);
            }
        };
        take();
        for producer in producers {
            producer.join().unwrap();
        }
        take();
        assert_eq!(taken, [1, 1]);
    });
}
