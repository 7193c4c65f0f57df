#include "drv/logrecord.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file.h"

#define MAX_RECORD 4096

static char *record_path(const char *log)
{
	return xasprintf("%s.position", log);
}

bool logrecord_read(const char *log, struct logrecord *rec)
{
	_cleanup_free_ char *path = record_path(log), *text = NULL;

	*rec = (struct logrecord){0};
	if (file_read(path, MAX_RECORD, &text, NULL) < 0)
		return false;
	if (sscanf(text,
		    "base %" SCNu64 "\nstart %" SCNu64 "\ncollapse %" SCNu64 "\nsince_ms %" SCNu64,
		    &rec->base, &rec->start, &rec->collapse, &rec->since_ms) == 4 &&
		rec->base <= rec->start && rec->collapse <= rec->start - rec->base &&
		rec->start <= INT64_MAX) /* sscanf() takes -1 for the largest number */
		return true;
	*rec = (struct logrecord){0};
	return false;
}

int logrecord_write(const char *log, const struct logrecord *rec, struct err *e)
{
	_cleanup_free_ char *path = record_path(log);
	_cleanup_free_ char *text = xasprintf("base %" PRIu64 "\nstart %" PRIu64
					      "\ncollapse %" PRIu64 "\nsince_ms %" PRIu64 "\n",
		rec->base, rec->start, rec->collapse, rec->since_ms);
	int r = file_write_atomic(path, text, strlen(text), 0640, true, e);

	/* What follows is only right with it: here a directory that cannot be synced is a failure.
	 */
	if (r == 0 && (r = file_sync_parent(path)) < 0)
		err_set_errno(e, r, "cannot sync the directory of %s", path);
	return r;
}

int64_t logfile_first_data(int fd)
{
	off_t at = lseek(fd, 0, SEEK_DATA);
	struct stat st;

	if (at >= 0)
		return at;
	if (errno != ENXIO)
		return -errno;
	return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

/* Was the hole in front cut off? Before, the file begins with it; after, with what the JVM wrote,
 * which has no holes, or it is too short. */
static bool front_is_gone(int fd, uint64_t len)
{
	int64_t data = logfile_first_data(fd);
	ssize_t n;
	char c;

	if (data >= 0 && (uint64_t)data >= len)
		return false;
	n = pread(fd, &c, 1, 0); /* xfs shows moved data before it is done; a read waits for that */
	(void)n;
	return true;
}

static bool record_equal(const struct logrecord *a, const struct logrecord *b)
{
	return a->base == b->base && a->start == b->start && a->collapse == b->collapse;
}

bool loglive_holds(const char *log, int fd, const struct loglive *l)
{
	struct logrecord now;

	logrecord_read(log, &now);
	return record_equal(&now, &l->rec) &&
	       (!now.collapse || front_is_gone(fd, now.collapse) == (l->base != now.base));
}

int loglive_look(const char *log, int fd, struct loglive *out)
{
	struct stat st;

	do {
		logrecord_read(log, &out->rec);
		out->base = out->rec.base;
		if (out->rec.collapse && front_is_gone(fd, out->rec.collapse))
			out->base += out->rec.collapse;
		if (fstat(fd, &st) < 0)
			return -errno;
	} while (!loglive_holds(log, fd, out)); /* a rotation takes much longer than this */
	out->start = out->rec.start;
	out->end = out->base + (uint64_t)st.st_size;
	out->cut_by_hand = out->end < out->start;
	if (out->cut_by_hand) {
		out->base = out->start;
		out->end = out->start + (uint64_t)st.st_size;
	}
	return 0;
}
