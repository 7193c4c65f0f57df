/* The world in which the supervisor is simulated: the files of this folder stand in place of
 * libuv's loop, of the clock, of the file system and of src/drv, at link time; base, conf, model
 * and core are those of the daemon.
 *
 * One world at a time, in virtual time (w.now, microseconds): nothing waits, and nothing depends on
 * the machine. Whatever the daemon does outside itself passes effect(), which lets a little time
 * go by, so that the world moves between any two of its calls, and where the daemon may be killed.
 * From that moment on it is a *ghost*: the code runs on to the end of its turn and is freed in
 * order, but all it does fails and changes nothing. So a crash loses no memory of the test's, and
 * the sanitizers see all that the daemon does.
 *
 * What is random comes from the seed in two ways: the noise of the world (how long a JVM boots) is
 * a hash of the seed and of what it is about, and all that goes wrong and all that people do is a
 * list of steps (script.c), made from the seed before the run. So a step can be left out without
 * changing what does not depend on it, which is how a failing run is made short. */
#pragma once

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <uv.h>

#include "base/strv.h"
#include "base/util.h"
#include "model/cloud.h"

#define MS         UINT64_C(1000)
#define SEC        UINT64_C(1000000)
#define WORLD_ROOT "/sim"
#define CONF_FILE  WORLD_ROOT "/etc/h2ofleet.conf"
#define STATE_DIR  WORLD_ROOT "/state"
#define LOG_DIR    WORLD_ROOT "/log"
#define PERF_DIR   "/tmp/hsperfdata_sim"

/* ---- descriptors and files: disk.c ---- */

enum inode_type { I_DIR, I_FILE, I_FIFO, I_SOCK, I_MEM, I_TCP };

struct inode {
	enum inode_type type;
	uint64_t ino;
	unsigned refs; /* names, open files and whoever in the world has it */
	char *data;    /* owned */
	size_t len, cap;
	uint64_t mtime_ms;
	struct dent *dents; /* owned */
	size_t n_dents;
	bool locked;                    /* flock */
	struct vproc *reader;           /* of a pipe: waits for what is written */
	struct vproc *server;           /* of a unix socket: who listens */
	struct vdoor *door;             /* of a TCP socket; owned */
	struct gate_counters *counters; /* of a memfd; owned */
};

struct dent {
	char *name; /* owned */
	struct inode *inode;
};

/* An open file, as the kernel has it: several may share it. */
struct ofile {
	struct inode *inode;
	size_t pos;
	int flags;
	unsigned refs;
	bool locks;
};

void disk_new(void);
void disk_free(void);
struct inode *inode_new(enum inode_type type);
void inode_unref(struct inode *i);
/* NULL: nothing is there. */
struct inode *disk_find(const char *path);
void disk_mkdirs(const char *path);
void disk_write(const char *path, const char *text);
void disk_remove(const char *path);
void inode_append(struct inode *i, const char *text);
/* The daemon's descriptors. */
int fd_new(struct inode *i, int flags);
struct ofile *fd_file(int fd);
/* Everything that the daemon has open, but for what it hands over. */
void fds_close_all(void);
unsigned fds_open(void);
void ofile_unref(struct ofile *f);
int fd_of(struct ofile *f);

/* ---- processes: process.c ---- */

enum vkind { V_NODE, V_GATE, V_HELPER, V_COMMAND, V_BUILDER, V_STRANGER };
enum vstate { V_WAITING, V_RUNNING, V_ZOMBIE, V_GONE };

#define MAX_MEMBERS 8

struct h2o {
	char cloud[33], name[128];
	unsigned node;
	uint64_t generation;
	uint16_t port;
	char *flatfile, *tmp, *ice, *recovery; /* owned; recovery may be NULL */
	bool listens;                          /* API and internal port are bound */
	bool has_list;                         /* it has read its flatfile */
	uint16_t list[MAX_MEMBERS];
	size_t n_list;
	uint64_t serves_at, beats_at, boot_ms; /* 0: not yet */
	bool sees[MAX_MEMBERS];                /* members that it has met, by number */
	uint64_t met_at[MAX_MEMBERS];
	bool locked, locked_short;
	uint64_t paused_until, silent_since; /* SIGSTOP, GC; silent: no heartbeats go out */
	uint64_t dead_at;
	bool hung; /* answers nothing any more; ignores SIGTERM */
	uint64_t slow_us, slow_until;
	uint64_t lie_at, short_at;       /* since when it lies; was locked with too few */
	unsigned lie;                    /* what is wrong with its next answer */
	uint64_t good_at, good_frozen;   /* it has answered well last; w.frozen then */
	uint64_t blind_since, blind_for; /* it could not be asked, since its last good answer */
	uint64_t blind_frozen;           /* w.frozen at blind_since */
	bool leaving;
};

struct vproc {
	struct vproc *next, *of_cloud; /* all of them; those of the same -name */
	pid_t pid;
	uint64_t ticks;
	enum vkind kind;
	enum vstate state;
	unsigned parent; /* of the daemon's processes; 0: nobody reaps it but init */
	uint64_t exec_at;
	char *token; /* owned; NULL: none of ours */
	char *cwd;   /* owned */
	struct ofile *output, *input;
	bool ignores_term, stuck; /* stuck: SIGKILL comes only later */
	bool told;                /* the daemon that watches it has heard of its end */
	unsigned asked_to_end;    /* signals of ours */
	int code, signal;
	bool exec_failed;
	struct proc *watch;
	struct command *command;
	struct h2o h2o;
	struct vgate *gate; /* owned */
};

struct vproc *vproc_new(enum vkind kind, const char *token);
void vproc_end(struct vproc *p, int code, int sig);
void vproc_signal(struct vproc *p, int sig);
struct vproc *vproc_find(pid_t pid);
/* A number that is no other process's, also when the pid is used again; NULL: it is gone. */
uint64_t vproc_id(const struct vproc *p);
struct vproc *vproc_by_id(uint64_t id);
bool vproc_runs(const struct vproc *p);
/* As drv/reaper does when a daemon begins, of what its image before had watched. */
void processes_reap(void);
void processes_free(void);
void processes_reboot(void);
/* Children of a daemon that is gone; with `replaced` it goes on under the same number. */
void processes_daemon_gone(bool replaced);

/* ---- H2O: h2o.c ---- */

void h2o_new(void);
void h2o_begin(struct vproc *p, char *const *argv);
void h2o_execute(struct vproc *p);
/* It has ended, however. */
void h2o_gone(struct vproc *p, bool in_order);
void h2o_flatfile(struct vproc *p, const char *text);
bool h2o_paused(const struct vproc *p);
/* The time since its last good answer in which the daemon ran and could not ask it. */
uint64_t h2o_blind_for(const struct vproc *p);
/* It says, for some time already, that the members do not agree. */
bool h2o_denies(const struct vproc *p);
/* The member of that cloud that runs; NULL: none. */
struct vproc *h2o_member(const char *cloud, unsigned node);
/* A client comes to it: locks its cloud. */
void h2o_lock(struct vproc *p);
void h2o_shutdown(struct vproc *p);
void h2o_free(struct h2o *h);
/* Is it, in truth, whole: all n see each other, and nobody locked less. */
bool h2o_is_whole(const char *cloud, uint64_t generation, size_t n);
void http_forget(void);

/* ---- ports: net.c ---- */

/* Who has a port beside the daemon's holds. */
struct vport {
	uint16_t port;
	struct vproc *listener; /* a JVM, or a stranger */
	bool connection;        /* a stranger's outgoing one */
	bool held, claimed;     /* by the daemon */
	struct vdoor *door;
};

struct vdoor {
	uint16_t port;
	bool everywhere, listens;
	bool released; /* by the daemon; the gate has it still */
	struct inode *inode;
};

struct vport *vport(uint16_t port);
bool port_listen(struct vproc *p, uint16_t port);
void port_leave(const struct vproc *p);
void ports_daemon_gone(bool replaced);
bool port_is_held(uint16_t port);
unsigned ports_held(void);
void net_new(void);

/* ---- the gate: gate.c ---- */

#define MAX_DOORS 16

struct vgate_door {
	char cloud[33], mode[8];
	uint16_t port;
	bool knock, knocked, foreign, used;
	struct ofile *files[3]; /* counters, sockets */
	unsigned n_files;
	unsigned waiting;
};

struct vgate {
	struct gate_link *link; /* to the daemon; NULL: none */
	struct vgate_door doors[MAX_DOORS];
	uint64_t paused_until;
	bool killed; /* it does nothing any more */
};

void gate_begin(struct vproc *p);
void gate_gone(struct vproc *p);
void gate_daemon_gone(void);
/* A client comes to the endpoint of that cloud. */
void gate_client(const char *cloud);
void gate_pause(uint64_t until);
/* A gate runs, and has read all that the daemon told it. */
bool gate_has_read_all(void);
struct vproc *the_gate(void);
const struct vgate_door *gate_door(const char *cloud);

/* ---- time and the loop: loop.c ---- */

typedef void (*world_fn)(uint64_t a, uint64_t b);

/* At that time; the numbers are ids, as what they stand for may be gone by then. */
void world_at(uint64_t at, world_fn fn, uint64_t a, uint64_t b);
uint64_t monotonic_ms(void);
/* Lets the world go on to that time, without the daemon. */
void world_until(uint64_t at);
/* A hash of the seed and of both: the same in each run of the seed. */
uint64_t noise(uint64_t a, uint64_t b, uint64_t below);
uint64_t hash_text(const char *s);
/* The daemon's loop is to call this; forgotten when the daemon dies. */
void notify(void (*fn)(void *arg), void *arg);
void unnotify(const void *arg);
/* One turn of the daemon's loop. */
void loop_turn(void);
/* Closes what is closing. */
void loop_close(void);
bool loop_is_empty(void);
void world_forget_events(void);
/* The process has ended, or (reexec) becomes another image. */
void daemon_is_gone(bool replaced);
void daemon_dies(void);

/* Something is done that others see. False: the daemon is dead, and nothing happens. */
bool effect(unsigned us);
/* Something is read. */
void look(unsigned us);

enum fault {
	FAULT_FORK,
	FAULT_OPEN,
	FAULT_WRITE,
	FAULT_HTTP,
	FAULT_LOOK,
	FAULT_BIND,
	FAULT_RENAME,
	FAULT_ADOPT,
	N_FAULTS
};
/* A positive errno when this call is to fail; 0. */
int fault(enum fault f);
bool fault_is_on(enum fault f);

/* ---- the script: script.c ---- */

enum step_kind {
	STEP_KILL,
	STEP_EXIT,
	STEP_OOM,
	STEP_PAUSE,
	STEP_HANG,
	STEP_SLOW,
	STEP_LIE,
	STEP_LOCK,
	STEP_SHUTDOWN,
	STEP_THIEF,
	STEP_STUCK,
	STEP_HELPER,
	STEP_JOB,
	STEP_GRID,
	STEP_CLIENT,
	STEP_START,
	STEP_STOP,
	STEP_RESTART,
	STEP_TOUCH,
	STEP_RELOAD,
	STEP_CREATE,
	STEP_CHANGE,
	STEP_DELETE,
	STEP_CRASH,
	STEP_REEXEC,
	STEP_DETACH,
	STEP_END,
	STEP_LEFT,
	STEP_GATE_KILL,
	STEP_GATE_PAUSE,
	STEP_FAULT,
	STEP_SLEEP,
	STEP_FREEZE,
	STEP_CLOCK,
	STEP_STRAY,
	STEP_REBOOT,
	STEP_DAMAGE,
	STEP_EDIT,
	STEP_JOBS,
	N_STEP_KINDS
};

struct step {
	uint64_t at_ms;
	enum step_kind kind;
	unsigned a, b, c;
};

struct script {
	uint64_t seed;
	struct step *steps; /* owned */
	size_t n;
};

const char *step_name(enum step_kind kind);
void script_make(struct script *s, uint64_t seed);
void script_free(struct script *s);
/* "4711 1200:kill:0:1:0 ..." and back; false: it is none. */
char *script_text(const struct script *s);
bool script_parse(struct script *s, const char *text);

/* What the operator has configured. */
struct plan_cloud {
	char name[16];
	bool there, created;
	uint64_t variant; /* of its keys */
};

#define MAX_CLOUDS 4

/* ---- the run: run.c; the invariants: check.c ---- */

/* Plays it. True: nothing was violated; else w.violation and w.detail say what. */
bool run_script(const struct script *s);

/* The first violation counts. */
void violated(const char *invariant, const char *fmt, ...) _printf_(2, 3);
#define invariant(name, cond, ...)                                                                 \
	do {                                                                                       \
		if (!(cond))                                                                       \
			violated(name, __VA_ARGS__);                                               \
	} while (0)

void vlog(const char *fmt, ...) _printf_(1, 2);

/* check.c */
void check_new(void);
void check_free(void);
void check_fork(const struct vproc *p);
void check_exec(const struct vproc *p);
void check_signal(const struct vproc *p, int sig);
void check_http(const char *url, const char *method, const struct vproc *p);
void check_passed(const char *cloud, const struct vproc *p);
/* After each turn of the loop. */
void check_turn(void);
/* A daemon is about to take over; it knows what there is; it has begun. */
void check_before_life(void);
void check_life(void);
void check_after_life(void);
/* A cloud of people's own is being made, changed or deleted; what the daemon said of that. */
void check_making(const char *cloud, bool made);
void check_made(const char *cloud, int r, bool change);
void check_deleted(const char *cloud, int r);
/* A daemon has just ended or died: what it has told remains true. */
void check_daemon_gone(void);
/* The fleet was ended in order: nothing is left. */
void check_nothing_left(void);
/* What is known of that cloud is lost. */
void check_damaged(unsigned cloud);
/* The machine was booted anew: nothing runs. */
void check_reboot(void);
bool check_settled(void);
bool check_all_well(void);
void check_used(const char *cloud);
/* By its name; MAX_CLOUDS: none. */
unsigned plan_index(const char *cloud);

struct world {
	uint64_t seed;
	uint64_t now;    /* us; CLOCK_MONOTONIC */
	uint64_t booted; /* us: where this boot's clocks began */
	unsigned boot;
	uint64_t slept; /* us in which the machine slept */
	int64_t wall_skew_ms;
	struct vproc *procs;
	pid_t next_pid;
	int64_t oom_kills;

	bool alive;     /* a daemon runs */
	bool ghost;     /* it is dead, and does not know */
	unsigned image; /* of daemons, the how manieth process; children are told apart by it */
	pid_t pid;
	uv_loop_t *loop;
	struct fleet *fleet;
	uint64_t frozen_until, frozen; /* it cannot run; for how long, in all */
	unsigned crash_in;             /* it dies at its so many-th effect from now; 0: not */
	bool exit_known;               /* this kernel tells how others' children ended */
	bool ended;                    /* fleet_shutdown() is through */
	bool peace;                    /* nothing goes wrong any more */
	bool no_pipes;                 /* the file system has no named pipes */

	struct {
		uint64_t until;
		unsigned skip, count;
		int err;
	} faults[N_FAULTS];

	struct plan_cloud plan[MAX_CLOUDS];
	uint64_t used_at[MAX_CLOUDS];   /* of a cloud, by number: also by bytes alone */
	uint64_t worked_at[MAX_CLOUDS]; /* later than now: a job runs */

	const char *violation; /* NULL: none */
	char detail[600];
	uint64_t lied_at[MAX_CLOUDS], size_lied_at[MAX_CLOUDS]; /* a wrong answer was given */
	FILE *log;                                              /* NULL: none is kept */

	uint64_t events, turns, effects;
	/* That a simulation which gets nowhere fails. */
	uint64_t steps[N_STEP_KINDS];
	uint64_t readies, losses, hangs, crashes, lives, adopted, short_locks, idle_stops, passed,
		knocks, incidents, faults_hit, failed, created, deleted, strays, reexecs;
};

extern struct world w;
