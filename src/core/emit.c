/* What happens, as events for the journal: fleet_event() and those that every step may bring. */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "core/internal.h"

json_t *emit_time_json(uint64_t wall_ms)
{
	time_t secs = (time_t)(wall_ms / 1000);
	char day[40];
	struct tm tm;

	gmtime_r(&secs, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	return json_sprintf("%s.%03uZ", day, (unsigned)(wall_ms % 1000));
}

json_t *emit_text_json(const char *s)
{
	_cleanup_free_ char *clean = s ? text_utf8(s) : NULL;

	return clean ? json_string(clean) : json_null();
}

void fleet_event(struct fleet *f, const char *type, const struct cloud *c, int node, json_t *extra,
	const char *fmt, ...)
{
	_cleanup_free_ char *message = NULL;
	json_t *j = json_object();
	va_list ap;

	va_start(ap, fmt);
	message = xvasprintf(fmt, ap);
	va_end(ap);
	json_object_set_new(j, "time", emit_time_json(clock_wall_ms()));
	json_object_set_new(j, "mono_ms", json_integer((json_int_t)clock_monotonic_ms()));
	json_object_set_new(j, "type", json_string(type));
	json_object_set_new(j, "cloud", emit_text_json(c ? c->conf->name : NULL));
	json_object_set_new(j, "node", node >= 0 ? json_integer(node) : json_null());
	json_object_set_new(
		j, "generation", c ? json_integer((json_int_t)c->generation) : json_null());
	json_object_set_new(j, "message", emit_text_json(message));
	json_object_update_missing(j, extra);
	json_decref(extra);
	f->changes++;
	journal_append(f->journal, j);
}

void emit_transition(struct supervised *s, const struct transition *t)
{
	const char *from = cloud_state_name(t->from), *to = cloud_state_name(t->to);
	const struct cloud *c = s->cloud;
	json_t *extra = json_object();

	json_object_set_new(extra, "from", json_string(from));
	json_object_set_new(extra, "to", json_string(to));
	json_object_set_new(extra, "reason", emit_text_json(t->reason));
	fleet_event(s->fleet, "cloud-state", c, -1, extra, "cloud %s: %s -> %s%s%s", c->conf->name,
		from, to, t->reason ? ": " : "", t->reason ? t->reason : "");
}

static void emit_launched(struct supervised *s, const struct node *n)
{
	fleet_event(s->fleet, "node-launched", s->cloud, (int)n->index,
		json_pack("{s:i, s:i}", "pid", (int)n->pid, "api_port", (int)n->api_port),
		"cloud %s: node %u runs as pid %d, port %u", s->cloud->conf->name, n->index,
		(int)n->pid, n->api_port);
}

json_t *emit_signal_json(int sig)
{
	const char *abbrev = sig > 0 ? sigabbrev_np(sig) : NULL;

	if (sig <= 0)
		return json_null();
	return abbrev ? json_sprintf("SIG%s", abbrev) : json_sprintf("SIG%d", sig);
}

static void emit_exited(struct supervised *s, const struct node *n)
{
	const struct last_exit *x = &n->last_exit;
	struct member *m = &s->members[n->index];
	json_t *extra;

	if (m->end_told) {
		m->end_told = false;
		return;
	}
	extra = json_object();
	json_object_set_new(extra, "cause", json_string(cause_name(x->cause)));
	json_object_set_new(
		extra, "code", x->known && !x->signal ? json_integer(x->code) : json_null());
	json_object_set_new(extra, "signal", emit_signal_json(x->known ? x->signal : 0));
	json_object_set_new(extra, "why", emit_text_json(x->why));
	fleet_event(s->fleet, "node-exited", s->cloud, (int)n->index, extra, "cloud %s: %s",
		s->cloud->conf->name, x->why ? x->why : "a node ended");
}

void emit_step(struct supervised *s, const struct cloud_event *ev)
{
	const struct node *n = &s->cloud->nodes[ev->node];

	if (ev->type == EVENT_LAUNCHED)
		emit_launched(s, n);
	else if (ev->type == EVENT_EXITED && n->last_exit.present)
		emit_exited(s, n);
}

void emit_idle(struct supervised *s, uint64_t stop_in_ms)
{
	_cleanup_free_ char *left = text_human_duration(stop_in_ms);
	const char *name = s->cloud->conf->name;

	log_notice("cloud %s: nobody uses it: it will be stopped in %s (max_idle_duration; "
		   "`h2ofleet touch %s` postpones that)",
		name, left, name);
	fleet_event(s->fleet, "cloud-idle", s->cloud, -1,
		json_pack("{s:I}", "stop_in_ms", (json_int_t)stop_in_ms),
		"cloud %s: nobody uses it: it will be stopped in %s", name, left);
}

void emit_active(struct supervised *s)
{
	const char *name = s->cloud->conf->name;

	log_notice("cloud %s: it will not be stopped: it is in use again, or may stay idle", name);
	fleet_event(s->fleet, "cloud-active", s->cloud, -1, NULL,
		"cloud %s: it will not be stopped: it is in use again, or may stay idle", name);
}

void emit_started(struct fleet *f)
{
	fleet_event(f, "daemon-started", NULL, -1,
		json_pack("{s:s, s:i, s:s}", "version", PACKAGE_VERSION, "pid", (int)getpid(),
			"fleet", f->id),
		"h2ofleetd %s has started, pid %d", PACKAGE_VERSION, (int)getpid());
}

void emit_stopping(struct fleet *f, bool at_once)
{
	fleet_event(f, "daemon-stopping", NULL, -1,
		json_pack("{s:i, s:b}", "pid", (int)getpid(), "at_once", (int)at_once),
		at_once ? "h2ofleetd kills all clouds and ends"
			: "h2ofleetd stops all clouds and ends");
}
