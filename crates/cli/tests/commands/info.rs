//! `sinew info` and `sinew explain`.

use crate::tool::{Listening, Room, finish, has, kill};
use serde_json::Value;

const TRANSPORTS: [&str; 3] = ["shm", "uds", "tcp"];

#[test]
fn info_says_of_each_transport_whether_it_works_and_of_what_is_missing_how_to_get_it() {
    let room = Room::new();
    let text = room.run(["info"]).succeeded().text();
    has(&text, &TRANSPORTS);
    has(&text, &["what is missing", "verbs", "fi", "open files", "runtime directory"]);
    let json: Value = serde_json::from_slice(&room.run(["info", "--json"]).succeeded().out).expect("JSON");
    assert_eq!(json["schema"], 1);
    for (name, transport) in TRANSPORTS.iter().zip(json["transports"].as_array().expect("a list")) {
        assert_eq!(transport["name"], *name);
        assert_eq!(transport["works"], true, "{transport}");
        assert!(!transport["listens"].as_array().expect("a list").is_empty(), "{transport}");
    }
    assert!(json["missing"].as_array().expect("a list").iter().all(|row| row["remedy"] != ""));
}

#[test]
fn info_says_why_a_transport_does_not_work() {
    let room = Room::new();
    let command = &mut room.sinew(["info", "--json"]);
    let child = command.env("SINEW_RUNTIME_DIR", "/dev/null/place").spawn().expect("the binary starts");
    let json: Value = serde_json::from_slice(&finish(child).succeeded().out).expect("JSON");
    let shm = &json["transports"][0];
    assert_eq!(shm["works"], false, "{json}");
    has(shm["reason"].as_str().expect("a reason"), &["/dev/null/place"]);
}

#[test]
fn info_shows_verbs_devices_or_why_there_are_none() {
    let room = Room::new();
    let json: Value = serde_json::from_slice(&room.run(["info", "--json"]).succeeded().out).expect("JSON");
    let devices = json["verbs"]["devices"].as_array().expect("a list");
    assert_eq!(devices.is_empty(), json["verbs"]["reason"].is_string(), "{json}");
    assert!(json["verbs"]["library"].is_array(), "{json}");
    for device in devices {
        assert!(device["works"] == true || device["reason"].is_string(), "{device}");
    }
    let child = room.sinew(["info"]).env("SINEW_IBVERBS_LIB", "/absent/libibverbs.so.1").spawn();
    let text = finish(child.expect("the binary starts")).succeeded().text();
    has(&text, &["verbs devices", "none", "/absent/libibverbs.so.1", "SINEW_IBVERBS_LIB"]);
}

#[test]
fn info_names_an_option_that_no_engine_could_be_made_with() {
    let room = Room::new();
    for (name, value) in [("SINEW_TRANSPORTS", "shn"), ("SINEW_SPIN", "soon"), ("SINEW_TRANSPROTS", "shm")] {
        let child = room.sinew(["info"]).env(name, value).spawn().expect("the binary starts");
        has(finish(child).failed_with(2), &[name]);
    }
}

#[test]
fn options_are_listed_with_default_variable_cost_help_and_what_is_set() {
    let room = Room::new();
    let child =
        room.sinew(["info", "--options"]).env("SINEW_SPIN", "7us").spawn().expect("the binary starts");
    let text = finish(child).succeeded().text();
    has(
        &text,
        &[
            "option ",
            "default",
            "environment",
            "cost",
            "eager_max",
            "64kb",
            "SINEW_EAGER_MAX",
            "set here to 7us",
        ],
    );
    let json = room.run(["info", "--options", "--json"]).succeeded().out;
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    let rows = json["options"].as_array().expect("a list");
    assert_eq!(rows.len(), sinew::option_tables().iter().map(|table| table.len()).sum::<usize>());
    for key in ["name", "default", "env", "kind", "cost", "help"] {
        assert!(rows.iter().all(|row| row[key].is_string()), "{key}");
    }
}

#[test]
fn explain_shows_the_chosen_path_of_a_running_program() {
    let room = Room::new();
    let listening = Listening::start(&mut room.sinew(["listen"]));
    let text = room.run(["explain", &listening.address]).succeeded().text();
    has(&text, &["connected in", "over shm", "chosen", "tcp:127.0.0.1", "uds:"]);
    let text = room.run(["explain", &listening.url("tcp")]).succeeded().text();
    has(&text, &["over tcp", "chosen"]);
    kill(listening.id(), "TERM");
    listening.finish();
}

#[test]
fn explain_says_what_was_tried_when_nothing_works() {
    let room = Room::new();
    let port = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        taken.local_addr().expect("an address").port()
    };
    let target = format!("tcp://127.0.0.1:{port}");
    let ran = room.run(["explain", &target]);
    has(ran.failed_with(3), &[&target, "tcp", "refused"]);
    let ran = room.run(["explain", "auto:tcp://127.0.0.1:1,uds:///absent.sock"]);
    has(ran.failed_with(3), &["127.0.0.1:1", "/absent.sock"]);
}

#[test]
fn explain_names_another_domain_as_the_cause() {
    let room = Room::new();
    let listening = Listening::start(&mut room.sinew(["listen", "uds", "--domain", "theirs"]));
    let ran = room.run(["explain", &listening.address, "--domain", "mine"]);
    has(ran.failed_with(3), &["domain"]);
    kill(listening.id(), "TERM");
    listening.finish();
}
