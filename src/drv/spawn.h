/* Processes: started so that none can be lost, watched by pidfd, signalled only through it.
 *
 * A child is forked, and waits before execve() until spawn_release(): by then its identity is on
 * disk. If we die before that, it sees the end of its pipe and exits without having run anything.
 * It gets a session and process group of its own, default signal dispositions and mask, /dev/null
 * as standard input, `output_path` (appended to, created 0640) as stdout and stderr, and no other
 * descriptor. No threads may exist when we fork.
 *
 * Several children may be forked before the first is released. */
#pragma once

#include <sys/types.h>
#include <uv.h>

#include "base/err.h"

struct spawn_request {
	char *const *argv; /* argv[0] is the absolute path to execute */
	char *const *env;
	const char *output_path; /* NULL: /dev/null */
	int output_fd;           /* if not 0: this instead of output_path; stays the caller's */
	int input_fd;            /* if not 0: its standard input, instead of /dev/null; likewise */
	const char *cwd;         /* NULL: "/" */
};

/* `known` is false for a process that is not our child and was reaped by its parent before we could
 * look, unless the kernel (6.15 and later) tells the status of those too. */
struct proc_exit {
	bool known;
	int code;
	int signal; /* 0: exited with `code` */
	bool core;
	int exec_errno; /* positive errno of the failed execve(), 0 if it was executed */
};

struct proc;

/* Remembers the limit on open descriptors as the one that children get, to be called before the
 * daemon raises its own; and whether the OOM killer is to spare us, which children do not get. */
void spawn_save_limits(void);

/* Puts it on the list of base/handover.h: the next image of this process saves it from there. */
void spawn_hand_over_limits(void);

/* Called once, after the process was reaped (or, for adopted ones, seen to be gone by its pidfd).
 * The callback may call proc_free(). */
typedef void (*proc_exit_cb)(struct proc *p, const struct proc_exit *exit, void *arg);

/* Forks. On success the child waits; *out is owned by the caller. Errors: -EAGAIN and -ENOMEM from
 * fork, -EMFILE, or what open() of output_path or cwd gave, each with a sentence. The callback is
 * never called from within this call. */
int proc_spawn(uv_loop_t *loop, const struct spawn_request *rq, proc_exit_cb cb, void *arg,
	struct proc **out, struct err *e);

/* Lets it execute. Nothing when it has ended or was released before. */
void proc_release(struct proc *p);

/* Watches a process that an earlier daemon started, after checking that pid still is the process
 * with that start time. -ESRCH when it is not. */
int proc_adopt(uv_loop_t *loop, pid_t pid, uint64_t start_ticks, proc_exit_cb cb, void *arg,
	struct proc **out);

pid_t proc_pid(const struct proc *p);
uint64_t proc_start_ticks(const struct proc *p); /* field 22 of /proc/PID/stat */

/* Is it one that is watched here and not reaped yet? Then nobody else may reap it. */
bool proc_is_watched(pid_t pid);

/* Through the pidfd. 0, or -ESRCH when it has ended. */
int proc_signal(struct proc *p, int sig);

/* SIGKILL to the process, and to its process group while the group is still its own (checked). 0,
 * or -ESRCH when its end has been reported already: from then on the number may be another's, and
 * proc_kill_stragglers() is for what is left. */
int proc_kill_group(struct proc *p);

/* After a process's end: kills whatever it has left running, in its group or out of it, known by
 * `token` ("NAME=value") in the environment, which is unique to that process and inherited. Returns
 * how many there were; they may take a moment to go, and may have forked, so ask again until it
 * says 0. */
unsigned proc_kill_stragglers(const char *token);

/* The same for the ends of many: of each process whose environment has `mark` ("NAME=value" or the
 * beginning of that), and that is not watched here, what follows the mark is shown to `wanted`. */
typedef bool proc_wanted_fn(const char *rest, void *arg);
unsigned proc_kill_marked(const char *mark, proc_wanted_fn *wanted, void *arg);

/* 0 when there are descriptors enough to look for stragglers (without them none is found); else a
 * negative errno. */
int proc_can_look(void);

/* Stops watching; does not signal. A child that was not released yet exits by itself, and is still
 * reaped. One that runs is not reaped by us any more, so this is for leaving it to the next daemon.
 * NULL is fine. Memory is released once libuv has closed the handles. */
void proc_free(struct proc *p);
