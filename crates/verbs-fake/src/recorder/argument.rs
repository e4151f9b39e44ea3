//! How arguments are written down: numbers in hexadecimal, objects by name, structures field by field, every field.
//!
//! Not written: the bytes between fields, and members of unions that the operation does not name.
#![allow(unsafe_code)]

use super::tape::Tape;
use core::ffi::{c_int, c_void};
use core::fmt::Write as _;
use sinew_verbs_sys as sys;

/// An argument of a recorded function.
pub(super) trait Argument {
    /// Writes it down.
    ///
    /// # Safety
    /// It is as the manual page of its function asks for.
    unsafe fn put(self, tape: &mut Tape, out: &mut String);
}

macro_rules! numbers {
    ( $( $type:ty ),* ) => { $( impl Argument for $type {
        unsafe fn put(self, _: &mut Tape, out: &mut String) {
            let _ = write!(out, "{self:#x}");
        }
    } )* };
}

macro_rules! codes {
    ( $( $type:ty ),* ) => { $( impl Argument for $type {
        unsafe fn put(self, _: &mut Tape, out: &mut String) {
            let _ = write!(out, "{:#x}", self.0);
        }
    } )* };
}

macro_rules! objects {
    ( $( $type:ty = $kind:literal ),* $(,)? ) => { $( impl Argument for *mut $type {
        unsafe fn put(self, tape: &mut Tape, out: &mut String) {
            tape.object($kind, self.addr(), out);
        }
    } )* };
}

/// A field that is left out does not compile.
macro_rules! structures {
    ( $( $type:ident { $( $field:ident ),* } )* ) => { $(
        impl Argument for sys::$type {
            unsafe fn put(self, tape: &mut Tape, out: &mut String) {
                let Self { $( $field ),* } = self;
                out.push('{');
                $(
                    let _ = write!(out, concat!(" ", stringify!($field), "="));
                    // SAFETY: the caller's promise.
                    unsafe { $field.put(tape, out) };
                )*
                out.push_str(" }");
            }
        }

        impl Argument for *mut sys::$type {
            unsafe fn put(self, tape: &mut Tape, out: &mut String) {
                if self.is_null() {
                    return out.push_str("null");
                }
                // SAFETY: the caller's promise: such a structure is there.
                unsafe { (*self).put(tape, out) };
            }
        }

        impl Argument for *const sys::$type {
            unsafe fn put(self, tape: &mut Tape, out: &mut String) {
                // SAFETY: the caller's promise.
                unsafe { self.cast_mut().put(tape, out) };
            }
        }
    )* };
}

numbers!(u8, u16, u32, c_int, usize, libc::c_long);
codes!(
    sys::IbvQpType,
    sys::IbvQpState,
    sys::IbvMtu,
    sys::IbvMigState,
    sys::IbvWrOpcode,
    sys::IbvMwType,
    sys::IbvSrqType,
    sys::IbvAdviseMrAdvice,
    sys::IbvWcStatus,
    sys::IbvWcOpcode,
    sys::IbvEventType
);

objects! {
    sys::ibv_device = "device",
    sys::ibv_context = "context",
    sys::ibv_pd = "pd",
    sys::ibv_xrcd = "xrcd",
    sys::ibv_rwq_ind_table = "table",
    sys::ibv_mr = "mr",
    sys::ibv_mw = "mw",
    sys::ibv_dm = "dm",
    sys::ibv_td = "td",
    sys::ibv_flow = "flow",
    sys::ibv_cq = "cq",
    sys::ibv_cq_ex = "cq",
    sys::ibv_comp_channel = "channel",
    sys::ibv_srq = "srq",
    sys::ibv_ah = "ah",
    sys::ibv_qp = "qp",
    sys::ibv_qp_ex = "qp",
}

structures! {
    ibv_qp_cap { max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data }
    ibv_qp_init_attr { qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all }
    ibv_qp_init_attr_ex {
        qp_context, send_cq, recv_cq, srq, cap, qp_type, sq_sig_all, comp_mask, pd, xrcd, create_flags,
        max_tso_header, rwq_ind_tbl, rx_hash_conf, source_qpn, send_ops_flags
    }
    ibv_cq_init_attr_ex {
        cqe, cq_context, channel, comp_vector, wc_flags, comp_mask, flags, parent_domain
    }
    ibv_rx_hash_conf { rx_hash_function, rx_hash_key_len, rx_hash_key, rx_hash_fields_mask }
    ibv_srq_attr { max_wr, max_sge, srq_limit }
    ibv_srq_init_attr { srq_context, attr }
    ibv_tm_cap { max_num_tags, max_ops }
    ibv_srq_init_attr_ex { srq_context, attr, comp_mask, srq_type, pd, xrcd, cq, tm_cap }
    ibv_xrcd_init_attr { comp_mask, fd, oflags }
    ibv_send_wr_xrc { remote_srqn }
    ibv_global_route { dgid, flow_label, sgid_index, hop_limit, traffic_class }
    ibv_ah_attr { grh, dlid, sl, src_path_bits, static_rate, is_global, port_num }
    ibv_qp_attr {
        qp_state, cur_qp_state, path_mtu, path_mig_state, qkey, rq_psn, sq_psn, dest_qp_num, qp_access_flags, cap,
        ah_attr, alt_ah_attr, pkey_index, alt_pkey_index, en_sqd_async_notify, sq_draining, max_rd_atomic,
        max_dest_rd_atomic, min_rnr_timer, port_num, timeout, retry_cnt, rnr_retry, alt_port_num, alt_timeout,
        rate_limit
    }
    ibv_sge { addr, length, lkey }
    ibv_mw_bind_info { mr, addr, length, mw_access_flags }
    ibv_send_wr_rdma { remote_addr, rkey }
    ibv_send_wr_atomic { remote_addr, compare_add, swap, rkey }
    ibv_send_wr_ud { ah, remote_qpn, remote_qkey }
    ibv_send_wr_bind_mw { mw, rkey, bind_info }
    ibv_grh { version_tclass_flow, paylen, next_hdr, hop_limit, sgid, dgid }
    ibv_wc {
        wr_id, status, opcode, vendor_err, byte_len, imm_data, qp_num, src_qp, wc_flags, pkey_index, slid, sl, dlid_path_bits
    }
    ibv_mw_bind { wr_id, send_flags, bind_info }
    ibv_alloc_dm_attr { length, log_align_req, comp_mask }
    ibv_poll_cq_attr { comp_mask }
    ibv_moderate_cq { cq_count, cq_period }
    ibv_modify_cq_attr { attr_mask, moderate }
    ibv_qp_rate_limit_attr { rate_limit, max_burst_sz, typical_pkt_sz, comp_mask }
    ibv_ece { vendor_id, options, comp_mask }
    ibv_td_init_attr { comp_mask }
    ibv_query_device_ex_input { comp_mask }
    efadv_qp_init_attr { comp_mask, driver_qp_type, flags, sl, reserved, wr_flags }
}

impl Argument for u64 {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        tape.address(self, out);
    }
}

/// Memory that has a name, by that; what a program keeps with an object, whether it is null.
impl Argument for *mut c_void {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        if !tape.named(self.addr() as u64, out) {
            out.push_str(if self.is_null() { "null" } else { "some" });
        }
    }
}

impl Argument for *mut u8 {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        // SAFETY: the caller's promise.
        unsafe { self.cast::<c_void>().put(tape, out) };
    }
}

/// A place for an answer.
impl<T> Argument for *mut *mut T {
    unsafe fn put(self, _: &mut Tape, out: &mut String) {
        out.push_str(if self.is_null() { "null" } else { "out" });
    }
}

impl Argument for sys::ibv_gid {
    unsafe fn put(self, _: &mut Tape, out: &mut String) {
        let _ = write!(out, "{self:?}");
    }
}

impl Argument for *const sys::ibv_gid {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        // SAFETY: the caller's promise.
        unsafe { (*self).put(tape, out) };
    }
}

/// A place for an answer.
pub(super) struct Place<T>(pub(super) *mut T);

impl<T> Argument for Place<T> {
    unsafe fn put(self, _: &mut Tape, out: &mut String) {
        out.push_str(if self.0.is_null() { "null" } else { "out" });
    }
}

/// A structure that the caller may know less of: so many bytes of it, and zeros.
pub(super) struct Known(pub(super) *mut sys::efadv_qp_init_attr, pub(super) u32);

impl Argument for Known {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        let mut whole = sys::efadv_qp_init_attr::zeroed();
        let len = (self.1 as usize).min(size_of_val(&whole));
        // SAFETY: the caller's promise: so many bytes are there; the structure is numbers.
        unsafe {
            core::ptr::copy_nonoverlapping(self.0.cast::<u8>(), (&raw mut whole).cast(), len);
            whole.put(tape, out);
        }
    }
}

/// So many pieces.
#[derive(Clone, Copy)]
pub(super) struct Pieces(pub(super) *const sys::ibv_sge, pub(super) usize);

impl Argument for Pieces {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        // SAFETY: the caller's promise.
        unsafe { pieces(self.0, self.1, tape, out) };
    }
}

/// So many bytes, which are shown for the time of the call.
#[derive(Clone, Copy)]
pub(super) struct Bytes(pub(super) *const c_void, pub(super) usize);

impl Argument for Bytes {
    unsafe fn put(self, _: &mut Tape, out: &mut String) {
        // SAFETY: the caller's promise.
        unsafe { bytes(self.0, self.1, out) };
    }
}

/// An address that the device gets as a number of its own.
#[derive(Clone, Copy)]
pub(super) struct Address(pub(super) u64);

impl Argument for Address {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        tape.address(self.0, out);
    }
}

/// A thread domain's allocator is the program's own.
impl Argument for *mut sys::ibv_parent_domain_init_attr {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        // SAFETY: the caller's promise: such a structure is there.
        unsafe {
            let sys::ibv_parent_domain_init_attr { pd, td, comp_mask, alloc, free, pd_context } = *self;
            out.push_str("{ pd=");
            pd.put(tape, out);
            out.push_str(" td=");
            td.put(tape, out);
            let own = (alloc.is_some(), free.is_some(), pd_context.is_null());
            let _ = write!(out, " comp_mask={comp_mask:#x} own={own:?} }}");
        }
    }
}

/// An event that is acknowledged: of an object, or of a port or device.
impl Argument for *mut sys::ibv_async_event {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        // SAFETY: the caller's promise: an event that was got, whose element was written as a whole.
        unsafe {
            let sys::ibv_async_event { element, event_type } = *self;
            event_type.put(tape, out);
            match tape.known(element.qp.addr()) {
                Some((kind, number)) => write!(out, " {kind}#{number}"),
                None => write!(out, " {:#x}", element.port_num),
            }
            .unwrap_or_default();
        }
    }
}

/// A rule of steering: its head, and every byte of its layers.
impl Argument for *mut sys::ibv_flow_attr {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        // SAFETY: the caller's promise: a rule, whose size says how long its layers are. Bytes between fields are zero, as both sides write them.
        unsafe {
            let sys::ibv_flow_attr { comp_mask, r#type, size, priority, num_of_specs, port, flags } = *self;
            for number in
                [comp_mask, r#type.0, size.into(), priority.into(), num_of_specs.into(), port.into(), flags]
            {
                number.put(tape, out);
                out.push(' ');
            }
            let layers = usize::from(size).saturating_sub(size_of::<sys::ibv_flow_attr>());
            bytes(self.add(1).cast(), layers, out);
        }
    }
}

/// What values of a device are wanted.
impl Argument for *mut sys::ibv_values_ex {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        // SAFETY: the caller's promise: such a structure is there.
        unsafe { (*self).comp_mask.put(tape, out) };
    }
}

/// Writes so many pieces.
///
/// # Safety
/// So many are there.
unsafe fn pieces(list: *const sys::ibv_sge, count: usize, tape: &mut Tape, out: &mut String) {
    out.push('[');
    for at in 0..count {
        // SAFETY: the caller's promise.
        unsafe { (*list.add(at)).put(tape, out) };
    }
    out.push(']');
}

/// Writes bytes that are shown for the time of the call.
///
/// # Safety
/// So many are there.
unsafe fn bytes(addr: *const c_void, len: usize, out: &mut String) {
    out.push('<');
    for at in 0..len {
        // SAFETY: the caller's promise.
        let _ = write!(out, "{:02x}", unsafe { *addr.cast::<u8>().add(at) });
    }
    out.push('>');
}

/// A list of send requests. Which members of the unions count is said by the opcode, and a datagram by its address handle's place.
impl Argument for (*mut sys::ibv_send_wr, sys::IbvQpType) {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        use sys::IbvWrOpcode as Wr;
        let (mut next, kind) = self;
        while !next.is_null() {
            // SAFETY: the caller's promise: a list of requests, whose opcodes say which members are valid.
            unsafe {
                let wr = &*next;
                let _ = write!(
                    out,
                    "{{ wr_id={:#x} opcode={:#x} send_flags={:#x} imm_data={:#x} num_sge={} sg_list=",
                    wr.wr_id, wr.opcode.0, wr.send_flags, wr.imm_data, wr.num_sge
                );
                let count = usize::try_from(wr.num_sge).unwrap_or(0);
                if wr.send_flags & sys::IBV_SEND_INLINE == 0 {
                    pieces(wr.sg_list, count, tape, out);
                } else {
                    for at in 0..count {
                        let piece = *wr.sg_list.add(at);
                        let from = usize::try_from(piece.addr).unwrap_or(0);
                        bytes(core::ptr::with_exposed_provenance(from), piece.length as usize, out);
                    }
                }
                out.push_str(" wr=");
                match wr.opcode {
                    Wr::RDMA_WRITE | Wr::RDMA_WRITE_WITH_IMM | Wr::RDMA_READ => wr.wr.rdma.put(tape, out),
                    Wr::ATOMIC_CMP_AND_SWP | Wr::ATOMIC_FETCH_AND_ADD => wr.wr.atomic.put(tape, out),
                    Wr::BIND_MW => wr.more.bind_mw.put(tape, out),
                    _ if [sys::IbvQpType::UD, sys::IbvQpType::DRIVER].contains(&kind) => {
                        wr.wr.ud.put(tape, out)
                    }
                    _ => out.push('-'),
                }
                if kind == sys::IbvQpType::XRC_SEND {
                    wr.qp_type.xrc.put(tape, out);
                }
                out.push_str(" }");
                next = wr.next;
            }
        }
    }
}

/// A list of receive requests.
impl Argument for *mut sys::ibv_recv_wr {
    unsafe fn put(self, tape: &mut Tape, out: &mut String) {
        let mut next = self;
        while !next.is_null() {
            // SAFETY: the caller's promise: a list of requests.
            unsafe {
                let wr = &*next;
                let _ = write!(out, "{{ wr_id={:#x} num_sge={} sg_list=", wr.wr_id, wr.num_sge);
                pieces(wr.sg_list, usize::try_from(wr.num_sge).unwrap_or(0), tape, out);
                out.push_str(" }");
                next = wr.next;
            }
        }
    }
}
