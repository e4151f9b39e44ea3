//! Each finding in others (R1 to R15, I1 to I21) has a test of its number, and what those tests' heads and the documentation name exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files of a folder.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of this crate") {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Names of the tests in a text: of functions behind `#[test]`, with other attributes between, and of those in `proptest!`.
fn tests_in(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            if is_test {
                names.insert(rest.split('(').next().unwrap_or(rest).to_owned());
            }
            is_test = false;
        } else if !line.starts_with("#[") {
            is_test = false;
        }
    }
    names
}

fn all_tests() -> BTreeSet<String> {
    let mut list = Vec::new();
    files(&here().join("src"), &mut list);
    files(&here().join("tests"), &mut list);
    list.iter().flat_map(|path| tests_in(&read(path))).collect()
}

/// Rows of the table at the head of a file: the finding, and the text that names its tests.
fn rows(file: &str) -> Vec<(String, String)> {
    let text = read(here().join("tests").join(file));
    let cells = |line: &str| {
        let mut cells = line.strip_prefix("//! | ")?.split(" | ");
        let (finding, tests) = (cells.next()?, cells.next()?);
        let finding = finding.split(' ').next()?;
        let digits = finding.get(1..)?;
        digits.parse::<u32>().ok()?;
        Some((finding.to_owned(), tests.to_owned()))
    };
    text.lines().filter_map(cells).collect()
}

#[test]
fn every_finding_has_a_row_and_a_test_of_its_number() {
    let tests = all_tests();
    for (file, letter, count) in [("faults_r.rs", 'R', 15), ("faults_i.rs", 'I', 21)] {
        let rows = rows(file);
        let named: Vec<_> = rows.iter().map(|(finding, _)| finding.clone()).collect();
        let wanted: Vec<_> = (1..=count).map(|number| format!("{letter}{number}")).collect();
        assert_eq!(named, wanted, "the table of {file}");
        for finding in wanted {
            let prefix = format!("{}_", finding.to_lowercase());
            assert!(tests.iter().any(|test| test.starts_with(&prefix)), "no test begins with {prefix}");
        }
    }
}

#[test]
fn what_the_heads_of_findings_name_exists() {
    let tests = all_tests();
    let mut looked_at = 0;
    for (finding, text) in rows("faults_r.rs").into_iter().chain(rows("faults_i.rs")) {
        for name in text.split('`').skip(1).step_by(2) {
            looked_at += 1;
            let last = name.rsplit("::").next().unwrap_or(name);
            let exists = if let Some(prefix) = last.strip_suffix('…') {
                tests.iter().any(|test| test.starts_with(prefix))
            } else if name.contains('/') || name.ends_with(".rs") {
                ["", "tests", "tests/compile_fail"].iter().any(|at| here().join(at).join(name).exists())
            } else {
                tests.contains(last) || tests.iter().any(|test| test.starts_with(&format!("{last}_")))
            };
            assert!(exists, "{finding} names {name:?}, which does not exist");
        }
    }
    assert!(looked_at > 36, "each finding names something");
}

#[test]
fn r15_what_its_ci_could_not_run_runs_in_the_guest() {
    let suites = read(here().join("../../tests/vm/suites.toml"));
    let suites: Vec<&str> = suites.split("[[suite]]").skip(1).collect();
    for (what, file, test) in [
        ("atomics", "hub", "remote_memory_is_written_read_and_counted"),
        (
            "unreliable connections",
            "queue_pairs",
            "an_unreliable_connection_carries_messages_writes_and_words",
        ),
        ("datagrams", "hub", "a_datagram_reaches_whom_it_is_addressed_to_and_says_whose_it_is"),
        ("inline", "queue_pairs", "inline_bytes_are_taken_while_they_are_posted_from_several_pieces"),
    ] {
        assert!(tests_in(&read(here().join(format!("tests/{file}.rs")))).contains(test), "{what}: no {test}");
        let runs = suites.iter().any(|suite| {
            suite.contains("package = \"sinew-verbs\"")
                && suite.contains(&format!("test = \"{file}\""))
                && suite.contains("\"rxe\"")
                && suite.contains("SINEW_REQUIRE = \"verbs\"")
        });
        assert!(
            runs,
            "{what}: no suite of the guest runs tests/{file}.rs and lets nothing be skipped for want of a device"
        );
    }
}

#[test]
fn every_row_of_the_outcome_matrix_has_a_test_and_every_test_a_row() {
    let page = read(here().join("src/channel/mod.rs"));
    let rows = page.lines().filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |"));
    let named: BTreeSet<String> = rows
        .filter_map(|row| row.rsplit_once("| `")?.1.strip_suffix('`'))
        .filter(|name| !name.contains("::"))
        .map(str::to_owned)
        .collect();
    assert_eq!(named, tests_in(&read(here().join("tests/scope_matrix.rs"))));
    assert_eq!(named.len(), 8);
}

#[test]
fn everything_may_be_dropped_on_any_thread_and_handles_are_shared_by_threads() {
    use sinew_verbs::{Channel, Hub, Library, MultiChannel, ProtectionDomain};
    use sinew_verbs::{ah, channel, cm, cq, device, memory, qp, srq};
    fn shared<T: Send + Sync>() {}
    fn moves<T: Send>() {}
    shared::<Library>();
    shared::<device::DeviceList>();
    shared::<device::Context>();
    shared::<device::AsyncEvents>();
    shared::<ProtectionDomain>();
    shared::<memory::Memory>();
    shared::<memory::Buffer>();
    shared::<memory::BufferPool>();
    shared::<memory::BorrowedRegion<'static>>();
    shared::<memory::ExposedRegion>();
    shared::<memory::ExposedPart>();
    shared::<memory::ForeignRegion>();
    shared::<memory::DeviceMemory>();
    shared::<memory::MemoryWindow>();
    shared::<ah::AddressHandle>();
    shared::<cq::CompletionChannel>();
    shared::<cq::CompletionQueue>();
    moves::<cq::Poller>();
    shared::<srq::SharedReceiveQueue>();
    shared::<qp::QueuePair<qp::Rc>>();
    shared::<qp::PreparedQueuePair<qp::Ud>>();
    moves::<Hub<qp::Uc>>();
    moves::<sinew_verbs::hub::Prepared<qp::Rc>>();
    moves::<Channel>();
    moves::<channel::Submitted>();
    shared::<channel::Driver>();
    moves::<channel::PendingWork<'static>>();
    moves::<MultiChannel>();
    shared::<cm::EventChannel>();
    shared::<cm::Id<cm::Listening>>();
    shared::<cm::Id<cm::Established<qp::QueuePair<qp::Rc>>>>();
    shared::<cm::Connection>();
    shared::<cm::Group>();
    shared::<cm::Event>();
    shared::<cm::DatagramService>();
    #[cfg(feature = "network")]
    {
        use sinew_verbs::network;
        moves::<network::Node>();
        moves::<network::PreparedNode>();
        shared::<network::exchange::TcpExchange>();
    }
}
