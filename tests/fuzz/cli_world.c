#include "cli_world.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "cli/client.h"
#include "drv/bootbuild.h"
#include "drv/packages.h"
#include "drv/ports.h"
#include "waits.h"

/* Ctrl-C comes when the command has waited for so long, longer than any wait of its own, or was
 * refused so often: of a large cloud each node is followed. */
#define PATIENCE_MS  60000
#define MAX_REFUSALS 200
#define CONFIG       "h2ofleet.conf"
/* No process has it: it is above the kernel's limit. */
#define JAVA_PID 0x7ffffff0

static struct fuzz_input *input; /* NULL: no command runs */
static int here = -1, there = -1, null = -1, terminal = -1;

/* --- Ctrl-C, in place of cli/interrupt.c ---------------------------------------------------- */

static bool caught;
static unsigned refusals;

void cli_world_refuse(void)
{
	refusals++;
}

void cli_catch_interrupt(void)
{
	caught = true;
}

bool cli_interrupted(void)
{
	return caught && (waits_ms() > PATIENCE_MS || refusals > MAX_REFUSALS);
}

/* --- Java ---------------------------------------------------------------------------------- */

static int java_out = -1, java_status;

int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *fa, int fd, int as)
{
	(void)fa;
	if (as == STDOUT_FILENO)
		java_out = fd;
	return 0;
}

/* What it writes is the next part, all at once; a first line "exit N" is the status. */
int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *fa,
	const posix_spawnattr_t *attr, char *const argv[], char *const env[])
{
	_cleanup_free_ char *part = NULL;
	size_t len;
	ssize_t n;

	(void)fa;
	(void)attr;
	(void)argv;
	(void)env;
	fuzz_check(input && java_out >= 0);
	if (access(path, X_OK) < 0)
		return errno;
	part = fuzz_part(input, &len);
	java_status = has_prefix(part, "exit ") ? atoi(part + 5) & 0xff7f : 0;
	n = write(java_out, part, len); /* a pipe takes 64 KiB */
	(void)n;
	*pid = JAVA_PID;
	return 0;
}

pid_t waitpid(pid_t pid, int *status, int flags)
{
	struct rusage usage;

	if (pid != JAVA_PID)
		return (pid_t)syscall(SYS_wait4, pid, status, flags, &usage);
	*status = java_status;
	return pid;
}

/* --- the boot cache, in place of drv/bootbuild.c ------------------------------------------- */

/* What came of it is the next part: a letter, and the reason in somebody's words. */
int bootcache_build(const struct boot_build *rq, struct boot_found *out, struct err *e)
{
	_cleanup_free_ char *part = fuzz_part(input, NULL), *text = xstrdup(*part ? part + 1 : "");
	static const int codes[] = {-ENOSPC, -EBUSY, -EINTR, -ETIMEDOUT};

	*out = (struct boot_found){.java_major = rq->runtime.java_major};
	rq->progress(1, 2, "a step", rq->arg);
	rq->progress(2, 2, "another", rq->arg);
	if (*part >= '0' && *part < '0' + (int)ARRAY_SIZE(codes))
		return err_set(e, codes[*part - '0'], "%s", text);
	out->verdict = *part == 't'   ? BOOT_TRUSTED
		       : *part == 'r' ? BOOT_REFUSED
		       : *part == 'u' ? BOOT_UNSUPPORTED
				      : BOOT_UNKNOWN;
	out->dir = xasprintf("%s/boot/entry", rq->cache_dir);
	if (out->verdict == BOOT_TRUSTED)
		out->archive = xasprintf("%s/classes.jsa", out->dir);
	else
		out->why = xstrdup(text);
	if (*part == 'n')
		out->native_why = xstrdup(text);
	else
		out->library_path = xstrdup(out->dir);
	return 0;
}

/* --- the network, in place of drv/port_holder.c and the name service ----------------------- */

char *port_holder(uint16_t port)
{
	return xasprintf("pid %u (x\033[31m)", port);
}

char *port_holder_sentence(uint16_t port)
{
	return xasprintf("port %u is taken by pid 5 (x\033[31m)", port);
}

bool port_has_only_remains(uint16_t port)
{
	return port % 16 == 5;
}

/* Each eighth port is taken. */
int bind(int fd, const struct sockaddr *to, socklen_t len)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)to;

	if (!input)
		return (int)syscall(SYS_bind, fd, to, len);
	if (to->sa_family != AF_INET || ntohs(in->sin_port) % 8 != 5)
		return 0;
	errno = EADDRINUSE;
	return -1;
}

/* What is for TCP only means nothing to a socket pair. */
int setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	int r = (int)syscall(SYS_setsockopt, fd, level, option, value, len);

	return input && level != SOL_SOCKET ? 0 : r;
}

/* libcurl's, in a thread of its own. */
int getaddrinfo(
	const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
	(void)name;
	(void)service;
	(void)hints;
	*out = NULL;
	return EAI_NONAME;
}

/* --- files --------------------------------------------------------------------------------- */

bool cli_world_is_inside(const char *word)
{
	return *word != '/' && !strstr(word, "..") && !strstr(word, "=/") &&
	       !(*word == '-' && strchr(word, '/'));
}

static bool is_name(const char *s)
{
	return *s && strlen(s) < 80 && cli_world_is_inside(s) &&
	       s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-._/")] == '\0' &&
	       s[strlen(s) - 1] != '/' && !strstr(s, "//");
}

static bool write_file(const char *name, struct fuzz_input *from)
{
	size_t len;
	_cleanup_free_ char *part = fuzz_part(from, &len), *path = NULL;

	if (!fuzz_try_write(name, part, len))
		return false;
	path = xasprintf("%s/%s", fuzz_dir(), name);
	if (strlen(name) >= 4 && streq(name + strlen(name) - 4, "java"))
		fuzz_check(chmod(path, 0700) == 0);
	return true;
}

bool cli_world_files(struct strv *words, struct fuzz_input *from)
{
	struct strv left = STRV_NULL;
	bool good = true;

	for (size_t i = 0; i < words->n && good; i++) {
		if (words->v[i][0] != '>' || i == 0)
			strv_add(&left, words->v[i]);
		else
			good = is_name(words->v[i] + 1) && write_file(words->v[i] + 1, from);
	}
	strv_free(words);
	*words = left;
	return good;
}

char *cli_world_config(const char *text)
{
	const char *dir = fuzz_dir();
	_cleanup_free_ char *all = xasprintf("[fleet]\nsocket = %s/control.sock\n"
					     "state_dir = %s/state\nlog_dir = %s/log\n"
					     "cache_dir = %s/cache\n%s",
		dir, dir, dir, dir, text);

	fuzz_write(CONFIG, all, strlen(all));
	return xasprintf("%s/" CONFIG, dir);
}

/* --- the whole ----------------------------------------------------------------------------- */

void cli_world_begin(void)
{
	packages_set_root(fuzz_dir());
	setenv("HOME", fuzz_dir(), 1);
	setenv("PATH", fuzz_dir(), 1);
	setenv("TMPDIR", fuzz_dir(), 1);
	here = open(fuzz_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	there = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	terminal = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	fuzz_check(here >= 0 && there >= 0 && null >= 0 && terminal >= 0);
	fuzz_check(dup2(null, STDIN_FILENO) >= 0);
}

void cli_world_enter(struct fuzz_input *from)
{
	input = from;
	caught = false;
	refusals = 0;
	fuzz_check(fchdir(here) == 0 && dup2(null, STDOUT_FILENO) >= 0);
	waits_begin();
}

void cli_world_leave(void)
{
	waits_end();
	input = NULL;
	fuzz_check(fchdir(there) == 0 && dup2(terminal, STDOUT_FILENO) >= 0);
}
