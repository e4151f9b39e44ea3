//! What a domain and its lanes share inside one process: pages, doorbell, and who is polled and who waits to be told.
//!
//! Called by the domain (arming, warm polling) and by lanes (opening, cooling, closing). The lists are behind a lock that
//! only set-up and temperature changes take; the data path touches a [`Watch`] alone.

use crate::across::Token;
use crate::half::{self, DomainControl, OwnHalf, Page, PeerHalf};
use crate::options::ShmOptions;
use crate::shared::ring;
use crate::shared::sleep::{COLD, HINTS_MAX, HOT, Hints};
use crate::sys::barrier;
use crate::sys::memory::Writers;
use rustix::event::EventfdFlags;
use rustix::fd::OwnedFd;
use sinew_base::fork::ForkGuard;
use sinew_transport::{Poller, TransportError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cold lanes that one arming looks at, in turn, to make up for hints that another process of this user lost.
const ROUND: usize = 64;

/// What the domain must know of an open lane to decide whether to sleep.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The lane's number in poll keys.
    pub(crate) owner: u32,
    /// Its own half.
    pub(crate) own: OwnHalf,
    /// The peer's half.
    pub(crate) peer: PeerHalf,
    /// Frames of the peer's ring that were taken.
    pub(crate) position: AtomicU64,
    /// While starving: the consumer index at which there was no room; else `u64::MAX`.
    pub(crate) waiting_at: AtomicU64,
    /// Releases or fetches wait for the next poll.
    pub(crate) pending: AtomicBool,
    /// The peer is gone.
    pub(crate) ended: AtomicBool,
    /// The peer's end was handed up: nothing more will come.
    pub(crate) over: AtomicBool,
}

impl Watch {
    /// Whether a poll of the lane would find something.
    pub(crate) fn has_something(&self) -> bool {
        let peer = self.peer.control();
        let waiting_at = self.waiting_at.load(Ordering::Relaxed);
        if self.over.load(Ordering::Relaxed) {
            return false;
        }
        ring::is_published(self.peer.ring(), self.position.load(Ordering::Relaxed))
            || peer.closed.load(Ordering::Acquire) != 0
            || self.ended.load(Ordering::Relaxed)
            || self.pending.load(Ordering::Relaxed)
            || (waiting_at != u64::MAX && peer.consumed.load(Ordering::Acquire) != waiting_at)
    }
}

/// A domain's share that its lanes hold on to.
#[derive(Debug)]
pub(crate) struct Registry {
    /// The options the domain was opened with.
    pub(crate) options: ShmOptions,
    /// Where sockets are registered.
    pub(crate) poller: Arc<Poller>,
    /// The process that opened it.
    pub(crate) fork: ForkGuard,
    /// The announcement page, and its descriptor for peers.
    pub(crate) page: Page<DomainControl>,
    pub(crate) page_fd: OwnedFd,
    /// The hint page, for peers of the same user.
    pub(crate) hints: Page<Hints>,
    pub(crate) hints_fd: OwnedFd,
    /// The doorbell, for peers of the same user.
    pub(crate) bell: OwnedFd,
    /// What peers of the same user may know this process by.
    pub(crate) token: Token,
    /// Armed consumers of this domain use `membarrier`, and its producers are reached by it.
    pub(crate) membarrier: bool,
    lists: Mutex<Lists>,
    /// What pages the last segment has got.
    segment: Mutex<String>,
}

#[derive(Debug, Default)]
struct Lists {
    /// By hint bit.
    lanes: Vec<Option<Arc<Watch>>>,
    free: Vec<u32>,
    /// Bits of polled lanes, and of lanes that wait to be told.
    hot: Vec<u32>,
    cold: Vec<u32>,
    round: usize,
}

impl Lists {
    fn watch(&self, bit: u32) -> Option<&Arc<Watch>> {
        self.lanes.get(bit as usize)?.as_ref()
    }
}

impl Registry {
    pub(crate) fn new(options: &ShmOptions, poller: Arc<Poller>) -> Result<Self, TransportError> {
        let (page_fd, page) = half::create_domain_page()?;
        let (hints_fd, hints) = Page::<Hints>::create("sinew-hints", Writers::Anybody)?;
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| TransportError::os(errno, "eventfd", "").hint(crate::no_descriptor(errno)))?;
        Ok(Self {
            options: options.clone(),
            poller,
            token: Token::new(options.cross_read),
            fork: ForkGuard::new(),
            page,
            page_fd,
            hints,
            hints_fd,
            bell,
            membarrier: options.membarrier && barrier::register(),
            lists: Mutex::default(),
            segment: Mutex::default(),
        })
    }

    /// Remembers what pages a segment has got.
    pub(crate) fn segment_got(&self, got: String) {
        *self.segment.lock().unwrap_or_else(PoisonError::into_inner) = got;
    }

    /// What pages the last segment has got; empty before there was one.
    pub(crate) fn last_segment(&self) -> String {
        self.segment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a place for a lane that is being set up; it is the lane's hint bit if it is less than [`HINTS_MAX`].
    pub(crate) fn reserve(&self) -> u32 {
        let mut lists = self.lists();
        if let Some(bit) = lists.free.pop() {
            return bit;
        }
        lists.lanes.push(None);
        lists.lanes.len() as u32 - 1
    }

    /// The lane with this bit is open, and hot.
    pub(crate) fn open(&self, bit: u32, watch: &Arc<Watch>) {
        let mut lists = self.lists();
        if let Some(place) = lists.lanes.get_mut(bit as usize) {
            *place = Some(watch.clone());
            lists.hot.push(bit);
        }
    }

    /// The lane with this bit is gone.
    pub(crate) fn close(&self, bit: u32) {
        let mut lists = self.lists();
        let Some(place) = lists.lanes.get_mut(bit as usize) else { return };
        *place = None;
        lists.hot.retain(|&there| there != bit);
        lists.cold.retain(|&there| there != bit);
        lists.free.push(bit);
    }

    /// Orders this domain's announcements against its last look.
    pub(crate) fn heavy(&self) {
        barrier::heavy(self.membarrier);
    }

    /// Stops polling a lane; `false` when it has something.
    pub(crate) fn cool(&self, bit: u32) -> bool {
        let mut lists = self.lists();
        if bit >= HINTS_MAX {
            return false;
        }
        let Some(watch) = lists.watch(bit).cloned() else { return false };
        let state = &watch.own.control().state;
        if state.load(Ordering::Relaxed) == COLD {
            return true;
        }
        state.store(COLD, Ordering::Relaxed);
        self.heavy();
        if watch.has_something() {
            state.store(HOT, Ordering::Relaxed);
            return false;
        }
        lists.hot.retain(|&there| there != bit);
        lists.cold.push(bit);
        true
    }

    /// Appends the owners of cooled lanes that somebody said have something; they are hot again.
    pub(crate) fn take_hints(&self, owners: &mut Vec<u32>) {
        let mut lists = self.lists();
        self.hints.take(|bit| Self::warm(&mut lists, bit, owners));
    }

    /// Looks at every cold lane itself, in case a hint was lost.
    pub(crate) fn look_at_all(&self, owners: &mut Vec<u32>) {
        let mut lists = self.lists();
        let found: Vec<u32> = lists
            .cold
            .iter()
            .copied()
            .filter(|&bit| lists.watch(bit).is_some_and(|w| w.has_something()))
            .collect();
        for bit in found {
            Self::warm(&mut lists, bit, owners);
        }
    }

    fn warm(lists: &mut Lists, bit: u32, owners: &mut Vec<u32>) {
        let Some(watch) = lists.watch(bit) else { return };
        if watch.own.control().state.load(Ordering::Relaxed) != COLD {
            return;
        }
        watch.own.control().state.store(HOT, Ordering::Relaxed);
        owners.push(watch.owner);
        lists.cold.retain(|&there| there != bit);
        lists.hot.push(bit);
    }

    /// The last look before sleep: whether a polled lane, a hint or one of the next cold lanes in turn has something.
    pub(crate) fn last_look(&self) -> bool {
        if self.hints.any() {
            return true;
        }
        let mut lists = self.lists();
        if lists.hot.iter().any(|&bit| lists.watch(bit).is_some_and(|watch| watch.has_something())) {
            return true;
        }
        let count = lists.cold.len().min(ROUND);
        for _ in 0..count {
            let at = lists.round % lists.cold.len();
            lists.round = at + 1;
            let bit = lists.cold[at];
            if lists.watch(bit).is_some_and(|watch| watch.has_something()) {
                self.hints.set(bit);
                return true;
            }
        }
        false
    }
}
