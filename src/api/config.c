/* GET /v1/config: what is in force, and where each value is from. */
#include "api/routes.h"

#include "api/view.h"
#include "base/strbuf.h"
#include "conf/keys.h"

#define HIDDEN "***"

/* Whoever may use the socket may read the answer; the files may be for fewer. */
static bool sounds_secret(const char *name, size_t len)
{
	static const char *const words[] = {"pass", "secret", "token", "key", "credential", "auth"};
	_cleanup_free_ char *s = xstrndup(name, len);

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasestr(s, words[i]))
			return true;
	return false;
}

static bool hide_behind(char **word, size_t len)
{
	char *shown = xasprintf("%.*s%s", (int)len, *word, HIDDEN);

	free(*word);
	*word = shown;
	return true;
}

/* "-Dpassword=x" and "-password x". */
static bool hide_arguments(struct strv *args)
{
	bool hidden = false, next = false;

	for (size_t i = 0; i < args->n; i++) {
		char **word = &args->v[i];
		size_t name = strcspn(*word, "=");
		bool secret = (*word)[0] == '-' && sounds_secret(*word, name);

		if (next)
			hidden |= hide_behind(word, 0);
		else if (secret && (*word)[name])
			hidden |= hide_behind(word, name + 1);
		next = !next && secret && !strchr(args->v[i], '=');
	}
	return hidden;
}

/* Of the environment only the names are anybody's business. */
static bool hide_values(struct strv *env)
{
	for (size_t i = 0; i < env->n; i++)
		hide_behind(&env->v[i], strcspn(env->v[i], "=") + 1);
	return env->n > 0;
}

struct section {
	const char *cloud; /* NULL: [fleet] */
	const void *conf, *dflt, *pending;
	bool created; /* at run time */
	bool admin;   /* who asks */
};

/* The value of a key as it may be shown. `conf` is changed. */
static json_t *view_value(const struct key *k, void *conf, bool *hidden)
{
	struct cloud_conf *c = conf;
	_cleanup_free_ char *value = NULL;

	if (k->section == SECTION_CLOUD && streq(k->name, "env"))
		*hidden |= hide_values(&c->env);
	else if (k->section == SECTION_CLOUD && streq(k->name, "jvm_custom_args"))
		*hidden |= hide_arguments(&c->jvm_custom_args);
	else if (k->section == SECTION_CLOUD && streq(k->name, "h2o_args"))
		*hidden |= hide_arguments(&c->h2o_args);
	value = key_get(k, conf);
	return view_text(value);
}

static json_t *view_shown(const struct key *k, const void *conf, bool admin, bool *hidden)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *copy = NULL;

	if (k->section == SECTION_FLEET)
		return view_value(k, (void *)conf, hidden);
	if (!admin && k->privilege == PRIVILEGE_ALL) { /* as in GET /v1/clouds/NAME/config */
		*hidden = true;
		return json_null();
	}
	if (k->type->storage != STORE_STRV) {
		_cleanup_free_ char *value = key_get(k, conf);

		return view_text(value);
	}
	copy = cloud_conf_dup(conf);
	return view_value(k, copy, hidden);
}

static json_t *view_key(const struct conf *all, const struct section *s, const struct key *k)
{
	/* Keys of a cloud that was made at run time come and go without the files. */
	const struct conf_place *at = s->created ? NULL : conf_find_place(all, s->cloud, k->name);
	bool hidden = false, is_default = key_equal(k, s->conf, s->dflt) || (!s->cloud && !at);
	json_t *j = json_object();

	json_object_set_new(j, "key", json_string(k->name));
	json_object_set_new(j, "value", view_shown(k, s->conf, s->admin, &hidden));
	json_object_set_new(j, "is_default", json_boolean(is_default));
	json_object_set_new(j, "file", view_text(at ? at->file : NULL));
	json_object_set_new(j, "line", at ? json_integer(at->line) : json_null());
	json_object_set_new(j, "pending",
		s->pending && !key_equal(k, s->conf, s->pending)
			? view_shown(k, s->pending, s->admin, &hidden)
			: json_null());
	json_object_set_new(j, "hidden", json_boolean(hidden));
	json_object_set_new(j, "reload", json_string(key_reload_name(k->reload)));
	return j;
}

static json_t *view_section(
	const struct conf *all, enum key_section section, const struct section *s)
{
	json_t *list = json_array();
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++)
		if (keys[i].section == section)
			json_array_append_new(list, view_key(all, s, &keys[i]));
	return list;
}

static json_t *view_cloud_conf(struct fleet *f, const struct cloud_conf *c, bool admin)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *dflt = cloud_conf_new(c->name);
	struct section s = {c->name, c, dflt, fleet_pending(f, c->name), c->created, admin};
	json_t *j = json_object();

	json_object_set_new(j, "name", view_text(c->name));
	json_object_set_new(j, "origin", json_string(c->created ? "created" : "config"));
	json_object_set_new(j, "file", view_text(c->file));
	json_object_set_new(j, "line", c->line ? json_integer(c->line) : json_null());
	json_object_set_new(j, "keys", view_section(fleet_conf(f), SECTION_CLOUD, &s));
	return j;
}

void handle_config(struct request *rq)
{
	struct fleet *f = rq->api->fleet;
	const struct conf *conf = fleet_conf(f);
	struct fleet_conf dflt = {0};
	struct section s = {NULL, &conf->fleet, &dflt, NULL, false, true};
	json_t *j = json_object(), *files = json_array(), *clouds = json_array();

	keys_set_defaults(SECTION_FLEET, &dflt);
	for (size_t i = 0; i < conf->files.n; i++)
		json_array_append_new(files, view_text(conf->files.v[i]));
	for (size_t i = 0; i < fleet_n_clouds(f); i++)
		json_array_append_new(
			clouds, view_cloud_conf(f, fleet_cloud(f, i)->conf, request_who(rq).admin));
	json_object_set_new(j, "files", files);
	json_object_set_new(j, "fleet", view_section(conf, SECTION_FLEET, &s));
	json_object_set_new(j, "clouds", clouds);
	keys_clear(SECTION_FLEET, &dflt);
	answer(rq, MHD_HTTP_OK, j);
}
