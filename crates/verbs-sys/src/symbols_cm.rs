//! The functions of librdmacm, and of the extras of two vendors: one row each, with the version it is pinned to.
//!
//! Filled as the table of `symbols.rs` is. librdmacm opens devices through libibverbs by itself: a table from elsewhere that has
//! connection management brings its own for its own devices.

use crate::ah::ibv_ah;
use crate::async_event::IbvEventType;
use crate::cm::{
    RdmaCmEventType, RdmaPortSpace, rdma_addrinfo, rdma_cm_event, rdma_cm_id, rdma_cm_join_mc_attr_ex,
    rdma_conn_param, rdma_event_channel,
};
use crate::context::ibv_context;
use crate::cq::{ibv_cq_ex, ibv_cq_init_attr_ex};
use crate::device::ibv_device;
use crate::efa::{
    efadv_ah_attr, efadv_cq, efadv_cq_init_attr, efadv_device_attr, efadv_mr_attr, efadv_qp_init_attr,
};
use crate::mlx5::mlx5dv_clock_info;
use crate::mr::ibv_mr;
use crate::pd::ibv_pd;
use crate::qp::{ibv_ece, ibv_qp, ibv_qp_attr, ibv_qp_init_attr, ibv_qp_init_attr_ex};
use crate::srq::{ibv_srq_init_attr, ibv_srq_init_attr_ex};
use crate::table::{Source, Symbol, table};
use core::ffi::{c_char, c_int, c_void};

table! {
    /// The functions that librdmacm exports. Those that answer a number answer 0, or -1 and errno, unless it is said otherwise.
    pub struct CmTable {
        /// Null and errno.
        required "RDMACM_1.0" fn rdma_create_event_channel() -> *mut rdma_event_channel;
        /// After its identifiers are gone and its events acknowledged.
        required "RDMACM_1.0" fn rdma_destroy_event_channel(channel: *mut rdma_event_channel);
        /// A null channel: calls on the identifier block until they are done.
        required "RDMACM_1.0" fn rdma_create_id(channel: *mut rdma_event_channel, id: *mut *mut rdma_cm_id, context: *mut c_void, ps: RdmaPortSpace) -> c_int;
        /// Waits for events that were not acknowledged.
        required "RDMACM_1.0" fn rdma_destroy_id(id: *mut rdma_cm_id) -> c_int;
        /// Makes an identifier and, with attributes, a queue pair. Blocking form.
        required "RDMACM_1.0" fn rdma_create_ep(id: *mut *mut rdma_cm_id, res: *mut rdma_addrinfo, pd: *mut ibv_pd, qp_init_attr: *mut ibv_qp_init_attr) -> c_int;
        /// Undoes `rdma_create_ep`.
        required "RDMACM_1.0" fn rdma_destroy_ep(id: *mut rdma_cm_id);
        /// The address is copied.
        required "RDMACM_1.0" fn rdma_bind_addr(id: *mut rdma_cm_id, addr: *mut libc::sockaddr) -> c_int;
        /// Ends with an event.
        required "RDMACM_1.0" fn rdma_resolve_addr(id: *mut rdma_cm_id, src_addr: *mut libc::sockaddr, dst_addr: *mut libc::sockaddr, timeout_ms: c_int) -> c_int;
        /// Ends with an event.
        required "RDMACM_1.0" fn rdma_resolve_route(id: *mut rdma_cm_id, timeout_ms: c_int) -> c_int;
        /// A null domain: the device's default one.
        required "RDMACM_1.0" fn rdma_create_qp(id: *mut rdma_cm_id, pd: *mut ibv_pd, qp_init_attr: *mut ibv_qp_init_attr) -> c_int;
        /// As `rdma_create_qp`, extended.
        required "RDMACM_1.0" fn rdma_create_qp_ex(id: *mut rdma_cm_id, qp_init_attr: *mut ibv_qp_init_attr_ex) -> c_int;
        /// Before the identifier is destroyed.
        required "RDMACM_1.0" fn rdma_destroy_qp(id: *mut rdma_cm_id);
        /// A shared receive queue of the identifier.
        required "RDMACM_1.0" fn rdma_create_srq(id: *mut rdma_cm_id, pd: *mut ibv_pd, attr: *mut ibv_srq_init_attr) -> c_int;
        /// As `rdma_create_srq`, extended.
        required "RDMACM_1.0" fn rdma_create_srq_ex(id: *mut rdma_cm_id, attr: *mut ibv_srq_init_attr_ex) -> c_int;
        /// Before the identifier is destroyed.
        required "RDMACM_1.0" fn rdma_destroy_srq(id: *mut rdma_cm_id);
        /// Ends with an event.
        required "RDMACM_1.0" fn rdma_connect(id: *mut rdma_cm_id, conn_param: *mut rdma_conn_param) -> c_int;
        /// For an identifier without queue pair, after `CONNECT_RESPONSE`.
        optional "RDMACM_1.2" fn rdma_establish(id: *mut rdma_cm_id) -> c_int, "connections of queue pairs made elsewhere";
        /// Requests wait in a queue of that length.
        required "RDMACM_1.0" fn rdma_listen(id: *mut rdma_cm_id, backlog: c_int) -> c_int;
        /// Blocking form only.
        required "RDMACM_1.0" fn rdma_get_request(listen: *mut rdma_cm_id, id: *mut *mut rdma_cm_id) -> c_int;
        /// Ends with an event.
        required "RDMACM_1.0" fn rdma_accept(id: *mut rdma_cm_id, conn_param: *mut rdma_conn_param) -> c_int;
        /// Private data may be null.
        required "RDMACM_1.0" fn rdma_reject(id: *mut rdma_cm_id, private_data: *const c_void, private_data_len: u8) -> c_int;
        /// As `rdma_reject`, because of the extensions.
        optional "RDMACM_1.3" fn rdma_reject_ece(id: *mut rdma_cm_id, private_data: *const c_void, private_data_len: u8) -> c_int, "enhanced connection establishment";
        /// Tells that the first message arrived before the connection's own event.
        required "RDMACM_1.0" fn rdma_notify(id: *mut rdma_cm_id, event: IbvEventType) -> c_int;
        /// Both ends get an event.
        required "RDMACM_1.0" fn rdma_disconnect(id: *mut rdma_cm_id) -> c_int;
        /// Ends with an event.
        required "RDMACM_1.0" fn rdma_join_multicast(id: *mut rdma_cm_id, addr: *mut libc::sockaddr, context: *mut c_void) -> c_int;
        /// Also before the group was joined.
        required "RDMACM_1.0" fn rdma_leave_multicast(id: *mut rdma_cm_id, addr: *mut libc::sockaddr) -> c_int;
        /// As `rdma_join_multicast`, with a choice of how.
        optional "RDMACM_1.1" fn rdma_join_multicast_ex(id: *mut rdma_cm_id, mc_join_attr: *mut rdma_cm_join_mc_attr_ex, context: *mut c_void) -> c_int, "multicast groups for sending only";
        /// Blocks unless the channel's descriptor does not.
        required "RDMACM_1.0" fn rdma_get_cm_event(channel: *mut rdma_event_channel, event: *mut *mut rdma_cm_event) -> c_int;
        /// Once for each event that was got.
        required "RDMACM_1.0" fn rdma_ack_cm_event(event: *mut rdma_cm_event) -> c_int;
        /// Big-endian.
        required "RDMACM_1.0" fn rdma_get_src_port(id: *mut rdma_cm_id) -> u16;
        /// Big-endian.
        required "RDMACM_1.0" fn rdma_get_dst_port(id: *mut rdma_cm_id) -> u16;
        /// Opened devices, ended by null; null and errno.
        required "RDMACM_1.0" fn rdma_get_devices(num_devices: *mut c_int) -> *mut *mut ibv_context;
        /// The devices stay open.
        required "RDMACM_1.0" fn rdma_free_devices(list: *mut *mut ibv_context);
        /// A text that lives for ever.
        required "RDMACM_1.0" fn rdma_event_str(event: RdmaCmEventType) -> *const c_char;
        /// Levels and names `RDMA_OPTION_*`.
        required "RDMACM_1.0" fn rdma_set_option(id: *mut rdma_cm_id, level: c_int, optname: c_int, optval: *mut c_void, optlen: usize) -> c_int;
        /// Waits for events that were not acknowledged.
        required "RDMACM_1.0" fn rdma_migrate_id(id: *mut rdma_cm_id, channel: *mut rdma_event_channel) -> c_int;
        /// 0, or -1 and errno, or a number of getaddrinfo(3).
        required "RDMACM_1.0" fn rdma_getaddrinfo(node: *const c_char, service: *const c_char, hints: *const rdma_addrinfo, res: *mut *mut rdma_addrinfo) -> c_int;
        /// The whole list.
        required "RDMACM_1.0" fn rdma_freeaddrinfo(res: *mut rdma_addrinfo);
        /// What to change of a queue pair that was made elsewhere.
        optional "RDMACM_1.2" fn rdma_init_qp_attr(id: *mut rdma_cm_id, qp_attr: *mut ibv_qp_attr, qp_attr_mask: *mut c_int) -> c_int, "connections of queue pairs made elsewhere";
        /// Before connecting or accepting.
        optional "RDMACM_1.3" fn rdma_set_local_ece(id: *mut rdma_cm_id, ece: *mut ibv_ece) -> c_int, "enhanced connection establishment";
        /// After a request or response.
        optional "RDMACM_1.3" fn rdma_get_remote_ece(id: *mut rdma_cm_id, ece: *mut ibv_ece) -> c_int, "enhanced connection establishment";
        /// Ends with an event.
        optional "RDMACM_1.4" fn rdma_resolve_addrinfo(id: *mut rdma_cm_id, node: *const c_char, service: *const c_char, hints: *const rdma_addrinfo) -> c_int, "resolving names without blocking";
        /// What it was resolved to.
        optional "RDMACM_1.4" fn rdma_query_addrinfo(id: *mut rdma_cm_id, info: *mut *mut rdma_addrinfo) -> c_int, "resolving names without blocking";
        /// Writes an event of the program's own.
        optional "RDMACM_1.4" fn rdma_write_cm_event(id: *mut rdma_cm_id, event: RdmaCmEventType, status: c_int, arg: u64) -> c_int, "events of the program's own";
    }
}

table! {
    /// The functions of libefa.
    pub struct EfaTable {
        /// Null and errno.
        required "EFA_1.0" fn efadv_create_driver_qp(ibvpd: *mut ibv_pd, attr: *mut ibv_qp_init_attr, driver_qp_type: u32) -> *mut ibv_qp;
        /// Null and errno. `inlen`: size of the third argument.
        optional "EFA_1.1" fn efadv_create_qp_ex(ibvctx: *mut ibv_context, attr_ex: *mut ibv_qp_init_attr_ex, efa_attr: *mut efadv_qp_init_attr, inlen: u32) -> *mut ibv_qp, "extended posting on SRD";
        /// 0 or the error number.
        optional "EFA_1.1" fn efadv_query_device(ibvctx: *mut ibv_context, attr: *mut efadv_device_attr, inlen: u32) -> c_int, "limits of the device";
        /// 0 or the error number.
        optional "EFA_1.1" fn efadv_query_ah(ibvah: *mut ibv_ah, attr: *mut efadv_ah_attr, inlen: u32) -> c_int, "numbers of addresses";
        /// Null and errno.
        optional "EFA_1.2" fn efadv_create_cq(ibvctx: *mut ibv_context, attr_ex: *mut ibv_cq_init_attr_ex, efa_attr: *mut efadv_cq_init_attr, inlen: u32) -> *mut ibv_cq_ex, "senders of messages";
        /// Null for a queue that was not made for it.
        optional "EFA_1.2" fn efadv_cq_from_ibv_cq_ex(ibvcqx: *mut ibv_cq_ex) -> *mut efadv_cq, "senders of messages";
        /// 0 or the error number.
        optional "EFA_1.3" fn efadv_query_mr(ibvmr: *mut ibv_mr, attr: *mut efadv_mr_attr, inlen: u32) -> c_int, "interconnects of memory regions";
    }
}

table! {
    /// The functions of libmlx5 that timestamps need.
    pub struct Mlx5Table {
        /// Whether the driver of a device is mlx5.
        required "MLX5_1.8" fn mlx5dv_is_supported(device: *mut ibv_device) -> bool;
        /// 0 or the error number.
        required "MLX5_1.4" fn mlx5dv_get_clock_info(context: *mut ibv_context, clock_info: *mut mlx5dv_clock_info) -> c_int;
    }
}
