#include "model/verdict.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <jansson.h>

/* H2O writes NaN and infinities as strings; they and absent fields count as 0. */
static double number_of(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_number(v) ? json_number_value(v) : 0;
}

static int64_t int_of(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) ? json_integer_value(v) : 0;
}

static uint64_t size_of(const json_t *o, const char *key)
{
	int64_t v = int_of(o, key);

	return v > 0 ? (uint64_t)v : 0;
}

static void copy_string(const json_t *o, const char *key, char *out, size_t size)
{
	const char *s = json_string_value(json_object_get(o, key));

	snprintf(out, size, "%s", s ? s : "");
}

static void parse_member(const json_t *o, struct h2o_member *m)
{
	copy_string(o, "ip_port", m->ip_port, sizeof(m->ip_port));
	m->pid = int_of(o, "pid");
	m->healthy = json_is_true(json_object_get(o, "healthy"));
	m->last_ping_ms = int_of(o, "last_ping");
	m->free_mem = size_of(o, "free_mem");
	m->max_mem = size_of(o, "max_mem");
	m->mem_value_size = size_of(o, "mem_value_size");
	m->pojo_mem = size_of(o, "pojo_mem");
	m->num_cpus = int_of(o, "num_cpus");
	m->nthreads = int_of(o, "nthreads");
	m->sys_load = number_of(o, "sys_load");
	m->num_keys = int_of(o, "num_keys");
}

int h2o_cloud_view_parse(const char *body, size_t len, struct h2o_cloud_view *v, struct err *e)
{
	json_auto_t *root = NULL;
	const json_t *nodes, *idx;
	json_error_t je;

	*v = (struct h2o_cloud_view){.node_idx = -1};
	root = json_loadb(body, len, 0, &je);
	if (!root)
		return err_set(e, -EINVAL, "/3/Cloud is not JSON: %s", je.text);
	nodes = json_object_get(root, "nodes");
	if (!json_is_integer(json_object_get(root, "cloud_size")) || !json_is_array(nodes) ||
		!json_is_boolean(json_object_get(root, "consensus")) ||
		!json_is_string(json_object_get(root, "cloud_name")))
		return err_set(e, -EINVAL,
			"/3/Cloud lacks cloud_size, cloud_name, consensus or nodes: not H2O?");
	copy_string(root, "version", v->version, sizeof(v->version));
	copy_string(root, "cloud_name", v->cloud_name, sizeof(v->cloud_name));
	v->cloud_size = int_of(root, "cloud_size");
	idx = json_object_get(root, "node_idx");
	v->node_idx = json_is_integer(idx) ? json_integer_value(idx) : -1;
	v->bad_nodes = int_of(root, "bad_nodes");
	v->uptime_ms = int_of(root, "cloud_uptime_millis");
	v->consensus = json_is_true(json_object_get(root, "consensus"));
	v->locked = json_is_true(json_object_get(root, "locked"));
	v->cloud_healthy = json_is_true(json_object_get(root, "cloud_healthy"));
	v->n_members = json_array_size(nodes);
	v->members = xcalloc(v->n_members, sizeof(*v->members));
	for (size_t i = 0; i < v->n_members; i++)
		parse_member(json_array_get(nodes, i), &v->members[i]);
	return 0;
}

void h2o_cloud_view_free(struct h2o_cloud_view *v)
{
	free(v->members);
	*v = (struct h2o_cloud_view){.node_idx = -1};
}

/* Looks first where H2O has it, which sorts by address, as our ports are. */
static const struct h2o_member *find_member(
	const struct h2o_cloud_view *v, const char *ip_port, size_t likely)
{
	if (likely < v->n_members && streq(v->members[likely].ip_port, ip_port))
		return &v->members[likely];
	for (size_t i = 0; i < v->n_members; i++)
		if (streq(v->members[i].ip_port, ip_port))
			return &v->members[i];
	return NULL;
}

static void say(char **why, char *sentence)
{
	if (why)
		*why = sentence;
	else
		free(sentence);
}

/* Every expected member is there, with its pid. Pids of others come with their first heartbeat. */
static enum verdict check_members(
	const struct h2o_cloud_view *v, const struct expected_cloud *x, char **why)
{
	for (size_t i = 0; i < x->n; i++) {
		const struct h2o_member *m = find_member(v, x->members[i].ip_port, i);

		if (!m) {
			say(why, xasprintf("node %zu (%s) is not among the members", i,
					 x->members[i].ip_port));
			return VERDICT_WRONG;
		}
		if (m->pid == 0) {
			say(why, xasprintf("node %zu has not sent a heartbeat yet", i));
			return VERDICT_INCOMPLETE;
		}
		if (m->pid != x->members[i].pid) {
			say(why, xasprintf("%s is answered by pid %" PRId64 ", not by node %zu "
					   "(pid %" PRId64 ")",
					 m->ip_port, m->pid, i, x->members[i].pid));
			return VERDICT_WRONG;
		}
	}
	return VERDICT_WHOLE;
}

static enum verdict check_health(const struct h2o_cloud_view *v, char **why)
{
	if (v->cloud_healthy && v->bad_nodes == 0)
		return VERDICT_WHOLE;
	for (size_t i = 0; i < v->n_members; i++) {
		if (v->members[i].healthy)
			continue;
		say(why, xasprintf("H2O has not heard from its member %s for 60 s",
				 v->members[i].ip_port));
		return VERDICT_UNHEALTHY;
	}
	say(why, xstrdup("H2O says that the cloud is not healthy"));
	return VERDICT_UNHEALTHY;
}

enum verdict verdict_of(const struct h2o_cloud_view *v, const struct expected_cloud *expected,
	size_t slot, char **why)
{
	int64_t pid = 0; /* of who answers, where it is among the members */
	enum verdict r;

	if (why)
		*why = NULL;
	if (!streq(v->cloud_name, expected->name)) {
		say(why, xasprintf("%s is answered by another cloud, '%s'",
				 expected->members[slot].ip_port, v->cloud_name));
		return VERDICT_WRONG;
	}
	/* Only who answers itself is compared while the cloud grows. */
	if (v->node_idx >= 0 && (size_t)v->node_idx < v->n_members)
		pid = v->members[v->node_idx].pid;
	if (pid != 0 && pid != expected->members[slot].pid) {
		say(why, xasprintf("%s is answered by pid %" PRId64
				   ", not by node %zu (pid %" PRId64 ")",
				 expected->members[slot].ip_port, pid, slot,
				 expected->members[slot].pid));
		return VERDICT_WRONG;
	}
	if (v->cloud_size > (int64_t)expected->n || v->n_members > expected->n) {
		say(why, xasprintf("the cloud has %" PRId64 " members instead of %zu: a stranger "
				   "joined it",
				 v->cloud_size, expected->n));
		return VERDICT_WRONG;
	}
	if (v->cloud_size < (int64_t)expected->n || v->n_members < expected->n) {
		say(why, xasprintf("%" PRId64 " of %zu members have joined%s", v->cloud_size,
				 expected->n,
				 v->locked ? ", and a client locked it like that" : ""));
		return v->locked ? VERDICT_SHORT_LOCK : VERDICT_INCOMPLETE;
	}
	if (!v->consensus) {
		say(why, xstrdup("the members do not agree yet"));
		return VERDICT_INCOMPLETE;
	}
	r = check_members(v, expected, why);
	return r == VERDICT_WHOLE ? check_health(v, why) : r;
}
