/* What of a cloud outlives the daemon, as JSON for its state file, and how a cloud goes on from it.
 *
 * Pure: the state file itself, and whether a remembered process still is that process, is for
 * core/state.c and core/adopt.c. Times are stored as ages, since the next daemon's clock differs.
 */
#pragma once

#include <jansson.h>

#include "model/cloud.h"

/* Owned by the caller. */
json_t *cloud_memory(const struct cloud *c, uint64_t now_ms);

/* Fills a cloud fresh from cloud_new() from what cloud_memory() made `gap_ms` ago; its state stays
 * *stopped* until it is given EVENT_RESUME with what comes in *was. Nodes have the pid that they
 * had. -EINVAL, with a sentence, when it is no such memory or one of a cloud of another size;
 * then the cloud must be thrown away. */
int cloud_remember(struct cloud *c, const json_t *memory, uint64_t now_ms, uint64_t gap_ms,
	enum cloud_state *was, struct err *e);

/* EVENT_RESUME. Where all members may serve they go on serving: a cloud that was ready is ready at
 * once, and asked in full whether it still is. What was being ended is ended, what was only half
 * launched is begun anew. For members that are gone EVENT_EXITED follows. */
void cloud_resume(struct cloud *c, enum cloud_state was, bool half_launched, uint64_t now_ms);
