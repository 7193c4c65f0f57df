/* Who has a port: the lookups of ports.h. */
#include "drv/ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "drv/machine.h"
#include "drv/procinfo.h"

/* Newer than our headers: bound, and neither listening nor connected. Linux 6.8. */
#define TCP_BOUND_INACTIVE_ 13

#define MAX_SOCKETS 64

struct found {
	unsigned state; /* TCP_LISTEN ... */
	unsigned uid;
	unsigned long inode; /* 0: no process has it */
};

/* Sockets whose local port is the one asked for. A busy server has thousands of connections on it;
 * some are enough to find a process by. Listening ones always get a place. */
struct sockets {
	struct found v[MAX_SOCKETS];
	size_t n;
};

static void sockets_add(struct sockets *s, unsigned state, unsigned uid, unsigned long inode)
{
	if (s->n < MAX_SOCKETS)
		s->v[s->n++] = (struct found){state, uid, inode};
}

static void read_table(const char *path, unsigned port, struct sockets *s)
{
	FILE *f = fopen(path, "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		unsigned local, state, uid;
		unsigned long inode;

		/* sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode */
		if (sscanf(line, " %*[^:]: %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %u %*s %lu", &local,
			    &state, &uid, &inode) == 4 &&
			local == port)
			sockets_add(s, state, uid, inode);
	}
	if (f)
		fclose(f);
}

static void read_tables(unsigned port, struct sockets *s)
{
	s->n = 0;
	read_table("/proc/net/tcp", port, s);
	read_table("/proc/net/tcp6", port, s);
}

/* ---- sockets that are bound only, by netlink ---- */

static void diag_message(const struct nlmsghdr *h, unsigned port, struct sockets *s)
{
	const struct inet_diag_msg *m = NLMSG_DATA(h);

	if (h->nlmsg_len >= NLMSG_LENGTH(sizeof(*m)) && ntohs(m->id.idiag_sport) == port)
		sockets_add(s, m->idiag_state, m->idiag_uid, m->idiag_inode);
}

/* False at the end, or on an error. */
static bool diag_receive(int fd, unsigned port, struct sockets *s)
{
	_Alignas(struct nlmsghdr) char buf[8192];
	ssize_t n = recv(fd, buf, sizeof(buf), 0);
	unsigned left = n < 0 ? 0 : (unsigned)n;

	if (n <= 0)
		return n < 0 && errno == EINTR;
	for (const struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
		if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
			return false;
		diag_message(h, port, s);
	}
	return true;
}

static void read_bound(int family, unsigned port, struct sockets *s)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_req_v2 r;
	} rq = {
		.h = {.nlmsg_len = sizeof(rq),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
		.r = {.sdiag_family = (uint8_t)family,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = 1u << TCP_BOUND_INACTIVE_,
			.id = {.idiag_sport = htons((uint16_t)port)}},
	};
	_cleanup_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	/* The kernel answers within the call; this is against surprises. */
	struct timeval limit = {.tv_sec = 1};

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0)
		return;
	if (send(fd, &rq, sizeof(rq), 0) != (ssize_t)sizeof(rq))
		return;
	while (diag_receive(fd, port, s))
		continue;
}

/* A process; 0: none. */
static pid_t letting_go;

void port_is_let_go_by(pid_t pid)
{
	letting_go = pid;
}

static int match_inode(const char *target, void *arg)
{
	unsigned long inode;

	return sscanf(target, "socket:[%lu]", &inode) == 1 && inode == *(const unsigned long *)arg;
}

static bool is_let_go(unsigned long inode)
{
	return letting_go && process_each_fd(letting_go, match_inode, &inode) == 1;
}

static bool has_only_remains(uint16_t port)
{
	struct sockets s;

	read_tables(port, &s);
	read_bound(AF_INET, port, &s);
	read_bound(AF_INET6, port, &s);
	for (size_t i = 0; i < s.n; i++)
		if (s.v[i].state == TCP_LISTEN || (s.v[i].inode && !is_let_go(s.v[i].inode)))
			return false; /* a process has it */
	return s.n > 0 || letting_go; /* it has just closed it */
}

/* Once more, as what was seen in the tables may have been closed before its holder was looked for.
 */
bool port_has_only_remains(uint16_t port)
{
	return has_only_remains(port) || (letting_go && has_only_remains(port));
}

/* ---- from sockets to processes ---- */

struct search {
	const struct sockets *s;
	bool listening_only;
	pid_t pid;
};

static int match_fd(const char *target, void *arg)
{
	const struct search *q = arg;
	unsigned long inode;

	if (sscanf(target, "socket:[%lu]", &inode) != 1)
		return 0;
	for (size_t i = 0; i < q->s->n; i++)
		if (q->s->v[i].inode == inode &&
			(!q->listening_only || q->s->v[i].state == TCP_LISTEN))
			return 1;
	return 0;
}

static int match_process(pid_t pid, void *arg)
{
	struct search *q = arg;

	if (process_each_fd(pid, match_fd, q) != 1)
		return 0;
	q->pid = pid;
	return 1;
}

/* 0 when none is found. */
static pid_t find_owner(const struct sockets *s, bool listening_only)
{
	struct search q = {.s = s, .listening_only = listening_only};

	if (s->n)
		process_each(match_process, &q);
	return q.pid;
}

/* From /etc/passwd itself: the name service may ask the network, and take its time. */
static char *user_name(uid_t uid)
{
	FILE *f = fopen("/etc/passwd", "re");
	struct passwd pw, *found = NULL;
	char *name = NULL, buf[4096];

	while (f && !name && fgetpwent_r(f, &pw, buf, sizeof(buf), &found) == 0)
		if (pw.pw_uid == uid)
			name = xstrdup(pw.pw_name);
	if (f)
		fclose(f);
	return name ? name : xasprintf("%u", (unsigned)uid);
}

static char *describe_process(pid_t pid)
{
	_cleanup_free_ char *user = NULL;
	char path[64], comm[32];
	struct stat st;

	process_comm(pid, comm);
	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (stat(path, &st) < 0 || st.st_uid == geteuid())
		return xasprintf("pid %d (%s)", (int)pid, comm);
	user = user_name(st.st_uid);
	return xasprintf("pid %d (%s) of user %s", (int)pid, comm, user);
}

/* By a socket that no process was found for: one that lives, listening ones first, else a rest of a
 * connection. */
static char *describe_socket(const struct sockets *s)
{
	_cleanup_free_ char *user = NULL;
	const struct found *best = NULL;

	for (size_t i = 0; i < s->n; i++)
		if (s->v[i].inode &&
			(!best || (s->v[i].state == TCP_LISTEN && best->state != TCP_LISTEN)))
			best = &s->v[i];
	if (!best)
		return s->n ? xstrdup("the remains of a connection, for up to a minute") : NULL;
	user = user_name(best->uid);
	return xasprintf("a process of user %s", user);
}

char *port_holder(uint16_t port)
{
	struct sockets table, bound = {.n = 0};
	pid_t pid;

	read_tables(port, &table);
	pid = find_owner(&table, true);
	if (!pid)
		pid = find_owner(&table, false);
	if (!pid) {
		read_bound(AF_INET, port, &bound);
		read_bound(AF_INET6, port, &bound);
		pid = find_owner(&bound, false);
	}
	if (pid)
		return describe_process(pid);
	for (size_t i = 0; i < bound.n; i++)
		sockets_add(&table, bound.v[i].state, bound.v[i].uid, bound.v[i].inode);
	return describe_socket(&table);
}

char *port_holder_sentence(uint16_t port)
{
	_cleanup_free_ char *who = port_holder(port);

	if (!who)
		return xasprintf("port %u is taken, by whom is not known", port);
	return xasprintf("port %u is taken by %s", port, who);
}
