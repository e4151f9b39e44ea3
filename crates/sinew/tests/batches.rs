//! Promises about batches of sends and receives, on each lane.

mod common;

use common::{PATIENCE, content, pair, pair_with, until};
use sinew::{Match, OpError, Outgoing, Partial, Progress, Receive};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [
    a_batch_arrives_whole_and_in_order_whatever_its_sizes,
    a_batch_says_what_each_message_is,
    a_full_receiver_stops_a_batch_at_an_exact_message,
    a_batch_whose_time_is_up_says_what_went,
    a_batch_to_a_lost_peer_says_what_went,
    each_receive_of_a_batch_gets_its_own_message,
    several_messages_come_out_of_one_turn,
    receives_that_did_not_end_are_never_written_later,
    a_panic_in_a_waker_takes_the_receives_back,
    a_message_that_does_not_fit_spoils_no_other,
    batches_and_single_messages_keep_one_order,
    a_batch_of_many_receives_gets_them_in_any_order,
    a_lost_peer_ends_the_receives_from_it,
    threads_that_share_an_endpoint_get_each_message_once,
] }

/// Messages with these tags and contents, seeded by the tag.
fn contents(sizes: &[usize]) -> Vec<Vec<u8>> {
    sizes.iter().enumerate().map(|(tag, &len)| content(len, tag as u64)).collect()
}

fn batch_of(data: &[Vec<u8>]) -> Vec<Outgoing<'_>> {
    data.iter().enumerate().map(|(tag, data)| Outgoing::tagged(tag as u64, data)).collect()
}

/// Sends from `first` on until all have gone, without ever blocking.
fn send_all(peer: &sinew::Peer, messages: &[Outgoing<'_>], mut idle: impl FnMut()) {
    let mut first = 0;
    until("the batch has gone", || {
        idle();
        match peer.try_send_batch(&messages[first..]) {
            Ok(()) => true,
            Err(Partial { sent, error: OpError::WouldBlock }) => {
                first += sent;
                false
            }
            Err(error) => panic!("{error}"),
        }
    });
}

fn a_batch_arrives_whole_and_in_order_whatever_its_sizes(lane: &str) {
    let p = pair(lane);
    let sizes = [0, 1, 8, 39, 40, 41, 4096, 16_384, 70_000, 3, 300_000, 0, 16_385, 7];
    let data = contents(&sizes);
    let messages = batch_of(&data);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                p.to_b.send_batch(&messages).unwrap();
            }
            p.to_b.flush().unwrap();
        });
        let mut buf = vec![0; 300_001];
        for round in 0..20 {
            for (tag, data) in data.iter().enumerate() {
                let got = p.b.recv(Match::any_tag(), &mut buf).unwrap();
                assert_eq!((got.tag, got.len), (tag as u64, data.len()), "round {round}");
                assert!(buf[..got.len] == data[..], "content of {tag}");
            }
        }
    });
    p.to_b.send_batch(&[]).unwrap();
    p.to_b.try_send_batch(&[]).unwrap();
}

fn a_batch_says_what_each_message_is(lane: &str) {
    let p = pair(lane);
    let messages = [
        Outgoing::untagged(b"untagged"),
        Outgoing::tagged(7, b"seven").immediate(77),
        Outgoing::untagged(b"both").immediate(1),
        Outgoing::tagged(8, b""),
    ];
    p.to_b.send_batch(&messages).unwrap();
    let mut buf = [0; 16];
    let got = p.b.recv(8, &mut buf).unwrap();
    assert_eq!((got.len, got.immediate), (0, None));
    let got = p.b.recv(Match::untagged(), &mut buf).unwrap();
    assert_eq!((&buf[..got.len], got.immediate), (&b"untagged"[..], None));
    let got = p.b.recv(Match::untagged(), &mut buf).unwrap();
    assert_eq!((&buf[..got.len], got.immediate), (&b"both"[..], Some(1)));
    let got = p.b.recv(7, &mut buf).unwrap();
    assert_eq!((&buf[..got.len], got.immediate), (&b"seven"[..], Some(77)));
}

/// Small windows and no room for copies: nothing goes beyond the credit.
fn tight(first: Progress, second: Progress, lane: &str) -> common::Pair {
    let options = common::options().endpoint_window(4096usize).session_window(8192usize).send_buffer(0usize);
    pair_with(lane, first, second, options)
}

fn a_full_receiver_stops_a_batch_at_an_exact_message(lane: &str) {
    let p = tight(Progress::Caller, THREAD, lane);
    let data: Vec<Vec<u8>> = (0..2000).map(|seed| content(100, seed)).collect();
    let messages = batch_of(&data);
    let partial = p.to_b.try_send_batch(&messages).expect_err("2000 messages do not fit the window");
    assert!(matches!(partial.error, OpError::WouldBlock), "{partial}");
    assert!((1..2000).contains(&partial.sent), "{partial}");
    assert!(partial.to_string().contains(&partial.sent.to_string()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buf = [0; 100];
            for (tag, data) in data.iter().enumerate() {
                let got = p.b.recv(Match::any_tag(), &mut buf).unwrap();
                assert_eq!(got.tag, tag as u64, "nothing is lost, nothing comes twice");
                assert!(buf[..] == data[..]);
            }
        });
        send_all(&p.to_b, &messages[partial.sent..], || ());
    });
    assert!(matches!(p.b.try_recv(Match::any_tag(), &mut [0; 100]), Err(OpError::WouldBlock)));
}

fn a_batch_whose_time_is_up_says_what_went(lane: &str) {
    let p = tight(THREAD, THREAD, lane);
    // The long one is fetched by a receive, and there is none.
    let data = contents(&[10, 20, 500_000, 30]);
    let error = p.to_b.send_batch_within(&batch_of(&data), Duration::from_millis(100)).expect_err("no time");
    assert!(matches!(error, Partial { sent: 2, error: OpError::TimedOut { .. } }), "{error:?}");
    let mut buf = vec![0; 500_000];
    for tag in 0..2 {
        assert_eq!(p.b.recv(tag, &mut buf).unwrap().len, data[tag as usize].len());
    }
    p.to_b.send(9, b"after").unwrap();
    assert_eq!(p.b.recv(9, &mut buf).unwrap().len, 5);
    assert!(p.b.probe(Match::any_tag()).is_none(), "what did not go never comes");
}

fn a_batch_to_a_lost_peer_says_what_went(lane: &str) {
    let p = pair(lane);
    p.to_b.send_batch(&[Outgoing::tagged(1, b"one")]).unwrap();
    p.here.lose(&p.to_b);
    for result in [
        p.to_b.send_batch(&[Outgoing::tagged(1, b"two")]),
        p.to_b.try_send_batch(&[Outgoing::tagged(1, b"three")]),
    ] {
        let error = result.expect_err("lost for ever");
        assert!(matches!(error, Partial { sent: 0, error: OpError::PeerLost { .. } }), "{error:?}");
    }
}

fn each_receive_of_a_batch_gets_its_own_message(lane: &str) {
    let p = pair(lane);
    let sizes: Vec<usize> = (0..24).map(|at| [0, 8, 40, 700, 20_000, 200_000][at % 6]).collect();
    let data = contents(&sizes);
    let mut buffers = vec![vec![0; 200_001]; sizes.len()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut messages = batch_of(&data);
            messages.reverse();
            p.to_b.send_batch(&messages).unwrap();
            p.to_b.flush().unwrap();
        });
        let mut receives: Vec<Receive<'_>> =
            buffers.iter_mut().enumerate().map(|(tag, buf)| Receive::new(tag as u64, buf)).collect();
        assert_eq!(p.b.recv_all(&mut receives).unwrap(), sizes.len());
        for (tag, receive) in receives.iter_mut().enumerate() {
            assert_eq!(receive.completion().unwrap().tag, tag as u64);
            assert!(receive.data() == data[tag], "content of {tag}");
            assert!(receive.again(0).is_some_and(|result| result.is_ok()));
            assert!(receive.result().is_none() && receive.data().is_empty());
        }
    });
}

fn several_messages_come_out_of_one_turn(lane: &str) {
    let p = pair(lane);
    let data = contents(&[5; 8]);
    p.to_b.send_batch(&batch_of(&data)).unwrap();
    until("all are there", || p.b.counters().unexpected == 8);
    let mut buffers = [[0; 8]; 12];
    let mut receives: Vec<Receive<'_>> =
        buffers.iter_mut().map(|buf| Receive::new(Match::any_tag(), buf)).collect();
    assert_eq!(p.b.recv_batch(&mut receives[..3]).unwrap(), 3);
    assert_eq!(p.b.try_recv_batch(&mut receives).unwrap(), 5, "those that have ended are left alone");
    for (tag, receive) in receives.iter().enumerate() {
        let expected = data.get(tag).map_or(&[][..], |data| &data[..]);
        assert_eq!((receive.data(), receive.result().is_some()), (expected, tag < 8));
    }
    assert!(matches!(p.b.try_recv_batch(&mut receives), Err(OpError::WouldBlock)));
    let short = Duration::from_millis(20);
    assert!(matches!(p.b.recv_batch_within(&mut receives, short), Err(OpError::TimedOut { .. })));
    assert!(matches!(p.b.recv_all_within(&mut receives, short), Err(OpError::TimedOut { .. })));
    p.to_b.send(1, b"last").unwrap();
    assert_eq!(p.b.recv_all_within(&mut receives, Duration::from_millis(200)).unwrap(), 1, "fewer than all");
    assert_eq!(receives[8].data(), b"last", "the first that wanted one");
    assert_eq!(p.b.try_recv_batch(&mut []).unwrap() + p.b.recv_all(&mut []).unwrap(), 0);
}

fn receives_that_did_not_end_are_never_written_later(lane: &str) {
    let p = pair(lane);
    let mut buffers = [[0xee; 8]; 3];
    {
        let mut receives: Vec<Receive<'_>> =
            buffers.iter_mut().zip(1u64..).map(|(buf, tag)| Receive::new(tag, buf)).collect();
        p.to_b.send(2, b"second").unwrap();
        assert_eq!(p.b.recv_batch(&mut receives).unwrap(), 1);
        assert_eq!(receives[1].data(), b"second");
    }
    p.to_b.send(1, b"first").unwrap();
    p.to_b.send(3, b"third").unwrap();
    p.to_b.flush().unwrap();
    let mut buf = [0; 8];
    assert_eq!(p.b.recv(3, &mut buf).unwrap().len, 5);
    assert_eq!(p.b.recv(1, &mut buf).unwrap().len, 5);
    assert_eq!((buffers[0], buffers[2]), ([0xee; 8], [0xee; 8]));
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

fn a_panic_in_a_waker_takes_the_receives_back(lane: &str) {
    let p = pair_with(lane, THREAD, Progress::Event, common::options());
    let mut trap = p.b.post_recv(99, vec![0; 8]).unwrap();
    let waker = Waker::from(Arc::new(Panics));
    let pinned = std::pin::Pin::new(&mut trap);
    assert!(Future::poll(pinned, &mut Context::from_waker(&waker)).is_pending());
    let mut buffers = [[0xee; 8]; 2];
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let (first, second) = buffers.split_at_mut(1);
        let mut receives = [Receive::new(1, &mut first[0]), Receive::new(2, &mut second[0])];
        p.to_b.send(99, b"trap").unwrap();
        p.b.recv_all_within(&mut receives, PATIENCE)
    }));
    // On the lane to oneself another thread may have the panic.
    if lane != "self" {
        assert!(outcome.is_err(), "the waker panicked in this call");
    }
    drop(trap);
    p.to_b.send_batch(&[Outgoing::tagged(1, b"one"), Outgoing::tagged(2, b"two")]).unwrap();
    let mut buf = [0; 8];
    assert_eq!(p.b.recv(2, &mut buf).unwrap().len, 3);
    assert_eq!(p.b.recv(1, &mut buf).unwrap().len, 3);
    assert_eq!(buffers, [[0xee; 8]; 2], "nothing is written to buffers that are the caller's again");
}

fn a_message_that_does_not_fit_spoils_no_other(lane: &str) {
    let p = pair(lane);
    let data = contents(&[4, 100, 60_000, 4]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            p.to_b.send_batch(&batch_of(&data)).unwrap();
            p.to_b.flush().unwrap();
        });
        let mut buffers = [[0; 8]; 4];
        let mut receives: Vec<Receive<'_>> =
            buffers.iter_mut().zip(0u64..).map(|(buf, tag)| Receive::new(tag, buf)).collect();
        assert_eq!(p.b.recv_all(&mut receives).unwrap(), 4);
        for (tag, receive) in receives.iter().enumerate() {
            let fits = data[tag].len() <= 8;
            assert_eq!(receive.result().unwrap().is_ok(), fits);
            assert!(receive.data() == &data[tag][..data[tag].len().min(8)], "the beginning is there");
        }
    });
}

fn batches_and_single_messages_keep_one_order(lane: &str) {
    let p = pair(lane);
    const ROUNDS: u64 = 300;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let data = content(30, 1);
            for round in 0..ROUNDS {
                let at = |number: u64| Outgoing::tagged(1, &data).immediate(round * 6 + number);
                p.to_b.send_batch(&[at(0), at(1)]).unwrap();
                p.to_b
                    .message(1)
                    .immediate(round * 6 + 2)
                    .stage(&data)
                    .or_else(|_| p.to_b.message(1).immediate(round * 6 + 2).send(&data))
                    .unwrap();
                p.to_b.send_batch(&[at(3), at(4)]).unwrap();
                p.to_b.message(1).immediate(round * 6 + 5).send(&content(40_000, round)).unwrap();
            }
            // Nobody else makes this engine's progress: what its lane still holds goes out here.
            p.to_b.flush().unwrap();
        });
        let mut buffers = vec![vec![0; 40_000]; 5];
        let mut next = 0;
        while next < ROUNDS * 6 {
            let mut receives: Vec<Receive<'_>> = buffers.iter_mut().map(|buf| Receive::new(1, buf)).collect();
            p.b.recv_batch(&mut receives).unwrap();
            for receive in receives.iter().filter(|receive| receive.result().is_some()) {
                assert_eq!(receive.completion().unwrap().immediate, Some(next));
                next += 1;
            }
        }
    });
}

fn a_batch_of_many_receives_gets_them_in_any_order(lane: &str) {
    let p = pair(lane);
    for count in [63, 64, 65, 300] {
        let sizes: Vec<usize> = (0..count).map(|at| if at % 50 == 7 { 80_000 } else { at % 90 }).collect();
        let data = contents(&sizes);
        let mut buffers: Vec<Vec<u8>> = sizes.iter().map(|&len| vec![0; len]).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut messages = batch_of(&data);
                messages.reverse();
                messages[..count / 2].reverse();
                p.to_b.send_batch(&messages).unwrap();
                p.to_b.flush().unwrap();
            });
            let mut receives: Vec<Receive<'_>> =
                buffers.iter_mut().zip(0u64..).map(|(buf, tag)| Receive::new(tag, buf)).collect();
            assert_eq!(p.b.recv_all(&mut receives).unwrap(), count);
            for (receive, data) in receives.iter().zip(&data) {
                assert!(receive.data() == *data && receive.completion().unwrap().len == data.len());
            }
        });
    }
}

fn a_lost_peer_ends_the_receives_from_it(lane: &str) {
    let p = pair(lane);
    let from_b = Match::tag(1).from(p.to_b.source());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the receives wait", || p.a.counters().posted == 2);
            p.here.lose(&p.to_b);
        });
        let mut buffers = [[0xee; 8]; 2];
        let [first, second] = &mut buffers;
        let mut receives = [Receive::new(from_b, first), Receive::new(from_b, second)];
        assert_eq!(p.a.recv_all(&mut receives).unwrap(), 2, "both have ended");
        for receive in &receives {
            assert!(matches!(receive.result(), Some(Err(OpError::PeerLost { .. }))), "{receive:?}");
            assert!(receive.data().is_empty());
        }
        assert_eq!(buffers, [[0xee; 8]; 2]);
    });
}

fn threads_that_share_an_endpoint_get_each_message_once(lane: &str) {
    let p = pair(lane);
    const COUNT: usize = 2000;
    let seen = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for batch in [1, 3, 16] {
            let (p, seen) = (&p, &seen);
            scope.spawn(move || {
                let mut buffers = vec![[0; 8]; batch];
                while seen.lock().unwrap().len() < COUNT {
                    let mut receives: Vec<Receive<'_>> =
                        buffers.iter_mut().map(|buf| Receive::new(1, buf)).collect();
                    match p.b.recv_batch_within(&mut receives, Duration::from_millis(20)) {
                        Ok(_) | Err(OpError::TimedOut { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    let got = receives.iter().filter_map(Receive::completion);
                    seen.lock().unwrap().extend(got.filter_map(|info| info.immediate));
                }
            });
        }
        for number in (0..COUNT as u64).step_by(4) {
            let at = |more| Outgoing::tagged(1, b"12345678").immediate(number + more);
            p.to_b.send_batch(&[at(0), at(1), at(2), at(3)]).unwrap();
        }
        p.to_b.flush().unwrap();
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..COUNT as u64), "each message once");
}
