/* Where things are when the configuration does not say: for systemd's services, for root, for a
 * user (XDG). Paths are absolute and owned by the caller. */
#pragma once

#include <sys/types.h>

#include "base/util.h"

/* $HOME, or what the user database says. */
char *dirs_home(void);

char *dirs_config(uid_t uid);
char *dirs_socket(uid_t uid);
char *dirs_state(uid_t uid);
char *dirs_cache(uid_t uid);
/* NULL: "log" below the state directory, whichever that is in the end. */
char *dirs_log(uid_t uid);
