/* What a command or a table wrote, and how to look at it. After <cmocka.h>. */
#pragma once

#include <jansson.h>
#include <stdio.h>

#include "base/strbuf.h"
#include "cli/cli.h"
#include "cli/show.h"

struct output {
	struct cli cli;
	struct strbuf printed, complained;
	const char *out, *err; /* what was printed until the last output_flush() */
};

_unused_ static void output_open(struct output *o)
{
	memset(o, 0, sizeof(*o));
	o->cli.out = strbuf_stream(&o->printed);
	o->cli.err = strbuf_stream(&o->complained);
	o->cli.out_width = o->cli.err_width = 80;
}

_unused_ static void output_flush(struct output *o)
{
	fflush(o->cli.out);
	fflush(o->cli.err);
	o->out = strbuf_str(&o->printed);
	o->err = strbuf_str(&o->complained);
}

_unused_ static void output_close(struct output *o)
{
	fclose(o->cli.out);
	fclose(o->cli.err);
	strbuf_free(&o->printed);
	strbuf_free(&o->complained);
	free(o->cli.failure);
}

_unused_ static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in:\n%s", part, text);
}

_unused_ static void assert_has_not(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("'%s' is in:\n%s", part, text);
}

_unused_ static void assert_fits(const char *text)
{
	while (*text) {
		size_t len = strcspn(text, "\n");
		_cleanup_free_ char *line = xstrndup(text, len);

		if (show_columns(line) > 80)
			fail_msg("wider than 80 columns: %s", line);
		if (len && line[len - 1] == ' ')
			fail_msg("blanks at the end of '%s'", line);
		text += len + (text[len] == '\n');
	}
}

_unused_ static json_t *parse_json(const char *text)
{
	json_error_t e;
	json_t *j = json_loads(text, 0, &e);

	if (!j)
		fail_msg("bad JSON in the test: %s", e.text);
	return j;
}
