/* A pipe is needed only while bytes that were read could not be written yet. So those that are idle
 * have none, and a few serve all. */
#include <errno.h>
#include <fcntl.h>

#include "gate/gate.h"

/* What one connection may read ahead of its slower side, besides what the sockets buffer. Beyond
 * some MiB of pipes per user the kernel grants less, which is no harm. */
#define PIPE_SIZE (1024 * 1024)

int pipe_take(struct pipes *p, struct pipe *out)
{
	int fds[2], rc;

	if (p->n_idle) {
		*out = p->idle[--p->n_idle];
		return 0;
	}
	gate_use_descriptors(FOR_PIPES);
	rc = pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0 ? -errno : 0;
	gate_use_descriptors(FOR_CONNECTIONS);
	if (rc < 0)
		return rc;
	fcntl(fds[1], F_SETPIPE_SZ, PIPE_SIZE);
	*out = (struct pipe){.r = fds[0], .w = fds[1]};
	return 0;
}

void pipe_give(struct pipes *p, struct pipe *pipe, bool empty)
{
	if (pipe->r >= 0) {
		if (empty && p->n_idle < GATE_IDLE_PIPES) {
			p->idle[p->n_idle++] = *pipe;
		} else {
			close(pipe->r);
			close(pipe->w);
		}
	}
	*pipe = PIPE_NULL;
}

void pipes_free(struct pipes *p)
{
	while (p->n_idle) {
		struct pipe *last = &p->idle[--p->n_idle];

		close(last->r);
		close(last->w);
	}
}
