#include "cli/loglines.h"

#include <ctype.h>
#include <strings.h>
#include <time.h>

#define DAY_MS (24 * 3600 * UINT64_C(1000))

/* ---- heads ---- */

enum log_level log_level_read(const char *s, size_t len)
{
	static const struct {
		const char *name;
		enum log_level level;
	} names[] = {
		{"FATAL", LOG_FATAL},
		{"ERRR", LOG_ERRR},
		{"ERROR", LOG_ERRR},
		{"WARN", LOG_WARN},
		{"WARNING", LOG_WARN},
		{"INFO", LOG_INFO},
		{"DEBUG", LOG_DEBUG},
		{"TRACE", LOG_TRACE},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (strlen(names[i].name) == len && strncasecmp(names[i].name, s, len) == 0)
			return names[i].level;
	return LOG_NO_LEVEL;
}

/* "12-31 23:59:59.123 ", digit for digit. */
static bool looks_like_time(const char *s, size_t len)
{
	static const char form[] = "00-00 00:00:00.000 ";

	if (len < strlen(form))
		return false;
	for (size_t i = 0; form[i]; i++)
		if (form[i] == '0' ? !isdigit((unsigned char)s[i]) : form[i] != s[i])
			return false;
	return true;
}

static int two(const char *s)
{
	return (s[0] - '0') * 10 + s[1] - '0';
}

/* Their clock's time as ours; 0: none. */
static uint64_t to_s(struct tm *tm, const struct log_zone *zone)
{
	int64_t t = zone->other ? timegm(tm) - zone->utc_offset_s : mktime(tm);

	return (uint64_t)MAX(t, (int64_t)0);
}

/* 0: no time at all. */
static uint64_t to_wall_ms(const char *s, int year, const struct log_zone *zone)
{
	struct tm tm = {.tm_year = year,
		.tm_mon = two(s) - 1,
		.tm_mday = two(s + 3),
		.tm_hour = two(s + 6),
		.tm_min = two(s + 9),
		.tm_sec = two(s + 12),
		.tm_isdst = -1};
	uint64_t t = to_s(&tm, zone);

	return t ? t * 1000 + (uint64_t)((s[15] - '0') * 100 + two(s + 16)) : 0;
}

/* The first word that is a level: "MM-dd HH:mm:ss.SSS ip:port  pid  thread  LEVEL logger: text", in
 * which the thread's name may hold blanks; none in the text behind. */
static enum log_level find_level(const char *s, size_t len)
{
	size_t i = 0;

	while (i < len) {
		size_t n = 0;
		enum log_level level;

		while (i < len && s[i] == ' ')
			i++;
		while (i + n < len && s[i + n] != ' ')
			n++;
		level = log_level_read(s + i, n);
		if (level != LOG_NO_LEVEL)
			return level;
		if (n && s[i + n - 1] == ':')
			break;
		i += n;
	}
	return LOG_NO_LEVEL;
}

/* What the JVM itself, or an uncaught exception, says; H2O's own lines have a head. */
static bool is_cry(const char *s, size_t len)
{
	static const char *const beginnings[] = {"Exception in thread ",
		"Exception: ", "java.lang.OutOfMemoryError", "Error: ", "Error occurred during ",
		"# A fatal error", "Terminating due to "};

	for (size_t i = 0; i < ARRAY_SIZE(beginnings); i++)
		if (len >= strlen(beginnings[i]) &&
			memcmp(s, beginnings[i], strlen(beginnings[i])) == 0)
			return true;
	return false;
}

/* What the daemon writes between two lives; it ends with a time. */
static bool read_heading(const char *line, size_t len, const struct log_zone *zone, uint64_t *at_ms)
{
	static const char begins[] = "--- h2ofleet: cloud ", form[] = "2026-11-22 22:39:54";
	struct tm tm = {.tm_isdst = -1};
	_cleanup_free_ char *when = NULL;
	const char *end;

	if (len < strlen(begins) + strlen(form) || memcmp(line, begins, strlen(begins)) != 0)
		return false;
	when = xstrndup(line + len - strlen(form), strlen(form));
	end = strptime(when, "%Y-%m-%d %H:%M:%S", &tm);
	*at_ms = end && !*end ? to_s(&tm, zone) * 1000 : 0;
	return *at_ms != 0;
}

/* The stamp that H2O's lines begin with, of this year or the last. */
static bool read_stamp(
	const char *line, size_t len, const struct log_zone *zone, uint64_t now_ms, uint64_t *at_ms)
{
	time_t now = (time_t)(now_ms / 1000) + (zone->other ? zone->utc_offset_s : 0);
	struct tm tm;

	if (!looks_like_time(line, len) ||
		!(zone->other ? gmtime_r(&now, &tm) : localtime_r(&now, &tm)))
		return false;
	*at_ms = to_wall_ms(line, tm.tm_year, zone);
	if (*at_ms > now_ms + DAY_MS)
		*at_ms = to_wall_ms(line, tm.tm_year - 1, zone);
	return *at_ms != 0;
}

bool log_head_read(const char *line, size_t len, const struct log_zone *zone, uint64_t now_ms,
	uint64_t *at_ms, enum log_level *level)
{
	bool heading = read_heading(line, len, zone, at_ms);

	if (!heading && !read_stamp(line, len, zone, now_ms, at_ms))
		return false;
	/* mktime(3) knows a day "48-22", too: years from now, and all that follows would be. */
	if (*at_ms > now_ms + DAY_MS) {
		*at_ms = 0;
		return false;
	}
	*level = heading ? LOG_INFO : find_level(line + 19, len - 19);
	return true;
}

/* ---- filter ---- */

static bool matches(const struct log_filter *f, const char *line, size_t len)
{
	_cleanup_free_ char *s = xmalloc(len + 1);

	for (size_t i = 0; i < len; i++)
		s[i] = line[i] ? line[i] : ' ';
	s[len] = '\0';
	return regexec(&f->pattern, s, 0, NULL, 0) == 0;
}

bool log_take(struct log_source *s, const struct log_filter *f, const char *line, size_t len,
	uint64_t now_ms)
{
	enum log_level level = LOG_NO_LEVEL;
	uint64_t at = 0;
	bool begins = log_head_read(line, len, &f->zone, now_ms, &at, &level);

	if (!begins && is_cry(line, len)) {
		level = LOG_ERRR;
		begins = true;
	}
	if (begins)
		s->level = level;
	s->begun |= begins;
	s->at_ms = MAX(s->at_ms, at);
	/* What goes on belongs to what is shown; it may also be what is looked for. */
	if (begins || !s->begun)
		s->shown = false;
	if (s->at_ms < f->since_ms || (s->begun ? s->level : LOG_FATAL) > f->level)
		s->shown = false;
	else if (!s->shown)
		s->shown = !f->has_pattern || matches(f, line, len);
	return s->shown;
}

/* ---- merging ---- */

void log_merge_add(struct log_merge *m, uint64_t at_ms, int64_t node, const char *line, size_t len)
{
	char *text = xmalloc(len + 1);

	memcpy(text, line, len);
	text[len] = '\0';
	if (m->n == m->cap) {
		m->cap = MAX(2 * m->cap, (size_t)64);
		m->items = xreallocarray(m->items, m->cap, sizeof(*m->items));
	}
	m->items[m->n] = (struct log_item){at_ms, node, m->n, text, len};
	m->n++;
	m->bytes += len;
}

static int by_time(const void *a, const void *b)
{
	const struct log_item *x = a, *y = b;

	if (x->at_ms != y->at_ms)
		return x->at_ms < y->at_ms ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* Which are among the last of their node. */
static void mark_last(struct log_merge *m, size_t last, bool *wanted)
{
	int64_t max = 0;
	size_t *seen;

	for (size_t i = 0; i < m->n; i++)
		max = MAX(max, m->items[i].node);
	seen = xcalloc((size_t)max + 1, sizeof(*seen));
	for (size_t i = m->n; i-- > 0;)
		wanted[i] = seen[m->items[i].node]++ < last;
	free(seen);
}

void log_merge_flush(struct log_merge *m, size_t last,
	void (*give)(int64_t node, const char *line, size_t len, void *arg), void *arg)
{
	_cleanup_free_ bool *wanted = xcalloc(m->n + 1, sizeof(*wanted));

	if (m->n)
		qsort(m->items, m->n, sizeof(*m->items), by_time);
	mark_last(m, last, wanted);
	for (size_t i = 0; i < m->n; i++) {
		if (wanted[i])
			give(m->items[i].node, m->items[i].text, m->items[i].len, arg);
		free(m->items[i].text);
	}
	m->n = m->bytes = 0;
}

void log_merge_free(struct log_merge *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->items[i].text);
	free(m->items);
	*m = (struct log_merge){0};
}
