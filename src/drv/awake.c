#include "drv/awake.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/util.h"

#define HELD_UP_MS   250  /* more than a busy machine's usual delays */
#define READ_TIME_MS 50   /* between waking up and a deadline that was due */
#define TELL_MS      1000 /* shorter ones are nothing to people */

struct awake {
	uv_prepare_t prepare; /* the loop is about to wait */
	uv_check_t check;     /* it has waited, and read what there was */
	unsigned n_handles;
	uint64_t seen_ms;  /* when the clock was read last */
	uint64_t sleep_ms; /* how long we may have slept since then */
	uint64_t lost_ms;
};

uint64_t awake_now(struct awake *a)
{
	uint64_t now = clock_monotonic_ms(), expected = a->seen_ms + a->sleep_ms;

	if (now >= expected + HELD_UP_MS) {
		uint64_t lost = now - expected;

		if (lost >= TELL_MS)
			log_notice(
				"was held up for %" PRIu64 " ms; that time does not count", lost);
		a->lost_ms += lost + MIN(a->sleep_ms, (uint64_t)READ_TIME_MS);
	}
	a->seen_ms = now;
	a->sleep_ms = 0;
	return now - a->lost_ms;
}

static void on_prepare(uv_prepare_t *p)
{
	struct awake *a = p->data;
	int timeout = uv_backend_timeout(p->loop);

	awake_now(a);
	a->sleep_ms = timeout < 0 ? UINT32_MAX : (uint64_t)timeout;
}

static void on_check(uv_check_t *c)
{
	awake_now(c->data);
}

struct awake *awake_new(uv_loop_t *loop)
{
	struct awake *a = xcalloc(1, sizeof(*a));

	a->seen_ms = clock_monotonic_ms();
	uv_prepare_init(loop, &a->prepare);
	uv_check_init(loop, &a->check);
	a->n_handles = 2;
	a->prepare.data = a->check.data = a;
	uv_prepare_start(&a->prepare, on_prepare);
	uv_check_start(&a->check, on_check);
	uv_unref((uv_handle_t *)&a->prepare);
	uv_unref((uv_handle_t *)&a->check);
	return a;
}

static void on_closed(uv_handle_t *h)
{
	struct awake *a = h->data;

	if (--a->n_handles == 0)
		free(a);
}

void awake_free(struct awake *a)
{
	if (!a)
		return;
	uv_close((uv_handle_t *)&a->prepare, on_closed);
	uv_close((uv_handle_t *)&a->check, on_closed);
}
