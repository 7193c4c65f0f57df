#include "base/strbuf.h"

void strbuf_add(struct strbuf *b, const void *data, size_t n)
{
	if (b->len + n + 1 > b->cap) {
		b->cap = MAX(b->len + n + 1, b->cap * 2);
		b->s = xreallocarray(b->s, b->cap, 1);
	}
	if (n)
		memcpy(b->s + b->len, data, n);
	b->len += n;
	b->s[b->len] = '\0';
}

void strbuf_puts(struct strbuf *b, const char *s)
{
	strbuf_add(b, s, strlen(s));
}

void strbuf_printf(struct strbuf *b, const char *fmt, ...)
{
	_cleanup_free_ char *s = NULL;
	va_list ap;

	va_start(ap, fmt);
	s = xvasprintf(fmt, ap);
	va_end(ap);
	strbuf_puts(b, s);
}

static ssize_t add_printed(void *b, const char *data, size_t n)
{
	strbuf_add(b, data, n);
	return (ssize_t)n;
}

FILE *strbuf_stream(struct strbuf *b)
{
	FILE *f = fopencookie(b, "w", (cookie_io_functions_t){.write = add_printed});

	if (!f)
		no_memory(0);
	return f;
}

void strbuf_reset(struct strbuf *b)
{
	b->len = 0;
	if (b->s)
		b->s[0] = '\0';
}

void strbuf_free(struct strbuf *b)
{
	free(b->s);
	*b = STRBUF_NULL;
}

char *strbuf_take(struct strbuf *b)
{
	char *s = b->s ? b->s : xstrdup("");

	*b = STRBUF_NULL;
	return s;
}

const char *strbuf_str(const struct strbuf *b)
{
	return b->s ? b->s : "";
}
