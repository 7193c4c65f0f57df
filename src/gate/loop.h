/* The gate's loop: raw epoll, edge-triggered, and timers. libuv would be level-triggered, and its
 * handles alone several times as large as all that a connection needs here.
 *
 * Edge-triggered: who is told of an event reads (or writes) until EAGAIN, or asks to be called
 * again with loop_again(). All those take turns, with what is new in between.
 *
 * Everything may be unwatched and freed at any time, also by the callback of another. */
#pragma once

#include <sys/epoll.h>

#include "gate/list.h"

struct watch {
	int fd; /* the owner's; -1: none */
	bool added;
	void (*on)(struct watch *w, uint32_t events); /* EPOLL*; 0: its turn, as it had asked */
	struct list turn;
};

struct timer {
	uint64_t due; /* CLOCK_MONOTONIC, ms */
	void (*on)(struct timer *t);
	struct list link;
};

#define LOOP_BATCH 64
/* Full batches one after the other, and ms since the first, after which timers are told anyway. */
#define LOOP_FULL    16
#define LOOP_FULL_MS 50

struct loop {
	int epoll;
	bool end;
	uint64_t now; /* of this turn */
	struct list timers;
	struct list turns;
	struct epoll_event batch[LOOP_BATCH];
	int n_batch, at; /* of the batch being told */
	unsigned full;   /* so many batches were full */
	uint64_t full_since;
};

/* 0 or a negative errno. */
int loop_init(struct loop *l);
void loop_free(struct loop *l);
/* Until `end` is set. */
void loop_run(struct loop *l);

void watch_init(struct watch *w, void (*on)(struct watch *w, uint32_t events));
/* From now on told of `events` (and always EPOLLERR, EPOLLHUP) of `fd`; once more changes them.
 * 0 or a negative errno. */
int loop_watch(struct loop *l, struct watch *w, int fd, uint32_t events);
/* No more; the descriptor stays open, and in w->fd. Also takes back loop_again(). */
void loop_unwatch(struct loop *l, struct watch *w);
/* Calls it again, with 0, once the others had their turn. */
void loop_again(struct loop *l, struct watch *w);

void timer_init(struct timer *t, void (*on)(struct timer *t));
/* Calls once, at `due` or as soon after as the loop turns; replaces what was set. */
void timer_set(struct loop *l, struct timer *t, uint64_t due);
void timer_stop(struct timer *t);
static inline bool timer_is_set(const struct timer *t)
{
	return !list_empty(&t->link);
}
