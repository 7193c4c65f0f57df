/* Descriptors that we are started with: systemd's, of socket activation or of its store
 * (sd_listen_fds(3)), and those that an image of ours keeps for the next one. */
#pragma once

#include "base/util.h"

/* Notes them, makes them close-on-exec and takes $LISTEN_* out of the environment. Once, before
 * anything is forked. Returns how many there are. */
unsigned activation_init(void);

/* Hands over the first one not yet taken that has this name (FileDescriptorName= of the socket
 * unit); -1 when there is none. It is the caller's then. */
int activation_take(const char *name);

/* A duplicate of the TCP socket that listens on this port, whatever its name: for IPv4, or for IPv6
 * (which may be for both); -1 when there is none. The original stays here, since systemd goes on
 * listening, too. */
int activation_listener(uint16_t port, bool v6);

bool activation_listens(uint16_t port);

/* Those TCP sockets go on to the image that replaces this one. After activation_close_rest(). */
void activation_hand_over(void);

/* Closes those that nobody wanted, but for TCP sockets, and says so. */
void activation_close_rest(void);
