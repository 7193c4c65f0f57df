#include "cli/h2o.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"

#define MAX_NAME 200

/* The value of filename=, as it stands there. NULL: there is none. Owned by the caller. */
static char *given_name(const char *disposition)
{
	const char *at = strcasestr(disposition, "filename=");

	if (!at)
		return NULL;
	at += strlen("filename=");
	if (*at == '"')
		return xstrndup(at + 1, strcspn(at + 1, "\""));
	return xstrndup(at, strcspn(at, "; \t\r\n"));
}

char *download_name(const char *disposition)
{
	_cleanup_free_ char *given = given_name(disposition);
	char *base = given ? strrchr(given, '/') : NULL, *name;

	base = base ? base + 1 : given;
	if (!base || !*base || strlen(base) > MAX_NAME)
		return NULL;
	name = xstrdup(base);
	for (char *s = name; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f || *s == '\\')
			*s = '_';
	if (*name == '.') /* neither hidden, nor a folder */
		*name = '_';
	return name;
}

static bool is_folder(const char *path)
{
	struct stat st;

	return path[strlen(path) - 1] == '/' || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

static int begin(struct download *d, struct err *e)
{
	_cleanup_free_ char *dir = NULL;
	const char *slash;
	mode_t mask;
	int r;

	d->path = is_folder(d->to)
			  ? xasprintf("%s%s%s", d->to, d->to[strlen(d->to) - 1] == '/' ? "" : "/",
				    d->name ? d->name : "unknown")
			  : xstrdup(d->to);
	slash = strrchr(d->path, '/');
	dir = slash ? xstrndup(d->path, (size_t)(slash - d->path) + 1) : xstrdup("./");
	r = file_mkdirs(dir, 0777, e);
	if (r < 0)
		return r;
	d->part = xasprintf("%s.h2ofleet-part-XXXXXX", dir);
	d->fd = mkostemp(d->part, O_CLOEXEC);
	if (d->fd < 0) {
		r = -errno;
		free(TAKE_PTR(d->part));
		return err_set_errno(e, r, "cannot write in %s", dir);
	}
	mask = umask(0); /* as any new file, not as mkstemp(3) has it */
	umask(mask);
	fchmod(d->fd, 0666 & ~mask);
	return 0;
}

int download_write(struct download *d, const void *data, size_t n, struct err *e)
{
	const char *from = data;
	int r = d->part ? 0 : begin(d, e);

	if (r < 0)
		return r;
	d->bytes += n;
	while (n) {
		ssize_t done = write(d->fd, from, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return err_set_errno(e, -errno, "cannot write %s", d->path);
		from += done;
		n -= (size_t)done;
	}
	return 0;
}

int download_finish(struct download *d, struct err *e)
{
	int r = d->part ? 0 : begin(d, e); /* nothing was in it */

	if (r < 0)
		return r;
	r = close(TAKE_FD(d->fd)) < 0 ? -errno : 0; /* some file systems tell only here */
	if (r == 0 && rename(d->part, d->path) < 0)
		r = -errno;
	if (r < 0)
		return err_set_errno(e, r, "cannot write %s", d->path);
	free(TAKE_PTR(d->part));
	return 0;
}

void download_clear(struct download *d)
{
	if (d->part) {
		if (d->fd >= 0)
			close(d->fd);
		unlink(d->part);
	}
	free(d->name);
	free(d->path);
	free(d->part);
	*d = (struct download){.fd = -1};
}
