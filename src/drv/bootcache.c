#include "drv/bootcache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "base/file.h"
#include "drv/bootentry.h"
#include "drv/bootrun.h"

#define RELOCATING_JAVA 17
/* The largest that HotSpot 17 and 25 compress pointers for (measured: 32736m yes, 32750m no). */
#define COMPRESSED_HEAP (32736ull << 20)

#define MAPS_MAX      (16u << 20)
#define COMPLAINT_MS  20000
#define COMPLAINT_MAX 400 /* characters of what a JVM says */

/* Where a JVM looks for libraries when nobody says; -Djava.library.path= takes its place, so it
 * goes behind ours. Builds differ in it, so the builder asks; this is for who was not asked: what
 * HotSpot has for Linux, and what Debian makes of it. (There are libraries for x86-64 alone.) */
#define JAVA_LIBRARY_PATH                                                                          \
	"/usr/java/packages/lib:/usr/lib/x86_64-linux-gnu/jni:/lib/x86_64-linux-gnu:"              \
	"/usr/lib/x86_64-linux-gnu:/usr/lib/jni:/usr/lib64:/lib64:/lib:/usr/lib"

void boot_found_clear(struct boot_found *f)
{
	free(f->library_path);
	free(f->jvm_library_path);
	free(f->native_why);
	free(f->archive);
	free(f->why);
	free(f->dir);
	*f = (struct boot_found){0};
}

bool boot_heap_is_big(uint64_t xmx, uint64_t mem_bytes)
{
	return (xmx ? xmx : mem_bytes / 4) > COMPRESSED_HEAP;
}

const char *boot_verdict_name(enum boot_verdict v)
{
	static const char *const names[] = {"unknown", "trusted", "refused", "unsupported"};

	return names[v];
}

static const char *system_dir(void)
{
	const char *dir = getenv("H2OFLEET_SYSTEM_CACHE_DIR");

	return dir && *dir == '/' ? dir : BOOTCACHE_SYSTEM_DIR;
}

/* --- finding ------------------------------------------------------------------------------ */

/* All that a look into one cache needs. */
struct look {
	const char *cache_dir;
	int boot; /* opened, trusted */
	bool own;
	struct boot_found *out;
	struct err *why;
};

static void look_native(const struct look *l, const struct boot_identity *jar)
{
	_cleanup_free_ char *name = xasprintf(BOOT_NATIVE "%s", jar->key);
	_cleanup_free_ char *path = boot_path(l->cache_dir, name);
	_cleanup_close_ int dir = boot_open_dir(l->boot, name, path, l->why);
	json_t *verdict = dir >= 0 ? boot_read_verdict(dir, path, l->why) : NULL;
	const json_t *libraries = json_object_get(verdict, "libraries"), *file;
	const char *none = json_string_value(json_object_get(verdict, "why"));
	bool whole = boot_identity_matches(jar, verdict);
	size_t i;

	json_array_foreach (libraries, i, file)
		whole = whole && boot_file_is_whole(dir, file);
	/* None were unpacked since they could not be loaded: as long as that is so, and there. */
	if (none)
		whole = whole && l->own && boot_is_noexec(path);
	if (whole) {
		replace_str(&l->out->native_why, none);
		l->out->native_done = true;
		/* A path cannot be told from two by who reads it. */
		if (json_array_size(libraries) && !strchr(path, ':'))
			l->out->library_path = TAKE_PTR(path);
	}
	json_decref(verdict);
}

static void look_archive(const struct look *l, const struct boot_identity *id)
{
	_cleanup_free_ char *path = boot_path(l->cache_dir, id->key);
	_cleanup_close_ int dir = boot_open_dir(l->boot, id->key, path, l->why);
	json_t *verdict = dir >= 0 ? boot_read_verdict(dir, path, l->why) : NULL;
	const char *word = json_string_value(json_object_get(verdict, "verdict"));
	const json_t *file = json_object_get(verdict, "archive");
	struct boot_found *out = l->out;

	if (word && boot_identity_matches(id, verdict)) {
		if (streq(word, "refused"))
			out->verdict = BOOT_REFUSED;
		else if (streq(word, "trusted") && boot_file_is_whole(dir, file))
			out->verdict = BOOT_TRUSTED;
	}
	if (out->verdict == BOOT_TRUSTED) {
		out->archive =
			xasprintf("%s/%s", path, json_string_value(json_object_get(file, "name")));
		out->aot = json_is_true(json_object_get(verdict, "aot"));
	}
	if (out->verdict != BOOT_UNKNOWN) {
		replace_str(&out->why, json_string_value(json_object_get(verdict, "why")));
		replace_str(&out->jvm_library_path,
			json_string_value(json_object_get(verdict, "java_library_path")));
		out->dir = TAKE_PTR(path);
	}
	json_decref(verdict);
}

static void look_into(const char *cache_dir, const struct boot_identity *jar,
	const struct boot_identity *id, bool archive, struct boot_found *out, bool own)
{
	_cleanup_(err_clear) struct err why = ERR_NULL;
	_cleanup_close_ int boot = boot_open_cache(cache_dir, &why);
	struct look l = {.cache_dir = cache_dir, .boot = boot, .own = own, .out = out, .why = &why};

	if (boot >= 0 && !out->library_path)
		look_native(&l, jar);
	if (boot >= 0 && archive && out->verdict == BOOT_UNKNOWN)
		look_archive(&l, id);
	if (own && out->verdict == BOOT_UNKNOWN && why.msg)
		out->why = TAKE_PTR(why.msg);
}

int bootcache_find(
	const char *cache_dir, const struct boot_runtime *rt, struct boot_found *out, struct err *e)
{
	_cleanup_(boot_identity_clear) struct boot_identity jar = {0}, id = {0};
	bool archive = rt->java_major >= BOOT_JAVA_MIN;
	int r = boot_identity_of_jar(rt->jar, &jar, e);

	*out = (struct boot_found){.java_major = rt->java_major};
	if (r == 0)
		r = boot_identity_of(rt, &id, e);
	if (r < 0)
		return r;
	look_into(cache_dir, &jar, &id, archive, out, true);
	/* What is wrong with the system's is nothing that its users could do anything about. */
	if (!streq(cache_dir, system_dir()))
		look_into(system_dir(), &jar, &id, archive, out, false);
	if (!archive) {
		out->verdict = BOOT_UNSUPPORTED;
		free(out->why);
		out->why = xasprintf(
			"Java %d knows no archive of an application's classes", rt->java_major);
	}
	return 0;
}

void bootcache_add_args(const struct boot_found *f, const char *ld_library_path, struct strv *argv)
{
	if (f->library_path)
		strv_printf(argv, "-Djava.library.path=%s:%s%s%s", f->library_path,
			ld_library_path ? ld_library_path : "",
			ld_library_path && *ld_library_path ? ":" : "",
			f->jvm_library_path ? f->jvm_library_path : JAVA_LIBRARY_PATH);
	if (!f->archive)
		return;
	if (f->aot) { /* its warnings stay: not every JDK knows the tag by which to shut them off */
		strv_printf(argv, "-XX:AOTCache=%s", f->archive);
		return;
	}
	strv_printf(argv, "-XX:SharedArchiveFile=%s", f->archive);
	strv_add(argv, "-Xshare:auto");
	/* Since 17 an archive is put at a random address, which writes to most of its pages: 25 MB
	 * more that nodes do not share. A diagnostic option, which older ones do not know. */
	if (f->java_major >= RELOCATING_JAVA) {
		strv_add(argv, "-XX:+UnlockDiagnosticVMOptions");
		strv_add(argv, "-XX:ArchiveRelocationMode=0");
	}
	strv_add(argv, "-Xlog:cds=off");
}

/* --- using -------------------------------------------------------------------------------- */

void bootcache_touch(const struct boot_found *f)
{
	if (f->dir)
		utimensat(AT_FDCWD, f->dir, NULL, AT_SYMLINK_NOFOLLOW);
	if (f->library_path)
		utimensat(AT_FDCWD, f->library_path, NULL, AT_SYMLINK_NOFOLLOW);
}

int bootcache_set_aside(const struct boot_found *f)
{
	_cleanup_free_ char *aside = NULL;
	int r;

	if (!f->dir)
		return -ENOENT;
	aside = xasprintf("%s" BOOT_IGNORED, f->dir);
	r = file_remove_tree(aside, NULL);
	if (r == 0 && rename(f->dir, aside) < 0)
		r = errno == EPERM ? -EACCES : -errno;
	return r;
}

int bootcache_is_mapped(pid_t pid, const char *file)
{
	_cleanup_free_ char *path = xasprintf("/proc/%d/maps", (int)pid);
	_cleanup_free_ char *real = realpath(file, NULL);
	_cleanup_free_ char *mark = NULL, *text = NULL;
	size_t n;
	int r = file_read(path, MAPS_MAX, &text, NULL);

	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	/* "7f00-7f01 r--p 0 fe:00 12   /path", or "/path (deleted)" when there is a newer one. */
	mark = xasprintf(" %s", real ? real : file);
	n = strlen(mark);
	for (const char *at = text; (at = strstr(at, mark)); at += n)
		if (at[n] == '\n' || has_prefix(at + n, " (deleted)\n"))
			return 1;
	return 0;
}

/* --- complaints --------------------------------------------------------------------------- */

/* The first line that tells something; "[0.012s][error][cds] " is cut off. */
static char *first_complaint(const char *output)
{
	static const char *const dull[] = {"An error has occurred while processing",
		"Error occurred during initialization", "openjdk version", "java version",
		"OpenJDK ", "Java(", "Unable to use shared archive", "Unable to use AOT cache"};

	for (const char *line = output; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *s = line;
		size_t n;
		bool skip;

		while (*s == '[' && strcspn(s, "]\n") < strcspn(s, "\n"))
			s += strcspn(s, "]") + 1;
		s += strspn(s, " \t");
		n = strcspn(s, "\n");
		skip = n == 0;
		for (size_t i = 0; i < ARRAY_SIZE(dull); i++)
			skip = skip || has_prefix(s, dull[i]);
		if (!skip)
			return xstrndup(s, MIN(n, (size_t)COMPLAINT_MAX));
	}
	return NULL;
}

int bootcache_is_accepted(const struct boot_runtime *rt, const struct boot_found *f, char **why)
{
	_cleanup_(strv_free) struct strv argv = STRV_NULL;
	_cleanup_free_ char *classpath = boot_full_classpath(rt);
	_cleanup_free_ char *output = NULL;
	char *const env[] = {(char *)"LC_ALL=C", NULL};
	int r;

	*why = NULL;
	if (!f->archive)
		return -ENOENT;
	strv_add(&argv, rt->java);
	strv_printf(&argv, f->aot ? "-XX:AOTCache=%s" : "-XX:SharedArchiveFile=%s", f->archive);
	strv_add(&argv, f->aot ? "-XX:AOTMode=on" : "-Xshare:on");
	if (rt->big_heap)
		strv_add(&argv, "-XX:-UseCompressedOops");
	strv_add(&argv, "-cp");
	strv_add(&argv, classpath);
	strv_add(&argv, "-version");
	r = boot_run(argv.v, env, NULL, COMPLAINT_MS, &output, NULL);
	if (r <= 0)
		return r < 0 ? r : 1;
	*why = first_complaint(output);
	if (!*why)
		*why = xasprintf("it ends with %d and no word", r);
	return 0;
}
