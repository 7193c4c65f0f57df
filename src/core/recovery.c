/* An interrupted grid search: is there one, and is it to be resumed?
 *
 * H2O keeps what it needs in the directory given with -auto_recovery_dir, one slot: recovery.json
 * {class, jobKey, resultKey}, the grid, its frames and models; all of it is removed on success.
 * A standalone cloud resumes only when told so by POST /3/Recovery/resume
 * (h2o-core/src/main/java/hex/faulttolerance/Recovery.java). */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "core/internal.h"
#include "drv/machine.h"

#define RESUME_TIMEOUT_MS 60000

static char *configured_dir(const struct supervised *s)
{
	const char *wanted = s->cloud->conf->auto_recovery_dir;

	if (streq(wanted, "off"))
		return NULL;
	return streq(wanted, "auto") ? xasprintf("%s/recovery", s->dir) : xstrdup(wanted);
}

/* H2O before 3.32.1 refuses the argument. What has no known version is taken for newer. */
static int check_h2o(const char *version, struct err *why)
{
	unsigned major, minor, patch;

	if (!version || sscanf(version, "%u.%u.%u", &major, &minor, &patch) != 3)
		return 0;
	if (major > 3 || (major == 3 && (minor > 32 || (minor == 32 && patch >= 1))))
		return 0;
	return err_set(
		why, -ENOTSUP, "H2O %s cannot resume grid searches, 3.32.1 and later can", version);
}

int recovery_choose_dir(struct supervised *s, uint64_t heap_bytes, struct err *e)
{
	const struct cloud_conf *conf = s->cloud->conf;
	bool automatic = streq(conf->auto_recovery_dir, "auto");
	_cleanup_(err_clear) struct err why = ERR_NULL;
	uint64_t wanted = heap_bytes * s->cloud->n_nodes;
	int r;

	free(s->recovery_dir);
	s->recovery_dir = configured_dir(s);
	if (!s->recovery_dir)
		return 0;
	r = check_h2o(s->runtime.h2o_version, &why);
	if (r == 0)
		r = file_own_dir(s->recovery_dir, 0750, &why);
	if (r == 0)
		r = file_check_entries(s->recovery_dir, &why); /* H2O loads what lies there */
	if (r < 0 && !automatic)
		return err_set(
			e, r, "auto_recovery_dir: %s; set another, or auto, or off", err_msg(&why));
	if (r == 0 && (!automatic || machine_disk_free(s->recovery_dir) >= wanted))
		return 0;
	if (r == 0) {
		_cleanup_free_ char *need = text_human_size(wanted);

		err_set(&why, -ENOSPC,
			"%s has not room for the cloud's whole memory (%s); set auto_recovery_dir "
			"to a place that has",
			s->recovery_dir, need);
	}
	log_notice("cloud %s: no recovery of grid searches: %s", conf->name, err_msg(&why));
	free(s->recovery_dir);
	s->recovery_dir = NULL;
	return 0;
}

/* Which recovery.json lies there: NULL if none. Owned by the caller. */
static char *identity(const char *dir)
{
	_cleanup_free_ char *path = xasprintf("%s/recovery.json", dir);
	struct stat st;

	if (stat(path, &st) < 0)
		return NULL;
	return xasprintf("%" PRIu64 ":%lld:%lld.%09ld", (uint64_t)st.st_ino, (long long)st.st_size,
		(long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void add_up(const char *dir, unsigned depth, uint64_t *files, uint64_t *bytes)
{
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = NULL;
		struct stat st;

		if (streq(de->d_name, ".") || streq(de->d_name, ".."))
			continue;
		path = xasprintf("%s/%s", dir, de->d_name);
		if (lstat(path, &st) < 0)
			continue;
		*files += 1;
		if (S_ISREG(st.st_mode))
			*bytes += (uint64_t)st.st_size;
		if (S_ISDIR(st.st_mode) && depth > 0)
			add_up(path, depth - 1, files, bytes);
	}
	if (d)
		closedir(d);
}

/* Changes whenever a model was finished: that is progress. Owned by the caller. */
static char *contents(const struct supervised *s)
{
	uint64_t files = 0, bytes = 0;

	add_up(s->recovery_dir, 3, &files, &bytes);
	return xasprintf("%" PRIu64 " files, %" PRIu64 " bytes", files, bytes);
}

void recovery_ignore(struct supervised *s)
{
	_cleanup_free_ char *dir = configured_dir(s);

	free(s->ignored_recovery);
	s->ignored_recovery = dir ? identity(dir) : NULL;
	s->cloud->dirty = true;
	if (s->ignored_recovery)
		log_notice("cloud %s: an interrupted grid search lies in %s; it is not resumed, "
			   "since the cloud was started anew (`h2ofleet restart %s --resume` does "
			   "it)",
			s->cloud->conf->name, dir, s->cloud->conf->name);
}

void recovery_heed(struct supervised *s)
{
	replace_str(&s->ignored_recovery, NULL);
	replace_str(&s->resumed_recovery, NULL);
	s->cloud->dirty = true;
}

void recovery_inspect(struct supervised *s)
{
	_cleanup_free_ char *id = s->recovery_dir ? identity(s->recovery_dir) : NULL;
	_cleanup_free_ char *now = NULL;
	bool there = id && !streq_null(id, s->ignored_recovery);

	if (there)
		now = contents(s);
	supervised_feed(s, &(struct cloud_event){.type = EVENT_RECOVERY,
				   .flag = there,
				   .progress = there && !streq_null(now, s->resumed_recovery)});
}

static void on_resumed(const struct http_response *rsp, void *arg)
{
	struct supervised *s = arg;
	bool ok = rsp->result == HTTP_OK && rsp->status == 200;

	s->request = NULL;
	if (ok)
		log_notice(
			"cloud %s: H2O resumes the interrupted grid search", s->cloud->conf->name);
	else
		log_warning("cloud %s: H2O did not resume the interrupted grid search in %s "
			    "(status %d%s%s)",
			s->cloud->conf->name, s->recovery_dir, rsp->status, rsp->error ? ", " : "",
			rsp->error ? rsp->error : "");
	/* Without an answer it may have been taken all the same, and be what ends the cloud. */
	supervised_feed(s,
		&(struct cloud_event){.type = EVENT_RESUMED, .flag = ok || rsp->result != HTTP_OK});
}

void recovery_resume(struct supervised *s)
{
	_cleanup_free_ char *dir = http_escape(s->recovery_dir);
	_cleanup_free_ char *form = xasprintf("recovery_dir=%s", dir);
	_cleanup_free_ char *url = NULL;
	struct http_spec spec = {.method = "POST", .timeout_ms = RESUME_TIMEOUT_MS};

	url = supervised_url(s, 0, "/3/Recovery/resume");
	spec.url = url;
	spec.form = form;
	free(s->resumed_recovery);
	s->resumed_recovery = contents(s);
	if (s->request)
		http_cancel(s->request);
	if (http_start(s->fleet->http, &spec, on_resumed, s, &s->request) < 0) {
		s->request = NULL;
		supervised_feed(s, &(struct cloud_event){.type = EVENT_RESUMED});
	}
}

void recovery_set_aside(struct supervised *s)
{
	_cleanup_free_ char *aside =
		xasprintf("%s.set-aside-%lld", s->recovery_dir, (long long)time(NULL));

	if (rename(s->recovery_dir, aside) < 0) {
		log_error("cloud %s: cannot rename %s: %s", s->cloud->conf->name, s->recovery_dir,
			strerror(errno));
		recovery_ignore(s);
		return;
	}
	file_mkdirs(s->recovery_dir, 0750, NULL);
	log_warning("cloud %s: resuming the interrupted grid search has brought the cloud down "
		    "twice; it is set aside as %s",
		s->cloud->conf->name, aside);
}
