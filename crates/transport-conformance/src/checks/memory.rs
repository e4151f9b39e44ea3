//! Segments, descriptors, pulls and views: where advertised they work, elsewhere they say so.
#![allow(unsafe_code)]

use crate::Fixture;
use crate::harness::{DEADLINE, Pair, Random, Target};
use sinew_transport::buf::Pool;
use sinew_transport::{Buf, Descriptor, ErrorKind, Pull, Segment, Token};
use std::sync::Arc;
use std::time::Instant;

const LEN: usize = 3 << 20;

struct Nobody;

impl Pool for Nobody {
    fn release(&self, _segment: &Arc<dyn Segment>, _offset: usize, _capacity: usize) {}

    fn may_be_shown(&self, _: u64) -> bool {
        true
    }
}

/// A buffer in the middle of a segment of `a`, with content, and its descriptor.
fn described(pair: &mut Pair, len: usize) -> (Buf, Vec<u8>, Descriptor) {
    let segment: Arc<dyn Segment> =
        pair.a.domain.allocate_segment(LEN + 8192).expect("memory").expect("advertised").into();
    assert!(segment.len() >= LEN + 8192 && !segment.is_empty());
    // SAFETY: inside the segment, which is new, so nobody else uses it.
    let mut buf = unsafe { Buf::from_pool(Arc::new(Nobody), segment, 4096, LEN) };
    buf.set_len(len);
    let content = Random(len as u64).bytes(len);
    buf.as_mut_slice().expect("writable").copy_from_slice(&content);
    let deadline = Instant::now() + DEADLINE;
    loop {
        // A lane may need turns to hand the segment to its peer; `None` until then.
        if let Some(descriptor) = pair.a.lane().describe(&buf).expect("alive") {
            return (buf, content, descriptor);
        }
        pair.a.turn(8);
        pair.b.turn(8);
        assert!(Instant::now() < deadline, "advertised and never described");
    }
}

/// The receiver fetches exactly the sender's bytes.
pub fn described_memory_is_pulled(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    if !fixture.expected.capabilities.pull {
        return;
    }
    for len in [1, 4096, 100_001, LEN] {
        let mut pair = Pair::new(&fixture);
        let (buf, content, descriptor) = described(&mut pair, len);
        let target = Target::filled(len, 0);
        let mut pending = false;
        // The segment's descriptor may still be under way to the peer's lane.
        let deadline = Instant::now() + DEADLINE;
        loop {
            // SAFETY: `target` lives until the pull has ended.
            match unsafe { pair.b.lane().pull(&descriptor, target.data(), len, Token(5)) } {
                Ok(Pull::Done) => break,
                Ok(Pull::Pending) => pending = true,
                Ok(Pull::Declined) => panic!("a segment that was described is pulled"),
                Err(error) => assert!(Instant::now() < deadline, "pull: {error}"),
            }
            if pending {
                pair.drive("the pull ended", |_, b| !b.seen.pulled.is_empty());
                assert_eq!(pair.b.seen.pulled, [(Token(5), Ok(()))]);
                break;
            }
            pair.a.turn(8);
            pair.b.turn(8);
        }
        assert!(target.to_vec() == content, "{len} bytes");
        assert_eq!(buf.len(), len);
        pair.b.die();
    }
}

/// The receiver looks at the sender's bytes in place, also when lane and sender are gone.
pub fn described_memory_is_viewed_and_outlives_its_lane(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    if !fixture.expected.capabilities.view {
        return;
    }
    let mut pair = Pair::new(&fixture);
    let (buf, content, descriptor) = described(&mut pair, LEN);
    let deadline = Instant::now() + DEADLINE;
    let view = loop {
        match pair.b.lane().view(&descriptor) {
            Ok(view) => break view,
            Err(error) => assert!(Instant::now() < deadline, "view: {error}"),
        }
        pair.a.turn(8);
        pair.b.turn(8);
    };
    assert!(view.body().to_vec() == content);
    // A view that the lane takes back takes nothing away from others.
    let another = pair.b.lane().view(&descriptor).expect("viewed before");
    drop(pair.b.lane().take_view(another));
    let another = pair.b.lane().view(&descriptor).expect("viewed before");
    assert!(another.body().to_vec() == content);
    drop(pair);
    drop(buf);
    assert_eq!(another.len(), LEN);
    assert_eq!(view.len(), LEN);
    let read = view.body().to_vec();
    assert_eq!(read.len(), LEN, "the memory is still there");
}

/// What its owner has taken back, and written since, is not handed over as if it were the message: neither by a pull that
/// comes later, nor by one that had begun.
pub fn recalled_memory_is_not_believed(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    if !fixture.expected.capabilities.pull {
        return;
    }
    for (len, begun) in [(4096, false), (LEN, false), (LEN, true)] {
        let mut pair = Pair::new(&fixture);
        let (mut buf, _, descriptor) = described(&mut pair, len);
        pair.drive("its segment has come", |_, b| {
            !fixture.expected.capabilities.view || b.lane().view(&descriptor).is_ok()
        });
        let target = Target::filled(len, 0);
        // SAFETY: `target` lives until the pull has ended; so below.
        let pull = |pair: &mut Pair| unsafe { pair.b.lane().pull(&descriptor, target.data(), len, Token(5)) };
        let early = begun.then(|| pull(&mut pair));
        pair.a.lane().recall();
        buf.as_mut_slice().expect("writable").fill(0);
        match early.unwrap_or_else(|| pull(&mut pair)) {
            Ok(Pull::Pending) => {
                pair.drive("the pull ended", |_, b| !b.seen.pulled.is_empty());
                assert!(matches!(pair.b.seen.pulled[..], [(Token(5), Err(_))]), "{:?}", pair.b.seen.pulled);
            }
            Ok(Pull::Done) => assert!(begun, "it was recalled before"),
            Ok(Pull::Declined) | Err(_) => {}
        }
        assert!(pair.b.lane().view(&descriptor).is_err(), "a view of what was recalled");
        // Memory that is described from now on is as good as ever.
        let (_buf, content, descriptor) = described(&mut pair, len);
        pair.b.seen.pulled.clear();
        let target = Target::filled(len, 0);
        let deadline = Instant::now() + DEADLINE;
        loop {
            // SAFETY: as above.
            match unsafe { pair.b.lane().pull(&descriptor, target.data(), len, Token(6)) } {
                Ok(Pull::Done) => break,
                Ok(Pull::Pending) => {
                    pair.drive("the pull ended", |_, b| !b.seen.pulled.is_empty());
                    assert_eq!(pair.b.seen.pulled, [(Token(6), Ok(()))]);
                    break;
                }
                Ok(Pull::Declined) => panic!("a segment that was described is pulled"),
                Err(error) => assert!(Instant::now() < deadline, "pull: {error}"),
            }
            pair.a.turn(8);
            pair.b.turn(8);
        }
        assert!(target.to_vec() == content);
        pair.b.die();
    }
}

/// Pulls lent memory to its end. `None`: the lane would rather be sent it.
fn pull_lent(
    pair: &mut Pair,
    from: &Descriptor,
    target: &Target,
    len: usize,
) -> Option<Result<(), ErrorKind>> {
    pair.b.seen.pulled.clear();
    // SAFETY: `target` lives until the pull has ended, which this waits for.
    match unsafe { pair.b.lane().pull(from, target.data(), len, Token(7)) } {
        Ok(Pull::Done) => Some(Ok(())),
        Ok(Pull::Declined) => None,
        Ok(Pull::Pending) => {
            pair.drive("the pull ended", |_, b| !b.seen.pulled.is_empty());
            let (token, result) = pair.b.seen.pulled.pop().expect("one");
            assert_eq!(token, Token(7));
            Some(result.map_err(|error| error.kind))
        }
        Err(error) => Some(Err(error.kind)),
    }
}

/// Memory of the sender's own that its lane describes is read as it is, and nothing beside it; not after it was recalled, and
/// not beyond what was lent.
pub fn lent_memory_is_read_where_it_lies(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let mut pair = Pair::new(&fixture);
    let mut read = 0;
    for len in [1, 4096, 70_001, 600_000, LEN] {
        let content = Random(len as u64 + 1).bytes(len);
        let data = std::ptr::NonNull::from(&content[0]);
        let Some(descriptor) = pair.a.lane().describe_lent(data, len).expect("alive") else { continue };
        let target = Target::filled(len, 0);
        match pull_lent(&mut pair, &descriptor, &target, len) {
            None => continue,
            Some(result) => assert_eq!(result, Ok(()), "{len} bytes"),
        }
        assert!(target.to_vec() == content, "{len} bytes");
        read += 1;
        let target = Target::filled(len, 0xa5);
        let part = len.div_ceil(2);
        assert_eq!(pull_lent(&mut pair, &descriptor, &target, part), Some(Ok(())), "the first half");
        assert!(target.to_vec()[..part] == content[..part]);
        assert!(target.to_vec()[part..].iter().all(|&byte| byte == 0xa5), "beyond the half");
        let longer = Target::filled(len + 1, 0);
        assert!(
            !matches!(pull_lent(&mut pair, &descriptor, &longer, len + 1), Some(Ok(()))),
            "more than lent"
        );
        pair.a.lane().recall();
        assert!(!matches!(pull_lent(&mut pair, &descriptor, &target, len), Some(Ok(()))), "recalled");
    }
    println!("lent memory of {read} lengths was read");
    assert!(read == 0 || read == 5, "advertised for some lengths only: {read}");
    pair.b.die();
}

/// Garbage instead of a descriptor, and one of another connection, is an error and nothing worse.
pub fn a_forged_descriptor_is_an_error(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    if !fixture.expected.capabilities.pull {
        return;
    }
    let mut pair = Pair::new(&fixture);
    let (_buf, _, good) = described(&mut pair, 4096);
    let target = Target::filled(1 << 20, 0x99);
    let mut random = Random(77);
    // SAFETY: `target` outlives the lane, which `die` drops first; so below.
    let pulled = unsafe { pair.b.lane().pull(&good, target.data(), 1 << 20, Token(1 << 40)) };
    assert!(pulled != Ok(Pull::Done), "one MiB of what was described as 4 KiB");
    for round in 0..400 {
        let mut forged = good;
        let garbage = round % 2 == 0;
        if garbage {
            forged.0.copy_from_slice(&random.bytes(good.0.len()));
        } else {
            forged.0[random.below(good.0.len())] ^= 1 << random.below(8);
        }
        // SAFETY: as above.
        let pulled = unsafe { pair.b.lane().pull(&forged, target.data(), 4096, Token(round)) };
        assert!(!garbage || pulled != Ok(Pull::Done), "{forged:?} names nothing");
        // A flipped bit may name another part of what the peer shares anyhow; reading it must be harmless.
        if let Ok(view) = pair.b.lane().view(&forged) {
            assert!(!garbage, "{forged:?} names nothing");
            let _ = view.body().to_vec();
        }
    }
    pair.drive("both live", |a, b| {
        assert!(a.over.is_none() && b.over.is_none());
        true
    });
    pair.b.die();
}

/// What the table does not list answers `Unsupported`, and a buffer that cannot be described says so.
pub fn what_is_not_advertised_is_unsupported(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let capabilities = fixture.expected.capabilities;
    let mut pair = Pair::new(&fixture);
    let heap = Buf::from(vec![1; 100]);
    assert_eq!(pair.a.lane().describe(&heap), Ok(None), "heap memory is nothing to describe");
    let target = Target::filled(64, 0);
    if !capabilities.pull {
        // SAFETY: `target` lives longer than the lane.
        let pulled = unsafe { pair.b.lane().pull(&Descriptor([0; 24]), target.data(), 64, Token(1)) };
        assert_eq!(pulled.map_err(|error| error.kind), Err(ErrorKind::Unsupported));
    }
    if !capabilities.view {
        let viewed = pair.b.lane().view(&Descriptor([0; 24]));
        assert_eq!(viewed.map(|_| ()).map_err(|error| error.kind), Err(ErrorKind::Unsupported));
    }
    if !capabilities.pull && !capabilities.view {
        assert!(pair.a.domain.allocate_segment(4096).expect("no is no error").is_none());
    }
    pair.b.die();
}
