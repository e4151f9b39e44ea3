//! Everything beside connected queue pairs: states, events, shared queues, datagrams, windows, device memory, queries.

mod common;

use common::{End, FORMS, Form, Plan, Request, connect, finish, open, pair};
use sinew_verbs_fake::{DeviceOptions, FakeDevice, Fault, Kind, Options, PortOptions};
use sinew_verbs_sys as sys;
use std::ptr::null_mut;
use sys::{Errno, IbvQpState as QpState, IbvQpType as Type, IbvWcStatus as Status, IbvWrOpcode as Wr};

const OK: Status = Status::SUCCESS;

#[test]
fn states_change_with_the_attributes_of_the_specification_only() {
    for kind in [Type::RC, Type::UC, Type::UD] {
        let (lib, control) = FakeDevice::new(Options::default());
        let end = End::new(&lib, 0, Plan::new(Form::Legacy, kind));
        let invalid = Err(Errno::INVALID);
        for state in [QpState::RTR, QpState::RTS, QpState::SQD, QpState::SQE, QpState(9)] {
            assert_eq!(end.to_state(state), invalid, "{kind}: from RESET to {state}");
        }
        assert_eq!(end.to_state(QpState::INIT), invalid, "attributes are missing");
        end.to_init();
        assert_eq!(end.to_state(QpState::RTS), invalid);
        if kind == Type::UD {
            end.to_state(QpState::RTR).unwrap();
        } else {
            assert_eq!(end.to_state(QpState::RTR), invalid);
            end.to_rtr(&end);
        }
        assert_eq!(end.state(), QpState::RTR);
        let mut attr = sys::ibv_qp_attr::zeroed();
        attr.qp_state = QpState::RTS;
        let too_much = sys::IBV_QP_STATE | sys::IBV_QP_SQ_PSN | sys::IBV_QP_DEST_QPN;
        assert_eq!(end.modify(&mut attr, too_much), invalid);
        end.to_rts();
        end.to_state(QpState::SQD).unwrap();
        end.to_state(QpState::RTS).unwrap();
        end.to_state(QpState::ERR).unwrap();
        end.to_state(QpState::RESET).unwrap();
        end.close();
        assert!(control.live().is_empty());
    }
}

#[test]
fn an_armed_queue_wakes_once_and_waits_for_its_acknowledgement() {
    for form in FORMS {
        let (a, b, control) = pair(Plan::new(form, Type::RC));
        let verbs = a.lib.verbs();
        let readable = || {
            // SAFETY: the channel is alive; the structure lives through the call.
            unsafe {
                let mut poll = libc::pollfd { fd: (*a.channel).fd, events: libc::POLLIN, revents: 0 };
                libc::poll(&raw mut poll, 1, 0) == 1
            }
        };
        let write = |wr_id| a.post(&Request::new(&a, Wr::RDMA_WRITE, wr_id, 4).to(&b, 0)).unwrap();
        write(1);
        assert!(!readable(), "not armed");
        // SAFETY: the objects are alive.
        unsafe {
            sys::ibv_req_notify_cq(a.cq, true).unwrap();
            write(2);
            assert!(!readable(), "armed for solicited ones");
            sys::ibv_req_notify_cq(a.cq, false).unwrap();
            write(3);
            write(4);
            assert!(readable());
            let (mut cq, mut context) = (null_mut(), null_mut());
            assert_eq!((verbs.ibv_get_cq_event)(a.channel, &raw mut cq, &raw mut context), 0);
            assert_eq!(cq, a.cq);
            assert!(!readable(), "one event, though two completed");
            assert_eq!(libc::fcntl((*a.channel).fd, libc::F_SETFL, libc::O_NONBLOCK), 0);
            assert_eq!((verbs.ibv_get_cq_event)(a.channel, &raw mut cq, &raw mut context), -1);
            assert_eq!(Errno::last(), Errno(libc::EAGAIN));
            (verbs.ibv_ack_cq_events)(a.cq, 1);
            (verbs.ibv_ack_cq_events)(a.cq, 1);
        }
        let too_many = Fault::TooManyAcknowledged { kind: Kind::CompletionQueue, handle: a.cq_handle() };
        assert_eq!(control.take_faults(), [too_many]);
        finish(a, b, &control);
    }
}

#[test]
fn an_event_that_is_not_acknowledged_is_reported_when_its_queue_goes() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    let handle = a.cq_handle();
    // SAFETY: the objects are alive.
    unsafe {
        sys::ibv_req_notify_cq(a.cq, false).unwrap();
        a.post(&Request::new(&a, Wr::RDMA_WRITE, 1, 4).to(&b, 0)).unwrap();
        let (mut cq, mut context) = (null_mut(), null_mut());
        assert_eq!((a.lib.verbs().ibv_get_cq_event)(a.channel, &raw mut cq, &raw mut context), 0);
    }
    a.close();
    let left = Fault::UnacknowledgedEvents { kind: Kind::CompletionQueue, handle, count: 1 };
    assert_eq!(control.take_faults(), [left]);
    b.close();
}

#[test]
fn a_shared_queue_feeds_and_says_when_it_runs_low() {
    for form in FORMS {
        let (a, b, control) = pair(Plan { with_srq: true, ..Plan::new(form, Type::RC) });
        let verbs = b.lib.verbs();
        let mut attr = sys::ibv_srq_attr { max_wr: 0, max_sge: 0, srq_limit: 2 };
        for wr_id in 0..3 {
            b.recv(wr_id, 0, 8).unwrap();
        }
        // SAFETY: the queue and the context are alive.
        unsafe {
            let done = (verbs.ibv_modify_srq)(b.srq, &raw mut attr, sys::IBV_SRQ_LIMIT.cast_signed());
            assert_eq!(done, 0);
            a.post(&Request::new(&a, Wr::SEND, 1, 8)).unwrap();
            a.post(&Request::new(&a, Wr::SEND, 2, 8)).unwrap();
            assert_eq!(b.ended(), [(0, OK), (1, OK)]);
            let mut event = sys::ibv_async_event::zeroed();
            assert_eq!((verbs.ibv_get_async_event)(b.context, &raw mut event), 0);
            assert_eq!(event.event_type, sys::IbvEventType::SRQ_LIMIT_REACHED);
            assert_eq!(event.element.srq, b.srq);
            (verbs.ibv_ack_async_event)(&raw mut event);
            assert_eq!((verbs.ibv_query_srq)(b.srq, &raw mut attr), 0);
            assert_eq!((attr.max_wr, attr.srq_limit), (8, 0), "the limit is armed once");
        }
        b.to_state(QpState::ERR).unwrap();
        assert_eq!(b.ended(), [], "receives of a shared queue are not flushed");
        finish(a, b, &control);
    }
}

fn handle_to(a: &End, attr: &mut sys::ibv_ah_attr) -> *mut sys::ibv_ah {
    // SAFETY: the domain is alive.
    let ah = unsafe { (a.lib.verbs().ibv_create_ah)(a.pd, attr) };
    assert!(!ah.is_null());
    ah
}

#[test]
fn a_datagram_arrives_behind_its_header_and_can_be_answered() {
    for form in FORMS {
        let devices = vec![DeviceOptions::roce(1), DeviceOptions::roce(2)];
        let (lib, control) = FakeDevice::new(Options { devices, ..Options::default() });
        let plan = Plan::new(form, Type::UD);
        let (a, b) = (End::new(&lib, 0, plan), End::new(&lib, 1, plan));
        connect(&a, &b);
        let mut attr = sys::ibv_ah_attr::zeroed();
        attr.port_num = 1;
        // SAFETY: the domain and the context are alive.
        unsafe {
            assert!((lib.verbs().ibv_create_ah)(a.pd, &raw mut attr).is_null(), "RoCE needs a GID");
            attr.grh.dgid = lib.verbs().query_gid_ex(b.context, 1, 3).unwrap().gid;
        }
        (attr.is_global, attr.grh.sgid_index) = (1, 3);
        let ah = handle_to(&a, &mut attr);
        b.recv(1, 0, 64).unwrap();
        a.write(0, b"datagram");
        let mut send = Request::new(&a, Wr::SEND, 2, 8);
        send.datagram = Some((ah, b.qp_num(), 0x1234));
        a.post(&send).unwrap();
        let mut wc = b.poll()[0];
        assert_eq!((wc.byte_len, wc.wc_flags & sys::IBV_WC_GRH), (48, sys::IBV_WC_GRH));
        assert_eq!((wc.src_qp, b.read(40, 8)), (a.qp_num(), b"datagram".to_vec()));
        send.datagram = Some((ah, b.qp_num(), 0x9999));
        a.post(&send).unwrap();
        assert_eq!((b.ended(), a.ended()), (vec![], vec![(2, OK), (2, OK)]), "a wrong key is lost");
        // SAFETY: the header lies where the datagram was received.
        unsafe {
            let back = (lib.verbs().ibv_create_ah_from_wc)(b.pd, &raw mut wc, b.memory.cast(), 1);
            a.recv(3, 0, 64).unwrap();
            let mut answer = Request::new(&b, Wr::SEND, 4, 8);
            answer.datagram = Some((back, wc.src_qp, 0x1234));
            b.post(&answer).unwrap();
            assert_eq!(a.ended(), [(3, OK)]);
            assert_eq!(((lib.verbs().ibv_destroy_ah)(back), (lib.verbs().ibv_destroy_ah)(ah)), (0, 0));
        }
        finish(a, b, &control);
    }
}

#[test]
fn a_window_shows_what_it_is_bound_to_and_no_more() {
    let (a, b, control) = pair(Plan::new(Form::Extended, Type::RC));
    // SAFETY: the objects are alive.
    unsafe {
        let mw = sys::ibv_alloc_mw(b.pd, sys::IbvMwType::TYPE_2).unwrap();
        let rkey = sys::ibv_inc_rkey((*mw).rkey);
        let info = sys::ibv_mw_bind_info {
            mr: b.mr,
            addr: b.addr(64),
            length: 16,
            mw_access_flags: sys::IBV_ACCESS_REMOTE_WRITE,
        };
        sys::ibv_wr_start(b.ex()).unwrap();
        ((*b.ex()).wr_id, (*b.ex()).wr_flags) = (1, sys::IBV_SEND_SIGNALED);
        sys::ibv_wr_bind_mw(b.ex(), mw, rkey, &raw const info).unwrap();
        sys::ibv_wr_complete(b.ex()).unwrap();
        assert_eq!(b.ended(), [(1, OK)]);
        let mut write = Request::new(&a, Wr::RDMA_WRITE, 2, 8).to(&b, 64);
        write.remote.1 = rkey;
        a.post(&write).unwrap();
        assert_eq!(a.ended(), [(2, OK)]);
        let mut invalidate = Request::new(&b, Wr::LOCAL_INV, 3, 0);
        invalidate.imm = rkey;
        b.post(&invalidate).unwrap();
        assert_eq!(b.ended(), [(3, OK)]);
        a.post(&write).unwrap();
        assert_eq!(a.ended(), [(2, Status::REM_ACCESS_ERR)]);
        sys::ibv_dealloc_mw(mw).unwrap();
    }
    finish(a, b, &control);
}

#[test]
fn device_memory_is_written_by_peers() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    // SAFETY: the objects are alive.
    unsafe {
        let mut attr = sys::ibv_alloc_dm_attr { length: 64, log_align_req: 0, comp_mask: 0 };
        let dm = sys::ibv_alloc_dm(b.context, &mut attr).unwrap();
        let access = common::ALL | sys::IBV_ACCESS_ZERO_BASED;
        let mr = sys::ibv_reg_dm_mr(b.pd, dm, 0, 64, access).unwrap();
        a.write(0, b"to the device");
        let mut write = Request::new(&a, Wr::RDMA_WRITE, 1, 13);
        write.remote = (8, (*mr).rkey);
        a.post(&write).unwrap();
        assert_eq!(a.ended(), [(1, OK)]);
        let mut bytes = [0; 13];
        sys::ibv_memcpy_from_dm(&mut bytes, dm, 8).unwrap();
        assert_eq!(&bytes, b"to the device");
        assert_eq!(sys::ibv_free_dm(dm), Err(Errno(libc::EBUSY)));
        assert_eq!((b.lib.verbs().ibv_dereg_mr)(mr), 0);
        sys::ibv_free_dm(dm).unwrap();
    }
    finish(a, b, &control);
}

#[test]
fn a_port_that_goes_down_raises_an_event_and_carries_nothing() {
    let (a, b, control) = pair(Plan::new(Form::Legacy, Type::RC));
    control.set_port(0, 1, sys::IbvPortState::DOWN);
    let verbs = a.lib.verbs();
    // SAFETY: the context is open.
    unsafe {
        let mut event = sys::ibv_async_event::zeroed();
        assert_eq!((verbs.ibv_get_async_event)(a.context, &raw mut event), 0);
        assert_eq!((event.event_type, event.element.port_num), (sys::IbvEventType::PORT_ERR, 1));
        (verbs.ibv_ack_async_event)(&raw mut event);
        assert_eq!(verbs.query_port(a.context, 1).unwrap().state, sys::IbvPortState::DOWN);
    }
    a.post(&Request::new(&a, Wr::RDMA_WRITE, 1, 4).to(&b, 0)).unwrap();
    assert_eq!(a.ended(), []);
    control.set_port(0, 1, sys::IbvPortState::ACTIVE);
    assert_eq!(a.ended(), [(1, OK)]);
    finish(a, b, &control);
}

#[test]
fn an_old_device_has_nothing_extended() {
    let devices = vec![DeviceOptions { memory_windows: false, ..DeviceOptions::legacy(0) }];
    let (lib, control) = FakeDevice::new(Options { devices, old_library: true, ..Options::default() });
    let context = open(&lib, 0);
    // SAFETY: the context is open.
    unsafe {
        assert!(!sys::is_extended(context));
        assert!(sys::missing_data_path(context).is_empty());
        let refused = sys::ibv_create_cq_ex(context, &mut sys::ibv_cq_init_attr_ex::zeroed());
        assert_eq!(refused, Err(Errno::NOT_SUPPORTED));
        assert!(lib.verbs().query_device_ex(context).is_ok());
        assert!(lib.verbs().query_port(context, 1).is_ok());
        assert_eq!(lib.verbs().query_gid_ex(context, 1, 0).map(|_| ()), Err(Errno::NOT_SUPPORTED));
        assert!(lib.verbs().ibv_qp_to_qp_ex.is_none());
        assert_eq!((lib.verbs().ibv_close_device)(context), 0);
    }
    assert!(control.live().is_empty());
}

#[test]
fn several_devices_and_ports_are_as_they_were_described() {
    let ports = vec![PortOptions::infiniband(7).down(), PortOptions::roce([10, 0, 0, 9])];
    let mut options = Options::devices(3);
    options.devices[1].ports = ports;
    let (lib, control) = FakeDevice::new(options);
    let context = open(&lib, 1);
    // SAFETY: the context is open.
    unsafe {
        let attr = lib.verbs().query_device_ex(context).unwrap();
        assert_eq!(attr.orig_attr.phys_port_cnt, 2);
        assert_eq!(lib.verbs().query_port(context, 1).unwrap().state, sys::IbvPortState::DOWN);
        let second = lib.verbs().query_port(context, 2).unwrap();
        assert_eq!(second.link_layer, sys::IBV_LINK_LAYER_ETHERNET);
        assert!(lib.verbs().query_port(context, 3).is_err());
        let mut rows = [sys::ibv_gid_entry::zeroed(); 8];
        assert_eq!(lib.verbs().query_gid_table(context, &mut rows), Ok(5));
        assert_eq!((rows[4].port_num, rows[4].gid_index), (2, 3));
        assert_eq!(rows[4].gid_type, sys::IbvGidType::ROCE_V2.0);
        assert_eq!((lib.verbs().ibv_close_device)(context), 0);
    }
    assert!(control.live().is_empty());
}
