/* What systemd is told: sent without ever waiting; and when it wants to hear from us. */
#include "cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "drv/notify.h"

/* A socket in systemd's place; $NOTIFY_SOCKET names it. */
static int listen_as_systemd(bool abstract, char *path, size_t size)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t len;

	assert_true(fd >= 0);
	snprintf(path, size, abstract ? "@h2ofleet-test-%d" : "/tmp/h2ofleet-test-%d.sock",
		(int)getpid());
	unlink(path);
	strcpy(sa.sun_path, path);
	len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	if (abstract)
		sa.sun_path[0] = '\0';
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
	setenv("NOTIFY_SOCKET", path, 1);
	return fd;
}

static void check_received(int fd, const char *wanted)
{
	char buf[256] = "";

	assert_true(recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT) >= 0);
	assert_string_equal(buf, wanted);
}

/* Proves: without systemd nothing is sent, which is no error. */
static void test_without_systemd(void **state)
{
	(void)state;
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(notify_send("READY=1"), 0);
	setenv("NOTIFY_SOCKET", "relative", 1);
	assert_int_equal(notify_send("READY=1"), -EINVAL);
	setenv("NOTIFY_SOCKET", "/nonexistent/socket", 1);
	assert_int_equal(notify_send("READY=1"), -ENOENT);
}

/* Proves: both kinds of address work. */
static void test_sends(void **state)
{
	char path[100];

	(void)state;
	for (int abstract = 0; abstract < 2; abstract++) {
		int fd = listen_as_systemd(abstract, path, sizeof(path));

		assert_int_equal(notify_sendf("STATUS=%d of %d", 1, 2), 0);
		check_received(fd, "STATUS=1 of 2");
		close(fd);
		unlink(path);
	}
}

/* Proves: a systemd that does not read holds nobody up. */
static void test_never_waits(void **state)
{
	char path[100];
	int fd = listen_as_systemd(false, path, sizeof(path)), r = 0;

	(void)state;
	for (int i = 0; i < 100000 && r == 0; i++)
		r = notify_send("WATCHDOG=1");
	assert_int_equal(r, -EAGAIN);
	close(fd);
	unlink(path);
}

/* Proves: the watchdog of another process is not ours. */
static void test_watchdog(void **state)
{
	char pid[16];

	(void)state;
	unsetenv("WATCHDOG_USEC");
	assert_int_equal(notify_watchdog_ms(), 0);
	setenv("WATCHDOG_USEC", "30000000", 1);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_PID", pid, 1);
	assert_int_equal(notify_watchdog_ms(), 30000);
	setenv("WATCHDOG_PID", "1", 1);
	assert_int_equal(notify_watchdog_ms(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_without_systemd),
		cmocka_unit_test(test_sends),
		cmocka_unit_test(test_never_waits),
		cmocka_unit_test(test_watchdog),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
