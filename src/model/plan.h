/* What a generation is launched with: memory, threads, flatfile, command line, environment. Pure.
 */
#pragma once

#include "base/strv.h"
#include "model/cloud.h"

/* What the machine or container has; from drv/machine.h. */
struct machine_facts {
	uint64_t mem_bytes;
	unsigned cores;
};

/* Where things are; all paths absolute. Strings not owned. */
struct launch_place {
	const char *java;
	int java_major; /* 8, 11, 17, ... */
	const char *jar;
	const char *ice_root;     /* of this member */
	const char *tmp_dir;      /* of this member: java.io.tmpdir */
	const char *log_dir;      /* H2O's own log files, of the cloud */
	const char *flatfile;     /* of this member */
	const char *recovery_dir; /* NULL: off */
	const char *token;        /* fleet's mark in the environment, TOKEN_ENV=token */
	const struct strv *boot;  /* options by which the JVM uses the boot cache; may be empty */
};

/* Every process that we start carries this in its environment: "<fleet id>/<cloud>/<node>/<gen>".
 */
#define TOKEN_ENV "H2OFLEET_TOKEN"

/* -Xmx and -Xms of each node in bytes; 0: none set. -ERANGE (with a sentence) when it is absurd:
 * less than H2O's minimum of 32 MB (h2o-py h2o.init), or one node's heap over the machine's memory;
 * -EAGAIN when that is not known (0). */
int plan_memory(const struct cloud_conf *conf, const struct machine_facts *machine,
	uint64_t *xmx_bytes, uint64_t *xms_bytes, struct err *e);

/* Whether the members' REST can be reached from this machine alone: always behind a gate, since
 * clients have no business there. */
bool plan_binds_to_localhost(const struct cloud_conf *conf);

/* -nthreads of each node; 0: leave it to H2O (all cores). */
unsigned plan_nthreads(const struct cloud_conf *conf, const struct machine_facts *machine);

/* What of the boot cache (drv/bootcache.h) nodes are to be launched with. */
struct boot_wish {
	bool native;     /* the native libraries */
	bool archive;    /* the archive of classes */
	const char *why; /* the key by which it is not both; NULL */
};

/* As fast_boot says. Where jvm_custom_args has an option of its own for a part of it, that stays in
 * force; and with one with which the JVM would not take an archive it is not tried. */
void plan_boot(const struct cloud_conf *conf, struct boot_wish *out);

/* A flatfile: the members for which `here` is true (NULL: all), "ip:port" a line. When it is given
 * to whom: core/flatfile.c. Owned by the caller. */
char *plan_flatfile(const struct cloud *c, const bool *here);

/* The command line, argv[0] = java. -ERANGE as plan_memory(). */
int plan_argv(const struct cloud *c, unsigned node, const struct launch_place *place,
	const struct machine_facts *machine, struct strv *argv, struct err *e);

/* `base` (our own environment, NAME=value) without what must not reach a JVM: systemd's word with
 * us (NOTIFY_SOCKET, LISTEN_*, WATCHDOG_*, INVOCATION_ID, STATE_DIRECTORY, ...),
 * JAVA_TOOL_OPTIONS, JDK_JAVA_OPTIONS, _JAVA_OPTIONS, H2O's kubernetes and assisted-clustering
 * variables. */
void plan_clean_env(char *const *base, struct strv *env);

/* The environment of a member: that, with the cloud's `env` and the token. */
void plan_env(const struct cloud *c, char *const *base, const struct launch_place *place,
	struct strv *env);

/* The address members bind and the endpoint shows: "127.0.0.1". */
#define MEMBER_ADDR "127.0.0.1"
