//! `sinew perf`: every transport and operation, its two forms of output, and its second process.

use crate::tool::{Listening, Room, children, finish, has, kill, lives, until};
use serde_json::Value;
use std::collections::BTreeSet;

const KEYS: [&str; 9] = [
    "schema",
    "transport",
    "op",
    "size_bytes",
    "iterations",
    "latency_ns",
    "bandwidth_bytes_per_s",
    "messages_per_s",
    "verified",
];

fn lines(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Checks a line's shape: all keys, no other, null where nothing was measured.
#[track_caller]
fn check(line: &Value) {
    let keys: BTreeSet<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(KEYS), "{line}");
    assert_eq!(line["schema"], 1);
    assert_eq!(line["verified"], true, "{line}");
    assert!(line["iterations"].as_u64().is_some_and(|count| count > 0), "{line}");
    if line["op"] == "latency" {
        let of = |key: &str| line["latency_ns"][key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"));
        assert!(
            of("mean") > 0.0 && of("p50") > 0.0 && of("p50") <= of("p99") && of("p99") <= of("p999"),
            "{line}"
        );
        assert_eq!(line["latency_ns"].as_object().map(serde_json::Map::len), Some(4));
        assert!(line["bandwidth_bytes_per_s"].is_null() && line["messages_per_s"].is_null(), "{line}");
    } else {
        assert!(line["latency_ns"].is_null(), "{line}");
        assert!(line["messages_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{line}");
        assert!(line["bandwidth_bytes_per_s"].as_f64().is_some_and(|rate| rate >= 0.0), "{line}");
    }
}

#[test]
fn json_has_one_verified_line_for_each_transport_operation_and_size() {
    let room = Room::new();
    let args = ["perf", "--json", "--iterations", "40", "--sizes", "0,8,1000,40k,1m", "--no-pin"];
    let ran = room.run(args).succeeded();
    let lines = lines(&ran.out);
    lines.iter().for_each(check);
    let got: Vec<(&str, &str, u64)> = lines
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default();
            (text("transport"), text("op"), line["size_bytes"].as_u64().unwrap_or(u64::MAX))
        })
        .collect();
    let mut expected = Vec::new();
    for transport in ["shm", "uds", "tcp"] {
        for size in [0, 8, 1000, 40 << 10, 1 << 20] {
            expected.extend(["latency", "bandwidth", "rate"].map(|op| (transport, op, size)));
        }
    }
    assert_eq!(got, expected);
    assert!(lines.iter().all(|line| line["iterations"] == 40), "exactly as many as were asked for");
    assert_eq!(ran.err, "", "nothing to say on standard error");
}

#[test]
fn keys_of_a_line_stand_in_the_documented_order() {
    let room = Room::new();
    let args =
        ["perf", "--json", "--iterations", "20", "--sizes", "8", "--transport", "uds", "--op", "latency"];
    let text = room.run(args).succeeded().text();
    let places: Vec<usize> =
        KEYS.iter().map(|key| text.find(&format!("\"{key}\":")).expect("a key")).collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn auto_names_the_transport_that_it_chose() {
    let room = Room::new();
    let args = ["perf", "--json", "--iterations", "20", "--sizes", "8", "--transport", "auto", "--no-pin"];
    let lines = lines(&room.run(args).succeeded().out);
    assert_eq!(lines.len(), 3);
    lines.iter().for_each(check);
    assert!(lines.iter().all(|line| line["transport"] == "shm"), "{lines:?}");
}

#[test]
fn the_table_has_a_row_for_each_transport_and_size_and_the_explanation_at_its_end() {
    let room = Room::new();
    let text = room.run(["perf", "--iterations", "30", "--sizes", "8,4k"]).succeeded().text();
    for transport in ["shm", "uds", "tcp"] {
        for size in ["8 B", "4 KiB"] {
            let row = text.lines().find(|line| line.starts_with(transport) && line.contains(size));
            let row = row.unwrap_or_else(|| panic!("{transport} {size} in:\n{text}"));
            assert!(row.ends_with("verified"), "{row}");
        }
    }
    has(&text, &["transport", "p99.9", "bandwidth", "messages", "auto chose shm", "chosen", "tcp:127.0.0.1"]);
    assert!(!text.contains("refused"), "all transports work here:\n{text}");
}

#[test]
fn a_page_has_plots_of_every_transport_beside_the_bare_mechanisms_and_needs_no_network() {
    let room = Room::new();
    let page = room.path("page.html");
    let args = ["perf", "--sizes", "8,1k,64k", "--seconds", "0.02", "--html"];
    let text = room.run(args.iter().map(std::ffi::OsStr::new).chain([page.as_os_str()])).succeeded().text();
    has(&text, &["verified", "auto chose"]);
    let html = std::fs::read_to_string(&page).expect("the page");
    for transport in ["shm", "uds", "tcp"] {
        for plot in ["one-way latency", "bandwidth", "message rate"] {
            has(&html, &[format!("aria-label=\"{transport}: {plot}\"").as_str()]);
        }
    }
    has(
        &html,
        &["<title>Sinew, 64 KiB: ", "<title>raw: read and write, 8 B: ", "UCX tag_lat", "ZeroMQ", "verified"],
    );
    assert!(!html.contains("http") && !html.contains("<script") && !html.contains("NaN"));
}

#[test]
fn a_page_that_cannot_be_written_is_an_error_before_anything_is_measured() {
    let room = Room::new();
    let ran = room.run(["perf", "--html", "/nonexistent/page.html"]);
    assert_eq!((ran.code, ran.out.as_slice()), (Some(1), b"".as_slice()));
    has(&ran.err, &["cannot write /nonexistent/page.html"]);
}

#[test]
fn without_a_command_all_paths_are_measured() {
    let room = Room::new();
    let text = room.run([] as [&str; 0]).succeeded().text();
    has(&text, &["\nshm ", "\nuds ", "\ntcp ", "auto chose"]);
}

#[test]
fn a_refused_transport_is_a_row_and_the_others_are_measured() {
    let room = Room::new();
    let mut command = room.sinew(["perf", "--iterations", "20", "--sizes", "8", "--op", "latency"]);
    // No place for the sockets of two of three; a secret by file needs no place.
    let secret = room.secret("key", b"0123456789abcdef0123456789abcdef");
    command.env("SINEW_RUNTIME_DIR", "/dev/null/place").env("SINEW_SECRET_FILE", secret);
    let ran = finish(command.spawn().expect("the binary starts")).succeeded();
    let text = ran.text();
    assert!(text.lines().any(|line| line.starts_with("tcp") && line.ends_with("verified")), "{ran:?}");
    for transport in ["shm", "uds"] {
        let refused = text.lines().any(|line| line.starts_with(transport) && line.contains("refused"));
        assert!(refused, "{transport}: {ran:?}");
    }
    has(&text, &["/dev/null/place"]);
}

#[test]
fn an_explicit_transport_that_does_not_work_is_a_failure_and_never_another_one() {
    let room = Room::new();
    let mut command = room.sinew(["perf", "--iterations", "20", "--sizes", "8", "--transport", "shm"]);
    let child = command.env("SINEW_RUNTIME_DIR", "/dev/null/place").spawn().expect("the binary starts");
    let ran = finish(child);
    has(ran.failed_with(1), &["/dev/null/place"]);
    assert!(!ran.text().contains("verified"), "{ran:?}");
}

#[test]
fn two_hosts_measure_over_listen_and_connect() {
    let room = Room::new();
    let secret = room.secret("key", b"0123456789abcdef0123456789abcdef").display().to_string();
    let listen = ["perf", "--listen", "tcp://0.0.0.0:0", "--secret-file", &secret, "--no-pin"];
    let listening = Listening::start(&mut room.sinew(listen));
    let port = listening.address.rsplit(':').next().expect("a port").to_owned();
    let address = format!("tcp://127.0.0.1:{port}");
    // One after the other: the responder goes on after each.
    for _ in 0..2 {
        let connect =
            ["perf", "--connect", &address, "--secret-file", &secret, "--json", "--iterations", "20"];
        let lines = lines(&room.run(connect).succeeded().out);
        assert_eq!(lines.len(), 12);
        lines.iter().for_each(check);
        assert!(lines.iter().all(|line| line["transport"] == "tcp"));
    }
    let wrong = room.secret("wrong", b"fedcba9876543210fedcba9876543210").display().to_string();
    let ran = room.run(["perf", "--connect", &address, "--secret-file", &wrong, "--iterations", "20"]);
    has(ran.failed_with(3), &["secret"]);
    kill(listening.id(), "INT");
    listening.finish();
}

/// `killed` goes in the middle of a measurement; nobody of the two may be left.
fn both_end_when(signal: &str) {
    let room = Room::new();
    let args = ["perf", "--transport", "uds", "--op", "latency", "--sizes", "8", "--seconds", "600"];
    let parent = room.sinew(args).spawn().expect("the binary starts");
    let mut second = Vec::new();
    until("the second process was started", || {
        second = children(parent.id());
        !second.is_empty()
    });
    kill(parent.id(), signal);
    let ran = finish(parent);
    assert_eq!(ran.code, None, "ended by the signal: {ran:?}");
    until("the second process is gone", || second.iter().all(|&id| !lives(id)));
}

#[test]
fn an_interrupt_ends_both_processes() {
    both_end_when("INT");
}

#[test]
fn the_second_process_does_not_outlive_a_killed_first() {
    both_end_when("KILL");
}

#[test]
fn the_death_of_the_second_process_ends_the_measurement_and_is_named() {
    let room = Room::new();
    let args =
        ["perf", "--transport", "uds", "--op", "latency", "--sizes", "8", "--seconds", "600", "--no-pin"];
    let parent = room.sinew(args).spawn().expect("the binary starts");
    let mut second = Vec::new();
    until("the second process was started and connected", || {
        second = children(parent.id());
        second.iter().any(|&id| threads_and_lane(id))
    });
    kill(second[0], "KILL");
    has(finish(parent).failed_with(3), &["second process", "signal: 9"]);
}

/// The second process has its watcher and an open connection beside its listener.
fn threads_and_lane(id: u32) -> bool {
    let sockets = || {
        let entries = std::fs::read_dir(format!("/proc/{id}/fd")).ok()?;
        let sockets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        Some(sockets.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
    };
    sockets().is_some_and(|count| count >= 2)
}

#[test]
fn sockets_and_congestion_control_are_taken_and_bad_ones_are_refused_with_what_can_be() {
    let room = Room::new();
    let args = ["perf", "--transport", "tcp", "--op", "bandwidth", "--sizes", "1m", "--iterations", "40"];
    let with = |more: &[&str]| room.run(args.iter().chain(more));
    let text = with(&["--sockets", "4", "--congestion", "reno", "--no-pin"]).succeeded().text();
    has(&text, &["tcp", "verified"]);
    has(with(&["--sockets", "17"]).failed_with(2), &["17", "auto, single, or a number from 1 to 16"]);
    has(with(&["--congestion", "nosuch"]).failed_with(2), &["nosuch", "this kernel has", "reno"]);
}
