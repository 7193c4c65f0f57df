/* An error with a sentence for people.
 *
 * Functions return 0 (or a value >= 0) on success and a negative errno on failure. Those whose
 * failures people read take a `struct err *` as last argument, which may be NULL, and fill it. Each
 * level may put its own context in front with err_wrap(): "cloud dev: node 1: fork: ...".
 *
 *	_cleanup_(err_clear) struct err e = ERR_NULL;
 */
#pragma once

#include "base/util.h"

struct err {
	int code;  /* negative errno; 0: no error */
	char *msg; /* owned */
};

#define ERR_NULL ((struct err){0})

/* Sets code and sentence, replacing what was there; returns `code`. */
int err_set(struct err *e, int code, const char *fmt, ...) _printf_(3, 4);

/* As err_set(), with ": <strerror(-code)>" behind the sentence. */
int err_set_errno(struct err *e, int code, const char *fmt, ...) _printf_(3, 4);

/* Puts "<context>: " in front; returns e->code (0 for a NULL e). */
int err_wrap(struct err *e, const char *fmt, ...) _printf_(2, 3);

void err_clear(struct err *e);

/* The sentence; never NULL. */
const char *err_msg(const struct err *e);
