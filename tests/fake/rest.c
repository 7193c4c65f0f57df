/* Routes of the REST API: which exist, which lock the cloud, which ask all members. */
#include "fake.h"

#include "base/clock.h"

enum {
	LOCKS = 1,  /* needs a type id or writes a key: locks, and asks the leader at first use */
	FANOUT = 2, /* hangs while a member is silent */
	WRITES = 4, /* CloudLock: a lock without a type id */
};

static void view_shutdown(struct node *n, struct conn *c)
{
	view_empty(n, c);
	gossip_shutdown(n);
}

static void view_thread_dump(struct node *n, struct conn *c)
{
	console_thread_dump(n);
	view_empty(n, c);
}

#define V3 "water.api.schemas3."

/* At most 64: each has a bit in gossip.types_known. */
static const struct rest_route routes[] = {
	{"GET", "/3/Cloud", 0, NULL, view_cloud},
	{"GET", "/3/About", 0, NULL, view_about},
	{"GET", "/3/ModelBuilders", LOCKS, V3 "ModelBuildersV3", view_empty},
	{"GET", "/3/Typeahead/files", 0, NULL, view_empty},
	{"GET", "/3/NodePersistentStorage/*", 0, NULL, view_empty},
	{"GET", "/3/Ping", LOCKS, V3 "PingV3", view_ping},
	{"GET", "/3/Jobs", LOCKS, V3 "JobsV3", jobs_view},
	{"GET", "/3/Jobs/*", 0, NULL, jobs_view},
	{"POST", "/3/Jobs/*", 0, NULL, jobs_cancel},
	{"GET", "/3/InitID", LOCKS, V3 "InitIDV3", view_session},
	{"POST", "/4/sessions", LOCKS, "water.api.schemas4.output.SessionIdV4", view_session},
	{"DELETE", "/4/sessions/*", LOCKS, V3 "InitIDV3", view_session},
	{"POST", "/3/CloudLock", WRITES, "requested via REST api.", view_lock},
	{"POST", "/3/CreateFrame", LOCKS, V3 "CreateFrameV3", jobs_create_frame},
	{"POST", "/3/ModelBuilders/*", LOCKS, "hex.schemas.GBMV3", jobs_build_model},
	{"GET", "/3/Models/*", LOCKS, V3 "ModelsV3", view_empty},
	{"POST", "/99/Rapids", LOCKS, "water.api.schemas99.RapidsV99", view_rapids},
	{"GET", "/3/SteamMetrics", LOCKS, V3 "SteamMetricsV3", view_steam},
	{"GET", "/3/JStack", LOCKS | FANOUT, V3 "JStackV3", view_empty},
	{"GET", "/3/KillMinus3", LOCKS | FANOUT, V3 "KillMinus3V3", view_thread_dump},
	{"GET", "/3/Logs/*", LOCKS | FANOUT, V3 "LogsV3", view_empty},
	{"POST", "/3/LogAndEcho", LOCKS | FANOUT, V3 "LogAndEchoV3", view_empty},
	{"GET", "/3/WaterMeterCpuTicks/*", LOCKS, V3 "WaterMeterCpuTicksV3", view_empty},
	{"POST", "/3/GarbageCollect", LOCKS | FANOUT, V3 "GarbageCollectV3", view_empty},
	{"GET", "/3/Capabilities", LOCKS, V3 "CapabilitiesV3", view_capabilities},
	{"GET", "/3/Capabilities/*", LOCKS, V3 "CapabilitiesV3", view_capabilities},
	{"GET", "/3/Metadata/endpoints", LOCKS, V3 "MetadataV3", view_endpoints},
	{"GET", "/3/Metadata/schemas/*", LOCKS, V3 "MetadataV3", view_schema},
	{"GET", "/3/Frames", LOCKS | FANOUT, V3 "FramesV3", view_empty},
	{"GET", "/3/Models", LOCKS, V3 "ModelsV3", view_empty},
	{"GET", "/3/Timeline", LOCKS | FANOUT, V3 "TimelineV3", view_empty},
	{"GET", "/3/NetworkTest", LOCKS | FANOUT, V3 "NetworkTestV3", view_empty},
	{"POST", "/3/UnlockKeys", LOCKS, V3 "UnlockKeysV3", view_empty},
	{"DELETE", "/3/DKV", LOCKS, V3 "RemoveAllV3", view_empty},
	{"POST", "/3/Recovery/resume", LOCKS, V3 "ResumeV3", jobs_resume},
	{"POST", "/3/Shutdown", LOCKS, "water.api.ShutdownHandler", view_shutdown},
};

const struct rest_route *rest_routes(size_t *count)
{
	*count = ARRAY_SIZE(routes);
	return routes;
}

void rest_error(struct node *n, struct conn *c, int status, const char *url, const char *msg,
	const char *exception)
{
	_cleanup_free_ char *long_msg = xasprintf("\n\nERROR MESSAGE:\n\n%s\n\n", msg);
	_cleanup_free_ char *first = xasprintf("%s: %s", exception, msg);
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, "{");
	view_meta(&b, "H2OErrorV3", "H2OError");
	strbuf_printf(
		&b, ",\"timestamp\":%llu,\"error_url\":", (unsigned long long)clock_wall_ms());
	view_add_string(&b, url);
	strbuf_puts(&b, ",\"msg\":");
	view_add_string(&b, long_msg);
	strbuf_puts(&b, ",\"dev_msg\":");
	view_add_string(&b, long_msg);
	strbuf_printf(&b, ",\"http_status\":%d,\"values\":{},\"exception_type\":", status);
	view_add_string(&b, exception);
	strbuf_puts(&b, ",\"exception_msg\":");
	view_add_string(&b, long_msg);
	strbuf_puts(&b, ",\"stacktrace\":[");
	view_add_string(&b, first);
	strbuf_puts(&b, ",\"    water.api.RequestServer.serve(RequestServer.java:467)\"]}");
	http_reply(n, c, status, "application/json", "", b.s, b.len);
	strbuf_free(&b);
}

static void not_found(struct node *n, struct conn *c)
{
	_cleanup_free_ char *url = xasprintf(
		"%s %s", streq(c->rq.method, "GET") ? "Resource" : c->rq.method, c->rq.path);
	_cleanup_free_ char *msg = xasprintf("%s not found", url);

	if (streq(c->rq.method, "HEAD"))
		console_log(n, LVL_WARN, "3581655-16", "Resource %s not found", c->rq.path);
	rest_error(n, c, 404, url, msg, "water.exceptions.H2ONotFoundArgumentException");
}

static bool matches(const struct rest_route *r, const char *method, const char *path)
{
	size_t len = strlen(r->path);

	if (!streq(r->method, method))
		return false;
	if (r->path[len - 1] == '*')
		return strncmp(r->path, path, len - 1) == 0;
	return strncmp(r->path, path, len) == 0 &&
	       (path[len] == 0 || streq(path + len, ".json") || streq(path + len, "/"));
}

/* Jetty's own answer, in HTML, as for authentication and outside of the context path. */
static void jetty_error(struct node *n, struct conn *c, int status)
{
	_cleanup_free_ char *body =
		xasprintf("<html><head><title>Error %d</title></head><body><h2>HTTP ERROR "
			  "%d</h2></body></html>",
			status, status);

	http_reply(n, c, status, "text/html;charset=iso-8859-1",
		status == 401 ? "WWW-Authenticate: basic realm=\"H2O\"\r\n" : "", body,
		strlen(body));
}

/* POST /fake/KEY?value=V: the test's remote control; works in every state. */
static void control(struct node *n, struct conn *c)
{
	_cleanup_free_ char *value = http_param(c, "value");
	_cleanup_free_ char *key = xstrdup(c->rq.path + strlen("/fake/"));
	bool known = faults_set(n, key, value ? value : "1");

	if (c->fd >= 0) /* KEY may have closed it: refuse */
		http_reply(n, c, known ? 200 : 404, "text/plain", "", known ? "ok\n" : "unknown\n",
			known ? 3 : 8);
}

/* Only those that tell whether somebody works fail. */
static bool fails(const struct node *n, const struct rest_route *r)
{
	return knob(n, KNOB_steam_status) &&
	       (streq(r->path, "/3/SteamMetrics") || streq(r->path, "/3/Jobs"));
}

static bool may_answer(struct node *n, const struct rest_route *r)
{
	if ((r->flags & (LOCKS | WRITES)) && !gossip_lock(n, r->reason))
		return false;
	if ((r->flags & LOCKS) && !gossip_type_known(n, (unsigned)(r - routes)))
		return false;
	return !(r->flags & FANOUT) || !gossip_silent_member(n);
}

static bool serve_root(struct node *n, struct conn *c)
{
	if (streq(c->rq.method, "HEAD"))
		http_reply(n, c, 200, "text/plain", "", "", 0);
	else if (streq(c->rq.method, "GET"))
		http_reply(n, c, 301, "text/plain", "Location: /flow/index.html\r\n", "", 0);
	else
		not_found(n, c);
	return true;
}

static bool serve(struct node *n, struct conn *c, const char *path)
{
	const char *method = c->rq.method;

	if (streq(path, "/") || streq(path, ""))
		return serve_root(n, c);
	if (streq(path, "/flow/index.html") && streq(method, "GET")) {
		http_reply(n, c, 200, "text/html", "", "<html>Flow</html>\n", 18);
		return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		const struct rest_route *r = &routes[i];
		bool head_of_cloud = i == 0 && streq(method, "HEAD");

		if (!matches(r, head_of_cloud ? "GET" : method, path))
			continue;
		if (!may_answer(n, r))
			return false;
		if (r->flags & (LOCKS | WRITES))
			console_log(n, LVL_INFO, "3581655-16", "%s %s, parms: {}", method, path);
		if (fails(n, r))
			rest_error(n, c, (int)knob(n, KNOB_steam_status), path, "fake",
				"java.lang.RuntimeException");
		else
			r->view(n, c);
		return true;
	}
	not_found(n, c);
	return true;
}

bool rest_handle(struct node *n, struct conn *c)
{
	const char *path = c->rq.path, *context = n->h2o.context_path;

	if (has_prefix(path, "/fake/")) {
		control(n, c);
		return true;
	}
	if (!n->ready || knob(n, KNOB_hang))
		return false;
	if (knob(n, KNOB_http_status) == 401) {
		jetty_error(n, c, 401);
		return true;
	}
	if (knob(n, KNOB_http_status) > 0) {
		rest_error(n, c, (int)knob(n, KNOB_http_status), path, "fake",
			"java.lang.RuntimeException");
		return true;
	}
	if (!has_prefix(path, context)) {
		jetty_error(n, c, 404);
		return true;
	}
	return serve(n, c, path + strlen(context));
}
