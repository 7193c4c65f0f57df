/* What the control groups above a process allow it to use. */
#pragma once

#include "base/util.h"

struct cglimit {
	uint64_t memory;      /* bytes; UINT64_MAX: no limit */
	uint64_t memory_left; /* until one of them is reached; page cache that can go is no use */
	double cpus;          /* 0: no limit */
};

/* The lowest limits on any level above, of version 2 (memory.max, cpu.max) and version 1
 * (memory.limit_in_bytes, cpu.cfs_quota_us). `proc_cgroup` is a /proc/PID/cgroup, `mount` what is
 * normally /sys/fs/cgroup. What cannot be read limits nothing. */
void cglimit_read(const char *proc_cgroup, const char *mount, struct cglimit *out);
