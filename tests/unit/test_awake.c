/* Proves what awake.h promises, with a process that really is stopped. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>

#include "drv/awake.h"
#include "drv_test.h"

struct scene {
	uv_loop_t loop;
	struct awake *awake;
	uv_timer_t timer;
	uv_poll_t poll;
	uint64_t begun, fired_at, read_at; /* by the awake clock; 0: not yet */
	unsigned n_fired;
};

/* Stops us `after_ms` from now for `for_ms`. */
static pid_t stop_us(unsigned after_ms, unsigned for_ms)
{
	pid_t us = getpid(), pid = fork();

	if (pid == 0) {
		usleep(after_ms * 1000);
		kill(us, SIGSTOP);
		usleep(for_ms * 1000);
		kill(us, SIGCONT);
		_exit(0);
	}
	return pid;
}

static void reap(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
}

static void scene_begin(struct scene *s)
{
	assert_int_equal(uv_loop_init(&s->loop), 0);
	s->awake = awake_new(&s->loop);
	s->timer.data = s;
	uv_timer_init(&s->loop, &s->timer);
	s->begun = awake_now(s->awake);
}

static void scene_end(struct scene *s)
{
	awake_free(s->awake);
	uv_close((uv_handle_t *)&s->timer, NULL);
	finish_loop(&s->loop);
}

static void on_timer(uv_timer_t *t)
{
	struct scene *s = t->data;

	s->fired_at = awake_now(s->awake);
	s->n_fired++;
}

/* In the middle of a sleep: what was left of it when we woke is not lost, what was over it is. */
static void test_stopped_while_asleep(_unused_ void **state)
{
	struct scene s = {0};
	uint64_t wall = clock_monotonic_ms();
	pid_t pid;

	scene_begin(&s);
	uv_timer_start(&s.timer, on_timer, 1500, 0);
	pid = stop_us(100, 3000);
	while (!s.n_fired)
		uv_run(&s.loop, UV_RUN_ONCE);
	assert_true(clock_monotonic_ms() - wall >= 3000);
	assert_in_range(s.fired_at - s.begun, 0, 1700);
	/* And it goes on at once. */
	run_for(&s.loop, 200);
	assert_in_range(awake_now(s.awake) - s.fired_at, 150, 1000);
	reap(pid);
	scene_end(&s);
}

/* While we were at work. */
static void test_stopped_while_busy(_unused_ void **state)
{
	struct scene s = {0};
	uint64_t wall = clock_monotonic_ms();
	pid_t pid;

	scene_begin(&s);
	pid = stop_us(0, 1000);
	for (uint64_t before = s.begun; clock_monotonic_ms() - wall < 1100; usleep(1000)) {
		uint64_t now = awake_now(s.awake);

		assert_true(now >= before);
		before = now;
	}
	assert_in_range(awake_now(s.awake) - s.begun, 0, 500);
	reap(pid);
	scene_end(&s);
}

static void on_readable(uv_poll_t *p, _unused_ int status, _unused_ int events)
{
	struct scene *s = p->data;

	s->read_at = awake_now(s->awake);
	uv_poll_stop(p);
}

static void on_deadline(uv_timer_t *t)
{
	struct scene *s = t->data;
	uint64_t now = awake_now(s->awake);

	if (now - s->begun >= 300) {
		s->fired_at = now;
		s->n_fired++;
	} else { /* as the supervisor does it: not yet */
		uv_timer_start(t, on_deadline, 300 - (now - s->begun), 0);
	}
}

/* What arrived while we were stopped is read before a deadline that passed meanwhile is due. */
static void test_reading_comes_first(_unused_ void **state)
{
	struct scene s = {0};
	int fds[2];
	pid_t pid;

	scene_begin(&s);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	uv_poll_init(&s.loop, &s.poll, fds[0]);
	s.poll.data = &s;
	uv_timer_start(&s.timer, on_deadline, 300, 0);
	pid = fork();
	if (pid == 0) {
		pid_t us = getppid();

		usleep(50000);
		kill(us, SIGSTOP);
		sleep(1);
		if (write(fds[1], "x", 1) != 1)
			_exit(1);
		kill(us, SIGCONT);
		_exit(0);
	}
	uv_poll_start(&s.poll, UV_READABLE, on_readable);
	while (!s.n_fired)
		uv_run(&s.loop, UV_RUN_ONCE);
	assert_true(s.read_at);
	assert_in_range(s.read_at - s.begun, 0, 299);
	assert_in_range(s.fired_at - s.begun, 300, 2000);
	reap(pid);
	uv_close((uv_handle_t *)&s.poll, NULL);
	close(fds[0]);
	close(fds[1]);
	scene_end(&s);
}

/* Without any of that it is a clock. */
static void test_plain(_unused_ void **state)
{
	struct scene s = {0};

	scene_begin(&s);
	uv_timer_start(&s.timer, on_timer, 10, 10);
	while (s.n_fired < 50)
		uv_run(&s.loop, UV_RUN_ONCE);
	assert_in_range(s.fired_at - s.begun, 300, 5000);
	scene_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stopped_while_asleep),
		cmocka_unit_test(test_stopped_while_busy),
		cmocka_unit_test(test_reading_comes_first),
		cmocka_unit_test(test_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
