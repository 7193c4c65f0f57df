#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/strbuf.h"

static void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

int file_mkdirs(const char *path, mode_t mode, struct err *e)
{
	_cleanup_free_ char *p = xstrdup(path);
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) /* as nearly always */
		return 0;
	for (char *slash = p; slash;) {
		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = '\0';
		if (mkdir(p, mode) < 0 && errno != EEXIST)
			return err_set_errno(e, -errno, "cannot create directory %s", p);
		if (slash)
			*slash = '/';
	}
	if (stat(path, &st) < 0)
		return err_set_errno(e, -errno, "cannot use directory %s", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "%s is not a directory", path);
	return 0;
}

/* ---- who may have put it there ---- */

/* As many as the kernel follows. */
#define MAX_LINKS 40

static bool is_trusted(const struct stat *st)
{
	return st->st_uid == 0 || st->st_uid == geteuid();
}

static int say_foreign(const char *path, const struct stat *st, struct err *e)
{
	return err_set(e, -EPERM,
		"%s is user %u's, who could make it because everybody may write to the directory "
		"that it is in: remove it, or use another",
		path, (unsigned)st->st_uid);
}

/* `path`, which is `st`, within the directory `parent`. That this is sticky is not asked for: where
 * it is not (a container's volumes often are not) nothing in it could be relied on. */
static int check_step(
	const char *path, const struct stat *parent, const struct stat *st, struct err *e)
{
	if (!(parent->st_mode & S_IWOTH) || is_trusted(st))
		return 0;
	return say_foreign(path, st, e);
}

static int check_way(const char *path, unsigned links, bool whole, struct err *e);

/* `rest` is what follows the link at `path`. */
static int check_link(const char *path, const char *rest, unsigned links, bool whole, struct err *e)
{
	_cleanup_free_ char *next = NULL;
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n < 0)
		return err_set_errno(e, -errno, "cannot look at %s", path);
	target[n] = '\0';
	next = *target == '/' ? xasprintf("%s%s", target, rest)
			      : xasprintf("%.*s%s%s", (int)(strrchr(path, '/') + 1 - path), path,
					target, rest);
	return check_way(next, links + 1, whole, e);
}

/* `whole`: all of it must exist. */
static int check_way(const char *path, unsigned links, bool whole, struct err *e)
{
	_cleanup_free_ char *p = xstrdup(path);
	struct stat parent, st;
	char *slash = p;
	int r;

	if (*path != '/' || links > MAX_LINKS)
		return err_set(e, links ? -ELOOP : -EINVAL, "cannot use %s", path);
	if (stat("/", &parent) < 0)
		return err_set_errno(e, -errno, "cannot look at /");
	while (slash) {
		char *name = slash + 1;
		slash = strchr(name, '/');
		if (*name == '/' || *name == '\0')
			continue;
		if (slash)
			*slash = '\0';
		if (lstat(p, &st) < 0)
			return errno == ENOENT && !whole
				       ? 0
				       : err_set_errno(e, -errno, "cannot look at %s", p);
		r = check_step(p, &parent, &st, e);
		if (r < 0)
			return r;
		if (slash)
			*slash = '/';
		if (S_ISLNK(st.st_mode)) {
			size_t len = slash ? (size_t)(slash - p) : strlen(p);
			_cleanup_free_ char *link = xstrndup(p, len);

			return check_link(link, slash ? slash : "", links, whole, e);
		}
		parent = st;
	}
	return 0;
}

int file_check_way(const char *path, struct err *e)
{
	return check_way(path, 0, false, e);
}

int file_check_there(const char *path, struct err *e)
{
	return check_way(path, 0, true, e);
}

/* Step by step, for others may put a link of theirs in the place of what we are about to make. */
int file_make_way(const char *path, mode_t mode, struct err *e)
{
	_cleanup_free_ char *p = xstrdup(path);
	struct stat st;
	int r;

	if (file_check_there(path, NULL) == 0 && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;            /* as nearly always */
	r = file_check_way(path, e); /* or else only a part would be made */
	for (char *slash = p; slash && r == 0;) {
		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = '\0';
		if (mkdir(p, mode) < 0 && errno != EEXIST)
			return err_set_errno(e, -errno, "cannot create directory %s", p);
		r = file_check_there(p, e);
		if (slash)
			*slash = '/';
	}
	if (r < 0)
		return r;
	if (stat(path, &st) < 0)
		return err_set_errno(e, -errno, "cannot use directory %s", path);
	return S_ISDIR(st.st_mode) ? 0 : err_set(e, -ENOTDIR, "%s is not a directory", path);
}

/* The file system's own, whose root a user namespace may not know. */
#define LOST_FOUND "lost+found"

int file_check_entries(const char *path, struct err *e)
{
	_cleanup_(closedirp) DIR *d = opendir(path);
	const struct dirent *de;
	struct stat st;

	if (!d)
		return err_set_errno(e, -errno, "cannot read %s", path);
	while (errno = 0, (de = readdir(d))) {
		_cleanup_free_ char *name = xasprintf("%s/%s", path, de->d_name);

		if (streq(de->d_name, ".") || streq(de->d_name, "..") ||
			streq(de->d_name, LOST_FOUND))
			continue;
		if (lstat(name, &st) < 0) {
			if (errno == ENOENT)
				continue;
			return err_set_errno(e, -errno, "cannot look at %s", name);
		}
		if (!is_trusted(&st))
			return err_set(e, -EPERM,
				"%s is user %u's, where only what is ours may be: chown it to user "
				"%u, or remove it",
				name, (unsigned)st.st_uid, (unsigned)geteuid());
	}
	return errno ? err_set_errno(e, -errno, "cannot read %s", path) : 0;
}

/* What the machine's other users need open. */
static bool is_for_all(const struct stat *st)
{
	static const char *const dirs[] = {"/tmp", "/var/tmp", "/dev/shm"};
	struct stat its;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		if (stat(dirs[i], &its) == 0 && its.st_dev == st->st_dev &&
			its.st_ino == st->st_ino)
			return true;
	return false;
}

int file_own_dir(const char *path, mode_t mode, struct err *e)
{
	struct stat st;
	int r = file_make_way(path, mode, e);

	if (r < 0)
		return r;
	if (stat(path, &st) < 0)
		return err_set_errno(e, -errno, "cannot look at %s", path);
	if (!is_trusted(&st))
		return err_set(e, -EPERM,
			"%s is user %u's, who could make this daemon do anything; chown it to user "
			"%u, or use another",
			path, (unsigned)st.st_uid, (unsigned)geteuid());
	if (st.st_mode & S_IWOTH &&
		(is_for_all(&st) || chmod(path, st.st_mode & 07777 & ~(mode_t)S_IWOTH) < 0))
		log_warning("everybody may write to %s, and could make this daemon do anything: "
			    "use another, or chmod o-w it, unless nobody else is here",
			path);
	return 0;
}

bool file_is_given(const char *path)
{
	return (has_prefix(path, "/dev/") && !has_prefix(path, "/dev/shm/")) ||
	       has_prefix(path, "/proc/");
}

/* Not a named pipe that somebody has put there, which would hold us up. */
static int open_to_read(const char *path)
{
	bool given = file_is_given(path);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (given ? 0 : O_NONBLOCK));
	struct stat st;

	if (fd >= 0 && !given && fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode)) {
		close(fd);
		errno = EINVAL;
		return -1;
	}
	return fd;
}

int file_read(const char *path, size_t max, char **data, size_t *len)
{
	_cleanup_close_ int fd = open_to_read(path);
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	char chunk[16384];
	ssize_t n;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (b.len + (size_t)n > max)
			return -EFBIG;
		strbuf_add(&b, chunk, (size_t)n);
	}
	if (len)
		*len = b.len;
	*data = strbuf_take(&b);
	return 0;
}

int file_read_head(const char *path, size_t max, char **data, size_t *size)
{
	/* O_NONBLOCK: whoever put a FIFO there must not hold us up. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	_cleanup_free_ char *buf = xmalloc(max + 1);
	struct stat st;
	size_t got = 0;
	ssize_t n = 1;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	while (n > 0 && got < max) {
		n = read(fd, buf + got, max - got);
		if (n < 0 && errno != EINTR)
			return -errno;
		got += n > 0 ? (size_t)n : 0;
		n = n < 0 ? 1 : n;
	}
	buf[got] = '\0';
	*data = TAKE_PTR(buf);
	if (size)
		*size = (size_t)st.st_size;
	return 0;
}

static int write_all(int fd, const char *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* The directory that `path` is in, or a negative errno. */
static int open_parent(const char *path)
{
	_cleanup_free_ char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');
	int fd;

	if (slash)
		slash[slash == dir] = '\0';
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fd;
}

int file_sync_parent(const char *path)
{
	_cleanup_close_ int fd = open_parent(path);

	if (fd < 0)
		return fd;
	return fsync(fd) < 0 ? -errno : 0;
}

/* What is done, is done: to say that it failed would be wrong until the next power cut. */
static void sync_done(int dir, const char *path)
{
	if (fsync(dir) < 0)
		log_warning("cannot sync the directory of %s: %s; a power cut may undo the change",
			path, strerror(errno));
}

int file_remove_durable(const char *path)
{
	_cleanup_close_ int dir = open_parent(path);

	if (dir < 0)
		return dir == -ENOENT ? 0 : dir;
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	sync_done(dir, path);
	return 0;
}

int file_open_new(const char *path, mode_t mode)
{
	int fd;

	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return -errno;
	return fd;
}

int file_write_atomic(
	const char *path, const void *data, size_t len, mode_t mode, bool durable, struct err *e)
{
	_cleanup_free_ char *tmp = xasprintf("%s.new", path);
	_cleanup_close_ int dir = durable ? open_parent(path) : -1, fd = -1;
	int r;

	if (durable && dir < 0)
		return err_set_errno(e, dir, "cannot open the directory of %s", path);
	fd = file_open_new(tmp, mode);
	if (fd < 0)
		return err_set_errno(e, fd, "cannot write %s", tmp);
	r = write_all(fd, data, len);
	if (r == 0 && durable && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(tmp);
		return err_set_errno(e, r, "cannot write %s", path);
	}
	if (durable)
		sync_done(dir, path);
	return 0;
}

/* Directories may be nested deeper than the stack and the descriptors last: what lies below this
 * many is moved to the top first, and emptied from there. */
#define EMPTY_DEPTH 40
/* Somebody could make them as fast as we remove them. */
#define EMPTY_ROUNDS 10000

struct emptying {
	int top;
	dev_t dev;
	unsigned number; /* of the next name at the top */
	bool moved;
};

static void move_to_top(struct emptying *x, int fd, const char *name)
{
	char to[32];
	int r;

	do {
		snprintf(to, sizeof(to), ".deep-%u", x->number++);
		r = renameat2(fd, name, x->top, to, RENAME_NOREPLACE);
	} while (r < 0 && errno == EEXIST);
	x->moved = x->moved || r == 0;
}

/* Takes ownership of `fd`. */
static int empty_dir_fd(
	struct emptying *x, int fd, unsigned depth, const char *shown, struct err *e)
{
	_cleanup_(closedirp) DIR *d = fdopendir(fd);
	struct dirent *de;
	int r = 0;

	if (!d) {
		r = -errno;
		close(fd);
		return err_set_errno(e, r, "cannot read %s", shown);
	}
	while ((de = readdir(d))) {
		struct stat st;
		int sub;

		if (streq(de->d_name, ".") || streq(de->d_name, ".."))
			continue;
		/* In an overlay only its directories are of one device; a file that something is
		 * mounted on cannot be unlinked. */
		if (fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			(S_ISDIR(st.st_mode) && st.st_dev != x->dev))
			continue;
		if (S_ISDIR(st.st_mode) && depth == EMPTY_DEPTH) {
			move_to_top(x, fd, de->d_name);
		} else if (S_ISDIR(st.st_mode)) {
			sub = openat(
				fd, de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (sub >= 0)
				empty_dir_fd(x, sub, depth + 1, de->d_name, NULL);
		}
		if (unlinkat(fd, de->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0 &&
			errno != ENOENT && r == 0)
			r = err_set_errno(e, -errno, "cannot remove %s/%s", shown, de->d_name);
	}
	return r;
}

int file_empty_dir(const char *path, struct err *e)
{
	_cleanup_close_ int top = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct emptying x = {.top = top};
	struct stat st;
	int r, rounds = 0;

	if (top < 0)
		return errno == ENOENT ? 0 : err_set_errno(e, -errno, "cannot open %s", path);
	if (fstat(top, &st) < 0)
		return err_set_errno(e, -errno, "cannot look at %s", path);
	x.dev = st.st_dev;
	do {
		int fd = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0)
			return err_set_errno(e, -errno, "cannot open %s", path);
		x.moved = false;
		if (e)
			err_clear(e); /* what the pass before could not remove */
		r = empty_dir_fd(&x, fd, 0, path, e);
	} while (x.moved && ++rounds < EMPTY_ROUNDS);
	return r;
}

int file_remove_tree(const char *path, struct err *e)
{
	struct stat st;
	int r;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : err_set_errno(e, -errno, "cannot look at %s", path);
	if (!S_ISDIR(st.st_mode)) {
		if (unlink(path) < 0 && errno != ENOENT)
			return err_set_errno(e, -errno, "cannot remove %s", path);
		return 0;
	}
	r = file_empty_dir(path, e);
	if (r < 0)
		return r;
	if (rmdir(path) < 0 && errno != ENOENT)
		return err_set_errno(e, -errno, "cannot remove %s", path);
	return 0;
}

char *file_existing_dir(const char *path)
{
	_cleanup_free_ char *dir = xstrdup(path);
	struct stat st;

	while (stat(dir, &st) < 0) {
		char *slash = strrchr(dir, '/');

		if (!slash || streq(dir, "/"))
			return xstrdup("/");
		slash[slash == dir] = '\0';
	}
	return TAKE_PTR(dir);
}
