#include "drv/notify.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <systemd/sd-daemon.h>

int notify_send(const char *lines)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	size_t n;

	if (!path)
		return 0;
	n = strlen(path);
	if (n < 2 || n >= sizeof(sa.sun_path) || (*path != '/' && *path != '@'))
		return -EINVAL;
	memcpy(sa.sun_path, path, n);
	if (*path == '@') /* abstract */
		sa.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (sendto(fd, lines, strlen(lines), MSG_NOSIGNAL, (const struct sockaddr *)&sa,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		return -errno;
	return 0;
}

int notify_sendf(const char *fmt, ...)
{
	_cleanup_free_ char *lines = NULL;
	va_list ap;

	va_start(ap, fmt);
	lines = xvasprintf(fmt, ap);
	va_end(ap);
	return notify_send(lines);
}

uint64_t notify_watchdog_ms(void)
{
	uint64_t usec = 0;

	return sd_watchdog_enabled(0, &usec) > 0 ? MAX(usec / 1000, (uint64_t)1) : 0;
}
