#include "conf/ini.h"

#include <ini.h>

#include "base/text.h"

#define SECTION_LIMIT 49 /* inih's MAX_SECTION, without the NUL */
#define BLANKS        " \t"

enum line_kind { LINE_NOTHING, LINE_SECTION, LINE_KEY, LINE_MORE };

struct reader {
	const char *p, *end;
	unsigned line;
	enum line_kind kind; /* of the line that inih has */
	bool after_key;      /* inih takes an indented line for more of a value */
	bool drop_more;      /* the key line above was refused: so is what continues it */
	bool in_value;       /* this line continues one */
	const struct ini_events *events;
	void *u;
};

static enum line_kind refuse(struct reader *r, const char *sentence)
{
	r->events->error(r->u, r->line, r->in_value, sentence);
	return LINE_NOTHING;
}

/* Where inih, or a reader of the file, could see a comment that does not begin the line. */
static bool has_inline_comment(const char *s)
{
	for (; *s; s++)
		if ((*s == ' ' || *s == '\t') && (s[1] == ';' || s[1] == '#'))
			return true;
	return false;
}

/* What neither kind of line that holds data may contain. NULL: all is well. */
static const char *find_fault(const char *s, size_t limit)
{
	_cleanup_free_ char *visible = text_visible(s, strlen(s));

	if (!streq(visible, s))
		return "this line contains control characters or is not UTF-8 text";
	if (strlen(s) > limit)
		return "this line is too long: at most 198 bytes; go on in indented lines below, "
		       "with a backslash at the end of a line that breaks within a word";
	if (has_inline_comment(s))
		return "comments stand on lines of their own "
		       "(in a list of words, write \\; or \\# for the character itself)";
	return NULL;
}

/* `s` begins with '['. Writes what inih shall read to `s`. */
static enum line_kind take_section(struct reader *r, char *s)
{
	char *close = strchr(s, ']');
	char *text = s + 1 + strspn(s + 1, BLANKS);
	const char *fault = NULL;

	r->after_key = false;
	r->drop_more = false;
	if (!close)
		fault = "']' is missing at the end of the section's name";
	else if (close[1 + strspn(close + 1, BLANKS)])
		fault = "there is text behind the ']' of the section's name";
	else {
		while (close > text && strchr(BLANKS, close[-1]))
			close--;
		*close = '\0';
		if (strlen(text) > SECTION_LIMIT)
			fault = "the section's name is too long";
	}
	if (fault)
		refuse(r, fault);
	r->events->section(r->u, r->line, fault ? NULL : text);
	strcpy(s, "[]"); /* inih forgets the last key; the name is our business */
	return LINE_SECTION;
}

static enum line_kind take_key(struct reader *r, const char *s)
{
	size_t n = strcspn(s, "=:");
	const char *fault = NULL;

	if (!s[n])
		fault = "this is neither '[section]' nor 'key = value'";
	else if (n == 0)
		fault = "there is no key in front of the '='";
	r->drop_more = fault != NULL;
	if (fault)
		return refuse(r, fault);
	r->after_key = true;
	return LINE_KEY;
}

/* Says what a line is, having refused it (LINE_NOTHING) where it cannot be read. `s` has room for
 * three bytes. */
static enum line_kind classify(struct reader *r, char *s, size_t limit)
{
	char *text = s + strspn(s, BLANKS);
	const char *fault;

	if (!*text || *text == ';' || *text == '#')
		return LINE_NOTHING;
	if (text > s && r->drop_more)
		return LINE_NOTHING;
	r->in_value = text > s && r->after_key;
	fault = find_fault(s, limit);
	if (fault) {
		refuse(r, fault);
		if (*text == '[' && !r->in_value) {
			r->events->section(r->u, r->line, NULL);
			strcpy(s, "[]");
			r->after_key = false;
			return LINE_SECTION;
		}
		r->drop_more = true;
		return LINE_NOTHING;
	}
	if (r->in_value)
		return LINE_MORE;
	if (*text == '[') {
		memmove(s, text, strlen(text) + 1);
		return take_section(r, s);
	}
	return take_key(r, text);
}

/* An ini_reader: like fgets(), a line at a time. */
static char *read_line(char *buf, int size, void *stream)
{
	struct reader *r = stream;
	size_t limit = MIN((size_t)size - 2, (size_t)INI_LINE_LIMIT);
	_cleanup_free_ char *s = NULL;
	const char *nl;
	size_t len;

	if (r->p == r->end)
		return NULL;
	nl = memchr(r->p, '\n', (size_t)(r->end - r->p));
	len = (size_t)((nl ? nl : r->end) - r->p);
	s = xmalloc(len + 3);
	memcpy(s, r->p, len);
	if (len && s[len - 1] == '\r')
		len--;
	s[len] = '\0';
	r->p = nl ? nl + 1 : r->end;
	r->line++;
	r->kind = classify(r, s, limit);
	if (r->kind == LINE_NOTHING)
		s[0] = '\0';
	len = strlen(s);
	memcpy(buf, s, len);
	memcpy(buf + len, "\n", 2);
	return buf;
}

/* An ini_handler. The section is inih's, which knows less than we do. */
static int on_value(void *u, const char *section, const char *name, const char *value)
{
	struct reader *r = u;

	(void)section;
	if (r->kind == LINE_MORE)
		r->events->more(r->u, r->line, value);
	else if (r->kind == LINE_KEY)
		r->events->value(r->u, r->line, name, value);
	else
		return 0;
	return 1;
}

void ini_read(const char *data, size_t len, const struct ini_events *events, void *u)
{
	struct reader r = {.p = data, .end = data + len, .events = events, .u = u};
	const char *nul = memchr(data, '\0', len);
	int bad;

	if (nul) {
		unsigned line = 1;

		for (const char *s = data; s < nul; s++)
			line += *s == '\n';
		events->error(u, line, false, "there is a NUL byte: this is no text file");
		return;
	}
	if (len >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0)
		r.p += 3;
	bad = ini_parse_stream(read_line, &r, on_value, &r);
	if (bad) /* all that we know of was kept from it */
		events->error(
			u, bad > 0 ? (unsigned)bad : r.line, false, "this line cannot be read");
}
