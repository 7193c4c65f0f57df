/* What takes the loop's time: preparing and launching generations, writing down how they ended,
 * removing what they leave. For a thousand nodes that would be seconds in which nobody is polled
 * and no loss is seen, so it is done piece by piece, a few ms in a turn of the loop, in the order
 * in which clouds came to need it. */
#include "core/internal.h"

#define SLICE_NS UINT64_C(3000000)

struct work {
	uv_idle_t idle; /* active while there is something to do: the loop does not wait then */
	struct supervised *first, *last;
};

static bool has_work(const struct supervised *s)
{
	return s->work.keep || s->work.clean || s->work.prepare || s->work.launches;
}

static void do_piece(struct supervised *s)
{
	if (s->work.keep)
		supervised_keep_now(s);
	else if (s->work.clean)
		clean_now(s);
	else if (s->work.prepare)
		launch_prepare_now(s);
	else if (s->work.launches)
		launch_next_now(s);
}

static void take_first(struct work *w)
{
	struct supervised *s = w->first;

	w->first = s->work.next;
	if (!w->first)
		w->last = NULL;
	s->work.next = NULL;
	s->work.queued = false;
}

static void work_until(struct work *w, uint64_t end_ns)
{
	while (w->first && uv_hrtime() < end_ns) {
		struct supervised *s = w->first;

		if (has_work(s))
			do_piece(s);
		else
			take_first(w);
	}
	if (!w->first)
		uv_idle_stop(&w->idle);
}

static void on_idle(uv_idle_t *idle)
{
	work_until(idle->data, uv_hrtime() + SLICE_NS);
}

void work_finish(struct fleet *f)
{
	work_until(f->work, UINT64_MAX);
}

void work_soon(struct supervised *s)
{
	struct work *w = s->fleet->work;

	if (s->work.queued)
		return;
	s->work.queued = true;
	if (w->last)
		w->last->work.next = s;
	else
		w->first = s;
	w->last = s;
	uv_idle_start(&w->idle, on_idle);
}

void work_forget(struct supervised *s)
{
	struct work *w = s->fleet->work;
	struct supervised *before = NULL;

	if (!s->work.queued)
		return;
	if (w->first == s) {
		take_first(w);
		return;
	}
	for (before = w->first; before->work.next != s;)
		before = before->work.next;
	before->work.next = s->work.next;
	if (w->last == s)
		w->last = before;
	s->work.queued = false;
}

void work_new(struct fleet *f)
{
	f->work = xcalloc(1, sizeof(*f->work));
	uv_idle_init(f->loop, &f->work->idle);
	f->work->idle.data = f->work;
}

static void on_closed(uv_handle_t *h)
{
	free(h->data);
}

void work_free(struct fleet *f)
{
	uv_close((uv_handle_t *)&f->work->idle, on_closed);
}
