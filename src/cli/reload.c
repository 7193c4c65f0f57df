/* reload: what the daemon makes of its configuration now. */
#include "cli/client.h"
#include "cli/show.h"

#include "base/text.h"

enum column { NAME, CHANGE, EFFECT, N_COLUMNS };

static bool is(const json_t *obj, const char *key, const char *value)
{
	return streq_null(json_string_value(json_object_get(obj, key)), value);
}

/* The daemon tells kinds of change; people are told of them in two columns. */
static void fill_row(char **cells, const json_t *cloud)
{
	bool applied = json_is_true(json_object_get(cloud, "applied"));
	bool kept = is(cloud, "change", "live") || is(cloud, "change", "restart");
	char *change = show_text(cloud, "change"), *name = show_text(cloud, "name");

	cells[NAME] = name ? name : xstrdup("-");
	cells[CHANGE] = kept || !change ? xstrdup("changed") : xstrdup(change);
	cells[EFFECT] = xstrdup(is(cloud, "change", "unchanged") ? ""
				: is(cloud, "change", "removed") ? "now: it is stopped"
				: !applied                       ? "when it is restarted"
								 : "now");
	free(change);
}

/* `note`: behind it, or NULL. */
static void print_key(FILE *f, size_t width, size_t indent, const json_t *key, const char *front,
	const char *note)
{
	_cleanup_free_ char *name = show_text(key, "key"), *old = show_text(key, "old");
	_cleanup_free_ char *new = show_text(key, "new"), *line = NULL;

	line = xasprintf("%s%s: %s -> %s%s%s%s", front, name ? name : "-", old ? old : "unset",
		new ? new : "unset", note ? " (" : "", note ? note : "", note ? ")" : "");
	show_wrapped(f, width, indent, line);
}

static void print_keys(struct cli *cli, const json_t *cloud)
{
	bool applied = json_is_true(json_object_get(cloud, "applied"));
	const json_t *key;
	size_t i;

	json_array_foreach (json_object_get(cloud, "keys"), i, key)
		print_key(cli->out, cli->out_width, 4, key, "",
			!applied && is(key, "change", "live") ? "now" : NULL);
}

static void print_clouds(struct cli *cli, const json_t *clouds)
{
	static const char *const headings[] = {"CLOUD", "CHANGE", "TAKES EFFECT"};
	struct show_table t = {.n_columns = N_COLUMNS,
		.n_rows = json_array_size(clouds) + 1,
		.state_column = N_COLUMNS};
	size_t widths[N_COLUMNS];

	t.cells = xcalloc(t.n_rows * N_COLUMNS, sizeof(*t.cells));
	for (size_t c = 0; c < N_COLUMNS; c++)
		t.cells[c] = xstrdup(headings[c]);
	for (size_t r = 1; r < t.n_rows; r++)
		fill_row(t.cells + r * N_COLUMNS, json_array_get(clouds, r - 1));
	show_widths(&t, widths);
	for (size_t r = 0; r < t.n_rows; r++) {
		show_row(cli->out, &t, widths, r);
		if (r)
			print_keys(cli, json_array_get(clouds, r - 1));
	}
	for (size_t i = 0; i < t.n_rows * N_COLUMNS; i++)
		free(t.cells[i]);
	free(t.cells);
}

static void print_fleet(struct cli *cli, const json_t *fleet)
{
	const json_t *key;
	size_t i;

	json_array_foreach (fleet, i, key)
		print_key(cli->out, cli->out_width, 0, key, "[fleet] ",
			is(key, "change", "daemon") ? "needs a restart of the daemon" : NULL);
}

/* "dev, web": whose changes wait. Owned by the caller; NULL: none. */
static char *waiting(const json_t *clouds)
{
	char *names = NULL;
	const json_t *cloud;
	size_t i;

	json_array_foreach (clouds, i, cloud) {
		_cleanup_free_ char *name = show_text(cloud, "name"), *before = names;

		if (!json_is_true(json_object_get(cloud, "applied")))
			names = xasprintf("%s%s%s", before ? before : "", before ? " " : "",
				name ? name : "-");
		else
			before = NULL;
	}
	return names;
}

static void print(struct cli *cli, const json_t *answer)
{
	const json_t *clouds = json_object_get(answer, "clouds");
	_cleanup_free_ char *names = waiting(clouds);
	bool dry = json_is_true(json_object_get(answer, "dry_run"));

	print_clouds(cli, clouds);
	print_fleet(cli, json_object_get(answer, "fleet"));
	if (dry)
		fputs("\nNothing was changed (--dry-run).\n", cli->out);
	else if (names)
		fprintf(cli->out, "\nTo restart what needs it: h2ofleet restart %s\n", names);
}

/* All that is wrong with the files, one line each. */
static int refused(struct cli *cli, const struct call *call)
{
	const json_t *errors = json_object_get(call->json, "errors"), *e;
	size_t i;

	if (!json_array_size(errors))
		return call_complain(cli, call);
	if (cli->json) {
		json_t *j = json_pack("{s:O}", "errors", errors);

		cli_json(cli, j);
		json_decref(j);
		return CLI_ERROR;
	}
	json_array_foreach (errors, i, e) {
		_cleanup_free_ char *line =
			text_visible(json_string_value(e), json_string_length(e));

		cli_fail(cli, CLI_ERROR, "%s", line);
	}
	return cli_fail(cli, CLI_ERROR, "nothing was changed; all goes on as it was");
}

int cmd_reload(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(call_freep) struct call *call = NULL;
	bool dry_run = false, restart = false;
	const struct cli_option options[] = {
		{"dry-run", 'n', &dry_run, NULL}, {"restart", 0, &restart, NULL}};

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n)
		return cli_usage(cli, "reload takes no words: it is about all clouds");
	c = client_new(cli->socket);
	call = client_begin(c, "POST", "/v1/reload?dry_run=%s&restart=%s", dry_run ? "yes" : "no",
		restart ? "yes" : "no");
	client_finish(call);
	if (!call_ok(call))
		return refused(cli, call);
	if (cli->json)
		cli_json(cli, call->json);
	else
		print(cli, call->json);
	return CLI_OK;
}
