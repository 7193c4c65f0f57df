#include "drv/logpart.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/file.h"
#include "drv/logcodec.h"

#define DIGITS 16

static const char *const suffixes[] = {
	[LOGCODEC_ZSTD] = ".zst",
	[LOGCODEC_GZIP] = ".gz",
	[LOGCODEC_NONE] = "",
};

static bool parse_position(const char **s, char after, uint64_t *v)
{
	char *end;

	if (strspn(*s, "0123456789") < DIGITS)
		return false;
	errno = 0;
	*v = strtoull(*s, &end, 10);
	if (errno || *end != after)
		return false;
	*s = end + (after != '\0');
	return true;
}

/* `s`: what follows "LOG.". */
static bool parse_name(const char *s, struct logpart *p)
{
	_cleanup_free_ char *numbers = NULL;
	const char *suffix, *at;

	suffix = s + strspn(s, "0123456789-");
	numbers = xstrndup(s, (size_t)(suffix - s));
	at = numbers;
	if (!parse_position(&at, '-', &p->first) || !parse_position(&at, '\0', &p->end) ||
		p->first >= p->end)
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
		if (streq(suffix, suffixes[i])) {
			p->codec = (enum logcodec)i;
			return true;
		}
	return false;
}

bool logpart_is_name(const char *name)
{
	const char *log = strstr(name, ".log.");
	struct logpart p;

	return log && parse_name(log + strlen(".log."), &p);
}

char *logpart_path(const char *log, const struct logpart *p)
{
	return xasprintf("%s.%0*" PRIu64 "-%0*" PRIu64 "%s", log, DIGITS, p->first, DIGITS, p->end,
		suffixes[p->codec]);
}

static int by_position(const void *a, const void *b)
{
	const struct logpart *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

ssize_t logparts_list(const char *log, struct logpart **out)
{
	const char *slash = strrchr(log, '/'), *name = slash ? slash + 1 : log;
	_cleanup_free_ char *dir = slash ? xstrndup(log, (size_t)(slash - log) + 1) : xstrdup(".");
	size_t len = strlen(name), n = 0;
	struct logpart p, *v = NULL;
	DIR *d = opendir(dir);
	struct dirent *de;

	*out = NULL;
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((de = readdir(d))) {
		if (!has_prefix(de->d_name, name) || de->d_name[len] != '.' ||
			!parse_name(de->d_name + len + 1, &p))
			continue;
		if ((n & (n - 1)) == 0)
			v = xreallocarray(v, n ? 2 * n : 1, sizeof(*v));
		v[n++] = p;
	}
	closedir(d);
	if (n)
		qsort(v, n, sizeof(*v), by_position);
	*out = v;
	return (ssize_t)n;
}

/* ---- writing ---- */

struct writer {
	int from, to;
	off_t off;
	struct piece *pieces; /* owned */
	size_t n;
	struct strbuf packed;
	uint64_t written;
};

static int write_packed(struct writer *w)
{
	size_t done = 0;

	while (done < w->packed.len) {
		ssize_t n = write(w->to, w->packed.s + done, w->packed.len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	w->written += done;
	strbuf_reset(&w->packed);
	return 0;
}

static int read_piece(const struct writer *w, char *buf, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = pread(w->from, buf + done, size - done, w->off + (off_t)done);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0) /* truncated by hand */
			return -ENODATA;
		done += (size_t)MAX(n, (ssize_t)0);
	}
	return 0;
}

static int write_pieces(struct writer *w, const struct logpart *p)
{
	_cleanup_free_ char *buf = xmalloc(PIECE_MAX);
	uint64_t left = p->end - p->first;
	int r = 0;

	w->pieces = xcalloc(left / PIECE_MAX + 1, sizeof(*w->pieces));
	while (r == 0 && left) {
		size_t size = (size_t)MIN(left, (uint64_t)PIECE_MAX);
		uint64_t before = w->written;

		r = read_piece(w, buf, size);
		if (r == 0)
			r = codec_pack(p->codec, buf, size, &w->packed);
		if (r == 0)
			r = write_packed(w);
		w->pieces[w->n++] =
			(struct piece){.packed = w->written - before, .size = (uint32_t)size};
		w->off += (off_t)size;
		left -= size;
	}
	if (r == 0) {
		codec_finish(p->codec, w->pieces, w->n, &w->packed);
		r = write_packed(w);
	}
	return r == 0 && fsync(w->to) < 0 ? -errno : r;
}

int logpart_write(const char *log, const struct logpart *p, int fd, off_t off, struct err *e)
{
	_cleanup_free_ char *tmp = xasprintf("%s.new", log), *path = logpart_path(log, p);
	_cleanup_close_ int to = file_open_new(tmp, 0640);
	struct writer w = {.from = fd, .to = to, .off = off, .packed = STRBUF_NULL};
	int r;

	if (to < 0)
		return err_set_errno(e, to, "cannot write %s", tmp);
	r = write_pieces(&w, p);
	free(w.pieces);
	strbuf_free(&w.packed);
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r == 0)
		r = file_sync_parent(path);
	if (r < 0) {
		unlink(tmp);
		return err_set_errno(e, r, "cannot write %s", path);
	}
	return 0;
}

/* ---- reading ---- */

struct partreader {
	struct logpart part;
	int fd;
	struct piece *pieces; /* owned */
	size_t n;
	size_t unpacked; /* the piece in `text`; n: none */
	char *text;      /* owned */
};

int partreader_open(const char *log, const struct logpart *p, struct partreader **out)
{
	_cleanup_free_ char *path = logpart_path(log, p);
	struct partreader *r;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK), err;

	*out = NULL;
	if (fd < 0)
		return -errno;
	r = xcalloc(1, sizeof(*r));
	r->part = *p;
	r->fd = fd;
	err = codec_index(p->codec, fd, p->end - p->first, &r->pieces, &r->n);
	r->unpacked = r->n;
	if (err < 0)
		partreader_close(r);
	else
		*out = r;
	return err;
}

bool partreader_has(const struct partreader *r, uint64_t pos)
{
	return pos >= r->part.first && pos < r->part.end;
}

static size_t find_piece(const struct partreader *r, uint64_t offset)
{
	size_t low = 0, high = r->n;

	while (high - low > 1) {
		size_t mid = (low + high) / 2;

		if (r->pieces[mid].offset <= offset)
			low = mid;
		else
			high = mid;
	}
	return low;
}

ssize_t partreader_read(struct partreader *r, uint64_t pos, void *buf, size_t n)
{
	uint64_t offset = pos - r->part.first;
	size_t i = find_piece(r, offset);
	const struct piece *p = &r->pieces[i];
	size_t skip = (size_t)(offset - p->offset);

	if (r->unpacked != i) {
		int err;

		if (!r->text)
			r->text = xmalloc(PIECE_MAX);
		r->unpacked = r->n;
		err = codec_unpack(r->part.codec, r->fd, p, r->text);
		if (err < 0)
			return err;
		r->unpacked = i;
	}
	n = MIN(n, p->size - skip);
	memcpy(buf, r->text + skip, n);
	return (ssize_t)n;
}

void partreader_close(struct partreader *r)
{
	if (!r)
		return;
	close(r->fd);
	free(r->pieces);
	free(r->text);
	free(r);
}
