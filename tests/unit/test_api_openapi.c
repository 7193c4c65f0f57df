/* openapi.json is what the route table is, in both directions: paths, methods, who may, parameters
 * and bodies; and it is served as it is. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <ctype.h>

#include "api/routes.h"
#include "api_fixture.h"

static const char *const methods[] = {"get", "post", "put", "delete", "patch"};

static json_t *document(struct fixture *f)
{
	_cleanup_(reply_free) struct reply r = get(f, "GET", "/v1/openapi.json");

	assert_int_equal(r.status, 200);
	assert_non_null(strcasestr(r.all, "content-type: application/json\r\n"));
	assert_non_null(r.json);
	return json_incref(r.json);
}

/* Follows a "$ref" within the document. */
static const json_t *resolve(const json_t *doc, const json_t *j)
{
	const char *ref = json_string_value(json_object_get(j, "$ref"));

	if (!ref)
		return j;
	assert_memory_equal(ref, "#/", 2);
	for (const char *p = ref + 1; *p == '/';) {
		size_t n = strcspn(++p, "/");
		_cleanup_free_ char *key = xstrndup(p, n);

		doc = json_object_get(doc, key);
		if (!doc)
			fail_msg("%s leads nowhere", ref);
		p += n;
	}
	return doc;
}

static const json_t *operation(const json_t *doc, const struct route *r)
{
	const json_t *path = json_object_get(json_object_get(doc, "paths"), r->pattern);
	char method[16] = "";

	for (size_t i = 0; r->method[i]; i++)
		method[i] = (char)tolower((unsigned char)r->method[i]);
	return json_object_get(path, method);
}

/* How many parameters of that kind a list has; -1: none of that name. `name` NULL: any. */
static int count_params(const json_t *doc, const json_t *list, const char *in, const char *name)
{
	const json_t *item;
	size_t i;
	int n = 0;

	json_array_foreach (list, i, item) {
		const json_t *p = resolve(doc, item);

		if (streq_null(json_string_value(json_object_get(p, "in")), in) &&
			(!name || streq_null(json_string_value(json_object_get(p, "name")), name)))
			n++;
	}
	return n;
}

static void check_params(const json_t *doc, const json_t *op, const struct route *r)
{
	const json_t *list = json_object_get(op, "parameters");
	int n = 0;

	for (; n < (int)ARRAY_SIZE(r->params) && r->params[n]; n++)
		if (count_params(doc, list, "query", r->params[n]) != 1)
			fail_msg("%s %s: '%s' is not described", r->method, r->pattern,
				r->params[n]);
	if (count_params(doc, list, "query", NULL) != n)
		fail_msg("%s %s: a parameter is described that the route does not take", r->method,
			r->pattern);
}

static void check_path_params(const json_t *doc, const struct route *r)
{
	const json_t *list = json_object_get(
		json_object_get(json_object_get(doc, "paths"), r->pattern), "parameters");

	for (const char *p = r->pattern; (p = strchr(p, '{'));) {
		_cleanup_free_ char *name = xstrndup(p + 1, strcspn(p + 1, "}"));

		if (count_params(doc, list, "path", name) != 1)
			fail_msg("%s: '%s' is not described", r->pattern, name);
		p++;
	}
}

static void test_every_route_is_described(void **state)
{
	json_auto_t *doc = document(*state);
	size_t n;
	const struct route *routes = routes_all(&n);

	for (size_t i = 0; i < n; i++) {
		const struct route *r = &routes[i];
		const json_t *op = operation(doc, r);
		const char *access = json_string_value(json_object_get(op, "x-h2ofleet-access"));

		if (!op)
			fail_msg("openapi.json does not know %s %s", r->method, r->pattern);
		if (!streq_null(access, r->access == ACCESS_ADMIN ? "admin" : "group"))
			fail_msg("%s %s: x-h2ofleet-access is %s", r->method, r->pattern,
				access ? access : "missing");
		if (r->body != !!json_object_get(op, "requestBody"))
			fail_msg("%s %s: requestBody", r->method, r->pattern);
		check_params(doc, op, r);
		check_path_params(doc, r);
	}
}

static bool is_route(const char *method, const char *path)
{
	size_t n;
	const struct route *routes = routes_all(&n);

	for (size_t i = 0; i < n; i++)
		if (strcasecmp(routes[i].method, method) == 0 && streq(routes[i].pattern, path))
			return true;
	return false;
}

static void test_nothing_else_is_described(void **state)
{
	json_auto_t *doc = document(*state);
	const char *path, *method;
	json_t *item, *op;

	json_object_foreach (json_object_get(doc, "paths"), path, item) {
		json_object_foreach (item, method, op) {
			bool known = false;

			if (streq(method, "parameters"))
				continue;
			for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
				known |= streq(methods[i], method);
			if (!known || !is_route(method, path))
				fail_msg("there is no route %s %s", method, path);
		}
	}
}

/* A misspelt reference would be a hole in what is checked. */
static void check_refs(const json_t *doc, const json_t *j)
{
	const char *key;
	json_t *item;
	size_t i;

	resolve(doc, j);
	if (json_is_array(j)) {
		json_array_foreach (j, i, item)
			check_refs(doc, item);
	} else {
		json_object_foreach ((json_t *)j, key, item)
			check_refs(doc, item);
	}
}

static void test_references(void **state)
{
	json_auto_t *doc = document(*state);

	check_refs(doc, doc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_every_route_is_described),
		TEST(test_nothing_else_is_described),
		TEST(test_references),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
