/* fake.journal=FILE: what became of each fake, for checks after the fact.
 *
 *	MS start  PID TICKS TOKEN      at exec
 *	MS beside PID OTHER TOKEN      OTHER, with that token, was alive then
 *	MS signal PID SIGNAL           one that the JVM handles
 *	MS end    PID CODE             an exit of its own
 *
 * All fakes of a fleet append to one file. Who is alive can only grow at a start, so the lines
 * "beside" tell of every overlap of two lives, also of those that end by SIGKILL. Whoever writes
 * its start first is seen by the other; both may see each other. */
#include "fake.h"

#include <fcntl.h>

#include "base/clock.h"
#include "base/file.h"
#include "drv/procinfo.h"

#define MAX_JOURNAL (16u << 20)

/* One write per line: appended whole. */
static void append(const struct node *n, const char *fmt, ...) _printf_(2, 3);
static void append(const struct node *n, const char *fmt, ...)
{
	_cleanup_free_ char *text = NULL, *line = NULL;
	va_list ap;

	if (n->journal_fd < 0)
		return;
	va_start(ap, fmt);
	text = xvasprintf(fmt, ap);
	va_end(ap);
	line = xasprintf("%llu %s\n", (unsigned long long)clock_monotonic_ms(), text);
	if (write(n->journal_fd, line, strlen(line)) < 0)
		fprintf(stderr, "fakejava: cannot write the journal\n");
}

static bool lives(pid_t pid, uint64_t ticks)
{
	struct process_stat st;

	return process_stat_read(pid, &st) == 0 && st.start_ticks == ticks && st.state != 'Z' &&
	       st.state != 'X';
}

static void note_others(const struct node *n, const char *path)
{
	_cleanup_free_ char *text = NULL;
	char *save = NULL;

	if (file_read(path, MAX_JOURNAL, &text, NULL) < 0)
		return;
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		unsigned long long ms, ticks;
		char token[512];
		int pid;

		if (sscanf(l, "%llu start %d %llu %511s", &ms, &pid, &ticks, token) == 4 &&
			pid != getpid() && lives(pid, ticks))
			append(n, "beside %d %d %s", getpid(), pid, token);
	}
}

void journal_open(struct node *n, const char *path)
{
	const char *token = getenv("H2OFLEET_TOKEN");
	struct process_stat st = {0};

	closep(&n->journal_fd);
	n->journal_fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	process_stat_read(getpid(), &st);
	append(n, "start %d %llu %s", getpid(), (unsigned long long)st.start_ticks,
		token ? token : "-");
	note_others(n, path);
}

void journal_signal(const struct node *n, int sig)
{
	append(n, "signal %d %d", getpid(), sig);
}

void journal_end(const struct node *n, int code)
{
	append(n, "end %d %d", getpid(), code);
}
