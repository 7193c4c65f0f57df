/* `h2ofleet api`: any request to a cloud's H2O. */
#include "cli/h2o.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "cli/show.h"

#define MAX_JSON_BODY (256u << 20)
#define MAX_SHOWN     4096 /* of an error's page */

struct api_options {
	struct strv data, cookies;
	const char *json_body, *file, *output, *trace, *timeout, *auth_file, *cacert;
	uint64_t timeout_ms;
	bool quiet, insecure;
	char *json; /* owned: the body */
};

static void options_clear(struct api_options *o)
{
	strv_free(&o->data);
	strv_free(&o->cookies);
	free(o->json);
}

/* --- what is asked ------------------------------------------------------------------------ */

/* All of a file, or of the standard input ("-"). Owned by the caller; NULL: told. */
static char *slurp(struct cli *cli, const char *path)
{
	char *data = NULL;
	int r = file_read(streq(path, "-") ? "/dev/stdin" : path, MAX_JSON_BODY, &data, NULL);

	if (r < 0)
		cli_fail(cli, CLI_ERROR, "cannot read %s: %s", path, strerror(-r));
	return r < 0 ? NULL : data;
}

static bool is_method(const char *s)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"};

	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (streq(s, methods[i]))
			return true;
	return false;
}

/* What goes into a request line must not end it. */
static bool is_path(const char *s)
{
	if (*s != '/')
		return false;
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f || *s == '#')
			return false;
	return true;
}

/* N=V that ends no header. */
static bool is_cookie(const char *s)
{
	if (*s == '=' || !strchr(s, '='))
		return false;
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f)
			return false;
	return true;
}

/* What is wrong with options whatever the body. */
static int check_more(struct cli *cli, const char *method, const struct api_options *o)
{
	for (size_t i = 0; i < o->cookies.n; i++)
		if (!is_cookie(o->cookies.v[i]))
			return cli_usage(cli, "'%s' is no cookie, NAME=VALUE", o->cookies.v[i]);
	if (o->output && !*o->output)
		return cli_usage(cli, "-o needs a file or a folder");
	if (o->output && streq(o->output, "-") && cli->json)
		return cli_usage(cli, "-o - and --json would both write to the standard output");
	if (o->output && streq(method, "HEAD"))
		return cli_usage(cli, "what answers HEAD has no body to be saved");
	if (o->cacert && o->insecure)
		return cli_usage(cli, "--insecure trusts whoever answers: not with --cacert");
	return CLI_OK;
}

static int check(struct cli *cli, const struct strv *words, const struct api_options *o)
{
	int bodies = (o->data.n > 0) + (o->json_body != NULL) + (o->file != NULL);

	if (words->n != 3)
		return cli_usage(cli, words->n < 3 ? "a cloud, a method and a path are needed"
						   : "too many words");
	if (!is_method(words->v[1]))
		return cli_usage(cli,
			"'%s' is no method; there are GET, POST, PUT, DELETE, PATCH and HEAD",
			words->v[1]);
	if (!is_path(words->v[2]))
		return cli_usage(cli, "'%s' is no path, such as /3/Cloud (blanks are written %%20)",
			words->v[2]);
	for (size_t i = 0; i < o->data.n; i++)
		if (!strchr(o->data.v[i], '=') || *o->data.v[i] == '=')
			return cli_usage(cli, "'%s' is not KEY=VALUE", o->data.v[i]);
	if (bodies > 1 && !(o->file && o->data.n && !o->json_body))
		return cli_usage(cli, "--json-body goes with neither --data nor --file");
	if (o->file && !streq(words->v[1], "POST"))
		return cli_usage(cli, "files are uploaded with POST");
	if (o->json_body && (streq(words->v[1], "GET") || streq(words->v[1], "HEAD")))
		return cli_usage(cli, "%s has no body", words->v[1]);
	return check_more(cli, words->v[1], o);
}

/* "user:password", the first line of a file: in an argument all the machine could read it. */
static int take_auth(struct h2o *h, const char *path)
{
	char *text = slurp(h->cli, path);

	if (!text)
		return CLI_ERROR;
	text[strcspn(text, "\r\n")] = '\0';
	free(h->auth);
	h->auth = text;
	if (!strchr(text, ':'))
		return cli_fail(h->cli, CLI_ERROR, "%s does not hold USER:PASSWORD", path);
	return CLI_OK;
}

static int open_trace(struct h2o *h, const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0)
		return cli_fail(h->cli, CLI_ERROR, "cannot write %s: %s", path, strerror(errno));
	h->trace = fdopen(fd, "a");
	return CLI_OK;
}

/* libcurl takes a folder for an empty file. */
static int check_file(struct cli *cli, const char *path)
{
	struct stat st;

	if (access(path, R_OK) < 0 || stat(path, &st) < 0)
		return cli_fail(cli, CLI_ERROR, "cannot read %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return cli_fail(cli, CLI_ERROR, "%s is no plain file", path);
	return CLI_OK;
}

static int prepare(struct h2o *h, struct api_options *o)
{
	struct strbuf cookies = STRBUF_NULL;

	h->quiet = o->quiet;
	h->ca = o->cacert;
	h->insecure = o->insecure;
	for (size_t i = 0; i < o->cookies.n; i++)
		strbuf_printf(&cookies, "%s%s", i ? "; " : "", o->cookies.v[i]);
	h->cookies = o->cookies.n ? strbuf_take(&cookies) : NULL;
	strbuf_free(&cookies);
	if (o->auth_file && take_auth(h, o->auth_file) != CLI_OK)
		return CLI_ERROR;
	if (o->json_body && !(o->json = slurp(h->cli, o->json_body)))
		return CLI_ERROR;
	if (o->cacert && check_file(h->cli, o->cacert) != CLI_OK)
		return CLI_ERROR;
	if (o->file && check_file(h->cli, o->file) != CLI_OK)
		return CLI_ERROR;
	return o->trace ? open_trace(h, o->trace) : CLI_OK;
}

/* --- what comes --------------------------------------------------------------------------- */

static void print_visible(FILE *f, const char *text, size_t n)
{
	while (n) {
		const char *nl = memchr(text, '\n', n);
		size_t len = nl ? (size_t)(nl - text) : n;
		_cleanup_free_ char *line = text_visible(text, len);

		fprintf(f, "%s\n", line);
		len += nl != NULL;
		text += len;
		n -= len;
	}
}

/* Its name is news where it is a file: a pipe's reader wants nothing but what he asked for. */
static int print_saved(struct cli *cli, const struct h2o_answer *a)
{
	_cleanup_free_ char *path = text_utf8(a->saved_as);
	json_t *j = json_pack("{s:i, s:s}", "status", a->status, "saved_as", path);
	struct stat st;

	if (cli->json)
		cli_json(cli, j);
	else if (!streq(path, "-") && stat(a->saved_as, &st) == 0 && S_ISREG(st.st_mode))
		print_visible(cli->out, a->saved_as, strlen(a->saved_as));
	json_decref(j);
	return CLI_OK;
}

/* With --json always JSON: what is none goes into a string. */
static int print_json(struct cli *cli, const struct h2o_answer *a)
{
	_cleanup_free_ char *text = a->json ? NULL : text_utf8(a->text);
	json_t *j = a->json ? json_incref(a->json)
			    : json_pack("{s:i, s:s}", "status", a->status, "text", text);

	cli_json(cli, j);
	json_decref(j);
	return CLI_OK;
}

/* Of HEAD there is nothing but the status line and headers. */
static int print_head(struct cli *cli, const struct h2o_answer *a)
{
	json_t *headers = json_object(), *j;
	_cleanup_free_ char *text = text_utf8(a->head);

	if (!cli->json)
		print_visible(cli->out, a->head, strlen(a->head));
	for (char *s = text, *line; cli->json && (line = strsep(&s, "\n"));) {
		char *colon = strchr(line, ':');

		if (!colon)
			continue;
		*colon = '\0';
		json_object_set_new(headers, line, json_string(colon + 1 + strspn(colon + 1, " ")));
	}
	j = json_pack("{s:i, s:o}", "status", a->status, "headers", headers);
	if (cli->json)
		cli_json(cli, j);
	json_decref(j);
	return CLI_OK;
}

static int print_answer(struct cli *cli, const struct h2o_answer *a, bool head)
{
	if (head && a->head)
		return print_head(cli, a);
	if (a->saved_as)
		return print_saved(cli, a);
	if (cli->json)
		return print_json(cli, a);
	if (!isatty(fileno(cli->out))) {
		fwrite(a->text, 1, a->len, cli->out);
	} else if (a->json) {
		_cleanup_free_ char *pretty = json_dumps(a->json, JSON_INDENT(2));

		print_visible(cli->out, pretty, strlen(pretty));
	} else {
		print_visible(cli->out, a->text, a->len);
	}
	return CLI_OK;
}

/* What is wrong and, where that is not all that H2O said, its answer: all of it with --json. */
static int complain(struct h2o *h, const struct h2o_answer *a)
{
	struct cli *cli = h->cli;
	int code = h2o_complain(h, a);

	if (!a->status || !a->text)
		return code;
	if (cli->json) {
		_cleanup_free_ char *text = a->json ? NULL : text_utf8(a->text);
		json_t *answer = a->json ? json_incref(a->json) : json_string(text);
		json_t *j = json_pack("{s:s, s:i, s:o}", "error", cli->failure, "status", a->status,
			"answer", answer);

		cli_json(cli, j);
		json_decref(j);
	} else if (!a->explained) {
		print_visible(cli->err, a->text, MIN(a->len, (size_t)MAX_SHOWN));
	}
	return code;
}

static int run(struct h2o *h, const struct strv *words, struct api_options *o)
{
	struct h2o_request rq = {.method = words->v[1],
		.path = words->v[2],
		.data = &o->data,
		.file = o->file,
		.save_to = o->output,
		.timeout_ms = o->timeout_ms};
	struct h2o_answer a;
	int code;

	code = prepare(h, o);
	if (code != CLI_OK)
		return code;
	rq.json = o->json;
	if (o->output)
		cli_catch_interrupt(); /* a part of a file is not to stay */
	code = h2o_ask(h, &rq, &a) ? print_answer(h->cli, &a, streq(rq.method, "HEAD"))
				   : complain(h, &a);
	h2o_answer_clear(&a);
	return code;
}

int cmd_api(struct cli *cli, int argc, char **argv)
{
	_cleanup_(options_clear) struct api_options o = {0};
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_(h2o_close) struct h2o h = {0};
	const struct cli_option options[] = {
		{"data", 'd', .values = &o.data},
		{"json-body", 0, NULL, &o.json_body},
		{"file", 0, NULL, &o.file},
		{"output", 'o', NULL, &o.output},
		{"cookie", 'b', .values = &o.cookies},
		{"auth-file", 0, NULL, &o.auth_file},
		{"cacert", 0, NULL, &o.cacert},
		{"insecure", 0, &o.insecure, NULL},
		{"timeout", 0, NULL, &o.timeout},
		{"trace", 0, NULL, &o.trace},
		{"quiet", 'q', &o.quiet, NULL},
	};
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK ||
		check(cli, &words, &o) != CLI_OK)
		return CLI_USAGE;
	if (o.timeout && text_parse_duration(o.timeout, &o.timeout_ms) < 0)
		return cli_usage(cli, "'%s' is no time, such as 30s or 5m", o.timeout);
	code = h2o_open(&h, cli, words.v[0], true);
	return code == CLI_OK ? run(&h, &words, &o) : code;
}
