//! A peer made by hand, which maps, says and writes what no engine of ours does: each field of a slot at its extremes, forged
//! indices, notes out of order, a doorbell that blocks; and what the lane makes up for when a hint or a ring is lost.
#![allow(unsafe_code)]
#![cfg(all(target_os = "linux", not(loom)))]

mod common;

use common::{DOMAIN, Engine, Scratch, Seen, frame, options, post, wait};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use sinew_transport::{Descriptor, ErrorKind, Lane, LaneError, Peek, PostError, Pull, Token};
use sinew_transport_shm::{CrossRead, ShmOptions};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PAGE: usize = 4096;
const SLOTS: usize = 256;
const WINDOW: usize = 0x44000;
const HALF: usize = PAGE + SLOTS * 64 + WINDOW;
const NOTE: usize = 128;

/// Words of a half.
const CONSUMED: usize = 8;
const READS: usize = 20;
/// Word of a domain's page.
const ARMED: usize = 8;

/// Memory of the puppet's that it passes.
struct Memory {
    fd: OwnedFd,
    base: NonNull<u8>,
}

impl Memory {
    fn new(len: usize, ours_to_write: bool) -> Self {
        let fd = rustix::fs::memfd_create("puppet", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .expect("memory");
        rustix::fs::ftruncate(&fd, len as u64).expect("length");
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, len as u64).expect("reserved");
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping somewhere; it stays until the test ends.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, &fd, 0) };
        let base = NonNull::new(base.expect("mapped").cast()).expect("not null");
        let writers = if ours_to_write { SealFlags::FUTURE_WRITE } else { SealFlags::empty() };
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | writers).expect("sealed");
        Self { fd, base }
    }

    /// A half, or a domain's page.
    fn with_head(len: usize) -> Self {
        let memory = Self::new(len, true);
        memory.word(0).store(u64::from_le_bytes(*b"SINEWSHM"), Ordering::Relaxed);
        memory.word(1).store(1, Ordering::Release);
        memory
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: the tests name words inside the mapping, which stays.
        unsafe { &*self.base.as_ptr().cast::<AtomicU64>().add(at) }
    }
}

/// A peer of another kind.
struct Puppet {
    socket: UnixStream,
    half: Memory,
    page: Memory,
    hints: Memory,
    bell: OwnedFd,
    /// The hint bit that the engine has given its lane, and how it is told.
    bit: u32,
    their_hints: Option<OwnedFd>,
}

fn note(kind: u8) -> [u8; NOTE] {
    let mut bytes = [0; NOTE];
    bytes[..4].copy_from_slice(b"SNSM");
    bytes[4] = kind;
    (bytes[6], bytes[8]) = (1, 1);
    bytes
}

fn setup() -> [u8; NOTE] {
    let mut bytes = note(1);
    bytes[16..24].copy_from_slice(&(HALF as u64).to_le_bytes());
    bytes[24..28].copy_from_slice(&(SLOTS as u32).to_le_bytes());
    bytes[28..32].copy_from_slice(&(WINDOW as u32).to_le_bytes());
    // Bit 0; a bell; 64 segments.
    bytes[36] = 2;
    bytes[40] = 64;
    bytes
}

fn segment_note(id: u32, len: u64) -> [u8; NOTE] {
    let mut bytes = note(2);
    bytes[16..24].copy_from_slice(&len.to_le_bytes());
    bytes[24..28].copy_from_slice(&id.to_le_bytes());
    bytes
}

fn gone_note(id: u32) -> [u8; NOTE] {
    let mut bytes = note(3);
    bytes[24..28].copy_from_slice(&id.to_le_bytes());
    bytes
}

impl Puppet {
    /// On the engine's socket, with nothing said.
    fn silent(engine: &Engine) -> Self {
        Self {
            socket: UnixStream::connect(engine.locator().body()).expect("connected"),
            half: Memory::with_head(HALF),
            page: Memory::with_head(PAGE),
            hints: Memory::new(PAGE, false),
            bell: eventfd(0, EventfdFlags::NONBLOCK).expect("a bell"),
            bit: 0,
            their_hints: None,
        }
    }

    fn say(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        let sent =
            rustix::net::sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty());
        assert_eq!(sent, Ok(bytes.len()));
    }

    fn fds(&self) -> [BorrowedFd<'_>; 4] {
        [self.half.fd.as_fd(), self.page.fd.as_fd(), self.bell.as_fd(), self.hints.fd.as_fd()]
    }

    /// A lane as it should be; the engine's side of it.
    fn open(engine: &mut Engine) -> (Self, Box<dyn Lane>) {
        Self::silent(engine).opened(engine)
    }

    fn opened(mut self, engine: &mut Engine) -> (Self, Box<dyn Lane>) {
        self.say(&setup(), &self.fds());
        let mut lane = engine.accept_lane();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut said = [0; NOTE];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut said)], &mut control, flags);
        assert_eq!((got.expect("the engine's set-up").bytes, said[4]), (NOTE, 1));
        self.bit = u32::from_le_bytes([said[32], said[33], said[34], said[35]]);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.their_hints = fds.last();
            }
        }
        wait("an open lane", || {
            lane.poll(&mut Seen::default(), 1).expect("alive");
            post(&mut *lane, &frame(0, 0), &[]).is_ok().then_some(())
        });
        (self, lane)
    }

    /// Publishes the slot with this number: kind, length, and the first word of the payload.
    fn publish(&self, number: usize, kind: u8, len: u16, payload: u64) {
        let first = (PAGE + (number % SLOTS) * 64) / 8;
        let lap = (number / SLOTS + 1) as u64 & 0xff;
        self.half.word(first + 1).store(number as u64, Ordering::Relaxed);
        self.half.word(first + 3).store(payload, Ordering::Relaxed);
        let head = lap | u64::from(kind) << 8 | u64::from(len) << 16;
        self.half.word(first).store(head, Ordering::Release);
    }
}

/// What the engine makes of one slot: the frame's length, by a poll and by a look, or how the lane ended.
fn judged(engine: &mut Engine, kind: u8, len: u16, payload: u64) -> Result<usize, ErrorKind> {
    let (puppet, mut lane) = Puppet::open(engine);
    puppet.publish(0, kind, len, payload);
    let shown = match lane.peek(false, 1) {
        Peek::Frame(shown) => Some(shown.body.to_vec()),
        Peek::Poll => None,
        Peek::Nothing => panic!("a frame is published"),
    };
    let mut seen = Seen::default();
    let polled = lane.poll(&mut seen, 4).map_err(|error| error.kind);
    let bodies: Vec<_> = seen.frames.into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies, shown.into_iter().collect::<Vec<_>>(), "a look shows what a poll hands up");
    match bodies.first() {
        Some(body) => Ok(body.len()),
        None => Err(polled.expect_err("neither a frame nor an end")),
    }
}

#[test]
fn each_field_of_a_slot_at_its_extremes_is_a_frame_within_the_window_or_the_lanes_end() {
    const WINDOWED: u16 = 0xffff;
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let place = |offset: usize, len: usize| offset as u64 | (len as u64) << 32;
    for len in [0, 1, 39, 40] {
        assert_eq!(judged(&mut engine, 1, len, u64::MAX), Ok(usize::from(len)));
    }
    for len in [41, 42, 63, 64, 0x7fff, 0x8000, 0xfffe] {
        assert_eq!(judged(&mut engine, 1, len, 0), Err(ErrorKind::Protocol), "{len} bytes in a slot");
    }
    for (offset, len) in [(0, 0), (0, WINDOW), (WINDOW, 0), (WINDOW - 1, 1), (1, WINDOW - 1)] {
        assert_eq!(judged(&mut engine, 1, WINDOWED, place(offset, len)), Ok(len), "{len} at {offset}");
    }
    let most = u32::MAX as usize;
    for (offset, len) in [
        (0, WINDOW + 1),
        (WINDOW, 1),
        (WINDOW - 1, 2),
        (1, WINDOW),
        (WINDOW + 1, 0),
        (0, most),
        (most, 0),
        (most, most),
    ] {
        let expected = Err(ErrorKind::Protocol);
        assert_eq!(judged(&mut engine, 1, WINDOWED, place(offset, len)), expected, "{len} at {offset}");
    }
    for kind in [0, 0xf0, 0xff] {
        assert_eq!(judged(&mut engine, kind, 8, 0), Err(ErrorKind::Protocol), "kind {kind:#x}");
    }
}

#[test]
fn a_forged_index_ends_the_lane_and_nothing_is_recovered_twice() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    // Taken so far: what the peer says first, and then.
    for (first, then) in [(3, 2), (3, 0), (3, 258), (3, u64::MAX), (0, 1 << 63)] {
        let (puppet, mut lane) = Puppet::open(&mut engine);
        puppet.half.word(CONSUMED).store(first, Ordering::Release);
        let mut posted = 1;
        while post(&mut *lane, &frame(posted, 0), &[]).is_ok() {
            posted += 1;
        }
        assert_eq!(posted, SLOTS as u64 + first);
        puppet.half.word(CONSUMED).store(if then == 258 { posted + 1 } else { then }, Ordering::Release);
        match post(&mut *lane, &frame(posted, 0), &[]) {
            Err(PostError::Dead(error)) => {
                assert_eq!(error.kind, ErrorKind::Protocol, "{first}, then {then}")
            }
            other => panic!("{first}, then {then}: {other:?}"),
        }
        assert!(lane.recover().len() as u64 <= posted);
        assert!(lane.recover().is_empty());
    }
}

/// Has the lane hear what was said; how it ended, if it did.
fn hear(engine: &mut Engine, lane: &mut dyn Lane) -> Option<LaneError> {
    let owner = engine.next_owner - 1;
    engine.turn(Duration::from_millis(20), &mut [(owner, &mut *lane)]);
    lane.poll(&mut Seen::default(), 1).err()
}

fn descriptor(id: u32, offset: u64, len: u64) -> Descriptor {
    let mut bytes = [0; 24];
    bytes[..4].copy_from_slice(&id.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    bytes[16..].copy_from_slice(&len.to_le_bytes());
    Descriptor(bytes)
}

fn pull(lane: &mut dyn Lane, from: &Descriptor, target: &mut [u8]) -> Result<Pull, ErrorKind> {
    let data = NonNull::new(target.as_mut_ptr()).expect("not null");
    // SAFETY: what is pulled here is short and done at once, or refused.
    unsafe { lane.pull(from, data, target.len(), Token(9)) }.map_err(|error| error.kind)
}

#[test]
fn a_peer_that_passes_more_segments_than_agreed_or_one_twice_ends_its_lane() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(ShmOptions { segments_max: 3, ..options(&scratch.0) }, 1);
    let memory = Memory::new(PAGE, true);
    for (ids, ends) in [(&[1, 2, 3][..], false), (&[1, 2, 3, 4], true), (&[7, 7], true), (&[0], true)] {
        let (puppet, mut lane) = Puppet::open(&mut engine);
        for &id in ids {
            puppet.say(&segment_note(id, PAGE as u64), &[memory.fd.as_fd()]);
        }
        match (ends, hear(&mut engine, &mut *lane)) {
            (true, Some(error)) => assert_eq!(error.kind, ErrorKind::Protocol, "{ids:?}"),
            (false, None) => {
                assert_eq!(pull(&mut *lane, &descriptor(ids[0], 0, 8), &mut [1; 8]), Ok(Pull::Done));
            }
            (_, end) => panic!("{ids:?}: {end:?}"),
        }
    }
}

#[test]
fn segments_beyond_the_bytes_that_are_mapped_are_told_from_those_that_are_and_room_comes_back() {
    let scratch = Scratch::new();
    let few = ShmOptions { segment_bytes_max: 3 * PAGE as u64, ..options(&scratch.0) };
    let mut engine = Engine::open(few, 1);
    let (puppet, mut lane) = Puppet::open(&mut engine);
    let memory = Memory::new(2 * PAGE, true);
    let two = 2 * PAGE as u64;
    for round in 0..4u32 {
        let (first, second) = (2 * round + 1, 2 * round + 2);
        puppet.say(&segment_note(first, two), &[memory.fd.as_fd()]);
        puppet.say(&segment_note(second, two), &[memory.fd.as_fd()]);
        assert_eq!(hear(&mut engine, &mut *lane), None);
        let mut target = [1; 8];
        assert_eq!(pull(&mut *lane, &descriptor(first, two - 8, 8), &mut target), Ok(Pull::Done), "{round}");
        assert_eq!(target, [0; 8]);
        assert_eq!(
            pull(&mut *lane, &descriptor(second, 0, 8), &mut target),
            Err(ErrorKind::Limit),
            "{round}"
        );
        assert_eq!(pull(&mut *lane, &descriptor(first, two - 7, 8), &mut target), Err(ErrorKind::Protocol));
        assert_eq!(lane.view(&descriptor(first, two - 7, 8)).expect_err("outside").kind, ErrorKind::Protocol);
        puppet.say(&gone_note(first), &[]);
        puppet.say(&gone_note(second), &[]);
        assert_eq!(hear(&mut engine, &mut *lane), None);
        assert_eq!(pull(&mut *lane, &descriptor(first, 0, 8), &mut target), Err(ErrorKind::Protocol));
    }
}

#[test]
fn a_set_up_with_other_descriptors_than_agreed_is_refused_and_so_is_a_second_one() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    // With a bell four are agreed on, else two.
    for (bell, count, kind) in [
        (2, 0, ErrorKind::Limit),
        (2, 3, ErrorKind::Limit),
        (0, 1, ErrorKind::Limit),
        (0, 3, ErrorKind::Protocol),
        (0, 4, ErrorKind::Protocol),
    ] {
        let puppet = Puppet::silent(&engine);
        let mut said = setup();
        said[36] = bell;
        puppet.say(&said, &puppet.fds()[..count]);
        let mut lane = engine.accept_lane();
        let error = wait("the refusal", || lane.poll(&mut Seen::default(), 1).err());
        assert_eq!(error.kind, kind, "{count} descriptors: {error}");
    }
    let (puppet, mut lane) = Puppet::open(&mut engine);
    puppet.say(&setup(), &puppet.fds());
    assert_eq!(hear(&mut engine, &mut *lane).map(|error| error.kind), Some(ErrorKind::Protocol));
}

#[test]
fn a_doorbell_that_would_block_blocks_nobody() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let mut puppet = Puppet::silent(&engine);
    puppet.bell = eventfd(0, EventfdFlags::empty()).expect("a bell");
    rustix::io::write(&puppet.bell, &(u64::MAX - 1).to_ne_bytes()).expect("rung to its end");
    let (puppet, mut lane) = puppet.opened(&mut engine);
    puppet.page.word(ARMED).store(1, Ordering::SeqCst);
    let sender = std::thread::spawn(move || post(&mut *lane, &frame(1, 0), &[]).map(|()| lane));
    wait("the post", || sender.is_finished().then_some(()));
    assert!(sender.join().expect("no panic").is_ok());
}

#[test]
fn a_ring_that_a_third_has_taken_is_made_up_for_by_the_next_question() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let (puppet, mut lane) = Puppet::open(&mut engine);
    puppet.half.word(CONSUMED).store(1, Ordering::Release);
    let rings = || rustix::io::read(&puppet.bell, &mut [0; 8]).is_ok();
    assert!(!rings());
    puppet.page.word(ARMED).store(1, Ordering::SeqCst);
    post(&mut *lane, &frame(1, 0), &[]).expect("room");
    assert!(rings(), "a sleeper is woken, and somebody else takes the ring");
    post(&mut *lane, &frame(2, 0), &[]).expect("room");
    assert!(!rings(), "once a sleep");
    lane.request_acknowledgement();
    assert!(rings(), "it has not answered");
    puppet.half.word(CONSUMED).store(3, Ordering::Release);
    lane.request_acknowledgement();
    assert!(!rings(), "it has taken all");
}

#[test]
fn a_frame_without_a_hint_is_found_on_a_cold_lane() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let (puppet, mut lane) = Puppet::open(&mut engine);
    let owner = engine.next_owner - 1;
    for number in 0..3 {
        assert!(lane.cool());
        assert!(engine.domain.arm());
        engine.domain.disarm();
        puppet.publish(number, 1, 8, 7);
        let mut owners = Vec::new();
        engine.domain.poll_warm(&mut owners);
        assert!(owners.is_empty(), "nobody has said so");
        if number == 1 {
            // Before a sleep, one by one.
            assert!(!engine.domain.arm());
            engine.domain.disarm();
            engine.domain.poll_warm(&mut owners);
        } else {
            // While others keep it busy, now and then.
            (0..1 << 15).for_each(|_| engine.domain.poll_warm(&mut owners));
        }
        assert_eq!(owners, [owner]);
        assert_eq!(lane.poll(&mut Seen::default(), 4), Ok(1));
    }
}

#[test]
fn the_end_of_a_cold_lanes_peer_is_told() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let (puppet, mut lane) = Puppet::open(&mut engine);
    let owner = engine.next_owner - 1;
    assert!(lane.cool());
    drop(puppet);
    engine.turn(common::DEADLINE, &mut [(owner, &mut *lane)]);
    assert!(engine.events.iter().any(|event| event.key.owner != DOMAIN));
    let mut owners = Vec::new();
    engine.domain.poll_warm(&mut owners);
    assert_eq!(owners, [owner]);
    assert_eq!(lane.poll(&mut Seen::default(), 1).expect_err("gone").kind, ErrorKind::PeerDead);
}

#[test]
fn lanes_that_are_gone_leave_their_places_to_others() {
    let scratch = Scratch::new();
    let mut engine = Engine::open(options(&scratch.0), 1);
    let (_first, lane) = Puppet::open(&mut engine);
    for _ in 0..5 {
        let (puppet, other) = Puppet::open(&mut engine);
        assert_eq!(puppet.bit, 1, "the place of the one before");
        assert!(puppet.their_hints.is_some());
        drop(other);
        let broken = Puppet::silent(&engine);
        broken.say(&[0; NOTE], &[]);
        let mut refused = engine.accept_lane();
        wait("the refusal", || refused.poll(&mut Seen::default(), 1).err());
    }
    drop(lane);
}

#[test]
fn memory_that_is_lent_is_described_to_those_who_may_read_it_and_as_far_as_it_goes() {
    let scratch = Scratch::new();
    let bytes = vec![1u8; 1 << 20];
    let data = NonNull::from(&bytes[0]);
    for (cross_read, lends) in [(CrossRead::Off, false), (CrossRead::Auto, true)] {
        let mut engine = Engine::open(ShmOptions { cross_read, ..options(&scratch.0) }, 1);
        let (puppet, mut lane) = Puppet::open(&mut engine);
        assert_eq!(lane.describe_lent(data, bytes.len()), Ok(None), "the peer has not asked for any");
        puppet.half.word(READS).store(u64::MAX, Ordering::Release);
        let described = lane.describe_lent(data, bytes.len()).expect("alive");
        assert_eq!(described.is_some(), lends);
        let outside = pull(&mut *lane, &descriptor(0, 4096, 7), &mut [0; 8]);
        assert_eq!(outside, Err(ErrorKind::Protocol), "more than was lent");
        assert_eq!(pull(&mut *lane, &descriptor(0, 4096, 8), &mut [0; 8]), Ok(Pull::Declined));
    }
}
