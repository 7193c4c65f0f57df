#include "drv/ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/file.h"
#include "base/handover.h"

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

/* What we have claimed ourselves, so that a search for free ports passes over those of a thousand
 * nodes without asking the kernel. */
static uint8_t claimed[(UINT16_MAX + 1) / 8];

bool port_is_claimed(uint16_t port)
{
	return claimed[port / 8] >> port % 8 & 1;
}

static void set_claimed(uint16_t port, bool yes)
{
	uint8_t bit = (uint8_t)(1u << port % 8);

	claimed[port / 8] = (uint8_t)(yes ? claimed[port / 8] | bit : claimed[port / 8] & ~bit);
}

/* A name in the network namespace that says "held by an h2ofleet": exclusive like a bound port, and
 * gone with its holder. It makes holding safe where the bind itself cannot be exclusive. */
static int claim(uint16_t port)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	int n;

	if (port_is_claimed(port))
		return -EADDRINUSE;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	n = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "h2ofleet/port/%u", port);
	if (bind(fd, (struct sockaddr *)&a,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)) < 0)
		return -errno;
	set_claimed(port, true);
	return TAKE_FD(fd);
}

static void unclaim(int *fd, uint16_t port)
{
	if (*fd >= 0)
		set_claimed(port, false);
	closep(fd);
	*fd = -1;
}

/* Binds, and sets SO_REUSEADDR for the JVM: after the bind, which then is exclusive; before it
 * where only what is left of connections is in the way. "::" is held for IPv4 too, unless v6only,
 * whatever net.ipv6.bindv6only says, for a JVM's wildcard socket is one for both. */
static int bind_port(const union address *a, socklen_t len, bool reuse, int v6only)
{
	_cleanup_close_ int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	int on = 1;

	if (fd < 0)
		return -errno;
	if (a->sa.sa_family == AF_INET6 &&
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)) < 0)
		return -errno;
	if (reuse && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (bind(fd, &a->sa, len) < 0)
		return -errno;
	if (!reuse && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* Binds a hold that is only claimed; over remains of connections, too, which takes some ms to find
 * out. 0, or a negative errno. */
static int complete(const char *address, uint16_t port, bool over_remains, struct port_hold *h)
{
	union address a;
	int fd, len = parse_address(address, port, &a);

	if (len < 0)
		return len;
	if (h->fd >= 0)
		return 0;
	fd = bind_port(&a, (socklen_t)len, false, 0);
	if (fd == -EADDRINUSE && over_remains && port_has_only_remains(port))
		fd = bind_port(&a, (socklen_t)len, true, 0);
	if (fd < 0)
		return fd;
	h->fd = fd;
	return 0;
}

/* 0 and *out, or a negative errno. */
static int hold(const char *address, uint16_t port, struct port_hold *out)
{
	int r;

	*out = PORT_HOLD_NULL;
	out->claim = claim(port);
	if (out->claim < 0)
		return TAKE_FD(out->claim);
	r = complete(address, port, true, out);
	if (r < 0) {
		unclaim(&out->claim, port);
		*out = PORT_HOLD_NULL;
	}
	return r;
}

bool port_is_open_to_jvm(const char *address, uint16_t port)
{
	_cleanup_close_ int fd = -1;
	union address a;
	int len = parse_address(address, port, &a);

	if (len < 0)
		return false;
	fd = bind_port(&a, (socklen_t)len, true, 0);
	return fd >= 0;
}

static void release(struct port_hold *h, uint16_t port)
{
	closep(&h->fd);
	unclaim(&h->claim, port);
	*h = PORT_HOLD_NULL;
}

int port_pair_hold(const char *api_addr, const char *internal_addr, uint16_t api,
	struct port_pair *out, uint16_t *taken)
{
	uint16_t failed = api;
	int r;

	*out = PORT_PAIR_NULL;
	if (api == 0 || api == UINT16_MAX)
		return -EINVAL;
	out->api = api;
	r = hold(api_addr, api, &out->api_hold);
	if (r == 0) {
		failed = (uint16_t)(api + 1);
		r = hold(internal_addr, failed, &out->internal_hold);
	}
	if (r < 0) {
		port_pair_release(out);
		if (taken)
			*taken = failed;
	}
	return r;
}

int port_pair_complete(
	const char *api_addr, const char *internal_addr, struct port_pair *p, uint16_t *taken)
{
	uint16_t failed = p->api;
	int r = complete(api_addr, p->api, true, &p->api_hold);

	if (r == 0) {
		failed = (uint16_t)(p->api + 1);
		r = complete(internal_addr, failed, true, &p->internal_hold);
	}
	if (r < 0 && taken)
		*taken = failed;
	return r;
}

int port_pair_claim(
	const char *api_addr, const char *internal_addr, uint16_t api, struct port_pair *out)
{
	*out = PORT_PAIR_NULL;
	if (api == 0 || api == UINT16_MAX)
		return -EINVAL;
	out->api = api;
	out->api_hold.claim = claim(api);
	out->internal_hold.claim = claim((uint16_t)(api + 1));
	if (out->api_hold.claim < 0 || out->internal_hold.claim < 0) {
		int r = out->api_hold.claim < 0 ? out->api_hold.claim : out->internal_hold.claim;

		port_pair_release(out);
		return r;
	}
	complete(api_addr, api, false, &out->api_hold); /* a JVM that is gone leaves it free */
	complete(internal_addr, (uint16_t)(api + 1), false, &out->internal_hold);
	return 0;
}

static void hand_over(const struct port_hold *h, uint16_t port)
{
	handover_add_fd(h->fd, "hold %u", port);
	handover_add_fd(h->claim, "claim %u", port);
}

void port_pair_hand_over(const struct port_pair *p)
{
	hand_over(&p->api_hold, p->api);
	hand_over(&p->internal_hold, (uint16_t)(p->api + 1));
}

static bool take_over(struct port_hold *h, uint16_t port)
{
	h->fd = handover_take_fd("hold %u", port);
	h->claim = handover_take_fd("claim %u", port);
	if (h->claim >= 0)
		set_claimed(port, true);
	return h->claim >= 0;
}

bool port_pair_take_over(uint16_t api, struct port_pair *out)
{
	if (!take_over(&out->api_hold, api))
		return false;
	take_over(&out->internal_hold, (uint16_t)(api + 1));
	out->api = api;
	return true;
}

void port_pair_release(struct port_pair *p)
{
	release(&p->api_hold, p->api);
	release(&p->internal_hold, (uint16_t)(p->api + 1));
	*p = PORT_PAIR_NULL;
}

int door_port_claim(struct door_port *d)
{
	if (d->claim < 0)
		d->claim = claim(d->port);
	return d->claim < 0 ? TAKE_FD(d->claim) : 0;
}

/* No IPv6 here. */
static bool is_missing(int r)
{
	return r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL || r == -EPROTONOSUPPORT;
}

/* All or nothing. */
static int bind_both(bool everywhere, bool reuse, struct door_port *d)
{
	static const char *const addresses[2][2] = {{"127.0.0.1", "::1"}, {"0.0.0.0", "::"}};
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(d->fds); i++) {
		union address a;
		int len = parse_address(addresses[everywhere][i], d->port, &a);

		r = d->fds[i] = bind_port(&a, (socklen_t)len, reuse, 1);
		if (i && is_missing(r))
			r = 0;
	}
	for (size_t i = 0; r < 0 && i < ARRAY_SIZE(d->fds); i++)
		closep(&d->fds[i]);
	return MIN(r, 0);
}

int door_port_bind(bool everywhere, uint16_t port, struct door_port *out)
{
	int r;

	*out = DOOR_PORT_NULL;
	out->port = port;
	r = door_port_claim(out);
	if (r == 0)
		r = bind_both(everywhere, false, out);
	if (r == -EADDRINUSE && out->claim >= 0 && port_has_only_remains(port))
		r = bind_both(everywhere, true, out);
	if (r < 0)
		door_port_release(out);
	return r;
}

void door_port_release(struct door_port *d)
{
	unclaim(&d->claim, d->port);
	closep(&d->fds[0]);
	closep(&d->fds[1]);
	*d = DOOR_PORT_NULL;
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
