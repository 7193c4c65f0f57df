/* Numbered lines written at full speed, rotated all along by processes of which many are killed,
 * and followed by position: says how many lines were lost, doubled or torn (none, it is hoped), and
 * how fast it went. Started by tests/bench/rotate. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "drv/logfile.h"
#include "drv/logpart.h"
#include "drv/logrecord.h"
#include "drv/logrotate.h"

#define LINE  128u
#define BATCH (32 * LINE) /* a write() */

#define MAX_SIZE  (16ull << 20)
#define MAX_TOTAL (8ull << 30)

/* How far the writer may be before the reader, so that nothing falls out unread; and before the
 * rotation, so that this cuts where it writes. */
#define MAX_LEAD (2ull << 30)
#define MAX_LIVE (128ull << 20)

/* Every so often the reader begins anew from its position, after it has let the writer get up to so
 * far ahead: it then reads parts, later the live file. */
#define REOPEN   (200ull << 20)
#define MAX_WAIT (400ull << 20)

/* Shared by the processes. */
struct shared {
	volatile uint64_t written, read, rotated;
	volatile uint64_t worst_write_us, slow_writes;
	volatile uint64_t rotations, kills, failures;
	volatile bool done;
};

struct stress {
	const char *daemon, *dir, *codec;
	char *log;
	uint64_t total;
	struct shared *sh;
};

static uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static pid_t start_child(void)
{
	pid_t pid = fork();

	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

/* "0000000000000042 " and words that differ, so that it compresses as logs do. */
static void format_line(char *line, uint64_t number)
{
	static const char words[] = "127.0.0.1:54321 main INFO water.default: Cloud of size formed "
				    "GBM DRF scoring history metrics model frame chunk key ";
	uint64_t seed = number / 3;

	for (int i = 15; i >= 0; i--, number /= 10)
		line[i] = (char)('0' + number % 10);
	line[16] = ' ';
	for (size_t i = 17; i < LINE - 1; i += 10)
		memcpy(line + i, words + rng_next(&seed) % (sizeof(words) - 11), 10);
	line[LINE - 1] = '\n';
}

static void run_writer(const struct stress *s)
{
	int fd = open(s->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	char buf[BATCH + 16];
	uint64_t number = 0;

	while (s->sh->written < s->total) {
		uint64_t begun, took;

		while (s->sh->written > s->sh->read + MAX_LEAD ||
			s->sh->written > s->sh->rotated + MAX_LIVE)
			poll(NULL, 0, 1);
		for (size_t i = 0; i < BATCH; i += LINE)
			format_line(buf + i, number++);
		begun = now_us();
		if (write(fd, buf, BATCH) != BATCH) {
			perror("write");
			_exit(1);
		}
		took = now_us() - begun;
		s->sh->worst_write_us = MAX(s->sh->worst_write_us, took);
		s->sh->slow_writes += took > 10000;
		s->sh->written += BATCH;
	}
	_exit(0);
}

static pid_t start_rotation(const struct stress *s)
{
	_cleanup_free_ char *size = xasprintf("%llu", MAX_SIZE),
			    *total = xasprintf("%llu", MAX_TOTAL);
	pid_t pid = start_child();

	if (pid == 0) {
		execl(s->daemon, s->daemon, "--rotate-logs", s->dir, size, "0", total, s->codec,
			NULL);
		_exit(127);
	}
	return pid;
}

/* Watches a rotation for so long, then kills it. */
static int end_rotation(const struct stress *s, pid_t pid, uint64_t patience_ms)
{
	uint64_t end = clock_monotonic_ms() + patience_ms;
	struct logrecord rec;
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		logrecord_read(s->log, &rec);
		s->sh->rotated = rec.start;
		if (clock_monotonic_ms() >= end)
			kill(pid, SIGKILL);
		poll(NULL, 0, 2);
	}
	logrecord_read(s->log, &rec);
	s->sh->rotated = rec.start;
	return status;
}

/* As the daemon does it, but each has only a random time to live. */
static void run_rotations(const struct stress *s)
{
	uint64_t seed = 4711;

	while (!s->sh->done) {
		int status;

		if (!logrotate_due(s->log, MAX_SIZE, 0)) {
			poll(NULL, 0, 5);
			continue;
		}
		status = end_rotation(s, start_rotation(s), rng_next(&seed) % 4000);
		s->sh->rotations++;
		s->sh->kills += WIFSIGNALED(status);
		s->sh->failures += WIFEXITED(status) && WEXITSTATUS(status) != 0;
	}
	_exit(0);
}

/* What the reader finds. */
struct tally {
	uint64_t next; /* number of the next line */
	uint64_t lost, doubled, torn;
};

static void judge_line(struct tally *t, const char *line)
{
	char want[LINE + 16];
	uint64_t number = 0;

	for (int i = 0; i < 16; i++)
		number = number * 10 + (uint64_t)(line[i] - '0');
	format_line(want, number);
	if (memcmp(line, want, LINE) != 0)
		t->torn++;
	else if (number < t->next)
		t->doubled++;
	else
		t->lost += number - t->next;
	t->next = number + 1;
}

static void follow(const struct stress *s, struct tally *t)
{
	_cleanup_free_ char *buf = xmalloc(1u << 20);
	uint64_t pos = 0, at, reopen = REOPEN, wait, seed = 1;
	struct logreader *r = NULL;
	size_t have = 0;

	while (pos < s->total) {
		ssize_t n;

		if (!r && logreader_open(s->log, &r, NULL) < 0)
			exit(1);
		n = logreader_read(r, pos, buf + have, (1u << 20) - have, &at);
		if (n < 0) {
			fprintf(stderr, "reading at %" PRIu64 ": %s\n", pos, strerror((int)-n));
			exit(1);
		}
		if (n == 0)
			poll(NULL, 0, 1);
		if (n > 0 && at != pos) /* the lines will tell */
			have = 0;
		pos = at + (uint64_t)n;
		have += (size_t)n;
		for (size_t i = 0; i + LINE <= have; i += LINE)
			judge_line(t, buf + i);
		memmove(buf, buf + have / LINE * LINE, have % LINE);
		have %= LINE;
		s->sh->read = pos;
		if (pos > reopen) {
			reopen += REOPEN;
			logreader_close(TAKE_PTR(r));
			wait = MIN(pos + rng_next(&seed) % MAX_WAIT, s->total);
			while (s->sh->written < wait)
				poll(NULL, 0, 1);
		}
	}
	logreader_close(r);
}

static void report(const struct stress *s, const struct tally *t, uint64_t ms)
{
	const struct shared *sh = s->sh;
	_cleanup_free_ struct logpart *parts = NULL;
	struct stat st;

	printf("%.2f GB, %" PRIu64 " lines in %.1f s: %.0f MB/s written, rotated and followed\n",
		(double)s->total / 1e9, t->next, (double)ms / 1e3,
		(double)s->total / 1e3 / (double)ms);
	printf("lost %" PRIu64 ", doubled %" PRIu64 ", torn %" PRIu64 "\n", t->lost, t->doubled,
		t->torn);
	printf("rotations %" PRIu64 ", of which killed %" PRIu64 ", failed %" PRIu64
	       "; parts in the end %zd\n",
		sh->rotations, sh->kills, sh->failures, logparts_list(s->log, &parts));
	printf("longest write() of the writer %.1f ms; longer than 10 ms: %" PRIu64 " of %" PRIu64
	       "\n",
		(double)sh->worst_write_us / 1e3, sh->slow_writes, s->total / BATCH);
	if (stat(s->log, &st) == 0)
		printf("live file in the end: length %.1f MB, on disk %.1f MB\n",
			(double)st.st_size / 1e6, (double)st.st_blocks * 512 / 1e6);
}

int main(int argc, char **argv)
{
	struct stress s = {.daemon = argv[1], .dir = argv[2], .codec = argv[4]};
	pid_t writer, rotations;
	struct tally t = {0};
	uint64_t begun;
	int status;

	if (argc != 5 || text_parse_size(argv[3], &s.total) < 0) {
		fputs("usage: rotate_stress H2OFLEETD DIRECTORY BYTES zstd|gzip|none\n", stderr);
		return 2;
	}
	s.total = s.total / BATCH * BATCH;
	s.log = xasprintf("%s/0.log", s.dir);
	s.sh = mmap(NULL, sizeof(*s.sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	begun = clock_monotonic_ms();
	writer = start_child();
	if (writer == 0)
		run_writer(&s);
	rotations = start_child();
	if (rotations == 0)
		run_rotations(&s);
	follow(&s, &t);
	begun = clock_monotonic_ms() - begun;
	waitpid(writer, &status, 0);
	s.sh->done = true;
	waitpid(rotations, NULL, 0);
	report(&s, &t, begun);
	return status == 0 && t.lost + t.doubled + t.torn == 0 && t.next * LINE == s.total ? 0 : 1;
}
