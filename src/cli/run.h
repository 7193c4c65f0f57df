/* What the files of `h2ofleet run` share. */
#pragma once

#include <signal.h>
#include <sys/types.h>

#include "cli/client.h"
#include "cli/guardian.h"
#include "conf/conf.h"

#define RUN_CLOUD "run"

struct run {
	struct cli *cli;
	/* the command line */
	const char *nodes, *memory, *java, *jar, *timeout;
	struct strv settings; /* "KEY=VALUE" */
	struct strv words;    /* the command */
	bool keep_on_failure, quiet;

	struct conf *conf;
	struct run_place place;
	char *daemon; /* owned: the program */
	struct guard guard;
	struct client *client;
	json_t *cloud; /* as it was when it became ready */

	uint64_t deadline_ms; /* of --timeout, monotonic; 0: none */
	int signals;          /* signalfd */
	sigset_t old_mask;
	void (*old_pipe)(int);
	bool terminal_interrupt; /* Ctrl-C, which went to the command as well */

	pid_t child; /* 0: none */
	int status;  /* of the child, as wait(2) gives it */
};

/* run_conf.c: the configuration that the options ask for; -EINVAL, ... with a sentence. */
int run_configure(struct run *r, struct err *e);
/* Writes it where the daemon is to read it. */
int run_write_conf(const struct run *r, struct err *e);
/* h2ofleetd: beside us, in sbin, on the PATH. Owned by the caller; NULL with a sentence. */
char *run_find_daemon(struct err *e);
/* The environment of guardian, daemon and nodes: ours but for what speaks of another service. */
void run_daemon_env(struct strv *env);

/* run_child.c */
/* Can the command be found? CLI_OK, CLI_NOT_FOUND or CLI_CANNOT_EXECUTE, with that said. */
int run_look_for_command(struct run *r);
/* From now on signals wait to be read. */
void run_catch_signals(struct run *r);
void run_release_signals(struct run *r);
/* A signal that asks us to end, of those that have come; 0: none. */
int run_take_signal(struct run *r);
/* The command, with `env` besides our own, until its end. The exit code. */
int run_command(struct run *r, const struct strv *env);
