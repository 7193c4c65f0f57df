/* Rotation while the log is written and read, killed at every step, on full disks and on file
 * systems that cannot. */
#include "cmocka_all.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "log_test.h"
#include "mounted.h"

static bool in_valgrind(void)
{
	return getenv("H2OFLEET_VALGRIND") != NULL;
}

/* ---- beside a writer and a reader ---- */

#define WRITTEN (16u << 20)

/* A child that ends with us, also when a test has failed. */
static pid_t start_child(void)
{
	pid_t pid = fork();

	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* Writes lines as a JVM does, one or a few at a time, until WRITTEN. */
static pid_t start_writer(const char *log)
{
	pid_t pid = start_child();
	char buf[16 * LINE];

	if (pid)
		return pid;
	int fd = open(log, O_WRONLY | O_APPEND | O_CREAT, 0640);

	for (uint64_t pos = 0; pos < WRITTEN;) {
		size_t n = (size_t)MIN(LINE * (1 + pos / LINE % 16), WRITTEN - pos);

		for (size_t i = 0; i < n; i++)
			buf[i] = byte_at(pos + i);
		if (write(fd, buf, n) != (ssize_t)n)
			_exit(1);
		pos += n;
	}
	_exit(0);
}

/* Rotates for ever. */
static pid_t start_rotator(const struct logrotate *rq)
{
	pid_t pid = start_child();

	if (pid)
		return pid;
	for (;;)
		logrotate_run(rq, NULL);
}

static void end_child(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Proves: while a process writes at full speed and the rotation is killed at any time, a reader
 * that follows by positions sees each byte once, and so do the files in the end. */
static void beside_writer_and_reader(void **state)
{
	struct place *p = *state;
	struct logrotate rq = ROTATE(p);
	uint64_t deadline = clock_monotonic_ms() + DEADLINE_MS, seed = 1, pos = 0, at;
	_cleanup_free_ char *buf = xmalloc(100000);
	struct logreader *r;
	pid_t writer, rotator;
	unsigned kills = 0;
	int status;

	NEED_PLACE(p);
	writer = start_writer(p->log);
	rotator = start_rotator(&rq);
	assert_int_equal(logreader_open(p->log, &r, NULL), 0);
	while (pos < WRITTEN) {
		ssize_t n = logreader_read(r, pos, buf, 1 + rng_next(&seed) % 100000, &at);

		assert_true(n >= 0);
		assert_int_equal(at, pos);
		check_bytes(buf, (size_t)n, pos);
		pos += (uint64_t)n;
		assert_true(clock_monotonic_ms() < deadline);
		if (rng_next(&seed) % 20 == 0) {
			end_child(rotator);
			rotator = start_rotator(&rq);
			kills++;
		}
	}
	logreader_close(r);
	end_child(rotator);
	assert_int_equal(waitpid(writer, &status, 0), writer);
	assert_int_equal(status, 0);
	assert_int_equal(logrotate_run(&rq, NULL), 0);
	check_log(p->log, 0, WRITTEN);
	check_files(p->log, 0, 320 * K);
	print_message("rotation killed %u times\n", kills);
}

/* ---- killed at every system call ---- */

/* Runs a rotation until its n-th system call is done, and kills it there. False: it ended before.
 */
static bool rotate_killed_at(const struct logrotate *rq, unsigned n)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		/* Not _exit(), which makes many more calls where coverage is counted. */
		syscall(SYS_exit_group, logrotate_run(rq, NULL) == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
	for (unsigned i = 0; i < 2 * n; i++) { /* it stops before and after each */
		assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, 0), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFSTOPPED(status)) {
			assert_int_equal(status, 0);
			return false;
		}
	}
	end_child(pid);
	return true;
}

/* Proves: wherever the rotation is killed, readers see the whole log; also when as much was written
 * after as had been cut off, and when the next rotation is killed, too. The rotation after
 * that ends the work: no byte is lost or twice in the files. */
static void killed_at_every_call(void **state)
{
	struct place *p = *state;
	struct logrotate rq = ROTATE(p);
	uint64_t seed = 1;
	unsigned n = 0;

	NEED_PLACE(p);
	if (in_valgrind())
		skip();
	for (bool killed = true; killed; n++) {
		uint64_t end = 420 * K;

		rq.max_size = 256 * K;
		file_empty_dir(p->dir, NULL);
		append(p->log, 0, end);
		killed = rotate_killed_at(&rq, n);
		check_log(p->log, 0, end);
		append(p->log, end, 4 * STEP);
		end += 4 * STEP;
		check_log(p->log, 0, end);
		if (n % 4 == 0)
			rotate_killed_at(&rq, (unsigned)(rng_next(&seed) % 100));
		check_log(p->log, 0, end);
		rq.max_size = 192 * K; /* so it would cut elsewhere than the one before */
		assert_int_equal(logrotate_run(&rq, NULL), 0);
		check_log(p->log, 0, end);
		check_files(p->log, 0, 320 * K);
	}
	print_message("killed at %u points\n", n);
	assert_true(n > 50);
}

/* ---- one at a time; age; the bound ---- */

static void one_at_a_time(void **state)
{
	struct place *p = *state;
	struct logrotate rq = ROTATE(p);
	_cleanup_free_ char *lock = xasprintf("%s/.rotate.lock", p->dir);
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_close_ int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0640);

	append(p->log, 0, 300 * K);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_int_equal(logrotate_run(&rq, &e), -EBUSY);
	assert_non_null(strstr(err_msg(&e), "another rotation is at work"));
	check_files(p->log, 0, 400 * K);
	assert_int_equal(flock(fd, LOCK_UN), 0);
	assert_int_equal(logrotate_run(&rq, &e), 0);
	check_log(p->log, 0, 300 * K);
}

/* Proves: a part is never written into what lies in its place, another name of a file or a pipe
 * that nobody reads; and who may read the folder cannot take the lock. */
static void into_nothing(void **state)
{
	struct place *p = *state;
	struct logpart part = {.end = 64 * K, .codec = LOGCODEC_NONE};
	_cleanup_free_ char *new = xasprintf("%s.new", p->log), *data = NULL;
	_cleanup_free_ char *kept = xasprintf("%s/kept", p->dir);
	_cleanup_free_ char *lock = xasprintf("%s/" LOGROTATE_LOCK, p->dir);
	_cleanup_close_ int fd = -1, held = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	struct logrotate rq = ROTATE(p);
	struct stat st;

	append(p->log, 0, 64 * K);
	fd = open(p->log, O_RDONLY | O_CLOEXEC);
	assert_int_equal(file_write_atomic(kept, "kept", 4, 0640, false, NULL), 0);
	assert_int_equal(link(kept, new), 0);
	assert_int_equal(logpart_write(p->log, &part, fd, 0, NULL), 0);
	assert_int_equal(file_read(kept, 100, &data, NULL), 0);
	assert_string_equal(data, "kept");
	assert_int_equal(mkfifo(new, 0600), 0);
	alarm(20); /* instead of waiting for ever */
	assert_int_equal(logpart_write(p->log, &part, fd, 0, NULL), 0);
	alarm(0);
	assert_int_equal(logrotate_run(&rq, NULL), 0);
	assert_true(fstat(held, &st) == 0 && (st.st_mode & 0777) == 0600);
}

/* Proves: what is old enough is rotated, small as it is, and then not again at once. */
static void by_age(void **state)
{
	struct place *p = *state;
	struct logrotate rq = ROTATE(p, .max_size = 100 << 20, .max_age_ms = 1);
	struct logrecord rec;

	append(p->log, 0, 300 * K);
	assert_int_equal(logrecord_write(p->log, &(struct logrecord){.since_ms = 1}, NULL), 0);
	assert_false(logrotate_due(p->log, rq.max_size, 0));
	assert_true(logrotate_due(p->log, rq.max_size, 1));
	assert_false(logrotate_due(p->log, rq.max_size, 1ull << 60));
	assert_int_equal(logrotate_run(&rq, NULL), 0);
	logrecord_read(p->log, &rec);
	assert_true(rec.start >= 192 * K);
	assert_true(rec.since_ms > 1);
	assert_false(logrotate_due(p->log, rq.max_size, 1));
	check_log(p->log, 0, 300 * K);
}

static uint64_t bytes_below(const char *dir, const char *prefix)
{
	DIR *d = opendir(dir);
	uint64_t sum = 0;
	struct dirent *de;
	struct stat st;

	while ((de = readdir(d)))
		if (has_prefix(de->d_name, prefix) && fstatat(dirfd(d), de->d_name, &st, 0) == 0)
			sum += (uint64_t)st.st_size;
	closedir(d);
	return sum;
}

static void put_file(const struct place *p, const char *name, size_t size, time_t mtime)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", p->dir, name), *data = xcalloc(1, size);
	struct timespec times[2] = {{mtime, 0}, {mtime, 0}};

	assert_int_equal(file_write_atomic(path, data, size, 0640, false, NULL), 0);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static bool exists(const struct place *p, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", p->dir, name);

	return access(path, F_OK) == 0;
}

/* Proves: never more than max_total; the oldest parts and crash reports go first, four of these
 * stay; what is not ours is not touched; leftovers of a killed rotation go. */
static void bound_on_the_total(void **state)
{
	struct place *p = *state;
	struct logrotate rq = ROTATE(p, .max_total = 2048 * K, .codec = LOGCODEC_NONE);
	uint64_t end = 0;

	put_file(p, "hs_err_pid1.log", 10, 1000);
	put_file(p, "hs_err_pid2.log", 10, 2000);
	for (unsigned i = 3; i < 6; i++) {
		_cleanup_free_ char *name = xasprintf("hs_err_pid%u.log", i);

		put_file(p, name, 10, 3000);
	}
	put_file(p, "h2o_127.0.0.1_54321-3-info.log", 5000 * K, 1000);
	put_file(p, "0.log.0000000000000000-0000000000000001.txt", 1, 1000);
	put_file(p, "0.log.new", 10, 1000);
	put_file(p, "7.log.position.new", 10, 1000);
	for (unsigned i = 0; i < 20; i++) {
		append(p->log, end, 256 * K);
		end += 256 * K;
		assert_int_equal(logrotate_run(&rq, NULL), 0);
		assert_true(bytes_below(p->dir, "0.log.0") + 256 * K <= 2048 * K);
	}
	assert_true(bytes_below(p->dir, "0.log.0") > 1024 * K); /* but no more than need be */
	assert_false(exists(p, "hs_err_pid1.log"));
	assert_true(exists(p, "hs_err_pid2.log"));
	assert_true(exists(p, "hs_err_pid5.log"));
	assert_true(exists(p, "h2o_127.0.0.1_54321-3-info.log"));
	assert_true(exists(p, "0.log.0000000000000000-0000000000000001.txt"));
	assert_false(exists(p, "0.log.new"));
	assert_false(exists(p, "7.log.position.new"));
	assert_int_equal(logfile_end(p->log), end);
}

/* ---- on file systems of our own ---- */

static size_t fill_disk(const char *path)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
	_cleanup_free_ char *zeros = xcalloc(1, 4096);
	size_t n = 0;

	while (write(fd, zeros, 4096) == 4096)
		n += 4096;
	return n;
}

static unsigned count_files(const char *dir)
{
	DIR *d = opendir(dir);
	unsigned n = 0;
	struct dirent *de;

	while ((de = readdir(d)))
		n += de->d_name[0] != '.';
	closedir(d);
	return n;
}

static bool reads_well(const char *log, uint64_t end)
{
	_cleanup_free_ char *text = NULL;

	if (logfile_end(log) != end || logfile_tail(log, 0, SIZE_MAX, 4096 * K, &text) < 0 ||
		strlen(text) != end)
		return false;
	for (uint64_t i = 0; i < end; i++)
		if (text[i] != byte_at(i))
			return false;
	return true;
}

static void on_full_disk(const void *arg)
{
	const struct place *p = arg;
	struct logrotate rq = ROTATE(p, .codec = LOGCODEC_NONE);
	_cleanup_free_ char *filler = xasprintf("%s/filler", p->dir);
	struct err e = ERR_NULL;
	size_t room;

	append(p->log, 0, 1000 * K);
	room = fill_disk(filler);
	NEED(logrotate_run(&rq, &e) == -ENOSPC);
	NEED(strstr(err_msg(&e), "No space left on device"));
	NEED(count_files(p->dir) == 2);
	NEED(reads_well(p->log, 1000 * K));
	/* Some parts fit, others do not; then the parts, but not the record. */
	for (size_t left = 0; left <= 600 * K; left += 20 * K) {
		NEED(truncate(filler, (off_t)(room - left)) == 0);
		logrotate_run(&rq, NULL);
		NEED(reads_well(p->log, 1000 * K));
	}
	NEED(unlink(filler) == 0);
	NEED(logrotate_run(&rq, NULL) == 0);
	NEED(reads_well(p->log, 1000 * K));
	err_clear(&e);
}

/* Proves: with a full disk the log stays as it is, no half part is left, and once there is room it
 * is rotated; at any amount of room in between it is whole. */
static void full_disk(void **state)
{
	struct place *p = *state;

	if (!run_mounted(p->dir, "tmpfs", "size=2m", on_full_disk, p))
		skip();
}

static void on_one_that_cannot(const void *arg)
{
	const struct place *p = arg;
	struct logrotate rq = ROTATE(p);
	struct err e = ERR_NULL;

	append(p->log, 0, 1000 * K);
	NEED(logrotate_run(&rq, &e) == -EOPNOTSUPP);
	NEED(strstr(err_msg(&e), "can take nothing out of a file"));
	NEED(count_files(p->dir) == 1);
	NEED(reads_well(p->log, 1000 * K));
	err_clear(&e);
}

/* Proves: where the file system has no way, nothing is done, and the sentence says so. */
static void file_system_that_cannot(void **state)
{
	struct place *p = *state;

	if (!run_mounted(p->dir, "ramfs", NULL, on_one_that_cannot, p))
		skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_BOTH(beside_writer_and_reader),
		IN_BOTH(killed_at_every_call),
		cmocka_unit_test_setup_teardown(one_at_a_time, on_disk, place_free),
		cmocka_unit_test_setup_teardown(into_nothing, on_disk, place_free),
		IN_BOTH(by_age),
		cmocka_unit_test_setup_teardown(bound_on_the_total, on_disk, place_free),
		cmocka_unit_test_setup_teardown(full_disk, on_disk, place_free),
		cmocka_unit_test_setup_teardown(file_system_that_cannot, on_disk, place_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
