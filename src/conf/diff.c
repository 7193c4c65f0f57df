#include "conf/diff.h"

const char *cloud_change_name(enum cloud_change_kind kind)
{
	static const char *const names[] = {
		[CHANGE_NONE] = "unchanged",
		[CHANGE_LIVE] = "live",
		[CHANGE_RESTART] = "restart",
		[CHANGE_ADDED] = "added",
		[CHANGE_REMOVED] = "removed",
	};
	return names[kind];
}

const char *key_reload_name(enum key_reload reload)
{
	static const char *const names[] = {
		[RELOAD_LIVE] = "live",
		[RELOAD_CLOUD] = "restart",
		[RELOAD_DAEMON] = "daemon",
	};
	return names[reload];
}

static void add_change(
	struct key_changes *list, const struct key *k, const void *before, const void *after)
{
	list->v = xreallocarray(list->v, list->n + 1, sizeof(*list->v));
	list->v[list->n++] = (struct key_change){k, key_get(k, before), key_get(k, after)};
}

static void compare(
	struct key_changes *list, enum key_section section, const void *before, const void *after)
{
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++)
		if (keys[i].section == section && !key_equal(&keys[i], before, after))
			add_change(list, &keys[i], before, after);
}

static void changes_clear(struct key_changes *list)
{
	for (size_t i = 0; i < list->n; i++) {
		free(list->v[i].before);
		free(list->v[i].after);
	}
	free(list->v);
}

static void add_cloud(struct conf_diff *d, struct cloud_change ch)
{
	d->clouds = xreallocarray(d->clouds, d->n + 1, sizeof(*d->clouds));
	d->clouds[d->n++] = ch;
}

static void add_whole(struct conf_diff *d, const char *name, enum cloud_change_kind kind)
{
	add_cloud(d, (struct cloud_change){.name = xstrdup(name), .kind = kind});
}

/* What of them takes longest. */
static enum cloud_change_kind kind_of(const struct key_changes *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].key->reload != RELOAD_LIVE)
			return CHANGE_RESTART;
	return list->n ? CHANGE_LIVE : CHANGE_NONE;
}

void cloud_change_make(
	const struct cloud_conf *was, const struct cloud_conf *is, struct cloud_change *ch)
{
	const struct fleet_conf before = {.baseport = was->baseport};
	const struct fleet_conf after = {.baseport = is->baseport};

	*ch = (struct cloud_change){.name = xstrdup(is->name)};
	if (!was->port.port && !is->port.port && was->baseport != is->baseport)
		add_change(&ch->keys, keys_find(SECTION_FLEET, "baseport"), &before, &after);
	compare(&ch->keys, SECTION_CLOUD, was, is);
	ch->kind = kind_of(&ch->keys);
}

void cloud_change_clear(struct cloud_change *ch)
{
	free(ch->name);
	changes_clear(&ch->keys);
	*ch = (struct cloud_change){0};
}

void conf_diff_make(const struct conf *before, const struct conf *after, struct conf_diff *out)
{
	*out = (struct conf_diff){0};
	compare(&out->fleet, SECTION_FLEET, &before->fleet, &after->fleet);
	for (size_t i = 0; i < after->n_clouds; i++) {
		const struct cloud_conf *is = after->clouds[i];
		const struct cloud_conf *was = conf_find_cloud(before, is->name);
		struct cloud_change ch;

		if (was) {
			cloud_change_make(was, is, &ch);
			add_cloud(out, ch);
		} else {
			add_whole(out, is->name, CHANGE_ADDED);
		}
	}
	for (size_t i = 0; i < before->n_clouds; i++)
		if (!conf_find_cloud(after, before->clouds[i]->name))
			add_whole(out, before->clouds[i]->name, CHANGE_REMOVED);
}

void conf_diff_clear(struct conf_diff *d)
{
	changes_clear(&d->fleet);
	for (size_t i = 0; i < d->n; i++)
		cloud_change_clear(&d->clouds[i]);
	free(d->clouds);
	*d = (struct conf_diff){0};
}

void key_changes_apply(const struct key_changes *changes, enum key_section section,
	enum key_reload at, void *to, const void *from)
{
	for (size_t i = 0; i < changes->n; i++) {
		const struct key *k = changes->v[i].key;

		if (k->section != section || k->reload != at)
			continue;
		key_clear(k, to);
		key_copy(k, to, from);
	}
}

void key_changes_names(const struct key_changes *changes, enum key_reload at, struct strv *names)
{
	for (size_t i = 0; i < changes->n; i++)
		if (changes->v[i].key->reload == at)
			strv_add(names, changes->v[i].key->name);
}
