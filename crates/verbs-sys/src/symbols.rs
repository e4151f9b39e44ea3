//! The functions that the libraries export: one row each, with the version it is pinned to.
//!
//! Filled by `library.rs` from the system's libraries or by whoever brings a device of their own. Versions matter: libibverbs
//! exports 33 functions twice, and the older twins take other structures. What C programs call beside these are inlines, which
//! are in `inline/`. Each row says what its function answers when it fails; [`Errno`](crate::Errno) judges that.
//!
//! Who fills a table by hand takes [`VerbsTable::unsupported`] and replaces functions; which fields the objects need is said at
//! [`ibv_context`](crate::ibv_context), [`verbs_context`](crate::verbs_context), [`ibv_qp_ex`](crate::ibv_qp_ex),
//! [`ibv_cq_ex`](crate::ibv_cq_ex).

use crate::ah::{IbvRate, ibv_ah, ibv_ah_attr, ibv_gid, ibv_grh};
use crate::async_event::{IbvEventType, ibv_async_event};
use crate::channel::ibv_comp_channel;
use crate::context::ibv_context;
use crate::counters::{
    ibv_comp_cntr, ibv_comp_cntr_caps, ibv_comp_cntr_init_attr, ibv_qp_attach_comp_cntr_attr,
};
use crate::cq::ibv_cq;
use crate::device::{IbvForkStatus, IbvNodeType, ibv_device, ibv_device_attr};
use crate::mr::{ibv_buf, ibv_dm, ibv_dmah, ibv_dmah_init_attr, ibv_mr, ibv_mr_init_attr};
use crate::pd::ibv_pd;
use crate::port::{IbvPortState, ibv_gid_entry, ibv_port_attr};
use crate::qp::{ibv_ece, ibv_qp, ibv_qp_attr, ibv_qp_init_attr};
use crate::qp_ex::ibv_qp_ex;
use crate::srq::{ibv_srq, ibv_srq_attr, ibv_srq_init_attr};
use crate::table::{Source, Symbol, table};
use crate::wc::{IbvWcStatus, ibv_wc};
use crate::wr::IbvWrOpcode;
use core::ffi::{c_char, c_int, c_uint, c_void};

table! {
    /// The functions that libibverbs exports.
    pub struct VerbsTable {
        /// Devices, ended by null; null and errno.
        required "IBVERBS_1.1" fn ibv_get_device_list(num_devices: *mut c_int) -> *mut *mut ibv_device;
        /// Frees the list; devices that were opened stay valid.
        required "IBVERBS_1.1" fn ibv_free_device_list(list: *mut *mut ibv_device);
        /// Name in the kernel, or null.
        required "IBVERBS_1.1" fn ibv_get_device_name(device: *mut ibv_device) -> *const c_char;
        /// Big-endian; 0 on failure.
        required "IBVERBS_1.1" fn ibv_get_device_guid(device: *mut ibv_device) -> u64;
        /// Number of the device in the kernel, or -1.
        optional "IBVERBS_1.9" fn ibv_get_device_index(device: *mut ibv_device) -> c_int, "the index of a device";
        /// Null and errno.
        required "IBVERBS_1.1" fn ibv_open_device(device: *mut ibv_device) -> *mut ibv_context;
        /// 0, or -1 and errno.
        required "IBVERBS_1.1" fn ibv_close_device(context: *mut ibv_context) -> c_int;
        /// Null and errno.
        optional "IBVERBS_1.10" fn ibv_import_device(cmd_fd: c_int) -> *mut ibv_context, "sharing a device between processes";

        /// 0 or the error number. Fills the legacy attributes.
        required "IBVERBS_1.1" fn ibv_query_device(context: *mut ibv_context, device_attr: *mut ibv_device_attr) -> c_int;
        /// 0 or the error number. Fills all but the last two fields: call [`query_port`](Self::query_port).
        required "IBVERBS_1.1" fn ibv_query_port(context: *mut ibv_context, port_num: u8, port_attr: *mut ibv_port_attr) -> c_int;
        /// 0 or the error number; the speed is in 100 Mbit/s.
        optional "IBVERBS_1.16" fn ibv_query_port_speed(context: *mut ibv_context, port_num: u32, port_speed: *mut u64) -> c_int, "the effective speed of a port";
        /// 0, or -1 and errno.
        required "IBVERBS_1.1" fn ibv_query_gid(context: *mut ibv_context, port_num: u8, index: c_int, gid: *mut ibv_gid) -> c_int;
        /// 0 or the error number (`ENODATA`: an empty row). Call [`query_gid_ex`](Self::query_gid_ex).
        optional "IBVERBS_1.11" fn _ibv_query_gid_ex(context: *mut ibv_context, port_num: u32, gid_index: u32, entry: *mut ibv_gid_entry, flags: u32, entry_size: usize) -> c_int, "types and network devices of GIDs";
        /// A count, or the error number negated. Call [`query_gid_table`](Self::query_gid_table).
        optional "IBVERBS_1.11" fn _ibv_query_gid_table(context: *mut ibv_context, entries: *mut ibv_gid_entry, max_entries: usize, flags: u32, entry_size: usize) -> isize, "types and network devices of GIDs";
        /// 0, or -1 and errno; the key is big-endian.
        required "IBVERBS_1.1" fn ibv_query_pkey(context: *mut ibv_context, port_num: u8, index: c_int, pkey: *mut u16) -> c_int;
        /// The row of a key (big-endian), or -1 and errno.
        optional "IBVERBS_1.5" fn ibv_get_pkey_index(context: *mut ibv_context, port_num: u8, pkey: u16) -> c_int, "looking up partition keys";

        /// 0, or -1 and errno. Blocks unless `async_fd` does not.
        required "IBVERBS_1.1" fn ibv_get_async_event(context: *mut ibv_context, event: *mut ibv_async_event) -> c_int;
        /// Once for each event that was got.
        required "IBVERBS_1.1" fn ibv_ack_async_event(event: *mut ibv_async_event);

        /// Null and errno.
        required "IBVERBS_1.1" fn ibv_alloc_pd(context: *mut ibv_context) -> *mut ibv_pd;
        /// 0 or the error number (`EBUSY`: something still uses it).
        required "IBVERBS_1.1" fn ibv_dealloc_pd(pd: *mut ibv_pd) -> c_int;
        /// Null and errno.
        optional "IBVERBS_1.10" fn ibv_import_pd(context: *mut ibv_context, pd_handle: u32) -> *mut ibv_pd, "sharing a device between processes";
        /// Leaves the domain to the process that exported it.
        optional "IBVERBS_1.10" fn ibv_unimport_pd(pd: *mut ibv_pd), "sharing a device between processes";

        /// Null and errno. Call [`reg_mr`](Self::reg_mr), which knows about optional access bits.
        required "IBVERBS_1.1" fn ibv_reg_mr(pd: *mut ibv_pd, addr: *mut c_void, length: usize, access: c_int) -> *mut ibv_mr;
        /// Null and errno. Call [`reg_mr_iova`](Self::reg_mr_iova), which knows about optional access bits.
        optional "IBVERBS_1.7" fn ibv_reg_mr_iova(pd: *mut ibv_pd, addr: *mut c_void, length: usize, iova: u64, access: c_int) -> *mut ibv_mr, "memory regions at other addresses";
        /// Null and errno.
        optional "IBVERBS_1.8" fn ibv_reg_mr_iova2(pd: *mut ibv_pd, addr: *mut c_void, length: usize, iova: u64, access: c_uint) -> *mut ibv_mr, "optional access bits, as relaxed ordering";
        /// Null and errno.
        optional "IBVERBS_1.12" fn ibv_reg_dmabuf_mr(pd: *mut ibv_pd, offset: u64, length: usize, iova: u64, fd: c_int, access: c_int) -> *mut ibv_mr, "memory of other devices (DMA-BUF)";
        /// Null and errno.
        optional "IBVERBS_1.15" fn ibv_reg_mr_ex(pd: *mut ibv_pd, mr_init_attr: *mut ibv_mr_init_attr) -> *mut ibv_mr, "memory regions with hints of placement";
        /// 0, or an [`IbvReregMrErrCode`](crate::IbvReregMrErrCode) and errno.
        required "IBVERBS_1.1" fn ibv_rereg_mr(mr: *mut ibv_mr, flags: c_int, pd: *mut ibv_pd, addr: *mut c_void, length: usize, access: c_int) -> c_int;
        /// 0 or the error number.
        required "IBVERBS_1.1" fn ibv_dereg_mr(mr: *mut ibv_mr) -> c_int;
        /// Null and errno.
        optional "IBVERBS_1.10" fn ibv_import_mr(pd: *mut ibv_pd, mr_handle: u32) -> *mut ibv_mr, "sharing a device between processes";
        /// Leaves the region to the process that exported it.
        optional "IBVERBS_1.10" fn ibv_unimport_mr(mr: *mut ibv_mr), "sharing a device between processes";
        /// Null and errno.
        optional "IBVERBS_1.13" fn ibv_import_dm(context: *mut ibv_context, dm_handle: u32) -> *mut ibv_dm, "sharing device memory between processes";
        /// Leaves the memory to the process that exported it.
        optional "IBVERBS_1.13" fn ibv_unimport_dm(dm: *mut ibv_dm), "sharing device memory between processes";
        /// A descriptor, or -1 and errno.
        optional "IBVERBS_1.16" fn ibv_dm_export_dmabuf_fd(dm: *mut ibv_dm) -> c_int, "device memory as DMA-BUF";
        /// Null and errno.
        optional "IBVERBS_1.15" fn ibv_alloc_dmah(context: *mut ibv_context, attr: *mut ibv_dmah_init_attr) -> *mut ibv_dmah, "hints of placement";
        /// 0 or the error number.
        optional "IBVERBS_1.15" fn ibv_dealloc_dmah(dmah: *mut ibv_dmah) -> c_int, "hints of placement";
        /// Null and errno.
        optional "IBVERBS_1.17" fn ibv_alloc_buf(pd: *mut ibv_pd, size: usize, buf: *mut *mut ibv_buf) -> *mut c_void, "buffers that a driver allocates";
        /// After every region of it is gone.
        optional "IBVERBS_1.17" fn ibv_free_buf(buf: *mut ibv_buf), "buffers that a driver allocates";
        /// Null and errno.
        optional "IBVERBS_1.17" fn ibv_reg_buf_mr(pd: *mut ibv_pd, buf: *mut ibv_buf, addr: *mut c_void, length: usize, access: c_int) -> *mut ibv_mr, "buffers that a driver allocates";
        /// A descriptor, or -1 and errno.
        optional "IBVERBS_1.18" fn ibv_export_buf_dmabuf_fd(buf: *mut ibv_buf) -> c_int, "buffers that a driver allocates";

        /// Null and errno.
        required "IBVERBS_1.0" fn ibv_create_comp_channel(context: *mut ibv_context) -> *mut ibv_comp_channel;
        /// 0 or the error number (`EBUSY`: a queue still uses it).
        required "IBVERBS_1.0" fn ibv_destroy_comp_channel(channel: *mut ibv_comp_channel) -> c_int;
        /// Null and errno.
        required "IBVERBS_1.1" fn ibv_create_cq(context: *mut ibv_context, cqe: c_int, cq_context: *mut c_void, channel: *mut ibv_comp_channel, comp_vector: c_int) -> *mut ibv_cq;
        /// 0 or the error number.
        required "IBVERBS_1.1" fn ibv_resize_cq(cq: *mut ibv_cq, cqe: c_int) -> c_int;
        /// 0 or the error number (`EBUSY`: a queue pair still uses it). Waits for events that were not acknowledged.
        required "IBVERBS_1.1" fn ibv_destroy_cq(cq: *mut ibv_cq) -> c_int;
        /// 0, or -1 and errno. Blocks unless the channel's descriptor does not.
        required "IBVERBS_1.1" fn ibv_get_cq_event(channel: *mut ibv_comp_channel, cq: *mut *mut ibv_cq, cq_context: *mut *mut c_void) -> c_int;
        /// As many as were got.
        required "IBVERBS_1.1" fn ibv_ack_cq_events(cq: *mut ibv_cq, nevents: c_uint);

        /// Null and errno.
        required "IBVERBS_1.1" fn ibv_create_srq(pd: *mut ibv_pd, srq_init_attr: *mut ibv_srq_init_attr) -> *mut ibv_srq;
        /// 0 or the error number.
        required "IBVERBS_1.1" fn ibv_modify_srq(srq: *mut ibv_srq, srq_attr: *mut ibv_srq_attr, srq_attr_mask: c_int) -> c_int;
        /// 0 or the error number.
        required "IBVERBS_1.1" fn ibv_query_srq(srq: *mut ibv_srq, srq_attr: *mut ibv_srq_attr) -> c_int;
        /// 0 or the error number (`EBUSY`: a queue pair still uses it). Waits for events that were not acknowledged.
        required "IBVERBS_1.1" fn ibv_destroy_srq(srq: *mut ibv_srq) -> c_int;

        /// Null and errno. Writes the sizes that were given.
        required "IBVERBS_1.1" fn ibv_create_qp(pd: *mut ibv_pd, qp_init_attr: *mut ibv_qp_init_attr) -> *mut ibv_qp;
        /// Null for a queue pair that was not made for it.
        optional "IBVERBS_1.6" fn ibv_qp_to_qp_ex(qp: *mut ibv_qp) -> *mut ibv_qp_ex, "extended posting (ibv_wr_*)";
        /// 0 or the error number.
        required "IBVERBS_1.1" fn ibv_modify_qp(qp: *mut ibv_qp, attr: *mut ibv_qp_attr, attr_mask: c_int) -> c_int;
        /// 0 or the error number.
        required "IBVERBS_1.1" fn ibv_query_qp(qp: *mut ibv_qp, attr: *mut ibv_qp_attr, attr_mask: c_int, init_attr: *mut ibv_qp_init_attr) -> c_int;
        /// 1 or 0, or a mask of `IBV_QUERY_QP_DATA_IN_ORDER_*` where the flags ask for it.
        optional "IBVERBS_1.14" fn ibv_query_qp_data_in_order(qp: *mut ibv_qp, op: IbvWrOpcode, flags: u32) -> c_int, "whether data is written in order";
        /// 0 or the error number. Waits for events that were not acknowledged.
        required "IBVERBS_1.1" fn ibv_destroy_qp(qp: *mut ibv_qp) -> c_int;
        /// 0 or the error number.
        optional "IBVERBS_1.10" fn ibv_query_ece(qp: *mut ibv_qp, ece: *mut ibv_ece) -> c_int, "enhanced connection establishment";
        /// 0 or the error number.
        optional "IBVERBS_1.10" fn ibv_set_ece(qp: *mut ibv_qp, ece: *mut ibv_ece) -> c_int, "enhanced connection establishment";
        /// 0 or the error number.
        required "IBVERBS_1.1" fn ibv_attach_mcast(qp: *mut ibv_qp, gid: *const ibv_gid, lid: u16) -> c_int;
        /// 0 or the error number.
        required "IBVERBS_1.1" fn ibv_detach_mcast(qp: *mut ibv_qp, gid: *const ibv_gid, lid: u16) -> c_int;

        /// Null and errno.
        required "IBVERBS_1.1" fn ibv_create_ah(pd: *mut ibv_pd, attr: *mut ibv_ah_attr) -> *mut ibv_ah;
        /// Null and errno.
        required "IBVERBS_1.1" fn ibv_create_ah_from_wc(pd: *mut ibv_pd, wc: *mut ibv_wc, grh: *mut ibv_grh, port_num: u8) -> *mut ibv_ah;
        /// 0, or -1 and errno.
        required "IBVERBS_1.1" fn ibv_init_ah_from_wc(context: *mut ibv_context, port_num: u8, wc: *mut ibv_wc, grh: *mut ibv_grh, ah_attr: *mut ibv_ah_attr) -> c_int;
        /// 0 or the error number.
        required "IBVERBS_1.1" fn ibv_destroy_ah(ah: *mut ibv_ah) -> c_int;
        /// 0 or an error number, negated in some versions. `eth_mac` has 6 bytes.
        optional "IBVERBS_1.1" fn ibv_resolve_eth_l2_from_gid(context: *mut ibv_context, attr: *mut ibv_ah_attr, eth_mac: *mut u8, vid: *mut u16) -> c_int, "Ethernet addresses of GIDs";

        /// 0 or the error number; before anything else is called.
        required "IBVERBS_1.1" fn ibv_fork_init() -> c_int;
        /// Whether children are safe.
        optional "IBVERBS_1.13" fn ibv_is_fork_initialized() -> IbvForkStatus, "whether children are safe";

        /// A text that lives for ever.
        required "IBVERBS_1.1" fn ibv_wc_status_str(status: IbvWcStatus) -> *const c_char;
        /// A text that lives for ever.
        required "IBVERBS_1.1" fn ibv_node_type_str(node_type: IbvNodeType) -> *const c_char;
        /// A text that lives for ever.
        required "IBVERBS_1.1" fn ibv_port_state_str(port_state: IbvPortState) -> *const c_char;
        /// A text that lives for ever.
        required "IBVERBS_1.1" fn ibv_event_type_str(event: IbvEventType) -> *const c_char;
        /// The rate as a multiple of 2.5 Gbit/s, or -1.
        required "IBVERBS_1.0" fn ibv_rate_to_mult(rate: IbvRate) -> c_int;
        /// The rate of a multiple of 2.5 Gbit/s, or `RATE_MAX`.
        required "IBVERBS_1.0" fn mult_to_ibv_rate(mult: c_int) -> IbvRate;
        /// The rate in Mbit/s, or -1.
        required "IBVERBS_1.1" fn ibv_rate_to_mbps(rate: IbvRate) -> c_int;
        /// The rate of a number of Mbit/s, or `RATE_MAX`.
        required "IBVERBS_1.1" fn mbps_to_ibv_rate(mbps: c_int) -> IbvRate;

        /// 0 or the error number.
        optional "IBVERBS_1.18" fn _ibv_query_comp_cntr_caps(context: *mut ibv_context, caps: *mut ibv_comp_cntr_caps, caps_size: usize) -> c_int, "counters of completions";
        /// Null and errno.
        optional "IBVERBS_1.18" fn ibv_create_comp_cntr(context: *mut ibv_context, cc_attr: *mut ibv_comp_cntr_init_attr) -> *mut ibv_comp_cntr, "counters of completions";
        /// 0 or the error number.
        optional "IBVERBS_1.18" fn ibv_destroy_comp_cntr(comp_cntr: *mut ibv_comp_cntr) -> c_int, "counters of completions";
        /// 0 or the error number.
        optional "IBVERBS_1.18" fn ibv_set_comp_cntr(comp_cntr: *mut ibv_comp_cntr, value: u64) -> c_int, "counters of completions";
        /// 0 or the error number.
        optional "IBVERBS_1.18" fn ibv_set_err_comp_cntr(comp_cntr: *mut ibv_comp_cntr, value: u64) -> c_int, "counters of completions";
        /// 0 or the error number.
        optional "IBVERBS_1.18" fn ibv_inc_comp_cntr(comp_cntr: *mut ibv_comp_cntr, amount: u64) -> c_int, "counters of completions";
        /// 0 or the error number.
        optional "IBVERBS_1.18" fn ibv_inc_err_comp_cntr(comp_cntr: *mut ibv_comp_cntr, amount: u64) -> c_int, "counters of completions";
        /// 0 or the error number.
        optional "IBVERBS_1.18" fn ibv_read_comp_cntr(comp_cntr: *mut ibv_comp_cntr, value: *mut u64) -> c_int, "counters of completions";
        /// 0 or the error number.
        optional "IBVERBS_1.18" fn ibv_read_err_comp_cntr(comp_cntr: *mut ibv_comp_cntr, value: *mut u64) -> c_int, "counters of completions";
        /// 0 or the error number.
        optional "IBVERBS_1.18" fn ibv_qp_attach_comp_cntr(qp: *mut ibv_qp, comp_cntr: *mut ibv_comp_cntr, attr: *mut ibv_qp_attach_comp_cntr_attr) -> c_int, "counters of completions";
    }
}
