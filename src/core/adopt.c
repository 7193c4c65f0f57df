/* A new daemon takes back what an earlier one has left running: members are known by the state file
 * (pid, start time, boot id) and by the token in their environment, and are watched by pidfd from
 * then on. A cloud that served goes on serving; clients notice nothing. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>

#include "base/file.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "core/internal.h"
#include "drv/machine.h"
#include "drv/procinfo.h"

#define SESSION_BEATS_MAX 30U /* between two attempts to write it */

/* ---- is it one sitting? ---- */

/* While a daemon is up this file holds the boot id. An orderly end removes it, so the next daemon
 * begins with what `autostart` says; where it is found the last daemon was killed, has crashed or
 * was detached, and what the operator had stopped stays stopped. */
static char *session_path(const struct fleet *f)
{
	return xasprintf("%s/session", f->conf->fleet.state_dir);
}

static bool session_goes_on(const struct fleet *f)
{
	_cleanup_free_ char *path = session_path(f), *text = NULL;
	char boot_id[40];

	machine_boot_id(boot_id);
	return file_read(path, 64, &text, NULL) == 0 && streq(text, boot_id);
}

static void session_begin(struct fleet *f)
{
	_cleanup_free_ char *path = session_path(f), *sentence = NULL;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	char boot_id[40];
	int r = 0;

	machine_boot_id(boot_id);
	if (!session_goes_on(f))
		r = file_write_atomic(path, boot_id, strlen(boot_id), 0640, false, &e);
	if (r == 0) {
		f->session.wait = 0;
		trouble_clear(f, TROUBLE_STATE, NULL);
		return;
	}
	f->session.wait = MIN(MAX(2 * f->session.wait, 1U), SESSION_BEATS_MAX);
	f->session.left = f->session.wait;
	sentence = xasprintf("%s%s", err_msg(&e), trouble_advice(r));
	trouble_set(f, TROUBLE_STATE, NULL, sentence);
}

void adopt_note_session(struct fleet *f)
{
	if (f->session.wait && !f->ending)
		session_begin(f);
}

/* A daemon that finds the file goes by what the states say: those first, as far as they can be. */
void adopt_beat(struct fleet *f)
{
	if (!f->session.wait || f->ending || --f->session.left)
		return;
	for (size_t i = 0; i < f->n; i++) {
		if (!f->clouds[i]->save_delay_ms)
			continue;
		f->clouds[i]->save_due = 0;
		supervised_feed(f->clouds[i], &(struct cloud_event){.type = EVENT_TICK});
	}
	adopt_note_session(f);
}

void adopt_end_session(const struct fleet *f)
{
	_cleanup_free_ char *path = session_path(f);

	unlink(path);
}

/* ---- members ---- */

/* A child that was killed with its daemon between fork and exec still looks like that daemon; it
 * ends by itself, or goes on to become a member if it was released already. */
static bool is_not_executed(pid_t pid)
{
	char its[32], ours[32];

	process_comm(pid, its);
	process_comm(getpid(), ours);
	return streq(its, ours);
}

static bool is_zombie(const struct node *n)
{
	struct process_stat st;

	return process_stat_read(n->pid, &st) == 0 && st.state == 'Z' &&
	       st.start_ticks == n->start_ticks;
}

/* One that has just ended shows its start time, its name and how it ended, but no environment. */
static bool is_executed(const struct node *n, const char *token)
{
	return process_has_env(n->pid, token) || (is_zombie(n) && !is_not_executed(n->pid));
}

/* Whether the slot's process runs; *executed: it is the JVM. */
static bool adopt_member(struct supervised *s, struct node *n, bool *executed)
{
	struct member *m = &s->members[n->index];
	_cleanup_free_ char *token = launch_token(s, n->index);
	int r = proc_adopt(s->fleet->loop, n->pid, n->start_ticks, exits_report, m, &m->proc);

	if (r < 0 && r != -ESRCH) {
		log_error("cloud %s: node %u: cannot watch pid %d: %s", s->cloud->conf->name,
			n->index, (int)n->pid, strerror(-r));
		s->fleet->cannot_adopt = r;
	}
	if (r < 0)
		return false;
	*executed = is_executed(n, token);
	if (!*executed && (!is_not_executed(n->pid) || is_zombie(n)) && !is_executed(n, token)) {
		proc_free(TAKE_PTR(m->proc)); /* the same number, yet not ours; or it never ran */
		return false;
	}
	m->last_pid = n->pid;
	cgroups_adopted(s, n->pid);
	return true;
}

static void adopt_ports(struct supervised *s)
{
	for (unsigned i = 0; s->cloud->ports_planned && i < s->cloud->n_nodes; i++) {
		uint16_t api = s->cloud->nodes[i].api_port;
		int r;

		if (!api || s->holds[i].api)
			continue;
		if (port_pair_take_over(api, &s->holds[i]))
			continue;
		r = port_pair_claim(launch_api_address(s), MEMBER_ADDR, api, &s->holds[i]);
		if (r < 0)
			log_warning("cloud %s: cannot claim port %u: %s", s->cloud->conf->name, api,
				strerror(-r));
	}
}

static void say_adopted(struct supervised *s)
{
	_cleanup_(strbuf_free) struct strbuf pids = STRBUF_NULL;

	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		if (s->members[i].proc)
			strbuf_printf(&pids, "%s%d", pids.len ? ", " : "",
				(int)proc_pid(s->members[i].proc));
	log_notice("cloud %s: adopted generation %" PRIu64 ", %s until now (pid %s)",
		s->cloud->conf->name, s->cloud->generation, cloud_state_name(s->was),
		strbuf_str(&pids));
	s->adopted = true;
}

void adopt_members(struct supervised *s)
{
	bool some = false;

	if (s->memory != MEMORY_WHOLE)
		return;
	cloud_for_each_node (n, s->cloud) {
		bool executed = true;

		if (!n->pid)
			continue;
		if (adopt_member(s, n, &executed))
			some = true;
		else
			executed = false;
		s->half_launched |= !executed;
	}
	adopt_ports(s);
	if (some)
		say_adopted(s);
}

/* ---- ends that were told ---- */

/* The state file has a process of it, and that is dead. */
static bool is_dead(const struct supervised *s, unsigned index)
{
	const struct node *n = &s->cloud->nodes[index];

	return s->memory == MEMORY_WHOLE && n->pid && (!s->members[index].proc || is_zombie(n));
}

static bool any_dead(const struct fleet *f)
{
	for (size_t i = 0; i < f->n; i++)
		cloud_for_each_node (n, f->clouds[i]->cloud)
			if (is_dead(f->clouds[i], n->index))
				return true;
	return false;
}

static void note_told(const struct fleet *f, const json_t *event, bool ended)
{
	const char *cloud = json_string_value(json_object_get(event, "cloud"));
	json_int_t generation = json_integer_value(json_object_get(event, "generation"));
	json_int_t index = json_integer_value(json_object_get(event, "node"));
	struct supervised *s = cloud ? supervised_find(f, cloud) : NULL;

	if (s && generation == (json_int_t)s->cloud->generation && index >= 0 &&
		index < (json_int_t)s->cloud->n_nodes && is_dead(s, (unsigned)index))
		s->members[index].end_told = ended;
}

/* The journal may know of an end that the state file does not: there was no room for that, or the
 * daemon was killed between the two. Nobody is told twice. Launches count, too, for a cloud that
 * was deleted and made anew has the generations of the first one. */
static void find_told(const struct fleet *f)
{
	_cleanup_(strbuf_free) struct strbuf some = STRBUF_NULL;
	struct journal_cursor c = {0};
	bool more = any_dead(f) && journal_seek(f->journal, NULL, &c) == 0;

	while (more) {
		strbuf_reset(&some);
		more = journal_read(f->journal, &c, &some, 65536);
		for (char *line = some.s, *end; line && (end = strchr(line, '\n'));
			line = end + 1) {
			bool ended;
			json_t *event;

			*end = '\0';
			ended = strstr(line, "\"type\":\"node-exited\"");
			if (!ended && !strstr(line, "\"type\":\"node-launched\""))
				continue;
			event = json_loads(line, 0, NULL);
			note_told(f, event, ended);
			json_decref(event);
		}
	}
}

/* ---- clouds ---- */

void adopt_cloud(struct supervised *s)
{
	bool launching = s->was == CLOUD_STARTING || s->was == CLOUD_FORMING;
	/* The gate that knew when it was used last is gone. */
	bool forgotten = s->cloud->conf->gate_mode != GATE_OFF && !s->door.adopted;
	_cleanup_free_ int *sent = xcalloc(s->cloud->n_nodes, sizeof(*sent));

	if (s->memory != MEMORY_WHOLE)
		return;
	cloud_for_each_node (n, s->cloud)
		sent[n->index] = n->sent_signal;
	if (s->adopted)
		fleet_event(s->fleet, "cloud-adopted", s->cloud, -1, NULL,
			"cloud %s: taken over as it runs, %s until now", s->cloud->conf->name,
			cloud_state_name(s->was));
	supervised_feed(s, &(struct cloud_event){.type = EVENT_RESUME,
				   .was = s->was,
				   .flag = launching && s->half_launched});
	if (forgotten)
		supervised_feed(s, &(struct cloud_event){.type = EVENT_TOUCH});
	flatfiles_adopt(s);
	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		if (!s->cloud->nodes[i].pid || s->members[i].proc)
			continue;
		s->cloud->nodes[i].sent_signal = sent[i]; /* what was sent now reached nobody */
		exits_report_gone(&s->members[i]);
	}
}

/* Clouds that the configuration does not name any more: their processes are strays, and nobody must
 * go on from their state files later. */
static void forget_unconfigured(const struct fleet *f)
{
	_cleanup_free_ char *dir = xasprintf("%s/clouds", f->conf->fleet.state_dir);
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s/state.json", dir, de->d_name);
		_cleanup_free_ char *half = xasprintf("%s.new", path); /* it died writing it */

		if (de->d_name[0] != '.' && !fleet_find(f, de->d_name))
			unlink(half);
		if (de->d_name[0] != '.' && !fleet_find(f, de->d_name) && unlink(path) == 0)
			log_notice("cloud %s is not configured any more", de->d_name);
	}
	if (d)
		closedir(d);
}

void adopt_resume(struct fleet *f)
{
	find_told(f);
	for (size_t i = 0; i < f->n; i++)
		adopt_cloud(f->clouds[i]);
}

/* The end of the last daemon has stopped it; nobody wants it to run now. Its file still says so, of
 * another size too, and a daemon that follows a crash would go by that. */
static bool comes_to_rest(const struct supervised *s)
{
	const struct cloud *c = s->cloud;

	if (s->memory == MEMORY_BEGIN_ANEW)
		return true;
	return c->wanted == WANTED_RUNNING && !c->restart_asked &&
	       (c->state == CLOUD_STOPPED || c->state == CLOUD_STOPPING);
}

void adopt_clouds(struct fleet *f)
{
	bool goes_on = session_goes_on(f);

	forget_unconfigured(f);
	adopt_resume(f);
	for (size_t i = 0; i < f->n; i++) { /* in this order they take their ports */
		struct supervised *s = f->clouds[i];
		bool starts = s->cloud->conf->autostart;

		if (goes_on && s->memory != MEMORY_NONE)
			starts = s->memory == MEMORY_BEGIN_ANEW;
		if (starts)
			supervised_feed(s, &(struct cloud_event){.type = EVENT_START});
		else if (!goes_on && comes_to_rest(s))
			supervised_feed(s, &(struct cloud_event){.type = EVENT_STOP});
		door_look(s);
	}
	doors_begin(f);
	session_begin(f); /* only now: what was begun goes on after a crash */
}
