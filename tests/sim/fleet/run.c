/* A run: daemons live and die, what the script says goes wrong and is asked for; then the world is
 * left in peace and everything must come about; then the fleet is ended, and nothing may be left.
 */
#include "world.h"

#include <errno.h>

#include "base/log.h"
#include "conf/created.h"
#include "core/internal.h"
#include "drv/bootcache.h"
#include "drv/bootentry.h"
#include "drv/logfile.h"
#include "drv/logrotate.h"
#include "drv/runtime.h"

struct world w;

static const struct script *script;
static uv_loop_t loop;
static struct {
	unsigned damage; /* the state file of that cloud (from 1) is torn */
	bool stray, left, leaving,
		replaced;   /* the next daemon only ends all; this one detaches, reexecs */
	uint64_t begins_at; /* the next life */
} next;

void vlog(const char *fmt, ...)
{
	va_list ap;

	if (!w.log)
		return;
	fprintf(w.log, "%10.6f ", (double)w.now / 1e6);
	va_start(ap, fmt);
	vfprintf(w.log, fmt, ap);
	va_end(ap);
	putc('\n', w.log);
}

void violated(const char *name, const char *fmt, ...)
{
	va_list ap;

	if (w.violation)
		return;
	w.violation = name;
	va_start(ap, fmt);
	vsnprintf(w.detail, sizeof(w.detail), fmt, ap);
	va_end(ap);
	vlog("violated: %s: %s", name, w.detail);
}

void __wrap_log_write(enum log_level level, const char *fmt, ...) _printf_(2, 3);
void __wrap_log_write(enum log_level level, const char *fmt, ...)
{
	_cleanup_free_ char *line = NULL;
	va_list ap;

	if (!w.log || w.ghost)
		return;
	va_start(ap, fmt);
	line = xvasprintf(fmt, ap);
	va_end(ap);
	vlog("<%d> %s", (int)level, line);
}

/* ---- the configuration ---- */

unsigned plan_index(const char *cloud)
{
	unsigned i = 0;

	while (i < MAX_CLOUDS && !streq(w.plan[i].name, cloud))
		i++;
	return i;
}

static uint64_t choice(const struct plan_cloud *p, unsigned what, uint64_t below)
{
	return noise(p->variant * 64 + what, hash_text(p->name), below);
}

/* key = value, of those that matter to how it lives. */
static void cloud_keys(const struct plan_cloud *p, struct strv *out)
{
	static const char *const gates[] = {"hold", "hold", "refuse", "off"};
	static const char *const restarts[] = {
		"always", "on-failure", "on-failure", "on-failure", "on-failure", "never"};
	unsigned i = plan_index(p->name), gate = (unsigned)choice(p, 1, 4);

	strv_printf(out, "nodes = %" PRIu64, 1 + choice(p, 0, 4));
	strv_printf(out, "gate_mode = %s", gates[gate]);
	if (gate < 2 && choice(p, 2, 2))
		strv_add(out, "start_on = connect");
	if (choice(p, 3, 3))
		strv_printf(out, "port = %u%s", choice(p, 4, 2) ? 54000 : 54100 + 40 * i, "+");
	else
		strv_printf(out, "port = %u", 54100 + 40 * i);
	strv_printf(out, "restart = %s", restarts[choice(p, 5, ARRAY_SIZE(restarts))]);
	strv_printf(out, "restart_delay = %" PRIu64 "ms", choice(p, 6, 3) * 500);
	strv_printf(out, "start_limit = %" PRIu64 " in 10m", 2 + choice(p, 7, 8));
	strv_printf(out, "ready_timeout = %" PRIu64 "s", 15 + choice(p, 8, 30));
	strv_printf(out, "health_interval = %" PRIu64 "ms", 300 + choice(p, 9, 1500));
	strv_printf(out, "late_after = %" PRIu64 "ms", 2000 + choice(p, 10, 2000));
	strv_printf(out, "hang_timeout = %" PRIu64 "s", 10 + choice(p, 11, 40));
	strv_printf(out, "stop_timeout = %" PRIu64 "ms", 1000 + choice(p, 12, 5000));
	strv_printf(out, "stop_method = %s", choice(p, 13, 4) ? "term" : "rest");
	if (choice(p, 14, 5) == 0)
		strv_printf(out, "max_idle_duration = %" PRIu64 "s", 3 + choice(p, 15, 30));
	strv_printf(out, "auto_recovery_dir = %s", choice(p, 16, 2) ? "auto" : "off");
	strv_printf(out, "autostart = %s", choice(p, 17, 5) ? "yes" : "no");
	strv_add(out, "max_mem_size = 64m");
}

static void conf_print_cloud(const struct plan_cloud *p, struct strv *lines)
{
	_cleanup_(strv_free) struct strv keys = STRV_NULL;

	strv_printf(lines, "[cloud %s]", p->name);
	strv_add(lines, "java = " WORLD_ROOT "/java/bin/java");
	strv_add(lines, "jar_path = " WORLD_ROOT "/h2o.jar");
	cloud_keys(p, &keys);
	for (size_t i = 0; i < keys.n; i++)
		strv_add(lines, keys.v[i]);
}

static void write_conf(void)
{
	_cleanup_(strv_free) struct strv lines = STRV_NULL;
	_cleanup_free_ char *text = xstrdup("");

	strv_add(&lines, "[fleet]");
	strv_add(&lines, "state_dir = " STATE_DIR);
	strv_add(&lines, "log_dir = " LOG_DIR);
	strv_add(&lines, "cache_dir = " WORLD_ROOT "/cache");
	strv_add(&lines, "socket = " WORLD_ROOT "/run/control.sock");
	strv_add(&lines, "scopes = no");
	strv_add(&lines, "baseport = 54000");
	strv_printf(&lines, "fast_boot_delay = %" PRIu64 "s", noise(1, 2, 20));
	for (size_t i = 0; i < MAX_CLOUDS; i++)
		if (w.plan[i].there && !w.plan[i].created)
			conf_print_cloud(&w.plan[i], &lines);
	for (size_t i = 0; i < lines.n; i++) {
		char *more = xasprintf("%s%s\n", text, lines.v[i]);

		free(text);
		text = more;
	}
	disk_write(CONF_FILE, text);
}

static struct conf *load_conf(bool strict)
{
	const struct conf_source from = {.file = CONF_FILE, .strict = strict};
	struct conf_errors errors = {0};
	struct conf *conf = NULL;

	if (conf_load_all(&from, &conf, &errors) < 0)
		vlog("the configuration: %s", errors.list.n ? errors.list.v[0] : "?");
	conf_errors_free(&errors);
	return conf;
}

/* ---- what core asks of drv that is not simulated in a file of its own ---- */

int __wrap_runtime_find_java(const char *configured, void *trace, char **path, struct err *e);
int __wrap_runtime_find_java(const char *configured, void *trace, char **path, struct err *e)
{
	(void)trace, (void)e;
	*path = xstrdup(configured ? configured : WORLD_ROOT "/java/bin/java");
	return 0;
}

int __wrap_runtime_find_jar(const char *configured, void *trace, char **path, struct err *e);
int __wrap_runtime_find_jar(const char *configured, void *trace, char **path, struct err *e)
{
	(void)trace, (void)e;
	*path = xstrdup(configured ? configured : WORLD_ROOT "/h2o.jar");
	return 0;
}

int __wrap_runtime_java_release(const char *java, int *major, char **version);
int __wrap_runtime_java_release(const char *java, int *major, char **version)
{
	(void)java;
	if (noise(3, 3, 2))
		return -ENOENT; /* it must be asked */
	*major = 17;
	*version = xstrdup("17.0.15");
	return 0;
}

int __wrap_runtime_jar_version(const char *jar, char **version, struct err *e);
int __wrap_runtime_jar_version(const char *jar, char **version, struct err *e)
{
	(void)jar, (void)e;
	*version = xstrdup("3.46.0.12");
	return 0;
}

/* A boot cache that has nothing yet: the builder is called. */
int __wrap_bootcache_find(
	const char *dir, const struct boot_runtime *rt, struct boot_found *out, struct err *e);
int __wrap_bootcache_find(
	const char *dir, const struct boot_runtime *rt, struct boot_found *out, struct err *e)
{
	(void)dir, (void)e;
	*out = (struct boot_found){.java_major = rt->java_major};
	return 0;
}

int __wrap_boot_identity_of(const struct boot_runtime *rt, struct boot_identity *id, struct err *e);
int __wrap_boot_identity_of(const struct boot_runtime *rt, struct boot_identity *id, struct err *e)
{
	(void)rt, (void)e;
	snprintf(id->key, sizeof(id->key), "0123456789abcdef");
	return 0;
}

uint64_t __wrap_logfile_end(const char *path);
uint64_t __wrap_logfile_end(const char *path)
{
	const struct inode *i = disk_find(path);

	return i ? i->len : 0;
}

int __wrap_logfile_tail(const char *path, uint64_t from, size_t lines, size_t max, char **out);
int __wrap_logfile_tail(const char *path, uint64_t from, size_t lines, size_t max, char **out)
{
	const struct inode *i = disk_find(path);
	size_t start;

	(void)lines;
	if (!i || !i->data || from >= i->len) {
		*out = xstrdup("");
		return 0;
	}
	start = i->len - from > max ? i->len - max : from;
	*out = xstrdup(i->data + start);
	return 0;
}

bool __wrap_logrotate_due(const char *log, uint64_t max_size, uint64_t max_age_ms);
bool __wrap_logrotate_due(const char *log, uint64_t max_size, uint64_t max_age_ms)
{
	(void)max_size, (void)max_age_ms;
	return noise(hash_text(log), w.now / SEC, 50) == 0;
}

/* What one image of the daemon gives to the next. */
static struct {
	char *name; /* owned */
	struct ofile *file;
} handed[8];

void __wrap_handover_add_fd(int fd, const char *fmt, ...) _printf_(2, 3);
void __wrap_handover_add_fd(int fd, const char *fmt, ...)
{
	size_t i = 0;
	va_list ap;

	while (handed[i].name)
		i++;
	va_start(ap, fmt);
	handed[i].name = xvasprintf(fmt, ap);
	va_end(ap);
	handed[i].file = fd_file(fd);
	handed[i].file->refs++;
}

int __wrap_handover_take_fd(const char *fmt, ...) _printf_(1, 2);
int __wrap_handover_take_fd(const char *fmt, ...)
{
	_cleanup_free_ char *name = NULL;
	va_list ap;

	va_start(ap, fmt);
	name = xvasprintf(fmt, ap);
	va_end(ap);
	for (size_t i = 0; i < ARRAY_SIZE(handed); i++) {
		if (!handed[i].name || !streq(handed[i].name, name))
			continue;
		free(TAKE_PTR(handed[i].name));
		return fd_of(TAKE_PTR(handed[i].file));
	}
	return -1;
}

static void drop_handed(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(handed); i++) {
		free(TAKE_PTR(handed[i].name));
		ofile_unref(TAKE_PTR(handed[i].file));
	}
}

/* ---- a daemon's life ---- */

static void on_done(void *arg)
{
	(void)arg;
	w.ended = true;
}

static void end_life(void)
{
	fleet_free(w.fleet);
	w.fleet = NULL;
	for (int i = 0; i < 100 && !loop_is_empty() && !w.ghost; i++)
		loop_turn();
	loop_close();
	invariant("handles", loop_is_empty(), "handles are open at the end of the loop");
	if (w.alive) {
		invariant("descriptors", !fds_open(), "%u descriptors are left open", fds_open());
		daemon_is_gone(next.replaced);
	}
	drop_handed();
	unnotify(NULL);
	w.ghost = false;
	next.begins_at = w.now + noise(4, w.now, 5) * SEC + noise(5, w.now, 500) * MS;
}

/* What an earlier daemon has left running, of a cloud that is gone or not. */
static void make_stray(void)
{
	const struct inode *i = disk_find(STATE_DIR "/fleet-id");
	_cleanup_free_ char *token = NULL;

	if (!i || i->len < 16)
		return;
	token = xasprintf(
		"H2OFLEET_TOKEN=%.16s/%s/0/1", i->data, noise(6, w.now, 2) ? "gone" : "a");
	vproc_new(V_HELPER, token)->cwd = xstrdup("/");
	w.strays++;
}

/* Half of it is left. */
static void damage(unsigned cloud)
{
	_cleanup_free_ char *path =
		xasprintf(STATE_DIR "/clouds/%s/state.json", w.plan[cloud].name);
	struct inode *i = disk_find(path);

	if (!i)
		return;
	i->len /= 2;
	i->data[i->len] = '\0';
	check_damaged(cloud);
}

static void begin_life(void)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct conf *conf;
	bool left = next.left, replaced = next.replaced;
	int r;

	next.left = next.leaving = next.replaced = false;
	w.lives++;
	w.ended = false;
	if (!replaced) {
		w.image++;
		w.pid = (pid_t)(1000 + w.image);
	}
	if (next.stray && !replaced)
		make_stray();
	next.stray = false;
	if (next.damage && !replaced)
		damage(next.damage - 1);
	next.damage = 0;
	w.alive = true;
	vlog("a daemon begins: pid %d%s", (int)w.pid, left ? ", to end what is left" : "");
	check_before_life();
	conf = load_conf(false);
	r = conf ? fleet_new(&loop, conf, &w.fleet, &e) : -EINVAL;
	drop_handed();
	if (r < 0) {
		vlog("it cannot begin: %s", err_msg(&e));
		w.fleet = NULL;
		for (int i = 0; i < 100 && !loop_is_empty() && !w.ghost; i++)
			loop_turn();
		loop_close();
		if (w.alive)
			daemon_is_gone(false);
		w.ghost = false;
		next.begins_at = w.now + 2 * SEC;
		return;
	}
	check_life();
	if (left)
		fleet_end_left_behind(w.fleet, on_done, NULL);
	else
		fleet_start(w.fleet);
	if (!w.ghost)
		processes_reap();
	if (!w.ghost && !left)
		check_after_life();
}

/* ---- what people ask for: in the daemon's loop, as requests come ---- */

/* The file only. */
static void edit(const struct step *s)
{
	struct plan_cloud *p = &w.plan[s->a % MAX_CLOUDS];

	if (s->c % 5 == 0 && !p->created)
		p->there = !p->there;
	else
		p->variant = s->c;
	write_conf();
}

static void reload(const struct step *s)
{
	struct reload_report report = {0};
	const struct reload_options opts = {.restart = s->b & 1};
	struct conf *conf;

	edit(s);
	conf = load_conf(true);
	if (conf)
		fleet_reload(w.fleet, conf, &opts, &report);
	reload_report_clear(&report);
}

/* A cloud of people's own, of which all that is known is what the daemon has said. */
static void make(const struct step *s, bool change)
{
	struct plan_cloud *p = &w.plan[s->a % MAX_CLOUDS];
	struct cloud_change ch = {0};
	_cleanup_(strv_free) struct strv keys = STRV_NULL, errors = STRV_NULL;
	struct cloud_conf *conf;
	int r = 0;

	if (p->there != change || (change && (!p->created || !fleet_find(w.fleet, p->name))))
		return;
	conf = cloud_conf_new(p->name);
	p->variant = s->c;
	strv_add(&keys, "java = " WORLD_ROOT "/java/bin/java");
	strv_add(&keys, "jar_path = " WORLD_ROOT "/h2o.jar");
	cloud_keys(p, &keys);
	for (size_t i = 0; i < keys.n && r == 0; i++) {
		char *value = strstr(keys.v[i], " = ");
		struct key_edit edit = {keys.v[i], value + 3};

		*value = '\0';
		r = created_edit(conf, &edit, 1, true, &errors);
	}
	conf->created = true;
	if (r < 0) {
		cloud_conf_free(conf);
		return;
	}
	check_making(p->name, true);
	r = change ? fleet_change_created(w.fleet, conf, &(struct fleet_who){0, true}, &ch, &errors)
		   : fleet_create(w.fleet, conf, &(struct fleet_who){0, true}, s->b & 1, &errors);
	if (change && r == 0)
		cloud_change_clear(&ch);
	check_made(p->name, r, change);
}

static void delete (const struct step *s)
{
	struct plan_cloud *p = &w.plan[s->a % MAX_CLOUDS];
	_cleanup_(strv_free) struct strv errors = STRV_NULL;
	int r;

	if (!p->created || !fleet_find(w.fleet, p->name))
		return;
	check_making(p->name, false);
	r = fleet_delete(w.fleet, p->name, &(struct fleet_who){0, true}, &errors);
	check_deleted(p->name, r);
}

static void reexec(void)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (fleet_ending(w.fleet) || fleet_hand_over(w.fleet, &e) < 0 || w.ghost)
		return;
	vlog("the daemon becomes another image");
	w.reexecs++;
	w.ghost = true;
	next.replaced = true;
	daemon_is_gone(true);
}

static void ask_jobs(const char *cloud, unsigned what)
{
	const struct cloud *c = fleet_find(w.fleet, cloud);
	struct fleet_jobs jobs;

	if (!c || !cloud_usable(c)) /* as the control protocol does */
		return;
	if (what % 3)
		fleet_jobs(w.fleet, cloud, fleet_now(w.fleet), &jobs);
	else
		fleet_cancel_job(w.fleet, cloud, "job_1");
}

static void operate(void *arg)
{
	const struct step *s = arg;
	const char *cloud = w.plan[s->a % MAX_CLOUDS].name;

	if (!w.fleet || next.leaving)
		return;
	switch (s->kind) {
	case STEP_START:
		fleet_command(w.fleet, cloud, FLEET_START, s->b % 10 == 0);
		break;
	case STEP_STOP:
		fleet_command(w.fleet, cloud, FLEET_STOP, s->b % 3 == 0);
		break;
	case STEP_RESTART:
		fleet_command(w.fleet, cloud, FLEET_RESTART, s->b % 3 == 0);
		break;
	case STEP_TOUCH:
		fleet_command(w.fleet, cloud, FLEET_TOUCH, false);
		break;
	case STEP_RELOAD:
		reload(s);
		break;
	case STEP_CREATE:
		make(s, false);
		break;
	case STEP_CHANGE:
		make(s, true);
		break;
	case STEP_DELETE:
		delete (s);
		break;
	case STEP_REEXEC:
		reexec();
		break;
	case STEP_DETACH:
		if (fleet_ending(w.fleet))
			break;
		fleet_detach(w.fleet);
		next.leaving = true;
		break;
	case STEP_END:
		fleet_shutdown(w.fleet, s->b & 1, on_done, NULL);
		break;
	default:
		ask_jobs(cloud, s->b);
		break;
	}
}

/* ---- what goes wrong ---- */

static void exits(struct vproc *p, unsigned how)
{
	static const struct {
		int code, signal;
		const char *line;
	} ways[] = {
		{255, 0, "some of the required ports are not available\n"},
		{1, 0, "ERROR: Unknown argument (x)\n"},
		{0, 0, "\n"},
		{1, 0, "Exception\n"},
		{3, 0, "Terminating due to java.lang.OutOfMemoryError\n"},
		{0, SIGABRT, "crash\n"},
		{0, SIGSEGV, "\n"},
		{143, 0, "\n"},
	};
	unsigned i = how % ARRAY_SIZE(ways);
	_cleanup_free_ char *report =
		xasprintf(LOG_DIR "/%s/hs_err_pid%d.log", p->h2o.cloud, (int)p->pid);

	if (p->output)
		inode_append(p->output->inode, ways[i].line);
	if (ways[i].signal == SIGABRT)
		disk_write(report, "# A fatal error\n");
	vproc_end(p, ways[i].code, ways[i].signal);
}

static void leaves(uint64_t id, uint64_t port)
{
	struct vproc *p = vproc_by_id(id);

	vport((uint16_t)port)->connection = false;
	if (p)
		vproc_end(p, 0, 0);
}

/* A server that takes the port as soon as it can, or some program's outgoing connection. */
static void thief(const char *cloud, const struct step *s)
{
	uint16_t port = 0;
	struct vport *v;
	struct vproc *p;

	for (p = w.procs; p && !port; p = p->next)
		if (p->kind == V_NODE && streq(p->h2o.cloud, cloud))
			port = (uint16_t)(p->h2o.port + s->b % 3 - (s->b % 3 == 2 ? 3 : 0));
	if (port < 54000)
		return;
	v = vport(port);
	if (v->listener || v->door || v->connection)
		return;
	if (s->c % 3 == 0 && !v->held) {
		v->connection = true;
		world_at(w.now + s->c * 20 * MS, leaves, 0, port);
		return;
	}
	p = vproc_new(V_STRANGER, NULL);
	port_listen(p, port);
	world_at(w.now + s->c * 20 * MS, leaves, vproc_id(p), port);
}

static void set_fault(const struct step *s)
{
	static const int errors[N_FAULTS] = {[FAULT_FORK] = EAGAIN,
		[FAULT_OPEN] = EMFILE,
		[FAULT_WRITE] = ENOSPC,
		[FAULT_HTTP] = EMFILE,
		[FAULT_LOOK] = EMFILE,
		[FAULT_BIND] = EMFILE,
		[FAULT_RENAME] = EIO,
		[FAULT_ADOPT] = EMFILE};
	unsigned f = s->a % N_FAULTS;

	w.faults[f].err = errors[f];
	w.faults[f].skip = s->b % 6;
	w.faults[f].count = s->b % 2 ? 1 : 1000;
	w.faults[f].until = w.now + (100 + s->c * (f == FAULT_HTTP ? 80 : 20)) * MS;
}

static void harm(struct vproc *p, const struct step *s)
{
	_cleanup_free_ char *grid = NULL;

	switch (s->kind) {
	case STEP_KILL:
		vproc_end(p, 0, SIGKILL);
		break;
	case STEP_EXIT:
		exits(p, s->c);
		break;
	case STEP_OOM:
		w.oom_kills++;
		vproc_end(p, 0, SIGKILL);
		break;
	case STEP_PAUSE:
		if (!h2o_paused(p))
			p->h2o.silent_since = w.now;
		p->h2o.paused_until = w.now + s->c * 80 * MS;
		break;
	case STEP_HANG:
		p->h2o.hung = true;
		break;
	case STEP_SLOW:
		p->h2o.slow_us = s->b * 4 * MS; /* later than late_after, at most */
		p->h2o.slow_until = w.now + s->c * 60 * MS;
		break;
	case STEP_LIE:
		p->h2o.lie = 1 + s->c % 9;
		p->h2o.lie_at = w.now;
		break;
	case STEP_LOCK:
		h2o_lock(p);
		break;
	case STEP_SHUTDOWN:
		h2o_shutdown(p);
		break;
	case STEP_STUCK:
		p->stuck = true;
		break;
	case STEP_HELPER:
		vproc_new(V_HELPER, p->token)->cwd = xstrdup("/");
		break;
	case STEP_GRID:
		grid = p->h2o.recovery ? xasprintf("%s/recovery.json", p->h2o.recovery) : NULL;
		if (grid)
			disk_write(grid, "{}");
		break;
	default:
		break;
	}
}

static void use(unsigned cloud, const struct step *s)
{
	struct vproc *p = h2o_member(w.plan[cloud].name, 0);

	if (!p || !p->h2o.serves_at)
		return;
	h2o_lock(p);
	if (!p->h2o.locked) /* it waits for consensus; and may wait in vain */
		return;
	w.worked_at[cloud] = MAX(w.worked_at[cloud], w.now + s->c * 40 * MS);
	w.used_at[cloud] = MAX(w.used_at[cloud], w.worked_at[cloud]);
}

static void to_machine(const struct step *s)
{
	struct vproc *gate = the_gate();

	switch (s->kind) {
	case STEP_CRASH:
		if (w.alive)
			w.crash_in = 1 + s->b % (s->c < 600 ? 12 : 300);
		break;
	case STEP_LEFT:
		next.left = true;
		if (w.alive)
			w.crash_in = 1;
		break;
	case STEP_GATE_KILL:
		if (gate)
			vproc_end(gate, 0, SIGKILL);
		break;
	case STEP_GATE_PAUSE:
		gate_pause(w.now + s->c * 80 * MS);
		break;
	case STEP_FAULT:
		set_fault(s);
		break;
	case STEP_SLEEP:
		w.slept += s->c * SEC;
		break;
	case STEP_FREEZE:
		w.frozen_until = w.now + s->c * 100 * MS;
		break;
	case STEP_CLOCK:
		w.wall_skew_ms += ((int64_t)s->c - 500) * 1000;
		break;
	case STEP_STRAY:
		next.stray = true;
		break;
	case STEP_DAMAGE:
		next.damage = 1 + s->a % MAX_CLOUDS;
		break;
	case STEP_EDIT:
		edit(s);
		break;
	case STEP_REBOOT:
		daemon_dies();
		processes_reboot();
		check_reboot();
		break;
	default:
		break;
	}
}

/* One of those that run; NULL: none does. */
static struct vproc *some_member(const char *cloud, unsigned which)
{
	struct vproc *there[MAX_MEMBERS];
	unsigned n = 0;

	for (unsigned i = 0; i < MAX_MEMBERS; i++)
		if ((there[n] = h2o_member(cloud, i)))
			n++;
	return n ? there[which % n] : NULL;
}

static void do_step(uint64_t i, uint64_t b)
{
	struct step *s = &script->steps[i];
	unsigned cloud = s->a % MAX_CLOUDS;
	struct vproc *p = some_member(w.plan[cloud].name, s->b);

	(void)b;
	if (w.peace)
		return;
	w.steps[s->kind]++;
	vlog("step %s %u %u %u", step_name(s->kind), s->a, s->b, s->c);
	if (s->kind == STEP_CLIENT)
		gate_client(w.plan[cloud].name);
	else if (s->kind == STEP_JOB)
		use(cloud, s);
	else if (s->kind == STEP_THIEF)
		thief(w.plan[cloud].name, s);
	else if (s->kind <= STEP_HELPER || s->kind == STEP_GRID)
		p ? harm(p, s) : (void)0;
	else if ((s->kind >= STEP_START && s->kind <= STEP_DELETE) || s->kind == STEP_REEXEC ||
		 s->kind == STEP_DETACH || s->kind == STEP_END || s->kind == STEP_JOBS)
		w.alive ? notify(operate, s) : (void)0;
	else
		to_machine(s);
}

/* ---- the run ---- */

static void turn(void)
{
	if (!w.fleet) {
		world_until(MAX(next.begins_at, w.now));
		begin_life();
	} else {
		loop_turn();
	}
	if (!w.fleet)
		return;
	if (w.ghost || w.ended || next.leaving)
		end_life();
	else
		check_turn();
}

static void make_peace(void)
{
	w.peace = true;
	w.frozen_until = w.crash_in = 0;
	next.left = false;
	for (struct vproc *p = w.procs; p; p = p->next) {
		if (p->kind == V_STRANGER && !p->token)
			vproc_end(p, 0, 0);
		p->stuck = p->ignores_term = false;
		p->h2o.lie = 0;
		p->h2o.slow_until = 0;
		p->h2o.paused_until = MIN(p->h2o.paused_until, w.now);
	}
	gate_pause(0);
	vlog("peace");
}

/* The loop turns at least once a second, so that what is checked after its turns is. */
static void tick(uint64_t a, uint64_t b)
{
	(void)a, (void)b;
	world_at(w.now + SEC, tick, 0, 0);
}

/* Until it is so; false: not in that time. */
static bool wait_for(bool (*fn)(void), uint64_t time)
{
	uint64_t until = w.now + time;

	while (!w.violation && !fn()) {
		if (w.now >= until)
			return false;
		turn();
	}
	return true;
}

static bool has_ended(void)
{
	return w.lives && !w.alive && !w.fleet;
}

/* What was given up works when it is started anew. */
static void start_failed(void)
{
	for (size_t i = 0; !w.violation && i < w.fleet->n; i++)
		if (w.fleet->clouds[i]->cloud->state == CLOUD_FAILED)
			fleet_command(
				w.fleet, w.fleet->clouds[i]->cloud->conf->name, FLEET_START, false);
}

static void world_new(const struct script *s)
{
	FILE *log = w.log;

	w = (struct world){.seed = s->seed, .now = SEC, .log = log, .loop = &loop, .next_pid = 300};
	script = s;
	memset(&next, 0, sizeof(next));
	world_forget_events();
	disk_new();
	net_new();
	h2o_new();
	check_new();
	w.exit_known = noise(7, 7, 2);
	w.no_pipes = noise(8, 8, 10) == 0;
	for (size_t i = 0; i < MAX_CLOUDS; i++) {
		snprintf(w.plan[i].name, sizeof(w.plan[i].name), "%c", (int)('a' + i));
		w.plan[i].there = i <= noise(9, 9, MAX_CLOUDS - 1);
	}
	write_conf();
	vproc_new(V_STRANGER, "H2OFLEET_TOKEN=00000000deadbeef/a/0/1"); /* another fleet's */
	tick(0, 0);
	for (size_t i = 0; i < s->n; i++)
		world_at(w.now + s->steps[i].at_ms * MS, do_step, i, 0);
}

static void world_end(void)
{
	if (w.fleet) { /* something was violated */
		w.ghost = true;
		w.alive = false;
		fds_close_all();
		end_life();
	}
	loop_close();
	world_forget_events();
	drop_handed();
	fds_close_all();
	processes_free();
	check_free();
	disk_free();
}

bool run_script(const struct script *s)
{
	uint64_t until;

	world_new(s);
	until = w.now + (s->n ? s->steps[s->n - 1].at_ms * MS : 0) + 20 * SEC;
	while (!w.violation && w.now < until)
		turn();
	make_peace();
	if (!wait_for(check_settled, 1800 * SEC))
		violated("liveness", "left in peace for half an hour, it is not as it is wanted");
	start_failed();
	if (!wait_for(check_all_well, 600 * SEC))
		violated(
			"liveness", "left in peace, a cloud that is started does not become ready");
	if (!w.violation)
		fleet_shutdown(w.fleet, false, on_done, NULL);
	if (!w.violation && !wait_for(has_ended, 300 * SEC))
		violated("end", "the fleet does not come to its end");
	if (!w.violation)
		check_nothing_left();
	world_end();
	return !w.violation;
}
