/* Preloaded into programs that run under valgrind. Debian 12's valgrind 3.19 does not know the
 * system calls pidfd_open and pidfd_send_signal and answers ENOSYS; so a helper outside of valgrind
 * (`run --serve`, beside this file) makes them, and descriptors travel over a unix socket.
 *
 * Forked children that execute nothing are not checked for leaks: they end by _exit(), with all
 * that their parent had. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include <valgrind/valgrind.h>

struct call {
	int what; /* 0: open, 1: send a signal */
	int arg;  /* pid, signal */
};

union ancillary {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static int reach_helper(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	const char *name = getenv("H2OFLEET_PIDFD_HELPER");
	int fd, n;

	if (!name) {
		errno = ENOSYS;
		return -1;
	}
	/* An abstract name: it begins with a NUL byte. */
	n = snprintf(sa.sun_path + 1, sizeof(sa.sun_path) - 1, "%s", name);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&sa,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) == 0)
		return fd;
	close(fd);
	return -1;
}

/* `sent`: a descriptor that goes along, or -1. Returns what the system call returned in the helper,
 * with errno; *received is the descriptor that came back, or -1. */
static int ask(struct call call, int sent, int *received)
{
	union ancillary out = {{0}}, in = {{0}};
	struct iovec iov = {&call, sizeof(call)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	int fd = reach_helper(), error = EIO;
	struct cmsghdr *c;

	*received = -1;
	if (fd < 0)
		return -1;
	if (sent >= 0) {
		m.msg_control = out.buf;
		m.msg_controllen = sizeof(out.buf);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &sent, sizeof(int));
	}
	if (sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)sizeof(call)) {
		iov = (struct iovec){&error, sizeof(error)};
		m = (struct msghdr){.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = in.buf,
			.msg_controllen = sizeof(in.buf)};
		if (recvmsg(fd, &m, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(error))
			error = EIO;
		c = CMSG_FIRSTHDR(&m);
		if (c && c->cmsg_type == SCM_RIGHTS)
			memcpy(received, CMSG_DATA(c), sizeof(int));
	}
	close(fd);
	errno = error;
	return error ? -1 : 0;
}

int pidfd_open(pid_t pid, unsigned int flags)
{
	int fd;

	(void)flags;
	if (ask((struct call){0, pid}, -1, &fd) < 0)
		return -1;
	if (fd < 0)
		errno = EMFILE; /* no room for it here */
	return fd;
}

int pidfd_send_signal(int pidfd, int sig, siginfo_t *info, unsigned int flags)
{
	int none;

	(void)info;
	(void)flags;
	return ask((struct call){1, sig}, pidfd, &none);
}

long syscall(long number, ...)
{
	long (*real)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (size_t i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_pidfd_open)
		return pidfd_open((pid_t)a[0], (unsigned)a[1]);
	if (number == SYS_pidfd_send_signal)
		return pidfd_send_signal((int)a[0], (int)a[1], NULL, 0);
	return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void in_child(void)
{
	VALGRIND_CLO_CHANGE("--leak-check=no");
}

__attribute__((constructor)) static void begin(void)
{
	pthread_atfork(NULL, NULL, in_child);
}
