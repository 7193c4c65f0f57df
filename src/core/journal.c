#include "core/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "core/segment.h"

#define RING_EVENTS 512
#define RING_BYTES  (1u << 20)
/* "<epoch> <seq, 20 digits>\n" */
#define ISSUED_LEN (JOURNAL_EPOCH_LEN + 22)
/* A larger number in a file is damage: no daemon comes that far, and those that follow must have at
 * most 18 digits (segment.c). */
#define MAX_FOUND 500000000000000000u

struct ring_item {
	char *line; /* owned */
	size_t len;
	char *cloud; /* owned; NULL: none */
};

enum { OLD, CURRENT, N_SEGMENTS };

struct journal {
	char *dir, *paths[N_SEGMENTS], *issued; /* owned */
	uint64_t max_segment;
	char epoch[JOURNAL_EPOCH_LEN + 1];
	uint64_t next; /* number of the next event */
	struct segment segments[N_SEGMENTS];
	int issued_fd;
	bool on_disk;           /* something there is of this epoch */
	uint64_t failing_since; /* first event that could not be written; 0: all is well */
	struct ring_item ring[RING_EVENTS];
	size_t ring_n, ring_bytes; /* its newest is next - 1 */
	void (*observer)(void *arg);
	void *observer_arg;
};

const char *journal_epoch(const struct journal *j)
{
	return j->epoch;
}

uint64_t journal_last(const struct journal *j)
{
	return j->next - 1;
}

void journal_observe(struct journal *j, void (*cb)(void *arg), void *arg)
{
	j->observer = cb;
	j->observer_arg = arg;
}

static void new_epoch(struct journal *j)
{
	uint64_t v;

	if (getrandom(&v, sizeof(v), 0) != sizeof(v))
		v = clock_wall_ms() ^ (uint64_t)getpid() << 48;
	snprintf(j->epoch, sizeof(j->epoch), "%016" PRIx64, v);
	j->next = 1;
	j->on_disk = false;
}

/* ---- memory ---- */

static uint64_t ring_first(const struct journal *j)
{
	return j->next - j->ring_n;
}

static struct ring_item *ring_at(struct journal *j, uint64_t seq)
{
	return &j->ring[seq % RING_EVENTS];
}

static void ring_drop(struct journal *j)
{
	struct ring_item *i = ring_at(j, ring_first(j));

	j->ring_bytes -= i->len;
	j->ring_n--;
	free(i->line);
	free(i->cloud);
	*i = (struct ring_item){0};
}

/* Of event `next`, which is given out by that. */
static void ring_add(struct journal *j, char *line, const char *cloud)
{
	while (j->ring_n == RING_EVENTS || j->ring_bytes > RING_BYTES)
		ring_drop(j);
	*ring_at(j, j->next) = (struct ring_item){line, strlen(line), xstrdup_null(cloud)};
	j->ring_bytes += strlen(line);
	j->ring_n++;
	j->next++;
}

/* ---- the last number given out ---- */

static bool write_issued(struct journal *j, uint64_t seq)
{
	char text[ISSUED_LEN + 1];

	if (j->issued_fd < 0)
		return false;
	snprintf(text, sizeof(text), "%s %020" PRIu64 "\n", j->epoch, seq);
	return pwrite(j->issued_fd, text, ISSUED_LEN, 0) == ISSUED_LEN;
}

/* 0: none is known of this epoch. */
static uint64_t read_issued(const struct journal *j)
{
	char text[ISSUED_LEN + 1] = {0};
	uint64_t seq;

	if (j->issued_fd < 0 || pread(j->issued_fd, text, ISSUED_LEN, 0) != ISSUED_LEN ||
		memcmp(text, j->epoch, JOURNAL_EPOCH_LEN) != 0)
		return 0;
	seq = strtoull(text + JOURNAL_EPOCH_LEN, NULL, 10);
	return seq <= MAX_FOUND ? seq : 0;
}

/* ---- the files ---- */

static int open_segment(struct journal *j, int i, int flags)
{
	struct segment *s = &j->segments[i];
	int r;

	segment_close(s);
	s->fd = open(j->paths[i], O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW | flags, 0640);
	r = s->fd < 0 ? -errno : segment_load(s);
	return r == 0 && s->last > MAX_FOUND ? -EBADMSG : r;
}

/* Not ours, or damaged beyond use. */
static void set_aside(struct journal *j, int i)
{
	_cleanup_free_ char *aside = xasprintf("%s.unusable", j->paths[i]);

	log_warning("%s holds no events; it is kept as %s", j->paths[i], aside);
	segment_close(&j->segments[i]);
	if (rename(j->paths[i], aside) < 0)
		unlink(j->paths[i]);
}

/* False: there is something, and it cannot be read now. */
static bool open_all(struct journal *j)
{
	bool all;

	j->issued_fd = open(j->issued, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	all = j->issued_fd >= 0 || errno == ENOENT;
	for (int i = 0; i < N_SEGMENTS; i++) {
		int r = open_segment(j, i, 0);

		if (r == -EBADMSG)
			set_aside(j, i);
		else
			all &= r == 0 || r == -ENOENT;
	}
	return all;
}

/* What an earlier daemon has left. Which numbers it gave out only all of it tells, and none may be
 * given out twice. */
static void load(struct journal *j)
{
	struct segment *old = &j->segments[OLD], *current = &j->segments[CURRENT];
	uint64_t newest;

	if (!open_all(j)) {
		segment_close(old);
		segment_close(current);
	}
	if (!old->last && !current->last)
		return;
	memcpy(j->epoch, current->last ? current->epoch : old->epoch, sizeof(j->epoch));
	j->on_disk = true;
	if (current->last && old->last &&
		(!streq(old->epoch, current->epoch) || old->last >= current->first))
		segment_forget(old);
	newest = MAX(old->last, current->last);
	j->next = MAX(newest, read_issued(j)) + 1;
}

/* The current one, as it is now: somebody may have cut or removed what was there. */
static int open_current(struct journal *j)
{
	struct segment *s = &j->segments[CURRENT];
	int r = open_segment(j, CURRENT, O_CREAT);

	if (r == -EBADMSG) {
		set_aside(j, CURRENT);
		r = open_segment(j, CURRENT, O_CREAT);
	}
	if (r == 0 && (!streq(s->epoch, j->epoch) || s->last >= j->next))
		segment_forget(s);
	if (r < 0)
		segment_close(s);
	return r;
}

static int open_files(struct journal *j)
{
	int r;

	if (j->segments[CURRENT].fd >= 0 && !segment_changed(&j->segments[CURRENT]))
		return 0;
	r = file_mkdirs(j->dir, 0750, NULL);
	if (r == 0)
		r = open_current(j);
	if (r == 0 && j->issued_fd < 0) {
		j->issued_fd = open(j->issued, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
		if (read_issued(j) == 0)
			write_issued(j, 0);
	}
	return r;
}

/* Killed in the middle there is only the old one: load() knows. */
static int rotate(struct journal *j)
{
	if (rename(j->paths[CURRENT], j->paths[OLD]) < 0 && errno != ENOENT)
		return -errno;
	segment_close(&j->segments[OLD]);
	j->segments[OLD] = j->segments[CURRENT];
	j->segments[CURRENT] = SEGMENT_NULL;
	return open_files(j);
}

static int write_line(struct journal *j, const char *line, size_t len)
{
	struct segment *s = &j->segments[CURRENT];
	int r = open_files(j);

	if (r == 0 && s->size && s->size + len > j->max_segment)
		r = rotate(j);
	return r < 0 ? r : segment_append(s, line, len);
}

static void say_trouble(struct journal *j, int r)
{
	if (r < 0 && !j->failing_since) {
		j->failing_since = j->next;
		log_error("cannot write events to %s: %s; they are kept in memory only",
			j->paths[CURRENT], strerror(-r));
	} else if (r == 0 && j->failing_since) {
		log_notice("events are written to %s again; numbers %" PRIu64 " to %" PRIu64
			   " are not in it",
			j->paths[CURRENT], j->failing_since, j->next - 1);
		j->failing_since = 0;
	}
}

struct journal *journal_open(const char *dir, uint64_t max_bytes)
{
	struct journal *j = xcalloc(1, sizeof(*j));
	int r;

	j->dir = xstrdup(dir);
	j->paths[OLD] = xasprintf("%s/old.ndjson", dir);
	j->paths[CURRENT] = xasprintf("%s/current.ndjson", dir);
	j->issued = xasprintf("%s/issued", dir);
	j->max_segment = max_bytes / N_SEGMENTS;
	j->segments[OLD] = j->segments[CURRENT] = SEGMENT_NULL;
	new_epoch(j);
	load(j);
	r = open_files(j); /* while there is room for `issued` */
	if (r < 0)
		say_trouble(j, r);
	return j;
}

void journal_close(struct journal *j)
{
	if (!j)
		return;
	while (j->ring_n)
		ring_drop(j);
	for (int i = 0; i < N_SEGMENTS; i++) {
		segment_close(&j->segments[i]);
		free(j->paths[i]);
	}
	if (j->issued_fd >= 0)
		close(j->issued_fd);
	free(j->issued);
	free(j->dir);
	free(j);
}

/* ---- a new event ---- */

/* Owned by the caller. */
static char *format(const struct journal *j, json_t *members)
{
	json_auto_t *all = json_pack("{s:s, s:I}", "epoch", j->epoch, "seq", (json_int_t)j->next);
	_cleanup_free_ char *text = NULL;

	json_object_update(all, members);
	text = json_dumps(all, JSON_COMPACT);
	if (!text)
		no_memory(0);
	return xasprintf("%s\n", text);
}

/* The members that every event has. */
static json_t *without_details(json_t *members)
{
	static const char *const keep[] = {
		"time", "mono_ms", "type", "cloud", "node", "generation", "message"};
	json_t *j = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(keep); i++) {
		json_t *m = json_object_get(members, keep[i]);
		const char *s = json_string_value(m);

		if (s && strlen(s) > JOURNAL_MAX_LINE / 8)
			m = NULL;
		if (m)
			json_object_set(j, keep[i], m);
	}
	json_object_set_new(j, "shortened", json_true());
	return j;
}

static char *format_bounded(const struct journal *j, json_t *members)
{
	char *line = format(j, members);

	if (strlen(line) > JOURNAL_MAX_LINE) {
		json_auto_t *few = without_details(members);

		free(line);
		line = format(j, few);
	}
	return line;
}

/* Nobody may ever give its numbers out again, and nothing can be written: begin anew. */
static void lose_epoch(struct journal *j)
{
	while (j->ring_n)
		ring_drop(j);
	for (int i = 0; i < N_SEGMENTS; i++)
		segment_forget(&j->segments[i]);
	new_epoch(j);
}

void journal_append(struct journal *j, json_t *members)
{
	const char *cloud = json_string_value(json_object_get(members, "cloud"));
	char *line = format_bounded(j, members);
	int r = write_line(j, line, strlen(line));

	say_trouble(j, r);
	if (r < 0 && j->on_disk && !write_issued(j, j->next)) {
		lose_epoch(j);
		j->failing_since = 1;
		free(line);
		line = format_bounded(j, members);
	}
	if (r == 0)
		j->on_disk = true;
	ring_add(j, line, cloud);
	json_decref(members);
	if (j->observer)
		j->observer(j->observer_arg);
}

/* ---- reading ---- */

/* The oldest that there is; `next` where there is none. */
static uint64_t first_available(const struct journal *j)
{
	uint64_t first = ring_first(j);

	for (int i = 0; i < N_SEGMENTS; i++)
		if (j->segments[i].first)
			first = MIN(first, j->segments[i].first);
	return first;
}

int journal_seek(const struct journal *j, const char *since, struct journal_cursor *c)
{
	const char *number = since, *colon = since ? strchr(since, ':') : NULL;
	char *end;
	uint64_t seq;

	memcpy(c->epoch, j->epoch, sizeof(c->epoch));
	c->next = first_available(j);
	c->asked[0] = '\0';
	if (!since)
		return 0;
	if (colon) {
		if (colon - since != JOURNAL_EPOCH_LEN ||
			strspn(since, "0123456789abcdef") != JOURNAL_EPOCH_LEN)
			return -EINVAL;
		number = colon + 1;
	}
	if (*number < '0' || *number > '9')
		return -EINVAL;
	errno = 0;
	seq = strtoull(number, &end, 10);
	if (errno || *end || seq >= INT64_MAX)
		return -EINVAL;
	if ((colon && strncmp(since, j->epoch, JOURNAL_EPOCH_LEN) != 0) || seq >= j->next)
		snprintf(c->asked, sizeof(c->asked), "%s", since);
	else
		c->next = seq + 1;
	return 0;
}

static void add_record(struct strbuf *out, json_t *record)
{
	_cleanup_free_ char *text = json_dumps(record, JSON_COMPACT);

	strbuf_printf(out, "%s\n", text);
	json_decref(record);
}

/* Events up to, without, `to` are gone. */
static void add_lost(
	const struct journal *j, struct journal_cursor *c, uint64_t to, struct strbuf *out)
{
	if (to <= c->next)
		return;
	add_record(out, json_pack("{s:s, s:I, s:s, s:I, s:I, s:o}", "epoch", j->epoch, "seq",
				(json_int_t)(to - 1), "type", "lost", "from", (json_int_t)c->next,
				"to", (json_int_t)(to - 1), "message",
				json_sprintf("%" PRIu64 " event%s no longer there", to - c->next,
					to - c->next == 1 ? " is" : "s are")));
	c->next = to;
}

static void add_epoch(const struct journal *j, struct journal_cursor *c, struct strbuf *out)
{
	bool other = strchr(c->asked, ':') && !has_prefix(c->asked, j->epoch);

	c->next = first_available(j);
	add_record(out,
		json_pack("{s:s, s:I, s:s, s:s, s:s}", "epoch", j->epoch, "seq",
			(json_int_t)(c->next - 1), "type", "epoch", "asked", c->asked, "message",
			other ? "the events were numbered anew since; here is all there is"
			      : "no event had this number yet; here is all there is"));
	c->asked[0] = '\0';
}

static bool wanted(const struct journal_cursor *c, const char *line, size_t len)
{
	json_t *j;
	bool fits;

	if (!c->cloud)
		return true;
	j = json_loadb(line, len, 0, NULL);
	fits = streq_null(json_string_value(json_object_get(j, "cloud")), c->cloud);
	json_decref(j);
	return fits;
}

static void read_ring(struct journal *j, struct journal_cursor *c, struct strbuf *out, size_t end)
{
	while (c->next < j->next && out->len < end) {
		const struct ring_item *i = ring_at(j, c->next++);

		if (!c->cloud || streq_null(c->cloud, i->cloud))
			strbuf_add(out, i->line, i->len);
	}
}

/* One block of it. */
static void read_files(struct journal *j, struct journal_cursor *c, struct strbuf *out, size_t end)
{
	struct segment *s = &j->segments[OLD];
	_cleanup_free_ char *block = NULL;
	uint64_t limit = ring_first(j);
	struct segment_line l;
	char *at;

	if (s->last < c->next)
		s = &j->segments[CURRENT];
	if (s->last < c->next) {
		add_lost(j, c, limit, out);
		return;
	}
	block = segment_block(s, c->next);
	at = block;
	while (at && out->len < end && c->next < limit && segment_next_line(&at, &l)) {
		if (l.seq < c->next || memcmp(l.epoch, j->epoch, JOURNAL_EPOCH_LEN) != 0)
			continue;
		add_lost(j, c, MIN(l.seq, limit), out);
		if (l.seq >= limit)
			return;
		if (wanted(c, l.text, l.len))
			strbuf_add(out, l.text, l.len);
		c->next = l.seq + 1;
	}
}

bool journal_read(struct journal *j, struct journal_cursor *c, struct strbuf *out, size_t max)
{
	size_t end = out->len + max;

	if (!c->asked[0] && !streq(c->epoch, j->epoch))
		snprintf(c->asked, sizeof(c->asked), "%s:%" PRIu64, c->epoch, c->next - 1);
	memcpy(c->epoch, j->epoch, sizeof(c->epoch));
	if (c->asked[0])
		add_epoch(j, c, out);
	for (int turns = 0; c->next < ring_first(j) && out->len < end && turns < 4; turns++) {
		uint64_t before = c->next;

		read_files(j, c, out, end);
		if (c->next == before) /* unreadable: as good as gone */
			add_lost(j, c,
				segment_after(j->segments, N_SEGMENTS, before, ring_first(j)), out);
	}
	if (c->next >= ring_first(j))
		read_ring(j, c, out, end);
	return c->next < j->next;
}
