/* The boot cache, for doctor: do nodes start in half the time, and if not, why? */
#include "cli/checks.h"

#include "drv/bootcache.h"
#include "drv/machine.h"
#include "drv/runtime.h"
#include "model/plan.h"

#define NOT_YET                                                                                    \
	"it is made in the background after the first cloud has become ready; or at once: "        \
	"h2ofleet prepare"
#define NO_HARM "its nodes start without, which costs nothing but time"

static int find_runtime(
	const struct doctor *d, const struct cloud_conf *c, char **java, int *major, char **jar)
{
	_cleanup_free_ char *version = NULL;
	int r = runtime_find_java(c->java, NULL, java, NULL);

	if (r == 0 && runtime_java_release(*java, major, &version) < 0)
		r = doctor_java_version(*java, major, &version, NULL);
	if (r == 0)
		r = runtime_check_java(
			*major, *java, d->h2o_version, c->allow_unsupported_java, NULL);
	return r < 0 ? r : runtime_find_jar(c->jar_path, NULL, jar, NULL);
}

static void report(struct doctor *d, const char *name, const struct boot_wish *wish,
	const struct boot_found *f)
{
	const char *libraries = f->library_path ? ", and with the native libraries" : "";

	if (!wish->archive && (f->native_done || !wish->native))
		doctor_add(d, "boot", CHECK_OK, NULL,
			"cloud %s: starts %s the native libraries of the boot cache, and without "
			"an archive of classes (%s)",
			name, wish->native && f->library_path ? "with" : "without", wish->why);
	else if (wish->archive && f->verdict == BOOT_REFUSED)
		doctor_add(d, "boot", CHECK_WARNING, NO_HARM,
			"cloud %s: the archive of classes for its runtime was refused: %s", name,
			f->why ? f->why : "no reason is known");
	else if (wish->archive && f->archive)
		doctor_add(d, "boot", CHECK_OK, NULL,
			"cloud %s: starts from an archive of classes that was checked%s (%s)", name,
			libraries, f->dir);
	else if (wish->archive && f->verdict == BOOT_UNSUPPORTED && f->native_done)
		doctor_add(d, "boot", CHECK_OK, NULL,
			"cloud %s: starts with the native libraries alone: %s", name,
			f->why ? f->why : "this Java knows no archive");
	else
		doctor_add(d, "boot", CHECK_OK, NOT_YET, "cloud %s: there is no boot cache%s%s",
			name, f->why ? ": " : " for its runtime yet", f->why ? f->why : "");
}

static void check_cloud(struct doctor *d, const struct cloud_conf *c)
{
	const struct machine_facts machine = {machine_memory(), machine_cores()};
	_cleanup_(boot_found_clear) struct boot_found found = {0};
	_cleanup_free_ char *java = NULL, *jar = NULL;
	struct boot_runtime rt = {
		.extra_classpath = c->extra_classpath, .main_class = c->main_class};
	uint64_t xmx = 0, xms;
	struct boot_wish wish;

	plan_memory(c, &machine, &xmx, &xms, NULL);
	plan_boot(c, &wish);
	if (find_runtime(d, c, &java, &rt.java_major, &jar) < 0)
		return; /* other checks tell */
	rt.java = java;
	rt.jar = jar;
	rt.big_heap = boot_heap_is_big(xmx, machine.mem_bytes);
	if ((wish.native || wish.archive) &&
		bootcache_find(d->conf->fleet.cache_dir, &rt, &found, NULL) < 0)
		return;
	report(d, c->name, &wish, &found);
}

/* A cache that is not ours is not trusted by us, whatever its owner thinks of it: then it is the
 * daemon that tells, in doctor_boot(). */
static bool may_judge(const struct doctor *d)
{
	return !d->daemon || d->daemon_uid == geteuid();
}

void check_boot(struct doctor *d)
{
	for (size_t i = 0; may_judge(d) && i < d->conf->n_clouds; i++)
		check_cloud(d, d->conf->clouds[i]);
}

static void tell(struct doctor *d, const char *name, const json_t *boot)
{
	const char *mode = json_string_value(json_object_get(boot, "mode"));
	const char *why = json_string_value(json_object_get(boot, "why"));

	if (json_is_false(json_object_get(boot, "mapped")))
		doctor_add(d, "boot", CHECK_WARNING, NO_HARM,
			"cloud %s: its nodes do not use the archive of classes that they were "
			"started with%s%s",
			name, why ? ": " : "", why ? why : "");
	else if (!may_judge(d) && mode)
		doctor_add(d, "boot", CHECK_OK, NULL, "cloud %s: was started %s%s%s", name,
			streq(mode, "archive")  ? "from an archive of classes"
			: streq(mode, "native") ? "with the native libraries of the boot cache"
						: "without the boot cache",
			why ? ": " : "", why ? why : "");
}

void doctor_boot(struct doctor *d, const json_t *answer)
{
	const json_t *clouds = json_object_get(answer, "clouds"), *c;
	size_t i;

	json_array_foreach (clouds, i, c) {
		const char *name = json_string_value(json_object_get(c, "name"));

		if (name)
			tell(d, name, json_object_get(c, "boot"));
	}
}
