/* Who is at the other end of a connection, what they may do, and how many connections they may
 * hold. Root and the daemon's user always keep room of their own: nobody else can lock them out. */
#pragma once

#include <sys/types.h>

#include "base/util.h"

#define PEERS_MAX_OWN     320 /* of root and the daemon's user together */
#define PEERS_MAX_OTHERS  192 /* of all others together */
#define PEERS_MAX_PER_UID 64  /* of one of the others */

enum access {
	ACCESS_NONE,
	ACCESS_GROUP, /* got in through the socket's group */
	ACCESS_ADMIN, /* root or the daemon's user */
};

struct peer {
	uid_t uid;
	enum access access;
	int fd;
	/* Since when a whole request is waited for, monotonic; 0: it is there. */
	uint64_t waits_since_ms;
	struct peer *next;
};

struct peers {
	struct peer *list; /* one per connection */
	unsigned own, others;
};

/* Looks at the connection `fd`, accepted on the socket at `path`. NULL: there are too many already.
 * The result belongs to `all` until peers_remove(). */
struct peer *peers_add(struct peers *all, int fd, const char *path);
/* Hangs up on those that have not sent a whole request in `max_ms`: one byte now and then would
 * keep a connection for ever, as each begins the idle time anew. */
void peers_cut_slow(const struct peers *all, uint64_t max_ms);
void peers_remove(struct peers *all, struct peer *p);
