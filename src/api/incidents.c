/* Why clouds were lost. */
#include "api/routes.h"

#include <errno.h>

#include "base/text.h"
#include "core/incidents.h"

/* 0 when it was answered: the value is wrong. */
static size_t limit_of(struct request *rq)
{
	const char *text = request_param(rq, "limit");
	int64_t limit = INCIDENTS_MAX;

	if (text && (text_parse_int(text, &limit) < 0 || limit < 1 || limit > INCIDENTS_MAX)) {
		request_bad_value(rq, "limit", text, "a number from 1 to 100");
		return 0;
	}
	return (size_t)limit;
}

/* The clouds of incidents may be gone from the configuration, so any name is asked for. */
void handle_incidents(struct request *rq)
{
	const struct incidents *in = fleet_incidents(rq->api->fleet);
	const char *cloud = request_param(rq, "cloud");
	size_t limit = limit_of(rq);
	json_t *list;

	if (rq->status)
		return;
	list = json_array();
	for (size_t i = 0; i < incidents_count(in) && json_array_size(list) < limit; i++) {
		const json_t *s = incidents_summary(in, i);
		const char *of = json_string_value(json_object_get(s, "cloud"));

		if (!cloud || streq_null(of, cloud))
			json_array_append_new(list, json_deep_copy(s));
	}
	rq->json = json_object();
	json_object_set_new(rq->json, "incidents", list);
	rq->status = MHD_HTTP_OK;
}

static void cannot(struct request *rq, int r, const struct err *e)
{
	if (r == -ENOENT)
		problem(rq, MHD_HTTP_NOT_FOUND, "no-such-incident", "No such incident", "%s",
			err_msg(e));
	else
		problem(rq, MHD_HTTP_INTERNAL_SERVER_ERROR, "cannot-use-incident",
			"Cannot use the incident", "%s", err_msg(e));
}

void handle_incident(struct request *rq)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r = incidents_read(fleet_incidents(rq->api->fleet), rq->id, &rq->json, &e);

	if (r < 0)
		cannot(rq, r, &e);
	else
		rq->status = MHD_HTTP_OK;
}

void handle_incident_delete(struct request *rq)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r = fleet_remove_incident(rq->api->fleet, rq->id, &e);

	if (r < 0) {
		cannot(rq, r, &e);
		return;
	}
	rq->json = json_object();
	json_object_set_new(rq->json, "id", json_string(rq->id));
	json_object_set_new(rq->json, "deleted", json_true());
	rq->status = MHD_HTTP_OK;
}
