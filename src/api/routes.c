#include "api/routes.h"

#include "base/strbuf.h"
#include "base/text.h"

static const struct route routes[] = {
	{"GET", "/v1/fleet", ACCESS_GROUP, handle_fleet, {}},
	{"GET", "/v1/version", ACCESS_GROUP, handle_version, {}},
	{"GET", "/v1/healthz", ACCESS_GROUP, handle_health, {"settled"}},
	{"GET", "/v1/config", ACCESS_GROUP, handle_config, {}},
	{"GET", "/v1/openapi.json", ACCESS_GROUP, handle_openapi, {}},
	{"GET", "/v1/events", ACCESS_GROUP, handle_events, {"since", "cloud", "follow"}},
	{"GET", "/v1/clouds", ACCESS_GROUP, handle_clouds, {}},
	{"POST", "/v1/clouds", ACCESS_GROUP, handle_create, {}, .body = true},
	{"GET", "/v1/clouds/{name}", ACCESS_GROUP, handle_cloud, {"wait", "timeout"}},
	{"DELETE", "/v1/clouds/{name}", ACCESS_GROUP, handle_delete, {"wait", "timeout"}},
	{"GET", "/v1/clouds/{name}/config", ACCESS_GROUP, handle_cloud_config, {}},
	{"PATCH", "/v1/clouds/{name}/config", ACCESS_GROUP, handle_cloud_configure, {},
		.body = true},
	{"POST", "/v1/clouds/{name}/start", ACCESS_GROUP, handle_start,
		{"wait", "timeout", "resume"}},
	{"POST", "/v1/clouds/{name}/stop", ACCESS_GROUP, handle_stop,
		{"wait", "timeout", "disarm"}},
	{"POST", "/v1/clouds/{name}/restart", ACCESS_GROUP, handle_restart,
		{"wait", "timeout", "resume"}},
	{"POST", "/v1/clouds/{name}/touch", ACCESS_GROUP, handle_touch, {}},
	{"GET", "/v1/clouds/{name}/jobs", ACCESS_GROUP, handle_jobs, {}},
	{"POST", "/v1/clouds/{name}/jobs/{id}/cancel", ACCESS_GROUP, handle_job_cancel, {}},
	{"GET", "/v1/clouds/{name}/nodes", ACCESS_GROUP, handle_nodes, {}},
	{"GET", "/v1/clouds/{name}/nodes/{index}", ACCESS_GROUP, handle_node, {}},
	{"GET", "/v1/clouds/{name}/nodes/{index}/log", ACCESS_GROUP, handle_log,
		{"tail", "from", "follow"}},
	{"GET", "/v1/incidents", ACCESS_GROUP, handle_incidents, {"cloud", "limit"}},
	{"GET", "/v1/incidents/{id}", ACCESS_GROUP, handle_incident, {}},
	{"DELETE", "/v1/incidents/{id}", ACCESS_ADMIN, handle_incident_delete, {}},
	{"POST", "/v1/reexec", ACCESS_ADMIN, handle_reexec, {}},
	{"POST", "/v1/reload", ACCESS_ADMIN, handle_reload, {"dry_run", "restart"}},
	{"POST", "/v1/shutdown", ACCESS_ADMIN, handle_shutdown, {"at_once"}},
};

const struct route *routes_all(size_t *n)
{
	*n = ARRAY_SIZE(routes);
	return routes;
}

/* The end of the segment that begins at `s`. */
static const char *segment_end(const char *s)
{
	return s + strcspn(s, "/");
}

/* Where the segment that fits `pattern` goes. */
static char **path_argument(struct request *rq, const char *pattern)
{
	return has_prefix(pattern, "{name}")    ? &rq->cloud_name
	       : has_prefix(pattern, "{index}") ? &rq->node_index
						: &rq->id;
}

/* Does `path` fit `pattern`? Then NAME, I and ID are in the request. */
static bool match(struct request *rq, const char *pattern, const char *path)
{
	while (*pattern == '/' && *path == '/') {
		const char *pattern_end = segment_end(++pattern), *path_end = segment_end(++path);
		size_t pattern_len = (size_t)(pattern_end - pattern);
		size_t path_len = (size_t)(path_end - path);

		if (*pattern == '{') {
			char **into = path_argument(rq, pattern);

			if (path_len == 0)
				return false;
			free(*into);
			*into = xstrndup(path, path_len);
		} else if (pattern_len != path_len || memcmp(pattern, path, path_len) != 0) {
			return false;
		}
		pattern = pattern_end;
		path = path_end;
	}
	return *pattern == '\0' && *path == '\0';
}

static bool serves(const struct route *r, const char *method)
{
	return streq(r->method, method) || (streq(r->method, "GET") && streq(method, "HEAD"));
}

/* Sets rq->route, or answers 404 or 405. */
static void find_route(struct request *rq, const char *method, const char *path)
{
	_cleanup_(strbuf_free) struct strbuf allow = STRBUF_NULL;

	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		const struct route *r = &routes[i];

		if (!match(rq, r->pattern, path))
			continue;
		if (serves(r, method)) {
			rq->route = r;
			return;
		}
		strbuf_printf(&allow, "%s%s%s", allow.len ? ", " : "", r->method,
			streq(r->method, "GET") ? ", HEAD" : "");
	}
	if (!allow.len) {
		problem(rq, MHD_HTTP_NOT_FOUND, "no-such-path", "No such path", "nothing is at %s",
			path);
		return;
	}
	problem(rq, MHD_HTTP_METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed",
		"%s does not know %s, only %s", path, method, strbuf_str(&allow));
	rq->allow = strbuf_take(&allow);
}

static size_t n_known_params(const struct route *r)
{
	size_t n = 0;

	while (n < ARRAY_SIZE(r->params) && r->params[n])
		n++;
	return n;
}

static void unknown_param(struct request *rq, const char *key)
{
	const char *near = text_nearest(key, rq->route->params, n_known_params(rq->route));

	problem(rq, MHD_HTTP_BAD_REQUEST, "unknown-parameter", "Unknown parameter",
		near ? "unknown parameter '%s'; did you mean '%s'?" : "unknown parameter '%s'", key,
		near);
}

static bool is_known_param(const struct request *rq, const char *key)
{
	for (size_t i = 0; i < n_known_params(rq->route); i++)
		if (streq(key, rq->route->params[i]))
			return true;
	return false;
}

static bool has_param(const struct request *rq, const char *key)
{
	for (size_t i = 0; i < rq->n_params; i++)
		if (streq(rq->params[i].key, key))
			return true;
	return false;
}

/* Strings of libmicrohttpd stay valid as long as the request. */
static enum MHD_Result take_param(
	void *arg, enum MHD_ValueKind kind _unused_, const char *key, const char *value)
{
	struct request *rq = arg;

	if (!is_known_param(rq, key)) {
		unknown_param(rq, key);
		return MHD_NO;
	}
	if (has_param(rq, key)) {
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-parameter", "Bad parameter",
			"parameter '%s' is given twice", key);
		return MHD_NO;
	}
	rq->params[rq->n_params++] = (struct param){key, value};
	return MHD_YES;
}

const char *request_param(const struct request *rq, const char *key)
{
	for (size_t i = 0; i < rq->n_params; i++)
		if (streq(rq->params[i].key, key))
			return rq->params[i].value ? rq->params[i].value : "";
	return NULL;
}

void request_bad_value(struct request *rq, const char *key, const char *value, const char *want)
{
	problem(rq, MHD_HTTP_BAD_REQUEST, "bad-parameter", "Bad parameter",
		"'%s' is no value for '%s': expected %s", value, key, want);
}

bool request_flag(struct request *rq, const char *key)
{
	const char *value = request_param(rq, key);

	if (!value || streq(value, "no"))
		return false;
	if (!streq(value, "yes"))
		request_bad_value(rq, key, value, "yes or no");
	return true;
}

static const struct peer *peer_of(const struct request *rq)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(rq->conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

static enum access access_of(const struct request *rq)
{
	const struct peer *p = peer_of(rq);

	return p ? p->access : ACCESS_NONE;
}

struct fleet_who request_who(const struct request *rq)
{
	const struct peer *p = peer_of(rq);

	return (struct fleet_who){
		.uid = p ? p->uid : (uid_t)-1, .admin = access_of(rq) == ACCESS_ADMIN};
}

/* What can be said against the request before its path is looked at. */
static void check_request(struct request *rq)
{
	if (access_of(rq) == ACCESS_NONE)
		problem(rq, MHD_HTTP_FORBIDDEN, "forbidden", "Forbidden",
			"you are not the daemon's user, and not in the group of its socket; ask as "
			"root, or join that group");
	else if (rq->body > API_MAX_BODY)
		problem(rq, MHD_HTTP_CONTENT_TOO_LARGE, "body-too-large", "Body too large",
			"a request's body has at most %d bytes", API_MAX_BODY);
	else if (rq->bad_url)
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-request", "Bad request",
			"the URL contains a NUL byte, or a path with an escaped slash");
}

static bool is_json(const struct request *rq)
{
	const char *type = MHD_lookup_connection_value(
		rq->conn, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);

	return type && strcspn(type, "; \t") == strlen("application/json") &&
	       strncasecmp(type, "application/json", strlen("application/json")) == 0;
}

/* Sets rq->input, or answers. */
static void take_body(struct request *rq)
{
	json_error_t e;

	if (!rq->body)
		return;
	if (!rq->route->body) {
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-request", "Bad request",
			"a body means nothing here; parameters go into the query");
		return;
	}
	if (!is_json(rq)) {
		problem(rq, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, "bad-media-type", "Bad media type",
			"the body must be JSON, with the header Content-Type: application/json");
		return;
	}
	rq->input = json_loadb(rq->body_text, (size_t)rq->body, JSON_REJECT_DUPLICATES, &e);
	if (!rq->input)
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-body", "Bad body",
			"the body is not JSON: line %d, column %d: %s", e.line, e.column, e.text);
	else if (!json_is_object(rq->input))
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-body", "Bad body",
			"the body must be a JSON object, {...}");
}

void route_request(struct request *rq, const char *method, const char *path)
{
	check_request(rq);
	if (!rq->status)
		find_route(rq, method, path);
	if (!rq->status && access_of(rq) < rq->route->access)
		problem(rq, MHD_HTTP_FORBIDDEN, "forbidden", "Forbidden",
			"only root and the daemon's user may do this");
	if (!rq->status)
		MHD_get_connection_values(rq->conn, MHD_GET_ARGUMENT_KIND, take_param, rq);
	if (!rq->status)
		take_body(rq);
	if (!rq->status && rq->cloud_name && !fleet_find(rq->api->fleet, rq->cloud_name))
		problem_no_such_cloud(rq);
	if (!rq->status)
		rq->route->handler(rq);
}
