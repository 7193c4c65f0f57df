/* Compressing the pieces of a log's parts (drv/logpart.h), and unpacking them. */
#pragma once

#include <sys/types.h>

#include "base/strbuf.h"
#include "base/util.h"
#include "drv/logpart.h"

/* Bytes of the log in a piece: what is unpacked in a millisecond or two. */
#define PIECE_MAX (512u << 10)

/* Where a piece is in the part's file, and what it holds. */
struct piece {
	uint64_t at, packed; /* in the file */
	uint64_t offset;     /* in the part's text */
	uint32_t size;
};

/* Appends the packed form of `data` to `out`. */
int codec_pack(enum logcodec codec, const void *data, size_t n, struct strbuf *out);

/* What follows the last piece: zstd's table. */
void codec_finish(
	enum logcodec codec, const struct piece *pieces, size_t n_pieces, struct strbuf *out);

/* The pieces of the part in `fd`, owned by the caller; -EBADMSG when it is none of ours, or does
 * not hold `size` bytes. */
int codec_index(enum logcodec codec, int fd, uint64_t size, struct piece **out, size_t *n);

/* `out` has room for p->size bytes. -EBADMSG when it is damaged. */
int codec_unpack(enum logcodec codec, int fd, const struct piece *p, void *out);
