/* The state file of a cloud, state_dir/clouds/NAME/state.json: what the next daemon must know. It
 * is written before each fork (the intent) and before each child may execute (its identity). */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <jansson.h>

#include "base/file.h"
#include "base/log.h"
#include "core/internal.h"
#include "drv/machine.h"

#define STATE_VERSION 1
#define MAX_STATE     (4u << 20)

static char *state_path(const struct supervised *s)
{
	return xasprintf("%s/state.json", s->dir);
}

static json_t *members_json(const struct supervised *s)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		const struct node *n = &s->cloud->nodes[i];
		const struct proc *p = s->members[i].proc;
		_cleanup_free_ char *token = launch_token(s, i);

		json_array_append_new(
			list, json_pack("{s:i, s:s, s:i, s:I, s:I, s:s}", "index", (int)i, "state",
				      node_state_name(n->state), "api_port", (int)n->api_port,
				      "pid", (json_int_t)(p ? proc_pid(p) : 0), "start_ticks",
				      (json_int_t)(p ? proc_start_ticks(p) : 0), "token",
				      strchr(token, '=') + 1));
	}
	return list;
}

int state_save(struct supervised *s, bool durable, struct err *e)
{
	const struct cloud *c = s->cloud;
	_cleanup_free_ char *path = state_path(s), *text = NULL;
	char boot_id[40];
	json_auto_t *j = NULL;
	int r;

	machine_boot_id(boot_id);
	j = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s?, s:s, s:i, s:s?, s:o}",
		"version", STATE_VERSION, "boot_id", boot_id, "fleet", s->fleet->id, "cloud",
		c->conf->name, "wanted", cloud_wanted_name(c->wanted), "state",
		cloud_state_name(c->state), "generation", (json_int_t)c->generation, "restarts",
		(json_int_t)c->restarts, "h2o_name", c->h2o_name, "endpoint_address",
		c->endpoint.addr, "endpoint_port", (int)c->endpoint.port, "ignored_recovery",
		s->ignored_recovery, "members", members_json(s));
	if (!j)
		return err_set(
			e, -EINVAL, "cannot put the state of cloud %s into JSON", c->conf->name);
	text = json_dumps(j, JSON_INDENT(1));
	if (!text)
		return err_set(e, -ENOMEM, "cannot write %s: no memory", path);
	r = file_mkdirs(s->dir, 0750, e);
	return r < 0 ? r : file_write_atomic(path, text, strlen(text), 0640, durable, e);
}

static void set_aside(const char *path, const char *why)
{
	_cleanup_free_ char *aside = xasprintf("%s.unusable", path);

	log_warning("%s is not used (%s); it is kept as %s", path, why, aside);
	if (rename(path, aside) < 0)
		unlink(path);
}

void state_load(struct supervised *s)
{
	_cleanup_free_ char *path = state_path(s), *text = NULL;
	json_auto_t *j = NULL;
	json_int_t generation = 0;
	json_error_t je;
	int version = 0;
	int r = file_read(path, MAX_STATE, &text, NULL);

	if (r == -ENOENT)
		return;
	if (r < 0) {
		set_aside(path, strerror(-r));
		return;
	}
	j = json_loads(text, 0, &je);
	if (!j || json_unpack_ex(j, &je, 0, "{s:i, s:I}", "version", &version, "generation",
			  &generation) < 0) {
		set_aside(path, je.text);
	} else if (version != STATE_VERSION || generation < 0) {
		set_aside(path, "it is of another version of h2ofleetd");
	} else {
		s->cloud->generation = (uint64_t)generation; /* never used twice */
		replace_str(&s->ignored_recovery,
			json_string_value(json_object_get(j, "ignored_recovery")));
	}
}

void state_remove(struct supervised *s)
{
	_cleanup_free_ char *path = state_path(s);

	unlink(path);
}
