/* What the daemon owns and therefore no list of the configuration may contain: each with the key to
 * use instead. */
#pragma once

#include "base/err.h"
#include "base/strv.h"

/* Each returns 0, or -EINVAL with all offenders of the list in one sentence. */
int reserved_check_h2o_args(const struct strv *words, struct err *e);
int reserved_check_jvm_args(const struct strv *words, struct err *e);
int reserved_check_env(const struct strv *words, struct err *e);
