#include "cli/client.h"
#include "cli/show.h"
#include "cli/watch.h"

#include "base/text.h"

/* The clouds with these names, in their order; without names all. A new reference, or NULL with
 * *code set when there is no daemon. Names that are not there are told, and are in *code. */
static json_t *fetch(struct cli *cli, struct client *c, const struct strv *names, int *code)
{
	json_t *all = client_get(cli, c, code, "/v1/clouds"), *some = json_array();

	if (!all || names->n == 0) {
		json_decref(some);
		return all;
	}
	json_decref(all);
	for (size_t i = 0; i < names->n; i++) {
		_cleanup_free_ char *name = client_escape(names->v[i]);
		int one;
		json_t *cloud = client_get(cli, c, &one, "/v1/clouds/%s", name);

		*code = cli_worse(*code, one);
		if (cloud)
			json_array_append_new(some, cloud);
	}
	return json_pack("{s:o}", "clouds", some);
}

static int worst_state(const json_t *clouds)
{
	const json_t *cloud;
	int code = CLI_OK;
	size_t i;

	json_array_foreach (clouds, i, cloud) {
		const char *state = json_string_value(json_object_get(cloud, "state"));

		code = cli_worse(code, cli_state_exit(state ? state : ""));
	}
	return code;
}

/* Of the daemon itself: a line each. */
static void print_troubles(FILE *f, const json_t *troubles, size_t width)
{
	const json_t *t;
	size_t i;

	json_array_foreach (troubles, i, t) {
		_cleanup_free_ char *cloud = show_text(t, "cloud");
		_cleanup_free_ char *detail = show_text(t, "detail");
		_cleanup_free_ char *since = show_duration(t, "since_ms");
		_cleanup_free_ char *line = xasprintf("trouble for %s: %s%s%s", since,
			cloud ? cloud : "", cloud ? ": " : "", detail ? detail : "-");

		show_wrapped(f, width, 0, line);
	}
}

void status_print(FILE *f, const json_t *answer, bool nodes, size_t width, bool color)
{
	const json_t *clouds = json_object_get(answer, "clouds"), *cloud;
	size_t i;

	if (json_array_size(clouds))
		show_clouds(f, clouds, width, color);
	else if (!nodes)
		fputs("no clouds are configured\n", f);
	if (nodes) {
		json_array_foreach (clouds, i, cloud) {
			_cleanup_free_ char *name = show_text(cloud, "name");

			fputc('\n', f);
			if (json_array_size(clouds) > 1)
				fprintf(f, "%s:\n", name ? name : "-");
			show_nodes(f, cloud, width, color);
		}
	}
	print_troubles(f, json_object_get(answer, "troubles"), width);
}

static int show_once(struct cli *cli, const struct strv *names)
{
	_cleanup_(client_freep) struct client *c = client_new(cli->socket);
	int code;
	json_t *answer = fetch(cli, c, names, &code);

	if (!answer)
		return code;
	code = cli_worse(code, worst_state(json_object_get(answer, "clouds")));
	if (cli->json)
		cli_json(cli, answer);
	else
		status_print(cli->out, answer, names->n > 0, cli->out_width, cli->color);
	json_decref(answer);
	return code;
}

int cmd_status(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv names = STRV_NULL;
	const char *interval = NULL;
	bool watch = false;
	const struct cli_option options[] = {{"watch", 'w', &watch, &interval}};
	uint64_t ms = WATCH_DEFAULT_MS;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &names) != CLI_OK)
		return CLI_USAGE;
	for (size_t i = 0; i < names.n; i++)
		if (!cli_name_ok(cli, names.v[i]))
			return CLI_USAGE;
	if (interval && (text_parse_duration(interval, &ms) < 0 || ms < WATCH_MIN_MS))
		return cli_usage(cli, "'%s' is no interval; write 500ms, 2s or 1m (at least %dms)",
			interval, WATCH_MIN_MS);
	return watch ? watch_status(cli, &names, ms) : show_once(cli, &names);
}
