#include "cli/follow.h"
#include "cli/show.h"

#include <inttypes.h>

#include "base/strbuf.h"
#include "base/text.h"

#define LINES_DEFAULT        100
#define LINES_DEFAULT_FOLLOW 10

struct logs {
	struct cli *cli;
	struct client *client;
	char *cloud; /* as asked */
	int64_t lines;
	json_t *json; /* what was read, for --json */
};

/* Line by line, so that nothing in them reaches the terminal raw. */
static void print_lines(FILE *f, const char *text)
{
	while (*text) {
		size_t len = strcspn(text, "\n");
		_cleanup_free_ char *line = text_visible(text, len);

		fprintf(f, "%s\n", line);
		text += len + (text[len] == '\n');
	}
}

static int show_node(struct logs *l, int64_t node, bool heading)
{
	_cleanup_free_ char *cloud = client_escape(l->cloud);
	_cleanup_(call_freep) struct call *call = client_begin(l->client, "GET",
		"/v1/clouds/%s/nodes/%" PRId64 "/log?tail=%" PRId64, cloud, node, l->lines);

	client_finish(call);
	if (!call_ok(call))
		return call_complain(l->cli, call);
	if (l->cli->json) {
		json_array_append_new(
			l->json, json_pack("{s:s, s:I, s:s}", "cloud", l->cloud, "index",
					 (json_int_t)node, "log", call->text));
		return CLI_OK;
	}
	if (!*call->text)
		fprintf(l->cli->err, "h2ofleet: node %s/%" PRId64 " has written nothing yet\n",
			l->cloud, node);
	if (heading)
		fprintf(l->cli->out, "==> %s/%" PRId64 " <==\n", l->cloud, node);
	print_lines(l->cli->out, call->text);
	return CLI_OK;
}

static int show_all_nodes(struct logs *l)
{
	_cleanup_free_ char *name = client_escape(l->cloud);
	int code;
	json_t *cloud = client_get(l->cli, l->client, &code, "/v1/clouds/%s", name);
	int64_t n = show_int(cloud, "size", 0);

	json_decref(cloud);
	for (int64_t i = 0; i < n && code == CLI_OK; i++) {
		if (i && !l->cli->json)
			fputc('\n', l->cli->out);
		code = show_node(l, i, n > 1);
	}
	return code;
}

/* ---- following ---- */

/* A node whose output is followed. */
struct tail {
	struct follow f; /* first */
	struct logs *logs;
	int64_t node;
	bool named;  /* one of several: its lines begin with its name */
	int64_t pos; /* of the next byte; -1: not known yet */
	struct lines lines;
};

static const char *prefix_color(const struct tail *t)
{
	static const char *const colors[] = {
		"\033[36m", "\033[33m", "\033[32m", "\033[35m", "\033[34m", "\033[31m"};

	return t->logs->cli->color ? colors[(size_t)t->node % ARRAY_SIZE(colors)] : "";
}

static void print_followed_json(const struct tail *t, const char *line, size_t len)
{
	_cleanup_free_ char *raw = xmalloc(len + 1), *clean = NULL;
	json_t *j;

	for (size_t i = 0; i < len; i++)
		raw[i] = line[i] ? line[i] : ' ';
	raw[len] = '\0';
	clean = text_utf8(raw);
	j = json_pack("{s:s, s:I, s:s}", "cloud", t->logs->cloud, "index", (json_int_t)t->node,
		"line", clean);

	json_dumpf(j, t->logs->cli->out, JSON_COMPACT);
	fputc('\n', t->logs->cli->out);
	t->logs->cli->json_said = true;
	json_decref(j);
}

static void print_followed(const char *line, size_t len, void *arg)
{
	const struct tail *t = arg;
	_cleanup_free_ char *shown = text_visible(line, len);
	FILE *f = t->logs->cli->out;

	if (t->logs->cli->json)
		print_followed_json(t, line, len);
	else if (t->named)
		fprintf(f, "%s%s/%" PRId64 "%s  %s\n", prefix_color(t), t->logs->cloud, t->node,
			t->logs->cli->color ? "\033[0m" : "", shown);
	else
		fprintf(f, "%s\n", shown);
}

static char *next_target(struct follow *f)
{
	struct tail *t = (struct tail *)f;
	_cleanup_free_ char *cloud = client_escape(t->logs->cloud);
	bool known = t->pos >= 0;

	return xasprintf("/v1/clouds/%s/nodes/%" PRId64 "/log?follow=yes&%s=%" PRId64, cloud,
		t->node, known ? "from" : "tail", known ? t->pos : t->logs->lines);
}

/* The log goes on elsewhere than where we were: its bound has dropped what was not read in time. */
static void begin(struct follow *f)
{
	struct tail *t = (struct tail *)f;
	int64_t at = f->call->log_position;

	if (t->pos >= 0 && at != t->pos) {
		if (t->lines.len)
			print_followed(t->lines.part, t->lines.len, t);
		lines_clear(&t->lines);
		if (at > t->pos)
			fprintf(f->cli->err,
				"h2ofleet: %s/%" PRId64 ": %" PRId64
				" bytes were dropped before they could be read\n",
				t->logs->cloud, t->node, at - t->pos);
		else
			fprintf(f->cli->err, "h2ofleet: %s/%" PRId64 ": the log was cut\n",
				t->logs->cloud, t->node);
	}
	t->pos = at;
}

static void take(struct follow *f, const char *data, size_t n)
{
	struct tail *t = (struct tail *)f;

	t->pos += (int64_t)n;
	lines_add(&t->lines, data, n, print_followed, t);
}

/* node < 0: all of them */
static int follow(struct logs *l, int64_t node)
{
	_cleanup_free_ char *name = client_escape(l->cloud);
	int code = CLI_OK;
	json_t *cloud = client_get(l->cli, l->client, &code, "/v1/clouds/%s", name);
	size_t n = node >= 0 ? 1 : (size_t)show_int(cloud, "size", 0);
	_cleanup_free_ struct tail *tails = xcalloc(n + 1, sizeof(*tails));
	_cleanup_free_ struct follow **all = xcalloc(n + 1, sizeof(struct follow *));

	json_decref(cloud);
	for (size_t i = 0; i < n; i++) {
		tails[i] = (struct tail){.f = {next_target, begin, take},
			.logs = l,
			.node = node >= 0 ? node : (int64_t)i,
			.named = n > 1,
			.pos = -1};
		all[i] = &tails[i].f;
	}
	if (code == CLI_OK)
		code = follow_all(l->cli, l->client, all, n);
	for (size_t i = 0; i < n; i++)
		lines_clear(&tails[i].lines);
	return code;
}

/* node < 0: all of them */
static int run(struct logs *l, int64_t node)
{
	int code = node >= 0 ? show_node(l, node, false) : show_all_nodes(l);

	if (l->cli->json && code == CLI_OK) {
		json_t *all = json_pack("{s:O}", "logs", l->json);

		cli_json(l->cli, all);
		json_decref(all);
	}
	return code;
}

int cmd_logs(struct cli *cli, int argc, char **argv)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_free_ char *cloud = NULL;
	const char *lines = NULL;
	bool following = false;
	const struct cli_option options[] = {
		{"follow", 'f', &following, NULL},
		{"lines", 'n', NULL, &lines},
	};
	struct logs l = {.cli = cli};
	int64_t node = -1;
	char *slash;
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n != 1)
		return cli_usage(cli, words.n ? "one cloud at a time" : "which cloud?");
	l.lines = following ? LINES_DEFAULT_FOLLOW : LINES_DEFAULT;
	if (lines &&
		(text_parse_int(lines, &l.lines) < 0 || l.lines < !following || l.lines > 100000))
		return cli_usage(cli, "'%s' is no number of lines from 1 to 100000", lines);
	l.cloud = cloud = xstrdup(words.v[0]);
	slash = strchr(cloud, '/');
	if (slash)
		*slash++ = '\0';
	if (!cli_name_ok(cli, cloud))
		return CLI_USAGE;
	if (slash && (text_parse_int(slash, &node) < 0 || node < 0))
		return cli_usage(cli, "'%s' is no number of a node", slash);
	l.client = c = client_new(cli->socket);
	l.json = json_array();
	code = following ? follow(&l, node) : run(&l, node);
	json_decref(l.json);
	return code;
}
