/* Events keep their numbers over the lives of daemons, whatever happens to the files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/file.h"
#include "core/journal.h"

#define MAX_SIZE (64u << 10)

struct place {
	char dir[64];
	char events[80], current[100], old[100], issued[100];
	struct journal *j;
};

static int setup(void **state)
{
	struct place *p = xcalloc(1, sizeof(*p));

	signal(SIGXFSZ, SIG_IGN);
	snprintf(p->dir, sizeof(p->dir), "/tmp/h2ofleet-test-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->events, sizeof(p->events), "%s/events", p->dir);
	snprintf(p->current, sizeof(p->current), "%s/current.ndjson", p->events);
	snprintf(p->old, sizeof(p->old), "%s/old.ndjson", p->events);
	snprintf(p->issued, sizeof(p->issued), "%s/issued", p->events);
	p->j = journal_open(p->events, MAX_SIZE);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	journal_close(p->j);
	assert_int_equal(file_remove_tree(p->dir, NULL), 0);
	free(p);
	return 0;
}

/* As if the daemon were killed and started: nothing is written at the end of a journal. */
static void reopen(struct place *p)
{
	journal_close(p->j);
	p->j = journal_open(p->events, MAX_SIZE);
}

/* The first event of a new epoch expected to be the next of the last one. */
static bool renumbered;

/* Its number is in it. */
static void add(struct place *p, const char *cloud)
{
	json_int_t n = (json_int_t)journal_last(p->j) + 1;

	journal_append(p->j,
		json_pack("{s:s, s:s, s:s?, s:I, s:s}", "time", "2026-11-22T16:00:00.000Z", "type",
			"test", "cloud", cloud, "n", n, "message", "something happened"));
}

static void add_many(struct place *p, int n)
{
	while (n-- > 0)
		add(p, "dev");
}

/* An array of all records from `since` on. Checks that each says where it is, that events are the
 * ones that were added, and that nothing is left out without a word. */
static json_t *read_all(struct journal *j, const char *since, const char *cloud)
{
	struct journal_cursor c = {.cloud = cloud};
	struct strbuf b = STRBUF_NULL;
	json_t *all = json_array();
	json_int_t last = -1;
	bool more = true;

	assert_int_equal(journal_seek(j, since, &c), 0);
	while (more) {
		more = journal_read(j, &c, &b, 1000);
		for (char *s = b.s, *nl; b.len && (nl = strchr(s, '\n')); s = nl + 1) {
			json_t *r = json_loadb(s, (size_t)(nl - s), 0, NULL);
			json_int_t seq = json_integer_value(json_object_get(r, "seq"));
			const char *type = json_string_value(json_object_get(r, "type"));

			assert_non_null(r);
			assert_string_equal(
				json_string_value(json_object_get(r, "epoch")), journal_epoch(j));
			if (streq(type, "test") && (seq != 1 || !renumbered))
				assert_int_equal(json_integer_value(json_object_get(r, "n")), seq);
			if (last >= 0 && !cloud && streq(type, "lost"))
				assert_int_equal(
					json_integer_value(json_object_get(r, "from")), last + 1);
			else if (last >= 0 && !cloud)
				assert_int_equal(seq, last + 1);
			last = seq;
			json_array_append_new(all, r);
		}
		strbuf_reset(&b);
	}
	assert_int_equal(c.next, journal_last(j) + 1);
	strbuf_free(&b);
	return all;
}

static json_int_t number(const json_t *all, size_t i, const char *key)
{
	return json_integer_value(json_object_get(json_array_get(all, i), key));
}

static const char *type_of(const json_t *all, size_t i)
{
	const char *s = json_string_value(json_object_get(json_array_get(all, i), "type"));

	return s ? s : "(none)";
}

/* All from 1 to `last` are there, and nothing else. */
static void assert_whole(struct place *p, json_int_t last)
{
	json_t *all = read_all(p->j, "0", NULL);

	assert_int_equal(json_array_size(all), last);
	json_decref(all);
}

static void append_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : -1;
}

static void set_file_limit(rlim_t max)
{
	struct rlimit rl;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &rl), 0);
	rl.rlim_cur = max == RLIM_INFINITY ? rl.rlim_max : max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &rl), 0);
}

/* ---- tests ---- */

/* Neither a gap nor a repeat, and the epoch stays, over any number of daemons. */
static void test_numbers_go_on(void **state)
{
	struct place *p = *state;
	char epoch[JOURNAL_EPOCH_LEN + 1];

	snprintf(epoch, sizeof(epoch), "%s", journal_epoch(p->j));
	assert_int_equal(strlen(epoch), JOURNAL_EPOCH_LEN);
	for (int life = 0; life < 5; life++) {
		add_many(p, 3);
		reopen(p);
		reopen(p); /* one that did nothing */
		assert_string_equal(journal_epoch(p->j), epoch);
		assert_int_equal(journal_last(p->j), 3 * (life + 1));
	}
	assert_whole(p, 15);
}

static int told;

static void on_event(void *arg)
{
	struct place *p = arg;
	_cleanup_free_ char *text = NULL, *want = NULL;

	want = xasprintf("\"seq\":%" PRIu64 ",", journal_last(p->j));
	assert_int_equal(file_read(p->current, 1 << 20, &text, NULL), 0);
	assert_non_null(strstr(text, want));
	told++;
}

/* Who is told finds it in the file already. */
static void test_written_before_told(void **state)
{
	struct place *p = *state;

	told = 0;
	journal_observe(p->j, on_event, p);
	add_many(p, 4);
	assert_int_equal(told, 4);
}

/* A line that was cut anywhere is no event; its number is given again. */
static void test_torn_last_line(void **state)
{
	struct place *p = *state;
	off_t size;

	add_many(p, 2);
	size = size_of(p->current);
	add(p, "dev");
	for (off_t cut = size_of(p->current) - 1; cut > size; cut -= 7) {
		assert_int_equal(truncate(p->current, cut), 0);
		reopen(p);
		assert_int_equal(size_of(p->current), size);
		assert_int_equal(journal_last(p->j), 2);
		add(p, "dev");
		assert_whole(p, 3);
	}
	assert_int_equal(truncate(p->current, 10), 0); /* not even the first is whole */
	reopen(p);
	add(p, "dev");
	assert_whole(p, 1);
}

/* The two files stay within the bound; what they hold is found across them, from the files as from
 * memory, and what was dropped is told. */
static void test_two_segments(void **state)
{
	struct place *p = *state;
	json_t *all;
	json_int_t first;

	while (size_of(p->old) < 0)
		add(p, "dev");
	assert_whole(p, (json_int_t)journal_last(p->j));
	add_many(p, 2000);
	assert_true(size_of(p->old) + size_of(p->current) <= MAX_SIZE);
	assert_true(size_of(p->old) > MAX_SIZE / 3);
	reopen(p); /* nothing is in memory now */

	all = read_all(p->j, NULL, NULL);
	assert_string_equal(type_of(all, 0), "test"); /* who asks for nothing misses nothing */
	first = number(all, 0, "seq");
	assert_true(first > 1500);
	assert_int_equal(json_array_size(all), journal_last(p->j) - (uint64_t)first + 1);
	json_decref(all);

	all = read_all(p->j, "5", NULL);
	assert_string_equal(type_of(all, 0), "lost");
	assert_int_equal(number(all, 0, "from"), 6);
	assert_int_equal(number(all, 0, "to"), first - 1);
	assert_int_equal(number(all, 0, "seq"), first - 1);
	assert_int_equal(number(all, 1, "seq"), first);
	json_decref(all);

	for (uint64_t seq = (uint64_t)first; seq <= journal_last(p->j); seq += 31) {
		_cleanup_free_ char *since = xasprintf("%" PRIu64, seq);

		all = read_all(p->j, since, NULL);
		assert_int_equal(json_array_size(all), journal_last(p->j) - seq);
		json_decref(all);
	}
}

/* Killed between the two steps of a change of files. */
static void test_killed_while_rotating(void **state)
{
	struct place *p = *state;

	add_many(p, 10);
	assert_int_equal(rename(p->current, p->old), 0);
	reopen(p);
	assert_int_equal(journal_last(p->j), 10);
	add_many(p, 2);
	assert_whole(p, 12);
}

/* Positions of another epoch, or that never were: a record says so, then all there is. */
static void test_since(void **state)
{
	static const char *const bad[] = {"", "x", "-1", "1x", "1:2", ":5", "0123456789abcdef",
		"0123456789abcdef:", "0123456789ABCDEF:1", "0123456789abcdef:1:1",
		"99999999999999999999"};
	struct place *p = *state;
	_cleanup_free_ char *here = xasprintf("%s:3", journal_epoch(p->j));
	const char *const strange[] = {"0123456789abcdef:2", "6"};
	struct journal_cursor c = {0};
	json_t *all;

	add_many(p, 5);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (journal_seek(p->j, bad[i], &c) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
	all = read_all(p->j, here, NULL);
	assert_int_equal(json_array_size(all), 2);
	assert_int_equal(number(all, 0, "seq"), 4);
	json_decref(all);
	for (size_t i = 0; i < ARRAY_SIZE(strange); i++) {
		all = read_all(p->j, strange[i], NULL);
		assert_int_equal(json_array_size(all), 6);
		assert_string_equal(type_of(all, 0), "epoch");
		assert_string_equal(
			json_string_value(json_object_get(json_array_get(all, 0), "asked")),
			strange[i]);
		assert_int_equal(number(all, 1, "seq"), 1);
		json_decref(all);
	}
	all = read_all(p->j, "5", NULL);
	assert_int_equal(json_array_size(all), 0);
	json_decref(all);
}

/* On a full disk numbers go on, live readers have all, and the next daemon gives none of them out
 * again. Later readers are told of the gap. */
static void test_full_disk(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *epoch = NULL;
	json_t *all;

	add_many(p, 10);
	epoch = xstrdup(journal_epoch(p->j));
	set_file_limit((rlim_t)size_of(p->current) + 20); /* a part of a line fits */
	add_many(p, 5);
	assert_whole(p, 15);
	reopen(p);
	add_many(p, 2);
	assert_int_equal(journal_last(p->j), 17);
	set_file_limit(RLIM_INFINITY);
	add_many(p, 3);
	reopen(p);
	assert_string_equal(journal_epoch(p->j), epoch);
	assert_int_equal(journal_last(p->j), 20);
	all = read_all(p->j, "8", NULL);
	assert_int_equal(json_array_size(all), 6);
	assert_int_equal(number(all, 1, "n"), 10);
	assert_string_equal(type_of(all, 2), "lost");
	assert_int_equal(number(all, 2, "from"), 11);
	assert_int_equal(number(all, 2, "to"), 17);
	assert_int_equal(number(all, 3, "n"), 18);
	json_decref(all);
}

/* What is neither in the file nor in memory any more is lost, and that is said. */
static void test_full_for_long(void **state)
{
	struct place *p = *state;
	json_t *all;

	add_many(p, 10);
	set_file_limit((rlim_t)size_of(p->current));
	add_many(p, 2000);
	all = read_all(p->j, "8", NULL);
	assert_int_equal(number(all, 0, "n"), 9);
	assert_string_equal(type_of(all, 2), "lost");
	assert_int_equal(number(all, 2, "from"), 11);
	assert_int_equal(number(all, 3, "n"), number(all, 2, "to") + 1);
	assert_true(json_array_size(all) > 100);
	json_decref(all);
	set_file_limit(RLIM_INFINITY);
}

/* Where not even the last number can be kept, a new epoch begins: no number is given twice. */
static void test_nothing_can_be_written(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *first = xstrdup(journal_epoch(p->j)), *second = NULL;
	struct journal_cursor c = {0};
	struct strbuf b = STRBUF_NULL;

	renumbered = true;
	add_many(p, 10);
	assert_int_equal(journal_seek(p->j, "10", &c), 0);
	set_file_limit(0);
	add_many(p, 3);
	second = xstrdup(journal_epoch(p->j));
	assert_string_not_equal(first, second);
	assert_int_equal(journal_last(p->j), 3);
	assert_false(journal_read(p->j, &c, &b, 10000)); /* a follower is told */
	assert_non_null(strstr(b.s, "\"type\":\"epoch\""));
	assert_non_null(strstr(b.s, first));
	assert_non_null(strstr(b.s, "\"seq\":1,"));
	strbuf_free(&b);
	add_many(p, 2);
	assert_string_equal(journal_epoch(p->j), second); /* not one for each event */
	assert_whole(p, 5);

	set_file_limit(RLIM_INFINITY);
	add_many(p, 2);
	assert_whole(p, 7);
	reopen(p);
	assert_string_equal(journal_epoch(p->j), second);
	assert_int_equal(journal_last(p->j), 7);
	renumbered = false;
}

/* The same, and it dies: the next one goes on with the old epoch, of which nothing was lost. */
static void test_nothing_can_be_written_and_killed(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *first = xstrdup(journal_epoch(p->j));

	add_many(p, 10);
	set_file_limit(0);
	add_many(p, 3);
	reopen(p);
	set_file_limit(RLIM_INFINITY);
	assert_string_equal(journal_epoch(p->j), first);
	add(p, "dev");
	assert_whole(p, 11);
}

/* What cannot be read now may know of numbers that nothing else knows of: none is given twice. */
static void test_unreadable_for_now(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *first = xstrdup(journal_epoch(p->j));
	_cleanup_free_ char *elsewhere = xasprintf("%s/elsewhere", p->dir);

	add_many(p, 10);
	set_file_limit((rlim_t)size_of(p->current));
	add_many(p, 3); /* only `issued` knows */
	set_file_limit(RLIM_INFINITY);
	assert_int_equal(rename(p->issued, elsewhere), 0);
	assert_int_equal(symlink(elsewhere, p->issued), 0);
	reopen(p);
	assert_string_not_equal(journal_epoch(p->j), first);
	add_many(p, 2);
	assert_whole(p, 2);
}

/* A journal that was removed is a new one; one that is something else is kept for people. */
static void test_lost_journal(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *epoch = xstrdup(journal_epoch(p->j));
	_cleanup_free_ char *aside = xasprintf("%s.unusable", p->current);

	add_many(p, 3);
	assert_int_equal(file_remove_tree(p->events, NULL), 0);
	reopen(p);
	assert_string_not_equal(journal_epoch(p->j), epoch);
	add(p, "dev");
	assert_whole(p, 1);

	assert_int_equal(truncate(p->current, 0), 0);
	append_to(p->current, "{\"something\": \"else\"}\nand more\n");
	reopen(p);
	add(p, "dev");
	assert_whole(p, 1);
	assert_int_equal(size_of(aside), 31);
}

/* Somebody removes, cuts or replaces the files under a running daemon. */
static void test_meddling(void **state)
{
	struct place *p = *state;
	json_t *all;

	add_many(p, 5);
	assert_int_equal(truncate(p->current, 0), 0);
	add(p, "dev");
	append_to(p->current, "what is this\n");
	add(p, "dev");
	assert_whole(p, 7); /* from memory */
	assert_int_equal(file_remove_tree(p->events, NULL), 0);
	add_many(p, 600); /* into files that nobody sees, until the next pair */
	reopen(p);
	add_many(p, 3);
	all = read_all(p->j, NULL, NULL);
	assert_int_equal(number(all, json_array_size(all) - 1, "n"), journal_last(p->j));
	json_decref(all);
}

/* Lines of another version, and damaged ones, between ours. */
static void test_other_versions(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *line = NULL;
	json_t *all;

	add_many(p, 2);
	line = xasprintf("{\"epoch\":\"%s\",\"seq\":3,\"type\":\"later\",\"cloud\":null,\"x\":{}}\n"
			 "{\"epoch\":\"%s\",\"seq\":2,\"type\":\"again\"}\n"
			 "{\"epoch\":\"zzzz456789abcdef\",\"seq\":9}\n\n{}\nnoise\n",
		journal_epoch(p->j), journal_epoch(p->j));
	append_to(p->current, line);
	reopen(p);
	add(p, "dev");
	all = read_all(p->j, "0", NULL);
	assert_int_equal(json_array_size(all), 4);
	assert_string_equal(type_of(all, 2), "later");
	assert_non_null(json_object_get(json_array_get(all, 2), "x"));
	assert_int_equal(number(all, 3, "n"), 4);
	json_decref(all);
}

/* One cloud's events, from memory as from the files; the position goes on over the others. */
static void test_one_cloud(void **state)
{
	struct place *p = *state;

	for (int i = 0; i < 1000; i++)
		add(p, i % 100 == 7 ? "rare" : i % 10 == 0 ? NULL : "dev");
	for (int life = 0; life < 2; life++) {
		json_t *all = read_all(p->j, NULL, "rare");
		struct journal_cursor c = {0};

		assert_int_equal(journal_seek(p->j, NULL, &c), 0);
		assert_in_range(json_array_size(all), 1, 10);
		for (size_t i = 0; i < json_array_size(all); i++)
			assert_int_equal(number(all, i, "n") % 100, 8);
		json_decref(all);
		reopen(p);
	}
}

/* One write, one line: what is too long loses its details, not its number. */
static void test_long_event(void **state)
{
	struct place *p = *state;
	_cleanup_free_ char *text = xmalloc(100001);
	json_t *all;

	memset(text, 'x', 100000);
	text[100000] = '\0';
	add(p, "dev");
	journal_append(p->j, json_pack("{s:s, s:s, s:s, s:s}", "type", "long", "cloud", "dev",
				     "message", "short", "log", text));
	add(p, "dev");
	reopen(p);
	all = read_all(p->j, "0", NULL);
	assert_int_equal(json_array_size(all), 3);
	assert_string_equal(type_of(all, 1), "long");
	assert_null(json_object_get(json_array_get(all, 1), "log"));
	assert_true(json_is_true(json_object_get(json_array_get(all, 1), "shortened")));
	json_decref(all);
}

/* A place that cannot be used: all the same, in memory. */
static void test_no_place(void **state)
{
	struct place *p = *state;

	journal_close(p->j);
	p->j = journal_open("/dev/null/events", MAX_SIZE);
	add_many(p, 3);
	assert_whole(p, 3);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_numbers_go_on),
		T(test_written_before_told),
		T(test_torn_last_line),
		T(test_two_segments),
		T(test_killed_while_rotating),
		T(test_since),
		T(test_full_disk),
		T(test_full_for_long),
		T(test_nothing_can_be_written),
		T(test_nothing_can_be_written_and_killed),
		T(test_unreadable_for_now),
		T(test_lost_journal),
		T(test_meddling),
		T(test_other_versions),
		T(test_one_cloud),
		T(test_long_event),
		T(test_no_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
