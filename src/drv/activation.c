#include "drv/activation.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <systemd/sd-daemon.h>

#include "base/handover.h"
#include "base/log.h"

static struct {
	char **names; /* owned, as its strings; NULL where taken */
	int *fds;     /* owned */
	unsigned n;
} passed;

static void add(char *name, int fd)
{
	passed.names = xreallocarray(passed.names, passed.n + 1, sizeof(*passed.names));
	passed.fds = xreallocarray(passed.fds, passed.n + 1, sizeof(*passed.fds));
	passed.names[passed.n] = name;
	passed.fds[passed.n++] = fd;
}

unsigned activation_init(void)
{
	char **names = NULL;
	int fd, n = sd_listen_fds_with_names(1, &names);

	for (int i = 0; i < n; i++)
		add(names[i], SD_LISTEN_FDS_START + i);
	free(names);
	while ((fd = handover_take_fd("listener %u", passed.n)) >= 0)
		add(xstrdup("listener"), fd);
	return passed.n;
}

int activation_take(const char *name)
{
	for (unsigned i = 0; i < passed.n; i++)
		if (passed.names[i] && streq(passed.names[i], name)) {
			free(TAKE_PTR(passed.names[i]));
			return passed.fds[i];
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

static int find(uint16_t port, bool v6)
{
	for (unsigned i = 0; i < passed.n; i++) {
		if (passed.names[i] && port && listening_port(passed.fds[i], v6) == port)
			return passed.fds[i];
	}
	return -1;
}

int activation_listener(uint16_t port, bool v6)
{
	int fd = find(port, v6);

	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

bool activation_listens(uint16_t port)
{
	return find(port, false) >= 0 || find(port, true) >= 0;
}

void activation_hand_over(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < passed.n; i++)
		if (passed.names[i])
			handover_add_fd(passed.fds[i], "listener %u", n++);
}

void activation_close_rest(void)
{
	for (unsigned i = 0; i < passed.n; i++) {
		int fd = passed.fds[i];

		if (!passed.names[i] || listening_port(fd, false) || listening_port(fd, true))
			continue;
		log_warning("systemd passed a descriptor named '%s', which nothing here uses; a "
			    "socket unit for the control socket needs FileDescriptorName=control",
			passed.names[i]);
		close(fd);
		free(TAKE_PTR(passed.names[i]));
	}
}
