/* What differs between two configurations, and when each difference can take effect: the key table
 * says that of every key. Pure. */
#pragma once

#include "conf/conf.h"
#include "conf/keys.h"

struct key_change {
	const struct key *key;
	char *before, *after; /* owned, as the files have them; NULL: unset */
};

struct key_changes {
	struct key_change *v; /* owned, in the order of the table */
	size_t n;
};

enum cloud_change_kind {
	CHANGE_NONE,
	CHANGE_LIVE,    /* all of it can take effect at once */
	CHANGE_RESTART, /* some of it with the next generation only */
	CHANGE_ADDED,
	CHANGE_REMOVED,
};

struct cloud_change {
	char *name; /* owned */
	enum cloud_change_kind kind;
	struct key_changes keys; /* of a cloud that is in both */
	bool applied;            /* for who applies it to say: nothing of it waits */
};

struct conf_diff {
	struct key_changes fleet;
	struct cloud_change *clouds; /* owned; in the order of `after`, then the removed ones */
	size_t n;
};

/* `out` needs no initialisation; owned by the caller. A changed baseport is also a change of each
 * cloud that goes by it. */
void conf_diff_make(const struct conf *before, const struct conf *after, struct conf_diff *out);
void conf_diff_clear(struct conf_diff *d);

/* One cloud in both. */
void cloud_change_make(
	const struct cloud_conf *was, const struct cloud_conf *is, struct cloud_change *out);
void cloud_change_clear(struct cloud_change *ch);

/* "unchanged", "live", "restart", "added", "removed": the words of the JSON. */
const char *cloud_change_name(enum cloud_change_kind kind);

/* "live", "restart", "daemon". */
const char *key_reload_name(enum key_reload reload);

/* Copies the changed keys that may change `at` that time from one struct of `section` to another of
 * it. */
void key_changes_apply(const struct key_changes *changes, enum key_section section,
	enum key_reload at, void *to, const void *from);
/* Adds the names of those that take effect then. */
void key_changes_names(const struct key_changes *changes, enum key_reload at, struct strv *names);
