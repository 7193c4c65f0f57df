/* Incidents for people. Pure: from JSON to a stream. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "base/util.h"

/* A list of summaries: a line each, and below it what happened. */
void show_incidents(FILE *f, const json_t *list, size_t width);
/* All of one, in sections. */
void show_incident(FILE *f, const json_t *incident, size_t width, bool color);
