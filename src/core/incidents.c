#include "core/incidents.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"

#define MAX_FIRST_LINE 16384
/* The last millisecond of the year 9999: a clock beyond it would make longer ids. */
#define MAX_WALL_MS UINT64_C(253402300799999)

struct entry {
	char id[INCIDENT_ID_LEN + 1];
	json_t *summary; /* owned */
	uint64_t bytes;
};

struct incidents {
	char *dir;
	struct entry *v; /* the oldest first */
	size_t n;
	size_t max_n;
	uint64_t max_bytes;
	uint64_t last_ms; /* of the newest id */
};

static const char *const summary_keys[] = {"id", "time", "cloud", "node", "generation", "kind",
	"cause", "summary", "code", "signal", "outcome", "restart_delay_ms"};

/* ---- ids ---- */

static void format_id(uint64_t wall_ms, char id[INCIDENT_ID_LEN + 1])
{
	uint64_t ms = MIN(wall_ms, MAX_WALL_MS);
	time_t secs = (time_t)(ms / 1000);
	char day[32];
	struct tm tm;

	gmtime_r(&secs, &tm);
	strftime(day, sizeof(day), "%Y%m%d-%H%M%S", &tm);
	snprintf(id, INCIDENT_ID_LEN + 1, "%.15s-%03u", day, (unsigned)(ms % 1000));
}

/* 0: it is no id. */
static uint64_t parse_id(const char *id)
{
	static const char form[] = "dddddddd-dddddd-ddd";
	char again[INCIDENT_ID_LEN + 1];
	struct tm tm = {0};
	uint64_t ms;
	int milli;

	if (strlen(id) != INCIDENT_ID_LEN)
		return 0;
	for (size_t i = 0; i < INCIDENT_ID_LEN; i++)
		if (form[i] == '-' ? id[i] != '-' : id[i] < '0' || id[i] > '9')
			return 0;
	if (sscanf(id, "%4d%2d%2d-%2d%2d%2d-%3d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
		    &tm.tm_min, &tm.tm_sec, &milli) != 7)
		return 0;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	ms = (uint64_t)timegm(&tm) * 1000 + (uint64_t)milli;
	format_id(ms, again);
	return streq(again, id) ? ms : 0;
}

void incidents_new_id(struct incidents *in, uint64_t wall_ms, char id[INCIDENT_ID_LEN + 1])
{
	in->last_ms = MAX(wall_ms, in->last_ms + 1);
	format_id(in->last_ms, id);
}

/* ---- the list ---- */

static char *path_of(const struct incidents *in, const char *id)
{
	return xasprintf("%s/%s.json", in->dir, id);
}

/* Where it is, or would be. */
static size_t place_of(const struct incidents *in, const char *id)
{
	size_t i = in->n;

	while (i > 0 && strcmp(in->v[i - 1].id, id) >= 0)
		i--;
	return i;
}

static struct entry *find(const struct incidents *in, const char *id)
{
	size_t i = place_of(in, id);

	return i < in->n && streq(in->v[i].id, id) ? &in->v[i] : NULL;
}

/* Takes `summary` over. */
static void enter(struct incidents *in, const char *id, json_t *summary, uint64_t bytes)
{
	struct entry *e = find(in, id);
	size_t i = place_of(in, id);

	if (!e) {
		in->v = xreallocarray(in->v, in->n + 1, sizeof(*in->v));
		e = &in->v[i];
		memmove(e + 1, e, (in->n++ - i) * sizeof(*e));
		snprintf(e->id, sizeof(e->id), "%s", id);
		e->summary = NULL;
	}
	json_decref(e->summary);
	e->summary = summary;
	e->bytes = bytes;
	in->last_ms = MAX(in->last_ms, parse_id(id));
}

static void drop(struct incidents *in, struct entry *e)
{
	json_decref(e->summary);
	in->n--;
	memmove(e, e + 1, (size_t)(in->v + in->n - e) * sizeof(*e));
}

static void prune(struct incidents *in)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < in->n; i++)
		bytes += in->v[i].bytes;
	while (in->n > in->max_n || (in->n > 1 && bytes > in->max_bytes)) {
		_cleanup_free_ char *path = path_of(in, in->v[0].id);

		if (unlink(path) < 0 && errno != ENOENT)
			log_warning("cannot remove %s: %s", path, strerror(errno));
		bytes -= in->v[0].bytes;
		drop(in, &in->v[0]);
	}
}

/* ---- files ---- */

/* From the first line of a file; NULL: it is damaged. */
static json_t *parse_summary(char *head)
{
	size_t n = strcspn(head, "\n");

	if (n > 0 && head[n - 1] == ',')
		head[n - 1] = '}';
	return json_loadb(head, n, 0, NULL);
}

static bool is_summary_of(const json_t *summary, const char *id)
{
	for (size_t i = 0; i < ARRAY_SIZE(summary_keys); i++)
		if (!json_object_get(summary, summary_keys[i]))
			return false;
	return streq_null(json_string_value(json_object_get(summary, "id")), id);
}

static void load(struct incidents *in, const char *id)
{
	_cleanup_free_ char *path = path_of(in, id), *head = NULL;
	json_t *summary;
	size_t size;
	int r = file_read_head(path, MAX_FIRST_LINE, &head, &size);

	if (r < 0) {
		log_warning("cannot read %s: %s", path, strerror(-r));
		return;
	}
	summary = parse_summary(head);
	if (!is_summary_of(summary, id)) {
		log_warning("%s is damaged and removed", path);
		json_decref(summary);
		unlink(path);
		return;
	}
	enter(in, id, summary, size);
}

static bool has_suffix(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n > m && streq(s + n - m, suffix);
}

struct incidents *incidents_open(const char *dir, size_t max_n, uint64_t max_bytes)
{
	struct incidents *in = xcalloc(1, sizeof(*in));
	DIR *d = opendir(dir);
	struct dirent *de;

	in->dir = xstrdup(dir);
	in->max_n = max_n;
	in->max_bytes = max_bytes;
	if (!d && errno != ENOENT)
		log_warning("cannot read %s: %s", dir, strerror(errno));
	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, de->d_name);
		_cleanup_free_ char *id = xstrndup(de->d_name, INCIDENT_ID_LEN);

		if (parse_id(id) && streq(de->d_name + INCIDENT_ID_LEN, ".json"))
			load(in, id);
		else if (has_suffix(de->d_name, ".new") || has_suffix(de->d_name, ".txt"))
			unlink(path);
	}
	if (d)
		closedir(d);
	prune(in);
	return in;
}

void incidents_close(struct incidents *in)
{
	if (!in)
		return;
	for (size_t i = 0; i < in->n; i++)
		json_decref(in->v[i].summary);
	free(in->v);
	free(in->dir);
	free(in);
}

/* ---- keeping one ---- */

/* A new reference; what is not there is null. */
static json_t *summary_of(const json_t *incident)
{
	json_t *summary = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(summary_keys); i++) {
		json_t *v = json_object_get(incident, summary_keys[i]);

		json_object_set_new(summary, summary_keys[i], v ? json_incref(v) : json_null());
	}
	return summary;
}

/* As it is in the file; owned by the caller. */
static char *text_of(const json_t *incident, const json_t *summary)
{
	json_t *rest = json_copy((json_t *)incident);
	_cleanup_free_ char *head = json_dumps(summary, JSON_COMPACT), *tail = NULL;
	char *text;

	for (size_t i = 0; i < ARRAY_SIZE(summary_keys); i++)
		json_object_del(rest, summary_keys[i]);
	tail = json_dumps(rest, JSON_COMPACT);
	if (json_object_size(rest) == 0)
		text = xasprintf("%s\n", head);
	else
		text = xasprintf("%.*s,\n%s\n", (int)strlen(head) - 1, head, tail + 1);
	json_decref(rest);
	return text;
}

/* The longest of its texts, of those that are objects' too. */
static json_t *longest_text(json_t *j)
{
	json_t *longest = NULL, *v;
	const char *key;

	json_object_foreach (j, key, v) {
		json_t *s = json_is_object(v) ? longest_text(v) : v;

		if (json_is_string(s) && json_string_length(s) > json_string_length(longest))
			longest = s;
	}
	return longest;
}

/* False: there is nothing left to cut. */
static bool halve(json_t *text)
{
	_cleanup_free_ char *half = NULL;
	size_t n = json_string_length(text) / 2;
	const char *s = json_string_value(text);

	if (n < 64)
		return false;
	while (n > 0 && (s[n] & 0xc0) == 0x80) /* not within a character */
		n--;
	half = xasprintf("%.*s\n[cut here: the incident is too long]\n", (int)n, s);
	return json_string_set(text, half) == 0;
}

int incidents_put(struct incidents *in, json_t *incident, struct err *e)
{
	const char *id = json_string_value(json_object_get(incident, "id"));
	json_t *summary = summary_of(incident), *longest;
	_cleanup_free_ char *path = path_of(in, id), *text = text_of(incident, summary);
	int r;

	while (strlen(text) > INCIDENT_MAX_BYTES && (longest = longest_text(incident)) &&
		halve(longest)) {
		free(text);
		json_decref(summary);
		summary = summary_of(incident);
		text = text_of(incident, summary);
	}
	r = file_mkdirs(in->dir, 0750, e);
	if (r == 0)
		r = file_write_atomic(path, text, strlen(text), 0640, false, e);
	if (r < 0) {
		json_decref(summary);
		return r;
	}
	enter(in, id, summary, strlen(text));
	prune(in);
	return 0;
}

/* ---- asking ---- */

size_t incidents_count(const struct incidents *in)
{
	return in ? in->n : 0;
}

const json_t *incidents_summary(const struct incidents *in, size_t i)
{
	return in->v[in->n - 1 - i].summary;
}

const char *incidents_newest(const struct incidents *in, const char *cloud)
{
	for (size_t i = 0; i < incidents_count(in); i++) {
		const json_t *s = incidents_summary(in, i);

		if (streq_null(json_string_value(json_object_get(s, "cloud")), cloud))
			return json_string_value(json_object_get(s, "id"));
	}
	return NULL;
}

int incidents_read(const struct incidents *in, const char *id, json_t **out, struct err *e)
{
	_cleanup_free_ char *path = NULL, *text = NULL;
	json_t *j;
	size_t len;
	int r;

	if (!in || !find(in, id))
		return err_set(e, -ENOENT, "there is no incident %s (any more)", id);
	path = path_of(in, id);
	/* Somebody may have edited it; one of ours is never that long. */
	r = file_read(path, 2 * (size_t)INCIDENT_MAX_BYTES, &text, &len);
	if (r < 0)
		return err_set_errno(e, r, "cannot read %s", path);
	j = json_loadb(text, len, 0, NULL);
	if (!json_is_object(j)) {
		json_decref(j);
		return err_set(e, -EBADMSG, "%s is damaged", path);
	}
	*out = j;
	return 0;
}

int incidents_remove(struct incidents *in, const char *id, struct err *e)
{
	struct entry *entry = in ? find(in, id) : NULL;
	_cleanup_free_ char *path = NULL;

	if (!entry)
		return err_set(e, -ENOENT, "there is no incident %s (any more)", id);
	path = path_of(in, id);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set_errno(e, -errno, "cannot remove %s", path);
	drop(in, entry);
	return 0;
}
