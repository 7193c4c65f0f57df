/* The simulated world of one cloud: what the files of this folder share. */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "model/cloud.h"
#include "model/memory.h"
#include "model/plan.h"

#define MAX_NODES 5

/* A process as the world has it. */
struct sim_proc {
	bool alive;
	bool unreleased; /* forked, and waits for the daemon */
	pid_t pid;
	uint64_t generation;
	uint64_t serves_at; /* answers from then on */
	uint64_t joins_at;  /* is in its cloud from then on */
	uint64_t hangs_until;
	uint64_t poll_at, good_at;
	uint64_t blind_from, blind_for; /* could not be asked, since good_at */
	uint64_t dies_at;               /* by a signal of ours, under way */
	int dies_of;
	bool ignores_term;
	bool polled;
	bool poll_full;
	uint64_t poll_due, poll_expires;
};

#define MAX_CLIENTS 4

/* Comes to the endpoint, through the gate. */
struct sim_client {
	bool there, passes;
	uint64_t leaves_at; /* held: its patience, or the gate's, ends */
};

/* The gate: it goes on, as it was told to, without the daemon. */
struct sim_gate {
	enum cloud_door door;
	bool knock;    /* it is to tell of clients that wait */
	bool told;     /* and has */
	bool adopting; /* a new daemon tells it only when it knows all members */
	uint64_t knock_at;
	struct sim_client clients[MAX_CLIENTS];
};

/* Who uses the cloud, and what the daemon has asked about that. */
struct sim_use {
	uint64_t used_at;
	uint64_t job_from, job_until, job_generation;
	bool asked, fails;
	uint64_t answer_at;
	uint64_t said_at;     /* its stop was announced; 0: it is not */
	uint64_t prompt_from; /* it could not be seen earlier that nobody uses it */
	bool stopped;         /* for want of use: only somebody can start it */
};

struct sim {
	struct cloud *c;
	char *saved; /* owned: the state file */
	uint64_t saved_at;
	unsigned depth;    /* of feed() */
	unsigned crash_in; /* the daemon dies so many steps from now, wherever that is; 0: not */
	jmp_buf crash;
	struct h2o_member *members; /* owned: of the answer that is on its way */
	struct cloud_conf confs[2]; /* one is in force, the other can be made ready */
	struct sim_proc procs[MAX_NODES];
	uint64_t now, rng;
	uint64_t cannot_ask_until; /* no descriptors */
	pid_t next_pid;
	bool prepare_due, clean_due, ports_held, locked_short;
	uint64_t prepare_at, clean_at, clock_of_wanted;
	uint64_t events;
	bool verbose;
	uint64_t seed;
	struct sim_gate gate;
	struct sim_use use;
	/* seen along the way, so that a simulation that never gets anywhere fails */
	unsigned readies, losses, failed, short_locks, hangs, unasked, reloads, resized, crashes,
		adoptions, passed, cut, knocks, idle_stops, idle_said, idle_off;
};

static inline uint64_t below(struct sim *s, uint64_t n)
{
	return rng_next(&s->rng) % n;
}

static inline bool chance(struct sim *s, unsigned per_mille)
{
	return below(s, 1000) < per_mille;
}

#define invariant(s, cond)                                                                         \
	do {                                                                                       \
		if (!(cond))                                                                       \
			fail_msg("seed %" PRIu64 ", t=%" PRIu64 ": violated: %s", (s)->seed,       \
				(s)->now, #cond);                                                  \
	} while (0)

/* One event for the model, and all that comes of it. */
void feed(struct sim *s, struct cloud_event ev);

/* gate.c */
/* After each step, before anything is done: the door is what the model says. */
void gate_follow(struct sim *s);
void gate_tick(struct sim *s);
void gate_check(const struct sim *s);
/* The gate itself is killed: it has a new one, and whoever was connected is not. */
void gate_dies(struct sim *s);
void gate_false_knock(struct sim *s);
void gate_taken_over(struct sim *s);

/* use.c */
void use_tick(struct sim *s);
void use_check(struct sim *s);
/* Bytes have passed, or somebody said that they will. */
void use_it(struct sim *s);
/* What the model was told, and what it made of that. */
void use_note_event(struct sim *s, const struct cloud_event *ev);
void use_note_transition(struct sim *s, const struct transition *t);
void use_ask(struct sim *s);
void use_taken_over(struct sim *s);
