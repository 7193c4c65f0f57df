/* The fleet's events: numbered, and kept over the lives of daemons.
 *
 * An event's place is epoch and seq: the epoch is new only when the journal was lost, and within it
 * numbers go up by one, also over kill -9. Lines of JSON in two files, DIR/current.ndjson and
 * DIR/old.ndjson; each begins {"epoch":"<16 hex>","seq":N, and ends with the newline of its one
 * write(2), and that, and that unknown members are passed on, is all that daemons of other versions
 * must agree on. A line is in the file before anybody is told of it.
 *
 * On a full disk events are numbered all the same and read from memory; DIR/issued, whose block was
 * allocated in time, holds the last number that was given out so, so that the next daemon gives
 * none out twice. Where even that cannot be written a new epoch begins. */
#pragma once

#include <jansson.h>

#include "base/strbuf.h"

#define JOURNAL_EPOCH_LEN 16
/* Longer ones lose their details. */
#define JOURNAL_MAX_LINE 8192

struct journal;

/* Never fails: where nothing can be kept it says so, and numbers what happens in memory.
 * `max_bytes` is of both files together. */
struct journal *journal_open(const char *dir, uint64_t max_bytes);
/* NULL is fine. */
void journal_close(struct journal *j);

/* Numbers and keeps an event, then tells the observer. `members` (stolen) is all but "epoch" and
 * "seq"; the member "cloud" of it is a string or null. */
void journal_append(struct journal *j, json_t *members);

/* Called after each event; it must not read in there. */
void journal_observe(struct journal *j, void (*cb)(void *arg), void *arg);

const char *journal_epoch(const struct journal *j);
/* Number of the newest event; 0: none yet in this epoch. */
uint64_t journal_last(const struct journal *j);

/* Where a reader is: what it has not seen begins at `next`. */
struct journal_cursor {
	char epoch[JOURNAL_EPOCH_LEN + 1];
	uint64_t next;
	const char *cloud; /* only this one's events; NULL: all. Not owned */
	char asked[48];    /* an epoch or number that is not known here; "": none */
};

/* `since`: "EPOCH:SEQ" or "SEQ", the last event that is known already; NULL: all there is. -EINVAL:
 * neither of these. */
int journal_seek(const struct journal *j, const char *since, struct journal_cursor *c) _must_check_;

/* Adds lines from the cursor on, about `max` bytes of them or a turn's work, and moves it. Lines of
 * its own among them: {"type":"lost"} where events are gone, {"type":"epoch"} where the cursor's
 * epoch is not this one; all lines have "epoch" and "seq", the position behind them. Returns
 * whether there is more. */
bool journal_read(struct journal *j, struct journal_cursor *c, struct strbuf *out, size_t max);
