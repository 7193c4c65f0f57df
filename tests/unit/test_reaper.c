/* Proves what reaper.h promises: no stranger stays a zombie, no status of ours is taken. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "drv/procinfo.h"
#include "drv/reaper.h"
#include "drv/spawn.h"
#include "drv_test.h"

#define N 40

struct own {
	int wanted;
	struct proc *proc;
	unsigned *n_right;
};

static void on_proc_exit(struct proc *p, const struct proc_exit *x, void *arg)
{
	struct own *o = arg;

	*o->n_right += x->known && x->signal == 0 && x->code == o->wanted;
	proc_free(p);
}

static void spawn_own(uv_loop_t *loop, struct own *o)
{
	_cleanup_free_ char *script = xasprintf("exit %d", o->wanted);
	char *const argv[] = {(char *)"/bin/sh", (char *)"-c", script, NULL};
	char *const env[] = {(char *)"PATH=/usr/bin:/bin", NULL};
	struct spawn_request rq = {.argv = argv, .env = env};

	assert_int_equal(proc_spawn(loop, &rq, on_proc_exit, o, &o->proc, NULL), 0);
	assert_true(proc_is_watched(proc_pid(o->proc)));
}

/* Not by spawn.h. */
static pid_t stranger(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(3);
	return pid;
}

static bool is_zombie_or_runs(pid_t pid)
{
	struct process_stat st;

	return process_stat_read(pid, &st) == 0 && st.ppid == getpid();
}

static void until_gone(uv_loop_t *loop, const pid_t *pids, size_t n)
{
	uint64_t end = clock_monotonic_ms() + DEADLINE_MS;

	for (size_t i = 0; i < n; i++) {
		while (is_zombie_or_runs(pids[i])) {
			uv_run(loop, UV_RUN_NOWAIT);
			poll(NULL, 0, 1);
			assert_true(clock_monotonic_ms() < end);
		}
	}
}

/* Strangers that end before, between and after children of ours; all ended before the loop has its
 * first turn, so that the reaper meets ours, too. */
static void test_strangers_among_ours(_unused_ void **state)
{
	struct reaper *r;
	struct own own[N];
	unsigned n_right = 0;
	pid_t strangers[N];
	uv_loop_t loop;

	assert_int_equal(uv_loop_init(&loop), 0);
	for (int i = 0; i < N / 2; i++)
		strangers[i] = stranger();
	r = reaper_start(&loop);
	for (int i = 0; i < N; i++) {
		own[i] = (struct own){.wanted = i, .n_right = &n_right};
		spawn_own(&loop, &own[i]);
		if (i >= N / 2)
			strangers[i] = stranger();
	}
	for (int i = 0; i < N; i++) {
		struct pollfd p = {.fd = pidfd_open(proc_pid(own[i].proc), 0), .events = POLLIN};

		proc_release(own[i].proc);
		while (poll(&p, 1, DEADLINE_MS) < 0) /* a SIGCHLD */
			assert_int_equal(errno, EINTR);
		assert_true(p.revents & POLLIN);
		close(p.fd);
	}
	assert_true(run_until(&loop, &n_right, N));
	until_gone(&loop, strangers, N);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	reaper_stop(r);
	finish_loop(&loop);
}

/* An orphan, as process 1 of a container gets them. */
static void test_orphans(_unused_ void **state)
{
	struct reaper *r;
	uv_loop_t loop;
	pid_t parent, orphan = 0;
	int fds[2];

	assert_int_equal(uv_loop_init(&loop), 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	r = reaper_start(&loop);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	parent = fork();
	if (parent == 0) {
		orphan = fork();
		if (orphan == 0) {
			raise(SIGSTOP); /* until its parent is gone */
			_exit(0);
		}
		_exit(write(fds[1], &orphan, sizeof(orphan)) == sizeof(orphan) ? 0 : 1);
	}
	assert_int_equal(read(fds[0], &orphan, sizeof(orphan)), sizeof(orphan));
	until_gone(&loop, &parent, 1);
	while (!is_zombie_or_runs(orphan))
		poll(NULL, 0, 1);
	kill(orphan, SIGKILL);
	until_gone(&loop, &orphan, 1);
	close(fds[0]);
	close(fds[1]);
	reaper_stop(r);
	finish_loop(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strangers_among_ours),
		cmocka_unit_test(test_orphans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
