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
	for (unsigned char *s = (unsigned char *)name; *s; s++)
		if (*s < 0x20 || *s == 0x7f || *s == '\\')
			*s = '_';
		else if (*s == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0) /* C1: for `ls` to print */
			s[0] = s[1] = '_';
	if (*name == '.') /* neither hidden, nor a folder */
		*name = '_';
	return name;
}

static bool is_folder(const char *path)
{
	struct stat st;

	return path[strlen(path) - 1] == '/' || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

/* "-", a device, a pipe: nothing is there that could be kept until all has come, and it must not be
 * replaced by a file. */
static int open_as_it_is(struct download *d, struct err *e)
{
	d->fd = streq(d->to, "-") ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
				  : open(d->path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	return d->fd < 0 ? err_set_errno(e, -errno, "cannot write %s", d->path) : 0;
}

/* A file of its own beside the real one, with the rights that this has. */
static int open_part(struct download *d, mode_t mode, struct err *e)
{
	_cleanup_free_ char *dir = NULL;
	const char *slash = strrchr(d->real, '/');
	int r;

	dir = slash ? xstrndup(d->real, (size_t)(slash - d->real) + 1) : xstrdup("./");
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
	fchmod(d->fd, mode);
	return 0;
}

/* Under the name that the answer has: the other side chose it, so that it must lead to nothing but
 * a file of this very folder. */
static int begin_in_folder(struct download *d, mode_t mode, struct err *e)
{
	struct stat st;

	d->path = xasprintf("%s%s%s", d->to, d->to[strlen(d->to) - 1] == '/' ? "" : "/",
		d->name ? d->name : "unknown");
	if (lstat(d->path, &st) == 0) {
		if (!S_ISREG(st.st_mode))
			return err_set(e, -EEXIST,
				"%s is there, and no plain file: name another with -o FILE",
				d->path);
		mode = st.st_mode & 0777;
	}
	d->real = xstrdup(d->path);
	return open_part(d, mode, e);
}

static int begin(struct download *d, struct err *e)
{
	mode_t mask = umask(0), mode; /* as any new file, not as mkstemp(3) has it */
	struct stat st;

	umask(mask);
	mode = 0666 & ~mask;
	if (is_folder(d->to))
		return begin_in_folder(d, mode, e);
	d->path = xstrdup(d->to);
	if (streq(d->to, "-"))
		return open_as_it_is(d, e);
	if (stat(d->path, &st) < 0) {
		if (lstat(d->path, &st) == 0)
			return err_set(
				e, -ENOENT, "cannot write %s: a link that leads nowhere", d->path);
		d->real = xstrdup(d->path);
		return open_part(d, mode, e);
	}
	if (!S_ISREG(st.st_mode))
		return open_as_it_is(d, e);
	d->real = realpath(d->path, NULL); /* what a link leads to, not the link */
	if (!d->real)
		return err_set_errno(e, -errno, "cannot write %s", d->path);
	return open_part(d, st.st_mode & 0777, e);
}

int download_write(struct download *d, const void *data, size_t n, struct err *e)
{
	const char *from = data;
	int r = d->fd >= 0 ? 0 : begin(d, e);

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
	int r = d->fd >= 0 ? 0 : begin(d, e); /* nothing was in it */

	if (r < 0)
		return r;
	r = close(TAKE_FD(d->fd)) < 0 ? -errno : 0; /* some file systems tell only here */
	if (r == 0 && d->part && rename(d->part, d->real) < 0)
		r = -errno;
	if (r < 0)
		return err_set_errno(e, r, "cannot write %s", d->path);
	free(TAKE_PTR(d->part));
	return 0;
}

void download_clear(struct download *d)
{
	if (d->fd >= 0)
		close(d->fd);
	if (d->part)
		unlink(d->part);
	free(d->name);
	free(d->path);
	free(d->real);
	free(d->part);
	*d = (struct download){.fd = -1};
}
