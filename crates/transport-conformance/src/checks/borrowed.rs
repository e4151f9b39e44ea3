//! Frames whose body stays in the caller's memory.

use crate::Fixture;
use crate::harness::{DEADLINE, Pair, Random, Target, borrowed_header};
use sinew_transport::{Body, LaneError, Placement, PostError, Sink, Token};
use sinew_wire::frame::{Header, Kind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Each post is released exactly once. From then on the memory is the caller's: what it writes there does not travel.
pub fn a_borrowed_post_is_released_once_and_its_memory_is_free_then(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let mut pair = Pair::new(&fixture);
    let limits = pair.a.lane().info().limits;
    let most = limits.borrowed_max.min(4 << 20);
    let mut random = Random(10);
    let mut sizes = vec![0, 1, 40, 41, 4095, 4096, 4097, 65_536, most - 1, most];
    sizes.extend((0..40).map(|_| random.below(20_000)));
    sizes.retain(|&size| size <= most);
    let fill = |number: usize| number as u8 ^ 0x33;
    let mut posts: Vec<(Target, Header)> = sizes
        .iter()
        .enumerate()
        .map(|(number, &size)| {
            let header = borrowed_header(number as u64, size, limits.frame_max);
            (Target::filled(size, fill(number)), header)
        })
        .collect();
    let (mut posted, mut freed) = (0, 0);
    pair.drive("all are released", |a, b| {
        for token in &a.seen.released[freed..] {
            posts[token.0 as usize - 1000].0.fill(0xdd);
        }
        freed = a.seen.released.len();
        assert!(
            !fixture.expected.releases_at_delivery || freed <= b.seen.got.len(),
            "{freed} released and {} delivered",
            b.seen.got.len()
        );
        if posted < posts.len() {
            let (body, header) = &posts[posted];
            posted += usize::from(a.post_borrowed(header, body, Token(posted as u64 + 1000)));
        }
        a.lane().request_acknowledgement();
        freed >= posts.len() && b.seen.got.len() >= posts.len()
    });
    let mut released: Vec<u64> = pair.a.seen.released.iter().map(|token| token.0).collect();
    released.sort_unstable();
    assert_eq!(released, (1000..1000 + posts.len() as u64).collect::<Vec<_>>());
    assert_eq!(pair.b.seen.got.len(), posts.len());
    for (number, ((_, header), got)) in posts.iter().zip(&pair.b.seen.got).enumerate() {
        assert_eq!(got.header, *header);
        assert!(got.body == Some(vec![fill(number); sizes[number]]), "body of {header:?}");
    }
    for (header, most) in
        [(Header::data(1, 0), limits.borrowed_max), (Header::control(Kind::EAGER, 1), limits.borrowed_max)]
    {
        // Larger ones only cost the test its memory.
        if let Some(too_large) = most.checked_add(1).filter(|&len| len <= 64 << 20) {
            let body = Target::filled(too_large, 0);
            assert_eq!(pair.a.try_post_borrowed(&header, &body, Token(0)), Err(PostError::TooLarge));
        }
    }
    pair.a.die();
}

/// Counts a frame only when it has taken its time with it.
struct SlowSink<'a>(&'a AtomicU64);

// SAFETY: it names no memory.
#[allow(unsafe_code)]
unsafe impl Sink for SlowSink<'_> {
    fn frame(&mut self, _: &Header, _: Body<'_>) {
        let until = Instant::now() + Duration::from_micros(100);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        self.0.fetch_add(1, Ordering::Release);
    }

    fn place(&mut self, _: &Header, _: usize) -> Placement {
        Placement::Discard
    }

    fn placed(&mut self, _: &Header, _: usize) {}

    fn released(&mut self, _: Token) {}

    fn pulled(&mut self, _: Token, _: Result<(), LaneError>) {}
}

/// Seen from another thread, too, a post is released only when the peer's sink has returned from it, unless the transport
/// copies.
pub fn a_release_never_overtakes_the_sink(make: &dyn Fn() -> Fixture) {
    const POSTS: u64 = 300;
    let fixture = make();
    if !fixture.expected.releases_at_delivery {
        return;
    }
    let Pair { mut a, mut b } = Pair::new(&fixture);
    let (delivered, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let body = Target::filled(3000, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut sink = SlowSink(&delivered);
            while !done.load(Ordering::Acquire) {
                b.events(Duration::ZERO);
                let timer = b.lane().next_timer().is_some_and(|at| at <= Instant::now());
                let ticked = if timer { b.lane().handle_timer(Instant::now()) } else { Ok(()) };
                if ticked.and_then(|()| b.lane().flush()).and_then(|()| b.lane().poll(&mut sink, 64)).is_err()
                {
                    break;
                }
            }
        });
        let deadline = Instant::now() + DEADLINE;
        let mut posted = 0;
        let mut late = None;
        while late.is_none() && (a.seen.released.len() as u64) < POSTS && Instant::now() < deadline {
            if posted < POSTS && a.post_borrowed(&Header::control(Kind::EAGER, posted), &body, Token(posted))
            {
                posted += 1;
            }
            a.turn(64);
            a.lane().request_acknowledgement();
            let (released, delivered) = (a.seen.released.len() as u64, delivered.load(Ordering::Acquire));
            late = (released > delivered).then_some((released, delivered));
        }
        done.store(true, Ordering::Release);
        assert_eq!(late, None, "(released, delivered)");
        assert_eq!(a.seen.released.len() as u64, POSTS, "released before the deadline");
    });
    a.die();
}

/// After `reclaim` the memory is the caller's: what it writes there does not travel, and nothing is reported later.
pub fn reclaimed_memory_is_not_read_again_and_the_frame_still_arrives(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    let limits = pair.a.lane().info().limits;
    let most = limits.borrowed_max.min(1 << 20);
    let sizes = [100, 5_000, 60_000, most, 3];
    let mut posts = Vec::new();
    for (number, &size) in sizes.iter().filter(|&&size| size <= most).enumerate() {
        let body = Target::filled(size, 0x40 + number as u8);
        let header = borrowed_header(number as u64, size, limits.frame_max);
        pair.send_borrowed(&header, &body, Token(number as u64));
        posts.push((header, body.to_vec(), body));
    }
    for (number, (_, _, body)) in posts.iter_mut().enumerate().filter(|(number, _)| number % 2 == 0) {
        let released = pair.a.seen.released.contains(&Token(number as u64));
        pair.a.lane().reclaim(Token(number as u64));
        if !released {
            body.fill(0xdd);
        }
    }
    let reclaimed_late: Vec<Token> = pair.a.seen.released.clone();
    pair.drive("all arrived", |_, b| b.seen.got.len() >= posts.len());
    for ((header, original, _), got) in posts.iter().zip(&pair.b.seen.got) {
        assert_eq!(got.header, *header);
        assert!(got.body.as_ref() == Some(original), "frame {} carries what was written later", header.tag);
    }
    pair.a.lane().request_acknowledgement();
    pair.drive("the others are released", |a, _| a.lane().unacknowledged() == 0);
    for number in (0..posts.len() as u64).step_by(2).map(Token) {
        let told = pair.a.seen.released.iter().filter(|&&token| token == number).count();
        let told_before = reclaimed_late.iter().filter(|&&token| token == number).count();
        assert_eq!(told, told_before, "{number:?} was reclaimed and is reported all the same");
    }
}

/// A body that is reclaimed when part of it has left arrives as it was, and so does what follows.
pub fn a_reclaimed_body_under_way_arrives_as_it_was(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    let most = pair.a.lane().info().limits.borrowed_max.min(8 << 20);
    for steps in 0..6 {
        let mut body = Target::filled(most, 0x61 + steps as u8);
        let original = body.to_vec();
        let header = Header::data(steps, 0);
        pair.b.seen.got.clear();
        pair.a.seen.released.clear();
        pair.send_borrowed(&header, &body, Token(steps));
        for _ in 0..steps {
            pair.a.turn(1);
            pair.b.turn(1);
        }
        pair.a.lane().reclaim(Token(steps));
        body.fill(0xdd);
        pair.send(&Header::control(Kind::EAGER, 99), b"behind");
        pair.drive("both arrived", |_, b| b.seen.got.len() >= 2);
        assert!(pair.b.seen.got[0].body.as_ref() == Some(&original), "after {steps} steps");
        assert_eq!(pair.b.seen.got[1].body.as_deref(), Some(&b"behind"[..]));
    }
}
