/* Runs a short helper command without blocking the loop and collects what it prints. */
#pragma once

#include <uv.h>

#include "base/err.h"

struct command;

/* `output` (stdout and stderr together, cut at 64 KiB; NUL bytes as blanks) is valid during the
 * call. exit_code: -1 when it was killed or timed out; exec_errno: positive errno when it could not
 * be executed. */
typedef void (*command_cb)(int exit_code, int exec_errno, const char *output, void *arg);

/* argv[0] is an absolute path. After timeout_ms it and its process group are killed; should even
 * that not end it (it hangs in the kernel), the callback comes two seconds later all the same. A
 * grandchild that outlives it and keeps its output open is not waited for. The callback is called
 * exactly once, never from within this call; *out is valid until then. Returns 0 or a negative
 * errno of fork or pipe. */
int command_run(uv_loop_t *loop, char *const *argv, char *const *env, uint64_t timeout_ms,
	command_cb cb, void *arg, struct command **out);

/* Kills it; its callback is not called any more. */
void command_cancel(struct command *c);

/* Asks it to end (SIGTERM), kills it and its process group after `grace_ms`. The callback comes as
 * after any end of it. */
void command_end(struct command *c, uint64_t grace_ms);

/* That; but its callback is not called any more. The loop must run on until it is gone. */
void command_end_alone(struct command *c, uint64_t grace_ms);

/* What it has printed so far; valid until the loop turns. */
const char *command_output(const struct command *c);

/* Our own program, by its name where it still has it: not all tools that run programs (valgrind)
 * cope with the other. After an upgrade that is the old one, with the options that we know. Owned
 * by the caller. */
char *command_own_program(void);
