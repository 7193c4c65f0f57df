/* libmicrohttpd in the libuv loop, without threads: its epoll fd is watched by a uv_poll, and a
 * uv_timer runs it when it wants to run by the clock. Everything below MHD_run() must not call
 * MHD_run() again: the fleet's observers may be called in there (a command of a request), so they
 * only mark connections as resumed and ask for another run. */
#include "api/server.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/log.h"
#include "api/stream.h"

#define IDLE_TIMEOUT_S 60
#define HEARTBEAT_MS   15000
/* In all, from the last answer on; a little more than the idle time, within which it may begin. */
#define REQUEST_MAX_MS ((IDLE_TIMEOUT_S + 15) * 1000)
#define SLOW_LOOK_MS   1000
#define TURN_NS        3000000u
/* Rounds in which streams may end in order, when the daemon ends. */
#define LAST_ROUNDS 16
/* Bodies a little too large are read to their end, so that the client reads our answer instead of
 * an error while sending. */
#define MAX_DISCARDED (1u << 20)

static const char too_many[] =
	"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
	"Connection: close\r\n\r\n"
	"{\"type\":\"urn:h2ofleet:problem:too-many-connections\",\"title\":\"Too many "
	"connections\",\"status\":503,\"detail\":\"too many connections\"}\n";

static void schedule(struct api *a);

static void run(struct api *a)
{
	a->run_asked = false;
	streams_turn(a);
	MHD_run(a->mhd);
	schedule(a);
}

static void on_poll(uv_poll_t *p, int status _unused_, int events _unused_)
{
	run(p->data);
}

static void on_mhd_timer(uv_timer_t *t)
{
	run(t->data);
}

static void schedule(struct api *a)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (a->run_asked)
		uv_timer_start(&a->mhd_timer, on_mhd_timer, 0, 0);
	else if (MHD_get_timeout(a->mhd, &ms) == MHD_YES)
		uv_timer_start(&a->mhd_timer, on_mhd_timer, ms, 0);
	else
		uv_timer_stop(&a->mhd_timer);
}

void server_run_soon(struct api *a)
{
	a->run_asked = true;
	schedule(a);
}

static int connection_fd(struct MHD_Connection *conn)
{
	return MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

bool server_client_gone(struct MHD_Connection *conn)
{
	struct pollfd p = {.fd = connection_fd(conn)};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static void on_slow_timer(uv_timer_t *t)
{
	struct api *a = t->data;

	peers_cut_slow(&a->peers, a->request_max_ms);
}

static void set_waiting(struct MHD_Connection *conn, bool waiting)
{
	struct peer *p =
		MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;

	if (p)
		p->waits_since_ms = waiting ? clock_monotonic_ms() : 0;
}

static void on_connection(void *arg, struct MHD_Connection *conn, void **context,
	enum MHD_ConnectionNotificationCode what)
{
	struct api *a = arg;
	int fd = connection_fd(conn);

	if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
		peers_remove(&a->peers, *context);
		if (!a->peers.list)
			uv_timer_stop(&a->slow_timer);
		return;
	}
	if (!a->peers.list)
		uv_timer_start(&a->slow_timer, on_slow_timer, SLOW_LOOK_MS, SLOW_LOOK_MS);
	*context = peers_add(&a->peers, fd, a->acceptor.listener.path);
	if (*context)
		return;
	/* libmicrohttpd cannot refuse a connection here; it finds it ended and closes it. */
	if (send(fd, too_many, sizeof(too_many) - 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_debug("cannot refuse a connection: %s", strerror(errno));
	shutdown(fd, SHUT_RDWR);
}

/* In the path: once it is unescaped, it would be another path. */
static bool has_escaped_slash(const char *uri)
{
	const char *slash = strcasestr(uri, "%2f");

	return slash && slash < uri + strcspn(uri, "?");
}

/* The first we hear of a request. */
static void *on_request_line(void *arg, const char *uri, struct MHD_Connection *conn)
{
	struct request *rq = xcalloc(1, sizeof(*rq));

	rq->api = arg;
	rq->conn = conn;
	rq->bad_url = strstr(uri, "%00") || has_escaped_slash(uri);
	return rq;
}

static void on_completed(void *arg _unused_, struct MHD_Connection *conn, void **context,
	enum MHD_RequestTerminationCode why _unused_)
{
	struct request *rq = *context;

	if (!rq)
		return;
	set_waiting(conn, true);
	*context = NULL;
	waiter_forget(rq);
	json_decref(rq->json);
	free(rq->cloud_name);
	free(rq->node_index);
	free(rq->id);
	free(rq->body_text);
	json_decref(rq->input);
	free(rq->text);
	free(rq->allow);
	free(rq->header_value);
	free(rq);
}

/* NULL: out of memory. */
static struct MHD_Response *make_response(struct request *rq)
{
	char *body = rq->text ? TAKE_PTR(rq->text) : NULL;
	struct MHD_Response *rsp;

	if (rq->stream && rq->head) {
		stream_drop(TAKE_PTR(rq->stream));
		return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	}
	if (rq->stream)
		return stream_response(TAKE_PTR(rq->stream));
	if (rq->fixed)
		return MHD_create_response_from_buffer(
			strlen(rq->fixed), (void *)rq->fixed, MHD_RESPMEM_PERSISTENT);
	if (!body) {
		_cleanup_free_ char *json = json_dumps(rq->json, JSON_COMPACT);

		body = xasprintf("%s\n", json);
	}
	rsp = MHD_create_response_from_buffer(strlen(body), body, MHD_RESPMEM_MUST_FREE);
	if (!rsp)
		free(body);
	return rsp;
}

static enum MHD_Result send_answer(struct request *rq)
{
	const char *type = rq->stream    ? rq->stream->kind->content_type
			   : rq->text    ? "text/plain; charset=utf-8"
			   : rq->problem ? "application/problem+json"
					 : "application/json";
	struct MHD_Response *rsp = make_response(rq);
	enum MHD_Result ok;

	if (!rsp)
		return MHD_NO;
	MHD_add_response_header(rsp, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(rsp, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (rq->allow)
		MHD_add_response_header(rsp, MHD_HTTP_HEADER_ALLOW, rq->allow);
	if (rq->header)
		MHD_add_response_header(rsp, rq->header, rq->header_value);
	set_waiting(rq->conn, false);
	ok = MHD_queue_response(rq->conn, rq->status, rsp);
	MHD_destroy_response(rsp);
	return ok;
}

static uint64_t announced_body(struct MHD_Connection *conn)
{
	const char *s =
		MHD_lookup_connection_value(conn, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return s ? strtoull(s, NULL, 10) : 0;
}

static void keep_body(struct request *rq, const char *data, size_t n)
{
	if (rq->body + n > API_MAX_BODY)
		return; /* it will be refused */
	rq->body_text = xreallocarray(rq->body_text, (size_t)rq->body + n, 1);
	memcpy(rq->body_text + rq->body, data, n);
}

/* Called with the headers, for each piece of the body, at the end of the request, and once more
 * after a suspension. */
static enum MHD_Result on_request(void *arg _unused_, struct MHD_Connection *conn, const char *url,
	const char *method, const char *version _unused_, const char *data, size_t *size,
	void **context)
{
	struct request *rq = *context;

	if (rq->gone || (rq->api->ending && !rq->status))
		return MHD_NO; /* too late: what it asks for could be done, and not be known of */
	if (!rq->begun) {
		rq->begun = true;
		rq->head = streq(method, MHD_HTTP_METHOD_HEAD);
		if (announced_body(conn) <= MAX_DISCARDED)
			return MHD_YES;
		rq->body = announced_body(conn);
		route_request(rq, method, url);
		return send_answer(rq);
	}
	if (*size) {
		keep_body(rq, data, *size);
		rq->body += *size;
		*size = 0;
		return rq->body > MAX_DISCARDED ? MHD_NO : MHD_YES;
	}
	set_waiting(conn, false);
	if (!rq->status)
		route_request(rq, method, url);
	return rq->status ? send_answer(rq) : MHD_YES;
}

static void on_event(void *arg)
{
	streams_wake(arg, &stream_events);
}

static void on_fleet(const struct cloud *c, void *arg)
{
	struct api *a = arg;

	if (a->fleet)
		waiters_update(a, c);
}

_printf_(2, 0) static void on_mhd_log(void *arg _unused_, const char *fmt, va_list ap)
{
	char line[256];

	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = '\0';
	/* It takes what is handed in for TCP; nothing waits on a unix socket. */
	if (strstr(line, "TCP_") || strstr(line, "push the data"))
		return;
	log_debug("control socket: %s", line);
}

/* Connections are handed in: see acceptor.h. */
static struct MHD_Daemon *start_mhd(struct api *a)
{
	/* Its own limit is above ours, so that it never lets connections pile up unseen. */
	unsigned limit = PEERS_MAX_OWN + PEERS_MAX_OTHERS + 64;

	return MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET |
					MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG,
		0, NULL, NULL, on_request, a,
		/* first, so that its own messages while it starts go there too */
		MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL, MHD_OPTION_CONNECTION_LIMIT, limit,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_TIMEOUT_S,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, a, MHD_OPTION_NOTIFY_COMPLETED,
		on_completed, a, MHD_OPTION_URI_LOG_CALLBACK, on_request_line, a, MHD_OPTION_END);
}

static void on_closed(uv_handle_t *h)
{
	struct api *a = h->data;

	if (--a->open_handles == 0)
		free(a);
}

static void close_handles(struct api *a)
{
	uv_close((uv_handle_t *)&a->poll, on_closed);
	uv_close((uv_handle_t *)&a->mhd_timer, on_closed);
	uv_close((uv_handle_t *)&a->wait_timer, on_closed);
	uv_close((uv_handle_t *)&a->stream_timer, on_closed);
	uv_close((uv_handle_t *)&a->slow_timer, on_closed);
}

/* After this the handles must be closed. */
static int add_to_loop(struct api *a)
{
	int epoll_fd = MHD_get_daemon_info(a->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
	int r = uv_poll_init(a->loop, &a->poll, epoll_fd);

	if (r < 0)
		return r;
	uv_timer_init(a->loop, &a->mhd_timer);
	uv_timer_init(a->loop, &a->wait_timer);
	uv_timer_init(a->loop, &a->stream_timer);
	uv_timer_init(a->loop, &a->slow_timer);
	a->poll.data = a->mhd_timer.data = a->wait_timer.data = a->stream_timer.data = a;
	a->slow_timer.data = a;
	a->open_handles = 5;
	return uv_poll_start(&a->poll, UV_READABLE, on_poll);
}

static void on_taken(int fd, void *arg)
{
	struct api *a = arg;
	struct sockaddr_un nobody = {.sun_family = AF_UNIX};

	/* It closes what it does not take. */
	if (MHD_add_connection(a->mhd, fd, (struct sockaddr *)&nobody, sizeof(sa_family_t)) ==
		MHD_YES)
		server_run_soon(a);
}

int api_new(uv_loop_t *loop, struct fleet *fleet, const char *path, struct api **out, struct err *e)
{
	struct api *a = xcalloc(1, sizeof(*a));
	int r = acceptor_open(&a->acceptor, loop, fleet, path, on_taken, a, e);

	if (r < 0) {
		free(a);
		return r;
	}
	a->loop = loop;
	a->fleet = fleet;
	a->journal = fleet_journal(fleet);
	a->heartbeat_ms = HEARTBEAT_MS;
	a->turn_ns = TURN_NS;
	a->request_max_ms = REQUEST_MAX_MS;
	a->started_ms = clock_monotonic_ms();
	a->mhd = start_mhd(a);
	r = a->mhd ? add_to_loop(a) : -EIO;
	if (r < 0) {
		acceptor_close(&a->acceptor);
		if (a->mhd)
			MHD_stop_daemon(a->mhd);
		if (a->open_handles)
			close_handles(a);
		else
			free(a);
		return err_set_errno(
			e, r, "cannot start the control protocol's server at %s", path);
	}
	fleet_observe(fleet, on_fleet, a);
	journal_observe(a->journal, on_event, a);
	a->lag = loop_lag_new(loop);
	schedule(a);
	*out = a;
	return 0;
}

/* What waits for an answer is sent: MHD_run() takes resumed requests in, then sends. */
static void run_last(struct api *a)
{
	streams_end(a);
	for (int i = 0; i < 2 || (a->streams && i < LAST_ROUNDS); i++)
		MHD_run(a->mhd);
	a->ending = false; /* should the new image fail, all goes on */
}

void api_hand_over(struct api *a)
{
	run_last(a);
	acceptor_hand_over(&a->acceptor);
}

void answer(struct request *rq, unsigned status, json_t *json)
{
	rq->status = status;
	rq->json = json;
}

void api_set_reexec(struct api *a, api_reexec_fn *fn, void *arg)
{
	a->reexec = fn;
	a->reexec_arg = arg;
}

void api_free(struct api *a)
{
	if (!a)
		return;
	acceptor_close(&a->acceptor);
	uv_poll_stop(&a->poll);
	waiters_end(a);
	a->fleet = NULL;
	journal_observe(a->journal, NULL, NULL);
	run_last(a);
	MHD_stop_daemon(a->mhd);
	uv_timer_stop(&a->mhd_timer);
	uv_timer_stop(&a->wait_timer);
	uv_timer_stop(&a->stream_timer);
	uv_timer_stop(&a->slow_timer);
	loop_lag_free(a->lag);
	close_handles(a);
}
