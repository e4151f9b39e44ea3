/*
 * The exported functions, each of which calls the one of the same name that the test gives: programs in C reach the recorder by them,
 * while macros and inlines are those of the installed headers. A name in parentheses is the function, not the header's macro.
 */
#include "recorded.h"

static void *(*find)(const char *name);

void recorded_bind(void *(*finder)(const char *name))
{
	find = finder;
}

#define FORWARD(type, name, parameters, arguments) \
	type(name) parameters \
	{ \
		return ((type(*) parameters)find(#name)) arguments; \
	}

/* One that answers nothing. */
#define FORWARD_ONLY(name, parameters, arguments) \
	void(name) parameters \
	{ \
		((void(*) parameters)find(#name)) arguments; \
	}

FORWARD(struct ibv_device **, ibv_get_device_list, (int *count), (count))
FORWARD_ONLY(ibv_free_device_list, (struct ibv_device **list), (list))
FORWARD(struct ibv_context *, ibv_open_device, (struct ibv_device *device), (device))
FORWARD(int, ibv_close_device, (struct ibv_context *context), (context))
FORWARD(int, ibv_query_device, (struct ibv_context *context, struct ibv_device_attr *attr), (context, attr))
FORWARD(int, ibv_query_port, (struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr), (context, port, attr))
FORWARD(int, ibv_query_gid, (struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid), (context, port, index, gid))
FORWARD(int, ibv_query_pkey, (struct ibv_context *context, uint8_t port, int index, __be16 *pkey), (context, port, index, pkey))

FORWARD(struct ibv_pd *, ibv_alloc_pd, (struct ibv_context *context), (context))
FORWARD(int, ibv_dealloc_pd, (struct ibv_pd *pd), (pd))
FORWARD(struct ibv_mr *, ibv_reg_mr, (struct ibv_pd *pd, void *addr, size_t length, int access), (pd, addr, length, access))
FORWARD(struct ibv_mr *, ibv_reg_mr_iova2, (struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, unsigned int access),
	(pd, addr, length, iova, access))
FORWARD(struct ibv_mr *, ibv_reg_dmabuf_mr, (struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova, int fd, int access),
	(pd, offset, length, iova, fd, access))
FORWARD(int, ibv_dereg_mr, (struct ibv_mr *mr), (mr))

FORWARD(struct ibv_comp_channel *, ibv_create_comp_channel, (struct ibv_context *context), (context))
FORWARD(int, ibv_destroy_comp_channel, (struct ibv_comp_channel *channel), (channel))
FORWARD(struct ibv_cq *, ibv_create_cq, (struct ibv_context *context, int cqe, void *cq_context, struct ibv_comp_channel *channel, int vector),
	(context, cqe, cq_context, channel, vector))
FORWARD(int, ibv_resize_cq, (struct ibv_cq *cq, int cqe), (cq, cqe))
FORWARD(int, ibv_destroy_cq, (struct ibv_cq *cq), (cq))
FORWARD(int, ibv_get_cq_event, (struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cq_context), (channel, cq, cq_context))
FORWARD_ONLY(ibv_ack_cq_events, (struct ibv_cq *cq, unsigned int count), (cq, count))

FORWARD(struct ibv_srq *, ibv_create_srq, (struct ibv_pd *pd, struct ibv_srq_init_attr *init), (pd, init))
FORWARD(int, ibv_modify_srq, (struct ibv_srq *srq, struct ibv_srq_attr *attr, int mask), (srq, attr, mask))
FORWARD(int, ibv_destroy_srq, (struct ibv_srq *srq), (srq))

FORWARD(struct ibv_qp *, ibv_create_qp, (struct ibv_pd *pd, struct ibv_qp_init_attr *init), (pd, init))
FORWARD(struct ibv_qp_ex *, ibv_qp_to_qp_ex, (struct ibv_qp *qp), (qp))
FORWARD(int, ibv_modify_qp, (struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask), (qp, attr, mask))
FORWARD(int, ibv_destroy_qp, (struct ibv_qp *qp), (qp))
FORWARD(int, ibv_query_ece, (struct ibv_qp *qp, struct ibv_ece *ece), (qp, ece))
FORWARD(int, ibv_set_ece, (struct ibv_qp *qp, struct ibv_ece *ece), (qp, ece))
FORWARD(int, ibv_query_qp_data_in_order, (struct ibv_qp *qp, enum ibv_wr_opcode opcode, uint32_t flags), (qp, opcode, flags))
FORWARD(struct ibv_ah *, ibv_create_ah, (struct ibv_pd *pd, struct ibv_ah_attr *attr), (pd, attr))
FORWARD(int, ibv_destroy_ah, (struct ibv_ah *ah), (ah))

FORWARD(struct ibv_qp *, efadv_create_qp_ex,
	(struct ibv_context *context, struct ibv_qp_init_attr_ex *init, struct efadv_qp_init_attr *own, uint32_t length),
	(context, init, own, length))
FORWARD(struct ibv_qp *, efadv_create_driver_qp, (struct ibv_pd *pd, struct ibv_qp_init_attr *init, uint32_t kind), (pd, init, kind))
FORWARD(int, efadv_query_device, (struct ibv_context *context, struct efadv_device_attr *attr, uint32_t length), (context, attr, length))
