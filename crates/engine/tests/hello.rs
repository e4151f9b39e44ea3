//! Hellos by hand, as a peer of another make or with bad intent sends them: which session a link is for.

use sinew_engine::{Engine, Security};
use sinew_proto::handshake::{Config, Handshake, HandshakeError, Step, Trust, domain_hash};
use sinew_transport_tcp::{TcpOptions, TcpTransport};
use sinew_wire::hello::{Hello, RECORD_LEN, Reason, Versions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20 * sinew_testing::SLOWNESS);

fn engine() -> Engine {
    let builder = Engine::builder().domain("hello").security(Security::Open);
    builder.transport(TcpTransport::new(TcpOptions::default())).build().expect("an engine")
}

/// What a dialer of the session that is pinned to `pinned` learns.
fn dial(engine: &Engine, pinned: &str) -> Result<Step, HandshakeError> {
    let address = engine.endpoint("").expect("an endpoint").address();
    let port = address.locators().iter().find_map(|locator| locator.rsplit(':').next()).expect("a port");
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
    stream.set_nonblocking(true).expect("a socket");
    let config = Config {
        engine: *b"stranger engine.",
        incarnation: 1,
        domain: domain_hash("hello"),
        trust: Trust { secret: None, plain: true },
        versions: Versions::THIS,
        features: 0,
        required: 0,
    };
    let hello = Hello { pinned: pinned.into(), ..Hello::default() };
    let (mut handshake, first) = Handshake::dialer(config, hello, [7; 32]).expect("it dials");
    stream.write_all(&first).expect("it is read");
    let (mut record, mut filled, start) = ([0; RECORD_LEN], 0, Instant::now());
    while filled < RECORD_LEN {
        engine.process();
        match stream.read(&mut record[filled..]) {
            Ok(0) => panic!("closed without a word"),
            Ok(got) => filled += got,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
        assert!(start.elapsed() < PATIENCE, "no answer");
    }
    handshake.handle(&record)
}

fn refused(result: Result<Step, HandshakeError>) -> (Reason, String) {
    match result {
        Err(HandshakeError::Refused(refusal)) => (refusal.reason, refusal.text.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_answer_names_the_session_that_was_asked_for() {
    let engine = engine();
    for pinned in ["", "tcp"] {
        match dial(&engine, pinned) {
            Ok(Step::SendAndDone(_, peer)) => assert_eq!(peer.hello.pinned, pinned),
            other => panic!("{pinned:?}: {other:?}"),
        }
    }
    assert_eq!(engine.counters().sessions, 0, "nobody has proven to be there");
}

#[test]
fn a_link_of_another_transport_than_the_session_is_pinned_to_is_refused() {
    let engine = engine();
    for pinned in ["shm", "uds", "tcp6", "nowhere"] {
        let (reason, text) = refused(dial(&engine, pinned));
        assert_eq!(reason, Reason::OTHER_TRANSPORT);
        assert!(text.contains("another transport"), "{text}");
    }
    let (reason, text) = refused(dial(&engine, "NO NAME"));
    assert_eq!(reason, Reason::MALFORMED);
    assert!(text.contains("a-z"), "{text}");
    assert_eq!(engine.counters().sessions, 0);
}
