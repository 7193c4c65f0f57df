/* Idle stop, and the door of a cloud: what the simulation meets by chance, scene by scene. */
#include "cloud_scene.h"

#define MAX_IDLE UINT64_C(600000)
#define WARNING  UINT64_C(60000)

/* Ready, with idle stop. */
static uint64_t begin(struct scene *s)
{
	s->conf.max_idle_duration_ms = MAX_IDLE;
	to_ready(s);
	assert_int_equal(s->c->active_ms, s->now);
	return s->now;
}

/* Until it asks whether it is used. */
static void until_asked(struct scene *s)
{
	for (int i = 0; i < 100000; i++) {
		tick(s);
		if (count(s, ACTION_ASK_IDLE, 0))
			return;
		for (unsigned k = 0; k < N; k++)
			if (s->c->nodes[k].polling)
				head_answer(s, k, 7 + k);
	}
	fail();
}

static void idle(struct scene *s, uint64_t ms)
{
	feed(s, (struct cloud_event){.type = EVENT_IDLE, .idle_ms = ms});
}

static uint64_t announced(const struct scene *s)
{
	for (size_t i = 0; i < s->c->n_actions; i++)
		if (s->c->actions[i].type == ACTION_ANNOUNCE_IDLE)
			return s->c->actions[i].idle_ms;
	return 0;
}

static void to_stopped(struct scene *s)
{
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
}

/* Proves: unused, it is asked shortly before the deadline and not earlier, its stop is announced
 * once, it is asked once more at the deadline and then stopped, with the reason kept; nothing
 * starts it again, not even restart = always. */
static void test_idle_stop(void **state)
{
	struct scene *s = *state;
	uint64_t ready = begin(s);

	s->conf.restart = RESTART_ALWAYS;
	until_asked(s);
	assert_int_equal(s->now, ready + MAX_IDLE - WARNING);
	idle(s, s->now - ready);
	assert_int_equal(announced(s), WARNING);
	assert_int_equal(cloud_idle_stop(s->c, 0), ready + MAX_IDLE);
	while (s->now < ready + MAX_IDLE) {
		until_asked(s);
		assert_true(cloud_usable(s->c));
		if (s->now < ready + MAX_IDLE)
			idle(s, s->now - ready);
		assert_int_equal(announced(s), 0);
	}
	assert_int_equal(s->now, ready + MAX_IDLE);
	idle(s, MAX_IDLE);
	assert_int_equal(s->c->state, CLOUD_STOPPING);
	assert_int_equal(s->c->wanted, WANTED_STOPPED);
	assert_int_equal(count(s, ACTION_SIGNAL, SIGTERM), N);
	to_stopped(s);
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	assert_string_equal(s->c->reason, "stopped after 10m without use (max_idle_duration)");
	assert_int_equal(cloud_next_deadline(s->c), UINT64_MAX);
	feed(s, (struct cloud_event){.type = EVENT_START});
	assert_null(s->c->reason);
	assert_int_equal(s->c->idled_ms, 0);
}

/* Proves: a use that comes after the announcement calls the stop off, and says so once; the whole
 * time begins again, and the next stop is announced again. */
static void test_use_calls_it_off(void **state)
{
	struct scene *s = *state;
	uint64_t used, ready = begin(s);

	until_asked(s);
	idle(s, s->now - ready);
	assert_int_equal(announced(s), WARNING);
	until_asked(s);
	used = s->now - 10;
	idle(s, 10);
	assert_int_equal(count(s, ACTION_ANNOUNCE_ACTIVE, 0), 1);
	assert_int_equal(cloud_idle_stop(s->c, 0), used + MAX_IDLE);
	until_asked(s);
	assert_int_equal(s->now, used + MAX_IDLE - WARNING);
	idle(s, s->now - used);
	assert_int_equal(announced(s), WARNING);
	feed(s, (struct cloud_event){.type = EVENT_TOUCH});
	assert_int_equal(count(s, ACTION_ANNOUNCE_ACTIVE, 0), 1);
	assert_int_equal(cloud_idle_stop(s->c, 0), s->now + MAX_IDLE);
	feed(s, (struct cloud_event){.type = EVENT_TOUCH});
	assert_int_equal(count(s, ACTION_ANNOUNCE_ACTIVE, 0), 0);
	s->now += 5000;
	feed(s, (struct cloud_event){.type = EVENT_START}); /* who says that means to use it */
	assert_int_equal(cloud_idle_stop(s->c, 0), s->now + MAX_IDLE);
	assert_int_equal(cloud_idle_stop(s->c, s->now + 7), s->now + 7 + MAX_IDLE);
}

/* Proves: a running job is use, whatever H2O's idle clock says. */
static void test_job_is_use(void **state)
{
	struct scene *s = *state;

	begin(s);
	for (int i = 0; i < 10; i++) {
		until_asked(s);
		feed(s, (struct cloud_event){
				.type = EVENT_IDLE, .idle_ms = 2 * MAX_IDLE, .flag = true});
		assert_true(cloud_usable(s->c));
		assert_int_equal(announced(s), 0);
		assert_int_equal(s->c->active_ms, s->now);
	}
}

/* Proves: a question that fails is no evidence: it never stops the cloud, however long that goes
 * on, and is put again and again; the first good answer does. */
static void test_failed_questions(void **state)
{
	struct scene *s = *state;
	uint64_t last, ready = begin(s);

	until_asked(s);
	idle(s, s->now - ready);
	for (int i = 0; i < 50; i++) {
		until_asked(s);
		last = s->now;
		idle(s, IDLE_UNKNOWN);
		assert_true(cloud_usable(s->c));
	}
	assert_true(s->now > ready + MAX_IDLE);
	until_asked(s);
	assert_in_range(s->now, last + 1000, last + 30000);
	idle(s, s->now - ready);
	assert_int_equal(s->c->state, CLOUD_STOPPING);
}

/* Proves: an answer to a question from before the deadline does not stop it when it comes late: it
 * is asked once more. */
static void test_late_answer(void **state)
{
	struct scene *s = *state;
	uint64_t asked, ready = begin(s);

	until_asked(s);
	idle(s, s->now - ready);
	until_asked(s);
	asked = s->now;
	s->now = ready + MAX_IDLE + 3;
	idle(s, s->now - ready);
	assert_true(asked < ready + MAX_IDLE && cloud_usable(s->c));
	until_asked(s);
	assert_in_range(s->now, ready + MAX_IDLE, ready + MAX_IDLE + 3);
	/* Nothing that is not asked for counts. */
	idle(s, 0);
	ready = s->now;
	idle(s, 100 * MAX_IDLE);
	assert_int_equal(s->c->active_ms, ready);
}

/* Proves: a loss ends all of it, and the next generation has the whole time, with no announcement
 * left over. */
static void test_new_generation(void **state)
{
	struct scene *s = *state;
	uint64_t ready = begin(s);

	until_asked(s);
	idle(s, s->now - ready);
	until_asked(s);
	ended(s, 0, 0, SIGKILL);
	assert_int_equal(cloud_idle_stop(s->c, 0), 0);
	idle(s, MAX_IDLE);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	all_end(s);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	to_forming(s);
	s->now += 5000;
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	assert_int_equal(s->c->state, CLOUD_READY);
	assert_int_equal(s->c->idle_said_ms, 0);
	assert_int_equal(cloud_idle_stop(s->c, 0), s->now + MAX_IDLE);
}

/* Proves: a reload moves the deadline; one that has passed by the new time is announced all the
 * same, a warning before the stop; off calls it off. */
static void test_live_change(void **state)
{
	struct scene *s = *state;
	struct cloud_conf next;
	uint64_t ready = begin(s);

	next = s->conf;
	s->now += 300000;
	for (unsigned i = 0; i < N; i++)
		s->c->nodes[i].answered_ms = s->now; /* all is well meanwhile */
	next.max_idle_duration_ms = 200000;          /* warning: 20 s */
	cloud_configure(s->c, &next, s->now);
	tick(s);
	assert_int_equal(count(s, ACTION_ASK_IDLE, 0), 1);
	idle(s, s->now - ready);
	assert_int_equal(announced(s), 20000);
	assert_int_equal(cloud_idle_stop(s->c, 0), s->now + 20000);
	cloud_drop_actions(s->c);
	s->conf.max_idle_duration_ms = 0;
	cloud_configure(s->c, &s->conf, s->now);
	assert_int_equal(count(s, ACTION_ANNOUNCE_ACTIVE, 0), 1);
	assert_int_equal(s->c->timers[TIMER_IDLE], 0);
	assert_int_equal(cloud_idle_stop(s->c, 0), 0);
}

/* ---- doors ---- */

static void arm(struct scene *s)
{
	s->conf.gate_mode = GATE_HOLD;
	s->conf.start_on = START_ON_CONNECT;
}

/* Proves: the door is open exactly while clients may come, holds while they soon may, and is shut
 * when nothing comes; without a gate it is nothing. */
static void test_door(void **state)
{
	struct scene *s = *state;

	s->conf.gate_mode = GATE_HOLD;
	assert_int_equal(cloud_door(s->c), DOOR_SHUT);
	feed(s, (struct cloud_event){.type = EVENT_START});
	assert_int_equal(cloud_door(s->c), DOOR_HOLD);
	to_forming(s);
	assert_int_equal(cloud_door(s->c), DOOR_HOLD);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(cloud_door(s->c), DOOR_HOLD);
		answers(s, i, N, true, false);
	}
	assert_int_equal(cloud_door(s->c), DOOR_OPEN);
	ended(s, 0, 0, SIGKILL);
	assert_int_equal(cloud_door(s->c), DOOR_HOLD);
	s->conf.gate_mode = GATE_OFF;
	assert_int_equal(cloud_door(s->c), DOOR_SHUT);
	s->conf.gate_mode = GATE_REFUSE;
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	assert_int_equal(cloud_door(s->c), DOOR_SHUT);
	feed(s, (struct cloud_event){.type = EVENT_START}); /* after this stop */
	assert_int_equal(cloud_door(s->c), DOOR_HOLD);
	feed(s, (struct cloud_event){.type = EVENT_SHUTDOWN});
	assert_int_equal(cloud_door(s->c), DOOR_SHUT);
}

/* Proves: a knock starts a stopped cloud that is armed; the operator's stop leaves it armed, unless
 * it is one for good; a start, also after that, arms it again. */
static void test_knock(void **state)
{
	struct scene *s = *state;

	feed(s, (struct cloud_event){.type = EVENT_KNOCK}); /* nobody waits for it */
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	arm(s);
	assert_true(cloud_armed(s->c));
	assert_int_equal(cloud_door(s->c), DOOR_HOLD);
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	assert_int_equal(s->c->state, CLOUD_STARTING);
	assert_int_equal(s->c->wanted, WANTED_RUNNING);
	assert_false(cloud_armed(s->c));
	assert_non_null(strstr(s->c->reason, "start_on = connect"));
	to_forming(s);
	assert_null(s->c->reason);
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	to_stopped(s);
	assert_true(cloud_armed(s->c));
	feed(s, (struct cloud_event){.type = EVENT_STOP, .flag = true});
	assert_false(cloud_armed(s->c));
	assert_int_equal(cloud_door(s->c), DOOR_SHUT);
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	feed(s, (struct cloud_event){.type = EVENT_STOP}); /* does not arm it */
	assert_false(cloud_armed(s->c));
	feed(s, (struct cloud_event){.type = EVENT_START});
	assert_int_equal(s->c->state, CLOUD_STARTING);
	feed(s, (struct cloud_event){.type = EVENT_PREPARE_FAILED, .text = "x", .flag = true});
	assert_int_equal(s->c->state, CLOUD_FAILED);
	assert_int_equal(cloud_door(s->c), DOOR_SHUT);
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	assert_int_equal(s->c->state, CLOUD_FAILED);
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	assert_true(cloud_armed(s->c)); /* started since the stop for good */
}

/* Proves: who knocks while it is being stopped has it started once, after that; and not when the
 * operator stops it again. */
static void test_knock_while_stopping(void **state)
{
	struct scene *s = *state;

	arm(s);
	to_ready(s);
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	assert_true(cloud_armed(s->c));
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	assert_int_equal(s->c->state, CLOUD_STOPPING);
	assert_false(cloud_armed(s->c)); /* it will start: no more knocks are wanted */
	assert_int_equal(cloud_door(s->c), DOOR_HOLD);
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	to_stopped(s);
	assert_int_equal(s->c->state, CLOUD_STARTING);
	assert_int_equal(s->c->generation, 1);
	to_forming(s);
	feed(s, (struct cloud_event){.type = EVENT_STOP});
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	feed(s, (struct cloud_event){.type = EVENT_STOP, .flag = true});
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	to_stopped(s);
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	assert_int_equal(s->c->generation, 2);
}

/* Proves: a start that was asked for while a client's /3/Shutdown ended the cloud is done once,
 * also when that shutdown becomes a loss. */
static void test_start_while_leaving(void **state)
{
	struct scene *s = *state;

	arm(s);
	to_ready(s);
	ended(s, 0, 0, 0);
	assert_true(s->c->leaving);
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	ended(s, 1, 0, SIGKILL);
	assert_int_equal(s->c->state, CLOUD_RECOVERING);
	to_stopped(s);
	assert_int_equal(s->c->state, CLOUD_STARTING);
	assert_false(s->c->restart_asked);
	to_forming(s);
	for (unsigned i = 0; i < N; i++)
		answers(s, i, N, true, false);
	for (unsigned i = 0; i < N; i++)
		ended(s, i, 0, 0);
	feed(s, (struct cloud_event){.type = EVENT_CLEANED});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
}

/* Proves: an unused cloud that starts on a connection is armed once it is stopped, and comes back
 * with the next one. */
static void test_idle_then_knock(void **state)
{
	struct scene *s = *state;
	uint64_t ready;

	arm(s);
	ready = begin(s);
	until_asked(s);
	idle(s, s->now - ready);
	while (cloud_usable(s->c)) {
		until_asked(s);
		idle(s, s->now - ready);
	}
	to_stopped(s);
	assert_true(cloud_armed(s->c));
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	assert_int_equal(s->c->state, CLOUD_STARTING);
	assert_int_equal(s->c->idled_ms, 0);
}

/* Proves: the door of a cloud that a client has shut down holds when another generation follows by
 * itself, and is shut when none does, or when the daemon ends. */
static void test_door_while_leaving(void **state)
{
	struct scene *s = *state;

	s->conf.gate_mode = GATE_HOLD;
	to_ready(s);
	ended(s, 0, 0, 0);
	assert_int_equal(s->c->state, CLOUD_STOPPING);
	assert_int_equal(cloud_door(s->c), DOOR_SHUT);
	s->conf.restart = RESTART_ALWAYS;
	assert_int_equal(cloud_door(s->c), DOOR_HOLD);
	feed(s, (struct cloud_event){.type = EVENT_SHUTDOWN});
	assert_int_equal(cloud_door(s->c), DOOR_SHUT);
}

/* Proves: a cloud is armed only as long as a connection may start it: not with a gate that refuses,
 * not without start_on = connect, not when it was removed from the configuration, and not when the
 * daemon ends. */
static void test_who_is_armed(void **state)
{
	struct scene *s = *state;

	arm(s);
	assert_true(cloud_armed(s->c));
	s->conf.gate_mode = GATE_REFUSE;
	assert_false(cloud_armed(s->c));
	s->conf.gate_mode = GATE_HOLD;
	s->conf.start_on = START_ON_COMMAND;
	assert_false(cloud_armed(s->c));
	s->conf.start_on = START_ON_CONNECT;
	s->c->removed = true;
	assert_false(cloud_armed(s->c));
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
	s->c->removed = false;
	feed(s, (struct cloud_event){.type = EVENT_SHUTDOWN});
	assert_false(cloud_armed(s->c));
	feed(s, (struct cloud_event){.type = EVENT_KNOCK});
	assert_int_equal(s->c->state, CLOUD_STOPPED);
}

/* Proves: an answer that comes when idle stop has been turned off stops nothing, and a touch of a
 * cloud that has none plans nothing. */
static void test_turned_off_while_asked(void **state)
{
	struct scene *s = *state;
	uint64_t ready = begin(s);

	until_asked(s);
	s->conf.max_idle_duration_ms = 0;
	cloud_configure(s->c, &s->conf, s->now);
	idle(s, s->now - ready + MAX_IDLE);
	assert_int_equal(s->c->state, CLOUD_READY);
	assert_int_equal(s->c->n_actions, 0);
	feed(s, (struct cloud_event){.type = EVENT_TOUCH});
	assert_int_equal(s->c->active_ms, s->now);
	assert_int_equal(s->c->timers[TIMER_IDLE], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		scene_test(test_idle_stop),
		scene_test(test_use_calls_it_off),
		scene_test(test_job_is_use),
		scene_test(test_failed_questions),
		scene_test(test_late_answer),
		scene_test(test_new_generation),
		scene_test(test_live_change),
		scene_test(test_door),
		scene_test(test_knock),
		scene_test(test_knock_while_stopping),
		scene_test(test_start_while_leaving),
		scene_test(test_idle_then_knock),
		scene_test(test_door_while_leaving),
		scene_test(test_who_is_armed),
		scene_test(test_turned_off_while_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
