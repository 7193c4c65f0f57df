/* The invariants (HACKING.md, "The simulation"): asserted where the daemon acts, at each step of
 * its model, and after each turn of its loop, by what is true in the world. */
#include "world.h"

#include "base/file.h"
#include "core/internal.h"

static struct {
	/* The clouds that served, whole, when a daemon ended. */
	struct {
		bool served, forming, intact;
		size_t n;
		bool wish_known, wanted;
		uint64_t generation;
		pid_t pids[MAX_MEMBERS];
	} before[MAX_CLOUDS];
	struct {
		enum cloud_state state;
		enum cloud_wanted wanted;
		bool asked; /* since then, for something else; maybe not saved yet */
	} seen[MAX_CLOUDS]; /* after the last turn of the loop */
	uint64_t changes;
	bool settled;  /* at least one turn of this daemon */
	bool in_order; /* it was ended by somebody who wanted its clouds to end */
	char epoch[JOURNAL_EPOCH_LEN + 1];
	uint64_t told;                   /* the newest event that followers know of */
	bool told_is_kept;               /* it is in the file */
	bool begins;                     /* this daemon: its loop has not turned yet */
	uint64_t faults_gone;            /* hit until the last daemon that has begun was gone */
	uint64_t losses;                 /* that counted, of this daemon */
	uint64_t incidents, faults_then; /* there were when it began */
	uint64_t fault_at;               /* when one was hit last */
	uint64_t faults_seen;
	bool known[MAX_CLOUDS];    /* of a created cloud, whether it is there is known */
	bool dirty[MAX_CLOUDS];    /* what it left could not be removed, */
	bool launched[MAX_CLOUDS]; /* until it is launched again */
} k;

void check_new(void)
{
	memset(&k, 0, sizeof(k));
	for (size_t i = 0; i < MAX_CLOUDS; i++)
		k.known[i] = true;
}

void check_free(void)
{
}

/* What could not be done for lack of something need not be as it should be for a while. */
static bool in_trouble(void)
{
	if (k.faults_seen != w.faults_hit)
		k.fault_at = w.now;
	k.faults_seen = w.faults_hit;
	return k.fault_at && w.now - k.fault_at < 60 * SEC;
}

static bool is_node_of(const struct vproc *p, const char *cloud)
{
	return p->kind == V_NODE && streq(p->h2o.cloud, cloud);
}

/* ---- what it does ---- */

void check_fork(const struct vproc *p)
{
	if (p->kind != V_NODE)
		return;
	if (plan_index(p->h2o.cloud) < MAX_CLOUDS)
		k.launched[plan_index(p->h2o.cloud)] = true;
	for (const struct vproc *o = w.procs; o; o = o->next) {
		if (o == p || !is_node_of(o, p->h2o.cloud))
			continue;
		if (streq(o->h2o.name, p->h2o.name)) {
			invariant("one-life", o->h2o.node != p->h2o.node,
				"%s/%u is launched twice in generation %" PRIu64, p->h2o.cloud,
				p->h2o.node, p->h2o.generation);
			continue;
		}
		invariant("generations", o->state == V_GONE,
			"generation %" PRIu64
			" of %s is launched while pid %d of generation %" PRIu64 " is not reaped",
			p->h2o.generation, p->h2o.cloud, (int)o->pid, o->h2o.generation);
	}
}

void check_exec(const struct vproc *p)
{
	for (const struct vproc *o = w.procs; o && p->kind == V_NODE; o = o->next)
		invariant("slot",
			o == p || !is_node_of(o, p->h2o.cloud) || o->h2o.node != p->h2o.node ||
				!vproc_runs(o),
			"pid %d and %d both hold %s/%u", (int)p->pid, (int)o->pid, p->h2o.cloud,
			p->h2o.node);
	if (p->kind == V_NODE && w.fleet) {
		const struct inode *i;
		_cleanup_free_ char *path =
			xasprintf(STATE_DIR "/clouds/%s/state.json", p->h2o.cloud);
		_cleanup_free_ char *pid = xasprintf("\"pid\": %d,", (int)p->pid);

		i = disk_find(path);
		invariant("recorded", i && i->data && strstr(i->data, pid),
			"pid %d of %s executes before it is in the state file", (int)p->pid,
			p->h2o.cloud);
	}
}

static const char *fleet_mark(void)
{
	static char mark[64];
	const struct inode *i = disk_find(STATE_DIR "/fleet-id");

	snprintf(mark, sizeof(mark), "H2OFLEET_TOKEN=%.16s/", i && i->data ? i->data : "?");
	return mark;
}

void check_signal(const struct vproc *p, int sig)
{
	invariant("signals", p->token && has_prefix(p->token, fleet_mark()),
		"signal %d to pid %d, which is none of ours", sig, (int)p->pid);
}

void check_http(const char *url, const char *method, const struct vproc *p)
{
	static const char *const harmless[] = {
		"/3/Cloud?skip_ticks=true", "/3/Shutdown", "/3/Recovery/resume"};
	static const char *const locking[] = {"/3/SteamMetrics", "/3/Jobs"};
	const char *path = strchr(url + strlen("http://"), '/');
	uint16_t port = (uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10);
	bool known = false;

	invariant("internal-port", !p || p->kind != V_NODE || p->h2o.port == port,
		"%s %s goes to the internal port of %s/%u", method, url, p->h2o.cloud, p->h2o.node);
	for (size_t i = 0; path && i < ARRAY_SIZE(harmless); i++)
		known |= streq(path, harmless[i]);
	for (size_t i = 0; path && i < ARRAY_SIZE(locking); i++) {
		if (!has_prefix(path, locking[i]))
			continue;
		known = true;
		invariant("locks",
			!p || p->kind != V_NODE || p->h2o.locked || streq(method, "POST"),
			"%s %s locks cloud %s", method, url, p->h2o.name);
	}
	invariant("locks", known, "%s %s is nothing that may be asked", method, url);
}

static const struct cloud *cloud_of(const char *name)
{
	return w.fleet && w.alive ? fleet_find(w.fleet, name) : NULL;
}

static bool end_is_untold(const struct vproc *p)
{
	return p && p->state == V_ZOMBIE && p->watch;
}

static const struct vproc *proc_of(const struct node *n)
{
	return n->pid > 0 ? vproc_find(n->pid) : NULL;
}

/* Whether an end is on its way to the daemon: then it cannot know better. */
static bool some_end_is_untold(const struct cloud *c)
{
	for (size_t i = 0; i < c->n_nodes; i++)
		if (end_is_untold(proc_of(&c->nodes[i])))
			return true;
	return false;
}

void check_passed(const char *cloud, const struct vproc *p)
{
	const struct cloud *c = cloud_of(cloud);

	if (!c || !cloud_usable(c) || some_end_is_untold(c) || !gate_has_read_all() || w.ghost)
		return;
	invariant("door",
		p && is_node_of(p, cloud) && p->h2o.generation == c->generation && p->h2o.node == 0,
		"a client of %s comes to pid %d", cloud, p ? (int)p->pid : 0);
}

void check_used(const char *cloud)
{
	unsigned i = plan_index(cloud);

	if (i < MAX_CLOUDS)
		w.used_at[i] = MAX(w.used_at[i], w.now);
}

/* ---- each step of the model ---- */

static void check_ready(const struct cloud *c)
{
	w.readies++;
	for (size_t i = 0; i < c->n_nodes; i++) {
		const struct vproc *p = proc_of(&c->nodes[i]);
		bool there = p && (p->state == V_RUNNING || end_is_untold(p));

		invariant("published",
			there && is_node_of(p, c->conf->name) && p->h2o.node == i &&
				streq_null(p->h2o.name, c->h2o_name),
			"%s is ready, and its node %zu is pid %d", c->conf->name, i,
			(int)c->nodes[i].pid);
		if (!there)
			return;
		invariant("published", !h2o_denies(p),
			"%s is ready, and its node %zu says that not all agree", c->conf->name, i);
		invariant("published", p->h2o.serves_at && !p->h2o.locked_short,
			"%s is ready, and its node %zu is in a cloud of less", c->conf->name, i);
		for (size_t j = 0; j < c->n_nodes; j++)
			invariant("published", p->h2o.sees[j],
				"%s is ready, and its node %zu has not met node %zu", c->conf->name,
				i, j);
	}
}

static void check_hang(const struct cloud *c)
{
	for (size_t i = 0; i < c->n_nodes; i++) {
		const struct vproc *p = proc_of(&c->nodes[i]);
		uint64_t silent;

		if (!c->nodes[i].hung || !p)
			continue;
		silent = w.now - p->h2o.good_at;
		silent -= MIN(silent, w.frozen - p->h2o.good_frozen + h2o_blind_for(p));
		w.hangs++;
		invariant("pause", silent + 300 * MS >= c->conf->hang_timeout_ms * MS,
			"%s/%zu is a hang after %" PRIu64 " ms without an answer", c->conf->name, i,
			silent / MS);
	}
}

static bool is_sick(const struct cloud *c)
{
	for (size_t i = 0; i < c->n_nodes; i++) {
		const struct vproc *p = proc_of(&c->nodes[i]);

		if (!p || !vproc_runs(p) || h2o_paused(p) || p->h2o.hung || p->h2o.lie ||
			p->h2o.slow_until + 120 * SEC > w.now ||
			p->h2o.silent_since + 120 * SEC > w.now)
			return true;
	}
	return false;
}

/* Lateness is none, nor is an answer that breaks off. */
static bool has_evidence(const struct cloud *c)
{
	for (size_t i = 0; i < c->n_nodes; i++) {
		const struct vproc *p = proc_of(&c->nodes[i]);
		uint64_t pause =
			p ? p->h2o.paused_until - MIN(p->h2o.silent_since, p->h2o.paused_until) : 0;

		if (!p || !vproc_runs(p) || p->h2o.lie ||
			(pause > 55 * SEC && w.now < p->h2o.paused_until + 120 * SEC))
			return true;
	}
	return false;
}

/* It served, and is given up: there must be evidence. */
static void check_loss(const struct cloud *c, const struct cloud_event *ev)
{
	unsigned i = plan_index(c->conf->name);
	/* Who was frozen hears first what was said before that. */
	uint64_t frozen_until = MIN(w.frozen_until, w.now);
	bool lied = i < MAX_CLOUDS && w.lied_at[i] &&
		    w.now - MAX(w.lied_at[i], frozen_until) < 60 * SEC;
	bool hung = false;

	for (size_t n = 0; n < c->n_nodes; n++)
		hung |= c->nodes[n].hung;
	if (ev->type == EVENT_EXITED || ev->type == EVENT_RESUME || hung)
		return;
	invariant("evidence", lied || has_evidence(c),
		"%s is given up (%s), and all its nodes are well", c->conf->name,
		c->reason ? c->reason : "no reason");
}

static void check_idle(const struct cloud *c)
{
	unsigned i = plan_index(c->conf->name);

	w.idle_stops++;
	if (i < MAX_CLOUDS)
		invariant("idle",
			w.used_at[i] <= w.now && (w.now - w.used_at[i]) + 1100 * MS >=
							 c->conf->max_idle_duration_ms * MS,
			"%s is stopped for want of use, and was used %" PRIu64 " ms ago",
			c->conf->name, (w.now - MIN(w.used_at[i], w.now)) / MS);
}

/* What was launched since the machine began has been removed, if it could be. */
static void note_rest(const struct cloud *c)
{
	unsigned i = plan_index(c->conf->name);

	if (i < MAX_CLOUDS)
		k.dirty[i] = in_trouble() || (k.dirty[i] && !k.launched[i]);
}

static void check_transition(
	const struct cloud *c, const struct cloud_event *ev, const struct transition *t)
{
	bool served = t->from == CLOUD_READY || t->from == CLOUD_DEGRADED;

	vlog("cloud %s: %s -> %s%s%s", c->conf->name, cloud_state_name(t->from),
		cloud_state_name(t->to), t->reason ? ": " : "", t->reason ? t->reason : "");
	if (t->to == CLOUD_READY && !served)
		check_ready(c);
	if (t->to == CLOUD_RECOVERING) {
		w.losses++;
		k.losses += !c->uncounted;
		check_hang(c);
	}
	if (t->to == CLOUD_RECOVERING && served)
		check_loss(c, ev);
	if (t->to == CLOUD_STOPPING && ev->type == EVENT_IDLE)
		check_idle(c);
	if (t->to == CLOUD_STOPPED || t->to == CLOUD_FAILED)
		note_rest(c);
	w.failed += t->to == CLOUD_FAILED;
	if (t->to == CLOUD_FAILED || t->to == CLOUD_BACKOFF || t->to == CLOUD_DEGRADED)
		invariant("reason", t->reason, "%s is %s for no reason", c->conf->name,
			cloud_state_name(t->to));
}

void __real_cloud_step(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms);
void __wrap_cloud_step(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms);
void __wrap_cloud_step(struct cloud *c, const struct cloud_event *ev, uint64_t now_ms)
{
	__real_cloud_step(c, ev, now_ms);
	if (w.ghost)
		return;
	w.events++;
	if (plan_index(c->conf->name) < MAX_CLOUDS && ev->type != EVENT_TICK &&
		ev->type != EVENT_ANSWER)
		k.seen[plan_index(c->conf->name)].asked = true;
	for (size_t i = 0; i < c->n_transitions; i++)
		check_transition(c, ev, &c->transitions[i]);
}

/* ---- each turn of the loop ---- */

static void check_nodes(const struct supervised *s)
{
	const struct cloud *c = s->cloud;

	for (size_t i = 0; i < c->n_nodes; i++) {
		const struct node *n = &c->nodes[i];
		const struct vproc *p = proc_of(n);

		if (n->pid <= 0)
			continue;
		invariant("known", p && (vproc_runs(p) || end_is_untold(p)),
			"%s/%zu is pid %d, which is gone", c->conf->name, i, (int)n->pid);
		if (!p)
			continue;
		invariant("known", !cloud_usable(c) || p->h2o.generation == c->generation,
			"%s/%zu is of generation %" PRIu64, c->conf->name, i, p->h2o.generation);
	}
	if (!cloud_usable(c))
		return;
	for (size_t i = 0; i < c->n_nodes; i++)
		invariant("withdrawn", c->nodes[i].pid > 0, "%s serves without node %zu",
			c->conf->name, i);
}

/* All that runs of a cloud, it knows. */
static void check_processes(void)
{
	for (const struct vproc *p = w.procs; p; p = p->next) {
		const struct cloud *c;

		if (p->kind != V_NODE || p->state != V_RUNNING || w.fleet->strays)
			continue;
		c = fleet_find(w.fleet, p->h2o.cloud);
		invariant("known",
			c && p->h2o.node < c->n_nodes && c->nodes[p->h2o.node].pid == p->pid,
			"pid %d (%s) runs, and the daemon does not know it", (int)p->pid, p->token);
	}
}

static void check_files(const struct supervised *s)
{
	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		const struct inode *tmp = disk_find(s->members[i].tmp_dir);
		const struct inode *ice = disk_find(s->members[i].ice_dir);

		invariant("left-behind", !tmp || !tmp->n_dents, "%s is not empty",
			s->members[i].tmp_dir);
		for (size_t n = 0; ice && n < ice->n_dents; n++)
			invariant("left-behind", !has_prefix(ice->dents[n].name, "ice"),
				"%s/%s is left", s->members[i].ice_dir, ice->dents[n].name);
	}
}

static void check_rest(const struct supervised *s)
{
	const struct cloud *c = s->cloud;
	_cleanup_free_ char *mark = xasprintf("%s%s/", fleet_mark(), c->conf->name);

	if ((c->state != CLOUD_STOPPED && c->state != CLOUD_FAILED) || !cloud_quiet(c))
		return;
	for (unsigned i = 0; i < c->n_nodes; i++)
		invariant("left-behind", !s->holds[i].api, "%s is %s and holds port %u",
			c->conf->name, cloud_state_name(c->state), s->holds[i].api);
	if (in_trouble() || s->fleet->strays || w.now < 3 * SEC)
		return;
	for (const struct vproc *p = w.procs; p; p = p->next)
		invariant("left-behind",
			!vproc_runs(p) || !p->token || !has_prefix(p->token, mark) ||
				p->kind == V_HELPER,
			"%s is %s, and pid %d runs", c->conf->name, cloud_state_name(c->state),
			(int)p->pid);
	if (plan_index(c->conf->name) < MAX_CLOUDS && !k.dirty[plan_index(c->conf->name)])
		check_files(s);
}

static void check_door(const struct supervised *s)
{
	const struct cloud *c = s->cloud;
	const struct vgate_door *d = gate_door(c->conf->name);
	bool open = d && streq(d->mode, "open");

	if (c->conf->gate_mode == GATE_OFF || !gate_has_read_all() || s->fleet->ending ||
		!s->fleet->doors_begun)
		return;
	invariant("door", !open || cloud_usable(c), "%s is %s, and its door is open", c->conf->name,
		cloud_state_name(c->state));
	if (!s->door.port.port || !s->door.known)
		return;
	invariant("door", !cloud_usable(c) || (open && d->port == c->nodes[0].api_port),
		"%s is %s, and its door is %s", c->conf->name, cloud_state_name(c->state),
		d ? d->mode : "not there");
}

static void check_under_way(const struct supervised *s)
{
	const struct cloud *c = s->cloud;

	if (c->state == CLOUD_STOPPED || c->state == CLOUD_FAILED)
		return;
	invariant("under-way",
		cloud_nodes_alive(c) || c->preparing || c->cleaning ||
			cloud_next_deadline(c) != UINT64_MAX,
		"%s is %s, and nothing follows", c->conf->name, cloud_state_name(c->state));
}

/* One loss, one incident. */
static void check_incidents(void)
{
	for (size_t i = 0; i < w.fleet->n; i++)
		if (w.fleet->clouds[i]->work.keep)
			return; /* they are written in their turn */
	if (w.faults_hit == k.faults_then)
		invariant("incidents",
			incidents_count(fleet_incidents(w.fleet)) ==
				MIN(k.incidents + k.losses, (uint64_t)INCIDENTS_MAX),
			"%" PRIu64 " incidents and %" PRIu64 " losses have come to %zu incidents",
			k.incidents, k.losses, incidents_count(fleet_incidents(w.fleet)));
}

/* Who waits for changes hears of each. */
static void check_changes(void)
{
	bool changed = false;

	for (size_t i = 0; i < w.fleet->n; i++) {
		const struct cloud *c = w.fleet->clouds[i]->cloud;
		unsigned at = plan_index(c->conf->name);

		if (at == MAX_CLOUDS)
			continue;
		changed |= k.seen[at].state != c->state || k.seen[at].wanted != c->wanted;
		k.seen[at].state = c->state;
		k.seen[at].wanted = c->wanted;
		k.seen[at].asked = false;
	}
	invariant("changes", !changed || !k.settled || k.changes != fleet_changes(w.fleet),
		"a cloud's state or wish has changed, and fleet_changes() has not");
	k.changes = fleet_changes(w.fleet);
	k.settled = true;
}

/* A formation that a client has locked too early is abandoned at once. */
static void check_short_lock(const struct supervised *s)
{
	const struct vproc *p = proc_of(&s->cloud->nodes[0]);

	if (s->cloud->state != CLOUD_FORMING || !p || !p->h2o.locked_short || !p->h2o.locked ||
		!p->h2o.serves_at || is_sick(s->cloud) || cloud_is_blind(s->cloud))
		return;
	invariant("short-lock",
		w.now - MAX(p->h2o.short_at, p->h2o.serves_at) < 6 * SEC || w.frozen,
		"%s was locked with too few members, and is forming still", s->cloud->conf->name);
}

void check_turn(void)
{
	uint64_t overdue = fleet_overdue_ms(w.fleet);

	k.begins = false;
	invariant("overdue", overdue < 1000, "a deadline is overdue by %" PRIu64 " ms", overdue);
	for (size_t i = 0; i < w.fleet->n; i++) {
		const struct supervised *s = w.fleet->clouds[i];

		check_nodes(s);
		check_rest(s);
		check_door(s);
		check_under_way(s);
		check_short_lock(s);
	}
	check_processes();
	check_incidents();
	check_changes();
}

/* ---- from one daemon to the next ---- */

void check_daemon_gone(void)
{
	memset(k.before, 0, sizeof(k.before));
	k.in_order = w.fleet && w.fleet->ending;
	if (w.fleet)
		k.faults_gone = w.faults_hit;
	for (size_t i = 0; w.fleet && i < w.fleet->n; i++) {
		const struct cloud *c = w.fleet->clouds[i]->cloud;
		unsigned at = plan_index(c->conf->name);

		if (at == MAX_CLOUDS || c->removed || w.fleet->clouds[i]->save_delay_ms)
			continue;
		k.before[at].wish_known = k.settled && !k.seen[at].asked &&
					  k.seen[at].wanted == c->wanted && !w.fleet->session.wait;
		k.before[at].wanted = c->wanted == WANTED_RUNNING;
		k.before[at].forming =
			c->state == CLOUD_FORMING && k.seen[at].state == CLOUD_FORMING;
		k.before[at].n = MIN(c->n_nodes, (size_t)MAX_MEMBERS);
		for (size_t n = 0; n < k.before[at].n; n++)
			k.before[at].pids[n] = c->nodes[n].pid;
		k.before[at].served = cloud_usable(c) && k.seen[at].state != CLOUD_FORMING;
		k.before[at].generation = c->generation;
	}
}

/* The last line of the journal is that event. */
static bool is_kept(const char *epoch, uint64_t seq)
{
	const struct inode *i = disk_find(STATE_DIR "/events/current.ndjson");
	_cleanup_free_ char *begin =
		xasprintf("{\"epoch\":\"%s\",\"seq\":%" PRIu64 ",", epoch, seq);
	size_t at = i && i->len ? i->len - 1 : 0;

	while (at && i->data[at - 1] != '\n')
		at--;
	return i && i->len && has_prefix(i->data + at, begin);
}

/* Where the newest event of that type is before `end`; NULL: there is none. */
static const char *last_of(const char *type, const json_t *like, const char *all, const char *end)
{
	_cleanup_free_ char *begin =
		xasprintf("\"type\":\"%s\",\"cloud\":\"%s\",\"node\":%d,\"generation\":%d,", type,
			json_string_value(json_object_get(like, "cloud")),
			(int)json_integer_value(json_object_get(like, "node")),
			(int)json_integer_value(json_object_get(like, "generation")));
	_cleanup_free_ char *head =
		xasprintf("{\"epoch\":\"%s\"", json_string_value(json_object_get(like, "epoch")));
	const char *found = NULL;

	for (const char *at = all; (at = strstr(at, begin)) && at < end; at++) {
		const char *newline = memrchr(all, '\n', (size_t)(at - all));

		if (has_prefix(newline ? newline + 1 : all, head)) /* of others nothing is known */
			found = at;
	}
	return found;
}

/* A member's end that a daemon tells when it begins was told by none before it, as far as the file
 * goes. */
static void check_end_is_new(void)
{
	const struct inode *i = disk_find(STATE_DIR "/events/current.ndjson");
	_cleanup_free_ char *all = xstrndup(i->data, i->len - 1);
	const char *newline = strrchr(all, '\n'), *line = newline ? newline + 1 : all;
	json_auto_t *event = json_loads(line, 0, NULL);
	const char *before;

	if (!streq_null(json_string_value(json_object_get(event, "type")), "node-exited"))
		return;
	before = last_of("node-exited", event, all, line);
	/* A cloud that was removed and added has the generations of the first one. */
	invariant("journal", !before || last_of("node-launched", event, all, line) > before,
		"the end is told a second time: %s", line);
}

static void on_event(void *arg)
{
	(void)arg;
	if (w.ghost || !w.fleet)
		return;
	memcpy(k.epoch, journal_epoch(fleet_journal(w.fleet)), sizeof(k.epoch));
	k.told = journal_last(fleet_journal(w.fleet));
	k.told_is_kept = is_kept(k.epoch, k.told);
	if (k.begins && k.told_is_kept && k.faults_gone == w.faults_hit)
		check_end_is_new();
}

static bool stands_whole(unsigned i, const char *name)
{
	const struct vproc *p = h2o_member(name, 0);
	size_t n = 0;

	if (!p || p->h2o.generation != k.before[i].generation)
		return false;
	while (n < MAX_MEMBERS && p->h2o.sees[n])
		n++;
	for (size_t j = 0; j < n; j++) {
		const struct vproc *o = h2o_member(name, (unsigned)j);

		if (!o || o->h2o.leaving)
			return false;
		k.before[i].pids[j] = o->pid;
	}
	return h2o_is_whole(name, k.before[i].generation, n);
}

/* It was forming, and all its members still are. */
static bool goes_on_forming(unsigned i)
{
	for (size_t n = 0; n < k.before[i].n; n++) {
		const struct vproc *p = vproc_find(k.before[i].pids[n]);

		if (!p || p->state != V_RUNNING || p->exec_at > w.now || p->kind != V_NODE ||
			p->h2o.generation != k.before[i].generation || p->h2o.leaving)
			return false;
	}
	return k.before[i].forming;
}

void check_before_life(void)
{
	for (unsigned i = 0; i < MAX_CLOUDS; i++)
		k.before[i].intact =
			!k.in_order &&
			(goes_on_forming(i) ||
				(k.before[i].served && stands_whole(i, w.plan[i].name)));
}

/* What people were told is there is there; what was being made when it died is whole or not. */
static void check_created(void)
{
	for (unsigned i = 0; i < MAX_CLOUDS; i++) {
		struct plan_cloud *p = &w.plan[i];
		const struct cloud_conf *conf = fleet_cloud_conf(w.fleet, p->name);
		_cleanup_free_ char *aside = xasprintf(STATE_DIR "/created/%s.conf.aside", p->name);
		bool there = conf && conf->created;

		if (disk_find(aside)) {
			disk_remove(aside);
			k.known[i] = false;
		}
		if (k.known[i] && p->created)
			invariant("created", there, "cloud %s was made, and is not there", p->name);
		if (k.known[i] && !p->created)
			invariant("created", !there, "cloud %s was deleted, and is there", p->name);
		if (!k.known[i]) {
			p->created = there;
			p->there |= there;
		}
		k.known[i] = true;
	}
}

/* No number twice; and of what was told, and is in the file, the next daemon knows. */
static void check_journal(void)
{
	const struct journal *j = fleet_journal(w.fleet);
	bool same = streq(journal_epoch(j), k.epoch);
	bool could = k.told_is_kept && k.faults_gone == w.faults_hit;

	invariant("journal", !k.told || (same ? journal_last(j) > k.told : !could),
		"event %s:%" PRIu64 " was told, and the next daemon goes on from %s:%" PRIu64,
		k.epoch, k.told, journal_epoch(j), journal_last(j));
}

void check_life(void)
{
	struct journal *j = fleet_journal(w.fleet);

	if (w.ghost)
		return;
	for (size_t i = 0; i < MAX_CLOUDS && in_trouble(); i++) {
		k.dirty[i] = true;
		k.launched[i] = false;
	}
	check_journal();
	check_created();
	k.losses = 0;
	k.settled = false;
	k.incidents = incidents_count(fleet_incidents(w.fleet));
	k.faults_then = w.faults_hit;
	journal_observe(j, on_event, NULL);
	on_event(NULL); /* followers find what is there already */
	k.begins = true;
}

/* What people were told will be so is so for the next daemon. */
static void check_wishes(void)
{
	for (unsigned i = 0; i < MAX_CLOUDS && !k.in_order; i++) {
		const struct supervised *s = supervised_find(w.fleet, w.plan[i].name);

		if (s && k.before[i].wish_known && s->memory != MEMORY_NONE && !in_trouble())
			invariant("wish",
				(s->cloud->wanted == WANTED_RUNNING) == k.before[i].wanted,
				"%s was %swanted, and the next daemon takes it otherwise",
				w.plan[i].name, k.before[i].wanted ? "" : "not ");
	}
}

void check_after_life(void)
{
	check_wishes();
	for (unsigned i = 0; i < MAX_CLOUDS; i++) {
		const struct cloud *c = fleet_find(w.fleet, w.plan[i].name);
		bool same = c && c->generation == k.before[i].generation;

		if (!k.before[i].intact || !c || in_trouble())
			continue;
		invariant("adopted",
			same && (cloud_usable(c) || c->state == CLOUD_FORMING ||
					some_end_is_untold(c)),
			"%s was whole, and the next daemon finds it %s", c->conf->name,
			cloud_state_name(c->state));
		for (size_t n = 0; n < c->n_nodes && same && !some_end_is_untold(c); n++)
			invariant("adopted", c->nodes[n].pid == k.before[i].pids[n],
				"%s/%zu was pid %d, and is %d for the next daemon", c->conf->name,
				n, (int)k.before[i].pids[n], (int)c->nodes[n].pid);
		w.adopted++;
	}
}

void check_making(const char *cloud, bool made)
{
	(void)made;
	k.known[plan_index(cloud)] = false;
}

void check_made(const char *cloud, int r, bool change)
{
	struct plan_cloud *p = &w.plan[plan_index(cloud)];

	if (w.ghost)
		return;
	k.known[plan_index(cloud)] = r != -EIO; /* what could not be synced may be there */
	if (r == 0 && !change) {
		p->there = p->created = true;
		w.created++;
	}
}

void check_deleted(const char *cloud, int r)
{
	struct plan_cloud *p = &w.plan[plan_index(cloud)];

	if (w.ghost)
		return;
	k.known[plan_index(cloud)] = r != -EIO;
	if (r == 0) {
		p->there = p->created = false;
		w.deleted++;
	}
}

void check_damaged(unsigned cloud)
{
	k.before[cloud].served = k.before[cloud].forming = k.before[cloud].wish_known = false;
}

void check_reboot(void)
{
	memset(k.before, 0, sizeof(k.before));
}

/* ---- the end ---- */

/* It is as people want it, or has been given up. */
bool check_settled(void)
{
	if (!w.fleet || !w.alive || w.fleet->strays)
		return false;
	for (const struct vproc *p = w.procs; p; p = p->next)
		if (p->kind == V_NODE && vproc_runs(p) && p->h2o.hung)
			return false; /* a loss that is to come */
	for (size_t i = 0; i < w.fleet->n; i++) {
		const struct supervised *s = w.fleet->clouds[i];
		const struct cloud *c = s->cloud;
		bool wanted = c->wanted == WANTED_RUNNING;

		if (c->removed)
			return false;
		if (c->state == CLOUD_FAILED)
			continue;
		if (wanted ? c->state != CLOUD_READY : c->state != CLOUD_STOPPED)
			return false;
	}
	return true;
}

/* And none is given up. */
bool check_all_well(void)
{
	if (!check_settled())
		return false;
	for (size_t i = 0; i < w.fleet->n; i++)
		if (w.fleet->clouds[i]->cloud->state == CLOUD_FAILED)
			return false;
	return true;
}

void check_nothing_left(void)
{
	const char *mark = fleet_mark();
	const struct inode *perf = disk_find(PERF_DIR);
	bool other = false;

	for (const struct vproc *p = w.procs; p; p = p->next) {
		invariant("left-behind", !vproc_runs(p) || !p->token || !has_prefix(p->token, mark),
			"all is ended, and pid %d (%s) runs", (int)p->pid, p->token);
		other |= p->kind == V_STRANGER && p->token && vproc_runs(p);
	}
	invariant("signals", other, "another fleet's process was ended");
	invariant(
		"left-behind", !ports_held(), "all is ended, and %u ports are held", ports_held());
	if (!in_trouble())
		invariant("left-behind",
			!perf->n_dents || w.steps[STEP_CRASH] || w.steps[STEP_DETACH],
			"all is ended, and %s/%s is left", PERF_DIR, perf->dents[0].name);
	invariant("left-behind", !disk_find(STATE_DIR "/session") && !disk_find(STATE_DIR "/gate"),
		"all is ended, and its session or its gate's socket is left");
}
