/* Proves what lag.h promises, with a loop that really is held up. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "drv/lag.h"
#include "drv_test.h"

struct scene {
	uv_loop_t loop;
	uv_timer_t timer;
	struct loop_lag *lag;
	unsigned turns, long_every;
};

#define TURNS   400
#define LONG_MS 5

/* Every so many turns busy for a while, else at once done. */
static void on_timer(uv_timer_t *t)
{
	struct scene *s = t->data;
	uint64_t end = uv_hrtime() + LONG_MS * 1000000u;

	if (++s->turns == TURNS)
		uv_timer_stop(t);
	while (s->turns % s->long_every == 0 && uv_hrtime() < end)
		;
}

static struct loop_lag_spread spread_of(unsigned long_every)
{
	struct scene s = {.long_every = long_every};
	struct loop_lag_spread spread;

	assert_int_equal(uv_loop_init(&s.loop), 0);
	s.lag = loop_lag_new(&s.loop);
	assert_non_null(s.lag);
	uv_timer_init(&s.loop, &s.timer);
	s.timer.data = &s;
	uv_timer_start(&s.timer, on_timer, 1, 1);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	spread = loop_lag_spread(s.lag);
	assert_in_range(loop_lag_ms(s.lag), LONG_MS, UINT32_MAX);
	assert_in_range(loop_lag_recent_ms(s.lag), LONG_MS, UINT32_MAX);
	uv_close((uv_handle_t *)&s.timer, NULL);
	loop_lag_free(s.lag);
	finish_loop(&s.loop);
	return spread;
}

/* One long turn of four hundred is the longest, and none of the 99 %; one of ten is among them, and
 * half are short all the same. */
static void test_spread(_unused_ void **state)
{
	struct loop_lag_spread rare = spread_of(TURNS), often = spread_of(10);

	assert_in_range(rare.turns, TURNS - 2, UINT32_MAX);
	assert_in_range(rare.max_us, LONG_MS * 1000, UINT32_MAX);
	assert_in_range(often.p99_us, LONG_MS * 1000, often.max_us);
	assert_in_range(often.p50_us, 0, LONG_MS * 1000 - 1);
	assert_in_range(rare.p50_us, 0, rare.p99_us);
}

static void test_none(_unused_ void **state)
{
	assert_int_equal(loop_lag_ms(NULL), 0);
	assert_int_equal(loop_lag_spread(NULL).turns, 0);
	loop_lag_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spread), cmocka_unit_test(test_none)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
