//! What a step of the test command did, and how the words of the test runners become numbers.
//!
//! Reads the output of `cargo test` and `cargo nextest`; judges nothing beyond it.

use crate::process::Finished;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// A test that did not run, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Skip {
    pub(crate) name: String,
    pub(crate) reason: String,
}

/// The result of one step.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    /// One line per test that failed.
    pub(crate) failures: Vec<String>,
    pub(crate) skips: Vec<Skip>,
    /// Names of the tests that passed, as the runner prints them, the crate in front where it says so.
    pub(crate) passed_names: Vec<String>,
    /// Names of those among them that failed at first and passed when they were run again.
    pub(crate) flaky: Vec<String>,
    /// What else the reader should see.
    pub(crate) note: String,
}

impl Outcome {
    /// A step without tests of its own that went well: it counts as one.
    pub(crate) fn one(note: impl Into<String>) -> Self {
        Self { passed: 1, note: note.into(), ..Self::default() }
    }

    /// A step that failed as a whole.
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self { failures: vec![reason.into()], ..Self::default() }
    }

    /// A step that could not be done here.
    pub(crate) fn skipped(name: &str, reason: impl Into<String>) -> Self {
        Self { skips: vec![Skip { name: name.to_owned(), reason: reason.into() }], ..Self::default() }
    }

    /// Prints the result of a command that is one step.
    ///
    /// # Errors
    /// When something failed or nothing ran.
    pub(crate) fn conclude(self, name: &str) -> Result<()> {
        self.tell();
        println!("{name}: {}", self.note);
        println!("{} passed, {} failed, {} skipped", self.passed, self.failures.len(), self.skips.len());
        if !self.failures.is_empty() || self.passed == 0 {
            bail!("{name} failed");
        }
        Ok(())
    }

    /// Prints what did not run, what passed only when it was run again, and what failed.
    pub(crate) fn tell(&self) {
        skips_by_reason(&self.skips).iter().for_each(|line| println!("{line}"));
        for name in &self.flaky {
            println!("FLAKY {name}: failed at first, passed when it was run again");
        }
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
    }

    /// What a second run of the same tests makes of this result: what fails twice has failed, what passes then is flaky.
    pub(crate) fn and_again(self, mut second: Self) -> Self {
        second.flaky.extend(self.failures.into_iter().filter(|name| !second.failures.contains(name)));
        second
    }

    /// Adds another result to this one.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
        self.passed_names.extend(other.passed_names);
        self.flaky.extend(other.flaky);
        if !other.note.is_empty() {
            if !self.note.is_empty() {
                self.note.push_str("; ");
            }
            self.note.push_str(&other.note);
        }
    }
}

/// Each reason with the tests that gave it, those of one module on one line.
fn skips_by_reason(skips: &[Skip]) -> Vec<String> {
    let mut reasons: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for skip in skips {
        reasons.entry(&skip.reason).or_default().insert(&skip.name);
    }
    let mut lines = Vec::new();
    for (reason, names) in reasons {
        if let (Some(name), 1) = (names.first(), names.len()) {
            lines.push(format!("SKIP {name}: {reason}"));
            continue;
        }
        lines.push(format!("SKIP {} tests: {reason}", names.len()));
        let mut modules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for name in names {
            let (module, test) = name.rsplit_once("::").unwrap_or(("", name));
            modules.entry(module).or_default().push(test);
        }
        lines.extend(modules.iter().map(|(module, tests)| format!("     {module}: {}", tests.join(", "))));
    }
    lines
}

/// Who ran the tests. nextest repeats the lines of libtest inside its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Runner {
    /// `cargo test`.
    Cargo,
    /// `cargo nextest run`: a process per test, an end to those that hang.
    Nextest,
}

/// Reads what a runner printed: results of tests and `SKIP name: reason` lines, those of the skip log added.
///
/// A test that said SKIP returned as if it had passed; it is taken out of the passed ones again.
pub(crate) fn read(runner: Runner, output: &str, skip_log: &str) -> Outcome {
    read_at(runner, "", output, skip_log)
}

/// The same, of a runner that does not tell what the names of its tests begin with.
fn read_at(runner: Runner, place: &str, output: &str, skip_log: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let mut skips = BTreeSet::new();
    let mut place = place.to_owned();
    for line in output.lines().map(str::trim) {
        let result = match runner {
            Runner::Cargo => {
                if let Some(running) = running(line) {
                    place = running;
                }
                libtest(line, &place)
            }
            Runner::Nextest => nextest(line),
        };
        match result {
            Some(Test::Passed(name)) => {
                outcome.passed += 1;
                outcome.passed_names.push(name);
            }
            Some(Test::PassedAgain(name)) => {
                outcome.passed += 1;
                outcome.flaky.push(name.clone());
                outcome.passed_names.push(name);
            }
            Some(Test::Failed(name)) if !outcome.failures.contains(&name) => outcome.failures.push(name),
            Some(Test::Ignored(_, reason)) if reason.starts_with(CHILD) => {}
            Some(Test::Ignored(name, reason)) => _ = skips.insert((Skip { name, reason }, false)),
            _ => {}
        }
    }
    let said = output.lines().chain(skip_log.lines()).filter_map(|line| skip(line.trim()));
    skips.extend(said.map(|skip| (skip, true)));
    let returned = skips.iter().filter(|(_, ran)| *ran).count();
    outcome.passed = outcome.passed.saturating_sub(returned);
    outcome.skips = skips.into_iter().map(|(skip, _)| skip).collect();
    for skip in &mut outcome.skips {
        let (said, passed) = outcome.passed_names.into_iter().partition(|name| is_same(name, &skip.name));
        outcome.passed_names = passed;
        // It knows itself by less than its whole path.
        if let [whole] = &Vec::<String>::as_slice(&said) {
            skip.name.clone_from(whole);
        }
    }
    outcome
}

/// Whether two names can be of one test: the shorter has the last segments of the longer.
fn is_same(one: &str, other: &str) -> bool {
    let ends = |long: &str, short| {
        long.strip_suffix(short).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
    };
    ends(one, other) || ends(other, one)
}

/// Whether the test that ran is one that FEATURES.md names: `crate::file::test` is any test of that name in that file, also in
/// modules within it, as macros make one for each lane.
pub(crate) fn is_named(ran: &str, named: &str) -> bool {
    let (ran, named): (Vec<&str>, Vec<&str>) = (ran.split("::").collect(), named.split("::").collect());
    let ([krate, place @ .., name], [named_krate, named_place @ .., wanted]) = (&ran[..], &named[..]) else {
        return false;
    };
    name == wanted && (krate == named_krate || *krate == ANY) && place.starts_with(named_place)
}

/// How runners end when tests have failed, nextest and cargo; any other end is a failure of its own.
const TESTS_FAILED: [&str; 2] = ["exit status: 100", "exit status: 101"];

/// The results of a test runner. One that failed without naming a test, and one that ran none, is a failure too.
pub(crate) fn counted(runner: Runner, finished: &Finished, skips: &str) -> Outcome {
    judged(read(runner, &finished.output, skips), finished)
}

/// The results of one test program that was run by itself; the names of its tests begin with `place`.
pub(crate) fn counted_at(place: &str, finished: &Finished, skips: &str) -> Outcome {
    judged(read_at(Runner::Cargo, place, &finished.output, skips), finished)
}

fn judged(mut outcome: Outcome, finished: &Finished) -> Outcome {
    match &finished.reason {
        Some(reason) if outcome.failures.is_empty() || !TESTS_FAILED.contains(&reason.as_str()) => {
            outcome.failures.push(told(finished, reason));
        }
        Some(_) => outcome.note = format!("see {}", finished.log.display()),
        None if outcome.passed + outcome.skips.len() == 0 => {
            outcome.failures.push(format!("no test ran (output: {})", finished.log.display()));
        }
        None => {}
    }
    outcome
}

/// A program that either works or does not, as an outcome.
pub(crate) fn whole(finished: &Finished, note: &str) -> Outcome {
    match &finished.reason {
        None => Outcome::one(note),
        Some(reason) => Outcome::failed(told(finished, reason)),
    }
}

fn told(finished: &Finished, reason: &str) -> String {
    format!("{reason}\n{}\n(whole output: {})", finished.tail(40), finished.log.display())
}

/// Panics of a log that are shown at once.
const PANICS: usize = 8;

/// Where and why the tests of a log panicked.
pub(crate) fn panics(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let places = (0..lines.len()).filter(|&at| lines[at].contains(" panicked at "));
    places.take(PANICS).flat_map(|at| &lines[at..lines.len().min(at + 4)]).map(|line| line.trim()).collect()
}

/// The name of the function in the full name of a test.
pub(crate) fn last_segment(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// The reason of an ignored test that gives none, and of every one under nextest, which does not print it.
pub(crate) const IGNORED: &str = "ignored; `cargo xtask test --long` runs it";

/// How the reason of an ignored function starts that is no test but a process which a test starts.
pub(crate) const CHILD: &str = "a child of";

enum Test {
    Passed(String),
    /// It had failed before, in the same run.
    PassedAgain(String),
    Failed(String),
    Ignored(String, String),
}

/// Stands for a crate that `cargo test` does not tell.
const ANY: &str = "*";

/// `Running unittests src/lib.rs (target/debug/deps/sinew_base-0123)`, `Running tests/it.rs (target/…)`: what the paths of the
/// tests that follow begin with. `cargo test` names the crate of unit tests only.
fn running(line: &str) -> Option<String> {
    let rest = line.strip_prefix("Running ")?;
    let (what, binary) = rest.split_once(" (")?;
    let name = binary.trim_end_matches(')').rsplit('/').next()?.rsplit_once('-')?.0;
    Some(if what.starts_with("unittests") { format!("{name}::") } else { format!("{ANY}::{name}::") })
}

/// `test a::b ... ok`.
fn libtest(line: &str, place: &str) -> Option<Test> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let name = format!("{place}{}", name.trim_end_matches(" - should panic"));
    match verdict {
        "ok" => Some(Test::Passed(name)),
        "FAILED" => Some(Test::Failed(name)),
        _ => {
            let reason = verdict.strip_prefix("ignored")?.trim_start_matches([',', ' ']);
            Some(Test::Ignored(name, if reason.is_empty() { IGNORED } else { reason }.to_owned()))
        }
    }
}

/// `PASS [ 0.005s] (1/2) crate::binary module::test`.
fn nextest(line: &str) -> Option<Test> {
    let (verdict, rest) = line.split_once(" [")?;
    let (_, rest) = rest.split_once(']')?;
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(rest, |(_, rest)| rest);
    let mut words = rest.split_whitespace();
    let (binary, test) = (words.next()?, words.next()?);
    let (krate, file) = binary.split_once("::").unwrap_or((binary, ""));
    // The path of a test in a program names the program no more than that of one in a library names the library.
    let place = if file.is_empty() || file.contains('/') { String::new() } else { format!("{file}::") };
    let name = format!("{}::{place}{test}", krate.replace('-', "_"));
    let failed = || Some(Test::Failed(format!("{name} ({verdict})")));
    match (verdict.strip_prefix(LAST_TRY), verdict) {
        (Some("PASS" | "LEAK"), _) => Some(Test::PassedAgain(name)),
        (Some("SLOW" | "TRMNTG"), _) => None,
        (Some(_), _) | (None, "FAIL" | "TIMEOUT" | "ABORT" | "LEAK-FAIL") => failed(),
        (None, "SKIP") => Some(Test::Ignored(name, IGNORED.to_owned())),
        (None, "PASS" | "LEAK") => Some(Test::Passed(name)),
        // A try that is not the last says nothing yet.
        (None, signal) if signal.starts_with("SIG") => failed(),
        _ => None,
    }
}

/// How nextest marks the last of the two tries that the profile `ci` gives a test.
const LAST_TRY: &str = "TRY 2 ";

/// `SKIP name: reason`; a line that gives no name is a skip all the same.
fn skip(line: &str) -> Option<Skip> {
    let rest = line.strip_prefix("SKIP ")?;
    // nextest's own line for an ignored test: `SKIP [   ] (1/2) …`.
    if rest.starts_with("[ ") {
        return None;
    }
    let (name, reason) = rest.split_once(": ").unwrap_or(("somewhere", rest));
    Some(Skip { name: name.to_owned(), reason: reason.to_owned() })
}

/// The skips that `SINEW_REQUIRE` forbids: a listed word is the need in brackets or a part of the test's name.
pub(crate) fn forbidden<'a>(skips: &'a [Skip], required: &str) -> Vec<&'a Skip> {
    let words: Vec<&str> = required.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let concerns = |skip: &Skip| {
        let need = skip.reason.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(need, _)| need);
        let parts: Vec<&str> = skip.name.split(|letter: char| !letter.is_alphanumeric()).collect();
        words.iter().any(|word| need.map_or_else(|| parts.contains(word), |need| need == *word))
    };
    skips.iter().filter(|skip| concerns(skip)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const LIBTEST: &str = "running 3 tests\ntest tests::b_two ... ignored, long\ntest tests::a_one ... ok\ntest child ... ignored, a child of other tests\ntest tests::c ... FAILED\n---- tests::a_one stdout ----\nSKIP tests::a_one: [shm] no memfd\n";

    #[test]
    fn libtest_is_understood() {
        let outcome = read(Runner::Cargo, LIBTEST, "");
        assert_eq!(outcome.passed, 0);
        assert_eq!(outcome.failures, ["tests::c"]);
        assert_eq!(outcome.skips.len(), 2);
        assert!(outcome.passed_names.is_empty());
    }

    #[test]
    fn nextest_is_understood() {
        let output = "        PASS [   0.005s] (1/3) sinew-base tests::a\n  SIGKILL [   0.1s] (2/3) sinew-base::it b\n        FAIL [   0.1s] (3/3) sinew-base::it c\n        SLOW [> 60.0s] sinew-base d\n        SKIP [         ] (1/3) sinew-base e\n    test tests::a ... ok\n";
        let outcome = read(Runner::Nextest, output, "");
        assert_eq!(outcome.passed_names, ["sinew_base::tests::a"]);
        assert_eq!((outcome.passed, outcome.skips.len()), (1, 1));
        assert_eq!(outcome.failures, ["sinew_base::it::b (SIGKILL)", "sinew_base::it::c (FAIL)"]);
    }

    /// What nextest 0.9 printed of tests that it tried twice.
    const TWICE: &str = "  TRY 1 ABRT [   0.013s] (───) fl-x tests::abort\n  TRY 2 ABRT [   0.010s] (1/4) fl-x tests::abort\n  TRY 1 FAIL [   0.212s] (───) fl-x tests::flaky\n  TRY 2 PASS [   0.019s] (2/4) fl-x tests::flaky\n        PASS [   0.005s] (3/4) fl-x tests::good\n        SLOW [>  2.000s] (───) fl-x tests::slow\nTRY 1 TRMNTG [>  4.000s] (───) fl-x tests::slow\n   TRY 1 TMT [   4.005s] (───) fl-x tests::slow\n  TRY 2 SLOW [>  2.000s] (───) fl-x tests::slow\n   TRY 2 TMT [   4.005s] (4/4) fl-x tests::slow\n     Summary [   4.320s] 4 tests run: 2 passed (1 flaky), 2 failed, 0 skipped\n   FLAKY 2/2 [   0.019s] (2/4) fl-x tests::flaky\n  TRY 2 ABRT [   0.010s] (1/4) fl-x tests::abort\n   TRY 2 TMT [   4.005s] (4/4) fl-x tests::slow\n";

    #[test]
    fn a_test_that_passes_the_second_time_is_told_apart() {
        let outcome = read(Runner::Nextest, TWICE, "");
        assert_eq!((outcome.passed, outcome.flaky), (2, vec!["fl_x::tests::flaky".to_owned()]));
        assert_eq!(outcome.passed_names, ["fl_x::tests::flaky", "fl_x::tests::good"]);
        assert_eq!(outcome.failures, ["fl_x::tests::abort (TRY 2 ABRT)", "fl_x::tests::slow (TRY 2 TMT)"]);
    }

    #[test]
    fn of_two_runs_the_second_counts_and_the_first_is_remembered() {
        let failed = |names: &[&str]| Outcome {
            passed: 1,
            failures: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Outcome::default()
        };
        let both = failed(&["a", "b"]).and_again(failed(&["b", "c"]));
        assert_eq!(
            (both.passed, both.failures, both.flaky),
            (1, vec!["b".into(), "c".into()], vec!["a".into()])
        );
    }

    #[test]
    fn skips_of_one_reason_are_told_together() {
        let skip = |name: &str, reason: &str| Skip { name: name.into(), reason: reason.into() };
        let skips = [
            skip("a::m::x", "[r] no"),
            skip("b", "[s] none"),
            skip("a::n::z", "[r] no"),
            skip("a::m::y", "[r] no"),
        ];
        assert_eq!(
            skips_by_reason(&skips),
            ["SKIP 3 tests: [r] no", "     a::m: x, y", "     a::n: z", "SKIP b: [s] none"]
        );
    }

    #[test]
    fn a_test_is_known_by_its_whole_path() {
        let nextest = "PASS [ 0.1s] (1/9) sinew::forms shm::it_goes\nPASS [ 0.1s] (2/9) sinew-proto matching::tests::it_goes\nPASS [ 0.1s] (3/9) sinew-cli::bin/sinew units::tests::it_goes\n";
        let ran = read(Runner::Nextest, nextest, "").passed_names;
        assert_eq!(
            ran,
            [
                "sinew::forms::shm::it_goes",
                "sinew_proto::matching::tests::it_goes",
                "sinew_cli::units::tests::it_goes"
            ]
        );
        let cargo = "     Running unittests src/lib.rs (target/debug/deps/sinew_proto-01ab)\ntest matching::tests::it_goes ... ok\n     Running tests/forms.rs (target/debug/deps/forms-01ab)\ntest shm::it_goes ... ok\n";
        assert_eq!(
            read(Runner::Cargo, cargo, "").passed_names,
            ["sinew_proto::matching::tests::it_goes", "*::forms::shm::it_goes"]
        );
        for named in ["sinew::forms::it_goes", "sinew::forms::shm::it_goes"] {
            assert!(is_named(&ran[0], named) && is_named("*::forms::shm::it_goes", named), "{named}");
            assert!(!is_named(&ran[1], named) && !is_named(&ran[2], named), "{named}");
        }
        for other in [
            "sinew_cli::forms::it_goes",
            "sinew::lanes::it_goes",
            "sinew::forms::uds::it_goes",
            "sinew::forms::goes",
        ] {
            assert!(!is_named(&ran[0], other), "{other}");
        }
    }

    #[test]
    fn a_skip_hides_no_test_of_the_same_name_elsewhere() {
        let output = "PASS [ 0.1s] (1/2) sinew::forms shm::it_goes\nPASS [ 0.1s] (2/2) sinew::lanes shm::it_goes\nSKIP forms::shm::it_goes: [shm] no memfd\n";
        let outcome = read(Runner::Nextest, output, "");
        assert_eq!(
            (outcome.passed, outcome.passed_names),
            (1, vec!["sinew::lanes::shm::it_goes".to_owned()])
        );
        assert_eq!(outcome.skips[0].name, "sinew::forms::shm::it_goes");
    }

    #[test]
    fn a_skip_is_counted_once_wherever_it_was_said() {
        let outcome = read(
            Runner::Cargo,
            "test a ... ok\ntest b ... ok\nSKIP x::a: [tcp] no\n",
            "SKIP x::a: [tcp] no\n",
        );
        assert_eq!((outcome.passed, outcome.skips.len()), (1, 1));
        assert_eq!(outcome.passed_names, ["b"]);
    }

    #[test]
    fn a_skip_without_a_name_is_counted_too() {
        let outcome = read(Runner::Cargo, "test a ... ok\nSKIP unshare is missing\n", "");
        assert_eq!((outcome.passed, outcome.skips[0].reason.as_str()), (0, "unshare is missing"));
    }

    #[test]
    fn a_promised_thing_may_not_be_skipped() {
        let skip = |name: &str, reason: &str| Skip { name: name.into(), reason: reason.into() };
        let skips =
            [skip("a::b", "[shm] no"), skip("transport_tcp::b", "no"), skip("a::uds_echo", "[root] no")];
        assert_eq!(forbidden(&skips, "shm, tcp").len(), 2);
        assert_eq!(forbidden(&skips, "uds").len(), 0);
        assert_eq!(forbidden(&skips, "").len(), 0);
    }

    fn finished(ok: bool, output: &str) -> Finished {
        let reason = (!ok).then(|| "exit status: 101".to_owned());
        Finished { ok, output: output.to_owned(), reason, log: PathBuf::from("x.log") }
    }

    #[test]
    fn a_runner_that_ran_nothing_has_failed() {
        assert_eq!(counted(Runner::Cargo, &finished(true, "running 0 tests\n"), "").failures.len(), 1);
        assert!(counted(Runner::Cargo, &finished(true, "test a ... ok\n"), "").failures.is_empty());
    }

    #[test]
    fn a_program_that_was_run_by_itself_says_where_its_tests_are() {
        let outcome = counted_at("sinew_base::", &finished(true, "test tests::a ... ok\n"), "");
        assert_eq!(outcome.passed_names, ["sinew_base::tests::a"]);
        assert_eq!(counted_at("x::", &finished(true, "running 0 tests\n"), "").failures.len(), 1);
    }

    #[test]
    fn a_runner_that_broke_has_failed_whatever_its_tests_say() {
        assert_eq!(counted(Runner::Cargo, &finished(false, "test a ... ok\n"), "").failures.len(), 1);
        assert_eq!(counted(Runner::Cargo, &finished(false, "test a ... FAILED\n"), "").failures, ["a"]);
        let mut ended = finished(false, "test a ... FAILED\n");
        ended.reason = Some("ended after its limit of 9 s".to_owned());
        assert_eq!(counted(Runner::Cargo, &ended, "").failures.len(), 2);
    }
}
