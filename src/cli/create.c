/* create, delete and set: clouds made at run time. The daemon judges; here words become
 * JSON, and what it says is shown. */
#include "cli/client.h"
#include "cli/progress.h"
#include "cli/show.h"

#include "base/text.h"

/* Times that a change is tried again because another one came in between. */
#define MAX_CLASHES 5

/* All that is wrong, a line each. */
static int complain(struct cli *cli, const struct call *call)
{
	const json_t *errors = json_object_get(call->json, "errors"), *e;
	json_t *j;
	size_t i;

	if (!json_array_size(errors) || cli_interrupted())
		return call_complain(cli, call);
	if (cli->json && !cli->json_said) {
		j = json_pack("{s:s, s:O}", "error", err_msg(&call->err), "errors", errors);
		cli_json(cli, j);
		json_decref(j);
	}
	json_array_foreach (errors, i, e)
		cli_fail(cli, CLI_ERROR, "%s", json_string_value(e));
	return CLI_ERROR;
}

/* "KEY=VALUE"; with an empty value NULL, the default, when that may be. False after saying what is
 * wrong. */
static bool add_key(struct cli *cli, json_t *keys, const char *word, bool may_unset)
{
	_cleanup_free_ char *key = xstrndup(word, strcspn(word, "="));
	const char *value = strchr(word, '=');
	json_t *text;

	if (!value || !*key) {
		cli_usage(cli, "'%s' is no KEY=VALUE, such as nodes=2 (see h2ofleet keys)", word);
		return false;
	}
	if (json_object_get(keys, key)) {
		cli_usage(cli, "'%s' is there twice", key);
		return false;
	}
	text = value[1] || !may_unset ? json_string(value + 1) : json_null();
	if (!text || json_object_set_new(keys, key, text) < 0) {
		cli_usage(cli, "'%s' is not UTF-8", word);
		return false;
	}
	return true;
}

/* A new reference; NULL after saying what is wrong. */
static json_t *take_keys(struct cli *cli, const struct strv *words, size_t first, bool may_unset)
{
	json_t *keys = json_object();

	for (size_t i = first; i < words->n; i++) {
		if (add_key(cli, keys, words->v[i], may_unset))
			continue;
		json_decref(keys);
		return NULL;
	}
	return keys;
}

static bool timeout_ok(struct cli *cli, const char *timeout)
{
	uint64_t ms;

	if (!timeout || text_parse_duration(timeout, &ms) == 0)
		return true;
	cli_usage(cli, "'%s' is no time; write 500ms, 90s or 5m", timeout);
	return false;
}

static void print_cloud(struct cli *cli, const json_t *cloud)
{
	_cleanup_free_ char *sentence = show_sentence(cloud);

	if (cli->json)
		cli_json(cli, cloud);
	else
		fprintf(cli->out, "%s\n", sentence);
}

/* ---- create ---- */

struct creation {
	struct strv words; /* NAME, then keys; and those of options behind */
	struct strv set;
	const char *nodes, *memory, *timeout;
	bool start, wait;
};

static int parse_create(struct cli *cli, struct creation *cr, int argc, char **argv)
{
	const struct cli_option options[] = {
		{"nodes", 'n', NULL, &cr->nodes, NULL},
		{"memory", 'm', NULL, &cr->memory, NULL},
		{"set", 0, NULL, NULL, &cr->set},
		{"start", 0, &cr->start, NULL, NULL},
		{"wait", 0, &cr->wait, NULL, NULL},
		{"timeout", 0, NULL, &cr->timeout, NULL},
	};

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &cr->words) != CLI_OK)
		return CLI_USAGE;
	if (!cr->words.n || strchr(cr->words.v[0], '='))
		return cli_usage(cli, "how is the cloud to be called?");
	if (!cli_name_ok(cli, cr->words.v[0]) || !timeout_ok(cli, cr->timeout))
		return CLI_USAGE;
	if (cr->timeout && !cr->wait)
		return cli_usage(cli, "--timeout means nothing without --wait");
	if (cr->nodes)
		strv_printf(&cr->words, "nodes=%s", cr->nodes);
	if (cr->memory)
		strv_printf(&cr->words, "max_mem_size=%s", cr->memory);
	for (size_t i = 0; i < cr->set.n; i++)
		strv_add(&cr->words, cr->set.v[i]);
	return CLI_OK;
}

/* It is there, and starts; this is about how far it comes. */
static int wait_for_it(struct cli *cli, struct client *c, const struct creation *cr)
{
	_cleanup_(strv_free) struct strv names = STRV_NULL;
	_cleanup_free_ char *name = client_escape(cr->words.v[0]), *target = NULL;
	struct call *call; /* the client's */

	strv_add(&names, cr->words.v[0]);
	target = xasprintf("/v1/clouds/%s?wait=ready%s%s", name, cr->timeout ? "&timeout=" : "",
		cr->timeout ? cr->timeout : "");
	cli_catch_interrupt();
	call = client_begin(c, "GET", "%s", target);
	call_ask_again(call, true, "%s", target);
	progress_while(cli, c, &call, &names, !cli->json);
	if (cli_interrupted() && !call->done)
		return cli_fail(cli, CLI_INTERRUPTED,
			"interrupted; %s is made, and its start goes on in the daemon (see "
			"h2ofleet status)",
			names.v[0]);
	if (!call_ok(call))
		return call_complain(cli, call);
	print_cloud(cli, call->json);
	return CLI_OK;
}

static int create(struct cli *cli, const struct creation *cr)
{
	_cleanup_(client_freep) struct client *c = client_new(cli->socket);
	json_t *keys = take_keys(cli, &cr->words, 1, false);
	struct call *call; /* the client's */

	if (!keys)
		return CLI_USAGE;
	call = client_send(c, "POST", "/v1/clouds",
		json_pack("{s:s, s:o, s:b}", "name", cr->words.v[0], "keys", keys, "start",
			cr->start || cr->wait),
		NULL);
	client_finish(call);
	if (!call_ok(call))
		return complain(cli, call);
	if (cr->wait)
		return wait_for_it(cli, c, cr);
	if (cr->start || cli->json)
		print_cloud(cli, call->json);
	else
		fprintf(cli->out, "%s is made; to start it: h2ofleet start %s\n", cr->words.v[0],
			cr->words.v[0]);
	return CLI_OK;
}

int cmd_create(struct cli *cli, int argc, char **argv)
{
	struct creation cr = {0};
	int code = parse_create(cli, &cr, argc, argv);

	if (code == CLI_OK)
		code = create(cli, &cr);
	strv_free(&cr.words);
	strv_free(&cr.set);
	return code;
}

/* ---- delete ---- */

static void print_deleted(struct cli *cli, const struct call *call, const char *name)
{
	const char *state = json_string_value(json_object_get(call->json, "state"));
	bool gone = json_is_true(json_object_get(call->json, "deleted")) ||
		    streq_null(state, "stopped") || streq_null(state, "failed");

	fprintf(cli->out, gone ? "%s is deleted\n" : "%s is being stopped, and then deleted\n",
		name);
}

static int finish_deletes(struct cli *cli, struct call *const *calls, const struct strv *names)
{
	json_t *all = json_array();
	int code = CLI_OK;

	for (size_t i = 0; i < names->n; i++) {
		if (!calls[i]->done)
			continue;
		if (!call_ok(calls[i])) {
			code = cli_worse(code, call_complain(cli, calls[i]));
			continue;
		}
		json_array_append(all, calls[i]->json);
		if (!cli->json)
			print_deleted(cli, calls[i], names->v[i]);
	}
	if (cli->json && (json_array_size(all) || !cli->failure)) {
		json_t *j = json_pack("{s:O}", "clouds", all);

		cli_json(cli, j);
		json_decref(j);
	}
	json_decref(all);
	if (cli_interrupted())
		code = cli_fail(cli, CLI_INTERRUPTED,
			"interrupted; what was taken is done by the daemon (see h2ofleet status)");
	return code;
}

static int delete (struct cli *cli, const struct strv *names, bool wait, const char *timeout)
{
	_cleanup_(client_freep) struct client *c = client_new(cli->socket);
	_cleanup_free_ struct call **calls = xcalloc(names->n, sizeof(struct call *));

	if (wait)
		cli_catch_interrupt();
	for (size_t i = 0; i < names->n; i++) {
		_cleanup_free_ char *name = client_escape(names->v[i]);

		calls[i] = client_begin(c, "DELETE", "/v1/clouds/%s%s%s%s", name,
			wait ? "?wait=deleted" : "", timeout ? "&timeout=" : "",
			timeout ? timeout : "");
	}
	progress_while(cli, c, calls, names, wait && !cli->json);
	return finish_deletes(cli, calls, names);
}

int cmd_delete(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv names = STRV_NULL;
	const char *timeout = NULL;
	bool wait = false;
	const struct cli_option options[] = {
		{"wait", 0, &wait, NULL, NULL},
		{"timeout", 0, NULL, &timeout, NULL},
	};

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &names) != CLI_OK)
		return CLI_USAGE;
	if (!names.n)
		return cli_usage(cli, "which cloud?");
	for (size_t i = 0; i < names.n; i++)
		if (!cli_name_ok(cli, names.v[i]))
			return CLI_USAGE;
	if (timeout && !wait)
		return cli_usage(cli, "--timeout means nothing without --wait");
	if (!timeout_ok(cli, timeout))
		return CLI_USAGE;
	return delete (cli, &names, wait, timeout);
}

/* ---- set ---- */

static void print_set(struct cli *cli, const char *name, const json_t *config)
{
	const json_t *pending = json_object_get(config, "pending_keys"), *key;
	size_t i;

	if (cli->json) {
		cli_json(cli, config);
		return;
	}
	if (!json_array_size(pending)) {
		fprintf(cli->out, "%s is changed\n", name);
		return;
	}
	fprintf(cli->out, "%s is changed; these keys take effect with its next start:", name);
	json_array_foreach (pending, i, key) {
		_cleanup_free_ char *shown =
			text_visible(json_string_value(key), json_string_length(key));

		fprintf(cli->out, "%s %s", i ? "," : "", shown);
	}
	fprintf(cli->out, "\nTo do that now: h2ofleet restart %s\n", name);
}

/* Only the keys that are named are changed, so another change in between is none that is lost. */
static int set(struct cli *cli, const char *cloud, json_t *keys)
{
	_cleanup_(client_freep) struct client *c = client_new(cli->socket);
	_cleanup_free_ char *name = client_escape(cloud);
	_cleanup_free_ char *target = xasprintf("/v1/clouds/%s/config", name);
	struct call *call = NULL; /* the client's */

	for (unsigned i = 0; i < MAX_CLASHES; i++) {
		int code;
		json_auto_t *config = client_get(cli, c, &code, "%s", target);

		if (!config)
			return code;
		call = client_send(c, "PATCH", target, json_pack("{s:O}", "keys", keys),
			json_string_value(json_object_get(config, "etag")));
		client_finish(call);
		if (call->status != 412)
			break;
	}
	if (!call_ok(call))
		return complain(cli, call);
	print_set(cli, cloud, call->json);
	return CLI_OK;
}

int cmd_set(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	json_auto_t *keys = NULL;

	if (cli_parse(cli, argc, argv, NULL, 0, &words) != CLI_OK)
		return CLI_USAGE;
	if (!words.n || strchr(words.v[0], '='))
		return cli_usage(cli, "which cloud?");
	if (!cli_name_ok(cli, words.v[0]))
		return CLI_USAGE;
	if (words.n < 2)
		return cli_usage(cli, "which keys? (see h2ofleet keys)");
	keys = take_keys(cli, &words, 1, true);
	return keys ? set(cli, words.v[0], keys) : CLI_USAGE;
}
