/* h2ofleet run: a cloud just for one command. */
#include "cli/run.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/progress.h"
#include "cli/show.h"

#define TURN_MS      50
#define PROGRESS_MS  200
#define LAST_LOOK_MS 2000
#define LOG_LINES    20
#define MAX_LOG      (64u << 20)

/* ---- the command line ---- */

static int parse(struct run *r, int argc, char **argv)
{
	struct cli *cli = r->cli;
	const struct cli_option options[] = {
		{"nodes", 'n', NULL, &r->nodes, NULL},
		{"memory", 'm', NULL, &r->memory, NULL},
		{"set", 0, NULL, NULL, &r->settings},
		{"java", 0, NULL, &r->java, NULL},
		{"jar", 0, NULL, &r->jar, NULL},
		{"timeout", 0, NULL, &r->timeout, NULL},
		{"keep-on-failure", 0, &r->keep_on_failure, NULL, NULL},
		{"quiet", 'q', &r->quiet, NULL, NULL},
	};
	uint64_t ms = 0;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &r->words) != CLI_OK)
		return CLI_USAGE;
	if (cli->socket)
		return cli_usage(cli, "--socket means nothing here: run has a daemon of its own");
	if (!r->words.n)
		return cli_usage(cli, "which command? Write it behind --");
	if (r->timeout && (text_parse_duration(r->timeout, &ms) < 0 || !ms))
		return cli_usage(cli, "'%s' is no time; write 90s, 5m or 1h", r->timeout);
	r->deadline_ms = ms ? clock_monotonic_ms() + ms : 0;
	return CLI_OK;
}

/* How far the start is, now and then, from requests beside the one that waits. */
struct watch {
	struct progress progress;
	struct call *look;
	json_t *cloud; /* as it was last */
	uint64_t next_ms;
};

/* ---- what went wrong ---- */

static void show_daemon_log(const struct run *r)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0, at;

	if (file_read(r->place.daemon_log, MAX_LOG, &text, &len) < 0 || !len)
		return;
	at = text_last_lines(text, len, LOG_LINES, false);
	fputs("the daemon's last lines:\n", r->cli->err);
	for (char *line = strtok(text + at, "\n"); line; line = strtok(NULL, "\n")) {
		_cleanup_free_ char *shown = text_visible(line, strlen(line));

		fprintf(r->cli->err, "  %s\n", shown);
	}
}

static void show_cloud(const struct run *r, const json_t *cloud)
{
	struct cli *cli = r->cli;

	if (json_is_object(cloud))
		show_nodes(cli->err, cloud, cli->err_width, false);
}

/* The line that is redrawn goes before anything is said. */
static int cloud_failed(const struct run *r, struct watch *w, const struct call *call)
{
	progress_end(&w->progress);
	cli_fail(r->cli, CLI_RUN_FAILED, "the cloud did not become ready: %s", err_msg(&call->err));
	show_cloud(r, json_object_get(call->json, "cloud"));
	return CLI_RUN_FAILED;
}

static int daemon_failed(const struct run *r, struct watch *w)
{
	progress_end(&w->progress);
	cli_fail(r->cli, CLI_RUN_FAILED, "h2ofleetd has ended before the cloud was ready");
	show_daemon_log(r);
	return CLI_RUN_FAILED;
}

/* ---- the start ---- */

static void watch_turn(struct run *r, struct watch *w)
{
	uint64_t now = clock_monotonic_ms();

	if (w->look && w->look->done) {
		if (call_ok(w->look)) {
			json_t *clouds = json_pack("[O]", w->look->json);

			json_decref(w->cloud);
			w->cloud = json_incref(w->look->json);
			if (r->cli->live && !r->quiet)
				progress_show(&w->progress, clouds);
			json_decref(clouds);
		}
		call_free(TAKE_PTR(w->look));
		w->next_ms = now + PROGRESS_MS;
	}
	if (!w->look && now >= w->next_ms)
		w->look = client_begin(r->client, "GET", "/v1/clouds/" RUN_CLOUD);
}

static int start_timed_out(const struct run *r, struct watch *w)
{
	_cleanup_free_ char *sentence = w->cloud ? show_sentence(w->cloud) : NULL;

	progress_end(&w->progress);
	cli_fail(r->cli, CLI_TIMED_OUT, "the cloud was not ready within %s: %s", r->timeout,
		sentence ? sentence : "the daemon did not answer");
	if (w->cloud)
		show_cloud(r, w->cloud);
	return CLI_TIMED_OUT;
}

static int start_interrupted(const struct run *r, struct watch *w, int sig)
{
	progress_end(&w->progress);
	return cli_fail(
		r->cli, 128 + sig, "interrupted before the cloud was ready (%s)", strsignal(sig));
}

/* A daemon that does not answer is on its way, or is being replaced: the guardian knows. */
static bool is_nobody_there(const struct call *call)
{
	return call->err.code == -ENOTCONN || (call->err.code == -EIO && !call->status);
}

/* -1: go on; CLI_OK: ready; else the exit code. */
static int start_turn(struct run *r, struct watch *w, struct call **wait)
{
	int sig;

	if (!*wait)
		*wait = client_begin(r->client, "GET", "/v1/clouds/" RUN_CLOUD "?wait=ready");
	watch_turn(r, w);
	client_turn(r->client, TURN_MS);
	guard_turn(&r->guard);
	sig = run_take_signal(r);
	if (sig)
		return start_interrupted(r, w, sig);
	if ((*wait)->done && call_ok(*wait)) {
		r->cloud = json_incref((*wait)->json);
		return CLI_OK;
	}
	if (r->guard.lost)
		return daemon_failed(r, w);
	if (r->deadline_ms && clock_monotonic_ms() >= r->deadline_ms)
		return start_timed_out(r, w);
	if (!(*wait)->done)
		return -1;
	if (!is_nobody_there(*wait))
		return cloud_failed(r, w, *wait);
	call_free(TAKE_PTR(*wait));
	usleep(TURN_MS / 5 * 1000);
	return -1;
}

static int start(struct run *r)
{
	struct watch w = {.next_ms = clock_monotonic_ms() + PROGRESS_MS};
	struct call *wait = NULL;
	int code;

	progress_begin(&w.progress, r->cli);
	r->client = client_new(r->place.socket);
	do
		code = start_turn(r, &w, &wait);
	while (code < 0);
	progress_end(&w.progress);
	json_decref(w.cloud);
	call_free(w.look);
	call_free(wait);
	return code;
}

/* ---- the command ---- */

static void add_place(struct strv *env, const char *variable, const json_t *value)
{
	if (json_is_string(value))
		strv_printf(env, "%s=%s", variable, json_string_value(value));
	else if (json_is_integer(value))
		strv_printf(env, "%s=%" JSON_INTEGER_FORMAT, variable, json_integer_value(value));
}

static int run_it(struct run *r)
{
	_cleanup_(strv_free) struct strv env = STRV_NULL;
	const char *path = r->conf->clouds[0]->context_path;
	int code;

	add_place(&env, "H2O_URL", json_object_get(r->cloud, "endpoint"));
	add_place(&env, "H2O_IP", json_object_get(r->cloud, "endpoint_address"));
	add_place(&env, "H2O_PORT", json_object_get(r->cloud, "endpoint_port"));
	if (path && *path)
		strv_printf(&env, "H2O_CONTEXT_PATH=%s", path + (*path == '/'));
	strv_printf(&env, "H2OFLEET_SOCKET=%s", r->place.socket);
	strv_add(&env, "H2OFLEET_CLOUD=" RUN_CLOUD);
	code = run_command(r, &env);
	return code;
}

/* The cloud as it is at the end; NULL when nobody tells. A new reference. */
static json_t *last_look(struct run *r)
{
	uint64_t end = clock_monotonic_ms() + LAST_LOOK_MS;
	_cleanup_(call_freep) struct call *call =
		client_begin(r->client, "GET", "/v1/clouds/" RUN_CLOUD);

	while (!call->done && clock_monotonic_ms() < end && !r->guard.lost)
		client_turn(r->client, TURN_MS);
	return call_ok(call) ? json_incref(call->json) : NULL;
}

/* Was the cloud well all the time? If not, says so. */
static bool cloud_was_well(struct run *r)
{
	json_t *cloud = last_look(r);
	_cleanup_free_ char *reason = show_text(cloud, "reason");
	const char *state = json_string_value(json_object_get(cloud, "state"));
	int64_t restarts = show_int(cloud, "restarts", 0) - show_int(r->cloud, "restarts", 0);
	bool usable = state && cli_state_exit(state) == CLI_OK;
	bool stopped = streq_null(state, "stopped"); /* by the command: its own business */

	if (!cloud)
		cli_fail(r->cli, CLI_RUN_FAILED,
			"the cloud's daemon was gone when the command "
			"ended");
	else if (!usable && !stopped)
		cli_fail(r->cli, CLI_RUN_FAILED, "the cloud was %s when the command ended%s%s",
			state, reason ? ": " : "", reason ? reason : "");
	else if (restarts > 0)
		cli_fail(r->cli, CLI_RUN_FAILED,
			"the cloud was restarted %" PRId64 " time%s while the command ran%s%s",
			restarts, restarts == 1 ? "" : "s", reason ? ": " : "",
			reason ? reason : "");
	if (cloud && (restarts > 0 || !(usable || stopped)))
		show_cloud(r, cloud);
	if (!cloud)
		show_daemon_log(r);
	usable = cloud && restarts <= 0 && (usable || stopped);
	json_decref(cloud);
	return usable;
}

static void say_ready(const struct run *r, uint64_t begun_ms)
{
	_cleanup_free_ char *url = show_text(r->cloud, "endpoint");

	if (r->cli->live && !r->quiet)
		fprintf(r->cli->err, "h2ofleet: %s is ready (%.1f s)\n", url ? url : "the cloud",
			(double)(clock_monotonic_ms() - begun_ms) / 1000);
}

static int start_and_run(struct run *r, bool *well)
{
	uint64_t begun_ms = clock_monotonic_ms();
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int code;

	*well = false;
	if (run_write_conf(r, &e) < 0)
		return cli_fail(r->cli, CLI_RUN_FAILED, "%s", err_msg(&e));
	guard_tell(&r->guard, GUARDIAN_START);
	guard_sweep(&r->guard);
	code = start(r);
	if (code != CLI_OK)
		return code;
	say_ready(r, begun_ms);
	code = run_it(r);
	*well = cloud_was_well(r);
	return code;
}

/* ---- the end ---- */

/* Asked again to end, we hurry. */
static void finish(struct run *r, bool keep)
{
	guard_tell(&r->guard, keep ? GUARDIAN_KEEP : GUARDIAN_END);
	while (!r->guard.ended) {
		struct pollfd fds[] = {
			{.fd = r->guard.control, .events = POLLIN},
			{.fd = r->signals, .events = POLLIN},
		};

		poll(fds, 2, -1);
		guard_turn(&r->guard);
		if (run_take_signal(r))
			guard_tell(&r->guard, GUARDIAN_HASTE);
	}
	/* A run that failed early has made nothing that could be kept. */
	if (keep && access(r->place.kept, F_OK) == 0)
		fprintf(r->cli->err, "h2ofleet: kept %s\n", r->place.kept);
	else if (!keep && access(r->place.dir, F_OK) == 0)
		cli_fail(r->cli, CLI_RUN_FAILED, "not all of %s could be removed", r->place.dir);
}

/* A shell that runs a script wants to know that Ctrl-C ended it. */
static void end_as_interrupted(struct run *r, int code)
{
	if (code != 128 + SIGINT || !r->terminal_interrupt)
		return;
	fflush(NULL);
	signal(SIGINT, SIG_DFL);
	raise(SIGINT);
}

static int run(struct run *r)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	bool well = true;
	int code;

	r->daemon = run_find_daemon(&e);
	if (!r->daemon || run_place_choose(&r->place, &e) < 0 || run_configure(r, &e) < 0)
		return cli_fail(r->cli, CLI_RUN_FAILED, "%s", err_msg(&e));
	r->guard.place = &r->place;
	r->guard.daemon = r->daemon;
	run_daemon_env(&r->guard.env);
	run_catch_signals(r);
	if (guard_begin(&r->guard, &e) < 0)
		code = cli_fail(r->cli, CLI_RUN_FAILED, "%s", err_msg(&e));
	else
		code = start_and_run(r, &well);
	finish(r, r->keep_on_failure && (code != CLI_OK || !well));
	run_release_signals(r);
	end_as_interrupted(r, code);
	return code;
}

int cmd_run(struct cli *cli, int argc, char **argv)
{
	struct run r = {.cli = cli, .guard = GUARD_NULL, .signals = -1};
	int code = parse(&r, argc, argv);

	if (code == CLI_OK)
		code = run_look_for_command(&r);
	else
		code = CLI_RUN_FAILED; /* 2 may be the command's */
	if (code == CLI_OK)
		code = run(&r);
	guard_close(&r.guard);
	json_decref(r.cloud);
	client_free(r.client);
	conf_free(r.conf);
	run_place_free(&r.place);
	free(r.daemon);
	strv_free(&r.settings);
	strv_free(&r.words);
	return code;
}
