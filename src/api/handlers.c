#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "api/routes.h"

#include <errno.h>

#include <curl/curl.h>

#include "api/view.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"

static void view_reexec(json_t *j, const struct reexec_status *st)
{
	json_object_set_new(j, "reexecs", json_integer(st->count));
	json_object_set_new(j, "reexec_under_way", json_boolean(st->under_way));
	json_object_set_new(j, "reexec_error", st->error ? json_string(st->error) : json_null());
}

/* Seconds east of UTC now, here: the stamps in H2O's logs, which name no zone, are of the nodes'.
 */
static long utc_offset_s(void)
{
	time_t now = time(NULL);
	struct tm tm;

	return localtime_r(&now, &tm) ? tm.tm_gmtoff : 0;
}

void handle_version(struct request *rq)
{
	json_t *j = json_object(), *libs = json_object();
	struct reexec_status st = {0};

	json_object_set_new(libs, "libuv", json_string(uv_version_string()));
	json_object_set_new(libs, "libmicrohttpd", json_string(MHD_get_version()));
	json_object_set_new(libs, "jansson", json_string(jansson_version_str()));
	json_object_set_new(
		libs, "libcurl", json_string(curl_version_info(CURLVERSION_NOW)->version));
	json_object_set_new(j, "version", json_string(PACKAGE_VERSION));
	json_object_set_new(j, "api", json_string("v1"));
	json_object_set_new(j, "pid", json_integer(getpid()));
	json_object_set_new(j, "uptime_ms",
		json_integer((json_int_t)(clock_monotonic_ms() - rq->api->started_ms)));
	json_object_set_new(j, "loop_lag_ms", json_integer((json_int_t)loop_lag_ms(rq->api->lag)));
	json_object_set_new(j, "loop_lag_recent_ms",
		json_integer((json_int_t)loop_lag_recent_ms(rq->api->lag)));
	json_object_set_new(j, "loop_lag_recent", view_loop_lag(rq->api->lag));
	json_object_set_new(j, "utc_offset_s", json_integer(utc_offset_s()));
	json_object_set_new(j, "libraries", libs);
	if (rq->api->reexec)
		rq->api->reexec(false, &st, rq->api->reexec_arg);
	view_reexec(j, &st);
	answer(rq, MHD_HTTP_OK, j);
}

void handle_reexec(struct request *rq)
{
	struct reexec_status st = {0};
	int r = rq->api->reexec ? rq->api->reexec(true, &st, rq->api->reexec_arg) : -ENOSYS;
	json_t *j;

	if (r < 0) {
		problem(rq, MHD_HTTP_SERVICE_UNAVAILABLE, "cannot-reexec", "Cannot reexec",
			"the daemon does not replace itself now: %s",
			st.error ? st.error : strerror(-r));
		return;
	}
	j = json_object();
	view_reexec(j, &st);
	answer(rq, MHD_HTTP_ACCEPTED, j);
}

void handle_clouds(struct request *rq)
{
	json_t *j = json_object(), *clouds = json_array();

	for (size_t i = 0; i < fleet_n_clouds(rq->api->fleet); i++)
		json_array_append_new(
			clouds, view_live_cloud(rq->api->fleet, fleet_cloud(rq->api->fleet, i)));
	json_object_set_new(j, "clouds", clouds);
	json_object_set_new(j, "troubles",
		view_troubles(fleet_troubles(rq->api->fleet), fleet_now(rq->api->fleet)));
	answer(rq, MHD_HTTP_OK, j);
}

enum wait_for request_wait(struct request *rq, unsigned may, uint64_t *timeout_ms)
{
	static const char *const words[] = {
		[WAIT_READY] = "ready", [WAIT_STOPPED] = "stopped", [WAIT_DELETED] = "deleted"};
	const char *wait = request_param(rq, "wait"), *timeout = request_param(rq, "timeout");
	_cleanup_(strbuf_free) struct strbuf all = STRBUF_NULL;

	*timeout_ms = UINT64_MAX;
	if (timeout && text_parse_duration(timeout, timeout_ms) < 0) {
		request_bad_value(rq, "timeout", timeout, "a time such as 60s, 5m or 500ms");
		return WAIT_NONE;
	}
	for (unsigned w = WAIT_READY; w <= WAIT_DELETED; w++) {
		if (!(may & 1u << w))
			continue;
		if (wait && streq(wait, words[w]))
			return (enum wait_for)w;
		strbuf_printf(&all, "%s%s", all.len ? " or " : "", words[w]);
	}
	if (wait)
		request_bad_value(rq, "wait", wait, strbuf_str(&all));
	else if (timeout)
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-parameter", "Bad parameter",
			"'timeout' means nothing without 'wait'");
	return WAIT_NONE;
}

void handle_cloud(struct request *rq)
{
	uint64_t timeout_ms;
	enum wait_for wait = request_wait(rq, 1u << WAIT_READY | 1u << WAIT_STOPPED, &timeout_ms);

	if (rq->status)
		return;
	if (wait != WAIT_NONE)
		waiter_begin(rq, wait, timeout_ms);
	else
		answer(rq, MHD_HTTP_OK,
			view_live_cloud(
				rq->api->fleet, fleet_find(rq->api->fleet, rq->cloud_name)));
}

static void command(struct request *rq, enum fleet_command cmd)
{
	const struct cloud *c = fleet_find(rq->api->fleet, rq->cloud_name);
	uint64_t timeout_ms;
	enum wait_for wait = request_wait(
		rq, 1u << (cmd == FLEET_STOP ? WAIT_STOPPED : WAIT_READY), &timeout_ms);
	bool flag = request_flag(rq, cmd == FLEET_STOP ? "disarm" : "resume");

	if (rq->status)
		return;
	if (c->removed && cmd != FLEET_STOP) {
		problem_cloud_removed(rq);
		return;
	}
	/* A usable cloud that is to be restarted is ready for a moment still. */
	rq->min_generation = c->generation + (cmd == FLEET_RESTART && cloud_usable(c));
	rq->commanded = true;
	fleet_command(rq->api->fleet, rq->cloud_name, cmd, flag);
	if (wait != WAIT_NONE)
		waiter_begin(rq, wait, timeout_ms);
	else
		answer(rq, MHD_HTTP_ACCEPTED, view_live_cloud(rq->api->fleet, c));
}

void handle_start(struct request *rq)
{
	command(rq, FLEET_START);
}

void handle_stop(struct request *rq)
{
	command(rq, FLEET_STOP);
}

void handle_restart(struct request *rq)
{
	command(rq, FLEET_RESTART);
}

/* Nothing is postponed where nothing runs; while it starts its time has not begun. */
void handle_touch(struct request *rq)
{
	const struct cloud *c = fleet_find(rq->api->fleet, rq->cloud_name);

	if (c->wanted == WANTED_STOPPED || c->state == CLOUD_FAILED) {
		problem_not_running(rq, c);
		return;
	}
	fleet_command(rq->api->fleet, rq->cloud_name, FLEET_TOUCH, false);
	answer(rq, MHD_HTTP_ACCEPTED, view_live_cloud(rq->api->fleet, c));
}
