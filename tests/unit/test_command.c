/* Proves that helper commands end in exactly one callback, in bounded time, whatever they do with
 * their output. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "drv/command.h"
#include "drv_test.h"

struct seen {
	unsigned n;
	int code;
	int exec_errno;
	char *output;
};

static int setup(void **state)
{
	uv_loop_t *loop = xmalloc(sizeof(*loop));

	assert_int_equal(uv_loop_init(loop), 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	*state = loop;
	return 0;
}

static int teardown(void **state)
{
	finish_loop(*state);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		continue;
	free(*state);
	return 0;
}

static void on_done(int exit_code, int exec_errno, const char *output, void *arg)
{
	struct seen *s = arg;

	s->n++;
	s->code = exit_code;
	s->exec_errno = exec_errno;
	replace_str(&s->output, output);
}

static struct command *start(
	uv_loop_t *loop, const char *script, uint64_t timeout_ms, struct seen *s)
{
	char *const argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};
	char *const env[] = {(char *)"PATH=/usr/bin:/bin", NULL};
	struct command *c;

	*s = (struct seen){0};
	assert_int_equal(command_run(loop, argv, env, timeout_ms, on_done, s, &c), 0);
	assert_int_equal(s->n, 0);
	return c;
}

static void run(uv_loop_t *loop, const char *script, uint64_t timeout_ms, struct seen *s)
{
	start(loop, script, timeout_ms, s);
	assert_true(run_until(loop, &s->n, 1));
}

static void test_output_and_code(void **state)
{
	struct seen s;

	run(*state, "echo out; echo err >&2; printf 'a\\0b'; exit 3", DEADLINE_MS, &s);
	assert_int_equal(s.code, 3);
	assert_int_equal(s.exec_errno, 0);
	assert_string_equal(s.output, "out\nerr\na b");
	free(s.output);
}

static void test_cannot_be_executed(void **state)
{
	char *const argv[] = {(char *)"/nonexistent/java", (char *)"-version", NULL};
	char *const env[] = {NULL};
	struct seen s = {0};
	struct command *c;

	assert_int_equal(command_run(*state, argv, env, DEADLINE_MS, on_done, &s, &c), 0);
	assert_true(run_until(*state, &s.n, 1));
	assert_int_equal(s.code, -1);
	assert_int_equal(s.exec_errno, ENOENT);
	assert_string_equal(s.output, "");
	free(s.output);
}

static void test_killed_by_a_signal(void **state)
{
	struct seen s;

	run(*state, "echo x; kill -SEGV $$", DEADLINE_MS, &s);
	assert_int_equal(s.code, -1);
	assert_string_equal(s.output, "x\n");
	free(s.output);
}

/* What was printed before the timeout is kept, and grandchildren are killed, too. */
static void test_timeout(void **state)
{
	struct seen s;
	pid_t grandchild;

	run(*state, "sleep 1000 & echo $!; wait; exit 0", 500, &s);
	assert_int_equal(s.code, -1);
	assert_int_equal(s.exec_errno, 0);
	grandchild = (pid_t)atoi(s.output);
	assert_true(grandchild > 1);
	assert_true(wait_gone(grandchild));
	free(s.output);
}

/* The end of file never comes, the exit does. */
static void test_grandchild_keeps_the_pipe(void **state)
{
	struct seen s;

	run(*state, "sleep 1000 & echo $!; exit 5", DEADLINE_MS, &s);
	assert_int_equal(s.code, 5);
	assert_int_equal(kill((pid_t)atoi(s.output), SIGKILL), 0);
	free(s.output);
}

/* ... nor does one that writes without end hold us up. */
static void test_grandchild_writes_forever(void **state)
{
	struct seen s;

	run(*state, "yes & exit 0", DEADLINE_MS, &s);
	assert_int_equal(s.code, 0);
	free(s.output);
}

/* The end of file comes long before the exit. */
static void test_closes_its_output(void **state)
{
	struct seen s;

	run(*state, "echo bye; exec >&- 2>&-; sleep 0.1; exit 4", DEADLINE_MS, &s);
	assert_int_equal(s.code, 4);
	assert_string_equal(s.output, "bye\n");
	free(s.output);
}

/* Far more than a pipe holds: the command is not blocked, we keep 64 KiB. */
static void test_long_output_is_cut(void **state)
{
	struct seen s;

	run(*state, "head -c 1000000 /dev/zero | tr '\\0' x; exit 2", DEADLINE_MS, &s);
	assert_int_equal(s.code, 2);
	assert_int_equal(strlen(s.output), 65536);
	assert_int_equal(strspn(s.output, "x"), 65536);
	free(s.output);
}

/* Just under what a pipe holds, written at the very end: all of it is there. */
static void test_last_words_are_complete(void **state)
{
	struct seen s;

	run(*state, "head -c 60000 /dev/zero | tr '\\0' y", DEADLINE_MS, &s);
	assert_int_equal(strlen(s.output), 60000);
	free(s.output);
}

/* One that prints "here" and then, told to end, does as `trap` says. */
static struct command *start_trap(uv_loop_t *loop, const char *trap, struct seen *s)
{
	_cleanup_free_ char *script =
		xasprintf("trap '%s' TERM; echo here; while :; do sleep 0.01; done", trap);
	struct command *c = start(loop, script, DEADLINE_MS, s);

	for (int i = 0; i < DEADLINE_MS && !streq(command_output(c), "here\n"); i++)
		run_for(loop, 1);
	assert_string_equal(command_output(c), "here\n");
	return c;
}

/* Proves: one that is asked to end has time to clean up, and what it prints can be seen while it
 * runs; its end is reported like any other. */
static void test_asked_to_end(void **state)
{
	struct seen s;
	struct command *c = start_trap(*state, "echo cleaned; exit 7", &s);

	command_end(c, DEADLINE_MS);
	assert_true(run_until(*state, &s.n, 1));
	assert_int_equal(s.code, 7);
	assert_string_equal(s.output, "here\ncleaned\n");
	free(s.output);
}

/* Proves: one that does not heed it is killed after the grace that it was given. */
static void test_does_not_want_to_end(void **state)
{
	struct seen s;
	struct command *c = start_trap(*state, "", &s);
	uint64_t begun = clock_monotonic_ms();

	command_end(c, 100);
	assert_true(run_until(*state, &s.n, 1));
	assert_true(clock_monotonic_ms() >= begun + 100);
	assert_int_equal(s.code, -1);
	free(s.output);
}

/* Proves: one that nobody waits for any more ends all the same (teardown runs the loop until its
 * handles are closed), and its callback is not called. */
static void test_ends_alone(void **state)
{
	struct seen s;
	struct command *c = start_trap(*state, "exit 0", &s);

	command_end_alone(c, DEADLINE_MS);
	finish_loop(*state);
	assert_int_equal(uv_loop_init(*state), 0);
	assert_int_equal(s.n, 0);
}

/* Cancelled: no callback, no process, no zombie. */
static void test_cancel(void **state)
{
	struct seen s;
	char marker[] = "/tmp/h2ofleet-test-XXXXXX", *script, *line;
	pid_t pid;
	int fd = mkstemp(marker);

	assert_true(fd >= 0);
	close(fd);
	script = xasprintf("echo $$ > %s; exec sleep 1000", marker);
	struct command *c = start(*state, script, DEADLINE_MS, &s);
	line = await_line(marker);
	pid = (pid_t)atoi(line);
	assert_true(pid > 1);
	command_cancel(c);
	finish_loop(*state);
	assert_int_equal(s.n, 0);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(uv_loop_init(*state), 0);
	unlink(marker);
	free(script);
	free(line);
}

static void test_many_at_once(void **state)
{
	struct seen s[8];
	unsigned fds = count_open_fds();

	for (int i = 0; i < 8; i++) {
		_cleanup_free_ char *script = xasprintf("echo %d; exit %d", i, i);

		start(*state, script, DEADLINE_MS, &s[i]);
	}
	for (int i = 0; i < 8; i++) {
		_cleanup_free_ char *expected = xasprintf("%d\n", i);

		assert_true(run_until(*state, &s[i].n, 1));
		assert_int_equal(s[i].code, i);
		assert_string_equal(s[i].output, expected);
		free(s[i].output);
	}
	run_for(*state, 1);
	assert_true(count_open_fds() <= fds + 1); /* an epoll may have been made */
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_output_and_code),
		TEST(test_cannot_be_executed),
		TEST(test_killed_by_a_signal),
		TEST(test_timeout),
		TEST(test_grandchild_keeps_the_pipe),
		TEST(test_grandchild_writes_forever),
		TEST(test_closes_its_output),
		TEST(test_long_output_is_cut),
		TEST(test_last_words_are_complete),
		TEST(test_cancel),
		TEST(test_asked_to_end),
		TEST(test_does_not_want_to_end),
		TEST(test_ends_alone),
		TEST(test_many_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
