/* What the client knows of H2O without talking to one: what locks a cloud, what a download may be
 * called, that it appears whole or not at all. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "cli/h2o.h"

/* As measured with fresh nodes of 3.46.0.12. */
static void test_locks(void **state _unused_)
{
	static const struct {
		const char *method, *path;
		bool locks;
	} cases[] = {
		{"GET", "/3/Cloud", false}, {"GET", "/3/Cloud?skip_ticks=true", false},
		{"GET", "/3/Cloud.json", false}, {"HEAD", "/3/Cloud", false},
		{"HEAD", "/3/Jobs", false}, /* 404 */
		{"GET", "/", false}, {"GET", "/flow/index.html", false}, {"GET", "/3/About", false},
		{"GET", "/3/Typeahead/files?src=/tmp", false},
		{"GET", "/3/NodePersistentStorage/notebook", false},
		{"POST", "/3/NodePersistentStorage/notebook/x", false}, {"POST", "/3/Cloud", true},
		{"GET", "/3/Cloudy", true}, {"GET", "/3/CloudLock", true},
		{"GET", "/3/ModelBuilders", true}, {"GET", "/3/Ping", true},
		{"GET", "/3/Jobs", true}, {"GET", "/4/endpoints", true},
		{"POST", "/3/PostFile?destination_frame=x", true}, {"DELETE", "/3/DKV", true},
		{"ET", "/3/About", true}, /* a part of a method is none */
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (h2o_locks(cases[i].method, cases[i].path) != cases[i].locks)
			fail_msg("%s %s", cases[i].method, cases[i].path);
}

/* Whatever the other side says, it names a file in the folder that was asked for. */
static void test_names(void **state _unused_)
{
	static const struct {
		const char *said, *name;
	} cases[] = {
		{"attachment; filename=a.csv", "a.csv"},
		{"attachment; filename=\"a b.csv\"; size=3", "a b.csv"},
		{"attachment; FILENAME=a.csv\r\n", "a.csv"},
		{"attachment; filename=\"../../etc/passwd\"", "passwd"},
		{"attachment; filename=/etc/cron.d/x", "x"},
		{"attachment; filename=..", "_."},
		{"attachment; filename=.bashrc", "_bashrc"},
		{"attachment; filename=\"a\x1b[31m\\b\"", "a_[31m_b"},
		{"attachment; filename=\"a\302\2335m\303\251\"", "a__5m\303\251"},
		{"attachment; filename=\"\"", NULL},
		{"attachment; filename=a/", NULL},
		{"attachment", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *name = download_name(cases[i].said);

		if (!streq_null(name, cases[i].name))
			fail_msg("%s: %s", cases[i].said, name ? name : "none");
	}
}

static size_t n_files(const char *dir)
{
	DIR *d = opendir(dir);
	size_t n = 0;

	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		n += !streq(e->d_name, ".") && !streq(e->d_name, "..");
	closedir(d);
	return n;
}

/* Until it is finished the old file is there; given up, nothing of the new one stays. */
static void test_download(void **state _unused_)
{
	char dir[] = "/tmp/h2ofleet-test-XXXXXX";
	_cleanup_free_ char *sub = NULL, *path = NULL, *got = NULL;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct download d = {.fd = -1};

	assert_non_null(mkdtemp(dir));
	sub = xasprintf("%s/new/folder/", dir);
	path = xasprintf("%sx.csv", sub);
	d = (struct download){.to = sub, .name = xstrdup("x.csv"), .fd = -1};
	assert_int_equal(download_write(&d, "one", 3, &e), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(download_finish(&d, &e), 0);
	download_clear(&d);

	d = (struct download){.to = path, .fd = -1};
	assert_int_equal(download_write(&d, "two", 3, &e), 0);
	assert_int_equal(n_files(sub), 2);
	download_clear(&d);
	assert_int_equal(n_files(sub), 1);
	assert_int_equal(file_read(path, 10, &got, NULL), 0);
	assert_string_equal(got, "one");

	d = (struct download){.to = "/proc/nothing/here", .fd = -1};
	assert_true(download_write(&d, "x", 1, &e) < 0);
	assert_non_null(strstr(err_msg(&e), "/proc/nothing"));
	download_clear(&d);
	assert_int_equal(file_remove_tree(dir, NULL), 0);
}

/* What is no plain file is written, not replaced; a link stays one, and so do a file's rights. */
static void test_download_into(void **state _unused_)
{
	char dir[] = "/tmp/h2ofleet-test-XXXXXX", got[4] = "";
	_cleanup_free_ char *pipe = NULL, *file = NULL, *link = NULL, *text = NULL, *sub = NULL;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct download d;
	struct stat st;
	int fd;

	assert_non_null(mkdtemp(dir));
	pipe = xasprintf("%s/pipe", dir);
	file = xasprintf("%s/file", dir);
	link = xasprintf("%s/link", dir);
	sub = xasprintf("%s/", dir);
	assert_int_equal(mkfifo(pipe, 0600), 0);
	fd = open(pipe, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	d = (struct download){.to = pipe, .fd = -1};
	assert_int_equal(download_write(&d, "one", 3, &e), 0);
	assert_int_equal(download_finish(&d, &e), 0);
	download_clear(&d);
	assert_int_equal(read(fd, got, 3), 3);
	assert_string_equal(got, "one");
	close(fd);
	assert_true(stat(pipe, &st) == 0 && S_ISFIFO(st.st_mode));

	d = (struct download){.to = sub, .name = xstrdup("pipe"), .fd = -1};
	assert_true(download_write(&d, "x", 1, &e) < 0); /* of that folder the server chooses */
	download_clear(&d);

	assert_int_equal(symlink("file", link), 0);
	d = (struct download){.to = link, .fd = -1};
	assert_true(download_write(&d, "x", 1, &e) < 0);
	assert_non_null(strstr(err_msg(&e), "leads nowhere"));
	download_clear(&d);
	assert_int_equal(close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0640)), 0);
	assert_int_equal(chmod(file, 0640), 0);
	d = (struct download){.to = link, .fd = -1};
	assert_int_equal(download_write(&d, "two", 3, &e), 0);
	assert_int_equal(download_finish(&d, &e), 0);
	download_clear(&d);
	assert_true(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
	assert_true(lstat(file, &st) == 0 && (st.st_mode & 07777) == 0640);
	assert_int_equal(file_read(file, 10, &text, NULL), 0);
	assert_string_equal(text, "two");
	assert_int_equal(n_files(dir), 3);
	assert_int_equal(file_remove_tree(dir, NULL), 0);
}

/* In a query and in a form nothing of a value is taken for anything else. */
static void test_encode(void **state _unused_)
{
	_cleanup_free_ char *pair = h2o_encode("a b", "c&d=e+\xc3\xbc");

	assert_string_equal(pair, "a%20b=c%26d%3De%2B%C3%BC");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_locks),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_download),
		cmocka_unit_test(test_download_into),
		cmocka_unit_test(test_encode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
