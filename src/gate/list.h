/* Lists whose links lie in their members: to join and to leave costs nothing and cannot fail. */
#pragma once

#include "base/util.h"

struct list {
	struct list *prev, *next;
};

/* The structure that `ptr` is the member `member` of. */
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Empty as a list; as a link: in none. */
static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

/* Puts `l`, which is in no list, in front of `at`; `at` being the list itself: at its end. */
static inline void list_add(struct list *at, struct list *l)
{
	l->prev = at->prev;
	l->next = at;
	at->prev->next = l;
	at->prev = l;
}

static inline void list_del(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

/* The first member; NULL when there is none. */
#define list_first(l, type, member) (list_empty(l) ? NULL : container_of((l)->next, type, member))
