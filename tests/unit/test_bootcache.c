/* drv/bootcache.c and drv/bootentry.c: what is found, what counts as the same runtime, and whose
 * entries are trusted. Entries are made here by hand; the builder has tests of its own. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mman.h>

#include "drv/bootentry.h"
#include "drv_test.h"

static char *top;
static struct boot_found found;
static struct err e;

static char *java, *jar, *extra, *cache, *system_cache;

static void put(const char *path, const char *text, mode_t mode)
{
	_cleanup_free_ char *dir = xstrdup(path);

	*strrchr(dir, '/') = '\0';
	assert_int_equal(file_mkdirs(dir, 0755, NULL), 0);
	assert_int_equal(file_write_atomic(path, text, strlen(text), mode, false, NULL), 0);
}

static void put_below(const char *dir, const char *name, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);

	put(path, text, 0644);
}

/* A JVM that has nothing to complain about, unless the archive says "bad". */
#define JAVA                                                                                       \
	"#!/bin/sh\n"                                                                              \
	"for a; do case $a in -XX:SharedArchiveFile=*) f=${a#*=};; esac; done\n"                   \
	"case $(cat \"$f\") in bad*)\n"                                                            \
	"echo 'An error has occurred while processing the shared archive file.'\n"                 \
	"echo '[0.1s][error][cds] A jar file is not the one used while building it'\n"             \
	"exit 1;; esac\n"

static int setup(void **state)
{
	(void)state;
	umask(022);
	top = make_temp_dir();
	java = xasprintf("%s/jdk/bin/java", top);
	jar = xasprintf("%s/h2o.jar", top);
	extra = xasprintf("%s/more.jar", top);
	cache = xasprintf("%s/cache", top);
	system_cache = xasprintf("%s/system", top);
	setenv("H2OFLEET_SYSTEM_CACHE_DIR", system_cache, 1);
	put(java, JAVA, 0755);
	put_below(top, "jdk/lib/server/libjvm.so", "jvm");
	put_below(top, "jdk/release", "JAVA_VERSION=\"17.0.15\"\n");
	put(jar, "jar", 0644);
	put(extra, "extra", 0644);
	return 0;
}

static int teardown(void **state)
{
	char **const all[] = {&top, &java, &jar, &extra, &cache, &system_cache};

	(void)state;
	boot_found_clear(&found);
	err_clear(&e);
	file_remove_tree(top, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		free(TAKE_PTR(*all[i]));
	return 0;
}

static struct boot_runtime runtime(void)
{
	return (struct boot_runtime){.java = java, .java_major = 17, .jar = jar};
}

static void find(const struct boot_runtime *rt)
{
	boot_found_clear(&found);
	assert_int_equal(bootcache_find(cache, rt, &found, &e), 0);
}

static void write_verdict(const char *dir, json_t *verdict)
{
	_cleanup_free_ char *text = json_dumps(verdict, 0);

	put_below(dir, BOOT_VERDICT, text);
	json_decref(verdict);
}

/* Owned by the caller. */
static char *make_entry(const char *dir, const struct boot_runtime *rt, const char *word)
{
	_cleanup_(boot_identity_clear) struct boot_identity id = {0};
	char *path;

	assert_int_equal(boot_identity_of(rt, &id, NULL), 0);
	path = boot_path(dir, id.key);
	put_below(path, "classes.jsa", "archive");
	write_verdict(
		path, json_pack("{s:o, s:s, s:s, s:{s:s, s:i}}", "identity",
			      boot_identity_json(&id), "verdict", word, "why", "because", "archive",
			      "name", "classes.jsa", "size", (int)strlen("archive")));
	return path;
}

static void make_native(const char *dir, bool some)
{
	_cleanup_(boot_identity_clear) struct boot_identity id = {0};
	_cleanup_free_ char *name = NULL, *path = NULL;
	json_t *files = json_array();

	assert_int_equal(boot_identity_of_jar(jar, &id, NULL), 0);
	name = xasprintf(BOOT_NATIVE "%s", id.key);
	path = boot_path(dir, name);
	if (some) {
		put_below(path, "libx.so", "library");
		json_array_append_new(files,
			json_pack("{s:s, s:i}", "name", "libx.so", "size", (int)strlen("library")));
	}
	write_verdict(path,
		json_pack("{s:o, s:o}", "identity", boot_identity_json(&id), "libraries", files));
}

/* An empty cache is no error, and names no reason: a build is all it needs. */
static void test_nothing(void **state)
{
	struct boot_runtime rt = runtime();

	(void)state;
	find(&rt);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	assert_null(found.why);
	assert_null(found.dir);
	assert_false(found.native_done);
}

static void test_trusted_and_refused(void **state)
{
	struct boot_runtime rt = runtime();
	_cleanup_free_ char *dir = make_entry(cache, &rt, "trusted");
	_cleanup_free_ char *archive = xasprintf("%s/classes.jsa", dir);

	(void)state;
	make_native(cache, true);
	find(&rt);
	assert_int_equal(found.verdict, BOOT_TRUSTED);
	assert_string_equal(found.archive, archive);
	assert_string_equal(found.dir, dir);
	assert_non_null(strstr(found.library_path, "/cache/boot/native-"));
	assert_true(found.native_done);
	free(make_entry(cache, &rt, "refused"));
	find(&rt);
	assert_int_equal(found.verdict, BOOT_REFUSED);
	assert_string_equal(found.why, "because");
	assert_null(found.archive);
}

/* A jar without libraries for this machine: looked at, nothing to be had, nothing to be done. */
static void test_no_libraries(void **state)
{
	struct boot_runtime rt = runtime();

	(void)state;
	make_native(cache, false);
	find(&rt);
	assert_true(found.native_done);
	assert_null(found.library_path);
}

static void test_java_8(void **state)
{
	struct boot_runtime rt = runtime();

	(void)state;
	rt.java_major = 8;
	free(make_entry(cache, &rt, "trusted"));
	make_native(cache, true);
	find(&rt);
	assert_int_equal(found.verdict, BOOT_UNSUPPORTED);
	assert_string_equal(found.why, "Java 8 knows no archive of an application's classes");
	assert_null(found.archive);
	assert_non_null(found.library_path);
}

static void change(const char *path)
{
	const struct timespec t[2] = {{.tv_sec = 1000, .tv_nsec = 1}, {.tv_sec = 1000}};

	assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
}

/* Each thing that an archive depends on, changed, makes another runtime of it. */
static void test_identity(void **state)
{
	static const char *const files[] = {
		"jdk/bin/java", "jdk/lib/server/libjvm.so", "jdk/release", "h2o.jar", "more.jar"};
	struct boot_runtime rt = runtime(), other;

	(void)state;
	rt.extra_classpath = extra;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", top, files[i]);

		free(make_entry(cache, &rt, "trusted"));
		find(&rt);
		assert_int_equal(found.verdict, BOOT_TRUSTED);
		change(path);
		find(&rt);
		assert_int_equal(found.verdict, BOOT_UNKNOWN);
		put(path, i == 0 ? JAVA : "of another size", i == 0 ? 0755 : 0644);
	}
	free(make_entry(cache, &rt, "trusted"));
	other = rt;
	other.big_heap = true;
	find(&other);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	other = rt;
	other.java_major = 21;
	find(&other);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	other = rt;
	other.main_class = "water.Other";
	find(&other);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	other = rt;
	other.extra_classpath = NULL;
	find(&other);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	find(&rt);
	assert_int_equal(found.verdict, BOOT_TRUSTED);
}

/* A link to java that leads elsewhere, as update-alternatives makes it. */
static void test_link_to_java(void **state)
{
	_cleanup_free_ char *link = xasprintf("%s/java", top);
	_cleanup_free_ char *other = xasprintf("%s/other", top);
	_cleanup_free_ char *other_java = xasprintf("%s/bin/java", other);
	struct boot_runtime rt = runtime();

	(void)state;
	assert_int_equal(symlink(java, link), 0);
	rt.java = link;
	free(make_entry(cache, &rt, "trusted"));
	find(&rt);
	assert_int_equal(found.verdict, BOOT_TRUSTED);
	put(other_java, JAVA, 0755);
	assert_int_equal(unlink(link), 0);
	assert_int_equal(symlink(other_java, link), 0);
	find(&rt);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
}

/* The key alone is not believed: the verdict must name the very runtime. */
static void test_verdict_of_another(void **state)
{
	_cleanup_free_ char *from = NULL, *to = NULL;
	struct boot_runtime rt = runtime(), big = rt;

	(void)state;
	big.big_heap = true;
	from = make_entry(cache, &big, "trusted");
	to = make_entry(cache, &rt, "trusted");
	assert_int_equal(file_remove_tree(to, NULL), 0);
	assert_int_equal(rename(from, to), 0);
	find(&rt);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
}

/* An archive that is not as long as it was is not whole. */
static void test_torn(void **state)
{
	struct boot_runtime rt = runtime();
	_cleanup_free_ char *dir = make_entry(cache, &rt, "trusted");

	(void)state;
	put_below(dir, "classes.jsa", "arch");
	find(&rt);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	put_below(dir, "classes.jsa", "archive");
	put_below(dir, BOOT_VERDICT, "{\"identity\":[");
	find(&rt);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	assert_non_null(strstr(found.why, "has no verdict.json that can be read"));
}

/* Nothing but a file of the entry itself is ever its archive, whatever the verdict says. */
static void test_archive_outside(void **state)
{
	_cleanup_(boot_identity_clear) struct boot_identity id = {0};
	struct boot_runtime rt = runtime();
	_cleanup_free_ char *dir = make_entry(cache, &rt, "trusted"), *boot = boot_path(cache, ".");

	(void)state;
	put_below(boot, "outside.jsa", "archive");
	assert_int_equal(boot_identity_of(&rt, &id, NULL), 0);
	write_verdict(
		dir, json_pack("{s:o, s:s, s:s, s:{s:s, s:i}}", "identity", boot_identity_json(&id),
			     "verdict", "trusted", "why", "because", "archive", "name",
			     "../outside.jsa", "size", (int)strlen("archive")));
	find(&rt);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	assert_null(found.archive);
}

static void assert_not_trusted(const struct boot_runtime *rt, const char *why)
{
	find(rt);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	assert_null(found.archive);
	if (why)
		assert_non_null(strstr(found.why, why));
}

/* The directory that all is in: its owner could put another `boot` there. A link to it is fine. */
static void test_trust_in_cache_dir(void **state)
{
	_cleanup_free_ char *link = xasprintf("%s/link", top);
	struct boot_runtime rt = runtime();

	(void)state;
	free(make_entry(cache, &rt, "trusted"));
	assert_int_equal(chmod(cache, 0777), 0);
	assert_not_trusted(&rt, "/cache may be written by others, so what is in it is not used; "
				"set cache_dir to another directory");
	assert_int_equal(chmod(cache, 01777), 0);
	find(&rt);
	assert_int_equal(found.verdict, BOOT_TRUSTED);
	assert_int_equal(chmod(cache, 0755), 0);
	if (geteuid() == 0) {
		assert_int_equal(chown(cache, 12345, 0), 0);
		assert_not_trusted(&rt, "/cache belongs to user 12345");
		assert_int_equal(chown(cache, 0, 0), 0);
	}
	assert_int_equal(symlink(cache, link), 0);
	boot_found_clear(&found);
	assert_int_equal(bootcache_find(link, &rt, &found, &e), 0);
	assert_int_equal(found.verdict, BOOT_TRUSTED);
}

/* Nor where others could put another directory in its place. */
static void test_way_to_cache_dir(void **state)
{
	_cleanup_free_ char *open = xasprintf("%s/open", top), *their = xasprintf("%s/a", open);
	_cleanup_free_ char *dir = xasprintf("%s/cache", their);
	struct boot_runtime rt = runtime();

	(void)state;
	if (geteuid() != 0)
		skip(); /* gives files away */
	free(make_entry(dir, &rt, "trusted"));
	assert_int_equal(chmod(open, 01777), 0);
	assert_int_equal(bootcache_find(dir, &rt, &found, &e), 0);
	assert_int_equal(found.verdict, BOOT_TRUSTED);
	assert_int_equal(chown(their, 12345, 0), 0);
	boot_found_clear(&found);
	assert_int_equal(bootcache_find(dir, &rt, &found, &e), 0);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	assert_non_null(strstr(found.why, "/a is user 12345's"));
}

/* Whatever others could have written is not used: modes, links, and (as root) owners. */
static void test_trust(void **state)
{
	struct boot_runtime rt = runtime();
	_cleanup_free_ char *dir = make_entry(cache, &rt, "trusted");
	_cleanup_free_ char *boot = boot_path(cache, "");
	_cleanup_free_ char *archive = xasprintf("%s/classes.jsa", dir);
	_cleanup_free_ char *verdict = xasprintf("%s/" BOOT_VERDICT, dir);
	const char *const dirs[] = {boot, dir}, *const files[] = {archive, verdict};

	(void)state;
	boot[strlen(boot) - 1] = '\0';
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(chmod(dirs[i], 0775), 0);
		assert_not_trusted(&rt, "may be written by others");
		assert_int_equal(chmod(dirs[i], 0755), 0);
		assert_int_equal(chmod(files[i], 0666), 0);
		assert_not_trusted(&rt, NULL);
		assert_int_equal(chmod(files[i], 0644), 0);
		if (geteuid() == 0) {
			assert_int_equal(chown(dirs[i], 12345, 0), 0);
			assert_not_trusted(&rt, "belongs to user 12345");
			assert_int_equal(chown(dirs[i], 0, 0), 0);
			assert_int_equal(chown(files[i], 12345, 0), 0);
			assert_not_trusted(&rt, NULL);
			assert_int_equal(chown(files[i], 0, 0), 0);
		}
		find(&rt);
		assert_int_equal(found.verdict, BOOT_TRUSTED);
	}
	for (size_t i = 0; i < 2; i++) {
		_cleanup_free_ char *aside = xasprintf("%s/aside%zu", top, i);

		assert_int_equal(rename(dirs[i], aside), 0);
		assert_int_equal(symlink(aside, dirs[i]), 0);
		assert_not_trusted(&rt, "is a symbolic link");
		assert_int_equal(unlink(dirs[i]), 0);
		assert_int_equal(rename(aside, dirs[i]), 0);
	}
	find(&rt);
	assert_int_equal(found.verdict, BOOT_TRUSTED);
}

/* What root has made serves who has nothing of his own; his own comes first. */
static void test_system_cache(void **state)
{
	struct boot_runtime rt = runtime();
	_cleanup_free_ char *dir = make_entry(system_cache, &rt, "trusted");

	(void)state;
	make_native(system_cache, true);
	find(&rt);
	assert_int_equal(found.verdict, BOOT_TRUSTED);
	assert_string_equal(found.dir, dir);
	assert_non_null(strstr(found.library_path, "/system/"));
	free(make_entry(cache, &rt, "refused"));
	find(&rt);
	assert_int_equal(found.verdict, BOOT_REFUSED);
	assert_non_null(strstr(found.library_path, "/system/"));
}

/* A system's cache that is somebody else's, as that of a service with a user of its own, is as
 * none: who has one of his own is not told to remove it. */
static void test_system_cache_of_others(void **state)
{
	_cleanup_free_ char *boot = boot_path(system_cache, ".");
	struct boot_runtime rt = runtime();

	(void)state;
	free(make_entry(system_cache, &rt, "trusted"));
	assert_int_equal(chmod(boot, 0777), 0);
	find(&rt);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	assert_null(found.why);
	boot_found_clear(&found);
	assert_int_equal(bootcache_find(system_cache, &rt, &found, &e), 0);
	assert_non_null(strstr(found.why, "may be written by others"));
}

static void test_missing_jar(void **state)
{
	struct boot_runtime rt = runtime();

	(void)state;
	rt.jar = "/nowhere/h2o.jar";
	assert_int_equal(bootcache_find(cache, &rt, &found, &e), -ENOENT);
	assert_string_equal(
		err_msg(&e), "/nowhere/h2o.jar cannot be used: No such file or directory");
	rt.jar = jar;
	rt.java = "/nowhere/bin/java";
	assert_int_equal(bootcache_find(cache, &rt, &found, &e), -ENOENT);
	assert_string_equal(
		err_msg(&e), "/nowhere/bin/java cannot be used: No such file or directory");
}

/* A verdict could not name it, so it would never be found again. */
static void test_path_not_utf8(void **state)
{
	_cleanup_free_ char *odd = xasprintf("%s/h\xffo.jar", top);
	struct boot_runtime rt = runtime();

	(void)state;
	put(odd, "jar", 0644);
	rt.jar = odd;
	assert_int_equal(bootcache_find(cache, &rt, &found, &e), -EILSEQ);
	assert_non_null(strstr(err_msg(&e), "h\\xffo.jar"));
}

static void test_set_aside(void **state)
{
	struct boot_runtime rt = runtime();
	_cleanup_free_ char *dir = make_entry(cache, &rt, "trusted");
	_cleanup_free_ char *aside = xasprintf("%s" BOOT_IGNORED, dir);

	(void)state;
	find(&rt);
	assert_int_equal(bootcache_set_aside(&found), 0);
	assert_int_equal(access(aside, F_OK), 0);
	find(&rt);
	assert_int_equal(found.verdict, BOOT_UNKNOWN);
	assert_int_equal(bootcache_set_aside(&found), -ENOENT);
	/* A second time there is an older one already. */
	free(make_entry(cache, &rt, "trusted"));
	find(&rt);
	assert_int_equal(bootcache_set_aside(&found), 0);
}

static void test_touch(void **state)
{
	struct boot_runtime rt = runtime();
	_cleanup_free_ char *dir = make_entry(cache, &rt, "trusted");
	struct stat st;

	(void)state;
	change(dir);
	find(&rt);
	bootcache_touch(&found);
	assert_int_equal(stat(dir, &st), 0);
	assert_true(st.st_mtime > 1000);
}

static void test_args(void **state)
{
	_cleanup_(strv_free) struct strv argv = STRV_NULL;
	struct boot_found f = {0};

	(void)state;
	bootcache_add_args(&f, "/cuda", &argv);
	assert_int_equal(argv.n, 0);
	f.library_path = (char *)"/c/native";
	f.archive = (char *)"/c/classes.jsa";
	bootcache_add_args(&f, "/cuda", &argv);
	assert_true(has_prefix(argv.v[0], "-Djava.library.path=/c/native:/cuda:/usr/java/"));
	assert_string_equal(argv.v[1], "-XX:SharedArchiveFile=/c/classes.jsa");
	strv_free(&argv);
	f.aot = true;
	f.jvm_library_path = (char *)"/its/own";
	bootcache_add_args(&f, NULL, &argv);
	assert_string_equal(argv.v[0], "-Djava.library.path=/c/native:/its/own");
	assert_string_equal(argv.v[1], "-XX:AOTCache=/c/classes.jsa");
}

static void test_is_mapped(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/mapped", top), *near = xasprintf("%s/map", top);
	_cleanup_free_ char *link = xasprintf("%s/link", top),
			    *below = xasprintf("%s/mapped", link);
	_cleanup_close_ int fd = -1;
	void *map;

	(void)state;
	put(path, "text", 0644);
	put(near, "text", 0644);
	assert_int_equal(symlink(top, link), 0);
	assert_int_equal(bootcache_is_mapped(getpid(), path), 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	map = mmap(NULL, 4, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(bootcache_is_mapped(getpid(), path), 1);
	assert_int_equal(bootcache_is_mapped(getpid(), below), 1); /* by way of a link */
	assert_int_equal(bootcache_is_mapped(getpid(), near), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(bootcache_is_mapped(getpid(), path), 1);
	munmap(map, 4);
	assert_int_equal(bootcache_is_mapped(999999999, path), -ESRCH);
}

static void test_complaint(void **state)
{
	struct boot_runtime rt = runtime();
	_cleanup_free_ char *dir = make_entry(cache, &rt, "trusted");
	_cleanup_free_ char *said = NULL;

	(void)state;
	find(&rt);
	assert_int_equal(bootcache_is_accepted(&rt, &found, &said), 1);
	assert_null(said);
	put_below(dir, "classes.jsa", "bad");
	assert_int_equal(bootcache_is_accepted(&rt, &found, &said), 0);
	assert_string_equal(said, "A jar file is not the one used while building it");
	rt.java = "/nowhere/bin/java";
	free(TAKE_PTR(said));
	assert_true(bootcache_is_accepted(&rt, &found, &said) < 0);
	assert_null(said);
}

/* Jars may be archived, up to the first that is none: the JVM refuses directories. */
static void test_classpath(void **state)
{
	struct boot_runtime rt = runtime();
	_cleanup_free_ char *both = xasprintf("%s:%s:%s", extra, top, jar);
	_cleanup_free_ char *want = xasprintf("%s:%s", jar, extra);
	_cleanup_free_ char *all = xasprintf("%s:%s", jar, both);
	_cleanup_free_ char *archive = NULL, *full = NULL;

	(void)state;
	rt.extra_classpath = both;
	archive = boot_archive_classpath(&rt);
	full = boot_full_classpath(&rt);
	assert_string_equal(archive, want);
	assert_string_equal(full, all);
}

static void test_current(void **state)
{
	_cleanup_(boot_identity_clear) struct boot_identity id = {0};
	struct boot_runtime rt = runtime();
	json_t *verdict;

	(void)state;
	assert_int_equal(boot_identity_of(&rt, &id, NULL), 0);
	verdict = json_pack("{s:o}", "identity", boot_identity_json(&id));
	assert_true(boot_verdict_is_current(verdict));
	assert_int_equal(unlink(jar), 0);
	assert_false(boot_verdict_is_current(verdict));
	json_decref(verdict);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
		T(nothing),
		T(trusted_and_refused),
		T(no_libraries),
		T(java_8),
		T(identity),
		T(link_to_java),
		T(verdict_of_another),
		T(torn),
		T(archive_outside),
		T(trust),
		T(trust_in_cache_dir),
		T(way_to_cache_dir),
		T(system_cache),
		T(system_cache_of_others),
		T(missing_jar),
		T(path_not_utf8),
		T(set_aside),
		T(touch),
		T(args),
		T(is_mapped),
		T(complaint),
		T(classpath),
		T(current),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
