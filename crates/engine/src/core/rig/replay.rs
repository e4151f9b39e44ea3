//! What a lost lane leaves goes on a lane that may be narrower: as it was, in parts, or announced.

use super::Rig;
use crate::core::op::{Memory, Op, SendOp, SendState};
use crate::core::table::Key;
use sinew_transport::{ErrorKind, Token, Unacknowledged, UnacknowledgedBody};
use sinew_wire::frame::{Flags, Header, Kind};

const LESS: [u8; 16] = [0; 16];

fn eager() -> Header {
    Header { kind: Kind::EAGER, flags: Flags(0), dst: 5, src: 1, tag: 9 }
}

/// What a short message before it costs.
const BEFORE: u64 = 100 + 64;

/// A session that has sent a message over a wide lane, behind a short one, which is lost; its next lane takes frames up to `frame_max`.
/// What goes there behind the short one.
fn goes_on(len: usize, frame_max: usize) -> (Rig, Vec<(Header, Vec<u8>)>) {
    let rig = Rig::new(LESS);
    let (wide, first) = rig.lane("wide", 64 << 10);
    rig.resumes(wide, &first, 0, 0);
    rig.switches(wide, &first, 1, 0);
    rig.core(|core| {
        let flow = core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        for len in [100, len] {
            let memory = Memory::Owned((0..len).map(|at| at as u8).collect::<Vec<u8>>().into());
            core.start_send(rig.session, flow, eager(), None, memory, false);
        }
        core.progress();
    });
    let sent: Vec<Kind> = first.state().posted.iter().map(|(header, _)| header.kind).collect();
    assert_eq!(sent.last(), Some(&Kind::EAGER), "{sent:?}");
    first.state().over = Some(ErrorKind::Broken);
    rig.core(|core| core.poll_lane(wide, 64));
    let (next, second) = rig.lane("next", frame_max);
    rig.resumes(next, &second, 1, 0);
    second.take();
    rig.core(|core| core.progress());
    let mut went = second.take();
    let short = went.remove(0);
    assert_eq!((short.0.kind, short.1.len()), (Kind::EAGER, 100));
    (rig, went)
}

#[test]
fn a_message_goes_whole_where_it_fits_and_is_announced_where_not() {
    let (rig, went) = goes_on(4096, 4096);
    assert_eq!(went.len(), 1);
    assert_eq!((went[0].0.kind, went[0].1.len()), (Kind::EAGER, 4096));
    assert_eq!(rig.core(|core| core.counters.replayed), 2);
    let (rig, went) = goes_on(4097, 4096);
    assert_eq!(went.len(), 1);
    assert_eq!(went[0].0.kind, Kind::ENVELOPE);
    assert_eq!(went[0].1[8..16], 4097_u64.to_le_bytes());
    let key = Key(u64::from_le_bytes(went[0].1[..8].try_into().unwrap()));
    rig.core(|core| {
        let Some(Op::Send(op)) = core.ops.get(key) else { panic!("it waits to be fetched") };
        assert!(matches!(op.state, SendState::Announced));
        assert_eq!(op.memory.len(), 4097);
        let (session, windows) = (core.sessions.get(rig.session).unwrap(), core.config.windows);
        // It pays as an envelope, not for bytes.
        assert_eq!(session.bytes.available(), windows.session_bytes - BEFORE);
        assert_eq!(session.flows[0].bytes.available(), windows.endpoint_bytes - BEFORE);
        assert_eq!(session.envelopes.available(), windows.session_envelopes - 1);
        assert_eq!(session.flows[0].envelopes.available(), windows.endpoint_envelopes - 1);
        assert_eq!((session.sent, session.buffered), (2, 4097 + 256));
    });
}

#[test]
fn a_fragment_goes_in_parts_that_count_as_frames() {
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    let whole: Vec<u8> = (0..10_000_u32).map(|at| (at / 7) as u8).collect();
    let op = SendOp {
        state: SendState::Releasing(Ok(())),
        references: 1,
        ..SendOp::new((rig.session, 0), eager(), None, Memory::Owned(whole.clone().into()))
    };
    let key = rig.core(|core| core.ops.insert(Op::Send(op)));
    rig.core(|core| {
        let Some(Op::Send(op)) = core.ops.get(key) else { panic!("it is there") };
        let data = op.memory.data().as_ptr().cast_const();
        let body = UnacknowledgedBody::Borrowed { data, len: whole.len(), token: Token(key.0) };
        let session = core.sessions.get_mut(rig.session).unwrap();
        session.sent = 1;
        session.replay.push_back(Unacknowledged { header: Header::data(7, 50_000), body });
    });
    first.state().over = Some(ErrorKind::Broken);
    rig.core(|core| core.poll_lane(one, 64));
    rig.resumes(two, &second, 1, 0);
    second.take();
    rig.core(|core| core.progress());
    let went = second.take();
    let offsets: Vec<(u64, usize)> =
        went.iter().map(|(header, body)| (header.offset(), body.len())).collect();
    assert_eq!(offsets, [(50_000, 4096), (54_096, 4096), (58_192, 10_000 - 8192)]);
    assert_eq!(went.iter().flat_map(|(_, body)| body.iter().copied()).collect::<Vec<u8>>(), whole);
    rig.core(|core| {
        assert_eq!(core.sessions.get(rig.session).unwrap().sent, 3);
        assert_eq!((core.counters.split, core.counters.replayed), (2, 3));
        let Some(Op::Send(op)) = core.ops.get(key) else { panic!("it is there") };
        assert_eq!(op.references, 3, "each part");
    });
}

/// What the lost lane had copied is divided alike, and each part is what the whole was.
#[test]
fn a_copied_fragment_goes_in_parts_of_its_kind() {
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    let whole: Vec<u8> = (0..10_000_u32).map(|at| (at / 7) as u8).collect();
    rig.core(|core| {
        let session = core.sessions.get_mut(rig.session).unwrap();
        session.sent = 1;
        let body = UnacknowledgedBody::Owned(whole.clone());
        session.replay.push_back(Unacknowledged { header: Header::push(7, 50_000), body });
    });
    first.state().over = Some(ErrorKind::Broken);
    rig.core(|core| core.poll_lane(one, 64));
    rig.resumes(two, &second, 1, 0);
    second.take();
    rig.core(|core| core.progress());
    let went = second.take();
    let headers: Vec<Header> = went.iter().map(|(header, _)| *header).collect();
    assert_eq!(headers, [50_000, 54_096, 58_192].map(|at| Header::push(7, at)));
    assert_eq!(went.iter().flat_map(|(_, body)| body.iter().copied()).collect::<Vec<u8>>(), whole);
}

/// What a message was paid from says nothing of what its envelope is paid from.
#[test]
fn an_envelope_in_the_place_of_a_message_from_the_reserve_is_paid_from_what_is_shared() {
    let (rig, one, first) = Rig::carried(LESS);
    let (two, second) = rig.lane("two", 4096);
    rig.core(|core| {
        let session = core.sessions.get_mut(rig.session).unwrap();
        session.flow_to(5);
        session.sent = 1;
        let header = Header { flags: Flags::RESERVE.with(Flags::IMMEDIATE), ..eager() };
        let body = UnacknowledgedBody::Owned([vec![7; 8], vec![1; 5000]].concat());
        session.replay.push_back(Unacknowledged { header, body });
    });
    first.state().over = Some(ErrorKind::Broken);
    rig.core(|core| core.poll_lane(one, 64));
    rig.resumes(two, &second, 1, 0);
    second.take();
    rig.core(|core| core.progress());
    let went = second.take();
    assert_eq!(went.len(), 1);
    assert_eq!((went[0].0.kind, went[0].0.flags), (Kind::ENVELOPE, Flags::IMMEDIATE));
    assert_eq!(went[0].1[8..], [5000_u64.to_le_bytes(), [7; 8]].concat());
}
