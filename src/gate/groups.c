/* "group:NAME", "user:NAME": the name service may ask a network, and block for as long as it likes.
 * So a child asks it, with nothing of ours but the question, and its exit status is the answer. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "gate/gate.h"

#define MAX_CHILDREN 8
#define MAX_KNOWN    64
#define MAX_GROUPS   65536

enum { ANSWER_YES = 10, ANSWER_NO = 11 }; /* not what a failing program exits with */

struct lookup {
	struct list link;
	struct gate *gate;
	struct door *door; /* NULL: nobody waits for it any more */
	uid_t uid;
	pid_t pid;      /* 0: not yet started */
	struct watch w; /* pidfd */
	struct timer timer;
};

/* --- in the child --------------------------------------------------------------------------- */

static gid_t *groups_of(const struct passwd *pw, int *n)
{
	for (int room = 64;; room *= 4) {
		gid_t *list = xcalloc((size_t)room, sizeof(*list));

		*n = room;
		if (getgrouplist(pw->pw_name, pw->pw_gid, list, n) >= 0)
			return list;
		free(list);
		if (room >= MAX_GROUPS) {
			*n = 0;
			return NULL;
		}
	}
}

/* (gid_t)-1: there is none. A number is taken for one where no group has it as its name. */
static gid_t group_of(const char *name)
{
	const struct group *group = getgrnam(name);

	if (group)
		return group->gr_gid;
	if (*name && strlen(name) < 10 && strspn(name, "0123456789") == strlen(name))
		return (gid_t)strtoul(name, NULL, 10);
	return (gid_t)-1;
}

bool groups_match(uid_t uid, const struct strv *names)
{
	struct passwd *pw = getpwuid(uid);
	_cleanup_free_ gid_t *gids = NULL;
	int n_gids = 0;

	if (pw)
		gids = groups_of(pw, &n_gids);
	for (size_t i = 0; i < names->n; i++) {
		const char *name = strchr(names->v[i], ':') + 1;

		if (has_prefix(names->v[i], "user:")) {
			const struct passwd *user = getpwnam(name);

			if (user && user->pw_uid == uid)
				return true;
		} else {
			gid_t wanted = group_of(name);

			for (int k = 0; k < n_gids; k++)
				if (gids[k] == wanted)
					return true;
		}
	}
	return false;
}

static _noreturn_ void child(const struct lookup *lu, pid_t parent)
{
	sigset_t none;
	int null;

	close_range(3, ~0u, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	_exit(groups_match(lu->uid, &lu->door->conf.names) ? ANSWER_YES : ANSWER_NO);
}

/* --- in the gate ---------------------------------------------------------------------------- */

static void lookup_free(struct lookup *lu)
{
	loop_unwatch(&lu->gate->loop, &lu->w);
	closep(&lu->w.fd);
	timer_stop(&lu->timer);
	list_del(&lu->link);
	free(lu);
}

static void remember(struct door *d, uid_t uid, bool allowed)
{
	struct known *k = d->known, *oldest = d->known;

	for (size_t i = 0; i < d->n_known; i++, k++) {
		if (k->uid == uid)
			break;
		if (k->until < oldest->until)
			oldest = k;
	}
	if (k == d->known + d->n_known) {
		if (d->n_known < MAX_KNOWN) {
			d->known = xreallocarray(d->known, d->n_known + 1, sizeof(*d->known));
			k = &d->known[d->n_known++];
		} else {
			k = oldest;
		}
	}
	*k = (struct known){uid, allowed, d->gate->loop.now + GATE_KNOWN_MS};
}

static void start_waiting(struct gate *g);

/* Nobody waits for it any more; the child is reaped when it has ended. */
static void give_up(struct lookup *lu, const char *why)
{
	struct door *d = TAKE_PTR(lu->door);

	timer_stop(&lu->timer);
	if (lu->pid > 0)
		kill(lu->pid, SIGKILL);
	if (why)
		door_answer(d, lu->uid, false, why);
	if (lu->pid <= 0)
		lookup_free(lu);
}

static void on_ended(struct watch *w, _unused_ uint32_t events)
{
	struct lookup *lu = container_of(w, struct lookup, w);
	struct gate *g = lu->gate;
	struct door *d = lu->door;
	uid_t uid = lu->uid;
	int status;

	if (waitpid(lu->pid, &status, WNOHANG) != lu->pid)
		return;
	g->n_children--;
	lookup_free(lu);
	if (d && WIFEXITED(status) &&
		(WEXITSTATUS(status) == ANSWER_YES || WEXITSTATUS(status) == ANSWER_NO)) {
		bool allowed = WEXITSTATUS(status) == ANSWER_YES;

		remember(d, uid, allowed);
		door_answer(d, uid, allowed, "this user may not use the cloud");
	} else if (d) {
		log_warning("cloud %s: the name service broke when it was asked for uid %u",
			d->conf.cloud, uid);
		door_answer(d, uid, false, "the name service did not say who this is");
	}
	start_waiting(g);
}

static void on_timer(struct timer *t)
{
	struct lookup *lu = container_of(t, struct lookup, timer);

	log_warning("cloud %s: the name service has not told the groups of uid %u within %d s",
		lu->door->conf.cloud, lu->uid, GATE_NAMES_MS / 1000);
	give_up(lu, "the name service did not say in time who this is");
}

static int start(struct lookup *lu)
{
	struct gate *g = lu->gate;
	pid_t parent = getpid(), pid = fork();
	int fd;

	if (pid < 0)
		return -errno;
	if (pid == 0)
		child(lu, parent);
	fd = pidfd_open(pid, 0);
	if (fd < 0 || loop_watch(&g->loop, &lu->w, fd, EPOLLIN) < 0) {
		int rc = -errno;

		closep(&fd);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return rc;
	}
	lu->pid = pid;
	g->n_children++;
	lu->timer.on = on_timer;
	/* Not of this turn's time, which the forking of others may have made old. */
	timer_set(&g->loop, &lu->timer, clock_monotonic_ms() + GATE_NAMES_MS);
	return 0;
}

/* The first that has not been started; those that cannot be are refused. */
static void start_waiting(struct gate *g)
{
	struct list *next;

	for (struct list *l = g->lookups.next; l != &g->lookups && g->n_children < MAX_CHILDREN;
		l = next) {
		struct lookup *lu = container_of(l, struct lookup, link);

		next = l->next;
		if (lu->pid != 0)
			continue;
		if (start(lu) < 0)
			give_up(lu, "the name service could not be asked");
	}
}

/* Begins in the next turn: the one who asks is not waiting yet. */
static void on_begin(struct timer *t)
{
	start_waiting(container_of(t, struct lookup, timer)->gate);
}

enum verdict groups_ask(struct door *d, uid_t uid)
{
	struct gate *g = d->gate;
	struct lookup *lu;

	for (size_t i = 0; i < d->n_known; i++)
		if (d->known[i].uid == uid && d->known[i].until > g->loop.now)
			return d->known[i].allowed ? VERDICT_YES : VERDICT_NO;
	for (struct list *l = g->lookups.next; l != &g->lookups; l = l->next) {
		lu = container_of(l, struct lookup, link);
		if (lu->door == d && lu->uid == uid)
			return VERDICT_WAIT;
	}
	lu = xcalloc(1, sizeof(*lu));
	lu->gate = g;
	lu->door = d;
	lu->uid = uid;
	watch_init(&lu->w, on_ended);
	timer_init(&lu->timer, on_begin);
	timer_set(&g->loop, &lu->timer, 0);
	list_add(&g->lookups, &lu->link);
	return VERDICT_WAIT;
}

void groups_forget(struct door *d)
{
	struct list *next;

	for (struct list *l = d->gate->lookups.next; l != &d->gate->lookups; l = next) {
		struct lookup *lu = container_of(l, struct lookup, link);

		next = l->next;
		if (lu->door == d)
			give_up(lu, NULL);
	}
	free(TAKE_PTR(d->known));
	d->n_known = 0;
}

void groups_free(struct gate *g)
{
	struct lookup *lu;

	while ((lu = list_first(&g->lookups, struct lookup, link))) {
		if (lu->pid > 0)
			kill(lu->pid, SIGKILL);
		lookup_free(lu);
	}
}
