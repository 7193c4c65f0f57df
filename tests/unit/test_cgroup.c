/* Control groups: names, the kernel's texts, and, where this machine lets us make some, what is
 * done to them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>

#include "drv/cgroup.h"
#include "drv_test.h"

#define ID "0123456789abcdef"

/* A group is known by its name: fleet, cloud and generation; nothing that is merely like it is. */
static void test_names(_unused_ void **state)
{
	static const char *const others[] = {"h2ofleet-01234567-dev", "h2ofleet-01234567-dev.",
		"h2ofleet-01234567-dev.7x", "h2ofleet-01234567-dev.7.service",
		"h2ofleet-01234567-dev2.7", "h2ofleet-01234567-de.7", "h2ofleet-0123456-dev.7",
		"h2ofleet-01234568-dev.7", "h2ofleet-01234567-.7", "xh2ofleet-01234567-dev.7",
		"h2ofleet-01234567-dev.77777777777777777777", "user.slice", "",
		"h2ofleet-01234567-dev.-7", "h2ofleet-01234567-dev.7.scope.scope"};
	_cleanup_free_ char *name = cgroup_name(ID, "dev", 7);
	uint64_t generation = 0;

	assert_string_equal(name, "h2ofleet-01234567-dev.7");
	assert_true(cgroup_name_parse(name, ID, "dev", &generation));
	assert_int_equal(generation, 7);
	assert_true(cgroup_name_parse("h2ofleet-01234567-a-b.12.scope", ID, "a-b", &generation));
	assert_int_equal(generation, 12);
	assert_true(cgroup_name_parse(name, ID, NULL, &generation));
	assert_false(cgroup_name_parse(name, ID, "a", &generation));
	assert_false(cgroup_name_parse(name, "fedcba9876543210", "dev", &generation));
	assert_false(cgroup_name_parse(name, "", NULL, &generation));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (cgroup_name_parse(others[i], ID, "dev", &generation))
			fail_msg("'%s' was taken for ours", others[i]);
}

static void test_paths(_unused_ void **state)
{
	static const struct {
		const char *text, *path;
	} cases[] = {
		{"0::/\n", "/"},
		{"9:name=systemd:/x\n4:memory:/m\n0::/system.slice/h2ofleetd.service\n",
			"/system.slice/h2ofleetd.service"},
		{"1:cpu:/a\n", NULL},
		{"", NULL},
		{"0::/../../other\n", NULL}, /* outside of our namespace */
		{"0::/gone.scope (deleted)\n", NULL},
		{"10::/a\n0::/b", "/b"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *path = cgroup_parse_path(cases[i].text);

		if (!streq_null(path, cases[i].path))
			fail_msg("'%s' gives %s", cases[i].text, path ? path : "nothing");
	}
}

static void test_directories(_unused_ void **state)
{
	static const char v2[] =
		"20 1 0:5 / /proc rw - proc proc rw\n"
		"30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
	static const char hybrid[] =
		"31 20 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		"30 20 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
	static const char bound[] = /* a container that sees its own part, at an odd place */
		"30 20 0:26 /docker/abc /mnt/a\\040b rw master:9 - cgroup2 cgroup rw\n";
	static const struct {
		const char *mounts, *path, *dir;
	} cases[] = {
		{v2, "/", "/sys/fs/cgroup"},
		{v2, "/a.slice/b.scope", "/sys/fs/cgroup/a.slice/b.scope"},
		{hybrid, "/a", "/sys/fs/cgroup/unified/a"},
		{bound, "/docker/abc/d", "/mnt/a b/d"},
		{bound, "/docker/abc", "/mnt/a b"},
		{bound, "/docker/abcd", NULL},
		{bound, "/other", NULL},
		{"20 1 0:5 / /proc rw - proc proc rw\n", "/", NULL},
		{"garbage - cgroup2 x", "/", NULL},
		{"", "/", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *dir = cgroup_parse_dir(cases[i].mounts, cases[i].path);

		if (!streq_null(dir, cases[i].dir))
			fail_msg("case %zu: %s gives %s", i, cases[i].path, dir ? dir : "nothing");
	}
}

static void test_texts(_unused_ void **state)
{
	static const char events[] =
		"low 0\nhigh 0\nmax 2\noom 1\noom_kill 3\noom_group_kill 18446744073709551615\n";
	uint64_t v = 0;
	double p = 0;

	assert_true(cgroup_parse_key(events, "oom", &v));
	assert_int_equal(v, 1);
	assert_true(cgroup_parse_key(events, "oom_kill", &v));
	assert_int_equal(v, 3);
	assert_true(cgroup_parse_key(events, "oom_group_kill", &v));
	assert_true(v == UINT64_MAX);
	assert_false(cgroup_parse_key(events, "oom_ki", &v));
	assert_false(cgroup_parse_key(events, "kill", &v));
	assert_false(cgroup_parse_key("", "oom", &v));
	assert_false(cgroup_parse_key("oom x\n", "oom", &v));
	assert_true(cgroup_parse_pressure(
		"some avg10=34.56 avg60=1.00 avg300=0.00 total=9\nfull avg10=0.00 ...", &p));
	assert_true(p > 34.55 && p < 34.57);
	assert_false(cgroup_parse_pressure("full avg10=1.00 avg60=0.00\n", &p));
	assert_false(cgroup_parse_pressure("", &p));
}

/* ---- with groups of our own ---- */

struct sandbox {
	char *dir; /* NULL: this machine does not let us */
};

static int setup(void **state)
{
	struct sandbox *b = xcalloc(1, sizeof(*b));
	_cleanup_free_ char *own = cgroup_of(0);

	*state = b;
	if (!own || !cgroup_is_ours(own))
		return 0;
	b->dir = xasprintf("%s/h2ofleet-test-%d", own, (int)getpid());
	if (cgroup_make(b->dir) < 0) {
		free(b->dir);
		b->dir = NULL;
	}
	return 0;
}

static int teardown(void **state)
{
	struct sandbox *b = *state;

	if (b->dir) {
		cgroup_kill(b->dir);
		for (int i = 0; i < 1000 && cgroup_populated(b->dir); i++)
			poll(NULL, 0, 5);
		cgroup_remove(b->dir);
	}
	free(b->dir);
	free(b);
	return 0;
}

#define NEED_GROUPS(b)                                                                             \
	do {                                                                                       \
		if (!(b)->dir) {                                                                   \
			print_message("no writable cgroup v2 here\n");                             \
			skip();                                                                    \
		}                                                                                  \
	} while (0)

/* A child in a session of its own, which waits for ever. */
static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		setsid();
		for (;;)
			pause();
	}
	assert_true(pid > 0);
	return pid;
}

static void reap(pid_t pid, int want_signal)
{
	int status = 0;

	assert_true(wait_gone(pid));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), want_signal);
}

static void await_empty(const char *dir)
{
	for (int i = 0; i < 2000 && cgroup_populated(dir); i++)
		poll(NULL, 0, 5);
	assert_false(cgroup_populated(dir));
}

/* All in and below it die at once, whatever session they are in; the group can be removed after. */
static void test_kill(void **state)
{
	struct sandbox *b = *state;
	_cleanup_free_ char *sub = NULL, *seen = NULL;
	pid_t one, two;

	NEED_GROUPS(b);
	sub = xasprintf("%s/below", b->dir);
	assert_int_equal(cgroup_make(sub), 0);
	assert_int_equal(cgroup_make(sub), 0);
	assert_false(cgroup_populated(b->dir));
	one = sleeper();
	two = sleeper();
	assert_int_equal(cgroup_add(b->dir, one), 0);
	assert_int_equal(cgroup_add(sub, two), 0);
	seen = cgroup_of(two);
	assert_string_equal(seen, sub);
	assert_true(cgroup_populated(b->dir));
	assert_int_equal(cgroup_remove(b->dir), -EBUSY);
	assert_int_equal(cgroup_kill(b->dir), 0);
	reap(one, SIGKILL);
	reap(two, SIGKILL);
	await_empty(b->dir);
	assert_int_equal(cgroup_remove(b->dir), 0);
	assert_int_equal(access(b->dir, F_OK), -1);
	assert_int_equal(cgroup_remove(b->dir), 0);
	assert_true(cgroup_kill(b->dir) < 0);
	assert_false(cgroup_populated(b->dir));
}

/* We never end ourselves: neither our own group nor one above it is killed. Tried in a child, in a
 * group made for it: the test's own may be the whole machine's. */
static void test_own_group_is_spared(void **state)
{
	struct sandbox *b = *state;
	int status = 0;
	pid_t pid;

	NEED_GROUPS(b);
	pid = fork();
	if (pid == 0) {
		_cleanup_free_ char *sub = xasprintf("%s/below", b->dir);

		if (cgroup_make(sub) < 0 || cgroup_add(sub, getpid()) < 0)
			_exit(1);
		_exit(cgroup_kill(b->dir) == -EPERM && cgroup_kill(sub) == -EPERM ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* What is in a group itself goes to a subgroup, what is below it stays. */
static void test_move_down(void **state)
{
	struct sandbox *b = *state;
	_cleanup_free_ char *sub = NULL, *keeper = NULL, *seen = NULL, *seen_two = NULL;
	pid_t one, two;

	NEED_GROUPS(b);
	sub = xasprintf("%s/below", b->dir);
	keeper = xasprintf("%s/keeper", b->dir);
	assert_int_equal(cgroup_make(sub), 0);
	one = sleeper();
	two = sleeper();
	assert_int_equal(cgroup_add(b->dir, one), 0);
	assert_int_equal(cgroup_add(sub, two), 0);
	assert_int_equal(cgroup_move_down(b->dir, "keeper"), 0);
	seen = cgroup_of(one);
	seen_two = cgroup_of(two);
	assert_string_equal(seen, keeper);
	assert_string_equal(seen_two, sub);
	assert_int_equal(cgroup_kill(b->dir), 0);
	reap(one, SIGKILL);
	reap(two, SIGKILL);
}

static void test_pressure(void **state)
{
	struct sandbox *b = *state;
	struct cgroup_pressure p;

	assert_false(cgroup_read_pressure("/nonexistent", &p));
	assert_true(p.cpu < 0 && p.memory < 0 && p.io < 0);
	if (access("/proc/pressure/memory", R_OK) == 0)
		assert_true(cgroup_read_pressure(NULL, &p));
	NEED_GROUPS(b);
	if (access("/proc/pressure/memory", R_OK) == 0)
		assert_true(cgroup_read_pressure(b->dir, &p));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_directories),
		cmocka_unit_test(test_texts),
		cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
		cmocka_unit_test_setup_teardown(test_own_group_is_spared, setup, teardown),
		cmocka_unit_test_setup_teardown(test_move_down, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pressure, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
