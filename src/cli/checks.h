/* The checks of `h2ofleet doctor`. Each adds what it saw to the report. */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "conf/conf.h"

enum check_level {
	CHECK_OK,
	CHECK_WARNING, /* may hurt */
	CHECK_PROBLEM, /* a cloud cannot start */
};

struct check {
	const char *name; /* static */
	enum check_level level;
	char *found;
	char *advice; /* NULL: nothing to do */
};

struct doctor {
	struct conf *conf; /* NULL when it has errors */
	char *jar;         /* of the first cloud; NULL when there is none */
	char *h2o_version; /* of that jar; NULL when unknown */

	const char *socket; /* --socket; NULL: as the environment or the configuration says */
	bool daemon;        /* one answers */
	uid_t daemon_uid;   /* whose it is; valid if something has the socket */
	bool daemon_silent; /* something has the socket, but does not tell us of its clouds */
	struct strv clouds; /* that the daemon runs: neither stopped nor failed */
	uint16_t *ports;    /* its nodes' API ports */
	size_t n_ports;

	struct check *checks;
	size_t n_checks;
};

/* What was found, in one line, and what to do about it (copied; NULL: nothing). */
void doctor_add(struct doctor *d, const char *name, enum check_level level, const char *advice,
	const char *fmt, ...) _printf_(5, 6);

/* From a sentence "what is wrong; what to do"; `advice` where it has no second part. `context`
 * ("cloud dev: ") may be "". */
void doctor_add_sentence(struct doctor *d, const char *name, enum check_level level,
	const char *context, const char *sentence, const char *advice);

/* Adds to a list with ", " between. */
void doctor_list(struct strbuf *b, const char *fmt, ...) _printf_(2, 3);

/* Runs argv[0] (an absolute path) with a time limit; adds what it says (both streams, cut at 64
 * KiB) to `output`. Returns the exit code, 128 + signal, or a negative errno (-ETIMEDOUT). */
int doctor_run(char *const *argv, uint64_t timeout_ms, struct strbuf *output);

/* doctor_runtime.c */
void check_jar(struct doctor *d);
void check_java(struct doctor *d); /* after check_jar() */
void check_client(struct doctor *d);
/* doctor_machine.c; the first two need d->conf */
void check_memory(struct doctor *d);
void check_cores(struct doctor *d);
void check_limits(struct doctor *d);
void check_kernel(struct doctor *d);
void check_proxy(struct doctor *d);
/* The version by running it, which also shows that it runs; a negative errno with a sentence. */
int doctor_java_version(const char *java, int *major, char **version, struct err *e);
/* doctor_boot.c */
void check_boot(struct doctor *d);                        /* after check_daemon(); needs d->conf */
void doctor_boot(struct doctor *d, const json_t *answer); /* of GET /v1/clouds */
/* doctor_disk.c */
void check_disk(struct doctor *d);
void check_leaked(struct doctor *d);
/* doctor_left.c */
void check_runs(struct doctor *d);
void doctor_incidents(struct doctor *d, const json_t *answer); /* of GET /v1/incidents */
/* doctor_gate.c; needs d->conf */
void check_gate(struct doctor *d);
/* doctor_net.c */
void check_daemon(struct doctor *d);
void check_user(struct doctor *d);  /* after check_daemon() */
void check_ports(struct doctor *d); /* after check_daemon(); needs d->conf, as the next */
void check_port_range(struct doctor *d);
