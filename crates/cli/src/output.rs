//! Writing for people and scripts: a closed pipe is an error like any other, colour only where it is wanted.

use crate::failure::Failure;
use std::io::{IsTerminal, Write};

/// The end of a `--help` page: examples, then exit codes.
pub(crate) fn help(examples: &[&str]) -> String {
    format!("Examples:\n  {}\n\n{}", examples.join("\n  "), crate::EXIT_CODES)
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::stdout(&error))
}

/// Writes a line to standard error; nobody may be there to read it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// How words are set off on a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    Heading,
    Good,
    Bad,
    Faint,
}

/// Whether words are set off: only on a terminal, and not where `NO_COLOR` is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// For standard output.
    pub(crate) fn for_stdout() -> Self {
        Self { on: wanted() && std::io::stdout().is_terminal() }
    }

    /// Sets a text off, after it was padded.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.on {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Heading => "1",
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// <https://no-color.org>: any value that is not empty means no colour; a dumb terminal has none.
fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
