/* Proves what spawn.h promises about children: identity before exec, nothing inherited, exits told
 * exactly once, signals only to what is ours. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "drv/machine.h"
#include "drv/procinfo.h"
#include "drv/spawn.h"
#include "drv_test.h"

/* Of this run alone: stragglers are known by nothing else. */
static char token[64];

/* In a forked process an assertion would go on with the other tests. */
static bool in_fork;

struct seen {
	unsigned n;
	struct proc_exit exit;
	bool keep; /* do not free in the callback */
};

struct fixture {
	uv_loop_t loop;
	char *dir;
	char *out;    /* output of children */
	char *marker; /* a child's proof that it ran */
};

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	assert_int_equal(uv_loop_init(&f->loop), 0);
	f->dir = make_temp_dir();
	f->out = xasprintf("%s/out", f->dir);
	f->marker = xasprintf("%s/marker", f->dir);
	/* Orphans of the tests come to us, so that none stays a zombie of a careless init. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	finish_loop(&f->loop);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		continue;
	file_remove_tree(f->dir, NULL);
	free(f->dir);
	free(f->out);
	free(f->marker);
	free(f);
	return 0;
}

static void on_proc_exit(struct proc *p, const struct proc_exit *x, void *arg)
{
	struct seen *s = arg;

	s->n++;
	s->exit = *x;
	if (!s->keep)
		proc_free(p);
}

static char *const env_token[] = {(char *)"PATH=/usr/bin:/bin", token, NULL};

static struct proc *spawn_argv(struct fixture *f, char *const *argv, struct seen *s)
{
	struct spawn_request rq = {.argv = argv, .env = env_token, .output_path = f->out};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct proc *p;

	if (proc_spawn(&f->loop, &rq, on_proc_exit, s, &p, &e) < 0) {
		if (in_fork)
			_exit(99);
		fail_msg("%s", err_msg(&e));
	}
	if (in_fork)
		return p;
	assert_true(proc_pid(p) > 1);
	assert_int_equal(proc_start_ticks(p), process_start_ticks(proc_pid(p)));
	return p;
}

/* Waits for release. */
static struct proc *spawn_sh(struct fixture *f, const char *script, struct seen *s)
{
	char *const argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};

	return spawn_argv(f, argv, s);
}

static void run_to_end(struct fixture *f, struct proc *p, struct seen *s)
{
	proc_release(p);
	assert_true(run_until(&f->loop, &s->n, 1));
	assert_int_equal(s->n, 1);
}

/* Exit code, environment, directory and appended output arrive; the log is not for all to read. */
static void test_exit_code_and_output(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *text = NULL;
	struct seen s = {0};
	struct stat st;

	assert_int_equal(file_write_atomic(f->out, "old\n", 4, 0640, false, NULL), 0);
	run_to_end(f, spawn_sh(f, "pwd; echo err ${H2OFLEET_TEST_TOKEN%-*} >&2; exit 7", &s), &s);
	assert_true(s.exit.known);
	assert_int_equal(s.exit.code, 7);
	assert_int_equal(s.exit.signal, 0);
	assert_int_equal(s.exit.exec_errno, 0);
	text = read_text(f->out);
	assert_string_equal(text, "old\n/\nerr 7c1e\n");

	unlink(f->out);
	s.n = 0;
	run_to_end(f, spawn_sh(f, "exit 0", &s), &s);
	assert_int_equal(stat(f->out, &st), 0);
	assert_int_equal(st.st_mode & 0137, 0);
}

static void test_exit_by_signal(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0};

	run_to_end(f, spawn_sh(f, "kill -TERM $$", &s), &s);
	assert_true(s.exit.known);
	assert_int_equal(s.exit.signal, SIGTERM);
	assert_int_equal(s.exit.exec_errno, 0);
}

/* What execve() said comes back, and is told from a program's own exit code 127. */
static void test_exec_failures(void **state)
{
	struct fixture *f = *state;
	char *const missing[] = {(char *)"/nonexistent/java", NULL};
	char *const no_program[] = {(char *)"/etc/passwd", NULL};
	struct seen a = {0}, b = {0}, c = {0};

	run_to_end(f, spawn_argv(f, missing, &a), &a);
	assert_int_equal(a.exit.exec_errno, ENOENT);
	run_to_end(f, spawn_argv(f, no_program, &b), &b);
	assert_int_equal(b.exit.exec_errno, EACCES);
	run_to_end(f, spawn_sh(f, "exit 127", &c), &c);
	assert_int_equal(c.exit.exec_errno, 0);
	assert_int_equal(c.exit.code, 127);
}

/* Failures before the fork have a sentence with the path, and start nothing. */
static void test_bad_paths(void **state)
{
	struct fixture *f = *state;
	char *const argv[] = {(char *)"/bin/true", NULL};
	struct spawn_request rq = {.argv = argv, .env = env_token, .output_path = "/nonexistent/x"};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	unsigned fds = count_open_fds();
	struct proc *p;

	assert_int_equal(proc_spawn(&f->loop, &rq, on_proc_exit, NULL, &p, &e), -ENOENT);
	assert_non_null(strstr(err_msg(&e), "/nonexistent/x"));
	assert_null(p);
	/* A log path that somebody made a link. */
	assert_int_equal(symlink("/etc/passwd", f->marker), 0);
	rq.output_path = f->marker;
	assert_int_equal(proc_spawn(&f->loop, &rq, on_proc_exit, NULL, &p, &e), -ELOOP);
	rq.output_path = NULL;
	rq.cwd = "/nonexistent/dir";
	assert_int_equal(proc_spawn(&f->loop, &rq, on_proc_exit, NULL, &p, &e), -ENOENT);
	assert_non_null(strstr(err_msg(&e), "/nonexistent/dir"));
	assert_int_equal(count_open_fds(), fds);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* It waits as long as nobody releases it; freed, it goes without having run, and is reaped. */
static void test_nothing_runs_before_release(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *script = xasprintf("echo ran > %s", f->marker);
	struct seen s = {0};
	struct proc *p = spawn_sh(f, script, &s);
	pid_t pid = proc_pid(p);

	run_for(&f->loop, 100);
	assert_int_equal(s.n, 0);
	assert_int_equal(access(f->marker, F_OK), -1);
	assert_int_equal(proc_signal(p, 0), 0);
	proc_free(p);
	assert_true(wait_gone(pid));
	finish_loop(&f->loop);
	assert_int_equal(s.n, 0);
	assert_int_equal(access(f->marker, F_OK), -1);
	assert_int_equal(kill(pid, 0), -1); /* not even a zombie */
	assert_int_equal(uv_loop_init(&f->loop), 0);
}

/* The daemon dies between fork and release: the child goes, and has run nothing. */
static void test_parent_dies_before_release(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *script = xasprintf("echo ran > %s", f->marker);
	int fds[2], status;
	pid_t parent, child;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	parent = fork();
	if (parent == 0) {
		struct fixture own = {.out = f->out};
		struct seen s = {0};

		in_fork = true;
		uv_loop_init(&own.loop);
		child = proc_pid(spawn_sh(&own, script, &s));
		if (write(fds[1], &child, sizeof(child)) != sizeof(child))
			_exit(1);
		_exit(0);
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &child, sizeof(child)), sizeof(child));
	close(fds[0]);
	assert_int_equal(waitpid(parent, &status, 0), parent);
	assert_int_equal(status, 0);
	/* As the subreaper we get the orphan, and its status. */
	assert_true(wait_gone(child));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(access(f->marker, F_OK), -1);
}

/* Killed while it waits: the exit is told, and a late release does no harm (no SIGPIPE). */
static void test_exit_before_release(void **state)
{
	struct fixture *f = *state;
	struct seen s = {.keep = true};
	struct proc *p = spawn_sh(f, "exit 0", &s);

	assert_int_equal(proc_signal(p, SIGKILL), 0);
	assert_true(wait_gone(proc_pid(p)));
	proc_release(p); /* ended, but we have not heard of it yet */
	assert_true(run_until(&f->loop, &s.n, 1));
	assert_int_equal(s.exit.signal, SIGKILL);
	assert_int_equal(s.exit.exec_errno, 0);
	proc_release(p);
	assert_int_equal(proc_signal(p, SIGTERM), -ESRCH);
	assert_int_equal(proc_kill_group(p), -ESRCH);
	proc_free(p);
}

/* Several wait at once; none holds the other's release end open. */
static void test_several_wait_independently(void **state)
{
	struct fixture *f = *state;
	struct seen s[4] = {0};
	struct proc *p[4];
	pid_t first;

	for (int i = 0; i < 4; i++)
		p[i] = spawn_sh(f, "exit 4", &s[i]);
	first = proc_pid(p[0]);
	proc_free(p[0]);
	assert_true(wait_gone(first));
	for (int i = 3; i > 0; i--) {
		run_to_end(f, p[i], &s[i]);
		assert_int_equal(s[i].exit.code, 4);
	}
	assert_int_equal(s[0].n, 0);
}

/* Whatever is open here, also without close-on-exec, is not open there. */
static void test_no_descriptor_leaks(void **state)
{
	struct fixture *f = *state;
	char *const argv[] = {(char *)"/bin/ls", (char *)"/proc/self/fd", NULL};
	_cleanup_free_ char *text = NULL;
	int leak = open("/dev/zero", O_RDONLY); /* NOLINT: not close-on-exec */
	struct seen s = {0};
	struct proc *p;

	assert_int_equal(dup2(leak, 200), 200);
	p = spawn_argv(f, argv, &s);
	run_to_end(f, p, &s);
	close(leak);
	close(200);
	text = read_text(f->out);
	assert_string_equal(text, "0\n1\n2\n3\n"); /* 3 is the directory that ls reads */
}

/* A JVM honours an inherited SIG_IGN, and cannot be stopped by a blocked SIGTERM. */
static void test_signals_are_reset(void **state)
{
	struct fixture *f = *state;
	char *const argv[] = {
		(char *)"/bin/grep", (char *)"^Sig[BI]", (char *)"/proc/self/status", NULL};
	_cleanup_free_ char *text = NULL;
	struct sigaction ign = {.sa_handler = SIG_IGN}, old_int, old_pipe, old_rt;
	sigset_t block, old, now;
	struct seen s = {0};
	struct proc *p;

	sigaction(SIGINT, &ign, &old_int);
	sigaction(SIGPIPE, &ign, &old_pipe);
	sigaction(SIGRTMAX, &ign, &old_rt);
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigprocmask(SIG_BLOCK, &block, &old);
	p = spawn_argv(f, argv, &s);
	sigprocmask(SIG_SETMASK, &old, &now);
	sigaction(SIGINT, &old_int, &ign);
	sigaction(SIGPIPE, &old_pipe, NULL);
	sigaction(SIGRTMAX, &old_rt, NULL);
	assert_true(sigismember(&now, SIGTERM)); /* ours are as they were */
	assert_false(sigismember(&now, SIGUSR1));
	assert_true(ign.sa_handler == SIG_IGN);
	run_to_end(f, p, &s);
	text = read_text(f->out);
	assert_string_equal(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

static void test_own_session_and_group(void **state)
{
	struct fixture *f = *state;
	char *const argv[] = {(char *)"/usr/bin/cut", (char *)"-d ", (char *)"-f1,5,6",
		(char *)"/proc/self/stat", NULL};
	_cleanup_free_ char *text = NULL;
	struct seen s = {0};
	int pid = 0, pgrp = 1, session = 2;
	struct proc *p = spawn_argv(f, argv, &s);
	pid_t expected = proc_pid(p);

	run_to_end(f, p, &s);
	text = read_text(f->out);
	assert_int_equal(sscanf(text, "%d %d %d", &pid, &pgrp, &session), 3);
	assert_int_equal(pid, expected);
	assert_int_equal(pgrp, expected);
	assert_int_equal(session, expected);
}

/* The daemon may raise its limit on descriptors; nodes get the one that it was given. */
static void test_descriptor_limit_is_restored(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *text = NULL, *expected = NULL;
	struct rlimit old, low, high;
	struct seen s = {0};
	struct proc *p;

	if (getenv("H2OFLEET_VALGRIND"))
		skip(); /* it keeps limits of its own */
	getrlimit(RLIMIT_NOFILE, &old);
	low = high = old;
	low.rlim_cur = 512;
	high.rlim_cur = 600;
	setrlimit(RLIMIT_NOFILE, &low);
	spawn_save_limits();
	setrlimit(RLIMIT_NOFILE, &high);
	p = spawn_sh(f, "ulimit -Sn; ulimit -Hn", &s);
	setrlimit(RLIMIT_NOFILE, &old);
	spawn_save_limits();
	run_to_end(f, p, &s);
	text = read_text(f->out);
	if (old.rlim_max == RLIM_INFINITY)
		expected = xstrdup("512\nunlimited\n");
	else
		expected = xasprintf("512\n%llu\n", (unsigned long long)old.rlim_max);
	assert_string_equal(text, expected);
}

/* Wherever the descriptors run out, there is an error with a sentence, no child and no leak. */
static void test_out_of_descriptors(void **state)
{
	struct fixture *f = *state;
	char *const argv[] = {(char *)"/bin/true", NULL};
	struct spawn_request rq = {.argv = argv, .env = env_token, .output_path = f->out};
	unsigned fds = count_open_fds(), failures = 0;
	struct seen s = {0};
	struct rlimit old, low;
	struct proc *p = NULL;

	if (getenv("H2OFLEET_VALGRIND"))
		skip(); /* it keeps limits of its own */
	getrlimit(RLIMIT_NOFILE, &old);
	/* From "no descriptor is free" up, one more each time. */
	for (rlim_t limit = 3; !p && limit < 200; limit++) {
		_cleanup_(err_clear) struct err e = ERR_NULL;
		int r;

		low = old;
		low.rlim_cur = limit;
		setrlimit(RLIMIT_NOFILE, &low);
		r = proc_spawn(&f->loop, &rq, on_proc_exit, &s, &p, &e);
		setrlimit(RLIMIT_NOFILE, &old);
		if (r == 0)
			break;
		assert_int_equal(r, -EMFILE);
		assert_non_null(strstr(err_msg(&e), strerror(EMFILE)));
		assert_null(p);
		assert_int_equal(count_open_fds(), fds);
		assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
		failures++;
	}
	assert_true(failures > 3);
	assert_non_null(p);
	run_to_end(f, p, &s);
	assert_int_equal(s.exit.code, 0);
}

/* A daemon that was started with 0, 1 and 2 closed gives its children proper ones all the same. */
static void test_without_stdio_of_our_own(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *text = NULL;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct fixture own = {.out = f->out};
		struct seen s = {0};
		struct proc *p;

		in_fork = true;
		uv_loop_init(&own.loop); /* has descriptors of its own */
		close(0);
		close(1);
		close(2);
		p = spawn_sh(&own, "cat; echo out; echo err >&2; exit 3", &s);
		proc_release(p);
		if (!run_until(&own.loop, &s.n, 1))
			_exit(1);
		_exit(s.exit.code == 3 ? 0 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	text = read_text(f->out);
	assert_string_equal(text, "out\nerr\n");
}

/* An ignored SIGCHLD, inherited from whoever started us, would lose exit codes. */
static void test_ignored_sigchld(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0};

	signal(SIGCHLD, SIG_IGN);
	run_to_end(f, spawn_sh(f, "exit 9", &s), &s);
	signal(SIGCHLD, SIG_DFL);
	assert_true(s.exit.known);
	assert_int_equal(s.exit.code, 9);
}

/* A signal to what has ended is -ESRCH, also before the loop has heard of the end. */
static void test_signal(void **state)
{
	struct fixture *f = *state;
	struct seen s = {.keep = true};
	struct proc *p = spawn_sh(f, "echo up; exec sleep 1000", &s);
	_cleanup_free_ char *line = NULL;

	proc_release(p);
	line = await_line(f->out);
	assert_string_equal(line, "up\n");
	assert_int_equal(proc_signal(p, SIGTERM), 0);
	assert_true(wait_gone(proc_pid(p)));
	assert_int_equal(proc_signal(p, SIGTERM), -ESRCH);
	assert_true(run_until(&f->loop, &s.n, 1));
	assert_int_equal(s.exit.signal, SIGTERM);
	proc_free(p);
}

/* The number in the output of a script that says who its background process is. */
static pid_t background_pid(struct fixture *f)
{
	_cleanup_free_ char *line = await_line(f->out);

	assert_true(atoi(line) > 1);
	return (pid_t)atoi(line);
}

static void test_kill_group_takes_grandchildren(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0};
	struct proc *p = spawn_sh(f, "sleep 1000 & echo $!; wait", &s);
	pid_t grandchild;

	proc_release(p);
	grandchild = background_pid(f);
	assert_int_equal(proc_kill_group(p), 0);
	assert_true(wait_gone(grandchild));
	assert_true(run_until(&f->loop, &s.n, 1));
	assert_int_equal(s.exit.signal, SIGKILL);
}

/* The leader is gone and not reaped yet: its group is still ours. */
static void test_kill_group_of_a_dead_leader(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0};
	struct proc *p = spawn_sh(f, "sleep 1000 & echo $!", &s);
	pid_t grandchild;

	proc_release(p);
	grandchild = background_pid(f);
	assert_true(wait_gone(proc_pid(p)));
	assert_int_equal(proc_kill_group(p), 0);
	assert_true(wait_gone(grandchild));
	assert_true(run_until(&f->loop, &s.n, 1));
	assert_int_equal(s.exit.code, 0);
}

/* Whatever carries the token, and only that; the dead do not count. */
static void test_stragglers(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0};
	struct proc *p = spawn_sh(f, "sleep 1000 & echo $!", &s);
	pid_t straggler;

	run_to_end(f, p, &s);
	straggler = background_pid(f);
	/* Until the shell's child has become sleep it may be in the middle of its exec. */
	for (char comm[32] = ""; !streq(comm, "sleep"); poll(NULL, 0, 1))
		process_comm(straggler, comm);
	assert_int_equal(proc_kill_stragglers("H2OFLEET_TEST_TOKEN=other"), 0);
	assert_int_equal(kill(straggler, 0), 0);
	assert_int_equal(proc_kill_stragglers(token), 1);
	assert_true(wait_gone(straggler));
	assert_int_equal(proc_kill_stragglers(token), 0);
}

static bool note_and_want(const char *rest, void *arg)
{
	replace_str(arg, rest);
	return true;
}

/* The same by the beginning of a token; what is watched is left alone. */
static void test_marked(void **state)
{
	_cleanup_free_ char *mark = xstrndup(token, strlen(token) - 2), *rest = NULL;
	struct fixture *f = *state;
	struct seen s = {0}, alive = {0};
	struct proc *p = spawn_sh(f, "sleep 1000 & echo $!", &s), *watched;
	pid_t straggler;

	run_to_end(f, p, &s);
	straggler = background_pid(f);
	for (char comm[32] = ""; !streq(comm, "sleep"); poll(NULL, 0, 1))
		process_comm(straggler, comm);
	watched = spawn_sh(f, "exec sleep 1000", &alive);
	proc_release(watched);
	for (char comm[32] = ""; !streq(comm, "sleep"); poll(NULL, 0, 1))
		process_comm(proc_pid(watched), comm);
	assert_int_equal(proc_kill_marked("H2OFLEET_TEST_TOKEN=other", note_and_want, &rest), 0);
	assert_null(rest);
	assert_int_equal(proc_kill_marked(mark, note_and_want, &rest), 1);
	assert_string_equal(rest, token + strlen(mark));
	assert_true(wait_gone(straggler));
	assert_int_equal(proc_signal(watched, SIGKILL), 0);
	assert_true(run_until(&f->loop, &alive.n, 1));
}

/* Of a process that is not our child the end is seen, and what its status is where the kernel says
 * so. Its parent reaps it. */
static void test_adopted_exit(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0}, parent = {0};
	struct proc *p = spawn_sh(f, "sleep 1000 & echo $!; wait; exec sleep 1000", &parent), *a;
	pid_t pid;

	proc_release(p);
	pid = background_pid(f);
	assert_int_equal(
		proc_adopt(&f->loop, pid, process_start_ticks(pid), on_proc_exit, &s, &a), 0);
	assert_int_equal(proc_pid(a), pid);
	proc_release(a); /* nothing to do */
	run_for(&f->loop, 50);
	assert_int_equal(s.n, 0);
	assert_int_equal(proc_signal(a, SIGTERM), 0);
	assert_true(run_until(&f->loop, &s.n, 1));
	if (s.exit.known)
		assert_int_equal(s.exit.signal, SIGTERM);
	print_message("the kernel tells the status of an adopted process: %s\n",
		s.exit.known ? "yes" : "no");
	assert_int_equal(proc_kill_group(p), 0);
	assert_true(run_until(&f->loop, &parent.n, 1));
}

/* A parent that never reaps (some container's PID 1) does not keep us from seeing the end, and how
 * it came. */
static void test_adopted_exit_unreaped(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0}, parent = {0};
	struct proc *p = spawn_sh(f, "sleep 1000 & echo $!; exec sleep 1000", &parent), *a;
	pid_t pid;

	proc_release(p);
	pid = background_pid(f);
	assert_int_equal(
		proc_adopt(&f->loop, pid, process_start_ticks(pid), on_proc_exit, &s, &a), 0);
	/* The shell reaps until it has become sleep. */
	for (char comm[32] = ""; !streq(comm, "sleep"); poll(NULL, 0, 1))
		process_comm(proc_pid(p), comm);
	assert_int_equal(proc_signal(a, SIGKILL), 0);
	assert_true(run_until(&f->loop, &s.n, 1));
	assert_true(s.exit.known);
	assert_int_equal(s.exit.signal, SIGKILL);
	assert_int_equal(proc_kill_group(p), 0);
	assert_true(run_until(&f->loop, &parent.n, 1));
}

/* After the daemon has replaced its own image, what it adopts still is its child. */
static void test_adopted_child(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0};
	struct proc *p;
	pid_t pid = fork();

	if (pid == 0) {
		poll(NULL, 0, 50);
		_exit(6);
	}
	assert_int_equal(
		proc_adopt(&f->loop, pid, process_start_ticks(pid), on_proc_exit, &s, &p), 0);
	assert_true(run_until(&f->loop, &s.n, 1));
	assert_true(s.exit.known);
	assert_int_equal(s.exit.code, 6);
}

/* A recycled number is not taken for the process that had it. */
static void test_adopt_refuses_strangers(void **state)
{
	struct fixture *f = *state;
	unsigned fds = count_open_fds();
	struct proc *p;
	pid_t pid;

	assert_int_equal(proc_adopt(&f->loop, getpid(), process_start_ticks(getpid()) + 1,
				 on_proc_exit, NULL, &p),
		-ESRCH);
	assert_int_equal(proc_adopt(&f->loop, getpid(), 0, on_proc_exit, NULL, &p), -ESRCH);
	assert_int_equal(proc_adopt(&f->loop, -1, 1, on_proc_exit, NULL, &p), -ESRCH);
	pid = fork();
	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(proc_adopt(&f->loop, pid, 12345, on_proc_exit, NULL, &p), -ESRCH);
	assert_null(p);
	assert_int_equal(count_open_fds(), fds);
}

/* Detaching: the process lives on, nothing is called, the loop can be closed. */
static void test_free_leaves_it_running(void **state)
{
	struct fixture *f = *state;
	struct seen s = {0};
	struct proc *p = spawn_sh(f, "echo up; exec sleep 1000", &s);
	_cleanup_free_ char *line = NULL;
	pid_t pid = proc_pid(p);

	proc_release(p);
	proc_free(p);
	proc_free(NULL);
	finish_loop(&f->loop);
	line = await_line(f->out);
	assert_string_equal(line, "up\n");
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(s.n, 0);
	assert_int_equal(uv_loop_init(&f->loop), 0);
}

int main(void)
{
	snprintf(token, sizeof(token), "H2OFLEET_TEST_TOKEN=7c1e-%d", (int)getpid());
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_exit_code_and_output),
		TEST(test_exit_by_signal),
		TEST(test_exec_failures),
		TEST(test_bad_paths),
		TEST(test_nothing_runs_before_release),
		TEST(test_parent_dies_before_release),
		TEST(test_exit_before_release),
		TEST(test_several_wait_independently),
		TEST(test_no_descriptor_leaks),
		TEST(test_signals_are_reset),
		TEST(test_own_session_and_group),
		TEST(test_descriptor_limit_is_restored),
		TEST(test_out_of_descriptors),
		TEST(test_without_stdio_of_our_own),
		TEST(test_ignored_sigchld),
		TEST(test_signal),
		TEST(test_kill_group_takes_grandchildren),
		TEST(test_kill_group_of_a_dead_leader),
		TEST(test_stragglers),
		TEST(test_marked),
		TEST(test_adopted_exit),
		TEST(test_adopted_exit_unreaped),
		TEST(test_adopted_child),
		TEST(test_adopt_refuses_strangers),
		TEST(test_free_leaves_it_running),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
