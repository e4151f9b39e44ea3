//! Two guests that are joined by a wire: both run this program, test by test, the first as the server.

use sinew_vm_tests::{Program, await_that, run};

/// The address of the other guest, in the one that is the client.
fn server() -> Option<String> {
    let is_server = std::env::var("SINEW_VM").unwrap() == "1";
    (!is_server).then(|| std::env::var("SINEW_VM_PEER").unwrap())
}

/// The client's program, again and again until the server's listens.
fn run_until_heard(words: &str) -> String {
    let mut heard = String::new();
    await_that(words, || {
        let (status, said) = Program::start(words).end();
        heard = said;
        status.success()
    });
    heard
}

fn ping_pong(program: &str) {
    let words = format!("{program} -d rxe0 -g 1 -n 100 -e");
    let said = match server() {
        Some(server) => run_until_heard(&format!("{words} {server}")),
        None => run(&words),
    };
    assert!(said.contains("100 iters in"), "{said}");
}

#[test]
fn rc_pingpong_reaches_the_other_guest() {
    ping_pong("ibv_rc_pingpong");
}

#[test]
fn ud_pingpong_reaches_the_other_guest() {
    ping_pong("ibv_ud_pingpong");
}

#[test]
fn rping_reaches_the_other_guest() {
    match server() {
        Some(server) => _ = run_until_heard(&format!("rping -c -a {server} -p 7174 -C 20 -V")),
        None => _ = run("rping -s -a 10.77.0.1 -p 7174 -C 20 -V"),
    }
}
