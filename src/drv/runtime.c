#include "drv/runtime.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file.h"
#include "drv/jar.h"
#include "drv/packages.h"

#define INSTALL_JAVA                                                                               \
	"install one that H2O supports (8 to 17; on Debian: apt install openjdk-17-jre-headless)"
#define SET_JAR "set jar_path or $H2O_JAR_PATH to an h2o.jar"

static void trace_note(
	struct search_trace *t, const char *where, const char *path, const char *what)
{
	if (t)
		strv_printf(&t->tried, "%s: %s%s%s", where, path, *path ? ": " : "", what);
}

void search_trace_free(struct search_trace *t)
{
	strv_free(&t->tried);
}

/* Can it be executed? The sentence is only "<path> is ..."; what to do is the caller's to add. */
static int check_java_file(const char *path, struct err *e)
{
	struct stat st;
	char target[PATH_MAX];
	ssize_t n;

	if (stat(path, &st) == 0) {
		if (S_ISDIR(st.st_mode))
			return err_set(e, -EISDIR, "%s is a directory", path);
		if (!S_ISREG(st.st_mode))
			return err_set(e, -EINVAL, "%s is not a program", path);
		if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0)
			return 0;
		if (errno == EACCES)
			return err_set(e, -EACCES, "%s is not executable for user %u", path,
				(unsigned)geteuid());
	}
	if (errno != ENOENT)
		return err_set_errno(e, -errno, "%s cannot be used", path);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return err_set(e, -ENOENT, "%s does not exist", path);
	target[n] = '\0';
	return err_set(
		e, -ENOENT, "%s is a symbolic link to %s, which does not exist", path, target);
}

/* Looks at one place: true and *path (owned by the caller) when java is there. */
static bool try_java(struct search_trace *t, const char *where, const char *file, char **path)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (check_java_file(file, &e) < 0) {
		trace_note(t, where, "", err_msg(&e));
		return false;
	}
	trace_note(t, where, file, "found");
	*path = xstrdup(file);
	return true;
}

static int java_from_key(const char *configured, struct search_trace *t, char **path, struct err *e)
{
	_cleanup_(err_clear) struct err why = ERR_NULL;
	_cleanup_free_ char *below = xasprintf("%s/bin/java", configured);
	int r;

	if (configured[0] != '/')
		r = err_set(&why, -EINVAL, "%s is not an absolute path", configured);
	else
		r = check_java_file(configured, &why);
	trace_note(t, "key java", r < 0 ? "" : configured, r < 0 ? err_msg(&why) : "found");
	if (r == 0) {
		*path = xstrdup(configured);
		return 0;
	}
	if (r == -EISDIR && check_java_file(below, NULL) == 0)
		return err_set(e, r, "key java: %s is a directory; the program in it is %s",
			configured, below);
	return err_set(e, r, "key java: %s; correct it, or remove it, so that Java is searched for",
		err_msg(&why));
}

static int java_from_h2o_java_home(
	const char *home, struct search_trace *t, char **path, struct err *e)
{
	_cleanup_(err_clear) struct err why = ERR_NULL;
	_cleanup_free_ char *file = xasprintf("%s/bin/java", home);
	int r = check_java_file(file, &why);

	trace_note(t, "H2O_JAVA_HOME", r < 0 ? "" : file, r < 0 ? err_msg(&why) : "found");
	if (r == 0) {
		*path = TAKE_PTR(file);
		return 0;
	}
	return err_set(e, r,
		"$H2O_JAVA_HOME is %s, but %s; set it to the home of a Java, or unset it", home,
		err_msg(&why));
}

static bool java_from_path(struct search_trace *t, char **path)
{
	_cleanup_(strv_free) struct strv list = STRV_NULL;

	path_candidates("java", &list);
	if (list.n == 0)
		trace_note(t, "PATH", "", "no java in it");
	for (size_t i = 0; i < list.n; i++)
		if (try_java(t, "PATH", list.v[i], path))
			return true;
	return false;
}

static bool java_supported(int major)
{
	return major >= H2O_JAVA_MIN && major <= H2O_JAVA_MAX;
}

/* Of all in /usr/lib/jvm the newest that H2O supports; with only_supported no other. Owned by the
 * caller; NULL when there is none. */
static char *best_installed_java(bool only_supported)
{
	static const char *const patterns[] = {"*/bin/java", "*/jre/bin/java"};
	_cleanup_free_ char *best = NULL;
	int best_rank = -1;

	for (size_t k = 0; k < ARRAY_SIZE(patterns); k++) {
		_cleanup_free_ char *dir = packages_fixed_path("/usr/lib/jvm/");
		_cleanup_free_ char *pattern = xasprintf("%s%s", dir, patterns[k]);
		glob_t g = {0};

		if (glob(pattern, 0, NULL, &g) == 0)
			for (size_t i = 0; i < g.gl_pathc; i++) {
				_cleanup_free_ char *version = NULL;
				int major = 0;
				int rank;

				if (check_java_file(g.gl_pathv[i], NULL) < 0)
					continue;
				runtime_java_release(g.gl_pathv[i], &major, &version);
				rank = major + (java_supported(major) ? 1000 : 0);
				if (rank <= best_rank || (only_supported && rank < 1000))
					continue;
				best_rank = rank;
				replace_str(&best, g.gl_pathv[i]);
			}
		globfree(&g);
	}
	return TAKE_PTR(best);
}

int runtime_find_java(
	const char *configured, struct search_trace *trace, char **path, struct err *e)
{
	_cleanup_free_ char *home_java = NULL;
	const char *home = env_value("JAVA_HOME");

	*path = NULL;
	if (configured)
		return java_from_key(configured, trace, path, e);
	if (env_value("H2O_JAVA_HOME"))
		return java_from_h2o_java_home(getenv("H2O_JAVA_HOME"), trace, path, e);
	trace_note(trace, "H2O_JAVA_HOME", "", "not set");
	if (java_from_path(trace, path))
		return 0;
	if (home) {
		home_java = xasprintf("%s/bin/java", home);
		if (home[0] == '/' && try_java(trace, "JAVA_HOME", home_java, path))
			return 0;
	} else {
		trace_note(trace, "JAVA_HOME", "", "not set");
	}
	*path = best_installed_java(false);
	trace_note(trace, "/usr/lib/jvm", *path ? *path : "", *path ? "found" : "no java in it");
	if (*path)
		return 0;
	return err_set(e, -ENOENT,
		"no Java found ($H2O_JAVA_HOME, PATH, $JAVA_HOME and /usr/lib/jvm have none that "
		"can "
		"be executed); " INSTALL_JAVA ", or set the key java");
}

/* "1.8.0_392" is 8, "25-ea" is 25; 0 when it is no version. */
static int java_major(const char *version)
{
	char *end;
	long major;

	if (!isdigit((unsigned char)version[0]))
		return 0;
	major = strtol(version, &end, 10);
	if (major == 1 && *end == '.' && isdigit((unsigned char)end[1]))
		major = strtol(end + 1, NULL, 10);
	return major > 0 && major < 1000 ? (int)major : 0;
}

/* Reads the version that `s` begins with, up to `stop`. */
static int take_version(const char *s, const char *stop, int *major, char **version)
{
	size_t n = strcspn(s, stop);
	_cleanup_free_ char *v = xstrndup(s, n);

	if (java_major(v) == 0 || n > 64)
		return -EINVAL;
	*major = java_major(v);
	*version = TAKE_PTR(v);
	return 0;
}

static int read_release(const char *home, int *major, char **version)
{
	_cleanup_free_ char *path = xasprintf("%s/release", home);
	_cleanup_free_ char *text = NULL;
	static const char key[] = "JAVA_VERSION=";

	if (file_read(path, 1 << 20, &text, NULL) < 0)
		return -ENOENT;
	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *value = line + sizeof(key) - 1;

		if (!has_prefix(line, key))
			continue;
		value += *value == '"';
		return take_version(value, "\"\r\n", major, version) < 0 ? -ENOENT : 0;
	}
	return -ENOENT;
}

/* Cuts `tail` ("/bin/java") off; false when `path` does not end so. */
static bool cut_tail(char *path, const char *tail)
{
	size_t n = strlen(path);
	size_t t = strlen(tail);

	if (n <= t || !streq(path + n - t, tail))
		return false;
	path[n - t] = '\0';
	return true;
}

int runtime_java_release(const char *java, int *major, char **version)
{
	_cleanup_free_ char *home = realpath(java, NULL);

	*version = NULL;
	if (!home || !cut_tail(home, "/bin/java"))
		return -ENOENT;
	if (read_release(home, major, version) == 0)
		return 0;
	/* A JDK 8 has java also in jre/bin, and only one such file. */
	return cut_tail(home, "/jre") ? read_release(home, major, version) : -ENOENT;
}

int runtime_parse_java_version(const char *output, int *major, char **version)
{
	static const char mark[] = " version \"";

	*version = NULL;
	for (const char *line = output; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		size_t n = strcspn(line, "\n");
		const char *at;

		/* These lines quote options, which may hold anything. */
		if (has_prefix(line, "Picked up ") || has_prefix(line, "NOTE: Picked up "))
			continue;
		at = memmem(line, n, mark, sizeof(mark) - 1);
		if (at && take_version(at + sizeof(mark) - 1, "\"\r\n", major, version) == 0)
			return 0;
	}
	return -EINVAL;
}

int runtime_check_java(
	int major, const char *java, const char *h2o_version, bool allow_unsupported, struct err *e)
{
	_cleanup_free_ char *other = NULL;
	_cleanup_free_ char *use = NULL;

	if (allow_unsupported || java_supported(major))
		return 0;
	other = best_installed_java(true);
	use = other ? xasprintf("set java = %s", other) : xstrdup(INSTALL_JAVA);
	return err_set(e, -ENOTSUP,
		"Java %d is not supported by H2O%s%s (%d to %d are): %s is too %s; %s, or "
		"allow_unsupported_java = yes to try it all the same",
		major, h2o_version ? " " : "", h2o_version ? h2o_version : "", H2O_JAVA_MIN,
		H2O_JAVA_MAX, java, major < H2O_JAVA_MIN ? "old" : "new", use);
}

/* A jar that was named: by the key or by the environment. */
static int named_jar(const char *what, const char *file, const char *undo, struct search_trace *t,
	char **path, struct err *e)
{
	_cleanup_(err_clear) struct err why = ERR_NULL;
	int r;

	if (strstr(file, "://"))
		r = err_set(&why, -EINVAL, "%s is a URL, not a path: download that file", file);
	else if (file[0] != '/')
		r = err_set(&why, -EINVAL, "%s is not an absolute path", file);
	else
		r = jar_check(file, &why);
	trace_note(t, what, r < 0 ? "" : file, r < 0 ? err_msg(&why) : "found");
	if (r == 0) {
		*path = xstrdup(file);
		return 0;
	}
	return err_set(e, r,
		"%s: %s; set it to an h2o.jar (`pip install h2o` brings one), or %s it, so that "
		"one "
		"is searched for",
		what, err_msg(&why), undo);
}

/* What is found on the way but cannot be used explains a failure better than "not found". */
struct jar_search {
	struct search_trace *trace;
	struct err broken;
	size_t looked;
};

static bool try_jar(
	struct jar_search *s, const char *where, const char *dir, const char *below, char **path)
{
	_cleanup_free_ char *file = xasprintf("%s/%s", dir, below);
	_cleanup_(err_clear) struct err why = ERR_NULL;
	int r = jar_check(file, &why);

	s->looked++;
	trace_note(s->trace, where, r < 0 ? "" : file, r < 0 ? err_msg(&why) : "found");
	if (r == 0) {
		*path = TAKE_PTR(file);
		return true;
	}
	if (r != -ENOENT && r != -ENOTDIR && !s->broken.msg) {
		s->broken = why;
		why = ERR_NULL;
	}
	return false;
}

static bool try_jars(struct jar_search *s, const char *where, const struct strv *dirs,
	const char *below, char **path)
{
	for (size_t i = 0; i < dirs->n; i++)
		if (try_jar(s, where, dirs->v[i], below, path))
			return true;
	return false;
}

/* Where a download from h2o.ai was unpacked, or a container image has it. */
static bool try_opt(struct jar_search *s, char **path)
{
	static const char *const patterns[] = {
		"/opt/h2o.jar", "/opt/h2o*/h2o.jar", "/opt/h2o*/h2o*/h2o.jar"};
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(patterns) && !found; i++) {
		_cleanup_free_ char *pattern = packages_fixed_path(patterns[i]);
		glob_t g = {0};

		if (glob(pattern, 0, NULL, &g) == 0)
			for (size_t k = 0; k < g.gl_pathc && !found; k++)
				found = try_jar(s, "/opt", "", g.gl_pathv[k] + 1, path);
		globfree(&g);
	}
	return found;
}

static bool search_jar(struct jar_search *s, const struct package_places *p, char **path)
{
	return try_jars(s, "h2o for Python", &p->sites, "h2o/backend/bin/h2o.jar", path) ||
	       try_jars(s, "h2o_jar", &p->prefixes, "h2o_jar/h2o.jar", path) ||
	       try_jars(s, "h2o for R", &p->r_libs, "h2o/java/h2o.jar", path) || try_opt(s, path);
}

int runtime_find_jar(const char *configured, struct search_trace *trace, char **path, struct err *e)
{
	const char *named = env_value("H2O_JAR_PATH");
	struct jar_search s = {.trace = trace};
	struct package_places p;
	int r;

	*path = NULL;
	if (configured)
		return named_jar("jar_path", configured, "remove", trace, path, e);
	if (named)
		return named_jar("$H2O_JAR_PATH", named, "unset", trace, path, e);
	trace_note(trace, "H2O_JAR_PATH", "", "not set");
	package_places_find(&p);
	if (search_jar(&s, &p, path))
		r = 0;
	else if (s.broken.msg)
		r = err_set(e, s.broken.code,
			"%s; install it again (pip install --force-reinstall h2o), or " SET_JAR,
			s.broken.msg);
	else
		r = err_set(e, -ENOENT,
			"no h2o.jar found (looked in %zu places: Python's and R's packages, "
			"/opt/h2o*); `pip install h2o` brings one; or " SET_JAR,
			s.looked);
	package_places_free(&p);
	err_clear(&s.broken);
	return r;
}

/* A package's jar is <package>/backend/bin/h2o.jar: its version stands in <package>/version.txt. */
static char *package_version(const char *jar)
{
	_cleanup_free_ char *dir = xstrdup(jar);
	_cleanup_free_ char *file = NULL;
	_cleanup_free_ char *text = NULL;
	size_t n;

	if (!cut_tail(dir, "/backend/bin/h2o.jar"))
		return NULL;
	file = xasprintf("%s/version.txt", dir);
	if (file_read(file, 256, &text, NULL) < 0)
		return NULL;
	n = strspn(text, "0123456789.");
	return n && strspn(text + n, " \t\r\n") == strlen(text + n) ? xstrndup(text, n) : NULL;
}

int runtime_jar_version(const char *jar, char **version, struct err *e)
{
	int r = jar_read_version(jar, version, e);

	if (r == 0 && !*version)
		*version = package_version(jar);
	return r;
}
