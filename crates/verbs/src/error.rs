//! What can go wrong with a verb: which call, on what, the number from below, and what to do about it.
//!
//! How a *work request* ended is another matter: that is data of its completion ([`crate::work::WorkError`]).

use std::fmt;

/// Why a verb did not do what it was asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no usable libibverbs. The text says what was looked for and how to get it.
    Library(String),
    /// No device has that name.
    NoDevice {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        present: Vec<String>,
    },
    /// A call into the library or the kernel failed.
    Call {
        /// The C function.
        call: &'static str,
        /// On what, for people.
        object: String,
        /// The number of the system, `errno`.
        errno: i32,
    },
    /// The device, its driver or the library cannot do this.
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Who cannot, and since when others can.
        object: String,
    },
    /// An argument that can never be right.
    Invalid {
        /// What the argument is.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A queue pair cannot go from one state to another like this.
    Transition(crate::qp::state::Refused),
    /// A queue has no place. Nothing was posted; poll completions and try again.
    Full {
        /// Which queue.
        queue: &'static str,
        /// How many requests it holds.
        depth: u32,
    },
    /// The deadline passed.
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: std::time::Duration,
    },
    /// A channel or queue pair that was cut short; `reset` makes it usable again.
    Broken {
        /// Why it is.
        cause: String,
    },
    /// A work request failed.
    Work(crate::work::WorkError),
    /// The peer answered something that makes no sense.
    Peer {
        /// What it said.
        cause: String,
    },
}

/// The result of a verb.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An argument that can never be right.
    pub(crate) fn invalid(what: &'static str, cause: impl Into<String>, remedy: &'static str) -> Self {
        Self::Invalid { what, cause: cause.into(), remedy }
    }

    /// A call that failed with a number; `EOPNOTSUPP` and `ENOSYS` are [`Error::Unsupported`].
    pub(crate) fn call(call: &'static str, object: impl fmt::Display, errno: i32) -> Self {
        match errno {
            libc::EOPNOTSUPP | libc::ENOSYS | libc::EPROTONOSUPPORT => {
                Self::Unsupported { what: call, object: object.to_string() }
            }
            _ => Self::Call { call, object: object.to_string(), errno },
        }
    }

    /// The system's number, where one came from below.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { errno, .. } => Some(*errno),
            Self::Transition(refused) => Some(refused.errno),
            Self::Unsupported { .. } => Some(libc::EOPNOTSUPP),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anything being set up anew.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Full { .. } | Self::TimedOut { .. } => true,
            Self::Call { errno, .. } => {
                matches!(*errno, libc::EAGAIN | libc::EINTR | libc::EBUSY | libc::ENOMEM)
            }
            _ => false,
        }
    }
}

/// What a number means for the caller of verbs.
fn remedy(errno: i32) -> &'static str {
    match errno {
        libc::ENOMEM => {
            "the device or the memory-lock limit is exhausted; raise `ulimit -l` or register and create less"
        }
        libc::EPERM | libc::EACCES => {
            "not permitted; the process needs access to /dev/infiniband and, for raw queue pairs, CAP_NET_RAW"
        }
        libc::EMFILE | libc::ENFILE => "no file descriptor is left; raise `ulimit -n`",
        libc::EINVAL => {
            "an attribute is outside of what the device can do; compare it with the device's attributes"
        }
        libc::EFAULT => {
            "the memory is not mapped as the access asks for; read-only memory cannot be registered for writing"
        }
        libc::EBUSY => "other objects still use it; drop them first",
        libc::ENODEV | libc::EIO => "the device is gone or failed; see the kernel's log",
        libc::EAGAIN => "the device is short of something for a moment; try again",
        libc::ETIMEDOUT | libc::ENETUNREACH | libc::EHOSTUNREACH => {
            "no route to the peer's GID; both GIDs must be of one network and UDP port 4791 open"
        }
        _ => "see the call's man page",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(text) => f.write_str(text),
            Self::NoDevice { name, present } if present.is_empty() => {
                write!(f, "no RDMA device {name:?}: there is none at all (`sinew info` says why)")
            }
            Self::NoDevice { name, present } => {
                write!(f, "no RDMA device {name:?}; there are: {}", present.join(", "))
            }
            Self::Call { call, object, errno } => {
                let system = std::io::Error::from_raw_os_error(*errno);
                write!(f, "{call} on {object}: {system}; {}", remedy(*errno))
            }
            Self::Unsupported { what, object } => write!(f, "{object} cannot do {what}"),
            Self::Invalid { what, cause, remedy } => write!(f, "{what}: {cause}; {remedy}"),
            Self::Transition(refused) => refused.fmt(f),
            Self::Full { queue, depth } => {
                write!(f, "the {queue} is full ({depth} requests); poll completions and try again")
            }
            Self::TimedOut { what, after } => write!(f, "{what}: no end after {after:?}"),
            Self::Work(error) => error.fmt(f),
            Self::Broken { cause } => {
                write!(f, "cut short before: {cause}; `reset` and a new handshake make it usable again")
            }
            Self::Peer { cause } => write!(f, "the peer: {cause}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<crate::work::WorkError> for Error {
    fn from(error: crate::work::WorkError) -> Self {
        Self::Work(error)
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
