/* The guardian as `run` sees it: started, told what to do, replaced when it was killed. */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "base/file.h"
#include "cli/guardian.h"

/* Somebody who kills it again and again means it. */
#define MAX_STARTS 50
#define MADE_MS    30000
/* One that is being made is not locked yet. */
#define STALE_S 10

#define LONGEST_SOCKET (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

#define PREFIX "h2ofleet-run."
#define KEPT   "h2ofleet-kept."
#define LOCK   "guarded"

/* ---- the place ---- */

void run_place_set(struct run_place *p, const char *dir, const char *socket_dir)
{
	p->dir = xstrdup(dir);
	p->socket_dir = *socket_dir ? xstrdup(socket_dir) : NULL;
	p->kept = xasprintf(
		"%.*s/" KEPT "%s", (int)(strrchr(dir, '/') - dir), dir, strrchr(dir, '.') + 1);
	p->socket = xasprintf("%s/control.sock", *socket_dir ? socket_dir : dir);
	p->config = xasprintf("%s/h2ofleet.conf", dir);
	p->daemon_log = xasprintf("%s/h2ofleetd.log", dir);
}

void run_place_free(struct run_place *p)
{
	free(p->dir);
	free(p->socket_dir);
	free(p->kept);
	free(p->socket);
	free(p->config);
	free(p->daemon_log);
}

static const char *absolute(const char *variable)
{
	const char *s = getenv(variable);

	return s && *s == '/' ? s : NULL;
}

/* Where JVMs unpack their libraries, 157 MB each: so not $XDG_RUNTIME_DIR, which is small. */
static char *temporary_dir(void)
{
	const char *s = absolute("TMPDIR");
	char *dir = xstrdup(s ? s : "/tmp");

	for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
		dir[n - 1] = '\0';
	return dir;
}

/* For a socket, when the path in there would be too long for its address. */
static const char *short_dir(void)
{
	const char *run = absolute("XDG_RUNTIME_DIR");

	return run && access(run, W_OK) == 0 && strlen(run) <= LONGEST_SOCKET / 2 ? run : "/tmp";
}

int run_place_choose(struct run_place *p, struct err *e)
{
	_cleanup_free_ char *tmp = temporary_dir(), *dir = NULL, *other = NULL;
	uint64_t id;

	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		return err_set_errno(e, -errno, "cannot get a random number");
	dir = xasprintf("%s/" PREFIX "%012" PRIx64, tmp, id >> 16);
	if (strlen(dir) + strlen("/control.sock") > LONGEST_SOCKET)
		other = xasprintf("%s/" PREFIX "%012" PRIx64, short_dir(), id >> 16);
	run_place_set(p, dir, other ? other : "");
	return file_check_way(dir, e) < 0 ? err_wrap(e, "TMPDIR") : 0;
}

int run_place_hold(const char *path)
{
	_cleanup_free_ char *lock = xasprintf("%s/" LOCK, path);
	int fd = open(lock, O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd >= 0)
		flock(fd, LOCK_SH | LOCK_NB);
	return fd;
}

/* ---- the process ---- */

/* In the child: its descriptors in their places, whatever their numbers are. */
static void become_guardian(const struct guard *g, int control)
{
	char *argv[] = {(char *)GUARDIAN_NAME, g->place->dir,
		g->place->socket_dir ? g->place->socket_dir : (char *)"", (char *)g->daemon, NULL};
	int fds[] = {control, g->life[0], g->life[1]};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, GUARDIAN_LIFE_WRITE + 1);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		dup2(fds[i], GUARDIAN_CONTROL + (int)i);
	execve("/proc/self/exe", argv, g->env.v);
	_exit(127);
}

static int start(struct guard *g, struct err *e)
{
	int ends[2], saved;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return err_set_errno(e, -errno, "cannot make a socket");
	g->pid = fork();
	if (g->pid == 0)
		become_guardian(g, ends[1]);
	saved = errno;
	close(ends[1]);
	if (g->pid < 0) {
		close(ends[0]);
		return err_set_errno(e, -saved, "cannot start a process");
	}
	g->control = ends[0];
	g->starts++;
	return 0;
}

/* Its word, "" when there is none now; NULL when it is gone. Owned by the caller. */
static char *hear(const struct guard *g)
{
	char word[1024];
	ssize_t n = recv(g->control, word, sizeof(word), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return xstrdup("");
	return n > 0 ? xstrndup(word, (size_t)n) : NULL;
}

void guard_tell(struct guard *g, const char *word)
{
	if (!streq(word, GUARDIAN_HASTE))
		g->last = word;
	if (g->control >= 0)
		send(g->control, word, strlen(word), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void replace(struct guard *g)
{
	int status = 0;

	close(TAKE_FD(g->control));
	waitpid(g->pid, &status, 0);
	g->pid = -1;
	if (g->last && !streq(g->last, GUARDIAN_START) && status == 0) {
		g->ended = true;
		return;
	}
	if (g->starts < MAX_STARTS && start(g, NULL) == 0 && g->last)
		guard_tell(g, g->last);
	else if (g->control < 0)
		g->lost = g->ended = true;
}

static int begin(struct guard *g, struct err *e)
{
	int r = pipe2(g->life, O_CLOEXEC) < 0 ? err_set_errno(e, -errno, "cannot make a pipe")
					      : start(g, e);

	while (r == 0 && !g->made) {
		struct pollfd p = {.fd = g->control, .events = POLLIN};
		_cleanup_free_ char *word = NULL;

		if (poll(&p, 1, MADE_MS) == 0)
			return err_set(e, -ETIMEDOUT, "the guardian does not begin");
		word = hear(g);
		if (!word)
			replace(g);
		else if (streq(word, GUARDIAN_MADE))
			g->made = true;
		else if (*word)
			return err_set(e, -EIO, "%s", word);
		if (g->ended)
			return err_set(e, -ECHILD, "the guardian does not live");
	}
	if (r == 0) {
		g->holds[0] = run_place_hold(g->place->dir);
		g->holds[1] = g->place->socket_dir ? run_place_hold(g->place->socket_dir) : -1;
	}
	return r;
}

int guard_begin(struct guard *g, struct err *e)
{
	int r = begin(g, e);

	if (r < 0) { /* nothing is there to be ended */
		g->ended = true;
		if (g->control >= 0)
			close(TAKE_FD(g->control));
		if (g->pid > 0)
			waitpid(g->pid, NULL, 0);
	}
	return r;
}

void guard_turn(struct guard *g)
{
	while (g->control >= 0) {
		_cleanup_free_ char *word = hear(g);

		if (!word)
			replace(g);
		else if (streq(word, GUARDIAN_LOST))
			g->lost = true;
		else if (!*word)
			break;
	}
}

static void close_all(struct guard *g)
{
	int *fds[] = {&g->life[0], &g->life[1], &g->holds[0], &g->holds[1], &g->control};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (*fds[i] >= 0)
			close(TAKE_FD(*fds[i]));
}

void guard_close(struct guard *g)
{
	close_all(g);
	strv_free(&g->env);
}

/* ---- what others have left ---- */

static bool is_stale(const char *path)
{
	_cleanup_free_ char *lock = xasprintf("%s/" LOCK, path);
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
		st.st_mtime + STALE_S > time(NULL))
		return false;
	fd = open(lock, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? errno == ENOENT : flock(fd, LOCK_EX | LOCK_NB) == 0;
}

/* A guardian whose `run` is gone from the first. */
static void end_stale(const struct guard *g, const char *dir)
{
	struct guard other = GUARD_NULL;
	struct run_place place;

	run_place_set(&place, dir, "");
	other.place = &place;
	other.daemon = g->daemon;
	other.env = g->env;
	if (pipe2(other.life, O_CLOEXEC) == 0)
		start(&other, NULL);
	close_all(&other);
	run_place_free(&place);
}

/* Not where everybody can rename what is ours: what looks like a run's place would be removed, and
 * the configuration in it be obeyed. */
static void sweep(const struct guard *g, const char *base)
{
	DIR *d = opendir(base);
	struct dirent *de;
	struct stat st;

	if (d && (fstat(dirfd(d), &st) < 0 || (st.st_mode & S_IWOTH && !(st.st_mode & S_ISVTX)))) {
		closedir(d);
		return;
	}

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", base, de->d_name);

		if (has_prefix(de->d_name, PREFIX) && is_stale(path))
			end_stale(g, path);
	}
	if (d)
		closedir(d);
}

void guard_sweep(const struct guard *g)
{
	_cleanup_free_ char *tmp = temporary_dir();

	sweep(g, tmp);
	if (!streq(tmp, short_dir()))
		sweep(g, short_dir());
}
