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
fn perftest_measures() {
    let words = "ib_write_bw -d rxe0 -x 1 -F -n 50 -e";
    let server = Program::start(words).listening(18515);
    let client = run(&format!("{words} {}", address()));
    assert!(client.contains("65536") && server.success().contains("65536"), "{client}");
}
