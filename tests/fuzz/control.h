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
};

/* A fresh fleet is asked, on a connection of its own, which is closed after that. All answers must
 * be what HTTP and we ourselves promise. The status of the first one; 0: none came. */
int control_talk(const struct control_talk *how, const char *data, size_t len);

/* As it is after that: clouds "dev" (ready), "other" (stopped) and "mine" (made at run time). */
struct fleet *control_fleet(void);
