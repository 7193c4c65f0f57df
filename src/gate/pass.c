/* The bytes of a connection: spliced from one socket into a pipe and from there into the other, so
 * they never come into our memory. What cannot be written is not read, but for one pipe of it.
 *
 * Short messages, too: to copy them with recv(2) and send(2) has been measured to be no faster, and
 * slower where a second piece follows (most of the time is the wakeup at the other end).
 *
 * An end of file goes on by shutdown(2) when all before it has, and the other direction lives on.
 * An error of one side is an RST to the other, after what had come before it. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "gate/gate.h"

/* At once; a pipe takes what it can. */
#define CHUNK (1024 * 1024)
/* In one turn, so that a fast transfer does not hold up the rest. */
#define BUDGET (1024 * 1024)

enum pumped {
	PUMP_WAITS, /* for an edge */
	PUMP_AGAIN, /* its turn was over */
	PUMP_LACKS, /* no pipe to be had */
	PUMP_BROKEN,
};

/* Nothing can be written to it any more, but read: what came before it died. */
static int side_died(struct side *s)
{
	int rc = -errno;

	s->dead = s->readable = true;
	return rc;
}

/* Pipe to socket. 1: the pipe is empty; 0: not yet. What has passed is counted at once, so that
 * whoever sees the end of a transfer finds all of it in the counter. */
static int flow_write(struct flow *f, struct side *to, _Atomic uint64_t *passed)
{
	while (f->in_pipe) {
		ssize_t n;

		if (!to->writable)
			return 0;
		n = splice(f->pipe.r, NULL, to->w.fd, NULL, f->in_pipe,
			SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			to->writable = false;
			return 0;
		}
		if (n < 0)
			return side_died(to);
		if (n == 0)
			return -EPIPE;
		f->in_pipe -= (size_t)n;
		counter_add(passed, (uint64_t)n);
	}
	return 1;
}

/* Nothing was read: nothing is there (0), or it was the end (0), or an error. */
static int flow_drained(struct flow *f, struct side *from, ssize_t n)
{
	if (n < 0 && errno != EAGAIN)
		return -errno;
	from->readable = false;
	/* An error that a write has already been told of looks like an end. */
	if (n == 0 && from->dead)
		return -ECONNRESET;
	f->eof = n == 0;
	return 0;
}

/* splice(2) does not get past the mark of urgent data, and calls it the end when there is a FIN
 * behind; recv(2) does. Until it finds nothing: there may be more marks. As recv(2). */
static ssize_t read_urgent(struct flow *f, struct side *from)
{
	char buf[4096]; /* a pipe takes it even when the kernel grants no more than a page */
	ssize_t n = recv(from->w.fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n <= 0)
		from->urgent = false;
	return n > 0 ? write(f->pipe.w, buf, (size_t)n) : n;
}

/* Socket to (empty) pipe. 1: something is in it; 0: nothing is there, or the end. */
static int flow_read(struct flow *f, struct side *from)
{
	ssize_t n;

	do
		n = splice(from->w.fd, NULL, f->pipe.w, NULL, CHUNK,
			SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
	while (n < 0 && errno == EINTR);
	/* Of a mark with an end behind it the event may still be on its way. */
	if (n == 0 || (n < 0 && errno == EAGAIN && from->urgent))
		n = read_urgent(f, from);
	if (n > 0) {
		f->in_pipe = (size_t)n;
		return 1;
	}
	return flow_drained(f, from, n);
}

/* No pipe is to be had: bytes wait, but the end is seen, or connections that are over would keep
 * the descriptors that a pipe needs. As flow_read(). */
static int flow_peek(struct flow *f, struct side *from)
{
	char byte;
	ssize_t n = recv(from->w.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	return n > 0 ? 1 : flow_drained(f, from, n);
}

static enum pumped pump(struct pipes *pipes, struct flow *f, struct side *from, struct side *to,
	_Atomic uint64_t *passed)
{
	uint64_t begun = atomic_load_explicit(passed, memory_order_relaxed);
	int rc;

	for (;;) {
		rc = flow_write(f, to, passed);
		if (rc < 0)
			return PUMP_BROKEN;
		if (rc == 0)
			return PUMP_WAITS;
		if (f->eof && !f->done) {
			f->done = true;
			shutdown(to->w.fd, SHUT_WR);
		}
		if (f->eof || !from->readable)
			return PUMP_WAITS;
		if (atomic_load_explicit(passed, memory_order_relaxed) - begun >= BUDGET)
			return PUMP_AGAIN;
		if (f->pipe.r >= 0 || pipe_take(pipes, &f->pipe) == 0)
			rc = flow_read(f, from);
		else if ((rc = flow_peek(f, from)) > 0)
			return PUMP_LACKS;
		if (rc < 0)
			return PUMP_BROKEN;
	}
}

static enum pumped pump_flow(struct conn *c, bool in)
{
	struct pipes *pipes = &c->door->gate->pipes;
	struct flow *f = in ? &c->in : &c->out;
	struct side *from = in ? &c->client : &c->server, *to = in ? &c->server : &c->client;
	_Atomic uint64_t *passed =
		in ? &c->door->counters->bytes_in : &c->door->counters->bytes_out;
	uint64_t begun = atomic_load_explicit(passed, memory_order_relaxed);
	enum pumped rc = pump(pipes, f, from, to, passed);

	if (f->in_pipe == 0)
		pipe_give(pipes, &f->pipe, true);
	if (atomic_load_explicit(passed, memory_order_relaxed) != begun)
		door_traffic(c->door);
	return rc;
}

/* As long as somebody is there to be given it. One that dies of it is not the end: what it has sent
 * is moved still. */
static enum pumped pump_to(struct conn *c, bool in)
{
	const struct side *to = in ? &c->server : &c->client;
	enum pumped rc = to->dead ? PUMP_WAITS : pump_flow(c, in);

	return rc == PUMP_BROKEN && to->dead ? PUMP_WAITS : rc;
}

/* With nothing to read, or nowhere to put what is there. */
static bool is_stuck(const struct conn *c, bool in)
{
	const struct flow *f = in ? &c->in : &c->out;
	const struct side *from = in ? &c->client : &c->server;
	const struct side *to = in ? &c->server : &c->client;

	return f->in_pipe ? !to->writable : f->eof || !from->readable;
}

void pass_events(struct conn *c, struct side *from, uint32_t events)
{
	struct loop *l = &c->door->gate->loop;
	enum pumped in, out;

	if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		from->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		from->writable = true;
	if (events & EPOLLPRI)
		from->urgent = true;
	if (events & EPOLLERR)
		from->dead = true;
	in = pump_to(c, true);
	out = pump_to(c, false);
	if (c->client.dead) /* perhaps since just now */
		in = pump_to(c, true);
	if (in == PUMP_BROKEN || out == PUMP_BROKEN || (c->client.dead && is_stuck(c, true)) ||
		(c->server.dead && is_stuck(c, false)))
		conn_reset(c);
	else if (c->in.done && c->out.done)
		conn_close(c);
	else if (in == PUMP_LACKS || out == PUMP_LACKS)
		timer_set(l, &c->timer, l->now + GATE_RETRY_MS);
	else if (in == PUMP_AGAIN || out == PUMP_AGAIN)
		loop_again(l, &c->client.w);
}

void pass_clear(struct conn *c)
{
	struct pipes *pipes = &c->door->gate->pipes;

	pipe_give(pipes, &c->in.pipe, c->in.in_pipe == 0);
	pipe_give(pipes, &c->out.pipe, c->out.in_pipe == 0);
	c->in.in_pipe = c->out.in_pipe = 0;
}
