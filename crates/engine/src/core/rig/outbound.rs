//! What this engine sends: what goes at once, what waits and why, and what is left when a lane takes no more.

use super::session::Clock;
use super::{Rig, Wire, eager};
use crate::OpError;
use crate::core::op::{Charge, Memory, Op, SendOp, SendState};
use crate::core::session::Standing;
use crate::core::table::Key;
use crate::core::{Blocked, Core, Session, Surroundings};
use sinew_transport::Token;
use sinew_wire::frame::{Flags, Header, Kind};
use std::io::IoSlice;
use std::sync::Arc;

fn rig() -> (Rig, Key, Wire) {
    let (rig, lane, wire) = Rig::carried([0; 16]);
    rig.core(|core| {
        core.create_endpoint(None).unwrap();
        core.sessions.get_mut(rig.session).unwrap().flow_to(5);
        core.progress();
    });
    wire.take();
    (rig, lane, wire)
}

fn to_five(tag: u64) -> Header {
    Header { dst: 5, src: 1, ..eager(tag) }
}

fn session<R>(rig: &Rig, look: impl FnOnce(&mut Session) -> R) -> R {
    rig.core(|core| look(core.sessions.get_mut(rig.session).unwrap()))
}

/// Posts a message of `len` bytes at once; how it was blocked.
fn post(rig: &Rig, len: usize) -> Result<(), &'static str> {
    let bytes = vec![1; len];
    let posted = rig.core(|core| core.post_eager(rig.session, 0, &to_five(9), &[IoSlice::new(&bytes)], len));
    posted.map_err(|blocked| match blocked {
        Blocked::Busy => "busy",
        Blocked::Credit => "credit",
        Blocked::Envelope => "envelope",
        Blocked::Lost(_) => "lost",
        Blocked::Closed => "closed",
    })
}

fn start(rig: &Rig, header: Header, memory: Memory) -> Key {
    rig.core(|core| core.start_send(rig.session, 0, header, None, memory, false))
}

fn owned(len: usize) -> Memory {
    Memory::Owned(vec![1; len].into())
}

#[test]
fn waiting_helps_against_all_but_an_end() {
    for blocked in [Blocked::Busy, Blocked::Credit, Blocked::Envelope] {
        assert!(blocked.error().is_none(), "{blocked:?}");
    }
    assert!(matches!(Blocked::Closed.error(), Some(OpError::EndpointClosed)));
    assert!(matches!(Blocked::Lost(OpError::Cancelled).error(), Some(OpError::Cancelled)));
}

#[test]
fn a_message_that_goes_at_once_is_paid_and_counted() {
    let (rig, lane, wire) = rig();
    let windows = rig.core(|core| core.config.windows);
    for _ in 0..2 {
        assert_eq!(post(&rig, 100), Ok(()));
    }
    let went = wire.take();
    assert_eq!(went, vec![(to_five(9), vec![1; 100]); 2]);
    rig.core(|core| {
        let session = core.sessions.get(rig.session).unwrap();
        let (sent, traffic) = (session.sent, session.traffic);
        assert_eq!(session.bytes.available(), windows.session_bytes - 2 * 164);
        assert_eq!(session.flows[0].bytes.available(), windows.endpoint_bytes - 2 * 164);
        let frames = core.lanes.get(lane).unwrap().frames_sent;
        let endpoint = core.endpoint(1).unwrap();
        assert_eq!((endpoint.messages_sent, endpoint.bytes_sent), (2, 200));
        assert_eq!((sent, frames), (2, 2));
        assert!(traffic >= 2);
        assert!(core.astir.contains(&lane), "timers look at it");
    });
}

#[test]
fn a_message_that_cannot_go_at_once_is_told_why() {
    type Change = fn(&mut Session);
    let changes: [(Change, &str); 5] = [
        (|session| session.ready = false, "busy"),
        (|session| session.flows[0].pending.push_back(Key(77 << 32)), "busy"),
        (|session| session.flows[0].closed = true, "closed"),
        (|session| (session.ready, session.standing) = (false, Standing::Lost(OpError::Cancelled)), "lost"),
        (|session| session.active = None, "busy"),
    ];
    for (at, (change, why)) in changes.into_iter().enumerate() {
        let (rig, _lane, wire) = rig();
        session(&rig, change);
        assert_eq!(post(&rig, 10), Err(why), "{at}");
        assert!(wire.take().is_empty());
        session(&rig, |session| session.flows[0].pending.clear());
    }
    let (rig, lane, wire) = rig();
    wire.state().full = true;
    assert_eq!(post(&rig, 10), Err("busy"));
    assert!(session(&rig, |session| !session.ready && session.dirty), "it is tried again");
    wire.state().full = false;
    rig.core(Core::progress);
    assert_eq!(post(&rig, 4097), Err("envelope"));
    assert_eq!(post(&rig, 4096), Ok(()));
    assert!(matches!(rig.core(|core| core.blocked_by_size(rig.session)), Blocked::Envelope));
    rig.core(|core| {
        let posted = core.post_eager(rig.session, 1, &to_five(9), &[], 0);
        assert!(matches!(posted, Err(Blocked::Closed)), "there is no such flow");
        let posted = core.post_eager(Key(77 << 32), 0, &to_five(9), &[], 0);
        assert!(matches!(posted, Err(Blocked::Lost(_))));
    });
    wire.state().dead = true;
    assert_eq!(post(&rig, 10), Err("busy"));
    assert!(rig.core(|core| core.lanes.get(lane).is_none()), "the lane is over");
    rig.core(|core| core.lose_session(rig.session, "a test"));
    assert!(matches!(rig.core(|core| core.blocked_by_size(rig.session)), Blocked::Lost(_)));
}

#[test]
fn what_is_paid_from_the_reserve_says_so_and_the_rest_waits_for_credit() {
    let (rig, _lane, wire) = rig();
    // Others have spent what all share.
    session(&rig, |session| {
        let all = session.bytes.available();
        session.bytes.take_afforded(all);
    });
    assert_eq!(post(&rig, 1000), Ok(()));
    let flags = wire.take()[0].0.flags;
    assert_eq!((flags, Charge::of(&Header { flags, ..to_five(9) })), (Flags::RESERVE, Charge::Reserve));
    assert_eq!(post(&rig, 4096), Err("envelope"), "more than a reserve ever has");
    // Its own window is spent, and the receiver has read all: it is waited for.
    let (rig, _lane, _wire) = self::rig();
    session(&rig, |session| {
        let all = session.flows[0].bytes.available();
        session.flows[0].bytes.take_afforded(all);
    });
    assert_eq!(post(&rig, 0), Err("credit"));
    assert!(rig.core(|core| core.starved_at.is_some()), "not for ever");
}

/// What the receiver has read and gives no credit for is not wanted; of what it has not read nothing is known yet.
#[test]
fn a_message_waits_longer_for_credit_while_the_peer_has_not_read_what_was_sent() {
    for (unread, by_pump) in [(true, false), (false, false), (true, true), (false, true)] {
        let (rig, _lane, wire) = rig();
        let clock = Arc::new(Clock::new());
        rig.core(|core| core.surroundings = Arc::clone(&clock) as Arc<dyn Surroundings>);
        session(&rig, |session| {
            let all = session.flows[0].bytes.available();
            session.flows[0].bytes.take_afforded(all);
        });
        if unread {
            wire.state().posted.push((to_five(1), Vec::new()));
        }
        assert_eq!(post(&rig, 10), Err("credit"));
        clock.passes(200);
        if !by_pump {
            assert_eq!(post(&rig, 10), Err(if unread { "credit" } else { "envelope" }));
            continue;
        }
        let key = start(&rig, to_five(9), owned(10));
        rig.core(Core::progress);
        assert_eq!(wire.of(Kind::ENVELOPE).len(), usize::from(!unread));
        rig.core(|core| core.cancel_send(key));
    }
}

/// Credit does not make it shorter.
#[test]
fn a_message_that_fits_no_frame_waits_for_no_credit() {
    let rig = Rig::new([0; 16]);
    let (lane, wire) = rig.lane("one", 1000);
    rig.resumes(lane, &wire, 0, 0);
    rig.switches(lane, &wire, 1, 0);
    session(&rig, |session| {
        session.flow_to(5);
        let all = session.bytes.available();
        session.bytes.take_afforded(all);
    });
    start(&rig, to_five(9), owned(1500));
    rig.core(Core::progress);
    assert_eq!(wire.of(Kind::ENVELOPE).len(), 1);
}

#[test]
fn so_many_staged_bytes_go_out_without_being_told() {
    let (rig, _lane, wire) = rig();
    let flushed = || wire.state().flushed;
    let staged = || session(&rig, |session| session.staged);
    rig.core(|core| core.staged(rig.session, 1000));
    assert_eq!((staged(), session(&rig, |session| session.dirty)), (1064, true));
    rig.core(|core| core.staged(rig.session, 500));
    assert_eq!(staged(), 1064 + 564);
    let before = flushed();
    rig.core(|core| core.staged(rig.session, (64 << 10) - 1064 - 564 - 65));
    assert_eq!((staged(), flushed()), ((64 << 10) - 1, before));
    session(&rig, |session| session.staged -= 63);
    rig.core(|core| core.staged(rig.session, 0));
    assert_eq!((staged(), flushed()), (0, before + 1), "just as many");
}

#[test]
fn who_flushes_a_full_socket_hears_of_it() {
    for (transport, held_up, heard) in [
        ("one", false, false),
        ("one", true, true),
        (super::MEMORY, true, false),
        (super::MEMORY, false, false),
    ] {
        let (rig, _lane, wire) = Rig::carried_by([0; 16], transport);
        wire.state().held_up = held_up;
        assert_eq!(rig.core(|core| core.flush_active(rig.session)), heard, "{transport} {held_up}");
    }
    // Of the lane to itself nothing else tells a sleeper; others have doorbells.
    let (rig, lane, _wire) = self::rig();
    for own in [false, true] {
        let told = rig.core(|core| {
            core.effects = crate::core::Effects::default();
            if own {
                core.lanes.get_mut(lane).unwrap().owner = crate::core::SELF_OWNER;
            }
            assert!(!core.flush_active(rig.session));
            core.effects.any()
        });
        assert_eq!(told, own);
    }
    let (rig, lane, wire) = self::rig();
    wire.state().dead = true;
    assert!(!rig.core(|core| core.flush_active(rig.session)));
    assert!(rig.core(|core| core.lanes.get(lane).is_none()), "the lane is over");
}

/// Where nobody but the application makes progress its waits see to what sockets hold.
#[test]
fn what_a_socket_holds_is_left_to_callers_where_nobody_else_sees_to_it() {
    let leaves = |rig: &Rig| {
        rig.core(|core| {
            let memory = Memory::Owned(Vec::new().into());
            let op = SendOp {
                state: SendState::Posted,
                ..SendOp::new((rig.session, 0), to_five(9), None, memory)
            };
            let key = core.ops.insert(Op::Send(op));
            let both = (core.leaves_to_callers(rig.session), core.is_left_to_callers(key));
            core.ops.remove(key);
            assert_eq!(both.0, both.1);
            assert!(!core.is_left_to_callers(key), "it is gone");
            both.0
        })
    };
    let (rig, _lane, wire) = self::rig();
    assert!(!leaves(&rig));
    wire.state().held_up = true;
    assert!(leaves(&rig));
    rig.core(|core| core.by_callers = false);
    assert!(!leaves(&rig), "a thread sees to it");
    let (rig, _lane, wire) = Rig::carried_by([0; 16], super::MEMORY);
    wire.state().held_up = true;
    assert!(!leaves(&rig), "the peer reads memory itself");
    session(&rig, |session| session.parked = Some(Box::default()));
    assert!(leaves(&rig), "a bundle has found no room there");
}

#[test]
fn requests_carry_the_number_of_their_operation_and_count_as_frames() {
    let (rig, _lane, wire) = rig();
    let sent = || session(&rig, |session| session.sent);
    assert_eq!(post(&rig, 10), Ok(()));
    wire.take();
    let before = sent();
    let key = start(&rig, Header::control(Kind::FLUSH, 0), owned(0));
    rig.core(Core::progress);
    assert_eq!(wire.take(), [(Header::control(Kind::FLUSH, key.0), Vec::new())]);
    assert_eq!(sent(), before + 1);
    rig.core(|core| core.send_control(rig.session, Header::control(Kind::DONE, 4), [0; 4]));
    // Of those outside the sequence none.
    for number in [4, 5] {
        rig.core(|core| core.send_control(rig.session, Header::control(Kind::LANE_DOWN, number), []));
    }
    rig.core(Core::progress);
    assert_eq!(wire.take().len(), 3);
    assert_eq!((sent(), wire.state().acknowledged), (before + 2, 1), "with an answer goes what has come");
    rig.core(|core| core.lose_session(rig.session, "a test"));
    rig.core(|core| core.send_control(rig.session, Header::control(Kind::DONE, 4), [0; 4]));
    assert!(session(&rig, |session| session.outbox.is_empty()), "it is over");
}

#[test]
fn a_message_is_announced_that_does_not_fit_a_frame_with_its_immediate() {
    for (len, immediate, kind) in [
        (4096, None, Kind::EAGER),
        (4097, None, Kind::ENVELOPE),
        (4088, Some(7), Kind::EAGER),
        (4089, Some(7), Kind::ENVELOPE),
    ] {
        let (rig, _lane, wire) = rig();
        rig.core(|core| {
            let header = Header { flags: Flags(0), ..to_five(9) };
            core.start_send(rig.session, 0, header, immediate, owned(len), false);
            core.progress();
        });
        assert_eq!(wire.take().iter().map(|(header, _)| header.kind).collect::<Vec<_>>(), [kind], "{len}");
    }
}

/// A short message whose credit does not come.
fn starved(memory: Memory, change: impl FnOnce(&mut Core, Key)) -> (Rig, Wire, Key) {
    let (rig, _lane, wire) = rig();
    session(&rig, |session| {
        let all = session.bytes.available();
        session.bytes.take_afforded(all);
    });
    rig.core(|core| change(core, rig.session));
    let key = start(&rig, to_five(9), memory);
    rig.core(Core::progress);
    (rig, wire, key)
}

/// A blocking send of one that nobody receives ends: what goes is a copy, as far as there is memory for such.
#[test]
fn a_lent_message_that_starves_is_copied_within_the_send_buffer() {
    let bytes = [3; 4096];
    let lent = || Memory::Borrowed { data: std::ptr::NonNull::from(&bytes).cast(), len: bytes.len() };
    let cost = 4096 + 256;
    for (left, copied) in [(cost, true), (cost - 1, false)] {
        let (rig, wire, key) = starved(lent(), |core, session| {
            let limit = core.config.send_buffer;
            core.sessions.get_mut(session).unwrap().buffered = limit - left;
        });
        let limit = rig.core(|core| core.config.send_buffer);
        assert_eq!(rig.core(|core| core.is_over(key)), copied);
        rig.core(Core::progress);
        let went = wire.take();
        assert_eq!(went.iter().map(|(header, _)| header.kind).collect::<Vec<_>>(), [Kind::ENVELOPE]);
        let of = Key(u64::from_le_bytes(went[0].1[..8].try_into().unwrap()));
        assert_eq!(of != key, copied);
        if copied {
            assert_eq!(session(&rig, |session| session.buffered), limit);
            rig.core(|core| {
                let Some(Op::Send(op)) = core.ops.get(of) else { panic!("it is there") };
                assert!(op.detached && op.buffered);
                let (data, len) = op.memory.piece(0, usize::MAX);
                assert!(len == 4096 && data != lent().data());
            });
            rig.core(|core| core.finish_send(of, Ok(())));
            assert_eq!(session(&rig, |session| session.buffered), limit - cost);
        }
        rig.core(|core| core.cancel_send(key));
    }
    // One with memory of its own is announced as it is.
    let (rig, wire, key) = starved(owned(4096), |_, _| ());
    assert_eq!(wire.of(Kind::ENVELOPE).len(), 1);
    assert!(!rig.core(|core| core.is_over(key)));
}

#[test]
fn long_messages_go_by_turns_until_all_is_posted() {
    let (rig, lane, wire) = rig();
    let sends: Vec<Key> = (0..3)
        .map(|_| {
            let op = SendOp {
                state: SendState::Announced,
                ..SendOp::new((rig.session, 0), to_five(9), None, owned(40 * 4096))
            };
            rig.core(|core| core.ops.insert(Op::Send(op)))
        })
        .collect();
    wire.state().full = true;
    for (at, key) in sends.iter().enumerate() {
        let body = super::words(&[at as u64, 0, 40 * 4096]);
        rig.comes(lane, &wire, Header::control(Kind::FETCH, key.0), &body);
    }
    wire.state().full = false;
    rig.core(Core::progress);
    let order: Vec<u64> = wire.take().iter().map(|(header, _)| header.tag).collect();
    assert_eq!(order.len(), 3 * 40);
    let runs: Vec<(u64, usize)> =
        order.chunk_by(|one, next| one == next).map(|run| (run[0], run.len())).collect();
    assert_eq!(runs, [(0, 16), (1, 16), (2, 16), (0, 16), (1, 16), (2, 16), (0, 8), (1, 8), (2, 8)]);
    assert!(session(&rig, |session| session.ready && session.transfers.is_empty()));
}

/// A message goes straight to the lane when nothing waits before it, and not before.
#[test]
fn a_session_is_ready_when_all_has_gone_and_it_moves_nowhere() {
    let (rig, lane, wire) = rig();
    let ready = || session(&rig, |session| session.ready);
    assert!(ready());
    wire.state().full = true;
    rig.core(|core| core.send_control(rig.session, Header::control(Kind::DONE, 4), [0; 4]));
    rig.core(Core::progress);
    assert!(!ready());
    wire.state().full = false;
    rig.core(Core::progress);
    assert!(ready());
    // What one that waits for credit would be overtaken by.
    session(&rig, |session| {
        let all = session.flows[0].bytes.available();
        session.flows[0].bytes.take_afforded(all);
    });
    start(&rig, to_five(9), owned(10));
    rig.core(Core::progress);
    assert!(!ready() && session(&rig, |session| session.dirty));
    // What the engine said outside the sequence goes first.
    let (rig, lane2, wire) = self::rig();
    assert_eq!(lane.index(), lane2.index());
    wire.state().full = true;
    rig.core(|core| core.post_unsequenced(lane2, Header::control(Kind::LANE_DOWN, 3), &[]));
    start(&rig, to_five(9), owned(10));
    rig.core(Core::progress);
    wire.state().full = false;
    assert!(rig.core(|core| core.pump(rig.session)));
    assert_eq!(
        wire.take().iter().map(|(header, _)| header.kind).collect::<Vec<_>>(),
        [Kind::LANE_DOWN, Kind::EAGER]
    );
    assert!(session(&rig, |session| session.ready));
}

#[test]
fn what_ended_while_a_session_was_pumped_is_forgotten_by_its_lane() {
    let (rig, lane, wire) = rig();
    rig.core(|core| {
        core.revoked.push((lane, Token(77)));
        core.mark_dirty(rig.session);
        core.pump(rig.session);
        assert!(core.revoked.is_empty());
    });
    assert_eq!(wire.state().revoked, [Token(77)]);
}

/// Memory of the sender's own process, which the peer may read where it lies.
#[test]
fn memory_that_is_long_enough_is_lent_where_the_lane_can() {
    for (len, lent) in [(4095, false), (4096, true)] {
        let (rig, _lane, wire) = rig();
        wire.state().lends = true;
        // It starves: else one that fits a frame goes whole.
        session(&rig, |session| {
            let all = session.bytes.available();
            session.bytes.take_afforded(all);
        });
        start(&rig, to_five(9), owned(len));
        rig.core(Core::progress);
        let went = wire.take();
        assert_eq!(went.len(), 1);
        assert_eq!((went[0].0.kind, went[0].0.flags.contains(Flags::DESCRIPTOR)), (Kind::ENVELOPE, lent));
        assert_eq!(went[0].1[16..], if lent { vec![2; 24] } else { Vec::new() });
    }
}
