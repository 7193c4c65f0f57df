/* What earlier lives have left: runs that ended without their guardian, incidents. */
#include "cli/checks.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/text.h"

/* guard.c */
#define RUN_PREFIX  "h2ofleet-run."
#define KEPT_PREFIX "h2ofleet-kept."
#define RUN_LOCK    "guarded"
/* One that is being made is not locked yet. */
#define YOUNG_S  60
#define RECENT_S (24 * 3600)

/* Does anybody hold a lock on it? Only looked at: to try one would disturb who is about to. */
static bool is_locked(const struct stat *st)
{
	_cleanup_free_ char *id = xasprintf(
		"%02x:%02x:%ju ", major(st->st_dev), minor(st->st_dev), (uintmax_t)st->st_ino);
	FILE *f = fopen("/proc/locks", "re");
	char line[256];
	bool found = f == NULL; /* not known: say nothing */

	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, "FLOCK") && strstr(line, id);
	if (f)
		fclose(f);
	return found;
}

/* Ours, with nobody who looks after it. */
static bool is_left(const char *dir)
{
	_cleanup_free_ char *lock = xasprintf("%s/" RUN_LOCK, dir);
	struct stat st;

	if (lstat(dir, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
		st.st_mtime + YOUNG_S > time(NULL))
		return false;
	return lstat(lock, &st) < 0 || !is_locked(&st);
}

void check_runs(struct doctor *d)
{
	const char *given = getenv("TMPDIR"), *tmp = given && *given == '/' ? given : "/tmp";
	_cleanup_(strbuf_free) struct strbuf left = STRBUF_NULL, kept = STRBUF_NULL;
	DIR *dir = opendir(tmp);
	struct dirent *de;

	while (dir && (de = readdir(dir))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", tmp, de->d_name);
		struct stat st;

		if (has_prefix(de->d_name, RUN_PREFIX) && is_left(path))
			doctor_list(&left, "%s", path);
		if (has_prefix(de->d_name, KEPT_PREFIX) && lstat(path, &st) == 0 &&
			st.st_uid == geteuid())
			doctor_list(&kept, "%s", path);
	}
	if (dir)
		closedir(dir);
	if (left.len)
		doctor_add(d, "runs", CHECK_WARNING, "the next `h2ofleet run` removes it",
			"left by a run whose guardian was killed: %s", strbuf_str(&left));
	if (kept.len)
		doctor_add(d, "runs", CHECK_OK, NULL, "kept by --keep-on-failure: %s",
			strbuf_str(&kept));
}

/* "2026-01-02T03:04:05.678Z"; 0: it is none. */
static time_t read_time(const char *s)
{
	struct tm tm = {0};

	return s && strptime(s, "%Y-%m-%dT%H:%M:%S", &tm) ? timegm(&tm) : 0;
}

void doctor_incidents(struct doctor *d, const json_t *answer)
{
	const json_t *list = json_object_get(answer, "incidents"), *in;
	const char *cloud = NULL, *why = NULL;
	size_t n = 0, i;

	json_array_foreach (list, i, in) {
		if (read_time(json_string_value(json_object_get(in, "time"))) + RECENT_S <
			time(NULL))
			continue;
		if (n++ == 0) { /* the newest comes first */
			cloud = json_string_value(json_object_get(in, "cloud"));
			why = json_string_value(json_object_get(in, "summary"));
		}
	}
	if (!json_is_array(list))
		return;
	if (n)
		doctor_add(d, "incidents", CHECK_WARNING, "`h2ofleet incidents` has the evidence",
			"%zu in the last 24 hours; the newest, of cloud %s: %s", n,
			cloud ? cloud : "?", why ? why : "?");
	else
		doctor_add(d, "incidents", CHECK_OK, NULL, "none in the last 24 hours");
}
