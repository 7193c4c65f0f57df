/* POST /v1/reload: what is asked for, how it is told; and requests about a cloud that is being
 * removed. */
#include "cmocka_all.h"

#include <errno.h>

#include "api_fixture.h"

/* What the daemon would do. */
struct fake_daemon {
	struct reload_options asked;
	unsigned calls;
	int result;
	const char *errors[3];
	struct conf *before, *after; /* owned; NULL: nothing changed */
};

static int fake_reload(const struct reload_options *opts, struct reload_report *out, void *arg)
{
	struct fake_daemon *d = arg;

	d->asked = *opts;
	d->calls++;
	for (size_t i = 0; i < ARRAY_SIZE(d->errors) && d->errors[i]; i++)
		strv_add(&out->errors, d->errors[i]);
	if (d->result == 0 && d->before)
		conf_diff_make(d->before, d->after, &out->diff);
	return d->result;
}

static struct conf *one_cloud(void)
{
	struct conf *c = xcalloc(1, sizeof(*c));

	keys_set_defaults(SECTION_FLEET, &c->fleet);
	c->clouds = xcalloc(1, sizeof(struct cloud_conf *));
	c->clouds[c->n_clouds++] = cloud_conf_new("dev");
	return c;
}

static void test_parameters(void **state)
{
	struct fixture *f = *state;
	struct fake_daemon d = {0};
	_cleanup_(reply_free) struct reply none = get(f, "POST", "/v1/reload");

	assert_problem(&none, 501, "not-here");
	api_set_reload(f->api, fake_reload, &d);
	for (unsigned i = 0; i < 4; i++) {
		_cleanup_free_ char *target = xasprintf("/v1/reload?dry_run=%s&restart=%s",
			i & 1 ? "yes" : "no", i & 2 ? "yes" : "no");
		_cleanup_(reply_free) struct reply r = get(f, "POST", target);

		assert_int_equal(r.status, 200);
		assert_int_equal(d.asked.dry_run, (i & 1) != 0);
		assert_int_equal(d.asked.restart, (i & 2) != 0);
		assert_int_equal(json_is_true(json_object_get(r.json, "dry_run")), (i & 1) != 0);
	}
	assert_int_equal(d.calls, 4);
	_cleanup_(reply_free) struct reply bad = get(f, "POST", "/v1/reload?restart=1");
	_cleanup_(reply_free) struct reply got = get(f, "GET", "/v1/reload");
	assert_problem(&bad, 400, "bad-parameter");
	assert_problem(&got, 405, "method-not-allowed");
	assert_int_equal(d.calls, 4);
}

/* Proves: the JSON tells each change with both values, and null for unset ones. */
static void test_changes(void **state)
{
	struct fixture *f = *state;
	_cleanup_(conf_freep) struct conf *before = one_cloud(), *after = one_cloud();
	struct fake_daemon d = {.before = before, .after = after};

	api_set_reload(f->api, fake_reload, &d);
	after->clouds[0]->nodes = 3;
	replace_str(&after->clouds[0]->context_path, "/h\377o");
	replace_str(&after->fleet.cache_dir, "/elsewhere");
	replace_str(&before->fleet.cache_dir, "/here");
	_cleanup_(reply_free) struct reply r = get(f, "POST", "/v1/reload");
	json_auto_t *want = json_loads(
		"{\"dry_run\":false,\"clouds\":[{\"name\":\"dev\",\"change\":\"restart\","
		"\"keys\":[{\"key\":\"nodes\",\"old\":\"1\",\"new\":\"3\",\"change\":\"restart\"},"
		"{\"key\":\"context_path\",\"old\":null,\"new\":\"/h\xef\xbf\xbdo\","
		"\"change\":\"restart\"}],\"applied\":false}],"
		"\"fleet\":[{\"key\":\"cache_dir\",\"old\":\"/here\",\"new\":\"/elsewhere\","
		"\"change\":\"daemon\",\"applied\":false}],\"errors\":[]}",
		0, NULL);

	assert_int_equal(r.status, 200);
	assert_non_null(want);
	if (!json_equal(r.json, want))
		fail_msg("got %s", r.body);
}

static void test_refused(void **state)
{
	struct fixture *f = *state;
	struct fake_daemon d = {.result = -EINVAL, .errors = {"a:1: x", "a:2: \033[31my"}};
	api_set_reload(f->api, fake_reload, &d);
	_cleanup_(reply_free) struct reply two = get(f, "POST", "/v1/reload");

	assert_problem(&two, 422, "bad-configuration");
	assert_string_equal(field(&two, "detail"),
		"the configuration has 2 errors, so nothing was changed; the first: a:1: x");
	assert_int_equal(json_array_size(json_object_get(two.json, "errors")), 2);
	d.errors[1] = NULL;
	_cleanup_(reply_free) struct reply one = get(f, "POST", "/v1/reload");
	assert_string_equal(field(&one, "detail"),
		"the configuration has an error, so nothing was changed: a:1: x");
	d.result = -ESHUTDOWN;
	_cleanup_(reply_free) struct reply late = get(f, "POST", "/v1/reload");
	assert_problem(&late, 503, "shutting-down");
}

/* Proves: nobody waits for a cloud that will never be ready; who waits for its end gets that. */
static void test_removed_cloud(void **state)
{
	struct fixture *f = *state;
	int ready, stopped;

	f->dev->wanted = WANTED_RUNNING;
	fake_fleet_set(f->fleet, f->dev, CLOUD_STARTING, NULL);
	ready = ask(f, "GET", "/v1/clouds/dev?wait=ready");
	stopped = ask(f, "GET", "/v1/clouds/dev?wait=stopped");
	until_waiting(f, 2);
	f->dev->removed = true;
	fake_fleet_set(f->fleet, f->dev, CLOUD_STOPPING, NULL);
	_cleanup_(reply_free) struct reply r = take_reply(f, ready);
	assert_problem(&r, 410, "no-such-cloud");
	until_waiting(f, 1);
	_cleanup_(reply_free) struct reply start = get(f, "POST", "/v1/clouds/dev/start");
	_cleanup_(reply_free) struct reply restart = get(f, "POST", "/v1/clouds/dev/restart");
	assert_problem(&start, 410, "no-such-cloud");
	assert_problem(&restart, 410, "no-such-cloud");
	assert_int_equal(f->fleet->n_commands, 0);
	_cleanup_(reply_free) struct reply now = get(f, "GET", "/v1/clouds/dev");
	assert_true(json_is_true(json_object_get(now.json, "removed")));
	fake_fleet_set(f->fleet, f->dev, CLOUD_STOPPED, NULL);
	_cleanup_(reply_free) struct reply end = take_reply(f, stopped);
	assert_int_equal(end.status, 200);
}

/* Proves: a request that waits outlives its cloud, and is told so. */
static void test_forgotten_cloud(void **state)
{
	struct fixture *f = *state;
	struct cloud *other = f->fleet->clouds[1];
	int fd;

	other->wanted = WANTED_RUNNING;
	fake_fleet_set(f->fleet, other, CLOUD_STARTING, NULL);
	fd = ask(f, "GET", "/v1/clouds/other?wait=ready");
	until_waiting(f, 1);
	f->fleet->n_clouds--;
	_cleanup_(reply_free) struct reply r = take_reply(f, fd);
	assert_problem(&r, 404, "no-such-cloud");
	f->fleet->n_clouds++; /* to be freed with the rest */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_parameters),
		TEST(test_changes),
		TEST(test_refused),
		TEST(test_removed_cloud),
		TEST(test_forgotten_cloud),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
