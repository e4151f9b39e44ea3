//! How fast a lane is: one-way latency, message rate and bandwidth between two pinned processes through `dyn Lane`, beside
//! a raw cache-line ping-pong of the same run. `cargo run --release -p sinew-transport-shm --example lane_probe`.
#![allow(unsafe_code)]

use sinew_transport::{
    Body, Domain, DomainContext, Lane, LaneParams, LinkState, ListenScope, Placement, PollKey, Poller,
    PostError, Role, Sink, Token, Transport,
};
use sinew_transport_shm::{ShmOptions, ShmTransport};
use sinew_wire::frame::{Flags, Header, Kind};
use std::io::{IoSlice, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const LATENCY_SIZES: [usize; 9] = [8, 40, 41, 104, 256, 1024, 2048, 4096, 16384];
const BULK_SIZES: [usize; 7] = [0, 8, 40, 1024, 4096, 16384, 65536];

/// Copies what arrives to the same place, as a matched receive would.
struct Take {
    target: Vec<u8>,
    frames: u64,
    tag: u64,
}

// SAFETY: it names no memory.
unsafe impl Sink for Take {
    #[inline]
    fn frame(&mut self, header: &Header, body: Body<'_>) {
        body.copy_to(&mut self.target);
        self.frames += 1;
        self.tag = header.tag;
    }
    fn place(&mut self, _header: &Header, _len: usize) -> Placement {
        Placement::Discard
    }
    fn placed(&mut self, _header: &Header, _len: usize) {}
    fn released(&mut self, _token: Token) {}
    fn pulled(&mut self, _token: Token, _result: Result<(), sinew_transport::LaneError>) {}
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

fn open(directory: &Path, number: u8, listen: ListenScope) -> Box<dyn Domain> {
    let mut options = ShmOptions { runtime_dir: Some(directory.into()), ..ShmOptions::default() };
    let number_of = |name: &str, default: usize| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    options.large_window = number_of("LARGE", options.large_window);
    options.small_window = number_of("SMALL", options.small_window);
    options.chunk_max = number_of("CHUNK", options.chunk_max);
    options.ring_slots = number_of("SLOTS", options.ring_slots);
    let poller = Arc::new(Poller::new().expect("poller"));
    let context = DomainContext { engine: [number; 16], listen, poller, owner: 0 };
    ShmTransport::new(options).open(context).expect("domain")
}

fn lane(mut link: Box<dyn sinew_transport::Link>, role: Role) -> Box<dyn Lane> {
    while link.poll().expect("link") != LinkState::Ready {}
    let params =
        LaneParams { role, key: PollKey { owner: 1, sub: 0 }, peer_timeout: Duration::from_secs(10) };
    link.into_lane(params).expect("lane")
}

fn header(tag: u64) -> Header {
    Header { kind: Kind::EAGER, flags: Flags(0), dst: 1, src: 1, tag }
}

fn post(lane: &mut dyn Lane, sink: &mut Take, tag: u64, body: &[u8]) {
    loop {
        let posted = if body.len() > 16384 {
            let data = NonNull::new(body.as_ptr().cast_mut()).expect("not null");
            // SAFETY: shared-memory lanes copy before they return.
            unsafe { lane.try_post_borrowed(&header(tag), data, body.len(), Token(0)) }
        } else {
            lane.try_post(&header(tag), &[IoSlice::new(body)])
        };
        match posted {
            Ok(()) => return,
            Err(PostError::Full) => {
                lane.poll(sink, 16).expect("alive");
                std::hint::spin_loop();
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn await_frames(lane: &mut dyn Lane, sink: &mut Take, frames: u64) {
    while sink.frames < frames {
        if lane.poll(sink, 64).expect("alive") == 0 {
            std::hint::spin_loop();
        }
    }
}

fn latency_count(size: usize) -> u64 {
    if size <= 4096 { 20_000 } else { 8_000 }
}

fn bulk_count(size: usize) -> u64 {
    if size <= 40 { 400_000 } else { (64u64 << 20) / size as u64 }
}

fn child(directory: &Path) {
    pin(1);
    raw(directory, false);
    let mut domain = open(directory, 2, ListenScope::ThisUser);
    print!("ready");
    std::io::stdout().flush().expect("flushed");
    let link = loop {
        if let Some(link) = domain.accept(1).expect("listener") {
            break link;
        }
    };
    let mut lane = lane(link, Role::Acceptor);
    let mut sink = Take { target: vec![0; 65536], frames: 0, tag: 0 };
    let body = vec![1u8; 65536];
    for _ in 0..ROUNDS {
        for size in LATENCY_SIZES {
            for _ in 0..latency_count(size) {
                let next = sink.frames + 1;
                await_frames(&mut *lane, &mut sink, next);
                post(&mut *lane, &mut sink, 0, &body[..size]);
            }
        }
        for size in BULK_SIZES {
            let next = sink.frames + bulk_count(size);
            await_frames(&mut *lane, &mut sink, next);
            post(&mut *lane, &mut sink, 0, &[]);
        }
    }
    let next = sink.frames + 1;
    await_frames(&mut *lane, &mut sink, next);
}

/// One-way time of a line that carries a number, without PAUSE; the parent measures.
fn raw(directory: &Path, measure: bool) -> f64 {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join("line"))
        .expect("file");
    file.set_len(4096).expect("length");
    // SAFETY: a fresh shared mapping of a page that holds atomics only.
    let words: &[AtomicU64] = unsafe {
        let base = rustix::mm::mmap(
            std::ptr::null_mut(),
            4096,
            rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
            rustix::mm::MapFlags::SHARED,
            &file,
            0,
        )
        .expect("mapped");
        std::slice::from_raw_parts(base.cast(), 512)
    };
    let count = 50_000u64;
    let (mine, theirs) = if measure { (0, 64) } else { (64, 0) };
    let begin = Instant::now();
    for round in 1..=count {
        if measure {
            words[mine + 1].store(round, Ordering::Relaxed);
            words[mine].store(round, Ordering::Release);
        }
        while words[theirs].load(Ordering::Acquire) != round {}
        std::hint::black_box(words[theirs + 1].load(Ordering::Relaxed));
        if !measure {
            words[mine + 1].store(round, Ordering::Relaxed);
            words[mine].store(round, Ordering::Release);
        }
    }
    begin.elapsed().as_nanos() as f64 / count as f64 / 2.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let Some(directory) = arguments.next() {
        return child(Path::new(&directory));
    }
    let directory = std::path::PathBuf::from(format!("/dev/shm/sinew-probe-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("directory");
    let mut other = Command::new(std::env::current_exe().expect("self"))
        .arg(&directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    pin(0);
    println!("raw line, no PAUSE: {:.1} ns one way", raw(&directory, true));
    let mut word = [0; 5];
    other.stdout.as_mut().expect("stdout").read_exact(&mut word).expect("ready");
    let mut domain = open(&directory, 1, ListenScope::ThisUser);
    let path = directory.join(format!("{}.sock", "02".repeat(16)));
    let to = sinew_transport::Locator::new("shm", path.to_str().expect("text")).expect("locator");
    let mut lane = lane(domain.dial(&to, 1).expect("dialled"), Role::Dialer);
    let mut sink = Take { target: vec![0; 65536], frames: 0, tag: 0 };
    let body = vec![1u8; 65536];
    let mut latency = vec![Vec::new(); LATENCY_SIZES.len()];
    let mut bulk = vec![Vec::new(); BULK_SIZES.len()];
    for _ in 0..ROUNDS {
        for (at, &size) in LATENCY_SIZES.iter().enumerate() {
            let count = latency_count(size);
            let begin = Instant::now();
            for _ in 0..count {
                let next = sink.frames + 1;
                post(&mut *lane, &mut sink, 0, &body[..size]);
                await_frames(&mut *lane, &mut sink, next);
            }
            latency[at].push(begin.elapsed().as_nanos() as f64 / count as f64 / 2.0);
        }
        for (at, &size) in BULK_SIZES.iter().enumerate() {
            let count = bulk_count(size);
            let next = sink.frames + 1;
            let begin = Instant::now();
            for tag in 0..count {
                post(&mut *lane, &mut sink, tag, &body[..size]);
            }
            await_frames(&mut *lane, &mut sink, next);
            bulk[at].push(begin.elapsed().as_nanos() as f64 / count as f64);
        }
    }
    post(&mut *lane, &mut sink, 0, &[]);
    for (size, values) in LATENCY_SIZES.iter().zip(&mut latency) {
        println!("latency {size:>6} B: {:>7.1} ns one way", median(values));
    }
    for (size, values) in BULK_SIZES.iter().zip(&mut bulk) {
        let ns = median(values);
        println!(
            "stream  {size:>6} B: {:>7.1} ns each, {:>6.1} M/s, {:>5.1} GB/s",
            ns,
            1e3 / ns,
            *size as f64 / ns
        );
    }
    let _ = other.wait();
    let _ = std::fs::remove_dir_all(&directory);
}
