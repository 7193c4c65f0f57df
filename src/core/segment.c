#include "core/segment.h"

#include <errno.h>
#include <sys/stat.h>

#define MAX_FILE   (64u << 20)
#define MARK_EVERY 8192u
#define BLOCK      65536u

#define HEAD     "{\"epoch\":\""
#define HEAD_SEQ "\",\"seq\":"

/* Whether `s` (`n` bytes, the newline among them) begins like a line of the journal. */
static bool parse_head(const char *s, size_t n, struct segment_line *l)
{
	const size_t head = strlen(HEAD), seq_at = head + JOURNAL_EPOCH_LEN + strlen(HEAD_SEQ);
	size_t digits = 0;

	if (n < seq_at + 3 || memcmp(s, HEAD, head) != 0 ||
		memcmp(s + head + JOURNAL_EPOCH_LEN, HEAD_SEQ, strlen(HEAD_SEQ)) != 0)
		return false;
	l->seq = 0;
	for (const char *p = s + seq_at; *p >= '0' && *p <= '9' && digits < 18; p++, digits++)
		l->seq = l->seq * 10 + (uint64_t)(*p - '0');
	l->text = s;
	l->len = n;
	l->epoch = s + head;
	for (size_t i = 0; i < JOURNAL_EPOCH_LEN; i++)
		if (!strchr("0123456789abcdef", l->epoch[i]))
			return false;
	return l->seq > 0 && (s[seq_at + digits] == ',' || s[seq_at + digits] == '}');
}

bool segment_next_line(char **at, struct segment_line *l)
{
	char *nl;

	while ((nl = strchr(*at, '\n'))) {
		const char *s = *at;

		*at = nl + 1;
		if (parse_head(s, (size_t)(*at - s), l))
			return true;
	}
	return false;
}

void segment_forget(struct segment *s)
{
	s->first = s->last = 0;
	s->n_marks = 0;
	s->epoch[0] = '\0';
}

void segment_close(struct segment *s)
{
	if (s->fd >= 0)
		close(s->fd);
	free(s->marks);
	*s = SEGMENT_NULL;
}

static void count_line(struct segment *s, const struct segment_line *l, uint64_t offset)
{
	if (memcmp(s->epoch, l->epoch, JOURNAL_EPOCH_LEN) != 0)
		segment_forget(s);
	else if (l->seq <= s->last)
		return; /* damaged: numbers only grow */
	memcpy(s->epoch, l->epoch, JOURNAL_EPOCH_LEN);
	s->first = s->first ? s->first : l->seq;
	s->last = l->seq;
	if (s->n_marks && offset - s->marks[s->n_marks - 1].offset < MARK_EVERY)
		return;
	if (s->n_marks % 64 == 0)
		s->marks = xreallocarray(s->marks, s->n_marks + 64, sizeof(*s->marks));
	s->marks[s->n_marks++] = (struct segment_mark){l->seq, offset};
}

/* Less than `n` only at the end of the file; a NUL behind, and none inside. */
static ssize_t read_at(int fd, char *buf, size_t n, uint64_t offset)
{
	size_t have = 0;

	while (have < n) {
		ssize_t r = pread(fd, buf + have, n - have, (off_t)(offset + have));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		have += (size_t)r;
	}
	for (char *p = buf; (p = memchr(p, '\0', (size_t)(buf + have - p)));)
		*p = ' ';
	buf[have] = '\0';
	return (ssize_t)have;
}

int segment_load(struct segment *s)
{
	_cleanup_free_ char *all = NULL;
	struct segment_line l;
	const char *end;
	struct stat st;
	ssize_t n;
	char *at;

	segment_forget(s);
	if (fstat(s->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size > (off_t)MAX_FILE)
		return -EBADMSG;
	all = at = xmalloc((size_t)st.st_size + 1);
	n = read_at(s->fd, all, (size_t)st.st_size, 0);
	if (n < 0)
		return (int)n;
	end = memrchr(all, '\n', (size_t)n);
	s->size = end ? (uint64_t)(end + 1 - all) : 0;
	while (segment_next_line(&at, &l))
		count_line(s, &l, (uint64_t)(l.text - all));
	if (s->size && !s->last)
		return -EBADMSG;
	if (s->size < (uint64_t)st.st_size && ftruncate(s->fd, (off_t)s->size) < 0)
		return -errno;
	return 0;
}

bool segment_changed(const struct segment *s)
{
	struct stat st;

	return fstat(s->fd, &st) < 0 || (uint64_t)st.st_size != s->size;
}

int segment_append(struct segment *s, const char *line, size_t len)
{
	ssize_t n = write(s->fd, line, len);
	int r = n < 0 ? -errno : -ENOSPC;
	struct segment_line l;

	if (n == (ssize_t)len) {
		if (parse_head(line, len, &l))
			count_line(s, &l, s->size);
		s->size += len;
		return 0;
	}
	if (n > 0 && ftruncate(s->fd, (off_t)s->size) < 0)
		return -errno; /* seen as a change next time, and cut then */
	return r;
}

char *segment_block(const struct segment *s, uint64_t seq)
{
	size_t lo = 0, hi = s->n_marks;
	char *block;

	while (hi - lo > 1) {
		size_t mid = lo + (hi - lo) / 2;

		if (s->marks[mid].seq <= seq)
			lo = mid;
		else
			hi = mid;
	}
	if (!s->n_marks)
		return NULL;
	block = xmalloc(BLOCK + 1);
	if (read_at(s->fd, block, BLOCK, s->marks[lo].offset) < 0) {
		free(block);
		return NULL;
	}
	return block;
}

uint64_t segment_after(const struct segment *list, size_t n, uint64_t seq, uint64_t otherwise)
{
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < list[i].n_marks; k++)
			if (list[i].marks[k].seq > seq)
				return MIN(list[i].marks[k].seq, otherwise);
	return otherwise;
}
