#include "drv/packages.h"

#include <glob.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static char *fixed_root;

void packages_set_root(const char *root)
{
	replace_str(&fixed_root, *root ? root : NULL);
}

char *packages_fixed_path(const char *path)
{
	return xasprintf("%s%s", fixed_root ? fixed_root : "", path);
}

const char *env_value(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

char *packages_home(void)
{
	const char *home = env_value("HOME");
	const struct passwd *pw;

	if (home)
		return xstrdup(home);
	pw = getpwuid(geteuid()); /* as Python does it; a service may have no HOME */
	return pw && pw->pw_dir && *pw->pw_dir ? xstrdup(pw->pw_dir) : NULL;
}

/* Each directory once, whatever links lead there: lib64 is often one to lib. */
static void add_dir(struct strv *l, const char *path)
{
	struct stat st;
	struct stat other;

	if (path[0] != '/' || stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return;
	for (size_t i = 0; i < l->n; i++)
		if (stat(l->v[i], &other) == 0 && other.st_dev == st.st_dev &&
			other.st_ino == st.st_ino)
			return;
	strv_add(l, path);
}

/* "python3.9" before "python3.10": as versions, highest first. */
static int by_version_down(const void *a, const void *b)
{
	return strverscmp(*(char *const *)b, *(char *const *)a);
}

static void add_glob(struct strv *l, const char *pattern)
{
	glob_t g = {0};

	if (glob(pattern, GLOB_NOSORT, NULL, &g) == 0) {
		qsort(g.gl_pathv, g.gl_pathc, sizeof(*g.gl_pathv), by_version_down);
		for (size_t i = 0; i < g.gl_pathc; i++)
			add_dir(l, g.gl_pathv[i]);
	}
	globfree(&g);
}

/* A directory's name in a pattern stands for itself. */
static char *glob_escape(const char *s)
{
	char *out = xmalloc(2 * strlen(s) + 1);
	char *o = out;

	for (; *s; s++) {
		if (strchr("*?[]\\", *s))
			*o++ = '\\';
		*o++ = *s;
	}
	*o = '\0';
	return out;
}

static void add_below(struct strv *l, const char *dir, const char *pattern)
{
	_cleanup_free_ char *escaped = glob_escape(dir);
	_cleanup_free_ char *whole = xasprintf("%s/%s", escaped, pattern);

	add_glob(l, whole);
}

static void add_prefix(struct package_places *p, const char *prefix)
{
	static const char *const patterns[] = {
		"lib/python3*/site-packages", "lib64/python3*/site-packages",
		"lib/python3*/dist-packages", /* Debian's own; python3/ there is for all versions */
	};

	add_dir(&p->prefixes, prefix);
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++)
		add_below(&p->sites, prefix, patterns[i]);
}

/* The directory `levels` above a file; owned by the caller; NULL above "/". */
static char *above(const char *path, unsigned levels)
{
	_cleanup_free_ char *dir = xstrdup(path);

	while (levels--) {
		char *slash = strrchr(dir, '/');

		if (!slash)
			return NULL;
		*slash = '\0';
	}
	return *dir ? TAKE_PTR(dir) : NULL;
}

/* A "key = value" line; owned by the caller; NULL when there is none. */
static char *file_value(const char *path, const char *key)
{
	_cleanup_free_ char *text = NULL;
	char *save = NULL;

	if (file_read(path, 65536, &text, NULL) < 0)
		return NULL;
	for (char *line = strtok_r(text, "\r\n", &save); line;
		line = strtok_r(NULL, "\r\n", &save)) {
		size_t n = strlen(key);

		if (strncmp(line, key, n) != 0)
			continue;
		n += strspn(line + n, " \t");
		if (line[n] != '=')
			continue;
		n++;
		return xstrdup(line + n + strspn(line + n, " \t"));
	}
	return NULL;
}

/* A virtual environment at `prefix`? Adds it, and what it may see of the Python it is made of. */
static bool add_venv(struct package_places *p, const char *prefix)
{
	_cleanup_free_ char *cfg = xasprintf("%s/pyvenv.cfg", prefix);
	_cleanup_free_ char *system = NULL;
	_cleanup_free_ char *home = NULL;
	_cleanup_free_ char *base = NULL;

	if (access(cfg, F_OK) < 0)
		return false;
	add_prefix(p, prefix);
	system = file_value(cfg, "include-system-site-packages");
	home = file_value(cfg, "home"); /* the directory of the base's python3 */
	base = home ? above(home, 1) : NULL;
	if (base && system && strcasecmp(system, "true") == 0)
		add_prefix(p, base);
	return true;
}

/* <root>/shims/python3 is a script which runs <root>/versions/VERSION/bin/python3. */
static bool add_pyenv(struct package_places *p, const char *python)
{
	_cleanup_free_ char *shims = above(python, 1);
	_cleanup_free_ char *root = above(python, 2);
	_cleanup_free_ char *file = NULL;
	_cleanup_free_ char *version = NULL;
	_cleanup_free_ char *prefix = NULL;
	const char *base = shims ? strrchr(shims, '/') : NULL;

	if (!root || !base || !streq(base, "/shims"))
		return false;
	file = xasprintf("%s/version", root);
	if (env_value("PYENV_VERSION"))
		version = xstrdup(getenv("PYENV_VERSION"));
	else if (file_read(file, 4096, &version, NULL) < 0)
		return true;
	version[strcspn(version, ":\r\n")] = '\0'; /* several may be listed: the first runs */
	prefix = xasprintf("%s/versions/%s", root, version);
	if (*version)
		add_prefix(p, prefix);
	return true;
}

/* Of a python3 on PATH: the prefix by its path, and by what it is a link to. */
static void add_python(struct package_places *p, const char *python, bool venv_only)
{
	_cleanup_free_ char *prefix = above(python, 2);
	_cleanup_free_ char *real = NULL;
	_cleanup_free_ char *real_prefix = NULL;

	if (prefix && add_venv(p, prefix))
		return;
	if (venv_only || add_pyenv(p, python))
		return;
	if (prefix)
		add_prefix(p, prefix);
	real = realpath(python, NULL);
	real_prefix = real ? above(real, 2) : NULL;
	if (real_prefix && !add_venv(p, real_prefix))
		add_prefix(p, real_prefix);
}

void path_candidates(const char *file, struct strv *out)
{
	_cleanup_free_ char *path = NULL;
	const char *env = getenv("PATH");
	char *save = NULL;

	path = xstrdup(env ? env : DEFAULT_PATH);
	for (char *dir = strtok_r(path, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
		_cleanup_free_ char *full = NULL;
		struct stat st;

		if (dir[0] != '/') /* below a current directory that means nothing here */
			continue;
		full = xasprintf("%s/%s", streq(dir, "/") ? "" : dir, file);
		if (lstat(full, &st) == 0)
			strv_add(out, full);
	}
}

static void add_user_base(struct package_places *p)
{
	_cleanup_free_ char *home = packages_home();
	_cleanup_free_ char *local = home ? xasprintf("%s/.local", home) : NULL;
	const char *base = env_value("PYTHONUSERBASE");

	if (base)
		add_prefix(p, base);
	else if (local)
		add_prefix(p, local);
}

static void add_fixed(struct package_places *p)
{
	static const char *const prefixes[] = {"/usr/local", "/usr/local/local", "/usr"};
	_cleanup_(strv_free) struct strv opt = STRV_NULL;
	_cleanup_free_ char *root = packages_fixed_path("");

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		_cleanup_free_ char *path = packages_fixed_path(prefixes[i]);

		add_prefix(p, path);
	}
	add_below(&opt, root, "opt/h2o*");
	for (size_t i = 0; i < opt.n; i++)
		add_prefix(p, opt.v[i]);
}

static void add_path_list(struct strv *l, const char *list)
{
	_cleanup_free_ char *copy = xstrdup(list ? list : "");
	char *save = NULL;

	for (char *dir = strtok_r(copy, ":", &save); dir; dir = strtok_r(NULL, ":", &save))
		add_dir(l, dir);
}

static void add_r_libs(struct strv *l)
{
	static const char *const vars[] = {"R_LIBS", "R_LIBS_USER", "R_LIBS_SITE"};
	static const char *const fixed[] = {
		"/usr/local/lib/R/site-library",
		"/usr/lib/R/site-library",
		"/usr/lib/R/library",
		"/usr/lib64/R/library",
		"/usr/local/lib/R/library",
	};
	_cleanup_free_ char *home = packages_home();

	for (size_t i = 0; i < ARRAY_SIZE(vars); i++)
		add_path_list(l, getenv(vars[i]));
	if (home)
		add_below(l, home, "R/*-library/*");
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		_cleanup_free_ char *path = packages_fixed_path(fixed[i]);

		add_dir(l, path);
	}
}

void package_places_find(struct package_places *p)
{
	const char *venv = env_value("VIRTUAL_ENV"), *conda = env_value("CONDA_PREFIX");
	_cleanup_(strv_free) struct strv pythons = STRV_NULL;

	*p = (struct package_places){0};
	path_candidates("python3", &pythons);
	if (venv && !add_venv(p, venv))
		add_prefix(p, venv);
	if (conda)
		add_prefix(p, conda);
	if (pythons.n)
		add_python(p, pythons.v[0], true);
	add_user_base(p);
	for (size_t i = 0; i < pythons.n; i++)
		add_python(p, pythons.v[i], false);
	add_fixed(p);
	add_r_libs(&p->r_libs);
}

void package_places_free(struct package_places *p)
{
	strv_free(&p->prefixes);
	strv_free(&p->sites);
	strv_free(&p->r_libs);
}
