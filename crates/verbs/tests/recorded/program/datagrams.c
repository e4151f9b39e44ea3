/* Reliable datagrams of EFA, and the second port of a device. */
#include "recorded.h"

enum { QKEY = 0x77 };

/* What structures of efadv.h had in rdma-core 44; later ones are longer, and what follows stays zero. */
enum { OWN_LENGTH = 16 };

static int to_work(struct ibv_qp *qp)
{
	struct ibv_qp_attr initial = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY };
	struct ibv_qp_attr ready = { .qp_state = IBV_QPS_RTR };
	struct ibv_qp_attr sending = { .qp_state = IBV_QPS_RTS, .sq_psn = PSN };

	CHECK(!ibv_modify_qp(qp, &initial, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY));
	CHECK(!ibv_modify_qp(qp, &ready, IBV_QP_STATE));
	CHECK(!ibv_modify_qp(qp, &sending, IBV_QP_STATE | IBV_QP_SQ_PSN));
	return 0;
}

int srd(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 128, NULL, NULL, 0);
	struct ibv_mr *mr = ibv_reg_mr(pd, setup->memory, 1024, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_mr *exposed =
		ibv_reg_mr(pd, setup->memory + 1024, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
	struct ibv_qp *qp[2];
	CHECK(pd && cq && mr && exposed);
	for (int end = 0; end < 2; end++) {
		struct ibv_qp_init_attr_ex init = {
			.send_cq = cq,
			.recv_cq = cq,
			.cap = { .max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 2, .max_recv_sge = 1, .max_inline_data = 32 },
			.qp_type = IBV_QPT_DRIVER,
			.pd = pd,
			.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
			.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ |
					  IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM,
		};
		struct efadv_qp_init_attr own = { .driver_qp_type = EFADV_QP_DRIVER_TYPE_SRD };

		struct efadv_device_attr device = {};

		CHECK(!efadv_query_device(context, &device, sizeof(device)));
		CHECK(device.device_caps & EFADV_DEVICE_ATTR_CAPS_RDMA_READ);
		qp[end] = efadv_create_qp_ex(context, &init, &own, OWN_LENGTH);
		CHECK(qp[end] && ibv_qp_to_qp_ex(qp[end]));
		int line = to_work(qp[end]);
		if (line)
			return line;
	}
	union ibv_gid gid;
	struct ibv_port_attr port;
	CHECK(!ibv_query_gid(context, 1, 0, &gid) && !ibv_query_port(context, 1, &port));
	struct ibv_ah_attr way = {
		.is_global = 1, .grh = { .dgid = gid, .sgid_index = 0, .hop_limit = 64 }, .dlid = port.lid, .port_num = 1,
	};
	struct ibv_ah *ah = ibv_create_ah(pd, &way);
	CHECK(ah);

	struct ibv_sge place = piece(setup, mr, 256, 64);
	struct ibv_recv_wr receive = { .wr_id = 0x51, .sg_list = &place, .num_sge = 1 }, *bad;
	CHECK(!ibv_post_recv(qp[1], &receive, &bad) && !ibv_post_recv(qp[1], &receive, &bad));
	struct ibv_sge pieces[] = { piece(setup, mr, 0, 16), piece(setup, mr, 64, 8) };
	struct ibv_data_buf shown = { .addr = setup->memory, .length = 16 };
	uint64_t remote = (uintptr_t)(setup->memory + 1024);
	struct ibv_qp_ex *extended = (struct ibv_qp_ex *)qp[0];
	ibv_wr_start(extended);
	extended->wr_id = 1;
	extended->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_send_imm(extended, htobe32(9));
	ibv_wr_set_ud_addr(extended, ah, qp[1]->qp_num, QKEY);
	ibv_wr_set_sge_list(extended, 2, pieces);
	extended->wr_id = 2;
	extended->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_rdma_write(extended, exposed->rkey, remote);
	ibv_wr_set_ud_addr(extended, ah, qp[1]->qp_num, QKEY);
	ibv_wr_set_sge(extended, pieces->lkey, pieces->addr, pieces->length);
	extended->wr_id = 3;
	extended->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_rdma_read(extended, exposed->rkey, remote);
	ibv_wr_set_ud_addr(extended, ah, qp[1]->qp_num, QKEY);
	ibv_wr_set_sge(extended, pieces[1].lkey, pieces[1].addr, pieces[1].length);
	extended->wr_id = 4;
	extended->wr_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
	ibv_wr_send(extended);
	ibv_wr_set_ud_addr(extended, ah, qp[1]->qp_num, QKEY);
	ibv_wr_set_inline_data(extended, shown.addr, shown.length);
	CHECK(!ibv_wr_complete(extended));
	struct ibv_wc wc[16];
	CHECK(ibv_poll_cq(cq, 16, wc) == 6);

	/* One by the older function, which posts lists. */
	struct ibv_qp_init_attr legacy = {
		.send_cq = cq,
		.recv_cq = cq,
		.cap = { .max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_DRIVER,
	};
	struct ibv_qp *older = efadv_create_driver_qp(pd, &legacy, EFADV_QP_DRIVER_TYPE_SRD);
	CHECK(older);
	int line = to_work(older);
	if (line)
		return line;
	CHECK(!ibv_post_recv(qp[1], &receive, &bad));
	struct ibv_send_wr send = {
		.wr_id = 5, .sg_list = pieces, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED,
		.wr.ud = { .ah = ah, .remote_qpn = qp[1]->qp_num, .remote_qkey = QKEY },
	};
	struct ibv_send_wr *refused;
	CHECK(!ibv_post_send(older, &send, &refused));
	CHECK(ibv_poll_cq(cq, 16, wc) == 2);

	CHECK(!ibv_destroy_qp(older) && !ibv_destroy_ah(ah) && !ibv_destroy_qp(qp[0]) && !ibv_destroy_qp(qp[1]));
	CHECK(!ibv_dereg_mr(exposed) && !ibv_dereg_mr(mr) && !ibv_destroy_cq(cq) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

/* Each port is asked. */
int ports(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context && setup);
	struct ibv_port_attr port;
	union ibv_gid gid;
	__be16 pkey;
	for (uint8_t number = 1; number <= 2; number++)
		CHECK(!ibv_query_port(context, number, &port));
	CHECK(!ibv_query_gid(context, 2, 0, &gid) && !ibv_query_pkey(context, 2, 0, &pkey) && !ibv_close_device(context));
	return 0;
}

/* Queue pairs and ways use the second. */
int second_port(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context && setup);
	union ibv_gid gid;
	CHECK(!ibv_query_gid(context, 2, 0, &gid));
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	struct ends ends;
	CHECK(pd && cq);
	int line = make_ends(&ends, pd, cq, 0, 2, 0);
	if (line)
		return line;
	struct ibv_ah_attr way = { .is_global = 1, .grh = { .dgid = gid, .sgid_index = 0, .hop_limit = 64 }, .port_num = 2 };
	struct ibv_ah *ah = ibv_create_ah(pd, &way);
	CHECK(ah && !ibv_destroy_ah(ah));
	CHECK(!ibv_destroy_qp(ends.qp[0]) && !ibv_destroy_qp(ends.qp[1]));
	CHECK(!ibv_destroy_cq(cq) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}
