/* What a good node does, and whether another does the same.
 *
 * An archive that changed the order of reflection shows in the endpoints: H2O picks a handler's
 * method, and from it the schemas, by the order in which reflection lists methods. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "drv/bootwork.h"

#define SHOWN    3 /* differences that a sentence names */
#define JOB_MS   120000
#define POLL_US  20000
#define MSG_MAX_ 200

/* --- endpoints ---------------------------------------------------------------------------- */

static const char *const fields[] = {
	"handler_class", "handler_method", "input_schema", "output_schema"};

/* By method and pattern; where two have the same, the first registered may win, so their order
 * counts. The order of all the others does not: it says nothing of who answers what. */
static json_t *index_routes(const json_t *routes)
{
	json_t *all = json_object(), *list;
	const json_t *route;
	size_t i;

	json_array_foreach (routes, i, route) {
		const char *method = json_string_value(json_object_get(route, "http_method"));
		const char *pattern = json_string_value(json_object_get(route, "url_pattern"));
		_cleanup_free_ char *key =
			xasprintf("%s %s", method ? method : "?", pattern ? pattern : "?");
		json_t *what = json_object();

		for (size_t k = 0; k < ARRAY_SIZE(fields); k++)
			json_object_set(what, fields[k], json_object_get(route, fields[k]));
		list = json_object_get(all, key);
		if (!list) {
			list = json_array();
			json_object_set_new(all, key, list);
		}
		json_array_append_new(list, what);
	}
	return all;
}

json_t *boot_endpoints(struct boot_node *n, struct err *e)
{
	json_t *answer = NULL, *all = NULL;
	int status = boot_node_ask(n, "GET", "/3/Metadata/endpoints", NULL, &answer, e);
	const json_t *routes = json_object_get(answer, "routes");

	if (status == 200 && json_array_size(routes) > 0)
		all = index_routes(routes);
	else if (status >= 0)
		err_set(e, -EBADMSG, "GET /3/Metadata/endpoints answers %d", status);
	else
		err_wrap(e, "GET /3/Metadata/endpoints");
	json_decref(answer);
	return all;
}

static const char *shown(const json_t *what, const char *field)
{
	const char *s = json_string_value(json_object_get(what, field));

	return s ? s : "nothing";
}

/* "POST /4/sessions has output_schema Schema instead of SessionIdV4" */
static void describe(struct strbuf *b, const char *key, const json_t *plain, const json_t *other)
{
	for (size_t i = 0; i < MAX(json_array_size(plain), json_array_size(other)); i++) {
		const json_t *p = json_array_get(plain, i), *o = json_array_get(other, i);

		for (size_t k = 0; p && o && k < ARRAY_SIZE(fields); k++) {
			if (json_equal(
				    json_object_get(p, fields[k]), json_object_get(o, fields[k])))
				continue;
			strbuf_printf(b, "%s has %s %s instead of %s", key, fields[k],
				shown(o, fields[k]), shown(p, fields[k]));
			return;
		}
		if (!p || !o) {
			strbuf_printf(b, "%s is %s", key, p ? "missing" : "there in addition");
			return;
		}
	}
}

char *boot_endpoints_differ(const json_t *plain, const json_t *other)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	_cleanup_free_ char *named = NULL;
	json_t *keys = json_object();
	const char *key;
	size_t n = 0;
	json_t *v;

	json_object_update(keys, (json_t *)(uintptr_t)plain);
	json_object_update_missing(keys, (json_t *)(uintptr_t)other);
	json_object_foreach (keys, key, v) {
		const json_t *p = json_object_get(plain, key), *o = json_object_get(other, key);

		if (json_equal(p, o))
			continue;
		if (n < SHOWN) {
			strbuf_puts(&b, n ? "; " : "");
			describe(&b, key, p, o);
		}
		n++;
	}
	json_decref(keys);
	if (n == 0)
		return NULL;
	named = text_visible(strbuf_str(&b), b.len);
	return xasprintf("%zu of %zu endpoints differ: %s%s", n, json_object_size(plain), named,
		n > SHOWN ? "; ..." : "");
}

/* --- work --------------------------------------------------------------------------------- */

/* Asks; anything but 200 is an error that quotes what the node says. */
static int ask_well(struct boot_node *n, const char *method, const char *path, const char *form,
	json_t **answer, struct err *e)
{
	int status = boot_node_ask(n, method, path, form, answer, e);
	const char *msg = json_string_value(json_object_get(*answer, "exception_msg"));
	_cleanup_free_ char *said = NULL;

	if (status < 0)
		return boot_told_to_end() ? status : err_wrap(e, "%s %s", method, path);
	if (status == 200)
		return 0;
	msg = msg ? msg + strspn(msg, " \n\t") : "";
	if (has_prefix(msg, "ERROR MESSAGE:"))
		msg += strlen("ERROR MESSAGE:") + strspn(msg + strlen("ERROR MESSAGE:"), " \n\t");
	said = text_visible(msg, MIN(strcspn(msg, "\n"), (size_t)MSG_MAX_));
	return err_set(
		e, -EBADMSG, "%s %s answers %d%s%s", method, path, status, *said ? ": " : "", said);
}

static int ask_only(
	struct boot_node *n, const char *method, const char *path, const char *form, struct err *e)
{
	json_t *answer = NULL;
	int r = ask_well(n, method, path, form, &answer, e);

	json_decref(answer);
	return r;
}

/* `job`: a JobV3, as most answers have it somewhere. */
static int await_job(struct boot_node *n, const json_t *job, const char *what, struct err *e)
{
	const char *name = json_string_value(json_object_get(json_object_get(job, "key"), "name"));
	_cleanup_free_ char *escaped = name ? http_escape(name) : NULL;
	_cleanup_free_ char *path = escaped ? xasprintf("/3/Jobs/%s", escaped) : NULL;
	uint64_t deadline = clock_monotonic_ms() + MAX(boot_patience_ms(n->job), (uint64_t)JOB_MS);

	if (!path)
		return err_set(e, -EBADMSG, "%s has begun no job", what);
	for (;;) {
		json_t *answer = NULL;
		int r = ask_well(n, "GET", path, NULL, &answer, e);
		const json_t *j = json_array_get(json_object_get(answer, "jobs"), 0);
		const char *status = json_string_value(json_object_get(j, "status"));
		bool done = status && streq(status, "DONE");
		bool runs = status && (streq(status, "RUNNING") || streq(status, "CREATED"));

		if (r == 0 && !done && !runs)
			r = err_set(e, -EBADMSG, "%s ended as %s", what, status ? status : "?");
		json_decref(answer);
		if (r < 0 || done)
			return r;
		if (clock_monotonic_ms() >= deadline)
			return err_set(e, -ETIMEDOUT, "%s did not end", what);
		usleep(POLL_US);
	}
}

static int make_frame(struct boot_node *n, struct err *e)
{
	json_t *answer = NULL;
	int r = ask_well(n, "POST", "/3/CreateFrame",
		"dest=boot_frame&rows=100&cols=3&seed=1&has_response=true&response_factors=2"
		"&categorical_fraction=0&integer_fraction=0&binary_fraction=0&string_fraction=0"
		"&time_fraction=0&missing_fraction=0",
		&answer, e);

	if (r == 0)
		r = await_job(n, answer, "POST /3/CreateFrame", e);
	json_decref(answer);
	return r;
}

static int train(struct boot_node *n, struct err *e)
{
	json_t *answer = NULL;
	int r = ask_well(n, "POST", "/3/ModelBuilders/gbm",
		"model_id=boot_model&training_frame=boot_frame&response_column=response&ntrees=1"
		"&max_depth=2&min_rows=1&seed=1",
		&answer, e);

	if (r == 0)
		r = await_job(n, json_object_get(answer, "job"), "POST /3/ModelBuilders/gbm", e);
	json_decref(answer);
	return r == 0 ? ask_only(n, "GET", "/3/Models/boot_model", NULL, e) : r;
}

/* Rapids reports what went wrong with 200 and "error" at times. */
static int evaluate(struct boot_node *n, const char *session, struct err *e)
{
	_cleanup_free_ char *form =
		xasprintf("ast=(%%2B%%20(nrow%%20boot_frame)%%201)&session_id=%s", session);
	json_t *answer = NULL;
	int r = ask_well(n, "POST", "/99/Rapids", form, &answer, e);
	double value = json_number_value(json_object_get(answer, "scalar"));

	if (r == 0 && value != 101)
		r = err_set(e, -EBADMSG, "POST /99/Rapids counts %g rows instead of 101", value);
	json_decref(answer);
	return r;
}

int boot_exercise(struct boot_node *n, struct err *e)
{
	static const char *const first[] = {"/3/Metadata/schemas/CloudV3",
		"/3/Metadata/schemas/H2OErrorV3", "/3/Metadata/schemas/H2OModelBuilderErrorV3",
		"/3/About", "/3/Capabilities/API"};
	_cleanup_free_ char *session = NULL;
	json_t *answer = NULL;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(first) && r == 0; i++)
		r = ask_only(n, "GET", first[i], NULL, e);
	if (r == 0)
		r = ask_well(n, "POST", "/4/sessions", NULL, &answer, e);
	if (r == 0 && !json_is_string(json_object_get(answer, "session_key")))
		r = err_set(e, -EBADMSG, "POST /4/sessions answers without a session");
	if (r == 0)
		session = xstrdup(json_string_value(json_object_get(answer, "session_key")));
	json_decref(answer);
	if (r == 0)
		r = make_frame(n, e);
	if (r == 0)
		r = evaluate(n, session, e);
	if (r == 0)
		r = train(n, e);
	return r;
}
