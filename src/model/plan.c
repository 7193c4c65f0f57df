#include "model/plan.h"

#include <errno.h>
#include <inttypes.h>

#include "base/strbuf.h"
#include "base/text.h"

#define MIN_HEAP     (32ull << 20)
#define AUTO_PERCENT 25

static uint64_t heap_of(
	const struct mem_spec *spec, const struct cloud_conf *conf, const struct machine_facts *m)
{
	uint64_t nodes = (uint64_t)conf->nodes;

	switch (spec->kind) {
	case MEM_UNSET:
		return 0;
	case MEM_BYTES:
		return spec->value;
	case MEM_AUTO:
		return m->mem_bytes / 100 * AUTO_PERCENT / nodes;
	case MEM_PERCENT:
		return m->mem_bytes / 100 * spec->value / nodes;
	}
	return 0;
}

static int check_heap(const char *key, uint64_t heap, const struct machine_facts *m, struct err *e)
{
	_cleanup_free_ char *asked = text_human_size(heap), *there = text_human_size(m->mem_bytes);

	if (heap && heap < MIN_HEAP)
		return err_set(e, -ERANGE,
			"%s comes to %s for each node; H2O needs at least 32 MB: give it more "
			"memory or fewer nodes",
			key, asked);
	if (heap > m->mem_bytes)
		return err_set(e, -ERANGE,
			"%s asks for %s for each node, but this machine (or container) has %s: set "
			"it lower",
			key, asked, there);
	return 0;
}

int plan_memory(const struct cloud_conf *conf, const struct machine_facts *machine,
	uint64_t *xmx_bytes, uint64_t *xms_bytes, struct err *e)
{
	int r;

	*xmx_bytes = *xms_bytes = 0;
	if (!machine->mem_bytes &&
		(conf->max_mem_size.kind != MEM_UNSET || conf->min_mem_size.kind != MEM_UNSET))
		return err_set(e, -EAGAIN,
			"how much memory this machine has cannot be told now (/proc/meminfo)");
	*xmx_bytes = heap_of(&conf->max_mem_size, conf, machine);
	*xms_bytes = heap_of(&conf->min_mem_size, conf, machine);
	r = check_heap("max_mem_size", *xmx_bytes, machine, e);
	if (r == 0)
		r = check_heap("min_mem_size", *xms_bytes, machine, e);
	if (r == 0 && *xmx_bytes && *xms_bytes > *xmx_bytes)
		r = err_set(e, -ERANGE,
			"min_mem_size comes to %" PRIu64 " MB for each node, max_mem_size to only "
			"%" PRIu64 " MB: set min_mem_size lower",
			*xms_bytes >> 20, *xmx_bytes >> 20);
	return r;
}

unsigned plan_nthreads(const struct cloud_conf *conf, const struct machine_facts *machine)
{
	if (conf->nthreads > 0)
		return (unsigned)conf->nthreads;
	if (conf->nthreads == NTHREADS_ALL || conf->nodes == 1)
		return 0;
	return MAX(1u, machine->cores / (unsigned)conf->nodes);
}

/* Options of the JVM by which a user has an own way, or with which no archive is taken. A name that
 * ends in '*' stands for all that begin so. */
static const char *const own_libraries[] = {"-Djava.library.path*"};
static const char *const own_archive[] = {
	"-Xshare*",
	"-XX:-UseSharedSpaces",
	"-XX:+RequireSharedSpaces",
	"-XX:SharedArchiveFile=*",
	"-XX:SharedClassListFile=*",
	"-XX:DumpLoadedClassList=*",
	"-XX:ArchiveClassesAtExit=*",
	"-XX:+AutoCreateSharedArchive",
	"-XX:AOT*",
	"-XX:+UseZGC",
	"-XX:-UseCompressedOops",
	"-XX:-UseCompressedClassPointers",
	"-XX:+UseCompactObjectHeaders",
	"-XX:ObjectAlignmentInBytes=*",
	"-Xbootclasspath*",
	"--upgrade-module-path*",
	"--patch-module*",
	"--limit-modules*",
};

static bool has_one_of(const struct strv *args, const char *const *list, size_t n)
{
	for (size_t i = 0; i < args->n; i++)
		for (size_t k = 0; k < n; k++) {
			size_t len = strlen(list[k]);

			if (list[k][len - 1] == '*' ? strncmp(args->v[i], list[k], len - 1) == 0
						    : streq(args->v[i], list[k]))
				return true;
		}
	return false;
}

void plan_boot(const struct cloud_conf *conf, struct boot_wish *out)
{
	const struct strv *args = &conf->jvm_custom_args;
	bool libraries = has_one_of(args, own_libraries, ARRAY_SIZE(own_libraries));
	bool archive = has_one_of(args, own_archive, ARRAY_SIZE(own_archive));

	*out = (struct boot_wish){
		.native = conf->fast_boot != BOOT_NO && !libraries,
		.archive = conf->fast_boot == BOOT_YES && !archive,
		.why = conf->fast_boot != BOOT_YES ? "fast_boot"
		       : libraries || archive      ? "jvm_custom_args"
						   : NULL,
	};
}

char *plan_flatfile(const struct cloud *c, const bool *here)
{
	struct strbuf b = STRBUF_NULL;

	for (size_t i = 0; i < c->n_nodes; i++)
		if (!here || here[i])
			strbuf_printf(&b, "%s:%u\n", MEMBER_ADDR, c->nodes[i].api_port);
	return strbuf_take(&b);
}

/* -jar takes the Add-Opens of the jar's manifest; -cp does not, and without them every REST call
 * answers 500 on Java 9 and later. */
static void add_program(
	const struct cloud_conf *conf, const struct launch_place *place, struct strv *argv)
{
	static const char *const opens[] = {"java.lang", "java.util", "java.lang.reflect"};

	if (!conf->extra_classpath && !conf->main_class) {
		strv_add(argv, "-jar");
		strv_add(argv, place->jar);
		return;
	}
	for (size_t i = 0; place->java_major >= 9 && i < ARRAY_SIZE(opens); i++)
		strv_printf(argv, "--add-opens=java.base/%s=ALL-UNNAMED", opens[i]);
	strv_add(argv, "-cp");
	strv_printf(argv, "%s%s%s", place->jar, conf->extra_classpath ? ":" : "",
		conf->extra_classpath ? conf->extra_classpath : "");
	strv_add(argv, conf->main_class ? conf->main_class : "water.H2OApp");
}

bool plan_binds_to_localhost(const struct cloud_conf *conf)
{
	return conf->bind_to_localhost || conf->gate_mode != GATE_OFF;
}

/* What makes a boot shorter and a node lighter; what was measured: tests/bench/RESULTS.md.
 *
 * The benchmark of a node's processor and memory, of which nothing but two numbers in /3/Cloud
 * comes (gflops, mem_bw), takes half a core for the first half a minute and 75 MB for ever. Where
 * the nodes' compilers have to share a core they should compile what is used much, not what a boot
 * runs through: an eighth less work for a boot, and training is as quick. */
static void add_boot_options(const struct cloud_conf *conf, const struct launch_place *place,
	const struct machine_facts *machine, struct strv *argv)
{
	if (place->boot)
		strv_copy(argv, place->boot);
	if (conf->fast_boot == BOOT_NO)
		return;
	strv_add(argv, "-Dsys.ai.h2o.heartbeat.benchmark.enabled=false");
	if (place->java_major >= 9 && (uint64_t)conf->nodes >= machine->cores)
		strv_add(argv, "-XX:CompileThresholdScaling=4");
}

static void add_option(struct strv *argv, const char *option, const char *value)
{
	strv_add(argv, option);
	strv_add(argv, value);
}

static void add_h2o_options(const struct cloud *c, unsigned node, const struct launch_place *place,
	const struct machine_facts *machine, struct strv *argv)
{
	const struct cloud_conf *conf = c->conf;
	unsigned nthreads = plan_nthreads(conf, machine);

	add_option(argv, "-name", c->h2o_name);
	add_option(argv, "-ip", MEMBER_ADDR);
	if (plan_binds_to_localhost(conf))
		add_option(argv, "-web_ip", MEMBER_ADDR);
	strv_add(argv, "-port");
	strv_printf(argv, "%u", c->nodes[node].api_port);
	add_option(argv, "-flatfile", place->flatfile);
	add_option(argv, "-ice_root", place->ice_root);
	add_option(argv, "-log_dir", place->log_dir);
	if (conf->log_level)
		add_option(argv, "-log_level", conf->log_level);
	if (conf->max_log_file_size)
		add_option(argv, "-max_log_file_size", conf->max_log_file_size);
	if (nthreads) {
		strv_add(argv, "-nthreads");
		strv_printf(argv, "%u", nthreads);
	}
	if (conf->context_path)
		add_option(argv, "-context_path", conf->context_path);
	if (place->recovery_dir)
		add_option(argv, "-auto_recovery_dir", place->recovery_dir);
	strv_copy(argv, &conf->h2o_args);
}

int plan_argv(const struct cloud *c, unsigned node, const struct launch_place *place,
	const struct machine_facts *machine, struct strv *argv, struct err *e)
{
	const struct cloud_conf *conf = c->conf;
	uint64_t xmx, xms;
	int r = plan_memory(conf, machine, &xmx, &xms, e);

	if (r < 0)
		return r;
	strv_add(argv, place->java);
	if (conf->enable_assertions)
		strv_add(argv, "-ea");
	if (xms)
		strv_printf(argv, "-Xms%" PRIu64 "m", xms >> 20);
	if (xmx)
		strv_printf(argv, "-Xmx%" PRIu64 "m", xmx >> 20);
	strv_printf(argv, "-Djava.io.tmpdir=%s", place->tmp_dir);
	strv_printf(argv, "-XX:ErrorFile=%s/hs_err_pid%%p.log", place->log_dir);
	strv_add(argv, "-Dsys.ai.h2o.telemetry.disabled=true");
	if (conf->allow_unsupported_java)
		strv_printf(argv, "-Dsys.ai.h2o.debug.allowJavaVersions=%d", place->java_major);
	add_boot_options(conf, place, machine, argv);
	strv_copy(argv, &conf->jvm_custom_args);
	add_program(conf, place, argv);
	add_h2o_options(c, node, place, machine, argv);
	return 0;
}

/* Ours or systemd's own business, or ways around what the configuration checks. */
static const char *const dropped[] = {
	"NOTIFY_SOCKET=",
	"NOTIFY_ACCESS=",
	"LISTEN_",
	"WATCHDOG_",
	"MAINPID=",
	"MANAGERPID=",
	"SYSTEMD_EXEC_PID=",
	"INVOCATION_ID=",
	"JOURNAL_STREAM=",
	"CREDENTIALS_DIRECTORY=",
	"RUNTIME_DIRECTORY=",
	"STATE_DIRECTORY=",
	"CACHE_DIRECTORY=",
	"LOGS_DIRECTORY=",
	"CONFIGURATION_DIRECTORY=",
	"MEMORY_PRESSURE_",
	"FDSTORE=",
	"JAVA_TOOL_OPTIONS=",
	"JDK_JAVA_OPTIONS=",
	"_JAVA_OPTIONS=",
	"CLASSPATH=",
	"H2O_KUBERNETES_",
	"H2O_ASSISTED_CLUSTERING_",
	"DO_NOT_TRACK=",
	"H2OFLEET_H2O_AUTH=", /* a client's login */
	TOKEN_ENV "=",
};

static bool is_dropped(const char *assignment)
{
	for (size_t i = 0; i < ARRAY_SIZE(dropped); i++)
		if (has_prefix(assignment, dropped[i]))
			return true;
	return false;
}

/* Does the cloud's own `env` set the same name? */
static bool is_overridden(const struct strv *env, const char *assignment)
{
	size_t name = strcspn(assignment, "=") + 1;

	for (size_t i = 0; i < env->n; i++)
		if (strncmp(env->v[i], assignment, name) == 0)
			return true;
	return false;
}

void plan_clean_env(char *const *base, struct strv *env)
{
	for (; *base; base++)
		if (!is_dropped(*base))
			strv_add(env, *base);
}

void plan_env(const struct cloud *c, char *const *base, const struct launch_place *place,
	struct strv *env)
{
	for (; *base; base++)
		if (!is_dropped(*base) && !is_overridden(&c->conf->env, *base))
			strv_add(env, *base);
	strv_copy(env, &c->conf->env);
	strv_add(env, "DO_NOT_TRACK=1");
	strv_printf(env, "%s=%s", TOKEN_ENV, place->token);
}
