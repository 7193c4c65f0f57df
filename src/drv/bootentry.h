/* What bootcache.c and the builder share: what an entry of the boot cache was made of, its
 * verdict.json, and whether it may be trusted. */
#pragma once

#include <jansson.h>
#include <sys/stat.h>

#include "drv/bootcache.h"

#define BOOT_DIR      "boot" /* below cache_dir */
#define BOOT_NATIVE   "native-"
#define BOOT_IGNORED  ".ignored"
#define BOOT_WORK     "work"
#define BOOT_LOCK     "lock"
#define BOOT_VERDICT  "verdict.json"
#define BOOT_KEY_SIZE 17

/* Lines: "jar 279074723 1786529982000000000 /opt/h2o/h2o.jar", "java 17", ... */
struct boot_identity {
	struct strv lines;
	char key[BOOT_KEY_SIZE];
};
void boot_identity_clear(struct boot_identity *id);

/* -ENOENT, ... with a sentence when the jar or the JVM cannot be looked at. */
int boot_identity_of(const struct boot_runtime *rt, struct boot_identity *id, struct err *e);
/* For the native libraries. */
int boot_identity_of_jar(const char *jar, struct boot_identity *id, struct err *e);
json_t *boot_identity_json(const struct boot_identity *id);
bool boot_identity_matches(const struct boot_identity *id, const json_t *verdict);
/* Are all files that a verdict names still there and the same? */
bool boot_verdict_is_current(const json_t *verdict);

/* Opens the directory `name` below `parent` (or a path, with AT_FDCWD) if it is trusted. Returns a
 * descriptor; -ENOENT when it is not there, -EPERM and a sentence that begins with `shown` when it
 * is not to be trusted. */
int boot_open_dir(int parent, const char *name, const char *shown, struct err *e);

/* The same of CACHE_DIR/boot; CACHE_DIR itself must be trusted, too, but may be a link. */
int boot_open_cache(const char *cache_dir, struct err *e);

/* The verdict in an entry that was opened so; NULL when it has none that can be read and trusted.
 * To be decref'ed. */
json_t *boot_read_verdict(int dir, const char *shown, struct err *e);

/* A file of an entry, as the verdict names it ({"name", "size"}): is it there, whole, and trusted?
 */
bool boot_file_is_whole(int dir, const json_t *file);

/* No library can be loaded from there, so H2O would go on to unpack its own. */
bool boot_is_noexec(const char *dir);

/* Java that knows neither archive nor AOT cache; from this one on it is an AOT cache. */
#define BOOT_JAVA_MIN 11
#define BOOT_JAVA_AOT 24

/* "/cache/boot/NAME"; owned by the caller. */
char *boot_path(const char *cache_dir, const char *name);

/* The part of the class path that an archive can be made of: the jar and the jars that follow it,
 * up to the first directory or wildcard. Owned by the caller. */
char *boot_archive_classpath(const struct boot_runtime *rt);
/* All of it; owned by the caller. */
char *boot_full_classpath(const struct boot_runtime *rt);
