/* The calls that can fail, each in front of the real one. */
#undef _FORTIFY_SOURCE /* which gives them other names, and declares these */
#include "fault.h"

#include <curl/curl.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <microhttpd.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* The next one in the order of libraries: that of the C library, or of a sanitizer. */
#define NEXT(name)                                                                                 \
	static __typeof__(name) *next;                                                             \
	if (!next)                                                                                 \
	next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define FAIL(failure, name, detail)                                                                \
	do {                                                                                       \
		int code_ = fault_due(name, detail);                                               \
                                                                                                   \
		if (code_) {                                                                       \
			errno = code_;                                                             \
			return failure;                                                            \
		}                                                                                  \
	} while (0)

/* The failure is what it returns then; errno says why. */
#define CALL(type, failure, name, params, args)                                                    \
	type name params                                                                           \
	{                                                                                          \
		NEXT(name);                                                                        \
		FAIL(failure, #name, NULL);                                                        \
		return next args;                                                                  \
	}

/* One with a path, which is listed. */
#define CALL_PATH(type, failure, name, path, params, args)                                         \
	type name params                                                                           \
	{                                                                                          \
		NEXT(name);                                                                        \
		FAIL(failure, #name, path);                                                        \
		return next args;                                                                  \
	}

/* One that can also do a part: half of `size` bytes. */
#define CALL_PART(name, size, params, args) CALL_PART_AS(name, #name, size, params, args)
#define CALL_PART_AS(name, called, size, params, args)                                             \
	ssize_t name params                                                                        \
	{                                                                                          \
		int code = fault_due(called, NULL);                                                \
		NEXT(name);                                                                        \
                                                                                                   \
		if (code == FAULT_SHORT) {                                                         \
			size = (size + 1) / 2;                                                     \
		} else if (code) {                                                                 \
			errno = code;                                                              \
			return -1;                                                                 \
		}                                                                                  \
		return next args;                                                                  \
	}

/* ---- memory ---- */

CALL(void *, NULL, malloc, (size_t n), (n))
CALL(void *, NULL, calloc, (size_t n, size_t size), (n, size))
CALL(void *, NULL, realloc, (void *p, size_t n), (p, n))
CALL(void *, MAP_FAILED, mmap, (void *p, size_t n, int prot, int flags, int fd, off_t from),
	(p, n, prot, flags, fd, from))

/* ---- processes ---- */

CALL(pid_t, -1, fork, (void), ())
CALL_PATH(int, -1, execve, path, (const char *path, char *const argv[], char *const env[]),
	(path, argv, env))
CALL_PATH(int, -1, execv, path, (const char *path, char *const argv[]), (path, argv))
CALL(int, -1, waitid, (idtype_t type, id_t id, siginfo_t *si, int options), (type, id, si, options))
CALL(pid_t, -1, waitpid, (pid_t pid, int *status, int options), (pid, status, options))
CALL(int, -1, kill, (pid_t pid, int sig), (pid, sig))
CALL(int, -1, pidfd_open, (pid_t pid, unsigned flags), (pid, flags))
CALL(int, -1, pidfd_send_signal, (int fd, int sig, siginfo_t *si, unsigned flags),
	(fd, sig, si, flags))
CALL(pid_t, -1, setsid, (void), ())
CALL(int, -1, setpgid, (pid_t pid, pid_t group), (pid, group))
CALL(int, -1, setrlimit, (__rlimit_resource_t what, const struct rlimit *rl), (what, rl))
CALL(int, -1, getrlimit, (__rlimit_resource_t what, struct rlimit *rl), (what, rl))
CALL(int, -1, setpriority, (__priority_which_t which, id_t who, int prio), (which, who, prio))
CALL(int, -1, sigaction, (int sig, const struct sigaction *sa, struct sigaction *old),
	(sig, sa, old))
CALL_PATH(int, -1, chdir, path, (const char *path), (path))
CALL(int, -1, fchdir, (int fd), (fd))
CALL(int, -1, close_range, (unsigned from, unsigned to, int flags), (from, to, flags))

int prctl(int option, ...)
{
	unsigned long a[4];
	va_list ap;
	NEXT(prctl);

	va_start(ap, option);
	for (int i = 0; i < 4; i++)
		a[i] = va_arg(ap, unsigned long);
	va_end(ap);
	FAIL(-1, "prctl", NULL);
	return next(option, a[0], a[1], a[2], a[3]);
}

long syscall(long nr, ...)
{
	long a[6];
	va_list ap;
	NEXT(syscall);

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	FAIL(-1, "syscall", NULL);
	return next(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- files ---- */

/* Opening what is there has other reasons to fail than creating. */
#define OPEN(name, opened, params, args)                                                           \
	int name params                                                                            \
	{                                                                                          \
		mode_t mode = 0;                                                                   \
		va_list ap;                                                                        \
		NEXT(name);                                                                        \
                                                                                                   \
		va_start(ap, flags);                                                               \
		if (flags & (O_CREAT | __O_TMPFILE))                                               \
			mode = va_arg(ap, mode_t);                                                 \
		va_end(ap);                                                                        \
		FAIL(-1, flags &O_CREAT ? "create" : "open", opened);                              \
		return next args;                                                                  \
	}

OPEN(open, path, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, path, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, path, (int dir, const char *path, int flags, ...), (dir, path, flags, mode))
OPEN(openat64, path, (int dir, const char *path, int flags, ...), (dir, path, flags, mode))

/* What _FORTIFY_SOURCE makes of them, in our programs and in libraries. */
#define OPEN_CHECKED(name, params, args)                                                           \
	int name params;                                                                           \
	int name params                                                                            \
	{                                                                                          \
		NEXT(name);                                                                        \
		FAIL(-1, "open", path);                                                            \
		return next args;                                                                  \
	}

OPEN_CHECKED(__open_2, (const char *path, int flags), (path, flags))
OPEN_CHECKED(__open64_2, (const char *path, int flags), (path, flags))
OPEN_CHECKED(__openat64_2, (int dir, const char *path, int flags), (dir, path, flags))

CALL_PATH(FILE *, NULL, fopen, path, (const char *path, const char *mode), (path, mode))
CALL_PATH(FILE *, NULL, fopen64, path, (const char *path, const char *mode), (path, mode))
CALL_PATH(DIR *, NULL, opendir, path, (const char *path), (path))
CALL(DIR *, NULL, fdopendir, (int fd), (fd))
CALL(struct dirent *, NULL, readdir, (DIR * d), (d))
CALL_PATH(int, -1, scandir, path,
	(const char *restrict path, struct dirent ***restrict names,
		int (*filter)(const struct dirent *),
		int (*compare)(const struct dirent **, const struct dirent **)),
	(path, names, filter, compare))
CALL(int, -1, memfd_create, (const char *name, unsigned flags), (name, flags))

CALL_PART_AS(
	read, fault_name(fd, "read", "read-other"), n, (int fd, void *buf, size_t n), (fd, buf, n))
CALL_PART(pread, n, (int fd, void *buf, size_t n, off_t at), (fd, buf, n, at))
CALL_PART_AS(write, fault_name(fd, "write", "write-other"), n, (int fd, const void *buf, size_t n),
	(fd, buf, n))
CALL_PART(pwrite, n, (int fd, const void *buf, size_t n, off_t at), (fd, buf, n, at))
CALL(ssize_t, -1, writev, (int fd, const struct iovec *iov, int n), (fd, iov, n))
CALL_PART(splice, n, (int in, off64_t *from, int out, off64_t *to, size_t n, unsigned flags),
	(in, from, out, to, n, flags))
CALL_PART(sendfile, n, (int out, int in, off_t *at, size_t n), (out, in, at, n))

CALL_PATH(int, -1, stat, path, (const char *restrict path, struct stat *restrict st), (path, st))
CALL_PATH(int, -1, lstat, path, (const char *restrict path, struct stat *restrict st), (path, st))
CALL(int, -1, fstat, (int fd, struct stat *st), (fd, st))
CALL_PATH(int, -1, fstatat, path,
	(int dir, const char *restrict path, struct stat *restrict st, int flags),
	(dir, path, st, flags))
CALL_PATH(int, -1, statx, path,
	(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict st),
	(dir, path, flags, mask, st))
CALL_PATH(int, -1, statvfs, path, (const char *restrict path, struct statvfs *restrict st),
	(path, st))
CALL_PATH(int, -1, access, path, (const char *path, int mode), (path, mode))
CALL_PATH(int, -1, faccessat, path, (int dir, const char *path, int mode, int flags),
	(dir, path, mode, flags))
CALL_PATH(ssize_t, -1, readlink, path, (const char *restrict path, char *restrict buf, size_t n),
	(path, buf, n))
CALL_PATH(ssize_t, -1, readlinkat, path,
	(int dir, const char *restrict path, char *restrict buf, size_t n), (dir, path, buf, n))
CALL_PATH(char *, NULL, realpath, path, (const char *restrict path, char *restrict to), (path, to))
char *__realpath_chk(const char *path, char *to, size_t size);
CALL_PATH(char *, NULL, __realpath_chk, path, (const char *path, char *to, size_t size),
	(path, to, size))

CALL_PATH(int, -1, rename, from, (const char *from, const char *to), (from, to))
CALL_PATH(int, -1, renameat2, from,
	(int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags))
CALL_PATH(int, -1, link, from, (const char *from, const char *to), (from, to))
CALL_PATH(int, -1, symlink, to, (const char *from, const char *to), (from, to))
CALL_PATH(int, -1, unlink, path, (const char *path), (path))
CALL_PATH(int, -1, unlinkat, path, (int dir, const char *path, int flags), (dir, path, flags))
CALL_PATH(int, -1, rmdir, path, (const char *path), (path))
CALL_PATH(int, -1, mkdir, path, (const char *path, mode_t mode), (path, mode))
CALL_PATH(int, -1, mkfifo, path, (const char *path, mode_t mode), (path, mode))
CALL(int, -1, fsync, (int fd), (fd))
CALL(int, -1, fdatasync, (int fd), (fd))
CALL(int, -1, ftruncate, (int fd, off_t n), (fd, n))
CALL(int, -1, fallocate, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
CALL(int, -1, sync_file_range, (int fd, off64_t at, off64_t n, unsigned flags), (fd, at, n, flags))
CALL(int, -1, fchmod, (int fd, mode_t mode), (fd, mode))
CALL_PATH(int, -1, utimensat, path,
	(int dir, const char *path, const struct timespec t[2], int flags), (dir, path, t, flags))
CALL(off_t, -1, lseek, (int fd, off_t at, int whence), (fd, at, whence))
CALL(int, -1, flock, (int fd, int what), (fd, what))
CALL(int, -1, dup2, (int from, int to), (from, to))
CALL(int, -1, dup3, (int from, int to, int flags), (from, to, flags))
CALL(int, -1, pipe2, (int fds[2], int flags), (fds, flags))

#define CONTROL(name, type, called)                                                                \
	int name(int fd, type what, ...)                                                           \
	{                                                                                          \
		const char *call = called;                                                         \
		va_list ap;                                                                        \
		void *arg;                                                                         \
		NEXT(name);                                                                        \
                                                                                                   \
		va_start(ap, what);                                                                \
		arg = va_arg(ap, void *);                                                          \
		va_end(ap);                                                                        \
		FAIL(-1, call, NULL);                                                              \
		return next(fd, what, arg);                                                        \
	}

/* What only asks, or sets flags, cannot fail. */
static const char *fcntl_call(int what)
{
	if (what == F_DUPFD || what == F_DUPFD_CLOEXEC)
		return "fcntl";
	return what == F_SETLK || what == F_OFD_SETLK ? "fcntl-lock" : NULL;
}

CONTROL(fcntl, int, fcntl_call(what))
CONTROL(fcntl64, int, fcntl_call(what))
CONTROL(ioctl, unsigned long, "ioctl")

/* ---- sockets and waiting ---- */

CALL(int, -1, socket, (int domain, int type, int protocol), (domain, type, protocol))
CALL(int, -1, socketpair, (int domain, int type, int protocol, int fds[2]),
	(domain, type, protocol, fds))
CALL(int, -1, bind, (int fd, __CONST_SOCKADDR_ARG sa, socklen_t len), (fd, sa, len))
CALL(int, -1, listen, (int fd, int n), (fd, n))
CALL(int, -1, accept4, (int fd, __SOCKADDR_ARG sa, socklen_t *restrict len, int flags),
	(fd, sa, len, flags))
CALL(int, -1, connect, (int fd, __CONST_SOCKADDR_ARG sa, socklen_t len), (fd, sa, len))
CALL(int, -1, getsockname, (int fd, __SOCKADDR_ARG sa, socklen_t *restrict len), (fd, sa, len))
CALL(int, -1, getpeername, (int fd, __SOCKADDR_ARG sa, socklen_t *restrict len), (fd, sa, len))
CALL(int, -1, getsockopt,
	(int fd, int level, int name, void *restrict value, socklen_t *restrict len),
	(fd, level, name, value, len))
CALL(int, -1, setsockopt, (int fd, int level, int name, const void *value, socklen_t len),
	(fd, level, name, value, len))
CALL(int, -1, shutdown, (int fd, int how), (fd, how))
CALL_PART(send, n, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags))
CALL_PART(sendto, n,
	(int fd, const void *buf, size_t n, int flags, __CONST_SOCKADDR_ARG sa, socklen_t len),
	(fd, buf, n, flags, sa, len))
CALL(ssize_t, -1, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags))
CALL_PART(recv, n, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags))
CALL(ssize_t, -1, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags))
CALL(int, -1, poll, (struct pollfd * fds, nfds_t n, int ms), (fds, n, ms))
CALL(int, -1, epoll_create1, (int flags), (flags))

/* Only what adds one needs anything. */
int epoll_ctl(int ep, int what, int fd, struct epoll_event *e)
{
	NEXT(epoll_ctl);

	if (what == EPOLL_CTL_ADD)
		FAIL(-1, "epoll_ctl", NULL);
	return next(ep, what, fd, e);
}

CALL(int, -1, epoll_wait, (int ep, struct epoll_event *e, int n, int ms), (ep, e, n, ms))
CALL(int, -1, epoll_pwait, (int ep, struct epoll_event *e, int n, int ms, const sigset_t *mask),
	(ep, e, n, ms, mask))
CALL(int, -1, eventfd, (unsigned value, int flags), (value, flags))
CALL(int, -1, signalfd, (int fd, const sigset_t *mask, int flags), (fd, mask, flags))
CALL(int, -1, timerfd_create, (clockid_t clock, int flags), (clock, flags))

/* ---- others of the C library ---- */

CALL(ssize_t, -1, getrandom, (void *buf, size_t n, unsigned flags), (buf, n, flags))
/* They fail as a whole: without memory glibc 2.36 crashes in them, or asserts that it has got some.
 */
#define CALL_DATABASE(type, name, detail, params, args)                                            \
	type name params                                                                           \
	{                                                                                          \
		type found;                                                                        \
		NEXT(name);                                                                        \
		FAIL(NULL, #name, detail);                                                         \
		fault_hide(true);                                                                  \
		found = next args;                                                                 \
		fault_hide(false);                                                                 \
		return found;                                                                      \
	}

CALL_DATABASE(struct passwd *, getpwuid, NULL, (uid_t uid), (uid))
CALL_DATABASE(struct passwd *, getpwnam, name, (const char *name), (name))
CALL_DATABASE(struct group *, getgrnam, name, (const char *name), (name))

/* ---- libcurl: out of memory is what can happen to us ---- */

#define CALL_CODE(type, failure, name, params, args)                                               \
	type name params                                                                           \
	{                                                                                          \
		NEXT(name);                                                                        \
		if (fault_due(#name, NULL))                                                        \
			return failure;                                                            \
		return next args;                                                                  \
	}

CALL_CODE(CURLcode, CURLE_OUT_OF_MEMORY, curl_global_init_mem,
	(long flags, curl_malloc_callback m, curl_free_callback f, curl_realloc_callback r,
		curl_strdup_callback s, curl_calloc_callback c),
	(flags, m, f, r, s, c))
CALL_CODE(CURL *, NULL, curl_easy_init, (void), ())
CALL_CODE(CURLM *, NULL, curl_multi_init, (void), ())
CALL_CODE(CURLMcode, CURLM_OUT_OF_MEMORY, curl_multi_add_handle, (CURLM * m, CURL *e), (m, e))
CALL_CODE(CURLMcode, CURLM_OUT_OF_MEMORY, curl_multi_socket_action,
	(CURLM * m, curl_socket_t s, int what, int *running), (m, s, what, running))

#undef curl_easy_setopt
/* Only those that copy a string can fail. */
CURLcode curl_easy_setopt(CURL *e, CURLoption option, ...)
{
	bool copies = option == CURLOPT_URL || option == CURLOPT_PROXY ||
		      option == CURLOPT_NOPROXY || option == CURLOPT_PROTOCOLS_STR ||
		      option == CURLOPT_USERAGENT || option == CURLOPT_COPYPOSTFIELDS;
	va_list ap;
	void *arg;
	NEXT(curl_easy_setopt);

	va_start(ap, option);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (copies && fault_due("curl_easy_setopt", NULL))
		return CURLE_OUT_OF_MEMORY;
	return next(e, option, arg);
}

/* ---- libmicrohttpd ---- */

CALL_CODE(struct MHD_Response *, NULL, MHD_create_response_from_buffer,
	(size_t n, void *buf, enum MHD_ResponseMemoryMode mode), (n, buf, mode))
CALL_CODE(struct MHD_Response *, NULL, MHD_create_response_from_callback,
	(uint64_t n, size_t block, MHD_ContentReaderCallback cb, void *arg,
		MHD_ContentReaderFreeCallback done),
	(n, block, cb, arg, done))
CALL_CODE(enum MHD_Result, MHD_NO, MHD_add_response_header,
	(struct MHD_Response * r, const char *name, const char *value), (r, name, value))
CALL_CODE(enum MHD_Result, MHD_NO, MHD_queue_response,
	(struct MHD_Connection * c, unsigned status, struct MHD_Response *r), (c, status, r))
CALL_CODE(enum MHD_Result, MHD_NO, MHD_run, (struct MHD_Daemon * d), (d))

/* Like the library's own failure it takes the socket. */
enum MHD_Result MHD_add_connection(
	struct MHD_Daemon *d, MHD_socket fd, const struct sockaddr *sa, socklen_t len)
{
	NEXT(MHD_add_connection);

	if (fault_due("MHD_add_connection", NULL)) {
		close(fd);
		errno = ENOMEM;
		return MHD_NO;
	}
	return next(d, fd, sa, len);
}

#define MAX_OPTIONS 20

/* All its options come as one array (api/server.c). */
struct MHD_Daemon *MHD_start_daemon(unsigned flags, uint16_t port, MHD_AcceptPolicyCallback policy,
	void *policy_arg, MHD_AccessHandlerCallback handler, void *arg, ...)
{
	void *a[MAX_OPTIONS];
	va_list ap;
	NEXT(MHD_start_daemon);

	va_start(ap, arg);
	for (int i = 0; i < MAX_OPTIONS; i++)
		a[i] = va_arg(ap, void *);
	va_end(ap);
	if (fault_due("MHD_start_daemon", NULL))
		return NULL;
	return next(flags, port, policy, policy_arg, handler, arg, a[0], a[1], a[2], a[3], a[4],
		a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15], a[16],
		a[17], a[18], a[19]);
}
