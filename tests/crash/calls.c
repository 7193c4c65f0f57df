#include "calls.h"

#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "base/util.h"

/* How the arguments are read, and with that whether there is an effect. */
enum form {
	FORM_PATH,   /* argument `at` is a path */
	FORM_MAKE,   /* likewise; no effect if it is there already */
	FORM_REMOVE, /* likewise; no effect if it is not there */
	FORM_PATHS,  /* that and the one after it, or after the descriptor that follows */
	FORM_OPEN,   /* flags follow the path; effect if it creates or truncates */
	FORM_FILE,   /* descriptor 0 is a regular file; effect unless it is the daemon's log */
	FORM_WRITE,  /* the same, or a socket: as FORM_SEND */
	FORM_SEND, /* descriptor 0 is a socket; effect on AF_UNIX, or a request that is not a GET */
	FORM_BIND, /* effect if it makes a file (AF_UNIX) */
	FORM_FORK,
	FORM_WAIT,
	FORM_SIGNAL, /* the signal is argument `at` */
	FORM_END,
	FORM_NONE, /* no effect; listed for its name */
};

static const struct {
	long nr;
	const char *name;
	enum form form;
	int at;
} table[] = {
#ifdef SYS_open /* x86-64 and other old ones */
	{SYS_open, "open", FORM_OPEN, 0},
	{SYS_creat, "creat", FORM_PATH, 0},
	{SYS_mkdir, "mkdir", FORM_MAKE, 0},
	{SYS_rmdir, "rmdir", FORM_REMOVE, 0},
	{SYS_unlink, "unlink", FORM_REMOVE, 0},
	{SYS_rename, "rename", FORM_PATHS, 0},
	{SYS_link, "link", FORM_PATHS, 0},
	{SYS_symlink, "symlink", FORM_PATHS, 0},
	{SYS_mknod, "mknod", FORM_MAKE, 0},
	{SYS_chmod, "chmod", FORM_PATH, 0},
	{SYS_chown, "chown", FORM_PATH, 0},
	{SYS_lchown, "lchown", FORM_PATH, 0},
	{SYS_fork, "fork", FORM_FORK, 0},
	{SYS_vfork, "vfork", FORM_FORK, 0},
	{SYS_epoll_wait, "epoll_wait", FORM_NONE, 0},
	{SYS_poll, "poll", FORM_NONE, 0},
	{SYS_readlink, "readlink", FORM_NONE, 0},
	{SYS_access, "access", FORM_NONE, 0},
	{SYS_getdents64, "getdents64", FORM_NONE, 0},
#endif
	{SYS_openat, "openat", FORM_OPEN, 1},
	{SYS_mkdirat, "mkdirat", FORM_MAKE, 1},
	{SYS_unlinkat, "unlinkat", FORM_REMOVE, 1},
	{SYS_renameat, "renameat", FORM_PATHS, 1},
	{SYS_renameat2, "renameat2", FORM_PATHS, 1},
	{SYS_linkat, "linkat", FORM_PATHS, 1},
	{SYS_symlinkat, "symlinkat", FORM_PATH, 2},
	{SYS_mknodat, "mknodat", FORM_MAKE, 1},
	{SYS_fchmodat, "fchmodat", FORM_PATH, 1},
	{SYS_fchownat, "fchownat", FORM_PATH, 1},
	{SYS_utimensat, "utimensat", FORM_PATH, 1},
	{SYS_truncate, "truncate", FORM_PATH, 0},
	{SYS_setxattr, "setxattr", FORM_PATH, 0},
	{SYS_ftruncate, "ftruncate", FORM_FILE, 0},
	{SYS_fallocate, "fallocate", FORM_FILE, 0},
	{SYS_fchmod, "fchmod", FORM_FILE, 0},
	{SYS_fchown, "fchown", FORM_FILE, 0},
	{SYS_pwrite64, "pwrite64", FORM_FILE, 0},
	{SYS_pwritev, "pwritev", FORM_FILE, 0},
	{SYS_pwritev2, "pwritev2", FORM_FILE, 0},
	{SYS_sendfile, "sendfile", FORM_WRITE, 0},
	{SYS_write, "write", FORM_WRITE, 0},
	{SYS_writev, "writev", FORM_WRITE, 0},
	{SYS_sendto, "sendto", FORM_SEND, 0},
	{SYS_sendmsg, "sendmsg", FORM_SEND, 0},
	{SYS_sendmmsg, "sendmmsg", FORM_SEND, 0},
	{SYS_bind, "bind", FORM_BIND, 0},
	{SYS_clone, "clone", FORM_FORK, 0},
	{SYS_clone3, "clone3", FORM_FORK, 0},
	{SYS_wait4, "wait4", FORM_WAIT, 0},
	{SYS_waitid, "waitid", FORM_WAIT, 0},
	{SYS_kill, "kill", FORM_SIGNAL, 1},
	{SYS_tkill, "tkill", FORM_SIGNAL, 1},
	{SYS_tgkill, "tgkill", FORM_SIGNAL, 2},
	{SYS_pidfd_send_signal, "pidfd_send_signal", FORM_SIGNAL, 1},
	{SYS_execve, "execve", FORM_PATH, 0},
	{SYS_exit_group, "exit_group", FORM_END, 0},
	{SYS_accept4, "accept4", FORM_NONE, 0},
	{SYS_brk, "brk", FORM_NONE, 0},
	{SYS_clock_gettime, "clock_gettime", FORM_NONE, 0},
	{SYS_close, "close", FORM_NONE, 0},
	{SYS_connect, "connect", FORM_NONE, 0},
	{SYS_copy_file_range, "copy_file_range", FORM_FILE, 2},
	{SYS_epoll_ctl, "epoll_ctl", FORM_NONE, 0},
	{SYS_epoll_pwait, "epoll_pwait", FORM_NONE, 0},
	{SYS_fcntl, "fcntl", FORM_NONE, 0},
	{SYS_flock, "flock", FORM_NONE, 0},
	{SYS_fsync, "fsync", FORM_NONE, 0},
	{SYS_listen, "listen", FORM_NONE, 0},
	{SYS_mmap, "mmap", FORM_NONE, 0},
	{SYS_munmap, "munmap", FORM_NONE, 0},
	{SYS_newfstatat, "newfstatat", FORM_NONE, 0},
	{SYS_pidfd_open, "pidfd_open", FORM_NONE, 0},
	{SYS_read, "read", FORM_NONE, 0},
	{SYS_recvfrom, "recvfrom", FORM_NONE, 0},
	{SYS_rt_sigaction, "rt_sigaction", FORM_NONE, 0},
	{SYS_rt_sigprocmask, "rt_sigprocmask", FORM_NONE, 0},
	{SYS_setsockopt, "setsockopt", FORM_NONE, 0},
	{SYS_socket, "socket", FORM_NONE, 0},
	{SYS_socketpair, "socketpair", FORM_NONE, 0},
};

static size_t peek(pid_t pid, uint64_t from, void *to, size_t size)
{
	struct iovec here = {to, size}, there = {(void *)(uintptr_t)from, size};
	ssize_t n = process_vm_readv(pid, &here, 1, &there, 1, 0);

	return n < 0 ? 0 : (size_t)n;
}

/* Up to the end of its page at a time: the next one may not be there. */
static void peek_string(pid_t pid, uint64_t from, char *to, size_t size)
{
	size_t len = 0;

	while (len + 1 < size) {
		size_t chunk = MIN(size - 1 - len, 4096 - (size_t)((from + len) % 4096));
		size_t n = peek(pid, from + len, to + len, chunk);
		char *end = memchr(to + len, '\0', n);

		if (end)
			return;
		len += n;
		if (n < chunk)
			break;
	}
	to[len] = '\0';
}

static void fd_path(pid_t pid, uint64_t fd, char *to, size_t size)
{
	_cleanup_free_ char *link = xasprintf("/proc/%d/fd/%d", (int)pid, (int)fd);
	ssize_t n = readlink(link, to, size - 1);

	to[MAX(n, (ssize_t)0)] = '\0';
}

static bool is_regular(pid_t pid, uint64_t fd)
{
	_cleanup_free_ char *link = xasprintf("/proc/%d/fd/%d", (int)pid, (int)fd);
	struct stat st;

	return stat(link, &st) == 0 && S_ISREG(st.st_mode);
}

/* AF_UNSPEC: no socket. `named`: it has an address of its own. The copy is gone before it goes on.
 */
static int socket_domain(pid_t pid, uint64_t fd, bool *named)
{
	_cleanup_close_ int pidfd = pidfd_open(pid, 0);
	_cleanup_close_ int copy = pidfd < 0 ? -1 : pidfd_getfd(pidfd, (int)fd, 0);
	struct sockaddr_un sa = {0};
	socklen_t len = sizeof(sa);

	*named = false;
	if (copy < 0 || getsockname(copy, (struct sockaddr *)&sa, &len) < 0)
		return AF_UNSPEC;
	*named = len > offsetof(struct sockaddr_un, sun_path);
	return sa.sun_family;
}

/* The first bytes of what a send would carry. */
static void peek_payload(pid_t pid, const struct call *c, char *to, size_t size)
{
	uint64_t buf = c->args[1];
	struct msghdr msg;
	struct iovec iov;

	if (c->nr == SYS_sendmsg || c->nr == SYS_sendmmsg) {
		if (peek(pid, buf, &msg, sizeof(msg)) != sizeof(msg))
			return;
		buf = (uint64_t)(uintptr_t)msg.msg_iov;
	}
	if (c->nr == SYS_sendmsg || c->nr == SYS_sendmmsg || c->nr == SYS_writev) {
		if (peek(pid, buf, &iov, sizeof(iov)) != sizeof(iov))
			return;
		buf = (uint64_t)(uintptr_t)iov.iov_base;
		size = MIN(size, iov.iov_len + 1);
	} else {
		size = MIN(size, (size_t)c->args[2] + 1);
	}
	peek_string(pid, buf, to, size);
	for (char *p = to; *p; p++)
		if ((unsigned char)*p < ' ') {
			*p = '\0';
			break;
		}
}

static void describe_send(pid_t pid, struct call *c)
{
	char text[64] = "";
	bool named;
	int domain = socket_domain(pid, c->args[0], &named);

	peek_payload(pid, c, text, sizeof(text));
	if (domain == AF_UNIX) {
		c->effect = true;
		c->releases = !named && c->nr == SYS_sendto && c->args[2] == 1;
		snprintf(c->detail, sizeof(c->detail), "%s",
			c->releases ? "release of a child" : text);
	} else if (domain != AF_UNSPEC) {
		c->effect = *text && !has_prefix(text, "GET ") && !has_prefix(text, "HEAD ");
		snprintf(c->detail, sizeof(c->detail), "%s", text);
	} /* else an eventfd or a pipe of the daemon to itself */
}

static void describe_file(pid_t pid, struct call *c, int at)
{
	fd_path(pid, c->args[at], c->detail, sizeof(c->detail));
	c->effect = is_regular(pid, c->args[at]) && c->args[at] != STDOUT_FILENO &&
		    c->args[at] != STDERR_FILENO;
}

/* Relative to directory descriptor `at` - 1, where the call has one. */
static bool is_there(pid_t pid, const struct call *c, int at)
{
	_cleanup_free_ char *full = NULL;
	struct stat st;

	if (*c->detail != '/' && at > 0 && (int)c->args[at - 1] != AT_FDCWD)
		full = xasprintf("/proc/%d/fd/%d/%s", (int)pid, (int)c->args[at - 1], c->detail);
	else if (*c->detail != '/')
		full = xasprintf("/proc/%d/cwd/%s", (int)pid, c->detail);
	else
		full = xstrdup(c->detail);
	return lstat(full, &st) == 0;
}

static void describe_open(pid_t pid, struct call *c, int at)
{
	uint64_t flags = c->args[at + 1];

	peek_string(pid, c->args[at], c->detail, sizeof(c->detail));
	c->effect = (flags & O_TRUNC) || ((flags & O_CREAT) && !is_there(pid, c, at));
}

/* "FROM TO" */
static void describe_paths(pid_t pid, struct call *c, int at)
{
	char *d = c->detail;
	size_t len;

	peek_string(pid, c->args[at], d, sizeof(c->detail) / 2);
	len = strlen(d);
	d[len++] = ' ';
	peek_string(pid, c->args[at ? at + 2 : 1], d + len, sizeof(c->detail) - len);
	c->effect = true;
}

static void describe_signal(struct call *c, int at)
{
	int sig = (int)c->args[at];

	snprintf(c->detail, sizeof(c->detail), "SIG%s", sig ? sigabbrev_np(sig) : "0");
	c->effect = sig != 0;
}

static void describe_bind(pid_t pid, struct call *c)
{
	struct sockaddr_un sa = {0};

	peek(pid, c->args[1], &sa, MIN(sizeof(sa), (size_t)c->args[2]));
	c->effect = sa.sun_family == AF_UNIX && sa.sun_path[0]; /* an abstract name dies with it */
	if (c->effect)
		snprintf(c->detail, sizeof(c->detail), "%.107s", sa.sun_path);
}

static void describe(pid_t pid, struct call *c, enum form form, int at)
{
	switch (form) {
	case FORM_PATH:
	case FORM_MAKE:
	case FORM_REMOVE:
		peek_string(pid, c->args[at], c->detail, sizeof(c->detail));
		c->effect = form == FORM_PATH || is_there(pid, c, at) == (form == FORM_REMOVE);
		break;
	case FORM_PATHS:
		describe_paths(pid, c, at);
		break;
	case FORM_OPEN:
		describe_open(pid, c, at);
		break;
	case FORM_FILE:
		describe_file(pid, c, at);
		break;
	case FORM_WRITE:
		describe_file(pid, c, at);
		if (has_prefix(c->detail, "socket:"))
			describe_send(pid, c);
		break;
	case FORM_SEND:
		describe_send(pid, c);
		break;
	case FORM_BIND:
		describe_bind(pid, c);
		break;
	case FORM_FORK:
		c->effect = c->forks = true;
		break;
	case FORM_WAIT:
		c->effect = true;
		break;
	case FORM_SIGNAL:
		describe_signal(c, at);
		break;
	case FORM_END:
		c->effect = c->ends = true;
		break;
	case FORM_NONE:
		break;
	}
}

void call_describe(pid_t pid, struct call *c)
{
	c->effect = c->forks = c->releases = c->ends = false;
	c->detail[0] = '\0';
	snprintf(c->name, sizeof(c->name), "syscall-%u", (unsigned)c->nr);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if ((uint64_t)table[i].nr != c->nr)
			continue;
		snprintf(c->name, sizeof(c->name), "%s", table[i].name);
		describe(pid, c, table[i].form, table[i].at);
		return;
	}
}
