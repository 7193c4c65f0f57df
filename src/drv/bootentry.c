#include "drv/bootentry.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "base/file.h"
#include "base/text.h"

/* Changes when what the entries hold does. */
#define FORMAT      "format 1"
#define VERDICT_MAX (256u << 10)

void boot_identity_clear(struct boot_identity *id)
{
	strv_free(&id->lines);
	id->key[0] = '\0';
}

/* FNV-1a: the key only has to differ, the verdict has the identity in full. */
static void make_key(struct boot_identity *id)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < id->lines.n; i++)
		for (const char *s = id->lines.v[i];; s++) {
			h = (h ^ (unsigned char)*s) * 0x100000001b3u;
			if (!*s)
				break;
		}
	snprintf(id->key, sizeof(id->key), "%016" PRIx64, h);
}

static uint64_t mtime_ns(const struct stat *st)
{
	return (uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec;
}

/* Of a directory the path is all that counts: no class of it is in an archive, and it is written to
 * all the time. A file that is missing is a fact as well. */
static char *describe_file(const char *what, const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return xasprintf("%s - - %s", what, path);
	if (S_ISDIR(st.st_mode))
		return xasprintf("%s dir - %s", what, path);
	return xasprintf("%s %jd %" PRIu64 " %s", what, (intmax_t)st.st_size, mtime_ns(&st), path);
}

/* The words of describe_file(), from "jar 12 34 /path". */
static bool line_is_current(const char *line)
{
	static const char *const files[] = {"jar", "extra", "java", "libjvm", "release"};
	const char *path = strstr(line, " /");
	size_t n = strcspn(line, " ");

	for (size_t i = 0; path && i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *now = NULL;

		if (n != strlen(files[i]) || strncmp(files[i], line, n) != 0)
			continue;
		now = describe_file(files[i], path + 1);
		return streq(now, line);
	}
	return true;
}

bool boot_verdict_is_current(const json_t *verdict)
{
	const json_t *lines = json_object_get(verdict, "identity"), *line;
	size_t i;

	if (json_array_size(lines) == 0 ||
		!streq_null(json_string_value(json_array_get(lines, 0)), FORMAT))
		return false;
	json_array_foreach (lines, i, line)
		if (!json_is_string(line) || !line_is_current(json_string_value(line)))
			return false;
	return true;
}

int boot_identity_of_jar(const char *jar, struct boot_identity *id, struct err *e)
{
	struct stat st;

	*id = (struct boot_identity){0};
	if (stat(jar, &st) < 0)
		return err_set_errno(e, -errno, "%s cannot be used", jar);
	strv_add(&id->lines, FORMAT);
	strv_take(&id->lines, describe_file("jar", jar));
	make_key(id);
	return 0;
}

/* What the JVM is, from the real path of java: a link that leads to another one later is noticed.
 */
static int add_jvm(const struct boot_runtime *rt, struct strv *lines, struct err *e)
{
	_cleanup_free_ char *real = realpath(rt->java, NULL);
	_cleanup_free_ char *home = NULL, *libjvm = NULL, *release = NULL;
	char *slash;

	if (!real)
		return err_set_errno(e, -errno, "%s cannot be used", rt->java);
	strv_take(lines, describe_file("java", real));
	home = xstrdup(real);
	for (int i = 0; i < 2; i++) { /* bin/java */
		slash = strrchr(home, '/');
		if (slash)
			*slash = '\0';
	}
	libjvm = xasprintf("%s/lib/server/libjvm.so", home);
	release = xasprintf("%s/release", home);
	strv_take(lines, describe_file("libjvm", libjvm));
	strv_take(lines, describe_file("release", release));
	return 0;
}

/* Calls fn for each element, until it returns false. */
static void each_element(
	const char *classpath, bool (*fn)(const char *element, void *arg), void *arg)
{
	for (const char *p = classpath; p && *p; p += *p == ':') {
		size_t n = strcspn(p, ":");
		_cleanup_free_ char *element = xstrndup(p, n);

		if (n && !fn(element, arg))
			return;
		p += n;
	}
}

static bool add_extra(const char *element, void *lines)
{
	size_t n = strlen(element);

	if (n >= 2 && streq(element + n - 2, "/*")) {
		_cleanup_free_ char *dir = xstrndup(element, n - 2);
		struct stat st;

		/* All jars in it, in an order that nobody knows: what is added or taken away
		 * changes its mtime. */
		strv_printf((struct strv *)lines, "jars %" PRIu64 " %s",
			stat(dir, &st) == 0 ? mtime_ns(&st) : 0, element);
	} else {
		strv_take(lines, describe_file("extra", element));
	}
	return true;
}

/* JSON has no other texts, so a verdict could not name it. */
static int check_utf8(const struct strv *lines, struct err *e)
{
	for (size_t i = 0; i < lines->n; i++) {
		_cleanup_free_ char *valid = text_utf8(lines->v[i]);
		_cleanup_free_ char *shown = text_visible(lines->v[i], strlen(lines->v[i]));

		if (!streq(valid, lines->v[i]))
			return err_set(e, -EILSEQ, "no boot cache for a path that is not UTF-8: %s",
				shown);
	}
	return 0;
}

int boot_identity_of(const struct boot_runtime *rt, struct boot_identity *id, struct err *e)
{
	int r = boot_identity_of_jar(rt->jar, id, e);

	if (r == 0)
		r = add_jvm(rt, &id->lines, e);
	if (r < 0) {
		boot_identity_clear(id);
		return r;
	}
	strv_printf(&id->lines, "version %d", rt->java_major);
	strv_printf(&id->lines, "heap %s", rt->big_heap ? "big" : "small");
	strv_printf(&id->lines, "main %s", rt->main_class ? rt->main_class : "-");
	each_element(rt->extra_classpath, add_extra, &id->lines);
	make_key(id);
	r = check_utf8(&id->lines, e);
	if (r < 0)
		boot_identity_clear(id);
	return r;
}

json_t *boot_identity_json(const struct boot_identity *id)
{
	json_t *lines = json_array();

	for (size_t i = 0; i < id->lines.n; i++)
		json_array_append_new(lines, json_string(id->lines.v[i]));
	return lines;
}

bool boot_identity_matches(const struct boot_identity *id, const json_t *verdict)
{
	const json_t *lines = json_object_get(verdict, "identity");

	if (json_array_size(lines) != id->lines.n)
		return false;
	for (size_t i = 0; i < id->lines.n; i++)
		if (!streq_null(json_string_value(json_array_get(lines, i)), id->lines.v[i]))
			return false;
	return true;
}

/* --- whom to trust ------------------------------------------------------------------------ */

static int check_trust(const struct stat *st, const char *shown, const char *advice, struct err *e)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return err_set(e, -EPERM, "%s belongs to user %u, so what is in it is not used; %s",
			shown, (unsigned)st->st_uid, advice);
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return err_set(e, -EPERM,
			"%s may be written by others, so what is in it is not used; %s", shown,
			advice);
	return 0;
}

int boot_open_dir(int parent, const char *name, const char *shown, struct err *e)
{
	_cleanup_close_ int fd =
		openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
		return err_set(e, -EPERM,
			"%s is a symbolic link, or no directory, so it is not used; remove it",
			shown);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "%s cannot be read", shown);
	r = check_trust(&st, shown, "remove it", e);
	return r < 0 ? r : TAKE_FD(fd);
}

int boot_open_cache(const char *cache_dir, struct err *e)
{
	_cleanup_close_ int fd = open(cache_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_free_ char *shown = xasprintf("%s/" BOOT_DIR, cache_dir);
	struct stat st;
	int r;

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "%s cannot be read", cache_dir);
	r = file_check_there(cache_dir, e);
	if (r < 0)
		return r;
	/* As /tmp is: others cannot rename or remove `boot` there. */
	if (st.st_mode & S_ISVTX)
		st.st_mode &= ~(mode_t)(S_IWGRP | S_IWOTH);
	r = check_trust(&st, cache_dir, "set cache_dir to another directory", e);
	return r < 0 ? r : boot_open_dir(fd, BOOT_DIR, shown, e);
}

/* -1, or a trusted regular file. */
static int open_file(int dir, const char *name, struct stat *st)
{
	_cleanup_close_ int fd =
		openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0 || fstat(fd, st) < 0 || !S_ISREG(st->st_mode) ||
		check_trust(st, "", "", NULL) < 0)
		return -1;
	return TAKE_FD(fd);
}

json_t *boot_read_verdict(int dir, const char *shown, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int fd = -1;
	json_t *j = NULL;
	struct stat st;
	ssize_t n;

	fd = open_file(dir, BOOT_VERDICT, &st);
	if (fd >= 0 && st.st_size <= (off_t)VERDICT_MAX) {
		text = xmalloc(VERDICT_MAX);
		n = pread(fd, text, VERDICT_MAX, 0);
		j = n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
	}
	if (!json_is_object(j)) {
		json_decref(j);
		err_set(e, -EBADMSG, "%s has no " BOOT_VERDICT " that can be read", shown);
		return NULL;
	}
	return j;
}

bool boot_file_is_whole(int dir, const json_t *file)
{
	const char *name = json_string_value(json_object_get(file, "name"));
	json_int_t size = json_integer_value(json_object_get(file, "size"));
	struct stat st;

	if (!name || !*name || strchr(name, '/'))
		return false;
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	       check_trust(&st, name, "", NULL) == 0 && st.st_size == (off_t)size &&
	       faccessat(dir, name, R_OK, AT_EACCESS) == 0;
}

bool boot_is_noexec(const char *dir)
{
	struct statvfs vfs;

	return statvfs(dir, &vfs) == 0 && (vfs.f_flag & ST_NOEXEC);
}

/* --- paths -------------------------------------------------------------------------------- */

char *boot_path(const char *cache_dir, const char *name)
{
	return xasprintf("%s/" BOOT_DIR "/%s", cache_dir, name);
}

char *boot_full_classpath(const struct boot_runtime *rt)
{
	return rt->extra_classpath && *rt->extra_classpath
		       ? xasprintf("%s:%s", rt->jar, rt->extra_classpath)
		       : xstrdup(rt->jar);
}

static bool add_if_jar(const char *element, void *arg)
{
	char **path = arg;
	_cleanup_free_ char *before = NULL;
	struct stat st;

	if (stat(element, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	before = *path;
	*path = xasprintf("%s:%s", before, element);
	return true;
}

char *boot_archive_classpath(const struct boot_runtime *rt)
{
	char *path = xstrdup(rt->jar);

	each_element(rt->extra_classpath, add_if_jar, &path);
	return path;
}
