/* The jobs of a cloud, asked of member 0 when somebody wants to know, once for all who do.
 *
 *	/3/Cloud	locked? A cloud that is not has no jobs, and the next question would lock it
 *	/3/Jobs		all jobs since the cloud's start
 *
 * The list can be long: it is parsed job by job, a little in each turn of the loop. */
#include "core/internal.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "base/text.h"
#include "drv/http.h"

#define TIMEOUT_MS  5000
#define FRESH_MS    1000
#define MAX_BODY    (32 << 20) /* some 55 000 jobs */
#define MAX_SHOWN   500
#define SLICE_MS    2
#define MAX_CANCELS 16

/* Stack traces are most of it. */
#define JOBS_PATH "/3/Jobs?_exclude_fields=jobs/stacktrace"

struct job_entry {
	bool running;
	int64_t started;
	json_t *view; /* owned */
};

struct jobs {
	struct supervised *s;
	struct http_request *request; /* the question that is on its way */
	struct http_request *cancels[MAX_CANCELS];
	uint64_t generation; /* whose all of this is */
	bool locked;         /* once it is, it stays so */

	uv_timer_t *timer; /* runs while parsing; freed in its close callback */
	char *body;        /* owned: what is being parsed */
	const char *at;    /* in it */
	struct job_entry entries[MAX_SHOWN + 100];
	size_t n, parsed;

	uint64_t asked_ms; /* when the question was put that is being answered */
	/* The newest answer. */
	bool answered;
	uint64_t answer_ms; /* when its question was put */
	json_t *list;       /* owned */
	size_t total;
	char *error; /* owned */
};

/* --- an answer ---------------------------------------------------------------------------- */

static void drop_parsing(struct jobs *j)
{
	uv_timer_stop(j->timer);
	for (size_t i = 0; i < j->n; i++)
		json_decref(j->entries[i].view);
	free(TAKE_PTR(j->body));
	j->n = j->parsed = 0;
}

/* Takes the list; `error` is copied. */
static void keep(struct jobs *j, json_t *list, size_t total, const char *error)
{
	drop_parsing(j);
	json_decref(j->list);
	j->list = list;
	j->total = total;
	replace_str(&j->error, error);
	j->answered = true;
	j->answer_ms = j->asked_ms;
}

/* The same, and whoever waits is told. */
static void answer(struct jobs *j, json_t *list, size_t total, const char *error)
{
	struct fleet *f = j->s->fleet;

	keep(j, list, total, error);
	if (f->observer)
		f->observer(j->s->cloud, f->observer_arg);
}

static void fail(struct jobs *j, const struct http_response *rsp)
{
	_cleanup_free_ char *why =
		rsp->error ? xstrdup(rsp->error) : xasprintf("HTTP status %d", rsp->status);
	_cleanup_free_ char *all = xasprintf("no good answer from member 0 (%s)", why);

	answer(j, NULL, 0, all);
}

/* As everything of H2O: a string without a NUL byte in it; null for anything else. */
static json_t *text_or_null(const json_t *from, const char *key)
{
	const json_t *v = json_object_get(from, key);
	_cleanup_free_ char *s = NULL;

	if (!json_is_string(v))
		return json_null();
	s = xstrndup(json_string_value(v), json_string_length(v));
	return json_string(s);
}

static json_t *time_or_null(int64_t ms)
{
	time_t t = (time_t)(ms / 1000);
	struct tm tm;
	char s[32];

	if (ms <= 0 || !gmtime_r(&t, &tm))
		return json_null();
	strftime(s, sizeof(s), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return json_string(s);
}

static json_t *warnings_of(const json_t *job)
{
	const json_t *all = json_object_get(job, "warnings"), *w;
	json_t *list = json_array();
	size_t i;

	json_array_foreach (all, i, w) {
		_cleanup_free_ char *s =
			json_is_string(w) ? xstrndup(json_string_value(w), json_string_length(w))
					  : NULL;
		if (s)
			json_array_append_new(list, json_string(s));
	}
	return list;
}

static json_t *number_or_null(const json_t *from, const char *key)
{
	const json_t *v = json_object_get(from, key);

	return json_is_integer(v) ? json_integer(json_integer_value(v)) : json_null();
}

static bool runs(const json_t *job)
{
	const char *status = json_string_value(json_object_get(job, "status"));

	return streq_null(status, "RUNNING") || streq_null(status, "CANCEL_PENDING");
}

static struct job_entry view_job(const json_t *job)
{
	const json_t *dest = json_object_get(job, "dest");
	double progress = json_number_value(json_object_get(job, "progress"));
	struct job_entry e = {.running = runs(job),
		.started = json_integer_value(json_object_get(job, "start_time")),
		.view = json_object()};

	json_object_set_new(e.view, "id", text_or_null(json_object_get(job, "key"), "name"));
	json_object_set_new(e.view, "description", text_or_null(job, "description"));
	json_object_set_new(e.view, "status", text_or_null(job, "status"));
	json_object_set_new(e.view, "running", json_boolean(e.running));
	json_object_set_new(e.view, "progress", json_real(MIN(MAX(progress, 0.0), 1.0)));
	json_object_set_new(e.view, "message", text_or_null(job, "progress_msg"));
	json_object_set_new(e.view, "started_at", time_or_null(e.started));
	json_object_set_new(e.view, "duration_ms", number_or_null(job, "msec"));
	json_object_set_new(e.view, "dest", text_or_null(dest, "name"));
	json_object_set_new(e.view, "dest_type", text_or_null(dest, "type"));
	json_object_set_new(e.view, "warnings", warnings_of(job));
	json_object_set_new(e.view, "error", text_or_null(job, "exception"));
	return e;
}

/* Those that run first, then the newest. */
static int compare(const void *a, const void *b)
{
	const struct job_entry *x = a, *y = b;

	if (x->running != y->running)
		return x->running ? -1 : 1;
	return x->started > y->started ? -1 : x->started < y->started;
}

/* Sorts, and forgets what is not to be shown. */
static void settle(struct jobs *j)
{
	if (j->n)
		qsort(j->entries, j->n, sizeof(*j->entries), compare);
	for (; j->n > MAX_SHOWN; j->n--)
		json_decref(j->entries[j->n - 1].view);
}

static void finish(struct jobs *j)
{
	json_t *list = json_array();

	settle(j);
	for (size_t i = 0; i < j->n; i++)
		json_array_append(list, j->entries[i].view);
	answer(j, list, j->parsed, NULL);
}

/* The end of the object that begins here; NULL: there is none. */
static const char *object_end(const char *s)
{
	unsigned depth = 0;
	bool quoted = false;

	for (; *s; s++) {
		if (quoted && *s == '\\' && s[1])
			s++;
		else if (*s == '"')
			quoted = !quoted;
		else if (!quoted && *s == '{')
			depth++;
		else if (!quoted && *s == '}' && --depth == 0)
			return s + 1;
	}
	return NULL;
}

static void add_entry(struct jobs *j, struct job_entry e)
{
	if (j->n == ARRAY_SIZE(j->entries))
		settle(j);
	j->entries[j->n++] = e;
	j->parsed++;
}

static void parse_some(uv_timer_t *timer)
{
	struct jobs *j = timer->data;
	uint64_t until = clock_monotonic_ms() + SLICE_MS;

	do {
		const char *end;
		json_t *job;

		j->at += strspn(j->at, " \r\n\t,");
		if (*j->at == ']') {
			finish(j);
			return;
		}
		end = *j->at == '{' ? object_end(j->at) : NULL;
		job = end ? json_loadb(j->at, (size_t)(end - j->at), JSON_ALLOW_NUL, NULL) : NULL;
		if (!job) {
			answer(j, NULL, 0, "member 0 answered with what is no list of jobs");
			return;
		}
		add_entry(j, view_job(job));
		json_decref(job);
		j->at = end;
	} while (clock_monotonic_ms() < until);
	/* Not 0: libuv before 1.49 would run it again within this turn. */
	uv_timer_start(j->timer, parse_some, 1, 0);
}

/* --- the questions ------------------------------------------------------------------------ */

static int put(struct jobs *j, const char *path, http_cb cb)
{
	_cleanup_free_ char *url = supervised_url(j->s, 0, path);
	struct http_spec spec = {
		.url = url, .method = "GET", .timeout_ms = TIMEOUT_MS, .max_body = MAX_BODY};
	int r = http_start(j->s->fleet->http, &spec, cb, j, &j->request);

	if (r < 0)
		j->request = NULL;
	return r;
}

static bool good(struct jobs *j, const struct http_response *rsp)
{
	j->request = NULL;
	if (rsp->result == HTTP_OK && rsp->status == 200)
		return true;
	fail(j, rsp);
	return false;
}

static void on_jobs(const struct http_response *rsp, void *arg)
{
	struct jobs *j = arg;
	const char *list;

	if (!good(j, rsp))
		return;
	list = strstr(rsp->body, "\"jobs\":[");
	if (!list) {
		answer(j, NULL, 0, "member 0 answered with what is no list of jobs");
		return;
	}
	j->body = xstrdup(list + strlen("\"jobs\":["));
	j->at = j->body;
	uv_timer_start(j->timer, parse_some, 0, 0);
}

static void on_cloud(const struct http_response *rsp, void *arg)
{
	struct jobs *j = arg;
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view view = {0};
	int r;

	if (!good(j, rsp))
		return;
	if (h2o_cloud_view_parse(rsp->body, rsp->body_len, &view, NULL) < 0) {
		answer(j, NULL, 0, "member 0 answered with what is no state of a cloud");
		return;
	}
	j->locked = view.locked;
	if (!view.locked)
		answer(j, json_array(), 0, NULL);
	else if ((r = put(j, JOBS_PATH, on_jobs)) < 0)
		answer(j, NULL, 0, strerror(-r));
}

/* Who asks sees by himself when that cannot be done. */
static void ask(struct jobs *j)
{
	int r;

	j->asked_ms = fleet_now(j->s->fleet);
	r = j->locked ? put(j, JOBS_PATH, on_jobs) : put(j, "/3/Cloud?skip_ticks=true", on_cloud);
	if (r < 0)
		keep(j, NULL, 0, strerror(-r));
}

/* --- its life ----------------------------------------------------------------------------- */

static void stop_all(struct jobs *j)
{
	if (j->request)
		http_cancel(TAKE_PTR(j->request));
	for (size_t i = 0; i < MAX_CANCELS; i++)
		if (j->cancels[i])
			http_cancel(TAKE_PTR(j->cancels[i]));
	drop_parsing(j);
}

static void on_closed(uv_handle_t *h)
{
	free(h);
}

void jobs_free(struct supervised *s)
{
	struct jobs *j = s->jobs;

	if (!j)
		return;
	stop_all(j);
	uv_close((uv_handle_t *)j->timer, on_closed);
	json_decref(j->list);
	free(j->error);
	free(j);
	s->jobs = NULL;
}

/* That of the cloud's present life. */
static struct jobs *jobs_of(struct supervised *s)
{
	struct jobs *j = s->jobs;

	if (!j) {
		j = s->jobs = xcalloc(1, sizeof(*j));
		j->s = s;
		j->generation = s->cloud->generation;
		j->timer = xcalloc(1, sizeof(*j->timer));
		uv_timer_init(s->fleet->loop, j->timer);
		j->timer->data = j;
	}
	if (j->generation != s->cloud->generation) {
		stop_all(j);
		j->generation = s->cloud->generation;
		j->locked = j->answered = false;
	}
	return j;
}

bool fleet_jobs(struct fleet *f, const char *cloud, uint64_t wanted_ms, struct fleet_jobs *out)
{
	struct jobs *j = jobs_of(supervised_find(f, cloud));

	if (!j->answered || j->answer_ms + FRESH_MS < wanted_ms) {
		if (!j->request && !j->body)
			ask(j);
		if (!j->answered || j->answer_ms + FRESH_MS < wanted_ms)
			return false;
	}
	*out = (struct fleet_jobs){
		.list = j->list, .total = j->total, .locked = j->locked, .error = j->error};
	return true;
}

/* H2O answers when the job has ended; the exits of jobs show in the list. */
static void on_cancelled(const struct http_response *rsp _unused_, void *arg)
{
	*(struct http_request **)arg = NULL;
}

int fleet_cancel_job(struct fleet *f, const char *cloud, const char *id)
{
	struct supervised *s = supervised_find(f, cloud);
	struct jobs *j = jobs_of(s);
	_cleanup_free_ char *escaped = http_escape(id);
	_cleanup_free_ char *path = xasprintf("/3/Jobs/%s/cancel", escaped);
	_cleanup_free_ char *url = supervised_url(s, 0, path);
	struct http_spec spec = {.url = url, .method = "POST", .timeout_ms = TIMEOUT_MS};

	for (size_t i = 0; i < MAX_CANCELS; i++) {
		int r;

		if (j->cancels[i])
			continue;
		r = http_start(f->http, &spec, on_cancelled, &j->cancels[i], &j->cancels[i]);
		if (r < 0)
			j->cancels[i] = NULL;
		else
			j->answered = false; /* what is known is old from now on */
		return r;
	}
	return -EBUSY;
}
