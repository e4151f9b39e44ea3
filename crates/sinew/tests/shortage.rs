//! Credit that many endpoints share: a sender that is short of it now and then, while the receiver takes what comes, is not one
//! whose receiver does not receive.

mod common;

use common::{PATIENCE, options, pair_with};
use sinew::{Endpoint, Match, Peer, Progress};
use std::time::{Duration, Instant};

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    shared_credit_that_comes_back_is_waited_for_each_time_anew,
] }

const THREAD: Progress = Progress::Thread { cpu: None };
const ENDPOINTS: usize = 200;
const LENGTH: usize = 200;

/// For longer than a sender waits for credit, all messages together need many times the credit of the session, and those of no
/// endpoint a notable part of its own. They must not go as envelopes, of which each costs a round trip.
fn shared_credit_that_comes_back_is_waited_for_each_time_anew(lane: &str) {
    let p = pair_with(lane, THREAD, THREAD, options().session_window(64usize << 10));
    let there: Vec<Endpoint> = (0..ENDPOINTS).map(|_| p.there.endpoint("").unwrap()).collect();
    let peers: Vec<Peer> = there.iter().map(|at| p.a.connect(at.address()).unwrap()).collect();
    let start = Instant::now();
    let least = Duration::from_millis(1500);
    let rounds = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut round = 0u64;
            while start.elapsed() < least {
                peers.iter().for_each(|peer| peer.send(round, &[7; LENGTH]).unwrap());
                round += 1;
            }
            peers.iter().for_each(|peer| peer.send(u64::MAX, b"").unwrap());
            round
        });
        let (mut round, mut buf) = (0, [0; LENGTH]);
        loop {
            let mut ended = 0;
            for (number, at) in there.iter().enumerate() {
                if number % 50 == 0 {
                    std::thread::sleep(Duration::from_micros(200)); // Slower than the sender.
                }
                let got = at.recv_within(Match::any_tag(), &mut buf, PATIENCE).unwrap();
                ended += usize::from(got.tag == u64::MAX);
                assert!(got.tag == round || got.tag == u64::MAX, "in order");
            }
            if ended == ENDPOINTS {
                break;
            }
            round += 1;
        }
        assert_eq!(sender.join().unwrap(), round);
        round
    });
    let messages = (rounds + 1) * ENDPOINTS as u64;
    let envelopes = p.there.counters().envelopes;
    println!("{lane}: {messages} messages, {envelopes} of them as envelopes");
    assert!(messages > 2000, "enough to be short of credit often");
    assert!(envelopes * 10 < messages, "{envelopes} of {messages} messages went as envelopes");
}
