/* The boot cache: what makes an H2O node start in less than half of its time.
 *
 * Of each *runtime* (a JVM, an h2o.jar and what else is on the class path) it keeps
 *
 *   the native libraries of XGBoost, which H2O would otherwise unpack from the jar at each boot
 *   (157 MB into java.io.tmpdir, 1.1 s; hex.tree.xgboost.util.NativeLibrary looks on
 *   java.library.path first);
 *   a static AppCDS archive (JDK 11 to 23) or an AOT cache (JDK 24 and later) of the classes that a
 *   boot loads. Nothing for Java 8.
 *
 * An archive may change the order of reflection, by which H2O finds handlers and schemas, and a
 * cloud with a bad one looks well until the first session kills it. So none is used that was not
 * checked: a node with it must have the same endpoints as one without, open a session and train a
 * model (bootbuild.h). The verdict is kept beside the archive.
 *
 * Below CACHE_DIR/boot (0755, files 0644):
 *
 *   native-KEY/ verdict.json, libxgboost4j_gpu.so, ...  KEY: of the jar
 *   KEY/ verdict.json, classes.jsa or classes.aot       KEY: of jar, JVM and class path
 *   KEY.ignored/                                        set aside, for the next builder to remove
 *   work/                                               of the builder that has the lock
 *   lock                                                flock: one builder at a time (0600: whoever
 *                                                       can open it could hold it for ever)
 *
 * KEY is a hash of the identity: path, size and mtime of everything. An entry appears by rename, so
 * it is whole or not there; verdict.json has the identity in full, and where that is not what there
 * is now, the entry is not found, and is removed by a later builder. An entry is trusted only if it
 * and all directories from CACHE_DIR down belong to root or to us, and nobody else may write them;
 * so
 * what root has made in the system's cache directory serves every user. */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/strv.h"

/* Where root's cache is, for those who have a cache_dir of their own. Tests have another:
 * $H2OFLEET_SYSTEM_CACHE_DIR. */
#define BOOTCACHE_SYSTEM_DIR "/var/cache/h2ofleet"

/* What a node is started with, as far as an archive depends on it. Strings not owned. */
struct boot_runtime {
	const char *java; /* absolute path of the program */
	int java_major;
	const char *jar;             /* absolute */
	const char *extra_classpath; /* behind the jar; NULL: none */
	const char *main_class;      /* NULL: H2O's */
	bool big_heap; /* 32 GB and more: no compressed pointers, so another archive */
};

/* Is a heap of `xmx` bytes (0: the JVM's own choice, a quarter of the machine's memory) too big for
 * compressed pointers? */
bool boot_heap_is_big(uint64_t xmx, uint64_t mem_bytes);

enum boot_verdict {
	BOOT_UNKNOWN,     /* there is none yet, or it is stale: build one */
	BOOT_TRUSTED,     /* `archive` may be used */
	BOOT_REFUSED,     /* it was checked and is bad, or could not be made: `why` */
	BOOT_UNSUPPORTED, /* this Java knows none: `why`; the native libraries are all there is */
};

/* What there is for a runtime. Begins as { 0 }; all owned. */
struct boot_found {
	char *library_path;     /* directory with the native libraries; NULL: there are none */
	char *jvm_library_path; /* where the JVM looks by itself; NULL: not known */
	char *native_why;       /* there are none, though the jar has them; a sentence, or NULL */
	bool native_done;       /* and there is nothing to be unpacked (any more) */
	char *archive;          /* absolute path; only when trusted */
	int java_major;         /* of the runtime */
	bool aot;               /* it goes to -XX:AOTCache=, not -XX:SharedArchiveFile= */
	enum boot_verdict verdict;
	char *why; /* a sentence, or NULL */
	char *dir; /* of the entry; NULL: none */
};
void boot_found_clear(struct boot_found *f);

/* "unknown", "trusted", "refused", "unsupported" */
const char *boot_verdict_name(enum boot_verdict v);

/* What is there for it, in `cache_dir` (absolute), else in BOOTCACHE_SYSTEM_DIR. A few calls of
 * stat(2) and two small files, so fit for the loop. 0; a negative errno with a sentence when jar or
 * JVM cannot be looked at (nothing is found then). A cache that cannot be trusted is as none, with
 * the reason in `why` where it is cache_dir. */
int bootcache_find(const char *cache_dir, const struct boot_runtime *rt, struct boot_found *out,
	struct err *e);

/* Adds the JVM's arguments by which what was found is used; nothing where there is nothing.
 * `ld_library_path`: of the JVM's environment, or NULL; it would be on java.library.path, too. */
void bootcache_add_args(const struct boot_found *f, const char *ld_library_path, struct strv *argv);

/* It is used now: what was not used for long is removed first. Errors do not matter. */
void bootcache_touch(const struct boot_found *f);

/* The JVM that was given the archive did not map it: it is set aside (renamed to NAME.ignored), so
 * that the next builder makes a new one. 0, or a negative errno (-EACCES: it is root's; a build
 * with `again` makes one of our own, which is found first). */
int bootcache_set_aside(const struct boot_found *f);

/* Does process `pid` have `file` mapped (/proc/PID/maps)? 1, 0, or a negative errno. It goes by the
 * name: what was renamed, or has lost its name to another file by an exchange, is not found. */
int bootcache_is_mapped(pid_t pid, const char *file);

/* Would a JVM with no other options take this archive (`java -Xshare:on -version` and the like)? 1:
 * it would; 0: *why is the reason, in its own words, owned by the caller; a negative errno: nothing
 * can be learnt. Runs a JVM for some 100 ms: not in the loop. */
int bootcache_is_accepted(const struct boot_runtime *rt, const struct boot_found *f, char **why);
