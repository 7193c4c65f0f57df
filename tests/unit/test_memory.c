/* What a cloud remembers over daemons (model/memory), and how it goes on from it. The simulation
 * crosses every state with every crash; here is that nothing is forgotten on the way. */
#include "cloud_scene.h"

#include <errno.h>

#include "model/memory.h"

/* The other cloud has the same memory, but for what time does to it. */
static struct cloud *reborn(struct scene *s, uint64_t gap_ms, enum cloud_state *was)
{
	struct cloud *c = cloud_new(&s->conf, 2);
	json_auto_t *j = cloud_memory(s->c, s->now);
	_cleanup_free_ char *text = json_dumps(j, 0);
	json_auto_t *read = json_loads(text, 0, NULL);
	struct err e = ERR_NULL;

	assert_non_null(j);
	assert_int_equal(cloud_remember(c, read, s->now + gap_ms, gap_ms, was, &e), 0);
	return c;
}

static void become_ready(struct scene *s)
{
	feed(s, (struct cloud_event){.type = EVENT_START});
	prepared(s);
	for (unsigned i = 0; i < N; i++)
		launched(s, i);
	s->now += 5000;
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	assert_int_equal(s->c->state, CLOUD_READY);
}

/* Proves: every field that is written comes back. */
static void test_round_trip(void **state)
{
	struct scene *s = *state;
	enum cloud_state was;
	struct cloud *c;

	become_ready(s);
	s->now += 1000;
	ended(s, 1, 0, SIGKILL);
	s->c->prepare_failures = 3;
	s->c->bad_resumes = 1;
	s->c->short_locks = 7;
	s->c->restart_asked = s->c->resume_asked = s->c->resume_sent = s->c->resuming = true;
	s->c->disarmed = true;
	s->c->active_ms = s->now - 700;
	s->c->idle_said_ms = s->now - 300;
	s->c->idled_ms = 3600000;
	c = reborn(s, 0, &was);
	assert_int_equal(was, CLOUD_RECOVERING);
	assert_int_equal(c->state, CLOUD_STOPPED); /* until EVENT_RESUME */
	assert_int_equal(c->wanted, WANTED_RUNNING);
	assert_string_equal(c->reason, s->c->reason);
	assert_string_equal(c->h2o_name, s->c->h2o_name);
	assert_int_equal(c->generation, s->c->generation);
	assert_int_equal(c->endpoint.port, s->c->endpoint.port);
	assert_string_equal(c->endpoint.addr, s->c->endpoint.addr);
	assert_true(c->ports_planned && c->ever_ready && c->fresh && c->restart_asked &&
		    c->resume_asked && c->resume_sent && c->resuming && c->disarmed);
	assert_int_equal(c->active_ms, s->now - 700);
	assert_int_equal(c->idle_said_ms, s->now - 300);
	assert_int_equal(c->idled_ms, 3600000);
	assert_int_equal(c->prepare_failures, 3);
	assert_int_equal(c->bad_resumes, 1);
	assert_int_equal(c->short_locks, 7);
	assert_int_equal(c->history.n, 1);
	assert_int_equal(c->history.at_ms[0], s->c->history.at_ms[0]);
	assert_int_equal(c->since_ms, s->c->since_ms);
	assert_int_equal(c->ready_ms, s->c->ready_ms);
	assert_int_equal(c->nodes[0].pid, 100);
	assert_int_equal(c->nodes[0].sent_signal, SIGTERM);
	assert_int_equal(c->nodes[1].last_exit.signal, SIGKILL);
	assert_string_equal(c->nodes[1].last_exit.why, s->c->nodes[1].last_exit.why);
	assert_int_equal(c->nodes[1].last_exit.cause, CAUSE_SIGNAL);
	cloud_free(c);
}

/* Proves: times go on over the gap between two daemons, and none is in the future or before the
 * clock began. */
static void test_times(void **state)
{
	struct scene *s = *state;
	enum cloud_state was;
	struct cloud *c;

	become_ready(s);
	s->now += 100;
	c = reborn(s, 4000, &was);
	assert_int_equal(c->ready_ms, s->c->ready_ms); /* both clocks are the same here */
	cloud_free(c);
	s->c->ready_ms = 1;
	c = reborn(s, 10000000, &was);
	assert_in_range(c->ready_ms, 1, s->now);
	cloud_free(c);
}

/* Proves: what is not a memory, or one of a cloud of another size, is refused with a sentence,
 * whatever of it is missing. */
static void test_refused(void **state)
{
	struct scene *s = *state;
	json_auto_t *j = NULL;
	const char *key;
	json_t *value;

	become_ready(s);
	j = cloud_memory(s->c, s->now);
	json_object_foreach (j, key, value) {
		json_auto_t *less = json_copy(j);
		struct cloud *c = cloud_new(&s->conf, 2);
		_cleanup_(err_clear) struct err e = ERR_NULL;
		enum cloud_state was;

		if (streq(key, "reason") || streq(key, "h2o_name") ||            /* may be unset */
			streq(key, "disarmed") || streq(key, "active_age_ms") || /* younger */
			streq(key, "idle_said_age_ms") || streq(key, "idled_ms")) {
			cloud_free(c);
			continue;
		}
		json_object_del(less, key);
		assert_int_equal(cloud_remember(c, less, s->now, 0, &was, &e), -EINVAL);
		assert_non_null(err_msg(&e));
		cloud_free(c);
	}
}

/* Proves: a cloud that served is ready at once, and each member is asked in full whether it still
 * is; a member that lies brings it down. */
static void test_serves_on(void **state)
{
	struct scene *s = *state;
	enum cloud_state was;
	struct cloud *c;

	become_ready(s);
	c = reborn(s, 100, &was);
	cloud_free(s->c);
	s->c = c;
	s->now += 100;
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	assert_int_equal(c->state, CLOUD_READY);
	assert_null(c->reason);
	tick(s);
	assert_int_equal(count(s, ACTION_POLL, 0), N);
	for (size_t i = 0; i < c->n_actions; i++)
		assert_true(c->actions[i].full);
	assert_int_equal(count(s, ACTION_SIGNAL, 0), 0);
	answers(s, 0, 1, true, true);
	s->now += 100;
	answers(s, 0, 1, true, true);
	assert_int_equal(c->state, CLOUD_RECOVERING);
}

/* Proves: what an earlier daemon wrote, which knew nothing of idle stop and of doors, is taken:
 * such a cloud counts as used when it was taken over. */
static void test_older_memory(void **state)
{
	struct scene *s = *state;
	json_auto_t *j = NULL;
	struct err e = ERR_NULL;
	enum cloud_state was;

	s->conf.max_idle_duration_ms = 60000;
	become_ready(s);
	j = cloud_memory(s->c, s->now);
	json_object_del(j, "disarmed");
	json_object_del(j, "active_age_ms");
	json_object_del(j, "idle_said_age_ms");
	json_object_del(j, "idled_ms");
	cloud_free(s->c);
	s->c = cloud_new(&s->conf, 2);
	s->now += 500000;
	assert_int_equal(cloud_remember(s->c, j, s->now, 500000, &was, &e), 0);
	assert_false(s->c->disarmed);
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	assert_int_equal(s->c->state, CLOUD_READY);
	assert_int_equal(cloud_idle_stop(s->c, 0), s->now + 60000);
}

/* Proves: the idle time goes on over daemons, and a stop that was announced stays so. */
static void test_idle_time_goes_on(void **state)
{
	struct scene *s = *state;
	enum cloud_state was;
	uint64_t ready;
	struct cloud *c;

	s->conf.max_idle_duration_ms = 60000;
	become_ready(s);
	ready = s->now;
	s->c->idle_said_ms = s->now + 54000;
	s->now += 55000;
	c = reborn(s, 2000, &was);
	s->now += 2000;
	cloud_free(s->c);
	s->c = c;
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	assert_int_equal(c->state, CLOUD_READY);
	assert_int_equal(c->idle_said_ms, ready + 54000);
	assert_int_equal(cloud_idle_stop(c, 0), ready + 60000);
	assert_int_equal(count(s, ACTION_ANNOUNCE_ACTIVE, 0), 0);
	assert_in_range(c->timers[TIMER_IDLE], s->now, ready + 60000);
}

/* Proves: a generation whose launch was cut short is ended, and the next is no failure. */
static void test_half_launched(void **state)
{
	struct scene *s = *state;
	enum cloud_state was;
	struct cloud *c;

	feed(s, (struct cloud_event){.type = EVENT_START});
	prepared(s);
	launched(s, 2);
	c = reborn(s, 0, &was);
	cloud_free(s->c);
	s->c = c;
	assert_int_equal(was, CLOUD_STARTING);
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was, .flag = true});
	assert_int_equal(count(s, ACTION_SIGNAL, SIGTERM), 1);
	assert_int_equal(count(s, ACTION_PREPARE, 0), 0);
	ended(s, 2, 143, 0);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(count(s, ACTION_PREPARE, 0), 1);
	assert_int_equal(c->history.n, 0);
}

/* Proves: the rest of a wait is waited, not all of it again. */
static void test_back_off_goes_on(void **state)
{
	struct scene *s = *state;
	enum cloud_state was;
	struct cloud *c;

	feed(s, (struct cloud_event){.type = EVENT_START});
	feed(s, (struct cloud_event){.type = EVENT_PREPARE_FAILED, .text = "full"});
	assert_int_equal(s->c->state, CLOUD_BACKOFF);
	c = reborn(s, 400, &was);
	s->now += 400;
	cloud_free(s->c);
	s->c = c;
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	assert_int_equal(c->state, CLOUD_BACKOFF);
	assert_int_equal(cloud_next_deadline(c) - s->now, 600);
	tick(s);
	assert_int_equal(count(s, ACTION_PREPARE, 0), 1);
}

/* Gives the scene's cloud, which is gone, as a daemon would that reads `j`. */
static int remember(struct scene *s, const json_t *j, enum cloud_state *was, struct err *e)
{
	cloud_free(s->c);
	s->c = cloud_new(&s->conf, 2);
	return cloud_remember(s->c, j, s->now, 0, was, e);
}

static void refuse(struct scene *s, const json_t *j, const char *part_of_why)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct cloud *c = cloud_new(&s->conf, 2);
	enum cloud_state was;

	assert_int_equal(cloud_remember(c, j, s->now, 0, &was, &e), -EINVAL);
	assert_non_null(strstr(err_msg(&e), part_of_why));
	cloud_free(c);
}

/* Proves: a value of the right kind that no daemon of ours writes is refused: words that mean
 * nothing, numbers out of range, nodes in another order or number. */
static void test_impossible_values(void **state)
{
	static const struct {
		const char *key;
		json_int_t number;
		const char *word; /* instead of the number */
	} top[] = {{"state", 0, "dancing"}, {"generation", -1, NULL}, {"restarts", -1, NULL},
		{"endpoint_port", -1, NULL}, {"endpoint_port", 65536, NULL}},
	  node[] = {{"state", 0, "dancing"}, {"index", 2, NULL}, {"api_port", -1, NULL},
		  {"api_port", 65536, NULL}, {"api_port", 0, NULL}, {"api_port", 65535, NULL},
		  {"pid", -1, NULL}, {"pid", 1ll << 31, NULL}, {"hung", 7, NULL}};
	struct scene *s = *state;
	json_auto_t *j = NULL;

	become_ready(s);
	ended(s, 1, 0, SIGKILL);
	j = cloud_memory(s->c, s->now);
	for (size_t i = 0; i < ARRAY_SIZE(top); i++) {
		json_auto_t *bad = json_copy(j);

		json_object_set_new(bad, top[i].key,
			top[i].word ? json_string(top[i].word) : json_integer(top[i].number));
		refuse(s, bad, "state, generation or port");
	}
	for (size_t i = 0; i < ARRAY_SIZE(node); i++) {
		json_auto_t *bad = json_deep_copy(j);
		json_t *first = json_array_get(json_object_get(bad, "nodes"), 0);

		json_object_set_new(first, node[i].key,
			node[i].word ? json_string(node[i].word) : json_integer(node[i].number));
		refuse(s, bad, "a node");
	}
	json_array_remove(json_object_get(j, "nodes"), 2);
	refuse(s, j, "a cloud of 2 nodes, and this has 3");
}

/* Proves: how a node ended is refused just so when it is not what we write. */
static void test_impossible_exit(void **state)
{
	struct scene *s = *state;
	json_auto_t *j = NULL;
	json_t *exit;

	become_ready(s);
	ended(s, 1, 0, SIGKILL);
	j = cloud_memory(s->c, s->now);
	exit = json_object_get(json_array_get(json_object_get(j, "nodes"), 1), "last_exit");
	json_object_set_new(exit, "cause", json_string("boredom"));
	refuse(s, j, "last_exit's cause");
	json_object_del(exit, "cause");
	refuse(s, j, "last_exit");
}

/* Proves: a time from before this machine was up is its first moment, not the future; more failures
 * than are counted do no harm, nor do ports that were not planned yet. */
static void test_odd_but_taken(void **state)
{
	struct scene *s = *state;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	json_auto_t *j = NULL;
	enum cloud_state was;
	json_t *failures, *first;

	become_ready(s);
	j = cloud_memory(s->c, s->now);
	json_object_set_new(j, "since_age_ms", json_integer((json_int_t)s->now + 1));
	failures = json_object_get(j, "failures");
	for (int i = 0; i < 1000; i++)
		json_array_append_new(failures, json_integer(i));
	json_object_set_new(j, "ports_planned", json_false());
	first = json_array_get(json_object_get(j, "nodes"), 0);
	json_object_set_new(first, "api_port", json_integer(0));
	assert_int_equal(remember(s, j, &was, &e), 0);
	assert_int_equal(s->c->since_ms, 1);
	assert_int_equal(s->c->history.n, ARRAY_SIZE(s->c->history.at_ms));
	assert_false(s->c->ports_planned);
}

/* Proves: a recovery that was being resumed when the daemon ended is looked at again. */
static void test_resume_goes_on(void **state)
{
	struct scene *s = *state;
	enum cloud_state was;
	struct cloud *c;

	become_ready(s);
	s->c->resuming = s->c->resume_sent = true;
	c = reborn(s, 0, &was);
	cloud_free(s->c);
	s->c = c;
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	assert_int_equal(count(s, ACTION_INSPECT_RECOVERY, 0), 1);
}

/* Proves: a formation goes on with what is left of ready_timeout, at least 5 s; with all of it
 * where that was not written. */
static void test_forming_goes_on(void **state)
{
	struct scene *s = *state;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	json_auto_t *j = NULL;
	enum cloud_state was;

	feed(s, (struct cloud_event){.type = EVENT_START});
	to_forming(s);
	j = cloud_memory(s->c, s->now);
	assert_int_equal(remember(s, j, &was, &e), 0);
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	assert_int_equal(s->c->state, CLOUD_FORMING);
	assert_int_equal(s->c->timers[TIMER_READY], s->now + 120000);
	json_object_set_new(j, "ready_left_ms", json_integer(10));
	assert_int_equal(remember(s, j, &was, &e), 0);
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	assert_int_equal(s->c->timers[TIMER_READY], s->now + 5000);
	json_object_set_new(j, "ready_left_ms", json_integer(-1));
	assert_int_equal(remember(s, j, &was, &e), 0);
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	assert_int_equal(s->c->timers[TIMER_READY], s->now + 120000);
}

/* Proves: a file whose parts contradict each other (a cloud at rest with members that run, a ready
 * one that lacks one) leaves nobody running unseen: what runs is ended. */
static void test_contradictions(void **state)
{
	struct scene *s = *state;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	json_auto_t *j = NULL;
	enum cloud_state was;
	json_t *first;

	become_ready(s);
	j = cloud_memory(s->c, s->now);
	assert_int_equal(remember(s, j, &was, &e), 0);
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = CLOUD_STOPPED});
	assert_int_equal(s->c->state, CLOUD_STOPPING);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGTERM), N);
	first = json_array_get(json_object_get(j, "nodes"), 0);
	json_object_set_new(first, "pid", json_integer(0));
	assert_int_equal(remember(s, j, &was, &e), 0);
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGTERM), N - 1);
}

/* Proves: a daemon that ends before it has taken a cloud over starts nothing: what waits comes to
 * rest, what was being restarted is ended only. */
static void test_ends_before_it_resumes(void **state)
{
	static const enum cloud_state waits[] = {CLOUD_RECOVERING, CLOUD_STOPPING, CLOUD_BACKOFF};
	struct scene *s = *state;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	json_auto_t *j = NULL;
	enum cloud_state was;

	s->conf.restart = RESTART_ALWAYS;
	feed(s, (struct cloud_event){.type = EVENT_START});
	feed(s, (struct cloud_event){.type = EVENT_PREPARE_FAILED, .text = "full"});
	j = cloud_memory(s->c, s->now);
	json_object_set_new(j, "leaving", json_true());
	json_object_set_new(j, "backoff_left_ms", json_integer(-1));
	for (size_t i = 0; i < ARRAY_SIZE(waits); i++) {
		assert_int_equal(remember(s, j, &was, &e), 0);
		feed(s, (struct cloud_event){.type = EVENT_SHUTDOWN});
		feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = waits[i]});
		assert_int_equal(count(s, ACTION_PREPARE, 0), 0);
		feed(s, (struct cloud_event){.type = EVENT_CLEANED});
		assert_int_equal(count(s, ACTION_PREPARE, 0), 0);
		assert_int_equal(s->c->state, CLOUD_STOPPED);
	}
	assert_int_equal(remember(s, j, &was, &e), 0); /* and else a wait without an end is over */
	feed(s, (struct cloud_event){.type = EVENT_RESUME, .was = was});
	tick(s);
	assert_int_equal(count(s, ACTION_PREPARE, 0), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_times, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_serves_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_older_memory, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_idle_time_goes_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_half_launched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_back_off_goes_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_impossible_values, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_impossible_exit, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_odd_but_taken, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_resume_goes_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_forming_goes_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_contradictions, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_ends_before_it_resumes, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
