//! Queries, registration and creation that fall back on exported functions.
#![allow(unsafe_code)]

use super::{Objects, leaked};
use crate::*;
use core::ffi::{c_int, c_uint, c_void};
use core::ptr::{null_mut, without_provenance_mut};

unsafe extern "C" fn legacy_device(_: *mut ibv_context, attr: *mut ibv_device_attr) -> c_int {
    // SAFETY: the caller's structure.
    unsafe { (*attr).max_qp = 17 };
    0
}

unsafe extern "C" fn legacy_port(_: *mut ibv_context, port: u8, attr: *mut ibv_port_attr) -> c_int {
    if port > 2 {
        return libc::EINVAL;
    }
    // SAFETY: the caller's structure.
    unsafe { (*attr).lid = 100 + u16::from(port) };
    0
}

fn table() -> VerbsTable {
    let mut table = VerbsTable::unsupported();
    table.ibv_query_device = legacy_device;
    table.ibv_query_port = legacy_port;
    table
}

#[test]
fn extended_attributes_of_a_device_fall_back_to_the_legacy_ones() {
    unsafe extern "C" fn refuses(
        _: *mut ibv_context,
        input: *const ibv_query_device_ex_input,
        attr: *mut ibv_device_attr_ex,
        size: usize,
    ) -> c_int {
        assert_eq!(size, size_of::<ibv_device_attr_ex>());
        // SAFETY: the caller's structures.
        unsafe {
            assert_eq!((*input).comp_mask, 0);
            // What a driver scribbles before it refuses must not be seen.
            (*attr).max_dm_size = 99;
        }
        libc::EOPNOTSUPP
    }
    unsafe extern "C" fn breaks(
        _: *mut ibv_context,
        _: *const ibv_query_device_ex_input,
        _: *mut ibv_device_attr_ex,
        _: usize,
    ) -> c_int {
        libc::EIO
    }
    let objects = Objects::new();
    // SAFETY: the objects live.
    unsafe {
        let attr = table().query_device_ex(objects.context).unwrap();
        assert_eq!((attr.orig_attr.max_qp, attr.max_dm_size), (17, 0));
        (*objects.around).query_device_ex = Some(refuses);
        let attr = table().query_device_ex(objects.context).unwrap();
        assert_eq!((attr.orig_attr.max_qp, attr.max_dm_size), (17, 0));
        (*objects.around).query_device_ex = Some(breaks);
        assert_eq!(table().query_device_ex(objects.context).err(), Some(Errno(libc::EIO)));
    }
}

#[test]
fn a_port_is_asked_the_newest_way_and_the_rest_is_zero() {
    unsafe extern "C" fn newest(_: *mut ibv_context, _: u8, attr: *mut ibv_port_attr, _: usize) -> c_int {
        // SAFETY: the caller's structure.
        unsafe { (*attr).active_speed_ex = 256 };
        0
    }
    let objects = Objects::new();
    // SAFETY: the objects live.
    unsafe {
        let attr = table().query_port(objects.context, 1).unwrap();
        assert_eq!((attr.lid, attr.port_cap_flags2, attr.active_speed_ex), (101, 0, 0));
        assert_eq!(table().query_port(objects.context, 3).err(), Some(Errno::INVALID));
        (*objects.around).query_port = Some(newest);
        let attr = table().query_port(objects.context, 1).unwrap();
        assert_eq!((attr.lid, attr.active_speed_ex), (0, 256));
    }
}

#[test]
fn tables_of_addresses_are_missing_before_rdma_core_32() {
    let objects = Objects::new();
    // SAFETY: the objects live; nothing is called.
    unsafe {
        assert_eq!(table().query_gid_ex(objects.context, 1, 0).err(), Some(Errno::NOT_SUPPORTED));
        assert_eq!(table().query_gid_table(objects.context, &mut []).err(), Some(Errno::NOT_SUPPORTED));
    }
}

#[test]
fn a_library_that_answers_more_rows_than_fit_is_not_believed() {
    unsafe extern "C" fn boasts(
        _: *mut ibv_context,
        _: *mut ibv_gid_entry,
        room: usize,
        _: u32,
        size: usize,
    ) -> isize {
        assert_eq!((room, size), (1, size_of::<ibv_gid_entry>()));
        5
    }
    unsafe extern "C" fn refuses(
        _: *mut ibv_context,
        _: *mut ibv_gid_entry,
        _: usize,
        _: u32,
        _: usize,
    ) -> isize {
        -(libc::EINVAL as isize)
    }
    let objects = Objects::new();
    let mut rows = [ibv_gid_entry::zeroed()];
    let mut table = table();
    table._ibv_query_gid_table = Some(boasts);
    // SAFETY: the context lives.
    assert_eq!(unsafe { table.query_gid_table(objects.context, &mut rows) }, Ok(1));
    table._ibv_query_gid_table = Some(refuses);
    // SAFETY: the context lives.
    assert_eq!(unsafe { table.query_gid_table(objects.context, &mut rows) }, Err(Errno::INVALID));
}

unsafe extern "C" fn register(pd: *mut ibv_pd, _: *mut c_void, _: usize, access: c_int) -> *mut ibv_mr {
    leaked(ibv_mr { pd, handle: 1, lkey: access.cast_unsigned(), ..ibv_mr::zeroed() })
}

unsafe extern "C" fn register_at(
    pd: *mut ibv_pd,
    _: *mut c_void,
    _: usize,
    _: u64,
    access: c_int,
) -> *mut ibv_mr {
    leaked(ibv_mr { pd, handle: 2, lkey: access.cast_unsigned(), ..ibv_mr::zeroed() })
}

unsafe extern "C" fn register_optional(
    pd: *mut ibv_pd,
    addr: *mut c_void,
    _: usize,
    iova: u64,
    access: c_uint,
) -> *mut ibv_mr {
    assert_eq!(iova, addr.addr() as u64);
    leaked(ibv_mr { pd, handle: 3, lkey: access, ..ibv_mr::zeroed() })
}

#[test]
fn optional_access_takes_the_way_that_may_drop_it() {
    let objects = Objects::new();
    let addr: *mut c_void = without_provenance_mut(0x1000);
    let relaxed = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING;
    let mut table = table();
    table.ibv_reg_mr = register;
    // SAFETY: the domain lives; no memory is looked at.
    unsafe {
        let way = |mr: Result<*mut ibv_mr, Errno>| mr.map(|mr| ((*mr).handle, (*mr).lkey));
        assert_eq!(way(table.reg_mr(objects.pd, addr, 1, IBV_ACCESS_LOCAL_WRITE)), Ok((1, 1)));
        assert_eq!(
            way(table.reg_mr(objects.pd, addr, 1, relaxed)),
            Ok((1, 1)),
            "an old library: the bit is dropped"
        );
        assert_eq!(way(table.reg_mr_iova(objects.pd, addr, 1, 0x1000, relaxed)), Err(Errno::NOT_SUPPORTED));
        table.ibv_reg_mr_iova = Some(register_at);
        assert_eq!(way(table.reg_mr_iova(objects.pd, addr, 1, 0x1000, relaxed)), Ok((2, 1)));
        table.ibv_reg_mr_iova2 = Some(register_optional);
        assert_eq!(way(table.reg_mr(objects.pd, addr, 1, relaxed)), Ok((3, relaxed)));
        assert_eq!(way(table.reg_mr(objects.pd, addr, 1, IBV_ACCESS_LOCAL_WRITE)), Ok((1, 1)));
        assert_eq!(way(table.reg_mr_iova(objects.pd, addr, 1, 0x1000, relaxed)), Ok((3, relaxed)));
        assert_eq!(way(table.reg_mr_iova(objects.pd, addr, 1, 7, IBV_ACCESS_LOCAL_WRITE)), Ok((2, 1)));
    }
}

#[test]
fn a_plain_queue_pair_is_made_the_legacy_way() {
    unsafe extern "C" fn create(pd: *mut ibv_pd, attr: *mut ibv_qp_init_attr) -> *mut ibv_qp {
        // SAFETY: the caller's structure, which starts as this one.
        unsafe { (*attr).cap.max_send_wr = 32 };
        leaked(ibv_qp { pd, qp_num: 5, ..ibv_qp::zeroed() })
    }
    let objects = Objects::new();
    let mut attr = ibv_qp_init_attr_ex {
        pd: objects.pd,
        comp_mask: IBV_QP_INIT_ATTR_PD,
        ..ibv_qp_init_attr_ex::zeroed()
    };
    let mut table = table();
    table.ibv_create_qp = create;
    // SAFETY: the objects live.
    unsafe {
        let qp = table.create_qp_ex(objects.context, &mut attr).unwrap();
        assert_eq!(((*qp).qp_num, (*qp).pd, attr.cap.max_send_wr), (5, objects.pd, 32));
        attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        assert_eq!(table.create_qp_ex(objects.context, &mut attr), Err(Errno::NOT_SUPPORTED));
    }
}

#[test]
fn a_plain_shared_queue_is_made_the_legacy_way() {
    unsafe extern "C" fn create(pd: *mut ibv_pd, _: *mut ibv_srq_init_attr) -> *mut ibv_srq {
        leaked(ibv_srq { pd, handle: 6, ..ibv_srq::zeroed() })
    }
    let objects = Objects::new();
    let mut table = table();
    table.ibv_create_srq = create;
    let pd = IBV_SRQ_INIT_ATTR_PD;
    let cases = [
        (pd, IbvSrqType::TM, true),
        (pd | IBV_SRQ_INIT_ATTR_TYPE, IbvSrqType::BASIC, true),
        (pd | IBV_SRQ_INIT_ATTR_TYPE, IbvSrqType::XRC, false),
        (pd | IBV_SRQ_INIT_ATTR_CQ, IbvSrqType::BASIC, false),
        (IBV_SRQ_INIT_ATTR_TYPE, IbvSrqType::BASIC, false),
    ];
    for (comp_mask, srq_type, legacy) in cases {
        let mut attr =
            ibv_srq_init_attr_ex { comp_mask, srq_type, pd: objects.pd, ..ibv_srq_init_attr_ex::zeroed() };
        // SAFETY: the objects live.
        let made = unsafe { table.create_srq_ex(objects.context, &mut attr) };
        assert_eq!(made.is_ok(), legacy, "{comp_mask:#x} {srq_type}");
    }
}

#[test]
fn a_table_that_supports_nothing_refuses_everything() {
    let table = VerbsTable::unsupported();
    // SAFETY: the functions look at nothing.
    unsafe {
        let list = (table.ibv_get_device_list)(null_mut());
        assert_eq!(Errno::check_pointer(list), Err(Errno::NOT_SUPPORTED));
        assert_eq!(Errno::check((table.ibv_modify_qp)(null_mut(), null_mut(), 0)), Err(Errno::NOT_SUPPORTED));
        assert!(table.ibv_qp_to_qp_ex.is_none());
        let text = core::ffi::CStr::from_ptr((table.ibv_wc_status_str)(IbvWcStatus::SUCCESS));
        assert_eq!(text, c"not supported");
        let cm = CmTable::unsupported();
        assert_eq!(Errno::check_pointer((cm.rdma_create_event_channel)()), Err(Errno::NOT_SUPPORTED));
        let library = Library::from_table(table, Some(cm));
        assert!(library.cm().is_some() && library.efa().is_none() && library.version().is_none());
        assert_eq!(library.report().to_string(), "verbs: a table of the program's own");
    }
}
