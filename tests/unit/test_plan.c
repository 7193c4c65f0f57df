/* Launch plans: memory, threads, flatfiles, command line, environment. */
#include "cmocka_all.h"

#include <errno.h>

#include "model/plan.h"

static struct cloud_conf conf_of(int64_t nodes)
{
	return (struct cloud_conf){.name = (char *)"dev",
		.h2o_name = (char *)"dev",
		.nodes = nodes,
		.fast_boot = BOOT_NO,
		.bind_to_localhost = true};
}

static const struct machine_facts machine = {16ull << 30, 8};
static const struct launch_place place = {.java = "/j/bin/java",
	.java_major = 17,
	.jar = "/h/h2o.jar",
	.ice_root = "/s/ice",
	.tmp_dir = "/s/ice/tmp",
	.log_dir = "/l",
	.flatfile = "/s/flat",
	.token = "f/dev/0/1"};

static struct cloud *cloud_of(const struct cloud_conf *conf)
{
	struct cloud *c = cloud_new(conf, 1);

	c->h2o_name = xstrdup("dev-1-abcd");
	cloud_for_each_node (n, c)
		n->api_port = (uint16_t)(54321 + 2 * n->index);
	return c;
}

static int memory(struct cloud_conf *conf, enum mem_kind kind, uint64_t value, uint64_t *xmx)
{
	uint64_t xms;

	conf->max_mem_size = (struct mem_spec){kind, value};
	return plan_memory(conf, &machine, xmx, &xms, NULL);
}

/* Proves: percentages and auto are of the machine and divided by the nodes; absurd heaps are
 * refused. */
static void test_memory(void **state)
{
	struct cloud_conf conf = conf_of(4);
	uint64_t xmx = 0;

	(void)state;
	assert_int_equal(memory(&conf, MEM_BYTES, 2ull << 30, &xmx), 0);
	assert_true(xmx == 2ull << 30);
	assert_int_equal(memory(&conf, MEM_PERCENT, 50, &xmx), 0);
	assert_true(xmx == machine.mem_bytes / 100 * 50 / 4);
	assert_int_equal(memory(&conf, MEM_AUTO, 0, &xmx), 0);
	assert_true(xmx == machine.mem_bytes / 100 * 25 / 4);
	assert_int_equal(memory(&conf, MEM_UNSET, 0, &xmx), 0);
	assert_true(xmx == 0);
	assert_int_equal(memory(&conf, MEM_BYTES, 17ull << 30, &xmx), -ERANGE);
	assert_int_equal(memory(&conf, MEM_BYTES, 1 << 20, &xmx), -ERANGE);
	conf.nodes = 1000;
	assert_int_equal(memory(&conf, MEM_AUTO, 0, &xmx), -ERANGE); /* 4 MB each */
	conf.nodes = 1;
	conf.min_mem_size = (struct mem_spec){MEM_BYTES, 2ull << 30};
	assert_int_equal(memory(&conf, MEM_BYTES, 1ull << 30, &xmx), -ERANGE);
}

/* Proves: what cannot be told for now is no fault of the configuration. */
static void test_memory_is_not_known(void **state)
{
	const struct machine_facts nothing = {.mem_bytes = 0, .cores = 1};
	struct cloud_conf conf = conf_of(1);
	uint64_t xmx, xms;

	(void)state;
	conf.max_mem_size = (struct mem_spec){MEM_BYTES, 1ull << 30};
	assert_int_equal(plan_memory(&conf, &nothing, &xmx, &xms, NULL), -EAGAIN);
	conf.max_mem_size = (struct mem_spec){MEM_UNSET, 0};
	assert_int_equal(plan_memory(&conf, &nothing, &xmx, &xms, NULL), 0);
	assert_true(xmx == 0 && xms == 0);
}

/* Proves: cores are divided, never below one; one node and -1 get all. */
static void test_nthreads(void **state)
{
	struct cloud_conf conf = conf_of(3);

	(void)state;
	assert_int_equal(plan_nthreads(&conf, &machine), 2);
	conf.nodes = 20;
	assert_int_equal(plan_nthreads(&conf, &machine), 1);
	conf.nodes = 1;
	assert_int_equal(plan_nthreads(&conf, &machine), 0);
	conf.nodes = 3;
	conf.nthreads = NTHREADS_ALL;
	assert_int_equal(plan_nthreads(&conf, &machine), 0);
	conf.nthreads = 5;
	assert_int_equal(plan_nthreads(&conf, &machine), 5);
}

/* Proves: a flatfile names every member, or those that are there. */
static void test_flatfile(void **state)
{
	struct cloud_conf conf = conf_of(3);
	struct cloud *c = cloud_of(&conf);
	_cleanup_free_ char *flatfile = plan_flatfile(c, NULL);
	_cleanup_free_ char *some = plan_flatfile(c, (bool[]){true, false, true});

	(void)state;
	assert_string_equal(flatfile, "127.0.0.1:54321\n127.0.0.1:54323\n127.0.0.1:54325\n");
	assert_string_equal(some, "127.0.0.1:54321\n127.0.0.1:54325\n");
	cloud_free(c);
}

static char *command_line_at(const struct cloud_conf *conf, const struct launch_place *at)
{
	struct cloud *c = cloud_of(conf);
	_cleanup_(strv_free) struct strv argv = STRV_NULL;
	char *all = xstrdup("");

	assert_int_equal(plan_argv(c, 0, at, &machine, &argv, NULL), 0);
	for (size_t i = 0; i < argv.n; i++) {
		char *more = xasprintf("%s%s ", all, argv.v[i]);

		free(all);
		all = more;
	}
	cloud_free(c);
	return all;
}

static char *command_line(const struct cloud_conf *conf)
{
	return command_line_at(conf, &place);
}

/* Proves: the plain command line is exactly this. */
static void test_argv_plain(void **state)
{
	struct cloud_conf conf = conf_of(1);
	_cleanup_free_ char *line = NULL;

	(void)state;
	conf.max_mem_size = (struct mem_spec){MEM_BYTES, 512 << 20};
	line = command_line(&conf);
	assert_string_equal(line,
		"/j/bin/java -Xmx512m -Djava.io.tmpdir=/s/ice/tmp "
		"-XX:ErrorFile=/l/hs_err_pid%p.log -Dsys.ai.h2o.telemetry.disabled=true "
		"-jar /h/h2o.jar -name dev-1-abcd -ip 127.0.0.1 -web_ip 127.0.0.1 -port 54321 "
		"-flatfile /s/flat -ice_root /s/ice -log_dir /l ");
}

/* Proves: every option of the configuration reaches the command line, JVM options before the
 * program and H2O's after it; a class path needs what -jar would have opened. */
static void test_argv_full(void **state)
{
	struct cloud_conf conf = conf_of(2);
	struct launch_place with_recovery = place;
	_cleanup_(strv_free) struct strv argv = STRV_NULL;
	_cleanup_free_ char *line = NULL;
	struct cloud *c;

	(void)state;
	conf.enable_assertions = true;
	conf.min_mem_size = (struct mem_spec){MEM_BYTES, 64 << 20};
	conf.allow_unsupported_java = true;
	conf.extra_classpath = (char *)"/a.jar:/b.jar";
	conf.bind_to_localhost = false;
	conf.log_level = (char *)"WARN";
	conf.max_log_file_size = (char *)"5MB";
	conf.context_path = (char *)"h2o";
	strv_add(&conf.jvm_custom_args, "-XX:+UseSerialGC");
	strv_add(&conf.h2o_args, "-disable_flow");
	line = command_line(&conf);
	assert_non_null(strstr(line, "/j/bin/java -ea -Xms64m "));
	assert_non_null(strstr(line, " -Dsys.ai.h2o.debug.allowJavaVersions=17 -XX:+UseSerialGC "
				     "--add-opens=java.base/java.lang=ALL-UNNAMED "));
	assert_non_null(strstr(line, " -cp /h/h2o.jar:/a.jar:/b.jar water.H2OApp "));
	assert_non_null(strstr(line, " -nthreads 4 "));
	assert_non_null(strstr(line, " -log_level WARN -max_log_file_size 5MB "));
	assert_non_null(strstr(line, " -context_path h2o -disable_flow "));
	assert_null(strstr(line, "-web_ip"));
	assert_null(strstr(line, "-auto_recovery_dir"));

	with_recovery.recovery_dir = "/s/recovery";
	c = cloud_of(&conf);
	assert_int_equal(plan_argv(c, 1, &with_recovery, &machine, &argv, NULL), 0);
	assert_string_equal(argv.v[argv.n - 3], "-auto_recovery_dir");
	assert_string_equal(argv.v[argv.n - 2], "/s/recovery");
	cloud_free(c);
	strv_free(&conf.jvm_custom_args);
	strv_free(&conf.h2o_args);
}

/* Proves: what makes a boot shorter comes before the user's options, which can so overrule each of
 * it; with fast_boot = no the command line is the plain one. */
static void test_argv_boot(void **state)
{
	struct cloud_conf conf = conf_of(1);
	_cleanup_(strv_free) struct strv boot = STRV_NULL;
	struct launch_place at = place;
	_cleanup_free_ char *plain = NULL, *none = NULL, *line = NULL, *many = NULL;

	(void)state;
	strv_add(&conf.jvm_custom_args, "-Dsys.ai.h2o.heartbeat.benchmark.enabled=true");
	plain = command_line(&conf);
	at.boot = &boot;
	none = command_line_at(&conf, &at);
	assert_string_equal(none, plain);
	conf.fast_boot = BOOT_YES;
	strv_add(&boot, "-Djava.library.path=/c/native");
	strv_add(&boot, "-XX:SharedArchiveFile=/c/classes.jsa");
	line = command_line_at(&conf, &at);
	assert_non_null(
		strstr(line, " -Dsys.ai.h2o.telemetry.disabled=true -Djava.library.path=/c/native "
			     "-XX:SharedArchiveFile=/c/classes.jsa "
			     "-Dsys.ai.h2o.heartbeat.benchmark.enabled=false "
			     "-Dsys.ai.h2o.heartbeat.benchmark.enabled=true -jar "));
	conf.nodes = 8; /* one for each core */
	many = command_line_at(&conf, &at);
	assert_non_null(strstr(many, "enabled=false -XX:CompileThresholdScaling=4 -Dsys"));
	at.java_major = 8;
	free(many);
	many = command_line_at(&conf, &at);
	assert_null(strstr(many, "CompileThresholdScaling"));
	strv_free(&conf.jvm_custom_args);
}

static struct boot_wish wish_of(enum fast_boot mode, const char *arg)
{
	struct cloud_conf conf = conf_of(1);
	struct boot_wish w;

	conf.fast_boot = (int)mode;
	if (arg)
		strv_add(&conf.jvm_custom_args, arg);
	plan_boot(&conf, &w);
	strv_free(&conf.jvm_custom_args);
	return w;
}

/* Proves: each part of the cache is used unless the key or an option of the user's own rules out
 * that part, and the key that did is named. */
static void test_boot_parts(void **state)
{
	static const struct {
		enum fast_boot mode;
		const char *arg;
		bool native, archive;
		const char *why;
	} cases[] = {
		{BOOT_YES, NULL, true, true, NULL},
		{BOOT_YES, "-XX:+UseG1GC", true, true, NULL},
		{BOOT_YES, "-Djava.library.path=/x", false, true, "jvm_custom_args"},
		{BOOT_YES, "-Xshare:off", true, false, "jvm_custom_args"},
		{BOOT_YES, "-XX:SharedArchiveFile=/x", true, false, "jvm_custom_args"},
		{BOOT_YES, "-XX:ArchiveClassesAtExit=/x", true, false, "jvm_custom_args"},
		{BOOT_YES, "-XX:AOTCache=/x", true, false, "jvm_custom_args"},
		{BOOT_YES, "-XX:+UseZGC", true, false, "jvm_custom_args"},
		{BOOT_YES, "-XX:ObjectAlignmentInBytes=16", true, false, "jvm_custom_args"},
		{BOOT_YES, "-XX:+UseCompactObjectHeaders", true, false, "jvm_custom_args"},
		{BOOT_YES, "-XX:-UseCompactObjectHeaders", true, true, NULL},
		{BOOT_YES, "-XX:-UseSharedSpaces", true, false, "jvm_custom_args"},
		{BOOT_YES, "-XX:+UseSharedSpaces", true, true, NULL},
		{BOOT_YES, "-XX:+RequireSharedSpaces", true, false, "jvm_custom_args"},
		{BOOT_YES, "--patch-module=a=b", true, false, "jvm_custom_args"},
		{BOOT_NATIVE_ONLY, NULL, true, false, "fast_boot"},
		{BOOT_NATIVE_ONLY, "-Djava.library.path=/x", false, false, "fast_boot"},
		{BOOT_NO, NULL, false, false, "fast_boot"},
		{BOOT_NO, "-Xshare:off", false, false, "fast_boot"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct boot_wish w = wish_of(cases[i].mode, cases[i].arg);

		assert_int_equal(w.native, cases[i].native);
		assert_int_equal(w.archive, cases[i].archive);
		assert_true(streq_null(w.why, cases[i].why));
	}
}

static bool has(const struct strv *env, const char *assignment)
{
	for (size_t i = 0; i < env->n; i++)
		if (streq(env->v[i], assignment))
			return true;
	return false;
}

/* Proves: what is ours or systemd's never reaches a JVM; the cloud's own variables win. */
static void test_env(void **state)
{
	static char *const base[] = {(char *)"PATH=/bin", (char *)"NOTIFY_SOCKET=/run/n",
		(char *)"LISTEN_FDS=1", (char *)"LISTEN_PID=7", (char *)"LISTEN_FDNAMES=control",
		(char *)"WATCHDOG_USEC=1", (char *)"WATCHDOG_PID=7", (char *)"INVOCATION_ID=12ab",
		(char *)"JOURNAL_STREAM=8:1", (char *)"SYSTEMD_EXEC_PID=7",
		(char *)"MEMORY_PRESSURE_WATCH=/x", (char *)"STATE_DIRECTORY=/var/lib/h2ofleet",
		(char *)"JAVA_TOOL_OPTIONS=-Xrs", (char *)"_JAVA_OPTIONS=-Xmx1m",
		(char *)"H2O_KUBERNETES_SERVICE_DNS=x", (char *)"H2OFLEET_TOKEN=old",
		(char *)"H2OFLEET_H2O_AUTH=user:secret", (char *)"TZ=UTC", NULL};
	struct cloud_conf conf = conf_of(1);
	_cleanup_(strv_free) struct strv env = STRV_NULL;
	struct cloud *c;

	(void)state;
	strv_add(&conf.env, "TZ=Europe/Prague");
	c = cloud_of(&conf);
	plan_env(c, base, &place, &env);
	assert_int_equal(env.n, 4);
	assert_true(has(&env, "PATH=/bin"));
	assert_true(has(&env, "TZ=Europe/Prague"));
	assert_true(has(&env, "DO_NOT_TRACK=1"));
	assert_true(has(&env, "H2OFLEET_TOKEN=f/dev/0/1"));
	cloud_free(c);
	strv_free(&conf.env);
}

/* Proves: a class path or a main class of one's own takes the place of -jar, with H2O's main class
 * where none is named; Java 8 knows nothing of --add-opens. */
static void test_class_path(void **state)
{
	struct cloud_conf conf = conf_of(1);
	struct launch_place java8 = place;
	_cleanup_free_ char *more = NULL, *own = NULL, *old = NULL;

	(void)state;
	conf.extra_classpath = (char *)"/x/a.jar:/x/b";
	more = command_line(&conf);
	assert_non_null(strstr(more, "-cp /h/h2o.jar:/x/a.jar:/x/b water.H2OApp -name"));
	assert_non_null(strstr(more, "--add-opens=java.base/java.lang=ALL-UNNAMED"));
	conf.extra_classpath = NULL;
	conf.main_class = (char *)"my.App";
	own = command_line(&conf);
	assert_non_null(strstr(own, "-cp /h/h2o.jar my.App -name"));
	java8.java_major = 8;
	old = command_line_at(&conf, &java8);
	assert_null(strstr(old, "--add-opens"));
	assert_non_null(strstr(old, "-cp /h/h2o.jar my.App -name"));
}

/* Proves: without room for its heaps there is no command line, but a sentence. */
static void test_no_room(void **state)
{
	struct cloud_conf conf = conf_of(1);
	_cleanup_(strv_free) struct strv argv = STRV_NULL;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct cloud *c;

	(void)state;
	conf.max_mem_size = (struct mem_spec){MEM_BYTES, 1ull << 40};
	c = cloud_of(&conf);
	assert_int_equal(plan_argv(c, 0, &place, &machine, &argv, &e), -ERANGE);
	assert_int_equal(argv.n, 0);
	assert_non_null(strstr(err_msg(&e), "max_mem_size asks for"));
	conf.max_mem_size = (struct mem_spec){MEM_UNSET, 0};
	conf.min_mem_size = (struct mem_spec){MEM_BYTES, 1};
	err_clear(&e);
	assert_int_equal(plan_argv(c, 0, &place, &machine, &argv, &e), -ERANGE);
	assert_non_null(strstr(err_msg(&e), "min_mem_size comes to"));
	cloud_free(c);
}

/* Proves: who has no cloud, such as a builder of boot caches, gets an environment without what is
 * ours or systemd's, too, and nothing else is lost. A member binds to localhost behind a gate
 * whatever is configured. */
static void test_clean_env(void **state)
{
	static char *const base[] = {(char *)"PATH=/bin", (char *)"NOTIFY_SOCKET=/run/x",
		(char *)"LISTEN_FDS=3", (char *)"JAVA_TOOL_OPTIONS=-Dx", (char *)"NOTIFY=1", NULL};
	struct cloud_conf conf = conf_of(1);
	_cleanup_(strv_free) struct strv env = STRV_NULL;

	(void)state;
	plan_clean_env(base, &env);
	assert_int_equal(env.n, 2);
	assert_string_equal(env.v[0], "PATH=/bin");
	assert_string_equal(env.v[1], "NOTIFY=1");
	conf.gate_mode = GATE_OFF;
	assert_true(plan_binds_to_localhost(&conf));
	conf.bind_to_localhost = false;
	assert_false(plan_binds_to_localhost(&conf));
	conf.gate_mode = GATE_HOLD;
	assert_true(plan_binds_to_localhost(&conf));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_memory_is_not_known),
		cmocka_unit_test(test_nthreads),
		cmocka_unit_test(test_flatfile),
		cmocka_unit_test(test_argv_plain),
		cmocka_unit_test(test_argv_full),
		cmocka_unit_test(test_argv_boot),
		cmocka_unit_test(test_boot_parts),
		cmocka_unit_test(test_env),
		cmocka_unit_test(test_class_path),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_clean_env),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
