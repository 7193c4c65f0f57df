/* The table of commands, what it knows of their options, and what comes of that: help, completion.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli/complete.h"
#include "cli/options.h"
#include "cli_output.h"

/* What a command gave to cli_parse(). */
struct taken {
	const struct cli_command *command;
	struct option_docs docs, common;
	bool asked;
};

static void check_option(const struct taken *t, const struct cli_option *o)
{
	const struct option_doc *d = option_docs_find(&t->docs, o->name);

	if (!d) {
		fail_msg("%s takes --%s, but its usage does not say so", t->command->name, o->name);
		return;
	}
	if (d->letter != o->letter)
		fail_msg("%s --%s: another letter in its usage", t->command->name, o->name);
	if ((o->value || o->values) != (d->value != NULL))
		fail_msg("%s --%s: takes a value or not? Its usage says otherwise",
			t->command->name, o->name);
	if ((o->value && o->flag) != d->may_omit_value)
		fail_msg("%s --%s: may its value be left out?", t->command->name, o->name);
	if (!*d->help)
		fail_msg("%s --%s: no help", t->command->name, o->name);
}

static void on_options(const struct cli_option *options, size_t n, void *arg)
{
	struct taken *t = arg;

	t->asked = true;
	for (size_t i = 0; i < n; i++)
		check_option(t, &options[i]);
	for (size_t d = 0; d < t->docs.n; d++) {
		bool known = option_docs_find(&t->common, t->docs.v[d].name) != NULL;

		for (size_t i = 0; i < n; i++)
			known |= streq(options[i].name, t->docs.v[d].name);
		if (!known)
			fail_msg("%s: its usage has --%s, which it does not take", t->command->name,
				t->docs.v[d].name);
	}
}

/* Proves: of every command, what it takes and what its usage says are the same options, with the
 * same letters, with a value or without one. */
static void test_options_are_documented(void **state _unused_)
{
	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct cli_command *c = &cli_commands[i];
		char *argv[] = {(char *)c->name, NULL};
		struct taken t = {.command = c,
			.docs = option_docs_read(c->usage),
			.common = option_docs_read(cli_common_options)};
		struct output o;

		output_open(&o);
		o.cli.command = c;
		o.cli.probe = on_options;
		o.cli.probe_arg = &t;
		if (!cli_is_hidden(c))
			c->run(&o.cli, 1, argv);
		output_flush(&o);
		if (!cli_is_hidden(c) && !t.asked)
			fail_msg("%s does not begin with cli_parse()", c->name);
		output_close(&o);
		option_docs_free(&t.docs);
		option_docs_free(&t.common);
	}
}

/* Proves: every command has a help that fits 80 columns and ends with an example of itself, and
 * each option stands in its line of arguments or is explained. */
static void test_help(void **state _unused_)
{
	for (size_t i = 0; i < cli_n_commands; i++) {
		const struct cli_command *c = &cli_commands[i];
		char *argv[] = {(char *)c->name, (char *)"--help", NULL};
		char *help_argv[] = {(char *)"help", (char *)c->name, NULL};
		const char *example = strstr(c->usage, "example: ");
		struct output o, h;

		if (!example || !strstr(example, c->name))
			fail_msg("%s has no example", c->name);
		if (c->usage[strlen(c->usage) - 1] != '\n' || c->help[strlen(c->help) - 1] == '.')
			fail_msg("%s: its help ends otherwise than others'", c->name);
		output_open(&o);
		output_open(&h);
		assert_int_equal(cli_run(&o.cli, 2, argv), CLI_OK);
		output_flush(&o);
		assert_fits(o.out);
		assert_has(o.out, c->help);
		assert_int_equal(cli_run(&h.cli, 2, help_argv), CLI_OK);
		output_flush(&h);
		assert_string_equal(h.out, o.out);
		output_close(&o);
		output_close(&h);
	}
}

static void test_overview(void **state _unused_)
{
	char *argv[] = {(char *)"help", NULL}, *wrong[] = {(char *)"help", (char *)"statsu", NULL};
	char *cut[] = {(char *)"stat", (char *)"--json", NULL};
	struct output o;

	output_open(&o);
	assert_int_equal(cli_run(&o.cli, 1, argv), CLI_OK);
	output_flush(&o);
	assert_fits(o.out);
	for (size_t i = 0; i < cli_n_commands; i++)
		if (!cli_is_hidden(&cli_commands[i]))
			assert_has(o.out, cli_commands[i].name);
	assert_has_not(o.out, "__complete");
	output_close(&o);
	output_open(&o);
	assert_int_equal(cli_run(&o.cli, 2, wrong), CLI_USAGE);
	output_flush(&o);
	assert_has(o.err, "unknown command 'statsu'; did you mean 'status'?");
	output_close(&o);
	output_open(&o);
	assert_int_equal(cli_run(&o.cli, 2, cut), CLI_USAGE);
	output_flush(&o);
	assert_has(o.err, "unknown command 'stat'; did you mean 'status'?");
	assert_has(o.out, "{\n  \"error\": \"unknown command 'stat'");
	output_close(&o);
}

static void test_read_options(void **state _unused_)
{
	struct option_docs d = option_docs_read("It does things.\n\noptions:\n"
						"  -f, --follow   go on\n"
						"                 for ever\n"
						"      --since T  only then\n"
						"  -w, --watch[=T]  again\n"
						"  --all\n\n"
						"example: x --not-this\n");
	assert_int_equal(d.n, 4);
	assert_int_equal(d.v[0].letter, 'f');
	assert_string_equal(d.v[0].name, "follow");
	assert_string_equal(d.v[0].help, "go on for ever");
	assert_null(d.v[0].value);
	assert_string_equal(d.v[1].value, "T");
	assert_int_equal(d.v[1].letter, 0);
	assert_string_equal(d.v[2].name, "watch");
	assert_string_equal(d.v[2].value, "T");
	assert_true(d.v[2].may_omit_value);
	assert_string_equal(d.v[3].name, "all");
	assert_string_equal(d.v[3].help, "");
	option_docs_free(&d);
}

static void test_words(void **state _unused_)
{
	static const struct {
		const char *args;
		size_t at;
		const char *word;
	} cases[] = {
		{"CLOUD", 0, "CLOUD"},
		{"CLOUD", 1, NULL},
		{"[CLOUD]... [--watch[=T]]", 3, "CLOUD"},
		{"CLOUD...|--all [--wait] [--timeout T]", 0, "CLOUD"},
		{"CLOUD...|--all [--wait] [--timeout T]", 7, "CLOUD"},
		{"CLOUD[/N] [-f] [-n N]", 0, "CLOUD[/N]"},
		{"CLOUD[/N] [-f] [-n N]", 1, NULL},
		{"[CLOUD] [-f]", 0, "CLOUD"},
		{"bash|zsh|fish", 0, "bash|zsh|fish"},
		{"CLOUD METHOD PATH [-d K=V]", 2, "PATH"},
		{"[--dry-run] [--restart]", 0, NULL},
		{"[-n N] [OPTIONS] -- COMMAND...", 0, "CMD"},
		{"", 0, NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *word = command_word(cases[i].args, cases[i].at);

		if (!streq_null(word, cases[i].word) && (word || cases[i].word))
			fail_msg("'%s' at %zu: %s", cases[i].args, cases[i].at,
				word ? word : "none");
	}
}

/* Proves: what could stand there, from the table alone; nobody answers on that socket. */
static void test_completion(void **state _unused_)
{
	static const struct {
		const char *words[6];
		const char *has, *has_not;
	} cases[] = {
		{{""}, "status\tShows the clouds", "__complete"},
		{{"sta"}, "start\t", "stop"},
		{{"--s"}, "--socket\t", "--json"},
		{{"status", "--w"}, "--watch\t", "--socket"},
		{{"status", "-"}, "--json\t", NULL},
		{{"wait", "dev", "--for", ""}, "ready\nstopped\n", NULL},
		{{"wait", "dev", "--for=s"}, "--for=stopped\n", "ready"},
		{{"completion", ""}, "bash\nzsh\nfish\n", NULL},
		{{"completion", "bash", ""}, NULL, "bash"},
		{{"help", "doc"}, "doctor\t", "status"},
		{{"doctor", "--config", ""}, ":files\n", NULL},
		{{"--socket", ""}, ":files\n", NULL},
		{{"--socket", "x", "sto"}, "stop\t", NULL},
		{{"nonsense", ""}, NULL, "status"},
		{{"timezone", "dev", ""}, "get\nlist\nset\n", "ZONE"},
		{{"jobs", "dev", ""}, "cancel\n", NULL},
		{{"api", "dev", "P"}, "POST\nPUT\nPATCH\n", "GET"},
		{{"keys", "max_m"}, "max_mem_size\t", "="},
		{{"keys", "nodes", "jv"}, "jvm_custom_args\t", NULL},
		{{"create", "exp", "-n", "2", "autost"}, "autostart=\t", "max_mem_size"},
		{{"create", ""}, NULL, "="},
		{{"set", "exp", "autostart=y"}, "autostart=yes\n", "no"},
		{{"set", "exp", "start_on="}, "start_on=connect\n", "\nautostart"},
		{{"run", "--set", "gate_m"}, "gate_mode=\t", NULL},
		{{"run", "--set=gate_m"}, "--set=gate_mode=\t", NULL},
		{{"run", "--set=start_on=c"}, "--set=start_on=command\n--set=start_on=connect\n",
			NULL},
		{{"status", ""}, NULL, "\n"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct output o;
		size_t n = 0;

		while (n < 6 && cases[i].words[n])
			n++;
		output_open(&o);
		complete_words(&o.cli, (char **)cases[i].words, n);
		output_flush(&o);
		if (cases[i].has)
			assert_has(o.out, cases[i].has);
		if (cases[i].has_not)
			assert_has_not(o.out, cases[i].has_not);
		assert_string_equal(o.err, "");
		output_close(&o);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options_are_documented),
		cmocka_unit_test(test_help),
		cmocka_unit_test(test_overview),
		cmocka_unit_test(test_read_options),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_completion),
	};

	setenv("H2OFLEET_SOCKET", "/nonexistent/socket", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
