/* `h2ofleet clean`: what clients have left in a cloud.
 *
 * A session of Python or R is known only by its id in the keys that it makes ("py_7_sid_9d45",
 * "RTMP_sid_9d45_3"); H2O has no list of sessions, notes no time of their last use, and their
 * clients hold no connection. So whether a client lives cannot be told. What can: whether a job
 * runs, and when the cloud last computed anything for anybody (/3/SteamMetrics). Removing waits for
 * both. */
#include "cli/h2o.h"

#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "cli/show.h"

#define IDLE_DEFAULT_MS (10 * 60 * 1000)
#define REMOVE_MS       60000
#define SLACK_MS        1000 /* between H2O's clock and ours */
#define MAX_NAMED       20   /* frames and models are named up to so many */

struct clean {
	struct h2o h;
	bool sessions, frames, models, all, yes; /* as asked */
	struct strv chosen;                      /* sessions by name */
	uint64_t idle_limit_ms;
	/* What there is. */
	bool locked;
	int64_t idle_ms, running_jobs;
	uint64_t read_at_ms;  /* when all of this was read; that itself counts as use */
	json_t *memory;       /* owned: as shown */
	json_t *frame_list;   /* owned: of each name, session or null, bytes, rows, columns */
	json_t *model_list;   /* owned: of each name, algo */
	json_t *session_list; /* owned: of each id, frames, bytes */
	/* What was done. */
	int64_t removed_sessions, removed_frames, removed_models, removed_bytes;
};

static void clean_clear(struct clean *c)
{
	h2o_close(&c->h);
	strv_free(&c->chosen);
	json_decref(c->memory);
	json_decref(c->frame_list);
	json_decref(c->model_list);
	json_decref(c->session_list);
}

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

/* --- what there is ------------------------------------------------------------------------ */

/* "_sid_9d45" in "py_7_sid_9d45"; NULL: it is of no session. Owned by the caller. */
static char *session_of(const char *name)
{
	const char *at = strstr(name, "_sid_");
	size_t n = at ? strspn(at + 5, "0123456789abcdefghijklmnopqrstuvwxyz") : 0;

	return n ? xstrndup(at, 5 + n) : NULL;
}

static json_t *find_session(json_t *sessions, const char *id)
{
	json_t *s;
	size_t i;

	json_array_foreach (sessions, i, s)
		if (streq(text_of(s, "id"), id))
			return s;
	s = json_pack("{s:s, s:i, s:i}", "id", id, "frames", 0, "bytes", 0);
	json_array_append_new(sessions, s);
	return s;
}

static void count(json_t *s, int64_t bytes)
{
	json_object_set_new(s, "frames", json_integer(show_int(s, "frames", 0) + 1));
	json_object_set_new(s, "bytes", json_integer(show_int(s, "bytes", 0) + bytes));
}

static int read_frames(struct clean *c)
{
	int code;
	json_t *answer = h2o_get(&c->h, &code, "/3/Frames"), *f;
	size_t i;

	json_decref(c->frame_list);
	json_decref(c->session_list);
	c->frame_list = json_array();
	c->session_list = json_array();
	json_array_foreach (json_object_get(answer, "frames"), i, f) {
		const char *name = text_of(json_object_get(f, "frame_id"), "name");
		_cleanup_free_ char *session = session_of(name);
		int64_t bytes = MAX(show_int(f, "byte_size", 0), (int64_t)0);

		if (!*name)
			continue;
		json_array_append_new(
			c->frame_list, json_pack("{s:s, s:s?, s:I, s:I, s:I}", "name", name,
					       "session", session, "bytes", (json_int_t)bytes,
					       "rows", (json_int_t)show_int(f, "rows", 0),
					       "columns", (json_int_t)show_int(f, "columns", 0)));
		if (session)
			count(find_session(c->session_list, session), bytes);
	}
	json_decref(answer);
	return code;
}

static int read_models(struct clean *c)
{
	int code;
	json_t *answer = h2o_get(&c->h, &code, "/3/Models"), *m;
	size_t i;

	json_decref(c->model_list);
	c->model_list = json_array();
	json_array_foreach (json_object_get(answer, "models"), i, m) {
		const char *name = text_of(json_object_get(m, "model_id"), "name");

		if (*name)
			json_array_append_new(c->model_list,
				json_pack("{s:s, s:s}", "name", name, "algo", text_of(m, "algo")));
	}
	json_decref(answer);
	return code;
}

static int read_use(struct clean *c)
{
	int code;
	json_t *steam = h2o_get(&c->h, &code, "/3/SteamMetrics"), *jobs = NULL, *job;
	size_t i;

	c->idle_ms = show_int(steam, "idle_millis", 0);
	c->running_jobs = 0;
	if (steam)
		jobs = h2o_get(&c->h, &code, "/3/Jobs?_exclude_fields=jobs/stacktrace");
	json_array_foreach (json_object_get(jobs, "jobs"), i, job)
		c->running_jobs += streq(text_of(job, "status"), "RUNNING") ||
				   streq(text_of(job, "status"), "CANCEL_PENDING");
	json_decref(jobs);
	json_decref(steam);
	return code;
}

/* An unlocked cloud has nothing, and none of the other questions is put to it. */
static int read_cloud(struct clean *c)
{
	int code;
	json_t *cloud = h2o_get(&c->h, &code, "/3/Cloud?skip_ticks=true"), *n;
	json_int_t max = 0, left = 0, data = 0;
	size_t i;

	json_array_foreach (json_object_get(cloud, "nodes"), i, n) {
		max += show_int(n, "max_mem", 0);
		left += show_int(n, "free_mem", 0);
		data += show_int(n, "mem_value_size", 0);
	}
	json_decref(c->memory);
	c->memory = json_pack(
		"{s:I, s:I, s:I}", "max_bytes", max, "free_bytes", left, "data_bytes", data);
	c->locked = json_is_true(json_object_get(cloud, "locked"));
	json_decref(cloud);
	return code;
}

static int read_all(struct clean *c)
{
	int code = read_cloud(c);

	if (code == CLI_OK && !c->locked) {
		c->frame_list = json_array();
		c->model_list = json_array();
		c->session_list = json_array();
		return CLI_OK;
	}
	/* First of all the time since its last use, before what we do counts. */
	if (code == CLI_OK)
		code = read_use(c);
	if (code == CLI_OK)
		code = read_frames(c);
	if (code == CLI_OK)
		code = read_models(c);
	c->read_at_ms = clock_monotonic_ms();
	return code;
}

/* --- telling ------------------------------------------------------------------------------ */

static void print_sessions(FILE *f, const json_t *sessions)
{
	_cleanup_(strv_free) struct strv cells = STRV_NULL;
	const json_t *s;
	size_t i;

	if (!json_array_size(sessions))
		return;
	strv_add(&cells, "SESSION");
	strv_add(&cells, "FRAMES");
	strv_add(&cells, "SIZE");
	json_array_foreach (sessions, i, s) {
		strv_take(&cells, show_text(s, "id"));
		strv_printf(&cells, "%" PRId64, show_int(s, "frames", 0));
		strv_take(&cells, text_human_size((uint64_t)show_int(s, "bytes", 0)));
	}
	show_grid(f, &cells, 3, 0);
	fputc('\n', f);
}

static void print_kept(FILE *f, const struct clean *c)
{
	_cleanup_(strv_free) struct strv cells = STRV_NULL;
	const json_t *j;
	size_t i, left = MAX_NAMED, more = 0;

	strv_add(&cells, "KEPT");
	strv_add(&cells, "WHAT");
	strv_add(&cells, "SIZE");
	json_array_foreach (c->frame_list, i, j) {
		if (json_is_string(json_object_get(j, "session")))
			continue;
		if (!left || !left--) {
			more++;
			continue;
		}
		strv_take(&cells, show_text(j, "name"));
		strv_add(&cells, "frame");
		strv_take(&cells, text_human_size((uint64_t)show_int(j, "bytes", 0)));
	}
	left = MAX_NAMED;
	json_array_foreach (c->model_list, i, j) {
		if (!left || !left--) {
			more++;
			continue;
		}
		strv_take(&cells, show_text(j, "name"));
		strv_printf(&cells, "model");
		strv_add(&cells, "");
	}
	if (cells.n > 3)
		show_grid(f, &cells, 3, 0);
	if (more)
		fprintf(f, "and %zu more\n", more);
	if (cells.n > 3)
		fputc('\n', f);
}

static void print_all(const struct clean *c)
{
	_cleanup_free_ char *left = text_human_size((uint64_t)show_int(c->memory, "free_bytes", 0));
	_cleanup_free_ char *max = text_human_size((uint64_t)show_int(c->memory, "max_bytes", 0));
	_cleanup_free_ char *idle = text_human_duration((uint64_t)MAX(c->idle_ms, (int64_t)0));
	FILE *f = c->h.cli->out;

	if (!c->locked) {
		fprintf(f, "the cloud is not locked: nobody has left anything in it\n");
		return;
	}
	print_sessions(f, c->session_list);
	print_kept(f, c);
	fprintf(f, "%s of %s free; ", left, max);
	if (c->running_jobs)
		fprintf(f, "%" PRId64 " job%s running\n", c->running_jobs,
			c->running_jobs == 1 ? "" : "s");
	else
		fprintf(f, "nothing was computed for %s\n", idle);
}

static json_t *view(const struct clean *c, bool done)
{
	json_t *j = json_pack("{s:s, s:b, s:O, s:O, s:O, s:O}", "cloud", c->h.name, "locked",
		c->locked, "sessions", c->session_list, "frames", c->frame_list, "models",
		c->model_list, "memory", c->memory);

	json_object_set_new(j, "idle_ms", c->locked ? json_integer(c->idle_ms) : json_null());
	json_object_set_new(j, "running_jobs", json_integer(c->running_jobs));
	json_object_set_new(j, "removed",
		done ? json_pack("{s:I, s:I, s:I, s:I}", "sessions",
			       (json_int_t)c->removed_sessions, "frames",
			       (json_int_t)c->removed_frames, "models",
			       (json_int_t)c->removed_models, "bytes", (json_int_t)c->removed_bytes)
		     : json_null());
	return j;
}

static void say(const struct clean *c, bool done)
{
	json_t *j;

	if (!c->h.cli->json) {
		if (!done)
			print_all(c);
		return;
	}
	j = view(c, done);
	cli_json(c->h.cli, j);
	json_decref(j);
}

/* --- removing ----------------------------------------------------------------------------- */

static bool is_chosen(const struct clean *c, const char *session)
{
	for (size_t i = 0; i < c->chosen.n; i++)
		if (streq(c->chosen.v[i], session))
			return true;
	return c->sessions || c->frames;
}

/* False: it was told why. What somebody else has removed meanwhile is no failure. */
static bool remove_one(struct clean *c, int *code, const char *prefix, const char *name)
{
	_cleanup_free_ char *escaped = client_escape(name);
	_cleanup_free_ char *path = xasprintf("%s%s", prefix, escaped);
	const struct h2o_request rq = {.method = "DELETE", .path = path, .timeout_ms = REMOVE_MS};
	struct h2o_answer a;
	bool good = h2o_ask(&c->h, &rq, &a);

	if (!good && a.status != 404)
		*code = h2o_complain(&c->h, &a);
	h2o_answer_clear(&a);
	return good;
}

/* Ending a session removes what Rapids made in it; other frames of it, such as imported ones, stay.
 */
static int end_sessions(struct clean *c)
{
	const json_t *s;
	int code = CLI_OK;
	size_t i;

	json_array_foreach (c->session_list, i, s)
		if (is_chosen(c, text_of(s, "id")))
			c->removed_sessions +=
				remove_one(c, &code, "/4/sessions/", text_of(s, "id"));
	return code;
}

static int remove_frames(struct clean *c)
{
	const json_t *f;
	int code = CLI_OK;
	size_t i;

	json_array_foreach (c->frame_list, i, f) {
		const char *session = text_of(f, "session");

		if (*session ? is_chosen(c, session) : c->frames)
			remove_one(c, &code, "/3/Frames/", text_of(f, "name"));
	}
	return code;
}

static int remove_models(struct clean *c)
{
	const json_t *m;
	int code = CLI_OK;
	size_t i;

	json_array_foreach (c->model_list, i, m)
		remove_one(c, &code, "/3/Models/", text_of(m, "name"));
	return code;
}

static int remove_asked(struct clean *c)
{
	int code = CLI_OK;

	if (c->all) {
		int64_t sessions = (int64_t)json_array_size(c->session_list);

		c->removed_sessions = remove_one(c, &code, "/3/DKV", "") ? sessions : 0;
		return code;
	}
	if (c->models)
		code = remove_models(c);
	if (c->sessions || c->frames || c->chosen.n) {
		code = cli_worse(code, end_sessions(c));
		code = cli_worse(code, read_frames(c));
		code = cli_worse(code, remove_frames(c));
	}
	return code;
}

static int remove_and_tell(struct clean *c)
{
	int64_t frames = (int64_t)json_array_size(c->frame_list);
	int64_t models = (int64_t)json_array_size(c->model_list);
	int64_t bytes = show_sum(c->frame_list, "bytes");
	_cleanup_free_ char *size = NULL;
	int code = remove_asked(c), r = read_frames(c);

	r = r == CLI_OK ? read_models(c) : r;
	r = r == CLI_OK ? read_cloud(c) : r;
	if (r != CLI_OK)
		return cli_worse(code, r);
	c->removed_frames = MAX(frames - (int64_t)json_array_size(c->frame_list), (int64_t)0);
	c->removed_models = MAX(models - (int64_t)json_array_size(c->model_list), (int64_t)0);
	c->removed_bytes = MAX(bytes - show_sum(c->frame_list, "bytes"), (int64_t)0);
	size = text_human_size((uint64_t)c->removed_bytes);
	if (!c->h.cli->json)
		fprintf(c->h.cli->out,
			"removed: sessions %" PRId64 ", frames %" PRId64 " (%s), models %" PRId64
			"\n",
			c->removed_sessions, c->removed_frames, size, c->removed_models);
	say(c, true);
	return code;
}

/* CLI_OK: nobody seems to be at work. */
static int check_use(const struct clean *c)
{
	_cleanup_free_ char *idle = text_human_duration((uint64_t)MAX(c->idle_ms, (int64_t)0));
	_cleanup_free_ char *limit = text_format_duration(c->idle_limit_ms);

	if (c->idle_limit_ms && c->running_jobs)
		return cli_fail(c->h.cli, CLI_ERROR,
			"nothing was removed: a job runs in cloud '%s' (h2ofleet jobs %s)",
			c->h.name, c->h.name);
	if ((uint64_t)MAX(c->idle_ms, (int64_t)0) < c->idle_limit_ms)
		return cli_fail(c->h.cli, CLI_ERROR,
			"nothing was removed: somebody computed in cloud '%s' %s ago, and may be "
			"at work still (--idle %s is asked for; --idle 0: no matter)",
			c->h.name, idle, limit);
	return CLI_OK;
}

/* Who was asked may have thought for long: has anybody begun meanwhile? */
static int check_use_again(struct clean *c)
{
	int64_t idle = c->idle_ms, own, now_idle;
	int code;

	if (c->yes || !c->idle_limit_ms)
		return CLI_OK;
	own = (int64_t)(clock_monotonic_ms() - c->read_at_ms);
	code = read_use(c);
	now_idle = c->idle_ms;
	c->idle_ms = idle;
	if (code == CLI_OK && (c->running_jobs || now_idle + SLACK_MS < own))
		code = cli_fail(c->h.cli, CLI_ERROR,
			"nothing was removed: somebody has computed in cloud '%s' since you were "
			"asked",
			c->h.name);
	return code;
}

static bool asked_yes(void)
{
	char line[16];

	return fgets(line, sizeof(line), stdin) &&
	       (strcasecmp(line, "y\n") == 0 || strcasecmp(line, "yes\n") == 0);
}

static int confirm(const struct clean *c)
{
	struct cli *cli = c->h.cli;

	if (c->yes)
		return CLI_OK;
	if (!isatty(STDIN_FILENO))
		return cli_fail(cli, CLI_ERROR,
			"nothing was removed: there is nobody to ask; --yes says it beforehand");
	if (!cli->json) /* who is to decide sees what there is */
		print_all(c);
	fprintf(cli->err, "Clients that still live lose what is removed. Remove %s? [y/N] ",
		c->all      ? "everything in the cloud"
		: c->models ? (c->frames || c->sessions || c->chosen.n ? "these frames and all "
									 "models"
								       : "all models")
		: c->frames ? "all frames"
			    : "the frames of these sessions");
	fflush(cli->err);
	return asked_yes() ? CLI_OK : cli_fail(cli, CLI_ERROR, "nothing was removed");
}

/* A session of that name must have left something: a typing mistake is to be noticed. */
static int check_chosen(const struct clean *c)
{
	for (size_t i = 0; i < c->chosen.n; i++) {
		const json_t *s;
		bool found = false;
		size_t k;

		json_array_foreach (c->session_list, k, s)
			found |= streq(text_of(s, "id"), c->chosen.v[i]);
		if (!found)
			return cli_fail(c->h.cli, CLI_ERROR,
				"no session '%s' has left anything in cloud '%s'", c->chosen.v[i],
				c->h.name);
	}
	return CLI_OK;
}

static int run(struct clean *c)
{
	bool removes = c->sessions || c->frames || c->models || c->all || c->chosen.n;
	int code = read_all(c);

	if (code != CLI_OK)
		return code;
	if (!removes || !c->locked) {
		say(c, false);
		return CLI_OK;
	}
	code = check_chosen(c);
	if (code == CLI_OK)
		code = check_use(c);
	if (code == CLI_OK)
		code = confirm(c);
	if (code == CLI_OK)
		code = check_use_again(c);
	return code == CLI_OK ? remove_and_tell(c) : code;
}

int cmd_clean(struct cli *cli, int argc, char **argv)
{
	_cleanup_(clean_clear) struct clean c = {.idle_limit_ms = IDLE_DEFAULT_MS};
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	const char *idle = NULL;
	const struct cli_option options[] = {
		{"sessions", 0, &c.sessions, NULL},
		{"session", 0, .values = &c.chosen},
		{"frames", 0, &c.frames, NULL},
		{"models", 0, &c.models, NULL},
		{"all", 0, &c.all, NULL},
		{"idle", 0, NULL, &idle},
		{"yes", 'y', &c.yes, NULL},
	};
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n != 1)
		return cli_usage(cli, words.n ? "one cloud at a time" : "which cloud?");
	if (idle && text_parse_duration(idle, &c.idle_limit_ms) < 0)
		return cli_usage(cli, "'%s' is no time, such as 10m or 2h", idle);
	code = h2o_open(&c.h, cli, words.v[0], false);
	return code == CLI_OK ? run(&c) : code;
}
