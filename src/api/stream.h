/* Answers that go on: events and the output of nodes, for as long as the client listens.
 *
 * A stream is a position, not a queue: what comes next is read from the journal or the log when the
 * client's socket takes it, so that a follower costs the same however slow it is, and one that is
 * stuck costs nobody anything (libmicrohttpd closes it after a minute; it goes on from its
 * position). One that has all there is is suspended until there is more. All streams together read
 * for a few milliseconds in a turn of the loop; the others go on in the next. */
#pragma once

#include "api/server.h"

#define STREAMS_MAX 256 /* leaves connections for commands (peer.h) */

enum { /* what read() has to say besides a number of bytes */
	STREAM_NOTHING_YET = 0,
	STREAM_END = MHD_CONTENT_READER_END_OF_STREAM,
	STREAM_BROKEN = MHD_CONTENT_READER_END_WITH_ERROR,
	STREAM_AGAIN = -3, /* nothing found so far; there is more to look through */
};

struct stream;

struct stream_kind {
	const char *content_type;
	/* For how long one that waits may go without ready() being asked. */
	uint64_t tick_ms;
	ssize_t (*read)(struct stream *s, char *buf, size_t max);
	bool (*ready)(struct stream *s, uint64_t now_ms);
	void (*free)(struct stream *s);
};

/* The first member of each kind's own struct. */
struct stream {
	const struct stream_kind *kind;
	struct api *api;
	struct MHD_Connection *conn;
	bool follow; /* does not end by itself */
	bool suspended;
	bool starved; /* was not let read in this turn */
	bool gone;    /* the client hung up */
	struct stream *prev, *next;
};

/* Makes `s` (of malloc(), with kind and follow) the answer of the request. 503 when there are too
 * many. `header`: NULL, or the name of one more, with its value. */
void stream_begin(struct request *rq, struct stream *s, const char *header, const char *value);
/* NULL: out of memory. The stream belongs to the response. */
struct MHD_Response *stream_response(struct stream *s);
/* One that did not become a response. */
void stream_drop(struct stream *s);

/* There may be something for suspended streams of that kind; NULL: of each. */
void streams_wake(struct api *a, const struct stream_kind *kind);
/* A turn of libmicrohttpd begins. */
void streams_turn(struct api *a);
/* From now on they end when they have all there is; nothing may be suspended any more. */
void streams_end(struct api *a);
void streams_on_timer(uv_timer_t *t);

/* stream_events.c */
extern const struct stream_kind stream_events;
