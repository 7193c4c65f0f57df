#include "cli/logs.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "cli/show.h"
#include "cli/since.h"

#define LINES_DEFAULT        100
#define LINES_DEFAULT_FOLLOW 10

/* ---- a line ---- */

static const char *node_color(const struct logs *l, int64_t node)
{
	static const char *const colors[] = {
		"\033[36m", "\033[33m", "\033[32m", "\033[35m", "\033[34m", "\033[31m"};

	return l->cli->color ? colors[(size_t)node % ARRAY_SIZE(colors)] : "";
}

void logs_print(int64_t node, const char *line, size_t len, void *arg)
{
	const struct logs *l = arg;
	_cleanup_free_ char *shown = text_visible(line, len);

	if (l->named)
		fprintf(l->cli->out, "%s%s/%" PRId64 "%s  %s\n", node_color(l, node), l->cloud,
			node, l->cli->color ? "\033[0m" : "", shown);
	else
		fprintf(l->cli->out, "%s\n", shown);
}

void logs_flush(struct logs *l, size_t last)
{
	log_merge_flush(&l->merge, last, logs_print, l);
}

/* ---- what there is ---- */

/* Takes what the filter lets through. */
static void take_lines(struct logs *l, int64_t node, const char *text)
{
	struct log_source source = {0};
	uint64_t now = clock_wall_ms();

	while (*text) {
		size_t len = strcspn(text, "\n");

		if (log_take(&source, &l->filter, text, len, now))
			log_merge_add(&l->merge, source.at_ms, node, text, len);
		text += len + (text[len] == '\n');
	}
}

static void add_line(int64_t node _unused_, const char *line, size_t len, void *arg)
{
	struct strbuf *b = arg;

	strbuf_add(b, line, len);
	strbuf_add(b, "\n", 1);
}

/* {"cloud", "index", "log"} */
static json_t *node_json(struct logs *l, int64_t node)
{
	struct strbuf b = STRBUF_NULL;
	_cleanup_free_ char *clean = NULL;
	json_t *j;

	log_merge_flush(&l->merge, (size_t)l->lines, add_line, &b);
	clean = text_utf8(strbuf_str(&b));
	j = json_pack(
		"{s:s, s:I, s:s}", "cloud", l->cloud, "index", (json_int_t)node, "log", clean);
	strbuf_free(&b);
	return j;
}

static int fetch_node(struct logs *l, int64_t node, json_t *list)
{
	_cleanup_free_ char *cloud = client_escape(l->cloud);
	_cleanup_(call_freep) struct call *call = client_begin(l->client, "GET",
		"/v1/clouds/%s/nodes/%" PRId64 "/log?tail=%" PRId64, cloud, node, l->ask);

	client_finish(call);
	if (!call_ok(call))
		return call_complain(l->cli, call);
	take_lines(l, node, call->text);
	if (l->cli->json)
		json_array_append_new(list, node_json(l, node));
	else if (!*call->text)
		cli_say(l->cli, "node %s/%" PRId64 " has written nothing yet", l->cloud, node);
	return CLI_OK;
}

static int fetch_all(struct logs *l, json_t *list)
{
	_cleanup_free_ char *name = client_escape(l->cloud);
	int code;
	json_t *cloud = client_get(l->cli, l->client, &code, "/v1/clouds/%s", name);
	int64_t n = show_int(cloud, "size", 0);

	json_decref(cloud);
	l->named = n > 1;
	for (int64_t i = 0; i < n && code == CLI_OK; i++)
		code = fetch_node(l, i, list);
	return code;
}

static int show(struct logs *l)
{
	json_t *list = json_array();
	int code = l->node >= 0 ? fetch_node(l, l->node, list) : fetch_all(l, list);

	if (l->cli->json && code == CLI_OK) {
		json_t *all = json_pack("{s:O}", "logs", list);

		cli_json(l->cli, all);
		json_decref(all);
	}
	if (!l->cli->json)
		logs_flush(l, (size_t)l->lines);
	json_decref(list);
	return code;
}

/* ---- what was asked ---- */

/* The stamps name no zone: the daemon tells theirs. While it is as far from UTC as ours, ours it
 * is, which knows of summer and winter. */
static void learn_zone(struct logs *l)
{
	_cleanup_(call_freep) struct call *call = client_begin(l->client, "GET", "/v1/version");
	time_t now = (time_t)(clock_wall_ms() / 1000);
	struct tm here;

	client_finish(call);
	if (!call_ok(call) || !localtime_r(&now, &here))
		return;
	l->filter.zone.utc_offset_s = show_int(call->json, "utc_offset_s", here.tm_gmtoff);
	l->filter.zone.other = l->filter.zone.utc_offset_s != here.tm_gmtoff;
}

/* The name of a level stands for that level and what is graver. */
static int parse_pattern(struct logs *l, const char *s)
{
	enum log_level level = log_level_read(s, strlen(s));
	char why[200];
	int r;

	if (level != LOG_NO_LEVEL && l->filter.level == LOG_NO_LEVEL) {
		l->filter.level = level;
		return CLI_OK;
	}
	r = regcomp(&l->filter.pattern, s, REG_EXTENDED | REG_NOSUB);
	if (r == 0) {
		l->filter.has_pattern = true;
		return CLI_OK;
	}
	regerror(r, &l->filter.pattern, why, sizeof(why));
	return cli_usage(l->cli, "'%s' is no regular expression: %s", s, why);
}

struct words {
	const char *lines, *since, *level, *grep;
	bool follow;
};

static int parse_filter(struct logs *l, const struct words *w)
{
	if (w->since && !since_read(w->since, clock_wall_ms(), &l->filter.since_ms))
		return cli_usage(l->cli,
			"'%s' is no time; write 10m (ago), 22:39 or \"2026-11-22 22:39\"",
			w->since);
	if (w->level) {
		l->filter.level = log_level_read(w->level, strlen(w->level));
		if (l->filter.level == LOG_NO_LEVEL)
			return cli_usage(l->cli,
				"'%s' is no level; there are FATAL, ERROR, WARN, INFO, DEBUG and "
				"TRACE",
				w->level);
	}
	return w->grep ? parse_pattern(l, w->grep) : CLI_OK;
}

static int parse_lines(struct logs *l, const struct words *w)
{
	bool filtered = w->since || w->level || w->grep;

	l->lines = filtered ? LOGS_LINES_MAX : w->follow ? LINES_DEFAULT_FOLLOW : LINES_DEFAULT;
	if (w->lines && (text_parse_int(w->lines, &l->lines) < 0 || l->lines < !w->follow ||
				l->lines > LOGS_LINES_MAX))
		return cli_usage(l->cli, "'%s' is no number of lines from 1 to 100000", w->lines);
	l->ask = filtered && l->lines ? LOGS_LINES_MAX : l->lines;
	return CLI_OK;
}

/* "dev", "dev/0" */
static int parse_place(struct logs *l, const struct strv *words)
{
	char *slash;

	if (words->n != 1)
		return cli_usage(l->cli, words->n ? "one cloud at a time" : "which cloud?");
	l->cloud = xstrdup(words->v[0]);
	slash = strchr(l->cloud, '/');
	if (slash)
		*slash++ = '\0';
	if (!cli_name_ok(l->cli, l->cloud))
		return CLI_USAGE;
	if (slash && (text_parse_int(slash, &l->node) < 0 || l->node < 0))
		return cli_usage(l->cli, "'%s' is no number of a node", slash);
	return CLI_OK;
}

int cmd_logs(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	struct words w = {0};
	const struct cli_option options[] = {
		{"follow", 'f', &w.follow, NULL},
		{"lines", 'n', NULL, &w.lines},
		{"since", 0, NULL, &w.since},
		{"level", 0, NULL, &w.level},
		{"grep", 0, NULL, &w.grep},
	};
	struct logs l = {.cli = cli, .node = -1, .filter = LOG_FILTER_NULL};
	int code = cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words);

	if (code == CLI_OK)
		code = parse_lines(&l, &w);
	if (code == CLI_OK)
		code = parse_place(&l, &words);
	if (code == CLI_OK)
		code = parse_filter(&l, &w);
	if (code == CLI_OK) {
		l.client = client_new(cli->socket);
		if (l.filter.since_ms)
			learn_zone(&l);
		code = w.follow ? logs_follow(&l) : show(&l);
		client_free(l.client);
	}
	if (l.filter.has_pattern)
		regfree(&l.filter.pattern);
	log_merge_free(&l.merge);
	free(l.cloud);
	return code;
}
