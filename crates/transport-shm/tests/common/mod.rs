//! What the tests of this crate share: a small engine around one domain, a sink that remembers, children of the test
//! binary, waits with a deadline.
#![allow(dead_code, unreachable_pub)]

use rustix::fd::AsFd;
use sinew_transport::{
    Body, Domain, DomainContext, Event, Identity, Lane, LaneError, LaneParams, Link, LinkState, ListenScope,
    Locator, Placement, PollKey, Poller, PostError, Role, Sink, Token, Transport,
};
use sinew_transport_shm::{ShmOptions, ShmTransport};
use sinew_wire::frame::{Flags, Header, Kind};
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest that a test waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(30 * sinew_testing::SLOWNESS);

/// A directory that goes away with the value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sinew-shm-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("scratch directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A sink that remembers frames.
#[derive(Default)]
pub struct Seen {
    pub frames: Vec<(Header, Vec<u8>)>,
    pub released: Vec<Token>,
    pub pulled: Vec<(Token, Result<(), LaneError>)>,
}

// SAFETY: it names no memory.
#[allow(unsafe_code)]
unsafe impl Sink for Seen {
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        self.frames.push((*header, body.to_vec()));
    }
    fn place(&mut self, _header: &Header, _len: usize) -> Placement {
        Placement::Discard
    }
    fn placed(&mut self, _header: &Header, _len: usize) {}
    fn released(&mut self, token: Token) {
        self.released.push(token);
    }
    fn pulled(&mut self, token: Token, result: Result<(), LaneError>) {
        self.pulled.push((token, result));
    }
}

/// A domain with its poller.
pub struct Engine {
    pub domain: Box<dyn Domain>,
    pub poller: Arc<Poller>,
    pub next_owner: u32,
    pub events: Vec<Event>,
    pub naps: u32,
}

pub const DOMAIN: u32 = 0;

pub fn options(directory: &Path) -> ShmOptions {
    ShmOptions { runtime_dir: Some(directory.into()), ..ShmOptions::default() }
}

impl Engine {
    pub fn open(options: ShmOptions, number: u8) -> Self {
        Self::try_open(options, number).expect("domain")
    }

    pub fn try_open(options: ShmOptions, number: u8) -> Result<Self, sinew_transport::TransportError> {
        let poller = Arc::new(Poller::new().expect("poller"));
        let mut engine = [number; 16];
        engine[..4].copy_from_slice(&std::process::id().to_le_bytes());
        let context =
            DomainContext { engine, listen: ListenScope::ThisUser, poller: poller.clone(), owner: DOMAIN };
        let domain = ShmTransport::new(options).open(context)?;
        Ok(Self { domain, poller, next_owner: 1, events: Vec::new(), naps: 0 })
    }

    pub fn owner(&mut self) -> u32 {
        self.next_owner += 1;
        self.next_owner - 1
    }

    pub fn locator(&self) -> Locator {
        self.domain.locators().remove(0)
    }

    pub fn dial(&mut self, to: &Locator) -> (Box<dyn Link>, u32) {
        let owner = self.owner();
        (self.domain.dial(to, owner).expect("dialled"), owner)
    }

    pub fn accept(&mut self) -> (Box<dyn Link>, u32) {
        let owner = self.owner();
        let link = wait("a connection", || self.domain.accept(owner).expect("listener"));
        (link, owner)
    }

    /// A lane to `to`, without records first; open when this returns.
    pub fn connect(&mut self, to: &Locator) -> Box<dyn Lane> {
        let (mut link, owner) = self.dial(to);
        wait_ready(&mut *link);
        lane(link, Role::Dialer, owner)
    }

    pub fn accept_lane(&mut self) -> Box<dyn Lane> {
        let (mut link, owner) = self.accept();
        wait_ready(&mut *link);
        lane(link, Role::Acceptor, owner)
    }

    /// Looks at the poller once, telling the domain and `lanes` (by owner).
    pub fn turn(&mut self, timeout: Duration, lanes: &mut [(u32, &mut dyn Lane)]) {
        self.events.clear();
        self.poller.wait(Some(timeout), &mut self.events).expect("poller");
        for event in &self.events {
            if event.key.owner == DOMAIN {
                self.domain.handle_event(*event);
            } else if let Some((_, lane)) = lanes.iter_mut().find(|(owner, _)| *owner == event.key.owner) {
                lane.handle_event(*event);
            }
        }
    }
}

pub fn wait_ready(link: &mut dyn Link) {
    wait("the link", || (link.poll().expect("link") == LinkState::Ready).then_some(()));
    if std::env::var_os("SINEW_TEST_STRANGER").is_none() {
        assert!(matches!(link.identity(), Identity::SameUser { .. }), "{:?}", link.identity());
    } else {
        assert!(matches!(link.identity(), Identity::OtherUser { .. }), "{:?}", link.identity());
    }
}

pub fn lane(link: Box<dyn Link>, role: Role, owner: u32) -> Box<dyn Lane> {
    let params = LaneParams { role, key: PollKey { owner, sub: 0 }, peer_timeout: Duration::from_secs(10) };
    link.into_lane(params).expect("lane")
}

/// Two open lanes to each other.
pub fn pair(left: &mut Engine, right: &mut Engine) -> (Box<dyn Lane>, Box<dyn Lane>) {
    let mut near = left.connect(&right.locator());
    let mut far = right.accept_lane();
    let header = frame(0, 0);
    let mut seen = Seen::default();
    wait("open lanes", || {
        near.poll(&mut seen, 1).expect("near");
        far.poll(&mut seen, 1).expect("far");
        near.try_post(&header, &[]).is_ok().then_some(())
    });
    wait("first frame", || {
        far.poll(&mut seen, 1).expect("far");
        (seen.frames.len() == 1).then_some(())
    });
    (near, far)
}

/// A frame that says which one it is.
pub fn frame(number: u64, dst: u32) -> Header {
    Header { kind: Kind::EAGER, flags: Flags(0), dst, src: !dst, tag: number }
}

/// The body that belongs to frame `number`.
pub fn body_of(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number as usize * 31 + at * 7) as u8).collect()
}

pub fn post(lane: &mut dyn Lane, header: &Header, body: &[u8]) -> Result<(), PostError> {
    lane.try_post(header, &[IoSlice::new(body)])
}

/// Asks until it is answered, or the deadline has passed.
#[track_caller]
pub fn wait<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        std::thread::yield_now();
    }
}

/// A child: this test binary again, running only the (ignored) test `name`, talking over its standard streams.
pub struct Helper {
    pub child: Child,
    pub input: ChildStdin,
    output: BufReader<ChildStdout>,
}

const MARK: &str = "@child ";

impl Helper {
    pub fn start(name: &str, argument: &str) -> Self {
        Self::start_with(Command::new(std::env::current_exe().expect("this binary")), name, argument)
    }

    pub fn start_with(mut command: Command, name: &str, argument: &str) -> Self {
        command
            .args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env("SINEW_TEST_ARGUMENT", argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("child");
        let input = child.stdin.take().expect("stdin");
        let output = BufReader::new(child.stdout.take().expect("stdout"));
        Self { child, input, output }
    }

    /// The next line that the child said.
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("readable");
            assert!(read > 0, "the child ended without a word");
            if let Some(at) = line.find(MARK) {
                return line[at + MARK.len()..].trim_end().to_string();
            }
        }
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the child listens");
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In a child: its argument, or `None` when it was started by hand.
pub fn argument() -> Option<String> {
    std::env::var("SINEW_TEST_ARGUMENT").ok()
}

/// In a child: says a line to the parent.
pub fn tell(line: &str) {
    println!("\n{MARK}{line}");
    std::io::stdout().flush().expect("flushed");
}

/// In a child: waits for a line of the parent.
pub fn listen() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("readable");
    line.trim_end().to_string()
}

/// Descriptors open in this process.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count() - 1
}

pub fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll") > 0
}
