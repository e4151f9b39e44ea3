//! Promises about the number of sockets of a session: `parallel(k)` has k, `single` has one, a lost one is replaced, long messages
//! over several are whole, in order and there once; and each socket says which congestion control it has.

mod common;

use common::{PATIENCE, Pair, connected, content, options, until};
use sinew::tcp::Sockets;
use sinew::{BuildError, Engine, Match, OpError, Peer, Progress, TransportOptions};
use std::sync::atomic::{AtomicBool, Ordering};

const THREAD: Progress = Progress::Thread { cpu: None };

fn engine(sockets: &str) -> Engine {
    let transports =
        TransportOptions::default().transports(vec!["tcp".into()]).tcp_sockets(sockets.to_owned());
    Engine::builder()
        .domain("sockets")
        .progress(THREAD)
        .options(options())
        .transport_options(transports)
        .build()
        .expect("an engine")
}

fn pair(here: &str, there: &str) -> (Pair, Peer) {
    let p = connected(engine(here), engine(there));
    let to_a = p.b.connect(p.a.address()).expect("the way back");
    (p, to_a)
}

fn have(p: &Pair, sockets: usize) {
    let now = |peer: &Peer| peer.explain().sockets.map_or(0, |sockets| sockets.now);
    until(&format!("both sides have {sockets} sockets: {}", p.to_b.explain()), || {
        now(&p.to_b) == sockets && p.here.counters().lanes == sockets && p.there.counters().lanes == sockets
    });
}

fn size(number: u64) -> usize {
    match number % 8 {
        1 => 3_000_001,
        4 => 65_537,
        6 => 1 << 20,
        other => 100_000 * other as usize,
    }
}

/// Streams messages of all sizes, several under way at a time, until told to stop; checks order and content.
fn stream(from: &Peer, at: &sinew::Endpoint, stop: &AtomicBool) -> u64 {
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut number = 0;
            let mut under_way = std::collections::VecDeque::new();
            while !stop.load(Ordering::Acquire) {
                let data = content(size(number), number);
                under_way.push_back(from.message(1).immediate(number).post(data).expect("posted"));
                if under_way.len() > 6 {
                    under_way.pop_front().unwrap().wait_within(PATIENCE).expect("sent");
                }
                number += 1;
            }
            from.message(2).immediate(number).send(b"end").expect("the last one");
            for op in under_way {
                op.wait_within(PATIENCE).expect("sent");
            }
            number
        });
        let mut buf = vec![0; 3_000_001];
        let mut number = 0;
        loop {
            let got = at.recv_within(Match::any_tag(), &mut buf, PATIENCE).expect("a message");
            assert_eq!(got.immediate, Some(number), "lost, doubled or out of order");
            if got.tag == 2 {
                break;
            }
            assert_eq!(got.len, size(number));
            assert!(buf[..got.len] == content(got.len, number), "content of {number}");
            number += 1;
        }
        assert_eq!(sender.join().expect("a sender"), number);
        number
    })
}

#[test]
fn parallel_has_as_many_sockets_as_asked_for_and_messages_over_them_are_whole_and_in_order() {
    let (p, to_a) = pair("4", "auto");
    have(&p, 4);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let there = scope.spawn(|| stream(&p.to_b, &p.b, &stop));
        let back = scope.spawn(|| stream(&to_a, &p.a, &stop));
        until("long messages go over several", || {
            p.here.counters().stripes > 100 && p.there.counters().stripes > 100
        });
        stop.store(true, Ordering::Release);
        assert!(there.join().unwrap() > 0 && back.join().unwrap() > 0);
    });
    let explain = p.to_b.explain();
    let sockets = explain.sockets.clone().expect("a number of sockets");
    assert_eq!((sockets.now, sockets.wanted, sockets.bounds), (4, 4, (4, 4)), "{explain}");
    assert!(sockets.why.contains("4 were asked for"), "{explain}");
    let remarks = remarks(&p.to_b);
    assert_eq!(remarks.len(), 4, "{explain}");
    assert!(remarks.iter().all(|remark| remark.starts_with("congestion control ")), "{explain}");
    // The other engine began with one, and has been given more.
    let sockets = to_a.explain().sockets.expect("a number of sockets");
    assert_eq!((sockets.now, sockets.bounds), (4, (1, 8)), "{}", to_a.explain());
    assert!(p.here.lanes().iter().filter(|lane| lane.added).count() >= 3, "{:?}", p.here.lanes());
    assert_eq!((p.here.counters().sessions_lost, p.there.counters().sessions_lost), (0, 0));
}

#[test]
fn lost_sockets_are_replaced_while_messages_flow_and_nothing_is_lost_or_doubled() {
    let (p, to_a) = pair("4", "4");
    have(&p, 4);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let there = scope.spawn(|| stream(&p.to_b, &p.b, &stop));
        let back = scope.spawn(|| stream(&to_a, &p.a, &stop));
        for cut in 0..40_u32 {
            let (engine, peer) = if cut % 2 == 0 { (&p.here, &p.to_b) } else { (&p.there, &to_a) };
            let before = p.here.counters().stripes;
            let which = |added| if added { engine.cut_added(peer) } else { engine.cut(peer) };
            until("there is a socket to cut", || which(cut % 4 < 2));
            until("messages go over several again", || p.here.counters().stripes > before + 10);
        }
        stop.store(true, Ordering::Release);
        assert!(there.join().unwrap() > 0 && back.join().unwrap() > 0);
    });
    have(&p, 4);
    assert_eq!((p.here.counters().sessions_lost, p.there.counters().sessions_lost), (0, 0));
    assert!(p.here.counters().lanes_lost + p.there.counters().lanes_lost >= 40);
    assert_eq!((p.here.counters().operations, p.there.counters().operations), (0, 0), "nothing is kept");
}

#[test]
fn the_side_that_was_dialled_gets_its_sockets_from_the_one_that_dials() {
    let (p, to_a) = pair("auto", "3");
    have(&p, 3);
    let sockets = p.to_b.explain().sockets.expect("a number of sockets");
    assert!(sockets.why.contains("the peer asks for 3"), "{}", p.to_b.explain());
    assert_eq!(to_a.explain().sockets.expect("a number").wanted, 3);
}

#[test]
fn single_is_one_socket_also_where_the_peer_wants_more() {
    let (p, to_a) = pair("4", "single");
    until("the others are refused", || p.here.counters().lanes_refused > 0);
    // Two ways that were tried at once are not two sockets for long, and no message goes over both.
    have(&p, 1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let there = scope.spawn(|| stream(&p.to_b, &p.b, &stop));
        let before = p.b.counters().messages_received;
        until("messages flow", || p.b.counters().messages_received > before + 50);
        stop.store(true, Ordering::Release);
        there.join().unwrap();
    });
    assert_eq!((p.here.counters().stripes, p.there.counters().lanes_added), (0, 0));
    let explain = p.to_b.explain();
    let sockets = explain.sockets.clone().expect("a number of sockets");
    assert_eq!((sockets.now, sockets.wanted), (1, 4), "{explain}");
    assert!(
        sockets.why.contains("takes 1 sockets for a session") && sockets.why.contains("tcp_sockets"),
        "{explain}"
    );
    let there = to_a.explain().sockets.expect("a number of sockets");
    assert!((there.now, there.bounds) == (1, (1, 1)) && there.why.contains("single"), "{there}");
}

#[test]
fn short_messages_open_no_second_socket() {
    let (p, _) = pair("auto", "auto");
    for number in 0..20_000_u64 {
        p.to_b.send(number, &[7; 256]).expect("sent");
        if number % 64 == 0 {
            let mut buf = [0; 256];
            while p.b.try_recv(Match::any_tag(), &mut buf).is_ok() {}
        }
    }
    assert_eq!((p.here.counters().lanes_added, p.here.counters().lanes), (0, 1));
    assert!(p.to_b.explain().sockets.expect("a number of sockets").why.contains("no long queue"));
}

#[test]
fn a_number_of_sockets_that_cannot_be_builds_no_engine() {
    for wrong in ["0", "17", "many", "-3", "2.5"] {
        let transports = TransportOptions::default().tcp_sockets(wrong.to_owned());
        let error = Engine::builder().transport_options(transports).build().expect_err(wrong);
        let text = error.to_string();
        assert!(matches!(error, BuildError::Option(_)), "{text}");
        assert!(text.contains("SINEW_TCP_SOCKETS") && text.contains(wrong), "{text}");
        assert!(text.contains("auto, single, or a number from 1 to 16"), "{text}");
    }
    assert!(Sockets::parallel(0).is_err() && Sockets::parallel(17).is_err() && Sockets::parallel(16).is_ok());
}

fn congestion(name: &str) -> Result<Engine, BuildError> {
    let transports = TransportOptions::default()
        .transports(vec!["tcp".into()])
        .tcp_congestion(name.to_owned())
        .tcp_sockets("2".to_owned());
    Engine::builder()
        .domain("sockets")
        .progress(THREAD)
        .options(options())
        .transport_options(transports)
        .build()
}

fn remarks(peer: &Peer) -> Vec<String> {
    let rows = peer.explain().rows.into_iter();
    // A way that works and was closed beside a better one has no socket that could say anything.
    rows.map(|row| row.remark).filter(|remark| !remark.is_empty()).collect()
}

#[test]
fn each_socket_has_the_congestion_control_that_was_asked_for_and_says_so() {
    // Every kernel has reno, and lets everybody choose it.
    let p = connected(congestion("reno").expect("reno"), congestion("reno").expect("reno"));
    let to_a = p.b.connect(p.a.address()).expect("the way back");
    // Two lanes may be two ways that were tried at once, of which one is closed, and not yet those that are wanted.
    until("there are two", || [&p.to_b, &to_a].iter().all(|peer| remarks(peer).len() == 2));
    for peer in [&p.to_b, &to_a] {
        assert_eq!(remarks(peer), ["congestion control reno"; 2], "{}", peer.explain());
    }
    let system =
        std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").expect("a system's default");
    let p = connected(congestion("system").expect("the default"), congestion("system").expect("the default"));
    until("there are two", || remarks(&p.to_b).len() == 2);
    assert_eq!(remarks(&p.to_b), vec![format!("congestion control {}", system.trim()); 2]);
}

#[test]
fn a_congestion_control_that_the_kernel_does_not_have_builds_no_engine() {
    let error = congestion("nosuch").expect_err("no kernel has it").to_string();
    assert!(error.contains("SINEW_TCP_CONGESTION") && error.contains("nosuch"), "{error}");
    assert!(error.contains("this kernel has") && error.contains("reno"), "{error}");
}

/// An endpoint that closes in the middle of long messages ends their sends, whichever sockets hold parts of them.
#[test]
fn sends_over_several_sockets_end_when_their_endpoint_closes() {
    let (p, _) = pair("4", "4");
    for round in 0..40_u64 {
        have(&p, 4);
        let closing = p.there.endpoint(&format!("closing-{round}")).unwrap();
        let to = p.a.connect(closing.address()).unwrap();
        let receives: Vec<_> = (0..6).map(|_| closing.post_recv(1, vec![0; 3_000_001]).unwrap()).collect();
        let before = p.here.counters().stripes;
        let sends: Vec<_> =
            (0..6).map(|number| to.post_send(1, content(3_000_001, number)).unwrap()).collect();
        until("they go over several sockets", || p.here.counters().stripes > before);
        if round % 2 == 0 {
            p.here.cut(&to);
        }
        drop((receives, closing));
        for mut send in sends {
            let mut ended = None;
            until("a send has ended", || {
                ended = send.try_wait();
                ended.is_some()
            });
            if let Some(Err(failed)) = ended {
                assert!(matches!(failed.error, OpError::EndpointClosed), "{}", failed.error);
            }
        }
        until("nothing is kept", || p.here.counters().operations == 0);
    }
}
