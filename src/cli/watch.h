/* `status --watch`: the whole screen of a terminal, redrawn. */
#pragma once

#include <jansson.h>

#include "cli/cli.h"

#define WATCH_DEFAULT_MS 1000
#define WATCH_MIN_MS     100

/* Until q (CLI_OK) or Ctrl-C (CLI_INTERRUPTED). A daemon that goes away meanwhile is waited for.
 * `names`: of clouds, shown with their nodes; empty: all clouds. */
int watch_status(struct cli *cli, const struct strv *names, uint64_t interval_ms);

/* `text` as it goes on a screen of that size, from its top: no line wraps or scrolls, and nothing
 * of what was there before stays. Escape sequences that end in `m` take no room. Owned by the
 * caller. */
char *watch_frame(const char *text, size_t rows, size_t columns);

/* status.c: the answer of GET /v1/clouds for people. */
void status_print(FILE *f, const json_t *answer, bool nodes, size_t width, bool color);
