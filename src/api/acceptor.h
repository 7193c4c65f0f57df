/* Takes connections to the control socket, whatever happens to us or to it: some descriptors are
 * kept in reserve for when there are no others; when even these are used up it pauses, instead of
 * spinning; and a socket that somebody removes from the file system, or replaces, is made anew. */
#pragma once

#include <uv.h>

#include "api/listener.h"
#include "core/fleet.h"

#define ACCEPTOR_RESERVE 8

struct acceptor {
	uv_loop_t *loop;
	struct fleet *fleet; /* for its troubles */
	struct listener listener;
	int fd;           /* listens */
	uv_poll_t *poll;  /* freed in its close callback */
	uv_timer_t *tick; /* likewise */
	bool paused;
	unsigned ticks;                /* until the socket is made anew, when that has failed */
	unsigned patience;             /* ... the next time it fails */
	int reserve[ACCEPTOR_RESERVE]; /* -1: in use, or not to be had */
	void (*taken)(int fd, void *arg);
	void *arg;
};

/* Listens on `path` and calls `taken` (which owns the descriptor: close-on-exec, non-blocking) for
 * each connection. */
int acceptor_open(struct acceptor *a, uv_loop_t *loop, struct fleet *fleet, const char *path,
	void (*taken)(int fd, void *arg), void *arg, struct err *e);

/* For the image that replaces us: base/handover.h. */
void acceptor_hand_over(const struct acceptor *a);

/* Stops listening and gives the socket back; the loop must run on until the handles are closed. */
void acceptor_close(struct acceptor *a);
