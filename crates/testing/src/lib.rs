//! What the tests of all crates share: how a test says that it did not run.
//!
//! Called by tests only, as a dev-dependency; it is never published and no production code may name it. It must not
//! depend on any other crate of ours, so that every crate can use it.
//!
//! A test that lacks what it needs (a device, a right, a kernel feature) calls [`skip!`]. The skip is printed, it is
//! appended to the file named by `XTASK_SKIP_LOG` (`cargo xtask test` counts it there), and it is a failure when the first
//! argument is listed in `SINEW_REQUIRE`, as on machines that are known to have the thing.
#![forbid(unsafe_code)]

use std::io::Write as _;

/// How many times longer than usual tests may take before they call it a hang. 1, unless they were built with another number in
/// `XTASK_SLOWNESS`, as for a sanitizer, beside which everything is slower.
pub const SLOWNESS: u64 = match option_env!("XTASK_SLOWNESS") {
    None => 1,
    Some(text) => match u64::from_str_radix(text, 10) {
        Ok(times) => times,
        Err(_) => panic!("XTASK_SLOWNESS is a number"),
    },
};

/// Ends the calling test as skipped: `skip!("shm", "memfd_create is refused: {error}")`.
///
/// The first argument is one word for what is missing, the word that `SINEW_REQUIRE` uses. The rest is the reason, in the
/// form of `format!`. Expands to a `return`, so the test function must return `()`.
///
/// # Panics
/// When the word is listed in `SINEW_REQUIRE`.
#[macro_export]
macro_rules! skip {
    ($need:expr, $($reason:tt)+) => {{
        $crate::record_skip($need, module_path!(), &format!($($reason)+));
        return;
    }};
}

/// What [`skip!`] does before it returns from the test.
///
/// # Panics
/// When `need` is listed in `SINEW_REQUIRE`.
pub fn record_skip(need: &str, module: &str, reason: &str) {
    let name = test_name(module);
    assert!(
        !is_required(need),
        "{name} would be skipped ({reason}), but SINEW_REQUIRE promises {need} on this machine"
    );
    let line = skip_line(&name, need, reason);
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("XTASK_SKIP_LOG") {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        let written = log.and_then(|mut log| log.write_all(format!("{line}\n").as_bytes()));
        assert!(written.is_ok(), "the skip log {} cannot be written: {written:?}", path.display());
    }
}

/// Whether `SINEW_REQUIRE` lists `need`: then a test must not go on without it.
#[must_use]
pub fn is_required(need: &str) -> bool {
    std::env::var("SINEW_REQUIRE").is_ok_and(|list| lists(&list, need))
}

fn lists(list: &str, need: &str) -> bool {
    list.split(',').any(|word| word.trim() == need)
}

/// One line, whatever the reason contains: the log is read line by line.
fn skip_line(name: &str, need: &str, reason: &str) -> String {
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("SKIP {name}: [{need}] {reason}")
}

/// libtest runs a test on a thread that carries its name, or on the main thread when there is only one.
fn test_name(module: &str) -> String {
    match std::thread::current().name() {
        Some(name) if name != "main" => format!("{}::{name}", module.split("::").next().unwrap_or(module)),
        _ => {
            std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_else(|| module.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_words_are_required() {
        assert!(lists("shm, tcp,uds", "tcp"));
        assert!(!lists("shm,tcp", "tc"));
        assert!(!lists("", "tcp"));
    }

    #[test]
    fn a_skip_is_always_one_line() {
        assert_eq!(skip_line("a::b", "shm", "first\nsecond  third"), "SKIP a::b: [shm] first second third");
    }
}
