#include "cli/complete.h"

#include <inttypes.h>

#include "base/clock.h"
#include "base/text.h"
#include "cli/client.h"
#include "cli/options.h"
#include "cli/show.h"
#include "conf/keys.h"
#include "conf/types.h"

/* Nobody waits longer for a key that was pressed. */
#define PATIENCE_MS 500

struct completion {
	struct cli *cli;
	const char *socket; /* as given on the line */
	const char *given;  /* what has been typed of the word */
	const char *before; /* what is to stand before each candidate: "--for=" */
	bool created;       /* only clouds that were made at run time can be meant */
};

static void offer(const struct completion *c, const char *word, const char *help)
{
	if (!has_prefix(word, c->given))
		return;
	fprintf(c->cli->out, "%s%s%s%s\n", c->before, word, help && *help ? "\t" : "",
		help ? help : "");
}

static void offer_commands(const struct completion *c)
{
	for (size_t i = 0; i < cli_n_commands; i++)
		if (!cli_is_hidden(&cli_commands[i]))
			offer(c, cli_commands[i].name, cli_commands[i].help);
}

/* "ready|stopped", "WARN|INFO"; in "set|KEY" the second stands for something else. */
static void offer_alternatives(const struct completion *c, const char *words)
{
	bool all_capitals = !strpbrk(words, "abcdefghijklmnopqrstuvwxyz");

	while (*words) {
		size_t len = strcspn(words, "|");
		_cleanup_free_ char *word = xstrndup(words, len);

		if (len && !strpbrk(word, "[]") &&
			(all_capitals || !strpbrk(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")))
			offer(c, word, NULL);
		words += len + (words[len] == '|');
	}
}

/* ---- what the daemon knows ---- */

/* A new reference; NULL when no daemon answers soon. */
static json_t *ask_for_clouds(const struct completion *c)
{
	struct client *client = client_new(c->socket);
	struct call *call = client_begin(client, "GET", "/v1/clouds");
	uint64_t end = clock_monotonic_ms() + PATIENCE_MS, now;
	json_t *clouds;

	while (!call->done && (now = clock_monotonic_ms()) < end)
		client_turn(client, (int)(end - now));
	clouds = json_incref(json_object_get(call->json, "clouds"));
	client_free(client);
	return clouds;
}

static void offer_nodes(const struct completion *c, const json_t *cloud, const char *name)
{
	const json_t *nodes = json_object_get(cloud, "nodes"), *node;
	size_t i;

	json_array_foreach (nodes, i, node) {
		_cleanup_free_ char *state = show_text(node, "state");
		_cleanup_free_ char *word =
			xasprintf("%s/%" PRId64, name, show_int(node, "index", 0));

		offer(c, word, state);
	}
}

static void offer_clouds(const struct completion *c, bool nodes)
{
	json_t *clouds = ask_for_clouds(c), *cloud;
	bool after_slash = strchr(c->given, '/') != NULL;
	size_t i;

	json_array_foreach (clouds, i, cloud) {
		_cleanup_free_ char *name = show_text(cloud, "name");
		_cleanup_free_ char *state = show_text(cloud, "state");

		if (!name || (c->created && !streq_null(json_string_value(
								json_object_get(cloud, "origin")),
						    "created")))
			continue;
		offer(c, name, state);
		if (nodes && after_slash)
			offer_nodes(c, cloud, name);
	}
	json_decref(clouds);
}

/* ---- keys of a cloud ---- */

/* Their names, each followed by `behind`. */
static void offer_keys(const struct completion *c, const char *behind)
{
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *word = xasprintf("%s%s", keys[i].name, behind);

		if (keys[i].section == SECTION_CLOUD)
			offer(c, word, keys[i].help);
	}
}

/* "autostart=y": what it can be, where that is a word. */
static void offer_setting(const struct completion *c)
{
	const char *value = strchr(c->given, '=');
	_cleanup_free_ char *name = xstrndup(c->given, value ? (size_t)(value - c->given) : 0);
	_cleanup_free_ char *before = xasprintf("%s%s=", c->before, name);
	struct completion values = {.cli = c->cli, .before = before};
	const struct key *k;

	if (!value) {
		offer_keys(c, "=");
		return;
	}
	values.given = value + 1;
	k = keys_find(SECTION_CLOUD, name);
	if (k && k->type == &type_bool)
		offer_alternatives(&values, "yes|no");
	for (const struct key_word *w = k ? k->words : NULL; w && w->name; w++)
		offer(&values, w->name, NULL);
}

/* ---- the line ---- */

/* `kind`: a word of the args of a command, or the value of an option. */
static void offer_kind(const struct completion *c, const char *kind)
{
	if (strpbrk(kind, "abcdefghijklmnopqrstuvwxyz") || strchr(kind, '|'))
		offer_alternatives(c, kind);
	else if (has_prefix(kind, "CLOUD"))
		offer_clouds(c, streq(kind, "CLOUD[/N]"));
	else if (streq(kind, "METHOD"))
		offer_alternatives(c, "GET|POST|PUT|DELETE|PATCH|HEAD");
	else if (streq(kind, "KEY"))
		offer_keys(c, "");
	else if (streq(kind, "KEY=VALUE"))
		offer_setting(c);
	else if (streq(kind, "COMMAND"))
		offer_commands(c);
	else if (streq(kind, "DIR") && !*c->before)
		fprintf(c->cli->out, ":dirs\n");
	else if ((has_prefix(kind, "FILE") || streq(kind, "F") || has_prefix(kind, "CMD")) &&
		 !*c->before)
		fprintf(c->cli->out, ":files\n");
}

static void offer_options(const struct completion *c, const struct option_docs *docs)
{
	for (size_t i = 0; i < docs->n; i++) {
		_cleanup_free_ char *word = xasprintf("--%s", docs->v[i].name);

		offer(c, word, docs->v[i].help);
	}
}

/* The option that a finished word names, if its value is the next word. */
static const struct option_doc *awaits_value(const struct option_docs *docs, const char *word)
{
	for (size_t i = 0; i < docs->n; i++) {
		const struct option_doc *o = &docs->v[i];

		if (!o->value || o->may_omit_value)
			continue;
		if (has_prefix(word, "--") ? streq(word + 2, o->name)
					   : word[0] == '-' && o->letter == word[1] && !word[2])
			return o;
	}
	return NULL;
}

static const struct cli_command *find(const char *name)
{
	for (size_t i = 0; i < cli_n_commands; i++)
		if (streq(cli_commands[i].name, name))
			return &cli_commands[i];
	return NULL;
}

static struct option_docs options_of(const struct cli_command *command)
{
	_cleanup_free_ char *all =
		xasprintf("%s\n%s", command ? command->usage : "", cli_common_options);

	return option_docs_read(all);
}

/* "--for=re" */
static void offer_value(struct completion *c, const struct option_docs *docs, const char *word)
{
	size_t len = strcspn(word, "=");
	_cleanup_free_ char *name = xstrndup(word + 2, len - 2);
	_cleanup_free_ char *before = xasprintf("--%s=", name);
	const struct option_doc *o = option_docs_find(docs, name);

	c->given = word + len + 1;
	c->before = before;
	if (o && o->value)
		offer_kind(c, o->value);
	c->before = "";
}

void complete_words(struct cli *cli, char **words, size_t n)
{
	struct completion c = {.cli = cli, .given = n ? words[n - 1] : "", .before = ""};
	const struct cli_command *command = NULL;
	const struct option_doc *awaiting = NULL;
	struct option_docs docs = options_of(NULL);
	bool only_words = false, strange = false;
	size_t position = 0;

	for (size_t i = 0; i + 1 < n; i++) {
		const char *word = words[i];

		if (awaiting) {
			c.socket = streq(awaiting->name, "socket") ? word : c.socket;
			awaiting = NULL;
		} else if (!only_words && streq(word, "--")) {
			only_words = true;
		} else if (!only_words && word[0] == '-' && word[1]) {
			awaiting = awaits_value(&docs, word);
			if (has_prefix(word, "--socket="))
				c.socket = word + strlen("--socket=");
		} else if (!command && !strange) {
			command = find(word);
			strange = !command;
			option_docs_free(&docs);
			docs = options_of(command);
			c.created = streq(word, "delete") || streq(word, "set");
		} else {
			position++;
		}
	}
	if (awaiting) {
		offer_kind(&c, awaiting->value);
	} else if (!only_words && has_prefix(c.given, "--") && strchr(c.given, '=')) {
		offer_value(&c, &docs, c.given);
	} else if (!only_words && c.given[0] == '-') {
		offer_options(&c, &docs);
	} else if (!command && !strange) {
		offer_commands(&c);
	} else if (command) {
		_cleanup_free_ char *kind = command_word(command->args, position);

		if (kind)
			offer_kind(&c, kind);
	}
	option_docs_free(&docs);
}

int cmd_complete(struct cli *cli, int argc, char **argv)
{
	int skip = argc > 1 && streq(argv[1], "--") ? 2 : 1;

	complete_words(cli, argv + skip, (size_t)MAX(argc - skip, 0));
	return CLI_OK;
}

/* ---- the shells' side ---- */

static const char bash_script[] =
	"# bash completion of h2ofleet; to try it: source <(h2ofleet completion bash)\n"
	"_h2ofleet()\n"
	"{\n"
	"	local word help cut=\n"
	"	local -a words=()\n"
	"	# readline breaks words at '='.\n"
	"	for word in \"${COMP_WORDS[@]:1:COMP_CWORD}\"; do\n"
	"		if [[ ${#words[@]} -gt 0 && ( $word == = || ${words[-1]} == *= ) ]]; "
	"then\n"
	"			words[-1]+=$word\n"
	"		else\n"
	"			words+=(\"$word\")\n"
	"		fi\n"
	"	done\n"
	"	COMPREPLY=()\n"
	"	[[ ${words[-1]} == *=* && $COMP_WORDBREAKS == *=* ]] && cut=${words[-1]%=*}=\n"
	"	while IFS=$'\\t' read -r word help; do\n"
	"		case $word in\n"
	"		:files | :dirs)\n"
	"			compopt -o filenames 2>/dev/null\n"
	"			mapfile -t COMPREPLY < <(compgen -\"${word:1:1}\" -- "
	"\"${words[-1]}\")\n"
	"			;;\n"
	"		*)\n"
	"			[[ $word == *= ]] && compopt -o nospace 2>/dev/null\n"
	"			COMPREPLY+=(\"${word#\"$cut\"}\")\n"
	"			;;\n"
	"		esac\n"
	"	done < <(\"${COMP_WORDS[0]}\" __complete -- \"${words[@]}\" 2>/dev/null)\n"
	"}\n"
	"complete -F _h2ofleet h2ofleet\n";

static const char zsh_script[] =
	"#compdef h2ofleet\n"
	"# zsh completion of h2ofleet; to try it: source <(h2ofleet completion zsh)\n"
	"_h2ofleet()\n"
	"{\n"
	"	local word help\n"
	"	local -a found open\n"
	"	while IFS=$'\\t' read -r word help; do\n"
	"		case $word in\n"
	"		:files) _files ;;\n"
	"		:dirs) _files -/ ;;\n"
	"		*=) open+=(\"${word//:/\\\\:}${help:+:$help}\") ;;\n"
	"		*) found+=(\"${word//:/\\\\:}${help:+:$help}\") ;;\n"
	"		esac\n"
	"	done < <(\"${(Q)words[1]}\" __complete -- \"${(@Q)words[2,CURRENT]}\" "
	"2>/dev/null)\n"
	"	(( $#found )) && _describe -V h2ofleet found\n"
	"	(( $#open )) && _describe -V h2ofleet open -S ''\n"
	"}\n"
	"if [[ $funcstack[1] == _h2ofleet ]]; then\n"
	"	_h2ofleet\n"
	"else\n"
	"	compdef _h2ofleet h2ofleet\n"
	"fi\n";

static const char fish_script[] =
	"# fish completion of h2ofleet; to try it: h2ofleet completion fish | source\n"
	"function __h2ofleet_complete\n"
	"	set -l words (commandline -opc)\n"
	"	set -l word (commandline -ct)\n"
	"	for line in ($words[1] __complete -- $words[2..-1] \"$word\" 2>/dev/null)\n"
	"		switch $line\n"
	"			case :files\n"
	"				__fish_complete_path \"$word\"\n"
	"			case :dirs\n"
	"				__fish_complete_directories \"$word\"\n"
	"			case '*'\n"
	"				printf '%s\\n' $line\n"
	"		end\n"
	"	end\n"
	"end\n"
	"complete -c h2ofleet -f -a '(__h2ofleet_complete)'\n";

int cmd_completion(struct cli *cli, int argc, char **argv)
{
	static const struct {
		const char *shell, *script;
	} scripts[] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};
	_cleanup_(strv_free) struct strv words = STRV_NULL;

	if (cli_parse(cli, argc, argv, NULL, 0, &words) != CLI_OK)
		return CLI_USAGE;
	if (words.n != 1)
		return cli_usage(cli, "which shell? bash, zsh or fish");
	for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
		if (streq(words.v[0], scripts[i].shell)) {
			fputs(scripts[i].script, cli->out);
			return CLI_OK;
		}
	}
	return cli_usage(
		cli, "'%s' is no shell known here; there are bash, zsh and fish", words.v[0]);
}
