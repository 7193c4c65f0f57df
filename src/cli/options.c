#include "cli/options.h"

#include "base/strbuf.h"

const char cli_common_options[] =
	"  -s, --socket FILE  the daemon's control socket (default: $H2OFLEET_SOCKET,\n"
	"                     your own daemon's if it answers,\n"
	"                     /run/h2ofleet/control.sock)\n"
	"      --json         JSON for programs\n"
	"  -h, --help         this, or help on a command\n";

/* ---- options ---- */

/* Up to two blanks, which stand before the help. */
static size_t head_length(const char *line, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++)
		if (line[i] == ' ' && line[i + 1] == ' ')
			return i;
	return len;
}

/* "-f, --follow", "--since WHAT", "--watch[=T]" */
static bool read_head(struct option_doc *o, const char *head)
{
	size_t len;

	if (head[0] == '-' && head[1] != '-' && has_prefix(head + 2, ", ")) {
		o->letter = head[1];
		head += 4;
	}
	if (!has_prefix(head, "--"))
		return false;
	head += 2;
	len = strcspn(head, " [=");
	o->name = xstrndup(head, len);
	head += len;
	if (has_prefix(head, "[=")) {
		o->may_omit_value = true;
		o->value = xstrndup(head + 2, strcspn(head + 2, "]"));
	} else if (*head) {
		o->value = xstrdup(head + 1);
	}
	return *o->name;
}

static void add_help(struct option_doc *o, const char *s, size_t len)
{
	char *all;

	while (len && *s == ' ') {
		s++;
		len--;
	}
	all = xasprintf(
		"%s%s%.*s", o->help ? o->help : "", o->help && *o->help ? " " : "", (int)len, s);
	free(o->help);
	o->help = all;
}

static void read_line(struct option_docs *d, const char *line, size_t len, bool *within)
{
	size_t indent = strspn(line, " ");
	struct option_doc o = {0};

	if (indent < 2 || indent >= len) {
		*within = false;
	} else if (line[indent] == '-') {
		size_t n = head_length(line + indent, len - indent);
		_cleanup_free_ char *head = xstrndup(line + indent, n);

		*within = read_head(&o, head);
		if (!*within)
			return;
		add_help(&o, line + indent + n, len - indent - n);
		d->v = xreallocarray(d->v, d->n + 1, sizeof(*d->v));
		d->v[d->n++] = o;
	} else if (*within) {
		add_help(&d->v[d->n - 1], line, len);
	}
}

struct option_docs option_docs_read(const char *usage)
{
	struct option_docs d = {0};
	bool within = false;

	while (*usage) {
		size_t len = strcspn(usage, "\n");

		read_line(&d, usage, len, &within);
		usage += len + (usage[len] == '\n');
	}
	return d;
}

void option_docs_free(struct option_docs *d)
{
	for (size_t i = 0; i < d->n; i++) {
		free(d->v[i].name);
		free(d->v[i].value);
		free(d->v[i].help);
	}
	free(d->v);
	*d = (struct option_docs){0};
}

const struct option_doc *option_docs_find(const struct option_docs *d, const char *name)
{
	for (size_t i = 0; i < d->n; i++)
		if (streq(d->v[i].name, name))
			return &d->v[i];
	return NULL;
}

/* ---- words ---- */

/* The next word of `*args`, brackets around all of it taken off; options, also "[--timeout T]" and
 * "|--all", are left out. Owned by the caller; NULL at the end. */
static char *next_word(const char **args)
{
	for (;;) {
		const char *s = *args + strspn(*args, " ");
		size_t len;

		if (!*s)
			return NULL;
		if (s[0] == '[' && s[1] == '-') {
			*args = s + strcspn(s, "]");
			*args += strspn(*args, "].");
			continue;
		}
		len = strcspn(s, " ");
		*args = s + len;
		if (len == 2 && has_prefix(s, "--")) { /* a whole command line of others */
			*args += strlen(*args);
			return xstrdup("CMD...");
		}
		if (has_prefix(s, "[OPTIONS]"))
			continue;
		if (s[0] == '-')
			continue;
		if (s[0] == '[') {
			/* "[CLOUD]...": the dots count, the brackets do not; "[/N]" is no such. */
			const char *end = memchr(s, ']', len);
			size_t inner = end ? (size_t)(end - s) - 1 : len - 1;

			return xasprintf("%.*s%s", (int)inner, s + 1,
				end && has_prefix(end + 1, "...") ? "..." : "");
		}
		return xstrndup(s, len);
	}
}

char *command_word(const char *args, size_t i)
{
	_cleanup_free_ char *word = NULL;

	for (size_t at = 0;; at++) {
		char *next = next_word(&args), *option, *dots;

		if (!next)
			return NULL;
		free(word);
		word = next;
		option = strstr(word, "|-");
		if (option)
			*option = '\0';
		dots = strstr(word, "...");
		if (dots)
			*dots = '\0';
		if (at == i || dots)
			return TAKE_PTR(word);
	}
}
