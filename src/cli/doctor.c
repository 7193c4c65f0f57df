#include "cli/doctor.h"

#include <jansson.h>

#include "base/text.h"
#include "cli/checks.h"

static const char *const level_names[] = {"ok", "warning", "problem"};
static const char *const level_colours[] = {"32", "33", "31"};

void doctor_add(struct doctor *d, const char *name, enum check_level level, const char *advice,
	const char *fmt, ...)
{
	struct check *c;
	va_list ap;

	d->checks = xreallocarray(d->checks, d->n_checks + 1, sizeof(*d->checks));
	c = &d->checks[d->n_checks++];
	*c = (struct check){.name = name, .level = level, .advice = xstrdup_null(advice)};
	va_start(ap, fmt);
	c->found = xvasprintf(fmt, ap);
	va_end(ap);
}

void doctor_add_sentence(struct doctor *d, const char *name, enum check_level level,
	const char *context, const char *sentence, const char *advice)
{
	const char *semicolon = strstr(sentence, "; ");
	_cleanup_free_ char *found =
		semicolon ? xstrndup(sentence, (size_t)(semicolon - sentence)) : xstrdup(sentence);

	doctor_add(d, name, level, semicolon ? semicolon + 2 : advice, "%s%s", context, found);
}

void doctor_list(struct strbuf *b, const char *fmt, ...)
{
	_cleanup_free_ char *s = NULL;
	va_list ap;

	va_start(ap, fmt);
	s = xvasprintf(fmt, ap);
	va_end(ap);
	strbuf_printf(b, "%s%s", b->len ? ", " : "", s);
}

static void check_configuration(struct doctor *d, const char *file)
{
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(strbuf_free) struct strbuf clouds = STRBUF_NULL;
	_cleanup_(strbuf_free) struct strbuf files = STRBUF_NULL;
	int r = conf_load(file, &d->conf, &errors);
	_cleanup_free_ char *advice =
		xasprintf("correct %s; `h2ofleetd %s%s%s--check-config` tells when all is well",
			errors.list.n == 1 ? "it" : "them", file ? "--config " : "",
			file ? file : "", file ? " " : "");

	for (size_t i = 0; i < errors.list.n; i++)
		doctor_add(d, "configuration", CHECK_PROBLEM,
			i + 1 == errors.list.n ? advice : NULL, "%s", errors.list.v[i]);
	if (r < 0 && errors.list.n == 0)
		doctor_add(d, "configuration", CHECK_PROBLEM, "make it readable", "%s: %s",
			file ? file : "the configuration cannot be read", strerror(-r));
	if (r < 0) {
		d->conf = NULL;
		return;
	}
	if (d->conf->files.n == 0) {
		doctor_add(d, "configuration", CHECK_OK, NULL,
			"no file; the built-in one: cloud %s with %d node%s",
			d->conf->n_clouds ? d->conf->clouds[0]->name : "?",
			d->conf->n_clouds ? (int)d->conf->clouds[0]->nodes : 0,
			d->conf->n_clouds && d->conf->clouds[0]->nodes == 1 ? "" : "s");
		return;
	}
	for (size_t i = 0; i < d->conf->n_clouds; i++)
		doctor_list(&clouds, "%s (%d node%s%s)", d->conf->clouds[i]->name,
			(int)d->conf->clouds[i]->nodes, d->conf->clouds[i]->nodes == 1 ? "" : "s",
			d->conf->clouds[i]->autostart ? "" : ", not started by itself");
	for (size_t i = 0; i < d->conf->files.n; i++)
		doctor_list(&files, "%s", d->conf->files.v[i]);
	doctor_add(d, "configuration", CHECK_OK, NULL, "cloud%s %s, from %s",
		d->conf->n_clouds == 1 ? "" : "s", strbuf_str(&clouds), strbuf_str(&files));
}

static size_t count(const struct doctor *d, enum check_level level)
{
	size_t n = 0;

	for (size_t i = 0; i < d->n_checks; i++)
		n += d->checks[i].level == level;
	return n;
}

/* What was found comes from files, processes and the environment: nothing of it may reach a
 * terminal raw, and JSON takes UTF-8 only. */
static char *shown(const char *s)
{
	return text_visible(s, strlen(s));
}

static void print_text(const struct doctor *d, FILE *out)
{
	const char *no_color = getenv("NO_COLOR");
	bool colour = isatty(fileno(out)) && !(no_color && *no_color);
	size_t problems = count(d, CHECK_PROBLEM);
	size_t warnings = count(d, CHECK_WARNING);

	for (size_t i = 0; i < d->n_checks; i++) {
		const struct check *c = &d->checks[i];
		_cleanup_free_ char *found = shown(c->found);
		_cleanup_free_ char *advice = c->advice ? shown(c->advice) : NULL;

		fprintf(out, "%s%s%s%-8s%s %-14s %s\n", colour ? "\033[" : "",
			colour ? level_colours[c->level] : "", colour ? "m" : "",
			level_names[c->level], colour ? "\033[0m" : "", c->name, found);
		if (advice)
			fprintf(out, "%-24s-> %s\n", "", advice);
	}
	fprintf(out, "\n");
	if (problems == 0 && warnings == 0)
		fprintf(out, "All is well.\n");
	else
		fprintf(out, "%zu problem%s, %zu warning%s: %s\n", problems,
			problems == 1 ? "" : "s", warnings, warnings == 1 ? "" : "s",
			problems ? "not all clouds can start as things are." : "clouds can start.");
}

static void print_json(const struct doctor *d, FILE *out)
{
	json_t *checks = json_array();
	json_t *all;

	for (size_t i = 0; i < d->n_checks; i++) {
		const struct check *c = &d->checks[i];
		_cleanup_free_ char *found = shown(c->found);
		_cleanup_free_ char *advice = c->advice ? shown(c->advice) : NULL;
		json_t *j = json_object();

		json_object_set_new(j, "check", json_string(c->name));
		json_object_set_new(j, "level", json_string(level_names[c->level]));
		json_object_set_new(j, "found", json_string(found));
		if (advice)
			json_object_set_new(j, "advice", json_string(advice));
		json_array_append_new(checks, j);
	}
	all = json_object();
	json_object_set_new(all, "ok", json_boolean(count(d, CHECK_PROBLEM) == 0));
	json_object_set_new(all, "checks", checks);
	json_dumpf(all, out, JSON_INDENT(2));
	fprintf(out, "\n");
	json_decref(all);
}

static void doctor_free(struct doctor *d)
{
	for (size_t i = 0; i < d->n_checks; i++) {
		free(d->checks[i].found);
		free(d->checks[i].advice);
	}
	free(d->checks);
	free(d->jar);
	free(d->h2o_version);
	free(d->ports);
	strv_free(&d->clouds);
	conf_freep(&d->conf);
}

int cmd_doctor(const char *config_file, const char *socket, bool json, FILE *out)
{
	_cleanup_(doctor_free) struct doctor d = {.socket = socket};

	check_configuration(&d, config_file);
	check_jar(&d);
	check_java(&d);
	check_client(&d);
	check_daemon(&d);
	check_user(&d);
	if (d.conf) {
		check_ports(&d);
		check_port_range(&d);
		check_gate(&d);
		check_boot(&d);
		check_memory(&d);
		check_cores(&d);
	}
	check_disk(&d);
	check_leaked(&d);
	check_runs(&d);
	check_limits(&d);
	check_kernel(&d);
	check_proxy(&d);
	if (json)
		print_json(&d, out);
	else
		print_text(&d, out);
	return count(&d, CHECK_PROBLEM) ? 1 : 0;
}
