/* What a daemon gives to the image that replaces it in the same process (reexec): descriptors and
 * words, by name. They travel in a memfd whose number is in $H2OFLEET_HANDOVER.
 *
 * One list for the process: it is filled before the exec, and read after it. */
#pragma once

#include "base/err.h"

/* At the start: takes what there is, and forgets $H2OFLEET_HANDOVER. True when there was something:
 * we are the new image. All descriptors in it are close-on-exec again. */
bool handover_read(void);

/* The descriptor of that name, from now on the caller's; -1 when there is none. */
int handover_take_fd(const char *name_fmt, ...) _printf_(1, 2);
/* The word of that name; NULL when there is none. Valid until handover_drop(). */
const char *handover_word(const char *name);
/* Closes what nobody has taken. */
void handover_drop(void);

/* Fills the list; the descriptor stays the caller's. */
void handover_add_fd(int fd, const char *name_fmt, ...) _printf_(2, 3);
void handover_add_word(const char *name, const char *value);

/* Becomes `path`, with all signals blocked (one that comes meanwhile is for the new image) and no
 * descriptor but those of the list, 0, 1 and 2. Returns only on failure, a negative errno; then all
 * is as before and the list is empty. */
int handover_exec(const char *path, char *const *argv);
