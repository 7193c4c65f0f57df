/* Requests that wait for a cloud. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>

#include "api_fixture.h"
#include "base/clock.h"

static void test_wait_resolved_by_observer(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	int fd = ask(f, "POST", "/v1/clouds/dev/start?wait=ready&timeout=60s");

	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_FORMING, NULL);
	turn(f, -1, 0);
	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	assert_null(f->api->waiters);
	/* The answer shows the moment that it waited for, whatever came then. */
	fake_fleet_set(f->fleet, f->dev, CLOUD_RECOVERING, "lost");
	r = take_reply(f, fd);
	assert_int_equal(r.status, 200);
	assert_string_equal(field(&r, "state"), "ready");
	assert_string_equal(field(&r, "endpoint"), "http://127.0.0.1:54321");
}

static void test_wait_reached_already(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply stopped = {0}, ready = {0}, failed = {0};

	stopped = get(f, "POST", "/v1/clouds/dev/stop?wait=stopped");
	assert_int_equal(stopped.status, 200);
	fake_fleet_set(f->fleet, f->dev, CLOUD_DEGRADED, "late");
	ready = get(f, "GET", "/v1/clouds/dev?wait=ready&timeout=0");
	assert_int_equal(ready.status, 200);
	fake_fleet_set(f->fleet, f->dev, CLOUD_FAILED, "gave up");
	failed = get(f, "GET", "/v1/clouds/dev?wait=stopped");
	assert_int_equal(failed.status, 200);
}

static void test_wait_others_untouched(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	int one, two, three;

	f->dev->wanted = f->fleet->clouds[1]->wanted = WANTED_RUNNING;
	one = ask(f, "GET", "/v1/clouds/other?wait=ready");
	two = ask(f, "GET", "/v1/clouds/dev?wait=ready");
	three = ask(f, "GET", "/v1/clouds/dev?wait=ready");
	until_waiting(f, 3);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	until_waiting(f, 1);
	r = take_reply(f, two);
	assert_string_equal(field(&r, "name"), "dev");
	reply_free(&r);
	r = take_reply(f, three);
	assert_string_equal(field(&r, "name"), "dev");
	reply_free(&r);
	fake_fleet_set(f->fleet, f->fleet->clouds[1], CLOUD_READY, NULL);
	r = take_reply(f, one);
	assert_string_equal(field(&r, "name"), "other");
}

static void test_wait_failed(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0}, at_once = {0};
	int fd = ask(f, "POST", "/v1/clouds/dev/start?wait=ready");

	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_FAILED, "5 failures within 10m");
	r = take_reply(f, fd);
	assert_problem(&r, 409, "cloud-failed");
	assert_string_equal(field(&r, "detail"), "cloud 'dev' failed: 5 failures within 10m");
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(r.json, "cloud"), "state")),
		"failed");
	at_once = get(f, "GET", "/v1/clouds/dev?wait=ready");
	assert_problem(&at_once, 409, "cloud-failed");
}

/* Nobody has started it, so there is nothing to wait for. */
static void test_wait_for_a_stopped_cloud(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};

	r = get(f, "GET", "/v1/clouds/dev?wait=ready");
	assert_problem(&r, 409, "cloud-stopped");
	assert_string_equal(
		field(&r, "detail"), "cloud 'dev' is stopped, and nobody has started it");
}

static void test_wait_timeout_in_backoff(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};

	fake_fleet_set(f->fleet, f->dev, CLOUD_BACKOFF, "no room");
	r = get(f, "GET", "/v1/clouds/dev?wait=ready&timeout=1ms");
	assert_problem(&r, 504, "wait-timeout");
	assert_string_equal(field(&r, "detail"),
		"cloud 'dev' waits before its next start, not yet ready after 1ms (--timeout): "
		"no room");
}

/* Who started it is told when somebody else stops it, who only waits too; not when it comes back.
 */
static void test_wait_stopped_by_another(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0}, later = {0};
	int started = ask(f, "POST", "/v1/clouds/dev/start?wait=ready"), waiting;

	until_waiting(f, 1);
	waiting = ask(f, "GET", "/v1/clouds/dev?wait=ready");
	until_waiting(f, 2);
	fake_fleet_set(f->fleet, f->dev, CLOUD_STOPPING, NULL);
	fake_fleet_set(f->fleet, f->dev, CLOUD_STOPPED, NULL);
	r = take_reply(f, started);
	assert_problem(&r, 409, "cloud-stopped");
	until_waiting(f, 1);
	f->dev->wanted = WANTED_STOPPED;
	fake_fleet_set(f->fleet, f->dev, CLOUD_STOPPED, "a client shut it down");
	later = take_reply(f, waiting);
	assert_problem(&later, 409, "cloud-stopped");
	assert_string_equal(
		field(&later, "detail"), "cloud 'dev' is stopped: a client shut it down");
}

/* The fleet may carry a command out a little later: neither the readiness before a restart nor the
 * stop before a start is the answer. */
static void test_wait_for_lazy_fleet(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply started = {0}, restarted = {0};
	int fd;

	f->fleet->lazy = true;
	fd = ask(f, "POST", "/v1/clouds/dev/start?wait=ready");
	until_waiting(f, 1);
	f->dev->generation = 1;
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	started = take_reply(f, fd);
	assert_int_equal(started.status, 200);

	fd = ask(f, "POST", "/v1/clouds/dev/restart?wait=ready");
	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_STOPPING, NULL);
	f->dev->generation = 2;
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	restarted = take_reply(f, fd);
	assert_int_equal(restarted.status, 200);
	assert_int_equal(json_integer_value(json_object_get(restarted.json, "generation")), 2);
}

static void test_wait_timeout(void **state)
{
	struct fixture *f = *state;
	uint64_t begin = clock_monotonic_ms();
	_cleanup_(reply_free) struct reply r = {0};

	r = get(f, "POST", "/v1/clouds/dev/start?wait=ready&timeout=300ms");
	assert_problem(&r, 504, "wait-timeout");
	assert_string_equal(field(&r, "detail"),
		"cloud 'dev' is starting, not yet ready after 300ms (--timeout)");
	assert_true(clock_monotonic_ms() - begin >= 300);
	assert_non_null(json_object_get(r.json, "cloud"));
	assert_false(uv_is_active((uv_handle_t *)&f->api->wait_timer));
}

static void test_wait_client_gone(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	int gone, half;

	f->dev->wanted = WANTED_RUNNING;
	gone = ask(f, "GET", "/v1/clouds/dev?wait=ready");
	half = ask(f, "GET", "/v1/clouds/dev?wait=ready");
	until_waiting(f, 2);
	close(gone);
	shutdown(half, SHUT_WR); /* still reads */
	until_waiting(f, 1);
	while (f->api->peers.own > 1)
		turn(f, -1, 0);
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	r = take_reply(f, half);
	assert_int_equal(r.status, 200);
}

static void test_free_while_waiting(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	int fd = ask(f, "GET", "/v1/clouds/dev?wait=stopped");

	f->dev->state = CLOUD_READY;
	until_waiting(f, 1);
	end_api(f);
	r = take_reply(f, fd);
	assert_problem(&r, 503, "shutting-down");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_wait_resolved_by_observer),
		TEST(test_wait_reached_already),
		TEST(test_wait_others_untouched),
		TEST(test_wait_failed),
		TEST(test_wait_stopped_by_another),
		TEST(test_wait_for_lazy_fleet),
		TEST(test_wait_timeout),
		TEST(test_wait_timeout_in_backoff),
		TEST(test_wait_for_a_stopped_cloud),
		TEST(test_wait_client_gone),
		TEST(test_free_while_waiting),
	};

	if (argc > 1) /* just one of them, for a debugger */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
