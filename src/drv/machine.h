/* What this machine or container is and has. All from /proc and /sys; nothing is cached. */
#pragma once

#include <sys/types.h>

#include "base/err.h"

/* Memory that processes may use here: MemTotal, or the cgroup's limit (v2 memory.max on any level
 * above us, v1 memory.limit_in_bytes) where that is lower. Bytes. */
uint64_t machine_memory(void);
/* MemAvailable, or what is left of the cgroup's limit (on any level above us) where that is less;
 * bytes. */
uint64_t machine_memory_available(void);
/* Cores that we may run on: sched_getaffinity and the cgroup's cpu.max, rounded up, at least 1. */
unsigned machine_cores(void);

/* How often the kernel's OOM killer has killed: /proc/vmstat oom_kill plus nothing else; -1 when it
 * does not tell. */
int64_t machine_oom_kills(void);

/* Free bytes on the file system of `path` (or of its nearest existing parent). 0 on failure. */
uint64_t machine_disk_free(const char *path);

/* /proc/sys/kernel/random/boot_id, 36 characters; "" when unknown. */
void machine_boot_id(char out[40]);

/* Field 22 of /proc/PID/stat (clock ticks after boot); 0 when there is no such process. */
uint64_t process_start_ticks(pid_t pid);
/* "java"; "" when there is no such process. */
void process_comm(pid_t pid, char out[32]);
/* Does the environment of `pid` hold NAME=value (as it was at its exec)? */
bool process_has_env(pid_t pid, const char *name_is_value);

/* What follows `beginning` ("NAME=", or more) in the first variable that begins so; NULL: there is
 * none. Owned by the caller. */
char *process_env(pid_t pid, const char *beginning);

/* State, wchan, RSS, threads, limits, open descriptors, I/O, and per-thread state of a process as
 * text for an incident. Owned by the caller; never NULL. */
char *process_snapshot(pid_t pid);

/* Linked libxgboost*.so files in /tmp that belong to no running process: JVMs that crashed left
 * them. Number and bytes on the disk. Files younger than a minute do not count (a JVM may be
 * unpacking them), nor do those of users with a JVM that we may not look into. Reads the maps of
 * all processes: for `doctor`, not for every second. */
void machine_leaked_xgboost(unsigned *n, uint64_t *bytes);
/* The same for another directory than /tmp. */
void machine_leaked_xgboost_in(const char *dir, unsigned *n, uint64_t *bytes);
