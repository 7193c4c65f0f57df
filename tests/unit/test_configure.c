/* A configuration that changes while its cloud lives: deadlines that run already, and the number of
 * nodes. */
#include "cloud_scene.h"

/* The scene's configuration, changed: what a reload makes of it. */
static struct cloud_conf *reconf(struct scene *s, struct cloud_conf *next)
{
	*next = s->conf;
	return next;
}

/* Proves: a member that is silent already hangs by the new time, not before and not later. */
static void test_hang_timeout_changes(void **state)
{
	struct scene *s = *state;
	struct cloud_conf next;
	uint64_t silent_since;

	to_ready(s);
	silent_since = s->c->nodes[0].answered_ms;
	s->now += 20000;
	feed(s, (struct cloud_event){.type = EVENT_TICK});
	assert_int_equal(s->c->state, CLOUD_DEGRADED);
	reconf(s, &next)->hang_timeout_ms = 30000;
	cloud_configure(s->c, &next, s->now);
	feed(s, (struct cloud_event){.type = EVENT_TICK});
	assert_int_equal(s->c->state, CLOUD_DEGRADED);
	assert_true(cloud_next_deadline(s->c) <= silent_since + 30000);
	tick_until(s, ACTION_EVIDENCE, 0);
	assert_int_equal(s->now, silent_since + 30000);
}

/* Proves: what is late by the old time is not by a longer new one. */
static void test_late_after_changes(void **state)
{
	struct scene *s = *state;
	struct cloud_conf next;

	to_ready(s);
	s->now += 5000;
	feed(s, (struct cloud_event){.type = EVENT_TICK});
	assert_int_equal(s->c->state, CLOUD_DEGRADED);
	reconf(s, &next)->late_after_ms = 10000;
	cloud_configure(s->c, &next, s->now);
	feed(s, (struct cloud_event){.type = EVENT_TICK});
	assert_int_equal(s->c->state, CLOUD_READY);
	assert_null(s->c->reason);
}

/* Proves: deadlines that are running move with their keys: readiness, stop, polls, backoff. */
static void test_deadlines_move(void **state)
{
	struct scene *s = *state;
	struct cloud_conf next, later;
	uint64_t begun;

	feed(s, (struct cloud_event){.type = EVENT_START});
	to_forming(s);
	begun = s->now;
	s->now += 10000;
	reconf(s, &next)->ready_timeout_ms = 30000;
	cloud_configure(s->c, &next, s->now);
	assert_int_equal(s->c->timers[TIMER_READY], begun + 30000);
	next.ready_timeout_ms = 30000;
	later = next;
	later.ready_timeout_ms = 5000; /* over already */
	later.stop_timeout_ms = 60000;
	later.restart_delay_ms = 50000;
	cloud_configure(s->c, &later, s->now);
	assert_int_equal(s->c->timers[TIMER_READY], s->now);
	feed(s, (struct cloud_event){.type = EVENT_TICK});
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	assert_int_equal(s->c->timers[TIMER_STOP], s->now + 3000); /* data is lost anyway */
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	feed(s, (struct cloud_event){.type = EVENT_START});
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_STARTING);
	to_forming(s);
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	ended(s, 0, 1, 0);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_BACKOFF);
	reconf(s, &next)->restart_delay_max_ms = 1000;
	cloud_configure(s->c, &next, s->now);
	assert_int_equal(s->c->timers[TIMER_BACKOFF], s->now + 1000);
	assert_int_equal(s->c->next_start_ms, s->now + 1000);
}

static void test_stop_timeout_changes(void **state)
{
	struct scene *s = *state;
	struct cloud_conf next;
	uint64_t begun;

	to_ready(s);
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	begun = s->now;
	reconf(s, &next)->stop_timeout_ms = 2000;
	cloud_configure(s->c, &next, s->now + 500);
	assert_int_equal(cloud_next_deadline(s->c), begun + 2000);
	tick(s);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGKILL), N);
	begun = s->c->timers[TIMER_STOP]; /* after SIGKILL: not configured */
	next.stop_timeout_ms = 100;
	cloud_configure(s->c, &s->conf, s->now);
	assert_int_equal(s->c->timers[TIMER_STOP], begun);
}

/* Proves: with no member alive their number may change; those that stay keep their last exit. */
static void test_number_of_nodes_changes(void **state)
{
	struct scene *s = *state;
	struct cloud_conf fewer, more;
	static const uint16_t ports[N + 1] = {54321, 54323, 54325, 54327};

	to_ready(s);
	ended(s, 1, 0, SIGSEGV);
	all_end(s);
	reconf(s, &fewer)->nodes = 2;
	cloud_configure(s->c, &fewer, s->now);
	assert_int_equal(s->c->n_nodes, 2);
	assert_int_equal(s->c->nodes[1].last_exit.signal, SIGSEGV);
	reconf(s, &more)->nodes = N + 1;
	cloud_configure(s->c, &more, s->now);
	assert_int_equal(s->c->n_nodes, N + 1);
	assert_int_equal(s->c->nodes[1].last_exit.signal, SIGSEGV);
	assert_int_equal(s->c->nodes[N].state, NODE_DOWN);
	assert_int_equal(s->c->nodes[N].index, N);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(count(s, ACTION_PREPARE, 0), 1);
	feed(s, (struct cloud_event){.type = EVENT_PREPARED, .ports = ports});
	assert_int_equal(count(s, ACTION_LAUNCH, 0), N + 1);
	assert_int_equal(s->c->nodes[N].api_port, 54327);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scene_test(test_hang_timeout_changes),
		scene_test(test_late_after_changes),
		scene_test(test_deadlines_move),
		scene_test(test_stop_timeout_changes),
		scene_test(test_number_of_nodes_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
