/* Failures remembered within a window, and how long to wait after them. */
#pragma once

#include "model/cloud.h"

/* Adds a failure now; forgets those that are older than the window. */
void backoff_record(struct failure_history *h, const struct limit_spec *limit, uint64_t now_ms);

/* The limit is reached: give up. */
bool backoff_exhausted(const struct failure_history *h, const struct limit_spec *limit);

/* Milliseconds to wait: restart_delay after the first failure, then 1 s (or restart_delay, if
 * longer) doubling up to restart_delay_max, each with a jitter of +-25 % so that many clouds do not
 * come back in step. */
uint64_t backoff_delay(
	const struct failure_history *h, const struct cloud_conf *conf, uint64_t *rng);
