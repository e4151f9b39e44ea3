//! Between an engine and the survivor's socket: passes a proper handshake and the proof of the lane on, records it, and can be taken
//! over afterwards to say anything.

use crate::common::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use sinew::Engine;
use sinew::frame::stream::{HEADER_LEN, decode, encode};
use sinew::frame::{Header, Kind};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A record of the hello.
pub(crate) const RECORD: usize = 512;

pub(crate) trait Socket: Read + Write + AsFd + Send {
    fn finish_writing(&self);
}

impl Socket for TcpStream {
    fn finish_writing(&self) {
        let _ = self.shutdown(std::net::Shutdown::Write);
    }
}

impl Socket for UnixStream {
    fn finish_writing(&self) {
        let _ = self.shutdown(std::net::Shutdown::Write);
    }
}

/// The way into an engine by this lane, of those that its address names.
pub(crate) fn way_in(address: &str, lane: &str) -> String {
    let starts: &[&str] = match lane {
        "tcp" => &["tcp:127.0.0.1:", "tcp:127"],
        "uds" => &["uds:"],
        _ => &["shm:"],
    };
    let part = address.split(',').find(|part| starts.iter().any(|start| part.starts_with(start)));
    part.expect("a way in").split(' ').next().expect("a locator").to_owned()
}

/// Connects as a stranger does.
pub(crate) fn knock(way: &str) -> std::io::Result<Box<dyn Socket>> {
    let (lane, to) = way.split_once(':').expect("a locator");
    if lane == "tcp" {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        return Ok(Box::new(stream));
    }
    let stream = UnixStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(Box::new(stream))
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Listener {
    fn new(lane: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        if lane == "tcp" {
            return Self::Tcp(TcpListener::bind("127.0.0.1:0").expect("a port"));
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hostile-{}-{number}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self::Unix(UnixListener::bind(&path).expect("a socket"), path)
    }

    /// An explicit target that leads here.
    fn target(&self, endpoint: &str) -> String {
        match self {
            Self::Tcp(listener) => format!("tcp://{}/{endpoint}", listener.local_addr().expect("bound")),
            Self::Unix(_, path) => format!("uds://{}#{endpoint}", path.display()),
        }
    }

    fn accept(&self) -> Box<dyn Socket> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().expect("the engine");
                stream.set_nodelay(true).expect("a socket");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                Box::new(stream)
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().expect("the engine");
                stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                Box::new(stream)
            }
        }
    }
}

/// What went over a connection before it was taken over.
#[derive(Clone, Default)]
pub(crate) struct Recording {
    /// From the engine, and from the survivor.
    pub(crate) out: Vec<u8>,
    pub(crate) back: Vec<u8>,
}

/// A connection that the survivor has accepted and proven.
pub(crate) struct Wire {
    stream: Box<dyn Socket>,
    inbox: Vec<u8>,
    /// Of the frame that came last.
    body: Vec<u8>,
    nonce: u64,
    /// The survivor has said that the session is over.
    pub(crate) goodbye: bool,
    pub(crate) recording: Recording,
}

/// What became of something that was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The survivor goes on talking.
    Answered,
    /// It has ended the connection.
    Ended,
}

impl Wire {
    /// Connects `client` to the survivor's endpoint `prey` over here, then takes the connection over and gives the engine up.
    pub(crate) fn new(lane: &str, way: &str, client: Engine) -> Self {
        let listener = Listener::new(lane);
        let target = listener.target("prey");
        let take_over = AtomicBool::new(false);
        let (stream, recording) = std::thread::scope(|scope| {
            let relay = scope.spawn(|| {
                let near = listener.accept();
                relay(near, knock(way).expect("the survivor listens"), &take_over)
            });
            let endpoint = client.endpoint("client").expect("an endpoint");
            let to = endpoint.connect_within(&target, PATIENCE).expect("a way through");
            take_over.store(true, Ordering::Release);
            let relayed = relay.join().expect("the relay");
            drop(to);
            relayed
        });
        let _ = client.close(Duration::ZERO);
        Self { stream, inbox: Vec::new(), body: Vec::new(), nonce: 1 << 48, goodbye: false, recording }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Fate {
        if self.stream.write_all(bytes).is_ok() { Fate::Answered } else { Fate::Ended }
    }

    /// Nothing more will be said: the survivor ends the connection.
    pub(crate) fn hang_up(mut self) -> Fate {
        self.stream.finish_writing();
        while self.frame().is_some() {}
        Fate::Ended
    }

    /// Asks whether the survivor is still there, and waits for the answer or the end.
    pub(crate) fn probe(&mut self) -> Fate {
        self.nonce += 1;
        let nonce = self.nonce;
        if self.write(&encode(&Header::control(Kind::PROBE, nonce), 0)) == Fate::Ended {
            // What it has said before it ended the connection may still be read.
        }
        while let Some(header) = self.frame() {
            self.goodbye |= header.kind == Kind::GOODBYE;
            if header.kind == Kind::PROBE_REPLY && header.tag == nonce {
                return Fate::Answered;
            }
        }
        Fate::Ended
    }

    /// Waits until the survivor fetches a message: its operation and the turn. `None`: it has ended the connection.
    pub(crate) fn fetched(&mut self) -> Option<crate::cases::Fetch> {
        loop {
            let header = self.frame()?;
            self.goodbye |= header.kind == Kind::GOODBYE;
            let word = |at: usize| self.body.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
            if header.kind == Kind::FETCH {
                return Some(crate::cases::Fetch { operation: word(0)?, turn: word(24).unwrap_or(0) as u16 });
            }
        }
    }

    /// Waits until the survivor fetches or says that it has all of message `number`: whether it is that.
    pub(crate) fn is_done(&mut self, number: u64) -> Option<bool> {
        loop {
            let header = self.frame()?;
            match header.kind {
                Kind::FETCH => return Some(false),
                Kind::DONE if header.tag == number => return Some(true),
                _ => {}
            }
        }
    }

    /// The next frame of the survivor; `None` at the end. Its body stays in `body`.
    fn frame(&mut self) -> Option<Header> {
        let start = Instant::now();
        loop {
            if let Some(head) = self.inbox.first_chunk::<HEADER_LEN>() {
                let (header, len) = decode(head).expect("the survivor's own frames are whole");
                // A pad.
                let pad =
                    if header.flags.0 & 0x20 != 0 { self.inbox.get(HEADER_LEN).copied() } else { Some(0) };
                let whole = pad.map(|pad| HEADER_LEN + usize::from(pad) + len as usize);
                if let Some(whole) = whole.filter(|&whole| self.inbox.len() >= whole) {
                    self.body = self.inbox[whole - len as usize..whole].to_vec();
                    self.inbox.drain(..whole);
                    return Some(header);
                }
            }
            assert!(
                start.elapsed() < PATIENCE,
                "the survivor neither answers nor ends the connection: {}",
                crate::survivor::state()
            );
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(got) => self.inbox.extend_from_slice(&bytes[..got]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!(
                        "the survivor neither answers nor ends the connection: {}",
                        crate::survivor::state()
                    )
                }
                Err(_) => return None,
            }
        }
    }
}

/// Passes records and whole frames on until it is told to stop, or one side is gone.
fn relay(
    mut near: Box<dyn Socket>,
    mut far: Box<dyn Socket>,
    stop: &AtomicBool,
) -> (Box<dyn Socket>, Recording) {
    let mut recording = Recording::default();
    let (mut waiting, mut records) = (Vec::new(), 0);
    while !stop.load(Ordering::Acquire) {
        let ready = {
            let mut both = [PollFd::new(&near, PollFlags::IN), PollFd::new(&far, PollFlags::IN)];
            let brief = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
            let _ = poll(&mut both, Some(&brief));
            [!both[0].revents().is_empty(), !both[1].revents().is_empty()]
        };
        let mut bytes = [0; 1 << 16];
        if ready[0] {
            let got = near.read(&mut bytes).unwrap_or(0);
            if got == 0 {
                break;
            }
            waiting.extend_from_slice(&bytes[..got]);
            let whole = whole_part(&waiting, &mut records);
            recording.out.extend_from_slice(&waiting[..whole]);
            if far.write_all(&waiting[..whole]).is_err() {
                break;
            }
            waiting.drain(..whole);
        }
        if ready[1] {
            let got = far.read(&mut bytes).unwrap_or(0);
            if got == 0 {
                break;
            }
            recording.back.extend_from_slice(&bytes[..got]);
            if near.write_all(&bytes[..got]).is_err() {
                break;
            }
        }
    }
    (far, recording)
}

/// Bytes of whole records (a dialer says two), then of whole frames.
fn whole_part(bytes: &[u8], records: &mut usize) -> usize {
    let mut at = 0;
    while *records < 2 && bytes.len() - at >= RECORD {
        at += RECORD;
        *records += 1;
    }
    while *records == 2
        && let Some((header, len)) =
            bytes[at..].first_chunk::<HEADER_LEN>().map(|head| decode(head).expect("the engine's own frames"))
    {
        let pad = if header.flags.0 & 0x20 != 0 { bytes.get(at + HEADER_LEN).copied() } else { Some(0) };
        let Some(pad) = pad else { break };
        let whole = at + HEADER_LEN + usize::from(pad) + len as usize;
        if bytes.len() < whole {
            break;
        }
        at = whole;
    }
    at
}
