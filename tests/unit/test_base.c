/* base/: text, words, files, errors. */
#include "cmocka_all.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/err.h"
#include "base/file.h"
#include "base/strbuf.h"
#include "base/strv.h"
#include "base/log.h"
#include "base/text.h"
#include "mounted.h"

struct dir {
	char path[64];
};

static int set_up(void **state)
{
	struct dir *d = xcalloc(1, sizeof(*d));

	snprintf(d->path, sizeof(d->path), "/tmp/h2ofleet-base.XXXXXX");
	assert_non_null(mkdtemp(d->path));
	*state = d;
	return 0;
}

static int tear_down(void **state)
{
	struct dir *d = *state;

	assert_int_equal(file_remove_tree(d->path, NULL), 0);
	assert_int_equal(access(d->path, F_OK), -1);
	free(d);
	return 0;
}

static char *in(const struct dir *d, const char *name)
{
	return xasprintf("%s/%s", d->path, name);
}

static void write_text(const char *path, const char *text)
{
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0640, false, NULL), 0);
}

/* Proves: sizes and times are read with their units, exactly, and nothing else is. */
static void test_sizes_and_times(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t value;
	} sizes[] = {{"0", 0, 0}, {"512m", 0, 512ull << 20}, {"4G", 0, 4ull << 30},
		{"1t", 0, 1ull << 40}, {"300k", 0, 300 << 10}, {"77", 0, 77}, {"", -EINVAL, 0},
		{"m", -EINVAL, 0}, {"-1m", -EINVAL, 0}, {"1.5g", -EINVAL, 0}, {"1 g", -EINVAL, 0},
		{"1gb", -EINVAL, 0}, {"99999999999999999999", -ERANGE, 0},
		{"99999999999999g", -ERANGE, 0}},
	  times[] = {{"0", 0, 0}, {"250ms", 0, 250}, {"10s", 0, 10000}, {"5m", 0, 300000},
		  {"1h", 0, 3600000}, {"2d", 0, 172800000}, {"10", -EINVAL, 0}, {"s", -EINVAL, 0},
		  {"1y", -EINVAL, 0}, {"-5s", -EINVAL, 0}, {"999999999999999999d", -ERANGE, 0}};
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(text_parse_size(sizes[i].text, &v), sizes[i].r);
		assert_true(sizes[i].r < 0 || v == sizes[i].value);
	}
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		assert_int_equal(text_parse_duration(times[i].text, &v), times[i].r);
		assert_true(times[i].r < 0 || v == times[i].value);
	}
}

/* Proves: what is printed for a configuration reads back to the same value. */
static void test_formats_read_back(void **state)
{
	static const uint64_t values[] = {0, 1, 999, 1000, 1024, 1500, 60000, 90000, 3600000,
		1ull << 20, (1ull << 30) + 1, 5ull << 40};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		_cleanup_free_ char *size = text_format_size(values[i]);
		_cleanup_free_ char *time = text_format_duration(values[i]);
		uint64_t back;

		assert_int_equal(text_parse_size(size, &back), 0);
		assert_true(back == values[i]);
		assert_int_equal(text_parse_duration(time, &back), 0);
		assert_true(back == values[i]);
	}
}

static void check_int(const char *text, int r, int64_t value)
{
	int64_t v = 0;

	assert_int_equal(text_parse_int(text, &v), r);
	assert_true(r < 0 || v == value);
}

/* Proves: sizes for people have their unit, in the right number. */
static void test_human_sizes(_unused_ void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} sizes[] = {{0, "0 bytes"}, {1, "1 byte"}, {2, "2 bytes"}, {1536, "1.5 kB"},
		{20ull << 30, "20 GB"}};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_free_ char *text = text_human_size(sizes[i].bytes);

		assert_string_equal(text, sizes[i].text);
	}
}

static void test_ints(void **state)
{
	(void)state;
	check_int("-1", 0, -1);
	check_int("+7", 0, 7);
	check_int("", -EINVAL, 0);
	check_int("-", -EINVAL, 0);
	check_int("7x", -EINVAL, 0);
	check_int(" 7", -EINVAL, 0);
	check_int("99999999999999999999", -ERANGE, 0);
}

/* Proves: slips of the finger are understood, other words are not guessed at. */
static void test_nearest(void **state)
{
	static const char *const names[] = {"nodes", "nthreads", "max_mem_size", "min_mem_size"};

	(void)state;
	assert_string_equal(text_nearest("node", names, 4), "nodes");
	assert_string_equal(text_nearest("ndoes", names, 4), "nodes");
	assert_string_equal(text_nearest("MAX_MEM", names, 4), "max_mem_size");
	assert_null(text_nearest("password", names, 4));
	assert_string_equal(
		text_nearest("stat", (const char *const[]){"start", "status"}, 2), "status");
	assert_null(text_nearest("", names, 0));
}

/* Proves: nothing that a terminal obeys survives; what people read does. */
static void test_visible(void **state)
{
	static const char *const samples[][2] = {{"plain \t text", "plain \t text"},
		{"two\nlines", "two\\nlines"}, {"\x1b[2Jgone", "\\x1b[2Jgone"},
		{"bell\a del\x7f", "bell\\x07 del\\x7f"},
		{"\xc3\xbc\xe2\x82\xac", "\xc3\xbc\xe2\x82\xac"}, {"\xc2\x9b[2J", "\\xc2\\x9b[2J"},
		{"\xff\xc3", "\\xff\\xc3"}, {"\xe0\x80\x80", "\\xe0\\x80\\x80"},
		{"\xed\xa0\x80", "\\xed\\xa0\\x80"}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		_cleanup_free_ char *v = text_visible(samples[i][0], strlen(samples[i][0]));

		assert_string_equal(v, samples[i][1]);
	}
}

/* Proves: words split as in a shell, and an open quote changes nothing. */
static void test_words(void **state)
{
	_cleanup_(strv_free) struct strv l = STRV_NULL;

	(void)state;
	assert_int_equal(strv_add_words(&l, "  -a 'b c' \"d \\\" e\" f\\ g h''i \t"), 0);
	assert_int_equal(l.n, 5);
	assert_string_equal(l.v[1], "b c");
	assert_string_equal(l.v[2], "d \" e");
	assert_string_equal(l.v[3], "f g");
	assert_string_equal(l.v[4], "hi");
	assert_int_equal(strv_add_words(&l, "more 'and open"), -EINVAL);
	assert_int_equal(l.n, 5);
	assert_null(l.v[5]);
}

/* Memory that lacks: libc's functions under these names, unless told to fail. */
static bool no_stream, no_growth;

FILE *fopencookie(void *restrict cookie, const char *restrict mode, cookie_io_functions_t io)
{
	__typeof__(fopencookie) *next = (__typeof__(next))dlsym(RTLD_NEXT, "fopencookie");

	return no_stream ? NULL : next(cookie, mode, io);
}

void *reallocarray(void *p, size_t n, size_t size)
{
	__typeof__(reallocarray) *next = (__typeof__(next))dlsym(RTLD_NEXT, "reallocarray");

	return no_growth ? NULL : next(p, n, size);
}

/* Proves: what is printed comes behind what is there, whole and in order, however much it is. */
static void test_stream(_unused_ void **state)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	FILE *f;

	strbuf_puts(&b, "first");
	f = strbuf_stream(&b);
	fprintf(f, ", then %d", 2);
	fflush(f);
	assert_string_equal(strbuf_str(&b), "first, then 2");
	for (int i = 0; i < 100000; i++)
		fprintf(f, "%9d\n", i);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(b.len, strlen("first, then 2") + 100000 * 10);
	assert_string_equal(b.s + b.len - 20, "    99998\n    99999\n");
}

/* What a child says on stderr that prints a lot, and how it ends. */
static int print_without_memory(bool stream, bool growth, struct strbuf *said)
{
	int status, ends[2];
	char part[256];
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct strbuf b = STRBUF_NULL;
		FILE *f;

		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		signal(SIGABRT, SIG_DFL); /* cmocka's would go on with the next test */
		dup2(ends[1], STDERR_FILENO);
		no_stream = stream;
		f = strbuf_stream(&b);
		no_growth = growth;
		fprintf(f, "%100000d", 1);
		fclose(f);
		_exit(0);
	}
	close(ends[1]);
	while ((n = read(ends[0], part, sizeof(part))) > 0)
		strbuf_add(said, part, (size_t)n);
	close(ends[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* Proves: where memory lacks the process ends with a message; it neither writes to no stream nor
 * goes on with a part of the text, which could be a configuration. */
static void test_stream_without_memory(_unused_ void **state)
{
	for (int i = 0; i < 2; i++) {
		_cleanup_(strbuf_free) struct strbuf said = STRBUF_NULL;
		int status = print_without_memory(i == 0, i == 1, &said);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
		assert_true(has_prefix(strbuf_str(&said), "out of memory"));
	}
}

/* Proves: context is put in front, and quoting the old sentence in the new one is safe. */
static void test_errors(void **state)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	(void)state;
	assert_int_equal(err_set_errno(&e, -ENOENT, "cannot open %s", "x"), -ENOENT);
	assert_int_equal(err_wrap(&e, "cloud %s", "dev"), -ENOENT);
	assert_string_equal(err_msg(&e), "cloud dev: cannot open x: No such file or directory");
	err_set(&e, -EIO, "again: %s", err_msg(&e));
	assert_string_equal(
		err_msg(&e), "again: cloud dev: cannot open x: No such file or directory");
	assert_int_equal(err_set(NULL, -EIO, "nobody listens"), -EIO);
}

/* Proves: a reader sees the old or the new file; a failed write leaves the old one and no litter.
 */
static void test_write_atomic(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *path = in(d, "f"), *new = in(d, "f.new"), *data = NULL;
	size_t len;

	write_text(path, "one");
	assert_int_equal(file_write_atomic(path, "two!", 4, 0640, true, NULL), 0);
	assert_int_equal(file_read(path, 100, &data, &len), 0);
	assert_int_equal(len, 4);
	assert_string_equal(data, "two!");
	assert_int_equal(mkdir(new, 0700), 0); /* in the way */
	assert_true(file_write_atomic(path, "3", 1, 0640, false, NULL) < 0);
	free(data);
	assert_int_equal(file_read(path, 100, &data, NULL), 0);
	assert_string_equal(data, "two!");
	free(data);
	data = NULL;
	assert_int_equal(file_read(path, 3, &data, NULL), -EFBIG);
}

#define MANY 64

/* Takes all descriptors but `left`; give_descriptors() gives them back. */
static size_t take_descriptors(int held[MANY], size_t left, struct rlimit *saved)
{
	struct rlimit few;
	size_t n = 0;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, saved), 0);
	few = (struct rlimit){MANY, saved->rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	while (n < MANY && (held[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
		n++;
	assert_true(n > left);
	for (; n && left; left--)
		close(held[--n]);
	return n;
}

static void give_descriptors(const int *held, size_t n, const struct rlimit *saved)
{
	while (n)
		close(held[--n]);
	setrlimit(RLIMIT_NOFILE, saved);
}

/* Proves: whatever of the descriptors is missing, a durable write or removal that says that it
 * failed has changed nothing. */
static void test_durable_without_descriptors(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *path = NULL, *new = NULL, *data = NULL;
	int held[MANY], written[3], removed[2];
	struct rlimit saved;

	if (getenv("H2OFLEET_VALGRIND"))
		skip(); /* it has a few of its own beyond the limit */
	path = in(d, "f");
	new = in(d, "f.new");
	write_text(path, "one");
	for (size_t left = 0; left < ARRAY_SIZE(written); left++) {
		size_t n = take_descriptors(held, left, &saved);

		written[left] = file_write_atomic(path, "two", 3, 0640, true, NULL);
		give_descriptors(held, n, &saved);
		free(TAKE_PTR(data));
		assert_int_equal(file_read(path, 100, &data, NULL), 0);
		assert_string_equal(data, written[left] < 0 ? "one" : "two");
		assert_int_equal(access(new, F_OK), -1);
	}
	assert_int_equal(written[0], -EMFILE);
	assert_int_equal(written[1], -EMFILE);
	assert_int_equal(written[2], 0);
	for (size_t left = 0; left < ARRAY_SIZE(removed); left++) {
		size_t n = take_descriptors(held, left, &saved);

		removed[left] = file_remove_durable(path);
		give_descriptors(held, n, &saved);
		assert_int_equal(access(path, F_OK), removed[left] < 0 ? 0 : -1);
	}
	assert_int_equal(removed[0], -EMFILE);
	assert_int_equal(removed[1], 0);
	assert_int_equal(file_remove_durable(path), 0); /* there is none */
}

/* Proves: what somebody has put in the place of the file that is written first is never written to,
 * nor waited for: not another name of a file that is not ours, not a pipe that nobody else has
 * open. */
static void test_write_into_nothing(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *path = in(d, "f"), *new = in(d, "f.new"), *kept = in(d, "kept");
	_cleanup_free_ char *data = NULL, *same = NULL;
	struct stat st;

	write_text(kept, "kept");
	assert_int_equal(link(kept, new), 0);
	write_text(path, "one");
	assert_int_equal(mkfifo(new, 0600), 0);
	alarm(20); /* instead of waiting for ever */
	assert_int_equal(file_read(new, 100, &data, NULL), -EINVAL);
	write_text(path, "two");
	alarm(0);
	assert_int_equal(file_read(kept, 100, &data, NULL), 0);
	assert_string_equal(data, "kept");
	assert_true(lstat(path, &st) == 0 && S_ISREG(st.st_mode));
	assert_int_equal(file_read(path, 100, &same, NULL), 0);
	assert_string_equal(same, "two");
}

/* Proves: a pipe in /dev/shm, where a state directory may be, is not waited for; one that a shell
 * has given is read. */
static void test_pipes_below_dev(_unused_ void **state)
{
	_cleanup_free_ char *pipe = xasprintf("/dev/shm/h2ofleet-base.%d", (int)getpid());
	_cleanup_free_ char *data = NULL, *given = NULL;
	int ends[2], r;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	given = xasprintf("/dev/fd/%d", ends[0]);
	assert_int_equal(write(ends[1], "x", 1), 1);
	close(ends[1]);
	assert_int_equal(file_read(given, 100, &data, NULL), 0);
	assert_string_equal(data, "x");
	close(ends[0]);
	if (mkfifo(pipe, 0600) < 0)
		skip(); /* no /dev/shm */
	alarm(20);      /* instead of waiting for ever */
	free(TAKE_PTR(data));
	r = file_read(pipe, 100, &data, NULL);
	alarm(0);
	unlink(pipe);
	assert_int_equal(r, -EINVAL);
}

static bool is_safe(const char *path, const char *word)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r = file_check_way(path, &e);

	assert_true(r == 0 || r == -EPERM || r == -ELOOP);
	if (r < 0)
		assert_non_null(strstr(err_msg(&e), word));
	return r == 0;
}

/* Proves: what is ours is safe, also in a directory of everybody's, through links, and before it is
 * there; links that lead nowhere end. */
static void test_check_way(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *open = in(d, "open"), *below = in(d, "open/a/b"),
			    *link = in(d, "link");
	_cleanup_free_ char *through = in(d, "link/a"), *rel = in(d, "rel"), *loop = in(d, "loop");
	_cleanup_free_ char *none = in(d, "none/x/y");

	assert_int_equal(file_mkdirs(below, 0700, NULL), 0);
	assert_int_equal(symlink(open, link), 0);
	assert_int_equal(symlink("./open//a/", rel), 0);
	assert_int_equal(symlink("loop", loop), 0);
	assert_true(is_safe(below, "") && is_safe(through, "") && is_safe(rel, ""));
	assert_true(is_safe(none, "") && is_safe("/", "") && is_safe("/tmp//", ""));
	assert_false(is_safe(loop, "cannot use"));
	assert_int_equal(chmod(open, 01777), 0);
	assert_true(is_safe(below, "") && is_safe(through, "") && is_safe(rel, ""));
}

/* Proves: in a sticky directory of everybody's, what another user has made there is not ours to
 * use: no directory, no link, however well both look. */
static void test_check_way_of_others(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *open = in(d, "open"), *their = in(d, "open/a"),
			    *link = in(d, "open/l");
	_cleanup_free_ char *below = in(d, "open/a/b"), *through = in(d, "open/l/x");

	if (geteuid() != 0)
		skip(); /* gives files away */
	assert_int_equal(file_mkdirs(their, 0755, NULL), 0);
	assert_int_equal(symlink(d->path, link), 0);
	assert_int_equal(chmod(open, 01777), 0);
	assert_true(is_safe(below, "") && is_safe(through, ""));
	assert_int_equal(chown(their, 64332, 64332), 0);
	assert_int_equal(lchown(link, 64332, 64332), 0);
	assert_false(is_safe(their, "is user 64332's"));
	assert_false(is_safe(below, "is user 64332's"));
	assert_false(is_safe(through, "is user 64332's"));
}

/* Proves: a directory of our own is made; one that is there is taken only when it is root's or
 * ours, and is shut to everybody but its group. */
static void test_own_dir(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *path = in(d, "own/a");
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct stat st;

	assert_int_equal(file_own_dir(path, 0750, &e), 0);
	assert_true(stat(path, &st) == 0 && (st.st_mode & 0777) == 0750);
	assert_int_equal(chmod(path, 0770), 0);
	assert_int_equal(file_own_dir(path, 0750, &e), 0);
	assert_int_equal(chmod(path, 01777), 0);
	assert_int_equal(file_own_dir(path, 0750, &e), 0);
	assert_true(stat(path, &st) == 0 && (st.st_mode & 07777) == 01775);
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 64332, 0), 0);
		assert_int_equal(file_own_dir(path, 0750, &e), -EPERM);
		assert_non_null(strstr(err_msg(&e), "is user 64332's"));
	}
}

static void shut_tmp(const void *arg)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct stat st;

	NEED(chmod(arg, 01777) == 0 && file_own_dir(arg, 0750, &e) == 0);
	NEED(stat(arg, &st) == 0 && (st.st_mode & 07777) == 01777);
}

/* Proves: what the machine's other users need is not shut to them, however unwise it is to use it.
 */
static void test_own_dir_for_all(_unused_ void **state)
{
	if (!run_mounted("/tmp", "tmpfs", "size=64k", shut_tmp, "/tmp"))
		skip();
}

/* Proves: what others have put into a directory is found, whatever it is, and said by its name. */
static void test_check_entries(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *own = in(d, "own"), *link = in(d, "link"), *none = in(d, "none");
	_cleanup_free_ char *lost = in(d, "lost+found");
	_cleanup_(err_clear) struct err e = ERR_NULL;

	write_text(own, "");
	assert_int_equal(symlink("/nonexistent", link), 0);
	assert_int_equal(file_check_entries(d->path, &e), 0);
	assert_int_equal(file_check_entries(none, &e), -ENOENT);
	if (geteuid() != 0)
		return;
	assert_true(mkdir(lost, 0700) == 0 && chown(lost, 64332, 64332) == 0);
	assert_int_equal(file_check_entries(d->path, &e), 0); /* a volume's */
	assert_int_equal(lchown(link, 64332, 64332), 0);
	assert_int_equal(file_check_entries(d->path, &e), -EPERM);
	assert_non_null(strstr(err_msg(&e), "/link is user 64332's"));
}

/* Proves: removal takes all below, and never what a symbolic link leads to. */
static void test_remove_tree(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *deep = in(d, "t/a/b/c"), *tree = in(d, "t"), *link = in(d, "t/a/link");
	_cleanup_free_ char *kept = in(d, "kept"), *file = in(d, "kept/file"), *top = in(d, "top");

	assert_int_equal(file_mkdirs(deep, 0700, NULL), 0);
	assert_int_equal(file_mkdirs(kept, 0700, NULL), 0);
	write_text(file, "x");
	assert_int_equal(symlink(kept, link), 0);
	assert_int_equal(symlink(kept, top), 0);
	assert_int_equal(file_empty_dir(tree, NULL), 0);
	assert_int_equal(access(tree, F_OK), 0);
	assert_int_equal(access(deep, F_OK), -1);
	assert_true(file_empty_dir(top, NULL) < 0); /* is a link */
	assert_int_equal(file_remove_tree(top, NULL), 0);
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(file_remove_tree(tree, NULL), 0);
	assert_int_equal(file_remove_tree(tree, NULL), 0); /* gone already */
	assert_int_equal(file_empty_dir(tree, NULL), 0);
}

static void remove_around_a_mount(const void *arg)
{
	_cleanup_free_ char *file = xasprintf("%s/file", (const char *)arg);
	_cleanup_free_ char *tree = xstrndup(arg, (size_t)(strrchr(arg, '/') - (const char *)arg));

	NEED(file_write_atomic(file, "x", 1, 0600, false, NULL) == 0);
	NEED(file_remove_tree(tree, NULL) < 0);
	NEED(access(file, F_OK) == 0);
}

/* Proves: what is mounted in a tree is not emptied with it. */
static void test_remove_tree_stays(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *inner = in(d, "t/mounted");

	assert_int_equal(file_mkdirs(inner, 0700, NULL), 0);
	if (!run_mounted(inner, "tmpfs", "size=64k", remove_around_a_mount, inner))
		skip();
}

/* Proves: neither the stack nor the descriptors set a bound to how deep a tree may be that is
 * removed, and names that lie there already are in nobody's way. */
static void test_remove_deep_tree(void **state)
{
	enum { DEPTH = 3000, DESCRIPTORS = 128 };
	struct dir *d = *state;
	_cleanup_free_ char *tree = in(d, "deep"), *there = in(d, "deep/.deep-0/x");
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct rlimit saved, few;
	int fd, r;

	assert_int_equal(file_mkdirs(there, 0700, NULL), 0);
	fd = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < DEPTH; i++) {
		int next;

		assert_int_equal(mkdirat(fd, "d", 0700), 0);
		next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close(fd);
		fd = next;
	}
	close(fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
	few = (struct rlimit){DESCRIPTORS, saved.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	r = file_remove_tree(tree, &e);
	setrlimit(RLIMIT_NOFILE, &saved);
	if (r < 0)
		fail_msg("%s", err_msg(&e));
	assert_int_equal(access(tree, F_OK), -1);
}

/* Proves: one message is one line of our log, whatever others have put into it. */
static void test_log_lines(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *path = in(d, "log"), *text = NULL;
	int saved = dup(STDERR_FILENO), fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	dup2(fd, STDERR_FILENO);
	log_warning("node 1: %s", "\033[2Jgone\n<3>2026-01-01 error: all is lost");
	dup2(saved, STDERR_FILENO);
	close(fd);
	close(saved);
	assert_int_equal(file_read(path, 1000, &text, NULL), 0);
	assert_non_null(strstr(text, "node 1: \\x1b[2Jgone\\n<3>2026-01-01 error: all is lost\n"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void test_mkdirs(void **state)
{
	struct dir *d = *state;
	_cleanup_free_ char *file = in(d, "file"), *below = in(d, "file/x");
	_cleanup_(err_clear) struct err e = ERR_NULL;

	write_text(file, "");
	assert_int_equal(file_mkdirs(file, 0700, &e), -ENOTDIR);
	assert_non_null(strstr(err_msg(&e), "is not a directory"));
	assert_true(file_mkdirs(below, 0700, &e) < 0);
}

static void check_last_lines(const char *text, size_t lines, bool cut, const char *expected)
{
	assert_string_equal(text + text_last_lines(text, strlen(text), lines, cut), expected);
}

/* Proves: the last lines, whole ones, also without a newline at the end. */
static void test_last_lines(_unused_ void **state)
{
	check_last_lines("", 5, false, "");
	check_last_lines("one\ntwo\nthree\nfour", 2, false, "three\nfour");
	check_last_lines("one\ntwo\nthree\nfour", 99, false, "one\ntwo\nthree\nfour");
	check_last_lines("o\nthree\nfour", 99, true, "three\nfour");
	check_last_lines("o\nthree\nfour", 1, true, "four");
	check_last_lines("one\ntwo", 0, false, "");
	check_last_lines("one\ntwo\n", 1, false, "two\n");
	check_last_lines("utend", 1, true, "utend");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes_and_times),
		cmocka_unit_test(test_formats_read_back),
		cmocka_unit_test(test_human_sizes),
		cmocka_unit_test(test_ints),
		cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_visible),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_stream_without_memory),
		cmocka_unit_test(test_errors),
		cmocka_unit_test_setup_teardown(test_write_atomic, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_durable_without_descriptors, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_write_into_nothing, set_up, tear_down),
		cmocka_unit_test(test_pipes_below_dev),
		cmocka_unit_test_setup_teardown(test_remove_tree, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_remove_tree_stays, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_remove_deep_tree, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_check_way, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_check_way_of_others, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_own_dir, set_up, tear_down),
		cmocka_unit_test(test_own_dir_for_all),
		cmocka_unit_test_setup_teardown(test_check_entries, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_log_lines, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_mkdirs, set_up, tear_down),
		cmocka_unit_test(test_last_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
