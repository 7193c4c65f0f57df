/* The gate: one process per fleet, with a door for each cloud. What it is told and what it tells is
 * in drv/gate_wire.h. One thread, one loop (gate/loop.h), nothing that blocks.
 *
 *	control.c	the daemon: messages, adoption
 *	report.c	who was refused, what did not answer: said now and then
 *	door_conf.c	how a door is told to be
 *	door.c		listeners, the mode, who waits
 *	groups.c	what the name service says of a user, asked by a child
 *	conn.c		one connection, from accept(2) to its end
 *	pass.c		its bytes
 *	pipes.c		the pipes through which they go
 *
 * A connection's life:
 *
 *	accepted -> CHECKING -> HELD -> CONNECTING -> PASSING -> closed
 *
 * CHECKING only while the name service is asked, HELD only while the door is; from all of them to
 * the end at once when the client goes away. A door that is no longer open puts those CONNECTING
 * back to HELD (nothing of them was passed) and cuts those PASSING. */
#pragma once

#include <netinet/in.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/strv.h"
#include "drv/gate_wire.h"
#include "drv/who.h"
#include "gate/loop.h"

#define GATE_LISTENERS 2 /* of a door, at most */

/* How long things take at most, ms. */
#define GATE_CONNECT_MS 10000 /* to member 0 */
#define GATE_NAMES_MS   5000  /* the name service */
#define GATE_KNOWN_MS   60000 /* how long its answer is believed */
#define GATE_REPORT_MS  10000 /* between two reports of the same thing */
#define GATE_RETRY_MS   100   /* when descriptors or memory lack */
#define GATE_ALONE_MS   10000 /* without door and daemon */

/* --- pipes.c -------------------------------------------------------------------------------- */

struct pipe {
	int r, w; /* -1: none */
};
#define PIPE_NULL ((struct pipe){.r = -1, .w = -1})

#define GATE_IDLE_PIPES 16

struct pipes {
	struct pipe idle[GATE_IDLE_PIPES];
	unsigned n_idle;
};

/* 0 or a negative errno. */
int pipe_take(struct pipes *p, struct pipe *out);
/* Gives it back; `empty`: it can serve another. */
void pipe_give(struct pipes *p, struct pipe *pipe, bool empty);
void pipes_free(struct pipes *p);

/* --- the whole ------------------------------------------------------------------------------ */

struct gate {
	struct loop loop;
	struct list doors;
	struct pipes pipes;

	/* control.c */
	struct watch listener; /* standard input */
	struct watch daemon;   /* fd -1: none is connected */
	struct list *telling;  /* the door that a new daemon is told next; NULL: it knows all */
	bool told_hello;
	struct timer alone;
	struct timer retry; /* accept(2) fails for a while, */
	unsigned retries;   /* so often by now */
	struct watch signals;

	/* groups.c */
	struct list lookups;
	unsigned n_children;

	struct who who;
};

/* The program; its exit status. */
int gate_main(int argc, char **argv);

/* Descriptors are limited. When connections have all that they may, pipes can still be had: without
 * one the end of a connection cannot be read, so that nothing would come free again. And when those
 * are gone the daemon gets through still. What the next calls may use: */
enum descriptors { FOR_CONNECTIONS, FOR_PIPES, FOR_CONTROL };
void gate_use_descriptors(enum descriptors what);

/* --- door_conf.c ---------------------------------------------------------------------------- */

enum door_mode { MODE_REFUSE, MODE_HOLD, MODE_OPEN };

/* What a "door" message says. */
struct door_conf {
	json_t *body; /* owned: as it came */
	const char *cloud;
	enum door_mode mode;
	struct sockaddr_storage member;
	socklen_t member_len;
	uint64_t hold_ms;
	uint64_t max_held;
	bool knock, anyone, foreign;
	uid_t *uids; /* owned */
	size_t n_uids;
	struct strv names;
};
#define DOOR_CONF_NULL ((struct door_conf){.body = NULL})

/* 0, or -EINVAL and what is wrong with it; then *out is empty. */
int door_conf_parse(json_t *body, struct door_conf *out, struct err *e);
void door_conf_clear(struct door_conf *c);

/* --- groups.c ------------------------------------------------------------------------------- */

struct door;

enum verdict { VERDICT_NO, VERDICT_YES, VERDICT_WAIT };

/* What an earlier answer was. */
struct known {
	uid_t uid;
	bool allowed;
	uint64_t until;
};

/* Is the user one of the door's names? VERDICT_WAIT: door_answer() will be called. */
enum verdict groups_ask(struct door *d, uid_t uid);
/* The door goes, or has other names. */
void groups_forget(struct door *d);
/* The gate ends. */
void groups_free(struct gate *g);
/* What the child does: asks the name service, however long that takes. */
bool groups_match(uid_t uid, const struct strv *names);

/* --- report.c ------------------------------------------------------------------------------- */

/* Tells the daemon now, or after a while with all that come until then. `why` is a constant. */
void report_refused(struct door *d, uid_t uid, const char *why);
void report_unreachable(struct door *d, int error);
/* To a new daemon: what there was to say meanwhile. */
void reports_flush(struct door *d);
void reports_free(struct door *d);

/* --- conn.c, pass.c ------------------------------------------------------------------------- */

enum conn_state { CONN_NEW, CONN_CHECKING, CONN_HELD, CONN_CONNECTING, CONN_PASSING };

/* One end. The flags are what the last edge said, until EAGAIN says otherwise. */
struct side {
	struct watch w;
	bool readable, writable;
	bool urgent; /* it may have sent urgent data, at whose mark splice(2) stops */
	bool dead;   /* an error came: what it sent before can still be read, nothing written */
};

/* One direction. */
struct flow {
	struct pipe pipe; /* only while bytes are in it */
	size_t in_pipe;
	bool eof;  /* the source sends no more */
	bool done; /* which has been passed on */
};

struct conn {
	struct list link; /* in its door's list of `state` */
	struct door *door;
	enum conn_state state;
	uid_t uid;      /* UID_UNKNOWN when the door is for anyone */
	uint64_t since; /* ms, when it began to wait or to connect */
	struct side client, server;
	struct flow in, out; /* to member 0, and back */
	struct timer timer;
};

/* Sets the options of a socket to a peer that is `near`, on this machine, or not; those of a
 * listener go on to what it accepts. */
void conn_tune(int fd, bool near);
/* Takes the accepted socket. */
void conn_new(struct door *d, int fd);
/* The client may come in: passes it on, or lets it wait, as the door is. */
void conn_admit(struct conn *c);
void conn_refuse(struct conn *c, const char *why);
/* A HELD one, by the rules as they are now. */
void conn_judge_again(struct conn *c);
void conn_connect(struct conn *c);
/* Back from CONNECTING, or anew. */
void conn_hold(struct conn *c);
/* Ends it: in order, when both directions have; else both sides get RST. */
void conn_close(struct conn *c);
void conn_reset(struct conn *c);
/* A HELD one that has waited in vain. */
void conn_expire(struct conn *c);

/* Moves what can be moved; the connection may be gone afterwards. `events` of `from`, or 0 and
 * NULL for its turn. */
void pass_events(struct conn *c, struct side *from, uint32_t events);
void pass_clear(struct conn *c);

/* --- door.c --------------------------------------------------------------------------------- */

struct listener {
	struct watch w;
	struct door *door;
	struct timer again; /* accept(2) or listen(2) failed for a while */
	bool listens;
};

struct door {
	struct gate *gate;
	struct list link;
	struct door_conf conf;
	struct gate_counters *counters; /* shared with the daemon */
	int counters_fd;
	struct listener listeners[GATE_LISTENERS];
	unsigned n_listeners;
	struct list conns[CONN_PASSING + 1]; /* by state */
	struct timer expiry;                 /* of the first that is held */
	struct watch release;                /* no descriptor: connects those that were held */
	bool knocked;
	struct known *known; /* groups.c */
	size_t n_known;
	struct list reports;
};

struct door *door_find(struct gate *g, const char *cloud);
/* Takes conf and descriptors: the counters, then the listeners. NULL when they are no such. */
struct door *door_new(struct gate *g, struct door_conf *conf, const int *fds, unsigned n_fds);
/* As it is told to be from now on. */
void door_change(struct door *d, struct door_conf *conf);
/* For good: its own listeners do not listen any more. */
void door_forget(struct door *d);
/* We end: another gate may take it over, and who is in the kernel's queue. */
void door_free(struct door *d);
/* The name service's answer; `why` when it is no. */
void door_answer(struct door *d, uid_t uid, bool allowed, const char *why);
/* May this one wait, too? */
bool door_has_room(const struct door *d);
/* A connection is held now. */
void door_held(struct door *d);
/* Adds to a counter, which only we write. */
static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}
#define door_count(d, counter, n) counter_add(&(d)->counters->counter, (uint64_t)(n))
void door_traffic(struct door *d);

/* --- control.c ------------------------------------------------------------------------------ */

/* 0 or a negative errno. */
int control_init(struct gate *g);
/* True when the daemon has it. */
bool control_tell(struct gate *g, const json_t *body);
/* False when it could not be told now; it is tried again when that can be. */
bool control_knock(struct door *d);
void control_doors_changed(struct gate *g);
void control_free(struct gate *g);
