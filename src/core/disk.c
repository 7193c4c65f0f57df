/* Full file systems, also of what only the JVMs write to (ice_root, their logs): said before
 * somebody has to find out why a cloud behaves strangely. */
#include <stdio.h>
#include <sys/statvfs.h>

#include "base/text.h"
#include "core/internal.h"

#define FULL_BYTES  (8ull << 20) /* or 2 % of a small one */
#define FULL_INODES 16

/* Owned by the caller; NULL: there is room, or it cannot be told. */
static char *full_sentence(const char *what, const char *path)
{
	_cleanup_free_ char *left = NULL;
	struct statvfs v;
	uint64_t there, size;

	if (!path || statvfs(path, &v) < 0)
		return NULL;
	there = (uint64_t)v.f_bavail * v.f_frsize;
	size = (uint64_t)v.f_blocks * v.f_frsize;
	left = text_human_size(there);
	if (size && there < MIN(FULL_BYTES, size / 50))
		return xasprintf(
			"the file system of %s (%s) is full: %s left; make room", path, what, left);
	if (v.f_files && v.f_favail < FULL_INODES)
		return xasprintf("the file system of %s (%s) has no inodes left; remove some files",
			path, what);
	return NULL;
}

static void tell(struct fleet *f, const char *cloud, char *sentence)
{
	if (sentence)
		trouble_set(f, TROUBLE_DISK, cloud, sentence);
	else
		trouble_clear(f, TROUBLE_DISK, cloud);
	free(sentence);
}

void disk_check(struct fleet *f)
{
	const struct fleet_conf *c = &f->conf->fleet;
	char *sentence = full_sentence("state_dir", c->state_dir);

	if (!sentence)
		sentence = full_sentence("log_dir", c->log_dir);
	tell(f, NULL, sentence);
	for (size_t i = 0; i < f->n; i++) {
		const struct cloud_conf *conf = f->clouds[i]->cloud->conf;

		tell(f, conf->name, full_sentence("ice_root", conf->ice_root));
	}
}
