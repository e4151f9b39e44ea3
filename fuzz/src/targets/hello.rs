//! Records of the hello: any bytes are an error or a hello, and no sequence of records makes a handshake panic or lets
//! anybody through who does not know the secret.

use super::{Input, note};
use sinew_proto::handshake::{Config, Handshake, HandshakeError, Secret, Step, Trust, domain_hash};
use sinew_wire::hello::{
    HELLO_LEN, Header, Hello, RECORD_LEN, Reason, Record, RecordKind, Refusal, Versions, body,
};

pub(super) fn run(data: &[u8]) -> u64 {
    let mut input = Input::new(data);
    let choice = input.byte();
    let record = record_of(input.rest);
    let outcome = formats(&record);
    let secret = choice & 1 != 0;
    match choice >> 1 & 3 {
        0 => note(outcome, accept(secret, &record)),
        1 => note(outcome, dial(secret, &record)),
        2 => note(outcome, confirm(secret, &record)),
        _ => outcome,
    }
}

fn record_of(bytes: &[u8]) -> Record {
    let mut record = [0; RECORD_LEN];
    let len = bytes.len().min(RECORD_LEN);
    record[..len].copy_from_slice(&bytes[..len]);
    record
}

/// What is read can be written, and reads the same again.
fn formats(record: &Record) -> u64 {
    let header = match Header::read(record) {
        Ok(header) => header,
        Err(error) => return note(0, error.to_string().len() as u64),
    };
    assert_eq!(Header::read(&header.record()), Ok(header));
    if header.kind == RecordKind::REFUSAL {
        let refusal = Refusal::decode(&header, record);
        assert!(refusal.text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
        let again = refusal.encode();
        assert_eq!(Refusal::decode(&Header::read(&again).expect("a record"), &again), refusal);
    }
    let content: &[u8; HELLO_LEN] = body(record)[32..].first_chunk().expect("the body is longer");
    match Hello::decode(content, record) {
        Ok(hello) => {
            assert!(!hello.locators.bytes().any(|byte| byte.is_ascii_control()));
            assert_eq!(Hello::decode(&hello.encode(record), record), Ok(hello));
            1
        }
        Err(error) => note(1, error.to_string().len() as u64),
    }
}

fn config(engine: u8, secret: bool) -> Config {
    Config {
        engine: [engine; 16],
        incarnation: 7,
        domain: domain_hash("fuzz"),
        trust: Trust { secret: secret.then(|| Secret::new(b"only the engines know")), plain: !secret },
        versions: Versions::THIS,
        features: 0,
        required: 0,
    }
}

fn class(error: &HandshakeError) -> u64 {
    assert!(!error.to_string().is_empty());
    error.reason().map_or(99, |reason| u64::from(reason.0))
}

fn accept(secret: bool, record: &Record) -> u64 {
    let mut acceptor = Handshake::acceptor(config(1, secret), [1; 32]);
    match acceptor.handle(record) {
        Ok(Step::Introduced(peer)) => {
            assert_ne!(peer.hello.engine, [1; 16]);
            let answered = acceptor.answer(Hello::default()).is_ok();
            assert!(acceptor.handle(record).is_err());
            note(200, u64::from(answered))
        }
        Ok(step) => panic!("an acceptor's first step: {step:?}"),
        Err(error) => {
            let refused = acceptor.refusal_for(&error);
            assert_eq!(refused.is_some(), error.reason().is_some());
            assert_eq!(acceptor.handle(record), Err(HandshakeError::Over));
            class(&error)
        }
    }
}

fn dial(secret: bool, record: &Record) -> u64 {
    let (mut dialer, first) =
        Handshake::dialer(config(2, secret), Hello::default(), [2; 32]).expect("it can prove itself");
    match dialer.handle(record) {
        Ok(Step::SendAndDone(third, peer)) => {
            assert!(!secret, "a made-up record passed as {peer:?}");
            assert_ne!(*third, first);
            300
        }
        Ok(step) => panic!("a dialer's step: {step:?}"),
        Err(error) => class(&error),
    }
}

/// The record comes instead of the third.
fn confirm(secret: bool, record: &Record) -> u64 {
    let (_, first) =
        Handshake::dialer(config(2, secret), Hello::default(), [2; 32]).expect("it can prove itself");
    let mut acceptor = Handshake::acceptor(config(1, secret), [1; 32]);
    acceptor.handle(&first).expect("introduced");
    acceptor.answer(Hello::default()).expect("answers");
    match acceptor.handle(record) {
        Ok(Step::Done(_)) => {
            assert!(!secret, "a made-up record passed");
            400
        }
        Ok(step) => panic!("an acceptor's last step: {step:?}"),
        Err(error) => class(&error),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for secret in [false, true] {
        let hello = || Hello { locators: "tcp:10.0.0.1:4000 uds:/run/a".into(), ..Hello::default() };
        // Another secret's engines: nothing in the corpus may pass.
        let mut dialing = config(3, secret);
        let mut accepting = config(1, secret);
        if secret {
            let other = Some(Secret::new(b"somebody else's"));
            (dialing.trust.secret, accepting.trust.secret) = (other.clone(), other);
        }
        let (mut dialer, first) = Handshake::dialer(dialing, hello(), [2; 32]).expect("dials");
        let mut acceptor = Handshake::acceptor(accepting, [1; 32]);
        acceptor.handle(&first).expect("introduced");
        let second = acceptor.answer(hello()).expect("answers");
        let Ok(Step::SendAndDone(third, _)) = dialer.handle(&second) else { panic!("done") };
        let refusal = acceptor.refuse(Reason::FULL, "no room");
        for (choice, record) in [(0, first), (1, second), (2, *third), (1, refusal)] {
            let mut seed = vec![choice << 1 | u8::from(secret)];
            seed.extend(record);
            seeds.push(seed);
        }
    }
    seeds.push(b"\x00GET / HTTP/1.1\r\n\r\n".to_vec());
    seeds
}
