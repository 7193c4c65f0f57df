/* A cloud of the model and a clock, for tests that state scene by scene what comes of which event.
 */
#pragma once

#include "cmocka_all.h"

#include <signal.h>
#include <stdio.h>

#include "model/cloud.h"
#include "model/plan.h"

#define N 3

struct scene {
	struct cloud_conf conf;
	struct cloud *c;
	uint64_t now;
};

static inline int set_up(void **state)
{
	struct scene *s = xcalloc(1, sizeof(*s));

	s->conf = (struct cloud_conf){.name = (char *)"dev",
		.h2o_name = (char *)"dev",
		.nodes = N,
		.restart = RESTART_ON_FAILURE,
		.restart_delay_max_ms = 60000,
		.start_limit = {5, 600000},
		.ready_timeout_ms = 120000,
		.health_interval_ms = 1000,
		.late_after_ms = 3000,
		.hang_timeout_ms = 60000,
		.stop_timeout_ms = 10000};
	s->c = cloud_new(&s->conf, 1);
	s->now = 1000;
	*state = s;
	return 0;
}

static inline int tear_down(void **state)
{
	struct scene *s = *state;

	cloud_free(s->c);
	free(s);
	return 0;
}

static inline void feed(struct scene *s, struct cloud_event ev)
{
	cloud_drop_actions(s->c);
	cloud_step(s->c, &ev, s->now);
}

static inline unsigned count(const struct scene *s, enum action_type type, int sig)
{
	unsigned n = 0;

	for (size_t i = 0; i < s->c->n_actions; i++)
		n += s->c->actions[i].type == type && (!sig || s->c->actions[i].signal == sig);
	return n;
}

/* Runs the clock to the next deadline. */
static inline void tick(struct scene *s)
{
	s->now = MAX(s->now, cloud_next_deadline(s->c));
	feed(s, (struct cloud_event){.type = EVENT_TICK});
}

/* Runs it until something of that kind is asked for. */
static inline void tick_until(struct scene *s, enum action_type type, int sig)
{
	for (int i = 0; i < 100000; i++) {
		assert_true(cloud_next_deadline(s->c) != UINT64_MAX);
		tick(s);
		if (count(s, type, sig))
			return;
		for (unsigned k = 0; k < N; k++)
			s->c->nodes[k].polling = false; /* unanswered */
	}
	fail();
}

static inline void prepared(struct scene *s)
{
	static const uint16_t ports[N] = {54321, 54323, 54325};

	assert_int_equal(count(s, ACTION_PREPARE, 0), 1);
	feed(s, (struct cloud_event){.type = EVENT_PREPARED, .ports = ports});
}

static inline void launched(struct scene *s, unsigned node)
{
	feed(s, (struct cloud_event){
			.type = EVENT_LAUNCHED, .node = node, .pid = 100 + (pid_t)node});
}

static inline void ended(struct scene *s, unsigned node, int code, int sig)
{
	struct exit_evidence ev = {.known = true,
		.code = code,
		.signal = sig,
		.sent_signal = s->c->nodes[node].sent_signal,
		.kernel_oom_known = true,
		.log_tail = "",
		.node = node};

	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = node, .exit = &ev});
}

static inline void all_end(struct scene *s)
{
	for (unsigned i = 0; i < N; i++)
		if (node_alive(&s->c->nodes[i]))
			ended(s, i, 143, 0);
}

/* An answer of member `node` that names the first `size` members. */
static inline void answers(
	struct scene *s, unsigned node, unsigned size, bool consensus, bool locked)
{
	struct h2o_member m[N] = {0};
	struct h2o_cloud_view v = {.node_idx = node < size ? node : 0,
		.cloud_size = size,
		.consensus = consensus,
		.locked = locked,
		.cloud_healthy = true,
		.members = m,
		.n_members = size};
	struct answer a = {.kind = ANSWER_OK, .full = true, .good = true, .view = &v};

	a.h2o_boot_ms = 7 + node;
	snprintf(v.cloud_name, sizeof(v.cloud_name), "%s", s->c->h2o_name);
	for (unsigned i = 0; i < size; i++) {
		unsigned who = size == 1 ? node : i;

		snprintf(m[i].ip_port, sizeof(m[i].ip_port), MEMBER_ADDR ":%u",
			s->c->nodes[who].api_port);
		m[i].pid = s->c->nodes[who].pid;
		m[i].healthy = true;
	}
	feed(s, (struct cloud_event){.type = EVENT_ANSWER, .node = node, .answer = &a});
}

static inline void head_answer(struct scene *s, unsigned node, uint64_t boot_ms)
{
	struct answer a = {.kind = ANSWER_OK, .good = true, .h2o_boot_ms = boot_ms};

	feed(s, (struct cloud_event){.type = EVENT_ANSWER, .node = node, .answer = &a});
}

static inline void to_forming(struct scene *s)
{
	prepared(s);
	assert_int_equal(count(s, ACTION_LAUNCH, 0), N);
	launched(s, 2);
	launched(s, 1);
	assert_int_equal(s->c->state, CLOUD_STARTING);
	launched(s, 0);
	assert_int_equal(s->c->state, CLOUD_FORMING);
}

static inline void to_ready(struct scene *s)
{
	feed(s, (struct cloud_event){.type = EVENT_START});
	to_forming(s);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(s->c->state, CLOUD_FORMING);
		answers(s, i, N, true, false);
	}
	assert_int_equal(s->c->state, CLOUD_READY);
}

#define scene_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
