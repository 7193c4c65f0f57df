#include "cli/progress.h"
#include "cli/show.h"

#include "base/text.h"

static int finish(struct cli *cli, const struct call *call)
{
	_cleanup_free_ char *sentence = NULL;

	if (cli_interrupted() && !call->done)
		return cli_fail(cli, CLI_INTERRUPTED,
			"interrupted; what the cloud does goes on in the daemon (see h2ofleet "
			"status)");
	if (!call_ok(call))
		return call_complain(cli, call);
	if (cli->json) {
		cli_json(cli, call->json);
		return CLI_OK;
	}
	sentence = show_sentence(call->json);
	fprintf(cli->out, "%s\n", sentence);
	return CLI_OK;
}

int cmd_wait(struct cli *cli, int argc, char **argv)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_free_ char *name = NULL;
	struct call *call; /* the client's */
	const char *what = "ready", *timeout = NULL;
	const struct cli_option options[] = {
		{"for", 0, NULL, &what},
		{"timeout", 0, NULL, &timeout},
	};
	uint64_t ms;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n != 1)
		return cli_usage(cli, words.n ? "one cloud at a time" : "which cloud?");
	if (!cli_name_ok(cli, words.v[0]))
		return CLI_USAGE;
	if (!streq(what, "ready") && !streq(what, "stopped"))
		return cli_usage(cli, "--for ready or --for stopped, not '%s'", what);
	if (timeout && text_parse_duration(timeout, &ms) < 0)
		return cli_usage(cli, "'%s' is no time; write 500ms, 90s or 5m", timeout);
	c = client_new(cli->socket);
	name = client_escape(words.v[0]);
	cli_catch_interrupt();
	call = client_begin(c, "GET", "/v1/clouds/%s?wait=%s%s%s", name, what,
		timeout ? "&timeout=" : "", timeout ? timeout : "");
	call_ask_again(call, false, "/v1/clouds/%s?wait=%s%s%s", name, what,
		timeout ? "&timeout=" : "", timeout ? timeout : "");
	progress_while(cli, c, &call, &words, cli->live && !cli->json);
	return finish(cli, call);
}
