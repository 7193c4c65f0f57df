#include "drv/logrotate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/strv.h"
#include "drv/logprune.h"
#include "drv/logrecord.h"

#define STEP LOGROTATE_STEP

/* Then the file is cut off and the bound on all logs seen to, however fast the JVM writes. */
#define PARTS_AT_ONCE 8

/* One log while it is worked on. */
struct rotation {
	const struct logrotate *rq;
	const char *log;
	int fd;
	bool may_collapse;
	struct loglive live;
};

static int look(struct rotation *t, struct err *e)
{
	int r = loglive_look(t->log, t->fd, &t->live);

	return r < 0 ? err_set_errno(e, r, "cannot look at %s", t->log) : 0;
}

/* Writes the record and looks again. */
static int record(struct rotation *t, uint64_t base, uint64_t start, uint64_t collapse,
	uint64_t since_ms, struct err *e)
{
	struct logrecord rec = {base, start, collapse, since_ms};
	int r = logrecord_write(t->log, &rec, e);

	return r < 0 ? r : look(t, e);
}

/* ---- what an earlier rotation has left undone ---- */

static int punch(const struct rotation *t, struct err *e)
{
	uint64_t len = t->live.start - t->live.base;

	if (len && fallocate(t->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)len) < 0)
		return err_set_errno(e, -errno, "cannot take the old part out of %s", t->log);
	return 0;
}

/* Steps 6 and 7. What does not want to be cut off stays punched. */
static int collapse(struct rotation *t, struct err *e)
{
	const struct logrecord rec = t->live.rec;
	int r;

	if (t->live.base == rec.base)
		t->may_collapse &=
			fallocate(t->fd, FALLOC_FL_COLLAPSE_RANGE, 0, (off_t)rec.collapse) == 0;
	r = look(t, e); /* the file says what came of it */
	return r < 0 ? r : record(t, t->live.base, rec.start, 0, rec.since_ms, e);
}

/* There is none before the first rotation, and one from then on, so with parts it was removed by
 * hand: they and the hole in front tell the same. */
static int restore_record(struct rotation *t, struct err *e)
{
	_cleanup_free_ struct logpart *parts = NULL;
	ssize_t n = logparts_list(t->log, &parts);
	int64_t hole = logfile_first_data(t->fd);
	uint64_t end;

	if (n < 0)
		return err_set_errno(e, (int)n, "cannot list the parts of %s", t->log);
	if (n == 0)
		return record(t, 0, 0, 0, 0, e);
	end = parts[n - 1].end;
	if (hole < 0 || (uint64_t)hole > end)
		hole = 0;
	return record(t, end - (uint64_t)hole, end, 0, clock_wall_ms(), e);
}

/* The end of the part that begins where the live file does, if there is one: step 2 was the last.
 */
static uint64_t end_of_new_part(const struct rotation *t)
{
	_cleanup_free_ struct logpart *parts = NULL;
	ssize_t n = logparts_list(t->log, &parts);

	for (ssize_t i = 0; i < n; i++)
		if (parts[i].first == t->live.start && parts[i].end <= t->live.end)
			return parts[i].end;
	return 0;
}

static int recover(struct rotation *t, struct err *e)
{
	struct logrecord rec;
	uint64_t end;
	int r = look(t, e);

	if (r == 0 && !logrecord_read(t->log, &rec))
		r = restore_record(t, e);
	if (r == 0 && t->live.cut_by_hand)
		r = record(t, t->live.start, t->live.start, 0, clock_wall_ms(), e);
	if (r == 0 && t->live.rec.collapse)
		r = collapse(t, e);
	if (r < 0)
		return r;
	end = end_of_new_part(t);
	if (end)
		r = record(t, t->live.base, end, 0, clock_wall_ms(), e);
	return r < 0 ? r : punch(t, e);
}

/* ---- a rotation ---- */

static bool is_due(const struct loglive *l, int fd, uint64_t max_size, uint64_t max_age_ms)
{
	uint64_t since = l->rec.since_ms;
	struct statx sx;

	if (l->end - l->start < 2 * STEP)
		return false; /* no part could be made of it */
	if (l->end - l->start >= max_size)
		return true;
	if (!max_age_ms)
		return false;
	if (!since && statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &sx) == 0 &&
		(sx.stx_mask & STATX_BTIME))
		since = (uint64_t)sx.stx_btime.tv_sec * 1000;
	return since && clock_wall_ms() >= since + max_age_ms;
}

/* Where the next part ends: a multiple of STEP in the file. */
static uint64_t next_cut(const struct rotation *t)
{
	uint64_t offset = t->live.start - t->live.base, size = t->live.end - t->live.base;
	uint64_t len = MIN(t->rq->max_size, size - STEP - offset);

	return t->live.base + (offset + len) / STEP * STEP;
}

/* What these say was refused, not begun. */
static bool is_refusal(int r)
{
	return r == -EPERM || r == -EOPNOTSUPP || r == -ENOSYS || r == -EINVAL || r == -ETXTBSY;
}

/* Steps 1 to 4. */
static int rotate_once(struct rotation *t, struct err *e)
{
	const struct loglive was = t->live;
	struct logpart p = {was.start, next_cut(t), t->rq->codec};
	int r, punched = 0;

	if (p.end <= p.first)
		return 0;
	r = logpart_write(t->log, &p, t->fd, (off_t)(p.first - was.base), e);
	if (r < 0)
		return r;
	fdatasync(t->fd); /* not while the kernel keeps the JVM from writing */
	r = record(t, was.base, p.end, 0, clock_wall_ms(), e);
	if (r == 0)
		r = punched = punch(t, e);
	if (r < 0 && (punched == 0 || is_refusal(punched)) &&
		logrecord_write(t->log, &was.rec, NULL) == 0) {
		/* As it was: the file has it all. (Else the part stays; see steps 2 and 3.) */
		_cleanup_free_ char *path = logpart_path(t->log, &p);

		unlink(path);
	}
	return r;
}

/* Steps 5 to 7. */
static int cut_off(struct rotation *t, struct err *e)
{
	const struct loglive *l = &t->live;
	uint64_t len = l->start - l->base;
	int r;

	if (!t->may_collapse || len == 0 || logfile_first_data(t->fd) < (int64_t)len)
		return 0;
	fdatasync(t->fd);
	r = record(t, l->base, l->start, len, l->rec.since_ms, e);
	return r < 0 ? r : collapse(t, e);
}

/* 1: there is more to be done. */
static int rotate_log(struct rotation *t, struct err *e)
{
	int r = recover(t, e);

	if (r == 0 && is_due(&t->live, t->fd, t->rq->max_size, t->rq->max_age_ms))
		r = rotate_once(t, e);
	for (unsigned i = 1; r == 0 && i < PARTS_AT_ONCE; i++)
		if (is_due(&t->live, t->fd, t->rq->max_size, 0))
			r = rotate_once(t, e);
	if (r == 0)
		r = cut_off(t, e);
	return r < 0 ? r : is_due(&t->live, t->fd, t->rq->max_size, 0);
}

bool logrotate_due(const char *log, uint64_t max_size, uint64_t max_age_ms)
{
	_cleanup_close_ int fd =
		open(log, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	struct loglive l;

	if (fd < 0 || loglive_look(log, fd, &l) < 0)
		return false;
	return l.rec.collapse || l.cut_by_hand || is_due(&l, fd, max_size, max_age_ms);
}

/* ---- a folder ---- */

static int take_lock(const char *dir, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/" LOGROTATE_LOCK, dir);
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot open %s", path);
	fchmod(fd, 0600); /* who can read it can lock it, and the logs would grow and grow */
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return TAKE_FD(fd);
	if (errno == EWOULDBLOCK)
		return err_set(e, -EBUSY, "another rotation is at work in %s", dir);
	return err_set_errno(e, -errno, "cannot lock %s", path);
}

/* Asked of the empty lock file, for which both would mean nothing. */
static bool can(int fd, int mode)
{
	return fallocate(fd, mode, 0, STEP) == 0 || (errno != EOPNOTSUPP && errno != ENOSYS);
}

static int rotate_named(
	const struct logrotate *rq, const char *name, bool may_collapse, struct err *e)
{
	_cleanup_free_ char *log = xasprintf("%s/%s", rq->dir, name);
	_cleanup_close_ int fd = open(log, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	struct rotation t = {.rq = rq, .log = log, .fd = fd, .may_collapse = may_collapse};
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot open %s", log);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s is not a file", log);
	return rotate_log(&t, e);
}

/* 1: there is more to be done. */
static int rotate_all(const struct logrotate *rq, bool may_collapse, struct err *e)
{
	_cleanup_(strv_free) struct strv logs = STRV_NULL;
	int result = logprune_find(rq->dir, &logs, e);

	for (size_t i = 0; i < logs.n; i++) {
		int r = rotate_named(rq, logs.v[i], may_collapse, result < 0 ? NULL : e);

		if (result >= 0 && r != 0) /* the first failure */
			result = r;
	}
	return result;
}

int logrotate_run(const struct logrotate *rq, struct err *e)
{
	_cleanup_close_ int lock = take_lock(rq->dir, e);
	int r, pruned = 0;

	if (lock < 0)
		return lock;
	if (!can(lock, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return err_set(e, -EOPNOTSUPP,
			"the file system of %s can take nothing out of a file (fallocate), so logs "
			"there are not rotated; set log_dir to another one",
			rq->dir);
	/* Before too: it may make the room that the parts need. */
	r = logprune(rq->dir, rq->max_size, rq->max_total, e);
	for (bool more = r == 0; more; more = r > 0 && pruned == 0) {
		r = rotate_all(rq, can(lock, FALLOC_FL_COLLAPSE_RANGE), e);
		pruned = logprune(rq->dir, rq->max_size, rq->max_total, r < 0 ? NULL : e);
	}
	return r < 0 ? r : pruned;
}
