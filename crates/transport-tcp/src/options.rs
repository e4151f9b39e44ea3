//! What can be set on the stream transports, with defaults. Plain data; the engine's option table fills it.

use sinew_transport::LaneCount;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Sizes of a stream lane, for both transports.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamOptions {
    /// Bytes of small frames that a lane keeps until the peer has them, rounded up to a power of two; at least 256 KiB.
    /// Default 1 MiB. A page of it costs memory only once it was used.
    pub retention_bytes: usize,
    /// Frames that a lane keeps until the peer has them, at least 16. Default 16384.
    pub retention_frames: u32,
    /// Bytes that one receive takes at most; clamped to 80 KiB … 1 MiB. Default 128 KiB.
    pub receive_bytes: usize,
    /// `SO_SNDBUF`; `None` (default) leaves it to the kernel, which adapts TCP by itself.
    pub socket_send_bytes: Option<usize>,
    /// `SO_RCVBUF`; `None` (default) leaves it to the kernel, which adapts TCP by itself.
    pub socket_receive_bytes: Option<usize>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            retention_bytes: 1 << 20,
            retention_frames: 16384,
            receive_bytes: 128 << 10,
            socket_send_bytes: None,
            socket_receive_bytes: None,
        }
    }
}

/// Which congestion control TCP connections use. What a socket really has `explain` reads back from it (`TCP_CONGESTION`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum CongestionControl {
    /// On this machine's own addresses one that does not pace (`cubic`, else `reno`) if the kernel lets this process choose
    /// it; towards other machines the system's default.
    #[default]
    Auto,
    /// The system's default everywhere.
    System,
    /// This one everywhere, on each socket that is made or accepted; refused by the kernel means an error
    /// ([`TcpOptions::check`], which engines of the facade ask when they are built).
    Named(String),
}

/// How many sockets carry one session over TCP.
///
/// One socket is one flow to the network: limits for each flow (`tc`, a cloud's 5 or 10 Gbit/s, one path of several) and windows
/// bind each alone. Messages up to the option `eager_max` keep to one socket, as they stay in order; longer ones are cut and go over all.
/// The side that dialled makes them; each takes as many as its own maximum, so of two sides that differ the smaller one counts.
/// As text (`SINEW_TCP_SOCKETS`): `auto`, `single`, `1` to `16`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sockets {
    /// One, and one more (up to 8) each time that long messages wait for 200 ms and one more is measured to carry more. They are
    /// closed again when they do not help, or are not needed. Costs two system calls each 25 ms while long messages go.
    #[default]
    Auto,
    /// One, always; a peer that wants more is refused another.
    Single,
    /// So many, as soon as the session stands; one that is lost is replaced.
    Parallel(Parallel),
}

/// A number of sockets: 1 to [`Parallel::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parallel(u8);

impl Parallel {
    /// Most sockets of one session.
    pub const MAX: usize = 16;

    /// How many.
    #[must_use]
    pub const fn count(self) -> usize {
        self.0 as usize
    }
}

/// A number or a text that is no number of sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadSockets(String);

impl std::fmt::Display for BadSockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let max = Parallel::MAX;
        write!(f, "{} sockets for a session; give auto, single, or a number from 1 to {max}", self.0)
    }
}

impl std::error::Error for BadSockets {}

impl Sockets {
    /// Most sockets of a session in the automatic mode.
    pub const AUTO_MAX: usize = 8;

    /// Exactly `count` sockets.
    ///
    /// # Errors
    /// [`BadSockets`] unless `count` is 1 to [`Parallel::MAX`].
    pub fn parallel(count: usize) -> Result<Self, BadSockets> {
        match u8::try_from(count) {
            Ok(few) if (1..=Parallel::MAX).contains(&count) => Ok(Self::Parallel(Parallel(few))),
            _ => Err(BadSockets(count.to_string())),
        }
    }

    /// Bounds for the engine.
    pub(crate) const fn lanes(self) -> LaneCount {
        match self {
            Self::Auto => LaneCount { min: 1, max: Self::AUTO_MAX },
            Self::Single => LaneCount { min: 1, max: 1 },
            Self::Parallel(count) => LaneCount { min: count.count(), max: count.count() },
        }
    }
}

impl std::str::FromStr for Sockets {
    type Err = BadSockets;

    fn from_str(text: &str) -> Result<Self, BadSockets> {
        match text.trim() {
            "auto" | "" => Ok(Self::Auto),
            "single" => Ok(Self::Single),
            number => match number.parse() {
                Ok(count) => Self::parallel(count),
                Err(_) => Err(BadSockets(format!("{text:?}"))),
            },
        }
    }
}

impl std::fmt::Display for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Single => f.pad("single"),
            Self::Parallel(count) => count.count().fmt(f),
        }
    }
}

/// Options of the `tcp` transport.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Where to listen. Empty (default): loopback for `ListenScope::ThisUser`, all interfaces for `Anywhere`. A port of 0 takes
    /// one of `ports`.
    pub bind: Vec<SocketAddr>,
    /// Ports to try, in order. Default `0..=0`: the kernel chooses a free one.
    pub ports: RangeInclusive<u16>,
    /// What to publish instead of the discovered addresses: `HOST`, `HOST:PORT`, `[V6]:PORT`. Without a port, the bound one.
    pub advertise: Vec<String>,
    /// Congestion control.
    pub congestion_control: CongestionControl,
    /// How many sockets carry one session. Default [`Sockets::Auto`].
    pub sockets: Sockets,
    /// Length of the queue of connections that wait for `accept`. Default 4096; the kernel caps it at `net.core.somaxconn`.
    pub backlog: i32,
    /// Sizes.
    pub stream: StreamOptions,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            bind: Vec::new(),
            ports: 0..=0,
            advertise: Vec::new(),
            congestion_control: CongestionControl::Auto,
            sockets: Sockets::Auto,
            backlog: 4096,
            stream: StreamOptions::default(),
        }
    }
}

/// Options of the `uds` transport.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UdsOptions {
    /// Directory of the sockets. `None` (default): [`sinew_base::runtime_dir::default_path`]. Which directories are trusted
    /// says [`sinew_base::runtime_dir::prepare`].
    pub runtime_dir: Option<PathBuf>,
    /// Length of the queue of connections that wait for `accept`. Default 4096.
    pub backlog: i32,
    /// Sizes.
    pub stream: StreamOptions,
}

impl Default for UdsOptions {
    fn default() -> Self {
        Self { runtime_dir: None, backlog: 4096, stream: StreamOptions::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_sockets_that_cannot_be_is_refused_with_what_can() {
        for (text, lanes) in
            [("auto", (1, 8)), ("", (1, 8)), ("single", (1, 1)), ("1", (1, 1)), (" 16 ", (16, 16))]
        {
            let sockets: Sockets = text.parse().expect(text);
            assert_eq!((sockets.lanes().min, sockets.lanes().max), lanes, "{text}");
            assert_eq!(sockets.to_string().parse(), Ok(sockets));
        }
        for wrong in ["0", "17", "-1", "4.5", "parallel", "99999999999999999999"] {
            let error = wrong.parse::<Sockets>().expect_err(wrong).to_string();
            assert!(
                error.contains(wrong) && error.contains("auto, single, or a number from 1 to 16"),
                "{error}"
            );
        }
        assert!(Sockets::parallel(0).is_err() && Sockets::parallel(272).is_err());
    }
}
