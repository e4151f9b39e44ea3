/* Completion queues that tell more, moderation, and the device's clock. */
#include "recorded.h"

enum { SENDS = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM |
	       IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
	       IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_SEND_WITH_INV };

/* What a completion that succeeded tells. */
static uint64_t look(struct ibv_cq_ex *cq, int is_wall_clock)
{
	uint64_t sum = ibv_wc_read_qp_num(cq);

	sum += ibv_wc_read_opcode(cq);
	unsigned int flags = ibv_wc_read_wc_flags(cq);
	sum += ibv_wc_read_byte_len(cq);
	if (flags & (IBV_WC_WITH_IMM | IBV_WC_WITH_INV))
		sum += ibv_wc_read_imm_data(cq);
	sum += ibv_wc_read_src_qp(cq) + ibv_wc_read_slid(cq) + ibv_wc_read_sl(cq) + ibv_wc_read_dlid_path_bits(cq);
	return sum + (is_wall_clock ? ibv_wc_read_completion_wallclock_ns(cq) : ibv_wc_read_completion_ts(cq));
}

static int poll_all(struct ibv_cq_ex *cq, int is_wall_clock, int expected)
{
	struct ibv_poll_cq_attr attributes = {};
	int count = 0;

	CHECK(!ibv_start_poll(cq, &attributes));
	do {
		CHECK(cq->status == IBV_WC_SUCCESS && look(cq, is_wall_clock));
		count++;
	} while (!ibv_next_poll(cq));
	ibv_end_poll(cq);
	CHECK(count == expected);
	return 0;
}

static int with_clock(const struct setup *setup, int is_wall_clock)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
	struct ibv_cq_init_attr_ex attributes = {
		.cqe = 64,
		.cq_context = channel,
		.channel = channel,
		.comp_vector = 1,
		.wc_flags = IBV_WC_STANDARD_FLAGS |
			    (is_wall_clock ? IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK : IBV_WC_EX_WITH_COMPLETION_TIMESTAMP),
	};
	struct ibv_cq_ex *cq = ibv_create_cq_ex(context, &attributes);
	struct ibv_mr *mr = ibv_reg_mr(pd, setup->memory, setup->length, IBV_ACCESS_LOCAL_WRITE);
	struct ends ends;
	CHECK(pd && channel && cq && mr);
	int line = make_ends(&ends, pd, ibv_cq_ex_to_cq(cq), SENDS, 1, 0);
	if (line)
		return line;
	CHECK(!ibv_req_notify_cq(ibv_cq_ex_to_cq(cq), 0));

	struct ibv_sge place = piece(setup, mr, 256, 64), bytes = piece(setup, mr, 0, 16);
	struct ibv_recv_wr receive = { .wr_id = 0x51, .sg_list = &place, .num_sge = 1 }, *bad;
	CHECK(!ibv_post_recv(ends.qp[1], &receive, &bad));
	ibv_wr_start(ends.extended[0]);
	ends.extended[0]->wr_id = 1;
	ends.extended[0]->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_send_imm(ends.extended[0], htobe32(7));
	ibv_wr_set_sge(ends.extended[0], bytes.lkey, bytes.addr, bytes.length);
	CHECK(!ibv_wr_complete(ends.extended[0]));
	line = poll_all(cq, is_wall_clock, 2);
	if (line)
		return line;
	struct ibv_cq *told;
	void *cookie;
	CHECK(!ibv_get_cq_event(channel, &told, &cookie) && told == ibv_cq_ex_to_cq(cq));

	/* The device's clock. */
	struct ibv_values_ex values = { .comp_mask = IBV_VALUES_MASK_RAW_CLOCK };
	CHECK(!ibv_query_rt_values_ex(context, &values));

	CHECK(!ibv_destroy_qp(ends.qp[0]) && !ibv_destroy_qp(ends.qp[1]) && !ibv_dereg_mr(mr));
	ibv_ack_cq_events(told, 1);
	CHECK(!ibv_destroy_cq(ibv_cq_ex_to_cq(cq)) && !ibv_destroy_comp_channel(channel));
	CHECK(!ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}

int timestamps(const struct setup *setup)
{
	return with_clock(setup, 0);
}

int wall_clock(const struct setup *setup)
{
	return with_clock(setup, 1);
}

/* What the device says it can do, in the order of `extended_attributes` in main.rs. */
uint64_t told[18];

int attributes(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	struct ibv_device_attr_ex all;
	CHECK(context && setup && !ibv_query_device_ex(context, &(struct ibv_query_device_ex_input){}, &all));
	const uint64_t numbers[] = {
		all.completion_timestamp_mask,
		all.hca_core_clock,
		all.odp_caps.general_caps,
		all.odp_caps.per_transport_caps.rc_odp_caps,
		all.odp_caps.per_transport_caps.uc_odp_caps,
		all.odp_caps.per_transport_caps.ud_odp_caps,
		all.xrc_odp_caps,
		all.packet_pacing_caps.qp_rate_limit_min,
		all.packet_pacing_caps.qp_rate_limit_max,
		all.packet_pacing_caps.supported_qpts,
		all.pci_atomic_caps.fetch_add,
		all.pci_atomic_caps.swap,
		all.pci_atomic_caps.compare_swap,
		all.max_dm_size,
		all.cq_mod_caps.max_cq_count,
		all.cq_mod_caps.max_cq_period,
		all.raw_packet_caps,
		all.phys_port_cnt_ex,
	};
	_Static_assert(sizeof(numbers) == sizeof(told), "as many");
	memcpy(told, numbers, sizeof(told));
	CHECK(!ibv_close_device(context));
	return 0;
}

int moderation(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context && setup);
	struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, NULL, 3);
	struct ibv_modify_cq_attr attributes = { .attr_mask = IBV_CQ_ATTR_MODERATE, .moderate = { .cq_count = 8, .cq_period = 50 } };
	CHECK(cq && !ibv_modify_cq(cq, &attributes) && !ibv_resize_cq(cq, 128));
	CHECK(!ibv_destroy_cq(cq) && !ibv_close_device(context));
	return 0;
}

int shared_receives(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_mr *mr = ibv_reg_mr(pd, setup->memory, setup->length, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_srq_init_attr init = { .attr = { .max_wr = 8, .max_sge = 2 } };
	struct ibv_srq *srq = ibv_create_srq(pd, &init);
	CHECK(pd && mr && srq);
	struct ibv_sge places[] = { piece(setup, mr, 256, 64), piece(setup, mr, 512, 32) };
	struct ibv_recv_wr second = { .wr_id = 6, .sg_list = places, .num_sge = 2 };
	struct ibv_recv_wr first = { .wr_id = 5, .next = &second, .sg_list = places, .num_sge = 1 }, *bad;
	CHECK(!ibv_post_srq_recv(srq, &first, &bad));
	struct ibv_srq_attr limit = { .srq_limit = 2 };
	CHECK(!ibv_modify_srq(srq, &limit, IBV_SRQ_LIMIT));
	CHECK(!ibv_destroy_srq(srq) && !ibv_dereg_mr(mr) && !ibv_dealloc_pd(pd) && !ibv_close_device(context));
	return 0;
}
