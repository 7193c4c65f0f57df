/* The control protocol's server over a real socket, with a fake fleet, in one loop with raw
 * clients. No test sleeps: client and server are polled together until the answer is there. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "api/server.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/strbuf.h"
#include "fake_fleet.h"

#define PATIENCE_MS 20000

struct fixture {
	uv_loop_t loop;
	struct fleet *fleet;
	struct cloud *dev;
	struct api *api;
	char dir[64];
	char socket[100];
};

struct reply {
	int status;
	char *all; /* owned: headers and body */
	const char *body;
	json_t *json; /* owned */
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	_cleanup_(err_clear) struct err e = ERR_NULL;

	snprintf(f->dir, sizeof(f->dir), "/tmp/h2ofleet-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->socket, sizeof(f->socket), "%s/run/control.sock", f->dir);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	f->fleet = fake_fleet_new();
	f->fleet->log_dir = f->dir;
	f->dev = fake_fleet_add(f->fleet, "dev", 3);
	fake_fleet_add(f->fleet, "other", 1);
	assert_int_equal(api_new(&f->loop, f->fleet, f->socket, &f->api, &e), 0);
	*state = f;
	return 0;
}

static void end_api(struct fixture *f)
{
	api_free(TAKE_PTR(f->api));
	uv_run(&f->loop, UV_RUN_DEFAULT);
	fake_fleet_free(f->fleet);
}

static int teardown(void **state)
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

/* --- clients ----------------------------------------------------------------------------- */

static int dial(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

/* Lets the server run until `fd` (-1: none) is ready or something happened in the loop. */
static void turn(struct fixture *f, int fd, short events)
{
	struct pollfd p[2] = {
		{.fd = fd, .events = events}, {.fd = uv_backend_fd(&f->loop), .events = POLLIN}};
	int timeout = uv_backend_timeout(&f->loop);

	poll(p, 2, timeout < 0 || timeout > 100 ? 100 : timeout);
	uv_run(&f->loop, UV_RUN_NOWAIT);
}

static void send_text(struct fixture *f, int fd, const char *text, size_t len)
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

static int ask(struct fixture *f, const char *method, const char *target)
{
	_cleanup_free_ char *text =
		xasprintf("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", method, target);
	int fd = dial(f->socket);

	send_text(f, fd, text, strlen(text));
	return fd;
}

/* Reads to the end; closes the fd. */
static struct reply take_reply(struct fixture *f, int fd)
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

static void reply_free(struct reply *r)
{
	json_decref(r->json);
	free(r->all);
}

static struct reply get(struct fixture *f, const char *method, const char *target)
{
	return take_reply(f, ask(f, method, target));
}

static const char *field(const struct reply *r, const char *key)
{
	const char *s = json_string_value(json_object_get(r->json, key));

	return s ? s : "(none)";
}

static void assert_problem(const struct reply *r, int status, const char *type)
{
	_cleanup_free_ char *urn = xasprintf("urn:h2ofleet:problem:%s", type);

	assert_int_equal(r->status, status);
	assert_string_equal(field(r, "type"), urn);
	assert_int_equal(json_integer_value(json_object_get(r->json, "status")), status);
	assert_non_null(json_object_get(r->json, "title"));
	assert_non_null(json_object_get(r->json, "detail"));
	assert_non_null(strcasestr(r->all, "content-type: application/problem+json"));
}

/* Until a request of ours waits in the server. */
static void until_waiting(struct fixture *f, size_t n)
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

/* --- requests ---------------------------------------------------------------------------- */

static const struct {
	const char *method, *target;
	int status;
	const char *problem; /* NULL: none */
	const char *detail;  /* NULL: not looked at */
} table[] = {
	{"GET", "/v1/version", 200, NULL, NULL},
	{"GET", "/v1/clouds", 200, NULL, NULL},
	{"HEAD", "/v1/clouds", 200, NULL, NULL},
	{"GET", "/v1/clouds/dev", 200, NULL, NULL},
	{"GET", "/v1/clouds/d%65v", 200, NULL, NULL},
	{"POST", "/v1/clouds/dev/start", 202, NULL, NULL},
	{"POST", "/v1/clouds/dev/start?resume=yes", 202, NULL, NULL},
	{"POST", "/v1/clouds/dev/start?resume=no", 202, NULL, NULL},
	{"POST", "/v1/clouds/dev/stop", 202, NULL, NULL},
	{"POST", "/v1/clouds/dev/restart", 202, NULL, NULL},
	{"GET", "/v1/clouds/dev/nodes/2/log", 200, NULL, NULL},
	{"GET", "/", 404, "no-such-path", "nothing is at /"},
	{"GET", "/v2/clouds", 404, "no-such-path", NULL},
	{"GET", "/v1/clouds/", 404, "no-such-path", NULL},
	{"GET", "/v1/clouds/dev/", 404, "no-such-path", NULL},
	{"GET", "/v1/clouds/dev%2fstart", 405, "method-not-allowed", NULL},
	{"POST", "/v1/clouds//start", 404, "no-such-path", NULL},
	{"GET", "/v1/%1b[31m", 404, "no-such-path", "nothing is at /v1/\\x1b[31m"},
	{"DELETE", "/v1/clouds/dev", 405, "method-not-allowed",
		"/v1/clouds/dev does not know DELETE, only GET, HEAD"},
	{"GET", "/v1/clouds/dev/start", 405, "method-not-allowed", NULL},
	{"POST", "/v1/clouds", 405, "method-not-allowed", NULL},
	{"GET", "/v1/clouds?x=1", 400, "unknown-parameter", "unknown parameter 'x'"},
	{"POST", "/v1/clouds/dev/start?resum=yes", 400, "unknown-parameter",
		"unknown parameter 'resum'; did you mean 'resume'?"},
	{"POST", "/v1/clouds/dev/stop?resume=yes", 400, "unknown-parameter", NULL},
	{"POST", "/v1/clouds/dev/start?wait=ready&wait=ready", 400, "bad-parameter",
		"parameter 'wait' is given twice"},
	{"POST", "/v1/clouds/dev/start?wait=stopped", 400, "bad-parameter",
		"'stopped' is no value for 'wait': expected ready"},
	{"POST", "/v1/clouds/dev/stop?wait=ready", 400, "bad-parameter", NULL},
	{"GET", "/v1/clouds/dev?wait", 400, "bad-parameter",
		"'' is no value for 'wait': expected ready or stopped"},
	{"GET", "/v1/clouds/dev?wait=ready&timeout=5", 400, "bad-parameter", NULL},
	{"GET", "/v1/clouds/dev?timeout=5s", 400, "bad-parameter",
		"'timeout' means nothing without 'wait'"},
	{"POST", "/v1/clouds/dev/start?resume=1", 400, "bad-parameter", NULL},
	{"GET", "/v1/clouds/dve", 404, "no-such-cloud", "no cloud 'dve'; did you mean 'dev'?"},
	{"POST", "/v1/clouds/zzzzzzzz/stop", 404, "no-such-cloud", "no cloud 'zzzzzzzz'"},
	{"GET", "/v1/clouds/dev%00x", 400, "bad-request", NULL},
	{"GET", "/v1/clouds/d%ff", 404, "no-such-cloud", NULL},
	{"GET", "/v1/clouds/dev/nodes/3/log", 404, "no-such-node",
		"cloud 'dev' has no node '3'; it has nodes 0 to 2"},
	{"GET", "/v1/clouds/dev/nodes/-1/log", 404, "no-such-node", NULL},
	{"GET", "/v1/clouds/dev/nodes/x/log", 404, "no-such-node", NULL},
	{"GET", "/v1/clouds/dev/nodes/0/log?tail=0", 400, "bad-parameter", NULL},
	{"GET", "/v1/clouds/dev/nodes/0/log?tail=100001", 400, "bad-parameter", NULL},
	{"GET", "/v1/clouds/dev/nodes/0/log?tail=ten", 400, "bad-parameter", NULL},
};

static void test_table(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		_cleanup_(reply_free) struct reply r =
			get(*state, table[i].method, table[i].target);

		if (r.status != table[i].status)
			fail_msg("%s %s: %d, not %d\n%s", table[i].method, table[i].target,
				r.status, table[i].status, r.all);
		if (table[i].problem)
			assert_problem(&r, table[i].status, table[i].problem);
		if (table[i].detail)
			assert_string_equal(field(&r, "detail"), table[i].detail);
	}
}

static void test_refused_requests_command_nothing(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		_cleanup_(reply_free) struct reply r = {0};

		if (table[i].status < 400)
			continue;
		r = get(f, table[i].method, table[i].target);
	}
	assert_int_equal(f->fleet->n_commands, 0);
}

static void test_allow_header(void **state)
{
	_cleanup_(reply_free) struct reply r = get(*state, "PUT", "/v1/clouds");

	assert_non_null(strcasestr(r.all, "\r\nallow: GET, HEAD\r\n"));
}

static void test_clouds(void **state)
{
	_cleanup_(reply_free) struct reply r = get(*state, "GET", "/v1/clouds");
	json_t *clouds = json_object_get(r.json, "clouds");

	assert_int_equal(json_array_size(clouds), 2);
	assert_string_equal(
		json_string_value(json_object_get(json_array_get(clouds, 0), "name")), "dev");
	assert_non_null(strcasestr(r.all, "content-type: application/json\r\n"));
}

static void test_version(void **state)
{
	_cleanup_(reply_free) struct reply r = get(*state, "GET", "/v1/version");

	assert_string_equal(field(&r, "version"), PACKAGE_VERSION);
	assert_string_equal(field(&r, "api"), "v1");
	assert_int_equal(json_integer_value(json_object_get(r.json, "pid")), getpid());
	assert_true(json_is_string(
		json_object_get(json_object_get(r.json, "libraries"), "libmicrohttpd")));
}

static void test_commands(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *target;
		struct fake_command want;
	} cases[] = {
		{"/v1/clouds/dev/start?resume=yes", {"dev", FLEET_START, true}},
		{"/v1/clouds/other/start", {"other", FLEET_START, false}},
		{"/v1/clouds/dev/stop", {"dev", FLEET_STOP, false}},
		{"/v1/clouds/dev/restart?resume=yes", {"dev", FLEET_RESTART, true}},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(reply_free) struct reply r = get(f, "POST", cases[i].target);
		const struct fake_command *got = &f->fleet->commands[i];

		assert_int_equal(r.status, 202);
		assert_string_equal(field(&r, "name"), cases[i].want.cloud);
		assert_int_equal(f->fleet->n_commands, i + 1);
		assert_string_equal(got->cloud, cases[i].want.cloud);
		assert_int_equal(got->cmd, cases[i].want.cmd);
		assert_int_equal(got->resume, cases[i].want.resume);
	}
}

static void test_log(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *path = xasprintf("%s/dev-1.log", f->dir);
	_cleanup_(reply_free) struct reply r = {0};

	assert_int_equal(
		file_write_atomic(path, "one\ntwo\nbr\xffken\n", 15, 0600, false, NULL), 0);
	r = get(f, "GET", "/v1/clouds/dev/nodes/1/log?tail=2");
	assert_int_equal(r.status, 200);
	assert_string_equal(r.body, "two\nbr\xef\xbf\xbdken\n");
	assert_non_null(strcasestr(r.all, "content-type: text/plain; charset=utf-8\r\n"));
}

/* Two requests on one connection. */
static void test_keep_alive(void **state)
{
	struct fixture *f = *state;
	const char *text = "GET /v1/clouds/dev HTTP/1.1\r\nHost: x\r\n\r\n"
			   "GET /v1/clouds/other HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	_cleanup_(reply_free) struct reply r = {0};
	int fd = dial(f->socket);

	send_text(f, fd, text, strlen(text));
	r = take_reply(f, fd);
	assert_non_null(strstr(r.all, "\"name\":\"dev\""));
	assert_non_null(strstr(r.all, "\"name\":\"other\""));
}

/* --- limits ------------------------------------------------------------------------------ */

static struct reply post_body(struct fixture *f, size_t announced, size_t len)
{
	_cleanup_free_ char *head = xasprintf("POST /v1/clouds/dev/start HTTP/1.1\r\nHost: x\r\n"
					      "Connection: close\r\nContent-Length: %zu\r\n\r\n",
		announced);
	_cleanup_free_ char *body = xcalloc(len + 1, 1);
	int fd = dial(f->socket);

	memset(body, 'x', len);
	send_text(f, fd, head, strlen(head));
	send_text(f, fd, body, len);
	return take_reply(f, fd);
}

static void test_body_limits(void **state)
{
	struct fixture *f = *state;
	static const struct {
		size_t announced, sent;
		int status;
		const char *type;
	} cases[] = {
		{65537, 65537, 413, "body-too-large"},
		{500000, 500000, 413, "body-too-large"},
		{100000000, 0, 413, "body-too-large"}, /* answered without reading it */
		{65536, 65536, 400, "bad-request"},
		{2, 2, 400, "bad-request"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(reply_free) struct reply r =
			post_body(f, cases[i].announced, cases[i].sent);

		assert_problem(&r, cases[i].status, cases[i].type);
	}
	assert_int_equal(f->fleet->n_commands, 0);
}

static void test_endless_chunked_body(void **state)
{
	struct fixture *f = *state;
	const char *head = "POST /v1/clouds/dev/start HTTP/1.1\r\nHost: x\r\n"
			   "Transfer-Encoding: chunked\r\n\r\n";
	char chunk[4096 + 8];
	int fd = dial(f->socket);
	size_t sent = 0;

	memset(chunk, 'x', sizeof(chunk));
	memcpy(chunk, "1000\r\n", 6);
	memcpy(chunk + 6 + 4096, "\r\n", 2);
	send_text(f, fd, head, strlen(head));
	while (sent < (8u << 20)) {
		ssize_t n = send(fd, chunk, 4104, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			break; /* it was cut off */
		sent += n > 0 ? (size_t)n : 0;
		turn(f, fd, POLLOUT);
		if (n > 0 && n < 4104)
			send_text(f, fd, chunk + n, 4104 - (size_t)n);
	}
	assert_true(sent < (4u << 20));
	close(fd);
	assert_int_equal(f->fleet->n_commands, 0);
}

static void test_large_headers(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *big = xcalloc(200001, 1), *text = NULL;
	_cleanup_(reply_free) struct reply r = {0};
	int fd = dial(f->socket);

	memset(big, 'x', 200000);
	text = xasprintf("GET /v1/clouds HTTP/1.1\r\nHost: x\r\nX-Big: %s\r\n\r\n", big);
	send_text(f, fd, text, strlen(text));
	r = take_reply(f, fd);
	assert_int_equal(r.status, 431);
}

static void more_files(void)
{
	struct rlimit l;

	getrlimit(RLIMIT_NOFILE, &l);
	l.rlim_cur = l.rlim_max;
	setrlimit(RLIMIT_NOFILE, &l);
}

static void test_silent_connections(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	int fds[200];

	more_files();
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial(f->socket);
		turn(f, -1, 0);
	}
	send_text(f, fds[0], "GET /v1/cl", 10); /* and one that says too little */
	r = get(f, "GET", "/v1/clouds/dev");
	assert_int_equal(r.status, 200);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

static void test_too_many_connections(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply refused = {0}, served = {0};
	int fds[PEERS_MAX_OWN];

	more_files();
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial(f->socket);
		turn(f, -1, 0);
	}
	refused = take_reply(f, dial(f->socket));
	assert_int_equal(refused.status, 503);
	assert_string_equal(field(&refused, "type"), "urn:h2ofleet:problem:too-many-connections");
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		close(fds[i]);
	while (f->api->peers.list)
		turn(f, -1, 0);
	assert_int_equal(f->api->peers.own, 0);
	served = get(f, "GET", "/v1/clouds/dev");
	assert_int_equal(served.status, 200);
}

/* A client that asks for much and reads nothing. */
static void test_stuck_reader(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *path = xasprintf("%s/dev-0.log", f->dir), *log = xcalloc(1, 2000001);
	_cleanup_(reply_free) struct reply r = {0}, late = {0};
	int fd;

	for (size_t i = 0; i < 2000000; i++)
		log[i] = i % 100 == 99 ? '\n' : 'x';
	assert_int_equal(file_write_atomic(path, log, 2000000, 0600, false, NULL), 0);
	fd = ask(f, "GET", "/v1/clouds/dev/nodes/0/log?tail=100000");
	for (int i = 0; i < 20; i++) {
		reply_free(&r);
		r = get(f, "GET", "/v1/clouds/dev");
		assert_int_equal(r.status, 200);
	}
	late = take_reply(f, fd);
	assert_int_equal(strlen(late.body), 2000000);
}

/* --- waiting ----------------------------------------------------------------------------- */

static void test_wait_resolved_by_observer(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	int fd = ask(f, "POST", "/v1/clouds/dev/start?wait=ready&timeout=60s");

	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_FORMING, NULL);
	turn(f, -1, 0);
	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	assert_null(f->api->waiters);
	/* The answer shows the moment that it waited for, whatever came then. */
	fake_fleet_set(f->fleet, f->dev, CLOUD_RECOVERING, "lost");
	r = take_reply(f, fd);
	assert_int_equal(r.status, 200);
	assert_string_equal(field(&r, "state"), "ready");
	assert_string_equal(field(&r, "endpoint"), "http://127.0.0.1:54321");
}

static void test_wait_reached_already(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply stopped = {0}, ready = {0}, failed = {0};

	stopped = get(f, "POST", "/v1/clouds/dev/stop?wait=stopped");
	assert_int_equal(stopped.status, 200);
	fake_fleet_set(f->fleet, f->dev, CLOUD_DEGRADED, "late");
	ready = get(f, "GET", "/v1/clouds/dev?wait=ready&timeout=0");
	assert_int_equal(ready.status, 200);
	fake_fleet_set(f->fleet, f->dev, CLOUD_FAILED, "gave up");
	failed = get(f, "GET", "/v1/clouds/dev?wait=stopped");
	assert_int_equal(failed.status, 200);
}

static void test_wait_others_untouched(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	int one = ask(f, "GET", "/v1/clouds/other?wait=ready");
	int two = ask(f, "GET", "/v1/clouds/dev?wait=ready");
	int three = ask(f, "GET", "/v1/clouds/dev?wait=ready");

	until_waiting(f, 3);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	until_waiting(f, 1);
	r = take_reply(f, two);
	assert_string_equal(field(&r, "name"), "dev");
	reply_free(&r);
	r = take_reply(f, three);
	assert_string_equal(field(&r, "name"), "dev");
	reply_free(&r);
	fake_fleet_set(f->fleet, f->fleet->clouds[1], CLOUD_READY, NULL);
	r = take_reply(f, one);
	assert_string_equal(field(&r, "name"), "other");
}

static void test_wait_failed(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0}, at_once = {0};
	int fd = ask(f, "POST", "/v1/clouds/dev/start?wait=ready");

	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_FAILED, "5 failures within 10m");
	r = take_reply(f, fd);
	assert_problem(&r, 409, "cloud-failed");
	assert_string_equal(field(&r, "detail"), "cloud 'dev' failed: 5 failures within 10m");
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(r.json, "cloud"), "state")),
		"failed");
	at_once = get(f, "GET", "/v1/clouds/dev?wait=ready");
	assert_problem(&at_once, 409, "cloud-failed");
}

/* Who started it is told when somebody else stops it; who only waits goes on waiting. */
static void test_wait_stopped_by_another(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0}, later = {0};
	int started = ask(f, "POST", "/v1/clouds/dev/start?wait=ready");
	int waiting = ask(f, "GET", "/v1/clouds/dev?wait=ready");

	until_waiting(f, 2);
	fake_fleet_set(f->fleet, f->dev, CLOUD_STOPPING, NULL);
	fake_fleet_set(f->fleet, f->dev, CLOUD_STOPPED, NULL);
	r = take_reply(f, started);
	assert_problem(&r, 409, "cloud-stopped");
	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	later = take_reply(f, waiting);
	assert_int_equal(later.status, 200);
}

/* The fleet may carry a command out a little later: neither the readiness before a restart nor the
 * stop before a start is the answer. */
static void test_wait_for_lazy_fleet(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply started = {0}, restarted = {0};
	int fd;

	f->fleet->lazy = true;
	fd = ask(f, "POST", "/v1/clouds/dev/start?wait=ready");
	until_waiting(f, 1);
	f->dev->generation = 1;
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	started = take_reply(f, fd);
	assert_int_equal(started.status, 200);

	fd = ask(f, "POST", "/v1/clouds/dev/restart?wait=ready");
	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_STOPPING, NULL);
	f->dev->generation = 2;
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	restarted = take_reply(f, fd);
	assert_int_equal(restarted.status, 200);
	assert_int_equal(json_integer_value(json_object_get(restarted.json, "generation")), 2);
}

static void test_wait_timeout(void **state)
{
	struct fixture *f = *state;
	uint64_t begin = clock_monotonic_ms();
	_cleanup_(reply_free) struct reply r = {0};

	r = get(f, "POST", "/v1/clouds/dev/start?wait=ready&timeout=300ms");
	assert_problem(&r, 504, "wait-timeout");
	assert_string_equal(field(&r, "detail"), "cloud 'dev' is starting, not yet ready");
	assert_true(clock_monotonic_ms() - begin >= 300);
	assert_non_null(json_object_get(r.json, "cloud"));
	assert_false(uv_is_active((uv_handle_t *)&f->api->wait_timer));
}

static void test_wait_client_gone(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	int gone = ask(f, "GET", "/v1/clouds/dev?wait=ready");
	int half = ask(f, "GET", "/v1/clouds/dev?wait=ready");

	until_waiting(f, 2);
	close(gone);
	shutdown(half, SHUT_WR); /* still reads */
	until_waiting(f, 1);
	while (f->api->peers.own > 1)
		turn(f, -1, 0);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	r = take_reply(f, half);
	assert_int_equal(r.status, 200);
}

static void test_free_while_waiting(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	int fd = ask(f, "GET", "/v1/clouds/dev?wait=ready");

	until_waiting(f, 1);
	end_api(f);
	r = take_reply(f, fd);
	assert_problem(&r, 503, "shutting-down");
}

/* --- peers and the socket ---------------------------------------------------------------- */

/* What a process of another user and group gets: its HTTP status as exit code, minus 200. */
static int status_for(struct fixture *f, uid_t uid, gid_t gid, gid_t supplementary)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct sockaddr_un sa = {.sun_family = AF_UNIX};
		const char *text = "GET /v1/clouds HTTP/1.1\r\nHost: x\r\n\r\n";
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
	assert_int_equal(status_for(f, 0, 0, 0), 200);
	assert_int_equal(status_for(f, 4001, 4242, 4001), 200);
	assert_int_equal(status_for(f, 4001, 4001, 4242), 200);
	assert_int_equal(status_for(f, 4001, 4001, 4001), 450); /* connect() itself fails */
	assert_int_equal(chmod(f->socket, 0666), 0);
	assert_int_equal(status_for(f, 4001, 4001, 4001), 403);
	assert_int_equal(status_for(f, 4001, 4242, 4001), 200);
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
	assert_int_equal(file_write_atomic(file, "x", 1, 0600, false, NULL), 0);
	assert_refused(f, file, -EADDRINUSE, "is in the way: it is no socket");
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

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_table),
		TEST(test_refused_requests_command_nothing),
		TEST(test_allow_header),
		TEST(test_clouds),
		TEST(test_version),
		TEST(test_commands),
		TEST(test_log),
		TEST(test_keep_alive),
		TEST(test_body_limits),
		TEST(test_endless_chunked_body),
		TEST(test_large_headers),
		TEST(test_silent_connections),
		TEST(test_too_many_connections),
		TEST(test_stuck_reader),
		TEST(test_wait_resolved_by_observer),
		TEST(test_wait_reached_already),
		TEST(test_wait_others_untouched),
		TEST(test_wait_failed),
		TEST(test_wait_stopped_by_another),
		TEST(test_wait_for_lazy_fleet),
		TEST(test_wait_timeout),
		TEST(test_wait_client_gone),
		TEST(test_free_while_waiting),
		TEST(test_peer_credentials),
		TEST(test_socket_mode),
		TEST(test_socket_refused),
		TEST(test_stale_socket_replaced),
		TEST(test_foreign_socket_left),
	};

	if (argc > 1) /* just one of them, for a debugger */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
