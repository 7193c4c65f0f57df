/* GET /v1/events: the journal as NDJSON. */
#include "api/routes.h"
#include "api/stream.h"

#include "base/clock.h"

/* So much is read from the journal at a time. */
#define PIECE 16384

struct event_stream {
	struct stream s;
	struct journal_cursor cursor;
	char *cloud;       /* owned; the cursor's */
	struct strbuf buf; /* read, and not yet taken */
	size_t taken;
	uint64_t beat_ms; /* when the next heartbeat is due */
};

static ssize_t take(struct event_stream *es, char *buf, size_t max)
{
	size_t n = MIN(max, es->buf.len - es->taken);

	memcpy(buf, es->buf.s + es->taken, n);
	es->taken += n;
	if (es->taken == es->buf.len) {
		strbuf_free(&es->buf); /* one that only waits takes no memory */
		es->taken = 0;
	}
	es->beat_ms = clock_monotonic_ms() + es->s.api->heartbeat_ms;
	return (ssize_t)n;
}

static void add_heartbeat(struct event_stream *es)
{
	json_t *j = json_pack("{s:s, s:I, s:s}", "epoch", es->cursor.epoch, "seq",
		(json_int_t)(es->cursor.next - 1), "type", "heartbeat");
	_cleanup_free_ char *text = json_dumps(j, JSON_COMPACT);

	strbuf_printf(&es->buf, "%s\n", text);
	json_decref(j);
}

static ssize_t read_events(struct stream *s, char *buf, size_t max)
{
	struct event_stream *es = (struct event_stream *)s;
	bool more;

	if (es->buf.len)
		return take(es, buf, max);
	more = journal_read(s->api->journal, &es->cursor, &es->buf, PIECE);
	if (!es->buf.len && !more && s->follow && clock_monotonic_ms() >= es->beat_ms)
		add_heartbeat(es);
	if (es->buf.len)
		return take(es, buf, max);
	return more ? STREAM_AGAIN : STREAM_NOTHING_YET;
}

/* New events wake us; this is for the heartbeat. */
static bool is_ready(struct stream *s, uint64_t now_ms)
{
	return now_ms >= ((struct event_stream *)s)->beat_ms;
}

static void free_events(struct stream *s)
{
	struct event_stream *es = (struct event_stream *)s;

	strbuf_free(&es->buf);
	free(es->cloud);
	free(es);
}

const struct stream_kind stream_events = {
	"application/x-ndjson", 250, read_events, is_ready, free_events};

void handle_events(struct request *rq)
{
	const char *since = request_param(rq, "since"), *cloud = request_param(rq, "cloud");
	struct event_stream *es;
	bool follow = request_flag(rq, "follow");

	if (rq->status)
		return;
	if (cloud && !fleet_find(rq->api->fleet, cloud)) {
		replace_str(&rq->cloud_name, cloud);
		problem_no_such_cloud(rq);
		return;
	}
	es = xcalloc(1, sizeof(*es));
	if (journal_seek(rq->api->journal, since, &es->cursor) < 0) {
		free(es);
		request_bad_value(
			rq, "since", since, "EPOCH:SEQ or SEQ of the last event that you know");
		return;
	}
	es->s.kind = &stream_events;
	es->s.follow = follow;
	es->cursor.cloud = es->cloud = xstrdup_null(cloud);
	es->beat_ms = clock_monotonic_ms() + rq->api->heartbeat_ms;
	stream_begin(rq, &es->s, NULL, NULL);
}
