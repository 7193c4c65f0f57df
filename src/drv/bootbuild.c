#include "drv/bootbuild.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "drv/bootwork.h"
#include "drv/runtime.h"

#define TIMEOUT_MS      300000
#define IDLE_TIMEOUT_MS 1800000
#define PATIENCE        20 /* times what the plain node took */
/* Class list, archive, AOT configuration, logs; and what H2O unpacks where there is no library for
 * it to find. */
#define ARCHIVE_SPACE (192ull << 20)
#define UNPACK_SPACE  (192ull << 20)
/* With less free what failed has failed for want of it: a JVM removes what it could not finish. */
#define FULL_SPACE  (ARCHIVE_SPACE / 2)
#define SAID_MAX    300
#define SYNC_PIECE  (4 << 20)
#define IOPRIO_IDLE (3 << 13) /* linux/ioprio.h */

/* --- helpers of the other files ----------------------------------------------------------- */

void boot_progress(const struct boot_job *job, unsigned step, const char *fmt, ...)
{
	_cleanup_free_ char *what = NULL;
	va_list ap;

	va_start(ap, fmt);
	what = xvasprintf(fmt, ap);
	va_end(ap);
	if (job->rq->progress)
		job->rq->progress(step, job->steps, what, job->rq->arg);
}

uint64_t boot_patience_ms(const struct boot_job *job)
{
	return MAX(job->timeout_ms, PATIENCE * job->measured.plain_ms);
}

static uint64_t free_bytes(const char *path)
{
	struct statvfs vfs;

	return statvfs(path, &vfs) == 0 ? (uint64_t)vfs.f_bavail * vfs.f_frsize : UINT64_MAX;
}

int boot_check_space(const struct boot_job *job, uint64_t bytes, struct err *e)
{
	uint64_t there = free_bytes(job->boot);
	_cleanup_free_ char *need = text_human_size(bytes), *have = text_human_size(there);

	if (there >= bytes)
		return 0;
	return err_set(e, -ENOSPC,
		"%s has %s free, and %s are needed: make room, or set cache_dir to another disk",
		job->boot, have, need);
}

int boot_sync(int fd)
{
	const unsigned all =
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	for (off_t at = 0; at < st.st_size; at += SYNC_PIECE) {
		if (boot_told_to_end())
			return -EINTR;
		/* Where this cannot be had fdatasync() does all of it. */
		if (sync_file_range(fd, at, SYNC_PIECE, all) < 0 && errno != EINTR &&
			errno != ENOSYS && errno != EOPNOTSUPP)
			return -errno;
	}
	return boot_told_to_end() ? -EINTR : fdatasync(fd) < 0 ? -errno : 0;
}

int boot_write_verdict(const char *dir, json_t *verdict, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/" BOOT_VERDICT, dir);
	_cleanup_free_ char *text =
		json_dumps(verdict, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENSURE_ASCII);
	int r = text ? file_write_atomic(path, text, strlen(text), 0644, true, e)
		     : err_set(e, -EINVAL, "%s cannot be written: not UTF-8", path);

	json_decref(verdict);
	return r;
}

int boot_publish(const struct boot_job *job, const char *from, const char *name, struct err *e)
{
	_cleanup_free_ char *to = xasprintf("%s/%s", job->boot, name);
	int r = 0;

	/* What was there before goes with `work`. */
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0)
		return 0;
	if (errno != ENOENT) /* a file system that cannot */
		r = file_remove_tree(to, e);
	if (r == 0 && rename(from, to) < 0)
		r = err_set_errno(e, -errno, "cannot rename %s to %s", from, to);
	return r;
}

/* --- the archive -------------------------------------------------------------------------- */

static bool is_aot(const struct boot_job *job)
{
	return job->rq->runtime.java_major >= BOOT_JAVA_AOT;
}

static char *work_file(const struct boot_job *job, const char *name)
{
	return xasprintf("%s/%s", job->work, name);
}

/* The flags by which a node writes down what it loads. */
static void add_recording(const struct boot_job *job, struct strv *flags)
{
	_cleanup_free_ char *list = work_file(job, "classes");

	if (is_aot(job)) {
		strv_add(flags, "-XX:AOTMode=record");
		strv_printf(flags, "-XX:AOTConfiguration=%s", list);
	} else {
		/* Without any archive, not even the JDK's own, this one is the plain measure. */
		strv_add(flags, "-Xshare:off");
		strv_printf(flags, "-XX:DumpLoadedClassList=%s", list);
	}
}

/* A node that ended, or answers wrongly, is no trouble of the archive while there is none. */
static int first_failed(int r, struct err *e)
{
	if (r == -EINTR)
		return r;
	err_wrap(e, "a node without an archive");
	return r;
}

static int first_node(struct boot_job *job, json_t **endpoints, size_t *n_errors, struct err *e)
{
	_cleanup_(boot_node_end) struct boot_node n = {0};
	_cleanup_(strv_free) struct strv flags = STRV_NULL, grave = STRV_NULL;
	int r;

	boot_progress(job, 2, "starting a node without an archive");
	bootcache_add_args(&job->found, NULL, &flags);
	if (!job->rq->archive)
		add_recording(job, &flags);
	r = boot_node_start(&n, job, "plain", &flags, e);
	if (r == 0)
		r = boot_node_wait(&n, e);
	if (r == 0) {
		job->measured.plain_ms = n.ready_ms;
		job->measured.plain_cpu_ms = n.ready_cpu_ms;
		*endpoints = boot_endpoints(&n, e);
		r = *endpoints ? 0 : e->code;
	}
	/* What clients do first is on the list, too. */
	if (r == 0)
		r = boot_exercise(&n, e);
	if (r == 0 && !job->rq->archive)
		r = boot_node_stop(&n, e);
	boot_node_errors(&n, &grave);
	*n_errors = grave.n;
	return r < 0 ? first_failed(r, e) : 0;
}

static void add_making(const struct boot_job *job, const char *archive, struct strv *argv)
{
	_cleanup_free_ char *list = work_file(job, "classes");
	_cleanup_free_ char *classpath = boot_archive_classpath(&job->rq->runtime);

	strv_add(argv, job->rq->runtime.java);
	strv_add(argv, BOOT_HEAP);
	if (job->rq->runtime.big_heap)
		strv_add(argv, "-XX:-UseCompressedOops");
	strv_add(argv, "-XX:-UsePerfData");
	strv_add(argv, "-XX:-CreateCoredumpOnCrash");
	if (is_aot(job)) {
		strv_add(argv, "-XX:AOTMode=create");
		strv_printf(argv, "-XX:AOTConfiguration=%s", list);
		strv_printf(argv, "-XX:AOTCache=%s", archive);
	} else {
		strv_add(argv, "-Xshare:dump");
		strv_printf(argv, "-XX:SharedClassListFile=%s", list);
		strv_printf(argv, "-XX:SharedArchiveFile=%s", archive);
	}
	strv_add(argv, "-cp");
	strv_add(argv, classpath);
}

/* What a JVM says when it gives up: its first error, else its last line. Owned by the caller. */
static char *last_words(const char *output)
{
	const char *said = "";

	for (const char *line = output; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		if (*line != '\n')
			said = line;
		if (memmem(line, strcspn(line, "\n"), "[error", strlen("[error")))
			break;
	}
	return text_visible(said, MIN(strcspn(said, "\n"), (size_t)SAID_MAX));
}

static int keep_archive(const char *archive, struct err *e)
{
	_cleanup_close_ int fd = open(archive, O_RDONLY | O_CLOEXEC);
	int r = fd >= 0 && fchmod(fd, 0644) == 0 ? boot_sync(fd) : -errno;

	if (r == -EINTR)
		return err_set(e, r, "told to end");
	return r < 0 ? err_set_errno(e, r, "cannot keep %s", archive) : 0;
}

/* 0; 1: the JVM cannot make one, *why says so; or a negative errno. */
static int make_archive(struct boot_job *job, const char *archive, char **why, struct err *e)
{
	static char *const no_env[] = {NULL};
	_cleanup_(strv_free) struct strv argv = STRV_NULL;
	_cleanup_free_ char *output = NULL, *said = NULL;
	uint64_t begun = clock_monotonic_ms();
	struct stat st;
	int code, r;

	boot_progress(job, 3, "making the archive");
	add_making(job, archive, &argv);
	r = boot_run(argv.v, job->rq->env ? job->rq->env : no_env, job->work, boot_patience_ms(job),
		&output, e);
	job->measured.archive_ms = clock_monotonic_ms() - begun;
	if (r < 0)
		return r == -EINTR ? r : err_wrap(e, "making the archive");
	if (r == 0 && stat(archive, &st) == 0 && st.st_size > 0)
		return keep_archive(archive, e);
	if (boot_check_space(job, FULL_SPACE, e) < 0)
		return -ENOSPC;
	code = r;
	r = boot_not_its_fault(code, output, e);
	if (r < 0)
		return r == -EINTR ? r : err_wrap(e, "making the archive");
	said = last_words(output);
	*why = xasprintf("the archive could not be made: java ended with %d%s%s", code,
		*said ? ": " : "", said);
	return 1;
}

/* --- the check ---------------------------------------------------------------------------- */

/* After a node failed: NULL when the error is our own; else why the archive is
 * bad. */
static char *blame(int r, const struct boot_node *n, size_t n_errors, const struct err *e)
{
	_cleanup_(strv_free) struct strv grave = STRV_NULL;

	if (r != -ESRCH && r != -ETIMEDOUT && r != -EBADMSG && r != -ECONNREFUSED && r != -EPROTO)
		return NULL;
	boot_node_errors(n, &grave);
	return xasprintf("a node with the archive: %s%s%s", err_msg(e),
		grave.n > n_errors ? "; it logged: " : "",
		grave.n > n_errors ? grave.v[n_errors] : "");
}

/* What is wrong with a node that serves; NULL: nothing. */
static char *find_fault(struct boot_node *n, const json_t *endpoints, size_t n_errors,
	const char *archive, int *r, struct err *e)
{
	_cleanup_(strv_free) struct strv grave = STRV_NULL;
	json_t *own;
	char *why;

	*r = bootcache_is_mapped(n->process.pid, archive);
	if (*r == 0)
		return xstrdup("the JVM does not use the archive that it has made");
	if (*r < 0) {
		err_set_errno(e, *r = -EIO, "it cannot be seen whether the JVM uses the archive");
		return NULL;
	}
	own = boot_endpoints(n, e);
	*r = own ? 0 : e->code;
	why = own ? boot_endpoints_differ(endpoints, own) : NULL;
	json_decref(own);
	if (why || *r < 0)
		return why;
	*r = boot_exercise(n, e);
	if (*r < 0)
		return NULL;
	boot_node_errors(n, &grave);
	if (grave.n > n_errors)
		return xasprintf("a node with the archive logs: %s", grave.v[n_errors]);
	return NULL;
}

/* The node is not good: 0, and *why; or it is no fault of the archive: a negative errno. */
static int judge(const struct boot_job *job, const struct boot_node *n, int r, size_t n_errors,
	char **why, struct err *e)
{
	_cleanup_(err_clear) struct err excuse = ERR_NULL;
	int excused = boot_node_excused(n, &excuse);

	if (excused < 0)
		return err_set(e, excused, "%s", err_msg(&excuse));
	if (*why)
		return 0;
	if (boot_check_space(job, FULL_SPACE, e) < 0)
		return -ENOSPC;
	*why = blame(r, n, n_errors, e);
	if (!*why)
		return r;
	err_clear(e);
	return 0;
}

/* 0, and *why NULL when it is good; or a negative errno. */
static int check_archive(struct boot_job *job, const char *archive, const json_t *endpoints,
	size_t n_errors, char **why, struct err *e)
{
	_cleanup_(boot_node_end) struct boot_node n = {0};
	_cleanup_(strv_free) struct strv flags = STRV_NULL;
	struct boot_found with = job->found;
	int r;

	boot_progress(job, 4, "checking it: endpoints, a session, a model");
	with.archive = (char *)(uintptr_t)archive;
	with.aot = is_aot(job);
	bootcache_add_args(&with, NULL, &flags);
	r = boot_node_start(&n, job, "checked", &flags, e);
	if (r < 0)
		return r;
	r = boot_node_wait(&n, e);
	job->measured.ready_ms = n.ready_ms;
	job->measured.ready_cpu_ms = n.ready_cpu_ms;
	if (r == 0)
		*why = find_fault(&n, endpoints, n_errors, archive, &r, e);
	return r == 0 && !*why ? 0 : judge(job, &n, r, n_errors, why, e);
}

/* --- the verdict -------------------------------------------------------------------------- */

static json_t *verdict_json(const struct boot_job *job, const char *archive, const char *why)
{
	const struct boot_runtime *rt = &job->rq->runtime;
	_cleanup_free_ char *java_version = NULL, *h2o_version = NULL, *library_path = NULL;
	json_t *j = json_object();
	struct stat st;
	int major;

	if (runtime_java_release(rt->java, &major, &java_version) < 0)
		java_version = xasprintf("%d", rt->java_major);
	runtime_jar_version(rt->jar, &h2o_version, NULL);
	library_path = boot_jvm_library_path(rt->java);
	json_object_set_new(j, "verdict", json_string(why ? "refused" : "trusted"));
	if (why)
		json_object_set_new(j, "why", json_string(why));
	json_object_set_new(j, "identity", boot_identity_json(&job->id));
	json_object_set_new(j, "jar", json_string(rt->jar));
	json_object_set_new(j, "h2o_version", json_string(h2o_version ? h2o_version : ""));
	json_object_set_new(j, "java", json_string(rt->java));
	json_object_set_new(j, "java_version", json_string(java_version));
	if (library_path)
		json_object_set_new(j, "java_library_path", json_string(library_path));
	json_object_set_new(j, "made", json_integer((json_int_t)time(NULL)));
	json_object_set_new(j, "measured",
		json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "plain_ready_ms",
			(json_int_t)job->measured.plain_ms, "plain_cpu_ms",
			(json_int_t)job->measured.plain_cpu_ms, "ready_ms",
			(json_int_t)job->measured.ready_ms, "cpu_ms",
			(json_int_t)job->measured.ready_cpu_ms, "archive_ms",
			(json_int_t)job->measured.archive_ms, "total_ms",
			(json_int_t)(clock_monotonic_ms() - job->measured.begun_ms), "endpoints",
			(json_int_t)job->measured.routes));
	if (!why && stat(archive, &st) == 0) {
		json_object_set_new(j, "aot", json_boolean(is_aot(job)));
		json_object_set_new(j, "archive",
			json_pack("{s:s, s:I}", "name", strrchr(archive, '/') + 1, "size",
				(json_int_t)st.st_size));
	}
	return j;
}

static int store(
	struct boot_job *job, const char *dir, const char *archive, const char *why, struct err *e)
{
	int r;

	if (why && unlink(archive) < 0 && errno != ENOENT)
		return err_set_errno(e, -errno, "cannot remove %s", archive);
	r = boot_write_verdict(dir, verdict_json(job, archive, why), e);
	return r < 0 ? r : boot_publish(job, dir, job->id.key, e);
}

static int build_archive(struct boot_job *job, struct err *e)
{
	_cleanup_free_ char *dir = work_file(job, "entry"), *why = NULL;
	_cleanup_free_ char *archive =
		job->rq->archive ? xstrdup(job->rq->archive)
				 : xasprintf("%s/classes.%s", dir, is_aot(job) ? "aot" : "jsa");
	json_t *endpoints = NULL;
	size_t n_errors = 0;
	int r = boot_check_space(
		job, ARCHIVE_SPACE + (job->found.library_path ? 0 : UNPACK_SPACE), e);

	if (r == 0 && mkdir(dir, 0755) < 0)
		r = err_set_errno(e, -errno, "cannot make %s", dir);
	if (r == 0)
		r = first_node(job, &endpoints, &n_errors, e);
	job->measured.routes = json_object_size(endpoints);
	if (r == 0 && !job->rq->archive)
		r = make_archive(job, archive, &why, e);
	if (r == 0)
		r = check_archive(job, archive, endpoints, n_errors, &why, e);
	json_decref(endpoints);
	if (r < 0)
		return r;
	if (job->rq->archive) { /* only asked */
		job->found.verdict = why ? BOOT_REFUSED : BOOT_TRUSTED;
		job->found.why = TAKE_PTR(why);
		return 0;
	}
	return store(job, dir, archive, why, e);
}

/* --- the whole ---------------------------------------------------------------------------- */

/* Also the first to go when memory runs out: no node is to die for this. */
static void be_idle(void)
{
	_cleanup_close_ int oom = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	const struct sched_param none = {0};

	if (oom >= 0 && write(oom, "1000", 4) < 0)
		errno = 0; /* then as anybody */
	sched_setscheduler(0, SCHED_IDLE, &none);
	setpriority(PRIO_PROCESS, 0, 19);
	syscall(SYS_ioprio_set, 1, 0, IOPRIO_IDLE);
}

/* One that was set aside because a JVM did not map it: what that has against it is worth a line,
 * before it goes. */
static void explain_ignored(const struct boot_job *job)
{
	_cleanup_free_ char *dir = xasprintf("%s/%s" BOOT_IGNORED, job->boot, job->id.key);
	_cleanup_free_ char *archive = xasprintf("%s/classes.%s", dir, is_aot(job) ? "aot" : "jsa");
	const struct boot_found ignored = {.archive = archive, .aot = is_aot(job)};
	_cleanup_free_ char *said = NULL, *shown = NULL;

	if (access(archive, R_OK) < 0)
		return;
	bootcache_is_accepted(&job->rq->runtime, &ignored, &said);
	shown = said ? text_visible(said, strlen(said)) : xstrdup("it does not say why");
	boot_progress(job, 0, "the last archive was not used by the JVM: %s", shown);
}

/* Root must not leave files in another's cache: its owner could neither use nor remove them. */
static int check_owner(const char *cache, struct err *e)
{
	_cleanup_free_ char *there = file_existing_dir(cache);
	const struct passwd *pw;
	struct stat st;

	if (geteuid() != 0 || stat(there, &st) < 0 || st.st_uid == 0)
		return 0;
	pw = getpwuid(st.st_uid);
	return err_set(e, -EPERM,
		"%s belongs to user %s, and is for that user alone: `sudo -u %s h2ofleet prepare`",
		there, pw ? pw->pw_name : "unknown", pw ? pw->pw_name : "USER");
}

static int prepare_dirs(struct boot_job *job, struct err *e)
{
	_cleanup_close_ int dir = -1;
	int r = check_owner(job->rq->cache_dir, e);

	if (r == 0)
		r = file_make_way(job->boot, 0755, e);
	if (r < 0)
		return r;
	dir = boot_open_cache(job->rq->cache_dir, e);
	if (dir < 0)
		return dir;
	job->lock = boot_lock(job->boot, e);
	if (job->lock < 0)
		return job->lock;
	explain_ignored(job);
	boot_sweep(job->boot);
	if (mkdir(job->work, 0700) < 0)
		return err_set_errno(e, -errno, "cannot make %s", job->work);
	return 0;
}

static int look_again(struct boot_job *job, struct err *e)
{
	boot_found_clear(&job->found);
	return bootcache_find(job->rq->cache_dir, &job->rq->runtime, &job->found, e);
}

static bool wants_archive(const struct boot_build *rq)
{
	return !rq->native_only && rq->runtime.java_major >= BOOT_JAVA_MIN;
}

static int build(struct boot_job *job, struct err *e)
{
	const struct boot_build *rq = job->rq;
	bool archive = wants_archive(rq);
	_cleanup_free_ char *keep_native = NULL;
	int r = look_again(job, e);

	if (r == 0 && (!job->found.native_done || (rq->again && !rq->archive))) {
		boot_progress(job, 1, "unpacking the native libraries");
		r = boot_make_native(job, e);
		if (r == 0)
			r = look_again(job, e);
	}
	if (r == 0 && archive && (job->found.verdict == BOOT_UNKNOWN || rq->again || rq->archive)) {
		/* The first node is the plain measure. */
		free(TAKE_PTR(job->found.archive));
		r = build_archive(job, e);
		if (r == 0 && !rq->archive)
			r = look_again(job, e);
	}
	if (r < 0)
		return r;
	if (job->found.library_path)
		keep_native = xstrdup(strrchr(job->found.library_path, '/') + 1);
	boot_bound(job->boot, rq->max_total, job->id.key, keep_native ? keep_native : "");
	return 0;
}

/* Nothing is to be done, so nothing has to be written: also for who could not. */
static bool is_done(const struct boot_job *job)
{
	const struct boot_build *rq = job->rq;

	return !rq->again && !rq->archive && job->found.native_done &&
	       (rq->native_only || job->found.verdict != BOOT_UNKNOWN);
}

/* What a killed builder has left, where nothing else is to be done. */
static void sweep_work(const struct boot_job *job)
{
	_cleanup_close_ int dir = -1, lock = -1;

	if (access(job->work, F_OK) < 0)
		return;
	dir = boot_open_cache(job->rq->cache_dir, NULL);
	lock = dir >= 0 ? boot_lock(job->boot, NULL) : -1;
	if (lock >= 0)
		boot_sweep(job->boot);
}

int bootcache_build(const struct boot_build *rq, struct boot_found *out, struct err *e)
{
	_cleanup_(err_clear) struct err local = ERR_NULL;
	struct boot_job job = {.rq = rq,
		.boot = xasprintf("%s/" BOOT_DIR, rq->cache_dir),
		.work = boot_path(rq->cache_dir, BOOT_WORK),
		.lock = -1,
		.steps = wants_archive(rq) ? 4 : 1,
		.timeout_ms = rq->node_timeout_ms ? rq->node_timeout_ms
			      : rq->idle          ? IDLE_TIMEOUT_MS
						  : TIMEOUT_MS};
	mode_t mask = umask(022);
	int r;

	*out = (struct boot_found){0};
	e = e ? e : &local;
	job.measured.begun_ms = clock_monotonic_ms();
	r = boot_identity_of(&rq->runtime, &job.id, e);
	if (r == 0)
		r = look_again(&job, e);
	if (r == 0 && is_done(&job)) {
		sweep_work(&job);
	} else if (r == 0) {
		boot_catch_signals(true);
		if (rq->idle)
			be_idle();
		r = prepare_dirs(&job, e);
		if (r == 0)
			r = build(&job, e);
		if (job.lock >= 0)
			file_remove_tree(job.work, NULL);
		boot_catch_signals(false);
	}
	if (r == 0) {
		*out = job.found;
		job.found = (struct boot_found){0};
	}
	closep(&job.lock);
	umask(mask);
	boot_found_clear(&job.found);
	boot_identity_clear(&job.id);
	free(job.boot);
	free(job.work);
	return r;
}
