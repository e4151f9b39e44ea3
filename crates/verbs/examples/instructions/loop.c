/* The loops that a careful program in C has, against the null device: what the Rust side is compared with.
 * Compiled by the example that counts, and by nothing else. */
#include <infiniband/verbs.h>
#include <stdint.h>
#include <stddef.h>

enum { BATCH = 16 };

struct memory {
    uint8_t *bytes;
    uint32_t length;
    uint32_t lkey;
};

struct target {
    uint64_t addr;
    uint32_t rkey;
};

struct plan {
    uint64_t requests; /* in all, a multiple of 16 */
    int is_write;
    int is_batch;
    int signal_all; /* or only the last of 16 */
    int is_extended;
};

/* Polls until `count` completions have come; 0 when all of them succeeded. */
static int poll_until(struct ibv_cq *cq, int count)
{
    struct ibv_wc wc[BATCH];

    while (count > 0) {
        int got = ibv_poll_cq(cq, count, wc);
        if (got < 0)
            return -1;
        for (int i = 0; i < got; i++)
            if (wc[i].status != IBV_WC_SUCCESS)
                return -1;
        count -= got;
    }
    return 0;
}

static unsigned flags_of(const struct plan *plan, uint64_t request)
{
    return plan->signal_all || request % BATCH == BATCH - 1 ? IBV_SEND_SIGNALED : 0;
}

static int single(struct ibv_qp *qp, struct ibv_cq *cq, const struct plan *plan, const struct memory *memory,
                  const struct target *target)
{
    for (uint64_t request = 0; request < plan->requests; request++) {
        const struct memory *own = &memory[request % BATCH];
        struct ibv_sge sge = { .addr = (uintptr_t)own->bytes, .length = own->length, .lkey = own->lkey };
        struct ibv_send_wr wr = {
            .wr_id = request,
            .sg_list = &sge,
            .num_sge = 1,
            .opcode = IBV_WR_SEND,
            .send_flags = flags_of(plan, request),
        };
        struct ibv_send_wr *bad;

        if (plan->is_write) {
            wr.opcode = IBV_WR_RDMA_WRITE;
            wr.wr.rdma.remote_addr = target->addr;
            wr.wr.rdma.rkey = target->rkey;
        }
        if (ibv_post_send(qp, &wr, &bad))
            return -1;
        if ((wr.send_flags & IBV_SEND_SIGNALED) && poll_until(cq, 1))
            return -1;
    }
    return 0;
}

static int batch(struct ibv_qp *qp, struct ibv_cq *cq, const struct plan *plan, const struct memory *memory,
                 const struct target *target)
{
    struct ibv_sge sge[BATCH];
    struct ibv_send_wr wr[BATCH] = { 0 };

    for (uint64_t request = 0; request < plan->requests; request += BATCH) {
        struct ibv_send_wr *bad;

        for (int i = 0; i < BATCH; i++) {
            sge[i].addr = (uintptr_t)memory[i].bytes;
            sge[i].length = memory[i].length;
            sge[i].lkey = memory[i].lkey;
            wr[i].wr_id = request + i;
            wr[i].next = i + 1 < BATCH ? &wr[i + 1] : NULL;
            wr[i].sg_list = &sge[i];
            wr[i].num_sge = 1;
            wr[i].opcode = IBV_WR_SEND;
            wr[i].send_flags = flags_of(plan, request + i);
            if (plan->is_write) {
                wr[i].opcode = IBV_WR_RDMA_WRITE;
                wr[i].wr.rdma.remote_addr = target->addr;
                wr[i].wr.rdma.rkey = target->rkey;
            }
        }
        if (ibv_post_send(qp, wr, &bad))
            return -1;
        if (poll_until(cq, plan->signal_all ? BATCH : 1))
            return -1;
    }
    return 0;
}

static int extended(struct ibv_qp_ex *qp, struct ibv_cq *cq, const struct plan *plan, const struct memory *memory,
                    const struct target *target)
{
    uint64_t together = plan->is_batch ? BATCH : 1;

    for (uint64_t request = 0; request < plan->requests; request += together) {
        unsigned flags = 0;

        ibv_wr_start(qp);
        for (uint64_t i = 0; i < together; i++) {
            const struct memory *own = &memory[(request + i) % BATCH];

            qp->wr_id = request + i;
            qp->wr_flags = flags = flags_of(plan, request + i);
            if (plan->is_write)
                ibv_wr_rdma_write(qp, target->rkey, target->addr);
            else
                ibv_wr_send(qp);
            ibv_wr_set_sge(qp, own->lkey, (uintptr_t)own->bytes, own->length);
        }
        if (ibv_wr_complete(qp))
            return -1;
        if (plan->is_batch) {
            if (poll_until(cq, plan->signal_all ? BATCH : 1))
                return -1;
        } else if (flags && poll_until(cq, 1)) {
            return -1;
        }
    }
    return 0;
}

/* 0 when every request succeeded. The queue pair of the null device is an extended one too. */
int sinew_count_loop(struct ibv_qp *qp, struct ibv_cq *cq, const struct plan *plan, const struct memory *memory,
                     const struct target *target)
{
    if (plan->is_extended)
        return extended((struct ibv_qp_ex *)qp, cq, plan, memory, target);
    return plan->is_batch ? batch(qp, cq, plan, memory, target) : single(qp, cq, plan, memory, target);
}
