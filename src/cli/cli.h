/* The command line: a table of commands, one way to parse their options, the exit codes. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "base/err.h"
#include "base/strv.h"

enum cli_exit {
	CLI_OK = 0, /* of `status`: ready or degraded */
	CLI_ERROR = 1,
	CLI_USAGE = 2,
	CLI_STOPPED = 3,
	CLI_ABSENT = 4, /* no daemon, or no such cloud */
	CLI_BUSY = 5,   /* on its way */
	CLI_FAILED = 6,
	CLI_TIMED_OUT = 124, /* of `run`, as of timeout(1) */
	CLI_RUN_FAILED = 125,
	CLI_CANNOT_EXECUTE = 126,
	CLI_NOT_FOUND = 127,
	CLI_INTERRUPTED = 130, /* 128 and the number of a signal */
};

struct cli_option;

struct cli {
	const struct cli_command *command;
	const char *socket; /* --socket; NULL: to be searched */
	bool json;
	bool help;
	FILE *out, *err;
	bool color;       /* on `out` */
	size_t out_width; /* of that terminal; 80 where it is none */
	bool live;        /* `err` is a terminal: one line may be redrawn there */
	size_t err_width; /* of that terminal */
	bool json_said;   /* the one JSON text of --json was written */
	char *failure;    /* owned: the first sentence of cli_fail() */
	/* For tests: is told what a command takes instead of parsing anything. */
	void (*probe)(const struct cli_option *options, size_t n, void *arg);
	void *probe_arg;
};

struct cli_command {
	const char *name;
	const char *args;
	const char *help;  /* one line */
	const char *usage; /* the rest of --help; options.h says how its options are read */
	int (*run)(struct cli *cli, int argc, char **argv);
};

/* One option: a flag, or one with a value, or with several; with flag and value, a flag that may
 * have one ("--watch=2s"). */
struct cli_option {
	const char *name; /* without "--" */
	char letter;      /* 0: none */
	bool *flag;
	const char **value;
	struct strv *values; /* instead, of one that may be given again */
};

extern const struct cli_command cli_commands[];
extern const size_t cli_n_commands;

/* Not for people: "__complete". */
bool cli_is_hidden(const struct cli_command *c);

/* The whole program: parses, runs the command; returns the exit code. */
int cli_main(int argc, char **argv);

/* argv[0] is the command. With --json and nothing but a failure to tell, writes {"error": "..."}; a
 * full disk at the other end of `out` is a failure too. */
int cli_run(struct cli *cli, int argc, char **argv);

/* Takes the options (also --socket, --json, --help, wherever they stand) and puts the other words
 * into `words`, argv[0] excluded. CLI_OK, or CLI_USAGE after saying what is wrong. */
int cli_parse(struct cli *cli, int argc, char **argv, const struct cli_option *options, size_t n,
	struct strv *words) _must_check_;

/* "h2ofleet: ..." on cli->err, harmless to a terminal whatever is in it. */
void cli_say(struct cli *cli, const char *fmt, ...) _printf_(2, 3);
/* The same, of what makes the command fail; returns `code`. */
int cli_fail(struct cli *cli, int code, const char *fmt, ...) _printf_(3, 4);
/* The same, with how the command is used; returns CLI_USAGE. */
int cli_usage(struct cli *cli, const char *fmt, ...) _printf_(2, 3);

/* Can this be a cloud's name? If not, says so. It becomes a part of a path. */
bool cli_name_ok(struct cli *cli, const char *name);
/* The one JSON text of the command. */
void cli_json(struct cli *cli, const json_t *j);
/* One of several, a line each. */
void cli_json_line(struct cli *cli, const json_t *j);
/* JSON that is text already, and a newline. In it, as in the two above, stands \u009b and the like
 * for what jansson leaves as it is, and a terminal may obey: DEL and C1 (C0 JSON has not). */
void cli_json_text(struct cli *cli, const char *text, size_t n);

/* How wide the terminal is now; 80 where `fd` is none. */
size_t cli_terminal_width(int fd);

/* The exit code of a cloud in this state; CLI_ERROR for an unknown one. */
int cli_state_exit(const char *state);
/* Of two exit codes the worse: 0, stopped, on its way, failed, absent, error. */
int cli_worse(int a, int b);

/* run.c, version.c, status.c, operate.c, wait.c, events.c, incidents.c, logs.c, reload.c, reexec.c,
 * connect.c, api.c, clean.c, info.c, jobs.c, timezone.c, config.c, shutdown.c */
int cmd_version(struct cli *cli, int argc, char **argv);
int cmd_status(struct cli *cli, int argc, char **argv);
int cmd_start(struct cli *cli, int argc, char **argv);
int cmd_stop(struct cli *cli, int argc, char **argv);
int cmd_restart(struct cli *cli, int argc, char **argv);
int cmd_touch(struct cli *cli, int argc, char **argv);
int cmd_wait(struct cli *cli, int argc, char **argv);
int cmd_events(struct cli *cli, int argc, char **argv);
int cmd_incidents(struct cli *cli, int argc, char **argv);
int cmd_logs(struct cli *cli, int argc, char **argv);
int cmd_reexec(struct cli *cli, int argc, char **argv);
int cmd_run(struct cli *cli, int argc, char **argv);
int cmd_reload(struct cli *cli, int argc, char **argv);
int cmd_connect(struct cli *cli, int argc, char **argv);
int cmd_help(struct cli *cli, int argc, char **argv);
/* create.c, keys.c */
int cmd_create(struct cli *cli, int argc, char **argv);
int cmd_delete(struct cli *cli, int argc, char **argv);
int cmd_set(struct cli *cli, int argc, char **argv);
int cmd_config(struct cli *cli, int argc, char **argv);
int cmd_keys(struct cli *cli, int argc, char **argv);
int cmd_api(struct cli *cli, int argc, char **argv);
int cmd_clean(struct cli *cli, int argc, char **argv);
int cmd_info(struct cli *cli, int argc, char **argv);
int cmd_jobs(struct cli *cli, int argc, char **argv);
int cmd_network_test(struct cli *cli, int argc, char **argv);
int cmd_timezone(struct cli *cli, int argc, char **argv);
/* prepare.c */
int cmd_prepare(struct cli *cli, int argc, char **argv);
/* shutdown.c */
int cmd_shutdown(struct cli *cli, int argc, char **argv);
