/* What is known of a command beyond its function: its options and words, as data. The source is
 * the text that --help shows, in which the lines of options are regular; completion and the manual
 * page come from it too, and a test holds it to what cli_parse() is given. */
#pragma once

#include "cli/cli.h"

struct option_doc {
	char letter;         /* 0: none */
	char *name;          /* owned; without "--" */
	char *value;         /* owned: "T", "FILE", "ready|stopped"; NULL: a flag */
	bool may_omit_value; /* "--watch[=T]" */
	char *help;          /* owned: one line */
};

struct option_docs {
	struct option_doc *v;
	size_t n;
};

/* From a usage text: lines "  -f, --follow  text", with what goes on below, deeper indented. */
struct option_docs option_docs_read(const char *usage);
void option_docs_free(struct option_docs *d);
const struct option_doc *option_docs_find(const struct option_docs *d, const char *name);

/* Of the args of a command, which word stands at position `i` (from 0): "CLOUD", "CLOUD[/N]",
 * "bash|zsh|fish", "CMD"; NULL: none. Owned by the caller. */
char *command_word(const char *args, size_t i);

/* The options that every command takes, as in a usage text. */
extern const char cli_common_options[];
