/* The configuration: what the operator wrote, checked and with defaults filled in.
 *
 * Everything about a key (name, type, unit, default, range, whether a reload can apply it, who may
 * set it, help) stands in one table, conf/keys.c; parsing, checks, --print-config and the reserved
 * words for the control protocol come from it. Values are as configured: what depends on the
 * machine (percentages of memory, "auto") is worked out at launch (model/plan.h). */
#pragma once

#include <stdio.h>

#include "base/err.h"
#include "base/strv.h"

enum restart_policy {
	RESTART_NEVER,
	RESTART_ON_FAILURE, /* not after a client's /3/Shutdown */
	RESTART_ALWAYS,
};

enum apply_mode {
	APPLY_LIVE,    /* a reload restarts no cloud */
	APPLY_RESTART, /* it restarts those whose changes need it */
};

/* What stands before a cloud (src/gate/) while it is not whole. */
enum gate_mode {
	GATE_OFF,    /* no gate: clients go to member 0 itself */
	GATE_HOLD,   /* connections are accepted, and wait */
	GATE_REFUSE, /* nobody listens */
};

enum start_on {
	START_ON_COMMAND,
	START_ON_CONNECT, /* also when a connection arrives at the gate */
};

enum stop_method {
	STOP_TERM, /* SIGTERM to every member, then SIGKILL */
	STOP_REST, /* POST /3/Shutdown to member 0 first */
};

/* What of the boot cache (drv/bootcache.h) nodes are started with. */
enum fast_boot {
	BOOT_YES,
	BOOT_NATIVE_ONLY, /* the native libraries */
	BOOT_NO,
};

/* What the kernel's OOM killer ends of a cloud that runs out of memory. */
enum oom_policy {
	OOM_CONTINUE, /* the one process that it chooses; the daemon ends the others */
	OOM_KILL,     /* all members at once */
};

/* Clouds in control groups of their own. */
enum scopes_mode {
	SCOPES_NO,
	SCOPES_AUTO, /* where it is plain how */
	SCOPES_YES,  /* wherever it can be done */
};

/* When a start of the service counts as done. */
enum ready_when {
	READY_WHEN_LAUNCHED, /* the JVMs of all autostart clouds run, or could not be started */
	READY_WHEN_CLOUDS,   /* these clouds are ready, or their first start has failed */
};

/* When the daemon ends by itself: for containers, where it is process 1. */
enum exit_when {
	EXIT_WHEN_NEVER,
	EXIT_WHEN_STOPPED, /* no cloud that was ever wanted runs any more */
	EXIT_WHEN_FAILED,  /* one has failed */
};

#define SHUTDOWN_AUTO 0 /* SHUTDOWN_CONTAINER_MS in a container, else no limit */

enum log_target {
	LOG_TO_FILE,    /* log_dir/CLOUD/N.log */
	LOG_TO_JOURNAL, /* a stream of its own to journald: h2o-CLOUD-N */
	LOG_TO_INHERIT, /* the daemon's own standard output */
};

/* Clouds that a configuration may have, with those made at run time. */
#define CONF_CLOUDS_MAX 1024

/* What log_max_total must allow for each node, and once more. */
#define LOG_TOTAL_PER_NODE (512ull << 10)

enum log_compress { LOG_COMPRESS_ZSTD, LOG_COMPRESS_GZIP, LOG_COMPRESS_NONE };

/* "54321+": from 54321 up, moving on from taken ports; "54321": exactly 54321, 54323, ... */
struct port_spec {
	uint16_t port; /* 0: not set; the fleet's baseport, moving on */
	bool exact;
};

enum mem_kind {
	MEM_UNSET,   /* no option to the JVM */
	MEM_AUTO,    /* 25 % of the memory there is, divided by the nodes */
	MEM_PERCENT, /* of the machine's or container's memory, divided by the nodes */
	MEM_BYTES,   /* of each node */
};

struct mem_spec {
	enum mem_kind kind;
	uint64_t value; /* bytes, or percent */
};

/* "5 in 10m": at most 5 failures within 10 minutes. */
struct limit_spec {
	unsigned count;
	uint64_t window_ms;
};

#define NTHREADS_AUTO 0    /* the cores divided over the nodes, at least 1 */
#define NTHREADS_ALL  (-1) /* all cores for each node: no -nthreads */

/* One cloud. All strings are owned; NULL where nothing is set and there is no default. */
struct cloud_conf {
	char *name; /* of the section: [cloud NAME] */
	char *file; /* where the section begins; NULL: built-in default */
	unsigned line;
	bool created;      /* at run time: `file` is below state_dir (conf/created.h) */
	struct strv given; /* names of the keys that `file` sets, in the order of the table */
	int64_t baseport;  /* the fleet's, for clouds without a port */

	int64_t nodes;
	struct port_spec port;
	struct mem_spec max_mem_size;
	struct mem_spec min_mem_size;
	int64_t nthreads;
	struct mem_spec memory_max; /* of all nodes together; MEM_UNSET: no limit */
	int64_t cpu_quota;          /* percent of one CPU, of all nodes together; 0: no limit */
	int oom_policy;             /* enum oom_policy */
	char *auto_recovery_dir;    /* "off", "auto" or an absolute path */
	bool autostart;
	int start_on;                  /* enum start_on */
	int restart;                   /* enum restart_policy */
	uint64_t max_idle_duration_ms; /* 0: off */
	int gate_mode;                 /* enum gate_mode */
	uint64_t gate_hold_ms;
	struct strv gate_allow; /* empty: "user", or "anyone" for what the network can reach */

	char *jar_path;
	char *java;
	char *extra_classpath;
	char *main_class;
	struct strv jvm_custom_args;
	struct strv h2o_args;
	struct strv env; /* "NAME=value" */
	bool enable_assertions;
	char *ice_root;
	char *log_level;         /* H2O's: TRACE DEBUG INFO WARN ERRR FATAL */
	char *max_log_file_size; /* H2O's form: "3MB" */
	int log_to;              /* enum log_target */
	uint64_t log_max_size;   /* bytes; of the nodes' output, as all below */
	uint64_t log_max_age_ms; /* 0: off */
	uint64_t log_max_total;  /* bytes, of all nodes */
	int log_compress;        /* enum log_compress */
	bool bind_to_localhost;
	char *h2o_name; /* key `name`: prefix of H2O's -name; default: the section's name */
	char *context_path;
	bool allow_unsupported_java;

	uint64_t restart_delay_ms;     /* before the first restart */
	uint64_t restart_delay_max_ms; /* where doubling ends */
	struct limit_spec start_limit;
	uint64_t ready_timeout_ms;
	uint64_t health_interval_ms;
	uint64_t late_after_ms;
	uint64_t hang_timeout_ms;
	uint64_t stop_timeout_ms;
	int stop_method; /* enum stop_method */
	int fast_boot;   /* enum fast_boot */
};

struct fleet_conf {
	char *socket;
	char *state_dir;
	char *cache_dir;
	char *log_dir;
	uint64_t events_max_size; /* bytes, of all files of the journal */
	int64_t baseport;
	int64_t created_max;          /* clouds made at run time, for who is in the group */
	int64_t created_max_nodes;    /* likewise: nodes of all of them */
	int scopes;                   /* enum scopes_mode */
	int apply;                    /* enum apply_mode: of a reload */
	int log_level;                /* enum log_level: of the daemon's own log */
	int exit_when;                /* enum exit_when */
	uint64_t shutdown_timeout_ms; /* of all clouds together when the daemon ends */
	int ready_when;               /* enum ready_when */
	uint64_t fast_boot_delay_ms;  /* all quiet for so long, before a cache is built */
};

/* A file of a created cloud that could not be used, and why, as a sentence. */
struct conf_aside {
	char *name, *file, *why; /* owned */
};

/* Where a key was set. */
struct conf_place {
	char *cloud;     /* owned; NULL: in [fleet] */
	const char *key; /* of the key table */
	char *file;      /* owned */
	unsigned line;
};

struct conf {
	struct fleet_conf fleet;
	struct cloud_conf **clouds; /* in the order of the files, the created ones last; owned */
	size_t n_clouds;
	struct strv files;        /* that were read, without those of created clouds */
	struct conf_aside *aside; /* owned */
	size_t n_aside;
	struct conf_place *places; /* owned: of each key that was set */
	size_t n_places;
};

/* All that is wrong, one sentence each, "FILE:LINE: ..." in front. Begins as { 0 }. */
struct conf_errors {
	struct strv list;
};

/* Reads the files and checks everything. With file == NULL: the system's (root) or the user's
 * configuration as found in the usual places, which may be none at all: then one cloud "h2o" of one
 * node. With a file: just that one. Returns 0 and *out (owned by the caller), or -EINVAL with all
 * errors of all files in *errors, or another negative errno when a file could not be read (also in
 * *errors). */
int conf_load(const char *file, struct conf **out, struct conf_errors *errors) _must_check_;

/* The same for a directory: in it h2ofleet.conf, then the files conf.d/NAME.conf sorted by name,
 * whatever there is of these. */
int conf_load_dir(const char *dir, struct conf **out, struct conf_errors *errors) _must_check_;

/* The same (`file` as of conf_load()) with the clouds that were made at run time: those below
 * `state_dir`; NULL: below the configuration's own. One that is broken, or at odds with what is
 * configured, is left out and told in conf->aside; with `strict` it is an error, unless a
 * configured cloud has its name now. */
struct conf_source {
	const char *file;
	const char *state_dir;
	bool strict;
	bool skip_unreadable; /* state_dir is not for who asks: it is left out */
};
int conf_load_all(
	const struct conf_source *from, struct conf **out, struct conf_errors *errors) _must_check_;

/* The one cloud that the text of a file has; NULL when it is not fine. Owned by the caller. */
struct cloud_conf *conf_parse_cloud(const char *text, size_t len, const char *name);

void conf_free(struct conf *c);
void conf_freep(struct conf **c);
void conf_errors_free(struct conf_errors *errors);

/* NULL when there is none of that name. */
const struct cloud_conf *conf_find_cloud(const struct conf *c, const char *name);

/* place.c: where keys were set. NULL: nowhere, or not by a file. */
const struct conf_place *conf_find_place(const struct conf *c, const char *cloud, const char *key);
struct key;
void conf_add_place(
	struct conf *c, const char *cloud, const struct key *k, const char *file, unsigned line);
/* `from` has none then. */
void conf_take_places(struct conf *to, struct conf *from);
void conf_free_places(struct conf *c);

/* Writes the whole effective configuration as an INI file which parses back to the same. With
 * `help`, each key has its help text as a comment above. */
void conf_print(const struct conf *c, FILE *f, bool help);

/* The same of one cloud, with only the keys that are `given`. */
void cloud_conf_print(const struct cloud_conf *c, FILE *f);

/* A cloud with all defaults. Owned by the caller. */
struct cloud_conf *cloud_conf_new(const char *name);
void cloud_conf_free(struct cloud_conf *c);
void cloud_conf_freep(struct cloud_conf **c);
struct cloud_conf *cloud_conf_dup(const struct cloud_conf *c);
/* Where it comes from: `created`, `file`, `line`, `given`. */
void cloud_conf_copy_origin(struct cloud_conf *dst, const struct cloud_conf *src);
/* Whether all keys have the same values; names and places are not compared. */
bool cloud_conf_equal(const struct cloud_conf *a, const struct cloud_conf *b);

/* Sets one key as the files would; "" unsets a key that has no default. -ENOENT: no such key;
 * -EINVAL, -ERANGE: a value that cannot be; then nothing is changed. What keys must be to each
 * other is for cloud_conf_check(), once all are set. */
int cloud_conf_set(
	struct cloud_conf *c, const char *key, const char *value, struct err *e) _must_check_;
/* The value as the files would have it; "" where unset; NULL when there is no such key. Owned by
 * the caller. */
char *cloud_conf_get(const struct cloud_conf *c, const char *key);
/* Whether only root and the daemon's user may set it so: it means running code or touching files as
 * that user. */
bool cloud_conf_is_privileged(const char *key, const char *value);
/* What keys must be to each other: 0, or -EINVAL with all that is wrong. `baseport`: the fleet's.
 */
int cloud_conf_check(const struct cloud_conf *c, int64_t baseport, struct err *e) _must_check_;
/* What is allowed but may be a mistake, as a sentence; NULL: nothing. Owned by the caller. */
char *cloud_conf_warning(const struct cloud_conf *c);
/* Its first port, or where the search for one begins. */
uint16_t cloud_conf_first_port(const struct cloud_conf *c);
/* How many ports it takes, from its first one up: the gate's, and two of each node. */
int64_t cloud_conf_n_ports(const struct cloud_conf *c);
/* Whether this is one of the ports that it insists on. */
bool cloud_conf_insists_on(const struct cloud_conf *c, uint16_t port);
/* Whether both insist on ports of which some are the same. */
bool cloud_conf_ports_overlap(const struct cloud_conf *a, const struct cloud_conf *b);

/* 1 to 32 characters: letters, digits, '_' and '-', a letter or digit first. */
bool conf_cloud_name_valid(const char *name);
