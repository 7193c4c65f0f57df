#include "conf/conf.h"

#include <ctype.h>
#include <errno.h>

#include "base/strbuf.h"
#include "conf/check.h"
#include "conf/ini.h"
#include "conf/keys.h"
#include "conf/types.h"

#define NAME_MAX_LEN 32
#define PRINT_WIDTH  100 /* lists are wrapped here, where words allow */
#define INDENT       "    "

bool conf_cloud_name_valid(const char *name)
{
	size_t n = strlen(name);

	if (n < 1 || n > NAME_MAX_LEN || !isalnum((unsigned char)name[0]))
		return false;
	for (const char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '_' && *p != '-')
			return false;
	return true;
}

struct cloud_conf *cloud_conf_new(const char *name)
{
	struct cloud_conf *c = xcalloc(1, sizeof(*c));
	struct fleet_conf fleet = {0};

	c->name = xstrdup(name);
	key_set_default(keys_find(SECTION_FLEET, "baseport"), &fleet);
	c->baseport = fleet.baseport;
	keys_set_defaults(SECTION_CLOUD, c);
	return c;
}

void cloud_conf_free(struct cloud_conf *c)
{
	if (!c)
		return;
	keys_clear(SECTION_CLOUD, c);
	free(c->name);
	free(c->file);
	strv_free(&c->given);
	free(c);
}

void cloud_conf_freep(struct cloud_conf **c)
{
	cloud_conf_free(*c);
}

struct cloud_conf *cloud_conf_dup(const struct cloud_conf *c)
{
	struct cloud_conf *copy = xcalloc(1, sizeof(*copy));

	copy->name = xstrdup(c->name);
	cloud_conf_copy_origin(copy, c);
	copy->baseport = c->baseport;
	keys_copy(SECTION_CLOUD, copy, c);
	return copy;
}

void cloud_conf_copy_origin(struct cloud_conf *dst, const struct cloud_conf *src)
{
	replace_str(&dst->file, src->file);
	dst->line = src->line;
	dst->created = src->created;
	strv_free(&dst->given);
	strv_copy(&dst->given, &src->given);
}

bool cloud_conf_equal(const struct cloud_conf *a, const struct cloud_conf *b)
{
	return keys_equal(SECTION_CLOUD, a, b);
}

int cloud_conf_set(struct cloud_conf *c, const char *key, const char *value, struct err *e)
{
	const struct key *k = keys_find(SECTION_CLOUD, key);
	const char *near;

	if (k)
		return key_set(k, c, value, e);
	near = keys_nearest(SECTION_CLOUD, key);
	_cleanup_free_ char *shown = types_quote(key);
	if (near)
		return err_set(e, -ENOENT, "unknown key %s; did you mean '%s'?", shown, near);
	return err_set(e, -ENOENT, "unknown key %s", shown);
}

char *cloud_conf_get(const struct cloud_conf *c, const char *key)
{
	const struct key *k = keys_find(SECTION_CLOUD, key);
	char *value = k ? key_get(k, c) : NULL;

	return k && !value ? xstrdup("") : value;
}

bool cloud_conf_is_privileged(const char *key, const char *value)
{
	const struct key *k = keys_find(SECTION_CLOUD, key);

	return k && key_is_privileged(k, value);
}

static void add_sentence(
	void *u, const struct key *a _unused_, const struct key *b _unused_, const char *sentence)
{
	struct strbuf *all = u;

	strbuf_printf(all, "%s%s", all->len ? "; " : "", sentence);
}

int cloud_conf_check(const struct cloud_conf *c, int64_t baseport, struct err *e)
{
	_cleanup_(strbuf_free) struct strbuf all = STRBUF_NULL;

	check_cloud(c, baseport, add_sentence, &all);
	return all.len ? err_set(e, -EINVAL, "%s", strbuf_str(&all)) : 0;
}

const struct cloud_conf *conf_find_cloud(const struct conf *c, const char *name)
{
	for (size_t i = 0; i < c->n_clouds; i++)
		if (streq(c->clouds[i]->name, name))
			return c->clouds[i];
	return NULL;
}

void conf_free(struct conf *c)
{
	if (!c)
		return;
	keys_clear(SECTION_FLEET, &c->fleet);
	for (size_t i = 0; i < c->n_clouds; i++)
		cloud_conf_free(c->clouds[i]);
	free(c->clouds);
	strv_free(&c->files);
	for (size_t i = 0; i < c->n_aside; i++) {
		free(c->aside[i].name);
		free(c->aside[i].file);
		free(c->aside[i].why);
	}
	free(c->aside);
	conf_free_places(c);
	free(c);
}

void conf_freep(struct conf **c)
{
	conf_free(*c);
}

void conf_errors_free(struct conf_errors *errors)
{
	strv_free(&errors->list);
}

/* --- printing --- */

/* Bytes of the next piece of a value that no line end may cut: a character, with the backslash in
 * front of it if it is escaped. */
static size_t atom_length(const char *s)
{
	size_t n = s[0] == '\\' && s[1] ? 2 : 1;

	while (((unsigned char)s[n] & 0xc0) == 0x80)
		n++;
	return n;
}

/* A new line must not begin with what its reader would drop. */
static bool may_begin_line(char c)
{
	return c && !strchr(" \t;#", c);
}

/* Where a value is cut. */
struct cut {
	size_t n;    /* bytes on this line */
	bool blank;  /* the blank behind them falls away; else a backslash joins, unless it is the
			end */
	bool quoted; /* whether a quote is open there */
};

/* Cuts `s` at the last blank between words that keeps the line within the wanted width, else at the
 * first one behind, else where a backslash may join. */
static struct cut cut_value(const char *s, bool is_list, bool quoted)
{
	const size_t wanted = PRINT_WIDTH - strlen(INDENT);
	const size_t room = INI_LINE_LIMIT - strlen(INDENT) - strlen("\\");
	struct cut blank = {0}, atom = {0};
	size_t n = 0;

	while (s[n] && (n <= wanted || !blank.n)) {
		size_t next = n + atom_length(s + n);

		if (next > room)
			break;
		if (is_list && !quoted && n && s[n] == ' ')
			blank = (struct cut){n, true, false};
		if (n && may_begin_line(s[n]))
			atom = (struct cut){n, false, quoted};
		if (s[n] == '"')
			quoted = !quoted;
		n = next;
	}
	if (!s[n] && (n <= wanted || !blank.n))
		return (struct cut){n, false, quoted};
	return blank.n ? blank : atom;
}

static void print_wrapped(FILE *f, const char *value, bool is_list)
{
	struct cut c = {0};

	for (; *value; value += c.n + c.blank) {
		c = cut_value(value, is_list, c.quoted);
		fprintf(f, INDENT "%.*s%s\n", (int)c.n, value, value[c.n] && !c.blank ? "\\" : "");
	}
}

/* A sentence as comment lines. */
static void print_comment(FILE *f, const char *text)
{
	while (*text) {
		size_t n = strlen(text);

		if (n > PRINT_WIDTH - 2)
			for (n = PRINT_WIDTH - 2; n > 1 && text[n] != ' ';)
				n--;
		fprintf(f, "; %.*s\n", (int)n, text);
		text += n;
		text += *text == ' ';
	}
}

static void print_key(FILE *f, const struct key *k, const void *conf, bool help)
{
	_cleanup_free_ char *value = key_get(k, conf);
	bool is_list = k->type->storage == STORE_STRV;
	size_t limit = is_list ? PRINT_WIDTH : INI_LINE_LIMIT;

	if (help) {
		fputs("\n", f);
		print_comment(f, k->help);
	}
	if (!value) {
		fprintf(f, "%s =\n", k->name);
	} else if (strlen(k->name) + 3 + strlen(value) <= limit) {
		fprintf(f, "%s = %s\n", k->name, value);
	} else {
		fprintf(f, "%s =%s\n", k->name, is_list ? "" : " \\");
		print_wrapped(f, value, is_list);
	}
}

static void print_section(FILE *f, enum key_section section, const void *conf, bool help)
{
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++)
		if (keys[i].section == section)
			print_key(f, &keys[i], conf, help);
}

void conf_print(const struct conf *c, FILE *f, bool help)
{
	fputs("[fleet]\n", f);
	print_section(f, SECTION_FLEET, &c->fleet, help);
	for (size_t i = 0; i < c->n_clouds; i++) {
		fprintf(f, "\n%s[cloud %s]\n", c->clouds[i]->created ? "; made at run time\n" : "",
			c->clouds[i]->name);
		print_section(f, SECTION_CLOUD, c->clouds[i], help);
	}
}

void cloud_conf_print(const struct cloud_conf *c, FILE *f)
{
	fprintf(f, "[cloud %s]\n", c->name);
	for (size_t i = 0; i < c->given.n; i++)
		print_key(f, keys_find(SECTION_CLOUD, c->given.v[i]), c, false);
}
