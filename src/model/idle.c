/* Idle stop: a cloud that nobody uses for max_idle_duration is stopped.
 *
 * What use is, core finds out (core/idle.c): bytes through the gate, jobs, H2O's own idle clock. It
 * is asked only when the answer may matter: shortly before the deadline, when the stop is
 * announced, then now and then, and once more at the deadline. Only an answer to a question put at
 * or after the deadline stops the cloud: what could not be asked is no evidence that nobody was
 * there. */
#include "base/text.h"
#include "model/transitions.h"

/* The stop is announced so long before: a tenth of the time, at most this. */
#define WARNING_MAX_MS UINT64_C(300000)

/* While it is announced, a tenth of what is left to do so is how often it is asked. */
#define ASK_AGAIN_MS UINT64_C(1000)

/* When a question has failed. */
#define RETRY_MIN_MS UINT64_C(1000)
#define RETRY_MAX_MS UINT64_C(30000)

static uint64_t warning_of(const struct cloud_conf *conf)
{
	uint64_t w = conf->max_idle_duration_ms / 10;

	if (w > 1000)
		w -= w % 1000;
	return MIN(w, WARNING_MAX_MS);
}

/* Who was warned has the whole of the warning, also where the deadline had passed before it could
 * be given (the key was changed, no daemon was there). */
static uint64_t deadline(const struct cloud *c, uint64_t active_ms)
{
	uint64_t due = active_ms + c->conf->max_idle_duration_ms;

	return c->idle_said_ms ? MAX(due, c->idle_said_ms + warning_of(c->conf)) : due;
}

static uint64_t warn_at(const struct cloud *c)
{
	return c->active_ms + c->conf->max_idle_duration_ms - warning_of(c->conf);
}

static bool watched(const struct cloud *c)
{
	return cloud_usable(c) && c->conf->max_idle_duration_ms;
}

uint64_t cloud_idle_stop(const struct cloud *c, uint64_t used_ms)
{
	return watched(c) ? deadline(c, MAX(c->active_ms, used_ms)) : 0;
}

static void call_off(struct cloud *c)
{
	if (!c->idle_said_ms)
		return;
	c->idle_said_ms = 0;
	c->dirty = true;
	cloud_act(c, (struct action){.type = ACTION_ANNOUNCE_ACTIVE});
}

void idle_plan(struct cloud *c, uint64_t now_ms)
{
	c->timers[TIMER_IDLE] = 0;
	if (!cloud_usable(c))
		return;
	if (!watched(c) || now_ms < warn_at(c))
		call_off(c);
	if (!watched(c) || c->idle_asking)
		return;
	c->timers[TIMER_IDLE] =
		c->idle_said_ms ? MIN(deadline(c, c->active_ms),
					  now_ms + MAX(warning_of(c->conf) / 10, ASK_AGAIN_MS))
				: warn_at(c);
}

void idle_begin(struct cloud *c, uint64_t now_ms)
{
	c->active_ms = now_ms;
	c->idle_said_ms = 0;
	c->idle_asking = false;
	idle_plan(c, now_ms);
}

void idle_go_on(struct cloud *c, uint64_t now_ms)
{
	if (!c->active_ms) /* that daemon knew nothing of it */
		c->active_ms = now_ms;
	c->idle_asking = false;
	idle_plan(c, now_ms);
}

static void used(struct cloud *c, uint64_t at_ms)
{
	if (at_ms <= c->active_ms)
		return;
	c->active_ms = at_ms;
	c->dirty = true;
}

void idle_touch(struct cloud *c, uint64_t now_ms)
{
	if (!cloud_usable(c))
		return;
	used(c, now_ms);
	idle_plan(c, now_ms);
}

void idle_tick(struct cloud *c, uint64_t now_ms)
{
	if (!watched(c))
		return;
	c->idle_asking = true;
	c->idle_asked_ms = now_ms;
	cloud_act(c, (struct action){.type = ACTION_ASK_IDLE,
			     .idle_ms = c->conf->max_idle_duration_ms - warning_of(c->conf)});
}

static void announce(struct cloud *c, uint64_t now_ms)
{
	c->idle_said_ms = now_ms;
	c->dirty = true;
	cloud_act(c, (struct action){.type = ACTION_ANNOUNCE_IDLE,
			     .idle_ms = deadline(c, c->active_ms) - now_ms});
}

char *idle_reason(const struct cloud *c)
{
	_cleanup_free_ char *time = c->idled_ms ? text_format_duration(c->idled_ms) : NULL;

	return time ? xasprintf("stopped after %s without use (max_idle_duration)", time) : NULL;
}

static void stop(struct cloud *c, uint64_t now_ms)
{
	c->idled_ms = c->conf->max_idle_duration_ms;
	c->idle_said_ms = 0;
	c->wanted = WANTED_STOPPED;
	free(c->reason);
	c->reason = idle_reason(c);
	cloud_begin_stop(c, false, now_ms);
}

void idle_answer(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms)
{
	if (!c->idle_asking)
		return;
	c->idle_asking = false;
	if (!watched(c))
		return;
	if (ev->idle_ms == IDLE_UNKNOWN) {
		uint64_t wait = c->conf->max_idle_duration_ms / 10;

		c->timers[TIMER_IDLE] = now_ms + MIN(MAX(wait, RETRY_MIN_MS), RETRY_MAX_MS);
		return;
	}
	used(c, ev->flag ? now_ms : now_ms - MIN(ev->idle_ms, now_ms));
	if (now_ms >= warn_at(c) && !c->idle_said_ms) {
		announce(c, now_ms);
	} else if (c->idle_said_ms && c->idle_asked_ms >= deadline(c, c->active_ms)) {
		stop(c, now_ms);
		return;
	}
	idle_plan(c, now_ms);
}
