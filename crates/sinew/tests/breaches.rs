//! A peer of the right domain that breaks the protocol loses its session, and nobody else anything: one that sends more than
//! it was granted, asks and never reads the answers, or lies about where it stands after a loss.

mod common;
#[path = "common/tampered.rs"]
mod tampered;

use common::{Pair, connected, engine_with, options, until};
use sinew::frame::Flags;
use sinew::shm::{ShmOptions, ShmTransport};
use sinew::transport::{Header, Kind};
use sinew::{EngineOptions, Progress};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tampered::{Plan, tampered};

const LEN: usize = 1024;

/// A hostile engine, and one with these options.
fn hostile(options: EngineOptions) -> (Pair, Arc<Plan>) {
    let (here, plan) = tampered(ShmTransport::new(ShmOptions::default()));
    (connected(here, engine_with("shm", Progress::Event, options)), plan)
}

fn message(p: &Pair, dst: u32) -> (Header, Vec<u8>) {
    let header = Header { kind: Kind::EAGER, flags: Flags(0), dst, src: p.a.number(), tag: 9 };
    (header, vec![1; LEN])
}

fn envelope(p: &Pair, dst: u32, number: u64) -> (Header, Vec<u8>) {
    let header = Header { dst, src: p.a.number(), ..Header::control(Kind::ENVELOPE, 9) };
    (header, [number.to_le_bytes(), (LEN as u64).to_le_bytes()].concat())
}

/// Posts the frames and lets the engines go on until the receiver has had them, or has ended the session.
fn post(p: &Pair, plan: &Plan, frames: impl IntoIterator<Item = (Header, Vec<u8>)>) -> bool {
    plan.forged.lock().unwrap().extend(frames);
    let lost = || p.there.counters().sessions_lost > 0;
    until("the frames have come", || {
        p.here.process();
        p.there.process();
        lost() || plan.forged.lock().unwrap().is_empty()
    });
    for _ in 0..1000 {
        p.there.process();
    }
    lost()
}

#[test]
fn more_bytes_for_an_endpoint_than_granted_end_the_session() {
    let (p, plan) = hostile(options().endpoint_window(64_usize << 10).session_window(1_usize << 20));
    let fits = (64 << 10) / (LEN + 64);
    assert!(!post(&p, &plan, (0..fits).map(|_| message(&p, p.b.number()))), "as much as granted");
    assert_eq!(p.b.counters().messages_received, fits as u64);
    assert!(post(&p, &plan, [message(&p, p.b.number())]), "one more");
}

#[test]
fn more_bytes_for_a_session_than_granted_end_it() {
    let (p, plan) = hostile(options().endpoint_window(1_usize << 20).session_window(128_usize << 10));
    let other = p.there.endpoint("other").unwrap();
    let fits = (128 << 10) / (LEN + 64);
    let to = |at: usize| if at.is_multiple_of(2) { p.b.number() } else { other.number() };
    assert!(!post(&p, &plan, (0..fits).map(|at| message(&p, to(at)))), "as much as granted");
    assert!(post(&p, &plan, [message(&p, other.number())]), "one more");
}

#[test]
fn more_envelopes_than_granted_end_the_session() {
    let (p, plan) = hostile(options().endpoint_envelopes(16_usize).session_envelopes(100_usize));
    assert!(!post(&p, &plan, (0..16).map(|number| envelope(&p, p.b.number(), number))), "as many as granted");
    assert!(post(&p, &plan, [envelope(&p, p.b.number(), 16)]), "one more");
    let (p, plan) = hostile(options().endpoint_envelopes(100_usize).session_envelopes(16_usize));
    let other = p.there.endpoint("other").unwrap();
    let to = |number: u64| if number.is_multiple_of(2) { p.b.number() } else { other.number() };
    assert!(!post(&p, &plan, (0..16).map(|number| envelope(&p, to(number), number))), "as many as granted");
    assert!(post(&p, &plan, [envelope(&p, other.number(), 16)]), "one more");
}

/// Answers that nobody reads wait in bounded room.
#[test]
fn requests_without_reading_the_answers_end_the_session() {
    for kind in [Kind::FLUSH, Kind::LOOKUP] {
        let (p, plan) = hostile(options());
        plan.deaf.store(true, Ordering::Release);
        assert!(post(&p, &plan, (0..200_000).map(|number| (Header::control(kind, number), Vec::new()))));
        assert!(!plan.forged.lock().unwrap().is_empty(), "ended before all of them were taken");
    }
}

#[test]
fn probes_without_reading_the_answers_end_the_session() {
    let (p, plan) = hostile(options());
    plan.deaf.store(true, Ordering::Release);
    assert!(post(&p, &plan, (0..200_000).map(|number| (Header::control(Kind::PROBE, number), Vec::new()))));
    assert!(!plan.forged.lock().unwrap().is_empty(), "ended before all of them were taken");
}

/// After a loss both sides say what they have, and from where they go on.
#[test]
fn a_lie_about_where_a_session_goes_on_ends_it() {
    for lie in [(Kind::RESUME, 1 << 40), (Kind::RESUME, 0), (Kind::SWITCH, 1 << 40), (Kind::SWITCH, 0)] {
        let (p, plan) = hostile(options());
        let mut received = 0;
        let source = loop {
            drop(p.to_b.post_send(1, vec![1; LEN]).unwrap());
            let mut source = None;
            until("a message has come", || {
                p.here.process();
                source = p.b.probe(1).map(|waiting| waiting.source);
                source.is_some()
            });
            p.b.try_recv(1, &mut [0; LEN]).unwrap();
            received += 1;
            if received == 50 {
                break source.unwrap();
            }
        };
        let back = p.b.reply_to(source).unwrap();
        for _ in 0..50 {
            drop(back.post_send(2, vec![1; LEN]).unwrap());
            until("an answer has come", || {
                p.there.process();
                p.a.try_recv(2, &mut [0; LEN]).is_ok()
            });
        }
        assert!(p.there.counters().sessions_lost == 0);
        *plan.rewrite.lock().unwrap() = Some(lie);
        assert!(p.there.cut(&back));
        until("the session ends", || {
            p.here.process();
            p.there.process();
            p.there.counters().sessions_lost > 0
        });
        assert!(back.send(3, b"x").is_err(), "{lie:?}");
    }
}

/// Numbers on both sides of those that are given, of frames that count in the sequence and of others.
#[test]
fn an_unknown_kind_is_skipped_when_it_is_optional_and_ends_the_session_when_not() {
    for kind in [60, 100, 191].map(Kind) {
        let (p, plan) = hostile(options());
        let frame = |flags| (Header { flags, ..Header::control(kind, 1) }, b"from a later version".to_vec());
        assert!(!post(&p, &plan, [frame(Flags::OPTIONAL)]), "{kind:?} is skipped");
        drop(p.to_b.post_send(1, b"well".to_vec()).unwrap());
        until("the session goes on", || {
            p.here.process();
            p.b.probe(1).is_some()
        });
        assert!(post(&p, &plan, [frame(Flags(0))]), "{kind:?} is needed");
    }
}
