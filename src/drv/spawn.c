#include "drv/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/handover.h"
#include "drv/machine.h"
#include "drv/procinfo.h"

/* How often, and how many times, we ask again for the status of a process that is gone. */
#define STATUS_RETRY_MS 20
#define STATUS_RETRIES  15

struct proc {
	struct proc *prev, *next; /* in unreaped */
	uv_poll_t poll;           /* on pidfd */
	uv_timer_t timer;         /* asks again for a status that is not there yet */
	unsigned n_handles;
	unsigned n_retries;
	pid_t pid;
	uint64_t start_ticks;
	int pidfd;
	int stage; /* our end of the child's release and exec status socket; -1 for adopted ones */
	int release_errno; /* it could not be told to execute */
	bool released;
	bool exited;
	bool freed;
	proc_exit_cb cb;
	void *arg;
};

/* All that are not reaped yet, by pid; a thousand nodes are no long list anywhere. */
#define N_BUCKETS 256
static struct proc *unreaped[N_BUCKETS];
static struct rlimit saved_nofile;
static bool nofile_is_saved;
static bool is_spared; /* the OOM killer is told to spare us (OOMScoreAdjust= of the unit) */

#define OOM_FILE "/proc/self/oom_score_adj"

static int oom_score_adj(void)
{
	FILE *f = fopen(OOM_FILE, "re");
	int adj = 0;

	if (f && fscanf(f, "%d", &adj) != 1)
		adj = 0;
	if (f)
		fclose(f);
	return adj;
}

void spawn_save_limits(void)
{
	const char *handed_over = handover_word("nofile");

	nofile_is_saved = getrlimit(RLIMIT_NOFILE, &saved_nofile) == 0;
	is_spared = oom_score_adj() < 0;
	if (handed_over)
		saved_nofile.rlim_cur = (rlim_t)strtoull(handed_over, NULL, 10);
}

void spawn_hand_over_limits(void)
{
	_cleanup_free_ char *soft = xasprintf("%ju", (uintmax_t)saved_nofile.rlim_cur);

	if (nofile_is_saved)
		handover_add_word("nofile", soft);
}

/* ---- in the child: only async-signal-safe calls ---- */

/* All are above 2, and close-on-exec. */
struct stage {
	int input;
	int output;
	int cwd;
	int ours;
	int child;
};

#define STAGE_NULL ((struct stage){-1, -1, -1, -1, -1})

_noreturn_ static void child_fail(int fd, int code)
{
	send(fd, &code, sizeof(code), MSG_NOSIGNAL);
	_exit(127);
}

/* The descriptor limit may be high, but this is for kernels before 5.9 and odd seccomp filters. */
static void child_close_from(int first)
{
	struct rlimit rl;

	if (close_range((unsigned)first, ~0u, 0) == 0 || getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return;
	for (rlim_t fd = (rlim_t)first; fd < rl.rlim_cur; fd++)
		close((int)fd);
}

static void child_reset_signals(void)
{
	/* The kernel's struct sigaction, all zero: SIG_DFL. Called directly, since the C library
	 * refuses its two internal signals, which may be ignored, too. */
	static const unsigned long by_default[4];
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		syscall(SYS_rt_sigaction, sig, by_default, NULL, sizeof(uint64_t));
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_restore_limits(void)
{
	struct rlimit rl;

	if (!nofile_is_saved || getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return;
	rl.rlim_cur = MIN(saved_nofile.rlim_cur, rl.rlim_max);
	setrlimit(RLIMIT_NOFILE, &rl);
}

/* A JVM is what the OOM killer shall take, rather than the daemon and then all of them. */
static void child_be_killable(void)
{
	int fd = is_spared ? open(OOM_FILE, O_WRONLY | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	if (write(fd, "0", 1) < 0)
		errno = 0; /* nothing to be done: it is as the daemon is */
	close(fd);
}

/* Returns when released; exits when nobody is left who could release us. */
static void child_await_release(int fd)
{
	ssize_t n;
	char go;

	do
		n = recv(fd, &go, 1, 0);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		_exit(0);
}

_noreturn_ static void child_main(const struct spawn_request *rq, const struct stage *st)
{
	int fd = st->child;

	setsid();
	child_reset_signals();
	if (dup2(st->input, 0) < 0 || dup2(st->output, 1) < 0 || dup2(st->output, 2) < 0 ||
		fchdir(st->cwd) < 0)
		child_fail(fd, errno);
	if (fd != 3 && dup3(fd, 3, O_CLOEXEC) < 0)
		child_fail(fd, errno);
	fd = 3;
	child_close_from(4);
	child_restore_limits();
	child_be_killable();
	child_await_release(fd);
	execve(rq->argv[0], rq->argv, rq->env);
	child_fail(fd, errno);
}

/* ---- what the child needs, made before the fork, so that failures have a sentence ---- */

static void stage_close(struct stage *st)
{
	closep(&st->input);
	closep(&st->output);
	closep(&st->cwd);
	closep(&st->ours);
	closep(&st->child);
	*st = STAGE_NULL;
}

/* Away from 0 to 2, which are free when somebody started us without them: there dup2() in the child
 * would be no copy, and would leave close-on-exec set. Takes `fd` over. */
static int above_stdio(int fd)
{
	int copy;

	if (fd < 0 || fd > 2)
		return fd;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	close(fd);
	return copy;
}

static int stage_open(const struct spawn_request *rq, struct stage *st, struct err *e)
{
	const char *output = rq->output_path ? rq->output_path : "/dev/null";
	const char *cwd = rq->cwd ? rq->cwd : "/";
	int pair[2];

	*st = STAGE_NULL;
	if (rq->input_fd)
		st->input = fcntl(rq->input_fd, F_DUPFD_CLOEXEC, 3);
	else
		st->input = above_stdio(open("/dev/null", O_RDONLY | O_CLOEXEC));
	if (st->input < 0)
		return err_set_errno(
			e, -errno, "cannot open %s", rq->input_fd ? "input" : "/dev/null");
	if (rq->output_fd)
		st->output = fcntl(rq->output_fd, F_DUPFD_CLOEXEC, 3);
	else
		st->output = above_stdio(open(output,
			O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0640));
	if (st->output < 0)
		return err_set_errno(
			e, -errno, "cannot open %s", rq->output_fd ? "output" : output);
	st->cwd = above_stdio(open(cwd, O_PATH | O_DIRECTORY | O_CLOEXEC));
	if (st->cwd < 0)
		return err_set_errno(e, -errno, "cannot enter directory %s", cwd);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set_errno(e, -errno, "cannot make a socket pair");
	st->ours = above_stdio(pair[0]);
	st->child = above_stdio(pair[1]);
	if (st->ours < 0 || st->child < 0)
		return err_set_errno(e, -errno, "cannot make a socket pair");
	return 0;
}

/* With signals blocked over the fork: a handler of ours must not run in the child. */
static pid_t stage_fork(const struct spawn_request *rq, const struct stage *st)
{
	sigset_t all, old;
	pid_t pid;
	int saved;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		child_main(rq, st);
	saved = errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	errno = saved;
	return pid;
}

/* A SIGCHLD that is ignored (an inheritance of careless parents) would throw all exit statuses
 * away. */
static void need_sigchld(void)
{
	struct sigaction sa;

	if (sigaction(SIGCHLD, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN)
		signal(SIGCHLD, SIG_DFL);
}

/* ---- who is not reaped yet ---- */

static struct proc **bucket_of(pid_t pid)
{
	return &unreaped[(unsigned)pid % N_BUCKETS];
}

static void list_add(struct proc *p)
{
	struct proc **first = bucket_of(p->pid);

	p->next = *first;
	if (p->next)
		p->next->prev = p;
	*first = p;
}

static void list_remove(struct proc *p)
{
	if (p->prev)
		p->prev->next = p->next;
	else if (*bucket_of(p->pid) == p)
		*bucket_of(p->pid) = p->next;
	if (p->next)
		p->next->prev = p->prev;
	p->prev = p->next = NULL;
}

bool proc_is_watched(pid_t pid)
{
	for (const struct proc *p = *bucket_of(pid); p; p = p->next)
		if (p->pid == pid)
			return true;
	return false;
}

/* ---- the end of a process ---- */

static void on_closed(uv_handle_t *handle)
{
	struct proc *p = handle->data;

	if (--p->n_handles)
		return;
	closep(&p->pidfd);
	closep(&p->stage);
	free(p);
}

static void proc_close(struct proc *p)
{
	list_remove(p);
	uv_close((uv_handle_t *)&p->poll, on_closed);
	uv_close((uv_handle_t *)&p->timer, on_closed);
}

/* wait(2)'s form of a status. */
static void exit_from_status(struct proc_exit *x, int status)
{
	x->known = true;
	if (WIFSIGNALED(status)) {
		x->signal = WTERMSIG(status);
		x->core = WCOREDUMP(status);
	} else {
		x->code = WEXITSTATUS(status);
	}
}

/* struct pidfd_info of Linux 6.13; our headers are older. */
struct pidfd_info_0 {
	uint64_t mask;
	uint64_t cgroupid;
	uint32_t ids[11];
	int32_t exit_code;
};

#define PIDFD_INFO_EXIT_   (1u << 3)
#define PIDFD_GET_INFO_REQ _IOWR(0xff, 11, struct pidfd_info_0)

/* -EAGAIN: the kernel tells once its parent has reaped it; -ENOTTY and others: it never will. */
static int kernel_status(int pidfd, struct proc_exit *x)
{
	struct pidfd_info_0 info = {.mask = PIDFD_INFO_EXIT_};

	if (ioctl(pidfd, PIDFD_GET_INFO_REQ, &info) < 0)
		return errno == ESRCH ? -EAGAIN : -errno;
	if (!(info.mask & PIDFD_INFO_EXIT_))
		return -EAGAIN;
	exit_from_status(x, info.exit_code);
	return 0;
}

/* Of somebody else's child: as long as its parent has not reaped it, /proc tells how it ended. */
static int zombie_status(const struct proc *p, struct proc_exit *x)
{
	struct process_stat st;

	if (process_stat_read(p->pid, &st) < 0 || st.start_ticks != p->start_ticks ||
		st.state != 'Z')
		return -ESRCH;
	exit_from_status(x, st.exit_status);
	return 0;
}

/* 0; -EAGAIN when it cannot be told yet. */
static int reap(const struct proc *p, struct proc_exit *x)
{
	siginfo_t si = {0};
	int r;

	do
		r = waitid(P_PIDFD, (id_t)p->pidfd, &si, WEXITED | WNOHANG);
	while (r < 0 && errno == EINTR);
	if (r < 0 && errno == ECHILD) {
		if (zombie_status(p, x) == 0)
			return 0;
		r = kernel_status(p->pidfd, x);
		return r == -EAGAIN && p->n_retries < STATUS_RETRIES ? r : 0;
	}
	if (r < 0 && errno != EAGAIN)
		return 0;
	if (r < 0 || si.si_pid == 0)
		return -EAGAIN; /* a debugger sees its end first */
	x->known = true;
	if (si.si_code == CLD_EXITED)
		x->code = si.si_status;
	else
		x->signal = si.si_status;
	x->core = si.si_code == CLD_DUMPED;
	return 0;
}

/* The child is gone, and nobody else had its end: what it had to say about execve() is here. */
static int read_exec_errno(int fd)
{
	int code = 0;

	return fd >= 0 && recv(fd, &code, sizeof(code), MSG_DONTWAIT) == sizeof(code) ? code : 0;
}

static void on_retry(uv_timer_t *timer);

static void proc_ended(struct proc *p)
{
	struct proc_exit x = {0};

	uv_poll_stop(&p->poll);
	if (reap(p, &x) == -EAGAIN) {
		p->n_retries++;
		uv_timer_start(&p->timer, on_retry, STATUS_RETRY_MS, 0);
		return;
	}
	x.exec_errno = p->release_errno ? p->release_errno : read_exec_errno(p->stage);
	p->exited = true;
	list_remove(p);
	if (p->freed)
		proc_close(p);
	else
		p->cb(p, &x, p->arg); /* may free p, whose memory stays until libuv is done */
}

static void on_retry(uv_timer_t *timer)
{
	proc_ended(timer->data);
}

static void on_pidfd(uv_poll_t *poll, _unused_ int status, _unused_ int events)
{
	proc_ended(poll->data);
}

/* Takes pidfd over in any case. */
static int proc_watch(
	uv_loop_t *loop, pid_t pid, int pidfd, proc_exit_cb cb, void *arg, struct proc **out)
{
	struct proc *p = xcalloc(1, sizeof(*p));
	int r;

	r = uv_poll_init(loop, &p->poll, pidfd);
	if (r < 0) {
		close(pidfd);
		free(p);
		return r;
	}
	uv_timer_init(loop, &p->timer);
	p->n_handles = 2;
	p->poll.data = p->timer.data = p;
	p->pid = pid;
	p->pidfd = pidfd;
	p->stage = -1;
	p->cb = cb;
	p->arg = arg;
	uv_poll_start(&p->poll, UV_READABLE, on_pidfd);
	list_add(p);
	*out = p;
	return 0;
}

int proc_spawn(uv_loop_t *loop, const struct spawn_request *rq, proc_exit_cb cb, void *arg,
	struct proc **out, struct err *e)
{
	_cleanup_(stage_close) struct stage st = STAGE_NULL;
	struct proc *p = NULL;
	int pidfd, r;
	pid_t pid;

	*out = NULL;
	need_sigchld();
	r = stage_open(rq, &st, e);
	if (r < 0)
		return r;
	pid = stage_fork(rq, &st);
	if (pid < 0)
		return err_set_errno(e, -errno, "cannot fork");
	/* Descriptors that are free now, so that the pidfd finds one. */
	close(TAKE_FD(st.child));
	close(TAKE_FD(st.output));
	close(TAKE_FD(st.input));
	pidfd = pidfd_open(pid, 0);
	r = pidfd < 0 ? -errno : proc_watch(loop, pid, above_stdio(pidfd), cb, arg, &p);
	if (!p) {
		close(TAKE_FD(st.ours)); /* so it exits by itself */
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
		return err_set_errno(e, r, "cannot watch process %d", (int)pid);
	}
	p->stage = TAKE_FD(st.ours);
	p->start_ticks = process_start_ticks(pid);
	*out = p;
	return 0;
}

void proc_release(struct proc *p)
{
	ssize_t n;

	if (p->released || p->exited || p->stage < 0)
		return;
	p->released = true;
	do
		n = send(p->stage, "", 1, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EPIPE) {
		p->release_errno = errno;
		close(TAKE_FD(p->stage)); /* so it exits by itself */
	}
}

int proc_adopt(uv_loop_t *loop, pid_t pid, uint64_t start_ticks, proc_exit_cb cb, void *arg,
	struct proc **out)
{
	int pidfd, r;

	*out = NULL;
	pidfd = pid > 0 ? pidfd_open(pid, 0) : -1;
	if (pidfd < 0)
		return pid <= 0 || errno == EINVAL ? -ESRCH : -errno;
	/* Only now: the pidfd holds on to whatever has the number, and this says that it is the
	 * one. */
	if (start_ticks == 0 || process_start_ticks(pid) != start_ticks) {
		close(pidfd);
		return -ESRCH;
	}
	r = proc_watch(loop, pid, above_stdio(pidfd), cb, arg, out);
	if (r < 0)
		return r;
	(*out)->released = true;
	(*out)->start_ticks = start_ticks;
	return 0;
}

pid_t proc_pid(const struct proc *p)
{
	return p->pid;
}

uint64_t proc_start_ticks(const struct proc *p)
{
	return p->start_ticks;
}

void proc_free(struct proc *p)
{
	if (!p || p->freed)
		return;
	p->freed = true;
	if (p->released || p->exited) {
		proc_close(p);
	} else {
		/* It sees the end of file, exits at once, and is reaped by proc_ended(). */
		close(TAKE_FD(p->stage));
	}
}

/* ---- signals ---- */

/* A process that has ended, but was not reaped yet, would take signals without a word. */
static bool has_ended(int pidfd)
{
	struct pollfd pfd = {.fd = pidfd, .events = POLLIN};

	return poll(&pfd, 1, 0) > 0;
}

int proc_signal(struct proc *p, int sig)
{
	if (p->exited || has_ended(p->pidfd))
		return -ESRCH;
	return pidfd_send_signal(p->pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

int proc_kill_group(struct proc *p)
{
	struct process_stat st;
	int r = -ESRCH;

	if (p->exited)
		return r;
	/* Of a child the number cannot be anyone else's before we have reaped it. */
	if (process_stat_read(p->pid, &st) == 0 && st.start_ticks == p->start_ticks &&
		st.pgrp == p->pid && st.session == p->pid && kill(-p->pid, SIGKILL) == 0)
		r = 0;
	return pidfd_send_signal(p->pidfd, SIGKILL, NULL, 0) == 0 ? 0 : r;
}

struct stragglers {
	const char *mark;
	proc_wanted_fn *wanted; /* NULL: what has the mark and nothing behind it */
	void *arg;
	unsigned n;
};

static bool runs(const struct process_stat *st)
{
	return st->state != 'Z' && st->state != 'X';
}

static bool is_wanted(const struct stragglers *s, const char *rest)
{
	return s->wanted ? s->wanted(rest, s->arg) : !*rest;
}

/* The environment first: most processes have none of our marks. */
static int kill_if_straggler(pid_t pid, void *arg)
{
	_cleanup_free_ char *rest = NULL, *again = NULL;
	struct process_stat before, now;
	struct stragglers *s = arg;
	int pidfd;

	if (pid == getpid() || (s->wanted && proc_is_watched(pid)))
		return 0;
	rest = process_env(pid, s->mark);
	if (!rest || !is_wanted(s, rest) || process_stat_read(pid, &before) < 0 || !runs(&before))
		return 0;
	again = process_env(pid, s->mark);
	pidfd = streq_null(again, rest) ? pidfd_open(pid, 0) : -1;
	if (pidfd < 0)
		return 0;
	if (process_stat_read(pid, &now) == 0 && now.start_ticks == before.start_ticks &&
		runs(&now) && pidfd_send_signal(pidfd, SIGKILL, NULL, 0) == 0)
		s->n++;
	close(pidfd);
	return 0;
}

unsigned proc_kill_stragglers(const char *token)
{
	struct stragglers s = {.mark = token};

	process_each(kill_if_straggler, &s);
	return s.n;
}

unsigned proc_kill_marked(const char *mark, proc_wanted_fn *wanted, void *arg)
{
	struct stragglers s = {.mark = mark, .wanted = wanted, .arg = arg};

	process_each(kill_if_straggler, &s);
	return s.n;
}

int proc_can_look(void)
{
	int fds[3], r = 0; /* of /proc, of a file in it, and a pidfd */

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (fds[i] < 0)
			r = -errno;
	}
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		closep(&fds[i]);
	return r;
}
