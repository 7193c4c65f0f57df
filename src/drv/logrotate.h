/* Rotation of the nodes' logs, in a short-lived process of its own (`h2ofleetd --rotate-logs`): it
 * reads, compresses and syncs, for which the daemon's loop has no time.
 *
 * The JVM keeps its descriptor (O_APPEND) and writes on all the while; nothing is asked of it. What
 * is old is copied into a part (drv/logpart.h), then taken out of the live file's front: punched
 * out (FALLOC_FL_PUNCH_HOLE: the blocks are freed, the rest keeps its offset behind a hole) and,
 * where the file system has it, cut off (FALLOC_FL_COLLAPSE_RANGE: the rest moves to the front).
 * Both leave what the JVM appends meanwhile alone, since the kernel does them and each write one
 * after the other.
 *
 * Killed at any instruction, the next rotation loses and doubles nothing. The steps, each durable
 * before the next, and what tells that it was the last one done:
 *
 *  1. part written as LOG.new            no part of that name: LOG.new is thrown away
 *  2. renamed to its name                a part begins at the record's `start`: go on with 3
 *  3. record: start = the part's end     always: punch again all before `start`; the parts have it
 *  4. punched out
 *  5. record: collapse = length          the record says so; the hole in front is still there: go
 *  6. cut off                            on with 6; it is not: go on with 7
 *  7. record: base = start, collapse = 0
 *
 * A file that begins with data was cut off, one that begins with a hole was not: the JVM only
 * appends, so it makes no holes, and the cut takes away the whole of ours. (The length of the file
 * or its content would not tell: the JVM may have appended as much as was cut off, and of the same
 * lines.) Whether the file system shows the hole is tested before 5; if not, it stays punched,
 * which costs nothing but odd looks: `ls` shows the length with the hole, `du` the truth.
 *
 * Readers (drv/logreader.c) take the same record and test, before and after they read; as every
 * change of the file is announced in the record before, they throw away what may have moved.
 *
 * One lock per folder (flock on .rotate.lock) keeps the rotation of a daemon that was killed and
 * that of the next one apart: it is let go of by the kernel when its holder ends, however that is.
 */
#pragma once

#include "base/err.h"
#include "drv/logpart.h"

/* A part ends at a multiple of this in the file, so that any file system can cut it off, and so
 * much at least stays in the live file, for `tail` and those who look for a cause of death. */
#define LOGROTATE_STEP (64u << 10)

/* In each folder. */
#define LOGROTATE_LOCK ".rotate.lock"

/* Exit status of `h2ofleetd --rotate-logs` for -EBUSY. */
#define ROTATE_EXIT_BUSY 3

struct logrotate {
	const char *dir;   /* of a cloud's logs: 0.log, 1.log, ... */
	uint64_t max_size; /* a log is rotated when its live file has so much; no part is longer */
	uint64_t max_age_ms; /* or when what is in it is so old; 0: never */
	uint64_t max_total;  /* of all logs and their parts, and of crash reports, together */
	enum logcodec codec;
};

/* Whether there is anything to be done about a log; costs a few system calls. */
bool logrotate_due(const char *log, uint64_t max_size, uint64_t max_age_ms);

/* Does it all. -EBUSY: somebody else is at it; -EOPNOTSUPP: the file system has no way to take
 * anything out of a file, so nothing was done. After another failure, a full disk say, all is as
 * before, or further on, and consistent; what could be done for other logs was. */
int logrotate_run(const struct logrotate *rq, struct err *e);
