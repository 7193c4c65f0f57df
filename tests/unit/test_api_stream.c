/* Answers that go on: each follower gets everything once and in order, and none is a burden. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "api_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "api/stream.h"
#include "base/clock.h"
#include "base/strbuf.h"

#define N_FOLLOWERS 64

/* A client that has asked with HTTP/1.0: the body comes as it is, and ends with the connection. */
struct reader {
	int fd;
	struct strbuf all;
	size_t at; /* of the first line that was not looked at yet */
	bool ended;
};

static struct reader reader_open(struct fixture *f, const char *target)
{
	_cleanup_free_ char *text = xasprintf("GET %s HTTP/1.0\r\nHost: x\r\n\r\n", target);
	struct reader r = {.fd = dial(f->socket)};

	send_text(f, r.fd, text, strlen(text));
	return r;
}

static void reader_close(struct reader *r)
{
	if (r->fd >= 0)
		close(r->fd);
	strbuf_free(&r->all);
}

static void take(struct reader *r)
{
	char chunk[65536];
	ssize_t n;

	while (!r->ended && (n = recv(r->fd, chunk, sizeof(chunk), 0)) != -1) {
		strbuf_add(&r->all, chunk, (size_t)n);
		r->ended = n == 0;
	}
}

/* NULL: not there yet. */
static const char *body_of(const struct reader *r)
{
	const char *s = r->all.s ? strstr(r->all.s, "\r\n\r\n") : NULL;

	return s ? s + 4 : NULL;
}

static size_t body_len(const struct reader *r)
{
	const char *s = body_of(r);

	return s ? r->all.len - (size_t)(s - r->all.s) : 0;
}

/* Reads until the body holds `text`. */
static void until_has(struct fixture *f, struct reader *r, const char *text)
{
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS;

	for (take(r); !body_len(r) || !memmem(body_of(r), body_len(r), text, strlen(text));
		take(r)) {
		turn(f, r->fd, POLLIN);
		if (r->ended || clock_monotonic_ms() > end)
			fail_msg("no '%s' in: %s", text, strbuf_str(&r->all));
	}
}

static void until_ended(struct fixture *f, struct reader *r)
{
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS;

	for (take(r); !r->ended; take(r)) {
		turn(f, r->fd, POLLIN);
		assert_true(clock_monotonic_ms() < end);
	}
}

static void until_streams(struct fixture *f, unsigned n)
{
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS;

	while (f->api->n_streams != n) {
		turn(f, -1, 0);
		if (clock_monotonic_ms() > end)
			fail_msg("%u streams, not %u", f->api->n_streams, n);
	}
}

static void add(struct fixture *f, const char *cloud, int n)
{
	while (n-- > 0)
		journal_append(f->fleet->journal,
			json_pack("{s:s, s:s?, s:s}", "type", "test", "cloud", cloud, "message",
				"something happened to somebody, which takes some words to tell"));
}

static json_t *next_record(struct reader *r)
{
	const char *body = body_of(r), *s, *nl;
	json_t *j;

	if (!body)
		return NULL;
	s = body + r->at;
	nl = strchr(s, '\n');
	if (!nl)
		return NULL;
	r->at = (size_t)(nl + 1 - body);
	j = json_loadb(s, (size_t)(nl - s), 0, NULL);
	assert_non_null(j);
	return j;
}

/* Looks at the lines that have come: events numbered from *next on, nothing twice or left out but
 * what a record tells. Returns how many were told to be lost. */
static uint64_t check_lines(struct reader *r, uint64_t *next)
{
	uint64_t lost = 0;
	json_t *j;

	for (; (j = next_record(r)); json_decref(j)) {
		const char *type = json_string_value(json_object_get(j, "type"));
		uint64_t seq = (uint64_t)json_integer_value(json_object_get(j, "seq"));

		if (streq(type, "heartbeat")) {
			assert_int_equal(seq, *next - 1);
		} else if (streq(type, "lost")) {
			assert_int_equal(json_integer_value(json_object_get(j, "from")), *next);
			lost += seq - *next + 1;
			*next = seq + 1;
		} else {
			assert_int_equal(seq, *next);
			*next = seq + 1;
		}
	}
	return lost;
}

/* ---- events ---- */

/* Without `follow` an answer like others: what there is, and the end. */
static void test_events(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *since = NULL;
	struct reply r;

	r = get(f, "GET", "/v1/events");
	assert_int_equal(r.status, 200);
	assert_non_null(strcasestr(r.all, "content-type: application/x-ndjson"));
	reply_free(&r);
	add(f, "dev", 3);
	add(f, "other", 2);
	add(f, NULL, 1);
	for (int i = 0; i < 2; i++) {
		struct reader a = reader_open(f, i ? "/v1/events?cloud=other" : "/v1/events");
		uint64_t next = 1;

		until_ended(f, &a);
		if (i == 0) {
			assert_int_equal(check_lines(&a, &next), 0);
			assert_int_equal(next, 7);
		} else {
			assert_null(strstr(body_of(&a), "\"cloud\":\"dev\""));
			assert_non_null(strstr(body_of(&a), "\"seq\":5,"));
		}
		reader_close(&a);
	}
	since = xasprintf("/v1/events?since=%s:5", journal_epoch(f->fleet->journal));
	r = get(f, "GET", since);
	assert_int_equal(json_integer_value(json_object_get(r.json, "seq")), 0); /* chunked */
	assert_non_null(strstr(r.all, "\"seq\":6,"));
	assert_null(strstr(r.all, "\"seq\":5,"));
	reply_free(&r);
	r = get(f, "HEAD", "/v1/events?follow=yes");
	assert_int_equal(r.status, 200);
	assert_string_equal(r.body, "");
	reply_free(&r);
}

static void test_bad_parameters(void **state)
{
	static const struct {
		const char *target;
		int status;
		const char *type;
	} cases[] = {
		{"/v1/events?since=x", 400, "bad-parameter"},
		{"/v1/events?follow=1", 400, "bad-parameter"},
		{"/v1/events?cloud=dve", 404, "no-such-cloud"},
		{"/v1/events?tail=3", 400, "unknown-parameter"},
		{"/v1/clouds/dev/nodes/0/log?follow=maybe", 400, "bad-parameter"},
		{"/v1/clouds/dev/nodes/0/log?from=-1", 400, "bad-parameter"},
		{"/v1/clouds/dev/nodes/0/log?from=1&tail=5", 400, "bad-parameter"},
		{"/v1/clouds/dev/nodes/3/log?follow=yes", 404, "no-such-node"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct reply r = get(*state, "GET", cases[i].target);

		assert_problem(&r, cases[i].status, cases[i].type);
		reply_free(&r);
	}
}

/* What is there, what comes, and in between a sign of life with the position. */
static void test_follow(void **state)
{
	struct fixture *f = *state;
	struct reader r;
	uint64_t next = 1;

	f->api->heartbeat_ms = 20;
	add(f, "dev", 2);
	r = reader_open(f, "/v1/events?follow=yes");
	until_has(f, &r, "\"seq\":2,");
	until_has(f, &r, "\"seq\":2,\"type\":\"heartbeat\"");
	add(f, "dev", 1);
	until_has(f, &r, "\"seq\":3,\"type\":\"test\"");
	until_has(f, &r, "\"seq\":3,\"type\":\"heartbeat\"");
	assert_int_equal(check_lines(&r, &next), 0);
	assert_int_equal(next, 4);
	reader_close(&r);
	until_streams(f, 0);
}

/* A client that went away is noticed while nothing happens. */
static void test_gone(void **state)
{
	struct fixture *f = *state;
	struct reader r[3];

	for (size_t i = 0; i < ARRAY_SIZE(r); i++)
		r[i] = reader_open(
			f, i ? "/v1/events?follow=yes" : "/v1/clouds/dev/nodes/0/log?follow=yes");
	until_streams(f, 3);
	for (size_t i = 0; i < ARRAY_SIZE(r); i++)
		reader_close(&r[i]);
	until_streams(f, 0);
}

/* Each of many followers sees every event once and in order, whenever it came. */
static void test_many_followers(void **state)
{
	struct fixture *f = *state;
	struct reader *r = xcalloc(N_FOLLOWERS, sizeof(*r));
	uint64_t *next = xcalloc(N_FOLLOWERS, sizeof(*next));
	uint64_t end = clock_monotonic_ms() + 3 * PATIENCE_MS, total;
	bool all;

	add(f, "dev", 700); /* more than is kept in memory */
	for (size_t i = 0; i < N_FOLLOWERS; i++) {
		_cleanup_free_ char *target = xasprintf("/v1/events?follow=yes&since=%zu", 2 * i);

		r[i] = reader_open(f, target);
		next[i] = 2 * i + 1;
		add(f, i % 2 ? "dev" : "other", 3);
		/* Who does not read for a minute is closed; under valgrind this takes longer. */
		for (size_t k = 0; k <= i; k++)
			take(&r[k]);
	}
	total = journal_last(f->fleet->journal);
	assert_int_equal(total, 700 + 3 * N_FOLLOWERS);
	do {
		all = true;
		turn(f, -1, 0);
		for (size_t i = 0; i < N_FOLLOWERS; i++) {
			take(&r[i]);
			assert_int_equal(check_lines(&r[i], &next[i]), 0);
			all &= next[i] == total + 1;
			if (r[i].ended || (clock_monotonic_ms() > end && !all))
				fail_msg("follower %zu %s before event %" PRIu64 " of %" PRIu64, i,
					r[i].ended ? "was closed" : "waits", next[i], total);
		}
	} while (!all);
	assert_int_equal(f->api->n_streams, N_FOLLOWERS);
	for (size_t i = 0; i < N_FOLLOWERS; i++)
		reader_close(&r[i]);
	free(r);
	free(next);
}

/* Followers leave room for commands. */
static void test_too_many(void **state)
{
	struct fixture *f = *state;
	struct reader r[STREAMS_MAX];
	struct reply last;

	for (size_t i = 0; i < STREAMS_MAX; i++)
		r[i] = reader_open(f, "/v1/events?follow=yes");
	until_streams(f, STREAMS_MAX);
	last = get(f, "GET", "/v1/events");
	assert_problem(&last, 503, "too-many-followers");
	reply_free(&last);
	last = get(f, "GET", "/v1/clouds");
	assert_int_equal(last.status, 200);
	reply_free(&last);
	for (size_t i = 0; i < STREAMS_MAX; i++)
		reader_close(&r[i]);
	until_streams(f, 0);
}

/* One that does not read takes no memory however much happens, and holds up nobody. When it reads
 * again it is told what it has missed. */
static void test_stuck_follower(void **state)
{
	struct fixture *f = *state;
	struct reader stuck = reader_open(f, "/v1/events?follow=yes");
	struct reader live = reader_open(f, "/v1/events?follow=yes");
	uint64_t next = 1, live_next = 1, lost = 0, end = clock_monotonic_ms() + 3 * PATIENCE_MS;
	size_t before, after;

	until_streams(f, 2);
	add(f, "dev", 3000);
	before = mallinfo2().uordblks;
	for (int i = 0; i < 500; i++) { /* 3 MB; 1 MB is kept */
		add(f, "dev", 30);
		do {
			turn(f, live.fd, POLLIN);
			take(&live);
			assert_int_equal(check_lines(&live, &live_next), 0);
		} while (live_next != journal_last(f->fleet->journal) + 1);
		strbuf_free(&live.all); /* it shall not count */
		strbuf_puts(&live.all, "\r\n\r\n");
		live.at = 0;
	}
	after = mallinfo2().uordblks;
	if (after > before + 300000)
		fail_msg("%zu bytes more are in use", after - before);
	while (next != journal_last(f->fleet->journal) + 1) {
		turn(f, stuck.fd, POLLIN);
		take(&stuck);
		lost += check_lines(&stuck, &next);
		assert_true(clock_monotonic_ms() < end);
	}
	assert_true(lost > 1000);
	reader_close(&stuck);
	reader_close(&live);
}

/* The daemon ends: followers get what there is, and an end in order. One that does not read gets
 * cut off. */
static void test_end(void **state)
{
	struct fixture *f = *state;
	struct reader stuck = reader_open(f, "/v1/events?follow=yes"), idle;
	int fd = ask(f, "GET", "/v1/events?follow=yes"); /* chunked */
	struct reply r;

	idle = reader_open(f, "/v1/clouds/dev/nodes/0/log?follow=yes");
	until_streams(f, 3);
	add(f, "dev", 4000);
	for (int i = 0; i < 20; i++)
		turn(f, idle.fd, POLLOUT); /* returns at once */
	end_api(f);
	r = take_reply(f, fd);
	assert_int_equal(r.status, 200);
	take(&idle);
	assert_true(idle.ended);
	reply_free(&r);
	reader_close(&stuck);
	reader_close(&idle);
}

/* With little to tell the end is a proper one: the last chunk. */
static void test_clean_end(void **state)
{
	struct fixture *f = *state;
	int fd = ask(f, "GET", "/v1/events?follow=yes"), log;
	struct reply r;

	log = ask(f, "GET", "/v1/clouds/dev/nodes/0/log?follow=yes");
	until_streams(f, 2);
	add(f, "dev", 5);
	end_api(f);
	r = take_reply(f, fd);
	assert_non_null(strstr(r.all, "\"seq\":5,"));
	assert_string_equal(r.all + strlen(r.all) - 7, "\r\n0\r\n\r\n");
	reply_free(&r);
	r = take_reply(f, log);
	assert_string_equal(r.all + strlen(r.all) - 5, "0\r\n\r\n");
	reply_free(&r);
}

/* ---- logs ---- */

static void write_log(struct fixture *f, const char *text, size_t n)
{
	_cleanup_free_ char *path = xasprintf("%s/dev-0.log", f->dir);
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);

	assert_int_equal(write(fd, text, n), n);
	close(fd);
}

static int64_t position(const struct reader *r)
{
	const char *s = strcasestr(r->all.s, "h2ofleet-Log-Position: ");

	return s ? strtoll(s + 23, NULL, 10) : -1;
}

/* The bytes as they are, from the position that the header tells; later ones as they come. */
static void test_log(void **state)
{
	static const char raw[] = "one\ntwo \xff\033[1m\0three\n";
	struct fixture *f = *state;
	struct reader r = reader_open(f, "/v1/clouds/dev/nodes/0/log?follow=yes&tail=1"), late;

	until_streams(f, 1); /* the node has written nothing yet */
	write_log(f, raw, sizeof(raw) - 1);
	until_has(f, &r, "two");
	take(&r);
	assert_int_equal(position(&r), 0);
	assert_int_equal(body_len(&r), sizeof(raw) - 1);
	assert_memory_equal(body_of(&r), raw, sizeof(raw) - 1);
	write_log(f, "four", 4); /* of a line, as it comes */
	late = reader_open(f, "/v1/clouds/dev/nodes/0/log?follow=yes&tail=2");
	until_has(f, &late, "four");
	assert_int_equal(position(&late), 4);
	reader_close(&late);
	late = reader_open(f, "/v1/clouds/dev/nodes/0/log?follow=yes&from=9");
	until_has(f, &late, "four");
	assert_int_equal(position(&late), 9);
	assert_int_equal(body_len(&late), sizeof(raw) - 1 + 4 - 9);
	reader_close(&late);
	late = reader_open(f, "/v1/clouds/dev/nodes/0/log?from=4");
	until_ended(f, &late);
	assert_int_equal(body_len(&late), sizeof(raw) - 1);
	reader_close(&late);
	late = reader_open(f, "/v1/clouds/dev/nodes/0/log?follow=yes&from=1000");
	until_streams(f, 2);
	write_log(f, "five\n", 5);
	until_has(f, &late, "five\n");
	assert_int_equal(position(&late), sizeof(raw) - 1 + 4);
	reader_close(&late);
	reader_close(&r);
}

/* A client that is cut off anywhere and counts its bytes goes on with the very next one. */
static void test_log_reconnects(void **state)
{
	struct fixture *f = *state;
	struct strbuf want = STRBUF_NULL, got = STRBUF_NULL;
	uint64_t rng = 4711, end = clock_monotonic_ms() + PATIENCE_MS;
	unsigned line = 0;

	while (got.len < 2000000) {
		_cleanup_free_ char *target =
			xasprintf("/v1/clouds/dev/nodes/0/log?follow=yes&from=%zu", got.len);
		struct reader r = reader_open(f, target);
		size_t before = want.len, enough = rng_next(&rng) % 100000;

		for (int i = 0; i < 1500; i++)
			strbuf_printf(
				&want, "line %u of the node, and what it has to say\n", line++);
		write_log(f, want.s + before, want.len - before);
		for (take(&r); body_len(&r) <= enough && body_len(&r) < want.len - got.len;
			take(&r)) {
			turn(f, r.fd, POLLIN);
			assert_true(clock_monotonic_ms() < end);
		}
		assert_int_equal(position(&r), got.len);
		strbuf_add(&got, body_of(&r), body_len(&r));
		reader_close(&r);
	}
	assert_memory_equal(got.s, want.s, got.len);
	strbuf_free(&want);
	strbuf_free(&got);
}

/* Somebody cuts the file: the stream ends, and the next one says where it is. */
static void test_log_cut(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *path = xasprintf("%s/dev-0.log", f->dir);
	struct reader r;

	write_log(f, "one\ntwo\n", 8);
	r = reader_open(f, "/v1/clouds/dev/nodes/0/log?follow=yes");
	until_has(f, &r, "two\n");
	assert_int_equal(truncate(path, 4), 0);
	until_ended(f, &r);
	reader_close(&r);
	r = reader_open(f, "/v1/clouds/dev/nodes/0/log?from=8");
	until_ended(f, &r);
	assert_int_equal(position(&r), 4);
	reader_close(&r);
}

/* The cloud was taken out of the configuration. */
static void test_log_of_a_removed_cloud(void **state)
{
	struct fixture *f = *state;
	struct reader r = reader_open(f, "/v1/clouds/other/nodes/0/log?follow=yes");

	until_streams(f, 1);
	f->fleet->n_clouds--;
	until_ended(f, &r);
	f->fleet->n_clouds++;
	reader_close(&r);
}

/* Many that read a long log at once, with time for one of them in each turn: they take turns. And a
 * request in between is not behind them all. */
static void test_readers_share(void **state)
{
	struct fixture *f = *state;
	struct reader r[64];
	_cleanup_free_ char *block = xmalloc(1 << 20);
	uint64_t end = clock_monotonic_ms() + 3 * PATIENCE_MS;
	size_t least, most;
	struct reply v;

	f->api->turn_ns = 0;
	memset(block, 'x', 1 << 20);
	for (int i = 0; i < 16; i++)
		write_log(f, block, 1 << 20);
	for (size_t i = 0; i < ARRAY_SIZE(r); i++)
		r[i] = reader_open(f, "/v1/clouds/dev/nodes/0/log?follow=yes&from=0");
	v = get(f, "GET", "/v1/version");
	assert_int_equal(v.status, 200);
	assert_true(json_is_integer(json_object_get(v.json, "loop_lag_ms")));
	reply_free(&v);
	do { /* until all have some; then nobody has all */
		turn(f, -1, 0);
		least = SIZE_MAX;
		most = 0;
		for (size_t i = 0; i < ARRAY_SIZE(r); i++) {
			take(&r[i]);
			least = MIN(least, body_len(&r[i]));
			most = MAX(most, body_len(&r[i]));
		}
		assert_true(clock_monotonic_ms() < end);
	} while (least < 500000);
	if (most > least + 200000)
		fail_msg("one has %zu bytes, another %zu", least, most);
	for (size_t i = 0; i < ARRAY_SIZE(r); i++)
		reader_close(&r[i]);
}

/* Two descriptors for each follower in one process. */
static void raise_limit(void)
{
	struct rlimit rl;

	getrlimit(RLIMIT_NOFILE, &rl);
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_events),
		TEST(test_bad_parameters),
		TEST(test_follow),
		TEST(test_gone),
		TEST(test_many_followers),
		TEST(test_too_many),
		TEST(test_stuck_follower),
		TEST(test_end),
		TEST(test_clean_end),
		TEST(test_log),
		TEST(test_log_reconnects),
		TEST(test_log_cut),
		TEST(test_log_of_a_removed_cloud),
		TEST(test_readers_share),
	};

	raise_limit();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
