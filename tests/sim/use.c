/* Who uses the cloud: what the daemon is told of it, and that it is stopped for want of use in time
 * and never too early. */
#include "base/text.h"
#include "sim.h"

#define ANSWER_MAX_MS 300

void use_it(struct sim *s)
{
	s->use.used_at = s->now;
}

static bool busy(const struct sim *s)
{
	return s->use.job_generation == s->c->generation && s->now < s->use.job_until &&
	       cloud_usable(s->c);
}

/* When it was last used, truly. */
static uint64_t used_at(const struct sim *s)
{
	uint64_t at = MAX(s->use.used_at, s->c->ready_ms);

	if (busy(s))
		return s->now;
	return s->use.job_generation == s->c->generation ? MAX(at, MIN(s->use.job_until, s->now))
							 : at;
}

static void begin_job(struct sim *s)
{
	s->use.job_generation = s->c->generation;
	s->use.job_from = s->now;
	s->use.job_until = s->now + below(s, 40000);
}

void use_ask(struct sim *s)
{
	invariant(s, cloud_usable(s->c) && s->c->conf->max_idle_duration_ms);
	s->use.asked = true;
	s->use.fails = chance(s, 100);
	s->use.answer_at = s->now + below(s, ANSWER_MAX_MS);
}

static void answer(struct sim *s)
{
	struct cloud_event ev = {
		.type = EVENT_IDLE, .idle_ms = s->now - used_at(s), .flag = busy(s)};

	s->use.asked = false;
	if (s->use.fails) {
		ev = (struct cloud_event){.type = EVENT_IDLE, .idle_ms = IDLE_UNKNOWN};
		s->use.prompt_from = s->now;
	}
	if (ev.flag) /* H2O's clock may not have noticed the job */
		ev.idle_ms = s->now - s->use.job_from;
	feed(s, ev);
}

void use_tick(struct sim *s)
{
	if (cloud_usable(s->c) && !busy(s) && chance(s, 1))
		begin_job(s);
	if (s->use.asked && s->now >= s->use.answer_at)
		answer(s);
}

void use_note_event(struct sim *s, const struct cloud_event *ev)
{
	switch (ev->type) {
	case EVENT_START:
	case EVENT_TOUCH:
		if (cloud_usable(s->c))
			use_it(s);
		break;
	default:
		break;
	}
	if (ev->type == EVENT_START || ev->type == EVENT_RESTART ||
		(ev->type == EVENT_KNOCK && cloud_armed(s->c)))
		s->use.stopped = false;
}

void use_note_transition(struct sim *s, const struct transition *t)
{
	const struct cloud_conf *conf = s->c->conf;

	if (t->to == CLOUD_READY && t->from != CLOUD_DEGRADED) { /* nobody asks of the last one */
		s->use.asked = false;
		s->use.said_at = 0;
		s->use.prompt_from = s->now;
	}
	if (t->to != CLOUD_STOPPING || !t->reason || !has_prefix(t->reason, "stopped after "))
		return;
	s->idle_stops++;
	s->use.stopped = true;
	invariant(s, conf->max_idle_duration_ms && !busy(s));
	invariant(s, s->now - used_at(s) >= conf->max_idle_duration_ms);
	/* It was announced, and there was time to do something about it. */
	invariant(s, s->use.said_at);
	invariant(s, s->now - s->use.said_at >= conf->max_idle_duration_ms / 10 / 1000 * 1000);
	s->use.said_at = 0;
	invariant(s, s->c->wanted == WANTED_STOPPED);
}

/* It is remembered that its stop was announced: who was told is not told again. */
void use_taken_over(struct sim *s)
{
	s->use.asked = false;
	s->use.prompt_from = s->now;
	s->use.said_at = s->c->idle_said_ms;
	s->use.stopped = s->c->idled_ms && !s->c->restart_asked;
}

void use_check(struct sim *s)
{
	const struct cloud *c = s->c;
	uint64_t max = c->conf->max_idle_duration_ms;

	if (s->use.stopped) {
		invariant(s, c->state == CLOUD_STOPPING || c->state == CLOUD_STOPPED);
		invariant(s, c->state != CLOUD_STOPPED ||
				     (c->reason && has_prefix(c->reason, "stopped after ")));
	}
	if (!cloud_usable(c) || !max)
		return;
	/* Its question, its answer and the clock of this world take their time. */
	invariant(s,
		s->now <= MAX(used_at(s) + max, s->use.prompt_from + max / 10) + max / 5 + 12000);
}
