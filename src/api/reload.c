/* POST /v1/reload. What it does is the daemon's; here it is asked for and told. */
#include "api/routes.h"

#include <errno.h>

#include "api/view.h"

void api_set_reload(struct api *a, api_reload_fn *fn, void *arg)
{
	a->reload = fn;
	a->reload_arg = arg;
}

static json_t *view_key_change(const struct key_change *k)
{
	json_t *j = json_object();

	json_object_set_new(j, "key", json_string(k->key->name));
	json_object_set_new(j, "old", view_text(k->before));
	json_object_set_new(j, "new", view_text(k->after));
	json_object_set_new(j, "change", json_string(key_reload_name(k->key->reload)));
	return j;
}

static json_t *view_cloud_change(const struct cloud_change *ch)
{
	json_t *j = json_object(), *keys = json_array();

	for (size_t i = 0; i < ch->keys.n; i++)
		json_array_append_new(keys, view_key_change(&ch->keys.v[i]));
	json_object_set_new(j, "name", view_text(ch->name));
	json_object_set_new(j, "change", json_string(cloud_change_name(ch->kind)));
	json_object_set_new(j, "keys", keys);
	json_object_set_new(j, "applied", json_boolean(ch->applied));
	return j;
}

static json_t *view_errors(const struct strv *errors)
{
	json_t *list = json_array();

	for (size_t i = 0; i < errors->n; i++)
		json_array_append_new(list, view_text(errors->v[i]));
	return list;
}

static json_t *view_report(const struct reload_report *r, bool dry_run)
{
	json_t *j = json_object(), *clouds = json_array(), *fleet = json_array();

	for (size_t i = 0; i < r->diff.n; i++)
		json_array_append_new(clouds, view_cloud_change(&r->diff.clouds[i]));
	for (size_t i = 0; i < r->diff.fleet.n; i++) {
		const struct key_change *k = &r->diff.fleet.v[i];
		json_t *change = view_key_change(k);

		json_object_set_new(
			change, "applied", json_boolean(k->key->reload != RELOAD_DAEMON));
		json_array_append_new(fleet, change);
	}
	json_object_set_new(j, "dry_run", json_boolean(dry_run));
	json_object_set_new(j, "clouds", clouds);
	json_object_set_new(j, "fleet", fleet);
	json_object_set_new(j, "errors", view_errors(&r->errors));
	return j;
}

static void answer_refused(struct request *rq, int r, const struct reload_report *report)
{
	const struct strv *e = &report->errors;
	const char *first = e->n ? e->v[0] : "it could not be read";

	if (r == -ESHUTDOWN)
		problem(rq, MHD_HTTP_SERVICE_UNAVAILABLE, "shutting-down", "The daemon is ending",
			"%s", first);
	else if (e->n > 1)
		problem(rq, MHD_HTTP_UNPROCESSABLE_CONTENT, "bad-configuration",
			"The configuration is refused",
			"the configuration has %zu errors, so nothing was changed; the first: %s",
			e->n, first);
	else
		problem(rq, MHD_HTTP_UNPROCESSABLE_CONTENT, "bad-configuration",
			"The configuration is refused",
			"the configuration has an error, so nothing was changed: %s", first);
	json_object_set_new(rq->json, "errors", view_errors(e));
}

void handle_reload(struct request *rq)
{
	struct reload_options opts = {
		.dry_run = request_flag(rq, "dry_run"), .restart = request_flag(rq, "restart")};
	_cleanup_(reload_report_clear) struct reload_report report = {0};
	int r;

	if (rq->status)
		return;
	if (!rq->api->reload) {
		problem(rq, MHD_HTTP_NOT_IMPLEMENTED, "not-here", "Not here",
			"this daemon has no configuration to read again");
		return;
	}
	r = rq->api->reload(&opts, &report, rq->api->reload_arg);
	if (r < 0) {
		answer_refused(rq, r, &report);
		return;
	}
	rq->status = MHD_HTTP_OK;
	rq->json = view_report(&report, opts.dry_run);
}
