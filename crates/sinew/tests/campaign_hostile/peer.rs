//! The hostile peer: a process of its own that connects properly, talks and listens like any other, and writes what it likes into
//! every page that it shares with the survivor.
//!
//! It keeps mappings of its own of all that is shared, so that nothing its engine does takes them away. Jobs come as lines from
//! the campaign, one line answers each.
#![allow(unsafe_code)]

use crate::campaign::Luck;
use crate::common::{PATIENCE, hear, say};
use crate::forge::{self, Forgery};
use sinew::shm::{ShmOptions, ShmTransport};
use sinew::{Endpoint, Engine, EngineOptions, Match, Peer, Progress};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the messages of a hostile peer are like when nobody has written into them: their number, then what follows from it.
pub(crate) fn message(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(8)];
    fill(&mut bytes, number);
    bytes
}

fn fill(bytes: &mut [u8], number: u64) {
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    for (at, byte) in bytes.iter_mut().enumerate().skip(8) {
        *byte = (number as usize).wrapping_add(at) as u8;
    }
}

pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first_chunk::<8>() else { return false };
    let number = u64::from_le_bytes(*first) as usize;
    bytes.iter().enumerate().skip(8).all(|(at, &byte)| byte == number.wrapping_add(at) as u8)
}

/// What to do for one round.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    pub(crate) what: What,
    /// Slots of the hostile peer's ring.
    pub(crate) slots: usize,
    pub(crate) seed: u64,
    /// Part `part` of `parts` of all words; how many values each gets.
    pub(crate) part: usize,
    pub(crate) parts: usize,
    pub(crate) values: usize,
    /// How long, where it does not end by itself.
    pub(crate) millis: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// Every word of a part, with every value.
    Turn,
    /// Any word, any value.
    Random,
    /// One word of the part after the other flips while it is read.
    Flip,
    /// Frames of a part, put into the slots that are read next.
    Forge,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, slots, seed, part, parts, values, millis } = self;
        write!(f, "{what:?} {slots} {seed} {part} {parts} {values} {millis}")
    }
}

impl FromStr for Job {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, rest) = text.split_once(' ').ok_or("a job")?;
        let what = [What::Turn, What::Random, What::Flip, What::Forge]
            .into_iter()
            .find(|w| format!("{w:?}") == what);
        let numbers: Vec<u64> = rest.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [slots, seed, part, parts, values, millis] = numbers[..] else { return Err(text.to_owned()) };
        let (slots, part, parts, values) = (slots as usize, part as usize, parts as usize, values as usize);
        Ok(Self { what: what.ok_or("a job")?, slots, seed, part, parts, values, millis })
    }
}

/// What came of it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Report {
    /// Words of the control areas, and those of them that were written in this round.
    pub(crate) words: u64,
    pub(crate) covered: u64,
    /// Writes to them, and to windows and segments.
    pub(crate) scribbles: u64,
    pub(crate) arena: u64,
    pub(crate) connects: u64,
    /// Connections that the survivor ended, those of them where it said that the protocol was broken, and those that went silent.
    pub(crate) ended: u64,
    pub(crate) refused: u64,
    pub(crate) stalled: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.words = other.words;
        self.covered += other.covered;
        self.scribbles += other.scribbles;
        self.arena += other.arena;
        self.connects += other.connects;
        self.ended += other.ended;
        self.refused += other.refused;
        self.stalled += other.stalled;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { words, covered, scribbles, arena, connects, ended, refused, stalled } = self;
        write!(f, "{words} {covered} {scribbles} {arena} {connects} {ended} {refused} {stalled}")
    }
}

impl FromStr for Report {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<u64> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [words, covered, scribbles, arena, connects, ended, refused, stalled] = numbers[..] else {
            return Err(text.to_owned());
        };
        Ok(Self { words, covered, scribbles, arena, connects, ended, refused, stalled })
    }
}

/// The whole life of the process.
pub(crate) fn child() {
    // What its own engine thinks of it does not matter.
    std::panic::set_hook(Box::new(|_| ()));
    let address = std::env::var("OTHER_ADDRESS").expect("an address");
    while let Some(line) = hear() {
        let job: Job = line.parse().expect("a job");
        say(Attack::new(job, &address).run());
    }
}

/// Eight bytes that are shared with the survivor.
#[derive(Clone, Copy)]
struct Word(*mut u64);

impl Word {
    fn read(self) -> u64 {
        // SAFETY: inside a mapping of this process's own, which is never unmapped while words of it are used; no Rust reference
        // to it exists.
        unsafe { self.0.read_volatile() }
    }

    fn write(self, value: u64) {
        // SAFETY: as above, and it is mapped for writing: only the survivor's half is not, and it is only read.
        unsafe { self.0.write_volatile(value) }
    }
}

/// Shared memory, mapped once more.
struct Area {
    name: String,
    start: *mut u8,
    len: usize,
}

// SAFETY: an address range that any thread may write.
unsafe impl Send for Area {}

impl Area {
    fn word(&self, at: usize) -> Word {
        assert!(at < self.len / 8);
        Word(self.start.cast::<u64>().wrapping_add(at))
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: mapped in `areas`, unmapped once.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// Maps once more what this process has mapped of the memory of Sinew with this access.
fn areas(access: &str) -> Vec<Area> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
    let ours = maps.lines().filter(|line| line.contains("memfd:sinew") && line.contains(access));
    let again = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let len = usize::from_str_radix(end, 16).ok()? - start;
        let name = line.split("memfd:").nth(1)?.split(' ').next()?.to_owned();
        // SAFETY: an old size of zero maps the same shared pages a second time and leaves the first alone; if the first is gone
        // by now the call fails.
        let start = unsafe { libc::mremap(start as *mut libc::c_void, 0, len, libc::MREMAP_MAYMOVE) };
        (start != libc::MAP_FAILED).then_some(Area { name, start: start.cast(), len })
    };
    ours.filter_map(again).collect()
}

const PAGE_WORDS: usize = 512;
/// Words of a control page by which halves talk: `docs/wire/shm.md`.
const CONSUMED: usize = 8;
const CLOSED: usize = 17;
const LAST: usize = 20;

/// A connection to the survivor with everything that is shared over it.
struct Connection {
    /// Own half, own domain page, own and the survivor's page of hints.
    control: Vec<(Area, usize)>,
    /// Own segments.
    segments: Vec<Area>,
    theirs: Option<Area>,
    to: Peer,
    stop: Arc<AtomicBool>,
    traffic: Vec<JoinHandle<()>>,
    engine: Engine,
}

impl Connection {
    /// Connects; who is not to talk makes no progress of its own afterwards.
    fn new(address: &str, slots: usize, talks: bool) -> Option<Self> {
        let options = ShmOptions { ring_slots: slots, ..ShmOptions::default() };
        let timeout = EngineOptions::default().timeout(Duration::from_millis(20));
        let progress = if talks { Progress::Thread { cpu: None } } else { Progress::Caller };
        let builder = Engine::builder().domain("faults").options(timeout).progress(progress);
        let engine = builder.without_own_transports().transport(ShmTransport::new(options)).build().ok()?;
        let endpoint = engine.endpoint("hostile").ok()?;
        let to = endpoint.connect_within(address, Duration::from_secs(5)).ok()?;
        // Passes a segment.
        let lent = to.post_send(0, to.alloc(64 << 10).ok()?).ok()?;
        if talks {
            let _ = lent.wait_within(Duration::from_millis(50));
        }
        let ring = (PAGE_WORDS * 8 + slots * 64).next_multiple_of(PAGE_WORDS * 8) / 8;
        let (mut control, mut segments) = (Vec::new(), Vec::new());
        for area in areas(" rw-s ") {
            match area.name.as_str() {
                "sinew-lane" => control.insert(0, (area, ring)),
                "sinew-segment" => segments.push(area),
                _ => control.push((area, PAGE_WORDS)),
            }
        }
        let theirs = areas(" r--s ").into_iter().find(|area| area.name == "sinew-lane");
        if control.len() != 4 || theirs.is_none() {
            // It is over already.
            return None;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let traffic = if talks { vec![talk(&to, &stop), listen(endpoint, &stop)] } else { Vec::new() };
        Some(Self { control, segments, theirs, to, stop, traffic, engine })
    }

    fn words(&self) -> usize {
        self.control.iter().map(|(_, words)| words).sum()
    }

    /// A control word by its number, and whether anybody ever looks at it.
    fn word(&self, number: usize, slots: usize) -> (Word, bool) {
        let mut at = number;
        for (place, (area, words)) in self.control.iter().enumerate() {
            if at < *words {
                let live = match place {
                    0 => {
                        (CONSUMED..=LAST).contains(&at) || (PAGE_WORDS..PAGE_WORDS + slots * 8).contains(&at)
                    }
                    _ => at == 0 || (8..72).contains(&at),
                };
                return (area.word(at), live);
            }
            at -= words;
        }
        panic!("word {number}");
    }

    /// A word of the window or of a segment.
    fn arena(&self, luck: &mut Luck) -> Word {
        let (half, ring) = &self.control[0];
        let place = luck.below(1 + self.segments.len());
        match place.checked_sub(1) {
            None => half.word(ring + luck.below(half.len / 8 - ring)),
            Some(at) => {
                let segment = &self.segments[at];
                segment.word(luck.below(segment.len / 8))
            }
        }
    }

    /// Frames that the survivor says to have taken.
    fn taken(&self) -> u64 {
        self.theirs.as_ref().map_or(0, |half| half.word(CONSUMED).read())
    }

    /// The survivor has written into its half that this side broke the protocol.
    fn was_refused(&self) -> bool {
        self.theirs.as_ref().is_some_and(|half| half.word(CLOSED).read() == 2)
    }

    /// The number of the frame that is read next, when everything of this side's engine has been taken.
    fn settled(&self, slots: u64) -> Option<u64> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE && !self.is_over() {
            let index = self.taken();
            let first = self.control[0].0.word(PAGE_WORDS + (index % slots) as usize * 8);
            if first.read() & 0xff != lap(index, slots) {
                return Some(index);
            }
        }
        None
    }

    fn publish(&self, forgery: &Forgery, index: u64, slots: u64) {
        let (half, ring) = &self.control[0];
        let slot = PAGE_WORDS + (index % slots) as usize * 8;
        for (at, word) in forge::words(&forgery.window).enumerate() {
            half.word(ring + at).write(word);
        }
        for (at, &word) in forgery.slot.iter().enumerate().skip(1) {
            half.word(slot + at).write(word);
        }
        std::sync::atomic::fence(Ordering::Release);
        half.word(slot).write(forgery.slot[0] & !0xff | lap(index, slots));
    }

    fn is_over(&self) -> bool {
        self.theirs.as_ref().is_none_or(|half| half.word(CLOSED).read() != 0) || !self.to.is_connected()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.traffic.drain(..) {
            let _ = thread.join();
        }
        let _ = self.engine.close(Duration::from_millis(1));
    }
}

/// Messages of all ways: in a slot, in both windows, fetched, on loan.
const SIZES: [usize; 8] = [8, 16, 40, 100, 2000, 8, 40_000, 200_000];

fn talk(to: &Peer, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (to, stop) = (to.clone(), Arc::clone(stop));
    std::thread::spawn(move || {
        let mut under_way = std::collections::VecDeque::new();
        for number in 0u64.. {
            if stop.load(Ordering::Acquire) || !to.is_connected() {
                return;
            }
            // Long ones are rare: most of the time belongs to the ring.
            let len = SIZES[number as usize % if number % 256 < 248 { 5 } else { 8 }];
            if number.is_multiple_of(224)
                && let Ok(mut lent) = to.alloc(16 << 10)
            {
                lent.as_mut_slice().into_iter().for_each(|bytes| fill(bytes, number));
                under_way.extend(to.post_send(number % 5, lent));
            } else if len > 2000 {
                under_way.extend(to.post_send(number % 5, message(number, len)));
            } else {
                let _ = to.message(number % 5).timeout(Duration::from_millis(5)).send(&message(number, len));
            }
            if under_way.len() > 4 {
                let _ = under_way.pop_front().map(|op| op.wait_within(Duration::from_millis(5)));
            }
        }
    })
}

fn listen(at: Endpoint, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut buf = vec![0; 1 << 16];
        while !stop.load(Ordering::Acquire) {
            let _ = at.recv_within(Match::any_tag(), &mut buf, Duration::from_millis(5));
            drop(at.recv_message_within(Match::any_tag(), 1 << 20, Duration::from_millis(1)));
        }
    })
}

/// Writes of a word between two looks: an odd number.
const FLIPS: usize = 63;
/// How long a word is held when the survivor takes nothing, and when it does not get around the ring: a few turns of everybody
/// who waits for a processor.
const SILENT: Duration = Duration::from_millis(12);
const SLOW: Duration = Duration::from_millis(12);

/// The lap of a slot that holds frame `index`.
fn lap(index: u64, slots: u64) -> u64 {
    (index / slots + 1) & 0xff
}

struct Attack<'a> {
    job: Job,
    address: &'a str,
    luck: Luck,
    connection: Option<Connection>,
    report: Report,
}

/// Values that every word gets in its turn; the last ones are luck.
const VALUES: [fn(u64) -> u64; 9] = [
    |_| 0,
    |_| u64::MAX,
    |_| i64::MAX as u64,
    |_| 1 << 63,
    |_| u64::from(u32::MAX),
    |_| 1,
    |old| old.wrapping_add(1),
    |old| old.wrapping_sub(1),
    // Of a word 0 of a slot: the same frame, with a body of the greatest length at any place.
    |old| old | 0xffff_0000,
];
/// All of them and one that is drawn.
pub(crate) const VALUES_ALL: usize = VALUES.len() + 1;

impl<'a> Attack<'a> {
    fn new(job: Job, address: &'a str) -> Self {
        Self { job, address, luck: Luck::new(job.seed), connection: None, report: Report::default() }
    }

    fn run(mut self) -> Report {
        let end = Instant::now() + Duration::from_millis(self.job.millis);
        match self.job.what {
            What::Turn => self.in_turn(),
            What::Forge => self.forge(),
            What::Random => {
                while Instant::now() < end {
                    self.anywhere();
                }
            }
            What::Flip => {
                while Instant::now() < end {
                    self.flip();
                }
            }
        }
        self.report
    }

    /// Connects anew when it is over.
    fn connected(&mut self) -> &Connection {
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.is_over()) {
            self.report.ended += 1;
            self.report.refused += u64::from(connection.was_refused());
            self.connection = None;
        }
        while self.connection.is_none() {
            self.connection = Connection::new(self.address, self.job.slots, self.job.what != What::Forge);
            self.report.connects += 1;
        }
        let connection = self.connection.as_ref().expect("connected");
        self.report.words = connection.words() as u64;
        connection
    }

    fn value(&mut self, which: usize, old: u64) -> u64 {
        match VALUES.get(which % VALUES_ALL) {
            Some(value) => value(old),
            None => self.luck.next() >> (self.luck.next() % 64),
        }
    }

    fn in_turn(&mut self) {
        let words = self.connected().words();
        let (from, to) =
            (words * self.job.part / self.job.parts, words * (self.job.part + 1) / self.job.parts);
        for number in from..to {
            // Fewer values than there are: others in each round.
            let first = if self.job.values < VALUES_ALL { number + self.luck.below(VALUES_ALL) } else { 0 };
            for which in first..first + self.job.values {
                let slots = self.job.slots;
                let (word, live) = self.connected().word(number, slots);
                let old = word.read();
                let value = self.value(which, old);
                word.write(value);
                self.report.scribbles += 1;
                if live && self.hold(word, |_| value) {
                    word.write(old);
                }
            }
            self.report.covered += 1;
            self.scribble_arena();
        }
    }

    fn scribble_arena(&mut self) {
        let mut luck = self.luck.clone();
        let word = self.connected().arena(&mut luck);
        word.write(luck.next());
        self.luck = luck;
        self.report.arena += 1;
    }

    /// Writes a word again and again until the survivor has been all around the ring, or has ended the lane, or does not go on.
    /// Whether the word is still there. Where processors are few the other threads run only while this one does not: each time
    /// it leaves the word in the other of its two states.
    fn hold(&mut self, word: Word, value: impl Fn(u64) -> u64) -> bool {
        let slots = self.job.slots as u64;
        let Some(connection) = &self.connection else { return false };
        let (start, before) = (Instant::now(), connection.taken());
        let mut flips = 0u64;
        loop {
            for _ in 0..FLIPS {
                word.write(value(flips));
                flips += 1;
                std::hint::spin_loop();
            }
            let around = connection.taken().wrapping_sub(before) > slots;
            let spent = start.elapsed();
            if connection.is_over() || (around && spent > Duration::from_micros(100)) {
                return true;
            }
            if spent > if connection.taken() == before { SILENT } else { SLOW } {
                break;
            }
            std::thread::yield_now();
        }
        if connection.taken() == before {
            self.report.stalled += 1;
            self.connection = None;
        }
        self.connection.is_some()
    }

    fn anywhere(&mut self) {
        let slots = self.job.slots;
        let mut luck = self.luck.clone();
        let connection = self.connected();
        // Half of the time where frames and indexes are.
        let number = match luck.below(4) {
            0 => CONSUMED + luck.below(LAST - CONSUMED + 1),
            1 | 2 => PAGE_WORDS + luck.below(slots * 8),
            _ => luck.below(connection.words()),
        };
        let (word, _) = connection.word(number, slots);
        self.luck = luck;
        let which = self.luck.below(VALUES_ALL + 8);
        let value = self.value(which.min(VALUES_ALL - 1), word.read());
        word.write(value);
        self.report.scribbles += 1;
        if self.report.scribbles.is_multiple_of(16) {
            self.scribble_arena();
            std::thread::yield_now();
        }
        if self.report.scribbles.is_multiple_of(2048) {
            self.hold(word, |_| value);
        }
    }

    /// Puts frames into the slots that are read next, each as if this side had published it.
    fn forge(&mut self) {
        let all = forge::all();
        let (from, to) =
            (all.len() * self.job.part / self.job.parts, all.len() * (self.job.part + 1) / self.job.parts);
        for forgery in &all[from..to] {
            let slots = self.job.slots as u64;
            let index = loop {
                let connection = self.connected();
                if let Some(index) = connection.settled(slots) {
                    connection.publish(forgery, index, slots);
                    break index;
                }
            };
            self.report.scribbles += 1;
            let start = Instant::now();
            let Some(connection) = &self.connection else { continue };
            let is_taken = || connection.taken() > index || connection.is_over();
            while !is_taken() && start.elapsed() < PATIENCE {
                std::hint::spin_loop();
            }
            if !is_taken() {
                self.report.stalled += 1;
                self.connection = None;
            }
        }
    }

    /// A word has one value now and another one at the next look.
    fn flip(&mut self) {
        const MASKS: [u64; 8] = [0xff, 0xff00, 0xffff_0000, !0 << 32, !0, 1, 0xffff_ffff, 0xffff_00ff];
        let slots = self.job.slots;
        let mut luck = self.luck.clone();
        let connection = self.connected();
        let number = match luck.below(8) {
            0 => CONSUMED + luck.below(LAST - CONSUMED + 1),
            // The first word of a frame, and the place of its body.
            1..4 => PAGE_WORDS + luck.below(slots) * 8,
            4 => PAGE_WORDS + luck.below(slots) * 8 + 3,
            _ => PAGE_WORDS + luck.below(slots * 8),
        };
        let (word, _) = connection.word(number, slots);
        let mask = MASKS[luck.below(MASKS.len())] & if luck.below(2) == 0 { luck.next() } else { !0 };
        self.luck = luck;
        self.report.scribbles += 1;
        self.hold(word, |_| word.read() ^ mask);
    }
}
