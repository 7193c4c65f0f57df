/* A fleet of up to 10,000 nodes against a simulated world, through a life: all clouds are started,
 * become ready, are polled, lose some nodes, recover, are polled after the daemon was stopped for a
 * while, and are stopped. Virtual time, no processes, the same in each run.
 *
 * What is asserted are counts, not times: of events, actions and allocations. They show that work
 * for an event does not grow with the fleet, and that polls do not come all at once. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "model/cloud.h"
#include "model/plan.h"

#define INTERVAL_MS 1000
#define SLOT_MS     20
#define START_MS    15000
#define N_SLOTS     (INTERVAL_MS / SLOT_MS)

/* ---- allocations of the model: the linker gives us its calls (Makefile.am) ---- */

static uint64_t allocations;

void *__real_xmalloc(size_t size);
void *__real_xcalloc(size_t n, size_t size);
void *__real_xreallocarray(void *p, size_t n, size_t size);
char *__real_xstrdup(const char *s);
char *__real_xvasprintf(const char *fmt, va_list ap) _printf_(1, 0);
void *__wrap_xmalloc(size_t size);
void *__wrap_xcalloc(size_t n, size_t size);
void *__wrap_xreallocarray(void *p, size_t n, size_t size);
char *__wrap_xstrdup(const char *s);
char *__wrap_xvasprintf(const char *fmt, va_list ap) _printf_(1, 0);
char *__wrap_xasprintf(const char *fmt, ...) _printf_(1, 2);

void *__wrap_xmalloc(size_t size)
{
	allocations++;
	return __real_xmalloc(size);
}

void *__wrap_xcalloc(size_t n, size_t size)
{
	allocations++;
	return __real_xcalloc(n, size);
}

void *__wrap_xreallocarray(void *p, size_t n, size_t size)
{
	allocations++;
	return __real_xreallocarray(p, n, size);
}

char *__wrap_xstrdup(const char *s)
{
	allocations++;
	return __real_xstrdup(s);
}

char *__wrap_xvasprintf(const char *fmt, va_list ap)
{
	allocations++;
	return __real_xvasprintf(fmt, ap);
}

char *__wrap_xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	s = __wrap_xvasprintf(fmt, ap);
	va_end(ap);
	return s;
}

/* ---- the world ---- */

enum happening { TICK, PREPARED, CLEANED, ANSWER, DEATH };

struct due {
	uint64_t at, order;
	enum happening what;
	unsigned cloud, node;
	pid_t pid;
	int arg; /* of an ANSWER: full; of a DEATH: the signal */
};

struct cloud_world {
	struct cloud *c;
	struct h2o_member *members; /* owned: what each says once all serve */
	uint64_t whole_at;          /* and from when on it does */
	uint64_t armed_ms;          /* the TICK that counts */
	size_t in_crowd;
};

struct counts {
	uint64_t events, actions, allocations, polls;
};

struct world {
	struct cloud_conf conf;
	struct cloud_world *clouds;
	size_t n, size;
	struct due *heap;
	size_t n_due, room;
	uint64_t now, order, rng;
	pid_t next_pid;
	size_t crowd; /* as core counts it */
	struct counts counts;
	uint64_t slots[N_SLOTS]; /* polls by their moment in the interval */
};

static bool before(const struct due *a, const struct due *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct world *w, struct due d)
{
	size_t i = w->n_due++;

	if (w->n_due > w->room) {
		w->room = MAX(2 * w->room, (size_t)1024);
		w->heap = __real_xreallocarray(w->heap, w->room, sizeof(*w->heap));
	}
	d.order = w->order++;
	for (; i && before(&d, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = d;
}

static struct due pop(struct world *w)
{
	struct due first = w->heap[0], last = w->heap[--w->n_due];
	size_t i = 0, k;

	while ((k = 2 * i + 1) < w->n_due) {
		k += k + 1 < w->n_due && before(&w->heap[k + 1], &w->heap[k]);
		if (!before(&w->heap[k], &last))
			break;
		w->heap[i] = w->heap[k];
		i = k;
	}
	w->heap[i] = last;
	return first;
}

static void feed(struct world *w, unsigned k, struct cloud_event ev);

static void launch(struct world *w, unsigned k, unsigned node)
{
	struct cloud_world *cw = &w->clouds[k];
	struct h2o_member *m = &cw->members[node];
	pid_t pid = ++w->next_pid;

	/* Two JVMs never hold the same slot. */
	assert_int_equal(cw->c->nodes[node].pid, 0);
	*m = (struct h2o_member){.pid = pid, .healthy = true};
	snprintf(m->ip_port, sizeof(m->ip_port), MEMBER_ADDR ":%u", cw->c->nodes[node].api_port);
	cw->whole_at = w->now + 900 + rng_next(&w->rng) % 400;
	feed(w, k,
		(struct cloud_event){
			.type = EVENT_LAUNCHED, .node = node, .pid = pid, .start_ticks = 1});
}

static void carry_out(struct world *w, unsigned k, const struct action *a)
{
	const struct cloud *c = w->clouds[k].c;
	struct due d = {.cloud = k, .node = a->node, .pid = c->nodes[a->node].pid};

	switch (a->type) {
	case ACTION_PREPARE:
		assert_int_equal(cloud_nodes_alive(c), 0);
		d.at = w->now + 5;
		d.what = PREPARED;
		break;
	case ACTION_CLEAN:
		assert_int_equal(cloud_nodes_alive(c), 0);
		d.at = w->now + 5;
		d.what = CLEANED;
		break;
	case ACTION_SIGNAL:
		d.at = w->now + 50;
		d.what = DEATH;
		d.arg = a->signal;
		break;
	case ACTION_POLL:
		w->counts.polls++;
		w->slots[w->now % INTERVAL_MS / SLOT_MS]++;
		d.at = w->now + 2;
		d.what = ANSWER;
		d.arg = a->full;
		break;
	case ACTION_LAUNCH:
		launch(w, k, a->node);
		return;
	default: /* ports, recoveries and use are others' tests */
		return;
	}
	push(w, d);
}

static void feed(struct world *w, unsigned k, struct cloud_event ev)
{
	struct cloud_world *cw = &w->clouds[k];
	struct cloud *c = cw->c;
	uint64_t was = allocations, next;

	c->crowd = w->crowd;
	cloud_step(c, &ev, w->now);
	w->crowd -= cw->in_crowd;
	cw->in_crowd = c->state == CLOUD_STARTING || c->state == CLOUD_FORMING ? w->size : 0;
	w->crowd += cw->in_crowd;
	w->counts.allocations += allocations - was;
	w->counts.events++;
	w->counts.actions += c->n_actions;
	cloud_drop_transitions(c);
	c->dirty = false;
	while (c->n_actions) {
		size_t n = c->n_actions;
		struct action *list = __real_xcalloc(n, sizeof(*list));

		memcpy(list, c->actions, n * sizeof(*list));
		cloud_drop_actions(c);
		for (size_t i = 0; i < n; i++)
			carry_out(w, k, &list[i]);
		free(list);
	}
	next = cloud_next_deadline(c);
	if (next == UINT64_MAX || next == cw->armed_ms)
		return;
	cw->armed_ms = next;
	push(w, (struct due){.at = MAX(next, w->now + 1), .what = TICK, .cloud = k});
}

static void answer(struct world *w, const struct due *d)
{
	struct cloud_world *cw = &w->clouds[d->cloud];
	struct h2o_cloud_view v = {.node_idx = d->node,
		.cloud_size = (int64_t)w->size,
		.consensus = true,
		.cloud_healthy = true,
		.members = cw->members,
		.n_members = w->size};
	bool serves = w->now >= cw->whole_at;
	struct answer a = {.kind = serves ? ANSWER_OK : ANSWER_REFUSED,
		.full = d->arg,
		.good = true,
		.h2o_boot_ms = (uint64_t)d->pid,
		.view = d->arg && serves ? &v : NULL};

	snprintf(v.cloud_name, sizeof(v.cloud_name), "%s", cw->c->h2o_name);
	feed(w, d->cloud,
		(struct cloud_event){.type = EVENT_ANSWER, .node = d->node, .answer = &a});
}

static void death(struct world *w, const struct due *d)
{
	struct exit_evidence ev = {.known = true,
		.signal = d->arg,
		.sent_signal = w->clouds[d->cloud].c->nodes[d->node].sent_signal,
		.kernel_oom_known = true,
		.log_tail = "",
		.exec_path = "java",
		.node = d->node};

	feed(w, d->cloud, (struct cloud_event){.type = EVENT_EXITED, .node = d->node, .exit = &ev});
}

static void prepared(struct world *w, unsigned k)
{
	uint16_t *ports = __real_xcalloc(w->size, sizeof(*ports));

	for (size_t i = 0; i < w->size; i++)
		ports[i] = (uint16_t)(10000 + 2 * i);
	feed(w, k, (struct cloud_event){.type = EVENT_PREPARED, .ports = ports});
	free(ports);
}

static void happen(struct world *w, const struct due *d)
{
	struct cloud_world *cw = &w->clouds[d->cloud];

	switch (d->what) {
	case TICK:
		if (cw->armed_ms > w->now || cloud_next_deadline(cw->c) > w->now)
			break;
		cw->armed_ms = 0;
		feed(w, d->cloud, (struct cloud_event){.type = EVENT_TICK});
		break;
	case PREPARED:
		prepared(w, d->cloud);
		break;
	case CLEANED:
		feed(w, d->cloud, (struct cloud_event){.type = EVENT_CLEANED});
		break;
	case ANSWER:
		if (cw->c->nodes[d->node].pid == d->pid) /* else its poll was cancelled */
			answer(w, d);
		break;
	case DEATH:
		if (cw->c->nodes[d->node].pid == d->pid)
			death(w, d);
		break;
	}
}

static void run_for(struct world *w, uint64_t ms)
{
	uint64_t end = w->now + ms;

	while (w->n_due && w->heap[0].at <= end) {
		struct due d = pop(w);

		w->now = MAX(w->now, d.at);
		happen(w, &d);
	}
	w->now = end;
}

static size_t in_state(const struct world *w, enum cloud_state state, uint64_t generation)
{
	size_t n = 0;

	for (size_t k = 0; k < w->n; k++)
		n += w->clouds[k].c->state == state && w->clouds[k].c->generation == generation;
	return n;
}

static void tell_all(struct world *w, enum event_type type)
{
	for (unsigned k = 0; k < w->n; k++)
		feed(w, k, (struct cloud_event){.type = type});
}

/* ---- a life ---- */

/* By node and second; by cloud that was lost. */
struct costs {
	double start_polls; /* by node, until START_MS */
	double polls, events, actions, allocations;
	double loss_events, loss_actions, loss_allocations;
};

static struct world *world_new(size_t nodes, size_t size)
{
	struct world *w = __real_xcalloc(1, sizeof(*w));

	*w = (struct world){.n = nodes / size, .size = size, .now = 1, .next_pid = 1, .rng = 7};
	w->conf = (struct cloud_conf){
		.name = (char *)"scale",
		.h2o_name = (char *)"scale",
		.nodes = (int64_t)size,
		.restart = RESTART_ON_FAILURE,
		.restart_delay_max_ms = 60000,
		.start_limit = {5, 600000},
		.ready_timeout_ms = 30000,
		.health_interval_ms = INTERVAL_MS,
		.late_after_ms = 3000,
		.hang_timeout_ms = 60000,
		.stop_timeout_ms = 2000,
	};
	w->clouds = __real_xcalloc(w->n, sizeof(*w->clouds));
	for (size_t k = 0; k < w->n; k++) {
		w->clouds[k].c = cloud_new(&w->conf, rng_next(&w->rng));
		w->clouds[k].members = __real_xcalloc(size, sizeof(struct h2o_member));
	}
	return w;
}

static void world_free(struct world *w)
{
	for (size_t k = 0; k < w->n; k++) {
		cloud_free(w->clouds[k].c);
		free(w->clouds[k].members);
	}
	free(w->clouds);
	free(w->heap);
	free(w);
}

/* Nodes by themselves have nobody to be spread over; of many, no moment has twice its share. */
static void check_spread(struct world *w)
{
	uint64_t most = 0, all = 0;

	memset(w->slots, 0, sizeof(w->slots));
	run_for(w, 4 * INTERVAL_MS);
	for (size_t i = 0; i < N_SLOTS; i++) {
		most = MAX(most, w->slots[i]);
		all += w->slots[i];
	}
	if (w->n * w->size >= 1900)
		assert_true(most < 2 * all / N_SLOTS);
}

/* Of every tenth cloud a node is killed, all within the same ms. */
static size_t kill_some(struct world *w)
{
	size_t hit = 0;

	for (unsigned k = 0; k < w->n; k += 10, hit++) {
		unsigned node = (unsigned)(rng_next(&w->rng) % w->size);

		death(w, &(struct due){.cloud = k, .node = node, .arg = SIGKILL});
		assert_false(cloud_usable(w->clouds[k].c));
	}
	return hit;
}

static struct counts count_for(struct world *w, uint64_t ms)
{
	w->counts = (struct counts){0};
	run_for(w, ms);
	return w->counts;
}

static struct costs live(size_t nodes, size_t size)
{
	const double seconds = 10; /* in which each cloud is asked in full once */
	struct world *w = world_new(nodes, size);
	struct counts start, idle, loss;
	struct costs costs;
	size_t hit;

	tell_all(w, EVENT_START);
	start = count_for(w, START_MS);
	assert_int_equal(in_state(w, CLOUD_READY, 1), w->n);
	idle = count_for(w, (uint64_t)seconds * 1000);
	check_spread(w);

	w->counts = (struct counts){0};
	hit = kill_some(w);
	run_for(w, START_MS);
	loss = w->counts;
	assert_int_equal(in_state(w, CLOUD_READY, 2), hit);
	assert_int_equal(in_state(w, CLOUD_READY, 1), w->n - hit);

	w->now += 2500; /* the daemon had no processor: all polls are due at once */
	run_for(w, 2 * INTERVAL_MS);
	check_spread(w);

	tell_all(w, EVENT_STOP);
	run_for(w, 5000);
	assert_int_equal(in_state(w, CLOUD_STOPPED, 1) + in_state(w, CLOUD_STOPPED, 2), w->n);
	for (size_t k = 0; k < w->n; k++)
		assert_true(cloud_quiet(w->clouds[k].c));
	nodes = w->n * w->size;
	costs = (struct costs){
		.start_polls = (double)start.polls / (double)nodes,
		.polls = (double)idle.polls / (double)nodes / seconds,
		.events = (double)idle.events / (double)nodes / seconds,
		.actions = (double)idle.actions / (double)nodes / seconds,
		.allocations = (double)idle.allocations / (double)nodes / seconds,
		.loss_events = (double)loss.events / (double)nodes,
		.loss_actions = (double)loss.actions / (double)nodes,
		.loss_allocations = (double)loss.allocations / (double)nodes,
	};
	world_free(w);
	return costs;
}

static void assert_alike(double a, double b, double tolerance)
{
	assert_true(a > 0 && b <= a * (1 + tolerance) && b >= a * (1 - tolerance));
}

/* Proves: a node costs the model the same in a fleet of 10,000 (SIM_RUNS up to 1000: 2,000) as in
 * one of 100, and in a large cloud not more than alone; each is polled once in an interval, at a
 * moment of its own, also after all polls came together; who is killed takes down its own cloud and
 * no other. */
static void test_a_node_costs_the_same_in_any_fleet(void **state)
{
	static const size_t sizes[] = {1, 3, 10, 100};
	const char *runs = getenv("SIM_RUNS"); /* fewer where all takes longer */
	size_t most = runs && strtoull(runs, NULL, 10) <= 1000 ? 2000 : 10000;
	double alone = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct costs few = live(MAX(100u, 10 * sizes[i]), sizes[i]);
		struct costs many = live(most, sizes[i]);

		printf("clouds of %zu: by node and second %.2f polls, %.2f events, %.2f actions, "
		       "%.2f allocations\n",
			sizes[i], many.polls, many.events, many.actions, many.allocations);
		assert_true(many.start_polls < few.start_polls);
		assert_alike(1, many.polls, 0.02);
		assert_alike(few.polls, many.polls, 0.05);
		assert_alike(few.events, many.events, 0.05);
		assert_alike(few.actions, many.actions, 0.05);
		assert_alike(few.allocations, many.allocations, 0.05);
		assert_alike(few.loss_events, many.loss_events, 0.15);
		assert_alike(few.loss_actions, many.loss_actions, 0.15);
		assert_alike(few.loss_allocations, many.loss_allocations, 0.15);
		if (i == 0)
			alone = many.events + many.actions + many.allocations;
		assert_true(many.events + many.actions + many.allocations <= 1.1 * alone);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_node_costs_the_same_in_any_fleet)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
