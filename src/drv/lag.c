#include "drv/lag.h"

#include "base/util.h"

#define WINDOW_NS 10000000000u

/* Classes of durations in us: one each up to 3, from there on four to each power of two, the last
 * for all from 2^24 us (17 s) up. */
#define N_CLASSES (4 * 24 - 3)

struct window {
	uint64_t turns, max_ns;
	uint32_t counts[N_CLASSES];
};

struct loop_lag {
	uv_prepare_t prepare; /* runs once per turn, before the loop waits */
	uint64_t at_ns, idle_ns;
	uint64_t max_ns;
	uint64_t window_at_ns;
	struct window window, before;
};

static void turn_window(struct loop_lag *l, uint64_t now)
{
	if (now - l->window_at_ns < WINDOW_NS)
		return;
	l->before = now - l->window_at_ns < 2 * (uint64_t)WINDOW_NS ? l->window
								    : (struct window){.turns = 0};
	l->window = (struct window){.turns = 0};
	l->window_at_ns = now;
}

static size_t class_of(uint64_t us)
{
	unsigned power = us < 4 ? 1 : 63 - (unsigned)__builtin_clzll(us);

	return us < 4 ? us : MIN(4 * (power - 1) + (us >> (power - 2) & 3), N_CLASSES - 1u);
}

/* The longest that is in it. */
static uint64_t class_end(size_t k)
{
	return k < 4 ? k : ((5 + k % 4) << (k / 4 - 1)) - 1;
}

static void note(struct loop_lag *l, uint64_t ns)
{
	l->window.turns++;
	l->window.counts[class_of(ns / 1000)]++;
	l->window.max_ns = MAX(l->window.max_ns, ns);
	l->max_ns = MAX(l->max_ns, ns);
}

static void on_prepare(uv_prepare_t *p)
{
	struct loop_lag *l = p->data;
	uint64_t now = uv_hrtime(), idle = uv_metrics_idle_time(p->loop);

	turn_window(l, now);
	if (l->at_ns && now - l->at_ns > idle - l->idle_ns)
		note(l, now - l->at_ns - (idle - l->idle_ns));
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
	return MAX(l->window.max_ns, l->before.max_ns) / 1000000;
}

/* Of `percent` of the turns none was longer. */
static uint64_t percentile(const struct loop_lag *l, uint64_t turns, unsigned percent)
{
	uint64_t seen = 0;

	for (size_t k = 0; k < N_CLASSES; k++) {
		seen += l->window.counts[k] + l->before.counts[k];
		if (seen * 100 >= turns * percent)
			return class_end(k);
	}
	return 0;
}

struct loop_lag_spread loop_lag_spread(struct loop_lag *l)
{
	struct loop_lag_spread s = {.turns = 0};

	if (!l)
		return s;
	turn_window(l, uv_hrtime());
	s.turns = l->window.turns + l->before.turns;
	s.max_us = MAX(l->window.max_ns, l->before.max_ns) / 1000;
	s.p50_us = MIN(percentile(l, s.turns, 50), s.max_us);
	s.p99_us = MIN(percentile(l, s.turns, 99), s.max_us);
	return s;
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
