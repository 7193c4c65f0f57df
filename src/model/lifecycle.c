#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "base/text.h"
#include "model/backoff.h"
#include "model/memory.h"
#include "model/plan.h"
#include "model/transitions.h"

/* After a client's /3/Shutdown: peers exit within 0.5 s, the receiver after a fixed 2 s
 * (h2o-core water/api/RequestServer.java). */
#define LEAVING_MS 6000

/* A hung JVM that still can writes its thread dump well within this. */
#define EVIDENCE_MS 1500

/* A generation whose data is lost is not worth a long stop_timeout. */
#define RECOVERY_STOP_MS 3000
#define AFTER_KILL_MS    10000

#define PREPARE_RETRY_MS     1000
#define PREPARE_RETRY_MAX_MS 10000

/* When ready_timeout is over and nobody could be asked. */
#define BLIND_GRACE_MS 5000

#define RESTARTED "restarted after: "

/* Of a dead node's log kept in its last_exit. */
#define EXIT_LOG_LINES 12

/* A recovery that brought the cloud down so often without progress is set aside. */
#define MAX_BAD_RESUMES 2

void cloud_act(struct cloud *c, struct action a)
{
	c->actions = xreallocarray(c->actions, c->n_actions + 1, sizeof(*c->actions));
	c->actions[c->n_actions++] = a;
}

void cloud_set_state(struct cloud *c, enum cloud_state to, uint64_t now_ms)
{
	if (c->state == to)
		return;
	c->transitions =
		xreallocarray(c->transitions, c->n_transitions + 1, sizeof(*c->transitions));
	c->transitions[c->n_transitions++] =
		(struct transition){c->state, to, xstrdup_null(c->reason)};
	c->state = to;
	c->since_ms = now_ms;
	c->dirty = true;
}

static void stop_timers(struct cloud *c)
{
	memset(c->timers, 0, sizeof(c->timers));
	c->next_start_ms = 0;
}

static void set_reason(struct cloud *c, const char *reason)
{
	replace_str(&c->reason, reason);
}

/* ---- launching ---- */

void cloud_prepare(struct cloud *c, uint64_t now_ms)
{
	stop_timers(c);
	c->preparing = true;
	cloud_set_state(c, CLOUD_STARTING, now_ms);
	cloud_act(c, (struct action){.type = ACTION_PREPARE});
}

/* Somebody's start: a clean slate. `why`: NULL, the operator's. */
static void start_fresh(struct cloud *c, bool resume, const char *why, uint64_t now_ms)
{
	c->history.n = 0;
	c->restarts = 0;
	c->ever_ready = false;
	c->fresh = true;
	c->permanent = false;
	c->prepare_failures = 0;
	c->bad_resumes = 0;
	c->resume_asked = resume;
	c->restart_asked = false;
	c->idled_ms = 0;
	set_reason(c, why);
	cloud_act(
		c, (struct action){.type = resume ? ACTION_HEED_RECOVERY : ACTION_IGNORE_RECOVERY});
	cloud_prepare(c, now_ms);
}

static void start_again(struct cloud *c, uint64_t now_ms)
{
	c->fresh = false;
	cloud_prepare(c, now_ms);
}

static void launch(struct cloud *c, struct node *n, uint64_t now_ms)
{
	n->state = NODE_BOOTING;
	n->pid = 0;
	n->max_mem = n->free_mem = 0;
	n->sent_signal = 0;
	n->hung = false;
	n->launched_ms = now_ms;
	watch_begin_forming(c, n, now_ms);
	cloud_act(c, (struct action){.type = ACTION_LAUNCH, .node = n->index});
}

/* While the next generation boots, its reason tells what became of the last. */
static void remember_why(struct cloud *c)
{
	_cleanup_free_ char *why = NULL;

	if (c->fresh)
		set_reason(c, NULL);
	if (!c->reason)
		return;
	why = xasprintf("%s%s", has_prefix(c->reason, RESTARTED) ? "" : RESTARTED, c->reason);
	set_reason(c, why);
}

static void on_prepared(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms)
{
	if (!c->fresh)
		c->restarts++;
	c->generation++;
	c->ready_ms = 0;
	remember_why(c);
	c->ports_planned = true;
	c->uncounted = c->leaving = c->resuming = c->resume_sent = false;
	c->stop_rung = 0;
	free(c->h2o_name);
	c->h2o_name = xasprintf("%s-%" PRIu64 "-%04x", c->conf->h2o_name, c->generation,
		(unsigned)(rng_next(&c->rng) & 0xffff));
	cloud_for_each_node (n, c)
		n->api_port = ev->ports[n->index];
	snprintf(c->endpoint.addr, sizeof(c->endpoint.addr), "%s", MEMBER_ADDR);
	c->endpoint.port = ev->endpoint_port ? ev->endpoint_port : c->nodes[0].api_port;
	c->usage.known = false;
	c->timers[TIMER_READY] = now_ms + c->conf->ready_timeout_ms;
	c->dirty = true;
	for (size_t i = c->n_nodes; i-- > 0;) /* all at once; see core/flatfile.c */
		launch(c, &c->nodes[i], now_ms);
}

static bool all_launched(const struct cloud *c)
{
	cloud_for_each_node (n, c)
		if (n->pid == 0)
			return false;
	return true;
}

static void signal_node(struct cloud *c, struct node *n, int sig)
{
	n->state = NODE_STOPPING;
	n->sent_signal = sig;
	if (n->pid)
		cloud_act(
			c, (struct action){.type = ACTION_SIGNAL, .node = n->index, .signal = sig});
}

static bool tearing_down(const struct cloud *c)
{
	return c->state == CLOUD_RECOVERING || c->state == CLOUD_STOPPING;
}

static void on_launched(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms)
{
	struct node *n = &c->nodes[ev->node];

	n->pid = ev->pid;
	n->start_ticks = ev->start_ticks;
	n->launched_wall_ms = ev->wall_ms;
	c->dirty = true;
	if (tearing_down(c)) { /* overtaken by events */
		signal_node(c, n, SIGKILL);
	} else if (c->state == CLOUD_STARTING && all_launched(c)) {
		c->prepare_failures = 0;
		cloud_set_state(c, CLOUD_FORMING, now_ms);
	}
}

/* ---- tearing down ---- */

static void clean_when_dead(struct cloud *c)
{
	if (cloud_nodes_alive(c) || c->cleaning || c->preparing)
		return;
	c->cleaning = true;
	cloud_act(c, (struct action){.type = ACTION_CLEAN});
}

static void signal_all(struct cloud *c, int sig)
{
	cloud_for_each_node (n, c)
		if (node_alive(n))
			signal_node(c, n, n->hung ? SIGKILL : sig);
}

uint64_t cloud_stop_patience(const struct cloud *c)
{
	uint64_t patience = c->conf->stop_timeout_ms;

	return c->state == CLOUD_RECOVERING ? MIN(patience, (uint64_t)RECOVERY_STOP_MS) : patience;
}

/* The ladder: (REST) -> SIGTERM -> SIGKILL, each with its time. */
static void next_rung(struct cloud *c, uint64_t now_ms)
{
	uint64_t patience = cloud_stop_patience(c);

	switch (c->stop_rung++) {
	case 0:
		cloud_act(c, (struct action){.type = ACTION_REST_SHUTDOWN});
		break;
	case 1:
		signal_all(c, SIGTERM);
		break;
	default:
		if (c->stop_rung > 3)
			set_reason(c, "a process does not end after SIGKILL; it may hang in the "
				      "kernel (disk or network file system)");
		signal_all(c, SIGKILL);
		patience = AFTER_KILL_MS;
		break;
	}
	c->timers[TIMER_STOP] = now_ms + patience;
}

void cloud_tear_down(struct cloud *c, unsigned first_rung, uint64_t now_ms)
{
	stop_timers(c);
	c->stop_rung = first_rung;
	if (cloud_nodes_alive(c))
		next_rung(c, now_ms);
	clean_when_dead(c);
}

void cloud_begin_stop(struct cloud *c, bool at_once, uint64_t now_ms)
{
	bool rest = c->conf->stop_method == STOP_REST && cloud_usable(c);

	c->leaving = false;
	cloud_set_state(c, CLOUD_STOPPING, now_ms);
	cloud_tear_down(c, at_once ? 2 : rest ? 0 : 1, now_ms);
}

static void lost(struct cloud *c, bool counted, uint64_t now_ms)
{
	c->uncounted = !counted;
	c->leaving = false;
	if (counted)
		backoff_record(&c->history, &c->conf->start_limit, now_ms);
	if (c->resuming)
		c->bad_resumes++;
	cloud_set_state(c, CLOUD_RECOVERING, now_ms);
}

void cloud_lose(struct cloud *c, bool counted, uint64_t now_ms, const char *fmt, ...)
{
	_cleanup_free_ char *why = NULL;
	va_list ap;

	va_start(ap, fmt);
	why = xvasprintf(fmt, ap);
	va_end(ap);
	set_reason(c, why);
	lost(c, counted, now_ms);
	cloud_tear_down(c, 1, now_ms);
}

void cloud_lose_hung(struct cloud *c, struct node *n, uint64_t now_ms)
{
	_cleanup_free_ char *silence = text_human_duration(now_ms - n->answered_ms);
	_cleanup_free_ char *why = xasprintf("node %u (pid %d) hangs: it has not answered for %s",
		n->index, (int)n->pid, silence);

	set_reason(c, why);
	lost(c, true, now_ms);
	stop_timers(c);
	n->hung = true;
	cloud_act(c, (struct action){.type = ACTION_EVIDENCE, .node = n->index});
	c->timers[TIMER_EVIDENCE] = now_ms + EVIDENCE_MS;
}

static void give_up(struct cloud *c, uint64_t now_ms)
{
	cloud_set_state(c, CLOUD_FAILED, now_ms);
	c->ports_planned = false;
	cloud_act(c, (struct action){.type = ACTION_RELEASE_PORTS});
}

void cloud_rest(struct cloud *c, uint64_t now_ms)
{
	cloud_set_state(c, CLOUD_STOPPED, now_ms);
	c->ports_planned = false;
	cloud_act(c, (struct action){.type = ACTION_RELEASE_PORTS});
}

static void back_off(struct cloud *c, uint64_t delay_ms, uint64_t now_ms)
{
	cloud_set_state(c, CLOUD_BACKOFF, now_ms);
	c->timers[TIMER_BACKOFF] = now_ms + delay_ms;
	c->next_start_ms = now_ms + delay_ms;
}

/* What hinders a launch (no memory, no descriptors, a full disk, a taken port) may pass. */
static uint64_t retry_delay(const struct cloud *c)
{
	uint64_t delay = PREPARE_RETRY_MS;

	for (unsigned i = 1; i < c->prepare_failures && delay < PREPARE_RETRY_MAX_MS; i++)
		delay *= 2;
	return MIN(delay, (uint64_t)PREPARE_RETRY_MAX_MS);
}

/* After a loss, with every member dead: again, later, or never? */
static void recover(struct cloud *c, uint64_t now_ms)
{
	const struct cloud_conf *conf = c->conf;
	uint64_t delay;

	if (c->wanted == WANTED_STOPPED || c->shutting_down) {
		cloud_rest(c, now_ms);
	} else if (c->uncounted && c->prepare_failures) {
		back_off(c, retry_delay(c), now_ms);
	} else if (c->uncounted) {
		start_again(c, now_ms);
	} else if (c->permanent || conf->restart == RESTART_NEVER) {
		give_up(c, now_ms);
	} else if (backoff_exhausted(&c->history, &conf->start_limit)) {
		_cleanup_free_ char *window = text_human_duration(conf->start_limit.window_ms);
		_cleanup_free_ char *why = xasprintf("given up after %u failures within %s; the "
						     "last: %s",
			c->history.n, window, c->reason);

		set_reason(c, why);
		give_up(c, now_ms);
	} else {
		delay = backoff_delay(&c->history, conf, &c->rng);
		if (delay)
			back_off(c, delay, now_ms);
		else
			start_again(c, now_ms);
	}
}

static void on_cleaned(struct cloud *c, uint64_t now_ms)
{
	c->cleaning = false;
	stop_timers(c);
	if (!tearing_down(c))
		return;
	if (c->restart_asked && !c->shutting_down) {
		start_fresh(c, c->resume_asked, NULL, now_ms);
	} else if (c->state == CLOUD_RECOVERING) {
		recover(c, now_ms);
	} else if (c->leaving && c->conf->restart == RESTART_ALWAYS && !c->shutting_down) {
		backoff_record(&c->history, &c->conf->start_limit, now_ms);
		recover(c, now_ms);
	} else {
		_cleanup_free_ char *why = idle_reason(c);

		if (c->leaving)
			c->wanted = WANTED_STOPPED;
		else
			set_reason(c, why);
		cloud_rest(c, now_ms);
	}
	c->leaving = false;
}

/* ---- exits ---- */

/* The last lines of a log, few enough for a status. */
static char *last_lines(const char *log, unsigned lines)
{
	const char *p = log + strlen(log);

	while (p > log && (p[-1] != '\n' || !p[0] || --lines > 0))
		p--;
	return xstrdup(p);
}

static void record_exit(struct node *n, const struct cloud_event *ev)
{
	struct last_exit *x = &n->last_exit;

	last_exit_clear(x);
	x->present = true;
	x->known = ev->exit->known;
	x->code = ev->exit->code;
	x->signal = ev->exit->signal;
	x->cause = cause_of(ev->exit, &x->why);
	x->wall_ms = ev->wall_ms;
	if (*ev->exit->log_tail && x->cause != CAUSE_STOPPED)
		x->log_tail = last_lines(ev->exit->log_tail, EXIT_LOG_LINES);
	else if (x->cause != CAUSE_STOPPED)
		x->log_tail = xstrdup_null(ev->exit->output_elsewhere);
	n->state = NODE_EXITED;
	n->pid = 0;
	n->polling = false;
	n->poll_due_ms = 0;
	n->whole = n->doubted = n->ask_full = false;
	n->unhealthy_ms = 0;
}

/* Exit codes of members when a client shut the cloud down: 0, or for the receiver the number of
 * peers that did not confirm. */
static bool left_in_order(const struct cloud *c, const struct last_exit *x)
{
	if (!x->known) /* its log said so */
		return x->cause == CAUSE_ORDERLY;
	return x->signal == 0 && x->code < (int)c->n_nodes;
}

void cloud_leave(struct cloud *c, uint64_t now_ms)
{
	if (!c->leaving) {
		set_reason(c, "a client shut it down (POST /3/Shutdown)");
		stop_timers(c);
		c->leaving = true;
		c->timers[TIMER_LEAVING] = now_ms + LEAVING_MS;
		cloud_set_state(c, CLOUD_STOPPING, now_ms);
	}
	clean_when_dead(c);
}

/* Permanent only as long as it never worked: what worked before may work again. */
static bool hopeless(const struct cloud *c, enum cause cause)
{
	return cause_is_permanent(cause) && !c->ever_ready;
}

static void lose_by_exit(struct cloud *c, struct node *n, uint64_t now_ms)
{
	enum cause cause = n->last_exit.cause;
	bool forming = c->state == CLOUD_STARTING || c->state == CLOUD_FORMING;

	if (forming && cause == CAUSE_LOCKED_OUT)
		c->short_locks++;
	/* A port that was stolen before the cloud ever served: move on. */
	if (cause == CAUSE_PORT_TAKEN && !c->ever_ready && !c->conf->port.exact) {
		c->ports_planned = false;
		cloud_act(c, (struct action){.type = ACTION_RELEASE_PORTS});
	}
	c->permanent = hopeless(c, cause);
	cloud_lose(c, !(forming && cause == CAUSE_LOCKED_OUT), now_ms, "%s", n->last_exit.why);
}

static void on_exited(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms)
{
	struct node *n = &c->nodes[ev->node];

	record_exit(n, ev);
	c->dirty = true;
	if (c->leaving && !left_in_order(c, &n->last_exit)) {
		lose_by_exit(c, n, now_ms);
	} else if (c->leaving) {
		cloud_leave(c, now_ms);
	} else if (tearing_down(c)) {
		if (!c->timers[TIMER_EVIDENCE] || !cloud_nodes_alive(c))
			clean_when_dead(c);
	} else if (n->last_exit.cause == CAUSE_ORDERLY &&
		   (cloud_usable(c) || c->state == CLOUD_FORMING)) {
		cloud_leave(c, now_ms);
	} else {
		lose_by_exit(c, n, now_ms);
	}
}

/* ---- readiness ---- */

void cloud_become_ready(struct cloud *c, uint64_t now_ms)
{
	stop_timers(c);
	set_reason(c, NULL);
	c->ever_ready = true;
	c->ready_ms = now_ms;
	cloud_set_state(c, CLOUD_READY, now_ms);
	watch_begin_ready(c, now_ms);
	idle_begin(c, now_ms);
	if (!c->fresh || c->resume_asked)
		cloud_act(c, (struct action){.type = ACTION_INSPECT_RECOVERY});
	c->resume_asked = false;
}

void cloud_set_degraded(struct cloud *c, uint64_t now_ms, const char *why)
{
	set_reason(c, why);
	cloud_set_state(c, why ? CLOUD_DEGRADED : CLOUD_READY, now_ms);
}

static void on_recovery(struct cloud *c, const struct cloud_event *ev)
{
	if (!cloud_usable(c))
		return;
	if (!ev->flag || ev->progress)
		c->bad_resumes = 0;
	if (!ev->flag)
		return;
	if (c->bad_resumes >= MAX_BAD_RESUMES) {
		c->bad_resumes = 0;
		cloud_act(c, (struct action){.type = ACTION_SET_ASIDE_RECOVERY});
		return;
	}
	c->resuming = c->resume_sent = true;
	c->dirty = true;
	cloud_act(c, (struct action){.type = ACTION_RESUME});
}

static void not_ready_in_time(struct cloud *c, uint64_t now_ms)
{
	_cleanup_free_ char *limit = text_human_duration(c->conf->ready_timeout_ms);
	const char *seen = c->reason && !has_prefix(c->reason, RESTARTED) ? c->reason : NULL;
	_cleanup_free_ char *last = xstrdup(seen ? seen : "no member has answered");

	cloud_lose(c, true, now_ms, "not ready within %s (ready_timeout): %zu of %zu nodes up; %s",
		limit, cloud_nodes_up(c), c->n_nodes, last);
}

/* ---- the operator ---- */

static void on_start(struct cloud *c, bool resume, const char *why, uint64_t now_ms)
{
	if (c->shutting_down)
		return;
	c->wanted = WANTED_RUNNING;
	c->disarmed = false;
	c->dirty = true;
	switch (c->state) {
	case CLOUD_STOPPED:
	case CLOUD_FAILED:
		start_fresh(c, resume, why, now_ms);
		break;
	case CLOUD_BACKOFF: /* no need to wait: somebody is there */
		c->history.n = 0;
		start_again(c, now_ms);
		break;
	case CLOUD_STOPPING:
		c->restart_asked = true;
		c->resume_asked = resume;
		break;
	default:
		idle_touch(c, now_ms); /* who starts it means to use it */
		break;
	}
}

static void on_stop(struct cloud *c, bool at_once, uint64_t now_ms)
{
	c->restart_asked = false;
	c->dirty = true;
	switch (c->state) {
	case CLOUD_STOPPED:
		break;
	case CLOUD_FAILED:
	case CLOUD_BACKOFF:
		set_reason(c, NULL);
		stop_timers(c);
		cloud_rest(c, now_ms);
		break;
	case CLOUD_RECOVERING: /* its teardown goes on under another name */
		cloud_set_state(c, CLOUD_STOPPING, now_ms);
		if (at_once || c->timers[TIMER_EVIDENCE])
			cloud_tear_down(c, at_once ? 2 : 1, now_ms);
		break;
	case CLOUD_STOPPING:
		if (at_once || c->leaving)
			cloud_begin_stop(c, at_once, now_ms);
		break;
	default:
		set_reason(c, NULL);
		cloud_begin_stop(c, at_once, now_ms);
		break;
	}
}

static void on_restart(struct cloud *c, bool resume, uint64_t now_ms)
{
	if (c->shutting_down)
		return;
	if (c->state == CLOUD_STOPPED || c->state == CLOUD_FAILED || c->state == CLOUD_BACKOFF) {
		on_start(c, resume, NULL, now_ms);
		return;
	}
	on_stop(c, false, now_ms);
	c->wanted = WANTED_RUNNING;
	c->disarmed = false;
	c->restart_asked = true;
	c->resume_asked = resume;
}

/* ---- failures on the way up ---- */

static void on_prepare_failed(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms)
{
	set_reason(c, ev->text);
	if (ev->flag && !c->ever_ready) { /* what worked before may work again */
		give_up(c, now_ms);
		return;
	}
	c->prepare_failures++;
	back_off(c, retry_delay(c), now_ms);
}

static void on_prepare_ended(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms)
{
	c->preparing = false;
	if (c->state == CLOUD_STOPPING)
		clean_when_dead(c); /* stopped meanwhile */
	else if (ev->type == EVENT_PREPARED)
		on_prepared(c, ev, now_ms);
	else
		on_prepare_failed(c, ev, now_ms);
}

static void on_launch_failed(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms)
{
	struct node *n = &c->nodes[ev->node];

	n->state = NODE_DOWN;
	n->pid = 0;
	if (tearing_down(c)) {
		clean_when_dead(c);
		return;
	}
	c->permanent = ev->flag && !c->ever_ready;
	c->prepare_failures += !ev->flag;
	cloud_lose(c, ev->flag, now_ms, "node %u: %s", n->index, ev->text);
}

/* ---- time ---- */

static bool timer_fired(struct cloud *c, enum cloud_timer t, uint64_t now_ms)
{
	if (!c->timers[t] || now_ms < c->timers[t])
		return false;
	c->timers[t] = 0;
	return true;
}

static void on_tick(struct cloud *c, uint64_t now_ms)
{
	if (timer_fired(c, TIMER_READY, now_ms)) {
		if (cloud_is_blind(c)) /* it may be ready, for all we know */
			c->timers[TIMER_READY] = now_ms + BLIND_GRACE_MS;
		else
			not_ready_in_time(c, now_ms);
	}
	if (timer_fired(c, TIMER_EVIDENCE, now_ms))
		cloud_tear_down(c, 1, now_ms);
	if (timer_fired(c, TIMER_STOP, now_ms) && cloud_nodes_alive(c))
		next_rung(c, now_ms);
	if (timer_fired(c, TIMER_LEAVING, now_ms)) {
		cloud_lose(c, true, now_ms,
			"a client's /3/Shutdown ended only some members; %zu are left",
			cloud_nodes_alive(c));
	}
	if (timer_fired(c, TIMER_BACKOFF, now_ms))
		start_again(c, now_ms);
	watch_tick(c, now_ms);
	if (timer_fired(c, TIMER_IDLE, now_ms))
		idle_tick(c, now_ms);
}

uint64_t cloud_next_deadline(const struct cloud *c)
{
	uint64_t next = watch_next_deadline(c);

	for (size_t i = 0; i < N_CLOUD_TIMERS; i++)
		if (c->timers[i] && i != TIMER_FULL_POLL) /* that one only colours a poll */
			next = MIN(next, c->timers[i]);
	return next;
}

void cloud_step(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms)
{
	switch (ev->type) {
	case EVENT_START:
		on_start(c, ev->flag, NULL, now_ms);
		break;
	case EVENT_STOP:
		c->wanted = WANTED_STOPPED;
		c->disarmed |= ev->flag;
		on_stop(c, false, now_ms);
		break;
	case EVENT_KNOCK:
		if (cloud_armed(c))
			on_start(c, false, "a client has connected (start_on = connect)", now_ms);
		break;
	case EVENT_TOUCH:
		idle_touch(c, now_ms);
		break;
	case EVENT_RESTART:
		on_restart(c, ev->flag, now_ms);
		break;
	case EVENT_SHUTDOWN:
		c->shutting_down = true;
		on_stop(c, ev->flag, now_ms);
		break;
	case EVENT_TICK:
		on_tick(c, now_ms);
		break;
	case EVENT_RESUME:
		cloud_resume(c, ev->was, ev->flag, now_ms);
		break;
	case EVENT_PREPARED:
	case EVENT_PREPARE_FAILED:
		on_prepare_ended(c, ev, now_ms);
		break;
	case EVENT_LAUNCHED:
		on_launched(c, ev, now_ms);
		break;
	case EVENT_LAUNCH_FAILED:
		on_launch_failed(c, ev, now_ms);
		break;
	case EVENT_EXITED:
		on_exited(c, ev, now_ms);
		break;
	case EVENT_ANSWER:
		watch_answer(c, &c->nodes[ev->node], ev->answer, now_ms);
		break;
	case EVENT_CLEANED:
		on_cleaned(c, now_ms);
		break;
	case EVENT_RECOVERY:
		on_recovery(c, ev);
		break;
	case EVENT_RESUMED:
		c->resume_sent = false;
		c->resuming &= ev->flag;
		c->dirty = true;
		break;
	case EVENT_IDLE:
		idle_answer(c, ev, now_ms);
		break;
	}
}
