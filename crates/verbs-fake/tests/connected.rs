//! Connected queue pairs: data arrives, in order, checked, in both ways of posting and polling.

mod common;

use common::{End, FORMS, Form, Plan, Request, finish, pair};
use sinew_verbs_sys as sys;
use sys::{IbvQpState as QpState, IbvQpType as Type, IbvWcStatus as Status, IbvWrOpcode as Wr};

const OK: Status = Status::SUCCESS;

#[test]
fn a_message_arrives_before_its_sender_hears_of_it() {
    for form in FORMS {
        for kind in [Type::RC, Type::UC] {
            let (a, b, control) = pair(Plan::new(form, kind));
            b.recv(7, 100, 50).unwrap();
            a.write(0, b"hello");
            a.post(&Request::new(&a, Wr::SEND, 1, 5)).unwrap();
            let got = b.poll();
            assert_eq!((got.len(), got[0].wr_id, got[0].status, got[0].byte_len), (1, 7, OK, 5));
            assert_eq!((got[0].opcode, got[0].qp_num), (sys::IbvWcOpcode::RECV, b.qp_num()));
            assert_eq!(b.read(100, 6), b"hello\0");
            let sent = a.poll();
            assert_eq!((sent[0].wr_id, sent[0].opcode), (1, sys::IbvWcOpcode::SEND));
            finish(a, b, &control);
        }
    }
}

#[test]
fn immediate_data_and_inline_data_arrive() {
    for form in FORMS {
        let (a, b, control) = pair(Plan::new(form, Type::RC));
        b.recv(1, 0, 64).unwrap();
        b.recv(2, 64, 64).unwrap();
        let mut request = Request::new(&a, Wr::SEND_WITH_IMM, 3, 0);
        (request.imm, request.inline) = (0xabcd, Some(b"inline".to_vec()));
        a.post(&request).unwrap();
        let mut write = Request::new(&a, Wr::RDMA_WRITE_WITH_IMM, 4, 0).to(&b, 200);
        (write.imm, write.inline) = (0x1234, Some(b"written".to_vec()));
        a.post(&write).unwrap();
        let got = b.poll();
        assert_eq!((got[0].imm_data, got[0].wc_flags), (0xabcd, sys::IBV_WC_WITH_IMM));
        assert_eq!((got[1].imm_data, got[1].opcode), (0x1234, sys::IbvWcOpcode::RECV_RDMA_WITH_IMM));
        assert_eq!(got[1].byte_len, 7);
        assert_eq!((b.read(0, 6), b.read(200, 7)), (b"inline".to_vec(), b"written".to_vec()));
        request.inline = Some(vec![0; 65]);
        assert_eq!(a.post(&request), Err(sys::Errno::INVALID));
        finish(a, b, &control);
    }
}

#[test]
fn one_sided_operations_reach_the_memory_of_the_peer() {
    for form in FORMS {
        let (a, b, control) = pair(Plan::new(form, Type::RC));
        a.write(0, b"12345678");
        a.post(&Request::new(&a, Wr::RDMA_WRITE, 1, 8).to(&b, 16)).unwrap();
        assert_eq!(b.read(16, 8), b"12345678");
        b.write(32, &[9; 24]);
        a.post(&Request::new(&a, Wr::RDMA_READ, 2, 24).to(&b, 32)).unwrap();
        assert_eq!(a.read(0, 24), [9; 24]);
        b.write(64, &41u64.to_ne_bytes());
        let mut add = Request::new(&a, Wr::ATOMIC_FETCH_AND_ADD, 3, 8).to(&b, 64);
        add.operands = (1, 0);
        a.post(&add).unwrap();
        assert_eq!(
            (a.read(0, 8), b.read(64, 8)),
            (41u64.to_ne_bytes().to_vec(), 42u64.to_ne_bytes().to_vec())
        );
        let mut swap = Request::new(&a, Wr::ATOMIC_CMP_AND_SWP, 4, 8).to(&b, 64);
        swap.operands = (42, 7);
        a.post(&swap).unwrap();
        assert_eq!(b.read(64, 8), 7u64.to_ne_bytes());
        swap.operands = (42, 8);
        a.post(&swap).unwrap();
        assert_eq!((a.read(0, 8), b.read(64, 8)), (7u64.to_ne_bytes().to_vec(), 7u64.to_ne_bytes().to_vec()));
        let all = a.poll();
        let opcodes: Vec<_> = all.iter().map(|wc| wc.opcode).collect();
        use sys::IbvWcOpcode as Op;
        assert_eq!(opcodes, [Op::RDMA_WRITE, Op::RDMA_READ, Op::FETCH_ADD, Op::COMP_SWAP, Op::COMP_SWAP]);
        assert!(b.poll().is_empty(), "the peer hears nothing of it");
        finish(a, b, &control);
    }
}

/// Posts one request that must fail, and answers how it ended here, and how receives ended there.
fn failing(a: &End, b: &End, request: &Request) -> (Status, Vec<(u64, Status)>) {
    a.post(request).unwrap();
    let ended = a.ended();
    assert_eq!(ended.len(), 1);
    (ended[0].1, b.ended())
}

#[test]
fn wrong_keys_ranges_and_rights_are_refused_when_memory_is_touched() {
    type Change = fn(&mut Request, &End);
    let cases: [(&str, Wr, Change, Status); 8] = [
        ("local key", Wr::SEND, |request, _| request.sge.lkey = 1, Status::LOC_PROT_ERR),
        ("local range", Wr::SEND, |request, _| request.sge.length = 5000, Status::LOC_PROT_ERR),
        ("remote key", Wr::RDMA_WRITE, |request, _| request.remote.1 = 77, Status::REM_ACCESS_ERR),
        ("remote range", Wr::RDMA_READ, |request, _| request.remote.0 += 4095, Status::REM_ACCESS_ERR),
        ("before the region", Wr::RDMA_WRITE, |request, _| request.remote.0 -= 1, Status::REM_ACCESS_ERR),
        ("around the end", Wr::RDMA_WRITE, |request, _| request.remote.0 = u64::MAX, Status::REM_ACCESS_ERR),
        ("alignment", Wr::ATOMIC_FETCH_AND_ADD, |request, _| request.remote.0 += 4, Status::REM_INV_REQ_ERR),
        ("message too long", Wr::SEND, |request, _| request.sge.length = 65, Status::REM_INV_REQ_ERR),
    ];
    for form in FORMS {
        for (what, opcode, change, status) in cases {
            let (a, b, control) = pair(Plan::new(form, Type::RC));
            b.recv(9, 0, 64).unwrap();
            let mut request = Request::new(&a, opcode, 1, 8).to(&b, 0);
            change(&mut request, &b);
            let (here, there) = failing(&a, &b, &request);
            assert_eq!(here, status, "{what}");
            assert_eq!(a.state(), QpState::ERR, "{what}");
            match status {
                Status::LOC_PROT_ERR => assert_eq!(there, [], "{what}"),
                _ if what == "message too long" => assert_eq!(there, [(9, Status::LOC_LEN_ERR)]),
                _ => assert_eq!(there, [(9, Status::WR_FLUSH_ERR)], "{what}"),
            }
            finish(a, b, &control);
        }
    }
}

#[test]
fn a_region_without_a_right_refuses_and_so_does_a_queue_pair() {
    for missing in [sys::IBV_ACCESS_REMOTE_WRITE, sys::IBV_ACCESS_REMOTE_READ, sys::IBV_ACCESS_REMOTE_ATOMIC]
    {
        let opcode = match missing {
            sys::IBV_ACCESS_REMOTE_WRITE => Wr::RDMA_WRITE,
            sys::IBV_ACCESS_REMOTE_READ => Wr::RDMA_READ,
            _ => Wr::ATOMIC_FETCH_AND_ADD,
        };
        let plan = Plan { access: common::ALL & !missing, ..Plan::new(Form::Legacy, Type::RC) };
        let (a, b, control) = pair(plan);
        b.write(0, &[5; 8]);
        let (here, _) = failing(&a, &b, &Request::new(&a, opcode, 1, 8).to(&b, 0));
        assert_eq!(here, Status::REM_ACCESS_ERR);
        assert_eq!(b.read(0, 8), [5; 8]);
        finish(a, b, &control);
    }
}

#[test]
fn the_error_state_flushes_everything_in_order() {
    for form in FORMS {
        let (a, b, control) = pair(Plan { all_signaled: false, ..Plan::new(form, Type::RC) });
        a.recv(50, 0, 8).unwrap();
        a.recv(51, 8, 8).unwrap();
        for wr_id in 0..3 {
            let mut request = Request::new(&a, Wr::SEND, wr_id, 8);
            request.flags = 0;
            a.post(&request).unwrap();
        }
        a.to_state(QpState::ERR).unwrap();
        let flushed = Status::WR_FLUSH_ERR;
        assert_eq!(a.ended(), [(0, flushed), (1, flushed), (2, flushed), (50, flushed), (51, flushed)]);
        a.post(&Request::new(&a, Wr::SEND, 3, 8)).unwrap();
        a.recv(52, 0, 8).unwrap();
        assert_eq!(a.ended(), [(3, flushed), (52, flushed)]);
        finish(a, b, &control);
    }
}

#[test]
fn reset_drops_everything_without_a_word() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    a.recv(50, 0, 8).unwrap();
    a.post(&Request::new(&a, Wr::SEND, 1, 8)).unwrap();
    a.post(&Request::new(&a, Wr::RDMA_WRITE, 2, 8).to(&b, 0)).unwrap();
    a.to_state(QpState::RESET).unwrap();
    assert_eq!(a.ended(), []);
    assert_eq!(control.in_flight(), []);
    common::connect(&a, &b_again(&b));
    a.post(&Request::new(&a, Wr::RDMA_WRITE, 3, 8).to(&b, 0)).unwrap();
    assert_eq!(a.ended(), [(3, OK)]);
    finish(a, b, &control);
}

/// The other end after a reset, to be connected again; shares its objects.
fn b_again(b: &End) -> End {
    b.to_state(QpState::RESET).unwrap();
    End { lib: b.lib.clone(), ..*b }
}

#[test]
fn a_message_waits_for_a_receive_as_long_as_the_retries_say() {
    for form in FORMS {
        // For ever.
        let (a, b, control) = pair(Plan { rnr_retry: 7, ..Plan::new(form, Type::RC) });
        a.post(&Request::new(&a, Wr::SEND, 1, 8)).unwrap();
        for _ in 0..5000 {
            assert!(a.poll().is_empty());
        }
        control.time_passes();
        assert!(a.poll().is_empty());
        b.recv(2, 0, 8).unwrap();
        assert_eq!((b.ended(), a.ended()), (vec![(2, OK)], vec![(1, OK)]));
        finish(a, b, &control);
        // Not at all.
        let (a, b, control) = pair(Plan { rnr_retry: 0, ..Plan::new(form, Type::RC) });
        a.post(&Request::new(&a, Wr::SEND, 1, 8)).unwrap();
        assert_eq!(a.ended(), [(1, Status::RNR_RETRY_EXC_ERR)]);
        finish(a, b, &control);
        // Until polls or a test say that time has passed.
        for by_polls in [false, true] {
            let (a, b, control) = pair(Plan { rnr_retry: 3, ..Plan::new(form, Type::RC) });
            a.post(&Request::new(&a, Wr::SEND, 1, 8)).unwrap();
            assert!(a.poll().is_empty());
            if by_polls {
                for _ in 0..998 {
                    assert!(a.poll().is_empty());
                }
            } else {
                control.time_passes();
            }
            assert_eq!(a.ended(), [(1, Status::RNR_RETRY_EXC_ERR)]);
            finish(a, b, &control);
        }
    }
}

#[test]
fn a_peer_that_is_gone_ends_retries() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    b.to_state(QpState::RESET).unwrap();
    a.post(&Request::new(&a, Wr::RDMA_WRITE, 1, 8).to(&b, 0)).unwrap();
    assert!(a.poll().is_empty());
    control.time_passes();
    assert_eq!(a.ended(), [(1, Status::RETRY_EXC_ERR)]);
    finish(a, b, &control);
}

#[test]
fn packets_that_the_peer_does_not_expect_are_lost() {
    let (lib, control) = sinew_verbs_fake::FakeDevice::new(sinew_verbs_fake::Options::devices(2));
    let plan = Plan::new(Form::Legacy, Type::RC);
    let (a, b) = (End::new(&lib, 0, plan), End::new(&lib, 1, plan));
    a.to_init();
    b.to_init();
    a.to_rtr(&b);
    // As if the other end had sent a first number that is not its own.
    b.to_rtr(&a);
    let mut attr = sys::ibv_qp_attr::zeroed();
    (attr.qp_state, attr.sq_psn, attr.timeout, attr.retry_cnt) = (QpState::RTS, 0x77, 14, 0);
    let mask = sys::IBV_QP_STATE
        | sys::IBV_QP_SQ_PSN
        | sys::IBV_QP_TIMEOUT
        | sys::IBV_QP_RETRY_CNT
        | sys::IBV_QP_RNR_RETRY
        | sys::IBV_QP_MAX_QP_RD_ATOMIC;
    a.modify(&mut attr, mask).unwrap();
    a.post(&Request::new(&a, Wr::SEND, 1, 8)).unwrap();
    assert_eq!(a.ended(), [(1, Status::RETRY_EXC_ERR)]);
    finish(a, b, &control);
}

#[test]
fn unreliable_messages_without_a_receive_are_lost_and_succeed() {
    let (a, b, control) = pair(Plan::new(Form::Extended, Type::UC));
    a.post(&Request::new(&a, Wr::SEND, 1, 8)).unwrap();
    assert_eq!(a.ended(), [(1, OK)]);
    b.recv(2, 0, 8).unwrap();
    assert_eq!(b.ended(), []);
    let mut wrong = Request::new(&a, Wr::RDMA_WRITE, 2, 8).to(&b, 0);
    wrong.remote.1 = 77;
    a.post(&wrong).unwrap();
    assert_eq!((a.ended(), b.state()), (vec![(2, OK)], QpState::RTS));
    finish(a, b, &control);
}

#[test]
fn a_place_is_free_when_its_completion_was_polled() {
    for form in FORMS {
        let (a, b, control) = pair(Plan { depth: 4, ..Plan::new(form, Type::RC) });
        let write = |wr_id, signaled| {
            let mut request = Request::new(&a, Wr::RDMA_WRITE, wr_id, 8).to(&b, 0);
            request.flags = if signaled { sys::IBV_SEND_SIGNALED } else { 0 };
            a.post(&request)
        };
        for wr_id in 0..4 {
            write(wr_id, wr_id == 2).unwrap();
        }
        assert_eq!(write(4, true), Err(sys::Errno(libc::ENOMEM)), "done, and not polled");
        assert_eq!(a.ended(), [(2, OK)]);
        for wr_id in 5..8 {
            write(wr_id, true).unwrap();
        }
        assert_eq!(write(8, true), Err(sys::Errno(libc::ENOMEM)), "the last unsignaled one is not told of");
        assert_eq!(a.ended(), [(5, OK), (6, OK), (7, OK)]);
        for wr_id in 0..4 {
            b.recv(wr_id, 0, 8).unwrap();
        }
        assert_eq!(b.recv(4, 0, 8), Err(sys::Errno(libc::ENOMEM)));
        finish(a, b, &control);
    }
}

#[test]
fn a_batch_is_posted_whole_or_not_at_all() {
    let (a, b, control) = pair(Plan { depth: 2, ..Plan::new(Form::Extended, Type::RC) });
    let write = |wr_id| Request::new(&a, Wr::RDMA_WRITE, wr_id, 8).to(&b, 0);
    // SAFETY: the queue pair is alive.
    unsafe {
        sys::ibv_wr_start(a.ex()).unwrap();
        a.build(&write(1));
        a.build(&write(2));
        assert!(control.locks_held());
        sys::ibv_wr_complete(a.ex()).unwrap();
        assert!(!control.locks_held());
        assert_eq!(a.ended(), [(1, OK), (2, OK)]);
        sys::ibv_wr_start(a.ex()).unwrap();
        (3..6).for_each(|wr_id| a.build(&write(wr_id)));
        assert_eq!(sys::ibv_wr_complete(a.ex()), Err(sys::Errno(libc::ENOMEM)));
        assert_eq!(a.ended(), []);
        sys::ibv_wr_start(a.ex()).unwrap();
        a.build(&write(6));
        sys::ibv_wr_abort(a.ex()).unwrap();
        assert_eq!(a.ended(), []);
    }
    finish(a, b, &control);
}
