/* A libuv loop, driven by hand. */
#pragma once

#include <uv.h>

/* All that can happen now has happened: only time is waited for, or others. */
void settle(uv_loop_t *loop);
