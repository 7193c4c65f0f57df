#include "drv/activation.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <systemd/sd-daemon.h>

#include "base/log.h"

static struct {
	char **names; /* owned, as its strings; NULL where taken */
	unsigned n;
} passed;

unsigned activation_init(void)
{
	int n = sd_listen_fds_with_names(1, &passed.names);

	passed.n = n > 0 ? (unsigned)n : 0;
	return passed.n;
}

int activation_take(const char *name)
{
	for (unsigned i = 0; i < passed.n; i++)
		if (passed.names[i] && streq(passed.names[i], name)) {
			free(TAKE_PTR(passed.names[i]));
			return SD_LISTEN_FDS_START + (int)i;
		}
	return -1;
}

/* 0: it is no TCP socket that listens. */
static uint16_t listening_port(int fd, bool v6)
{
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} a = {.sa = {0}};
	socklen_t len = sizeof(a);
	int family = v6 ? AF_INET6 : AF_INET;

	if (sd_is_socket(fd, family, SOCK_STREAM, 1) <= 0 || getsockname(fd, &a.sa, &len) < 0)
		return 0;
	return ntohs(v6 ? a.in6.sin6_port : a.in.sin_port);
}

int activation_listener(uint16_t port, bool v6)
{
	for (unsigned i = 0; i < passed.n; i++) {
		int fd = SD_LISTEN_FDS_START + (int)i;

		if (passed.names[i] && port && listening_port(fd, v6) == port)
			return fcntl(fd, F_DUPFD_CLOEXEC, 3);
	}
	return -1;
}

void activation_close_rest(void)
{
	for (unsigned i = 0; i < passed.n; i++) {
		int fd = SD_LISTEN_FDS_START + (int)i;

		if (!passed.names[i] || listening_port(fd, false) || listening_port(fd, true))
			continue;
		log_warning("systemd passed a descriptor named '%s', which nothing here uses; a "
			    "socket unit for the control socket needs FileDescriptorName=control",
			passed.names[i]);
		close(fd);
		free(TAKE_PTR(passed.names[i]));
	}
}
