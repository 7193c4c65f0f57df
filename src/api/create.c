/* Clouds made at run time: POST /v1/clouds, DELETE of one, and its keys. */
#include "api/routes.h"

#include <errno.h>
#include <inttypes.h>

#include "api/view.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "conf/created.h"
#include "conf/keys.h"

/* ---- from JSON ---- */

struct edits {
	struct key_edit *v; /* owned, with the values; keys are the JSON's */
	size_t n;
};

static void edits_clear(struct edits *ed)
{
	for (size_t i = 0; i < ed->n; i++)
		free((char *)ed->v[i].value);
	free(ed->v);
}

/* As a shell, and a file, takes it for one word. */
static void quote(struct strbuf *b, const char *s)
{
	strbuf_puts(b, "'");
	for (; *s; s++) {
		if (*s == '\'')
			strbuf_puts(b, "'\\''");
		else
			strbuf_add(b, s, 1);
	}
	strbuf_puts(b, "'");
}

/* Of a key that is a list. Owned by the caller; NULL: not all of it is text. */
static char *list_text(const struct key *k, const json_t *list)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	bool words = k->type->storage == STORE_STRV;
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		if (!json_is_string(item))
			return NULL;
		strbuf_puts(&b, !i ? "" : words ? " " : ":");
		if (words)
			quote(&b, json_string_value(item));
		else
			strbuf_puts(&b, json_string_value(item));
	}
	return xstrdup(strbuf_str(&b));
}

/* As in a file. Owned by the caller; NULL: it cannot be a value, which *errors then tells. */
static char *value_text(const char *key, const json_t *value, struct strv *errors)
{
	const struct key *k = keys_find(SECTION_CLOUD, key);
	bool is_list = k && (k->type->storage == STORE_STRV || k->type == &type_pathlist);
	char *text = NULL;

	if (json_is_string(value))
		return xstrdup(json_string_value(value));
	if (json_is_integer(value))
		return xasprintf("%" JSON_INTEGER_FORMAT, json_integer_value(value));
	if (json_is_boolean(value))
		return xstrdup(json_is_true(value) ? "yes" : "no");
	if (json_is_array(value) && is_list)
		text = list_text(k, value);
	if (!text)
		strv_printf(errors, "%s: a text, a whole number, true or false is wanted%s", key,
			is_list ? ", or a list of texts" : "");
	return text;
}

static int take_edits(const json_t *keys, struct edits *ed, struct strv *errors)
{
	const char *key;
	json_t *value;

	ed->v = xcalloc(json_object_size(keys) + 1, sizeof(*ed->v));
	json_object_foreach ((json_t *)keys, key, value) {
		struct key_edit *e = &ed->v[ed->n];

		e->key = key;
		if (!json_is_null(value) && !(e->value = value_text(key, value, errors)))
			continue;
		ed->n++;
	}
	return errors->n ? -EINVAL : 0;
}

/* Answers when a member of the body is none of these, or of the wrong type. */
static void check_members(
	struct request *rq, const char *const *names, const json_type *types, size_t n)
{
	const char *name;
	json_t *value;

	json_object_foreach (rq->input, name, value) {
		const char *near = text_nearest(name, names, n);
		size_t i = 0;

		while (i < n && !streq(name, names[i]))
			i++;
		if (i < n && (json_typeof(value) == types[i] ||
				     (types[i] == JSON_TRUE && json_is_false(value))))
			continue;
		if (i < n)
			problem(rq, MHD_HTTP_BAD_REQUEST, "bad-body", "Bad body",
				"'%s' of the body must be %s", name,
				types[i] == JSON_STRING   ? "a text"
				: types[i] == JSON_OBJECT ? "an object, {KEY: VALUE, ...}"
							  : "true or false");
		else
			problem(rq, MHD_HTTP_BAD_REQUEST, "bad-body", "Bad body",
				near ? "the body has an unknown member '%s'; did you mean '%s'?"
				     : "the body has an unknown member '%s'",
				name, near);
		return;
	}
}

/* ---- refusals ---- */

static void add_errors(struct request *rq, const struct strv *errors)
{
	json_t *list = json_array();

	for (size_t i = 0; i < errors->n; i++)
		json_array_append_new(list, view_text(errors->v[i]));
	json_object_set_new(rq->json, "errors", list);
}

static void refuse(struct request *rq, int r, const struct strv *errors)
{
	static const struct {
		int r;
		unsigned status;
		const char *type, *title;
	} kinds[] = {
		{-EPERM, MHD_HTTP_FORBIDDEN, "forbidden", "Forbidden"},
		{-EEXIST, MHD_HTTP_CONFLICT, "cloud-exists", "There is such a cloud"},
		{-EBUSY, MHD_HTTP_CONFLICT, "cloud-removed", "The cloud is being removed"},
		{-EDQUOT, MHD_HTTP_FORBIDDEN, "limit-reached", "A limit is reached"},
		{-ESHUTDOWN, MHD_HTTP_SERVICE_UNAVAILABLE, "shutting-down", "The daemon is ending"},
		{-EINVAL, MHD_HTTP_UNPROCESSABLE_CONTENT, "bad-configuration",
			"The configuration is refused"},
		{0, MHD_HTTP_INSUFFICIENT_STORAGE, "not-saved", "Cannot be saved"},
	};
	size_t i = 0;

	while (kinds[i].r && kinds[i].r != r)
		i++;
	problem(rq, kinds[i].status, kinds[i].type, kinds[i].title,
		errors->n > 1 ? "nothing was changed, for %2$zu reasons; the first: %1$s" : "%1$s",
		errors->v[0], errors->n);
	add_errors(rq, errors);
}

/* ---- to JSON ---- */

static void set_etag(struct request *rq, const struct cloud_conf *c)
{
	rq->header = MHD_HTTP_HEADER_ETAG;
	free(rq->header_value);
	rq->header_value = xasprintf("\"%016" PRIx64 "\"", created_hash(c, request_who(rq).admin));
}

/* Others must not read what only some may write: there are passwords in environments. */
static json_t *view_keys(const struct cloud_conf *c, bool admin)
{
	json_t *all = json_object();
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *value = NULL;

		if (keys[i].section != SECTION_CLOUD)
			continue;
		value = key_get(&keys[i], c);
		if (!admin && keys[i].privilege == PRIVILEGE_ALL)
			replace_str(&value, NULL);
		json_object_set_new(all, keys[i].name, view_text(value));
	}
	return all;
}

static json_t *view_names(const struct strv *l)
{
	json_t *list = json_array();

	for (size_t i = 0; i < l->n; i++)
		json_array_append_new(list, view_text(l->v[i]));
	return list;
}

static void answer_config(struct request *rq)
{
	const struct cloud *c = fleet_find(rq->api->fleet, rq->cloud_name);
	const struct cloud_conf *conf = fleet_cloud_conf(rq->api->fleet, rq->cloud_name);
	struct fleet_who who = request_who(rq);

	set_etag(rq, conf);
	rq->status = MHD_HTTP_OK;
	rq->json = json_object();
	json_object_set_new(rq->json, "name", view_text(conf->name));
	json_object_set_new(rq->json, "origin", json_string(conf->created ? "created" : "config"));
	json_object_set_new(rq->json, "etag", view_text(rq->header_value));
	json_object_set_new(rq->json, "keys", view_keys(conf, who.admin));
	json_object_set_new(rq->json, "given", view_names(&conf->given));
	json_object_set_new(rq->json, "pending_keys", view_names(&c->pending_keys));
}

/* ---- the routes ---- */

static struct cloud_conf *make_conf(
	struct request *rq, const struct fleet_who *who, struct strv *errors, int *r)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *conf =
		cloud_conf_new(json_string_value(json_object_get(rq->input, "name")));
	_cleanup_(edits_clear) struct edits ed = {0};

	*r = take_edits(json_object_get(rq->input, "keys"), &ed, errors);
	if (*r == 0)
		*r = created_edit(conf, ed.v, ed.n, who->admin, errors);
	return *r == 0 ? TAKE_PTR(conf) : NULL;
}

static void check_create(struct request *rq)
{
	static const char *const names[] = {"name", "keys", "start"};
	static const json_type types[] = {JSON_STRING, JSON_OBJECT, JSON_TRUE};
	const char *name = json_string_value(json_object_get(rq->input, "name"));

	if (!rq->input) {
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-body", "Bad body",
			"a body is wanted: {\"name\": \"dev\", \"keys\": {\"nodes\": 2}}");
		return;
	}
	check_members(rq, names, types, ARRAY_SIZE(names));
	if (rq->status)
		return;
	if (!name)
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-body", "Bad body",
			"'name' is missing: what the cloud is called");
	else if (!conf_cloud_name_valid(name))
		problem(rq, MHD_HTTP_UNPROCESSABLE_CONTENT, "bad-name", "Bad name",
			"'%s' cannot be a cloud's name: 1 to 32 letters, digits, '_' and '-' are "
			"wanted, a letter or digit first",
			name);
}

void handle_create(struct request *rq)
{
	_cleanup_(strv_free) struct strv errors = STRV_NULL;
	struct fleet_who who = request_who(rq);
	struct cloud_conf *conf;
	const char *name;
	int r;

	check_create(rq);
	if (rq->status)
		return;
	name = json_string_value(json_object_get(rq->input, "name"));
	conf = make_conf(rq, &who, &errors, &r);
	if (conf)
		r = fleet_create(rq->api->fleet, conf, &who,
			json_is_true(json_object_get(rq->input, "start")), &errors);
	if (r < 0) {
		refuse(rq, r, &errors);
		if (r == -EEXIST || r == -EBUSY)
			problem_add_cloud(rq, fleet_find(rq->api->fleet, name));
		return;
	}
	rq->status = MHD_HTTP_CREATED;
	rq->json = view_live_cloud(rq->api->fleet, fleet_find(rq->api->fleet, name));
	rq->header = MHD_HTTP_HEADER_LOCATION;
	rq->header_value = xasprintf("/v1/clouds/%s", name);
}

#define BETWEEN_TAGS " \t,"

/* Whether one of the tags in an If-Match header is this one, or it is "*". */
static bool etag_matches(const char *header, const char *etag)
{
	size_t n = strlen(etag);

	if (streq(header, "*"))
		return true;
	for (const char *p = header; *p; p += strcspn(p, BETWEEN_TAGS)) {
		p += strspn(p, BETWEEN_TAGS);
		if (strncmp(p, etag, n) == 0) /* no weak one, W/"..." */
			return true;
	}
	return false;
}

/* Answers when the client has not seen what it is about to change. */
static void check_match(struct request *rq, bool required)
{
	const struct cloud_conf *conf = fleet_cloud_conf(rq->api->fleet, rq->cloud_name);
	const char *header =
		MHD_lookup_connection_value(rq->conn, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_MATCH);

	set_etag(rq, conf);
	if (!header && required)
		problem(rq, MHD_HTTP_PRECONDITION_REQUIRED, "precondition-required",
			"Precondition required",
			"get /v1/clouds/%s/config first and send its ETag as If-Match, so that no "
			"other change is lost",
			rq->cloud_name);
	else if (header && !etag_matches(header, rq->header_value))
		problem(rq, MHD_HTTP_PRECONDITION_FAILED, "precondition-failed",
			"Precondition failed",
			"the keys of cloud '%s' have been changed meanwhile: get them again",
			rq->cloud_name);
	else
		rq->header = NULL;
}

/* Who could not have made it may not change or delete it either. */
static void check_owner(struct request *rq)
{
	const struct cloud_conf *conf = fleet_cloud_conf(rq->api->fleet, rq->cloud_name);
	_cleanup_free_ char *keys = created_privileged_keys(conf);
	struct fleet_who who = request_who(rq);

	if (keys && !who.admin)
		problem(rq, MHD_HTTP_FORBIDDEN, "forbidden", "Forbidden",
			"cloud '%s' has keys that only root and the daemon's user may set (%s), so "
			"only they may change or delete it",
			rq->cloud_name, keys);
}

/* That somebody deletes what is configured is a misunderstanding, whoever it is. */
static void check_created(struct request *rq, const char *what)
{
	const struct cloud_conf *conf = fleet_cloud_conf(rq->api->fleet, rq->cloud_name);

	if (!conf->created)
		problem(rq, MHD_HTTP_CONFLICT, "cloud-configured", "The cloud is configured",
			"cloud '%s' is in the configuration (%s): %s there, then reload",
			rq->cloud_name, conf->file ? conf->file : "by default", what);
	else
		check_owner(rq);
}

void handle_delete(struct request *rq)
{
	const struct cloud *c = fleet_find(rq->api->fleet, rq->cloud_name);
	_cleanup_(strv_free) struct strv errors = STRV_NULL;
	struct fleet_who who = request_who(rq);
	uint64_t timeout_ms;
	enum wait_for wait = request_wait(rq, 1u << WAIT_DELETED, &timeout_ms);
	int r = 0;

	if (!rq->status && !c->removed)
		check_created(rq, "remove it");
	if (!rq->status && !c->removed)
		check_match(rq, false);
	if (rq->status)
		return;
	r = fleet_delete(rq->api->fleet, rq->cloud_name, &who, &errors);
	if (r < 0) {
		refuse(rq, r, &errors);
	} else if (wait != WAIT_NONE) {
		waiter_begin(rq, wait, timeout_ms);
	} else {
		rq->status = MHD_HTTP_ACCEPTED;
		rq->json = view_live_cloud(rq->api->fleet, c);
	}
}

void handle_cloud_config(struct request *rq)
{
	answer_config(rq);
}

static void check_configure(struct request *rq)
{
	static const char *const names[] = {"keys"};
	static const json_type types[] = {JSON_OBJECT};

	if (fleet_find(rq->api->fleet, rq->cloud_name)->removed)
		problem_cloud_removed(rq);
	if (!rq->status)
		check_created(rq, "change it");
	if (!rq->status && rq->input)
		check_members(rq, names, types, ARRAY_SIZE(names));
	if (!rq->status && !json_object_get(rq->input, "keys"))
		problem(rq, MHD_HTTP_BAD_REQUEST, "bad-body", "Bad body",
			"a body is wanted: {\"keys\": {\"nodes\": 3, \"env\": null}}; null takes a "
			"key back to its default");
	if (!rq->status)
		check_match(rq, true);
}

void handle_cloud_configure(struct request *rq)
{
	struct fleet *f = rq->api->fleet;
	_cleanup_(strv_free) struct strv errors = STRV_NULL;
	_cleanup_(cloud_change_clear) struct cloud_change change = {0};
	_cleanup_(cloud_conf_freep) struct cloud_conf *conf = NULL;
	_cleanup_(edits_clear) struct edits ed = {0};
	struct fleet_who who = request_who(rq);
	int r;

	check_configure(rq);
	if (rq->status)
		return;
	conf = cloud_conf_dup(fleet_cloud_conf(f, rq->cloud_name));
	r = take_edits(json_object_get(rq->input, "keys"), &ed, &errors);
	if (r == 0)
		r = created_edit(conf, ed.v, ed.n, who.admin, &errors);
	if (r == 0)
		r = fleet_change_created(f, TAKE_PTR(conf), &who, &change, &errors);
	if (r < 0)
		refuse(rq, r, &errors);
	else
		answer_config(rq);
}
