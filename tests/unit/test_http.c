/* Proves that every request ends in exactly one verdict, told apart as the supervisor needs it,
 * against a server in the same loop that misbehaves on demand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/strbuf.h"
#include "drv/http.h"
#include "drv_test.h"

/* ---- the server ---- */

struct server {
	uv_tcp_t tcp;
	uint16_t port;
	unsigned n_connections;
	unsigned n_requests;
	struct connection *connections;
	struct strbuf last; /* the last request */
};

struct connection {
	uv_tcp_t tcp;
	struct server *s;
	struct connection *next;
	struct strbuf in;
	unsigned n_requests;
	bool closing;
};

static void on_connection_closed(uv_handle_t *handle)
{
	struct connection *c = handle->data, **p = &c->s->connections;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	strbuf_free(&c->in);
	free(c);
}

static void connection_close(struct connection *c, bool reset)
{
	if (c->closing)
		return;
	c->closing = true;
	if (reset)
		uv_tcp_close_reset(&c->tcp, on_connection_closed);
	else
		uv_close((uv_handle_t *)&c->tcp, on_connection_closed);
}

/* Small enough for a socket's buffer. */
static void answer(struct connection *c, const char *text, size_t n)
{
	uv_buf_t buf = uv_buf_init((char *)text, (unsigned)n);

	if (uv_try_write((uv_stream_t *)&c->tcp, &buf, 1) != (int)n)
		connection_close(c, true);
}

static void answer_body(struct connection *c, const char *headers, size_t length)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;

	strbuf_printf(&b, "HTTP/1.1 200 OK\r\n%sContent-Length: %zu\r\n\r\n", headers, length);
	for (size_t i = 0; i < length; i++)
		strbuf_puts(&b, "x");
	answer(c, b.s, b.len);
}

#define ANSWER(c, text) answer(c, text, strlen(text))
#define HELLO           "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

static void handle_request(struct connection *c, const char *path)
{
	c->n_requests++;
	c->s->n_requests++;
	strbuf_reset(&c->s->last);
	strbuf_puts(&c->s->last, strbuf_str(&c->in));
	if (streq(path, "/cloud")) {
		if (has_prefix(strbuf_str(&c->in), "HEAD"))
			ANSWER(c,
				"HTTP/1.1 200 OK\r\nx-H2O-cluster-good:  false \r\n"
				"X-h2o-cluster-id: 1700000000123\r\nContent-Length: 5000\r\n\r\n");
		else
			ANSWER(c, "HTTP/1.1 404 Not Found\r\nX-h2o-cluster-good: true\r\n"
				  "Content-Length: 3\r\n\r\nabc");
	} else if (streq(path, "/1xx")) {
		ANSWER(c, "HTTP/1.1 103 Early Hints\r\nX-h2o-cluster-good: false\r\n"
			  "X-h2o-cluster-id: 7\r\n\r\n" HELLO);
	} else if (streq(path, "/bye")) { /* says nothing of closing */
		ANSWER(c, HELLO);
		connection_close(c, false);
	} else if (streq(path, "/drop-second") && c->n_requests > 1) {
		connection_close(c, false);
	} else if (streq(path, "/garbage")) {
		ANSWER(c, "\x15\x03\x01garbage\r\n\r\n");
		connection_close(c, false);
	} else if (streq(path, "/folded")) {
		ANSWER(c, "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 5\r\n\r\nhello");
	} else if (streq(path, "/stray-fold")) {
		ANSWER(c, "HTTP/1.1 200 OK\r\n more\r\nContent-Length: 5\r\n\r\nhello");
	} else if (streq(path, "/reset")) {
		connection_close(c, true);
	} else if (streq(path, "/partial")) {
		ANSWER(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
		connection_close(c, false);
	} else if (streq(path, "/long")) {
		answer_body(c, "", 1001);
	} else if (streq(path, "/fits")) {
		answer_body(c, "", 1000);
	} else if (streq(path, "/chunks")) {
		ANSWER(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
		for (int i = 0; i < 300; i++)
			ANSWER(c, "8\r\n12345678\r\n");
	} else if (streq(path, "/redirect")) {
		ANSWER(c, "HTTP/1.1 302 Found\r\nLocation: /cloud\r\nContent-Length: 0\r\n\r\n");
	} else if (!streq(path, "/silent")) {
		ANSWER(c, HELLO);
	}
}

/* Whole requests only; the tests' bodies come with their headers or after. */
static void on_input(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct connection *c = stream->data;
	char path[64] = "";
	const char *end, *length;

	if (n > 0)
		strbuf_add(&c->in, buf->base, (size_t)n);
	free(buf->base);
	if (n < 0)
		connection_close(c, false);
	end = strstr(strbuf_str(&c->in), "\r\n\r\n");
	if (n <= 0 || !end)
		return;
	length = strstr(c->in.s, "Content-Length: ");
	if (length && strlen(end + 4) < (size_t)atoi(length + 16))
		return;
	sscanf(c->in.s, "%*s %63s", path);
	handle_request(c, path);
	strbuf_reset(&c->in);
}

static void on_alloc(_unused_ uv_handle_t *handle, size_t n, uv_buf_t *buf)
{
	*buf = uv_buf_init(xmalloc(n), (unsigned)n);
}

static void on_connection(uv_stream_t *stream, int status)
{
	struct server *s = stream->data;
	struct connection *c = xcalloc(1, sizeof(*c));

	assert_int_equal(status, 0);
	uv_tcp_init(stream->loop, &c->tcp);
	c->tcp.data = c;
	c->s = s;
	c->next = s->connections;
	s->connections = c;
	s->n_connections++;
	assert_int_equal(uv_accept(stream, (uv_stream_t *)&c->tcp), 0);
	uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_input);
}

static int server_start(uv_loop_t *loop, const char *addr, struct server *s)
{
	struct sockaddr_storage ss;
	int len = sizeof(ss), r;

	if (strchr(addr, ':'))
		uv_ip6_addr(addr, 0, (struct sockaddr_in6 *)&ss);
	else
		uv_ip4_addr(addr, 0, (struct sockaddr_in *)&ss);
	*s = (struct server){0};
	uv_tcp_init(loop, &s->tcp);
	s->tcp.data = s;
	r = uv_tcp_bind(&s->tcp, (struct sockaddr *)&ss, 0);
	if (r == 0)
		r = uv_listen((uv_stream_t *)&s->tcp, 128, on_connection);
	if (r < 0)
		return r;
	uv_tcp_getsockname(&s->tcp, (struct sockaddr *)&ss, &len);
	s->port = ntohs(((struct sockaddr_in *)&ss)->sin_port);
	return 0;
}

static void server_stop(struct server *s)
{
	if (!uv_is_closing((uv_handle_t *)&s->tcp))
		uv_close((uv_handle_t *)&s->tcp, NULL);
	for (struct connection *c = s->connections; c; c = c->next)
		connection_close(c, false);
}

/* ---- fixture ---- */

struct fixture {
	uv_loop_t loop;
	struct server server;
	struct http *http;
};

struct seen {
	unsigned n;
	struct http_response rsp;
	char *body;
	char *error;
	struct http_request *cancel; /* in the callback */
	struct http *free;           /* likewise */
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	assert_int_equal(uv_loop_init(&f->loop), 0);
	assert_int_equal(server_start(&f->loop, "127.0.0.1", &f->server), 0);
	assert_int_equal(http_new(&f->loop, &f->http, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	http_free(f->http);
	server_stop(&f->server);
	finish_loop(&f->loop);
	strbuf_free(&f->server.last);
	free(f);
	return 0;
}

static void on_response(const struct http_response *rsp, void *arg)
{
	struct seen *s = arg;

	s->n++;
	s->rsp = *rsp;
	assert_int_equal(strlen(rsp->body), rsp->body_len);
	assert_true((rsp->error == NULL) == (rsp->result == HTTP_OK));
	replace_str(&s->body, rsp->body);
	replace_str(&s->error, rsp->error);
	http_cancel(s->cancel);
	http_free(s->free);
}

static void seen_clear(struct seen *s)
{
	free(s->body);
	free(s->error);
}

static struct http_request *start(
	struct fixture *f, struct http_spec spec, const char *path, struct seen *s)
{
	_cleanup_free_ char *url = xasprintf("http://127.0.0.1:%u%s", f->server.port, path);
	struct http_request *r;

	if (!spec.url)
		spec.url = url;
	if (!spec.method)
		spec.method = "GET";
	if (!spec.timeout_ms)
		spec.timeout_ms = DEADLINE_MS;
	assert_int_equal(http_start(f->http, &spec, on_response, s, &r), 0);
	assert_int_equal(s->n, 0); /* never from within the call */
	return r;
}

static enum http_result get(
	struct fixture *f, struct http_spec spec, const char *path, struct seen *s)
{
	seen_clear(s);
	*s = (struct seen){0};
	start(f, spec, path, s);
	assert_true(run_until(&f->loop, &s->n, 1));
	return s->rsp.result;
}

#define PLAIN ((struct http_spec){0})

/* ---- answers ---- */

static void test_status_body_headers(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};

	assert_int_equal(get(*state, PLAIN, "/cloud", &s), HTTP_OK);
	assert_int_equal(s.rsp.status, 404);
	assert_string_equal(s.body, "abc");
	assert_true(s.rsp.cluster_good);
	assert_int_equal(s.rsp.cluster_id, 0);
	/* Header names in any case, blanks around values, no body though a length is given. */
	assert_int_equal(get(*state, (struct http_spec){.method = "HEAD"}, "/cloud", &s), HTTP_OK);
	assert_int_equal(s.rsp.status, 200);
	assert_string_equal(s.body, "");
	assert_false(s.rsp.cluster_good);
	assert_true(s.rsp.cluster_id == 1700000000123u);
	/* Absent. */
	assert_int_equal(get(*state, PLAIN, "/hello", &s), HTTP_OK);
	assert_true(s.rsp.cluster_good);
	assert_int_equal(s.rsp.cluster_id, 0);
	/* Those of a provisional answer do not count. */
	assert_int_equal(get(*state, PLAIN, "/1xx", &s), HTTP_OK);
	assert_int_equal(s.rsp.status, 200);
	assert_true(s.rsp.cluster_good);
	assert_int_equal(s.rsp.cluster_id, 0);
}

static void test_post(void **state)
{
	_cleanup_free_ char *form = xstrdup("recovery_dir=%2Ftmp%2Fx");
	_cleanup_(seen_clear) struct seen s = {0};
	struct fixture *f = *state;

	start(f, (struct http_spec){.method = "POST", .form = form}, "/3/Recovery/resume", &s);
	memset(form, '!', strlen(form)); /* the caller's, and may go at once */
	assert_true(run_until(&f->loop, &s.n, 1));
	assert_int_equal(s.rsp.result, HTTP_OK);
	assert_non_null(strstr(f->server.last.s, "POST /3/Recovery/resume HTTP/1.1\r\n"));
	assert_non_null(strstr(f->server.last.s, "application/x-www-form-urlencoded\r\n"));
	assert_non_null(strstr(f->server.last.s, "\r\n\r\nrecovery_dir=%2Ftmp%2Fx"));
	assert_int_equal(get(f, (struct http_spec){.method = "POST"}, "/3/Shutdown", &s), HTTP_OK);
	assert_non_null(strstr(f->server.last.s, "Content-Length: 0\r\n"));
	/* The handle that did a POST does not make the next request one. */
	assert_int_equal(get(f, PLAIN, "/hello", &s), HTTP_OK);
	assert_true(has_prefix(f->server.last.s, "GET /hello"));
	assert_null(strstr(f->server.last.s, "Content-"));
}

static void test_no_redirect(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	struct fixture *f = *state;

	assert_int_equal(get(f, PLAIN, "/redirect", &s), HTTP_OK);
	assert_int_equal(s.rsp.status, 302);
	assert_int_equal(f->server.n_requests, 1);
}

/* Nobody listens at the proxy: with it, all requests would fail. */
static void test_no_proxy(void **state)
{
	static const char *const names[] = {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"};
	_cleanup_(seen_clear) struct seen s = {0};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		setenv(names[i], "http://127.0.0.1:1", 1);
	assert_int_equal(get(*state, PLAIN, "/hello", &s), HTTP_OK);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
}

static void test_ipv6(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	_cleanup_free_ char *url = NULL;
	struct fixture *f = *state;
	struct server six;
	int r = server_start(&f->loop, "::1", &six);

	if (r == 0) {
		url = xasprintf("http://[::1]:%u/hello", six.port);
		assert_int_equal(get(f, (struct http_spec){.url = url}, "", &s), HTTP_OK);
		assert_string_equal(s.body, "hello");
		http_free(f->http);
		f->http = NULL;
	}
	server_stop(&six);
	run_for(&f->loop, 10);
	strbuf_free(&six.last);
}

/* ---- failures ---- */

static void test_refused(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	struct fixture *f = *state;

	uv_close((uv_handle_t *)&f->server.tcp, NULL);
	run_for(&f->loop, 1);
	assert_int_equal(get(f, PLAIN, "/hello", &s), HTTP_REFUSED);
}

static void test_timeout(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	uint64_t begin = clock_monotonic_ms();

	assert_int_equal(
		get(*state, (struct http_spec){.timeout_ms = 100}, "/silent", &s), HTTP_TIMEOUT);
	assert_true(clock_monotonic_ms() - begin >= 99);
	/* The connection that still may bring the late answer is not used again. */
	assert_int_equal(get(*state, PLAIN, "/hello", &s), HTTP_OK);
	assert_string_equal(s.body, "hello");
}

/* Proves: time in which we did not run (the process was stopped) is no node's silence, even when
 * the deadline passed meanwhile. */
static void test_held_up(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	struct fixture *f = *state;

	start(f, (struct http_spec){.timeout_ms = 300}, "/hello", &s);
	sleep(1);
	assert_true(run_until(&f->loop, &s.n, 1));
	assert_int_equal(s.rsp.result, HTTP_OK);
}

/* Proves: for lack of descriptors of our own a node is not asked, which says nothing of it. */
static void test_no_descriptors(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	struct fixture *f = *state;
	struct rlimit old, low;

	if (getenv("H2OFLEET_VALGRIND"))
		skip(); /* it keeps limits of its own */
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = 3;
	start(f, PLAIN, "/hello", &s);
	setrlimit(RLIMIT_NOFILE, &low);
	while (!s.n)
		uv_run(&f->loop, UV_RUN_ONCE);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_int_equal(s.rsp.result, HTTP_NOT_ASKED);
	assert_int_equal(s.rsp.own_errno, EMFILE);
	assert_non_null(strstr(s.error, strerror(EMFILE)));
	assert_int_equal(get(f, PLAIN, "/hello", &s), HTTP_OK);
}

static void test_broken(void **state)
{
	static const char *const paths[] = {"/garbage", "/reset", "/partial"};
	_cleanup_(seen_clear) struct seen s = {0};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		assert_int_equal(get(*state, PLAIN, paths[i], &s), HTTP_BROKEN);
		assert_true(strlen(s.error) > 5);
	}
}

/* Proves: a header that goes on before one has begun is not appended to one of the answer before,
 * which libcurl has freed (the sanitizers see it). Others may be folded. */
static void test_stray_fold(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};

	for (int i = 0; i < 2; i++) {
		assert_int_equal(get(*state, PLAIN, "/folded", &s), HTTP_OK);
		assert_int_equal(get(*state, PLAIN, "/stray-fold", &s), HTTP_BROKEN);
		assert_string_equal(s.error, "Header without colon");
	}
}

static void test_body_limit(void **state)
{
	struct http_spec spec = {.max_body = 1000};
	_cleanup_(seen_clear) struct seen s = {0};

	assert_int_equal(get(*state, spec, "/fits", &s), HTTP_OK);
	assert_int_equal(s.rsp.body_len, 1000);
	assert_int_equal(get(*state, spec, "/long", &s), HTTP_BROKEN);
	assert_string_equal(s.error, "the answer is longer than 1000 bytes");
	assert_int_equal(get(*state, spec, "/chunks", &s), HTTP_BROKEN);
	assert_string_equal(s.error, "the answer is longer than 1000 bytes");
}

/* A name would need a resolver, so a thread; other schemes are not spoken. */
static void test_bad_requests(void **state)
{
	static const char *const urls[] = {"http://localhost:1/", "http://h2o.ai/",
		"https://127.0.0.1:1/", "file:///etc/passwd", "127.0.0.1:1", "",
		"http://127.0.0.1.h2o.ai/", "http://127.0.0.1:1@h2o.ai/",
		"http://127.0.0.1@h2o.ai/", "http://[::1/", "http://[::1]x/"};
	struct http_spec spec = {.method = "GET", .timeout_ms = 1000};
	struct fixture *f = *state;
	struct http_request *r;

	for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
		spec.url = urls[i];
		assert_int_equal(http_start(f->http, &spec, on_response, NULL, &r), -EINVAL);
		assert_null(r);
	}
	spec.url = "http://127.0.0.1:1/";
	spec.method = "DELETE";
	assert_int_equal(http_start(f->http, &spec, on_response, NULL, &r), -EINVAL);
	spec.method = "GET";
	spec.timeout_ms = 0;
	assert_int_equal(http_start(f->http, &spec, on_response, NULL, &r), -EINVAL);
}

/* ---- connections ---- */

static void test_keep_alive(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	struct fixture *f = *state;

	for (int i = 0; i < 5; i++)
		assert_int_equal(get(f, PLAIN, "/hello", &s), HTTP_OK);
	assert_int_equal(f->server.n_connections, 1);
	assert_int_equal(get(f, (struct http_spec){.fresh = true}, "/hello", &s), HTTP_OK);
	assert_int_equal(f->server.n_connections, 2);
	assert_int_equal(f->server.n_requests, 6);
}

/* Closed by the server, seen before or only after the next request was sent. */
static void test_stale_connection(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	struct fixture *f = *state;

	assert_int_equal(get(f, PLAIN, "/bye", &s), HTTP_OK);
	assert_int_equal(get(f, PLAIN, "/bye", &s), HTTP_OK);
	assert_int_equal(f->server.n_connections, 2);
	assert_int_equal(get(f, PLAIN, "/drop-second", &s), HTTP_OK);
	assert_int_equal(f->server.n_connections, 3);
	assert_int_equal(get(f, PLAIN, "/drop-second", &s), HTTP_OK);
	assert_int_equal(f->server.n_connections, 4);
	/* Gone for good while a connection was kept. */
	assert_int_equal(get(f, PLAIN, "/hello", &s), HTTP_OK);
	server_stop(&f->server);
	run_for(&f->loop, 20);
	assert_int_equal(get(f, PLAIN, "/hello", &s), HTTP_REFUSED);
}

/* A POST is never sent on a kept connection, so never twice. */
static void test_post_is_sent_once(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	struct fixture *f = *state;

	assert_int_equal(get(f, PLAIN, "/hello", &s), HTTP_OK);
	assert_int_equal(get(f, (struct http_spec){.method = "POST"}, "/drop-second", &s), HTTP_OK);
	assert_int_equal(get(f, (struct http_spec){.method = "POST"}, "/reset", &s), HTTP_BROKEN);
	assert_int_equal(f->server.n_requests, 3);
	assert_int_equal(f->server.n_connections, 3);
}

static void test_many_at_once(void **state)
{
	struct fixture *f = *state;
	struct seen s[60] = {0};

	for (size_t i = 0; i < ARRAY_SIZE(s); i++)
		start(f, PLAIN, i % 3 ? "/cloud" : "/garbage", &s[i]);
	for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
		assert_true(run_until(&f->loop, &s[i].n, 1));
		assert_int_equal(s[i].rsp.result, i % 3 ? HTTP_OK : HTTP_BROKEN);
		seen_clear(&s[i]);
	}
}

/* Our sockets are not for children, nor for an image that replaces ours. */
static void test_close_on_exec(void **state)
{
	_cleanup_(seen_clear) struct seen s = {0};
	struct fixture *f = *state;
	unsigned n_tcp = 0;

	assert_int_equal(get(f, PLAIN, "/hello", &s), HTTP_OK);
	for (int fd = 0; fd < 100; fd++) {
		struct sockaddr_in a = {0};
		socklen_t len = sizeof(a);

		if (getpeername(fd, (void *)&a, &len) < 0 || a.sin_family != AF_INET)
			continue;
		assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		n_tcp += ntohs(a.sin_port) == f->server.port;
	}
	assert_int_equal(n_tcp, 1);
}

/* ---- cancelling ---- */

static void test_cancel(void **state)
{
	struct fixture *f = *state;
	_cleanup_(seen_clear) struct seen a = {0}, b = {0};
	struct http_request *r = start(f, PLAIN, "/silent", &a);

	http_cancel(r); /* before anything happened */
	r = start(f, PLAIN, "/silent", &a);
	assert_true(run_until(&f->loop, &f->server.n_requests, 1));
	http_cancel(r);
	/* From the callback of another, and from its own, which does nothing. */
	b.cancel = start(f, PLAIN, "/silent", &a);
	start(f, PLAIN, "/hello", &b);
	assert_true(run_until(&f->loop, &b.n, 1));
	b = (struct seen){.body = b.body, .error = b.error};
	b.cancel = start(f, PLAIN, "/hello", &b);
	assert_true(run_until(&f->loop, &b.n, 1));
	run_for(&f->loop, 20);
	assert_int_equal(a.n, 0);
	assert_int_equal(b.n, 1);
}

static void test_free_with_requests_on_their_way(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0};

	start(f, PLAIN, "/silent", &s);
	assert_true(run_until(&f->loop, &f->server.n_requests, 1));
	start(f, PLAIN, "/hello", &s);
	http_free(f->http);
	f->http = NULL;
	run_for(&f->loop, 20);
	assert_int_equal(s.n, 0);
}

/* With others finished in the same round, and others still waiting. */
static void test_free_in_callback(void **state)
{
	struct fixture *f = *state;
	struct seen s[4] = {0};
	unsigned n = 0;

	for (int i = 0; i < 4; i++) {
		s[i].free = f->http;
		start(f, PLAIN, i < 3 ? "/hello" : "/silent", &s[i]);
	}
	for (uint64_t end = clock_monotonic_ms() + DEADLINE_MS; !n && clock_monotonic_ms() < end;) {
		uv_run(&f->loop, UV_RUN_NOWAIT);
		n = s[0].n + s[1].n + s[2].n;
	}
	f->http = NULL;
	run_for(&f->loop, 20);
	assert_int_equal(s[0].n + s[1].n + s[2].n + s[3].n, 1);
	for (int i = 0; i < 4; i++)
		seen_clear(&s[i]);
}

/* ---- connected to ourselves ---- */

static int loopback_up(void)
{
	struct ifreq rq = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1 : ioctl(fd, SIOCSIFFLAGS, &rq);
}

/* The only port that outgoing connections can have is the one that is asked. */
static int self_connect_child(void)
{
	struct http_spec spec = {
		.url = "http://127.0.0.1:40000/3/Cloud", .method = "GET", .timeout_ms = 5000};
	static const char range[] = "40000 40000";
	int fd = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(40000)};
	struct fixture f = {0};
	struct seen s = {0};
	int plain;

	if (fd < 0 || write(fd, range, strlen(range)) < 0)
		return 77;
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(plain, (void *)&a, sizeof(a)) < 0)
		return 77; /* this kernel does not do it */
	setsockopt(plain, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
	close(plain);
	uv_loop_init(&f.loop);
	if (http_new(&f.loop, &f.http, NULL) < 0)
		return 1;
	for (int i = 0; i < 3; i++) {
		s.n = 0;
		if (http_start(f.http, &spec, on_response, &s, NULL) < 0)
			return 2;
		if (!run_until(&f.loop, &s.n, 1))
			return 3;
		if (s.rsp.result != HTTP_REFUSED)
			return 4;
		if (!strstr(s.error, "ourselves"))
			return 5;
	}
	http_free(f.http);
	finish_loop(&f.loop);
	seen_clear(&s);
	return 0;
}

static void test_self_connect(_unused_ void **state)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if ((unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) ||
			loopback_up() < 0)
			_exit(77);
		_exit(self_connect_child());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		print_message("not tested: no network namespace, or no such connection\n");
	else
		assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_escape(_unused_ void **state)
{
	_cleanup_free_ char *s = http_escape("/a b+c%&=\xc3\xa9-._~Z9");

	assert_string_equal(s, "%2Fa%20b%2Bc%25%26%3D%C3%A9-._~Z9");
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_status_body_headers),
		TEST(test_post),
		TEST(test_no_redirect),
		TEST(test_no_proxy),
		TEST(test_ipv6),
		TEST(test_refused),
		TEST(test_timeout),
		TEST(test_held_up),
		TEST(test_no_descriptors),
		TEST(test_broken),
		TEST(test_stray_fold),
		TEST(test_body_limit),
		TEST(test_bad_requests),
		TEST(test_keep_alive),
		TEST(test_stale_connection),
		TEST(test_post_is_sent_once),
		TEST(test_many_at_once),
		TEST(test_close_on_exec),
		TEST(test_cancel),
		TEST(test_free_with_requests_on_their_way),
		TEST(test_free_in_callback),
		cmocka_unit_test(test_self_connect),
		cmocka_unit_test(test_escape),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
