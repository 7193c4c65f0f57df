/* Lines of H2O's logs: when they were written and how grave they are, which of them are wanted, and
 * those of several nodes in the order of time. Pure but for the time zone. */
#pragma once

#include <regex.h>
#include <stdio.h>

#include "base/util.h"

/* H2O's, the gravest first. */
enum log_level {
	LOG_FATAL,
	LOG_ERRR,
	LOG_WARN,
	LOG_INFO,
	LOG_DEBUG,
	LOG_TRACE,
	LOG_NO_LEVEL, /* unknown, or: any */
};

/* "WARN", "warning", "ERROR", ...; LOG_NO_LEVEL for what is none. */
enum log_level log_level_read(const char *s, size_t len);

/* The time zone of the stamps: the daemon's, and so the nodes' unless they were told another.
 * Begins as { 0 }: ours. */
struct log_zone {
	bool other; /* not ours: */
	int64_t utc_offset_s;
};

/* Does a record begin with this line? "MM-DD hh:mm:ss.mmm ... LEVEL ...", of a year that makes it
 * the newest that is not after `now_ms` (a day more is taken for a clock that is ahead), in `zone`.
 * Also the daemon's line between two lives. */
bool log_head_read(const char *line, size_t len, const struct log_zone *zone, uint64_t now_ms,
	uint64_t *at_ms, enum log_level *level);

/* Which lines are wanted. Begins as LOG_FILTER_NULL. */
struct log_filter {
	uint64_t since_ms;    /* 0: from the beginning */
	enum log_level level; /* this grave, or graver */
	struct log_zone zone;
	bool has_pattern;
	regex_t pattern;
};
#define LOG_FILTER_NULL ((struct log_filter){.level = LOG_NO_LEVEL})

/* Where we are in the output of one node: lines without a head belong to the one before. Begins as
 * { 0 }. */
struct log_source {
	uint64_t at_ms; /* never goes back; 0: nothing had a time yet */
	bool begun;
	enum log_level level;
	bool shown; /* the record that they belong to */
};

/* Is the line, the next of that node, wanted? */
bool log_take(struct log_source *s, const struct log_filter *f, const char *line, size_t len,
	uint64_t now_ms);

/* Lines that wait to be put in order. Begins as { 0 }. */
struct log_merge {
	struct log_item {
		uint64_t at_ms;
		int64_t node;
		size_t order; /* as they came */
		char *text;   /* owned */
		size_t len;
	} * items;
	size_t n, cap, bytes;
};

void log_merge_add(struct log_merge *m, uint64_t at_ms, int64_t node, const char *line, size_t len);
/* Gives all of them out, by time, those of one moment as they came; of each node only the last
 * `last`. */
void log_merge_flush(struct log_merge *m, size_t last,
	void (*give)(int64_t node, const char *line, size_t len, void *arg), void *arg);
void log_merge_free(struct log_merge *m);
