/* The difference of two configurations: over all keys of the table, so that none can be forgotten.
 */
#include "cmocka_all.h"

#include <stdio.h>

#include "conf/diff.h"

static struct conf *make_conf(size_t n_clouds)
{
	static const char *const names[] = {"a", "b", "c"};
	struct conf *c = xcalloc(1, sizeof(*c));

	keys_set_defaults(SECTION_FLEET, &c->fleet);
	c->clouds = xcalloc(n_clouds, sizeof(struct cloud_conf *));
	for (size_t i = 0; i < n_clouds; i++)
		c->clouds[i] = cloud_conf_new(names[i]);
	c->n_clouds = n_clouds;
	return c;
}

static void *section_of(struct conf *c, const struct key *k)
{
	return k->section == SECTION_FLEET ? (void *)&c->fleet : c->clouds[0];
}

static bool sets_another(const struct key *k, void *conf, const char *value, const char *old)
{
	_cleanup_free_ char *new = key_set(k, conf, value, NULL) == 0 ? key_get(k, conf) : NULL;

	return new && !streq_null(new, old);
}

/* One of the key's words, or the first of these that fits. */
static void set_another(const struct key *k, void *conf)
{
	static const char *const values[] = {"yes", "no", "7s", "3", "2g", "54999", "2 in 7m",
		"/other", "/other/h2o.jar", "-Dx=1", "-allow_clients", "X=y", "other", "5MB", "16m",
		"150%"};
	_cleanup_free_ char *old = key_get(k, conf);

	for (size_t i = 0; k->words && k->words[i].name; i++)
		if (sets_another(k, conf, k->words[i].name, old))
			return;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		if (sets_another(k, conf, values[i], old))
			return;
	fail_msg("no other value for %s is known here; add one", k->name);
}

static void check_one_change(
	const struct key_changes *list, const struct key *k, const char *before, const char *after)
{
	assert_int_equal(list->n, 1);
	assert_ptr_equal(list->v[0].key, k);
	assert_true(streq_null(list->v[0].before, before));
	assert_true(streq_null(list->v[0].after, after));
}

/* Proves: a change of any key, and nothing else, is told, with both values, with the class of the
 * table; and key_changes_apply() makes the two equal at just that time. */
static void test_every_key(void **state)
{
	static const enum key_reload all[] = {RELOAD_LIVE, RELOAD_CLOUD, RELOAD_DAEMON};
	size_t n, seen = 0;
	const struct key *keys = keys_all(&n);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		const struct key *k = &keys[i];
		_cleanup_(conf_freep) struct conf *before = make_conf(2), *after = make_conf(2);
		_cleanup_free_ char *old = key_get(k, section_of(before, k)), *new = NULL;
		bool of_fleet = k->section == SECTION_FLEET;
		struct key_changes *list;
		struct conf_diff d;

		set_another(k, section_of(after, k));
		new = key_get(k, section_of(after, k));
		conf_diff_make(before, after, &d);
		list = of_fleet ? &d.fleet : &d.clouds[0].keys;
		check_one_change(list, k, old, new);
		assert_int_equal(of_fleet ? 0 : d.fleet.n, 0);
		assert_int_equal(d.n, 2);
		assert_int_equal(d.clouds[0].kind, of_fleet                   ? CHANGE_NONE
						   : k->reload == RELOAD_LIVE ? CHANGE_LIVE
									      : CHANGE_RESTART);
		assert_int_equal(d.clouds[1].kind, CHANGE_NONE);
		for (size_t r = 0; r < ARRAY_SIZE(all); r++)
			if (all[r] != k->reload)
				key_changes_apply(list, k->section, all[r], section_of(before, k),
					section_of(after, k));
		assert_false(key_equal(k, section_of(before, k), section_of(after, k)));
		key_changes_apply(
			list, k->section, k->reload, section_of(before, k), section_of(after, k));
		assert_true(key_equal(k, section_of(before, k), section_of(after, k)));
		conf_diff_clear(&d);
		seen++;
	}
	assert_true(seen > 30);
}

/* Proves: who reads the table is told the truth about what a running JVM can be given. */
static void test_classes(void **state)
{
	static const struct {
		enum key_section section;
		enum key_reload reload;
		const char *names;
	} classes[] = {
		{SECTION_FLEET, RELOAD_DAEMON, "socket state_dir cache_dir log_dir"},
		{SECTION_FLEET, RELOAD_CLOUD, "baseport"},
		{SECTION_FLEET, RELOAD_LIVE, "apply log_level"},
		{SECTION_CLOUD, RELOAD_LIVE,
			"autostart restart restart_delay restart_delay_max start_limit "
			"ready_timeout health_interval late_after hang_timeout stop_timeout "
			"stop_method"},
		{SECTION_CLOUD, RELOAD_CLOUD,
			"nodes port max_mem_size min_mem_size nthreads auto_recovery_dir jar_path "
			"java extra_classpath main_class jvm_custom_args h2o_args env "
			"enable_assertions ice_root log_level max_log_file_size bind_to_localhost "
			"name context_path allow_unsupported_java"},
	};
	size_t n;
	const struct key *keys = keys_all(&n);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		_cleanup_(strv_free) struct strv names = STRV_NULL;

		assert_int_equal(strv_add_words(&names, classes[i].names), 0);
		for (size_t k = 0; k < names.n; k++) {
			const struct key *key = keys_find(classes[i].section, names.v[k]);

			assert_non_null(key);
			if (key->reload != classes[i].reload)
				fail_msg("%s has another class", key->name);
		}
	}
	for (size_t i = 0; i < n; i++) /* nothing of one cloud needs another daemon */
		assert_false(keys[i].section == SECTION_CLOUD && keys[i].reload == RELOAD_DAEMON);
}

static void rename_cloud(struct conf *c, size_t i, const char *name)
{
	replace_str(&c->clouds[i]->name, name);
}

/* Proves: clouds are compared by name, told in the new order, those that are gone at the end. */
static void test_clouds_come_and_go(void **state)
{
	_cleanup_(conf_freep) struct conf *before = make_conf(3), *after = make_conf(3);
	static const struct {
		const char *name;
		enum cloud_change_kind kind;
	} want[] = {{"new", CHANGE_ADDED}, {"c", CHANGE_NONE}, {"b", CHANGE_LIVE},
		{"a", CHANGE_REMOVED}};
	struct conf_diff d;

	(void)state;
	rename_cloud(after, 0, "new");
	rename_cloud(after, 1, "c");
	rename_cloud(after, 2, "b");
	for (size_t i = 1; i < 3; i++) /* the default follows the section's name */
		replace_str(&after->clouds[i]->h2o_name, after->clouds[i]->name);
	after->clouds[2]->hang_timeout_ms++;
	conf_diff_make(before, after, &d);
	assert_int_equal(d.fleet.n, 0);
	assert_int_equal(d.n, ARRAY_SIZE(want));
	for (size_t i = 0; i < d.n; i++) {
		assert_string_equal(d.clouds[i].name, want[i].name);
		assert_int_equal(d.clouds[i].kind, want[i].kind);
		assert_string_equal(cloud_change_name(d.clouds[i].kind),
			((const char *const[]){"added", "unchanged", "live", "removed"})[i]);
	}
	conf_diff_clear(&d);
}

/* Proves: one key that needs a restart decides for the cloud, and only the others are live. */
static void test_mixed(void **state)
{
	_cleanup_(conf_freep) struct conf *before = make_conf(1), *after = make_conf(1);
	_cleanup_(strv_free) struct strv names = STRV_NULL;
	struct cloud_conf *is = after->clouds[0];
	struct conf_diff d;

	(void)state;
	is->nodes = 3;
	is->hang_timeout_ms = 5000;
	assert_int_equal(cloud_conf_set(is, "env", "A=1 B=2", NULL), 0);
	conf_diff_make(before, after, &d);
	assert_int_equal(d.clouds[0].kind, CHANGE_RESTART);
	key_changes_names(&d.clouds[0].keys, RELOAD_CLOUD, &names);
	assert_int_equal(names.n, 2);
	assert_string_equal(names.v[0], "nodes");
	assert_string_equal(names.v[1], "env");
	key_changes_apply(
		&d.clouds[0].keys, SECTION_CLOUD, RELOAD_LIVE, before->clouds[0], after->clouds[0]);
	assert_int_equal(before->clouds[0]->hang_timeout_ms, 5000);
	assert_int_equal(before->clouds[0]->nodes, 1);
	assert_int_equal(before->clouds[0]->env.n, 0);
	conf_diff_clear(&d);
}

/* Proves: baseport is a matter of the clouds that go by it. */
static void test_baseport(void **state)
{
	_cleanup_(conf_freep) struct conf *before = make_conf(2), *after = make_conf(2);
	struct conf_diff d;

	(void)state;
	before->clouds[1]->port = after->clouds[1]->port = (struct port_spec){60000, true};
	after->fleet.baseport = 50000;
	for (size_t i = 0; i < 2; i++)
		after->clouds[i]->baseport = 50000; /* as the loader does */
	conf_diff_make(before, after, &d);
	assert_int_equal(d.fleet.n, 1);
	assert_int_equal(d.clouds[0].kind, CHANGE_RESTART);
	check_one_change(&d.clouds[0].keys, keys_find(SECTION_FLEET, "baseport"), "54321", "50000");
	assert_int_equal(d.clouds[1].kind, CHANGE_NONE);
	conf_diff_clear(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_key),
		cmocka_unit_test(test_classes),
		cmocka_unit_test(test_clouds_come_and_go),
		cmocka_unit_test(test_mixed),
		cmocka_unit_test(test_baseport),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
