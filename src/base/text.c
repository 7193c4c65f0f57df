#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <ctype.h>

#include "base/strbuf.h"

struct unit {
	const char *suffix;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{"t", 1ull << 40},
	{"g", 1ull << 30},
	{"m", 1ull << 20},
	{"k", 1ull << 10},
	{"", 1},
};

static const struct unit time_units[] = {
	{"d", 86400000},
	{"h", 3600000},
	{"m", 60000},
	{"s", 1000},
	{"ms", 1},
};

static int parse_with_unit(const char *s, const struct unit *units, size_t n, uint64_t *out)
{
	uint64_t value;
	char *end;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	value = strtoull(s, &end, 10);
	if (errno)
		return -ERANGE;
	for (size_t i = 0; i < n; i++) {
		if (strcasecmp(end, units[i].suffix) != 0)
			continue;
		if (__builtin_mul_overflow(value, units[i].factor, out))
			return -ERANGE;
		return 0;
	}
	return -EINVAL;
}

int text_parse_size(const char *s, uint64_t *bytes)
{
	return parse_with_unit(s, size_units, ARRAY_SIZE(size_units), bytes);
}

int text_parse_duration(const char *s, uint64_t *ms)
{
	if (streq(s, "0")) {
		*ms = 0;
		return 0;
	}
	return parse_with_unit(s, time_units, ARRAY_SIZE(time_units), ms);
}

int text_parse_int(const char *s, int64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)s[*s == '-' || *s == '+']))
		return -EINVAL;
	errno = 0;
	*value = strtoll(s, &end, 10);
	if (errno)
		return -ERANGE;
	return *end ? -EINVAL : 0;
}

static char *format_with_unit(uint64_t value, const struct unit *units, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (value && value % units[i].factor == 0)
			return xasprintf("%" PRIu64 "%s", value / units[i].factor, units[i].suffix);
	return xstrdup("0");
}

char *text_format_size(uint64_t bytes)
{
	return format_with_unit(bytes, size_units, ARRAY_SIZE(size_units));
}

char *text_format_duration(uint64_t ms)
{
	return ms ? format_with_unit(ms, time_units, ARRAY_SIZE(time_units)) : xstrdup("0s");
}

char *text_human_size(uint64_t bytes)
{
	static const char *const names[] = {"bytes", "kB", "MB", "GB", "TB"};
	double value = (double)bytes;
	size_t i = 0;

	while (value >= 1024 && i + 1 < ARRAY_SIZE(names)) {
		value /= 1024;
		i++;
	}
	return i == 0       ? xasprintf("%" PRIu64 " byte%s", bytes, bytes == 1 ? "" : "s")
	       : value < 10 ? xasprintf("%.1f %s", value, names[i])
			    : xasprintf("%.0f %s", value, names[i]);
}

char *text_human_duration(uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (ms < 1000)
		return xasprintf("%" PRIu64 "ms", ms);
	if (s < 60)
		return xasprintf("%" PRIu64 "s", s);
	if (s < 3600)
		return xasprintf("%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
	if (s < 86400)
		return xasprintf("%" PRIu64 "h %" PRIu64 "m", s / 3600, s / 60 % 60);
	return xasprintf("%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
}

/* Edit distance with transpositions (optimal string alignment), case-insensitive. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	_cleanup_free_ size_t *rows = xcalloc(3 * (lb + 1), sizeof(*rows));
	size_t *prev2 = rows, *prev = rows + lb + 1, *cur = rows + 2 * (lb + 1);

	for (size_t j = 0; j <= lb; j++)
		prev[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t *oldest = prev2;

		cur[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			int ca = tolower((unsigned char)a[i - 1]);
			int cb = tolower((unsigned char)b[j - 1]);
			size_t d = prev[j - 1] + (ca != cb);

			d = MIN(d, prev[j] + 1);
			d = MIN(d, cur[j - 1] + 1);
			if (i > 1 && j > 1 && ca == tolower((unsigned char)b[j - 2]) &&
				cb == tolower((unsigned char)a[i - 2]))
				d = MIN(d, prev2[j - 2] + 1);
			cur[j] = d;
		}
		prev2 = prev;
		prev = cur;
		cur = oldest;
	}
	return prev[lb];
}

const char *text_nearest(const char *s, const char *const *names, size_t n)
{
	size_t best = strlen(s) / 3 + 2; /* anything further away is no suggestion */
	const char *found = NULL, *begun = NULL;
	size_t n_begun = 0;

	if (strlen(s) > 200)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t d = edit_distance(s, names[i]);

		if (strlen(s) >= 3 && strncasecmp(s, names[i], strlen(s)) == 0) {
			d = MIN(d, (size_t)2); /* cut short: as good as two slips */
			begun = names[i];
			n_begun++;
		}
		if (d < best) {
			best = d;
			found = names[i];
		}
	}
	return n_begun == 1 ? begun : found; /* "stat" is no "start" */
}

/* Length of the well-formed UTF-8 character at `s`, or 0. */
static size_t utf8_len(const unsigned char *s, size_t n)
{
	size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (s[0] > 0xf4 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
		(s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

static size_t utf8_printable(const unsigned char *s, size_t n)
{
	size_t len = utf8_len(s, n);

	if (len == 1)
		return (s[0] >= 0x20 && s[0] != 0x7f) || s[0] == '\t';
	if (s[0] == 0xc2 && len && s[1] < 0xa0) /* C1 control characters */
		return 0;
	return len;
}

char *text_utf8(const char *s)
{
	size_t left = strlen(s);
	struct strbuf b = STRBUF_NULL;

	while (left) {
		size_t len = utf8_len((const unsigned char *)s, left), step = MAX(len, (size_t)1);

		if (len)
			strbuf_add(&b, s, len);
		else
			strbuf_puts(&b, "\xef\xbf\xbd");
		s += step;
		left -= step;
	}
	return strbuf_take(&b);
}

char *text_visible(const char *s, size_t n)
{
	struct strbuf b = STRBUF_NULL;

	for (size_t i = 0; i < n;) {
		size_t len = utf8_printable((const unsigned char *)s + i, n - i);

		if (len) {
			strbuf_add(&b, s + i, len);
			i += len;
		} else if (s[i] == '\n') {
			strbuf_puts(&b, "\\n");
			i++;
		} else {
			strbuf_printf(&b, "\\x%02x", (unsigned char)s[i]);
			i++;
		}
	}
	return strbuf_take(&b);
}

size_t text_last_lines(const char *s, size_t n, size_t lines, bool cut)
{
	size_t start = n;
	const char *nl;

	if (lines == 0)
		return n;
	for (size_t seen = 0; start > 0; start--)
		if (s[start - 1] == '\n' && start != n && ++seen == lines)
			return start;
	nl = cut ? memchr(s, '\n', n) : NULL;
	return nl ? (size_t)(nl - s) + 1 : 0;
}
