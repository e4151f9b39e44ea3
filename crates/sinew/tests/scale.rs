//! Many endpoints share one session, many processes talk to each other, and whoever idles costs nothing.

mod common;

use common::{PATIENCE, engine, hear, open_descriptors, processor_ticks, resident_bytes, say, spawn, until};
use sinew::{Endpoint, Engine, Match, Progress};
use std::time::Duration;

const THREAD: Progress = Progress::Thread { cpu: None };

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp"; [
    a_thousand_endpoints_on_each_side_share_one_session,
    an_idle_process_uses_no_processor,
] }

/// Endpoints on each side.
const COUNT: usize = 1000;

/// Idle endpoints, and what each of them costs of resident memory.
fn thousand(engine: &Engine) -> (Vec<Endpoint>, u64) {
    let memory = resident_bytes();
    let endpoints: Vec<_> = (0..COUNT).map(|_| engine.endpoint("").unwrap()).collect();
    (endpoints, resident_bytes().saturating_sub(memory) / COUNT as u64)
}

/// One pair of processes: each of a thousand endpoints here sends to each of a thousand there.
fn a_thousand_endpoints_on_each_side_share_one_session(lane: &str) {
    let here = engine(lane, THREAD);
    let descriptors = open_descriptors();
    let (near, idle) = thousand(&here);
    let mut other = spawn("thousand", lane, &[]);
    let addresses: Vec<String> = (0..COUNT).map(|_| other.line()).collect();
    let peers: Vec<_> = addresses.iter().map(|address| near[0].connect(address).unwrap()).collect();
    let sources: Vec<_> = peers.iter().map(|peer| peer.source()).collect();
    for (number, near) in near.iter().enumerate() {
        for (to, source) in sources.iter().enumerate() {
            let peer = near.reply_to(*source).unwrap();
            peer.send((number * COUNT + to) as u64, &(number as u32).to_le_bytes()).unwrap();
        }
    }
    // And back, from each there to one here: whoever receives can answer.
    for (at, near) in near.iter().enumerate() {
        let got = near.recv_within(at as u64, &mut [0; 8], PATIENCE).unwrap();
        assert_eq!(got.source, sources[at]);
    }
    println!(
        "{lane}: {idle} bytes resident for each idle endpoint here, there {} and after all messages {}",
        other.line(),
        other.line()
    );
    println!("{lane}: {} descriptors for all", open_descriptors().saturating_sub(descriptors));
    assert_eq!(here.counters().sessions, 1);
    other.tell("end");
    other.finish();
}

/// The other process: a thousand receivers, each of which hears every sender once, in the order of the senders.
fn receive_from_a_thousand(lane: &str) {
    let engine = engine(lane, THREAD);
    let memory = resident_bytes();
    let (endpoints, idle) = thousand(&engine);
    endpoints.iter().for_each(|endpoint| say(endpoint.address()));
    let mut buf = [0; 4];
    let mut senders = Vec::with_capacity(COUNT);
    for number in 0..COUNT {
        for (at, endpoint) in endpoints.iter().enumerate() {
            let got = endpoint.recv_within(Match::any_tag(), &mut buf, PATIENCE).unwrap();
            assert_eq!(got.tag, (number * COUNT + at) as u64, "each sender once, in the order sent");
            assert_eq!(u32::from_le_bytes(buf), number as u32);
            if at == 0 {
                senders.push(got.source);
            }
            assert_eq!(got.source, senders[number], "one sender is the same for all receivers");
        }
    }
    let used = resident_bytes().saturating_sub(memory) / COUNT as u64;
    for (at, endpoint) in endpoints.iter().enumerate() {
        endpoint.reply_to(senders[at]).unwrap().send(at as u64, b"answer").unwrap();
    }
    assert_eq!(engine.counters().sessions, 1);
    say(idle);
    say(used);
    let _ = hear();
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
#[ignore = "a child of other tests"]
fn other_process() {
    if !common::is_other() {
        return;
    }
    let lane = std::env::var("OTHER_LANE").unwrap();
    match std::env::var("OTHER_ROLE").unwrap().as_str() {
        "idle" => idle(&lane),
        "talk" => talk(&lane),
        "thousand" => receive_from_a_thousand(&lane),
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
