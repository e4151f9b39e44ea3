//! A device in this process behind `Library::from_table`: all that one must fill, and that it is called as a driver would be.
//!
//! It keeps one queue of what was posted and completes it in order when it is polled. Its objects live as long as the process.
#![allow(unsafe_code)]

use sinew_verbs_sys::*;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Mutex;

/// What was posted: who, and whether it was the extended way.
static POSTED: Mutex<Vec<(u64, bool)>> = Mutex::new(Vec::new());
/// The tests share the device's one queue.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn kept<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

unsafe extern "C" fn list(count: *mut c_int) -> *mut *mut ibv_device {
    let mut device = ibv_device::zeroed();
    device.node_type = IbvNodeType::CA;
    device.transport_type = IbvTransportType::IB;
    for (place, byte) in device.name.iter_mut().zip(b"own0") {
        *place = byte.cast_signed();
    }
    let devices: &mut [*mut ibv_device; 2] = Box::leak(Box::new([kept(device), null_mut()]));
    // SAFETY: null or the caller's number.
    if let Some(count) = unsafe { count.as_mut() } {
        *count = 1;
    }
    devices.as_mut_ptr()
}

unsafe extern "C" fn free_list(_: *mut *mut ibv_device) {}

unsafe extern "C" fn open(device: *mut ibv_device) -> *mut ibv_context {
    let around = kept(verbs_context::zeroed());
    // SAFETY: just made. The pointer to the context comes from the one to the whole.
    unsafe {
        (*around).sz = size_of::<verbs_context>();
        (*around).create_qp_ex = Some(create_qp_ex);
        (*around).create_cq_ex = Some(create_cq_ex);
        let context = &raw mut (*around).context;
        (*context).device = device;
        (*context).abi_compat = VERBS_ABI_IS_EXTENDED;
        (*context).async_fd = -1;
        (*context).num_comp_vectors = 1;
        (*context).ops.post_send = Some(post_send);
        (*context).ops.post_recv = Some(post_recv);
        (*context).ops.post_srq_recv = Some(post_srq_recv);
        (*context).ops.poll_cq = Some(poll_cq);
        (*context).ops.req_notify_cq = Some(req_notify_cq);
        context
    }
}

unsafe extern "C" fn alloc_pd(context: *mut ibv_context) -> *mut ibv_pd {
    kept(ibv_pd { context, handle: 1 })
}

unsafe extern "C" fn create_cq(
    context: *mut ibv_context,
    cqe: c_int,
    cq_context: *mut c_void,
    channel: *mut ibv_comp_channel,
    _: c_int,
) -> *mut ibv_cq {
    kept(ibv_cq { context, cqe, cq_context, channel, ..ibv_cq::zeroed() })
}

unsafe extern "C" fn create_qp(pd: *mut ibv_pd, attr: *mut ibv_qp_init_attr) -> *mut ibv_qp {
    // SAFETY: the caller's objects.
    let (context, attr) = unsafe { ((*pd).context, &*attr) };
    let qp = ibv_qp { context, pd, send_cq: attr.send_cq, recv_cq: attr.recv_cq, ..ibv_qp::zeroed() };
    kept(ibv_qp { qp_num: 9, qp_type: attr.qp_type, ..qp })
}

unsafe extern "C" fn create_qp_ex(context: *mut ibv_context, attr: *mut ibv_qp_init_attr_ex) -> *mut ibv_qp {
    // SAFETY: the caller's structure.
    let attr = unsafe { &*attr };
    if attr.send_ops_flags & !IBV_QP_EX_WITH_SEND != 0 {
        Errno::NOT_SUPPORTED.set();
        return null_mut();
    }
    let qp_base = ibv_qp { context, pd: attr.pd, qp_num: 10, qp_type: attr.qp_type, ..ibv_qp::zeroed() };
    kept(ibv_qp_ex {
        qp_base,
        wr_start: Some(start),
        wr_complete: Some(complete),
        wr_abort: Some(start),
        wr_send: Some(send),
        wr_set_sge: Some(set_sge),
        wr_set_sge_list: Some(set_sge_list),
        wr_set_inline_data: Some(set_inline),
        wr_set_inline_data_list: Some(set_inline_list),
        ..ibv_qp_ex::zeroed()
    })
    .cast()
}

unsafe extern "C" fn to_ex(qp: *mut ibv_qp) -> *mut ibv_qp_ex {
    // SAFETY: the caller's queue pair, one of ours.
    if unsafe { (*qp).qp_num } == 10 { qp.cast() } else { null_mut() }
}

unsafe extern "C" fn create_cq_ex(context: *mut ibv_context, _: *mut ibv_cq_init_attr_ex) -> *mut ibv_cq_ex {
    kept(ibv_cq_ex {
        context,
        start_poll: Some(start_poll),
        next_poll: Some(next_poll),
        end_poll: Some(end_poll),
        read_opcode: Some(read_opcode),
        read_vendor_err: Some(read_vendor_err),
        read_wc_flags: Some(read_wc_flags),
        ..ibv_cq_ex::zeroed()
    })
}

unsafe extern "C" fn post_send(
    _: *mut ibv_qp,
    mut list: *mut ibv_send_wr,
    bad: *mut *mut ibv_send_wr,
) -> c_int {
    // SAFETY: the caller's list, ended by null.
    unsafe {
        while let Some(request) = list.as_ref() {
            if request.opcode != IbvWrOpcode::SEND {
                *bad = list;
                return libc::EINVAL;
            }
            POSTED.lock().unwrap().push((request.wr_id, false));
            list = request.next;
        }
    }
    0
}

unsafe extern "C" fn post_recv(_: *mut ibv_qp, _: *mut ibv_recv_wr, _: *mut *mut ibv_recv_wr) -> c_int {
    -libc::ENOMEM
}

unsafe extern "C" fn post_srq_recv(_: *mut ibv_srq, _: *mut ibv_recv_wr, _: *mut *mut ibv_recv_wr) -> c_int {
    libc::ENOMEM
}

unsafe extern "C" fn poll_cq(_: *mut ibv_cq, room: c_int, places: *mut ibv_wc) -> c_int {
    let mut posted = POSTED.lock().unwrap();
    let count = posted.len().min(usize::try_from(room).unwrap());
    for (number, (wr_id, _)) in posted.drain(..count).enumerate() {
        // SAFETY: the caller has room for so many.
        unsafe { places.add(number).write(ibv_wc { wr_id, qp_num: 9, ..ibv_wc::zeroed() }) };
    }
    c_int::try_from(count).unwrap()
}

unsafe extern "C" fn req_notify_cq(_: *mut ibv_cq, solicited: c_int) -> c_int {
    if solicited == 0 { 0 } else { libc::EINVAL }
}

unsafe extern "C" fn start(_: *mut ibv_qp_ex) {}

unsafe extern "C" fn complete(_: *mut ibv_qp_ex) -> c_int {
    0
}

unsafe extern "C" fn send(qp: *mut ibv_qp_ex) {
    // SAFETY: the caller's queue pair.
    POSTED.lock().unwrap().push((unsafe { (*qp).wr_id }, true));
}

unsafe extern "C" fn set_sge(_: *mut ibv_qp_ex, _: u32, _: u64, _: u32) {}
unsafe extern "C" fn set_sge_list(_: *mut ibv_qp_ex, _: usize, _: *const ibv_sge) {}
unsafe extern "C" fn set_inline(_: *mut ibv_qp_ex, _: *mut c_void, _: usize) {}
unsafe extern "C" fn set_inline_list(_: *mut ibv_qp_ex, _: usize, _: *const ibv_data_buf) {}

unsafe extern "C" fn next_poll(cq: *mut ibv_cq_ex) -> c_int {
    let mut posted = POSTED.lock().unwrap();
    if posted.is_empty() {
        return libc::ENOENT;
    }
    // SAFETY: the caller's queue.
    unsafe { (*cq).wr_id = posted.remove(0).0 };
    0
}

unsafe extern "C" fn start_poll(cq: *mut ibv_cq_ex, _: *mut ibv_poll_cq_attr) -> c_int {
    // SAFETY: the caller's queue.
    unsafe { next_poll(cq) }
}

unsafe extern "C" fn end_poll(_: *mut ibv_cq_ex) {}

unsafe extern "C" fn read_opcode(_: *mut ibv_cq_ex) -> IbvWcOpcode {
    // A device may say what nobody has heard of.
    IbvWcOpcode(0x7777)
}

unsafe extern "C" fn read_vendor_err(_: *mut ibv_cq_ex) -> u32 {
    0xabc
}

unsafe extern "C" fn read_wc_flags(_: *mut ibv_cq_ex) -> u32 {
    IBV_WC_GRH
}

fn library() -> Library {
    let mut table = VerbsTable::unsupported();
    table.ibv_get_device_list = list;
    table.ibv_free_device_list = free_list;
    table.ibv_open_device = open;
    table.ibv_alloc_pd = alloc_pd;
    table.ibv_create_cq = create_cq;
    table.ibv_create_qp = create_qp;
    table.ibv_qp_to_qp_ex = Some(to_ex);
    // SAFETY: the functions above live for ever, may be called by any thread and do as their manual pages say.
    unsafe { Library::from_table(table, None) }
}

/// An opened device with a domain.
fn opened(verbs: &VerbsTable) -> (*mut ibv_context, *mut ibv_pd) {
    let mut count = 0;
    // SAFETY: the device is the one above.
    unsafe {
        let devices = Errno::check_pointer((verbs.ibv_get_device_list)(&raw mut count)).unwrap();
        assert_eq!(count, 1);
        let context = Errno::check_pointer((verbs.ibv_open_device)(*devices)).unwrap();
        (verbs.ibv_free_device_list)(devices);
        assert!(missing_data_path(context).is_empty());
        (context, Errno::check_pointer((verbs.ibv_alloc_pd)(context)).unwrap())
    }
}

#[test]
fn a_batch_goes_the_legacy_way_and_comes_back_in_order() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let library = library();
    let verbs = library.verbs();
    let (context, pd) = opened(verbs);
    let mut places = [const { MaybeUninit::<ibv_wc>::uninit() }; 4];
    // SAFETY: the objects are those of the device above, and live for ever; the requests live through the calls.
    unsafe {
        let cq = Errno::check_pointer((verbs.ibv_create_cq)(context, 8, null_mut(), null_mut(), 0)).unwrap();
        let mut attr = ibv_qp_init_attr_ex {
            pd,
            comp_mask: IBV_QP_INIT_ATTR_PD,
            send_cq: cq,
            recv_cq: cq,
            qp_type: IbvQpType::RC,
            ..ibv_qp_init_attr_ex::zeroed()
        };
        let qp = verbs.create_qp_ex(context, &mut attr).unwrap();
        assert!((verbs.ibv_qp_to_qp_ex.unwrap())(qp).is_null());

        let mut wrong = ibv_send_wr { wr_id: 3, opcode: IbvWrOpcode::TSO, ..ibv_send_wr::zeroed() };
        let mut second = ibv_send_wr { wr_id: 2, opcode: IbvWrOpcode::SEND, ..ibv_send_wr::zeroed() };
        let mut first = ibv_send_wr { wr_id: 1, next: &raw mut second, ..second };
        let mut bad = null_mut();
        assert_eq!(ibv_post_send(qp, &raw mut first, &mut bad), Ok(()));
        assert_eq!(ibv_post_send_unchecked(qp, &raw mut first, &raw mut bad), 0);
        first.next = &raw mut wrong;
        assert_eq!(ibv_post_send(qp, &raw mut first, &mut bad), Err(Errno::INVALID));
        assert_eq!(bad, &raw mut wrong, "the one before it was posted");

        assert_eq!(ibv_poll_cq(cq, &mut places), Ok(4));
        let ids = places.map(|place| place.assume_init().wr_id);
        assert_eq!(ids, [1, 2, 1, 2]);
        let mut places = ids.map(|_| MaybeUninit::uninit());
        assert_eq!(ibv_poll_cq(cq, &mut places), Ok(1));
        assert_eq!(ibv_poll_cq_unchecked(cq, 4, places.as_mut_ptr().cast()), 0);
        assert_eq!(ibv_req_notify_cq(cq, false), Ok(()));
        assert_eq!(ibv_req_notify_cq(cq, true), Err(Errno::INVALID));
        let mut bad = null_mut();
        assert_eq!(
            ibv_post_recv(qp, null_mut(), &mut bad),
            Err(Errno(libc::ENOMEM)),
            "negated by the driver"
        );
    }
}

#[test]
fn requests_go_the_extended_way_and_values_are_read_as_they_are() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let library = library();
    let verbs = library.verbs();
    let (context, pd) = opened(verbs);
    // SAFETY: the objects are those of the device above, and live for ever.
    unsafe {
        let cq = ibv_create_cq_ex(context, &mut ibv_cq_init_attr_ex::zeroed()).unwrap();
        assert!(can_poll(cq));
        assert_eq!((*ibv_cq_ex_to_cq(cq)).context, context);
        let mut attr = ibv_qp_init_attr_ex {
            pd,
            comp_mask: IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
            send_ops_flags: IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_READ,
            qp_type: IbvQpType::RC,
            ..ibv_qp_init_attr_ex::zeroed()
        };
        assert_eq!(verbs.create_qp_ex(context, &mut attr), Err(Errno::NOT_SUPPORTED));
        attr.send_ops_flags = IBV_QP_EX_WITH_SEND;
        let qp = verbs.create_qp_ex(context, &mut attr).unwrap();
        let qp = Errno::check_pointer((verbs.ibv_qp_to_qp_ex.unwrap())(qp)).unwrap();
        assert_eq!(supports(qp, attr.send_ops_flags), IBV_QP_EX_WITH_SEND);

        ibv_wr_start(qp).unwrap();
        (*qp).wr_id = 41;
        ibv_wr_send(qp).unwrap();
        ibv_wr_set_sge(qp, 1, 2, 3).unwrap();
        (*qp).wr_id = 42;
        ibv_wr_send_unchecked(qp);
        ibv_wr_set_sge_unchecked(qp, 1, 2, 3);
        assert_eq!(ibv_wr_rdma_read(qp, 0, 0), Err(Errno::NOT_SUPPORTED), "it was not made for that");
        ibv_wr_complete(qp).unwrap();

        assert_eq!(ibv_start_poll(cq), Ok(true));
        assert_eq!((*cq).wr_id, 41);
        let opcode = ibv_wc_read_opcode(cq).unwrap();
        assert_eq!((opcode.name(), opcode.to_string().as_str()), (None, "Unknown(0x7777)"));
        assert_eq!((ibv_wc_read_vendor_err(cq), ibv_wc_read_wc_flags(cq)), (Ok(0xabc), Ok(IBV_WC_GRH)));
        assert_eq!(ibv_wc_read_completion_ts(cq), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_next_poll(cq), Ok(true));
        assert_eq!((*cq).wr_id, 42);
        assert_eq!(ibv_next_poll(cq), Ok(false));
        ibv_end_poll(cq).unwrap();
        assert_eq!(ibv_start_poll(cq), Ok(false));
    }
}

#[test]
fn what_the_device_lacks_is_refused() {
    let library = library();
    let (context, pd) = opened(library.verbs());
    // SAFETY: the objects are those of the device above, and live for ever.
    unsafe {
        assert_eq!(ibv_alloc_mw(pd, IbvMwType::TYPE_2), Err(Errno::NOT_SUPPORTED));
        assert_eq!(ibv_alloc_dm(context, &mut ibv_alloc_dm_attr::zeroed()), Err(Errno::NOT_SUPPORTED));
        assert_eq!(library.verbs().query_port(context, 1).err(), Some(Errno::NOT_SUPPORTED));
        let mr = library.verbs().reg_mr(pd, null_mut(), 0, 0);
        assert_eq!(mr, Err(Errno::NOT_SUPPORTED));
    }
}

#[test]
fn functions_are_found_by_their_names_in_c() {
    let library = library();
    let verbs = library.verbs();
    assert_eq!(verbs.function("ibv_alloc_pd"), alloc_pd as *const c_void);
    assert_eq!(verbs.function("ibv_qp_to_qp_ex"), to_ex as *const c_void);
    for absent in ["ibv_reg_mr_iova2", "ibv_post_send", ""] {
        assert!(verbs.function(absent).is_null(), "{absent}");
    }
}

#[test]
fn a_library_goes_to_other_threads() {
    fn everywhere<T: Send + Sync + Clone + 'static>(_: &T) {}
    everywhere(&library());
}

#[test]
fn r1_zero_and_unknown_codes_are_data() {
    let attr = ibv_qp_attr::zeroed();
    assert_eq!(attr.path_mtu.to_string(), "Unknown(0x0)");
    assert_eq!(ibv_port_attr::zeroed().active_mtu, IbvMtu(0));
    assert_eq!(
        (IbvWcStatus::WR_FLUSH_ERR.c_name(), IbvWcStatus(99).c_name()),
        (Some("IBV_WC_WR_FLUSH_ERR"), None)
    );
    assert_eq!(IbvNodeType(-7).to_string(), "Unknown(0xfffffff9)");
}

#[test]
fn r2_an_address_at_an_odd_place_is_copied_not_cast() {
    let bytes: [u8; 17] = std::array::from_fn(|number| u8::try_from(number).unwrap());
    let gid = ibv_gid::from_bytes(bytes[1..].try_into().unwrap());
    assert_eq!(gid.bytes(), bytes[1..]);
    assert_eq!(format!("{gid:?}"), "102:304:506:708:90a:b0c:d0e:f10");
}
