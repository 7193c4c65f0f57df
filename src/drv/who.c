/* Whose is the socket at the other end of a connection within this machine? The kernel knows, by
 * its addresses: sock_diag(7), asked for exactly that one; where there is none, /proc/net/tcp.
 *
 * A socket that was closed right after it had sent, or that is in TIME_WAIT, is shown as root's
 * (uid 0) in both, but with inode 0: nobody holds it, so nobody knows whose it was. */
#include "drv/who.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdio.h>

#include "base/util.h"

void who_unmap(struct sockaddr_storage *a)
{
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)a;
	struct sockaddr_in v4 = {.sin_family = AF_INET};

	if (a->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
		return;
	v4.sin_port = v6->sin6_port;
	memcpy(&v4.sin_addr, &v6->sin6_addr.s6_addr[12], sizeof(v4.sin_addr));
	memset(a, 0, sizeof(*a));
	memcpy(a, &v4, sizeof(v4));
}

static uint16_t port_of(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)a)->sin6_port
					: ((const struct sockaddr_in *)a)->sin_port;
}

static const void *address_of(const struct sockaddr_storage *a, size_t *len)
{
	if (a->ss_family == AF_INET6) {
		*len = sizeof(struct in6_addr);
		return &((const struct sockaddr_in6 *)a)->sin6_addr;
	}
	*len = sizeof(struct in_addr);
	return &((const struct sockaddr_in *)a)->sin_addr;
}

/* --- sock_diag ------------------------------------------------------------------------------ */

struct diag_request {
	struct nlmsghdr head;
	struct inet_diag_req_v2 body;
};

static int diag_send(
	int diag, const struct sockaddr_storage *local, const struct sockaddr_storage *remote)
{
	struct diag_request q = {.head = {.nlmsg_len = sizeof(q),
					 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
					 .nlmsg_flags = NLM_F_REQUEST},
		.body = {.sdiag_family = (uint8_t)local->ss_family,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = ~0u,
			.id = {.idiag_sport = port_of(local),
				.idiag_dport = port_of(remote),
				.idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}}};
	size_t len;
	const void *a;

	if (remote->ss_family == AF_INET6)
		q.body.id.idiag_if = ((const struct sockaddr_in6 *)remote)->sin6_scope_id;
	a = address_of(local, &len);
	memcpy(q.body.id.idiag_src, a, len);
	a = address_of(remote, &len);
	memcpy(q.body.id.idiag_dst, a, len);
	return send(diag, &q, sizeof(q), MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* An exact lookup falls back to a listener on the same port, which is somebody else. */
static uid_t uid_of(const struct inet_diag_msg *m, const struct sockaddr_storage *remote)
{
	if (m->idiag_state == TCP_LISTEN || m->idiag_state == TCP_TIME_WAIT ||
		m->idiag_state == TCP_CLOSE || m->idiag_inode == 0 ||
		m->id.idiag_dport != port_of(remote))
		return UID_UNKNOWN;
	return m->idiag_uid;
}

/* 0 and *out; -ENOENT: there is no such socket, or no sock_diag for TCP. The kernel answers within
 * send(2), so nothing here waits. */
static int ask_diag(struct who *w, const struct sockaddr_storage *local,
	const struct sockaddr_storage *remote, struct inet_diag_msg *out)
{
	union {
		struct nlmsghdr head;
		char buf[1024];
	} r;
	ssize_t n;
	int rc;

	if (w->diag < 0)
		w->diag = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (w->diag < 0)
		return -errno;
	while (recv(w->diag, &r, sizeof(r), MSG_DONTWAIT) > 0)
		; /* nothing is left of an earlier one */
	rc = diag_send(w->diag, local, remote);
	if (rc < 0)
		return rc;
	n = recv(w->diag, &r, sizeof(r), MSG_DONTWAIT);
	if (n < (ssize_t)sizeof(r.head) || !NLMSG_OK(&r.head, (size_t)n))
		return n < 0 ? -errno : -EBADMSG;
	if (r.head.nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *e = NLMSG_DATA(&r.head);

		return r.head.nlmsg_len < NLMSG_LENGTH(sizeof(*e)) || e->error >= 0 ? -EBADMSG
										    : e->error;
	}
	if (r.head.nlmsg_type != SOCK_DIAG_BY_FAMILY ||
		r.head.nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
		return -EBADMSG;
	memcpy(out, NLMSG_DATA(&r.head), sizeof(*out));
	w->diag_works = true;
	return 0;
}

/* --- /proc/net/tcp -------------------------------------------------------------------------- */

/* As the kernel prints it: hexadecimal words in host order, then the port. */
static void proc_address(const struct sockaddr_storage *a, char out[64])
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;
	uint32_t w[4];

	if (a->ss_family == AF_INET) {
		snprintf(out, 64, "%08X:%04X", ((const struct sockaddr_in *)a)->sin_addr.s_addr,
			ntohs(port_of(a)));
		return;
	}
	memcpy(w, &v6->sin6_addr, sizeof(w));
	snprintf(out, 64, "%08X%08X%08X%08X:%04X", w[0], w[1], w[2], w[3], ntohs(port_of(a)));
}

uid_t who_in_line(const char *line, const struct sockaddr_storage *local,
	const struct sockaddr_storage *remote)
{
	char here[64], there[64], is_here[64], is_there[64];
	unsigned long inode;
	unsigned state, uid;

	if (sscanf(line, "%*u: %63s %63s %x %*x:%*x %*x:%*x %*x %u %*u %lu", is_here, is_there,
		    &state, &uid, &inode) != 5)
		return UID_UNKNOWN;
	proc_address(local, here);
	proc_address(remote, there);
	if (!streq(here, is_here) || !streq(there, is_there) || inode == 0 ||
		state == TCP_TIME_WAIT || state == TCP_LISTEN)
		return UID_UNKNOWN;
	return uid;
}

static uid_t search_proc(const char *path, const struct sockaddr_storage *local,
	const struct sockaddr_storage *remote)
{
	_cleanup_free_ char *line = NULL;
	FILE *f = fopen(path, "re");
	uid_t uid = UID_UNKNOWN;
	char here[64], there[64], pair[130];
	size_t size = 0;

	if (!f)
		return UID_UNKNOWN;
	proc_address(local, here);
	proc_address(remote, there);
	snprintf(pair, sizeof(pair), " %s %s ", here, there);
	while (uid == UID_UNKNOWN && getline(&line, &size, f) > 0)
		if (strstr(line, pair)) /* there may be tens of thousands */
			uid = who_in_line(line, local, remote);
	fclose(f);
	return uid;
}

static void map_v4(struct sockaddr_storage *a)
{
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = port_of(a)};

	v6.sin6_addr.s6_addr[10] = v6.sin6_addr.s6_addr[11] = 0xff;
	memcpy(&v6.sin6_addr.s6_addr[12], &((struct sockaddr_in *)a)->sin_addr, 4);
	memcpy(a, &v6, sizeof(v6));
}

/* An IPv6 socket that talks IPv4 is among the IPv6 ones. */
static uid_t ask_proc(struct sockaddr_storage *local, struct sockaddr_storage *remote)
{
	uid_t uid = UID_UNKNOWN;

	if (local->ss_family == AF_INET) {
		uid = search_proc("/proc/net/tcp", local, remote);
		if (uid != UID_UNKNOWN)
			return uid;
		map_v4(local);
		map_v4(remote);
	}
	return search_proc("/proc/net/tcp6", local, remote);
}

/* What is local to the client is the peer to us. */
uid_t who_is(struct who *w, int sock)
{
	struct sockaddr_storage local = {0}, remote = {0};
	socklen_t local_len = sizeof(local), remote_len = sizeof(remote);
	struct inet_diag_msg m = {0};
	int rc;

	if (getpeername(sock, (struct sockaddr *)&local, &local_len) < 0 ||
		getsockname(sock, (struct sockaddr *)&remote, &remote_len) < 0)
		return UID_UNKNOWN;
	who_unmap(&local);
	who_unmap(&remote);
	rc = ask_diag(w, &local, &remote, &m);
	if (rc == 0)
		return uid_of(&m, &remote);
	return rc == -ENOENT && w->diag_works ? UID_UNKNOWN : ask_proc(&local, &remote);
}

uid_t who_listens(struct who *w, int sock)
{
	struct sockaddr_storage there = {0}, nobody = {0};
	socklen_t len = sizeof(there);
	struct inet_diag_msg m = {0};

	if (getpeername(sock, (struct sockaddr *)&there, &len) < 0)
		return UID_UNKNOWN;
	nobody.ss_family = there.ss_family;
	return ask_diag(w, &there, &nobody, &m) == 0 && m.idiag_state == TCP_LISTEN ? m.idiag_uid
										    : UID_UNKNOWN;
}

void who_free(struct who *w)
{
	closep(&w->diag);
}
