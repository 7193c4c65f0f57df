/* The configuration: golden files in tests/unit/conf (NAME.conf with NAME.out: what differs from
 * the defaults, or NAME.err: all errors), and what cannot be said in a file.
 *
 * With H2OFLEET_GOLDEN=write the expected files are written instead of compared. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "conf/conf.h"
#include "conf/dirs.h"
#include "conf/ini.h"
#include "conf/keys.h"

#define HOME_DIR "/home/test"

struct scratch {
	char dir[64];
};

static int make_scratch(void **state)
{
	struct scratch *s = xcalloc(1, sizeof(*s));

	strcpy(s->dir, "/tmp/h2ofleet-conf-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	*state = s;
	return 0;
}

static int remove_scratch(void **state)
{
	struct scratch *s = *state;

	assert_int_equal(file_remove_tree(s->dir, NULL), 0);
	free(s);
	return 0;
}

static const char *srcdir(void)
{
	const char *s = getenv("srcdir");

	return s && *s ? s : ".";
}

static void write_text(const char *path, const char *text)
{
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0644, false, NULL), 0);
}

static char *read_text(const char *path)
{
	char *text = NULL;

	if (file_read(path, 1 << 20, &text, NULL) < 0)
		return NULL;
	return text;
}

static struct conf *load_text(const struct scratch *s, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/text.conf", s->dir);
	struct conf_errors errors = {0};
	struct conf *c = NULL;

	write_text(path, text);
	if (conf_load(path, &c, &errors) < 0)
		fail_msg("%s", errors.list.n ? errors.list.v[0] : "no error told");
	assert_int_equal(errors.list.n, 0);
	return c;
}

/* --- golden files --- */

static void show_differences(
	struct strbuf *b, enum key_section section, const void *conf, const void *defaults)
{
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *value = NULL;

		if (keys[i].section != section || key_equal(&keys[i], conf, defaults))
			continue;
		value = key_get(&keys[i], conf);
		strbuf_printf(b, "%s = %s\n", keys[i].name, value ? value : "");
	}
}

/* Sections, and the keys that are not as they are by default. */
static char *show_conf(const struct conf *c)
{
	struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *defaults = NULL;
	struct strbuf b = STRBUF_NULL;

	assert_int_equal(conf_load("/dev/null", &defaults, &errors), 0);
	strbuf_puts(&b, "[fleet]\n");
	show_differences(&b, SECTION_FLEET, &c->fleet, &defaults->fleet);
	for (size_t i = 0; i < c->n_clouds; i++) {
		_cleanup_(cloud_conf_freep) struct cloud_conf *plain =
			cloud_conf_new(c->clouds[i]->name);

		strbuf_printf(&b, "[cloud %s]\n", c->clouds[i]->name);
		show_differences(&b, SECTION_CLOUD, c->clouds[i], plain);
	}
	return strbuf_take(&b);
}

/* Error lines with every mention of the directory left out. */
static char *show_errors(const struct conf_errors *errors, const char *dir)
{
	struct strbuf b = STRBUF_NULL;
	size_t n = strlen(dir);

	for (size_t i = 0; i < errors->list.n; i++) {
		for (const char *s = errors->list.v[i]; *s; s++) {
			if (strncmp(s, dir, n) == 0 && s[n] == '/')
				s += n;
			else
				strbuf_add(&b, s, 1);
		}
		strbuf_puts(&b, "\n");
	}
	return strbuf_take(&b);
}

static void compare_golden(const char *path, const char *got)
{
	const char *mode = getenv("H2OFLEET_GOLDEN");
	_cleanup_free_ char *wanted = NULL;

	if (mode && streq(mode, "write"))
		write_text(path, got);
	wanted = read_text(path);
	if (!wanted)
		fail_msg("%s is missing; wanted:\n%s", path, got);
	else if (!streq(wanted, got))
		fail_msg("%s differs; it should be, if this is right:\n%s", path, got);
}

static char *print_to_text(const struct conf *c, bool help)
{
	struct strbuf text = STRBUF_NULL;
	FILE *f = strbuf_stream(&text);

	conf_print(c, f, help);
	assert_int_equal(fclose(f), 0);
	return strbuf_take(&text);
}

static void check_equal(const struct conf *a, const struct conf *b)
{
	assert_true(keys_equal(SECTION_FLEET, &a->fleet, &b->fleet));
	assert_int_equal(a->n_clouds, b->n_clouds);
	for (size_t i = 0; i < a->n_clouds; i++) {
		_cleanup_free_ char *text_a = print_to_text(a, false);
		_cleanup_free_ char *text_b = print_to_text(b, false);

		assert_string_equal(text_a, text_b);
		assert_string_equal(a->clouds[i]->name, b->clouds[i]->name);
		assert_true(cloud_conf_equal(a->clouds[i], b->clouds[i]));
	}
}

/* Printed and read again it is the same, and every line can be read. */
static void check_round_trip(const struct scratch *s, const struct conf *c)
{
	for (int help = 0; help < 2; help++) {
		_cleanup_free_ char *text = print_to_text(c, help);
		_cleanup_(conf_freep) struct conf *again = load_text(s, text);

		check_equal(c, again);
		for (const char *p = text; *p; p += strcspn(p, "\n") + 1)
			assert_true(strcspn(p, "\n") <= INI_LINE_LIMIT);
	}
}

static void check_golden(const struct scratch *s, const char *dir, const char *path)
{
	_cleanup_free_ char *base = xstrndup(path, strlen(path) - strlen(".conf"));
	_cleanup_free_ char *out = xasprintf("%s.out", base);
	_cleanup_free_ char *err = xasprintf("%s.err", base);
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *c = NULL;
	int r = conf_load(path, &c, &errors);

	if (r == 0) {
		_cleanup_free_ char *shown = show_conf(c);

		assert_int_equal(errors.list.n, 0);
		compare_golden(out, shown);
		assert_int_equal(access(err, F_OK), -1);
		check_round_trip(s, c);
	} else {
		_cleanup_free_ char *shown = show_errors(&errors, dir);

		assert_int_equal(r, -EINVAL);
		assert_null(c);
		assert_true(errors.list.n > 0);
		compare_golden(err, shown);
		assert_int_equal(access(out, F_OK), -1);
	}
}

static void golden_files_give_what_they_should(void **state)
{
	_cleanup_free_ char *dir = xasprintf("%s/tests/unit/conf", srcdir());
	_cleanup_free_ char *pattern = xasprintf("%s/*.conf", dir);
	glob_t g;

	assert_int_equal(glob(pattern, 0, NULL, &g), 0);
	assert_true(g.gl_pathc >= 40); /* not an empty directory by mistake */
	for (size_t i = 0; i < g.gl_pathc; i++)
		check_golden(*state, dir, g.gl_pathv[i]);
	globfree(&g);
}

static void examples_are_right(void **state)
{
	static const char *const names[] = {
		"h2ofleet", "examples/workstation", "examples/test-cloud", "examples/two-clouds"};
	static const size_t n_clouds[] = {1, 1, 1, 2};
	_cleanup_free_ char *pattern = xasprintf("%s/etc/examples/*.conf", srcdir());
	glob_t g;

	assert_int_equal(glob(pattern, 0, NULL, &g), 0);
	assert_int_equal(g.gl_pathc, ARRAY_SIZE(names) - 1);
	globfree(&g);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = xasprintf("%s/etc/%s.conf", srcdir(), names[i]);
		_cleanup_(conf_errors_free) struct conf_errors errors = {0};
		_cleanup_(conf_freep) struct conf *c = NULL;

		if (conf_load(path, &c, &errors) < 0)
			fail_msg("%s", errors.list.v[0]);
		assert_int_equal(c->n_clouds, n_clouds[i]);
		check_round_trip(*state, c);
	}
}

/* What the main example shows as commented out must be true, too. */
static void commented_example_is_right(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *path = xasprintf("%s/etc/h2ofleet.conf", srcdir());
	_cleanup_free_ char *text = read_text(path);
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	_cleanup_(conf_freep) struct conf *c = NULL;

	assert_non_null(text);
	for (const char *p = text; p && *p;) {
		size_t n = strcspn(p, "\n");

		if (*p == ';' && p[1] != ' ' && p[1] != '\n')
			p++, n--;
		strbuf_add(&b, p, n);
		strbuf_puts(&b, "\n");
		p += n + (p[n] == '\n');
	}
	c = load_text(s, strbuf_str(&b));
	assert_int_equal(c->n_clouds, 1);
	assert_string_equal(c->clouds[0]->name, "dev");
	assert_int_equal(c->clouds[0]->nodes, 3);
	assert_int_equal(c->clouds[0]->env.n, 1);
}

/* --- files and directories --- */

static void check_unreadable(const char *path, int code, const char *what)
{
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_free_ char *wanted = xasprintf("%s: cannot be read: %s", path, what);
	struct conf *c = NULL;

	assert_int_equal(conf_load(path, &c, &errors), code);
	assert_null(c);
	assert_int_equal(errors.list.n, 1);
	assert_string_equal(errors.list.v[0], wanted);
}

static void unreadable_files_are_errors(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *missing = xasprintf("%s/missing.conf", s->dir);
	_cleanup_free_ char *loop = xasprintf("%s/loop.conf", s->dir);
	_cleanup_free_ char *locked = xasprintf("%s/locked.conf", s->dir);

	check_unreadable(missing, -ENOENT, strerror(ENOENT));
	check_unreadable(s->dir, -EISDIR, strerror(EISDIR));
	assert_int_equal(symlink("loop.conf", loop), 0);
	check_unreadable(loop, -ELOOP, strerror(ELOOP));
	check_unreadable("/dev/zero", -EFBIG, "it is larger than 1 MB");
	write_text(locked, "[cloud a]\n");
	assert_int_equal(chmod(locked, 0), 0);
	if (geteuid() != 0) /* root reads everything */
		check_unreadable(locked, -EACCES, strerror(EACCES));
}

static void directory_is_read_in_order(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *sub = xasprintf("%s/conf.d", s->dir);
	static const char *const files[][2] = {
		{"h2ofleet.conf", "[fleet]\nbaseport = 5000\n[cloud main]\n"},
		{"conf.d/20-b.conf", "[cloud b]\nnodes = 2\n"},
		{"conf.d/10-a.conf", "[fleet]\nlog_level = debug\n[cloud a]\n"},
		{"conf.d/.hidden.conf", "nonsense\n"},
		{"conf.d/30-c.conf.bak", "nonsense\n"},
		{"conf.d/conf", "nonsense\n"},
	};
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *c = NULL;

	assert_int_equal(mkdir(sub, 0700), 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", s->dir, files[i][0]);

		write_text(path, files[i][1]);
	}
	assert_int_equal(conf_load_dir(s->dir, &c, &errors), 0);
	assert_int_equal(c->files.n, 3);
	assert_non_null(strstr(c->files.v[0], "/h2ofleet.conf"));
	assert_non_null(strstr(c->files.v[1], "/conf.d/10-a.conf"));
	assert_int_equal(c->n_clouds, 3);
	assert_string_equal(c->clouds[0]->name, "main");
	assert_string_equal(c->clouds[1]->name, "a");
	assert_string_equal(c->clouds[1]->file, c->files.v[1]);
	assert_int_equal(c->clouds[1]->line, 3);
	assert_string_equal(c->clouds[2]->name, "b");
	assert_int_equal(c->fleet.baseport, 5000);
	assert_int_equal(c->fleet.log_level, LOG_LEVEL_DEBUG);
	assert_ptr_equal(conf_find_cloud(c, "b"), c->clouds[2]);
	assert_null(conf_find_cloud(c, "h2o"));
}

static void errors_of_all_files_are_told_at_once(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *sub = xasprintf("%s/conf.d", s->dir);
	_cleanup_free_ char *main_file = xasprintf("%s/h2ofleet.conf", s->dir);
	_cleanup_free_ char *more = xasprintf("%s/conf.d/a.conf", s->dir);
	_cleanup_free_ char *folder = xasprintf("%s/conf.d/b.conf", s->dir);
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_free_ char *shown = NULL;
	struct conf *c = NULL;

	assert_int_equal(mkdir(sub, 0700), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	write_text(main_file, "[cloud a]\nlate_after = 2m\nport = 5000\nnodes = 2\nbad\n");
	write_text(more, "[cloud a]\nnodes = 0\n[cloud b]\nport = 5003\nnodes = 0\n[cloud c]\nport "
			 "= 5003\n");
	assert_int_equal(conf_load_dir(s->dir, &c, &errors), -EISDIR);
	assert_null(c);
	shown = show_errors(&errors, s->dir);
	assert_string_equal(shown,
		"h2ofleet.conf:2: late_after (2m) must be less than hang_timeout (1m)\n"
		"h2ofleet.conf:5: this is neither '[section]' nor 'key = value'\n"
		"conf.d/a.conf:1: [cloud a] is there already (h2ofleet.conf:1)\n"
		"conf.d/a.conf:2: nodes: '0' is out of range: 1 to 1024\n"
		"conf.d/a.conf:5: nodes: '0' is out of range: 1 to 1024\n"
		"conf.d/a.conf:7: ports 5003 to 5005 overlap with 5000 to 5004 of cloud a "
		"(h2ofleet.conf:3)\n"
		"conf.d/b.conf: cannot be read: Is a directory\n");
}

static void without_files_there_is_one_cloud(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *nowhere = xasprintf("%s/nowhere", s->dir);
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *c = NULL;

	assert_int_equal(conf_load_dir(nowhere, &c, &errors), 0);
	assert_int_equal(c->files.n, 0);
	assert_int_equal(c->n_clouds, 1);
	assert_string_equal(c->clouds[0]->name, "h2o");
	assert_null(c->clouds[0]->file);
	check_round_trip(s, c);
}

static void usual_place_is_found(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *dir = NULL;
	_cleanup_free_ char *file = xasprintf("%s/h2ofleet/h2ofleet.conf", s->dir);
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *c = NULL;

	dir = dirs_config(0);
	assert_string_equal(dir, PKGSYSCONFDIR);
	if (geteuid() == 0) /* that is the machine's own */
		return;
	assert_int_equal(setenv("XDG_CONFIG_HOME", s->dir, 1), 0);
	*strrchr(file, '/') = '\0';
	assert_int_equal(mkdir(file, 0700), 0);
	file[strlen(file)] = '/';
	write_text(file, "[cloud mine]\n");
	assert_int_equal(conf_load(NULL, &c, &errors), 0);
	unsetenv("XDG_CONFIG_HOME");
	assert_non_null(conf_find_cloud(c, "mine"));
}

/* --- directories --- */

static void check_dir(char *got, const char *wanted)
{
	_cleanup_free_ char *dir = got;

	if (wanted)
		assert_string_equal(dir, wanted);
	else
		assert_null(dir);
}

static void directories_of_root(void **state _unused_)
{
	check_dir(dirs_socket(0), "/run/h2ofleet/control.sock");
	check_dir(dirs_state(0), "/var/lib/h2ofleet");
	check_dir(dirs_cache(0), "/var/cache/h2ofleet");
	check_dir(dirs_log(0), "/var/log/h2ofleet");
}

static void directories_of_a_user(void **state _unused_)
{
	check_dir(dirs_socket(1000), "/tmp/h2ofleet-1000/control.sock");
	check_dir(dirs_state(1000), HOME_DIR "/.local/state/h2ofleet");
	check_dir(dirs_cache(1000), HOME_DIR "/.cache/h2ofleet");
	check_dir(dirs_config(1000), HOME_DIR "/.config/h2ofleet");
	check_dir(dirs_log(1000), NULL);
	setenv("XDG_RUNTIME_DIR", "/run/user/1000", 1);
	setenv("XDG_STATE_HOME", "/x/state", 1);
	setenv("XDG_CACHE_HOME", "relative", 1);
	setenv("XDG_CONFIG_HOME", "/x/config", 1);
	check_dir(dirs_socket(1000), "/run/user/1000/h2ofleet/control.sock");
	check_dir(dirs_state(1000), "/x/state/h2ofleet");
	check_dir(dirs_cache(1000), HOME_DIR "/.cache/h2ofleet");
	check_dir(dirs_config(1000), "/x/config/h2ofleet");
	unsetenv("XDG_RUNTIME_DIR");
	unsetenv("XDG_STATE_HOME");
	unsetenv("XDG_CACHE_HOME");
	unsetenv("XDG_CONFIG_HOME");
}

static void directories_of_systemd(void **state)
{
	_cleanup_(conf_freep) struct conf *c = NULL;

	setenv("RUNTIME_DIRECTORY", "/run/one:/run/two", 1);
	setenv("STATE_DIRECTORY", "/var/lib/one", 1);
	setenv("CACHE_DIRECTORY", "/var/cache/one:", 1);
	setenv("LOGS_DIRECTORY", "/var/log/one:/var/log/two", 1);
	c = load_text(*state, "");
	unsetenv("RUNTIME_DIRECTORY");
	unsetenv("STATE_DIRECTORY");
	unsetenv("CACHE_DIRECTORY");
	unsetenv("LOGS_DIRECTORY");
	assert_string_equal(c->fleet.socket, "/run/one/control.sock");
	assert_string_equal(c->fleet.state_dir, "/var/lib/one");
	assert_string_equal(c->fleet.cache_dir, "/var/cache/one");
	assert_string_equal(c->fleet.log_dir, "/var/log/one");
}

static void log_directory_of_a_user_follows_the_state(void **state)
{
	_cleanup_(conf_freep) struct conf *c = load_text(*state, "[fleet]\nstate_dir = /srv/h2o\n");

	assert_string_equal(
		c->fleet.log_dir, geteuid() == 0 ? "/var/log/h2ofleet" : "/srv/h2o/log");
}

static void default_socket_may_be_too_long(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *path = xasprintf("%s/text.conf", s->dir);
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	struct conf *c = NULL;
	char dir[120];

	memset(dir, 'd', sizeof(dir));
	dir[0] = '/';
	dir[sizeof(dir) - 1] = '\0';
	setenv("RUNTIME_DIRECTORY", dir, 1);
	write_text(path, "[cloud a]\n");
	assert_int_equal(conf_load(path, &c, &errors), -EINVAL);
	unsetenv("RUNTIME_DIRECTORY");
	assert_int_equal(errors.list.n, 1);
	assert_non_null(strstr(errors.list.v[0], "too long for a socket"));
}

/* --- the table --- */

static void defaults_are_those_of_the_design(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("dev");

	assert_int_equal(c->nodes, 1);
	assert_int_equal(c->port.port, 0);
	assert_false(c->port.exact);
	assert_int_equal(c->max_mem_size.kind, MEM_AUTO);
	assert_int_equal(c->min_mem_size.kind, MEM_UNSET);
	assert_int_equal(c->nthreads, NTHREADS_AUTO);
	assert_string_equal(c->auto_recovery_dir, "auto");
	assert_true(c->autostart);
	assert_int_equal(c->start_on, START_ON_COMMAND);
	assert_int_equal(c->max_idle_duration_ms, 0);
	assert_int_equal(c->gate_mode, GATE_HOLD);
	assert_int_equal(c->gate_hold_ms, 15000);
	assert_int_equal(c->gate_allow.n, 0);
	assert_int_equal(c->restart, RESTART_ON_FAILURE);
	assert_null(c->jar_path);
	assert_null(c->ice_root);
	assert_int_equal(c->env.n, 0);
	assert_false(c->enable_assertions);
	assert_string_equal(c->log_level, "INFO");
	assert_string_equal(c->max_log_file_size, "3MB");
	assert_true(c->bind_to_localhost);
	assert_string_equal(c->h2o_name, "dev");
	assert_false(c->allow_unsupported_java);
	assert_int_equal(c->restart_delay_ms, 0);
	assert_int_equal(c->restart_delay_max_ms, 60000);
	assert_int_equal(c->start_limit.count, 5);
	assert_int_equal(c->start_limit.window_ms, 600000);
	assert_int_equal(c->ready_timeout_ms, 120000);
	assert_int_equal(c->health_interval_ms, 1000);
	assert_int_equal(c->late_after_ms, 3000);
	assert_int_equal(c->hang_timeout_ms, 60000);
	assert_int_equal(c->stop_timeout_ms, 10000);
	assert_int_equal(c->stop_method, STOP_TERM);
}

static void table_is_sound(void **state _unused_)
{
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++) {
		const struct key *k = &keys[i];
		size_t words = 0;

		assert_ptr_equal(keys_find(k->section, k->name), k); /* names are unique */
		assert_int_equal(keys_index(k), i);
		assert_int_equal(k->size, k->type->size);
		assert_true(strlen(k->help) > 20);
		assert_true(strlen(k->name) < 40); /* inih knows 49 of it */
		for (const struct key_word *w = k->words; w && w->name; w++)
			words++;
		assert_true(words <= KEY_WORDS_MAX);
		for (size_t j = 0; j < i; j++)
			if (keys[j].section == k->section && keys[j].size)
				assert_int_not_equal(keys[j].offset, k->offset);
	}
}

static void copies_are_deep(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/tests/unit/conf/all-keys.conf", srcdir());
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *c = NULL;
	_cleanup_(cloud_conf_freep) struct cloud_conf *copy = NULL;
	_cleanup_free_ char *env = NULL;

	(void)state;
	assert_int_equal(conf_load(path, &c, &errors), 0);
	copy = cloud_conf_dup(c->clouds[0]);
	assert_true(cloud_conf_equal(copy, c->clouds[0]));
	assert_string_equal(copy->name, "dev");
	assert_string_equal(copy->file, path);
	assert_int_equal(copy->line, 3);
	copy->java[1] = 'X';
	copy->env.v[0][0] = 'X';
	assert_false(cloud_conf_equal(copy, c->clouds[0]));
	env = cloud_conf_get(c->clouds[0], "env");
	assert_string_equal(env, "LANG=C.UTF-8 \"GREETING=good \\; day\" EMPTY= DO_NOT_TRACK=1");
}

/* One key changed is a cloud changed, whichever it is. */
static void every_key_counts_when_comparing(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/tests/unit/conf/all-keys.conf", srcdir());
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *c = NULL;
	size_t n, seen = 0;
	const struct key *keys = keys_all(&n);

	(void)state;
	assert_int_equal(conf_load(path, &c, &errors), 0);
	for (size_t i = 0; i < n; i++) {
		_cleanup_(cloud_conf_freep) struct cloud_conf *a = cloud_conf_new("dev");
		_cleanup_(cloud_conf_freep) struct cloud_conf *b = cloud_conf_new("dev");
		_cleanup_free_ char *value = NULL;

		if (keys[i].section != SECTION_CLOUD)
			continue;
		if (streq(keys[i].name, "gate_mode")) /* start_on = connect needs its default */
			value = xstrdup("refuse");
		else
			value = cloud_conf_get(c->clouds[0], keys[i].name);
		assert_int_equal(cloud_conf_set(a, keys[i].name, value, NULL), 0);
		assert_false(cloud_conf_equal(a, b));
		assert_int_equal(cloud_conf_set(b, keys[i].name, value, NULL), 0);
		assert_true(cloud_conf_equal(a, b));
		seen++;
	}
	assert_int_equal(seen, 46);
}

/* --- at run time --- */

static void check_refused(
	struct cloud_conf *c, const char *key, const char *value, int code, const char *sentence)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *before = cloud_conf_dup(c);
	_cleanup_(err_clear) struct err e = ERR_NULL;

	assert_int_equal(cloud_conf_set(c, key, value, &e), code);
	assert_int_equal(e.code, code);
	assert_string_equal(err_msg(&e), sentence);
	assert_true(cloud_conf_equal(c, before));
	assert_int_equal(cloud_conf_set(c, key, value, NULL), code);
}

static void keys_are_set_at_run_time(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("dev");
	_cleanup_free_ char *unset = NULL;

	assert_int_equal(cloud_conf_set(c, "nodes", "7", NULL), 0);
	assert_int_equal(c->nodes, 7);
	assert_int_equal(cloud_conf_set(c, "env", "A=1 B=2", NULL), 0);
	assert_int_equal(cloud_conf_set(c, "env", "C=3", NULL), 0);
	assert_int_equal(c->env.n, 1);
	assert_int_equal(cloud_conf_set(c, "java", "/a/java", NULL), 0);
	assert_int_equal(cloud_conf_set(c, "java", "", NULL), 0);
	assert_null(c->java);
	unset = cloud_conf_get(c, "java");
	assert_string_equal(unset, "");
	assert_null(cloud_conf_get(c, "baseport"));
	check_refused(c, "node", "3", -ENOENT, "unknown key 'node'; did you mean 'nodes'?");
	check_refused(c, "x\x1b", "3", -ENOENT, "unknown key 'x\\x1b'");
	check_refused(c, "nodes", "", -EINVAL, "nodes: a value is missing");
	check_refused(c, "nodes", "0", -ERANGE, "nodes: '0' is out of range: 1 to 1024");
	check_refused(c, "cpu_quota", "150", -EINVAL,
		"cpu_quota: '150' is not a percentage of one CPU such as 150%");
	check_refused(c, "cpu_quota", "%", -EINVAL,
		"cpu_quota: '%' is not a percentage of one CPU such as 150%");
	check_refused(
		c, "cpu_quota", "0%", -ERANGE, "cpu_quota: '0%' is out of range: 1% to 1000000%");
	assert_int_equal(cloud_conf_set(c, "cpu_quota", "150%", NULL), 0);
	assert_int_equal(c->cpu_quota, 150);
	assert_int_equal(cloud_conf_set(c, "cpu_quota", "", NULL), 0);
	assert_int_equal(c->cpu_quota, 0);
	check_refused(c, "oom_policy", "stop", -EINVAL,
		"oom_policy: 'stop' is not one of continue or kill");
	check_refused(c, "h2o_args", "-name x", -EINVAL,
		"h2o_args: '-name' is set by h2ofleet: use the key 'name'");
}

/* What a file could not hold is refused here, so that what is printed can always be read. */
static void unprintable_values_are_refused(void **state _unused_)
{
	char long_value[103] = "";
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("dev");

	check_refused(c, "java", "/a ;b", -EINVAL,
		"java: '/a ;b' contains a word that begins with ';' or '#', as comments do");
	check_refused(c, "java", "/a\t#b", -EINVAL,
		"java: '/a\t#b' contains a word that begins with ';' or '#', as comments do");
	memset(long_value, ';', sizeof(long_value) - 1);
	long_value[0] = '/';
	check_refused(c, "java", long_value, -EINVAL,
		"java: '/;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;...' contains too "
		"many "
		"blanks, ';' or '#' in a row");
	check_refused(c, "java", "/a ", -EINVAL, "java: '/a ' begins or ends with a blank");
	check_refused(c, "java", "/a\nb", -EINVAL,
		"java: '/a\\nb' contains control characters or is not UTF-8 text");
	check_refused(c, "java", "/a\xff", -EINVAL,
		"java: '/a\\xff' contains control characters or is not UTF-8 text");
	check_refused(c, "main_class", "#x", -EINVAL,
		"main_class: '#x' contains a word that begins with ';' or '#', as comments do");
	check_refused(c, "env", "\"A=x\ny\"", -EINVAL,
		"env: 'A=x\\ny' contains control characters or is not UTF-8 text");
}

static void long_values_are_cut_in_messages(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("dev");
	_cleanup_free_ char *path = xmalloc(5001);

	memset(path, 'x', 5000);
	path[0] = '/';
	path[5000] = '\0';
	check_refused(c, "java", path, -EINVAL,
		"java: '/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' is too long: "
		"at "
		"most 4095 bytes");
	path[4095] = '\0';
	assert_int_equal(cloud_conf_set(c, "java", path, NULL), 0);
}

static void cloud_is_checked_as_a_whole(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("dev");
	_cleanup_(cloud_conf_freep) struct cloud_conf *other = cloud_conf_new("other");
	_cleanup_(err_clear) struct err e = ERR_NULL;

	assert_int_equal(cloud_conf_check(c, 54321, &e), 0);
	assert_int_equal(cloud_conf_set(c, "hang_timeout", "2s", NULL), 0);
	assert_int_equal(cloud_conf_set(c, "nodes", "1000", NULL), 0);
	assert_int_equal(cloud_conf_check(c, 65000, &e), -EINVAL);
	assert_string_equal(err_msg(&e), "late_after (3s) must be less than hang_timeout (2s); "
					 "1000 nodes and their gate need 2001 ports, which "
					 "there are not from 65000 up");
	assert_int_equal(cloud_conf_set(c, "port", "54321", NULL), 0);
	assert_int_equal(cloud_conf_set(other, "port", "56321", NULL), 0);
	assert_true(cloud_conf_ports_overlap(c, other));
	assert_true(cloud_conf_ports_overlap(other, c));
	assert_int_equal(cloud_conf_set(other, "port", "56322", NULL), 0);
	assert_false(cloud_conf_ports_overlap(c, other));
	assert_false(cloud_conf_ports_overlap(other, c));
	assert_int_equal(cloud_conf_set(other, "port", "54321+", NULL), 0);
	assert_false(cloud_conf_ports_overlap(c, other));
}

/* Proves: clouds that the network can reach are warned of, unless somebody has said who may. */
static void open_clouds_are_warned_of(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("dev");
	_cleanup_free_ char *gated = NULL, *bare = NULL;

	assert_null(cloud_conf_warning(c));
	assert_int_equal(cloud_conf_set(c, "bind_to_localhost", "no", NULL), 0);
	gated = cloud_conf_warning(c);
	assert_non_null(strstr(gated, "set gate_allow"));
	assert_int_equal(cloud_conf_set(c, "gate_allow", "anyone", NULL), 0);
	assert_null(cloud_conf_warning(c));
	assert_int_equal(cloud_conf_set(c, "gate_allow", "", NULL), 0);
	assert_int_equal(cloud_conf_set(c, "gate_mode", "off", NULL), 0);
	bare = cloud_conf_warning(c);
	assert_non_null(strstr(bare, "nobody can be kept out"));
}

static void what_runs_code_is_privileged(void **state _unused_)
{
	static const char *const privileged[] = {"java", "jar_path", "jvm_custom_args",
		"extra_classpath", "main_class", "env", "h2o_args", "ice_root", "gate_allow"};
	static const char *const open[] = {
		"nodes", "port", "max_mem_size", "name", "restart", "nonsense"};

	for (size_t i = 0; i < ARRAY_SIZE(privileged); i++)
		assert_true(cloud_conf_is_privileged(privileged[i], ""));
	for (size_t i = 0; i < ARRAY_SIZE(open); i++)
		assert_false(cloud_conf_is_privileged(open[i], "/x"));
	assert_true(cloud_conf_is_privileged("auto_recovery_dir", "/x"));
	assert_true(cloud_conf_is_privileged("auto_recovery_dir", "~/x"));
	assert_false(cloud_conf_is_privileged("auto_recovery_dir", "off"));
	assert_false(cloud_conf_is_privileged("auto_recovery_dir", "Auto"));
}

/* Words of any make survive being printed and read. */
static void any_words_round_trip(void **state)
{
	static const char *const alphabet[] = {"a", " ", "\t", ";", "#", "\"", "'", "\\", "=", ":",
		"nodes", "é", "€", "[", "\\\\", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
	uint64_t seed = 42;

	for (int round = 0; round < 300; round++) {
		_cleanup_(conf_freep) struct conf *c = load_text(*state, "[cloud a]\n");
		struct strv *env = &c->clouds[0]->env;
		struct strbuf path = STRBUF_NULL;
		size_t n = rng_next(&seed) % 8;

		for (size_t i = 0; i < n; i++) {
			struct strbuf word = STRBUF_NULL;

			strbuf_printf(&word, "V%zu=", i);
			for (uint64_t j = rng_next(&seed) % 30; j; j--)
				strbuf_puts(
					&word, alphabet[rng_next(&seed) % ARRAY_SIZE(alphabet)]);
			strv_take(env, strbuf_take(&word));
		}
		strbuf_puts(&path, "/");
		for (uint64_t j = rng_next(&seed) % 40; j; j--)
			strbuf_puts(&path, rng_next(&seed) % 2 ? "€x;#" : "long word");
		replace_str(&c->clouds[0]->ice_root, strbuf_str(&path));
		strbuf_free(&path);
		check_round_trip(*state, c);
	}
}

static void cloud_names(void **state _unused_)
{
	assert_true(conf_cloud_name_valid("a"));
	assert_true(conf_cloud_name_valid("9"));
	assert_true(conf_cloud_name_valid("a-b_C9"));
	assert_true(conf_cloud_name_valid("abcdefghijklmnopqrstuvwxyz012345"));
	assert_false(conf_cloud_name_valid("abcdefghijklmnopqrstuvwxyz0123456"));
	assert_false(conf_cloud_name_valid(""));
	assert_false(conf_cloud_name_valid("-a"));
	assert_false(conf_cloud_name_valid("_a"));
	assert_false(conf_cloud_name_valid("a/b"));
	assert_false(conf_cloud_name_valid("a.b"));
	assert_false(conf_cloud_name_valid("a b"));
	assert_false(conf_cloud_name_valid("\xc3\xa9"));
}

static void too_many_clouds_are_refused(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *path = xasprintf("%s/text.conf", s->dir);
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	struct conf *c = NULL;

	for (int i = 0; i < 1100; i++)
		strbuf_printf(&b, "[cloud c%d]\n", i);
	write_text(path, strbuf_str(&b));
	assert_int_equal(conf_load(path, &c, &errors), -EINVAL);
	assert_int_equal(errors.list.n, 1);
	assert_non_null(
		strstr(errors.list.v[0], "text.conf:1025: there are more than 1024 clouds"));
}

/* No junk may do more than give errors. */
static void random_files_do_no_harm(void **state)
{
	static const char *const bits[] = {"[", "]", "cloud a", "fleet", "nodes", "env", "=", ":",
		" ", "  ", "\n", "\n", "\r\n", "\\", ";", "#", "\"", "'", "A=1", "3", "\xff",
		"\x01", "h2o_args", "-port", "java", "/x", "\t"};
	struct scratch *s = *state;
	_cleanup_free_ char *path = xasprintf("%s/text.conf", s->dir);
	uint64_t seed = 7;

	for (int round = 0; round < 2000; round++) {
		_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
		_cleanup_(conf_errors_free) struct conf_errors errors = {0};
		_cleanup_(conf_freep) struct conf *c = NULL;
		int r;

		strbuf_puts(&b, rng_next(&seed) % 2 ? "[cloud a]\n" : "");
		for (uint64_t j = rng_next(&seed) % 60; j; j--)
			strbuf_puts(&b, bits[rng_next(&seed) % ARRAY_SIZE(bits)]);
		write_text(path, strbuf_str(&b));
		r = conf_load(path, &c, &errors);
		assert_true(r == 0 || (r == -EINVAL && errors.list.n > 0));
		for (size_t i = 0; i < errors.list.n; i++) /* inih understood what we let through */
			assert_null(strstr(errors.list.v[i], "this line cannot be read"));
		if (r == 0)
			check_round_trip(s, c);
	}
}

/* --- values at their edges --- */

static void refused_with(const char *key, const char *value, int code, const char *part)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("dev");
	_cleanup_(err_clear) struct err e = ERR_NULL;

	assert_int_equal(cloud_conf_set(c, key, value, &e), code);
	if (!strstr(err_msg(&e), part) || strncmp(err_msg(&e), key, strlen(key)) != 0)
		fail_msg("%s = %s: %s", key, value, err_msg(&e));
}

static void taken_as(const char *key, const char *value, const char *printed)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("dev");
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *got = NULL;

	if (cloud_conf_set(c, key, value, &e) < 0)
		fail_msg("%s = %s: %s", key, value, err_msg(&e));
	got = cloud_conf_get(c, key);
	assert_string_equal(got, printed);
}

/* Proves: numbers beyond what any integer holds are out of range, not something else; what looks
 * like a number and is none is not taken for one; the bounds themselves are taken. */
static void numbers_at_their_edges(void **state _unused_)
{
	static const char huge[] = "99999999999999999999999999";
	_cleanup_free_ char *huge_percent = xasprintf("%s%%", huge);
	_cleanup_free_ char *huge_limit = xasprintf("%s in 10m", huge);
	_cleanup_free_ char *huge_window = xasprintf("5 in %sd", huge);
	_cleanup_free_ char *huge_size = xasprintf("%sg", huge);

	refused_with("cpu_quota", huge_percent, -ERANGE, "out of range");
	refused_with("cpu_quota", "1000001%", -ERANGE, "out of range");
	taken_as("cpu_quota", "1000000%", "1000000%");
	refused_with("max_mem_size", huge_percent, -ERANGE, "1% to 100%");
	refused_with("max_mem_size", "0%", -ERANGE, "1% to 100%");
	refused_with("max_mem_size", "101%", -ERANGE, "1% to 100%");
	refused_with("max_mem_size", "x%", -EINVAL, "is not");
	refused_with("max_mem_size", "%", -EINVAL, "is not");
	refused_with("max_mem_size", huge_size, -ERANGE, "out of range");
	taken_as("max_mem_size", "100%", "100%");
	refused_with("log_max_total", huge_size, -ERANGE, "out of range");
	refused_with("log_max_total", "1", -ERANGE, "(bytes) is out of range");
	refused_with("start_limit", huge_limit, -ERANGE, "1 to ");
	refused_with("start_limit", "0 in 10m", -ERANGE, "1 to ");
	refused_with("start_limit", "61 in 10m", -ERANGE, "1 to ");
	refused_with("start_limit", huge_window, -ERANGE, "out of range");
	refused_with("start_limit", "5 in 0s", -ERANGE, "out of range");
	refused_with("start_limit", "5 in 10000d", -ERANGE, "out of range");
	refused_with("start_limit", "5 in soon", -EINVAL, "is not");
	refused_with("start_limit", "x in 10m", -EINVAL, "is not");
	refused_with("start_limit", "5 in", -EINVAL, "is not");
	refused_with("start_limit", "5 inside 10m", -EINVAL, "is not");
	refused_with("start_limit", "5", -EINVAL, "is not");
	taken_as("start_limit", "60 \t in \t 10m", "60 in 10m");
}

/* Proves: names that become arguments of H2O are what H2O takes, and nothing that a shell, a log or
 * a URL would read as something else. */
static void names_at_their_edges(void **state _unused_)
{
	char long_name[66];

	memset(long_name, 'x', 65);
	long_name[65] = '\0';
	refused_with("name", long_name, -ERANGE, "at most 64");
	taken_as("name", long_name + 1, long_name + 1);
	refused_with("name", "two words", -EINVAL, "no blanks");
	refused_with("name", "na\xc3\xafve", -EINVAL, "printable ASCII");
	taken_as("name", "!~", "!~");
	taken_as("main_class", "a1._b.$c2", "a1._b.$c2");
	refused_with("main_class", "1a", -EINVAL, "not the name of a Java class");
	refused_with("main_class", "a.2b", -EINVAL, "not the name of a Java class");
	refused_with("main_class", "a..b", -EINVAL, "not the name of a Java class");
	refused_with("main_class", "a.", -EINVAL, "not the name of a Java class");
	refused_with("main_class", "a-b", -EINVAL, "not the name of a Java class");
	taken_as("context_path", "h2o", "/h2o");
	refused_with("context_path", "h2o/", -EINVAL, "must have something behind it");
	refused_with("context_path", "/", -EINVAL, "must have something behind it");
	refused_with("context_path", "a//b", -EINVAL, "must have something behind it");
	refused_with("context_path", "a?b", -EINVAL, "letters, digits");
}

/* Proves: who may pass the gate is a word, a name or the number of a user that can be: not of
 * nobody ((uid_t)-1), and not a number with something behind it. */
static void gate_allow_at_its_edges(void **state _unused_)
{
	taken_as("gate_allow", "0 4294967294 user group:g user:u",
		"0 4294967294 user group:g user:u");
	refused_with("gate_allow", "4294967295", -EINVAL, "the number of a user");
	refused_with("gate_allow", "99999999999999999999", -EINVAL, "the number of a user");
	refused_with("gate_allow", "12x", -EINVAL, "the number of a user");
	refused_with("gate_allow", "group:", -EINVAL, "group:NAME");
	refused_with("gate_allow", "user:", -EINVAL, "user:NAME");
	refused_with("gate_allow", "\"\"", -EINVAL, "anyone, user");
}

/* Proves: paths are absolute or below the home directory, which may be the root; where a word could
 * stand as well the sentence names it; what a comment would swallow is refused. */
static void paths_at_their_edges(void **state _unused_)
{
	setenv("HOME", "/", 1);
	taken_as("ice_root", "~/ice", "/ice");
	setenv("HOME", HOME_DIR, 1);
	taken_as("ice_root", "~/ice", HOME_DIR "/ice");
	refused_with("auto_recovery_dir", "of", -EINVAL, "an absolute path is wanted, or");
	refused_with("auto_recovery_dir", "\"/x\"", -EINVAL, "without quotes");
	refused_with("auto_recovery_dir", "'/x'", -EINVAL, "without quotes");
	refused_with("ice_root", "ice", -EINVAL, "not an absolute path");
	refused_with("extra_classpath", "/a::/b", -EINVAL, "empty path");
	refused_with("extra_classpath", "/a:b", -EINVAL, "not an absolute path");
	refused_with("java", "/a #b", -EINVAL, "as comments do");
	refused_with("java", "/a\t;b", -EINVAL, "as comments do");
	refused_with("java", "/a\\b", -EINVAL, "contains a backslash");
	refused_with("main_class", ";x", -EINVAL, "as comments do");
	refused_with("main_class", " x", -EINVAL, "begins or ends with a blank");
}

/* Proves: no word of a list is longer than the kernel takes, nor so full of blanks that a line of a
 * file could not hold it; a message that cuts a value cuts no character in two. */
static void words_at_their_edges(void **state _unused_)
{
	_cleanup_free_ char *long_word = xmalloc(131073), *gap = xasprintf("\"a%200sb\"", "");
	char shown[64 * 3];

	memset(long_word, 'x', 131072);
	long_word[131072] = '\0';
	refused_with("env", gap, -EINVAL, "too many blanks in a row");
	memcpy(long_word, "A=", 2);
	refused_with("env", long_word, -ERANGE, "is too long");
	refused_with("env", "\"A=1", -EINVAL, "a quote is left open");
	for (size_t i = 0; i < 63; i++)
		memcpy(shown + 3 * i, "\xe2\x82\xac", 4); /* the euro sign */
	refused_with("nodes", shown, -EINVAL, "\xe2\x82\xac...'");
}

/* Proves: arguments of H2O begin with a dash, and one or two of them hide nothing that is ours; a
 * lone dash is no option of ours. */
static void dashes_hide_nothing(void **state _unused_)
{
	refused_with("h2o_args", "name", -EINVAL, "is no option of H2O");
	refused_with("h2o_args", "--port 5", -EINVAL, "'--port'");
	refused_with("h2o_args", "-port 5", -EINVAL, "'-port'");
	taken_as("h2o_args", "- x", "- x");
	taken_as("h2o_args", "-- x", "-- x");
	taken_as("h2o_args", "", "");
	refused_with("jvm_custom_args", "-Dai.h2o.name=x", -EINVAL, "-Dai.h2o.name");
}

/* Proves: sizes are compared only where both are sizes; ports and directories of two clouds only
 * where both insist on them. */
static void pairs_at_their_edges(void **state _unused_)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *a = cloud_conf_new("a");
	_cleanup_(cloud_conf_freep) struct cloud_conf *b = cloud_conf_new("b");
	_cleanup_(err_clear) struct err e = ERR_NULL;

	assert_int_equal(cloud_conf_set(a, "max_mem_size", "1g", NULL), 0);
	assert_int_equal(cloud_conf_set(a, "min_mem_size", "50%", NULL), 0);
	assert_int_equal(cloud_conf_check(a, 54321, NULL), 0);
	assert_int_equal(cloud_conf_set(a, "min_mem_size", "1g", NULL), 0);
	assert_int_equal(cloud_conf_check(a, 54321, NULL), 0);
	assert_int_equal(cloud_conf_set(a, "min_mem_size", "2g", NULL), 0);
	assert_int_equal(cloud_conf_check(a, 54321, &e), -EINVAL);
	assert_non_null(strstr(err_msg(&e), "min_mem_size (2g) must be at most max_mem_size (1g)"));
	assert_int_equal(cloud_conf_first_port(a), a->baseport);
	assert_false(cloud_conf_insists_on(a, 54321));
	assert_int_equal(cloud_conf_set(a, "port", "50000+", NULL), 0);
	assert_false(cloud_conf_insists_on(a, 50000));
	assert_int_equal(cloud_conf_set(a, "port", "50000", NULL), 0);
	assert_int_equal(cloud_conf_first_port(a), 50000);
	assert_false(cloud_conf_insists_on(a, 49999));
	assert_true(cloud_conf_insists_on(a, 50000));
	assert_true(cloud_conf_insists_on(a, 50002)); /* the gate, and two of its node */
	assert_false(cloud_conf_insists_on(a, 50003));
	assert_int_equal(cloud_conf_set(b, "port", "50002", NULL), 0);
	assert_true(cloud_conf_ports_overlap(a, b));
	assert_int_equal(cloud_conf_set(b, "port", "49998", NULL), 0);
	assert_true(cloud_conf_ports_overlap(a, b));
	assert_int_equal(cloud_conf_set(b, "port", "49997", NULL), 0);
	assert_false(cloud_conf_ports_overlap(a, b));
	assert_int_equal(cloud_conf_set(b, "gate_mode", "off", NULL), 0);
	assert_int_equal(cloud_conf_set(b, "port", "65533", NULL), 0);
	assert_int_equal(cloud_conf_check(b, 54321, NULL), 0);
	assert_int_equal(cloud_conf_set(b, "nodes", "2", NULL), 0);
	err_clear(&e);
	assert_int_equal(cloud_conf_check(b, 54321, &e), -EINVAL);
	assert_non_null(strstr(err_msg(&e), "2 nodes need 4 ports"));
}

/* Proves: directories that the environment names in vain (relative, or not at all) are passed over,
 * also the home directory, for that of the user's entry. */
static void relative_directories_are_passed_over(void **state _unused_)
{
	_cleanup_free_ char *state_dir = NULL, *xdg = NULL, *socket = NULL, *home = NULL;

	setenv("STATE_DIRECTORY", "relative", 1);
	setenv("XDG_STATE_HOME", "relative", 1);
	setenv("XDG_RUNTIME_DIR", "relative", 1);
	state_dir = dirs_state(0);
	xdg = dirs_state(4711);
	socket = dirs_socket(4711);
	setenv("HOME", "relative", 1);
	home = dirs_home();
	unsetenv("STATE_DIRECTORY");
	unsetenv("XDG_STATE_HOME");
	unsetenv("XDG_RUNTIME_DIR");
	setenv("HOME", HOME_DIR, 1);
	assert_string_equal(state_dir, "/var/lib/h2ofleet");
	assert_string_equal(xdg, HOME_DIR "/.local/state/h2ofleet");
	assert_string_equal(socket, "/tmp/h2ofleet-4711/control.sock");
	assert_int_equal(*home, '/');
}

/* Proves: what stands in the way of a configuration (a file where a folder should be, no descriptor
 * left) is told as what it is, and never taken for "there is none". */
static void folders_that_are_none(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *below = xasprintf("%s/text.conf/x", s->dir);
	_cleanup_free_ char *conf_d = xasprintf("%s/conf.d", s->dir);
	_cleanup_(conf_errors_free) struct conf_errors one = {0}, two = {0};
	struct conf *c = load_text(s, "");

	conf_free(c);
	c = NULL;
	assert_int_equal(conf_load_dir(below, &c, &one), -ENOTDIR);
	assert_int_equal(one.list.n, 2);
	assert_non_null(strstr(one.list.v[0], "h2ofleet.conf: cannot be read: Not a directory"));
	write_text(conf_d, "");
	assert_int_equal(conf_load_dir(s->dir, &c, &two), -ENOTDIR);
	assert_int_equal(two.list.n, 1);
	assert_non_null(strstr(two.list.v[0], "conf.d: cannot be read"));
	assert_null(c);
}

/* Proves: several faults of one line are told in the order in which they were found, and what
 * follows from a value that was refused is not told at all, whichever of two clouds has it. */
static void faults_in_order(void **state)
{
	struct scratch *s = *state;
	_cleanup_free_ char *path = xasprintf("%s/text.conf", s->dir), *shown = NULL;
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	struct conf *c = NULL;

	write_text(path, "[cloud a]\nlate_after = 2m\nhang_timeout = x\nport = 5000\n"
			 "[cloud b]\nport = 5000\nnodes = 0\n"
			 "[cloud c]\nlate_after = 2m\nrestart_delay = 2m\nrestart_delay_max = 1m\n"
			 "health_interval = 90s\n");
	assert_int_equal(conf_load(path, &c, &errors), -EINVAL);
	shown = show_errors(&errors, s->dir);
	assert_string_equal(shown,
		"text.conf:3: hang_timeout: 'x' is not a time such as 250ms, 10s, 5m or 1h\n"
		"text.conf:7: nodes: '0' is out of range: 1 to 1024\n"
		"text.conf:9: late_after (2m) must be less than hang_timeout (1m)\n"
		"text.conf:10: restart_delay (2m) must be at most restart_delay_max (1m)\n"
		"text.conf:12: health_interval (90s) must be less than hang_timeout (1m)\n");
}

/* Proves: it is known of each key where it was set, and of which cloud; nothing of others. */
static void places_are_found(void **state)
{
	struct scratch *s = *state;
	_cleanup_(conf_freep) struct conf *c = load_text(
		s, "[fleet]\nbaseport = 5000\n[cloud a]\nnodes = 2\n[cloud b]\n\nnodes = 3\n");
	const char *nodes = keys_find(SECTION_CLOUD, "nodes")->name;
	const char *baseport = keys_find(SECTION_FLEET, "baseport")->name;

	assert_int_equal(conf_find_place(c, "a", nodes)->line, 4);
	assert_int_equal(conf_find_place(c, "b", nodes)->line, 7);
	assert_int_equal(conf_find_place(c, NULL, baseport)->line, 2);
	assert_null(conf_find_place(c, NULL, nodes));
	assert_null(conf_find_place(c, "c", nodes));
}

int main(void)
{
#define SCRATCH_TEST(f) cmocka_unit_test_setup_teardown(f, make_scratch, remove_scratch)
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(golden_files_give_what_they_should),
		SCRATCH_TEST(examples_are_right),
		SCRATCH_TEST(commented_example_is_right),
		SCRATCH_TEST(unreadable_files_are_errors),
		SCRATCH_TEST(directory_is_read_in_order),
		SCRATCH_TEST(errors_of_all_files_are_told_at_once),
		SCRATCH_TEST(without_files_there_is_one_cloud),
		SCRATCH_TEST(usual_place_is_found),
		cmocka_unit_test(directories_of_root),
		cmocka_unit_test(directories_of_a_user),
		SCRATCH_TEST(directories_of_systemd),
		SCRATCH_TEST(log_directory_of_a_user_follows_the_state),
		SCRATCH_TEST(default_socket_may_be_too_long),
		cmocka_unit_test(defaults_are_those_of_the_design),
		cmocka_unit_test(table_is_sound),
		cmocka_unit_test(copies_are_deep),
		cmocka_unit_test(every_key_counts_when_comparing),
		cmocka_unit_test(keys_are_set_at_run_time),
		cmocka_unit_test(unprintable_values_are_refused),
		cmocka_unit_test(long_values_are_cut_in_messages),
		cmocka_unit_test(cloud_is_checked_as_a_whole),
		cmocka_unit_test(open_clouds_are_warned_of),
		cmocka_unit_test(what_runs_code_is_privileged),
		SCRATCH_TEST(any_words_round_trip),
		cmocka_unit_test(cloud_names),
		SCRATCH_TEST(too_many_clouds_are_refused),
		SCRATCH_TEST(random_files_do_no_harm),
		cmocka_unit_test(numbers_at_their_edges),
		cmocka_unit_test(names_at_their_edges),
		cmocka_unit_test(gate_allow_at_its_edges),
		cmocka_unit_test(paths_at_their_edges),
		cmocka_unit_test(words_at_their_edges),
		cmocka_unit_test(dashes_hide_nothing),
		cmocka_unit_test(pairs_at_their_edges),
		cmocka_unit_test(relative_directories_are_passed_over),
		SCRATCH_TEST(folders_that_are_none),
		SCRATCH_TEST(faults_in_order),
		SCRATCH_TEST(places_are_found),
	};
	static const char *const variables[] = {"RUNTIME_DIRECTORY", "STATE_DIRECTORY",
		"CACHE_DIRECTORY", "LOGS_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_STATE_HOME",
		"XDG_CACHE_HOME", "XDG_CONFIG_HOME"};

	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		unsetenv(variables[i]);
	setenv("HOME", HOME_DIR, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
