#include "cli/show.h"

#include <inttypes.h>
#include <time.h>

#include "base/strbuf.h"
#include "base/text.h"
#include "cli/cli.h"

#define GAP             2
#define LOG_LINES_SHOWN 10

char *show_text(const json_t *obj, const char *key)
{
	const json_t *s = json_object_get(obj, key);

	return json_is_string(s) ? text_visible(json_string_value(s), json_string_length(s)) : NULL;
}

int64_t show_int(const json_t *obj, const char *key, int64_t otherwise)
{
	const json_t *n = json_object_get(obj, key);

	return json_is_integer(n) ? json_integer_value(n) : otherwise;
}

int64_t show_sum(const json_t *array, const char *key)
{
	const json_t *one;
	int64_t all = 0;
	size_t i;

	json_array_foreach (array, i, one)
		all += show_int(one, key, 0);
	return all;
}

char *show_duration(const json_t *obj, const char *key)
{
	int64_t ms = show_int(obj, key, -1);

	return ms < 0 ? xstrdup("-") : text_human_duration((uint64_t)ms);
}

static char *show_number(const json_t *obj, const char *key)
{
	int64_t n = show_int(obj, key, -1);

	return n < 0 ? xstrdup("-") : xasprintf("%" PRId64, n);
}

static char *show_or_dash(const json_t *obj, const char *key)
{
	char *s = show_text(obj, key);

	return s ? s : xstrdup("-");
}

char *show_time(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key)), *end;
	struct tm utc = {0}, local;
	char text[40];
	time_t t;

	end = s ? strptime(s, "%Y-%m-%dT%H:%M:%S", &utc) : NULL;
	if (!end || (*end != '.' && *end != 'Z'))
		return NULL;
	t = timegm(&utc);
	if (t < 0 || !localtime_r(&t, &local))
		return NULL;
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local);
	return xasprintf("%s%.4s", text, strspn(end, ".0123456789") >= 4 ? end : ".000");
}

char *show_nodes_up(const json_t *cloud)
{
	const json_t *nodes = json_object_get(cloud, "nodes"), *n;
	size_t i, up = 0;

	json_array_foreach (nodes, i, n)
		up += streq_null(json_string_value(json_object_get(n, "state")), "up");
	return xasprintf("%zu/%" PRId64, up, show_int(cloud, "size", 0));
}

size_t show_columns(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

const char *show_state_color(const char *state)
{
	static const struct {
		const char *state, *color;
	} colors[] = {
		{"ready", "\033[32m"},
		{"up", "\033[32m"},
		{"failed", "\033[31m"},
		{"exited", "\033[31m"},
		{"stopped", ""},
		{"down", ""},
		{"STATE", ""},
	};

	for (size_t i = 0; i < ARRAY_SIZE(colors); i++)
		if (strcspn(state, " ") == strlen(colors[i].state) && /* "stopped (starts ...)" */
			has_prefix(state, colors[i].state))
			return colors[i].color;
	return "\033[33m";
}

void show_widths(const struct show_table *t, size_t *widths)
{
	for (size_t c = 0; c < t->n_columns; c++) {
		widths[c] = 0;
		for (size_t r = 0; r < t->n_rows; r++)
			widths[c] = MAX(widths[c], show_columns(t->cells[r * t->n_columns + c]));
	}
}

void show_row(FILE *f, const struct show_table *t, const size_t *widths, size_t row)
{
	char **cells = t->cells + row * t->n_columns;
	size_t blanks = 0;

	for (size_t c = 0; c < t->n_columns; c++) {
		const char *color =
			t->color && c == t->state_column ? show_state_color(cells[c]) : "";

		if (*cells[c])
			fprintf(f, "%*s%s%s%s", (int)blanks, "", color, cells[c],
				*color ? "\033[0m" : "");
		blanks = (*cells[c] ? 0 : blanks) + widths[c] - show_columns(cells[c]) + GAP;
	}
	fputc('\n', f);
}

void show_grid(FILE *f, const struct strv *cells, size_t n_columns, size_t indent)
{
	struct show_table t = {
		.n_columns = n_columns, .n_rows = cells->n / n_columns, .cells = cells->v};
	size_t widths[16];

	show_widths(&t, widths);
	for (size_t r = 0; r < t.n_rows; r++) {
		fprintf(f, "%*s", (int)indent, "");
		show_row(f, &t, widths, r);
	}
}

/* How many bytes of `s` go on a line of `columns`: whole words, at least one. */
static size_t fitting(const char *s, size_t columns)
{
	size_t len = strspn(s, " "), seen = len, fits = 0;

	while (s[len]) {
		for (; s[len] && s[len] != ' '; len++)
			seen += (s[len] & 0xc0) != 0x80;
		if (fits && seen > columns)
			break;
		fits = len;
		for (; s[len] == ' '; len++)
			seen++;
	}
	return fits;
}

void show_wrapped(FILE *f, size_t width, size_t indent, const char *text)
{
	do {
		size_t len = fitting(text, width > indent ? width - indent : 0);

		fprintf(f, "%*s%.*s\n", (int)indent, "", (int)len, text);
		text += len;
		text += strspn(text, " ");
	} while (*text);
}

static void free_cells(struct show_table *t)
{
	for (size_t i = 0; i < t->n_rows * t->n_columns; i++)
		free(t->cells[i]);
	free(t->cells);
}

static void add_headings(struct show_table *t, const char *const *headings)
{
	for (size_t c = 0; c < t->n_columns; c++)
		t->cells[c] = xstrdup(headings[c]);
}

bool show_is_armed(const json_t *cloud)
{
	return json_is_true(json_object_get(cloud, "armed")) &&
	       json_is_string(json_object_get(json_object_get(cloud, "gate"), "url"));
}

static char *cell_of_state(const json_t *cloud)
{
	_cleanup_free_ char *state = show_or_dash(cloud, "state");

	return json_is_true(json_object_get(cloud, "armed"))
		       ? xasprintf("%s (starts on connect)", state)
		       : TAKE_PTR(state);
}

static char *cell_of_endpoint(const json_t *cloud)
{
	return show_is_armed(cloud) ? show_or_dash(json_object_get(cloud, "gate"), "url")
				    : show_or_dash(cloud, "endpoint");
}

static bool is_usable(const json_t *cloud)
{
	const char *state = json_string_value(json_object_get(cloud, "state"));

	return streq_null(state, "ready") || streq_null(state, "degraded");
}

/* "3/2": the third life, two of them begun by the daemon. */
static char *cell_of_lives(const json_t *cloud)
{
	_cleanup_free_ char *generation = show_number(cloud, "generation");
	_cleanup_free_ char *restarts = show_number(cloud, "restarts");

	return xasprintf("%s/%s", generation, restarts);
}

char *show_heap(int64_t max, int64_t left)
{
	static const char units[] = "BKMGT";
	double all = (double)max, used;
	size_t unit = 0;

	if (max <= 0)
		return xstrdup("-");
	used = all - (double)MIN(left, max);
	for (; all >= 1024 && units[unit + 1]; unit++) {
		all /= 1024;
		used /= 1024;
	}
	return all < 10 ? xasprintf("%.1f/%.1f%c", used, all, units[unit])
			: xasprintf("%.0f/%.0f%c", used, all, units[unit]);
}

static char *cell_of_memory(const json_t *obj)
{
	const json_t *memory = json_object_get(obj, "memory");

	return show_heap(show_int(memory, "max_bytes", 0), show_int(memory, "free_bytes", 0));
}

static char *percent(bool known, double value)
{
	return known ? xasprintf("%.0f%%", value) : xstrdup("-");
}

static char *cell_of_cpu(const json_t *node)
{
	const json_t *cpu = json_object_get(node, "cpu_percent");

	return percent(json_is_number(cpu), json_number_value(cpu));
}

/* Of all nodes; 100% is one core. */
static char *cell_of_cloud_cpu(const json_t *cloud)
{
	const json_t *nodes = json_object_get(cloud, "nodes"), *node;
	bool known = false;
	double sum = 0;
	size_t i;

	json_array_foreach (nodes, i, node) {
		const json_t *cpu = json_object_get(node, "cpu_percent");

		known |= json_is_number(cpu);
		sum += json_number_value(cpu);
	}
	return percent(known, sum);
}

static char *cell_of_rss(const json_t *node)
{
	int64_t rss = show_int(node, "rss_bytes", -1);

	return rss < 0 ? xstrdup("-") : text_human_size((uint64_t)rss);
}

#define CLOUD_COLUMNS 8
#define COLUMNS_KEPT  5 /* even on the narrowest terminal */

static void fill_cloud_row(char **cells, const json_t *cloud)
{
	cells[0] = show_or_dash(cloud, "name");
	cells[1] = cell_of_state(cloud);
	cells[2] = show_nodes_up(cloud);
	cells[3] = show_duration(cloud, "uptime_ms");
	cells[4] = cell_of_lives(cloud);
	cells[5] = is_usable(cloud) ? cell_of_memory(cloud) : xstrdup("-");
	cells[6] = cell_of_cloud_cpu(cloud);
	cells[7] = cell_of_endpoint(cloud);
}

/* "failed 31s ago", "starting for 5s"; just the state when the daemon does not tell the time. */
static char *state_and_time(const json_t *cloud)
{
	_cleanup_free_ char *state = show_or_dash(cloud, "state");
	_cleanup_free_ char *time = show_duration(cloud, "state_ms");

	if (streq(time, "-"))
		return TAKE_PTR(state);
	if (streq(state, "failed") || streq(state, "stopped"))
		return xasprintf("%s %s ago", state, time);
	return xasprintf("%s for %s", state, time);
}

static void show_why(FILE *f, size_t width, const json_t *cloud)
{
	_cleanup_free_ char *reason = show_text(cloud, "reason"), *all = NULL;
	_cleanup_free_ char *state = show_or_dash(cloud, "state"), *next = NULL;
	_cleanup_free_ char *since = state_and_time(cloud);

	if (show_int(cloud, "next_start_ms", -1) >= 0) {
		next = show_duration(cloud, "next_start_ms");
		all = xasprintf(
			"%s%snext start in %s", reason ? reason : "", reason ? "; " : "", next);
	} else if (streq(state, "ready") || (streq(state, "stopped") && !reason)) {
		return;
	} else {
		all = xasprintf("%s%s%s", since, reason ? ": " : "", reason ? reason : "");
	}
	show_wrapped(f, width, 4, all);
}

static void add_count(struct strbuf *b, const json_t *gate, const char *key, const char *what)
{
	int64_t n = show_int(gate, key, 0);

	if (n > 0)
		strbuf_printf(b, "%s%" PRId64 " %s", b->len ? ", " : "", n, what);
}

/* Who does not get in, and when the cloud will be stopped. */
static void show_use(FILE *f, size_t width, const json_t *cloud)
{
	const json_t *gate = json_object_get(cloud, "gate");
	struct strbuf b = STRBUF_NULL;

	add_count(&b, gate, "held", "waiting for the cloud");
	add_count(&b, gate, "refused_total", "turned away");
	if (json_is_integer(json_object_get(cloud, "idle_stop_ms"))) {
		_cleanup_free_ char *idle = show_duration(cloud, "idle_ms");
		_cleanup_free_ char *left = show_duration(cloud, "idle_stop_ms");
		bool over = show_int(cloud, "idle_stop_ms", 0) == 0;

		strbuf_printf(&b, "%snot used for %s, %s%s", b.len ? "; " : "", idle,
			over ? "is about to be stopped" : "stops in ", over ? "" : left);
	}
	if (b.len)
		show_wrapped(f, width, 4, strbuf_str(&b));
	strbuf_free(&b);
}

/* What has come of a reload so far. */
static void show_reload(FILE *f, size_t width, const json_t *cloud)
{
	const json_t *keys = json_object_get(cloud, "pending_keys"), *key;
	struct strbuf b = STRBUF_NULL;
	size_t i;

	if (json_is_true(json_object_get(cloud, "removed")))
		strbuf_puts(&b, "removed from the configuration");
	json_array_foreach (keys, i, key) {
		_cleanup_free_ char *name =
			text_visible(json_string_value(key), json_string_length(key));

		strbuf_printf(&b, "%s%s", i ? ", " : "needs a restart for: ", name);
	}
	if (b.len)
		show_wrapped(f, width, 4, strbuf_str(&b));
	strbuf_free(&b);
}

/* Empties the columns on the right, which people can do without, until the rest is no wider than
 * `width`; returns how many are left. */
static size_t make_fit(const struct show_table *t, size_t *widths, size_t width)
{
	size_t left = t->n_columns;

	for (;; left--) {
		size_t total = 0;

		show_widths(t, widths);
		for (size_t c = 0; c < left; c++)
			total += widths[c] + (c ? GAP : 0);
		if (total <= width || left <= COLUMNS_KEPT)
			return left;
		for (size_t r = 0; r < t->n_rows; r++) {
			char **cell = &t->cells[r * t->n_columns + left - 1];

			free(*cell);
			*cell = xstrdup("");
		}
	}
}

void show_clouds(FILE *f, const json_t *clouds, size_t width, bool color)
{
	static const char *const headings[CLOUD_COLUMNS] = {
		"CLOUD", "STATE", "NODES", "UPTIME", "GEN/RST", "MEMORY", "CPU", "ENDPOINT"};
	struct show_table t = {.n_columns = ARRAY_SIZE(headings),
		.n_rows = json_array_size(clouds) + 1,
		.state_column = 1,
		.color = color};
	size_t widths[ARRAY_SIZE(headings)];
	bool below;

	t.cells = xcalloc(t.n_rows * t.n_columns, sizeof(*t.cells));
	add_headings(&t, headings);
	for (size_t r = 1; r < t.n_rows; r++)
		fill_cloud_row(t.cells + r * t.n_columns, json_array_get(clouds, r - 1));
	below = make_fit(&t, widths, width) < t.n_columns;
	for (size_t r = 0; r < t.n_rows; r++) {
		const json_t *cloud = r ? json_array_get(clouds, r - 1) : NULL;
		_cleanup_free_ char *endpoint = cloud && below ? cell_of_endpoint(cloud) : NULL;

		show_row(f, &t, widths, r);
		if (endpoint && !streq(endpoint, "-"))
			show_wrapped(f, width, 4, endpoint);
		if (!cloud)
			continue;
		show_why(f, width, cloud);
		show_use(f, width, cloud);
		show_reload(f, width, cloud);
	}
	free_cells(&t);
}

/* The last of the lines, each harmless and wrapped. */
static void show_log_tail(FILE *f, size_t width, const char *text)
{
	const char *end = text + strlen(text), *from;
	size_t lines = 0;

	while (end > text && end[-1] == '\n')
		end--;
	for (from = end; from > text; from--)
		if (from[-1] == '\n' && ++lines == LOG_LINES_SHOWN)
			break;
	while (from < end) {
		const char *nl = memchr(from, '\n', (size_t)(end - from));
		size_t len = (size_t)((nl ? nl : end) - from);
		_cleanup_free_ char *line = text_visible(from, len);

		for (char *tab = line; (tab = strchr(tab, '\t'));)
			*tab = ' ';
		show_wrapped(f, width, 6, line);
		from += len + 1;
	}
}

/* What a node wrote before it was told to end says nothing, and H2O answers a wrong argument with
 * pages of help, of which `why` has the line that counts. */
static bool tail_matters(const char *cause)
{
	return !streq(cause, "stopped") && !streq(cause, "arguments");
}

static void show_last_exit(FILE *f, size_t width, const json_t *node, bool tails)
{
	const json_t *x = json_object_get(node, "last_exit");
	const char *tail = json_string_value(json_object_get(x, "log_tail"));
	_cleanup_free_ char *at = show_time(x, "at"), *why = show_text(x, "why"), *all = NULL;
	_cleanup_free_ char *cause = show_or_dash(x, "cause"), *sig = show_text(x, "signal");

	if (!json_is_object(x))
		return;
	if (!why)
		why = sig ? xasprintf("node %" PRId64 ": %s (%s)", show_int(node, "index", 0),
				    cause, sig)
			  : xasprintf("node %" PRId64 ": %s (exit code %" PRId64 ")",
				    show_int(node, "index", 0), cause, show_int(x, "code", -1));
	all = xasprintf("%s%s%s", at ? at : "", at ? ": " : "", why);
	show_wrapped(f, width, 4, all);
	if (tails && tail && *tail && tail_matters(cause))
		show_log_tail(f, width, tail);
}

static void fill_node_row(char **cells, const json_t *node)
{
	cells[0] = show_number(node, "index");
	cells[1] = show_or_dash(node, "state");
	cells[2] = show_number(node, "pid");
	cells[3] = show_number(node, "api_port");
	cells[4] = show_duration(node, "uptime_ms");
	cells[5] = cell_of_memory(node);
	cells[6] = cell_of_rss(node);
	cells[7] = cell_of_cpu(node);
}

/* Below the table of the nodes. */
static void show_exits(FILE *f, size_t width, const json_t *cloud)
{
	const json_t *nodes = json_object_get(cloud, "nodes"), *node;
	bool any = false;
	size_t i;

	json_array_foreach (nodes, i, node)
		any |= json_is_object(json_object_get(node, "last_exit"));
	if (!any)
		return;
	fputs("\n  last exits:\n", f);
	json_array_foreach (nodes, i, node)
		show_last_exit(f, width, node, !is_usable(cloud));
}

/* Where the evidence is, after a loss and until the cloud is back. */
static void show_incident_hint(FILE *f, size_t width, const json_t *cloud)
{
	const char *state = json_string_value(json_object_get(cloud, "state"));
	bool starts = streq_null(state, "starting") || streq_null(state, "forming");
	_cleanup_free_ char *id = show_text(cloud, "incident"), *line = NULL;

	if (!id || !(streq_null(state, "recovering") || streq_null(state, "backoff") ||
			   streq_null(state, "failed") ||
			   (starts && show_int(cloud, "restarts", 0) > 0)))
		return;
	line = xasprintf("the newest incident: h2ofleet incidents %s", id);
	fputc('\n', f);
	show_wrapped(f, width, 2, line);
}

/* Percent of the time; below it nobody needs to be told. */
#define PRESSURE_SHOWN 10

static void add_pressure(struct strbuf *b, const json_t *pressure, const char *what)
{
	double percent = json_number_value(json_object_get(pressure, what));

	if (percent >= PRESSURE_SHOWN)
		strbuf_printf(b, "%s%.0f%% for %s", *strbuf_str(b) ? ", " : "", percent,
			streq(what, "io") ? "the disk" : what);
}

/* One line, where something has to wait much. */
static void show_pressure(FILE *f, size_t width, const json_t *cloud)
{
	const json_t *pressure = json_object_get(cloud, "pressure");
	const char *of = json_string_value(json_object_get(pressure, "of"));
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	_cleanup_free_ char *all = NULL;

	add_pressure(&b, pressure, "cpu");
	add_pressure(&b, pressure, "memory");
	add_pressure(&b, pressure, "io");
	if (!*strbuf_str(&b))
		return;
	all = xasprintf("pressure%s: in the last 10 s something waited %s",
		streq_null(of, "machine") ? " (of the whole machine)" : "", strbuf_str(&b));
	fputc('\n', f);
	show_wrapped(f, width, 2, all);
}

static char *bytes(const json_t *gate, const char *key)
{
	return text_human_size((uint64_t)MAX(show_int(gate, key, 0), (int64_t)0));
}

/* One line: who is inside, and what has passed since the port was taken. */
static void show_clients(FILE *f, size_t width, const json_t *cloud)
{
	const json_t *gate = json_object_get(cloud, "gate");
	_cleanup_free_ char *in = bytes(gate, "bytes_in"), *out = bytes(gate, "bytes_out");
	int64_t now = show_int(gate, "connections", 0), all = show_int(gate, "passed_total", 0);
	_cleanup_free_ char *line = NULL;

	if (!is_usable(cloud) || !json_is_object(gate))
		return;
	line = xasprintf("clients: %" PRId64 " connection%s, %" PRId64
			 " so far; %s to the cloud, %s from it",
		now, now == 1 ? "" : "s", all, in, out);
	fputc('\n', f);
	show_wrapped(f, width, 2, line);
}

/* One line, where nodes could start faster. */
static void show_boot(FILE *f, size_t width, const json_t *cloud)
{
	const json_t *boot = json_object_get(cloud, "boot");
	const char *mode = json_string_value(json_object_get(boot, "mode"));
	bool ignored = json_is_false(json_object_get(boot, "mapped"));
	_cleanup_free_ char *why = show_text(boot, "why"), *line = NULL;

	if (!is_usable(cloud) || !mode || (streq(mode, "archive") && !ignored))
		return;
	line = xasprintf("boot: %s%s%s",
		ignored                 ? "the archive of classes is not used"
		: streq(mode, "native") ? "with the native libraries, without an archive of classes"
					: "without the boot cache",
		why ? ": " : "", why ? why : "");
	fputc('\n', f);
	show_wrapped(f, width, 2, line);
}

void show_nodes(FILE *f, const json_t *cloud, size_t width, bool color)
{
	static const char *const headings[] = {
		"NODE", "STATE", "PID", "PORT", "UPTIME", "HEAP", "RSS", "CPU"};
	const json_t *nodes = json_object_get(cloud, "nodes");
	struct show_table t = {.n_columns = ARRAY_SIZE(headings),
		.n_rows = json_array_size(nodes) + 1,
		.state_column = 1,
		.color = color};
	size_t widths[ARRAY_SIZE(headings)];

	t.cells = xcalloc(t.n_rows * t.n_columns, sizeof(*t.cells));
	add_headings(&t, headings);
	for (size_t r = 1; r < t.n_rows; r++)
		fill_node_row(t.cells + r * t.n_columns, json_array_get(nodes, r - 1));
	show_widths(&t, widths);
	for (size_t r = 0; r < t.n_rows; r++) {
		fputs("  ", f);
		show_row(f, &t, widths, r);
	}
	free_cells(&t);
	show_clients(f, width, cloud);
	show_pressure(f, width, cloud);
	show_boot(f, width, cloud);
	show_exits(f, width, cloud);
	show_incident_hint(f, width, cloud);
}

char *show_sentence(const json_t *cloud)
{
	_cleanup_free_ char *name = show_or_dash(cloud, "name");
	_cleanup_free_ char *state = show_or_dash(cloud, "state");
	_cleanup_free_ char *url = show_text(cloud, "endpoint");
	_cleanup_free_ char *reason = show_text(cloud, "reason");

	if (url)
		return xasprintf("%s is %s at %s", name, state, url);
	if (streq(state, "failed"))
		return xasprintf(
			"%s has failed%s%s", name, reason ? ": " : "", reason ? reason : "");
	if (streq(state, "backoff"))
		return xasprintf("%s waits before its next start%s%s", name, reason ? ": " : "",
			reason ? reason : "");
	return xasprintf("%s is %s%s%s", name, state, reason ? ": " : "", reason ? reason : "");
}
