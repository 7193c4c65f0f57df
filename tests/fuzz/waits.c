#include "waits.h"

#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define NS_PER_MS UINT64_C(1000000)
/* Of one input: who waits more often waits for ever. */
#define MAX_WAITS 20000
/* For a thread of libcurl that looks up a name, and says so to poll(). */
#define THREAD_MS 1000

static bool begun;
static uint64_t begun_ns, now_ns;
static unsigned n_waits;
static nlink_t n_threads; /* libFuzzer has one */

static uint64_t real_ns(void)
{
	struct timespec ts;

	fuzz_check(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts) == 0);
	return (uint64_t)ts.tv_sec * 1000 * NS_PER_MS + (uint64_t)ts.tv_nsec;
}

static nlink_t count_threads(void)
{
	struct stat st;

	return stat("/proc/self/task", &st) == 0 ? st.st_nlink : 0;
}

void waits_begin(void)
{
	/* Never back: libcurl remembers times of connections that it keeps. */
	now_ns = MAX(now_ns, real_ns());
	begun_ns = now_ns;
	n_waits = 0;
	n_threads = count_threads();
	begun = true;
}

void waits_end(void)
{
	begun = false;
}

uint64_t waits_ms(void)
{
	return (now_ns - begun_ns) / NS_PER_MS;
}

void waits_pass(uint64_t ms)
{
	now_ns += ms * NS_PER_MS;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	if (!begun || (id != CLOCK_MONOTONIC && id != CLOCK_MONOTONIC_COARSE))
		return (int)syscall(SYS_clock_gettime, id, ts);
	*ts = (struct timespec){.tv_sec = (time_t)(now_ns / (1000 * NS_PER_MS)),
		.tv_nsec = (long)(now_ns % (1000 * NS_PER_MS))};
	return 0;
}

int usleep(useconds_t us)
{
	fuzz_check(begun && ++n_waits < MAX_WAITS);
	now_ns += (uint64_t)us * 1000;
	return 0;
}

static int look(struct pollfd *fds, nfds_t n, int ms)
{
	const struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * (long)NS_PER_MS};

	return ppoll(fds, n, ms < 0 ? NULL : &ts, NULL);
}

int poll(struct pollfd *fds, nfds_t n, int ms)
{
	int r = look(fds, n, begun ? 0 : ms);

	if (!begun || r || !ms)
		return r;
	if (count_threads() > n_threads && (r = look(fds, n, THREAD_MS)))
		return r;
	/* All that can come has come already: nobody is left who would wake us. */
	fuzz_check(ms > 0 && ++n_waits < MAX_WAITS);
	waits_pass((uint64_t)ms);
	return 0;
}
