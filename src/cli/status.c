#include "cli/client.h"
#include "cli/show.h"

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

static void print(struct cli *cli, const json_t *clouds, bool nodes)
{
	const json_t *cloud;
	size_t i;

	if (json_array_size(clouds))
		show_clouds(cli->out, clouds, cli->out_width, cli->color);
	else if (!nodes)
		fputs("no clouds are configured\n", cli->out);
	if (!nodes)
		return;
	json_array_foreach (clouds, i, cloud) {
		_cleanup_free_ char *name = show_text(cloud, "name");

		fputc('\n', cli->out);
		if (json_array_size(clouds) > 1)
			fprintf(cli->out, "%s:\n", name ? name : "-");
		show_nodes(cli->out, cloud, cli->out_width, cli->color);
	}
}

/* Of the daemon itself: a line each. */
static void print_troubles(struct cli *cli, const json_t *troubles)
{
	const json_t *t;
	size_t i;

	json_array_foreach (troubles, i, t) {
		_cleanup_free_ char *cloud = show_text(t, "cloud");
		_cleanup_free_ char *detail = show_text(t, "detail");
		_cleanup_free_ char *since = show_duration(t, "since_ms");
		_cleanup_free_ char *line = xasprintf("trouble for %s: %s%s%s", since,
			cloud ? cloud : "", cloud ? ": " : "", detail ? detail : "-");

		show_wrapped(cli->out, cli->out_width, 0, line);
	}
}

int cmd_status(struct cli *cli, int argc, char **argv)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(strv_free) struct strv names = STRV_NULL;
	json_t *answer;
	int code;

	if (cli_parse(cli, argc, argv, NULL, 0, &names) != CLI_OK)
		return CLI_USAGE;
	for (size_t i = 0; i < names.n; i++)
		if (!cli_name_ok(cli, names.v[i]))
			return CLI_USAGE;
	c = client_new(cli->socket);
	answer = fetch(cli, c, &names, &code);
	if (!answer)
		return code;
	code = cli_worse(code, worst_state(json_object_get(answer, "clouds")));
	if (cli->json) {
		cli_json(cli, answer);
	} else {
		print(cli, json_object_get(answer, "clouds"), names.n > 0);
		print_troubles(cli, json_object_get(answer, "troubles"));
	}
	json_decref(answer);
	return code;
}
