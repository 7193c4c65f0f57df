/* The fleet as a whole: in short, whether it is well, and its end. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "api/routes.h"

#include <inttypes.h>

#include "api/view.h"
#include "base/clock.h"

void api_set_shutdown(struct api *a, api_shutdown_fn *fn, void *arg)
{
	a->shutdown = fn;
	a->shutdown_arg = arg;
}

static void set_int(json_t *j, const char *key, uint64_t value)
{
	json_object_set_new(j, key, json_integer((json_int_t)value));
}

static void count(json_t *counts, const char *key)
{
	set_int(counts, key, (uint64_t)json_integer_value(json_object_get(counts, key)) + 1);
}

/* All states are there, also those that nobody is in. */
static json_t *count_clouds(const struct fleet *f)
{
	json_t *j = json_object();

	set_int(j, "total", fleet_n_clouds(f));
	for (int s = 0; s < N_CLOUD_STATES; s++)
		set_int(j, cloud_state_name((enum cloud_state)s), 0);
	for (size_t i = 0; i < fleet_n_clouds(f); i++)
		count(j, cloud_state_name(fleet_cloud(f, i)->state));
	return j;
}

static json_t *count_nodes(const struct fleet *f)
{
	json_t *j = json_object();

	set_int(j, "total", 0);
	for (int s = 0; s < N_NODE_STATES; s++)
		set_int(j, node_state_name((enum node_state)s), 0);
	for (size_t i = 0; i < fleet_n_clouds(f); i++) {
		cloud_for_each_node (n, fleet_cloud(f, i)) {
			count(j, "total");
			count(j, node_state_name(n->state));
		}
	}
	return j;
}

static json_t *view_boot_cache(const struct fleet *f)
{
	_cleanup_free_ char *dir = xasprintf("%s/boot", fleet_conf(f)->fleet.cache_dir);
	json_t *j = json_object(), *last = json_null();
	struct fleet_boot_cache b;

	fleet_boot_cache(f, &b);
	json_object_set_new(j, "dir", view_text(dir));
	json_object_set_new(j, "building", view_text(b.building));
	json_object_set_new(j, "step", view_text(b.step));
	if (b.last.result) {
		last = json_object();
		json_object_set_new(last, "result", json_string(b.last.result));
		json_object_set_new(last, "cloud", view_text(b.last.cloud));
		json_object_set_new(last, "why", view_text(b.last.why));
		json_object_set_new(last, "time", view_wall(b.last.wall_ms));
		set_int(last, "duration_ms", b.last.duration_ms);
	}
	json_object_set_new(j, "last", last);
	return j;
}

static bool is_settled(const struct fleet *f)
{
	return fleet_settled(f, fleet_conf(f)->fleet.ready_when == READY_WHEN_CLOUDS);
}

void handle_fleet(struct request *rq)
{
	struct api *a = rq->api;
	const struct fleet_conf *conf = &fleet_conf(a->fleet)->fleet;
	json_t *j = json_object();

	json_object_set_new(j, "id", json_string(fleet_id(a->fleet)));
	json_object_set_new(j, "version", json_string(PACKAGE_VERSION));
	json_object_set_new(j, "pid", json_integer(getpid()));
	set_int(j, "uptime_ms", clock_monotonic_ms() - a->started_ms);
	set_int(j, "loop_lag_ms", loop_lag_ms(a->lag));
	set_int(j, "loop_lag_recent_ms", loop_lag_recent_ms(a->lag));
	json_object_set_new(j, "loop_lag_recent", view_loop_lag(a->lag));
	json_object_set_new(j, "socket", view_text(a->acceptor.listener.path));
	json_object_set_new(j, "state_dir", view_text(conf->state_dir));
	json_object_set_new(j, "cache_dir", view_text(conf->cache_dir));
	json_object_set_new(j, "boot_cache", view_boot_cache(a->fleet));
	json_object_set_new(j, "log_dir", view_text(conf->log_dir));
	json_object_set_new(j, "ending", json_boolean(fleet_ending(a->fleet)));
	json_object_set_new(j, "settled", json_boolean(is_settled(a->fleet)));
	set_int(j, "overdue_ms", fleet_overdue_ms(a->fleet));
	json_object_set_new(j, "clouds", count_clouds(a->fleet));
	json_object_set_new(j, "nodes", count_nodes(a->fleet));
	json_object_set_new(
		j, "troubles", view_troubles(fleet_troubles(a->fleet), fleet_now(a->fleet)));
	json_object_set_new(j, "journal",
		json_pack("{s:s, s:I}", "epoch", journal_epoch(a->journal), "seq",
			(json_int_t)journal_last(a->journal)));
	set_int(j, "followers", a->n_streams);
	answer(rq, MHD_HTTP_OK, j);
}

/* That we answer shows that the loop turns; that its timers run must be seen, too: the criterion of
 * systemd's watchdog (daemon/status.c). How the clouds are is no matter of the daemon's health. */
void handle_health(struct request *rq)
{
	struct fleet *f = rq->api->fleet;
	uint64_t overdue = fleet_overdue_ms(f);
	bool settled = is_settled(f), must_be_settled = request_flag(rq, "settled");
	json_t *j;

	if (rq->status)
		return;
	if (fleet_ending(f)) {
		problem(rq, MHD_HTTP_SERVICE_UNAVAILABLE, "shutting-down", "The daemon is ending",
			"h2ofleetd stops its clouds, and ends");
		return;
	}
	if (overdue > FLEET_OVERDUE_MAX_MS) {
		problem(rq, MHD_HTTP_SERVICE_UNAVAILABLE, "not-healthy", "The daemon is not well",
			"a deadline was missed by %" PRIu64 " ms, so a cloud may not be supervised "
			"any more; replace the daemon: h2ofleet reexec",
			overdue);
		return;
	}
	if (must_be_settled && !settled) {
		problem(rq, MHD_HTTP_SERVICE_UNAVAILABLE, "not-settled", "Still starting",
			"some cloud is on its way to where it is wanted; see GET /v1/clouds");
		return;
	}
	j = json_pack("{s:s, s:b}", "status", "ok", "settled", (int)settled);
	set_int(j, "overdue_ms", overdue);
	set_int(j, "loop_lag_ms", loop_lag_ms(rq->api->lag));
	set_int(j, "loop_lag_recent_ms", loop_lag_recent_ms(rq->api->lag));
	answer(rq, MHD_HTTP_OK, j);
}

void handle_shutdown(struct request *rq)
{
	bool at_once = request_flag(rq, "at_once");

	if (rq->status)
		return;
	if (!rq->api->shutdown) {
		problem(rq, MHD_HTTP_NOT_IMPLEMENTED, "not-here", "Not here",
			"this daemon cannot be ended by request");
		return;
	}
	answer(rq, MHD_HTTP_ACCEPTED,
		json_pack("{s:b, s:b}", "ending", 1, "at_once", (int)at_once));
	rq->api->shutdown(at_once, rq->api->shutdown_arg);
}
