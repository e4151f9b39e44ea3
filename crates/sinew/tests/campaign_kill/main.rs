//! Campaigns of killing: peers that die, or stand still, at every moment of their traffic; see `docs/faults.md`.
//!
//! Each test runs its campaign in a process of its own (the survivor), in which nothing else opens descriptors or starts
//! threads, and prints the row that the campaign says. `SINEW_CAMPAIGN_ROUNDS` and `SINEW_SEED` choose rounds and chance.

#[path = "../common/mod.rs"]
mod common;
mod connects;
mod detect;
mod every;
mod herd;
mod ledger;
mod random;
mod rounds;
mod route;
mod steps;
mod survivor;
mod three;
mod tracer;
mod traffic;
mod trap;
mod victims;

use random::Side;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};

/// The survivor of a campaign, or the process that its victims come from.
#[test]
#[ignore = "a child of other tests"]
fn other_process() {
    let Ok(role) = std::env::var("OTHER_ROLE") else { return };
    if role == "herd" {
        return herd::process();
    }
    herd::die_with_parent();
    let words: Vec<&str> = role.split('/').collect();
    match words[..] {
        ["kill", lane, "connect", "dialer"] => connects::campaign(lane_named(lane), connects::Side::Dialer),
        ["kill", lane, "connect", "listener"] => {
            connects::campaign(lane_named(lane), connects::Side::Listener)
        }
        ["kill", lane, tier, side] => {
            let side = if side == "sender" { Side::Sender } else { Side::Receiver };
            random::campaign(lane_named(lane), tier, side);
        }
        ["three", lane] => three::campaign(lane_named(lane)),
        ["detect", lane, mode] => detect::campaign(lane_named(lane), mode),
        ["step", side, tier] => every::campaign(side, tier, false),
        ["trace", side, tier] => every::campaign(side, tier, true),
        _ => panic!("no campaign {role}"),
    }
}

fn lane_named(name: &str) -> &'static str {
    ["shm", "uds", "tcp"].into_iter().find(|&lane| lane == name).expect("the name of a lane")
}

/// Says the row of a campaign to the test that started it.
fn tell(row: String) {
    common::say(format!("campaign {row}"));
}

/// Runs a campaign in another process and prints its row. One that cannot be run here says so.
fn run(campaign: &str) {
    if let Some(reason) = row_of(campaign).strip_prefix("skip ") {
        sinew_testing::skip!("ptrace", "{reason}");
    }
}

fn row_of(campaign: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["other_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("OTHER_ROLE", campaign)
        .env("SINEW_SHM_CROSS_READ", if campaign.contains("across") { "1" } else { "off" })
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut survivor = command.spawn().expect("another process");
    let (rows, told) = channel();
    let output = BufReader::new(survivor.stdout.take().expect("its output"));
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if let Some(at) = line.find('@') {
                let _ = rows.send(line[at + 1..].to_owned());
            }
        }
    });
    let until = std::time::Instant::now() + rounds::patience();
    let mut last = None;
    loop {
        match told.recv_timeout(until.saturating_duration_since(std::time::Instant::now())) {
            Ok(row) => {
                println!("{row}");
                last = Some(row);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = survivor.kill();
                let _ = survivor.wait();
                panic!("{campaign} is wedged");
            }
        }
    }
    let status = survivor.wait().expect("it was started");
    assert!(status.success(), "{campaign} failed: {status}");
    last.unwrap_or_else(|| panic!("{campaign} said nothing"))
}

macro_rules! kills {
    ($($lane:ident: $($tier:ident),*;)*) => { $(
        mod $lane {
            $( mod $tier {
                #[test]
                fn senders_die_and_nothing_else_does() {
                    crate::run(concat!("kill/", stringify!($lane), "/", stringify!($tier), "/sender"));
                }
                #[test]
                fn receivers_die_and_nothing_else_does() {
                    crate::run(concat!("kill/", stringify!($lane), "/", stringify!($tier), "/receiver"));
                }
            } )*
        }
    )* };
}

kills! {
    shm: inline, eager, pipelined, across, in_place, one_copy, batch;
    uds: inline, eager, pipelined, batch;
    tcp: inline, eager, pipelined, batch;
}

macro_rules! steps {
    ($($side:ident: $($tier:ident),*;)*) => {
        mod every_instruction { $( mod $side { $( mod $tier {
            #[test]
            fn a_death_at_each_leaves_whole_messages_or_none() {
                crate::run(concat!("step/", stringify!($side), "/", stringify!($tier)));
            }
            #[test]
            fn a_death_by_a_tracer_leaves_whole_messages_or_none() {
                crate::run(concat!("trace/", stringify!($side), "/", stringify!($tier)));
            }
        } )* } )* }
    };
}

steps! {
    send: short, try_send, eager, rendezvous, pipelined, across, one_copy, loan, batch;
    receive: short, eager, rendezvous, pipelined, across, one_copy, loan, batch, asleep;
}

macro_rules! each_lane {
    ($($lane:ident),*) => { $(
        mod $lane {
            #[test]
            fn those_who_connect_die_and_nothing_else_does() {
                crate::run(concat!("kill/", stringify!($lane), "/connect/dialer"));
            }
            #[test]
            fn those_who_are_connected_to_die_and_nothing_else_does() {
                crate::run(concat!("kill/", stringify!($lane), "/connect/listener"));
            }
            #[test]
            fn three_senders_share_a_processor_and_one_dies() {
                crate::run(concat!("three/", stringify!($lane)));
            }
            #[test]
            fn a_death_is_noticed_by_callers() {
                crate::run(concat!("detect/", stringify!($lane), "/caller"));
            }
            #[test]
            fn a_death_is_noticed_by_the_thread() {
                crate::run(concat!("detect/", stringify!($lane), "/thread"));
            }
            #[test]
            fn a_death_is_noticed_by_event_loops() {
                crate::run(concat!("detect/", stringify!($lane), "/event"));
            }
        }
    )* };
}

mod together {
    each_lane!(shm, uds, tcp);
}
