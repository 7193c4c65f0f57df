/* Lines of an INI file, with their numbers.
 *
 * The parser is inih, as Debian builds it: it gives no line numbers, keeps quiet about sections,
 * cuts lines at 200 bytes and section names at 50, and takes " ;" within a line for a comment (but
 * not within the indented lines that continue a value). So inih is fed line by line through
 * ini_parse_stream(): what it would cut or misread is refused here, and comments never reach it.
 *
 * A line that is indented continues the value of the key above, over blank lines and comments too.
 * A byte order mark at the start and CR LF line ends are let through. */
#pragma once

#include "base/util.h"

/* Longest line, without its end, that is read. */
#define INI_LINE_LIMIT 198

struct ini_events {
	/* "[text]", blanks around it removed; NULL: an unreadable one (error() was called). */
	void (*section)(void *u, unsigned line, const char *text);
	/* "key = value" or "key: value"; the value may be "". */
	void (*value)(void *u, unsigned line, const char *key, const char *value);
	/* An indented line that continues the last value. */
	void (*more)(void *u, unsigned line, const char *text);
	/* A line that cannot be read; `in_value`: it would have continued the last value. */
	void (*error)(void *u, unsigned line, bool in_value, const char *sentence);
};

/* Reads a whole file; errors go to events->error() and reading goes on behind them. */
void ini_read(const char *data, size_t len, const struct ini_events *events, void *u);
