/* Streams that outlast the daemon: after its restart, reexec or death they go on where they were.
 */
#pragma once

#include "cli/client.h"

/* A stream of lines. */
struct follow {
	/* The request from the place on where we are; owned by the caller. */
	char *(*target)(struct follow *f);
	/* The head of an answer came: what was cut off of the last one comes again, or not. */
	void (*begin)(struct follow *f);
	void (*data)(struct follow *f, const char *data, size_t n);

	struct cli *cli;
	struct call *call; /* NULL: none is on its way */
	bool greeted;      /* begin() was called for it */
	bool over;         /* for good; */
	int code;          /* with this exit code */
	uint64_t retry_ms; /* when to ask again, */
	unsigned pause_ms; /* after so long */
};

/* Those that are followed, which may become more meanwhile. */
struct followed {
	struct follow **v; /* owned by the caller, as all in it */
	size_t n;
	/* After each turn, at least a few times a second; NULL: nothing. It may change the list. */
	void (*turned)(struct followed *all, void *arg);
	void *arg;
};

/* Until all of them are over, or Ctrl-C (CLI_INTERRUPTED, and nothing is said). A daemon that does
 * not answer is waited for: whether there is one at all, the caller has found out before. */
int follow_all(struct cli *cli, struct client *c, struct follow **all, size_t n);
int follow_these(struct cli *cli, struct client *c, struct followed *all);

/* Puts lines together from pieces; those without an end for very long are given in parts. */
struct lines {
	char *part; /* owned: of a line that has not ended */
	size_t len, cap;
};

void lines_add(struct lines *l, const char *data, size_t n,
	void (*line)(const char *text, size_t len, void *arg), void *arg);
void lines_clear(struct lines *l);
