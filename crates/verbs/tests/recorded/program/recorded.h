/* What the scenarios share: the memory that both sides use, and how a check that failed is told. */
#pragma once

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <infiniband/verbs.h>
#include <infiniband/efadv.h>

/* As `Setup` in main.rs. */
struct setup {
	unsigned char *memory;
	size_t length;
	/* A descriptor that stands for a DMA-BUF. */
	int descriptor;
	/* Which difference is planted; 0 for none. */
	int planted;
};

/* A scenario answers 0, or the line of the check that failed. */
#define CHECK(condition) \
	do { \
		if (!(condition)) \
			return __LINE__; \
	} while (0)

/* The first device, opened; null when there is none. */
static inline struct ibv_context *open_first(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = list && list[0] ? ibv_open_device(list[0]) : NULL;

	if (list)
		ibv_free_device_list(list);
	return context;
}

static inline struct ibv_sge piece(const struct setup *setup, struct ibv_mr *mr, size_t offset, uint32_t length)
{
	return (struct ibv_sge){ .addr = (uintptr_t)(setup->memory + offset), .length = length, .lkey = mr->lkey };
}

/* Two connected queue pairs of one port, made by connected.c. */
struct ends {
	struct ibv_qp *qp[2];
	struct ibv_qp_ex *extended[2];
};

enum { PSN = 0x1234 };

int make_ends(struct ends *ends, struct ibv_pd *pd, struct ibv_cq *cq, uint64_t operations, uint8_t port, unsigned int access);
