/* Jobs, and the recovery of a grid search (h2o-core hex/faulttolerance/Recovery.java).
 *
 * The state of a running grid search lies in the recovery directory as recovery.json and a file of
 * the grid; success removes all of it. Jobs are known only to the node that was asked (in H2O: to
 * all); clients talk to one. */
#include "fake.h"

#include <signal.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"

#define SHORT_JOB_MS 5

static void finish(struct node *n, int64_t slot)
{
	struct job *j = &n->jobs[slot];

	if (j->ended || clock_monotonic_ms() < j->started + j->length)
		return; /* cancelled; another has the slot, maybe */
	j->ended = n->last_job_end = clock_monotonic_ms();
	if (knob(n, KNOB_resume_fail) && strstr(j->description, "Recover")) {
		j->status = "FAILED";
		return;
	}
	j->status = "DONE";
	if (j->recovery_dir)
		file_empty_dir(j->recovery_dir, NULL);
}

static struct job *add_job(struct node *n, const char *key, const char *description, uint64_t ms,
	const char *makes, const char *recovery_dir)
{
	for (int64_t i = 0; i < MAX_JOBS; i++) {
		struct job *j = &n->jobs[i];

		if (j->used && !j->ended)
			continue;
		free(j->recovery_dir);
		*j = (struct job){.used = true,
			.status = "RUNNING",
			.makes = makes,
			.length = ms,
			.started = clock_monotonic_ms(),
			.started_wall = clock_wall_ms(),
			.recovery_dir = xstrdup_null(recovery_dir)};
		snprintf(j->key, sizeof(j->key), "%s", key);
		snprintf(j->description, sizeof(j->description), "%s", description);
		timer_after(ms, finish, i);
		return j;
	}
	return NULL;
}

bool jobs_running(const struct node *n)
{
	for (size_t i = 0; i < MAX_JOBS; i++)
		if (n->jobs[i].used && !n->jobs[i].ended)
			return true;
	return false;
}

void jobs_start_grid(struct node *n, int64_t ms)
{
	static unsigned count;
	const char *dir = n->h2o.auto_recovery_dir;
	_cleanup_free_ char *key = xasprintf("$0301fake_%d_%u$_grid", getpid(), ++count);
	_cleanup_free_ char *json = NULL, *path = NULL, *grid = NULL;

	add_job(n, key, "gbm Grid Build", (uint64_t)ms, "Grid", dir);
	if (!dir)
		return;
	file_mkdirs(dir, 0755, NULL);
	path = xasprintf("%s/recovery.json", dir);
	grid = xasprintf("%s/Grid_fake_%u", dir, count);
	json = xasprintf("{\"class\":\"hex.grid.Grid\",\"jobKey\":\"%s\",\"resultKey\":"
			 "\"Grid_fake_%u\"}",
		key, count);
	file_write_atomic(path, json, strlen(json), 0644, false, NULL);
	file_write_atomic(grid, "grid", 4, 0644, false, NULL);
}

static char *json_string(const char *text, const char *name)
{
	_cleanup_free_ char *quoted = xasprintf("\"%s\"", name);
	const char *p = strstr(text, quoted), *end;

	p = p ? strchr(p + strlen(quoted), '"') : NULL;
	end = p ? strchr(p + 1, '"') : NULL;
	return end ? xstrndup(p + 1, (size_t)(end - p - 1)) : NULL;
}

/* Answers at once and works on behind; whether the directory is there does not matter to it. */
void jobs_resume(struct node *n, struct conn *c)
{
	_cleanup_free_ char *dir = http_param(c, "recovery_dir");
	_cleanup_free_ char *path = NULL, *text = NULL, *key = NULL;
	struct strbuf b = STRBUF_NULL;
	int64_t crash = knob(n, KNOB_resume_crash);

	if (!dir)
		dir = xstrdup_null(n->h2o.auto_recovery_dir);
	if (!dir) {
		rest_error(n, c, 400, "/3/Recovery/resume", "No recovery_dir given",
			"java.lang.IllegalArgumentException");
		return;
	}
	path = xasprintf("%s/recovery.json", dir);
	if (file_read(path, 1 << 20, &text, NULL) == 0) {
		if (crash == 1)
			node_die(n, "Recovery failed");
		if (crash > 1)
			node_raise(n, (int)crash);
		key = json_string(text, "jobKey");
		console_log(n, LVL_INFO, "FJ-1-1", "Initializing recovery from %s", dir);
		add_job(n, key ? key : "$0301fake$_grid", "gbm Grid Build (Recovered)",
			(uint64_t)knob(n, KNOB_resume_ms), "Grid", dir);
	} else {
		console_log(n, LVL_ERROR, "FJ-1-1", "No recovery.json found in %s", dir);
	}
	strbuf_puts(&b, "{");
	view_meta(&b, "ResumeV3", "Iced");
	strbuf_puts(&b, ",\"recovery_dir\":");
	view_add_string(&b, dir);
	strbuf_puts(&b, "}");
	http_reply(n, c, 200, "application/json", "", b.s, b.len);
	strbuf_free(&b);
}

static void add_job_view(const struct node *n, struct strbuf *b, const struct job *j)
{
	uint64_t end = j->ended ? j->ended : clock_monotonic_ms();
	double progress = j->length ? (double)(end - j->started) / (double)j->length : 1;

	strbuf_puts(b, "{");
	view_meta(b, "JobV3", "Job");
	strbuf_puts(b, ",\"key\":{");
	view_meta(b, "JobKeyV3", "Key<Job>");
	strbuf_puts(b, ",\"name\":");
	view_add_string(b, j->key);
	strbuf_puts(b, ",\"type\":\"Key<Job>\",\"URL\":\"/3/Jobs/\"},\"description\":");
	view_add_string(b, j->description);
	strbuf_printf(b,
		",\"status\":\"%s\",\"progress\":%.4f,\"progress_msg\":\"Working...\",\"start_"
		"time\":"
		"%llu,\"msec\":%llu,\"dest\":{\"name\":\"%s_fake\",\"type\":\"Key<%s>\"},"
		"\"warnings\":null,"
		"\"exception\":null,\"stacktrace\":null,\"ready_for_view\":true,"
		"\"auto_recoverable\":%s}",
		j->status, j->ended ? 1.0 : MIN(progress, 0.99),
		(unsigned long long)j->started_wall, (unsigned long long)(end - j->started),
		j->makes, j->makes, n->h2o.auto_recovery_dir ? "true" : "false");
}

/* `wrapped`: in a member "job", as of model builders. */
static void reply_job(struct node *n, struct conn *c, const struct job *j, bool wrapped)
{
	struct strbuf b = STRBUF_NULL;

	strbuf_puts(&b, wrapped ? "{\"job\":" : "");
	add_job_view(n, &b, j);
	strbuf_puts(&b, wrapped ? ",\"messages\":[],\"error_count\":0}" : "");
	http_reply(n, c, 200, "application/json", "", b.s, b.len);
	strbuf_free(&b);
}

static struct job *short_job(struct node *n, const char *what, const char *makes)
{
	static unsigned count;
	_cleanup_free_ char *key = xasprintf("$0301job_%d_%u$_%s", getpid(), ++count, what);

	return add_job(n, key, what, SHORT_JOB_MS, makes, NULL);
}

/* Of the frame only the name and the number of rows are kept. */
void jobs_create_frame(struct node *n, struct conn *c)
{
	_cleanup_free_ char *dest = http_param(c, "dest"), *rows = http_param(c, "rows");

	snprintf(n->frame, sizeof(n->frame), "%s", dest ? dest : "");
	n->frame_rows = rows ? atoll(rows) : 10000;
	reply_job(n, c, short_job(n, "CreateFrame", "Frame"), false);
}

void jobs_build_model(struct node *n, struct conn *c)
{
	_cleanup_free_ char *frame = http_param(c, "training_frame");
	struct job *j;

	if (!frame || !streq(frame, n->frame)) {
		rest_error(n, c, 404, c->rq.path, "Object not found for argument: training_frame",
			"water.exceptions.H2OKeyNotFoundArgumentException");
		return;
	}
	j = short_job(n, "GBM", "Model");
	if (n->archive_mapped && knob(n, KNOB_archive_model)) {
		j->status = "FAILED";
		j->ended = clock_monotonic_ms();
	}
	reply_job(n, c, j, true);
}

static bool has_key(const struct job *j, const char *encoded)
{
	_cleanup_free_ char *plain = xstrdup(j->key);
	char *mark;

	if (streq(encoded, j->key))
		return true;
	/* Clients send '$' as %24. */
	for (; (mark = strstr(encoded, "%24")); encoded = mark + 3) {
		char *dollar = strchr(plain, '$');

		if (!dollar || (size_t)(dollar - plain) != (size_t)(mark - encoded) ||
			strncmp(plain, encoded, (size_t)(mark - encoded)) != 0)
			return false;
		memmove(plain, dollar + 1, strlen(dollar));
	}
	return streq(plain, encoded);
}

/* In strings what a parser of the list could stumble over. */
static void add_old_job(struct strbuf *b, int64_t i)
{
	strbuf_printf(b,
		"{\"key\":{\"name\":\"$03old$_%lld\",\"type\":\"Key<Job>\"},\"description\":\"a "
		"\\\"quoted}]\\\" one\",\"status\":\"FAILED\",\"progress\":0.5,\"progress_msg\":"
		"\"\\\\\",\"start_time\":%lld,\"msec\":10,\"dest\":null,\"warnings\":[\"w\\u001b\"]"
		","
		"\"exception\":\"it \\u0000 broke\\nat x\",\"stacktrace\":\"%0300d\"}",
		(long long)i, 1700000000000ll + (long long)i, 0);
}

/* POST /3/Jobs/KEY/cancel; H2O answers when it has ended, at once here. */
void jobs_cancel(struct node *n, struct conn *c)
{
	const char *path = c->rq.path + strlen(n->h2o.context_path) + strlen("/3/Jobs/");
	_cleanup_free_ char *key = xstrndup(path, strcspn(path, "/"));

	for (size_t i = 0; i < MAX_JOBS; i++) {
		struct job *j = &n->jobs[i];

		if (!j->used || !has_key(j, key))
			continue;
		if (!j->ended) {
			j->ended = n->last_job_end = clock_monotonic_ms();
			j->status = "CANCELLED";
		}
		view_empty(n, c);
		return;
	}
	rest_error(n, c, 400, path, "No job with that key", "java.lang.IllegalArgumentException");
}

/* /3/Jobs and /3/Jobs/KEY; a missing key fails without locking. */
void jobs_view(struct node *n, struct conn *c)
{
	const char *path = c->rq.path + strlen(n->h2o.context_path);
	const char *key = has_prefix(path, "/3/Jobs/") ? path + strlen("/3/Jobs/") : "";
	struct strbuf b = STRBUF_NULL;
	unsigned count = 0;

	strbuf_puts(&b, "{");
	view_meta(&b, "JobsV3", "Iced");
	strbuf_puts(&b, ",\"_exclude_fields\":\"\",\"job_id\":null,\"jobs\":[");
	for (size_t i = 0; i < MAX_JOBS; i++) {
		if (!n->jobs[i].used || (*key && !has_key(&n->jobs[i], key)))
			continue;
		if (count++)
			strbuf_puts(&b, ",");
		add_job_view(n, &b, &n->jobs[i]);
	}
	for (int64_t i = 0; !*key && i < knob(n, KNOB_old_jobs); i++) {
		if (count++)
			strbuf_puts(&b, ",");
		add_old_job(&b, i);
	}
	strbuf_puts(&b, "]}");
	if (*key && count == 0)
		rest_error(n, c, 400, path, "Job is missing", "java.lang.IllegalArgumentException");
	else
		http_reply(n, c, 200, "application/json", "", b.s, b.len);
	strbuf_free(&b);
}
