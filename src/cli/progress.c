#include "cli/progress.h"

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "cli/show.h"

#define POLL_MS 200

void progress_begin(struct progress *p, struct cli *cli)
{
	*p = (struct progress){.cli = cli, .begun_ms = clock_monotonic_ms()};
}

/* "dev: forming, nodes up 2/3" */
static char *describe(const json_t *cloud)
{
	_cleanup_free_ char *name = show_text(cloud, "name"), *state = show_text(cloud, "state");
	_cleanup_free_ char *up = show_nodes_up(cloud);

	return xasprintf("%s: %s, nodes up %s", name ? name : "-", state ? state : "-", up);
}

/* With the reason, which would be too much of a change for a line each. */
static char *describe_well(const json_t *cloud)
{
	_cleanup_free_ char *what = describe(cloud), *reason = show_text(cloud, "reason");

	return reason ? xasprintf("%s (%s)", what, reason) : TAKE_PTR(what);
}

/* Cuts to the terminal's width: a line that wraps cannot be redrawn. */
static void cut(char *s, size_t columns)
{
	size_t seen = 0;

	for (; *s; s++)
		if ((*s & 0xc0) != 0x80 && seen++ == columns)
			*s-- = '\0';
}

static void redraw(struct progress *p, const json_t *clouds)
{
	struct strbuf b = STRBUF_NULL;
	_cleanup_free_ char *line = NULL,
			    *elapsed = text_human_duration(
				    (clock_monotonic_ms() - p->begun_ms) / 1000 * 1000);
	size_t width = p->cli->err_width, i;
	const json_t *cloud;

	json_array_foreach (clouds, i, cloud) {
		_cleanup_free_ char *what = describe_well(cloud);

		strbuf_printf(&b, "%s%s", i ? "; " : "", what);
	}
	/* The time is the sign that something moves: it always has room. */
	width -= MIN(width, strlen(elapsed) + 3);
	line = strbuf_take(&b);
	cut(line, MAX(width, (size_t)1));
	fprintf(p->cli->err, "\r%s, %s\033[K", line, elapsed);
	fflush(p->cli->err);
	p->drawn = true;
}

static bool said_before(const struct progress *p, const char *what)
{
	const char *colon = strchr(what, ':');
	bool same = false;

	/* The last that was said of the same cloud counts. */
	for (size_t i = 0; i < p->shown.n; i++)
		if (strncmp(p->shown.v[i], what, (size_t)(colon - what) + 1) == 0)
			same = streq(p->shown.v[i], what);
	return same;
}

static void say_changes(struct progress *p, const json_t *clouds)
{
	const json_t *cloud;
	size_t i;

	json_array_foreach (clouds, i, cloud) {
		_cleanup_free_ char *what = describe(cloud);

		if (said_before(p, what))
			continue;
		fprintf(p->cli->err, "%s\n", what);
		strv_add(&p->shown, what);
	}
}

void progress_show(struct progress *p, const json_t *clouds)
{
	if (p->cli->live)
		redraw(p, clouds);
	else
		say_changes(p, clouds);
}

void progress_end(struct progress *p)
{
	if (p->drawn)
		fputs("\r\033[K", p->cli->err);
	p->drawn = false;
	strv_free(&p->shown);
}

static bool all_done(struct call *const *calls, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!calls[i]->done)
			return false;
	return true;
}

static json_t *fetch(struct client *c, const struct strv *names)
{
	_cleanup_(call_freep) struct call *call = client_begin(c, "GET", "/v1/clouds");
	json_t *some = json_array(), *cloud;
	size_t i;

	client_finish(call);
	json_array_foreach (json_object_get(call->json, "clouds"), i, cloud) {
		const char *name = json_string_value(json_object_get(cloud, "name"));

		for (size_t k = 0; k < names->n; k++) {
			if (streq_null(names->v[k], name)) {
				json_array_append(some, cloud);
				break;
			}
		}
	}
	return some;
}

void progress_while(struct cli *cli, struct client *c, struct call *const *calls,
	const struct strv *names, bool show)
{
	size_t n = names->n;
	struct progress p;

	progress_begin(&p, cli);
	while (!all_done(calls, n) && !cli_interrupted()) {
		uint64_t next = clock_monotonic_ms() + POLL_MS, now;
		json_t *clouds = show ? fetch(c, names) : NULL;

		if (cli->live)
			cli->err_width =
				cli_terminal_width(fileno(cli->err)); /* it may be resized */
		if (json_array_size(clouds) && !all_done(calls, n))
			progress_show(&p, clouds);
		json_decref(clouds);
		while (!all_done(calls, n) && !cli_interrupted() &&
			(now = clock_monotonic_ms()) < next)
			client_turn(c, (int)(next - now));
	}
	progress_end(&p);
}
