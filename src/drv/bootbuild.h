/* Makes what is in the boot cache (bootcache.h). Blocking, some 20 to 60 s: runs in a process of
 * its own, `h2ofleetd --build-boot-cache` (in the background, at idle priority) or `h2ofleet
 * prepare`.
 *
 * The steps: native libraries; a first node, whose class list is written down and whose endpoints
 * are the measure; the archive; a second node with it, which must map it, have the same endpoints,
 * open a session and train a tiny model. Both nodes are clouds of one on 127.0.0.1, on free ports,
 * die with this process (PR_SET_PDEATHSIG) and leave no file. */
#pragma once

#include "drv/bootcache.h"

struct boot_build {
	const char *cache_dir; /* absolute; made with its parents when it is not there */
	struct boot_runtime runtime;
	bool native_only; /* no archive */
	bool again;       /* also when there is a verdict already */
	bool idle;        /* SCHED_IDLE and idle I/O, for this process and its children */
	uint64_t
		max_total; /* bytes that the cache may have; older runtimes go first. 0: no bound */
	/* What it does now, one line; may be NULL. `step` of `steps`. */
	void (*progress)(unsigned step, unsigned steps, const char *what, void *arg);
	void *arg;
};

/* 0: all that can be had is there (*out: what, to be cleared by the caller; its verdict may be
 * BOOT_REFUSED). -EBUSY: another process is at it. -ENOSPC, -EACCES, ... with a sentence: it could
 * not be tried, nothing has changed. */
int bootcache_build(const struct boot_build *rq, struct boot_found *out, struct err *e);
