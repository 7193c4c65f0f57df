/* Tables, sentences and progress for people. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "cli/progress.h"
#include "cli_output.h"

static void test_cloud_table(void **state _unused_)
{
	json_t *clouds = parse_json(
		"[{\"name\":\"dev\",\"state\":\"ready\",\"size\":2,\"state_ms\":5,\"uptime_ms\":"
		"192000,"
		"\"generation\":3,\"restarts\":2,\"endpoint\":\"http://127.0.0.1:54321\","
		"\"memory\":{\"max_bytes\":4294967296,\"free_bytes\":3006477107},"
		"\"reason\":\"not shown\",\"nodes\":[{\"state\":\"up\",\"cpu_percent\":103.6},"
		"{\"state\":\"up\",\"cpu_percent\":null}]},"
		"{\"name\":\"nightly\",\"state\":\"backoff\",\"size\":1,\"state_ms\":500,\"uptime_"
		"ms\":null,"
		"\"generation\":12,\"restarts\":0,\"endpoint\":null,\"next_start_ms\":4000,"
		"\"reason\":\"node 0 died\",\"nodes\":[{\"state\":\"exited\"}]},"
		"{\"name\":\"bad\",\"state\":\"failed\",\"size\":1,\"state_ms\":31000,"
		"\"generation\":1,\"restarts\":0,\"reason\":\"no java\"},"
		"{\"name\":\"slow\",\"state\":\"starting\",\"size\":1,\"state_ms\":5000,"
		"\"generation\":1,\"restarts\":0,\"reason\":null},"
		"{\"name\":\"off\",\"state\":\"stopped\",\"size\":1,\"state_ms\":5000,"
		"\"generation\":0,\"restarts\":0,\"reason\":null}]");
	struct output o;

	output_open(&o);
	show_clouds(o.cli.out, clouds, 80, false);
	output_flush(&o);
	assert_string_equal(o.out, "CLOUD    STATE     NODES  UPTIME  GEN/RST  MEMORY    CPU\n"
				   "dev      ready     2/2    3m 12s  3/2      1.2/4.0G  104%\n"
				   "    http://127.0.0.1:54321\n"
				   "nightly  backoff   0/1    -       12/0     -         -\n"
				   "    node 0 died; next start in 4s\n"
				   "bad      failed    0/1    -       1/0      -         -\n"
				   "    failed 31s ago: no java\n"
				   "slow     starting  0/1    -       1/0      -         -\n"
				   "    starting for 5s\n"
				   "off      stopped   0/1    -       0/0      -         -\n");
	output_close(&o);
	output_open(&o);
	show_clouds(o.cli.out, clouds, 80, true);
	output_flush(&o);
	assert_has(o.out, "dev      \033[32mready\033[0m     2/2");
	assert_has(o.out, "nightly  \033[33mbackoff\033[0m   0/1");
	output_close(&o);
	json_decref(clouds);
}

/* The longest name and a long path; a reason that needs wrapping and holds an escape. */
static void test_cloud_table_fits(void **state _unused_)
{
	json_t *clouds = parse_json(
		"[{\"name\":\"abcdefghijklmnopqrstuvwxyz012345\",\"state\":\"degraded\","
		"\"size\":1024,\"uptime_ms\":8640000000,\"generation\":100000,\"restarts\":99999,"
		"\"endpoint\":\"http://127.0.0.1:54321/a/path\",\"nodes\":[],"
		"\"reason\":\"node 7 answers late \\u001b[2J: a sentence that is so long that "
		"it must be broken into several lines\"}]");
	struct output o;

	output_open(&o);
	show_clouds(o.cli.out, clouds, 80, false);
	output_flush(&o);
	assert_fits(o.out);
	assert_has(o.out, "\n    http://127.0.0.1:54321/a/path\n");
	assert_has(o.out, "answers late \\x1b[2J: a");
	output_close(&o);
	json_decref(clouds);
}

static void test_wrapped(void **state _unused_)
{
	struct output o;

	output_open(&o);
	show_wrapped(
		o.cli.out, 20, 4, "see http://127.0.0.1:54321/a/path or \u00e9\u00e9\u00e9 there");
	show_wrapped(o.cli.out, 20, 4, "sixteen columns.");
	show_wrapped(o.cli.out, 2, 4, "two words");
	output_flush(&o);
	assert_string_equal(o.out,
		"    see\n    http://127.0.0.1:54321/a/path\n    or \u00e9\u00e9\u00e9 there\n"
		"    sixteen columns.\n    two\n    words\n");
	output_close(&o);
}

/* Of a ready cloud of one node; owned by the caller. */
static char *nodes_with_boot(const char *state, const char *boot)
{
	_cleanup_free_ char *text =
		xasprintf("{\"state\":\"%s\",\"nodes\":[],\"boot\":%s}", state, boot);
	json_t *cloud = parse_json(text);
	struct output o;
	char *out;

	output_open(&o);
	show_nodes(o.cli.out, cloud, 80, false);
	output_flush(&o);
	out = xstrdup(strchr(o.out, '\n') + 1);
	output_close(&o);
	json_decref(cloud);
	return out;
}

/* One line where nodes could have started faster, and why they did not. */
static void test_boot(void **state _unused_)
{
	static const char *const cases[][3] = {
		{"ready", "null", ""},
		{"ready", "{\"mode\":\"archive\",\"mapped\":true,\"why\":null}", ""},
		{"ready", "{\"mode\":\"archive\",\"mapped\":null,\"why\":null}", ""},
		{"failed", "{\"mode\":\"plain\",\"mapped\":null,\"why\":\"x\"}", ""},
		{"ready", "{\"mode\":\"plain\",\"mapped\":null,\"why\":\"fast_boot = no\"}",
			"\n  boot: without the boot cache: fast_boot = no\n"},
		{"degraded", "{\"mode\":\"native\",\"mapped\":null,\"why\":null}",
			"\n  boot: with the native libraries, without an archive of classes\n"},
		{"ready", "{\"mode\":\"archive\",\"mapped\":false,\"why\":\"a \\u001b b\"}",
			"\n  boot: the archive of classes is not used: a \\x1b b\n"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *out = nodes_with_boot(cases[i][0], cases[i][1]);

		assert_string_equal(out, cases[i][2]);
	}
}

static void test_node_table(void **state _unused_)
{
	json_t *cloud = parse_json(
		"{\"state\":\"failed\",\"nodes\":[{\"index\":0,\"state\":\"up\",\"pid\":4711,\"api_"
		"port\":54321,"
		"\"uptime_ms\":61000,\"memory\":{\"max_bytes\":67108864,\"free_bytes\":24117248},"
		"\"rss_bytes\":1610612736,\"cpu_percent\":6.6,\"last_exit\":null},{\"index\":1,"
		"\"state\":\"exited\","
		"\"pid\":null,\"api_port\":54323,\"uptime_ms\":null,\"last_exit\":{\"code\":null,"
		"\"signal\":\"SIGKILL\",\"cause\":\"signal\",\"why\":\"node 1 was killed\","
		""
		"\"log_tail\":\"1\\n2\\n3\\n4\\n5\\n6\\n7\\n8\\n9\\n10\\na\\u001b]0;x\\u0007\\n"
		"\\tat b\\n\",\"at\":\"2026-01-02T03:04:05.678Z\"}},"
		"{\"index\":2,\"state\":\"exited\",\"last_exit\":{\"code\":null,\"signal\":"
		"\"SIGTERM\",\"cause\":\"stopped\",\"why\":null,\"log_tail\":\"not shown\"}}]}");
	struct output o;

	output_open(&o);
	show_nodes(o.cli.out, cloud, 80, false);
	output_flush(&o);
	assert_string_equal(o.out,
		"  NODE  STATE   PID   PORT   UPTIME  HEAP    RSS     CPU\n"
		"  0     up      4711  54321  1m 1s   41/64M  1.5 GB  7%\n"
		"  1     exited  -     54323  -       -       -       -\n"
		"  2     exited  -     -      -       -       -       -\n"
		"\n  last exits:\n"
		"    2026-01-02 02:04:05.678: node 1 was killed\n"
		"      3\n      4\n      5\n      6\n      7\n      8\n      9\n      10\n"
		"      a\\x1b]0;x\\x07\n       at b\n"
		"    node 2: stopped (SIGTERM)\n");
	output_close(&o);
	json_object_set_new(cloud, "state", json_string("degraded"));
	output_open(&o);
	show_nodes(o.cli.out, cloud, 80, false);
	output_flush(&o);
	assert_has(o.out, "node 1 was killed\n    node 2");
	output_close(&o);
	json_decref(cloud);
}

static void test_sentences(void **state _unused_)
{
	static const struct {
		const char *json, *sentence;
	} cases[] = {
		{"{\"name\":\"a\",\"state\":\"ready\",\"endpoint\":\"http://x\"}",
			"a is ready at http://x"},
		{"{\"name\":\"a\",\"state\":\"failed\",\"reason\":\"no java\"}",
			"a has failed: no java"},
		{"{\"name\":\"a\",\"state\":\"backoff\",\"reason\":\"no room\"}",
			"a waits before its next start: no room"},
		{"{\"name\":\"a\",\"state\":\"forming\",\"reason\":null}", "a is forming"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *j = parse_json(cases[i].json);
		_cleanup_free_ char *s = show_sentence(j);

		assert_string_equal(s, cases[i].sentence);
		json_decref(j);
	}
}

static void test_progress(void **state _unused_)
{
	json_t *one =
		parse_json("[{\"name\":\"a\",\"state\":\"forming\",\"size\":2,\"nodes\":[]}]");
	json_t *two = parse_json("[{\"name\":\"a\",\"state\":\"ready\",\"size\":2,\"nodes\":[]}]");
	struct progress p;
	struct output o;

	output_open(&o);
	progress_begin(&p, &o.cli);
	progress_show(&p, one);
	progress_show(&p, one);
	progress_show(&p, two);
	progress_show(&p, one);
	progress_end(&p);
	output_flush(&o);
	assert_string_equal(o.err, "a: forming, nodes up 0/2\na: ready, nodes up 0/2\n"
				   "a: forming, nodes up 0/2\n");
	output_close(&o);

	output_open(&o);
	o.cli.live = true;
	o.cli.err_width = 12;
	progress_begin(&p, &o.cli);
	progress_show(&p, one);
	progress_end(&p);
	output_flush(&o);
	assert_string_equal(o.err, "\ra: for, 0ms\033[K\r\033[K");
	output_close(&o);
	json_decref(one);
	json_decref(two);
}

/* Only where something waits much, and of what. */
static void test_pressure(void **state _unused_)
{
	static const struct {
		const char *pressure, *line;
	} cases[] = {
		{"null", NULL},
		{"{\"of\":\"cloud\",\"cpu\":9.9,\"memory\":null,\"io\":0}", NULL},
		{"{\"of\":\"cloud\",\"cpu\":9.9,\"memory\":34.6,\"io\":null}",
			"  pressure: in the last 10 s something waited 35% for memory\n"},
		{"{\"of\":\"machine\",\"cpu\":50.0,\"memory\":0,\"io\":10.0}",
			"  pressure (of the whole machine): in the last 10 s something waited "
			"50% for\n  cpu, 10% for the disk\n"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *text =
			xasprintf("{\"nodes\":[],\"pressure\":%s}", cases[i].pressure);
		json_t *cloud = parse_json(text);
		struct output o;

		output_open(&o);
		show_nodes(o.cli.out, cloud, 80, false);
		output_flush(&o);
		if (cases[i].line)
			assert_has(o.out, cases[i].line);
		else
			assert_null(strstr(o.out, "pressure"));
		output_close(&o);
		json_decref(cloud);
	}
}

/* An armed cloud, clients that wait or were turned away, idle times; and who is inside. */
static void test_gate(void **state _unused_)
{
	json_t *clouds = parse_json(
		"[{\"name\":\"dev\",\"state\":\"ready\",\"size\":1,\"state_ms\":5,\"uptime_ms\":"
		"192000,\"generation\":3,\"restarts\":0,\"endpoint\":\"http://127.0.0.1:54321\","
		"\"nodes\":[{\"state\":\"up\"}],\"armed\":false,\"idle_ms\":720000,"
		"\"idle_stop_ms\":2880000,\"gate\":{\"url\":\"http://127.0.0.1:54321\","
		"\"connections\":1,\"held\":0,\"refused_total\":3,\"passed_total\":120,"
		"\"bytes_in\":2048,\"bytes_out\":5242880}},"
		"{\"name\":\"off\",\"state\":\"stopped\",\"size\":1,\"state_ms\":60000,"
		"\"generation\":1,\"restarts\":0,\"endpoint\":null,\"armed\":true,"
		"\"reason\":\"stopped after 1h without use\",\"idle_stop_ms\":null,"
		"\"gate\":{\"url\":\"http://127.0.0.1:54330\",\"held\":2,\"refused_total\":0}}]");
	struct output o;

	output_open(&o);
	show_clouds(o.cli.out, clouds, 120, true);
	show_nodes(o.cli.out, json_array_get(clouds, 0), 80, false);
	output_flush(&o);
	assert_has(o.out, "dev    \033[32mready\033[0m ");
	assert_has(o.out, "\n    3 turned away; not used for 12m 0s, stops in 48m 0s\n");
	assert_has(o.out,
		"off    stopped (starts on connect)  0/1    -       1/0      -       -    "
		"http://127.0.0.1:54330\n    stopped 1m 0s ago: stopped after 1h "
		"without use\n    2 waiting for the cloud\n");
	assert_has(o.out, "\n  clients: 1 connection, 120 so far; 2.0 kB to the cloud, 5.0 MB from "
			  "it\n");
	output_close(&o);
	json_decref(clouds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cloud_table),
		cmocka_unit_test(test_cloud_table_fits),
		cmocka_unit_test(test_wrapped),
		cmocka_unit_test(test_pressure),
		cmocka_unit_test(test_gate),
		cmocka_unit_test(test_boot),
		cmocka_unit_test(test_node_table),
		cmocka_unit_test(test_sentences),
		cmocka_unit_test(test_progress),
	};

	setenv("TZ", "XYZ+1", 1); /* times are shown in the reader's zone */
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
