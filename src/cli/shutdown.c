/* shutdown: all clouds are stopped, then the daemon ends. */
#include "cli/client.h"
#include "cli/follow.h"
#include "cli/show.h"

#include <inttypes.h>

struct watch {
	struct cli *cli;
	struct lines lines;
};

static void on_line(const char *text, size_t len, void *arg)
{
	struct watch *w = arg;
	json_auto_t *event = json_loadb(text, len, 0, NULL);
	_cleanup_free_ char *message = show_text(event, "message");

	if (message && !w->cli->json)
		fprintf(w->cli->err, "%s\n", message);
}

static void on_events(const char *data, size_t n, void *arg)
{
	struct watch *w = arg;

	lines_add(&w->lines, data, n, on_line, w);
}

/* The stream of events ends with the daemon. To ask whether it is there still would not do: where
 * systemd holds the socket the question starts the next one. */
static int until_gone(struct client *c, struct call *events, struct cli *cli)
{
	while (!events->done && !cli_interrupted())
		client_turn(c, 200);
	if (events->done)
		return CLI_OK;
	return cli_fail(cli, CLI_INTERRUPTED,
		"interrupted; the daemon goes on ending its clouds, and then itself");
}

/* From now on; NULL: it cannot be had, and all is said. */
static struct call *watch_events(struct cli *cli, struct client *c, struct watch *w, int *code)
{
	json_auto_t *fleet = client_get(cli, c, code, "/v1/fleet");
	const json_t *at = json_object_get(fleet, "journal");
	_cleanup_free_ char *epoch = show_text(at, "epoch"), *target = NULL;

	if (!fleet)
		return NULL;
	target = xasprintf("/v1/events?follow=yes&since=%s:%" PRId64, epoch ? epoch : "",
		show_int(at, "seq", 0));
	return client_stream(c, target, on_events, w);
}

int cmd_shutdown(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(call_freep) struct call *call = NULL, *events = NULL;
	struct watch w = {.cli = cli};
	bool at_once = false, no_wait = false;
	const struct cli_option options[] = {
		{"at-once", 0, &at_once, NULL}, {"no-wait", 0, &no_wait, NULL}};
	int code = CLI_OK;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n)
		return cli_usage(cli, "shutdown takes no words: it is about all clouds");
	c = client_new(cli->socket);
	events = no_wait ? NULL : watch_events(cli, c, &w, &code);
	if (code != CLI_OK)
		return code;
	if (!no_wait)
		cli_catch_interrupt();
	call = client_begin(c, "POST", "/v1/shutdown?at_once=%s", at_once ? "yes" : "no");
	client_finish(call);
	if (!call_ok(call))
		code = call_complain(cli, call);
	else if (!no_wait)
		code = until_gone(c, events, cli);
	if (code == CLI_OK && cli->json)
		cli_json(cli, call->json);
	else if (code == CLI_OK)
		fprintf(cli->out, no_wait ? "h2ofleetd ends its clouds, and then itself\n"
					  : "h2ofleetd has ended\n");
	lines_clear(&w.lines);
	return code;
}
