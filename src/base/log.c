#include "base/log.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "base/text.h"

static enum log_level max_level = LOG_LEVEL_INFO;

void log_set_level(enum log_level level)
{
	max_level = level;
}

enum log_level log_get_level(void)
{
	return max_level;
}

/* $JOURNAL_STREAM names the device and inode of the journal's socket (systemd.exec(5)). */
static bool stderr_is_journal(void)
{
	static int cached = -1;
	unsigned long long dev, ino;
	struct stat st;
	const char *s;

	if (cached >= 0)
		return cached;
	s = getenv("JOURNAL_STREAM");
	cached = s && sscanf(s, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
		 st.st_dev == dev && st.st_ino == ino;
	return cached;
}

static const char *level_word(enum log_level level)
{
	switch (level) {
	case LOG_LEVEL_ERROR:
		return "error: ";
	case LOG_LEVEL_WARNING:
		return "warning: ";
	case LOG_LEVEL_DEBUG:
		return "debug: ";
	case LOG_LEVEL_NOTICE:
	case LOG_LEVEL_INFO:
		break;
	}
	return "";
}

void log_write(enum log_level level, const char *fmt, ...)
{
	_cleanup_free_ char *raw = NULL, *msg = NULL, *line = NULL;
	struct timespec ts;
	struct tm tm;
	char when[32];
	va_list ap;

	if (level > max_level)
		return;
	va_start(ap, fmt);
	raw = xvasprintf(fmt, ap);
	va_end(ap);
	msg = text_visible(raw, strlen(raw));
	if (stderr_is_journal()) {
		line = xasprintf("<%d>%s\n", (int)level, msg);
	} else {
		clock_gettime(CLOCK_REALTIME, &ts);
		localtime_r(&ts.tv_sec, &tm);
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
		line = xasprintf(
			"%s.%03ld %s%s\n", when, ts.tv_nsec / 1000000, level_word(level), msg);
	}
	/* One write, so that lines of several processes do not mix; what does not fit into a full
	 * pipe is lost rather than holding up supervision. */
	if (poll(&(struct pollfd){.fd = STDERR_FILENO, .events = POLLOUT}, 1, 0) != 1)
		return;
	if (write(STDERR_FILENO, line, MIN(strlen(line), (size_t)PIPE_BUF)) < 0)
		return;
}
