//! The raw programs: the smallest program over each mechanism, the limit that Sinew is measured against.
//! `sinew-bench raw MODE` is the first side; it starts the second side as a process of its own, each pinned to its
//! core. The runner calls them; one can also be run by hand. They must not use Sinew.

mod copy;
mod line;
mod memcpy;
mod memory;
pub mod pair;
pub mod ping_pong;
mod ring;
mod slots;
mod socket;
pub mod wake;

use ping_pong::ping_pong;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::sample::Sample;

/// The mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Ping-pong over one cache line each way that carries sequence number and payload (at most 56 B).
    Line,
    /// Ping-pong of private memory copied into a shared area and out of it.
    Copy,
    /// Stream from private memory through a cache-sized window of chunks into private memory.
    Window,
    /// Stream of 64-byte slots, sequence number and payload (at most 56 B) in one cache line.
    Ring,
    /// Stream of slots of any size, sequence number in front of the payload, copied in and out.
    Slots,
    /// memcpy between two private buffers, one process.
    Memcpy,
    /// process_vm_readv of the other process's private memory.
    CrossRead,
    /// Ping-pong over two eventfds, both sides asleep in between.
    Eventfd,
    /// Ping-pong over two futex words, both sides asleep in between.
    Futex,
    /// The other side sleeps in an eventfd for a while, is woken, and answers through a cache line.
    Wake,
    /// TCP ping-pong on loopback.
    Tcp,
    /// TCP stream on loopback.
    TcpStream,
    /// Unix stream socket ping-pong.
    Uds,
    /// Unix stream socket stream.
    UdsStream,
}

/// What a raw program is told.
#[derive(Debug, Clone, Args)]
pub struct RawArgs {
    /// The mechanism.
    pub mode: Mode,
    /// Bytes of one message.
    #[arg(long, default_value_t = 8)]
    pub size: usize,
    /// How long to measure.
    #[arg(long, default_value_t = 0.4)]
    pub seconds: f64,
    /// Spin with PAUSE.
    #[arg(long)]
    pub pause: bool,
    /// Sleep in the kernel instead of spinning (sockets).
    #[arg(long)]
    pub block: bool,
    /// Congestion control of TCP; the system's default without it.
    #[arg(long)]
    pub congestion: Option<String>,
    /// Messages per write (streams over sockets).
    #[arg(long, default_value_t = 1)]
    pub per_write: usize,
    /// The two cores, first side first.
    #[arg(long, value_delimiter = ',', num_args = 1.., default_value = "0,1")]
    pub cpus: Vec<usize>,
    /// This process is the second side; its descriptors are standard input and output.
    #[arg(long, hide = true)]
    pub second: bool,
}

/// Runs a raw program, either side. Only the first side returns a result.
pub fn run(args: &RawArgs) -> Result<Option<Sample>> {
    let cpu = args.cpus.get(usize::from(args.second)).copied();
    pair::pin(cpu)?;
    pair::die_with_parent()?;
    if args.second {
        match args.mode {
            Mode::Line => line::second(args)?,
            Mode::Copy => copy::second(args)?,
            Mode::Window => copy::window_second(args)?,
            Mode::Ring => ring::second(args)?,
            Mode::Slots => slots::second(args)?,
            Mode::Memcpy => {}
            Mode::CrossRead => memcpy::cross_read_second(args)?,
            Mode::Eventfd => wake::eventfd_second()?,
            Mode::Futex => wake::futex_second()?,
            Mode::Wake => wake::wake_second()?,
            Mode::Tcp | Mode::Uds => socket::echo_second(args)?,
            Mode::TcpStream | Mode::UdsStream => socket::stream_second(args)?,
        }
        return Ok(None);
    }
    let sample = match args.mode {
        Mode::Line => line::first(args),
        Mode::Copy => copy::first(args),
        Mode::Window => copy::window_first(args),
        Mode::Ring => ring::first(args),
        Mode::Slots => slots::first(args),
        Mode::Memcpy => memcpy::memcpy(args),
        Mode::CrossRead => memcpy::cross_read_first(args),
        Mode::Eventfd => wake::eventfd_first(args),
        Mode::Futex => wake::futex_first(args),
        Mode::Wake => wake::wake_first(args),
        Mode::Tcp | Mode::Uds => socket::echo_first(args),
        Mode::TcpStream | Mode::UdsStream => socket::stream_first(args),
    }?;
    Ok(Some(sample))
}
