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

/// Hands connections on to `to`, but for the first ones, which it closes at once, as a listener does that has too many.
fn busy_door(to: std::net::SocketAddr, closes: usize) -> std::net::SocketAddr {
    let door = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in door.incoming().skip(closes).flatten() {
            let Ok(inside) = std::net::TcpStream::connect(to) else { return };
            let ways = [(stream.try_clone(), inside.try_clone()), (Ok(inside), Ok(stream))];
            for (from, into) in ways {
                let (Ok(mut from), Ok(mut into)) = (from, into) else { return };
                std::thread::spawn(move || std::io::copy(&mut from, &mut into));
            }
        }
    });
    address
}

#[test]
fn a_connect_that_is_closed_before_it_is_answered_is_tried_again() {
    let build = || {
        sinew::Engine::builder()
            .domain("door")
            .progress(sinew::Progress::Thread { cpu: None })
            .options(sinew::EngineOptions::default())
            .transports(["tcp"])
            .build()
            .unwrap()
    };
    let (here, there) = (build(), build());
    let (a, b) = (here.endpoint("a").unwrap(), there.endpoint("b").unwrap());
    let locator = b.address().locators().iter().find(|text| text.contains("127.0.0.1")).unwrap().to_string();
    let inside = locator.trim_start_matches("tcp:").parse().unwrap();
    let peer = a.connect(format!("tcp://{}/b", busy_door(inside, 2))).expect("the third try");
    peer.send(1, b"well").unwrap();
    assert_eq!(b.recv(1, &mut [0; 8]).unwrap().len, 4);
    let error = a.connect(format!("tcp://{}/b", busy_door(inside, usize::MAX))).unwrap_err().to_string();
    assert!(error.contains("reset") || error.contains("closed"), "how it ended is said: {error}");
}
