#include "gate/loop.h"

#include <errno.h>
#include <limits.h>

#include "base/clock.h"

int loop_init(struct loop *l)
{
	*l = (struct loop){.epoll = epoll_create1(EPOLL_CLOEXEC)};
	list_init(&l->timers);
	list_init(&l->turns);
	l->now = clock_monotonic_ms();
	return l->epoll < 0 ? -errno : 0;
}

void loop_free(struct loop *l)
{
	closep(&l->epoll);
	l->epoll = -1;
}

void watch_init(struct watch *w, void (*on)(struct watch *w, uint32_t events))
{
	*w = (struct watch){.fd = -1, .on = on};
	list_init(&w->turn);
}

int loop_watch(struct loop *l, struct watch *w, int fd, uint32_t events)
{
	struct epoll_event e = {.events = events | EPOLLET, .data.ptr = w};

	if (epoll_ctl(l->epoll, w->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e) < 0)
		return -errno;
	w->fd = fd;
	w->added = true;
	return 0;
}

void loop_unwatch(struct loop *l, struct watch *w)
{
	list_del(&w->turn);
	if (!w->added)
		return;
	w->added = false;
	epoll_ctl(l->epoll, EPOLL_CTL_DEL, w->fd, NULL);
	/* What has been fetched but not yet told. */
	for (int i = l->at; i < l->n_batch; i++)
		if (l->batch[i].data.ptr == w)
			l->batch[i].data.ptr = NULL;
}

void loop_again(struct loop *l, struct watch *w)
{
	if (list_empty(&w->turn))
		list_add(&l->turns, &w->turn);
}

void timer_init(struct timer *t, void (*on)(struct timer *t))
{
	*t = (struct timer){.on = on};
	list_init(&t->link);
}

/* The list is in order of time. Most deadlines are as far off as the one before, so the place is
 * looked for from the end. */
void timer_set(struct loop *l, struct timer *t, uint64_t due)
{
	struct list *at = &l->timers;

	list_del(&t->link);
	while (at->prev != &l->timers && container_of(at->prev, struct timer, link)->due > due)
		at = at->prev;
	t->due = due;
	list_add(at, &t->link);
}

void timer_stop(struct timer *t)
{
	list_del(&t->link);
}

/* For epoll_wait(2). */
static int timeout(struct loop *l)
{
	struct timer *first = list_first(&l->timers, struct timer, link);
	uint64_t now;

	if (!list_empty(&l->turns))
		return 0;
	if (!first)
		return -1;
	now = clock_monotonic_ms();
	return first->due <= now ? 0 : (int)MIN(first->due - now, (uint64_t)INT_MAX);
}

static void tell_events(struct loop *l)
{
	for (l->at = 0; l->at < l->n_batch;) {
		struct epoll_event *e = &l->batch[l->at++];
		struct watch *w = e->data.ptr;

		if (w)
			w->on(w, e->events);
	}
	l->n_batch = 0;
}

/* Those that asked before this; who asks again has the next turn. */
static void give_turns(struct loop *l)
{
	struct list now;
	struct watch *w;

	if (list_empty(&l->turns))
		return;
	now = l->turns;
	now.next->prev = now.prev->next = &now;
	list_init(&l->turns);
	while ((w = list_first(&now, struct watch, turn))) {
		list_del(&w->turn);
		w->on(w, 0);
	}
}

static void tell_timers(struct loop *l)
{
	struct timer *t;

	while ((t = list_first(&l->timers, struct timer, link)) && t->due <= l->now) {
		timer_stop(t);
		t->on(t);
	}
}

/* A full batch: there may be more to read before a deadline is believed. But where so many always
 * have something to say the deadlines would never have their turn. */
static bool may_be_late(struct loop *l, int n)
{
	l->full = n < LOOP_BATCH ? 0 : l->full + 1;
	if (l->full == 1)
		l->full_since = l->now;
	return l->full > 0 && (l->full < LOOP_FULL || l->now < l->full_since + LOOP_FULL_MS);
}

/* Timers come last: when we could not run for a while (stopped, no processor), what arrived
 * meanwhile counts before what ran out. */
void loop_run(struct loop *l)
{
	while (!l->end) {
		int n = epoll_wait(l->epoll, l->batch, LOOP_BATCH, timeout(l));

		l->n_batch = MAX(n, 0);
		l->now = clock_monotonic_ms();
		tell_events(l);
		give_turns(l);
		if (!may_be_late(l, n))
			tell_timers(l);
	}
}
