//! What becomes of a message that a receive had got when it was dropped without anybody having looked.

mod common;

use common::{pair, until};
use sinew::{Match, OpError};

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [
    a_truncated_message_of_a_dropped_receive_does_not_go_silently,
    a_whole_message_of_a_dropped_receive_has_its_old_place_in_its_session,
] }

fn a_truncated_message_of_a_dropped_receive_does_not_go_silently(lane: &str) {
    let p = pair(lane);
    for (round, len) in [100, 150_000].into_iter().enumerate() {
        let receive = p.b.post_recv(1, vec![0; 8]).unwrap();
        let came = p.b.counters().messages_received;
        p.to_b.post_send(1, vec![7; len]).unwrap().wait().unwrap();
        until("it has come", || p.b.counters().messages_received > came);
        drop(receive);
        assert_eq!(p.there.counters().truncated_unseen, round as u64 + 1);
        // Whoever looks learns it from the receive, and nothing is counted.
        let receive = p.b.post_recv(1, vec![0; 8]).unwrap();
        p.to_b.post_send(1, vec![7; len]).unwrap().wait().unwrap();
        let failed = receive.wait().unwrap_err();
        assert!(
            matches!(failed.error, OpError::Truncated { message_len, buffer_len: 8, .. } if message_len == len as u64)
        );
        assert_eq!(p.there.counters().truncated_unseen, round as u64 + 1);
    }
    p.to_b.send(1, b"later").unwrap();
    let mut buf = [0; 8];
    let got = p.b.recv(1, &mut buf).unwrap();
    assert_eq!(&buf[..got.len], b"later", "the next one is there");
}

fn a_whole_message_of_a_dropped_receive_has_its_old_place_in_its_session(lane: &str) {
    let p = pair(lane);
    let receive = p.b.post_recv(1, vec![0; 8]).unwrap();
    for (tag, text) in [(2, b"other"), (1, b"first"), (1, b"third")] {
        p.to_b.send(tag, text).unwrap();
    }
    until("all have come", || p.b.counters().messages_received == 3);
    drop(receive);
    let mut buf = [0; 8];
    for expected in [b"other", b"first", b"third"] {
        let got = p.b.recv(Match::any_tag(), &mut buf).unwrap();
        assert_eq!(&buf[..got.len], expected);
    }
}
