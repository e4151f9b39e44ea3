//! One error shape for all transports: what was attempted on what, the number from below, and what to do about it.

use core::fmt;

/// The class of a failure. Path choice and tests look at this; people read the text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// This machine lacks what the transport needs.
    Unavailable,
    /// The system forbids it.
    PermissionDenied,
    /// There is no way to that address (`ENETUNREACH`, `EHOSTUNREACH`).
    NoRoute,
    /// Somebody answered that nobody listens there.
    Refused,
    /// Nobody answered in time: a filter, a dead host, a full queue.
    TimedOut,
    /// The address is not one of this transport's.
    InvalidAddress,
    /// A limit of the process or the machine is reached: descriptors, memory, file size.
    Limit,
    /// The peer's process is gone.
    PeerDead,
    /// The connection broke.
    Broken,
    /// The peer said something that it must not say.
    Protocol,
    /// The peer is there and turned this side away, for a reason that the text says.
    TurnedAway,
    /// This transport cannot do that.
    Unsupported,
    /// An error of the system that fits no other class; the code says which.
    System,
}

/// An error number of the library or kernel below, with its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code {
    /// Whose numbers these are: `errno`, `gai`, `wc`, `fi`.
    pub space: &'static str,
    /// The number.
    pub number: i64,
}

impl Code {
    /// An `errno`.
    #[must_use]
    pub fn errno(errno: rustix::io::Errno) -> Self {
        Self { space: "errno", number: i64::from(errno.raw_os_error()) }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.space, i32::try_from(self.number)) {
            ("errno", Ok(number)) => fmt::Display::fmt(&std::io::Error::from_raw_os_error(number), f),
            _ => write!(f, "{} {}", self.space, self.number),
        }
    }
}

/// Why a transport could not do something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransportError {
    /// The class.
    pub kind: ErrorKind,
    /// What was attempted: `connect`, `memfd_create`, `listen` …
    pub operation: &'static str,
    /// On what: an address, a path, a size. May be empty.
    pub object: String,
    /// The number from below, if there is one.
    pub code: Option<Code>,
    /// What the user can do. Empty when nothing is known.
    pub hint: String,
}

impl TransportError {
    /// An error without a number or hint.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: &'static str, object: impl Into<String>) -> Self {
        Self { kind, operation, object: object.into(), code: None, hint: String::new() }
    }

    /// An error from an `errno`, its class worked out from the number; one that means that descriptors are short has its hint.
    #[must_use]
    pub fn os(errno: rustix::io::Errno, operation: &'static str, object: impl Into<String>) -> Self {
        use rustix::io::Errno;
        let kind = match errno {
            Errno::ACCESS | Errno::PERM => ErrorKind::PermissionDenied,
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL => {
                ErrorKind::NoRoute
            }
            Errno::CONNREFUSED | Errno::NOENT => ErrorKind::Refused,
            Errno::TIMEDOUT => ErrorKind::TimedOut,
            Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::NOSPC
            | Errno::FBIG
            | Errno::NOBUFS
            | Errno::DQUOT => ErrorKind::Limit,
            Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => ErrorKind::Broken,
            Errno::NOSYS | Errno::AFNOSUPPORT | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::System,
        };
        let hint = match errno {
            Errno::MFILE => "this process has no descriptor left: close some or raise the limit (ulimit -n)",
            Errno::NFILE => "the machine has no descriptor left: raise fs.file-max",
            _ => "",
        };
        Self { kind, operation, object: object.into(), code: Some(Code::errno(errno)), hint: hint.to_owned() }
    }

    /// Whether the same call may succeed later without anybody changing the program or its options.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        use ErrorKind as Kind;
        matches!(
            self.kind,
            Kind::NoRoute | Kind::Refused | Kind::TimedOut | Kind::Limit | Kind::PeerDead | Kind::Broken
        )
    }

    /// The same with a hint; an empty one leaves what hint there is.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !hint.is_empty() {
            self.hint = hint;
        }
        self
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if !self.object.is_empty() {
            write!(f, " {}", self.object)?;
        }
        match self.code {
            Some(code) => write!(f, ": {code}")?,
            None => write!(f, ": {}", describe(self.kind))?,
        }
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for TransportError {}

impl From<sinew_base::runtime_dir::RuntimeDirError> for TransportError {
    fn from(error: sinew_base::runtime_dir::RuntimeDirError) -> Self {
        let (what, path) = ("runtime directory", error.path.display().to_string());
        let told = match error.errno {
            Some(errno) => Self::os(errno, what, path),
            None => Self::new(ErrorKind::PermissionDenied, what, path),
        };
        told.hint(error.hint)
    }
}

fn describe(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unavailable => "not available on this machine",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::NoRoute => "no route",
        ErrorKind::Refused => "nobody listens there",
        ErrorKind::TimedOut => "no answer in time",
        ErrorKind::InvalidAddress => "not an address of this transport",
        ErrorKind::Limit => "a limit is reached",
        ErrorKind::PeerDead => "the peer's process is gone",
        ErrorKind::Broken => "the connection broke",
        ErrorKind::Protocol => "the peer broke the protocol",
        ErrorKind::TurnedAway => "the peer was reached and turned this engine away",
        ErrorKind::Unsupported => "not supported by this transport",
        ErrorKind::System => "system error",
    }
}

/// Why a lane is over. After it every call on the lane but [`crate::Lane::recover`], [`crate::Lane::reclaim`],
/// [`crate::Lane::revoke`] and dropping it answers the same.
pub type LaneError = TransportError;
