/* Directories and what is left in them, for doctor. */
#include "cli/checks.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/file.h"
#include "base/text.h"
#include "drv/machine.h"

#define LOW_BYTES   (1ull << 30)
#define LOW_PERCENT 5

struct place {
	const char *what;
	char *path;
	char *existing; /* the nearest directory that exists */
	bool daemons;   /* only the daemon writes there */
	bool proven;    /* and a running one has */
	bool vital;
	bool runs; /* native libraries are loaded from there */
	dev_t dev;
	bool done; /* reported with another of its file system */
};

struct places {
	struct place *v;
	size_t n;
};

/* Takes `path` over. */
static void add_place(struct places *l, struct place p)
{
	struct stat st;

	p.existing = file_existing_dir(p.path);
	p.dev = stat(p.existing, &st) == 0 ? st.st_dev : 0;
	l->v = xreallocarray(l->v, l->n + 1, sizeof(*l->v));
	l->v[l->n++] = p;
}

static void places_free(struct places *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].path);
		free(l->v[i].existing);
	}
	free(l->v);
}

/* A cloud that has not run has not shown that its directories are fit, and without a recovery_dir
 * it runs, but does not do what it was told. */
static void collect_of_cloud(const struct cloud_conf *c, struct places *l)
{
	if (c->ice_root)
		add_place(l, (struct place){.what = "ice_root",
				     .path = xstrdup(c->ice_root),
				     .daemons = true,
				     .vital = true,
				     .runs = true});
	if (!streq(c->auto_recovery_dir, "off") && !streq(c->auto_recovery_dir, "auto"))
		add_place(l, (struct place){.what = "auto_recovery_dir",
				     .path = xstrdup(c->auto_recovery_dir),
				     .daemons = true,
				     .vital = true});
}

static void collect_places(const struct doctor *d, struct places *l)
{
	const struct fleet_conf *f = d->conf ? &d->conf->fleet : NULL;
	char *slash;

	add_place(l, (struct place){.what = "temporary files", .path = xstrdup("/tmp")});
	if (!f)
		return;
	add_place(l, (struct place){.what = "state_dir",
			     .path = xstrdup(f->state_dir),
			     .daemons = true,
			     .proven = true,
			     .vital = true,
			     .runs = true});
	add_place(l, (struct place){.what = "log_dir",
			     .path = xstrdup(f->log_dir),
			     .daemons = true,
			     .proven = true,
			     .vital = true});
	add_place(l, (struct place){.what = "cache_dir",
			     .path = xstrdup(f->cache_dir),
			     .daemons = true,
			     .proven = true});
	for (size_t i = 0; i < d->conf->n_clouds; i++)
		collect_of_cloud(d->conf->clouds[i], l);
	slash = strrchr(f->socket, '/');
	if (slash && slash != f->socket)
		add_place(l, (struct place){.what = "directory for the socket",
				     .path = xstrndup(f->socket, (size_t)(slash - f->socket)),
				     .daemons = true,
				     .proven = true,
				     .vital = true});
}

/* Not ours to judge: a running daemon has shown that it can write, or it is another user's. */
static bool left_to_daemon(const struct doctor *d, const struct place *p)
{
	if (!p->daemons || (!d->daemon && !d->daemon_silent))
		return false;
	return p->proven || (geteuid() != 0 && geteuid() != d->daemon_uid);
}

static void check_writable(struct doctor *d, const struct place *p)
{
	enum check_level level = p->vital ? CHECK_PROBLEM : CHECK_WARNING;
	_cleanup_free_ char *advice = NULL;
	struct stat st;

	if (left_to_daemon(d, p))
		return;
	if (stat(p->existing, &st) == 0 && !S_ISDIR(st.st_mode)) {
		doctor_add(d, "disk", level, "remove the file, or set another path",
			"%s %s: %s is not a directory", p->what, p->path, p->existing);
		return;
	}
	if (faccessat(AT_FDCWD, p->existing, W_OK | X_OK, AT_EACCESS) == 0)
		return;
	if (p->daemons)
		advice = xasprintf(
			"let user %u write there, or set another %s", (unsigned)geteuid(), p->what);
	else
		advice = xasprintf("let user %u write there: JVMs keep their hsperfdata there",
			(unsigned)geteuid());
	doctor_add(d, "disk", level, advice, "%s %s: cannot write in %s: %s", p->what, p->path,
		p->existing, strerror(errno));
}

static void check_noexec(struct doctor *d, const struct place *p)
{
	struct statvfs v;

	if (!p->runs || statvfs(p->existing, &v) < 0 || !(v.f_flag & ST_NOEXEC))
		return;
	doctor_add(d, "disk", CHECK_WARNING,
		"nodes unpack XGBoost's library there and could not load it: mount it without "
		"noexec, or set another path",
		"%s %s is on a file system mounted noexec", p->what, p->path);
}

/* One line for all places on the same file system. */
static void check_room(struct doctor *d, struct places *l, size_t first)
{
	_cleanup_(strbuf_free) struct strbuf names = STRBUF_NULL;
	_cleanup_free_ char *free_text = NULL;
	_cleanup_free_ char *total_text = NULL;
	struct statvfs v;
	uint64_t avail;
	uint64_t total;
	bool low, vital = false;

	for (size_t i = first; i < l->n; i++)
		if (l->v[i].dev == l->v[first].dev) {
			doctor_list(&names, "%s", l->v[i].path);
			l->v[i].done = true;
			vital |= l->v[i].vital;
		}
	if (statvfs(l->v[first].existing, &v) < 0) {
		doctor_add(d, "disk", CHECK_WARNING, "look whether its file system still answers",
			"%s: %s", strbuf_str(&names), strerror(errno));
		return;
	}
	if (v.f_blocks == 0) {
		doctor_add(d, "disk", vital ? CHECK_PROBLEM : CHECK_WARNING, "set another path",
			"%s: a file system that stores nothing", strbuf_str(&names));
		return;
	}
	avail = (uint64_t)v.f_bavail * v.f_frsize;
	total = (uint64_t)v.f_blocks * v.f_frsize;
	low = avail < LOW_BYTES || avail < total / 100 * LOW_PERCENT;
	free_text = text_human_size(avail);
	total_text = text_human_size(total);
	doctor_add(d, "disk", low ? CHECK_WARNING : CHECK_OK,
		low ? "make room: a node without it cannot spill, log or load XGBoost" : NULL,
		"%s of %s free for %s", free_text, total_text, strbuf_str(&names));
}

void check_disk(struct doctor *d)
{
	_cleanup_(places_free) struct places l = {0};

	collect_places(d, &l);
	for (size_t i = 0; i < l.n; i++) {
		if (!l.v[i].done)
			check_room(d, &l, i);
		check_writable(d, &l.v[i]);
		check_noexec(d, &l.v[i]);
	}
}

void check_leaked(struct doctor *d)
{
	_cleanup_free_ char *size = NULL;
	uint64_t bytes = 0;
	unsigned n = 0;

	machine_leaked_xgboost(&n, &bytes);
	if (n == 0) {
		doctor_add(d, "leftovers", CHECK_OK, NULL,
			"no XGBoost libraries of dead JVMs in /tmp");
		return;
	}
	size = text_human_size(bytes);
	/* A JVM that runs has long loaded its file and needs the name no more; only one that is
	 * just being unpacked must stay. */
	doctor_add(d, "leftovers", CHECK_WARNING,
		"find /tmp -maxdepth 1 -type f -name 'libxgboost*.so' -mmin +10 -delete",
		"%u XGBoost librar%s of JVMs that were killed, %s in /tmp", n, n == 1 ? "y" : "ies",
		size);
}
