/* All members of a generation are dead: nothing of it may stay.
 *
 * What they have left running is known by its environment, so every process of the machine is
 * looked at: once for all clouds that wait for it, and seldom enough to leave the loop time for
 * others. What follows is done by work.c. */
#include <dirent.h>
#include <errno.h>

#include "base/file.h"
#include "base/log.h"
#include "core/internal.h"

#define RETRY_MS 1000
/* When the daemon ends it must not wait for ever. */
#define LAST_TRIES 5

#define LOOK_EVERY_MS 20
/* For what was killed to be gone. */
#define MAX_LOOKS 10

struct cleaner {
	uv_timer_t timer;
	uint64_t looked_ms;
};

/* ---- what is left running ---- */

static bool is_left_behind(const char *rest, void *arg)
{
	_cleanup_free_ char *name = xstrndup(rest, strcspn(rest, "/"));
	struct supervised *s = supervised_find(arg, name);

	if (!s || !s->clean.waits)
		return false;
	s->clean.found++;
	return true;
}

static void end_look(struct supervised *s)
{
	if (s->clean.found && s->clean.looks == 0)
		log_warning("cloud %s: its nodes left %u processes behind; killed",
			s->cloud->conf->name, s->clean.found);
	if (s->clean.found && ++s->clean.looks < MAX_LOOKS)
		return;
	s->clean.waits = false;
	s->work.clean = true;
	work_soon(s);
}

/* Without descriptors no straggler would be found and no file removed. */
static void try_later(struct supervised *s, int r)
{
	_cleanup_free_ char *sentence =
		xasprintf("cannot clean up after its nodes: %s%s", strerror(-r), trouble_advice(r));

	s->clean.waits = false;
	if (s->cloud->shutting_down && s->clean.tries++ >= LAST_TRIES) {
		s->work.clean = true;
		work_soon(s);
		return;
	}
	if (trouble_is_shortage(r))
		trouble_set(s->fleet, TROUBLE_LAUNCH, s->cloud->conf->name, sentence);
	s->clean.due = fleet_now(s->fleet) + RETRY_MS;
	supervised_feed(s, &(struct cloud_event){.type = EVENT_TICK}); /* arms its timer */
}

static void look_soon(struct fleet *f);

static void on_look(uv_timer_t *t)
{
	struct fleet *f = t->data;
	_cleanup_free_ char *mark = xasprintf("%s=%s/", TOKEN_ENV, f->id);
	int r = proc_can_look();

	for (size_t i = 0; i < f->n; i++)
		f->clouds[i]->clean.found = 0;
	if (r == 0)
		proc_kill_marked(mark, is_left_behind, f);
	f->cleaner->looked_ms = uv_now(f->loop);
	for (size_t i = 0; i < f->n; i++) {
		struct supervised *s = f->clouds[i];

		if (s->clean.waits && r == 0)
			end_look(s);
		else if (s->clean.waits)
			try_later(s, r);
		if (s->clean.waits)
			look_soon(f);
	}
}

/* At once when there was none lately. */
static void look_soon(struct fleet *f)
{
	struct cleaner *c = f->cleaner;
	uint64_t now = uv_now(f->loop), next = c->looked_ms + LOOK_EVERY_MS;

	if (!uv_is_active((uv_handle_t *)&c->timer))
		uv_timer_start(&c->timer, on_look, c->looked_ms && next > now ? next - now : 0, 0);
}

/* ---- what is left in files ---- */

/* H2O's own, which it leaves behind unless it ends in order: ice<port>. */
static bool is_ice(const char *name)
{
	return has_prefix(name, "ice") && name[3] &&
	       strspn(name + 3, "0123456789") == strlen(name + 3);
}

int clean_dir(const char *dir, struct err *e)
{
	_cleanup_free_ char *tmp = xasprintf("%s/tmp", dir);
	int r = file_empty_dir(tmp, e);
	DIR *d = r < 0 ? NULL : opendir(dir);
	struct dirent *de;

	if (!d)
		return r < 0 || errno == ENOENT ? r
						: err_set_errno(e, -errno, "cannot open %s", dir);
	while (r == 0 && (de = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, de->d_name);

		if (is_ice(de->d_name))
			r = file_remove_tree(path, e);
	}
	closedir(d);
	return r;
}

static void clean_member(struct supervised *s, struct member *m)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (!m->last_pid)
		return;
	m->last_pid = 0;
	if (clean_dir(m->ice_dir, &e) < 0)
		log_warning("cloud %s: node %u: %s", s->cloud->conf->name, m->index, err_msg(&e));
}

void clean_now(struct supervised *s)
{
	s->work.clean = false;
	s->clean.tries = 0;
	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		clean_member(s, &s->members[i]);
	cgroups_clean(s);
	supervised_feed(s, &(struct cloud_event){.type = EVENT_CLEANED});
}

void clean_begin(struct supervised *s)
{
	s->clean.due = 0;
	s->clean.looks = 0;
	s->clean.waits = true;
	look_soon(s->fleet);
}

/* ---- what an earlier daemon could not clean up any more ---- */

/* A member that is known is cleaned up after when it is dead. */
static bool is_known(const struct fleet *f, const char *cloud, const char *node)
{
	const struct supervised *s = supervised_find(f, cloud);
	unsigned long i = strtoul(node, NULL, 10);

	return s && i < s->cloud->n_nodes && s->members[i].last_pid;
}

/* Members run in directories that have their numbers as names. */
static void sweep_cloud(const struct fleet *f, const char *dir, const char *cloud)
{
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, de->d_name);
		_cleanup_(err_clear) struct err e = ERR_NULL;

		if (strspn(de->d_name, "0123456789") != strlen(de->d_name) ||
			is_known(f, cloud, de->d_name))
			continue;
		if (clean_dir(path, &e) < 0)
			log_warning("%s", err_msg(&e));
	}
	if (d)
		closedir(d);
}

/* Below an ice_root of the operator's own nothing is removed unasked. */
void clean_sweep(const struct fleet *f)
{
	_cleanup_free_ char *all = xasprintf("%s/clouds", f->conf->fleet.state_dir);
	DIR *d = opendir(all);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *dir = xasprintf("%s/%s", all, de->d_name);

		if (de->d_name[0] != '.')
			sweep_cloud(f, dir, de->d_name);
	}
	if (d)
		closedir(d);
}

/* ---- over the life of the daemon ---- */

void clean_new(struct fleet *f)
{
	f->cleaner = xcalloc(1, sizeof(*f->cleaner));
	uv_timer_init(f->loop, &f->cleaner->timer);
	f->cleaner->timer.data = f;
}

static void on_closed(uv_handle_t *h)
{
	free(h); /* the timer comes first in it */
}

void clean_free(struct fleet *f)
{
	uv_close((uv_handle_t *)&f->cleaner->timer, on_closed);
}
