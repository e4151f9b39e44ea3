//! Messages from the engine's pool: sent without a copy over shared memory, read where they are.

use sinew::{Buf, Endpoint, Engine, Match, Peer, Progress};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Descriptors are counted: tests that open some are run one at a time, where they share a process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn engines(transport: &str) -> (Engine, Engine) {
    let make = || Engine::builder().domain("loans").transports([transport]).build().expect("an engine");
    (make(), make())
}

fn lend(transport: &str, lent: bool) {
    let (here, there) = engines(transport);
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let address = b.address();
    let reader = std::thread::spawn(move || {
        for round in 0..50u64 {
            let message = b.recv_message(Match::tag(round), 1 << 20).expect("a message");
            assert_eq!(message.is_lent(), lent);
            assert_eq!(message.len(), 1 << 20);
            let bytes = message.to_vec();
            assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == (at as u64 + round) as u8));
        }
        let mut buf = vec![0; 1 << 20];
        let got = b.recv(99, &mut buf).expect("one copied straight into a buffer");
        assert_eq!(got.len, 1 << 20);
        assert!(buf.iter().all(|&byte| byte == 7));
        there.close(Duration::from_secs(2)).unwrap();
    });
    let peer = a.connect(address).expect("a path");
    for round in 0..50u64 {
        let mut buf = peer.alloc(1 << 20).expect("a pool buffer");
        buf.as_mut_slice()
            .unwrap()
            .iter_mut()
            .enumerate()
            .for_each(|(at, byte)| *byte = (at as u64 + round) as u8);
        let back = peer.post_send(round, buf).expect("started").wait().expect("taken");
        assert_eq!(back.len(), 1 << 20);
    }
    let mut buf = here.alloc(1 << 20).expect("a pool buffer");
    buf.as_mut_slice().unwrap().fill(7);
    peer.post_send(99, buf).expect("started").wait().expect("taken");
    reader.join().unwrap();
}

#[test]
fn a_pool_buffer_is_read_in_place_over_shm() {
    let _alone = alone();
    lend("shm", true);
}

#[test]
fn a_pool_buffer_arrives_whole_over_tcp() {
    let _alone = alone();
    lend("tcp", false);
}

#[test]
fn a_loan_that_is_dropped_unread_gives_the_buffer_back() {
    let _alone = alone();
    let (here, there) = engines("shm");
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let address = b.address();
    let reader = std::thread::spawn(move || {
        let message = b.recv_message(1, 1 << 20).expect("a message");
        let mut first = [0; 4];
        assert_eq!(message.read_at(0, &mut first), 4);
        drop(message);
        let _ = b.recv(2, &mut [0; 8]);
    });
    let peer = a.connect(address).unwrap();
    let op = peer.post_send(1, peer.alloc(1 << 19).unwrap()).unwrap();
    assert_eq!(op.wait().expect("given back").len(), 1 << 19);
    peer.send(2, b"done").unwrap();
    reader.join().unwrap();
}

#[test]
fn a_message_longer_than_allowed_is_truncated_and_ends_the_loan() {
    let _alone = alone();
    let (here, there) = engines("shm");
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let address = b.address();
    let reader = std::thread::spawn(move || {
        let error = b.recv_message(1, 1000).expect_err("too long");
        assert!(
            matches!(error, sinew::OpError::Truncated { message_len: 524_288, buffer_len: 1000, .. }),
            "{error}"
        );
        let _ = b.recv(2, &mut [0; 8]);
    });
    let peer = a.connect(address).unwrap();
    peer.post_send(1, peer.alloc(1 << 19).unwrap()).unwrap().wait().expect("given back");
    peer.send(2, b"done").unwrap();
    reader.join().unwrap();
}

/// What one peer has mapped is never used for what another peer is sent.
#[test]
fn memory_that_a_peer_was_shown_holds_nothing_for_another() {
    let _alone = alone();
    const LEN: usize = 1 << 20;
    let make = || Engine::builder().domain("loans").transports(["shm"]).build().expect("an engine");
    let (here, first, second) = (make(), make(), make());
    let a = here.endpoint("a").unwrap();
    let receive = |engine: &Engine| {
        let endpoint = engine.endpoint("b").unwrap();
        let address = endpoint.address();
        let receiver = std::thread::spawn(move || {
            let mut lent = Vec::new();
            for byte in [1u8, 2] {
                let message = endpoint.recv_message(Match::any_tag(), LEN).expect("a message");
                assert!(message.to_vec().iter().all(|&there| there == byte), "{byte}");
                lent.push(message.is_lent());
            }
            lent
        });
        (a.connect(address).expect("a path"), receiver)
    };
    let ((to_first, one), (to_second, two)) = (receive(&first), receive(&second));
    let is_shown = |buf: &Buf| buf.segment().expect("pooled").0.is_shown();
    let send = |peer: &Peer, mut buf: Buf, byte: u8| {
        buf.as_mut_slice().unwrap().fill(byte);
        peer.post_send(0, buf).expect("started").wait().expect("taken")
    };

    // From the pool for everybody: whoever has it next writes elsewhere.
    for (peer, byte) in [(&to_first, 1), (&to_second, 1)] {
        let buf = here.alloc(LEN).expect("a pool buffer");
        assert!(!is_shown(&buf), "a peer reads what is written to it");
        assert!(is_shown(&send(peer, buf, byte)));
    }
    // From the pool for one peer: another one gets a copy and is not shown the segment.
    let buf = send(&to_second, to_first.alloc(LEN).expect("a pool buffer"), 2);
    assert!(!is_shown(&buf), "the second peer reads what is written for the first");
    drop(buf);
    send(&to_first, to_first.alloc(LEN).expect("a pool buffer"), 2);
    assert_eq!((one.join().unwrap(), two.join().unwrap()), (vec![true, true], vec![true, false]));
}

/// Two engines of this thread, which has the bias of their locks: loans go the short way.
fn after_loans(rounds: u64) -> (Engine, Endpoint, Engine, Endpoint, Peer) {
    let make = || {
        let builder = Engine::builder().domain("loans").transports(["shm"]);
        builder.progress(Progress::Caller).build().expect("an engine")
    };
    let (here, there) = (make(), make());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let address = b.address();
    let peer = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| a.connect(address));
        while !connecting.is_finished() {
            there.process();
        }
        connecting.join().unwrap().expect("a path")
    });
    for round in 0..rounds {
        let mut buf = peer.alloc(4096).expect("a pool buffer");
        buf.as_mut_slice().unwrap().fill(round as u8);
        let sent = peer.post_send(round, buf).expect("started");
        here.process();
        let message = b.recv_message(Match::tag(round), 4096).expect("a message");
        assert!(message.is_lent() && message.to_vec() == [round as u8; 4096]);
        drop(message);
        sent.wait().expect("given back");
    }
    (here, a, there, b, peer)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// What stays of engines that lent nothing.
fn descriptors_without_engines() -> usize {
    drop(after_loans(0));
    descriptors()
}

#[test]
fn an_engine_goes_with_its_endpoints_when_its_loans_went_before() {
    let _alone = alone();
    let before = descriptors_without_engines();
    drop(after_loans(200));
    assert_eq!(descriptors(), before);
}

#[test]
fn a_loan_keeps_its_engine_and_lets_it_go_when_it_is_given_back_last() {
    let _alone = alone();
    let before = descriptors_without_engines();
    let (here, a, there, b, peer) = after_loans(200);
    let mut buf = peer.alloc(4096).expect("a pool buffer");
    buf.as_mut_slice().unwrap().fill(77);
    let sent = peer.post_send(500, buf).expect("started");
    here.process();
    let first = b.recv_message(Match::tag(500), 4096).expect("a message");
    let copy = peer.alloc(4096).expect("a pool buffer");
    let again = peer.post_send(501, copy).expect("started");
    here.process();
    let second = b.recv_message(Match::tag(501), 4096).expect("a message");
    assert!(first.is_lent() && second.is_lent());
    drop((b, there));
    assert_eq!(first.to_vec(), [77; 4096]);
    drop(second);
    drop((sent, again, peer, a, here));
    assert_eq!(first.to_vec(), [77; 4096]);
    assert!(descriptors() > before, "the message holds its engine");
    drop(first);
    assert_eq!(descriptors(), before);
}
