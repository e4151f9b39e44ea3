//! Batches of receives whose caller polls: what they take, for how long, and what is left of them in the engine.

use super::{Rig, Wire, eager, envelope, words};
use crate::OpError;
use crate::batch::Receive;
use crate::completion::{Match, Source};
use crate::core::op::Op;
use crate::core::table::Key;
use crate::core::{Core, Until};
use sinew_wire::frame::{Header, Kind};

/// Polls for receives of these patterns: what each has got; and takes back what has become an operation.
fn polls(
    rig: &Rig,
    endpoint: u32,
    patterns: &[Match],
    until: Until,
) -> Vec<Option<Result<Vec<u8>, OpError>>> {
    let mut bufs = vec![[0; 8]; patterns.len()];
    let mut receives: Vec<Receive<'_>> =
        patterns.iter().zip(&mut bufs).map(|(&pattern, buf)| Receive::new(pattern, buf)).collect();
    rig.core(|core| core.recv_batch_direct(endpoint, &mut receives, until, || false));
    let got = receives.iter().map(|receive| {
        let result = receive.result()?;
        Some(result.clone().map(|_| receive.data().to_vec()))
    });
    let got = got.collect();
    assert_eq!(rig.core(|core| core.ops.len()), 0, "what waits is not in the engine");
    got
}

fn come(wire: &Wire, tags: impl IntoIterator<Item = u64>) {
    wire.state().arriving.extend(tags.into_iter().map(|tag| (eager(tag), vec![tag as u8; 4])));
}

fn got(tag: u8) -> Option<Result<Vec<u8>, OpError>> {
    Some(Ok(vec![tag; 4]))
}

fn same(one: &[Option<Result<Vec<u8>, OpError>>], other: &[Option<Result<Vec<u8>, OpError>>]) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}

#[test]
fn a_batch_takes_what_waits_in_the_order_of_its_receives() {
    let (rig, lane, wire) = Rig::hot();
    for tag in [1, 2, 2] {
        rig.comes(lane, &wire, eager(tag), &[tag as u8; 4]);
    }
    let patterns = [3, 3, 2, 1, 2, 2].map(Match::tag);
    same(&polls(&rig, 1, &patterns, Until::Now), &[None, None, got(2), got(1), got(2), None]);
    let closed = polls(&rig, 2, &patterns[..2], Until::Now);
    assert!(closed.iter().all(|result| matches!(result, Some(Err(OpError::EngineClosed)))));
    // What comes meanwhile is for the first that wants it.
    come(&wire, [2, 1, 2]);
    let patterns = [Match::any_tag(), Match::tag(2), Match::any_tag()];
    same(&polls(&rig, 1, &patterns, Until::All), &[got(2), got(2), got(1)]);
    // The same where the lane shows its frames.
    wire.state().peeks = true;
    come(&wire, [1, 2, 3]);
    let patterns = [1, 2, 3].map(Match::tag);
    same(&polls(&rig, 1, &patterns, Until::All), &[got(1), got(2), got(3)]);
    let counted = rig.core(|core| core.endpoint(1).map(|endpoint| endpoint.messages_received));
    assert_eq!(counted, Some(9));
}

#[test]
fn a_batch_polls_as_long_as_it_was_told() {
    let turns = |until: Until, tags: &[u64]| {
        let (rig, _lane, wire) = Rig::hot();
        come(&wire, tags.iter().copied());
        let before = wire.state().polls;
        polls(&rig, 1, &[Match::tag(1), Match::tag(2)], until);
        let after = wire.state().polls;
        after - before
    };
    assert_eq!(turns(Until::Now, &[]), 1, "nothing is there");
    assert_eq!(turns(Until::Now, &[1]), 2, "nothing more is there");
    assert_eq!(turns(Until::Some, &[1]), 2);
    assert_eq!(turns(Until::Some, &[]), 256);
    assert_eq!(turns(Until::All, &[1]), 256);
    for until in [Until::Now, Until::Some, Until::All] {
        assert_eq!(turns(until, &[1, 2]), 1, "all have ended");
    }
    // Others want the lock, or something is to be done outside of it.
    let (rig, _lane, wire) = Rig::hot();
    let before = wire.state().polls;
    let mut buf = [0; 8];
    let mut receives = [Receive::new(1, &mut buf)];
    rig.core(|core| core.recv_batch_direct(1, &mut receives, Until::All, || true));
    assert_eq!(wire.state().polls, before + 1);
    come(&wire, [7]);
    rig.core(|core| core.recv_batch_direct(1, &mut receives, Until::All, || false));
    assert_eq!(wire.state().polls, before + 2);
}

#[test]
fn a_batch_of_too_many_is_not_polled_for() {
    for (count, polled) in [(64, true), (65, false)] {
        let (rig, _lane, wire) = Rig::hot();
        come(&wire, [1]);
        let before = wire.state().polls;
        let got = polls(&rig, 1, &vec![Match::tag(1); count], Until::Now);
        assert_eq!((got[0].is_some(), wire.state().polls > before), (polled, polled), "{count}");
    }
}

/// Receives of others go on.
#[test]
fn receives_of_a_batch_end_with_the_last_session_of_whom_they_wait_for() {
    let (rig, _lane, wire) = Rig::hot();
    wire.state().arriving.push_back((Header::control(Kind::GOODBYE, 0), Vec::new()));
    let of = |number: u32| Match::any_tag().from(Source::new(rig.session.0, number, 3));
    let got = polls(&rig, 1, &[of(2), of(1), Match::any_tag(), of(1)], Until::Now);
    let lost = |at: usize| matches!(got[at], Some(Err(OpError::PeerLost { .. })));
    assert_eq!([0, 1, 2, 3].map(lost), [false, true, false, true]);
}

/// A receive that loses its message finds its place among those of the batch.
#[test]
fn receives_of_a_batch_are_posted_when_an_older_one_must_wait_again() {
    let (rig, lane, wire) = Rig::hot();
    rig.core(|core| core.create_endpoint(None)).unwrap();
    let older = rig.post(9, 8);
    rig.comes(lane, &wire, envelope(9), &words(&[5, 1000]));
    let (mut one, mut two) = ([0; 8], [0; 8]);
    for number in [2, 1] {
        wire.state().arriving.push_back((Header::control(Kind::WITHDRAW, 5), Vec::new()));
        let mut receives = [Receive::new(9, &mut one), Receive::new(8, &mut two)];
        rig.core(|core| {
            core.recv_batch_direct(number, &mut receives, Until::Now, || false);
            let posted: Vec<Key> = core.ops.keys();
            if number == 2 {
                assert_eq!(posted, [older], "that is another endpoint's");
                assert!(receives.iter().all(Receive::is_open));
                return;
            }
            assert_eq!(posted.len(), 3);
            assert!(receives.iter().all(|receive| !receive.is_open() && receive.result().is_none()));
        });
        if number == 2 {
            // The next message that it fetches.
            rig.comes(lane, &wire, envelope(9), &words(&[5, 1000]));
            continue;
        }
        rig.comes(lane, &wire, eager(9), b"older");
        assert_eq!(rig.got(older), Some(b"older".to_vec()));
        rig.comes(lane, &wire, eager(8), b"batch");
        rig.comes(lane, &wire, eager(9), b"batch");
        rig.core(|core: &mut Core| {
            let over: Vec<bool> = core.ops.keys().into_iter().map(|key| core.is_over(key)).collect();
            assert_eq!(over, [true; 3]);
            for key in core.ops.keys() {
                let Some(Op::Recv(op)) = core.ops.get(key) else { panic!("a receive") };
                assert!(key == older || op.memory.len() == 8);
                core.cancel_recv(key);
            }
        });
        assert_eq!(receives.each_ref().map(|receive| receive.room()), [8, 8]);
    }
    assert_eq!((&one[..5], &two[..5]), (&b"batch"[..], &b"batch"[..]));
}
