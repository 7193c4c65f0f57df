/* Clouds that people make at run time. The file is the truth (conf/created.h): written before the
 * cloud is, removed before it is taken out; so whenever we are killed the next daemon finds it
 * whole or not at all. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "conf/check.h"
#include "conf/created.h"
#include "core/internal.h"
#include "drv/machine.h"

static const struct cloud_conf *newest(const struct supervised *s)
{
	return s->pending ? s->pending : s->cloud->conf;
}

const struct cloud_conf *fleet_cloud_conf(const struct fleet *f, const char *name)
{
	const struct supervised *s = supervised_find(f, name);

	return s ? newest(s) : NULL;
}

/* ---- is it allowed? ---- */

static void add_sentence(
	void *u, const struct key *a, const struct key *b _unused_, const char *sentence)
{
	if (has_prefix(sentence, a->name))
		strv_add(u, sentence);
	else
		strv_printf(u, "%s: %s", a->name, sentence);
}

static int check_ending(const struct fleet *f, struct strv *errors)
{
	if (!f->ending)
		return 0;
	strv_add(errors, "h2ofleetd is ending; nothing is changed any more");
	return -ESHUTDOWN;
}

static struct machine_facts machine(void)
{
	return (struct machine_facts){machine_memory(), machine_cores()};
}

/* All heaps; 0 when they cannot be had. */
static uint64_t heap_of(const struct cloud_conf *c, const struct machine_facts *m, struct err *e)
{
	uint64_t xmx = 0, xms = 0;

	return plan_memory(c, m, &xmx, &xms, e) < 0 ? 0 : xmx * (uint64_t)c->nodes;
}

/* What conf/load.c checks of a file, and what a launch would find out. */
static int check_conf(const struct fleet *f, const struct cloud_conf *conf, struct strv *errors)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct machine_facts m = machine();

	check_cloud(conf, f->conf->fleet.baseport, add_sentence, errors);
	for (size_t i = 0; i < f->n; i++) {
		const struct cloud_conf *other = newest(f->clouds[i]);

		if (!f->clouds[i]->cloud->removed && !streq(other->name, conf->name))
			check_clouds(other, conf, add_sentence, errors);
	}
	if (!heap_of(conf, &m, &e))
		strv_add(errors, err_msg(&e));
	return errors->n ? -EINVAL : 0;
}

/* So that nobody in the socket's group can exhaust the machine. */
static int check_limits(const struct fleet *f, const struct cloud_conf *conf, struct strv *errors)
{
	const struct fleet_conf *limit = &f->conf->fleet;
	struct machine_facts m = machine();
	uint64_t heap = heap_of(conf, &m, NULL);
	int64_t clouds = 1, nodes = conf->nodes;
	_cleanup_free_ char *all = NULL, *there = text_human_size(m.mem_bytes);

	for (size_t i = 0; i < f->n; i++) {
		const struct cloud_conf *other = newest(f->clouds[i]);

		if (!other->created || streq(other->name, conf->name))
			continue;
		clouds++;
		nodes += other->nodes;
		heap += heap_of(other, &m, NULL);
	}
	all = text_human_size(heap);
	if (clouds > limit->created_max)
		strv_printf(errors,
			"there may be %" PRId64
			" clouds made at run time, and no more (created_max "
			"in [fleet]; root and the daemon's user may make more)",
			limit->created_max);
	if (nodes > limit->created_max_nodes)
		strv_printf(errors,
			"nodes: clouds made at run time would have %" PRId64 " nodes together, and "
			"may have %" PRId64 " (created_max_nodes in [fleet])",
			nodes, limit->created_max_nodes);
	if (heap > m.mem_bytes)
		strv_printf(errors,
			"max_mem_size: the heaps of clouds made at run time would come to %s, and "
			"the machine has %s: less memory or fewer nodes, or delete one",
			all, there);
	return errors->n ? -EDQUOT : 0;
}

static int check(const struct fleet *f, const struct cloud_conf *conf, const struct fleet_who *who,
	struct strv *errors)
{
	int r = check_conf(f, conf, errors);

	if (r == 0 && f->n >= CONF_CLOUDS_MAX && !supervised_find(f, conf->name)) {
		strv_printf(errors, "there are %zu clouds, and there may not be more", f->n);
		r = -EDQUOT;
	}
	if (r == 0 && !who->admin)
		r = check_limits(f, conf, errors);
	return r;
}

/* ---- the file ---- */

static int make_dir(const struct fleet *f, struct err *e)
{
	_cleanup_free_ char *dir = created_dir(f->conf->fleet.state_dir);
	int r;

	if (access(dir, F_OK) == 0)
		return 0;
	r = file_mkdirs(dir, 0750, e);
	if (r == 0 && (r = file_sync_parent(dir)) < 0)
		err_set_errno(e, r, "cannot sync the directory of %s", dir);
	return r;
}

static int write_file(const struct fleet *f, struct cloud_conf *conf, struct strv *errors)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_free_ char *text = created_text(conf, &e);
	char *path = created_path(f->conf->fleet.state_dir, conf->name);
	int r = text ? make_dir(f, &e) : -EINVAL;

	free(conf->file);
	conf->file = path;
	if (r == 0)
		r = file_write_atomic(path, text, strlen(text), 0640, true, &e);
	if (r < 0)
		strv_printf(errors, "%s%s", err_msg(&e), trouble_advice(r));
	return r < 0 && text ? -EIO : r; /* others mean something else to who asked */
}

static int remove_file(const char *path, struct strv *errors)
{
	int r = file_remove_durable(path);

	if (r < 0)
		strv_printf(errors, "cannot remove %s: %s", path, strerror(-r));
	return r < 0 ? -EIO : 0;
}

/* ---- what people ask for ---- */

static json_t *by(const struct fleet_who *who)
{
	return json_pack("{s:I}", "uid", (json_int_t)who->uid);
}

static int check_name(const struct fleet *f, const char *name, struct strv *errors)
{
	const struct supervised *s = supervised_find(f, name);

	if (!s)
		return 0;
	if (s->cloud->removed) {
		strv_printf(errors, "cloud '%s' is being removed; it is there until it has stopped",
			name);
		return -EBUSY;
	}
	strv_printf(errors, "there is a cloud '%s' already, %s", name,
		s->cloud->conf->created ? "made at run time" : "in the configuration");
	return -EEXIST;
}

/* That it is at rest the next daemon must know, too: it would start it (autostart). */
static void begin(struct supervised *s, bool start)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	supervised_feed(s, &(struct cloud_event){.type = start ? EVENT_START : EVENT_TICK});
	if (!start && state_save(s, false, &e) < 0)
		log_warning("%s", err_msg(&e));
	door_look(s);
}

int fleet_create(struct fleet *f, struct cloud_conf *new, const struct fleet_who *who, bool start,
	struct strv *errors)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *conf = new;
	struct supervised *s;
	int r = check_ending(f, errors);

	conf->created = true;
	conf->baseport = f->conf->fleet.baseport;
	if (r == 0)
		r = check_name(f, conf->name, errors);
	if (r == 0)
		r = check(f, conf, who, errors);
	if (r == 0)
		r = write_file(f, conf, errors);
	if (r < 0)
		return r;
	s = reload_add(f, TAKE_PTR(conf));
	log_notice(
		"cloud %s: made at run time by uid %u", s->cloud->conf->name, (unsigned)who->uid);
	fleet_event(f, "cloud-created", s->cloud, -1, by(who), "cloud %s is made by uid %u",
		s->cloud->conf->name, (unsigned)who->uid);
	begin(s, start);
	return 0;
}

static json_t *changed_keys(const struct cloud_change *ch)
{
	json_t *list = json_array();

	for (size_t i = 0; i < ch->keys.n; i++)
		json_array_append_new(list, json_string(ch->keys.v[i].key->name));
	return list;
}

int fleet_change_created(struct fleet *f, struct cloud_conf *new, const struct fleet_who *who,
	struct cloud_change *change, struct strv *errors)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *conf = new;
	struct supervised *s = supervised_find(f, conf->name);
	int r = check_ending(f, errors);
	json_t *extra;

	conf->baseport = f->conf->fleet.baseport;
	if (r == 0)
		r = check(f, conf, who, errors);
	if (r == 0)
		r = write_file(f, conf, errors);
	if (r < 0)
		return r;
	reload_change(s, TAKE_PTR(conf), change);
	extra = by(who);
	json_object_set_new(extra, "keys", changed_keys(change));
	json_object_set_new(extra, "applied", json_boolean(change->applied));
	log_notice("cloud %s: changed at run time by uid %u", change->name, (unsigned)who->uid);
	fleet_event(f, "cloud-changed", s->cloud, -1, extra, "cloud %s is changed by uid %u%s",
		change->name, (unsigned)who->uid,
		change->applied ? "" : "; not all of that before it is restarted");
	return 0;
}

int fleet_delete(
	struct fleet *f, const char *name, const struct fleet_who *who, struct strv *errors)
{
	struct supervised *s = supervised_find(f, name);
	int r = check_ending(f, errors);

	if (r == 0 && s->cloud->removed)
		return 0;
	if (r == 0 && !s->cloud->conf->created) {
		strv_printf(errors,
			"cloud '%s' is in the configuration (%s); remove it there, then reload",
			name, s->cloud->conf->file ? s->cloud->conf->file : "the default");
		return -EPERM;
	}
	if (r == 0)
		r = remove_file(s->cloud->conf->file, errors);
	if (r < 0)
		return r;
	log_notice("cloud %s: deleted by uid %u; it is stopped", name, (unsigned)who->uid);
	fleet_event(f, "cloud-deleted", s->cloud, -1, by(who), "cloud %s is deleted by uid %u",
		name, (unsigned)who->uid);
	reload_take_out(s);
	return 0;
}

/* ---- files that cannot be used ---- */

/* Whatever stands there already is kept, too. */
static char *rename_aside(const char *file)
{
	char *aside = xasprintf("%s.aside", file);

	for (unsigned i = 1; access(aside, F_OK) == 0; i++) {
		free(aside);
		aside = xasprintf("%s.aside.%u", file, i);
	}
	if (rename(file, aside) == 0)
		return aside;
	log_warning("cannot rename %s: %s", file, strerror(errno));
	free(aside);
	return NULL;
}

void created_put_aside(struct fleet *f, const struct conf *conf)
{
	for (size_t i = 0; i < conf->n_aside; i++) {
		const struct conf_aside *a = &conf->aside[i];
		_cleanup_free_ char *kept = rename_aside(a->file), *name = text_utf8(a->name);
		_cleanup_free_ char *why = text_utf8(a->why);

		log_warning("cloud %s, made at run time, is set aside: %s; its file is kept as %s",
			a->name, a->why, kept ? kept : a->file);
		fleet_event(f, "cloud-set-aside", NULL, -1,
			json_pack("{s:s, s:s}", "name", name, "why", why),
			"cloud %s, made at run time, is set aside: %s", name, why);
	}
}

void created_tidy(const struct fleet *f)
{
	_cleanup_free_ char *dir = created_dir(f->conf->fleet.state_dir);
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		size_t n = strlen(de->d_name);
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, de->d_name);

		if (n > strlen(".conf.new") &&
			streq(de->d_name + n - strlen(".conf.new"), ".conf.new"))
			unlink(path);
	}
	if (d)
		closedir(d);
}
