#include "cli/follow.h"
#include "cli/show.h"
#include "cli/since.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"

#define LAST_DEFAULT 10 /* with --follow */
/* An epoch is longer than the hours of a time. */
#define EPOCH_MIN 8

struct events {
	struct follow f; /* first */
	struct cli *cli;
	char *cloud;   /* owned: as a part of a query; NULL: all */
	char *since;   /* owned: "EPOCH:SEQ" of the newest that was seen, or what was asked; NULL */
	char from[32]; /* what was before this moment is not shown, as the records have it */
	size_t skip;   /* so many of those there are already are not shown */
	size_t n;
	struct lines lines;
};

/* In local time, for people. */
static void print_time(FILE *f, const json_t *record)
{
	_cleanup_free_ char *when = show_time(record, "time");

	fprintf(f, "%-23s ", when ? when : "---"); /* ---: of the stream itself */
}

static const char *color_of(const json_t *record)
{
	const char *type = json_string_value(json_object_get(record, "type"));
	const char *to = json_string_value(json_object_get(record, "to"));

	if (to && streq_null(type, "cloud-state"))
		return show_state_color(to);
	return streq_null(type, "lost") || streq_null(type, "epoch") ? "\033[31m" : "";
}

static void print_record(struct events *ev, const json_t *record, const char *line, size_t len)
{
	const char *color = ev->cli->color ? color_of(record) : "";
	_cleanup_free_ char *message = show_text(record, "message");
	FILE *f = ev->cli->out;

	if (ev->cli->json) {
		cli_json_text(ev->cli, line, len);
		return;
	}
	print_time(f, record);
	fprintf(f, "%s%s%s\n", color, message ? message : "?", *color ? "\033[0m" : "");
}

/* What the stream says of itself has no time. */
static bool is_older(const struct events *ev, const json_t *record)
{
	const char *time = json_string_value(json_object_get(record, "time"));

	return time && strcmp(time, ev->from) < 0;
}

static void take_line(const char *line, size_t len, void *arg)
{
	struct events *ev = arg;
	json_t *record = json_loadb(line, len, 0, NULL);
	const char *epoch = json_string_value(json_object_get(record, "epoch"));
	const char *type = json_string_value(json_object_get(record, "type"));

	if (epoch) {
		free(ev->since);
		ev->since = xasprintf("%s:%" PRId64, epoch, show_int(record, "seq", 0));
	}
	if (record && !streq_null(type, "heartbeat") && ev->n++ >= ev->skip &&
		!is_older(ev, record))
		print_record(ev, record, line, len);
	json_decref(record);
}

/* ---- following ---- */

/* Owned by the caller. */
static char *target_of(struct events *ev, bool follow)
{
	struct strbuf b = STRBUF_NULL;
	_cleanup_free_ char *since = ev->since ? client_escape(ev->since) : NULL;

	strbuf_printf(&b, "/v1/events?follow=%s", follow ? "yes" : "no");
	if (since)
		strbuf_printf(&b, "&since=%s", since);
	if (ev->cloud)
		strbuf_printf(&b, "&cloud=%s", ev->cloud);
	return strbuf_take(&b);
}

static char *next_target(struct follow *f)
{
	return target_of((struct events *)f, true);
}

/* What was cut off comes again as a whole. */
static void begin(struct follow *f)
{
	lines_clear(&((struct events *)f)->lines);
}

static void take(struct follow *f, const char *data, size_t n)
{
	struct events *ev = (struct events *)f;

	lines_add(&ev->lines, data, n, take_line, ev);
}

/* ---- what there is ---- */

static size_t count_lines(const char *s)
{
	size_t n = 0;

	while ((s = strchr(s, '\n'))) {
		n++;
		s++;
	}
	return n;
}

/* The last `last` of them. */
static int show_present(struct events *ev, struct client *c, size_t last)
{
	_cleanup_free_ char *target = target_of(ev, false);
	_cleanup_(call_freep) struct call *call = client_begin(c, "GET", "%s", target);
	size_t n;

	client_finish(call);
	if (!call_ok(call))
		return call_complain(ev->cli, call);
	n = count_lines(call->text);
	ev->skip = n > last ? n - last : 0;
	ev->n = 0;
	lines_add(&ev->lines, call->text, strlen(call->text), take_line, ev);
	ev->skip = 0;
	return CLI_OK;
}

static int run(struct events *ev, struct client *c, size_t last, bool follow)
{
	struct follow *f = &ev->f;
	int code = show_present(ev, c, last);

	if (code != CLI_OK || !follow)
		return code;
	f->target = next_target;
	f->begin = begin;
	f->data = take;
	return follow_all(ev->cli, c, &f, 1);
}

/* EPOCH:SEQ or SEQ: the daemon knows them. */
static bool is_place(const char *s)
{
	const char *colon = strchr(s, ':');

	if (colon && colon - s < EPOCH_MIN)
		return false;
	s = colon ? colon + 1 : s;
	return *s && !s[strspn(s, "0123456789")];
}

static int parse_since(struct events *ev, const char *s)
{
	uint64_t ms;
	time_t t;
	struct tm tm;

	if (!s || is_place(s)) {
		ev->since = xstrdup_null(s);
		return CLI_OK;
	}
	if (!since_read(s, clock_wall_ms(), &ms))
		return cli_usage(ev->cli,
			"'%s' is no time and no event; write 10m (ago), 22:39, \"2026-11-22 "
			"22:39\" or EPOCH:SEQ",
			s);
	t = (time_t)(ms / 1000);
	if (gmtime_r(&t, &tm))
		strftime(ev->from, sizeof(ev->from), "%Y-%m-%dT%H:%M:%S", &tm);
	return CLI_OK;
}

int cmd_events(struct cli *cli, int argc, char **argv)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	const char *since = NULL, *lines = NULL;
	bool follow = false;
	const struct cli_option options[] = {
		{"follow", 'f', &follow, NULL},
		{"lines", 'n', NULL, &lines},
		{"since", 0, NULL, &since},
	};
	struct events ev = {.cli = cli};
	int64_t last = INT64_MAX;
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n > 1)
		return cli_usage(cli, "one cloud at a time, or none for all");
	if (words.n && !cli_name_ok(cli, words.v[0]))
		return CLI_USAGE;
	if (lines && (text_parse_int(lines, &last) < 0 || last < 0))
		return cli_usage(cli, "'%s' is no number of events", lines);
	if (parse_since(&ev, since) != CLI_OK)
		return CLI_USAGE;
	if (follow && !lines && !since)
		last = LAST_DEFAULT;
	c = client_new(cli->socket);
	ev.cloud = words.n ? client_escape(words.v[0]) : NULL;
	code = run(&ev, c, (size_t)last, follow);
	lines_clear(&ev.lines);
	free(ev.cloud);
	free(ev.since);
	return code;
}
