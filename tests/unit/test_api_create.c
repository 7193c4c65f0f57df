/* Clouds made at run time, by the protocol: bodies, tags, who may, and what waits. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "api_fixture.h"

static int begin(struct fixture *f, const char *method, const char *target, const char *headers,
	const char *body)
{
	_cleanup_free_ char *text = xasprintf("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s"
					      "Content-Length: %zu\r\n\r\n%s",
		method, target, headers, strlen(body), body);
	int fd = dial(f->socket);

	send_text(f, fd, text, strlen(text));
	return fd;
}

#define JSON "Content-Type: application/json\r\n"

static struct reply send_body(
	struct fixture *f, const char *method, const char *target, const char *body)
{
	return take_reply(f, begin(f, method, target, JSON, body));
}

/* Proves: what a body may be, and that nothing is made of one that is refused. */
static void test_bodies(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *headers, *body;
		int status;
		const char *problem;
	} cases[] = {
		{JSON, "", 400, "bad-body"},
		{"", "{\"name\":\"x\"}", 415, "bad-media-type"},
		{JSON, "{\"name\":", 400, "bad-body"},
		{JSON, "[1]", 400, "bad-body"},
		{JSON, "{}", 400, "bad-body"},
		{JSON, "{\"name\":\"x\",\"name\":\"y\"}", 400, "bad-body"},
		{JSON, "{\"name\":null}", 400, "bad-body"},
		{JSON, "{\"name\":\"x\",\"strat\":true}", 400, "bad-body"},
		{JSON, "{\"name\":\"x\",\"start\":\"yes\"}", 400, "bad-body"},
		{JSON, "{\"name\":\"-x\"}", 422, "bad-name"},
		{JSON, "{\"name\":\"x\",\"keys\":{\"nodes\":{}}}", 422, "bad-configuration"},
		{JSON, "{\"name\":\"x\",\"keys\":{\"nodes\":2.5}}", 422, "bad-configuration"},
		{JSON, "{\"name\":\"x\",\"keys\":{\"nodes\":[]}}", 422, "bad-configuration"},
		{JSON, "{\"name\":\"x\",\"keys\":{\"env\":[1]}}", 422, "bad-configuration"},
		{JSON, "{\"name\":\"x\",\"keys\":{\"no\\u0000des\":1}}", 400, "bad-body"},
		{JSON, "{\"name\":\"x\",\"keys\":{\"\":1}}", 422, "bad-configuration"},
		{JSON, "{\"name\":\"x\",\"keys\":{\"env\":\"A=b\\njava = /x\"}}", 422,
			"bad-configuration"},
		{JSON, "{\"name\":\"dev\"}", 409, "cloud-exists"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(reply_free) struct reply r = take_reply(
			f, begin(f, "POST", "/v1/clouds", cases[i].headers, cases[i].body));

		if (r.status != cases[i].status)
			fail_msg("%s: %s", cases[i].body, r.all);
		assert_problem(&r, cases[i].status, cases[i].problem);
	}
	assert_int_equal(f->fleet->n_clouds, 2);
}

/* Proves: JSON values become what a file would have; 201 with the cloud and where it is. */
static void test_create(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = send_body(f, "POST", "/v1/clouds",
		"{\"name\":\"x\",\"start\":true,\"keys\":{\"nodes\":2,\"autostart\":false,"
		"\"env\":[\"A=b c\",\"D=it's \\\"q\\\" \\\\\"],\"extra_classpath\":[\"/a\",\"/b\"],"
		"\"port\":null}}");
	const struct cloud_conf *c = fleet_cloud_conf(f->fleet, "x");

	assert_int_equal(r.status, 201);
	assert_non_null(strcasestr(r.all, "\r\nlocation: /v1/clouds/x\r\n"));
	assert_string_equal(field(&r, "name"), "x");
	assert_string_equal(field(&r, "origin"), "created");
	assert_int_equal(c->nodes, 2);
	assert_false(c->autostart);
	assert_int_equal(c->env.n, 2);
	assert_string_equal(c->env.v[0], "A=b c");
	assert_string_equal(c->env.v[1], "D=it's \"q\" \\");
	assert_string_equal(c->extra_classpath, "/a:/b");
	assert_int_equal(f->fleet->n_commands, 1);
	assert_int_equal(f->fleet->who.uid, geteuid());
	assert_true(f->fleet->who.admin);
}

/* Proves: each refusal of the fleet has its status, and its sentences. */
static void test_refusals(void **state)
{
	struct fixture *f = *state;
	static const struct {
		int r, status;
		const char *problem;
	} cases[] = {
		{-EPERM, 403, "forbidden"},
		{-EBUSY, 409, "cloud-removed"},
		{-EDQUOT, 403, "limit-reached"},
		{-ESHUTDOWN, 503, "shutting-down"},
		{-EINVAL, 422, "bad-configuration"},
		{-ENOSPC, 507, "not-saved"},
		{-EIO, 507, "not-saved"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(reply_free) struct reply r = {0};

		f->fleet->refusal = cases[i].r;
		r = send_body(f, "POST", "/v1/clouds", "{\"name\":\"dev\"}");
		assert_problem(&r, cases[i].status, cases[i].problem);
		assert_string_equal(field(&r, "detail"), "refused by the test");
		assert_int_equal(json_array_size(json_object_get(r.json, "errors")), 1);
	}
}

/* Proves: 428 without a tag, 412 with another, 200 with the right one, which is another then. */
static void test_tags(void **state)
{
	struct fixture *f = *state;
	static const char change[] = "{\"keys\":{\"nodes\":3}}", path[] = "/v1/clouds/x/config";
	_cleanup_(reply_free) _unused_ struct reply made =
		send_body(f, "POST", "/v1/clouds", "{\"name\":\"x\"}");
	_cleanup_(reply_free) struct reply got = get(f, "GET", path);
	_cleanup_free_ char *tag = xstrdup(field(&got, "etag"));
	static const struct {
		const char *format;
		int status;
	} cases[] = {
		{"", 428},
		{"If-Match: \"0\"\r\n", 412},
		{"If-Match: W/%s\r\n", 412},
		{"If-Match: x%s\r\n", 412},
		{"If-Match: \"0\",%s\r\n", 200},
		{"If-Match: %s\r\n", 412},
		{"If-Match: *\r\n", 200},
	};

	assert_non_null(strcasestr(got.all, "\r\netag: \""));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *in = strstr(cases[i].format, "%s");
		_cleanup_free_ char *front = xstrndup(cases[i].format,
			in ? (size_t)(in - cases[i].format) : strlen(cases[i].format));
		_cleanup_free_ char *headers =
			xasprintf(JSON "%s%s%s", front, in ? tag : "", in ? in + 2 : "");
		_cleanup_(reply_free) struct reply r =
			take_reply(f, begin(f, "PATCH", path, headers, change));

		if (r.status != cases[i].status)
			fail_msg("%s: %s", headers, r.all);
		if (r.status == 200)
			assert_string_not_equal(field(&r, "etag"), tag);
	}
	assert_int_equal(fleet_cloud_conf(f->fleet, "x")->nodes, 3);
}

/* Proves: a configured cloud is neither changed nor deleted; its keys can be read. */
static void test_configured(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) struct reply r = get(f, "DELETE", "/v1/clouds/dev");
	_cleanup_(reply_free) struct reply changed =
		take_reply(f, begin(f, "PATCH", "/v1/clouds/dev/config", JSON "If-Match: *\r\n",
				      "{\"keys\":{}}"));
	_cleanup_(reply_free) struct reply got = get(f, "GET", "/v1/clouds/dev/config");

	assert_problem(&r, 409, "cloud-configured");
	assert_problem(&changed, 409, "cloud-configured");
	assert_int_equal(got.status, 200);
	assert_string_equal(field(&got, "origin"), "config");
	assert_false(f->dev->removed);
}

/* Proves: a delete waits until the cloud is gone, and is idempotent until then. */
static void test_delete(void **state)
{
	struct fixture *f = *state;
	_cleanup_(reply_free) _unused_ struct reply made =
		send_body(f, "POST", "/v1/clouds", "{\"name\":\"x\"}");
	struct cloud *c = (struct cloud *)fleet_find(f->fleet, "x");
	_cleanup_(reply_free) struct reply taken = get(f, "DELETE", "/v1/clouds/x");
	_cleanup_(reply_free) struct reply late =
		get(f, "DELETE", "/v1/clouds/x?wait=deleted&timeout=1ms");
	int fd = ask(f, "DELETE", "/v1/clouds/x?wait=deleted");
	_cleanup_(reply_free) struct reply r = {0};

	assert_int_equal(taken.status, 202);
	assert_true(json_is_true(json_object_get(taken.json, "removed")));
	assert_problem(&late, 504, "wait-timeout");
	until_waiting(f, 1);
	fake_fleet_forget(f->fleet, c);
	r = take_reply(f, fd);
	assert_int_equal(r.status, 200);
	assert_true(json_is_true(json_object_get(r.json, "deleted")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bodies),
		TEST(test_create),
		TEST(test_refusals),
		TEST(test_tags),
		TEST(test_configured),
		TEST(test_delete),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
