//! Campaign of abandoned receives: by deadline, cancel, drop and panic, in every form, on every lane, under load of messages of
//! every class. The memory of a receive that has ended is never written later, and no message is lost by it.
//!
//! All memory of receives is guarded ([`guarded`]): a late write, or one beyond the buffer, ends the process by SIGSEGV, which
//! fails the test. [`receiver`] is that process; the sender floods it from here.

#[path = "../campaign_cut/campaign.rs"]
mod campaign;
#[path = "../common/mod.rs"]
mod common;
mod guarded;
mod receiver;

use campaign::{rounds, seed};
use common::{PATIENCE, content, spawn};
use receiver::{LENGTH_MAX, LENGTHS, STOP, TAG};
use sinew::{Engine, EngineOptions, Peer, Progress};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

on_lanes! { shm = "shm", uds = "uds", tcp = "tcp", own = "self"; [
    memory_of_an_abandoned_receive_is_never_written_later,
] }

#[test]
#[ignore = "run by other tests as another process"]
fn other_process() {
    match std::env::var("OTHER_ROLE").unwrap().as_str() {
        "receiver" => receiver::child(&std::env::var("OTHER_LANE").unwrap()),
        how => guarded::break_the_rules(how),
    }
}

#[test]
fn the_guards_find_what_is_written_late_or_beyond() {
    for how in ["late", "before", "behind"] {
        let mut other = spawn(how, "none", &[]);
        let status = other.child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSEGV), "{how}: {status}");
    }
}

fn engine(lane: &str) -> Engine {
    Engine::builder()
        .domain("abandon")
        .progress(Progress::Thread { cpu: None })
        .options(EngineOptions::default().timeout(PATIENCE))
        .transports([if lane == "self" { "shm" } else { lane }])
        .build()
        .expect("an engine")
}

/// Numbered messages of all lengths, some of them from the engine's pool, until told to stop.
fn flood(to: &Peer, stop: &AtomicBool) {
    let noise = content(LENGTH_MAX + 4096, 7);
    for number in 0u64.. {
        if stop.load(Ordering::Acquire) {
            to.message(STOP).immediate(number).timeout(PATIENCE).send(b"").expect("the last one");
            return;
        }
        let len = LENGTHS[(number.wrapping_mul(0x9e37_79b9) >> 5) as usize % LENGTHS.len()];
        let body = &noise[number as usize % 4096..][..len];
        let message = to.message(TAG).immediate(number).timeout(PATIENCE);
        if len >= 100_000 && number.is_multiple_of(2) {
            let mut buf = to.alloc(len).expect("a pool buffer");
            buf.as_mut_slice().expect("writable").copy_from_slice(body);
            message.post(buf).expect("posted").wait_within(PATIENCE).expect("it went");
        } else {
            message.send(body).expect("it went");
        }
    }
}

fn memory_of_an_abandoned_receive_is_never_written_later(lane: &str) {
    let (rounds, seed) = (rounds(), seed());
    let vars = [("ROUNDS", rounds.to_string()), ("SEED", seed.to_string())];
    let vars: Vec<(&str, &str)> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut other = spawn("receiver", lane, &vars);
    let address = other.line();
    let stop = AtomicBool::new(false);
    // Far more than it takes.
    let limit = PATIENCE * 10 + Duration::from_secs(2) * rounds as u32;
    let said = std::thread::scope(|scope| {
        // On the lane to oneself the receiver floods itself.
        let engine = (lane != "self").then(|| engine(lane));
        let sender = engine.as_ref().map(|engine| {
            let endpoint = engine.endpoint("").unwrap();
            let peer = endpoint.connect(address).expect("a path");
            let stop = &stop;
            scope.spawn(move || flood(&peer, stop))
        });
        // Without the receiver the sends end, too.
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| other.line_within(limit)));
        stop.store(true, Ordering::Release);
        if said.is_ok() {
            other.tell("drain");
        }
        if let Some(sender) = sender {
            sender.join().unwrap();
        }
        said
    });
    let said = said.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let freed = other.line();
    println!(
        "campaign abandon/{lane}: {rounds} rounds, {said}, {freed} guarded buffers freed, 0 written later or around, 0 messages lost or doubled, seed {seed}"
    );
    other.finish();
}
