//! The functions that record, each in front of another.
#![allow(unsafe_code)]

use super::argument::{Argument, bytes, pieces};
use super::tape::{self, Opened, Posting, Tape};
use core::ffi::{c_int, c_uint, c_void};
use core::fmt::Write as _;
use sinew_verbs_sys as sys;

/// The table whose functions write down what they are called with, and then call the other's.
pub(super) fn wrapped(inner: sys::VerbsTable) -> sys::Library {
    tape::begin(inner);
    let mut table = inner;
    wrap(&mut table);
    if inner.ibv_reg_mr_iova2.is_some() {
        table.ibv_reg_mr_iova2 = Some(ibv_reg_mr_iova2);
    }
    // SAFETY: the functions do what those behind them do.
    unsafe { sys::Library::from_table(table, None) }
}

// SAFETY: functions may be called from any thread, and the places that the library keeps for itself are not followed.
unsafe impl Send for Opened {}
// SAFETY: only its functions are used.
unsafe impl Send for Posting {}

/// What is done with what a function answered.
trait Answer: Copy {
    /// # Safety
    /// It is what the function answered.
    unsafe fn after(self, _: &mut Tape) {}
}

impl Answer for c_int {}
impl Answer for *mut sys::ibv_pd {}
impl Answer for *mut sys::ibv_cq {}
impl Answer for *mut sys::ibv_cq_ex {}
impl Answer for *mut sys::ibv_srq {}
impl Answer for *mut sys::ibv_ah {}
impl Answer for *mut sys::ibv_comp_channel {}

impl Answer for *mut sys::ibv_mr {
    unsafe fn after(self, tape: &mut Tape) {
        if !self.is_null() {
            // SAFETY: the caller's promise: a region that was just made.
            let (start, len) = unsafe { ((*self).addr.addr() as u64, (*self).length as u64) };
            tape.region(self.addr(), start, len);
        }
    }
}

impl Answer for *mut sys::ibv_context {
    unsafe fn after(self, tape: &mut Tape) {
        if self.is_null() {
            return;
        }
        // SAFETY: the caller's promise: a context that was just opened, and that nobody else has seen.
        unsafe {
            let ops = &mut (*self).ops;
            let mut opened = Opened { ops: *ops, create_cq_ex: None, create_qp_ex: None };
            ops.post_send = Some(post_send);
            ops.post_recv = Some(post_recv);
            ops.post_srq_recv = Some(post_srq_recv);
            ops.req_notify_cq = Some(req_notify_cq);
            let whole = sys::verbs_get_ctx(self);
            // Only a context whose library knew all that we know is patched: its structure is as long as ours.
            if !whole.is_null() && (*whole).sz >= size_of::<sys::verbs_context>() {
                opened.create_cq_ex = (*whole).create_cq_ex;
                opened.create_qp_ex = (*whole).create_qp_ex;
                (*whole).create_cq_ex = opened.create_cq_ex.map(|_| create_cq_ex as _);
                (*whole).create_qp_ex = opened.create_qp_ex.map(|_| create_qp_ex as _);
            }
            tape.opened.insert(self.addr(), opened);
        }
    }
}

impl Answer for *mut sys::ibv_qp {
    unsafe fn after(self, tape: &mut Tape) {
        let find = tape.inner.and_then(|inner| inner.ibv_qp_to_qp_ex);
        let Some(find) = find.filter(|_| !self.is_null()) else { return };
        // SAFETY: the caller's promise: a queue pair that was just made.
        unsafe {
            let ex = find(self);
            if !ex.is_null() {
                tape.posting.insert(ex.addr(), Posting(*ex));
                patch(&mut *ex);
            }
        }
    }
}

macro_rules! calls {
    ( $( $name:ident ( $( $arg:ident : $type:ty ),* ) -> $return:ty; )* ) => {
        $(
            unsafe extern "C" fn $name( $( $arg: $type ),* ) -> $return {
                let mut tape = tape::lock();
                let mut line = String::from(stringify!($name));
                $(
                    line.push(' ');
                    // SAFETY: the caller's promise: arguments as the manual page asks for.
                    unsafe { $arg.put(&mut tape, &mut line) };
                )*
                tape.lines.push(line);
                let inner = tape.inner.expect("a recording has begun").$name;
                drop(tape);
                // SAFETY: the caller's promise, passed on.
                let answer = unsafe { inner( $( $arg ),* ) };
                // SAFETY: it is what the function answered.
                unsafe { answer.after(&mut tape::lock()) };
                answer
            }
        )*

        fn wrap(table: &mut sys::VerbsTable) {
            $( table.$name = $name; )*
        }
    };
}

calls! {
    ibv_open_device(device: *mut sys::ibv_device) -> *mut sys::ibv_context;
    ibv_close_device(context: *mut sys::ibv_context) -> c_int;
    ibv_alloc_pd(context: *mut sys::ibv_context) -> *mut sys::ibv_pd;
    ibv_dealloc_pd(pd: *mut sys::ibv_pd) -> c_int;
    ibv_reg_mr(pd: *mut sys::ibv_pd, addr: *mut c_void, length: usize, access: c_int) -> *mut sys::ibv_mr;
    ibv_rereg_mr(mr: *mut sys::ibv_mr, flags: c_int, pd: *mut sys::ibv_pd, addr: *mut c_void, length: usize, access: c_int) -> c_int;
    ibv_dereg_mr(mr: *mut sys::ibv_mr) -> c_int;
    ibv_create_comp_channel(context: *mut sys::ibv_context) -> *mut sys::ibv_comp_channel;
    ibv_destroy_comp_channel(channel: *mut sys::ibv_comp_channel) -> c_int;
    ibv_create_cq(context: *mut sys::ibv_context, cqe: c_int, cq_context: *mut c_void, channel: *mut sys::ibv_comp_channel, comp_vector: c_int) -> *mut sys::ibv_cq;
    ibv_resize_cq(cq: *mut sys::ibv_cq, cqe: c_int) -> c_int;
    ibv_destroy_cq(cq: *mut sys::ibv_cq) -> c_int;
    ibv_create_srq(pd: *mut sys::ibv_pd, init: *mut sys::ibv_srq_init_attr) -> *mut sys::ibv_srq;
    ibv_modify_srq(srq: *mut sys::ibv_srq, attr: *mut sys::ibv_srq_attr, mask: c_int) -> c_int;
    ibv_destroy_srq(srq: *mut sys::ibv_srq) -> c_int;
    ibv_create_qp(pd: *mut sys::ibv_pd, init: *mut sys::ibv_qp_init_attr) -> *mut sys::ibv_qp;
    ibv_modify_qp(qp: *mut sys::ibv_qp, attr: *mut sys::ibv_qp_attr, mask: c_int) -> c_int;
    ibv_destroy_qp(qp: *mut sys::ibv_qp) -> c_int;
    ibv_attach_mcast(qp: *mut sys::ibv_qp, gid: *const sys::ibv_gid, lid: u16) -> c_int;
    ibv_detach_mcast(qp: *mut sys::ibv_qp, gid: *const sys::ibv_gid, lid: u16) -> c_int;
    ibv_create_ah(pd: *mut sys::ibv_pd, attr: *mut sys::ibv_ah_attr) -> *mut sys::ibv_ah;
    ibv_destroy_ah(ah: *mut sys::ibv_ah) -> c_int;
}

unsafe extern "C" fn ibv_reg_mr_iova2(
    pd: *mut sys::ibv_pd,
    addr: *mut c_void,
    length: usize,
    iova: u64,
    access: c_uint,
) -> *mut sys::ibv_mr {
    let mut tape = tape::lock();
    let mut line = String::from("ibv_reg_mr_iova2 ");
    tape.object("pd", pd.addr(), &mut line);
    let same = iova == addr.addr() as u64;
    let _ = write!(line, " some {length:#x} iova={} {access:#x}", if same { "addr" } else { "other" });
    tape.lines.push(line);
    let inner =
        tape.inner.and_then(|inner| inner.ibv_reg_mr_iova2).expect("it was there when it was wrapped");
    drop(tape);
    // SAFETY: the caller's promise, passed on.
    let mr = unsafe { inner(pd, addr, length, iova, access) };
    // SAFETY: it is what the function answered.
    unsafe { mr.after(&mut tape::lock()) };
    mr
}

/// Writes a line and answers the functions of the device that a context is of.
///
/// # Safety
/// The arguments are as the manual page asks for.
unsafe fn note(
    context: *mut sys::ibv_context,
    name: &str,
    write: impl FnOnce(&mut Tape, &mut String),
) -> Opened {
    let mut tape = tape::lock();
    let mut line = format!("{name} ");
    write(&mut tape, &mut line);
    tape.lines.push(line);
    *tape.opened.get(&context.addr()).expect("its functions record since it was opened")
}

macro_rules! ops {
    ( $( $name:ident ( $object:ident : $object_type:ty, $( $arg:ident : $type:ty ),* ) [ $( $noted:expr ),* ] -> $return:ty; )* ) => { $(
        unsafe extern "C" fn $name($object: $object_type, $( $arg: $type ),* ) -> $return {
            // SAFETY: the caller's promise: objects that are alive, arguments as the manual page asks for.
            unsafe {
                let opened = note((*$object).context, concat!("ibv_", stringify!($name)), |tape, line| {
                    $object.put(tape, line);
                    $( line.push(' '); $noted.put(tape, line); )*
                });
                opened.ops.$name.expect("it was there when it was wrapped")($object, $( $arg ),*)
            }
        }
    )* };
}

ops! {
    post_send(qp: *mut sys::ibv_qp, list: *mut sys::ibv_send_wr, bad: *mut *mut sys::ibv_send_wr) [(list, (*qp).qp_type)] -> c_int;
    post_recv(qp: *mut sys::ibv_qp, list: *mut sys::ibv_recv_wr, bad: *mut *mut sys::ibv_recv_wr) [list] -> c_int;
    post_srq_recv(srq: *mut sys::ibv_srq, list: *mut sys::ibv_recv_wr, bad: *mut *mut sys::ibv_recv_wr) [list] -> c_int;
    req_notify_cq(cq: *mut sys::ibv_cq, solicited_only: c_int) [solicited_only] -> c_int;
}

macro_rules! extended {
    ( $( $name:ident ( $attr:ty ) -> $return:ty; )* ) => { $(
        unsafe extern "C" fn $name(context: *mut sys::ibv_context, attr: *mut $attr) -> $return {
            // SAFETY: the caller's promise: a context that is open, and its attributes.
            unsafe {
                let opened = note(context, concat!("ibv_", stringify!($name)), |tape, line| {
                    context.put(tape, line);
                    line.push(' ');
                    attr.put(tape, line);
                });
                let answer = opened.$name.expect("it was there when it was wrapped")(context, attr);
                answer.after(&mut tape::lock());
                answer
            }
        }
    )* };
}

extended! {
    create_cq_ex(sys::ibv_cq_init_attr_ex) -> *mut sys::ibv_cq_ex;
    create_qp_ex(sys::ibv_qp_init_attr_ex) -> *mut sys::ibv_qp;
}

macro_rules! posting {
    ( $( $name:ident ( $( $arg:ident : $type:ty ),* ) $( $with:ident )? $( -> $return:ty )?; )* ) => {
        $(
            unsafe extern "C" fn $name(qp: *mut sys::ibv_qp_ex $(, $arg: $type )*) $( -> $return )? {
                let mut tape = tape::lock();
                let mut line = String::from(concat!("ibv_", stringify!($name), " "));
                // SAFETY: the caller's promise: a queue pair that is alive, arguments as the manual page asks for.
                unsafe {
                    qp.put(&mut tape, &mut line);
                    $(
                        let _ = write!(line, concat!(" ", stringify!($with), "={:#x},{:#x}"), (*qp).wr_id, (*qp).wr_flags);
                    )?
                    $( line.push(' '); $arg.put(&mut tape, &mut line); )*
                }
                tape.lines.push(line);
                let inner = tape.posting.get(&qp.addr()).and_then(|posting| posting.0.$name);
                drop(tape);
                // SAFETY: as above, passed on.
                unsafe { inner.expect("it was there when it was wrapped")(qp $(, $arg )*) }
            }
        )*

        /// Puts functions that record where there are functions.
        fn patch(qp: &mut sys::ibv_qp_ex) {
            $( qp.$name = qp.$name.map(|_| $name as _); )*
            qp.wr_set_inline_data = qp.wr_set_inline_data.map(|_| wr_set_inline_data as _);
            qp.wr_set_inline_data_list = qp.wr_set_inline_data_list.map(|_| wr_set_inline_data_list as _);
            qp.wr_set_sge_list = qp.wr_set_sge_list.map(|_| wr_set_sge_list as _);
        }
    };
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
    wr_set_sge(lkey: u32, addr: u64, len: u32);
}

/// Writes a line and answers how a queue pair posts.
fn note_posting(qp: *mut sys::ibv_qp_ex, name: &str, write: impl FnOnce(&mut Tape, &mut String)) -> Posting {
    let mut tape = tape::lock();
    let mut line = format!("{name} ");
    tape.object("qp", qp.addr(), &mut line);
    line.push(' ');
    write(&mut tape, &mut line);
    tape.lines.push(line);
    *tape.posting.get(&qp.addr()).expect("its functions record since it was made")
}

unsafe extern "C" fn wr_set_inline_data(qp: *mut sys::ibv_qp_ex, addr: *mut c_void, len: usize) {
    // SAFETY: the caller's promise: so many bytes, and a queue pair that is alive.
    unsafe {
        let posting = note_posting(qp, "ibv_wr_set_inline_data", |_, line| bytes(addr, len, line));
        posting.0.wr_set_inline_data.expect("it was there when it was wrapped")(qp, addr, len);
    }
}

unsafe extern "C" fn wr_set_inline_data_list(
    qp: *mut sys::ibv_qp_ex,
    count: usize,
    list: *const sys::ibv_data_buf,
) {
    // SAFETY: the caller's promise: so many buffers, and a queue pair that is alive.
    unsafe {
        let posting = note_posting(qp, "ibv_wr_set_inline_data_list", |_, line| {
            (0..count).for_each(|at| bytes((*list.add(at)).addr, (*list.add(at)).length, line));
        });
        posting.0.wr_set_inline_data_list.expect("it was there when it was wrapped")(qp, count, list);
    }
}

unsafe extern "C" fn wr_set_sge_list(qp: *mut sys::ibv_qp_ex, count: usize, list: *const sys::ibv_sge) {
    // SAFETY: the caller's promise: so many pieces, and a queue pair that is alive.
    unsafe {
        let posting = note_posting(qp, "ibv_wr_set_sge_list", |tape, line| pieces(list, count, tape, line));
        posting.0.wr_set_sge_list.expect("it was there when it was wrapped")(qp, count, list);
    }
}
