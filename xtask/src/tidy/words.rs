//! Rules about words: nothing left open, no path of somebody's machine, no tool of somebody's workplace.

use super::House;
use crate::findings::Findings;
use anyhow::{Context as _, Result};

/// Open ends in code. In pieces, so that this file does not hold them.
const OPEN_ENDS: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("dbg", "!"),
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// Tools that write text for people. What they made must stand on its own feet, unsigned.
const WRITING_TOOLS: [&str; 11] = [
    concat!("clau", "de"),
    concat!("anthro", "pic"),
    concat!("chat", "gpt"),
    concat!("open", "ai"),
    concat!("co", "pilot"),
    concat!("cur", "sor ai"),
    concat!("gem", "ini"),
    concat!("l", "lm"),
    concat!("ai", " agent"),
    concat!("ai", " assistant"),
    concat!("language ", "model"),
];

pub(super) fn check(house: &House<'_>) -> Result<Findings> {
    let mut findings = Findings::new("words");
    for path in &house.files {
        let bytes = std::fs::read(house.path(path)).with_context(|| format!("cannot read {path}"))?;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        findings.looked_at(1);
        for (number, line) in text.lines().enumerate() {
            let problems = line_problems(line, path.ends_with(".rs"));
            findings.errors(problems.into_iter().map(|problem| format!("{path}:{}: {problem}", number + 1)));
        }
    }
    Ok(findings)
}

fn line_problems(line: &str, is_code: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if is_code {
        let open = OPEN_ENDS.iter().filter(|word| contains_word(line, word));
        problems.extend(open.map(|word| format!("`{word}` left in the code")));
    }
    let paths = MACHINE_PATHS.iter().filter(|path| contains_path(line, path));
    problems.extend(paths.map(|path| format!("`{path}…` is a path of one machine")));
    let lower = line.to_lowercase();
    let tools = WRITING_TOOLS.iter().filter(|tool| contains_word(&lower, tool));
    problems.extend(tools.map(|tool| format!("names a writing tool (`{tool}`)")));
    problems
}

fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_word_part) && (word.ends_with('!') || !after.is_some_and(is_word_part))
    })
}

fn contains_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "/._-}$".contains(letter))
    })
}

fn is_word_part(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_ends_are_found_in_code_only() {
        for word in OPEN_ENDS {
            assert_eq!(line_problems(&format!("// {word}(later)"), true).len(), 1, "{word}");
            assert!(line_problems(&format!("no `{word}` here"), false).is_empty());
        }
        assert!(line_problems("let template = \"fileXXXXXX\"; // TODOS", true).is_empty());
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for path in MACHINE_PATHS {
            assert_eq!(line_problems(&format!("see `{path}x/y`"), false).len(), 1, "{path}");
            assert!(line_problems(&format!("see net{path}x"), false).is_empty());
        }
    }

    #[test]
    fn writing_tools_are_found_as_words() {
        for tool in WRITING_TOOLS {
            assert_eq!(line_problems(&format!("by {}.", tool.to_uppercase()), true).len(), 1, "{tool}");
        }
        assert!(line_problems("an allmighty gasket; the user agent", true).is_empty());
    }
}
