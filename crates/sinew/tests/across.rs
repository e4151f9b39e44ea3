//! Messages that their receiver reads where they lie in the sender's process: content, progress, endings, permission.
#![allow(unsafe_code)]

mod common;

use common::{content, until};
use sinew::{Engine, Match, OpError, Peer, Progress, TransportOptions};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

fn engine(cross_read: &str) -> Engine {
    let options = TransportOptions::default().shm_cross_read(cross_read);
    Engine::builder()
        .domain("across")
        .transports(["shm"])
        .options(common::options())
        .transport_options(options)
        .build()
        .expect("an engine")
}

fn threaded(cross_read: &str) -> Engine {
    let options = TransportOptions::default().shm_cross_read(cross_read);
    let builder = Engine::builder().domain("across").progress(Progress::Thread { cpu: None });
    let builder = builder.transports(["shm"]).options(common::options()).transport_options(options);
    builder.build().expect("an engine")
}

fn is_read_across(peer: &Peer, len: usize) -> bool {
    peer.explain().way(len).is_some_and(|crossing| crossing.way.contains("read across"))
}

/// Two engines that nobody but the test makes progress of, and that have nothing more to tell each other.
fn quiet() -> common::Pair {
    let pair = common::connected(engine("1"), engine("1"));
    let mut receive = pair.b.post_recv(0, vec![0; 8]).expect("posted");
    pair.to_b.send(0, b"hello").expect("sent");
    until("a first message has come", || {
        pair.here.process();
        receive.try_wait().is_some()
    });
    assert!(is_read_across(&pair.to_b, 1 << 20), "{}", pair.to_b.explain());
    pair
}

/// What no other way gives: the sender has posted, and does nothing more until the receiver has it all.
#[test]
fn a_message_that_is_read_across_needs_no_progress_of_its_sender() {
    let pair = quiet();
    let (to_b, b) = (&pair.to_b, &pair.b);
    for (number, len) in [70_000, 100_001, 524_288, 524_289, 3_000_001, 9 << 20].into_iter().enumerate() {
        let message = content(len, number as u64);
        let send = to_b.post_send(1, message.clone()).expect("posted");
        // What is posted goes out with the next turn: the last one before the message is there.
        pair.here.process();
        let mut buf = vec![0xa5u8; len + 64];
        let got = b.recv(1, &mut buf[..len]).expect("a message, without a turn of its sender");
        assert_eq!(got.len, len);
        assert!(buf[..len] == message, "{len} bytes");
        assert!(buf[len..].iter().all(|&byte| byte == 0xa5), "nothing beyond the message");
        assert!(send.wait().expect("the buffer comes back")[..] == message[..]);
    }
}

#[test]
fn borrowed_and_truncated_and_unexpected_messages_are_read_across() {
    let pair = common::connected(engine("1"), threaded("1"));
    let (to_b, b) = (&pair.to_b, pair.b.clone());
    let message = content(2 << 20, 3);
    let expected = message.clone();
    let receiver = std::thread::spawn(move || {
        let mut short = vec![0; 100_000];
        let error = b.recv(1, &mut short).expect_err("too long");
        assert!(matches!(error, OpError::Truncated { message_len, .. } if message_len == 2 << 20), "{error}");
        assert!(short == expected[..100_000]);
        until("two wait", || b.probe(Match::tag(3)).is_some());
        for tag in [3, 2] {
            let message = b.recv_message(tag, 4 << 20).expect("a message");
            assert!(message.to_vec() == expected, "tag {tag}");
        }
    });
    to_b.send(1, &message).expect("taken");
    let second = to_b.post_send(2, message.clone()).unwrap();
    let third = to_b.post_send(3, message.clone()).unwrap();
    second.wait().expect("taken");
    third.wait().expect("taken");
    receiver.join().unwrap();
}

#[test]
fn a_send_that_is_taken_back_before_it_is_read_is_not_received() {
    let pair = quiet();
    let (to_b, b) = (&pair.to_b, &pair.b);
    for round in 0..20u64 {
        let message = content(1 << 20, round);
        let send = to_b.post_send(1, message.clone()).expect("posted");
        pair.here.process();
        until("it waits", || b.probe(Match::tag(1)).is_some());
        let mut buf = send.cancel().expect_err("taken back").buf;
        // The memory is the sender's again: what it writes now is in nobody's message.
        buf.as_mut_slice().expect("writable").fill(0xee);
        to_b.send(1, b"the next one").expect("sent");
        let mut target = vec![0; 1 << 20];
        let got = b.recv(1, &mut target).expect("the next one");
        assert_eq!(&target[..got.len], b"the next one", "round {round}");
    }
}

#[test]
fn a_receive_that_is_given_up_leaves_the_message_to_the_next() {
    let pair = quiet();
    let (to_b, b) = (&pair.to_b, &pair.b);
    let message = content(8 << 20, 1);
    for _ in 0..10 {
        let send = to_b.post_send(1, message.clone()).expect("posted");
        pair.here.process();
        let receive = b.post_recv(1, vec![0; message.len()]).expect("posted");
        // Some pieces are there, some are not.
        for _ in 0..3 {
            pair.there.process();
        }
        let _ = receive.cancel();
        let mut target = vec![0; message.len()];
        match b.recv_within(1, &mut target, Duration::from_secs(10)) {
            Ok(got) => assert!(target[..got.len] == message),
            Err(error) => panic!("the message is lost: {error}"),
        }
        send.wait().expect("taken");
    }
}

#[test]
fn either_side_can_switch_it_off_and_explain_says_so() {
    for (here, there, says) in [("off", "1", "switched off here"), ("1", "off", "does not offer")] {
        let pair = common::connected(engine(here), threaded(there));
        let explain = pair.to_b.explain();
        let crossing = explain.way(1 << 20).expect("a way");
        assert!(crossing.way.contains("pieces") && crossing.reason.contains(says), "{explain}");
        let message = content(1 << 20, 9);
        let receive = pair.b.post_recv(1, vec![0; message.len()]).expect("posted");
        pair.to_b.send(1, &message).expect("sent");
        assert!(receive.wait().expect("received").buf[..] == message[..]);
    }
}

#[test]
fn the_way_is_measured_on_the_first_long_messages_and_explained() {
    let pair = common::connected(threaded("auto"), threaded("auto"));
    let (a, to_b) = (pair.a.clone(), pair.to_b.clone());
    let explain = to_b.explain();
    assert!(explain.way(1 << 20).expect("a way").reason.contains("measured on the first"), "{explain}");
    assert!(explain.way(40).expect("a way").way.contains("slot"), "{explain}");
    assert!(explain.way(4096).expect("a way").way.contains("small window"), "{explain}");
    assert!(explain.way(4097).expect("a way").way.contains("one frame"), "{explain}");
    let to_a = pair.b.connect(a.address()).expect("a path");
    let message = content(1 << 20, 5);
    let mut buf = vec![0; message.len()];
    for _ in 0..20 {
        let send = to_a.post_send(1, message.clone()).expect("posted");
        a.recv(1, &mut buf).expect("received");
        assert!(buf == message);
        send.wait().expect("taken");
    }
    let explain = to_b.explain();
    let reason = &explain.way(1 << 20).expect("a way").reason;
    assert!(
        reason.contains("pieces ") && reason.contains("reading across ") && reason.contains("GB/s"),
        "{explain}"
    );
    assert!(
        explain.way(64 << 20).expect("a way").reason.contains("first long"),
        "not measured yet: {explain}"
    );
}

#[test]
fn a_value_that_is_none_is_refused_with_the_choices() {
    let build = |options| {
        Engine::builder().transport_options(options).build().expect_err("no such value").to_string()
    };
    let none = TransportOptions::default;
    let error = build(none().shm_cross_read("sometimes"));
    assert!(error.contains("SINEW_SHM_CROSS_READ") && error.contains("auto"), "{error}");
    let error = build(none().shm_huge_pages("giant"));
    assert!(error.contains("SINEW_SHM_HUGE_PAGES") && error.contains("off"), "{error}");
    let error = build(none().shm_numa("near"));
    assert!(error.contains("SINEW_SHM_NUMA") && error.contains("number of a node"), "{error}");
    let error = build(none().transports(vec!["shm".into()]).shm_numa("1000"));
    assert!(error.contains("numa = 1000") && error.contains("nodes"), "{error}");
}

#[test]
fn explain_says_which_pages_and_node_the_memory_has_got() {
    let pair = common::connected(engine("auto"), threaded("auto"));
    assert!(pair.to_b.explain().memory.contains("none so far"), "{}", pair.to_b.explain());
    let _buf = pair.to_b.alloc(4 << 20).expect("a pool buffer");
    let memory = pair.to_b.explain().memory;
    assert!(memory.contains("segments of alloc: ") && memory.contains("pages"), "{memory}");
}

/// The other processes.
#[test]
#[ignore = "a child of other tests"]
fn other_process() {
    if !common::is_other() {
        return;
    }
    let role = std::env::var("OTHER_ROLE").unwrap();
    match role.split_once('/').expect("a role and what is forbidden") {
        ("judge", forbidden) => judge(forbidden),
        ("peer", forbidden) => {
            forbid(forbidden);
            peer();
        }
        other => panic!("no role {other:?}"),
    }
}

/// Forbids this process, or others towards it, to read across.
fn forbid(what: &str) {
    match what {
        "nothing" => {}
        // SAFETY: changes an attribute of this process alone.
        "dump" => assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }, 0),
        "EPERM" => filter(libc::EPERM),
        "ENOSYS" => filter(libc::ENOSYS),
        other => panic!("nobody forbids {other}"),
    }
}

/// A filter of system calls that answers `process_vm_readv` with this error.
fn filter(errno: i32) {
    let load = |at| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: at };
    let answer = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    let is = |number| libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: number };
    let mut rules = [
        load(0),
        is(libc::SYS_process_vm_readv as u32),
        answer(libc::SECCOMP_RET_ERRNO | errno as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: rules.len() as u16, filter: rules.as_mut_ptr() };
    // SAFETY: the program lives during the calls; they bind this thread and those that it starts.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// Receives a long message, and sends it back.
fn peer() {
    let engine = engine("1");
    let endpoint = engine.endpoint("peer").unwrap();
    common::say(endpoint.address());
    let mut buf = vec![0; 1 << 20];
    let got = endpoint.recv(1, &mut buf).expect("a message");
    let back = endpoint.reply_to(got.source).expect("the way back");
    back.send(2, &buf).expect("sent back");
    // What this side says of it is the last line.
    common::say(back.explain().way(1 << 20).map_or("", |way| &way.way));
    let _ = common::hear();
}

/// Exchanges long messages with a peer of the same user that may not be read, or while this process may not read: they arrive
/// all the same. Says which way long messages take here, and why.
fn judge(forbidden: &str) {
    if forbidden != "dump" {
        forbid(forbidden);
    }
    let mut other = common::spawn(if forbidden == "dump" { "peer/dump" } else { "peer/nothing" }, "shm", &[]);
    let engine = engine("1");
    let endpoint = engine.endpoint("judge").unwrap();
    let to = endpoint.connect(other.line()).expect("a path");
    let message = content(1 << 20, 4);
    to.send(1, &message).expect("sent");
    let mut buf = vec![0; 1 << 20];
    endpoint.recv(2, &mut buf).expect("sent back");
    assert!(buf == message);
    let crossing = to.explain().way(1 << 20).expect("a way").clone();
    let _ = other.line();
    other.tell("done");
    common::say(format!("{} ({})", crossing.way, crossing.reason));
    other.finish();
}

fn sentence(forbidden: &str) -> String {
    let mut command = Command::new("/proc/self/exe");
    if rustix::process::geteuid().is_root() {
        // Root may read whom it likes.
        command.uid(4242).gid(4242).env_remove("XDG_RUNTIME_DIR");
    }
    let judge = common::spawn_by(command, &format!("judge/{forbidden}"), "shm", &[]);
    let line = judge.line();
    judge.finish();
    println!("{forbidden} forbidden: {line}");
    line
}

#[test]
fn processes_of_one_user_read_each_other_where_the_system_permits_it() {
    let line = sentence("nothing");
    if line.contains("ptrace_scope") {
        sinew_testing::skip!("cross-memory attach", "{line}");
    }
    assert!(line.starts_with("read across"), "{line}");
}

#[test]
fn a_peer_that_may_not_be_read_is_sent_pieces_by_and_explain_says_why() {
    let line = sentence("dump");
    assert!(line.starts_with("pieces") && line.contains("not permitted"), "{line}");
}

#[test]
fn a_sandbox_that_refuses_the_call_costs_nothing_but_the_way() {
    let line = sentence("EPERM");
    assert!(line.starts_with("pieces") && line.contains("not permitted"), "{line}");
    let line = sentence("ENOSYS");
    assert!(line.starts_with("pieces") && line.contains("no process_vm_readv"), "{line}");
}
