/* `h2ofleet jobs`. The daemon asks H2O, not we: so it works where the gate turns us away, wakes no
 * cloud that starts when somebody connects, does not count as use, and all who watch cost one
 * question. */
#include "cli/client.h"

#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "cli/show.h"

#define SHOWN_DEFAULT  10
#define SHOWN_FOLLOWED 3 /* what is drawn over must fit on the screen */
#define POLL_MS        500
#define CANCEL_MS      30000
#define BAR            20

struct jobs_command {
	struct cli *cli;
	struct client *client;
	const char *cloud;
	char *escaped;    /* owned: the same in a path */
	int64_t ended;    /* at most so many that have ended are shown */
	size_t drawn;     /* lines on the screen, to be drawn over */
	bool answered;    /* there was a daemon */
	bool missed;      /* that it has gone was said */
	struct strv told; /* "ID status percent": what was said last, of each job */
};

static json_t *fetch(struct jobs_command *c, int *code)
{
	return client_get(c->cli, c->client, code, "/v1/clouds/%s/jobs", c->escaped);
}

static bool runs(const json_t *job)
{
	return json_is_true(json_object_get(job, "running"));
}

static size_t n_running(const json_t *answer)
{
	const json_t *job;
	size_t i, n = 0;

	json_array_foreach (json_object_get(answer, "jobs"), i, job)
		n += runs(job);
	return n;
}

/* --- for people --------------------------------------------------------------------------- */

static char *or_dash(char *s)
{
	return s ? s : xstrdup("-");
}

static int percent(const json_t *job)
{
	double progress = json_number_value(json_object_get(job, "progress"));

	return (int)(100 * MIN(MAX(progress, 0.0), 1.0));
}

/* "[=======>            ]  37%" */
static char *bar(const json_t *job)
{
	int full = percent(job) * BAR / 100;
	char line[BAR + 1];

	for (int i = 0; i < BAR; i++)
		line[i] = i < full ? '=' : i == full ? '>' : ' ';
	line[BAR] = '\0';
	return xasprintf("[%s] %3d%%", line, percent(job));
}

static char *state_of(const json_t *job)
{
	char *status = or_dash(show_text(job, "status"));

	for (char *s = status; *s; s++)
		*s = *s == '_' ? '-' : *s >= 'A' && *s <= 'Z' ? (char)(*s | 0x20) : *s;
	return status;
}

/* The first line. */
static char *first_line(const json_t *job, const char *key)
{
	const json_t *v = json_object_get(job, key);
	const char *s = json_is_string(v) ? json_string_value(v) : "";
	size_t len = strcspn(s, "\r\n");

	return len ? text_visible(s, len) : NULL;
}

static void add(struct strbuf *b, size_t width, size_t indent, const char *text)
{
	FILE *f = strbuf_stream(b);

	show_wrapped(f, width, indent, text);
	fclose(f);
}

/* "Building tree 3; makes m1" of one that runs, "made m1" of one that is done: another has made
 * nothing. NULL: nothing is to be said. */
static char *what_it_makes(const json_t *job, const char *state)
{
	_cleanup_free_ char *dest = show_text(job, "dest");
	_cleanup_free_ char *message = runs(job) ? first_line(job, "message") : NULL;

	if (!runs(job))
		return dest && streq(state, "done") ? xasprintf("made %s", dest) : NULL;
	if (!dest)
		return TAKE_PTR(message);
	return xasprintf("%s%smakes %s", message ? message : "", message ? "; " : "", dest);
}

/* "gbm  [====>    ]  37%  12s  Building tree 3", then what names it. */
static void add_job(struct strbuf *b, size_t width, const json_t *job)
{
	_cleanup_free_ char *what = or_dash(show_text(job, "description")), *state = state_of(job);
	_cleanup_free_ char *time = show_duration(job, "duration_ms"), *progress = bar(job);
	_cleanup_free_ char *id = or_dash(show_text(job, "id")), *error = first_line(job, "error");
	_cleanup_free_ char *line = NULL, *more = what_it_makes(job, state);

	if (runs(job))
		line = xasprintf("%s %s %s%s%s%s", progress, time, what,
			streq(state, "running") ? "" : " (", streq(state, "running") ? "" : state,
			streq(state, "running") ? "" : ")");
	else
		line = xasprintf("%s after %s: %s", state, time, what);
	add(b, width, 0, line);
	if (more)
		add(b, width, 4, more);
	if (runs(job))
		add(b, width, 4, id);
	if (error)
		add(b, width, 4, error);
	for (size_t i = 0; i < json_array_size(json_object_get(job, "warnings")); i++) {
		json_t *w = json_array_get(json_object_get(job, "warnings"), i);
		_cleanup_free_ char *s = text_visible(json_string_value(w), json_string_length(w));

		add(b, width, 4, s);
	}
}

static char *draw(const struct jobs_command *c, const json_t *answer)
{
	struct strbuf b = STRBUF_NULL;
	const json_t *job;
	int64_t ended = 0;
	size_t i;

	json_array_foreach (json_object_get(answer, "jobs"), i, job)
		if (runs(job) || ended++ < c->ended)
			add_job(&b, c->cli->out_width, job);
	if (!json_is_true(json_object_get(answer, "locked")))
		strbuf_puts(&b, "no jobs: the cloud is not locked, so it has never had one\n");
	else if (!b.len)
		strbuf_puts(&b, n_running(answer) || ended ? "no job runs\n" : "no jobs\n");
	return strbuf_take(&b);
}

static void show(struct jobs_command *c, const json_t *answer)
{
	_cleanup_free_ char *text = draw(c, answer);

	if (c->cli->json)
		cli_json(c->cli, answer);
	else
		fputs(text, c->cli->out);
}

/* --- following ---------------------------------------------------------------------------- */

/* Over what is there: up, line by line, then whatever is below is cleared. What does not fit on the
 * screen's height would scroll, and could not be drawn over: jobs that have ended are not followed.
 */
static void redraw(struct jobs_command *c, const json_t *answer)
{
	_cleanup_free_ char *text = draw(c, answer);

	if (c->drawn)
		fprintf(c->cli->out, "\033[%zuA", c->drawn);
	fputs("\r\033[J", c->cli->out);
	fputs(text, c->cli->out);
	c->drawn = 0;
	for (const char *s = text; *s; s++)
		c->drawn += *s == '\n';
}

/* A line for each change, at most one for each 10 %. */
static void tell(struct jobs_command *c, const json_t *job)
{
	_cleanup_free_ char *id = or_dash(show_text(job, "id")), *state = state_of(job);
	_cleanup_free_ char *what = or_dash(show_text(job, "description"));
	_cleanup_free_ char *time = show_duration(job, "duration_ms");
	_cleanup_free_ char *dest = or_dash(show_text(job, "dest"));
	_cleanup_free_ char *now =
		xasprintf("%s %s %d", id, state, runs(job) ? percent(job) / 10 : 10);
	size_t i;

	for (i = 0; i < c->told.n; i++)
		if (strncmp(c->told.v[i], now, strlen(id) + 1) == 0)
			break;
	if (i == c->told.n ? !runs(job) && c->told.n == 0 : streq(c->told.v[i], now))
		return;
	if (i < c->told.n)
		replace_str(&c->told.v[i], now);
	else
		strv_add(&c->told, now);
	fprintf(c->cli->out, "%s %d%% %s: %s, %s\n", state, percent(job), time, what, dest);
}

static void tell_json(struct jobs_command *c, const json_t *answer)
{
	cli_json_line(c->cli, answer);
}

static void show_followed(struct jobs_command *c, const json_t *answer)
{
	const json_t *job;
	size_t i;

	if (c->cli->json) {
		tell_json(c, answer);
		return;
	}
	if (isatty(fileno(c->cli->out))) {
		redraw(c, answer);
		return;
	}
	json_array_foreach (json_object_get(answer, "jobs"), i, job)
		if (runs(job) || c->told.n)
			tell(c, job);
}

static void pause_ms(unsigned ms)
{
	uint64_t until = clock_monotonic_ms() + ms;

	while (clock_monotonic_ms() < until && !cli_interrupted())
		usleep(20000); /* a signal ends it */
}

/* The daemon we followed has gone, or the next one is not as far yet: the cloud outlasts both. */
static bool may_pass(const struct jobs_command *c, const struct call *call)
{
	if (!c->answered)
		return false;
	return call->err.code != -EPROTO || call->status == 503 ||
	       (c->missed && call_exit(call) == CLI_BUSY);
}

static void say_missed(struct jobs_command *c, const struct call *call)
{
	if (!c->missed)
		cli_say(c->cli, "%s; waiting for it",
			call->err.code == -ENOTCONN ? "h2ofleetd has gone" : err_msg(&call->err));
	c->missed = true;
	c->drawn = 0; /* that line stands below what was drawn */
}

/* As fetch(), by way of as many daemons as it takes. */
static json_t *fetch_followed(struct jobs_command *c, int *code)
{
	for (;;) {
		_cleanup_(call_freep) struct call *call =
			client_begin(c->client, "GET", "/v1/clouds/%s/jobs", c->escaped);

		client_finish(call);
		*code = cli_interrupted() ? CLI_INTERRUPTED : CLI_OK;
		if (*code != CLI_OK)
			return NULL;
		if (call_ok(call) && call->json) {
			if (c->missed)
				cli_say(c->cli, "h2ofleetd is there again");
			c->answered = true;
			c->missed = false;
			return json_incref(call->json);
		}
		if (!may_pass(c, call)) {
			*code = call_complain(c->cli, call);
			return NULL;
		}
		say_missed(c, call);
		pause_ms(POLL_MS);
	}
}

/* Jobs that end while we look stay on the screen. */
static int follow(struct jobs_command *c)
{
	int code = CLI_OK;

	cli_catch_interrupt();
	for (;;) {
		json_t *answer = fetch_followed(c, &code);
		size_t running = n_running(answer);

		if (!answer)
			return code;
		show_followed(c, answer);
		if (!running && !c->cli->json && !c->told.n && !c->drawn)
			show(c, answer);
		json_decref(answer);
		if (!running || fflush(c->cli->out) != 0)
			return CLI_OK;
		pause_ms(POLL_MS);
		if (cli_interrupted())
			return CLI_INTERRUPTED;
	}
}

/* --- cancelling --------------------------------------------------------------------------- */

static int cancel_one(struct jobs_command *c, const char *id, json_t *cancelled)
{
	_cleanup_free_ char *escaped = client_escape(id);
	_cleanup_(call_freep) struct call *call = client_begin(
		c->client, "POST", "/v1/clouds/%s/jobs/%s/cancel", c->escaped, escaped);

	client_finish(call);
	if (!call_ok(call))
		return call_complain(c->cli, call);
	if (runs(call->json))
		json_array_append_new(cancelled, json_string(id));
	else
		cli_say(c->cli, "job %s had ended already", id);
	return CLI_OK;
}

/* Does one of these still run? */
static bool some_run(const json_t *answer, const json_t *ids)
{
	const json_t *job, *id;
	size_t i, k;

	json_array_foreach (json_object_get(answer, "jobs"), i, job)
		json_array_foreach (ids, k, id)
			if (runs(job) && json_equal(json_object_get(job, "id"), id))
				return true;
	return false;
}

/* H2O stops a job where it next looks for that: after a tree, say. */
static int await_end(struct jobs_command *c, const json_t *ids)
{
	uint64_t until = clock_monotonic_ms() + CANCEL_MS;
	int code = CLI_OK;

	while (json_array_size(ids)) {
		json_t *answer = fetch(c, &code);
		bool some = some_run(answer, ids);

		json_decref(answer);
		if (!some || code != CLI_OK)
			return code;
		if (clock_monotonic_ms() > until)
			return cli_fail(c->cli, CLI_ERROR,
				"H2O was told, but has not ended the job within %d s",
				CANCEL_MS / 1000);
		pause_ms(POLL_MS);
		if (cli_interrupted())
			return cli_fail(c->cli, CLI_INTERRUPTED,
				"interrupted; H2O was told to cancel, and goes on with that");
	}
	return code;
}

static int add_running(struct jobs_command *c, struct strv *ids)
{
	int code;
	json_t *answer = fetch(c, &code), *job;
	size_t i;

	json_array_foreach (json_object_get(answer, "jobs"), i, job)
		if (runs(job) && json_is_string(json_object_get(job, "id")))
			strv_add(ids, json_string_value(json_object_get(job, "id")));
	json_decref(answer);
	return code;
}

static int cancel(struct jobs_command *c, char *const *given, size_t n, bool all)
{
	_cleanup_(strv_free) struct strv ids = STRV_NULL;
	json_t *cancelled = json_array(), *out;
	int code = all ? add_running(c, &ids) : CLI_OK;

	for (size_t i = 0; i < n; i++)
		strv_add(&ids, given[i]);
	cli_catch_interrupt();
	for (size_t i = 0; i < ids.n; i++)
		code = cli_worse(code, cancel_one(c, ids.v[i], cancelled));
	code = cli_worse(code, await_end(c, cancelled));
	out = json_pack("{s:O}", "cancelled", cancelled);
	if (c->cli->json && code == CLI_OK)
		cli_json(c->cli, out);
	else if (code == CLI_OK)
		fprintf(c->cli->out, "%zu job%s cancelled\n", json_array_size(cancelled),
			json_array_size(cancelled) == 1 ? "" : "s");
	json_decref(out);
	json_decref(cancelled);
	return code;
}

/* --- the command -------------------------------------------------------------------------- */

static int list(struct jobs_command *c)
{
	int code;
	json_t *answer = fetch(c, &code);

	if (answer)
		show(c, answer);
	json_decref(answer);
	return code;
}

int cmd_jobs(struct cli *cli, int argc, char **argv)
{
	_cleanup_(client_freep) struct client *client = NULL;
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_free_ char *escaped = NULL;
	struct jobs_command c = {.cli = cli};
	const char *lines = NULL;
	bool following = false, all = false, cancelling;
	const struct cli_option options[] = {{"follow", 'f', &following, NULL},
		{"lines", 'n', NULL, &lines}, {"all", 0, &all, NULL}};
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (!words.n)
		return cli_usage(cli, "which cloud?");
	cancelling = words.n > 1 && streq(words.v[1], "cancel");
	c.ended = following ? SHOWN_FOLLOWED : SHOWN_DEFAULT;
	if (words.n > 1 && !cancelling)
		return cli_usage(cli, "'%s' is not cancel", words.v[1]);
	if (cancelling ? following || all == (words.n > 2) : all)
		return cli_usage(cli, cancelling ? "cancel takes keys of jobs, or --all"
						 : "--all goes with cancel");
	if (lines && (text_parse_int(lines, &c.ended) < 0 || c.ended < 0))
		return cli_usage(cli, "'%s' is no number of jobs", lines);
	if (!cli_name_ok(cli, words.v[0]))
		return CLI_USAGE;
	client = client_new(cli->socket);
	c.client = client;
	c.cloud = words.v[0];
	escaped = client_escape(c.cloud);
	c.escaped = escaped;
	if (cancelling)
		code = cancel(&c, words.v + 2, words.n - 2, all);
	else
		code = following ? follow(&c) : list(&c);
	strv_free(&c.told);
	return code;
}
