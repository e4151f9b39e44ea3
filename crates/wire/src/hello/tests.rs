//! Records byte by byte, and what is not one.

use super::*;

fn header() -> Header {
    Header {
        kind: RecordKind::FIRST,
        mode: Mode::PLAIN,
        versions: Versions { min: 1, max: 3 },
        features: 0x0102_0304_0506_0708,
        required: 0x8000_0000_0000_0001,
    }
}

fn hello() -> Hello {
    Hello {
        engine: *b"0123456789abcdef",
        incarnation: 0x1122_3344_5566_7788,
        domain: [0xd0; 32],
        expected_engine: *b"fedcba9876543210",
        expected_incarnation: 0x99,
        epoch: 7,
        resumes: true,
        credits: Credits {
            session_bytes: 1 << 20,
            endpoint_bytes: 1 << 18,
            session_envelopes: 65_536,
            endpoint_envelopes: 4096,
        },
        frame_max: 8192,
        process: 4711,
        lane: 2,
        encryption_wanted: true,
        pinned: String::new(),
        locators: "tcp:10.0.0.1:4000 uds:/run/x".into(),
    }
}

#[test]
fn golden_bytes_of_the_header() {
    let golden: [u8; HEADER_LEN] = [
        b'S', b'I', b'N', b'E', b'W', b'H', b'E', b'L', // magic
        1, 2, // first record, plain
        1, 0, 3, 0, // versions 1 to 3
        0, 0, // zero
        8, 7, 6, 5, 4, 3, 2, 1, // features
        1, 0, 0, 0, 0, 0, 0, 0x80, // required
    ];
    let record = header().record();
    assert_eq!(record[..HEADER_LEN], golden);
    assert!(record[HEADER_LEN..].iter().all(|byte| *byte == 0));
    assert_eq!(Header::read(&record), Ok(header()));
}

#[test]
fn golden_bytes_of_the_content() {
    let mut golden = Vec::new();
    golden.extend([1, 2, 1, 0, 3, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0x80]);
    golden.extend(b"0123456789abcdef");
    golden.extend([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    golden.extend([0xd0; 32]);
    golden.extend(b"fedcba9876543210");
    golden.extend([0x99, 0, 0, 0, 0, 0, 0, 0]);
    golden.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    golden.extend([0, 0, 0x10, 0, 0, 0, 0, 0]);
    golden.extend([0, 0, 0x04, 0, 0, 0, 0, 0]);
    golden.extend([0, 0, 1, 0]);
    golden.extend([0, 0x10, 0, 0]);
    golden.extend([0, 0x20, 0, 0]);
    golden.extend([0x67, 0x12, 0, 0]);
    golden.extend([2, 0, 0, 0]);
    golden.extend([3, 0, 0, 0]);
    golden.extend([1, 28]);
    golden.extend(b"tcp:10.0.0.1:4000 uds:/run/x");
    golden.resize(HELLO_LEN, 0);
    let record = header().record();
    let content = hello().encode(&record);
    assert_eq!(content[..], golden[..]);
    assert_eq!(Hello::decode(&content, &record), Ok(hello()));
}

#[test]
fn golden_bytes_of_a_session_that_is_pinned() {
    let record = header().record();
    let pinned = Hello { pinned: "tcp".into(), ..hello() };
    let content = pinned.encode(&record);
    let mut golden = hello().encode(&record);
    golden[152..187].copy_from_slice(b"\x82\x03tcp\x01\x1ctcp:10.0.0.1:4000 uds:/run/x");
    assert_eq!(content, golden);
    assert_eq!(Hello::decode(&content, &record), Ok(pinned));
}

#[test]
fn a_pinned_session_is_named_once_and_by_a_name_of_a_transport() {
    let record = header().record();
    let read = |parts: &[u8]| {
        let mut content = hello().encode(&record);
        content[152..].fill(0);
        content[152..152 + parts.len()].copy_from_slice(parts);
        Hello::decode(&content, &record).map(|hello| hello.pinned)
    };
    assert_eq!(read(b"\x82\x0ffi+verbs-and-09"), Ok("fi+verbs-and-09".into()));
    for bad in [
        &b"\x82\x00"[..],
        b"\x82\x10abcdefghijklmnop",
        b"\x82\x03TCP",
        b"\x82\x03tc\x00",
        b"\x82\x03tc\xff",
        b"\x82\xff",
        b"\x82\x03tcp\x82\x03shm",
        b"\x82\x03tcp\x82\x03tcp",
    ] {
        assert_eq!(read(bad), Err(HelloError::BadTransportName), "{bad:?}");
    }
    let wrong = Hello { pinned: "no name of a transport".into(), ..hello() };
    assert_eq!(Hello::decode(&wrong.encode(&record), &record), Err(HelloError::BadTransportName));
    // Whoever skips it would take the lane for one of the implicit session.
    assert_ne!(PART_PINNED & PART_REQUIRED, 0);
}

#[test]
fn a_pinned_hello_keeps_room_for_all_locators() {
    let record = header().record();
    let full = Hello { pinned: "x".repeat(PINNED_MAX), locators: "y".repeat(LOCATORS_MAX), ..hello() };
    assert_eq!(Hello::decode(&full.encode(&record), &record), Ok(full));
}

#[test]
fn golden_bytes_of_a_refusal() {
    let refusal = Refusal {
        reason: Reason::OTHER_VERSION,
        versions: Versions { min: 2, max: 2 },
        modes: Mode::SECRET.with(Mode::PLAIN),
        text: "too old".into(),
    };
    let mut golden = Vec::new();
    golden.extend(b"SINEWHEL");
    golden.extend([4, 3, 2, 0, 2, 0, 0, 0]);
    golden.extend([0; 16]);
    golden.extend([3, 0, 7, 0]);
    golden.extend(b"too old");
    golden.resize(RECORD_LEN, 0);
    let record = refusal.encode();
    assert_eq!(record[..], golden[..]);
    let read = Header::read(&record).expect("a record");
    assert_eq!(Refusal::decode(&read, &record), refusal);
}

#[test]
fn the_text_of_a_refusal_never_carries_control_characters_and_is_cut() {
    let refusal = Refusal {
        reason: Reason(999),
        versions: Versions::THIS,
        modes: Mode(0),
        text: "\u{1b}[2Jx".repeat(100),
    };
    let mut record = refusal.encode();
    let header = Header::read(&record).expect("a record");
    body_mut(&mut record)[2] = 255;
    body_mut(&mut record)[10] = 0x07;
    let read = Refusal::decode(&header, &record);
    assert_eq!(read.text.len(), REFUSAL_TEXT_MAX);
    assert!(read.text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
    assert_eq!(read.reason.to_string(), "Unknown(0x03e7)");
}

#[test]
fn unknown_optional_parts_are_skipped_and_required_ones_are_an_error() {
    let record = header().record();
    let mut content = hello().encode(&record);
    let end = 152 + 2 + 28;
    content[end..end + 5].copy_from_slice(&[0x70, 3, 1, 2, 3]);
    assert_eq!(Hello::decode(&content, &record), Ok(hello()));
    content[end] = 0xf0;
    assert_eq!(Hello::decode(&content, &record), Err(HelloError::UnknownPart { part: 0xf0 }));
    content[end + 1] = 255;
    assert_eq!(Hello::decode(&content, &record), Err(HelloError::PartTooLong { at: end }));
}

#[test]
fn a_changed_header_no_engine_and_bad_locators_are_told_apart() {
    let record = header().record();
    let content = hello().encode(&record);
    let mut other = record;
    other[12] = 1;
    assert_eq!(Hello::decode(&content, &other), Err(HelloError::EchoDiffers));
    let mut none = content;
    none[24..40].fill(0);
    assert_eq!(Hello::decode(&none, &record), Err(HelloError::NoEngine));
    let mut bad = content;
    bad[160] = 0x1b;
    assert_eq!(Hello::decode(&bad, &record), Err(HelloError::BadLocators));
    let mut empty = record;
    empty[10] = 9;
    assert!(matches!(Header::read(&empty), Err(HelloError::EmptyVersions { .. })));
    empty[0] = 0;
    assert_eq!(Header::read(&empty), Err(HelloError::NotARecord));
}

#[test]
fn locators_that_do_not_fit_are_left_out_whole() {
    let record = header().record();
    let mut long = hello();
    long.locators = (0..40).map(|n| format!("tcp:10.0.0.{n}:4000")).collect::<Vec<_>>().join(" ");
    let read = Hello::decode(&long.encode(&record), &record).expect("content");
    assert!(read.locators.len() <= LOCATORS_MAX && read.locators.ends_with(":4000"));
    assert!(long.locators.starts_with(&read.locators));
    long.locators = "x".repeat(300);
    assert_eq!(Hello::decode(&long.encode(&record), &record).expect("content").locators, "");
}

#[test]
fn the_newest_common_version_is_chosen() {
    let range = |min, max| Versions { min, max };
    assert_eq!(range(1, 3).common(range(2, 9)), Some(3));
    assert_eq!(range(2, 9).common(range(1, 3)), Some(3));
    assert_eq!(range(1, 1).common(range(2, 3)), None);
    assert_eq!(range(4, 5).common(range(2, 3)), None);
}

#[test]
fn modes_are_sets() {
    let both = Mode::SECRET.with(Mode::PLAIN);
    assert_eq!((both, both.with(Mode::PLAIN)), (Mode(3), Mode(3)));
    assert!(both.contains(Mode::SECRET) && both.contains(both) && Mode::PLAIN.contains(Mode(0)));
    assert!(!Mode::SECRET.contains(Mode::PLAIN) && !Mode::PLAIN.contains(both) && !Mode(0).contains(both));
}

#[test]
fn what_stands_in_messages_for_people() {
    let kinds = [1, 2, 3, 4, 9].map(|kind| RecordKind(kind).to_string());
    assert_eq!(
        kinds,
        ["first record", "second record", "third record", "refusal", "record of unknown kind 9"]
    );
    assert_eq!(format!("{:?}", RecordKind::FIRST), "first record");
    let modes = [0, 1, 2, 3, 9].map(|mode| Mode(mode).to_string());
    assert_eq!(modes, ["nothing", "proof by secret", "plain", "proof by secret or plain", "unknown mode 9"]);
    assert_eq!(format!("{:?}", Mode::PLAIN), "plain");
    assert_eq!(Versions { min: 1, max: 1 }.to_string(), "1");
    assert_eq!(Versions { min: 1, max: 3 }.to_string(), "1 to 3");
    for (error, part) in [
        (HelloError::NotARecord, "something else"),
        (HelloError::EmptyVersions { versions: Versions { min: 3, max: 1 } }, "(3 > 1)"),
        (HelloError::EchoDiffers, "changed on the way"),
        (HelloError::NoEngine, "identity is zero"),
        (HelloError::PartTooLong { at: 40 }, "byte 40"),
        (HelloError::UnknownPart { part: 0x91 }, "part 0x91"),
        (HelloError::BadLocators, "250"),
        (HelloError::BadTransportName, "1 to 15"),
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn each_flag_is_one_of_its_own() {
    let record = header().record();
    for (resumes, encryption_wanted) in [(false, false), (true, false), (false, true), (true, true)] {
        let said = Hello { resumes, encryption_wanted, ..hello() };
        let heard = Hello::decode(&said.encode(&record), &record).unwrap();
        assert_eq!((heard.resumes, heard.encryption_wanted), (resumes, encryption_wanted));
    }
}

#[test]
fn a_locator_that_just_fits_is_not_left_out_with_the_next() {
    let record = header().record();
    let first = format!("tcp:{}", "a".repeat(LOCATORS_MAX - 4));
    let said = Hello { locators: format!("{first} uds:/x"), ..hello() };
    assert_eq!(Hello::decode(&said.encode(&record), &record).unwrap().locators, first);
}

#[test]
fn parts_are_read_up_to_the_end_of_the_record_and_not_beyond() {
    let record = header().record();
    let content = hello().encode(&record);
    let mut full = content;
    full[182..184].copy_from_slice(&[0x70, 247]);
    full[431] = 7;
    assert_eq!(Hello::decode(&full, &record), Ok(hello()), "one byte is no part");
    let mut late = content;
    late[152..].fill(0);
    late[152..154].copy_from_slice(&[0x70, 100]);
    late[254..284].copy_from_slice(&content[152..182]);
    assert_eq!(Hello::decode(&late, &record), Ok(hello()), "the last part");
}

#[test]
fn locators_are_cut_between_characters() {
    let record = header().record();
    let long = Hello { locators: format!("{} {}", "a".repeat(LOCATORS_MAX - 2), "é".repeat(3)), ..hello() };
    let heard = Hello::decode(&long.encode(&record), &record).unwrap();
    assert_eq!(heard.locators, "a".repeat(LOCATORS_MAX - 2));
}

#[test]
fn a_refusal_says_why_to_people_and_whether_to_try_again() {
    let refusal = |reason, text: &str| {
        let versions = Versions { min: 1, max: 1 };
        Refusal { reason, versions, modes: Mode::PLAIN, text: text.to_owned() }.to_string()
    };
    assert_eq!(refusal(Reason::FULL, ""), "full (it speaks version 1 and takes plain)");
    assert_eq!(refusal(Reason::FULL, "later"), "full: later (it speaks version 1 and takes plain)");
    assert_eq!(format!("{:?} {:?}", Reason::FENCED, Reason(0x99)), "session has ended Unknown(0x0099)");
    assert!(Reason::FULL.is_retryable() && !Reason::FENCED.is_retryable());
}
