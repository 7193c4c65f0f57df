/* What nodes write, on its way to a terminal: lines put together from pieces, filtered, put in
 * order, printed; and the daemon's JSON, in which H2O's words are, as tables. No byte of it that a
 * terminal would obey may be left. The first byte says which way. */
#include "fuzz.h"

#include <jansson.h>
#include <time.h>

#include "base/strbuf.h"
#include "base/text.h"
#include "cli/follow.h"
#include "cli/logs.h"
#include "cli/show.h"
#include "cli/show_incident.h"
#include "cli/since.h"
#include "cli/watch.h"

#define NOW UINT64_C(1795300000000)

static void check_text(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *s = xstrndup((const char *)data, n);
	_cleanup_free_ char *shown = text_visible((const char *)data, n);
	_cleanup_free_ char *again = text_visible(shown, strlen(shown));
	_cleanup_free_ char *utf8 = text_utf8(s);
	_cleanup_free_ char *utf8_again = text_utf8(utf8);
	_cleanup_free_ json_t *json = NULL;

	fuzz_check_harmless(shown, strlen(shown));
	fuzz_check_text(!strchr(shown, '\n') && streq(shown, again), shown);
	fuzz_check_text(streq(utf8, utf8_again), utf8);
	json = json_string(utf8);
	fuzz_check_text(json, utf8); /* jansson takes it for UTF-8, too */
	json_decref(TAKE_PTR(json));
	for (size_t lines = 0; lines < 4; lines++) {
		size_t at = text_last_lines((const char *)data, n, lines, false);

		fuzz_check(at <= n && (lines || at == n));
		fuzz_check(at == 0 || at == n || data[at - 1] == '\n');
	}
}

/* --- lines from pieces -------------------------------------------------------------------- */

static void collect(const char *text, size_t len, void *arg)
{
	strbuf_add(arg, text, len);
	strbuf_add(arg, "\n", 1);
}

static void check_pieces(const uint8_t *data, size_t n, size_t step)
{
	_cleanup_(strbuf_free) struct strbuf whole = STRBUF_NULL, pieces = STRBUF_NULL;
	struct lines a = {0}, b = {0};

	lines_add(&a, (const char *)data, n, collect, &whole);
	for (size_t i = 0; i < n; i += step)
		lines_add(&b, (const char *)data + i, MIN(step, n - i), collect, &pieces);
	fuzz_check(a.len == b.len && (!a.len || memcmp(a.part, b.part, a.len) == 0));
	fuzz_check(whole.len == pieces.len &&
		   (!whole.len || memcmp(whole.s, pieces.s, whole.len) == 0));
	fuzz_check(whole.len + a.len == n);
	lines_clear(&a);
	lines_clear(&b);
}

/* --- logs --------------------------------------------------------------------------------- */

struct node {
	struct logs *logs;
	int64_t number;
	struct log_source source;
};

static void take(const char *text, size_t len, void *arg)
{
	struct node *n = arg;
	uint64_t before = n->source.at_ms;

	if (log_take(&n->source, &n->logs->filter, text, len, NOW))
		log_merge_add(&n->logs->merge, n->source.at_ms, n->number, text, len);
	fuzz_check(n->source.at_ms >= before && n->source.at_ms <= NOW + 2 * 86400000);
}

static void check_order(const struct log_merge *m)
{
	for (size_t i = 0; i < m->n; i++)
		fuzz_check(m->items[i].at_ms >= 1 || m->items[i].at_ms == 0);
}

/* Two nodes, and a filter as the second byte says; its first line is the pattern. */
static void show_logs(struct fuzz_input *in)
{
	uint8_t how = fuzz_byte(in);
	_cleanup_(strbuf_free) struct strbuf out = STRBUF_NULL;
	struct cli cli = {.out = strbuf_stream(&out)};
	struct logs l = {.cli = &cli,
		.cloud = (char *)"dev",
		.named = how & 1,
		.lines = 100,
		.filter = LOG_FILTER_NULL};
	_cleanup_free_ char *pattern = fuzz_part(in, NULL);

	l.filter.zone = (struct log_zone){how & 2, 5 * 3600};
	l.filter.level = how & 4 ? LOG_WARN : LOG_NO_LEVEL;
	l.filter.since_ms = how & 8 ? NOW - 3600 * 1000 : 0;
	l.filter.has_pattern = how & 16 && strlen(pattern) < 30 &&
			       regcomp(&l.filter.pattern, pattern, REG_EXTENDED | REG_NOSUB) == 0;
	for (int64_t i = 0; i < 2; i++) {
		struct node node = {&l, i, {0}};
		struct lines part = {0};
		size_t n;
		_cleanup_free_ char *text = fuzz_part(in, &n);

		lines_add(&part, text, n, take, &node);
		if (part.len)
			take(part.part, part.len, &node);
		lines_clear(&part);
	}
	check_order(&l.merge);
	logs_flush(&l, 5);
	fclose(cli.out);
	fuzz_check_harmless(strbuf_str(&out), out.len);
	log_merge_free(&l.merge);
	if (l.filter.has_pattern)
		regfree(&l.filter.pattern);
}

/* --- the daemon's answers ----------------------------------------------------------------- */

static void show_answer(FILE *f, const json_t *j, size_t width)
{
	_cleanup_free_ char *sentence = json_is_object(j) ? show_sentence(j) : NULL;

	status_print(f, j, true, width, false);
	status_print(f, j, false, width, false);
	if (json_is_array(json_object_get(j, "clouds")))
		show_clouds(f, json_object_get(j, "clouds"), width, false);
	if (json_is_array(json_object_get(j, "incidents")))
		show_incidents(f, json_object_get(j, "incidents"), width);
	if (json_is_object(j)) {
		show_nodes(f, j, width, false);
		show_incident(f, j, width, false);
		fprintf(f, "%s\n", sentence);
	}
}

static void show_json(struct fuzz_input *in)
{
	size_t width = 20 + fuzz_byte(in);
	json_auto_t *j = json_loadb((const char *)in->at, in->n, JSON_ALLOW_NUL, NULL);
	_cleanup_(strbuf_free) struct strbuf out = STRBUF_NULL;
	_cleanup_free_ char *frame = NULL;
	FILE *f;

	if (!j)
		return;
	f = strbuf_stream(&out);
	show_answer(f, j, width);
	fclose(f);
	fuzz_check_harmless(strbuf_str(&out), out.len);
	frame = watch_frame(strbuf_str(&out), 24, width);
	fuzz_check(frame);
}

void fuzz_begin(void)
{
	setenv("TZ", "Europe/Berlin", 1);
	tzset();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	switch (fuzz_byte(&in)) {
	case 'l':
		show_logs(&in);
		break;
	case 'j':
		show_json(&in);
		break;
	default:
		check_text(in.at, in.n);
		check_pieces(in.at, in.n, 1 + (size & 7));
	}
	return 0;
}
