#include "drv/lag.h"

#include "base/util.h"

struct loop_lag {
	uv_prepare_t prepare; /* runs once per turn, before the loop waits */
	uint64_t at_ns, idle_ns;
	uint64_t max_ns;
	/* The longest of this window and of the one before. */
	uint64_t window_at_ns, window_ns, before_ns;
};

#define WINDOW_NS 10000000000u

static void turn_window(struct loop_lag *l, uint64_t now)
{
	if (now - l->window_at_ns < WINDOW_NS)
		return;
	l->before_ns = now - l->window_at_ns < 2 * (uint64_t)WINDOW_NS ? l->window_ns : 0;
	l->window_ns = 0;
	l->window_at_ns = now;
}

static void on_prepare(uv_prepare_t *p)
{
	struct loop_lag *l = p->data;
	uint64_t now = uv_hrtime(), idle = uv_metrics_idle_time(p->loop);

	turn_window(l, now);
	if (l->at_ns && now - l->at_ns > idle - l->idle_ns)
		l->window_ns = MAX(l->window_ns, now - l->at_ns - (idle - l->idle_ns));
	l->max_ns = MAX(l->max_ns, l->window_ns);
	l->at_ns = now;
	l->idle_ns = idle;
}

struct loop_lag *loop_lag_new(uv_loop_t *loop)
{
	struct loop_lag *l;

	if (uv_loop_configure(loop, UV_METRICS_IDLE_TIME) < 0)
		return NULL;
	l = xcalloc(1, sizeof(*l));
	uv_prepare_init(loop, &l->prepare);
	l->prepare.data = l;
	uv_prepare_start(&l->prepare, on_prepare);
	uv_unref((uv_handle_t *)&l->prepare);
	return l;
}

uint64_t loop_lag_ms(const struct loop_lag *l)
{
	return l ? l->max_ns / 1000000 : 0;
}

uint64_t loop_lag_recent_ms(struct loop_lag *l)
{
	if (!l)
		return 0;
	turn_window(l, uv_hrtime());
	return MAX(l->window_ns, l->before_ns) / 1000000;
}

static void on_closed(uv_handle_t *h)
{
	free(h->data);
}

void loop_lag_free(struct loop_lag *l)
{
	if (l)
		uv_close((uv_handle_t *)&l->prepare, on_closed);
}
