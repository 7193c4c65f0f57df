#include "cli/client.h"
#include "cli/h2o.h"
#include "cli/show.h"

#include <inttypes.h>

#include "base/strbuf.h"

/* Where a cloud is, each part harmless text. */
struct place {
	char *name, *url, *ip;
	char *h2o_name; /* of the present generation; NULL: none runs */
	int64_t port;
	const char *path; /* of the URL, without the slash; "" for none */
};

static void place_free(struct place *p)
{
	free(p->name);
	free(p->url);
	free(p->ip);
	free(p->h2o_name);
}

/* A string literal, as Python, R and JSON read it. Owned by the caller. */
static char *quoted(const char *s)
{
	json_t *j = json_string(s);
	char *q = json_dumps(j, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);

	json_decref(j);
	return q;
}

/* One word for a POSIX shell, whatever is in it. Owned by the caller. */
static char *shell_quoted(const char *s)
{
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, "'");
	for (; *s; s++)
		strbuf_printf(&b, *s == '\'' ? "'\\%c'" : "%c", *s);
	strbuf_puts(&b, "'");
	return strbuf_take(&b);
}

static void print_python(const struct place *p, FILE *f)
{
	_cleanup_free_ char *url = quoted(p->url), *ip = quoted(p->ip), *path = quoted(p->path);

	fprintf(f, "import h2o\nh2o.connect(url=%s)\n", url);
	fprintf(f, "# or: h2o.connect(config={\"ip\": %s, \"port\": %" PRId64, ip, p->port);
	if (*p->path)
		fprintf(f, ", \"context_path\": %s", path);
	fprintf(f, "})\n");
}

static void print_r(const struct place *p, FILE *f)
{
	_cleanup_free_ char *ip = quoted(p->ip), *path = quoted(p->path);

	fprintf(f, "library(h2o)\nh2o.connect(ip = %s, port = %" PRId64, ip, p->port);
	if (*p->path)
		fprintf(f, ", context_path = %s", path);
	fprintf(f, ")\n");
}

static void print_url(const struct place *p, FILE *f)
{
	fprintf(f, "%s\n", p->url);
}

static void print_env(const struct place *p, FILE *f)
{
	_cleanup_free_ char *url = shell_quoted(p->url), *ip = shell_quoted(p->ip);

	_cleanup_free_ char *path = shell_quoted(p->path);

	fprintf(f, "export H2O_URL=%s\nexport H2O_IP=%s\nexport H2O_PORT=%" PRId64 "\n", url, ip,
		p->port);
	if (*p->path)
		fprintf(f, "export H2O_CONTEXT_PATH=%s\n", path);
}

static void print_h2oconfig(const struct place *p, FILE *f)
{
	fprintf(f,
		"# As .h2oconfig in a project's folder, or in the home directory: h2o.init() of\n"
		"# Python, which reads it, then connects to cloud %s of h2ofleet;\n"
		"# h2o.connect() does not read it.\n"
		"[init]\nurl = %s\ncheck_version = True\n",
		p->name, p->url);
}

/* Spark reads such lines in spark-defaults.conf, --properties-file and, each behind a --conf, on
 * its command line. */
static void print_sparkling(const struct place *p, FILE *f)
{
	fprintf(f,
		"# Spark properties: Sparkling Water with cloud %s of h2ofleet as its external\n"
		"# backend. The name is that of this generation: ask again after a restart.\n"
		"# The cloud needs, in its section of h2ofleet.conf,\n"
		"#   extra_classpath = .../jars/sparkling-water-assembly-extensions_...-all.jar\n"
		"# of a Sparkling Water made for the very H2O version that it runs, and Spark, "
		"which\n"
		"# talks to each of the nodes, on this machine or bind_to_localhost = no.\n"
		"spark.ext.h2o.backend.cluster.mode=external\n"
		"spark.ext.h2o.external.start.mode=manual\n"
		"spark.ext.h2o.cloud.name=%s\n"
		"spark.ext.h2o.cloud.representative=%s:%" PRId64 "\n",
		p->name, p->h2o_name, p->ip, p->port);
	if (*p->path)
		fprintf(f, "spark.ext.h2o.context.path=%s\n", p->path);
}

static void print_all(const struct place *p, FILE *f)
{
	fprintf(f, "# URL\n");
	print_url(p, f);
	fprintf(f, "\n# Python\n");
	print_python(p, f);
	fprintf(f, "\n# R\n");
	print_r(p, f);
}

static const struct {
	const char *option;
	void (*print)(const struct place *p, FILE *f);
	bool needs_generation; /* says what is known of a cloud that runs only */
} forms[] = {
	{"python", print_python},
	{"r", print_r},
	{"url", print_url},
	{"env", print_env},
	{"h2oconfig", print_h2oconfig},
	{"sparkling", print_sparkling, true},
};

/* Its endpoint, or where a connection starts it. */
static struct place place_of(const json_t *cloud)
{
	const json_t *gate = json_object_get(cloud, "gate");
	bool usable = json_is_string(json_object_get(cloud, "endpoint"));

	return (struct place){
		.name = show_text(cloud, "name"),
		.h2o_name = usable ? show_text(cloud, "h2o_name") : NULL,
		.url = usable ? show_text(cloud, "endpoint") : show_text(gate, "url"),
		.ip = usable ? show_text(cloud, "endpoint_address") : show_text(gate, "address"),
		.port = usable ? show_int(cloud, "endpoint_port", 0) : show_int(gate, "port", 0),
	};
}

static int print_place(struct cli *cli, const json_t *cloud, const bool *asked)
{
	_cleanup_(place_free) struct place p = place_of(cloud);
	const char *host = p.url ? strstr(p.url, "://") : NULL, *path;

	if (!p.name || !host || !p.ip)
		return cli_fail(cli, CLI_ERROR, "the daemon's answer names no endpoint");
	path = strchr(host + 3, '/');
	p.path = path ? path + 1 : "";
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (asked[i] && forms[i].needs_generation && !p.h2o_name)
			return cli_fail(cli, CLI_STOPPED,
				"cloud '%s' does not run, and Sparkling Water must know the name "
				"of its "
				"generation; start it first (h2ofleet start %s --wait)",
				p.name, p.name);
		if (asked[i]) {
			forms[i].print(&p, cli->out);
			return CLI_OK;
		}
	}
	print_all(&p, cli->out);
	return CLI_OK;
}

int connect_not_usable(struct cli *cli, const json_t *cloud)
{
	_cleanup_free_ char *sentence = show_sentence(cloud);
	const char *state = json_string_value(json_object_get(cloud, "state"));
	int code = cli_state_exit(state ? state : "");

	return cli_fail(cli, code == CLI_OK ? CLI_ERROR : code,
		"%s; there is nothing to connect to%s", sentence,
		code == CLI_BUSY ? " yet (h2ofleet wait)" : "");
}

static int print_cloud(struct cli *cli, const json_t *cloud, const bool *asked)
{
	if (!json_is_string(json_object_get(cloud, "endpoint")) && !show_is_armed(cloud))
		return connect_not_usable(cli, cloud);
	if (!cli->json)
		return print_place(cli, cloud, asked);
	cli_json(cli, cloud);
	return CLI_OK;
}

int cmd_connect(struct cli *cli, int argc, char **argv)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_free_ char *name = NULL;
	bool asked[ARRAY_SIZE(forms)] = {0};
	struct cli_option options[ARRAY_SIZE(forms)] = {0};
	size_t n_asked = 0;
	json_t *cloud;
	int code;

	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		options[i] = (struct cli_option){forms[i].option, 0, &asked[i], NULL};
	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		n_asked += asked[i];
	if (words.n != 1)
		return cli_usage(cli, words.n ? "one cloud at a time" : "which cloud?");
	if (n_asked > 1)
		return cli_usage(cli, "one form at a time");
	if (!cli_name_ok(cli, words.v[0]))
		return CLI_USAGE;
	c = client_new(cli->socket);
	name = client_escape(words.v[0]);
	cloud = client_get(cli, c, &code, "/v1/clouds/%s", name);
	if (cloud)
		code = print_cloud(cli, cloud, asked);
	json_decref(cloud);
	return code;
}
