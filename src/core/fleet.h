/* The supervisor: the one place that sees both the model and the world.
 *
 * It carries out the model's actions with the drivers and feeds what comes of them back as events.
 * After each step it saves the cloud's state file when something in it changed, logs, and tells the
 * observers. */
#pragma once

#include <uv.h>

#include "base/err.h"
#include "conf/conf.h"
#include "core/journal.h"
#include "model/cloud.h"

struct fleet;

/* Takes `conf` over. Creates directories, takes the lock on the state directory (-EBUSY, and who
 * holds it, when another daemon has it), finds what an earlier daemon left running. Decides nothing
 * yet. */
int fleet_new(uv_loop_t *loop, struct conf *conf, struct fleet **out, struct err *e);

/* Clouds of an earlier daemon go on; what belongs to none is ended; the others start if they should
 * (autostart). */
void fleet_start(struct fleet *f);

/* Ends all clouds in order and calls `done` when no process is left; again with at_once: SIGKILL.
 */
void fleet_shutdown(struct fleet *f, bool at_once, void (*done)(void *arg), void *arg);

/* Releases everything; the loop must run on until the handles are closed. */
void fleet_free(struct fleet *f);

size_t fleet_n_clouds(const struct fleet *f);
const struct cloud *fleet_cloud(const struct fleet *f, size_t i);
/* NULL when there is none of that name. */
const struct cloud *fleet_find(const struct fleet *f, const char *name);
/* The nearest name for "did you mean", or NULL. */
const char *fleet_nearest(const struct fleet *f, const char *name);

enum fleet_command { FLEET_START, FLEET_STOP, FLEET_RESTART };

/* The operator's word; idempotent. `resume`: also resume an interrupted grid search. */
void fleet_command(struct fleet *f, const char *cloud, enum fleet_command cmd, bool resume);

const struct conf *fleet_conf(const struct fleet *f);

/* The clock of the model: monotonic milliseconds without the times in which the machine slept or
 * this process was stopped. */
uint64_t fleet_now(struct fleet *f);

/* Path of a node's log (stdout and stderr). Owned by the caller. */
char *fleet_node_log(const struct fleet *f, const char *cloud, unsigned node);

/* Called after each change of a cloud or of one of its nodes. */
typedef void (*fleet_observer)(const struct cloud *c, void *arg);
void fleet_observe(struct fleet *f, fleet_observer cb, void *arg);

/* All events, numbered (core/journal.h). */
struct journal *fleet_journal(const struct fleet *f);
/* Something happened: kept, then told to followers. `type` is stable, for programs; the format
 * makes one sentence for people. `c` may be NULL, `node` -1; `extra` (stolen; may be NULL) is an
 * object with members of this type, whose strings are UTF-8 (json_pack() makes nothing of others).
 */
void fleet_event(struct fleet *f, const char *type, const struct cloud *c, int node, json_t *extra,
	const char *fmt, ...) _printf_(6, 7);
