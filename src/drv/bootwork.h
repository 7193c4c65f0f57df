/* What the files of the builder (bootbuild.c) share. */
#pragma once

#include <uv.h>

#include "drv/bootbuild.h"
#include "drv/bootentry.h"
#include "drv/bootrun.h"
#include "drv/http.h"
#include "drv/ports.h"

/* Of the nodes, and of the JVM that makes the archive. */
#define BOOT_HEAP "-Xmx512m"

/* One build. */
struct boot_job {
	const struct boot_build *rq;
	char *boot; /* CACHE_DIR/boot */
	char *work; /* a directory of ours below it; removed in every case */
	int lock;
	unsigned steps;
	struct boot_identity id;
	struct boot_found found; /* as it is now: the libraries are used by both nodes */
	uint64_t timeout_ms;
	struct {
		uint64_t begun_ms, plain_ms, archive_ms, ready_ms; /* took */
		uint64_t plain_cpu_ms, ready_cpu_ms;
		size_t routes;
	} measured;
};

void boot_progress(const struct boot_job *job, unsigned step, const char *fmt, ...) _printf_(3, 4);

/* Renames a directory in `work` that is whole (files written, not yet synced) to boot/NAME, in the
 * place of what may be there. */
int boot_publish(const struct boot_job *job, const char *from, const char *name, struct err *e);
/* Writes DIR/verdict.json; takes the reference. */
int boot_write_verdict(const char *dir, json_t *verdict, struct err *e);

/* Writes what was written to `fd` to the disk, piece by piece: all at once could take a minute, in
 * which nothing, not even SIGKILL, ends a process. -EINTR when we are told to end. */
int boot_sync(int fd);

/* How long a node, or the making of an archive, may take: what the request says, but no less than
 * 20 times what the plain node took. On a machine that is busy with other things all is slow, and
 * that is nobody's fault. */
uint64_t boot_patience_ms(const struct boot_job *job);

/* -ENOSPC with a sentence where less than `bytes` are free. */
int boot_check_space(const struct boot_job *job, uint64_t bytes, struct err *e);

/* bootnative.c: the libraries; 0 when they are there, or the jar has none. */
int boot_make_native(struct boot_job *job, struct err *e);
/* java.library.path as the JVM has it when nobody says; NULL: it does not tell; owned by the
 * caller. */
char *boot_jvm_library_path(const char *java);

/* --- bootnode.c: a throw-away node ------------------------------------------------------------ */

struct boot_node {
	const struct boot_job *job;
	const char *name; /* of its folder in `work` */
	char *dir;
	struct port_pair ports;
	struct boot_process process;
	uv_loop_t loop; /* of the HTTP client alone */
	bool has_loop;
	struct http *http;
	int out; /* its output: a file in `dir` */
	uint64_t begun_ms, ready_ms, ready_cpu_ms;
};

/* Starts it; `flags`: what it gets besides. To be ended in any case. */
int boot_node_start(struct boot_node *n, const struct boot_job *job, const char *name,
	const struct strv *flags, struct err *e);
/* Until it serves as a cloud of one. -ESRCH: it ended; -ETIMEDOUT, -EINTR. */
int boot_node_wait(struct boot_node *n, struct err *e);
/* A request; `form` makes a POST of a GET. The answer's JSON is to be decref'ed by the caller, and
 * may be NULL for an answer that has none. Returns the HTTP status or a negative errno with a
 * sentence. */
int boot_node_ask(struct boot_node *n, const char *method, const char *path, const char *form,
	json_t **answer, struct err *e);
/* SIGTERM, and waits: what it writes at its end is written then. -ETIMEDOUT, -EINTR. */
int boot_node_stop(struct boot_node *n, struct err *e);
/* At once, where it still runs, and takes its files away. */
void boot_node_end(struct boot_node *n);

/* The lines of grave errors that it has logged. */
void boot_node_errors(const struct boot_node *n, struct strv *lines);
/* It has failed. 0: that may be its own fault; else a negative errno with a sentence, as of
 * boot_not_its_fault(). */
int boot_node_excused(const struct boot_node *n, struct err *e);
/* Its first grave line, else the last that it said; owned by the caller. */
char *boot_node_last_words(const struct boot_node *n);

/* --- bootcheck.c: what a good node does --------------------------------------------------------
 */

/* Its endpoints: an object of "METHOD PATTERN" to a list of what answers. NULL with a sentence. */
json_t *boot_endpoints(struct boot_node *n, struct err *e);
/* NULL when equal; else a sentence that names the first differences; owned by the caller. */
char *boot_endpoints_differ(const json_t *plain, const json_t *other);

/* What a client does first, an expression, a tiny model. 0; -EBADMSG with a sentence when it
 * answers wrongly; other errnos as boot_node_ask(). */
int boot_exercise(struct boot_node *n, struct err *e);

/* --- bootkeep.c: what stays and what goes ------------------------------------------------------
 */

/* Removes what is stale or was set aside; `boot` is locked. */
void boot_sweep(const char *boot);
/* Removes the least recently used until `max_total` is kept, except `keep` and the libraries
 * `keep_native`. */
void boot_bound(const char *boot, uint64_t max_total, const char *keep, const char *keep_native);
/* Takes the lock; a descriptor, or -EBUSY, ... with a sentence. */
int boot_lock(const char *boot, struct err *e);
