/* Why clouds were lost. */
#include "cli/client.h"
#include "cli/show.h"
#include "cli/show_incident.h"

#include <inttypes.h>

#include "base/strbuf.h"
#include "base/text.h"

/* Might it be (the beginning of) an id? */
static bool looks_like_id(const char *word)
{
	return *word >= '0' && *word <= '9' && strspn(word, "0123456789-") == strlen(word);
}

/* The newest first, of `cloud` or (NULL) of all; a new reference, or NULL with *code set. */
static json_t *fetch_list(
	struct cli *cli, struct client *c, const char *cloud, int64_t limit, int *code)
{
	_cleanup_free_ char *escaped = cloud ? client_escape(cloud) : NULL;
	json_t *answer, *clouds;

	answer = client_get(cli, c, code, "/v1/incidents?limit=%" PRId64 "%s%s", limit,
		escaped ? "&cloud=" : "", escaped ? escaped : "");
	if (!answer || !cloud || json_array_size(json_object_get(answer, "incidents")))
		return answer;
	/* None of it: because there is no such cloud? */
	clouds = client_get(cli, c, code, "/v1/clouds/%s", escaped);
	if (!clouds) {
		json_decref(answer);
		return NULL;
	}
	json_decref(clouds);
	return answer;
}

static const char *id_of(const json_t *list, size_t i)
{
	return json_string_value(json_object_get(json_array_get(list, i), "id"));
}

static int ambiguous(struct cli *cli, const json_t *list, const char *word)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	size_t n = 0;

	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *id = id_of(list, i);

		if (id && has_prefix(id, word) && n++ < 4)
			strbuf_printf(&b, "%s%s", b.len ? ", " : "", id);
	}
	return cli_fail(cli, CLI_ERROR, "%zu incidents begin with '%s': %s%s", n, word,
		strbuf_str(&b), n > 4 ? ", ..." : "");
}

/* The one id that `word` means; NULL with everything said and *code set. */
static const char *resolve(
	struct cli *cli, const json_t *list, const char *word, const char *cloud, int *code)
{
	const char *found = NULL, *begins = NULL;
	size_t n = 0;

	if (streq(word, "last"))
		found = id_of(list, 0);
	for (size_t i = 0; !found && i < json_array_size(list); i++) {
		const char *id = id_of(list, i);

		if (!id || !has_prefix(id, word))
			continue;
		n++;
		begins = id;
	}
	if (found || n == 1)
		return found ? found : begins;
	*code = n ? ambiguous(cli, list, word)
		: streq(word, "last")
			? cli_fail(cli, CLI_ABSENT, "there are no incidents%s%s",
				  cloud ? " of " : "", cloud ? cloud : "")
			: cli_fail(cli, CLI_ABSENT,
				  "no incident begins with '%s'; `h2ofleet incidents` lists them",
				  word);
	return NULL;
}

static int show_one(struct cli *cli, struct client *c, const char *id)
{
	int code;
	json_t *j = client_get(cli, c, &code, "/v1/incidents/%s", id);

	if (!j)
		return code;
	if (cli->json)
		cli_json(cli, j);
	else
		show_incident(cli->out, j, cli->out_width, cli->color);
	json_decref(j);
	return CLI_OK;
}

static int delete_one(struct cli *cli, struct client *c, const char *id)
{
	_cleanup_(call_freep) struct call *call = client_begin(c, "DELETE", "/v1/incidents/%s", id);

	client_finish(call);
	if (!call_ok(call))
		return call_complain(cli, call);
	if (cli->json)
		cli_json(cli, call->json);
	else
		fprintf(cli->out, "incident %s is removed\n", id);
	return CLI_OK;
}

static int one(struct cli *cli, struct client *c, const char *word, const char *cloud, bool removes)
{
	int code;
	json_t *answer = fetch_list(cli, c, cloud, 100, &code);
	const char *id;

	if (!answer)
		return code;
	id = resolve(cli, json_object_get(answer, "incidents"), word, cloud, &code);
	if (id)
		code = removes ? delete_one(cli, c, id) : show_one(cli, c, id);
	json_decref(answer);
	return code;
}

static int list(struct cli *cli, struct client *c, const char *cloud, int64_t limit)
{
	int code;
	json_t *answer = fetch_list(cli, c, cloud, limit, &code);
	const json_t *list = json_object_get(answer, "incidents");

	if (!answer)
		return code;
	if (cli->json)
		cli_json(cli, answer);
	else if (json_array_size(list))
		show_incidents(cli->out, list, cli->out_width);
	else
		fprintf(cli->out, "no incidents%s%s\n", cloud ? " of " : "", cloud ? cloud : "");
	json_decref(answer);
	return CLI_OK;
}

/* Clouds may be called 2026, too. */
static bool is_cloud(struct client *c, const char *name)
{
	_cleanup_(call_freep) struct call *call = client_begin(c, "GET", "/v1/clouds/%s", name);

	client_finish(call);
	return call_ok(call);
}

int cmd_incidents(struct cli *cli, int argc, char **argv)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	const char *lines = NULL, *cloud = NULL, *id = NULL;
	bool removes = false;
	const struct cli_option options[] = {
		{"lines", 'n', NULL, &lines},
		{"delete", 0, &removes, NULL},
	};
	int64_t limit = 100;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n > 2)
		return cli_usage(cli, "one cloud, one incident, or both, in that order");
	if (words.n == 2 ||
		(words.n == 1 && (streq(words.v[0], "last") || looks_like_id(words.v[0]))))
		id = words.v[words.n - 1];
	if (words.n == 2 || (words.n == 1 && !id))
		cloud = words.v[0];
	if (cloud && !cli_name_ok(cli, cloud))
		return CLI_USAGE;
	if (id && !streq(id, "last") && !looks_like_id(id))
		return cli_usage(cli, "'%s' is no id of an incident", id);
	if (removes && !id)
		return cli_usage(cli, "--delete needs an ID");
	if (lines && (text_parse_int(lines, &limit) < 0 || limit < 1))
		return cli_usage(cli, "'%s' is no number of incidents", lines);
	c = client_new(cli->socket);
	if (id && !cloud && !removes && looks_like_id(id) && is_cloud(c, id))
		cloud = TAKE_PTR(id);
	return id ? one(cli, c, id, cloud, removes) : list(cli, c, cloud, MIN(limit, (int64_t)100));
}
