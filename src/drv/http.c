#include "drv/http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "drv/who.h"

#define MAX_BODY_DEFAULT (4u << 20)
#define RECEIVE_BUFFER   16384L
/* One to each node: to connect anew for each poll costs twice as much. */
#define KEPT_CONNECTIONS 4096L

/* A deadline that is noticed so much later than it was due means that we were stopped, or could not
 * run: answers may lie in their sockets, unread. */
#define HELD_UP_MS   200
#define READ_TIME_MS 250 /* which is given to read them */

struct http_request {
	struct http *h;
	struct http_request *prev, *next;
	CURL *easy;
	http_cb cb;
	void *arg;
	struct strbuf body;
	size_t max_body;
	bool too_long;
	bool self_connected;
	bool impostor;
	uid_t impostor_uid;
	curl_socket_t fd; /* of the connection that was opened for it, or CURL_SOCKET_BAD */
	bool ended;       /* its callback has begun */
	int own_errno;    /* what we lacked to ask; 0: nothing */
	uint64_t timeout_ms;
	uint64_t due_ms; /* monotonic */
	bool cluster_good;
	uint64_t cluster_id;
	char error[CURL_ERROR_SIZE];
};

struct http {
	uv_loop_t *loop;
	uv_timer_t timer;
	uv_timer_t deadline; /* of the request that is due first: curl's own would count stalls */
	uint64_t deadline_ms;
	unsigned n_handles; /* open ones of libuv */
	CURLM *multi;
	struct http_request *requests; /* on their way */
	struct who who;
	bool closing;
};

/* What curl wants to know of one socket. */
struct watch {
	uv_poll_t poll;
	struct http *h;
	curl_socket_t fd;
};

/* ---- ends of requests ---- */

static void request_free(struct http_request *r)
{
	strbuf_free(&r->body);
	free(r);
}

/* Off the list and off curl. The easy handle is not used again: libcurl before 8.1.1 (curl pull
 * request 11103) appends a folded line that comes before any header of an answer to the last header
 * of the request before, which it has freed. */
static void request_detach(struct http_request *r)
{
	struct http *h = r->h;

	if (r->prev)
		r->prev->next = r->next;
	else
		h->requests = r->next;
	if (r->next)
		r->next->prev = r->prev;
	curl_multi_remove_handle(h->multi, r->easy);
	curl_easy_cleanup(r->easy);
	r->easy = NULL;
}

/* Is it for lack of something of our own that a connection could not be made? */
static bool is_shortage(long e)
{
	return e == EMFILE || e == ENFILE || e == ENOMEM || e == ENOBUFS || e == EADDRNOTAVAIL ||
	       e == EAGAIN || e == ENOSPC;
}

static void say_impostor(struct http_request *r)
{
	if (r->impostor_uid == UID_UNKNOWN)
		snprintf(r->error, sizeof(r->error),
			"whoever answered is gone, so it is not known who it was");
	else
		snprintf(r->error, sizeof(r->error),
			"a process of user %u answers there, not a node of ours",
			(unsigned)r->impostor_uid);
}

static void judge(struct http_request *r, CURLcode code, struct http_response *rsp)
{
	long os_errno = 0, status = 0;

	curl_easy_getinfo(r->easy, CURLINFO_OS_ERRNO, &os_errno);
	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &status);
	if (code == CURLE_OUT_OF_MEMORY)
		r->own_errno = ENOMEM;
	else if (code == CURLE_COULDNT_CONNECT && !r->own_errno && is_shortage(os_errno))
		r->own_errno = (int)os_errno;
	rsp->result = HTTP_BROKEN;
	if (r->too_long) {
		snprintf(r->error, sizeof(r->error), "the answer is longer than %zu bytes",
			r->max_body);
	} else if (r->self_connected) {
		rsp->result = HTTP_REFUSED;
		snprintf(r->error, sizeof(r->error),
			"nobody listens: we were connected to ourselves");
	} else if (r->impostor) {
		say_impostor(r);
	} else if (code == CURLE_OK && status >= 100 && status <= 999) {
		rsp->result = HTTP_OK;
		rsp->status = (int)status;
		return;
	} else if (code == CURLE_OK) { /* libcurl takes "HTTP/2 -1" */
		snprintf(r->error, sizeof(r->error), "the answer has no HTTP status");
	} else if (r->own_errno) {
		rsp->result = HTTP_NOT_ASKED;
		rsp->own_errno = r->own_errno;
		snprintf(r->error, sizeof(r->error), "it cannot be asked: %s",
			strerror(r->own_errno));
	} else if (code == CURLE_OPERATION_TIMEDOUT) {
		rsp->result = HTTP_TIMEOUT;
		snprintf(r->error, sizeof(r->error), "no answer within %" PRIu64 " ms",
			r->timeout_ms);
	} else if (code == CURLE_COULDNT_CONNECT && os_errno == ECONNREFUSED) {
		rsp->result = HTTP_REFUSED;
	}
	rsp->error = r->error[0] ? r->error : curl_easy_strerror(code);
}

static void request_end(struct http_request *r, CURLcode code)
{
	struct http_response rsp = {0};

	judge(r, code, &rsp);
	rsp.body = strbuf_str(&r->body);
	rsp.body_len = r->body.len;
	rsp.cluster_good = r->cluster_good;
	rsp.cluster_id = r->cluster_id;
	request_detach(r);
	r->ended = true;
	r->cb(&rsp, r->arg);
	request_free(r);
}

/* Callbacks may start and cancel requests, and free h, whose memory stays until libuv is done. */
static void end_finished(struct http *h)
{
	int left;

	while (!h->closing) {
		struct http_request *r = NULL;
		CURLMsg *msg = curl_multi_info_read(h->multi, &left);

		if (!msg)
			break;
		if (msg->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&r);
		request_end(r, msg->data.result);
	}
}

/* ---- deadlines ---- */

static void on_deadline(uv_timer_t *timer);

static void arm_deadline(struct http *h)
{
	uint64_t now = clock_monotonic_ms(), first = UINT64_MAX;

	for (struct http_request *r = h->requests; r; r = r->next)
		first = MIN(first, r->due_ms);
	h->deadline_ms = first;
	if (h->closing)
		return;
	if (first == UINT64_MAX) {
		uv_timer_stop(&h->deadline);
		return;
	}
	uv_update_time(h->loop);
	uv_timer_start(&h->deadline, on_deadline, first > now ? first - now : 0, 0);
}

static struct http_request *first_due(const struct http *h, uint64_t now)
{
	for (struct http_request *r = h->requests; r; r = r->next)
		if (r->due_ms <= now)
			return r;
	return NULL;
}

static void on_deadline(uv_timer_t *timer)
{
	struct http *h = timer->data;
	uint64_t now = clock_monotonic_ms(), late = now - MIN(h->deadline_ms, now);
	struct http_request *r;

	if (late >= HELD_UP_MS)
		for (r = h->requests; r; r = r->next)
			r->due_ms += late + READ_TIME_MS;
	while (!h->closing && (r = first_due(h, now)))
		request_end(r, CURLE_OPERATION_TIMEDOUT);
	arm_deadline(h);
}

/* ---- curl's sockets and timer in the loop, as in curl's docs/examples/multi-uv.c ---- */

static void h_handle_closed(struct http *h)
{
	if (--h->n_handles == 0)
		free(h);
}

static void on_timer_closed(uv_handle_t *handle)
{
	h_handle_closed(handle->data);
}

static void on_watch_closed(uv_handle_t *handle)
{
	struct watch *w = handle->data;

	h_handle_closed(w->h);
	free(w);
}

static void watch_close(struct watch *w)
{
	uv_poll_stop(&w->poll);
	uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
	struct watch *w = poll->data; /* may be gone after curl had its turn */
	struct http *h = w->h;
	int flags = 0, running;

	if (status < 0)
		flags = CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	curl_multi_socket_action(h->multi, w->fd, flags, &running);
	end_finished(h);
}

static void on_timer(uv_timer_t *timer)
{
	struct http *h = timer->data;
	int running;

	curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	end_finished(h);
}

static int set_timer(_unused_ CURLM *multi, long timeout_ms, void *arg)
{
	struct http *h = arg;

	if (h->closing || timeout_ms < 0)
		uv_timer_stop(&h->timer);
	else
		uv_timer_start(&h->timer, on_timer, (uint64_t)timeout_ms, 0); /* 0: next round */
	return 0;
}

static struct watch *watch_new(struct http *h, curl_socket_t fd, int *error)
{
	struct watch *w = xcalloc(1, sizeof(*w));
	int r = uv_poll_init_socket(h->loop, &w->poll, fd);

	if (r < 0) {
		log_debug("cannot watch a connection to a node: %s", uv_strerror(r));
		free(w);
		*error = -r;
		return NULL;
	}
	w->poll.data = w;
	w->h = h;
	w->fd = fd;
	h->n_handles++;
	curl_multi_assign(h->multi, fd, w);
	return w;
}

/* Always 0, for anything else would spoil the multi handle for good: a request whose socket cannot
 * be watched times out, and is known not to have been asked. */
static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct http_request *r = NULL;
	struct watch *w = socket_arg;
	struct http *h = arg;
	int events = 0, error = 0;

	if (what == CURL_POLL_REMOVE) {
		if (w)
			watch_close(w);
		curl_multi_assign(h->multi, fd, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		events |= UV_READABLE;
	if (what & CURL_POLL_OUT)
		events |= UV_WRITABLE;
	if (!w)
		w = watch_new(h, fd, &error);
	if (error && easy && !curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&r) && r)
		r->own_errno = error;
	if (w)
		uv_poll_start(&w->poll, events, on_socket);
	return 0;
}

/* ---- callbacks of a transfer: these only take notes, curl may not be called from them ---- */

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct http_request *r = arg;

	n *= size;
	if (n > r->max_body - r->body.len) {
		r->too_long = true;
		return n == 0; /* anything but n ends the transfer */
	}
	strbuf_add(&r->body, data, n);
	return n;
}

/* The value when the line is of that header, without blanks around it; else NULL. */
static const char *header_value(const char *line, const char *name, char *buf, size_t size)
{
	size_t n = strlen(name), len;

	if (strncasecmp(line, name, n) != 0)
		return NULL;
	line += n;
	line += strspn(line, " \t");
	len = MIN(strcspn(line, " \t\r\n"), size - 1);
	memcpy(buf, line, len);
	buf[len] = '\0';
	return buf;
}

/* Before the JVM has its port any user can take it, and can answer as the node would: pid and name
 * are in /proc for all to read. Asked once of each connection, when its first answer comes: then
 * the other side has accepted it. Where the kernel tells nothing at all, everybody is believed. */
static bool is_impostor(struct http_request *r)
{
	curl_socket_t fd = r->fd;
	uid_t uid;

	r->fd = CURL_SOCKET_BAD;
	if (fd == CURL_SOCKET_BAD)
		return false;
	uid = who_is(&r->h->who, fd);
	if (uid == UID_UNKNOWN) /* one that answers and closes at once */
		uid = who_listens(&r->h->who, fd);
	r->impostor = uid == UID_UNKNOWN ? r->h->who.diag_works : uid != geteuid();
	r->impostor_uid = uid;
	return r->impostor;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	_cleanup_free_ char *line = xstrndup(data, size * n);
	struct http_request *r = arg;
	const char *value;
	char buf[32];

	if (is_impostor(r))
		return 0;
	if (has_prefix(line, "HTTP/")) { /* after a 1xx everything begins anew */
		r->cluster_good = true;
		r->cluster_id = 0;
	}
	if ((value = header_value(line, "X-h2o-cluster-good:", buf, sizeof(buf))))
		r->cluster_good = strcasecmp(value, "false") != 0;
	if ((value = header_value(line, "X-h2o-cluster-id:", buf, sizeof(buf))))
		r->cluster_id = strtoull(value, NULL, 10);
	return size * n;
}

/* Connected, nothing sent yet. An outgoing connection whose own port happens to be the one that it
 * goes to is connected to itself: nobody listens there. */
static int on_connected(void *arg, char *remote_ip, char *local_ip, int remote_port, int local_port)
{
	struct linger reset = {.l_onoff = 1};
	struct http_request *r = arg;

	if (remote_port != local_port || !streq(remote_ip, local_ip))
		return CURL_PREREQFUNC_OK;
	r->self_connected = true;
	/* Closed by a reset, or the port would be in TIME_WAIT, which nobody could hold. */
	if (r->fd != CURL_SOCKET_BAD)
		setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return CURL_PREREQFUNC_ABORT;
}

/* curl's own would not be close-on-exec. */
static curl_socket_t on_open_socket(
	void *arg, _unused_ curlsocktype purpose, struct curl_sockaddr *a)
{
	struct http_request *r = arg;

	r->fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
	if (r->fd < 0)
		r->own_errno = errno;
	return r->fd;
}

/* ---- beginnings ---- */

/* "http" and a numeric host: a name would make curl start a thread to resolve it, and we fork. */
static bool url_is_numeric(const char *url)
{
	static const char scheme[] = "http://";
	unsigned char addr[sizeof(struct in6_addr)];
	char text[INET6_ADDRSTRLEN];
	const char *host;
	size_t len, port;
	bool v6;

	if (!has_prefix(url, scheme))
		return false;
	host = url + strlen(scheme);
	v6 = *host == '[';
	host += v6;
	len = strcspn(host, v6 ? "]" : ":/?#");
	if (len >= sizeof(text) || (v6 && host[len] != ']'))
		return false;
	memcpy(text, host, len);
	text[len] = '\0';
	host += len + v6;
	port = *host == ':' ? 1 + strspn(host + 1, "0123456789") : 0; /* and no "@" behind it */
	return inet_pton(v6 ? AF_INET6 : AF_INET, text, addr) == 1 &&
	       (!host[port] || strchr("/?#", host[port]));
}

static bool set_method(CURL *c, const struct http_spec *spec)
{
	bool post = streq(spec->method, "POST");

	/* curl repeats a request when a kept connection turns out to be dead; a POST must not be
	 * done twice. */
	curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, (long)(spec->fresh || post));
	if (streq(spec->method, "HEAD")) {
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	} else if (post) {
		curl_easy_setopt(c, CURLOPT_POST, 1L);
		curl_easy_setopt(c, CURLOPT_COPYPOSTFIELDS, spec->form ? spec->form : "");
	} else {
		return streq(spec->method, "GET");
	}
	return true;
}

/* With what is the same for all requests. NULL: no memory. */
static CURL *easy_new(void)
{
	CURL *c = curl_easy_init();

	if (!c)
		return NULL;
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)INT32_MAX); /* not its 300 s */
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(c, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(c, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER);
	curl_easy_setopt(c, CURLOPT_USERAGENT, "h2ofleet");
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_PREREQFUNCTION, on_connected);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
	return c;
}

static void set_options(CURL *c, const struct http_spec *spec, struct http_request *r)
{
	curl_easy_setopt(c, CURLOPT_URL, spec->url);
	curl_easy_setopt(c, CURLOPT_PRIVATE, r);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, r->error);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(c, CURLOPT_PREREQDATA, r);
	curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, r);
}

int http_start(struct http *h, const struct http_spec *spec, http_cb cb, void *arg,
	struct http_request **out)
{
	struct http_request *r;
	CURL *c;

	if (out)
		*out = NULL;
	if (h->closing || spec->timeout_ms == 0 || !url_is_numeric(spec->url))
		return -EINVAL;
	c = easy_new();
	if (!c)
		return -ENOMEM;
	if (!set_method(c, spec)) {
		curl_easy_cleanup(c);
		return -EINVAL;
	}
	r = xcalloc(1, sizeof(*r));
	*r = (struct http_request){.h = h,
		.easy = c,
		.cb = cb,
		.arg = arg,
		.next = h->requests,
		.fd = CURL_SOCKET_BAD,
		.max_body = spec->max_body ? spec->max_body : MAX_BODY_DEFAULT,
		.timeout_ms = spec->timeout_ms,
		.due_ms = clock_monotonic_ms() + MIN(spec->timeout_ms, (uint64_t)INT32_MAX),
		.cluster_good = true};
	set_options(c, spec, r);
	if (curl_multi_add_handle(h->multi, c) != CURLM_OK) {
		curl_easy_cleanup(c);
		request_free(r);
		return -ENOMEM;
	}
	if (r->next)
		r->next->prev = r;
	h->requests = r;
	if (r->due_ms < h->deadline_ms)
		arm_deadline(h);
	if (out)
		*out = r;
	return 0;
}

void http_cancel(struct http_request *r)
{
	if (!r || r->ended)
		return;
	request_detach(r);
	request_free(r);
}

int http_begin(bool tls)
{
	return curl_global_init_mem(tls ? CURL_GLOBAL_DEFAULT : CURL_GLOBAL_NOTHING, xmalloc, free,
		       xrealloc, xstrdup, xcalloc) == CURLE_OK
		       ? 0
		       : -ENOMEM;
}

int http_new(uv_loop_t *loop, struct http **out, struct err *e)
{
	struct http *h;

	*out = NULL;
	if (http_begin(false) < 0)
		return err_set(e, -ENOMEM, "cannot initialise libcurl");
	h = xcalloc(1, sizeof(*h));
	h->loop = loop;
	h->multi = curl_multi_init();
	if (!h->multi) {
		free(h);
		curl_global_cleanup();
		return err_set(e, -ENOMEM, "cannot initialise libcurl");
	}
	uv_timer_init(loop, &h->timer);
	uv_timer_init(loop, &h->deadline);
	h->timer.data = h->deadline.data = h;
	h->deadline_ms = UINT64_MAX;
	h->who = WHO_NULL;
	h->n_handles = 2;
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
	curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, KEPT_CONNECTIONS);
	curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	*out = h;
	return 0;
}

void http_free(struct http *h)
{
	if (!h || h->closing)
		return;
	while (h->requests)
		http_cancel(h->requests);
	h->closing = true;
	who_free(&h->who);
	curl_multi_cleanup(h->multi); /* closes the kept connections, and with them their watches */
	uv_close((uv_handle_t *)&h->timer, on_timer_closed);
	uv_close((uv_handle_t *)&h->deadline, on_timer_closed);
	curl_global_cleanup();
}

char *http_escape(const char *s)
{
	static const char hex[] = "0123456789ABCDEF";
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;

	for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
		char out[3] = {'%', hex[*p >> 4], hex[*p & 15]};
		bool plain = (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') ||
			     (*p >= '0' && *p <= '9') || strchr("-._~", *p);

		strbuf_add(&b, plain ? (const char *)p : out, plain ? 1 : sizeof(out));
	}
	return strbuf_take(&b);
}
