//! Long messages whose beginning goes behind the envelope unasked: how much, when, and when not.

use super::{Rig, Wire, eager, numbered_bytes};
use crate::core::Core;
use crate::core::op::{Memory, Op, SendState};
use crate::core::session::{Push, Session};
use crate::core::table::Key;
use sinew_transport::Capabilities;
use sinew_wire::frame::{Header, Kind};
use sinew_wire::hello::Features;

/// A session over a lane that can do so much, whose peer takes pushes.
fn rig(capabilities: Capabilities) -> (Rig, Key, Wire) {
    let rig = Rig::new([0; 16]);
    let (lane, wire) = rig.unproven_with("one", 4000, capabilities);
    rig.core(|core| core.attach_lane(lane));
    rig.resumes(lane, &wire, 0, 0);
    rig.switches(lane, &wire, 1, 0);
    rig.core(Core::progress);
    wire.take();
    session(&rig, |session| {
        session.flow_to(5);
        session.peer.features = Features::PUSHES;
    });
    (rig, lane, wire)
}

fn session<R>(rig: &Rig, look: impl FnOnce(&mut Session) -> R) -> R {
    rig.core(|core| look(core.sessions.get_mut(rig.session).unwrap()))
}

/// Sends a message of `len` bytes: what its envelope says that comes unasked, and where that lay.
fn goes(rig: &Rig, wire: &Wire, len: usize) -> (Key, u64, Vec<(u64, usize)>) {
    let whole = numbered_bytes(len);
    let key = rig.core(|core| {
        let header = Header { dst: 5, src: 1, ..eager(9) };
        core.start_send(rig.session, 0, header, None, Memory::Owned(whole.clone().into()), false)
    });
    rig.core(Core::progress);
    let went = wire.take();
    let (header, body) = &went[0];
    assert_eq!(header.kind, Kind::ENVELOPE);
    let pushed = body.get(16..24).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    assert_eq!(body.len(), if pushed > 0 { 24 } else { 16 });
    let part = |(header, body): &(Header, Vec<u8>)| {
        assert_eq!((header.kind, header.tag), (Kind::PUSH, key.0));
        assert!(body[..] == whole[header.offset() as usize..][..body.len()]);
        (header.offset(), body.len())
    };
    (key, pushed, went[1..].iter().map(part).collect())
}

#[test]
fn the_beginning_of_a_long_message_goes_behind_its_envelope() {
    let (rig, _lane, wire) = rig(Capabilities::default());
    // Something has gone before.
    goes(&rig, &wire, 5000);
    let before = session(&rig, |session| (session.sent, session.pushed));
    assert_eq!(before, (1 + 2, 5000));
    let (key, pushed, parts) = goes(&rig, &wire, 10_000);
    assert_eq!((pushed, parts), (10_000, vec![(0, 4000), (4000, 4000), (8000, 2000)]));
    let after = session(&rig, |session| (session.sent, session.pushed, session.to_push.is_none()));
    assert_eq!(after, (3 + 1 + 3, 15_000, true));
    rig.core(|core| match core.ops.get(key) {
        Some(Op::Send(op)) => {
            assert_eq!((op.references, op.pushed), (3, 10_000));
            assert!(matches!(op.state, SendState::Announced));
        }
        _ => panic!("it is there"),
    });
}

#[test]
fn no_more_goes_unasked_than_the_peer_may_answer_in_time() {
    let (rig, _lane, wire) = rig(Capabilities::default());
    let (_, pushed, parts) = goes(&rig, &wire, (1 << 20) + 5000);
    let sum: usize = parts.iter().map(|(_, len)| len).sum();
    assert_eq!((pushed, sum), (1 << 20, 1 << 20), "of one message");
    for (before, expected) in [((4 << 20) - 5000, 5000), ((4 << 20) - 4999, 0)] {
        session(&rig, |session| session.pushed = before);
        assert_eq!(goes(&rig, &wire, 5000).1, expected, "of all together");
    }
}

#[test]
fn nothing_goes_unasked_where_that_is_of_no_use() {
    for capabilities in [
        Capabilities { pull: true, ..Capabilities::default() },
        Capabilities { view: true, ..Capabilities::default() },
        Capabilities { memory_polled: true, ..Capabilities::default() },
    ] {
        let (rig, _lane, wire) = rig(capabilities);
        let (_, pushed, parts) = goes(&rig, &wire, 5000);
        assert_eq!((pushed, parts.len()), (0, 0), "{capabilities:?}");
    }
    let (rig, lane, wire) = rig(Capabilities::default());
    session(&rig, |session| session.peer.features = Features(0));
    assert_eq!(goes(&rig, &wire, 5000).1, 0, "the peer takes none");
    session(&rig, |session| {
        session.peer.features = Features::PUSHES;
        session.flows[0].shy = 2;
    });
    let shy = [0, 1, 2].map(|_| goes(&rig, &wire, 5000).1);
    assert_eq!(shy, [0, 0, 5000], "its receiver was not waiting");
    // Several lanes share long messages.
    let (beside, _second) = rig.lane("one", 4096);
    for join in [[false, true], [true, true]] {
        for (lane, joins) in [lane, beside].into_iter().zip(join) {
            rig.core(|core| core.lanes.get_mut(lane).unwrap().joins = joins);
        }
        assert_eq!(goes(&rig, &wire, 5000).1, if join[0] { 0 } else { 5000 });
    }
    // One that fits a frame, and waits for credit in vain.
    let (rig, _lane, wire) = self::rig(Capabilities::default());
    session(&rig, |session| {
        let all = session.bytes.available();
        session.bytes.take_afforded(all);
    });
    assert_eq!(goes(&rig, &wire, 4000).1, 0);
}

#[test]
fn a_push_ends_with_its_message() {
    let (rig, _lane, wire) = rig(Capabilities::default());
    let (key, ..) = goes(&rig, &wire, 5000);
    rig.core(|core| {
        core.finish_send(key, Ok(()));
        let session = core.sessions.get_mut(rig.session).unwrap();
        session.to_push = Some(Push { op: key, next: 0, end: 5000 });
        core.mark_dirty(rig.session);
        core.progress();
    });
    assert!(wire.take().is_empty());
    assert!(session(&rig, |session| session.to_push.is_none()));
}
