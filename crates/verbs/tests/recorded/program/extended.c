/* What no device of a kernel without hardware has either: domains for one thread, extended connections, raw packets. */
#include "recorded.h"

#include <arpa/inet.h>
#include <fcntl.h>

/* As `thread_domain` in safe.rs. */
int thread_domain(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	struct ibv_td_init_attr of_thread = {};
	struct ibv_cq_init_attr_ex of_queue = {
		.cqe = 64,
		.wc_flags = IBV_WC_STANDARD_FLAGS,
		.comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS,
		.flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED,
	};

	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	CHECK(pd);
	struct ibv_td *td = ibv_alloc_td(context, &of_thread);
	CHECK(td);
	struct ibv_parent_domain_init_attr of_parent = { .pd = pd, .td = td };
	struct ibv_pd *parent = ibv_alloc_parent_domain(context, &of_parent);
	CHECK(parent);
	struct ibv_cq_ex *queue = ibv_create_cq_ex(context, &of_queue);
	CHECK(queue);
	struct ibv_mr *mr = ibv_reg_mr(parent, setup->memory, 1024, IBV_ACCESS_LOCAL_WRITE);
	CHECK(mr);
	CHECK(!ibv_dereg_mr(mr));
	CHECK(!ibv_destroy_cq(ibv_cq_ex_to_cq(queue)));
	CHECK(!ibv_dealloc_pd(parent));
	CHECK(!ibv_dealloc_pd(pd));
	CHECK(!ibv_dealloc_td(td));
	CHECK(!ibv_close_device(context));
	return 0;
}

enum { RECEIVES = 4 };

static int poll_both(struct ibv_cq *queue, int expected)
{
	struct ibv_wc places[16];

	CHECK(ibv_poll_cq(queue, 16, places) == expected);
	for (int at = 0; at < expected; at++)
		CHECK(places[at].status == IBV_WC_SUCCESS);
	return 0;
}

/* One message by a list, one by the extended functions, each into a queue of its own. */
static int xrc(const struct setup *setup, int extended)
{
	struct ibv_context *context = open_first();
	struct ibv_port_attr port;
	union ibv_gid gid;
	uint32_t number;
	int line;

	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 128, NULL, NULL, 0);
	CHECK(pd && cq);
	struct ibv_mr *mr = ibv_reg_mr(pd, setup->memory, 1024, IBV_ACCESS_LOCAL_WRITE);
	struct ibv_xrcd_init_attr of_domain = { .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT };
	struct ibv_xrcd *domain = ibv_open_xrcd(context, &of_domain);
	CHECK(mr && domain);
	struct ibv_srq_init_attr_ex of_receives = {
		.attr = { .max_wr = RECEIVES, .max_sge = 1 },
		.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ,
		.srq_type = IBV_SRQT_XRC,
		.pd = pd,
		.xrcd = domain,
		.cq = cq,
	};
	struct ibv_srq *receives = ibv_create_srq_ex(context, &of_receives);
	CHECK(receives);
	CHECK(!ibv_get_srq_num(receives, &number));

	CHECK(!ibv_query_port(context, 1, &port));
	CHECK(!ibv_query_gid(context, 1, 0, &gid));
	struct ibv_qp_init_attr_ex of_receiver = { .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = domain };
	struct ibv_qp *receiver = ibv_create_qp_ex(context, &of_receiver);
	CHECK(receiver);
	struct ibv_qp_attr begun = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE };
	CHECK(!ibv_modify_qp(receiver, &begun, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));
	struct ibv_qp_init_attr_ex of_sender = {
		.send_cq = cq,
		.cap = { .max_send_wr = 16, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_XRC_SEND,
		.comp_mask = IBV_QP_INIT_ATTR_PD | (extended ? IBV_QP_INIT_ATTR_SEND_OPS_FLAGS : 0),
		.pd = pd,
		.send_ops_flags = !extended ? 0 :
			IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM |
			IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD |
			IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_SEND_WITH_INV,
	};
	struct ibv_qp *sender = ibv_create_qp_ex(context, &of_sender);
	CHECK(sender);
	struct ibv_qp_ex *ex = extended ? ibv_qp_to_qp_ex(sender) : NULL;
	CHECK(!extended || ex);
	begun.qp_access_flags = 0;
	CHECK(!ibv_modify_qp(sender, &begun, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS));

	struct ibv_qp_attr ready = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = port.active_mtu,
		.dest_qp_num = sender->qp_num,
		.rq_psn = PSN,
		.max_dest_rd_atomic = 16,
		.min_rnr_timer = 12,
		.ah_attr = {
			.is_global = 1,
			.grh = { .dgid = gid, .sgid_index = 0, .hop_limit = 64 },
			.dlid = port.lid,
			.port_num = 1,
		},
	};
	int both = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	CHECK(!ibv_modify_qp(receiver, &ready, both | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
	ready.dest_qp_num = receiver->qp_num;
	ready.max_dest_rd_atomic = 0;
	ready.min_rnr_timer = 0;
	CHECK(!ibv_modify_qp(sender, &ready, both));
	struct ibv_qp_attr sending = { .qp_state = IBV_QPS_RTS, .sq_psn = PSN, .timeout = 14, .retry_cnt = 6, .rnr_retry = 7, .max_rd_atomic = 16 };
	CHECK(!ibv_modify_qp(sender, &sending, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC));

	struct ibv_sge place = piece(setup, mr, 256, 64), message = piece(setup, mr, 0, 16);
	struct ibv_recv_wr receive = { .wr_id = 0x51, .sg_list = &place, .num_sge = 1 }, *bad_receive;
	CHECK(!ibv_post_srq_recv(receives, &receive, &bad_receive));
	if (extended) {
		ibv_wr_start(ex);
		ex->wr_id = 1;
		ex->wr_flags = IBV_SEND_SIGNALED;
		ibv_wr_send_imm(ex, htonl(9));
		ibv_wr_set_xrc_srqn(ex, number);
		ibv_wr_set_sge(ex, message.lkey, message.addr, message.length);
		CHECK(!ibv_wr_complete(ex));
	} else {
		struct ibv_send_wr send = {
			.wr_id = 1,
			.sg_list = &message,
			.num_sge = 1,
			.opcode = IBV_WR_SEND_WITH_IMM,
			.send_flags = IBV_SEND_SIGNALED,
			.imm_data = htonl(9),
			.qp_type.xrc.remote_srqn = number,
		}, *bad;

		CHECK(!ibv_post_send(sender, &send, &bad));
	}
	if ((line = poll_both(cq, 2)))
		return line;
	CHECK(!ibv_destroy_qp(sender));
	CHECK(!ibv_destroy_qp(receiver));
	CHECK(!ibv_destroy_srq(receives));
	CHECK(!ibv_close_xrcd(domain));
	CHECK(!ibv_dereg_mr(mr));
	CHECK(!ibv_destroy_cq(cq));
	CHECK(!ibv_dealloc_pd(pd));
	CHECK(!ibv_close_device(context));
	return 0;
}

/* As `linked_extended_connection` in safe.rs. */
int linked_extended_connection(const struct setup *setup)
{
	return xrc(setup, 0);
}

/* As `extended_extended_connection` in safe.rs. */
int extended_extended_connection(const struct setup *setup)
{
	return xrc(setup, 1);
}

/* As `raw_packets` in safe.rs. */
int raw_packets(const struct setup *setup)
{
	struct ibv_context *context = open_first();
	static const uint8_t to[6] = { 2, 0, 0, 0, 0, 9 }, whole[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	int line;

	CHECK(context);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	CHECK(pd && cq);
	struct ibv_mr *mr = ibv_reg_mr(pd, setup->memory, 1024, IBV_ACCESS_LOCAL_WRITE);
	CHECK(mr);
	struct ibv_qp_init_attr_ex init = {
		.send_cq = cq,
		.recv_cq = cq,
		.cap = { .max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_RAW_PACKET,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = pd,
		.send_ops_flags = IBV_QP_EX_WITH_SEND,
	};
	struct ibv_qp *qp = ibv_create_qp_ex(context, &init);
	CHECK(qp);
	struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(qp);
	CHECK(ex);
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	CHECK(!ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PORT));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR };
	CHECK(!ibv_modify_qp(qp, &attr, IBV_QP_STATE));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS };
	CHECK(!ibv_modify_qp(qp, &attr, IBV_QP_STATE));

	struct ibv_sge place = piece(setup, mr, 256, 128), frame = piece(setup, mr, 0, 60);
	struct ibv_recv_wr receive = { .wr_id = 0x51, .sg_list = &place, .num_sge = 1 }, *bad_receive;
	CHECK(!ibv_post_recv(qp, &receive, &bad_receive));
	struct {
		struct ibv_flow_attr head;
		struct ibv_flow_spec_eth eth;
		struct ibv_flow_spec_ipv4 ipv4;
		struct ibv_flow_spec_tcp_udp udp;
	} rule;
	memset(&rule, 0, sizeof(rule));
	rule.head = (struct ibv_flow_attr){ .type = IBV_FLOW_ATTR_NORMAL, .size = sizeof(rule), .priority = 3, .num_of_specs = 3, .port = 1 };
	rule.eth.type = IBV_FLOW_SPEC_ETH;
	rule.eth.size = sizeof(rule.eth);
	memcpy(rule.eth.val.dst_mac, to, 6);
	memcpy(rule.eth.mask.dst_mac, whole, 6);
	rule.eth.val.ether_type = htons(0x0800);
	rule.eth.mask.ether_type = 0xffff;
	rule.ipv4.type = IBV_FLOW_SPEC_IPV4;
	rule.ipv4.size = sizeof(rule.ipv4);
	rule.ipv4.val.dst_ip = htonl(0x0a010203);
	rule.ipv4.mask.dst_ip = 0xffffffff;
	rule.udp.type = IBV_FLOW_SPEC_UDP;
	rule.udp.size = sizeof(rule.udp);
	rule.udp.val.dst_port = htons(4791);
	rule.udp.mask.dst_port = 0xffff;
	struct ibv_flow *flow = ibv_create_flow(qp, &rule.head);
	CHECK(flow);
	struct {
		struct ibv_flow_attr head;
		struct ibv_flow_spec_ipv6 ipv6;
	} other;
	memset(&other, 0, sizeof(other));
	other.head = (struct ibv_flow_attr){ .type = IBV_FLOW_ATTR_NORMAL, .size = sizeof(other), .num_of_specs = 1, .port = 1, .flags = IBV_FLOW_ATTR_FLAGS_DONT_TRAP };
	other.ipv6.type = IBV_FLOW_SPEC_IPV6;
	other.ipv6.size = sizeof(other.ipv6);
	other.ipv6.val.src_ip[15] = 1;
	memset(other.ipv6.mask.src_ip, 0xff, 16);
	other.ipv6.val.flow_label = htonl(0x12345);
	other.ipv6.mask.flow_label = htonl(0xfffff);
	other.ipv6.val.next_hdr = 17;
	other.ipv6.mask.next_hdr = 0xff;
	other.ipv6.val.hop_limit = 1;
	other.ipv6.mask.hop_limit = 0xff;
	struct ibv_flow *second = ibv_create_flow(qp, &other.head);
	CHECK(second);
	struct ibv_flow_attr all = { .type = IBV_FLOW_ATTR_SNIFFER, .size = sizeof(all), .port = 1 };
	struct ibv_flow *third = ibv_create_flow(qp, &all);
	CHECK(third);

	ibv_wr_start(ex);
	ex->wr_id = 1;
	ex->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_send(ex);
	ibv_wr_set_sge(ex, frame.lkey, frame.addr, frame.length);
	CHECK(!ibv_wr_complete(ex));
	if ((line = poll_both(cq, 2)))
		return line;
	CHECK(!ibv_destroy_flow(third));
	CHECK(!ibv_destroy_flow(flow));
	CHECK(!ibv_destroy_flow(second));
	CHECK(!ibv_destroy_qp(qp));
	CHECK(!ibv_dereg_mr(mr));
	CHECK(!ibv_destroy_cq(cq));
	CHECK(!ibv_dealloc_pd(pd));
	CHECK(!ibv_close_device(context));
	return 0;
}
