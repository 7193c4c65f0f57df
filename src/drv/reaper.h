/* Reaps strangers: children that we did not start. As process 1 of a container, or as a "child
 * subreaper", we inherit all orphans; and some that our parent had may have come with our exec.
 * Never takes the status of a process that spawn.h watches, so whatever is to be adopted must be
 * adopted before this begins. */
#pragma once

#include <uv.h>

struct reaper;

struct reaper *reaper_start(uv_loop_t *loop);
/* NULL is fine. The loop must run on until the handles are closed. */
void reaper_stop(struct reaper *r);
