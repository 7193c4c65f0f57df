/* Jobs for systemd when systemd is not well: what a bus that is absent, silent, or hangs up does to
 * us. What a real one does is in tests/e2e/test_systemd_scopes.py. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <sys/un.h>

#include "drv/scope.h"
#include "drv_test.h"

struct outcome {
	unsigned n;
	int result;
	char why[200];
};

static void on_done(int result, const char *why, void *arg)
{
	struct outcome *o = arg;

	o->n++;
	o->result = result;
	snprintf(o->why, sizeof(o->why), "%s", why);
}

static int start(uv_loop_t *loop, uint64_t timeout_ms, struct outcome *o, struct scope_job **j,
	struct err *e)
{
	pid_t pid = getpid();
	struct scope_request rq = {.name = "h2ofleet-test.scope",
		.description = "a test",
		.slice = "h2ofleet.slice",
		.pids = &pid,
		.n_pids = 1,
		.memory_max = 1u << 30,
		.cpu_percent = 50};

	return scope_start(loop, &rq, timeout_ms, on_done, o, j, e);
}

/* A socket at which nobody speaks D-Bus. Owned: close it, and free the directory. */
static int listen_at(char **dir)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_free_ char *address = NULL;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*dir = make_temp_dir();
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/bus", *dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 4), 0);
	address = xasprintf("unix:path=%s", sa.sun_path);
	setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1);
	return fd;
}

static void test_no_bus(_unused_ void **state)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct scope_job *j = NULL;
	struct outcome o = {0};
	uv_loop_t loop;

	setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus", 1);
	uv_loop_init(&loop);
	assert_true(start(&loop, 1000, &o, &j, &e) < 0);
	assert_non_null(strstr(err_msg(&e), "cannot connect to the system bus"));
	assert_null(j);
	finish_loop(&loop);
	assert_int_equal(o.n, 0);
}

/* Nobody answers: the deadline does, and not earlier; nothing has blocked meanwhile. */
static void test_silent_bus(_unused_ void **state)
{
	struct scope_job *j = NULL;
	struct outcome o = {0};
	char *dir;
	int fd = listen_at(&dir);
	unsigned fds = count_open_fds();
	uint64_t begun = clock_monotonic_ms();
	uv_loop_t loop;

	uv_loop_init(&loop);
	assert_int_equal(start(&loop, 200, &o, &j, NULL), 0);
	assert_int_equal(o.n, 0);
	assert_true(run_until(&loop, &o.n, 1));
	assert_true(clock_monotonic_ms() - begun >= 200);
	assert_int_equal(o.result, -ETIMEDOUT);
	finish_loop(&loop);
	assert_int_equal(o.n, 1);
	assert_true(count_open_fds() <= fds);
	close(fd);
	file_remove_tree(dir, NULL);
	free(dir);
}

/* It hangs up in the middle: told at once. */
static void test_bus_hangs_up(_unused_ void **state)
{
	struct scope_job *j = NULL;
	struct outcome o = {0};
	char *dir;
	int fd = listen_at(&dir), peer;
	uv_loop_t loop;

	uv_loop_init(&loop);
	assert_int_equal(start(&loop, DEADLINE_MS * 2, &o, &j, NULL), 0);
	peer = accept(fd, NULL, NULL);
	assert_true(peer >= 0);
	close(peer);
	assert_true(run_until(&loop, &o.n, 1));
	assert_true(o.result < 0 && o.result != -ETIMEDOUT);
	finish_loop(&loop);
	close(fd);
	file_remove_tree(dir, NULL);
	free(dir);
}

/* Cancelled, it never calls. */
static void test_cancel(_unused_ void **state)
{
	pid_t pid = getpid();
	struct scope_job *j = NULL;
	struct outcome o = {0};
	char *dir;
	int fd = listen_at(&dir);
	uv_loop_t loop;

	uv_loop_init(&loop);
	assert_int_equal(scope_attach(&loop, "h2ofleet-test.service", "/x", &pid, 1, 20, on_done,
				 &o, &j, NULL),
		0);
	scope_cancel(j);
	scope_cancel(NULL);
	run_for(&loop, 60);
	finish_loop(&loop);
	assert_int_equal(o.n, 0);
	close(fd);
	file_remove_tree(dir, NULL);
	free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_bus),
		cmocka_unit_test(test_silent_bus),
		cmocka_unit_test(test_bus_hangs_up),
		cmocka_unit_test(test_cancel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
