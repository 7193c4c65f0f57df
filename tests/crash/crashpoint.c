/* Kills a daemon at the N-th of its system calls.
 *
 *	crashpoint run PROGRAM ARGUMENTS...    executes it once it is traced (or after 10 s)
 *	crashpoint allow PROGRAM ARGUMENTS...  executes it at once; it may be traced later
 *	crashpoint trace [OPTIONS] PID
 *	    --exec      count from its execve() on, not from now on
 *	    --all       count all calls, not only those with effect (calls.h says which those are)
 *	    --releases  count only the releases of children (src/drv/spawn.h)
 *	    --at N      kill it with SIGKILL at the N-th
 *	    --exit      after that call was executed instead of before
 *	    --hold MS   children that have not executed yet when the N-th call is entered are
 *stopped, and go on so long after the daemon's death
 *
 * `run` and `allow` make the process traceable by any other of the same user, also where yama's
 * ptrace_scope is 1; the tracer is no relative of it, so that whoever started the daemon sees its
 * exit status, and it has no strange children. Only the daemon is traced, never what it forks. A
 * tracer that ends lets it run on.
 *
 * Printed, fields separated by tabs: "attached"; for each counted call (without --at) or the one at
 * which it was killed "call" or "killed", N, how many calls in all, name, details; "ended", N, how
 * many calls in all, wait status. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/util.h"
#include "calls.h"

#define MAX_CHILDREN 64
#define WAIT_MS      10000

struct trace {
	pid_t pid;
	bool from_exec, all, releases, at_exit;
	unsigned long at; /* 0: list them */
	unsigned hold_ms;

	bool counting, killed;
	unsigned long n, n_all;
	struct call call;           /* the one that was entered last */
	int children[MAX_CHILDREN]; /* pidfds */
	pid_t pids[MAX_CHILDREN];
	size_t n_children, n_held;
	int held[MAX_CHILDREN];
};

_noreturn_ static void fail(const char *what)
{
	fprintf(stderr, "crashpoint: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- the side of the daemon ---- */

static bool is_traced(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	int tracer = 0;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "TracerPid: %d", &tracer) == 1)
			break;
	if (f)
		fclose(f);
	return tracer != 0;
}

_noreturn_ static void become(char **argv, bool wait)
{
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* an error where there is no yama */
	for (unsigned i = 0; wait && !is_traced() && i < WAIT_MS; i++)
		usleep(1000);
	execv(argv[0], argv);
	fail(argv[0]);
}

/* ---- the tracer ---- */

static void print(const struct trace *t, const char *what)
{
	printf("%s\t%lu\t%lu\t%s\t%s\n", what, t->n, t->n_all, t->call.name, t->call.detail);
	fflush(stdout);
}

static bool same_program(pid_t a, pid_t b)
{
	_cleanup_free_ char *x = xasprintf("/proc/%d/exe", (int)a);
	_cleanup_free_ char *y = xasprintf("/proc/%d/exe", (int)b);
	struct stat sx, sy;

	return stat(x, &sx) == 0 && stat(y, &sy) == 0 && sx.st_ino == sy.st_ino &&
	       sx.st_dev == sy.st_dev;
}

/* The daemon stands still, so that nobody reaps them and their numbers stay theirs. */
static void hold_children(struct trace *t)
{
	for (size_t i = 0; i < t->n_children; i++)
		if (same_program(t->pid, t->pids[i]) &&
			pidfd_send_signal(t->children[i], SIGSTOP, NULL, 0) == 0)
			t->held[t->n_held++] = t->children[i];
}

static void let_children_go(struct trace *t)
{
	if (t->n_held)
		usleep(t->hold_ms * 1000);
	for (size_t i = 0; i < t->n_held; i++)
		pidfd_send_signal(t->held[i], SIGCONT, NULL, 0);
}

static void note_child(struct trace *t, pid_t child)
{
	if (child <= 0 || t->n_children == MAX_CHILDREN)
		return;
	t->pids[t->n_children] = child;
	t->children[t->n_children] = pidfd_open(child, 0);
	t->n_children++;
}

static void kill_daemon(struct trace *t)
{
	t->killed = true;
	kill(t->pid, SIGKILL);
	print(t, "killed");
}

static bool counts(const struct trace *t)
{
	if (t->releases)
		return t->call.releases;
	return t->all || t->call.effect;
}

static void on_entry(struct trace *t, const struct __ptrace_syscall_info *info)
{
	struct call *c = &t->call;

	c->nr = info->entry.nr;
	for (size_t i = 0; i < ARRAY_SIZE(c->args); i++)
		c->args[i] = info->entry.args[i];
	call_describe(t->pid, c);
	t->n_all++;
	if (!counts(t))
		return;
	t->n++;
	if (!t->at)
		print(t, "call");
	if (t->n != t->at)
		return;
	if (t->hold_ms)
		hold_children(t);
	if (!t->at_exit || c->ends)
		kill_daemon(t);
}

static void on_exit_of_call(struct trace *t, const struct __ptrace_syscall_info *info)
{
	if (t->call.forks && !info->exit.is_error)
		note_child(t, (pid_t)info->exit.rval);
	if (t->at && t->n == t->at && t->at_exit && counts(t))
		kill_daemon(t);
}

static void on_syscall(struct trace *t)
{
	struct __ptrace_syscall_info info;

	if (!t->counting || t->killed ||
		ptrace(PTRACE_GET_SYSCALL_INFO, t->pid, sizeof(info), &info) <= 0)
		return;
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
		on_entry(t, &info);
	else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
		on_exit_of_call(t, &info);
}

/* What it is to be continued with. */
static int on_stop(struct trace *t, int status)
{
	int sig = WSTOPSIG(status), event = status >> 16;

	if (sig == (SIGTRAP | 0x80)) {
		on_syscall(t);
		return 0;
	}
	if (event == PTRACE_EVENT_EXEC)
		t->counting = true;
	return event ? 0 : sig;
}

/* A stop by SIGSTOP and the like, not by us. */
static bool is_group_stop(int status)
{
	return status >> 16 == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP;
}

static int trace(struct trace *t)
{
	int status;

	if (ptrace(PTRACE_SEIZE, t->pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC) < 0 ||
		ptrace(PTRACE_INTERRUPT, t->pid, NULL, NULL) < 0)
		fail("cannot trace it");
	t->counting = !t->from_exec;
	if (waitpid(t->pid, &status, __WALL) < 0)
		fail("waitpid");
	puts("attached");
	fflush(stdout);
	while (WIFSTOPPED(status)) {
		int sig = on_stop(t, status);

		if (is_group_stop(status))
			ptrace(PTRACE_LISTEN, t->pid, NULL, NULL);
		else
			ptrace(PTRACE_SYSCALL, t->pid, NULL, sig);
		if (waitpid(t->pid, &status, __WALL) < 0)
			fail("waitpid");
	}
	printf("ended\t%lu\t%lu\t%d\n", t->n, t->n_all, status);
	fflush(stdout);
	let_children_go(t);
	return 0;
}

static int usage(void)
{
	fputs("usage: crashpoint run|allow PROGRAM ARGUMENTS...\n"
	      "       crashpoint trace [--exec] [--all | --releases] [--at N [--exit] [--hold MS]] "
	      "PID\n",
		stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"exec", no_argument, NULL, 'e'},
		{"all", no_argument, NULL, 'a'},
		{"releases", no_argument, NULL, 'r'},
		{"at", required_argument, NULL, 'n'},
		{"exit", no_argument, NULL, 'x'},
		{"hold", required_argument, NULL, 'h'},
		{0},
	};
	static struct trace t;
	int o;

	if (argc > 2 && (streq(argv[1], "run") || streq(argv[1], "allow")))
		become(argv + 2, streq(argv[1], "run"));
	if (argc < 3 || !streq(argv[1], "trace"))
		return usage();
	argc--, argv++;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		t.from_exec |= o == 'e';
		t.all |= o == 'a';
		t.releases |= o == 'r';
		t.at_exit |= o == 'x';
		if (o == 'n')
			t.at = strtoul(optarg, NULL, 10);
		else if (o == 'h')
			t.hold_ms = (unsigned)strtoul(optarg, NULL, 10);
		else if (o == '?')
			return usage();
	}
	if (optind != argc - 1)
		return usage();
	t.pid = (pid_t)strtol(argv[optind], NULL, 10);
	return trace(&t);
}
