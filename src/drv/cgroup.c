#include "drv/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

#include "base/file.h"

#define NAME_PREFIX  "h2ofleet-"
#define NAME_ID_LEN  8
#define SCOPE_SUFFIX ".scope"
#define MAX_FILE     (1u << 20)

/* ---- names ---- */

char *cgroup_name(const char *fleet_id, const char *cloud, uint64_t generation)
{
	return xasprintf(NAME_PREFIX "%.*s-%s.%" PRIu64, NAME_ID_LEN, fleet_id, cloud, generation);
}

bool cgroup_name_parse(
	const char *name, const char *fleet_id, const char *cloud, uint64_t *generation)
{
	_cleanup_free_ char *start = xasprintf(NAME_PREFIX "%.*s-", NAME_ID_LEN, fleet_id);
	const char *rest = name + strlen(start), *dot;
	size_t digits;

	if (strlen(fleet_id) < NAME_ID_LEN || !has_prefix(name, start))
		return false;
	dot = strchr(rest, '.'); /* which no cloud's name holds */
	if (!dot || dot == rest ||
		(cloud && (strlen(cloud) != (size_t)(dot - rest) || !has_prefix(rest, cloud))))
		return false;
	digits = strspn(dot + 1, "0123456789");
	if (digits == 0 || digits > 19 ||
		(dot[1 + digits] && !streq(dot + 1 + digits, SCOPE_SUFFIX)))
		return false;
	*generation = strtoull(dot + 1, NULL, 10);
	return true;
}

/* ---- the kernel's texts ---- */

/* The line behind the one at `p`; NULL: none. */
static const char *next_line(const char *p)
{
	p = strchr(p, '\n');
	return p && p[1] ? p + 1 : NULL;
}

char *cgroup_parse_path(const char *proc_cgroup)
{
	for (const char *p = proc_cgroup; p; p = next_line(p)) {
		size_t n = strcspn(p, "\n");

		if (!has_prefix(p, "0::/"))
			continue;
		/* Outside of our namespace, or removed: nothing to be seen there. */
		if (has_prefix(p, "0::/..") ||
			(n > 10 && memcmp(p + n - 10, " (deleted)", 10) == 0))
			return NULL;
		return xstrndup(p + 3, n - 3);
	}
	return NULL;
}

/* The kernel writes blanks and backslashes of paths as \ooo. */
static char *unescape(const char *s, size_t n)
{
	char *out = xmalloc(n + 1), *o = out;

	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\\' && i + 3 < n) {
			*o++ = (char)((s[i + 1] - '0') << 6 | (s[i + 2] - '0') << 3 |
				      (s[i + 3] - '0'));
			i += 3;
		} else {
			*o++ = s[i];
		}
	}
	*o = '\0';
	return out;
}

/* "ID PARENT DEV ROOT POINT OPTIONS [...] - TYPE SOURCE ...": root and point of a cgroup2. */
static bool parse_mount(const char *line, char **root, char **point)
{
	_cleanup_free_ char *one = xstrndup(line, strcspn(line, "\n"));
	const char *p = one, *type = strstr(one, " - ");

	if (!type || !has_prefix(type + 3, "cgroup2 "))
		return false;
	for (int field = 0; field < 3; field++) {
		p = strchr(p, ' ');
		if (!p)
			return false;
		p++;
	}
	*root = unescape(p, strcspn(p, " "));
	p += strcspn(p, " ");
	p += strspn(p, " ");
	*point = unescape(p, strcspn(p, " "));
	return true;
}

char *cgroup_parse_dir(const char *mountinfo, const char *path)
{
	for (const char *p = mountinfo; p; p = next_line(p)) {
		_cleanup_free_ char *root = NULL, *point = NULL;
		size_t n;

		if (!parse_mount(p, &root, &point))
			continue;
		/* Of the hierarchy only `root` and below is mounted there. */
		n = streq(root, "/") ? 0 : strlen(root);
		if (strncmp(path, root, n) != 0 || (path[n] && path[n] != '/'))
			continue;
		path += n;
		return streq(path, "/") || !*path ? xstrdup(point) : xasprintf("%s%s", point, path);
	}
	return NULL;
}

bool cgroup_parse_key(const char *text, const char *key, uint64_t *value)
{
	size_t n = strlen(key);

	for (const char *p = text; p; p = next_line(p))
		if (strncmp(p, key, n) == 0 && p[n] == ' ')
			return sscanf(p + n, " %" SCNu64, value) == 1;
	return false;
}

bool cgroup_parse_pressure(const char *text, double *some_avg10)
{
	return sscanf(text, "some avg10=%lf", some_avg10) == 1 && *some_avg10 >= 0;
}

/* ---- files ---- */

static int read_file(const char *dir, const char *file, char **text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, file);

	return file_read(path, MAX_FILE, text, NULL);
}

char *cgroup_of(pid_t pid)
{
	_cleanup_free_ char *proc =
		pid ? xasprintf("/proc/%d/cgroup", (int)pid) : xstrdup("/proc/self/cgroup");
	_cleanup_free_ char *text = NULL, *mounts = NULL, *path = NULL;

	if (file_read(proc, MAX_FILE, &text, NULL) < 0 ||
		file_read("/proc/self/mountinfo", MAX_FILE * 4, &mounts, NULL) < 0)
		return NULL;
	path = cgroup_parse_path(text);
	return path ? cgroup_parse_dir(mounts, path) : NULL;
}

int cgroup_make(const char *dir)
{
	return mkdir(dir, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

int cgroup_set(const char *dir, const char *file, const char *value)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, file);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return -errno;
	return write(fd, value, strlen(value)) < 0 ? -errno : 0;
}

int cgroup_add(const char *dir, pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", (int)pid);
	return cgroup_set(dir, "cgroup.procs", text);
}

int cgroup_get_key(const char *dir, const char *file, const char *key, uint64_t *value)
{
	_cleanup_free_ char *text = NULL;
	int r = read_file(dir, file, &text);

	if (r < 0)
		return r;
	return cgroup_parse_key(text, key, value) ? 0 : -ENODATA;
}

bool cgroup_is_ours(const char *dir)
{
	_cleanup_free_ char *procs = xasprintf("%s/cgroup.procs", dir);
	struct stat st;

	return stat(dir, &st) == 0 && st.st_uid == geteuid() && access(dir, W_OK) == 0 &&
	       access(procs, W_OK) == 0;
}

bool cgroup_populated(const char *dir)
{
	uint64_t populated;

	return cgroup_get_key(dir, "cgroup.events", "populated", &populated) == 0 && populated;
}

void cgroup_each(
	const char *dir, void (*fn)(const char *dir, const char *name, void *arg), void *arg)
{
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *sub = NULL;

		if (de->d_type != DT_DIR || de->d_name[0] == '.')
			continue;
		sub = xasprintf("%s/%s", dir, de->d_name);
		fn(sub, de->d_name, arg);
	}
	if (d)
		closedir(d);
}

/* Calls fn for each process that is in the group itself. */
static void each_process(
	const char *dir, void (*fn)(const char *dir, pid_t pid, const char *arg), const char *arg)
{
	_cleanup_free_ char *text = NULL;

	if (read_file(dir, "cgroup.procs", &text) < 0)
		return;
	for (const char *p = *text ? text : NULL; p; p = next_line(p)) {
		pid_t pid = (pid_t)atoi(p);

		if (pid > 0) /* 0: one of another pid namespace */
			fn(dir, pid, arg);
	}
}

static void move_one(_unused_ const char *dir, pid_t pid, const char *to)
{
	cgroup_add(to, pid);
}

int cgroup_move_down(const char *dir, const char *sub)
{
	_cleanup_free_ char *to = xasprintf("%s/%s", dir, sub), *left = NULL;
	int r = cgroup_make(to);

	if (r < 0)
		return r;
	each_process(dir, move_one, to);
	r = read_file(dir, "cgroup.procs", &left);
	return r < 0 ? r : *left ? -EBUSY : 0;
}

/* ---- the end of a group ---- */

/* The pidfd holds on to what has the number; that it still is in the group is checked after. */
static void kill_one(const char *dir, pid_t pid, _unused_ const char *arg)
{
	_cleanup_close_ int pidfd = pidfd_open(pid, 0);
	_cleanup_free_ char *in = pidfd < 0 ? NULL : cgroup_of(pid);

	if (in && streq(in, dir))
		pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
}

static void kill_one_by_one(const char *dir, _unused_ const char *name, _unused_ void *arg)
{
	each_process(dir, kill_one, NULL);
	cgroup_each(dir, kill_one_by_one, NULL);
}

int cgroup_kill(const char *dir)
{
	_cleanup_free_ char *own = cgroup_of(0);
	size_t n = strlen(dir);
	int r;

	if (!has_prefix(strrchr(dir, '/') ? strrchr(dir, '/') + 1 : dir, NAME_PREFIX))
		return -EPERM;
	if (!own || (strncmp(own, dir, n) == 0 && (!own[n] || own[n] == '/')))
		return -EPERM;
	r = cgroup_set(dir, "cgroup.kill", "1");
	if (r != -ENOENT || access(dir, F_OK) < 0)
		return r;
	kill_one_by_one(dir, NULL, NULL);
	return 0;
}

static void remove_below(const char *dir, _unused_ const char *name, _unused_ void *arg)
{
	cgroup_remove(dir);
}

int cgroup_remove(const char *dir)
{
	if (rmdir(dir) == 0 || errno == ENOENT)
		return 0;
	cgroup_each(dir, remove_below, NULL); /* a member may have made some */
	return rmdir(dir) == 0 || errno == ENOENT ? 0 : -errno;
}

/* ---- pressure ---- */

static double pressure_of(const char *dir, const char *what)
{
	_cleanup_free_ char *path =
		dir ? xasprintf("%s/%s.pressure", dir, what) : xasprintf("/proc/pressure/%s", what);
	_cleanup_free_ char *text = NULL;
	double avg10;

	if (file_read(path, 4096, &text, NULL) < 0 || !cgroup_parse_pressure(text, &avg10))
		return -1;
	return avg10;
}

bool cgroup_read_pressure(const char *dir, struct cgroup_pressure *out)
{
	out->cpu = pressure_of(dir, "cpu");
	out->memory = pressure_of(dir, "memory");
	out->io = pressure_of(dir, "io");
	return out->cpu >= 0 || out->memory >= 0 || out->io >= 0;
}
