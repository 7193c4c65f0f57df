/* A new configuration for a fleet that runs.
 *
 * What can change live does so at once: the model's configuration is replaced. What members were
 * launched with waits in `pending` until none of them is alive: while the cloud is at rest, or
 * between two generations. A cloud that is not configured any more stays in the fleet, marked,
 * until it has stopped; so a second reload can take it back. */
#include <errno.h>
#include <stdio.h>

#include "base/file.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "conf/check.h"
#include "core/bootbuilder.h"
#include "core/internal.h"

/* ---- one cloud: what is in force ---- */

/* No process, and none on its way. In backoff, too, where its ports are held. */
static bool at_rest(const struct supervised *s)
{
	const struct cloud *c = s->cloud;

	return !s->handling && cloud_quiet(c) &&
	       (c->state == CLOUD_STOPPED || c->state == CLOUD_FAILED || c->state == CLOUD_BACKOFF);
}

static size_t index_of(const struct supervised *s)
{
	size_t i = 0;

	while (s->fleet->clouds[i] != s)
		i++;
	return i;
}

/* A member that is not launched any more leaves no empty directories; what is in them, such as a
 * core file, stays. */
static void remove_traces(const struct supervised *s, const struct member *m)
{
	unlink(m->flatfile);
	rmdir(m->tmp_dir);
	rmdir(m->ice_dir);
	if (s->cloud->conf->ice_root) {
		_cleanup_free_ char *parent =
			xasprintf("%s/%s", s->cloud->conf->ice_root, s->cloud->conf->name);

		rmdir(parent);
	}
}

/* Else the door stays, with those who wait at it. */
static bool doors_differ(const struct cloud_conf *old, const struct cloud_conf *new)
{
	return old->port.port != new->port.port || old->port.exact != new->port.exact ||
	       old->gate_mode != new->gate_mode ||
	       old->bind_to_localhost != new->bind_to_localhost ||
	       (!new->port.port && old->baseport != new->baseport);
}

static bool ports_differ(const struct cloud_conf *old, const struct cloud_conf *new)
{
	return doors_differ(old, new) || old->nodes != new->nodes;
}

/* Takes `new` over; frees the old one. */
static void replace_conf(struct supervised *s, struct cloud_conf *new)
{
	struct cloud_conf **slot = &s->fleet->conf->clouds[index_of(s)], *old = *slot;

	cloud_configure(s->cloud, new, fleet_now(s->fleet));
	s->door.stale = true;
	*slot = new;
	cloud_conf_free(old);
}

/* All of it; nobody may be alive. */
static void put_in_force(struct supervised *s, struct cloud_conf *new)
{
	const struct cloud_conf *old = s->cloud->conf;
	bool new_root = !streq_null(old->ice_root, new->ice_root);
	bool remake = new_root || old->nodes != new->nodes;

	if (ports_differ(old, new)) {
		launch_forget_ports(s);
		if (doors_differ(old, new))
			door_release(s);
		s->cloud->ports_planned = false;
	}
	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		if (new_root || i >= new->nodes)
			remove_traces(s, &s->members[i]);
	if (remake)
		members_free(s);
	boot_pardon(s);
	replace_conf(s, new);
	if (remake)
		members_make(s);
	strv_free(&s->cloud->pending_keys);
}

static void drop_pending(struct supervised *s)
{
	cloud_conf_free(TAKE_PTR(s->pending));
	strv_free(&s->cloud->pending_keys);
}

/* `new` is taken over. */
static void change(struct supervised *s, struct cloud_conf *new, const struct cloud_change *ch)
{
	drop_pending(s);
	bootbuilder_wake(s->fleet);
	if (ch->kind != CHANGE_RESTART) {
		replace_conf(s, new);
	} else if (at_rest(s)) {
		put_in_force(s, new);
	} else {
		struct cloud_conf *mixed = cloud_conf_dup(s->cloud->conf);

		cloud_conf_copy_origin(mixed, new);
		key_changes_apply(&ch->keys, SECTION_CLOUD, RELOAD_LIVE, mixed, new);
		replace_conf(s, mixed);
		s->pending = new;
		key_changes_names(&ch->keys, RELOAD_CLOUD, &s->cloud->pending_keys);
	}
}

/* ---- clouds that come and go ---- */

static void add(struct fleet *f, struct cloud_conf *conf)
{
	struct conf *c = f->conf;

	f->clouds = xreallocarray(f->clouds, f->n + 1, sizeof(struct supervised *));
	c->clouds = xreallocarray(c->clouds, c->n_clouds + 1, sizeof(struct cloud_conf *));
	c->clouds[c->n_clouds++] = conf;
	f->clouds[f->n++] = supervised_new(f, conf);
	adopt_cloud(f->clouds[f->n - 1]);
	f->changes++;
}

/* It was removed, and has not gone yet. */
static void take_back(struct supervised *s, struct cloud_conf *conf)
{
	s->cloud->removed = false;
	cloud_conf_copy_origin(s->fleet->conf->clouds[index_of(s)], conf);
	s->pending = conf;
	if (at_rest(s))
		put_in_force(s, TAKE_PTR(s->pending));
}

static void take_out(struct supervised *s)
{
	if (s->cloud->removed)
		return;
	s->cloud->removed = true;
	drop_pending(s);
	supervised_feed(s, &(struct cloud_event){.type = EVENT_STOP});
	launch_cancel_probe(s);
}

/* Its logs stay, and what is in its recovery directory. */
static void forget(struct fleet *f, size_t i)
{
	struct supervised *s = f->clouds[i];
	struct cloud_conf *conf = f->conf->clouds[i];
	_cleanup_free_ char *recovery = xasprintf("%s/recovery", s->dir);
	_cleanup_(err_clear) struct err e = ERR_NULL;

	for (unsigned k = 0; k < s->cloud->n_nodes; k++)
		remove_traces(s, &s->members[k]);
	fleet_event(f, "cloud-gone", s->cloud, -1, NULL, "cloud %s is gone", conf->name);
	state_remove(s);
	rmdir(recovery);
	rmdir(s->dir);
	/* Who may make and delete clouds could fill the disk with them, name by name. */
	if (conf->created && file_remove_tree(s->log_dir, &e) < 0)
		log_warning("cloud %s: its logs stay: %s", conf->name, err_msg(&e));
	for (int kind = 0; kind < N_TROUBLE_KINDS; kind++)
		trouble_clear(f, (enum trouble_kind)kind, conf->name);
	log_notice("cloud %s: removed", conf->name);
	f->n--;
	f->conf->n_clouds--;
	memmove(f->clouds + i, f->clouds + i + 1, (f->n - i) * sizeof(*f->clouds));
	memmove(f->conf->clouds + i, f->conf->clouds + i + 1, (f->n - i) * sizeof(*f->clouds));
	supervised_free(s);
	cloud_conf_free(conf);
}

/* ---- what waits ---- */

static void settle(struct supervised *s)
{
	struct cloud *c = s->cloud;
	bool launch = s->prepare_waits;

	s->prepare_waits = false;
	if (s->pending) {
		put_in_force(s, TAKE_PTR(s->pending));
		log_notice("cloud %s: its new configuration is in force", c->conf->name);
		/* It was done for the old recovery directory. */
		if (launch && c->fresh && !c->resume_asked)
			recovery_ignore(s);
	}
	if (launch)
		launch_prepare(s);
	if (launch && c->state == CLOUD_STOPPING) /* meanwhile */
		launch_cancel_probe(s);
	supervised_feed(s, &(struct cloud_event){.type = EVENT_TICK});
}

static void on_sweep(uv_timer_t *t)
{
	struct fleet *f = t->data;

	for (size_t i = f->n; i-- > 0;) {
		struct supervised *s = f->clouds[i];

		if (s->prepare_waits || (s->pending && at_rest(s)))
			settle(s);
		if (s->cloud->removed && at_rest(s))
			forget(f, i);
	}
}

static void sweep_soon(struct fleet *f)
{
	if (!f->sweep) {
		f->sweep = xcalloc(1, sizeof(*f->sweep));
		uv_timer_init(f->loop, f->sweep);
		f->sweep->data = f;
	}
	uv_timer_start(f->sweep, on_sweep, 0, 0);
}

static void on_sweep_closed(uv_handle_t *h)
{
	free(h);
}

void reload_free(struct fleet *f)
{
	if (f->sweep)
		uv_close((uv_handle_t *)f->sweep, on_sweep_closed);
}

void reload_look(struct supervised *s)
{
	if ((s->pending || s->cloud->removed) && at_rest(s))
		sweep_soon(s->fleet);
}

bool reload_defers_launch(struct supervised *s)
{
	if (!s->pending)
		return false;
	s->prepare_waits = true;
	sweep_soon(s->fleet);
	return true;
}

/* ---- over the life of the daemon ---- */

json_t *reload_launched_with(const struct supervised *s)
{
	const struct cloud_conf *conf = s->cloud->conf;
	json_t *j = json_object();
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *value = NULL;

		if (keys[i].section != SECTION_CLOUD || keys[i].reload != RELOAD_CLOUD)
			continue;
		value = key_get(&keys[i], conf);
		json_object_set_new(j, keys[i].name, value ? json_string(value) : json_null());
	}
	json_object_set_new(j, "baseport", json_integer(conf->baseport));
	return j;
}

/* The files' configuration with the keys as they were; what cannot be read is as in the files. */
static struct cloud_conf *as_launched(const struct cloud_conf *files, const json_t *launched_with)
{
	struct cloud_conf *conf = cloud_conf_dup(files);
	const char *name;
	json_t *value;

	json_object_foreach ((json_t *)launched_with, name, value) {
		const struct key *k = keys_find(SECTION_CLOUD, name);

		if (!k || k->reload != RELOAD_CLOUD)
			continue;
		if (json_is_null(value) && !k->dflt && !k->find_default)
			key_clear(k, conf);
		else if (json_is_string(value) &&
			 key_set(k, conf, json_string_value(value), NULL) < 0)
			log_debug("cloud %s: %s of the state file is not understood", conf->name,
				name);
	}
	if (!json_object_get(launched_with, "gate_mode")) /* by a daemon that knew no gate */
		conf->gate_mode = GATE_OFF;
	if (json_is_integer(json_object_get(launched_with, "baseport")))
		conf->baseport = json_integer_value(json_object_get(launched_with, "baseport"));
	return conf;
}

void reload_recall(struct supervised *s, const json_t *launched_with)
{
	struct conf *all = s->fleet->conf;
	struct cloud_conf *files, *conf;
	struct conf_diff d;
	size_t i = 0;

	if (!json_is_object(launched_with))
		return;
	while (all->clouds[i] != s->cloud->conf)
		i++;
	files = all->clouds[i];
	conf = as_launched(files, launched_with);
	conf_diff_make(&(struct conf){.fleet = all->fleet, .clouds = &conf, .n_clouds = 1},
		&(struct conf){.fleet = all->fleet, .clouds = &files, .n_clouds = 1}, &d);
	if (d.clouds[0].kind == CHANGE_NONE) {
		cloud_conf_free(conf);
	} else {
		members_free(s);
		cloud_configure(s->cloud, conf, fleet_now(s->fleet));
		members_make(s);
		all->clouds[i] = conf;
		s->pending = files;
		key_changes_names(&d.clouds[0].keys, RELOAD_CLOUD, &s->cloud->pending_keys);
	}
	conf_diff_clear(&d);
}

/* ---- who else has it ---- */

static void take_sentence(
	void *u, const struct key *a _unused_, const struct key *b _unused_, const char *sentence)
{
	replace_str(u, sentence);
}

int reload_check_others(const struct supervised *s, struct err *e)
{
	for (size_t i = 0; i < s->fleet->n; i++) {
		const struct supervised *o = s->fleet->clouds[i];
		const struct cloud *c = o->cloud;
		_cleanup_free_ char *sentence = NULL;

		if (o == s ||
			(cloud_quiet(c) && (c->state == CLOUD_STOPPED || c->state == CLOUD_FAILED)))
			continue;
		check_clouds(c->conf, s->cloud->conf, take_sentence, &sentence);
		if (sentence)
			return err_set(e, -EBUSY, "%s; waits until that one is %s", sentence,
				o->cloud->removed ? "gone" : "stopped or restarted");
	}
	return 0;
}

/* ---- one cloud, made, changed or removed at run time ---- */

struct supervised *reload_add(struct fleet *f, struct cloud_conf *conf)
{
	add(f, conf);
	return f->clouds[f->n - 1];
}

void reload_change(struct supervised *s, struct cloud_conf *new, struct cloud_change *out)
{
	cloud_change_make(s->cloud->conf, new, out);
	out->applied = out->kind != CHANGE_RESTART || at_rest(s);
	change(s, new, out);
	supervised_feed(s, &(struct cloud_event){.type = EVENT_TICK});
}

void reload_take_out(struct supervised *s)
{
	take_out(s);
}

const struct cloud_conf *fleet_pending(const struct fleet *f, const char *cloud)
{
	const struct supervised *s = supervised_find(f, cloud);

	return s ? s->pending : NULL;
}

/* ---- the whole ---- */

static bool restarts(const struct conf *new_conf, const struct reload_options *opts)
{
	return opts->restart || new_conf->fleet.apply == APPLY_RESTART;
}

/* The difference as it is for clouds that are on their way out, and what of it waits. */
static void judge(struct fleet *f, struct conf_diff *d, bool restart)
{
	for (size_t i = 0; i < d->n; i++) {
		struct cloud_change *ch = &d->clouds[i];
		const struct supervised *s = supervised_find(f, ch->name);

		ch->applied = true;
		if (!s) /* it is added */
			continue;
		if (s->cloud->removed && ch->kind != CHANGE_REMOVED)
			ch->kind = CHANGE_ADDED;
		ch->applied = ch->kind != CHANGE_RESTART || at_rest(s) ||
			      (restart && s->cloud->wanted == WANTED_RUNNING);
	}
}

static void report(const struct conf_diff *d)
{
	size_t changed = 0;

	for (size_t i = 0; i < d->fleet.n; i++)
		log_notice("reload: [fleet] %s %s", d->fleet.v[i].key->name,
			d->fleet.v[i].key->reload == RELOAD_DAEMON
				? "has changed; that needs a restart of the daemon"
				: "has changed");
	for (size_t i = 0; i < d->n; i++) {
		const struct cloud_change *ch = &d->clouds[i];
		_cleanup_(strbuf_free) struct strbuf keys = STRBUF_NULL;

		changed += ch->kind != CHANGE_NONE;
		if (ch->kind == CHANGE_NONE)
			continue;
		for (size_t k = 0; k < ch->keys.n; k++)
			strbuf_printf(&keys, "%s%s", k ? ", " : ": ", ch->keys.v[k].key->name);
		log_notice("reload: cloud %s: %s%s%s", ch->name,
			ch->kind == CHANGE_ADDED     ? "added"
			: ch->kind == CHANGE_REMOVED ? "removed; it is stopped"
						     : "changed",
			ch->kind == CHANGE_LIVE || ch->kind == CHANGE_RESTART ? strbuf_str(&keys)
									      : "",
			ch->applied ? "" : "; not all of that before it is restarted");
	}
	log_notice("reload: %zu of %zu clouds changed", changed, d->n);
}

/* The clouds as they are to be, nothing started or stopped yet. */
static void take_clouds(struct fleet *f, struct conf *new_conf, const struct conf_diff *d)
{
	for (size_t i = 0; i < new_conf->n_clouds; i++) {
		struct cloud_conf *conf = TAKE_PTR(new_conf->clouds[i]);
		struct supervised *s = supervised_find(f, conf->name);

		if (!s)
			add(f, conf);
		else if (s->cloud->removed)
			take_back(s, conf);
		else
			change(s, conf, &d->clouds[i]);
	}
	for (size_t i = 0; i < d->n; i++) { /* in the order of the configuration */
		struct supervised *s = supervised_find(f, d->clouds[i].name), *other = f->clouds[i];
		struct cloud_conf **confs = f->conf->clouds, *other_conf = confs[i];
		size_t from = index_of(s);

		f->clouds[i] = s;
		f->clouds[from] = other;
		confs[i] = confs[from];
		confs[from] = other_conf;
	}
}

static void act(struct supervised *s, const struct cloud_change *ch, bool restart)
{
	enum event_type type = EVENT_TICK;

	if (ch->kind == CHANGE_REMOVED) {
		take_out(s);
	} else if (ch->kind == CHANGE_ADDED) {
		if (s->cloud->conf->autostart)
			supervised_feed(s, &(struct cloud_event){.type = EVENT_START});
	} else if (ch->kind != CHANGE_NONE) {
		if (ch->kind == CHANGE_RESTART && restart && s->cloud->wanted == WANTED_RUNNING)
			type = EVENT_RESTART;
		supervised_feed(s, &(struct cloud_event){.type = type});
	}
}

int fleet_reload(struct fleet *f, struct conf *new_conf, const struct reload_options *opts,
	struct reload_report *out)
{
	_cleanup_(conf_freep) struct conf *new = new_conf;
	bool restart;

	if (f->ending) {
		strv_add(&out->errors, "the daemon is ending; nothing is reloaded any more");
		return -ESHUTDOWN;
	}
	restart = restarts(new, opts);
	conf_diff_make(f->conf, new, &out->diff);
	judge(f, &out->diff, restart);
	if (opts->dry_run)
		return 0;
	report(&out->diff);
	key_changes_apply(
		&out->diff.fleet, SECTION_FLEET, RELOAD_LIVE, &f->conf->fleet, &new->fleet);
	key_changes_apply(
		&out->diff.fleet, SECTION_FLEET, RELOAD_CLOUD, &f->conf->fleet, &new->fleet);
	strv_free(&f->conf->files);
	strv_copy(&f->conf->files, &new->files);
	created_put_aside(f, new);
	conf_take_places(f->conf, new);
	take_clouds(f, new, &out->diff);
	for (size_t i = 0; i < out->diff.n; i++)
		act(supervised_find(f, out->diff.clouds[i].name), &out->diff.clouds[i], restart);
	return 0;
}
