#include "cli/client.h"
#include "cli/show.h"

#include <inttypes.h>

#include "base/text.h"

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
	const char *lines = "100";
	const struct cli_option options[] = {{"lines", 'n', NULL, &lines}};
	struct logs l = {.cli = cli};
	int64_t node = -1;
	char *slash;
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n != 1)
		return cli_usage(cli, words.n ? "one cloud at a time" : "which cloud?");
	if (text_parse_int(lines, &l.lines) < 0 || l.lines < 1 || l.lines > 100000)
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
	code = run(&l, node);
	json_decref(l.json);
	return code;
}
