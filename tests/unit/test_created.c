/* Clouds made at run time: edits of their keys, and their files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/file.h"
#include "conf/created.h"
#include "conf/keys.h"

static int edit_one(struct cloud_conf *c, const char *key, const char *value, bool privileged)
{
	_cleanup_(strv_free) struct strv errors = STRV_NULL;
	int r = created_edit(c, &(struct key_edit){key, value}, 1, privileged, &errors);

	assert_int_equal(errors.n, r < 0);
	if (r < 0 && keys_find(SECTION_CLOUD, key))
		assert_memory_equal(errors.v[0], key, strlen(key));
	return r;
}

/* Proves: what who is only in the group may set; and that spelling does not matter. */
static void test_privileges(void **state _unused_)
{
	static const struct {
		const char *key, *value;
		bool open;
	} cases[] = {
		{"nodes", "3", true},
		{"java", "/x", false},
		{"env", "A=b", false},
		{"bind_to_localhost", "yes", true},
		{"bind_to_localhost", "true", true},
		{"bind_to_localhost", "no", false},
		{"bind_to_localhost", "false", false},
		{"log_max_total", "1g", true},
		{"log_max_total", "1024m", true},
		{"log_max_total", "2g", false},
		{"max_log_file_size", "3MB", true},
		{"max_log_file_size", "99999MB", false},
		{"auto_recovery_dir", "off", true},
		{"auto_recovery_dir", "/x", false},
		{"port", "1024", true},
		{"port", "1023", false},
		{"port", "80+", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(cloud_conf_freep) struct cloud_conf *own = cloud_conf_new("x");
		_cleanup_(cloud_conf_freep) struct cloud_conf *others = cloud_conf_new("x");

		assert_int_equal(edit_one(own, cases[i].key, cases[i].value, true), 0);
		assert_int_equal(edit_one(others, cases[i].key, cases[i].value, false),
			cases[i].open ? 0 : -EPERM);
	}
}

/* Proves: a privileged value cannot be taken back, or overwritten, by others either. */
static void test_privileged_values_stay(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("x");
	_cleanup_free_ char *none = created_privileged_keys(c), *keys = NULL;

	assert_null(none);
	assert_int_equal(edit_one(c, "bind_to_localhost", "no", true), 0);
	assert_int_equal(edit_one(c, "env", "A=b", true), 0);
	assert_int_equal(edit_one(c, "nodes", "2", true), 0);
	keys = created_privileged_keys(c);
	assert_string_equal(keys, "env, bind_to_localhost");
	assert_int_equal(edit_one(c, "bind_to_localhost", "yes", false), -EPERM);
	assert_int_equal(edit_one(c, "bind_to_localhost", NULL, false), -EPERM);
	assert_int_equal(edit_one(c, "env", NULL, false), -EPERM);
	assert_int_equal(edit_one(c, "env", NULL, true), 0);
	assert_int_equal(c->env.n, 0);
}

/* Proves: a key that is taken back has its default again and is not given any more, whatever kind
 * of key it is. */
static void test_null_is_the_default(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *fresh = cloud_conf_new("x");
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++) {
		_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("x");

		if (keys[i].section != SECTION_CLOUD)
			continue;
		assert_int_equal(edit_one(c, keys[i].name, NULL, true), 0);
		assert_true(cloud_conf_equal(c, fresh));
		assert_int_equal(c->given.n, 0);
		assert_int_equal(created_hash(c, true), created_hash(fresh, true));
	}
}

/* Proves: a file is read as what it was written from, however odd the values are; and what could
 * not be is not written. */
static void test_text(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("x"), *again = NULL;
	static const struct key_edit edits[] = {
		{"env", "'A=; # \\ \"q\"' B='x y' 'C=[cloud y]'"},
		{"jvm_custom_args", "-Da=b '-Dc=nodes = 7'"},
		{"nodes", "3"},
		{"name", "a;b#c"},
		{"max_mem_size", "50%"},
		{"port", "20000+"},
		{"extra_classpath", "/a b:/c;d"},
	};
	_cleanup_(strv_free) struct strv errors = STRV_NULL;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *text = NULL, *bad = NULL;

	if (created_edit(c, edits, ARRAY_SIZE(edits), true, &errors) < 0)
		fail_msg("%s", errors.v[0]);
	text = created_text(c, &e);
	assert_non_null(text);
	again = conf_parse_cloud(text, strlen(text), "x");
	assert_non_null(again);
	assert_true(cloud_conf_equal(again, c));
	assert_int_equal(again->given.n, ARRAY_SIZE(edits));
	assert_null(conf_parse_cloud(text, strlen(text), "y"));

	replace_str(&c->context_path, "/a\njava = /x"); /* no edit can do this */
	assert_int_equal(edit_one(c, "context_path", "/a\njava = /x", true), -EINVAL);
	strv_add(&c->given, "context_path");
	replace_str(&c->context_path, "/a\njava = /x");
	bad = created_text(c, &e);
	assert_null(bad);
}

/* ---- what is loaded ---- */

struct scene {
	char dir[40];
	char *conf;
};

static void put(const struct scene *s, const char *name, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", s->dir, name);

	assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, false, NULL), 0);
}

static int setup(void **state)
{
	struct scene *s = xcalloc(1, sizeof(*s));
	_cleanup_free_ char *created = NULL;

	strcpy(s->dir, "/tmp/h2ofleet-created-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	s->conf = xasprintf("%s/h2ofleet.conf", s->dir);
	created = created_dir(s->dir);
	assert_int_equal(mkdir(created, 0700), 0);
	put(s, "h2ofleet.conf", "[fleet]\nsocket = /tmp/s\n[cloud c]\nport = 20000\n");
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct scene *s = *state;

	file_remove_tree(s->dir, NULL);
	free(s->conf);
	free(s);
	return 0;
}

static int load(const struct scene *s, bool strict, struct conf **out, struct conf_errors *errors)
{
	const struct conf_source from = {.file = s->conf, .state_dir = s->dir, .strict = strict};

	return conf_load_all(&from, out, errors);
}

/* Proves: a daemon that starts leaves out what is broken or at odds, each for its own reason; a
 * reload refuses it, but for a name that the configuration has now. */
static void test_faults(void **state)
{
	struct scene *s = *state;
	static const struct {
		const char *text, *why;
		bool soft;
	} cases[] = {
		{"", "there is no [cloud d] in it", false},
		{"[cloud d]\nnodse = 1\n", "unknown key 'nodse'", false},
		{"[cloud e]\n", "may only be [cloud d]", false},
		{"[fleet]\nlog_level = debug\n", "[fleet]", false},
		{"[cloud d]\nport = 20001\n", "overlap", false},
		{"[cloud d]\n[cloud d]\n", "is there already", false},
		{"[cloud d]\nlate_after = 10m\n", "late_after", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(conf_freep) struct conf *c = NULL, *none = NULL;
		struct conf_errors errors = {0};

		put(s, "created/d.conf", cases[i].text);
		put(s, "created/ok.conf", "[cloud ok]\nport = 30000\n");
		assert_int_equal(load(s, false, &c, &errors), 0);
		assert_int_equal(errors.list.n, 0);
		assert_int_equal(c->n_clouds, 2);
		assert_false(c->clouds[0]->created);
		assert_string_equal(c->clouds[1]->name, "ok");
		assert_true(c->clouds[1]->created);
		assert_int_equal(c->clouds[1]->given.n, 1);
		assert_int_equal(c->files.n, 1);
		assert_int_equal(c->n_aside, 1);
		assert_string_equal(c->aside[0].name, "d");
		if (!strstr(c->aside[0].why, cases[i].why))
			fail_msg("%s: %s", cases[i].text, c->aside[0].why);
		assert_int_equal(load(s, true, &none, &errors), -EINVAL);
		assert_true(errors.list.n >= 1);
		conf_errors_free(&errors);
	}
}

static void test_configured_name(void **state)
{
	struct scene *s = *state;

	put(s, "created/c.conf", "[cloud c]\nnodes = 5\n");
	for (int strict = 0; strict < 2; strict++) {
		_cleanup_(conf_freep) struct conf *c = NULL;
		struct conf_errors errors = {0};

		assert_int_equal(load(s, strict, &c, &errors), 0);
		assert_int_equal(c->n_clouds, 1);
		assert_int_equal(c->clouds[0]->nodes, 1);
		assert_false(c->clouds[0]->created);
		assert_int_equal(c->n_aside, 1);
		assert_non_null(strstr(c->aside[0].why, "is in the configuration now"));
	}
}

/* Proves: one that is left out does not pull down another that was at odds with it alone. */
static void test_left_out_counts_no_more(void **state)
{
	struct scene *s = *state;
	_cleanup_(conf_freep) struct conf *c = NULL;
	struct conf_errors errors = {0};

	put(s, "created/a.conf", "[cloud a]\nport = 20002\nnodes = 4\n"); /* c has these */
	put(s, "created/b.conf", "[cloud b]\nport = 20009\n");            /* and a these */
	assert_int_equal(load(s, false, &c, &errors), 0);
	assert_int_equal(c->n_aside, 1);
	assert_string_equal(c->aside[0].name, "a");
	assert_non_null(conf_find_cloud(c, "b"));
}

/* Proves: errors of the configuration itself are told alone and refuse it, in both modes. */
static void test_configuration_errors(void **state)
{
	struct scene *s = *state;
	_cleanup_(conf_freep) struct conf *c = NULL;
	struct conf_errors errors = {0};

	put(s, "h2ofleet.conf", "[cloud c]\nnodse = 2\n");
	put(s, "created/d.conf", "[cloud d]\nnodse = 2\n");
	assert_int_equal(load(s, false, &c, &errors), -EINVAL);
	assert_int_equal(errors.list.n, 1);
	assert_non_null(strstr(errors.list.v[0], "h2ofleet.conf:2"));
	conf_errors_free(&errors);
	assert_int_equal(load(s, true, &c, &errors), -EINVAL);
	assert_int_equal(errors.list.n, 2);
	conf_errors_free(&errors);
}

/* Proves: with nothing configured there is still the default cloud beside the created ones, unless
 * one of these is called so. */
static void test_default_cloud(void **state)
{
	struct scene *s = *state;
	struct conf_errors errors = {0};
	struct conf *c = NULL;

	put(s, "h2ofleet.conf", "[fleet]\nsocket = /tmp/s\n");
	put(s, "created/d.conf", "[cloud d]\n");
	assert_int_equal(load(s, true, &c, &errors), 0);
	assert_int_equal(c->n_clouds, 2);
	assert_string_equal(c->clouds[0]->name, "h2o");
	conf_free(c);
	put(s, "created/h2o.conf", "[cloud h2o]\nnodes = 2\n");
	assert_int_equal(load(s, true, &c, &errors), 0);
	assert_int_equal(c->n_clouds, 2);
	assert_int_equal(conf_find_cloud(c, "h2o")->nodes, 2);
	conf_free(c);
}

/* Proves: control characters never get into a file, whoever sends them; what everybody may set may
 * also be set again; several errors are all told, and the code is EPERM only if that is all. */
static void test_several_errors(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("x");
	static const char *const controls[] = {"a\x7f", "a\tb", "a\nb"};
	static const struct {
		struct key_edit edits[2];
		int r;
	} cases[] = {
		{{{"nodes", "0"}, {"env", "A=b"}}, -EINVAL},
		{{{"env", "A=b"}, {"nodes", "0"}}, -EINVAL},
		{{{"env", "A=b"}, {"java", "/x"}}, -EPERM},
		{{{"nodes", "2"}, {"java", "/x"}}, -EPERM},
	};

	for (size_t i = 0; i < ARRAY_SIZE(controls); i++) {
		_cleanup_(strv_free) struct strv errors = STRV_NULL;

		assert_int_equal(
			created_edit(c, &(struct key_edit){"name", controls[i]}, 1, true, &errors),
			-EINVAL);
		assert_string_equal(
			errors.v[0], "name: a value is one line, without control characters");
	}
	assert_int_equal(edit_one(c, "bind_to_localhost", "yes", false), 0);
	assert_int_equal(edit_one(c, "bind_to_localhost", "true", false), 0);
	assert_int_equal(edit_one(c, "bind_to_localhost", "perhaps", false), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(strv_free) struct strv errors = STRV_NULL;

		assert_int_equal(created_edit(c, cases[i].edits, 2, false, &errors), cases[i].r);
		assert_int_equal(errors.n, 1 + !streq(cases[i].edits[0].value, "2"));
	}
}

/* Proves: a value that would smuggle a line into the file, however it came there, is not written.
 */
static void test_text_that_is_read_otherwise(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("x");
	_cleanup_(err_clear) struct err e = ERR_NULL;

	assert_int_equal(edit_one(c, "java", "/a", true), 0);
	free(c->java);
	c->java = xstrdup("/a\nnodes = 7");
	assert_null(created_text(c, &e));
	assert_int_equal(e.code, -EINVAL);
	free(c->java);
	c->java = xstrdup("/a ; b");
	assert_null(created_text(c, NULL));
	assert_null(conf_parse_cloud("[cloud x]\nnodse = 1\n", 20, "x"));
	assert_null(conf_parse_cloud("; nothing\n", 10, "x"));
}

/* Proves: who may not see a key cannot tell from the tag what it is, only that it is set. */
static void test_hash_shows_no_secrets(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *a = cloud_conf_new("x"),
						      *b = cloud_conf_new("x"),
						      *none = cloud_conf_new("x");

	assert_int_equal(edit_one(a, "env", "A=1", true), 0);
	assert_int_equal(edit_one(b, "env", "A=2", true), 0);
	assert_true(created_hash(a, true) != created_hash(b, true));
	assert_true(created_hash(a, false) == created_hash(b, false));
	assert_true(created_hash(a, false) != created_hash(none, false));
	assert_int_equal(edit_one(a, "nodes", "2", true), 0);
	assert_true(created_hash(a, false) != created_hash(b, false));
}

/* Proves: several faults of one created file are one cloud that is left out, with the first of
 * them; clouds share no directory that must be their own, created or not; a place of created clouds
 * that cannot be read is told, not taken for an empty one. */
static void test_left_out_once(void **state)
{
	struct scene *s = *state;
	_cleanup_(conf_freep) struct conf *c = NULL, *none = NULL;
	_cleanup_(conf_errors_free) struct conf_errors errors = {0}, told = {0};
	const struct conf_source from = {.file = s->conf, .state_dir = s->conf};

	put(s, "h2ofleet.conf",
		"[fleet]\nsocket = /tmp/s\n[cloud c]\nport = 20000\nice_root = /x\n");
	put(s, "created/d.conf", "[cloud d]\nnodes = 0\nport = x\n");
	put(s, "created/e.conf", "[cloud e]\nice_root = /x\n");
	put(s, "created/f.conf", "[cloud f]\nice_root = /y\nauto_recovery_dir = off\n");
	put(s, "created/g.conf", "[cloud g]\nice_root = /z\nauto_recovery_dir = off\n");
	assert_int_equal(load(s, false, &c, &errors), 0);
	assert_int_equal(c->n_aside, 2);
	assert_non_null(strstr(c->aside[0].why, "nodes: '0'"));
	assert_non_null(strstr(c->aside[1].why, "must be this cloud's own"));
	assert_int_equal(c->n_clouds, 3);
	assert_int_equal(conf_load_all(&from, &none, &told), -ENOTDIR);
	assert_non_null(strstr(told.list.v[0], "created: cannot be read: Not a directory"));
}

/* Proves: without a state directory named by the caller it is the configuration's own; a created
 * file that cannot be read is left out by a start, one that cannot be read for want of descriptors
 * is nobody's fault, and no start comes of it. */
static void test_unreadable(void **state)
{
	struct scene *s = *state;
	_cleanup_(conf_freep) struct conf *c = NULL, *none = NULL;
	_cleanup_(conf_errors_free) struct conf_errors errors = {0}, told = {0};
	_cleanup_free_ char *text = xasprintf("[fleet]\nsocket = /tmp/s\nstate_dir = %s\n"
					      "[cloud c]\n",
				    s->dir),
			    *folder = xasprintf("%s/created/d.conf", s->dir);
	const struct conf_source from = {.file = s->conf};
	struct rlimit was, few;
	int r;

	put(s, "h2ofleet.conf", text);
	put(s, "created/e.conf", "[cloud e]\n");
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_int_equal(conf_load_all(&from, &c, &errors), 0);
	assert_int_equal(c->n_aside, 1);
	assert_string_equal(c->aside[0].name, "d");
	assert_non_null(strstr(c->aside[0].why, "Is a directory"));
	assert_non_null(conf_find_cloud(c, "e"));

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	few = (struct rlimit){0, was.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	r = conf_load_all(&from, &none, &told);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_int_equal(r, -EMFILE);
	assert_null(none);
	assert_true(told.list.n >= 1);
}

int main(void)
{
#define SCENE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_privileges),
		cmocka_unit_test(test_privileged_values_stay),
		cmocka_unit_test(test_null_is_the_default),
		cmocka_unit_test(test_text),
		SCENE(test_faults),
		SCENE(test_configured_name),
		SCENE(test_left_out_counts_no_more),
		SCENE(test_configuration_errors),
		SCENE(test_default_cloud),
		cmocka_unit_test(test_several_errors),
		cmocka_unit_test(test_text_that_is_read_otherwise),
		cmocka_unit_test(test_hash_shows_no_secrets),
		SCENE(test_left_out_once),
		SCENE(test_unreadable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
