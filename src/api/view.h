/* A cloud as JSON. Stable: programs read this (documented in HACKING.md).
 *
 * What is not known is null, never left out. Texts are valid UTF-8 whatever a node's log held. */
#pragma once

#include <jansson.h>

#include "core/fleet.h"
#include "core/trouble.h"
#include "drv/lag.h"

/* New references, owned by the caller. now_ms: monotonic. */
json_t *view_cloud(const struct cloud *c, uint64_t now_ms);
json_t *view_node(const struct node *n, uint64_t now_ms);
/* As it is now, with the pressure, the gate, the newest incident and what the nodes' processes
 * take, which view_cloud() and view_node() do not know. */
json_t *view_live_cloud(struct fleet *f, const struct cloud *c);
json_t *view_live_node(struct fleet *f, const struct cloud *c, const struct node *n);

/* A JSON string, with U+FFFD for each byte that is no UTF-8; null for NULL. A new reference. */
json_t *view_text(const char *s);
/* A moment, ISO 8601, UTC; null for 0. */
json_t *view_wall(uint64_t wall_ms);

/* What hinders the daemon itself, the oldest first: a list, empty when all is well. A new
 * reference. */
json_t *view_troubles(const struct trouble *first, uint64_t now_ms);

/* How long the loop was busy, lately. A new reference. */
json_t *view_loop_lag(struct loop_lag *l);
