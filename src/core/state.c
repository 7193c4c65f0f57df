/* The state file of a cloud, state_dir/clouds/NAME/state.json: what the next daemon must know. It
 * is written before each fork (the intent), before each child may execute (its identity), and
 * after each step that changed something in it; always beside the old one and renamed over it.
 *
 *	{"version": 2, "checksum": "crc32:1c291ca3", "state": {...}}
 *
 * The checksum is of `state` as compact JSON with sorted keys. A file that is torn, of another
 *fleet or version is set aside; of one of another boot only the count of generations is used. */
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>

#include <jansson.h>
#include <zlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "core/internal.h"
#include "core/trouble.h"
#include "drv/machine.h"
#include "model/memory.h"

#define STATE_VERSION 2
#define MAX_STATE     (16u << 20)

static char *state_path(const struct supervised *s)
{
	return xasprintf("%s/state.json", s->dir);
}

static char *checksum_of(const json_t *state)
{
	_cleanup_free_ char *text = json_dumps(state, JSON_COMPACT | JSON_SORT_KEYS);

	return text ? xasprintf("crc32:%08lx",
			      crc32(0, (const unsigned char *)text, (unsigned)strlen(text)))
		    : NULL;
}

/* Of each member what the model does not know. */
static json_t *members_json(const struct supervised *s)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		const struct member *m = &s->members[i];
		_cleanup_free_ char *token = launch_token(s, i);

		json_array_append_new(
			list, json_pack("{s:I, s:I, s:i, s:s}", "last_pid", (json_int_t)m->last_pid,
				      "log_start", (json_int_t)m->log_start, "log_to", m->log_to,
				      "token", strchr(token, '=') + 1));
	}
	return list;
}

static json_t *state_json(const struct supervised *s)
{
	char boot_id[40];

	machine_boot_id(boot_id);
	return json_pack("{s:s, s:I, s:o*, s:s, s:s, s:s?, s:s?, s:s?, s:s?, s:o, s:o, s:o}",
		"boot_id", boot_id, "monotonic_ms", (json_int_t)clock_monotonic_ms(),
		"idle_behind_ms", idle_memory(s), "fleet", s->fleet->id, "name",
		s->cloud->conf->name, "java", s->runtime.java, "recovery_dir", s->recovery_dir,
		"ignored_recovery", s->ignored_recovery, "resumed_recovery", s->resumed_recovery,
		"launched_with", reload_launched_with(s), "members", members_json(s), "cloud",
		cloud_memory(s->cloud, fleet_now(s->fleet)));
}

static char *state_text(const struct supervised *s)
{
	json_t *state = state_json(s);
	_cleanup_free_ char *sum = state ? checksum_of(state) : NULL;
	json_auto_t *j = sum ? json_pack("{s:i, s:s, s:o}", "version", STATE_VERSION, "checksum",
				       sum, "state", state)
			     : NULL;

	return j ? json_dumps(j, JSON_INDENT(1)) : NULL;
}

int state_save(struct supervised *s, bool durable, struct err *e)
{
	_cleanup_free_ char *path = state_path(s), *text = state_text(s);
	int r;

	if (!text)
		return err_set(e, -EINVAL, "cannot put the state of cloud %s into JSON",
			s->cloud->conf->name);
	r = file_mkdirs(s->dir, 0750, e);
	return r < 0 ? r : file_write_atomic(path, text, strlen(text), 0640, durable, e);
}

static void set_aside(const char *path, const char *why)
{
	_cleanup_free_ char *aside = xasprintf("%s.unusable", path);

	log_warning("%s is not used: %s; it is kept as %s", path, why, aside);
	if (rename(path, aside) < 0 && unlink(path) < 0)
		log_warning("cannot remove %s: %s", path, strerror(errno));
}

/* The `state` in the text of a file, owned by the caller; NULL, and why, when it cannot be used. */
static json_t *parse_state(const char *text, struct err *e)
{
	_cleanup_free_ char *sum = NULL;
	json_auto_t *j = NULL;
	const char *written;
	json_error_t je;
	json_t *state;
	int version = 0;

	j = json_loads(text, JSON_REJECT_DUPLICATES, &je);
	if (!j || json_unpack_ex(j, &je, 0, "{s:i}", "version", &version) < 0) {
		err_set(e, -EINVAL, "%s", je.text);
	} else if (version != STATE_VERSION) {
		err_set(e, -EINVAL,
			"it is of another version of h2ofleetd (its form is %d, not %d)", version,
			STATE_VERSION);
	} else if (json_unpack_ex(j, &je, 0, "{s:s, s:o}", "checksum", &written, "state", &state) <
		   0) {
		err_set(e, -EINVAL, "%s", je.text);
	} else if (!(sum = checksum_of(state)) || !streq(sum, written)) {
		err_set(e, -EINVAL, "its checksum is wrong");
	} else {
		return json_incref(state);
	}
	return NULL;
}

static bool is_of_fleet(const json_t *state, const char *id)
{
	return streq_null(json_string_value(json_object_get(state, "fleet")), id);
}

/* The `state` of the file, owned by the caller; NULL when there is none that can be used. */
static json_t *read_state(const struct supervised *s, const char *path)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *text = NULL;
	json_auto_t *state = NULL;
	int r = file_read(path, MAX_STATE, &text, NULL);

	if (r == -ENOENT)
		return NULL;
	if (r < 0 && (trouble_is_shortage(r) || r == -EIO)) { /* it may be good */
		log_error("cannot read %s: %s", path, strerror(-r));
		s->fleet->cannot_adopt = r;
		return NULL;
	}
	if (r < 0)
		err_set_errno(&e, r, "it cannot be read");
	else
		state = parse_state(text, &e);
	if (state && !is_of_fleet(state, s->fleet->id))
		err_set(&e, -EINVAL, "it is of another fleet");
	else if (state)
		return json_incref(state);
	set_aside(path, err_msg(&e));
	return NULL;
}

bool state_fleet_id(const char *state_dir, char id[17])
{
	_cleanup_free_ char *pattern = xasprintf("%s/clouds/*/state.json", state_dir);
	glob_t found = {0};
	bool got = false;

	if (glob(pattern, 0, NULL, &found) != 0)
		found.gl_pathc = 0;
	for (size_t i = 0; i < found.gl_pathc && !got; i++) {
		_cleanup_(err_clear) struct err e = ERR_NULL;
		_cleanup_free_ char *text = NULL;
		json_auto_t *state = NULL;
		const char *fleet = NULL;

		if (file_read(found.gl_pathv[i], MAX_STATE, &text, NULL) == 0)
			state = parse_state(text, &e);
		fleet = state ? json_string_value(json_object_get(state, "fleet")) : NULL;
		got = fleet && strlen(fleet) == 16 && strspn(fleet, "0123456789abcdef") == 16;
		if (got)
			memcpy(id, fleet, 17);
	}
	globfree(&found);
	return got;
}

static int check_cloud(const struct fleet_conf *fleet, const struct cloud_conf *conf, struct err *e)
{
	_cleanup_free_ char *path =
		xasprintf("%s/clouds/%s/state.json", fleet->state_dir, conf->name);
	_cleanup_free_ char *text = NULL;
	json_auto_t *state = NULL;
	struct cloud *c = NULL;
	enum cloud_state was;
	json_t *cloud;
	int r = file_read(path, MAX_STATE, &text, NULL);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return err_set_errno(e, r, "cannot read %s", path);
	state = parse_state(text, e);
	if (!state) {
		err_wrap(e, "%s", path);
		return -EINVAL;
	}
	cloud = json_object_get(state, "cloud");
	if (json_array_size(json_object_get(cloud, "nodes")) != (size_t)conf->nodes)
		return 0; /* it is begun anew */
	c = cloud_new(conf, 0);
	r = cloud_remember(c, cloud, 1, 0, &was, e);
	cloud_free(c);
	if (r < 0)
		err_wrap(e, "%s", path);
	return r;
}

int fleet_check_state(const struct conf *conf, struct err *e)
{
	int r = file_check_entries(conf->fleet.state_dir, e);

	if (r < 0)
		return r == -ENOENT ? 0 : err_wrap(e, "state_dir");
	for (size_t i = 0; i < conf->n_clouds && r == 0; i++)
		r = check_cloud(&conf->fleet, conf->clouds[i], e);
	return r;
}

static int members_load(struct supervised *s, json_t *list, struct err *e)
{
	if (json_array_size(list) != s->cloud->n_nodes)
		return err_set(e, -EINVAL, "its members are not as many as its nodes");
	for (size_t i = 0; i < s->cloud->n_nodes; i++) {
		struct member *m = &s->members[i];
		json_int_t pid, start;
		int log_to;

		if (json_unpack(json_array_get(list, i), "{s:I, s:I, s:i}", "last_pid", &pid,
			    "log_start", &start, "log_to", &log_to) < 0 ||
			pid < 0 || pid > INT32_MAX || start < 0)
			return err_set(e, -EINVAL, "a member is not as h2ofleetd writes it");
		m->last_pid = (pid_t)pid;
		m->log_start = (uint64_t)start;
		m->log_to = log_to;
	}
	return 0;
}

static void load_paths(struct supervised *s, json_t *state)
{
	replace_str(&s->runtime.java, json_string_value(json_object_get(state, "java")));
	replace_str(&s->recovery_dir, json_string_value(json_object_get(state, "recovery_dir")));
	replace_str(&s->resumed_recovery,
		json_string_value(json_object_get(state, "resumed_recovery")));
}

/* What is of use even when there is nothing to go on with. */
static void load_facts(struct supervised *s, json_t *state)
{
	json_t *cloud = json_object_get(state, "cloud");

	s->cloud->generation = /* never used twice */
		(uint64_t)MAX(json_integer_value(json_object_get(cloud, "generation")), 0);
	replace_str(&s->ignored_recovery,
		json_string_value(json_object_get(state, "ignored_recovery")));
}

static bool of_this_boot(const json_t *state)
{
	const char *written = json_string_value(json_object_get(state, "boot_id"));
	char boot_id[40];

	machine_boot_id(boot_id);
	return written && streq(written, boot_id);
}

static void forget(struct supervised *s)
{
	const struct cloud_conf *conf = s->cloud->conf;
	uint64_t generation = s->cloud->generation, rng = s->cloud->rng;

	cloud_free(s->cloud);
	s->cloud = cloud_new(conf, rng);
	s->cloud->generation = generation;
	for (size_t i = 0; i < s->cloud->n_nodes; i++)
		s->members[i].last_pid = 0;
}

/* Whether members of it may still run, or it goes on with the ports that they had. */
static bool was_alive(const json_t *cloud)
{
	const json_t *node;
	size_t i;

	if (json_is_true(json_object_get(cloud, "ports_planned")))
		return true;

	json_array_foreach (json_object_get(cloud, "nodes"), i, node)
		if (json_integer_value(json_object_get(node, "pid")))
			return true;
	return false;
}

void state_load(struct supervised *s)
{
	_cleanup_free_ char *path = state_path(s);
	json_auto_t *state = read_state(s, path);
	uint64_t now = clock_monotonic_ms(), then;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	json_t *cloud, *written;
	int r;

	s->memory = MEMORY_NONE;
	if (!state)
		return;
	load_facts(s, state);
	if (!of_this_boot(state)) {
		log_info("cloud %s: what %s tells is of an earlier boot", s->cloud->conf->name,
			path);
		return;
	}
	cloud = json_object_get(state, "cloud");
	if (!json_is_array(json_object_get(cloud, "nodes"))) {
		set_aside(path, "it has no nodes");
		return;
	}
	if (was_alive(cloud))
		reload_recall(s, json_object_get(state, "launched_with"));
	if (json_array_size(json_object_get(cloud, "nodes")) != s->cloud->n_nodes) {
		const char *wanted = json_string_value(json_object_get(cloud, "wanted"));

		log_notice("cloud %s: has %zu nodes by its configuration now, had %zu: it is begun "
			   "anew",
			s->cloud->conf->name, s->cloud->n_nodes,
			json_array_size(json_object_get(cloud, "nodes")));
		s->memory = wanted && streq(wanted, "running") ? MEMORY_BEGIN_ANEW : MEMORY_AT_REST;
		return;
	}
	/* As for one that lived on: the time in which the machine slept does not count. */
	written = json_object_get(state, "monotonic_ms"); /* earlier daemons wrote none */
	then = json_is_integer(written) ? (uint64_t)json_integer_value(written) : now;
	r = cloud_remember(s->cloud, cloud, fleet_now(s->fleet), now - MIN(then, now), &s->was, &e);
	if (r == 0) {
		idle_remember(s, json_object_get(state, "idle_behind_ms"));
		r = members_load(s, json_object_get(state, "members"), &e);
	}
	if (r < 0) {
		set_aside(path, err_msg(&e));
		forget(s);
		return;
	}
	load_paths(s, state);
	s->memory = MEMORY_WHOLE;
}

void state_remove(struct supervised *s)
{
	_cleanup_free_ char *path = state_path(s);

	if (unlink(path) < 0 && errno != ENOENT)
		log_warning("cloud %s: %s stays: %s", s->cloud->conf->name, path, strerror(errno));
}
