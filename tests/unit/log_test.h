/* What the tests of logs share: a folder on a given file system, a text of which every byte is
 * known by its position, so that one lost, doubled or moved is seen. Include after <cmocka.h>. */
#pragma once

#include "drv_test.h"

#include "base/strbuf.h"
#include "drv/logfile.h"
#include "drv/logpart.h"
#include "drv/logrecord.h"
#include "drv/logrotate.h"

#define K    1024u
#define STEP LOGROTATE_STEP

struct place {
	char *dir, *log; /* owned */
};

/* Line i is "line 000000000i ........\n" of 64 bytes. */
#define LINE 64u

static char byte_at(uint64_t pos)
{
	uint64_t number = pos / LINE;
	unsigned column = (unsigned)(pos % LINE);

	if (column == LINE - 1)
		return '\n';
	if (column < 5)
		return "line "[column];
	if (column >= 17)
		return (char)('a' + (number * 7 + column) % 26);
	for (unsigned i = column; i < 16; i++)
		number /= 10;
	return (char)('0' + number % 10);
}

_unused_ static void append(const char *log, uint64_t pos, size_t n)
{
	_cleanup_close_ int fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	_cleanup_free_ char *buf = xmalloc(n + 1);

	for (size_t i = 0; i < n; i++)
		buf[i] = byte_at(pos + i);
	assert_int_equal(write(fd, buf, n), (ssize_t)n);
}

_unused_ static void check_bytes(const char *buf, size_t n, uint64_t pos)
{
	for (size_t i = 0; i < n; i++)
		if (buf[i] != byte_at(pos + i))
			fail_msg("at position %zu there is not what was written there",
				(size_t)pos + i);
}

/* The log reads as it was written, from `first` to `end`, in one go. */
_unused_ static void check_log(const char *log, uint64_t first, uint64_t end)
{
	struct logreader *r;
	uint64_t from, to, at;
	char buf[50001];
	ssize_t n;

	assert_int_equal(logreader_open(log, &r, NULL), 0);
	logreader_range(r, &from, &to);
	assert_int_equal(from, first);
	assert_int_equal(to, end);
	for (uint64_t pos = first; pos < end; pos += (uint64_t)n) {
		n = logreader_read(r, pos, buf, sizeof(buf), &at);
		assert_true(n > 0);
		assert_int_equal(at, pos);
		check_bytes(buf, (size_t)n, pos);
	}
	assert_int_equal(logreader_read(r, end, buf, sizeof(buf), &at), 0);
	assert_int_equal(at, end);
	logreader_close(r);
}

/* What the files themselves say: parts that meet, the last one meeting the live file, which holds
 * no more than `max` bytes of the disk. */
_unused_ static void check_files(const char *log, uint64_t first, uint64_t max)
{
	_cleanup_free_ struct logpart *parts = NULL;
	ssize_t n = logparts_list(log, &parts);
	struct logrecord rec;
	struct stat st;

	logrecord_read(log, &rec);
	for (ssize_t i = 0; i < n; i++) {
		assert_int_equal(parts[i].first, first);
		first = parts[i].end;
	}
	assert_int_equal(rec.start, first);
	assert_int_equal(rec.collapse, 0);
	assert_int_equal(stat(log, &st), 0);
	assert_true((uint64_t)st.st_blocks * 512 <= max);
}

_unused_ static struct place *place_new(const char *parent)
{
	struct place *p = xcalloc(1, sizeof(*p));

	p->dir = xasprintf("%s/h2ofleet-test-XXXXXX", parent);
	assert_non_null(mkdtemp(p->dir));
	p->log = xasprintf("%s/0.log", p->dir);
	return p;
}

_unused_ static int place_free(void **state)
{
	struct place *p = *state;

	if (!p)
		return 0;
	file_remove_tree(p->dir, NULL);
	free(p->dir);
	free(p->log);
	free(p);
	return 0;
}

/* Where the build is: a disk as a rule, which can cut off; and a tmpfs, which can only punch. */
_unused_ static int on_disk(void **state)
{
	*state = place_new(".");
	return 0;
}

_unused_ static int on_tmpfs(void **state)
{
	*state = access("/dev/shm", W_OK) == 0 ? place_new("/dev/shm") : NULL;
	return 0;
}

#define IN_BOTH(test)                                                                              \
	cmocka_unit_test_setup_teardown(test, on_disk, place_free),                                \
		cmocka_unit_test_setup_teardown(test, on_tmpfs, place_free)

#define NEED_PLACE(p)                                                                              \
	if (!(p))                                                                                  \
	skip()

#define ROTATE(p, ...)                                                                             \
	((struct logrotate){                                                                       \
		.dir = (p)->dir, .max_size = 256 * K, .max_total = 1ull << 40, __VA_ARGS__})
