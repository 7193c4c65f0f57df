/* How long the loop was ever busy without looking for what is new: the longest time that something
 * had to wait for us. Being stopped, or without a processor, while busy counts, too. */
#pragma once

#include <uv.h>

struct loop_lag;

/* Measures from the next turn of the loop on; does not keep it running. NULL where libuv cannot. */
struct loop_lag *loop_lag_new(uv_loop_t *loop);
/* The longest so far; 0 for NULL. */
uint64_t loop_lag_ms(const struct loop_lag *l);
/* The longest of the last 10 to 20 s. */
uint64_t loop_lag_recent_ms(struct loop_lag *l);

/* How long its turns were busy, of the last 10 to 20 s. */
struct loop_lag_spread {
	uint64_t turns;
	uint64_t p50_us, p99_us; /* at most a quarter too long */
	uint64_t max_us;
};

/* All 0 for NULL. */
struct loop_lag_spread loop_lag_spread(struct loop_lag *l);
/* The loop must run on until its handle is closed. NULL is fine. */
void loop_lag_free(struct loop_lag *l);
