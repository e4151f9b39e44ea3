//! What becomes of a message that a receive had got when it was dropped without anybody having looked.

mod common;

use common::{options, pair, pair_with, until};
use sinew::{Match, OpError, Progress};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [
    a_truncated_message_of_a_dropped_receive_does_not_go_silently,
    a_whole_message_of_a_dropped_receive_has_its_old_place_in_its_session,
] }

on_lanes! { between_two_by_shm = "shm", between_two_by_uds = "uds", between_two_by_tcp = "tcp"; [
    a_message_of_a_blocking_receive_that_a_panic_ends_has_its_old_place_in_its_session,
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

/// A waker that panics once it is told to.
#[derive(Default)]
struct Panics(AtomicBool);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        if self.0.load(Ordering::Acquire) {
            std::panic::resume_unwind(Box::new("in a waker"));
        }
    }
}

/// The frame that brings the message also wakes a future, and its waker panics.
fn a_message_of_a_blocking_receive_that_a_panic_ends_has_its_old_place_in_its_session(lane: &str) {
    let p = pair_with(lane, Progress::Caller, Progress::Caller, options());
    let mut buf = [0; 8];
    p.to_b.send(9, b"who").unwrap();
    // A receive from one source does not look into a frame by itself: it is there when all of the frame is given out.
    let first = Match::tag(1).from(p.b.recv(9, &mut buf).unwrap().source);
    let mut broken = 0;
    for _ in 0..20 {
        let mut future = Box::pin(p.b.post_recv(3, vec![0; 8]).unwrap());
        let panics = Arc::new(Panics::default());
        let waker = Waker::from(Arc::clone(&panics));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        p.to_b.send(2, b"other").unwrap();
        until("it waits", || {
            p.there.progress();
            p.b.counters().unexpected == 1
        });
        panics.0.store(true, Ordering::Release);
        for (tag, text) in [(3, b"woken"), (1, b"first"), (1, b"third")] {
            p.to_b.stage(tag, text).unwrap();
        }
        p.here.progress();
        let ended = catch_unwind(AssertUnwindSafe(|| p.b.recv(first, &mut buf)));
        broken += u32::from(ended.is_err());
        drop(future);
        // Whichever of the two panicked, nothing is lost and all are in order.
        let left: &[&[u8; 5]] = match ended {
            Ok(_) => &[b"other", b"woken", b"third"],
            Err(_) => &[b"other", b"woken", b"first", b"third"],
        };
        for expected in left {
            let got = p.b.recv(Match::any_tag(), &mut buf).unwrap();
            assert_eq!(&&buf[..got.len], expected);
        }
    }
    assert!(broken > 0, "a waker has panicked");
}
