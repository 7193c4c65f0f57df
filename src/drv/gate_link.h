/* The daemon's end of its conversation with the gate: drv/gate_wire.h in the libuv loop. */
#pragma once

#include <uv.h>

#include "base/err.h"
#include "drv/gate_wire.h"

struct gate_link;

/* Makes the socket that a new gate listens on, at `path`, over whatever is there. The descriptor is
 * the caller's; a negative errno with a sentence. */
int gate_link_listen(const char *path, struct err *e);

/* Connects to it. Answers at once: whoever listens accepts later. 0; -ENOENT or -ECONNREFUSED when
 * there is no gate; another negative errno. */
int gate_link_open(uv_loop_t *loop, const char *path, struct gate_link **out);
/* NULL is fine. No callback comes any more. */
void gate_link_close(struct gate_link *l);

/* From gate_receive(), waiting for at most timeout_ms: for the first words, before the loop runs.
 * -ETIMEDOUT. */
int gate_link_wait(struct gate_link *l, unsigned timeout_ms, struct gate_message *out);

/* From now on `cb` gets each message, which stays the link's; NULL: the gate is gone, or talks
 * nonsense. The callback may close the link. */
typedef void (*gate_link_cb)(const struct gate_message *m, void *arg);
/* And `room` is called once a gate_link_send() that failed with -EAGAIN may be tried again. */
typedef void (*gate_link_room_cb)(void *arg);
void gate_link_start(struct gate_link *l, gate_link_cb cb, gate_link_room_cb room, void *arg);

/* As gate_send(). */
int gate_link_send(struct gate_link *l, const json_t *body, const int *fds, unsigned n_fds);
