#include "model/memory.h"

#include <errno.h>
#include <stdio.h>

#include "model/transitions.h"

/* A generation that was forming when the daemon died gets at least this to become ready. */
#define FORMING_LEFT_MS 5000

static json_int_t age_of(uint64_t at_ms, uint64_t now_ms)
{
	return at_ms ? (json_int_t)(now_ms - MIN(at_ms, now_ms)) : -1;
}

/* 0 where there was no time. */
static uint64_t time_of(json_int_t age_ms, uint64_t now_ms, uint64_t gap_ms)
{
	uint64_t age = (uint64_t)age_ms + gap_ms;

	if (age_ms < 0)
		return 0;
	return age < now_ms ? now_ms - age : 1;
}

static json_int_t left_of(uint64_t due_ms, uint64_t now_ms)
{
	return due_ms ? (json_int_t)(MAX(due_ms, now_ms) - now_ms) : -1;
}

static uint64_t due_at(json_int_t left_ms, uint64_t at_least_ms, uint64_t now_ms, uint64_t gap_ms)
{
	uint64_t left = (uint64_t)left_ms > gap_ms ? (uint64_t)left_ms - gap_ms : 0;

	return left_ms < 0 ? 0 : now_ms + MAX(left, at_least_ms);
}

/* ---- to JSON ---- */

static json_t *exit_json(const struct last_exit *x)
{
	if (!x->present)
		return json_null();
	return json_pack("{s:b, s:i, s:i, s:s, s:s*, s:s*, s:s*, s:I}", "known", x->known, "code",
		x->code, "signal", x->signal, "cause", cause_name(x->cause), "why", x->why,
		"log_tail", x->log_tail, "incident", x->incident, "wall_ms",
		(json_int_t)x->wall_ms);
}

static json_t *node_json(const struct node *n, uint64_t now_ms)
{
	return json_pack("{s:i, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:i, s:b, s:o}", "index",
		(int)n->index, "state", node_state_name(n->state), "api_port", (int)n->api_port,
		"pid", (json_int_t)n->pid, "start_ticks", (json_int_t)n->start_ticks,
		"launched_age_ms", age_of(n->launched_ms, now_ms), "launched_wall_ms",
		(json_int_t)n->launched_wall_ms, "h2o_boot_ms", (json_int_t)n->h2o_boot_ms,
		"sent_signal", n->sent_signal, "hung", n->hung, "last_exit",
		exit_json(&n->last_exit));
}

static json_t *failures_json(const struct failure_history *h, uint64_t now_ms)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < h->n; i++)
		json_array_append_new(list, json_integer(age_of(h->at_ms[i], now_ms)));
	return list;
}

json_t *cloud_memory(const struct cloud *c, uint64_t now_ms)
{
	json_t *nodes = json_array();

	cloud_for_each_node (n, c)
		json_array_append_new(nodes, node_json(n, now_ms));
	return json_pack("{s:s, s:s, s:s*, s:I, s:I, s:s*, s:s, s:i, s:b, s:b, s:b, s:b, s:b, s:b, "
			 "s:b, s:b, s:b, s:b, s:b, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
			 "s:I, s:I, s:o, s:o}",
		"state", cloud_state_name(c->state), "wanted", cloud_wanted_name(c->wanted),
		"reason", c->reason, "generation", (json_int_t)c->generation, "restarts",
		(json_int_t)c->restarts, "h2o_name", c->h2o_name, "endpoint_address",
		c->endpoint.addr, "endpoint_port", (int)c->endpoint.port, "ports_planned",
		c->ports_planned, "disarmed", c->disarmed, "ever_ready", c->ever_ready, "fresh",
		c->fresh, "restart_asked", c->restart_asked, "resume_asked", c->resume_asked,
		"leaving", c->leaving, "uncounted", c->uncounted, "permanent", c->permanent,
		"resuming", c->resuming, "resume_sent", c->resume_sent, "bad_resumes",
		(int)c->bad_resumes, "prepare_failures", (int)c->prepare_failures, "short_locks",
		(json_int_t)c->short_locks, "since_age_ms", age_of(c->since_ms, now_ms),
		"since_wall_ms", (json_int_t)c->since_wall_ms, "ready_age_ms",
		age_of(c->ready_ms, now_ms), "ready_left_ms",
		left_of(c->timers[TIMER_READY], now_ms), "backoff_left_ms",
		left_of(c->timers[TIMER_BACKOFF], now_ms), "active_age_ms",
		age_of(c->active_ms, now_ms), "idle_said_age_ms", age_of(c->idle_said_ms, now_ms),
		"idled_ms", (json_int_t)c->idled_ms, "failures", failures_json(&c->history, now_ms),
		"nodes", nodes);
}

/* ---- from JSON ---- */

static int bad(struct err *e, const char *what)
{
	return err_set(e, -EINVAL, "%s is not as h2ofleetd writes it", what);
}

static int word_index(const char *word, const char *(*name)(int), int n)
{
	for (int i = 0; i < n; i++)
		if (streq(word, name(i)))
			return i;
	return -1;
}

static const char *state_word(int i)
{
	return cloud_state_name((enum cloud_state)i);
}

static const char *node_word(int i)
{
	return node_state_name((enum node_state)i);
}

static const char *cause_word(int i)
{
	return cause_name((enum cause)i);
}

static int exit_remember(struct last_exit *x, json_t *j, struct err *e)
{
	const char *cause, *why = NULL, *tail = NULL, *incident = NULL;
	json_int_t wall;
	int known, index;

	if (json_is_null(j))
		return 0;
	if (json_unpack(j, "{s:b, s:i, s:i, s:s, s?s, s?s, s?s, s:I}", "known", &known, "code",
		    &x->code, "signal", &x->signal, "cause", &cause, "why", &why, "log_tail", &tail,
		    "incident", &incident, "wall_ms", &wall) < 0)
		return bad(e, "last_exit");
	index = word_index(cause, cause_word, CAUSE_UNKNOWN + 1);
	if (index < 0)
		return bad(e, "last_exit's cause");
	x->present = true;
	x->known = known;
	x->cause = (enum cause)index;
	x->why = xstrdup_null(why);
	x->log_tail = xstrdup_null(tail);
	x->incident = xstrdup_null(incident);
	x->wall_ms = (uint64_t)wall;
	return 0;
}

static int node_remember(struct node *n, json_t *j, uint64_t now_ms, uint64_t gap_ms, struct err *e)
{
	json_int_t pid, ticks, age, wall, boot;
	int index, port, hung, state;
	const char *word;
	json_t *exit;

	if (json_unpack(j, "{s:i, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:i, s:b, s:o}", "index",
		    &index, "state", &word, "api_port", &port, "pid", &pid, "start_ticks", &ticks,
		    "launched_age_ms", &age, "launched_wall_ms", &wall, "h2o_boot_ms", &boot,
		    "sent_signal", &n->sent_signal, "hung", &hung, "last_exit", &exit) < 0)
		return bad(e, "a node");
	state = word_index(word, node_word, NODE_EXITED + 1);
	if (state < 0 || index != (int)n->index || port < 0 || port > UINT16_MAX || pid < 0 ||
		pid > INT32_MAX)
		return bad(e, "a node's state, index, port or pid");
	n->state = (enum node_state)state;
	n->api_port = (uint16_t)port;
	n->pid = (pid_t)pid;
	n->start_ticks = (uint64_t)ticks;
	n->launched_ms = time_of(age, now_ms, gap_ms);
	n->launched_wall_ms = (uint64_t)wall;
	n->h2o_boot_ms = (uint64_t)boot;
	n->hung = hung;
	if (node_alive(n) && !n->pid) /* was about to be launched */
		n->state = NODE_DOWN;
	return exit_remember(&n->last_exit, exit, e);
}

static int nodes_remember(
	struct cloud *c, json_t *list, uint64_t now_ms, uint64_t gap_ms, struct err *e)
{
	int r = 0;

	if (json_array_size(list) != c->n_nodes)
		return err_set(e, -EINVAL, "it is of a cloud of %zu nodes, and this has %zu",
			json_array_size(list), c->n_nodes);
	for (size_t i = 0; i < c->n_nodes && r == 0; i++)
		r = node_remember(&c->nodes[i], json_array_get(list, i), now_ms, gap_ms, e);
	cloud_for_each_node (n, c)
		if (r == 0 && c->ports_planned && (n->api_port == 0 || n->api_port == UINT16_MAX))
			r = bad(e, "a node's port");
	return r;
}

static void failures_remember(
	struct failure_history *h, json_t *list, uint64_t now_ms, uint64_t gap_ms)
{
	for (size_t i = 0; i < json_array_size(list) && h->n < ARRAY_SIZE(h->at_ms); i++)
		h->at_ms[h->n++] =
			time_of(json_integer_value(json_array_get(list, i)), now_ms, gap_ms);
}

struct flags {
	int ports_planned, disarmed, ever_ready, fresh, restart_asked, resume_asked, leaving,
		uncounted, permanent, resuming, resume_sent;
};

static void flags_remember(struct cloud *c, const struct flags *f)
{
	c->ports_planned = f->ports_planned;
	c->disarmed = f->disarmed;
	c->ever_ready = f->ever_ready;
	c->fresh = f->fresh;
	c->restart_asked = f->restart_asked;
	c->resume_asked = f->resume_asked;
	c->leaving = f->leaving;
	c->uncounted = f->uncounted;
	c->permanent = f->permanent;
	c->resuming = f->resuming;
	c->resume_sent = f->resume_sent;
}

int cloud_remember(struct cloud *c, const json_t *memory, uint64_t now_ms, uint64_t gap_ms,
	enum cloud_state *was, struct err *e)
{
	json_int_t generation, restarts, short_locks, since, since_wall, ready, ready_left, backoff;
	json_int_t active = -1, idle_said = -1, idled = 0; /* earlier daemons wrote none */
	const char *word, *wanted, *reason = NULL, *name = NULL, *addr;
	int port, bad_resumes, prepare_failures, state;
	json_t *failures, *nodes;
	struct flags f = {0};
	json_error_t je;

	if (json_unpack_ex((json_t *)memory, &je, 0,
		    "{s:s, s:s, s?s, s:I, s:I, s?s, s:s, s:i, s:b, s:b, s:b, s:b, s:b, s:b, s:b, "
		    "s:b, s:b, s:b, s?b, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s?I, s?I, s?I, "
		    "s:o, s:o}",
		    "state", &word, "wanted", &wanted, "reason", &reason, "generation", &generation,
		    "restarts", &restarts, "h2o_name", &name, "endpoint_address", &addr,
		    "endpoint_port", &port, "ports_planned", &f.ports_planned, "ever_ready",
		    &f.ever_ready, "fresh", &f.fresh, "restart_asked", &f.restart_asked,
		    "resume_asked", &f.resume_asked, "leaving", &f.leaving, "uncounted",
		    &f.uncounted, "permanent", &f.permanent, "resuming", &f.resuming, "resume_sent",
		    &f.resume_sent, "disarmed", &f.disarmed, "bad_resumes", &bad_resumes,
		    "prepare_failures", &prepare_failures, "short_locks", &short_locks,
		    "since_age_ms", &since, "since_wall_ms", &since_wall, "ready_age_ms", &ready,
		    "ready_left_ms", &ready_left, "backoff_left_ms", &backoff, "active_age_ms",
		    &active, "idle_said_age_ms", &idle_said, "idled_ms", &idled, "failures",
		    &failures, "nodes", &nodes) < 0)
		return err_set(e, -EINVAL, "%s", je.text);
	state = word_index(word, state_word, CLOUD_FAILED + 1);
	if (state < 0 || generation < 0 || restarts < 0 || port < 0 || port > UINT16_MAX)
		return bad(e, "state, generation or port");
	*was = (enum cloud_state)state;
	c->wanted = streq(wanted, "running") ? WANTED_RUNNING : WANTED_STOPPED;
	c->reason = xstrdup_null(reason);
	c->h2o_name = xstrdup_null(name);
	c->generation = (uint64_t)generation;
	c->restarts = (uint64_t)restarts;
	snprintf(c->endpoint.addr, sizeof(c->endpoint.addr), "%s", addr);
	c->endpoint.port = (uint16_t)port;
	flags_remember(c, &f);
	c->bad_resumes = (unsigned)bad_resumes;
	c->prepare_failures = (unsigned)prepare_failures;
	c->short_locks = (uint64_t)short_locks;
	c->since_ms = time_of(since, now_ms, gap_ms);
	c->since_wall_ms = (uint64_t)since_wall;
	c->ready_ms = time_of(ready, now_ms, gap_ms);
	c->active_ms = time_of(active, now_ms, gap_ms);
	c->idle_said_ms = time_of(idle_said, now_ms, gap_ms);
	c->idled_ms = (uint64_t)idled;
	c->timers[TIMER_READY] = due_at(ready_left, FORMING_LEFT_MS, now_ms, gap_ms);
	c->timers[TIMER_BACKOFF] = due_at(backoff, 0, now_ms, gap_ms);
	failures_remember(&c->history, failures, now_ms, gap_ms);
	return nodes_remember(c, nodes, now_ms, gap_ms, e);
}

/* ---- going on ---- */

static bool all_have_pids(const struct cloud *c)
{
	cloud_for_each_node (n, c)
		if (!n->pid)
			return false;
	return true;
}

/* Nobody listened to the members for a while, which is not their fault. */
static void go_on_serving(struct cloud *c, uint64_t now_ms)
{
	c->state = CLOUD_READY;
	replace_str(&c->reason, NULL);
	watch_begin_ready(c, now_ms);
	idle_go_on(c, now_ms);
	cloud_for_each_node (n, c) {
		n->state = NODE_UP;
		n->answered_ms = now_ms;
		n->ask_full = true;
		n->poll_due_ms = now_ms;
	}
	if (c->resume_sent)
		cloud_act(c, (struct action){.type = ACTION_INSPECT_RECOVERY});
}

static void go_on_forming(struct cloud *c, uint64_t ready_due_ms, uint64_t now_ms)
{
	c->state = CLOUD_FORMING;
	c->timers[TIMER_READY] = ready_due_ms ? ready_due_ms : now_ms + c->conf->ready_timeout_ms;
	cloud_for_each_node (n, c) {
		n->state = NODE_BOOTING;
		watch_begin_forming(c, n, now_ms);
		n->poll_due_ms = now_ms;
	}
}

static void go_on_stopping(struct cloud *c, uint64_t now_ms)
{
	c->state = CLOUD_STOPPING;
	if (c->leaving) {
		c->leaving = false;
		cloud_leave(c, now_ms);
	} else {
		cloud_tear_down(c, 1, now_ms);
	}
}

static void go_on_launching(struct cloud *c, uint64_t now_ms)
{
	c->state = CLOUD_STARTING;
	if (cloud_nodes_alive(c))
		cloud_lose(
			c, false, now_ms, "h2ofleetd was ended while it launched this generation");
	else
		cloud_prepare(c, now_ms);
}

void cloud_resume(struct cloud *c, enum cloud_state was, bool half_launched, uint64_t now_ms)
{
	uint64_t ready_due = c->timers[TIMER_READY], backoff_due = c->timers[TIMER_BACKOFF];
	bool launched = !half_launched && all_have_pids(c);

	memset(c->timers, 0, sizeof(c->timers));
	c->dirty = true;
	switch (was) {
	case CLOUD_STOPPED:
	case CLOUD_FAILED:
		c->state = was;
		if (cloud_nodes_alive(c)) /* cannot be */
			go_on_stopping(c, now_ms);
		break;
	case CLOUD_STARTING:
	case CLOUD_FORMING:
		if (launched)
			go_on_forming(c, ready_due, now_ms);
		else
			go_on_launching(c, now_ms);
		break;
	case CLOUD_READY:
	case CLOUD_DEGRADED:
		if (all_have_pids(c))
			go_on_serving(c, now_ms);
		else
			go_on_launching(c, now_ms);
		break;
	case CLOUD_RECOVERING:
		c->state = CLOUD_RECOVERING;
		cloud_tear_down(c, 1, now_ms);
		break;
	case CLOUD_STOPPING:
		go_on_stopping(c, now_ms);
		break;
	case CLOUD_BACKOFF:
		c->state = CLOUD_BACKOFF;
		if (c->shutting_down) {
			cloud_rest(c, now_ms);
			break;
		}
		c->timers[TIMER_BACKOFF] = c->next_start_ms = backoff_due ? backoff_due : now_ms;
		break;
	}
}
