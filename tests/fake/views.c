/* JSON answers, field by field as H2O 3.46.0.12 gives them. */
#include "fake.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <sys/statvfs.h>

#include "base/clock.h"

void view_add_string(struct strbuf *b, const char *s)
{
	if (!s) {
		strbuf_puts(b, "null");
		return;
	}
	strbuf_puts(b, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			strbuf_printf(b, "\\%c", *s);
		else if (*s == '\n')
			strbuf_puts(b, "\\n");
		else if ((unsigned char)*s < 0x20)
			strbuf_printf(b, "\\u%04x", *s);
		else
			strbuf_add(b, s, 1);
	}
	strbuf_puts(b, "\"");
}

void view_meta(struct strbuf *b, const char *schema, const char *type)
{
	strbuf_printf(b,
		"\"__meta\":{\"schema_version\":3,\"schema_name\":\"%s\",\"schema_type\":\"%s\"}",
		schema, type);
}

static void reply(struct node *n, struct conn *c, struct strbuf *b)
{
	http_reply(n, c, 200, "application/json", "", b->s, b->len);
	strbuf_free(b);
}

static const char *json_bool(bool v)
{
	return v ? "true" : "false";
}

/* fjthrds and fjqueue: one number per priority, -1 where that pool was never used. */
static void add_pools(struct strbuf *b, const char *name)
{
	strbuf_printf(b, "\"%s\":[", name);
	for (int i = 0; i < 127; i++)
		strbuf_puts(b, i < 119 ? "-1," : i < 126 ? "0," : "0");
	strbuf_puts(b, "],");
}

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int count = -1;

	for (; d && readdir(d); count++)
		;
	if (d)
		closedir(d);
	return count;
}

static void add_node(const struct node *n, struct strbuf *b, const struct peer *p, bool unhealthy)
{
	bool self = p == &n->g.peers[0];
	int64_t pid = self && knob(n, KNOB_lie_pid) ? knob(n, KNOB_lie_pid) : p->hb.pid;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	double load = 0;
	struct statvfs vfs = {0};
	char addr[32];

	getloadavg(&load, 1);
	statvfs(n->h2o.ice_root, &vfs);
	snprintf(addr, sizeof(addr), "%s:%d", inet_ntoa(p->ip), p->port);
	strbuf_puts(b, "{");
	view_meta(b, "NodeV3", "Iced");
	strbuf_printf(b,
		",\"h2o\":\"localhost/%s\",\"ip_port\":\"%s\",\"healthy\":%s,\"last_ping\":%llu,"
		"\"pid\":%lld,\"num_cpus\":%ld,\"cpus_allowed\":%ld,\"nthreads\":%u,\"sys_load\":%."
		"7f,"
		"\"my_cpu_pct\":-1,\"sys_cpu_pct\":-1,\"mem_value_size\":0,\"pojo_mem\":0,"
		"\"free_mem\":%llu,\"max_mem\":%llu,\"swap_mem\":0,\"num_keys\":0,\"free_disk\":%"
		"llu,"
		"\"max_disk\":%llu,\"rpcs_active\":0,",
		addr, addr, json_bool(!unhealthy && gossip_healthy(n, p)),
		(unsigned long long)p->last_ping_wall, (long long)pid, cpus, cpus, p->hb.nthreads,
		load, (unsigned long long)p->hb.free_mem, (unsigned long long)p->hb.max_mem,
		(unsigned long long)(vfs.f_bavail * vfs.f_frsize),
		(unsigned long long)(vfs.f_blocks * vfs.f_frsize));
	add_pools(b, "fjthrds");
	add_pools(b, "fjqueue");
	strbuf_printf(b, "\"tcps_active\":0,\"open_fds\":%d,\"gflops\":\"NaN\",\"mem_bw\":0.0}",
		self ? open_fds() : 28);
}

static void add_nodes(struct node *n, struct strbuf *b)
{
	const struct gossip *g = &n->g;
	size_t shown = g->cloud_size;

	if (knob(n, KNOB_lie_members) && shown > 1)
		shown--;
	strbuf_puts(b, "\"nodes\":[");
	for (size_t i = 0; i < shown; i++) {
		if (i)
			strbuf_puts(b, ",");
		add_node(n, b, &g->peers[g->cloud[i]], knob(n, KNOB_unhealthy) && i + 1 == shown);
	}
	strbuf_puts(b, "],");
}

void view_cloud(struct node *n, struct conn *c)
{
	const struct gossip *g = &n->g;
	int64_t size = knob(n, KNOB_lie_size) ? knob(n, KNOB_lie_size) : (int64_t)g->cloud_size;
	_cleanup_free_ char *skip = http_param(c, "skip_ticks");
	unsigned bad = gossip_bad_nodes(n);
	struct strbuf b = STRBUF_NULL;
	size_t self = 0;

	while (self < g->cloud_size && g->cloud[self] != 0)
		self++;
	strbuf_puts(&b, "{");
	view_meta(&b, "CloudV3", "Iced");
	strbuf_printf(&b,
		",\"_exclude_fields\":\"\",\"skip_ticks\":%s,\"version\":\"" FAKE_H2O_VERSION
		"\",\"branch_name\":\"" FAKE_H2O_BRANCH "\",\"last_commit_hash\":\"" FAKE_H2O_HASH
		"\",\"describe\":\"" FAKE_H2O_DESCRIBE
		"\",\"compiled_by\":\"root\",\"compiled_on\":"
		"\"" FAKE_H2O_BUILT_ON
		"\",\"build_number\":\"12\",\"build_age\":\"" FAKE_H2O_BUILD_AGE
		"\",\"build_too_old\":true,\"node_idx\":%zu,\"cloud_name\":",
		json_bool(skip && streq(skip, "true")), self);
	view_add_string(&b, n->lie_name ? n->lie_name : n->h2o.name);
	strbuf_printf(&b,
		",\"cloud_size\":%lld,\"cloud_uptime_millis\":%llu,\"cloud_internal_timezone\":"
		"\"Etc/UTC\",\"datafile_parser_timezone\":\"UTC\",\"cloud_healthy\":%s,"
		"\"bad_nodes\":%u,\"consensus\":%s,\"locked\":%s,\"is_client\":false,"
		"\"hadoop_version\":null,\"telemetry_enabled\":false,",
		(long long)size, (unsigned long long)(clock_monotonic_ms() - n->bound_at),
		json_bool(bad == 0), bad, json_bool(gossip_consensus(n)),
		json_bool(g->locked || knob(n, KNOB_locked)));
	add_nodes(n, &b);
	strbuf_puts(&b, "\"internal_security_enabled\":false,\"leader_idx\":0,\"web_ip\":");
	view_add_string(&b, n->h2o.web_ip);
	strbuf_puts(&b, "}");
	reply(n, c, &b);
}

void view_about(struct node *n, struct conn *c)
{
	static const char *const entries[][2] = {
		{"Build git branch", FAKE_H2O_BRANCH},
		{"Build git hash", FAKE_H2O_HASH},
		{"Build git describe", FAKE_H2O_DESCRIBE},
		{"Build project version", FAKE_H2O_VERSION},
		{"Build age", FAKE_H2O_BUILD_AGE},
		{"Built by", "root"},
		{"Built on", FAKE_H2O_BUILT_ON},
		{"Internal Security", "Disabled"},
	};
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, "{");
	view_meta(&b, "AboutV3", "Iced");
	strbuf_puts(&b, ",\"_exclude_fields\":\"\",\"entries\":[");
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		strbuf_puts(&b, i ? ",{" : "{");
		view_meta(&b, "AboutEntryV3", "Iced");
		strbuf_printf(
			&b, ",\"name\":\"%s\",\"value\":\"%s\"}", entries[i][0], entries[i][1]);
	}
	strbuf_puts(&b, "]}");
	reply(n, c, &b);
}

void view_ping(struct node *n, struct conn *c)
{
	const struct gossip *g = &n->g;
	struct strbuf b = STRBUF_NULL;

	n->g.last_rest_ping = clock_wall_ms();
	strbuf_puts(&b, "{");
	view_meta(&b, "PingV3", "Iced");
	/* cloud_healthy is a constant in H2O, too. */
	strbuf_printf(&b,
		",\"_exclude_fields\":\"\",\"cloud_uptime_millis\":%llu,\"cloud_healthy\":true,"
		"\"nodes\":[",
		(unsigned long long)(clock_monotonic_ms() - n->bound_at));
	for (size_t i = 0; i < g->cloud_size; i++) {
		const struct peer *p = &g->peers[g->cloud[i]];

		strbuf_puts(&b, i ? ",{" : "{");
		view_meta(&b, "NodeMemoryInfoV3", "Iced");
		strbuf_printf(&b, ",\"ip_port\":\"%s:%d\",\"free_mem\":%llu}", inet_ntoa(p->ip),
			p->port, (unsigned long long)p->hb.free_mem);
	}
	strbuf_puts(&b, "]}");
	reply(n, c, &b);
}

/* One expression it can evaluate, (+ (nrow FRAME) N); others do nothing. All end at once. */
void view_rapids(struct node *n, struct conn *c)
{
	_cleanup_free_ char *ast = http_param(c, "ast");
	struct strbuf b = STRBUF_NULL;
	char frame[64] = "";
	long long number;

	n->last_job_end = clock_monotonic_ms();
	if (!ast || sscanf(ast, "(+ (nrow %63[^)]) %lld)", frame, &number) != 2) {
		view_empty(n, c);
		return;
	}
	if (!streq(frame, n->frame)) {
		rest_error(n, c, 404, "/99/Rapids", "Name lookup failed",
			"java.lang.IllegalArgumentException");
		return;
	}
	strbuf_puts(&b, "{");
	view_meta(&b, "RapidsNumberV3", "Iced");
	strbuf_printf(&b, ",\"scalar\":%lld.0}", (long long)n->frame_rows + number);
	reply(n, c, &b);
}

void view_steam(struct node *n, struct conn *c)
{
	uint64_t since = n->last_job_end ? n->last_job_end : n->start;
	uint64_t idle = jobs_running(n) ? 0 : clock_monotonic_ms() - since;
	struct strbuf b = STRBUF_NULL;

	if (knob(n, KNOB_lie_idle_ms) >= 0)
		idle = (uint64_t)knob(n, KNOB_lie_idle_ms);

	strbuf_puts(&b, "{");
	view_meta(&b, "SteamMetricsV3", "SteamMetrics");
	strbuf_printf(&b, ",\"_exclude_fields\":\"\",\"version\":0,\"idle_millis\":%llu}",
		(unsigned long long)idle);
	reply(n, c, &b);
}

void view_session(struct node *n, struct conn *c)
{
	static unsigned next = 9000;
	int64_t fault = n->archive_mapped ? knob(n, KNOB_archive_session) : 0;
	struct strbuf b = STRBUF_NULL;

	/* What a dynamic archive does to H2O on JDK 17. */
	if (fault == 1)
		node_die(n, "Failed to instantiate schema of class: water.api.Schema");
	if (fault) {
		rest_error(n, c, (int)fault, "/4/sessions",
			"Failed to instantiate schema of class: water.api.Schema",
			"java.lang.RuntimeException");
		return;
	}

	strbuf_printf(&b, "{\"__schema\":\"/4/schemas/SessionIdV4\",\"session_key\":\"_sid_%u\"}",
		next++);
	reply(n, c, &b);
}

void view_lock(struct node *n, struct conn *c)
{
	_cleanup_free_ char *why = http_param(c, "reason");
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, "{");
	view_meta(&b, "CloudLockV3", "Iced");
	strbuf_puts(&b, ",\"_exclude_fields\":\"\",\"reason\":");
	view_add_string(&b, why);
	strbuf_puts(&b, "}");
	reply(n, c, &b);
}

void view_endpoints(struct node *n, struct conn *c)
{
	size_t count;
	const struct rest_route *r = rest_routes(&count);
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, "{");
	view_meta(&b, "MetadataV3", "Iced");
	strbuf_puts(&b, ",\"_exclude_fields\":\"\",\"routes\":[");
	for (size_t i = 0; i < count; i++) {
		bool other = n->archive_mapped &&
			     (int64_t)(count - i) <= knob(n, KNOB_archive_endpoints);

		strbuf_puts(&b, i ? ",{" : "{");
		view_meta(&b, "RouteV3", "Route");
		strbuf_printf(&b,
			",\"http_method\":\"%s\",\"url_pattern\":\"%s\",\"handler_class\":"
			"\"class "
			"water.api.FakeHandler\",\"handler_method\":\"m%zu\",\"input_schema\":"
			"\"FakeV3\",\"output_schema\":\"%s\"}",
			r[i].method, r[i].path, i, other ? "Schema" : "FakeV3");
	}
	strbuf_puts(&b, "],\"schemas\":[]}");
	reply(n, c, &b);
}

/* Enough for the Python client's h2o.connect(). */
void view_schema(struct node *n, struct conn *c)
{
	static const char *const cloud[] = {"skip_ticks", "version", "branch_name",
		"last_commit_hash", "describe", "compiled_by", "compiled_on", "build_number",
		"build_age", "build_too_old", "node_idx", "cloud_name", "cloud_size",
		"cloud_uptime_millis", "cloud_internal_timezone", "datafile_parser_timezone",
		"cloud_healthy", "bad_nodes", "consensus", "locked", "is_client", "hadoop_version",
		"telemetry_enabled", "nodes", "internal_security_enabled", "leader_idx", "web_ip"};
	static const char *const error[] = {"timestamp", "error_url", "msg", "dev_msg",
		"http_status", "values", "exception_type", "exception_msg", "stacktrace"};
	const char *name = strrchr(c->rq.path, '/') + 1;
	bool is_cloud = streq(name, "CloudV3");
	size_t count = is_cloud ? ARRAY_SIZE(cloud) : ARRAY_SIZE(error);
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, "{");
	view_meta(&b, "MetadataV3", "Iced");
	strbuf_puts(&b, ",\"_exclude_fields\":\"\",\"routes\":null,\"schemas\":[{");
	view_meta(&b, "SchemaMetadataV3", "SchemaMetadata");
	strbuf_puts(&b, ",\"version\":3,\"name\":");
	view_add_string(&b, name);
	strbuf_puts(&b, ",\"fields\":[");
	for (size_t i = 0; i < count; i++) {
		const char *f = is_cloud ? cloud[i] : error[i];

		strbuf_puts(&b, i ? ",{" : "{");
		view_meta(&b, "FieldMetadataV3", "FieldMetadata");
		strbuf_printf(&b,
			",\"name\":\"%s\",\"type\":\"string\",\"is_schema\":false,\"schema_name\":"
			"null,"
			"\"help\":\"%s\",\"label\":\"%s\",\"direction\":\"OUTPUT\"}",
			f, f, f);
	}
	strbuf_puts(&b, "]}]}");
	reply(n, c, &b);
}

void view_capabilities(struct node *n, struct conn *c)
{
	static const char *const names[] = {"XGBoost", "Algos", "AutoML", "Core V3", "Core V4"};
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, "{");
	view_meta(&b, "CapabilitiesV3", "Iced");
	strbuf_puts(&b, ",\"_exclude_fields\":\"\",\"capabilities\":[");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		strbuf_puts(&b, i ? ",{" : "{");
		view_meta(&b, "CapabilityEntryV3", "Iced");
		strbuf_printf(&b, ",\"name\":\"%s\"}", names[i]);
	}
	strbuf_puts(&b, "]}");
	reply(n, c, &b);
}

void view_empty(struct node *n, struct conn *c)
{
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, "{");
	view_meta(&b,
		streq(c->rq.path + strlen(n->h2o.context_path), "/3/Shutdown") ? "ShutdownV3"
									       : "FakeV3",
		"Iced");
	strbuf_puts(&b, ",\"_exclude_fields\":\"\"}");
	reply(n, c, &b);
}
