//! What the oldest headers that are compared (rdma-core 44) do not have, and which structures grow where.

use sinew_verbs_sys::layout::{Field, Layout};

/// Structures that only grow at their front.
pub(crate) fn grows_at_front(structure: &Layout) -> bool {
    structure.rust == "verbs_context"
}

/// Fields that are there to be taken.
pub(crate) fn is_reserve(field: &Field) -> bool {
    field.c == "reserved"
}

/// Structures in which a new field took the whole place of a reserve.
pub(crate) fn took_a_reserve(structure: &Layout) -> bool {
    structure.rust == "efadv_device_attr"
}

/// The field that came last into a structure that has grown since rdma-core 44.
pub(crate) fn newest_field(structure: &Layout) -> Option<&'static str> {
    let name = format!("{}.", structure.c);
    NEWER.iter().rev().find_map(|(newer, _)| newer.strip_prefix(name.as_str()))
}

/// Whether headers of this release (unknown: of any) may lack a name: a structure and all in it, a field, a constant, a function.
pub(crate) fn is_newer(name: &str, release: Option<u32>) -> bool {
    // The type of a member that has no name is an expression with its owner in it.
    let owner = NEWER.iter().filter(|(newer, _)| newer.starts_with("__typeof__") && name.starts_with(newer));
    let structure = name.split_once('.').map_or(name, |(structure, _)| structure);
    let itself = NEWER.iter().filter(|(newer, _)| *newer == name || *newer == structure);
    owner.chain(itself).any(|(_, seen)| release.is_none_or(|release| release < *seen))
}

/// Whether a difference is what a new field at an end makes.
pub(crate) fn may_be_an_addition(difference: &str) -> bool {
    difference.contains(": size: ") || difference.contains(": a field is missing: ")
}

/// The newest release whose headers were compared by hand: what newer ones have besides is only told.
pub(crate) const NEWEST: u32 = 65;

/// Names that came after rdma-core 44, and the release in whose headers they were seen first (of 44, 56, 65); of a structure that
/// grew the newest field last.
const NEWER: &[(&str, u32)] = &[
    ("__typeof__(((struct rdma_cm_event *)0)->param).arg", 65),
    ("struct verbs_context.alloc_dmah", 65),
    ("struct verbs_context.dealloc_dmah", 65),
    ("struct verbs_context.reg_mr_ex", 65),
    ("struct verbs_context.dm_export_dmabuf_fd", 65),
    ("struct verbs_context.alloc_buf", 65),
    ("struct verbs_context.free_buf", 65),
    ("struct ibv_comp_cntr_caps", 65),
    ("struct ibv_comp_cntr", 65),
    ("struct ibv_comp_cntr_init_attr", 65),
    ("struct ibv_qp_attach_comp_cntr_attr", 65),
    ("struct efadv_qp_init_attr.flags", 56),
    ("struct efadv_qp_init_attr.sl", 56),
    ("struct efadv_qp_init_attr.wr_flags", 65),
    ("struct efadv_device_attr.inline_buf_size_ex", 65),
    ("struct efadv_cq.wc_is_unsolicited", 56),
    ("__typeof__(((struct efadv_cq_init_attr *)0)->ext_mem_dmabuf)", 65),
    ("struct efadv_cq_init_attr.flags", 65),
    ("struct efadv_cq_init_attr.ext_mem_dmabuf", 65),
    ("struct efadv_mr_attr", 56),
    ("struct ibv_dmah", 65),
    ("struct ibv_dmah_init_attr", 65),
    ("struct ibv_mr_init_attr", 65),
    ("struct ibv_port_attr.active_speed_ex", 56),
    ("struct ibv_qp_ex.wr_flush", 56),
    ("enum ibv_comp_cntr_type", 65),
    ("enum ibv_tph_mem_type", 65),
    ("enum ibv_selectivity_level", 56),
    ("IBV_EVENT_DEVICE_SPEED_CHANGE", 65),
    ("RDMA_CM_EVENT_ADDRINFO_RESOLVED", 65),
    ("RDMA_CM_EVENT_ADDRINFO_ERROR", 65),
    ("RDMA_CM_EVENT_USER", 65),
    ("RDMA_CM_EVENT_INTERNAL", 65),
    ("IBV_COMP_CNTR_TYPE_WRS", 65),
    ("IBV_COMP_CNTR_TYPE_BYTES", 65),
    ("IBV_TPH_MEM_TYPE_VM", 65),
    ("IBV_TPH_MEM_TYPE_PM", 65),
    ("IBV_WC_FLUSH", 56),
    ("IBV_WR_FLUSH", 56),
    ("IBV_FLUSH_RANGE", 56),
    ("IBV_FLUSH_MR", 56),
    ("RAI_SA", 65),
    ("RAI_DNS", 65),
    ("IBV_QP_ATTACH_COMP_CNTR_OP_SEND", 65),
    ("IBV_QP_ATTACH_COMP_CNTR_OP_RECV", 65),
    ("IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_READ", 65),
    ("IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_READ", 65),
    ("IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_WRITE", 65),
    ("IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_WRITE", 65),
    ("IBV_DEVICE_CC_DMA_BOUNCE", 65),
    ("IBV_ODP_SUPPORT_FLUSH", 65),
    ("IBV_ODP_SUPPORT_ATOMIC_WRITE", 65),
    ("EFADV_QP_FLAGS_UNSOLICITED_WRITE_RECV", 56),
    ("EFADV_QP_FLAGS_INLINE_WRITE", 65),
    ("EFADV_WR_EX_WITH_PROCESSING_HINTS", 65),
    ("EFADV_DEVICE_ATTR_CAPS_RDMA_WRITE", 56),
    ("EFADV_DEVICE_ATTR_CAPS_UNSOLICITED_WRITE_RECV", 56),
    ("EFADV_DEVICE_ATTR_CAPS_CQ_WITH_EXT_MEM_DMABUF", 65),
    ("EFADV_DEVICE_ATTR_CAPS_COMP_CNTR", 65),
    ("EFADV_WC_EX_WITH_IS_UNSOLICITED", 56),
    ("EFADV_MR_ATTR_VALIDITY_RECV_IC_ID", 56),
    ("EFADV_MR_ATTR_VALIDITY_RDMA_READ_IC_ID", 56),
    ("EFADV_MR_ATTR_VALIDITY_RDMA_RECV_IC_ID", 56),
    ("IBV_ACCESS_FLUSH_GLOBAL", 56),
    ("IBV_ACCESS_FLUSH_PERSISTENT", 56),
    ("IBV_REG_MR_MASK_IOVA", 65),
    ("IBV_REG_MR_MASK_ADDR", 65),
    ("IBV_REG_MR_MASK_FD", 65),
    ("IBV_REG_MR_MASK_FD_OFFSET", 65),
    ("IBV_REG_MR_MASK_DMAH", 65),
    ("IBV_REG_MR_MASK_BUF", 65),
    ("IBV_DMAH_INIT_ATTR_MASK_CPU_ID", 65),
    ("IBV_DMAH_INIT_ATTR_MASK_PH", 65),
    ("IBV_DMAH_INIT_ATTR_MASK_TPH_MEM_TYPE", 65),
    ("IBV_PARENT_DOMAIN_INIT_ATTR_ALLOW_CC_UNPROTECTED_ALLOC", 65),
    ("IBV_PORT_LINK_SPEED_XDR_SUP", 56),
    ("IBV_QP_EX_WITH_FLUSH", 56),
    ("IBV_QUERY_QP_DATA_IN_ORDER_RETURN_CAPS", 56),
    ("IBV_QUERY_QP_DATA_IN_ORDER_DEVICE_ONLY", 65),
    ("IBV_QUERY_QP_DATA_IN_ORDER_WHOLE_MSG", 56),
    ("IBV_QUERY_QP_DATA_IN_ORDER_ALIGNED_128_BYTES", 56),
    ("IBV_FLUSH_GLOBAL", 56),
    ("IBV_FLUSH_PERSISTENT", 56),
    ("ibv_query_port_speed", 65),
    ("ibv_reg_mr_ex", 65),
    ("ibv_dm_export_dmabuf_fd", 65),
    ("ibv_alloc_dmah", 65),
    ("ibv_dealloc_dmah", 65),
    ("ibv_alloc_buf", 65),
    ("ibv_free_buf", 65),
    ("ibv_reg_buf_mr", 65),
    ("ibv_export_buf_dmabuf_fd", 65),
    ("_ibv_query_comp_cntr_caps", 65),
    ("ibv_create_comp_cntr", 65),
    ("ibv_destroy_comp_cntr", 65),
    ("ibv_set_comp_cntr", 65),
    ("ibv_set_err_comp_cntr", 65),
    ("ibv_inc_comp_cntr", 65),
    ("ibv_inc_err_comp_cntr", 65),
    ("ibv_read_comp_cntr", 65),
    ("ibv_read_err_comp_cntr", 65),
    ("ibv_qp_attach_comp_cntr", 65),
    ("rdma_resolve_addrinfo", 65),
    ("rdma_query_addrinfo", 65),
    ("rdma_write_cm_event", 65),
    ("efadv_query_mr", 56),
];
