/* Times in milliseconds. Supervision uses the monotonic clock only, which stands still while the
 * machine sleeps; the wall clock is for people and file names. */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ms(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static inline uint64_t clock_monotonic_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

/* Since 1970, UTC. */
static inline uint64_t clock_wall_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}
