/* The whole life of clouds, simulated: random members that boot, hang, die, ignore signals, answer
 * late, wrongly or for a short-locked cloud, clients at the gate, operators who start and stop at
 *the worst time, and daemons that are killed between any two of their actions. Virtual time, one
 *seed a run; the invariants of HACKING.md are checked after each step.
 *
 *	test_sim                 the usual number of runs
 *	SIM_SEED=N test_sim      one run, with its log
 *	SIM_RUNS=N test_sim      more runs */
#include "sim.h"

static uint64_t total_events;
static unsigned total_readies, total_losses, total_failed, total_short_locks, total_hangs;
static unsigned total_unasked, total_reloads, total_resized, total_crashes, total_adoptions;
static unsigned total_passed, total_cut, total_knocks, total_idle_said, total_idle_off,
	total_idle_stops;

static void check(struct sim *s)
{
	struct cloud *c = s->c;
	size_t alive = 0;

	for (size_t i = 0; i < c->n_nodes; i++) {
		struct sim_proc *p = &s->procs[i];

		alive += p->alive;
		/* No member of an old generation beside a newer one. */
		if (p->alive)
			invariant(s, p->generation == c->generation);
		/* The model knows of every process. */
		invariant(s, p->alive == (c->nodes[i].pid != 0));
		if (p->alive)
			invariant(s, node_alive(&c->nodes[i]));
	}
	if (c->state == CLOUD_STOPPED || c->state == CLOUD_FAILED || c->state == CLOUD_BACKOFF)
		invariant(s, alive == 0);
	if (c->state == CLOUD_STOPPED || c->state == CLOUD_FAILED)
		invariant(s, !s->ports_held);
	if (cloud_usable(c)) {
		invariant(s, alive == c->n_nodes);
		invariant(s, !s->locked_short);
		invariant(s, c->ports_planned && s->ports_held);
	}
	if (c->state == CLOUD_READY)
		invariant(s, c->reason == NULL);
	if (c->state == CLOUD_FAILED || c->state == CLOUD_DEGRADED || c->state == CLOUD_BACKOFF)
		invariant(s, c->reason != NULL);
	/* Something is always under way, or the cloud is at rest. */
	if (c->state != CLOUD_STOPPED && c->state != CLOUD_FAILED)
		invariant(s, alive || s->prepare_due || s->clean_due ||
				     cloud_next_deadline(c) != UINT64_MAX);
	gate_check(s);
	use_check(s);
}

static void do_action(struct sim *s, const struct action *a);

/* As core/state.c does it: before a fork, and at the end of each step that has marked something. */
static void save(struct sim *s)
{
	json_t *j = cloud_memory(s->c, s->now);

	s->c->dirty = false;
	assert_non_null(j);
	free(s->saved);
	s->saved = json_dumps(j, JSON_COMPACT);
	s->saved_at = s->now;
	json_decref(j);
}

/* The daemon may be killed here. */
static void crash_point(struct sim *s)
{
	if (s->crash_in && --s->crash_in == 0)
		longjmp(s->crash, 1);
}

void feed(struct sim *s, struct cloud_event ev)
{
	crash_point(s);
	s->depth++;
	s->events++;
	use_note_event(s, &ev);
	cloud_step(s->c, &ev, s->now);
	gate_follow(s);
	for (size_t i = 0; i < s->c->n_transitions; i++) {
		const struct transition *t = &s->c->transitions[i];

		if (t->to == CLOUD_READY && t->from != CLOUD_DEGRADED) {
			s->readies++;
			/* Published only once every member has really joined. */
			for (size_t k = 0; k < s->c->n_nodes; k++)
				invariant(s, s->procs[k].alive &&
						     (s->c->n_nodes == 1 ||
							     s->now >= s->procs[k].joins_at));
		}
		use_note_transition(s, t);
		s->losses += t->to == CLOUD_RECOVERING;
		s->failed += t->to == CLOUD_FAILED;
		if (s->verbose)
			printf("%8" PRIu64 " %s -> %s: %s\n", s->now, cloud_state_name(t->from),
				cloud_state_name(t->to), t->reason ? t->reason : "");
	}
	cloud_drop_transitions(s->c);
	while (s->c->n_actions) {
		size_t n = s->c->n_actions;
		struct action list[64];

		assert_true(n <= ARRAY_SIZE(list));
		memcpy(list, s->c->actions, n * sizeof(*list));
		cloud_drop_actions(s->c);
		for (size_t i = 0; i < n; i++) {
			crash_point(s);
			do_action(s, &list[i]);
		}
	}
	if (--s->depth)
		return;
	crash_point(s);
	if (s->c->dirty)
		save(s);
	for (unsigned i = 0; i < MAX_NODES; i++) {
		crash_point(s);
		s->procs[i].unreleased = false;
	}
}

static void launch(struct sim *s, unsigned i)
{
	struct sim_proc *p = &s->procs[i];

	/* Two JVMs never hold the same slot. */
	invariant(s, !p->alive);
	if (chance(s, 10)) {
		feed(s, (struct cloud_event){.type = EVENT_LAUNCH_FAILED,
				.node = i,
				.text = "cannot fork",
				.flag = chance(s, 300)});
		return;
	}
	save(s);
	crash_point(s);
	*p = (struct sim_proc){.alive = true, .unreleased = true, .pid = ++s->next_pid};
	p->generation = s->c->generation;
	p->serves_at = s->now + 800 + below(s, 1500);
	p->joins_at = p->serves_at + 500 + below(s, 2500);
	p->ignores_term = chance(s, 50);
	if (chance(s, 20))
		p->joins_at += 500000; /* never forms */
	feed(s, (struct cloud_event){
			.type = EVENT_LAUNCHED, .node = i, .pid = p->pid, .start_ticks = 1});
}

/* What a reload may change at any moment. */
static void set_live_keys(struct sim *s, struct cloud_conf *conf)
{
	static const int policies[] = {RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_ON_FAILURE};

	conf->restart = policies[below(s, ARRAY_SIZE(policies))];
	conf->stop_method = chance(s, 200) ? STOP_REST : STOP_TERM;
	conf->restart_delay_ms = below(s, 3) * 500;
	conf->restart_delay_max_ms = 1000 + below(s, 60000);
	conf->start_limit = (struct limit_spec){(unsigned)(2 + below(s, 8)), 600000};
	conf->ready_timeout_ms = 10000 + below(s, 50000);
	conf->health_interval_ms = 100 + below(s, 2000);
	conf->late_after_ms = 500 + below(s, 5000);
	conf->hang_timeout_ms = 10000 + below(s, 50000);
	conf->stop_timeout_ms = 100 + below(s, 5000);
	conf->max_idle_duration_ms = chance(s, 500) ? 1000 + below(s, 30000) : 0;
	conf->gate_hold_ms = 100 + below(s, 20000);
	conf->start_on = conf->gate_mode == GATE_HOLD && chance(s, 500) ? START_ON_CONNECT
									: START_ON_COMMAND;
}

/* Only while no member is alive: the ports are others. */
static void set_gate(struct sim *s, struct cloud_conf *conf)
{
	static const int modes[] = {GATE_HOLD, GATE_HOLD, GATE_REFUSE, GATE_OFF};

	conf->gate_mode = modes[below(s, ARRAY_SIZE(modes))];
}

/* As core does: first this, then a tick. (A state file of another size is of no use to the next
 * daemon; there is none of it in this world.) `resize` only while no member is alive. */
static void reconfigure(struct sim *s, bool resize)
{
	struct cloud_conf *next = &s->confs[s->c->conf == &s->confs[0]];

	*next = *s->c->conf;
	if (resize)
		set_gate(s, next);
	set_live_keys(s, next);
	if (resize)
		next->nodes = (int64_t)(1 + below(s, MAX_NODES));
	s->reloads++;
	s->resized += next->nodes != (int64_t)s->c->n_nodes;
	cloud_configure(s->c, next, s->now);
	invariant(s, s->c->n_nodes == (size_t)next->nodes);
	gate_follow(s);
	s->use.prompt_from = s->now;
	save(s);
}

static void do_action(struct sim *s, const struct action *a)
{
	struct sim_proc *p = &s->procs[a->node];

	switch (a->type) {
	case ACTION_PREPARE:
		/* Every old member is dead before anything new begins. */
		for (size_t i = 0; i < s->c->n_nodes; i++)
			invariant(s, !s->procs[i].alive);
		if (chance(s, 50))
			reconfigure(s, true);
		s->prepare_due = true;
		s->prepare_at = s->now + below(s, 200);
		break;
	case ACTION_LAUNCH:
		launch(s, a->node);
		break;
	case ACTION_SIGNAL:
		if (!p->alive)
			break;
		if (a->signal == SIGTERM && (p->ignores_term || s->now < p->hangs_until))
			break;
		p->dies_at = s->now + 1 + below(s, a->signal == SIGTERM ? 500 : 20);
		p->dies_of = a->signal;
		break;
	case ACTION_POLL:
		invariant(s, p->alive && !p->polled);
		p->polled = true;
		p->poll_full = a->full;
		p->poll_at = s->now;
		p->poll_due = s->now + below(s, 5);
		p->poll_expires = s->now + a->timeout_ms;
		break;
	case ACTION_CLEAN:
		for (size_t i = 0; i < s->c->n_nodes; i++)
			invariant(s, !s->procs[i].alive);
		invariant(s, !s->clean_due);
		s->clean_due = true;
		s->clean_at = s->now + below(s, 50);
		break;
	case ACTION_RELEASE_PORTS:
		s->ports_held = false;
		break;
	case ACTION_INSPECT_RECOVERY:
		feed(s, (struct cloud_event){.type = EVENT_RECOVERY,
				.flag = chance(s, 300),
				.progress = chance(s, 500)});
		break;
	case ACTION_RESUME:
		feed(s, (struct cloud_event){.type = EVENT_RESUMED, .flag = chance(s, 900)});
		break;
	case ACTION_EVIDENCE:
		s->hangs++;
		/* A pause is not a death: nothing is killed before hang_timeout of silence, and
		 * where we could not ask nobody was silent. */
		p = &s->procs[a->node];
		invariant(s, !p->blind_from);
		invariant(s, s->now - p->good_at - p->blind_for >= s->c->conf->hang_timeout_ms);
		break;
	case ACTION_ASK_IDLE:
		use_ask(s);
		break;
	case ACTION_ANNOUNCE_IDLE:
		invariant(s, !s->use.said_at && cloud_usable(s->c));
		s->use.said_at = s->now;
		s->idle_said++;
		break;
	case ACTION_ANNOUNCE_ACTIVE:
		invariant(s, s->use.said_at);
		s->use.said_at = 0;
		s->idle_off++;
		break;
	case ACTION_REST_SHUTDOWN:
	case ACTION_HEED_RECOVERY:
	case ACTION_IGNORE_RECOVERY:
	case ACTION_SET_ASIDE_RECOVERY:
		break;
	}
}

static void die(struct sim *s, unsigned i, int code, int signal, const char *log)
{
	struct sim_proc *p = &s->procs[i];
	struct exit_evidence ev = {.known = true,
		.code = code,
		.signal = signal,
		.sent_signal = s->c->nodes[i].sent_signal,
		.kernel_oom_known = true,
		.log_tail = log,
		.exec_path = "java",
		.node = i};

	p->alive = false;
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = i, .exit = &ev, .wall_ms = 1});
}

/* What member i would answer now. */
static void view_of(struct sim *s, unsigned i, struct h2o_cloud_view *v)
{
	struct cloud *c = s->c;
	size_t n = 0;

	*v = (struct h2o_cloud_view){
		.consensus = true, .cloud_healthy = true, .locked = s->locked_short};
	snprintf(v->cloud_name, sizeof(v->cloud_name), "%s", c->h2o_name);
	v->members = s->members = xcalloc(MAX_NODES, sizeof(*v->members));
	for (unsigned k = 0; k < c->n_nodes; k++) {
		struct h2o_member *m = &v->members[n];

		if (k != i && (!s->procs[k].pid || s->now < s->procs[k].joins_at ||
				      s->now < s->procs[i].joins_at || s->locked_short))
			continue;
		snprintf(m->ip_port, sizeof(m->ip_port), MEMBER_ADDR ":%u", c->nodes[k].api_port);
		m->pid = s->procs[k].pid;
		m->healthy = true;
		if (k == i)
			v->node_idx = (int64_t)n;
		n++;
	}
	v->n_members = n;
	v->cloud_size = (int64_t)n;
	v->consensus = n == c->n_nodes || chance(s, 500);
}

static void answer(struct sim *s, unsigned i)
{
	struct sim_proc *p = &s->procs[i];
	struct h2o_cloud_view v = {0};
	struct answer a = {.kind = ANSWER_OK, .full = p->poll_full, .good = true};

	p->polled = false;
	a.h2o_boot_ms = (uint64_t)p->pid;
	if (p->poll_at < s->cannot_ask_until) {
		a.kind = ANSWER_UNASKED;
		p->blind_from = p->blind_from ? p->blind_from : p->poll_at;
		s->unasked++;
	} else if (p->blind_from) {
		p->blind_for += p->poll_at - p->blind_from;
		p->blind_from = 0;
	}
	if (a.kind == ANSWER_UNASKED) {
		/* no view either */
	} else if (s->now < p->serves_at || s->now < p->hangs_until) {
		a.kind = s->now < p->serves_at ? ANSWER_REFUSED : ANSWER_TIMEOUT;
	} else if (p->poll_full) {
		view_of(s, i, &v);
		if (chance(s, 1) && chance(s, 100))
			v.members[v.node_idx].pid = 1; /* a lie: another process answers */
		a.view = &v;
	}
	if (a.kind == ANSWER_OK) {
		p->good_at = s->now;
		p->blind_for = 0;
	}
	feed(s, (struct cloud_event){.type = EVENT_ANSWER, .node = i, .answer = &a});
	h2o_cloud_view_free(&v);
	s->members = NULL;
}

/* ---- the daemon is killed, and another takes over ---- */

/* What goes on without it: whoever waited for it exits, others may die, nobody is told. */
static void world_without_daemon(struct sim *s)
{
	s->crashes++;
	s->depth = 0;
	s->prepare_due = s->clean_due = false;
	free(TAKE_PTR(s->members));
	s->now += below(s, 3000);
	for (unsigned i = 0; i < MAX_NODES; i++) {
		struct sim_proc *p = &s->procs[i];

		p->polled = false;
		if (p->unreleased || (p->dies_at && p->dies_at <= s->now) || chance(s, 30))
			p->alive = false;
		p->unreleased = false;
	}
}

static void gone(struct sim *s, unsigned i)
{
	struct exit_evidence ev = {
		.sent_signal = s->c->nodes[i].sent_signal, .log_tail = "", .exec_path = "java"};

	ev.node = i;
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = i, .exit = &ev, .wall_ms = 1});
}

/* As core/adopt.c does it. */
static void take_over(struct sim *s)
{
	bool served[MAX_NODES] = {false}, half = false, whole = true;
	struct err e = ERR_NULL;
	const struct cloud_conf *conf;
	enum cloud_state was;
	uint64_t generation;
	json_t *j;

	conf = s->c->conf;
	cloud_free(s->c);
	s->c = cloud_new(conf, s->seed + s->now);
	j = json_loads(s->saved, 0, NULL);
	assert_int_equal(cloud_remember(s->c, j, s->now, s->now - s->saved_at, &was, &e), 0);
	json_decref(j);
	generation = s->c->generation;
	for (unsigned i = 0; i < s->c->n_nodes; i++) {
		const struct node *n = &s->c->nodes[i];
		struct sim_proc *p = &s->procs[i];

		served[i] = p->alive && n->pid == p->pid;
		whole &= served[i];
		half |= n->pid && !served[i];
		/* Nothing runs that the state file does not know. */
		invariant(s, !p->alive || served[i]);
	}
	s->ports_held = s->c->ports_planned;
	s->gate.adopting = true;
	use_taken_over(s);
	feed(s, (struct cloud_event){.type = EVENT_RESUME,
			.was = was,
			.flag = half && (was == CLOUD_STARTING || was == CLOUD_FORMING)});
	for (unsigned i = 0; i < s->c->n_nodes; i++)
		if (s->c->nodes[i].pid && !served[i])
			gone(s, i);
	gate_taken_over(s);
	/* An intact cloud goes on serving, at once, as the same generation. */
	if ((was == CLOUD_READY || was == CLOUD_DEGRADED) && whole) {
		s->adoptions++;
		invariant(s, s->c->state == CLOUD_READY && s->c->generation == generation);
	}
	check(s);
}

static bool forming(const struct sim *s)
{
	return s->c->state == CLOUD_FORMING || s->c->state == CLOUD_STARTING;
}

/* Something bad, or somebody, now and then. */
static void mischief(struct sim *s)
{
	unsigned i = (unsigned)below(s, s->c->n_nodes);
	struct sim_proc *p = &s->procs[i];

	switch (below(s, 20)) {
	case 0:
	case 1:
		if (p->alive)
			die(s, i, 0, SIGKILL, "");
		break;
	case 2:
		if (p->alive)
			p->hangs_until = s->now + below(s, 2 * s->c->conf->hang_timeout_ms);
		break;
	case 3:
		if (p->alive && p->serves_at < s->now)
			die(s, i, (int)below(s, 2) * 255, 0,
				chance(s, 500) ? "required ports" : "");
		break;
	case 4:
		if (forming(s) && s->procs[0].alive && s->now > s->procs[0].serves_at &&
			s->c->n_nodes > 1 && s->now < s->procs[0].joins_at) {
			s->locked_short = true;
			s->short_locks++;
		}
		break;
	case 5:
		if (cloud_usable(s->c)) /* /3/Shutdown by a client */
			for (unsigned k = 0; k < s->c->n_nodes; k++)
				if (s->procs[k].alive && chance(s, 950))
					die(s, k, 0, 0, "");
		break;
	case 6:
		feed(s, (struct cloud_event){.type = EVENT_STOP, .flag = chance(s, 300)});
		break;
	case 15: /* nobody has knocked */
	case 16:
		gate_false_knock(s);
		break;
	case 17:
		feed(s, (struct cloud_event){.type = EVENT_TOUCH});
		break;
	case 18:
		gate_dies(s);
		break;
	case 7:
		feed(s, (struct cloud_event){.type = EVENT_RESTART, .flag = chance(s, 500)});
		break;
	case 13:
	case 14:
		s->crash_in = 1 + (unsigned)below(s, 30);
		break;
	case 8:
		if (p->alive && chance(s, 100))
			die(s, i, 1, 0, "ERROR: Unknown argument (x)");
		break;
	case 9:
		s->cannot_ask_until = s->now + below(s, 2 * s->c->conf->hang_timeout_ms);
		break;
	case 10:
		reconfigure(s, s->c->state == CLOUD_STOPPED || s->c->state == CLOUD_FAILED ||
				       s->c->state == CLOUD_BACKOFF);
		feed(s, (struct cloud_event){.type = EVENT_TICK});
		break;
	default:
		feed(s, (struct cloud_event){.type = EVENT_START, .flag = chance(s, 100)});
		break;
	}
}

static void prepared(struct sim *s)
{
	uint16_t ports[MAX_NODES];

	s->prepare_due = false;
	if (chance(s, 20)) {
		feed(s, (struct cloud_event){.type = EVENT_PREPARE_FAILED,
				.flag = chance(s, 200),
				.text = "no port"});
		return;
	}
	s->ports_held = true;
	s->locked_short = false;
	for (uint16_t i = 0; i < MAX_NODES; i++)
		ports[i] = (uint16_t)(54321 + 2 * i);
	feed(s, (struct cloud_event){.type = EVENT_PREPARED, .ports = ports});
}

static void world(struct sim *s)
{
	if (s->prepare_due && s->now >= s->prepare_at)
		prepared(s);
	if (s->clean_due && s->now >= s->clean_at) {
		s->clean_due = false;
		feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	}
	for (unsigned i = 0; i < s->c->n_nodes; i++) {
		struct sim_proc *p = &s->procs[i];

		if (p->alive && p->dies_at && s->now >= p->dies_at)
			die(s, i, p->dies_of == SIGTERM ? 143 : 0,
				p->dies_of == SIGTERM ? 0 : p->dies_of, "");
		if (!p->alive)
			p->polled = false;
		if (p->alive && p->polled &&
			(s->now < p->hangs_until && p->poll_at >= s->cannot_ask_until
					? s->now >= p->poll_expires
					: s->now >= p->poll_due))
			answer(s, i);
	}
	if (cloud_next_deadline(s->c) <= s->now)
		feed(s, (struct cloud_event){.type = EVENT_TICK});
	use_tick(s);
	gate_tick(s);
}

static void configure(struct sim *s)
{
	s->confs[0] = (struct cloud_conf){
		.name = (char *)"sim",
		.h2o_name = (char *)"sim",
		.nodes = (int64_t)(1 + below(s, MAX_NODES)),
		.restart = (int)(chance(s, 200) ? RESTART_ALWAYS : RESTART_ON_FAILURE),
		.restart_delay_ms = below(s, 3) * 500,
		.restart_delay_max_ms = 60000,
		.start_limit = {(unsigned)(2 + below(s, 8)), 600000},
		.ready_timeout_ms = 30000,
		.health_interval_ms = 1000,
		.late_after_ms = 3000,
		.hang_timeout_ms = 10000 + below(s, 50000),
		.stop_timeout_ms = 2000,
		.gate_hold_ms = 15000,
		.max_idle_duration_ms = chance(s, 500) ? 1000 + below(s, 30000) : 0,
	};
	set_gate(s, &s->confs[0]);
	if (s->confs[0].gate_mode == GATE_HOLD && chance(s, 500))
		s->confs[0].start_on = START_ON_CONNECT;
}

static void turn(struct sim *s)
{
	s->now += below(s, chance(s, 100) ? 2000 : 100);
	world(s);
	check(s);
	if (chance(s, 8)) {
		mischief(s);
		check(s);
	}
}

static void run(uint64_t seed, bool verbose)
{
	struct sim *s =
		xcalloc(1, sizeof(*s)); /* in memory, whatever longjmp() does to registers */

	*s = (struct sim){.rng = seed, .seed = seed, .now = 1, .next_pid = 1000};
	s->verbose = verbose;
	configure(s);
	s->c = cloud_new(&s->confs[0], seed);
	feed(s, (struct cloud_event){.type = EVENT_START});
	for (unsigned i = 0; i < 3000; i++) {
		if (setjmp(s->crash) == 0) {
			turn(s);
		} else {
			world_without_daemon(s);
			take_over(s);
		}
	}
	s->crash_in = 0;
	/* Left in peace, what is wanted comes about. */
	feed(s, (struct cloud_event){.type = chance(s, 500) ? EVENT_STOP : EVENT_RESTART});
	for (unsigned i = 0; i < 400000; i++) {
		bool there = s->c->wanted == WANTED_STOPPED ? s->c->state == CLOUD_STOPPED
							    : s->c->state == CLOUD_READY;
		if (there || s->c->state == CLOUD_FAILED)
			break;
		s->now += 20;
		s->cannot_ask_until = 0;
		for (unsigned k = 0; k < MAX_NODES; k++)
			s->procs[k].hangs_until = 0;
		world(s);
		check(s);
		invariant(s, i < 399999);
	}
	total_events += s->events;
	total_readies += s->readies;
	total_losses += s->losses;
	total_failed += s->failed;
	total_short_locks += s->short_locks;
	total_hangs += s->hangs;
	total_unasked += s->unasked;
	total_reloads += s->reloads;
	total_resized += s->resized;
	total_crashes += s->crashes;
	total_adoptions += s->adoptions;
	total_passed += s->passed;
	total_cut += s->cut;
	total_knocks += s->knocks;
	total_idle_said += s->idle_said;
	total_idle_off += s->idle_off;
	total_idle_stops += s->idle_stops;
	cloud_free(s->c);
	free(s->saved);
	free(s);
}

/* Proves: no sequence of faults and commands violates an invariant, and the cloud gets where it is
 * wanted once it is left in peace. */
static void test_invariants_hold(void **state)
{
	const char *one = getenv("SIM_SEED"), *runs = getenv("SIM_RUNS");
	uint64_t n = runs ? strtoull(runs, NULL, 10) : 2000;

	(void)state;
	if (one) {
		run(strtoull(one, NULL, 10), true);
		return;
	}
	for (uint64_t seed = 1; seed <= n; seed++)
		run(seed, false);
	printf("%" PRIu64 " events; %u times ready, %u lost, %u failed, %u short locks, %u hangs, "
	       "%u reloads, %u crashes of the daemon, %u intact clouds taken over; %u clients "
	       "passed "
	       "the gate, %u were cut off, %u started a cloud; %u idle stops announced, %u called "
	       "off, %u done\n",
		total_events, total_readies, total_losses, total_failed, total_short_locks,
		total_hangs, total_reloads, total_crashes, total_adoptions, total_passed, total_cut,
		total_knocks, total_idle_said, total_idle_off, total_idle_stops);
	assert_true(total_readies > n && total_losses > n && total_failed && total_short_locks &&
		    total_hangs && total_unasked && total_reloads > n && total_resized &&
		    total_crashes > n && total_adoptions > n / 2);
	assert_true(total_passed > n && total_cut > n / 2 && total_knocks > n / 10 &&
		    total_idle_said > n / 2 && total_idle_off > n / 20 && total_idle_stops > n / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_invariants_hold)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
