/* `h2ofleet timezone` and `network-test`. */
#include "cli/h2o.h"

#include "base/text.h"
#include "cli/show.h"

/* Under our own session, so that nobody else's frames can be met; ended afterwards. */
#define SESSION "_sid_h2ofleet"
#define FRAME   "h2ofleet_timezones"

/* What a shell's argument may bring into a Rapids string. */
static bool is_zone(const char *s)
{
	if (!*s || strlen(s) > 100)
		return false;
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
			    (*s >= '0' && *s <= '9') || strchr("/_+-:", *s)))
			return false;
	return true;
}

/* (getTimeZone) would lock the cloud, and says the same. */
static int get_zone(struct h2o *h)
{
	int code;
	json_t *cloud = h2o_get(h, &code, "/3/Cloud?skip_ticks=true");
	_cleanup_free_ char *zone = show_text(cloud, "datafile_parser_timezone");
	json_t *j;

	if (cloud && h->cli->json) {
		j = json_pack("{s:s?}", "timezone", zone);
		cli_json(h->cli, j);
		json_decref(j);
	} else if (cloud) {
		fprintf(h->cli->out, "%s\n", zone ? zone : "-");
	}
	json_decref(cloud);
	return code;
}

static int set_zone(struct h2o *h, const char *zone)
{
	json_t *j;
	int code;

	if (!is_zone(zone))
		return cli_usage(
			h->cli, "'%s' is no time zone, such as UTC or Europe/Berlin", zone);
	j = h2o_rapids(h, &code, NULL, "(setTimeZone \"%s\")", zone);
	json_decref(j);
	return j ? get_zone(h) : code;
}

static void end_session(struct h2o *h)
{
	const struct h2o_request end = {
		.method = "DELETE", .path = "/4/sessions/" SESSION, .timeout_ms = 30000};
	struct h2o_answer a;

	h2o_ask(h, &end, &a);
	h2o_answer_clear(&a);
}

static int list_zones(struct h2o *h)
{
	int code;
	json_t *made = h2o_rapids(h, &code, SESSION, "(tmp= " FRAME " (listTimeZones))");
	json_t *frames = made ? h2o_get(h, &code, "/3/Frames/" FRAME "/light?row_count=10") : NULL;
	const json_t *frame = json_array_get(json_object_get(frames, "frames"), 0);
	const json_t *column = json_array_get(json_object_get(frame, "columns"), 0);
	json_t *all = json_array(), *zone;
	size_t i;

	if (made)
		end_session(h);
	/* The first is a heading, "StandardOffset CanonicalID, Aliases". */
	json_array_foreach (json_object_get(column, "domain"), i, zone)
		if (i && json_is_string(zone))
			json_array_append(all, zone);
	if (frames && h->cli->json) {
		json_t *j = json_pack("{s:O}", "timezones", all);

		cli_json(h->cli, j);
		json_decref(j);
	} else if (frames) {
		json_array_foreach (all, i, zone) {
			_cleanup_free_ char *line =
				text_visible(json_string_value(zone), json_string_length(zone));

			fprintf(h->cli->out, "%s\n", line);
		}
	}
	json_decref(all);
	json_decref(frames);
	json_decref(made);
	return code;
}

int cmd_timezone(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_(h2o_close) struct h2o h = {0};
	bool quiet = false;
	const struct cli_option options[] = {{"quiet", 'q', &quiet, NULL}};
	const char *what;
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (!words.n)
		return cli_usage(cli, "which cloud?");
	what = words.n > 1 ? words.v[1] : "get";
	if (!streq(what, "get") && !streq(what, "set") && !streq(what, "list"))
		return cli_usage(cli, "'%s' is not get, set or list", what);
	if (streq(what, "set") ? words.n != 3 : words.n > 2)
		return cli_usage(
			cli, streq(what, "set") ? "set takes one time zone" : "too many words");
	code = h2o_open(&h, cli, words.v[0], false);
	h.quiet = quiet;
	if (code != CLI_OK)
		return code;
	return streq(what, "get")   ? get_zone(&h)
	       : streq(what, "set") ? set_zone(&h, words.v[2])
				    : list_zones(&h);
}

/* Cell r of column c, without blanks in front. Owned by the caller. */
static char *cell(const json_t *data, size_t c, size_t r)
{
	const char *s = json_string_value(json_array_get(json_array_get(data, c), r));

	if (!s)
		return xstrdup("-");
	s += strspn(s, " ");
	return text_visible(s, strlen(s));
}

/* The names of H2O's nodes come as "localhost/127.0.0.1:54321": only the address is of use. */
static char *row_name(const json_t *data, size_t r)
{
	_cleanup_free_ char *name = cell(data, 0, r);
	const char *slash = strchr(name, '/'), *blank;

	if (!slash)
		return TAKE_PTR(name);
	blank = memrchr(name, ' ', (size_t)(slash - name));
	return xasprintf("%.*s%s", blank ? (int)(blank + 1 - name) : 0, name, slash + 1);
}

static char *heading_of(const json_t *column)
{
	char *s = show_text(column, "description");

	return s ? s : xstrdup("-");
}

/* A TwoDimTableV3 for people: a row of it is a line and, where that is too wide, below it. */
static void print_table(FILE *f, size_t width, const json_t *table)
{
	const json_t *columns = json_object_get(table, "columns");
	const json_t *data = json_object_get(table, "data");
	size_t n = MIN(json_array_size(columns), (size_t)16), rows, total = 0, i;
	_cleanup_(strv_free) struct strv cells = STRV_NULL;

	rows = n ? json_array_size(json_array_get(data, 0)) : 0;
	for (i = 0; i < n; i++)
		strv_take(&cells, heading_of(json_array_get(columns, i)));
	for (size_t r = 0; r < rows; r++) {
		strv_take(&cells, row_name(data, r));
		for (i = 1; i < n; i++)
			strv_take(&cells, cell(data, i, r));
	}
	for (i = 0; i < n; i++) {
		size_t widest = 0;

		for (size_t r = 0; r <= rows; r++)
			widest = MAX(widest, show_columns(cells.v[r * n + i]));
		total += widest + (i ? 2 : 0);
	}
	if (n && total <= width) {
		show_grid(f, &cells, n, 0);
		return;
	}
	for (size_t r = 1; r <= rows && n; r++) {
		fprintf(f, "%s\n", cells.v[r * n]);
		for (i = 1; i < n; i++)
			fprintf(f, "    %-15s %s\n", cells.v[i], cells.v[r * n + i]);
	}
}

int cmd_network_test(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_(h2o_close) struct h2o h = {0};
	bool quiet = false;
	const struct cli_option options[] = {{"quiet", 'q', &quiet, NULL}};
	json_t *j;
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n != 1)
		return cli_usage(cli, words.n ? "one cloud at a time" : "which cloud?");
	code = h2o_open(&h, cli, words.v[0], false);
	h.quiet = quiet;
	if (code != CLI_OK)
		return code;
	j = h2o_get(&h, &code, "/3/NetworkTest");
	if (j && !json_array_size(json_object_get(json_object_get(j, "table"), "data")))
		code = cli_fail(cli, CLI_ERROR,
			"cloud '%s' has measured nothing: there is no table in its answer",
			words.v[0]);
	else if (j && cli->json)
		cli_json(cli, j);
	else if (j)
		print_table(cli->out, cli->out_width, json_object_get(j, "table"));
	json_decref(j);
	return code;
}
