/* Answers of /3/Cloud recorded from H2O 3.46.0.12 (tests/fixtures), and what is concluded from
 * them. */
#include "cmocka_all.h"

#include <stdio.h>

#include "base/file.h"
#include "model/verdict.h"

/* The recorded cloud: -name rec, three members. */
static const struct expected_member members[] = {
	{"127.0.0.1:45321", 3456},
	{"127.0.0.1:45323", 3454},
	{"127.0.0.1:45325", 3450},
};
static const struct expected_cloud recorded = {"rec", members, 3};

static void load(const char *name, struct h2o_cloud_view *v)
{
	const char *src = getenv("srcdir");
	_cleanup_free_ char *path = xasprintf("%s/tests/fixtures/%s", src ? src : ".", name);
	_cleanup_free_ char *body = NULL;
	size_t len;

	assert_int_equal(file_read(path, 1 << 20, &body, &len), 0);
	assert_int_equal(h2o_cloud_view_parse(body, len, v, NULL), 0);
}

static enum verdict judge(const struct h2o_cloud_view *v, const struct expected_cloud *x,
	size_t slot, const char *part_of_why)
{
	_cleanup_free_ char *why = NULL;
	enum verdict r = verdict_of(v, x, slot, &why);

	if (part_of_why)
		assert_non_null(strstr(why, part_of_why));
	else
		assert_null(why);
	return r;
}

/* Proves: the fields that are relied on are read from a real answer. */
static void test_parse(void **state)
{
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0};

	(void)state;
	load("cloud-forming-member-1.json", &v);
	assert_string_equal(v.version, "3.46.0.12");
	assert_string_equal(v.cloud_name, "rec");
	assert_int_equal(v.cloud_size, 3);
	assert_int_equal(v.n_members, 3);
	assert_int_equal(v.node_idx, 1);
	assert_true(v.cloud_healthy);
	assert_string_equal(v.members[2].ip_port, "127.0.0.1:45325");
	assert_int_equal(v.members[2].pid, 3450);
	assert_true(v.members[0].max_mem == 536870912);
}

/* Proves: a whole cloud is whole, for its own members only. */
static void test_whole(void **state)
{
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0};
	struct expected_member other[3];
	struct expected_cloud x = recorded;

	(void)state;
	load("cloud-whole-locked.json", &v); /* of full size: the lock is no fault */
	assert_int_equal(judge(&v, &recorded, 0, NULL), VERDICT_WHOLE);

	x.name = "rec2";
	assert_int_equal(judge(&v, &x, 0, "another cloud, 'rec'"), VERDICT_WRONG);

	memcpy(other, members, sizeof(other));
	other[0].pid = 99;
	x = (struct expected_cloud){"rec", other, 3};
	assert_int_equal(judge(&v, &x, 0, "answered by pid 3456, not by node 0"), VERDICT_WRONG);

	memcpy(other, members, sizeof(other));
	other[2].pid = 99;
	assert_int_equal(judge(&v, &x, 0, "answered by pid 3450, not by node 2"), VERDICT_WRONG);

	memcpy(other, members, sizeof(other));
	strcpy(other[1].ip_port, "127.0.0.1:45399");
	assert_int_equal(judge(&v, &x, 0, "not among the members"), VERDICT_WRONG);

	x = (struct expected_cloud){"rec", members, 2};
	assert_int_equal(judge(&v, &x, 0, "a stranger"), VERDICT_WRONG);
}

/* Proves: sizes on the way are incomplete, and with a lock beyond repair. */
static void test_incomplete(void **state)
{
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0}, w = {0};

	(void)state;
	load("cloud-no-consensus.json", &v);
	v.cloud_size = 1; /* as it is for some 100 ms before its members are heard */
	v.n_members = 1;
	v.node_idx = 0;
	assert_int_equal(judge(&v, &recorded, 0, "1 of 3 members"), VERDICT_INCOMPLETE);
	v.locked = true;
	assert_int_equal(judge(&v, &recorded, 0, "locked it like that"), VERDICT_SHORT_LOCK);

	load("cloud-no-consensus.json", &w);
	assert_false(w.consensus);
	assert_int_equal(judge(&w, &recorded, 2, "do not agree"), VERDICT_INCOMPLETE);
	w.consensus = true;
	w.members[0].pid = 0;
	assert_int_equal(judge(&w, &recorded, 2, "heartbeat"), VERDICT_INCOMPLETE);
}

/* Proves: 60 s after a member's death, as recorded, the cloud is unhealthy, and who it was. */
static void test_unhealthy(void **state)
{
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0};

	(void)state;
	load("cloud-member-dead.json", &v);
	assert_int_equal(judge(&v, &recorded, 0, "127.0.0.1:45325"), VERDICT_UNHEALTHY);
	for (size_t i = 0; i < v.n_members; i++)
		v.members[i].healthy = true;
	assert_int_equal(judge(&v, &recorded, 0, "not healthy"), VERDICT_UNHEALTHY);
}

/* Proves: what is not a CloudV3 is refused with a reason, and nothing is leaked. */
static void test_garbage(void **state)
{
	static const char *const bodies[] = {
		"",
		"{",
		"[]",
		"null",
		"{}",
		"<html>401</html>",
		"{\"cloud_size\":\"3\",\"nodes\":[],\"consensus\":true,\"cloud_name\":\"x\"}",
		"{\"cloud_size\":3,\"nodes\":{},\"consensus\":true,\"cloud_name\":\"x\"}",
		"{\"cloud_size\":3,\"nodes\":[],\"consensus\":1,\"cloud_name\":\"x\"}",
		"{\"cloud_size\":3,\"nodes\":[],\"consensus\":true,\"cloud_name\":null}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0};
		_cleanup_(err_clear) struct err e = ERR_NULL;

		assert_true(h2o_cloud_view_parse(bodies[i], strlen(bodies[i]), &v, &e) < 0);
		assert_non_null(strstr(err_msg(&e), "/3/Cloud"));
	}
}

/* Proves: odd but well-formed answers (non-finite numbers as strings, hostile sizes, indexes out of
 * range, members that are no objects) are taken without harm. */
static void test_odd(void **state)
{
	static const char body[] =
		"{\"cloud_size\":9223372036854775807,\"node_idx\":77,\"consensus\":"
		"true,\"cloud_name\":\"rec\",\"nodes\":[1,null,{\"pid\":\"NaN\","
		"\"sys_load\":\"NaN\",\"max_mem\":-5}]}";
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0};

	(void)state;
	assert_int_equal(h2o_cloud_view_parse(body, strlen(body), &v, NULL), 0);
	assert_int_equal(v.n_members, 3);
	assert_int_equal(v.members[2].pid, 0);
	assert_true(v.members[2].max_mem == 0);
	assert_int_equal(judge(&v, &recorded, 0, "a stranger"), VERDICT_WRONG);
}

/* Proves: members are found wherever H2O lists them, not only in our order, and one that is listed
 * twice does not stand for another. */
static void test_any_order(void **state)
{
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0};
	struct h2o_member first;

	(void)state;
	load("cloud-whole-locked.json", &v);
	first = v.members[0];
	v.members[0] = v.members[2];
	v.members[2] = first;
	v.node_idx = 2;
	assert_int_equal(judge(&v, &recorded, 0, NULL), VERDICT_WHOLE);
	v.members[1] = first;
	assert_int_equal(
		judge(&v, &recorded, 0, "node 1 (127.0.0.1:45323) is not among"), VERDICT_WRONG);
}

/* Proves: size and list of members are believed only together; who answers may be unknown, or not
 * have sent a heartbeat yet; the verdict does not depend on whether its sentence is wanted. */
static void test_size_and_list(void **state)
{
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0};
	const struct expected_cloud two = {"rec", members, 2};

	(void)state;
	load("cloud-whole-locked.json", &v);
	v.cloud_size = 2; /* but three are listed */
	assert_int_equal(judge(&v, &two, 0, "a stranger"), VERDICT_WRONG);
	v.cloud_size = 3; /* but two are listed */
	v.n_members = 2;
	v.locked = false;
	assert_int_equal(judge(&v, &recorded, 0, "members have joined"), VERDICT_INCOMPLETE);
	v.n_members = 3;
	v.node_idx = -1;
	assert_int_equal(judge(&v, &recorded, 0, NULL), VERDICT_WHOLE);
	v.node_idx = 3;
	assert_int_equal(judge(&v, &recorded, 0, NULL), VERDICT_WHOLE);
	v.node_idx = 1;
	v.members[1].pid = 0;
	assert_int_equal(
		judge(&v, &recorded, 1, "node 1 has not sent a heartbeat"), VERDICT_INCOMPLETE);
	assert_int_equal(verdict_of(&v, &recorded, 1, NULL), VERDICT_INCOMPLETE);
	v.members[1].pid = members[1].pid;
	assert_int_equal(verdict_of(&v, &recorded, 1, NULL), VERDICT_WHOLE);
	v.bad_nodes = 1;
	assert_int_equal(judge(&v, &recorded, 1, "not healthy"), VERDICT_UNHEALTHY);
	assert_int_equal(verdict_of(&v, &recorded, 1, NULL), VERDICT_UNHEALTHY);
}

/* Proves: numbers are taken as H2O writes them, whole or not, and a missing index is unknown, not
 * member 0. */
static void test_numbers(void **state)
{
	static const char body[] =
		"{\"cloud_size\":1,\"consensus\":false,\"cloud_name\":\"rec\","
		"\"nodes\":[{\"ip_port\":\"127.0.0.1:45321\",\"sys_load\":1.5},{\"sys_load\":2}]}";
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view v = {0};

	(void)state;
	assert_int_equal(h2o_cloud_view_parse(body, strlen(body), &v, NULL), 0);
	assert_int_equal(v.node_idx, -1);
	assert_false(v.consensus);
	assert_true(v.members[0].sys_load > 1.4 && v.members[0].sys_load < 1.6);
	assert_true(v.members[1].sys_load > 1.9 && v.members[1].sys_load < 2.1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_incomplete),
		cmocka_unit_test(test_unhealthy),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_odd),
		cmocka_unit_test(test_any_order),
		cmocka_unit_test(test_size_and_list),
		cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
