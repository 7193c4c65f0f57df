/* keys: what a cloud can be told, from the key table; needs no daemon. */
#include "cli/cli.h"
#include "cli/show.h"

#include "conf/keys.h"

static const char *privilege_name(const struct key *k)
{
	static const char *const names[] = {
		[PRIVILEGE_NONE] = "none",
		[PRIVILEGE_PATH] = "path",
		[PRIVILEGE_CHANGE] = "change",
		[PRIVILEGE_ALL] = "all",
	};
	return names[k->privilege];
}

static const char *reload_name(const struct key *k)
{
	return k->reload == RELOAD_LIVE ? "live" : "restart";
}

static json_t *key_json(const struct key *k)
{
	json_t *words = json_array();

	for (const struct key_word *w = k->words; w && w->name; w++)
		json_array_append_new(words, json_string(w->name));
	return json_pack("{s:s, s:s?, s:s, s:o, s:s, s:s, s:s}", "key", k->name, "default", k->dflt,
		"form", k->type->form, "words", words, "change", reload_name(k), "privilege",
		privilege_name(k), "help", k->help);
}

static void print_key(struct cli *cli, const struct key *k)
{
	fprintf(cli->out, "%s = %s\n", k->name, k->dflt ? k->dflt : "");
	show_wrapped(cli->out, cli->out_width, 4, k->help);
	if (k->reload != RELOAD_LIVE)
		show_wrapped(cli->out, cli->out_width, 4,
			"A change takes effect with the next start of the cloud.");
	if (k->privilege == PRIVILEGE_ALL)
		show_wrapped(cli->out, cli->out_width, 4,
			"At run time only root and the daemon's user may set it.");
	else if (k->privilege != PRIVILEGE_NONE)
		show_wrapped(cli->out, cli->out_width, 4,
			k->privilege == PRIVILEGE_PATH ? "At run time only root and the daemon's "
							 "user may set it to a path."
						       : "At run time only root and the daemon's "
							 "user may set it to anything "
							 "but the default.");
}

static bool is_wanted(const struct key *k, const struct strv *words)
{
	for (size_t i = 0; i < words->n; i++)
		if (streq(words->v[i], k->name))
			return true;
	return !words->n && k->section == SECTION_CLOUD;
}

static int check_words(struct cli *cli, const struct strv *words)
{
	for (size_t i = 0; i < words->n; i++) {
		const char *near = keys_nearest(SECTION_CLOUD, words->v[i]);

		if (keys_find(SECTION_CLOUD, words->v[i]))
			continue;
		return near ? cli_fail(cli, CLI_ERROR, "unknown key '%s'; did you mean '%s'?",
				      words->v[i], near)
			    : cli_fail(cli, CLI_ERROR, "unknown key '%s'", words->v[i]);
	}
	return CLI_OK;
}

int cmd_keys(struct cli *cli, int argc, char **argv)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	json_t *list = json_array(), *all = json_pack("{s:o}", "keys", list);
	size_t n, shown = 0;
	const struct key *keys = keys_all(&n);
	int code = CLI_USAGE;

	if (cli_parse(cli, argc, argv, NULL, 0, &words) == CLI_OK)
		code = check_words(cli, &words);
	for (size_t i = 0; i < n && code == CLI_OK; i++) {
		if (keys[i].section != SECTION_CLOUD || !is_wanted(&keys[i], &words))
			continue;
		json_array_append_new(list, key_json(&keys[i]));
		if (!cli->json) {
			fputs(shown++ ? "\n" : "", cli->out);
			print_key(cli, &keys[i]);
		}
	}
	if (cli->json && code == CLI_OK)
		cli_json(cli, all);
	json_decref(all);
	return code;
}
