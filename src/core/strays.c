/* Processes of an earlier daemon on the same state directory that belong to no member which was
 * adopted: found by the token in their environment, and ended before anything is launched. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "core/internal.h"
#include "drv/machine.h"
#include "drv/procinfo.h"

#define STRAY_TERM_MS   10000
#define BUILDER_TERM_MS 2000

struct stray {
	struct stray *next;
	struct fleet *fleet;
	struct proc *proc;
	uv_timer_t *timer;
	char *token; /* owned: "NAME=value" */
	char *dir;   /* owned: where it ran, and may leave files; NULL: not a node's */
};

static void on_closed(uv_handle_t *h)
{
	free(h);
}

static void stray_free(struct stray *t)
{
	proc_free(t->proc);
	uv_close((uv_handle_t *)t->timer, on_closed);
	free(t->token);
	free(t->dir);
	free(t);
}

static void on_gone(struct proc *p, const struct proc_exit *exit, void *arg)
{
	struct stray *t = arg;
	struct fleet *f = t->fleet;
	struct stray **at = &f->strays;

	(void)exit;
	log_info("stray process %d has ended", (int)proc_pid(p));
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	if (t->dir) {
		proc_kill_stragglers(t->token);
		clean_dir(t->dir, NULL);
		exits_remove_perf_file(f, proc_pid(p));
	}
	stray_free(t);
	if (!f->strays)
		fleet_strays_gone(f);
}

static void on_patience_over(uv_timer_t *timer)
{
	struct stray *t = timer->data;

	proc_kill_group(t->proc);
}

/* Members run in their ice directory, which has their number as its name (launch.c). What they have
 * started may be anywhere, where "tmp" is none of our business. Owned by the caller. */
static char *dir_of(pid_t pid)
{
	_cleanup_free_ char *link = xasprintf("/proc/%d/cwd", (int)pid);
	char cwd[4096];
	ssize_t n = readlink(link, cwd, sizeof(cwd) - 1);
	const char *name;

	cwd[MAX(n, 0)] = '\0';
	name = strrchr(cwd, '/');
	if (!name || !name[1] || strspn(name + 1, "0123456789") != strlen(name + 1))
		return xstrdup("/nonexistent");
	return xstrdup(cwd);
}

static struct stray *stray_new(struct fleet *f, pid_t pid, uint64_t ticks, const char *token)
{
	struct stray *t = xcalloc(1, sizeof(*t));
	int r = proc_adopt(f->loop, pid, ticks, on_gone, t, &t->proc);

	if (r < 0 && r != -ESRCH) {
		log_error("cannot watch pid %d (%s), which an earlier daemon has left: %s",
			(int)pid, token, strerror(-r));
		f->cannot_adopt = r;
	}
	if (r < 0) {
		free(t);
		return NULL;
	}
	t->fleet = f;
	t->token = xasprintf("%s=%s/%s", TOKEN_ENV, f->id, token);
	t->timer = xcalloc(1, sizeof(*t->timer));
	uv_timer_init(f->loop, t->timer);
	t->timer->data = t;
	t->next = f->strays;
	f->strays = t;
	return t;
}

/* Who makes the boot cache, for a daemon that is gone, or a node that was started for it: with
 * SIGTERM it leaves nothing behind. */
static void end_builder(struct fleet *f, pid_t pid, uint64_t ticks)
{
	struct stray *t = stray_new(f, pid, ticks, BOOT_TOKEN);

	if (!t)
		return;
	uv_timer_start(t->timer, on_patience_over, BUILDER_TERM_MS, 0);
	proc_signal(t->proc, SIGTERM);
}

/* A gate that is not the one we talk to, or a child of such. It holds ports, and nothing to lose.
 */
static void end_gate(struct fleet *f, pid_t pid, uint64_t ticks)
{
	struct stray *t = stray_new(f, pid, ticks, GATE_TOKEN);

	if (t)
		proc_kill_group(t->proc);
}

static void end_stray(struct fleet *f, pid_t pid, uint64_t ticks, const char *token)
{
	struct stray *t = stray_new(f, pid, ticks, token);

	if (!t)
		return;
	log_warning("pid %d (%s) was left behind by an earlier daemon and belongs to no cloud that "
		    "runs; ending it",
		(int)pid, token);
	t->dir = dir_of(pid);
	uv_timer_start(t->timer, on_patience_over, STRAY_TERM_MS, 0);
	proc_signal(t->proc, SIGTERM);
}

/* "CLOUD/NODE/GENERATION" behind our fleet's id in the token of process `pid`; NULL if it has none.
 * Owned by the caller. */
static char *token_of(const struct fleet *f, pid_t pid)
{
	_cleanup_free_ char *mark = xasprintf("%s=%s/", TOKEN_ENV, f->id);

	return process_env(pid, mark);
}

/* A member that was adopted, or a process that it has started. */
static bool belongs_to_member(const struct fleet *f, const char *token)
{
	_cleanup_free_ char *cloud = xstrndup(token, strcspn(token, "/"));
	const struct supervised *s = supervised_find(f, cloud);
	unsigned long node =
		strtoul(token + strlen(cloud) + (token[strlen(cloud)] == '/'), NULL, 10);
	_cleanup_free_ char *its = NULL;

	if (!s || node >= s->cloud->n_nodes || !s->members[node].proc)
		return false;
	its = launch_token(s, (unsigned)node);
	return streq(strchr(its, '/') + 1, token);
}

/* The gate that we talk to asks the name service by children. */
static bool is_child_of(pid_t pid, pid_t parent)
{
	struct process_stat st;

	return parent && process_stat_read(pid, &st) == 0 && st.ppid == parent;
}

static void look_at(struct fleet *f, pid_t pid)
{
	uint64_t ticks = process_start_ticks(pid); /* before the token: the pair is checked later */
	_cleanup_free_ char *token = ticks && pid != getpid() ? token_of(f, pid) : NULL;

	if (token && streq(token, GATE_TOKEN)) {
		if (pid != gate_pid(f) && !is_child_of(pid, gate_pid(f)))
			end_gate(f, pid, ticks);
	} else if (token && streq(token, BOOT_TOKEN)) {
		end_builder(f, pid, ticks);
	} else if (token && !belongs_to_member(f, token)) {
		end_stray(f, pid, ticks, token);
	}
}

/* Where one more descriptor can be had in the end, none was lacking: what could not be read is no
 * longer there, or not ours. */
void strays_find(struct fleet *f)
{
	DIR *d = opendir("/proc"), *one_more = NULL;
	struct dirent *de;

	while (d && (de = readdir(d)))
		if (isdigit((unsigned char)de->d_name[0]))
			look_at(f, (pid_t)strtol(de->d_name, NULL, 10));
	if (d)
		one_more = opendir("/proc");
	if (!one_more) {
		f->cannot_adopt = -errno;
		log_error("cannot look for what an earlier daemon has left: %s", strerror(errno));
	} else {
		closedir(one_more);
	}
	if (d)
		closedir(d);
}

void strays_kill(struct fleet *f)
{
	for (struct stray *t = f->strays; t; t = t->next)
		proc_kill_group(t->proc);
}

void strays_free(struct fleet *f)
{
	while (f->strays) {
		struct stray *t = f->strays;

		f->strays = t->next;
		stray_free(t);
	}
}
