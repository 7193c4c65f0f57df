#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "core/internal.h"
#include "drv/logfile.h"
#include "drv/machine.h"
#include "drv/procinfo.h"

/* So much of a dead node's output is searched for a cause. */
#define LOG_TAIL_BYTES 65536

/* The count may be read a moment after a kill and before its exit is seen, so the one before that
 * is compared. */
#define OOM_SAMPLE_MS 5000

void oom_sample(struct fleet *f)
{
	uint64_t now = fleet_now(f);

	if (f->oom.at && now - f->oom.at < OOM_SAMPLE_MS)
		return;
	f->oom.before = f->oom.at ? f->oom.now : machine_oom_kills();
	f->oom.now = machine_oom_kills();
	f->oom.at = now;
	for (size_t i = 0; i < f->n; i++)
		cgroups_oom_sample(f->clouds[i]);
}

/* What this life of the node has printed, at most its end. Owned by the caller; never NULL. */
static char *output_of(const struct member *m)
{
	char *output;

	if (m->log_to != LOG_TO_FILE ||
		logfile_tail(m->log, m->log_start, SIZE_MAX, LOG_TAIL_BYTES, &output) < 0)
		output = xstrdup("");
	return output;
}

/* jvm_custom_args may not move it: plan_argv() says where it is. */
static char *crash_report_of(const struct member *m)
{
	char *path = xasprintf("%s/hs_err_pid%d.log", m->s->log_dir, (int)m->last_pid);
	const struct node *n = &m->s->cloud->nodes[m->index];
	uint64_t now = fleet_now(m->s->fleet), wall = clock_wall_ms();
	uint64_t life = now - MIN(n->launched_ms, now);
	/* The wall clock may have been set back since then. */
	uint64_t by_now = wall - MIN(life, wall);
	uint64_t launched = MIN(n->launched_wall_ms, by_now);
	struct stat st;

	/* Of this life: an older process may have had the same pid. */
	if (stat(path, &st) == 0 && (uint64_t)st.st_mtim.tv_sec * 1000 + 2000 >= launched)
		return path;
	free(path);
	return NULL;
}

/* The JVM's performance file, which SIGKILL leaves behind; java.io.tmpdir does not move it. By
 * path, for that needs no descriptor: in /tmp nobody else can put another in our directory's place.
 */
void exits_remove_perf_file(struct fleet *f, pid_t pid)
{
	const char *user = fleet_user(f);
	_cleanup_free_ char *dir = NULL, *path = NULL;
	struct process_stat ps;
	struct stat st;

	/* The number may be another JVM's by now: a daemon learns late of what died before it. */
	if (!user || (process_stat_read(pid, &ps) == 0 && ps.state != 'Z' && ps.state != 'X'))
		return;
	dir = xasprintf("/tmp/hsperfdata_%s", user);
	path = xasprintf("%s/%d", dir, (int)pid);
	if (lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid())
		unlink(path);
}

static char *holder_of(const struct member *m, const struct proc_exit *exit, const char *output)
{
	uint16_t port = m->s->cloud->nodes[m->index].api_port;
	char *who;

	if (!exit->known || exit->signal || exit->code != 255 || !strstr(output, "ports"))
		return NULL;
	who = port_holder(port);
	if (who) {
		free(who);
		return port_holder_sentence(port);
	}
	who = port_holder((uint16_t)(port + 1));
	free(who);
	return port_holder_sentence(who ? (uint16_t)(port + 1) : port);
}

static void report(struct member *m, const struct proc_exit *exit)
{
	struct supervised *s = m->s;
	_cleanup_free_ char *output = output_of(m), *hs_err = crash_report_of(m), *holder = NULL;
	_cleanup_free_ char *elsewhere = logs_elsewhere(m);
	int64_t kills = machine_oom_kills();
	struct exit_evidence ev = {
		.known = exit->known,
		.code = exit->code,
		.signal = exit->signal,
		.core = exit->core,
		.sent_signal = s->cloud->nodes[m->index].sent_signal,
		.exec_errno = exit->exec_errno,
		.exec_path = s->runtime.java ? s->runtime.java : "java",
		.kernel_oom = kills > s->fleet->oom.before,
		.kernel_oom_known = kills >= 0,
		.hs_err = hs_err,
		.log_tail = output,
		.output_elsewhere = elsewhere,
		.node = m->index,
	};
	enum cause cause;
	bool expected;

	cgroups_oom(s, &ev); /* better evidence than the machine's, where there is any */
	holder = holder_of(m, exit, output);
	ev.port_holder = holder;
	exits_remove_perf_file(s->fleet, m->last_pid);
	supervised_feed(
		s, &(struct cloud_event){.type = EVENT_EXITED, .node = m->index, .exit = &ev});
	cause = s->cloud->nodes[m->index].last_exit.cause;
	expected = cause == CAUSE_STOPPED || cause == CAUSE_ORDERLY;
	log_write(expected ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "cloud %s: %s",
		s->cloud->conf->name, s->cloud->nodes[m->index].last_exit.why);
}

/* Of an adopted member the port could not be held while it listened. */
static void hold_port_again(const struct member *m)
{
	struct port_pair *hold = &m->s->holds[m->index];

	if (hold->api)
		port_pair_complete(launch_api_address(m->s), MEMBER_ADDR, hold, NULL);
}

void exits_report(struct proc *p, const struct proc_exit *exit, void *arg)
{
	struct member *m = arg;

	polls_cancel(m);
	m->proc = NULL;
	m->unreleased = false;
	proc_free(p);
	hold_port_again(m);
	report(m, exit);
}

void exits_report_gone(struct member *m)
{
	hold_port_again(m);
	report(m, &(struct proc_exit){.known = false});
}
