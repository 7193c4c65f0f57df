/* Makes a manual page of its source: lines "@COMMANDS@", "@OPTIONS@" (the client's), "@KEYS
 * fleet@",
 * "@KEYS cloud@", "@DAEMON OPTIONS@" and "@ROUTES@" give way to what the tables of the programs
 * say, so there is no second list. Run when h2ofleet is built: manpage SOURCE OPENAPI.JSON */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <jansson.h>
#include <stdio.h>

#include "base/err.h"
#include "base/text.h"
#include "cli/options.h"
#include "conf/conf.h"
#include "conf/keys.h"
#include "daemon/daemon.h"

/* `s`, with what roff would take for its own made harmless. A line may not begin with . or '. */
static void put_text(const char *s)
{
	for (const char *p = s; *p; p++) {
		bool first = p == s || p[-1] == '\n';

		if (first && (*p == '.' || *p == '\''))
			fputs("\\&", stdout);
		if (*p == '\\')
			fputs("\\e", stdout);
		else if (*p == '-')
			fputs("\\-", stdout);
		else if (*p == '\'')
			fputs("\\(aq", stdout);
		else if (*p == '`')
			fputs("\\(ga", stdout);
		else if (*p == '~')
			fputs("\\(ti", stdout);
		else if (*p == '^')
			fputs("\\(ha", stdout);
		else
			putchar(*p);
	}
}

static void put_bold(const char *s)
{
	fputs("\\fB", stdout);
	put_text(s);
	fputs("\\fR", stdout);
}

/* ---- h2ofleet(1) ---- */

static void put_option(const struct option_doc *o)
{
	printf(".TP\n");
	if (o->letter)
		printf("\\fB\\-%c\\fR, ", o->letter);
	fputs("\\fB\\-\\-", stdout);
	put_text(o->name);
	fputs("\\fR", stdout);
	if (o->value) {
		printf("%s\\fI", o->may_omit_value ? "[=" : " ");
		put_text(o->value);
		printf("\\fR%s", o->may_omit_value ? "]" : "");
	}
	putchar('\n');
	put_text(o->help);
	putchar('\n');
}

static void put_options(const char *usage)
{
	struct option_docs docs = option_docs_read(usage);

	for (size_t i = 0; i < docs.n; i++)
		put_option(&docs.v[i]);
	option_docs_free(&docs);
}

static void put_example(const char *example)
{
	size_t len = strcspn(example, "\n");
	_cleanup_free_ char *line = xstrndup(example, len);

	printf(".IP\n.EX\n");
	put_text(line);
	printf("\n.EE\n");
}

/* Paragraphs that are neither options nor the example. */
static void put_prose(const char *usage)
{
	bool begun = false, options = false;

	while (*usage) {
		size_t len = strcspn(usage, "\n");
		_cleanup_free_ char *line = xstrndup(usage, len);

		if (streq(line, "options:") || has_prefix(line, "  ")) {
			options = true;
		} else if (!*line) {
			begun = options = false;
		} else if (!has_prefix(line, "example: ") && !options) {
			if (!begun)
				printf(".IP\n");
			begun = true;
			put_text(line);
			putchar('\n');
		}
		usage += len + (usage[len] == '\n');
	}
}

static void put_command(const struct cli_command *c)
{
	const char *example = strstr(c->usage, "example: ");

	printf(".TP\n");
	put_bold(c->name);
	if (*c->args) {
		fputs(" \\fR", stdout);
		put_text(c->args);
	}
	putchar('\n');
	put_text(c->help);
	printf(".\n");
	put_prose(c->usage);
	if (strstr(c->usage, "\n  -") || has_prefix(c->usage, "  -")) {
		printf(".RS\n");
		put_options(c->usage);
		printf(".RE\n");
	}
	if (example)
		put_example(example + strlen("example: "));
}

static int put_commands(void)
{
	for (size_t i = 0; i < cli_n_commands; i++)
		if (!cli_is_hidden(&cli_commands[i]))
			put_command(&cli_commands[i]);
	return 0;
}

/* ---- h2ofleet.conf(5) ---- */

static void put_key(const struct key *k)
{
	static const char *const when[] = {"at once", "with the next generation of the cloud",
		"with the next start of the daemon"};

	printf(".TP\n");
	put_bold(k->name);
	putchar('\n');
	put_text(k->help);
	printf("\n.br\n");
	put_text(*k->type->form ? "A value is " : "");
	put_text(k->type->form);
	printf("%s", *k->type->form ? ". " : "");
	printf("Default: ");
	put_text(k->dflt && *k->dflt ? k->dflt : "unset");
	printf(". Changes take effect %s.%s\n", when[k->reload],
		k->privilege == PRIVILEGE_NONE   ? ""
		: k->privilege == PRIVILEGE_PATH ? " Privileged where it is a path."
						 : " Privileged.");
}

static int put_keys(enum key_section section)
{
	size_t n;
	const struct key *all = keys_all(&n);

	for (size_t i = 0; i < n; i++)
		if (all[i].section == section)
			put_key(&all[i]);
	return 0;
}

/* ---- h2ofleetd(8) ---- */

static int put_daemon_options(void)
{
	put_options(options_usage());
	return 0;
}

/* ---- h2ofleet-api(7) ---- */

static void put_parameters(const json_t *operation)
{
	const json_t *p;
	bool any = false;
	size_t i;

	json_array_foreach (json_object_get(operation, "parameters"), i, p) {
		const char *name = json_string_value(json_object_get(p, "name"));
		const char *in = json_string_value(json_object_get(p, "in"));
		const char *what = json_string_value(json_object_get(p, "description"));

		if (!name || !streq_null(in, "query"))
			continue;
		printf("%s.TP\n", any ? "" : ".RS\n");
		any = true;
		put_bold(name);
		putchar('\n');
		put_text(what ? what : "");
		putchar('\n');
	}
	if (any)
		printf(".RE\n");
}

/* What a "$ref" within the document means; `j` itself where there is none. */
static const json_t *resolved(const json_t *doc, const json_t *j)
{
	const char *ref = json_string_value(json_object_get(j, "$ref"));
	const json_t *at = doc;

	if (!ref || !has_prefix(ref, "#/"))
		return j;
	for (ref += 2; at && *ref;) {
		size_t len = strcspn(ref, "/");
		_cleanup_free_ char *name = xstrndup(ref, len);

		at = json_object_get(at, name);
		ref += len + (ref[len] == '/');
	}
	return at;
}

static void resolve_parameters(const json_t *doc, json_t *operation, const json_t *shared)
{
	json_t *all = json_array(), *p;
	size_t i;

	json_array_foreach (shared, i, p)
		json_array_append(all, (json_t *)resolved(doc, p));
	json_array_foreach (json_object_get(operation, "parameters"), i, p)
		json_array_append(all, (json_t *)resolved(doc, p));
	json_object_set_new(operation, "parameters", all);
}

static void put_route(
	const json_t *doc, const char *path, const char *method, json_t *op, const json_t *shared)
{
	const char *summary = json_string_value(json_object_get(op, "summary"));
	const char *description = json_string_value(json_object_get(op, "description"));
	const char *access = json_string_value(json_object_get(op, "x-h2ofleet-access"));
	_cleanup_free_ char *upper = xstrdup(method);

	for (char *p = upper; *p; p++)
		*p = (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
	printf(".TP\n\\fB%s ", upper);
	put_text(path);
	printf("\\fR\n");
	put_text(summary ? summary : "");
	printf(".\n");
	if (description) {
		put_text(description);
		putchar('\n');
	}
	if (streq_null(access, "admin"))
		printf("Only for root and the daemon's user.\n");
	resolve_parameters(doc, op, shared);
	put_parameters(op);
}

static int put_routes(const char *file)
{
	static const char *const methods[] = {"get", "post", "put", "patch", "delete"};
	json_error_t e;
	json_t *doc = json_load_file(file, 0, &e), *item;
	const char *path;

	if (!doc) {
		fprintf(stderr, "manpage: %s: line %d: %s\n", file, e.line, e.text);
		return -1;
	}
	json_object_foreach (json_object_get(doc, "paths"), path, item) {
		for (size_t i = 0; i < ARRAY_SIZE(methods); i++) {
			json_t *op = json_object_get(item, methods[i]);

			if (op)
				put_route(doc, path, methods[i], op,
					json_object_get(item, "parameters"));
		}
	}
	json_decref(doc);
	return 0;
}

/* ---- the source ---- */

static int put_line(char *line, const char *openapi)
{
	line[strcspn(line, "\n")] = '\0';
	if (streq(line, "@COMMANDS@"))
		return put_commands();
	if (streq(line, "@OPTIONS@"))
		return put_options(cli_common_options), 0;
	if (streq(line, "@DAEMON OPTIONS@"))
		return put_daemon_options();
	if (streq(line, "@KEYS fleet@"))
		return put_keys(SECTION_FLEET);
	if (streq(line, "@KEYS cloud@"))
		return put_keys(SECTION_CLOUD);
	if (streq(line, "@ROUTES@"))
		return put_routes(openapi);
	if (line[0] == '@') {
		fprintf(stderr, "manpage: '%s' is not known\n", line);
		return -1;
	}
	if (has_prefix(line, ".TH "))
		printf("%s \"h2ofleet " PACKAGE_VERSION "\" \"h2ofleet\"\n", line);
	else
		puts(line);
	return 0;
}

int main(int argc, char **argv)
{
	char line[1024];
	FILE *f = argc == 3 ? fopen(argv[1], "re") : NULL;
	int r = 0;

	if (!f) {
		fputs("usage: manpage SOURCE OPENAPI.JSON\n", stderr);
		return 2;
	}
	while (r == 0 && fgets(line, sizeof(line), f))
		r = put_line(line, argv[2]);
	fclose(f);
	return r == 0 && fflush(stdout) == 0 ? 0 : 1;
}
