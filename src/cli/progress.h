/* How far clouds are, while somebody waits: on a terminal one line that is redrawn, else a line for
 * each change. Both on cli->err; results go to cli->out. */
#pragma once

#include <jansson.h>

#include "cli/client.h"

struct progress {
	struct cli *cli;
	uint64_t begun_ms;
	struct strv shown; /* what was said last of each cloud */
	bool drawn;        /* the redrawn line is on the screen */
};

void progress_begin(struct progress *p, struct cli *cli);
/* `clouds`: an array of clouds as they are now. */
void progress_show(struct progress *p, const json_t *clouds);
/* Takes the redrawn line away. */
void progress_end(struct progress *p);

/* Until all calls (one per name) are done, or Ctrl-C; with `show` all of the above meanwhile, from
 * requests beside them. */
void progress_while(struct cli *cli, struct client *c, struct call *const *calls,
	const struct strv *names, bool show);
