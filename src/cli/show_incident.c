#include "cli/show_incident.h"

#include <inttypes.h>

#include "base/strbuf.h"
#include "base/text.h"
#include "cli/show.h"

#define LABEL_WIDTH 12

struct report {
	FILE *f;
	size_t width;
	bool color;
	const json_t *j;
};

/* ---- cells of the list ---- */

/* "dev/1"; "dev" when it is about no node in particular. */
static char *where(const json_t *j)
{
	_cleanup_free_ char *cloud = show_text(j, "cloud");
	int64_t node = show_int(j, "node", -1);

	return node < 0 ? xstrdup(cloud ? cloud : "?")
			: xasprintf("%s/%" PRId64, cloud ? cloud : "?", node);
}

/* "SIGSEGV", "exit code 3"; NULL: neither is known. */
static char *ending(const json_t *j)
{
	char *sig = show_text(j, "signal");

	if (sig || show_int(j, "code", -1) < 0)
		return sig;
	return xasprintf("exit code %" PRId64, show_int(j, "code", 0));
}

/* "kernel-oom, SIGKILL", "hang". */
static char *what(const json_t *j)
{
	_cleanup_free_ char *kind = show_text(j, "kind"), *cause = show_text(j, "cause");
	_cleanup_free_ char *end = streq_null(kind, "exit") ? ending(j) : NULL;

	return xasprintf("%s%s%s",
		cause  ? cause
		: kind ? kind
		       : "?",
		end ? ", " : "", end ? end : "");
}

void show_incidents(FILE *f, const json_t *list, size_t width)
{
	static const char *const headings[] = {"ID", "TIME", "NODE", "WHAT"};
	struct show_table t = {.n_columns = ARRAY_SIZE(headings),
		.n_rows = json_array_size(list) + 1,
		.state_column = SIZE_MAX};
	size_t widths[ARRAY_SIZE(headings)];

	t.cells = xcalloc(t.n_rows * t.n_columns, sizeof(*t.cells));
	for (size_t c = 0; c < t.n_columns; c++)
		t.cells[c] = xstrdup(headings[c]);
	for (size_t r = 1; r < t.n_rows; r++) {
		const json_t *j = json_array_get(list, r - 1);
		char **cells = t.cells + r * t.n_columns;

		cells[0] = show_text(j, "id");
		cells[1] = show_time(j, "time");
		cells[2] = where(j);
		cells[3] = what(j);
		for (size_t c = 0; c < 2; c++)
			if (!cells[c])
				cells[c] = xstrdup("-");
		if (strlen(cells[1]) > 19) /* whole seconds will do */
			cells[1][19] = '\0';
	}
	show_widths(&t, widths);
	for (size_t r = 0; r < t.n_rows; r++) {
		_cleanup_free_ char *why =
			r ? show_text(json_array_get(list, r - 1), "summary") : NULL;

		show_row(f, &t, widths, r);
		if (why)
			show_wrapped(f, width, 4, why);
	}
	for (size_t i = 0; i < t.n_rows * t.n_columns; i++)
		free(t.cells[i]);
	free(t.cells);
}

/* ---- the report ---- */

static void heading(const struct report *r, const char *title, const char *more)
{
	fprintf(r->f, "\n%s%s%s%s%s\n", r->color ? "\033[1m" : "", title, more ? ": " : "",
		more ? more : "", r->color ? "\033[0m" : "");
}

/* Nothing for NULL. */
static void line(const struct report *r, const char *label, const char *value)
{
	if (value)
		fprintf(r->f, "  %-*s%s\n", LABEL_WIDTH, label, value);
}

/* Of a text every line, harmless. */
static void lines(const struct report *r, const char *text)
{
	while (text && *text) {
		size_t n = strcspn(text, "\n");
		_cleanup_free_ char *shown = text_visible(text, n);

		fprintf(r->f, *shown ? "  %s\n" : "%s\n", shown);
		text += n + (text[n] == '\n');
	}
}

static void section(const struct report *r, const char *title, const char *more, const char *text)
{
	if (!text || !*text)
		return;
	heading(r, title, more);
	lines(r, text);
}

/* "1.5 GB"; NULL when it is not known. */
static char *size_of(const json_t *obj, const char *key)
{
	int64_t bytes = show_int(obj, key, -1);

	return bytes < 0 ? NULL : text_human_size((uint64_t)bytes);
}

static char *duration_of(const json_t *obj, const char *key)
{
	int64_t ms = show_int(obj, key, -1);

	return ms < 0 ? NULL : text_human_duration((uint64_t)ms);
}

static char *outcome(const json_t *j)
{
	const char *word = json_string_value(json_object_get(j, "outcome"));
	_cleanup_free_ char *delay = duration_of(j, "restart_delay_ms");

	if (!word)
		return xstrdup("not known: it is under way, or the daemon ended meanwhile");
	if (streq(word, "given-up"))
		return xstrdup("the cloud was given up (failed) until somebody starts it");
	if (streq(word, "stopped"))
		return xstrdup("the cloud was stopped");
	if (show_int(j, "restart_delay_ms", 0) > 0)
		return xasprintf("the cloud was started again, after %s", delay);
	return xstrdup("the cloud was started again at once");
}

static void report_head(const struct report *r)
{
	const json_t *j = r->j;
	_cleanup_free_ char *id = show_text(j, "id"), *at = where(j),
			    *why = show_text(j, "summary");
	_cleanup_free_ char *when = show_time(j, "time"), *kind = what(j), *then = outcome(j);
	_cleanup_free_ char *state = show_text(j, "cloud_state"), *name = show_text(j, "h2o_name");
	_cleanup_free_ char *ready = duration_of(j, "ready_for_ms"), *was = NULL;

	fprintf(r->f, "%sincident %s: %s, generation %" PRId64 "%s\n", r->color ? "\033[1m" : "",
		id ? id : "-", at, show_int(j, "generation", 0), r->color ? "\033[0m" : "");
	show_wrapped(r->f, r->width, 2, why ? why : "-");
	fputc('\n', r->f);
	if (state)
		was = xasprintf("%s%s%s%s", state, ready ? ", ready for " : "", ready ? ready : "",
			ready ? "" : ", not ready yet");
	line(r, "time", when);
	line(r, "what", kind);
	line(r, "cloud was", was);
	line(r, "H2O name", name);
	line(r, "then", then);
}

static void report_process(const struct report *r)
{
	const json_t *j = r->j, *oom = json_object_get(j, "oom");
	const json_t *kernel = json_object_get(oom, "kernel"), *java = json_object_get(oom, "java");
	_cleanup_free_ char *end = ending(j), *up = duration_of(j, "uptime_ms"), *pid = NULL;
	_cleanup_free_ char *java_line = show_text(oom, "java_line");

	if (!json_is_object(oom))
		return;
	heading(r, "process", NULL);
	if (show_int(j, "pid", 0) > 0)
		pid = xasprintf("%" PRId64, show_int(j, "pid", 0));
	line(r, "pid", pid);
	line(r, "ended with", end);
	line(r, "after", up);
	line(r, "OOM killer",
		json_is_true(json_object_get(oom, "at_memory_max"))
			? "has killed, at the cloud's memory_max"
		: json_is_true(kernel)  ? "has killed at that time"
		: json_is_false(kernel) ? "has not killed at that time"
					: NULL);
	line(r, "Java heap",
		java_line             ? java_line
		: json_is_false(java) ? "no OutOfMemoryError in the end of the log"
				      : NULL);
}

static void report_load(const struct report *r, const json_t *machine)
{
	const json_t *load = json_object_get(machine, "load");
	const json_t *p = json_object_get(machine, "pressure");
	const char *of = json_string_value(json_object_get(p, "of"));
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	static const char *const whats[] = {"cpu", "memory", "io"};
	size_t i;
	const json_t *v;

	json_array_foreach (load, i, v)
		strbuf_printf(&b, "%s%.2f", i ? " " : "", json_number_value(v));
	if (b.len)
		strbuf_printf(&b, " on %" PRId64 " cores", show_int(machine, "cores", 0));
	line(r, "load", b.len ? strbuf_str(&b) : NULL);
	strbuf_reset(&b);
	for (i = 0; i < ARRAY_SIZE(whats); i++)
		if (json_is_number(json_object_get(p, whats[i])))
			strbuf_printf(&b, "%s%s %.0f%%", b.len ? ", " : "", whats[i],
				json_number_value(json_object_get(p, whats[i])));
	if (b.len)
		strbuf_puts(&b, streq_null(of, "cloud") ? " (of the cloud)" : " (of the machine)");
	line(r, "pressure", b.len ? strbuf_str(&b) : NULL);
}

static void report_memory(const struct report *r)
{
	const json_t *machine = json_object_get(r->j, "machine");
	const json_t *memory = json_object_get(r->j, "memory");
	_cleanup_free_ char *max = size_of(memory, "max_bytes"), *heaps = NULL, *all = NULL;
	_cleanup_free_ char *free_heap = size_of(memory, "free_bytes");
	_cleanup_free_ char *total = size_of(machine, "memory_bytes");
	_cleanup_free_ char *left = size_of(machine, "memory_available_bytes");

	if (!json_is_object(machine))
		return;
	heading(r, "memory and load", NULL);
	if (max && free_heap)
		heaps = xasprintf("%s free of %s, when H2O was last asked", free_heap, max);
	if (total && left)
		all = xasprintf("%s available of %s", left, total);
	line(r, "heaps", heaps);
	line(r, "machine", all);
	report_load(r, machine);
}

static void report_nodes(const struct report *r)
{
	const json_t *nodes = json_object_get(r->j, "nodes"), *n;
	size_t i;

	if (json_array_size(nodes) < 2)
		return;
	heading(r, "nodes", NULL);
	json_array_foreach (nodes, i, n) {
		_cleanup_free_ char *label =
			xasprintf("node %" PRId64, show_int(n, "index", (int64_t)i));
		_cleanup_free_ char *silent = duration_of(n, "silent_ms"), *text = NULL;
		int64_t pid = show_int(n, "pid", 0);

		text = pid > 0 ? xasprintf("pid %" PRId64 ", %s%s%s", pid,
					 silent ? "answered " : "has never answered",
					 silent ? silent : "", silent ? " ago" : "")
			       : xstrdup("has ended");
		line(r, label, text);
	}
}

static void report_dump(const struct report *r)
{
	const char *dump = json_string_value(json_object_get(r->j, "thread_dump"));
	const char *note = json_string_value(json_object_get(r->j, "thread_dump_note"));

	if (!dump && !note)
		return;
	heading(r, "thread dump", NULL);
	lines(r, note);
	lines(r, dump);
}

void show_incident(FILE *f, const json_t *j, size_t width, bool color)
{
	const struct report r = {f, width, color, j};
	const json_t *hs_err = json_object_get(j, "hs_err");
	const char *log = json_string_value(json_object_get(j, "log_tail"));
	const char *elsewhere = json_string_value(json_object_get(j, "log_elsewhere"));
	_cleanup_free_ char *file = show_text(j, "log_file"), *report = show_text(hs_err, "path");

	report_head(&r);
	report_process(&r);
	report_memory(&r);
	report_nodes(&r);
	section(&r, "the JVM's crash report", report,
		json_string_value(json_object_get(hs_err, "head")));
	if (log && !*log)
		log = "(it has written nothing)\n";
	section(&r, "last lines of its log", file, log ? log : elsewhere);
	report_dump(&r);
	section(&r, "/proc", NULL, json_string_value(json_object_get(j, "proc")));
}
