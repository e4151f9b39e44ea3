//! A peer of the right domain that sends more than it was granted, or asks and never reads the answers, loses its session;
//! what it made the other side keep stays within the windows.

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
