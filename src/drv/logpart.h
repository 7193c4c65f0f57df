/* The parts of a log that were rotated away: LOG.FIRST-END, LOG.FIRST-END.zst or .gz beside it,
 * FIRST and END being positions (drv/logfile.h) in 16 digits, so that the names sort. Together with
 * the live file they are the log: `zstdcat LOG.*.zst; cat LOG` prints it.
 *
 * A part is compressed in pieces that are unpacked one by one, so that no reader has to begin at
 * the front. With zstd each is a frame, and their table is that of zstd's own "seekable format";
 * with gzip each is a member that says in its extra field how long it is. Common tools read both.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"

enum logcodec { LOGCODEC_ZSTD, LOGCODEC_GZIP, LOGCODEC_NONE };

struct logpart {
	uint64_t first, end;
	enum logcodec codec;
};

/* Of `log`, sorted; owned by the caller. Returns how many, or -errno. */
ssize_t logparts_list(const char *log, struct logpart **out);

/* Owned by the caller. */
char *logpart_path(const char *log, const struct logpart *p);

/* Whether a name in a log folder is a part's, of any log. */
bool logpart_is_name(const char *name);

/* Writes what is in `fd` from offset `off` on, beside the log, whole or not at all, and durable. */
int logpart_write(const char *log, const struct logpart *p, int fd, off_t off, struct err *e);

struct partreader;

int partreader_open(const char *log, const struct logpart *p, struct partreader **out);
/* Up to n bytes from position `pos`, which is inside; > 0, or -errno. */
ssize_t partreader_read(struct partreader *r, uint64_t pos, void *buf, size_t n);
bool partreader_has(const struct partreader *r, uint64_t pos);
/* NULL is fine. */
void partreader_close(struct partreader *r);
