/* The builder of the boot cache, as far as it needs no JVM: the comparison, what stays and what
 * goes, its arguments, and how it runs programs. The rest is end to end (test_prepare.py). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "drv/bootwork.h"
#include "drv_test.h"

static char *top;

static int setup(void **state)
{
	(void)state;
	umask(022);
	top = make_temp_dir();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	file_remove_tree(top, NULL);
	free(TAKE_PTR(top));
	return 0;
}

/* --- endpoints ---------------------------------------------------------------------------- */

static json_t *answer(const char *output_schema)
{
	return json_pack("{s:s, s:s, s:s, s:s}", "handler_class", "H", "handler_method", "m",
		"input_schema", "InV3", "output_schema", output_schema);
}

static json_t *routes(void)
{
	return json_pack("{s:[o], s:[o, o], s:[o]}", "GET /3/Cloud", answer("CloudV3"),
		"POST /4/sessions", answer("SessionIdV4"), answer("Other"), "GET /3/About",
		answer("AboutV3"));
}

static void assert_differ(json_t *other, const char *why)
{
	json_t *plain = routes();
	_cleanup_free_ char *got = boot_endpoints_differ(plain, other);

	if (why)
		assert_string_equal(got, why);
	else
		assert_null(got);
	json_decref(plain);
	json_decref(other);
}

static void test_endpoints(void **state)
{
	json_t *o = routes();

	(void)state;
	assert_differ(o, NULL);
	/* The same in another order. */
	o = json_pack("{s:[o], s:[o], s:[o, o]}", "GET /3/About", answer("AboutV3"), "GET /3/Cloud",
		answer("CloudV3"), "POST /4/sessions", answer("SessionIdV4"), answer("Other"));
	assert_differ(o, NULL);
	/* What trap 12 looks like. */
	o = routes();
	json_array_set_new(json_object_get(o, "POST /4/sessions"), 0, answer("Schema"));
	assert_differ(o, "1 of 3 endpoints differ: POST /4/sessions has output_schema Schema "
			 "instead of SessionIdV4");
	/* Of two with the same method and pattern, the first may win. */
	o = routes();
	json_array_set_new(json_object_get(o, "POST /4/sessions"), 0, answer("Other"));
	json_array_set_new(json_object_get(o, "POST /4/sessions"), 1, answer("SessionIdV4"));
	assert_differ(o, "1 of 3 endpoints differ: POST /4/sessions has output_schema Other "
			 "instead of SessionIdV4");
	o = routes();
	json_object_del(o, "GET /3/Cloud");
	assert_differ(o, "1 of 3 endpoints differ: GET /3/Cloud is missing");
	o = routes();
	json_object_set_new(o, "GET /3/More", json_pack("[o]", answer("X")));
	assert_differ(o, "1 of 3 endpoints differ: GET /3/More is there in addition");
	o = routes();
	json_array_remove(json_object_get(o, "POST /4/sessions"), 1);
	assert_differ(o, "1 of 3 endpoints differ: POST /4/sessions is missing");
}

/* Hundreds of differences make no sentence of hundreds. */
static void test_many_differences(void **state)
{
	json_t *plain = json_object(), *other = json_object();
	_cleanup_free_ char *why = NULL;

	(void)state;
	for (int i = 0; i < 295; i++) {
		_cleanup_free_ char *key = xasprintf("GET /%d", i);

		json_object_set_new(plain, key, json_pack("[o]", answer("A")));
		json_object_set_new(other, key, json_pack("[o]", answer("B")));
	}
	why = boot_endpoints_differ(plain, other);
	assert_true(has_prefix(why, "295 of 295 endpoints differ: GET /"));
	assert_true(strlen(why) < 400);
	assert_string_equal(why + strlen(why) - 5, "; ...");
	json_decref(plain);
	json_decref(other);
}

/* --- arguments ---------------------------------------------------------------------------- */

static void test_args(void **state)
{
	const struct boot_build rq = {.cache_dir = "/c d",
		.runtime = {.java = "/j",
			.java_major = 17,
			.jar = "/h2o.jar",
			.extra_classpath = "/a=b:/c",
			.main_class = "M",
			.big_heap = true},
		.idle = true,
		.max_total = 5ull << 30,
		.node_timeout_ms = 7};
	_cleanup_(strv_free) struct strv argv = STRV_NULL, again = STRV_NULL;
	char *relative[] = {(char *)"cache_dir=c", (char *)"java=/j", (char *)"jar=/h",
		(char *)"java_major=17", NULL};
	struct boot_build got;

	(void)state;
	bootbuild_add_args(&rq, &argv);
	assert_int_equal(bootbuild_parse_args(argv.v, &got), 0);
	assert_string_equal(got.runtime.extra_classpath, "/a=b:/c");
	assert_true(got.idle && got.runtime.big_heap && !got.again && !got.native_only);
	bootbuild_add_args(&got, &again);
	assert_true(strv_equal(&argv, &again));
	assert_int_equal(bootbuild_parse_args(relative, &got), -EINVAL);
	strv_add(&argv, "more=1");
	assert_int_equal(bootbuild_parse_args(argv.v, &got), -EINVAL);
	strv_free(&argv);
	strv_add(&argv, "max_total=-1");
	assert_int_equal(bootbuild_parse_args(argv.v, &got), -EINVAL);
}

static void test_big_heap(void **state)
{
	const uint64_t gb = 1ull << 30;

	(void)state;
	assert_false(boot_heap_is_big(31 * gb, 1000 * gb));
	assert_true(boot_heap_is_big(32 * gb, 8 * gb));
	assert_false(boot_heap_is_big(0, 64 * gb));
	assert_true(boot_heap_is_big(0, 256 * gb));
}

/* --- what stays --------------------------------------------------------------------------- */

/* An entry of a file that is there; `age` in seconds. Owned by the caller. */
static char *make_entry(const char *name, size_t size, int age, bool stale)
{
	_cleanup_free_ char *dir = xasprintf("%s/%s", top, name);
	_cleanup_free_ char *data = xcalloc(1, size + 1);
	_cleanup_free_ char *file = xasprintf("%s/classes.jsa", dir);
	_cleanup_free_ char *jar = xasprintf("%s/h2o.jar", top);
	const struct timespec t[2] = {{.tv_sec = 1000000 - age}, {.tv_sec = 1000000 - age}};
	_cleanup_(boot_identity_clear) struct boot_identity id = {0};

	if (access(jar, F_OK) < 0)
		assert_int_equal(file_write_atomic(jar, "jar", 3, 0644, false, NULL), 0);
	assert_int_equal(boot_identity_of_jar(jar, &id, NULL), 0);
	if (stale)
		strv_add(&id.lines, "java 1 2 /nowhere/java");
	assert_int_equal(mkdir(dir, 0755), 0);
	assert_int_equal(file_write_atomic(file, data, size, 0644, false, NULL), 0);
	assert_int_equal(boot_write_verdict(dir,
				 json_pack("{s:o}", "identity", boot_identity_json(&id)), NULL),
		0);
	assert_int_equal(utimensat(AT_FDCWD, dir, t, 0), 0);
	return xstrdup(name);
}

static bool is_there(const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", top, name);

	return access(path, F_OK) == 0;
}

#define K(digit) digit "000000000000000"

static void make(const char *name, size_t size, int age, bool stale)
{
	free(make_entry(name, size, age, stale));
}

static void test_sweep(void **state)
{
	(void)state;
	make(K("1"), 10, 0, false);
	make(K("2"), 10, 0, true);
	make("native-" K("3"), 10, 0, false);
	make("native-" K("4"), 10, 0, true);
	make(K("5") ".ignored", 10, 0, false);
	make("work", 10, 0, true);
	make("somebody's", 10, 0, true);
	boot_sweep(top);
	assert_true(is_there(K("1")));
	assert_false(is_there(K("2")));
	assert_true(is_there("native-" K("3")));
	assert_false(is_there("native-" K("4")));
	assert_false(is_there(K("5") ".ignored"));
	assert_false(is_there("work"));
	assert_true(is_there("somebody's"));
}

static void test_bound(void **state)
{
	const size_t mb = 1u << 20;

	(void)state;
	make(K("1"), mb, 500, false); /* the oldest, but to be kept */
	make(K("2"), mb, 400, false);
	make(K("3"), mb, 300, false);
	make("native-" K("4"), mb, 450, false); /* likewise */
	boot_bound(top, 0, K("1"), "native-" K("4"));
	assert_true(is_there(K("2")));
	boot_bound(top, 3 * mb + mb / 2, K("1"), "native-" K("4"));
	assert_false(is_there(K("2")));
	assert_true(is_there(K("3")));
	boot_bound(top, 1, K("1"), "native-" K("4"));
	assert_false(is_there(K("3")));
	assert_true(is_there(K("1")) && is_there("native-" K("4")));
}

/* An entry that takes the place of another: at no moment there is none. */
static void test_publish(void **state)
{
	_cleanup_free_ char *work = xasprintf("%s/work", top);
	_cleanup_free_ char *fresh = xasprintf("%s/work/entry", top);
	_cleanup_free_ char *verdict = xasprintf("%s/" K("1") "/" BOOT_VERDICT, top);
	_cleanup_free_ char *text = NULL;
	struct boot_job job = {.boot = top, .work = work};

	(void)state;
	make(K("1"), 10, 0, false);
	assert_int_equal(mkdir(work, 0700), 0);
	assert_int_equal(mkdir(fresh, 0755), 0);
	assert_int_equal(boot_write_verdict(fresh, json_pack("{s:s}", "why", "new"), NULL), 0);
	assert_int_equal(boot_publish(&job, fresh, K("1"), NULL), 0);
	text = read_text(verdict);
	assert_non_null(strstr(text, "new"));
	assert_true(is_there("work/entry/classes.jsa")); /* the old one, to go with `work` */
}

static void test_lock(void **state)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *path = xasprintf("%s/" BOOT_LOCK, top);
	struct stat st;
	int fd;

	(void)state;
	/* Nobody else may open it, so nobody else can hold it: also one that others could open. */
	assert_int_equal(file_write_atomic(path, "", 0, 0644, false, NULL), 0);
	fd = boot_lock(top, NULL);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(boot_lock(top, &e), -EBUSY);
	assert_non_null(strstr(err_msg(&e), "another process is at work in /"));
	close(fd);
	fd = boot_lock(top, NULL);
	assert_true(fd >= 0);
	close(fd);
}

/* --- running ------------------------------------------------------------------------------ */

static int sh(const char *script, uint64_t timeout_ms, char **output, struct err *e)
{
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)(uintptr_t)script, NULL};
	char *env[] = {(char *)"A=b", NULL};

	return boot_run(argv, env, top, timeout_ms, output, e);
}

static void test_run(void **state)
{
	char *nothing[] = {(char *)"/nowhere/java", NULL};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *output = NULL, *want = xasprintf("b %s\nerr\n", top);
	_cleanup_free_ char *file = xasprintf("%s/pid", top), *text = NULL;
	unsigned fds = count_open_fds();

	(void)state;
	assert_int_equal(sh("echo $A $PWD; echo err >&2; exit 3", DEADLINE_MS, &output, &e), 3);
	assert_string_equal(output, want);
	free(TAKE_PTR(output));
	assert_int_equal(sh("kill -9 $$", DEADLINE_MS, &output, &e), 128 + SIGKILL);
	free(TAKE_PTR(output));
	assert_int_equal(boot_run(nothing, nothing + 1, NULL, 1000, &output, &e), -ENOENT);
	assert_string_equal(
		err_msg(&e), "/nowhere/java cannot be executed: No such file or directory");
	/* What it has started goes with it. */
	assert_int_equal(sh("sleep 600 & echo $! > pid; wait", 300, &output, &e), -ETIMEDOUT);
	assert_null(output);
	text = await_line(file);
	assert_true(wait_gone(atoi(text)));
	assert_int_equal(count_open_fds(), fds);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

/* What a JVM that was killed, told to end or short of memory has failed at may still be had. */
static void test_not_its_fault(void **state)
{
	static const char *const wants[] = {
		"# There is insufficient memory for the Java Runtime Environment to continue.\n",
		"os::commit_memory(0x1, 2, 0) failed; error='Not enough space' (errno=12)\n",
		("Error occurred during initialization of VM\n"
		 "Could not reserve enough space for 524288KB object heap\n"),
		"java.lang.OutOfMemoryError: unable to create native thread\n"};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct boot_process p = BOOT_PROCESS_NULL;
	struct pollfd pfd = {.events = POLLIN};
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)"read x || kill -9 $$", NULL};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wants); i++)
		assert_int_equal(boot_not_its_fault(1, wants[i], &e), -ENOMEM);
	assert_int_equal(boot_not_its_fault(128 + SIGTERM, "", &e), -ECANCELED);
	assert_string_equal(err_msg(&e), "java was told to end by signal 15");
	assert_int_equal(boot_not_its_fault(1, "Unable to allocate metaspace\n", &e), 0);
	assert_int_equal(boot_not_its_fault(128 + SIGSEGV, "", &e), 0);
	assert_int_equal(boot_not_its_fault(-1, "it runs\n", &e), 0);
	assert_int_equal(boot_spawn(argv, argv + 3, NULL, STDERR_FILENO, &p, &e), 0);
	pfd.fd = p.pidfd;
	assert_int_equal(poll(&pfd, 1, DEADLINE_MS), 1);
	assert_int_equal(boot_ended_with(&p), 128 + SIGKILL);
	assert_int_equal(boot_not_its_fault(boot_ended_with(&p), "", &e), -ENOMEM);
	boot_end(&p);
}

/* Signals that are noted end a wait, and are as before afterwards; an ignored one stays so. */
static void test_told_to_end(void **state)
{
	_cleanup_free_ char *output = NULL,
			    *script = xasprintf("kill -TERM %d; sleep 600", getpid());
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct sigaction sa;

	(void)state;
	signal(SIGHUP, SIG_IGN);
	boot_catch_signals(true);
	assert_int_equal(sigaction(SIGHUP, NULL, &sa), 0);
	assert_ptr_equal(sa.sa_handler, SIG_IGN);
	assert_int_equal(sh(script, DEADLINE_MS, &output, &e), -EINTR);
	assert_true(boot_told_to_end());
	boot_catch_signals(false);
	assert_int_equal(sigaction(SIGTERM, NULL, &sa), 0);
	assert_ptr_equal(sa.sa_handler, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	boot_catch_signals(true);
	assert_false(boot_told_to_end());
	boot_catch_signals(false);
}

/* Nothing is written out any more once we are told to end. */
static void test_sync(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/file", top), *data = xcalloc(1, 5 << 20);
	_cleanup_close_ int fd = -1;

	(void)state;
	assert_int_equal(file_write_atomic(path, data, 5 << 20, 0644, false, NULL), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(boot_sync(fd), 0);
	assert_int_equal(boot_sync(-1), -EBADF);
	boot_catch_signals(true);
	raise(SIGTERM);
	assert_int_equal(boot_sync(fd), -EINTR);
	boot_catch_signals(false);
	boot_catch_signals(true); /* forgets it */
	boot_catch_signals(false);
}

/* The builder is killed with SIGKILL: what it started ends too, by the kernel. */
static void test_dies_with_us(void **state)
{
	_cleanup_free_ char *file = xasprintf("%s/pid", top), *text = NULL;
	pid_t builder, child;

	(void)state;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	builder = fork();
	if (builder == 0) {
		char *output;

		sh("echo $$ > pid; exec sleep 600", DEADLINE_MS, &output, NULL);
		_exit(0);
	}
	text = await_line(file);
	child = atoi(text);
	assert_true(child > 0);
	kill(builder, SIGKILL);
	assert_int_equal(waitpid(builder, NULL, 0), builder);
	assert_int_equal(waitpid(child, NULL, 0), child); /* we are its reaper now */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		T(endpoints),
		T(many_differences),
		T(args),
		T(big_heap),
		T(sweep),
		T(bound),
		T(publish),
		T(lock),
		T(run),
		T(not_its_fault),
		T(told_to_end),
		T(sync),
		T(dies_with_us),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
