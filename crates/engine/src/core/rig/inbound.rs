//! What a peer's frames may say, and what they are answered: sizes, numbers and names are its word, and credit is counted to the byte.

use super::{Rig, Wire, words};
use crate::completion::Match;
use crate::core::Started;
use crate::core::op::Memory;
use crate::core::rendezvous::Status;
use crate::core::session::{Control, ControlBody};
use crate::core::table::Key;
use sinew_wire::frame::{Flags, Header, Kind};

const LESS: [u8; 16] = [0; 16];

/// A rig with an endpoint, which has number 1.
pub(super) fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::carried(LESS);
    assert_eq!(rig.core(|core| core.create_endpoint(Some("first"))).unwrap(), 1);
    (rig, lane, wire)
}

pub(super) fn is_up(rig: &Rig) -> bool {
    rig.core(|core| core.sessions.get(rig.session).is_some_and(|session| session.is_up()))
}

/// The frame comes, and what the engine answers goes out.
pub(super) fn answers(
    rig: &Rig,
    lane: Key,
    wire: &Wire,
    header: Header,
    body: &[u8],
) -> Vec<(Header, Vec<u8>)> {
    wire.take();
    rig.comes(lane, wire, header, body);
    rig.core(|core| core.progress());
    wire.take()
}

pub(super) fn eager(dst: u32, flags: Flags) -> Header {
    Header { kind: Kind::EAGER, flags, dst, src: 3, tag: 9 }
}

pub(super) fn envelope(dst: u32, flags: Flags) -> Header {
    Header { dst, src: 3, flags, ..Header::control(Kind::ENVELOPE, 9) }
}

#[test]
fn a_message_says_its_immediate_in_eight_bytes_or_ends_the_session() {
    let (rig, lane, wire) = rig();
    let key = rig.post(Match::any_tag(), 64);
    rig.comes(lane, &wire, eager(1, Flags::IMMEDIATE), &words(&[77, 5]));
    assert_eq!(rig.got(key), Some(words(&[5])));
    rig.comes(lane, &wire, eager(1, Flags::IMMEDIATE), &words(&[77])[..7]);
    assert!(!is_up(&rig));
}

#[test]
fn a_message_for_nobody_is_answered_and_costs_what_it_says() {
    let (rig, lane, wire) = rig();
    for dst in [0, 2, u32::MAX] {
        let said = answers(&rig, lane, &wire, eager(dst, Flags(0)), &[1; 100]);
        let closed = Header { src: dst, ..Header::control(Kind::ENDPOINT_CLOSED, 0) };
        assert_eq!(said, [(closed, Vec::new())]);
    }
    // It is given back at once, and the peer hears of it when half a window is.
    let window = rig.core(|core| core.config.windows.session_bytes);
    let (cost, mut spent) = (4000 + 64, 3 * 164);
    while spent + cost < window / 2 {
        let said = answers(&rig, lane, &wire, eager(2, Flags(0)), &[1; 4000]);
        assert_eq!(said.len(), 1, "{spent} of {window}");
        spent += cost;
    }
    let said = answers(&rig, lane, &wire, eager(2, Flags(0)), &[1; 4000]);
    let credit = said.iter().find(|(header, _)| header.kind == Kind::CREDIT).expect("credit");
    assert_eq!((credit.0.dst, credit.1[..8].to_vec()), (0, words(&[window + spent + cost])));
    // One that is paid from a reserve costs the session nothing.
    let said = answers(&rig, lane, &wire, eager(2, Flags::RESERVE), &[1; 4000]);
    assert_eq!(said.len(), 1);
    assert_eq!(
        rig.core(|core| core.sessions.get_mut(rig.session).unwrap().granted_bytes.announce()),
        window + spent + cost
    );
}

#[test]
fn an_envelope_that_says_too_little_or_too_much_ends_the_session() {
    let good = words(&[5, 1000]);
    let cases: [(Flags, Vec<u8>, bool); 8] = [
        (Flags(0), good.clone(), true),
        (Flags(0), good[..15].to_vec(), false),
        (Flags::IMMEDIATE, words(&[5, 1000, 7]), true),
        (Flags::IMMEDIATE, words(&[5, 1000, 7])[..23].to_vec(), false),
        (Flags::DESCRIPTOR, words(&[5, 1000]), false),
        (Flags(0), words(&[5, isize::MAX as u64]), true),
        (Flags(0), words(&[5, isize::MAX as u64 + 1]), false),
        (Flags(0), words(&[5, u64::MAX]), false),
    ];
    for (flags, body, well) in cases {
        let (rig, lane, wire) = rig();
        rig.comes(lane, &wire, envelope(1, flags), &body);
        assert_eq!(is_up(&rig), well, "{flags:?} {body:?}");
        assert_eq!(rig.core(|core| core.counters.envelopes), u64::from(well));
    }
}

#[test]
fn a_message_is_announced_once_until_it_is_taken_back() {
    let (rig, lane, wire) = rig();
    rig.comes(lane, &wire, envelope(1, Flags(0)), &words(&[5, 1000]));
    rig.comes(lane, &wire, envelope(1, Flags(0)), &words(&[6, 1000]));
    rig.comes(lane, &wire, Header::control(Kind::WITHDRAW, 5), &[]);
    rig.comes(lane, &wire, Header::control(Kind::WITHDRAW, 99), &[]);
    rig.comes(lane, &wire, envelope(1, Flags(0)), &words(&[5, 1000]));
    assert!(is_up(&rig));
    let waiting = rig.core(|core| core.sessions.get(rig.session).unwrap().kept.len());
    assert_eq!(waiting, 2);
    rig.comes(lane, &wire, envelope(1, Flags(0)), &words(&[6, 1000]));
    assert!(!is_up(&rig));
}

#[test]
fn an_envelope_for_nobody_is_over_at_once() {
    let (rig, lane, wire) = rig();
    let said = answers(&rig, lane, &wire, envelope(2, Flags(0)), &words(&[5, 1000]));
    let done: Vec<&(Header, Vec<u8>)> = said.iter().filter(|(header, _)| header.kind == Kind::DONE).collect();
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].0.tag, 5);
    assert_eq!(done[0].1.first(), Some(&(Status::NoEndpoint as u8)));
    let granted = rig.core(|core| core.config.windows.session_envelopes);
    // All of them come back: more than were granted may come, one after the other, once that was said.
    for number in 0..granted {
        answers(&rig, lane, &wire, envelope(2, Flags(0)), &words(&[6 + number, 1000]));
        assert!(is_up(&rig), "{number} of {granted}");
    }
}

#[test]
fn an_endpoint_is_found_by_number_by_name_and_as_the_first_one() {
    let (rig, lane, wire) = rig();
    let name = "x".repeat(64);
    assert_eq!(rig.core(|core| core.create_endpoint(Some(&name))).unwrap(), 2);
    let found = |dst: u32, name: &[u8]| {
        let header = Header { dst, ..Header::control(Kind::LOOKUP, 4711) };
        let said = answers(&rig, lane, &wire, header, name);
        assert_eq!(said.len(), 1);
        assert_eq!((said[0].0.kind, said[0].0.tag), (Kind::LOOKUP_REPLY, 4711));
        said[0].0.src
    };
    assert_eq!(found(0, b""), 1);
    assert_eq!(found(0, b"first"), 1);
    assert_eq!(found(0, name.as_bytes()), 2);
    assert_eq!(found(0, b"nobody"), 0);
    assert_eq!(found(0, &[0xff, 0xfe]), 0);
    assert_eq!(found(2, b"first"), 2, "a number is more than a name");
    assert_eq!(found(3, b"first"), 0);
    rig.comes(lane, &wire, Header::control(Kind::LOOKUP, 1), &[b'x'; 65]);
    assert!(!is_up(&rig));
}

#[test]
fn a_flush_is_answered_with_its_number() {
    let (rig, lane, wire) = rig();
    let said = answers(&rig, lane, &wire, Header::control(Kind::FLUSH, 4711), &[]);
    assert_eq!(said, [(Header::control(Kind::FLUSH_REPLY, 4711), Vec::new())]);
}

/// An answer counts for what was asked, on the session on which it was, and once.
#[test]
fn an_answer_to_something_else_ends_nothing() {
    let (rig, lane, wire) = rig();
    let ask = |kind| {
        let key = rig.core(|core| {
            let header = Header::control(kind, 0);
            let memory = Memory::Owned(Vec::new().into());
            core.start_send(rig.session, 0, header, None, memory, false)
        });
        rig.core(|core| core.progress());
        key
    };
    rig.core(|core| core.sessions.get_mut(rig.session).unwrap().flow_to(1));
    let (flush, lookup) = (ask(Kind::FLUSH), ask(Kind::LOOKUP));
    assert_eq!(wire.take().len(), 2);
    let ended = |key: Key| rig.core(|core| core.collect_answer(key));
    rig.comes(lane, &wire, Header { src: 4, ..Header::control(Kind::LOOKUP_REPLY, flush.0) }, &[]);
    rig.comes(lane, &wire, Header { src: 4, ..Header::control(Kind::FLUSH_REPLY, lookup.0) }, &[]);
    rig.comes(lane, &wire, Header::control(Kind::FLUSH_REPLY, 4711 << 32), &[]);
    assert!(ended(flush).is_none() && ended(lookup).is_none());
    rig.comes(lane, &wire, Header { src: 4, ..Header::control(Kind::LOOKUP_REPLY, lookup.0) }, &[]);
    assert!(matches!(ended(lookup), Some(Ok(4))));
    rig.comes(lane, &wire, Header::control(Kind::FLUSH_REPLY, flush.0), &[]);
    assert!(matches!(ended(flush), Some(Ok(0))));
    let nobody = ask(Kind::LOOKUP);
    rig.comes(lane, &wire, Header::control(Kind::LOOKUP_REPLY, nobody.0), &[]);
    assert!(ended(nobody).is_some_and(|result| result.is_err()), "there is no such endpoint");
}

#[test]
fn sends_to_an_endpoint_that_closes_end_and_those_to_others_go_on() {
    let (rig, lane, wire) = rig();
    wire.state().full = true;
    let send = |dst: u32| {
        rig.core(|core| {
            let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(dst);
            let header = Header { src: 1, ..eager(dst, Flags(0)) };
            core.start_send(rig.session, flow, header, None, Memory::Owned(vec![1; 10].into()), false)
        })
    };
    let (gone, stays) = (send(5), send(6));
    let closed = |number| Header { src: number, ..Header::control(Kind::ENDPOINT_CLOSED, 0) };
    rig.comes(lane, &wire, closed(77), &[]);
    rig.comes(lane, &wire, closed(5), &[]);
    assert!(matches!(
        rig.core(|core| core.collect_send(gone)),
        Some((Err(crate::OpError::EndpointClosed), _))
    ));
    assert!(rig.core(|core| core.collect_send(stays)).is_none());
    wire.state().full = false;
    rig.core(|core| core.progress());
    assert_eq!(wire.of(Kind::EAGER).iter().map(|header| header.dst).collect::<Vec<_>>(), [6]);
}

#[test]
fn so_many_answers_may_wait_and_no_request_is_taken_beyond() {
    for (waiting, well) in [(1 << 16, true), ((1 << 16) + 1, false)] {
        let (rig, lane, wire) = rig();
        wire.state().full = true;
        rig.core(|core| {
            let session = core.sessions.get_mut(rig.session).unwrap();
            for _ in 0..waiting {
                let header = Header::control(Kind::FLUSH_REPLY, 1);
                session.outbox.push_back(Control { header, body: ControlBody::from([]) });
            }
        });
        rig.comes(lane, &wire, Header::control(Kind::WITHDRAW, 1), &[]);
        assert_eq!(is_up(&rig), well, "{waiting}");
    }
}

/// A lane that carries no traffic is not measured.
#[test]
fn what_comes_counts_as_traffic_and_what_nobody_waited_for_is_counted() {
    let (rig, lane, wire) = rig();
    let traffic = || rig.core(|core| core.sessions.get(rig.session).unwrap().traffic);
    let before = traffic();
    rig.comes(lane, &wire, eager(1, Flags(0)), &[1; 10]);
    assert_eq!(traffic(), before + 1);
    rig.comes(lane, &wire, Header::control(Kind::WITHDRAW, 1), &[]);
    assert_eq!(traffic(), before + 2);
    assert_eq!(rig.core(|core| core.counters.unexpected), 1);
    wire.state().places = true;
    let memory = Memory::Owned(vec![0; 64].into());
    let waited = rig.core(|core| core.start_recv(1, Match::any_tag(), memory, None));
    assert!(matches!(waited, Started::Done(Ok(_), ..)));
    let key = rig.post(Match::any_tag(), 64);
    rig.comes(lane, &wire, eager(1, Flags(0)), &[2; 10]);
    assert_eq!(rig.got(key), Some(vec![2; 10]));
    assert_eq!(traffic(), before + 3);
    assert_eq!(rig.core(|core| core.counters.unexpected), 1);
}

#[test]
fn unknown_frames_are_skipped_if_they_are_optional_and_end_the_session_if_not() {
    let unknown = [0, 60, 100, 191].map(Kind);
    assert!(
        unknown.iter().any(|kind| kind.is_sequenced()) && unknown.iter().any(|kind| !kind.is_sequenced())
    );
    for kind in unknown {
        let (rig, lane, wire) = rig();
        rig.comes(lane, &wire, Header { flags: Flags::OPTIONAL, ..Header::control(kind, 0) }, &[]);
        assert!(is_up(&rig), "{kind:?}");
        rig.comes(lane, &wire, Header::control(kind, 0), &[]);
        assert!(!is_up(&rig), "{kind:?}");
    }
}

/// Whoever waits for any message at all looks again.
#[test]
fn a_message_that_nobody_asked_for_wakes_who_probes() {
    let (rig, lane, wire) = rig();
    for (header, body) in [(eager(1, Flags(0)), vec![1; 10]), (envelope(1, Flags(0)), words(&[5, 1000]))] {
        wire.state().arriving.push_back((header, body));
        let woken = rig.core(|core| {
            core.effects = crate::core::Effects::default();
            core.poll_lane(lane, 64);
            core.effects.any()
        });
        assert!(woken, "{header:?}");
    }
}

#[test]
fn a_lane_counts_what_it_brings_and_takes() {
    let (rig, lane, wire) = rig();
    let received = || rig.core(|core| core.lanes.get(lane).unwrap().frames_received);
    let before = received();
    rig.comes(lane, &wire, Header::control(Kind::WITHDRAW, 1), &[]);
    assert_eq!(received(), before + 1);
    wire.state().places = true;
    rig.post(Match::any_tag(), 64);
    rig.comes(lane, &wire, eager(1, Flags(0)), &[2; 10]);
    assert_eq!(received(), before + 2);
    let sent = || {
        rig.core(|core| {
            let (session, slot) = (core.sessions.get(rig.session).unwrap(), core.lanes.get(lane).unwrap());
            (session.sent, slot.frames_sent)
        })
    };
    let (sequence, frames) = sent();
    rig.core(|core| {
        let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        let header = Header { src: 1, ..eager(5, Flags(0)) };
        core.start_send(rig.session, flow, header, None, Memory::Owned(vec![1; 10].into()), false);
        core.progress();
    });
    assert_eq!(sent(), (sequence + 1, frames + 1));
}
