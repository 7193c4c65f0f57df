/* `h2ofleet prepare`: fills the boot cache (drv/bootcache.h) without a daemon, for images and
 * packages. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "cli/checks.h"
#include "cli/show.h"
#include "conf/conf.h"
#include "drv/bootbuild.h"
#include "drv/machine.h"
#include "drv/runtime.h"
#include "model/plan.h"

/* A runtime, and whose it is. */
struct target {
	char *java, *jar; /* owned; NULL where it was not found: `failure` */
	char *extra_classpath, *main_class;
	int java_major;
	bool big_heap;
	bool native_only;
	struct strv clouds;
	char *failure; /* owned */
};

struct prepare {
	struct cli *cli;
	const char *config, *jar, *java, *memory, *timeout;
	bool native_only, again, list, clear;
	struct strv words, env;
	struct conf *conf;
	struct target *targets;
	size_t n_targets;
	json_t *done; /* of --json */
	bool drawn;   /* a line that is redrawn is on the screen */
};

static void target_clear(struct target *t)
{
	free(t->java);
	free(t->jar);
	free(t->extra_classpath);
	free(t->main_class);
	free(t->failure);
	strv_free(&t->clouds);
}

static void prepare_clear(struct prepare *p)
{
	for (size_t i = 0; i < p->n_targets; i++)
		target_clear(&p->targets[i]);
	free(p->targets);
	strv_free(&p->words);
	strv_free(&p->env);
	conf_freep(&p->conf);
	json_decref(p->done);
}

/* --- which runtimes ----------------------------------------------------------------------- */

/* By its `release` file, else by asking it. */
static int find_java_major(const char *java, int *major, struct err *e)
{
	_cleanup_free_ char *version = NULL;

	return runtime_java_release(java, major, &version) == 0
		       ? 0
		       : doctor_java_version(java, major, &version, e);
}

static int find_runtime(struct target *t, const char *java, const char *jar, struct err *e)
{
	int r = runtime_find_jar(jar, NULL, &t->jar, e);

	if (r == 0)
		r = runtime_find_java(java, NULL, &t->java, e);
	return r == 0 ? find_java_major(t->java, &t->java_major, e) : r;
}

static bool is_same(const struct target *a, const struct target *b)
{
	return !a->failure && !b->failure && streq(a->java, b->java) && streq(a->jar, b->jar) &&
	       streq_null(a->extra_classpath, b->extra_classpath) &&
	       streq_null(a->main_class, b->main_class) && a->big_heap == b->big_heap;
}

/* Takes it over; clouds with the same runtime share one. */
static void add_target(struct prepare *p, struct target *t)
{
	for (size_t i = 0; i < p->n_targets; i++)
		if (is_same(&p->targets[i], t)) {
			strv_copy(&p->targets[i].clouds, &t->clouds);
			p->targets[i].native_only &= t->native_only;
			target_clear(t);
			return;
		}
	p->targets = xreallocarray(p->targets, p->n_targets + 1, sizeof(*p->targets));
	p->targets[p->n_targets++] = *t;
}

static void add_cloud(struct prepare *p, const struct cloud_conf *c)
{
	const struct machine_facts machine = {
		.mem_bytes = machine_memory(), .cores = machine_cores()};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct target t = {0};
	struct boot_wish wish;
	uint64_t xmx = 0, xms;

	plan_boot(c, &wish);
	t.native_only = p->native_only || !wish.archive;
	strv_add(&t.clouds, c->name);
	t.extra_classpath = xstrdup_null(c->extra_classpath);
	t.main_class = xstrdup_null(c->main_class);
	if (find_runtime(&t, p->java ? p->java : c->java, p->jar ? p->jar : c->jar_path, &e) < 0)
		t.failure = xstrdup(err_msg(&e));
	else if (plan_memory(c, &machine, &xmx, &xms, NULL) == 0)
		t.big_heap = boot_heap_is_big(xmx, machine.mem_bytes);
	add_target(p, &t);
}

static int add_named_runtime(struct prepare *p)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct target t = {.native_only = p->native_only};
	uint64_t xmx = 0;

	if (p->memory && text_parse_size(p->memory, &xmx) < 0)
		return cli_usage(p->cli, "--memory takes a size such as 2g, not '%s'", p->memory);
	if (find_runtime(&t, p->java, p->jar, &e) < 0)
		t.failure = xstrdup(err_msg(&e));
	t.big_heap = boot_heap_is_big(xmx, machine_memory());
	add_target(p, &t);
	return CLI_OK;
}

static const struct cloud_conf *find_cloud(const struct conf *conf, const char *name)
{
	for (size_t i = 0; i < conf->n_clouds; i++)
		if (streq(conf->clouds[i]->name, name))
			return conf->clouds[i];
	return NULL;
}

static int find_targets(struct prepare *p)
{
	if ((p->jar || p->java) && !p->words.n)
		return add_named_runtime(p);
	if (p->memory)
		return cli_usage(p->cli, "--memory goes with --jar or --java");
	for (size_t i = 0; i < p->words.n; i++) {
		const struct cloud_conf *c = find_cloud(p->conf, p->words.v[i]);

		if (!c)
			return cli_fail(p->cli, CLI_ABSENT, "no cloud %s in the configuration",
				p->words.v[i]);
		add_cloud(p, c);
	}
	for (size_t i = 0; !p->words.n && i < p->conf->n_clouds; i++) {
		const struct cloud_conf *c = p->conf->clouds[i];

		if (c->fast_boot != BOOT_NO)
			add_cloud(p, c);
		else if (!p->cli->json)
			fprintf(p->cli->out, "%s: nothing to prepare: fast_boot = no\n", c->name);
	}
	return CLI_OK;
}

/* --- building ----------------------------------------------------------------------------- */

static void on_progress(unsigned step, unsigned steps, const char *what, void *arg)
{
	struct prepare *p = arg;
	FILE *f = p->cli->err;

	if (p->cli->live)
		fprintf(f, "\r%u/%u %s\033[K", step, steps, what);
	else
		fprintf(f, "%u/%u %s\n", step, steps, what);
	fflush(f);
	p->drawn = p->cli->live;
}

static void end_progress(struct prepare *p)
{
	if (p->drawn)
		fputs("\r\033[K", p->cli->err);
	p->drawn = false;
}

/* What the verdict of a found entry says; to be decref'ed; NULL when there is none. */
static json_t *entry_of(const struct prepare *p, const struct boot_found *found)
{
	json_t *all = bootcache_list(p->conf->fleet.cache_dir), *entry, *mine = NULL;
	size_t i;

	json_array_foreach (all, i, entry)
		if (found->dir &&
			streq_null(found->dir, json_string_value(json_object_get(entry, "path"))))
			mine = json_incref(entry);
	json_decref(all);
	return mine;
}

static char *seconds(const json_t *measured, const char *key)
{
	return xasprintf(
		"%.1f s", (double)json_integer_value(json_object_get(measured, key)) / 1000);
}

/* "dev, exp: " */
static char *whose(const struct target *t)
{
	struct strbuf b = STRBUF_NULL;

	for (size_t i = 0; i < t->clouds.n; i++)
		strbuf_printf(&b, "%s%s", i ? ", " : "", t->clouds.v[i]);
	if (!t->clouds.n)
		strbuf_puts(&b, t->jar ? t->jar : "h2o.jar");
	return strbuf_take(&b);
}

static char *visible(const char *s)
{
	return s ? text_visible(s, strlen(s)) : xstrdup("");
}

static void print_found(
	const struct prepare *p, const struct target *t, const struct boot_found *found)
{
	_cleanup_free_ char *name = whose(t), *shown = NULL, *native = NULL;
	json_t *verdict = entry_of(p, found);
	const json_t *measured = json_object_get(verdict, "measured");
	_cleanup_free_ char *fast = seconds(measured, "ready_ms");
	_cleanup_free_ char *plain = seconds(measured, "plain_ready_ms");
	FILE *f = p->cli->out;

	shown = visible(found->why);
	native = visible(found->native_why);
	if (t->native_only)
		fprintf(f, "%s: %s\n", name,
			found->library_path ? "the native libraries are unpacked"
			: *native           ? native
					    : "the jar has no native libraries for this machine");
	else if (found->verdict == BOOT_TRUSTED && measured)
		fprintf(f, "%s: prepared; a node was ready in %s instead of %s\n", name, fast,
			plain);
	else if (found->verdict == BOOT_TRUSTED)
		fprintf(f, "%s: prepared, in %s\n", name, found->dir);
	else if (found->verdict == BOOT_UNSUPPORTED)
		fprintf(f, "%s: native libraries only: %s\n", name, shown);
	else
		fprintf(f, "%s: the archive is refused, nodes start without: %s\n", name, shown);
	if (*native && !t->native_only)
		fprintf(f, "%s: no native libraries are kept: %s\n", name, native);
	json_decref(verdict);
}

static json_t *found_json(
	const struct prepare *p, const struct target *t, const struct boot_found *found)
{
	json_t *clouds = json_array(), *verdict = entry_of(p, found), *j;

	for (size_t i = 0; i < t->clouds.n; i++)
		json_array_append_new(clouds, json_string(t->clouds.v[i]));
	j = json_pack("{s:o, s:s?, s:s?, s:s, s:s?, s:s?, s:s?, s:s?, s:O?}", "clouds", clouds,
		"jar", t->jar, "java", t->java, "verdict", boot_verdict_name(found->verdict), "why",
		found->why, "library_path", found->library_path, "native_why", found->native_why,
		"archive", found->archive, "measured", json_object_get(verdict, "measured"));
	json_decref(verdict);
	return j;
}

static void set_failure(struct target *t, const char *sentence)
{
	replace_str(&t->failure, sentence);
}

static int exit_of(int r)
{
	return r == -EINTR ? CLI_INTERRUPTED : r == -EBUSY ? CLI_BUSY : CLI_ERROR;
}

static int report_failure(struct prepare *p, const struct target *t, int r)
{
	_cleanup_free_ char *name = whose(t);
	json_t *clouds = json_array();

	for (size_t i = 0; i < t->clouds.n; i++)
		json_array_append_new(clouds, json_string(t->clouds.v[i]));
	json_array_append_new(p->done, json_pack("{s:o, s:s?, s:s?, s:s}", "clouds", clouds, "jar",
					       t->jar, "java", t->java, "error", t->failure));
	return cli_fail(p->cli, exit_of(r), "%s: %s", name, t->failure);
}

static int prepare_one(struct prepare *p, struct target *t)
{
	_cleanup_(boot_found_clear) struct boot_found found = {0};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct boot_build rq = {.cache_dir = p->conf->fleet.cache_dir,
		.runtime = {.java = t->java,
			.java_major = t->java_major,
			.jar = t->jar,
			.extra_classpath = t->extra_classpath,
			.main_class = t->main_class,
			.big_heap = t->big_heap},
		.native_only = t->native_only,
		.again = p->again,
		.env = p->env.v,
		.progress = on_progress,
		.arg = p};
	int r;

	if (t->failure)
		return report_failure(p, t, -ENOENT);
	if (p->timeout && text_parse_duration(p->timeout, &rq.node_timeout_ms) < 0)
		return cli_usage(
			p->cli, "--timeout takes a time such as 90s, not '%s'", p->timeout);
	r = bootcache_build(&rq, &found, &e);
	end_progress(p);
	if (r < 0) {
		set_failure(t, err_msg(&e));
		return report_failure(p, t, r);
	}
	json_array_append_new(p->done, found_json(p, t, &found));
	if (!p->cli->json)
		print_found(p, t, &found);
	return found.verdict == BOOT_REFUSED && !t->native_only ? CLI_FAILED : CLI_OK;
}

static int prepare_all(struct prepare *p)
{
	int code = find_targets(p);

	if (code == CLI_OK && p->n_targets == 0 && p->conf->n_clouds == 0)
		return cli_fail(p->cli, CLI_ERROR,
			"the configuration has no cloud; name a runtime with --jar and --java");
	p->done = json_array();
	for (size_t i = 0; i < p->n_targets && code != CLI_INTERRUPTED && code != CLI_USAGE; i++) {
		int one = prepare_one(p, &p->targets[i]);

		code = one == CLI_INTERRUPTED || one == CLI_USAGE ? one : cli_worse(code, one);
	}
	if (p->cli->json && p->n_targets && code != CLI_USAGE) {
		json_t *j = json_pack(
			"{s:s, s:O}", "cache_dir", p->conf->fleet.cache_dir, "runtimes", p->done);

		cli_json(p->cli, j);
		json_decref(j);
	}
	return code;
}

/* --- what is there ------------------------------------------------------------------------ */

static char *age_of(int64_t since_ms)
{
	int64_t now = (int64_t)clock_wall_ms();

	return since_ms > 0 ? text_human_duration(
				      (uint64_t)MAX(now - since_ms, (int64_t)1000) / 1000 * 1000)
			    : xstrdup("-");
}

static const char *state_of(const json_t *entry, bool native)
{
	const char *verdict = json_string_value(json_object_get(entry, "verdict"));

	if (!json_is_true(json_object_get(entry, "current")))
		return "stale";
	if (native)
		return json_object_get(entry, "why") ? "none" : "unpacked";
	return verdict ? verdict : "-";
}

static void add_row(struct strv *cells, const json_t *entry)
{
	bool native = streq_null(json_string_value(json_object_get(entry, "kind")), "native");
	_cleanup_free_ char *jar = show_text(entry, "jar"), *why = show_text(entry, "why");
	_cleanup_free_ char *h2o = show_text(entry, "h2o_version");
	_cleanup_free_ char *java = show_text(entry, "java_version");
	_cleanup_free_ char *size = text_human_size((uint64_t)show_int(entry, "bytes", 0));
	_cleanup_free_ char *made = age_of(show_int(entry, "made", 0) * 1000);
	_cleanup_free_ char *used = age_of(show_int(entry, "used_ms", 0));
	const char *path = jar ? jar : "-";

	strv_add(cells, native ? "libraries" : "archive");
	strv_add(cells, state_of(entry, native));
	strv_add(cells, size);
	strv_add(cells, made);
	strv_add(cells, used);
	if (native)
		strv_printf(cells, "%s%s%s", path, why ? ": " : "", why ? why : "");
	else
		strv_printf(cells, "%s (H2O %s), Java %s%s%s", path, h2o && *h2o ? h2o : "?",
			java && *java ? java : "?", why ? ": " : "", why ? why : "");
}

static int list(struct prepare *p)
{
	static const char *const heads[] = {"WHAT", "VERDICT", "SIZE", "AGE", "UNUSED", "RUNTIME"};
	json_t *entries = bootcache_list(p->conf->fleet.cache_dir), *entry;
	_cleanup_(strv_free) struct strv cells = STRV_NULL;
	size_t i;

	if (p->cli->json) {
		json_t *j = json_pack(
			"{s:s, s:o}", "cache_dir", p->conf->fleet.cache_dir, "entries", entries);

		cli_json(p->cli, j);
		json_decref(j);
		return CLI_OK;
	}
	for (i = 0; i < ARRAY_SIZE(heads); i++)
		strv_add(&cells, heads[i]);
	json_array_foreach (entries, i, entry)
		add_row(&cells, entry);
	if (json_array_size(entries))
		show_grid(p->cli->out, &cells, ARRAY_SIZE(heads), 0);
	else
		fprintf(p->cli->out, "nothing is prepared in %s\n", p->conf->fleet.cache_dir);
	json_decref(entries);
	return CLI_OK;
}

static int clear(struct prepare *p)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	const char *cache = p->conf->fleet.cache_dir;
	_cleanup_free_ char *size = NULL;
	uint64_t bytes;
	int r = bootcache_clear(cache, &bytes, &e);

	if (r < 0)
		return cli_fail(p->cli, exit_of(r), "%s", err_msg(&e));
	size = text_human_size(bytes);
	if (p->cli->json) {
		json_t *j = json_pack(
			"{s:s, s:I}", "cache_dir", cache, "removed_bytes", (json_int_t)bytes);

		cli_json(p->cli, j);
		json_decref(j);
	} else {
		fprintf(p->cli->out, "removed %s from %s\n", size, cache);
	}
	return CLI_OK;
}

/* --- the command -------------------------------------------------------------------------- */

static int load(struct prepare *p)
{
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	int r = conf_load(p->config, &p->conf, &errors);

	if (r == 0)
		return CLI_OK;
	p->conf = NULL;
	for (size_t i = 0; i < errors.list.n; i++)
		cli_fail(p->cli, CLI_ERROR, "%s", errors.list.v[i]);
	if (!errors.list.n)
		cli_fail(p->cli, CLI_ERROR, "%s: %s",
			p->config ? p->config : "the configuration cannot be read", strerror(-r));
	return CLI_ERROR;
}

int cmd_prepare(struct cli *cli, int argc, char **argv)
{
	_cleanup_(prepare_clear) struct prepare p = {.cli = cli};
	const struct cli_option options[] = {
		{"config", 'c', NULL, &p.config, NULL},
		{"jar", 0, NULL, &p.jar, NULL},
		{"java", 0, NULL, &p.java, NULL},
		{"memory", 'm', NULL, &p.memory, NULL},
		{"native-only", 0, &p.native_only, NULL, NULL},
		{"again", 0, &p.again, NULL, NULL},
		{"timeout", 0, NULL, &p.timeout, NULL},
		{"list", 'l', &p.list, NULL, NULL},
		{"clear", 0, &p.clear, NULL, NULL},
	};
	int code;

	if (cli_parse(cli, argc, argv, options, ARRAY_SIZE(options), &p.words) != CLI_OK)
		return CLI_USAGE;
	if (p.list + p.clear > 1 || ((p.list || p.clear) && p.words.n))
		return cli_usage(cli, "--list and --clear are for the whole cache");
	plan_clean_env(environ, &p.env);
	code = load(&p);
	if (code != CLI_OK)
		return code;
	return p.list ? list(&p) : p.clear ? clear(&p) : prepare_all(&p);
}
