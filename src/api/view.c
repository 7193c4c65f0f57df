#include "api/view.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "base/text.h"
#include "model/plan.h"

json_t *view_text(const char *s)
{
	_cleanup_free_ char *clean = s ? text_utf8(s) : NULL;

	return clean ? json_string(clean) : json_null();
}

static json_t *view_ms(uint64_t ms)
{
	return json_integer((json_int_t)ms);
}

static json_t *view_since(uint64_t since_ms, uint64_t now_ms)
{
	return view_ms(now_ms > since_ms ? now_ms - since_ms : 0);
}

/* ISO 8601, UTC. */
json_t *view_wall(uint64_t wall_ms)
{
	time_t secs = (time_t)(wall_ms / 1000);
	struct tm tm;
	char day[40], all[64];

	if (!wall_ms || !gmtime_r(&secs, &tm))
		return json_null();
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(all, sizeof(all), "%s.%03uZ", day, (unsigned)(wall_ms % 1000));
	return json_string(all);
}

/* "SIGKILL"; null for none. */
static json_t *view_signal(int sig)
{
	const char *abbrev = sig > 0 ? sigabbrev_np(sig) : NULL;

	if (sig <= 0)
		return json_null();
	if (abbrev)
		return json_sprintf("SIG%s", abbrev);
	if (sig >= SIGRTMIN && sig <= SIGRTMAX)
		return json_sprintf("SIGRTMIN+%d", sig - SIGRTMIN);
	return json_sprintf("SIG%d", sig);
}

static json_t *view_last_exit(const struct last_exit *x)
{
	json_t *j;

	if (!x->present)
		return json_null();
	j = json_object();
	json_object_set_new(
		j, "code", x->known && !x->signal ? json_integer(x->code) : json_null());
	json_object_set_new(j, "signal", view_signal(x->known ? x->signal : 0));
	json_object_set_new(j, "cause", json_string(cause_name(x->cause)));
	json_object_set_new(j, "why", view_text(x->why));
	json_object_set_new(j, "log_tail", view_text(x->log_tail));
	json_object_set_new(j, "at", view_wall(x->wall_ms));
	json_object_set_new(j, "incident", view_text(x->incident));
	return j;
}

/* Of heaps. */
static json_t *view_memory(bool known, uint64_t max, uint64_t free_bytes)
{
	json_t *j;

	if (!known)
		return json_null();
	j = json_object();
	json_object_set_new(j, "max_bytes", json_integer((json_int_t)max));
	json_object_set_new(j, "free_bytes", json_integer((json_int_t)free_bytes));
	return j;
}

/* With the two decimals that the kernel gives. */
static json_t *view_percent(double percent)
{
	return percent < 0 ? json_null() : json_real((double)(int64_t)(percent * 100 + 0.5) / 100);
}

json_t *view_node(const struct node *n, uint64_t now_ms)
{
	json_t *j = json_object();

	json_object_set_new(j, "index", json_integer(n->index));
	json_object_set_new(j, "state", json_string(node_state_name(n->state)));
	json_object_set_new(j, "pid", n->pid > 0 ? json_integer(n->pid) : json_null());
	json_object_set_new(j, "ip", json_string(MEMBER_ADDR));
	json_object_set_new(j, "api_port", n->api_port ? json_integer(n->api_port) : json_null());
	json_object_set_new(
		j, "uptime_ms", n->pid > 0 ? view_since(n->launched_ms, now_ms) : json_null());
	json_object_set_new(
		j, "memory", view_memory(n->pid > 0 && n->max_mem, n->max_mem, n->free_mem));
	json_object_set_new(j, "rss_bytes", json_null());
	json_object_set_new(j, "cpu_percent", json_null());
	json_object_set_new(j, "last_exit", view_last_exit(&n->last_exit));
	return j;
}

/* What its process takes, where that is known. */
static void add_usage(json_t *j, struct fleet *f, const struct cloud *c, const struct node *n)
{
	struct fleet_usage u;

	if (!fleet_node_usage(f, c, n->index, &u))
		return;
	json_object_set_new(j, "rss_bytes", json_integer((json_int_t)u.rss_bytes));
	json_object_set_new(j, "cpu_percent", view_percent(u.cpu_percent));
}

/* The URL that clients use: "http://127.0.0.1:54321", and the context path if there is one. */
static json_t *view_url(const struct cloud *c, const char *addr, uint16_t port)
{
	const char *path = c->conf->context_path ? c->conf->context_path : "";
	bool v6 = strchr(addr, ':') != NULL;
	_cleanup_free_ char *url = NULL;

	path += strspn(path, "/");
	url = xasprintf("http://%s%s%s:%u%s%s", v6 ? "[" : "", addr, v6 ? "]" : "", port,
		*path ? "/" : "", path);
	return view_text(url);
}

static void add_endpoint(json_t *j, const struct cloud *c)
{
	bool usable = cloud_usable(c);

	json_object_set_new(j, "endpoint",
		usable ? view_url(c, c->endpoint.addr, c->endpoint.port) : json_null());
	json_object_set_new(
		j, "endpoint_address", usable ? json_string(c->endpoint.addr) : json_null());
	json_object_set_new(
		j, "endpoint_port", usable ? json_integer(c->endpoint.port) : json_null());
}

static json_t *view_pressure(const struct fleet_pressure *p)
{
	json_t *j = json_object();

	json_object_set_new(j, "of", json_string(p->own ? "cloud" : "machine"));
	json_object_set_new(j, "cpu", view_percent(p->cpu));
	json_object_set_new(j, "memory", view_percent(p->memory));
	json_object_set_new(j, "io", view_percent(p->io));
	return j;
}

static json_t *view_next_start(const struct cloud *c, uint64_t now_ms)
{
	if (c->state != CLOUD_BACKOFF)
		return json_null();
	return view_ms(c->next_start_ms > now_ms ? c->next_start_ms - now_ms : 0);
}

/* `used_ms`: as for cloud_idle_stop(). */
static void add_idle(json_t *j, const struct cloud *c, uint64_t used_ms, uint64_t now_ms)
{
	uint64_t stop = cloud_idle_stop(c, used_ms);

	json_object_set_new(
		j, "idle_ms", stop ? view_since(MAX(c->active_ms, used_ms), now_ms) : json_null());
	json_object_set_new(
		j, "idle_stop_ms", stop ? view_ms(stop > now_ms ? stop - now_ms : 0) : json_null());
}

static const char *door_word(const struct fleet_gate *g)
{
	switch (g->door) {
	case DOOR_OPEN:
		return "open";
	case DOOR_HOLD:
		return g->mode == GATE_HOLD ? "hold" : "refuse";
	case DOOR_SHUT:
		break;
	}
	return "shut";
}

static json_t *view_gate(const struct cloud *c, const struct fleet_gate *g, uint64_t now_ms)
{
	const struct {
		const char *name;
		uint64_t n;
	} counts[] = {
		{"connections", g->connections},
		{"held", g->held},
		{"accepted_total", g->accepted_total},
		{"passed_total", g->passed_total},
		{"held_total", g->held_total},
		{"expired_total", g->expired_total},
		{"refused_total", g->refused_total},
		{"failed_total", g->failed_total},
		{"closed_total", g->closed_total},
		{"bytes_in", g->bytes_in},
		{"bytes_out", g->bytes_out},
	};
	json_t *j = json_object();

	json_object_set_new(j, "door", json_string(door_word(g)));
	json_object_set_new(j, "url", g->port ? view_url(c, MEMBER_ADDR, g->port) : json_null());
	json_object_set_new(j, "address", g->port ? json_string(MEMBER_ADDR) : json_null());
	json_object_set_new(j, "port", g->port ? json_integer(g->port) : json_null());
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		json_object_set_new(j, counts[i].name, json_integer((json_int_t)counts[i].n));
	json_object_set_new(
		j, "traffic_ms", g->traffic_ms ? view_since(g->traffic_ms, now_ms) : json_null());
	return j;
}

static json_t *view_boot(const struct fleet_boot *b)
{
	json_t *j = json_object();

	json_object_set_new(j, "mode", json_string(b->mode));
	json_object_set_new(j, "archive", view_text(b->archive));
	json_object_set_new(j, "mapped", b->mapped < 0 ? json_null() : json_boolean(b->mapped));
	json_object_set_new(j, "why", view_text(b->why));
	return j;
}

static json_t *view_list(const struct strv *l)
{
	json_t *list = json_array();

	for (size_t i = 0; i < l->n; i++)
		json_array_append_new(list, view_text(l->v[i]));
	return list;
}

json_t *view_cloud(const struct cloud *c, uint64_t now_ms)
{
	json_t *j = json_object(), *nodes = json_array();
	const char *version = c->usage.h2o_version;

	json_object_set_new(j, "name", view_text(c->conf->name));
	json_object_set_new(j, "origin", json_string(c->conf->created ? "created" : "config"));
	json_object_set_new(j, "state", json_string(cloud_state_name(c->state)));
	json_object_set_new(j, "wanted", json_string(cloud_wanted_name(c->wanted)));
	json_object_set_new(j, "size", json_integer((json_int_t)c->n_nodes));
	json_object_set_new(j, "generation", json_integer((json_int_t)c->generation));
	json_object_set_new(j, "restarts", json_integer((json_int_t)c->restarts));
	add_endpoint(j, c);
	json_object_set_new(j, "reason", view_text(c->reason));
	json_object_set_new(j, "h2o_name", view_text(c->h2o_name));
	json_object_set_new(j, "h2o_version", view_text(*version ? version : NULL));
	json_object_set_new(j, "state_ms", view_since(c->since_ms, now_ms));
	json_object_set_new(j, "uptime_ms",
		cloud_usable(c) && c->ready_ms ? view_since(c->ready_ms, now_ms) : json_null());
	json_object_set_new(j, "short_locks", json_integer((json_int_t)c->short_locks));
	json_object_set_new(
		j, "memory", view_memory(c->usage.known, c->usage.max_mem, c->usage.free_mem));
	json_object_set_new(j, "next_start_ms", view_next_start(c, now_ms));
	json_object_set_new(j, "pressure", json_null());
	json_object_set_new(j, "start_on",
		json_string(c->conf->start_on == START_ON_CONNECT ? "connect" : "command"));
	json_object_set_new(j, "armed", json_boolean(cloud_armed(c)));
	add_idle(j, c, 0, now_ms);
	json_object_set_new(j, "gate", json_null());
	json_object_set_new(j, "boot", json_null());
	json_object_set_new(j, "restart_needed", json_boolean(c->pending_keys.n));
	json_object_set_new(j, "pending_keys", view_list(&c->pending_keys));
	json_object_set_new(j, "incident", json_null());
	json_object_set_new(j, "removed", json_boolean(c->removed));
	cloud_for_each_node (n, c)
		json_array_append_new(nodes, view_node(n, now_ms));
	json_object_set_new(j, "nodes", nodes);
	return j;
}

json_t *view_troubles(const struct trouble *first, uint64_t now_ms)
{
	json_t *list = json_array();

	for (const struct trouble *t = first; t; t = t->next) {
		json_t *j = json_object();

		json_object_set_new(j, "kind", json_string(trouble_kind_name(t->kind)));
		json_object_set_new(j, "cloud", view_text(t->cloud));
		json_object_set_new(j, "detail", view_text(t->sentence));
		json_object_set_new(j, "since_ms",
			json_integer((json_int_t)(now_ms - MIN(t->since_ms, now_ms))));
		json_array_append_new(list, j);
	}
	return list;
}

json_t *view_live_node(struct fleet *f, const struct cloud *c, const struct node *n)
{
	json_t *j = view_node(n, fleet_now(f));

	add_usage(j, f, c, n);
	return j;
}

json_t *view_live_cloud(struct fleet *f, const struct cloud *c)
{
	uint64_t now = fleet_now(f);
	json_t *j = view_cloud(c, now);
	struct fleet_pressure p;
	struct fleet_boot b;
	struct fleet_gate g;

	cloud_for_each_node (n, c)
		add_usage(json_array_get(json_object_get(j, "nodes"), n->index), f, c, n);
	json_object_set_new(
		j, "incident", view_text(incidents_newest(fleet_incidents(f), c->conf->name)));
	if (fleet_pressure(f, c->conf->name, &p))
		json_object_set_new(j, "pressure", view_pressure(&p));
	if (fleet_boot(f, c->conf->name, &b))
		json_object_set_new(j, "boot", view_boot(&b));
	if (fleet_gate(f, c->conf->name, &g)) {
		json_object_set_new(j, "gate", view_gate(c, &g, now));
		add_idle(j, c, g.traffic_ms, now);
	}
	return j;
}

json_t *view_loop_lag(struct loop_lag *l)
{
	struct loop_lag_spread s = loop_lag_spread(l);

	return json_pack("{s:I, s:I, s:I, s:I}", "turns", (json_int_t)s.turns, "p50_us",
		(json_int_t)s.p50_us, "p99_us", (json_int_t)s.p99_us, "max_us",
		(json_int_t)s.max_us);
}
