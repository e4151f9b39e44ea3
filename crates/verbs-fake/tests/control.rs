//! What tests steer and see: refusals, holds, altered completions, memory that may be touched, faults of programs.

mod common;

use common::{End, FORMS, Form, Plan, Request, finish, pair};
use sinew_verbs_fake::{Alteration, Call, Fault, Hold, Kind, Refusal};
use sinew_verbs_sys as sys;
use sys::{Errno, IbvQpState as QpState, IbvQpType as Type, IbvWcStatus as Status, IbvWrOpcode as Wr};

const OK: Status = Status::SUCCESS;

fn range(end: &End, offset: usize, len: usize) -> core::ops::Range<*const u8> {
    let start = end.memory.wrapping_add(offset).cast_const();
    start..start.wrapping_add(len)
}

#[test]
fn memory_may_be_touched_until_its_completion_was_polled() {
    for form in FORMS {
        let (a, b, control) = pair(Plan::new(form, Type::RC));
        b.recv(1, 0, 64).unwrap();
        assert!(control.may_touch(range(&b, 63, 1)));
        assert!(!control.may_touch(range(&b, 64, 1)));
        let mut quiet = Request::new(&a, Wr::SEND, 2, 8);
        quiet.flags = 0;
        a.post(&quiet).unwrap();
        assert!(control.may_touch(range(&b, 0, 64)), "done, and not polled");
        assert_eq!(b.ended(), [(1, OK)]);
        assert!(!control.may_touch(range(&b, 0, 64)));
        assert!(control.may_touch(range(&a, 0, 8)), "nothing has told of it");
        a.post(&Request::new(&a, Wr::RDMA_WRITE, 3, 8).to(&b, 0)).unwrap();
        assert_eq!(a.ended(), [(3, OK)]);
        assert!(!control.may_touch(range(&a, 0, 8)));
        finish(a, b, &control);
    }
}

#[test]
fn memory_given_back_too_early_is_a_fault() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    control.hold(a.qp_num(), Hold::COMPLETIONS);
    a.post(&Request::new(&a, Wr::RDMA_READ, 1, 8).to(&b, 0)).unwrap();
    assert_eq!(a.ended(), []);
    control.freed(range(&a, 100, 8));
    assert_eq!(control.faults(), []);
    control.freed(range(&a, 0, 1));
    assert_eq!(control.touches_after_free().len(), 1);
    assert!(matches!(&control.take_faults()[..], [Fault::FreedInFlight { .. }]));
    a.to_state(QpState::ERR).unwrap();
    assert_eq!(a.ended(), [(1, Status::WR_FLUSH_ERR)]);
    control.freed(range(&a, 0, 8));
    finish(a, b, &control);
}

#[test]
fn a_held_queue_pair_keeps_back_what_it_is_told_to() {
    for form in FORMS {
        let (a, b, control) = pair(Plan::new(form, Type::RC));
        let write = |wr_id| a.post(&Request::new(&a, Wr::RDMA_WRITE, wr_id, 4).to(&b, 0)).unwrap();
        a.write(0, b"data");
        control.hold(a.qp_num(), Hold::REQUESTS);
        write(1);
        assert_eq!((a.ended(), b.read(0, 4)), (vec![], vec![0; 4]));
        control.release(a.qp_num());
        assert_eq!((a.ended(), b.read(0, 4)), (vec![(1, OK)], b"data".to_vec()));
        control.hold(a.qp_num(), Hold::COMPLETIONS);
        (2..5).for_each(write);
        assert_eq!(a.ended(), []);
        control.release_some(a.qp_num(), 2);
        assert_eq!(a.ended(), [(2, OK), (3, OK)]);
        control.release(a.qp_num());
        assert_eq!(a.ended(), [(4, OK)]);
        control.hold(b.qp_num(), Hold::INCOMING);
        write(5);
        control.time_passes();
        assert_eq!(a.ended(), [], "a peer that never answers");
        control.hold(a.qp_num(), Hold::EVERYTHING);
        a.to_state(QpState::ERR).unwrap();
        assert_eq!(a.ended(), []);
        assert!(control.may_touch(range(&a, 0, 4)));
        control.release(a.qp_num());
        assert_eq!(a.ended(), [(5, Status::WR_FLUSH_ERR)]);
        finish(a, b, &control);
    }
}

#[test]
fn destroying_a_queue_pair_ends_what_it_may_touch() {
    let (a, b, control) = pair(Plan::new(Form::Extended, Type::RC));
    control.hold(a.qp_num(), Hold::EVERYTHING);
    a.post(&Request::new(&a, Wr::RDMA_READ, 1, 4).to(&b, 0)).unwrap();
    a.recv(2, 8, 8).unwrap();
    assert_eq!(control.scribble(0xee), 12);
    assert_eq!((a.read(0, 4), a.read(8, 8)), (vec![0xee; 4], vec![0xee; 8]));
    assert_eq!(a.destroy_qp(), 0);
    assert_eq!((control.in_flight(), control.scribble(1)), (vec![], 0));
    let again = End { qp: a.make_qp().unwrap(), ..a };
    finish(again, b, &control);
}

#[test]
fn a_message_out_of_nothing_arrives_in_a_held_receive() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    assert!(!control.inject(b.qp_num(), b"x", None));
    b.recv(4, 0, 8).unwrap();
    assert!(control.inject(b.qp_num(), b"ghost", Some(3)));
    assert_eq!((b.ended(), b.read(0, 5)), (vec![(4, OK)], b"ghost".to_vec()));
    finish(a, b, &control);
}

#[test]
fn calls_fail_as_they_are_told() {
    for form in FORMS {
        let (a, b, control) = pair(Plan::new(form, Type::RC));
        let verbs = a.lib.verbs();
        control.refuse(Call::DestroyQp, Refusal::once(libc::EBUSY).of(b.qp_num()));
        control.refuse(Call::DeallocPd, Refusal::once(libc::EIO));
        control.refuse(Call::DeregMr, Refusal::once(libc::EINTR));
        control.refuse(Call::RegMr, Refusal::after(1, libc::ENOMEM));
        control.refuse(Call::ModifyQp, Refusal::once(libc::EPERM));
        assert_eq!(b.destroy_qp(), libc::EBUSY);
        assert_eq!(b.to_state(QpState::ERR), Err(Errno(libc::EPERM)));
        // SAFETY: the objects are alive, as each of the calls fails, or the region that it makes is taken away.
        unsafe {
            assert_eq!((verbs.ibv_dealloc_pd)(a.pd), libc::EIO);
            assert_eq!((verbs.ibv_dereg_mr)(a.mr), libc::EINTR);
            let mr = verbs.reg_mr(a.pd, a.memory.cast(), 8, 0).unwrap();
            assert_eq!(verbs.reg_mr(a.pd, a.memory.cast(), 8, 0), Err(Errno(libc::ENOMEM)));
            assert_eq!((verbs.ibv_dereg_mr)(mr), 0);
        }
        assert_eq!(control.calls(Call::DeregMr), 2);
        control.refuse_nothing();
        finish(a, b, &control);
    }
}

#[test]
fn polls_fail_as_they_are_told() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    control.refuse(Call::PollCq, Refusal::once(libc::EIO));
    assert!(a.try_poll().is_err());
    assert_eq!(a.ended(), []);
    finish(a, b, &control);
    let (a, b, control) = pair(Plan::new(Form::Extended, Type::RC));
    for wr_id in 0..3 {
        a.post(&Request::new(&a, Wr::RDMA_WRITE, wr_id, 4).to(&b, 0)).unwrap();
    }
    control.refuse(Call::StartPoll, Refusal::once(libc::EIO));
    assert_eq!(a.try_poll().map(|_| ()), Err(Errno(libc::EIO)));
    control.refuse(Call::NextPoll, Refusal { times: 1, ..Refusal::after(1, libc::EIO) });
    assert_eq!(a.try_poll().map(|_| ()), Err(Errno(libc::EIO)), "after two completions");
    assert!(!control.locks_held());
    assert_eq!(a.ended(), [(2, OK)]);
    finish(a, b, &control);
}

#[test]
fn completions_carry_what_no_program_expects() {
    for form in FORMS {
        let (a, b, control) = pair(Plan::new(form, Type::RC));
        let strange =
            Alteration { wr_id: Some(u64::MAX), status: Some(99), opcode: Some(77), qp_num: Some(5) };
        control.alter_next(a.cq_handle(), strange);
        a.post(&Request::new(&a, Wr::RDMA_WRITE, 1, 4).to(&b, 0)).unwrap();
        let wc = a.poll()[0];
        assert_eq!((wc.wr_id, wc.status.0, wc.opcode.0, wc.qp_num), (u64::MAX, 99, 77, 5));
        let mut forged = sys::ibv_wc::zeroed();
        forged.wr_id = 12;
        control.forge(a.cq_handle(), forged);
        assert_eq!(a.ended(), [(12, OK)]);
        finish(a, b, &control);
    }
}

#[test]
fn a_poll_inside_a_poll_is_reported_not_hung() {
    let (a, b, control) = pair(Plan::new(Form::Extended, Type::RC));
    a.post(&Request::new(&a, Wr::RDMA_WRITE, 1, 4).to(&b, 0)).unwrap();
    let cq = a.cq_ex();
    let deadlock = |call| Fault::Deadlock { call, handle: a.cq_handle() };
    // SAFETY: the queue is alive; that polls are nested is what is tested.
    unsafe {
        assert_eq!(sys::ibv_start_poll(cq), Ok(true));
        assert!(control.locks_held());
        assert_eq!(sys::ibv_start_poll(cq), Err(Errno(libc::EDEADLK)));
        assert!(a.poll_legacy().is_err());
        assert_eq!(control.take_faults(), [deadlock(Call::StartPoll), deadlock(Call::PollCq)]);
        sys::ibv_end_poll(cq).unwrap();
        assert_eq!(sys::ibv_start_poll(cq), Ok(false));
        sys::ibv_end_poll(cq).unwrap();
        assert_eq!(control.take_faults(), [Fault::NotBegun { call: Call::EndPoll, handle: a.cq_handle() }]);
        sys::ibv_wr_start(a.ex()).unwrap();
        sys::ibv_wr_start(a.ex()).unwrap();
        assert!(matches!(control.take_faults()[..], [Fault::Deadlock { call: Call::WrStart, .. }]));
        sys::ibv_wr_abort(a.ex()).unwrap();
    }
    finish(a, b, &control);
}

#[test]
fn a_completion_queue_that_overruns_says_so() {
    for form in FORMS {
        let (a, b, control) = pair(Plan { cqe: 2, ..Plan::new(form, Type::RC) });
        for wr_id in 0..3 {
            a.post(&Request::new(&a, Wr::RDMA_WRITE, wr_id, 4).to(&b, 0)).unwrap();
        }
        assert_eq!(control.take_faults(), [Fault::Overrun { handle: a.cq_handle() }]);
        assert_eq!(a.ended(), [(0, OK), (1, OK)]);
        finish(a, b, &control);
    }
}

#[test]
fn what_is_used_after_it_was_destroyed_is_reported_not_followed() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    assert_eq!(a.destroy_qp(), 0);
    assert_eq!(a.destroy_qp(), libc::EINVAL);
    assert_eq!(a.post(&Request::new(&a, Wr::SEND, 1, 4)), Err(Errno::INVALID));
    let faults = control.take_faults();
    assert!(matches!(
        faults[..],
        [Fault::UseAfterDestroy { call: Call::DestroyQp, .. }, Fault::UseAfterDestroy { .. }]
    ));
    assert_eq!(control.live().get(&Kind::QueuePair), Some(&1));
    let again = End { qp: a.make_qp().unwrap(), ..a };
    finish(again, b, &control);
}

#[test]
fn a_region_that_is_in_use_is_not_taken_away_unnoticed() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    a.recv(1, 0, 8).unwrap();
    // SAFETY: the region is registered again before anything uses it.
    let mr = unsafe {
        assert_eq!((a.lib.verbs().ibv_dereg_mr)(a.mr), 0);
        a.lib.verbs().reg_mr(a.pd, a.memory.cast(), common::BYTES, common::ALL).unwrap()
    };
    assert!(
        matches!(&control.take_faults()[..], [Fault::DeregisteredInFlight { touches, .. }] if touches[0].wr_id == 1)
    );
    finish(End { mr, ..a }, b, &control);
}
