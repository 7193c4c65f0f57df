/* /proc/PID: identity and parentage of processes. What other modules ask about a process beyond
 * this is in machine.h. */
#pragma once

#include <sys/types.h>

#include "base/util.h"

struct process_stat {
	char comm[32];
	char state; /* 'R', 'S', 'D', 'Z', ... */
	pid_t ppid;
	pid_t pgrp;
	pid_t session;
	uint64_t start_ticks; /* field 22: clock ticks after boot */
	int exit_status;      /* field 52, of a zombie of our user: as wait(2) would give it */
};

/* What it takes; for all who watch many processes often: one read into a buffer on the stack. */
struct process_usage {
	uint64_t cpu_ms; /* of all its threads, since its start */
	uint64_t rss_bytes;
};

/* 0, or -ESRCH when there is no such process (any more). */
int process_usage_read(pid_t pid, struct process_usage *out);

/* 0, or -ESRCH when there is no such process (any more). */
int process_stat_read(pid_t pid, struct process_stat *out);

/* Calls fn for each process that /proc shows, until it returns something else than 0, which is then
 * the result. -errno when /proc cannot be read. */
int process_each(int (*fn)(pid_t pid, void *arg), void *arg);

/* Calls fn for each open descriptor of `pid` with what its link says ("socket:[123]"), until it
 * returns something else than 0, which is then the result. -EACCES when they may not be seen. */
int process_each_fd(pid_t pid, int (*fn)(const char *target, void *arg), void *arg);
