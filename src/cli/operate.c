/* start, stop, restart and touch. The daemon decides when they are done: with --wait a second
 * request for each is answered only then, and what is shown meanwhile comes from requests beside
 * it. */
#include "cli/client.h"
#include "cli/progress.h"
#include "cli/show.h"

#include "base/strbuf.h"
#include "base/text.h"

struct operation {
	struct cli *cli;
	const char *verb; /* "start" */
	struct strv names;
	bool all, wait, resume, disarm;
	const char *timeout;
	struct client *client;
	struct call **calls; /* one per name */
};

static int parse(struct operation *op, int argc, char **argv)
{
	struct cli *cli = op->cli;
	const struct cli_option resume = {"resume", 0, &op->resume, NULL};
	const struct cli_option disarm = {"disarm", 0, &op->disarm, NULL};
	const struct cli_option options[] = {
		{"all", 0, &op->all, NULL}, /* touch knows no more */
		{"wait", 0, &op->wait, NULL},
		{"timeout", 0, NULL, &op->timeout},
		streq(op->verb, "stop") ? disarm : resume,
	};
	size_t n = streq(op->verb, "touch") ? 1 : ARRAY_SIZE(options);
	uint64_t ms;

	if (cli_parse(cli, argc, argv, options, n, &op->names) != CLI_OK)
		return CLI_USAGE;
	if (op->all && op->names.n)
		return cli_usage(cli, "either clouds or --all, not both");
	if (!op->all && !op->names.n)
		return cli_usage(cli, "which cloud? (--all for every one)");
	for (size_t i = 0; i < op->names.n; i++)
		if (!cli_name_ok(cli, op->names.v[i]))
			return CLI_USAGE;
	if (op->timeout && !op->wait)
		return cli_usage(cli, "--timeout means nothing without --wait");
	if (op->timeout && text_parse_duration(op->timeout, &ms) < 0)
		return cli_usage(cli, "'%s' is no time; write 500ms, 90s or 5m", op->timeout);
	return CLI_OK;
}

static int add_all_names(struct operation *op)
{
	int code;
	json_t *answer = client_get(op->cli, op->client, &code, "/v1/clouds"), *cloud;
	size_t i;

	json_array_foreach (json_object_get(answer, "clouds"), i, cloud)
		strv_add(&op->names, json_string_value(json_object_get(cloud, "name")));
	json_decref(answer);
	return code;
}

static void begin(struct operation *op)
{
	op->calls = xcalloc(op->names.n + 1, sizeof(struct call *));
	for (size_t i = 0; i < op->names.n; i++) {
		_cleanup_free_ char *name = client_escape(op->names.v[i]);

		op->calls[i] =
			client_begin(op->client, "POST", "/v1/clouds/%s/%s%s", name, op->verb,
				op->resume   ? "?resume=yes"
				: op->disarm ? "?disarm=yes"
					     : "");
	}
}

/* Waits only for what the daemon has taken: then the next daemon knows of it, too. */
static void wait_for_taken(struct operation *op)
{
	for (size_t i = 0; i < op->names.n && !cli_interrupted(); i++) {
		_cleanup_free_ char *name = client_escape(op->names.v[i]), *target = NULL;

		client_finish(op->calls[i]);
		if (!call_ok(op->calls[i]))
			continue;
		call_free(op->calls[i]);
		target = xasprintf("/v1/clouds/%s?wait=%s%s%s", name,
			streq(op->verb, "stop") ? "stopped" : "ready",
			op->timeout ? "&timeout=" : "", op->timeout ? op->timeout : "");
		op->calls[i] = client_begin(op->client, "GET", "%s", target);
		call_ask_again(op->calls[i], true, "%s", target);
	}
}

/* A start that has failed already, without anybody waiting for it: no Java, say. */
static bool has_failed(const struct operation *op, const struct call *call)
{
	const char *state = json_string_value(json_object_get(call->json, "state"));

	return call_ok(call) && !streq(op->verb, "stop") && streq_null(state, "failed");
}

/* The cloud that the answer shows, or NULL. */
static json_t *cloud_of(const struct call *call)
{
	return call_ok(call) ? call->json : json_object_get(call->json, "cloud");
}

/* What people should know besides the state. */
static void print_more(const struct operation *op, const json_t *cloud)
{
	_cleanup_free_ char *name = show_text(cloud, "name");
	_cleanup_free_ char *left = NULL, *line = NULL;

	if (streq(op->verb, "stop") && json_is_true(json_object_get(cloud, "armed")))
		line = xasprintf("%s starts again with the next connection to it (start_on = "
				 "connect); `h2ofleet stop %s --disarm` prevents that",
			name, name);
	if (line)
		show_wrapped(op->cli->out, op->cli->out_width, 2, line);
	if (!streq(op->verb, "touch") || !json_is_integer(json_object_get(cloud, "idle_stop_ms")))
		return;
	left = show_duration(cloud, "idle_stop_ms");
	fprintf(op->cli->out, "%s will be stopped when nobody uses it for %s\n", name, left);
}

static int print_results(struct operation *op)
{
	json_t *clouds = json_array();
	int code = CLI_OK;

	for (size_t i = 0; i < op->names.n; i++) {
		const struct call *call = op->calls[i];
		_cleanup_free_ char *sentence = show_sentence(call->json);

		if (cloud_of(call))
			json_array_append(clouds, cloud_of(call));
		if (!call->done)
			continue;
		if (!call_ok(call))
			code = cli_worse(code, call_complain(op->cli, call));
		else if (has_failed(op, call))
			code = cli_worse(code, cli_fail(op->cli, CLI_FAILED, "%s", sentence));
		else if (!op->cli->json)
			fprintf(op->cli->out, "%s\n", sentence);
		if (call_ok(call) && !op->cli->json)
			print_more(op, call->json);
	}
	if (op->cli->json && (json_array_size(clouds) || !op->cli->failure)) {
		json_t *all = json_pack("{s:O}", "clouds", clouds);

		cli_json(op->cli, all);
		json_decref(all);
	}
	json_decref(clouds);
	return code;
}

static int run(struct operation *op)
{
	int code = CLI_OK;

	if (op->all)
		code = add_all_names(op);
	if (code != CLI_OK)
		return code;
	if (op->wait)
		cli_catch_interrupt();
	begin(op);
	if (op->wait)
		wait_for_taken(op);
	progress_while(op->cli, op->client, op->calls, &op->names, op->wait && !op->cli->json);
	code = print_results(op);
	if (cli_interrupted())
		return cli_fail(op->cli, CLI_INTERRUPTED,
			"interrupted; the %s goes on in the daemon (see h2ofleet status)",
			op->verb);
	return code;
}

static int operate(struct cli *cli, const char *verb, int argc, char **argv)
{
	struct operation op = {.cli = cli, .verb = verb};
	int code = parse(&op, argc, argv);

	if (code == CLI_OK) {
		op.client = client_new(cli->socket);
		code = run(&op);
		client_free(op.client); /* and its calls */
	}
	free(op.calls);
	strv_free(&op.names);
	return code;
}

int cmd_start(struct cli *cli, int argc, char **argv)
{
	return operate(cli, "start", argc, argv);
}

int cmd_stop(struct cli *cli, int argc, char **argv)
{
	return operate(cli, "stop", argc, argv);
}

int cmd_restart(struct cli *cli, int argc, char **argv)
{
	return operate(cli, "restart", argc, argv);
}

int cmd_touch(struct cli *cli, int argc, char **argv)
{
	return operate(cli, "touch", argc, argv);
}
