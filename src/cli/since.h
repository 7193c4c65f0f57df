/* --since of people. */
#pragma once

#include "base/util.h"

/* "10m": so long ago; else a moment in our time zone, "22:39", "2026-11-22 22:39:54", as ISO 8601
 * also with a T, or with a Z for UTC. False: it is none. */
bool since_read(const char *s, uint64_t now_ms, uint64_t *since_ms);
