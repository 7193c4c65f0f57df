/* `h2ofleet doctor`: what would keep a cloud from starting on this machine, or hurt it later, each
 * with what to do about it. Works without a daemon. */
#pragma once

#include <stdio.h>

#include "base/util.h"

/* config_file, socket: NULL for the usual places. Writes a list for people or, with `json`,
 * {"ok":bool,"checks":[{"check":"java","level":"ok|warning|problem","found":"...","advice":"..."}]}
 * ("advice" only where there is something to do). Returns 0 when nothing keeps a cloud from
 * starting, else 1. */
int cmd_doctor(const char *config_file, const char *socket, bool json, FILE *out);
