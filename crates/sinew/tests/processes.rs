//! Promises about processes: death, stop, close, fork. The other process is this test binary, started again.
#![allow(unsafe_code)]

mod common;

use common::{PATIENCE, content, engine, hear, open_descriptors, options, pair, say, spawn, threads, until};
use sinew::{Endpoint, Engine, Match, OpError, Peer, Progress};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    a_killed_receiver_is_noticed_and_the_rest_goes_on,
    a_killed_sender_is_noticed_and_the_rest_goes_on,
    whoever_only_waits_learns_of_a_death,
    a_stopped_peer_loses_nothing_and_stalls_nobody,
    close_hands_over_what_was_sent,
    a_forked_child_cannot_use_or_harm_the_parent,
    a_process_that_ends_without_goodbye_loses_the_session_only,
    a_dead_peer_leaves_no_descriptor_and_no_thread,
    an_old_address_does_not_reach_a_new_process,
    a_death_ends_all_operations_and_how_fast_is_printed,
] }

/// Small ones and long ones, in turn.
fn size(number: u64) -> usize {
    match number % 8 {
        5 => 150_000,
        7 => 5000,
        _ => 100,
    }
}

/// The roles of the other process.
#[test]
#[ignore = "a child of other tests"]
fn other_process() {
    if !common::is_other() {
        return;
    }
    let role = std::env::var("OTHER_ROLE").unwrap();
    let lane = std::env::var("OTHER_LANE").unwrap();
    let engine = match std::env::var("OTHER_PORT") {
        Ok(port) => Engine::builder()
            .domain("faults")
            .transport_options(sinew::TransportOptions::default().transports(vec![lane]).tcp_ports(port))
            .build()
            .unwrap(),
        Err(_) => engine(&lane, Progress::Caller),
    };
    let endpoint = engine.endpoint("other").unwrap();
    say(endpoint.address());
    match role.as_str() {
        "receive" => receive(&endpoint),
        "send" => send_for_ever(&endpoint),
        "wait" => drop(hear()),
        "survive" => survive(&engine, &endpoint, &std::env::var("OTHER_LANE").unwrap()),
        "sum" => sum(&engine, &endpoint),
        other => panic!("no role {other}"),
    }
}

/// Receives for ever, says how far it is now and then.
fn receive(endpoint: &Endpoint) {
    let mut buf = vec![0; 150_000];
    for number in 0u64.. {
        let Ok(got) = endpoint.recv_within(Match::any_tag(), &mut buf, PATIENCE) else { return };
        assert_eq!((got.immediate, got.len), (Some(number), size(number)));
        assert!(buf[..got.len] == content(got.len, number), "content of {number}");
        if number % 50 == 49 {
            say(number + 1);
        }
    }
}

/// Connects to the address that it is told and sends for ever.
fn send_for_ever(endpoint: &Endpoint) {
    let Some(address) = hear() else { return };
    let peer = endpoint.connect(address).unwrap();
    for number in 0u64.. {
        let sent = peer.message(1).immediate(number).send(&content(size(number), number));
        if sent.is_err() {
            return;
        }
    }
}

/// Receives as many messages as it is told, says their sum, and closes.
fn sum(engine: &Engine, endpoint: &Endpoint) {
    let mut buf = vec![0; 150_000];
    let (mut total, mut count) = (0u64, 0u64);
    while let Ok(got) = endpoint.recv_within(1, &mut buf, PATIENCE) {
        assert!(buf[..got.len] == content(got.len, got.immediate.unwrap()));
        total += got.immediate.unwrap();
        count += 1;
        if got.immediate == Some(u64::MAX >> 32) {
            break;
        }
    }
    say(format!("{count} {total}"));
    let _ = hear();
    engine.close(Duration::from_secs(1)).unwrap();
}

fn is_lost(error: &OpError) -> bool {
    matches!(error, OpError::PeerLost { .. })
}

/// Between two endpoints of two engines of this process, that must not notice anything.
struct Bystanders {
    stop: AtomicBool,
    rounds: AtomicU64,
}

impl Bystanders {
    const fn new() -> Self {
        Self { stop: AtomicBool::new(false), rounds: AtomicU64::new(0) }
    }

    /// Goes on until told to stop. `here`, of which `to` is, makes no progress by itself: a message that had to wait for
    /// credit is fetched from it.
    fn run(&self, here: &Engine, to: &Peer, at: &Endpoint) {
        let mut buf = vec![0; 150_000];
        while !self.stop.load(Ordering::Acquire) {
            let round = self.rounds.load(Ordering::Relaxed);
            let data = content(if round.is_multiple_of(4) { 20_000 } else { 100 }, round);
            let mut receive = at.post_recv(0xb, std::mem::take(&mut buf)).unwrap();
            to.send(0xb, &data).unwrap();
            let start = Instant::now();
            let got = loop {
                if let Some(result) = receive.try_wait() {
                    break result.unwrap();
                }
                assert!(start.elapsed() < PATIENCE, "the bystanders wait in vain");
                here.progress();
            };
            assert!(got.buf.as_slice() == data);
            buf = vec![0; 150_000];
            self.rounds.fetch_add(1, Ordering::Release);
        }
    }

    /// Stops them when it is dropped: a test that panics must not wait for them for ever.
    fn stop_at_end(&self) -> impl Drop {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        Stop(&self.stop)
    }

    fn wait_for_more(&self) {
        let now = self.rounds.load(Ordering::Acquire);
        until("the bystanders go on", || self.rounds.load(Ordering::Acquire) > now + 10);
    }
}

fn a_killed_receiver_is_noticed_and_the_rest_goes_on(lane: &str) {
    let p = pair(lane);
    let calm = Bystanders::new();
    let mut delays = Vec::new();
    std::thread::scope(|scope| {
        let _stop = calm.stop_at_end();
        scope.spawn(|| calm.run(&p.here, &p.to_b, &p.b));
        for round in 0..4 {
            let mut other = spawn("receive", lane, &[]);
            let peer = p.a.connect(other.line()).unwrap();
            let (sent, died) = std::thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    for number in 0u64.. {
                        let data = content(size(number), number);
                        if let Err(error) = peer.message(1).immediate(number).send(&data) {
                            return (number, error, Instant::now());
                        }
                    }
                    unreachable!()
                });
                for _ in 0..=round {
                    other.line();
                }
                let at = Instant::now();
                other.kill();
                let (sent, error, noticed) = sender.join().unwrap();
                assert!(is_lost(&error), "{error:?}");
                (sent, noticed.duration_since(at))
            });
            assert!(sent > 0);
            delays.push(died);
            assert!(peer.send(1, b"x").is_err_and(|error| is_lost(&error)), "lost for ever");
            assert!(!peer.is_connected());
            assert!(peer.flush().is_err_and(|error| is_lost(&error)));
            calm.wait_for_more();
            drop((peer, other));
        }
    });
    println!("{lane}: a killed receiver was noticed after {delays:?}");
}

/// In a process of its own, where no other test opens descriptors or starts threads.
fn a_dead_peer_leaves_no_descriptor_and_no_thread(lane: &str) {
    let other = spawn("survive", lane, &[]);
    let _ = other.line();
    assert_eq!(other.line(), "no leak");
    other.finish();
}

/// Lets peers die again and again and counts.
fn survive(engine: &Engine, endpoint: &Endpoint, lane: &str) {
    let mut first = None;
    for round in 0..5 {
        let mut other = spawn("receive", lane, &[]);
        let peer = endpoint.connect(other.line()).unwrap();
        for number in 0..20 {
            peer.message(1).immediate(number).send(&content(size(number), number)).unwrap();
        }
        let open = peer.post_send(1, vec![0; 10 << 20]).unwrap();
        other.kill();
        drop(other);
        until("the death is noticed", || peer.flush().is_err_and(|error| is_lost(&error)));
        assert!(open.wait().is_err_and(|failed| is_lost(&failed.error)));
        drop(peer);
        if round == 0 {
            until("the reader of its output has ended", || threads() <= 2);
            first = Some((open_descriptors(), threads()));
        }
    }
    let (descriptors, tasks) = first.unwrap();
    until("all descriptors are closed", || open_descriptors() <= descriptors);
    until("all threads have ended", || threads() <= tasks);
    let counters = engine.counters();
    assert_eq!((counters.sessions, counters.lanes, counters.operations), (0, 0, 0));
    say("no leak");
}

fn a_killed_sender_is_noticed_and_the_rest_goes_on(lane: &str) {
    let p = pair(lane);
    let calm = Bystanders::new();
    let mut delays = Vec::new();
    std::thread::scope(|scope| {
        let _stop = calm.stop_at_end();
        scope.spawn(|| calm.run(&p.here, &p.to_b, &p.b));
        for round in 0..4u64 {
            let mine = p.here.endpoint("").unwrap();
            let mut other = spawn("send", lane, &[]);
            let _ = other.line();
            // It connects to us: somebody must make progress meanwhile, and does (the bystanders).
            other.tell(&mine.address().to_string());
            let mut buf = vec![0; 150_000];
            let mut source = None;
            let mut expected = 0;
            let mut killed = None;
            let error = loop {
                let pattern = source.map_or(Match::any_tag(), |source| Match::any_tag().from(source));
                match mine.recv_within(pattern, &mut buf, PATIENCE) {
                    Ok(got) => {
                        assert_eq!((got.immediate, got.len), (Some(expected), size(expected)));
                        assert!(buf[..got.len] == content(got.len, expected));
                        source = Some(got.source);
                        expected += 1;
                        if expected == 20 + round * 13 {
                            other.signal(libc::SIGKILL);
                            killed = Some(Instant::now());
                        }
                    }
                    Err(error) => break error,
                }
            };
            assert!(is_lost(&error), "a receive from the dead one ends: {error:?}");
            delays.push(killed.unwrap().elapsed());
            assert!(mine.reply_to(source.unwrap()).is_err());
            calm.wait_for_more();
        }
    });
    println!("{lane}: a killed sender was noticed after {delays:?}");
}

/// Nothing streams: who waits (asleep) for a message of a peer, or for the fetch of one, must be woken by its death.
fn whoever_only_waits_learns_of_a_death(lane: &str) {
    for mode in [Progress::Caller, Progress::Thread { cpu: None }] {
        let here = engine(lane, mode);
        let a = here.endpoint("a").unwrap();
        let mut other = spawn("wait", lane, &[]);
        let address = other.line();
        // It makes no progress by itself: it waits for its input, and answers nothing.
        let connected = a.connect_within(&address, Duration::from_millis(300));
        assert!(connected.is_err(), "nobody answers: {connected:?}");
        other.kill();
        let mut other = spawn("receive", lane, &[]);
        let peer = a.connect(other.line()).unwrap();
        let source = peer.source();
        let waiting = {
            let a = a.clone();
            std::thread::spawn(move || a.recv_within(Match::tag(1).from(source), &mut [0; 8], PATIENCE))
        };
        until("it waits", || !waiting.is_finished() && here.counters().operations > 0);
        let at = Instant::now();
        other.kill();
        let error = waiting.join().unwrap().unwrap_err();
        println!("{lane} {mode:?}: a sleeping receiver noticed a death after {:?}", at.elapsed());
        assert!(is_lost(&error), "{error:?}");
        assert!(a.connect_within(&address, Duration::from_secs(1)).is_err());
    }
}

/// From the kill until the last of a receive, a long send and a flush has ended, in each way of making progress. Nobody
/// waits for `peer_timeout`: a peer whose process has ended is not silent, it refuses.
fn a_death_ends_all_operations_and_how_fast_is_printed(lane: &str) {
    const KILLS: usize = 24;
    for mode in [Progress::Caller, Progress::Thread { cpu: None }, Progress::Event] {
        let here = engine(lane, mode);
        let a = here.endpoint("a").unwrap();
        let mut took = Vec::new();
        for _ in 0..KILLS {
            let mut other = spawn("receive", lane, &[]);
            let address = other.line();
            let peer = a.connect(address).unwrap();
            let receive = a.post_recv(Match::tag(1).from(peer.source()), vec![0; 8]).unwrap();
            // The other side waits for the bytes of this one.
            other.signal(libc::SIGSTOP);
            let send = peer.message(1).immediate(0).post(vec![0; 4 << 20]).unwrap();
            let flush = {
                let peer = peer.clone();
                std::thread::spawn(move || peer.flush_within(PATIENCE))
            };
            until("all of them wait", || here.counters().operations == 3);
            let at = Instant::now();
            other.signal(libc::SIGKILL);
            let received = receive.wait_within(PATIENCE).unwrap_err().error;
            let sent = send.wait_within(PATIENCE).unwrap_err().error;
            let flushed = flush.join().unwrap().unwrap_err();
            took.push(at.elapsed());
            for error in [received, sent, flushed] {
                assert!(is_lost(&error), "{error:?}");
                assert!(!error.to_string().contains("peer_timeout"), "{error}");
            }
            other.kill();
        }
        assert_eq!(here.counters().operations, 0);
        took.sort();
        let (median, p99) = (took[KILLS / 2], took[KILLS - 1 - KILLS / 100]);
        println!(
            "{lane} {mode:?}: {KILLS} deaths, all operations ended after {median:?} (median), {p99:?} (p99)"
        );
    }
}

fn a_stopped_peer_loses_nothing_and_stalls_nobody(lane: &str) {
    let p = pair(lane);
    let calm = Bystanders::new();
    let other = spawn("receive", lane, &[]);
    let peer = p.a.connect(other.line()).unwrap();
    std::thread::scope(|scope| {
        let _stop = calm.stop_at_end();
        scope.spawn(|| calm.run(&p.here, &p.to_b, &p.b));
        let peer = &peer;
        let sender = scope.spawn(move || {
            for number in 0..400u64 {
                let data = content(size(number), number);
                peer.message(1).immediate(number).timeout(PATIENCE).send(&data).unwrap();
            }
            peer.flush_within(PATIENCE).unwrap();
        });
        for _ in 0..3 {
            other.line();
            other.signal(libc::SIGSTOP);
            // It stands still: the others do not.
            calm.wait_for_more();
            other.signal(libc::SIGCONT);
        }
        sender.join().unwrap();
        while other.line() != "400" {}
    });
    // A deadline that passes while it is stopped ends the operation only.
    other.signal(libc::SIGSTOP);
    let late = peer.message(1).immediate(400).timeout(Duration::from_millis(50)).send(&vec![0; 1 << 20]);
    assert!(matches!(late, Err(OpError::TimedOut { .. })), "{late:?}");
    other.signal(libc::SIGCONT);
    for number in 400..450 {
        peer.message(1).immediate(number).send(&content(size(number), number)).unwrap();
    }
    assert_eq!(other.line(), "450");
}

fn close_hands_over_what_was_sent(lane: &str) {
    let mut other = spawn("sum", lane, &[]);
    let here = engine(lane, Progress::Caller);
    let a = here.endpoint("a").unwrap();
    let peer = a.connect(other.line()).unwrap();
    let mut total = 0;
    for number in 0..3000u64 {
        // Short ones end at once, longer ones are posted and dropped: all go out before the close ends.
        let data = content(if number % 100 == 0 { 100_000 } else { 500 }, number);
        drop(peer.message(1).immediate(number).post(data).unwrap());
        total += number;
    }
    let last = u64::MAX >> 32;
    drop(peer.message(1).immediate(last).post(content(10, last)).unwrap());
    assert!(here.close(PATIENCE).unwrap(), "everything was handed over");
    assert_eq!(other.line(), format!("3001 {}", total + last));
    assert!(peer.send(1, b"x").is_err());
    assert!(here.close(Duration::from_secs(1)).is_ok(), "closing again is nothing");
    other.tell("end");
    other.finish();
}

fn a_forked_child_cannot_use_or_harm_the_parent(lane: &str) {
    let p = pair(lane);
    let handler = p.a.on_message(0xaa, 16, 2, |_, _| {}).unwrap();
    let posted = p.a.post_recv(0xab, vec![0; 16]).unwrap();
    let hanging = p.to_b.post_send(0xac, vec![0; 1 << 20]).unwrap();
    for _ in 0..100 {
        // Often enough to have the short way.
        p.to_b.send(0xad, b"warm").unwrap();
    }
    let sent = p.to_b.post_send(0xad, vec![0; 16]).unwrap();
    // Waits in this process for company: a child must not send it.
    p.to_b.stage(0xad, b"staged").unwrap();
    // SAFETY: the child only calls the engine, whose locks nobody else holds (the other engine's thread may hold its own,
    // which the child does not touch), and `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let forked = |error: &OpError| matches!(error, OpError::Forked);
        let checks = [
            p.to_b.send(1, b"x").is_err_and(|error| forked(&error)),
            p.to_b.try_send(1, b"x").is_err_and(|error| forked(&error)),
            p.to_b.flush().is_err_and(|error| forked(&error)),
            p.a.recv_within(1, &mut [0; 8], Duration::from_millis(1)).is_err_and(|error| forked(&error)),
            p.a.probe(1).is_none(),
            p.a.post_recv(1, vec![0; 8]).is_err_and(|failed| forked(&failed.error)),
            p.a.connect(p.b.address()).is_err(),
            p.here.endpoint("child").is_err(),
            p.here.close(Duration::ZERO).is_err_and(|error| forked(&error)),
            !p.to_b.path().is_empty(),
            p.here.progress() == 0,
            p.here.process() == 0,
            posted.cancel().is_err_and(|failed| forked(&failed.error)),
            hanging.wait_within(Duration::from_millis(1)).is_err_and(|failed| forked(&failed.error)),
            sent.wait().is_ok(),
        ];
        // All handles go, as in a child that returns from a function.
        drop(handler);
        let here = p.here.clone();
        let (a, to_b) = (p.a.clone(), p.to_b.clone());
        std::mem::forget(p.b);
        std::mem::forget(p.there);
        drop((p.a, p.to_b, p.here, a, to_b, here));
        let failed = checks.iter().position(|&check| !check);
        // SAFETY: ends the child at once, without the parent's exit handlers.
        unsafe { libc::_exit(failed.map_or(0, |at| at as i32 + 1)) };
    }
    let mut status = 0;
    until("the child has ended", || {
        // SAFETY: the child is ours.
        unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) == pid }
    });
    assert_eq!(status, 0, "exit code = number of the check that failed in the child, or its signal");
    drop(sent);
    for round in 0..200u64 {
        let data = content(if round % 10 == 0 { 100_000 } else { 64 }, round);
        let receive = p.b.post_recv(round + 1000, vec![0; data.len()]).unwrap();
        p.to_b.send(round + 1000, &data).unwrap();
        assert!(receive.wait().unwrap().buf.as_slice() == data);
    }
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| hanging.wait().unwrap());
        assert_eq!(p.b.recv(0xac, &mut vec![0; 1 << 20]).unwrap().len, 1 << 20);
        sent.join().unwrap();
    });
    // Asleep, too: the descriptors that wake us are still watched.
    let source = p.to_b.source();
    assert_eq!(source.endpoint(), p.b.number());
    drop((handler, posted));
    assert!(p.here.close(PATIENCE).unwrap());
}

fn a_process_that_ends_without_goodbye_loses_the_session_only(lane: &str) {
    let here = engine(lane, Progress::Thread { cpu: None });
    let a = here.endpoint("a").unwrap();
    for _ in 0..2 {
        let mut other = spawn("receive", lane, &[]);
        let peer = a.connect(other.line()).unwrap();
        peer.message(1).immediate(0).send(&content(size(0), 0)).unwrap();
        peer.flush().unwrap();
        other.kill();
        until("the session is lost without any call of ours", || here.counters().sessions == 0);
        assert!(peer.send(1, b"x").is_err_and(|error| is_lost(&error)));
    }
    assert_eq!(here.counters().sessions_lost, 2);
}

fn an_old_address_does_not_reach_a_new_process(lane: &str) {
    if lane != "tcp" {
        return restart_by_name(lane);
    }
    let here = engine(lane, Progress::Caller);
    let a = here.endpoint("a").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = free.to_string();
    let mut first = spawn("receive", lane, &[("OTHER_PORT", &port)]);
    let address = first.line();
    let target = format!("tcp://127.0.0.1:{port}/other");
    let old = a.connect(&target).unwrap();
    old.message(1).immediate(0).send(&content(size(0), 0)).unwrap();
    first.kill();
    let second = spawn("receive", lane, &[("OTHER_PORT", &port)]);
    let _ = second.line();
    until("the old peer is lost", || old.flush_within(Duration::from_secs(5)).is_err_and(|e| is_lost(&e)));
    let error = a.connect_within(&address, Duration::from_secs(3)).unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("tcp"), "the table of what was tried: {error}");
    let new = a.connect(&target).unwrap();
    for number in 0..50 {
        new.message(1).immediate(number).send(&content(size(number), number)).unwrap();
    }
    assert_eq!(second.line(), "50");
    assert!(old.send(1, b"x").is_err_and(|error| is_lost(&error)), "the old peer stays lost");
    assert!(options().timeout.is_some());
}

/// On the local lanes every process has sockets of its own: the old address finds nobody.
fn restart_by_name(lane: &str) {
    let here = engine(lane, Progress::Caller);
    let a = here.endpoint("a").unwrap();
    let mut first = spawn("receive", lane, &[]);
    let address = first.line();
    let old = a.connect(&address).unwrap();
    first.kill();
    let second = spawn("receive", lane, &[]);
    let error = a.connect_within(&address, Duration::from_secs(3)).unwrap_err();
    println!("{error}");
    let new = a.connect(second.line()).unwrap();
    for number in 0..50 {
        new.message(1).immediate(number).send(&content(size(number), number)).unwrap();
    }
    assert_eq!(second.line(), "50");
    assert!(old.send(1, b"x").is_err_and(|error| is_lost(&error)), "the old peer stays lost");
}

/// `transports([..])` chooses among the transports; how they behave stays what the environment says.
#[test]
fn a_choice_of_transports_keeps_the_other_options_of_the_environment() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let vars = [("SINEW_TCP_PORTS", free.to_string()), ("SINEW_TRANSPORTS", "uds".to_owned())];
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let other = spawn("wait", "tcp", &vars);
    let address: sinew::Address = other.line().parse().expect("an address");
    let scheme_and_port =
        |locator: &String| locator.starts_with("tcp:") && locator.ends_with(&format!(":{free}"));
    assert!(!address.locators().is_empty() && address.locators().iter().all(scheme_and_port), "{address}");
    other.finish();
}
