//! Promises about optional features of the wire: what the peer does not have it is not sent, and everything works without.

mod common;
#[path = "common/tampered.rs"]
mod tampered;

use common::{PATIENCE, Pair, connected, content, until};
use sinew::tcp::{Sockets, TcpOptions, TcpTransport};
use sinew::transport::Kind;
use sinew::{Match, Outgoing, Progress};
use std::sync::Arc;
use tampered::{Plan, tampered_by};

const THREAD: Progress = Progress::Thread { cpu: None };
const ALL: u64 = u64::MAX;
const SHORT: u64 = 40;

fn two() -> Sockets {
    "2".parse().expect("a number of sockets")
}

fn engine(features: u64, sockets: Sockets) -> (sinew::Engine, Arc<Plan>) {
    let mut options = TcpOptions::default();
    options.sockets = sockets;
    tampered_by(TcpTransport::new(options), |builder| builder.progress(THREAD).wire_features(features))
}

/// Messages of all kinds from the second engine to the first, which waits for the last one with a receive of its own.
fn exchange(p: &Pair) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let short: Vec<Vec<u8>> = (0..SHORT).map(|number| content(50, number)).collect();
            let batch: Vec<Outgoing<'_>> = short.iter().map(|data| Outgoing::tagged(1, data)).collect();
            p.to_b.send_batch(&batch).expect("a batch");
            for number in 0..SHORT {
                until("it is staged", || p.to_b.stage(1, &content(50, SHORT + number)).is_ok());
            }
            for number in 0..8 {
                p.to_b.message(2).timeout(PATIENCE).send(&content(3_000_000, number)).expect("sent");
            }
        });
        let mut buf = vec![0; 3_000_000];
        for number in 0..2 * SHORT {
            let got = p.b.recv_within(Match::tag(1), &mut buf, PATIENCE).expect("a short message");
            assert!(buf[..got.len] == content(50, number), "content of {number}");
        }
        for number in 0..8 {
            let got = p.b.recv_within(Match::tag(2), &mut buf, PATIENCE).expect("a long message");
            assert!(got.len == 3_000_000 && buf == content(got.len, number), "content of {number}");
        }
    });
}

fn sent(plans: [&Arc<Plan>; 2], kind: Kind) -> bool {
    plans.iter().any(|plan| plan.sent(kind))
}

#[test]
fn a_peer_without_a_feature_gets_no_frame_of_it_and_all_arrives() {
    for (here, there) in [(0, ALL), (ALL, 0), (0, 0)] {
        let (a, of_a) = engine(here, two());
        let (b, of_b) = engine(there, two());
        exchange(&connected(a, b));
        for kind in [Kind::BUNDLE, Kind::STRIPE, Kind::LANES, Kind::PUSH] {
            assert!(!sent([&of_a, &of_b], kind), "{kind:?} to a peer without it ({here}, {there})");
        }
    }
}

#[test]
fn two_engines_of_today_use_what_both_have() {
    let (a, of_a) = engine(ALL, Sockets::Single);
    let (b, of_b) = engine(ALL, Sockets::Single);
    exchange(&connected(a, b));
    assert!(sent([&of_a, &of_b], Kind::BUNDLE) && sent([&of_a, &of_b], Kind::PUSH));
    let (a, of_a) = engine(ALL, two());
    let (b, of_b) = engine(ALL, two());
    let p = connected(a, b);
    until("both sockets are there", || p.there.counters().lanes == 2 && p.here.counters().lanes == 2);
    exchange(&p);
    assert!(sent([&of_a, &of_b], Kind::STRIPE) && sent([&of_a, &of_b], Kind::BUNDLE));
}
