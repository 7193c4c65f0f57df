/* What the tests of the drivers share: a loop with deadlines, a directory of its own. Include after
 * <cmocka.h>. */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <uv.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/util.h"

/* Far longer than anything takes on a loaded machine: it only ends tests that have failed. */
#define DEADLINE_MS 60000

_unused_ static void on_tick(_unused_ uv_timer_t *t)
{
}

/* Runs the loop until *n >= want. False when the deadline came first. With a ticking timer, for a
 * round of the loop in which a timer did what we wait for would go on to sleep. */
_unused_ static bool run_until(uv_loop_t *loop, const unsigned *n, unsigned want)
{
	uint64_t end = clock_monotonic_ms() + DEADLINE_MS;
	uv_timer_t tick;

	uv_timer_init(loop, &tick);
	uv_timer_start(&tick, on_tick, 10, 10);
	while (*n < want && clock_monotonic_ms() < end)
		uv_run(loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&tick, NULL);
	uv_run(loop, UV_RUN_NOWAIT);
	return *n >= want;
}

/* All handles of a test must go by themselves now. */
_unused_ static void finish_loop(uv_loop_t *loop)
{
	uint64_t end = clock_monotonic_ms() + DEADLINE_MS;

	while (uv_loop_alive(loop) && clock_monotonic_ms() < end) {
		uv_run(loop, UV_RUN_NOWAIT);
		poll(NULL, 0, 1);
	}
	assert_int_equal(uv_loop_close(loop), 0);
}

/* Runs the loop for a while in which nothing is to happen. */
_unused_ static void run_for(uv_loop_t *loop, uint64_t ms)
{
	uint64_t end = clock_monotonic_ms() + ms;

	while (clock_monotonic_ms() < end) {
		uv_run(loop, UV_RUN_NOWAIT);
		poll(NULL, 0, 5);
	}
}

/* Waits for the end of a process that need not be ours; being gone already is fine. */
_unused_ static bool wait_gone(pid_t pid)
{
	struct pollfd p = {.fd = pidfd_open(pid, 0), .events = POLLIN};
	int r;

	if (p.fd < 0)
		return errno == ESRCH;
	r = poll(&p, 1, DEADLINE_MS);
	close(p.fd);
	return r == 1;
}

_unused_ static char *make_temp_dir(void)
{
	char *dir =
		xasprintf("%s/h2ofleet-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");

	assert_non_null(mkdtemp(dir));
	return dir;
}

/* "" when it is not there. Owned by the caller. */
_unused_ static char *read_text(const char *path)
{
	char *text;

	return file_read(path, 1u << 22, &text, NULL) == 0 ? text : xstrdup("");
}

/* Until the file holds a whole line, which a process of the test writes. Owned by the caller. */
_unused_ static char *await_line(const char *path)
{
	uint64_t end = clock_monotonic_ms() + DEADLINE_MS;

	for (;;) {
		char *text = read_text(path);

		if (strchr(text, '\n') || clock_monotonic_ms() > end)
			return text;
		free(text);
		poll(NULL, 0, 5);
	}
}

_unused_ static unsigned count_open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}
