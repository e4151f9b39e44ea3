//! What the processes that are killed do until then.
//!
//! Run by the herd, each in a process of its own. They check what they get as survivors do, and say in their diary when it is
//! wrong; the end of their survivor ends them.

use crate::common::PATIENCE;
use crate::herd::{Diary, introduce};
use crate::traffic::{Ended, FLOW, HELLO, PING, Receiver, Sender, Tier, fill, is_whole};
use sinew::{Completion, Endpoint, Engine, EngineOptions, OpError, Peer, Progress};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// An engine of a campaign.
pub(crate) fn engine(lane: &str, folder: &Path, progress: Progress) -> Engine {
    engine_with(lane, progress, options(folder))
}

pub(crate) fn options(folder: &Path) -> EngineOptions {
    EngineOptions::default().timeout(PATIENCE).runtime_dir(Some(folder.to_owned()))
}

pub(crate) fn engine_with(lane: &str, progress: Progress, options: EngineOptions) -> Engine {
    let builder = Engine::builder().domain("kill").progress(progress).options(options);
    builder.transports([lane]).build().expect("an engine")
}

/// Runs a role, as `send inline`.
pub(crate) fn live(role: &str, folder: &Path, diary: &Diary) {
    let lane = std::env::var("OTHER_LANE").expect("set by the survivor");
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["step", "partner"] => {
            let engine = crate::steps::engine(folder, Duration::from_micros(300), Progress::Caller);
            let endpoint = engine.endpoint("victim").unwrap();
            introduce(endpoint.address());
            return answer(&endpoint);
        }
        ["step", what] => return crate::steps::victim(what, false, folder, diary),
        ["trace", what] => return crate::steps::victim(what, true, folder, diary),
        _ => {}
    }
    if let Some(address) = role.strip_prefix("dial ") {
        return dial(&lane, folder, address, diary);
    }
    if role == "listen" {
        let engine = engine(&lane, folder, Progress::Thread { cpu: None });
        let endpoint = engine.endpoint("victim").unwrap();
        introduce(endpoint.address());
        return sit_for_ever();
    }
    let engine = engine(&lane, folder, Progress::Caller);
    let endpoint = engine.endpoint("victim").unwrap();
    if let Some(cpu) = words.get(2) {
        pin(cpu.parse().expect("a number"));
    }
    introduce(endpoint.address());
    match words[0] {
        "send" => send(&endpoint, Tier::named(words[1]), diary),
        "mix" => mix(&endpoint, words[1].parse().expect("a number")),
        "receive" => receive(&endpoint, Tier::named(words[1]), diary),
        "partner" => answer(&endpoint),
        "sit" => sit(&endpoint),
        other => panic!("no role {other}"),
    }
}

/// Runs this thread on one processor only.
pub(crate) fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).expect("a processor of this process");
}

/// The processors that this thread may run on.
pub(crate) fn processors() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).expect("a set of processors");
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Runs this thread, and the processes that it starts, on one of its processors.
pub(crate) fn pin_to_one() {
    let processors = processors();
    pin(processors[std::process::id() as usize % processors.len()]);
}

/// The survivor, when it has greeted.
fn greeting(endpoint: &Endpoint) -> Completion {
    endpoint.recv_within(HELLO, &mut [0; 8], PATIENCE).expect("a greeting")
}

fn send(endpoint: &Endpoint, tier: Tier, diary: &Diary) {
    let to = endpoint.reply_to(greeting(endpoint).source).unwrap();
    let mut sender = Sender::new(tier, &to);
    loop {
        match sender.send(PATIENCE, Some(diary)) {
            Ok(()) => {}
            Err(OpError::PeerLost { .. }) => return,
            Err(error) => {
                eprintln!("a victim cannot send: {error}");
                return diary.wrong.store(1, Ordering::Release);
            }
        }
    }
}

fn receive(endpoint: &Endpoint, tier: Tier, diary: &Diary) {
    let from = greeting(endpoint).source;
    let mut receiver = Receiver::new(tier, endpoint, from);
    loop {
        match receiver.receive(PATIENCE, Some(diary)) {
            Ok(()) => {}
            Err(Ended::Error(OpError::PeerLost { .. })) => return,
            Err(Ended::Error(error)) => {
                eprintln!("a victim cannot receive: {error}");
                return diary.wrong.store(2, Ordering::Release);
            }
            Err(Ended::Late) => return diary.wrong.store(3, Ordering::Release),
            Err(Ended::Wrong(what)) => {
                eprintln!("a victim got what must not be: {what}");
                return diary.wrong.store(4, Ordering::Release);
            }
        }
    }
}

/// Sizes of one of several senders, in turn.
const MIX: [usize; 6] = [40, 3000, 24, 20_000, 40, 150_000];

/// Length of message `number` of a sender of many sizes: the first 8 bytes are its number, times 4, and who it is.
pub(crate) fn mixed_len(number: u64) -> usize {
    MIX[number as usize % MIX.len()]
}

fn mix(endpoint: &Endpoint, who: u64) {
    let to = endpoint.reply_to(greeting(endpoint).source).unwrap();
    let mut bytes = vec![0; 150_000];
    for number in 0.. {
        let bytes = &mut bytes[..mixed_len(number)];
        fill(bytes, number * 4 + who);
        if to.message(FLOW).timeout(PATIENCE).send(bytes).is_err() {
            return;
        }
    }
}

/// Answers every ping with its own content.
fn answer(endpoint: &Endpoint) {
    let mut peers: HashMap<String, Peer> = HashMap::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        let got = match endpoint.recv_within(PING, &mut buf, Duration::from_secs(3600)) {
            Ok(got) => got,
            Err(error) => panic!("the partner cannot receive: {error}"),
        };
        let peer =
            peers.entry(got.source.to_string()).or_insert_with(|| endpoint.reply_to(got.source).unwrap());
        let number = u64::from_le_bytes(buf[..8].try_into().expect("8 bytes"));
        assert!(is_whole(&buf[..got.len], number), "content of ping {number}");
        // Who has gone meanwhile needs no answer.
        let _ = peer.message(PING).timeout(PATIENCE).send(&buf[..got.len]);
    }
}

/// Connects when it is told to.
fn dial(lane: &str, folder: &Path, address: &str, diary: &Diary) {
    let engine = engine(lane, folder, Progress::Caller);
    let endpoint = engine.endpoint("victim").unwrap();
    introduce(endpoint.address());
    diary.ready.store(1, Ordering::Release);
    while diary.go.load(Ordering::Acquire) == 0 {
        std::thread::yield_now();
    }
    let connected = diary.call(|| endpoint.connect_within(address, PATIENCE));
    if let Err(error) = &connected {
        eprintln!("a victim cannot connect: {error}");
        return diary.wrong.store(5, Ordering::Release);
    }
    sit_for_ever()
}

fn sit_for_ever() {
    loop {
        std::thread::park();
    }
}

/// Waits for a message that never comes.
fn sit(endpoint: &Endpoint) {
    greeting(endpoint);
    let _ = endpoint.recv_within(crate::traffic::LATE, &mut [0; 8], Duration::from_secs(3600));
}
