//! Two handshakes facing each other, and whoever stands between them.

use super::*;
use sinew_wire::hello::{Credits, HelloError, RECORD_LEN};

const DIALER: [u8; 16] = *b"dialling engine.";
const ACCEPTOR: [u8; 16] = *b"accepting engine";

fn config(engine: [u8; 16], trust: Trust) -> Config {
    Config {
        engine,
        incarnation: u64::from(engine[0]),
        domain: domain_hash("test"),
        trust,
        versions: Versions::THIS,
        features: 0,
        required: 0,
    }
}

fn secret(text: &str) -> Trust {
    Trust { secret: Some(Secret::new(text.as_bytes())), plain: false }
}

fn plain() -> Trust {
    Trust { secret: None, plain: true }
}

fn hello(lane: u32) -> Hello {
    let credits = Credits {
        session_bytes: 1 << 20,
        endpoint_bytes: 1 << 18,
        session_envelopes: 9,
        endpoint_envelopes: 8,
    };
    Hello { credits, lane, frame_max: 4096, locators: "tcp:10.0.0.1:4000".into(), ..Hello::default() }
}

/// Both ends, until the acceptor has decided.
fn meet(dialer: Config, acceptor: Config, says: Hello) -> Result<(Handshake, Handshake), HandshakeError> {
    let (dialer, first) = Handshake::dialer(dialer, says, [1; 32])?;
    let mut acceptor = Handshake::acceptor(acceptor, [2; 32]);
    let Step::Introduced(_) = acceptor.handle(&first)? else { panic!("introduced") };
    Ok((dialer, acceptor))
}

/// The error of the acceptor and what the dialer learns of it.
fn refused(dialer: Config, acceptor: Config, says: Hello) -> (HandshakeError, HandshakeError) {
    let (mut dialer, first) = Handshake::dialer(dialer, says, [1; 32]).expect("dials");
    let mut acceptor = Handshake::acceptor(acceptor, [2; 32]);
    let error = acceptor.handle(&first).expect_err("refused");
    let record = acceptor.refusal_for(&error).expect("tells why");
    let learnt = dialer.handle(&record).expect_err("refused");
    assert_eq!(dialer.handle(&record), Err(HandshakeError::Over));
    (error, learnt)
}

fn reason(error: &HandshakeError) -> Reason {
    let HandshakeError::Refused(refusal) = error else { panic!("{error:?}") };
    refusal.reason
}

fn both_trusts() -> [Trust; 2] {
    [secret("0123456789abcdef"), plain()]
}

#[test]
fn both_learn_who_the_other_is() {
    for trust in both_trusts() {
        let (mut dialer, mut acceptor) =
            meet(config(DIALER, trust.clone()), config(ACCEPTOR, trust.clone()), hello(7)).expect("meet");
        let second = acceptor.answer(hello(8)).expect("answers");
        let Ok(Step::SendAndDone(third, seen)) = dialer.handle(&second) else { panic!("done") };
        let Ok(Step::Done(by)) = acceptor.handle(&third) else { panic!("done") };
        assert_eq!((seen.hello.engine, seen.hello.incarnation, seen.hello.lane), (ACCEPTOR, 97, 8));
        assert_eq!((by.hello.engine, by.hello.incarnation, by.hello.lane), (DIALER, 100, 7));
        assert_eq!(by.hello.credits, hello(0).credits);
        assert_eq!(by.hello.locators, "tcp:10.0.0.1:4000");
        let proof = if trust.plain { Proof::Plain } else { Proof::Secret };
        assert_eq!((seen.proof, by.proof, seen.version), (proof, proof, 1));
    }
}

#[test]
fn both_sides_agree_which_session_the_link_is_for() {
    let of = |pinned: &str| Hello { pinned: pinned.into(), ..hello(1) };
    for trust in both_trusts() {
        for (asked, answered) in [("tcp", "tcp"), ("", ""), ("tcp", ""), ("", "tcp"), ("tcp", "shm")] {
            let met = meet(config(DIALER, trust.clone()), config(ACCEPTOR, trust.clone()), of(asked));
            let (mut dialer, mut acceptor) = met.expect("meet");
            let second = acceptor.answer(of(answered)).expect("answers");
            let step = dialer.handle(&second);
            if asked == answered {
                let Ok(Step::SendAndDone(third, seen)) = step else { panic!("{step:?}") };
                let Ok(Step::Done(by)) = acceptor.handle(&third) else { panic!("done") };
                assert_eq!((seen.hello.pinned.as_str(), by.hello.pinned.as_str()), (asked, asked));
            } else {
                let (asked, answered) = (asked.to_owned(), answered.to_owned());
                let error = step.expect_err("another session");
                assert_eq!(error, HandshakeError::OtherSession { asked, answered });
                assert_eq!(error.reason(), Some(Reason::MALFORMED));
            }
        }
    }
}

#[test]
fn nothing_of_a_secret_hello_is_readable_on_the_way() {
    let (_, first) = Handshake::dialer(config(DIALER, secret("s")), hello(1), [1; 32]).expect("dials");
    assert!(!first.windows(4).any(|window| window == b"tcp:" || window == &DIALER[..4]));
}

#[test]
fn the_same_randomness_gives_the_same_records() {
    for trust in both_trusts() {
        let dial = |entropy| {
            let config = config(DIALER, trust.clone());
            Handshake::dialer(config, hello(1), entropy).expect("dials").1
        };
        assert_eq!(dial([1; 32]), dial([1; 32]));
        assert_ne!(dial([1; 32]), dial([3; 32]));
    }
}

#[test]
fn a_wrong_secret_is_told_as_a_failed_proof_and_nothing_more() {
    let (error, learnt) = refused(config(DIALER, secret("a")), config(ACCEPTOR, secret("b")), hello(1));
    assert_eq!(error, HandshakeError::ProofFailed);
    assert_eq!(reason(&learnt), Reason::PROOF_FAILED);
    let HandshakeError::Refused(refusal) = &learnt else { panic!("{learnt:?}") };
    assert_eq!(refusal.text, "");
    assert!(learnt.to_string().contains("same domain secret"), "{learnt}");
}

#[test]
fn another_domain_is_refused_with_and_without_a_secret() {
    for trust in both_trusts() {
        let mut other = config(ACCEPTOR, trust.clone());
        other.domain = domain_hash("other");
        let (error, learnt) = refused(config(DIALER, trust), other, hello(1));
        assert_eq!(error, HandshakeError::OtherDomain);
        assert_eq!(reason(&learnt), Reason::OTHER_DOMAIN);
    }
}

#[test]
fn engines_of_different_versions_both_say_both_versions() {
    let old = config(DIALER, plain());
    let mut new = config(ACCEPTOR, plain());
    new.versions = Versions { min: 2, max: 5 };
    let (error, learnt) = refused(old, new, hello(1));
    let text = error.to_string();
    assert!(text.contains("speaks 2 to 5, the peer 1;"), "{text}");
    assert_eq!(reason(&learnt), Reason::OTHER_VERSION);
    assert!(learnt.to_string().contains("speaks version 2 to 5"), "{learnt}");
}

#[test]
fn plain_is_refused_where_a_secret_is_asked_for_and_the_refusal_says_so() {
    let (error, learnt) = refused(config(DIALER, plain()), config(ACCEPTOR, secret("s")), hello(1));
    assert_eq!(error, HandshakeError::OtherMode { ours: Mode::SECRET, theirs: Mode::PLAIN });
    let HandshakeError::Refused(refusal) = &learnt else { panic!("{learnt:?}") };
    assert_eq!((refusal.reason, refusal.modes), (Reason::OTHER_MODE, Mode::SECRET));
    let (error, _) = refused(config(DIALER, secret("s")), config(ACCEPTOR, plain()), hello(1));
    assert_eq!(error, HandshakeError::OtherMode { ours: Mode::PLAIN, theirs: Mode::SECRET });
    let nothing = Handshake::dialer(config(DIALER, Trust::default()), hello(1), [1; 32]);
    assert_eq!(nothing.expect_err("no proof"), HandshakeError::NothingToProveWith);
}

#[test]
fn an_answer_in_a_weaker_mode_is_not_taken() {
    let (mut dialer, _) = Handshake::dialer(config(DIALER, secret("s")), hello(1), [1; 32]).expect("dials");
    let (_, mut acceptor) = meet(config(DIALER, plain()), config(ACCEPTOR, plain()), hello(1)).expect("meet");
    let second = acceptor.answer(hello(1)).expect("answers");
    let error = dialer.handle(&second).expect_err("weaker");
    assert_eq!(error, HandshakeError::OtherMode { ours: Mode::SECRET, theirs: Mode::PLAIN });
}

#[test]
fn a_replayed_first_record_gets_no_further_than_the_answer() {
    for trust in both_trusts() {
        let dial = config(DIALER, trust.clone());
        let (mut dialer, first) = Handshake::dialer(dial, hello(1), [1; 32]).expect("dials");
        let mut real = Handshake::acceptor(config(ACCEPTOR, trust.clone()), [2; 32]);
        real.handle(&first).expect("introduced");
        let second = real.answer(hello(1)).expect("answers");
        let Ok(Step::SendAndDone(third, _)) = dialer.handle(&second) else { panic!("done") };
        let mut replayed = Handshake::acceptor(config(ACCEPTOR, trust.clone()), [3; 32]);
        assert!(matches!(replayed.handle(&first), Ok(Step::Introduced(_))));
        replayed.answer(hello(1)).expect("answers");
        let error = replayed.handle(&third).expect_err("not fresh");
        assert_eq!(error, if trust.plain { HandshakeError::NotFresh } else { HandshakeError::ProofFailed });
        assert_eq!(error.reason(), Some(Reason::PROOF_FAILED));
    }
}

#[test]
fn a_replayed_second_record_is_not_taken() {
    for trust in both_trusts() {
        let (_, mut acceptor) =
            meet(config(DIALER, trust.clone()), config(ACCEPTOR, trust.clone()), hello(1)).expect("meet");
        let second = acceptor.answer(hello(1)).expect("answers");
        let (mut later, _) =
            Handshake::dialer(config(DIALER, trust.clone()), hello(1), [9; 32]).expect("dials");
        let error = later.handle(&second).expect_err("not fresh");
        assert_eq!(error, if trust.plain { HandshakeError::NotFresh } else { HandshakeError::ProofFailed });
    }
}

#[test]
fn the_own_record_coming_back_is_recognised() {
    for trust in both_trusts() {
        let (mut dialer, first) =
            Handshake::dialer(config(DIALER, trust.clone()), hello(1), [1; 32]).expect("dials");
        assert_eq!(dialer.handle(&first), Err(HandshakeError::Reflected));
        assert_eq!(dialer.refusal_for(&HandshakeError::Reflected), None);
        let mut myself = Handshake::acceptor(config(DIALER, trust), [2; 32]);
        assert_eq!(myself.handle(&first), Err(HandshakeError::Myself));
    }
}

#[test]
fn garbage_is_not_answered() {
    for garbage in
        [[0; RECORD_LEN], [0xff; RECORD_LEN], *b"GET / HTTP/1.1\r\n".repeat(32).first_chunk().expect("512")]
    {
        let mut acceptor = Handshake::acceptor(config(ACCEPTOR, plain()), [2; 32]);
        let error = acceptor.handle(&garbage).expect_err("garbage");
        assert_eq!(error, HandshakeError::Malformed(HelloError::NotARecord));
        assert_eq!(acceptor.refusal_for(&error), None);
        assert_eq!(acceptor.handle(&garbage), Err(HandshakeError::Over));
    }
}

#[test]
fn truncated_records_are_refused() {
    for trust in both_trusts() {
        let (_, first) = Handshake::dialer(config(DIALER, trust.clone()), hello(1), [1; 32]).expect("dials");
        for cut in [0, 7, 8, 20, 33, 100] {
            let mut record = first;
            record[cut..].fill(0);
            let mut acceptor = Handshake::acceptor(config(ACCEPTOR, trust.clone()), [2; 32]);
            acceptor.handle(&record).expect_err("truncated");
        }
    }
}

#[test]
fn under_the_secret_any_changed_bit_of_any_record_is_found() {
    let trust = secret("s");
    let (mut dialer, mut acceptor) =
        meet(config(DIALER, trust.clone()), config(ACCEPTOR, trust.clone()), hello(1)).expect("meet");
    let (_, first) = Handshake::dialer(config(DIALER, trust.clone()), hello(1), [1; 32]).expect("dials");
    let second = acceptor.answer(hello(1)).expect("answers");
    let Ok(Step::SendAndDone(third, _)) = dialer.handle(&second) else { panic!("done") };
    for byte in 0..RECORD_LEN {
        let changed = |record: &Record| {
            let mut record = *record;
            record[byte] ^= 1 << (byte % 8);
            record
        };
        // The two reserved header bytes are covered as well; the third record ends after its tag.
        let mut listening = Handshake::acceptor(config(ACCEPTOR, trust.clone()), [2; 32]);
        listening.handle(&changed(&first)).expect_err("first");
        let (mut dialing, _) =
            Handshake::dialer(config(DIALER, trust.clone()), hello(1), [1; 32]).expect("dials");
        dialing.handle(&changed(&second)).expect_err("second");
        if byte < 72 {
            let (_, mut answered) =
                meet(config(DIALER, trust.clone()), config(ACCEPTOR, trust.clone()), hello(1)).expect("meet");
            answered.answer(hello(1)).expect("answers");
            answered.handle(&changed(&third)).expect_err("third");
        }
    }
}

#[test]
fn records_out_of_order_are_refused() {
    for trust in both_trusts() {
        let (mut dialer, mut acceptor) =
            meet(config(DIALER, trust.clone()), config(ACCEPTOR, trust.clone()), hello(1)).expect("meet");
        let second = acceptor.answer(hello(1)).expect("answers");
        let Ok(Step::SendAndDone(third, _)) = dialer.handle(&second) else { panic!("done") };
        for record in [second, *third] {
            let mut listening = Handshake::acceptor(config(ACCEPTOR, trust.clone()), [2; 32]);
            let error = listening.handle(&record).expect_err("out of order");
            assert!(matches!(error, HandshakeError::OutOfOrder { expected: RecordKind::FIRST, .. }));
        }
        let error = acceptor.handle(&second).expect_err("out of order");
        assert!(matches!(error, HandshakeError::OutOfOrder { expected: RecordKind::THIRD, .. }));
        let (mut deciding, mut undecided) =
            meet(config(DIALER, trust.clone()), config(ACCEPTOR, trust.clone()), hello(1)).expect("meet");
        assert_eq!(undecided.handle(&third), Err(HandshakeError::Over));
        let error = deciding.handle(&third).expect_err("out of order");
        assert!(matches!(error, HandshakeError::OutOfOrder { expected: RecordKind::SECOND, .. }));
    }
}

#[test]
fn another_engine_or_incarnation_than_expected_is_refused_by_either_side() {
    for trust in both_trusts() {
        let mut says = hello(1);
        says.expected_engine = ACCEPTOR;
        says.expected_incarnation = 97;
        meet(config(DIALER, trust.clone()), config(ACCEPTOR, trust.clone()), says.clone()).expect("meet");
        let mut restarted = config(ACCEPTOR, trust.clone());
        restarted.incarnation = 98;
        let (error, learnt) = refused(config(DIALER, trust.clone()), restarted, says.clone());
        assert_eq!(error, HandshakeError::AnotherIncarnation { expected: 97, found: 98 });
        assert_eq!(reason(&learnt), Reason::ANOTHER_INCARNATION);
        let other = config(*b"a third engine..", trust.clone());
        let (error, learnt) = refused(config(DIALER, trust), other, says);
        assert!(matches!(error, HandshakeError::UnknownEngine { expected: ACCEPTOR, .. }));
        assert_eq!(reason(&learnt), Reason::UNKNOWN_ENGINE);
    }
    // An acceptor that does not check: the dialer does.
    let mut says = hello(1);
    says.expected_engine = ACCEPTOR;
    let (mut dialer, first) = Handshake::dialer(config(DIALER, plain()), says, [1; 32]).expect("dials");
    let mut third = first;
    let content_at = 64;
    third[content_at + 80..content_at + 96].fill(0);
    let mut other = Handshake::acceptor(config(*b"a third engine..", plain()), [2; 32]);
    other.handle(&third).expect("introduced");
    let second = other.answer(hello(1)).expect("answers");
    assert!(matches!(dialer.handle(&second), Err(HandshakeError::UnknownEngine { .. })));
}

#[test]
fn features_are_negotiated_and_required_ones_insisted_on() {
    let with = |features, required, engine| Config { features, required, ..config(engine, plain()) };
    let (mut dialer, mut acceptor) =
        meet(with(0b011, 0b001, DIALER), with(0b101, 0b001, ACCEPTOR), hello(1)).expect("meet");
    let second = acceptor.answer(hello(1)).expect("answers");
    let Ok(Step::SendAndDone(_, peer)) = dialer.handle(&second) else { panic!("done") };
    assert_eq!(peer.features, 0b001);
    let (error, learnt) = refused(with(0b11, 0b10, DIALER), with(0b01, 0, ACCEPTOR), hello(1));
    assert_eq!(error, HandshakeError::MissingFeature { missing: 0b10, here: true });
    assert_eq!(reason(&learnt), Reason::MISSING_FEATURE);
    let (error, _) = refused(with(0b01, 0, DIALER), with(0b11, 0b10, ACCEPTOR), hello(1));
    assert_eq!(error, HandshakeError::MissingFeature { missing: 0b10, here: false });
}

#[test]
fn a_full_engine_says_so_and_the_dialer_may_try_again() {
    let (mut dialer, mut acceptor) =
        meet(config(DIALER, plain()), config(ACCEPTOR, plain()), hello(1)).expect("meet");
    let error = dialer.handle(&acceptor.refuse(Reason::FULL, "64 half-open links")).expect_err("full");
    assert!(error.is_retryable());
    assert!(error.to_string().contains("full: 64 half-open links"), "{error}");
    assert_eq!(acceptor.answer(hello(1)), Err(HandshakeError::Over));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let trust = secret("very secret");
    let config = config(DIALER, trust);
    let (handshake, _) = Handshake::dialer(config.clone(), hello(1), [1; 32]).expect("dials");
    assert!(format!("{config:?}").contains("Secret(…)"));
    assert!(!format!("{handshake:?}").contains("secret"));
}

#[test]
fn a_handshake_moves_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Handshake>();
}
