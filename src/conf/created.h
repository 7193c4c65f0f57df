/* Clouds that are made at run time: each is a file of its own, state_dir/created/NAME.conf, an
 * ordinary one with a section [cloud NAME]. Only the keys that were given stand in it. Pure, but
 * for what conf_load_all() reads. */
#pragma once

#include "conf/conf.h"

/* Both owned by the caller. */
char *created_dir(const char *state_dir);
char *created_path(const char *state_dir, const char *name);

struct key_edit {
	const char *key;
	const char *value; /* as in a file; NULL: back to the default */
};

/* Sets keys, and what of it is `given`. Who is not `privileged` may set and take back no privileged
 * key, nor ask for a port below 1024. 0; -EPERM: only for lack of privileges; -EINVAL. Then all
 * that is wrong is in *errors, a sentence that begins with its key each, and `c` is good for
 * nothing. */
int created_edit(struct cloud_conf *c, const struct key_edit *edits, size_t n, bool privileged,
	struct strv *errors) _must_check_;

/* The privileged keys that it has: "env, java". Owned by the caller; NULL: none. */
char *created_privileged_keys(const struct cloud_conf *c);

/* The text of its file, proven to be read as the same again. Owned by the caller; NULL, and why. */
char *created_text(const struct cloud_conf *c, struct err *e);

/* Changes when any key does, or what is given; without `privileged` not for the values of keys that
 * only root and the daemon's user may read, which could be guessed by it. */
uint64_t created_hash(const struct cloud_conf *c, bool privileged);
