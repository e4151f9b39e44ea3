//! Connecting: what must hold however the two sides are scheduled.

use sinew::Engine;
use std::sync::mpsc;
use std::time::Duration;

/// A lane that was proven before its session could use it was once taken for a failure.
#[test]
fn a_connect_never_fails_while_its_only_candidate_is_proven() {
    let (addresses, taken) = mpsc::channel();
    let (finished, finish) = mpsc::channel::<()>();
    let there = std::thread::spawn(move || {
        let engine = Engine::builder().domain("connect").transports(["uds"]).build().expect("an engine");
        let endpoint = engine.endpoint("b").expect("an endpoint");
        addresses.send(endpoint.address()).expect("a reader");
        while finish.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let _ = endpoint.wait_probe(1, Duration::from_millis(1));
        }
    });
    let address = taken.recv().expect("an address");
    for round in 0..40 {
        let engine =
            Engine::builder().domain("connect").transports(["uds"]).listen(false).build().expect("an engine");
        let endpoint = engine.endpoint("a").expect("an endpoint");
        let peer = endpoint.connect(&address);
        assert!(
            peer.is_ok(),
            "round {round}: {}",
            peer.err().map(|error| error.to_string()).unwrap_or_default()
        );
    }
    drop(finished);
    there.join().expect("the other side ends well");
}
