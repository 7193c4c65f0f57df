/* The command of a run: it stays in our process group, so that the terminal's Ctrl-C and Ctrl-Z go
 * to it, it may read from the terminal, and a pipeline around us is what it always was. */
#include "cli/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"

#define KILL_AFTER_MS 10000

/* Passed on. Those that stop and continue act on both of us by themselves. */
static const int passed[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH};

/* ---- before it ---- */

static int cannot(struct run *r, int code, const char *why)
{
	return cli_fail(r->cli, code, "cannot run %s: %s", r->words.v[0], why);
}

/* As execvpe(3) will find it: a wrong name should not cost the start of a cloud. */
static int look_at(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno == ENOENT || errno == ENOTDIR ? CLI_NOT_FOUND : CLI_CANNOT_EXECUTE;
	return S_ISREG(st.st_mode) && access(path, X_OK) == 0 ? CLI_OK : CLI_CANNOT_EXECUTE;
}

static int look_on_path(const char *name)
{
	const char *path = getenv("PATH"), *dir;
	_cleanup_free_ char *dirs = xstrdup(path ? path : "/bin:/usr/bin");
	char *rest = dirs;
	int code = CLI_NOT_FOUND;

	while (code != CLI_OK && (dir = strsep(&rest, ":"))) {
		_cleanup_free_ char *whole = xasprintf("%s%s%s", dir, *dir ? "/" : "", name);
		int one = *name ? look_at(whole) : CLI_NOT_FOUND;

		code = one == CLI_NOT_FOUND ? code : one;
	}
	return code;
}

int run_look_for_command(struct run *r)
{
	const char *name = r->words.v[0];
	int code = strchr(name, '/') ? look_at(name) : look_on_path(name);

	if (code == CLI_NOT_FOUND)
		return cannot(r, code, "there is no such command");
	return code == CLI_OK ? code : cannot(r, code, "it cannot be executed");
}

/* ---- signals ---- */

void run_catch_signals(struct run *r)
{
	sigset_t mask;

	sigemptyset(&mask);
	for (size_t i = 0; i < ARRAY_SIZE(passed); i++) {
		struct sigaction old;

		/* What is ignored stays so (nohup; a shell's background jobs), also for the command
		 */
		if (sigaction(passed[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaddset(&mask, passed[i]);
	}
	signal(SIGCHLD, SIG_DFL);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, &r->old_mask);
	r->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	r->old_pipe = signal(SIGPIPE, SIG_IGN); /* we have to end what we began */
}

void run_release_signals(struct run *r)
{
	close(r->signals);
	r->signals = -1;
	signal(SIGPIPE, r->old_pipe);
	sigprocmask(SIG_SETMASK, &r->old_mask, NULL);
}

int run_take_signal(struct run *r)
{
	struct signalfd_siginfo info;
	int got = 0;

	while (read(r->signals, &info, sizeof(info)) == sizeof(info)) {
		int sig = (int)info.ssi_signo;

		if (sig == SIGHUP || sig == SIGINT || sig == SIGQUIT || sig == SIGTERM)
			got = sig;
		r->terminal_interrupt |= sig == SIGINT && info.ssi_code == SI_KERNEL;
	}
	return got;
}

/* What the terminal sends has gone to the command, too; but a hangup goes to the session's leader
 * alone. */
static void pass_on(struct run *r, const struct signalfd_siginfo *info)
{
	int sig = (int)info->ssi_signo;

	if (sig == SIGCHLD)
		return;
	if (info->ssi_code != SI_KERNEL || sig == SIGHUP)
		kill(r->child, sig);
	else if (sig == SIGINT)
		r->terminal_interrupt = true;
}

/* ---- it ---- */

_noreturn_ static void become_command(struct run *r, char **env, pid_t parent, int report)
{
	int saved;

	/* The cloud ends with us: what would the command do without? */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(CLI_RUN_FAILED);
	run_release_signals(r);
	execvpe(r->words.v[0], r->words.v, env);
	saved = errno;
	if (write(report, &saved, sizeof(saved)) < 0)
		saved = errno;
	_exit(CLI_CANNOT_EXECUTE);
}

static void command_env(struct strv *env, const struct strv *more)
{
	for (char **v = environ; *v; v++) {
		bool replaced = has_prefix(*v, "H2O_CONTEXT_PATH=");

		for (size_t i = 0; i < more->n; i++)
			replaced |= strncmp(*v, more->v[i], strcspn(more->v[i], "=") + 1) == 0;
		if (!replaced)
			strv_add(env, *v);
	}
	for (size_t i = 0; i < more->n; i++)
		strv_add(env, more->v[i]);
}

/* CLI_OK when it runs. */
static int start(struct run *r, const struct strv *more)
{
	_cleanup_(strv_free) struct strv env = STRV_NULL;
	pid_t us = getpid();
	int report[2], failed = 0;
	ssize_t n;

	command_env(&env, more);
	if (pipe2(report, O_CLOEXEC) < 0)
		return cannot(r, CLI_RUN_FAILED, strerror(errno));
	r->child = fork();
	if (r->child == 0)
		become_command(r, env.v, us, report[1]);
	failed = r->child < 0 ? errno : 0;
	close(report[1]);
	n = failed ? 0 : read(report[0], &failed, sizeof(failed));
	close(report[0]);
	if (r->child < 0)
		return cannot(r, CLI_RUN_FAILED, strerror(failed));
	if (n != sizeof(failed))
		return CLI_OK;
	waitpid(r->child, NULL, 0);
	r->child = 0;
	return cannot(r, failed == ENOENT ? CLI_NOT_FOUND : CLI_CANNOT_EXECUTE, strerror(failed));
}

/* Its time is over: first asked, then forced. When to come again. */
static int press(struct run *r, unsigned *step)
{
	uint64_t now = clock_monotonic_ms(), due = r->deadline_ms + *step * KILL_AFTER_MS;

	if (!r->deadline_ms || *step > 1)
		return -1;
	if (now < due)
		return (int)MIN(due - now, 60000u);
	if (*step == 0)
		cli_fail(r->cli, CLI_TIMED_OUT, "the command has not ended within %s; ending it",
			r->timeout);
	kill(r->child, *step == 0 ? SIGTERM : SIGKILL);
	kill(r->child, SIGCONT);
	++*step;
	return 0;
}

static bool has_ended(struct run *r)
{
	pid_t pid = waitpid(r->child, &r->status, WNOHANG);

	return pid == r->child || (pid < 0 && errno == ECHILD);
}

int run_command(struct run *r, const struct strv *env)
{
	struct signalfd_siginfo info;
	unsigned pressed = 0;
	int code = start(r, env);

	if (code != CLI_OK)
		return code;
	while (!has_ended(r)) {
		struct pollfd fds[] = {
			{.fd = r->signals, .events = POLLIN},
			{.fd = r->guard.control, .events = POLLIN},
		};

		poll(fds, 2, press(r, &pressed));
		if (fds[1].revents)
			guard_turn(&r->guard);
		while (read(r->signals, &info, sizeof(info)) == sizeof(info))
			pass_on(r, &info);
	}
	/* The Ctrl-C that ended it may have come behind the last look. */
	while (read(r->signals, &info, sizeof(info)) == sizeof(info))
		r->terminal_interrupt |= info.ssi_signo == SIGINT && info.ssi_code == SI_KERNEL;
	r->child = 0;
	if (pressed)
		return CLI_TIMED_OUT;
	return WIFSIGNALED(r->status) ? 128 + WTERMSIG(r->status) : WEXITSTATUS(r->status);
}
