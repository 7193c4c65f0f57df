#include "cli/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "conf/conf.h"
#include "core/fleet.h"
#include "drv/procinfo.h"
#include "model/plan.h"

/* Somebody who kills it again and again means it. */
#define MAX_STARTS 20
/* What a daemon may need beyond its clouds' stop_timeout. */
#define MORE_END_MS 8000
#define LEFT_MS     20000
#define KILL_MS     10000
#define LOOK_MS     10
#define HASTE_MS    300u
/* Another daemon in charge of the directory: one more round. */
#define END_ROUNDS  4
#define MAX_ENVIRON (2u << 20)

struct guardian {
	struct run_place place;
	const char *program; /* the daemon's */
	struct conf *conf;   /* NULL: there is none yet, so there never was a daemon */
	int signals;         /* of SIGCHLD */
	pid_t daemon;        /* 0: none */
	int daemon_fd;       /* pidfd; -1: none */
	bool is_child;
	int status; /* of a child that was reaped; -1: not yet, or not known */
	unsigned starts;
	bool orderly; /* the last daemon ended as it should, and left nothing */
	bool lost;
	bool haste; /* told to hurry */
	bool deaf;  /* `run` is gone */
};

static void say(const char *word)
{
	send(GUARDIAN_CONTROL, word, strlen(word), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- processes ---- */

/* All children: as a subreaper we inherit what a killed daemon leaves. */
static void reap(struct guardian *g)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == g->daemon)
			g->status = status;
}

static void to_log(const struct guardian *g)
{
	int fd = open(
		g->place.daemon_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return;
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	close(fd);
}

/* A session of its own each: what kills our process group does not kill the daemon. With us it dies
 * only until it holds the lock of the state directory, by which the guardian after us finds it
 * (daemon/run.c). What ends what is left behind dies with us; the next guardian runs it again. */
static pid_t run_program(const struct guardian *g, const char *mode, int input)
{
	char *argv[] = {
		(char *)"h2ofleetd", (char *)"--config", g->place.config, (char *)mode, NULL};
	pid_t self = getpid(), pid = fork();
	sigset_t none;

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != self)
		_exit(127);
	setsid();
	dup2(input, STDIN_FILENO);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execv(g->program, argv);
	log_error("cannot execute %s: %s", g->program, strerror(errno));
	_exit(127);
}

static bool watch(struct guardian *g, pid_t pid, bool is_child)
{
	g->daemon_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (g->daemon_fd < 0)
		return false;
	fcntl(g->daemon_fd, F_SETFD, FD_CLOEXEC);
	g->daemon = pid;
	g->is_child = is_child;
	g->status = -1;
	g->orderly = false;
	return true;
}

static void forget(struct guardian *g)
{
	close(g->daemon_fd);
	g->daemon_fd = -1;
	g->daemon = 0;
}

static bool wait_readable(int fd, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, timeout_ms) > 0;
}

/* ---- the daemon ---- */

/* One that an earlier guardian started, if it holds the lock of the state directory. */
static bool take_over(struct guardian *g)
{
	pid_t pid, again;

	for (unsigned i = 0; i < 100; i++) {
		if (fleet_find_daemon(&g->conf->fleet, &pid) != -EBUSY)
			return false;
		if (pid > 0 && watch(g, pid, false)) {
			/* Then the number is still its own. */
			if (fleet_find_daemon(&g->conf->fleet, &again) == -EBUSY && again == pid)
				return true;
			forget(g);
		}
		usleep(LOOK_MS * 1000);
	}
	return false;
}

static bool load(struct guardian *g)
{
	struct conf_errors errors = {0};

	if (!g->conf && conf_load(g->place.config, &g->conf, &errors) < 0)
		g->conf = NULL;
	conf_errors_free(&errors);
	return g->conf != NULL;
}

static void lose(struct guardian *g)
{
	g->lost = true;
	say(GUARDIAN_LOST);
}

static void start(struct guardian *g)
{
	pid_t pid;

	if (g->daemon || g->lost)
		return;
	if (load(g) && take_over(g))
		return;
	to_log(g);
	pid = g->conf && g->starts++ < MAX_STARTS
		      ? run_program(g, "--until-eof", GUARDIAN_LIFE_READ)
		      : -1;
	if (pid < 0 || !watch(g, pid, true))
		lose(g);
}

/* Not by itself? Of another guardian's child we cannot know; if it ends by itself, then so does the
 * next, whose status is ours to see. */
static bool was_killed(const struct guardian *g)
{
	return !g->is_child || g->status == -1 || WIFSIGNALED(g->status);
}

static void daemon_gone(struct guardian *g)
{
	bool killed;

	reap(g);
	killed = was_killed(g);
	g->orderly = g->is_child && g->status == 0;
	forget(g);
	if (!g->orderly && take_over(g))
		return; /* ours came second */
	if (killed)
		start(g);
	else
		lose(g);
}

/* ---- the end ---- */

/* Told to hurry while something ends? When `run` is gone nobody will tell. */
static void listen_for_haste(struct guardian *g)
{
	char word[16] = "";

	if (recv(GUARDIAN_CONTROL, word, sizeof(word) - 1, MSG_DONTWAIT) <= 0)
		g->deaf = true;
	else
		g->haste = streq(word, GUARDIAN_HASTE);
}

/* Is it gone within that time? In haste it is asked more than once, since two signals that come at
 * the same moment are one. */
static bool wait_gone(struct guardian *g, uint64_t timeout_ms)
{
	uint64_t end = clock_monotonic_ms() + timeout_ms, now;

	while ((now = clock_monotonic_ms()) < end) {
		struct pollfd fds[] = {
			{.fd = g->daemon_fd, .events = POLLIN},
			{.fd = g->deaf || g->haste ? -1 : GUARDIAN_CONTROL, .events = POLLIN},
		};

		poll(fds, 2, (int)MIN(end - now, g->haste ? HASTE_MS : 60000u));
		if (fds[0].revents) {
			reap(g);
			return true;
		}
		if (fds[1].revents) {
			listen_for_haste(g);
			if (g->haste)
				end = MIN(end, clock_monotonic_ms() + MORE_END_MS);
		}
		if (g->haste)
			syscall(SYS_pidfd_send_signal, g->daemon_fd, SIGTERM, NULL, 0);
	}
	return false;
}

static uint64_t patience_ms(const struct guardian *g)
{
	uint64_t ms = MORE_END_MS;

	for (size_t i = 0; i < g->conf->n_clouds; i++)
		ms += g->conf->clouds[i]->stop_timeout_ms;
	return ms;
}

static void end_daemon(struct guardian *g)
{
	if (!g->daemon && !take_over(g))
		return;
	syscall(SYS_pidfd_send_signal, g->daemon_fd, SIGTERM, NULL, 0);
	if (!wait_gone(g, patience_ms(g))) {
		syscall(SYS_pidfd_send_signal, g->daemon_fd, SIGKILL, NULL, 0);
		wait_readable(g->daemon_fd, KILL_MS);
		reap(g);
	}
	g->orderly = g->is_child && g->status == 0;
	forget(g);
}

/* What a killed daemon has left, in order, by a daemon that does only that. */
static void end_left_behind(struct guardian *g)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pid_t pid = run_program(g, "--end-left-behind", null);

	close(null);
	if (pid < 0 || !watch(g, pid, true))
		return;
	if (!wait_gone(g, LEFT_MS)) {
		syscall(SYS_pidfd_send_signal, g->daemon_fd, SIGKILL, NULL, 0);
		wait_readable(g->daemon_fd, KILL_MS);
		reap(g);
	}
	g->orderly = g->status == 0;
	forget(g);
}

/* A JVM removes it at an orderly end. */
static void remove_perf_file(pid_t pid)
{
	const struct passwd *pw = getpwuid(geteuid());
	_cleanup_free_ char *path =
		pw ? xasprintf("/tmp/hsperfdata_%s/%d", pw->pw_name, (int)pid) : NULL;
	struct stat st;

	if (path && lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid())
		unlink(path);
}

struct rest {
	const char *mark; /* what the token of this fleet's processes begins with */
	unsigned n;
};

static bool is_marked(pid_t pid, const char *mark)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/environ", (int)pid), *env = NULL;
	size_t len = 0;

	if (!mark || file_read(path, MAX_ENVIRON, &env, &len) < 0)
		return false;
	for (size_t i = 0; i < len; i += strlen(env + i) + 1)
		if (has_prefix(env + i, mark))
			return true;
	return false;
}

/* Our children are what a daemon that was killed has left to us. */
static int kill_if_rest(pid_t pid, void *arg)
{
	struct rest *rest = arg;
	struct process_stat st;
	_cleanup_close_ int fd = -1;
	bool marked;

	if (pid == getpid())
		return 0;
	fd = (int)syscall(SYS_pidfd_open, pid, 0); /* before the look: then it is this one */
	marked = fd >= 0 && is_marked(pid, rest->mark);
	if (fd < 0 || process_stat_read(pid, &st) < 0 || st.state == 'Z' || st.state == 'X' ||
		(!marked && st.ppid != getpid()))
		return 0;
	syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	rest->n++;
	if (marked && wait_readable(fd, 200))
		remove_perf_file(pid);
	return 0;
}

static void kill_rest(struct guardian *g)
{
	_cleanup_free_ char *path = xasprintf("%s/fleet-id", g->conf->fleet.state_dir);
	_cleanup_free_ char *id = NULL, *mark = NULL;
	uint64_t end = clock_monotonic_ms() + KILL_MS;
	struct rest rest;

	if (file_read(path, 64, &id, NULL) == 0 && strlen(id) >= 16)
		mark = xasprintf(TOKEN_ENV "=%.16s/", id);
	do {
		rest = (struct rest){.mark = mark};
		process_each(kill_if_rest, &rest);
		if (rest.n)
			usleep(LOOK_MS * 1000);
		reap(g);
	} while (rest.n && clock_monotonic_ms() < end);
}

static void remove_place(const struct guardian *g, bool keep)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (keep && rename(g->place.dir, g->place.kept) < 0)
		rmdir(g->place.dir); /* of a guardian that came after the one that had done it */
	else if (!keep && file_remove_tree(g->place.dir, &e) < 0)
		file_remove_tree(g->place.dir, NULL); /* something that was being written */
	if (g->place.socket_dir)
		file_remove_tree(g->place.socket_dir, NULL);
}

static void end(struct guardian *g, bool keep)
{
	if (load(g)) {
		to_log(g);
		for (unsigned i = 0; i < END_ROUNDS; i++) {
			end_daemon(g);
			if (g->orderly)
				break;
			end_left_behind(g);
		}
		kill_rest(g);
	}
	remove_place(g, keep);
	conf_free(TAKE_PTR(g->conf));
}

/* ---- life ---- */

/* It may be there: the work of a guardian that was killed. */
static int make_dir(const char *path)
{
	struct stat st;

	if (mkdir(path, 0700) == 0)
		return 0;
	if (errno == EEXIST && lstat(path, &st) == 0 && S_ISDIR(st.st_mode) &&
		st.st_uid == geteuid())
		return 0;
	return -1;
}

static int make_place(const struct guardian *g)
{
	_cleanup_free_ char *what = NULL;

	if (make_dir(g->place.dir) == 0 &&
		(!g->place.socket_dir || make_dir(g->place.socket_dir) == 0))
		return 0;
	what = xasprintf("cannot make a directory in %.*s: %s",
		(int)(strrchr(g->place.dir, '/') - g->place.dir), g->place.dir, strerror(errno));
	rmdir(g->place.dir);
	say(what);
	return -1;
}

/* Nothing of the terminal or of the caller's pipes may hang on us, and no signal ends us but
 * SIGKILL: we are to be there when all others are gone. */
static void stand_apart(struct guardian *g)
{
	int null = open("/dev/null", O_RDWR);
	sigset_t all;

	setsid();
	prctl(PR_SET_NAME, "h2ofleet-guard");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGCHLD, SIG_DFL);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	for (int fd = GUARDIAN_CONTROL; fd <= GUARDIAN_LIFE_WRITE; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	close_range(GUARDIAN_LIFE_WRITE + 1, ~0u, 0);
	sigemptyset(&all);
	sigaddset(&all, SIGCHLD);
	g->signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (chdir("/") < 0)
		log_warning("cannot go to /: %s", strerror(errno));
}

/* What it is told: true at the end. */
static bool listen_to_run(struct guardian *g, bool *keep)
{
	char word[16] = "";
	ssize_t n = recv(GUARDIAN_CONTROL, word, sizeof(word) - 1, MSG_DONTWAIT);

	if (n < 0)
		return errno != EAGAIN && errno != EINTR;
	if (streq(word, GUARDIAN_START))
		start(g);
	*keep = streq(word, GUARDIAN_KEEP);
	return n == 0 || *keep || streq(word, GUARDIAN_END);
}

static bool live(struct guardian *g)
{
	bool keep = false;

	for (;;) {
		struct pollfd fds[] = {
			{.fd = GUARDIAN_CONTROL, .events = POLLIN},
			{.fd = g->signals, .events = POLLIN},
			{.fd = g->daemon_fd, .events = POLLIN},
		};
		struct signalfd_siginfo info;

		poll(fds, 3, -1);
		while (read(g->signals, &info, sizeof(info)) > 0)
			continue;
		reap(g);
		if (fds[2].revents)
			daemon_gone(g);
		if (fds[0].revents && listen_to_run(g, &keep))
			return keep;
	}
}

int guardian_main(int argc, char **argv)
{
	struct guardian g = {.daemon_fd = -1, .status = -1};
	int r;

	if (argc != 4) {
		fprintf(stderr, GUARDIAN_NAME " is started by `h2ofleet run`\n");
		return 2;
	}
	run_place_set(&g.place, argv[1], argv[2]);
	g.program = argv[3];
	stand_apart(&g);
	r = make_place(&g);
	if (r == 0) {
		run_place_hold(g.place.dir);
		if (g.place.socket_dir)
			run_place_hold(g.place.socket_dir);
		say(GUARDIAN_MADE);
		end(&g, live(&g));
	}
	run_place_free(&g.place);
	return r < 0;
}
