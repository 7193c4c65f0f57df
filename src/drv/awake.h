/* A clock for supervision: monotonic milliseconds without the times in which the machine slept or
 * this process could not run (was stopped, had no processor). While the loop waits it knows when it
 * meant to wake; when it wakes much later the time until then does not count, and a little less
 * even, so that deadlines that passed meanwhile come only after what had arrived by then was read.
 */
#pragma once

#include <uv.h>

struct awake;

struct awake *awake_new(uv_loop_t *loop);
/* Never decreases. */
uint64_t awake_now(struct awake *a);
/* The loop must run on until the handles are closed. NULL is fine. */
void awake_free(struct awake *a);
