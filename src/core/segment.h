/* One file of the journal: lines, and where to find them again. */
#pragma once

#include "base/util.h"
#include "core/journal.h"

struct segment_mark {
	uint64_t seq;
	uint64_t offset;
};

struct segment {
	int fd;               /* owned; -1: no file */
	uint64_t size;        /* as we know it */
	uint64_t first, last; /* numbers in it; 0: none */
	char epoch[JOURNAL_EPOCH_LEN + 1];
	struct segment_mark *marks; /* owned: a line every some KiB */
	size_t n_marks;
};

#define SEGMENT_NULL ((struct segment){.fd = -1})

struct segment_line {
	const char *text; /* with its newline; not terminated */
	size_t len;
	const char *epoch; /* not terminated */
	uint64_t seq;
};

/* Reads what is in the file: lines of its newest epoch. Cuts a torn last line off. -EBADMSG: there
 * is something, and nothing of ours. */
int segment_load(struct segment *s);
/* Its size is not what we know. */
bool segment_changed(const struct segment *s);
void segment_close(struct segment *s);
/* Nothing in it counts. */
void segment_forget(struct segment *s);
/* All of the line, or nothing of it. */
int segment_append(struct segment *s, const char *line, size_t len);

/* Lines from one at or before `seq` on; terminated; owned by the caller; NULL: unreadable. */
char *segment_block(const struct segment *s, uint64_t seq);
/* Takes the next line of ours from a block; false at its end. */
bool segment_next_line(char **at, struct segment_line *l);
/* The first number after `seq` at which reading can begin; `otherwise` if there is none. */
uint64_t segment_after(const struct segment *list, size_t n, uint64_t seq, uint64_t otherwise);
