/* The control socket in the file system: taken safely, and given back only while it is ours. */
#pragma once

#include <sys/types.h>

#include "base/err.h"

/* Its name among the descriptors that systemd passes (drv/activation.h). */
#define LISTENER_FD "control"

struct listener {
	char *path;    /* owned */
	bool systemds; /* systemd made it, and removes it */
	dev_t dev;     /* which socket we put there */
	ino_t ino;
};

/* Takes the socket that we were started with, if there is one; -EINVAL when that is not the one
 * which the configuration names. Else listens at `path`, mode 0660, non-blocking; the fd in *fd.
 * Two daemons that start at once cannot both get it: one waits for the other, for up to two seconds
 * if `patient`. -EADDRINUSE when a daemon answers there or something else is in the way. */
int listener_open(struct listener *l, const char *path, bool patient, int *fd, struct err *e);

/* The listening socket of the image that we have replaced, if it was at this path: its descriptor,
 * or -1. One at another path is removed. */
int listener_take_over(struct listener *l, const char *path);

/* Puts it on the list of base/handover.h. */
void listener_hand_over(const struct listener *l, int fd);

/* Is the socket at its path still the one that we put there? Also true when that cannot be told. */
bool listener_is_there(const struct listener *l);

/* Removes the socket, unless somebody has put another in its place. Does not close the fd. */
void listener_close(struct listener *l);
