/* A growing string, always terminated by NUL once something was added. */
#pragma once

#include <stdio.h>

#include "base/util.h"

struct strbuf {
	char *s; /* owned; NULL while empty */
	size_t len;
	size_t cap;
};

#define STRBUF_NULL ((struct strbuf){0})

void strbuf_add(struct strbuf *b, const void *data, size_t n);
void strbuf_puts(struct strbuf *b, const char *s);
/* For what prints to a stream: what is printed is added to `b` by fflush() and fclose() at the
 * latest. Never NULL; unlike open_memstream(3) it leaves nothing out where memory lacks. */
FILE *strbuf_stream(struct strbuf *b);
void strbuf_printf(struct strbuf *b, const char *fmt, ...) _printf_(2, 3);
/* Empties it, keeps the memory. */
void strbuf_reset(struct strbuf *b);
void strbuf_free(struct strbuf *b);
/* The string ("" while empty), owned by the caller; the buffer is empty after. */
char *strbuf_take(struct strbuf *b);
/* Never NULL; valid until the next change. */
const char *strbuf_str(const struct strbuf *b);
