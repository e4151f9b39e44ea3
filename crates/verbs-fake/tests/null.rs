//! The null device gives back what was posted, in both forms, to Rust and to C.

use core::mem::MaybeUninit;
use sinew_verbs_fake::null::{
    NullDevice, sinew_null_completion_queue, sinew_null_free, sinew_null_new, sinew_null_queue_pair,
};
use sinew_verbs_sys as sys;
use std::ptr::null_mut;

#[test]
fn what_was_posted_signaled_is_polled() {
    // SAFETY: the objects are used by this thread while the pair is there.
    unsafe {
        let pair = sinew_null_new();
        let (qp, cq) = (sinew_null_queue_pair(pair), sinew_null_completion_queue(pair));
        let mut second = sys::ibv_send_wr::zeroed();
        second.wr_id = 2;
        let mut first = sys::ibv_send_wr::zeroed();
        (first.wr_id, first.send_flags, first.next) = (1, sys::IBV_SEND_SIGNALED, &raw mut second);
        let mut bad = null_mut();
        sys::ibv_post_send(qp, &raw mut first, &mut bad).unwrap();
        let ex = qp.cast::<sys::ibv_qp_ex>();
        sys::ibv_wr_start(ex).unwrap();
        for wr_id in 3..5 {
            ((*ex).wr_id, (*ex).wr_flags) = (wr_id, sys::IBV_SEND_SIGNALED);
            sys::ibv_wr_rdma_write(ex, 1, 2).unwrap();
            sys::ibv_wr_set_sge(ex, 1, 2, 3).unwrap();
        }
        sys::ibv_wr_complete(ex).unwrap();
        let mut places = [const { MaybeUninit::<sys::ibv_wc>::uninit() }; 2];
        assert_eq!(sys::ibv_poll_cq(cq, &mut places), Ok(2));
        let wc = places[1].assume_init();
        assert_eq!((wc.wr_id, wc.status, wc.qp_num), (3, sys::IbvWcStatus::SUCCESS, (*qp).qp_num));
        let cq = cq.cast::<sys::ibv_cq_ex>();
        assert_eq!(sys::ibv_start_poll(cq), Ok(true));
        assert_eq!((*cq).wr_id, 4);
        assert_eq!(sys::ibv_next_poll(cq), Ok(false));
        sys::ibv_end_poll(cq).unwrap();
        assert_eq!(sys::ibv_start_poll(cq), Ok(false));
        sinew_null_free(pair);
    }
}

#[test]
fn it_opens_through_its_table_and_has_the_whole_data_path() {
    let lib = NullDevice::library();
    let verbs = lib.verbs();
    // SAFETY: every object is made of those made before.
    unsafe {
        let list = (verbs.ibv_get_device_list)(null_mut());
        let context = (verbs.ibv_open_device)(*list);
        assert!(sys::missing_data_path(context).is_empty());
        let mut attr = sys::ibv_cq_init_attr_ex::zeroed();
        attr.cqe = 16;
        let cq = sys::ibv_create_cq_ex(context, &mut attr).unwrap();
        assert!(sys::can_poll(cq));
        let mut init = sys::ibv_qp_init_attr_ex::zeroed();
        (init.send_cq, init.recv_cq) = (cq.cast(), cq.cast());
        (init.comp_mask, init.qp_type) = (sys::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS, sys::IbvQpType::RC);
        let qp = verbs.create_qp_ex(context, &mut init).unwrap();
        let asked = sys::IBV_QP_EX_WITH_SEND | sys::IBV_QP_EX_WITH_RDMA_WRITE;
        assert_eq!(sys::supports(verbs.ibv_qp_to_qp_ex.unwrap()(qp), asked), asked);
    }
}
