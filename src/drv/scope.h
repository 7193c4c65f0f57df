/* Asks systemd, over D-Bus and without ever blocking, to put processes into a control group: into a
 * transient scope of their own (StartTransientUnit), or into a subgroup of a unit that is delegated
 * to our user (AttachProcessesToUnit, which needs no privilege).
 *
 * Each job has a connection of its own, for the milliseconds that it lasts: nothing has to be
 * mended when the bus or systemd is started anew. */
#pragma once

#include <sys/types.h>
#include <uv.h>

#include "base/err.h"

struct scope_request {
	bool user;               /* of the user's manager, not of the system's */
	const char *name;        /* "h2ofleet-....scope" */
	const char *description; /* what people see */
	const char *slice;
	const char *
		part_of; /* a unit with whose stop it ends, and before whose start it began; NULL */
	const pid_t *pids; /* who is in it from the beginning */
	size_t n_pids;
	uint64_t memory_max;  /* bytes; 0: no limit */
	uint64_t cpu_percent; /* of one CPU; 0: no limit */
};

struct scope_job;

/* Called once: 0, or a negative errno with a sentence: -ETIMEDOUT when nobody has answered in time
 * (it may still come to pass), -EACCES when we may not. The job is gone then. */
typedef void (*scope_cb)(int result, const char *why, void *arg);

/* Is there a systemd, and are we a service of it (of the system's or of a user's)? The names are
 * owned by the caller; NULL where we are not. */
bool scope_systemd_booted(void);
char *scope_own_unit(bool user);

/* The callback is never called from within these; on failure not at all. */
int scope_start(uv_loop_t *loop, const struct scope_request *rq, uint64_t timeout_ms, scope_cb cb,
	void *arg, struct scope_job **out, struct err *e);
/* `subgroup`: "/NAME", which is there. */
int scope_attach(uv_loop_t *loop, const char *unit, const char *subgroup, const pid_t *pids,
	size_t n_pids, uint64_t timeout_ms, scope_cb cb, void *arg, struct scope_job **out,
	struct err *e);

/* No callback any more. NULL is fine. */
void scope_cancel(struct scope_job *j);
