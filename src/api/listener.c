#include "api/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <systemd/sd-daemon.h>

#include "base/file.h"
#include "base/handover.h"
#include "base/log.h"
#include "drv/activation.h"

/* Bounds how long we wait at start for another daemon that is at this very step. */
#define LOCK_TRIES    100
#define LOCK_PAUSE_US 20000

/* Users below belong to the system, as does their group, which a person may share with everybody.
 */
#define FIRST_PERSON 1000

static int make_address(const char *path, struct sockaddr_un *sa, struct err *e)
{
	size_t max = sizeof(sa->sun_path) - 1;

	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (path[0] != '/')
		return err_set(e, -EINVAL, "the control socket's path must be absolute: %s", path);
	if (strlen(path) > max)
		return err_set(e, -ENAMETOOLONG,
			"the control socket's path is too long (at most %zu bytes): %s", max, path);
	strcpy(sa->sun_path, path);
	return 0;
}

/* A name beside `path`. Where that is too long for an address it leads through the directory's
 * descriptor; not always, because people see it in the output of ss. */
static struct sockaddr_un temp_address(const char *path, int dir_fd)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int n = snprintf(sa.sun_path, sizeof(sa.sun_path), "%s.new", path);

	if (n >= (int)sizeof(sa.sun_path))
		snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/.h2ofleetd.new",
			dir_fd);
	return sa;
}

/* Whoever may read a directory can lock it, too. */
static bool others_can_lock(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (st.st_uid != geteuid() || st.st_mode & (S_IRGRP | S_IROTH));
}

/* A lock on the directory itself: it leaves nothing behind, and ends with its holder. It is against
 * two daemons at this very step, of whom one notices later all the same; so a user who keeps it
 * keeps nobody out. */
static int lock_dir(const char *dir, bool patient, int *fd, struct err *e)
{
	*fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd < 0)
		return err_set_errno(e, -errno, "cannot open directory %s", dir);
	for (int i = 0; i < (patient ? LOCK_TRIES : 1); i++) {
		if (flock(*fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_set_errno(e, -errno, "cannot lock directory %s", dir);
		if (patient)
			usleep(LOCK_PAUSE_US);
	}
	if (others_can_lock(*fd)) {
		log_warning("some process keeps a lock on directory %s; going on without", dir);
		return 0;
	}
	return err_set(e, -EADDRINUSE, "another process holds a lock on directory %s", dir);
}

/* Is the place free, or taken by the socket of a dead daemon? */
static int check_place(const char *path, const struct sockaddr_un *sa, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_set_errno(e, -errno, "cannot look at %s", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EADDRINUSE,
			"%s is in the way: it is no socket; remove it, "
			"or set another socket",
			path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set_errno(e, -errno, "cannot make a socket");
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0) {
		if (errno == ECONNREFUSED || errno == ENOENT)
			return 0;
		if (errno != EAGAIN) /* EAGAIN: alive, its backlog is full */
			return err_set_errno(e, -errno, "cannot tell who uses %s", path);
	}
	return err_set(e, -EADDRINUSE,
		"another h2ofleetd answers at %s; stop it, or give "
		"this one a socket of its own",
		path);
}

/* Bound and listening under a name beside it, then renamed over: whoever finds `path` finds a
 * socket with the right mode that answers. */
static int bind_and_rename(struct listener *l, const char *path, int dir_fd, int fd, struct err *e)
{
	struct sockaddr_un sa = temp_address(path, dir_fd);
	struct stat st;
	mode_t old;
	int r;

	if (unlink(sa.sun_path) < 0 && errno != ENOENT)
		return err_set_errno(e, -errno, "cannot remove %s", sa.sun_path);
	old = umask(0117); /* 0660 from the first moment */
	r = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
	umask(old);
	if (r < 0)
		return err_set_errno(e, r, "cannot make the control socket %s", sa.sun_path);
	if (listen(fd, SOMAXCONN) < 0 || lstat(sa.sun_path, &st) < 0 ||
		rename(sa.sun_path, path) < 0) {
		r = -errno;
		unlink(sa.sun_path);
		return err_set_errno(e, r, "cannot make the control socket %s", path);
	}
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return 0;
}

/* What systemd listens on must be what clients look for. */
static int check_systemds(const char *path, int fd, struct err *e)
{
	struct sockaddr_un sa = {0};
	socklen_t len = sizeof(sa);
	struct stat st;

	if (sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) <= 0)
		return err_set(e, -EINVAL,
			"the descriptor '%s' that systemd passed is no listening unix stream "
			"socket; see ListenStream= of the socket unit",
			LISTENER_FD);
	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return err_set_errno(e, -errno, "cannot tell where systemd's socket is");
	if (!streq(sa.sun_path, path))
		return err_set(e, -EINVAL,
			"systemd listens at %s, but the configuration has the control socket at "
			"%s: make ListenStream= of the socket unit and the key socket the same",
			sa.sun_path, path);
	if (lstat(path, &st) == 0 && st.st_mode & S_IRWXO)
		log_warning("the control socket %s is open to everybody (mode %o); SocketMode=0660 "
			    "is meant; who may do what is decided by user and group all the same",
			path, st.st_mode & 0777);
	return 0;
}

static int take_systemds(struct listener *l, const char *path, int fd, struct err *e)
{
	struct stat st;
	int r = check_systemds(path, fd, e);

	if (r < 0)
		return r;
	if (lstat(path, &st) < 0)
		return err_set_errno(e, -errno, "cannot look at systemd's socket %s", path);
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return err_set_errno(e, -errno, "cannot use the control socket %s", path);
	*l = (struct listener){xstrdup(path), true, st.st_dev, st.st_ino};
	return 0;
}

/* -ENOENT: we were started without one. */
static int inherit(struct listener *l, const char *path, int *fd_out, struct err *e)
{
	_cleanup_close_ int fd = activation_take(LISTENER_FD);
	int r;

	if (fd < 0)
		return -ENOENT;
	r = take_systemds(l, path, fd, e);
	if (r == 0)
		*fd_out = TAKE_FD(fd);
	return r;
}

int listener_open(struct listener *l, const char *path, bool patient, int *fd_out, struct err *e)
{
	_cleanup_close_ int fd = -1, dir_fd = -1;
	_cleanup_free_ char *dir = xstrdup(path);
	struct sockaddr_un sa;
	char *slash;
	int r = make_address(path, &sa, e);

	if (r < 0)
		return r;
	r = inherit(l, path, fd_out, e);
	if (r != -ENOENT)
		return r;
	slash = strrchr(dir, '/');
	slash[slash == dir] = '\0';
	r = file_make_way(dir, geteuid() < FIRST_PERSON ? 0755 : 0700, e);
	if (r == 0)
		r = file_check_way(path, e);
	if (r == 0)
		r = lock_dir(dir, patient, &dir_fd, e);
	if (r == 0)
		r = check_place(path, &sa, e);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set_errno(e, -errno, "cannot make a socket");
	r = bind_and_rename(l, path, dir_fd, fd, e);
	if (r < 0)
		return r;
	l->path = xstrdup(path);
	*fd_out = TAKE_FD(fd);
	return 0;
}

bool listener_is_there(const struct listener *l)
{
	struct stat st;

	if (lstat(l->path, &st) < 0)
		return errno != ENOENT && errno != ENOTDIR;
	return st.st_dev == l->dev && st.st_ino == l->ino;
}

void listener_close(struct listener *l)
{
	struct stat st;

	if (l->path && !l->systemds && lstat(l->path, &st) == 0 && st.st_dev == l->dev &&
		st.st_ino == l->ino)
		unlink(l->path);
	free(TAKE_PTR(l->path));
}

void listener_hand_over(const struct listener *l, int fd)
{
	_cleanup_free_ char *place = xasprintf(
		"%ju %ju %d %s", (uintmax_t)l->dev, (uintmax_t)l->ino, l->systemds, l->path);

	handover_add_fd(fd, "listen");
	handover_add_word("listen-place", place);
}

int listener_take_over(struct listener *l, const char *path)
{
	const char *place = handover_word("listen-place");
	int fd = handover_take_fd("listen"), at = 0, systemds;
	uintmax_t dev, ino;

	if (fd < 0 || !place || sscanf(place, "%ju %ju %d %n", &dev, &ino, &systemds, &at) < 3 ||
		at == 0) {
		closep(&fd);
		return -1;
	}
	*l = (struct listener){xstrdup(place + at), systemds, (dev_t)dev, (ino_t)ino};
	if (streq(l->path, path) && listener_is_there(l))
		return fd;
	listener_close(l);
	close(fd);
	return -1;
}
