#include "base/strv.h"

#include <errno.h>

#include "base/strbuf.h"

void strv_take(struct strv *l, char *s)
{
	l->v = xreallocarray(l->v, l->n + 2, sizeof(*l->v));
	l->v[l->n++] = s;
	l->v[l->n] = NULL;
}

void strv_add(struct strv *l, const char *s)
{
	strv_take(l, xstrdup(s));
}

void strv_printf(struct strv *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	strv_take(l, xvasprintf(fmt, ap));
	va_end(ap);
}

/* Reads one word at *p into `word`; 1: got one, 0: end of the string, -EINVAL: open quote. */
static int next_word(const char **p, struct strbuf *word)
{
	const char *s = *p;
	char quote = 0;

	s += strspn(s, " \t\n");
	if (!*s)
		return 0;
	for (; *s && (quote || !strchr(" \t\n", *s)); s++) {
		if (!quote && (*s == '\'' || *s == '"')) {
			quote = *s;
		} else if (quote && *s == quote) {
			quote = 0;
		} else {
			if (*s == '\\' && quote != '\'' && s[1])
				s++;
			strbuf_add(word, s, 1);
		}
	}
	if (quote)
		return -EINVAL;
	*p = s;
	return 1;
}

int strv_add_words(struct strv *l, const char *s)
{
	_cleanup_(strbuf_free) struct strbuf word = STRBUF_NULL;
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	int r;

	while ((r = next_word(&s, &word)) > 0) {
		strv_add(&words, strbuf_str(&word));
		strbuf_reset(&word);
	}
	if (r < 0)
		return r;
	strv_copy(l, &words);
	return 0;
}

void strv_copy(struct strv *dst, const struct strv *src)
{
	for (size_t i = 0; i < src->n; i++)
		strv_add(dst, src->v[i]);
}

bool strv_equal(const struct strv *a, const struct strv *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!streq(a->v[i], b->v[i]))
			return false;
	return true;
}

void strv_free(struct strv *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = STRV_NULL;
}
