/* A cloud as JSON. Stable: programs read this (documented in HACKING.md and in the man page). */
#pragma once

#include <jansson.h>

#include "model/cloud.h"

/* New references, owned by the caller. now_ms: monotonic. */
json_t *view_cloud(const struct cloud *c, uint64_t now_ms);
json_t *view_node(const struct node *n, uint64_t now_ms);
