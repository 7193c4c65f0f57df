#include "conf/check.h"

#include <inttypes.h>

#include "base/text.h"

/* The value of the first key must be smaller than, or at most as large as, that of the second. */
static const struct order {
	const char *low, *high;
	bool may_equal;
} orders[] = {
	{"late_after", "hang_timeout", false},
	{"health_interval", "hang_timeout", false},
	{"restart_delay", "restart_delay_max", true},
	{"min_mem_size", "max_mem_size", true},
};

/* Directories whose content belongs to one cloud alone. */
static const char *const own_dirs[] = {"ice_root", "auto_recovery_dir"};

/* 1 with a number that can be compared, 0 when there is none. */
static int comparable(const struct key *k, const struct cloud_conf *c, uint64_t *value)
{
	const void *field = (const char *)c + k->offset;
	const struct mem_spec *m = field;

	if (k->type == &type_time)
		*value = *(const uint64_t *)field;
	else if (k->type == &type_memory && m->kind == MEM_BYTES)
		*value = m->value;
	else
		return 0;
	return 1;
}

static void check_order(
	const struct order *o, const struct cloud_conf *c, check_report_fn *report, void *u)
{
	const struct key *low = keys_find(SECTION_CLOUD, o->low);
	const struct key *high = keys_find(SECTION_CLOUD, o->high);
	_cleanup_free_ char *low_text = key_get(low, c);
	_cleanup_free_ char *high_text = key_get(high, c);
	_cleanup_free_ char *sentence = NULL;
	uint64_t a = 0, b = 0;

	if (!comparable(low, c, &a) || !comparable(high, c, &b))
		return;
	if (a < b || (a == b && o->may_equal))
		return;
	sentence = xasprintf("%s (%s) must be %s %s (%s)", o->low, low_text,
		o->may_equal ? "at most" : "less than", o->high, high_text);
	report(u, low, high, sentence);
}

uint16_t cloud_conf_first_port(const struct cloud_conf *c)
{
	return c->port.port ? c->port.port : (uint16_t)c->baseport;
}

int64_t cloud_conf_n_ports(const struct cloud_conf *c)
{
	return (c->gate_mode != GATE_OFF) + 2 * c->nodes;
}

static void check_ports(
	const struct cloud_conf *c, int64_t baseport, check_report_fn *report, void *u)
{
	int64_t first = c->port.port ? c->port.port : baseport;
	_cleanup_free_ char *sentence = NULL;

	if (first + cloud_conf_n_ports(c) <= UINT16_MAX)
		return;
	sentence = xasprintf("%" PRId64 " nodes%s need %" PRId64
			     " ports, which there are not from %" PRId64 " up",
		c->nodes, c->gate_mode == GATE_OFF ? "" : " and their gate", cloud_conf_n_ports(c),
		first);
	report(u, keys_find(SECTION_CLOUD, "port"), keys_find(SECTION_CLOUD, "nodes"), sentence);
}

/* Only who accepts connections hears of them. */
static void check_start_on(const struct cloud_conf *c, check_report_fn *report, void *u)
{
	if (c->start_on == START_ON_CONNECT && c->gate_mode != GATE_HOLD)
		report(u, keys_find(SECTION_CLOUD, "start_on"),
			keys_find(SECTION_CLOUD, "gate_mode"),
			"start_on = connect needs gate_mode = hold");
}

/* What the bound is divided into (core/logs.c) must be worth a rotation each. */
static void check_log_total(const struct cloud_conf *c, check_report_fn *report, void *u)
{
	const uint64_t least = LOG_TOTAL_PER_NODE * ((uint64_t)c->nodes + 1);
	_cleanup_free_ char *total = text_format_size(c->log_max_total);
	_cleanup_free_ char *wanted = text_format_size(least);
	_cleanup_free_ char *sentence = NULL;

	if (c->log_max_total >= least)
		return;
	sentence = xasprintf("log_max_total (%s) is too small for the logs of %" PRId64
			     " nodes: at least %s",
		total, c->nodes, wanted);
	report(u, keys_find(SECTION_CLOUD, "log_max_total"), keys_find(SECTION_CLOUD, "nodes"),
		sentence);
}

void check_cloud(const struct cloud_conf *c, int64_t baseport, check_report_fn *report, void *u)
{
	for (size_t i = 0; i < ARRAY_SIZE(orders); i++)
		check_order(&orders[i], c, report, u);
	check_ports(c, baseport, report, u);
	check_log_total(c, report, u);
	check_start_on(c, report, u);
}

char *cloud_conf_warning(const struct cloud_conf *c)
{
	if (c->bind_to_localhost || c->gate_allow.n)
		return NULL;
	return xasprintf("bind_to_localhost = no: anyone who can reach this machine may use the "
			 "cloud, and so run code as the daemon's user; %s",
		c->gate_mode == GATE_OFF
			? "without a gate (gate_mode) nobody can be kept out"
			: "set gate_allow to those who may, or to anyone if that is meant");
}

static int64_t last_port(const struct cloud_conf *c)
{
	return c->port.port + cloud_conf_n_ports(c) - 1;
}

bool cloud_conf_insists_on(const struct cloud_conf *c, uint16_t port)
{
	return c->port.port && c->port.exact && port >= c->port.port && port <= last_port(c);
}

bool cloud_conf_ports_overlap(const struct cloud_conf *a, const struct cloud_conf *b)
{
	if (!a->port.exact || !b->port.exact)
		return false;
	return a->port.port <= last_port(b) && b->port.port <= last_port(a);
}

void check_clouds(
	const struct cloud_conf *a, const struct cloud_conf *b, check_report_fn *report, void *u)
{
	if (cloud_conf_ports_overlap(a, b)) {
		_cleanup_free_ char *sentence = xasprintf(
			"ports %u to %" PRId64 " overlap with %u to %" PRId64 " of cloud %s",
			b->port.port, last_port(b), a->port.port, last_port(a), a->name);

		report(u, keys_find(SECTION_CLOUD, "port"), keys_find(SECTION_CLOUD, "nodes"),
			sentence);
	}
	for (size_t i = 0; i < ARRAY_SIZE(own_dirs); i++) {
		const struct key *k = keys_find(SECTION_CLOUD, own_dirs[i]);
		const char *of_a = *(char *const *)((const char *)a + k->offset);
		const char *of_b = *(char *const *)((const char *)b + k->offset);
		_cleanup_free_ char *sentence = NULL;

		if (!of_a || *of_a != '/' || !streq_null(of_a, of_b))
			continue;
		sentence = xasprintf("%s %s must be this cloud's own, but cloud %s has it too",
			k->name, of_b, a->name);
		report(u, k, NULL, sentence);
	}
}
