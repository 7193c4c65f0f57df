#include "base/util.h"

#include <stdio.h>

void no_memory(size_t n)
{
	if (n)
		fprintf(stderr, "out of memory (%zu bytes); ", n);
	else
		fputs("out of memory; ", stderr);
	fputs("aborting. Running clouds are not touched.\n", stderr);
	abort();
}

void *xmalloc(size_t n)
{
	void *p = malloc(n ? n : 1);

	if (!p)
		no_memory(n);
	return p;
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		no_memory(n * size);
	return p;
}

void *xreallocarray(void *p, size_t n, size_t size)
{
	void *q = reallocarray(p, n ? n : 1, size ? size : 1);

	if (!q)
		no_memory(n * size);
	return q;
}

void *xrealloc(void *p, size_t n)
{
	return xreallocarray(p, n, 1);
}

char *xstrdup(const char *s)
{
	char *p = strdup(s);

	if (!p)
		no_memory(strlen(s));
	return p;
}

char *xstrdup_null(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

char *xstrndup(const char *s, size_t n)
{
	char *p = strndup(s, n);

	if (!p)
		no_memory(n);
	return p;
}

char *xvasprintf(const char *fmt, va_list ap)
{
	char *p;

	if (vasprintf(&p, fmt, ap) < 0)
		no_memory(strlen(fmt));
	return p;
}

char *xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *p;

	va_start(ap, fmt);
	p = xvasprintf(fmt, ap);
	va_end(ap);
	return p;
}

void replace_str(char **dst, const char *s)
{
	char *copy = xstrdup_null(s);

	free(*dst);
	*dst = copy;
}
