#include <inttypes.h>
#include <signal.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/bootbuilder.h"
#include "core/internal.h"
#include "drv/machine.h"

/* A state file that cannot be written is tried again; each time later. */
#define SAVE_RETRY_MS     UINT64_C(1000)
#define SAVE_RETRY_MAX_MS UINT64_C(30000)

uint64_t fleet_now(struct fleet *f)
{
	return awake_now(f->awake);
}

static void on_timer(uv_timer_t *t)
{
	struct supervised *s = t->data;

	if (s->clean.due && fleet_now(s->fleet) >= s->clean.due)
		clean_begin(s);
	supervised_feed(s, &(struct cloud_event){.type = EVENT_TICK});
}

static void arm_timer(struct supervised *s)
{
	uint64_t now = fleet_now(s->fleet), due = cloud_next_deadline(s->cloud);

	if (s->save_delay_ms)
		due = MIN(due, s->save_due);
	if (s->clean.due)
		due = MIN(due, s->clean.due);
	if (due == UINT64_MAX) {
		s->timer_due = 0;
		uv_timer_stop(s->timer);
		return;
	}
	s->timer_due = MAX(due, now + 1);
	uv_update_time(s->fleet->loop);
	uv_timer_start(s->timer, on_timer, s->timer_due - now, 0);
}

/* The last rung of the ladder: not when one hung node is killed and the others are asked to end. */
static bool all_are_killed(const struct supervised *s)
{
	cloud_for_each_node (n, s->cloud)
		if (node_alive(n) && n->sent_signal != SIGKILL)
			return false;
	return true;
}

static void send_signal(struct supervised *s, unsigned node, int sig)
{
	struct member *m = &s->members[node];

	if (!m->proc)
		return;
	log_info("cloud %s: node %u: SIG%s to pid %d", s->cloud->conf->name, node,
		sigabbrev_np(sig), (int)proc_pid(m->proc));
	if (sig == SIGKILL) {
		incident_take_dump(s, node);
		proc_kill_group(m->proc);
	} else {
		proc_signal(m->proc, sig);
	}
	if (sig == SIGKILL && all_are_killed(s))
		cgroups_kill(s);
}

static void run_action(struct supervised *s, const struct action *a)
{
	switch (a->type) {
	case ACTION_PREPARE:
		launch_prepare(s);
		break;
	case ACTION_LAUNCH:
		launch_node(s, a->node);
		break;
	case ACTION_SIGNAL:
		send_signal(s, a->node, a->signal);
		break;
	case ACTION_POLL:
		polls_start(s, a->node, a->full, a->timeout_ms);
		break;
	case ACTION_EVIDENCE:
		incident_ask_dump(s, a->node);
		break;
	case ACTION_REST_SHUTDOWN:
		polls_rest_shutdown(s);
		break;
	case ACTION_CLEAN:
		clean_begin(s);
		break;
	case ACTION_RELEASE_PORTS:
		launch_forget_ports(s);
		break;
	case ACTION_INSPECT_RECOVERY:
		recovery_inspect(s);
		break;
	case ACTION_RESUME:
		recovery_resume(s);
		break;
	case ACTION_IGNORE_RECOVERY:
		recovery_ignore(s);
		break;
	case ACTION_HEED_RECOVERY:
		recovery_heed(s);
		break;
	case ACTION_SET_ASIDE_RECOVERY:
		recovery_set_aside(s);
		break;
	case ACTION_ASK_IDLE:
		idle_ask(s, a->idle_ms);
		break;
	case ACTION_ANNOUNCE_IDLE:
		emit_idle(s, a->idle_ms);
		break;
	case ACTION_ANNOUNCE_ACTIVE:
		emit_active(s);
		break;
	}
}

static void run_actions(struct supervised *s)
{
	struct cloud *c = s->cloud;

	for (size_t i = 0; i < c->n_actions; i++) {
		struct action a = c->actions[i];

		run_action(s, &a);
	}
	cloud_drop_actions(c);
}

static void announce(struct supervised *s)
{
	struct cloud *c = s->cloud;

	for (size_t i = 0; i < c->n_transitions; i++) {
		const struct transition *t = &c->transitions[i];
		bool bad = t->to == CLOUD_RECOVERING || t->to == CLOUD_FAILED ||
			   t->to == CLOUD_BACKOFF;
		bool news = t->reason && t->to != CLOUD_STARTING && t->to != CLOUD_FORMING;

		/* What is tried again and again for lack of something was said once. */
		bool told = trouble_is_set(s->fleet, TROUBLE_LAUNCH, c->conf->name) &&
			    (t->to == CLOUD_STARTING || t->to == CLOUD_BACKOFF ||
				    t->to == CLOUD_RECOVERING);

		c->since_wall_ms = clock_wall_ms();
		emit_transition(s, t);
		log_write(told                    ? LOG_LEVEL_DEBUG
			  : t->to == CLOUD_FAILED ? LOG_LEVEL_ERROR
			  : bad                   ? LOG_LEVEL_WARNING
						  : LOG_LEVEL_NOTICE,
			"cloud %s: %s -> %s (generation %" PRIu64 ")%s%s", c->conf->name,
			cloud_state_name(t->from), cloud_state_name(t->to), c->generation,
			news ? ": " : "", news ? t->reason : "");
		if (t->to == CLOUD_FORMING || t->to == CLOUD_STOPPED || t->to == CLOUD_FAILED)
			trouble_clear(s->fleet, TROUBLE_LAUNCH, c->conf->name);
		if (t->to == CLOUD_READY && t->from != CLOUD_DEGRADED) {
			_cleanup_free_ char *url = supervised_endpoint_url(s);

			idle_watch(s);
			boot_ready(s);
			log_notice("cloud %s: connect to %s", c->conf->name, url);
		}
	}
	cloud_drop_transitions(c);
}

static void step(struct supervised *s, const struct cloud_event *ev)
{
	struct cloud_event stamped = *ev;

	stamped.wall_ms = clock_wall_ms();
	cloud_step(s->cloud, &stamped, fleet_now(s->fleet));
	incident_look(s, ev);
	emit_step(s, ev);
	announce(s);
	run_actions(s);
}

static void enqueue(struct supervised *s, const struct cloud_event *ev)
{
	struct queued_event *q = xcalloc(1, sizeof(*q));

	q->ev = *ev;
	q->text = xstrdup_null(ev->text);
	q->ev.text = q->text;
	if (ev->ports) {
		q->ports = xcalloc(s->cloud->n_nodes, sizeof(*q->ports));
		memcpy(q->ports, ev->ports, s->cloud->n_nodes * sizeof(*q->ports));
		q->ev.ports = q->ports;
	}
	*s->queue_end = q;
	s->queue_end = &q->next;
}

static bool step_queued(struct supervised *s)
{
	struct queued_event *q = s->queue;

	if (!q)
		return false;
	s->queue = q->next;
	if (!s->queue)
		s->queue_end = &s->queue;
	step(s, &q->ev);
	free(q->text);
	free(q->ports);
	free(q);
	return true;
}

void fleet_check_done(struct fleet *f)
{
	if (!f->done || f->strays)
		return;
	for (size_t i = 0; i < f->n; i++)
		if (!cloud_quiet(f->clouds[i]->cloud) ||
			(f->clouds[i]->cloud->state != CLOUD_STOPPED &&
				f->clouds[i]->cloud->state != CLOUD_FAILED))
			return;
	if (bootbuilder_end(f, false) && gate_end(f, false))
		TAKE_PTR(f->done)(f->done_arg);
}

static void save(struct supervised *s)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *sentence = NULL;
	int r;

	if (!s->cloud->dirty || s->work.launches) /* none executes before the last is forked */
		return;
	if (s->save_delay_ms && fleet_now(s->fleet) < s->save_due && !launch_anyone_waits(s) &&
		!s->fleet->ending)
		return;
	r = state_save(s, false, &e);
	if (r == 0) {
		s->cloud->dirty = false;
		s->save_delay_ms = 0;
		trouble_clear(s->fleet, TROUBLE_STATE, s->cloud->conf->name);
		return;
	}
	s->save_delay_ms = MIN(MAX(2 * s->save_delay_ms, SAVE_RETRY_MS), SAVE_RETRY_MAX_MS);
	s->save_due = fleet_now(s->fleet) + s->save_delay_ms;
	sentence = xasprintf("%s%s", err_msg(&e), trouble_advice(r));
	trouble_set(s->fleet, TROUBLE_STATE, s->cloud->conf->name, sentence);
}

/* Its nodes count among those that are on their way, or do not any more. */
static void count_crowd(struct supervised *s)
{
	enum cloud_state state = s->cloud->state;
	size_t n = state == CLOUD_STARTING || state == CLOUD_FORMING ? s->cloud->n_nodes : 0;

	s->fleet->crowd += n - s->in_crowd;
	s->in_crowd = n;
}

static void keep(struct supervised *s)
{
	s->work.keep = false;
	save(s);
	launch_release(s);
	while (step_queued(s)) /* what release may have brought */
		;
	save(s);
	incident_keep(s);
}

void supervised_keep_now(struct supervised *s)
{
	s->handling = true;
	keep(s);
	s->handling = false;
	arm_timer(s);
}

/* The end of a member is written down in the cloud's turn: when a hundred end at once, all doors
 * are shut before the first file is written. */
void supervised_feed(struct supervised *s, const struct cloud_event *ev)
{
	bool usable = cloud_usable(s->cloud);

	if (s->handling) {
		enqueue(s, ev);
		return;
	}
	s->handling = true;
	s->cloud->crowd = s->fleet->crowd;
	step(s, ev);
	while (step_queued(s))
		;
	count_crowd(s);
	if (ev->type == EVENT_EXITED && !launch_anyone_waits(s)) {
		s->work.keep = true;
		work_soon(s);
	} else {
		keep(s);
	}
	s->handling = false;
	door_look(s);
	arm_timer(s);
	if (!usable || !cloud_usable(s->cloud))
		s->fleet->changes++;
	reload_look(s);
	bootbuilder_look(s);
	if (s->fleet->observer)
		s->fleet->observer(s->cloud, s->fleet->observer_arg);
	fleet_check_done(s->fleet);
}
