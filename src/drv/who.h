/* Whose socket is at the other end of a connection within this machine: the kernel's word. The gate
 * asks it of those who come, the daemon of those who answer in a node's place. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#define UID_UNKNOWN ((uid_t)-1)

struct who {
	int diag;        /* sock_diag(7); -1: not yet */
	bool diag_works; /* it has answered: what it does not know, nobody has */
};
#define WHO_NULL ((struct who){.diag = -1})

/* Whose socket is at the other end of the connected `sock`; UID_UNKNOWN when it is not of this
 * machine, or belongs to nobody (any more). */
uid_t who_is(struct who *w, int sock);
/* Who listens where the connected `sock` leads to; UID_UNKNOWN also without sock_diag(7). */
uid_t who_listens(struct who *w, int sock);
void who_free(struct who *w);

/* The uid in a line of /proc/net/tcp or tcp6, when it is of a socket from `local` to `remote` that
 * somebody holds; else UID_UNKNOWN. */
uid_t who_in_line(const char *line, const struct sockaddr_storage *local,
	const struct sockaddr_storage *remote);

/* ::ffff:127.0.0.1 -> 127.0.0.1; others stay. */
void who_unmap(struct sockaddr_storage *a);
