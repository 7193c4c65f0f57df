/* What a system call of the daemon does to the world outside of it.
 *
 * The daemon is killed at calls "with effect": those that change something which outlives it or
 * that another process sees. Between two of them nothing happens outside, so a death at any call
 * (or instruction) in between leaves the same world as a death right before the second: reading,
 * mapping memory, waiting, timers, asking /proc, and all that the kernel undoes at a death anyway
 * (opening and closing descriptors, inet sockets that hold ports, locks, epoll) are such. fsync(2)
 * is, too: the page cache survives SIGKILL. What remains is time: other processes run between two
 * calls; so each call is tried at its entry (the latest moment of what was before) and at its exit
 * (the earliest moment of what comes after).
 *
 * Not counted as effect although others see it: lines of the daemon's own log, and GET and HEAD
 * requests to members, which change nothing in them (the real ones neither: contrib/HACKING.md). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct call {
	uint64_t nr;
	uint64_t args[6];
	char name[32];
	char detail[640];
	bool effect;
	bool forks;
	bool releases; /* lets a child execute: see spawn.h */
	bool ends;     /* has no exit: exit_group() */
};

/* Of a tracee that is stopped at the entry of the call; nr and args are filled in. */
void call_describe(pid_t pid, struct call *c);
