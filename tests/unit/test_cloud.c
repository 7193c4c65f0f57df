/* The state machine, scene by scene: what the simulation (tests/sim) meets by chance is stated
 * here. */
#include "cloud_scene.h"
#include "model/backoff.h"

/* Proves: the endpoint is published once every member agrees and not a moment earlier. */
static void test_ready_when_all_agree(void **state)
{
	struct scene *s = *state;

	feed(s, (struct cloud_event){.type = EVENT_START});
	to_forming(s);
	answers(s, 0, 1, true, false);
	answers(s, 0, N, false, false);
	answers(s, 0, N, true, false);
	answers(s, 1, N, true, false);
	assert_int_equal(s->c->state, CLOUD_FORMING);
	assert_false(cloud_usable(s->c));
	answers(s, 2, N, true, false);
	assert_true(cloud_usable(s->c));
	assert_int_equal(s->c->generation, 1);
	assert_int_equal(s->c->endpoint.port, 54321);
	assert_string_equal(s->c->endpoint.addr, "127.0.0.1");
	assert_null(s->c->reason);
}

/* Proves: a node is asked again within an interval, whenever its last answer came: else one that
 * nobody has asked could be taken for late, or for hung. */
static void test_asked_each_interval(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	for (unsigned i = 0; i < 1000; i += 7) {
		struct node *n = &s->c->nodes[i % N];

		s->now += 1 + i;
		n->poll_due_ms = 0;
		n->polling = true;
		answers(s, i % N, N, true, false);
		assert_in_range(n->poll_due_ms, s->now + 1, s->now + s->conf.health_interval_ms);
	}
}

/* Proves: a member's death withdraws the endpoint at once; the next generation begins only when all
 * old members are dead and cleaned up after, under another name and with the same ports. */
static void test_death_restarts_the_whole_cloud(void **state)
{
	struct scene *s = *state;
	_cleanup_free_ char *old_name = NULL;

	to_ready(s);
	old_name = xstrdup(s->c->h2o_name);
	ended(s, 1, 0, SIGKILL);
	assert_false(cloud_usable(s->c));
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGTERM), 2);
	assert_int_equal(count(s, ACTION_PREPARE, 0), 0);
	assert_non_null(strstr(s->c->reason, "node 1 was killed by SIGKILL"));
	ended(s, 0, 143, 0);
	assert_int_equal(count(s, ACTION_CLEAN, 0), 0);
	ended(s, 2, 143, 0);
	assert_int_equal(count(s, ACTION_CLEAN, 0), 1);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	to_forming(s);
	assert_int_equal(s->c->generation, 2);
	assert_int_equal(s->c->restarts, 1);
	assert_string_not_equal(s->c->h2o_name, old_name);
	assert_int_equal(s->c->nodes[0].api_port, 54321);
	assert_int_equal(s->c->nodes[1].last_exit.signal, SIGKILL);
}

/* Proves: a restart after a loss looks for an interrupted grid search, an operator's start does not
 * (and marks what lies there as not to be resumed), --resume does. */
static void test_resume_only_after_a_loss(void **state)
{
	struct scene *s = *state;

	feed(s, (struct cloud_event){.type = EVENT_START});
	assert_int_equal(count(s, ACTION_IGNORE_RECOVERY, 0), 1);
	to_forming(s);
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	assert_int_equal(count(s, ACTION_INSPECT_RECOVERY, 0), 0);
	ended(s, 1, 0, SIGKILL);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(count(s, ACTION_IGNORE_RECOVERY, 0), 0);
	to_forming(s);
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	assert_int_equal(count(s, ACTION_INSPECT_RECOVERY, 0), 1);
	feed(s, (struct cloud_event){.type = EVENT_RECOVERY, .flag = true});
	assert_int_equal(count(s, ACTION_RESUME, 0), 1);

	feed(s, (struct cloud_event){.type = EVENT_STOP});
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	feed(s, (struct cloud_event){.type = EVENT_START, .flag = true});
	assert_int_equal(count(s, ACTION_IGNORE_RECOVERY, 0), 0);
	to_forming(s);
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	assert_int_equal(count(s, ACTION_INSPECT_RECOVERY, 0), 1);
}

/* Proves: a recovery that twice brought the cloud down without progress is set aside; with progress
 * in between it is not. */
static void test_deadly_resume_is_set_aside(void **state)
{
	struct scene *s = *state;

	s->conf.start_limit.count = 60;
	s->conf.restart_delay_max_ms = 0;
	to_ready(s);
	for (int round = 0; round < 4; round++) {
		bool progress = round == 1;

		ended(s, 1, 0, SIGKILL);
		all_end(s);
		feed(s, (struct cloud_event){.type = EVENT_CLEANED});
		to_forming(s);
		for (unsigned i = 0; i < N; i++)
			answers(s, i, N, true, false);
		feed(s, (struct cloud_event){
				.type = EVENT_RECOVERY, .flag = true, .progress = progress});
		assert_int_equal(count(s, ACTION_SET_ASIDE_RECOVERY, 0), round == 3);
		assert_int_equal(count(s, ACTION_RESUME, 0), round != 3);
	}
}

/* Proves: a client that locks the cloud while it is short ends the formation at once, and that
 * counts as no failure, however often. */
static void test_short_lock_counts_as_no_failure(void **state)
{
	struct scene *s = *state;

	feed(s, (struct cloud_event){.type = EVENT_START});
	for (unsigned i = 1; i < 10; i++) {
		to_forming(s);
		answers(s, 0, 1, true, true);
		assert_int_equal(s->c->state, CLOUD_RECOVERING);
		assert_int_equal(count(s, ACTION_SIGNAL, SIGTERM), N);
		assert_int_equal(s->c->short_locks, i);
		all_end(s);
		feed(s, (struct cloud_event){.type = EVENT_CLEANED});
		assert_int_equal(s->c->history.n, 0);
	}
	assert_int_equal(s->c->state, CLOUD_STARTING);
}

/* Proves: a client's /3/Shutdown (every member exits 0, the receiver perhaps with the number of
 * peers that did not confirm) is a stop, not a failure; with restart = always it comes back. */
static void test_client_shutdown(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	ended(s, 1, 0, 0);
	assert_false(cloud_usable(s->c));
	assert_int_equal(s->c->state, CLOUD_STOPPING);
	assert_int_equal(count(s, ACTION_SIGNAL, 0), 0);
	ended(s, 2, 0, 0);
	ended(s, 0, 1, 0);
	assert_int_equal(count(s, ACTION_CLEAN, 0), 1);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	assert_int_equal(s->c->wanted, WANTED_STOPPED);
	assert_non_null(strstr(s->c->reason, "/3/Shutdown"));

	s->conf.restart = RESTART_ALWAYS;
	to_ready(s);
	for (unsigned i = 0; i < N; i++)
		ended(s, i, 0, 0);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_STARTING);
}

/* Proves: when only some members leave by /3/Shutdown, or one dies in another way meanwhile, that
 * is a loss. */
static void test_half_a_shutdown_is_a_loss(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	ended(s, 1, 0, 0);
	tick_until(s, ACTION_SIGNAL, SIGTERM);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	to_forming(s);
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	ended(s, 1, 0, 0);
	ended(s, 2, 0, SIGSEGV);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
}

/* Proves: lateness degrades and keeps the endpoint; silence for hang_timeout gathers evidence first
 * and then kills the hung member at once, the others in order. */
static void test_late_then_hung(void **state)
{
	struct scene *s = *state;
	uint64_t silent_since;

	to_ready(s);
	silent_since = s->now;
	while (s->c->state == CLOUD_READY) {
		tick(s);
		for (unsigned i = 0; i < N; i++)
			if (i != 1 && s->c->nodes[i].polling)
				head_answer(s, i, 7 + i);
		s->c->nodes[1].polling = false;
	}
	assert_int_equal(s->c->state, CLOUD_DEGRADED);
	assert_true(cloud_usable(s->c));
	assert_in_range(s->now - silent_since, 3000, 3200);
	assert_non_null(strstr(s->c->reason, "node 1 (pid 101)"));

	head_answer(s, 1, 8); /* at last; but is it back? */
	assert_int_equal(s->c->state, CLOUD_DEGRADED);
	tick_until(s, ACTION_POLL, 0);
	s->c->nodes[1].polled_ms = s->now;
	head_answer(s, 1, 8); /* asked again: ready again */
	assert_int_equal(s->c->state, CLOUD_READY);
	silent_since = s->now;
	while (cloud_usable(s->c)) {
		tick(s);
		for (unsigned i = 0; i < N && cloud_usable(s->c); i++)
			if (i != 1 && s->c->nodes[i].polling)
				head_answer(s, i, 7 + i);
		if (cloud_usable(s->c))
			s->c->nodes[1].polling = false;
	}
	assert_in_range(s->now - silent_since, 60000, 60300);
	assert_int_equal(count(s, ACTION_EVIDENCE, 0), 1);
	assert_int_equal(count(s, ACTION_SIGNAL, 0), 0);
	tick_until(s, ACTION_SIGNAL, SIGKILL);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGKILL), 1);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGTERM), 2);
}

/* Proves: answers that always come after late_after keep a cloud degraded, with its endpoint, for
 * however long: each is waited for, and counts. */
static void test_always_late(void **state)
{
	struct scene *s = *state;
	uint64_t began, degraded_ms = 0, asked_ms = 0;

	to_ready(s);
	began = s->now;
	while (s->now - began < 600000) {
		if (asked_ms && cloud_next_deadline(s->c) >= asked_ms + 20000) {
			s->now = asked_ms + 20000;
			head_answer(s, 1, 8);
			asked_ms = 0;
		}
		tick(s);
		for (size_t i = 0; i < s->c->n_actions; i++)
			if (s->c->actions[i].type == ACTION_POLL && s->c->actions[i].node == 1) {
				assert_true(s->c->actions[i].timeout_ms > 20000);
				assert_true(2 * s->c->actions[i].timeout_ms < 60000);
				asked_ms = s->now;
			}
		for (unsigned i = 0; i < N; i++)
			if (i != 1 && s->c->nodes[i].polling)
				head_answer(s, i, 7 + i);
		assert_true(cloud_usable(s->c));
		degraded_ms = degraded_ms || s->c->state != CLOUD_DEGRADED ? degraded_ms : s->now;
		assert_true(!degraded_ms || s->c->state == CLOUD_DEGRADED);
	}
	assert_in_range(degraded_ms - began, 3000, 4100);
}

static void cannot_ask(struct scene *s, unsigned node)
{
	static const struct answer unasked = {.kind = ANSWER_UNASKED};

	feed(s, (struct cloud_event){.type = EVENT_ANSWER, .node = node, .answer = &unasked});
}

/* Proves: time in which we could not ask (no descriptors) is no silence: however long it lasts, and
 * what a node had left of hang_timeout it has afterwards. */
static void test_unasked_is_no_silence(void **state)
{
	struct scene *s = *state;
	uint64_t silent_since, blind_since, blind;

	to_ready(s);
	silent_since = s->now;
	while (s->now - silent_since < 40000) { /* node 1 is silent */
		tick(s);
		for (unsigned i = 0; i < N; i++)
			if (i != 1 && s->c->nodes[i].polling)
				head_answer(s, i, 7 + i);
		s->c->nodes[1].polling = false;
		if (!s->c->nodes[1].poll_due_ms)
			s->c->nodes[1].poll_due_ms = s->now + 1000;
	}
	assert_int_equal(s->c->state, CLOUD_DEGRADED);
	blind_since = s->now;
	while (s->now - blind_since < 300000) {
		tick(s);
		for (unsigned i = 0; i < N; i++)
			if (s->c->nodes[i].polling)
				cannot_ask(s, i);
		assert_true(cloud_usable(s->c));
	}
	assert_true(cloud_is_blind(s->c));
	assert_int_equal(s->c->nodes[0].state, NODE_UP);
	blind = s->now - blind_since;
	while (cloud_usable(s->c)) {
		tick(s);
		for (unsigned i = 0; i < N && cloud_usable(s->c); i++) {
			static const struct answer none = {.kind = ANSWER_TIMEOUT};

			if (s->c->nodes[i].polling && i != 1)
				head_answer(s, i, 7 + i);
			else if (s->c->nodes[i].polling)
				feed(s, (struct cloud_event){
						.type = EVENT_ANSWER, .node = i, .answer = &none});
		}
	}
	assert_false(cloud_is_blind(s->c));
	assert_in_range(s->now - silent_since - blind, 59000, 62000);
}

/* Proves: nor does ready_timeout end a formation of which nothing can be seen. */
static void test_unasked_while_forming(void **state)
{
	struct scene *s = *state;
	uint64_t began;

	feed(s, (struct cloud_event){.type = EVENT_START});
	to_forming(s);
	for (began = s->now; s->now - began < 300000;) {
		tick(s);
		for (unsigned i = 0; i < N; i++)
			if (s->c->nodes[i].polling)
				cannot_ask(s, i);
		assert_int_equal(s->c->state, CLOUD_FORMING);
	}
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	assert_int_equal(s->c->state, CLOUD_READY);
}

/* Proves: another JVM behind a member's port is noticed by its boot time. */
static void test_impostor(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	head_answer(s, 2, 9);
	assert_int_equal(s->c->state, CLOUD_READY);
	head_answer(s, 2, 4711);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
}

/* Proves: lost consensus is believed at the second answer, not the first. */
static void test_lost_consensus(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	answers(s, 0, N, false, true);
	assert_int_equal(s->c->state, CLOUD_READY);
	answers(s, 0, N, true, true);
	answers(s, 0, N, false, true);
	assert_int_equal(s->c->state, CLOUD_READY);
	answers(s, 0, N, false, true);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
}

/* Proves: the stop ladder: SIGTERM, after stop_timeout SIGKILL, and an answer to those that survive
 * even that; with stop_method = rest, /3/Shutdown first. */
static void test_stop_ladder(void **state)
{
	struct scene *s = *state;
	uint64_t began;

	s->conf.stop_method = STOP_REST;
	to_ready(s);
	began = s->now;
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	assert_int_equal(s->c->state, CLOUD_STOPPING);
	assert_int_equal(count(s, ACTION_REST_SHUTDOWN, 0), 1);
	tick(s);
	assert_int_equal(s->now - began, 10000);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGTERM), 3);
	ended(s, 0, 143, 0);
	tick(s);
	assert_int_equal(s->now - began, 20000);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGKILL), 2);
	tick(s);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGKILL), 2);
	assert_non_null(strstr(s->c->reason, "SIGKILL"));
	ended(s, 1, 0, SIGKILL);
	ended(s, 2, 0, SIGKILL);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	assert_int_equal(count(s, ACTION_RELEASE_PORTS, 0), 1);
	assert_true(cloud_next_deadline(s->c) == UINT64_MAX);
}

/* Proves: each failure in the window makes the wait longer, and the fifth in ten minutes ends it,
 * with the last reason in the sentence; a start by the operator begins anew. */
static void test_back_off_and_limit(void **state)
{
	struct scene *s = *state;
	uint64_t waits[4] = {0};

	to_ready(s);
	for (unsigned i = 0; i < 4; i++) {
		ended(s, 1, 0, SIGKILL);
		all_end(s);
		feed(s, (struct cloud_event){.type = EVENT_CLEANED});
		if (s->c->state == CLOUD_BACKOFF) {
			waits[i] = s->c->next_start_ms - s->now;
			tick(s);
		}
		to_forming(s);
		for (unsigned k = 0; k < N; k++)
			answers(s, k, N, true, false);
	}
	assert_true(waits[0] == 0);
	assert_in_range(waits[1], 750, 1250);
	assert_in_range(waits[2], 1500, 2500);
	assert_in_range(waits[3], 3000, 5000);
	ended(s, 1, 0, SIGKILL);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_FAILED);
	assert_non_null(strstr(s->c->reason, "given up after 5 failures within 10m"));
	assert_non_null(strstr(s->c->reason, "SIGKILL"));
	assert_int_equal(count(s, ACTION_RELEASE_PORTS, 0), 1);
	feed(s, (struct cloud_event){.type = EVENT_START});
	assert_int_equal(s->c->state, CLOUD_STARTING);
	assert_int_equal(s->c->history.n, 0);
}

/* Proves: what trying again cannot mend fails at once. */
static void test_permanent_failure(void **state)
{
	struct scene *s = *state;
	struct exit_evidence ev = {.known = true,
		.code = 1,
		.log_tail = "\nERROR: Unknown argument (-x)\n",
		.node = 2};

	feed(s, (struct cloud_event){.type = EVENT_START});
	prepared(s);
	launched(s, 2);
	launched(s, 1);
	launched(s, 0);
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = 2, .exit = &ev});
	ended(s, 1, 143, 0);
	ended(s, 0, 143, 0);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_FAILED);
	assert_non_null(strstr(s->c->reason, "Unknown argument (-x)"));
}

/* Proves: a port stolen before the cloud ever served makes it move on; later it keeps its ports. */
static void test_stolen_port(void **state)
{
	struct scene *s = *state;
	struct exit_evidence ev = {.known = true,
		.code = 255,
		.log_tail = "some of the required ports 54325, 54326 are not available",
		.node = 2};

	feed(s, (struct cloud_event){.type = EVENT_START});
	to_forming(s);
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = 2, .exit = &ev});
	assert_int_equal(count(s, ACTION_RELEASE_PORTS, 0), 1);
	assert_false(s->c->ports_planned);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	to_forming(s);
	for (unsigned k = 0; k < N; k++)
		answers(s, k, N, true, false);
	ended(s, 1, 0, SIGKILL);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	tick(s); /* the back-off after two failures */
	to_forming(s);
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = 2, .exit = &ev});
	assert_int_equal(count(s, ACTION_RELEASE_PORTS, 0), 0);
	assert_true(s->c->ports_planned);
}

/* Proves: commands at awkward moments: stop while preparing, start while stopping, restart while
 * recovering; the daemon's end overrides them all. */
static void test_commands_in_between(void **state)
{
	struct scene *s = *state;

	feed(s, (struct cloud_event){.type = EVENT_START});
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	assert_int_equal(s->c->state, CLOUD_STOPPING);
	feed(s, (struct cloud_event){.type = EVENT_PREPARE_FAILED, .text = "x"});
	assert_int_equal(count(s, ACTION_CLEAN, 0), 1);
	feed(s, (struct cloud_event){.type = EVENT_START});
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_STARTING);
	to_forming(s);
	ended(s, 1, 0, SIGKILL);
	feed(s, (struct cloud_event){.type = EVENT_RESTART});
	assert_int_equal(s->c->state, CLOUD_STOPPING);
	assert_int_equal(s->c->wanted, WANTED_RUNNING);
	feed(s, (struct cloud_event){.type = EVENT_SHUTDOWN});
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	feed(s, (struct cloud_event){.type = EVENT_START});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	assert_true(cloud_quiet(s->c));
}

/* Proves: a cloud that never becomes whole is given up after ready_timeout, and the sentence says
 * how far it came. */
static void test_ready_timeout(void **state)
{
	struct scene *s = *state;
	uint64_t began;

	feed(s, (struct cloud_event){.type = EVENT_START});
	to_forming(s);
	began = s->now;
	answers(s, 0, 1, true, false);
	while (s->c->state == CLOUD_FORMING) {
		tick(s);
		if (s->c->state != CLOUD_FORMING)
			break;
		answers(s, 0, 1, true, false);
		for (unsigned i = 1; i < N; i++)
			s->c->nodes[i].polling = false;
	}
	assert_in_range(s->now - began, 119000, 120000);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	assert_non_null(strstr(s->c->reason, "not ready within 2m 0s"));
	assert_non_null(strstr(s->c->reason, "1 of 3 members"));
}

/* Proves: failures outside the window are forgotten, the ring never overflows, the delay never
 * exceeds its maximum and a zero maximum means no delay. */
static void test_backoff_arithmetic(void **state)
{
	struct failure_history h = {0};
	struct cloud_conf conf = {
		.restart_delay_ms = 500, .restart_delay_max_ms = 8000, .start_limit = {60, 1000}};
	uint64_t rng = 1;

	(void)state;
	backoff_record(&h, &conf.start_limit, 100);
	assert_in_range(backoff_delay(&h, &conf, &rng), 375, 625);
	backoff_record(&h, &conf.start_limit, 1101);
	assert_int_equal(h.n, 1);
	for (unsigned i = 0; i < 200; i++)
		backoff_record(&h, &conf.start_limit, 1102);
	assert_int_equal(h.n, 64);
	assert_true(backoff_exhausted(&h, &conf.start_limit));
	for (unsigned i = 0; i < 1000; i++)
		assert_in_range(backoff_delay(&h, &conf, &rng), 6000, 10000);
	conf.restart_delay_max_ms = conf.restart_delay_ms = 0;
	assert_int_equal(backoff_delay(&h, &conf, &rng), 0);
}

/* An answer of member `node` as answers() makes it, of a whole cloud that H2O calls unhealthy. */
static void unhealthy(struct scene *s, unsigned node)
{
	struct h2o_member m[N] = {0};
	struct h2o_cloud_view v = {
		.node_idx = node, .cloud_size = N, .consensus = true, .members = m, .n_members = N};
	struct answer a = {.kind = ANSWER_OK, .full = true, .view = &v, .h2o_boot_ms = 7 + node};

	snprintf(v.cloud_name, sizeof(v.cloud_name), "%s", s->c->h2o_name);
	for (unsigned i = 0; i < N; i++) {
		snprintf(m[i].ip_port, sizeof(m[i].ip_port), MEMBER_ADDR ":%u",
			s->c->nodes[i].api_port);
		m[i].pid = s->c->nodes[i].pid;
		m[i].max_mem = 1000 + i;
		m[i].healthy = i != 2;
	}
	feed(s, (struct cloud_event){.type = EVENT_ANSWER, .node = node, .answer = &a});
}

/* Proves: a cloud that calls itself unhealthy is degraded, with H2O's complaint, asked in full and
 * not given up before hang_timeout; a healthy answer clears it. What it says of its memory counts.
 */
static void test_unhealthy_for_a_while(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	unhealthy(s, 0);
	assert_int_equal(s->c->state, CLOUD_DEGRADED);
	assert_non_null(strstr(s->c->reason, "has not heard from its member 127.0.0.1:54325"));
	assert_int_equal(s->c->usage.max_mem, 3003);
	assert_int_equal(s->c->nodes[1].max_mem, 1001);
	while (!s->c->nodes[0].polling)
		tick(s);
	for (size_t i = 0; i < s->c->n_actions; i++)
		assert_true(s->c->actions[i].type != ACTION_POLL || s->c->actions[i].node != 0 ||
			    s->c->actions[i].full);
	answers(s, 0, N, true, true);
	assert_int_equal(s->c->state, CLOUD_READY);
	assert_null(s->c->reason);
}

/* Proves: unhealthy for hang_timeout is a loss, by the complaint, and only then. */
static void test_unhealthy_for_too_long(void **state)
{
	struct scene *s = *state;
	uint64_t began;

	to_ready(s);
	began = s->now;
	unhealthy(s, 0);
	while (cloud_usable(s->c)) {
		tick(s);
		for (unsigned i = 0; i < N && cloud_usable(s->c); i++)
			if (s->c->nodes[i].polling && i == 0)
				unhealthy(s, 0);
			else if (s->c->nodes[i].polling)
				head_answer(s, i, 7 + i);
	}
	assert_in_range(s->now - began, 60000, 60100);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	assert_non_null(strstr(s->c->reason, "has not heard from its member"));
	assert_int_equal(s->c->history.n, 1);
}

/* Proves: time in which it could not be asked does not make an unhealthy cloud any worse. */
static void test_unhealthy_and_unasked(void **state)
{
	struct scene *s = *state;
	uint64_t blind;

	to_ready(s);
	unhealthy(s, 0);
	for (blind = s->now; s->now - blind < 200000;) {
		tick(s);
		for (unsigned i = 0; i < N; i++)
			if (s->c->nodes[i].polling)
				cannot_ask(s, i);
		assert_true(cloud_usable(s->c));
	}
	while (!s->c->nodes[0].polling)
		tick(s);
	unhealthy(s, 0);
	assert_true(cloud_usable(s->c));
	assert_true(s->now - s->c->nodes[0].unhealthy_ms < 10000);
}

/* Proves: a HEAD that says "not good" is no verdict: it is asked in full at once. An answer without
 * H2O's boot time does not make an impostor of a member. */
static void test_doubt(void **state)
{
	struct scene *s = *state;
	struct answer bad = {.kind = ANSWER_OK, .h2o_boot_ms = 7},
		      nameless = {.kind = ANSWER_OK, .good = true};

	to_ready(s);
	feed(s, (struct cloud_event){.type = EVENT_ANSWER, .node = 0, .answer = &bad});
	assert_int_equal(s->c->state, CLOUD_READY);
	assert_true(s->c->nodes[0].poll_due_ms - s->now <= 50);
	tick(s);
	assert_int_equal(count(s, ACTION_POLL, 0), 1);
	assert_true(s->c->actions[0].full);
	answers(s, 0, N, true, false);
	feed(s, (struct cloud_event){.type = EVENT_ANSWER, .node = 0, .answer = &nameless});
	assert_int_equal(s->c->state, CLOUD_READY);
	assert_int_equal(s->c->nodes[0].h2o_boot_ms, 7);
}

/* Proves: who lists its members in another order is understood just as well. */
static void test_members_in_any_order(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	s->c->nodes[0].api_port = 54325; /* as if H2O sorted them otherwise than we do */
	s->c->nodes[2].api_port = 54321;
	s->c->nodes[0].pid = 102;
	s->c->nodes[2].pid = 100;
	unhealthy(s, 0);
	assert_int_equal(s->c->state, CLOUD_DEGRADED);
	assert_int_equal(s->c->nodes[1].max_mem, 1001);
}

/* Proves: an answer that comes when its cloud is being ended changes nothing. */
static void test_answer_too_late(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	head_answer(s, 0, 4711);
	answers(s, 1, 1, true, true);
	cannot_ask(s, 2);
	assert_int_equal(s->c->state, CLOUD_STOPPING);
	assert_int_equal(s->c->wanted, WANTED_STOPPED);
	assert_int_equal(s->c->short_locks, 0);
	assert_false(cloud_is_blind(s->c));
}

/* Proves: the end of the daemon at once is SIGKILL for all, from any state; it cleans once. */
static void test_shutdown_at_once(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	assert_int_equal(count(s, ACTION_SIGNAL, SIGTERM), N);
	feed(s, (struct cloud_event){.type = EVENT_SHUTDOWN, .flag = true});
	assert_int_equal(count(s, ACTION_SIGNAL, SIGKILL), N);
	for (unsigned i = 0; i < N; i++)
		ended(s, i, 0, SIGKILL);
	assert_int_equal(count(s, ACTION_CLEAN, 0), 1);
	assert_false(cloud_quiet(s->c));
	feed(s, (struct cloud_event){.type = EVENT_SHUTDOWN, .flag = true});
	assert_int_equal(count(s, ACTION_CLEAN, 0), 0);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	assert_true(cloud_quiet(s->c));
	feed(s, (struct cloud_event){.type = EVENT_CLEANED}); /* nothing to conclude from it */
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	feed(s, (struct cloud_event){.type = EVENT_RESTART});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
}

/* Proves: a stop, or the end of the daemon, does not wait for a thread dump. */
static void test_stop_while_gathering(void **state)
{
	struct scene *s = *state;

	for (int at_once = 0; at_once < 2; at_once++) {
		to_ready(s);
		s->now += 70000; /* nobody was asked for so long */
		feed(s, (struct cloud_event){.type = EVENT_TICK});
		assert_int_equal(count(s, ACTION_EVIDENCE, 0), 1);
		if (at_once)
			feed(s, (struct cloud_event){.type = EVENT_SHUTDOWN, .flag = true});
		else
			feed(s, (struct cloud_event){.type = EVENT_STOP});
		assert_int_equal(s->c->state, CLOUD_STOPPING);
		/* The hung one is killed either way. */
		assert_int_equal(count(s, ACTION_SIGNAL, SIGKILL), at_once ? N : 1);
		all_end(s);
		feed(s, (struct cloud_event){.type = EVENT_CLEANED});
		assert_int_equal(s->c->state, CLOUD_STOPPED);
	}
}

/* Proves: with restart = never a loss is the end of it, with the reason kept. */
static void test_restart_never(void **state)
{
	struct scene *s = *state;

	s->conf.restart = RESTART_NEVER;
	to_ready(s);
	ended(s, 1, 0, SIGKILL);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_FAILED);
	assert_int_equal(count(s, ACTION_RELEASE_PORTS, 0), 1);
	assert_non_null(strstr(s->c->reason, "SIGKILL"));
}

/* Proves: what hinders a launch is tried again after 1, 2, 4, 8, then every 10 s, for ever. */
static void test_prepare_again(void **state)
{
	static const uint64_t waits[] = {1000, 2000, 4000, 8000, 10000, 10000, 10000};
	struct scene *s = *state;

	feed(s, (struct cloud_event){.type = EVENT_START});
	for (size_t i = 0; i < ARRAY_SIZE(waits); i++) {
		feed(s, (struct cloud_event){.type = EVENT_PREPARE_FAILED, .text = "full"});
		assert_int_equal(s->c->state, CLOUD_BACKOFF);
		assert_int_equal(s->c->next_start_ms - s->now, waits[i]);
		tick(s);
		assert_int_equal(s->c->state, CLOUD_STARTING);
	}
}

/* Proves: of a long log the last lines are kept; nothing of one that we have ended. */
static void test_log_tail(void **state)
{
	struct scene *s = *state;
	struct exit_evidence ev = {.known = true, .code = 2, .node = 1};
	char log[64 * 20] = "", *end = log;

	for (int i = 0; i < 30; i++)
		end += sprintf(end, "line %d\n", i);
	ev.log_tail = log;
	to_ready(s);
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = 1, .exit = &ev});
	assert_string_equal(s->c->nodes[1].last_exit.log_tail, strstr(log, "line 18\n"));
	ev = (struct exit_evidence){
		.known = true, .code = 143, .sent_signal = SIGTERM, .node = 0, .log_tail = log};
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = 0, .exit = &ev});
	assert_int_equal(s->c->nodes[0].last_exit.cause, CAUSE_STOPPED);
	assert_null(s->c->nodes[0].last_exit.log_tail);
}

/* Proves: a member that found its cloud locked makes the formation begin anew, uncounted; with
 * port = N the ports stay what they are, whoever has taken them. */
static void test_locked_out(void **state)
{
	struct scene *s = *state;
	struct exit_evidence locked = {.known = true,
				     .code = 255,
				     .log_tail =
					     "a cloud that is no longer accepting new H2O nodes",
				     .node = 2},
			     taken = {.known = true,
				     .code = 255,
				     .log_tail = "some of the required ports 54325 are taken",
				     .node = 2};

	s->conf.port.exact = true;
	feed(s, (struct cloud_event){.type = EVENT_START});
	to_forming(s);
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = 2, .exit = &locked});
	assert_int_equal(s->c->short_locks, 1);
	assert_int_equal(s->c->history.n, 0);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	prepared(s);
	launched(s, 2);
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = 2, .exit = &taken});
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	assert_int_equal(s->c->history.n, 1);
	assert_int_equal(count(s, ACTION_RELEASE_PORTS, 0), 0);
	assert_true(s->c->ports_planned);
}

/* Proves: a member that leaves in good order before the cloud has formed is a loss, not a client's
 * shutdown; one that served and then says that it was locked out is a loss that counts. */
static void test_odd_ends(void **state)
{
	struct scene *s = *state;
	struct exit_evidence locked = {.known = true,
		.code = 255,
		.log_tail = "a cloud that is no longer accepting new H2O nodes",
		.node = 2};

	feed(s, (struct cloud_event){.type = EVENT_START});
	prepared(s);
	launched(s, 2);
	ended(s, 2, 0, 0);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	assert_int_equal(s->c->history.n, 1);
	launched(s, 1);
	launched(s, 0);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	to_forming(s);
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	feed(s, (struct cloud_event){.type = EVENT_EXITED, .node = 2, .exit = &locked});
	assert_int_equal(s->c->short_locks, 0);
	assert_int_equal(s->c->history.n, 2);
}

/* Proves: clients of a cloud with a gate are sent to the gate's port; what a grid search left is of
 * no interest once the cloud is down. */
static void test_gate_port_and_late_recovery(void **state)
{
	static const uint16_t ports[N] = {54331, 54333, 54335};
	struct scene *s = *state;

	feed(s, (struct cloud_event){.type = EVENT_START});
	assert_false(cloud_quiet(s->c));
	feed(s, (struct cloud_event){
			.type = EVENT_PREPARED, .ports = ports, .endpoint_port = 54321});
	assert_int_equal(s->c->endpoint.port, 54321);
	assert_int_equal(s->c->nodes[0].api_port, 54331);
	feed(s, (struct cloud_event){.type = EVENT_RECOVERY, .flag = true});
	assert_int_equal(count(s, ACTION_RESUME, 0), 0);
	assert_false(s->c->resuming);
	cloud_free(NULL);
}

/* Proves: a launch that fails while the cloud is already being ended only ends it sooner, and does
 * not count as a failure of its own. */
static void test_launch_fails_while_ending(void **state)
{
	struct scene *s = *state;

	feed(s, (struct cloud_event){.type = EVENT_START});
	prepared(s);
	launched(s, 2);
	ended(s, 2, 0, SIGSEGV);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(count(s, ACTION_CLEAN, 0), 0);
		feed(s, (struct cloud_event){
				.type = EVENT_LAUNCH_FAILED, .node = i, .text = "no memory"});
	}
	assert_int_equal(count(s, ACTION_CLEAN, 0), 1);
	assert_int_equal(s->c->history.n, 1);
	assert_int_equal(s->c->prepare_failures, 0);
	assert_non_null(strstr(s->c->reason, "SIGSEGV"));
}

/* Proves: a member that serves and suddenly names fewer members is asked again before that is
 * believed, also when it says that a client has locked the cloud. */
static void test_shrunk_and_locked(void **state)
{
	struct scene *s = *state;

	to_ready(s);
	answers(s, 0, 2, true, true);
	assert_int_equal(s->c->state, CLOUD_READY);
	answers(s, 0, 2, true, true);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	assert_non_null(strstr(s->c->reason, "has come apart"));
	assert_int_equal(s->c->short_locks, 0);
	assert_int_equal(s->c->history.n, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scene_test(test_ready_when_all_agree),
		scene_test(test_asked_each_interval),
		scene_test(test_death_restarts_the_whole_cloud),
		scene_test(test_resume_only_after_a_loss),
		scene_test(test_deadly_resume_is_set_aside),
		scene_test(test_short_lock_counts_as_no_failure),
		scene_test(test_client_shutdown),
		scene_test(test_half_a_shutdown_is_a_loss),
		scene_test(test_late_then_hung),
		scene_test(test_always_late),
		scene_test(test_unasked_is_no_silence),
		scene_test(test_unasked_while_forming),
		scene_test(test_impostor),
		scene_test(test_lost_consensus),
		scene_test(test_stop_ladder),
		scene_test(test_back_off_and_limit),
		scene_test(test_permanent_failure),
		scene_test(test_stolen_port),
		scene_test(test_commands_in_between),
		scene_test(test_ready_timeout),
		cmocka_unit_test(test_backoff_arithmetic),
		scene_test(test_unhealthy_for_a_while),
		scene_test(test_unhealthy_for_too_long),
		scene_test(test_unhealthy_and_unasked),
		scene_test(test_doubt),
		scene_test(test_members_in_any_order),
		scene_test(test_answer_too_late),
		scene_test(test_shutdown_at_once),
		scene_test(test_stop_while_gathering),
		scene_test(test_restart_never),
		scene_test(test_prepare_again),
		scene_test(test_log_tail),
		scene_test(test_locked_out),
		scene_test(test_odd_ends),
		scene_test(test_gate_port_and_late_recovery),
		scene_test(test_launch_fails_while_ending),
		scene_test(test_shrunk_and_locked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
