#include "drv/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/text.h"
#include "drv/logpart.h"
#include "drv/logrecord.h"

/* A rotation takes much longer than what it may spoil, so this is never reached. */
#define RETRIES 1000

/* logfile_tail() begins with so much; most ends of logs are in the live file. */
#define TAIL_WINDOW (64u << 10)

struct logreader {
	char *path; /* owned */
	int fd;     /* the live file; -1: not there */
	dev_t dev;
	ino_t ino;
	struct partreader *part; /* the one last read from, or NULL */
};

/* ---- the live file ---- */

/* Opens it when it is there now, or is another. */
static int refresh(struct logreader *r)
{
	struct stat st;
	int fd;

	if (r->fd >= 0 && (lstat(r->path, &st) < 0 || (st.st_ino == r->ino && st.st_dev == r->dev)))
		return 0;
	fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) { /* a pipe would be waited for */
		close(fd);
		return -EIO;
	}
	closep(&r->fd);
	r->fd = fd;
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	return 0;
}

int logreader_open(const char *path, struct logreader **out, struct err *e)
{
	struct logreader *r = xcalloc(1, sizeof(*r));
	int err;

	*out = NULL;
	r->path = xstrdup(path);
	r->fd = -1;
	err = refresh(r);
	if (err < 0) {
		logreader_close(r);
		err_set_errno(e, err, "cannot open the log %s", path);
		return err;
	}
	*out = r;
	return 0;
}

static int look(struct logreader *r, struct loglive *l)
{
	int err = refresh(r);

	if (err < 0)
		return err;
	if (r->fd >= 0)
		return loglive_look(r->path, r->fd, l);
	*l = (struct loglive){0}; /* nothing, or not yet: where the next byte will be */
	logrecord_read(r->path, &l->rec);
	l->base = l->start = l->end = l->rec.start;
	return 0;
}

void logreader_range(struct logreader *r, uint64_t *first, uint64_t *end)
{
	_cleanup_free_ struct logpart *parts = NULL;
	struct loglive l;

	*first = *end = 0;
	if (look(r, &l) < 0)
		return;
	*first = l.start;
	*end = l.end;
	if (l.start > 0 && logparts_list(r->path, &parts) > 0)
		*first = MIN(l.start, parts[0].first);
}

/* ---- reading ---- */

/* -EAGAIN: a rotation came between. */
static ssize_t read_live(struct logreader *r, const struct loglive *l, uint64_t pos, void *buf,
	size_t n, uint64_t *at)
{
	ssize_t got;

	*at = MIN(pos, l->end);
	if (*at == l->end)
		return 0;
	got = pread(r->fd, buf, MIN(n, (size_t)(l->end - *at)), (off_t)(*at - l->base));
	if (got < 0 && errno != EINTR)
		return -errno;
	return got > 0 && loglive_holds(r->path, r->fd, l) ? got : -EAGAIN;
}

/* The part with `pos`, or the next one when that is gone. -ENOENT: there is none up to the live
 * file; -EAGAIN: it was removed just now. */
static int open_part(struct logreader *r, uint64_t *pos)
{
	_cleanup_free_ struct logpart *parts = NULL;
	ssize_t n = logparts_list(r->path, &parts), i = 0;
	int err;

	if (n < 0)
		return (int)n;
	while (i < n && parts[i].end <= *pos)
		i++;
	if (i == n)
		return -ENOENT;
	partreader_close(TAKE_PTR(r->part));
	err = partreader_open(r->path, &parts[i], &r->part);
	if (err < 0)
		return err == -ENOENT ? -EAGAIN : err;
	*pos = MAX(*pos, parts[i].first);
	return 0;
}

static ssize_t try_read(struct logreader *r, uint64_t pos, void *buf, size_t n, uint64_t *at)
{
	struct loglive l;
	int err;

	if (!r->part || !partreader_has(r->part, pos)) {
		err = look(r, &l);
		if (err < 0)
			return err;
		if (pos >= l.start)
			return read_live(r, &l, pos, buf, n, at);
		err = open_part(r, &pos);
		if (err == -ENOENT || (err == 0 && pos >= l.start)) /* nothing older is left */
			return read_live(r, &l, l.start, buf, n, at);
		if (err < 0)
			return err;
	}
	*at = pos;
	return partreader_read(r->part, pos, buf, n);
}

ssize_t logreader_read(struct logreader *r, uint64_t pos, void *buf, size_t n, uint64_t *at)
{
	ssize_t got = -EAGAIN;

	*at = pos;
	if (n == 0)
		return 0;
	for (unsigned i = 0; got == -EAGAIN && i < RETRIES; i++)
		got = try_read(r, pos, buf, n, at);
	return got;
}

void logreader_close(struct logreader *r)
{
	if (!r)
		return;
	closep(&r->fd);
	partreader_close(r->part);
	free(r->path);
	free(r);
}

static void logreader_closep(struct logreader **r)
{
	logreader_close(*r);
}

/* ---- what most want ---- */

uint64_t logfile_end(const char *path)
{
	_cleanup_(logreader_closep) struct logreader *r = NULL;
	struct loglive l;

	return logreader_open(path, &r, NULL) == 0 && look(r, &l) == 0 ? l.end : 0;
}

/* Fills `buf` from `pos` on; returns how much there was. *at: as of logreader_read(). */
static ssize_t read_all(struct logreader *r, uint64_t pos, char *buf, size_t n, uint64_t *at)
{
	size_t done = 0;

	*at = pos;
	while (done < n) {
		uint64_t here;
		ssize_t got = logreader_read(r, pos + done, buf + done, n - done, &here);

		if (got < 0)
			return got;
		if (got == 0)
			break;
		if (done == 0)
			*at = pos = here;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

/* Reads from `pos` to `end` into *out, owned by the caller. Returns how much, or -errno. */
static ssize_t read_range(struct logreader *r, uint64_t pos, uint64_t end, char **out, uint64_t *at)
{
	_cleanup_free_ char *buf = xmalloc((size_t)(end - pos) + 1);
	ssize_t n = read_all(r, pos, buf, (size_t)(end - pos), at);

	if (n < 0)
		return n;
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] == '\0')
			buf[i] = ' ';
	buf[n] = '\0';
	*out = TAKE_PTR(buf);
	return n;
}

int logfile_tail(const char *path, uint64_t from, size_t lines, size_t max_bytes, char **out)
{
	_cleanup_(logreader_closep) struct logreader *r = NULL;
	uint64_t first, end, at;
	int err = logreader_open(path, &r, NULL);

	*out = NULL;
	if (err < 0)
		return err;
	logreader_range(r, &first, &end);
	first = MAX(first, MIN(from, end));
	if (end - first > max_bytes)
		first = end - max_bytes;
	for (size_t window = TAIL_WINDOW;; window *= 4) {
		_cleanup_free_ char *buf = NULL;
		uint64_t begin = end - first > window ? end - window : first;
		ssize_t n = read_range(r, begin, end, &buf, &at);
		size_t start;

		if (n < 0)
			return (int)n;
		start = text_last_lines(buf, (size_t)n, lines, false);
		if (start == 0 && begin > first)
			continue; /* there may be more before */
		if (start == 0)
			start = text_last_lines(buf, (size_t)n, lines, at > from);
		*out = xstrdup(buf + start);
		return 0;
	}
}
