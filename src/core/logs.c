/* Where the nodes' output goes, and when their logs are rotated. The rotation itself is a process
 * of its own (drv/logrotate.h). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include <systemd/sd-journal.h>
#include <syslog.h>

#include "base/log.h"
#include "core/internal.h"
#include "drv/logfile.h"
#include "drv/logrotate.h"

/* A rotation that takes longer hangs; it can be killed and done again. */
#define ROTATION_TIMEOUT_MS (15 * 60000)
/* After one that failed: a disk stays full for a while. */
#define RETRY_MS 60000

/* ---- where the output goes ---- */

static char *journal_identifier(const struct member *m)
{
	return xasprintf("h2o-%s-%u", m->s->cloud->conf->name, m->index);
}

char *logs_elsewhere(const struct member *m)
{
	_cleanup_free_ char *id = journal_identifier(m);

	if (m->log_to == LOG_TO_JOURNAL)
		return xasprintf("its output is in the journal: journalctl -t %s", id);
	if (m->log_to == LOG_TO_INHERIT)
		return xstrdup("its output went to the daemon's own standard output");
	return NULL;
}

/* Straight from the JVM to journald, which keeps the stream over restarts of its own. */
static int open_journal(const struct member *m, struct err *e)
{
	_cleanup_free_ char *id = journal_identifier(m);
	int fd = sd_journal_stream_fd(id, LOG_INFO, 0);

	if (fd < 0)
		return err_set(e, fd,
			"log_to = journal: there is no journald to write to (%s); set log_to = "
			"file or inherit",
			strerror(-fd));
	return fd;
}

int logs_check_target(const struct supervised *s, struct err *e)
{
	int fd;

	if (s->cloud->conf->log_to != LOG_TO_JOURNAL)
		return 0;
	fd = open_journal(&s->members[0], e);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* A line of ours between two lives. */
static int write_heading(const struct member *m, int fd)
{
	_cleanup_free_ char *line = NULL;
	time_t now = time(NULL);
	char when[32];
	struct tm tm;

	localtime_r(&now, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	line = xasprintf("--- h2ofleet: cloud %s, node %u, generation %" PRIu64 ", %s\n",
		m->s->cloud->conf->name, m->index, m->s->cloud->generation, when);
	return write(fd, line, strlen(line)) < 0 ? -errno : 0;
}

/* Not blocking: a node that put a named pipe there would hold us up for ever. */
#define LOG_FLAGS (O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK)

static int begin_file(struct member *m, struct err *e)
{
	_cleanup_close_ int fd = open(m->log, LOG_FLAGS | O_CLOEXEC | O_NOFOLLOW, 0640);
	int r;

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot open its log %s", m->log);
	r = write_heading(m, fd);
	if (r < 0)
		return err_set_errno(e, r, "cannot write its log %s", m->log);
	m->log_start = logfile_end(m->log);
	return TAKE_FD(fd);
}

int logs_begin(struct member *m, struct err *e)
{
	int fd;

	m->log_to = m->s->cloud->conf->log_to;
	if (m->log_to == LOG_TO_FILE)
		return begin_file(m, e);
	if (m->log_to == LOG_TO_JOURNAL) {
		fd = open_journal(m, e);
		if (fd >= 0)
			write_heading(m, fd);
		return fd;
	}
	/* Raw: to mark each line, somebody would have to read them first, through a pipe that dies
	 * with us. Our own log is on standard error. */
	fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? err_set_errno(e, -errno, "cannot use the daemon's standard output") : fd;
}

/* ---- rotation ---- */

/* Live files up to this, one for each node, and one part that is being written, take half of
 * log_max_total at most. */
static uint64_t effective_max_size(const struct cloud_conf *c)
{
	return MIN(c->log_max_size, c->log_max_total / (2 * ((uint64_t)c->nodes + 1)));
}

static void in_trouble(struct supervised *s, const char *what)
{
	s->logs.retry_at = fleet_now(s->fleet) + RETRY_MS;
	trouble_set(s->fleet, TROUBLE_LOGS, s->cloud->conf->name, what);
}

static void on_rotated(int exit_code, int exec_errno, const char *output, void *arg)
{
	_cleanup_free_ char *first = xstrndup(output, strcspn(output, "\n"));
	struct supervised *s = arg;

	s->logs.rotation = NULL;
	s->logs.pending = exit_code != 0; /* another is to follow */
	if (exec_errno)
		in_trouble(s, strerror(exec_errno));
	else if (exit_code < 0)
		in_trouble(s, "the rotation was killed, or did not end");
	else if (exit_code == ROTATE_EXIT_BUSY)
		log_debug("cloud %s: %s", s->cloud->conf->name, first);
	else if (exit_code != 0)
		in_trouble(s, first);
	else
		trouble_clear(s->fleet, TROUBLE_LOGS, s->cloud->conf->name);
}

static void rotate(struct supervised *s)
{
	const struct cloud_conf *c = s->cloud->conf;
	static const char *const codecs[] = {[LOG_COMPRESS_ZSTD] = "zstd",
		[LOG_COMPRESS_GZIP] = "gzip",
		[LOG_COMPRESS_NONE] = "none"};
	_cleanup_(strv_free) struct strv argv = STRV_NULL;
	int r;

	strv_take(&argv, command_own_program());
	strv_add(&argv, "--rotate-logs");
	strv_add(&argv, s->log_dir);
	strv_printf(&argv, "%" PRIu64, effective_max_size(c));
	strv_printf(&argv, "%" PRIu64, c->log_max_age_ms);
	strv_printf(&argv, "%" PRIu64, c->log_max_total);
	strv_add(&argv, codecs[c->log_compress]);
	r = command_run(s->fleet->loop, argv.v, environ, ROTATION_TIMEOUT_MS, on_rotated, s,
		&s->logs.rotation);
	if (r < 0)
		in_trouble(s, strerror(-r));
}

static bool is_due(const struct supervised *s)
{
	const struct cloud_conf *c = s->cloud->conf;

	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		if (logrotate_due(s->members[i].log, effective_max_size(c), c->log_max_age_ms))
			return true;
	return false;
}

void logs_init(struct supervised *s)
{
	_cleanup_free_ char *lock = xasprintf("%s/" LOGROTATE_LOCK, s->log_dir);

	/* An earlier rotation may not have come to its end. */
	s->logs.pending = access(lock, F_OK) == 0;
}

void logs_check(struct fleet *f)
{
	uint64_t now = fleet_now(f);

	for (size_t i = 0; i < f->n; i++) {
		struct supervised *s = f->clouds[i];

		if (!s->logs.rotation && now >= s->logs.retry_at && (s->logs.pending || is_due(s)))
			rotate(s);
	}
}

void logs_free(struct supervised *s)
{
	if (s->logs.rotation)
		command_cancel(TAKE_PTR(s->logs.rotation)); /* the next one goes on from there */
}
