#include "api/peer.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"

static bool in_groups(int fd, gid_t wanted)
{
	_cleanup_free_ gid_t *groups = NULL;
	socklen_t len = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE)
		return false;
	groups = xmalloc(len);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return false;
	for (size_t i = 0; i < len / sizeof(*groups); i++)
		if (groups[i] == wanted)
			return true;
	return false;
}

/* The socket's group is asked each time: an administrator may change it while we run. */
static enum access access_of(int fd, const struct ucred *cred, const char *path)
{
	struct stat st;

	if (cred->uid == 0 || cred->uid == geteuid())
		return ACCESS_ADMIN;
	if (lstat(path, &st) < 0 || !(st.st_mode & S_IWGRP))
		return ACCESS_NONE;
	if (cred->gid == st.st_gid || in_groups(fd, st.st_gid))
		return ACCESS_GROUP;
	return ACCESS_NONE;
}

static bool has_room(const struct peers *all, const struct peer *p)
{
	unsigned same = 0;

	if (p->access == ACCESS_ADMIN)
		return all->own < PEERS_MAX_OWN;
	for (const struct peer *q = all->list; q; q = q->next)
		same += q->uid == p->uid;
	return all->others < PEERS_MAX_OTHERS && same < PEERS_MAX_PER_UID;
}

struct peer *peers_add(struct peers *all, int fd, const char *path)
{
	struct ucred cred = {.uid = (uid_t)-1, .gid = (gid_t)-1};
	socklen_t len = sizeof(cred);
	struct peer *p = xcalloc(1, sizeof(*p));

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
		p->access = access_of(fd, &cred, path);
	p->uid = cred.uid;
	p->fd = fd;
	p->waits_since_ms = clock_monotonic_ms();
	if (!has_room(all, p)) {
		free(p);
		return NULL;
	}
	*(p->access == ACCESS_ADMIN ? &all->own : &all->others) += 1;
	p->next = all->list;
	all->list = p;
	return p;
}

void peers_cut_slow(const struct peers *all, uint64_t max_ms)
{
	uint64_t now = clock_monotonic_ms();

	for (const struct peer *p = all->list; p; p = p->next)
		if (p->waits_since_ms && now > p->waits_since_ms + max_ms)
			shutdown(p->fd, SHUT_RDWR);
}

void peers_remove(struct peers *all, struct peer *p)
{
	for (struct peer **at = &all->list; *at; at = &(*at)->next) {
		if (*at != p)
			continue;
		*at = p->next;
		*(p->access == ACCESS_ADMIN ? &all->own : &all->others) -= 1;
		free(p);
		return;
	}
}
