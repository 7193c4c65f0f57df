#include <inttypes.h>
#include <stdio.h>

#include "base/text.h"
#include "model/plan.h"
#include "model/transitions.h"

/* While forming, member 0 is asked often: it is where clients arrive when there is no gate, so
 * where a short lock shows. The others are asked less until it is whole. See HACKING.md, "What H2O
 * really does". */
#define BOOT_QUIET_MS     250 /* no JVM serves earlier */
#define FORMING_FIRST_MS  30
#define FORMING_OTHERS_MS 250
#define FORMING_WHOLE_MS  20
#define FORMING_CROWD     64
#define FORMING_LARGE     16
#define FORMING_SLOWEST   25 /* times as long */
#define FULL_POLL_MS      10000
#define DOUBT_MS          50
#define UNASKED_MS        500

static bool polled_state(const struct cloud *c)
{
	return c->state == CLOUD_STARTING || c->state == CLOUD_FORMING || cloud_usable(c);
}

static bool pollable(const struct node *n)
{
	return n->pid > 0 &&
	       (n->state == NODE_BOOTING || n->state == NODE_UP || n->state == NODE_LATE);
}

static bool answers(const struct node *n)
{
	return n->state == NODE_UP || n->state == NODE_LATE;
}

void watch_begin_forming(struct cloud *c, struct node *n, uint64_t now_ms)
{
	(void)c;
	n->polling = false;
	n->whole = false;
	n->doubted = false;
	n->ask_full = false;
	n->unhealthy_ms = 0;
	n->answered_ms = 0;
	n->h2o_boot_ms = 0;
	n->blind_ms = 0;
	n->poll_due_ms = now_ms + BOOT_QUIET_MS;
}

/* Each node has its moment in the interval, so that polls are spread over it and stay so: what
 * comes together once, after a stop of the daemon or a start of all clouds, would do so for ever if
 * the next poll came an interval after each answer. The first such moment from then on, so never
 * more than an interval away: a node must not be late, or hung, that nobody has asked. */
static uint64_t own_moment(const struct cloud *c, const struct node *n, uint64_t from_ms)
{
	uint64_t interval = c->conf->health_interval_ms;
	uint64_t moment = (c->phase + interval * n->index / c->n_nodes) % interval;

	return from_ms + (moment + interval - from_ms % interval) % interval;
}

void watch_begin_ready(struct cloud *c, uint64_t now_ms)
{
	c->timers[TIMER_FULL_POLL] = now_ms + FULL_POLL_MS;
	cloud_for_each_node (n, c)
		n->poll_due_ms = own_moment(c, n, now_ms + 1);
}

/* The more are on their way, the less often each is asked, or polls alone would keep a machine busy
 * that has all these nodes to start. */
static uint64_t forming_interval(const struct cloud *c, const struct node *n)
{
	uint64_t interval = n->index == 0 ? FORMING_FIRST_MS : FORMING_OTHERS_MS;
	/* What each answers is as long as its cloud is large. */
	size_t crowd = c->crowd * MAX(c->n_nodes, (size_t)FORMING_LARGE) / FORMING_LARGE;

	crowd = MIN(MAX(crowd, (size_t)FORMING_CROWD), (size_t)FORMING_SLOWEST * FORMING_CROWD);
	if (c->nodes[0].whole)
		interval = FORMING_WHOLE_MS;
	return interval * crowd / FORMING_CROWD;
}

/* How long an answer is waited for. One that comes after late_after still shows that the node
 * lives: such a node is late for ever, and no loss. Twice within hang_timeout, so that one question
 * that is lost is none either. A formation goes on by asking again. */
static uint64_t patience(const struct cloud *c)
{
	const struct cloud_conf *conf = c->conf;

	if (!cloud_usable(c))
		return conf->late_after_ms;
	return MAX(conf->late_after_ms, (conf->hang_timeout_ms - conf->health_interval_ms) / 2);
}

static void poll_node(struct cloud *c, struct node *n, bool full, uint64_t now_ms)
{
	n->polling = true;
	n->poll_due_ms = 0;
	n->polled_ms = now_ms;
	cloud_act(c, (struct action){.type = ACTION_POLL,
			     .node = n->index,
			     .full = full,
			     .timeout_ms = patience(c)});
}

/* Whose turn a full poll is: rotates over the members. */
static bool full_poll_turn(struct cloud *c, const struct node *n, uint64_t now_ms)
{
	if (n->doubted || n->ask_full || n->unhealthy_ms)
		return true;
	if (now_ms < c->timers[TIMER_FULL_POLL] || c->full_poll_next % c->n_nodes != n->index)
		return false;
	c->timers[TIMER_FULL_POLL] = now_ms + FULL_POLL_MS;
	c->full_poll_next = (unsigned)((c->full_poll_next + 1) % c->n_nodes);
	return true;
}

static void expect(const struct cloud *c, struct expected_cloud *x, struct expected_member *members)
{
	cloud_for_each_node (n, c) {
		snprintf(members[n->index].ip_port, sizeof(members[n->index].ip_port), "%s:%u",
			MEMBER_ADDR, n->api_port);
		members[n->index].pid = n->pid;
	}
	*x = (struct expected_cloud){c->h2o_name, members, c->n_nodes};
}

/* NULL: none. The one at `likely` is looked at first. */
static struct node *node_of(struct cloud *c, int64_t pid, size_t likely)
{
	if (pid <= 0)
		return NULL;
	if (likely < c->n_nodes && c->nodes[likely].pid == pid)
		return &c->nodes[likely];
	cloud_for_each_node (n, c)
		if (n->pid == pid)
			return n;
	return NULL;
}

static void note_usage(struct cloud *c, const struct h2o_cloud_view *v)
{
	struct cloud_usage u = {.known = true, .locked = v->locked};

	for (size_t i = 0; i < v->n_members; i++) {
		const struct h2o_member *m = &v->members[i];

		struct node *n = node_of(c, m->pid, i);

		u.max_mem += m->max_mem;
		u.free_mem += m->free_mem;
		if (n) {
			n->max_mem = m->max_mem;
			n->free_mem = m->free_mem;
		}
	}
	snprintf(u.h2o_version, sizeof(u.h2o_version), "%s", v->version);
	c->usage = u;
}

static bool all_whole(const struct cloud *c)
{
	cloud_for_each_node (n, c)
		if (!n->whole)
			return false;
	return true;
}

static void view_while_forming(
	struct cloud *c, struct node *n, enum verdict verdict, const char *why, uint64_t now_ms)
{
	bool was_whole = n->whole;

	n->whole = verdict == VERDICT_WHOLE;
	switch (verdict) {
	case VERDICT_WHOLE:
		/* As soon as the first agrees, the others are asked at once. */
		if (!was_whole)
			cloud_for_each_node (o, c)
				if (!o->whole && o->poll_due_ms)
					o->poll_due_ms = now_ms;
		if (c->state == CLOUD_FORMING && all_whole(c))
			cloud_become_ready(c, now_ms);
		break;
	case VERDICT_SHORT_LOCK:
		c->short_locks++;
		cloud_lose(c, false, now_ms, "a client came too early: %s", why);
		break;
	case VERDICT_WRONG:
		cloud_lose(c, true, now_ms, "%s", why);
		break;
	case VERDICT_INCOMPLETE:
	case VERDICT_UNHEALTHY:
		replace_str(&c->reason, why);
		break;
	}
}

static void view_while_ready(
	struct cloud *c, struct node *n, enum verdict verdict, const char *why, uint64_t now_ms)
{
	bool doubted = n->doubted;

	n->doubted = false;
	switch (verdict) {
	case VERDICT_WHOLE:
		n->unhealthy_ms = 0;
		break;
	case VERDICT_UNHEALTHY:
		if (!n->unhealthy_ms)
			n->unhealthy_ms = now_ms;
		replace_str(&c->unhealthy_why, why);
		break;
	case VERDICT_SHORT_LOCK:
	case VERDICT_INCOMPLETE: /* asked twice before it is believed */
		if (doubted)
			cloud_lose(c, true, now_ms, "the cloud has come apart: %s", why);
		n->doubted = true;
		break;
	case VERDICT_WRONG:
		cloud_lose(c, true, now_ms, "%s", why);
		break;
	}
}

static void full_answer(
	struct cloud *c, struct node *n, const struct h2o_cloud_view *v, uint64_t now_ms)
{
	_cleanup_free_ struct expected_member *members = xcalloc(c->n_nodes, sizeof(*members));
	_cleanup_free_ char *why = NULL;
	struct expected_cloud x;
	enum verdict verdict;

	expect(c, &x, members);
	verdict = verdict_of(v, &x, n->index, &why);
	if (verdict == VERDICT_WHOLE || verdict == VERDICT_UNHEALTHY)
		note_usage(c, v);
	if (cloud_usable(c))
		view_while_ready(c, n, verdict, why, now_ms);
	else
		view_while_forming(c, n, verdict, why, now_ms);
}

/* Ready or degraded by what is known now. */
static void assess(struct cloud *c, uint64_t now_ms)
{
	_cleanup_free_ char *late = NULL, *limit = NULL;
	const char *why = NULL;

	if (!cloud_usable(c))
		return;
	cloud_for_each_node (n, c) {
		if (n->unhealthy_ms)
			why = c->unhealthy_why;
	}
	cloud_for_each_node (n, c) {
		if (n->state != NODE_LATE || late)
			continue;
		limit = text_human_duration(c->conf->late_after_ms);
		why = late = xasprintf("node %u (pid %d) has not answered within %s (late_after)",
			n->index, (int)n->pid, limit);
	}
	cloud_set_degraded(c, now_ms, why);
}

/* So long that answers come late_after apart. */
static bool took_long(const struct cloud *c, const struct node *n, uint64_t now_ms)
{
	uint64_t late = c->conf->late_after_ms, interval = c->conf->health_interval_ms;

	return now_ms - n->polled_ms >= (late > interval ? late - interval : late);
}

static void good_answer(struct cloud *c, struct node *n, const struct answer *a, uint64_t now_ms)
{
	n->answered_ms = now_ms;
	if (n->state == NODE_BOOTING || (n->state == NODE_LATE && !took_long(c, n, now_ms)))
		n->state = NODE_UP;
	if (n->h2o_boot_ms == 0)
		n->h2o_boot_ms = a->h2o_boot_ms;
	if (a->h2o_boot_ms && a->h2o_boot_ms != n->h2o_boot_ms) {
		cloud_lose(c, true, now_ms, "another H2O answers at port %u of node %u than before",
			n->api_port, n->index);
		return;
	}
	n->ask_full = false;
	if (a->full && a->view)
		full_answer(c, n, a->view, now_ms);
	else if (!a->good && !n->unhealthy_ms)
		n->doubted = true; /* ask in full, at once */
}

/* From the first question that could not be asked to the next one that can, no time passes for the
 * node. */
static void unasked(struct cloud *c, struct node *n, const struct answer *a, uint64_t now_ms)
{
	if (!n->blind_ms)
		n->blind_ms = n->polled_ms;
	n->ask_full |= a->full;
	n->poll_due_ms = now_ms + MAX(c->conf->health_interval_ms, (uint64_t)UNASKED_MS);
}

static void end_blindness(struct node *n)
{
	uint64_t missed = n->blind_ms ? n->polled_ms - n->blind_ms : 0;

	n->blind_ms = 0;
	if (n->answered_ms)
		n->answered_ms += missed;
	if (n->unhealthy_ms)
		n->unhealthy_ms += missed;
}

bool cloud_is_blind(const struct cloud *c)
{
	cloud_for_each_node (n, c)
		if (n->blind_ms && pollable(n))
			return true;
	return false;
}

void watch_answer(struct cloud *c, struct node *n, const struct answer *a, uint64_t now_ms)
{
	n->polling = false;
	if (!pollable(n) || !polled_state(c))
		return;
	if (a->kind == ANSWER_UNASKED) {
		unasked(c, n, a, now_ms);
		return;
	}
	end_blindness(n);
	if (a->kind == ANSWER_OK)
		good_answer(c, n, a, now_ms);
	else if (a->full)
		n->ask_full = true;
	if (!pollable(n) || !polled_state(c))
		return;
	if (!cloud_usable(c))
		n->poll_due_ms = now_ms + forming_interval(c, n);
	else if (n->doubted)
		n->poll_due_ms = now_ms + DOUBT_MS;
	else if (!n->poll_due_ms)
		n->poll_due_ms = own_moment(c, n, now_ms + 1);
	assess(c, now_ms);
}

static void check_lateness(struct cloud *c, struct node *n, uint64_t now_ms)
{
	uint64_t silent = now_ms - n->answered_ms;

	if (n->blind_ms)
		return;
	if (n->state == NODE_UP && silent >= c->conf->late_after_ms)
		n->state = NODE_LATE;
	if (n->state == NODE_LATE && silent >= c->conf->hang_timeout_ms)
		cloud_lose_hung(c, n, now_ms);
}

void watch_tick(struct cloud *c, uint64_t now_ms)
{
	if (!polled_state(c))
		return;
	cloud_for_each_node (n, c) {
		if (answers(n))
			check_lateness(c, n, now_ms);
		if (!polled_state(c))
			return;
	}
	cloud_for_each_node (n, c) {
		if (!n->unhealthy_ms || n->blind_ms ||
			now_ms - n->unhealthy_ms < c->conf->hang_timeout_ms)
			continue;
		cloud_lose(c, true, now_ms, "%s", c->unhealthy_why);
		return;
	}
	assess(c, now_ms);
	cloud_for_each_node (n, c)
		if (pollable(n) && !n->polling && n->poll_due_ms && n->poll_due_ms <= now_ms)
			poll_node(c, n, !cloud_usable(c) || full_poll_turn(c, n, now_ms), now_ms);
}

uint64_t watch_next_deadline(const struct cloud *c)
{
	uint64_t next = UINT64_MAX;

	if (!polled_state(c))
		return next;
	cloud_for_each_node (n, c) {
		if (pollable(n) && !n->polling && n->poll_due_ms)
			next = MIN(next, n->poll_due_ms);
		if (n->blind_ms)
			continue;
		if (n->state == NODE_UP)
			next = MIN(next, n->answered_ms + c->conf->late_after_ms);
		if (n->state == NODE_LATE)
			next = MIN(next, n->answered_ms + c->conf->hang_timeout_ms);
		if (n->unhealthy_ms)
			next = MIN(next, n->unhealthy_ms + c->conf->hang_timeout_ms);
	}
	return next;
}
