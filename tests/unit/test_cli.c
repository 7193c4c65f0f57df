/* The client: exit codes and parsing by themselves; the commands against a real server with a fake
 * fleet in a child process. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "api/api.h"
#include "base/file.h"
#include "cli_output.h"
#include "config.h"

#include "fake_fleet.h"

static void test_state_exits(void **state _unused_)
{
	static const struct {
		const char *state;
		int code;
	} cases[] = {
		{"ready", 0},
		{"degraded", 0},
		{"stopped", 3},
		{"starting", 5},
		{"forming", 5},
		{"recovering", 5},
		{"backoff", 5},
		{"stopping", 5},
		{"failed", 6},
		{"dancing", 1},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(cli_state_exit(cases[i].state), cases[i].code);
	for (int s = CLOUD_STOPPED; s <= CLOUD_FAILED; s++)
		assert_int_not_equal(
			cli_state_exit(cloud_state_name((enum cloud_state)s)), CLI_ERROR);
}

static void test_worse(void **state _unused_)
{
	static const int order[] = {0, 3, 5, 6, 4, 1};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++)
		for (size_t j = i; j < ARRAY_SIZE(order); j++) {
			assert_int_equal(cli_worse(order[i], order[j]), order[j]);
			assert_int_equal(cli_worse(order[j], order[i]), order[j]);
		}
}

static void test_parse(void **state _unused_)
{
	static const struct {
		const char *args[6];
		int code;
		bool all;
		const char *time;
		size_t n_words;
		const char *error;
	} cases[] = {
		{{"dev"}, 0, false, NULL, 1, ""},
		{{"--all"}, 0, true, NULL, 0, ""},
		{{"a", "--time", "5s", "b"}, 0, false, "5s", 2, ""},
		{{"--time=5s"}, 0, false, "5s", 0, ""},
		{{"-t5s", "x"}, 0, false, "5s", 1, ""},
		{{"-t", "5s", "x"}, 0, false, "5s", 1, ""},
		{{"--", "--all", "-t"}, 0, false, NULL, 2, ""},
		{{"-"}, 0, false, NULL, 1, ""},
		{{"--al"}, 2, false, NULL, 0, "unknown option --al; did you mean --all?"},
		{{"--sockt=x"}, 2, false, NULL, 0, "did you mean --socket?"},
		{{"-x"}, 2, false, NULL, 0, "unknown option -x"},
		{{"--all=yes"}, 2, false, NULL, 0, "--all takes no value"},
		{{"--time"}, 2, false, NULL, 0, "--time needs a value"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_(strv_free) struct strv words = STRV_NULL;
		bool all = false;
		const char *value = NULL;
		const struct cli_option options[] = {
			{"all", 0, &all, NULL}, {"time", 't', NULL, &value}};
		char *argv[8] = {(char *)"x"};
		struct output o;
		int argc = 1;

		for (size_t a = 0; cases[i].args[a]; a++)
			argv[argc++] = (char *)cases[i].args[a];
		output_open(&o);
		assert_int_equal(cli_parse(&o.cli, argc, argv, options, 2, &words), cases[i].code);
		output_flush(&o);
		assert_has(o.err, cases[i].error);
		if (!cases[i].code) {
			assert_int_equal(all, cases[i].all);
			assert_true(streq_null(value, cases[i].time));
			assert_int_equal(words.n, cases[i].n_words);
		}
		output_close(&o);
	}
}

static void test_parse_common(void **state _unused_)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	char *argv[] = {
		(char *)"x", (char *)"a", (char *)"--json", (char *)"--socket", (char *)"/s"};
	struct output o;

	output_open(&o);
	assert_int_equal(cli_parse(&o.cli, 5, argv, NULL, 0, &words), 0);
	assert_true(o.cli.json);
	assert_string_equal(o.cli.socket, "/s");
	assert_int_equal(words.n, 1);
	output_close(&o);
}

struct server {
	char dir[64];
	char socket[100];
	pid_t pid;
};

/* Clouds come and go by themselves, a step each time; "bad" fails. */
static void on_step(uv_timer_t *t)
{
	struct fleet *f = t->data;

	for (size_t i = 0; i < f->n_clouds; i++) {
		struct cloud *c = f->clouds[i];

		if (c->state == CLOUD_STARTING && streq(c->conf->name, "bad"))
			fake_fleet_set(f, c, CLOUD_FAILED, "no java found");
		else if (c->state == CLOUD_STARTING && !streq(c->conf->name, "slow"))
			fake_fleet_set(f, c, CLOUD_FORMING, NULL);
		else if (c->state == CLOUD_FORMING)
			fake_fleet_set(f, c, CLOUD_READY, NULL);
		else if (c->state == CLOUD_STOPPING && c->wanted == WANTED_RUNNING)
			c->generation++, fake_fleet_set(f, c, CLOUD_STARTING, NULL);
		else if (c->state == CLOUD_STOPPING)
			fake_fleet_set(f, c, CLOUD_STOPPED, NULL);
	}
}

/* Every kind of change in a dry run, errors with --restart, and nothing otherwise. */
static int fake_reload(
	const struct reload_options *opts, struct reload_report *out, void *arg _unused_)
{
	static const struct {
		const char *name;
		enum cloud_change_kind kind;
	} kinds[] = {{"same", CHANGE_NONE}, {"soft", CHANGE_LIVE}, {"hard", CHANGE_RESTART},
		{"new", CHANGE_ADDED}, {"old", CHANGE_REMOVED}};
	struct conf_diff *d = &out->diff;

	if (opts->restart) {
		strv_add(&out->errors, "a.conf:3: unknown key 'node'; did you mean 'nodes'?");
		strv_add(&out->errors, "a.conf:4: \033[31mworse");
		return -EINVAL;
	}
	d->n = opts->dry_run ? ARRAY_SIZE(kinds) : 1;
	d->clouds = xcalloc(d->n, sizeof(*d->clouds));
	for (size_t i = 0; i < d->n; i++)
		d->clouds[i] = (struct cloud_change){xstrdup(kinds[i].name), kinds[i].kind, {0},
			kinds[i].kind != CHANGE_RESTART};
	if (opts->dry_run) {
		struct key_changes *keys = &d->clouds[2].keys;

		keys->v = xcalloc(2, sizeof(*keys->v));
		keys->v[keys->n++] = (struct key_change){
			keys_find(SECTION_CLOUD, "nodes"), xstrdup("2"), xstrdup("3")};
		keys->v[keys->n++] = (struct key_change){
			keys_find(SECTION_CLOUD, "stop_timeout"), NULL, xstrdup("7s")};
		d->fleet.v = xcalloc(1, sizeof(*d->fleet.v));
		d->fleet.v[d->fleet.n++] = (struct key_change){
			keys_find(SECTION_FLEET, "socket"), xstrdup("/a"), xstrdup("/b")};
	}
	return 0;
}

/* Stopped, and a connection would start it. */
static void add_armed(struct fleet *f)
{
	struct cloud *c = fake_fleet_add(f, "door", 1);
	struct cloud_conf *conf = (struct cloud_conf *)c->conf;

	conf->start_on = START_ON_CONNECT;
	conf->gate_mode = GATE_HOLD;
	conf->max_idle_duration_ms = 3600000;
	f->gated = true;
	f->gate = (struct fleet_gate){.mode = GATE_HOLD, .door = DOOR_HOLD, .port = 55555};
}

_noreturn_ static void serve(const struct server *s, int ready_fd)
{
	_cleanup_free_ char *events = xasprintf("%s/events", s->dir);
	struct fleet *f = fake_fleet_new();
	struct api *api;
	uv_timer_t timer;
	uv_loop_t loop;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	uv_loop_init(&loop);
	f->log_dir = s->dir;
	f->journal = journal_open(events, 1 << 20);
	fake_fleet_add(f, "dev", 2);
	fake_fleet_add(f, "bad", 1);
	fake_fleet_add(f, "slow", 1);
	fake_fleet_add(f, "dud", 1);
	add_armed(f);
	if (api_new(&loop, f, s->socket, &api, NULL) < 0 || write(ready_fd, "x", 1) != 1)
		_exit(1);
	api_set_reload(api, fake_reload, NULL);
	timer.data = f;
	uv_timer_init(&loop, &timer);
	uv_timer_start(&timer, on_step, 20, 20);
	uv_run(&loop, UV_RUN_DEFAULT);
	_exit(0);
}

static int start_server(void **state)
{
	struct server *s = xcalloc(1, sizeof(*s));
	char byte;
	int fds[2];

	snprintf(s->dir, sizeof(s->dir), "/tmp/h2ofleet-test-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->socket, sizeof(s->socket), "%s/s", s->dir);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	s->pid = fork();
	assert_true(s->pid >= 0);
	if (s->pid == 0)
		serve(s, fds[1]);
	close(fds[1]);
	assert_int_equal(read(fds[0], &byte, 1), 1);
	close(fds[0]);
	*state = s;
	return 0;
}

static int end_server(void **state)
{
	struct server *s = *state;

	if (s->pid > 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
	}
	assert_int_equal(file_remove_tree(s->dir, NULL), 0);
	free(s);
	return 0;
}

/* Runs "COMMAND ARG..." split at blanks. */
static int run(struct server *s, struct output *o, const char *line)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	int code;

	assert_int_equal(strv_add_words(&words, line), 0);
	output_open(o);
	o->cli.socket = s->socket;
	code = cli_run(&o->cli, (int)words.n, words.v);
	output_flush(o);
	return code;
}

static void check(struct server *s, const char *line, int code, const char *out, const char *err)
{
	struct output o;
	int got = run(s, &o, line);

	if (got != code)
		fail_msg("%s: exit code %d, not %d\n%s%s", line, got, code, o.out, o.err);
	if (out)
		assert_has(o.out, out);
	if (err)
		assert_has(o.err, err);
	assert_has_not(o.out, "\033");
	if (*o.out != '{')
		assert_fits(o.out);
	output_close(&o);
}

static void test_commands(void **state)
{
	static const struct {
		const char *line;
		int code;
		const char *out, *err;
	} cases[] = {
		{"status", 3, "dev    stopped", NULL},
		{"status dev", 3, "NODE  STATE", NULL},
		{"status dve", 4, NULL, "no cloud 'dve'; did you mean 'dev'?"},
		{"status dev dve", 4, "dev    stopped", "no cloud 'dve'"},
		{"connect dev", 3, NULL, "dev is stopped; there is nothing to connect to"},
		{"wait dev", 3, NULL, "cloud 'dev' is stopped, and nobody has started it"},
		{"status dev/0", 2, NULL, "'dev/0' is no name of a cloud"},
		{"status \"\"", 2, NULL, "'' is no name of a cloud"},
		{"start ..", 2, NULL, "'..' is no name of a cloud"},
		{"wait a/b", 2, NULL, "'a/b' is no name"},
		{"connect a/b", 2, NULL, "'a/b' is no name"},
		{"status door", 3, "door   stopped (starts on connect)  0/1", NULL},
		{"status door", 3, "http://127.0.0.1:55555", NULL},
		{"connect door --url", 0, "http://127.0.0.1:55555\n", NULL},
		{"connect door --r", 0, "h2o.connect(ip = \"127.0.0.1\", port = 55555)", NULL},
		{"touch door", 3, NULL, "cloud 'door' is stopped, and nobody has started it"},
		{"touch", 2, NULL, "which cloud?"},
		{"touch door --wait", 2, NULL, "unknown option --wait"},
		{"start door --disarm", 2, NULL, "unknown option --disarm"},
		{"start door --wait", 0, "door is ready", NULL},
		{"touch door", 0, "door will be stopped when nobody uses it for ", NULL},
		{"status door", 0, "not used for ", NULL},
		{"status door", 0, "clients: 0 connections, 0 so far; 0 bytes to the cloud", NULL},
		{"stop door --wait", 0, "door starts again with the next connection", NULL},
		{"stop door --disarm", 0, "door is stopped", NULL},
		{"logs dev/", 2, NULL, "'' is no number of a node"},
		{"logs dev/x", 2, NULL, "'x' is no number of a node"},
		{"logs /0", 2, NULL, "'' is no name of a cloud"},
		{"logs dev/0", 0, NULL, "node dev/0 has written nothing yet"},
		{"status -s \"\"", 2, NULL, "--socket needs a value"},
		{"start", 2, NULL, "which cloud?"},
		{"start --all dev", 2, NULL, "not both"},
		{"start dev --timeout 5s", 2, NULL, "--timeout means nothing without --wait"},
		{"start dev --wait --timeout 5", 2, NULL, "'5' is no time"},
		{"stop dev --resume", 2, NULL, "unknown option --resume"},
		{"start dve", 4, NULL, "did you mean 'dev'?"},
		{"start dev --wait --resume", 0, "dev is ready at http://127.0.0.1:54321", NULL},
		{"status dev", 0, "dev    ready", NULL},
		{"restart dev --wait", 0, "dev is ready", NULL},
		{"wait dev", 0, "dev is ready", NULL},
		{"wait dev --for never", 2, NULL, "not 'never'"},
		{"wait dev --for stopped --timeout 1ms", 1, NULL,
			"cloud 'dev' is ready, not yet stopped after 1ms (--timeout)"},
		{"connect dev --url", 0, "http://127.0.0.1:54321\n", NULL},
		{"connect dev --python", 0, "h2o.connect(url=\"http://127.0.0.1:54321\")", NULL},
		{"connect dev --python", 0,
			"# or: h2o.connect(config={\"ip\": \"127.0.0.1\", \"port\": 54321})\n",
			NULL},
		{"connect dev --r", 0, "h2o.connect(ip = \"127.0.0.1\", port = 54321)", NULL},
		{"connect dev --env", 0,
			"export H2O_URL='http://127.0.0.1:54321'\nexport H2O_IP='127.0.0.1'\n"
			"export H2O_PORT=54321\n",
			NULL},
		{"connect dev --h2oconfig", 0,
			"\n[init]\nurl = http://127.0.0.1:54321\ncheck_version = True\n", NULL},
		{"connect dev --url --r", 2, NULL, "one form at a time"},
		{"start dud", 6, NULL, "dud has failed: no jar found"},
		{"start --json dud", 6, "\"state\": \"failed\"", "no jar found"},
		{"start bad --wait", 6, NULL, "cloud 'bad' failed: no java found"},
		{"wait bad", 6, NULL, "cloud 'bad' failed: no java found"},
		{"wait bad --for stopped", 0, "bad has failed: no java found", NULL},
		{"start slow --resume --wait --timeout 50ms", 5, NULL,
			"cloud 'slow' is starting, not yet ready after 50ms (--timeout): resuming"},
		{"connect slow", 5, NULL,
			"slow is starting: resuming; there is nothing to connect to yet"},
		{"status", 6, "ms ago: no java found\n", NULL},
		{"start dev bad --wait", 6, "dev is ready", "cloud 'bad' failed"},
		{"stop --all --wait", 0, "slow is stopped", NULL},
		{"status", 3, NULL, NULL},
		{"logs dev/2", 1, NULL, "cloud 'dev' has no node '2'"},
		{"logs dev -n 0", 2, NULL, "'0' is no number of lines"},
		{"status --x --json", 2, "{\n  \"error\": \"unknown option --x",
			"unknown option --x"},
		{"events --since soon --json", 2, "\"error\"", "no time and no event"},
		{"version", 0, "\nh2ofleetd " PACKAGE_VERSION ", pid ", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		check(*state, cases[i].line, cases[i].code, cases[i].out, cases[i].err);
}

static void test_json(void **state)
{
	struct output o;
	json_t *j;

	assert_int_equal(run(*state, &o, "status --json dev"), 3);
	j = parse_json(o.out);
	assert_int_equal(json_object_size(j), 1);
	assert_int_equal(json_array_size(json_object_get(j, "clouds")), 1);
	json_decref(j);
	output_close(&o);

	assert_int_equal(run(*state, &o, "start --json --wait dev"), 0);
	j = parse_json(o.out);
	assert_int_equal(json_array_size(json_object_get(j, "clouds")), 1);
	assert_string_equal(o.err, "");
	json_decref(j);
	output_close(&o);
}

static void test_logs(void **state)
{
	struct server *s = *state;
	struct output o;

	for (int i = 0; i < 2; i++) {
		_cleanup_free_ char *path = xasprintf("%s/dev-%d.log", s->dir, i);
		_cleanup_free_ char *text = xasprintf("old\nnode\033[5m\302\233\177 %d\n", i);

		assert_int_equal(file_write_atomic(path, text, strlen(text), 0600, false, NULL), 0);
	}
	assert_int_equal(run(s, &o, "logs dev/1 -n1"), 0);
	assert_string_equal(o.out, "node\\x1b[5m\\xc2\\x9b\\x7f 1\n");
	output_close(&o);
	assert_int_equal(run(s, &o, "logs --json dev/1 -n1"), 0);
	{
		json_t *j = parse_json(o.out);
		json_t *log = json_array_get(json_object_get(j, "logs"), 0);

		assert_int_equal(json_integer_value(json_object_get(log, "index")), 1);
		assert_true(json_is_integer(json_object_get(log, "index")));
		assert_string_equal(json_string_value(json_object_get(log, "log")),
			"node\033[5m\302\233\177 1\n");
		/* The same, but nothing that a terminal would obey. */
		assert_has(o.out, "\\u009b\\u007f 1");
		json_decref(j);
	}
	output_close(&o);
	assert_int_equal(run(s, &o, "logs dev -n1"), 0);
	assert_string_equal(o.out, "dev/0  node\\x1b[5m\\xc2\\x9b\\x7f 0\n"
				   "dev/1  node\\x1b[5m\\xc2\\x9b\\x7f 1\n");
	output_close(&o);
}

static void test_no_daemon(void **state)
{
	struct server *s = *state;

	kill(s->pid, SIGKILL);
	waitpid(s->pid, NULL, 0);
	s->pid = 0;
	check(s, "status", 4, NULL, "h2ofleetd is not running (nobody answers at ");
	check(s, "start dev", 4, NULL, "start it with");
	check(s, "status --json", 4, "{\n  \"error\": \"h2ofleetd is not running", "not running");
	check(s, "start --json dev", 4, "{\n  \"error\": \"h2ofleetd is not running", NULL);
	check(s, "version --json", 0, "\"daemon\": null", "");
	assert_int_equal(unlink(s->socket), 0);
	check(s, "wait dev", 4, NULL, "h2ofleetd is not running (no socket at ");
	check(s, "version", 0, "h2ofleetd is not running\n", NULL);
}

/* Ctrl-C ends the client, not what it asked for. */
static void test_interrupt(void **state)
{
	struct server *s = *state;
	char said[4096] = "";
	size_t len = 0;
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char *argv[] = {(char *)"h2ofleet", (char *)"--socket", s->socket, (char *)"start",
			(char *)"slow", (char *)"--wait", NULL};

		dup2(fds[1], STDERR_FILENO);
		_exit(cli_main(6, argv));
	}
	close(fds[1]);
	/* The first line of progress: it waits now. */
	n = read(fds[0], said, sizeof(said) - 1);
	assert_true(n > 0);
	assert_int_equal(kill(pid, SIGINT), 0);
	for (len = (size_t)n; (n = read(fds[0], said + len, sizeof(said) - 1 - len)) > 0;)
		len += (size_t)n;
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 130);
	assert_has(said, "the start goes on in the daemon");
	check(s, "status slow", 5, "slow   starting", NULL);
}

static void test_main(void **state)
{
	struct server *s = *state;
	char *cases[][4] = {
		{(char *)"h2ofleet", (char *)"-s", s->socket, (char *)"statsu"},
		{(char *)"h2ofleet", (char *)"-s", s->socket, (char *)"--nonsense"},
		{(char *)"h2ofleet", (char *)"-s", s->socket, NULL},
		{(char *)"h2ofleet", (char *)"status", (char *)"--help", NULL},
		{(char *)"h2ofleet", (char *)"help", (char *)"wait", NULL},
		{(char *)"h2ofleet", (char *)"--help", NULL, NULL},
	};
	static const int codes[] = {2, 2, 2, 0, 0, 0}, full_codes[] = {2, 2, 2, 1, 1, 1};

	for (size_t k = 0; k < 2 * ARRAY_SIZE(cases); k++) {
		size_t i = k / 2;
		bool full = k % 2;
		int argc = 0, status;
		pid_t pid;

		while (argc < 4 && cases[i][argc])
			argc++;
		fflush(NULL);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			if (!freopen(full ? "/dev/full" : "/dev/null", "w", stdout) ||
				!freopen("/dev/null", "w", stderr))
				_exit(99);
			_exit(cli_main(argc, cases[i]));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(WEXITSTATUS(status), full ? full_codes[i] : codes[i]);
	}
}

#define SERVED(fn) cmocka_unit_test_setup_teardown(fn, start_server, end_server)

/* Proves: people see what each change means for whom; a refusal shows every error and exits 1. */
static void test_reload(void **state)
{
	struct server *s = *state;
	struct output o;

	check(s, "reload", 0, "same   unchanged\n", NULL);
	assert_int_equal(run(s, &o, "reload --dry-run"), 0);
	assert_string_equal(o.out, "CLOUD  CHANGE     TAKES EFFECT\n"
				   "same   unchanged\n"
				   "soft   changed    now\n"
				   "hard   changed    when it is restarted\n"
				   "    nodes: 2 -> 3\n"
				   "    stop_timeout: unset -> 7s (now)\n"
				   "new    added      now\n"
				   "old    removed    now: it is stopped\n"
				   "[fleet] socket: /a -> /b (needs a restart of the daemon)\n"
				   "\nNothing was changed (--dry-run).\n");
	output_close(&o);
	check(s, "reload --restart", 1, NULL,
		"h2ofleet: a.conf:3: unknown key 'node'; did you mean 'nodes'?\n"
		"h2ofleet: a.conf:4: \\x1b[31mworse\n"
		"h2ofleet: nothing was changed; all goes on as it was\n");
	check(s, "reload --restart --json", 1, "\"errors\": [", NULL);
	check(s, "reload --dry-run --json", 0, "\"restart\"", NULL);
	check(s, "reload dev", 2, NULL, "takes no words");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_state_exits),
		cmocka_unit_test(test_worse),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_common),
		SERVED(test_commands),
		SERVED(test_json),
		SERVED(test_reload),
		SERVED(test_logs),
		SERVED(test_no_daemon),
		SERVED(test_interrupt),
		SERVED(test_main),
	};

	if (argc > 1) /* just one of them, for a debugger */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
