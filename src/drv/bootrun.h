/* Runs a JVM and waits for it, blocking: for the builder of the boot cache, a process of its own.
 *
 * The JVM is in a process group of its own and dies with us (PR_SET_PDEATHSIG). Every wait ends
 * when we are told to end, after boot_catch_signals(). */
#pragma once

#include <sys/types.h>

#include "base/err.h"

struct boot_process {
	pid_t pid; /* 0: none */
	int pidfd;
};

#define BOOT_PROCESS_NULL ((struct boot_process){0, -1})

/* `out`: for both of its streams. `cwd` may be NULL. 0 or a negative errno with a sentence, also
 * when argv[0] cannot be executed. */
int boot_spawn(char *const *argv, char *const *env, const char *cwd, int out,
	struct boot_process *p, struct err *e);

/* Until it has ended: 0 and *status as of wait(2), which ends the boot_process; -ETIMEDOUT; -EINTR
 * when we are told to end. */
int boot_wait(struct boot_process *p, uint64_t timeout_ms, int *status);

/* Has it ended? Does not wait. */
bool boot_has_ended(const struct boot_process *p);

/* How it ended: its exit code, or 128 + signal; -1 while it runs. Does not reap it. */
int boot_ended_with(const struct boot_process *p);

/* Did a JVM end (`code`, as of boot_ended_with() or boot_run()) or fail for a cause that says
 * nothing of what it was to do: want of memory, as far as `output` tells, or a signal from outside,
 * which SIGKILL of the OOM killer is? Also when we are told to end. Then -ENOMEM, -EINTR, ... with
 * a sentence, else 0. */
int boot_not_its_fault(int code, const char *output, struct err *e);

/* Kills it with all of its group, and reaps it. Nothing when there is none. */
void boot_end(struct boot_process *p);

/* Runs it to its end; *output (cut at 64 KiB) is owned by the caller. Returns the exit code, 128 +
 * signal, or a negative errno: -ETIMEDOUT, -EINTR, ... with a sentence. */
int boot_run(char *const *argv, char *const *env, const char *cwd, uint64_t timeout_ms,
	char **output, struct err *e);

/* From now on SIGTERM, SIGINT and SIGHUP are noted, until `false` undoes it. */
void boot_catch_signals(bool on);
bool boot_told_to_end(void);
