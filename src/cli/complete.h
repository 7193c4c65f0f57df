/* What could stand where the cursor is. Shells ask by `h2ofleet __complete -- WORDS...`, so that
 * they know what this very program knows. */
#pragma once

#include "cli/cli.h"

/* `words` is the command line up to the cursor without the program's name; the last one, maybe "",
 * is to be completed. Writes a line for each candidate, with a tab and what it is behind it where
 * that is known; ":files" or ":dirs" where the shell knows better. Says nothing else. */
void complete_words(struct cli *cli, char **words, size_t n);

int cmd_complete(struct cli *cli, int argc, char **argv);
int cmd_completion(struct cli *cli, int argc, char **argv);
