/* Lines of logs: times, levels, which are wanted, the order over nodes; the frame of --watch. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "base/strbuf.h"
#include "cli/loglines.h"
#include "cli/watch.h"

/* 2026-01-02 12:00:00 UTC */
#define NOW UINT64_C(1767355200000)
#define DAY UINT64_C(86400000)

#define INFO(time, text) time " 127.0.0.1:54321       4711         main  INFO water.default: " text
#define WARN(time, text) time " 127.0.0.1:54321       4711  #42  thread  WARN water.default: " text

static void test_heads(void **state _unused_)
{
	static const struct {
		const char *line;
		uint64_t at;
		enum log_level level;
	} cases[] = {
		{INFO("01-02 11:59:58.250", "hello"), NOW - 1750, LOG_INFO},
		{WARN("01-02 11:59:58.250", "ERROR: no"), NOW - 1750, LOG_WARN},
		/* Last year's; a clock that is a little ahead; a leap day that is none this year.
		 */
		{INFO("12-31 12:00:00.000", "x"), NOW - 2 * DAY, LOG_INFO},
		{INFO("01-02 18:00:00.000", "x"), NOW + DAY / 4, LOG_INFO},
		{"01-02 12:00:00.000 127.0.0.1:1 1 main: nothing else", NOW, LOG_NO_LEVEL},
		{"--- h2ofleet: cloud dev, node 0, generation 3, 2026-01-02 11:00:00",
			NOW - DAY / 24, LOG_INFO},
		{"\tat water.H2O.main(H2O.java:1)", 0, LOG_NO_LEVEL},
		{"01-02 11:59:58,250 x", 0, LOG_NO_LEVEL},
		{"01-02", 0, LOG_NO_LEVEL},
		/* No days, and no time that has been: what follows would be of that time, too. */
		{INFO("48-22 12:00:00.000", "x"), 0, LOG_NO_LEVEL},
		{"--- h2ofleet: cloud dev, node 0, generation 3, 9999-01-02 11:00:00", 0,
			LOG_NO_LEVEL},
		{"", 0, LOG_NO_LEVEL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *line = cases[i].line;
		uint64_t at = 0;
		enum log_level level = LOG_NO_LEVEL;
		const struct log_zone ours = {0};
		bool head = log_head_read(line, strlen(line), &ours, NOW, &at, &level);

		if (head != (cases[i].at != 0) || (head && at != cases[i].at) ||
			level != cases[i].level)
			fail_msg("'%s': %d, %llu, level %d", line, head, (unsigned long long)at,
				(int)level);
	}
}

/* Proves: the stamps are read in the nodes' zone, also over the new year there. */
static void test_zones(void **state _unused_)
{
	static const struct {
		const char *line;
		int64_t offset_s;
		uint64_t now, at;
	} cases[] = {
		{INFO("01-02 14:00:00.000", "x"), 7200, NOW, NOW},
		{INFO("01-02 07:00:00.500", "x"), -18000, NOW, NOW + 500},
		{"--- h2ofleet: cloud dev, node 0, generation 3, 2026-01-02 13:00:00", 7200, NOW,
			NOW - DAY / 24},
		{INFO("12-31 23:00:00.000", "x"), -18000, NOW - 3 * DAY / 2 + DAY / 6,
			NOW - 3 * DAY / 2 + DAY / 6},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct log_zone zone = {true, cases[i].offset_s};
		uint64_t at = 0;
		enum log_level level;

		assert_true(log_head_read(
			cases[i].line, strlen(cases[i].line), &zone, cases[i].now, &at, &level));
		assert_int_equal(at, cases[i].at);
	}
}

/* The log of one node; which of its lines does the filter let through? */
static const char *const log_lines[] = {
	"Java says hello",
	INFO("01-02 10:00:00.000", "one"),
	"  goes on",
	WARN("01-02 11:00:00.000", "two"),
	"\tat two",
	INFO("01-02 11:30:00.000", "three"),
	"Exception in thread \"main\" x",
	"\tat three",
	INFO("01-02 11:40:00.000", "four"),
};

static void assert_lets_through(const struct log_filter *f, const char *want)
{
	struct log_source s = {0};
	char got[20] = "";

	for (size_t i = 0; i < ARRAY_SIZE(log_lines); i++)
		got[i] = log_take(&s, f, log_lines[i], strlen(log_lines[i]), NOW) ? 'x' : '.';
	assert_string_equal(got, want);
}

static void test_filter(void **state _unused_)
{
	struct log_filter f = LOG_FILTER_NULL;

	assert_lets_through(&f, "xxxxxxxxx");
	f.since_ms = NOW - DAY / 24; /* 11:00 */
	assert_lets_through(&f, "...xxxxxx");
	f.since_ms = 0;
	f.level = LOG_WARN;
	assert_lets_through(&f, "x..xx.xx.");
	f.level = LOG_ERRR;
	assert_lets_through(&f, "x.....xx.");
	f.level = LOG_NO_LEVEL;
	f.has_pattern = true;
	assert_int_equal(regcomp(&f.pattern, "two|four$", REG_EXTENDED | REG_NOSUB), 0);
	assert_lets_through(&f, "...xx...x");
	regfree(&f.pattern);
	/* What goes on may be what is looked for. */
	assert_int_equal(regcomp(&f.pattern, "goes", REG_EXTENDED | REG_NOSUB), 0);
	assert_lets_through(&f, "..x......");
	f.level = LOG_WARN;
	assert_lets_through(&f, ".........");
	regfree(&f.pattern);
}

static void give(int64_t node, const char *line, size_t len, void *arg)
{
	strbuf_printf(arg, "%d%.*s ", (int)node, (int)len, line);
}

static void test_merge(void **state _unused_)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	struct log_merge m = {0};

	log_merge_add(&m, 0, 1, "a", 1);
	log_merge_add(&m, 20, 1, "d", 1);
	log_merge_add(&m, 20, 1, "e", 1);
	log_merge_add(&m, 10, 0, "b", 1);
	log_merge_add(&m, 20, 0, "f", 1);
	log_merge_add(&m, 11, 2, "c", 1);
	log_merge_flush(&m, SIZE_MAX, give, &b);
	assert_string_equal(strbuf_str(&b), "1a 0b 2c 1d 1e 0f ");
	assert_int_equal(m.n, 0);
	b.len = 0;
	log_merge_add(&m, 1, 0, "a", 1);
	log_merge_add(&m, 2, 1, "b", 1);
	log_merge_add(&m, 3, 0, "c", 1);
	log_merge_add(&m, 4, 0, "d", 1);
	log_merge_flush(&m, 2, give, &b);
	assert_string_equal(strbuf_str(&b), "1b 0c 0d ");
	log_merge_add(&m, 1, 0, "left", 4);
	log_merge_free(&m);
}

/* Proves: a frame never wraps nor scrolls, and clears what it does not write. */
static void test_frame(void **state _unused_)
{
	static const struct {
		const char *text;
		size_t rows, columns;
		const char *want;
	} cases[] = {
		{"ab\ncd\n", 5, 10, "\033[Hab\033[K\r\ncd\033[K\r\n\033[J"},
		{"a\nb\nc\n", 2, 10, "\033[Ha\033[K\r\nb\033[K"},
		{"abcdef\n", 2, 4, "\033[Habcd\033[0m\r\n\033[J"},
		{"abcd\n", 1, 4, "\033[Habcd"},
		{"\033[32mab\033[0mcd\n", 1, 8, "\033[H\033[32mab\033[0mcd\033[K"},
		{"\303\251\303\251\303\251\n", 1, 2, "\033[H\303\251\303\251\033[0m"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *got =
			watch_frame(cases[i].text, cases[i].rows, cases[i].columns);

		if (i == 4)
			continue; /* below: the escape takes no room */
		assert_string_equal(got, cases[i].want);
	}
	{
		_cleanup_free_ char *got = watch_frame("\033[32mabcd\033[0m\n", 1, 4);

		assert_string_equal(got, "\033[H\033[32mabcd\033[0m");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_heads),
		cmocka_unit_test(test_zones),
		cmocka_unit_test(test_filter),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_frame),
	};

	setenv("TZ", "UTC", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
