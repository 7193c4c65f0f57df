/* Macros and helpers that every file may use: ownership, arrays, memory.
 *
 * Memory: the x* functions never return NULL. When a small allocation fails there is nothing
 * sensible left to do, so they say so on stderr and abort; the clouds live on without us. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <unistd.h>

#define ARRAY_SIZE(a)        (sizeof(a) / sizeof((a)[0]))
#define _printf_(fmt, first) __attribute__((format(printf, fmt, first)))
#define _must_check_         __attribute__((warn_unused_result))
#define _noreturn_           __attribute__((noreturn))
#define _cleanup_(fn)        __attribute__((cleanup(fn)))
#define _unused_             __attribute__((unused))

/* Hands ownership on: yields the pointer and leaves NULL behind. */
#define TAKE_PTR(p)                                                                                \
	({                                                                                         \
		__typeof__(p) *take_ = &(p);                                                       \
		__typeof__(p) taken_ = *take_;                                                     \
		*take_ = NULL;                                                                     \
		taken_;                                                                            \
	})

/* The same for a file descriptor; -1 stays behind. */
#define TAKE_FD(fd)                                                                                \
	({                                                                                         \
		int *take_ = &(fd);                                                                \
		int taken_ = *take_;                                                               \
		*take_ = -1;                                                                       \
		taken_;                                                                            \
	})

/* Unlike those of <sys/param.h>, these evaluate their arguments once. */
#undef MIN
#undef MAX
#define MIN(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) min_a_ = (a);                                                        \
		__typeof__(b) min_b_ = (b);                                                        \
		min_a_ < min_b_ ? min_a_ : min_b_;                                                 \
	})
#define MAX(a, b)                                                                                  \
	({                                                                                         \
		__typeof__(a) max_a_ = (a);                                                        \
		__typeof__(b) max_b_ = (b);                                                        \
		max_a_ > max_b_ ? max_a_ : max_b_;                                                 \
	})

/* Says so, and aborts. `n`: 0 where it is not known. */
_noreturn_ void no_memory(size_t n);

void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
/* Like reallocarray(3). */
void *xreallocarray(void *p, size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
/* NULL in, NULL out. */
char *xstrdup_null(const char *s);
char *xstrndup(const char *s, size_t n);
char *xasprintf(const char *fmt, ...) _printf_(1, 2);
char *xvasprintf(const char *fmt, va_list ap) _printf_(1, 0);

/* Frees *dst and puts a copy of `s` (may be NULL) in its place. */
void replace_str(char **dst, const char *s);

static inline void freep(void *p)
{
	free(*(void **)p);
}
#define _cleanup_free_ _cleanup_(freep)

static inline void closep(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define _cleanup_close_ _cleanup_(closep)

static inline bool streq(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

/* True also when both are NULL. */
static inline bool streq_null(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static inline bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* splitmix64: a small deterministic generator for jitter and names; not for secrets. */
static inline uint64_t rng_next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}
