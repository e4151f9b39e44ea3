//! Operations that end while threads go to sleep, as in the engine: state behind the biased lock, a count of sleepers, and a
//! descriptor that wakes all of them and is drained by the last.

use super::*;
use crate::biased::BiasedLock;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// An eventfd that is watched by level.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
    }

    fn drain(&self) {
        *self.rung.lock().unwrap() = false;
    }
}

struct World {
    /// Which operations have ended.
    ended: BiasedLock<[bool; 2]>,
    sleepers: Sleepers,
    bell: Bell,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ended: BiasedLock::new([false; 2]),
            sleepers: Sleepers::new(),
            bell: Bell::default(),
        })
    }

    /// Waits for an operation; the same steps as `Shared::sleep`.
    fn wait(&self, operation: usize) {
        loop {
            let ended = self.ended.lock();
            if ended[operation] {
                return;
            }
            self.sleepers.enter();
            drop(ended);
            self.bell.wait();
            let ended = self.ended.lock();
            let last = self.sleepers.leave();
            if last {
                self.bell.drain();
            }
            drop(ended);
            if !last {
                // Until the others are awake the bell wakes everybody at once.
                thread::yield_now();
            }
        }
    }

    /// Ends an operation; the same steps as `Shared::release`.
    fn end(&self, operation: usize) {
        let mut ended = self.ended.lock();
        ended[operation] = true;
        drop(ended);
        if self.sleepers.any() {
            self.bell.ring();
        }
    }
}

fn model(preemptions: usize, body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(body);
}

#[test]
fn loom_whoever_waits_hears_of_the_end() {
    model(2, || {
        let world = World::new();
        let other = world.clone();
        let ender = thread::spawn(move || other.end(0));
        world.wait(0);
        ender.join().unwrap();
    });
}

#[test]
fn loom_two_sleepers_take_no_wake_up_from_each_other() {
    // With two forced switches it takes many minutes.
    model(1, || {
        let world = World::new();
        let (ending, waiting) = (world.clone(), world.clone());
        let ender = thread::spawn(move || {
            ending.end(0);
            ending.end(1);
        });
        let waiter = thread::spawn(move || waiting.wait(1));
        world.wait(0);
        waiter.join().unwrap();
        ender.join().unwrap();
    });
}
