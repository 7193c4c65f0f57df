#include "drv/logprune.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "drv/logpart.h"
#include "drv/logrecord.h"

/* Evidence of so many crashes stays. */
#define KEEP_CRASHES 4

/* A file that may go. */
struct victim {
	char *name; /* owned */
	uint64_t size;
	struct timespec mtime;
	bool is_crash;
};

struct folder {
	const char *path;
	int fd;
	struct victim *v; /* owned */
	size_t n;
	size_t n_crashes;
	uint64_t total;    /* of victims */
	uint64_t reserved; /* of live files */
};

static bool is_log(const char *name)
{
	size_t digits = strspn(name, "0123456789");

	return digits > 0 && streq(name + digits, ".log");
}

/* Of a log: LOG.new, LOG.position.new. */
static bool is_leftover(const char *name)
{
	size_t digits = strspn(name, "0123456789");

	return digits > 0 && has_prefix(name + digits, ".log.") &&
	       streq(name + strlen(name) - 4, ".new");
}

static bool is_crash(const char *name)
{
	return has_prefix(name, "hs_err_pid") && strstr(name, ".log");
}

int logprune_find(const char *dir, struct strv *logs, struct err *e)
{
	DIR *d = opendir(dir);
	struct dirent *de;

	if (!d)
		return err_set_errno(e, -errno, "cannot read %s", dir);
	while ((de = readdir(d))) {
		if (is_log(de->d_name))
			strv_add(logs, de->d_name);
		else if (is_leftover(de->d_name))
			unlinkat(dirfd(d), de->d_name, 0);
	}
	closedir(d);
	return 0;
}

static uint64_t live_size(const struct folder *f, const char *name)
{
	_cleanup_free_ char *log = xasprintf("%s/%s", f->path, name);
	_cleanup_close_ int fd =
		open(log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	struct loglive l;

	return fd >= 0 && loglive_look(log, fd, &l) == 0 ? l.end - l.start : 0;
}

static void add_victim(struct folder *f, const char *name)
{
	struct stat st;

	if (fstatat(f->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return;
	if ((f->n & (f->n - 1)) == 0)
		f->v = xreallocarray(f->v, f->n ? 2 * f->n : 1, sizeof(*f->v));
	f->v[f->n++] =
		(struct victim){xstrdup(name), (uint64_t)st.st_size, st.st_mtim, is_crash(name)};
	f->n_crashes += is_crash(name);
	f->total += (uint64_t)st.st_size;
}

static int by_age(const void *a, const void *b)
{
	const struct victim *x = a, *y = b;

	if (x->mtime.tv_sec != y->mtime.tv_sec)
		return x->mtime.tv_sec < y->mtime.tv_sec ? -1 : 1;
	if (x->mtime.tv_nsec != y->mtime.tv_nsec)
		return x->mtime.tv_nsec < y->mtime.tv_nsec ? -1 : 1;
	return strcmp(x->name, y->name);
}

static void remove_oldest(struct folder *f, uint64_t room)
{
	for (size_t i = 0; i < f->n && f->total > room; i++) {
		struct victim *v = &f->v[i];

		if (v->is_crash && f->n_crashes <= KEEP_CRASHES)
			continue;
		if (unlinkat(f->fd, v->name, 0) < 0 && errno != ENOENT)
			continue;
		f->total -= v->size;
		f->n_crashes -= v->is_crash;
	}
}

int logprune(const char *dir, uint64_t max_size, uint64_t max_total, struct err *e)
{
	DIR *d = opendir(dir);
	struct folder f = {.path = dir, .reserved = max_size};
	struct dirent *de;

	if (!d)
		return err_set_errno(e, -errno, "cannot read %s", dir);
	f.fd = dirfd(d);
	while ((de = readdir(d))) {
		if (is_log(de->d_name))
			f.reserved += MAX(live_size(&f, de->d_name), max_size);
		else if (logpart_is_name(de->d_name) || is_crash(de->d_name))
			add_victim(&f, de->d_name);
	}
	if (f.n)
		qsort(f.v, f.n, sizeof(*f.v), by_age);
	remove_oldest(&f, f.reserved < max_total ? max_total - f.reserved : 0);
	closedir(d);
	for (size_t i = 0; i < f.n; i++)
		free(f.v[i].name);
	free(f.v);
	return 0;
}
