/* `logs -f`: a stream of each node. What they wrote before comes first, in one piece by time; what
 * comes then is put in order within a turn, so that nobody waits for it. */
#include "cli/logs.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/text.h"
#include "cli/follow.h"
#include "cli/show.h"
#include "model/cloud.h"

/* What was written before is all there when nothing has come for so long, or at the latest then. */
#define QUIET_MS 150
#define PAST_MS  3000
/* How often we look whether a reload has changed the number of nodes. */
#define LOOK_MS 2000
/* Of a node that came by a reload: what it has said until we saw it. */
#define LINES_OF_NEW 1000
/* More is not held back to be put in order. */
#define MERGE_BYTES (64u << 20)

/* A node whose output is followed. */
struct tail {
	struct follow f; /* first */
	struct logs *logs;
	struct tails *all;
	int64_t node;
	int64_t lines; /* of what was before */
	int64_t pos;   /* of the next byte; -1: not known yet */
	struct lines part;
	struct log_source source;
};

struct tails {
	struct logs *logs;
	struct followed list; /* of struct tail; owned */
	bool past;            /* what was before is being collected */
	uint64_t begun_ms, heard_ms;
	struct call *look; /* how many nodes are there?, or NULL */
	uint64_t look_ms;  /* when to ask next */
};

static void print_json(const struct logs *l, int64_t node, const char *line, size_t len)
{
	_cleanup_free_ char *raw = xmalloc(len + 1), *clean = NULL;
	json_t *j;

	for (size_t i = 0; i < len; i++)
		raw[i] = line[i] ? line[i] : ' ';
	raw[len] = '\0';
	clean = text_utf8(raw);
	j = json_pack(
		"{s:s, s:I, s:s}", "cloud", l->cloud, "index", (json_int_t)node, "line", clean);
	cli_json_line(l->cli, j);
	json_decref(j);
}

static void give_json(int64_t node, const char *line, size_t len, void *arg)
{
	print_json(arg, node, line, len);
}

static void flush(struct tails *t, size_t last)
{
	struct logs *l = t->logs;

	log_merge_flush(&l->merge, last, l->cli->json ? give_json : logs_print, l);
}

static void take_line(const char *line, size_t len, void *arg)
{
	struct tail *t = arg;
	struct logs *l = t->logs;

	if (log_take(&t->source, &l->filter, line, len, clock_wall_ms()))
		log_merge_add(&l->merge, t->source.at_ms, t->node, line, len);
	if (l->merge.bytes > MERGE_BYTES)
		flush(t->all, SIZE_MAX);
}

static char *next_target(struct follow *f)
{
	struct tail *t = (struct tail *)f;
	_cleanup_free_ char *cloud = client_escape(t->logs->cloud);
	bool known = t->pos >= 0;

	return xasprintf("/v1/clouds/%s/nodes/%" PRId64 "/log?follow=yes&%s=%" PRId64, cloud,
		t->node, known ? "from" : "tail", known ? t->pos : t->lines);
}

/* The log goes on elsewhere than where we were: its bound has dropped what was not read in time. */
static void begin(struct follow *f)
{
	struct tail *t = (struct tail *)f;
	int64_t at = f->call->log_position;

	if (t->pos >= 0 && at != t->pos) {
		if (t->part.len)
			take_line(t->part.part, t->part.len, t);
		lines_clear(&t->part);
		if (at > t->pos)
			cli_say(f->cli,
				"%s/%" PRId64 ": %" PRId64
				" bytes were dropped before they could be read",
				t->logs->cloud, t->node, at - t->pos);
		else if (at >= 0)
			cli_say(f->cli, "%s/%" PRId64 ": the log was cut", t->logs->cloud, t->node);
	}
	t->pos = at;
}

static void take(struct follow *f, const char *data, size_t n)
{
	struct tail *t = (struct tail *)f;

	if (t->pos >= 0)
		t->pos += (int64_t)n;
	t->all->heard_ms = clock_monotonic_ms();
	lines_add(&t->part, data, n, take_line, t);
}

/* ---- nodes that come and go by a reload ---- */

static void add_tail(struct tails *t, int64_t node, int64_t lines)
{
	struct tail *tail = xcalloc(1, sizeof(*tail));

	*tail = (struct tail){.f = {next_target, begin, take},
		.logs = t->logs,
		.all = t,
		.node = node,
		.lines = lines,
		.pos = -1};
	t->list.v = xreallocarray(t->list.v, t->list.n + 1, sizeof(*t->list.v));
	t->list.v[t->list.n++] = &tail->f;
}

/* Its nodes: not more than there can be, whatever the daemon says. */
static int64_t size_of(const json_t *cloud)
{
	return MIN(show_int(cloud, "size", 0), (int64_t)CLOUD_MAX_NODES);
}

/* There are `size` nodes now: new ones are followed, too; those that were gone again from where we
 * were. */
static void adapt(struct tails *t, int64_t size)
{
	struct logs *l = t->logs;

	for (int64_t i = 0; i < size; i++) {
		if ((size_t)i >= t->list.n) {
			cli_say(l->cli, "%s/%" PRId64 " is new here", l->cloud, i);
			add_tail(t, i, LINES_OF_NEW);
		} else if (t->list.v[i]->over) {
			t->list.v[i]->over = false;
			t->list.v[i]->retry_ms = 0;
		}
	}
	l->named |= size > 1;
}

static void look_for_nodes(struct tails *t)
{
	struct logs *l = t->logs;
	uint64_t now = clock_monotonic_ms();

	if (l->node >= 0)
		return;
	if (t->look && t->look->done) {
		if (call_ok(t->look))
			adapt(t, size_of(t->look->json));
		call_free(TAKE_PTR(t->look));
		t->look_ms = now + LOOK_MS;
	} else if (!t->look && now >= t->look_ms) {
		_cleanup_free_ char *name = client_escape(l->cloud);

		t->look = client_begin(l->client, "GET", "/v1/clouds/%s", name);
	}
}

/* ---- all of them ---- */

static bool past_is_there(const struct tails *t)
{
	uint64_t now = clock_monotonic_ms();

	if (now >= t->begun_ms + PAST_MS)
		return true;
	for (size_t i = 0; i < t->list.n; i++)
		if (!t->list.v[i]->greeted && !t->list.v[i]->over)
			return false;
	return now >= t->heard_ms + QUIET_MS;
}

static void turned(struct followed *list _unused_, void *arg)
{
	struct tails *t = arg;

	if (!t->past) {
		flush(t, SIZE_MAX);
	} else if (past_is_there(t)) {
		flush(t, (size_t)t->logs->lines);
		t->past = false;
	}
	look_for_nodes(t);
}

static void tails_free(struct tails *t)
{
	call_free(t->look);
	for (size_t i = 0; i < t->list.n; i++) {
		struct tail *tail = (struct tail *)t->list.v[i];

		lines_clear(&tail->part);
		free(tail);
	}
	free(t->list.v);
}

int logs_follow(struct logs *l)
{
	_cleanup_(tails_free) struct tails t = {.logs = l, .list = {.turned = turned}};
	_cleanup_free_ char *name = client_escape(l->cloud);
	int code;
	json_t *cloud = client_get(l->cli, l->client, &code, "/v1/clouds/%s", name);
	int64_t n = l->node >= 0 ? 1 : size_of(cloud);

	json_decref(cloud);
	if (code != CLI_OK)
		return code;
	for (int64_t i = 0; i < n; i++)
		add_tail(&t, l->node >= 0 ? l->node : i, l->ask);
	l->named = n > 1;
	t.list.arg = &t;
	/* Of one node, with nothing to be left out, nothing need be put in order. */
	t.past = n > 1 || l->ask != l->lines;
	t.begun_ms = t.heard_ms = clock_monotonic_ms();
	t.look_ms = t.begun_ms + LOOK_MS;
	code = follow_these(l->cli, l->client, &t.list);
	flush(&t, t.past ? (size_t)l->lines : SIZE_MAX);
	return code;
}
