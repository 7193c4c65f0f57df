/* A node's log as one endless text, whatever was rotated away meanwhile.
 *
 * Positions are *logical*: bytes ever written to this log, from its very first line on. They only
 * grow, over rotations and over the lives of nodes and daemons, so one that was remembered means
 * the same byte later, or says that it is gone. What is older than the live file comes from the
 * parts beside it (drv/logrotate.h: how they come to be), decompressed on the way.
 *
 * No call blocks on another process: a rotation that happens meanwhile is noticed, and what was
 * read is thrown away and read again. */
#pragma once

#include <sys/types.h>

#include "base/err.h"

struct logreader;

/* `path`: of the live file, which need not exist yet. It is opened anew when it was removed and
 * made again. *out is owned by the caller. */
int logreader_open(const char *path, struct logreader **out, struct err *e);

/* What can be read now: from *first up to, without, *end. */
void logreader_range(struct logreader *r, uint64_t *first, uint64_t *end);

/* Up to n bytes from `pos`; less when there are fewer now, or where it is easier, so call again.
 * *at is where they begin: `pos`, or later when that is gone. 0: nothing there yet; then *at is the
 * end, which is before `pos` only when somebody has cut the file. Else -errno. A call takes a
 * millisecond or two at most: one piece of a compressed part is unpacked at a time. */
ssize_t logreader_read(struct logreader *r, uint64_t pos, void *buf, size_t n, uint64_t *at);

/* NULL is fine. */
void logreader_close(struct logreader *r);

/* The position at which the next byte will be; 0 when there is no log. */
uint64_t logfile_end(const char *path);

/* The last `lines` lines (at most `max_bytes`) of what was written from position
 * `from` on;
 * *out owned by the caller, NUL-terminated, with NUL bytes turned into blanks. A missing file gives
 * "". */
int logfile_tail(const char *path, uint64_t from, size_t lines, size_t max_bytes, char **out);
