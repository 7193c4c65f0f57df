/* The control socket itself, and who may use it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "api_fixture.h"
#include "api/routes.h"
#include "base/clock.h"
#include "base/file.h"

/* The HTTP status that a process of another user and group gets; 450: it cannot connect. */
static int status_for(
	struct fixture *f, const char *request, uid_t uid, gid_t gid, gid_t supplementary)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct sockaddr_un sa = {.sun_family = AF_UNIX};
		_cleanup_free_ char *text =
			xasprintf("%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", request);
		char answer[64] = "";
		int fd = socket(AF_UNIX, SOCK_STREAM, 0), code;

		alarm(PATIENCE_MS / 1000);
		snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", f->socket);
		if (setgroups(1, &supplementary) < 0 || setresgid(gid, gid, gid) < 0 ||
			setresuid(uid, uid, uid) < 0 ||
			connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
			write(fd, text, strlen(text)) < 0 ||
			read(fd, answer, sizeof(answer) - 1) < 0 ||
			sscanf(answer, "HTTP/1.1 %d", &code) != 1)
			_exit(250);
		_exit(code - 200);
	}
	while (waitpid(pid, &status, WNOHANG) == 0)
		turn(f, -1, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) + 200 : -1;
}

static void test_peer_credentials(void **state)
{
	struct fixture *f = *state;

	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(f->dir, 0755), 0);
	assert_int_equal(chown(f->socket, 0, 4242), 0);
	assert_int_equal(status_for(f, "GET /v1/clouds", 0, 0, 0), 200);
	assert_int_equal(status_for(f, "GET /v1/clouds", 4001, 4242, 4001), 200);
	assert_int_equal(status_for(f, "GET /v1/clouds", 4001, 4001, 4242), 200);
	assert_int_equal(status_for(f, "GET /v1/clouds", 4001, 4001, 4001),
		450); /* connect() itself fails */
	assert_int_equal(chmod(f->socket, 0666), 0);
	assert_int_equal(status_for(f, "GET /v1/clouds", 4001, 4001, 4001), 403);
	assert_int_equal(status_for(f, "GET /v1/nowhere", 4001, 4001, 4001), 403);
	assert_int_equal(status_for(f, "GET /v1/clouds", 4001, 4242, 4001), 200);
}

/* Proves: what is marked as root's and the daemon's user's alone, the group cannot do. */
static void test_routes_of_root(void **state)
{
	struct fixture *f = *state;
	unsigned tried = 0;
	size_t n;
	const struct route *routes = routes_all(&n);

	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(f->dir, 0755), 0);
	assert_int_equal(chown(f->socket, 0, 4242), 0);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *request =
			xasprintf("%s %s", routes[i].method, routes[i].pattern);

		if (routes[i].access != ACCESS_ADMIN)
			continue;
		if (status_for(f, request, 4001, 4242, 4001) != 403)
			fail_msg("%s", request);
		tried++;
	}
	assert_in_range(tried, 3, n - 1);
	assert_int_equal(f->fleet->n_commands, 0);
}

static void test_socket_mode(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_int_equal(lstat(f->socket, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0660);
}

static void assert_refused(struct fixture *f, const char *path, int code, const char *part)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct api *second = NULL;

	assert_int_equal(api_new(&f->loop, f->fleet, path, &second, &e), code);
	assert_null(second);
	if (!strstr(err_msg(&e), part))
		fail_msg("'%s' does not say '%s'", err_msg(&e), part);
}

static void test_socket_refused(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *file = xasprintf("%s/file", f->dir);
	_cleanup_free_ char *below = xasprintf("%s/file/x.sock", f->dir);
	char longest[200];

	assert_refused(f, f->socket, -EADDRINUSE, "another h2ofleetd answers at");
	assert_refused(f, f->socket, -EADDRINUSE, "; stop it, or give this one");
	assert_int_equal(file_write_atomic(file, "x", 1, 0600, false, NULL), 0);
	assert_refused(f, file, -EADDRINUSE, "is in the way: it is no socket; remove it, or");
	assert_refused(f, below, -ENOTDIR, "file");
	memset(longest, 'x', sizeof(longest));
	longest[0] = '/';
	longest[sizeof(longest) - 1] = '\0';
	assert_refused(f, longest, -ENAMETOOLONG, "too long");
	assert_refused(f, "relative.sock", -EINVAL, "absolute");
	/* The first one is untouched by all that. */
	close(dial(f->socket));
}

static void test_stale_socket_replaced(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *path = xasprintf("%s/stale.sock", f->dir);
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct api *second = NULL;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd);
	assert_int_equal(api_new(&f->loop, f->fleet, path, &second, &e), 0);
	close(dial(path));
	api_free(second);
	assert_int_equal(access(path, F_OK), -1);
}

/* As long as an address can be: 107 bytes, be it the name or the directory that is long. */
static void test_longest_path(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *sub = xasprintf("%s/sub", f->dir);
	static const char *const names[] = {"/", "/xxxxx/"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *begin = xasprintf("%s%s", sub, names[i]);
		_cleanup_(err_clear) struct err e = ERR_NULL;
		struct api *second = NULL;
		struct stat st;
		char path[108];

		memset(path, 'x', sizeof(path));
		memcpy(path, begin, strlen(begin));
		if (i) /* a directory instead of a name */
			path[sizeof(path) - 3] = '/';
		path[sizeof(path) - 1] = '\0';
		if (api_new(&f->loop, f->fleet, path, &second, &e) < 0)
			fail_msg("%s", err_msg(&e));
		close(dial(path));
		assert_int_equal(lstat(path, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0660);
		assert_refused(f, path, -EADDRINUSE, "another h2ofleetd");
		api_free(second);
		assert_int_equal(access(path, F_OK), -1);
	}
}

static void test_foreign_socket_left(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *path = xasprintf("%s/mine.sock", f->dir);
	struct api *second = NULL;

	assert_int_equal(api_new(&f->loop, f->fleet, path, &second, NULL), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(file_write_atomic(path, "x", 1, 0600, false, NULL), 0);
	api_free(second);
	assert_int_equal(access(path, F_OK), 0);
}

/* Runs the server until connect() to its socket works. */
static void until_dialled(struct fixture *f, const char *path)
{
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	for (;;) {
		_cleanup_close_ int fd =
			socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

		turn(f, -1, 0);
		if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
			return;
		assert_true(clock_monotonic_ms() < end);
	}
}

static void assert_answers(struct fixture *f)
{
	_cleanup_(reply_free) struct reply r = get(f, "GET", "/v1/clouds/dev");

	assert_int_equal(r.status, 200);
}

/* Proves: a control socket that is removed, with its directory even, is made anew, and whoever is
 * connected already notices nothing. */
static void test_removed_socket(void **state)
{
	static const char request[] = "GET /v1/clouds/dev HTTP/1.1\r\nHost: x\r\n"
				      "Connection: close\r\n\r\n";
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	_cleanup_free_ char *dir = xasprintf("%s/run", f->dir);
	int fd = dial(f->socket);
	struct stat st;

	turn(f, -1, 0);
	assert_int_equal(unlink(f->socket), 0);
	until_dialled(f, f->socket);
	assert_answers(f);
	send_text(f, fd, request, strlen(request));
	r = take_reply(f, fd);
	assert_int_equal(r.status, 200);

	assert_int_equal(unlink(f->socket), 0);
	assert_int_equal(rmdir(dir), 0);
	until_dialled(f, f->socket);
	assert_answers(f);
	assert_int_equal(lstat(f->socket, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
	assert_int_equal(f->fleet->n_troubles, 0);
}

/* Proves: where something is in its place it is said once, tried again, and well in the end. */
static void test_replaced_socket(void **state)
{
	struct fixture *f = *state;
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS;

	assert_int_equal(unlink(f->socket), 0);
	assert_int_equal(file_write_atomic(f->socket, "x", 1, 0600, false, NULL), 0);
	while (!f->fleet->trouble[0]) {
		turn(f, -1, 0);
		assert_true(clock_monotonic_ms() < end);
	}
	assert_non_null(strstr(f->fleet->trouble, "is in the way: it is no socket"));
	assert_int_equal(unlink(f->socket), 0);
	until_dialled(f, f->socket);
	assert_answers(f);
	while (f->fleet->trouble[0]) {
		turn(f, -1, 0);
		assert_true(clock_monotonic_ms() < end);
	}
}

/* Fills up the table, which is made small. */
static size_t use_up_descriptors(int *fds, size_t n, struct rlimit *old)
{
	struct rlimit low;
	size_t used = 0;

	getrlimit(RLIMIT_NOFILE, old);
	low = *old;
	low.rlim_cur = n;
	setrlimit(RLIMIT_NOFILE, &low);
	while (used < n && (fds[used] = dup(0)) >= 0)
		used++;
	assert_int_equal(errno, EMFILE);
	return used;
}

/* Proves: without descriptors some clients are still answered; when even the reserve is used up we
 * do not spin, and those who wait are answered once there are descriptors. */
static void test_no_descriptors(void **state)
{
	static const char request[] = "GET /v1/clouds HTTP/1.1\r\nHost: x\r\n\r\n";
	struct fixture *f = *state;
	int fds[ACCEPTOR_RESERVE + 4], used[256];
	size_t n_used;
	unsigned turns = 0, answered = 0;
	struct rlimit old;
	uint64_t end;
	char buf[8192];

	if (getenv("H2OFLEET_VALGRIND"))
		skip(); /* it keeps limits of its own */
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = dial(f->socket);
	n_used = use_up_descriptors(used, ARRAY_SIZE(used), &old);
	end = clock_monotonic_ms() + 700;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		assert_true(send(fds[i], request, strlen(request), MSG_NOSIGNAL) > 0);
	for (; clock_monotonic_ms() < end; turns++)
		turn(f, -1, 0);
	assert_in_range(turns, 5, 200);
	assert_non_null(strstr(f->fleet->trouble, strerror(EMFILE)));
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		answered += recv(fds[i], buf, sizeof(buf), 0) > 0;
	setrlimit(RLIMIT_NOFILE, &old);
	while (n_used)
		close(used[--n_used]);
	assert_int_equal(answered, ACCEPTOR_RESERVE);

	end = clock_monotonic_ms() + PATIENCE_MS;
	while (answered < ARRAY_SIZE(fds) || f->fleet->trouble[0]) {
		turn(f, -1, 0);
		for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
			answered += recv(fds[i], buf, sizeof(buf), 0) > 0;
		assert_true(clock_monotonic_ms() < end);
	}
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_peer_credentials),
		TEST(test_routes_of_root),
		TEST(test_socket_mode),
		TEST(test_socket_refused),
		TEST(test_stale_socket_replaced),
		TEST(test_longest_path),
		TEST(test_foreign_socket_left),
		TEST(test_removed_socket),
		TEST(test_replaced_socket),
		TEST(test_no_descriptors),
	};

	if (argc > 1) /* just one of them, for a debugger */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
