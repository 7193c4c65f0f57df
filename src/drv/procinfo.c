#include "drv/procinfo.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/file.h"
#include "base/strbuf.h"
#include "drv/machine.h"

/* A JVM may have thousands of threads, and each costs the loop 30 to 60 us. */
#define SNAPSHOT_THREADS 150

static void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

static int read_proc(pid_t pid, const char *name, char **data, size_t *len)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/%s", (int)pid, name);

	return file_read(path, 16u << 20, data, len);
}

/* The name stands in parentheses and may itself hold blanks and parentheses: it ends at the last
 * one. */
static int parse_stat(const char *text, struct process_stat *out)
{
	const char *open = strchr(text, '(');
	const char *close = strrchr(text, ')');
	int ppid, pgrp, session;
	size_t n;

	if (!open || !close || close < open)
		return -ESRCH;
	*out = (struct process_stat){0};
	n = MIN((size_t)(close - open - 1), sizeof(out->comm) - 1);
	memcpy(out->comm, open + 1, n);
	/* 3 state, 4 ppid, 5 pgrp, 6 session, then 15 that are of no interest, 22 starttime; the
	 * last, 52, is exit_code. */
	if (sscanf(close + 1,
		    " %c %d %d %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
		    "%" SCNu64,
		    &out->state, &ppid, &pgrp, &session, &out->start_ticks) != 5)
		return -ESRCH;
	out->exit_status = atoi(strrchr(close, ' '));
	out->ppid = ppid;
	out->pgrp = pgrp;
	out->session = session;
	return 0;
}

int process_stat_read(pid_t pid, struct process_stat *out)
{
	_cleanup_free_ char *text = NULL;

	*out = (struct process_stat){0};
	if (pid <= 0 || read_proc(pid, "stat", &text, NULL) < 0)
		return -ESRCH;
	return parse_stat(text, out);
}

int process_usage_read(pid_t pid, struct process_usage *out)
{
	char path[40], text[1024];
	_cleanup_close_ int fd = -1;
	uint64_t user, system;
	const char *close;
	ssize_t n;
	long rss;

	*out = (struct process_usage){0};
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (n <= 0)
		return -ESRCH;
	text[n] = '\0';
	close = strrchr(text, ')');
	/* 14 utime, 15 stime; 24 rss, in pages. */
	if (!close || sscanf(close + 1,
			      " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64 " %" SCNu64
			      " %*s %*s %*s %*s %*s %*s %*s %*s %ld",
			      &user, &system, &rss) != 3)
		return -ESRCH;
	out->cpu_ms = (user + system) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
	out->rss_bytes = (uint64_t)MAX(rss, 0l) * (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}

int process_each(int (*fn)(pid_t pid, void *arg), void *arg)
{
	_cleanup_(closedirp) DIR *d = opendir("/proc");
	struct dirent *de;
	int r = 0;

	if (!d)
		return -errno;
	while (r == 0 && (de = readdir(d)))
		if (isdigit((unsigned char)de->d_name[0]))
			r = fn((pid_t)atoi(de->d_name), arg);
	return r;
}

int process_each_fd(pid_t pid, int (*fn)(const char *target, void *arg), void *arg)
{
	_cleanup_(closedirp) DIR *d = NULL;
	char target[64], path[64];
	struct dirent *de;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	if (!d)
		return -errno;
	while (r == 0 && (de = readdir(d))) {
		ssize_t n;

		if (de->d_name[0] == '.')
			continue;
		n = readlinkat(dirfd(d), de->d_name, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = '\0';
		r = fn(target, arg);
	}
	return r;
}

uint64_t process_start_ticks(pid_t pid)
{
	struct process_stat st;

	return process_stat_read(pid, &st) < 0 ? 0 : st.start_ticks;
}

void process_comm(pid_t pid, char out[32])
{
	struct process_stat st;

	process_stat_read(pid, &st);
	memcpy(out, st.comm, sizeof(st.comm));
}

/* What follows `beginning` in the first variable that begins so, or, if `whole`, is just that. */
static char *find_env(pid_t pid, const char *beginning, bool whole)
{
	_cleanup_free_ char *env = NULL;
	size_t len;

	if (pid <= 0 || read_proc(pid, "environ", &env, &len) < 0)
		return NULL;
	/* file_read() put a NUL behind the last one. */
	for (const char *p = env; p < env + len; p += strlen(p) + 1)
		if (whole ? streq(p, beginning) : has_prefix(p, beginning))
			return xstrdup(p + strlen(beginning));
	return NULL;
}

bool process_has_env(pid_t pid, const char *name_is_value)
{
	_cleanup_free_ char *rest = find_env(pid, name_is_value, true);

	return rest;
}

char *process_env(pid_t pid, const char *beginning)
{
	return find_env(pid, beginning, false);
}

/* ---- the text for an incident ---- */

/* The lines of `text` that begin with one of `names`; all of them when names is NULL. */
static void add_lines(struct strbuf *b, const char *text, const char *const *names)
{
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n");
		bool wanted = !names;

		for (size_t i = 0; !wanted && names[i]; i++)
			wanted = strncmp(p, names[i], strlen(names[i])) == 0;
		if (wanted) {
			strbuf_puts(b, "  ");
			strbuf_add(b, p, n);
			strbuf_puts(b, "\n");
		}
		p += n + (p[n] == '\n');
	}
}

static void add_file(struct strbuf *b, pid_t pid, const char *name, const char *const *names)
{
	_cleanup_free_ char *text = NULL;
	int r = read_proc(pid, name, &text, NULL);

	strbuf_printf(b, "%s:\n", name);
	if (r < 0)
		strbuf_printf(b, "  %s\n", strerror(-r));
	else
		add_lines(b, text, names);
}

static int count_fd(_unused_ const char *target, void *arg)
{
	(*(unsigned *)arg)++;
	return 0;
}

static void add_threads(struct strbuf *b, pid_t pid)
{
	_cleanup_(closedirp) DIR *d = NULL;
	struct dirent *de;
	unsigned n = 0;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	d = opendir(path);
	strbuf_puts(b, "threads (id, state, waits in, name):\n");
	while (d && (de = readdir(d))) {
		_cleanup_free_ char *stat = NULL, *wchan = NULL;
		struct process_stat st;
		char name[300];

		if (de->d_name[0] == '.' || n++ >= SNAPSHOT_THREADS)
			continue;
		snprintf(name, sizeof(name), "task/%s/stat", de->d_name);
		if (read_proc(pid, name, &stat, NULL) < 0 || parse_stat(stat, &st) < 0)
			continue;
		snprintf(name, sizeof(name), "task/%s/wchan", de->d_name);
		read_proc(pid, name, &wchan, NULL);
		strbuf_printf(b, "  %s %c %s %s\n", de->d_name, st.state,
			wchan && wchan[0] && !streq(wchan, "0") ? wchan : "-", st.comm);
	}
	if (n > SNAPSHOT_THREADS)
		strbuf_printf(b, "  and %u more\n", n - SNAPSHOT_THREADS);
}

char *process_snapshot(pid_t pid)
{
	static const char *const status[] = {"Name:", "State:", "Tgid:", "PPid:", "Uid:", "FDSize:",
		"VmPeak:", "VmSize:", "VmLck:", "VmHWM:", "VmRSS:", "RssAnon:", "RssFile:",
		"RssShmem:", "VmData:", "VmSwap:", "Threads:", "SigQ:", "SigBlk:", "SigIgn:",
		"SigCgt:", "NoNewPrivs:", "Seccomp:", "Cpus_allowed_list:",
		"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:", NULL};
	static const char *const limits[] = {"Max address space", "Max processes", "Max open files",
		"Max locked memory", "Max data size", "Max core file size", "Max file size", NULL};
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	struct process_stat st;
	unsigned n_fds = 0;
	int r;

	if (process_stat_read(pid, &st) < 0)
		return xasprintf("process %d: there is no such process\n", (int)pid);
	strbuf_printf(&b,
		"process %d (%s), state %c, group %d, session %d, started at tick %" PRIu64 "\n",
		(int)pid, st.comm, st.state, (int)st.pgrp, (int)st.session, st.start_ticks);
	add_file(&b, pid, "status", status);
	add_file(&b, pid, "wchan", NULL);
	add_file(&b, pid, "limits", limits);
	r = process_each_fd(pid, count_fd, &n_fds);
	if (r < 0)
		strbuf_printf(&b, "open descriptors: %s\n", strerror(-r));
	else
		strbuf_printf(&b, "open descriptors: %u\n", n_fds);
	add_file(&b, pid, "io", NULL);
	add_file(&b, pid, "cgroup", NULL);
	add_file(&b, pid, "oom_score_adj", NULL);
	add_threads(&b, pid);
	return strbuf_take(&b);
}
