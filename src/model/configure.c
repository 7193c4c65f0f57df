/* A configuration that changes while its cloud lives. Most keys are asked for when they are needed,
 * and need nothing; what has a deadline running is moved here. */
#include <assert.h>

#include "model/transitions.h"

/* A deadline that was `before` away when it was set, and should have been `after`. */
static void shift(uint64_t *deadline, uint64_t before, uint64_t after, uint64_t now_ms)
{
	uint64_t begun = *deadline - MIN(before, *deadline);

	if (*deadline && before != after)
		*deadline = MAX(begun + after, now_ms);
}

/* One that may only come nearer. */
static void cap(uint64_t *deadline, uint64_t latest)
{
	if (*deadline)
		*deadline = MIN(*deadline, latest);
}

static void move_deadlines(
	struct cloud *c, const struct cloud_conf *old, uint64_t old_patience, uint64_t now_ms)
{
	const struct cloud_conf *conf = c->conf;

	shift(&c->timers[TIMER_READY], old->ready_timeout_ms, conf->ready_timeout_ms, now_ms);
	if (c->stop_rung <= 2) /* not after SIGKILL: that time is not configured */
		shift(&c->timers[TIMER_STOP], old_patience, cloud_stop_patience(c), now_ms);
	if (!c->prepare_failures) { /* likewise */
		cap(&c->timers[TIMER_BACKOFF], now_ms + conf->restart_delay_max_ms);
		cap(&c->next_start_ms, now_ms + conf->restart_delay_max_ms);
	}
	idle_plan(c, now_ms);
	if (!cloud_usable(c))
		return;
	cloud_for_each_node (n, c) {
		cap(&n->poll_due_ms, now_ms + conf->health_interval_ms);
		if (n->state == NODE_LATE && now_ms - n->answered_ms < conf->late_after_ms)
			n->state = NODE_UP;
	}
}

/* Those that stay keep what is told of their last end. */
static void resize(struct cloud *c, size_t n_nodes)
{
	struct node *nodes = xcalloc(n_nodes, sizeof(*nodes));

	assert(cloud_nodes_alive(c) == 0);
	for (size_t i = 0; i < c->n_nodes; i++) {
		if (i < n_nodes)
			nodes[i] = c->nodes[i];
		else
			last_exit_clear(&c->nodes[i].last_exit);
	}
	for (size_t i = 0; i < n_nodes; i++)
		nodes[i].index = (unsigned)i;
	free(c->nodes);
	c->nodes = nodes;
	c->n_nodes = n_nodes;
	c->full_poll_next = 0;
	c->ports_planned = false; /* their number has changed */
}

void cloud_configure(struct cloud *c, const struct cloud_conf *conf, uint64_t now_ms)
{
	const struct cloud_conf *old = c->conf;
	uint64_t old_patience = cloud_stop_patience(c);

	c->conf = conf;
	move_deadlines(c, old, old_patience, now_ms);
	if ((size_t)conf->nodes != c->n_nodes)
		resize(c, (size_t)conf->nodes);
	c->dirty = true;
}
