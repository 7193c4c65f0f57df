/* The evidence of why a cloud was lost.
 *
 * One loss, one incident: the model says that the cloud is lost (it enters *recovering*, and that
 * counts), and what made it say so is the cause. What follows from that makes none: the end of the
 * other members, a member that ends because its cloud is stopped. Nor does a formation that is
 * begun anew because a client came too early, or a start that fails before there is a process:
 * there is no evidence but the sentence, which the status has.
 *
 * It is gathered before anybody is signalled, written once the cloud's state is saved, and written
 * again when there is more: the thread dump of a hung JVM, its end, what was done then. */
#include <inttypes.h>
#include <signal.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "core/internal.h"
#include "drv/logfile.h"
#include "drv/machine.h"
#include "drv/procinfo.h"

#define LOG_LINES    50
#define LOG_BYTES    (32u << 10)
#define HS_ERR_LINES 60
#define HS_ERR_BYTES (16u << 10)
#define PROC_BYTES   (48u << 10)
/* A JVM of 500 threads; so much is read of what it writes once it is asked. */
#define DUMP_BYTES      (144u << 10)
#define DUMP_READ_BYTES (256u << 10)
#define SUMMARY_BYTES   1000
#define NODES_LISTED    64

/* ---- texts ---- */

/* A member of an incident: at most `max` bytes, of its beginning. */
static json_t *bounded(const char *s, size_t max)
{
	_cleanup_free_ char *some = s ? xstrndup(s, max) : NULL;

	return emit_text_json(some);
}

/* The last lines of what a node wrote, at most LOG_BYTES of them. */
static json_t *last_lines(const char *log)
{
	size_t n = strlen(log);
	const char *from = log + (n > LOG_BYTES ? n - LOG_BYTES : 0);

	n = strlen(from);
	return emit_text_json(from + text_last_lines(from, n, LOG_LINES, from > log));
}

static size_t first_lines(const char *s, size_t lines)
{
	const char *p = s;

	while (lines-- > 0 && *p)
		p += strcspn(p, "\n") + (p[strcspn(p, "\n")] == '\n');
	return (size_t)(p - s);
}

/* Cuts it to `n` bytes, and out of these what the JVM was given on its command line: more people
 * may read an incident than the configuration. */
static void hide_arguments(char *head, size_t n)
{
	static const char *const labels[] = {"Command Line:", "jvm_args:", "java_command:",
		"JAVA_TOOL_OPTIONS=", "JDK_JAVA_OPTIONS=", "_JAVA_OPTIONS="};

	head[n] = '\0';
	for (char *line = head; *line; line += strcspn(line, "\n"), line += *line == '\n')
		for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
			char *rest = line + strlen(labels[i]);
			size_t len = has_prefix(line, labels[i]) ? strcspn(rest, "\n") : 0;

			if (len < 4)
				continue;
			memcpy(rest, " ***", 4);
			memmove(rest + 4, rest + len, strlen(rest + len) + 1);
		}
}

/* ---- parts ---- */

static json_t *hs_err_json(const char *path)
{
	_cleanup_free_ char *head = NULL;
	json_t *j;

	if (!path)
		return json_null();
	if (file_read_head(path, HS_ERR_BYTES, &head, NULL) == 0)
		hide_arguments(head, first_lines(head, HS_ERR_LINES));
	j = json_object();
	json_object_set_new(j, "path", emit_text_json(path));
	json_object_set_new(j, "head", emit_text_json(head));
	return j;
}

/* The line that says it; NULL: none does. Owned by the caller. */
static char *java_oom_line(const char *log)
{
	const char *at = log ? strstr(log, "java.lang.OutOfMemoryError") : NULL, *before;

	if (!at)
		return NULL;
	before = memrchr(log, '\n', (size_t)(at - log));
	at = before ? before + 1 : log;
	return xstrndup(at, MIN(strcspn(at, "\n"), (size_t)500));
}

/* `ev`: NULL: nothing has ended. */
static json_t *oom_json(const struct exit_evidence *ev, const char *log)
{
	_cleanup_free_ char *line = java_oom_line(log);
	json_t *j = json_object();

	json_object_set_new(j, "kernel",
		ev && ev->kernel_oom_known ? json_boolean(ev->kernel_oom) : json_null());
	json_object_set_new(j, "at_memory_max", json_boolean(ev && ev->memory_max_hit));
	json_object_set_new(j, "java", log ? json_boolean(line != NULL) : json_null());
	json_object_set_new(j, "java_line", emit_text_json(line));
	return j;
}

static json_t *memory_json(const struct cloud_usage *u)
{
	return u->known ? json_pack("{s:I, s:I}", "max_bytes", (json_int_t)u->max_mem, "free_bytes",
				  (json_int_t)u->free_mem)
			: json_null();
}

static json_t *percent(double p)
{
	return p < 0 ? json_null() : json_real(p);
}

static json_t *machine_json(struct supervised *s)
{
	struct fleet_pressure p = {.cpu = -1, .memory = -1, .io = -1};
	double load[3] = {-1, -1, -1};
	json_t *j = json_object();

	json_object_set_new(j, "memory_bytes", json_integer((json_int_t)machine_memory()));
	json_object_set_new(
		j, "memory_available_bytes", json_integer((json_int_t)machine_memory_available()));
	json_object_set_new(j, "cores", json_integer((json_int_t)machine_cores()));
	getloadavg(load, 3);
	json_object_set_new(j, "load",
		json_pack("[o, o, o]", percent(load[0]), percent(load[1]), percent(load[2])));
	fleet_pressure(s->fleet, s->cloud->conf->name, &p);
	json_object_set_new(j, "pressure",
		json_pack("{s:s, s:o, s:o, s:o}", "of", p.own ? "cloud" : "machine", "cpu",
			percent(p.cpu), "memory", percent(p.memory), "io", percent(p.io)));
	return j;
}

static json_t *silence(const struct node *n, uint64_t now_ms)
{
	return n->answered_ms ? json_integer((json_int_t)(now_ms - MIN(n->answered_ms, now_ms)))
			      : json_null();
}

/* How it was with each. Their states are not told: the model has changed them already. */
static json_t *nodes_json(struct supervised *s)
{
	uint64_t now = fleet_now(s->fleet);
	json_t *list = json_array();

	cloud_for_each_node (n, s->cloud) {
		json_t *j = json_object();

		json_object_set_new(j, "index", json_integer(n->index));
		json_object_set_new(j, "pid", n->pid > 0 ? json_integer(n->pid) : json_null());
		json_object_set_new(j, "silent_ms", silence(n, now));
		json_array_append_new(list, j);
		if (json_array_size(list) == NODES_LISTED)
			break;
	}
	return list;
}

/* ---- which node, what kind ---- */

static const struct node *hung_node(const struct cloud *c)
{
	cloud_for_each_node (n, c)
		if (n->hung && node_alive(n))
			return n;
	return NULL;
}

/* "exit", "hang", "launch", "not-ready", "lost": why the model gave the cloud up. */
static const char *kind_of(
	const struct supervised *s, const struct cloud_event *ev, enum cloud_state from)
{
	switch (ev->type) {
	case EVENT_EXITED:
		return "exit";
	case EVENT_LAUNCH_FAILED:
		return "launch";
	case EVENT_TICK:
		if (hung_node(s->cloud))
			return "hang";
		return from == CLOUD_STARTING || from == CLOUD_FORMING ? "not-ready" : "lost";
	default:
		return "lost";
	}
}

/* Whose evidence is kept: the one that the event is about, or else the first that is not up. */
static const struct node *suspect(const struct supervised *s, const struct cloud_event *ev)
{
	const struct cloud *c = s->cloud;
	const struct node *hung = hung_node(c);

	if (ev->type == EVENT_EXITED || ev->type == EVENT_LAUNCH_FAILED || ev->type == EVENT_ANSWER)
		return &c->nodes[ev->node];
	if (hung)
		return hung;
	/* Where all have answered it is one that sees the cloud otherwise. By now they may be told
	 * to end: the silent ones have no answer. */
	cloud_for_each_node (n, c)
		if (node_alive(n) && !n->answered_ms)
			return n;
	cloud_for_each_node (n, c)
		if (node_alive(n) && !n->whole)
			return n;
	return c->n_nodes ? &c->nodes[0] : NULL;
}

/* ---- beginning ---- */

static void add_exit(json_t *j, const struct last_exit *x)
{
	json_object_set_new(
		j, "code", x->known && !x->signal ? json_integer(x->code) : json_null());
	json_object_set_new(j, "signal", emit_signal_json(x->known ? x->signal : 0));
}

static void add_node(
	struct supervised *s, json_t *j, const struct node *n, const struct cloud_event *ev)
{
	const struct exit_evidence *exit = ev->type == EVENT_EXITED ? ev->exit : NULL;
	bool ran = ev->type != EVENT_LAUNCH_FAILED; /* else log and pid are of an earlier life */
	const struct member *m = &s->members[n->index];
	_cleanup_free_ char *elsewhere = logs_elsewhere(m), *log = NULL, *proc = NULL;
	uint64_t now = fleet_now(s->fleet);

	if (exit)
		log = xstrdup(exit->log_tail);
	else if (!ran || m->log_to != LOG_TO_FILE ||
		 logfile_tail(m->log, m->log_start, SIZE_MAX, LOG_BYTES, &log) < 0)
		log = xstrdup("");
	if (m->proc)
		proc = process_snapshot(proc_pid(m->proc));
	json_object_set_new(j, "pid", ran && m->last_pid ? json_integer(m->last_pid) : json_null());
	json_object_set_new(
		j, "uptime_ms", json_integer((json_int_t)(now - MIN(n->launched_ms, now))));
	json_object_set_new(j, "oom", oom_json(exit, elsewhere ? NULL : log));
	json_object_set_new(j, "hs_err", hs_err_json(exit ? exit->hs_err : NULL));
	json_object_set_new(j, "log_file", elsewhere ? json_null() : emit_text_json(m->log));
	json_object_set_new(j, "log_tail", elsewhere ? json_null() : last_lines(log));
	json_object_set_new(j, "log_elsewhere", emit_text_json(elsewhere));
	json_object_set_new(j, "proc", bounded(proc, PROC_BYTES));
}

static void add_cloud(struct supervised *s, json_t *j, enum cloud_state from)
{
	const struct cloud *c = s->cloud;
	uint64_t now = fleet_now(s->fleet);

	json_object_set_new(j, "cloud_state", json_string(cloud_state_name(from)));
	json_object_set_new(j, "ready_for_ms",
		c->ready_ms ? json_integer((json_int_t)(now - MIN(c->ready_ms, now)))
			    : json_null());
	json_object_set_new(j, "h2o_name", emit_text_json(c->h2o_name));
	json_object_set_new(j, "memory", memory_json(&c->usage));
	json_object_set_new(j, "machine", machine_json(s));
	json_object_set_new(j, "nodes", nodes_json(s));
}

static void begin(struct supervised *s, const struct cloud_event *ev, enum cloud_state from)
{
	const struct cloud *c = s->cloud;
	const struct node *n = suspect(s, ev);
	const struct exit_evidence *exit = ev->type == EVENT_EXITED ? ev->exit : NULL;
	const struct last_exit *x = exit ? &c->nodes[ev->node].last_exit : NULL;
	uint64_t wall = clock_wall_ms();
	char id[INCIDENT_ID_LEN + 1];
	json_t *j = json_object();

	incident_forget(s);
	incidents_new_id(s->fleet->incidents, wall, id);
	s->incident = (struct open_incident){j, n ? (int)n->index : -1, .changed = true};
	json_object_set_new(j, "id", json_string(id));
	json_object_set_new(j, "time", emit_time_json(wall));
	json_object_set_new(j, "cloud", emit_text_json(c->conf->name));
	json_object_set_new(j, "node", n ? json_integer(n->index) : json_null());
	json_object_set_new(j, "generation", json_integer((json_int_t)c->generation));
	json_object_set_new(j, "kind", json_string(kind_of(s, ev, from)));
	json_object_set_new(j, "cause", x ? json_string(cause_name(x->cause)) : json_null());
	json_object_set_new(j, "summary", bounded(c->reason, SUMMARY_BYTES));
	json_object_set_new(j, "outcome", json_null());
	json_object_set_new(j, "restart_delay_ms", json_null());
	add_exit(j, x ? x : &(struct last_exit){0});
	json_object_set_new(j, "thread_dump", json_null());
	json_object_set_new(j, "thread_dump_note", json_null());
	add_cloud(s, j, from);
	if (n)
		add_node(s, j, n, ev);
	if (x)
		replace_str(&c->nodes[ev->node].last_exit.incident, id);
}

/* ---- the thread dump ---- */

static void note_dump(struct supervised *s, const char *note)
{
	json_object_set_new(s->incident.json, "thread_dump_note", emit_text_json(note));
	s->incident.changed = true;
}

void incident_ask_dump(struct supervised *s, unsigned node)
{
	struct member *m = &s->members[node];
	_cleanup_free_ char *elsewhere = logs_elsewhere(m);
	struct process_stat st;

	if (!m->proc)
		return;
	s->incident.dump_from = logfile_end(m->log);
	proc_signal(m->proc, SIGQUIT);
	if (!s->incident.json || s->incident.node != (int)node)
		return;
	if (elsewhere) {
		note_dump(s, elsewhere);
	} else if (process_stat_read(proc_pid(m->proc), &st) == 0 &&
		   (st.state == 'T' || st.state == 't')) {
		note_dump(s, "the process stands still (SIGSTOP, or a debugger), so it could not "
			     "write one");
	} else {
		note_dump(s, "it was asked for (SIGQUIT); the daemon ended before it was there");
		s->incident.awaits_dump = true;
	}
}

/* "2026-11-22 22:40:15", and on the next line "Full thread dump ..."; its last line tells of the
 * references, and behind it comes a summary of the heap. */
static void keep_dump(struct supervised *s, const char *log)
{
	const char *from = strstr(log, "Full thread dump");
	const char *end = from ? strstr(from, "JNI global ref") : NULL;

	if (!from) {
		note_dump(s, "it was asked for (SIGQUIT), and wrote none before it was killed");
		return;
	}
	note_dump(s, end ? NULL : "it is not complete: the node was killed before it was written");
	json_object_set_new(s->incident.json, "thread_dump", bounded(from, DUMP_BYTES));
}

void incident_take_dump(struct supervised *s, unsigned node)
{
	const struct member *m = &s->members[node];
	_cleanup_free_ char *log = NULL;

	if (!s->incident.awaits_dump || s->incident.node != (int)node)
		return;
	s->incident.awaits_dump = false;
	if (logfile_tail(m->log, s->incident.dump_from, SIZE_MAX, DUMP_READ_BYTES, &log) < 0)
		log = xstrdup("");
	keep_dump(s, log);
}

/* ---- what comes of it ---- */

/* Of one that was begun while the node still lived. */
static void note_end(struct supervised *s, const struct cloud_event *ev)
{
	struct last_exit *x = &s->cloud->nodes[ev->node].last_exit;
	json_t *j = s->incident.json;

	incident_take_dump(s, ev->node);
	add_exit(j, x);
	replace_str(&x->incident, json_string_value(json_object_get(j, "id")));
	s->incident.changed = true;
}

/* An earlier daemon has begun it, and was killed before it knew what follows. */
static void take_up(struct supervised *s)
{
	const struct incidents *in = s->fleet->incidents;
	const char *id = incidents_newest(in, s->cloud->conf->name);
	json_t *j = NULL;

	if (!id || incidents_read(in, id, &j, NULL) < 0)
		return;
	if (json_is_null(json_object_get(j, "outcome")) &&
		json_integer_value(json_object_get(j, "generation")) ==
			(json_int_t)s->cloud->generation)
		s->incident = (struct open_incident){j, -1, .announced = true};
	else
		json_decref(j);
}

static void conclude(struct supervised *s, enum cloud_state to)
{
	const struct cloud *c = s->cloud;
	json_t *j;
	uint64_t now = fleet_now(s->fleet);
	const char *outcome = to == CLOUD_FAILED                            ? "given-up"
			      : to == CLOUD_STOPPING || to == CLOUD_STOPPED ? "stopped"
									    : "restarted";

	if (!s->incident.json && s->memory == MEMORY_WHOLE)
		take_up(s);
	j = s->incident.json;
	if (!j)
		return;
	json_object_set_new(j, "outcome", json_string(outcome));
	if (streq(outcome, "restarted"))
		json_object_set_new(j, "restart_delay_ms",
			json_integer(to == CLOUD_BACKOFF
					     ? (json_int_t)(MAX(c->next_start_ms, now) - now)
					     : 0));
	s->incident.changed = true;
}

void incident_look(struct supervised *s, const struct cloud_event *ev)
{
	const struct cloud *c = s->cloud;
	bool begun = false;

	for (size_t i = 0; i < c->n_transitions; i++) {
		const struct transition *t = &c->transitions[i];

		if (t->from == CLOUD_RECOVERING)
			conclude(s, t->to);
		if (t->to != CLOUD_RECOVERING || c->uncounted)
			continue;
		begin(s, ev, t->from);
		begun = true;
	}
	if (ev->type == EVENT_EXITED && !begun && s->incident.json &&
		s->incident.node == (int)ev->node && c->state != CLOUD_STOPPED)
		note_end(s, ev);
}

/* ---- keeping ---- */

static void announce(struct supervised *s)
{
	const json_t *j = s->incident.json;
	const char *id = json_string_value(json_object_get(j, "id"));
	const char *why = json_string_value(json_object_get(j, "summary"));
	const char *name = s->cloud->conf->name;
	json_t *extra = json_object();

	s->incident.announced = true;
	json_object_set_new(extra, "incident", json_string(id));
	json_object_set(extra, "kind", json_object_get(j, "kind"));
	json_object_set(extra, "cause", json_object_get(j, "cause"));
	fleet_event(s->fleet, "incident", s->cloud, s->incident.node, extra,
		"cloud %s: incident %s: %s", name, id, why ? why : "the cloud was lost");
	log_notice("cloud %s: the evidence is kept: h2ofleet incidents %s", name, id);
}

void incident_keep(struct supervised *s)
{
	struct open_incident *o = &s->incident;
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (!o->json || !o->changed)
		return;
	o->changed = false;
	if (incidents_put(s->fleet->incidents, o->json, &e) < 0)
		log_warning(
			"cloud %s: an incident is not kept: %s", s->cloud->conf->name, err_msg(&e));
	else if (!o->announced)
		announce(s);
	if (!json_is_null(json_object_get(o->json, "outcome")))
		incident_forget(s);
}

void incident_forget(struct supervised *s)
{
	json_decref(s->incident.json);
	s->incident = (struct open_incident){0};
}

/* One that is open would be kept again with what comes of it. */
int fleet_remove_incident(struct fleet *f, const char *id, struct err *e)
{
	for (size_t i = 0; i < f->n; i++) {
		struct supervised *s = f->clouds[i];

		if (s->incident.json &&
			streq_null(json_string_value(json_object_get(s->incident.json, "id")), id))
			incident_forget(s);
	}
	return incidents_remove(f->incidents, id, e);
}
