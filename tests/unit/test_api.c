/* The control protocol: what is answered to which request, and its limits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "config.h"

#include "api_fixture.h"
#include "base/clock.h"
#include "base/file.h"

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
	{"GET", "/v1/incidents", 200, NULL, NULL},
	{"GET", "/v1/incidents?cloud=gone&limit=100", 200, NULL, NULL},
	{"GET", "/v1/incidents?limit=101", 400, "bad-parameter",
		"'101' is no value for 'limit': expected a number from 1 to 100"},
	{"GET", "/v1/incidents?limit=0", 400, "bad-parameter", NULL},
	{"GET", "/v1/incidents/20260101-000000-000", 404, "no-such-incident",
		"there is no incident 20260101-000000-000 (any more)"},
	{"DELETE", "/v1/incidents/20260101-000000-000", 404, "no-such-incident", NULL},
	{"DELETE", "/v1/incidents", 405, "method-not-allowed", NULL},
	{"GET", "/v1/incidents/..%2f..%2fx", 400, "bad-request", NULL},
	{"GET", "/v1/incidents/..", 404, "no-such-incident", NULL},
	{"GET", "/", 404, "no-such-path", "nothing is at /"},
	{"GET", "/v2/clouds", 404, "no-such-path", NULL},
	{"GET", "/v1/clouds/", 404, "no-such-path", NULL},
	{"GET", "/v1/clouds/dev/", 404, "no-such-path", NULL},
	{"GET", "/v1/clouds/dev%2fstart", 400, "bad-request", NULL},
	{"GET", "/v1/events?since=1%2F2", 400, "bad-parameter", NULL},
	{"GET", "/v1/fleet", 200, NULL, NULL},
	{"GET", "/v1/healthz", 200, NULL, NULL},
	{"GET", "/v1/healthz?settled=yes", 200, NULL, NULL},
	{"GET", "/v1/openapi.json", 200, NULL, NULL},
	{"GET", "/v1/clouds/dev/nodes", 200, NULL, NULL},
	{"GET", "/v1/clouds/dev/nodes/2", 200, NULL, NULL},
	{"GET", "/v1/clouds/dev/nodes/3", 404, "no-such-node", NULL},
	{"GET", "/v1/clouds/dve/nodes", 404, "no-such-cloud", NULL},
	{"GET", "/v1/shutdown", 405, "method-not-allowed", NULL},
	{"POST", "/v1/shutdown?at_once=1", 400, "bad-parameter", NULL},
	{"POST", "/v1/clouds//start", 404, "no-such-path", NULL},
	{"GET", "/v1/%1b[31m", 404, "no-such-path", "nothing is at /v1/\\x1b[31m"},
	{"DELETE", "/v1/clouds/dev", 409, "cloud-configured", NULL},
	{"PUT", "/v1/clouds/dev", 405, "method-not-allowed",
		"/v1/clouds/dev does not know PUT, only GET, HEAD, DELETE"},
	{"GET", "/v1/clouds/dev/start", 405, "method-not-allowed", NULL},
	{"PUT", "/v1/clouds", 405, "method-not-allowed", NULL},
	{"POST", "/v1/clouds", 400, "bad-body", NULL},
	{"PATCH", "/v1/clouds/dev/config", 409, "cloud-configured", NULL},
	{"DELETE", "/v1/clouds/dev?wait=stopped", 400, "bad-parameter", NULL},
	{"GET", "/v1/clouds?x=1", 400, "unknown-parameter", "unknown parameter 'x'"},
	{"POST", "/v1/clouds/dev/start?resum=yes", 400, "unknown-parameter",
		"unknown parameter 'resum'; did you mean 'resume'?"},
	{"POST", "/v1/clouds/dev/stop?disarm=yes", 202, NULL, NULL},
	{"POST", "/v1/clouds/dev/start?disarm=yes", 400, "unknown-parameter", NULL},
	{"POST", "/v1/clouds/dev/touch?wait=ready", 400, "unknown-parameter", NULL},
	{"GET", "/v1/clouds/dev/touch", 405, "method-not-allowed", NULL},
	{"POST", "/v1/clouds/zzzzzzzz/touch", 404, "no-such-cloud", NULL},
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
		if (table[i].status >= 400) {
			_cleanup_(reply_free) _unused_ struct reply r =
				get(f, table[i].method, table[i].target);
		}
	}
	assert_int_equal(f->fleet->n_commands, 0);
}

static void test_fleet(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	json_t *clouds, *nodes;

	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	f->dev->nodes[0].state = f->dev->nodes[1].state = NODE_UP;
	r = get(f, "GET", "/v1/fleet");
	clouds = json_object_get(r.json, "clouds");
	nodes = json_object_get(r.json, "nodes");
	assert_int_equal(json_integer_value(json_object_get(clouds, "total")), 2);
	assert_int_equal(json_integer_value(json_object_get(clouds, "ready")), 1);
	assert_int_equal(json_integer_value(json_object_get(clouds, "stopped")), 1);
	assert_int_equal(json_integer_value(json_object_get(clouds, "failed")), 0);
	assert_int_equal(json_integer_value(json_object_get(nodes, "total")), 4);
	assert_int_equal(json_integer_value(json_object_get(nodes, "up")), 2);
	assert_int_equal(json_integer_value(json_object_get(nodes, "down")), 2);
	assert_string_equal(field(&r, "socket"), f->socket);
	assert_string_equal(field(&r, "id"), fleet_id(f->fleet));
}

/* Who makes the boot cache, what it does, and what the last attempt has come to. */
static void test_boot_cache(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply none = {0}, busy = {0};
	json_auto_t *want_none = NULL, *want = NULL;

	replace_str(&f->fleet->conf.fleet.cache_dir, "/c");
	none = get(f, "GET", "/v1/fleet");
	want_none = json_loads(
		"{\"dir\":\"/c/boot\",\"building\":null,\"step\":null,\"last\":null}", 0, NULL);
	assert_true(json_equal(json_object_get(none.json, "boot_cache"), want_none));
	f->fleet->boot_cache = (struct fleet_boot_cache){
		"cloud dev", "3 of 5", {"failed", "dev", "no room", 1000, 70}};
	busy = get(f, "GET", "/v1/fleet");
	want = json_loads("{\"dir\":\"/c/boot\",\"building\":\"cloud dev\",\"step\":\"3 of 5\","
			  "\"last\":{\"result\":\"failed\",\"cloud\":\"dev\",\"why\":\"no room\","
			  "\"time\":\"1970-01-01T00:00:01.000Z\",\"duration_ms\":70}}",
		0, NULL);
	assert_true(json_equal(json_object_get(busy.json, "boot_cache"), want));
	free(TAKE_PTR(f->fleet->conf.fleet.cache_dir));
}

/* What is asked, and how it is with the daemon, against what is answered. */
static void test_health(void **state)
{
	static const struct {
		bool settled, ending;
		uint64_t overdue_ms;
		const char *target, *problem;
	} cases[] = {
		{true, false, 0, "/v1/healthz?settled=yes", NULL},
		{false, false, FLEET_OVERDUE_MAX_MS, "/v1/healthz", NULL},
		{false, false, 0, "/v1/healthz?settled=yes", "not-settled"},
		{true, false, FLEET_OVERDUE_MAX_MS + 1, "/v1/healthz", "not-healthy"},
		{true, true, 0, "/v1/healthz", "shutting-down"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(reply_free) struct reply r = {0};

		f->fleet->unsettled = !cases[i].settled;
		f->fleet->ending = cases[i].ending;
		f->fleet->overdue_ms = cases[i].overdue_ms;
		r = get(f, "GET", cases[i].target);
		if (cases[i].problem) {
			assert_problem(&r, 503, cases[i].problem);
			continue;
		}
		assert_int_equal(r.status, 200);
		assert_string_equal(field(&r, "status"), "ok");
		assert_true(json_is_boolean(json_object_get(r.json, "settled")));
	}
}

static void on_shutdown(bool at_once, void *arg)
{
	*(int *)arg += at_once ? 10 : 1;
}

static void test_shutdown(void **state)
{
	_cleanup_(reply_free) struct reply nobody = get(*state, "POST", "/v1/shutdown");
	_cleanup_(reply_free) struct reply first = {0}, second = {0};
	int asked = 0;

	assert_problem(&nobody, 501, "not-here");
	api_set_shutdown(((struct fixture *)*state)->api, on_shutdown, &asked);
	first = get(*state, "POST", "/v1/shutdown");
	assert_int_equal(first.status, 202);
	assert_int_equal(asked, 1);
	second = get(*state, "POST", "/v1/shutdown?at_once=yes");
	assert_int_equal(second.status, 202);
	assert_true(json_is_true(json_object_get(second.json, "at_once")));
	assert_int_equal(asked, 11);
}

static void test_node(void **state)
{
	_cleanup_(reply_free) struct reply all = get(*state, "GET", "/v1/clouds/dev/nodes");
	_cleanup_(reply_free) struct reply one = get(*state, "GET", "/v1/clouds/dev/nodes/1");
	json_t *nodes = json_object_get(all.json, "nodes");

	assert_int_equal(json_array_size(nodes), 3);
	assert_int_equal(json_integer_value(json_object_get(one.json, "index")), 1);
	assert_true(json_equal(json_array_get(nodes, 1), one.json));
}

static void test_allow_header(void **state)
{
	_cleanup_(reply_free) struct reply r = get(*state, "PUT", "/v1/clouds");

	assert_non_null(strcasestr(r.all, "\r\nallow: GET, HEAD, POST\r\n"));
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
		{"/v1/clouds/dev/stop?disarm=yes", {"dev", FLEET_STOP, true}},
		{"/v1/clouds/other/touch", {"other", FLEET_TOUCH, false}},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(reply_free) struct reply r = get(f, "POST", cases[i].target);
		const struct fake_command *got = &f->fleet->commands[i];

		assert_int_equal(r.status, 202);
		assert_string_equal(field(&r, "name"), cases[i].want.cloud);
		assert_int_equal(f->fleet->n_commands, i + 1);
		assert_string_equal(got->cloud, cases[i].want.cloud);
		assert_int_equal(got->cmd, cases[i].want.cmd);
		assert_int_equal(got->flag, cases[i].want.flag);
	}
}

/* Proves: what does not run cannot be touched, and the answer says why. */
static void test_touch(void **state)
{
	struct fixture *f = *state;
	struct cloud *c = f->fleet->clouds[0];
	static const struct {
		enum cloud_wanted wanted;
		enum cloud_state state;
		const char *reason, *problem, *detail;
	} cases[] = {
		{WANTED_RUNNING, CLOUD_READY, NULL, NULL, NULL},
		{WANTED_RUNNING, CLOUD_FORMING, NULL, NULL, NULL},
		{WANTED_RUNNING, CLOUD_FAILED, "no jar", "cloud-failed",
			"cloud 'dev' failed: no jar"},
		{WANTED_STOPPED, CLOUD_STOPPING, NULL, "cloud-stopped",
			"cloud 'dev' is being stopped"},
		{WANTED_STOPPED, CLOUD_STOPPED, "stopped after 1h without use", "cloud-stopped",
			"cloud 'dev' is stopped: stopped after 1h without use"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(reply_free) struct reply r = {0};

		c->wanted = cases[i].wanted;
		fake_fleet_set(f->fleet, c, cases[i].state, cases[i].reason);
		f->fleet->n_commands = 0;
		r = get(f, "POST", "/v1/clouds/dev/touch");
		assert_int_equal(f->fleet->n_commands, cases[i].problem == NULL);
		if (!cases[i].problem) {
			assert_int_equal(r.status, 202);
			continue;
		}
		assert_problem(&r, 409, cases[i].problem);
		assert_string_equal(field(&r, "detail"), cases[i].detail);
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

/* A key of the first cloud in the answer to /v1/config. */
static const json_t *config_key(const struct reply *r, const char *name)
{
	const json_t *cloud = json_array_get(json_object_get(r->json, "clouds"), 0), *k;
	size_t i;

	json_array_foreach (json_object_get(cloud, "keys"), i, k)
		if (streq_null(json_string_value(json_object_get(k, "key")), name))
			return k;
	return NULL;
}

static void test_config_hides_secrets(void **state)
{
	static const struct {
		const char *key, *value, *shown;
	} cases[] = {
		{"env", "A=b PATH=/x:/y", "A=*** PATH=***"},
		{"jvm_custom_args", "-Xss2m -Dx.Password=p -Dy=z", "-Xss2m -Dx.Password=*** -Dy=z"},
		{"h2o_args", "-api_token t -other -x", "-api_token *** -other -x"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(cloud_conf_freep) struct cloud_conf *conf = cloud_conf_new("dev");
		_cleanup_(err_clear) struct err e = ERR_NULL;
		const struct cloud_conf *fakes = f->dev->conf;
		_cleanup_(reply_free) struct reply r = {0};
		const json_t *k;

		if (cloud_conf_set(conf, cases[i].key, cases[i].value, &e) < 0)
			fail_msg("%s", err_msg(&e));
		f->dev->conf = conf;
		r = get(f, "GET", "/v1/config");
		f->dev->conf = fakes;
		k = config_key(&r, cases[i].key);
		assert_string_equal(json_string_value(json_object_get(k, "value")), cases[i].shown);
		assert_true(json_is_true(json_object_get(k, "hidden")));
		assert_false(json_is_true(json_object_get(k, "is_default")));
		assert_true(json_is_true(
			json_object_get(config_key(&r, "hang_timeout"), "is_default")));
	}
}

/* However often a byte comes, the request must be whole in time; one that has had its answer, or
 * waits for it, is not cut. */
static void test_dribbling_request(void **state)
{
	struct fixture *f = *state;
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS, sent_ms = 0;
	int waiting = ask(f, "POST", "/v1/clouds/dev/start?wait=ready"), fd = dial(f->socket);
	_cleanup_(reply_free) struct reply r = {0};
	ssize_t n;
	char c;

	until_waiting(f, 1);
	f->api->request_max_ms = 200;
	send_text(f, fd, "GET /v1/version HTTP/1.1\r\nX: ", 29);
	while ((n = recv(fd, &c, 1, 0)) != 0) {
		assert_true(n < 0); /* cut off, before it is too long: a byte in a ms is not much */
		if (clock_monotonic_ms() != sent_ms)
			send(fd, "x", 1, MSG_NOSIGNAL);
		sent_ms = clock_monotonic_ms();
		turn(f, fd, POLLIN);
		assert_true(clock_monotonic_ms() < end);
	}
	close(fd);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	r = take_reply(f, waiting);
	assert_int_equal(r.status, 200);
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_table),
		TEST(test_refused_requests_command_nothing),
		TEST(test_fleet),
		TEST(test_boot_cache),
		TEST(test_health),
		TEST(test_shutdown),
		TEST(test_node),
		TEST(test_allow_header),
		TEST(test_clouds),
		TEST(test_version),
		TEST(test_commands),
		TEST(test_touch),
		TEST(test_log),
		TEST(test_keep_alive),
		TEST(test_body_limits),
		TEST(test_endless_chunked_body),
		TEST(test_large_headers),
		TEST(test_silent_connections),
		TEST(test_config_hides_secrets),
		TEST(test_dribbling_request),
		TEST(test_too_many_connections),
		TEST(test_stuck_reader),
	};

	if (argc > 1) /* just one of them, for a debugger */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
