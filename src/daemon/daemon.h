/* The daemon as a whole: a loop, a fleet, the control socket, signals and what systemd is told.
 * What the files of this folder share; the mains need only daemon_main(). */
#pragma once

#include <uv.h>

#include "api/api.h"
#include "core/fleet.h"

enum daemon_mode {
	MODE_RUN,
	MODE_CHECK,
	MODE_PRINT,
	MODE_ROTATE,
	MODE_BOOT,
	MODE_EXPLAIN,
	MODE_CHECK_STATE,
	MODE_END, /* end what a dead daemon has left behind, and nothing else */
};

/* Exit statuses besides EXIT_SUCCESS and EXIT_FAILURE; systemd shows the first as CONFIG. The unit
 * files name them. */
#define EXIT_CONFIG    78 /* the configuration is wrong: starting again will not help */
#define EXIT_IN_CHARGE 79 /* --end-left-behind: a daemon runs, and looks after its clouds */

/* Exit status besides EXIT_SUCCESS and EXIT_FAILURE. */
#define EXIT_CLOUD_FAILED 6 /* exit_when: as `h2ofleet status` of a failed cloud */

struct options {
	enum daemon_mode mode;
	char **argv;
	const char *file;      /* --config; NULL: the usual places */
	const char *state_dir; /* --check-state=DIR: the one in use; NULL: any */
	bool debug;
	bool until_eof; /* the end of standard input is the end */
	char **args;    /* MODE_ROTATE, MODE_BOOT, MODE_EXPLAIN: its arguments */
};

#define N_SIGNALS 5

/* What systemd has been told. */
struct status {
	uv_timer_t tick;
	uv_prepare_t prepare; /* before the loop waits: what has changed is told */
	const char *doing;    /* begins the line: "Starting", "Reloading", ...; NULL: nothing */
	bool ready;           /* the start is done */
	bool unsent_ready;    /* systemd's queue was full */
	bool unsent_line;
	bool stuck;       /* deadlines are overdue, which was said */
	uint64_t changes; /* fleet_changes() when that was made */
	char *line;       /* owned: the newest STATUS= */
	uint64_t tick_ms;
	uint64_t watchdog_ms; /* 0: none is wanted */
	uint64_t extended_ms; /* when systemd was last asked for more time; 0: not in this phase */
};

struct daemon {
	uv_loop_t loop;
	const struct options *options;
	struct fleet *fleet;
	struct api *api;
	uv_signal_t signals[N_SIGNALS];
	uv_timer_t end; /* runs once, when all is down */
	struct status status;
	struct {
		uv_timer_t timer; /* looks whether it is time; then: how long the end may take */
		bool some_wanted; /* a cloud was wanted since our start */
		int code;         /* the exit status of an orderly end */
		uv_poll_t input;  /* --until-eof */
		bool has_input;
	} exit;
	struct reaper *reaper;
	bool from_terminal;
	bool ending;
	bool detached; /* ends, and leaves the clouds alone */
	struct {
		char *path; /* owned: of our image, as it was when we began */
		struct command *check;
		unsigned count;
		char *error; /* owned: why the last attempt came to nothing */
	} reexec;
};

/* The daemon's main(). */
int daemon_main(int argc, char **argv);

/* What --help prints. */
const char *options_usage(void);

/* options.c: -1 to go on; else the exit status. */
int options_parse(int argc, char **argv, struct options *o);

/* run.c: logs what is allowed in it but may be a mistake. */
void warn_of_conf(const struct conf *conf);

/* rotate.c: a rotation of logs, started by core/logs.c: DIR MAX_SIZE MAX_AGE_MS MAX_TOTAL CODEC.
 * Returns the exit status. */
#define N_ROTATE_ARGS 5
int rotate_main(char **args);

/* boot.c: makes what is in the boot cache: the arguments are those of bootbuild_add_args(). Returns
 * the exit status. */
int boot_main(char **args);

/* explain.c: why a JVM does not use the archive of a runtime: the same arguments. Prints a
 * sentence, or nothing where it would use it. */
int explain_main(char **args);

/* signals.c */
void signals_watch(struct daemon *d);
void signals_close(struct daemon *d);

/* reload.c: reads the configuration again from where it came, and puts it in force, or nothing of
 * it; see fleet_reload(). -EINVAL, -ENOENT, ... with sentences in out->errors. The one function for
 * all who ask, also a dry run. */
int daemon_reload(struct daemon *d, const struct reload_options *opts, struct reload_report *out);
/* The same for who reads the log. */
void daemon_reload_and_log(struct daemon *d);

/* status.c: what systemd is told: that the start is done, one true line for `systemctl status`,
 * that we live (the watchdog), and that a start or an end takes its time. Before status_start() and
 * after status_close() only status_failed() may be called. */
void status_start(struct daemon *d);
void status_close(struct daemon *d);
/* The pair around a change of the configuration that is being applied, or refused. */
void status_reloading(struct daemon *d);
void status_reloaded(struct daemon *d);
/* The end has begun; `detaching`: the clouds live on. */
void status_ending(struct daemon *d, bool detaching);
/* The reason why the daemon exits with `exit_status`. */
void status_failed(const struct err *e, int exit_status);

/* reexec.c: a new image in the same process, with the same children and descriptors. */
void reexec_init(struct daemon *d);
void reexec_clear(struct daemon *d);
/* Tries whether the new image can start here, and becomes it; without that all stays as it is.
 * -ESHUTDOWN: the daemon ends. */
int reexec_begin(struct daemon *d);
int reexec_answer(bool begin, struct reexec_status *out, void *daemon);

/* exit.c: exit_when, shutdown_timeout and --until-eof. */
void exit_watch(struct daemon *d);
/* The end has begun. */
void exit_limit_begin(struct daemon *d);
void exit_close(struct daemon *d);

/* run.c: ends all clouds, then the daemon; again: at once. */
void daemon_end(struct daemon *d);
/* Ends the daemon alone: the clouds run on, for the next one. */
void daemon_detach(struct daemon *d);
