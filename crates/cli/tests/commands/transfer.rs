//! `sinew listen` and `sinew send`: any content, over each transport, checked, in bounded memory.

use crate::tool::{Listening, Room, arg, finish, has, kill, noise, until};
use std::io::{Read, Write};
use std::process::Stdio;

/// Sends `content` from standard input over `place`, and returns what the listener wrote.
fn through(place: &str, content: &[u8]) -> Vec<u8> {
    let room = Room::new();
    let listening = Listening::start(&mut room.sinew(["listen", place]));
    let mut sender =
        room.sinew(["send", &listening.address]).stdin(Stdio::piped()).spawn().expect("the binary starts");
    let mut pipe = sender.stdin.take().expect("a pipe");
    let bytes = content.to_vec();
    let writer = std::thread::spawn(move || pipe.write_all(&bytes));
    let received = std::thread::spawn(move || listening.finish());
    let sent = finish(sender).succeeded();
    writer.join().expect("a thread").expect("the sender reads all");
    let received = received.join().expect("a thread").succeeded();
    has(&sent.err, &["sent", "checked"]);
    has(&received.err, &["received", "checked", &format!("{} bytes", content.len())]);
    assert!(!received.err.contains("the peer is lost"), "the path is what it was: {}", received.err);
    received.out
}

#[test]
fn standard_input_arrives_over_each_transport() {
    let content = noise(5_000_001);
    for place in ["shm", "uds", "tcp", "tcp://127.0.0.1:0", "all"] {
        assert!(through(place, &content) == content, "{place}");
    }
}

#[test]
fn nothing_is_a_message_too() {
    for place in ["shm", "uds", "tcp"] {
        assert!(through(place, b"").is_empty(), "{place}");
    }
}

#[test]
fn sizes_around_a_chunk_arrive_whole() {
    for len in [1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20] {
        let content = noise(len);
        assert!(through("shm", &content) == content, "{len}");
    }
}

#[test]
fn a_file_of_20_mb_arrives_in_a_file_over_each_transport() {
    let room = Room::new();
    let content = noise(20_000_000);
    let original = arg(&room.file("original", &content));
    for place in ["shm", "uds", "tcp"] {
        let copy = room.path(&format!("copy-{place}"));
        let listening = Listening::start(&mut room.sinew(["listen", place, "--output", &arg(&copy)]));
        let sent = room.run(["send", &listening.address, "--file", &original]).succeeded();
        has(&sent.err, &["20000000 bytes", place]);
        let received = listening.finish().succeeded();
        assert!(received.out.is_empty());
        assert!(std::fs::read(&copy).expect("a copy") == content, "{place}");
    }
    let left: Vec<_> = std::fs::read_dir(room.path(".")).expect("a directory").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().ends_with(".part")), "{left:?}");
}

#[test]
fn a_text_arrives_as_it_is() {
    let room = Room::new();
    let listening = Listening::start(&mut room.sinew(["listen", "--quiet"]));
    let sent = room.run(["send", &listening.address, "--quiet", "--message", "héllo"]).succeeded();
    assert_eq!(sent.err, "");
    let received = listening.finish().succeeded();
    assert_eq!(received.text(), "héllo");
    assert_eq!(received.err, "", "the address was all");
}

#[test]
fn memory_stays_bounded_whatever_the_size() {
    let room = Room::new();
    let listening = Listening::start(&mut room.sinew(["listen", "shm", "--output", "/dev/null"]));
    let mut sender =
        room.sinew(["send", &listening.address]).stdin(Stdio::piped()).spawn().expect("the binary starts");
    let mut pipe = sender.stdin.take().expect("a pipe");
    let block = noise(1 << 20);
    let peak = |id: u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
    };
    for _ in 0..300 {
        pipe.write_all(&block).expect("the sender reads");
    }
    let (here, there) = (peak(sender.id()), peak(listening.id()));
    drop(pipe);
    finish(sender).succeeded();
    listening.finish().succeeded();
    assert!(here > 0 && there > 0, "both were measured");
    assert!(here < 100_000 && there < 100_000, "300 MB went through {here} kB and {there} kB");
}

#[test]
fn a_secret_lets_the_right_sender_in_and_no_other() {
    let room = Room::new();
    let right = arg(&room.secret("right", b"0123456789abcdef0123456789abcdef\n"));
    let wrong = arg(&room.secret("wrong", b"fedcba9876543210fedcba9876543210\n"));
    let listen = ["listen", "tcp://0.0.0.0:0", "--secret-file", &right];
    let listening = Listening::start(&mut room.sinew(listen));
    let port = listening.address.rsplit(':').next().expect("a port").to_owned();
    let address = format!("tcp://127.0.0.1:{port}");
    let ran = room.run(["send", &address, "--secret-file", &wrong, "--message", "let me in"]);
    has(ran.failed_with(3), &["secret", "turned this engine away"]);
    assert!(!ran.err.contains("broke the protocol"), "{}", ran.err);
    let ran = room.run(["send", &address, "--message", "let me in"]);
    has(ran.failed_with(3), &["secret"]);
    room.run(["send", &address, "--secret-file", &right, "--message", "hello"]).succeeded();
    assert_eq!(listening.finish().succeeded().text(), "hello");
}

#[test]
fn insecure_by_name_works_and_both_sides_must_say_it() {
    let room = Room::new();
    let listening = Listening::start(&mut room.sinew(["listen", "tcp://0.0.0.0:0", "--insecure"]));
    let port = listening.address.rsplit(':').next().expect("a port").to_owned();
    let address = format!("tcp://127.0.0.1:{port}");
    room.run(["send", &address, "--insecure", "--message", "hello"]).succeeded();
    assert_eq!(listening.finish().succeeded().text(), "hello");
}

/// Bytes that a process has written into files of a room, with a name or without.
fn written_in(room: &Room, process: u32) -> u64 {
    let directory = std::fs::canonicalize(room.path(".")).expect("a directory");
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let in_room =
        |link: &std::path::PathBuf| std::fs::read_link(link).is_ok_and(|file| file.starts_with(&directory));
    let files = open.map(|entry| entry.path()).filter(in_room);
    files.filter_map(|file| std::fs::metadata(file).ok()).map(|meta| meta.len()).sum()
}

fn files_in(room: &Room) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(room.path(".")).expect("a directory").flatten();
    entries.filter(|entry| entry.path().is_file()).map(|entry| entry.file_name()).collect()
}

#[test]
fn a_sender_that_dies_leaves_no_file_and_the_listener_says_so() {
    let room = Room::new();
    let copy = room.path("copy");
    let listening = Listening::start(&mut room.sinew(["listen", "shm", "--output", &arg(&copy)]));
    let mut sender =
        room.sinew(["send", &listening.address]).stdin(Stdio::piped()).spawn().expect("the binary starts");
    let mut pipe = sender.stdin.take().expect("a pipe");
    pipe.write_all(&noise(6 << 20)).expect("the sender reads");
    until("something has arrived", || written_in(&room, listening.id()) > 0);
    kill(sender.id(), "KILL");
    finish(sender);
    has(listening.finish().failed_with(3), &["lost", "bytes"]);
    assert_eq!(files_in(&room), [""; 0], "no half file is left");
}

#[test]
fn a_listener_that_is_killed_leaves_what_was_there_and_nothing_else() {
    let room = Room::new();
    let copy = room.file("copy", b"of yesterday");
    let listening = Listening::start(&mut room.sinew(["listen", "uds", "--output", &arg(&copy)]));
    let mut sender =
        room.sinew(["send", &listening.address]).stdin(Stdio::piped()).spawn().expect("the binary starts");
    let mut pipe = sender.stdin.take().expect("a pipe");
    pipe.write_all(&noise(6 << 20)).expect("the sender reads");
    until("something has arrived", || written_in(&room, listening.id()) > 0);
    let has_name = files_in(&room).len() > 1;
    kill(listening.id(), "KILL");
    drop(pipe);
    assert_ne!(finish(sender).code, Some(0));
    drop(listening.finish());
    if has_name {
        sinew_testing::skip!("O_TMPFILE", "the file system of the test has no files without a name");
    }
    assert_eq!(files_in(&room), ["copy"]);
    assert_eq!(std::fs::read(copy).expect("the file"), b"of yesterday");
}

#[test]
fn a_listener_whose_reader_goes_tells_the_sender() {
    for place in ["shm", "uds", "tcp", "all"] {
        reader_goes(place);
    }
}

fn reader_goes(place: &str) {
    let room = Room::new();
    let mut listening = Listening::start(&mut room.sinew(["listen", place]));
    let mut reader = listening.stdout();
    let original = arg(&room.file("original", &noise(20_000_000)));
    let sender =
        room.sinew(["send", &listening.address, "--file", &original]).spawn().expect("the binary starts");
    let mut some = [0; 1000];
    reader.read_exact(&mut some).expect("the beginning");
    drop(reader);
    let ran = finish(sender);
    has(ran.failed_with(1), &["nobody reads its output"]);
    let listened = listening.finish();
    assert_eq!(listened.code, Some(0), "{listened:?}");
    assert!(!listened.err.contains("panicked"), "{listened:?}");
}

#[test]
fn what_cannot_be_read_or_written_is_named() {
    let room = Room::new();
    let ran = room.run(["listen", "--output", "absent/copy"]);
    has(ran.failed_with(1), &["absent/copy", "No such file"]);
    let listening = Listening::start(&mut room.sinew(["listen", "uds", "--output", "/dev/full"]));
    let ran = room.run(["send", &listening.address, "--message", "x"]);
    has(ran.failed_with(1), &["/dev/full", "No space left"]);
    has(listening.finish().failed_with(1), &["/dev/full", "No space left"]);
    let ran = room.run(["send", "tcp://127.0.0.1:1", "--file", "absent"]);
    has(ran.failed_with(1), &["absent", "No such file"]);
    let ran = room.run(["send", "tcp://127.0.0.1:1", "--file", "run"]);
    has(ran.failed_with(2), &["directory", "tar c run"]);
    let ran = room.run(["send", "tcp://127.0.0.1:1", "--message", "x"]);
    has(ran.failed_with(3), &["127.0.0.1:1", "refused"]);
}

#[test]
fn garbage_and_others_do_not_disturb_a_listener() {
    let room = Room::new();
    let listening = Listening::start(&mut room.sinew(["listen", "tcp://127.0.0.1:0"]));
    let port = listening.address.rsplit(':').next().expect("a port").to_owned();
    let mut stranger = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).expect("a connection");
    stranger.write_all(&noise(5000)).expect("it is read or dropped");
    // A measuring peer of the right domain that says something else.
    let ran = room.run([
        "perf",
        "--connect",
        &listening.address,
        "--iterations",
        "1",
        "--sizes",
        "8",
        "--op",
        "latency",
    ]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    room.run(["send", &listening.address, "--message", "hello"]).succeeded();
    assert_eq!(listening.finish().succeeded().text(), "hello");
}

/// A sender whose checksum does not fit what it sent.
#[test]
fn content_that_is_not_what_was_sent_is_no_file_and_its_own_exit_code() {
    let room = Room::new();
    let copy = room.path("copy");
    let listening = Listening::start(&mut room.sinew(["listen", "uds", "--output", &arg(&copy)]));
    let options = sinew::EngineOptions::default().runtime_dir(room.path("run"));
    let engine = sinew::Engine::builder().options(options).transports(["uds"]).build().expect("an engine");
    let endpoint = engine.endpoint("").expect("an endpoint");
    let peer = endpoint.connect(&listening.address).expect("a path");
    let hello = [&b"SNWXFER1"[..], &3_u64.to_le_bytes(), b"forged"].concat();
    peer.send(1, &hello).expect("a hello");
    let mut answer = [0; 512];
    let got = endpoint.recv(2, &mut answer).expect("an answer");
    assert_eq!(&answer[..got.len], b"a");
    peer.message(3).immediate(0).send(b"abc").expect("a chunk");
    let sum = [&3_u64.to_le_bytes()[..], &[0; 32]].concat();
    peer.message(3).immediate(u64::MAX).send(&sum).expect("an end");
    let got = endpoint.recv(2, &mut answer).expect("an answer");
    has(&String::from_utf8_lossy(&answer[..got.len]), &["d3 bytes", "checksum"]);
    has(listening.finish().failed_with(4), &["checksum"]);
    assert!(!copy.exists());
}

#[test]
fn several_senders_are_taken_one_after_the_other() {
    let room = Room::new();
    let copy = room.path("copy");
    let listening =
        Listening::start(&mut room.sinew(["listen", "uds", "--count", "3", "--output", &arg(&copy)]));
    // All at once; who comes first is nobody's business.
    let texts = ["first", "second", "third"];
    let senders: Vec<_> = texts
        .iter()
        .map(|text| {
            room.sinew(["send", &listening.address, "--message", text]).spawn().expect("the binary starts")
        })
        .collect();
    senders.into_iter().for_each(|sender| drop(finish(sender).succeeded()));
    let received = listening.finish().succeeded();
    assert_eq!(received.err.matches("checked").count(), 3, "{}", received.err);
    let mut got: Vec<_> = ["copy", "copy.2", "copy.3"]
        .iter()
        .map(|name| std::fs::read_to_string(room.path(name)).expect("a copy"))
        .collect();
    got.sort();
    assert_eq!(got, texts);
}

#[test]
fn who_keeps_listening_survives_a_sender_that_dies() {
    let room = Room::new();
    let mut listening = Listening::start(&mut room.sinew(["listen", "shm", "--keep"]));
    // More than a pipe holds: who writes into a full one listens to nobody.
    let mut output = listening.stdout();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).map(|_| bytes)
    });
    room.run(["send", &listening.address, "--message", "before "]).succeeded();
    let mut dying =
        room.sinew(["send", &listening.address]).stdin(Stdio::piped()).spawn().expect("the binary starts");
    let mut pipe = dying.stdin.take().expect("a pipe");
    pipe.write_all(&noise(3 << 20)).expect("it reads");
    kill(dying.id(), "KILL");
    dying.wait().expect("it has ended");
    drop(pipe);
    room.run(["send", &listening.address, "--message", "after"]).succeeded();
    kill(listening.id(), "KILL");
    let received = listening.finish();
    let out = reader.join().expect("no panic").expect("its output");
    assert!(out.starts_with(b"before ") && out.ends_with(b"after"));
    has(&received.err, &["was lost"]);
}

#[test]
fn a_count_of_none_and_a_count_beside_keep_are_wrong_usage() {
    let room = Room::new();
    for wrong in [&["listen", "--count", "0"][..], &["listen", "--count", "2", "--keep"]] {
        room.run(wrong.iter().copied()).failed_with(2);
    }
}
