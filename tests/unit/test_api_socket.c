/* The control socket itself, and who may use it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "api_fixture.h"
#include "base/file.h"

/* The HTTP status that a process of another user and group gets; 450: it cannot connect. */
static int status_for(
	struct fixture *f, const char *target, uid_t uid, gid_t gid, gid_t supplementary)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct sockaddr_un sa = {.sun_family = AF_UNIX};
		_cleanup_free_ char *text = xasprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
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
	assert_int_equal(status_for(f, "/v1/clouds", 0, 0, 0), 200);
	assert_int_equal(status_for(f, "/v1/clouds", 4001, 4242, 4001), 200);
	assert_int_equal(status_for(f, "/v1/clouds", 4001, 4001, 4242), 200);
	assert_int_equal(
		status_for(f, "/v1/clouds", 4001, 4001, 4001), 450); /* connect() itself fails */
	assert_int_equal(chmod(f->socket, 0666), 0);
	assert_int_equal(status_for(f, "/v1/clouds", 4001, 4001, 4001), 403);
	assert_int_equal(status_for(f, "/v1/nowhere", 4001, 4001, 4001), 403);
	assert_int_equal(status_for(f, "/v1/clouds", 4001, 4242, 4001), 200);
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_peer_credentials),
		TEST(test_socket_mode),
		TEST(test_socket_refused),
		TEST(test_stale_socket_replaced),
		TEST(test_longest_path),
		TEST(test_foreign_socket_left),
	};

	if (argc > 1) /* just one of them, for a debugger */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
