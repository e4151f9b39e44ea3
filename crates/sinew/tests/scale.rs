//! Many endpoints share one session, many processes talk to each other, and whoever idles costs nothing.

mod common;

use common::{PATIENCE, engine, hear, open_descriptors, processor_ticks, resident_bytes, say, spawn, until};
use sinew::{Match, Progress};
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    a_thousand_endpoints_on_each_side_share_one_session,
    an_idle_process_uses_no_processor,
] }

fn a_thousand_endpoints_on_each_side_share_one_session(lane: &str) {
    const COUNT: usize = 1000;
    let (here, there) = (engine(lane, THREAD), engine(lane, THREAD));
    let (memory, descriptors) = (resident_bytes(), open_descriptors());
    let near: Vec<_> = (0..COUNT).map(|_| here.endpoint("").unwrap()).collect();
    let far: Vec<_> = (0..COUNT).map(|_| there.endpoint("").unwrap()).collect();
    let each = resident_bytes().saturating_sub(memory) / (2 * COUNT as u64);
    println!("{lane}: {each} bytes resident for each idle endpoint");
    let first = near[0].connect(far[0].address()).unwrap();
    let base = first.source();
    assert_eq!(base.endpoint(), far[0].number());
    let peers: Vec<_> = far.iter().map(|far| near[0].connect(far.address()).unwrap()).collect();
    // Every near one sends to every seventh far one, another seventh each time.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (number, near) in near.iter().enumerate() {
                for to in (number % 7..COUNT).step_by(7) {
                    let peer = near.reply_to(peers[to].source()).unwrap();
                    peer.send((number * COUNT + to) as u64, &(number as u32).to_le_bytes()).unwrap();
                }
            }
        });
        let mut buf = [0; 4];
        for (number, near) in near.iter().enumerate() {
            for to in (number % 7..COUNT).step_by(7) {
                let got = far[to].recv_within(Match::any_tag(), &mut buf, PATIENCE).unwrap();
                assert_eq!(got.tag, (number * COUNT + to) as u64, "order of senders that take turns");
                assert_eq!(u32::from_le_bytes(buf), number as u32);
                assert_eq!(got.source.endpoint(), near.number());
            }
        }
    });
    assert_eq!((here.counters().sessions, there.counters().sessions), (1, 1));
    println!("{lane}: {} descriptors for all", open_descriptors().saturating_sub(descriptors));
}

/// Two connected engines of another process, one with a thread, idle for a second.
fn an_idle_process_uses_no_processor(lane: &str) {
    let mut other = spawn("idle", lane, &[]);
    assert_eq!(other.line(), "idle");
    let before = processor_ticks(other.child.id());
    std::thread::sleep(Duration::from_secs(1));
    let ticks = processor_ticks(other.child.id()) - before;
    println!("{lane}: {ticks} ticks of 10 ms in a second");
    assert!(ticks <= 10, "{ticks} ticks of 10 ms in a second: it does not sleep");
    other.tell("end");
    other.finish();
}

#[test]
fn sixty_four_processes_talk_to_each_other() {
    const COUNT: usize = 64;
    let mut others: Vec<_> = (0..COUNT).map(|_| spawn("talk", "uds", &[])).collect();
    let addresses: Vec<_> = others.iter().map(common::Other::line).collect();
    let list = addresses.join(" ");
    for other in &mut others {
        other.tell(&list);
    }
    for other in &others {
        assert_eq!(other.line(), "all");
    }
    for other in &mut others {
        other.tell("end");
    }
    others.into_iter().for_each(common::Other::finish);
}

/// The roles of the other process.
#[test]
#[ignore = "run by other tests as another process"]
fn other_process() {
    let lane = std::env::var("OTHER_LANE").unwrap();
    match std::env::var("OTHER_ROLE").unwrap().as_str() {
        "idle" => idle(&lane),
        "talk" => talk(&lane),
        other => panic!("no role {other}"),
    }
}

fn idle(lane: &str) {
    let (here, there) = (engine(lane, THREAD), engine(lane, THREAD));
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let peer = a.connect(b.address()).unwrap();
    peer.send(1, b"x").unwrap();
    b.recv(1, &mut [0; 1]).unwrap();
    peer.flush().unwrap();
    std::thread::sleep(Duration::from_millis(200)); // What is left to do is done: nothing is waited for.
    say("idle");
    let _ = hear();
}

fn talk(lane: &str) {
    let engine = engine(lane, THREAD);
    let endpoint = engine.endpoint("").unwrap();
    let own = endpoint.address().to_string();
    say(&own);
    let list = hear().unwrap();
    let others: Vec<&str> = list.split(' ').filter(|&address| address != own).collect();
    let peers: Vec<_> =
        others.iter().map(|address| endpoint.connect_within(address, PATIENCE).unwrap()).collect();
    for round in 0..3u64 {
        for peer in &peers {
            peer.send(round, own.as_bytes()).unwrap();
        }
        let mut heard: Vec<String> = Vec::new();
        let mut buf = [0; 512];
        for _ in &peers {
            let got = endpoint.recv_within(round, &mut buf, PATIENCE).unwrap();
            heard.push(String::from_utf8(buf[..got.len].to_vec()).unwrap());
        }
        heard.sort();
        let mut expected: Vec<_> = others.iter().map(|&address| address.to_owned()).collect();
        expected.sort();
        assert!(heard == expected, "each once, nobody twice");
    }
    assert_eq!(engine.counters().sessions, peers.len());
    say("all");
    let _ = hear();
    until("nothing is left", || engine.counters().operations == 0);
}
