#include "model/cloud.h"

#include "model/transitions.h"

const char *cloud_state_name(enum cloud_state s)
{
	static const char *const names[] = {
		[CLOUD_STOPPED] = "stopped",
		[CLOUD_STARTING] = "starting",
		[CLOUD_FORMING] = "forming",
		[CLOUD_READY] = "ready",
		[CLOUD_DEGRADED] = "degraded",
		[CLOUD_RECOVERING] = "recovering",
		[CLOUD_STOPPING] = "stopping",
		[CLOUD_BACKOFF] = "backoff",
		[CLOUD_FAILED] = "failed",
	};
	return names[s];
}

const char *cloud_wanted_name(enum cloud_wanted w)
{
	return w == WANTED_RUNNING ? "running" : "stopped";
}

const char *node_state_name(enum node_state s)
{
	static const char *const names[] = {
		[NODE_DOWN] = "down",
		[NODE_BOOTING] = "booting",
		[NODE_UP] = "up",
		[NODE_LATE] = "late",
		[NODE_STOPPING] = "stopping",
		[NODE_EXITED] = "exited",
	};
	return names[s];
}

struct cloud *cloud_new(const struct cloud_conf *conf, uint64_t seed)
{
	struct cloud *c = xcalloc(1, sizeof(*c));

	c->conf = conf;
	c->rng = seed;
	c->phase = (uint32_t)rng_next(&seed);
	c->n_nodes = (size_t)conf->nodes;
	c->nodes = xcalloc(c->n_nodes, sizeof(*c->nodes));
	for (unsigned i = 0; i < c->n_nodes; i++)
		c->nodes[i].index = i;
	return c;
}

void last_exit_clear(struct last_exit *x)
{
	free(x->why);
	free(x->log_tail);
	free(x->incident);
	*x = (struct last_exit){0};
}

void cloud_free(struct cloud *c)
{
	if (!c)
		return;
	cloud_for_each_node (n, c)
		last_exit_clear(&n->last_exit);
	cloud_drop_transitions(c);
	free(c->transitions);
	free(c->actions);
	free(c->nodes);
	free(c->h2o_name);
	free(c->reason);
	free(c->unhealthy_why);
	strv_free(&c->pending_keys);
	free(c);
}

void cloud_drop_actions(struct cloud *c)
{
	c->n_actions = 0;
}

void cloud_drop_transitions(struct cloud *c)
{
	for (size_t i = 0; i < c->n_transitions; i++)
		free(c->transitions[i].reason);
	c->n_transitions = 0;
}

bool cloud_usable(const struct cloud *c)
{
	return c->state == CLOUD_READY || c->state == CLOUD_DEGRADED;
}

/* What ends now is followed by another generation, unless the daemon ends. */
static bool comes_again(const struct cloud *c)
{
	return c->restart_asked || (c->leaving && c->conf->restart == RESTART_ALWAYS);
}

bool cloud_armed(const struct cloud *c)
{
	return c->conf->start_on == START_ON_CONNECT && c->conf->gate_mode == GATE_HOLD &&
	       !c->disarmed && !c->removed && !c->shutting_down && !comes_again(c) &&
	       (c->state == CLOUD_STOPPED || c->state == CLOUD_STOPPING);
}

enum cloud_door cloud_door(const struct cloud *c)
{
	if (c->conf->gate_mode == GATE_OFF || c->shutting_down)
		return DOOR_SHUT;
	switch (c->state) {
	case CLOUD_READY:
	case CLOUD_DEGRADED:
		return DOOR_OPEN;
	case CLOUD_STARTING:
	case CLOUD_FORMING:
	case CLOUD_RECOVERING:
	case CLOUD_BACKOFF:
		return DOOR_HOLD;
	case CLOUD_STOPPED:
	case CLOUD_STOPPING:
		return comes_again(c) || cloud_armed(c) ? DOOR_HOLD : DOOR_SHUT;
	case CLOUD_FAILED:
		break;
	}
	return DOOR_SHUT;
}

bool node_alive(const struct node *n)
{
	return n->state != NODE_DOWN && n->state != NODE_EXITED;
}

size_t cloud_nodes_alive(const struct cloud *c)
{
	size_t alive = 0;

	cloud_for_each_node (n, c)
		alive += node_alive(n);
	return alive;
}

size_t cloud_nodes_up(const struct cloud *c)
{
	size_t up = 0;

	cloud_for_each_node (n, c)
		up += n->state == NODE_UP;
	return up;
}

bool cloud_quiet(const struct cloud *c)
{
	return cloud_nodes_alive(c) == 0 && !c->preparing && !c->cleaning;
}
