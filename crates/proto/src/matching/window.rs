//! The oldest posted receives, at most sixty-four, compared by a byte of fingerprint each, all together.
//!
//! Used by the posted queue only. Places are given out in ascending order; the receives that are there when the last one has been
//! given out become the *old* ones, and the free places between them are given out again from the first on. So the oldest receive
//! among several is the first of the old ones, else the first of the others. There is memory for four until more are posted.

use super::{Compiled, Key};
use sinew_base::bytes;

const LANES_FIRST: usize = 4;
const LANES_MAX: usize = 64;

/// What tells most messages apart that differ in their tag, or in having one.
#[derive(Clone, Copy)]
struct Mark(u64);

impl Mark {
    #[inline]
    const fn of(tag: u64, untagged: bool) -> Self {
        // Untagged ones have tag 0, and many posted receives have tags near it.
        let tag = if untagged { u64::MAX / 3 } else { tag };
        Self(tag.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A byte of it, of which there is one for each receive.
    #[inline]
    const fn print(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// Its place among the bits of [`Known`].
    #[inline]
    const fn place(self) -> usize {
        (self.0 >> (u64::BITS - 10)) as usize
    }
}

/// A bit for each of 1,024 places of marks.
#[derive(Debug)]
struct Known([u64; 16]);

impl Known {
    #[inline]
    const fn add(&mut self, mark: Mark) {
        self.0[mark.place() / 64] |= 1 << (mark.place() % 64);
    }

    #[inline]
    const fn has(&self, mark: Mark) -> bool {
        self.0[mark.place() / 64] & 1 << (mark.place() % 64) != 0
    }
}

/// A receive in the window, which stays in its lane until the order of lanes has to be put right.
#[derive(Debug)]
pub(super) struct Lane<P> {
    pub(super) wanted: Compiled,
    pub(super) name: u64,
    /// `None` where there is no receive.
    pub(super) handle: Option<P>,
}

impl<P> Lane<P> {
    const FREE: Self = Self { wanted: Compiled::NOTHING, name: 0, handle: None };
}

#[derive(Debug)]
pub(super) struct Window<P> {
    /// A power of two of them.
    lanes: Box<[Lane<P>]>,
    /// A bit for each lane that holds a receive, and for each of these that is older than the others.
    live: u64,
    old: u64,
    /// A bit for each lane behind the one that was given out last.
    ahead: u64,
    /// A bit for each lane whose tag is masked, so that its print says nothing.
    masked: u64,
    /// A byte for each lane.
    prints: [u8; LANES_MAX],
    /// The marks of all receives: none is there in vain for long, and none is missing. What it does not have needs no search.
    known: Known,
    /// Receives that have gone since `known` was made.
    gone: u32,
}

/// Receives that may have gone before [`Window::known`] is made anew.
const GONE_MAX: u32 = 64;

impl<P> Window<P> {
    pub(super) fn new() -> Self {
        Self::with(lanes(LANES_FIRST))
    }

    const fn with(lanes: Box<[Lane<P>]>) -> Self {
        Self {
            ahead: all_of(lanes.len()),
            lanes,
            live: 0,
            old: 0,
            masked: 0,
            prints: [0; LANES_MAX],
            known: Known([0; 16]),
            gone: 0,
        }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.live == 0
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.live.count_ones() as usize
    }

    /// Whether [`Window::push`] has room, after growing or starting from the first lane again if need be.
    #[inline]
    pub(super) fn has_room(&mut self) -> bool {
        self.ahead & !self.live != 0 || self.make_room()
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self) -> bool {
        let count = self.lanes.len();
        if count < LANES_MAX && self.len() > count / 2 {
            self.arrange(count * 4);
        } else if count - self.len() >= count / 4 {
            // So many go in before it is done again.
            let younger = self.live & !self.old;
            if u64::BITS - self.old.leading_zeros() > younger.trailing_zeros() {
                // The last of the old ones lies behind the first of the younger ones.
                self.arrange(count);
            }
            (self.old, self.ahead) = (self.live, all_of(count));
        }
        self.ahead & !self.live != 0
    }

    /// Few enough receives to take a batch of younger ones in, however old some are that stay.
    #[inline]
    pub(super) const fn wants_refill(&self) -> bool {
        self.len() <= LANES_MAX - LANES_MAX / 4
    }

    /// Adds a receive younger than all others. The caller asked [`Window::has_room`].
    #[inline]
    pub(super) fn push(&mut self, wanted: &Compiled, name: u64, handle: P) {
        let at = (self.ahead & !self.live).trailing_zeros() % LANES_MAX as u32;
        let bit = 1 << at;
        self.ahead &= !(bit | (bit - 1));
        let lane = &mut self.lanes[at as usize];
        lane.wanted = *wanted;
        lane.name = name;
        lane.handle = Some(handle);
        let mark = Mark::of(wanted.tag, wanted.kind.untagged);
        self.prints[at as usize] = mark.print();
        self.known.add(mark);
        self.live |= bit;
        self.masked = if wanted.kind.tag_bits == u64::MAX { self.masked & !bit } else { self.masked | bit };
    }

    /// Whether any receive might accept the message, without asking one.
    #[inline(always)]
    pub(super) fn may_have(&self, key: &Key) -> bool {
        self.masked & self.live != 0 || self.known.has(Mark::of(key.tag, key.untagged))
    }

    /// Whether any receive accepts the message.
    #[cold]
    #[inline(never)]
    pub(super) fn has(&self, key: &Key) -> bool {
        self.find(key).is_some()
    }

    /// Lane of the oldest receive that accepts the message.
    #[inline]
    pub(super) fn find(&self, key: &Key) -> Option<u32> {
        let equal = bytes::equal(&self.prints, Mark::of(key.tag, key.untagged).print());
        let candidates = (equal | self.masked) & self.live;
        let mut first = candidates & self.old;
        let mut rest = candidates ^ first;
        loop {
            if first == 0 {
                if rest == 0 {
                    return None;
                }
                (first, rest) = (rest, 0);
            }
            let at = first.trailing_zeros();
            if self.wanted(at).accepts(key) {
                return Some(at);
            }
            first &= first - 1;
        }
    }

    /// Lane of the oldest. Only when not empty.
    #[inline]
    pub(super) const fn oldest(&self) -> u32 {
        if self.old == 0 { self.live.trailing_zeros() } else { self.old.trailing_zeros() }
    }

    /// What the receive of a lane wants.
    #[inline]
    pub(super) fn wanted(&self, at: u32) -> &Compiled {
        &self.lanes[at as usize].wanted
    }

    /// Removes the receive of a lane.
    #[inline]
    pub(super) fn remove(&mut self, at: u32) -> Option<P> {
        let handle = self.lanes[at as usize].handle.take();
        let bit = 1 << at;
        self.live &= !bit;
        self.old &= !bit;
        self.gone += 1;
        if self.gone >= GONE_MAX {
            self.know();
        }
        handle
    }

    /// Makes `known` anew, of what is there.
    #[inline(never)]
    fn know(&mut self) {
        (self.known, self.gone) = (Known([0; 16]), 0);
        for at in bits(self.live) {
            let wanted = &self.lanes[at as usize].wanted;
            self.known.add(Mark::of(wanted.tag, wanted.kind.untagged));
        }
    }

    /// Puts all receives into the first of `count` lanes, in the order of their age. Allocates only to grow.
    #[inline(never)]
    fn arrange(&mut self, count: usize) {
        let mut sorted: [Option<Lane<P>>; LANES_MAX] = std::array::from_fn(|_| None);
        let order = bits(self.old).chain(bits(self.live & !self.old));
        for (place, at) in sorted.iter_mut().zip(order) {
            *place = Some(std::mem::replace(&mut self.lanes[at as usize], Lane::FREE));
        }
        let same = std::mem::take(&mut self.lanes);
        *self = Self::with(if same.len() == count { same } else { lanes(count) });
        for lane in sorted.into_iter().flatten() {
            if let Some(handle) = lane.handle {
                self.push(&lane.wanted, lane.name, handle);
            }
        }
    }

    /// Lane and receive of each, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &Lane<P>)> {
        bits(self.old).chain(bits(self.live & !self.old)).map(|at| (at, &self.lanes[at as usize]))
    }
}

/// A bit for each of the first `count`, at least one and at most 64.
const fn all_of(count: usize) -> u64 {
    u64::MAX >> (LANES_MAX - count)
}

/// The numbers of the bits that are set, in ascending order.
fn bits(mut rest: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let at = (rest != 0).then(|| rest.trailing_zeros())?;
        rest &= rest - 1;
        Some(at)
    })
}

fn lanes<P>(count: usize) -> Box<[Lane<P>]> {
    (0..count).map(|_| Lane::FREE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::{Arrival, Pattern};

    /// Receives come, and go from anywhere, with few different tags, so that many are equal: the one that a message finds is
    /// the oldest, whatever lanes they lie in.
    #[test]
    fn the_oldest_is_found_wherever_it_lies() {
        let mut seed = 11u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let (mut window, mut model) = (Window::new(), Vec::<(u64, Pattern)>::new());
        let (mut found, mut next) = (0, 0);
        for number in 0..60_000 {
            let full = 4 + number / 500 % 60;
            while model.len() < full && window.has_room() {
                let pattern = Pattern::tag(random(5) as u64).ignoring(u64::from(random(9) == 0));
                window.push(&Compiled::new(&pattern), next, next);
                model.push((next, pattern));
                next += 1;
            }
            if random(4) == 0 {
                let at = random(model.len());
                let (name, _) = model.remove(at);
                let lane = window.entries().find(|(_, lane)| lane.name == name).map(|(lane, _)| lane);
                assert_eq!(lane.and_then(|lane| window.remove(lane)), Some(name));
            }
            let arrival = Arrival { tag: random(5) as u64, untagged: false, source: 1 };
            let oldest = model.iter().position(|(_, pattern)| pattern.matches(&arrival));
            let oldest = oldest.map(|at| model.remove(at).0);
            let lane = window.find(&Key::of(&arrival));
            assert!(lane.is_none() || window.may_have(&Key::of(&arrival)));
            assert_eq!(lane.and_then(|lane| window.remove(lane)), oldest);
            found += usize::from(oldest.is_some());
            assert!(window.entries().map(|(_, lane)| lane.name).eq(model.iter().map(|(name, _)| *name)));
            assert_eq!(window.len(), model.len());
        }
        assert!(found > 20_000, "{found} messages found a receive");
    }

    fn push(window: &mut Window<u64>, tag: u64, name: u64) {
        assert!(window.has_room(), "there is room for receive {name}, with {} there", window.len());
        window.push(&Compiled::new(&Pattern::tag(tag)), name, name);
    }

    fn remove_youngest(window: &mut Window<u64>) {
        let youngest = window.entries().last().map(|(at, _)| at).expect("a receive");
        window.remove(youngest);
    }

    /// Old receives that stay keep no others out, wherever they lie.
    #[test]
    fn there_is_room_while_a_quarter_of_the_lanes_is_free() {
        for stay in [0, 1, 3, 11, 12, 40, 47] {
            let mut window = Window::new();
            (0..stay).for_each(|name| push(&mut window, name, name));
            for round in 0..1000 {
                push(&mut window, 100 + round, stay + round);
                remove_youngest(&mut window);
            }
            assert_eq!(window.len() as u64, stay);
        }
        let mut window = Window::new();
        (0..64).for_each(|name| push(&mut window, name, name));
        assert!(!window.has_room(), "sixty-four are there");
        (0..16).for_each(|_| remove_youngest(&mut window));
        push(&mut window, 1, 64);
    }

    #[test]
    fn few_receives_need_four_lanes() {
        let mut window = Window::new();
        for round in 0..1000 {
            push(&mut window, round, round);
            if window.len() == 3 {
                remove_youngest(&mut window);
                window.remove(window.oldest());
            }
        }
        assert_eq!(window.lanes.len(), LANES_FIRST);
    }

    #[test]
    fn what_has_gone_is_not_searched_for_long() {
        let mut window = Window::new();
        let key = |tag| Key::of(&Arrival { tag, untagged: false, source: 1 });
        push(&mut window, 5, 0);
        assert!(window.may_have(&key(5)) && !window.may_have(&key(6)) && !window.may_have(&key(7)));
        remove_youngest(&mut window);
        push(&mut window, 7, 1);
        for round in 0..u64::from(GONE_MAX) {
            push(&mut window, 6, 2 + round);
            assert!(window.may_have(&key(6)) && window.may_have(&key(7)));
            remove_youngest(&mut window);
        }
        assert!(!window.may_have(&key(5)));
        assert!(window.may_have(&key(7)));
    }

    #[test]
    fn neighbouring_tags_differ_in_print_and_place() {
        let marks = || (0..48).map(|tag| Mark::of(tag, false)).chain([Mark::of(0, true)]);
        let prints: std::collections::HashSet<u8> = marks().map(Mark::print).collect();
        let places: std::collections::HashSet<usize> = marks().map(Mark::place).collect();
        assert!(prints.len() > 40 && places.len() > 45, "{} prints, {} places", prints.len(), places.len());
    }
}
