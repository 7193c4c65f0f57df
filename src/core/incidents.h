/* The incidents: why clouds were lost, with the evidence of that moment, kept over the lives of
 * daemons.
 *
 * One file each, DIR/ID.json: a JSON object whose first line holds the members that lists show
 * (incidents_summary()), so that a daemon that starts need not read the evidence. Bounded in number
 * and in bytes; the oldest go first. Written beside and renamed, without fsync(2), which could hold
 * the loop up: a power cut may cost the newest, a killed daemon never more than the one at hand.
 *
 * Ids sort by time and are unique in a state directory: 20261122-224015-123 is UTC, with
 * milliseconds, and later by one where two would be the same or the clock was set back. */
#pragma once

#include <jansson.h>

#include "base/err.h"

#define INCIDENT_ID_LEN 19

#define INCIDENTS_MAX       100
#define INCIDENTS_MAX_BYTES (16u << 20)
/* A longer one loses halves of its longest texts until it fits. */
#define INCIDENT_MAX_BYTES (256u << 10)

struct incidents;

/* Never fails: what cannot be read is said and left out. Removes what a daemon left half written,
 * and the *.txt of earlier versions. */
struct incidents *incidents_open(const char *dir, size_t max_n, uint64_t max_bytes);
/* NULL is fine. */
void incidents_close(struct incidents *in);

void incidents_new_id(struct incidents *in, uint64_t wall_ms, char id[INCIDENT_ID_LEN + 1]);

/* Keeps it, in place of an earlier one of the same "id". It is the caller's still, and its texts
 * may be shorter after that. A negative errno with a sentence. */
int incidents_put(struct incidents *in, json_t *incident, struct err *e);

size_t incidents_count(const struct incidents *in);
/* 0 is the newest. Valid until something is put or removed. */
const json_t *incidents_summary(const struct incidents *in, size_t i);
/* The newest id of this cloud, or NULL. */
const char *incidents_newest(const struct incidents *in, const char *cloud);

/* All of it, a new reference. -ENOENT: there is none, or not any more. */
int incidents_read(const struct incidents *in, const char *id, json_t **out, struct err *e);
int incidents_remove(struct incidents *in, const char *id, struct err *e);
