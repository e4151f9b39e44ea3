//! `DATA` bodies that go straight to their place.

use crate::Fixture;
use crate::harness::{Pair, Random, Target};
use sinew_transport::Token;
use sinew_wire::frame::{Header, Kind};

/// Copied and borrowed `DATA` bodies of many sizes arrive; the large ones in the place, where the transport can.
pub fn a_placed_body_is_written_where_the_sink_says(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let mut pair = Pair::new(&fixture);
    let limits = pair.a.lane().info().limits;
    let most = limits.borrowed_max.min(2 << 20);
    let mut random = Random(20);
    let mut expected = Vec::new();
    let mut kept = Vec::new();
    for (number, size) in [0, 1, 4096, 30_000, 65_536, 200_000, most, 17].into_iter().enumerate() {
        let header = Header::data(number as u64, random.next());
        if size <= limits.frame_max {
            let body = random.bytes(size);
            pair.send(&header, &body);
            expected.push((header, body));
        }
        if size <= most {
            let header = Header::data(number as u64 + 100, random.next());
            let body = Target::filled(size, 0x70 + number as u8);
            pair.send_borrowed(&header, &body, Token(number as u64));
            expected.push((header, body.to_vec()));
            kept.push(body);
        }
    }
    pair.drive("all arrived", |_, b| b.seen.got.len() >= expected.len());
    for (got, (header, body)) in pair.b.seen.got.iter().zip(&expected) {
        assert_eq!(got.header, *header);
        assert_eq!(got.header.offset(), header.offset());
        assert!(got.body.as_ref() == Some(body), "body {} of {} bytes", header.tag, body.len());
    }
    assert_eq!(
        pair.b.seen.places > 0,
        fixture.expected.places,
        "whether the transport places large bodies is in the table"
    );
    pair.a.die();
}

/// A sink that wants no bytes gets none, and the next frame is whole.
pub fn a_discarded_body_is_read_aside(make: &dyn Fn() -> Fixture) {
    let mut pair = Pair::new(&make());
    pair.b.seen.discard = true;
    let most = pair.a.lane().info().limits.borrowed_max.min(1 << 20);
    let body = Target::filled(most, 5);
    pair.send_borrowed(&Header::data(1, 0), &body, Token(1));
    pair.send(&Header::control(Kind::EAGER, 2), b"next");
    pair.drive("both arrived", |_, b| b.seen.got.len() >= 2);
    assert_eq!(pair.b.seen.got[0].header.tag, 1);
    assert_eq!(pair.b.seen.got[0].body.is_none(), pair.b.seen.places > 0);
    assert_eq!(pair.b.seen.got[1].body.as_deref(), Some(&b"next"[..]));
    pair.a.die();
}

/// `revoke` midway: not a byte is written to the place afterwards, the rest is read aside, what follows arrives.
pub fn a_revoked_place_is_never_written_again_and_the_lane_lives_on(make: &dyn Fn() -> Fixture) {
    let fixture = make();
    let mut pair = Pair::new(&fixture);
    let most = pair.a.lane().info().limits.borrowed_max.min(8 << 20);
    let body = Target::filled(most, 0x11);
    pair.send_borrowed(&Header::data(7, 0), &body, Token(1));
    // In small steps, to find it begun and not complete.
    pair.drive("the body began to arrive", |a, b| {
        a.turn(1);
        b.turn(1);
        !b.seen.placing.is_empty() || !b.seen.got.is_empty()
    });
    let revoked = pair.b.seen.placing.remove(&7);
    if let Some((token, mut target)) = revoked {
        pair.b.lane().revoke(token);
        target.fill(0xcc);
        pair.drive("the rest was read aside", |_, b| !b.seen.got.is_empty());
        assert!(target.to_vec().iter().all(|&byte| byte == 0xcc), "written after `revoke`");
        assert_eq!(pair.b.seen.got[0].header.tag, 7);
    } else if fixture.expected.places {
        println!("the body arrived whole at once: nothing was there to revoke");
    }
    pair.send(&Header::control(Kind::EAGER, 8), b"next");
    pair.drive("the next frame arrived", |_, b| b.seen.got.len() >= 2);
    assert_eq!(pair.b.seen.got[1].body.as_deref(), Some(&b"next"[..]));
    pair.b.lane().revoke(Token(0xdead));
    assert!(pair.a.over.is_none() && pair.b.over.is_none());
    pair.a.die();
}
