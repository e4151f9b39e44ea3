//! The functions by which an extended completion queue is polled, which record.
#![allow(unsafe_code)]

use super::argument::Argument;
use super::functions::note;
use super::tape::{Own, Tape};
use core::ffi::{c_int, c_uint};
use sinew_verbs_sys as sys;

macro_rules! polling {
    ( $( $name:ident = $c:literal ( $( $arg:ident : $type:ty ),* ) $( -> $return:ty )?; )* ) => {
        $(
            unsafe extern "C" fn $name(cq: *mut sys::ibv_cq_ex $(, $arg: $type )*) $( -> $return )? {
                // SAFETY: the caller's promise: a queue that is alive, arguments as the manual page asks for.
                unsafe {
                    let tape = note($c, |tape, line| {
                        line.push(' ');
                        cq.put(tape, line);
                        $( line.push(' '); $arg.put(tape, line); )*
                    });
                    let inner = behind(&tape, cq).$name;
                    drop(tape);
                    inner.expect("it was there when it was wrapped")(cq $(, $arg )*)
                }
            }
        )*

        /// Puts functions that record where there are functions.
        pub(super) fn patch(cq: &mut sys::ibv_cq_ex) {
            $( cq.$name = cq.$name.map(|_| $name as _); )*
        }
    };
}

/// The functions that the queue had.
fn behind(tape: &Tape, cq: *mut sys::ibv_cq_ex) -> sys::ibv_cq_ex {
    match tape.own.get(&cq.addr()) {
        Some(Own::Polling(own)) => *own,
        _ => panic!("its functions record since it was made"),
    }
}

polling! {
    start_poll = "ibv_start_poll"(attr: *mut sys::ibv_poll_cq_attr) -> c_int;
    next_poll = "ibv_next_poll"() -> c_int;
    end_poll = "ibv_end_poll"();
    read_opcode = "ibv_wc_read_opcode"() -> sys::IbvWcOpcode;
    read_vendor_err = "ibv_wc_read_vendor_err"() -> u32;
    read_byte_len = "ibv_wc_read_byte_len"() -> u32;
    read_imm_data = "ibv_wc_read_imm_data"() -> u32;
    read_qp_num = "ibv_wc_read_qp_num"() -> u32;
    read_src_qp = "ibv_wc_read_src_qp"() -> u32;
    read_wc_flags = "ibv_wc_read_wc_flags"() -> c_uint;
    read_slid = "ibv_wc_read_slid"() -> u32;
    read_sl = "ibv_wc_read_sl"() -> u8;
    read_dlid_path_bits = "ibv_wc_read_dlid_path_bits"() -> u8;
    read_completion_ts = "ibv_wc_read_completion_ts"() -> u64;
    read_completion_wallclock_ns = "ibv_wc_read_completion_wallclock_ns"() -> u64;
}
