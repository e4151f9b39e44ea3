//! Addresses there and back, byte by byte, and what is none.

use super::*;
use proptest::prelude::*;

const TEXT: &str =
    "sinew:1:00112233445566778899aabbccddeeff:5f3c9a:@results,tcp:10.0.0.1:4000,uds:/run/a%2Cb.sock";

fn example() -> Address {
    let engine =
        [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
    let endpoint = EndpointRef::Name(Name::new("results").expect("a name"));
    let locators = vec!["tcp:10.0.0.1:4000".into(), "uds:/run/a,b.sock".into()];
    Address::new(engine, 0x005f_3c9a, endpoint, locators).expect("an address")
}

fn kind_and_position(text: &str) -> (AddressErrorKind, usize) {
    let error = text.parse::<Target>().expect_err(text);
    (error.kind, error.position)
}

#[test]
fn golden_text() {
    assert_eq!(example().to_string(), TEXT);
    assert_eq!(TEXT.parse(), Ok(example()));
    assert_eq!(TEXT.parse(), Ok(Target::Address(example())));
}

#[test]
fn golden_bytes() {
    let mut golden = Vec::new();
    golden.extend(b"SNWA");
    golden.extend([1, 0, 79, 0]);
    golden.extend([
        0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
    ]);
    golden.extend([0x9a, 0x3c, 0x5f, 0, 0, 0, 0, 0]);
    golden.extend([2, 7]);
    golden.extend(b"results");
    golden.extend([3, 17]);
    golden.extend(b"tcp:10.0.0.1:4000");
    golden.extend([3, 17]);
    golden.extend(b"uds:/run/a,b.sock");
    assert_eq!(example().to_bytes(), golden);
    golden.push(0xee);
    assert_eq!(Address::from_bytes(&golden), Ok((example(), 79)));
    let numbered = example().with_endpoint(EndpointRef::from(0x0102_0304)).to_bytes();
    assert_eq!(numbered[32..38], [1, 4, 4, 3, 2, 1]);
}

#[test]
fn unknown_optional_parts_are_skipped_and_required_ones_are_an_error() {
    let text = TEXT.replace(",tcp", ",mtu=9000%2C1,tcp");
    assert_eq!(text.parse(), Ok(example()));
    let text = TEXT.replace(",tcp", ",Mtu=9000,tcp");
    assert_eq!(kind_and_position(&text), (AddressErrorKind::UnknownPart, 57));
    let mut bytes = example().to_bytes();
    bytes.extend([0x70, 2, 9, 9]);
    bytes[6] += 4;
    assert_eq!(Address::from_bytes(&bytes), Ok((example(), 83)));
    bytes[79] = 0xf0;
    assert_eq!(Address::from_bytes(&bytes), Err(AddressErrorKind::UnknownPart.at(79)));
}

#[test]
fn what_is_wrong_is_named_with_its_position_and_an_example() {
    use AddressErrorKind as Kind;
    let engine = "00112233445566778899aabbccddeeff";
    for (text, kind, position) in [
        ("", Kind::NotAnAddress, 0),
        ("hello", Kind::NotAnAddress, 0),
        ("sinew:", Kind::NotAnAddress, 6),
        ("sinew:2:ffff", Kind::OtherVersion, 6),
        ("sinew:1:ff", Kind::BadEngine, 8),
        ("sinew:1:00000000000000000000000000000000:1:1", Kind::BadEngine, 8),
        ("sinew:1:0011223344556677é8899aabbccddeef:1:1", Kind::BadEngine, 8),
        (&format!("sinew:1:{engine}:xyz:1"), Kind::BadIncarnation, 41),
        (&format!("sinew:1:{engine}:1"), Kind::BadEndpoint, 42),
        (&format!("sinew:1:{engine}:1:4294967296"), Kind::BadEndpoint, 43),
        (&format!("sinew:1:{engine}:1:-1"), Kind::BadEndpoint, 43),
        (&format!("sinew:1:{engine}:1:@a/b"), Kind::BadName, 45),
        (&format!("sinew:1:{engine}:1:1,"), Kind::BadScheme, 45),
        (&format!("sinew:1:{engine}:1:1,tcp"), Kind::BadScheme, 48),
        (&format!("sinew:1:{engine}:1:1,TCP:x"), Kind::BadScheme, 45),
        (&format!("sinew:1:{engine}:1:1,tcp:"), Kind::BadBody, 49),
        (&format!("sinew:1:{engine}:1:1,tcp:%2"), Kind::BadEscape, 49),
        (&format!("sinew:1:{engine}:1:1,tcp:%00"), Kind::BadBody, 49),
        ("tcp://10.0.0.1", Kind::BadPort, 14),
        ("tcp://10.0.0.1:70000", Kind::BadPort, 15),
        ("tcp://::1:4000", Kind::BadHost, 6),
        ("tcp://[::g]:4000", Kind::BadHost, 6),
        ("tcp://:4000", Kind::BadHost, 6),
        ("tcp://h:1/a b", Kind::BadName, 11),
        ("uds://", Kind::BadBody, 6),
        ("uds:///x#@", Kind::BadName, 10),
        ("auto:", Kind::NotAnAddress, 5),
        ("auto:tcp://h:1,tcp", Kind::NotAnAddress, 15),
        ("auto:tcp://h:1/a,uds:///x#b", Kind::DifferentEndpoints, 17),
    ] {
        assert_eq!(kind_and_position(text), (kind, position), "{text}");
    }
    let text = "tcp://10.0.0.1".parse::<Target>().expect_err("no port").to_string();
    assert_eq!(
        text,
        "bad address at character 15: a port from 0 to 65535 must follow the host, as in 10.0.0.1:4000"
    );
    let many = format!("sinew:1:{engine}:1:1{}", ",tcp:x:1".repeat(33));
    assert_eq!(kind_and_position(&many).0, Kind::TooManyLocators);
}

#[test]
fn urls_name_transport_place_and_endpoint() {
    let name = |text: &str| EndpointRef::Name(Name::new(text).expect("a name"));
    for (text, locator, endpoint) in [
        ("tcp://10.0.0.1:4000", "tcp:10.0.0.1:4000", EndpointRef::Default),
        ("tcp://10.0.0.1:4000/", "tcp:10.0.0.1:4000", EndpointRef::Default),
        ("tcp://node-7.example:4000/results", "tcp:node-7.example:4000", name("results")),
        ("tcp://[fe80::1%25eth0]:4000/7", "tcp:[fe80::1%eth0]:4000", EndpointRef::from(7)),
        ("tcp://[::1]:0/@7", "tcp:[::1]:0", name("7")),
        ("uds:///run/app.sock#results", "uds:/run/app.sock", name("results")),
        ("uds:///run/a%23b.sock", "uds:/run/a#b.sock", EndpointRef::Default),
        ("shm:///run/app.sock#3", "shm:/run/app.sock", EndpointRef::from(3)),
        ("shm://trainer/results", "shm:trainer", name("results")),
        ("fi+tcp://10.0.0.1:9228/x", "fi+tcp:10.0.0.1:9228", name("x")),
    ] {
        let Ok(Target::Explicit(explicit)) = text.parse() else { panic!("{text}") };
        assert_eq!((explicit.locator(), explicit.endpoint()), (locator.into(), &endpoint), "{text}");
        assert_eq!(explicit.to_string().parse(), Ok(explicit));
    }
}

#[test]
fn a_list_means_one_endpoint_by_several_paths() {
    let text = "auto:shm:///run/a.sock,tcp://h:1/results,tcp://h:1";
    let Ok(Target::Auto { choices, endpoint }) = text.parse() else { panic!("a list") };
    let locators: Vec<String> = choices.iter().map(Explicit::locator).collect();
    assert_eq!(locators, ["shm:/run/a.sock", "tcp:h:1"]);
    assert!(choices.iter().all(|choice| *choice.endpoint() == endpoint));
    let list = Target::Auto { choices, endpoint };
    assert_eq!(list.to_string(), "auto:shm:///run/a.sock#@results,tcp://h:1/@results");
    assert_eq!(list.to_string().parse(), Ok(list));
}

fn endpoints() -> impl Strategy<Value = EndpointRef> {
    prop_oneof![
        any::<u32>().prop_map(EndpointRef::from),
        "[A-Za-z0-9._-]{1,64}".prop_map(|text| EndpointRef::Name(Name::new(text).expect("a name"))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_address_comes_back_from_text_and_bytes(
        engine in any::<[u8; 16]>().prop_filter("zero", |engine| *engine != [0; 16]),
        incarnation: u64,
        endpoint in endpoints(),
        locators in prop::collection::vec("[a-z][a-z0-9+-]{0,14}:[!-~]{1,200}", 0..33),
    ) {
        let address = Address::new(engine, incarnation, endpoint, locators).expect("an address");
        let text = address.to_string();
        let special = b"&;|<>()$`\\\"'*?#~!{}^";
        let one_word = text.bytes().all(|byte| byte.is_ascii_graphic() && !special.contains(&byte));
        prop_assert!(one_word, "{}", text);
        prop_assert_eq!(&text.parse::<Address>().expect("text"), &address);
        let bytes = address.to_bytes();
        prop_assert_eq!(Address::from_bytes(&bytes).expect("bytes"), (address, bytes.len()));
        for cut in [0, 7, 31, bytes.len() - 1] {
            prop_assert!(Address::from_bytes(&bytes[..cut.min(bytes.len() - 1)]).is_err());
        }
    }

    #[test]
    fn any_url_comes_back(scheme in "[a-z][a-z0-9+-]{0,14}", body in "[!-~]{1,200}", endpoint in endpoints()) {
        prop_assume!(scheme != "tcp" && scheme != "auto");
        let explicit = Explicit::new(scheme, body, endpoint).expect("a URL");
        prop_assert_eq!(explicit.to_string().parse::<Explicit>(), Ok(explicit));
    }

    #[test]
    fn any_text_is_an_address_or_an_error_within_it(text in "(sinew:1:|auto:|tcp://|uds:///)?[ -~é]{0,80}") {
        match text.parse::<Target>() {
            Ok(target) => prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target)),
            Err(error) => prop_assert!(error.position <= text.len()),
        }
    }

    #[test]
    fn any_bytes_are_an_address_or_an_error_within_them(rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"SNWA\x01\0".to_vec();
        bytes.extend(rest);
        match Address::from_bytes(&bytes) {
            Ok((address, len)) => {
                prop_assert!(len <= bytes.len());
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
            Err(error) => prop_assert!(error.position <= bytes.len()),
        }
    }
}

#[test]
fn an_address_says_what_it_was_made_of() {
    let locators = vec!["tcp:10.0.0.1:4000".to_owned(), "uds:/run/a.sock".to_owned()];
    let address = Address::new([7; 16], 9, EndpointRef::Default, locators.clone()).expect("an address");
    assert_eq!((address.engine(), address.incarnation()), ([7; 16], 9));
    assert_eq!((address.endpoint(), address.locators()), (&EndpointRef::Default, &locators[..]));
    let other = address.with_endpoint(EndpointRef::from(3));
    assert_eq!(other.endpoint(), &EndpointRef::from(3));
    assert_eq!((other.engine(), other.locators()), (address.engine(), address.locators()));
}

#[test]
fn a_packed_address_is_at_least_its_head() {
    let bare = Address::new([7; 16], 9, EndpointRef::Default, Vec::new()).expect("an address");
    let bytes = bare.to_bytes();
    assert_eq!(Address::from_bytes(&bytes), Ok((bare, bytes.len())));
    for short in [0, 1, bytes.len() - 1] {
        let mut lie = bytes.clone();
        lie[6..8].copy_from_slice(&(short as u16).to_le_bytes());
        assert_eq!(Address::from_bytes(&lie), Err(AddressErrorKind::Truncated.at(6)), "{short}");
    }
}

#[test]
fn a_number_has_no_sign() {
    let engine = "00112233445566778899aabbccddeeff";
    let wrong = [
        (format!("sinew:1:{engine}:+1f:1"), AddressErrorKind::BadIncarnation),
        (format!("sinew:1:{engine}:1f:+1"), AddressErrorKind::BadEndpoint),
        ("tcp://host:+80".to_owned(), AddressErrorKind::BadPort),
    ];
    for (text, kind) in wrong {
        assert_eq!(text.parse::<Target>().unwrap_err().kind, kind, "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_later_locator_is_found_at_its_place() {
    let head = "sinew:1:00112233445566778899aabbccddeeff:1:1";
    let at = |tail: &str| kind_and_position(&format!("{head},tcp:x:1,{tail}"));
    let first = head.len() + 1 + "tcp:x:1,".len();
    assert_eq!(at("Must=1"), (AddressErrorKind::UnknownPart, first));
    assert_eq!(at("tcp:%2"), (AddressErrorKind::BadEscape, first + 4));
    assert_eq!(at("TCP:x"), (AddressErrorKind::BadScheme, first));
    let many = format!("{head}{}", ",tcp:x:1".repeat(33));
    assert_eq!(kind_and_position(&many), (AddressErrorKind::TooManyLocators, head.len() + 1 + 32 * 8));
}

#[test]
fn a_url_says_what_it_was_made_of() {
    let url = Explicit::new("tcp", "10.0.0.1:4000", EndpointRef::from(7)).unwrap();
    assert_eq!((url.scheme(), url.body(), url.endpoint()), ("tcp", "10.0.0.1:4000", &EndpointRef::from(7)));
}

#[test]
fn choices_that_share_a_scheme_or_a_body_are_different_ones() {
    let Ok(Target::Auto { choices, .. }) = "auto:uds:///run/a,uds:///run/b,shm:///run/b,uds:///run/a".parse()
    else {
        panic!("a list");
    };
    let texts: Vec<String> = choices.iter().map(Explicit::to_string).collect();
    assert_eq!(texts, ["uds:///run/a", "uds:///run/b", "shm:///run/b"]);
}
