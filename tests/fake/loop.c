/* Timers and the poll loop. */
#include "fake.h"

#include <errno.h>
#include <poll.h>
#include <sys/signalfd.h>

#include "base/clock.h"

#define MAX_TIMERS 64

struct timer {
	uint64_t due;
	timer_fn fn; /* NULL: free */
	int64_t arg;
};

static struct timer timers[MAX_TIMERS];

void timer_after(uint64_t ms, timer_fn fn, int64_t arg)
{
	for (size_t i = 0; i < MAX_TIMERS; i++) {
		if (timers[i].fn)
			continue;
		timers[i] = (struct timer){clock_monotonic_ms() + ms, fn, arg};
		return;
	}
	fprintf(stderr, "fakejava: too many timers\n");
	abort();
}

/* Runs what is due, earliest first; returns ms until the next, or -1. */
static int run_timers(struct node *n)
{
	for (;;) {
		uint64_t now = clock_monotonic_ms();
		struct timer *next = NULL;

		for (size_t i = 0; i < MAX_TIMERS; i++)
			if (timers[i].fn && (!next || timers[i].due < next->due))
				next = &timers[i];
		if (!next)
			return -1;
		if (next->due > now)
			return (int)MIN(next->due - now, (uint64_t)60000);
		timer_fn fn = next->fn;
		next->fn = NULL;
		fn(n, next->arg);
	}
}

static void read_signal(struct node *n)
{
	struct signalfd_siginfo si;

	while (read(n->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		on_signal(n, (int)si.ssi_signo);
}

static size_t poll_set(const struct node *n, struct pollfd *p, size_t *first_conn)
{
	size_t k = 0;

	p[k++] = (struct pollfd){n->signal_fd, POLLIN, 0};
	p[k++] = (struct pollfd){n->api_fd, POLLIN, 0};
	p[k++] = (struct pollfd){n->internal_fd, POLLIN, 0};
	p[k++] = (struct pollfd){n->g.started ? n->g.fd : -1, POLLIN, 0};
	*first_conn = k;
	for (size_t i = 0; i < MAX_CONNS; i++) {
		const struct conn *c = &n->conns[i];

		p[k++] =
			(struct pollfd){c->fd, (short)(POLLIN | (c->out.len > 0 ? POLLOUT : 0)), 0};
	}
	return k;
}

static void serve(struct node *n, const struct pollfd *p, size_t first_conn)
{
	if (p[0].revents)
		read_signal(n);
	/* A listener may have been closed meanwhile by a knob. */
	if (p[1].revents && p[1].fd == n->api_fd)
		http_accept(n, n->api_fd, false);
	if (p[2].revents)
		http_accept(n, n->internal_fd, true);
	if (p[3].revents & POLLERR)
		gossip_poll_errors(n);
	if (p[3].revents & POLLIN)
		gossip_receive(n);
	for (size_t i = 0; i < MAX_CONNS; i++) {
		const struct pollfd *q = &p[first_conn + i];
		struct conn *c = &n->conns[i];

		if (q->fd < 0 || q->fd != c->fd)
			continue;
		if (q->revents & (POLLIN | POLLHUP | POLLERR))
			http_read(n, c);
		if (c->fd == q->fd && (q->revents & POLLOUT))
			http_write(n, c);
	}
}

void loop_run(struct node *n)
{
	static struct pollfd p[4 + MAX_CONNS];

	for (;;) {
		int timeout = run_timers(n);
		int delayed = http_pass(n);
		size_t first_conn, k = poll_set(n, p, &first_conn);

		if (delayed >= 0 && (timeout < 0 || delayed < timeout))
			timeout = delayed;
		if (knob(n, KNOB_spin))
			timeout = 0;
		if (poll(p, (nfds_t)k, timeout) < 0 && errno != EINTR) {
			perror("fakejava: poll");
			abort();
		}
		serve(n, p, first_conn);
	}
}
