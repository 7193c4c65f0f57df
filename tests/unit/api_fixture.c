#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "api_fixture.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/strbuf.h"

int api_setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	_cleanup_(err_clear) struct err e = ERR_NULL;

	snprintf(f->dir, sizeof(f->dir), "/tmp/h2ofleet-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->events, sizeof(f->events), "%s/events", f->dir);
	snprintf(f->socket, sizeof(f->socket), "%s/run/control.sock", f->dir);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	f->fleet = fake_fleet_new();
	f->fleet->log_dir = f->dir;
	f->fleet->journal = journal_open(f->events, 1 << 20);
	f->dev = fake_fleet_add(f->fleet, "dev", 3);
	fake_fleet_add(f->fleet, "other", 1);
	assert_int_equal(api_new(&f->loop, f->fleet, f->socket, &f->api, &e), 0);
	*state = f;
	return 0;
}

void end_api(struct fixture *f)
{
	api_free(TAKE_PTR(f->api));
	uv_run(&f->loop, UV_RUN_DEFAULT);
	fake_fleet_free(f->fleet);
}

int api_teardown(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *run = xasprintf("%s/run", f->dir);

	if (f->api)
		end_api(f);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	assert_int_equal(rmdir(run), 0); /* nothing is left in there */
	assert_int_equal(file_remove_tree(f->dir, NULL), 0);
	free(f);
	return 0;
}

int dial(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

void turn(struct fixture *f, int fd, short events)
{
	struct pollfd p[2] = {
		{.fd = fd, .events = events}, {.fd = uv_backend_fd(&f->loop), .events = POLLIN}};
	int timeout = uv_backend_timeout(&f->loop);

	poll(p, 2, timeout < 0 || timeout > 100 ? 100 : timeout);
	uv_run(&f->loop, UV_RUN_NOWAIT);
}

void send_text(struct fixture *f, int fd, const char *text, size_t len)
{
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS;

	while (len) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return; /* refused in the middle: the answer tells */
		if (n > 0) {
			text += n;
			len -= (size_t)n;
		}
		turn(f, fd, POLLOUT);
		assert_true(clock_monotonic_ms() < end);
	}
}

int ask(struct fixture *f, const char *method, const char *target)
{
	_cleanup_free_ char *text =
		xasprintf("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, target);
	int fd = dial(f->socket);

	send_text(f, fd, text, strlen(text));
	return fd;
}

struct reply take_reply(struct fixture *f, int fd)
{
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS;
	struct strbuf b = STRBUF_NULL;
	struct reply r = {0};
	char chunk[65536];
	ssize_t n;

	while ((n = recv(fd, chunk, sizeof(chunk), 0)) != 0) {
		if (n > 0)
			strbuf_add(&b, chunk, (size_t)n);
		else if (errno != EAGAIN)
			break;
		else
			turn(f, fd, POLLIN);
		if (clock_monotonic_ms() > end)
			fail_msg("no answer; so far: %s", strbuf_str(&b));
	}
	close(fd);
	r.all = strbuf_take(&b);
	r.body = strstr(r.all, "\r\n\r\n");
	r.body = r.body ? r.body + 4 : "";
	if (sscanf(r.all, "HTTP/1.1 %d", &r.status) != 1)
		r.status = 0;
	r.json = json_loads(r.body, 0, NULL);
	return r;
}

void reply_free(struct reply *r)
{
	json_decref(r->json);
	free(r->all);
}

struct reply get(struct fixture *f, const char *method, const char *target)
{
	return take_reply(f, ask(f, method, target));
}

const char *field(const struct reply *r, const char *key)
{
	const char *s = json_string_value(json_object_get(r->json, key));

	return s ? s : "(none)";
}

void assert_problem(const struct reply *r, int status, const char *type)
{
	_cleanup_free_ char *urn = xasprintf("urn:h2ofleet:problem:%s", type);

	assert_int_equal(r->status, status);
	assert_string_equal(field(r, "type"), urn);
	assert_int_equal(json_integer_value(json_object_get(r->json, "status")), status);
	assert_non_null(json_object_get(r->json, "title"));
	assert_non_null(json_object_get(r->json, "detail"));
	assert_non_null(strcasestr(r->all, "content-type: application/problem+json"));
}

void until_waiting(struct fixture *f, size_t n)
{
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS;
	size_t have;

	do {
		turn(f, -1, 0);
		have = 0;
		for (struct request *rq = f->api->waiters; rq; rq = rq->next)
			have++;
		assert_true(clock_monotonic_ms() < end);
	} while (have != n);
}
