/* H2O as it was measured (HACKING.md, "What H2O really does"): members that boot, wait for their
 * flatfile, meet one another with heartbeats, announce every size on the way, are locked by whoever
 * comes first, keep dead members in their list for ever; and drv/http.h, by which the daemon asks
 * them. */
#include "world.h"

#include <errno.h>

#include "drv/http.h"
#include "drv/machine.h"

enum lie {
	LIE_NONE,
	LIE_PID,
	LIE_NAME,
	LIE_GARBAGE,
	LIE_ERROR,
	LIE_RESET,
	LIE_BOOT,
	LIE_SIZE,
	LIE_ONCE_SIZE,
	LIE_CONSENSUS,
	N_LIES
};

static uint64_t about(const struct vproc *p, unsigned what)
{
	return hash_text(p->h2o.cloud) * 64 + p->h2o.node * 1000003 + p->h2o.generation * 7919 +
	       what;
}

/* ---- who is there ---- */

#define MAX_GROUPS 512

/* All that ever had the same -name, dead ones too. */
static struct {
	uint64_t hash;
	struct vproc *first;
} groups[MAX_GROUPS];
static size_t n_groups;

static struct vproc **group_of(const char *name)
{
	uint64_t h = hash_text(name);

	for (size_t i = 0; i < n_groups; i++)
		if (groups[i].hash == h)
			return &groups[i].first;
	if (n_groups == MAX_GROUPS) {
		violated("generations", "%u generations in one run", MAX_GROUPS);
		n_groups = 0;
	}
	groups[n_groups].hash = h;
	groups[n_groups].first = NULL;
	return &groups[n_groups++].first;
}

bool h2o_paused(const struct vproc *p)
{
	return p->kind == V_NODE && p->h2o.paused_until > w.now;
}

uint64_t h2o_blind_for(const struct vproc *p)
{
	const struct h2o *h = &p->h2o;

	if (!h->blind_since)
		return h->blind_for;
	return h->blind_for + (w.now - h->blind_since) - (w.frozen - h->blind_frozen);
}

bool h2o_denies(const struct vproc *p)
{
	/* Who was frozen hears first what was said before that. */
	uint64_t since = MAX(p->h2o.lie_at, MIN(w.frozen_until, w.now));

	return p->h2o.lie == LIE_CONSENSUS && w.now - since > 2 * SEC;
}

struct vproc *h2o_member(const char *cloud, unsigned node)
{
	for (struct vproc *p = w.procs; p; p = p->next)
		if (p->kind == V_NODE && vproc_runs(p) && streq(p->h2o.cloud, cloud) &&
			p->h2o.node == node)
			return p;
	return NULL;
}

static struct vproc *in_group(const struct vproc *p, unsigned node)
{
	struct vproc *o = *group_of(p->h2o.name);

	while (o && o->h2o.node != node)
		o = o->of_cloud;
	return o;
}

static bool listed(const struct h2o *h, uint16_t port)
{
	for (size_t i = 0; i < h->n_list; i++)
		if (h->list[i] == port)
			return true;
	return false;
}

/* ---- its end ---- */

static void say(struct vproc *p, const char *line)
{
	if (p->output)
		inode_append(p->output->inode, line);
}

static void perf_file(const struct vproc *p, bool there)
{
	_cleanup_free_ char *path = xasprintf(PERF_DIR "/%d", (int)p->pid);

	if (there)
		disk_write(path, "");
	else
		disk_remove(path);
}

void h2o_gone(struct vproc *p, bool in_order)
{
	struct h2o *h = &p->h2o;
	_cleanup_free_ char *lib = xasprintf("%s/libxgboost", h->tmp);
	unsigned i = plan_index(h->cloud);

	if (i < MAX_CLOUDS) { /* with it, its jobs */
		w.worked_at[i] = MIN(w.worked_at[i], w.now);
		w.used_at[i] = MIN(w.used_at[i], w.now);
	}
	h->dead_at = w.now;
	h->listens = false;
	if (in_order) {
		disk_remove(lib);
		perf_file(p, false);
	}
}

static void fatal(struct vproc *p, const char *line, int code)
{
	say(p, line);
	vproc_end(p, code, 0);
}

static void exits_in_order(uint64_t id, uint64_t code)
{
	struct vproc *p = vproc_by_id(id);

	if (p && vproc_runs(p))
		fatal(p, "Orderly shutdown\n", (int)code);
}

/* The receiver asks its peers, and goes last. With a dead leader it hangs. */
void h2o_shutdown(struct vproc *p)
{
	struct vproc *leader = in_group(p, 0);
	uint64_t unconfirmed = 0;

	if (!p->h2o.serves_at || w.now < p->h2o.serves_at || (leader && !vproc_runs(leader)))
		return;
	p->h2o.leaving = true;
	for (struct vproc *o = *group_of(p->h2o.name); o; o = o->of_cloud) {
		if (o == p || !p->h2o.sees[o->h2o.node])
			continue;
		if (vproc_runs(o) && !h2o_paused(o) && !o->h2o.hung) {
			o->h2o.leaving = true;
			world_at(w.now + noise(about(o, 1), w.now, 500) * MS, exits_in_order,
				vproc_id(o), 0);
		} else {
			unconfirmed++;
		}
	}
	world_at(w.now + 2 * SEC, exits_in_order, vproc_id(p), unconfirmed);
}

/* ---- meeting ---- */

static void locked_out(uint64_t id, uint64_t b)
{
	struct vproc *p = vproc_by_id(id);

	(void)b;
	if (p && vproc_runs(p))
		fatal(p,
			"Attempting to join an H2O cloud that is no longer accepting new H2O "
			"nodes\n",
			255);
}

static void meet(uint64_t a, uint64_t b)
{
	struct vproc *x = vproc_by_id(a), *y = vproc_by_id(b);

	if (!x || !y || !vproc_runs(x) || !vproc_runs(y))
		return;
	if (h2o_paused(x) || h2o_paused(y)) {
		world_at(w.now + SEC, meet, a, b);
		return;
	}
	if (x->h2o.locked || y->h2o.locked) {
		struct vproc *late = x->h2o.locked ? y : x;

		if (x->h2o.locked && y->h2o.locked)
			return;
		if (noise(about(late, 2), w.now, 10) < 8) /* else it stays outside */
			world_at(w.now + 100 * MS, locked_out, vproc_id(late), 0);
		return;
	}
	x->h2o.sees[y->h2o.node] = y->h2o.sees[x->h2o.node] = true;
	x->h2o.met_at[y->h2o.node] = y->h2o.met_at[x->h2o.node] = w.now;
}

/* Its first heartbeat. A first connect that failed costs 5 s. */
static void beats(uint64_t id, uint64_t b)
{
	struct vproc *p = vproc_by_id(id);

	(void)b;
	if (!p || !vproc_runs(p))
		return;
	p->h2o.beats_at = w.now;
	p->h2o.sees[p->h2o.node] = true;
	for (struct vproc *o = *group_of(p->h2o.name); o; o = o->of_cloud) {
		uint64_t wait = SEC + noise(about(p, 3), o->h2o.node, 1500) * MS;

		if (o == p || !o->h2o.beats_at || !vproc_runs(o))
			continue;
		if (!listed(&p->h2o, o->h2o.port) && !listed(&o->h2o, p->h2o.port))
			continue;
		if (!listed(&p->h2o, o->h2o.port))
			wait += 5 * SEC;
		world_at(w.now + wait, meet, id, vproc_id(o));
	}
}

static void serves(uint64_t id, uint64_t b)
{
	struct vproc *p = vproc_by_id(id);

	(void)b;
	if (p && vproc_runs(p))
		p->h2o.serves_at = w.now;
}

/* "ip:port" a line. */
void h2o_flatfile(struct vproc *p, const char *text)
{
	struct h2o *h = &p->h2o;
	uint64_t t = w.now + (100 + noise(about(p, 4), 0, 400)) * MS;

	if (!vproc_runs(p) || h->has_list)
		return;
	h->has_list = true;
	for (const char *c = text; (c = strchr(c, ':')) && h->n_list < MAX_MEMBERS; c++)
		h->list[h->n_list++] = (uint16_t)strtoul(c + 1, NULL, 10);
	world_at(t, beats, vproc_id(p), 0);
	t += noise(about(p, 5), 0, 800) * MS;
	if (noise(about(p, 5), 1, 8) == 0)
		t += noise(about(p, 5), 2, 5000) * MS;
	world_at(t, serves, vproc_id(p), 0);
}

static void wait_for_list(struct vproc *p)
{
	struct inode *i = disk_find(p->h2o.flatfile);

	if (!i)
		fatal(p, "ERROR: no flatfile\n", 1);
	else if (i->type == I_FIFO)
		i->reader = p;
	else
		h2o_flatfile(p, i->data ? i->data : "");
}

static void listens(uint64_t id, uint64_t b)
{
	struct vproc *p = vproc_by_id(id);
	_cleanup_free_ char *lib = NULL, *ice = NULL;

	(void)b;
	if (!p || !vproc_runs(p))
		return;
	if (!port_listen(p, p->h2o.port) || !port_listen(p, (uint16_t)(p->h2o.port + 1))) {
		fatal(p, "On /127.0.0.1 some of the required ports are not available\n", 255);
		return;
	}
	lib = xasprintf("%s/libxgboost", p->h2o.tmp);
	ice = xasprintf("%s/ice%u", p->h2o.ice, p->h2o.port);
	disk_write(lib, "");
	disk_mkdirs(ice);
	perf_file(p, true);
	p->h2o.listens = true;
	wait_for_list(p);
}

/* ---- its beginning ---- */

static const char *option(char *const *argv, const char *name)
{
	for (; argv[0] && argv[1]; argv++)
		if (streq(argv[0], name))
			return argv[1];
	return NULL;
}

static const char *tmp_of(char *const *argv)
{
	static const char name[] = "-Djava.io.tmpdir=";

	for (; *argv; argv++)
		if (has_prefix(*argv, name))
			return *argv + strlen(name);
	return "/tmp";
}

void h2o_begin(struct vproc *p, char *const *argv)
{
	struct h2o *h = &p->h2o;
	struct vproc **group;

	sscanf(p->token, "H2OFLEET_TOKEN=%*16[0-9a-f]/%32[^/]/%u/%" SCNu64, h->cloud, &h->node,
		&h->generation);
	snprintf(h->name, sizeof(h->name), "%s", option(argv, "-name"));
	h->port = (uint16_t)strtoul(option(argv, "-port"), NULL, 10);
	h->flatfile = xstrdup(option(argv, "-flatfile"));
	h->ice = xstrdup(option(argv, "-ice_root"));
	h->recovery = xstrdup_null(option(argv, "-auto_recovery_dir"));
	h->tmp = xstrdup(tmp_of(argv));
	group = group_of(h->name);
	p->of_cloud = *group;
	*group = p;
	p->ignores_term = !w.peace && noise(about(p, 6), 0, 20) == 0;
}

/* It executes. */
void h2o_execute(struct vproc *p)
{
	uint64_t boot = (700 + noise(about(p, 7), 0, 1500)) * MS;

	p->h2o.boot_ms = 1000 + w.now / MS;
	if (!w.peace && noise(about(p, 8), 0, 40) == 0)
		boot += 8 * SEC;
	world_at(w.now + boot, listens, vproc_id(p), 0);
}

void h2o_free(struct h2o *h)
{
	free(h->flatfile);
	free(h->ice);
	free(h->tmp);
	free(h->recovery);
}

/* ---- locking ---- */

static bool consensus(const struct vproc *p)
{
	for (struct vproc *o = *group_of(p->h2o.name); o; o = o->of_cloud)
		if (p->h2o.sees[o->h2o.node] && vproc_runs(o) &&
			memcmp(p->h2o.sees, o->h2o.sees, sizeof(p->h2o.sees)) != 0)
			return false;
	return p->h2o.sees[p->h2o.node];
}

static void lock_when_agreed(uint64_t id, uint64_t tries)
{
	struct vproc *p = vproc_by_id(id);
	size_t n = 0, seen = 0;

	if (!p || !vproc_runs(p) || p->h2o.locked)
		return;
	if (!p->h2o.serves_at || !consensus(p)) {
		if (tries)
			world_at(w.now + 200 * MS, lock_when_agreed, id, tries - 1);
		return;
	}
	for (struct vproc *o = *group_of(p->h2o.name); o; o = o->of_cloud) {
		n++;
		if (!p->h2o.sees[o->h2o.node])
			continue;
		seen++;
		o->h2o.locked = true;
	}
	for (struct vproc *o = *group_of(p->h2o.name); o; o = o->of_cloud)
		o->h2o.locked_short = seen < n;
	for (struct vproc *o = *group_of(p->h2o.name); o; o = o->of_cloud)
		o->h2o.short_at = w.now;
	w.short_locks += seen < n;
	vlog("a client has locked %s with %zu of %zu members", p->h2o.name, seen, n);
}

void h2o_lock(struct vproc *p)
{
	lock_when_agreed(vproc_id(p), 50);
}

bool h2o_is_whole(const char *cloud, uint64_t generation, size_t n)
{
	const char *name = NULL;

	for (unsigned i = 0; i < n; i++) {
		const struct vproc *p = h2o_member(cloud, i);

		if (!p || p->h2o.generation != generation || (name && !streq(name, p->h2o.name)) ||
			!p->h2o.serves_at || p->h2o.locked_short)
			return false;
		name = p->h2o.name;
		for (unsigned k = 0; k < n; k++)
			if (!p->h2o.sees[k])
				return false;
	}
	return true;
}

/* ---- drv/http.h ---- */

struct http {
	struct http_request *all;
};

struct http_request {
	struct http_request *next;
	struct http *http;
	uint64_t id, began, timeout_at;
	uint16_t port;
	bool poll; /* by which it is judged; others are about its use */
	bool head, post, connected;
	char *path;      /* owned */
	uint64_t server; /* vproc_id(); 0: nobody listened */
	http_cb cb;
	void *arg;
	struct http_response rsp;
	char *body; /* owned */
};

/* The daemon's only one. */
static struct http *the_http;
static uint64_t next_request;

int http_new(uv_loop_t *loop, struct http **out, struct err *e)
{
	(void)loop, (void)e;
	*out = the_http = xcalloc(1, sizeof(**out));
	return 0;
}

static void request_free(struct http_request *r)
{
	struct http_request **at = &r->http->all;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	unnotify(r);
	free(r->path);
	free(r->body);
	free(r);
}

void http_free(struct http *h)
{
	while (h->all)
		request_free(h->all);
	if (the_http == h)
		the_http = NULL;
	free(h);
}

void http_forget(void)
{
	the_http = NULL; /* what is on its way is freed with it, and told to nobody */
}

void http_cancel(struct http_request *r)
{
	request_free(r);
}

static void tell_response(void *arg)
{
	struct http_request *r = arg;
	http_cb cb = r->cb;
	void *cb_arg = r->arg;
	struct http_response rsp = r->rsp;
	char *body = TAKE_PTR(r->body);

	rsp.body = body ? body : "";
	rsp.body_len = strlen(rsp.body);
	request_free(r);
	cb(&rsp, cb_arg);
	free(body);
}

static struct http_request *request_by_id(uint64_t id)
{
	struct http_request *r = the_http ? the_http->all : NULL;

	while (r && r->id != id)
		r = r->next;
	return r;
}

static void complete(struct http_request *r, enum http_result result, const char *error)
{
	r->id = 0; /* nothing follows */
	r->rsp.result = result;
	r->rsp.error = error;
	notify(tell_response, r);
}

static bool healthy(const struct vproc *o)
{
	uint64_t silent = vproc_runs(o) ? (h2o_paused(o) ? w.now - o->h2o.silent_since : 0)
					: w.now - o->h2o.dead_at;

	return silent < 60 * SEC;
}

/* The members that it sees, in the order of their addresses. */
static char *cloud_json(const struct vproc *p, enum lie lie, bool *good)
{
	_cleanup_free_ char *nodes = xstrdup("");
	unsigned n = 0, index = 0, bad = 0;
	bool agreed = consensus(p) && lie != LIE_CONSENSUS;

	for (unsigned k = 0; k < MAX_MEMBERS; k++) {
		const struct vproc *o = p->h2o.sees[k] ? in_group(p, k) : NULL;
		char *more;
		int pid;

		if (!o || ((lie == LIE_SIZE || lie == LIE_ONCE_SIZE) && o != p))
			continue;
		index = o == p ? n : index;
		pid = o == p || w.now - p->h2o.met_at[k] > 900 * MS ? (int)o->pid : 0;
		if (lie == LIE_PID && o == p)
			pid = 1;
		bad += !healthy(o);
		more = xasprintf("%s%s{\"ip_port\":\"127.0.0.1:%u\",\"pid\":%d,\"healthy\":%s,"
				 "\"last_ping\":1,\"free_mem\":1000,\"max_mem\":2000}",
			nodes, n ? "," : "", o->h2o.port, pid, healthy(o) ? "true" : "false");
		free(nodes);
		nodes = more;
		n++;
	}
	*good = agreed && !bad;
	return xasprintf(
		"{\"version\":\"3.46.0.12\",\"cloud_name\":\"%s\",\"cloud_size\":%u,"
		"\"node_idx\":%u,\"cloud_uptime_millis\":1,\"bad_nodes\":%u,\"consensus\":%s,"
		"\"locked\":%s,\"cloud_healthy\":%s,\"nodes\":[%s]}",
		lie == LIE_NAME ? "another-one" : p->h2o.name, n, index, bad,
		agreed ? "true" : "false", p->h2o.locked ? "true" : "false", bad ? "false" : "true",
		nodes);
}

static void resume(const struct vproc *p)
{
	/* It takes the search up, and has done some more of it. */
	_cleanup_free_ char *model =
		xasprintf("%s/model-%" PRIu64, p->h2o.recovery, p->h2o.generation);

	if (p->h2o.recovery && noise(about(p, 9), 0, 2))
		disk_write(model, "m");
}

static char *body_of(struct vproc *p, const struct http_request *r, enum lie lie, bool *good)
{
	unsigned i = plan_index(p->h2o.cloud);
	uint64_t used = i < MAX_CLOUDS ? w.worked_at[i] : 0;

	if (strstr(r->path, "/3/Cloud"))
		return cloud_json(p, lie, good);
	if (strstr(r->path, "/3/SteamMetrics"))
		return xasprintf("{\"idle_millis\":%" PRIu64 "}", (w.now - MIN(used, w.now)) / MS);
	if (strstr(r->path, "/3/Jobs"))
		return xasprintf("{\"jobs\":[%s]}", used > w.now ? "{\"status\":\"RUNNING\"}" : "");
	if (strstr(r->path, "/3/Shutdown"))
		h2o_shutdown(p);
	if (strstr(r->path, "/3/Recovery/resume") && p->h2o.recovery)
		resume(p);
	return xstrdup("{}");
}

/* A size that is wrong once is no evidence; twice it is. */
static void lies(const struct vproc *p, enum lie lie)
{
	unsigned i = plan_index(p->h2o.cloud);

	vlog("node %s/%u lies (%d)", p->h2o.cloud, p->h2o.node, (int)lie);
	if (i == MAX_CLOUDS)
		return;
	if (lie != LIE_ONCE_SIZE || w.now - w.size_lied_at[i] < 30 * SEC)
		w.lied_at[i] = w.now;
	w.size_lied_at[i] = w.now;
}

static void note_good(struct vproc *p)
{
	p->h2o.good_at = w.now;
	p->h2o.good_frozen = w.frozen;
	p->h2o.blind_for = 0;
}

static bool can_answer(const struct vproc *p)
{
	return p->h2o.serves_at && w.now >= p->h2o.serves_at && !h2o_paused(p) && !p->h2o.hung;
}

/* Now it answers, if it can. */
static void answer(uint64_t id, uint64_t server)
{
	struct http_request *r = request_by_id(id);
	struct vproc *p = vproc_by_id(server);
	enum lie lie = LIE_NONE;

	if (!r)
		return;
	if (!p || !vproc_runs(p)) {
		complete(r, HTTP_BROKEN, "Connection reset by peer");
		return;
	}
	if (p->kind != V_NODE) { /* a thief */
		for (size_t i = 0; i < MAX_CLOUDS; i++)
			w.lied_at[i] = w.now;
		r->rsp.status = 404;
		complete(r, HTTP_OK, NULL);
		return;
	}
	if (!can_answer(p)) {
		uint64_t able = MAX(p->h2o.paused_until, p->h2o.serves_at);
		uint64_t later = MAX(w.now + 50 * MS, able);

		if (!p->h2o.hung)
			world_at(later, answer, id, server);
		return;
	}
	lie = (enum lie)p->h2o.lie;
	if (r->head &&
		(lie == LIE_PID || lie == LIE_NAME || lie == LIE_GARBAGE || lie == LIE_ONCE_SIZE))
		lie = LIE_NONE; /* it waits for who asks for all */
	if (lie != LIE_NONE && lie != LIE_SIZE && lie != LIE_CONSENSUS)
		p->h2o.lie = LIE_NONE;
	if (lie == LIE_RESET) {
		complete(r, HTTP_BROKEN, "Connection reset by peer");
		return;
	}
	r->rsp.status = lie == LIE_ERROR ? 500 : 200;
	r->rsp.cluster_id = p->h2o.boot_ms + (lie == LIE_BOOT);
	r->rsp.cluster_good = true;
	r->body = lie == LIE_GARBAGE ? xstrdup("<html>") : body_of(p, r, lie, &r->rsp.cluster_good);
	if (r->head)
		free(TAKE_PTR(r->body));
	if (lie == LIE_NONE && r->poll) {
		note_good(p);
	} else if (lie != LIE_NONE) {
		lies(p, lie);
	}
	complete(r, HTTP_OK, NULL);
}

static void connects(uint64_t id, uint64_t b)
{
	struct http_request *r = request_by_id(id);
	struct vproc *p;
	uint64_t takes;

	(void)b;
	if (!r)
		return;
	p = vport(r->port)->listener;
	if (!p) {
		complete(r, HTTP_REFUSED, "Connection refused");
		return;
	}
	takes = 1000 + noise(r->port, w.now, 3000);
	if (p->h2o.slow_until > w.now)
		takes += p->h2o.slow_us;
	world_at(w.now + takes, answer, id, vproc_id(p));
}

static void times_out(uint64_t id, uint64_t b)
{
	struct http_request *r = request_by_id(id);
	struct vproc *p = r ? vport(r->port)->listener : NULL;

	(void)b;
	if (!r)
		return;
	/* It lives, and was about to answer. */
	if (p && p->kind == V_NODE && r->poll && can_answer(p) && p->h2o.slow_until > w.now)
		note_good(p);
	complete(r, HTTP_TIMEOUT, "no answer in time");
}

/* From the first question that could not be asked to the next one that can. */
static void note_blindness(struct vproc *p, bool blind)
{
	if (!p || p->kind != V_NODE)
		return;
	if (blind && !p->h2o.blind_since) {
		p->h2o.blind_since = w.now;
		p->h2o.blind_frozen = w.frozen;
	} else if (!blind && p->h2o.blind_since) {
		p->h2o.blind_for = h2o_blind_for(p);
		p->h2o.blind_since = 0;
	}
}

int http_start(struct http *h, const struct http_spec *spec, http_cb cb, void *arg,
	struct http_request **out)
{
	struct http_request *r;
	int err;

	if (!effect(30))
		return -ENOMEM;
	r = xcalloc(1, sizeof(*r));
	*r = (struct http_request){
		.next = h->all, .http = h, .id = ++next_request, .cb = cb, .arg = arg};
	r->port = (uint16_t)strtoul(strrchr(spec->url, ':') + 1, NULL, 10);
	r->path = xstrdup(spec->url);
	r->head = streq(spec->method, "HEAD");
	r->poll = strstr(r->path, "/3/Cloud") && !spec->max_body;
	h->all = r;
	check_http(spec->url, spec->method, vport(r->port)->listener);
	if (out)
		*out = r;
	err = fault(FAULT_HTTP);
	if (r->poll)
		note_blindness(vport(r->port)->listener, err != 0);
	if (err) {
		r->rsp.own_errno = err;
		complete(r, HTTP_NOT_ASKED, strerror(err));
		return 0;
	}
	world_at(w.now + 200, connects, r->id, 0);
	world_at(w.now + spec->timeout_ms * MS, times_out, r->id, 0);
	return 0;
}

char *http_escape(const char *s)
{
	return xstrdup(s);
}

void h2o_new(void)
{
	n_groups = 0;
	next_request = 0;
}
