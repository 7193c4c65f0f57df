/* Makes what is in the boot cache (bootcache.h). Blocking, some 20 to 60 s: runs in a process of
 * its own, `h2ofleetd --build-boot-cache` (in the background, at idle priority) or `h2ofleet
 * prepare`.
 *
 * The steps: native libraries; a first node, whose class list is written down and whose endpoints
 * are the measure; the archive; a second node with it, which must map it, have the same endpoints,
 * open a session and train a tiny model. Both nodes are clouds of one on 127.0.0.1, on free ports,
 * die with this process (PR_SET_PDEATHSIG) and leave no file. SIGTERM, SIGINT and SIGHUP end it in
 * order; after SIGKILL the next one sweeps. */
#pragma once

#include <jansson.h>

#include "drv/bootcache.h"

struct boot_build {
	const char *cache_dir; /* absolute; made with its parents when it is not there */
	struct boot_runtime runtime;
	bool native_only; /* no archive */
	bool again;       /* also when there is a verdict already */
	bool idle;        /* SCHED_IDLE and idle I/O, for this process and its children */
	uint64_t
		max_total; /* bytes that the cache may have; older runtimes go first. 0: no bound */
	uint64_t node_timeout_ms; /* for a node to become ready, for an archive to be made; 0:
				     5 min, 30 min when `idle` */
	char *const *env;         /* of the nodes, as plan_clean_env() leaves it; NULL: none */
	const char *archive;      /* for tests: check this one instead of making one; no jar or JVM
				     is protected from it, so nothing is stored */
	/* What it does now, one line; may be NULL. `step` of `steps`. */
	void (*progress)(unsigned step, unsigned steps, const char *what, void *arg);
	void *arg;
};

/* 0: all that can be had is there (*out: what, to be cleared by the caller; its verdict may be
 * BOOT_REFUSED). -EBUSY: another process is at it. -EINTR: told to end. -ENOSPC, -EACCES,
 * -ETIMEDOUT, ... with a sentence: it could not be tried, and there is what was there before (the
 * native libraries may be new). */
int bootcache_build(const struct boot_build *rq, struct boot_found *out, struct err *e);

/* The arguments of `h2ofleetd --build-boot-cache`: NAME=VALUE words, and back (which keeps pointers
 * into `args`). `env`, `progress` and `arg` are not among them. -EINVAL. */
void bootbuild_add_args(const struct boot_build *rq, struct strv *argv);
int bootbuild_parse_args(char *const *args, struct boot_build *rq);

/* Its exit codes besides EXIT_SUCCESS (all that can be had is there) and EXIT_FAILURE. Its last
 * line on standard output is a sentence, or the verdict in one word; the lines before are
 * progress. */
#define BOOT_EXIT_REFUSED 3
#define BOOT_EXIT_BUSY    75

/* `h2ofleetd --explain-boot-cache`, which has the same arguments, prints why a JVM does not take
 * the archive (EXIT_SUCCESS), or ends with this: it would; or with EXIT_FAILURE: nobody knows. */
#define BOOT_EXIT_ACCEPTED 4

/* What is in a cache, for people: an array of what each verdict.json says ("identity", "verdict",
 * "why", "java", "jar", "made", ...), with "name", "kind" ("native", "archive"), "path", "bytes",
 * "used_ms" and "current" (false: stale). Never NULL; to be decref'ed. */
json_t *bootcache_list(const char *cache_dir);

/* Removes all of it; *bytes: how much that was. 0; -EBUSY while one is being built; -EACCES, ...
 * with a sentence. */
int bootcache_clear(const char *cache_dir, uint64_t *bytes, struct err *e);
