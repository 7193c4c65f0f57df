/* Logs read by positions: parts and live file as one text, and what readers meet when people or
 * file systems have done something to them. */
#include "cmocka_all.h"

#include <sys/file.h>
#include <zlib.h>
#include <zstd.h>

#include "log_test.h"

static int rotate(const struct logrotate *rq)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r = logrotate_run(rq, &e);

	if (r < 0)
		print_message("%s\n", err_msg(&e));
	return r;
}

/* Proves: a log that does not exist, is empty, was never rotated; reading at and behind its end. */
static void live_file_alone(void **state)
{
	struct place *p = *state;
	struct logreader *r;
	uint64_t first, end, at;
	char buf[100];

	NEED_PLACE(p);
	assert_int_equal(logfile_end(p->log), 0);
	assert_int_equal(logreader_open(p->log, &r, NULL), 0);
	assert_int_equal(logreader_read(r, 0, buf, sizeof(buf), &at), 0);
	append(p->log, 0, 150); /* made after it was opened */
	assert_int_equal(logreader_read(r, 0, buf, sizeof(buf), &at), 100);
	check_bytes(buf, 100, 0);
	assert_int_equal(logreader_read(r, 100, buf, sizeof(buf), &at), 50);
	assert_int_equal(at, 100);
	assert_int_equal(logreader_read(r, 150, buf, sizeof(buf), &at), 0);
	assert_int_equal(logreader_read(r, 151, buf, sizeof(buf), &at), 0);
	assert_int_equal(at, 150); /* before 151: it was never so long */
	logreader_range(r, &first, &end);
	assert_int_equal(first, 0);
	assert_int_equal(end, 150);
	logreader_close(r);
	check_log(p->log, 0, 150);
	assert_int_equal(logfile_end(p->log), 150);
}

static void check_random_reads(const char *log, uint64_t end)
{
	uint64_t seed = 4711, at;
	struct logreader *r;
	char buf[3000];

	assert_int_equal(logreader_open(log, &r, NULL), 0);
	for (unsigned i = 0; i < 300; i++) {
		uint64_t pos = rng_next(&seed) % end;
		ssize_t n = logreader_read(r, pos, buf, 1 + rng_next(&seed) % sizeof(buf), &at);

		assert_true(n > 0);
		assert_int_equal(at, pos);
		check_bytes(buf, (size_t)n, pos);
	}
	logreader_close(r);
}

/* Proves: parts of several pieces, in each compression, and the live file are one text, read in
 * order and at random; a rotation without need does nothing. */
static void parts_and_live_file(void **state)
{
	struct place *p = *state;
	uint64_t end = 3000 * K + 77;

	NEED_PLACE(p);
	for (enum logcodec codec = LOGCODEC_ZSTD; codec <= LOGCODEC_NONE; codec++) {
		struct logrotate rq = ROTATE(p, .max_size = 1200 * K, .codec = codec);
		_cleanup_free_ struct logpart *parts = NULL;

		file_empty_dir(p->dir, NULL);
		append(p->log, 0, end);
		assert_true(logrotate_due(p->log, rq.max_size, 0));
		assert_int_equal(rotate(&rq), 0);
		assert_int_equal(logparts_list(p->log, &parts), 2);
		assert_int_equal(parts[0].codec, codec);
		check_log(p->log, 0, end);
		check_random_reads(p->log, end);
		check_files(p->log, 0, 1200 * K);
		assert_false(logrotate_due(p->log, rq.max_size, 0));
		assert_int_equal(rotate(&rq), 0);
		check_log(p->log, 0, end);
	}
}

static void check_unzstd(const char *data, size_t size, const struct logpart *part)
{
	ZSTD_DStream *d = ZSTD_createDStream();
	ZSTD_inBuffer in = {data, size, 0};
	uint64_t pos = part->first;
	char buf[9999];

	while (in.pos < in.size) {
		ZSTD_outBuffer out = {buf, sizeof(buf), 0};

		assert_false(ZSTD_isError(ZSTD_decompressStream(d, &out, &in)));
		check_bytes(buf, out.pos, pos);
		pos += out.pos;
	}
	assert_int_equal(pos, part->end);
	ZSTD_freeDStream(d);
}

static void check_gunzip(const char *path, const struct logpart *part)
{
	gzFile f = gzopen(path, "re");
	uint64_t pos = part->first;
	char buf[9999];
	int n;

	assert_non_null(f);
	while ((n = gzread(f, buf, sizeof(buf))) > 0) {
		check_bytes(buf, (size_t)n, pos);
		pos += (uint64_t)n;
	}
	assert_int_equal(n, 0);
	assert_int_equal(pos, part->end);
	gzclose(f);
}

/* Proves: the common tools (their libraries) read a part from front to end. */
static void common_tools_read_parts(void **state)
{
	struct place *p = *state;

	for (enum logcodec codec = LOGCODEC_ZSTD; codec <= LOGCODEC_GZIP; codec++) {
		struct logrotate rq = ROTATE(p, .max_size = 1200 * K, .codec = codec);
		_cleanup_free_ struct logpart *parts = NULL;
		_cleanup_free_ char *path = NULL, *data = NULL;
		size_t size;

		file_empty_dir(p->dir, NULL);
		append(p->log, 0, 1300 * K);
		assert_int_equal(rotate(&rq), 0);
		assert_int_equal(logparts_list(p->log, &parts), 1);
		path = logpart_path(p->log, &parts[0]);
		assert_int_equal(file_read(path, 1u << 24, &data, &size), 0);
		if (codec == LOGCODEC_ZSTD)
			check_unzstd(data, size, &parts[0]);
		else
			check_gunzip(path, &parts[0]);
	}
}

/* Proves: a damaged part is an error, not wrong text, and does no harm. */
static void damaged_parts(void **state)
{
	struct place *p = *state;

	for (enum logcodec codec = LOGCODEC_ZSTD; codec <= LOGCODEC_GZIP; codec++) {
		struct logrotate rq = ROTATE(p, .codec = codec);
		_cleanup_free_ struct logpart *parts = NULL;
		_cleanup_free_ char *path = NULL, *data = NULL, *tail = NULL;
		size_t size;

		file_empty_dir(p->dir, NULL);
		append(p->log, 0, 300 * K);
		assert_int_equal(rotate(&rq), 0);
		assert_int_equal(logparts_list(p->log, &parts), 1);
		path = logpart_path(p->log, &parts[0]);
		assert_int_equal(file_read(path, 1u << 24, &data, &size), 0);
		for (size_t i = 0; i < size; i += 1 + size / 97) {
			_cleanup_free_ char *all = xmalloc(300 * K);
			struct logreader *r;
			uint64_t at;
			ssize_t n;

			data[i] = (char)(data[i] ^ 0x55);
			assert_int_equal(file_write_atomic(path, data, size, 0640, false, NULL), 0);
			data[i] = (char)(data[i] ^ 0x55);
			assert_int_equal(logreader_open(p->log, &r, NULL), 0);
			n = logreader_read(r, 0, all, 300 * K, &at);
			if (n > 0) /* where nothing depends on it, a gzip head's time say */
				check_bytes(all, (size_t)n, 0);
			else
				assert_int_equal(n, -EBADMSG);
			logreader_close(r);
		}
		assert_int_equal(file_write_atomic(path, data, size / 2, 0640, false, NULL), 0);
		assert_int_equal(logfile_tail(p->log, 0, 99999, 300 * K, &tail), -EBADMSG);
	}
}

/* Proves: what was removed is skipped, and the reader says where it goes on. */
static void removed_parts(void **state)
{
	struct place *p = *state;
	struct logrotate rq = ROTATE(p);
	_cleanup_free_ struct logpart *parts = NULL;
	_cleanup_free_ char *path = NULL;
	uint64_t first, end, at;
	struct logreader *r;
	char buf[10];

	append(p->log, 0, 1000 * K);
	assert_int_equal(rotate(&rq), 0);
	assert_true(logparts_list(p->log, &parts) >= 3);
	assert_int_equal(logreader_open(p->log, &r, NULL), 0);
	path = logpart_path(p->log, &parts[0]);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(logreader_read(r, 5, buf, sizeof(buf), &at), 10);
	assert_int_equal(at, parts[1].first);
	check_bytes(buf, 10, at);
	logreader_range(r, &first, &end);
	assert_int_equal(first, parts[1].first);
	check_log(p->log, parts[1].first, 1000 * K);
	logreader_close(r);
}

static void check_tail(
	const char *log, uint64_t from, size_t lines, size_t max, const char *expected)
{
	_cleanup_free_ char *tail = NULL;

	assert_int_equal(logfile_tail(log, from, lines, max, &tail), 0);
	assert_string_equal(tail, expected);
}

static void write_text(const char *path, const char *text)
{
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0640, false, NULL), 0);
}

/* Proves: the last lines, whole ones, also without a newline at the end; NUL bytes do no harm. */
static void tail(void **state)
{
	struct place *p = *state;

	check_tail(p->log, 0, 5, 100, "");
	write_text(p->log, "one\ntwo\nthree\nfour");
	check_tail(p->log, 0, 2, 100, "three\nfour");
	check_tail(p->log, 0, 99, 100, "one\ntwo\nthree\nfour");
	check_tail(p->log, 4, 99, 100, "two\nthree\nfour");
	check_tail(p->log, 18, 99, 100, "");
	check_tail(p->log, 1000, 99, 100, "");
	check_tail(p->log, 0, 99, 12, "three\nfour");
	check_tail(p->log, 0, 0, 100, "");
	write_text(p->log, "averylonglinewithoutend");
	check_tail(p->log, 0, 1, 5, "utend");
	assert_int_equal(file_write_atomic(p->log, "a\0b\n", 4, 0640, false, NULL), 0);
	check_tail(p->log, 0, 1, 100, "a b\n");
}

/* Proves: it goes back into the parts for as many lines as are wanted. */
static void tail_of_parts(void **state)
{
	struct place *p = *state;
	struct logrotate rq = ROTATE(p);

	append(p->log, 0, 1000 * K);
	assert_int_equal(rotate(&rq), 0);
	for (size_t lines = 1; lines < 20000; lines = lines * 3 + 1) {
		_cleanup_free_ char *text = NULL;
		size_t want = MIN(lines, (size_t)(1000 * K / LINE)) * LINE;

		assert_int_equal(logfile_tail(p->log, 0, lines, 2000 * K, &text), 0);
		assert_int_equal(strlen(text), want);
		check_bytes(text, want, 1000 * K - want);
	}
}

/* Proves: after `> 0.log` or a removal positions go on from where the file began, and later
 * rotations work. */
static void cut_by_hand(void **state)
{
	struct place *p = *state;
	struct logrotate rq = ROTATE(p);
	struct logrecord rec;

	NEED_PLACE(p);
	append(p->log, 0, 1000 * K);
	assert_int_equal(rotate(&rq), 0);
	logrecord_read(p->log, &rec);
	assert_int_equal(truncate(p->log, 0), 0);
	check_log(p->log, 0, rec.start);
	append(p->log, rec.start, 100);
	check_log(p->log, 0, rec.start + 100);
	assert_int_equal(rotate(&rq), 0);
	append(p->log, rec.start + 100, 2000 * K);
	check_log(p->log, 0, rec.start + 100 + 2000 * K);
	assert_int_equal(rotate(&rq), 0);
	check_log(p->log, 0, rec.start + 100 + 2000 * K);
	assert_int_equal(unlink(p->log), 0);
	logrecord_read(p->log, &rec);
	check_log(p->log, 0, rec.start);
	append(p->log, rec.start, 100);
	check_log(p->log, 0, rec.start + 100);
}

/* Proves: without its record, or with a broken one, the next rotation finds out where things are.
 */
static void lost_record(void **state)
{
	struct place *p = *state;
	struct logrotate rq = ROTATE(p);
	_cleanup_free_ char *record = xasprintf("%s.position", p->log);

	NEED_PLACE(p);
	append(p->log, 0, 1000 * K);
	assert_int_equal(rotate(&rq), 0);
	assert_int_equal(unlink(record), 0);
	assert_int_equal(rotate(&rq), 0);
	check_log(p->log, 0, 1000 * K);
	write_text(record, "base 7\nstart 3\n");
	append(p->log, 1000 * K, 500 * K);
	assert_int_equal(rotate(&rq), 0);
	check_log(p->log, 0, 1500 * K);
	check_files(p->log, 0, 320 * K);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_BOTH(live_file_alone),
		IN_BOTH(parts_and_live_file),
		cmocka_unit_test_setup_teardown(common_tools_read_parts, on_disk, place_free),
		cmocka_unit_test_setup_teardown(damaged_parts, on_disk, place_free),
		cmocka_unit_test_setup_teardown(removed_parts, on_disk, place_free),
		cmocka_unit_test_setup_teardown(tail, on_disk, place_free),
		cmocka_unit_test_setup_teardown(tail_of_parts, on_disk, place_free),
		IN_BOTH(cut_by_hand),
		IN_BOTH(lost_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
