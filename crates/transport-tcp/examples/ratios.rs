//! Stream lanes against bare sockets of the same kind, interleaved in one run: two processes on two processors, spinning.
//!
//! `cargo run --release -p sinew-transport-tcp --example ratios -- [ROUNDS] [FAMILY…]` prints medians and ratios.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use sinew_transport::{
    Body, Domain, DomainContext, Lane, LaneError, LaneParams, Link, LinkState, ListenScope, Locator,
    Placement, PollKey, Poller, Role, Sink, Token, Transport,
};
use sinew_transport_tcp::{TcpOptions, TcpTransport, UdsOptions, UdsTransport};
use sinew_wire::frame::{Header, Kind};
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

const SIZES: [usize; 4] = [8, 4096, 64 << 10, 1 << 20];
const STREAMED: [usize; 2] = [64 << 10, 1 << 20];

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--child") {
        return child(&arguments[1..]);
    }
    let rounds: usize = arguments.first().map_or(Ok(100), |text| text.parse())?;
    let families =
        if arguments.len() > 1 { &arguments[1..] } else { &["tcp".to_owned(), "uds".to_owned()][..] };
    for family in families {
        parent(family, rounds)?;
    }
    Ok(())
}

fn transport(family: &str) -> Box<dyn Transport> {
    if family == "uds" {
        Box::new(UdsTransport::new(UdsOptions::default()))
    } else {
        Box::new(TcpTransport::new(TcpOptions::default()))
    }
}

fn open(family: &str, listen: ListenScope) -> Result<Box<dyn Domain>, Failure> {
    let mut engine = [7; 16];
    engine[..4].copy_from_slice(&std::process::id().to_le_bytes());
    let poller = Arc::new(Poller::new()?);
    Ok(transport(family).open(DomainContext { engine, listen, poller, owner: 1 })?)
}

/// A bare connection and a lane.
struct Pair {
    raw: OwnedFd,
    lane: Box<dyn Lane>,
    sink: Placing,
    scratch: Vec<u8>,
    /// Frames that both sides have agreed on so far.
    expected: u64,
}

fn parent(family: &str, rounds: usize) -> Result<(), Failure> {
    pin(0)?;
    let mut domain = open(family, ListenScope::ThisUser)?;
    let to = domain.locators().first().ok_or("no locator")?.to_string();
    let (bare, listener) = Bare::listen(family)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--child", family, &to, &bare, &rounds.to_string()])
        .spawn()?;
    let raw = listener.accept()?;
    let link = wait(|| domain.accept(2).transpose())??;
    let mut pair = Pair::new(raw, link, Role::Acceptor)?;
    let mut table = Table::default();
    for round in 0..rounds + 1 {
        for test in tests() {
            for with_lane in sides() {
                let took = test.run(&mut pair, with_lane, true)?;
                if std::env::var_os("VERBOSE").is_some() {
                    eprintln!("{} {with_lane} {took:.0}", test.name());
                }
                if round > 0 {
                    table.add(test, with_lane, took);
                }
            }
        }
    }
    child.wait()?;
    table.print(family);
    Ok(())
}

fn child(arguments: &[String]) -> Result<(), Failure> {
    let [family, to, bare, rounds] = arguments else { return Err("four arguments".into()) };
    pin(1)?;
    let mut domain = open(family, ListenScope::Nobody)?;
    let raw = Bare::connect(family, bare)?;
    let mut link = domain.dial(&to.parse::<Locator>()?, 2)?;
    wait(|| match link.poll() {
        Ok(LinkState::Ready) => Some(Ok(())),
        Ok(LinkState::Connecting) => None,
        Err(error) => Some(Err(error)),
    })??;
    let mut pair = Pair::new(raw, link, Role::Dialer)?;
    for _ in 0..rounds.parse::<usize>()? + 1 {
        for test in tests() {
            for with_lane in sides() {
                test.run(&mut pair, with_lane, false)?;
            }
        }
    }
    Ok(())
}

fn pin(cpu: usize) -> Result<(), Errno> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)
}

fn wait<T>(mut ask: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = ask() {
            return Ok(value);
        }
        if Instant::now() > end {
            return Err("nothing came in 10 s".into());
        }
    }
}

enum Bare {
    Tcp(std::net::TcpListener),
    Uds(UnixListener, String),
}

impl Bare {
    fn listen(family: &str) -> Result<(String, Self), Failure> {
        if family == "uds" {
            let path = std::env::temp_dir().join(format!("ratios-{}.sock", std::process::id()));
            let text = path.display().to_string();
            return Ok((text.clone(), Self::Uds(UnixListener::bind(path)?, text)));
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        without_pacing(&listener);
        Ok((listener.local_addr()?.to_string(), Self::Tcp(listener)))
    }

    fn accept(&self) -> Result<OwnedFd, Failure> {
        Ok(match self {
            Self::Tcp(listener) => prepare(listener.accept()?.0.into())?,
            Self::Uds(listener, path) => {
                let fd = listener.accept()?.0.into();
                std::fs::remove_file(path)?;
                fd
            }
        })
    }

    fn connect(family: &str, to: &str) -> Result<OwnedFd, Failure> {
        if family == "uds" {
            return Ok(UnixStream::connect(to)?.into());
        }
        let fd =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
        without_pacing(&fd);
        rustix::net::connect(&fd, &to.parse::<std::net::SocketAddr>()?)?;
        Ok(prepare(fd)?)
    }
}

fn without_pacing(fd: impl std::os::fd::AsFd) {
    // Raw sockets get the congestion control that is best for them here.
    let _ = sockopt::set_tcp_congestion(fd, "cubic");
}

fn prepare(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    sockopt::set_tcp_nodelay(&fd, true)?;
    Ok(fd)
}

/// Puts every body into one place.
struct Placing {
    target: Vec<u8>,
    frames: u64,
    released: u64,
}

// SAFETY: the target is as long as the longest body, is read by nobody, and lives in a `Pair`, which drops its lane first.
unsafe impl Sink for Placing {
    fn frame(&mut self, _: &Header, body: Body<'_>) {
        body.copy_to(&mut self.target);
        self.frames += 1;
    }

    fn place(&mut self, _: &Header, len: usize) -> Placement {
        assert!(len <= self.target.len());
        Placement::Into {
            target: NonNull::new(self.target.as_mut_ptr()).unwrap_or(NonNull::dangling()),
            token: Token(0),
        }
    }

    fn placed(&mut self, _: &Header, _: usize) {
        self.frames += 1;
    }

    fn released(&mut self, _: Token) {
        self.released += 1;
    }

    fn pulled(&mut self, _: Token, _: Result<(), LaneError>) {}
}

impl Pair {
    fn new(raw: OwnedFd, link: Box<dyn Link>, role: Role) -> Result<Self, Failure> {
        let key = PollKey { owner: 2, sub: 0 };
        let lane = link.into_lane(LaneParams { role, key, peer_timeout: Duration::from_secs(10) })?;
        let sink = Placing { target: vec![0; 1 << 20], frames: 0, released: 0 };
        Ok(Self { raw, lane, sink, scratch: vec![1; 1 << 20], expected: 0 })
    }

    fn raw_send(&self, len: usize) -> Result<(), Errno> {
        let mut at = 0;
        while at < len {
            match rustix::net::send(
                &self.raw,
                &self.scratch[at..len],
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(count) => at += count,
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn raw_recv(&mut self, len: usize) -> Result<(), Failure> {
        let mut at = 0;
        while at < len {
            match rustix::net::recv(&self.raw, &mut self.scratch[at..len], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err("the raw connection ended".into()),
                Ok((_, count)) => at += count,
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Posts a frame, polling while there is no room.
    fn post(&mut self, len: usize) -> Result<(), Failure> {
        let header = Header::data(1, 0);
        loop {
            let result = if len < 16 << 10 {
                let header = Header { kind: Kind::EAGER, ..header };
                self.lane.try_post(&header, &[IoSlice::new(&self.scratch[..len])])
            } else {
                let data = NonNull::new(self.scratch.as_mut_ptr()).unwrap_or(NonNull::dangling());
                // SAFETY: the lane side of the run never writes `scratch`, which lives as long as the lane's use.
                unsafe { self.lane.try_post_borrowed(&header, data, len, Token(0)) }
            };
            match result {
                Ok(()) => return Ok(()),
                Err(sinew_transport::PostError::Full) => {
                    self.lane.flush()?;
                    self.lane.poll(&mut self.sink, 256)?;
                }
                Err(error) => return Err(format!("{error:?}").into()),
            }
        }
    }

    /// Waits for the other process, driving the lane meanwhile: what it has taken it still has to send.
    fn meet(&mut self) -> Result<(), Failure> {
        rustix::net::send(&self.raw, &[0], SendFlags::NOSIGNAL)?;
        while let Err(Errno::AGAIN) = rustix::net::recv(&self.raw, &mut [0], RecvFlags::DONTWAIT) {
            self.lane.poll(&mut self.sink, 256)?;
            self.lane.flush()?;
        }
        Ok(())
    }

    fn lane_recv(&mut self, count: u64) -> Result<(), Failure> {
        self.expected += count;
        while self.sink.frames < self.expected {
            self.lane.poll(&mut self.sink, 256)?;
            self.lane.flush()?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Test {
    /// One way, in nanoseconds.
    Latency(usize),
    /// Per message streamed, in nanoseconds.
    Bandwidth(usize),
    /// Per message of 8 bytes streamed in batches of 256 per write, in nanoseconds.
    Rate,
}

fn tests() -> Vec<Test> {
    let latency = SIZES.map(Test::Latency);
    let all = latency.into_iter().chain(STREAMED.map(Test::Bandwidth)).chain([Test::Rate]);
    let only = std::env::var("ONLY").unwrap_or_default();
    all.filter(|test| test.name().contains(&only)).collect()
}

/// Bare sockets and lanes; one of them when `SIDE` says `raw` or `lane`, for a profiler.
fn sides() -> Vec<bool> {
    match std::env::var("SIDE").as_deref() {
        Ok("raw") => vec![false],
        Ok("lane") => vec![true],
        _ => vec![false, true],
    }
}

impl Test {
    fn run(self, pair: &mut Pair, with_lane: bool, first: bool) -> Result<f64, Failure> {
        let began = Instant::now();
        let count = match self {
            Self::Latency(len) => {
                let count = if len >= 1 << 20 {
                    5
                } else if len >= 64 << 10 {
                    40
                } else {
                    100
                };
                for _ in 0..count {
                    if with_lane { lane_turn(pair, len, first)? } else { raw_turn(pair, len, first)? }
                }
                2 * count
            }
            Self::Bandwidth(len) => {
                let count = (16 << 20) / len;
                stream(pair, with_lane, first, len, count, 1)?;
                count
            }
            Self::Rate => {
                stream(pair, with_lane, first, 8, 1 << 14, 256)?;
                1 << 14
            }
        };
        let took = began.elapsed().as_nanos() as f64 / count as f64;
        pair.meet()?;
        Ok(took)
    }

    fn name(self) -> String {
        match self {
            Self::Latency(len) => format!("latency {len} B"),
            Self::Bandwidth(len) => format!("stream {len} B"),
            Self::Rate => "stream 8 B, 256 per write".into(),
        }
    }
}

fn raw_turn(pair: &mut Pair, len: usize, first: bool) -> Result<(), Failure> {
    if first {
        pair.raw_send(len)?;
    }
    pair.raw_recv(len)?;
    if !first {
        pair.raw_send(len)?;
    }
    Ok(())
}

fn lane_turn(pair: &mut Pair, len: usize, first: bool) -> Result<(), Failure> {
    if first {
        pair.post(len)?;
        pair.lane.flush()?;
    }
    pair.lane_recv(1)?;
    if !first {
        pair.post(len)?;
        pair.lane.flush()?;
    }
    Ok(())
}

/// One direction, ended by an answer of 8 bytes.
fn stream(
    pair: &mut Pair,
    with_lane: bool,
    first: bool,
    len: usize,
    count: usize,
    batch: usize,
) -> Result<(), Failure> {
    match (with_lane, first) {
        (false, true) => {
            for _ in 0..count / batch {
                pair.raw_send(len * batch)?;
            }
            pair.raw_recv(8)
        }
        (false, false) => {
            for _ in 0..count / batch {
                pair.raw_recv(len * batch)?;
            }
            Ok(pair.raw_send(8)?)
        }
        (true, true) => {
            for at in 0..count {
                pair.post(len)?;
                if (at + 1) % batch == 0 {
                    pair.lane.flush()?;
                    if batch == 1 {
                        pair.lane.poll(&mut pair.sink, 256)?;
                    }
                }
            }
            pair.lane_recv(1)
        }
        (true, false) => {
            pair.lane_recv(count as u64)?;
            pair.post(8)?;
            Ok(pair.lane.flush()?)
        }
    }
}

#[derive(Default)]
struct Table(Vec<(String, [Vec<f64>; 2])>);

impl Table {
    fn add(&mut self, test: Test, with_lane: bool, took: f64) {
        let name = test.name();
        let at = self.0.iter().position(|row| row.0 == name).unwrap_or_else(|| {
            self.0.push((name, Default::default()));
            self.0.len() - 1
        });
        self.0[at].1[usize::from(with_lane)].push(took);
    }

    fn print(&mut self, family: &str) {
        println!(
            "{family:<28} {:>11} {:>11} {:>7} {:>11} {:>11} {:>7}",
            "raw ns p10", "lane ns p10", "ratio", "raw p50", "lane p50", "ratio"
        );
        for (name, columns) in &mut self.0 {
            let mut line = format!("{name:<28}");
            columns.iter_mut().for_each(|all| all.sort_by(f64::total_cmp));
            for part in [10, 2] {
                let [raw, lane] =
                    columns.each_ref().map(|all| all.get(all.len() / part).copied().unwrap_or(f64::NAN));
                line += &format!(" {raw:>11.1} {lane:>11.1} {:>7.3}", lane / raw);
            }
            println!("{line}");
        }
    }
}
