/* The life of one cloud: a pure state machine.
 *
 *	stopped -> starting -> forming -> ready <-> degraded
 *	              ^           |         |          |
 *	              |           v         v          v
 *	           backoff <--- recovering (every member dead and reaped)
 *	              |
 *	              v
 *	            failed          any --operator--> stopping -> stopped
 *	                   ready, degraded --unused--^               |
 *	                                  starting <--connection-----+ (armed: cloud_armed())
 *
 * cloud_step() takes one event and the time, changes the state and appends actions to c->actions,
 * which core/events.c carries out; what comes of them returns as events. No clock, no I/O, no
 * randomness of its own (rng is part of the state): a run can be replayed.
 *
 * What the operator wants (`wanted`) and what is seen (`state`) are separate. Only set_state() in
 * lifecycle.c writes `state`, and cloud_resume() at the very beginning. */
#pragma once

#include "base/err.h"
#include "conf/conf.h"
#include "model/cause.h"
#include "model/verdict.h"

enum cloud_state {
	CLOUD_STOPPED,
	CLOUD_STARTING,   /* runtime, ports and directories are being arranged, members launched */
	CLOUD_FORMING,    /* all members launched; not yet one agreed cloud */
	CLOUD_READY,      /* all members agree; endpoint published */
	CLOUD_DEGRADED,   /* a member answers late, or H2O calls it unhealthy; endpoint kept */
	CLOUD_RECOVERING, /* lost; members of the old generation are being ended */
	CLOUD_STOPPING,
	CLOUD_BACKOFF, /* waits before the next generation */
	CLOUD_FAILED,  /* given up until someone starts it */
};
#define N_CLOUD_STATES (CLOUD_FAILED + 1)

enum cloud_wanted {
	WANTED_STOPPED,
	WANTED_RUNNING,
};

/* What the gate does with those who come to the endpoint. */
enum cloud_door {
	DOOR_SHUT, /* it does not listen */
	DOOR_HOLD, /* they wait (gate_mode = hold), or are refused */
	DOOR_OPEN,
};

enum node_state {
	NODE_DOWN,    /* no process */
	NODE_BOOTING, /* process runs, no answer yet */
	NODE_UP,
	NODE_LATE,     /* no answer for late_after */
	NODE_STOPPING, /* was told to end */
	NODE_EXITED,   /* ended and reaped; last_exit tells */
};
#define N_NODE_STATES (NODE_EXITED + 1)

/* "ready", "recovering", ...: the words of the JSON and of the command line. */
const char *cloud_state_name(enum cloud_state s);
const char *cloud_wanted_name(enum cloud_wanted w);
const char *node_state_name(enum node_state s);

#define CLOUD_MAX_NODES 1024
#define ADDR_LEN        46 /* INET6_ADDRSTRLEN */

struct endpoint {
	char addr[ADDR_LEN];
	uint16_t port;
};

struct last_exit {
	bool present;
	bool known; /* the status is known */
	int code;
	int signal; /* 0: it exited with `code` */
	enum cause cause;
	char *why;      /* owned: one sentence */
	char *log_tail; /* owned: last lines of the node's log, or NULL */
	char *incident; /* owned: id of the incident that it is part of, set by core; or NULL */
	uint64_t wall_ms;
};

struct node {
	unsigned index;
	enum node_state state;
	pid_t pid;            /* 0: no process */
	uint64_t start_ticks; /* field 22 of /proc/PID/stat: with pid and boot id, its identity */
	uint16_t api_port;    /* 0 until planned; the internal port is one above */
	uint64_t launched_ms;
	uint64_t launched_wall_ms;
	uint64_t answered_ms; /* last good answer; 0: none in this life */
	uint64_t h2o_boot_ms; /* X-h2o-cluster-id of its first answer: another means another JVM */
	uint64_t poll_due_ms; /* next poll; 0: none planned */
	bool polling;         /* one is on its way */
	uint64_t polled_ms;   /* when the newest poll began */
	uint64_t blind_ms;    /* since when we cannot ask it; 0: we can */
	bool whole;           /* its last full answer was VERDICT_WHOLE */
	bool doubted;  /* ready, but its last full answer was VERDICT_INCOMPLETE: ask again */
	bool ask_full; /* its last full poll had no good answer: the next one is full, too */
	uint64_t unhealthy_ms;      /* since when it calls the cloud unhealthy; 0: it does not */
	int sent_signal;            /* last one that we sent in this life */
	uint64_t max_mem, free_mem; /* of its heap, bytes, as its cloud was last told; 0: not yet */
	bool hung;                  /* hang verdict: ended with SIGKILL at once */
	struct last_exit last_exit; /* survives the next launch */
};

/* What a cloud is using now: /3/Cloud of its members, refreshed by full polls. */
struct cloud_usage {
	bool known;
	uint64_t max_mem, free_mem; /* bytes, of all members */
	char h2o_version[32];
	bool locked;
};

enum cloud_timer {
	TIMER_READY,    /* ready_timeout */
	TIMER_STOP,     /* next rung of the stop ladder */
	TIMER_LEAVING,  /* a client's /3/Shutdown: how long until all must be out */
	TIMER_EVIDENCE, /* time for a hung JVM to write its thread dump */
	TIMER_BACKOFF,
	TIMER_FULL_POLL,
	TIMER_IDLE, /* max_idle_duration: next question */
	N_CLOUD_TIMERS,
};

enum action_type {
	ACTION_PREPARE,       /* runtime, ports, directories -> EVENT_PREPARED or _PREPARE_FAILED */
	ACTION_LAUNCH,        /* node -> EVENT_LAUNCHED or _LAUNCH_FAILED */
	ACTION_SIGNAL,        /* node, signal; SIGKILL goes to its whole process group */
	ACTION_POLL,          /* node, full (GET) or not (HEAD), timeout_ms -> EVENT_ANSWER */
	ACTION_EVIDENCE,      /* node: a thread dump is wanted, for the incident */
	ACTION_REST_SHUTDOWN, /* POST /3/Shutdown to member 0; no event */
	ACTION_CLEAN,         /* all dead: groups, tmp, ice -> EVENT_CLEANED */
	ACTION_RELEASE_PORTS,
	ACTION_INSPECT_RECOVERY,   /* is there an interrupted grid search? -> EVENT_RECOVERY */
	ACTION_RESUME,             /* POST /3/Recovery/resume -> EVENT_RESUMED */
	ACTION_IGNORE_RECOVERY,    /* a fresh start: what lies in its directory is not resumed */
	ACTION_HEED_RECOVERY,      /* start --resume: forget that mark */
	ACTION_SET_ASIDE_RECOVERY, /* it brought the cloud down twice: rename it */
	ACTION_ASK_IDLE, /* when was it last used? idle_ms: less is not worth a further question ->
			    EVENT_IDLE */
	ACTION_ANNOUNCE_IDLE,   /* it will be stopped in idle_ms unless it is used; no event */
	ACTION_ANNOUNCE_ACTIVE, /* it will not, after all; no event */
};

struct action {
	enum action_type type;
	unsigned node;
	int signal;
	bool full;
	uint64_t timeout_ms;
	uint64_t idle_ms;
};

/* A state that was entered. */
struct transition {
	enum cloud_state from, to;
	char *reason; /* owned; NULL: none */
};

struct failure_history {
	uint64_t at_ms[64]; /* ring of the newest failures */
	unsigned n;         /* how many of them count; all within the window */
};

struct cloud {
	const struct cloud_conf *conf; /* not owned */
	enum cloud_state state;
	enum cloud_wanted wanted;
	uint64_t since_ms;        /* monotonic time of the last state change */
	uint64_t ready_ms;        /* when this generation became ready; 0: not yet */
	uint64_t since_wall_ms;   /* for display; set by core */
	uint64_t generation;      /* counts launches; 0: never launched */
	uint64_t restarts;        /* generations begun by us since the operator's start */
	char *h2o_name;           /* owned: -name of this generation; NULL before the first */
	struct endpoint endpoint; /* where clients go; published while ready or degraded */
	bool ports_planned;       /* the nodes' api_port are those of this cloud from now on */
	bool ever_ready;          /* since the operator's start */
	char *reason;             /* owned: why it is not ready, in words; NULL: nothing to say */
	struct cloud_usage usage;

	struct node *nodes; /* owned; n_nodes of them */
	size_t n_nodes;

	struct failure_history history;
	uint64_t timers[N_CLOUD_TIMERS]; /* when; 0: not running */

	bool preparing;       /* ACTION_PREPARE is on its way */
	bool cleaning;        /* ACTION_CLEAN is on its way */
	bool shutting_down;   /* the daemon ends: nothing is started any more */
	bool disarmed;        /* stopped for good: a connection does not start it */
	bool idle_asking;     /* ACTION_ASK_IDLE is on its way */
	bool fresh;           /* this start is the operator's, not a recovery */
	bool restart_asked;   /* operator's restart: start again once stopped */
	bool resume_asked;    /* start --resume */
	bool leaving;         /* members end by a client's /3/Shutdown */
	bool uncounted;       /* the teardown counts as no failure (short lock) */
	bool permanent;       /* the teardown's cause cannot heal by itself */
	bool resuming;        /* a recovery was resumed in this generation */
	bool resume_sent;     /* POST /3/Recovery/resume is on its way */
	unsigned bad_resumes; /* resumes in a row that ended in a loss without progress */
	char *unhealthy_why;  /* owned: H2O's complaint, while a node's unhealthy_ms runs */
	unsigned stop_rung;
	unsigned prepare_failures; /* and failed launches, in a row: how long to wait */
	unsigned full_poll_next;   /* whose turn it is */
	uint64_t short_locks;      /* formations abandoned because a client locked too early */
	uint64_t next_start_ms;    /* in backoff: when; for display */
	uint64_t active_ms;        /* last sign of use that we know of; 0: not ready yet */
	uint64_t idle_asked_ms;    /* when the newest question about that was put */
	uint64_t idle_said_ms;     /* when its stop for want of use was announced; 0: it is not */
	uint64_t idled_ms; /* it was stopped after so long without use; 0: for another reason */
	uint64_t rng;
	uint32_t phase; /* of its polls: spreads those of many clouds over the interval */

	/* Set by core: how many nodes of the fleet are on their way to a whole cloud, ours among
	 * them. */
	size_t crowd;

	/* Set by core, for display: */
	struct strv pending_keys; /* changed, but in force only from the next generation on */
	bool removed;             /* from the configuration: it is stopped and then forgotten */

	struct action *actions; /* owned; to be carried out, oldest first; the core empties it */
	size_t n_actions;
	struct transition *transitions; /* owned; what happened, for log and events; likewise */
	size_t n_transitions;
	bool dirty; /* something changed that belongs into the state file */
};

enum event_type {
	EVENT_START,    /* operator: start, flag = resume */
	EVENT_STOP,     /* operator, flag = disarm: no connection is to start it again */
	EVENT_KNOCK,    /* a connection waits at the gate of a cloud that is armed */
	EVENT_TOUCH,    /* operator: it is in use, whatever it looks like */
	EVENT_RESTART,  /* operator, flag = resume */
	EVENT_SHUTDOWN, /* the daemon ends; flag = at once (SIGKILL) */
	EVENT_TICK,     /* a deadline has passed (cloud_next_deadline()) */
	EVENT_RESUME,   /* first of all, in a cloud from cloud_remember(): was; flag = its launch
			   was cut short */
	EVENT_PREPARED, /* ports: API port of each node; endpoint_port: the gate's, 0: none */
	EVENT_PREPARE_FAILED, /* text = sentence; flag = permanent */
	EVENT_LAUNCHED,       /* node, pid, start_ticks */
	EVENT_LAUNCH_FAILED,  /* node, text, flag = permanent */
	EVENT_EXITED,         /* node, exit */
	EVENT_ANSWER,         /* node, answer */
	EVENT_CLEANED,
	EVENT_RECOVERY, /* flag: there is something to resume; progress: more than at the last
			   resume */
	EVENT_RESUMED,  /* flag: H2O took it, or may have */
	EVENT_IDLE,     /* idle_ms: since its last use, or IDLE_UNKNOWN; flag: a job runs */
};

/* It could not be told: no evidence of anything. */
#define IDLE_UNKNOWN UINT64_MAX

enum answer_kind {
	ANSWER_OK,
	ANSWER_REFUSED, /* nobody listens */
	ANSWER_TIMEOUT,
	ANSWER_BROKEN,  /* reset, garbage, HTTP error, or not parseable; text says what */
	ANSWER_UNASKED, /* we could not ask: no evidence, and the time does not count */
};

struct answer {
	enum answer_kind kind;
	bool full;                   /* GET; `view` is set if kind is ANSWER_OK */
	bool good;                   /* X-h2o-cluster-good */
	uint64_t h2o_boot_ms;        /* X-h2o-cluster-id; 0: absent */
	struct h2o_cloud_view *view; /* not owned */
	const char *text;
};

struct cloud_event {
	enum event_type type;
	unsigned node;
	pid_t pid;
	uint64_t start_ticks;
	bool flag;
	bool progress;
	const char *text;
	const uint16_t *ports;
	uint16_t endpoint_port;
	const struct exit_evidence *exit;
	const struct answer *answer;
	enum cloud_state was;
	uint64_t wall_ms; /* for stamps that people read */
	uint64_t idle_ms;
};

/* `conf` must outlive the cloud. `seed` feeds names and jitter. */
struct cloud *cloud_new(const struct cloud_conf *conf, uint64_t seed);
void cloud_free(struct cloud *c);

/* Another configuration from now on, with deadlines that are running moved by what has changed.
 * What members were launched with, as `nodes`, may differ only while none is alive. */
void cloud_configure(struct cloud *c, const struct cloud_conf *conf, uint64_t now_ms);

/* One event at (awake, monotonic) time `now_ms`; never decreasing. */
void cloud_step(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms);

/* When the next EVENT_TICK is due; UINT64_MAX: never. */
uint64_t cloud_next_deadline(const struct cloud *c);

enum cloud_door cloud_door(const struct cloud *c);
/* At rest, or on the way there, and only a connection is wanted to start it: EVENT_KNOCK. */
bool cloud_armed(const struct cloud *c);

/* When it is stopped for want of use, as far as is known; 0: never. `used_ms`: a sign of use that
 * it has not been told of yet; 0: none. */
uint64_t cloud_idle_stop(const struct cloud *c, uint64_t used_ms);

/* The endpoint is published: clients may come. */
bool cloud_usable(const struct cloud *c);
/* A node cannot be asked at present, for reasons of our own. */
bool cloud_is_blind(const struct cloud *c);
/* No process of it is left and nothing is on its way. */
bool cloud_quiet(const struct cloud *c);
size_t cloud_nodes_alive(const struct cloud *c);
size_t cloud_nodes_up(const struct cloud *c);
/* A process runs in this slot, or is being launched into it. */
bool node_alive(const struct node *n);

/* Empty the lists after use. */
void cloud_drop_actions(struct cloud *c);
void cloud_drop_transitions(struct cloud *c);

#define cloud_for_each_node(n, c)                                                                  \
	for (struct node *n = (c)->nodes; n < (c)->nodes + (c)->n_nodes; n++)
