//! The bytes of the exchange, and connections without sockets: hostile input among it.

use super::super::heard::What;
use super::super::wire::{GREETING_LEN, Greeting, Kind, RECORD_LEN, Reason, Record, Seal, Side, Unopened};
use super::*;
use proptest::prelude::*;

fn record() -> Record {
    Record {
        kind: Kind::Hello,
        world_size: 4,
        rank: 3,
        peer: 1,
        value_len: 0x0102,
        round: 7,
        job: [0xaa; 32],
        incarnation: 0x1122_3344_5566_7788,
        value_digest: [0xbb; 32],
    }
}

fn greeting(nonce: u8) -> Greeting {
    Greeting::new(Mode::Secret, [nonce; 16])
}

#[test]
fn the_bytes_are_as_the_page_says() {
    let mut golden = b"SINEWNET\x01\x01\x01\0\0\0\0\0".to_vec();
    golden.extend([9; 16]);
    assert_eq!(greeting(9).to_bytes()[..], golden);

    let sealed = Seal::new(&[5; 32], &greeting(1), &greeting(2)).seal(Side::Dialer, &record());
    let mut golden = vec![1, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 7, 0, 0, 0];
    golden.extend([0xaa; 32]);
    golden.extend([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    golden.extend([0xbb; 32]);
    assert_eq!(sealed[..96], golden);
    assert!(sealed[96..] != [0; 32]);
    let refusal = Record { kind: Kind::Refusal(Reason::OtherJob), ..record() };
    assert_eq!(Seal::new(&[5; 32], &greeting(1), &greeting(2)).seal(Side::Acceptor, &refusal)[..2], [3, 1]);
}

#[test]
fn i17_a_pair_exchanges_once_and_only_what_is_meant_for_the_other() {
    let (low, high) = (local(1, 5, "job", None), local(3, 5, "job", None));
    let (mut dialer, mut acceptor) = (Talker::dialer(&high, 1), Talker::acceptor(&low));
    speak(&mut dialer, &mut acceptor, |_, _, _| {});
    assert!(dialer.is_finished() && acceptor.is_finished());
    assert_eq!(dialer.value(), Some(&value(1, 3)[..]));
    assert_eq!(acceptor.value(), Some(&value(3, 1)[..]));
    assert_eq!(dialer.written.len(), GREETING_LEN + 2 * RECORD_LEN + value(3, 1).len());
    assert_eq!(acceptor.written.len(), GREETING_LEN + 2 * RECORD_LEN + value(1, 3).len());
}

/// Who refuses whom with what, for a dialer of rank 3 that wants rank 1.
fn refused(dialer: &Local, acceptor: &Local) -> (What, What) {
    let (mut dialer, mut acceptor) = (Talker::dialer(dialer, 1), Talker::acceptor(acceptor));
    speak(&mut dialer, &mut acceptor, |_, _, _| {});
    assert!(!dialer.is_finished() && !acceptor.is_finished());
    assert!(dialer.value().is_none() && acceptor.value().is_none());
    (dialer.ended.unwrap().what, acceptor.ended.unwrap().what)
}

#[test]
fn i16_every_refusal_is_said_on_both_sides() {
    let good = || local(3, 5, "job", None);
    let here = local(1, 5, "job", None);
    let cases = [
        (local(3, 5, "earlier job", None), Reason::OtherJob),
        (local(3, 4, "job", None), Reason::OtherWorldSize),
        (local(0, 5, "job", None), Reason::NotThatRank),
        (Local { rank: 77, ..good() }, Reason::NotThatRank),
        (Local { round: 2, ..good() }, Reason::OtherRound),
        (Local { values: vec![vec![0; 5000]; 5], ..good() }, Reason::TooLarge),
    ];
    for (dialer, reason) in cases {
        let (at_dialer, at_acceptor) = refused(&dialer, &here);
        assert!(
            matches!(at_dialer, What::Refused { reason: r, proven: true, .. } if r == reason),
            "{at_dialer:?}"
        );
        assert!(matches!(at_acceptor, What::Refuses { reason: r, .. } if r == reason), "{at_acceptor:?}");
    }
    let mut taken = local(1, 5, "job", None);
    taken.incarnations[3] = Some(1);
    let (at_dialer, _) = refused(&good(), &taken);
    assert!(matches!(at_dialer, What::Refused { reason: Reason::RankTaken, .. }), "{at_dialer:?}");
    // The right job, and another rank than the one that was dialled.
    let (at_dialer, _) = refused(&good(), &local(2, 5, "job", None));
    assert!(matches!(at_dialer, What::Refused { reason: Reason::NotThatRank, .. }), "{at_dialer:?}");
}

#[test]
fn i16_without_the_secret_nothing_is_interpreted_and_both_sides_know() {
    let (ours, theirs) = (local(1, 5, "job", Some("right")), local(3, 5, "job", Some("wrong")));
    let (at_dialer, at_acceptor) = refused(&theirs, &ours);
    let not_proven = What::Refused { reason: Reason::Proof, proven: false, theirs: None };
    assert_eq!(at_dialer, not_proven);
    assert_eq!(at_acceptor, What::Refuses { reason: Reason::Proof, rank: None, theirs: None });
    let (at_dialer, at_acceptor) = refused(&local(3, 5, "job", None), &ours);
    assert_eq!(at_dialer, What::OtherMode { ours_has_secret: false });
    assert_eq!(at_acceptor, What::OtherMode { ours_has_secret: true });
}

#[test]
fn i16_a_record_cannot_be_thrown_back_or_used_again() {
    let seal = Seal::new(&[5; 32], &greeting(1), &greeting(2));
    let sealed = seal.seal(Side::Dialer, &record());
    assert_eq!(seal.open(Side::Dialer, &sealed), Ok(record()));
    assert_eq!(seal.open(Side::Acceptor, &sealed), Err(Unopened::Proof));
    let later = Seal::new(&[5; 32], &greeting(1), &greeting(3));
    assert_eq!(later.open(Side::Dialer, &sealed), Err(Unopened::Proof));
    let other = Seal::new(&[6; 32], &greeting(1), &greeting(2));
    assert_eq!(other.open(Side::Dialer, &sealed), Err(Unopened::Proof));
}

#[test]
fn i16_an_acceptor_that_answers_as_another_rank_ends_the_connection_only() {
    let dialer = local(3, 5, "job", None);
    let mut talker = Talker::dialer(&dialer, 1);
    let theirs = Greeting::new(Mode::Open, [8; 16]);
    let said = talker.say();
    let ours = Greeting::from_bytes(said.first_chunk().unwrap()).unwrap();
    talker.hear(&theirs.to_bytes());
    let seal = Seal::new(&dialer.key, &ours, &theirs);
    let lie = Record { kind: Kind::Hello, rank: 4, peer: 3, ..record() };
    let lie = Record { world_size: 5, job: dialer.job, round: 1, value_len: 3, ..lie };
    talker.hear(&seal.seal(Side::Acceptor, &lie));
    let what = talker.ended.unwrap().what;
    assert!(matches!(what, What::Refuses { reason: Reason::NotThatRank, rank: Some(4), .. }), "{what:?}");
    assert!(
        !talker.written.windows(5).any(|part| part == b"of 3 "),
        "a value was given to whom it is not meant for"
    );
}

#[test]
fn empty_values_are_values() {
    let bare = |rank| {
        let mut local = local(rank, 2, "job", Some("secret"));
        local.values = vec![Vec::new(); 2];
        local.digests = vec![wire::value_digest(&[]); 2];
        local
    };
    let (low, high) = (bare(0), bare(1));
    let (mut dialer, mut acceptor) = (Talker::dialer(&high, 0), Talker::acceptor(&low));
    speak(&mut dialer, &mut acceptor, |_, _, _| {});
    assert!(dialer.is_finished() && acceptor.is_finished());
    assert_eq!((dialer.value(), acceptor.value()), (Some(&[][..]), Some(&[][..])));
}

proptest! {
    #[test]
    fn any_bytes_parse_or_are_refused(bytes in proptest::array::uniform32(any::<u8>()), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic {
            bytes[..8].copy_from_slice(b"SINEWNET");
        }
        if let Ok(greeting) = Greeting::from_bytes(&bytes) {
            prop_assert_eq!(greeting.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_proven_record_of_any_bytes_is_the_same_again_or_refused(
        body in proptest::collection::vec(any::<u8>(), 96), kind in 0..5_u8, reason in 0..12_u8,
    ) {
        // Proven bytes: what a rank with the secret could send at worst.
        let mut body = body;
        body[..4].copy_from_slice(&[kind, reason, 0, 0]);
        let seal = Seal::new(&[5; 32], &greeting(1), &greeting(2));
        let mut bytes = [0; RECORD_LEN];
        bytes[..96].copy_from_slice(&body);
        bytes[96..].copy_from_slice(&seal.proof(Side::Dialer, &body));
        if let Ok(record) = seal.open(Side::Dialer, &bytes) {
            prop_assert_eq!(seal.seal(Side::Dialer, &record), bytes);
        }
    }

    #[test]
    fn i16_no_bytes_make_a_connection_panic_or_want_more_than_the_limit(
        bytes in proptest::collection::vec(any::<u8>(), 0..600), dials in any::<bool>(), greets in any::<bool>(),
    ) {
        let local = local(1, 3, "job", None);
        let mut talker = if dials { Talker::dialer(&local, 0) } else { Talker::acceptor(&local) };
        if greets {
            talker.hear(&Greeting::new(Mode::Open, [7; 16]).to_bytes());
        }
        talker.hear(&bytes);
        prop_assert!(talker.connection.wanted() <= local.value_max);
        prop_assert!(!talker.is_finished());
        let answered = talker.say();
        prop_assert!(greets || dials || answered.is_empty(), "a stranger was answered");
    }

    #[test]
    fn i16_a_byte_that_was_changed_on_the_way_changes_no_value(
        at in 0..700_usize, bit in 0..8_u32, by_dialer in any::<bool>(),
    ) {
        let (low, high) = (local(0, 2, "job", Some("s")), local(1, 2, "job", Some("s")));
        let (mut dialer, mut acceptor) = (Talker::dialer(&high, 0), Talker::acceptor(&low));
        speak(&mut dialer, &mut acceptor, |from_dialer, before, bytes| {
            if from_dialer == by_dialer && at >= before && at < before + bytes.len() {
                bytes[at - before] ^= 1 << bit;
            }
        });
        for (talker, expected) in [(&dialer, value(0, 1)), (&acceptor, value(1, 0))] {
            prop_assert!(talker.value().is_none_or(|value| value == expected));
        }
        let whole = if by_dialer { dialer.written.len() } else { acceptor.written.len() };
        prop_assert!(at >= whole || !(dialer.is_finished() && acceptor.is_finished()), "byte {}", at);
    }

    #[test]
    fn it_does_not_matter_in_which_pieces_bytes_arrive(piece in 1..200_usize) {
        let (low, high) = (local(0, 2, "job", None), local(1, 2, "job", None));
        let (mut dialer, mut acceptor) = (Talker::dialer(&high, 0), Talker::acceptor(&low));
        for _ in 0..10 {
            let said = dialer.say();
            said.chunks(piece).for_each(|part| assert_eq!(acceptor.hear(part), part.len()));
            let said = acceptor.say();
            said.chunks(piece).for_each(|part| assert_eq!(dialer.hear(part), part.len()));
        }
        prop_assert!(dialer.is_finished() && acceptor.is_finished());
    }
}
