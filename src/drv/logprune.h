/* The bound on all bytes of a cloud's logs: the oldest go first. Used by the rotation, under its
 * lock. */
#pragma once

#include "base/err.h"
#include "base/strv.h"

/* The names of the logs in a folder: 0.log, 1.log, ... What a killed rotation has left half
 * written is removed. */
int logprune_find(const char *dir, struct strv *logs, struct err *e);

/* Removes parts and the JVMs' crash reports, oldest first, until, with each log grown to max_size
 * and one more part being written, no more than max_total is there. The newest crash reports stay;
 * H2O's own log files (h2o_*.log) are H2O's to bound (max_log_file_size), and do not count. */
int logprune(const char *dir, uint64_t max_size, uint64_t max_total, struct err *e);
