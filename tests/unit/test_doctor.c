/* cli/doctor*.c: with a Java and a jar made for the test; what the machine itself has (memory,
 * kernel, sysctl) is only looked at where the test decides it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <zip.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/strbuf.h"
#include "cli/checks.h"
#include "cli/doctor.h"
#include "drv/packages.h"

static char *top;
static json_t *report;
static const char *ask_at; /* --socket */

static char *below(const char *path)
{
	return xasprintf("%s/%s", top, path);
}

static void put(const char *path, const char *text, mode_t mode)
{
	_cleanup_free_ char *full = below(path);
	_cleanup_free_ char *dir = xstrdup(full);

	*strrchr(dir, '/') = '\0';
	assert_int_equal(file_mkdirs(dir, 0755, NULL), 0);
	assert_int_equal(file_write_atomic(full, text, strlen(text), mode, false, NULL), 0);
}

static void put_java(const char *path, const char *version)
{
	_cleanup_free_ char *text =
		xasprintf("#!/bin/sh\necho 'openjdk version \"%s\"' >&2\n", version);

	put(path, text, 0755);
}

static void put_jar(const char *path)
{
	_cleanup_free_ char *full = below(path);
	zip_t *z;

	put(path, "", 0644);
	z = zip_open(full, ZIP_CREATE | ZIP_TRUNCATE, NULL);
	assert_non_null(z);
	zip_file_add(z, "water/H2OApp.class", zip_source_buffer(z, "app", 3, 0), 0);
	assert_int_equal(zip_close(z), 0);
}

/* The fleet's directories are the test's; `clouds` is the rest of the file. */
static void put_conf(const char *clouds)
{
	_cleanup_free_ char *text = xasprintf("[fleet]\nsocket = %s/sock\nstate_dir = %s/state\n"
					      "log_dir = %s/log\ncache_dir = %s/cache\n%s",
		top, top, top, top, clouds);

	put("h2ofleet.conf", text, 0644);
}

/* Owned by the caller. */
static char *output_of(bool json, int *r)
{
	_cleanup_free_ char *conf = below("h2ofleet.conf");
	struct strbuf text = STRBUF_NULL;
	FILE *f = strbuf_stream(&text);

	*r = cmd_doctor(conf, ask_at, json, f);
	fclose(f);
	return strbuf_take(&text);
}

static int doctor(void)
{
	_cleanup_free_ char *text = NULL;
	int r;

	json_decref(report);
	text = output_of(true, &r);
	report = json_loads(text, 0, NULL);
	assert_non_null(report);
	assert_int_equal(json_is_true(json_object_get(report, "ok")), r == 0);
	return r;
}

/* Is there such a check at this level, of which `found` has `part` in it? */
static bool has(const char *name, const char *level, const char *part)
{
	const json_t *c;
	size_t i;

	json_array_foreach (json_object_get(report, "checks"), i, c) {
		const char *advice = json_string_value(json_object_get(c, "advice"));

		if (!streq(json_string_value(json_object_get(c, "level")), "ok") &&
			!streq(json_string_value(json_object_get(c, "check")), "configuration"))
			assert_true(advice && *advice);
		if (streq(json_string_value(json_object_get(c, "check")), name) &&
			streq(json_string_value(json_object_get(c, "level")), level) &&
			strstr(json_string_value(json_object_get(c, "found")), part))
			return true;
	}
	return false;
}

static int setup(void **state)
{
	static const char *const vars[] = {"H2O_JAVA_HOME", "JAVA_HOME", "H2O_JAR_PATH",
		"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONUSERBASE", "R_LIBS", "R_LIBS_USER",
		"R_LIBS_SITE", "H2OFLEET_SOCKET", "http_proxy", "HTTP_PROXY", "all_proxy",
		"ALL_PROXY", "no_proxy", "NO_PROXY"};
	_cleanup_free_ char *bin = NULL;
	char dir[] = "/tmp/h2ofleet-test-doctor.XXXXXX";

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	top = xstrdup(dir);
	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		unsetenv(vars[i]);
	bin = xasprintf("%s/bin:/usr/bin:/bin", top);
	setenv("PATH", bin, 1);
	setenv("HOME", top, 1);
	setenv("H2OFLEET_SYSTEM_CACHE_DIR", top, 1);
	packages_set_root(top);
	put_java("bin/java", "17.0.15");
	put_jar("opt/h2o.jar");
	put_conf("[cloud dev]\nmax_mem_size = 64m\n");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	file_remove_tree(top, NULL);
	packages_set_root("");
	json_decref(report);
	report = NULL;
	free(TAKE_PTR(top));
	return 0;
}

static void test_well(void **state)
{
	_cleanup_free_ char *text = NULL;
	int r;

	(void)state;
	assert_int_equal(doctor(), 0);
	assert_true(has("configuration", "ok", "dev"));
	assert_true(has("java", "ok", "Java 17.0.15"));
	assert_true(has("jar", "ok", "/opt/h2o.jar"));
	assert_true(has("daemon", "ok", "none runs"));
	assert_true(has("proxy", "ok", ""));
	text = output_of(false, &r);
	assert_int_equal(r, 0);
	assert_non_null(strstr(text, "ok       java           Java 17.0.15"));
	assert_null(strchr(text, '\033'));
}

static void test_configuration(void **state)
{
	_cleanup_free_ char *text = NULL;
	const char *advice;
	int r;

	(void)state;
	put_conf("[cloud dev]\nnods = 3\nmax_mem_size = much\n");
	assert_int_equal(doctor(), 1);
	assert_true(has("configuration", "problem", "nods"));
	assert_true(has("configuration", "problem", "much"));
	assert_true(has("java", "ok", "17"));
	assert_false(has("ports", "ok", ""));
	text = output_of(false, &r); /* what to do is said once */
	advice = strstr(text, "`h2ofleetd --config ");
	assert_non_null(advice);
	assert_null(strstr(advice + 1, "`h2ofleetd"));
}

static void test_java(void **state)
{
	_cleanup_free_ char *link = below("bin/java");

	(void)state;
	put_java("bin/java", "21.0.1");
	assert_int_equal(doctor(), 1);
	assert_true(has("java", "problem", "Java 21 is not supported"));
	put_conf("[cloud dev]\nmax_mem_size = 64m\nallow_unsupported_java = yes\n");
	assert_int_equal(doctor(), 0);
	assert_true(has("java", "warning", "Java 21.0.1"));
	put("bin/java", "#!/bin/sh\necho 'libjvm.so: cannot open'\nexit 127\n", 0755);
	assert_int_equal(doctor(), 1);
	assert_true(has("java", "problem", "ended with 127: libjvm.so: cannot open"));
	if (!getenv("H2OFLEET_VALGRIND")) { /* there an execve() that fails ends the program */
		put("bin/java", "#!/no/such/shell\n", 0755);
		assert_int_equal(doctor(), 1);
		assert_true(has("java", "problem", "cannot be executed"));
	}
	put("bin/java", "#!/bin/sh\necho hello\n", 0755);
	assert_int_equal(doctor(), 1);
	assert_true(has("java", "problem", "tells no version of Java: hello"));
	unlink(link);
	setenv("PATH", "/nonexistent", 1);
	assert_int_equal(doctor(), 1);
	assert_true(has("java", "problem", "no Java found"));
}

static void test_jar(void **state)
{
	(void)state;
	put("opt/h2o.jar", "", 0644);
	assert_int_equal(doctor(), 1);
	assert_true(has("jar", "problem", "/opt/h2o.jar is empty"));
}

static void test_client(void **state)
{
	(void)state;
	put_jar(".local/lib/python3.11/site-packages/h2o/backend/bin/h2o.jar");
	put(".local/lib/python3.11/site-packages/h2o/version.txt", "3.46.0.12", 0644);
	put("usr/lib/python3/dist-packages/h2o/version.txt", "3.44.0.3", 0644);
	assert_int_equal(doctor(), 0);
	assert_true(has("jar", "ok", "H2O 3.46.0.12"));
	assert_true(has("client", "ok", "h2o 3.46.0.12"));
	assert_true(has("client", "warning", "h2o 3.44.0.3"));
}

static void test_proxy(void **state)
{
	(void)state;
	setenv("http_proxy", "http://user:secret@proxy:3128", 1);
	assert_int_equal(doctor(), 0);
	assert_true(has("proxy", "warning", "http_proxy is set"));
	assert_false(has("proxy", "warning", "secret"));
	setenv("no_proxy", "example.org, 127.0.0.1", 1);
	assert_int_equal(doctor(), 0);
	assert_true(has("proxy", "ok", ""));
}

/* A port that somebody listens on: a problem where the cloud insists on it. */
static void test_ports(void **state)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(a);
	_cleanup_free_ char *conf = NULL;
	_cleanup_free_ char *conf_plus = NULL;

	(void)state;
	do { /* API ports of clouds are below 65535 */
		if (fd >= 0)
			close(fd);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		a.sin_port = 0;
		assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
		assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	} while (ntohs(a.sin_port) > 65000);
	assert_int_equal(listen(fd, 1), 0);
	conf = xasprintf("[cloud dev]\nmax_mem_size = 64m\nport = %d\n", ntohs(a.sin_port));
	put_conf(conf);
	assert_int_equal(doctor(), 1);
	assert_true(has("ports", "problem", "is taken by pid"));
	conf_plus = xasprintf("[cloud dev]\nmax_mem_size = 64m\nport = %d+\n", ntohs(a.sin_port));
	put_conf(conf_plus);
	assert_int_equal(doctor(), 0);
	assert_true(has("ports", "ok", "takes the next free ones"));
}

/* What there is of the boot cache for each cloud, or why nothing is used. */
static void test_boot(void **state)
{
	static const char conf[] =
		"[cloud dev]\nmax_mem_size = 64m\njar_path = %s/opt/h2o.jar\n"
		"[cloud plain]\nmax_mem_size = 64m\njar_path = %s/opt/h2o.jar\nfast_boot = no\n"
		"[cloud own]\nmax_mem_size = 64m\njar_path = %s/opt/h2o.jar\n"
		"jvm_custom_args = -Xshare:off -Djava.library.path=/x\n";
	_cleanup_free_ char *text = xasprintf(conf, top, top, top);
	_cleanup_free_ char *dir = below("cache/boot");

	(void)state;
	put_conf(text);
	assert_int_equal(doctor(), 0);
	assert_true(has("boot", "ok", "cloud dev: there is no boot cache for its runtime yet"));
	assert_true(has("boot", "ok",
		"cloud plain: starts without the native libraries of the boot cache, and without "
		"an "
		"archive of classes (fast_boot)"));
	assert_true(has("boot", "ok", "archive of classes (jvm_custom_args)"));
	put("cache/boot/x", "", 0644);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(doctor(), 0);
	assert_true(has("boot", "ok", "cloud dev: there is no boot cache: "));
	assert_true(has("boot", "ok", "may be written by others"));
}

/* The gate takes the first port, so it is one more; who may come in is looked up. */
static void test_gate(void **state)
{
	(void)state;
	put_conf("[cloud dev]\nmax_mem_size = 64m\nnodes = 2\nport = 22120\n"
		 "[cloud bare]\nmax_mem_size = 64m\nport = 22130\ngate_mode = off\n");
	assert_int_equal(doctor(), 0);
	assert_true(has("ports", "ok", "dev: 22120 to 22124 are free"));
	assert_true(has("ports", "ok", "bare: 22130 to 22131 are free"));
	assert_false(has("gate", "warning", ""));
	put_conf("[cloud dev]\nmax_mem_size = 64m\nbind_to_localhost = no\n"
		 "[cloud known]\nmax_mem_size = 64m\ngate_allow = user user:root group:root 77\n"
		 "[cloud wrong]\nmax_mem_size = 64m\ngate_allow = user:nobody-is-so group:h2o-x\n");
	assert_int_equal(doctor(), 0);
	assert_true(has("gate", "warning", "cloud dev: bind_to_localhost = no: anyone who can"));
	assert_true(has(
		"gate", "warning", "cloud wrong: there is no user:nobody-is-so, group:h2o-x here"));
	assert_false(has("gate", "warning", "known"));
}

static void test_disk(void **state)
{
	(void)state;
	put("log", "", 0644);
	assert_int_equal(doctor(), 1);
	assert_true(has("disk", "problem", "is not a directory"));
}

static void test_disk_of_a_cloud(void **state)
{
	_cleanup_free_ char *conf = xasprintf(
		"[cloud dev]\nmax_mem_size = 64m\nauto_recovery_dir = %s/file/below\n", top);

	(void)state;
	put_conf("[cloud dev]\nmax_mem_size = 64m\nice_root = /proc/h2o\n");
	assert_int_equal(doctor(), 1);
	assert_true(has("disk", "problem", "/proc/h2o: a file system that stores nothing"));
	put("file", "", 0644);
	put_conf(conf);
	assert_int_equal(doctor(), 1);
	assert_true(has("disk", "problem", "auto_recovery_dir"));
}

/* Each by itself, whoever starts it. */
static void test_memory_of_a_cloud(void **state)
{
	(void)state;
	put_conf("[cloud dev]\nmax_mem_size = 64m\n"
		 "[cloud huge]\nnodes = 1000\nmax_mem_size = 1g\nautostart = no\nport = 1025\n");
	doctor();
	assert_true(has("memory", "warning", "cloud huge: 1000 nodes may take"));
	assert_true(has("memory", "ok", "1 node may take 64 MB"));
}

static void test_user(void **state)
{
	(void)state;
	assert_int_equal(doctor(), 0);
	assert_int_equal(has("user", "warning", "run as root"), geteuid() == 0);
}

/* Answers as a daemon would: once to the probe, once to the request. */
static pid_t fake_daemon(const char *answer)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_cleanup_free_ char *path = below("sock");
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	pid_t pid;

	unlink(path);
	assert_true(strlen(path) < sizeof(a.sun_path));
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 5), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid > 0)
		return pid;
	alarm(20);
	close(accept(fd, NULL, NULL));
	{
		char request[4096];
		int c = accept(fd, NULL, NULL);

		if (read(c, request, sizeof(request)) > 0)
			dprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
				strlen(answer), answer);
		close(c);
	}
	_exit(0);
}

static void test_daemon(void **state)
{
	pid_t pid;

	(void)state;
	pid = fake_daemon("{\"clouds\":[{\"name\":\"dev\",\"state\":\"ready\",\"endpoint_port\":"
			  "null,\"nodes\":[{\"api_port\":54321}]}]}");
	assert_int_equal(doctor(), 0);
	waitpid(pid, NULL, 0);
	assert_true(has("daemon", "ok", "dev (ready)"));
	assert_true(has("ports", "ok", "the running daemon sees to them"));

	pid = fake_daemon("{\"clouds\":[{\"name\":\"dev\",\"state\":\"failed\",\"reason\":\"no "
			  "java\",\"nodes\":[]}]}");
	assert_int_equal(doctor(), 0);
	waitpid(pid, NULL, 0);
	assert_true(has("daemon", "warning", "dev (failed: no java)"));
	assert_false(has("ports", "ok", "the running daemon sees to them"));

	ask_at = "/nonexistent/sock";
	assert_int_equal(doctor(), 0);
	assert_true(has("daemon", "ok", "none runs at /nonexistent/sock"));
	ask_at = NULL;

	pid = fake_daemon("rubbish");
	assert_int_equal(doctor(), 0);
	waitpid(pid, NULL, 0);
	assert_true(has("daemon", "warning", "not JSON"));
	assert_int_equal(doctor(), 0); /* its socket is still there */
	assert_true(has("daemon", "ok", "none runs"));
}

/* What a file says reaches neither a terminal nor JSON raw. */
static void test_visible(void **state)
{
	_cleanup_free_ char *text = NULL;
	int r;

	(void)state;
	put("bin/java", "#!/bin/sh\nprintf 'a\\033[31mb\\377c\\n'\n", 0755);
	assert_int_equal(doctor(), 1);
	assert_true(has("java", "problem", "a\\x1b[31mb\\xffc"));
	text = output_of(false, &r);
	assert_null(strchr(text, '\033'));
}

static void test_run(void **state)
{
	char *const hang[] = {(char *)"/bin/sh", (char *)"-c", (char *)"sleep 30 & sleep 30", NULL};
	char *const closed[] = {
		(char *)"/bin/sh", (char *)"-c", (char *)"exec >&- 2>&-; sleep 30", NULL};
	char *const dies[] = {(char *)"/bin/sh", (char *)"-c", (char *)"kill -9 $$", NULL};
	char *const much[] = {(char *)"/bin/sh", (char *)"-c",
		(char *)"head -c 1000000 /dev/zero | tr '\\0' x", NULL};
	uint64_t begin = clock_monotonic_ms();
	struct strbuf out = STRBUF_NULL;

	(void)state;
	assert_int_equal(doctor_run(hang, 200, &out), -ETIMEDOUT);
	assert_string_equal(strbuf_str(&out), "");
	assert_int_equal(doctor_run(closed, 200, &out), -ETIMEDOUT);
	assert_true(clock_monotonic_ms() - begin < 10000);
	assert_int_equal(doctor_run(dies, 5000, &out), 128 + SIGKILL);
	assert_string_equal(strbuf_str(&out), "");
	assert_int_equal(doctor_run(much, 20000, &out), 0);
	assert_in_range(out.len, 65536, 70000);
	strbuf_free(&out);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_well),
		TEST(test_configuration),
		TEST(test_java),
		TEST(test_jar),
		TEST(test_client),
		TEST(test_proxy),
		TEST(test_ports),
		TEST(test_boot),
		TEST(test_gate),
		TEST(test_disk),
		TEST(test_disk_of_a_cloud),
		TEST(test_memory_of_a_cloud),
		TEST(test_user),
		TEST(test_daemon),
		TEST(test_visible),
		TEST(test_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
