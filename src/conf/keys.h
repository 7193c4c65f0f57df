/* The table of keys: all that is known about each key of the configuration. Parsing, defaults,
 * printing, comparing, copying, the manual page and what the control protocol may set come from it;
 * there is no second list. */
#pragma once

#include "base/err.h"
#include "conf/types.h"

#define KEY_WORDS_MAX   8  /* words that one key may have */
#define LIMIT_COUNT_MAX 60 /* failures that start_limit may allow */

enum key_section {
	SECTION_FLEET, /* offsets are into struct fleet_conf */
	SECTION_CLOUD, /* into struct cloud_conf */
};

/* When a changed value takes effect. */
enum key_reload {
	RELOAD_LIVE,   /* at once */
	RELOAD_CLOUD,  /* with the next generation of a cloud */
	RELOAD_DAEMON, /* with the next start of the daemon */
};

/* Whether setting it means running code or touching files as the daemon's user, letting others do
 * so, or filling a disk. */
enum key_privilege {
	PRIVILEGE_NONE,
	PRIVILEGE_PATH,   /* where it is set to a path */
	PRIVILEGE_CHANGE, /* where it is set to anything but its default */
	PRIVILEGE_ALL,
};

struct key_word {
	const char *name; /* NULL ends the list */
	int value;
};

struct key {
	enum key_section section;
	const char *name;
	const struct key_type *type;
	size_t offset, size; /* of the field */
	const char *dflt;    /* as text; NULL: unset, an empty value is allowed */
	/* Where the default depends on the environment or on the cloud; `dflt` then describes it.
	 * Owned by the caller; NULL: found later. */
	char *(*find_default)(const void *conf);
	int64_t min, max;
	const struct key_word *words; /* NULL, or at most KEY_WORDS_MAX */
	/* Checks, and may change, a field just set. */
	int (*check)(void *field, struct err *e);
	enum key_reload reload;
	enum key_privilege privilege;
	const char *help;
};

/* The whole table, [fleet] first. */
const struct key *keys_all(size_t *n);
/* Position in the table. */
size_t keys_index(const struct key *k);
/* NULL when there is none. */
const struct key *keys_find(enum key_section section, const char *name);
/* The name most like it in that section, or NULL. */
const char *keys_nearest(enum key_section section, const char *name);
/* "fleet", "cloud". */
const char *keys_section_name(enum key_section section);
/* Whether a text begins like a line "key = ..." of that section. */
bool keys_begins_line(enum key_section section, const char *s);

/* `conf` is the struct of the key's section in all of these. */

/* Sets the field, or unsets it with "" where that may be. On failure it is as before. */
int key_set(const struct key *k, void *conf, const char *value, struct err *e);
/* Sets the default in a struct where the field is empty. */
void key_set_default(const struct key *k, void *conf);
/* Owned by the caller; NULL where unset. */
char *key_get(const struct key *k, const void *conf);
bool key_equal(const struct key *k, const void *a, const void *b);
/* The field of `dst` must be empty. */
void key_copy(const struct key *k, void *dst, const void *src);
void key_clear(const struct key *k, void *conf);
bool key_is_privileged(const struct key *k, const char *value);

/* All keys of a section. */
void keys_set_defaults(enum key_section section, void *conf);
void keys_copy(enum key_section section, void *dst, const void *src);
bool keys_equal(enum key_section section, const void *a, const void *b);
void keys_clear(enum key_section section, void *conf);
