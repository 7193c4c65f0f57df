/* The jobs of a cloud over the control protocol; what H2O says is the fake fleet's. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "api_fixture.h"

static json_t *some_jobs(void)
{
	return json_pack("[{s:s, s:b}, {s:s, s:b}]", "id", "$03_a", "running", 1, "id", "$03_b",
		"running", 0);
}

/* Whoever asks waits for H2O, and is answered when the fleet tells that it has. */
static void test_waits(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};
	json_t *list = some_jobs();
	int fd;

	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	fd = ask(f, "GET", "/v1/clouds/dev/jobs");
	until_waiting(f, 1);
	f->fleet->jobs = (struct fleet_jobs){.list = list, .total = 700, .locked = true};
	f->fleet->jobs_known = true;
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	assert_null(f->api->waiters);
	r = take_reply(f, fd);
	json_decref(list);
	assert_int_equal(r.status, 200);
	assert_int_equal(json_integer_value(json_object_get(r.json, "total")), 700);
	assert_int_equal(json_array_size(json_object_get(r.json, "jobs")), 2);
	assert_true(json_is_true(json_object_get(r.json, "locked")));
}

/* Where there is nothing to ask, nobody waits; also not when that comes while he waits. */
static void test_not_usable(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply stopped = {0}, forming = {0}, failed = {0}, none = {0};
	int fd;

	stopped = get(f, "GET", "/v1/clouds/dev/jobs");
	assert_problem(&stopped, 409, "cloud-stopped");
	fake_fleet_set(f->fleet, f->dev, CLOUD_FORMING, "booting");
	forming = get(f, "GET", "/v1/clouds/dev/jobs");
	assert_problem(&forming, 409, "cloud-not-ready");
	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	fd = ask(f, "GET", "/v1/clouds/dev/jobs");
	until_waiting(f, 1);
	fake_fleet_set(f->fleet, f->dev, CLOUD_FAILED, "gone");
	failed = take_reply(f, fd);
	assert_problem(&failed, 409, "cloud-failed");
	none = get(f, "GET", "/v1/clouds/nix/jobs");
	assert_problem(&none, 404, "no-such-cloud");
}

static void test_no_answer(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = {0};

	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	f->fleet->jobs = (struct fleet_jobs){.locked = true, .error = "it \x1b sleeps"};
	f->fleet->jobs_known = true;
	r = get(f, "GET", "/v1/clouds/dev/jobs");
	assert_problem(&r, 502, "h2o-unreachable");
	assert_non_null(strstr(field(&r, "detail"), "it \\x1b sleeps"));
}

/* Only what runs is told to stop; an id may need escapes. */
static void test_cancel(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply one = {0}, two = {0}, none = {0}, busy = {0};
	json_t *list = some_jobs();

	fake_fleet_set(f->fleet, f->dev, CLOUD_READY, NULL);
	f->fleet->jobs = (struct fleet_jobs){.list = list, .total = 2, .locked = true};
	f->fleet->jobs_known = true;
	two = get(f, "POST", "/v1/clouds/dev/jobs/$03_b/cancel");
	assert_int_equal(two.status, 202);
	assert_string_equal(f->fleet->cancelled, "");
	one = get(f, "POST", "/v1/clouds/dev/jobs/%2403_a/cancel");
	assert_int_equal(one.status, 202);
	assert_string_equal(f->fleet->cancelled, "$03_a");
	assert_string_equal(field(&one, "id"), "$03_a");
	none = get(f, "POST", "/v1/clouds/dev/jobs/nix/cancel");
	assert_problem(&none, 404, "no-such-job");
	f->fleet->cancel_result = -EBUSY;
	busy = get(f, "POST", "/v1/clouds/dev/jobs/$03_a/cancel");
	assert_problem(&busy, 502, "h2o-unreachable");
	json_decref(list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_waits),
		TEST(test_not_usable),
		TEST(test_no_answer),
		TEST(test_cancel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
