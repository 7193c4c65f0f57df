#include "base/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/strbuf.h"

#define VARIABLE "H2OFLEET_HANDOVER"
#define MAX_TEXT (4 << 20)

struct item {
	char *name;  /* owned */
	char *value; /* owned; NULL: a descriptor */
	int fd;
};

static struct item *items;
static size_t n_items;

static void clear(void)
{
	for (size_t i = 0; i < n_items; i++) {
		free(items[i].name);
		free(items[i].value);
	}
	free(items);
	items = NULL;
	n_items = 0;
}

static void add(char *name, char *value, int fd)
{
	items = xreallocarray(items, n_items + 1, sizeof(*items));
	items[n_items++] = (struct item){name, value, fd};
}

static struct item *find(const char *name)
{
	for (size_t i = 0; i < n_items; i++)
		if (streq(items[i].name, name))
			return &items[i];
	return NULL;
}

static int set_cloexec(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFD);

	if (flags < 0)
		return -errno;
	flags = on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC;
	return fcntl(fd, F_SETFD, flags) < 0 ? -errno : 0;
}

/* ---- in the new image ---- */

/* A line is "fd NUMBER NAME" or "word NAME VALUE". */
static void read_line(char *line)
{
	int fd, at = 0;
	char *space;

	if (sscanf(line, "fd %d %n", &fd, &at) == 1 && at > 0) {
		if (set_cloexec(fd, true) == 0)
			add(xstrdup(line + at), NULL, fd);
	} else if (strncmp(line, "word ", 5) == 0 && (space = strchr(line + 5, ' '))) {
		add(xstrndup(line + 5, (size_t)(space - line - 5)), xstrdup(space + 1), -1);
	}
}

/* Without opening it once more: there may be no descriptor left. */
static char *read_list(int fd)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0, size;
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size > MAX_TEXT)
		return NULL;
	size = (size_t)st.st_size;
	text = xmalloc(size + 1);
	while (len < size) {
		ssize_t n = pread(fd, text + len, size - len, (off_t)len);

		if (n == 0 || (n < 0 && errno != EINTR))
			return NULL;
		len += n < 0 ? 0 : (size_t)n;
	}
	text[len] = '\0';
	return TAKE_PTR(text);
}

bool handover_read(void)
{
	const char *number = getenv(VARIABLE);
	_cleanup_free_ char *text = NULL;
	int fd = number ? atoi(number) : -1;

	unsetenv(VARIABLE);
	text = fd > STDERR_FILENO ? read_list(fd) : NULL;
	if (!text)
		return false;
	close(fd);
	for (char *save, *line = strtok_r(text, "\n", &save); line;
		line = strtok_r(NULL, "\n", &save))
		read_line(line);
	return true;
}

int handover_take_fd(const char *name_fmt, ...)
{
	_cleanup_free_ char *name = NULL;
	struct item *it;
	va_list ap;

	va_start(ap, name_fmt);
	name = xvasprintf(name_fmt, ap);
	va_end(ap);
	it = find(name);
	return it ? TAKE_FD(it->fd) : -1;
}

const char *handover_word(const char *name)
{
	const struct item *it = find(name);

	return it ? it->value : NULL;
}

void handover_drop(void)
{
	for (size_t i = 0; i < n_items; i++)
		closep(&items[i].fd);
	clear();
}

/* ---- in the old one ---- */

void handover_add_fd(int fd, const char *name_fmt, ...)
{
	va_list ap;

	if (fd < 0)
		return;
	va_start(ap, name_fmt);
	add(xvasprintf(name_fmt, ap), NULL, fd);
	va_end(ap);
}

void handover_add_word(const char *name, const char *value)
{
	add(xstrdup(name), xstrdup(value), -1);
}

/* The list in a memfd, which is close-on-exec like all else until the very end. */
static int write_list(void)
{
	_cleanup_close_ int fd = memfd_create("h2ofleet-handover", MFD_CLOEXEC);
	_cleanup_(strbuf_free) struct strbuf text = STRBUF_NULL;

	if (fd < 0)
		return -errno;
	for (size_t i = 0; i < n_items; i++) {
		const struct item *it = &items[i];

		if (it->value)
			strbuf_printf(&text, "word %s %s\n", it->name, it->value);
		else
			strbuf_printf(&text, "fd %d %s\n", it->fd, it->name);
	}
	if (write(fd, strbuf_str(&text), text.len) != (ssize_t)text.len)
		return errno ? -errno : -ENOSPC;
	return TAKE_FD(fd);
}

/* Libraries may have opened some without it. */
static void close_others_on_exec(void)
{
	close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
}

static void keep(bool on, int list)
{
	set_cloexec(list, !on);
	for (size_t i = 0; i < n_items; i++)
		if (!items[i].value)
			set_cloexec(items[i].fd, !on);
}

int handover_exec(const char *path, char *const *argv)
{
	int r, list = write_list();
	char number[16];
	sigset_t all, old;

	if (list < 0) {
		clear();
		return list;
	}
	snprintf(number, sizeof(number), "%d", list);
	setenv(VARIABLE, number, 1);
	close_others_on_exec();
	keep(true, list);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	execv(path, argv);
	r = -errno;
	sigprocmask(SIG_SETMASK, &old, NULL);
	keep(false, list);
	unsetenv(VARIABLE);
	close(list);
	clear();
	return r;
}
