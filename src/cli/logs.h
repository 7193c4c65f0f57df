/* `logs`: what was asked, and how a line is shown. */
#pragma once

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/loglines.h"

/* The most that the daemon gives of a log in one answer. */
#define LOGS_LINES_MAX 100000

struct logs {
	struct cli *cli;
	struct client *client;
	char *cloud;   /* as asked */
	int64_t node;  /* negative: all of them */
	int64_t lines; /* of each node */
	int64_t ask;   /* so many, to have these after the filter */
	bool named;    /* lines of several nodes: each begins with its node's name */
	struct log_filter filter;
	struct log_merge merge;
};

/* Prints it for people; `arg` is the struct logs. */
void logs_print(int64_t node, const char *line, size_t len, void *arg);
/* All that is merged, of each node the last `last`. */
void logs_flush(struct logs *l, size_t last);

/* logs_follow.c: until Ctrl-C. */
int logs_follow(struct logs *l);
