#include "base/err.h"

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;
	char *msg;

	if (!e)
		return code;
	va_start(ap, fmt);
	msg = xvasprintf(fmt, ap); /* may quote e->msg, so it is freed after */
	va_end(ap);
	free(e->msg);
	e->msg = msg;
	e->code = code;
	return code;
}

int err_set_errno(struct err *e, int code, const char *fmt, ...)
{
	_cleanup_free_ char *what = NULL;
	va_list ap;

	if (!e)
		return code;
	va_start(ap, fmt);
	what = xvasprintf(fmt, ap);
	va_end(ap);
	return err_set(e, code, "%s: %s", what, strerror(-code));
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	_cleanup_free_ char *context = NULL;
	va_list ap;

	if (!e)
		return 0;
	va_start(ap, fmt);
	context = xvasprintf(fmt, ap);
	va_end(ap);
	return err_set(e, e->code, "%s: %s", context, err_msg(e));
}

void err_clear(struct err *e)
{
	free(e->msg);
	*e = ERR_NULL;
}

const char *err_msg(const struct err *e)
{
	return e->msg ? e->msg : "unknown error";
}
