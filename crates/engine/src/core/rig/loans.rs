//! Messages on loan, the short way: announced, shown where they lie, given back.

use super::bundle::frame;
use super::{Rig, Wire, eager, envelope, words};
use crate::completion::{Completion, Match};
use crate::core::op::{Loan, Memory, Op, SendOp, SendState};
use crate::core::rendezvous::Status;
use crate::core::session::{Kept, Session};
use crate::core::table::Key;
use crate::core::{Core, Look, SELF_OWNER, Shown};
use sinew_proto::matching::Wanted;
use sinew_transport::Buf;
use sinew_wire::frame::{Flags, Header, Kind};
use std::sync::Arc;

/// A lane that shows its frames, and lends a thousand bytes.
fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::hot();
    rig.core(|core| core.sessions.get_mut(rig.session).unwrap().flow_to(5));
    {
        let mut state = wire.state();
        (state.peeks, state.describes) = (true, true);
        state.views = Some(Arc::new(vec![8; 1000]));
    }
    (rig, lane, wire)
}

fn session<R>(rig: &Rig, look: impl FnOnce(&mut Session) -> R) -> R {
    rig.core(|core| look(core.sessions.get_mut(rig.session).unwrap()))
}

fn lend(wire: &Wire, header: Header, number: u64, len: u64) {
    let header = Header { flags: header.flags.with(Flags::DESCRIPTOR), ..header };
    wire.state().arriving.push_back((header, [words(&[number, len]), vec![1; 24]].concat()));
}

/// What a look brings: its length, and whether it is lent.
fn looks(core: &mut Core, pattern: Match, len_max: usize) -> Result<(Completion, Shown), Look> {
    let mut got = None;
    match (core.view_quick(1, &Wanted::new(&pattern.into()), len_max, &mut got), got) {
        (Look::Done, Some(shown)) => Ok(shown),
        (look, _) => Err(look),
    }
}

#[test]
fn a_message_on_loan_is_shown_and_counted_in_its_full_length() {
    let (rig, _lane, wire) = rig();
    let books = || {
        rig.core(|core| {
            let windows = core.config.windows;
            let session = core.sessions.get_mut(rig.session).unwrap();
            let (received, all) = (session.received, session.granted_envelopes.announce());
            let endpoint = core.endpoint(1).unwrap();
            let counted = (endpoint.messages_received, endpoint.bytes_received);
            (received, all, endpoint.inflow(rig.session, &windows).envelopes.announce(), counted)
        })
    };
    let before = books();
    rig.core(|core| {
        for number in 5..7 {
            lend(&wire, envelope(9), number, 1000);
            let (info, shown) = looks(core, Match::tag(9), 1000).expect("it is shown");
            let Shown::Lent(view, loan) = shown else { panic!("it is lent") };
            assert_eq!((info.len, info.tag, info.source.endpoint()), (1000, 9, 3));
            assert_eq!((view.body().to_vec(), loan.sender_op), (vec![8; 1000], number));
        }
        assert_eq!(core.counters.envelopes, 2);
        assert!(matches!(looks(core, Match::tag(9), 1000), Err(Look::Nothing)));
    });
    let (received, all, own, counted) = books();
    assert_eq!((received, all, own, counted), (before.0 + 2, before.1 + 2, before.2 + 2, (2, 2000)));
    assert!(rig.core(|core| !core.lanes.get(core.last_hot).unwrap().lane.as_ref().unwrap().has_more()));
}

#[test]
fn so_many_are_shown_as_envelopes_are_granted() {
    let (rig, _lane, wire) = rig();
    rig.core(|core| {
        let windows = core.config.windows;
        let endpoint = core.endpoint(1).unwrap();
        let granted = endpoint.inflow(rig.session, &windows).envelopes.headroom();
        assert!(
            granted > 1 && granted < core.sessions.get(rig.session).unwrap().granted_envelopes.headroom()
        );
        for number in 0..=granted {
            lend(&wire, envelope(9), number, 1000);
        }
        let shown = (0..=granted).take_while(|_| looks(core, Match::tag(9), 1000).is_ok()).count();
        assert_eq!(shown as u64, granted);
    });
}

#[test]
fn what_a_look_does_not_want_or_cannot_show_is_left_to_the_long_way() {
    let plain = envelope(9);
    let flagged = |flag: Flags| Header { flags: flag, ..plain };
    let cases: [(&str, Header, u64, usize, bool); 8] = [
        ("as it is", plain, 1000, 1000, true),
        ("longer than wanted", plain, 1000, 999, false),
        ("shorter than it says", plain, 1001, 2000, false),
        ("longer than it says", plain, 999, 2000, false),
        ("with an immediate", flagged(Flags::IMMEDIATE), 1000, 1000, false),
        ("from the reserve", flagged(Flags::RESERVE), 1000, 1000, false),
        ("for another endpoint", Header { dst: 2, ..plain }, 1000, 1000, false),
        ("of another tag", envelope(8), 1000, 1000, false),
    ];
    for (case, header, len, len_max, shown) in cases {
        let (rig, _lane, wire) = rig();
        lend(&wire, header, 5, len);
        let look = rig.core(|core| looks(core, Match::tag(9), len_max));
        assert_eq!(look.is_ok(), shown, "{case}");
        assert!(shown || matches!(look, Err(Look::Other)), "{case}");
    }
    // Another receive may want it, and one without a descriptor must be fetched.
    let (rig, _lane, wire) = rig();
    rig.post(9, 1000);
    lend(&wire, plain, 5, 1000);
    assert!(matches!(rig.core(|core| looks(core, Match::tag(9), 1000)), Err(Look::Other)));
    let (rig, _lane, wire) = self::rig();
    wire.state().arriving.push_back((plain, words(&[5, 1000])));
    assert!(matches!(rig.core(|core| looks(core, Match::tag(9), 1000)), Err(Look::Other)));
}

#[test]
fn a_message_that_is_not_lent_is_copied_also_out_of_a_bundle() {
    let copied = |core: &mut Core, tag: u64, len_max: usize| match looks(core, Match::tag(tag), len_max) {
        Ok((info, Shown::Copied(bytes))) => Some((info.len, bytes)),
        Ok(_) => panic!("it is lent"),
        Err(Look::More) => Some((0, Vec::new())),
        Err(_) => None,
    };
    let (rig, _lane, wire) = rig();
    wire.state().arriving.push_back((eager(9), vec![3; 10]));
    let (bundle, body) = frame([1, 2, 3]);
    wire.state().arriving.push_back((Header { dst: 1, ..bundle }, body));
    rig.core(|core| {
        assert_eq!(copied(core, 9, 9), None, "it is longer");
        assert_eq!(copied(core, 9, 10), Some((10, vec![3; 10])));
        assert_eq!(copied(core, 1, 10), Some((0, Vec::new())), "a bundle was taken in");
        assert_eq!(copied(core, 2, 1), None, "it is longer");
        assert_eq!(copied(core, 2, 2), Some((2, vec![2; 2])));
        assert_eq!(copied(core, 4, 10), None);
        assert_eq!(copied(core, 1, 10), Some((1, vec![1])));
    });
    // What another receive may want is not taken out of a bundle either.
    let (rig, _lane, wire) = self::rig();
    let other = rig.post(2, 10);
    let (bundle, body) = frame([1, 2, 3]);
    wire.state().arriving.push_back((Header { dst: 1, ..bundle }, body));
    rig.core(|core| {
        assert_eq!(copied(core, 2, 10), Some((0, Vec::new())));
        assert_eq!(copied(core, 2, 10), None);
        assert_eq!(copied(core, 3, 10), Some((3, vec![3; 3])));
    });
    assert_eq!(rig.got(other), Some(vec![2; 2]));
}

#[test]
fn a_word_about_a_send_is_taken_the_short_way_if_it_ends_it() {
    type Change = fn(&mut SendOp);
    let cases: [(Change, Status, bool); 5] = [
        (|_| (), Status::Taken, true),
        (|_| (), Status::NoEndpoint, false),
        (|op| op.session = Key(77 << 32), Status::Taken, false),
        (|op| op.references = 1, Status::Taken, false),
        (|op| op.state = SendState::Queued, Status::Taken, false),
    ];
    for (at, (change, status, ends)) in cases.into_iter().enumerate() {
        let (rig, _lane, wire) = rig();
        let memory = Memory::Owned(vec![1; 10].into());
        let mut op =
            SendOp { state: SendState::Announced, ..SendOp::new((rig.session, 0), eager(9), None, memory) };
        change(&mut op);
        let received = session(&rig, |session| session.received);
        rig.core(|core| {
            let key = core.ops.insert(Op::Send(op));
            let body = (status as u32).to_le_bytes().to_vec();
            // Each end is a frame of its own.
            wire.state().arriving.push_back((Header::control(Kind::DONE, key.0), body));
            let look = looks(core, Match::tag(9), 10);
            assert!(matches!((look, ends), (Err(Look::More), true) | (Err(Look::Other), false)), "{at}");
            assert_eq!(core.is_over(key), ends, "{at}");
        });
        assert_eq!(session(&rig, |session| session.received), received + u64::from(ends), "{at}");
    }
    // Another word about it does not end it.
    let (rig, _lane, wire) = rig();
    rig.core(|core| {
        let memory = Memory::Owned(vec![1; 10].into());
        let op =
            SendOp { state: SendState::Announced, ..SendOp::new((rig.session, 0), eager(9), None, memory) };
        let key = core.ops.insert(Op::Send(op));
        wire.state().arriving.push_back((Header::control(Kind::FLUSH_REPLY, key.0), vec![0; 4]));
        assert!(matches!(looks(core, Match::tag(9), 10), Err(Look::Other)));
        assert!(!core.is_over(key));
    });
}

fn announce(rig: &Rig) -> bool {
    let buf: Buf = vec![4; 2000].into();
    let header = Header { dst: 5, src: 1, ..eager(9) };
    rig.core(|core| core.announce_quick(rig.session, 0, &header, &buf).is_some())
}

#[test]
fn a_message_is_announced_the_short_way_when_nothing_is_in_the_way() {
    let (rig, lane, wire) = rig();
    let (sent, frames) =
        (session(&rig, |session| session.sent), rig.core(|core| core.lanes.get(lane).unwrap().frames_sent));
    let windows = rig.core(|core| core.config.windows);
    for _ in 0..2 {
        let key = rig.core(|core| core.ops.next_key());
        assert!(announce(&rig));
        let went = wire.take();
        let header =
            Header { flags: Flags::DESCRIPTOR, dst: 5, src: 1, ..Header::control(Kind::ENVELOPE, 9) };
        assert_eq!(went, [(header, [words(&[key.0, 2000]), vec![1; 24]].concat())]);
    }
    let (now, envelopes) = session(&rig, |session| {
        (session.sent, [session.envelopes.available(), session.flows[0].envelopes.available()])
    });
    assert_eq!(now, sent + 2);
    assert_eq!(envelopes, [windows.session_envelopes - 2, windows.endpoint_envelopes - 2]);
    rig.core(|core| {
        assert_eq!(core.lanes.get(lane).unwrap().frames_sent, frames + 2);
        let endpoint = core.endpoint(1).unwrap();
        assert_eq!((endpoint.messages_sent, endpoint.bytes_sent), (2, 4000));
        assert!(core.astir.contains(&lane));
    });
    let changes: [fn(&mut Session); 5] = [
        |session| session.ready = false,
        |session| session.flows[0].pending.push_back(Key(77 << 32)),
        |session| session.flows[0].closed = true,
        |session| session.active = None,
        // A reserve is for those that are fetched.
        |session| while matches!(session.envelopes.try_take(1), sinew_proto::credit::Take::Taken) {},
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let (rig, _lane, wire) = self::rig();
        session(&rig, change);
        assert!(!announce(&rig), "{at}");
        assert!(wire.take().is_empty());
        session(&rig, |session| session.flows[0].pending.clear());
    }
    let (rig, lane, wire) = self::rig();
    wire.state().full = true;
    assert!(!announce(&rig));
    wire.state().full = false;
    wire.state().describes = false;
    assert!(!announce(&rig));
    wire.state().describes = true;
    rig.core(|core| core.lanes.get_mut(lane).unwrap().owner = SELF_OWNER);
    assert!(!announce(&rig), "the lane to itself");
    let (rig, _lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| core.sessions.get_mut(rig.session).unwrap().flow_to(5));
    wire.state().describes = true;
    assert!(!announce(&rig), "a socket");
}

fn give_back(rig: &Rig) -> bool {
    let loan = Loan { session: rig.session, sender_op: 5 };
    rig.core(|core| core.return_quick(loan, &mut None))
}

#[test]
fn a_loan_is_given_back_at_once_when_nothing_is_in_the_way() {
    let (rig, lane, wire) = rig();
    session(&rig, |session| {
        session.kept.insert(5, Kept { endpoint: 1, op: None });
        session.kept.insert(6, Kept { endpoint: 1, op: None });
    });
    let sent = || {
        (session(&rig, |session| session.sent), rig.core(|core| core.lanes.get(lane).unwrap().frames_sent))
    };
    let before = sent();
    assert!(give_back(&rig));
    assert_eq!(wire.take(), [(Header::control(Kind::DONE, 5), vec![0; 4])]);
    assert_eq!(sent(), (before.0 + 1, before.1 + 1));
    assert_eq!(session(&rig, |session| session.kept.keys().copied().collect::<Vec<_>>()), [6]);
    wire.state().full = true;
    assert!(!give_back(&rig));
    wire.state().full = false;
    session(&rig, |session| session.ready = false);
    assert!(!give_back(&rig));
    session(&rig, |session| session.ready = true);
    assert!(give_back(&rig));
    rig.core(|core| core.lanes.get_mut(lane).unwrap().owner = SELF_OWNER);
    assert!(!give_back(&rig), "the lane to itself");
    wire.take();
    let (rig, _lane, _wire) = Rig::carried([0; 16]);
    assert!(!give_back(&rig), "a socket");
    let gone = Loan { session: Key(77 << 32), sender_op: 5 };
    assert!(rig.core(|core| core.return_quick(gone, &mut None)), "there is nobody to tell");
}
