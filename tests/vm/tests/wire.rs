//! Two devices of one guest with a wire between them that really carries the packets, and loses some when told to.

use sinew_vm_tests::{counter, ping_pong, ping_pong_of_client, rping, run};

const ENDS: [&str; 2] = ["rxe1", "rxe2"];
const SENT: [&str; 2] =
    ["/sys/class/net/veth1/statistics/tx_packets", "/sys/class/net/veth2/statistics/tx_packets"];

/// Packets that `tc` says were dropped on an interface.
fn dropped(interface: &str) -> u64 {
    let said = run(&format!("tc -s qdisc show dev {interface}"));
    let (_, rest) = said.split_once("dropped ").unwrap_or_else(|| panic!("{said}"));
    rest.split(',').next().and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

#[test]
fn what_goes_between_the_ends_goes_over_the_wire() {
    let before = SENT.map(counter);
    ping_pong("ibv_rc_pingpong", 100, ENDS, "10.88.0.1");
    for (path, before) in SENT.iter().zip(before) {
        assert!(counter(path) >= before + 100, "{path}");
    }
}

#[test]
fn rping_connects_over_the_wire() {
    let before = SENT.map(counter);
    rping("10.88.0.1", "10.88.0.2");
    assert!(SENT.map(counter).iter().zip(before).all(|(after, before)| *after >= before + 20));
}

#[test]
fn lost_packets_are_sent_again() {
    for interface in ["veth1", "veth2"] {
        _ = run(&format!("tc qdisc add dev {interface} root netem loss 5%"));
    }
    let server = ping_pong_of_client("ibv_rc_pingpong", 300, ENDS, "10.88.0.1");
    drop(server);
    let lost = dropped("veth1") + dropped("veth2");
    for interface in ["veth1", "veth2"] {
        _ = run(&format!("tc qdisc del dev {interface} root"));
    }
    assert!(lost > 0, "nothing was lost");
}
