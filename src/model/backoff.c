#include "model/backoff.h"

#define FIRST_STEP_MS 1000

void backoff_record(struct failure_history *h, const struct limit_spec *limit, uint64_t now_ms)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < h->n; i++)
		if (h->at_ms[i] + limit->window_ms > now_ms)
			h->at_ms[kept++] = h->at_ms[i];
	if (kept == ARRAY_SIZE(h->at_ms)) {
		memmove(h->at_ms, h->at_ms + 1, sizeof(h->at_ms) - sizeof(h->at_ms[0]));
		kept--;
	}
	h->at_ms[kept++] = now_ms;
	h->n = kept;
}

bool backoff_exhausted(const struct failure_history *h, const struct limit_spec *limit)
{
	return h->n >= limit->count;
}

uint64_t backoff_delay(
	const struct failure_history *h, const struct cloud_conf *conf, uint64_t *rng)
{
	uint64_t delay = conf->restart_delay_ms;

	if (h->n > 1) {
		delay = MAX(delay, (uint64_t)FIRST_STEP_MS);
		for (unsigned i = 2; i < h->n && delay < conf->restart_delay_max_ms; i++)
			delay *= 2;
	}
	delay = MIN(delay, conf->restart_delay_max_ms);
	return delay * 3 / 4 + (delay ? rng_next(rng) % (delay / 2 + 1) : 0);
}
