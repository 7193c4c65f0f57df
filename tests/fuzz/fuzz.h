/* What the fuzzing harnesses share. Each is a program of its own, tests/fuzz/fuzz_TARGET.c, which
 * libFuzzer (contrib/fuzz) or replay.c (`make check`) gives its inputs. A harness looks for more
 * than crashes: what must always hold stands in a fuzz_check(). */
#pragma once

#include <stdio.h>

#include "base/util.h"

/* Of each harness. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Likewise; once, before the first input. */
void fuzz_begin(void);
/* fuzz.c, for libFuzzer. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* What must hold. Else the input is kept, and we end by SIGABRT. */
#define fuzz_check(cond)                                                                           \
	do {                                                                                       \
		if (!(cond))                                                                       \
			fuzz_failed(__FILE__, __LINE__, #cond, NULL, 0);                           \
	} while (0)
/* The same, showing a text. */
#define fuzz_check_text(cond, text)                                                                \
	do {                                                                                       \
		if (!(cond))                                                                       \
			fuzz_failed(__FILE__, __LINE__, #cond, text, strlen(text));                \
	} while (0)
_noreturn_ void fuzz_failed(
	const char *file, int line, const char *what, const char *text, size_t len);

/* What a terminal would not obey: UTF-8 without control characters but newline and tab. */
void fuzz_check_harmless(const char *s, size_t n);

/* The rest of an input. */
struct fuzz_input {
	const uint8_t *at;
	size_t n;
};

/* 0 at the end. */
uint8_t fuzz_byte(struct fuzz_input *in);
/* Up to the next line that is only "--", or the end. Owned by the caller, ended by a NUL; *len may
 * be NULL. */
char *fuzz_part(struct fuzz_input *in, size_t *len);

/* A directory of our own, empty at first; it is removed at the end. */
const char *fuzz_dir(void);
/* Writes the file PATH below it; with the folders above it. */
void fuzz_write(const char *path, const void *data, size_t len);
/* The same; false: there is a file where a folder should be, or the other way round. */
bool fuzz_try_write(const char *path, const void *data, size_t len);
/* Removes all below it. */
void fuzz_empty_dir(void);

/* Nothing of ours is said on the terminal any more, but by fuzz_failed(). */
void fuzz_be_quiet(void);
