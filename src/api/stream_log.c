/* GET /v1/clouds/NAME/nodes/I/log: the last lines that a node wrote; from a position on, or while
 * it writes, its very bytes. */
#include "api/routes.h"
#include "api/stream.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/text.h"
#include "drv/logfile.h"

#define LINES_DEFAULT 100
#define LINES_MAX     100000
/* So far back lines are counted; without following, the answer is in memory while it is read. */
#define TAIL_BYTES_MAX (2u << 20)
#define TAIL_BLOCK     16384
/* Growth is looked for, not told: inotify would wake us at each write of each node. */
#define LOOK_MS 100

#define POSITION_HEADER "h2ofleet-Log-Position"

struct log_stream {
	struct stream s;
	struct logreader *log;
	char *cloud; /* owned */
	uint64_t pos;
};

/* Where bytes are missing it ends: the client asks again, and the header tells it where it is. */
static ssize_t read_log(struct stream *s, char *buf, size_t max)
{
	struct log_stream *ls = (struct log_stream *)s;
	uint64_t at;
	ssize_t n = logreader_read(ls->log, ls->pos, buf, max, &at);

	if (n < 0)
		return STREAM_BROKEN;
	if (at != ls->pos)
		return STREAM_END;
	ls->pos += (uint64_t)n;
	return n;
}

static bool is_ready(struct stream *s, uint64_t now_ms _unused_)
{
	struct log_stream *ls = (struct log_stream *)s;
	uint64_t first, end;

	logreader_range(ls->log, &first, &end);
	if (s->api->fleet && !fleet_find(s->api->fleet, ls->cloud))
		s->follow = false; /* the cloud was taken away */
	return end != ls->pos || first > ls->pos || !s->follow;
}

static void free_log(struct stream *s)
{
	struct log_stream *ls = (struct log_stream *)s;

	logreader_close(ls->log);
	free(ls->cloud);
	free(ls);
}

static const struct stream_kind stream_log = {
	"text/plain; charset=utf-8", LOOK_MS, read_log, is_ready, free_log};

/* Where the last `lines` lines begin. */
static uint64_t position_of_tail(struct logreader *log, size_t lines)
{
	uint64_t first, end, pos, at, found;
	char buf[TAIL_BLOCK];
	size_t seen = 0;

	logreader_range(log, &first, &end);
	first = MAX(first, end > TAIL_BYTES_MAX ? end - TAIL_BYTES_MAX : 0);
	for (pos = found = end; pos > first && lines;) {
		size_t n = (size_t)MIN(pos - first, (uint64_t)sizeof(buf));

		pos -= n;
		/* Less than asked: at the seam of two files; the rest comes with the next. */
		for (size_t have = 0; have < n;) {
			ssize_t r = logreader_read(log, pos + have, buf + have, n - have, &at);

			if (r <= 0 || at != pos + have)
				return found;
			have += (size_t)r;
		}
		for (size_t i = n; i > 0; i--)
			if (buf[i - 1] == '\n' && pos + i != end && ++seen == lines)
				return pos + i;
		found = pos;
	}
	return found;
}

/* 0: only what comes. */
static bool parse_tail(struct request *rq, bool follow, size_t *lines)
{
	const char *tail = request_param(rq, "tail");
	int64_t n = LINES_DEFAULT;

	if (tail && (text_parse_int(tail, &n) < 0 || n < !follow || n > LINES_MAX)) {
		request_bad_value(rq, "tail", tail, "a number of lines from 1 to 100000");
		return false;
	}
	*lines = (size_t)n;
	return true;
}

static bool parse_from(struct request *rq, int64_t *from)
{
	const char *text = request_param(rq, "from");

	*from = -1;
	if (!text)
		return true;
	if (request_param(rq, "tail"))
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-parameter", "Bad parameter",
			"'from' and 'tail' both say where to begin; give one of them");
	else if (text_parse_int(text, from) < 0 || *from < 0)
		request_bad_value(rq, "from", text, "a position, a number from 0 up");
	return !rq->status;
}

static void unreadable(struct request *rq, const char *path, const char *why)
{
	problem(rq, MHD_HTTP_INTERNAL_SERVER_ERROR, "log-unreadable", "Log not readable",
		"cannot read %s: %s", path, why);
}

static void begin_stream(
	struct request *rq, const char *path, int64_t from, size_t lines, bool follow)
{
	struct log_stream *ls = xcalloc(1, sizeof(*ls));
	_cleanup_(err_clear) struct err e = ERR_NULL;
	uint64_t first, end;
	char position[24];

	if (logreader_open(path, &ls->log, &e) < 0) {
		free(ls);
		unreadable(rq, path, err_msg(&e));
		return;
	}
	logreader_range(ls->log, &first, &end);
	ls->pos =
		from < 0 ? position_of_tail(ls->log, lines) : MAX(first, MIN((uint64_t)from, end));
	ls->s.kind = &stream_log;
	ls->s.follow = follow;
	ls->cloud = xstrdup(rq->cloud_name);
	snprintf(position, sizeof(position), "%" PRIu64, ls->pos);
	stream_begin(rq, &ls->s, POSITION_HEADER, position);
}

/* Answers 404 and returns true when the node's output goes to no file (log_to). */
static bool is_elsewhere(struct request *rq, unsigned node)
{
	_cleanup_free_ char *where = fleet_node_log_elsewhere(rq->api->fleet, rq->cloud_name, node);

	if (where)
		problem(rq, MHD_HTTP_NOT_FOUND, "log-elsewhere", "Log is elsewhere",
			"node %u of cloud '%s' has no log file: %s", node, rq->cloud_name, where);
	return where != NULL;
}

void handle_log(struct request *rq)
{
	_cleanup_free_ char *path = NULL, *raw = NULL;
	bool follow = request_flag(rq, "follow");
	int64_t from;
	unsigned node;
	size_t lines;
	int r;

	if (rq->status || !request_node(rq, &node) || !parse_tail(rq, follow, &lines) ||
		!parse_from(rq, &from) || is_elsewhere(rq, node))
		return;
	path = fleet_node_log(rq->api->fleet, rq->cloud_name, node);
	if (follow || from >= 0) {
		begin_stream(rq, path, from, lines, follow);
		return;
	}
	r = logfile_tail(path, 0, lines, TAIL_BYTES_MAX, &raw);
	if (r < 0) {
		unreadable(rq, path, strerror(-r));
		return;
	}
	rq->status = MHD_HTTP_OK;
	rq->text = text_utf8(raw);
}
