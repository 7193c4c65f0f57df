/* Each generation of a cloud in a control group of its own: what is in it ends together, is counted
 * together and can be limited, and none of it can hide.
 *
 * Members are put into it while they still wait to be released (drv/spawn.h), so that nothing of
 * them ever runs outside. Who makes the group depends on where we run:
 *
 *	root, or in a user's manager	a transient scope, by systemd
 *	an unprivileged system service	a directory in the unit h2ofleet-clouds.service, which is
 *					delegated to our user; systemd moves the members there
 *	no systemd, or Delegate=	a directory in our own group, if we may write there
 *
 * Else there is none, which is said once, and the token in the environment alone tells what is
 * ours. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/internal.h"
#include "drv/cgroup.h"
#include "drv/machine.h"
#include "drv/scope.h"

#define SLICE          "h2ofleet.slice"
#define SCOPE_SUFFIX   ".scope"
#define DELEGATED_UNIT "h2ofleet-clouds.service"
/* The process that keeps that unit's group alive: a group that gives controllers to its subgroups
 * may have no process itself. */
#define KEEPER "keeper"

/* A generation waits so long for its group, then goes without. */
#define PLACE_MS    5000
#define PRESSURE_MS 1000
/* After such a wait the others are spared it for a while. */
#define PLACE_AGAIN_MS 60000

enum cgroups_kind { CGROUPS_NONE, CGROUPS_SCOPE, CGROUPS_DIR };

struct cgroups {
	enum cgroups_kind kind;
	bool user;     /* scopes of the user's manager */
	char *part_of; /* scopes: our own service, or NULL */
	char *parent;  /* where the groups are; NULL: not known (scopes only) */
	char *unit; /* directories: the delegated unit they are in, when it is not ours; or NULL */
	bool said;
	uint64_t not_before;
};

/* ---- where we are ---- */

static void say(struct fleet *f, const char *why)
{
	struct cgroups *cg = f->cgroups;
	bool wanted = f->conf->fleet.scopes == SCOPES_YES;

	if (cg->said)
		return;
	cg->said = true;
	log_write(wanted ? LOG_LEVEL_WARNING : LOG_LEVEL_NOTICE,
		"clouds run without control groups of their own: %s", why);
}

/* Directory of systemd's slice of ours: what the manager's own group is in. */
static char *slice_dir(bool user)
{
	_cleanup_free_ char *dir = cgroup_of(user ? 0 : 1);
	char *end;

	if (!dir)
		return NULL;
	end = strstr(dir, user ? "/user@" : "/init.scope");
	if (user && end)
		end = strchr(end + 1, '/');
	return end ? xasprintf("%.*s/" SLICE, (int)(end - dir), dir) : NULL;
}

static void use_scopes(struct cgroups *cg, bool user)
{
	_cleanup_free_ char *unit = scope_own_unit(user);
	const char *dot = unit ? strrchr(unit, '.') : NULL;

	cg->kind = CGROUPS_SCOPE;
	cg->user = user;
	cg->parent = slice_dir(user);
	if (dot && streq(dot, ".service"))
		cg->part_of = TAKE_PTR(unit);
}

/* The unit beside ours that belongs to our user. Its controllers are for the clouds. */
static bool use_delegated_unit(struct cgroups *cg, const char *own)
{
	const char *slash = strrchr(own, '/');
	_cleanup_free_ char *dir =
		xasprintf("%.*s/" DELEGATED_UNIT, slash ? (int)(slash - own) : 0, own);

	if (!cgroup_is_ours(dir) || cgroup_move_down(dir, KEEPER) < 0)
		return false;
	cgroup_set(dir, "cgroup.subtree_control", "+memory");
	cgroup_set(dir, "cgroup.subtree_control", "+cpu");
	cg->kind = CGROUPS_DIR;
	cg->parent = TAKE_PTR(dir);
	cg->unit = xstrdup(DELEGATED_UNIT);
	return true;
}

static bool use_own_group(struct cgroups *cg, const char *own)
{
	if (!cgroup_is_ours(own))
		return false;
	cg->kind = CGROUPS_DIR;
	cg->parent = xstrdup(own);
	return true;
}

/* NULL, or why there will be none. */
static const char *choose(struct cgroups *cg, bool insist)
{
	_cleanup_free_ char *own = cgroup_of(0), *in_user = scope_own_unit(true);
	_cleanup_free_ char *in_system = scope_own_unit(false);

	if (!own)
		return "no cgroup v2 is mounted, or ours cannot be seen";
	if (scope_systemd_booted() && in_user) {
		use_scopes(cg, true);
		return NULL;
	}
	if (scope_systemd_booted() && geteuid() == 0 && (in_system || insist)) {
		use_scopes(cg, false);
		return NULL;
	}
	if (scope_systemd_booted() && use_delegated_unit(cg, own))
		return NULL;
	if (scope_systemd_booted() && insist && geteuid() != 0 && getenv("XDG_RUNTIME_DIR")) {
		use_scopes(cg, true);
		return NULL;
	}
	if (use_own_group(cg, own))
		return NULL;
	return scope_systemd_booted()
		       ? "only root may ask systemd for scopes, and there is no running "
			 "unit " DELEGATED_UNIT " that is delegated to our user"
		       : "our own control group is not ours to write to";
}

void cgroups_new(struct fleet *f)
{
	struct cgroups *cg = xcalloc(1, sizeof(*cg));
	const char *why;

	f->cgroups = cg;
	if (f->conf->fleet.scopes == SCOPES_NO)
		return;
	why = choose(cg, f->conf->fleet.scopes == SCOPES_YES);
	if (why)
		say(f, why);
	else
		log_debug("clouds get control groups of their own, as %s%s%s",
			cg->kind == CGROUPS_DIR ? "directories" : "scopes",
			cg->parent ? " in " : "", cg->parent ? cg->parent : "");
}

void cgroups_free(struct fleet *f)
{
	struct cgroups *cg = f->cgroups;

	if (!cg)
		return;
	free(cg->part_of);
	free(cg->parent);
	free(cg->unit);
	free(cg);
	f->cgroups = NULL;
}

/* ---- the group of a cloud ---- */

static const char *base_name(const char *dir)
{
	const char *slash = strrchr(dir, '/');

	return slash ? slash + 1 : dir;
}

void cgroups_forget(struct supervised *s)
{
	scope_cancel(TAKE_PTR(s->cgroup.job));
	free(s->cgroup.dir);
	s->cgroup = (struct cloud_cgroup){0};
}

static char *own_name(const struct supervised *s)
{
	return cgroup_name(s->fleet->id, s->cloud->conf->name, s->cgroup.generation);
}

/* The group that a process is in, if it is one of this cloud's. Owned by the caller. */
static char *group_of(const struct supervised *s, pid_t pid, uint64_t *generation)
{
	char *dir = cgroup_of(pid);

	if (dir &&
		cgroup_name_parse(base_name(dir), s->fleet->id, s->cloud->conf->name, generation))
		return dir;
	free(dir);
	return NULL;
}

/* Its directory; NULL: it has none. A scope that came too late for us is found here. */
static const char *locate(struct supervised *s)
{
	const struct cgroups *cg = s->fleet->cgroups;
	_cleanup_free_ char *name = NULL, *dir = NULL;

	if (s->cgroup.dir || !s->cgroup.asked || !cg->parent)
		return s->cgroup.dir;
	name = own_name(s);
	dir = xasprintf("%s/%s%s", cg->parent, name, cg->kind == CGROUPS_SCOPE ? SCOPE_SUFFIX : "");
	if (access(dir, F_OK) == 0)
		s->cgroup.dir = TAKE_PTR(dir);
	return s->cgroup.dir;
}

void cgroups_adopted(struct supervised *s, pid_t pid)
{
	uint64_t generation = 0;
	_cleanup_free_ char *dir = s->cgroup.dir ? NULL : group_of(s, pid, &generation);

	if (!dir)
		return;
	cgroups_forget(s);
	s->cgroup.dir = TAKE_PTR(dir);
	s->cgroup.generation = generation;
	s->cgroup.asked = true;
	cgroups_oom_sample(s);
	cgroups_oom_sample(s);
}

/* ---- limits ---- */

static uint64_t memory_max(const struct supervised *s)
{
	const struct mem_spec *m = &s->cloud->conf->memory_max;

	if (m->kind == MEM_PERCENT)
		return machine_memory() / 100 * m->value;
	return m->kind == MEM_BYTES ? m->value : 0;
}

/* systemd has set the limits of a scope; those of a directory are set here. What a kernel or a
 * machine cannot do is said once. */
static void set_limit(struct supervised *s, const char *key, const char *file, const char *value)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", s->cgroup.dir, file);
	int r = 0;

	if (access(path, F_OK) < 0)
		r = -ENOENT;
	else if (s->fleet->cgroups->kind == CGROUPS_DIR)
		r = cgroup_set(s->cgroup.dir, file, value);
	if (r < 0 && !s->limit_said) {
		s->limit_said = true;
		log_warning("cloud %s: %s is not in force: %s", s->cloud->conf->name, key,
			r == -ENOENT ? "that controller is not there for its control group"
				     : strerror(-r));
	}
}

static void set_limits(struct supervised *s)
{
	const struct cloud_conf *conf = s->cloud->conf;
	uint64_t bytes = memory_max(s);
	char text[64];

	if (bytes) {
		snprintf(text, sizeof(text), "%" PRIu64, bytes);
		set_limit(s, "memory_max", "memory.max", text);
	}
	if (conf->cpu_quota) {
		snprintf(text, sizeof(text), "%" PRId64 " 100000", conf->cpu_quota * 1000);
		set_limit(s, "cpu_quota", "cpu.max", text);
	}
	if (conf->oom_policy == OOM_KILL) /* none of our properties: systemd leaves it alone */
		cgroup_set(s->cgroup.dir, "memory.oom.group", "1");
}

/* No controller, no limit; each by itself, since one may be missing. Refused while a process is in
 * the parent (we, in our own group): set_limit() says what is missing then. */
static void want_controllers(const struct supervised *s)
{
	const char *parent = s->fleet->cgroups->parent;

	if (memory_max(s))
		cgroup_set(parent, "cgroup.subtree_control", "+memory");
	if (s->cloud->conf->cpu_quota)
		cgroup_set(parent, "cgroup.subtree_control", "+cpu");
}

static void limits_missing(struct supervised *s)
{
	const struct cloud_conf *conf = s->cloud->conf;

	if (s->limit_said || (!conf->cpu_quota && conf->memory_max.kind == MEM_UNSET))
		return;
	s->limit_said = true;
	log_warning("cloud %s: %s is not in force: it has no control group of its own", conf->name,
		conf->cpu_quota ? "cpu_quota" : "memory_max");
}

/* ---- putting members into it ---- */

static size_t waiting_pids(const struct supervised *s, pid_t *pids)
{
	size_t n = 0;

	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		if (s->members[i].unreleased && s->members[i].proc)
			pids[n++] = proc_pid(s->members[i].proc);
	return n;
}

/* systemd has said so, but the truth is in /proc. */
static void settle(struct supervised *s)
{
	_cleanup_free_ pid_t *pids = xcalloc(s->cloud->n_nodes, sizeof(*pids));
	size_t n = waiting_pids(s, pids), inside = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t generation = 0;
		char *dir = group_of(s, pids[i], &generation);

		if (dir && generation == s->cgroup.generation) {
			inside++;
			free(s->cgroup.dir);
			s->cgroup.dir = TAKE_PTR(dir);
		}
		free(dir);
	}
	if (s->cgroup.dir)
		set_limits(s);
	if (inside < n)
		log_warning("cloud %s: %zu of %zu members are not in its control group",
			s->cloud->conf->name, n - inside, n);
}

static void not_placed(struct supervised *s, int result, const char *why)
{
	struct cgroups *cg = s->fleet->cgroups;

	if (result == -ETIMEDOUT)
		cg->not_before = fleet_now(s->fleet) + PLACE_AGAIN_MS;
	say(s->fleet, why);
	log_debug("cloud %s: no control group: %s", s->cloud->conf->name, why);
	limits_missing(s);
}

static void on_placed(int result, const char *why, void *arg)
{
	struct supervised *s = arg;

	s->cgroup.job = NULL;
	if (result < 0)
		not_placed(s, result, why);
	else
		settle(s);
	launch_release(s);
}

static int start_scope(struct supervised *s, const pid_t *pids, size_t n, struct err *e)
{
	const struct cgroups *cg = s->fleet->cgroups;
	_cleanup_free_ char *name = own_name(s), *unit = xasprintf("%s" SCOPE_SUFFIX, name);
	_cleanup_free_ char *what = xasprintf(
		"H2O cloud %s, generation %" PRIu64, s->cloud->conf->name, s->cgroup.generation);
	struct scope_request rq = {
		.user = cg->user,
		.name = unit,
		.description = what,
		.slice = SLICE,
		.part_of = cg->part_of,
		.pids = pids,
		.n_pids = n,
		.memory_max = memory_max(s),
		.cpu_percent = (uint64_t)s->cloud->conf->cpu_quota,
	};

	return scope_start(s->fleet->loop, &rq, PLACE_MS, on_placed, s, &s->cgroup.job, e);
}

static int use_dir(struct supervised *s, const pid_t *pids, size_t n, struct err *e)
{
	const struct cgroups *cg = s->fleet->cgroups;
	_cleanup_free_ char *name = own_name(s), *dir = xasprintf("%s/%s", cg->parent, name);
	_cleanup_free_ char *sub = xasprintf("/%s", name);
	int r;

	want_controllers(s);
	r = cgroup_make(dir);
	if (r < 0)
		return err_set_errno(e, r, "cannot make %s", dir);
	if (cg->unit)
		return scope_attach(s->fleet->loop, cg->unit, sub, pids, n, PLACE_MS, on_placed, s,
			&s->cgroup.job, e);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = cgroup_add(dir, pids[i]);
	if (r < 0)
		return err_set_errno(e, r, "cannot move a process into %s", dir);
	settle(s);
	return 0;
}

bool cgroups_place(struct supervised *s)
{
	const struct cgroups *cg = s->fleet->cgroups;
	_cleanup_free_ pid_t *pids = xcalloc(s->cloud->n_nodes, sizeof(*pids));
	_cleanup_(err_clear) struct err e = ERR_NULL;
	size_t n = waiting_pids(s, pids);
	int r;

	if (n == 0 || (s->cloud->state != CLOUD_STARTING && s->cloud->state != CLOUD_FORMING)) {
		scope_cancel(TAKE_PTR(s->cgroup.job));
		return false;
	}
	if (s->cgroup.generation != s->cloud->generation) {
		cgroups_forget(s);
		s->cgroup.generation = s->cloud->generation;
	}
	if (s->cgroup.asked)
		return s->cgroup.job != NULL;
	if (cg->kind == CGROUPS_NONE || fleet_now(s->fleet) < cg->not_before) {
		limits_missing(s);
		return false;
	}
	s->cgroup.asked = true;
	r = cg->kind == CGROUPS_SCOPE ? start_scope(s, pids, n, &e) : use_dir(s, pids, n, &e);
	if (r < 0)
		not_placed(s, r, err_msg(&e));
	return s->cgroup.job != NULL;
}

/* ---- its end ---- */

void cgroups_kill(struct supervised *s)
{
	const char *dir = locate(s);

	if (!dir || !cgroup_populated(dir))
		return;
	log_info("cloud %s: SIGKILL to all in %s", s->cloud->conf->name, dir);
	cgroup_kill(dir);
}

/* Whatever is left in it is killed, and waited for a short while. */
static bool end_group(const char *dir)
{
	if (cgroup_populated(dir))
		cgroup_kill(dir);
	for (unsigned i = 0; i < 50 && cgroup_populated(dir); i++)
		usleep(2000);
	if (cgroup_populated(dir))
		return false;
	if (!strstr(base_name(dir), SCOPE_SUFFIX)) /* which systemd removes */
		cgroup_remove(dir);
	return true;
}

void cgroups_clean(struct supervised *s)
{
	const char *dir = locate(s);

	if (dir && cgroup_populated(dir))
		log_warning("cloud %s: processes without our token were left in %s; killed",
			s->cloud->conf->name, dir);
	if (dir && !end_group(dir))
		log_warning("cloud %s: some process in %s does not end after SIGKILL",
			s->cloud->conf->name, dir);
	cgroups_forget(s);
}

static bool in_use(const struct fleet *f, const char *name)
{
	for (size_t i = 0; i < f->n; i++) {
		_cleanup_free_ char *own =
			f->clouds[i]->cgroup.asked ? own_name(f->clouds[i]) : NULL;
		size_t n = own ? strlen(own) : 0;

		if (own && strncmp(name, own, n) == 0 &&
			(!name[n] || streq(name + n, SCOPE_SUFFIX)))
			return true;
	}
	return false;
}

static void sweep_one(const char *dir, const char *name, void *arg)
{
	const struct fleet *f = arg;
	uint64_t generation;

	if (!cgroup_name_parse(name, f->id, NULL, &generation) || in_use(f, name))
		return;
	if (cgroup_populated(dir))
		log_warning("processes were left in %s by an earlier daemon; killed", dir);
	end_group(dir);
}

void cgroups_sweep(struct fleet *f)
{
	if (f->cgroups->parent)
		cgroup_each(f->cgroups->parent, sweep_one, f);
}

/* ---- what it tells ---- */

static int64_t oom_kills(struct supervised *s)
{
	const char *dir = locate(s);
	uint64_t n;

	return dir && cgroup_get_key(dir, "memory.events", "oom_kill", &n) == 0 ? (int64_t)n : -1;
}

void cgroups_oom_sample(struct supervised *s)
{
	s->cgroup.oom_before = s->cgroup.oom_now;
	s->cgroup.oom_now = MAX(oom_kills(s), (int64_t)0);
}

bool cgroups_oom(struct supervised *s, struct exit_evidence *ev)
{
	int64_t kills = oom_kills(s);
	uint64_t at_limit;

	if (kills < 0)
		return false;
	ev->kernel_oom_known = true;
	ev->kernel_oom = kills > s->cgroup.oom_before;
	/* "oom" counts only what happened at a limit of its own. */
	ev->memory_max_hit =
		ev->kernel_oom && memory_max(s) &&
		cgroup_get_key(s->cgroup.dir, "memory.events", "oom", &at_limit) == 0 && at_limit;
	return true;
}

/* The kernel works its averages out every two seconds; reading them more often would only cost. */
static void sample_pressure(struct supervised *s)
{
	uint64_t now = clock_monotonic_ms();
	const char *dir = locate(s);
	struct cgroup_pressure p;

	if (s->pressure.read_ms && now < s->pressure.read_ms + PRESSURE_MS &&
		s->pressure.last.own == (dir != NULL))
		return;
	s->pressure.read_ms = now;
	s->pressure.known = cgroup_read_pressure(dir, &p);
	s->pressure.last = (struct fleet_pressure){dir != NULL, p.cpu, p.memory, p.io};
}

bool fleet_pressure(struct fleet *f, const char *cloud, struct fleet_pressure *out)
{
	struct supervised *s = supervised_find(f, cloud);

	if (!s)
		return false;
	sample_pressure(s);
	*out = s->pressure.last;
	return s->pressure.known;
}
