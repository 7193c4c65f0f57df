/* The gate's process: started when the first cloud needs a door, watched as members are, begun anew
 * when it dies, taken over from an earlier daemon, ended with the fleet. What it is told about each
 * cloud is in door.c; what it does, in src/gate/. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/internal.h"
#include "drv/gate_link.h"
#include "drv/machine.h"

/* Answers come within a ms; longer only from a gate that hangs, which is then replaced. */
#define ADOPT_MS 2000
/* One that has lived this long may be begun anew at once; so may one that has begun well, a few
 * times in a row: somebody kills it. One that does not come up, or dies again and again, later each
 * time. */
#define WELL_MS         2000
#define QUICK_DEATHS    20
#define RESPAWN_MS      UINT64_C(100)
#define RESPAWN_MAX_MS  UINT64_C(5000)
#define END_PATIENCE_MS 2000
/* It is asked for a sign of life so often, in beats of the fleet, and must answer in that time. */
#define PING_BEATS 10
#define HANG_MS    60000

struct gate {
	struct fleet *fleet;
	char *path;    /* owned: of its socket */
	char *program; /* owned */
	struct proc *proc;
	struct gate_link *link;
	uv_timer_t *timer; /* respawn, or patience at the end; freed in its close callback */
	uint64_t started_ms, delay_ms;
	bool said_hello;
	unsigned quick_deaths; /* in a row */
	uint64_t lost_ms;      /* when the link was lost last */
	uint64_t pinged_ms;    /* fleet_now() of the first question without an answer; 0: none */
	unsigned beats;
	bool ending;
};

static void start(struct gate *g);

/* ---- its program and its mark ---- */

/* Beside our own. What is run is the newest, also after an upgrade of the package. NULL, and errno:
 * it cannot be told now. */
static char *find_program(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash;

	if (n < 0)
		return NULL;
	path[n] = '\0';
	slash = strrchr(path, '/');
	return xasprintf("%.*s/h2ofleet-gate", slash ? (int)(slash - path) : 0, path);
}

static char *token_of(const struct fleet *f)
{
	return xasprintf("%s=%s/%s", TOKEN_ENV, f->id, GATE_TOKEN);
}

/* ---- its end ---- */

static void on_respawn(uv_timer_t *t)
{
	struct gate *g = t->data;

	if (!g->proc && !g->ending)
		start(g);
}

static void respawn_later(struct gate *g)
{
	bool well = fleet_now(g->fleet) - g->started_ms >= WELL_MS;

	g->quick_deaths = well ? 0 : g->quick_deaths + 1;
	if (well || (g->said_hello && g->quick_deaths <= QUICK_DEATHS)) {
		g->delay_ms = 0;
		start(g);
		return;
	}
	g->delay_ms = MIN(MAX(2 * g->delay_ms, RESPAWN_MS), RESPAWN_MAX_MS);
	uv_timer_start(g->timer, on_respawn, g->delay_ms, 0);
}

static void say_exit(struct gate *g, const struct proc_exit *x)
{
	const char *sig = x->signal ? sigabbrev_np(x->signal) : NULL;
	_cleanup_free_ char *how = NULL;

	if (x->exec_errno)
		how = xasprintf("cannot be executed (%s): %s", g->program, strerror(x->exec_errno));
	else if (x->signal)
		how = xasprintf("was killed by SIG%s", sig ? sig : "?");
	else if (x->known)
		how = xasprintf("exited with %d", x->code);
	else
		how = xstrdup("has ended");
	if (x->exec_errno) {
		trouble_set(g->fleet, TROUBLE_GATE, NULL, how);
		return;
	}
	log_warning("the gate (pid %d) %s; its connections are lost, it is started again",
		(int)proc_pid(g->proc), how);
	fleet_event(g->fleet, "gate-exited", NULL, -1,
		json_pack("{s:i}", "pid", (int)proc_pid(g->proc)), "the gate (pid %d) %s",
		(int)proc_pid(g->proc), how);
}

static void on_ended(struct proc *p, const struct proc_exit *x, void *arg)
{
	struct gate *g = arg;

	(void)p;
	gate_link_close(TAKE_PTR(g->link));
	doors_unknown(g->fleet);
	if (!g->ending)
		say_exit(g, x);
	proc_free(TAKE_PTR(g->proc));
	port_is_let_go_by(0);
	g->pinged_ms = 0;
	if (g->ending) {
		uv_timer_stop(g->timer);
		unlink(g->path);
		fleet_check_done(g->fleet);
	} else {
		respawn_later(g);
	}
}

static void on_patience_over(uv_timer_t *t)
{
	struct gate *g = t->data;

	if (g->proc)
		proc_kill_group(g->proc);
}

bool gate_end(struct fleet *f, bool at_once)
{
	struct gate *g = f->gate;

	if (!g)
		return true;
	if (g->proc && at_once) {
		proc_kill_group(g->proc);
	} else if (g->proc && !g->ending) {
		proc_signal(g->proc, SIGTERM);
		uv_timer_start(g->timer, on_patience_over, END_PATIENCE_MS, 0);
	}
	g->ending = true;
	if (!g->proc)
		unlink(g->path);
	return !g->proc;
}

/* ---- what it says ---- */

static void on_refused(struct fleet *f, const struct cloud *c, const json_t *body)
{
	json_t *uid = json_object_get(body, "uid");
	const char *why = json_string_value(json_object_get(body, "why"));
	json_int_t count = json_integer_value(json_object_get(body, "count"));
	_cleanup_free_ char *who =
		json_is_integer(uid)
			? xasprintf("user %" JSON_INTEGER_FORMAT, json_integer_value(uid))
			: xstrdup("somebody whose user cannot be told");

	log_warning("cloud %s: the gate turned %s away, %" JSON_INTEGER_FORMAT " time%s%s%s",
		c->conf->name, who, count, count == 1 ? "" : "s", why ? ": " : "", why ? why : "");
	fleet_event(f, "gate-refused", c, -1,
		json_pack("{s:O?, s:I, s:s?}", "uid", uid, "count", count, "why", why),
		"cloud %s: %s was turned away at the gate%s%s", c->conf->name, who, why ? ": " : "",
		why ? why : "");
}

static void on_unreachable(struct fleet *f, const struct cloud *c, const json_t *body)
{
	const char *error = json_string_value(json_object_get(body, "error"));

	log_warning("cloud %s: the gate cannot reach node 0: %s", c->conf->name,
		error ? error : "no reason given");
	fleet_event(f, "gate-unreachable", c, 0, json_pack("{s:s?}", "error", error),
		"cloud %s: the gate cannot reach node 0: %s", c->conf->name,
		error ? error : "no reason given");
}

static void on_hello(struct gate *g, const json_t *body)
{
	const char *version = json_string_value(json_object_get(body, "version"));
	int pid = (int)gate_pid(g->fleet);

	trouble_clear(g->fleet, TROUBLE_GATE, NULL);
	if (g->said_hello) /* to us, who have connected once more */
		return;
	g->said_hello = true;
	log_info("the gate is pid %d, h2ofleet-gate %s", pid, version ? version : "?");
	fleet_event(g->fleet, "gate-started", NULL, -1, json_pack("{s:i}", "pid", pid),
		"the gate runs as pid %d", pid);
}

static void on_message(const struct gate_message *m, void *arg);

static void on_room(void *arg)
{
	struct gate *g = arg;

	doors_look(g->fleet);
}

static void say_hello(struct gate *g)
{
	json_auto_t *hello = json_pack("{s:s, s:i}", "op", "hello", "protocol", GATE_PROTOCOL);

	gate_link_send(g->link, hello, NULL, 0);
}

/* It ends, as its pidfd will say; or somebody else has talked to it, and it takes the newest for
 * its daemon: then it is told that we are. One with which that does not help is replaced. */
static void lost_link(struct gate *g)
{
	bool again = fleet_now(g->fleet) - g->lost_ms >= WELL_MS;

	gate_link_close(TAKE_PTR(g->link));
	g->lost_ms = fleet_now(g->fleet);
	if (!g->proc || g->ending)
		return;
	doors_unknown(g->fleet); /* what it was told last it may not have read */
	if (again && gate_link_open(g->fleet->loop, g->path, &g->link) == 0) {
		gate_link_start(g->link, on_message, on_room, g);
		say_hello(g);
		doors_look(g->fleet);
		return;
	}
	proc_kill_group(g->proc);
}

static void on_message(const struct gate_message *m, void *arg)
{
	struct gate *g = arg;
	const char *op = m ? json_string_value(json_object_get(m->body, "op")) : NULL;
	const char *name = m ? json_string_value(json_object_get(m->body, "cloud")) : NULL;
	struct supervised *s = name ? supervised_find(g->fleet, name) : NULL;

	g->pinged_ms = 0;
	if (!m) {
		lost_link(g);
	} else if (streq(op, "hello")) {
		on_hello(g, m->body);
	} else if (s && streq(op, "knock")) {
		log_info("cloud %s: a connection waits at the gate", name);
		supervised_feed(s, &(struct cloud_event){.type = EVENT_KNOCK});
	} else if (s && streq(op, "refused")) {
		on_refused(g->fleet, s->cloud, m->body);
	} else if (s && streq(op, "unreachable")) {
		on_unreachable(g->fleet, s->cloud, m->body);
	}
}

/* ---- its beginning ---- */

static int spawn(struct gate *g, int listening, struct err *e)
{
	_cleanup_free_ char *token = token_of(g->fleet);
	_cleanup_(strv_free) struct strv env = STRV_NULL;
	struct spawn_request rq = {
		.input_fd = listening,
		.output_fd = STDERR_FILENO,
	};

	if (!g->program)
		g->program = find_program();
	if (!g->program)
		return err_set_errno(e, -errno, "cannot tell where h2ofleet-gate is");
	rq.argv = (char *const[]){g->program, NULL};
	plan_clean_env(environ, &env);
	strv_add(&env, token);
	rq.env = env.v;
	return proc_spawn(g->fleet->loop, &rq, on_ended, g, &g->proc, e);
}

static void start(struct gate *g)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_close_ int listening = gate_link_listen(g->path, &e);
	int r = listening < 0 ? listening : spawn(g, listening, &e);

	g->started_ms = fleet_now(g->fleet);
	g->said_hello = false;
	if (r == 0)
		r = gate_link_open(g->fleet->loop, g->path, &g->link);
	if (r < 0) {
		_cleanup_free_ char *why = NULL;

		if (!e.code)
			err_set_errno(&e, r, "cannot talk to the gate");
		why = xasprintf("%s%s", err_msg(&e), trouble_advice(r));
		trouble_set(g->fleet, TROUBLE_GATE, NULL, why);
		if (g->proc)
			proc_free(TAKE_PTR(g->proc)); /* sees the end of its pipe and exits */
		respawn_later(g);
		return;
	}
	gate_link_start(g->link, on_message, on_room, g);
	proc_release(g->proc);
	port_is_let_go_by(proc_pid(g->proc));
	say_hello(g);
	doors_look(g->fleet);
}

int gate_tell(struct fleet *f, const json_t *body, const int *fds, unsigned n_fds)
{
	struct gate *g = f->gate;

	if (!g->proc && !g->ending && !uv_is_active((uv_handle_t *)g->timer))
		start(g);
	return g->link ? gate_link_send(g->link, body, fds, n_fds) : -ENOTCONN;
}

void gate_forget(struct fleet *f, const char *cloud)
{
	json_auto_t *j = json_pack("{s:s, s:s}", "op", "forget", "cloud", cloud);

	if (!f->gate->link || gate_link_send(f->gate->link, j, NULL, 0) == 0)
		return;
	/* It does not read; a door that nobody wants must not stay open. */
	log_warning("the gate does not listen to us; it is replaced");
	if (f->gate->proc)
		proc_kill_group(f->gate->proc);
}

pid_t gate_pid(const struct fleet *f)
{
	return f->gate && f->gate->proc ? proc_pid(f->gate->proc) : 0;
}

/* ---- a gate of an earlier daemon ---- */

static bool is_ours(const struct fleet *f, pid_t pid)
{
	_cleanup_free_ char *token = token_of(f);

	return pid > 0 && process_has_env(pid, token);
}

static int watch_process(struct gate *g, const json_t *hello)
{
	pid_t pid = (pid_t)json_integer_value(json_object_get(hello, "pid"));
	int r;

	if (json_integer_value(json_object_get(hello, "protocol")) != GATE_PROTOCOL ||
		!is_ours(g->fleet, pid))
		return -EPROTO;
	r = proc_adopt(g->fleet->loop, pid, process_start_ticks(pid), on_ended, g, &g->proc);
	if (r == 0)
		port_is_let_go_by(pid);
	return r;
}

/* One thing that it says of itself. 1: that was all; 0; or a negative errno. */
static int hear(struct gate *g, struct gate_message *m)
{
	const char *op = json_string_value(json_object_get(m->body, "op"));
	const char *cloud = json_string_value(json_object_get(m->body, "cloud"));

	if (streq(op, "ready"))
		return g->proc ? 1 : -EPROTO;
	if (streq(op, "hello"))
		return watch_process(g, m->body);
	if (streq(op, "door") && !door_adopt(g->fleet, m) && cloud)
		gate_forget(g->fleet, cloud);
	return 0;
}

/* Before the loop runs: clouds must know which ports they have. */
static int adopt(struct gate *g)
{
	int r = gate_link_open(g->fleet->loop, g->path, &g->link);

	if (r < 0)
		return r;
	say_hello(g);
	while (r == 0) {
		struct gate_message m;

		r = gate_link_wait(g->link, ADOPT_MS, &m);
		if (r == 1) {
			r = hear(g, &m);
			gate_message_clear(&m);
		} else if (r == 0) {
			r = -EPIPE;
		}
	}
	return MIN(r, 0);
}

/* Its sockets are in the way until it is gone. */
static void kill_it(const struct fleet *f)
{
	_cleanup_free_ char *token = token_of(f);

	for (int i = 0; proc_kill_stragglers(token) && i < 500; i++)
		usleep(2000);
}

static void on_timer_closed(uv_handle_t *h)
{
	free(h);
}

/* What we lack ourselves says nothing of the gate. */
static bool is_our_lack(int r)
{
	return r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -ENOBUFS;
}

int gate_new(struct fleet *f)
{
	struct gate *g = xcalloc(1, sizeof(*g));
	int r;

	f->gate = g;
	g->fleet = f;
	g->path = xasprintf("%s/gate", f->conf->fleet.state_dir);
	g->program = find_program();
	g->timer = xcalloc(1, sizeof(*g->timer));
	uv_timer_init(f->loop, g->timer);
	g->timer->data = g;
	g->started_ms = fleet_now(f);
	r = adopt(g);
	if (r == 0) {
		g->said_hello = true;
		gate_link_start(g->link, on_message, on_room, g);
		log_notice("the gate is adopted: pid %d", (int)proc_pid(g->proc));
		return 0;
	}
	if (is_our_lack(r))
		return r;
	if (r != -ENOENT && r != -ECONNREFUSED) {
		log_warning("the gate of an earlier daemon does not answer as it should (%s); it "
			    "is replaced",
			strerror(-r));
		kill_it(f);
	}
	gate_link_close(TAKE_PTR(g->link));
	proc_free(TAKE_PTR(g->proc));
	port_is_let_go_by(0);
	doors_unknown(f);
	return 0;
}

void gate_free(struct fleet *f)
{
	struct gate *g = f->gate;

	if (!g)
		return;
	gate_link_close(g->link);
	proc_free(g->proc);
	uv_close((uv_handle_t *)g->timer, on_timer_closed);
	free(g->path);
	free(g->program);
	free(g);
}

/* ---- is it well? ---- */

/* A process that is paused comes back; one that hangs for a minute does not, and holds up all. */
void gate_beat(struct fleet *f)
{
	struct gate *g = f->gate;
	json_auto_t *ping = NULL;

	doors_look(f);
	if (!g->link || g->beats++ % PING_BEATS)
		return;
	if (g->pinged_ms && fleet_now(f) - g->pinged_ms >= HANG_MS) {
		log_warning("the gate (pid %d) does not answer; it is replaced", (int)gate_pid(f));
		g->pinged_ms = 0;
		proc_kill_group(g->proc);
		return;
	}
	ping = json_pack("{s:s}", "op", "ping");
	gate_link_send(g->link, ping, NULL, 0);
	if (!g->pinged_ms)
		g->pinged_ms = fleet_now(f);
}
