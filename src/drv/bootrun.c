#include "drv/bootrun.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"

#define TICK_MS    50 /* how soon a wait sees that we are to end */
#define OUTPUT_MAX 65536

static const int ending[] = {SIGTERM, SIGINT, SIGHUP};
static struct sigaction before[ARRAY_SIZE(ending)];
static volatile sig_atomic_t told;

static void on_signal(int sig)
{
	told = sig;
}

void boot_catch_signals(bool on)
{
	struct sigaction sa = {.sa_handler = on_signal};

	for (size_t i = 0; i < ARRAY_SIZE(ending); i++) {
		if (!on)
			sigaction(ending[i], &before[i], NULL);
		else if (sigaction(ending[i], NULL, &before[i]) == 0 &&
			 before[i].sa_handler != SIG_IGN) /* nohup */
			sigaction(ending[i], &sa, NULL);
	}
	if (on)
		told = 0;
}

bool boot_told_to_end(void)
{
	return told != 0;
}

/* Only async-signal-safe calls. What fails goes through `report`, which exec closes. */
_noreturn_ static void child(
	char *const *argv, char *const *env, const char *cwd, int out, int report, pid_t parent)
{
	sigset_t none;
	int null, code;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	setpgid(0, 0);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
	null = open("/dev/null", O_RDONLY);
	if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
		dup2(out, STDERR_FILENO) >= 0 && (!cwd || chdir(cwd) == 0)) {
		close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
		execve(argv[0], argv, env);
	}
	code = errno;
	if (write(report, &code, sizeof(code)) < 0)
		_exit(126);
	_exit(127);
}

int boot_spawn(char *const *argv, char *const *env, const char *cwd, int out,
	struct boot_process *p, struct err *e)
{
	_cleanup_close_ int rd = -1, wr = -1;
	pid_t parent = getpid();
	int fds[2], code;
	ssize_t n;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_set_errno(e, -errno, "cannot start %s", argv[0]);
	rd = fds[0];
	wr = fds[1];
	p->pid = fork();
	if (p->pid == 0)
		child(argv, env, cwd, out, wr, parent);
	if (p->pid < 0) {
		p->pid = 0;
		return err_set_errno(e, -errno, "cannot fork");
	}
	setpgid(p->pid, p->pid); /* here as well: who kills the group first must find it */
	p->pidfd = pidfd_open(p->pid, 0);
	close(TAKE_FD(wr));
	do
		n = read(rd, &code, sizeof(code));
	while (n < 0 && errno == EINTR);
	if (n == 0 && p->pidfd >= 0)
		return 0;
	boot_end(p);
	return err_set_errno(e, n > 0 ? -code : -EIO, "%s cannot be executed", argv[0]);
}

int boot_ended_with(const struct boot_process *p)
{
	siginfo_t si = {0};

	if (waitid(P_PIDFD, (id_t)p->pidfd, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || !si.si_pid)
		return -1;
	return si.si_code == CLD_EXITED ? si.si_status : 128 + si.si_status;
}

int boot_not_its_fault(int code, const char *output, struct err *e)
{
	/* A JVM that is told to end has exit code 128 + signal, too. */
	static const int outside[] = {SIGHUP, SIGINT, SIGTERM};
	static const char *const wants[] = {"insufficient memory", "Not enough space",
		"Cannot allocate memory", "Could not reserve enough space",
		"java.lang.OutOfMemoryError"};

	if (boot_told_to_end())
		return err_set(e, -EINTR, "told to end");
	if (code == 128 + SIGKILL)
		return err_set(e, -ENOMEM,
			"java was killed, as it is when memory runs out; nothing is known of the "
			"archive");
	for (size_t i = 0; i < ARRAY_SIZE(outside); i++)
		if (code == 128 + outside[i])
			return err_set(
				e, -ECANCELED, "java was told to end by signal %d", outside[i]);
	for (size_t i = 0; i < ARRAY_SIZE(wants); i++)
		if (strstr(output, wants[i]))
			return err_set(e, -ENOMEM, "java had too little memory: \"%s\"", wants[i]);
	return 0;
}

bool boot_has_ended(const struct boot_process *p)
{
	struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

	return poll(&pfd, 1, 0) > 0;
}

static void forget(struct boot_process *p)
{
	closep(&p->pidfd);
	*p = BOOT_PROCESS_NULL;
}

int boot_wait(struct boot_process *p, uint64_t timeout_ms, int *status)
{
	uint64_t deadline = clock_monotonic_ms() + timeout_ms;
	struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

	while (poll(&pfd, 1, TICK_MS) <= 0) {
		if (boot_told_to_end())
			return -EINTR;
		if (clock_monotonic_ms() >= deadline)
			return -ETIMEDOUT;
	}
	while (waitpid(p->pid, status, 0) < 0 && errno == EINTR)
		continue;
	forget(p);
	return 0;
}

void boot_end(struct boot_process *p)
{
	if (p->pid <= 0)
		return;
	kill(-p->pid, SIGKILL); /* not reaped yet, so the group is still its own */
	kill(p->pid, SIGKILL);
	while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	forget(p);
}

/* What was written into the memfd. */
static char *read_output(int fd)
{
	char *text = xmalloc(OUTPUT_MAX + 1);
	ssize_t n = pread(fd, text, OUTPUT_MAX, 0);

	text[MAX(n, 0)] = '\0';
	return text;
}

int boot_run(char *const *argv, char *const *env, const char *cwd, uint64_t timeout_ms,
	char **output, struct err *e)
{
	_cleanup_close_ int out = memfd_create("output", MFD_CLOEXEC);
	struct boot_process p = BOOT_PROCESS_NULL;
	int status, r;

	*output = NULL;
	if (out < 0)
		return err_set_errno(e, -errno, "cannot collect the output of %s", argv[0]);
	r = boot_spawn(argv, env, cwd, out, &p, e);
	if (r < 0)
		return r;
	r = boot_wait(&p, timeout_ms, &status);
	if (r < 0) {
		boot_end(&p);
		if (r == -EINTR)
			return err_set(e, r, "told to end");
		return err_set(
			e, r, "%s did not end within %u s", argv[0], (unsigned)(timeout_ms / 1000));
	}
	*output = read_output(out);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
