//! A message of one frame goes into its receive while it arrives: whatever happens to the receive, its lane or its peer in the middle,
//! the memory that was given back is written no more, and the message comes once, whole and in its order.

mod common;
#[path = "common/tampered.rs"]
mod tampered;

use common::{Pair, connected, content, until};
use sinew::tcp::{Sockets, TcpOptions, TcpTransport};
use sinew::{Buf, Match, OpError, Progress, Receive, RecvOp};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tampered::{Plan, tampered_by};

/// One frame, and more than the buffers of the system below hold.
const LEN: usize = 60_000;
/// What the memory of an ended receive is filled with.
const MINE: u8 = 0xaa;

/// Two engines, of which the first is driven by hand.
fn halves(progress: Progress) -> (Pair, Arc<Plan>) {
    let mut narrow = TcpOptions::default();
    narrow.sockets = Sockets::Single;
    narrow.stream.socket_send_bytes = Some(8 << 10);
    narrow.stream.socket_receive_bytes = Some(8 << 10);
    let (here, _) = tampered_by(TcpTransport::new(narrow.clone()), |b| b.progress(Progress::Event));
    let (there, plan) = tampered_by(TcpTransport::new(narrow), |b| b.progress(progress));
    (connected(here, there), plan)
}

fn by_hand() -> (Pair, Arc<Plan>) {
    halves(Progress::Event)
}

fn turn(p: &Pair) {
    p.here.process();
    p.there.process();
}

/// Sends message `number`, and lets it come in part: the lane of the receiver stands still in its middle.
fn begin(p: &Pair, plan: &Plan, number: u64) {
    plan.held.store(false, Ordering::Release);
    plan.hold.store(true, Ordering::Release);
    drop(p.to_b.post_send(number, content(LEN, number)).unwrap());
    until("it has come in part", || {
        turn(p);
        plan.held.load(Ordering::Acquire)
    });
}

fn goes_on(plan: &Plan) {
    plan.hold.store(false, Ordering::Release);
}

fn arrives(p: &Pair, recv: &mut RecvOp, number: u64) {
    let mut result = None;
    until("the message comes", || {
        turn(p);
        result = recv.try_wait();
        result.is_some()
    });
    let got = result.unwrap().expect("a message");
    assert_eq!(got.info.tag, number);
    assert!(*got.buf == *content(LEN, number), "the content of message {number}");
}

fn post(p: &Pair) -> RecvOp {
    p.b.post_recv(Match::any_tag(), vec![0; LEN]).unwrap()
}

fn mine(mut buf: Buf) -> Buf {
    buf.as_mut_slice().expect("writable").fill(MINE);
    buf
}

fn is_mine(bytes: &[u8]) {
    assert!(bytes.iter().all(|&byte| byte == MINE), "written after it was given back");
}

#[test]
fn a_receive_that_is_cancelled_in_the_middle_leaves_its_message_whole_to_the_next() {
    let (p, plan) = by_hand();
    for number in 0..6 {
        let before = post(&p);
        // In some rounds the next one waits already.
        let mut next = if number % 2 == 0 { Some(post(&p)) } else { None };
        begin(&p, &plan, number);
        let failed = before.cancel().expect_err("it has come in part only");
        let buf = mine(failed.buf);
        goes_on(&plan);
        arrives(&p, next.get_or_insert_with(|| post(&p)), number);
        is_mine(&buf);
    }
}

#[test]
fn what_is_given_up_in_the_middle_and_unwanted_waits_before_what_is_sent_later() {
    let (p, plan) = by_hand();
    for number in 0..4 {
        let recv = post(&p);
        begin(&p, &plan, 10 * number);
        drop(recv);
        goes_on(&plan);
        for after in 1..3 {
            let send = p.to_b.post_send(10 * number + after, content(LEN, 10 * number + after)).unwrap();
            until("it is sent", || {
                turn(&p);
                p.there.process();
                p.b.counters().unexpected as u64 > after
            });
            drop(send);
        }
        for after in 0..3 {
            arrives(&p, &mut post(&p), 10 * number + after);
        }
    }
}

#[test]
fn a_lane_that_is_lost_in_the_middle_leaves_each_receive_its_message() {
    let (p, plan) = by_hand();
    for number in 0..4 {
        let mut both = [post(&p), post(&p)];
        begin(&p, &plan, 2 * number);
        drop(p.to_b.post_send(2 * number + 1, content(LEN, 2 * number + 1)).unwrap());
        assert!(p.here.cut(&p.to_b));
        goes_on(&plan);
        for (at, recv) in both.iter_mut().enumerate() {
            arrives(&p, recv, 2 * number + at as u64);
        }
    }
    assert_eq!((p.here.counters().sessions_lost, p.there.counters().sessions_lost), (0, 0));
}

#[test]
fn a_message_whose_receive_and_then_lane_are_gone_comes_to_the_next() {
    let (p, plan) = by_hand();
    for number in 0..4 {
        let recv = post(&p);
        begin(&p, &plan, number);
        let buf = mine(recv.cancel().expect_err("it has come in part only").buf);
        assert!(p.here.cut(&p.to_b));
        goes_on(&plan);
        arrives(&p, &mut post(&p), number);
        is_mine(&buf);
    }
}

#[test]
fn a_peer_that_is_lost_in_the_middle_leaves_the_receive_to_others_or_ends_it() {
    for of_it in [false, true] {
        let (p, plan) = by_hand();
        let mut hello = p.b.post_recv(77, vec![0; 8]).unwrap();
        drop(p.to_b.post_send(77, b"who I am".to_vec()).unwrap());
        let mut source = None;
        until("it introduces itself", || {
            turn(&p);
            source = hello.try_wait().map(|got| got.unwrap().info.source);
            source.is_some()
        });
        let pattern = if of_it { Match::any_tag().from(source.unwrap()) } else { Match::any_tag() };
        let mut recv = p.b.post_recv(pattern, vec![0; LEN]).unwrap();
        begin(&p, &plan, 1);
        let Pair { here, there, b, to_b, a } = p;
        let _ = here.close(Duration::ZERO);
        drop((to_b, a, here));
        goes_on(&plan);
        until("the peer is lost", || {
            there.process();
            there.counters().sessions_lost == 1
        });
        if of_it {
            let failed = recv.try_wait().expect("it has ended").expect_err("nothing came");
            assert!(matches!(failed.error, OpError::PeerLost { .. }), "{failed}");
            continue;
        }
        assert!(recv.try_wait().is_none(), "it waits for somebody else");
        let own = b.connect(b.address()).unwrap();
        own.try_send(3, b"from myself").unwrap();
        until("somebody else's message", || {
            there.process();
            recv.try_wait().is_some_and(|got| got.unwrap().info.len == 11)
        });
    }
}

#[test]
fn a_future_or_a_scope_that_ends_in_the_middle_has_its_memory_for_itself() {
    let (p, plan) = by_hand();
    for number in 0..4 {
        let mut memory = vec![0; LEN];
        if number % 2 == 0 {
            let mut recv = Box::pin(p.b.post_recv(Match::any_tag(), memory).unwrap());
            let mut context = Context::from_waker(Waker::noop());
            assert!(matches!(
                std::future::Future::poll(pin!(&mut recv).as_mut(), &mut context),
                Poll::Pending
            ));
            begin(&p, &plan, number);
            drop(recv);
            memory = Vec::new();
        } else {
            p.b.scope(|scope| {
                let recv = scope.recv(Match::any_tag(), &mut memory).unwrap();
                begin(&p, &plan, number);
                let (ended, _) = recv.wait_within(Duration::ZERO);
                assert!(matches!(ended, Err(OpError::TimedOut { .. })), "{ended:?}");
            });
        }
        memory.fill(MINE);
        goes_on(&plan);
        arrives(&p, &mut post(&p), number);
        is_mine(&memory);
    }
}

#[test]
fn a_blocking_receive_whose_time_is_up_in_the_middle_has_its_memory_for_itself() {
    let (p, plan) = halves(Progress::Caller);
    let mut memory = vec![0; LEN];
    let driven = |until_over: &std::sync::atomic::AtomicBool| {
        while !until_over.load(Ordering::Acquire) {
            p.here.process();
            std::thread::yield_now();
        }
    };
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| driven(&over));
        for number in 0..12 {
            plan.held.store(false, Ordering::Release);
            // Whole ones between, so that the next is expected to be like them.
            let cut = number % 3 == 2;
            plan.hold.store(cut, Ordering::Release);
            drop(p.to_b.post_send(number, content(LEN, number)).unwrap());
            if cut {
                let ended = p.b.recv_within(Match::any_tag(), &mut memory, Duration::from_millis(60));
                assert!(matches!(ended, Err(OpError::TimedOut { .. })), "{ended:?}");
                assert!(plan.held.load(Ordering::Acquire), "it has come in part");
                memory.fill(MINE);
                goes_on(&plan);
                let mut other = vec![0; LEN];
                let got = p.b.recv_within(Match::any_tag(), &mut other, common::PATIENCE).unwrap();
                assert!(got.tag == number && other == content(LEN, number), "message {number}");
                is_mine(&memory);
            } else {
                let got = p.b.recv_within(Match::any_tag(), &mut memory, common::PATIENCE).unwrap();
                assert!(got.tag == number && memory == content(LEN, number), "message {number}");
            }
        }
        over.store(true, Ordering::Release);
    });
}

/// The call that waits when the rest comes has looked at what waited before, and looks no more.
#[test]
fn what_one_call_gave_up_in_the_middle_comes_to_the_next_before_what_follows() {
    let (p, plan) = halves(Progress::Caller);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                p.here.process();
                std::thread::yield_now();
            }
        });
        let (mut first, mut second) = (vec![0; LEN], vec![0; LEN]);
        for number in (0..24).step_by(2) {
            plan.held.store(false, Ordering::Release);
            plan.hold.store(true, Ordering::Release);
            drop(p.to_b.post_send(number, content(LEN, number)).unwrap());
            let ended = p.b.recv_within(Match::any_tag(), &mut first, Duration::from_millis(60));
            assert!(matches!(ended, Err(OpError::TimedOut { .. })), "{ended:?}");
            assert!(plan.held.load(Ordering::Acquire), "it has come in part");
            drop(p.to_b.post_send(number + 1, vec![1; 8]).unwrap());
            goes_on(&plan);
            let tags = if number % 4 == 0 {
                [&mut first, &mut second]
                    .map(|memory| p.b.recv_within(Match::any_tag(), memory, common::PATIENCE).unwrap().tag)
            } else {
                let mut receives =
                    [&mut first, &mut second].map(|memory| Receive::new(Match::any_tag(), memory));
                p.b.recv_all_within(&mut receives, common::PATIENCE).unwrap();
                receives.map(|receive| receive.result().expect("all have ended").as_ref().unwrap().tag)
            };
            assert_eq!(tags, [number, number + 1]);
            assert!(first == content(LEN, number), "message {number}");
        }
        over.store(true, Ordering::Release);
    });
}
