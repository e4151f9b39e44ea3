//! What happens when the process has no descriptor left. Alone in its process, because the limit is the process's.

mod common;

use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sinew_transport::{ErrorKind, LinkState};
use sinew_transport_tcp::StreamOptions;
use std::time::Duration;

#[test]
fn without_descriptors_the_listener_says_so_rests_and_comes_back() {
    let mut net = Net::new(Family::V4, StreamOptions::default());
    let mut dialled = net.client.dial(&net.to, 10).unwrap();
    wait("the dial", || dialled.poll().unwrap() == LinkState::Ready);
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    let mut fill = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        fill.push(file);
    }
    let error = net.server.accept(11).err().expect("no descriptor for the connection");
    assert_eq!(error.kind, ErrorKind::Limit, "{error}");
    assert!(error.hint.contains("ulimit -n"), "{error}");
    let error = net.client.dial(&net.to, 12).err().expect("no descriptor for a dial");
    assert_eq!(error.kind, ErrorKind::Limit, "{error}");
    // The waiting connection does not keep the poller busy: each report is followed by a rest of 100 ms.
    let began = std::time::Instant::now();
    for _ in 0..4 {
        wait("the listener to be back in the poller", || {
            let mut events = Vec::new();
            net.poller.wait(Some(Duration::from_millis(20)), &mut events).unwrap();
            events.iter().any(|event| event.key.owner == 1)
        });
        assert!(net.server.accept(11).is_err());
    }
    let took = began.elapsed();
    // Rests that began earlier may end in between; without any, four reports take microseconds.
    assert!(took >= Duration::from_millis(90), "four reports in {took:?}");
    drop(fill);
    let mut accepted = None;
    wait("the poller to report the listener again", || {
        let mut events = Vec::new();
        net.poller.wait(Some(Duration::from_millis(20)), &mut events).unwrap();
        if events.iter().any(|event| event.key.owner == 1) {
            accepted = net.server.accept(11).unwrap();
        }
        accepted.is_some()
    });
    let mut accepted = accepted.unwrap();
    exchange(&mut dialled, &mut accepted, 3);
}
