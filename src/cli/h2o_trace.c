#include "cli/h2o.h"

#include <inttypes.h>
#include <time.h>

#include "base/text.h"

/* "{a:1, b:2}", each harmless. */
static void print_data(FILE *f, const char *what, const struct strv *data)
{
	fprintf(f, "     %s: {", what);
	for (size_t i = 0; i < data->n; i++) {
		_cleanup_free_ char *shown = text_visible(data->v[i], strlen(data->v[i]));
		size_t key = strcspn(shown, "=");

		fprintf(f, "%s%.*s:%s", i ? ", " : "", (int)key, shown,
			shown[key] ? shown + key + 1 : "");
	}
	fprintf(f, "}\n");
}

void h2o_trace_request(struct h2o *h, const struct h2o_request *rq)
{
	time_t now = time(NULL);
	struct tm tm;
	char at[16];
	bool query = streq(rq->method, "GET") || streq(rq->method, "DELETE") ||
		     streq(rq->method, "HEAD") || rq->file;

	h->count++;
	if (!h->trace)
		return;
	strftime(at, sizeof(at), "%H:%M:%S", localtime_r(&now, &tm));
	fprintf(h->trace, "\n---- %u --------------------------------------------------------\n",
		h->count);
	fprintf(h->trace, "[%s] %s %s\n", at, rq->method, rq->path);
	if (rq->data && rq->data->n)
		print_data(h->trace, query ? "params" : "body", rq->data);
	if (rq->json)
		fprintf(h->trace, "     json: %s\n", rq->json);
	if (rq->file)
		fprintf(h->trace, "     file: %s\n", rq->file);
	fprintf(h->trace, "\n");
	fflush(h->trace);
}

/* "a=1; b=2" as "a=***; b=***"; of what is set only the cookie, not its path and the like. */
static void print_cookies(FILE *f, const char *s, bool set)
{
	for (bool first = true; *s; first = false) {
		size_t n = strcspn(s, ";"), name = strcspn(s, "=;");

		if (set && !first)
			fprintf(f, "%.*s", (int)n, s);
		else
			fprintf(f, "%.*s=***", (int)name, s);
		s += n;
		if (*s)
			fputc(*s++, f);
	}
}

/* Secrets are left out: a trace is made to be shown. */
static void print_header(FILE *f, char direction, const char *line)
{
	size_t name = strcspn(line, ":");

	fprintf(f, "    %c ", direction);
	if (!line[name]) {
		fputs(line, f);
	} else if (strncasecmp(line, "Authorization:", name + 1) == 0) {
		fprintf(f, "%.*s: ***", (int)name, line);
	} else if (strncasecmp(line, "Cookie:", name + 1) == 0 ||
		   strncasecmp(line, "Set-Cookie:", name + 1) == 0) {
		fprintf(f, "%.*s:", (int)name, line);
		print_cookies(f, line + name + 1, strncasecmp(line, "Set", 3) == 0);
	} else {
		fputs(line, f);
	}
	fputc('\n', f);
}

void h2o_trace_headers(struct h2o *h, char direction, const char *text, size_t n)
{
	while (n) {
		const char *nl = memchr(text, '\n', n);
		size_t len = nl ? (size_t)(nl - text) : n;
		_cleanup_free_ char *line =
			text_visible(text, len && text[len - 1] == '\r' ? len - 1 : len);

		if (*line)
			print_header(h->trace, direction, line);
		len += nl != NULL;
		text += len;
		n -= len;
	}
	fflush(h->trace);
}

void h2o_trace_answer(struct h2o *h, const struct h2o_answer *a, uint64_t took_ms)
{
	if (!h->trace)
		return;
	fputc('\n', h->trace);
	if (a->status)
		fprintf(h->trace, "<<< HTTP %d   (%" PRIu64 " ms)\n", a->status, took_ms);
	else
		fprintf(h->trace, ">>> %s\n", err_msg(&a->err));
	if (a->saved_as)
		fprintf(h->trace, "    saved as %s\n", a->saved_as);
	if (a->text)
		fwrite(a->text, 1, a->len, h->trace);
	fprintf(h->trace, "\n\n");
	fflush(h->trace);
}
