/* Connections without a network: socket() and connect() of this program and of libcurl are ours. A
 * stream socket is one end of a pair whose other end we hold, and who connects is connected at
 * once. So no port is used, nobody else is met, and it is fast. */
#pragma once

#include <sys/socket.h>

#include "base/util.h"

/* Called for each connection, with the other end, which is the callee's from then on. `to`: where
 * it was meant to go. False: nobody listens there. */
typedef bool (*sockets_fn)(int fd, const struct sockaddr *to);
/* NULL: sockets are as usual. */
void sockets_serve(sockets_fn fn);
/* There are no sockets, with this errno; 0: there are. */
void sockets_fail(int e);
/* Writes all of it, as far as the socket takes it. */
void sockets_say(int fd, const void *data, size_t len);
