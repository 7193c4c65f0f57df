/* The supervisor: the one place that sees both the model and the world.
 *
 * It carries out the model's actions with the drivers and feeds what comes of them back as events.
 * After each step it saves the cloud's state file when something in it changed, logs, and tells the
 * observers. */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "base/err.h"
#include "conf/conf.h"
#include "conf/diff.h"
#include "core/incidents.h"
#include "core/journal.h"
#include "model/cloud.h"

struct fleet;

/* Takes `conf` over. Creates directories, takes the lock on the state directory (-EBUSY, and who
 * holds it, when another daemon has it), finds what an earlier daemon left running. Decides nothing
 * yet. */
int fleet_new(uv_loop_t *loop, struct conf *conf, struct fleet **out, struct err *e);

/* Does a daemon run on that state directory? -EBUSY, and its pid (0: unknown); 0: none; -ENOENT: no
 * daemon ever ran there. */
int fleet_find_daemon(const struct fleet_conf *c, pid_t *pid);

/* Clouds of an earlier daemon go on; what belongs to none is ended; the others start if they should
 * (autostart). */
void fleet_start(struct fleet *f);

/* Instead of that: ends all that an earlier daemon has left, as fleet_shutdown() does. */
void fleet_end_left_behind(struct fleet *f, void (*done)(void *arg), void *arg);

/* Ends all clouds in order and calls `done` when no process is left; again with at_once: SIGKILL.
 */
void fleet_shutdown(struct fleet *f, bool at_once, void (*done)(void *arg), void *arg);

/* Could a daemon with this configuration go on from the state files? 0; -EINVAL and others with a
 * sentence. Changes nothing. */
int fleet_check_state(const struct conf *conf, struct err *e);

/* Saves all states and puts what the next image of this process needs on the list of
 * base/handover.h. A negative errno, with a sentence, when a state cannot be saved: then it must
 * not be done. */
int fleet_hand_over(struct fleet *f, struct err *e);

/* Saves all states: the clouds are left running for the next daemon. fleet_free() must follow. */
void fleet_detach(struct fleet *f);

/* Releases everything; the loop must run on until the handles are closed. */
void fleet_free(struct fleet *f);

size_t fleet_n_clouds(const struct fleet *f);
const struct cloud *fleet_cloud(const struct fleet *f, size_t i);
/* NULL when there is none of that name. */
const struct cloud *fleet_find(const struct fleet *f, const char *name);
/* The nearest name for "did you mean", or NULL. */
const char *fleet_nearest(const struct fleet *f, const char *name);

enum fleet_command { FLEET_START, FLEET_STOP, FLEET_RESTART, FLEET_TOUCH };

/* The operator's word; idempotent. `flag`, of start and restart: also resume an interrupted grid
 * search; of stop: no connection is to start it again (start_on = connect). */
void fleet_command(struct fleet *f, const char *cloud, enum fleet_command cmd, bool flag);

/* Marks all that belongs to this fleet: 16 hexadecimal digits. */
const char *fleet_id(const struct fleet *f);
/* fleet_shutdown() was called. */
bool fleet_ending(const struct fleet *f);

/* What is in force. */
const struct conf *fleet_conf(const struct fleet *f);

/* What this cloud will have from its next generation on; NULL: what it has. */
const struct cloud_conf *fleet_pending(const struct fleet *f, const char *cloud);

struct reload_options {
	bool dry_run;
	bool restart; /* clouds that need it are restarted now, also without apply = restart */
};

/* Begins as { 0 }. What a reload did, or would do. */
struct reload_report {
	struct conf_diff diff; /* `applied`: nothing of the change waits for a restart */
	struct strv errors;    /* why all of it was refused; then `diff` is empty */
};

/* Takes `new_conf` over, whatever becomes of it, and puts it in force: keys that can change live at
 * once; the others once no member of their cloud is alive, or with the next start of the daemon;
 * new clouds are added and, with autostart, started; missing ones are stopped and forgotten. All or
 * nothing: -ESHUTDOWN, with a sentence in the report, while the fleet ends (then `new_conf` may be
 * NULL). */
int fleet_reload(struct fleet *f, struct conf *new_conf, const struct reload_options *opts,
	struct reload_report *out);
static inline void reload_report_clear(struct reload_report *r)
{
	conf_diff_clear(&r->diff);
	strv_free(&r->errors);
}

/* Clouds made at run time (core/created.c). All or nothing: it is on disk, and in force, or nothing
 * has changed. */

struct fleet_who {
	uid_t uid;
	bool admin; /* root or the daemon's user: no limits but the machine's */
};

/* Takes `conf` over, whatever becomes of it: `created`, and checked as far as it goes alone. All
 * that is wrong comes in *errors, one sentence at least: -EEXIST: there is one of that name;
 * -EBUSY: it is being removed still; -EINVAL: at odds with itself, the machine or another cloud;
 * -EDQUOT: the limits for who is no admin; -ESHUTDOWN; others: the file could not be written. With
 * `start` it is started, else at rest. */
int fleet_create(struct fleet *f, struct cloud_conf *conf, const struct fleet_who *who, bool start,
	struct strv *errors);
/* Gives a created cloud other keys, as a reload does. *change is filled (cloud_change_clear()). */
int fleet_change_created(struct fleet *f, struct cloud_conf *conf, const struct fleet_who *who,
	struct cloud_change *change, struct strv *errors);
/* Removes a created cloud, from the disk first; it is stopped and forgotten. Idempotent while it is
 * there. -EPERM: it is configured. */
int fleet_delete(
	struct fleet *f, const char *name, const struct fleet_who *who, struct strv *errors);
/* Its newest configuration: in force, or waiting for the next generation. NULL: no such cloud. */
const struct cloud_conf *fleet_cloud_conf(const struct fleet *f, const char *name);

/* How it is with the supervisor itself, for systemd (core/health.c). */

/* Has every cloud that is wanted got where a start must bring it: launched or, with `usable`, ready
 * or through with its first try? */
bool fleet_settled(const struct fleet *f, bool usable);

/* A deadline of a cloud is kept to the millisecond, or to seconds on a machine that swaps; one so
 * late was lost, and its cloud is no longer supervised. */
#define FLEET_OVERDUE_MAX_MS 10000

/* Another number than before when something of this may be different: the state, the wish or the
 * reason of any cloud, the clouds themselves, troubles. The reason of a usable cloud is left out.
 */
uint64_t fleet_changes(const struct fleet *f);

/* For how long the most overdue of the clouds' deadlines is overdue, in milliseconds; 0: none. */
uint64_t fleet_overdue_ms(struct fleet *f);

/* The clock of the model: monotonic milliseconds without the times in which the machine slept or
 * this process was stopped. */
uint64_t fleet_now(struct fleet *f);

/* Path of a node's log (stdout and stderr). Owned by the caller. */
char *fleet_node_log(const struct fleet *f, const char *cloud, unsigned node);

/* Where that output is when it does not go to the file, as a sentence ("its output is in the
 * journal: ..."); NULL: it does. Owned by the caller. */
char *fleet_node_log_elsewhere(const struct fleet *f, const char *cloud, unsigned node);

/* Percent of the last 10 s in which some process had to wait for it; negative: not known. */
struct fleet_pressure {
	bool own; /* of the cloud's control group; else of the whole machine */
	double cpu, memory, io;
};

/* At most a second old. False when nothing is known. */
bool fleet_pressure(struct fleet *f, const char *cloud, struct fleet_pressure *out);

/* What a node's process takes. */
struct fleet_usage {
	uint64_t rss_bytes;
	double cpu_percent; /* of one core, since about when it was last asked, at least a second
			       before; the first time since its launch; negative: not known */
};

/* Read now, but not more often than once a second: for the time between, it is as it was. False
 * when it has no process, or nothing is known of it. */
bool fleet_node_usage(
	struct fleet *f, const struct cloud *c, unsigned node, struct fleet_usage *out);

/* A cloud's door, and what has come to it. Totals count from when the port was taken. */
struct fleet_gate {
	enum cloud_door door;
	int mode;                   /* enum gate_mode */
	uint16_t port;              /* of the endpoint; 0: none at present */
	uint64_t connections, held; /* now */
	uint64_t accepted_total, passed_total, held_total, expired_total, refused_total,
		failed_total, closed_total; /* as in drv/gate_wire.h */
	uint64_t bytes_in, bytes_out;
	uint64_t traffic_ms; /* in fleet_now() time: the last byte; 0: never */
};

/* False: it has no gate. */
bool fleet_gate(struct fleet *f, const char *cloud, struct fleet_gate *out);

/* What the newest generation of a cloud was launched with of the boot cache. Valid until the loop
 * turns. */
struct fleet_boot {
	const char *mode;    /* "plain", "native", "archive" */
	const char *archive; /* path; NULL: none */
	int mapped;          /* 1: all members use it; 0: not all do; -1: none, or not known yet */
	const char *why;     /* why it is not all there could be, or not used; NULL: it is */
};

/* False: none that this daemon has launched. */
bool fleet_boot(const struct fleet *f, const char *cloud, struct fleet_boot *out);

/* Who makes what is lacking. Valid until the loop turns. */
struct fleet_boot_cache {
	const char *building; /* for whom, in words; NULL: nobody is at it */
	const char *step;     /* what is being done; NULL: not known */
	struct {
		const char
			*result; /* "ready", "refused", "failed", "interrupted"; NULL: none yet */
		const char *cloud, *why; /* `why` may be NULL */
		uint64_t wall_ms, duration_ms;
	} last;
};

void fleet_boot_cache(const struct fleet *f, struct fleet_boot_cache *out);

/* What H2O says of a cloud's jobs. */
struct fleet_jobs {
	const json_t
		*list; /* those that run, then the newest, at most 500; of each `id`, `description`,
			  `status`, `running`, `progress`, `message`, `started_at`, `duration_ms`,
			  `dest`, `dest_type`, `warnings`, `error`; valid until the loop turns */
	size_t total;  /* so many there are */
	bool locked;   /* else it has none, and was not asked for any: that would lock it */
	const char *error; /* why nothing is known; NULL: `list` is */
};

/* Of a usable cloud, as it was at `wanted_ms` (in fleet_now() time), or a second before. False: H2O
 * is being asked; the observer is called when it has answered, or has not within 5 s. */
bool fleet_jobs(struct fleet *f, const char *cloud, uint64_t wanted_ms, struct fleet_jobs *out);
/* Asks H2O to stop it; what comes of it shows in the list. -EBUSY: too many at once; others of
 * http_start(). */
int fleet_cancel_job(struct fleet *f, const char *cloud, const char *id);

/* Called after each change of a cloud or of one of its nodes. */
typedef void (*fleet_observer)(const struct cloud *c, void *arg);
void fleet_observe(struct fleet *f, fleet_observer cb, void *arg);

/* All events, numbered (core/journal.h). */
struct journal *fleet_journal(const struct fleet *f);
/* Why clouds were lost (core/incidents.h). */
struct incidents *fleet_incidents(const struct fleet *f);
/* Also one whose outcome is not known yet. A negative errno with a sentence. */
int fleet_remove_incident(struct fleet *f, const char *id, struct err *e);
/* Something happened: kept, then told to followers. `type` is stable, for programs; the format
 * makes one sentence for people. `c` may be NULL, `node` -1; `extra` (stolen; may be NULL) is an
 * object with members of this type, whose strings are UTF-8 (json_pack() makes nothing of others).
 */
void fleet_event(struct fleet *f, const char *type, const struct cloud *c, int node, json_t *extra,
	const char *fmt, ...) _printf_(6, 7);
