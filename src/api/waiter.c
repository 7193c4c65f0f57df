/* Requests that wait for a cloud: suspended in libmicrohttpd until an observer call, the deadline,
 * the client's hanging up or the end of the daemon decides. */
#include "api/server.h"

#include "api/view.h"
#include "base/text.h"

/* A suspended connection is watched by nobody, so this is how soon a vanished client is noticed. */
#define TICK_MS 250

static void answer_reached(struct request *rq, const struct cloud *c)
{
	rq->status = MHD_HTTP_OK;
	rq->json = view_live_cloud(rq->api->fleet, c);
}

static void answer_timeout(struct request *rq, const struct cloud *c)
{
	const char *goal = rq->wait_for == WAIT_READY     ? "ready"
			   : rq->wait_for == WAIT_DELETED ? "gone"
							  : "stopped";
	_cleanup_free_ char *after = text_format_duration(rq->timeout_ms);
	bool backoff = c->state == CLOUD_BACKOFF;

	problem(rq, MHD_HTTP_GATEWAY_TIMEOUT, "wait-timeout", "Not reached in time",
		"cloud '%s' %s%s, not yet %s after %s (--timeout)%s%s", rq->cloud_name,
		backoff ? "waits before its next start" : "is ",
		backoff ? "" : cloud_state_name(c->state), goal, after, c->reason ? ": " : "",
		c->reason ? c->reason : "");
	problem_add_cloud(rq, c);
}

static void judge_ready(struct request *rq, const struct cloud *c)
{
	if (c->removed)
		problem_cloud_removed(rq);
	else if (cloud_usable(c) && c->generation >= rq->min_generation)
		answer_reached(rq, c);
	else if (c->state == CLOUD_FAILED)
		problem_not_running(rq, c);
	else if (c->state == CLOUD_STOPPED &&
		 (rq->commanded ? rq->moved : c->wanted == WANTED_STOPPED))
		problem_not_running(
			rq, c); /* somebody else's stop, a client's shutdown, no start */
}

/* A failed cloud has nothing running either. */
static void judge_stopped(struct request *rq, const struct cloud *c)
{
	if (c->state == CLOUD_STOPPED || c->state == CLOUD_FAILED)
		answer_reached(rq, c);
}

/* One of the same name that was made meanwhile is another. */
static void judge_deleted(struct request *rq, const struct cloud *c)
{
	if (!c || (!c->removed && c->conf->created)) {
		rq->status = MHD_HTTP_OK;
		rq->json = json_object();
		json_object_set_new(rq->json, "name", view_text(rq->cloud_name));
		json_object_set_new(rq->json, "deleted", json_true());
	} else if (!c->removed) {
		problem(rq, MHD_HTTP_CONFLICT, "cloud-configured", "The cloud is configured",
			"cloud '%s' was taken back meanwhile: it is in the configuration now",
			rq->cloud_name);
	}
}

/* Fills the answer once there is one. */
static void judge(struct request *rq, const struct cloud *c)
{
	rq->moved |= c->state != CLOUD_STOPPED;
	if (rq->wait_for == WAIT_JOBS)
		jobs_judge(rq, c);
	else if (rq->wait_for == WAIT_READY)
		judge_ready(rq, c);
	else if (rq->wait_for == WAIT_DELETED)
		judge_deleted(rq, c);
	else
		judge_stopped(rq, c);
	if (!rq->status && fleet_now(rq->api->fleet) >= rq->deadline_ms)
		answer_timeout(rq, c);
}

void waiter_begin(struct request *rq, enum wait_for what, uint64_t timeout_ms)
{
	struct api *a = rq->api;
	uint64_t now = fleet_now(a->fleet);

	rq->wait_for = what;
	rq->begun_ms = now;
	rq->timeout_ms = timeout_ms;
	rq->deadline_ms = timeout_ms > UINT64_MAX - now ? UINT64_MAX : now + timeout_ms;
	judge(rq, fleet_find(a->fleet, rq->cloud_name));
	if (rq->status)
		return;
	rq->waiting = true;
	rq->prev = NULL;
	rq->next = a->waiters;
	if (a->waiters)
		a->waiters->prev = rq;
	a->waiters = rq;
	MHD_suspend_connection(rq->conn);
	if (!uv_is_active((uv_handle_t *)&a->wait_timer))
		uv_timer_start(&a->wait_timer, waiters_on_timer, TICK_MS, TICK_MS);
}

void waiter_forget(struct request *rq)
{
	struct api *a = rq->api;

	if (!rq->waiting)
		return;
	rq->waiting = false;
	if (rq->prev)
		rq->prev->next = rq->next;
	else
		a->waiters = rq->next;
	if (rq->next)
		rq->next->prev = rq->prev;
	if (!a->waiters)
		uv_timer_stop(&a->wait_timer);
}

/* The access handler is called again for it, and finds the answer. */
static void resume(struct request *rq)
{
	waiter_forget(rq);
	MHD_resume_connection(rq->conn);
	server_run_soon(rq->api);
}

void waiters_update(struct api *a, const struct cloud *c)
{
	struct request *next;

	for (struct request *rq = a->waiters; rq; rq = next) {
		next = rq->next;
		if (!streq(rq->cloud_name, c->conf->name))
			continue;
		judge(rq, c);
		if (rq->status)
			resume(rq);
	}
}

void waiters_on_timer(uv_timer_t *t)
{
	struct api *a = t->data;
	struct request *next;

	for (struct request *rq = a->waiters; rq; rq = next) {
		const struct cloud *c = fleet_find(a->fleet, rq->cloud_name);

		next = rq->next;
		rq->gone = server_client_gone(rq->conn);
		if (!rq->gone && c)
			judge(rq, c);
		else if (!rq->gone && rq->wait_for == WAIT_DELETED)
			judge_deleted(rq, NULL);
		else if (!rq->gone)
			problem_no_such_cloud(rq);
		if (rq->gone || rq->status)
			resume(rq);
	}
}

void waiters_end(struct api *a)
{
	while (a->waiters) {
		problem(a->waiters, MHD_HTTP_SERVICE_UNAVAILABLE, "shutting-down",
			"The daemon is ending",
			"h2ofleetd is ending; nobody waits for '%s' any more",
			a->waiters->cloud_name);
		resume(a->waiters);
	}
}
