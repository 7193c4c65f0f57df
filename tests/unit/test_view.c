/* view_cloud(): every field, known and unknown. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>

#include "api/view.h"
#include "base/text.h"
#include "fake_fleet.h"

static int setup(void **state)
{
	*state = fake_fleet_new();
	return 0;
}

static int teardown(void **state)
{
	fake_fleet_free(*state);
	return 0;
}

/* Compares with a JSON text, and shows both when they differ. */
static void assert_json(json_t *got, const char *want)
{
	json_error_t e;
	json_t *expected = json_loads(want, JSON_DECODE_ANY, &e);

	if (!expected)
		fail_msg("bad JSON in the test: %s", e.text);
	if (!json_equal(got, expected)) {
		char *shown = json_dumps(got, JSON_ENCODE_ANY);

		print_error("got  %s\nwant %s\n", shown, want);
		free(shown);
		fail();
	}
	json_decref(expected);
	json_decref(got);
}

static void test_new_cloud(void **state)
{
	struct cloud *c = fake_fleet_add(*state, "dev", 1);

	c->since_ms = 1000;
	assert_json(view_cloud(c, 3500),
		"{\"name\":\"dev\",\"origin\":\"config\",\"state\":\"stopped\",\"wanted\":"
		"\"stopped\",\"size\":1,"
		"\"generation\":0,\"restarts\":0,\"endpoint\":null,\"endpoint_address\":null,"
		"\"endpoint_port\":null,\"reason\":null,\"h2o_name\":null,\"h2o_version\":null,"
		"\"state_ms\":2500,\"uptime_ms\":null,\"short_locks\":0,\"memory\":null,\"next_"
		"start_ms\":null,\"pressure\":null,\"start_on\":\"command\",\"armed\":false,"
		"\"idle_ms\":null,\"idle_stop_ms\":null,\"gate\":null,\"boot\":null,"
		"\"restart_needed\":false,\"pending_keys\":[],\"incident\":null,\"removed\":false,"
		"\"nodes\":[{\"index\":0,\"state\":\"down\",\"pid\":null,\"ip\":\"127.0.0.1\","
		"\"api_port\":null,\"uptime_ms\":null,\"memory\":null,\"rss_bytes\":null,"
		"\"cpu_percent\":null,\"last_exit\":null}]}");
}

static void make_ready(struct cloud *c)
{
	c->state = CLOUD_READY;
	c->wanted = WANTED_RUNNING;
	c->since_ms = 100;
	c->ready_ms = 60;
	c->generation = 3;
	c->restarts = 2;
	c->short_locks = 4;
	c->h2o_name = xstrdup("dev-3-0a1b");
	c->usage = (struct cloud_usage){
		.known = true, .max_mem = 2048, .free_mem = 1024, .h2o_version = "3.46.0.1"};
	c->nodes[0].state = NODE_UP;
	c->nodes[0].pid = 77;
	c->nodes[0].api_port = 54321;
	c->nodes[0].launched_ms = 40;
}

static void test_ready_cloud(void **state)
{
	struct cloud *c = fake_fleet_add(*state, "dev", 1);

	make_ready(c);
	assert_json(view_cloud(c, 1100),
		"{\"name\":\"dev\",\"origin\":\"config\",\"state\":\"ready\",\"wanted\":"
		"\"running\",\"size\":1,"
		"\"generation\":3,\"restarts\":2,\"endpoint\":\"http://127.0.0.1:54321\","
		"\"endpoint_address\":\"127.0.0.1\",\"endpoint_port\":54321,\"reason\":null,"
		"\"h2o_name\":\"dev-3-0a1b\",\"h2o_version\":\"3.46.0.1\",\"state_ms\":1000,"
		"\"uptime_ms\":1040,"
		"\"short_locks\":4,\"memory\":{\"max_bytes\":2048,\"free_bytes\":1024},"
		"\"next_start_ms\":null,\"pressure\":null,\"start_on\":\"command\",\"armed\":false,"
		"\"idle_ms\":null,\"idle_stop_ms\":null,\"gate\":null,\"boot\":null,"
		"\"restart_needed\":false,\"pending_keys\":[],\"incident\":null,\"removed\":false,"
		"\"nodes\":[{"
		"\"index\":0,\"state\":\"up\",\"pid\":77,"
		"\"ip\":\"127.0.0.1\",\"api_port\":54321,\"uptime_ms\":1060,"
		"\"memory\":null,\"rss_bytes\":null,\"cpu_percent\":null,"
		"\"last_exit\":null}]}");
}

/* What is known of the boot, and null of what is not. */
static void test_boot(void **state)
{
	struct fleet *f = *state;
	struct cloud *c = fake_fleet_add(f, "dev", 1);
	json_t *j = view_live_cloud(f, c);

	assert_true(json_is_null(json_object_get(j, "boot")));
	json_decref(j);
	f->booted = true;
	f->boot = (struct fleet_boot){"archive", "/c/classes.jsa", 1, NULL};
	j = view_live_cloud(f, c);
	assert_json(json_incref(json_object_get(j, "boot")),
		"{\"mode\":\"archive\",\"archive\":\"/c/classes.jsa\",\"mapped\":true,"
		"\"why\":null}");
	json_decref(j);
	f->boot = (struct fleet_boot){"archive", "/c/classes.jsa", 0, "its \377 own"};
	j = view_live_cloud(f, c);
	assert_json(json_incref(json_object_get(j, "boot")),
		"{\"mode\":\"archive\",\"archive\":\"/c/classes.jsa\",\"mapped\":false,"
		"\"why\":\"its \xef\xbf\xbd own\"}");
	json_decref(j);
	f->boot = (struct fleet_boot){"plain", NULL, -1, "fast_boot = no"};
	j = view_live_cloud(f, c);
	assert_json(json_incref(json_object_get(j, "boot")),
		"{\"mode\":\"plain\",\"archive\":null,\"mapped\":null,"
		"\"why\":\"fast_boot = no\"}");
	json_decref(j);
}

/* Proves: what the gate has counted is told, with the words of its door; its last byte counts as
 * use; where clients go is known also while the cloud is at rest. */
static void test_gate(void **state)
{
	struct fleet *f = *state;
	struct cloud *c = fake_fleet_add(f, "dev", 1);
	struct cloud_conf *conf = (struct cloud_conf *)c->conf;
	static const struct {
		enum cloud_door door;
		int mode;
		const char *word;
	} doors[] = {
		{DOOR_SHUT, GATE_HOLD, "shut"},
		{DOOR_HOLD, GATE_HOLD, "hold"},
		{DOOR_HOLD, GATE_REFUSE, "refuse"},
		{DOOR_OPEN, GATE_REFUSE, "open"},
	};
	json_t *j;

	f->gated = true;
	conf->gate_mode = GATE_HOLD;
	f->gate = (struct fleet_gate){.door = DOOR_SHUT, .mode = GATE_HOLD};
	j = view_live_cloud(f, c);
	assert_json(json_incref(json_object_get(j, "gate")),
		"{\"door\":\"shut\",\"url\":null,\"address\":null,\"port\":null,"
		"\"connections\":0,\"held\":0,\"accepted_total\":0,\"passed_total\":0,"
		"\"held_total\":0,\"expired_total\":0,\"refused_total\":0,\"failed_total\":0,"
		"\"closed_total\":0,\"bytes_in\":0,\"bytes_out\":0,\"traffic_ms\":null}");
	json_decref(j);
	f->gate = (struct fleet_gate){.door = DOOR_HOLD,
		.mode = GATE_HOLD,
		.port = 54320,
		.connections = 1,
		.held = 2,
		.accepted_total = 3,
		.passed_total = 4,
		.held_total = 5,
		.expired_total = 6,
		.refused_total = 7,
		.failed_total = 8,
		.closed_total = 9,
		.bytes_in = 10,
		.bytes_out = 5000000000};
	conf->context_path = xstrdup("/h2o");
	conf->start_on = START_ON_CONNECT;
	j = view_live_cloud(f, c);
	assert_json(json_incref(json_object_get(j, "gate")),
		"{\"door\":\"hold\",\"url\":\"http://127.0.0.1:54320/h2o\","
		"\"address\":\"127.0.0.1\",\"port\":54320,"
		"\"connections\":1,\"held\":2,\"accepted_total\":3,\"passed_total\":4,"
		"\"held_total\":5,\"expired_total\":6,\"refused_total\":7,\"failed_total\":8,"
		"\"closed_total\":9,\"bytes_in\":10,\"bytes_out\":5000000000,"
		"\"traffic_ms\":null}");
	assert_true(json_is_true(json_object_get(j, "armed")));
	assert_true(json_is_null(json_object_get(j, "endpoint")));
	assert_string_equal(json_string_value(json_object_get(j, "start_on")), "connect");
	json_decref(j);
	for (size_t i = 0; i < ARRAY_SIZE(doors); i++) {
		f->gate.door = doors[i].door;
		f->gate.mode = doors[i].mode;
		j = view_live_cloud(f, c);
		assert_string_equal(
			json_string_value(json_object_get(json_object_get(j, "gate"), "door")),
			doors[i].word);
		json_decref(j);
	}
}

/* Proves: for how long nobody has used it, and when it will be stopped, by the newest sign of use.
 */
static void test_idle_times(void **state)
{
	struct fleet *f = *state;
	struct cloud *c = fake_fleet_add(f, "dev", 1);
	uint64_t now = fleet_now(f);
	json_t *j;

	make_ready(c);
	c->active_ms = 100;
	j = view_cloud(c, 1100);
	assert_true(json_is_null(json_object_get(j, "idle_ms")));
	assert_true(json_is_null(json_object_get(j, "idle_stop_ms")));
	json_decref(j);
	((struct cloud_conf *)c->conf)->max_idle_duration_ms = 60000;
	((struct cloud_conf *)c->conf)->gate_mode = GATE_HOLD;
	j = view_cloud(c, 1100);
	assert_int_equal(json_integer_value(json_object_get(j, "idle_ms")), 1000);
	assert_int_equal(json_integer_value(json_object_get(j, "idle_stop_ms")), 59000);
	json_decref(j);
	j = view_cloud(c, 100000); /* overdue: being asked */
	assert_int_equal(json_integer_value(json_object_get(j, "idle_stop_ms")), 0);
	json_decref(j);
	f->gated = true;
	f->gate.traffic_ms = now;
	j = view_live_cloud(f, c);
	assert_in_range(json_integer_value(json_object_get(j, "idle_ms")), 0, 20000);
	assert_in_range(json_integer_value(json_object_get(j, "idle_stop_ms")), 40000, 60000);
	assert_in_range(
		json_integer_value(json_object_get(json_object_get(j, "gate"), "traffic_ms")), 0,
		20000);
	json_decref(j);
}

/* Proves: what a node's process takes is told while it has one, with the part of the heap that is
 * its own; null otherwise. */
static void test_usage(void **state)
{
	struct fleet *f = *state;
	struct cloud *c = fake_fleet_add(f, "dev", 2);
	json_t *j, *nodes;

	make_ready(c);
	c->nodes[0].max_mem = 4096;
	c->nodes[0].free_mem = 1000;
	c->nodes[1].max_mem = 4096; /* it was; there is no process now */
	f->usage_known = true;
	f->usage = (struct fleet_usage){.rss_bytes = 5000, .cpu_percent = 12.345};
	j = view_live_cloud(f, c);
	nodes = json_object_get(j, "nodes");
	assert_json(json_incref(json_object_get(json_array_get(nodes, 0), "memory")),
		"{\"max_bytes\":4096,\"free_bytes\":1000}");
	assert_int_equal(
		json_integer_value(json_object_get(json_array_get(nodes, 0), "rss_bytes")), 5000);
	assert_json(json_incref(json_object_get(json_array_get(nodes, 0), "cpu_percent")), "12.35");
	assert_true(json_is_null(json_object_get(json_array_get(nodes, 1), "memory")));
	assert_true(json_is_null(json_object_get(json_array_get(nodes, 1), "rss_bytes")));
	json_decref(j);
	f->usage.cpu_percent = -1;
	j = view_live_node(f, c, &c->nodes[0]);
	assert_true(json_is_null(json_object_get(j, "cpu_percent")));
	json_decref(j);
}

/* Read when asked, with two decimals; what the kernel does not tell is null. */
static void test_pressure(void **state)
{
	struct fleet *f = *state;
	struct cloud *c = fake_fleet_add(f, "dev", 1);
	json_t *j = view_live_cloud(f, c);

	assert_true(json_is_null(json_object_get(j, "pressure")));
	json_decref(j);
	f->pressure_known = true;
	f->pressure = (struct fleet_pressure){.own = true, .cpu = 12.34, .memory = 0, .io = -1};
	j = view_live_cloud(f, c);
	assert_json(json_incref(json_object_get(j, "pressure")),
		"{\"of\":\"cloud\",\"cpu\":12.34,\"memory\":0.0,\"io\":null}");
	json_decref(j);
	f->pressure.own = false;
	j = view_live_cloud(f, c);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(j, "pressure"), "of")),
		"machine");
	json_decref(j);
}

static void assert_endpoint(struct cloud *c, const char *want)
{
	json_t *j = view_cloud(c, 0);
	const char *url = json_string_value(json_object_get(j, "endpoint"));

	if (want)
		assert_string_equal(url ? url : "(null)", want);
	else
		assert_null(url);
	json_decref(j);
}

static void test_endpoint_url(void **state)
{
	struct cloud *c = fake_fleet_add(*state, "dev", 1);
	struct cloud_conf *conf = (struct cloud_conf *)c->conf;

	for (int s = CLOUD_STOPPED; s <= CLOUD_FAILED; s++) {
		c->state = (enum cloud_state)s;
		assert_endpoint(c,
			s == CLOUD_READY || s == CLOUD_DEGRADED ? "http://127.0.0.1:54321" : NULL);
	}
	c->state = CLOUD_READY;
	replace_str(&conf->context_path, "/h2o");
	assert_endpoint(c, "http://127.0.0.1:54321/h2o");
	replace_str(&conf->context_path, "h2o");
	assert_endpoint(c, "http://127.0.0.1:54321/h2o");
	replace_str(&conf->context_path, "/");
	assert_endpoint(c, "http://127.0.0.1:54321");
	strcpy(c->endpoint.addr, "::1");
	assert_endpoint(c, "http://[::1]:54321");
}

static void test_backoff(void **state)
{
	struct cloud *c = fake_fleet_add(*state, "dev", 1);
	json_t *j;

	c->state = CLOUD_BACKOFF;
	c->next_start_ms = 5000;
	j = view_cloud(c, 3000);
	assert_int_equal(json_integer_value(json_object_get(j, "next_start_ms")), 2000);
	json_decref(j);
	j = view_cloud(c, 6000);
	assert_true(json_is_integer(json_object_get(j, "next_start_ms")));
	assert_int_equal(json_integer_value(json_object_get(j, "next_start_ms")), 0);
	json_decref(j);
	c->state = CLOUD_STARTING;
	j = view_cloud(c, 3000);
	assert_true(json_is_null(json_object_get(j, "next_start_ms")));
	json_decref(j);
}

static json_t *view_exit(struct node *n)
{
	json_t *j = view_node(n, 0), *x = json_incref(json_object_get(j, "last_exit"));

	json_decref(j);
	return x;
}

static void test_last_exit(void **state)
{
	struct node *n = &fake_fleet_add(*state, "dev", 1)->nodes[0];
	struct last_exit *x = &n->last_exit;

	x->present = true;
	x->known = true;
	x->signal = SIGKILL;
	x->code = 3; /* means nothing beside a signal */
	x->cause = CAUSE_SIGNAL;
	x->why = xstrdup("node 0 was killed");
	x->incident = xstrdup("20231114-221320-123");
	x->log_tail = xstrdup("a\xff"
			      "b\n\xc3\xa9");
	x->wall_ms = 1700000000123;
	assert_json(view_exit(n),
		"{\"code\":null,\"signal\":\"SIGKILL\",\"cause\":\"signal\","
		"\"why\":\"node 0 was killed\",\"log_tail\":\"a\\ufffdb\\n\\u00e9\","
		"\"at\":\"2023-11-14T22:13:20.123Z\",\"incident\":\"20231114-221320-123\"}");
	x->signal = 0;
	replace_str(&x->why, NULL);
	replace_str(&x->log_tail, NULL);
	assert_json(view_exit(n), "{\"code\":3,\"signal\":null,\"cause\":\"signal\",\"why\":null,"
				  "\"log_tail\":null,\"at\":\"2023-11-14T22:13:20.123Z\","
				  "\"incident\":\"20231114-221320-123\"}");
	x->known = false;
	x->signal = SIGKILL;
	assert_json(view_exit(n),
		"{\"code\":null,\"signal\":null,\"cause\":\"signal\",\"why\":null,"
		"\"log_tail\":null,\"at\":\"2023-11-14T22:13:20.123Z\",\"incident\":\"20231114-"
		"221320-123\"}");
}

static void test_odd_signals(void **state)
{
	struct node *n = &fake_fleet_add(*state, "dev", 1)->nodes[0];
	static const struct {
		int sig;
		const char *name;
	} cases[] = {{SIGSEGV, "SIGSEGV"}, {36, "SIGRTMIN+2"}, {99, "SIG99"}};

	n->last_exit.present = n->last_exit.known = true;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *j;

		n->last_exit.signal = cases[i].sig;
		j = view_exit(n);
		assert_string_equal(json_string_value(json_object_get(j, "signal")), cases[i].name);
		json_decref(j);
	}
}

static void test_utf8(void **state _unused_)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"", ""},
		{"plain\ttext\n", "plain\ttext\n"},
		{"\xe2\x82\xac", "\xe2\x82\xac"},
		{"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xc0\x80x", "\xef\xbf\xbd\xef\xbf\xbdx"},
		{"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
		{"\xf5z", "\xef\xbf\xbdz"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *out = text_utf8(cases[i].in);

		assert_string_equal(out, cases[i].out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_new_cloud, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ready_cloud, setup, teardown),
		cmocka_unit_test_setup_teardown(test_usage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pressure, setup, teardown),
		cmocka_unit_test_setup_teardown(test_boot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_idle_times, setup, teardown),
		cmocka_unit_test_setup_teardown(test_endpoint_url, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backoff, setup, teardown),
		cmocka_unit_test_setup_teardown(test_last_exit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_signals, setup, teardown),
		cmocka_unit_test(test_utf8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
