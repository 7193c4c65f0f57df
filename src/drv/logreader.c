#include "drv/logfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/text.h"

struct logreader {
	char *path; /* owned */
	int fd;     /* the live file; -1: not there yet */
};

int logreader_open(const char *path, struct logreader **out, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
	struct logreader *r;

	*out = NULL;
	if (fd < 0 && errno != ENOENT)
		return err_set_errno(e, -errno, "cannot open the log %s", path);
	r = xcalloc(1, sizeof(*r));
	r->path = xstrdup(path);
	r->fd = fd;
	*out = r;
	return 0;
}

void logreader_range(struct logreader *r, uint64_t *first, uint64_t *end)
{
	struct stat st;

	*first = 0;
	*end = r->fd >= 0 && fstat(r->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

ssize_t logreader_read(struct logreader *r, uint64_t pos, void *buf, size_t n, uint64_t *at)
{
	uint64_t first, end;
	ssize_t got;

	if (r->fd < 0)
		r->fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
	logreader_range(r, &first, &end);
	*at = MAX(first, MIN(pos, end));
	if (*at == end)
		return 0;
	got = pread(r->fd, buf, MIN(n, (size_t)(end - *at)), (off_t)*at);
	return got < 0 ? -errno : got;
}

void logreader_close(struct logreader *r)
{
	if (!r)
		return;
	closep(&r->fd);
	free(r->path);
	free(r);
}

static void logreader_closep(struct logreader **r)
{
	logreader_close(*r);
}

uint64_t logfile_end(const char *path)
{
	_cleanup_(logreader_closep) struct logreader *r = NULL;
	uint64_t first, end = 0;

	if (logreader_open(path, &r, NULL) == 0)
		logreader_range(r, &first, &end);
	return end;
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

int logfile_tail(const char *path, uint64_t from, size_t lines, size_t max_bytes, char **out)
{
	_cleanup_(logreader_closep) struct logreader *r = NULL;
	_cleanup_free_ char *buf = NULL;
	uint64_t first, end, at;
	size_t start;
	ssize_t n;
	int err = logreader_open(path, &r, NULL);

	*out = NULL;
	if (err < 0)
		return err;
	logreader_range(r, &first, &end);
	first = MAX(first, MIN(from, end));
	if (end - first > max_bytes)
		first = end - max_bytes;
	buf = xmalloc((size_t)(end - first) + 1);
	n = read_all(r, first, buf, (size_t)(end - first), &at);
	if (n < 0)
		return (int)n;
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] == '\0')
			buf[i] = ' ';
	buf[n] = '\0';
	start = text_last_lines(buf, (size_t)n, lines, at > from);
	*out = xstrdup(buf + start);
	return 0;
}
