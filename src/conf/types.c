#include "conf/types.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>

#include "base/strbuf.h"
#include "base/text.h"
#include "conf/conf.h"
#include "conf/dirs.h"
#include "conf/keys.h"

#define BLANKS        " \t"
#define QUOTE_MAX     60
#define GAP_MAX       100
#define LIST_WORD_MAX 131072 /* the kernel's MAX_ARG_STRLEN */

char *types_quote(const char *s)
{
	size_t n = strlen(s), shown = n;
	_cleanup_free_ char *visible = NULL;

	if (n > QUOTE_MAX) {
		shown = QUOTE_MAX - 3;
		while (shown && ((unsigned char)s[shown] & 0xc0) == 0x80)
			shown--;
	}
	visible = text_visible(s, shown);
	return xasprintf("'%s%s'", visible, shown < n ? "..." : "");
}

/* "'xyz' is not a time such as 10s". */
static int refuse(const struct key *k, const char *s, struct err *e)
{
	_cleanup_free_ char *shown = types_quote(s);

	return err_set(e, -EINVAL, "%s is not %s", shown, k->type->form);
}

/* The words of a key as one sentence's part: "term or rest". Owned by the caller. */
static char *list_words(const struct key *k)
{
	struct strbuf b = STRBUF_NULL;

	for (const struct key_word *w = k->words; w->name; w++)
		strbuf_printf(&b, "%s%s", w == k->words ? "" : w[1].name ? ", " : " or ", w->name);
	return strbuf_take(&b);
}

static int refuse_word(const struct key *k, const char *s, struct err *e)
{
	_cleanup_free_ char *shown = types_quote(s);
	_cleanup_free_ char *all = list_words(k);
	const char *names[KEY_WORDS_MAX];
	const char *near;
	size_t n = 0;

	for (const struct key_word *w = k->words; w->name; w++)
		names[n++] = w->name;
	near = text_nearest(s, names, n);
	if (near)
		return err_set(
			e, -EINVAL, "%s is not one of %s; did you mean '%s'?", shown, all, near);
	return err_set(e, -EINVAL, "%s is not one of %s", shown, all);
}

static const struct key_word *find_word(const struct key *k, const char *s)
{
	for (const struct key_word *w = k->words; w && w->name; w++)
		if (strcasecmp(w->name, s) == 0)
			return w;
	return NULL;
}

static const char *word_of_value(const struct key *k, int64_t value)
{
	for (const struct key_word *w = k->words; w && w->name; w++)
		if (w->value == value)
			return w->name;
	return NULL;
}

/* More bytes in a row than survive being wrapped, of those with which no line begins. */
static bool has_long_gap(const char *s, const char *bytes)
{
	for (; *s; s++)
		if (strspn(s, bytes) > GAP_MAX)
			return true;
	return false;
}

/* What no text may contain, because a file could not hold it. */
static int check_text(const char *s, struct err *e)
{
	_cleanup_free_ char *visible = text_visible(s, strlen(s));
	const char *fault = NULL;

	if (!streq(visible, s))
		fault = "contains control characters or is not UTF-8 text";
	else if (strchr(s, '\\'))
		fault = "contains a backslash";
	else if (strlen(s) >= PATH_MAX)
		fault = "is too long: at most 4095 bytes";
	else if (*s == ';' || *s == '#' || strstr(s, " ;") || strstr(s, " #") || strstr(s, "\t;") ||
		 strstr(s, "\t#"))
		fault = "contains a word that begins with ';' or '#', as comments do";
	else if (*s && (strchr(BLANKS, *s) || strchr(BLANKS, s[strlen(s) - 1])))
		fault = "begins or ends with a blank";
	else if (has_long_gap(s, BLANKS ";#"))
		fault = "contains too many blanks, ';' or '#' in a row";
	if (fault) {
		_cleanup_free_ char *shown = types_quote(s);

		return err_set(e, -EINVAL, "%s %s", shown, fault);
	}
	return 0;
}

/* --- bool --- */

static int parse_bool(const struct key *k, void *field, const char *s, struct err *e)
{
	static const char *const words[] = {"yes", "no", "true", "false", "on", "off", "1", "0"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (strcasecmp(s, words[i]) != 0)
			continue;
		*(bool *)field = i % 2 == 0;
		return 0;
	}
	return refuse(k, s, e);
}

static char *print_bool(const struct key *k _unused_, const void *field)
{
	return xstrdup(*(const bool *)field ? "yes" : "no");
}

/* --- int --- */

static int parse_int(const struct key *k, void *field, const char *s, struct err *e)
{
	const struct key_word *w = find_word(k, s);
	_cleanup_free_ char *shown = types_quote(s);
	int64_t value = 0;
	int r;

	if (w) {
		*(int64_t *)field = w->value;
		return 0;
	}
	r = text_parse_int(s, &value);
	if (r == -EINVAL && k->words) {
		_cleanup_free_ char *all = list_words(k);

		return err_set(e, -EINVAL, "%s is neither a whole number nor %s", shown, all);
	}
	if (r == -EINVAL)
		return refuse(k, s, e);
	if (r < 0 || value < k->min || value > k->max)
		return err_set(e, -ERANGE, "%s is out of range: %" PRId64 " to %" PRId64, shown,
			k->min, k->max);
	if (word_of_value(k, value)) /* a number that only stands for the word */
		return err_set(e, -EINVAL, "%s has no meaning here; write '%s'", shown,
			word_of_value(k, value));
	*(int64_t *)field = value;
	return 0;
}

static char *print_int(const struct key *k, const void *field)
{
	int64_t value = *(const int64_t *)field;
	const char *word = word_of_value(k, value);

	return word ? xstrdup(word) : xasprintf("%" PRId64, value);
}

/* --- one of some words --- */

static int parse_word(const struct key *k, void *field, const char *s, struct err *e)
{
	const struct key_word *w = find_word(k, s);

	if (!w)
		return refuse_word(k, s, e);
	*(int *)field = w->value;
	return 0;
}

static char *print_word(const struct key *k, const void *field)
{
	return xstrdup_null(word_of_value(k, *(const int *)field));
}

static int parse_level(const struct key *k, void *field, const char *s, struct err *e)
{
	const struct key_word *w = find_word(k, s);

	if (!w)
		return refuse_word(k, s, e);
	*(char **)field = xstrdup(w->name);
	return 0;
}

/* --- text and paths --- */

static int parse_text(const struct key *k _unused_, void *field, const char *s, struct err *e)
{
	int r = check_text(s, e);

	if (r == 0)
		*(char **)field = xstrdup(s);
	return r;
}

static char *print_text(const struct key *k _unused_, const void *field)
{
	return xstrdup_null(*(char *const *)field);
}

/* Adds a path, with "~/" made the home directory. */
static int add_path(struct strbuf *b, const char *s, struct err *e)
{
	_cleanup_free_ char *shown = types_quote(s);

	if (has_prefix(s, "~/")) {
		_cleanup_free_ char *home = dirs_home();

		strbuf_printf(b, "%s%s", streq(home, "/") ? "" : home, s + 1);
		return 0;
	}
	if (*s == '"' || *s == '\'')
		return err_set(e, -EINVAL, "%s: write the path without quotes", shown);
	if (*s != '/')
		return err_set(
			e, -EINVAL, "%s is not an absolute path (nor one below '~/')", shown);
	strbuf_puts(b, s);
	return 0;
}

static int parse_path(const struct key *k, void *field, const char *s, struct err *e)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	const struct key_word *w = find_word(k, s);
	int r;

	if (w) {
		*(char **)field = xstrdup(w->name);
		return 0;
	}
	r = add_path(&b, s, e);
	if (r == -EINVAL && k->words && !strchr("/'\"", *s)) {
		_cleanup_free_ char *shown = types_quote(s);
		_cleanup_free_ char *all = list_words(k);

		return err_set(e, r, "%s: an absolute path is wanted, or %s", shown, all);
	}
	if (r == 0)
		r = check_text(strbuf_str(&b), e);
	if (r == 0)
		*(char **)field = strbuf_take(&b);
	return r;
}

static int parse_pathlist(const struct key *k _unused_, void *field, const char *s, struct err *e)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	int r = 0;

	for (;; s++) {
		size_t n = strcspn(s, ":");
		_cleanup_free_ char *part = xstrndup(s, n);

		r = n ? add_path(&b, part, e) : err_set(e, -EINVAL, "there is an empty path");
		s += n;
		if (r < 0 || !*s)
			break;
		strbuf_puts(&b, ":");
	}
	if (r == 0)
		r = check_text(strbuf_str(&b), e);
	if (r == 0)
		*(char **)field = strbuf_take(&b);
	return r;
}

/* --- lists of words --- */

static int check_list_word(const char *s, struct err *e)
{
	_cleanup_free_ char *visible = text_visible(s, strlen(s));
	_cleanup_free_ char *shown = types_quote(s);

	if (!streq(visible, s))
		return err_set(
			e, -EINVAL, "%s contains control characters or is not UTF-8 text", shown);
	if (has_long_gap(s, BLANKS))
		return err_set(e, -EINVAL, "%s contains too many blanks in a row", shown);
	if (strlen(s) >= LIST_WORD_MAX)
		return err_set(e, -ERANGE, "%s is too long", shown);
	return 0;
}

static int parse_list(const struct key *k _unused_, void *field, const char *s, struct err *e)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;

	if (strv_add_words(&words, s) < 0)
		return err_set(e, -EINVAL, "a quote is left open");
	for (size_t i = 0; i < words.n; i++) {
		int r = check_list_word(words.v[i], e);

		if (r < 0)
			return r;
	}
	*(struct strv *)field = words;
	words = STRV_NULL;
	return 0;
}

/* What parse_list() gives back as the same word, and no line reader takes for a comment or for a
 * key. */
static void quote_word(struct strbuf *b, const struct key *k, const char *s)
{
	if (*s && !s[strcspn(s, " \t'\"\\;#")] && *s != '=' && *s != ':' &&
		!keys_begins_line(k->section, s)) {
		strbuf_puts(b, s);
		return;
	}
	strbuf_puts(b, "\"");
	for (; *s; s++) {
		if (strchr("\"\\;#", *s))
			strbuf_puts(b, "\\");
		strbuf_add(b, s, 1);
	}
	strbuf_puts(b, "\"");
}

static char *print_list(const struct key *k, const void *field)
{
	const struct strv *words = field;
	struct strbuf b = STRBUF_NULL;

	if (words->n == 0)
		return NULL;
	for (size_t i = 0; i < words->n; i++) {
		if (i)
			strbuf_puts(&b, " ");
		quote_word(&b, k, words->v[i]);
	}
	return strbuf_take(&b);
}

/* --- times --- */

static int out_of_time(const char *s, int64_t min, int64_t max, struct err *e)
{
	_cleanup_free_ char *shown = types_quote(s);
	_cleanup_free_ char *low = text_format_duration((uint64_t)min);
	_cleanup_free_ char *high = text_format_duration((uint64_t)max);

	return err_set(e, -ERANGE, "%s is out of range: %s to %s", shown, low, high);
}

static int parse_time(const struct key *k, void *field, const char *s, struct err *e)
{
	const struct key_word *word = find_word(k, s);
	uint64_t ms = 0;
	int r = text_parse_duration(s, &ms);

	if (word) {
		*(uint64_t *)field = (uint64_t)word->value;
		return 0;
	}
	if (r == -EINVAL)
		return refuse(k, s, e);
	if (r < 0 || ms < (uint64_t)k->min || ms > (uint64_t)k->max)
		return out_of_time(s, k->min, k->max, e);
	*(uint64_t *)field = ms;
	return 0;
}

static char *print_time(const struct key *k, const void *field)
{
	const char *word = word_of_value(k, *(const int64_t *)field);

	if (word)
		return xstrdup(word);
	return text_format_duration(*(const uint64_t *)field);
}

/* "5 in 10m"; min and max are of the window. */
static int parse_limit(const struct key *k, void *field, const char *s, struct err *e)
{
	_cleanup_free_ char *count_text = xstrndup(s, strcspn(s, BLANKS));
	const char *rest = s + strlen(count_text);
	int64_t count = 0;
	uint64_t window = 0;
	int r;

	rest += strspn(rest, BLANKS);
	if (!has_prefix(rest, "in") || !rest[2] || !strchr(BLANKS, rest[2]))
		return refuse(k, s, e);
	rest += 2;
	rest += strspn(rest, BLANKS);
	r = text_parse_int(count_text, &count);
	if (r == -EINVAL)
		return refuse(k, s, e);
	if (r < 0 || count < 1 || count > LIMIT_COUNT_MAX)
		return err_set(e, -ERANGE, "'%s' is out of range: 1 to %d failures", count_text,
			LIMIT_COUNT_MAX);
	r = text_parse_duration(rest, &window);
	if (r == -EINVAL)
		return refuse(k, s, e);
	if (r < 0 || window < (uint64_t)k->min || window > (uint64_t)k->max)
		return out_of_time(rest, k->min, k->max, e);
	*(struct limit_spec *)field =
		(struct limit_spec){.count = (unsigned)count, .window_ms = window};
	return 0;
}

static char *print_limit(const struct key *k _unused_, const void *field)
{
	const struct limit_spec *l = field;
	_cleanup_free_ char *window = text_format_duration(l->window_ms);

	return xasprintf("%u in %s", l->count, window);
}

/* --- sizes --- */

static int out_of_size(const struct key *k, const char *s, struct err *e)
{
	_cleanup_free_ char *shown = types_quote(s);
	_cleanup_free_ char *low = text_format_size((uint64_t)k->min);
	_cleanup_free_ char *high = text_format_size((uint64_t)k->max);

	return err_set(e, -ERANGE, "%s%s is out of range: %s to %s", shown,
		strspn(s, "0123456789") == strlen(s) ? " (bytes)" : "", low, high);
}

static int parse_size(const struct key *k, void *field, const char *s, struct err *e)
{
	uint64_t bytes = 0;
	int r = text_parse_size(s, &bytes);

	if (r == -EINVAL)
		return refuse(k, s, e);
	if (r < 0 || bytes < (uint64_t)k->min || bytes > (uint64_t)k->max)
		return out_of_size(k, s, e);
	*(uint64_t *)field = bytes;
	return 0;
}

static char *print_size(const struct key *k _unused_, const void *field)
{
	return text_format_size(*(const uint64_t *)field);
}

/* --- memory --- */

/* 1 when `s` is a percentage, 0 when not, or a negative errno. */
static int parse_percent(const char *s, struct mem_spec *m, struct err *e)
{
	size_t n = strlen(s);
	_cleanup_free_ char *number = xstrndup(s, n ? n - 1 : 0);
	_cleanup_free_ char *shown = types_quote(s);
	int64_t value = 0;
	int r;

	if (n < 2 || s[n - 1] != '%')
		return 0;
	r = text_parse_int(number, &value);
	if (r == -EINVAL)
		return 0;
	if (r < 0 || value < 1 || value > 100)
		return err_set(e, -ERANGE, "%s is out of range: 1%% to 100%%", shown);
	*m = (struct mem_spec){.kind = MEM_PERCENT, .value = (uint64_t)value};
	return 1;
}

static int parse_memory(const struct key *k, void *field, const char *s, struct err *e)
{
	const struct key_word *w = find_word(k, s);
	struct mem_spec m = {.kind = MEM_BYTES};
	int r;

	if (w) {
		*(struct mem_spec *)field = (struct mem_spec){.kind = (enum mem_kind)w->value};
		return 0;
	}
	r = parse_percent(s, &m, e);
	if (r < 0)
		return r;
	if (r == 0) {
		r = text_parse_size(s, &m.value);
		if (r == -EINVAL)
			return refuse(k, s, e);
		if (r < 0 || m.value < (uint64_t)k->min || m.value > (uint64_t)k->max)
			return out_of_size(k, s, e);
	}
	*(struct mem_spec *)field = m;
	return 0;
}

static char *print_memory(const struct key *k, const void *field)
{
	const struct mem_spec *m = field;

	if (m->kind == MEM_BYTES)
		return text_format_size(m->value);
	if (m->kind == MEM_PERCENT)
		return xasprintf("%" PRIu64 "%%", m->value);
	return xstrdup_null(word_of_value(k, m->kind));
}

/* "150%": of one CPU. */
static int parse_quota(const struct key *k, void *field, const char *s, struct err *e)
{
	size_t n = strlen(s);
	_cleanup_free_ char *number = xstrndup(s, n - 1);
	_cleanup_free_ char *shown = types_quote(s);
	int64_t value = 0;
	int r = s[n - 1] == '%' ? text_parse_int(number, &value) : -EINVAL;

	if (r == -EINVAL)
		return refuse(k, s, e);
	if (r < 0 || value < k->min || value > k->max)
		return err_set(e, -ERANGE, "%s is out of range: %" PRId64 "%% to %" PRId64 "%%",
			shown, k->min, k->max);
	*(int64_t *)field = value;
	return 0;
}

static char *print_quota(const struct key *k _unused_, const void *field)
{
	int64_t value = *(const int64_t *)field;

	return value ? xasprintf("%" PRId64 "%%", value) : NULL;
}

/* --- ports --- */

static int parse_port(const struct key *k, void *field, const char *s, struct err *e)
{
	size_t n = strlen(s);
	bool exact = s[n - 1] != '+';
	_cleanup_free_ char *number = xstrndup(s, exact ? n : n - 1);
	_cleanup_free_ char *shown = types_quote(s);
	int64_t value = 0;
	int r = text_parse_int(number, &value);

	if (r == -EINVAL || s[0] == '+')
		return refuse(k, s, e);
	if (r < 0 || value < k->min || value > k->max)
		return err_set(e, -ERANGE, "%s is out of range: %" PRId64 " to %" PRId64, shown,
			k->min, k->max);
	*(struct port_spec *)field = (struct port_spec){.port = (uint16_t)value, .exact = exact};
	return 0;
}

static char *print_port(const struct key *k _unused_, const void *field)
{
	const struct port_spec *p = field;

	return p->port ? xasprintf("%u%s", p->port, p->exact ? "" : "+") : NULL;
}

const struct key_type type_bool = {
	"yes or no", "", STORE_PLAIN, sizeof(bool), parse_bool, print_bool};
const struct key_type type_int = {
	"a whole number", "", STORE_PLAIN, sizeof(int64_t), parse_int, print_int};
const struct key_type type_word = {"a word", "", STORE_PLAIN, sizeof(int), parse_word, print_word};
const struct key_type type_level = {
	"a word", "", STORE_STR, sizeof(char *), parse_level, print_text};
const struct key_type type_text = {"a text", "", STORE_STR, sizeof(char *), parse_text, print_text};
const struct key_type type_path = {
	"an absolute path", "", STORE_STR, sizeof(char *), parse_path, print_text};
const struct key_type type_pathlist = {"absolute paths with ':' between them", "", STORE_STR,
	sizeof(char *), parse_pathlist, print_text};
const struct key_type type_list = {
	"words", "", STORE_STRV, sizeof(struct strv), parse_list, print_list};
const struct key_type type_time = {"a time such as 250ms, 10s, 5m or 1h", "ms", STORE_PLAIN,
	sizeof(uint64_t), parse_time, print_time};
const struct key_type type_size = {"a size such as 512k or 4m", "bytes", STORE_PLAIN,
	sizeof(uint64_t), parse_size, print_size};
const struct key_type type_memory = {"a size such as 512m or 4g, nor a percentage such as 50%",
	"bytes", STORE_PLAIN, sizeof(struct mem_spec), parse_memory, print_memory};
const struct key_type type_quota = {"a percentage of one CPU such as 150%", "percent", STORE_PLAIN,
	sizeof(int64_t), parse_quota, print_quota};
const struct key_type type_port = {"a port such as 54321, nor 54321+ for 'from there up'", "",
	STORE_PLAIN, sizeof(struct port_spec), parse_port, print_port};
const struct key_type type_limit = {"a limit such as '5 in 10m'", "ms", STORE_PLAIN,
	sizeof(struct limit_spec), parse_limit, print_limit};
