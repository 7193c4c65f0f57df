/* Control groups (version 2) as files: where they are, what is in them, what they tell.
 *
 * A cloud's group is named after fleet, cloud and generation, so it is found again by the next
 * daemon, one generation's kill can never meet the next one's members, and what has another name is
 * never touched. Made by us in a directory that we may write to, or by systemd (drv/scope.h). */
#pragma once

#include <sys/types.h>

#include "base/err.h"

/* "h2ofleet-<8 of the fleet's id>-CLOUD.<generation>". Owned by the caller. */
char *cgroup_name(const char *fleet_id, const char *cloud, uint64_t generation);
/* Is `name` (with ".scope" behind it or not) such a name of this fleet? `cloud` NULL: of any. */
bool cgroup_name_parse(
	const char *name, const char *fleet_id, const char *cloud, uint64_t *generation);

/* What the kernel's texts say. The path of version 2 in a /proc/PID/cgroup; NULL: none. Owned by
 * the caller. */
char *cgroup_parse_path(const char *proc_cgroup);
/* The directory of that path, by a /proc/PID/mountinfo; NULL: not to be seen. Owned by the caller.
 */
char *cgroup_parse_dir(const char *mountinfo, const char *path);
/* "KEY VALUE" in a file of such lines. */
bool cgroup_parse_key(const char *text, const char *key, uint64_t *value);
/* Percent of the last 10 s in which some task waited; false: not such a text. */
bool cgroup_parse_pressure(const char *text, double *some_avg10);

/* Directory of the group that a process (0: we) is in. Owned by the caller; NULL: none that can be
 * seen. */
char *cgroup_of(pid_t pid);

/* 0, or a negative errno. -EEXIST is no error of cgroup_make(). */
int cgroup_make(const char *dir);
int cgroup_add(const char *dir, pid_t pid);
/* Writes a file of it, such as "memory.max". */
int cgroup_set(const char *dir, const char *file, const char *value);
/* Of "memory.events" and the like. */
int cgroup_get_key(const char *dir, const char *file, const char *key, uint64_t *value);

/* May we make groups in it and move processes there: is it our user's? */
bool cgroup_is_ours(const char *dir);
/* Is any process alive in or below it? A group that is gone is empty. */
bool cgroup_populated(const char *dir);
/* Moves the processes that are in `dir` itself to its subgroup `sub`. */
int cgroup_move_down(const char *dir, const char *sub);

/* SIGKILL to all in and below it, at once and without a race (cgroup.kill, Linux 5.14); before
 * that kernel one by one. Refused (-EPERM) when we are in it ourselves, and for a group whose name
 * does not begin as all of ours do. Returns at once: the processes may take a moment to go. */
int cgroup_kill(const char *dir);
/* -EBUSY while it is populated; none there is well. */
int cgroup_remove(const char *dir);

/* Calls fn for each direct subgroup. */
void cgroup_each(
	const char *dir, void (*fn)(const char *dir, const char *name, void *arg), void *arg);

/* Negative: not known. */
struct cgroup_pressure {
	double cpu, memory, io;
};

/* `dir` NULL: of the whole machine. False when nothing is known. */
bool cgroup_read_pressure(const char *dir, struct cgroup_pressure *out);
