//! The matcher: any sequence of operations gives what two plain lists give.

use super::{Input, note};
use sinew_proto::matching::{Arrival, Matcher, Pattern, PostId, Posted, UnexpectedId};

#[derive(Default)]
struct Lists {
    posted: Vec<(Pattern, u32, PostId)>,
    stored: Vec<(Arrival, u32, UnexpectedId)>,
    stale: Vec<PostId>,
}

/// The rule, said differently from the matcher's way.
fn wants(pattern: &Pattern, arrival: &Arrival) -> bool {
    pattern.untagged == arrival.untagged
        && (pattern.untagged || pattern.tag | pattern.ignore == arrival.tag | pattern.ignore)
        && pattern.source.is_none_or(|source| source == arrival.source)
}

fn arrival(input: &mut Input<'_>) -> Arrival {
    let (tag, rest) = (input.byte(), input.byte());
    Arrival {
        tag: u64::from(tag) | u64::from(tag & 3) << 40,
        untagged: rest & 15 == 0,
        source: u64::from(rest >> 6),
    }
}

fn pattern(input: &mut Input<'_>) -> Pattern {
    let Arrival { tag, untagged, source } = arrival(input);
    let rest = input.byte();
    let ignore = match rest >> 2 & 15 {
        0 => u64::MAX,
        1 => 0xf,
        2 => 0xff << 40,
        3 => u64::from(rest) | 1 << 40,
        _ => 0,
    };
    Pattern { tag, ignore, source: (rest & 1 == 0).then_some(source), untagged }
}

pub(super) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let seed = u64::from(input.byte());
    let mut matcher = Matcher::<u32, u32>::new(seed);
    let (mut lists, mut next, mut outcome) = (Lists::default(), 0, 0);
    while !input.is_empty() {
        next += 1;
        let code = input.byte();
        let event = step(code, &mut input, &mut matcher, &mut lists, next);
        outcome = note(outcome, event);
        assert_eq!(matcher.posted_len(), lists.posted.len());
        assert_eq!(matcher.unexpected_len(), lists.stored.len());
    }
    let left: Vec<u32> = lists.posted.iter().map(|(_, number, _)| *number).collect();
    assert_eq!(matcher.drain_posted().collect::<Vec<_>>(), left);
    // The sequence itself is no news; how many of what there were is.
    note(lists.stored.len().min(80) as u64, left.len().min(200) as u64 ^ outcome & 7)
}

fn step(
    code: u8,
    input: &mut Input<'_>,
    matcher: &mut Matcher<u32, u32>,
    lists: &mut Lists,
    number: u32,
) -> u64 {
    match code % 16 {
        0..=5 => {
            let pattern = pattern(input);
            let oldest = lists.stored.iter().position(|(arrival, ..)| wants(&pattern, arrival));
            match (matcher.post(pattern, number), oldest) {
                (Posted::Queued(id), None) => lists.posted.push((pattern, number, id)),
                (Posted::Matched(handle, arrival, message), Some(at)) => {
                    let (known, stored, _) = lists.stored.remove(at);
                    assert_eq!((handle, arrival, message), (number, known, stored));
                }
                (got, expected) => panic!("post: {got:?}, expected {expected:?}"),
            }
            0
        }
        6..=11 => {
            let arrival = arrival(input);
            let oldest = lists.posted.iter().position(|(pattern, ..)| wants(pattern, &arrival));
            let expected = oldest.map(|at| lists.posted.remove(at));
            lists.stale.extend(expected.map(|(_, _, id)| id));
            assert_eq!(matcher.arrive(&arrival), expected.map(|(_, number, _)| number));
            if expected.is_none() {
                let id = matcher.store(arrival, number);
                lists.stored.push((arrival, number, id));
            }
            1
        }
        12 => {
            let choice = usize::from(input.byte());
            if let Some(stale) = lists.stale.get(choice) {
                assert_eq!(matcher.cancel(*stale), None);
            }
            if !lists.posted.is_empty() {
                let (_, number, id) = lists.posted.remove(choice % lists.posted.len());
                assert_eq!(matcher.cancel(id), Some(number));
                lists.stale.push(id);
            }
            2
        }
        13 => {
            let pattern = pattern(input);
            let expected = lists.stored.iter().find(|(arrival, ..)| wants(&pattern, arrival)).copied();
            let found = matcher.probe(&pattern).map(|(id, arrival, message)| (*arrival, *message, id));
            assert_eq!(found, expected);
            3
        }
        14 => {
            let choice = usize::from(input.byte());
            if !lists.stored.is_empty() {
                let (arrival, number, id) = lists.stored.remove(choice % lists.stored.len());
                assert_eq!(
                    matcher.get_mut(id).map(|(known, message)| (*known, *message)),
                    Some((arrival, number))
                );
                assert_eq!(matcher.take(id), Some((arrival, number)));
                assert_eq!(matcher.take(id), None);
            }
            4
        }
        _ => sweep(input.byte(), matcher, lists),
    }
}

fn sweep(choice: u8, matcher: &mut Matcher<u32, u32>, lists: &mut Lists) -> u64 {
    let source = u64::from(choice >> 6);
    match choice & 3 {
        0 => {
            let mut removed = Vec::new();
            matcher.retain_posted(|pattern, _| pattern.source != Some(source), |number| removed.push(number));
            let gone = lists.posted.extract_if(.., |(pattern, ..)| pattern.source == Some(source));
            assert_eq!(removed, gone.map(|(_, number, _)| number).collect::<Vec<_>>());
        }
        1 => {
            let mut removed = Vec::new();
            matcher
                .retain_unexpected(|arrival, _| arrival.source != source, |_, number| removed.push(number));
            let gone = lists.stored.extract_if(.., |(arrival, ..)| arrival.source == source);
            assert_eq!(removed, gone.map(|(_, number, _)| number).collect::<Vec<_>>());
        }
        _ => matcher.release_memory(),
    }
    5
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let numbers = |range: std::ops::Range<u8>, codes: [u8; 2]| {
        let mut seed = vec![1];
        for number in range.clone() {
            seed.extend([codes[0], number, 0x41, 0xf0]);
        }
        for number in range.rev() {
            seed.extend([codes[1], number, 0x41]);
            seed.extend((codes[1] < 6).then_some(0xf0));
        }
        seed
    };
    let mixed = (0..400_u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 21) as u8).collect();
    vec![numbers(0..8, [0, 6]), numbers(0..200, [0, 6]), numbers(0..200, [6, 0]), mixed]
}
