/* What stays in a boot cache and what goes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/file.h"
#include "drv/bootwork.h"

#define KEY_CHARS "0123456789abcdef"

static bool is_key(const char *s)
{
	return strlen(s) == BOOT_KEY_SIZE - 1 && strspn(s, KEY_CHARS) == BOOT_KEY_SIZE - 1;
}

static bool is_native(const char *name)
{
	return has_prefix(name, BOOT_NATIVE) && is_key(name + strlen(BOOT_NATIVE));
}

static bool is_ignored(const char *name)
{
	size_t n = strlen(name), tail = strlen(BOOT_IGNORED);
	_cleanup_free_ char *key = n > tail ? xstrndup(name, n - tail) : NULL;

	return key && streq(name + n - tail, BOOT_IGNORED) && is_key(key);
}

int boot_lock(const char *boot, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/" BOOT_LOCK, boot);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot open %s", path);
	/* Who can open it can hold it; versions before had it open to all. */
	if (fchmod(fd, 0600) < 0)
		return err_set_errno(e, -errno, "cannot change the mode of %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return TAKE_FD(fd);
	if (errno == EWOULDBLOCK)
		return err_set(e, -EBUSY, "another process is at work in %s", boot);
	return err_set_errno(e, -errno, "cannot lock %s", path);
}

/* --- entries ------------------------------------------------------------------------------ */

struct entry {
	char *name;
	uint64_t bytes, used_ms;
};

struct entries {
	struct entry *v;
	size_t n;
};

static void entries_free(struct entries *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].name);
	free(l->v);
}

/* What its files take on the disk; entries have no folders. */
static uint64_t size_of(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *de;
	uint64_t sum = 0;
	struct stat st;

	while (d && (de = readdir(d)))
		if (fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			S_ISREG(st.st_mode))
			sum += (uint64_t)st.st_blocks * 512;
	if (d)
		closedir(d);
	return sum;
}

/* All names that are ours; others are left alone. */
static void read_entries(const char *boot, struct entries *l)
{
	DIR *d = opendir(boot);
	const struct dirent *de;

	*l = (struct entries){0};
	while (d && (de = readdir(d))) {
		const char *name = de->d_name;
		_cleanup_free_ char *path = xasprintf("%s/%s", boot, name);
		struct stat st;

		if (!is_key(name) && !is_native(name) && !is_ignored(name))
			continue;
		if (lstat(path, &st) < 0)
			continue;
		l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
		l->v[l->n++] = (struct entry){.name = xstrdup(name),
			.bytes = size_of(path),
			.used_ms = (uint64_t)st.st_mtim.tv_sec * 1000 +
				   (uint64_t)st.st_mtim.tv_nsec / 1000000};
	}
	if (d)
		closedir(d);
}

/* NULL when there is none; to be decref'ed. */
static json_t *verdict_of(const char *path)
{
	_cleanup_close_ int dir = boot_open_dir(AT_FDCWD, path, path, NULL);

	return dir >= 0 ? boot_read_verdict(dir, path, NULL) : NULL;
}

static bool is_stale(const char *boot, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", boot, name);
	json_t *verdict = is_ignored(name) ? NULL : verdict_of(path);
	bool stale = !boot_verdict_is_current(verdict);

	json_decref(verdict);
	return stale;
}

static void remove_entry(const char *boot, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", boot, name);

	file_remove_tree(path, NULL);
}

void boot_sweep(const char *boot)
{
	_cleanup_(entries_free) struct entries l = {0};

	remove_entry(boot, BOOT_WORK);
	read_entries(boot, &l);
	for (size_t i = 0; i < l.n; i++)
		if (is_stale(boot, l.v[i].name))
			remove_entry(boot, l.v[i].name);
}

static int compare_used(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->used_ms < y->used_ms ? -1 : x->used_ms > y->used_ms;
}

void boot_bound(const char *boot, uint64_t max_total, const char *keep, const char *keep_native)
{
	_cleanup_(entries_free) struct entries l = {0};
	uint64_t total = 0;

	if (max_total == 0)
		return;
	read_entries(boot, &l);
	if (l.n)
		qsort(l.v, l.n, sizeof(*l.v), compare_used);
	for (size_t i = 0; i < l.n; i++)
		total += l.v[i].bytes;
	for (size_t i = 0; i < l.n && total > max_total; i++) {
		if (streq(l.v[i].name, keep) || streq(l.v[i].name, keep_native))
			continue;
		remove_entry(boot, l.v[i].name);
		total -= l.v[i].bytes;
	}
}

json_t *bootcache_list(const char *cache_dir)
{
	_cleanup_free_ char *boot = xasprintf("%s/" BOOT_DIR, cache_dir);
	_cleanup_(entries_free) struct entries l = {0};
	json_t *all = json_array();

	read_entries(boot, &l);
	for (size_t i = 0; i < l.n; i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", boot, l.v[i].name);
		json_t *verdict = verdict_of(path);
		json_t *j = json_is_object(verdict) ? verdict : json_object();

		json_object_set_new(j, "name", json_string(l.v[i].name));
		json_object_set_new(
			j, "kind", json_string(is_native(l.v[i].name) ? "native" : "archive"));
		json_object_set_new(j, "path", json_string(path));
		json_object_set_new(j, "bytes", json_integer((json_int_t)l.v[i].bytes));
		json_object_set_new(j, "used_ms", json_integer((json_int_t)l.v[i].used_ms));
		json_object_set_new(j, "current",
			json_boolean(!is_ignored(l.v[i].name) && boot_verdict_is_current(j)));
		json_array_append_new(all, j);
	}
	return all;
}

int bootcache_clear(const char *cache_dir, uint64_t *bytes, struct err *e)
{
	_cleanup_free_ char *boot = xasprintf("%s/" BOOT_DIR, cache_dir);
	_cleanup_(entries_free) struct entries l = {0};
	_cleanup_close_ int dir = boot_open_cache(cache_dir, e);
	_cleanup_close_ int lock = -1;
	int r = 0;

	*bytes = 0;
	if (dir < 0)
		return dir == -ENOENT ? 0 : dir;
	lock = boot_lock(boot, e);
	if (lock < 0)
		return lock;
	remove_entry(boot, BOOT_WORK);
	read_entries(boot, &l);
	for (size_t i = 0; i < l.n && r == 0; i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", boot, l.v[i].name);

		r = file_remove_tree(path, e);
		if (r == 0)
			*bytes += l.v[i].bytes;
	}
	return r;
}
