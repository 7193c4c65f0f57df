#include "settle.h"

#include <poll.h>

#include "fuzz.h"

#define TURNS 20000

static bool is_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

void settle(uv_loop_t *loop)
{
	for (int i = 0; i < TURNS; i++) {
		uv_run(loop, UV_RUN_NOWAIT);
		if (!uv_loop_alive(loop))
			return;
		if (!is_readable(uv_backend_fd(loop)) && uv_backend_timeout(loop) != 0)
			return;
	}
	fuzz_check(false); /* it spins */
}
