#include "drv/lag.h"

#include "base/util.h"

struct loop_lag {
	uv_prepare_t prepare; /* runs once per turn, before the loop waits */
	uint64_t at_ns, idle_ns;
	uint64_t max_ns;
};

static void on_prepare(uv_prepare_t *p)
{
	struct loop_lag *l = p->data;
	uint64_t now = uv_hrtime(), idle = uv_metrics_idle_time(p->loop);

	if (l->at_ns && now - l->at_ns > idle - l->idle_ns)
		l->max_ns = MAX(l->max_ns, now - l->at_ns - (idle - l->idle_ns));
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

static void on_closed(uv_handle_t *h)
{
	free(h->data);
}

void loop_lag_free(struct loop_lag *l)
{
	if (l)
		uv_close((uv_handle_t *)&l->prepare, on_closed);
}
