/* What the files of core/ share; for nobody else. */
#pragma once

#include <sys/stat.h>
#include <uv.h>

#include "core/fleet.h"
#include "core/trouble.h"
#include "drv/awake.h"
#include "drv/bootcache.h"
#include "drv/command.h"
#include "drv/gate_wire.h"
#include "drv/http.h"
#include "drv/ports.h"
#include "drv/spawn.h"
#include "model/plan.h"

/* One slot's life in the world. */
struct member {
	struct supervised *s;
	unsigned index;
	struct proc *proc;         /* NULL: none */
	bool awaits_launch;        /* its turn comes: work.c */
	bool unreleased;           /* forked, waits until its identity is on disk */
	bool end_told;             /* an earlier daemon has: adopt.c */
	struct http_request *poll; /* on its way, or NULL */
	bool poll_full;
	pid_t last_pid;     /* of the newest process: its group may have stragglers */
	uint64_t log_start; /* where this life begins in its log: a position of drv/logfile.h */
	int log_to;         /* enum log_target: of this life */
	char *ice_dir, *tmp_dir, *flatfile, *log; /* owned */
	bool awaits_flatfile;                     /* flatfile.c: it has not been written yet */
	struct {
		pid_t pid; /* whose it is */
		uint64_t at_ms;
		uint64_t cpu_ms; /* used by then, since its start */
		struct fleet_usage last;
	} usage; /* usage.c */
};

/* Who starts it, found anew for each generation. */
struct runtime {
	char *java, *java_version; /* owned */
	int java_major;
	char *jar, *h2o_version; /* owned; the version may be NULL */
};

/* An event that arose while another was being handled. */
struct queued_event {
	struct queued_event *next;
	struct cloud_event ev;
	char *text;      /* owned */
	uint16_t *ports; /* owned */
};

/* The control group of the newest generation: cgroups.c. */
struct cloud_cgroup {
	uint64_t generation;         /* whose it is */
	bool asked;                  /* it was made, or tried */
	struct scope_job *job;       /* the members are being put into it */
	char *dir;                   /* owned; NULL: none (yet) */
	int64_t oom_before, oom_now; /* as in struct fleet */
};

/* What the newest generation was launched with of the boot cache: boot.c. */
struct cloud_boot {
	uint64_t generation;      /* whose this is; 0: none that we have launched */
	struct boot_found found;  /* without what it was not given */
	struct stat file;         /* found.archive, as it was then */
	char *why;                /* owned: why it is not all there is; NULL: it is */
	int mapped;               /* 1: all members use the archive; 0: not all; -1: not known */
	bool looking;             /* it is ready, and they are looked at */
	unsigned next;            /* which of them is the next */
	struct command *question; /* why not, on its way */
	unsigned ignored;         /* archives that it did not use, in a row */
	bool anew;                /* the next one is to be made though there is one */
	char *barred;  /* owned: why it gets none with these keys and this runtime; NULL: it does */
	char *runtime; /* owned: the identity of the newest generation's */
};

/* The newest loss of a cloud, until it is known what follows: incident.c. */
struct open_incident {
	json_t *json;   /* NULL: none */
	int node;       /* -1: none in particular */
	bool changed;   /* since it was written */
	bool announced; /* its event is out */
	bool awaits_dump;
	uint64_t dump_from; /* the dump comes behind this position of the node's log */
};

/* What the gate was told last of a cloud's door. */
struct door_told {
	const char *mode;
	uint16_t port;
	bool knock;
};

/* The endpoint's sockets, which the gate has, too: door.c. */
struct door {
	struct door_port port; /* port.port 0: none */
	bool foreign;          /* systemd listens on it, too */
	int counters_fd;
	struct gate_counters *counters; /* NULL: none */
	bool adopted;                   /* an earlier daemon's, as its gate had it */
	bool known;                     /* the gate has the descriptors */
	bool stale;                     /* the configuration has changed since it was told */
	struct door_told told;
	uint64_t retry_ms; /* not bound before, after a failure (CLOCK_MONOTONIC) */
};

#define DOOR_NULL ((struct door){.port = DOOR_PORT_NULL, .counters_fd = -1})

/* What an earlier daemon has left about a cloud. */
enum memory {
	MEMORY_NONE,
	MEMORY_AT_REST,    /* of another size; it was not wanted to run */
	MEMORY_BEGIN_ANEW, /* of another size; it was */
	MEMORY_WHOLE,
};

/* A cloud and all that belongs to it in the world. */
struct supervised {
	struct fleet *fleet;
	struct cloud *cloud;
	struct member *members;
	struct port_pair *holds; /* one per member */
	struct door door;
	struct runtime runtime;
	bool awaits_java;             /* which version it is: java.c */
	struct http_request *request; /* shutdown or resume, on its way */
	struct {
		struct http_request *request; /* on its way, or NULL */
		uint64_t generation;          /* whose it is */
		uint64_t used_ms;             /* what else is known of its last use */
		uint64_t asked_ms;
		int64_t behind_ms; /* our clock, behind the wall clock, when last asked */
	} idle;
	struct jobs *jobs;      /* jobs.c; NULL: nobody has asked */
	char *dir;              /* state_dir/clouds/NAME */
	char *log_dir;          /* log_dir/NAME */
	char *recovery_dir;     /* NULL: off */
	char *ignored_recovery; /* identity of a recovery.json that is not to be resumed */
	char *resumed_recovery; /* state of the recovery directory when it was last resumed */
	enum memory memory;     /* of an earlier daemon, when this one began */
	enum cloud_state was;   /* with MEMORY_WHOLE */
	bool adopted;           /* then: members of it run */
	bool half_launched;     /* then: a member never executed, or is gone */
	bool awaits_strays;     /* ACTION_PREPARE waits for strays to be gone */
	struct {
		struct command *rotation; /* on its way, or NULL */
		bool pending;             /* another is to follow */
		uint64_t retry_at;        /* not before, after a failure */
	} logs;
	struct cloud_boot boot;
	struct open_incident incident;
	struct cloud_cgroup cgroup;
	struct {
		uv_timer_t *timer;   /* owned; NULL: nobody waits for a flatfile */
		uint64_t generation; /* whose it is */
		bool *here;          /* owned: of each member, whether it listens to its peers */
		uint64_t late_ms;    /* when nobody is waited for any longer; 0: nobody is there */
		uint64_t next_ms;    /* when the next one may go on */
	} meeting;                   /* flatfile.c */
	bool limit_said;             /* that a limit of its control group is not in force */
	uv_timer_t *timer;           /* freed in its close callback */
	uint64_t timer_due;          /* in fleet_now() time; 0: not armed */
	bool handling;
	size_t in_crowd;        /* of its nodes, so many are in the fleet's */
	uint64_t save_due;      /* the state file could not be written: when it is tried again */
	uint64_t save_delay_ms; /* 0: it could */
	struct {
		bool waits;     /* for a look at what its nodes have left running */
		unsigned found; /* by that look */
		unsigned looks, tries;
		uint64_t due; /* nothing could be looked for and removed: when it is tried again */
	} clean;
	struct {
		struct supervised *next;
		bool queued;
		bool keep, clean, prepare;
		unsigned launches; /* members that await theirs */
		bool intent_saved;
	} work; /* work.c */
	struct {
		struct fleet_pressure last;
		bool known;
		uint64_t read_ms; /* monotonic; 0: never */
	} pressure;
	struct cloud_conf *pending; /* owned: waits until no member is alive; NULL: none */
	bool prepare_waits;         /* ACTION_PREPARE waits for it */
	struct queued_event *queue, **queue_end;
};

struct stray;

/* How often logs are looked at. */
#define FLEET_BEAT_MS 1000

struct fleet {
	uv_loop_t *loop;
	struct conf *conf; /* in force; its clouds are those of `clouds`, in that order */
	struct http *http;
	struct supervised **clouds; /* in the order of the configuration; removed ones last */
	size_t n;
	char *user;  /* owned: our name as the JVM knows it; NULL: none */
	char id[17]; /* of the state directory: marks our processes */
	int lock_fd;
	struct awake *awake; /* fleet_now() */
	uv_timer_t *beat;    /* freed in its close callback */
	unsigned beats;
	struct {
		int64_t before, now; /* the kernel's count, some seconds apart */
		uint64_t at;
	} oom;
	uint64_t changes; /* fleet_changes() */
	size_t crowd;     /* nodes that are on their way to a whole cloud */
	struct stray *strays;
	struct java_probe *java_probes;
	struct work *work;
	struct cleaner *cleaner;
	struct trouble *troubles; /* trouble.c */
	char *trouble_line;
	struct journal *journal;
	struct incidents *incidents;
	struct cgroups *cgroups;
	struct gate *gate;
	struct bootbuilder *bootbuilder;
	bool doors_begun; /* doors_begin() was called */
	int cannot_adopt; /* what an earlier daemon has left: -errno; 0: it can be had */
	struct {
		unsigned wait, left; /* beats between attempts, until the next; 0: it is written */
	} session;                   /* adopt.c */
	bool ending;                 /* fleet_shutdown() was called */
	uv_timer_t *sweep; /* reload.c: runs once, soon; freed in its close callback; or NULL */
	fleet_observer observer;
	void *observer_arg;
	void (*done)(void *arg);
	void *done_arg;
};

/* events.c: gives the model an event; carries out what it decides. Events that arise meanwhile wait
 * their turn; `text` and `ports` are copied then. */
void supervised_feed(struct supervised *s, const struct cloud_event *ev);
/* What an end has changed goes to its files: work.c. */
void supervised_keep_now(struct supervised *s);

/* work.c: for what a cloud has to do in its turn. */
void work_new(struct fleet *f);
void work_free(struct fleet *f);
void work_soon(struct supervised *s);
void work_forget(struct supervised *s);
/* All of it, now: so that another image does not begin anew what is half done. */
void work_finish(struct fleet *f);

/* Tells who waits for the end of fleet_shutdown() when nothing runs any more. */
void fleet_check_done(struct fleet *f);

/* emit.c: what happens, as events. fleet_event() is in fleet.h. */
void emit_transition(struct supervised *s, const struct transition *t);
/* What the model was just told. */
void emit_step(struct supervised *s, const struct cloud_event *ev);
/* It will be stopped for want of use; it will not, after all. */
void emit_idle(struct supervised *s, uint64_t stop_in_ms);
void emit_active(struct supervised *s);
void emit_started(struct fleet *f);
void emit_stopping(struct fleet *f, bool at_once);
/* Members of events and incidents; new references. ISO 8601, UTC. */
json_t *emit_time_json(uint64_t wall_ms);
/* With U+FFFD for what is no UTF-8; null for NULL. */
json_t *emit_text_json(const char *s);
/* "SIGKILL"; null for none. */
json_t *emit_signal_json(int sig);

/* fleet.c: our name as the JVM takes it for /tmp/hsperfdata_NAME; NULL: none can be told now. */
const char *fleet_user(struct fleet *f);

/* launch.c */
/* Both when the turn of the cloud comes. */
void launch_prepare(struct supervised *s);
void launch_node(struct supervised *s, unsigned node);
/* Its turn has come: work.c. */
void launch_prepare_now(struct supervised *s);
void launch_next_now(struct supervised *s);
/* What java_ask() has found out. */
void launch_java_is_known(struct supervised *s, int major, const char *version);
void launch_java_failed(struct supervised *s, int r, const char *sentence);
void launch_release(struct supervised *s);
/* Children that wait until their identity is on disk. */
bool launch_anyone_waits(const struct supervised *s);
void launch_forget_ports(struct supervised *s);
/* `java -version` may hang: what waits for it fails. */
void launch_cancel_probe(struct supervised *s);
void runtime_clear(struct runtime *r);
/* "H2OFLEET_TOKEN=<fleet>/<cloud>/<node>/<generation>"; owned by the caller. */
char *launch_token(const struct supervised *s, unsigned node);

/* flatfile.c: the list of a member's peers, which it gets once all of them listen. */
/* Before it is launched. */
int flatfile_make(struct member *m, struct err *e);
/* Of a cloud that an earlier daemon has left in the middle of forming. */
void flatfiles_adopt(struct supervised *s);
/* Nobody gets any more. */
void flatfiles_forget(struct supervised *s);

/* boot.c: what of the boot cache a cloud is launched with. */
/* At ACTION_PREPARE, when the runtime is known. */
void boot_choose(struct supervised *s);
/* Adds the JVM's options; `env` is its environment. */
void boot_add_args(const struct supervised *s, const struct strv *env, struct strv *argv);
/* It has become ready. */
void boot_ready(struct supervised *s);
/* To be called every second. */
void boot_beat(struct fleet *f);
void boot_forget(struct supervised *s);
/* It is another one now: what it was barred for need not hold any more. */
void boot_pardon(struct supervised *s);
/* What it may be launched with from now on. */
void boot_wish_of(const struct supervised *s, struct boot_wish *out);
/* Strings are those of `rt` and of the configuration. */
struct boot_runtime boot_runtime_of(const struct supervised *s, const struct runtime *rt);

/* The strays are gone: what waited for that goes on. */
void launch_go_on(struct supervised *s);
/* Where its members listen. */
const char *launch_api_address(const struct supervised *s);

/* clean.c: all processes are dead, nothing of them may stay -> EVENT_CLEANED. */
void clean_new(struct fleet *f);
void clean_free(struct fleet *f);
void clean_begin(struct supervised *s);
/* Its turn has come: work.c. */
void clean_now(struct supervised *s);
/* The files that a dead member leaves in its directory; also of an earlier life, at other ports. */
int clean_dir(const char *dir, struct err *e);
/* The same of all members that no daemon knows any more: of an earlier boot, of a cloud that is not
 * configured any more or had another size. None may be alive. */
void clean_sweep(const struct fleet *f);

/* java.c: which version runtime.java is -> launch_java_is_known() or launch_java_failed(). A
 * negative errno with a sentence when it cannot be asked. */
int java_ask(struct supervised *s, struct err *e);
void java_forget(struct supervised *s);
void java_free(struct fleet *f);

/* adopt.c: what an earlier daemon has left running. */
/* Watches them; nothing is decided yet. */
void adopt_members(struct supervised *s);
/* It goes on where it was, if an earlier daemon has left anything of it. */
void adopt_cloud(struct supervised *s);
/* All clouds do, or start when they should. */
void adopt_clouds(struct fleet *f);
/* Only takes back what runs: nothing is started. */
void adopt_resume(struct fleet *f);
/* The operator ends the daemon: the next one begins from the configuration. */
void adopt_end_session(const struct fleet *f);
void adopt_beat(struct fleet *f);
/* Once more, where that a daemon is up could not be written: all states have been. */
void adopt_note_session(struct fleet *f);

/* gate.c: the process. */
/* In the token of its environment, where a member's cloud, number and generation are. No cloud can
 * be called so. */
#define GATE_TOKEN "@gate"
/* The same of who makes the boot cache, and of its children. */
#define BOOT_TOKEN "@boot"
/* Takes over the one of an earlier daemon, with the doors that it has. A negative errno when we
 * cannot, for reasons of our own. */
int gate_new(struct fleet *f);
void gate_free(struct fleet *f);
/* 0 when there is none. */
pid_t gate_pid(const struct fleet *f);
/* Starts it where it does not run. 0; -EAGAIN, -ENOTCONN: doors_look() follows when it can. */
int gate_tell(struct fleet *f, const json_t *body, const int *fds, unsigned n_fds);
void gate_forget(struct fleet *f, const char *cloud);
/* Ends it, no cloud being there any more; true: it is gone. Else fleet_check_done() follows. */
bool gate_end(struct fleet *f, bool at_once);
/* To be called every second. */
void gate_beat(struct fleet *f);

/* door.c: of a cloud. */
/* Makes it what it should be now, and tells the gate; after each step. */
void door_look(struct supervised *s);
void doors_look(struct fleet *f);
/* All clouds are where they go on from: from now on doors may be shut, too. */
void doors_begin(struct fleet *f);
/* The gate is gone, and what it was told with it. */
void doors_unknown(struct fleet *f);
/* Has it a port on which the cloud can have its endpoint? Else takes one: `first`, or the next free
 * one. A negative errno with a sentence. */
int door_hold(struct supervised *s, uint16_t first, bool exact, struct err *e);
/* That very port; -EADDRINUSE without a sentence. */
int door_bind(struct supervised *s, uint16_t port, struct err *e);
void door_release(struct supervised *s);
/* Closes our descriptors; the gate keeps its own, for the next daemon. */
void door_close(struct supervised *s);
/* From the gate that an earlier daemon has left: descriptors are taken. False: it is not to be. */
bool door_adopt(struct fleet *f, struct gate_message *m);
/* When the last byte passed, in fleet_now() time; 0: never. */
uint64_t gate_traffic_ms(const struct supervised *s);

/* cgroups.c */
void cgroups_new(struct fleet *f);
void cgroups_free(struct fleet *f);
/* Before the members that wait to be released are: puts them into their group. True while that is
 * on its way; launch_release() is called again when it has come, or failed. */
bool cgroups_place(struct supervised *s);
/* A process of an earlier daemon was taken over: its group is the cloud's. */
void cgroups_adopted(struct supervised *s, pid_t pid);
/* SIGKILL to all that are in it, also to what has left its process group and session. */
void cgroups_kill(struct supervised *s);
/* All members are dead: nothing may be left in it; it is removed. */
void cgroups_clean(struct supervised *s);
/* What an earlier daemon has left in groups that no cloud uses now is killed. */
void cgroups_sweep(struct fleet *f);
/* No group any more, nothing on its way; touches no process. */
void cgroups_forget(struct supervised *s);
void cgroups_oom_sample(struct supervised *s);
/* What its memory.events says of OOM kills; false when it says nothing. */
bool cgroups_oom(struct supervised *s, struct exit_evidence *ev);

/* polls.c */
/* URL of a member with the cloud's context path; owned by the caller. */
char *supervised_url(const struct supervised *s, unsigned node, const char *path);
/* Where clients go; likewise. */
char *supervised_endpoint_url(const struct supervised *s);
void polls_start(struct supervised *s, unsigned node, bool full, uint64_t timeout_ms);
void polls_cancel(struct member *m);
void polls_rest_shutdown(struct supervised *s);

/* idle.c: when it was last used -> EVENT_IDLE. Less than `enough_ms` ago is not looked into. */
void idle_ask(struct supervised *s, uint64_t enough_ms);
/* It has become ready. */
void idle_watch(struct supervised *s);
/* What the next daemon needs: owned by the caller; NULL: nothing. It is for a cloud that is alive.
 */
json_t *idle_memory(const struct supervised *s);
void idle_remember(struct supervised *s, const json_t *memory);
void idle_cancel(struct supervised *s);

/* jobs.c: fleet_jobs(), fleet_cancel_job(). */
void jobs_free(struct supervised *s);

/* disk.c: notices full file systems. */
void disk_check(struct fleet *f);

/* exits.c: evidence of a process's end, for the model. */
void exits_report(struct proc *p, const struct proc_exit *exit, void *member);
/* A member of an earlier daemon that was gone before it could be adopted. */
void exits_report_gone(struct member *m);
/* Removes the JVM's /tmp/hsperfdata_USER/PID, which SIGKILL leaves behind. */
void exits_remove_perf_file(struct fleet *f, pid_t pid);
/* Remembers how often the kernel's OOM killer has struck. */
void oom_sample(struct fleet *f);

/* logs.c */
/* Where a member's output goes from now on: a descriptor, to be closed by the caller. */
int logs_begin(struct member *m, struct err *e);
/* Whether it can go where the configuration wants it. */
int logs_check_target(const struct supervised *s, struct err *e);
/* A sentence that says where its output is when it is not in a file; NULL: it is. Owned by the
 * caller. */
char *logs_elsewhere(const struct member *m);
/* Rotates what has grown too large or old; to be called every second or so. */
void logs_check(struct fleet *f);
void logs_init(struct supervised *s);
void logs_free(struct supervised *s);

/* recovery.c */
/* -errno (with a sentence) when a directory that was asked for by name cannot be used. */
int recovery_choose_dir(struct supervised *s, uint64_t heap_bytes, struct err *e);
void recovery_ignore(struct supervised *s);
void recovery_heed(struct supervised *s);
void recovery_inspect(struct supervised *s);
void recovery_resume(struct supervised *s);
void recovery_set_aside(struct supervised *s);

/* incident.c: the evidence of why a cloud was lost, for core/incidents.h. */
/* The model has just taken a step, and nothing was signalled yet: was the cloud lost, did a node
 * end that is part of it, is it known what follows? */
void incident_look(struct supervised *s, const struct cloud_event *ev);
/* ACTION_EVIDENCE: asks a hung JVM for a thread dump. */
void incident_ask_dump(struct supervised *s, unsigned node);
/* It is about to be killed: what it wrote is kept. */
void incident_take_dump(struct supervised *s, unsigned node);
/* Writes what has changed, and tells of it: once the cloud's state is saved, so that no end of the
 * daemon makes two incidents of one loss. */
void incident_keep(struct supervised *s);
void incident_forget(struct supervised *s);

/* state.c: the state file of each cloud. */
int state_save(struct supervised *s, bool durable, struct err *e);
void state_load(struct supervised *s);
/* The id of the fleet that the state files below are of; false when there are none. */
bool state_fleet_id(const char *state_dir, char id[17]);
void state_remove(struct supervised *s);

/* strays.c: processes of an earlier daemon on the same state directory. What cannot be watched or
 * looked for is in `cannot_adopt`. */
void strays_find(struct fleet *f);
void strays_free(struct fleet *f);
/* At once, instead of in order. */
void strays_kill(struct fleet *f);

/* fleet.c: no stray is left; launches that waited for that go on. */
void fleet_strays_gone(struct fleet *f);

/* fleet.c: one cloud of the fleet. `conf` stays the fleet's. */
struct supervised *supervised_new(struct fleet *f, const struct cloud_conf *conf);
void supervised_free(struct supervised *s);
/* NULL when there is none of that name. */
struct supervised *supervised_find(const struct fleet *f, const char *name);
/* Its members and the holds of their ports: as many as the model has nodes. */
void members_make(struct supervised *s);
void members_free(struct supervised *s);

/* created.c */
/* Renames the files of created clouds that `conf` could not take, and says so. */
void created_put_aside(struct fleet *f, const struct conf *conf);
/* What a daemon that was killed has not finished writing. */
void created_tidy(const struct fleet *f);

/* reload.c */
/* At the end of each supervised_feed(): can what waits be done now? It is, in a turn of the loop of
 * its own, when nobody further up the stack knows a member or the cloud. */
void reload_look(struct supervised *s);
/* Whether the next generation waits for its new configuration; launch_prepare() comes then. */
bool reload_defers_launch(struct supervised *s);
/* -EBUSY with a sentence while another cloud still uses what is this one's by its new
 * configuration: a port, a directory. */
int reload_check_others(const struct supervised *s, struct err *e);
void reload_free(struct fleet *f);
/* For created.c. Both take `conf` over; *out: cloud_change_clear(). */
struct supervised *reload_add(struct fleet *f, struct cloud_conf *conf);
void reload_change(struct supervised *s, struct cloud_conf *conf, struct cloud_change *out);
void reload_take_out(struct supervised *s);
/* What the members were launched with, for the state file; and, in the next daemon, the same again:
 * what the files say now waits in `pending`, as after a reload. Before members are adopted. */
json_t *reload_launched_with(const struct supervised *s);
void reload_recall(struct supervised *s, const json_t *launched_with);
