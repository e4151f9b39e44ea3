//! The functions by which an extended queue pair posts, which record.
#![allow(unsafe_code)]

use super::argument::{Argument, Bytes, Pieces};
use super::functions::note;
use super::tape::{Own, Tape};
use core::ffi::{c_int, c_void};
use core::fmt::Write as _;
use sinew_verbs_sys as sys;

macro_rules! posting {
    ( $( $name:ident ( $( $arg:ident : $type:ty ),* ) $( [ $( $noted:expr ),* ] )? $( $with:ident )? $( -> $return:ty )?; )* ) => {
        $(
            unsafe extern "C" fn $name(qp: *mut sys::ibv_qp_ex $(, $arg: $type )*) $( -> $return )? {
                // SAFETY: the caller's promise: a queue pair that is alive, arguments as the manual page asks for.
                unsafe {
                    let tape = note(concat!("ibv_", stringify!($name)), |tape, line| {
                        line.push(' ');
                        qp.put(tape, line);
                        $(
                            let _ = write!(line, concat!(" ", stringify!($with), "={:#x},{:#x}"), (*qp).wr_id, (*qp).wr_flags);
                        )?
                        posting!(@noted tape, line, [ $( $arg ),* ] $( [ $( $noted ),* ] )?);
                    });
                    let inner = behind(&tape, qp).$name;
                    drop(tape);
                    inner.expect("it was there when it was wrapped")(qp $(, $arg )*)
                }
            }
        )*

        /// Puts functions that record where there are functions.
        pub(super) fn patch(qp: &mut sys::ibv_qp_ex) {
            $( qp.$name = qp.$name.map(|_| $name as _); )*
        }
    };
    (@noted $tape:ident, $line:ident, $args:tt [ $( $noted:expr ),* ]) => {
        $( $line.push(' '); $noted.put($tape, $line); )*
    };
    (@noted $tape:ident, $line:ident, [ $( $arg:ident ),* ]) => {
        $( $line.push(' '); $arg.put($tape, $line); )*
    };
}

/// The functions that the queue pair had.
fn behind(tape: &Tape, qp: *mut sys::ibv_qp_ex) -> sys::ibv_qp_ex {
    match tape.own.get(&qp.addr()) {
        Some(Own::Posting(own)) => *own,
        _ => panic!("its functions record since it was made"),
    }
}

posting! {
    wr_start();
    wr_complete() -> c_int;
    wr_abort();
    wr_send() request;
    wr_send_imm(imm: u32) request;
    wr_send_inv(rkey: u32) request;
    wr_rdma_write(rkey: u32, addr: u64) request;
    wr_rdma_write_imm(rkey: u32, addr: u64, imm: u32) request;
    wr_rdma_read(rkey: u32, addr: u64) request;
    wr_atomic_cmp_swp(rkey: u32, addr: u64, compare: u64, swap: u64) request;
    wr_atomic_fetch_add(rkey: u32, addr: u64, add: u64) request;
    wr_local_inv(rkey: u32) request;
    wr_bind_mw(mw: *mut sys::ibv_mw, rkey: u32, info: *const sys::ibv_mw_bind_info) request;
    wr_set_ud_addr(ah: *mut sys::ibv_ah, qp_num: u32, qkey: u32);
    wr_set_xrc_srqn(number: u32);
    wr_set_sge(lkey: u32, addr: u64, len: u32);
    wr_set_sge_list(count: usize, list: *const sys::ibv_sge) [Pieces(list, count)];
    wr_set_inline_data(addr: *mut c_void, len: usize) [Bytes(addr, len)];
    wr_set_inline_data_list(count: usize, list: *const sys::ibv_data_buf) [Buffers(list, count)];
}

/// So many buffers, each with its bytes.
#[derive(Clone, Copy)]
struct Buffers(*const sys::ibv_data_buf, usize);

impl Argument for Buffers {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        for at in 0..self.1 {
            // SAFETY: the caller's promise.
            unsafe {
                let sys::ibv_data_buf { addr, length } = *self.0.add(at);
                Bytes(addr, length).put(tape, out);
            }
        }
    }
}
