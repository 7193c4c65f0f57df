/* Proves that what is said of the machine and of processes is what /proc and /sys say, and that the
 * limits of control groups are found on every level. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "drv/cglimit.h"
#include "drv/machine.h"
#include "drv/procinfo.h"
#include "drv_test.h"

static void put(const char *dir, const char *path, const char *text)
{
	_cleanup_free_ char *file = xasprintf("%s/%s", dir, path);
	_cleanup_free_ char *parent = xstrdup(file);

	*strrchr(parent, '/') = '\0';
	assert_int_equal(file_mkdirs(parent, 0755, NULL), 0);
	assert_int_equal(file_write_atomic(file, text, strlen(text), 0644, false, NULL), 0);
}

static struct cglimit limits(const char *dir, const char *proc_cgroup)
{
	_cleanup_free_ char *file = xasprintf("%s/proc-cgroup", dir);
	struct cglimit out;

	put(dir, "proc-cgroup", proc_cgroup);
	cglimit_read(file, dir, &out);
	return out;
}

static int setup(void **state)
{
	*state = make_temp_dir();
	return 0;
}

static int teardown(void **state)
{
	file_remove_tree(*state, NULL);
	free(*state);
	return 0;
}

/* The lowest on any level above counts; "max" is none. */
static void test_cgroup_v2(void **state)
{
	const char *d = *state;
	struct cglimit l;

	put(d, "memory.max", "max\n");
	put(d, "a/memory.max", "1000000\n");
	put(d, "a/cpu.max", "150000 100000\n");
	put(d, "a/b/memory.max", "2000000\n");
	put(d, "a/b/cpu.max", "max 100000\n");
	put(d, "a/b/c/x", "");
	put(d, "other/memory.max", "5\n");
	l = limits(d, "0::/a/b/c\n");
	assert_int_equal(l.memory, 1000000);
	assert_true(l.cpus > 1.49 && l.cpus < 1.51);
	put(d, "a/b/c/memory.max", "999\n");
	assert_int_equal(limits(d, "0::/a/b/c\n").memory, 999);
	l = limits(d, "0::/\n");
	assert_true(l.memory == UINT64_MAX);
	assert_true(l.cpus <= 0);
	/* Inside a container's namespace: the root is the container's group. */
	put(d, "memory.max", "77\n");
	assert_int_equal(limits(d, "0::/\n").memory, 77);
	assert_int_equal(limits(d, "0::/../../system.slice\n").memory, 77);
	/* A path of the host's that is not here. */
	assert_int_equal(limits(d, "0::/docker/0123/456\n").memory, 77);
}

/* What is left is the least of any level; what the kernel can take back at once is not used. */
static void test_cgroup_memory_left(void **state)
{
	const char *d = *state;

	put(d, "a/memory.max", "1000\n");
	assert_true(limits(d, "0::/a/b\n").memory_left == UINT64_MAX);
	put(d, "a/memory.current", "900\n");
	assert_int_equal(limits(d, "0::/a/b\n").memory_left, 100);
	put(d, "a/memory.stat", "anon 200\ninactive_file 600\nactive_file 100\n");
	assert_int_equal(limits(d, "0::/a/b\n").memory_left, 700);
	put(d, "a/b/memory.max", "500\n");
	put(d, "a/b/memory.current", "501\n");
	assert_int_equal(limits(d, "0::/a/b\n").memory_left, 0);
	put(d, "memory/g/memory.limit_in_bytes", "4096\n");
	put(d, "memory/g/memory.usage_in_bytes", "4000\n");
	put(d, "memory/g/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n");
	assert_int_equal(limits(d, "12:memory:/g\n").memory_left, 1096);
}

static void test_cgroup_v1(void **state)
{
	const char *d = *state;
	struct cglimit l;

	put(d, "memory/memory.limit_in_bytes", "9223372036854771712\n");
	put(d, "memory/docker/1/memory.limit_in_bytes", "4096000\n");
	put(d, "cpu/cpu.cfs_quota_us", "-1\n");
	put(d, "cpu/cpu.cfs_period_us", "100000\n");
	put(d, "cpu/docker/1/cpu.cfs_quota_us", "50000\n");
	put(d, "cpu/docker/1/cpu.cfs_period_us", "100000\n");
	l = limits(d, "12:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n3:cpuset:/docker/1\n0::/x\n");
	assert_int_equal(l.memory, 4096000);
	assert_true(l.cpus > 0.49 && l.cpus < 0.51);
	l = limits(d, "12:memory:/\n4:cpu,cpuacct:/\n");
	assert_true(l.memory == UINT64_MAX);
	assert_true(l.cpus <= 0);
	assert_true(limits(d, "nonsense\n:\n\n").memory == UINT64_MAX);
}

static void test_memory(_unused_ void **state)
{
	uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	assert_true(machine_memory() > 0);
	assert_true(machine_memory() <= total);
	assert_true(machine_memory_available() > 0);
	assert_true(machine_memory_available() <= total);
}

/* taskset and cpusets count. */
static void test_cores(_unused_ void **state)
{
	cpu_set_t old, one;
	size_t first = 0;

	assert_int_equal(sched_getaffinity(0, sizeof(old), &old), 0);
	assert_true(machine_cores() >= 1);
	assert_true(machine_cores() <= (unsigned)CPU_COUNT(&old));
	while (!CPU_ISSET(first, &old))
		first++;
	CPU_ZERO(&one);
	CPU_SET(first, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(machine_cores(), 1);
	assert_int_equal(sched_setaffinity(0, sizeof(old), &old), 0);
}

static void test_oom_kills_and_boot_id(_unused_ void **state)
{
	_cleanup_free_ char *vmstat = read_text("/proc/vmstat");
	_cleanup_free_ char *expected = read_text("/proc/sys/kernel/random/boot_id");
	char id[40];

	if (strstr(vmstat, "\noom_kill "))
		assert_true(machine_oom_kills() >= 0);
	else
		assert_int_equal(machine_oom_kills(), -1);
	machine_boot_id(id);
	expected[strcspn(expected, "\n")] = '\0';
	assert_string_equal(id, expected);
	assert_int_equal(strlen(id), 36);
}

/* Of what does not exist yet, its nearest parent's file system. */
static void test_disk_free(void **state)
{
	_cleanup_free_ char *deep = xasprintf("%s/not/there/yet", (char *)*state);
	_cleanup_free_ char *below = xasprintf("%s/file/x", (char *)*state);

	put(*state, "file", "x");
	assert_true(machine_disk_free(*state) > 0);
	assert_true(machine_disk_free(deep) > 0);
	assert_true(machine_disk_free(below) > 0);
	assert_true(machine_disk_free("/nonexistent/x") > 0);
	assert_true(machine_disk_free("relative/nonexistent") > 0);
	assert_int_equal(machine_disk_free("/proc/self/nothing"), 0); /* /proc has no blocks */
}

/* ---- processes ---- */

/* The name of a process may hold what looks like the rest of the line. */
static void test_process_with_a_nasty_name(_unused_ void **state)
{
	int go[2];
	pid_t pid;
	char comm[32], c;
	struct process_stat st;

	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		_cleanup_close_ int fd = open("/proc/self/comm", O_WRONLY | O_CLOEXEC);

		setsid();
		if (write(fd, ") Z 1 (2) 3", 11) != 11 || write(go[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(go[1]);
	assert_int_equal(read(go[0], &c, 1), 1);
	close(go[0]);
	process_comm(pid, comm);
	assert_string_equal(comm, ") Z 1 (2) 3");
	assert_int_equal(process_stat_read(pid, &st), 0);
	assert_true(st.state == 'S' || st.state == 'R');
	assert_int_equal(st.ppid, getpid());
	assert_int_equal(st.pgrp, pid);
	assert_int_equal(st.session, pid);
	assert_true(process_start_ticks(pid) >= process_start_ticks(getpid()));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(process_start_ticks(pid), 0);
	process_comm(pid, comm);
	assert_string_equal(comm, "");
	assert_int_equal(process_start_ticks(0), 0);
	assert_int_equal(process_start_ticks(-1), 0);
}

static void test_environment(_unused_ void **state)
{
	char *const argv[] = {(char *)"/bin/sleep", (char *)"1000", NULL};
	char *const env[] = {(char *)"A=1", (char *)"TOKEN=abc", (char *)"LAST=x y", NULL};
	uint64_t end = clock_monotonic_ms() + DEADLINE_MS;
	_cleanup_free_ char *rest = NULL;
	pid_t pid = fork();

	if (pid == 0) {
		execve(argv[0], argv, env);
		_exit(1);
	}
	while (!process_has_env(pid, "TOKEN=abc") && clock_monotonic_ms() < end)
		poll(NULL, 0, 1);
	assert_true(process_has_env(pid, "TOKEN=abc"));
	assert_true(process_has_env(pid, "LAST=x y"));
	assert_false(process_has_env(pid, "TOKEN=ab"));
	assert_false(process_has_env(pid, "TOKEN=abcd"));
	assert_false(process_has_env(pid, "OKEN=abc"));
	rest = process_env(pid, "LAST=x");
	assert_string_equal(rest, " y");
	assert_null(process_env(pid, "LAST=y"));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_false(process_has_env(pid, "TOKEN=abc"));
}

static void test_snapshot(_unused_ void **state)
{
	static const char *const wanted[] = {"state ", "VmRSS:", "Threads:", "Max open files",
		"open descriptors: ", "threads (", "wchan:"};
	_cleanup_free_ char *s = process_snapshot(getpid());
	_cleanup_free_ char *first = xasprintf("process %d (", (int)getpid());
	_cleanup_free_ char *gone = process_snapshot(0);

	assert_true(has_prefix(s, first));
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		if (!strstr(s, wanted[i]))
			fail_msg("no \"%s\" in:\n%s", wanted[i], s);
	assert_string_equal(gone, "process 0: there is no such process\n");
}

/* ---- leaked libraries ---- */

static void put_old(const char *dir, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	_cleanup_free_ char *content = xcalloc(1, 8193);
	struct timespec old[2] = {{.tv_sec = time(NULL) - 3600}, {.tv_sec = time(NULL) - 3600}};

	memset(content, 'x', 8192);
	put(dir, name, content);
	assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
}

static void test_leaked_libraries(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/libxgboost4j_gpu2.so", (char *)*state);
	_cleanup_close_ int fd = -1;
	uint64_t bytes;
	unsigned n;
	void *map;

	machine_leaked_xgboost_in("/nonexistent", &n, &bytes);
	assert_int_equal(n, 0);
	put_old(*state, "libxgboost4j_gpu1.so");
	put_old(*state, "libxgboost4j_gpu2.so");
	put_old(*state, "libother.so");
	put_old(*state, "libxgboost.txt");
	put(*state, "libxgboost4j_gpu3.so", "being unpacked now");
	machine_leaked_xgboost_in(*state, &n, &bytes);
	assert_int_equal(n, 2);
	assert_true(bytes >= 16384 && bytes < 1u << 20);
	/* One is in use. */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_true(map != MAP_FAILED);
	machine_leaked_xgboost_in(*state, &n, &bytes);
	assert_int_equal(n, 1);
	munmap(map, 4096);
	machine_leaked_xgboost_in(*state, &n, &bytes);
	assert_int_equal(n, 2);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_cgroup_v2),
		TEST(test_cgroup_v1),
		TEST(test_cgroup_memory_left),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_cores),
		cmocka_unit_test(test_oom_kills_and_boot_id),
		TEST(test_disk_free),
		cmocka_unit_test(test_process_with_a_nasty_name),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_snapshot),
		TEST(test_leaked_libraries),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
