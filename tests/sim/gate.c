/* Clients that come to the endpoint, and the gate that lets them wait. */
#include "sim.h"

/* Whoever passes talks to a whole cloud. */
static void pass(struct sim *s, struct sim_client *k)
{
	k->passes = true;
	k->leaves_at = s->now + 1 + below(s, 20000);
	s->passed++;
	for (size_t i = 0; i < s->c->n_nodes; i++)
		invariant(s, s->procs[i].alive &&
				     (s->c->n_nodes == 1 || s->now >= s->procs[i].joins_at));
	invariant(s, !s->locked_short);
	use_it(s);
}

static void heed_door(struct sim *s)
{
	bool waits = s->gate.door == DOOR_HOLD && s->c->conf->gate_mode == GATE_HOLD;

	for (unsigned i = 0; i < MAX_CLIENTS; i++) {
		struct sim_client *k = &s->gate.clients[i];

		if (!k->there)
			continue;
		if (k->passes && s->gate.door != DOOR_OPEN) {
			*k = (struct sim_client){0};
			s->cut++;
		} else if (!k->passes && s->gate.door == DOOR_OPEN) {
			pass(s, k);
		} else if (!k->passes && !waits) {
			*k = (struct sim_client){0};
		}
	}
}

void gate_follow(struct sim *s)
{
	enum cloud_door door = cloud_door(s->c);
	bool knock = cloud_armed(s->c);

	if (s->gate.adopting)
		return;
	if (door != s->gate.door || knock != s->gate.knock)
		s->gate.told = false;
	s->gate.door = door;
	s->gate.knock = knock;
	heed_door(s);
}

void gate_taken_over(struct sim *s)
{
	s->gate.adopting = false;
	s->gate.told = false;
	gate_follow(s);
}

void gate_dies(struct sim *s)
{
	memset(s->gate.clients, 0, sizeof(s->gate.clients));
	s->gate.told = false;
}

static bool anyone_waits(const struct sim *s)
{
	for (unsigned i = 0; i < MAX_CLIENTS; i++)
		if (s->gate.clients[i].there && !s->gate.clients[i].passes)
			return true;
	return false;
}

static void come(struct sim *s, struct sim_client *k)
{
	if (s->gate.door == DOOR_SHUT ||
		(s->gate.door == DOOR_HOLD && s->c->conf->gate_mode == GATE_REFUSE))
		return; /* refused */
	k->there = true;
	k->leaves_at = s->now + s->c->conf->gate_hold_ms;
	if (s->gate.door == DOOR_OPEN)
		pass(s, k);
}

static void knock(struct sim *s)
{
	if (!s->gate.knock || s->gate.told || !anyone_waits(s))
		return;
	s->gate.told = true;
	s->knocks++;
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	/* Who waits at an armed cloud has it started, now or once it has stopped. (A new
	 * configuration without a gate may have waited for that.) */
	invariant(s, s->c->wanted == WANTED_RUNNING && !cloud_armed(s->c));
	invariant(s, cloud_door(s->c) != DOOR_SHUT || s->c->conf->gate_mode == GATE_OFF);
}

void gate_tick(struct sim *s)
{
	for (unsigned i = 0; i < MAX_CLIENTS; i++) {
		struct sim_client *k = &s->gate.clients[i];

		if (k->there && s->now >= k->leaves_at)
			*k = (struct sim_client){0};
		else if (!k->there && chance(s, 2))
			come(s, k);
		else if (k->there && k->passes && chance(s, 20))
			use_it(s);
	}
	knock(s);
	invariant(s, !(cloud_armed(s->c) && anyone_waits(s)));
}

void gate_check(const struct sim *s)
{
	const struct cloud *c = s->c;
	bool gated = c->conf->gate_mode != GATE_OFF;

	invariant(s, (s->gate.door == DOOR_OPEN) == (gated && cloud_usable(c)));
	if (c->state == CLOUD_FAILED || !gated ||
		(c->state == CLOUD_STOPPED &&
			(c->disarmed || c->conf->start_on != START_ON_CONNECT)))
		invariant(s, s->gate.door == DOOR_SHUT);
	for (unsigned i = 0; i < MAX_CLIENTS; i++) {
		const struct sim_client *k = &s->gate.clients[i];

		invariant(s, !k->passes || cloud_usable(c));
		invariant(s, !k->there || s->gate.door != DOOR_SHUT);
	}
}

/* One that was sent before the door was changed: it starts only what is armed. */
void gate_false_knock(struct sim *s)
{
	bool armed = cloud_armed(s->c);
	enum cloud_state state = s->c->state;
	enum cloud_wanted wanted = s->c->wanted;
	bool again = s->c->restart_asked;

	invariant(s, !(armed && (s->c->disarmed || state == CLOUD_FAILED)));
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	if (!armed)
		invariant(s, s->c->state == state && s->c->wanted == wanted &&
				     s->c->restart_asked == again);
}
