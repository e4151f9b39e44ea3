//! Descriptions that are right, and what is said of those that are not.

use super::*;

fn said(text: &str) -> String {
    NetworkConfig::from_json(text).unwrap_err().to_string()
}

#[test]
fn the_example_of_the_documentation_is_read() {
    let config = NetworkConfig::from_json(include_str!("example.json")).unwrap();
    assert_eq!(config.world_size(), 4);
    assert_eq!(config[0].device.as_deref(), Some("mlx5_0"));
    assert_eq!(config[3].device, None);
    assert_eq!(NetworkConfig::from_json(&config.to_json()).unwrap(), config);
}

#[test]
fn ranks_are_sorted_and_names_of_other_systems_are_understood() {
    let text = r#"{"hosts": [
        {"hostname": "b", "port": 1, "ibdev": "mlx5_1", "rankid": 1, "comment": "second"},
        {"host": "a", "port": 1, "device": "auto", "rank": 0},
        {"host": "[fe80::1%eth0]", "port": 1, "device": null, "rank": 2}]}"#;
    let config = NetworkConfig::from_json(text).unwrap();
    let hosts: Vec<&str> = config.iter().map(NodeConfig::bare_host).collect();
    assert_eq!(hosts, ["a", "b", "fe80::1%eth0"]);
    assert_eq!(config[0].device, None);
    assert_eq!(config[1], NodeConfig::new(1, "b", 1).device("mlx5_1").comment("second"));
    assert_eq!(config.clone().truncate(2).unwrap().world_size(), 2);
    assert_eq!(config.clone().truncate(9).unwrap(), config);
    assert_eq!(config.truncate(0).unwrap_err().fault, ConfigFault::Empty);
}

#[test]
fn an_error_names_line_rank_cause_and_remedy() {
    let two = |a: &str, b: &str| format!("{{\"nodes\": [\n {{{a}}},\n {{{b}}}\n]}}");
    let first = r#""rank": 0, "host": "a", "port": 7"#;
    let cases = [
        ("{\"nodes\": []}".to_owned(), "line 1: a job has at least one rank"),
        (
            two(first, r#""rank": 0, "host": "b", "port": 7"#),
            "line 3: rank 0: the entry of line 2 has the same rank",
        ),
        (two(first, r#""rank": 2, "host": "b", "port": 7"#), "line 3: rank 2: rank 1 is missing before it"),
        (
            two(r#""rank": 2, "host": "b", "port": 7"#, r#""rank": 1, "host": "b", "port": 7"#),
            "line 3: rank 1: it is the lowest; ranks begin with 0",
        ),
        (
            two(first, r#""rank": 1, "host": "A", "port": 7"#),
            "line 3: rank 1: rank 0 has host A and port 7 too",
        ),
        (
            two(first, r#""rank": 1, "hots": "b", "port": 7"#),
            "line 3: unknown field \"hots\"; did you mean \"host\"?",
        ),
        (two(first, r#""rank": 1, "Port": 7, "host": "b""#), "did you mean \"port\"?"),
        (two(first, r#""rank": 1, "colour": 7"#), "unknown field \"colour\"; known are rank, host"),
        (two(first, r#""rank": 1, "port": 7"#), "line 3: rank 1: the field \"host\" is missing; add it"),
        (two(first, r#""host": "b", "port": 7"#), "line 3: the field \"rank\" is missing"),
        (
            two(first, r#""rank": 1, "host": "b", "port": 70000"#),
            "line 3: rank 1: 70000 is no port; use a number",
        ),
        (two(first, r#""rank": 1, "host": "b", "port": 0"#), "line 3: rank 1: 0 is no port"),
        (
            two(first, r#""rank": -1, "host": "b", "port": 1"#),
            "line 3: the field \"rank\" is -1; it must be a number",
        ),
        (two(first, r#""rank": 1, "host": "b:7", "port": 1"#), "the port has a field of its own"),
        (two(first, r#""rank": 1, "host": " ", "port": 1"#), "the host \"\" is empty"),
        (
            two(first, r#""rank": 1, "host": 5, "port": 1"#),
            "rank 1: the field \"host\" is 5; it must be a text",
        ),
        (two(first, r#""rank": 1, "rankid": 1"#), "line 3: the field \"rank\" stands there twice"),
        ("{\n\"nodes\": [}".to_owned(), "line 2: not JSON"),
        ("[]".to_owned(), "line 1: the field \"the description\" is []; it must be an object"),
        ("{}".to_owned(), "line 1: the field \"nodes\" is missing"),
        ("{\"nodes\": [3]}".to_owned(), "the field \"nodes\" is 3; it must be an object"),
        ("{\"node\": []}".to_owned(), "did you mean \"nodes\"?"),
    ];
    for (text, expected) in cases {
        let said = said(&text);
        assert!(said.contains(expected), "{text}\n said: {said}\n not: {expected}");
    }
}

#[test]
fn a_built_description_is_checked_like_a_read_one() {
    let node = |rank| NodeConfig::new(rank, format!("n{rank}"), 9);
    let built = |ranks: &[u32]| {
        ranks.iter().map(|&rank| node(rank)).fold(NetworkConfig::builder(), |all, one| all.add_node(one))
    };
    assert_eq!(built(&[]).build().unwrap_err().fault, ConfigFault::Empty);
    assert_eq!(built(&[1, 2]).build().unwrap_err().fault, ConfigFault::FirstRankNotZero);
    assert_eq!(built(&[0, 0]).build().unwrap_err().fault, ConfigFault::DuplicatedRank { first_line: None });
    assert_eq!(built(&[3, 0, 1]).build().unwrap_err().fault, ConfigFault::Gap { missing: 2 });
    assert_eq!(built(&[0, 1, 3]).truncate(2).build().unwrap().world_size(), 2);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let said = NetworkConfig::from_file("/nowhere/at/all.json").unwrap_err().to_string();
    assert!(said.starts_with("/nowhere/at/all.json: cannot be read: "), "{said}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]{}:,\" 0-9a-z\\n\u{e4}-]{0,200}") {
        let _ = NetworkConfig::from_json(&text);
        let _ = NetworkConfig::from_json(&format!("{{\"nodes\":[{{{text}}}]}}"));
    }
}
