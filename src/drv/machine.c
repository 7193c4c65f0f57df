#include "drv/machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/file.h"
#include "drv/cglimit.h"
#include "drv/procinfo.h"

/* A JVM that unpacks its library now has not mapped it yet. */
#define XGBOOST_SETTLED_MS 60000

/* The number behind `key` at the beginning of a line; -1 when there is none. */
static int64_t read_number(const char *path, const char *key)
{
	_cleanup_free_ char *text = NULL;
	size_t n = strlen(key);

	if (file_read(path, 1u << 20, &text, NULL) < 0)
		return -1;
	for (const char *p = text; p; p = (p = strchr(p, '\n')) ? p + 1 : NULL)
		if (strncmp(p, key, n) == 0)
			return strtoll(p + n, NULL, 10);
	return -1;
}

uint64_t machine_memory(void)
{
	int64_t kib = read_number("/proc/meminfo", "MemTotal:");
	struct cglimit cg;

	cglimit_read("/proc/self/cgroup", "/sys/fs/cgroup", &cg);
	if (kib <= 0)
		return cg.memory == UINT64_MAX ? 0 : cg.memory;
	return MIN((uint64_t)kib * 1024, cg.memory);
}

uint64_t machine_memory_available(void)
{
	int64_t kib = read_number("/proc/meminfo", "MemAvailable:");
	struct cglimit cg;

	cglimit_read("/proc/self/cgroup", "/sys/fs/cgroup", &cg);
	return kib < 0 ? 0 : MIN((uint64_t)kib * 1024, cg.memory_left);
}

/* The kernel refuses a mask smaller than its own with EINVAL. */
static unsigned affinity_cores(void)
{
	for (size_t n = 1024; n <= 1u << 20; n *= 4) {
		cpu_set_t *set = CPU_ALLOC(n);
		size_t size = CPU_ALLOC_SIZE(n);
		int count = -1, r;

		if (!set)
			break;
		r = sched_getaffinity(0, size, set);
		if (r == 0)
			count = CPU_COUNT_S(size, set);
		CPU_FREE(set);
		if (r == 0)
			return (unsigned)MAX(count, 1);
		if (errno != EINVAL)
			break;
	}
	return (unsigned)MAX(sysconf(_SC_NPROCESSORS_ONLN), 1);
}

unsigned machine_cores(void)
{
	unsigned cores = affinity_cores();
	struct cglimit cg;

	cglimit_read("/proc/self/cgroup", "/sys/fs/cgroup", &cg);
	if (cg.cpus > 0 && cg.cpus < cores) {
		unsigned whole = (unsigned)cg.cpus;

		cores = whole + (cg.cpus > whole);
	}
	return MAX(cores, 1u);
}

int64_t machine_oom_kills(void)
{
	return read_number("/proc/vmstat", "oom_kill ");
}

uint64_t machine_disk_free(const char *path)
{
	_cleanup_free_ char *p = xstrdup(path);
	struct statvfs st;

	while (statvfs(*p ? p : ".", &st) < 0) {
		char *slash = strrchr(p, '/');

		if (errno != ENOENT && errno != ENOTDIR)
			return 0;
		if (!slash && !*p)
			return 0;
		if (slash == p && !p[1])
			return 0;
		if (!slash)
			*p = '\0';
		else
			slash[slash == p] = '\0';
	}
	return (uint64_t)st.f_bavail * st.f_frsize;
}

void machine_boot_id(char out[40])
{
	_cleanup_free_ char *text = NULL;

	out[0] = '\0';
	if (file_read("/proc/sys/kernel/random/boot_id", 64, &text, NULL) < 0)
		return;
	text[strcspn(text, "\n")] = '\0';
	if (strlen(text) == 36)
		memcpy(out, text, 37);
}

/* ---- what crashed JVMs left in /tmp ---- */

struct leak {
	char name[256];
	ino_t ino;
	uid_t uid;
	uint64_t bytes;
	bool used;
};

struct leaks {
	struct leak *v;
	size_t n;
};

static void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

static void leaks_collect(const char *dir, struct leaks *l)
{
	_cleanup_(closedirp) DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		size_t len = strlen(de->d_name);
		struct stat st;

		if (!has_prefix(de->d_name, "libxgboost") || len < 3 ||
			!streq(de->d_name + len - 3, ".so"))
			continue;
		if (fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			!S_ISREG(st.st_mode))
			continue;
		if ((uint64_t)st.st_mtime * 1000 + XGBOOST_SETTLED_MS > clock_wall_ms())
			continue;
		l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
		l->v[l->n] = (struct leak){
			.ino = st.st_ino, .uid = st.st_uid, .bytes = (uint64_t)st.st_blocks * 512};
		memcpy(l->v[l->n++].name, de->d_name, len + 1);
	}
}

/* Name and inode, not the device: on overlay and btrfs file systems maps show another one. */
static void leaks_mark_mapped(struct leaks *l, const char *line)
{
	const char *name = strstr(line, "/libxgboost");
	unsigned long ino;

	if (!name || sscanf(line, "%*s %*s %*s %*s %lu", &ino) != 1)
		return;
	name = strrchr(line, '/') + 1;
	for (size_t i = 0; i < l->n; i++)
		if (l->v[i].ino == ino && streq(l->v[i].name, name))
			l->v[i].used = true;
}

/* Where we may not look, the owner's files count as used if it is a JVM. */
static int leaks_ask_process(pid_t pid, void *arg)
{
	_cleanup_free_ char *text = NULL;
	struct leaks *l = arg;
	char path[64], comm[32], *rest, *line;
	struct stat st;
	int r;

	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st) < 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	r = file_read(path, 64u << 20, &text, NULL);
	process_comm(pid, comm);
	if ((r == -EACCES || r == -EPERM || r == -EFBIG) && strstr(comm, "java"))
		for (size_t i = 0; i < l->n; i++)
			l->v[i].used |= l->v[i].uid == st.st_uid;
	rest = text;
	while (rest && (line = strsep(&rest, "\n")))
		leaks_mark_mapped(l, line);
	return 0;
}

void machine_leaked_xgboost_in(const char *dir, unsigned *n, uint64_t *bytes)
{
	struct leaks l = {0};

	*n = 0;
	*bytes = 0;
	leaks_collect(dir, &l);
	if (l.n)
		process_each(leaks_ask_process, &l);
	for (size_t i = 0; i < l.n; i++) {
		*n += !l.v[i].used;
		*bytes += l.v[i].used ? 0 : l.v[i].bytes;
	}
	free(l.v);
}

void machine_leaked_xgboost(unsigned *n, uint64_t *bytes)
{
	machine_leaked_xgboost_in("/tmp", n, bytes);
}
