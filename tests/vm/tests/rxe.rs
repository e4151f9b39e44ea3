//! The programs of rdma-core over RoCE v2, a client and a server in one guest.

use sinew_vm_tests::{Program, address, ping_pong, rping, run, ucmatose};

#[test]
fn rc_pingpong_reaches_itself() {
    ping_pong("ibv_rc_pingpong", 200, ["rxe0", "rxe0"], &address());
}

#[test]
fn uc_pingpong_reaches_itself() {
    ping_pong("ibv_uc_pingpong", 200, ["rxe0", "rxe0"], &address());
}

#[test]
fn ud_pingpong_reaches_itself() {
    ping_pong("ibv_ud_pingpong", 200, ["rxe0", "rxe0"], &address());
}

#[test]
fn srq_pingpong_reaches_itself() {
    ping_pong("ibv_srq_pingpong", 200, ["rxe0", "rxe0"], &address());
}

#[test]
fn rping_reaches_itself() {
    rping(&address(), &address());
}

#[test]
fn ucmatose_reaches_itself() {
    ucmatose(&address());
}

#[test]
fn perftest_measures_writes() {
    perftest("ib_write_bw -d rxe0 -x 1 -F -n 50 -s 4096");
}

/// Both sides poll: with events (`-e`) this program has one channel for both of its queues, takes the event of one for that of the
/// other, and waits for ever when the two come in the wrong order, as they do on a busy machine.
#[test]
fn perftest_measures_sends() {
    perftest("ib_send_lat -d rxe0 -x 1 -F -n 50 -s 4096");
}

#[test]
fn perftest_measures_atomics() {
    perftest("ib_atomic_lat -d rxe0 -x 1 -F -n 50");
}

/// Both sides end well, and the client's has a line with what it measured.
fn perftest(words: &str) {
    let server = Program::start(words).listening(18515);
    let client = run(&format!("{words} {}", address()));
    _ = server.success();
    let measured = |line: &str| line.split_whitespace().nth(1) == Some("50");
    assert!(client.lines().any(measured), "{client}");
}
