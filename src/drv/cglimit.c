#include "drv/cglimit.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/file.h"

/* Version 1 says "no limit" with the largest multiple of the page size below 2^63. */
#define V1_UNLIMITED (UINT64_C(1) << 62)

static bool read_text(const char *dir, const char *name, char **text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);

	return file_read(path, 65536, text, NULL) == 0;
}

/* "max" does not scan as a number. */
static bool read_bytes(const char *dir, const char *name, uint64_t *bytes)
{
	_cleanup_free_ char *text = NULL;

	return read_text(dir, name, &text) && sscanf(text, "%" SCNu64, bytes) == 1;
}

/* What the kernel takes away first, before it kills. */
static uint64_t read_reclaimable(const char *dir, const char *line)
{
	_cleanup_free_ char *text = NULL;
	const char *at = read_text(dir, "memory.stat", &text) ? strstr(text, line) : NULL;

	return at ? strtoull(at + strlen(line), NULL, 10) : 0;
}

static void limit_memory(const char *dir, const char *max, const char *current, const char *stat,
	struct cglimit *out)
{
	uint64_t bytes, used, can_go;

	if (!read_bytes(dir, max, &bytes) || bytes >= V1_UNLIMITED)
		return;
	out->memory = MIN(out->memory, bytes);
	if (!read_bytes(dir, current, &used))
		return;
	can_go = read_reclaimable(dir, stat);
	used -= MIN(used, can_go);
	used = MIN(used, bytes);
	out->memory_left = MIN(out->memory_left, bytes - used);
}

static void limit_cpus(struct cglimit *out, double quota, double period)
{
	if (quota > 0 && period > 0 && (out->cpus <= 0 || quota / period < out->cpus))
		out->cpus = quota / period;
}

static void read_v2(const char *dir, struct cglimit *out)
{
	_cleanup_free_ char *text = NULL;
	double quota, period;

	limit_memory(dir, "memory.max", "memory.current", "\ninactive_file ", out);
	if (read_text(dir, "cpu.max", &text) && sscanf(text, "%lf %lf", &quota, &period) == 2)
		limit_cpus(out, quota, period);
}

static void read_v1_memory(const char *dir, struct cglimit *out)
{
	limit_memory(dir, "memory.limit_in_bytes", "memory.usage_in_bytes",
		"\ntotal_inactive_file ", out);
}

static void read_v1_cpu(const char *dir, struct cglimit *out)
{
	_cleanup_free_ char *quota = NULL, *period = NULL;

	/* No limit: a quota of -1. */
	if (read_text(dir, "cpu.cfs_quota_us", &quota) &&
		read_text(dir, "cpu.cfs_period_us", &period))
		limit_cpus(out, atof(quota), atof(period));
}

/* In a container without a cgroup namespace of its own the path is the host's and is not there
 * below the mount; going up ends at the mount itself, which then is the container's group. */
static void walk_up(const char *root, const char *path,
	void (*read)(const char *, struct cglimit *), struct cglimit *out)
{
	_cleanup_free_ char *dir = NULL;
	size_t root_len = strlen(root);

	/* "/../.." leads out of the cgroup namespace: nothing to be seen there. */
	if (has_prefix(path, "/.."))
		path = "/";
	dir = xasprintf("%s%s", root, path);
	for (char *slash; (slash = strrchr(dir + root_len, '/')); *slash = '\0')
		if (slash[1])
			read(dir, out);
	read(root, out);
}

static bool lists(const char *controllers, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = controllers; *p; p += *p == ',') {
		size_t len = strcspn(p, ",");

		if (len == n && strncmp(p, name, n) == 0)
			return true;
		p += len;
	}
	return false;
}

static void read_line(char *line, const char *mount, struct cglimit *out)
{
	_cleanup_free_ char *root = NULL;
	char *controllers = strchr(line, ':');
	char *path = controllers ? strchr(controllers + 1, ':') : NULL;

	if (!path)
		return;
	*controllers++ = '\0';
	*path++ = '\0';
	if (streq(line, "0")) {
		walk_up(mount, path, read_v2, out);
		root = xasprintf("%s/unified", mount); /* both versions beside each other */
		walk_up(root, path, read_v2, out);
	} else if (lists(controllers, "memory")) {
		root = xasprintf("%s/memory", mount);
		walk_up(root, path, read_v1_memory, out);
	} else if (lists(controllers, "cpu")) {
		/* "cpu" is a link to it where cpu and cpuacct share a hierarchy. */
		root = xasprintf("%s/cpu", mount);
		walk_up(root, path, read_v1_cpu, out);
	}
}

void cglimit_read(const char *proc_cgroup, const char *mount, struct cglimit *out)
{
	_cleanup_free_ char *text = NULL;
	char *rest, *line;

	*out = (struct cglimit){.memory = UINT64_MAX, .memory_left = UINT64_MAX};
	if (file_read(proc_cgroup, 1u << 20, &text, NULL) < 0)
		return;
	rest = text;
	while ((line = strsep(&rest, "\n")))
		read_line(line, mount, out);
}
