/* reexec: the daemon becomes a new version of itself; its clouds do not notice. */
#include <inttypes.h>

#include "base/clock.h"
#include "cli/client.h"
#include "cli/show.h"

#define DEADLINE_MS 30000
#define ASK_AGAIN   20000 /* microseconds */

/* How it stands; NULL while nobody answers, as in the moment between two images. */
static json_t *ask(struct client *c)
{
	_cleanup_(call_freep) struct call *call = client_begin(c, "GET", "/v1/version");

	client_finish(call);
	return call_ok(call) ? json_incref(call->json) : NULL;
}

/* What the daemon says when it is over, one way or the other; NULL: it is not in time. Owned by the
 * caller. */
static json_t *until_over(struct client *c, int64_t reexecs)
{
	uint64_t end = clock_monotonic_ms() + DEADLINE_MS;

	while (clock_monotonic_ms() < end && !cli_interrupted()) {
		json_t *j = ask(c);

		if (j && (show_int(j, "reexecs", 0) > reexecs ||
				 !json_is_true(json_object_get(j, "reexec_under_way"))))
			return j;
		json_decref(j);
		usleep(ASK_AGAIN);
	}
	return NULL;
}

static int tell(struct cli *cli, const json_t *j, int64_t reexecs)
{
	_cleanup_free_ char *error = show_text(j, "reexec_error");
	_cleanup_free_ char *version = show_text(j, "version");

	if (error)
		return cli_fail(cli, CLI_ERROR, "%s; the daemon goes on as it was", error);
	if (show_int(j, "reexecs", 0) <= reexecs)
		return cli_fail(cli, CLI_ERROR, "the daemon has not replaced itself; see its log");
	if (cli->json)
		cli_json(cli, j);
	else
		fprintf(cli->out, "h2ofleetd is version %s now (pid %" PRId64 ", as before)\n",
			version ? version : "?", show_int(j, "pid", 0));
	return CLI_OK;
}

int cmd_reexec(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(call_freep) struct call *call = NULL;
	json_auto_t *over = NULL;
	int64_t reexecs;

	if (cli_parse(cli, argc, argv, NULL, 0, &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n)
		return cli_usage(cli, "reexec takes no words");
	c = client_new(cli->socket);
	call = client_begin(c, "POST", "/v1/reexec");
	client_finish(call);
	if (!call_ok(call))
		return call_complain(cli, call);
	reexecs = show_int(call->json, "reexecs", 0);
	over = until_over(c, reexecs);
	if (!over)
		return cli_fail(
			cli, CLI_ERROR, "no answer from the new daemon within 30 s; see its log");
	return tell(cli, over, reexecs);
}
