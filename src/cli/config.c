/* config: what is in force, as the daemon has it, and from where. */
#include "cli/client.h"
#include "cli/show.h"

#include <inttypes.h>

struct config_view {
	FILE *f;
	const char *cloud; /* only this one; NULL: all */
	bool all;          /* also what nobody has set */
};

/* "FILE:LINE", or that nobody has set it. */
static void print_place(const struct config_view *v, const json_t *of)
{
	_cleanup_free_ char *file = show_text(of, "file");

	if (file)
		fprintf(v->f, "; %s:%" PRId64 "\n", file, show_int(of, "line", 0));
	else
		fprintf(v->f, "; %s\n",
			json_is_true(json_object_get(of, "is_default")) ? "default"
									: "set at run time");
}

static void print_key(const struct config_view *v, const json_t *k)
{
	_cleanup_free_ char *name = show_text(k, "key"), *value = show_text(k, "value");
	_cleanup_free_ char *pending = show_text(k, "pending");

	if (!name || (!v->all && json_is_true(json_object_get(k, "is_default")) && !pending &&
			     json_is_null(json_object_get(k, "file"))))
		return;
	print_place(v, k);
	if (pending)
		fprintf(v->f, "; after a restart of the cloud: %s\n", pending);
	fprintf(v->f, "%s =%s%s\n", name, value ? " " : "", value ? value : "");
}

static void print_keys(const struct config_view *v, const json_t *keys)
{
	const json_t *k;
	size_t i;

	json_array_foreach (keys, i, k)
		print_key(v, k);
}

/* False: there is no cloud of the name that was asked for. */
static bool print_config(const struct config_view *v, const json_t *config)
{
	const json_t *cloud;
	bool found = !v->cloud;
	size_t i;

	if (!v->cloud) {
		fputs("[fleet]\n", v->f);
		print_keys(v, json_object_get(config, "fleet"));
	}
	json_array_foreach (json_object_get(config, "clouds"), i, cloud) {
		_cleanup_free_ char *name = show_text(cloud, "name");

		if (!name || (v->cloud && !streq(name, v->cloud)))
			continue;
		found = true;
		fprintf(v->f, "%s%s[cloud %s]\n", v->cloud ? "" : "\n",
			streq_null(json_string_value(json_object_get(cloud, "origin")), "created")
				? "; made at run time; `h2ofleet set` changes it\n"
				: "",
			name);
		print_keys(v, json_object_get(cloud, "keys"));
	}
	return found;
}

/* The same as for people: of one cloud, nothing of the others nor of the fleet. A new reference. */
static json_t *only_cloud(const json_t *config, const char *name)
{
	json_t *all = json_copy((json_t *)config), *some = json_array(), *cloud;
	size_t i;

	json_array_foreach (json_object_get(config, "clouds"), i, cloud)
		if (streq_null(json_string_value(json_object_get(cloud, "name")), name))
			json_array_append(some, cloud);
	json_object_set_new(all, "clouds", some);
	json_object_del(all, "fleet");
	return all;
}

static void print_json(struct cli *cli, const json_t *config, const char *cloud)
{
	json_auto_t *one = cloud ? only_cloud(config, cloud) : NULL;

	cli_json(cli, one ? one : config);
}

int cmd_config(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_(client_freep) struct client *c = NULL;
	json_auto_t *config = NULL;
	struct config_view v = {.f = cli->out};
	const struct cli_option options[] = {{"all", 'a', &v.all, NULL}};
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n > 1)
		return cli_usage(cli, "config takes one cloud at most");
	v.cloud = words.n ? words.v[0] : NULL;
	if (v.cloud && !cli_name_ok(cli, v.cloud))
		return CLI_USAGE;
	c = client_new(cli->socket);
	if (v.cloud) { /* who says that there is none knows what was meant */
		_cleanup_free_ char *name = client_escape(v.cloud);
		json_auto_t *cloud = client_get(cli, c, &code, "/v1/clouds/%s", name);

		if (!cloud)
			return code;
	}
	config = client_get(cli, c, &code, "/v1/config");
	if (!config)
		return code;
	if (cli->json)
		print_json(cli, config, v.cloud);
	else if (!print_config(&v, config))
		return cli_fail(cli, CLI_ABSENT, "no cloud '%s'", v.cloud);
	return CLI_OK;
}
