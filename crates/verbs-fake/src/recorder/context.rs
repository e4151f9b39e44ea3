//! The functions that an opened device carries, which record.
#![allow(unsafe_code)]

use super::answer::Answer;
use super::argument::{Argument, Pieces, Place};
use super::functions::{note, noted};
use super::tape::{self, Opened};
use core::ffi::{c_int, c_uint};
use sinew_verbs_sys as sys;

/// Puts functions that record where there are functions; answers what was there.
///
/// # Safety
/// A context that was just opened, and that nobody else has seen.
pub(super) unsafe fn patch(context: *mut sys::ibv_context) -> Opened {
    // SAFETY: the caller's promise.
    unsafe {
        let mut opened = Opened { ops: (*context).ops, whole: sys::verbs_context::zeroed() };
        patch_ops(&mut (*context).ops);
        let whole = sys::verbs_get_ctx(context);
        // Only a context whose library knew all that we know is patched: its structure is as long as ours.
        if !whole.is_null() && (*whole).sz >= size_of::<sys::verbs_context>() {
            opened.whole = *whole;
            patch_extended(&mut *whole);
        }
        opened
    }
}

/// Writes a line and answers the functions of the device that a context is of.
fn of(tape: &tape::Locked, context: *mut sys::ibv_context) -> Opened {
    *tape.opened.get(&context.addr()).expect("its functions record since it was opened")
}

macro_rules! functions {
    ( $patch:ident, $object:ty, $table:ident;
      $( $name:ident ( $( $arg:ident : $type:ty ),* ) of $context:expr $( , [ $( $noted:expr ),* ] )? => $return:ty; )* ) => {
        $(
            unsafe extern "C" fn $name( $( $arg: $type ),* ) -> $return {
                // SAFETY: the caller's promise: objects that are alive, arguments as the manual page asks for.
                unsafe {
                    let tape = note(concat!("ibv_", stringify!($name)), |tape, line| {
                        noted!(tape, line, [ $( $arg ),* ] $( [ $( $noted ),* ] )?);
                    });
                    let inner = of(&tape, $context).$table.$name.expect("it was there when it was wrapped");
                    drop(tape);
                    let answer = inner( $( $arg ),* );
                    answer.after(&mut tape::lock());
                    answer
                }
            }
        )*

        fn $patch(object: &mut $object) {
            $( object.$name = object.$name.map(|_| $name as _); )*
        }
    };
}

functions! {
    patch_ops, sys::ibv_context_ops, ops;

    post_send(qp: *mut sys::ibv_qp, list: *mut sys::ibv_send_wr, bad: *mut *mut sys::ibv_send_wr) of (*qp).context, [qp, (list, (*qp).qp_type)] => c_int;
    post_recv(qp: *mut sys::ibv_qp, list: *mut sys::ibv_recv_wr, bad: *mut *mut sys::ibv_recv_wr) of (*qp).context, [qp, list] => c_int;
    post_srq_recv(srq: *mut sys::ibv_srq, list: *mut sys::ibv_recv_wr, bad: *mut *mut sys::ibv_recv_wr) of (*srq).context, [srq, list] => c_int;
    req_notify_cq(cq: *mut sys::ibv_cq, solicited_only: c_int) of (*cq).context => c_int;
    poll_cq(cq: *mut sys::ibv_cq, room: c_int, places: *mut sys::ibv_wc) of (*cq).context, [cq, room, Place(places)] => c_int;
    alloc_mw(pd: *mut sys::ibv_pd, kind: sys::IbvMwType) of (*pd).context => *mut sys::ibv_mw;
    bind_mw(qp: *mut sys::ibv_qp, mw: *mut sys::ibv_mw, bind: *mut sys::ibv_mw_bind) of (*qp).context => c_int;
    dealloc_mw(mw: *mut sys::ibv_mw) of (*mw).context => c_int;
}

functions! {
    patch_extended, sys::verbs_context, whole;

    create_cq_ex(context: *mut sys::ibv_context, attr: *mut sys::ibv_cq_init_attr_ex) of context => *mut sys::ibv_cq_ex;
    create_qp_ex(context: *mut sys::ibv_context, attr: *mut sys::ibv_qp_init_attr_ex) of context => *mut sys::ibv_qp;
    query_device_ex(context: *mut sys::ibv_context, input: *const sys::ibv_query_device_ex_input, attr: *mut sys::ibv_device_attr_ex, size: usize) of context, [context, input, Place(attr), size] => c_int;
    query_port(context: *mut sys::ibv_context, port: u8, attr: *mut sys::ibv_port_attr, size: usize) of context, [context, port, Place(attr), size] => c_int;
    query_rt_values(context: *mut sys::ibv_context, values: *mut sys::ibv_values_ex) of context => c_int;
    modify_cq(cq: *mut sys::ibv_cq, attr: *mut sys::ibv_modify_cq_attr) of (*cq).context => c_int;
    modify_qp_rate_limit(qp: *mut sys::ibv_qp, attr: *mut sys::ibv_qp_rate_limit_attr) of (*qp).context => c_int;
    advise_mr(pd: *mut sys::ibv_pd, advice: sys::IbvAdviseMrAdvice, flags: u32, pieces: *mut sys::ibv_sge, count: u32) of (*pd).context, [pd, advice, flags, Pieces(pieces, count as usize)] => c_int;
    alloc_null_mr(pd: *mut sys::ibv_pd) of (*pd).context => *mut sys::ibv_mr;
    alloc_dm(context: *mut sys::ibv_context, attr: *mut sys::ibv_alloc_dm_attr) of context => *mut sys::ibv_dm;
    free_dm(dm: *mut sys::ibv_dm) of (*dm).context => c_int;
    reg_dm_mr(pd: *mut sys::ibv_pd, dm: *mut sys::ibv_dm, offset: u64, length: usize, access: c_uint) of (*pd).context => *mut sys::ibv_mr;
    alloc_td(context: *mut sys::ibv_context, attr: *mut sys::ibv_td_init_attr) of context => *mut sys::ibv_td;
    dealloc_td(td: *mut sys::ibv_td) of (*td).context => c_int;
    alloc_parent_domain(context: *mut sys::ibv_context, attr: *mut sys::ibv_parent_domain_init_attr) of context => *mut sys::ibv_pd;
    create_srq_ex(context: *mut sys::ibv_context, init: *mut sys::ibv_srq_init_attr_ex) of context => *mut sys::ibv_srq;
    open_xrcd(context: *mut sys::ibv_context, attr: *mut sys::ibv_xrcd_init_attr) of context => *mut sys::ibv_xrcd;
    close_xrcd(xrcd: *mut sys::ibv_xrcd) of (*xrcd).context => c_int;
    ibv_create_flow(qp: *mut sys::ibv_qp, rule: *mut sys::ibv_flow_attr) of (*qp).context => *mut sys::ibv_flow;
    ibv_destroy_flow(flow: *mut sys::ibv_flow) of (*flow).context => c_int;
    get_srq_num(srq: *mut sys::ibv_srq, number: *mut u32) of (*srq).context, [srq, Place(number)] => c_int;
}
