//! What can be set on the stream transports, with defaults. Plain data; the engine's option table fills it.

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

/// Which congestion control TCP connections use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum CongestionControl {
    /// On this machine's own addresses one that does not pace (`cubic`, else `reno`) if the kernel lets this process choose
    /// it; towards other machines the system's default.
    #[default]
    Auto,
    /// The system's default everywhere.
    System,
    /// This one everywhere; refused by the kernel means an error.
    Named(String),
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
