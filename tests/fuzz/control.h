/* The control protocol's server, as it is, over a fake fleet and socket pairs, in one loop with its
 * client. */
#pragma once

#include "api/server.h"
#include "../unit/fake_fleet.h"

/* Once. */
void control_begin(void);

struct control_talk {
	bool group;     /* we are in the group of the socket, and no more */
	bool half_open; /* we end our sending side when all is sent */
	size_t step;    /* bytes that are sent at a time; 0: all */
	uint8_t world;  /* how it stands with the fleet; 0: well */
};

/* Of `world`. The lowest three bits: why the fleet refuses what is to be made or changed. */
#define WORLD_REFUSAL 0x07
#define WORLD_NO_JOBS 0x08 /* H2O is being asked for its jobs */
#define WORLD_FAILED  0x10 /* "dev" has failed, and there is more to tell of it */
#define WORLD_HAPPENS 0x20 /* once all is sent: events, a log that grows, a cloud that stops */
#define WORLD_TIME    0x40 /* and then time passes: more than anybody waits */
#define WORLD_ENDS    0x80 /* the daemon ends */

/* A fresh fleet is asked, on a connection of its own, which is closed after that. All answers must
 * be what HTTP and we ourselves promise. The status of the first one; 0: none came. */
int control_talk(const struct control_talk *how, const char *data, size_t len);

/* As it is after that: clouds "dev" (ready), "other" (stopped) and "mine" (made at run time). */
struct fleet *control_fleet(void);
