/* Reads the files of a configuration, with the place of everything that was set. */
#include "conf/conf.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/file.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "conf/check.h"
#include "conf/created.h"
#include "conf/dirs.h"
#include "conf/ini.h"
#include "conf/keys.h"

#define FILE_MAX_SIZE  (1u << 20)
#define DEFAULT_CLOUD  "h2o" /* where nothing is configured */
#define ERRORS_OF_FILE 100   /* a file with more of them is something else */

/* Line 0: the file as a whole, or NOWHERE. */
struct place {
	size_t file; /* index in conf->files */
	unsigned line;
};

#define NOWHERE ((struct place){.file = SIZE_MAX})

struct section {
	enum key_section kind;
	void *conf; /* struct fleet_conf (not owned) or struct cloud_conf (owned) */
	struct place at;
	struct place *where; /* of each key of the table; owned */
	bool *failed;        /* keys whose value was refused; owned */
	bool refused;        /* its keys are only looked at for faults */
};

struct fault {
	struct place at;
	size_t order;
	bool soft;      /* the created cloud is left out, in any case */
	char *sentence; /* owned */
};

struct loader {
	struct conf *conf;
	struct section **sections; /* [0] is [fleet]; owned */
	size_t n_sections;
	size_t n_clouds;
	struct section *current; /* NULL: keys here belong nowhere */
	bool in_section;
	size_t file;

	/* The key being read, whose value may go on. */
	const struct key *key;
	unsigned line;
	struct strbuf value;
	bool broken; /* its lines were refused */

	/* Files from here on are those of created clouds, each with the one that it is named
	 * after. */
	size_t first_created;
	char *created_name; /* owned; NULL: it is none of these */
	bool strict;        /* their faults are faults of the configuration */
	bool skip_unreadable;

	struct fault *faults; /* owned */
	size_t n_faults;
	int code; /* of the first file that could not be read */
};

/* --- faults --- */

static void add_fault(struct loader *l, struct place at, const char *fmt, ...) _printf_(3, 4);
static void add_fault(struct loader *l, struct place at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	l->faults = xreallocarray(l->faults, l->n_faults + 1, sizeof(*l->faults));
	l->faults[l->n_faults] =
		(struct fault){.at = at, .order = l->n_faults, .sentence = xvasprintf(fmt, ap)};
	l->n_faults++;
	va_end(ap);
}

/* "FILE:LINE". Owned by the caller. */
static char *name_place(const struct loader *l, struct place p)
{
	return xasprintf("%s:%u", l->conf->files.v[p.file], p.line);
}

/* The created cloud of that file is left out; else the whole configuration is refused. */
static bool is_aside(const struct loader *l, const struct fault *f)
{
	return f->at.file != NOWHERE.file && f->at.file >= l->first_created &&
	       (f->soft || !l->strict);
}

static bool has_faults(const struct loader *l, size_t file)
{
	for (size_t i = 0; i < l->n_faults; i++)
		if (l->faults[i].at.file == file)
			return true;
	return false;
}

static bool is_left_out(const struct loader *l, size_t file)
{
	for (size_t i = 0; i < l->n_faults; i++)
		if (l->faults[i].at.file == file && is_aside(l, &l->faults[i]))
			return true;
	return false;
}

static int compare_faults(const void *a, const void *b)
{
	const struct fault *x = a, *y = b;

	if (x->at.file != y->at.file)
		return x->at.file < y->at.file ? -1 : 1;
	if (x->at.line != y->at.line)
		return x->at.line < y->at.line ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

static void report_faults(struct loader *l, struct conf_errors *errors)
{
	size_t of_file = 0;

	if (l->n_faults)
		qsort(l->faults, l->n_faults, sizeof(*l->faults), compare_faults);
	for (size_t i = 0; i < l->n_faults; i++) {
		const struct fault *f = &l->faults[i];
		bool last = i + 1 == l->n_faults || f[1].at.file != f->at.file;

		of_file++;
		if (is_aside(l, f)) {
			continue;
		} else if (f->at.line == 0) {
			strv_add(&errors->list, f->sentence);
		} else if (of_file <= ERRORS_OF_FILE) {
			_cleanup_free_ char *at = name_place(l, f->at);

			strv_printf(&errors->list, "%s: %s", at, f->sentence);
		} else if (last) {
			strv_printf(&errors->list, "%s: %zu more errors in this file",
				l->conf->files.v[f->at.file], of_file - ERRORS_OF_FILE);
		}
		if (last)
			of_file = 0;
	}
}

/* --- sections --- */

static struct section *add_section(
	struct loader *l, enum key_section kind, void *conf, struct place at)
{
	struct section *s = xcalloc(1, sizeof(*s));
	size_t n;

	keys_all(&n);
	*s = (struct section){.kind = kind, .conf = conf, .at = at};
	s->where = xcalloc(n, sizeof(*s->where));
	s->failed = xcalloc(n, sizeof(*s->failed));
	l->sections = xreallocarray(l->sections, l->n_sections + 1, sizeof(struct section *));
	l->sections[l->n_sections++] = s;
	return s;
}

static void free_section(struct section *s)
{
	if (s->kind == SECTION_CLOUD)
		cloud_conf_free(s->conf);
	free(s->where);
	free(s->failed);
	free(s);
}

static struct section *find_cloud(struct loader *l, const char *name)
{
	for (size_t i = 1; i < l->n_sections; i++) {
		const struct cloud_conf *c = l->sections[i]->conf;

		if (!l->sections[i]->refused && streq(c->name, name))
			return l->sections[i];
	}
	return NULL;
}

/* A file of created clouds has one section, of the cloud that it is named after. */
static bool belongs_here(struct loader *l, struct place at, const char *name)
{
	struct section *first = find_cloud(l, name);

	if (!l->created_name)
		return true;
	if (!streq(name, l->created_name)) {
		add_fault(l, at, "in this file there may only be [cloud %s]", l->created_name);
		return false;
	}
	if (!first || first->at.file == at.file)
		return true;
	_cleanup_free_ char *first_at = name_place(l, first->at);

	add_fault(l, at, "cloud %s is in the configuration now (%s), and that one counts", name,
		first_at);
	l->faults[l->n_faults - 1].soft = true;
	return false;
}

static void begin_cloud(struct loader *l, struct place at, const char *name)
{
	bool valid = conf_cloud_name_valid(name);
	struct section *first = valid ? find_cloud(l, name) : NULL;
	struct cloud_conf *c;

	if (++l->n_clouds > CONF_CLOUDS_MAX) {
		if (l->n_clouds == CONF_CLOUDS_MAX + 1)
			add_fault(l, at, "there are more than %d clouds", CONF_CLOUDS_MAX);
		return;
	}
	c = cloud_conf_new(valid ? name : "refused");
	c->file = xstrdup(l->conf->files.v[at.file]);
	c->line = at.line;
	l->current = add_section(l, SECTION_CLOUD, c, at);
	l->current->refused = !valid || first;
	if (first) {
		_cleanup_free_ char *first_at = name_place(l, first->at);

		add_fault(l, at, "[cloud %s] is there already (%s)", name, first_at);
	} else if (!*name) {
		add_fault(l, at, "the cloud needs a name: [cloud NAME]");
	} else if (!valid) {
		_cleanup_free_ char *shown = types_quote(name);

		add_fault(l, at,
			"%s cannot be a cloud's name: 1 to 32 letters, digits, '_' and '-' are "
			"wanted, "
			"a letter or digit first",
			shown);
	}
}

static void refuse_section(struct loader *l, struct place at, const char *text)
{
	static const char *const kinds[] = {"fleet", "cloud"};
	_cleanup_free_ char *word = xstrndup(text, strcspn(text, " \t"));
	_cleanup_free_ char *shown = types_quote(text);
	const char *near = text_nearest(word, kinds, ARRAY_SIZE(kinds));

	if (near)
		add_fault(l, at, "unknown section %s; did you mean [%s]?", shown,
			streq(near, "cloud") ? "cloud NAME" : near);
	else
		add_fault(l, at, "unknown section %s: there are [fleet] and [cloud NAME]", shown);
}

/* --- keys --- */

static struct place here(const struct loader *l, unsigned line)
{
	return (struct place){.file = l->file, .line = line};
}

static void refuse_key(struct loader *l, unsigned line, const char *name)
{
	enum key_section kind = l->current->kind;
	enum key_section other = kind == SECTION_FLEET ? SECTION_CLOUD : SECTION_FLEET;
	_cleanup_free_ char *shown = types_quote(name);
	const char *near = keys_nearest(kind, name);

	if (keys_find(other, name))
		add_fault(l, here(l, line), "key %s belongs into a [%s%s] section", shown,
			keys_section_name(other), other == SECTION_CLOUD ? " NAME" : "");
	else if (near)
		add_fault(l, here(l, line), "unknown key %s; did you mean '%s'?", shown, near);
	else
		add_fault(l, here(l, line), "unknown key %s", shown);
}

/* Whether an odd number of backslashes ends it: the last of these joins lines. */
static bool ends_in_join(const struct strbuf *b)
{
	size_t n = 0;

	while (n < b->len && b->s[b->len - 1 - n] == '\\')
		n++;
	return n % 2 == 1;
}

/* The value is complete: sets the key. */
static void finish_key(struct loader *l)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	const struct key *k = TAKE_PTR(l->key);
	struct section *s = l->current;
	struct place *at;

	if (!k)
		return;
	at = &s->where[keys_index(k)];
	if (at->line) {
		_cleanup_free_ char *first = name_place(l, *at);

		add_fault(l, here(l, l->line), "%s is set already (%s)", k->name, first);
		return;
	}
	*at = here(l, l->line);
	if (!l->broken && ends_in_join(&l->value)) {
		add_fault(l, *at,
			"%s: a backslash ends the last line, but no indented line follows",
			k->name);
		l->broken = true;
	}
	if (!l->broken && key_set(k, s->conf, strbuf_str(&l->value), &e) < 0) {
		add_fault(l, *at, "%s", err_msg(&e));
		l->broken = true;
	}
	s->failed[keys_index(k)] = l->broken;
}

/* --- what the reader tells --- */

static void on_section(void *u, unsigned line, const char *text)
{
	struct loader *l = u;
	struct place at = here(l, line);
	const char *name = NULL;

	finish_key(l);
	l->current = NULL;
	l->in_section = true;
	if (!text)
		return;
	if (streq(text, "fleet") && !l->created_name)
		l->current = l->sections[0];
	else if (has_prefix(text, "cloud") && (!text[5] || strchr(" \t", text[5])))
		name = text + 5 + strspn(text + 5, " \t");
	else
		refuse_section(l, at, text);
	if (name && belongs_here(l, at, name))
		begin_cloud(l, at, name);
}

static void on_value(void *u, unsigned line, const char *name, const char *value)
{
	struct loader *l = u;

	finish_key(l);
	if (!l->in_section) {
		_cleanup_free_ char *shown = types_quote(name);

		add_fault(l, here(l, line), "key %s stands before the first [section]", shown);
	}
	if (!l->current)
		return;
	l->key = keys_find(l->current->kind, name);
	l->line = line;
	l->broken = false;
	strbuf_reset(&l->value);
	strbuf_puts(&l->value, value);
	if (!l->key)
		refuse_key(l, line, name);
}

/* Indented lines are more words of a list; to other values they may only be joined. */
static void on_more(void *u, unsigned line, const char *text)
{
	struct loader *l = u;
	const char *fault = NULL;

	if (!l->key)
		return;
	if (ends_in_join(&l->value)) {
		l->value.s[--l->value.len] = '\0';
		strbuf_puts(&l->value, text);
		return;
	}
	if (keys_begins_line(l->current->kind, text))
		fault = "looks like a key of its own";
	else if (l->key->type->storage != STORE_STRV)
		fault = "that value takes one line only";
	if (fault) {
		add_fault(l, here(l, line),
			"this line is indented, so it goes on with '%s' of line %u, but %s",
			l->key->name, l->line, fault);
		l->broken = true;
		return;
	}
	if (l->value.len)
		strbuf_puts(&l->value, " ");
	strbuf_puts(&l->value, text);
}

static void on_error(void *u, unsigned line, bool in_value, const char *sentence)
{
	struct loader *l = u;

	l->broken |= in_value;
	add_fault(l, here(l, line), "%s", sentence);
}

static const struct ini_events ini = {on_section, on_value, on_more, on_error};

/* --- files --- */

/* Not the file's fault: it may be good. */
static bool is_passing(int r)
{
	return r == -EMFILE || r == -ENFILE || r == -ENOMEM || r == -EIO;
}

/* What stands in it is run, so who can write to it, or put another in its place, is us. Without a
 * sentence where reading it would tell what is wrong. */
static int check_trust(const char *file, struct err *e)
{
	_cleanup_free_ char *cwd = *file == '/' ? NULL : getcwd(NULL, 0);
	_cleanup_free_ char *path = NULL, *way = NULL;
	bool given = file_is_given(file);
	struct statvfs fs;
	struct stat st;

	path = realpath(file, NULL);
	if (!path || stat(path, &st) < 0)
		return given ? 0 : -errno;
	if (given && (!S_ISREG(st.st_mode) || st.st_nlink == 0))
		return 0;
	if (S_ISREG(st.st_mode) && st.st_mode & S_IWOTH &&
		(statvfs(path, &fs) < 0 || !(fs.f_flag & ST_RDONLY)))
		return err_set(e, -EPERM,
			"everybody may write to it, and could make the daemon run anything: chmod "
			"o-w it");
	way = given ? xstrdup(path) : cwd ? xasprintf("%s/%s", cwd, file) : xstrdup(file);
	return file_check_there(way, e);
}

static void load_file(struct loader *l, const char *file)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *data = NULL;
	size_t len = 0;
	int r = check_trust(file, &e); /* before it is read: then it stays what it is */

	strv_add(&l->conf->files, file);
	l->file = l->conf->files.n - 1;
	l->current = NULL;
	l->in_section = false;
	if (e.msg) {
		add_fault(l, l->created_name ? here(l, 0) : NOWHERE, "%s: %s", file, err_msg(&e));
		return;
	}
	if (r == 0)
		r = file_read(file, FILE_MAX_SIZE, &data, &len);
	if (r < 0) {
		bool ours = l->created_name && !is_passing(r);

		add_fault(l, ours ? here(l, 0) : NOWHERE, "%s: cannot be read: %s", file,
			r == -EFBIG ? "it is larger than 1 MB" : strerror(-r));
		if (!ours)
			l->code = l->code ? l->code : r;
		return;
	}
	ini_read(data, len, &ini, l);
	finish_key(l);
}

static int is_conf_file(const struct dirent *d)
{
	const char *dot = strrchr(d->d_name, '.');

	return d->d_name[0] != '.' && dot && streq(dot, ".conf");
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_dir(struct loader *l, const char *dir)
{
	_cleanup_free_ char *main_file = xasprintf("%s/h2ofleet.conf", dir);
	_cleanup_free_ char *more = xasprintf("%s/conf.d", dir);
	struct dirent **names = NULL;
	int n;

	if (access(main_file, F_OK) == 0 || errno != ENOENT)
		load_file(l, main_file);
	n = scandir(more, &names, is_conf_file, compare_names);
	if (n < 0 && errno != ENOENT) {
		l->code = l->code ? l->code : -errno;
		add_fault(l, NOWHERE, "%s: cannot be read: %s", more, strerror(errno));
	}
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *file = xasprintf("%s/%s", more, names[i]->d_name);

		load_file(l, file);
		free(names[i]);
	}
	free(names);
}

static void load_created_file(struct loader *l, const char *dir, const char *entry)
{
	_cleanup_free_ char *file = xasprintf("%s/%s", dir, entry);
	size_t sections = l->n_sections;

	free(l->created_name);
	l->created_name = xstrndup(entry, strlen(entry) - strlen(".conf"));
	load_file(l, file);
	if (l->n_sections == sections && !has_faults(l, l->file))
		add_fault(l, here(l, 0), "%s: there is no [cloud %s] in it", file, l->created_name);
}

static void load_created(struct loader *l, const char *state_dir)
{
	_cleanup_free_ char *dir = created_dir(state_dir);
	struct dirent **names = NULL;
	int n = scandir(dir, &names, is_conf_file, compare_names);

	l->first_created = l->conf->files.n;
	if (n < 0 && errno != ENOENT && !(l->skip_unreadable && errno == EACCES)) {
		l->code = l->code ? l->code : -errno;
		add_fault(l, NOWHERE, "%s: cannot be read: %s", dir, strerror(errno));
	}
	for (int i = 0; i < n; i++) {
		load_created_file(l, dir, names[i]->d_name);
		free(names[i]);
	}
	free(names);
}

/* --- the whole --- */

/* Where a fault of these keys is shown: at the first of them that was set, else at the section. */
static struct place place_of(const struct section *s, const struct key *a, const struct key *b)
{
	if (s->where[keys_index(a)].line)
		return s->where[keys_index(a)];
	if (b && s->where[keys_index(b)].line)
		return s->where[keys_index(b)];
	return s->at;
}

struct cross_check {
	struct loader *loader;
	const struct section *section;
	const struct section *other; /* or NULL */
};

static bool is_failed(const struct section *s, const struct key *k)
{
	return s && k && s->failed[keys_index(k)];
}

/* What follows from a value that was refused is no news. */
static void on_cross_fault(void *u, const struct key *a, const struct key *b, const char *sentence)
{
	struct cross_check *c = u;

	if (is_failed(c->section, a) || is_failed(c->section, b) || is_failed(c->other, a) ||
		is_failed(c->other, b))
		return;
	if (c->other) {
		_cleanup_free_ char *other_at = name_place(c->loader, place_of(c->other, a, b));

		add_fault(c->loader, place_of(c->section, a, b), "%s (%s)", sentence, other_at);
	} else {
		add_fault(c->loader, place_of(c->section, a, b), "%s", sentence);
	}
}

static void check_pair(struct loader *l, const struct section *a, const struct section *b)
{
	struct cross_check check = {.loader = l, .section = b, .other = a};

	check_clouds(a->conf, b->conf, on_cross_fault, &check);
}

static void check_all(struct loader *l)
{
	const struct key *baseport = keys_find(SECTION_FLEET, "baseport");
	struct cross_check check = {.loader = l};

	for (size_t i = 1; i < l->n_sections; i++) {
		const struct section *s = l->sections[i];
		const struct cloud_conf *c = s->conf;

		if (s->refused || (!c->port.port && is_failed(l->sections[0], baseport)) ||
			is_left_out(l, s->at.file))
			continue;
		check.section = s;
		check_cloud(c, l->conf->fleet.baseport, on_cross_fault, &check);
		for (size_t j = 1; j < i; j++)
			if (!l->sections[j]->refused && !is_left_out(l, l->sections[j]->at.file))
				check_pair(l, l->sections[j], s);
	}
}

/* Defaults that hang on other values, or may not hold. */
static void finish_fleet(struct loader *l)
{
	struct fleet_conf *f = &l->conf->fleet;
	const struct key *k = keys_find(SECTION_FLEET, "socket");
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (!f->log_dir)
		f->log_dir = xasprintf("%s/log", f->state_dir);
	if (!l->sections[0]->where[keys_index(k)].line && k->check(&f->socket, &e) < 0)
		add_fault(l, NOWHERE, "socket: %s; set 'socket' in [fleet]", err_msg(&e));
}

static void take_cloud(struct loader *l, struct section *s)
{
	struct cloud_conf *c = TAKE_PTR(s->conf);
	size_t n;
	const struct key *keys = keys_all(&n);

	c->created = s->at.file >= l->first_created;
	for (size_t i = 0; i < n; i++)
		if (s->where[i].line)
			strv_add(&c->given, keys[i].name);
	l->conf->clouds[l->conf->n_clouds++] = c;
}

/* Files of created clouds that cannot be used; the others are forgotten: only what is configured
 * can be moved away by mistake. */
static void take_aside(struct loader *l)
{
	struct conf *c = l->conf;

	for (size_t i = 0; i < l->n_faults; i++) { /* sorted: the first one of each file tells */
		const struct fault *f = &l->faults[i];
		const char *file = c->files.v[f->at.file], *name = strrchr(file, '/') + 1;

		if (i && f[-1].at.file == f->at.file)
			continue;
		c->aside = xreallocarray(c->aside, c->n_aside + 1, sizeof(*c->aside));
		c->aside[c->n_aside++] = (struct conf_aside){
			.name = xstrndup(name, strlen(name) - strlen(".conf")),
			.file = xstrdup(file),
			.why = f->at.line ? xasprintf("line %u: %s", f->at.line, f->sentence)
					  : xstrdup(f->sentence),
		};
	}
	while (c->files.n > l->first_created) {
		free(c->files.v[--c->files.n]);
		c->files.v[c->files.n] = NULL;
	}
}

static void keep_places(struct loader *l)
{
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < l->n_sections; i++) {
		const struct section *s = l->sections[i];
		const struct cloud_conf *c = s->kind == SECTION_CLOUD ? s->conf : NULL;

		for (size_t k = 0; k < n; k++)
			if (s->where[k].line)
				conf_add_place(l->conf, c ? c->name : NULL, &keys[k],
					l->conf->files.v[s->where[k].file], s->where[k].line);
	}
}

/* Hands the clouds that are as they should be over to the configuration. */
static void take_clouds(struct loader *l)
{
	struct conf *c = l->conf;
	size_t i = 1;

	c->clouds = xcalloc(l->n_sections + 1, sizeof(struct cloud_conf *));
	for (; i < l->n_sections && l->sections[i]->at.file < l->first_created; i++)
		take_cloud(l, l->sections[i]);
	if (c->n_clouds == 0 && !find_cloud(l, DEFAULT_CLOUD))
		c->clouds[c->n_clouds++] = cloud_conf_new(DEFAULT_CLOUD);
	for (; i < l->n_sections; i++)
		if (!is_left_out(l, l->sections[i]->at.file) && !l->sections[i]->refused)
			take_cloud(l, l->sections[i]);
	for (i = 0; i < c->n_clouds; i++)
		c->clouds[i]->baseport = c->fleet.baseport;
	take_aside(l);
}

static bool is_refused(const struct loader *l)
{
	for (size_t i = 0; i < l->n_faults; i++)
		if (!is_aside(l, &l->faults[i]))
			return true;
	return l->code < 0;
}

static int finish(struct loader *l, struct conf **out, struct conf_errors *errors)
{
	finish_fleet(l);
	check_all(l);
	report_faults(l, errors);
	if (is_refused(l))
		return l->code ? l->code : -EINVAL;
	keep_places(l);
	take_clouds(l);
	*out = TAKE_PTR(l->conf);
	return 0;
}

static void loader_init(struct loader *l)
{
	*l = (struct loader){.conf = xcalloc(1, sizeof(struct conf)), .first_created = SIZE_MAX};
	keys_set_defaults(SECTION_FLEET, &l->conf->fleet);
	add_section(l, SECTION_FLEET, &l->conf->fleet, (struct place){0});
}

static void loader_free(struct loader *l)
{
	for (size_t i = 0; i < l->n_sections; i++)
		free_section(l->sections[i]);
	free(l->sections);
	for (size_t i = 0; i < l->n_faults; i++)
		free(l->faults[i].sentence);
	free(l->faults);
	free(l->created_name);
	strbuf_free(&l->value);
	conf_free(l->conf);
}

struct cloud_conf *conf_parse_cloud(const char *text, size_t len, const char *name)
{
	_cleanup_(loader_free) struct loader l = {0};

	loader_init(&l);
	strv_add(&l.conf->files, name);
	l.created_name = xstrdup(name);
	ini_read(text, len, &ini, &l);
	finish_key(&l);
	if (l.n_faults || l.n_sections != 2)
		return NULL;
	l.conf->clouds = xcalloc(1, sizeof(struct cloud_conf *));
	take_cloud(&l, l.sections[1]);
	l.conf->n_clouds--;
	return TAKE_PTR(l.conf->clouds[l.conf->n_clouds]);
}

static int load(const char *file, const char *dir, struct conf **out, struct conf_errors *errors)
{
	_cleanup_(loader_free) struct loader l = {0};

	loader_init(&l);
	if (file)
		load_file(&l, file);
	else
		load_dir(&l, dir);
	return finish(&l, out, errors);
}

int conf_load_dir(const char *dir, struct conf **out, struct conf_errors *errors)
{
	return load(NULL, dir, out, errors);
}

int conf_load_all(const struct conf_source *from, struct conf **out, struct conf_errors *errors)
{
	_cleanup_free_ char *dir = dirs_config(geteuid());
	_cleanup_(loader_free) struct loader l = {0};

	loader_init(&l);
	l.strict = from->strict;
	l.skip_unreadable = from->skip_unreadable;
	if (from->file)
		load_file(&l, from->file);
	else
		load_dir(&l, dir);
	load_created(&l, from->state_dir ? from->state_dir : l.conf->fleet.state_dir);
	return finish(&l, out, errors);
}

int conf_load(const char *file, struct conf **out, struct conf_errors *errors)
{
	_cleanup_free_ char *dir = dirs_config(geteuid());

	return load(file, dir, out, errors);
}
