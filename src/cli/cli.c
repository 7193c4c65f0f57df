#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "base/text.h"
#include "cli/options.h"
#include "cli/show.h"

#define MAX_NAMES  64
#define HELP_WIDTH 80

/* What was said; owned by the caller. */
_printf_(2, 0) static char *vsay(struct cli *cli, const char *fmt, va_list ap)
{
	_cleanup_free_ char *raw = xvasprintf(fmt, ap), *line = NULL;
	char *shown = text_visible(raw, strlen(raw));

	line = xasprintf("h2ofleet: %s", shown);
	if (cli->live)
		show_wrapped(cli->err, cli->err_width, 0, line);
	else
		fprintf(cli->err, "%s\n", line);
	return shown;
}

void cli_say(struct cli *cli, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	free(vsay(cli, fmt, ap));
	va_end(ap);
}

int cli_fail(struct cli *cli, int code, const char *fmt, ...)
{
	_cleanup_free_ char *shown = NULL;
	va_list ap;

	va_start(ap, fmt);
	shown = vsay(cli, fmt, ap);
	va_end(ap);
	if (!cli->failure)
		cli->failure = TAKE_PTR(shown);
	return code;
}

void cli_json_text(struct cli *cli, const char *text, size_t n)
{
	const unsigned char *s = (const unsigned char *)text;

	for (size_t i = 0; i < n; i++) {
		bool c1 = s[i] == 0xc2 && i + 1 < n && s[i + 1] >= 0x80 && s[i + 1] < 0xa0;

		if (c1 || s[i] == 0x7f) {
			i += c1;
			fprintf(cli->out, "\\u%04x", s[i]);
		} else {
			fputc(s[i], cli->out);
		}
	}
	fputc('\n', cli->out);
	cli->json_said = true;
}

static void write_json(struct cli *cli, const json_t *j, size_t flags)
{
	_cleanup_free_ char *text = json_dumps(j, flags);

	if (text)
		cli_json_text(cli, text, strlen(text));
}

void cli_json(struct cli *cli, const json_t *j)
{
	write_json(cli, j, JSON_INDENT(2));
}

void cli_json_line(struct cli *cli, const json_t *j)
{
	write_json(cli, j, JSON_COMPACT);
}

bool cli_name_ok(struct cli *cli, const char *name)
{
	if (*name && !strchr(name, '/') && !streq(name, ".") && !streq(name, ".."))
		return true;
	cli_usage(cli, "'%s' is no name of a cloud", name);
	return false;
}

int cli_usage(struct cli *cli, const char *fmt, ...)
{
	_cleanup_free_ char *raw = NULL;
	va_list ap;

	va_start(ap, fmt);
	raw = xvasprintf(fmt, ap);
	va_end(ap);
	cli_fail(cli, CLI_USAGE, "%s", raw);
	if (cli->command)
		fprintf(cli->err, "usage: h2ofleet %s%s%s\n", cli->command->name,
			*cli->command->args ? " " : "", cli->command->args);
	return CLI_USAGE;
}

static int fail_unknown_option(
	struct cli *cli, const char *word, const struct cli_option *options, size_t n)
{
	const char *names[MAX_NAMES];
	const char *near;
	size_t m = MIN(n, (size_t)MAX_NAMES);

	for (size_t i = 0; i < m; i++)
		names[i] = options[i].name;
	near = has_prefix(word, "--") ? text_nearest(word + 2, names, m) : NULL;
	if (near)
		return cli_usage(cli, "unknown option %s; did you mean --%s?", word, near);
	return cli_usage(cli, "unknown option %s", word);
}

/* The option that `word` names ("--name", "--name=value", "-x", "-xVALUE"), or NULL. *value is the
 * part behind it, or NULL. */
static const struct cli_option *find_option(
	const char *word, const struct cli_option *options, size_t n, const char **value)
{
	bool is_long = has_prefix(word, "--");
	const char *name = word + 2;
	size_t len = strcspn(name, "=");

	*value = NULL;
	for (size_t i = 0; i < n; i++) {
		const struct cli_option *o = &options[i];

		if (is_long && strlen(o->name) == len && strncmp(o->name, name, len) == 0) {
			*value = name[len] ? name + len + 1 : NULL;
			return o;
		}
		if (!is_long && o->letter && o->letter == word[1]) {
			*value = word[2] ? word + 2 : NULL;
			return o;
		}
	}
	return NULL;
}

/* `argv[*i]` is an option. */
static int take_option(
	struct cli *cli, int argc, char **argv, int *i, const struct cli_option *options, size_t n)
{
	const char *word = argv[*i], *value;
	const struct cli_option *o = find_option(word, options, n, &value);

	if (!o)
		return fail_unknown_option(cli, word, options, n);
	if (o->flag) {
		if (value && !o->value)
			return cli_usage(cli, "--%s takes no value", o->name);
		*o->flag = true;
		if (value)
			*o->value = value;
		return CLI_OK;
	}
	if (!value && *i + 1 < argc)
		value = argv[++*i];
	if (!value || (!*value && o->value == &cli->socket))
		return cli_usage(cli, "--%s needs a value", o->name);
	if (o->values)
		strv_add(o->values, value);
	else
		*o->value = value;
	return CLI_OK;
}

/* Stops at the first word that is no option when `first_word` is set; *end is where. */
static int parse(struct cli *cli, int argc, char **argv, const struct cli_option *options, size_t n,
	struct strv *words, bool first_word, int *end)
{
	struct cli_option all[MAX_NAMES] = {
		{"socket", 's', NULL, &cli->socket},
		{"json", 0, &cli->json, NULL},
		{"help", 'h', &cli->help, NULL},
	};
	bool only_words = false;

	if (n)
		memcpy(all + 3, options, n * sizeof(*options));
	for (*end = 1; *end < argc; ++*end) {
		char *word = argv[*end];

		if (!only_words && streq(word, "--")) {
			only_words = true;
		} else if (!only_words && word[0] == '-' && word[1]) {
			if (take_option(cli, argc, argv, end, all, n + 3) != CLI_OK)
				return CLI_USAGE;
		} else if (first_word) {
			return CLI_OK;
		} else {
			strv_add(words, word);
		}
	}
	return CLI_OK;
}

int cli_parse(struct cli *cli, int argc, char **argv, const struct cli_option *options, size_t n,
	struct strv *words)
{
	int end;

	if (cli->probe) {
		cli->probe(options, n, cli->probe_arg);
		return CLI_USAGE;
	}
	return parse(cli, argc, argv, options, n, words, false, &end);
}

int cli_state_exit(const char *state)
{
	static const struct {
		const char *state;
		int code;
	} codes[] = {
		{"ready", CLI_OK},
		{"degraded", CLI_OK},
		{"stopped", CLI_STOPPED},
		{"starting", CLI_BUSY},
		{"forming", CLI_BUSY},
		{"recovering", CLI_BUSY},
		{"backoff", CLI_BUSY},
		{"stopping", CLI_BUSY},
		{"failed", CLI_FAILED},
	};

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (streq(state, codes[i].state))
			return codes[i].code;
	return CLI_ERROR;
}

int cli_worse(int a, int b)
{
	static const int order[] = {CLI_OK, CLI_STOPPED, CLI_BUSY, CLI_FAILED, CLI_ABSENT,
		CLI_ERROR, CLI_USAGE, CLI_INTERRUPTED};
	size_t ia = 0, ib = 0;

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		ia = order[i] == a ? i : ia;
		ib = order[i] == b ? i : ib;
	}
	return ia > ib ? a : b;
}

static int longest_name(void)
{
	size_t longest = 0;

	for (size_t i = 0; i < cli_n_commands; i++)
		longest = MAX(longest, strlen(cli_commands[i].name));
	return (int)longest;
}

static void print_overview(FILE *f)
{
	fprintf(f, "usage: h2ofleet [--socket FILE] [--json] COMMAND\n\n"
		   "Talks to h2ofleetd, which keeps local H2O clouds alive.\n\ncommands:\n");
	for (size_t i = 0; i < cli_n_commands; i++)
		if (!cli_is_hidden(&cli_commands[i]))
			fprintf(f, "  %-*s  %s\n", longest_name(), cli_commands[i].name,
				cli_commands[i].help);
	fprintf(f,
		"\noptions:\n%s"
		"      --version      as the command version\n\n"
		"exit codes: 0 well, 1 error, 2 usage, 3 stopped, 4 no daemon or no such cloud,\n"
		"  5 cloud on its way, 6 cloud failed, 130 interrupted\n",
		cli_common_options);
}

static void print_help(const struct cli_command *c, FILE *f)
{
	bool fits =
		strlen("usage: h2ofleet ") + strlen(c->name) + 1 + strlen(c->args) <= HELP_WIDTH;

	fprintf(f, "usage: h2ofleet %s%s%s\n", c->name, fits && *c->args ? " " : "",
		fits ? c->args : "");
	if (!fits)
		show_wrapped(f, HELP_WIDTH, 8, c->args);
	fprintf(f, "\n%s.\n%s%s", c->help, *c->usage ? "\n" : "", c->usage);
}

bool cli_is_hidden(const struct cli_command *c)
{
	return has_prefix(c->name, "__");
}

static const struct cli_command *find_command(struct cli *cli, const char *name)
{
	const char *names[MAX_NAMES], *near;
	size_t n = 0;

	for (size_t i = 0; i < cli_n_commands; i++) {
		if (streq(name, cli_commands[i].name))
			return &cli_commands[i];
		if (!cli_is_hidden(&cli_commands[i]))
			names[n++] = cli_commands[i].name;
	}
	near = text_nearest(name, names, n);
	if (near)
		cli_fail(cli, CLI_USAGE, "unknown command '%s'; did you mean '%s'?", name, near);
	else
		cli_fail(cli, CLI_USAGE, "unknown command '%s'; see h2ofleet --help", name);
	return NULL;
}

static bool is_set(const char *name)
{
	const char *s = getenv(name);

	return s && *s;
}

size_t cli_terminal_width(int fd)
{
	struct winsize w;

	return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80;
}

static struct cli cli_new(void)
{
	bool dumb = streq_null(getenv("TERM"), "dumb");

	return (struct cli){
		.out = stdout,
		.err = stderr,
		.out_width = cli_terminal_width(STDOUT_FILENO),
		.color = isatty(STDOUT_FILENO) && !is_set("NO_COLOR") && !dumb,
		.live = isatty(STDERR_FILENO) && !dumb,
		.err_width = cli_terminal_width(STDERR_FILENO),
	};
}

/* Is --help among the words of the command? Asked before it runs, so that no command must. */
static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && !streq(argv[i], "--"); i++)
		if (streq(argv[i], "--help") || streq(argv[i], "-h"))
			return true;
	return false;
}

/* `code`, unless not all could be written. */
static int finish(struct cli *cli, int code)
{
	errno = 0;
	if (fflush(cli->out) != 0 || ferror(cli->out))
		return cli_fail(cli, CLI_ERROR, "cannot write the output: %s",
			errno ? strerror(errno) : "not all of it was taken");
	return code;
}

static void print_failure(struct cli *cli)
{
	json_t *j = json_pack("{s:s}", "error", cli->failure);

	cli_json(cli, j);
	json_decref(j);
}

/* Who asked for JSON, maybe behind the very word that was wrong, gets the failure as that. */
static int end(struct cli *cli, int code, int argc, char **argv)
{
	bool json = cli->json;

	for (int i = 1; i < argc && !streq(argv[i], "--"); i++)
		json |= streq(argv[i], "--json");
	if (json && cli->failure && !cli->json_said)
		print_failure(cli);
	return finish(cli, code);
}

int cli_run(struct cli *cli, int argc, char **argv)
{
	cli->command = find_command(cli, argv[0]);
	if (!cli->command)
		return end(cli, CLI_USAGE, argc, argv);
	if (cli->help || wants_help(argc, argv)) {
		print_help(cli->command, cli->out);
		return finish(cli, CLI_OK);
	}
	return end(cli, cli->command->run(cli, argc, argv), argc, argv);
}

int cmd_help(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	const struct cli_command *c;

	if (cli_parse(cli, argc, argv, NULL, 0, &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n > 1)
		return cli_usage(cli, "one command at a time");
	c = words.n ? find_command(cli, words.v[0]) : NULL;
	if (words.n && !c)
		return CLI_USAGE;
	if (c)
		print_help(c, cli->out);
	else
		print_overview(cli->out);
	return CLI_OK;
}

/* No command, only options. */
static int run_alone(struct cli *cli)
{
	print_overview(cli->help ? cli->out : cli->err);
	return finish(cli, cli->help ? CLI_OK : CLI_USAGE);
}

int cli_main(int argc, char **argv)
{
	struct cli cli = cli_new();
	bool version = false;
	const struct cli_option options[] = {{"version", 'V', &version, NULL}};
	char *version_argv[] = {(char *)"version", NULL};
	int at, r;

	if (parse(&cli, argc, argv, options, ARRAY_SIZE(options), NULL, true, &at) != CLI_OK) {
		r = end(&cli, CLI_USAGE, argc, argv);
		free(cli.failure);
		return r;
	}
	if (version)
		r = cli_run(&cli, 1, version_argv);
	else if (at < argc)
		r = cli_run(&cli, argc - at, argv + at);
	else
		r = run_alone(&cli);
	free(cli.failure);
	return r;
}
