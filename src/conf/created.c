#include "conf/created.h"

#include <errno.h>

#include "base/strbuf.h"
#include "conf/keys.h"

#define FIRST_FREE_PORT 1024 /* below: the kernel's own rule is root only */

char *created_dir(const char *state_dir)
{
	return xasprintf("%s/created", state_dir);
}

char *created_path(const char *state_dir, const char *name)
{
	return xasprintf("%s/created/%s.conf", state_dir, name);
}

/* --- edits --- */

static bool is_given(const struct cloud_conf *c, const char *key)
{
	for (size_t i = 0; i < c->given.n; i++)
		if (streq(c->given.v[i], key))
			return true;
	return false;
}

/* In the order of the table. */
static void set_given(struct cloud_conf *c, const struct key *k, bool given)
{
	struct strv list = STRV_NULL;
	size_t n;
	const struct key *keys = keys_all(&n);

	for (size_t i = 0; i < n; i++)
		if (keys[i].section == SECTION_CLOUD &&
			(&keys[i] == k ? given : is_given(c, keys[i].name)))
			strv_add(&list, keys[i].name);
	strv_free(&c->given);
	c->given = list;
}

static bool has_control(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return true;
	return false;
}

/* Whether the key has a value, or is to get one, that not everybody may set. */
static bool needs_privilege(const struct cloud_conf *c, const struct key *k, const char *value)
{
	_cleanup_free_ char *now = is_given(c, k->name) ? key_get(k, c) : NULL;

	return (value && key_is_privileged(k, value)) || (now && key_is_privileged(k, now));
}

static int edit(struct cloud_conf *c, const struct key_edit *ed, bool privileged, struct err *e)
{
	const struct key *k = keys_find(SECTION_CLOUD, ed->key);

	if (!k)
		return cloud_conf_set(c, ed->key, "", e); /* says what may be meant */
	if (ed->value && has_control(ed->value))
		return err_set(
			e, -EINVAL, "%s: a value is one line, without control characters", k->name);
	if (!privileged && needs_privilege(c, k, ed->value))
		return err_set(e, -EPERM, "%s: only root and the daemon's user may set this%s",
			k->name, k->privilege == PRIVILEGE_ALL ? "" : " so");
	set_given(c, k, ed->value != NULL);
	if (ed->value)
		return key_set(k, c, ed->value, e);
	key_clear(k, c);
	key_set_default(k, c);
	return 0;
}

static int check_low_port(const struct cloud_conf *c, struct err *e)
{
	if (!c->port.port || c->port.port >= FIRST_FREE_PORT)
		return 0;
	return err_set(e, -EPERM, "port: only root and the daemon's user may ask for one below %d",
		FIRST_FREE_PORT);
}

int created_edit(struct cloud_conf *c, const struct key_edit *edits, size_t n, bool privileged,
	struct strv *errors)
{
	int r = 0;

	for (size_t i = 0; i <= n; i++) {
		_cleanup_(err_clear) struct err e = ERR_NULL;
		int one = i < n         ? edit(c, &edits[i], privileged, &e)
			  : !privileged ? check_low_port(c, &e)
					: 0;

		if (one == 0)
			continue;
		strv_add(errors, err_msg(&e));
		if (r == 0 || one != -EPERM)
			r = one == -EPERM ? -EPERM : -EINVAL;
	}
	return r;
}

char *created_privileged_keys(const struct cloud_conf *c)
{
	struct strbuf names = STRBUF_NULL;

	for (size_t i = 0; i < c->given.n; i++) {
		_cleanup_free_ char *value = cloud_conf_get(c, c->given.v[i]);

		if (cloud_conf_is_privileged(c->given.v[i], value))
			strbuf_printf(&names, "%s%s", names.len ? ", " : "", c->given.v[i]);
	}
	return names.len ? strbuf_take(&names) : NULL;
}

/* --- the file --- */

char *created_text(const struct cloud_conf *c, struct err *e)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *again = NULL;
	_cleanup_(strbuf_free) struct strbuf text = STRBUF_NULL;
	FILE *f = strbuf_stream(&text);

	fputs("; made at run time: `h2ofleet set` changes it, `h2ofleet delete` removes it\n", f);
	cloud_conf_print(c, f);
	fclose(f);
	again = conf_parse_cloud(text.s, text.len, c->name);
	if (again && cloud_conf_equal(again, c) && strv_equal(&again->given, &c->given))
		return strbuf_take(&text);
	err_set(e, -EINVAL, "a value cannot be written to a file so that it is read as the same");
	return NULL;
}

/* FNV-1a. */
static void hash_text(uint64_t *h, const char *s)
{
	do
		*h = (*h ^ (unsigned char)*s) * 0x100000001b3u;
	while (*s++);
}

uint64_t created_hash(const struct cloud_conf *c, bool privileged)
{
	uint64_t h = 0xcbf29ce484222325u;
	size_t n;
	const struct key *keys = keys_all(&n);

	hash_text(&h, c->created ? "created" : "config");
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *value = NULL;

		if (keys[i].section != SECTION_CLOUD)
			continue;
		hash_text(&h, is_given(c, keys[i].name) ? "given" : "");
		if (!privileged && keys[i].privilege == PRIVILEGE_ALL)
			continue;
		value = cloud_conf_get(c, keys[i].name);
		hash_text(&h, value);
	}
	return h;
}
