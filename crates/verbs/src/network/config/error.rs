//! What can be wrong with the description of a job.
//!
//! Made by the checks and the reader of JSON; read by people.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a description is none: where, what, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file, where it came from one.
    pub file: Option<PathBuf>,
    /// The line of the text, from 1, where there is a text.
    pub line: Option<usize>,
    /// The rank whose entry it is, as far as it is known.
    pub rank: Option<u32>,
    /// What is wrong.
    pub fault: ConfigFault,
}

/// What is wrong with a description.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConfigFault {
    /// There is no rank.
    Empty,
    /// No entry has rank 0; the lowest is the one named.
    FirstRankNotZero,
    /// Two entries have this rank.
    DuplicatedRank {
        /// The line of the other entry.
        first_line: Option<usize>,
    },
    /// Ranks are left out before this one.
    Gap {
        /// The first that is missing.
        missing: u32,
    },
    /// Two ranks have one host and port.
    DuplicatedPlace {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The other rank.
        first: u32,
    },
    /// A port that is none.
    Port {
        /// What stands there.
        given: String,
    },
    /// A host that is none.
    Host {
        /// What stands there.
        given: String,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// A field of a name that is not known.
    UnknownField {
        /// Its name.
        name: String,
        /// The known one that it is most like.
        suggestion: Option<&'static str>,
        /// The known ones.
        known: &'static [&'static str],
    },
    /// A field that stands there twice, perhaps under two names.
    RepeatedField {
        /// Its name.
        name: &'static str,
    },
    /// A field that must be there is not.
    MissingField {
        /// Its name.
        name: &'static str,
    },
    /// A field with something in it that cannot be.
    Value {
        /// Its name.
        name: &'static str,
        /// What stands there.
        given: String,
        /// What could.
        expected: &'static str,
    },
    /// The text is not JSON.
    Syntax {
        /// What the reader says.
        cause: String,
    },
    /// The file cannot be read.
    Unreadable {
        /// What the system says.
        cause: String,
    },
}

impl ConfigError {
    pub(super) const fn of(fault: ConfigFault) -> Self {
        Self { file: None, line: None, rank: None, fault }
    }

    pub(super) fn at(line: usize, fault: ConfigFault) -> Self {
        Self { line: Some(line), ..Self::of(fault) }
    }

    pub(super) fn in_file(self, path: &Path) -> Self {
        Self { file: Some(path.to_owned()), ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(rank) = self.rank {
            write!(f, "rank {rank}: ")?;
        }
        self.fault.fmt(f)
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a job has at least one rank; add an entry with rank 0"),
            Self::FirstRankNotZero => f.write_str("it is the lowest; ranks begin with 0, number them anew"),
            Self::DuplicatedRank { first_line: Some(line) } => {
                write!(f, "the entry of line {line} has the same rank; give each entry its own")
            }
            Self::DuplicatedRank { first_line: None } => {
                f.write_str("two entries have it; give each entry a rank of its own")
            }
            Self::Gap { missing } => {
                write!(f, "rank {missing} is missing before it; number the ranks without gaps")
            }
            Self::DuplicatedPlace { host, port, first } => {
                write!(
                    f,
                    "rank {first} has host {host} and port {port} too; give each rank of a host a port of its own"
                )
            }
            Self::Port { given } => write!(f, "{given} is no port; use a number from 1 to 65535"),
            Self::Host { given, cause } => {
                write!(
                    f,
                    "the host {given:?} {cause}; use a name or an address, such as node7 or 10.0.0.7 or fe80::7%eth0"
                )
            }
            Self::UnknownField { name, suggestion: Some(suggestion), .. } => {
                write!(f, "unknown field {name:?}; did you mean {suggestion:?}?")
            }
            Self::UnknownField { name, suggestion: None, known } => {
                write!(f, "unknown field {name:?}; known are {}", known.join(", "))
            }
            Self::RepeatedField { name } => write!(f, "the field {name:?} stands there twice; keep one"),
            Self::MissingField { name } => write!(f, "the field {name:?} is missing; add it"),
            Self::Value { name, given, expected } => {
                write!(f, "the field {name:?} is {given}; it must be {expected}")
            }
            Self::Syntax { cause } => write!(f, "not JSON: {cause}"),
            Self::Unreadable { cause } => write!(f, "cannot be read: {cause}"),
        }
    }
}

impl std::error::Error for ConfigError {}
