/* The jobs of a cloud. Whoever asks is suspended (waiter.c) until H2O has answered. */
#include "api/routes.h"

#include <errno.h>

static void answer_jobs(struct request *rq, const struct fleet_jobs *jobs)
{
	json_t *j = json_object();

	json_object_set_new(j, "cloud", json_string(rq->cloud_name));
	json_object_set_new(j, "locked", json_boolean(jobs->locked));
	json_object_set_new(j, "total", json_integer((json_int_t)jobs->total));
	/* Copied: the answer goes out in another turn of the loop. */
	json_object_set_new(j, "jobs", json_copy((json_t *)jobs->list));
	rq->status = MHD_HTTP_OK;
	rq->json = j;
}

static json_t *find_job(const struct fleet_jobs *jobs, const char *id)
{
	json_t *job;
	size_t i;

	json_array_foreach (jobs->list, i, job)
		if (streq_null(json_string_value(json_object_get(job, "id")), id))
			return job;
	return NULL;
}

/* Jobs that have ended stay as they are: cancelling twice does no harm. */
static void cancel_job(struct request *rq, const struct fleet_jobs *jobs)
{
	json_t *job = find_job(jobs, rq->id);
	int r = 0;

	if (!job) {
		problem(rq, MHD_HTTP_NOT_FOUND, "no-such-job", "No such job",
			"cloud '%s' has no job '%s'%s", rq->cloud_name, rq->id,
			jobs->locked ? "" : ": it is not even locked, so it has none at all");
		return;
	}
	job = json_incref(job);
	if (json_is_true(json_object_get(job, "running")))
		r = fleet_cancel_job(rq->api->fleet, rq->cloud_name, rq->id);
	if (r < 0) {
		problem(rq, MHD_HTTP_BAD_GATEWAY, "h2o-unreachable", "H2O was not asked",
			"cloud '%s' cannot be asked to cancel the job now: %s", rq->cloud_name,
			r == -EBUSY ? "many are being cancelled; try again" : strerror(-r));
		json_decref(job);
		return;
	}
	rq->status = MHD_HTTP_ACCEPTED;
	rq->json = job;
}

static void not_usable(struct request *rq, const struct cloud *c)
{
	if (c->state == CLOUD_STOPPED || c->state == CLOUD_STOPPING || c->state == CLOUD_FAILED) {
		problem_not_running(rq, c);
		return;
	}
	problem(rq, MHD_HTTP_CONFLICT, "cloud-not-ready", "The cloud is not ready",
		"cloud '%s' is %s%s%s", rq->cloud_name, cloud_state_name(c->state),
		c->reason ? ": " : "", c->reason ? c->reason : "");
	problem_add_cloud(rq, c);
}

void jobs_judge(struct request *rq, const struct cloud *c)
{
	struct fleet_jobs jobs;

	if (!cloud_usable(c))
		not_usable(rq, c);
	else if (!fleet_jobs(rq->api->fleet, rq->cloud_name, rq->begun_ms, &jobs))
		return;
	else if (jobs.error)
		problem(rq, MHD_HTTP_BAD_GATEWAY, "h2o-unreachable", "H2O did not answer",
			"cloud '%s' did not tell its jobs: %s", rq->cloud_name, jobs.error);
	else if (rq->id)
		cancel_job(rq, &jobs);
	else
		answer_jobs(rq, &jobs);
}

void handle_jobs(struct request *rq)
{
	waiter_begin(rq, WAIT_JOBS, UINT64_MAX);
}

void handle_job_cancel(struct request *rq)
{
	waiter_begin(rq, WAIT_JOBS, UINT64_MAX);
}
