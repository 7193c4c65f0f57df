/* Incidents: ids, how many are kept, what a file may be; and how they are shown. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file.h"
#include "cli/show_incident.h"
#include "cli_output.h"
#include "core/incidents.h"

static char dir[64];

static int setup(void **state _unused_)
{
	snprintf(dir, sizeof(dir), "/tmp/h2ofleet-incidents.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state _unused_)
{
	return file_remove_tree(dir, NULL);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

static json_t *make(const char *id, const char *cloud, const char *log)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:s}", "id", id, "cloud", cloud, "summary",
		"it\ndied", "kind", "exit", "node", 1, "log_tail", log);
}

static void put(struct incidents *in, const char *id, const char *cloud, const char *log)
{
	json_t *j = make(id, cloud, log);

	assert_int_equal(incidents_put(in, j, NULL), 0);
	json_decref(j);
}

static const char *id_at(const struct incidents *in, size_t i)
{
	return json_string_value(json_object_get(incidents_summary(in, i), "id"));
}

/* 2026-11-22 22:40:15.123 UTC */
#define WALL_MS UINT64_C(1795387215123)

/* Unique and growing, whatever the clock does, also in the next daemon. */
static void test_ids(void **state _unused_)
{
	struct incidents *in = incidents_open(dir, 10, 1 << 20);
	char id[INCIDENT_ID_LEN + 1];

	incidents_new_id(in, WALL_MS, id);
	assert_string_equal(id, "20261122-224015-123");
	incidents_new_id(in, WALL_MS, id);
	assert_string_equal(id, "20261122-224015-124");
	incidents_new_id(in, 0, id);
	assert_string_equal(id, "20261122-224015-125");
	put(in, "20261231-235959-999", "dev", "x");
	incidents_close(in);
	in = incidents_open(dir, 10, 1 << 20);
	incidents_new_id(in, WALL_MS, id);
	assert_string_equal(id, "20270101-000000-000");
	incidents_new_id(in, UINT64_MAX, id);
	assert_string_equal(id, "99991231-235959-999");
	incidents_close(in);
}

static void test_number(void **state _unused_)
{
	struct incidents *in = incidents_open(dir, 2, 1 << 20);
	_cleanup_(err_clear) struct err e = ERR_NULL;
	json_t *j;

	assert_null(incidents_newest(in, "dev"));
	put(in, "20260101-000000-000", "dev", "a");
	put(in, "20260103-000000-000", "old", "c");
	put(in, "20260102-000000-000", "dev", "b"); /* the first one goes */
	assert_int_equal(incidents_count(in), 2);
	assert_string_equal(id_at(in, 0), "20260103-000000-000");
	assert_string_equal(incidents_newest(in, "dev"), "20260102-000000-000");
	assert_int_equal(incidents_read(in, "20260101-000000-000", &j, &e), -ENOENT);
	assert_string_equal(err_msg(&e), "there is no incident 20260101-000000-000 (any more)");
	put(in, "20260103-000000-000", "old", "again"); /* in its place */
	assert_int_equal(incidents_count(in), 2);
	assert_int_equal(incidents_read(in, "20260103-000000-000", &j, &e), 0);
	assert_string_equal(json_string_value(json_object_get(j, "log_tail")), "again");
	assert_string_equal(json_string_value(json_object_get(j, "summary")), "it\ndied");
	json_decref(j);
	assert_int_equal(incidents_remove(in, "20260103-000000-000", &e), 0);
	assert_int_equal(incidents_remove(in, "20260103-000000-000", &e), -ENOENT);
	assert_int_equal(incidents_remove(in, "../../etc/passwd", &e), -ENOENT);
	assert_int_equal(incidents_count(in), 1);
	incidents_close(in);
}

/* Together no more than so many bytes, but the newest stays however long it is. */
static void test_bytes(void **state _unused_)
{
	struct incidents *in = incidents_open(dir, 10, 1000);
	char log[601];

	memset(log, 'x', 600);
	log[600] = '\0';
	put(in, "20260101-000000-000", "dev", "short");
	put(in, "20260102-000000-000", "dev", "short");
	assert_int_equal(incidents_count(in), 2);
	put(in, "20260103-000000-000", "dev", log);
	assert_int_equal(incidents_count(in), 1);
	put(in, "20260104-000000-000", "dev", log);
	assert_int_equal(incidents_count(in), 1);
	assert_string_equal(id_at(in, 0), "20260104-000000-000");
	incidents_close(in);
	in = incidents_open(dir, 10, 10);
	assert_int_equal(incidents_count(in), 1);
	incidents_close(in);
}

/* Too long a one is cut where most is, and not within a character. */
static void test_long(void **state _unused_)
{
	struct incidents *in = incidents_open(dir, 10, UINT64_MAX);
	size_t n = 400000;
	char *log = xmalloc(2 * n + 1);
	const char *kept;
	struct stat st;
	char path[128];
	json_t *j;

	for (size_t i = 0; i < n; i++)
		memcpy(log + 2 * i, "\u00e9", 2);
	log[2 * n] = '\0';
	put(in, "20260101-000000-000", "dev", log);
	free(log);
	snprintf(path, sizeof(path), "%s/20260101-000000-000.json", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size <= (off_t)INCIDENT_MAX_BYTES);
	assert_true(st.st_size > (off_t)INCIDENT_MAX_BYTES / 3);
	assert_int_equal(incidents_read(in, "20260101-000000-000", &j, NULL), 0);
	kept = json_string_value(json_object_get(j, "log_tail"));
	assert_has(kept, "\u00e9\n[cut here: the incident is too long]\n");
	assert_string_equal(json_string_value(json_object_get(j, "summary")), "it\ndied");
	json_decref(j);
	incidents_close(in);
}

static void write_file(const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0640, false, NULL), 0);
}

static bool there(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

/* What is not ours stays, what is damaged goes, and what was damaged later is an error. */
static void test_files(void **state _unused_)
{
	struct incidents *in = incidents_open(dir, 10, 1 << 20);
	_cleanup_(err_clear) struct err e = ERR_NULL;
	json_t *j;

	put(in, "20260101-000000-000", "dev", "a");
	put(in, "20260102-000000-000", "dev", "a");
	incidents_close(in);
	write_file("20260103-000000-000.json", "{\"id\":\"20260103-000000-000\"}\n");
	write_file("20260104-000000-000.json", "");
	write_file("20261301-000000-000.json", "not a month");
	write_file("notes.json", "{}");
	write_file("x.txt", "of earlier versions");
	write_file("20260105-000000-000.json.new", "half");
	in = incidents_open(dir, 10, 1 << 20);
	assert_int_equal(incidents_count(in), 2);
	assert_false(there("20260103-000000-000.json"));
	assert_false(there("20260104-000000-000.json"));
	assert_true(there("20261301-000000-000.json"));
	assert_true(there("notes.json"));
	assert_false(there("x.txt"));
	assert_false(there("20260105-000000-000.json.new"));
	write_file("20260102-000000-000.json", "[]");
	assert_int_equal(incidents_read(in, "20260102-000000-000", &j, &e), -EBADMSG);
	assert_has(err_msg(&e), "is damaged");
	incidents_close(in);
}

/* A FIFO in its place must not hold the daemon up. */
static void test_fifo(void **state _unused_)
{
	struct incidents *in;
	char path[128];

	snprintf(path, sizeof(path), "%s/20260101-000000-000.json", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	in = incidents_open(dir, 10, 1 << 20);
	assert_int_equal(incidents_count(in), 0);
	incidents_close(in);
}

/* ---- for people ---- */

static void test_list(void **state _unused_)
{
	json_t *list = parse_json(
		"[{\"id\":\"20261122-224015-123\",\"time\":\"2026-11-22T22:40:15.123Z\","
		"\"cloud\":\"dev\",\"node\":1,\"kind\":\"exit\",\"cause\":\"kernel-oom\","
		"\"signal\":\"SIGKILL\",\"code\":null,\"summary\":\"node 1 was killed by \\u001b "
		"the "
		"kernel's OOM killer: the machine or container ran out of memory\"},"
		"{\"id\":\"20261122-224014-000\",\"time\":null,\"cloud\":\"dev\",\"node\":null,"
		"\"kind\":\"not-ready\",\"cause\":null,\"summary\":null}]");
	struct output o;

	setenv("TZ", "UTC", 1);
	output_open(&o);
	show_incidents(o.cli.out, list, 80);
	output_flush(&o);
	assert_string_equal(o.out,
		"ID                   TIME                 NODE   WHAT\n"
		"20261122-224015-123  2026-11-22 22:40:15  dev/1  kernel-oom, SIGKILL\n"
		"    node 1 was killed by \\x1b the kernel's OOM killer: the machine or container\n"
		"    ran out of memory\n"
		"20261122-224014-000  -                    dev    not-ready\n");
	output_close(&o);
	json_decref(list);
}

static void test_report(void **state _unused_)
{
	json_t *j = parse_json(
		"{\"id\":\"20261122-224015-123\",\"time\":\"2026-11-22T22:40:15.123Z\","
		"\"cloud\":\"dev\",\"node\":1,\"generation\":3,\"kind\":\"hang\",\"cause\":null,"
		"\"signal\":\"SIGKILL\",\"code\":null,\"summary\":\"node 1 (pid 7) hangs\","
		"\"outcome\":\"restarted\",\"restart_delay_ms\":2000,\"pid\":7,\"uptime_ms\":60000,"
		"\"cloud_state\":\"degraded\",\"ready_for_ms\":50000,\"h2o_name\":\"dev-3-aaaa\","
		"\"oom\":{\"kernel\":false,\"at_memory_max\":false,\"java\":false,"
		"\"java_line\":null},\"hs_err\":null,\"memory\":{\"max_bytes\":2147483648,"
		"\"free_bytes\":1073741824},\"machine\":{\"memory_bytes\":4294967296,"
		"\"memory_available_bytes\":1073741824,\"cores\":2,\"load\":[1.5,1,0.25],"
		"\"pressure\":{\"of\":\"machine\",\"cpu\":12.4,\"memory\":0,\"io\":null}},"
		"\"nodes\":[{\"index\":0,\"pid\":6,\"silent_ms\":500},"
		"{\"index\":1,\"pid\":7,\"silent_ms\":60000},"
		"{\"index\":2,\"pid\":null,\"silent_ms\":null}],"
		"\"log_file\":\"/log/1.log\",\"log_tail\":\"one\\n\\ttwo \\u001b[2J\\n\","
		"\"thread_dump\":\"Full thread dump\\n\",\"thread_dump_note\":\"cut\","
		"\"proc\":\"process 7\\n\"}");
	struct output o;

	setenv("TZ", "UTC", 1);
	output_open(&o);
	show_incident(o.cli.out, j, 80, false);
	output_flush(&o);
	assert_string_equal(o.out, "incident 20261122-224015-123: dev/1, generation 3\n"
				   "  node 1 (pid 7) hangs\n"
				   "\n"
				   "  time        2026-11-22 22:40:15.123\n"
				   "  what        hang\n"
				   "  cloud was   degraded, ready for 50s\n"
				   "  H2O name    dev-3-aaaa\n"
				   "  then        the cloud was started again, after 2s\n"
				   "\n"
				   "process\n"
				   "  pid         7\n"
				   "  ended with  SIGKILL\n"
				   "  after       1m 0s\n"
				   "  OOM killer  has not killed at that time\n"
				   "  Java heap   no OutOfMemoryError in the end of the log\n"
				   "\n"
				   "memory and load\n"
				   "  heaps       1.0 GB free of 2.0 GB, when H2O was last asked\n"
				   "  machine     1.0 GB available of 4.0 GB\n"
				   "  load        1.50 1.00 0.25 on 2 cores\n"
				   "  pressure    cpu 12%, memory 0% (of the machine)\n"
				   "\n"
				   "nodes\n"
				   "  node 0      pid 6, answered 500ms ago\n"
				   "  node 1      pid 7, answered 1m 0s ago\n"
				   "  node 2      has ended\n"
				   "\n"
				   "last lines of its log: /log/1.log\n"
				   "  one\n"
				   "  \ttwo \\x1b[2J\n"
				   "\n"
				   "thread dump\n"
				   "  cut\n"
				   "  Full thread dump\n"
				   "\n"
				   "/proc\n"
				   "  process 7\n");
	output_close(&o);
	output_open(&o); /* of another version, say */
	show_incident(o.cli.out, json_object_get(j, "oom"), 80, true);
	output_flush(&o);
	assert_has(o.out, "incident -: ?, generation 0");
	output_close(&o);
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ids),
		TEST(test_number),
		TEST(test_bytes),
		TEST(test_long),
		TEST(test_files),
		TEST(test_fifo),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_report),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
