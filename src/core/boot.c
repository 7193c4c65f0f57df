/* What a cloud is launched with of the boot cache (drv/bootcache.h), and whether its JVMs use it. A
 * cache only ever makes a boot shorter: where anything is not as it should be, nodes are launched
 * plainly, and `why` says so. What makes one is bootbuilder.c. */
#include <errno.h>

#include "base/log.h"
#include "core/bootbuilder.h"
#include "core/internal.h"
#include "drv/bootbuild.h"
#include "drv/bootentry.h"
#include "drv/machine.h"

/* Looking at members takes from a turn of the loop at most so long; the maps of a JVM take 0.3 ms.
 */
#define LOOK_NS     2000000
#define QUESTION_MS 30000
#define NO_ANSWER   "java could not be asked for the reason"

struct boot_runtime boot_runtime_of(const struct supervised *s, const struct runtime *rt)
{
	const struct cloud_conf *conf = s->cloud->conf;
	struct machine_facts machine = {machine_memory(), machine_cores()};
	uint64_t xmx = 0, xms;

	plan_memory(conf, &machine, &xmx, &xms, NULL);
	return (struct boot_runtime){
		.java = rt->java,
		.java_major = rt->java_major,
		.jar = rt->jar,
		.extra_classpath = conf->extra_classpath,
		.main_class = conf->main_class,
		.big_heap = boot_heap_is_big(xmx, machine.mem_bytes),
	};
}

void boot_wish_of(const struct supervised *s, struct boot_wish *out)
{
	plan_boot(s->cloud->conf, out);
	if (s->boot.barred)
		out->archive = false;
}

static void forget(struct cloud_boot *b)
{
	if (b->question)
		command_cancel(TAKE_PTR(b->question));
	boot_found_clear(&b->found);
	free(TAKE_PTR(b->why));
	b->mapped = -1;
	b->next = 0;
	b->looking = false;
}

void boot_forget(struct supervised *s)
{
	forget(&s->boot);
	free(TAKE_PTR(s->boot.barred));
	free(TAKE_PTR(s->boot.runtime));
}

void boot_pardon(struct supervised *s)
{
	struct cloud_boot *b = &s->boot;

	if (b->question) /* it was about the one before */
		command_cancel(TAKE_PTR(b->question));
	free(TAKE_PTR(b->barred));
	b->ignored = 0;
	b->anew = false;
}

/* ---- a launch ---- */

/* Why it is not an archive, where the cache knows nothing better. Owned by the caller. */
static char *why_none(const struct supervised *s, const struct boot_wish *wish)
{
	const struct boot_found *f = &s->boot.found;

	if (wish->why && streq(wish->why, "fast_boot"))
		return xasprintf("fast_boot = %s",
			s->cloud->conf->fast_boot == BOOT_NO ? "no" : "native-only");
	if (wish->why)
		return xasprintf("%s has options of its own for this", wish->why);
	if (s->boot.barred)
		return xstrdup(s->boot.barred);
	if (f->archive)
		return NULL;
	if (f->verdict == BOOT_REFUSED)
		return xasprintf("the archive for this runtime was refused: %s",
			f->why ? f->why : "no reason is known");
	return xstrdup(f->why ? f->why : "there is none for this runtime yet");
}

static void note_runtime(struct supervised *s, const struct boot_runtime *rt)
{
	_cleanup_(boot_identity_clear) struct boot_identity id = {0};

	if (boot_identity_of(rt, &id, NULL) < 0)
		return;
	if (!streq_null(s->boot.runtime, id.key))
		boot_pardon(s);
	replace_str(&s->boot.runtime, id.key);
}

static void leave_out(char **path)
{
	free(TAKE_PTR(*path));
}

void boot_choose(struct supervised *s)
{
	struct cloud_boot *b = &s->boot;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct boot_runtime rt;
	struct boot_wish wish;

	forget(b);
	b->generation = s->cloud->generation + 1; /* it is about to begin */
	rt = boot_runtime_of(s, &s->runtime);
	note_runtime(s, &rt);
	boot_wish_of(s, &wish);
	if ((wish.native || wish.archive) &&
		bootcache_find(s->fleet->conf->fleet.cache_dir, &rt, &b->found, &e) < 0) {
		b->why = xstrdup(err_msg(&e));
		return;
	}
	if (!wish.native)
		leave_out(&b->found.library_path);
	if (!wish.archive)
		leave_out(&b->found.archive);
	if (b->found.archive && stat(b->found.archive, &b->file) < 0)
		leave_out(&b->found.archive); /* it went just now */
	b->why = why_none(s, &wish);
	bootcache_touch(&b->found);
}

void boot_add_args(const struct supervised *s, const struct strv *env, struct strv *argv)
{
	static const char name[] = "LD_LIBRARY_PATH=";
	const char *libraries = NULL;

	for (size_t i = 0; i < env->n; i++)
		if (has_prefix(env->v[i], name))
			libraries = env->v[i] + strlen(name);
	bootcache_add_args(&s->boot.found, libraries, argv);
}

/* ---- is it used? ---- */

void boot_ready(struct supervised *s)
{
	struct cloud_boot *b = &s->boot;

	b->looking = b->generation == s->cloud->generation && b->found.archive && b->mapped < 0;
	bootbuilder_wake(s->fleet);
}

/* Is it still the file that it was at the launch? One that was set aside or replaced meanwhile may
 * well be used: /proc/PID/maps has the name that it has now. */
static bool is_still_there(const struct cloud_boot *b)
{
	struct stat st;

	return stat(b->found.archive, &st) == 0 && st.st_dev == b->file.st_dev &&
	       st.st_ino == b->file.st_ino && st.st_mtim.tv_sec == b->file.st_mtim.tv_sec &&
	       st.st_mtim.tv_nsec == b->file.st_mtim.tv_nsec;
}

/* Then the archive is as it should be, and the cause lies with this cloud. */
static bool is_mapped_by_another(const struct supervised *s)
{
	for (size_t i = 0; i < s->fleet->n; i++) {
		const struct cloud_boot *o = &s->fleet->clouds[i]->boot;

		if (s->fleet->clouds[i] != s && o->mapped == 1 &&
			streq_null(o->found.archive, s->boot.found.archive))
			return true;
	}
	return false;
}

/* The first time it is made anew, unless it is `the cloud's` own fault; then that does without. */
static void conclude(struct supervised *s, bool the_clouds, const char *why)
{
	struct cloud_boot *b = &s->boot;
	const char *name = s->cloud->conf->name;
	bool again;
	int r;

	if (!is_still_there(b)) {
		b->mapped = -1;
		return;
	}
	again = b->ignored++ == 0 && !the_clouds && !is_mapped_by_another(s);
	if (again) {
		r = bootcache_set_aside(&b->found);
		b->anew = r == -EACCES || r == -EROFS; /* root's: one of our own, then */
		bootbuilder_wake(s->fleet);
	} else {
		b->barred = xasprintf("its nodes do not use the archive: %s", why);
	}
	replace_str(&b->why, why);
	log_warning("cloud %s: its nodes do not use the archive that they were started with, which "
		    "costs time and nothing else; %s: %s",
		name, again ? "it is made anew" : "from now on they are started without", why);
	fleet_event(s->fleet, "boot-cache-ignored", s->cloud, -1,
		json_pack("{s:o, s:o, s:b}", "archive", emit_text_json(b->found.archive), "why",
			emit_text_json(why), "again", (int)again),
		"cloud %s: its nodes do not use the archive of the boot cache: %s", name, why);
}

static void on_answer(int exit_code, int exec_errno, const char *output, void *arg)
{
	struct supervised *s = arg;
	_cleanup_free_ char *first = xstrndup(output, strcspn(output, "\n"));

	s->boot.question = NULL;
	if (exec_errno == 0 && exit_code == BOOT_EXIT_ACCEPTED)
		conclude(s, true,
			"a JVM with no other options would use it, so it is by the options of this "
			"cloud");
	else if (exec_errno == 0 && exit_code == EXIT_SUCCESS && *first)
		conclude(s, false, first);
	else
		conclude(s, false, NO_ANSWER);
}

/* Asking a JVM takes some 100 ms, so another process does it. */
static void ask_why(struct supervised *s)
{
	const struct boot_build rq = {
		.cache_dir = s->fleet->conf->fleet.cache_dir,
		.runtime = boot_runtime_of(s, &s->runtime),
	};
	_cleanup_(strv_free) struct strv argv = STRV_NULL, env = STRV_NULL;

	s->boot.mapped = 0;
	strv_take(&argv, command_own_program());
	strv_add(&argv, "--explain-boot-cache");
	bootbuild_add_args(&rq, &argv);
	bootbuilder_env(s->fleet, &env);
	if (command_run(s->fleet->loop, argv.v, env.v, QUESTION_MS, on_answer, s,
		    &s->boot.question) < 0)
		conclude(s, false, NO_ANSWER);
}

/* Some of its members, until `end`. */
static void look_at_members(struct supervised *s, uint64_t end)
{
	struct cloud_boot *b = &s->boot;
	const struct cloud *c = s->cloud;

	if (c->state != CLOUD_READY || b->generation != c->generation) {
		b->looking = c->state == CLOUD_DEGRADED && b->generation == c->generation;
		return;
	}
	for (; b->next < c->n_nodes && uv_hrtime() < end; b->next++) {
		int r = bootcache_is_mapped(c->nodes[b->next].pid, b->found.archive);

		if (r > 0)
			continue;
		b->looking = false;
		if (r == 0 && is_still_there(b)) /* else nobody knows */
			ask_why(s);
		return;
	}
	if (b->next < c->n_nodes)
		return;
	b->mapped = 1;
	b->looking = false;
	b->ignored = 0;
}

void boot_beat(struct fleet *f)
{
	uint64_t end = uv_hrtime() + LOOK_NS;

	for (size_t i = 0; i < f->n && uv_hrtime() < end; i++)
		if (f->clouds[i]->boot.looking)
			look_at_members(f->clouds[i], end);
	bootbuilder_beat(f);
}

bool fleet_boot(const struct fleet *f, const char *cloud, struct fleet_boot *out)
{
	const struct supervised *s = supervised_find(f, cloud);
	const struct cloud_boot *b = s ? &s->boot : NULL;

	if (!b || !b->generation || b->generation != s->cloud->generation)
		return false;
	*out = (struct fleet_boot){
		.mode = b->found.archive        ? "archive"
			: b->found.library_path ? "native"
						: "plain",
		.archive = b->found.archive,
		.mapped = b->found.archive ? b->mapped : -1,
		.why = b->why,
	};
	return true;
}
