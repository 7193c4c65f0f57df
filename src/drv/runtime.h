/* A runtime: a JVM and an h2o.jar. Found as the H2O clients find them, and identified.
 *
 * Java, as h2o-py h2o/backend/server.py _find_java: $H2O_JAVA_HOME, ./java (not done: the daemon
 * has no meaningful current directory), PATH, $JAVA_HOME; then the newest supported one of
 * /usr/lib/jvm. Jar, as _jar_paths there: $H2O_JAR_PATH; the h2o package of each Python that
 * packages.h finds (site-packages/h2o/backend/bin/h2o.jar); h2o_jar/h2o.jar in the prefixes of
 * these; then R's package (site-library/h2o/java/h2o.jar) and /opt/h2o*. What is set in the
 * environment and of no use is an error, as for these clients; so is a key. */
#pragma once

#include "base/err.h"
#include "base/strv.h"

/* Where a thing was looked for and what was there; for `doctor` and for error sentences. */
struct search_trace {
	struct strv tried; /* "PATH: /usr/bin/java: ..." in order */
};

/* Finds java. `configured` (key java, may be NULL) is the only place looked at when set. Returns 0
 * and the absolute path (owned by the caller), or -ENOENT, -EACCES ... with one sentence that says
 * where was looked and what to do. `trace` may be NULL. */
int runtime_find_java(
	const char *configured, struct search_trace *trace, char **path, struct err *e);

/* Finds h2o.jar likewise (key jar_path). Checks that it can be read and is a jar (a zip archive
 * with water/H2OApp.class). */
int runtime_find_jar(
	const char *configured, struct search_trace *trace, char **path, struct err *e);

/* The major version of a JVM (8, 11, 17) and the full text ("17.0.15") without running it, from the
 * `release` file of its home (the real path of `java` without bin/java). -ENOENT when there is
 * none: then the caller runs `java -version` and gives its output to
 * runtime_parse_java_version(). */
int runtime_java_release(const char *java, int *major, char **version);

/* From the output of `java -version`. -EINVAL when it is none. */
int runtime_parse_java_version(const char *output, int *major, char **version);

/* H2O's version ("3.46.0.12") out of the jar. *version is NULL where the jar does not tell. */
int runtime_jar_version(const char *jar, char **version, struct err *e);

/* H2O supports Java 8 to 17 (h2o-core/src/main/java/water/JavaVersionSupport.java). */
#define H2O_JAVA_MIN 8
#define H2O_JAVA_MAX 17

/* 0, or -ENOTSUP with the sentence "Java 21 is not supported by H2O 3.46.0.12 (8 to 17 are): ...",
 * which says what to do (another java; allow_unsupported_java = yes). */
int runtime_check_java(int major, const char *java, const char *h2o_version, bool allow_unsupported,
	struct err *e);

void search_trace_free(struct search_trace *t);
