/* Java, the jar and the Python client, for doctor. */
#include "cli/checks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/file.h"
#include "drv/packages.h"
#include "drv/runtime.h"
#include "model/plan.h"

#define JAVA_TIMEOUT_MS 20000
#define OUTPUT_MAX      65536

#define INSTALL_JAVA                                                                               \
	"install Java 8 to 17 (on Debian: apt install openjdk-17-jre-headless), or set the key "   \
	"java"

/* In a process group of its own: a wrapper script's children are to end with it. With what a node
 * has of our environment. */
static int spawn_captured(char *const *argv, int out, pid_t *pid)
{
	posix_spawn_file_actions_t fa;
	_cleanup_(strv_free) struct strv env = STRV_NULL;
	posix_spawnattr_t attr;
	int r;

	plan_clean_env(environ, &env);
	posix_spawn_file_actions_init(&fa);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&fa, out, STDERR_FILENO);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setpgroup(&attr, 0);
	r = posix_spawn(pid, argv[0], &fa, &attr, argv, env.v);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	return -r;
}

/* Until its end or the deadline; 0 or -ETIMEDOUT. */
static int collect(int fd, uint64_t deadline, struct strbuf *b)
{
	char chunk[4096];

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = clock_monotonic_ms();
		ssize_t n;
		int r;

		if (now >= deadline)
			return -ETIMEDOUT;
		r = poll(&p, 1, (int)(deadline - now));
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r <= 0)
			continue;
		n = read(fd, chunk, sizeof(chunk));
		if (n <= 0)
			return 0;
		if (b->len < OUTPUT_MAX)
			strbuf_add(b, chunk, (size_t)n);
	}
}

/* It has closed its output, so it has ended, or is about to. 0 or -ETIMEDOUT. */
static int reap(pid_t pid, int *status)
{
	for (int i = 0; i < 100; i++) {
		if (waitpid(pid, status, WNOHANG) != 0)
			return 0;
		usleep(10000);
	}
	return -ETIMEDOUT;
}

int doctor_run(char *const *argv, uint64_t timeout_ms, struct strbuf *output)
{
	_cleanup_close_ int rd = -1;
	int status = 0;
	int fds[2];
	pid_t pid;
	int r;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	rd = fds[0];
	r = spawn_captured(argv, fds[1], &pid);
	close(fds[1]);
	if (r < 0)
		return r;
	r = collect(rd, clock_monotonic_ms() + timeout_ms, output);
	if (r == 0)
		r = reap(pid, &status);
	if (r < 0) {
		kill(-pid, SIGKILL); /* not reaped yet, so the group is still its own */
		waitpid(pid, &status, 0);
		return r;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* "PATH" of "PATH: /usr/bin/java: found", the last of a successful search. */
static char *found_where(const struct search_trace *t)
{
	const char *last = t->tried.n ? t->tried.v[t->tried.n - 1] : "";

	return xstrndup(last, strcspn(last, ":"));
}

/* "cloud dev: " when clouds differ in what is checked. */
static char *context_of(const struct doctor *d, const struct cloud_conf *c)
{
	return c && d->conf->n_clouds > 1 ? xasprintf("cloud %s: ", c->name) : xstrdup("");
}

static void check_one_jar(struct doctor *d, const struct cloud_conf *c)
{
	_cleanup_(search_trace_free) struct search_trace t = {0};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *context = context_of(d, c);
	_cleanup_free_ char *jar = NULL;
	_cleanup_free_ char *version = NULL;
	_cleanup_free_ char *where = NULL;
	int r = runtime_find_jar(c ? c->jar_path : NULL, &t, &jar, &e);

	if (r == 0)
		r = runtime_jar_version(jar, &version, &e);
	if (r < 0) {
		doctor_add_sentence(d, "jar", CHECK_PROBLEM, context, err_msg(&e),
			"set jar_path to an h2o.jar (`pip install h2o` brings one)");
		return;
	}
	where = found_where(&t);
	doctor_add(d, "jar", CHECK_OK, NULL, "%sH2O %s, %s (%s)", context,
		version ? version : "of unknown version", jar, where);
	if (!d->jar) {
		d->jar = TAKE_PTR(jar);
		d->h2o_version = TAKE_PTR(version);
	}
}

void check_jar(struct doctor *d)
{
	if (!d->conf)
		check_one_jar(d, NULL);
	for (size_t i = 0; d->conf && i < d->conf->n_clouds; i++) {
		size_t k = 0;

		while (!streq_null(d->conf->clouds[k]->jar_path, d->conf->clouds[i]->jar_path))
			k++;
		if (k == i) /* else seen before */
			check_one_jar(d, d->conf->clouds[i]);
	}
}

int doctor_java_version(const char *java, int *major, char **version, struct err *e)
{
	char *argv[] = {(char *)java, (char *)"-version", NULL};
	_cleanup_(strbuf_free) struct strbuf output = STRBUF_NULL;
	int r = doctor_run(argv, JAVA_TIMEOUT_MS, &output);
	const char *said = strbuf_str(&output);

	if (r == -ETIMEDOUT)
		return err_set(
			e, r, "%s -version did not end within %d s", java, JAVA_TIMEOUT_MS / 1000);
	if (r < 0)
		return err_set_errno(e, r, "%s cannot be executed", java);
	if (r > 0)
		return err_set(e, -EINVAL, "%s -version ended with %d: %.*s", java, r,
			(int)strcspn(said, "\n"), said);
	if (runtime_parse_java_version(said, major, version) < 0)
		return err_set(e, -EINVAL, "%s -version tells no version of Java: %.*s", java,
			(int)strcspn(said, "\n"), said);
	return 0;
}

static void check_one_java(struct doctor *d, const struct cloud_conf *c)
{
	_cleanup_(search_trace_free) struct search_trace t = {0};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *context = context_of(d, c);
	_cleanup_free_ char *java = NULL;
	_cleanup_free_ char *version = NULL;
	_cleanup_free_ char *where = NULL;
	int major = 0;
	int r = runtime_find_java(c ? c->java : NULL, &t, &java, &e);

	if (r == 0)
		r = doctor_java_version(java, &major, &version, &e);
	if (r == 0)
		r = runtime_check_java(
			major, java, d->h2o_version, c && c->allow_unsupported_java, &e);
	if (r < 0) {
		doctor_add_sentence(d, "java", CHECK_PROBLEM, context, err_msg(&e), INSTALL_JAVA);
		return;
	}
	where = found_where(&t);
	if (major < H2O_JAVA_MIN || major > H2O_JAVA_MAX)
		doctor_add(d, "java", CHECK_WARNING,
			"H2O is tested with Java 8 to 17 only: a Java of these is the safer choice",
			"%sJava %s, %s (%s), is not supported by H2O; allow_unsupported_java is "
			"set",
			context, version, java, where);
	else
		doctor_add(d, "java", CHECK_OK, NULL, "%sJava %s, %s (%s)", context, version, java,
			where);
}

void check_java(struct doctor *d)
{
	if (!d->conf)
		check_one_java(d, NULL);
	for (size_t i = 0; d->conf && i < d->conf->n_clouds; i++) {
		const struct cloud_conf *c = d->conf->clouds[i];
		size_t k = 0;

		while (!streq_null(d->conf->clouds[k]->java, c->java) ||
			d->conf->clouds[k]->allow_unsupported_java != c->allow_unsupported_java)
			k++;
		if (k == i)
			check_one_java(d, c);
	}
}

/* Of an h2o package, "<site>/h2o/version.txt"; owned by the caller; NULL when there is none. */
static char *client_version(const char *site)
{
	_cleanup_free_ char *path = xasprintf("%s/h2o/version.txt", site);
	char *text = NULL;

	if (file_read(path, 256, &text, NULL) < 0)
		return NULL;
	text[strcspn(text, " \t\r\n")] = '\0';
	return text;
}

void check_client(struct doctor *d)
{
	struct package_places p;
	size_t n = 0;

	package_places_find(&p);
	for (size_t i = 0; i < p.sites.n; i++) {
		_cleanup_free_ char *version = client_version(p.sites.v[i]);
		_cleanup_free_ char *advice = NULL;

		if (!version)
			continue;
		n++;
		if (!d->h2o_version || streq(version, d->h2o_version)) {
			doctor_add(d, "client", CHECK_OK, NULL, "h2o %s for Python in %s", version,
				p.sites.v[i]);
			continue;
		}
		advice = xasprintf("h2o.init() refuses a cloud of another version: `pip install "
				   "h2o==%s` there, or set jar_path = %s/h2o/backend/bin/h2o.jar",
			d->h2o_version, p.sites.v[i]);
		doctor_add(d, "client", CHECK_WARNING, advice,
			"h2o %s for Python in %s, but the clouds would run H2O %s", version,
			p.sites.v[i], d->h2o_version);
	}
	if (n == 0)
		doctor_add(d, "client", CHECK_OK, NULL,
			"no h2o package for Python found; clouds do not need it");
	package_places_free(&p);
}
