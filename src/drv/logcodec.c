#include "drv/logcodec.h"

#include <endian.h>
#include <errno.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#define ZSTD_LEVEL 3
#define GZIP_LEVEL 6

/* zstd's seekable format (contrib/seekable_format in its source): a frame to be skipped, with the
 * sizes of all others and a foot. */
#define TABLE_MAGIC    0x184D2A5Eu
#define SEEKABLE_MAGIC 0x8F92EAB1u
#define TABLE_HEAD     8
#define TABLE_ENTRY    8
#define TABLE_FOOT     9

/* A gzip member of ours: the plain header with an extra field "HF" of 8 bytes: its own length, and
 * that of its text. */
#define GZIP_HEAD   24
#define GZIP_EXTRA  16 /* where the two numbers are */
#define GZIP_TAIL   8
#define FLAG_EXTRA  4
#define OS_UNIX     3
#define RAW_DEFLATE (-15)

static void put32(struct strbuf *b, uint32_t v)
{
	uint32_t le = htole32(v);

	strbuf_add(b, &le, sizeof(le));
}

static uint32_t get32(const unsigned char *p)
{
	uint32_t le;

	memcpy(&le, p, sizeof(le));
	return le32toh(le);
}

static int read_exactly(int fd, void *buf, size_t n, uint64_t at)
{
	ssize_t got = pread(fd, buf, n, (off_t)at);

	if (got < 0)
		return -errno;
	return (size_t)got == n ? 0 : -EBADMSG;
}

/* ---- packing ---- */

static int pack_zstd(const void *data, size_t n, struct strbuf *out)
{
	size_t room = ZSTD_compressBound(n), got;
	_cleanup_free_ char *buf = xmalloc(room);
	ZSTD_CCtx *c = ZSTD_createCCtx();

	if (!c)
		return -ENOMEM;
	ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, ZSTD_LEVEL);
	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
	got = ZSTD_compress2(c, buf, room, data, n);
	ZSTD_freeCCtx(c);
	if (ZSTD_isError(got))
		return -EIO;
	strbuf_add(out, buf, got);
	return 0;
}

static int deflate_all(const void *data, size_t n, void *buf, size_t room, size_t *got)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)data,
		.avail_in = (uInt)n,
		.next_out = buf,
		.avail_out = (uInt)room};
	int r;

	if (deflateInit2(&z, GZIP_LEVEL, Z_DEFLATED, RAW_DEFLATE, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return -ENOMEM;
	r = deflate(&z, Z_FINISH);
	*got = z.total_out;
	deflateEnd(&z);
	return r == Z_STREAM_END ? 0 : -EIO;
}

static int pack_gzip(const void *data, size_t n, struct strbuf *out)
{
	static const unsigned char head[GZIP_EXTRA] = {0x1f, 0x8b, Z_DEFLATED,
		FLAG_EXTRA, [9] = OS_UNIX, [10] = 12, [12] = 'H', 'F', [14] = 8};
	size_t room = compressBound((uLong)n), got;
	_cleanup_free_ char *buf = xmalloc(room);
	int r = deflate_all(data, n, buf, room, &got);

	if (r < 0)
		return r;
	strbuf_add(out, head, sizeof(head));
	put32(out, (uint32_t)(GZIP_HEAD + got + GZIP_TAIL));
	put32(out, (uint32_t)n);
	strbuf_add(out, buf, got);
	put32(out, (uint32_t)crc32(0, data, (uInt)n));
	put32(out, (uint32_t)n);
	return 0;
}

int codec_pack(enum logcodec codec, const void *data, size_t n, struct strbuf *out)
{
	if (codec == LOGCODEC_ZSTD)
		return pack_zstd(data, n, out);
	if (codec == LOGCODEC_GZIP)
		return pack_gzip(data, n, out);
	strbuf_add(out, data, n);
	return 0;
}

void codec_finish(
	enum logcodec codec, const struct piece *pieces, size_t n_pieces, struct strbuf *out)
{
	if (codec != LOGCODEC_ZSTD)
		return;
	put32(out, TABLE_MAGIC);
	put32(out, (uint32_t)(n_pieces * TABLE_ENTRY + TABLE_FOOT));
	for (size_t i = 0; i < n_pieces; i++) {
		put32(out, (uint32_t)pieces[i].packed);
		put32(out, pieces[i].size);
	}
	put32(out, (uint32_t)n_pieces);
	strbuf_add(out, "", 1); /* no checksums here; each frame has its own */
	put32(out, SEEKABLE_MAGIC);
}

/* ---- finding the pieces ---- */

struct index {
	struct piece *v; /* owned */
	size_t n;
	uint64_t at, offset; /* behind the last one */
};

static int index_add(struct index *x, uint64_t packed, uint32_t size)
{
	if (size == 0 || size > PIECE_MAX || packed == 0 || packed > 2 * PIECE_MAX)
		return -EBADMSG;
	if ((x->n & (x->n - 1)) == 0)
		x->v = xreallocarray(x->v, x->n ? 2 * x->n : 1, sizeof(*x->v));
	x->v[x->n++] = (struct piece){x->at, packed, x->offset, size};
	x->at += packed;
	x->offset += size;
	return 0;
}

static int index_zstd(int fd, uint64_t file_size, struct index *x)
{
	unsigned char foot[TABLE_FOOT];
	_cleanup_free_ unsigned char *table = NULL;
	uint64_t table_size, n;
	int r;

	if (file_size < TABLE_FOOT)
		return -EBADMSG;
	r = read_exactly(fd, foot, sizeof(foot), file_size - TABLE_FOOT);
	if (r < 0)
		return r;
	n = get32(foot);
	table_size = n * TABLE_ENTRY + TABLE_FOOT + TABLE_HEAD;
	if (get32(foot + 5) != SEEKABLE_MAGIC || foot[4] != 0 || table_size > file_size)
		return -EBADMSG;
	table = xmalloc(n * TABLE_ENTRY + 1);
	r = read_exactly(fd, table, n * TABLE_ENTRY, file_size - TABLE_FOOT - n * TABLE_ENTRY);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = index_add(
			x, get32(table + i * TABLE_ENTRY), get32(table + i * TABLE_ENTRY + 4));
	return r == 0 && x->at + table_size != file_size ? -EBADMSG : r;
}

static int index_gzip(int fd, uint64_t file_size, struct index *x)
{
	unsigned char head[GZIP_HEAD];
	int r = 0;

	while (r == 0 && x->at < file_size) {
		r = read_exactly(fd, head, sizeof(head), x->at);
		if (r == 0 && (head[0] != 0x1f || head[1] != 0x8b || head[3] != FLAG_EXTRA ||
				      head[12] != 'H' || head[13] != 'F'))
			return -EBADMSG;
		if (r == 0 && get32(head + GZIP_EXTRA) <= GZIP_HEAD + GZIP_TAIL)
			return -EBADMSG;
		if (r == 0)
			r = index_add(x, get32(head + GZIP_EXTRA), get32(head + GZIP_EXTRA + 4));
	}
	return r;
}

static int index_none(uint64_t file_size, struct index *x)
{
	int r = 0;

	while (r == 0 && x->at < file_size) {
		uint64_t n = MIN(file_size - x->at, (uint64_t)PIECE_MAX);

		r = index_add(x, n, (uint32_t)n);
	}
	return r;
}

int codec_index(enum logcodec codec, int fd, uint64_t size, struct piece **out, size_t *n)
{
	struct index x = {0};
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (codec == LOGCODEC_ZSTD)
		r = index_zstd(fd, (uint64_t)st.st_size, &x);
	else if (codec == LOGCODEC_GZIP)
		r = index_gzip(fd, (uint64_t)st.st_size, &x);
	else
		r = index_none((uint64_t)st.st_size, &x);
	if (r == 0 && x.offset != size)
		r = -EBADMSG;
	if (r < 0) {
		free(x.v);
		return r;
	}
	*out = x.v;
	*n = x.n;
	return 0;
}

/* ---- unpacking ---- */

static int inflate_all(const unsigned char *data, size_t n, void *out, size_t size)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)data,
		.avail_in = (uInt)n,
		.next_out = out,
		.avail_out = (uInt)size};
	int r;

	if (inflateInit2(&z, RAW_DEFLATE) != Z_OK)
		return -ENOMEM;
	r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return r == Z_STREAM_END && z.total_out == size ? 0 : -EBADMSG;
}

static int unpack_gzip(const unsigned char *packed, size_t n, void *out, size_t size)
{
	int r = inflate_all(packed + GZIP_HEAD, n - GZIP_HEAD - GZIP_TAIL, out, size);

	if (r == 0 && crc32(0, out, (uInt)size) != get32(packed + n - GZIP_TAIL))
		r = -EBADMSG;
	return r;
}

int codec_unpack(enum logcodec codec, int fd, const struct piece *p, void *out)
{
	_cleanup_free_ unsigned char *packed = NULL;
	int r;

	if (codec == LOGCODEC_NONE)
		return read_exactly(fd, out, p->size, p->at);
	packed = xmalloc(p->packed);
	r = read_exactly(fd, packed, p->packed, p->at);
	if (r < 0)
		return r;
	if (codec == LOGCODEC_GZIP)
		return unpack_gzip(packed, p->packed, out, p->size);
	return ZSTD_decompress(out, p->size, packed, p->packed) == p->size ? 0 : -EBADMSG;
}
