#include "api/server.h"

#include "api/view.h"
#include "base/text.h"

void problem(struct request *rq, unsigned status, const char *type, const char *title,
	const char *detail_fmt, ...)
{
	_cleanup_free_ char *detail = NULL, *shown = NULL;
	va_list ap;

	va_start(ap, detail_fmt);
	detail = xvasprintf(detail_fmt, ap);
	va_end(ap);
	/* Parts of it came from the client, and may go to a terminal. */
	shown = text_visible(detail, strlen(detail));

	json_decref(rq->json);
	rq->json = json_object();
	rq->status = status;
	rq->problem = true;
	json_object_set_new(rq->json, "type", json_sprintf("urn:h2ofleet:problem:%s", type));
	json_object_set_new(rq->json, "title", json_string(title));
	json_object_set_new(rq->json, "status", json_integer(status));
	json_object_set_new(rq->json, "detail", json_string(shown));
}

void problem_add_cloud(struct request *rq, const struct cloud *c)
{
	json_object_set_new(rq->json, "cloud", view_live_cloud(rq->api->fleet, c));
}

void problem_not_running(struct request *rq, const struct cloud *c)
{
	bool failed = c->state == CLOUD_FAILED;
	const char *what = failed                       ? "failed"
			   : rq->commanded              ? "was stopped before it was ready"
			   : c->state == CLOUD_STOPPING ? "is being stopped"
			   : c->reason                  ? "is stopped"
							: "is stopped, and nobody has started it";

	problem(rq, MHD_HTTP_CONFLICT, failed ? "cloud-failed" : "cloud-stopped",
		failed ? "The cloud failed" : "The cloud is stopped", "cloud '%s' %s%s%s",
		rq->cloud_name, what, c->reason ? ": " : "", c->reason ? c->reason : "");
	problem_add_cloud(rq, c);
}

void problem_cloud_removed(struct request *rq)
{
	problem(rq, MHD_HTTP_GONE, "no-such-cloud", "The cloud was removed",
		"cloud '%s' is not in the configuration any more; it is being stopped",
		rq->cloud_name);
}

void problem_no_such_cloud(struct request *rq)
{
	const char *near = fleet_nearest(rq->api->fleet, rq->cloud_name);

	if (near)
		problem(rq, MHD_HTTP_NOT_FOUND, "no-such-cloud", "No such cloud",
			"no cloud '%s'; did you mean '%s'?", rq->cloud_name, near);
	else
		problem(rq, MHD_HTTP_NOT_FOUND, "no-such-cloud", "No such cloud", "no cloud '%s'",
			rq->cloud_name);
}
