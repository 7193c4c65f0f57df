/* A small HTTP/1.1 server: one request at a time per connection, keep-alive, Content-Length bodies.
 * A request that cannot be answered yet waits in its connection and is tried again by http_pass().
 */
#include "fake.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"

#define MAX_REQUEST (1 << 20)

void http_init(struct node *n)
{
	for (size_t i = 0; i < MAX_CONNS; i++)
		n->conns[i].fd = -1;
}

/* The test's remote control is always answered, at once and straight. */
static bool is_control(const struct conn *c)
{
	return c->rq.path && has_prefix(c->rq.path, "/fake/");
}

static void drop_request(struct conn *c)
{
	free(c->rq.path);
	free(c->rq.params);
	c->rq = (struct request){0};
	c->have_request = false;
}

void http_close(struct conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	drop_request(c);
	strbuf_free(&c->in);
	strbuf_free(&c->out);
	c->close_after = c->internal = false;
}

void http_close_api(struct node *n)
{
	closep(&n->api_fd);
	n->api_fd = -1;
	for (size_t i = 0; i < MAX_CONNS; i++)
		if (n->conns[i].fd >= 0 && !n->conns[i].internal)
			http_close(&n->conns[i]);
}

static struct conn *free_slot(struct node *n)
{
	for (size_t i = 0; i < MAX_CONNS; i++)
		if (n->conns[i].fd < 0)
			return &n->conns[i];
	return NULL;
}

void http_accept(struct node *n, int listener, bool internal)
{
	int fd;

	/* TCP-Accept loops for ever on the end of one connection, so it never gets to the next. */
	if (internal && n->g.bricked)
		return;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct conn *c = free_slot(n);

		if (!c) {
			close(fd);
			return;
		}
		c->fd = fd;
		c->internal = internal;
	}
}

static void read_internal(struct node *n, struct conn *c)
{
	char buf[64];
	ssize_t r = recv(c->fd, buf, sizeof(buf), 0);

	if (r < 0 && errno == EAGAIN)
		return;
	if (r < 4 || memcmp(buf, "FAKE", 4) != 0)
		gossip_brick(n);
	http_close(c);
}

static const char *find_header(const char *head, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = strstr(head, "\r\n"); p && p[2] != '\r'; p = strstr(p + 2, "\r\n"))
		if (strncasecmp(p + 2, name, len) == 0 && p[2 + len] == ':')
			return p + 2 + len + 1 + strspn(p + 2 + len + 1, " ");
	return NULL;
}

static void bad_request(struct node *n, struct conn *c)
{
	static const char body[] = "<h1>Bad Message 400</h1><pre>reason: Bad Request</pre>";

	c->close_after = true;
	http_reply(n, c, 400, "text/html;charset=iso-8859-1", "", body, sizeof(body) - 1);
}

static void consume(struct strbuf *b, size_t len)
{
	b->len -= len;
	memmove(b->s, b->s + len, b->len + 1);
}

/* Takes one whole request out of c->in, if there is one. */
static void parse(struct node *n, struct conn *c)
{
	const char *end = c->in.len ? strstr(c->in.s, "\r\n\r\n") : NULL;
	_cleanup_free_ char *head = NULL, *target = NULL;
	const char *h, *query;
	size_t head_len, body_len = 0;
	char method[8], version[4];

	if (!end)
		return;
	head_len = (size_t)(end - c->in.s) + 4;
	head = xstrndup(c->in.s, head_len);
	target = xmalloc(head_len);
	target[0] = 0;
	/* %s is bounded: the target is no longer than the head that it is in. */
	if (sscanf(head, "%7[A-Z] %s HTTP/%3[0-9.]", method, target, version) != 3 ||
		target[0] != '/') {
		strbuf_reset(&c->in);
		bad_request(n, c);
		return;
	}
	h = find_header(head, "Content-Length");
	if (h)
		body_len = strtoul(h, NULL, 10);
	if (c->in.len < head_len + body_len)
		return;
	query = strchr(target, '?');
	h = find_header(head, "Connection");
	memcpy(c->rq.method, method, sizeof(method));
	c->rq.path = xstrndup(target, query ? (size_t)(query - target) : strlen(target));
	c->rq.params =
		xasprintf("%s&%.*s", query ? query + 1 : "", (int)body_len, c->in.s + head_len);
	c->rq.keep_alive = streq(version, "1.1") && !(h && strncasecmp(h, "close", 5) == 0);
	c->rq.due = clock_monotonic_ms();
	if (!is_control(c))
		c->rq.due += (uint64_t)knob(n, KNOB_slow_ms);
	c->have_request = true;
	consume(&c->in, head_len + body_len);
}

void http_read(struct node *n, struct conn *c)
{
	char buf[16384];
	ssize_t r;

	if (c->internal) {
		read_internal(n, c);
		return;
	}
	r = recv(c->fd, buf, sizeof(buf), 0);
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r <= 0 || c->in.len + (size_t)r > MAX_REQUEST) {
		http_close(c);
		return;
	}
	strbuf_add(&c->in, buf, (size_t)r);
	if (!c->have_request)
		parse(n, c);
}

void http_write(struct node *n, struct conn *c)
{
	ssize_t r = send(c->fd, c->out.s, c->out.len, MSG_NOSIGNAL);

	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (r < 0) {
		http_close(c);
		return;
	}
	consume(&c->out, (size_t)r);
	if (c->out.len > 0)
		return;
	if (c->close_after)
		http_close(c);
	else if (!c->have_request)
		parse(n, c);
}

int http_pass(struct node *n)
{
	uint64_t now = clock_monotonic_ms();
	int next = -1;

	for (size_t i = 0; i < MAX_CONNS; i++) {
		struct conn *c = &n->conns[i];

		if (c->fd < 0 || !c->have_request || c->out.len > 0)
			continue;
		if (c->rq.due > now) {
			int wait = (int)MIN(c->rq.due - now, (uint64_t)60000);

			next = next < 0 ? wait : MIN(next, wait);
			continue;
		}
		if (rest_handle(n, c) && c->fd >= 0 && c->out.len > 0) {
			c->close_after = c->close_after || !c->rq.keep_alive;
			drop_request(c);
			http_write(n, c);
		}
	}
	return next;
}

static const char *reason(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 301:
		return "Moved Permanently";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 404:
		return "Not Found";
	case 500:
		return "Server Error";
	case 503:
		return "Service Unavailable";
	default:
		return "Fake";
	}
}

static void add_garbage(struct strbuf *b, size_t len)
{
	uint64_t state = clock_monotonic_ms();

	while (b->len < len) {
		uint64_t r = rng_next(&state);

		strbuf_add(b, &r, MIN(sizeof(r), len - b->len));
	}
}

void http_reply(struct node *n, struct conn *c, int status, const char *type, const char *extra,
	const char *body, size_t len)
{
	bool head = streq(c->rq.method, "HEAD");
	time_t now = time(NULL);
	char date[64];
	struct tm tm;

	if (knob(n, KNOB_garbage) > 0 && !is_control(c)) {
		add_garbage(&c->out, (size_t)knob(n, KNOB_garbage));
		c->close_after = true;
		return;
	}
	gmtime_r(&now, &tm);
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	strbuf_printf(&c->out,
		"HTTP/1.1 %d %s\r\nDate: %s\r\nX-h2o-build-project-version: %s\r\n"
		"X-h2o-rest-api-version-max: 3\r\nX-h2o-cluster-id: %llu\r\n"
		"X-h2o-cluster-good: %s\r\nX-Frame-Options: deny\r\nX-XSS-Protection: 1; "
		"mode=block\r\n"
		"X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'self' "
		"'unsafe-eval' 'unsafe-inline'; img-src 'self' data:\r\nContent-Type: %s\r\n%s%s"
		"Content-Length: %zu\r\n\r\n",
		status, reason(status), date, FAKE_H2O_VERSION, (unsigned long long)n->start_wall,
		gossip_bad_nodes(n) ? "false" : "true", type, extra,
		c->rq.keep_alive ? "" : "Connection: close\r\n", len);
	if (!head)
		strbuf_add(&c->out, body, len);
	if (knob(n, KNOB_truncate) && !is_control(c)) {
		c->out.len /= 2;
		c->close_after = true;
	}
}

static int hex(char ch)
{
	const char *digits = "0123456789abcdef", *p = strchr(digits, ch | 0x20);

	return ch && p ? (int)(p - digits) : -1;
}

static char *decode(const char *s, size_t len)
{
	struct strbuf b = STRBUF_NULL;

	for (size_t i = 0; i < len; i++) {
		char ch = s[i] == '+' ? ' ' : s[i];

		if (s[i] == '%' && i + 2 < len && hex(s[i + 1]) >= 0 && hex(s[i + 2]) >= 0) {
			ch = (char)(hex(s[i + 1]) * 16 + hex(s[i + 2]));
			i += 2;
		}
		strbuf_add(&b, &ch, 1);
	}
	return strbuf_take(&b);
}

char *http_param(const struct conn *c, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = c->rq.params; *p; p += strcspn(p, "&")) {
		p += *p == '&';
		if (strncmp(p, name, len) == 0 && p[len] == '=')
			return decode(p + len + 1, strcspn(p + len + 1, "&"));
	}
	return NULL;
}
