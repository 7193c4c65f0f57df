/* Who makes what is lacking in the boot cache (drv/bootbuild.h): a process of its own at idle
 * priority, one at a time, while all clouds are ready or at rest. It must cost nobody anything: as
 * soon as a cloud does anything else it is told to end, and tried again after a longer calm.
 *
 * What it has made is found by the next launch; nothing that runs is touched. */
#pragma once

#include "core/internal.h"

void bootbuilder_new(struct fleet *f);
/* It is told to end, if it is at work. The loop must run on until it has. */
void bootbuilder_free(struct fleet *f);

/* Something may be lacking now: a cloud has become ready, the configuration has changed. */
void bootbuilder_wake(struct fleet *f);
/* After each step of a cloud: is it still calm? */
void bootbuilder_look(struct supervised *s);
/* Also while it is on its way out: its nodes may have ports. */
bool bootbuilder_is_at_work(const struct fleet *f);
/* To be called every second. */
void bootbuilder_beat(struct fleet *f);
/* The fleet ends. True: none is at work; else fleet_check_done() follows. */
bool bootbuilder_end(struct fleet *f, bool at_once);

/* The environment of processes that it starts. */
void bootbuilder_env(const struct fleet *f, struct strv *env);
