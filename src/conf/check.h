/* What the keys of a configuration must be to each other. */
#pragma once

#include "conf/conf.h"
#include "conf/keys.h"

/* `b` is NULL when one key alone is at fault. */
typedef void check_report_fn(
	void *u, const struct key *a, const struct key *b, const char *sentence);

/* Tells report() of each fault within one cloud. */
void check_cloud(const struct cloud_conf *c, int64_t baseport, check_report_fn *report, void *u);
/* The same between two clouds; the faults are those of `b`. */
void check_clouds(
	const struct cloud_conf *a, const struct cloud_conf *b, check_report_fn *report, void *u);
