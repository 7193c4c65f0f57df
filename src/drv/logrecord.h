/* Where a log file stands in its log: the small file LOG.position beside it. For the files of drv/
 * that know about rotation; others use drv/logfile.h.
 *
 * It is replaced whole (rename), and only by the holder of the rotation's lock. */
#pragma once

#include "base/err.h"

struct logrecord {
	uint64_t base;     /* position of the file's first byte, at offset 0 */
	uint64_t start;    /* what is before this is in parts, or gone; the file has it no more */
	uint64_t collapse; /* if not 0: so many bytes are being cut off the file's front */
	uint64_t since_ms; /* when `start` last moved; wall clock */
};

/* Never fails: a log without a record, or with one that cannot be read, was never rotated, so all
 * is 0. False then. */
bool logrecord_read(const char *log, struct logrecord *rec);

/* Durable when it returns 0. */
int logrecord_write(const char *log, const struct logrecord *rec, struct err *e);

/* What the record and the file together say. */
struct loglive {
	struct logrecord rec; /* as read */
	uint64_t base;        /* where the file begins now: after the cut, if that was made */
	uint64_t start, end;  /* what the file has to tell */
	bool cut_by_hand;     /* somebody has truncated or replaced the file */
};

/* A consistent view while the file grows and is rotated. -errno of fstat(). */
int loglive_look(const char *log, int fd, struct loglive *out);

/* Whether what was read from the file since loglive_look() was there, where it said. */
bool loglive_holds(const char *log, int fd, const struct loglive *l);

/* Where the file's first data is; its size if there is none. -errno. */
int64_t logfile_first_data(int fd);
