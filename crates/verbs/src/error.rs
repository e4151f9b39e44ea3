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

/// What a number of a call means for the caller of verbs.
fn remedy(call: &str, errno: i32) -> &'static str {
    match (call, errno) {
        ("mmap", libc::EINVAL | libc::ENOMEM) => {
            return "the system has no such pages left; set huge pages apart (vm.nr_hugepages), or take another size";
        }
        ("mbind", libc::EINVAL) => {
            return "there is no such NUMA node, or it has no memory; take one that has";
        }
        _ => {}
    }
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
        libc::EADDRNOTAVAIL => {
            "no RDMA device has this address; `sinew info` shows which addresses they have"
        }
        libc::EADDRINUSE => "another program has this port; take another one, or 0 for any",
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
                write!(f, "{call} on {object}: {system}; {}", remedy(call, *errno))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Numbers that verbs give, each with what its remedy must speak of.
    const NUMBERS: [(&str, i32, &str); 15] = [
        ("ibv_reg_mr", libc::ENOMEM, "ulimit -l"),
        ("ibv_open_device", libc::EACCES, "/dev/infiniband"),
        ("ibv_create_qp", libc::EPERM, "CAP_NET_RAW"),
        ("ibv_create_comp_channel", libc::EMFILE, "ulimit -n"),
        ("ibv_create_qp", libc::EINVAL, "attribute"),
        ("ibv_reg_mr", libc::EFAULT, "mapped"),
        ("ibv_dereg_mr", libc::EBUSY, "drop"),
        ("ibv_poll_cq", libc::EIO, "kernel's log"),
        ("ibv_post_send", libc::EAGAIN, "again"),
        ("rdma_connect", libc::ETIMEDOUT, "route"),
        ("rdma_bind_addr", libc::EADDRNOTAVAIL, "sinew info"),
        ("rdma_bind_addr", libc::EADDRINUSE, "port"),
        ("mmap", libc::EINVAL, "nr_hugepages"),
        ("mmap", libc::ENOMEM, "nr_hugepages"),
        ("mbind", libc::EINVAL, "NUMA"),
    ];

    #[test]
    fn a_call_that_failed_says_what_was_called_on_what_with_its_number_and_what_to_do() {
        for (call, errno, about) in NUMBERS {
            let error = Error::call(call, "queue pair 0x17 of mlx5_0", errno);
            let text = error.to_string();
            let system = std::io::Error::from_raw_os_error(errno).to_string();
            for part in [call, "queue pair 0x17 of mlx5_0", &system, about] {
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
            assert_eq!(error.errno(), Some(errno));
        }
    }

    #[test]
    fn what_a_device_cannot_do_is_told_from_what_failed() {
        for errno in [libc::EOPNOTSUPP, libc::ENOSYS, libc::EPROTONOSUPPORT] {
            let error = Error::call("ibv_alloc_dm", "64 bytes in rxe0", errno);
            assert!(matches!(error, Error::Unsupported { what: "ibv_alloc_dm", .. }), "{error:?}");
            assert_eq!(error.to_string(), "64 bytes in rxe0 cannot do ibv_alloc_dm");
            assert!(!error.is_retryable());
        }
        assert!(matches!(Error::call("ibv_alloc_dm", "", libc::EINVAL), Error::Call { .. }));
    }

    #[test]
    fn each_kind_of_failure_names_its_object_and_the_way_out_and_says_whether_to_try_again() {
        let none = Error::NoDevice { name: "mlx9".to_owned(), present: Vec::new() };
        let other = Error::NoDevice { name: "mlx9".to_owned(), present: vec!["rxe0".to_owned()] };
        let after = Duration::from_secs(3);
        let failed = crate::work::WorkError {
            status: crate::work::Status::REMOTE_ACCESS,
            vendor_error: 0x88,
            qp_num: 0x17,
        };
        for (error, parts, again) in [
            (none, &["mlx9", "sinew info"][..], false),
            (other, &["mlx9", "rxe0"], false),
            (Error::invalid("depth", "0", "take 1"), &["depth", "0", "take 1"], false),
            (Error::Full { queue: "send queue", depth: 16 }, &["send queue", "16", "poll"], true),
            (Error::TimedOut { what: "a message", after }, &["a message", "3s"], true),
            (Error::Broken { cause: "a deadline".to_owned() }, &["a deadline", "reset"], false),
            (Error::Peer { cause: "nonsense".to_owned() }, &["peer", "nonsense"], false),
            (failed.into(), &["0x17", "0x88", "REM_ACCESS_ERR"], false),
        ] {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} are not all in {text:?}");
            assert_eq!(error.is_retryable(), again, "{error}");
        }
        for errno in [libc::EAGAIN, libc::EINTR, libc::EBUSY, libc::ENOMEM] {
            assert!(Error::call("ibv_post_send", "", errno).is_retryable());
        }
    }
}
