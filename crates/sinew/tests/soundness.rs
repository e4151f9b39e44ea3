//! Memory that was given back is never written again: not by a message that is taken back while it is pulled, not by a peer
//! that forges fragments, not by a lane that the session has left, not after a panic in code of the application.
#![allow(unsafe_code)]

mod common;
#[path = "common/tampered.rs"]
mod tampered;

use common::{PATIENCE, Pair, connected, content, options, pair, pair_with, until};
use sinew::shm::{CrossRead, ShmOptions, ShmTransport};
use sinew::tcp::{Sockets, TcpOptions, TcpTransport};
use sinew::transport::{Header, Kind};
use sinew::{Buf, Failed, Match, OpError, Progress, Received, RecvOp};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use tampered::tampered;

/// What the sender's bytes, and the memory of an ended receive, are filled with.
const SENT: u8 = 0x11;
const MINE: u8 = 0xaa;

/// Both engines by hand, so that each step is where the test wants it.
fn by_hand(lane: &str) -> Pair {
    pair_with(lane, Progress::Event, Progress::Event, options())
}

fn turn(p: &Pair) {
    p.here.process();
    p.there.process();
}

fn ended(p: &Pair, recv: &mut RecvOp) -> Result<Received, Failed> {
    let mut result = None;
    until("the receive ends", || {
        turn(p);
        result = result.take().or_else(|| recv.try_wait());
        result.is_some()
    });
    result.expect("it has ended")
}

/// Fills memory that came back and lets the engines go on: nobody else may write it.
fn stays_mine(p: &Pair, mut buf: Buf) {
    let slice = buf.as_mut_slice().expect("writable");
    slice.fill(MINE);
    for _ in 0..200 {
        turn(p);
    }
    assert!(buf.iter().all(|&byte| byte == MINE), "written after the receive had ended");
}

#[test]
fn a_message_taken_back_while_it_is_pulled_writes_nothing_later() {
    const LEN: usize = 64 << 20;
    let p = by_hand("shm");
    let mut lent = p.to_b.alloc(LEN).unwrap();
    lent.as_mut_slice().unwrap().fill(SENT);
    let mut recv = p.b.post_recv(1, vec![0; LEN]).unwrap();
    let send = p.to_b.post_send(1, lent).unwrap();
    // The envelope, then a first piece.
    turn(&p);
    p.there.process();
    assert!(recv.try_wait().is_none(), "pulled in pieces");
    let _ = send.cancel().expect_err("taken back");
    for _ in 0..20 {
        turn(&p);
    }
    assert!(recv.try_wait().is_none(), "it was never sent");
    match recv.cancel() {
        Err(Failed { buf, error: OpError::Cancelled }) => stays_mine(&p, buf),
        other => panic!("cancelled, not {other:?}"),
    }
}

/// A receive that is pulled is not ended by fragments that nobody asked for: the pull would go on writing.
#[test]
fn forged_fragments_do_not_end_a_receive_that_is_pulled() {
    const LONG: usize = 128 << 20;
    const LEN: usize = 2 << 20;
    const PIECE: usize = 16 << 10;
    let (here, plan) = tampered(ShmTransport::new(ShmOptions::default()));
    let p = connected(here, common::engine("shm", Progress::Event));
    // The pull of the second message waits for that of the first.
    let mut recvs = [LONG, LEN].map(|len| p.b.post_recv(len as u64, vec![0; len]).unwrap());
    let sends = [LONG, LEN].map(|len| {
        let mut lent = p.to_b.alloc(len).unwrap();
        lent.as_mut_slice().unwrap().fill(SENT);
        p.to_b.post_send(len as u64, lent).unwrap()
    });
    turn(&p);
    {
        let mut forged = plan.forged.lock().unwrap();
        for receive in 0..4u64 {
            let key = 1 << 32 | receive;
            let piece = |at: usize| (Header::data(key, (at * PIECE) as u64), vec![0xee; PIECE]);
            forged.extend((0..LEN / PIECE).map(piece));
        }
    }
    for (recv, len) in recvs.iter_mut().zip([LONG, LEN]).rev() {
        let got = ended(&p, recv).expect("the message");
        assert_eq!(got.info.len, len);
        assert!(got.buf.iter().all(|&byte| byte == SENT), "ended by what was forged");
        stays_mine(&p, got.buf);
    }
    drop(sends);
}

/// What a lane still writes in the very poll that hands up the sender's word, and the next message behind it, spoils neither.
#[test]
fn a_lane_that_pulls_while_it_hands_up_spoils_no_later_message() {
    const LEN: usize = 100_000;
    let (there, plan) =
        tampered(ShmTransport::new(ShmOptions { cross_read: CrossRead::Off, ..ShmOptions::default() }));
    let p = connected(common::engine("shm", Progress::Event), there);
    plan.scribble.store(true, Ordering::Release);
    for next in [0, 8, 1000, 60_000, 90_000] {
        for told in [false, true] {
            let mut recv = p.b.post_recv(1, vec![MINE; LEN]).unwrap();
            let mut lent = p.to_b.alloc(LEN).unwrap();
            lent.as_mut_slice().unwrap().fill(SENT);
            let withdrawn = p.to_b.post_send(1, lent).unwrap();
            p.here.progress();
            let before = p.b.counters().messages_received;
            until("it is pulled", || {
                p.there.progress();
                p.b.counters().messages_received > before
            });
            let _ = withdrawn.cancel().expect_err("taken back");
            let data = content(next, 1);
            let sent = p.to_b.post_send(1, data.clone()).unwrap();
            p.here.progress();
            if told {
                let result = Arc::new(Mutex::new(None));
                let to = Arc::clone(&result);
                recv.on_complete(move |got| *to.lock().unwrap() = Some(got));
                until("the function is called", || {
                    turn(&p);
                    result.lock().unwrap().is_some()
                });
                let got = result.lock().unwrap().take().unwrap().expect("the next message");
                assert!(*got.buf == *data, "{next} bytes");
                assert_eq!(got.buf.capacity(), LEN, "the buffer that was posted");
                stays_mine(&p, got.buf);
            } else {
                let got = ended(&p, &mut recv).expect("the next message");
                assert!(*got.buf == *data, "{next} bytes");
                stays_mine(&p, got.buf);
            }
            drop(sent);
        }
    }
}

/// Announced lengths are counted, summed and compared, whatever they are.
#[test]
fn lengths_beyond_all_bounds_break_nothing() {
    let (here, plan) = tampered(ShmTransport::new(ShmOptions::default()));
    let p = connected(here, common::engine("shm", Progress::Event));
    let envelope = |number: u64| {
        let header = Header { dst: p.b.number(), src: p.a.number(), ..Header::control(Kind::ENVELOPE, 9) };
        (header, [number.to_le_bytes(), (isize::MAX as u64).to_le_bytes()].concat())
    };
    plan.forged.lock().unwrap().extend((1000..1004).map(envelope));
    until("they have come", || {
        turn(&p);
        p.b.counters().messages_received == 4
    });
    assert!(p.b.counters().bytes_received >= isize::MAX as u64);
    // What nobody has cannot be fetched: its sender says so, and the next message is found.
    p.to_b.send(9, b"well").unwrap();
    let mut recv = p.b.post_recv(9, vec![0; 8]).unwrap();
    assert_eq!(ended(&p, &mut recv).unwrap().info.len, 4);
}

/// A send whose fragments lanes still hold is not ended by an answer to a question that it never was.
#[test]
fn forged_answers_do_not_end_a_send_under_way() {
    const LEN: usize = 3_000_000;
    let (here, plan) = tampered(TcpTransport::new(TcpOptions::default()));
    let p = connected(here, common::engine("tcp", Progress::Event));
    drop(p.to_b.post_send(2, b"who I am".to_vec()).unwrap());
    let mut asker = p.b.post_recv(2, vec![0; 8]).unwrap();
    let back = p.b.reply_to(ended(&p, &mut asker).unwrap().info.source).unwrap();
    let mut recv = p.a.post_recv(1, vec![0; LEN]).unwrap();
    let mut send = back.post_send(1, vec![SENT; LEN]).unwrap();
    until("it is fetched", || {
        p.there.process();
        p.here.process();
        p.a.counters().messages_received == 1
    });
    p.here.process();
    plan.deaf.store(true, Ordering::Release);
    for _ in 0..100 {
        p.there.process();
    }
    let keys = (1..8u64).flat_map(|generation| (0..8u64).map(move |index| generation << 32 | index));
    for kind in [Kind::FLUSH_REPLY, Kind::LOOKUP_REPLY] {
        let forge = |key| (Header { src: 1, ..Header::control(kind, key) }, Vec::new());
        plan.forged.lock().unwrap().extend(keys.clone().map(forge));
    }
    until("all is said", || {
        turn(&p);
        plan.forged.lock().unwrap().is_empty()
    });
    for _ in 0..200 {
        turn(&p);
    }
    assert!(send.try_wait().is_none(), "its receiver has not read it");
    plan.deaf.store(false, Ordering::Release);
    assert!(ended(&p, &mut recv).unwrap().buf.iter().all(|&byte| byte == SENT));
    until("it ends", || {
        turn(&p);
        send.try_wait().is_some_and(|done| done.is_ok())
    });
}

/// A receive whose lane panics in its poll has returned: what comes for it later waits for another.
#[test]
fn a_receive_that_a_lane_breaks_leaves_no_borrow_behind() {
    let (here, plan) = tampered(ShmTransport::new(ShmOptions::default()));
    let p = connected(here, common::engine("shm", Progress::Event));
    let mut canary = [MINE; 8];
    plan.panics.store(true, Ordering::Release);
    let broken = catch_unwind(AssertUnwindSafe(|| p.a.recv_within(9, &mut canary, PATIENCE)));
    assert!(broken.is_err(), "the panic goes on");
    let third = connected(common::engine("shm", Progress::Thread { cpu: None }), p.here.clone());
    third.to_b.send(9, &[SENT; 8]).unwrap();
    until("the message waits", || {
        turn(&p);
        third.b.probe(9).is_some()
    });
    assert_eq!(canary, [MINE; 8], "written after the call had ended");
}

/// A lane that stands still in the middle of a fragment which another lane brings as a whole.
#[test]
fn a_lane_that_the_session_has_left_writes_nothing_later() {
    const LEN: usize = 8 << 20;
    // Buffers of the kernel that hold far less than a fragment, so that none comes in one turn.
    let mut narrow = TcpOptions::default();
    narrow.stream.socket_send_bytes = Some(64 << 10);
    narrow.stream.socket_receive_bytes = Some(64 << 10);
    // The lane that stands still is the one that is cut: of several it could be one that is left, and would never answer.
    narrow.sockets = Sockets::Single;
    let (here, _) = tampered(TcpTransport::new(narrow.clone()));
    let (there, plan) = tampered(TcpTransport::new(narrow));
    let p = connected(here, there);
    let sent = content(LEN, 1);
    for round in 0..3 {
        plan.held.store(false, Ordering::Release);
        plan.hold.store(true, Ordering::Release);
        let mut recv = p.b.post_recv(round, vec![0; LEN]).unwrap();
        let send = p.to_b.post_send(round, sent.clone()).unwrap();
        until("a fragment is under way", || {
            turn(&p);
            plan.held.load(Ordering::Acquire)
        });
        assert!(p.here.cut(&p.to_b));
        let got = ended(&p, &mut recv).expect("the message, by another lane");
        assert!(*got.buf == *sent);
        plan.hold.store(false, Ordering::Release);
        stays_mine(&p, got.buf);
        drop(send);
    }
}

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker that breaks");
    }
}

/// An operation whose end breaks whoever finds it.
fn armed(p: &Pair, tag: u64) -> RecvOp {
    let mut recv = p.b.post_recv(tag, vec![0; 8]).unwrap();
    let waker = Waker::from(Arc::new(Bomb));
    assert!(pin!(&mut recv).poll(&mut Context::from_waker(&waker)).is_pending());
    recv
}

/// Memory that a panic has freed is not written by the message that the call had waited for, which waits for another.
fn survives(p: &Pair, canary: &[u8], tag: u64, data: &[u8]) {
    let mut again = p.b.post_recv(tag, vec![0; data.len()]).unwrap();
    let got = ended(p, &mut again).expect("the message");
    assert!(*got.buf == *data);
    assert!(canary.iter().all(|&byte| byte == MINE), "written after the call had ended");
}

#[test]
fn a_try_receive_that_a_waker_breaks_leaves_no_borrow_behind() {
    let p = by_hand("uds");
    let data = content(200_000, 1);
    let send = p.to_b.post_send(6, data.clone()).unwrap();
    until("the long message waits", || {
        turn(&p);
        p.b.probe(6).is_some()
    });
    let recv = armed(&p, 5);
    p.to_b.send(5, b"tick").unwrap();
    let mut canary = vec![MINE; data.len()];
    let broken = catch_unwind(AssertUnwindSafe(|| {
        until("the waker breaks", || p.b.try_recv(6, &mut canary).is_ok());
    }));
    assert!(broken.is_err());
    drop(recv);
    survives(&p, &canary, 6, &data);
    drop(send);
}

#[test]
fn a_scope_that_a_waker_breaks_leaves_no_borrow_behind() {
    let p = by_hand("uds");
    let recv = armed(&p, 5);
    p.to_b.send(5, b"tick").unwrap();
    let mut canary = [vec![MINE; 8], vec![MINE; 8]];
    let broken = catch_unwind(AssertUnwindSafe(|| {
        let [first, second] = &mut canary;
        p.b.scope(|scope| {
            let _ = scope.recv(6, first).unwrap();
            let _ = scope.recv(7, second).unwrap();
        });
    }));
    assert!(broken.is_err(), "the panic goes on");
    drop(recv);
    for (tag, canary) in [(6, &canary[0]), (7, &canary[1])] {
        p.to_b.send(tag, b"eight by").unwrap();
        survives(&p, canary, tag, b"eight by");
    }
}

/// The child has not inherited the memory that the loan lies in.
#[test]
fn a_forked_child_sees_nothing_of_a_loan() {
    let p = pair("shm");
    let mut lent = p.to_b.alloc(1 << 20).unwrap();
    lent.as_mut_slice().unwrap().fill(SENT);
    let send = p.to_b.post_send(1, lent).unwrap();
    let message = std::thread::scope(|scope| {
        let there = scope.spawn(|| p.b.recv_message_within(Match::tag(1), 1 << 20, PATIENCE).unwrap());
        while !there.is_finished() {
            p.here.process();
        }
        there.join().unwrap()
    });
    assert!(message.is_lent());
    // SAFETY: the child reads what it was given and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let read = message.read_at(0, &mut [0; 64]);
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(read != 0)) };
    }
    let mut status = 0;
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status:#x}");
    assert_eq!(message.read_at(0, &mut [0; 64]), 64);
    drop(message);
    send.wait().unwrap();
}

/// A child has not inherited the memory of pools either: buffers there are empty, and dropping them neither waits for a thread
/// of the parent nor changes anything of the parent's pool.
#[test]
fn a_forked_child_sees_nothing_of_the_parents_pools_and_changes_nothing_in_them() {
    let p = pair("shm");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Somebody is in the middle of taking and giving back at each fork.
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                drop((p.here.alloc(1 << 20).unwrap(), p.to_b.alloc(8 << 10).unwrap()));
            }
        });
        for round in 0..30 {
            let make = || [p.here.alloc(1 << 20).unwrap(), p.to_b.alloc(8 << 10).unwrap()];
            let (mut kept, mut dropped) = (make(), make());
            for buf in kept.iter_mut().chain(&mut dropped) {
                assert!(buf.segment().is_some(), "of a pool");
                buf.as_mut_slice().unwrap().fill(MINE);
            }
            let len = kept.each_ref().map(|buf| buf.len());
            // SAFETY: the child reads and drops what it was given and leaves.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: a child that waits for ever is ended by a signal.
                unsafe { libc::alarm(30) };
                let mut seen = 0;
                for (mut buf, kept) in dropped.into_iter().zip(&kept) {
                    seen |= buf.len() | kept.len() | buf.as_slice().len() | kept.iter().count();
                    seen |= buf.as_mut_slice().map_or(1, |bytes| bytes.len());
                    seen |= usize::from(!buf.is_empty());
                    drop(buf);
                }
                seen |= kept.map(Buf::into_vec).concat().len();
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(seen != 0)) };
            }
            let mut status = 0;
            // SAFETY: our own child.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{round}: {status:#x}");
            assert_eq!(kept.each_ref().map(|buf| buf.len()), len);
            for buf in kept.iter().chain(&dropped) {
                assert!(buf.iter().all(|&byte| byte == MINE), "written by the child, or lent twice");
            }
        }
        stop.store(true, Ordering::Release);
    });
    let mut buf = p.to_b.alloc(8 << 10).unwrap();
    buf.as_mut_slice().unwrap().fill(SENT);
    let receive = p.b.post_recv(1, vec![0; 8 << 10]).unwrap();
    p.to_b.post_send(1, buf).unwrap().wait().unwrap();
    let got = receive.wait().unwrap();
    assert!(got.buf.len() == 8 << 10 && got.buf.iter().all(|&byte| byte == SENT));
}
