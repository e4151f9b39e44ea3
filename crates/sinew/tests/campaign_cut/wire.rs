//! A wire between two hosts: takes the packets of each one's interface to the other's, and does to them what networks do.
//!
//! Loses, delays, reorders, doubles and holds packets, has a limited rate for each connection, resets connections and closes
//! one half of them. Made by the campaigns; [`crate::net`] makes the hosts. What it did is counted: no fault is taken for granted.

use crate::campaign::Random;
use crate::net::Host;
use crate::packet::{FIN, Flow, RST, Segment, bare};
use crate::stream::Side;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What becomes of a packet in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Fate {
    #[default]
    Passes,
    /// It is lost without a word.
    Lost,
    /// It stays on the way until [`Wire::release`].
    Held,
}

/// How the wire is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// From the first host to the second, and back.
    pub(crate) fate: [Fate; 2],
    /// Each packet takes so long.
    pub(crate) delay: Duration,
    /// In a thousand: lost, doubled, and later than those behind it.
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    pub(crate) reordered: u32,
    /// Bytes per second of each connection and direction; 0: no limit.
    pub(crate) rate: u64,
}

/// What it did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) passed: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    pub(crate) late: u64,
    pub(crate) resets: u64,
    pub(crate) half_closed: u64,
}

/// Packets of one connection that wait for its rate, in time.
const QUEUE: Duration = Duration::from_millis(100);
/// Packets with data after which a connection carries the session: proving it takes fewer.
const BUSY: u32 = 100;
/// How much later than those behind it a reordered packet is.
const LATER: Duration = Duration::from_millis(3);

/// A packet that is due later: by time, then in order of arrival; to which side, and its bytes.
type Late = (Instant, u64, usize, Vec<u8>);

#[derive(Default)]
struct State {
    weather: Weather,
    done: Done,
    /// The next sequence number that the receiver of a flow expects.
    next: HashMap<Flow, u32>,
    /// Packets with data of each flow.
    carried: HashMap<Flow, u32>,
    /// All connections are to be reset, or a half of each to be closed, with the next data.
    reset: bool,
    half_close: bool,
    /// Only the busy connection with whose data it is done.
    only_one: bool,
    /// When that was done.
    ended_at: Option<Instant>,
    /// Nothing of these flows passes any more; senders of what was reset are told.
    ended: HashSet<Flow>,
    reset_flows: HashSet<Flow>,
    /// Where the end of a half-closed flow was put, until its receiver has acknowledged it.
    ends_at: HashMap<Flow, u32>,
    /// When the rate of a flow has room again.
    free_at: HashMap<Flow, Instant>,
    held: Vec<(usize, Vec<u8>)>,
    late: BinaryHeap<Reverse<Late>>,
    number: u64,
    random: Random,
}

pub(crate) struct Wire {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub(crate) fn new(ends: [OwnedFd; 2], seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State { random: Random::new(seed), ..State::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
            std::thread::spawn(move || carry(&ends, &state, &stop))
        };
        Self { state, stop, thread: Some(thread) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.state().weather = weather;
    }

    pub(crate) fn done(&self) -> Done {
        self.state().done
    }

    /// With the next data of a connection that is busy all connections are reset, once, as by a middlebox that has forgotten
    /// them: what is being left, stands by or is being tried does not outlive what is in use.
    pub(crate) fn reset_all(&self) {
        let mut state = self.state();
        (state.reset, state.only_one, state.ended_at) = (true, false, None);
    }

    /// The next busy connection is reset, and no other.
    pub(crate) fn reset_one(&self) {
        let mut state = self.state();
        (state.reset, state.only_one, state.ended_at) = (true, true, None);
    }

    /// The receivers at the busy connection's end, and at that of all others, are told that their peers have closed; the peers are
    /// told nothing, and their data goes nowhere.
    pub(crate) fn half_close_all(&self) {
        let mut state = self.state();
        (state.half_close, state.ended_at) = (true, None);
    }

    /// When the last reset or half-close was done, if it was.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.state().ended_at
    }

    /// What was held on the way arrives, in the order in which it was sent; how many packets that were.
    pub(crate) fn release(&self) -> usize {
        let mut state = self.state();
        let held = std::mem::take(&mut state.held);
        let (now, count) = (Instant::now(), held.len());
        for (to, packet) in held {
            state.number += 1;
            let number = state.number;
            state.late.push(Reverse((now, number, to, packet)));
        }
        count
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn carry(ends: &[OwnedFd; 2], state: &Mutex<State>, stop: &AtomicBool) {
    let mut buf = vec![0; 1 << 16];
    let mut wait = Duration::from_millis(20);
    while !stop.load(Ordering::Acquire) {
        let mut fds = [PollFd::new(&ends[0], PollFlags::IN), PollFd::new(&ends[1], PollFlags::IN)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
        let _ = poll(&mut fds, Some(&timeout));
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        for from in 0..2 {
            for _ in 0..64 {
                let Ok(len) = rustix::io::read(&ends[from], &mut buf) else { break };
                take(&mut state, ends, 1 - from, &buf[..len]);
            }
        }
        wait = deliver_late(&mut state, ends);
    }
}

/// A packet that does not fit is lost, as on any wire.
fn put(state: &mut State, ends: &[OwnedFd; 2], to: usize, packet: &[u8]) {
    if rustix::io::write(&ends[to], packet).is_ok() {
        state.done.passed += 1;
    }
}

/// One packet on its way to side `to`.
fn take(state: &mut State, ends: &[OwnedFd; 2], to: usize, packet: &[u8]) {
    match state.weather.fate[1 - to] {
        Fate::Passes => {}
        Fate::Lost => return state.done.lost += 1,
        Fate::Held => return state.held.push((to, packet.to_vec())),
    }
    let segment = Segment::of(packet);
    if let Some(segment) = segment
        && end_connection(state, ends, to, &segment)
    {
        return;
    }
    let weather = state.weather;
    if state.random.in_thousand(weather.lost) {
        return state.done.lost += 1;
    }
    let now = Instant::now();
    let mut due = now + weather.delay;
    if let (Some(segment), true) = (segment, weather.rate > 0) {
        let free = state.free_at.entry(segment.flow).or_insert(now);
        let begin = (*free).max(now);
        if begin - now > QUEUE {
            return state.done.lost += 1;
        }
        *free = begin + Duration::from_nanos(packet.len() as u64 * 1_000_000_000 / weather.rate);
        due = *free + weather.delay;
    }
    if state.random.in_thousand(weather.reordered) {
        due += LATER;
        state.done.reordered += 1;
    }
    let copies = 1 + u64::from(state.random.in_thousand(weather.doubled));
    state.done.doubled += copies - 1;
    for _ in 0..copies {
        if due <= now && state.late.is_empty() {
            put(state, ends, to, packet);
        } else {
            state.done.late += 1;
            state.number += 1;
            let number = state.number;
            state.late.push(Reverse((due, number, to, packet.to_vec())));
        }
    }
}

/// Whether the connection is ended, or was: then the packet goes no further.
fn end_connection(state: &mut State, ends: &[OwnedFd; 2], to: usize, segment: &Segment) -> bool {
    let (flow, back) = (segment.flow, segment.flow.back());
    if segment.begins() {
        // Ports are used again.
        for flow in [flow, back] {
            state.ended.remove(&flow);
            state.reset_flows.remove(&flow);
            state.ends_at.remove(&flow);
            state.carried.remove(&flow);
            state.next.remove(&flow);
        }
    }
    if state.ended.contains(&flow) {
        if state.reset_flows.contains(&flow) && segment.flags & RST == 0 {
            put(state, ends, 1 - to, &bare(back, segment.acknowledged, segment.end(), RST));
        }
        return true;
    }
    let carried = state.carried.entry(flow).or_default();
    *carried += u32::from(segment.len > 0);
    // Not one that is only being tried, or stands by.
    let busy = segment.len > 0 && *carried >= BUSY;
    if busy && (state.reset || state.half_close) {
        state.next.entry(flow).or_insert(segment.sequence);
        state.next.entry(back).or_insert(segment.acknowledged);
        let one = std::mem::take(&mut state.only_one).then_some(flow);
        end_all(state, ends, to, flow.to.0, one);
        return true;
    }
    if let Some(&at) = state.ends_at.get(&back) {
        // Something before the end was lost, and nobody will send it again: then the end is where the receiver stands.
        let stands = segment.acknowledged;
        if stands == at.wrapping_add(1) {
            state.ends_at.remove(&back);
        } else if stands != at {
            state.ends_at.insert(back, stands);
            put(state, ends, 1 - to, &bare(back, stands, segment.end(), FIN));
        }
    }
    let next = state.next.entry(flow).or_insert(segment.end());
    if segment.end().wrapping_sub(*next) as i32 > 0 {
        *next = segment.end();
    }
    false
}

/// Ends all connections that are there, or one of them: with a reset, or for those who receive at side `to`, which has this address.
fn end_all(state: &mut State, ends: &[OwnedFd; 2], to: usize, address: Ipv4Addr, one: Option<Flow>) {
    let whole = std::mem::take(&mut state.reset);
    let half = std::mem::take(&mut state.half_close) && !whole;
    state.ended_at = Some(Instant::now());
    let flows: Vec<(Flow, u32)> = state.next.iter().map(|(&flow, &next)| (flow, next)).collect();
    // What each side expects next is known from what has passed: a reset that is not exactly there counts for nothing.
    for (flow, here) in flows {
        let there = state.next.get(&flow.back()).copied();
        if flow.to.0 != address
            || one.is_some_and(|one| one != flow)
            || state.ended.contains(&flow)
            || there.is_none()
        {
            continue;
        }
        let there = there.unwrap_or_default();
        state.ended.insert(flow);
        if half {
            state.done.half_closed += 1;
            state.ends_at.insert(flow, here);
            put(state, ends, to, &bare(flow, here, there, FIN));
            continue;
        }
        state.done.resets += 1;
        state.ended.insert(flow.back());
        state.reset_flows.extend([flow, flow.back()]);
        put(state, ends, to, &bare(flow, here, there, RST));
        put(state, ends, 1 - to, &bare(flow.back(), there, here, RST));
    }
}

/// Delivers what is due; how long until the next is.
fn deliver_late(state: &mut State, ends: &[OwnedFd; 2]) -> Duration {
    loop {
        let now = Instant::now();
        match state.late.peek() {
            Some(Reverse((due, ..))) if *due <= now => {
                let Some(Reverse((_, _, to, packet))) = state.late.pop() else { continue };
                put(state, ends, to, &packet);
            }
            Some(Reverse((due, ..))) => return (*due - now).min(Duration::from_millis(20)),
            None => return Duration::from_millis(20),
        }
    }
}

/// Two hosts, each with an interface for each wire.
pub(crate) struct Net {
    hosts: [Host; 2],
    pub(crate) wires: Vec<Wire>,
}

fn tc(line: &str) -> Result<(), String> {
    let ran = std::process::Command::new("tc").args(line.split(' ')).output();
    let ran = ran.map_err(|error| format!("tc: {error}"))?;
    if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned()) }
}

fn address(wire: usize, host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, wire as u8, host as u8 + 1)
}

impl Net {
    /// # Errors
    /// What the system refuses, for people.
    pub(crate) fn new(wires: usize, mtu: u16, seed: u64) -> Result<Self, String> {
        let host = |number| {
            let addresses: Vec<Ipv4Addr> = (0..wires).map(|wire| address(wire, number)).collect();
            Host::new(&addresses, mtu)
        };
        let ((one, one_ends), (other, other_ends)) = (host(0)?, host(1)?);
        let ends = one_ends.into_iter().zip(other_ends);
        let wires =
            ends.enumerate().map(|(number, (one, other))| Wire::new([one, other], seed + number as u64));
        Ok(Self { wires: wires.collect(), hosts: [one, other] })
    }

    /// Limits each connection to 24 Mbit/s by the system's own means: `tc` with a class of `htb` for each group of ports.
    ///
    /// # Errors
    /// There is no `tc` here, or the kernel lacks the discipline or the classifier.
    pub(crate) fn limit_by_tc(&self) -> Result<(), String> {
        for host in &self.hosts {
            host.run(|| {
                tc("qdisc add dev sinew0 root handle 1: htb default 99 r2q 100")?;
                tc("class add dev sinew0 parent 1: classid 1:99 htb rate 10gbit quantum 60000")?;
                for class in 0..8 {
                    tc(&format!(
                        "class add dev sinew0 parent 1: classid 1:1{class} htb rate 24mbit burst 64k cburst 64k"
                    ))?;
                    // The system gives even ports to those who connect.
                    for (order, end) in ["sport", "dport"].iter().enumerate() {
                        tc(&format!(
                            "filter add dev sinew0 parent 1: protocol ip prio {} u32 match ip {end} {} 0x000f flowid 1:1{class}",
                            order + 1,
                            class * 2
                        ))?;
                    }
                }
                Ok::<(), String>(())
            })?;
        }
        Ok(())
    }

    /// A process on each, with so many sockets for a session, that sends long messages only.
    pub(crate) fn bulk_sides(&self, sockets: [&str; 2]) -> [Side; 2] {
        [0, 1].map(|number| {
            let bind = address(0, number).to_string();
            let more = [("SOCKETS", sockets[number]), ("LONG", "1")];
            Side::with(&self.hosts[number], &bind, Duration::from_secs(30), false, &more)
        })
    }

    /// A process on each.
    pub(crate) fn sides(&self, peer_timeout: Duration, may_be_lost: bool) -> [Side; 2] {
        [0, 1].map(|number| {
            let bind: Vec<String> =
                (0..self.wires.len()).map(|wire| address(wire, number).to_string()).collect();
            Side::new(&self.hosts[number], &bind.join(" "), peer_timeout, may_be_lost)
        })
    }
}
