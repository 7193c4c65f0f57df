/* fakejava: one process that behaves like `java -jar h2o.jar ...`, without Java and without H2O.
 *
 * What it imitates, what it leaves out and how it is told to misbehave: README beside this file.
 * One thread, one poll(2) loop. A file per concern:
 *
 *	main.c     life of the process: boot, bind, ready, signals, exit
 *	loop.c     timers and the poll loop
 *	jvm.c      the JVM's part of the command line, its error texts, -version
 *	options.c  H2O's part of the command line, flatfile
 *	help.c     H2O's help text
 *	console.c  H2O's log lines, thread dump
 *	files.c    what a JVM with H2O leaves on disk
 *	gossip.c   heartbeats, membership, consensus, lock, shutdown among members (water.Paxos)
 *	http.c     HTTP/1.1 server
 *	rest.c     routes of the REST API
 *	views.c    its JSON answers
 *	jobs.c     jobs and recovery
 *	faults.c   the knobs
 *	journal.c  fake.journal: starts, ends and signals, for checks after the fact
 */
#pragma once

#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>

#include "base/strbuf.h"
#include "base/strv.h"
#include "base/util.h"

#define FAKE_H2O_VERSION   "3.46.0.12"
#define FAKE_H2O_BRANCH    "rel-3.46.0"
#define FAKE_H2O_HASH      "c91838115bfadcdd79158d16c76fb6cf983157bd"
#define FAKE_H2O_DESCRIBE  "gha-3.46.0.11-25-gc91838115b"
#define FAKE_H2O_BUILT_ON  "2026-08-11 13:53:15"
#define FAKE_H2O_BUILD_AGE "3 months and 10 days"

#define MAX_PEERS 128
#define MAX_CONNS 256
#define MAX_JOBS  16

/* name, default, help. Values are whole numbers; flags are 0 and 1. */
#define FAKE_KNOBS(X)                                                                              \
	X(boot_ms, 50, "from exec to the bound ports")                                             \
	X(rebind_ms, 0, "API port closed again for so long after the probe, as in a real boot")    \
	X(ready_ms, 50, "from the bound ports to the first answer; requests are held until then")  \
	X(heartbeat_ms, 1000, "heartbeat interval; everything else of H2O's clock scales with it") \
	X(heartbeat_timeout_ms, 0, "silence that makes a member unhealthy; 0: 60 heartbeats")      \
	X(connect_sleep_ms, -1, "mute after a refused connect; -1: 5 heartbeats")                  \
	X(term_ms, 0, "what SIGTERM, SIGINT, SIGHUP take")                                         \
	X(index, -1, "the member's index, where no H2OFLEET_TOKEN tells it")                       \
	X(generation, -1, "the generation, likewise")                                              \
	X(md5, 0, "stands for the jar's md5; members that differ do not join")                     \
	X(exit_at_boot_ms, -1, "exit so long after exec, with exit_code")                          \
	X(exit_code, 1, "for exit_at_boot_ms")                                                     \
	X(exit_code_now, -1, "exit at once with this code")                                        \
	X(crash, 0, "raise this signal (number or name)")                                          \
	X(stop, 0, "raise SIGSTOP")                                                                \
	X(hang, 0, "accept and read, never answer; 0 answers what waits")                          \
	X(ctl_ms, 20, "how often fake.ctl is looked at")                                           \
	X(refuse, 0, "API listener and connections closed; 0 listens again")                       \
	X(slow_ms, 0, "delay of each answer")                                                      \
	X(garbage, 0, "answer with so many random bytes")                                          \
	X(truncate, 0, "send half of each answer, then close")                                     \
	X(http_status, 0, "answer everything with this status")                                    \
	X(lie_pid, 0, "own pid in /3/Cloud")                                                       \
	X(lie_size, 0, "cloud_size in /3/Cloud")                                                   \
	X(lie_name, 0, "cloud_name in /3/Cloud (a text)")                                          \
	X(journal, 0, "append starts, overlaps, signals and ends to this file (a text)")           \
	X(lie_members, 0, "leave the last member out of nodes[]")                                  \
	X(unhealthy, 0, "cloud_healthy=false, bad_nodes=1, X-h2o-cluster-good: false")             \
	X(no_consensus, 0, "consensus=false; locks wait")                                          \
	X(locked, 0, "locked=true in answers, whatever the truth")                                 \
	X(isolate, 0, "no heartbeat goes out or is heard: a partition")                            \
	X(ignore_term, 0, "SIGTERM, SIGINT, SIGHUP do nothing")                                    \
	X(oom, 0, "1: OutOfMemoryError, exit 3 as with ExitOnOutOfMemoryError; 2: lives on")       \
	X(hs_err, 0, "JVM crash: writes -XX:ErrorFile, SIGABRT")                                   \
	X(spin, 0, "burns a core")                                                                 \
	X(never_ready, 0, "ports bound, never ready")                                              \
	X(log_spam, 0, "writes so many bytes of log lines at once")                                \
	X(fork_child, 0, "leaves a sleeping child: 1 in the group, 2 in a session, 3 in disguise") \
	X(rss_mb, 0, "touches so much memory")                                                     \
	X(steal_port, 0, "listens on this port too, with SO_REUSEADDR like any JVM")               \
	X(grid_ms, 0, "starts a grid search of this length, recoverable with -auto_recovery_dir")  \
	X(lie_idle_ms, -1, "idle_millis in /3/SteamMetrics")                                       \
	X(steam_status, 0, "answer /3/SteamMetrics and /3/Jobs with this status")                  \
	X(resume_ms, 200, "how long a resumed grid search takes")                                  \
	X(resume_crash, 0, "resume: 1 exits 255, else raises that signal")                         \
	X(resume_fail, 0, "resume: the job fails, the directory stays")                            \
	X(old_jobs, 0, "so many more in /3/Jobs, which have ended")                                \
	X(archive_ignored, 0, "does not map the archive that it is given")                         \
	X(archive_endpoints, 0, "with an archive: so many endpoints have another output schema")   \
	X(archive_session, 0, "with an archive, POST /4/sessions: 1 kills it, else this status")   \
	X(archive_model, 0, "with an archive, training a model fails")                             \
	X(archive_error, 0, "with an archive, logs an ERROR at boot")                              \
	X(archive_hang, 0, "with an archive, never ready")                                         \
	X(dump_fail, 0, "no archive is made: exit 1")                                              \
	X(dump_hang, 0, "making an archive does not end")                                          \
	X(dump_mb, 0, "size of the archive")

enum knob {
#define X(name, dflt, help) KNOB_##name,
	FAKE_KNOBS(X)
#undef X
		KNOB_COUNT
};

enum level { LVL_TRACE, LVL_DEBUG, LVL_INFO, LVL_WARN, LVL_ERROR, LVL_FATAL };

struct jvm_options {
	struct strv args;  /* all of the JVM's options, for the log */
	struct strv props; /* "name=value" of each -D, in order */
	char *jar;         /* -jar, or NULL */
	char *main_class;  /* or NULL */
	char *error_file;  /* -XX:ErrorFile= */
	char *archive;     /* -XX:SharedArchiveFile=, -XX:AOTCache= */
	char *class_list;  /* -XX:DumpLoadedClassList= */
	char *list_read;   /* -XX:SharedClassListFile= */
	char *aot_mode;    /* -XX:AOTMode=, or NULL */
	char *aot_conf;    /* -XX:AOTConfiguration= */
	char *classpath;   /* -cp, or NULL */
	char *version;     /* "17.0.15" */
	uint64_t xmx, xms; /* 0: not given */
	bool perf_data;    /* hsperfdata is written */
	bool reduce_signals;
	bool exit_on_oom;
	bool share_dump;
	bool share_on; /* -Xshare:on */
	bool show_properties;
};

struct h2o_options {
	struct strv args; /* as H2O sees them */
	char *name, *flatfile, *ip, *web_ip, *ice_root, *log_dir, *log_level, *context_path;
	char *notify_local, *auto_recovery_dir;
	int64_t port, baseport, port_offset, nthreads, ping_timeout;
	bool disable_flow, disable_web, allow_unsupported_java, md5skip;
};

struct heartbeat {
	uint32_t cloud_hash, cloud_size, common_knowledge, md5;
	uint32_t pid, nthreads, boot;
	uint64_t max_mem, free_mem;
};

struct peer {
	struct in_addr ip;
	uint16_t port; /* API */
	bool in_flatfile;
	bool proposed; /* member of the next cloud, once heard */
	bool heard;
	bool confirmed;          /* answered our shutdown */
	uint64_t last_heard;     /* monotonic ms */
	uint64_t last_ping_wall; /* epoch ms */
	uint64_t muted_until;
	struct heartbeat hb;
};

struct gossip {
	int fd;       /* UDP, API port + offset */
	bool started; /* what comes before waits in the kernel */
	struct peer peers[MAX_PEERS];
	size_t n_peers;          /* peers[0] is ourself */
	size_t cloud[MAX_PEERS]; /* H2O.CLOUD: indices into peers, sorted by address */
	size_t cloud_size;
	uint32_t name_hash;
	bool common_knowledge; /* consensus */
	bool locked;
	bool lock_wanted;                   /* its log line was written */
	uint64_t types_known, types_wanted; /* bit per route; ids from the leader's TypeMap */
	bool shutting_down;
	bool orderly; /* asked by a peer to shut down */
	bool bricked;
	uint64_t last_rest_ping;
};

struct request {
	char method[8];
	char *path;   /* owned; without query */
	char *params; /* owned; query and form, joined by & */
	bool keep_alive;
	uint64_t due; /* not answered before: slow_ms */
};

struct conn {
	int fd; /* -1: free slot */
	bool internal;
	bool have_request;
	bool close_after;
	struct strbuf in, out;
	struct request rq;
};

struct job {
	bool used;
	char key[80];
	char description[64];
	const char *status;
	const char *makes; /* "Grid": the type of its result */
	uint64_t started, started_wall, length, ended;
	char *recovery_dir; /* emptied on success */
};

struct knob_text;

struct node {
	struct jvm_options jvm;
	struct h2o_options h2o;
	int64_t knob[KNOB_COUNT];
	char *lie_name;
	uint64_t start, start_wall; /* monotonic, epoch: the JVM's start */
	uint64_t bound_at, ready_at;
	bool bound, ready;
	bool archive_mapped;
	char frame[80]; /* the last that was created */
	int64_t frame_rows;
	struct in_addr ip, web_ip;
	uint16_t port, internal_port;
	int api_fd, internal_fd, signal_fd, stolen_fd, log_fd, journal_fd;
	int flatfile_fd;        /* -1: not opened */
	struct strbuf flatfile; /* read so far */
	struct gossip g;
	struct conn conns[MAX_CONNS];
	struct job jobs[MAX_JOBS];
	uint64_t last_job_end;
	char *ice_dir, *native_lib, *perf_file;
	struct strbuf ctl; /* what fake.ctl said last */
};

/* main.c */
void node_exit(struct node *n, int code) _noreturn_;
/* Logs a FATAL line, on stdout and stderr as H2O does, and exits 255. */
void node_die(struct node *n, const char *fmt, ...) _printf_(2, 3) _noreturn_;
/* Dies by a signal, without any cleaning and without a core file. */
void node_raise(struct node *n, int sig) _noreturn_;
int node_listen_api(struct node *n);

/* main.c: called for each signal that the JVM handles */
void on_signal(struct node *n, int sig);

/* loop.c */
typedef void (*timer_fn)(struct node *n, int64_t arg);
void timer_after(uint64_t ms, timer_fn fn, int64_t arg);
void loop_run(struct node *n) _noreturn_;

/* jvm.c. Exits by itself on -version and on errors. argv[*main_args] is the first for main(). */
void jvm_parse(struct node *n, int argc, char **argv, int *main_args);
/* What the archive was made of; owned by the caller. */
char *jvm_jar_identity(const struct node *n);
/* Is there an archive, and may it be used? Exits 1 when it must be (-Xshare:on), and may not. */
bool jvm_check_archive(const struct node *n);
/* The JVM's property, or NULL; the last one wins. */
const char *jvm_property(const struct node *n, const char *name);
/* H2OApp's own check; exits 3. */
void jvm_check_version(struct node *n);
/* Exit 1 with the text of a JVM whose jar or main class is missing. */
void jvm_check_jar(struct node *n);

/* options.c. Errors: H2O's text on stdout, exit 1. */
void options_parse(struct node *n, int argc, char **argv);
/* False: it is a named pipe, and nobody has written to it yet. */
bool options_read_flatfile(struct node *n);

/* help.c */
extern const char h2o_help[];

/* console.c */
void console_puts(const struct node *n, const char *text);
void console_log(const struct node *n, enum level level, const char *thread, const char *fmt, ...)
	_printf_(4, 5);
void console_vlog(const struct node *n, enum level level, const char *thread, const char *fmt,
	va_list ap) _printf_(4, 0);
void console_loaded_library(const struct node *n);
void console_jetty(const struct node *n);
void console_started(const struct node *n); /* up to "Selected ..." */
void console_bound(const struct node *n);   /* ports, cloud name, log dir */
void console_ready(const struct node *n);   /* REST APIs, "Open H2O Flow" */
void console_thread_dump(const struct node *n);

/* files.c */
void files_jvm_start(struct node *n);
void files_native_lib(struct node *n);
void files_h2o_start(struct node *n); /* ice_root, log_dir */
void files_open_log(struct node *n);  /* once the port is known */
void files_notify(struct node *n);
void files_brick(struct node *n);
void files_exit(struct node *n, bool orderly);
/* The crash file of the JVM; returns its name, owned by the caller. */
char *files_hs_err(struct node *n);
void files_dump_archive(struct node *n) _noreturn_;

/* gossip.c */
void gossip_start(struct node *n); /* after the bind; forms the cloud of size 1 */
struct peer *gossip_peer(struct node *n, struct in_addr ip, uint16_t port);
void gossip_receive(struct node *n);
void gossip_poll_errors(struct node *n);
/* True once the cloud is locked; says why when it asks for the first time. */
bool gossip_lock(struct node *n, const char *reason);
/* True once the leader has handed out the id of this type (a route's number). */
bool gossip_type_known(struct node *n, unsigned type);
bool gossip_silent_member(const struct node *n); /* some call that fans out would hang */
void gossip_shutdown(struct node *n);
bool gossip_healthy(const struct node *n, const struct peer *p);
unsigned gossip_bad_nodes(const struct node *n);
bool gossip_consensus(const struct node *n);
uint64_t gossip_scaled(const struct node *n, uint64_t ms); /* H2O's ms in our time */
void gossip_brick(struct node *n);

/* http.c */
void http_init(struct node *n);
void http_accept(struct node *n, int listener, bool internal);
void http_read(struct node *n, struct conn *c);
void http_write(struct node *n, struct conn *c);
void http_close(struct conn *c);
void http_close_api(struct node *n);
/* Tries again to answer what waits; returns ms until the next delayed answer, or -1. */
int http_pass(struct node *n);
/* `extra`: header lines with CRLF, or "". */
void http_reply(struct node *n, struct conn *c, int status, const char *type, const char *extra,
	const char *body, size_t len);
/* Decoded, owned by the caller; NULL when missing. */
char *http_param(const struct conn *c, const char *name);

/* rest.c: true when it was answered, false to be asked again. */
bool rest_handle(struct node *n, struct conn *c);
void rest_error(struct node *n, struct conn *c, int status, const char *url, const char *msg,
	const char *exception);
struct rest_route {
	const char *method, *path; /* a path that ends in * is a prefix */
	unsigned flags;
	const char *reason; /* why it locks */
	void (*view)(struct node *n, struct conn *c);
};
const struct rest_route *rest_routes(size_t *count);

/* views.c */
void view_cloud(struct node *n, struct conn *c);
void view_about(struct node *n, struct conn *c);
void view_ping(struct node *n, struct conn *c);
void view_rapids(struct node *n, struct conn *c);
void view_steam(struct node *n, struct conn *c);
void view_session(struct node *n, struct conn *c);
void view_lock(struct node *n, struct conn *c);
void view_endpoints(struct node *n, struct conn *c);
void view_schema(struct node *n, struct conn *c);
void view_capabilities(struct node *n, struct conn *c);
void view_empty(struct node *n, struct conn *c);
void view_add_string(struct strbuf *b, const char *s); /* quoted JSON, "null" for NULL */
void view_meta(struct strbuf *b, const char *schema, const char *type);

/* jobs.c */
void jobs_start_grid(struct node *n, int64_t ms);
void jobs_view(struct node *n, struct conn *c);
void jobs_cancel(struct node *n, struct conn *c);
void jobs_resume(struct node *n, struct conn *c);
void jobs_create_frame(struct node *n, struct conn *c);
void jobs_build_model(struct node *n, struct conn *c);
bool jobs_running(const struct node *n);

/* faults.c */
void faults_init(struct node *n); /* defaults, then the JVM's -Dfake.* */
void faults_poll_ctl(struct node *n, int64_t arg);
/* "KEY" with its selectors; returns false for an unknown one. */
bool faults_set(struct node *n, const char *key, const char *value);
void faults_list(FILE *f);
void faults_boot(struct node *n); /* those that wait for the running node */

/* journal.c */
void journal_open(struct node *n, const char *path);
void journal_signal(const struct node *n, int sig);
void journal_end(const struct node *n, int code);

static inline int64_t knob(const struct node *n, enum knob k)
{
	return n->knob[k];
}
