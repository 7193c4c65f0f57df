#include <stdio.h>

#include "gate/gate.h"

/* More users than that are not told of one by one. */
#define MAX_REPORTS 64

/* What is to be said of one user, or of member 0. */
struct report {
	struct list link;
	struct door *door;
	uid_t uid;       /* of "refused" */
	const char *why; /* the latest; of "refused" */
	int error;       /* of "unreachable"; 0: it is "refused" */
	uint64_t count;
	struct timer timer; /* nothing is said before */
};

static bool say(struct report *r)
{
	json_t *body;
	bool told;

	if (r->error)
		body = json_pack("{s:s, s:s, s:s, s:I}", "op", "unreachable", "cloud",
			r->door->conf.cloud, "error", strerror(r->error), "count",
			(json_int_t)r->count);
	else
		body = json_pack("{s:s, s:s, s:o, s:s, s:I}", "op", "refused", "cloud",
			r->door->conf.cloud, "uid",
			r->uid == UID_UNKNOWN ? json_null() : json_integer(r->uid), "why", r->why,
			"count", (json_int_t)r->count);
	told = control_tell(r->door->gate, body);
	json_decref(body);
	if (told)
		r->count = 0;
	return told;
}

static void forget(struct report *r)
{
	timer_stop(&r->timer);
	list_del(&r->link);
	free(r);
}

/* Who was quiet for that long is news when he comes again. What could not be told waits for the
 * next daemon. */
static void on_timer(struct timer *t)
{
	struct report *r = container_of(t, struct report, timer);
	struct loop *l = &r->door->gate->loop;

	if (r->count == 0)
		forget(r);
	else if (say(r))
		timer_set(l, &r->timer, l->now + GATE_REPORT_MS);
}

static void report(struct door *d, uid_t uid, const char *why, int error)
{
	struct loop *l = &d->gate->loop;
	struct report *r = NULL;
	unsigned n = 0;

	for (struct list *i = d->reports.next; i != &d->reports; i = i->next, n++) {
		r = container_of(i, struct report, link);
		if (!r->error == !error && r->uid == uid)
			break;
		r = NULL;
	}
	if (!r && n >= MAX_REPORTS)
		return; /* the counters have it */
	if (!r) {
		r = xcalloc(1, sizeof(*r));
		r->door = d;
		r->uid = uid;
		timer_init(&r->timer, on_timer);
		list_add(&d->reports, &r->link);
	}
	r->why = why;
	r->error = error;
	r->count++;
	if (!timer_is_set(&r->timer) && say(r))
		timer_set(l, &r->timer, l->now + GATE_REPORT_MS);
}

void report_refused(struct door *d, uid_t uid, const char *why)
{
	report(d, uid, why, 0);
}

void report_unreachable(struct door *d, int error)
{
	report(d, UID_UNKNOWN, NULL, error);
}

void reports_flush(struct door *d)
{
	struct loop *l = &d->gate->loop;

	for (struct list *i = d->reports.next; i != &d->reports; i = i->next) {
		struct report *r = container_of(i, struct report, link);

		if (r->count && !timer_is_set(&r->timer) && say(r))
			timer_set(l, &r->timer, l->now + GATE_REPORT_MS);
	}
}

void reports_free(struct door *d)
{
	struct report *r;

	while ((r = list_first(&d->reports, struct report, link)))
		forget(r);
}
