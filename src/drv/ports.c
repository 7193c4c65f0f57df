#include "drv/ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/file.h"

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* The length, or -EINVAL. */
static int parse_address(const char *text, uint16_t port, union address *out)
{
	*out = (union address){0};
	if (inet_pton(AF_INET, text, &out->in.sin_addr) == 1) {
		out->in.sin_family = AF_INET;
		out->in.sin_port = htons(port);
		return (int)sizeof(out->in);
	}
	if (inet_pton(AF_INET6, text, &out->in6.sin6_addr) == 1) {
		out->in6.sin6_family = AF_INET6;
		out->in6.sin6_port = htons(port);
		return (int)sizeof(out->in6);
	}
	return -EINVAL;
}

/* The descriptor, or a negative errno. The option must come after the bind: before it, two holders
 * would coexist. "::" is held for IPv4 too, whatever net.ipv6.bindv6only says, for a JVM's wildcard
 * socket is one for both. */
static int hold(const char *address, uint16_t port)
{
	_cleanup_close_ int fd = -1;
	union address a;
	int len = parse_address(address, port, &a), off = 0, on = 1;

	if (len < 0)
		return len;
	fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	if (fd < 0)
		return -errno;
	if (a.sa.sa_family == AF_INET6 &&
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
		return -errno;
	if (bind(fd, &a.sa, (socklen_t)len) < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int port_pair_hold(const char *api_addr, const char *internal_addr, uint16_t api,
	struct port_pair *out, uint16_t *taken)
{
	struct port_pair p = PORT_PAIR_NULL;
	union address unused;

	*out = PORT_PAIR_NULL;
	if (api == 0 || api == UINT16_MAX || parse_address(api_addr, api, &unused) < 0 ||
		parse_address(internal_addr, api, &unused) < 0)
		return -EINVAL;
	p.api = api;
	p.fd_api = hold(api_addr, api);
	if (p.fd_api < 0) {
		if (taken)
			*taken = api;
		return p.fd_api;
	}
	p.fd_internal = hold(internal_addr, (uint16_t)(api + 1));
	if (p.fd_internal < 0) {
		if (taken)
			*taken = (uint16_t)(api + 1);
		close(p.fd_api);
		return p.fd_internal;
	}
	*out = p;
	return 0;
}

void port_pair_release(struct port_pair *p)
{
	closep(&p->fd_api);
	closep(&p->fd_internal);
	*p = PORT_PAIR_NULL;
}

/* "8080,9000-9010" */
static bool in_port_list(const char *list, unsigned port)
{
	for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',') {
		unsigned first, last;
		int n = sscanf(p, "%u-%u", &first, &last);

		if ((n == 1 && port == first) || (n == 2 && port >= first && port <= last))
			return true;
	}
	return false;
}

bool port_is_ephemeral(uint16_t port)
{
	_cleanup_free_ char *range = NULL, *reserved = NULL;
	unsigned low = 32768, high = 60999;

	if (file_read("/proc/sys/net/ipv4/ip_local_port_range", 256, &range, NULL) == 0)
		sscanf(range, "%u %u", &low, &high);
	if (port < low || port > high)
		return false;
	return file_read("/proc/sys/net/ipv4/ip_local_reserved_ports", 1u << 20, &reserved, NULL) <
		       0 ||
	       !in_port_list(reserved, port);
}
