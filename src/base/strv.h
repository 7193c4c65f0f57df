/* A list of owned strings that ends in NULL, as execve(2) wants it. */
#pragma once

#include "base/util.h"

struct strv {
	char **v; /* owned, NULL-terminated; NULL while empty */
	size_t n;
};

#define STRV_NULL ((struct strv){0})

void strv_add(struct strv *l, const char *s);
/* Takes ownership of `s`. */
void strv_take(struct strv *l, char *s);
void strv_printf(struct strv *l, const char *fmt, ...) _printf_(2, 3);
/* Adds the words of `s`, split as a shell would without expansions: blanks separate, '...' and
 * "..." quote, a backslash escapes. Returns 0, or -EINVAL for an open quote (nothing added). */
int strv_add_words(struct strv *l, const char *s) _must_check_;
void strv_copy(struct strv *dst, const struct strv *src);
bool strv_equal(const struct strv *a, const struct strv *b);
void strv_free(struct strv *l);
