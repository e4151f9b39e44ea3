//! Segments between two domains in one process: described, pulled, viewed, freed, forged, bounded.
#![allow(unsafe_code)]
#![cfg(all(target_os = "linux", not(loom)))]

mod common;

use common::{Engine, Scratch, Seen, body_of, options, pair, wait};
use sinew_transport::buf::Pool;
use sinew_transport::{Buf, Descriptor, ErrorKind, Lane, Pull, Segment, Token};
use std::ptr::NonNull;
use std::sync::Arc;

struct NoPool;

impl Pool for NoPool {
    fn release(&self, _segment: &Arc<dyn Segment>, _offset: usize, _capacity: usize) {}

    fn may_be_shown(&self, _: u64) -> bool {
        true
    }
}

fn segment(engine: &mut Engine, len: usize) -> Arc<dyn Segment> {
    engine.domain.allocate_segment(len).expect("memory").expect("shm has segments").into()
}

fn buf(segment: &Arc<dyn Segment>, offset: usize, bytes: &[u8]) -> Buf {
    assert!(offset + bytes.len() <= segment.len());
    // SAFETY: inside the segment, and the tests use each range once.
    let mut buf = unsafe { Buf::from_pool(Arc::new(NoPool), segment.clone(), offset, bytes.len()) };
    buf.as_mut_slice().expect("writable").copy_from_slice(bytes);
    buf
}

fn pull(lane: &mut dyn Lane, from: &Descriptor, target: &mut [u8]) -> Result<Pull, ErrorKind> {
    let data = NonNull::new(target.as_mut_ptr()).expect("not null");
    // SAFETY: the tests keep the target until the pull has ended.
    unsafe { lane.pull(from, data, target.len(), Token(9)) }.map_err(|error| error.kind)
}

#[test]
fn a_described_buffer_is_pulled_and_viewed_by_the_peer() {
    let scratch = Scratch::new();
    let (mut left, mut right) = (Engine::open(options(&scratch.0), 1), Engine::open(options(&scratch.0), 2));
    let (mut near, mut far) = pair(&mut left, &mut right);
    let segment = segment(&mut left, 1 << 20);
    let bytes = body_of(3, 100_000);
    let buf = buf(&segment, 4096, &bytes);
    let descriptor = near.describe(&buf).expect("alive").expect("described");
    let mut target = vec![0; bytes.len()];
    assert_eq!(pull(&mut *far, &descriptor, &mut target), Ok(Pull::Done));
    assert!(target == bytes);
    let view = far.view(&descriptor).expect("viewed");
    assert!(view.body().to_vec() == bytes);
    assert_eq!(near.describe(&buf).expect("alive"), Some(descriptor), "the same buffer, the same name");
    // The view outlives the lane and the segment's owner.
    drop((near, far, buf, segment));
    assert!(view.body().to_vec() == bytes);
}

/// Mappings of peers' segments in this process that are `len` bytes long: those of other tests are not.
fn mapped(len: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
    let theirs = maps.lines().filter(|line| line.contains("sinew-segment") && line.contains(" r--s "));
    let length = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(usize::from_str_radix(end, 16).ok()? - usize::from_str_radix(start, 16).ok()?)
    };
    theirs.filter(|line| length(line) == Some(len)).count()
}

#[test]
fn a_view_that_came_back_serves_the_next_one_and_goes_with_its_segment() {
    let scratch = Scratch::new();
    let (mut left, mut right) = (Engine::open(options(&scratch.0), 1), Engine::open(options(&scratch.0), 2));
    let (mut near, mut far) = pair(&mut left, &mut right);
    let (_other_near, mut other) = pair(&mut left, &mut right);
    let len = 75 * 4096;
    let segment = segment(&mut left, len);
    let bytes = body_of(3, 100_000);
    let buf = buf(&segment, 4096, &bytes);
    let descriptor = near.describe(&buf).expect("alive").expect("described");
    let (first, second) = (far.view(&descriptor).expect("viewed"), far.view(&descriptor).expect("viewed"));
    let first = other.take_view(first).expect("not that lane's");
    assert!(far.take_view(first).is_none());
    assert!(second.body().to_vec() == bytes, "what one gives back is not the other's");
    let third = far.view(&descriptor).expect("viewed");
    assert!(third.body().to_vec() == bytes);
    assert!(far.take_view(third).is_none());
    assert!(far.take_view(second).is_some(), "one is kept");
    assert_eq!(mapped(len), 1);
    drop((buf, segment));
    near.flush().expect("alive");
    wait("the segment's end", || {
        right.turn(std::time::Duration::from_millis(1), &mut [(1, &mut *far)]);
        (mapped(len) == 0).then_some(())
    });
}

#[test]
fn a_large_pull_ends_in_later_polls_and_a_revoked_one_writes_nothing_more() {
    let scratch = Scratch::new();
    let (mut left, mut right) = (Engine::open(options(&scratch.0), 1), Engine::open(options(&scratch.0), 2));
    let (mut near, mut far) = pair(&mut left, &mut right);
    let bytes = body_of(5, 5 << 20);
    let segment = segment(&mut left, bytes.len());
    let buf = buf(&segment, 0, &bytes);
    let descriptor = near.describe(&buf).expect("alive").expect("described");
    let mut target = vec![0; bytes.len()];
    assert!(right.domain.arm(), "nothing is to be done");
    right.domain.disarm();
    assert_eq!(pull(&mut *far, &descriptor, &mut target), Ok(Pull::Pending));
    let mut seen = Seen::default();
    wait("the pull", || {
        assert!(!right.domain.arm() && !far.cool(), "no sleep over a pull");
        right.domain.disarm();
        far.poll(&mut seen, 4).expect("alive");
        seen.pulled.pop().map(|ended| assert_eq!(ended, (Token(9), Ok(()))))
    });
    assert!(target == bytes);
    assert!(right.domain.arm());
    right.domain.disarm();
    target.fill(0);
    assert_eq!(pull(&mut *far, &descriptor, &mut target), Ok(Pull::Pending));
    far.poll(&mut seen, 4).expect("alive");
    far.revoke(Token(9));
    let after = target.clone();
    for _ in 0..10 {
        far.poll(&mut seen, 4).expect("alive");
    }
    assert!(target == after && seen.pulled.is_empty());
}

#[test]
fn a_segment_shown_to_one_peer_is_not_shown_to_another() {
    let scratch = Scratch::new();
    let (mut left, mut right) = (Engine::open(options(&scratch.0), 1), Engine::open(options(&scratch.0), 2));
    let (mut near, _far) = pair(&mut left, &mut right);
    let (mut other, _other_far) = pair(&mut left, &mut right);
    let segment = segment(&mut left, 4096);
    let buf = buf(&segment, 0, b"for one pair of eyes");
    assert!(near.describe(&buf).expect("alive").is_some());
    assert_eq!(other.describe(&buf).expect("alive"), None);
    assert_eq!(near.describe(&Buf::zeroed(5)).expect("alive"), None, "not in a segment");
}

#[test]
fn forged_and_stale_descriptors_are_refused_and_the_lane_lives_on() {
    let scratch = Scratch::new();
    let (mut left, mut right) = (Engine::open(options(&scratch.0), 1), Engine::open(options(&scratch.0), 2));
    let (mut near, mut far) = pair(&mut left, &mut right);
    let segment = segment(&mut left, 8192);
    let buf = buf(&segment, 4000, &[7; 96]);
    let good = near.describe(&buf).expect("alive").expect("described");
    let mut target = vec![0; 96];
    for (at, value) in [(0, 77u64), (8, 8192 - 95), (8, u64::MAX), (16, 8192), (16, u64::MAX)] {
        let mut forged = good;
        forged.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        assert_eq!(pull(&mut *far, &forged, &mut target), Err(ErrorKind::Protocol), "{at} {value}");
        assert_eq!(far.view(&forged).expect_err("forged").kind, ErrorKind::Protocol);
    }
    assert_eq!(pull(&mut *far, &good, &mut [0; 97]), Err(ErrorKind::Protocol), "more than described");
    assert_eq!(pull(&mut *far, &good, &mut target), Ok(Pull::Done));
    assert_eq!(target, [7; 96]);
    drop((buf, segment));
    near.flush().expect("alive");
    wait("the segment's end", || {
        right.turn(std::time::Duration::from_millis(1), &mut [(1, &mut *far)]);
        (pull(&mut *far, &good, &mut target) == Err(ErrorKind::Protocol)).then_some(())
    });
    far.poll(&mut Seen::default(), 1).expect("alive");
}

#[test]
fn what_was_described_is_not_believed_when_its_owner_has_closed_the_lane() {
    let scratch = Scratch::new();
    let (mut left, mut right) = (Engine::open(options(&scratch.0), 1), Engine::open(options(&scratch.0), 2));
    let (mut near, mut far) = pair(&mut left, &mut right);
    let segment = segment(&mut left, 4096);
    let mut mine = buf(&segment, 0, &[1; 96]);
    let described = near.describe(&mine).expect("alive").expect("described");
    let mut target = [0; 96];
    assert_eq!(pull(&mut *far, &described, &mut target), Ok(Pull::Done));
    near.close();
    // From now on its owner writes there.
    mine.as_mut_slice().expect("writable").fill(2);
    assert_eq!(pull(&mut *far, &described, &mut target), Err(ErrorKind::Broken));
    assert_eq!(far.view(&described).expect_err("closed").kind, ErrorKind::Broken);
}

/// Descriptors of segments of so many bytes in this process: those of other tests are not.
fn open_of(len: usize) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").expect("proc").flatten().map(|entry| entry.path());
    fds.filter(|fd| std::fs::read_link(fd).is_ok_and(|to| to.to_string_lossy().contains("sinew-segment")))
        .filter(|fd| std::fs::metadata(fd).is_ok_and(|file| file.len() == len as u64))
        .count()
}

#[test]
fn a_segment_that_both_have_costs_no_descriptor() {
    let scratch = Scratch::new();
    let (mut left, mut right) = (Engine::open(options(&scratch.0), 1), Engine::open(options(&scratch.0), 2));
    let (mut near, mut far) = pair(&mut left, &mut right);
    let len = 77 * 4096;
    let segment = segment(&mut left, len);
    assert_eq!(open_of(len), 1, "until somebody wants it");
    let buf = buf(&segment, 0, &[1; 96]);
    let described = near.describe(&buf).expect("alive").expect("described");
    assert_eq!(pull(&mut *far, &described, &mut [0; 96]), Ok(Pull::Done));
    assert_eq!((open_of(len), mapped(len)), (0, 1));
}

#[test]
fn segments_that_end_while_the_peer_does_not_listen_are_told_when_it_does() {
    let scratch = Scratch::new();
    let many = sinew_transport_shm::ShmOptions { segments_max: 1 << 16, ..options(&scratch.0) };
    let (mut left, mut right) = (Engine::open(many.clone(), 1), Engine::open(many, 2));
    let (mut near, mut far) = pair(&mut left, &mut right);
    let len = 3 * 4096;
    let mut held = Vec::new();
    loop {
        let segment = segment(&mut left, len);
        let buf = buf(&segment, 0, &[1; 8]);
        if near.describe(&buf).expect("alive").is_none() {
            break;
        }
        held.push((buf, segment));
        assert!(held.len() < 1 << 16, "the socket is never full");
    }
    drop(held);
    near.flush().expect("alive");
    let mut most = 0;
    wait("the end of all segments", || {
        right.turn(std::time::Duration::from_millis(1), &mut [(1, &mut *far)]);
        near.flush().expect("alive");
        most = most.max(mapped(len));
        (most > 0 && mapped(len) == 0).then_some(())
    });
    // All are accounted for: as many fit as before.
    let segment = segment(&mut left, len);
    assert!(near.describe(&buf(&segment, 0, &[1; 8])).expect("alive").is_some());
}

#[test]
fn no_more_segments_are_passed_than_the_peer_maps_and_freed_ones_make_room() {
    let scratch = Scratch::new();
    let few = sinew_transport_shm::ShmOptions { segments_max: 3, ..options(&scratch.0) };
    let (mut left, mut right) = (Engine::open(options(&scratch.0), 1), Engine::open(few, 2));
    let (mut near, mut far) = pair(&mut left, &mut right);
    let mut held = Vec::new();
    for number in 0..4 {
        let segment = segment(&mut left, 4096);
        let buf = buf(&segment, 0, &[number; 8]);
        let described = near.describe(&buf).expect("alive");
        assert_eq!(described.is_some(), number < 3);
        held.push((buf, segment, described));
    }
    let mut target = [0; 8];
    for (number, (_, _, described)) in held.iter().take(3).enumerate() {
        assert_eq!(pull(&mut *far, &described.expect("described"), &mut target), Ok(Pull::Done));
        assert_eq!(target, [number as u8; 8]);
    }
    held.remove(0);
    near.flush().expect("alive");
    let described = near.describe(&held[2].0).expect("alive").expect("room again");
    assert_eq!(pull(&mut *far, &described, &mut target), Ok(Pull::Done));
    assert_eq!(target, [3; 8]);
}
