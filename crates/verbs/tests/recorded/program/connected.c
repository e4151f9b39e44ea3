/* Two connected queue pairs: how they are made and brought up, and everything that is posted to them. */
#include "recorded.h"

/* To the working state, towards the other end, with what the safe builder asks for unless it is told otherwise. */
static int bring_up(struct ibv_qp *qp, struct ibv_qp *peer, uint8_t port, const struct ibv_port_attr *attributes, const union ibv_gid *gid)
{
	struct ibv_qp_attr ready = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = attributes->active_mtu,
		.dest_qp_num = peer->qp_num,
		.rq_psn = PSN,
		.max_dest_rd_atomic = 16,
		.min_rnr_timer = 12,
		.ah_attr = {
			.is_global = 1,
			.grh = { .dgid = *gid, .sgid_index = 0, .hop_limit = 64 },
			.dlid = attributes->lid,
			.port_num = port,
		},
	};
	struct ibv_qp_attr sending = {
		.qp_state = IBV_QPS_RTS,
		.sq_psn = PSN,
		.timeout = 14,
		.retry_cnt = 6,
		.rnr_retry = 7,
		.max_rd_atomic = 16,
	};

	CHECK(!ibv_modify_qp(qp, &ready, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
						 IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	CHECK(!ibv_modify_qp(qp, &sending, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
						   IBV_QP_MAX_QP_RD_ATOMIC));
	return 0;
}

int make_ends(struct ends *ends, struct ibv_pd *pd, struct ibv_cq *cq, uint64_t operations, uint8_t port, unsigned int access)
{
	struct ibv_port_attr attributes;
	union ibv_gid gid;

	CHECK(!ibv_query_port(pd->context, port, &attributes));
	CHECK(!ibv_query_gid(pd->context, port, 0, &gid));
	for (int end = 0; end < 2; end++) {
		struct ibv_qp_init_attr_ex init = {
			.send_cq = cq,
			.recv_cq = cq,
			.cap = { .max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 2, .max_recv_sge = 2, .max_inline_data = 32 },
			.qp_type = IBV_QPT_RC,
			.pd = pd,
			.comp_mask = IBV_QP_INIT_ATTR_PD | (operations ? IBV_QP_INIT_ATTR_SEND_OPS_FLAGS : 0),
			.send_ops_flags = operations,
		};
		struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = port, .qp_access_flags = access };

		ends->qp[end] = ibv_create_qp_ex(pd->context, &init);
		CHECK(ends->qp[end]);
		ends->extended[end] = operations ? ibv_qp_to_qp_ex(ends->qp[end]) : NULL;
		CHECK(!operations || ends->extended[end]);
		CHECK(!ibv_modify_qp(ends->qp[end], &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	}
	for (int end = 0; end < 2; end++) {
		int line = bring_up(ends->qp[end], ends->qp[!end], port, &attributes, &gid);

		if (line)
			return line;
	}
	return 0;
}

enum { ALL = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM |
	     IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
	     IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_SEND_WITH_INV };

enum { REMOTE = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC };

static int receives(struct ibv_qp *qp, struct ibv_sge *pieces)
{
	struct ibv_recv_wr second = { .wr_id = 0x52, .sg_list = pieces + 1, .num_sge = 1 };
	struct ibv_recv_wr first = { .wr_id = 0x51, .next = &second, .sg_list = pieces, .num_sge = 1 };
	struct ibv_recv_wr *bad;

	return ibv_post_recv(qp, &first, &bad);
}

static int batch_linked(struct ibv_qp *qp, struct ibv_sge *pieces, struct ibv_mr *mr, uint64_t remote)
{
	struct ibv_send_wr fetch_add = {
		.wr_id = 8, .sg_list = pieces + 2, .num_sge = 1, .opcode = IBV_WR_ATOMIC_FETCH_AND_ADD, .send_flags = IBV_SEND_SIGNALED,
		.wr.atomic = { .remote_addr = remote + 8, .compare_add = 5, .rkey = mr->rkey },
	};
	struct ibv_send_wr compare_swap = {
		.wr_id = 7, .next = &fetch_add, .sg_list = pieces + 2, .num_sge = 1, .opcode = IBV_WR_ATOMIC_CMP_AND_SWP,
		.wr.atomic = { .remote_addr = remote + 8, .compare_add = 3, .swap = 4, .rkey = mr->rkey },
	};
	struct ibv_send_wr read = {
		.wr_id = 6, .next = &compare_swap, .sg_list = pieces, .num_sge = 2, .opcode = IBV_WR_RDMA_READ,
		.send_flags = IBV_SEND_FENCE, .wr.rdma = { .remote_addr = remote, .rkey = mr->rkey },
	};
	struct ibv_send_wr write_imm = {
		.wr_id = 5, .next = &read, .sg_list = pieces, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
		.imm_data = htobe32(0x01020304), .wr.rdma = { .remote_addr = remote, .rkey = mr->rkey },
	};
	struct ibv_send_wr write = {
		.wr_id = 4, .next = &write_imm, .sg_list = pieces, .num_sge = 2, .opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_INLINE, .wr.rdma = { .remote_addr = remote, .rkey = mr->rkey },
	};
	struct ibv_send_wr send = {
		.wr_id = 3, .next = &write, .sg_list = pieces, .num_sge = 1, .opcode = IBV_WR_SEND_WITH_IMM,
		.send_flags = IBV_SEND_SOLICITED, .imm_data = htobe32(0x0a0b0c0d),
	};
	struct ibv_send_wr *bad;

	return ibv_post_send(qp, &send, &bad);
}

static int batch_extended(struct ibv_qp_ex *qp, struct ibv_sge *pieces, struct ibv_mr *mr, uint64_t remote)
{
	struct ibv_data_buf shown[] = {
		{ .addr = (void *)(uintptr_t)pieces[0].addr, .length = pieces[0].length },
		{ .addr = (void *)(uintptr_t)pieces[1].addr, .length = pieces[1].length },
	};

	ibv_wr_start(qp);
	qp->wr_id = 3;
	qp->wr_flags = IBV_SEND_SOLICITED;
	ibv_wr_send_imm(qp, htobe32(0x0a0b0c0d));
	ibv_wr_set_sge(qp, pieces->lkey, pieces->addr, pieces->length);
	qp->wr_id = 4;
	qp->wr_flags = IBV_SEND_INLINE;
	ibv_wr_rdma_write(qp, mr->rkey, remote);
	ibv_wr_set_inline_data_list(qp, 2, shown);
	qp->wr_id = 5;
	qp->wr_flags = 0;
	ibv_wr_rdma_write_imm(qp, mr->rkey, remote, htobe32(0x01020304));
	ibv_wr_set_sge(qp, pieces->lkey, pieces->addr, pieces->length);
	qp->wr_id = 6;
	qp->wr_flags = IBV_SEND_FENCE;
	ibv_wr_rdma_read(qp, mr->rkey, remote);
	ibv_wr_set_sge_list(qp, 2, pieces);
	qp->wr_id = 7;
	qp->wr_flags = 0;
	ibv_wr_atomic_cmp_swp(qp, mr->rkey, remote + 8, 3, 4);
	ibv_wr_set_sge(qp, pieces[2].lkey, pieces[2].addr, pieces[2].length);
	qp->wr_id = 8;
	qp->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_atomic_fetch_add(qp, mr->rkey, remote + 8, 5);
	ibv_wr_set_sge(qp, pieces[2].lkey, pieces[2].addr, pieces[2].length);
	return ibv_wr_complete(qp);
}

/* Every request that connected queue pairs have, in one batch. */
static int requests(const struct setup *setup, int is_extended)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	struct ibv_mr *mr = ibv_reg_mr(pd, setup->memory, 1024, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_mr *exposed = ibv_reg_mr(pd, setup->memory + 1024, 4096, IBV_ACCESS_LOCAL_WRITE | REMOTE);
	struct ends ends;
	struct ibv_wc wc[16];
	CHECK(pd && cq && mr && exposed);
	int line = make_ends(&ends, pd, cq, is_extended ? ALL : 0, 1, REMOTE);
	if (line)
		return line;

	struct ibv_sge pieces[] = { piece(setup, mr, 0, 16), piece(setup, mr, 64, 16), piece(setup, mr, 128, 8) };
	struct ibv_sge places[] = { piece(setup, mr, 256, 64), piece(setup, mr, 320, 64) };
	uint64_t remote = (uintptr_t)(setup->memory + 1024);
	CHECK(!receives(ends.qp[1], places));
	if (is_extended)
		CHECK(!batch_extended(ends.extended[0], pieces, exposed, remote));
	else
		CHECK(!batch_linked(ends.qp[0], pieces, exposed, remote));
	CHECK(ibv_poll_cq(cq, 16, wc) == 3);

	CHECK(!ibv_destroy_qp(ends.qp[0]) && !ibv_destroy_qp(ends.qp[1]));
	CHECK(!ibv_dereg_mr(exposed) && !ibv_dereg_mr(mr) && !ibv_destroy_cq(cq) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

int linked_requests(const struct setup *setup)
{
	return requests(setup, 0);
}

int extended_requests(const struct setup *setup)
{
	return requests(setup, 1);
}

/* What may be changed of a queue pair that works: the alternate path, the rate, the drained event. */
int rare_attributes(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	struct ends ends;
	union ibv_gid gid;
	int line = make_ends(&ends, pd, cq, ALL, 1, 0);
	if (line)
		return line;
	CHECK(setup && !ibv_query_gid(context, 1, 0, &gid));

	struct ibv_qp_attr alternate = {
		.alt_ah_attr = {
			.is_global = 1,
			.grh = { .dgid = gid, .hop_limit = 9, .traffic_class = 0x20, .flow_label = 0x12345 },
			.dlid = 0x77, .sl = 3, .src_path_bits = 1, .port_num = 2,
		},
		.alt_pkey_index = 1, .alt_port_num = 2, .alt_timeout = 15, .path_mig_state = IBV_MIG_REARM,
	};
	struct ibv_qp_attr rate = { .rate_limit = 123456 };
	struct ibv_qp_attr drain = { .qp_state = IBV_QPS_SQD, .en_sqd_async_notify = 1 };
	CHECK(!ibv_modify_qp(ends.qp[0], &alternate, IBV_QP_ALT_PATH | IBV_QP_PATH_MIG_STATE));
	CHECK(!ibv_modify_qp(ends.qp[0], &rate, IBV_QP_RATE_LIMIT));
	CHECK(!ibv_modify_qp(ends.qp[0], &drain, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY));

	CHECK(!ibv_destroy_qp(ends.qp[0]) && !ibv_destroy_qp(ends.qp[1]));
	CHECK(!ibv_destroy_cq(cq) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

/* Asks for bits instead of yes or no; headers before rdma-core 56 have no name for it. */
enum { RETURN_BITS = 1 };

/* Rates, the order of data, extensions of a connection. */
int tuning(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context && setup);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 128, NULL, NULL, 0);
	struct ends ends;
	int line = make_ends(&ends, pd, cq, 0, 1, 0);
	if (line)
		return line;
	struct ibv_qp_rate_limit_attr limit = { .rate_limit = 500000, .max_burst_sz = 65536, .typical_pkt_sz = 1024 };
	CHECK(!ibv_modify_qp_rate_limit(ends.qp[0], &limit));
	CHECK(ibv_query_qp_data_in_order(ends.qp[0], IBV_WR_SEND, RETURN_BITS) == 3);
	CHECK(ibv_query_qp_data_in_order(ends.qp[0], IBV_WR_RDMA_WRITE, RETURN_BITS) == 3);
	CHECK(ibv_query_qp_data_in_order(ends.qp[0], IBV_WR_RDMA_READ, RETURN_BITS) == 3);

	struct ibv_qp_init_attr init = {
		.send_cq = cq,
		.recv_cq = cq,
		.cap = { .max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_RC,
	};
	struct ibv_qp *early = ibv_create_qp(pd, &init);
	struct ibv_ece own, taken;
	CHECK(early && !ibv_query_ece(early, &own));
	struct ibv_ece wanted = { .vendor_id = own.vendor_id, .options = 6 };
	CHECK(!ibv_set_ece(early, &wanted) && !ibv_query_ece(early, &taken));
	CHECK(taken.options == 2);
	CHECK(!ibv_destroy_qp(early) && !ibv_destroy_qp(ends.qp[0]) && !ibv_destroy_qp(ends.qp[1]));
	CHECK(!ibv_destroy_cq(cq) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}
