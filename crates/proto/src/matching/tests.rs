//! The matcher against a list that is searched from end to end.

use super::*;
use proptest::prelude::*;

/// The oracle: two plain lists.
#[derive(Default)]
struct Naive {
    posted: Vec<(Pattern, u32)>,
    stored: Vec<(Arrival, u32)>,
}

fn wants(pattern: &Pattern, arrival: &Arrival) -> bool {
    if pattern.untagged != arrival.untagged || pattern.source.is_some_and(|source| source != arrival.source) {
        return false;
    }
    pattern.untagged
        || (0..64)
            .all(|bit| pattern.ignore >> bit & 1 == 1 || pattern.tag >> bit & 1 == arrival.tag >> bit & 1)
}

#[derive(Clone, Debug)]
enum Step {
    Post(Pattern),
    Message(Arrival),
    /// A message whose sender takes it back after so many other steps, if a receive has matched it.
    TakenBack(Arrival, usize),
    Cancel(usize),
    Probe(Pattern),
    TakeProbed(Pattern),
    RetainPosted(u64),
    RetainStored(u64),
    Drain(usize),
    Release,
    /// Takes a stored message and gives it back.
    GiveBack(Pattern),
}

fn arrivals() -> impl Strategy<Value = Arrival> {
    (0..40_u64, 0..3_u64, prop::bool::weighted(0.1)).prop_map(|(tag, source, untagged)| Arrival {
        tag: tag | tag << 40,
        untagged,
        source,
    })
}

fn patterns() -> impl Strategy<Value = Pattern> {
    let ignore = prop_oneof![
        20 => Just(0),
        1 => Just(u64::MAX),
        1 => Just(0xf),
        1 => Just(0xff << 40),
        2 => (0..64_u64).prop_map(|bits| bits | bits << 40),
    ];
    (arrivals(), ignore, prop::bool::weighted(0.4)).prop_map(|(arrival, ignore, any)| Pattern {
        tag: arrival.tag,
        ignore,
        source: (!any).then_some(arrival.source),
        untagged: arrival.untagged,
    })
}

fn steps(posts: u32, messages: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        posts => patterns().prop_map(Step::Post),
        messages => arrivals().prop_map(Step::Message),
        20 => (arrivals(), 0..20_usize).prop_map(|(arrival, later)| Step::TakenBack(arrival, later)),
        20 => any::<usize>().prop_map(Step::Cancel),
        10 => patterns().prop_map(Step::Probe),
        10 => patterns().prop_map(Step::TakeProbed),
        1 => (0..3_u64).prop_map(Step::RetainPosted),
        1 => (0..3_u64).prop_map(Step::RetainStored),
        1 => (0..20_usize).prop_map(Step::Drain),
        1 => Just(Step::Release),
        4 => patterns().prop_map(Step::GiveBack),
    ];
    prop::collection::vec(step, 0..600)
}

struct Both {
    matcher: Matcher<u32, u32>,
    naive: Naive,
    names: Vec<(PostId, u32)>,
    next: u32,
    /// Receives whose message will be taken back, with what they want, and in how many steps.
    begun: Vec<(Pattern, u32, usize)>,
}

impl Both {
    fn post(&mut self, pattern: Pattern) {
        self.next += 1;
        let oldest = self.naive.stored.iter().position(|(arrival, _)| wants(&pattern, arrival));
        let queued = if self.next.is_multiple_of(2) { self.matcher.queue(pattern, self.next) } else { None };
        assert!(queued.is_none() || self.naive.stored.is_empty());
        assert!(queued.is_some() || !self.next.is_multiple_of(2) || !self.naive.stored.is_empty());
        let posted = queued.map_or_else(|| self.matcher.post(pattern, self.next), Posted::Queued);
        match (posted, oldest) {
            (Posted::Matched(handle, arrival, message), Some(at)) => {
                assert_eq!(handle, self.next);
                assert_eq!((arrival, message), self.naive.stored.remove(at));
            }
            (Posted::Queued(id), None) => {
                self.naive.posted.push((pattern, self.next));
                self.names.push((id, self.next));
            }
            (got, expected) => panic!("post: got {got:?}, expected {expected:?}"),
        }
    }

    fn message(&mut self, arrival: Arrival) {
        self.next += 1;
        let oldest = self.naive.posted.iter().position(|(pattern, _)| wants(pattern, &arrival));
        let expected = oldest.map(|at| self.naive.posted.remove(at).1);
        let may_want = self.matcher.may_want(&arrival);
        assert!(may_want || expected.is_none(), "what is wanted may be wanted");
        assert!(!may_want || self.matcher.posted_len() > 0, "nobody is there to want it");
        assert_eq!(self.matcher.arrive(&arrival), expected);
        if expected.is_none() {
            self.matcher.store(arrival, self.next);
            self.naive.stored.push((arrival, self.next));
        }
    }

    fn begin(&mut self, arrival: Arrival, later: usize) {
        let oldest = self.naive.posted.iter().position(|(pattern, _)| wants(pattern, &arrival));
        let expected = oldest.map(|at| self.naive.posted.remove(at));
        let got = self.matcher.arrive_wanted(&arrival);
        let plain = |pattern: Pattern| Pattern {
            tag: if pattern.untagged { 0 } else { pattern.tag & !pattern.ignore },
            ignore: if pattern.untagged { 0 } else { pattern.ignore },
            ..pattern
        };
        assert_eq!(got, expected.map(|(pattern, number)| (number, plain(pattern))));
        self.begun.extend(got.map(|(number, pattern)| (pattern, number, later)));
    }

    /// Numbers grow in the order of posting, so they tell the place.
    fn take_back(&mut self, pattern: Pattern, number: u32) {
        let oldest = self.naive.stored.iter().position(|(arrival, _)| wants(&pattern, arrival));
        let names = &mut self.names;
        let renamed = |other, id| {
            let known = names.iter_mut().find(|(_, number)| *number == other).expect("it was posted");
            known.0 = id;
        };
        match (self.matcher.post_before(pattern, number, |&other| other > number, renamed), oldest) {
            (Posted::Matched(handle, arrival, message), Some(at)) => {
                assert_eq!(handle, number);
                assert_eq!((arrival, message), self.naive.stored.remove(at));
            }
            (Posted::Queued(id), None) => {
                let at = self.naive.posted.partition_point(|(_, other)| *other < number);
                self.naive.posted.insert(at, (pattern, number));
                self.names.retain(|(_, other)| *other != number);
                self.names.push((id, number));
            }
            (got, expected) => panic!("post again: got {got:?}, expected {expected:?}"),
        }
    }

    fn cancel(&mut self, choice: usize) {
        if self.names.is_empty() {
            return;
        }
        let (id, number) = self.names[choice % self.names.len()];
        let at = self.naive.posted.iter().position(|(_, known)| *known == number);
        let expected = at.map(|at| self.naive.posted.remove(at).1);
        assert_eq!(self.matcher.cancel(id), expected);
    }

    fn probe(&mut self, pattern: &Pattern) -> Option<UnexpectedId> {
        let expected = self.naive.stored.iter().find(|(arrival, _)| wants(pattern, arrival));
        let waiting = self.matcher.has_waiting(pattern);
        assert!(waiting.is_none_or(|waiting| waiting == expected.is_some()));
        assert!(waiting.is_some() || self.naive.stored.len() > 32, "so few are looked through");
        let found = self.matcher.probe(pattern).map(|(id, arrival, message)| (id, *arrival, *message));
        assert_eq!(found.map(|(_, arrival, message)| (arrival, message)), expected.copied());
        found.map(|(id, ..)| id)
    }

    /// A message is taken and given back into its place.
    fn give_back(&mut self, pattern: &Pattern) {
        let taken = self.matcher.claim(pattern);
        let at = self.naive.stored.iter().position(|(arrival, _)| wants(pattern, arrival));
        assert_eq!(taken, at.map(|at| self.naive.stored[at]));
        if let Some((arrival, number)) = taken {
            self.matcher.store_behind(arrival, number, |_, &other| other < number);
        }
    }

    fn apply(&mut self, step: &Step) {
        self.begun.iter_mut().for_each(|(_, _, left)| *left = left.saturating_sub(1));
        let over: Vec<_> = self.begun.extract_if(.., |(_, _, left)| *left == 0).collect();
        for (pattern, number, _) in over {
            self.take_back(pattern, number);
        }
        match step {
            Step::Post(pattern) => self.post(*pattern),
            Step::Message(arrival) => self.message(*arrival),
            Step::TakenBack(arrival, later) => self.begin(*arrival, *later),
            Step::Cancel(choice) => self.cancel(*choice),
            Step::Probe(pattern) => {
                self.probe(pattern);
            }
            Step::TakeProbed(pattern) => {
                if let Some(id) = self.probe(pattern) {
                    let taken = self.matcher.take(id).expect("the name was just given out");
                    self.naive.stored.retain(|stored| *stored != taken);
                    assert!(self.matcher.take(id).is_none());
                    assert!(self.matcher.get_mut(id).is_none());
                }
            }
            Step::RetainPosted(source) => {
                let (mut removed, mut expected) = (Vec::new(), Vec::new());
                self.matcher.retain_posted(|pattern, _| pattern.source != Some(*source), |p| removed.push(p));
                self.naive.posted.retain(|(pattern, number)| {
                    let keep = pattern.source != Some(*source);
                    if !keep {
                        expected.push(*number);
                    }
                    keep
                });
                assert_eq!(removed, expected);
            }
            Step::RetainStored(source) => {
                let (mut removed, mut expected) = (Vec::new(), Vec::new());
                self.matcher.retain_unexpected(
                    |arrival, _| arrival.source != *source,
                    |arrival, message| removed.push((arrival, message)),
                );
                self.naive.stored.retain(|stored| {
                    let keep = stored.0.source != *source;
                    if !keep {
                        expected.push(*stored);
                    }
                    keep
                });
                assert_eq!(removed, expected);
            }
            Step::Drain(count) => {
                let count = (*count).min(self.naive.posted.len());
                let expected: Vec<u32> = self.naive.posted.drain(..count).map(|(_, number)| number).collect();
                assert_eq!(self.matcher.drain_posted().take(count).collect::<Vec<_>>(), expected);
            }
            Step::Release => self.matcher.release_memory(),
            Step::GiveBack(pattern) => self.give_back(pattern),
        }
        assert_eq!(self.matcher.has_unexpected(), !self.naive.stored.is_empty());
        assert_eq!(self.matcher.posted_len(), self.naive.posted.len());
        assert_eq!(self.matcher.unexpected_len(), self.naive.stored.len());
    }
}

fn run(seed: u64, steps: &[Step]) {
    let mut both = Both {
        matcher: Matcher::new(seed),
        naive: Naive::default(),
        names: Vec::new(),
        next: 0,
        begun: Vec::new(),
    };
    for step in steps {
        both.apply(step);
    }
    let left: Vec<u32> = both.naive.posted.iter().map(|(_, number)| *number).collect();
    assert_eq!(both.matcher.drain_posted().collect::<Vec<_>>(), left);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn balanced_traffic_matches_as_the_oracle_does(seed: u64, steps in steps(100, 100)) {
        run(seed, &steps);
    }

    #[test]
    fn many_posted_receives_match_as_the_oracle_does(seed: u64, steps in steps(200, 60)) {
        run(seed, &steps);
    }

    #[test]
    fn many_unexpected_messages_match_as_the_oracle_does(seed: u64, steps in steps(60, 200)) {
        run(seed, &steps);
    }
}

#[test]
fn an_idle_matcher_is_small_and_owns_no_heap() {
    assert!(size_of::<Matcher<u64, u64>>() <= 64, "{}", size_of::<Matcher<u64, u64>>());
    let mut matcher = Matcher::<u64, u64>::new(0);
    assert!(matcher.arrive(&Arrival { tag: 0, untagged: false, source: 0 }).is_none());
    assert!(matcher.posted.is_none() && matcher.unexpected.is_none());
    assert!(matches!(matcher.post(Pattern::tag(1), 1), Posted::Queued(_)));
    assert_eq!(matcher.arrive(&Arrival { tag: 1, untagged: false, source: 0 }), Some(1));
    matcher.release_memory();
    assert!(matcher.posted.is_none() && matcher.unexpected.is_none());
}

#[test]
fn a_name_stays_worthless_after_its_place_is_used_again_and_after_release() {
    let mut matcher = Matcher::<u32, u32>::new(7);
    let Posted::Queued(first) = matcher.post(Pattern::tag(1), 1) else { panic!("queued") };
    assert_eq!(matcher.cancel(first), Some(1));
    let Posted::Queued(second) = matcher.post(Pattern::tag(1), 2) else { panic!("queued") };
    assert_eq!(matcher.cancel(first), None);
    assert_eq!(matcher.cancel(second), Some(2));
    matcher.release_memory();
    let Posted::Queued(_) = matcher.post(Pattern::tag(1), 3) else { panic!("queued") };
    assert_eq!(matcher.cancel(first), None);
    assert_eq!(matcher.cancel(second), None);
    assert_eq!(matcher.posted_len(), 1);
}

#[test]
fn a_receive_that_never_matches_does_not_make_the_queue_grow() {
    let mut matcher = Matcher::<u32, u32>::new(7);
    assert!(matches!(matcher.post(Pattern::tag(u64::MAX), 0), Posted::Queued(_)));
    for round in 0..100_000_u32 {
        let tag = u64::from(round % 7);
        assert!(matches!(matcher.post(Pattern::tag(tag), round), Posted::Queued(_)));
        assert_eq!(matcher.arrive(&Arrival { tag, untagged: false, source: 1 }), Some(round));
    }
    assert_eq!(matcher.posted_len(), 1);
}

#[test]
fn equal_keys_by_the_thousand_cost_the_search_for_another_key_nothing() {
    use super::table::{Hasher, Link, Table};
    let keys: Vec<u64> = (0..20_000).map(|number| if number % 10 == 0 { number } else { 5 }).collect();
    let looked = std::cell::Cell::new(0_u64);
    let key_of = |at: u32| {
        looked.set(looked.get() + 1);
        (keys[at as usize], 0)
    };
    let (mut table, mut links, hasher) = (Table::new(), vec![Link::UNUSED; keys.len()], Hasher::new(3));
    for at in 0..keys.len() as u32 {
        table.append(&mut links, &hasher, at, key_of);
    }
    for at in (0..keys.len() as u32).rev() {
        assert_eq!(table.find(&links, &hasher, (7, 0), key_of), super::slab::NONE);
        table.remove(&mut links, &hasher, at, key_of);
    }
    assert!(table.is_empty());
    // Each append, search and removal looks at a bucket or two of one or two keys, and growing looks at each key twice.
    assert!(looked.get() < 12 * keys.len() as u64, "looked at {} keys", looked.get());
}

#[test]
fn a_pattern_keeps_what_it_was_made_of() {
    let pattern = Pattern::tag(6).ignoring(1).from(3);
    assert_eq!(pattern, Pattern { tag: 6, ignore: 1, source: Some(3), untagged: false });
    assert_eq!(Pattern::tag(6).from(3).ignoring(1), pattern);
    let wanted = Wanted::new(&pattern);
    assert_eq!((wanted.source(), Wanted::new(&Pattern::untagged()).source()), (Some(3), None));
    let arrivals = (4..9).flat_map(|tag| (2..5).map(move |source| Arrival { tag, untagged: false, source }));
    for arrival in arrivals.chain([Arrival { tag: 6, untagged: true, source: 3 }]) {
        assert_eq!(wanted.accepts(&arrival), wants(&pattern, &arrival), "{arrival:?}");
    }
}

#[test]
fn a_message_that_no_receive_wants_is_known_to_be_unwanted() {
    let mut matcher = Matcher::<u32, u32>::new(7);
    let patterns =
        [Pattern::tag(1), Pattern::tag(2).from(9), Pattern::tag(16).ignoring(3), Pattern::untagged()];
    for (number, pattern) in (0..).zip(patterns) {
        assert!(matches!(matcher.post(pattern, number), Posted::Queued(_)));
    }
    for tag in 0..2000 {
        for (source, untagged) in [(1, false), (9, false), (1, true)] {
            let arrival = Arrival { tag, untagged, source };
            let wanted = patterns.iter().any(|pattern| wants(pattern, &arrival));
            assert_eq!(matcher.may_want(&arrival), wanted, "{arrival:?}");
        }
    }
}

/// More than the window holds, so that places of the list have names, too.
#[test]
fn names_of_receives_and_messages_stay_worthless_when_the_memory_was_given_back() {
    let mut matcher = Matcher::<u32, u32>::new(7);
    let mut names = Vec::new();
    for round in 0..4 {
        let before = names.len();
        for number in 0..200 {
            let Posted::Queued(name) = matcher.post(Pattern::tag(u64::from(number)), number) else {
                panic!("queued")
            };
            assert!(!names.contains(&name), "a name is given out twice in round {round}");
            names.push(name);
        }
        assert!(names[..before].iter().all(|name| matcher.cancel(*name).is_none()));
        assert_eq!(names[before..].iter().filter_map(|name| matcher.cancel(*name)).count(), 200);
        matcher.release_memory();
    }
    let mut names = Vec::new();
    for _ in 0..4 {
        let arrival = Arrival { tag: 1, untagged: false, source: 1 };
        let (first, second) = (matcher.store(arrival, 1), matcher.store(arrival, 2));
        assert!(names.iter().all(|name| matcher.get_mut(*name).is_none()), "{names:?} {first:?} {second:?}");
        assert_eq!(matcher.take(second).map(|(_, message)| message), Some(2));
        assert_eq!(matcher.take(first).map(|(_, message)| message), Some(1));
        names.extend([first, second]);
        matcher.release_memory();
    }
}

#[test]
fn keys_spread_over_buckets_by_the_matcher_s_seed() {
    use super::table::Hasher;
    let seeds: Vec<Hasher> = (0..256).map(Hasher::new).collect();
    for key in [(1, 0), (0, 1), (1 << 40, 0)] {
        let hashes: std::collections::HashSet<u64> =
            seeds.iter().map(|hasher| hasher.hash(key) >> 32).collect();
        assert_eq!(hashes.len(), seeds.len(), "two seeds put {key:?} into one bucket");
    }
    let rows: [fn(u64) -> (u64, u64); 4] =
        [|n| (n, 5), |n| (n << 20, 5), |n| (n << 48, 5), |n| (5, n << 32 | 7)];
    for hasher in &seeds[..8] {
        for (number, row) in rows.iter().enumerate() {
            let mut buckets = [0_u32; 1024];
            for n in 0..4096 {
                buckets[(hasher.hash(row(n)) >> 32) as usize % 1024] += 1;
            }
            let fullest = buckets.iter().max().copied().unwrap_or(0);
            assert!(fullest <= 64, "row {number}: {fullest} keys in one of 1,024 buckets");
        }
    }
}

#[test]
fn keys_that_differ_alike_in_tag_and_source_are_different() {
    use super::table::{Hasher, Link, Table};
    let (mut table, mut links, hasher) = (Table::new(), vec![Link::UNUSED; 4], Hasher::new(3));
    let keys = [(5, 9), (4, 8)];
    table.append(&mut links, &hasher, 0, |at| keys[at as usize]);
    assert_eq!(table.find(&links, &hasher, keys[0], |at| keys[at as usize]), 0);
    assert_eq!(table.find(&links, &hasher, keys[1], |at| keys[at as usize]), super::slab::NONE);
}

#[test]
fn a_message_given_back_goes_behind_those_of_others_with_its_followers() {
    let mut matcher = Matcher::<u32, u32>::new(7);
    let of = |source: u64| Arrival { tag: 1, untagged: false, source };
    for (source, number) in [(1, 10), (2, 20), (1, 11), (2, 21), (1, 12)] {
        matcher.store(of(source), number);
    }
    let any = Pattern { tag: 0, ignore: u64::MAX, source: None, untagged: false };
    let (arrival, number) = matcher.claim(&any).expect("the first");
    assert_eq!(number, 10);
    matcher.store_last(arrival, number, |_, &other| other / 10 == 1 && other > number);
    let order: Vec<u32> = std::iter::from_fn(|| matcher.claim(&any).map(|(_, number)| number)).collect();
    assert_eq!(order, [20, 21, 10, 11, 12]);
}
