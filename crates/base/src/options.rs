//! Options: each is one row, from which its struct field, setter, environment variable, documentation and table line come.
//!
//! Used by every crate that has options; [`options!`](crate::options!) makes a struct of them. An engine checks the whole
//! environment once with [`check_environment`], against the tables of everything it uses. Order of strength: what a builder
//! sets, then `SINEW_<NAME>`, then the default.
//!
//! ```
//! sinew_base::options! {
//!     /// How an engine behaves.
//!     pub struct EngineOptions {
//!         /// Largest message that travels whole; larger ones are fetched by the receiver.
//!         eager_max: bytes = "8kb", cost "receive memory: this times the credits";
//!         /// How long a call waits unless it says otherwise.
//!         deadline: wait = "30s", cost "none";
//!     }
//! }
//! let environment = [("SINEW_EAGER_MAX", "64k"), ("SINEW_DEADLINE", "forever"), ("HOME", "/root")];
//! let options = EngineOptions::from_environment(environment)?.eager_max(4096usize);
//! assert_eq!((options.eager_max, options.deadline), (4096, None));
//! sinew_base::options::check_environment(environment, &[EngineOptions::TABLE])?;
//! # Ok::<(), sinew_base::options::OptionError>(())
//! ```
//!
//! # Kinds
//! | kind | field | written as |
//! |---|---|---|
//! | `duration` | `Duration` | `20ms` |
//! | `wait` | `Option<Duration>` | `20ms`, `forever` or `none` |
//! | `bytes` | `usize` | `64k` |
//! | `count` | `usize` | `16` |
//! | `flag` | `bool` | `yes`, `no`, `true`, `false`, `on`, `off`, `1`, `0` |
//! | `path` | `Option<PathBuf>` | `/run/sinew`; empty = none |
//! | `text` | `String` | anything |
//! | `list` | `Vec<String>` | `shm,tcp`; empty = none |
//! | `secret` | `Option<Secret>` | anything, never printed; empty = none |

mod value;

use std::ffi::OsStr;
use std::fmt;
#[doc(hidden)]
pub use value::{
    BytesValue, CountValue, DurationValue, FlagValue, ListValue, PathValue, SecretValue, TextValue, WaitValue,
};
pub use value::{OptionValue, Secret};

/// What every environment variable of Sinew begins with.
pub const PREFIX: &str = "SINEW_";

/// What an option's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A time.
    Duration,
    /// A time, or for ever.
    Wait,
    /// A size.
    Bytes,
    /// A number.
    Count,
    /// Yes or no.
    Flag,
    /// A file or directory.
    Path,
    /// Any text.
    Text,
    /// Texts with commas between.
    List,
    /// A text that is never shown.
    Secret,
}

impl Kind {
    /// What it is called in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duration => "time",
            Self::Wait => "time or forever",
            Self::Bytes => "size",
            Self::Count => "number",
            Self::Flag => "yes or no",
            Self::Path => "path",
            Self::Text => "text",
            Self::List => "list",
            Self::Secret => "secret",
        }
    }

    /// A value that it takes.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Duration => "20ms",
            Self::Wait => "20ms or forever",
            Self::Bytes => "64k",
            Self::Count => "16",
            Self::Flag => "yes",
            Self::Path => "/run/sinew",
            Self::Text => "name",
            Self::List => "shm,tcp",
            Self::Secret => "a long random text",
        }
    }
}

/// One option, for tables and checks.
#[derive(Clone, Copy, Debug)]
pub struct OptionRow {
    /// Name of the field and the setter.
    pub name: &'static str,
    /// Name of the environment variable.
    pub env: &'static str,
    /// Default, as one would write it, with its unit.
    pub default: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What raising or setting it costs.
    pub cost: &'static str,
    /// What it does. May have several lines.
    pub help: &'static str,
    /// Whether a text is a value; the error says why not.
    pub check: fn(&str) -> Result<(), String>,
}

/// Something in the environment that is no option or no value.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OptionError {
    /// No option has this name.
    Unknown {
        /// The variable.
        variable: String,
        /// The nearest name there is.
        suggestion: Option<&'static str>,
    },
    /// The value cannot be what it should be.
    BadValue {
        /// The variable.
        variable: String,
        /// Its value; `(hidden)` for a secret.
        value: String,
        /// What is wrong with it.
        cause: String,
        /// A value that would do.
        example: &'static str,
    },
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { variable, suggestion: Some(suggestion) } => {
                write!(f, "{variable} is no option of Sinew; did you mean {suggestion}?")
            }
            Self::Unknown { variable, suggestion: None } => {
                write!(f, "{variable} is no option of Sinew; `sinew info --options` lists them")
            }
            Self::BadValue { variable, value, cause, example } => {
                write!(f, "{variable}={value}: {cause}; an example is {variable}={example}")
            }
        }
    }
}

impl std::error::Error for OptionError {}

/// Variables of that prefix which are no options of an engine. They speak to tests: what may not be skipped on this machine, how long and
/// by which chance campaigns of faults run, which headers declarations are compared with, which device they take and by which address. Or they name the
/// files of libraries that are opened at run time, for the whole process.
const NO_OPTIONS: [&str; 8] = [
    "SINEW_REQUIRE",
    "SINEW_CAMPAIGN_ROUNDS",
    "SINEW_SEED",
    "SINEW_VERBS_HEADERS",
    "SINEW_IBVERBS_LIB",
    "SINEW_RDMACM_LIB",
    "SINEW_VERBS_DEVICE",
    "SINEW_VERBS_ADDRESS",
];

/// Those too that tell programs of the guest where they are: `SINEW_VM`, `SINEW_VM_PEER` …
fn is_no_option(variable: &str) -> bool {
    let of_guest =
        variable.strip_prefix("SINEW_VM").is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    of_guest || NO_OPTIONS.contains(&variable)
}

/// Checks every `SINEW_*` variable against the rows of `tables`: an unknown name or a bad value is an error. Other variables
/// are not looked at.
///
/// # Errors
/// The first in the order of the environment.
pub fn check_environment<K: AsRef<OsStr>, V: AsRef<OsStr>>(
    vars: impl IntoIterator<Item = (K, V)>,
    tables: &[&[OptionRow]],
) -> Result<(), OptionError> {
    for (key, value) in vars {
        let Some(variable) = ours(key.as_ref()).filter(|variable| !is_no_option(variable)) else {
            continue;
        };
        let rows = tables.iter().copied().flatten();
        let Some(row) = rows.clone().find(|row| row.env == variable) else {
            let suggestion = nearest(&variable, rows.map(|row| row.env));
            return Err(OptionError::Unknown { variable, suggestion });
        };
        let text = row.text(value.as_ref())?;
        (row.check)(text).map_err(|cause| row.bad(text, cause))?;
    }
    Ok(())
}

impl OptionRow {
    /// The row's value among `vars`, the last one when there are several.
    #[doc(hidden)]
    pub fn read<T: OptionValue, K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &self,
        vars: &[(K, V)],
    ) -> Result<Option<T>, OptionError> {
        let Some((_, value)) = vars.iter().rev().find(|(key, _)| key.as_ref() == self.env) else {
            return Ok(None);
        };
        let text = self.text(value.as_ref())?;
        T::parse(text).map(Some).map_err(|cause| self.bad(text, cause))
    }

    fn text<'a>(&self, value: &'a OsStr) -> Result<&'a str, OptionError> {
        value.to_str().ok_or_else(|| self.bad(&value.to_string_lossy(), "it is not UTF-8".into()))
    }

    fn bad(&self, value: &str, cause: String) -> OptionError {
        let value = if self.kind == Kind::Secret { "(hidden)".to_owned() } else { value.to_owned() };
        OptionError::BadValue { variable: self.env.to_owned(), value, cause, example: self.kind.example() }
    }
}

fn ours(key: &OsStr) -> Option<String> {
    key.as_encoded_bytes().starts_with(PREFIX.as_bytes()).then(|| key.to_string_lossy().into_owned())
}

/// The name nearest to `word` when it is near enough to be a slip.
fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.len() - PREFIX.len().min(word.len())).div_ceil(3).max(1);
    names
        .map(|name| (edit_distance(word.as_bytes(), name.as_bytes()), name))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// `SINEW_` and the name in capitals; `N` is the length of both.
#[doc(hidden)]
#[must_use]
pub const fn env_name<const N: usize>(name: &str) -> [u8; N] {
    let mut out = [0; N];
    let mut at = 0;
    while at < N {
        out[at] = if at < PREFIX.len() {
            PREFIX.as_bytes()[at]
        } else {
            name.as_bytes()[at - PREFIX.len()].to_ascii_uppercase()
        };
        at += 1;
    }
    out
}

/// The value of a default, which is the programmer's own text.
#[doc(hidden)]
#[must_use]
pub fn default_of<T: OptionValue>(name: &str, text: &str) -> T {
    T::parse(text).unwrap_or_else(|cause| panic!("default `{text}` of option {name}: {cause}"))
}

#[doc(hidden)]
#[macro_export]
macro_rules! __option_type {
    (duration) => { ::std::time::Duration };
    (wait) => { ::core::option::Option<::std::time::Duration> };
    (bytes) => { usize };
    (count) => { usize };
    (flag) => { bool };
    (path) => { ::core::option::Option<::std::path::PathBuf> };
    (text) => { ::std::string::String };
    (list) => { ::std::vec::Vec<::std::string::String> };
    (secret) => { ::core::option::Option<$crate::options::Secret> };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __option_kind {
    (duration) => {
        $crate::options::Kind::Duration
    };
    (wait) => {
        $crate::options::Kind::Wait
    };
    (bytes) => {
        $crate::options::Kind::Bytes
    };
    (count) => {
        $crate::options::Kind::Count
    };
    (flag) => {
        $crate::options::Kind::Flag
    };
    (path) => {
        $crate::options::Kind::Path
    };
    (text) => {
        $crate::options::Kind::Text
    };
    (list) => {
        $crate::options::Kind::List
    };
    (secret) => {
        $crate::options::Kind::Secret
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __option_marker {
    (duration) => {
        $crate::options::DurationValue
    };
    (wait) => {
        $crate::options::WaitValue
    };
    (bytes) => {
        $crate::options::BytesValue
    };
    (count) => {
        $crate::options::CountValue
    };
    (flag) => {
        $crate::options::FlagValue
    };
    (path) => {
        $crate::options::PathValue
    };
    (text) => {
        $crate::options::TextValue
    };
    (list) => {
        $crate::options::ListValue
    };
    (secret) => {
        $crate::options::SecretValue
    };
}

/// Makes a struct of options; see the [module](mod@crate::options) for the form and an example.
///
/// The struct has a public field and a setter of the same name for each row, `Default`, `Clone`, `Debug`, `PartialEq`, and
/// * `TABLE: &'static [OptionRow]`,
/// * `from_environment(vars) -> Result<Self, OptionError>`: defaults, overridden by the environment,
/// * `apply_environment(&mut self, vars) -> Result<(), OptionError>`: changes what the environment names,
/// * `entries(&self)`: each row with the present value as text.
///
/// A default that its kind cannot read panics in `Default`.
#[macro_export]
macro_rules! options {
    ($(#[$meta:meta])* $vis:vis struct $struct:ident {
        $($(#[doc = $help:literal])+ $name:ident: $kind:ident = $default:literal, cost $cost:literal;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug)]
        $vis struct $struct {
            $($(#[doc = $help])+ #[doc = concat!("\n\nDefault `", $default, "`; cost: ", $cost, ".")]
            pub $name: $crate::__option_type!($kind),)*
        }

        impl $struct {
            /// All rows, in order.
            $vis const TABLE: &'static [$crate::options::OptionRow] = &[$($crate::options::OptionRow {
                name: stringify!($name),
                env: {
                    const NAME: &str = stringify!($name);
                    const ENV: [u8; NAME.len() + $crate::options::PREFIX.len()] =
                        $crate::options::env_name(NAME);
                    match ::core::str::from_utf8(&ENV) {
                        Ok(env) => env,
                        Err(_) => panic!("an option's name is ASCII"),
                    }
                },
                default: $default,
                kind: $crate::__option_kind!($kind),
                cost: $cost,
                help: concat!($($help, "\n"),+).trim_ascii(),
                check: |text| {
                    <$crate::__option_marker!($kind) as $crate::options::OptionValue>::parse(text).map(|_| ())
                },
            }),*];

            /// Defaults, overridden by what `vars` names. Variables of other tables are not looked at.
            ///
            /// # Errors
            /// The first bad value.
            $vis fn from_environment<K: AsRef<::std::ffi::OsStr>, V: AsRef<::std::ffi::OsStr>>(
                vars: impl IntoIterator<Item = (K, V)>,
            ) -> Result<Self, $crate::options::OptionError> {
                let mut options = Self::default();
                options.apply_environment(vars)?;
                Ok(options)
            }

            /// Changes what `vars` names.
            ///
            /// # Errors
            /// The first bad value; nothing is changed then.
            $vis fn apply_environment<K: AsRef<::std::ffi::OsStr>, V: AsRef<::std::ffi::OsStr>>(
                &mut self,
                vars: impl IntoIterator<Item = (K, V)>,
            ) -> Result<(), $crate::options::OptionError> {
                let vars: Vec<(K, V)> = vars.into_iter().collect();
                let mut changed = self.clone();
                let mut rows = Self::TABLE.iter();
                $(if let Some(row) = rows.next()
                    && let Some(value) = row.read::<$crate::__option_marker!($kind), K, V>(&vars)?
                {
                    changed.$name = value.0;
                })*
                let _ = rows;
                *self = changed;
                Ok(())
            }

            /// Each row with the present value, as one would write it.
            #[must_use]
            $vis fn entries(&self) -> Vec<(&'static $crate::options::OptionRow, String)> {
                let values = [$($crate::options::OptionValue::print(
                    &<$crate::__option_marker!($kind)>::from_value(self.$name.clone()),
                )),*];
                Self::TABLE.iter().zip(values).collect()
            }

            $($(#[doc = $help])+
            #[must_use]
            $vis fn $name(mut self, value: impl Into<$crate::__option_type!($kind)>) -> Self {
                self.$name = value.into();
                self
            })*
        }

        impl Default for $struct {
            fn default() -> Self {
                Self { $($name: $crate::options::default_of::<$crate::__option_marker!($kind)>(
                    stringify!($name), $default,
                ).0,)* }
            }
        }
    };
}

#[cfg(test)]
#[allow(dead_code, reason = "not every setter of the sample is called")]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::time::Duration;

    crate::options! {
        /// One option of each kind.
        struct Sample {
            /// First line of help.
            /// Second line.
            peer_timeout: duration = "5s", cost "none";
            /// How long to wait.
            deadline: wait = "forever", cost "none";
            /// How large.
            eager_max: bytes = "8kb", cost "memory";
            /// How many.
            credits: count = "16", cost "memory";
            /// Whether.
            pinned: flag = "no", cost "a system call";
            /// Where.
            directory: path = "", cost "none";
            /// What.
            domain: text = "default", cost "none";
            /// Which.
            transports: list = "shm,tcp", cost "none";
            /// Proof.
            password: secret = "", cost "none";
        }
    }

    const NOTHING: [(&str, &str); 0] = [];

    #[test]
    fn a_row_makes_field_setter_variable_and_table_line() {
        let row = &Sample::TABLE[0];
        assert_eq!((row.name, row.env, row.default), ("peer_timeout", "SINEW_PEER_TIMEOUT", "5s"));
        assert_eq!(
            (row.kind, row.cost, row.help),
            (Kind::Duration, "none", "First line of help.\n Second line.")
        );
        let options = Sample::default();
        assert_eq!(options.peer_timeout, Duration::from_secs(5));
        assert_eq!(options.peer_timeout(Duration::ZERO).peer_timeout, Duration::ZERO);
        assert_eq!(Sample::TABLE.len(), 9);
    }

    #[test]
    fn the_environment_overrides_defaults_of_every_kind() {
        let options = Sample::from_environment([
            ("SINEW_PEER_TIMEOUT", "20ms"),
            ("SINEW_DEADLINE", "3s"),
            ("SINEW_EAGER_MAX", "1MiB"),
            ("SINEW_CREDITS", "3"),
            ("SINEW_PINNED", "on"),
            ("SINEW_DIRECTORY", "/run/x"),
            ("SINEW_DOMAIN", "other"),
            ("SINEW_TRANSPORTS", "uds, tcp"),
            ("SINEW_PASSWORD", "abc"),
            ("PATH", "/bin"),
        ]);
        let expected = Sample {
            peer_timeout: Duration::from_millis(20),
            deadline: Some(Duration::from_secs(3)),
            eager_max: 1 << 20,
            credits: 3,
            pinned: true,
            directory: Some("/run/x".into()),
            domain: "other".into(),
            transports: vec!["uds".into(), "tcp".into()],
            password: Some(Secret::new("abc")),
        };
        assert_eq!(options, Ok(expected));
        assert_eq!(Sample::from_environment(NOTHING), Ok(Sample::default()));
        assert_eq!(Sample::default().deadline, None);
    }

    #[test]
    fn a_bad_value_names_variable_value_cause_and_example_and_changes_nothing() {
        let mut options = Sample::default();
        let bad = [("SINEW_CREDITS", "7"), ("SINEW_EAGER_MAX", "8parsec")];
        let error = options.apply_environment(bad).expect_err("no size");
        assert_eq!(options, Sample::default());
        let text = error.to_string();
        for part in ["SINEW_EAGER_MAX=8parsec", "`parsec` is no unit", "SINEW_EAGER_MAX=64k"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(check_environment(bad, &[Sample::TABLE]), Err(error));
    }

    #[test]
    fn an_unknown_variable_is_an_error_with_a_suggestion() {
        let check = |name: &str| check_environment([(name, "1")], &[Sample::TABLE]);
        let text = check("SINEW_EAGRE_MAX").expect_err("a slip").to_string();
        assert!(text.contains("did you mean SINEW_EAGER_MAX?"), "{text}");
        let text = check("SINEW_COLOUR_OF_THE_SKY").expect_err("nonsense").to_string();
        assert!(text.contains("lists them"), "{text}");
        assert!(check("SINEW_").is_err());
        assert_eq!(check("sinew_credits"), Ok(()));
        assert_eq!(check("SINEW_CREDITS"), Ok(()));
        for of_tests in
            ["SINEW_REQUIRE", "SINEW_VERBS_DEVICE", "SINEW_VERBS_ADDRESS", "SINEW_VM", "SINEW_VM_DEVICES"]
        {
            assert_eq!(check(of_tests), Ok(()));
        }
        assert!(check("SINEW_VMX").is_err());
    }

    #[test]
    fn a_secret_is_never_shown() {
        let options = Sample::from_environment([("SINEW_PASSWORD", "hunter2")]).expect("valid");
        assert!(!format!("{options:?}").contains("hunter2"));
        assert!(options.entries().iter().all(|(_, value)| value != "hunter2"));
        let bad = OsStr::from_bytes(b"hunter2\xff");
        let error = check_environment([("SINEW_PASSWORD", bad)], &[Sample::TABLE]).expect_err("not UTF-8");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }

    #[test]
    fn what_entries_print_reads_back() {
        let options = Sample::default().eager_max(12_345usize).deadline(Duration::from_micros(1500));
        let vars: Vec<(&str, String)> =
            options.entries().into_iter().map(|(row, value)| (row.env, value)).collect();
        assert_eq!(Sample::from_environment(vars), Ok(options));
    }
}
