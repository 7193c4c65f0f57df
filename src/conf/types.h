/* The types of configuration values: how each is read, written, copied and released. */
#pragma once

#include "base/err.h"

struct key;

/* How a field holds a value. */
enum key_storage {
	STORE_PLAIN, /* in itself; all bytes zero where unset */
	STORE_STR,   /* char *, owned; NULL where unset */
	STORE_STRV,  /* struct strv */
};

struct key_type {
	const char *form; /* "a time such as 250ms, 10s, 5m or 1h" */
	const char *unit; /* of the field; "" where it has none */
	enum key_storage storage;
	size_t size; /* of the field */
	/* Sets the field (which holds nothing that is owned) from a text that is not empty. Returns
	 * 0, or -EINVAL or -ERANGE with a sentence; then the field is as it was. */
	int (*parse)(const struct key *k, void *field, const char *s, struct err *e);
	/* The text which parses to the same; owned by the caller; NULL where unset. */
	char *(*print)(const struct key *k, const void *field);
};

extern const struct key_type type_bool;     /* bool */
extern const struct key_type type_int;      /* int64_t; also a word of the key */
extern const struct key_type type_word;     /* int; one of the key's words */
extern const struct key_type type_level;    /* char *; one of the key's words */
extern const struct key_type type_text;     /* char * */
extern const struct key_type type_path;     /* char *; absolute; or a word of the key */
extern const struct key_type type_pathlist; /* char *; absolute paths with ':' between them */
extern const struct key_type type_list;     /* struct strv; words */
extern const struct key_type type_time;     /* uint64_t, ms; also a word of the key */
extern const struct key_type type_size;     /* uint64_t, bytes */
extern const struct key_type type_memory;   /* struct mem_spec */
extern const struct key_type type_quota;    /* int64_t, percent; 0 where unset */
extern const struct key_type type_port;     /* struct port_spec */
extern const struct key_type type_limit;    /* struct limit_spec */

/* 'text', harmless on a terminal and cut when long: for messages. Owned by the caller. */
char *types_quote(const char *s);
