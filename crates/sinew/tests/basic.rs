//! First light: messages between two engines over each transport.

use sinew::{Engine, Match};
use std::time::Duration;

fn pair(transport: &str) -> (Engine, Engine) {
    let make = || Engine::builder().domain("basic").transports([transport]).build().expect("an engine");
    (make(), make())
}

fn ping_pong(transport: &str) {
    let (here, there) = pair(transport);
    let a = here.endpoint("a").unwrap();
    let b = there.endpoint("b").unwrap();
    let address = b.address();
    let echo = std::thread::spawn(move || {
        let mut buf = vec![0; 1 << 21];
        for round in 0..200u64 {
            let got = b.recv(Match::tag(round), &mut buf).expect("a message");
            let back = b.reply_to(got.source).expect("a way back");
            back.send(round + 1000, &buf[..got.len]).expect("an answer");
        }
        there.close(Duration::from_secs(2)).unwrap();
    });
    let peer = a.connect(address).expect("a path");
    assert!(peer.path().starts_with(transport), "{}", peer.path());
    let mut buf = vec![0; 1 << 21];
    for round in 0..200u64 {
        let len = [0, 1, 8, 40, 41, 1000, 5000, 16_384, 16_385, 100_000, 1 << 20][round as usize % 11];
        let data: Vec<u8> = (0..len).map(|at| (at as u64 * 31 + round) as u8).collect();
        peer.send(round, &data).expect("a send");
        let got = a.recv(round + 1000, &mut buf).expect("an answer");
        assert_eq!(got.len, len);
        assert!(buf[..len] == data, "round {round} content");
    }
    echo.join().unwrap();
}

#[test]
fn messages_of_all_sizes_go_there_and_back_over_tcp() {
    ping_pong("tcp");
}

#[test]
fn messages_of_all_sizes_go_there_and_back_over_uds() {
    ping_pong("uds");
}

#[test]
fn messages_of_all_sizes_go_there_and_back_over_shm() {
    ping_pong("shm");
}

#[test]
fn an_engine_sends_to_itself() {
    let engine = Engine::new("self").unwrap();
    let (a, b) = (engine.endpoint("a").unwrap(), engine.endpoint("b").unwrap());
    let peer = a.connect(b.address()).unwrap();
    peer.message(5).immediate(77).send(b"hello").unwrap();
    let mut buf = [0; 16];
    let got = b.recv(5, &mut buf).unwrap();
    assert_eq!((&buf[..got.len], got.immediate), (&b"hello"[..], Some(77)));
}

#[test]
fn two_engines_that_connect_to_each_other_at_once_agree_on_a_lane() {
    for transport in ["shm", "uds", "tcp"] {
        for round in 0..20u64 {
            let (here, there) = pair(transport);
            let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
            let (to_a, to_b) = (a.address(), b.address());
            let barrier = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for (own, to) in [(&a, &to_b), (&b, &to_a)] {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        let peer = own.connect(to).expect("a path");
                        let mut buf = [0; 16];
                        for tag in 0..50 {
                            peer.send(tag, &round.to_le_bytes()).expect("a send");
                            let got = own.recv(tag, &mut buf).expect("a message");
                            assert_eq!(buf[..got.len], round.to_le_bytes());
                        }
                    });
                }
            });
        }
    }
}
