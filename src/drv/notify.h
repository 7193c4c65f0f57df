/* What systemd is told (sd_notify(3), over $NOTIFY_SOCKET), and how often it wants to hear from us.
 *
 * libsystemd's own functions wait while the receiver's queue is full, and a stuck systemd must not
 * hold up supervision: these never do. Without $NOTIFY_SOCKET nothing is sent, which is no error.
 */
#pragma once

#include <stdint.h>

#include "base/util.h"

/* Lines "NAME=value" with newlines between them. 0; -EAGAIN when systemd's queue is full: say it
 * again later; or another negative errno. */
int notify_send(const char *lines);
int notify_sendf(const char *fmt, ...) _printf_(1, 2);

/* $WATCHDOG_USEC in milliseconds, if it is meant for this process; 0: no watchdog. */
uint64_t notify_watchdog_ms(void);
