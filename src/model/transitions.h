/* What the files of the state machine share; for nobody else. */
#pragma once

#include "model/cloud.h"

void cloud_act(struct cloud *c, struct action a);
void last_exit_clear(struct last_exit *x);

/* The one place that writes c->state. The reason is taken over by the new state. */
void cloud_set_state(struct cloud *c, enum cloud_state to, uint64_t now_ms);

/* Begins a generation: asks for runtime, ports and directories. */
void cloud_prepare(struct cloud *c, uint64_t now_ms);

/* Ends what runs, by the ladder from that rung on (0 REST, 1 SIGTERM, 2 SIGKILL), then cleans. */
void cloud_tear_down(struct cloud *c, unsigned first_rung, uint64_t now_ms);

/* Stops it in order, with the reason that is set. */
void cloud_begin_stop(struct cloud *c, bool at_once, uint64_t now_ms);

/* Stopped: nothing of it runs, its ports are given back. */
void cloud_rest(struct cloud *c, uint64_t now_ms);

/* A client's /3/Shutdown: waits, for a while, until all are out. */
void cloud_leave(struct cloud *c, uint64_t now_ms);

/* Lost on evidence: withdraws the endpoint and begins to end all members. `counted`: as a failure
 * (start limit, back-off). */
void cloud_lose(struct cloud *c, bool counted, uint64_t now_ms, const char *fmt, ...)
	_printf_(4, 5);

/* The same for members that hang: evidence is gathered first. */
void cloud_lose_hung(struct cloud *c, struct node *n, uint64_t now_ms);

/* All members agree. */
void cloud_become_ready(struct cloud *c, uint64_t now_ms);

/* Between ready and degraded, with the reason for the latter (NULL: ready). */
void cloud_set_degraded(struct cloud *c, uint64_t now_ms, const char *why);

/* How long a rung of the stop ladder before SIGKILL lasts. */
uint64_t cloud_stop_patience(const struct cloud *c);

/* watch.c: polling, lateness and hangs. */
void watch_begin_forming(struct cloud *c, struct node *n, uint64_t now_ms);
void watch_begin_ready(struct cloud *c, uint64_t now_ms);
void watch_answer(struct cloud *c, struct node *n, const struct answer *a, uint64_t now_ms);
void watch_tick(struct cloud *c, uint64_t now_ms);
uint64_t watch_next_deadline(const struct cloud *c);

/* idle.c: how long it has not been used. */
void idle_begin(struct cloud *c, uint64_t now_ms);
/* With what is known from an earlier daemon. */
void idle_go_on(struct cloud *c, uint64_t now_ms);
/* The configuration has changed. */
void idle_plan(struct cloud *c, uint64_t now_ms);
void idle_touch(struct cloud *c, uint64_t now_ms);
void idle_tick(struct cloud *c, uint64_t now_ms);
void idle_answer(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms);
/* Why it is stopped, when that is it: owned by the caller; else NULL. */
char *idle_reason(const struct cloud *c);
