//! Stream sockets, TCP on loopback and Unix: ping-pong and stream, spinning or blocking.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::memory::Private;
use super::pair::{self, Second};
use super::{Mode, RawArgs, ping_pong};
use crate::sample::{self, Sample};

/// The receiver of a stream reads at least and at most this much in a call.
const READ_BYTES: (usize, usize) = (256 << 10, 4 << 20);

/// A connected stream socket of either family.
enum Socket {
    Tcp(TcpStream),
    Uds(UnixStream),
}

impl Socket {
    /// A connected pair.
    fn pair(args: &RawArgs) -> Result<(Self, Self)> {
        if matches!(args.mode, Mode::Uds | Mode::UdsStream) {
            let (first, second) = UnixStream::pair().context("socketpair")?;
            return Ok((Self::Uds(first), Self::Uds(second)));
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
        let first = TcpStream::connect(listener.local_addr()?).context("connect on loopback")?;
        let (second, _) = listener.accept().context("accept")?;
        for socket in [&first, &second] {
            socket.set_nodelay(true)?;
            if let Some(control) = &args.congestion {
                rustix::net::sockopt::set_tcp_congestion(socket, control)
                    .with_context(|| format!("congestion control {control}"))?;
            }
        }
        Ok((Self::Tcp(first), Self::Tcp(second)))
    }

    /// The second side's socket, which came as descriptor 0.
    fn inherited(args: &RawArgs) -> Result<Self> {
        let socket = pair::input()?;
        Ok(match args.mode {
            Mode::Uds | Mode::UdsStream => Self::Uds(socket.into()),
            _ => Self::Tcp(socket.into()),
        })
    }

    fn into_fd(self) -> OwnedFd {
        match self {
            Self::Tcp(socket) => socket.into(),
            Self::Uds(socket) => socket.into(),
        }
    }

    fn set_block(&self, block: bool) -> Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nonblocking(!block),
            Self::Uds(socket) => socket.set_nonblocking(!block),
        }
        .context("blocking mode")
    }

    #[inline(always)]
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(to),
            Self::Uds(socket) => socket.read(to),
        }
    }

    #[inline(always)]
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(from),
            Self::Uds(socket) => socket.write(from),
        }
    }

    /// Sends all of `from`, spinning where the socket does not block.
    #[inline(always)]
    fn send(&mut self, mut from: &[u8]) -> Result<()> {
        while !from.is_empty() {
            match self.write(from) {
                Ok(len) => from = &from[len..],
                Err(error) if again(&error) => {}
                Err(error) => bail!("send: {error}"),
            }
        }
        Ok(())
    }

    /// Receives at least a byte, at most all of `to`.
    #[inline(always)]
    fn receive_some(&mut self, to: &mut [u8]) -> Result<usize> {
        loop {
            match self.read(to) {
                Ok(0) => bail!("the other side closed"),
                Ok(len) => return Ok(len),
                Err(error) if again(&error) => {}
                Err(error) => bail!("receive: {error}"),
            }
        }
    }

    /// Receives exactly `to`.
    #[inline(always)]
    fn receive(&mut self, to: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < to.len() {
            filled += self.receive_some(&mut to[filled..])?;
        }
        Ok(())
    }
}

fn again(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

pub(super) fn echo_first(args: &RawArgs) -> Result<Sample> {
    ensure!(args.size > 0, "a ping-pong needs a size");
    let (mut socket, second) = Socket::pair(args)?;
    let _second = Second::start(&args.cpus, second.into_fd(), Stdio::null())?;
    // The flag belongs to each end's own open file, so the other side sets its own.
    socket.set_block(args.block)?;
    let mut buffer = Private::new(args.size, 1)?;
    let mut outcome = Ok(());
    let mut sequence = 0u8;
    let sample = ping_pong(args.seconds, || {
        if outcome.is_ok() {
            sequence = sequence.wrapping_add(1);
            buffer[0] = sequence;
            outcome = socket.send(&buffer).and_then(|()| socket.receive(&mut buffer));
        }
    });
    outcome?;
    ensure!(buffer[0] == sequence, "a payload came back changed");
    Ok(sample)
}

pub(super) fn echo_second(args: &RawArgs) -> Result<()> {
    let mut socket = Socket::inherited(args)?;
    socket.set_block(args.block)?;
    let mut buffer = Private::new(args.size, 2)?;
    loop {
        socket.receive(&mut buffer)?;
        socket.send(&buffer)?;
    }
}

/// The first side receives, so its count is of bytes that arrived.
pub(super) fn stream_first(args: &RawArgs) -> Result<Sample> {
    ensure!(args.size > 0, "a stream needs a size");
    let (mut socket, second) = Socket::pair(args)?;
    let _second = Second::start(&args.cpus, second.into_fd(), Stdio::null())?;
    socket.set_block(args.block)?;
    let mut buffer = Private::new(args.size.clamp(READ_BYTES.0, READ_BYTES.1), 1)?;
    let warm_up = Instant::now();
    while warm_up.elapsed() < sample::stream_warm_up(args.seconds) {
        socket.receive_some(&mut buffer)?;
    }
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed() < Duration::from_secs_f64(args.seconds) {
        bytes += socket.receive_some(&mut buffer)? as u64;
    }
    let elapsed = start.elapsed();
    let rate = bytes as f64 / elapsed.as_secs_f64();
    Ok(Sample { bytes_per_s: Some(rate), messages_per_s: Some(rate / args.size as f64), ..Sample::default() })
}

pub(super) fn stream_second(args: &RawArgs) -> Result<()> {
    let mut socket = Socket::inherited(args)?;
    socket.set_block(args.block)?;
    let buffer = Private::new(args.size * args.per_write, 2)?;
    loop {
        socket.send(&buffer)?;
    }
}
