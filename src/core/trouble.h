/* What hinders the daemon itself: no descriptors, no room on a disk or for another process, a lost
 * control socket. Each trouble is said once, when it begins (log, event, status), stays listed
 * while it lasts, and is said to be over once. Whoever meets it tries again, with back-off; nothing
 * that runs is harmed by it. */
#pragma once

#include "core/fleet.h"

enum trouble_kind {
	TROUBLE_STATE,  /* a cloud's state file cannot be written; no cloud: the session */
	TROUBLE_LAUNCH, /* nothing can be launched: processes, descriptors, memory, disk */
	TROUBLE_POLLS,  /* nodes cannot be asked whether they are well */
	TROUBLE_SOCKET, /* the control socket is gone, or takes nobody in */
	TROUBLE_LOGS,   /* a cloud's logs cannot be rotated */
	TROUBLE_GATE,   /* no gate, or a cloud's endpoint cannot be listened on */
	TROUBLE_BOOT,   /* what makes boots shorter cannot be made */
	TROUBLE_DISK,   /* a file system that we need is full */
	N_TROUBLE_KINDS
};

struct trouble {
	enum trouble_kind kind;
	char *cloud;       /* NULL: the whole daemon's */
	char *sentence;    /* what, where, what to do */
	uint64_t since_ms; /* fleet_now() */
	struct trouble *next;
};

/* "state", "launch", ...: stable words for the JSON. */
const char *trouble_kind_name(enum trouble_kind kind);

/* It is so. Said when it was not so already; otherwise only the sentence is replaced. `cloud` may
 * be NULL. */
void trouble_set(struct fleet *f, enum trouble_kind kind, const char *cloud, const char *sentence);
/* It is so no longer. Nothing when it was not. */
void trouble_clear(struct fleet *f, enum trouble_kind kind, const char *cloud);
bool trouble_is_set(const struct fleet *f, enum trouble_kind kind, const char *cloud);

/* The oldest first; NULL: all is well. */
const struct trouble *fleet_troubles(const struct fleet *f);
/* All of it in a line for STATUS=; NULL: all is well. Valid until the next change. */
const char *fleet_trouble(const struct fleet *f);

/* What to do about a failure that is the machine's or ours, not the configuration's: "; raise
 * ..."; "" where there is nothing to say. `r`: a negative errno. */
const char *trouble_advice(int r);
/* Whether a failure is for lack of something that may come back: descriptors, processes, memory,
 * room. */
bool trouble_is_shortage(int r);

/* fleet.c, at its end. */
void troubles_free(struct fleet *f);
