//! Rules about what protocol logic must not do: read a clock, own a generator of random numbers.
//!
//! That is what lets a simulator run it in a time of its own.

use super::House;
use crate::findings::Findings;
use anyhow::Result;

/// Folders whose production code is given time and chance from outside.
const PURE: [&str; 3] = ["crates/engine/src/core/", "crates/proto/src/", "crates/wire/src/"];

/// What asks a clock or a generator, in pieces.
const IMPURE: [&str; 6] = [
    concat!("Instant", "::now"),
    concat!("System", "Time"),
    concat!(".elapsed", "()"),
    concat!("getran", "dom("),
    concat!("rand", "::"),
    concat!("Random", "State"),
];

pub(super) fn check(house: &House<'_>) -> Result<Findings> {
    let mut findings = Findings::new("purity");
    for file in &house.rust {
        if !PURE.iter().any(|folder| file.path.starts_with(folder)) || file.is_test_file() {
            continue;
        }
        findings.looked_at(1);
        let problems = problems(&file.text);
        findings.errors(problems.into_iter().map(|problem| format!("{}:{problem}", file.path)));
    }
    Ok(findings)
}

/// Line and reason of each break of the rule before the tests of a file.
fn problems(text: &str) -> Vec<String> {
    let production = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    let code = production.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let impure = |line: &str| IMPURE.iter().find(|word| line.contains(**word)).copied();
    code.filter_map(|(number, line)| Some((number + 1, impure(line)?)))
        .map(|(number, word)| format!("{number}: `{word}` in protocol logic; take it from outside"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_or_a_generator_in_protocol_logic_is_found_and_tests_may_have_them() {
        let clock = concat!("let now = Instant", "::now();");
        assert_eq!(problems(clock).len(), 1);
        assert_eq!(problems(&format!("fn a() {{}}\n{clock}\n"))[0].split(':').next(), Some("2"));
        assert!(problems("let now = surroundings.now();").is_empty());
        assert!(problems(&format!("#[cfg(test)]\nmod tests {{\n{clock}\n}}")).is_empty());
        assert!(problems(&format!("// {clock}")).is_empty());
    }
}
