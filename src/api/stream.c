#include "api/stream.h"

#include "base/clock.h"

/* A suspended connection is watched by nobody: how soon a vanished client is noticed. */
#define GONE_MS 1000
#define BLOCK   16384
/* Streams that look through much without finding anything, at the end of the daemon. */
#define MAX_LAST 64

static void list_add(struct stream *s)
{
	struct api *a = s->api;

	s->prev = NULL;
	s->next = a->streams;
	if (a->streams)
		a->streams->prev = s;
	a->streams = s;
	a->n_streams++;
}

static void list_remove(struct stream *s)
{
	struct api *a = s->api;

	if (s->prev)
		s->prev->next = s->next;
	else
		a->streams = s->next;
	if (s->next)
		s->next->prev = s->prev;
	a->n_streams--;
}

/* ---- waiting ---- */

static uint64_t tick_of(const struct stream *s)
{
	return s->starved ? 0 : MIN(s->kind->tick_ms, (uint64_t)GONE_MS);
}

static void arm(struct api *a, uint64_t ms)
{
	uv_handle_t *h = (uv_handle_t *)&a->stream_timer;

	if (!uv_is_active(h) || uv_timer_get_due_in(&a->stream_timer) > ms)
		uv_timer_start(&a->stream_timer, streams_on_timer, ms, 0);
}

static void suspend(struct stream *s)
{
	uint64_t now = clock_monotonic_ms(), due = now + tick_of(s);
	struct api *a = s->api;

	s->suspended = true;
	MHD_suspend_connection(s->conn);
	arm(a, due - now);
	if (!s->starved && (!a->stream_look_ms || due < a->stream_look_ms))
		a->stream_look_ms = due;
}

static void resume(struct stream *s)
{
	s->suspended = s->starved = false;
	MHD_resume_connection(s->conn);
	server_run_soon(s->api);
}

void streams_wake(struct api *a, const struct stream_kind *kind)
{
	for (struct stream *s = a->streams; s; s = s->next)
		if (s->suspended && !s->starved && (!kind || s->kind == kind))
			resume(s);
}

static void wake_starved(struct api *a)
{
	for (struct stream *s = a->streams; s; s = s->next)
		if (s->suspended && s->starved)
			resume(s);
}

static void look(struct stream *s, uint64_t now)
{
	s->gone = server_client_gone(s->conn);
	if (s->gone || s->kind->ready(s, now))
		resume(s);
}

/* Returns when to look again; 0: never. However many there are, it takes no more than a twentieth
 * of the time. */
static uint64_t look_at_all(struct api *a)
{
	uint64_t began = clock_monotonic_ms(), wait = UINT64_MAX;

	for (struct stream *s = a->streams; s; s = s->next) {
		if (s->suspended)
			look(s, began);
		if (s->suspended)
			wait = MIN(wait, tick_of(s));
	}
	if (wait == UINT64_MAX)
		return 0;
	return began + MAX(wait, 20 * (clock_monotonic_ms() - began));
}

void streams_on_timer(uv_timer_t *t)
{
	struct api *a = t->data;
	uint64_t now = clock_monotonic_ms();

	wake_starved(a);
	if (now >= a->stream_look_ms)
		a->stream_look_ms = look_at_all(a);
	if (a->stream_look_ms)
		arm(a, a->stream_look_ms - MIN(now, a->stream_look_ms));
}

/* ---- reading ---- */

void streams_turn(struct api *a)
{
	a->turn_end_ns = 0;
}

/* One may in any case, however slow the machine is. */
static bool may_read(struct api *a)
{
	uint64_t now = uv_hrtime();

	if (a->turn_end_ns && now >= a->turn_end_ns)
		return false;
	if (!a->turn_end_ns)
		a->turn_end_ns = now + a->turn_ns;
	return true;
}

/* The daemon ends: what there is, and then the end; without waiting for anything. */
static ssize_t read_last(struct stream *s, char *buf, size_t max)
{
	for (int i = 0; i < MAX_LAST; i++) {
		ssize_t n = s->kind->read(s, buf, max);

		if (n != STREAM_AGAIN)
			return n == STREAM_NOTHING_YET ? STREAM_END : n;
	}
	return STREAM_END;
}

static ssize_t on_read(void *arg, uint64_t pos _unused_, char *buf, size_t max)
{
	struct stream *s = arg;
	ssize_t n;

	if (s->gone)
		return STREAM_BROKEN;
	if (s->api->ending)
		return read_last(s, buf, max);
	n = may_read(s->api) ? s->kind->read(s, buf, max) : STREAM_AGAIN;
	if (n != STREAM_NOTHING_YET && n != STREAM_AGAIN)
		return n;
	if (n == STREAM_NOTHING_YET && !s->follow)
		return STREAM_END;
	s->starved = n == STREAM_AGAIN;
	suspend(s);
	return 0;
}

/* ---- beginning and end ---- */

void stream_begin(struct request *rq, struct stream *s, const char *header, const char *value)
{
	struct api *a = rq->api;

	s->api = a;
	s->conn = rq->conn;
	if (a->n_streams >= STREAMS_MAX) {
		s->kind->free(s);
		problem(rq, MHD_HTTP_SERVICE_UNAVAILABLE, "too-many-followers",
			"Too many followers", "%u clients are following already", a->n_streams);
		return;
	}
	list_add(s);
	rq->status = MHD_HTTP_OK;
	rq->stream = s;
	rq->header = header;
	replace_str(&rq->header_value, value);
}

void stream_drop(struct stream *s)
{
	list_remove(s);
	s->kind->free(s);
}

static void on_free(void *arg)
{
	stream_drop(arg);
}

struct MHD_Response *stream_response(struct stream *s)
{
	struct MHD_Response *rsp =
		MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, on_read, s, on_free);

	if (!rsp)
		stream_drop(s);
	return rsp;
}

void streams_end(struct api *a)
{
	a->ending = true;
	for (struct stream *s = a->streams; s; s = s->next)
		if (s->suspended)
			resume(s);
}
