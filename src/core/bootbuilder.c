#include "core/bootbuilder.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "drv/bootbuild.h"
#include "drv/bootentry.h"
#include "drv/machine.h"
#include "drv/runtime.h"

/* On an idle machine it takes half a minute; at idle priority on a busy one it may take for ever.
 */
#define BUILD_TIMEOUT_MS (30 * 60000)
/* It has nothing to lose, and kills its nodes. */
#define GRACE_MS 2000
/* An interrupted attempt is followed by the next after twice the calm. */
#define CALM_MIN_MS UINT64_C(1000)
#define CALM_MAX_MS UINT64_C(600000)
/* After a failure; doubled with each. */
#define RETRY_MS     UINT64_C(60000)
#define RETRY_MAX_MS UINT64_C(3600000)
/* While somebody else builds in the same cache. */
#define BUSY_MS 60000
/* Two small JVMs, and what they read (the jar, the archive). */
#define MEMORY_NEEDED (1ull << 30)
#define MEMORY_MS     10000
/* Of some runtimes: libraries and archive take 0.3 GB. */
#define CACHE_MAX (2ull << 30)

/* What is to be made. */
struct job {
	char *cloud;                        /* owned: that will need it */
	char *key;                          /* owned: see key_of() */
	char *what;                         /* owned: in words */
	struct runtime rt;                  /* owned */
	char *extra_classpath, *main_class; /* owned */
	struct boot_runtime runtime;        /* of these */
	bool native_only;
	bool again; /* though there is one */
};

/* What has become of earlier ones. */
struct attempt {
	struct attempt *next;
	char *key; /* owned */
	unsigned failures;
	uint64_t retry_ms;
	bool over; /* it went well, and did not help */
};

struct bootbuilder {
	struct command *command; /* at work; NULL: none */
	struct job job;          /* then: at what */
	bool ending;             /* it was told to end */
	char *why_ended;         /* owned */
	uint64_t begun_ms;
	char *step;           /* owned: the newest line of it */
	bool wanted;          /* something may be lacking */
	uint64_t calm_ms;     /* since when all clouds are; 0: they are not */
	unsigned interrupted; /* attempts in a row */
	uint64_t not_before_ms;
	struct attempt *attempts;
	struct {
		const char *result;
		char *cloud, *why; /* owned */
		uint64_t wall_ms, duration_ms;
	} last;
};

static void job_clear(struct job *j)
{
	free(j->cloud);
	free(j->key);
	free(j->what);
	runtime_clear(&j->rt);
	free(j->extra_classpath);
	free(j->main_class);
	*j = (struct job){0};
}

void bootbuilder_new(struct fleet *f)
{
	f->bootbuilder = xcalloc(1, sizeof(*f->bootbuilder));
	f->bootbuilder->wanted = true; /* by clouds that are adopted */
}

void bootbuilder_free(struct fleet *f)
{
	struct bootbuilder *b = TAKE_PTR(f->bootbuilder);

	if (b->command)
		command_end_alone(b->command, GRACE_MS);
	while (b->attempts) {
		struct attempt *a = b->attempts;

		b->attempts = a->next;
		free(a->key);
		free(a);
	}
	job_clear(&b->job);
	free(b->step);
	free(b->why_ended);
	free(b->last.cloud);
	free(b->last.why);
	free(b);
}

void bootbuilder_wake(struct fleet *f)
{
	f->bootbuilder->wanted = true;
	f->bootbuilder->not_before_ms = 0;
}

/* ---- what is lacking ---- */

/* By which it is known again: another jar at the same place is another one. Owned by the caller;
 * NULL: jar or JVM went just now. */
static char *key_of(const struct boot_runtime *rt, const struct boot_wish *wish)
{
	_cleanup_(boot_identity_clear) struct boot_identity id = {0};

	if (boot_identity_of(rt, &id, NULL) < 0)
		return NULL;
	return xasprintf("%s %s", id.key, wish->archive ? "archive" : "native");
}

static struct attempt *attempt_of(struct bootbuilder *b, const char *key)
{
	struct attempt *a = b->attempts;

	while (a && !streq(a->key, key))
		a = a->next;
	if (a)
		return a;
	a = xcalloc(1, sizeof(*a));
	a->key = xstrdup(key);
	a->next = b->attempts;
	return b->attempts = a;
}

/* As for the next generation: an adopted one was launched by a daemon that knew what with. Not that
 * a JVM is run for it. */
static int find_runtime(const struct supervised *s, struct runtime *out)
{
	const struct cloud_conf *conf = s->cloud->conf;
	int r;

	if (s->runtime.jar) {
		*out = (struct runtime){
			.java = xstrdup(s->runtime.java),
			.java_version = xstrdup_null(s->runtime.java_version),
			.java_major = s->runtime.java_major,
			.jar = xstrdup(s->runtime.jar),
			.h2o_version = xstrdup_null(s->runtime.h2o_version),
		};
		return 0;
	}
	*out = (struct runtime){0};
	r = runtime_find_java(conf->java, NULL, &out->java, NULL);
	if (r == 0)
		r = runtime_java_release(out->java, &out->java_major, &out->java_version);
	if (r == 0)
		r = runtime_find_jar(conf->jar_path, NULL, &out->jar, NULL);
	return r;
}

/* What the cloud's runtime lacks, if it may be made now: true. *later: when it may, otherwise. */
static bool lacks(struct fleet *f, struct supervised *s, struct job *j, uint64_t *later)
{
	_cleanup_(boot_found_clear) struct boot_found found = {0};
	struct attempt *a;
	struct boot_wish wish;
	struct boot_runtime rt;
	bool archive;

	boot_wish_of(s, &wish);
	if ((!wish.native && !wish.archive) || find_runtime(s, &j->rt) < 0)
		return false;
	rt = boot_runtime_of(s, &j->rt);
	if (bootcache_find(f->conf->fleet.cache_dir, &rt, &found, NULL) < 0)
		return false;
	j->again = s->boot.anew && found.verdict == BOOT_TRUSTED;
	archive = wish.archive && (found.verdict == BOOT_UNKNOWN || j->again);
	if (!archive && (!wish.native || found.native_done))
		return false;
	j->key = key_of(&rt, &wish);
	if (!j->key)
		return false;
	a = attempt_of(f->bootbuilder, j->key);
	if (a->over)
		return false;
	if (fleet_now(f) < a->retry_ms) {
		*later = MIN(*later, a->retry_ms);
		return false;
	}
	j->cloud = xstrdup(s->cloud->conf->name);
	j->runtime = rt;
	j->runtime.extra_classpath = j->extra_classpath = xstrdup_null(rt.extra_classpath);
	j->runtime.main_class = j->main_class = xstrdup_null(rt.main_class);
	j->native_only = !archive;
	j->what = xasprintf("cloud %s (Java %s%s%s)", j->cloud,
		j->rt.java_version ? j->rt.java_version : "", j->rt.h2o_version ? ", H2O " : "",
		j->rt.h2o_version ? j->rt.h2o_version : "");
	return true;
}

/* Do they ask for the same? Most clouds of a fleet do; only one of them is looked at. */
static bool is_like(const struct supervised *a, const struct supervised *b)
{
	const struct cloud_conf *x = a->cloud->conf, *y = b->cloud->conf;
	struct boot_wish wx, wy;

	boot_wish_of(a, &wx);
	boot_wish_of(b, &wy);
	return wx.native == wy.native && wx.archive == wy.archive && streq_null(x->java, y->java) &&
	       streq_null(x->jar_path, y->jar_path) &&
	       streq_null(a->runtime.java, b->runtime.java) &&
	       streq_null(a->runtime.jar, b->runtime.jar) &&
	       streq_null(x->extra_classpath, y->extra_classpath) &&
	       streq_null(x->main_class, y->main_class) && x->nodes == y->nodes &&
	       x->max_mem_size.kind == y->max_mem_size.kind &&
	       x->max_mem_size.value == y->max_mem_size.value && !a->boot.anew && !b->boot.anew;
}

static bool is_ready(const struct supervised *s)
{
	return s->cloud->state == CLOUD_READY && !s->cloud->removed;
}

/* The first of the ready clouds that lacks something. False: none that may have it now. *later:
 * when one may; UINT64_MAX: no cloud lacks anything; 0: none is ready. */
static bool choose(struct fleet *f, struct job *j, uint64_t *later)
{
	const struct supervised *before = NULL;

	*later = UINT64_MAX;
	for (size_t i = 0; i < f->n; i++) {
		struct supervised *s = f->clouds[i];

		if (!is_ready(s) || (before && is_like(before, s)))
			continue;
		*j = (struct job){0};
		if (lacks(f, s, j, later))
			return true;
		job_clear(j);
		before = s;
	}
	if (!before)
		*later = 0;
	return false;
}

/* ---- at work ---- */

void bootbuilder_env(const struct fleet *f, struct strv *env)
{
	plan_clean_env(environ, env);
	strv_printf(env, "%s=%s/%s", TOKEN_ENV, f->id, BOOT_TOKEN);
}

/* What it has come to, for the status and the log. */
static void note(struct bootbuilder *b, const char *result, const char *why)
{
	b->last.result = result;
	replace_str(&b->last.cloud, b->job.cloud);
	replace_str(&b->last.why, why);
	b->last.wall_ms = clock_wall_ms();
	b->last.duration_ms = clock_monotonic_ms() - b->begun_ms;
}

static void emit(struct fleet *f, const char *type, json_t *extra, const char *sentence)
{
	struct bootbuilder *b = f->bootbuilder;

	log_notice("boot cache: %s", sentence);
	fleet_event(f, type, fleet_find(f, b->job.cloud), -1, extra, "boot cache: %s", sentence);
}

static void failed(struct fleet *f, const char *why)
{
	struct bootbuilder *b = f->bootbuilder;
	struct attempt *a = attempt_of(b, b->job.key);
	uint64_t delay = RETRY_MS << (a->failures < 10 ? a->failures : 10);
	_cleanup_free_ char *sentence = xasprintf("for %s: %s", b->job.what, why);

	a->failures++;
	a->retry_ms = fleet_now(f) + MIN(delay, RETRY_MAX_MS);
	note(b, "failed", why);
	if (a->failures == 1) /* then it is listed as a trouble */
		fleet_event(f, "boot-cache-failed", fleet_find(f, b->job.cloud), -1,
			json_pack("{s:o}", "why", emit_text_json(why)),
			"boot cache: it could not be made %s", sentence);
	trouble_set(f, TROUBLE_BOOT, NULL, sentence);
}

static bool anyone_fails(const struct bootbuilder *b)
{
	const struct attempt *a = b->attempts;

	while (a && !a->failures)
		a = a->next;
	return a;
}

static void made(struct fleet *f)
{
	struct bootbuilder *b = f->bootbuilder;
	struct supervised *s = supervised_find(f, b->job.cloud);
	_cleanup_(boot_found_clear) struct boot_found found = {0};
	_cleanup_free_ char *sentence = NULL, *time = NULL;
	struct attempt *a = attempt_of(b, b->job.key);
	bool refused;

	if (s)
		s->boot.anew = false;
	bootcache_find(f->conf->fleet.cache_dir, &b->job.runtime, &found, NULL);
	refused = !b->job.native_only && found.verdict == BOOT_REFUSED;
	a->failures = 0;
	a->over = !found.native_done || (!b->job.native_only && found.verdict == BOOT_UNKNOWN);
	b->interrupted = 0;
	note(b, refused ? "refused" : "ready", refused ? found.why : NULL);
	time = text_human_duration(b->last.duration_ms);
	sentence = refused ? xasprintf("the archive that was made for %s is not used: %s",
				     b->job.what, found.why ? found.why : "no reason is known")
			   : xasprintf("made in %s for %s", time, b->job.what);
	emit(f, refused ? "boot-cache-refused" : "boot-cache-ready",
		json_pack("{s:I, s:o}", "duration_ms", (json_int_t)b->last.duration_ms, "why",
			emit_text_json(b->last.why)),
		sentence);
	if (!anyone_fails(b))
		trouble_clear(f, TROUBLE_BOOT, NULL);
}

/* The last line of what it has printed, also one that is not complete yet; owned by the caller. */
static char *last_line(const char *output)
{
	size_t n = strlen(output), begin;

	while (n && output[n - 1] == '\n')
		n--;
	for (begin = n; begin && output[begin - 1] != '\n'; begin--)
		continue;
	return xstrndup(output + begin, n - begin);
}

static void on_built(int exit_code, int exec_errno, const char *output, void *arg)
{
	struct fleet *f = arg;
	struct bootbuilder *b = f->bootbuilder;
	_cleanup_free_ char *said = last_line(output);

	b->command = NULL;
	b->wanted = true; /* there may be more to be made */
	free(TAKE_PTR(b->step));
	if (exec_errno)
		failed(f, strerror(exec_errno));
	else if (exit_code == 0 || exit_code == BOOT_EXIT_REFUSED)
		made(f);
	else if (b->ending)
		note(b, "interrupted", b->why_ended);
	else if (exit_code == BOOT_EXIT_BUSY)
		b->not_before_ms = fleet_now(f) + BUSY_MS;
	else if (exit_code < 0)
		failed(f, "its process was killed, or did not end");
	else
		failed(f, *said ? said : "its process says nothing");
	job_clear(&b->job);
	fleet_check_done(f);
}

static void begin(struct fleet *f)
{
	struct bootbuilder *b = f->bootbuilder;
	_cleanup_free_ char *sentence = xasprintf("it is being made for %s", b->job.what);
	_cleanup_(strv_free) struct strv argv = STRV_NULL, env = STRV_NULL;
	struct boot_build rq = {
		.cache_dir = f->conf->fleet.cache_dir,
		.runtime = b->job.runtime,
		.native_only = b->job.native_only,
		.again = b->job.again,
		.idle = true,
		.max_total = CACHE_MAX,
	};
	int r;

	strv_take(&argv, command_own_program());
	strv_add(&argv, "--build-boot-cache");
	bootbuild_add_args(&rq, &argv);
	bootbuilder_env(f, &env);
	b->begun_ms = clock_monotonic_ms();
	b->ending = false;
	r = command_run(f->loop, argv.v, env.v, BUILD_TIMEOUT_MS, on_built, f, &b->command);
	if (r < 0) {
		failed(f, strerror(-r));
		job_clear(&b->job);
		return;
	}
	emit(f, "boot-cache-building", NULL, sentence);
}

/* ---- when ---- */

static bool is_calm(const struct cloud *c)
{
	switch (c->state) {
	case CLOUD_READY:
		return true;
	case CLOUD_STOPPED:
	case CLOUD_FAILED:
		return cloud_quiet(c);
	case CLOUD_STARTING:
	case CLOUD_FORMING:
	case CLOUD_DEGRADED: /* perhaps for want of the machine's time */
	case CLOUD_RECOVERING:
	case CLOUD_STOPPING:
	case CLOUD_BACKOFF:
		break;
	}
	return false;
}

static bool all_are_calm(const struct fleet *f)
{
	for (size_t i = 0; i < f->n; i++)
		if (!is_calm(f->clouds[i]->cloud))
			return false;
	return true;
}

static void interrupt(struct bootbuilder *b, const char *why)
{
	if (!b->command || b->ending)
		return;
	log_info("boot cache: whoever makes it for %s is ended: %s", b->job.what, why);
	b->ending = true;
	replace_str(&b->why_ended, why);
	command_end(b->command, GRACE_MS);
}

void bootbuilder_look(struct supervised *s)
{
	struct bootbuilder *b = s->fleet->bootbuilder;
	_cleanup_free_ char *why = NULL;

	if (is_calm(s->cloud))
		return;
	b->calm_ms = 0;
	if (!b->command || b->ending)
		return;
	why = xasprintf("cloud %s is %s", s->cloud->conf->name, cloud_state_name(s->cloud->state));
	b->interrupted++;
	interrupt(b, why);
}

bool bootbuilder_is_at_work(const struct fleet *f)
{
	return f->bootbuilder->command;
}

bool bootbuilder_end(struct fleet *f, bool at_once)
{
	struct bootbuilder *b = f->bootbuilder;

	interrupt(b, "the daemon ends");
	if (b->command && at_once)
		command_end(b->command, 0);
	return !b->command;
}

/* A reload may have taken the cloud, or its wish. */
static bool is_still_wanted(const struct fleet *f)
{
	const struct job *j = &f->bootbuilder->job;
	const struct supervised *s = supervised_find(f, j->cloud);
	struct boot_wish wish;

	if (!s || s->cloud->removed)
		return false;
	boot_wish_of(s, &wish);
	return j->native_only ? wish.native : wish.archive;
}

static void watch(struct fleet *f)
{
	struct bootbuilder *b = f->bootbuilder;

	free(b->step);
	b->step = last_line(command_output(b->command));
	if (!is_still_wanted(f))
		interrupt(b, "nobody wants it any more");
}

/* For how long all must have been calm. */
static uint64_t calm_needed(const struct fleet *f)
{
	uint64_t delay = f->conf->fleet.fast_boot_delay_ms, longer;
	unsigned n = f->bootbuilder->interrupted;

	if (n == 0)
		return delay;
	longer = MAX(delay, CALM_MIN_MS) << (n < 16 ? n : 16);
	longer = MIN(longer, CALM_MAX_MS);
	return MAX(delay, longer);
}

static bool may_begin(struct fleet *f)
{
	struct bootbuilder *b = f->bootbuilder;
	uint64_t now = fleet_now(f);

	if (!b->wanted || f->ending || f->strays || now < b->not_before_ms)
		return false;
	if (!all_are_calm(f)) {
		b->calm_ms = 0;
		return false;
	}
	if (!b->calm_ms)
		b->calm_ms = now;
	if (now - b->calm_ms < calm_needed(f))
		return false;
	if (machine_memory_available() >= MEMORY_NEEDED)
		return true;
	log_debug("boot cache: there is no memory left to make it");
	b->not_before_ms = now + MEMORY_MS;
	return false;
}

void bootbuilder_beat(struct fleet *f)
{
	struct bootbuilder *b = f->bootbuilder;
	uint64_t later;

	if (b->command)
		watch(f);
	if (b->command || !may_begin(f))
		return;
	if (choose(f, &b->job, &later)) {
		begin(f);
		return;
	}
	b->wanted = later != 0 && later != UINT64_MAX;
	b->not_before_ms = later;
	if (later == UINT64_MAX)
		trouble_clear(f, TROUBLE_BOOT, NULL);
}

void fleet_boot_cache(const struct fleet *f, struct fleet_boot_cache *out)
{
	const struct bootbuilder *b = f->bootbuilder;

	*out = (struct fleet_boot_cache){
		.building = b->command ? b->job.what : NULL,
		.step = b->step,
		.last = {b->last.result, b->last.cloud, b->last.why, b->last.wall_ms,
			b->last.duration_ms},
	};
}
