/* The file system and the descriptors of the simulated daemon: libc's calls, wrapped at link time,
 * on a tree in memory. A call that is not wrapped meets the machine's own file system, where there
 * is no /sim, and fails: so none can be forgotten unnoticed. */
#include "world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/statvfs.h>

#include "drv/gate_wire.h"

#define FD_BASE 1000
#define MAX_FDS 512

static struct inode *root;
static struct ofile *fds[MAX_FDS];
static uint64_t next_ino;

static uint64_t wall_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts); /* the simulated one: it is wrapped here, too */
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- inodes ---- */

struct inode *inode_new(enum inode_type type)
{
	struct inode *i = xcalloc(1, sizeof(*i));

	*i = (struct inode){.type = type, .ino = ++next_ino, .refs = 1, .mtime_ms = wall_ms()};
	return i;
}

void inode_unref(struct inode *i)
{
	if (--i->refs)
		return;
	for (size_t k = 0; k < i->n_dents; k++) {
		free(i->dents[k].name);
		inode_unref(i->dents[k].inode);
	}
	if (i->door && vport(i->door->port)->door == i->door)
		vport(i->door->port)->door = NULL;
	free(i->door);
	free(i->counters);
	free(i->dents);
	free(i->data);
	free(i);
}

static struct dent *dent_of(struct inode *dir, const char *name, size_t len)
{
	for (size_t k = 0; k < dir->n_dents; k++)
		if (strncmp(dir->dents[k].name, name, len) == 0 && !dir->dents[k].name[len])
			return &dir->dents[k];
	return NULL;
}

/* The directory of the last component, and that; NULL: no such directory. */
static struct inode *parent_of(const char *path, const char **last)
{
	struct inode *dir = root;

	while (*path == '/')
		path++;
	for (const char *slash; (slash = strchr(path, '/'));) {
		struct dent *d = dent_of(dir, path, (size_t)(slash - path));

		if (!d || d->inode->type != I_DIR)
			return NULL;
		dir = d->inode;
		path = slash + 1;
	}
	*last = path;
	return dir;
}

static struct inode *lookup(struct inode *dir, const char *name)
{
	struct dent *d = dir ? dent_of(dir, name, strlen(name)) : NULL;

	if (dir && streq(name, "."))
		return dir;
	return d ? d->inode : NULL;
}

struct inode *disk_find(const char *path)
{
	const char *last;
	struct inode *dir = parent_of(path, &last);

	return *path == '/' && !path[1] ? root : dir ? lookup(dir, last) : NULL;
}

static void link_in(struct inode *dir, const char *name, struct inode *i)
{
	dir->dents = xreallocarray(dir->dents, dir->n_dents + 1, sizeof(*dir->dents));
	dir->dents[dir->n_dents++] = (struct dent){xstrdup(name), i};
}

static void unlink_from(struct inode *dir, const char *name)
{
	struct dent *d = dent_of(dir, name, strlen(name));
	struct inode *i;

	if (!d)
		return;
	i = d->inode;
	free(d->name);
	memmove(d, d + 1, (size_t)(dir->dents + dir->n_dents - d - 1) * sizeof(*d));
	dir->n_dents--;
	inode_unref(i);
}

void inode_append(struct inode *i, const char *text)
{
	size_t n = strlen(text);

	if (i->len + n + 1 > i->cap) {
		i->cap = 2 * (i->len + n + 1);
		i->data = xreallocarray(i->data, i->cap, 1);
	}
	memcpy(i->data + i->len, text, n + 1);
	i->len += n;
	i->mtime_ms = wall_ms();
}

static void write_at(struct inode *i, size_t pos, const void *data, size_t n)
{
	if (pos + n + 1 > i->cap) {
		i->cap = 2 * (pos + n + 1);
		i->data = xreallocarray(i->data, i->cap, 1);
	}
	if (pos > i->len)
		memset(i->data + i->len, 0, pos - i->len);
	memcpy(i->data + pos, data, n);
	i->len = MAX(i->len, pos + n);
	i->data[i->len] = '\0';
	i->mtime_ms = wall_ms();
}

/* ---- for the world itself ---- */

void disk_mkdirs(const char *path)
{
	_cleanup_free_ char *p = xstrdup(path);

	for (char *slash = p; slash;) {
		const char *last;
		struct inode *dir;

		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = '\0';
		dir = parent_of(p, &last);
		if (!lookup(dir, last))
			link_in(dir, last, inode_new(I_DIR));
		if (slash)
			*slash = '/';
	}
}

void disk_write(const char *path, const char *text)
{
	const char *last;
	struct inode *dir = parent_of(path, &last), *i = dir ? lookup(dir, last) : NULL;

	if (!dir)
		return;
	if (!i) {
		i = inode_new(I_FILE);
		link_in(dir, last, i);
	}
	i->len = 0;
	inode_append(i, text);
}

void disk_remove(const char *path)
{
	const char *last;
	struct inode *dir = parent_of(path, &last);

	if (dir && lookup(dir, last))
		unlink_from(dir, last);
}

void disk_new(void)
{
	next_ino = 0;
	root = inode_new(I_DIR);
	disk_mkdirs(PERF_DIR);
	disk_mkdirs(WORLD_ROOT "/etc");
	disk_mkdirs(WORLD_ROOT "/run");
	disk_write(WORLD_ROOT "/h2o.jar", "jar");
	disk_mkdirs(WORLD_ROOT "/java/bin");
	disk_write(WORLD_ROOT "/java/bin/java", "java");
}

void disk_free(void)
{
	inode_unref(root);
	root = NULL;
}

/* ---- descriptors ---- */

int fd_of(struct ofile *f)
{
	for (int k = 0; k < MAX_FDS; k++)
		if (!fds[k]) {
			fds[k] = f;
			return FD_BASE + k;
		}
	violated("descriptors", "the daemon has %d descriptors open", MAX_FDS);
	errno = EMFILE;
	return -1;
}

int fd_new(struct inode *i, int flags)
{
	struct ofile *f = xcalloc(1, sizeof(*f));

	*f = (struct ofile){.inode = i, .flags = flags, .refs = 1};
	i->refs++;
	return fd_of(f);
}

struct ofile *fd_file(int fd)
{
	return fd >= FD_BASE && fd < FD_BASE + MAX_FDS ? fds[fd - FD_BASE] : NULL;
}

void ofile_unref(struct ofile *f)
{
	if (!f || --f->refs)
		return;
	if (f->locks)
		f->inode->locked = false;
	if (f->inode->type == I_FIFO && f->inode->reader)
		h2o_flatfile(f->inode->reader, f->inode->data ? f->inode->data : "");
	inode_unref(f->inode);
	free(f);
}

static void close_fd(int fd)
{
	struct ofile *f = fds[fd - FD_BASE];

	fds[fd - FD_BASE] = NULL;
	ofile_unref(f);
}

void fds_close_all(void)
{
	for (int k = 0; k < MAX_FDS; k++)
		if (fds[k])
			close_fd(FD_BASE + k);
}

unsigned fds_open(void)
{
	unsigned n = 0;

	for (int k = 0; k < MAX_FDS; k++)
		n += fds[k] != NULL;
	return n;
}

static int fail(int err)
{
	errno = err;
	return -1;
}

/* A call that changes something: 0, or errno is set and nothing is done. */
static int change(unsigned us)
{
	return effect(us) ? 0 : fail(EIO);
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
	if (fd < FD_BASE)
		return __real_close(fd);
	if (!fd_file(fd))
		return fail(EBADF); /* a ghost's: they are closed already */
	close_fd(fd);
	return 0;
}

/* ---- opening, reading, writing ---- */

static int open_at(struct inode *dir, const char *name, int flags)
{
	struct inode *i = lookup(dir, name);
	bool writes = (flags & O_ACCMODE) != O_RDONLY;
	int err = fault(FAULT_OPEN);

	if (err)
		return fail(err);
	if (!i && !(flags & O_CREAT))
		return fail(ENOENT);
	if (i && flags & O_DIRECTORY && i->type != I_DIR)
		return fail(ENOTDIR);
	if (i && i->type == I_DIR && writes)
		return fail(EISDIR);
	if (i && i->type == I_FIFO && writes && (!i->reader || !vproc_runs(i->reader)))
		return fail(ENXIO);
	if ((!i || writes) && change(30) < 0)
		return -1;
	if (!i) {
		i = inode_new(I_FILE);
		link_in(dir, name, i);
	}
	if (flags & O_TRUNC)
		i->len = 0;
	return fd_new(i, flags);
}

int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
	const char *last;
	struct inode *dir;

	look(5);
	if (w.ghost && (flags & O_ACCMODE) != O_RDONLY)
		return fail(EIO);
	dir = parent_of(path, &last);
	return dir ? open_at(dir, last, flags) : fail(ENOENT);
}

/* What _FORTIFY_SOURCE makes of an open() that creates nothing. */
int __wrap___open_2(const char *path, int flags);
int __wrap___open_2(const char *path, int flags)
{
	return __wrap_open(path, flags);
}

int __wrap_openat(int at, const char *name, int flags, ...);
int __wrap_openat(int at, const char *name, int flags, ...)
{
	struct ofile *f = fd_file(at);

	return f ? open_at(f->inode, name, flags) : fail(EBADF);
}

/* Of n bytes. */
static size_t there(const struct ofile *f, size_t pos, size_t n)
{
	return pos < f->inode->len ? MIN(n, f->inode->len - pos) : 0;
}

ssize_t __wrap_read(int fd, void *buf, size_t n);
ssize_t __wrap_read(int fd, void *buf, size_t n)
{
	struct ofile *f = fd_file(fd);
	size_t some;

	if (!f)
		return fail(EBADF);
	some = there(f, f->pos, n);
	if (some)
		memcpy(buf, f->inode->data + f->pos, some);
	f->pos += some;
	return (ssize_t)some;
}

ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t at);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t at)
{
	struct ofile *f = fd_file(fd);
	size_t some, pos = (size_t)at;

	if (!f)
		return fail(EBADF);
	some = there(f, pos, n);
	if (some)
		memcpy(buf, f->inode->data + pos, some);
	return (ssize_t)some;
}

/* On a full disk the first call may still write something. */
static ssize_t write_file(struct ofile *f, size_t pos, const void *buf, size_t n)
{
	int err;

	if (change(10) < 0)
		return -1;
	err = f->inode->type == I_FILE ? fault(FAULT_WRITE) : 0;
	if (err && (n < 2 || w.now & 1))
		return fail(err);
	if (err)
		n /= 2;
	write_at(f->inode, pos, buf, n);
	return (ssize_t)n;
}

ssize_t __wrap_write(int fd, const void *buf, size_t n);
ssize_t __wrap_write(int fd, const void *buf, size_t n)
{
	struct ofile *f = fd_file(fd);
	ssize_t r;

	if (!f)
		return fail(EBADF);
	r = write_file(f, (f->flags & O_APPEND) ? f->inode->len : f->pos, buf, n);
	if (r > 0)
		f->pos += (size_t)r;
	return r;
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t at)
{
	struct ofile *f = fd_file(fd);

	return f ? write_file(f, (size_t)at, buf, n) : fail(EBADF);
}

int __wrap_ftruncate(int fd, off_t len);
int __wrap_ftruncate(int fd, off_t len)
{
	struct ofile *f = fd_file(fd);

	if (!f)
		return fail(EBADF);
	if (change(10) < 0)
		return -1;
	f->inode->len = MIN(f->inode->len, (size_t)len);
	return 0;
}

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	return fd_file(fd) ? change(300) : fail(EBADF);
}

int __wrap_flock(int fd, int how);
int __wrap_flock(int fd, int how)
{
	struct ofile *f = fd_file(fd);

	if (!f)
		return fail(EBADF);
	if (f->inode->locked && !f->locks)
		return fail(EWOULDBLOCK);
	if (!(how & LOCK_UN) && effect(2))
		f->locks = f->inode->locked = true;
	return 0;
}

/* ---- looking ---- */

static const mode_t modes[] = {[I_DIR] = S_IFDIR | 0750,
	[I_FILE] = S_IFREG | 0640,
	[I_FIFO] = S_IFIFO | 0600,
	[I_SOCK] = S_IFSOCK | 0660,
	[I_MEM] = S_IFREG | 0600,
	[I_TCP] = S_IFSOCK | 0600};

static int stat_inode(const struct inode *i, struct stat *st)
{
	if (!i)
		return fail(ENOENT);
	memset(st, 0, sizeof(*st));
	st->st_dev = 1;
	st->st_ino = i->ino;
	st->st_mode = modes[i->type];
	st->st_nlink = i->refs;
	st->st_uid = geteuid();
	st->st_size = (off_t)i->len;
	st->st_mtim.tv_sec = (time_t)(i->mtime_ms / 1000);
	st->st_mtim.tv_nsec = (long)(i->mtime_ms % 1000 * 1000000);
	return 0;
}

int __wrap_stat(const char *path, struct stat *st);
int __wrap_stat(const char *path, struct stat *st)
{
	return stat_inode(disk_find(path), st);
}

int __wrap_lstat(const char *path, struct stat *st);
int __wrap_lstat(const char *path, struct stat *st)
{
	return stat_inode(disk_find(path), st);
}

/* There are no links, and nobody says "..". */
char *__wrap_realpath(const char *path, char *resolved);
char *__wrap_realpath(const char *path, char *resolved)
{
	if (resolved)
		abort();
	if (disk_find(path))
		return xstrdup(path);
	errno = ENOENT;
	return NULL;
}

int __wrap_fstat(int fd, struct stat *st);
int __wrap_fstat(int fd, struct stat *st)
{
	struct ofile *f = fd_file(fd);

	return f ? stat_inode(f->inode, st) : fail(EBADF);
}

int __wrap_fstatat(int at, const char *name, struct stat *st, int flags);
int __wrap_fstatat(int at, const char *name, struct stat *st, int flags)
{
	struct ofile *f = fd_file(at);

	(void)flags;
	return f ? stat_inode(lookup(f->inode, name), st) : fail(EBADF);
}

int __wrap_access(const char *path, int how);
int __wrap_access(const char *path, int how)
{
	(void)how;
	return disk_find(path) ? 0 : fail(ENOENT);
}

int __wrap_statvfs(const char *path, struct statvfs *v);
int __wrap_statvfs(const char *path, struct statvfs *v)
{
	bool full = fault_is_on(FAULT_WRITE);

	if (!disk_find(path))
		return fail(ENOENT);
	*v = (struct statvfs){.f_frsize = 4096, .f_blocks = 1 << 20, .f_files = 1 << 20};
	v->f_bavail = full ? 0 : 1 << 19;
	v->f_favail = 1 << 19;
	return 0;
}

ssize_t __wrap_readlink(const char *path, char *buf, size_t n);
ssize_t __wrap_readlink(const char *path, char *buf, size_t n)
{
	const char *to = NULL;
	const struct vproc *p;
	int pid;

	if (streq(path, "/proc/self/exe"))
		to = WORLD_ROOT "/bin/h2ofleetd";
	else if (sscanf(path, "/proc/%d/cwd", &pid) == 1 && (p = vproc_find(pid)))
		to = p->cwd ? p->cwd : "/";
	if (!to)
		return fail(ENOENT);
	n = MIN(n, strlen(to));
	memcpy(buf, to, n);
	return (ssize_t)n;
}

/* ---- directories ---- */

/* A directory as it was when it was opened. */
struct vdir {
	struct strv names;
	size_t next;
	int fd; /* -1: opened by its path */
	struct dirent entry;
};

static struct vdir *dir_of(const struct inode *i, int fd)
{
	struct vdir *d = xcalloc(1, sizeof(*d));

	d->fd = fd;
	for (size_t k = 0; i && k < i->n_dents; k++)
		strv_add(&d->names, i->dents[k].name);
	return d;
}

static DIR *open_proc(void)
{
	struct vdir *d = dir_of(NULL, -1);

	for (const struct vproc *p = w.procs; p; p = p->next)
		if (p->state != V_GONE)
			strv_printf(&d->names, "%d", (int)p->pid);
	return (DIR *)(void *)d;
}

DIR *__wrap_opendir(const char *path);
DIR *__wrap_opendir(const char *path)
{
	const struct inode *i;

	look(10);
	if (streq(path, "/proc"))
		return open_proc();
	i = disk_find(path);
	if (!i || i->type != I_DIR) {
		errno = ENOENT;
		return NULL;
	}
	return (DIR *)(void *)dir_of(i, -1);
}

DIR *__wrap_fdopendir(int fd);
DIR *__wrap_fdopendir(int fd)
{
	struct ofile *f = fd_file(fd);

	if (!f) {
		errno = EBADF;
		return NULL;
	}
	return (DIR *)(void *)dir_of(f->inode, fd);
}

struct dirent *__wrap_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir)
{
	struct vdir *d = (struct vdir *)(void *)dir;

	if (d->next >= d->names.n)
		return NULL;
	snprintf(d->entry.d_name, sizeof(d->entry.d_name), "%s", d->names.v[d->next++]);
	return &d->entry;
}

int __wrap_closedir(DIR *dir);
int __wrap_closedir(DIR *dir)
{
	struct vdir *d = (struct vdir *)(void *)dir;

	if (d->fd >= 0)
		__wrap_close(d->fd);
	strv_free(&d->names);
	free(d);
	return 0;
}

int __wrap_scandir(const char *path, struct dirent ***out, int (*want)(const struct dirent *),
	int (*cmp)(const struct dirent **, const struct dirent **));
int __wrap_scandir(const char *path, struct dirent ***out, int (*want)(const struct dirent *),
	int (*cmp)(const struct dirent **, const struct dirent **))
{
	DIR *dir = __wrap_opendir(path);
	const struct dirent *de;
	int n = 0;

	*out = NULL;
	if (!dir)
		return -1;
	while ((de = __wrap_readdir(dir))) {
		if (want && !want(de))
			continue;
		*out = xreallocarray(*out, (size_t)n + 1, sizeof(**out));
		(*out)[n] = xmalloc(sizeof(*de));
		*(*out)[n++] = *de;
	}
	__wrap_closedir(dir);
	if (n)
		qsort(*out, (size_t)n, sizeof(**out), (int (*)(const void *, const void *))cmp);
	return n;
}

/* "DIR", a star, "REST": all that core asks for. */
int __wrap_glob(const char *pattern, int flags, int (*err)(const char *, int), glob_t *g);
int __wrap_glob(const char *pattern, int flags, int (*err)(const char *, int), glob_t *g)
{
	const char *star = strchr(pattern, '*');
	_cleanup_free_ char *path = xstrndup(pattern, (size_t)(star - pattern - 1));
	struct inode *dir = disk_find(path);

	(void)flags, (void)err;
	*g = (glob_t){0};
	for (size_t k = 0; dir && k < dir->n_dents; k++) {
		char *full = xasprintf("%s/%s%s", path, dir->dents[k].name, star + 1);

		if (!disk_find(full)) {
			free(full);
			continue;
		}
		g->gl_pathv = xreallocarray(g->gl_pathv, g->gl_pathc + 1, sizeof(*g->gl_pathv));
		g->gl_pathv[g->gl_pathc++] = full;
	}
	return g->gl_pathc ? 0 : GLOB_NOMATCH;
}

void __wrap_globfree(glob_t *g);
void __wrap_globfree(glob_t *g)
{
	for (size_t k = 0; k < g->gl_pathc; k++)
		free(g->gl_pathv[k]);
	free(g->gl_pathv);
	*g = (glob_t){0};
}

/* ---- names ---- */

static int make_at(const char *path, enum inode_type type)
{
	const char *last;
	struct inode *dir = parent_of(path, &last);
	int err;

	if (!dir)
		return fail(ENOENT);
	if (lookup(dir, last))
		return fail(EEXIST);
	err = fault(FAULT_OPEN);
	if (err)
		return fail(err);
	if (change(20) < 0)
		return -1;
	if (!lookup(dir, last))
		link_in(dir, last, inode_new(type));
	return 0;
}

int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode)
{
	(void)mode;
	return make_at(path, I_DIR);
}

int __wrap_mkfifo(const char *path, mode_t mode);
int __wrap_mkfifo(const char *path, mode_t mode)
{
	(void)mode;
	return w.no_pipes ? fail(EPERM) : make_at(path, I_FIFO);
}

static int remove_at(struct inode *dir, const char *name, bool is_dir)
{
	struct inode *i = dir ? lookup(dir, name) : NULL;

	if (!i)
		return fail(ENOENT);
	if (is_dir != (i->type == I_DIR))
		return fail(is_dir ? ENOTDIR : EISDIR);
	if (is_dir && i->n_dents)
		return fail(ENOTEMPTY);
	if (change(15) < 0)
		return -1;
	if (lookup(dir, name)) /* whoever removed it meanwhile */
		unlink_from(dir, name);
	return 0;
}

int __wrap_unlink(const char *path);
int __wrap_unlink(const char *path)
{
	const char *last = NULL;
	struct inode *dir = parent_of(path, &last);

	return remove_at(dir, last, false);
}

int __wrap_rmdir(const char *path);
int __wrap_rmdir(const char *path)
{
	const char *last = NULL;
	struct inode *dir = parent_of(path, &last);

	return remove_at(dir, last, true);
}

int __wrap_unlinkat(int at, const char *name, int flags);
int __wrap_unlinkat(int at, const char *name, int flags)
{
	struct ofile *f = fd_file(at);

	return f ? remove_at(f->inode, name, flags & AT_REMOVEDIR) : fail(EBADF);
}

int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
	const char *last_from, *last_to;
	struct inode *dir_from = parent_of(from, &last_from), *dir_to = parent_of(to, &last_to);
	struct inode *i = dir_from ? lookup(dir_from, last_from) : NULL;
	int err;

	if (!i || !dir_to)
		return fail(ENOENT);
	err = fault(FAULT_RENAME);
	if (err)
		return fail(err);
	if (change(25) < 0)
		return -1;
	i->refs++;
	unlink_from(dir_from, last_from);
	if (lookup(dir_to, last_to))
		unlink_from(dir_to, last_to);
	link_in(dir_to, last_to, i);
	return 0;
}

struct passwd *__wrap_getpwuid(uid_t uid);
struct passwd *__wrap_getpwuid(uid_t uid)
{
	static struct passwd pw = {.pw_name = (char *)"sim", .pw_dir = (char *)WORLD_ROOT};

	(void)uid;
	return &pw;
}

/* ---- what else is a descriptor ---- */

int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags)
{
	struct inode *i;
	int fd, err = fault(FAULT_OPEN);

	(void)name, (void)flags;
	if (err)
		return fail(err);
	if (change(5) < 0)
		return -1;
	i = inode_new(I_MEM);
	i->counters = xcalloc(1, sizeof(*i->counters));
	fd = fd_new(i, O_RDWR);
	inode_unref(i);
	return fd;
}

struct gate_counters *__wrap_gate_counters_map(int fd);
struct gate_counters *__wrap_gate_counters_map(int fd)
{
	struct ofile *f = fd_file(fd);

	return f ? f->inode->counters : NULL;
}

void __wrap_gate_counters_unmap(struct gate_counters *c);
void __wrap_gate_counters_unmap(struct gate_counters *c)
{
	(void)c;
}
