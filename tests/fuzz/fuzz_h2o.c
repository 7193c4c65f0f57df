/* What H2O answers, after HTTP: /3/Cloud, which the verdict goes by; the questions of idle stop;
 * the list of jobs. The first byte says which. H2O itself is faked below, by functions that stand
 * in for drv/http.c: an input has its answers, one after the other. */
#include "fuzz.h"

#include <errno.h>
#include <math.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/internal.h"
#include "model/verdict.h"

#define N     3
#define NAME  "dev-1-00ff"
#define NOW   UINT64_C(100000000)
#define LIMIT 20 /* questions that one input is asked */

/* --- who answers -------------------------------------------------------------------------- */

static struct fuzz_input input;
static struct {
	http_cb cb;
	void *arg;
	char *path;
} asked;                 /* cb NULL: nothing is on its way */
static bool said_locked; /* member 0 has said so, in this input */
static unsigned n_idle;  /* EVENT_IDLE that came */
static uint64_t idle_ms;

int http_start(struct http *h, const struct http_spec *spec, http_cb cb, void *arg,
	struct http_request **out)
{
	(void)h;
	fuzz_check(!asked.cb); /* one question after the other */
	asked.cb = cb;
	asked.arg = arg;
	asked.path = xstrdup(strstr(spec->url, "/3/"));
	/* These two lock a cloud. */
	fuzz_check_text(said_locked || (!has_prefix(asked.path, "/3/Jobs") &&
					       !has_prefix(asked.path, "/3/SteamMetrics")),
		asked.path);
	*out = (struct http_request *)&asked;
	return 0;
}

void http_cancel(struct http_request *r)
{
	(void)r;
	asked.cb = NULL;
	free(TAKE_PTR(asked.path));
}

char *http_escape(const char *s)
{
	return xstrdup(s);
}

void supervised_feed(struct supervised *s, const struct cloud_event *ev)
{
	(void)s;
	if (ev->type != EVENT_IDLE)
		return;
	n_idle++;
	idle_ms = ev->idle_ms;
	fuzz_check(idle_ms == IDLE_UNKNOWN || idle_ms <= NOW);
}

char *supervised_url(const struct supervised *s, unsigned node, const char *path)
{
	(void)s;
	(void)node;
	return xasprintf("http://127.0.0.1:54321%s", path);
}

uint64_t gate_traffic_ms(const struct supervised *s)
{
	(void)s;
	return NOW / 3;
}

uint64_t fleet_now(struct fleet *f)
{
	(void)f;
	return NOW;
}

static struct supervised *only;

struct supervised *supervised_find(const struct fleet *f, const char *name)
{
	(void)f;
	(void)name;
	return only;
}

/* Says whether the answer was one of /3/Cloud that says the cloud is locked. */
static void note_lock(const char *path, const struct http_response *rsp)
{
	struct h2o_cloud_view v;

	if (!has_prefix(path, "/3/Cloud") || rsp->result != HTTP_OK || rsp->status != 200)
		return;
	if (h2o_cloud_view_parse(rsp->body, rsp->body_len, &v, NULL) == 0)
		said_locked = v.locked;
	h2o_cloud_view_free(&v);
}

/* "!": none comes. "5": HTTP status 500. */
static bool answer_next(void)
{
	size_t len;
	_cleanup_free_ char *body = NULL, *path = TAKE_PTR(asked.path);
	http_cb cb = asked.cb;
	struct http_response rsp = {.result = HTTP_OK, .status = 200, .cluster_good = true};

	if (!cb)
		return false;
	body = fuzz_part(&input, &len);
	rsp.body = body;
	rsp.body_len = len;
	if (body[0] == '!') {
		rsp.result = HTTP_BROKEN;
		rsp.status = 0;
		rsp.error = "broken";
	} else if (body[0] == '5') {
		rsp.status = 500;
	}
	note_lock(path, &rsp);
	asked.cb = NULL;
	cb(&rsp, asked.arg);
	return true;
}

/* --- the verdict -------------------------------------------------------------------------- */

static const struct expected_member expected_members[N] = {
	{"127.0.0.1:54321", 101}, {"127.0.0.1:54323", 102}, {"127.0.0.1:54325", 103}};
static const struct expected_cloud expected = {NAME, expected_members, N};

/* By the JSON alone: is it beyond doubt that the cloud is not whole? */
static bool lacks_something(const char *body, size_t len)
{
	json_auto_t *j = json_loadb(body, len, 0, NULL);
	const json_t *nodes = json_object_get(j, "nodes"), *node;
	bool found[N] = {false};
	size_t i;

	json_array_foreach (nodes, i, node)
		for (size_t k = 0; k < N; k++)
			if (streq_null(json_string_value(json_object_get(node, "ip_port")),
				    expected_members[k].ip_port) &&
				json_integer_value(json_object_get(node, "pid")) ==
					expected_members[k].pid)
				found[k] = true;
	return !found[0] || !found[1] || !found[2] || json_array_size(nodes) != N ||
	       json_integer_value(json_object_get(j, "cloud_size")) != N ||
	       !json_is_true(json_object_get(j, "consensus")) ||
	       !json_is_true(json_object_get(j, "cloud_healthy")) ||
	       json_integer_value(json_object_get(j, "bad_nodes")) != 0 ||
	       !streq_null(json_string_value(json_object_get(j, "cloud_name")), NAME);
}

static void judge(void)
{
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	size_t len;
	_cleanup_free_ char *body = fuzz_part(&input, &len);
	int r = h2o_cloud_view_parse(body, len, &v, &e);

	fuzz_check(r == 0 || (r == -EINVAL && e.msg));
	if (r < 0)
		return;
	for (size_t i = 0; i < v.n_members; i++)
		fuzz_check(isfinite(v.members[i].sys_load));
	for (size_t slot = 0; slot < N; slot++) {
		_cleanup_free_ char *why = NULL;
		enum verdict verdict = verdict_of(&v, &expected, slot, &why);

		fuzz_check((verdict == VERDICT_WHOLE) == !why);
		fuzz_check(verdict_of(&v, &expected, slot, NULL) == verdict);
		fuzz_check(verdict != VERDICT_WHOLE || !lacks_something(body, len));
	}
}

/* --- idle stop and jobs ------------------------------------------------------------------- */

static void ask_idle(struct supervised *s)
{
	n_idle = 0;
	idle_ask(s, 1000);
	for (int i = 0; i < LIMIT && answer_next(); i++)
		continue;
	fuzz_check(n_idle == 1 && !asked.cb); /* it is always answered */
	idle_cancel(s);
}

static void check_jobs(const struct fleet_jobs *j)
{
	_cleanup_free_ char *text = NULL;
	const json_t *job;
	size_t i;

	fuzz_check(!j->list == (j->error != NULL) || !j->locked);
	if (!j->list)
		return;
	fuzz_check(json_array_size(j->list) <= 500 && json_array_size(j->list) <= j->total);
	text = json_dumps(j->list, JSON_COMPACT);
	fuzz_check(text);
	json_array_foreach (j->list, i, job) {
		double progress = json_number_value(json_object_get(job, "progress"));

		fuzz_check(progress >= 0 && progress <= 1 && json_object_size(job) == 12);
	}
}

/* Until the answer is there: the list is parsed in several turns of the loop. */
static void ask_jobs(struct supervised *s, uv_loop_t *loop)
{
	struct fleet_jobs j;

	for (int i = 0; i < 2; i++) {
		bool known = fleet_jobs(s->fleet, "dev", NOW + 5000 * (uint64_t)i, &j);

		for (int k = 0; k < LIMIT && answer_next(); k++)
			continue;
		while (uv_run(loop, UV_RUN_ONCE))
			continue;
		known = fleet_jobs(s->fleet, "dev", NOW, &j);
		fuzz_check(known);
		check_jobs(&j);
	}
	if (said_locked) { /* only then there are jobs */
		fuzz_check(fleet_cancel_job(s->fleet, "dev", "$0301") == 0);
		answer_next();
	}
	jobs_free(s);
	uv_run(loop, UV_RUN_DEFAULT);
}

static void observe(const struct cloud *c, void *arg)
{
	(void)arg;
	fuzz_check(c == only->cloud);
}

static void supervise(void (*ask)(struct supervised *s, uv_loop_t *loop))
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *conf = cloud_conf_new("dev");
	struct fleet fleet = {.observer = observe};
	struct supervised s = {.fleet = &fleet};
	uv_loop_t loop;

	fuzz_check(uv_loop_init(&loop) == 0);
	fleet.loop = &loop;
	s.cloud = cloud_new(conf, 1);
	s.cloud->generation = 1;
	s.cloud->ready_ms = NOW / 2;
	only = &s;
	said_locked = false;
	ask(&s, &loop);
	if (asked.cb)
		http_cancel(NULL);
	cloud_free(s.cloud);
	fuzz_check(uv_loop_close(&loop) == 0);
}

static void idle(struct supervised *s, uv_loop_t *loop)
{
	(void)loop;
	ask_idle(s);
}

void fuzz_begin(void)
{
	log_set_level((enum log_level)0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = (struct fuzz_input){data, size};
	switch (fuzz_byte(&input)) {
	case 'i':
		supervise(idle);
		break;
	case 'j':
		supervise(ask_jobs);
		break;
	default:
		judge();
	}
	return 0;
}
