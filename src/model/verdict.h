/* What a member's answer to /3/Cloud says about its cloud.
 *
 * Pure: text in, verdict out. Fields as in H2O's CloudV3
 * (h2o-core/src/main/java/water/api/schemas3/ CloudV3.java); what they are worth was measured
 * (HACKING.md, "What H2O really does"). */
#pragma once

#include "base/err.h"

struct h2o_member {
	char ip_port[64]; /* "127.0.0.1:54321" */
	int64_t pid;      /* 0 until the first heartbeat of that member came */
	bool healthy;     /* heard within 60 s, H2O's own fixed limit */
	int64_t last_ping_ms;
	uint64_t free_mem, max_mem; /* bytes */
	uint64_t mem_value_size, pojo_mem;
	int64_t num_cpus, nthreads;
	double sys_load;
	int64_t num_keys;
};

struct h2o_cloud_view {
	char version[32];
	char cloud_name[128];
	int64_t cloud_size;
	int64_t node_idx; /* the answering member's place in `members`; -1 unknown */
	int64_t bad_nodes;
	int64_t uptime_ms;
	bool consensus;
	bool locked;
	bool cloud_healthy;
	struct h2o_member *members; /* owned */
	size_t n_members;
};

/* Parses the body of GET /3/Cloud. Returns 0 or -EINVAL (not JSON, not a CloudV3). Unknown fields
 * are ignored; non-finite numbers come as strings and count as 0. */
int h2o_cloud_view_parse(const char *body, size_t len, struct h2o_cloud_view *v, struct err *e);
void h2o_cloud_view_free(struct h2o_cloud_view *v);

enum verdict {
	VERDICT_WHOLE,      /* n members, consensus, healthy, the pids that we launched */
	VERDICT_INCOMPLETE, /* not all members yet, or no consensus yet */
	VERDICT_SHORT_LOCK, /* a client locked it while it was too small: beyond repair */
	VERDICT_UNHEALTHY,  /* whole, but a member was not heard for 60 s */
	VERDICT_WRONG,      /* another cloud or another process answers */
};

/* What a whole cloud looks like, for verdict_of(). Members in slot order. */
struct expected_member {
	char ip_port[64];
	int64_t pid;
};

struct expected_cloud {
	const char *name; /* H2O's -name of this generation */
	const struct expected_member *members;
	size_t n;
};

/* `slot` is the member that answered. `why` (owned by the caller, may be NULL) gets a sentence
 * unless the verdict is VERDICT_WHOLE. */
enum verdict verdict_of(const struct h2o_cloud_view *v, const struct expected_cloud *expected,
	size_t slot, char **why);
