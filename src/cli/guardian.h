/* The guardian of `h2ofleet run`: a small process beside the command, in a session of its own, that
 * sees to it that nothing of the cloud outlives the run.
 *
 *     run ──(control)── guardian ── h2ofleetd ── nodes, gate
 *
 * It makes the run's directory, is the daemon's parent, starts another one when the daemon is
 * killed (which takes the nodes back as they are), and ends all of it when it is told to, or when
 * `run` is gone: the end of the control socket. Whichever two of the three are killed, the third
 * ends the rest: `run` starts another guardian, and the daemon ends at the end of its standard
 * input, a pipe that `run` and the guardian hold (--until-eof). Should all three go in one instant,
 * the next run finds their directory without a lock, and has a guardian end what is left. */
#pragma once

#include "base/err.h"
#include "base/strv.h"

/* argv[0] of a guardian; the client's main() goes by it. */
#define GUARDIAN_NAME "h2ofleet-guardian"

/* Descriptors that it is started with. */
enum {
	GUARDIAN_CONTROL = 3,    /* SOCK_SEQPACKET, see below */
	GUARDIAN_LIFE_READ = 4,  /* of the pipe that is the daemon's standard input */
	GUARDIAN_LIFE_WRITE = 5, /* kept open, never written to */
};

/* What it is told: a word each. */
#define GUARDIAN_START "start" /* the daemon, or take it back; its configuration is in place */
#define GUARDIAN_END   "end"   /* end everything, remove the directories, and exit */
#define GUARDIAN_KEEP  "keep"  /* the same, but rename `dir` to `kept` */
#define GUARDIAN_HASTE "haste" /* while it ends: kill, do not wait */
/* What it says. */
#define GUARDIAN_MADE "made" /* the directories are there */
#define GUARDIAN_LOST "lost" /* there is no daemon, and will be none */

/* Where a run has its things. All owned. */
struct run_place {
	char *dir;        /* of everything but, maybe, the socket */
	char *socket_dir; /* NULL: `dir`; else its path is too long for a socket's address */
	char *kept;       /* what `dir` is called when it is to stay */
	char *socket;
	char *config;
	char *daemon_log;
};

/* Names only; nothing is made. -ENAMETOOLONG and others with a sentence. */
int run_place_choose(struct run_place *p, struct err *e);
/* The place that a guardian is told of; `socket_dir` may be "". */
void run_place_set(struct run_place *p, const char *dir, const char *socket_dir);
void run_place_free(struct run_place *p);
/* A shared lock on a file in directory `path`: somebody looks after it. A descriptor, or -1. */
int run_place_hold(const char *path);

/* The guardian's main(): DIR SOCKET_DIR H2OFLEETD. */
int guardian_main(int argc, char **argv);

/* guard.c: the guardian as `run` sees it. */
struct guard {
	const struct run_place *place;
	const char *daemon; /* the program */
	struct strv env;    /* of guardian, daemon and nodes */
	int control;        /* to be polled for reading; -1: none */
	int life[2];
	int holds[2]; /* locks of the place */
	pid_t pid;
	unsigned starts;
	const char *last; /* what it was told last: another one is told again */
	bool made, lost;
	bool ended; /* after an end: it is gone, and has done its work */
};

#define GUARD_NULL ((struct guard){.control = -1, .life = {-1, -1}, .holds = {-1, -1}, .pid = -1})

/* Starts one and waits until it has made the directories. */
int guard_begin(struct guard *g, struct err *e);
void guard_tell(struct guard *g, const char *word);
/* Takes in what it has said; should it be gone, starts another. Never waits. */
void guard_turn(struct guard *g);
void guard_close(struct guard *g);
/* Has others end what runs of this user have left whose guardians were killed as well. Does not
 * wait for it. */
void guard_sweep(const struct guard *g);
