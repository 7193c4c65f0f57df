/* Where Python and R packages are installed on this machine: found by path alone, nothing is run.
 */
#pragma once

#include "base/strv.h"

struct package_places {
	struct strv prefixes; /* Python's sys.prefix: "/usr", "/home/ann/venv" */
	struct strv sites;    /* ".../lib/python3.11/site-packages" */
	struct strv r_libs;   /* "/usr/lib/R/site-library" */
};

/* Existing directories only, each once; the likeliest first: $VIRTUAL_ENV, $CONDA_PREFIX, the
 * python3 on PATH (its virtual environment, pyenv's chosen version), the user's own (~/.local),
 * then the system's and /opt/h2o*. */
void package_places_find(struct package_places *p);
void package_places_free(struct package_places *p);

/* Directories of a fixed name ("/usr/lib/jvm") are looked for below `root`: for tests. "" undoes.
 */
void packages_set_root(const char *root);
/* `path` below that root; owned by the caller. */
char *packages_fixed_path(const char *path);

/* The user's home directory; owned by the caller; NULL when there is none. */
char *packages_home(void);

/* The value of $name, or NULL when it is unset or empty. */
const char *env_value(const char *name);

/* Absolute paths of `file` in the directories of PATH where there is something of that name. */
void path_candidates(const char *file, struct strv *out);
