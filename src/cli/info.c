/* `h2ofleet info`: what H2O says of a cloud, as h2o.cluster().show_status() has it. */
#include "cli/h2o.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/text.h"
#include "cli/show.h"

static int64_t unhealthy(const json_t *nodes)
{
	const json_t *n;
	int64_t count = 0;
	size_t i;

	json_array_foreach (nodes, i, n)
		count += !json_is_true(json_object_get(n, "healthy"));
	return count;
}

static json_t *status_of(const json_t *cloud)
{
	const json_t *nodes = json_object_get(cloud, "nodes");
	const char *locked =
		json_is_true(json_object_get(cloud, "locked")) ? "locked" : "accepting new members";
	int64_t sick = unhealthy(nodes);

	return sick ? json_sprintf("%s, %" PRId64 " nodes are not healthy", locked, sick)
		    : json_sprintf("%s, healthy", locked);
}

static void copy(json_t *to, const char *as, const json_t *from, const char *key)
{
	json_t *v = json_object_get(from, key);

	json_object_set_new(to, as, v ? json_copy(v) : json_null());
}

/* A number as H2O means it: "NaN" and absent ones are null. */
static void copy_number(json_t *to, const char *as, const json_t *from, const char *key)
{
	json_t *v = json_object_get(from, key);

	json_object_set_new(to, as, json_is_number(v) ? json_copy(v) : json_null());
}

static json_t *node_of(const json_t *n)
{
	static const char *const same[] = {"ip_port", "healthy"};
	static const char *const numbers[][2] = {{"pid", "pid"}, {"num_cpus", "cores"},
		{"cpus_allowed", "allowed_cores"}, {"nthreads", "threads"}, {"sys_load", "load"},
		{"max_mem", "heap_max_bytes"}, {"free_mem", "heap_free_bytes"},
		{"mem_value_size", "data_bytes"}, {"pojo_mem", "other_bytes"},
		{"swap_mem", "swapped_bytes"}, {"free_disk", "disk_free_bytes"},
		{"max_disk", "disk_max_bytes"}, {"num_keys", "keys"}, {"open_fds", "open_fds"},
		{"tcps_active", "connections"}, {"rpcs_active", "rpcs"}};
	int64_t ping = show_int(n, "last_ping", 0), now = (int64_t)clock_wall_ms();
	json_t *j = json_object();
	const json_t *cpu = json_object_get(n, "my_cpu_pct");

	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		copy(j, same[i], n, same[i]);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		copy_number(j, numbers[i][1], n, numbers[i][0]);
	/* -1: it did not say */
	json_object_set_new(j, "cpu_percent",
		json_number_value(cpu) >= 0 && json_is_number(cpu)
			? json_real(json_number_value(cpu))
			: json_null());
	json_object_set_new(j, "last_contact_ms",
		ping > 0 ? json_integer(MAX(now - ping, (int64_t)0)) : json_null());
	return j;
}

/* H2O's answer in the words of the control protocol. */
static json_t *describe(const struct h2o *h, const json_t *cloud)
{
	static const char *const names[][2] = {{"cloud_uptime_millis", "uptime_ms"},
		{"cloud_internal_timezone", "timezone"},
		{"datafile_parser_timezone", "data_parsing_timezone"}, {"version", "version"},
		{"build_age", "version_age"}, {"build_too_old", "version_too_old"},
		{"cloud_name", "name"}, {"cloud_size", "total_nodes"}, {"locked", "locked"},
		{"consensus", "consensus"}, {"cloud_healthy", "healthy"},
		{"bad_nodes", "bad_nodes"}, {"internal_security_enabled", "internal_security"},
		{"telemetry_enabled", "telemetry"}};
	const json_t *nodes = json_object_get(cloud, "nodes"), *n;
	json_t *j = json_object(), *list = json_array();
	size_t i;

	json_object_set_new(j, "cloud", json_string(h->name));
	for (i = 0; i < ARRAY_SIZE(names); i++)
		copy(j, names[i][1], cloud, names[i][0]);
	json_object_set_new(j, "free_memory_bytes", json_integer(show_sum(nodes, "free_mem")));
	json_object_set_new(j, "max_memory_bytes", json_integer(show_sum(nodes, "max_mem")));
	json_object_set_new(j, "total_cores", json_integer(show_sum(nodes, "num_cpus")));
	json_object_set_new(j, "allowed_cores", json_integer(show_sum(nodes, "cpus_allowed")));
	json_object_set_new(j, "status", status_of(cloud));
	json_object_set_new(j, "url", json_string(h->url));
	json_array_foreach (nodes, i, n)
		json_array_append_new(list, node_of(n));
	json_object_set_new(j, "nodes", list);
	return j;
}

/* --- for people --------------------------------------------------------------------------- */

/* Takes `value`; NULL becomes "-". */
static void row(struct strv *cells, const char *label, char *value)
{
	strv_printf(cells, "%s:", label);
	strv_take(cells, value ? value : xstrdup("-"));
}

static char *yes_no(const json_t *j, const char *key)
{
	const json_t *v = json_object_get(j, key);

	return json_is_boolean(v) ? xstrdup(json_is_true(v) ? "yes" : "no") : NULL;
}

static char *size_of(const json_t *j, const char *key)
{
	int64_t n = show_int(j, key, -1);

	return n < 0 ? xstrdup("-") : text_human_size((uint64_t)n);
}

static char *int_of(const json_t *j, const char *key)
{
	int64_t n = show_int(j, key, -1);

	return n < 0 ? xstrdup("-") : xasprintf("%" PRId64, n);
}

static void print_cloud(FILE *f, const json_t *j)
{
	_cleanup_(strv_free) struct strv cells = STRV_NULL;

	row(&cells, "H2O_cluster_uptime", show_duration(j, "uptime_ms"));
	row(&cells, "H2O_cluster_timezone", show_text(j, "timezone"));
	row(&cells, "H2O_data_parsing_timezone", show_text(j, "data_parsing_timezone"));
	row(&cells, "H2O_cluster_version", show_text(j, "version"));
	row(&cells, "H2O_cluster_version_age", show_text(j, "version_age"));
	row(&cells, "H2O_cluster_name", show_text(j, "name"));
	row(&cells, "H2O_cluster_total_nodes", int_of(j, "total_nodes"));
	row(&cells, "H2O_cluster_free_memory", size_of(j, "free_memory_bytes"));
	row(&cells, "H2O_cluster_total_cores", int_of(j, "total_cores"));
	row(&cells, "H2O_cluster_allowed_cores", int_of(j, "allowed_cores"));
	row(&cells, "H2O_cluster_status", show_text(j, "status"));
	row(&cells, "H2O_connection_url", show_text(j, "url"));
	row(&cells, "H2O_internal_security", yes_no(j, "internal_security"));
	row(&cells, "H2O_telemetry_server", yes_no(j, "telemetry"));
	show_grid(f, &cells, 2, 0);
}

static char *real_of(const json_t *j, const char *key, const char *unit)
{
	const json_t *v = json_object_get(j, key);

	return json_is_number(v) ? xasprintf("%.*f%s", *unit ? 0 : 2, json_number_value(v), unit)
				 : xstrdup("-");
}

static void print_node(struct strv *cells, const json_t *n)
{
	_cleanup_free_ char *cores = int_of(n, "cores"), *allowed = int_of(n, "allowed_cores");
	char *address = show_text(n, "ip_port"), *healthy = yes_no(n, "healthy");

	strv_take(cells, address ? address : xstrdup("-"));
	strv_take(cells, int_of(n, "pid"));
	strv_take(cells, healthy ? healthy : xstrdup("-"));
	strv_take(cells, show_duration(n, "last_contact_ms"));
	strv_take(cells,
		show_heap(show_int(n, "heap_max_bytes", 0), show_int(n, "heap_free_bytes", 0)));
	strv_printf(cells, "%s/%s", allowed, cores);
	strv_take(cells, real_of(n, "load", ""));
	strv_take(cells, real_of(n, "cpu_percent", "%"));
	strv_take(cells, int_of(n, "open_fds"));
	strv_take(cells, int_of(n, "keys"));
}

static void print_nodes(FILE *f, const json_t *nodes)
{
	static const char *const headings[] = {
		"NODE", "PID", "OK", "HEARD", "HEAP", "CORES", "LOAD", "CPU", "FDS", "KEYS"};
	_cleanup_(strv_free) struct strv cells = STRV_NULL;
	const json_t *n;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(headings); i++)
		strv_add(&cells, headings[i]);
	json_array_foreach (nodes, i, n)
		print_node(&cells, n);
	fputc('\n', f);
	show_grid(f, &cells, ARRAY_SIZE(headings), 0);
}

int cmd_info(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_(h2o_close) struct h2o h = {0};
	bool nodes = false;
	const struct cli_option options[] = {
		{"nodes", 0, &nodes, NULL}, {"detail", 0, &nodes, NULL}};
	json_t *cloud, *j;
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n != 1)
		return cli_usage(cli, words.n ? "one cloud at a time" : "which cloud?");
	code = h2o_open(&h, cli, words.v[0], false);
	if (code != CLI_OK)
		return code;
	/* What a CPU does is asked of all members, else member 0 answers by itself. */
	cloud = h2o_get(&h, &code, "/3/Cloud%s", nodes || cli->json ? "" : "?skip_ticks=true");
	if (!cloud)
		return code;
	j = describe(&h, cloud);
	if (cli->json)
		cli_json(cli, j);
	else
		print_cloud(cli->out, j);
	if (!cli->json && nodes)
		print_nodes(cli->out, json_object_get(j, "nodes"));
	json_decref(j);
	json_decref(cloud);
	return CLI_OK;
}
