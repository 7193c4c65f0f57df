#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "cli/client.h"
#include "cli/show.h"

#include <errno.h>
#include <inttypes.h>

static void print_json(struct cli *cli, const json_t *daemon)
{
	json_t *j = json_pack(
		"{s:{s:s}, s:O?}", "client", "version", PACKAGE_VERSION, "daemon", daemon);

	cli_json(cli, j);
	json_decref(j);
}

static void print(struct cli *cli, const struct client *c, const struct call *call)
{
	_cleanup_free_ char *version = show_text(call->json, "version");
	_cleanup_free_ char *uptime = show_duration(call->json, "uptime_ms");

	fprintf(cli->out, "h2ofleet %s\n", PACKAGE_VERSION);
	if (call_ok(call))
		fprintf(cli->out, "h2ofleetd %s, pid %" PRId64 ", up %s, at %s\n",
			version ? version : "?", show_int(call->json, "pid", 0), uptime,
			client_socket(c));
	else if (call->err.code == -ENOTCONN)
		fprintf(cli->out, "h2ofleetd is not running\n");
	else
		call_complain(cli, call);
}

/* Well also without a daemon: the client's version was asked too. */
int cmd_version(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(call_freep) struct call *call = NULL;

	if (cli_parse(cli, argc, argv, NULL, 0, &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n)
		return cli_usage(cli, "version takes no words");
	c = client_new(cli->socket);
	call = client_begin(c, "GET", "/v1/version");
	client_finish(call);
	if (cli->json)
		print_json(cli, call_ok(call) ? call->json : NULL);
	else
		print(cli, c, call);
	return CLI_OK;
}
