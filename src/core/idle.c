/* When was a cloud last used? Bytes through the gate tell at once; where they say idle, member 0 is
 * asked over REST, one question after the other:
 *
 *	/3/Cloud	locked? A cloud that is not has never been used (each job, session and key
 *locks it), and must not be asked more: the next two would lock it /3/SteamMetrics	how long ago
 *the last job or Rapids expression ended /3/Jobs		is one running?
 *
 * Whatever cannot be asked, or has no good answer, makes the answer IDLE_UNKNOWN. */
#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/internal.h"

#define TIMEOUT_MS 10000

/* A list of jobs has their stack traces, too. It is searched, not parsed: that takes no time. */
#define MAX_JOBS_BODY (32 << 20)

static void report(struct supervised *s, uint64_t idle_ms, bool busy)
{
	supervised_feed(
		s, &(struct cloud_event){.type = EVENT_IDLE, .idle_ms = idle_ms, .flag = busy});
}

static uint64_t since(struct supervised *s, uint64_t at_ms)
{
	uint64_t now = fleet_now(s->fleet);

	return now - MIN(at_ms, now);
}

/* With what has come through the gate while it was asked. */
static void report_use(struct supervised *s, bool busy)
{
	report(s, since(s, MAX(s->idle.used_ms, gate_traffic_ms(s))), busy);
}

static void unknown(struct supervised *s, const char *question, const struct http_response *rsp)
{
	log_info("cloud %s: whether it is used is not known: no good answer to %s (%s)",
		s->cloud->conf->name, question, rsp->error ? rsp->error : "not what H2O says");
	report(s, IDLE_UNKNOWN, false);
}

static void ask(struct supervised *s, const char *path, http_cb cb)
{
	_cleanup_free_ char *url = supervised_url(s, 0, path);
	struct http_spec spec = {
		.url = url, .method = "GET", .timeout_ms = TIMEOUT_MS, .max_body = MAX_JOBS_BODY};

	if (http_start(s->fleet->http, &spec, cb, s, &s->idle.request) < 0) {
		s->idle.request = NULL;
		report(s, IDLE_UNKNOWN, false);
	}
}

/* The answer is there; false: it is of a generation that is gone, or not good. */
static bool good(struct supervised *s, const char *question, const struct http_response *rsp)
{
	s->idle.request = NULL;
	if (s->cloud->generation != s->idle.generation)
		return false;
	if (rsp->result == HTTP_OK && rsp->status == 200)
		return true;
	unknown(s, question, rsp);
	return false;
}

/* Is there a job of that status? Quotes within strings are escaped, so this is never found there.
 */
static bool has_status(const char *jobs, const char *status)
{
	const size_t n = strlen(status);

	for (const char *p = jobs; (p = strstr(p, "\"status\""));) {
		p += strlen("\"status\"");
		p += strspn(p, " :\n\t");
		if (*p == '"' && strncmp(p + 1, status, n) == 0 && p[1 + n] == '"')
			return true;
	}
	return false;
}

static void on_jobs(const struct http_response *rsp, void *arg)
{
	struct supervised *s = arg;

	if (!good(s, "/3/Jobs", rsp))
		return;
	if (!strstr(rsp->body, "\"jobs\""))
		unknown(s, "/3/Jobs", rsp);
	else
		report_use(s, has_status(rsp->body, "RUNNING") ||
				      has_status(rsp->body, "CANCEL_PENDING"));
}

static int64_t behind(struct supervised *s)
{
	return (int64_t)clock_wall_ms() - (int64_t)fleet_now(s->fleet);
}

/* H2O goes by the wall clock, we do not count the time in which the machine slept. Where in H2O's
 * time it slept is not known; since the last question, if at all. */
static uint64_t awake_idle(struct supervised *s, json_int_t idle_millis)
{
	int64_t now_behind = behind(s), slept = now_behind - s->idle.behind_ms;

	s->idle.behind_ms = now_behind;
	return idle_millis > slept ? (uint64_t)(idle_millis - slept) : 0;
}

static void on_metrics(const struct http_response *rsp, void *arg)
{
	struct supervised *s = arg;
	json_auto_t *j = NULL;
	const json_t *idle;
	uint64_t ms;

	if (!good(s, "/3/SteamMetrics", rsp))
		return;
	j = json_loadb(rsp->body, rsp->body_len, 0, NULL);
	idle = json_object_get(j, "idle_millis");
	if (!json_is_integer(idle)) {
		unknown(s, "/3/SteamMetrics", rsp);
		return;
	}
	ms = awake_idle(s, json_integer_value(idle));
	s->idle.used_ms = MAX(s->idle.used_ms, s->idle.asked_ms - MIN(ms, s->idle.asked_ms));
	ask(s, "/3/Jobs", on_jobs);
}

static void on_cloud(const struct http_response *rsp, void *arg)
{
	struct supervised *s = arg;
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view view = {0};

	if (!good(s, "/3/Cloud", rsp))
		return;
	if (h2o_cloud_view_parse(rsp->body, rsp->body_len, &view, NULL) < 0)
		unknown(s, "/3/Cloud", rsp);
	else if (!view.locked)
		report_use(s, false);
	else
		ask(s, "/3/SteamMetrics", on_metrics);
}

void idle_watch(struct supervised *s)
{
	s->idle.generation = s->cloud->generation;
	s->idle.behind_ms = behind(s);
}

/* Our clock, behind the monotonic one: each daemon's is another. */
static int64_t held_up(const struct supervised *s)
{
	return (int64_t)clock_monotonic_ms() - (int64_t)fleet_now(s->fleet);
}

json_t *idle_memory(const struct supervised *s)
{
	if (s->idle.generation != s->cloud->generation)
		return NULL;
	return json_integer(s->idle.behind_ms - held_up(s));
}

void idle_remember(struct supervised *s, const json_t *memory)
{
	if (!json_is_integer(memory))
		return;
	s->idle.generation = s->cloud->generation;
	s->idle.behind_ms = json_integer_value(memory) + held_up(s);
}

void idle_ask(struct supervised *s, uint64_t enough_ms)
{
	idle_cancel(s);
	if (s->idle.generation != s->cloud->generation) /* adopted, and not remembered */
		idle_watch(s);
	s->idle.asked_ms = fleet_now(s->fleet);
	s->idle.used_ms = MAX(gate_traffic_ms(s), s->cloud->ready_ms);
	if (since(s, s->idle.used_ms) < enough_ms)
		report(s, since(s, s->idle.used_ms), false);
	else
		ask(s, "/3/Cloud?skip_ticks=true", on_cloud);
}

void idle_cancel(struct supervised *s)
{
	if (s->idle.request)
		http_cancel(s->idle.request);
	s->idle.request = NULL;
}
