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

void h2o_trace_answer(struct h2o *h, const struct h2o_answer *a, uint64_t took_ms)
{
	if (!h->trace)
		return;
	if (a->status)
		fprintf(h->trace, "<<< HTTP %d   (%" PRIu64 " ms)\n", a->status, took_ms);
	else
		fprintf(h->trace, ">>> %s\n", err_msg(&a->err));
	if (a->type)
		fprintf(h->trace, "    Content-Type: %s\n", a->type);
	if (a->saved_as)
		fprintf(h->trace, "    saved as %s\n", a->saved_as);
	if (a->text)
		fwrite(a->text, 1, a->len, h->trace);
	fprintf(h->trace, "\n\n");
	fflush(h->trace);
}
