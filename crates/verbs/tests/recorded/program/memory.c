/* Memory that the devices of a kernel without hardware do not have: paged on demand, of other devices, on the device, windows. */
#include "recorded.h"

int on_demand(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_device_attr_ex attributes;
	CHECK(!ibv_query_device_ex(context, &(struct ibv_query_device_ex_input){}, &attributes));
	CHECK(attributes.odp_caps.general_caps & IBV_ODP_SUPPORT);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_mr *mr = ibv_reg_mr(pd, setup->memory, setup->length, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
	CHECK(pd && mr);
	struct ibv_sge all = piece(setup, mr, 0, setup->length);
	CHECK(!ibv_advise_mr(pd, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, IBV_ADVISE_MR_FLAG_FLUSH, &all, 1));
	CHECK(!ibv_advise_mr(pd, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, &all, 1));
	CHECK(!ibv_dereg_mr(mr));

	/* Exposed to peers, and advice about a part. */
	mr = ibv_reg_mr(pd, setup->memory, setup->length, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_ON_DEMAND);
	CHECK(mr);
	struct ibv_sge part = piece(setup, mr, 4096, 8192);
	CHECK(!ibv_advise_mr(pd, IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT, IBV_ADVISE_MR_FLAG_FLUSH, &part, 1));
	CHECK(!ibv_dereg_mr(mr) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

/* Writes of the device may overtake each other; pages are huge; offsets count from zero. */
int relaxed_ordering(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_mr *own = ibv_reg_mr(pd, setup->memory, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING);
	struct ibv_mr *exposed = ibv_reg_mr(pd, setup->memory + 4096, 8192,
					    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
						    IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_RELAXED_ORDERING);
	struct ibv_mr *huge = ibv_reg_mr(pd, setup->memory, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_HUGETLB);
	struct ibv_mr *from_zero = ibv_reg_mr(pd, setup->memory, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_ZERO_BASED);
	CHECK(own && exposed && huge && from_zero);
	CHECK(!ibv_dereg_mr(from_zero) && !ibv_dereg_mr(huge) && !ibv_dereg_mr(exposed) && !ibv_dereg_mr(own));
	CHECK(!ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

int dmabuf(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_mr *mr = ibv_reg_dmabuf_mr(pd, 4096, 8192, 0x7000, setup->descriptor,
					      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
	CHECK(mr);
	CHECK(!ibv_dereg_mr(mr) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

int device_memory(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_alloc_dm_attr attributes = { .length = 256, .log_align_req = 3 };
	struct ibv_dm *dm = ibv_alloc_dm(context, &attributes);
	unsigned char back[16];
	CHECK(pd && dm);
	CHECK(!ibv_memcpy_to_dm(dm, 8, setup->memory, 16));
	CHECK(!ibv_memcpy_from_dm(back, dm, 8, 16));
	CHECK(!memcmp(back, setup->memory, 16));
	struct ibv_mr *mr = ibv_reg_dm_mr(pd, dm, 64, 128, IBV_ACCESS_ZERO_BASED | IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
	CHECK(mr);
	CHECK(!ibv_dereg_mr(mr) && !ibv_free_dm(dm) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

int null_region(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context && setup);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_mr *mr = ibv_alloc_null_mr(pd);
	CHECK(mr);
	CHECK(!ibv_dereg_mr(mr) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

enum { KEYS = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM |
	      IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
	      IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_SEND_WITH_INV };

/* A window of type 1 by a call; one of type 2 by a request, used, and taken away by its owner and by a peer. */
static int windows(const struct setup *setup, int is_extended)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	struct ibv_mr *mr = ibv_reg_mr(pd, setup->memory, setup->length, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
	struct ends ends;
	struct ibv_wc wc[16];
	struct ibv_send_wr *bad;
	CHECK(pd && cq && mr);
	int line = make_ends(&ends, pd, cq, is_extended ? KEYS : 0, 1, IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
	if (line)
		return line;

	struct ibv_mw *one = ibv_alloc_mw(pd, IBV_MW_TYPE_1);
	struct ibv_mw_bind bind = {
		.wr_id = 1,
		.send_flags = IBV_SEND_SIGNALED,
		.bind_info = { .mr = mr, .addr = (uintptr_t)setup->memory + 256, .length = 512, .mw_access_flags = IBV_ACCESS_REMOTE_READ },
	};
	CHECK(one && !ibv_bind_mw(ends.qp[0], one, &bind));
	CHECK(ibv_poll_cq(cq, 16, wc) == 1);

	struct ibv_mw *two = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
	CHECK(two);
	struct ibv_mw_bind_info info = {
		.mr = mr, .addr = (uintptr_t)setup->memory + 1024, .length = 64, .mw_access_flags = IBV_ACCESS_REMOTE_WRITE,
	};
	uint32_t rkey = ibv_inc_rkey(two->rkey);
	if (is_extended) {
		ibv_wr_start(ends.extended[0]);
		ends.extended[0]->wr_id = 2;
		ends.extended[0]->wr_flags = IBV_SEND_SIGNALED;
		ibv_wr_bind_mw(ends.extended[0], two, rkey, &info);
		CHECK(!ibv_wr_complete(ends.extended[0]));
	} else {
		struct ibv_send_wr wr = {
			.wr_id = 2, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED,
			.bind_mw = { .mw = two, .rkey = rkey, .bind_info = info },
		};
		CHECK(!ibv_post_send(ends.qp[0], &wr, &bad));
	}
	CHECK(ibv_poll_cq(cq, 16, wc) == 1);

	if (is_extended) {
		ibv_wr_start(ends.extended[0]);
		ends.extended[0]->wr_id = 3;
		ends.extended[0]->wr_flags = IBV_SEND_SIGNALED;
		ibv_wr_local_inv(ends.extended[0], rkey);
		CHECK(!ibv_wr_complete(ends.extended[0]));
	} else {
		struct ibv_send_wr wr = { .wr_id = 3, .opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED, .invalidate_rkey = rkey };
		CHECK(!ibv_post_send(ends.qp[0], &wr, &bad));
	}
	CHECK(ibv_poll_cq(cq, 16, wc) == 1 && wc->status == IBV_WC_SUCCESS);

	CHECK(!ibv_destroy_qp(ends.qp[0]) && !ibv_destroy_qp(ends.qp[1]));
	CHECK(!ibv_dealloc_mw(two) && !ibv_dealloc_mw(one) && !ibv_dereg_mr(mr));
	CHECK(!ibv_destroy_cq(cq) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

int linked_windows(const struct setup *setup)
{
	return windows(setup, 0);
}

int extended_windows(const struct setup *setup)
{
	return windows(setup, 1);
}

/* One registration, with a difference where one is planted: the tapes of this and of the safe call must then differ. */
int planted(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	unsigned int access = IBV_ACCESS_LOCAL_WRITE | (setup->planted == 1 ? IBV_ACCESS_REMOTE_READ : 0);
	size_t offset = setup->planted == 2 ? 1 : 0;
	struct ibv_alloc_dm_attr attributes = { .length = 64, .log_align_req = setup->planted == 3 ? 1 : 0 };
	struct ibv_mr *mr = (ibv_reg_mr)(pd, setup->memory + offset, 4096, access);
	struct ibv_dm *dm = ibv_alloc_dm(context, &attributes);
	unsigned char bytes[2] = { 1, setup->planted == 4 ? 3 : 2 };
	CHECK(mr && dm);
	int copies = setup->planted == 5 ? 2 : setup->planted == 6 ? 0 : 1;
	while (copies--)
		CHECK(!ibv_memcpy_to_dm(dm, 0, bytes, 2));
	CHECK(!ibv_free_dm(dm) && !ibv_dereg_mr(mr) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}
