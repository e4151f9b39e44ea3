//! Readiness of loopback ends: a bell for each listener and link, one armed doorbell per domain for lanes.

use crate::bell::Bell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Nothing here is left half done by a panic, so a poisoned mutex is as good as any.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a domain that sleeps that one of its lanes has something. Silent while the domain is awake.
pub(super) struct Doorbell {
    bell: Bell,
    state: Mutex<DoorbellState>,
}

#[derive(Default)]
struct DoorbellState {
    armed: bool,
    rung: bool,
    /// Lanes with something that they were not polled for yet. For a moment it may be one too low, while the notice that
    /// makes up for it has yet to look at `armed`.
    dirty: isize,
    /// Owners of cooled lanes that have something.
    warm: Vec<u32>,
}

impl Doorbell {
    pub(super) fn new(bell: Bell) -> Self {
        Self { bell, state: Mutex::default() }
    }

    pub(super) fn arm(&self) -> bool {
        let mut state = locked(&self.state);
        state.armed = true;
        state.dirty <= 0 && state.warm.is_empty()
    }

    /// The bell was heard: another thread may still sleep on it, so it rings for what comes next.
    pub(super) fn heard(&self) {
        let mut state = locked(&self.state);
        if std::mem::take(&mut state.rung) {
            self.bell.hush();
        }
    }

    pub(super) fn disarm(&self) {
        locked(&self.state).armed = false;
        self.heard();
    }

    pub(super) fn take_warm(&self, owners: &mut Vec<u32>) {
        owners.append(&mut locked(&self.state).warm);
    }

    fn note(&self, cooled_owner: Option<u32>) {
        let mut state = locked(&self.state);
        state.dirty += 1;
        state.warm.extend(cooled_owner);
        if state.armed && !state.rung {
            state.rung = true;
            self.bell.ring();
        }
    }

    fn cleaned(&self) {
        locked(&self.state).dirty -= 1;
    }

    fn forget(&self, owner: u32, dirty: bool) {
        let mut state = locked(&self.state);
        state.dirty -= isize::from(dirty);
        state.warm.retain(|&warm| warm != owner);
    }
}

/// How one end of a connection is told that something happened to it.
#[derive(Default)]
pub(super) struct Notice {
    wake: Mutex<Wake>,
    /// Something happened since the last [`Notice::take`]; used once the end is a lane.
    dirty: AtomicBool,
}

#[derive(Default)]
enum Wake {
    /// Not accepted yet, or gone.
    #[default]
    Nobody,
    Link(Arc<Bell>),
    Lane {
        doorbell: Arc<Doorbell>,
        owner: u32,
        cooled: bool,
    },
}

impl Notice {
    pub(super) fn for_link(&self, bell: Arc<Bell>) {
        *locked(&self.wake) = Wake::Link(bell);
    }

    /// From now on the end is a lane. It counts as having something.
    pub(super) fn for_lane(&self, doorbell: Arc<Doorbell>, owner: u32) {
        *locked(&self.wake) = Wake::Lane { doorbell, owner, cooled: false };
        self.tell();
    }

    pub(super) fn for_nobody(&self) {
        let mut wake = locked(&self.wake);
        let dirty = self.dirty.swap(false, Ordering::AcqRel);
        if let Wake::Lane { doorbell, owner, .. } = &*wake {
            doorbell.forget(*owner, dirty);
        }
        *wake = Wake::Nobody;
    }

    /// Something happened to the end. Call it without any other lock of the connection.
    pub(super) fn tell(&self) {
        match &mut *locked(&self.wake) {
            Wake::Nobody => {}
            Wake::Link(bell) => bell.ring(),
            Wake::Lane { doorbell, owner, cooled } => {
                if !self.dirty.swap(true, Ordering::AcqRel) {
                    doorbell.note(std::mem::take(cooled).then_some(*owner));
                }
            }
        }
    }

    /// Whether something happened since the last call. What happens from now on is told anew.
    pub(super) fn take(&self) -> bool {
        if !self.dirty.load(Ordering::Acquire) || !self.dirty.swap(false, Ordering::AcqRel) {
            return false;
        }
        if let Wake::Lane { doorbell, .. } = &*locked(&self.wake) {
            doorbell.cleaned();
        }
        true
    }

    /// Asks to be told through the domain; `false` when something is there already.
    pub(super) fn cool(&self) -> bool {
        let mut wake = locked(&self.wake);
        if self.dirty.load(Ordering::Acquire) {
            return false;
        }
        if let Wake::Lane { cooled, .. } = &mut *wake {
            *cooled = true;
        }
        true
    }
}
