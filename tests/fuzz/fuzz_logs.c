/* Logs as they lie on the disk: the live file, its record, rotated parts, any of which may be
 * damaged, or somebody else's. Reading ends, gives no more than there is, never goes back, and what
 * is packed comes out as it was. The first byte says which. */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "base/log.h"
#include "drv/logcodec.h"
#include "drv/logfile.h"
#include "drv/logpart.h"
#include "drv/logrecord.h"

#define MAX_READ  (64u << 10)
#define MAX_CALLS 2000
#define PART_SIZE 4096

/* --- a part ------------------------------------------------------------------------------- */

static int memory(const void *data, size_t len)
{
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("part", MFD_CLOEXEC);
	fuzz_check(ftruncate(fd, 0) == 0 && pwrite(fd, data, len, 0) == (ssize_t)len);
	return fd;
}

/* As it is, of `size` bytes of text. */
static void unpack_hostile(const uint8_t *data, size_t n, enum logcodec codec, uint64_t size)
{
	int fd = memory(data, n);
	struct piece *pieces = NULL;
	size_t n_pieces;
	uint64_t sum = 0;
	int r = codec_index(codec, fd, size, &pieces, &n_pieces);

	fuzz_check(r == 0 || r == -EBADMSG);
	for (size_t i = 0; r == 0 && i < n_pieces; i++) {
		const struct piece *p = &pieces[i];
		_cleanup_free_ char *out = xmalloc(p->size);
		int u = codec_unpack(codec, fd, p, out);

		fuzz_check(p->offset == sum && p->size > 0 && p->size <= PIECE_MAX);
		fuzz_check(p->at + p->packed <= n);
		fuzz_check(u == 0 || u == -EBADMSG);
		sum += p->size;
	}
	fuzz_check(r < 0 || sum == size);
	free(pieces);
}

/* In two pieces; packed, they are found and unpack to the same. */
static void pack(const uint8_t *data, size_t n, enum logcodec codec)
{
	_cleanup_(strbuf_free) struct strbuf packed = STRBUF_NULL;
	struct piece made[2] = {{.size = (uint32_t)(n / 2)}, {.size = (uint32_t)(n - n / 2)}};
	_cleanup_free_ struct piece *found = NULL;
	_cleanup_free_ char *out = xmalloc(n + 1);
	size_t n_found;
	int fd;

	if (n < 2)
		return;
	for (size_t i = 0, at = 0; i < 2; at += made[i++].size) {
		size_t before = packed.len;

		fuzz_check(codec_pack(codec, data + at, made[i].size, &packed) == 0);
		made[i].packed = packed.len - before;
	}
	codec_finish(codec, made, 2, &packed);
	fd = memory(packed.s, packed.len);
	fuzz_check(codec_index(codec, fd, n, &found, &n_found) == 0);
	for (size_t i = 0; i < n_found; i++)
		fuzz_check(codec_unpack(codec, fd, &found[i], out + found[i].offset) == 0);
	fuzz_check(memcmp(out, data, n) == 0);
}

/* --- a whole log -------------------------------------------------------------------------- */

static void read_from(struct logreader *r, uint64_t pos)
{
	static char buf[MAX_READ];
	size_t total = 0;

	for (int i = 0; i < MAX_CALLS; i++) {
		uint64_t at = 0;
		ssize_t n = logreader_read(r, pos, buf, sizeof(buf), &at);

		fuzz_check(n <= (ssize_t)sizeof(buf));
		if (n <= 0)
			return;
		fuzz_check(at >= pos && at + (uint64_t)n > at);
		pos = at + (uint64_t)n;
		total += (size_t)n;
	}
	fuzz_check(total > (size_t)MAX_CALLS * 16); /* it would never end */
}

static const char *const part_suffixes[] = {".zst", ".gz", ""};

/* Record, live file, part, each behind a line "--". */
static void read_log(struct fuzz_input *in)
{
	uint8_t how = fuzz_byte(in);
	_cleanup_free_ char *log = xasprintf("%s/0.log", fuzz_dir()), *tail = NULL, *name = NULL;
	size_t n_record, n_live, n_part;
	_cleanup_free_ char *record = fuzz_part(in, &n_record), *live = fuzz_part(in, &n_live);
	_cleanup_free_ char *part = fuzz_part(in, &n_part);
	struct logreader *r = NULL;
	struct logrecord rec;
	uint64_t first, end;

	fuzz_empty_dir();
	fuzz_write("0.log.position", record, n_record);
	if (!(how & 1))
		fuzz_write("0.log", live, n_live);
	name = xasprintf(
		"0.log.%016d-%016d%s", 0, how & 4 ? PART_SIZE : 10, part_suffixes[(how >> 3) % 3]);
	if (how & 2)
		fuzz_write(name, part, n_part);
	if (logrecord_read(log, &rec))
		fuzz_check(rec.base <= rec.start && rec.collapse <= rec.start - rec.base);
	fuzz_check(logreader_open(log, &r, NULL) == 0);
	logreader_range(r, &first, &end);
	fuzz_check(first <= end);
	fuzz_check(logfile_end(log) == end);
	read_from(r, 0);
	read_from(r, first);
	read_from(r, end);
	read_from(r, UINT64_MAX);
	logreader_close(r);
	if (logfile_tail(log, first, 5, 2000, &tail) == 0)
		fuzz_check(strlen(tail) <= 2000);
}

static void parse_name(struct fuzz_input *in)
{
	_cleanup_free_ char *name = xstrndup((const char *)in->at, in->n);

	(void)logpart_is_name(name);
}

void fuzz_begin(void)
{
	log_set_level((enum log_level)0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t what = fuzz_byte(&in);
	uint64_t how = fuzz_byte(&in), text = how < 128 ? how * 64 : (how - 128) << 16;

	switch (what) {
	case 'z':
	case 'g':
	case 'n':
		unpack_hostile(in.at, in.n,
			what == 'z'   ? LOGCODEC_ZSTD
			: what == 'g' ? LOGCODEC_GZIP
				      : LOGCODEC_NONE,
			text ? text : in.n);
		break;
	case 'p':
		for (int codec = LOGCODEC_ZSTD; codec <= LOGCODEC_NONE; codec++)
			pack(in.at, in.n, (enum logcodec)codec);
		break;
	case 'f':
		parse_name(&in);
		break;
	default:
		read_log(&in);
	}
	return 0;
}
