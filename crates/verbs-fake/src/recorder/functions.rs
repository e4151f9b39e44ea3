//! The exported functions that record, each in front of another: those of libibverbs, and of libefa.
#![allow(unsafe_code)]

use super::answer::Answer;
use super::argument::{Address, Argument, Known, Place};
use super::tape::{self, Tape};
use core::ffi::{c_char, c_int, c_uint, c_void};
use sinew_verbs_sys as sys;

/// The tables whose functions write down what they are called with, and then call the others'.
pub(super) fn wrapped(inner: sys::VerbsTable, efa: Option<sys::EfaTable>) -> sys::Library {
    tape::begin(inner, efa);
    let mut table = inner;
    wrap(&mut table);
    let efa = efa.map(|mut table| {
        wrap_efa(&mut table);
        table
    });
    // SAFETY: the functions do what those behind them do.
    unsafe { sys::Library::from_tables(table, None, efa, None) }
}

/// Begins a line with the function's name, and ends it with its arguments.
pub(super) fn note(name: &str, write: impl FnOnce(&mut Tape, &mut String)) -> tape::Locked {
    let mut tape = tape::lock();
    let mut line = String::from(name);
    write(&mut tape, &mut line);
    tape.lines.push(line);
    tape
}

/// What is written of the arguments: what the row says, or all of them.
macro_rules! noted {
    ($tape:ident, $line:ident, [ $( $arg:ident ),* ] [ $( $noted:expr ),* ]) => {
        $( $line.push(' '); $noted.put($tape, $line); )*
    };
    ($tape:ident, $line:ident, [ $( $arg:ident ),* ]) => {
        $( $line.push(' '); $arg.put($tape, $line); )*
    };
}
pub(super) use noted;

macro_rules! calls {
    ( $table:ident, $inner:ident, $wrap:ident;
      $( $kind:ident $name:ident ( $( $arg:ident : $type:ty ),* ) $( [ $( $noted:expr ),* ] )? $( -> $return:ty )?; )* ) => {
        $(
            unsafe extern "C" fn $name( $( $arg: $type ),* ) $( -> $return )? {
                #[allow(unused_unsafe, reason = "a function without arguments")]
                // SAFETY: the caller's promise: arguments as the manual page asks for.
                let tape = note(stringify!($name), |_tape, _line| unsafe {
                    noted!(_tape, _line, [ $( $arg ),* ] $( [ $( $noted ),* ] )?);
                });
                let inner = inner!($kind, tape.$inner.expect("a recording has begun").$name);
                drop(tape);
                // SAFETY: the caller's promise, passed on.
                let answer = unsafe { inner( $( $arg ),* ) };
                // SAFETY: it is what the function answered.
                unsafe { answer.after(&mut tape::lock()) };
                answer
            }
        )*

        fn $wrap(table: &mut sys::$table) {
            $( outer!($kind, table.$name, $name); )*
        }
    };
}

macro_rules! inner {
    (required, $function:expr) => {
        $function
    };
    (optional, $function:expr) => {
        $function.expect("it was there when it was wrapped")
    };
}

macro_rules! outer {
    (required, $place:expr, $function:ident) => {
        $place = $function
    };
    (optional, $place:expr, $function:ident) => {
        $place = $place.map(|_| $function as _)
    };
}

calls! {
    VerbsTable, inner, wrap;

    required ibv_get_device_list(count: *mut c_int) [Place(count)] -> *mut *mut sys::ibv_device;
    required ibv_free_device_list(list: *mut *mut sys::ibv_device);
    required ibv_get_device_name(device: *mut sys::ibv_device) -> *const c_char;
    required ibv_get_device_guid(device: *mut sys::ibv_device) -> u64;
    optional ibv_get_device_index(device: *mut sys::ibv_device) -> c_int;
    required ibv_open_device(device: *mut sys::ibv_device) -> *mut sys::ibv_context;
    required ibv_close_device(context: *mut sys::ibv_context) -> c_int;
    required ibv_fork_init() -> c_int;

    required ibv_query_device(context: *mut sys::ibv_context, attr: *mut sys::ibv_device_attr) [context, Place(attr)] -> c_int;
    required ibv_query_port(context: *mut sys::ibv_context, port: u8, attr: *mut sys::ibv_port_attr) [context, port, Place(attr)] -> c_int;
    required ibv_query_gid(context: *mut sys::ibv_context, port: u8, index: c_int, gid: *mut sys::ibv_gid) [context, port, index, Place(gid)] -> c_int;
    optional _ibv_query_gid_ex(context: *mut sys::ibv_context, port: u32, index: u32, entry: *mut sys::ibv_gid_entry, flags: u32, size: usize) [context, port, index, Place(entry), flags, size] -> c_int;
    optional _ibv_query_gid_table(context: *mut sys::ibv_context, entries: *mut sys::ibv_gid_entry, room: usize, flags: u32, size: usize) [context, Place(entries), room, flags, size] -> isize;
    required ibv_query_pkey(context: *mut sys::ibv_context, port: u8, index: c_int, pkey: *mut u16) [context, port, index, Place(pkey)] -> c_int;
    optional ibv_get_pkey_index(context: *mut sys::ibv_context, port: u8, pkey: u16) -> c_int;
    required ibv_get_async_event(context: *mut sys::ibv_context, event: *mut sys::ibv_async_event) [context, Place(event)] -> c_int;
    required ibv_ack_async_event(event: *mut sys::ibv_async_event);

    required ibv_alloc_pd(context: *mut sys::ibv_context) -> *mut sys::ibv_pd;
    required ibv_dealloc_pd(pd: *mut sys::ibv_pd) -> c_int;
    required ibv_reg_mr(pd: *mut sys::ibv_pd, addr: *mut c_void, length: usize, access: c_int) -> *mut sys::ibv_mr;
    optional ibv_reg_mr_iova(pd: *mut sys::ibv_pd, addr: *mut c_void, length: usize, iova: u64, access: c_int) [pd, addr, length, Address(iova), access] -> *mut sys::ibv_mr;
    optional ibv_reg_mr_iova2(pd: *mut sys::ibv_pd, addr: *mut c_void, length: usize, iova: u64, access: c_uint) [pd, addr, length, Address(iova), access] -> *mut sys::ibv_mr;
    optional ibv_reg_dmabuf_mr(pd: *mut sys::ibv_pd, offset: u64, length: usize, iova: u64, fd: c_int, access: c_int) -> *mut sys::ibv_mr;
    required ibv_rereg_mr(mr: *mut sys::ibv_mr, flags: c_int, pd: *mut sys::ibv_pd, addr: *mut c_void, length: usize, access: c_int) -> c_int;
    required ibv_dereg_mr(mr: *mut sys::ibv_mr) -> c_int;

    required ibv_create_comp_channel(context: *mut sys::ibv_context) -> *mut sys::ibv_comp_channel;
    required ibv_destroy_comp_channel(channel: *mut sys::ibv_comp_channel) -> c_int;
    required ibv_create_cq(context: *mut sys::ibv_context, cqe: c_int, cq_context: *mut c_void, channel: *mut sys::ibv_comp_channel, comp_vector: c_int) -> *mut sys::ibv_cq;
    required ibv_resize_cq(cq: *mut sys::ibv_cq, cqe: c_int) -> c_int;
    required ibv_destroy_cq(cq: *mut sys::ibv_cq) -> c_int;
    required ibv_get_cq_event(channel: *mut sys::ibv_comp_channel, cq: *mut *mut sys::ibv_cq, cq_context: *mut *mut c_void) -> c_int;
    required ibv_ack_cq_events(cq: *mut sys::ibv_cq, count: c_uint);
    required ibv_create_srq(pd: *mut sys::ibv_pd, init: *mut sys::ibv_srq_init_attr) -> *mut sys::ibv_srq;
    required ibv_modify_srq(srq: *mut sys::ibv_srq, attr: *mut sys::ibv_srq_attr, mask: c_int) -> c_int;
    required ibv_query_srq(srq: *mut sys::ibv_srq, attr: *mut sys::ibv_srq_attr) [srq, Place(attr)] -> c_int;
    required ibv_destroy_srq(srq: *mut sys::ibv_srq) -> c_int;

    required ibv_create_qp(pd: *mut sys::ibv_pd, init: *mut sys::ibv_qp_init_attr) -> *mut sys::ibv_qp;
    optional ibv_qp_to_qp_ex(qp: *mut sys::ibv_qp) -> *mut sys::ibv_qp_ex;
    required ibv_modify_qp(qp: *mut sys::ibv_qp, attr: *mut sys::ibv_qp_attr, mask: c_int) -> c_int;
    required ibv_query_qp(qp: *mut sys::ibv_qp, attr: *mut sys::ibv_qp_attr, mask: c_int, init: *mut sys::ibv_qp_init_attr) [qp, Place(attr), mask, Place(init)] -> c_int;
    optional ibv_query_ece(qp: *mut sys::ibv_qp, ece: *mut sys::ibv_ece) [qp, Place(ece)] -> c_int;
    optional ibv_set_ece(qp: *mut sys::ibv_qp, ece: *mut sys::ibv_ece) -> c_int;
    optional ibv_query_qp_data_in_order(qp: *mut sys::ibv_qp, opcode: sys::IbvWrOpcode, flags: u32) -> c_int;
    required ibv_destroy_qp(qp: *mut sys::ibv_qp) -> c_int;
    required ibv_attach_mcast(qp: *mut sys::ibv_qp, gid: *const sys::ibv_gid, lid: u16) -> c_int;
    required ibv_detach_mcast(qp: *mut sys::ibv_qp, gid: *const sys::ibv_gid, lid: u16) -> c_int;
    required ibv_create_ah(pd: *mut sys::ibv_pd, attr: *mut sys::ibv_ah_attr) -> *mut sys::ibv_ah;
    required ibv_create_ah_from_wc(pd: *mut sys::ibv_pd, wc: *mut sys::ibv_wc, grh: *mut sys::ibv_grh, port: u8) -> *mut sys::ibv_ah;
    required ibv_init_ah_from_wc(context: *mut sys::ibv_context, port: u8, wc: *mut sys::ibv_wc, grh: *mut sys::ibv_grh, attr: *mut sys::ibv_ah_attr) [context, port, wc, grh, Place(attr)] -> c_int;
    required ibv_destroy_ah(ah: *mut sys::ibv_ah) -> c_int;
}

calls! {
    EfaTable, efa, wrap_efa;

    required efadv_create_driver_qp(pd: *mut sys::ibv_pd, init: *mut sys::ibv_qp_init_attr, kind: u32) -> *mut sys::ibv_qp;
    optional efadv_create_qp_ex(context: *mut sys::ibv_context, init: *mut sys::ibv_qp_init_attr_ex, own: *mut sys::efadv_qp_init_attr, len: u32) [context, init, Known(own, len), len] -> *mut sys::ibv_qp;
    optional efadv_query_device(context: *mut sys::ibv_context, attr: *mut sys::efadv_device_attr, len: u32) [context, Place(attr), len] -> c_int;
}
