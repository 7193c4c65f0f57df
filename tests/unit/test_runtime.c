/* drv/runtime.c, drv/jar.c and drv/packages.c: trees built for each test, and an environment that
 * shows nothing of this machine's own Java and Python. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <zip.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/strbuf.h"
#include "drv/jar.h"
#include "drv/packages.h"
#include "drv/runtime.h"

static char *top; /* the test's own directory */
static char *found;
static char *version;
static int major;
static struct err e;
static struct search_trace trace;

/* Owned by the caller. */
static char *below(const char *path)
{
	return xasprintf("%s/%s", top, path);
}

static void put(const char *path, const void *data, size_t len, mode_t mode)
{
	_cleanup_free_ char *full = below(path);
	_cleanup_free_ char *dir = xstrdup(full);

	*strrchr(dir, '/') = '\0';
	assert_int_equal(file_mkdirs(dir, 0755, NULL), 0);
	assert_int_equal(file_write_atomic(full, data, len, mode, false, NULL), 0);
}

static void put_text(const char *path, const char *text, mode_t mode)
{
	put(path, text, strlen(text), mode);
}

static void put_dir(const char *path)
{
	_cleanup_free_ char *full = below(path);

	assert_int_equal(file_mkdirs(full, 0755, NULL), 0);
}

static void put_link(const char *target, const char *path)
{
	_cleanup_free_ char *full = below(path);
	_cleanup_free_ char *dir = xstrdup(full);

	*strrchr(dir, '/') = '\0';
	assert_int_equal(file_mkdirs(dir, 0755, NULL), 0);
	assert_int_equal(symlink(target, full), 0);
}

static void put_java(const char *home, const char *java_version)
{
	_cleanup_free_ char *java = xasprintf("%s/bin/java", home);
	_cleanup_free_ char *release = xasprintf("%s/release", home);
	_cleanup_free_ char *text = NULL;

	put_text(java, "#!/bin/sh\n", 0755);
	if (!java_version)
		return;
	text = xasprintf("IMPLEMENTOR=\"Debian\"\nJAVA_RUNTIME_VERSION=\"9.9.9+6\"\n"
			 "JAVA_VERSION=\"%s\"\nJAVA_VERSION_DATE=\"2025-04-15\"\n",
		java_version);
	put_text(release, text, 0644);
}

static void set_env(const char *name, const char *path)
{
	_cleanup_free_ char *full = below(path);

	setenv(name, full, 1);
}

static int setup(void **state)
{
	static const char *const vars[] = {"H2O_JAVA_HOME", "JAVA_HOME", "H2O_JAR_PATH",
		"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONUSERBASE", "PYENV_VERSION", "R_LIBS",
		"R_LIBS_USER", "R_LIBS_SITE"};
	char dir[] = "/tmp/h2ofleet-test-runtime.XXXXXX";

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	top = xstrdup(dir);
	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		unsetenv(vars[i]);
	set_env("PATH", "bin");
	set_env("HOME", "home");
	packages_set_root(top);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	file_remove_tree(top, NULL);
	packages_set_root("");
	search_trace_free(&trace);
	err_clear(&e);
	free(TAKE_PTR(found));
	free(TAKE_PTR(version));
	free(TAKE_PTR(top));
	return 0;
}

static void assert_found(const char *path)
{
	_cleanup_free_ char *full = below(path);

	assert_non_null(found);
	assert_string_equal(found, full);
	free(TAKE_PTR(found));
}

static void assert_says(const char *part)
{
	if (!strstr(err_msg(&e), part))
		fail_msg("\"%s\" is not in \"%s\"", part, err_msg(&e));
	assert_null(found);
	assert_int_not_equal(e.code, 0);
}

static bool traced(const char *part)
{
	for (size_t i = 0; i < trace.tried.n; i++)
		if (strstr(trace.tried.v[i], part))
			return true;
	return false;
}

static int find_java(const char *configured)
{
	_cleanup_free_ char *path = configured ? below(configured) : NULL;

	search_trace_free(&trace);
	err_clear(&e);
	free(TAKE_PTR(found));
	return runtime_find_java(path, &trace, &found, &e);
}

static int find_jar(const char *configured)
{
	_cleanup_free_ char *path = configured ? below(configured) : NULL;

	search_trace_free(&trace);
	err_clear(&e);
	free(TAKE_PTR(found));
	return runtime_find_jar(path, &trace, &found, &e);
}

/* ---- Java ---- */

static void test_java_configured(void **state)
{
	(void)state;
	put_java("jdk", "17.0.15");
	put_text("plain/java", "", 0644);
	put_link("/nowhere/java", "dangling/java");
	put_java("bin/..", NULL); /* PATH has one, which must not be taken instead */

	assert_int_equal(find_java("jdk/bin/java"), 0);
	assert_found("jdk/bin/java");
	assert_int_equal(find_java("jdk"), -EISDIR);
	assert_says("jdk/bin/java");
	assert_int_equal(find_java("bin"), -EISDIR);
	assert_says("is a directory");
	assert_int_equal(find_java("none/java"), -ENOENT);
	assert_says("does not exist; correct it, or remove it");
	assert_int_equal(find_java("dangling/java"), -ENOENT);
	assert_says("is a symbolic link to /nowhere/java, which does not exist");
	assert_int_equal(find_java("plain/java"), -EACCES);
	assert_says("is not executable");
	assert_int_equal(find_java("plain/java/java"), -ENOTDIR);
	assert_int_equal(runtime_find_java("java", NULL, &found, &e), -EINVAL);
	assert_says("not an absolute path");
	assert_int_equal(runtime_find_java("java", NULL, &found, NULL), -EINVAL);
}

static void test_java_order(void **state)
{
	(void)state;
	assert_int_equal(find_java(NULL), -ENOENT);
	assert_says("no Java found");
	assert_says("openjdk-17");
	assert_true(traced("PATH: no java in it"));

	put_java("usr/lib/jvm/java-11", "11.0.2");
	put_java("usr/lib/jvm/java-17", "17.0.15");
	put_java("usr/lib/jvm/java-21", "21.0.1");
	put_java("usr/lib/jvm/unknown", NULL);
	assert_int_equal(find_java(NULL), 0);
	assert_found("usr/lib/jvm/java-17/bin/java"); /* the newest that is supported */

	put_java("home17", NULL);
	set_env("JAVA_HOME", "home17");
	assert_int_equal(find_java(NULL), 0);
	assert_found("home17/bin/java");

	put_dir("bin/java"); /* in PATH, but no program */
	put_java("two", NULL);
	setenv("PATH", "relative:", 1);
	{
		_cleanup_free_ char *path = xasprintf("relative::%s/bin:%s/two/bin", top, top);

		setenv("PATH", path, 1);
	}
	assert_int_equal(find_java(NULL), 0);
	assert_true(traced("bin/java is a directory"));
	assert_found("two/bin/java");

	put_java("h2ojava", NULL);
	set_env("H2O_JAVA_HOME", "h2ojava");
	assert_int_equal(find_java(NULL), 0);
	assert_found("h2ojava/bin/java");

	set_env("H2O_JAVA_HOME", "gone"); /* an error, as in h2o-py */
	assert_int_equal(find_java(NULL), -ENOENT);
	assert_says("$H2O_JAVA_HOME is");
	setenv("H2O_JAVA_HOME", "", 1);
	assert_int_equal(find_java(NULL), 0);
}

static void test_java_home_unusable(void **state)
{
	(void)state;
	put_text("jh/bin/java", "", 0600);
	set_env("JAVA_HOME", "jh");
	assert_int_equal(find_java(NULL), -ENOENT);
	assert_true(traced("JAVA_HOME: "));
	assert_true(traced("is not executable"));
	put_java("usr/lib/jvm/only", NULL);
	assert_int_equal(find_java(NULL), 0);
	assert_found("usr/lib/jvm/only/bin/java");
}

static int release_of(const char *java)
{
	_cleanup_free_ char *path = below(java);

	free(TAKE_PTR(version));
	major = 0;
	return runtime_java_release(path, &major, &version);
}

static void test_java_release(void **state)
{
	static const struct {
		const char *text;
		int major;
	} cases[] = {
		{"1.8.0_392", 8},
		{"11.0.21", 11},
		{"17.0.15", 17},
		{"21", 21},
		{"25-ea", 25},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		put_java("jdk", cases[i].text);
		assert_int_equal(release_of("jdk/bin/java"), 0);
		assert_int_equal(major, cases[i].major);
		assert_string_equal(version, cases[i].text);
	}
	put_link("../jdk/bin/java", "bin/java");
	put_link("java", "bin/java2");
	assert_int_equal(release_of("bin/java2"), 0);
	assert_int_equal(major, 25);

	/* JDK 8: java also below jre/, one `release` above. */
	put_java("jdk8", "1.8.0_392");
	put_java("jdk8/jre", NULL);
	assert_int_equal(release_of("jdk8/jre/bin/java"), 0);
	assert_int_equal(major, 8);

	put_java("wrapper", NULL);
	assert_int_equal(release_of("wrapper/bin/java"), -ENOENT);
	assert_null(version);
	put_text("wrapper/release", "NAME=other\nJAVA_VERSION=\"x\"\n", 0644);
	assert_int_equal(release_of("wrapper/bin/java"), -ENOENT);
	put_text("wrapper/release", "", 0644);
	assert_int_equal(release_of("wrapper/bin/java"), -ENOENT);
	put_text("wrapper/release", "JAVA_VERSION=17.0.1", 0644); /* no quotes, no newline */
	assert_int_equal(release_of("wrapper/bin/java"), 0);
	assert_string_equal(version, "17.0.1");
	put_text("shims/java", "#!/bin/sh\n", 0755);
	assert_int_equal(release_of("shims/java"), -ENOENT);
	assert_int_equal(release_of("none"), -ENOENT);
}

static void test_java_version_output(void **state)
{
	static const struct {
		const char *output;
		int major;
		const char *version;
	} cases[] = {
		{"openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment (build 17)\n",
			17, "17.0.15"},
		{"openjdk version \"1.8.0_392\"\nOpenJDK Runtime Environment (Temurin)\n", 8,
			"1.8.0_392"},
		{"java version \"1.8.0_202\"\nJava(TM) SE Runtime Environment\n", 8, "1.8.0_202"},
		{"java version \"1.7.0_80\"\n", 7, "1.7.0_80"},
		{"java version \"21.0.1\" 2023-10-17\nJava(TM) SE Runtime Environment Oracle "
		 "GraalVM 21.0.1+12.1\n",
			21, "21.0.1"},
		{"openjdk version \"11.0.21\" 2023-10-17 LTS\n", 11, "11.0.21"},
		{"openjdk version \"25-ea\" 2025-09-16\n", 25, "25-ea"},
		{"Picked up JAVA_TOOL_OPTIONS: -Dx.y= version \"99\"\n"
		 "openjdk version \"17.0.9\" 2023-10-17\r\n",
			17, "17.0.9"},
		{"NOTE: Picked up JDK_JAVA_OPTIONS:  -Da= version \"99\"\n"
		 "openjdk version \"17\"",
			17, "17"},
		{"OpenJDK 64-Bit Server VM warning: Options -Xverify:none are deprecated\n"
		 "openjdk version \"17.0.2\"\n",
			17, "17.0.2"},
	};
	static const char *const bad[] = {"", "\n\n", "java: command not found\n",
		"openjdk version \"\"", "openjdk version \"x17\"", "openjdk version ",
		"Error: Could not create the Java Virtual Machine.\n",
		"Picked up JAVA_TOOL_OPTIONS: -Dx= version \"17\""};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(runtime_parse_java_version(cases[i].output, &major, &version), 0);
		assert_int_equal(major, cases[i].major);
		assert_string_equal(version, cases[i].version);
		free(TAKE_PTR(version));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(runtime_parse_java_version(bad[i], &major, &version), -EINVAL);
		assert_null(version);
	}
}

static void test_check_java(void **state)
{
	(void)state;
	assert_int_equal(runtime_check_java(8, "/j", NULL, false, &e), 0);
	assert_int_equal(runtime_check_java(17, "/j", NULL, false, &e), 0);
	assert_int_equal(runtime_check_java(21, "/j", NULL, true, &e), 0);
	assert_int_equal(runtime_check_java(21, "/j", "3.46.0.12", false, &e), -ENOTSUP);
	assert_says("Java 21 is not supported by H2O 3.46.0.12 (8 to 17 are): /j is too new");
	assert_says("allow_unsupported_java = yes");
	assert_says("apt install openjdk-17");
	put_java("usr/lib/jvm/java-21", "21.0.1");
	put_java("usr/lib/jvm/java-11", "11.0.1");
	assert_int_equal(runtime_check_java(7, "/j", NULL, false, &e), -ENOTSUP);
	assert_says("Java 7 is not supported by H2O (8 to 17 are): /j is too old");
	assert_says("/usr/lib/jvm/java-11/bin/java");
}

/* ---- the jar ---- */

static void be16(struct strbuf *b, unsigned v)
{
	unsigned char p[2] = {(unsigned char)(v >> 8), (unsigned char)v};

	strbuf_add(b, p, 2);
}

static void utf8(struct strbuf *b, const char *s)
{
	strbuf_add(b, "\x01", 1);
	be16(b, (unsigned)strlen(s));
	strbuf_puts(b, s);
}

/* A class file with constants of all sizes in front of the version. */
static void make_class(struct strbuf *b, const char *text)
{
	strbuf_add(b, "\xca\xfe\xba\xbe\0\0\0\x34", 8);
	be16(b, 12); /* one more than there are places */
	strbuf_add(b,
		"\x05"
		"3.1.4.1.",
		9); /* a long: two places */
	strbuf_add(b, "\x0a\0\1\0\2", 5);
	strbuf_add(b, "\x0f\1\0\2", 4);
	strbuf_add(b, "\x08\0\x0b", 3);
	utf8(b, "");
	utf8(b, "gha-3.46.0.11-25-gc91838115b");
	utf8(b, "1.2.3");
	utf8(b, "3..4.5.6");
	strbuf_add(b, "\x03\0\0\0\1", 5);
	utf8(b, text); /* the 11th place */
}

static void put_jar(const char *path, bool h2o, const char *class_name, const char *h2o_version)
{
	_cleanup_free_ char *full = below(path);
	_cleanup_(strbuf_free) struct strbuf cls = STRBUF_NULL;
	int code = 0;
	zip_t *z;

	put_text(path, "", 0644);
	z = zip_open(full, ZIP_CREATE | ZIP_TRUNCATE, &code);
	assert_non_null(z);
	zip_file_add(z, "META-INF/MANIFEST.MF", zip_source_buffer(z, "x\n", 2, 0), 0);
	if (h2o)
		zip_file_add(z, "water/H2OApp.class", zip_source_buffer(z, "app", 3, 0), 0);
	if (class_name) {
		make_class(&cls, h2o_version);
		zip_file_add(z, class_name, zip_source_buffer(z, cls.s, cls.len, 0), 0);
	}
	assert_int_equal(zip_close(z), 0);
}

static int version_of(const char *path)
{
	_cleanup_free_ char *full = below(path);

	free(TAKE_PTR(version));
	return runtime_jar_version(full, &version, &e);
}

#define CLASS "water/init/BuildVersion.class"

static void test_class_file(void **state)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	char *v;

	(void)state;
	make_class(&b, "3.46.0.12");
	v = class_file_version(b.s, b.len);
	assert_string_equal(v, "3.46.0.12");
	free(v);
	/* Cut anywhere, at the exact end of a buffer: no version and no read behind it. */
	for (size_t n = 0; n < b.len; n++) {
		_cleanup_free_ char *cut = xmalloc(n + 1);
		_cleanup_free_ char *exact = n ? memcpy(xmalloc(n), b.s, n) : NULL;

		(void)cut;
		assert_null(class_file_version(exact ? exact : cut, n));
	}
	for (size_t i = 0; i < b.len; i++)
		for (unsigned k = 0; k < 256; k += 5) {
			char was = b.s[i];

			b.s[i] = (char)k;
			free(class_file_version(b.s, b.len));
			b.s[i] = was;
		}
	strbuf_reset(&b);
	make_class(&b, "3.46.0.12.");
	assert_null(class_file_version(b.s, b.len));
}

static void test_jar_version(void **state)
{
	(void)state;
	put_jar("a.jar", true, CLASS, "3.46.0.12");
	assert_int_equal(version_of("a.jar"), 0);
	assert_string_equal(version, "3.46.0.12");
	put_jar("b.jar", true, "water/genmodel/BuildVersion.class", "3.47.0.99999");
	assert_int_equal(version_of("b.jar"), 0);
	assert_string_equal(version, "3.47.0.99999");
	put_jar("c.jar", true, CLASS, "unknown");
	assert_int_equal(version_of("c.jar"), 0);
	assert_null(version);

	/* Beside `backend/` of a package. */
	put_jar("p/h2o/backend/bin/h2o.jar", true, NULL, NULL);
	assert_int_equal(version_of("p/h2o/backend/bin/h2o.jar"), 0);
	assert_null(version);
	put_text("p/h2o/version.txt", "3.46.0.7\n", 0644);
	assert_int_equal(version_of("p/h2o/backend/bin/h2o.jar"), 0);
	assert_string_equal(version, "3.46.0.7");
	put_text("p/h2o/version.txt", "SUBST_PROJECT_VERSION\n", 0644);
	assert_int_equal(version_of("p/h2o/backend/bin/h2o.jar"), 0);
	assert_null(version);
	assert_int_equal(version_of("none.jar"), -ENOENT);
}

static void test_jar_broken(void **state)
{
	_cleanup_free_ char *data = NULL;
	_cleanup_free_ char *jar = below("good.jar");
	size_t len;

	(void)state;
	put_jar("good.jar", true, CLASS, "3.46.0.12");
	assert_int_equal(file_read(jar, 1 << 20, &data, &len), 0);
	put_text("empty.jar", "", 0644);
	put_text("text.jar", "<html>404 Not Found</html>, long enough for an end record", 0644);
	put("cut.jar", data, len - 30, 0644);
	put_jar("other.jar", false, NULL, NULL);
	put_dir("dir.jar");
	put_link("/nowhere/h2o.jar", "dangling.jar");

	assert_int_equal(find_jar("good.jar"), 0);
	assert_found("good.jar");
	assert_int_equal(find_jar("none.jar"), -ENOENT);
	assert_says("does not exist; set it to an h2o.jar (`pip install h2o`");
	assert_int_equal(find_jar("dangling.jar"), -ENOENT);
	assert_says("does not exist");
	assert_int_equal(find_jar("dir.jar"), -EISDIR);
	assert_says("is a directory");
	assert_int_equal(find_jar("empty.jar"), -EBADMSG);
	assert_says("is empty");
	assert_int_equal(find_jar("text.jar"), -EBADMSG);
	assert_says("is not a jar");
	assert_int_equal(find_jar("cut.jar"), -EBADMSG);
	assert_says("cut off");
	assert_int_equal(find_jar("other.jar"), -EBADMSG);
	assert_says("without water/H2OApp.class");
	assert_int_equal(runtime_find_jar("https://x/h2o.jar", NULL, &found, &e), -EINVAL);
	assert_says("is a URL");
	assert_int_equal(runtime_find_jar("h2o.jar", NULL, &found, &e), -EINVAL);
	assert_says("is not an absolute path");
	if (geteuid() != 0) {
		chmod(jar, 0);
		assert_int_equal(find_jar("good.jar"), -EACCES);
		assert_says("permission denied");
	}
}

/* Whatever byte is wrong or missing: an answer, and no sanitizer's word. */
static void test_jar_damaged(void **state)
{
	_cleanup_free_ char *data = NULL;
	_cleanup_free_ char *jar = below("good.jar");
	size_t len;

	(void)state;
	put_jar("good.jar", true, CLASS, "3.46.0.12");
	assert_int_equal(file_read(jar, 1 << 20, &data, &len), 0);
	for (size_t i = 0; i < len; i++) {
		char was = data[i];

		put("cut.jar", data, i, 0644);
		version_of("cut.jar");
		data[i] = (char)~was;
		put("bad.jar", data, len, 0644);
		version_of("bad.jar");
		data[i] = (char)0xff;
		put("bad.jar", data, len, 0644);
		version_of("bad.jar");
		data[i] = was;
	}
}

/* A start script may stand in front of an archive; Java runs such jars. */
static void test_jar_prefixed(void **state)
{
	_cleanup_free_ char *data = NULL;
	_cleanup_free_ char *jar = below("good.jar");
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	size_t len;

	(void)state;
	put_jar("good.jar", true, CLASS, "3.46.0.12");
	assert_int_equal(file_read(jar, 1 << 20, &data, &len), 0);
	strbuf_puts(&b, "#!/bin/sh\nexec java -jar $0\n");
	strbuf_add(&b, data, len);
	put("script.jar", b.s, b.len, 0644);
	assert_int_equal(version_of("script.jar"), 0);
	assert_string_equal(version, "3.46.0.12");
}

static void le(struct strbuf *b, unsigned bytes, uint64_t v)
{
	for (; bytes; bytes--, v >>= 8)
		strbuf_add(b, (char[]){(char)v}, 1);
}

/* The real jar has more entries than 16 bits count: the true numbers are in records of zip64. */
static void test_jar_zip64(void **state)
{
	_cleanup_free_ char *data = NULL;
	_cleanup_free_ char *jar = below("good.jar");
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	static const char script[] = "#!/bin/sh\n";
	uint32_t dir_size, dir_offset;
	size_t len, end;

	(void)state;
	put_jar("good.jar", true, CLASS, "3.46.0.12");
	assert_int_equal(file_read(jar, 1 << 20, &data, &len), 0);
	end = len - 22;
	memcpy(&dir_size, data + end + 12, 4);
	memcpy(&dir_offset, data + end + 16, 4);
	strbuf_puts(&b, script);
	strbuf_add(&b, data, end);
	le(&b, 4, 0x06064b50);
	le(&b, 8, 44);
	le(&b, 12, 0); /* versions, disks */
	le(&b, 8, 3);
	le(&b, 8, 3);
	le(&b, 8, dir_size);
	le(&b, 8, dir_offset);
	le(&b, 4, 0x07064b50);
	le(&b, 4, 0);
	le(&b, 8, end);
	le(&b, 4, 1);
	le(&b, 4, 0x06054b50);
	le(&b, 4, 0);
	le(&b, 8, UINT64_MAX); /* entries, size of the directory ... */
	le(&b, 4, UINT32_MAX);
	le(&b, 2, 0);
	put("plain64.jar", b.s + sizeof(script) - 1, b.len - sizeof(script) + 1, 0644);
	assert_int_equal(version_of("plain64.jar"), 0);
	assert_string_equal(version, "3.46.0.12");
	put("script64.jar", b.s, b.len, 0644);
	assert_int_equal(version_of("script64.jar"), 0);
	assert_string_equal(version, "3.46.0.12");
}

#define IN_PACKAGE "h2o/backend/bin/h2o.jar"

static void test_jar_order(void **state)
{
	static const char *const places[] = {
		/* Last looked at first. */
		"opt/h2oai/h2o-3/h2o.jar",
		"opt/h2o.jar",
		"usr/lib/R/site-library/h2o/java/h2o.jar",
		"home/R/x86_64-pc-linux-gnu-library/4.2/h2o/java/h2o.jar",
		"usr/local/h2o_jar/h2o.jar",
		"opt/h2o-venv/lib/python3.9/site-packages/" IN_PACKAGE,
		"opt/h2o-venv/lib/python3.11/site-packages/" IN_PACKAGE,
		"usr/lib/python3/dist-packages/" IN_PACKAGE,
		"usr/local/lib/python3.11/dist-packages/" IN_PACKAGE,
		"real/lib/python3.12/site-packages/" IN_PACKAGE,
		"home/.local/lib/python3.11/site-packages/" IN_PACKAGE,
		"conda/lib/python3.11/site-packages/" IN_PACKAGE,
		"venv/lib/python3.11/site-packages/" IN_PACKAGE,
	};

	(void)state;
	put_text("real/bin/python3.12", "", 0755);
	put_link("../real/bin/python3.12", "bin/python3");
	set_env("VIRTUAL_ENV", "venv");
	set_env("CONDA_PREFIX", "conda");
	assert_int_equal(find_jar(NULL), -ENOENT);
	assert_says("no h2o.jar found");
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		put_jar(places[i], true, CLASS, "3.46.0.12");
		assert_int_equal(find_jar(NULL), 0);
		assert_found(places[i]);
	}
	put_jar("own.jar", true, NULL, NULL);
	set_env("H2O_JAR_PATH", "own.jar");
	assert_int_equal(find_jar(NULL), 0);
	assert_found("own.jar");
	set_env("H2O_JAR_PATH", "gone.jar");
	assert_int_equal(find_jar(NULL), -ENOENT);
	assert_says("$H2O_JAR_PATH: ");
	assert_says("or unset it");
	setenv("H2O_JAR_PATH", "", 1);
	assert_int_equal(find_jar(NULL), 0);
}

static void test_jar_broken_package(void **state)
{
	(void)state;
	put_text("home/.local/lib/python3.11/site-packages/" IN_PACKAGE, "PK\003\004", 0644);
	assert_int_equal(find_jar(NULL), -EBADMSG);
	assert_says("cut off");
	assert_says("--force-reinstall");
	put_jar("opt/h2o.jar", true, NULL, NULL); /* an intact one further on is taken */
	assert_int_equal(find_jar(NULL), 0);
	assert_true(traced("cut off"));
	assert_found("opt/h2o.jar");
}

static void test_venv_on_path(void **state)
{
	(void)state;
	put_jar("base/lib/python3.11/site-packages/" IN_PACKAGE, true, NULL, NULL);
	put_jar("home/.local/lib/python3.11/site-packages/" IN_PACKAGE, true, NULL, NULL);
	put_text("base/bin/python3.11", "", 0755);
	put_link("../../base/bin/python3.11", "venv/bin/python3");
	put_dir("venv/lib/python3.11/site-packages");
	{
		_cleanup_free_ char *cfg =
			xasprintf("home = %s/base/bin\ninclude-system-site-packages = true\n", top);

		put_text("venv/pyvenv.cfg", cfg, 0644);
		set_env("PATH", "venv/bin");
		assert_int_equal(find_jar(NULL), 0);
		assert_found("base/lib/python3.11/site-packages/" IN_PACKAGE);
		*strstr(cfg, "true") = '\0';
		put_text("venv/pyvenv.cfg", cfg, 0644);
		assert_int_equal(find_jar(NULL), 0); /* does not see its base's packages */
		assert_found("home/.local/lib/python3.11/site-packages/" IN_PACKAGE);
	}
	put_jar("venv/lib/python3.11/site-packages/" IN_PACKAGE, true, NULL, NULL);
	assert_int_equal(find_jar(NULL), 0);
	assert_found("venv/lib/python3.11/site-packages/" IN_PACKAGE);
}

static void test_pyenv(void **state)
{
	(void)state;
	put_text("pyenv/shims/python3", "#!/usr/bin/env bash\n", 0755);
	set_env("PATH", "pyenv/shims");
	put_jar("pyenv/versions/3.11.7/lib/python3.11/site-packages/" IN_PACKAGE, true, NULL, NULL);
	put_jar("pyenv/versions/3.9.1/lib/python3.9/site-packages/" IN_PACKAGE, true, NULL, NULL);
	assert_int_equal(find_jar(NULL), -ENOENT);
	put_text("pyenv/version", "3.11.7\n3.9.1\n", 0644);
	assert_int_equal(find_jar(NULL), 0);
	assert_found("pyenv/versions/3.11.7/lib/python3.11/site-packages/" IN_PACKAGE);
	setenv("PYENV_VERSION", "3.9.1", 1);
	assert_int_equal(find_jar(NULL), 0);
	assert_found("pyenv/versions/3.9.1/lib/python3.9/site-packages/" IN_PACKAGE);
}

/* A name with the characters of patterns stands for itself. */
static void test_odd_names(void **state)
{
	(void)state;
	put_jar("a[b]*c/lib/python3.11/site-packages/" IN_PACKAGE, true, NULL, NULL);
	set_env("VIRTUAL_ENV", "a[b]*c");
	assert_int_equal(find_jar(NULL), 0);
	assert_found("a[b]*c/lib/python3.11/site-packages/" IN_PACKAGE);
}

static void test_real_jar(void **state)
{
	const char *jar = getenv("H2O_JAR");
	uint64_t before;

	(void)state;
	if (!jar)
		skip();
	before = clock_monotonic_ms();
	assert_int_equal(runtime_find_jar(jar, NULL, &found, &e), 0);
	assert_int_equal(runtime_jar_version(found, &version, &e), 0);
	assert_non_null(version);
	print_message("%s: %s in %u ms\n", jar, version, (unsigned)(clock_monotonic_ms() - before));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_java_configured),
		TEST(test_java_order),
		TEST(test_java_home_unusable),
		TEST(test_java_release),
		TEST(test_java_version_output),
		TEST(test_check_java),
		TEST(test_class_file),
		TEST(test_jar_version),
		TEST(test_jar_broken),
		TEST(test_jar_damaged),
		TEST(test_jar_prefixed),
		TEST(test_jar_zip64),
		TEST(test_jar_order),
		TEST(test_jar_broken_package),
		TEST(test_venv_on_path),
		TEST(test_pyenv),
		TEST(test_odd_names),
		TEST(test_real_jar),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
